"""Certificates of every odd shape, for the judge, and for those it is held against."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Extra = tuple[x509.ExtensionType, bool]
DAY, NOW = timedelta(days=1), datetime.now(UTC).replace(microsecond=0)


def called(*values: str, kind: _ASN1Type = _ASN1Type.UTF8String) -> x509.Name:
    """Return a name of a common name, and what it stands under: organization and unit."""
    oids = (NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME)
    return x509.Name([x509.NameAttribute(oid, value, kind) for oid, value in zip(oids, values, strict=False)][::-1])


@dataclass(frozen=True)
class Link:
    """A certificate, and the key that it speaks of."""

    certificate: x509.Certificate
    key: Any


def issue(
    subject: str | x509.Name,
    issuer: Link | None = None,
    *extensions: x509.ExtensionType | tuple[x509.ExtensionType, bool],
    key: Any = None,
    issuer_name: x509.Name | None = None,
    without: Sequence[type[x509.ExtensionType]] = (),
    begins: datetime = NOW - DAY,
    ends: datetime = NOW + 30 * DAY,
    **more: Any,
) -> Link:
    """Return a certificate; what ``extensions`` holds, each with or without its criticality, replaces the usual one."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    signer = issuer.key if issuer else key
    name = subject if isinstance(subject, x509.Name) else called(subject)
    signer_name = issuer_name or (issuer.certificate.subject if issuer else name)
    ca = more.pop("ca", issuer is None)
    given = [extension if isinstance(extension, tuple) else (extension, False) for extension in extensions]
    usual: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca, None), True),
        (usage("key_cert_sign", "crl_sign") if ca else usage("digital_signature"), True),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False),
    ]
    builder = x509.CertificateBuilder(signer_name, name, key.public_key(), x509.random_serial_number(), begins, ends)
    for extension, critical in given + [one for one in usual if not isinstance(one[0], tuple(map(type, dict(given))))]:
        if not isinstance(extension, tuple(without)):
            builder = builder.add_extension(extension, critical)
    digest = None if isinstance(signer, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey) else hashes.SHA256()
    return Link(builder.sign(signer, digest, **more), key)


def usage(*on: str) -> x509.KeyUsage:
    names = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign crl_sign"
    )
    return x509.KeyUsage(**{name: name in on for name in [*names.split(), "encipher_only", "decipher_only"]})


def known(usages: str) -> x509.ExtendedKeyUsage:
    return x509.ExtendedKeyUsage([getattr(ExtendedKeyUsageOID, name) for name in usages.split()])


def alternative(*names: x509.GeneralName) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName(names)


def constraints(permitted: Sequence[x509.GeneralName] = (), excluded: Sequence[x509.GeneralName] = ()) -> Extra:
    return x509.NameConstraints(permitted or None, excluded or None), True


def raw(oid: str, der: str, critical: bool = False) -> Extra:
    return x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), bytes.fromhex(der)), critical


class Shape(NamedTuple):
    """What a device presents, its own certificate first, with its key, and what is trusted."""

    presented: list[Link]
    anchors: list[Link]

    @property
    def chain(self) -> list[x509.Certificate]:
        return [link.certificate for link in self.presented]

    @property
    def trusted(self) -> list[x509.Certificate]:
        return [link.certificate for link in self.anchors]


def under(root: Link, *device: Any, name: Any = "device", **more: Any) -> Shape:
    """A device under a root, which is presented too."""
    return Shape([issue(name, root, *device, **more), root], [root])


def below(
    *extra: Any, device: Sequence[Any] = (), name: Any = "device", root: Link | None = None, **more: Any
) -> Shape:
    """A device under an intermediate with ``extra`` extensions."""
    root = root or issue("Root")
    middle = issue("Middle", root, *extra, ca=True, **more)
    return Shape([issue(name, middle, *device), middle, root], [root])


def named(*trees: Any, san: Sequence[x509.GeneralName] = (), name: Any = "device", excluded: Any = False) -> Shape:
    """A device under an intermediate with name constraints."""
    limits = constraints(excluded=trees) if excluded else constraints(trees)
    return below(limits, device=[alternative(*san)] if san else [], name=name)


def renewed(*extra: Any, with_old: bool = False) -> Shape:
    """A device under a root of which only the renewed certificate is trusted."""
    old = issue("Root")
    new = issue("Root", None, *extra, key=old.key)
    return Shape([issue("device", old), *[old] * with_old], [new])


def rolled_over() -> Shape:
    """A CA that has got a new key: the new one's certificate, signed with the old one, is self-issued."""
    root = issue("Root", None, (x509.BasicConstraints(True, 1), True))
    old = issue("Middle", root, (x509.BasicConstraints(True, 0), True), ca=True)
    new = issue("Middle", old, (x509.BasicConstraints(True, 0), True), ca=True)
    return Shape([issue("device", new), new, old, root], [root])


def chain_of(length: int) -> Shape:
    links = [issue("Root")]
    for number in range(length - 2):
        links.append(issue(f"CA {number}", links[-1], ca=True))
    return Shape([issue("device", links[-1]), *links[::-1]], links[:1])


def forged() -> Shape:
    root = issue("Root")
    return Shape(
        [issue("device", issue("Root", key=ec.generate_private_key(ec.SECP256R1())), without=KEY_IDS), root], [root]
    )


def namesakes(number: int, signer: int) -> Shape:
    roots = [issue("Root", without=KEY_IDS) for _ in range(number)]
    return Shape([issue("device", roots[signer], without=KEY_IDS)], roots)


def itself(*extra: Any, **more: Any) -> Shape:
    own = issue("device", None, *extra, **more)
    return Shape([own], [own])


def two_of_a_key(expired: datetime) -> Shape:
    """The root has an expired certificate and a valid one, of one key; the expired one is presented."""
    old = issue("Root", ends=expired)
    new = issue("Root", key=old.key)
    return Shape([issue("device", new), old], [old, new])


DNS, URI, MAIL, DIR = x509.DNSName, x509.UniformResourceIdentifier, x509.RFC822Name, x509.DirectoryName
KEY_IDS = (x509.SubjectKeyIdentifier, x509.AuthorityKeyIdentifier)
POLICY = x509.CertificatePolicies([x509.PolicyInformation(x509.ObjectIdentifier("1.2.3.4"), None)])
CA_USAGE, CA_BITS = x509.KeyUsage, x509.BasicConstraints
UNKNOWN = "1.3.6.1.4.1.99999.1"
UNIT = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Works")])
NET = ip_network("192.0.2.0/24")


def rsa_key(bits: int) -> Any:
    return rsa.generate_private_key(65537, bits)


#: By name, and made when asked for. Of each, tests ask OpenSSL's TLS server and Java what they make of it.
SHAPES: dict[str, Callable[[], Shape]] = {
    "plain": lambda: under(issue("Root")),
    "intermediate": below,
    "intermediate as anchor": lambda: Shape((shape := below()).presented[:2], shape.presented[1:2]),
    "root left out": lambda: Shape((shape := below()).presented[:2], shape.anchors),
    "device alone": lambda: Shape((shape := under(issue("Root"))).presented[:1], shape.anchors),
    "wrong order": lambda: Shape([(links := below().presented)[0], *links[:0:-1]], links[2:]),
    "intermediate missing": lambda: Shape([(links := below().presented)[0], links[2]], links[2:]),
    "twice the same": lambda: Shape([*(shape := below()).presented, *shape.presented[1:]], shape.anchors),
    "another chain with it": lambda: Shape([*(shape := below()).presented, *below().presented], shape.anchors),
    "unknown root": lambda: Shape(under(issue("Root")).presented, [issue("Other")]),
    "root of the same name": lambda: Shape(under(issue("Root")).presented, [issue("Root")]),
    "forged, without key identifiers": forged,
    "the last of five namesakes": lambda: namesakes(5, 4),
    "the first of five namesakes": lambda: namesakes(5, 0),
    "self-signed device, not trusted": lambda: Shape([issue("device", ca=False)], [issue("Root")]),
    "self-signed device, trusted": lambda: itself(ca=False),
    "self-signed CA as device, without key usage": lambda: itself(without=[x509.KeyUsage]),
    "self-signed CA as device, for both": lambda: itself(usage("digital_signature", "key_cert_sign")),
    "CA as device, trusted itself": itself,
    "intermediate as device": lambda: Shape(below().presented[1:], [issue("Root")]),
    "expired device": lambda: under(issue("Root"), ends=NOW - DAY / 2),
    "expired intermediate": lambda: below(ends=NOW - DAY / 2),
    "expired root": lambda: under(issue("Root", ends=NOW - DAY / 2)),
    "device not yet valid": lambda: under(issue("Root"), begins=NOW + DAY),
    "renewed root, same key": renewed,
    "renewed root, same key, another key identifier": lambda: renewed(x509.SubjectKeyIdentifier(b"another")),
    "renewed root, another key identifier, the old one with it": lambda: renewed(
        x509.SubjectKeyIdentifier(b"another"), with_old=True
    ),
    "renewed root, the old one with it": lambda: renewed(with_old=True),
    "renewed root beside the expired one": lambda: two_of_a_key(NOW - DAY / 2),
    "self-issued roll-over": rolled_over,
    "ten in the chain": lambda: chain_of(10),
    "forty in the chain": lambda: chain_of(40),
    # keys
    "CA on Ed25519": lambda: under(issue("Root", key=ed25519.Ed25519PrivateKey.generate())),
    "CA on Ed448": lambda: under(issue("Root", key=ed448.Ed448PrivateKey.generate())),
    "CA on P-224": lambda: under(issue("Root", key=ec.generate_private_key(ec.SECP224R1()))),
    "CA on P-521": lambda: under(issue("Root", key=ec.generate_private_key(ec.SECP521R1()))),
    "CA on brainpoolP256r1": lambda: under(issue("Root", key=ec.generate_private_key(ec.BrainpoolP256R1()))),
    "CA on secp256k1": lambda: under(issue("Root", key=ec.generate_private_key(ec.SECP256K1()))),
    "CA with RSA 1024": lambda: under(issue("Root", key=rsa_key(1024))),
    "CA with RSA 2048": lambda: under(issue("Root", key=rsa_key(2048))),
    "CA with RSA 2048, PSS": lambda: under(
        issue("Root", key=rsa_key(2048)), rsa_padding=padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    ),
    "intermediate on Ed25519": lambda: below(key=ed25519.Ed25519PrivateKey.generate()),
    "device with RSA 1024": lambda: under(issue("Root"), key=rsa_key(1024)),
    # basic constraints
    "no basic constraints on the root": lambda: under(issue("Root", without=[CA_BITS])),
    "no basic constraints on the intermediate": lambda: below(without=[CA_BITS]),
    "CA:false on the intermediate": lambda: below((CA_BITS(False, None), True)),
    "basic constraints not critical": lambda: below((CA_BITS(True, None), False)),
    "no basic constraints, no key usage on the intermediate": lambda: below(without=[CA_BITS, CA_USAGE]),
    "path length 0, a device": lambda: below((CA_BITS(True, 0), True)),
    "path length 0, a CA below": lambda: below(root=issue("Root", None, (CA_BITS(True, 0), True))),
    "path length 1, a CA below": lambda: below(root=issue("Root", None, (CA_BITS(True, 1), True))),
    "no basic constraints on the device": lambda: under(issue("Root"), without=[CA_BITS]),
    # key usage
    "root without key usage": lambda: under(issue("Root", without=[CA_USAGE])),
    "root without keyCertSign": lambda: under(issue("Root", None, usage("digital_signature", "crl_sign"))),
    "intermediate without keyCertSign": lambda: below(usage("digital_signature", "crl_sign")),
    "device without key usage": lambda: under(issue("Root"), without=[CA_USAGE]),
    "device with keyAgreement alone": lambda: under(issue("Root"), usage("key_agreement")),
    "device with keyEncipherment alone": lambda: under(issue("Root"), usage("key_encipherment")),
    "device with contentCommitment alone": lambda: under(issue("Root"), usage("content_commitment")),
    "device with keyCertSign": lambda: under(issue("Root"), usage("digital_signature", "key_cert_sign")),
    "clientAuth on the device": lambda: under(issue("Root"), known("CLIENT_AUTH")),
    "serverAuth on the device": lambda: under(issue("Root"), known("SERVER_AUTH")),
    "both on the device": lambda: under(issue("Root"), known("CLIENT_AUTH SERVER_AUTH")),
    "anyExtendedKeyUsage on the device": lambda: under(issue("Root"), known("ANY_EXTENDED_KEY_USAGE")),
    "critical codeSigning on the device": lambda: under(issue("Root"), (known("CODE_SIGNING"), True)),
    "empty extended key usage": lambda: under(issue("Root"), raw("2.5.29.37", "3000")),
    "serverAuth on the intermediate": lambda: below(known("SERVER_AUTH")),
    "clientAuth on the intermediate": lambda: below(known("CLIENT_AUTH")),
    "anyExtendedKeyUsage on the intermediate": lambda: below(known("ANY_EXTENDED_KEY_USAGE")),
    "serverAuth on the root": lambda: under(issue("Root", None, known("SERVER_AUTH"))),
    "Netscape type: server": lambda: under(issue("Root"), raw("2.16.840.1.113730.1.1", "03020640")),
    "Netscape type: client": lambda: under(issue("Root"), raw("2.16.840.1.113730.1.1", "03020780")),
    # extensions
    "critical policies": lambda: below((POLICY, True), device=[(POLICY, True)]),
    "policies that nothing above has": lambda: below(device=[(POLICY, True)]),
    "policy constraints": lambda: below((x509.PolicyConstraints(0, None), True)),
    "inhibitAnyPolicy": lambda: below((x509.InhibitAnyPolicy(0), True)),
    "unknown critical extension": lambda: under(issue("Root"), raw(UNKNOWN, "0500", True)),
    "unknown extension": lambda: under(issue("Root"), raw(UNKNOWN, "0500")),
    "unknown critical extension on the root": lambda: under(issue("Root", None, raw(UNKNOWN, "0500", True))),
    "malformed alternative name": lambda: under(issue("Root"), raw("2.5.29.17", "3006a5043002a100")),
    "X.400 address as alternative name": lambda: under(issue("Root"), raw("2.5.29.17", "3004a3020500")),
    "EDI party as alternative name": lambda: under(issue("Root"), raw("2.5.29.17", "3009a507a1050c03616263")),
    "no key identifiers at all": lambda: under(issue("Root", without=KEY_IDS), without=KEY_IDS),
    "critical authority key identifier": lambda: under(
        root := issue("Root"), (x509.AuthorityKeyIdentifier.from_issuer_public_key(root.key.public_key()), True)
    ),
    # names
    "no subject": lambda: under(issue("Root"), name=x509.Name([])),
    "no subject, an alternative name": lambda: under(issue("Root"), alternative(DNS("a.b")), name=x509.Name([])),
    "root in another string type": lambda: under(issue("Root"), issuer_name=called("Root", kind=_ASN1Type.BMPString)),
    "root in capitals": lambda: under(issue("Root"), issuer_name=called("ROOT")),
    "permitted DNS name": lambda: named(DNS("example.com"), san=[DNS("a.example.com")]),
    "DNS name that is not permitted": lambda: named(DNS("example.com"), san=[DNS("a.example.org")]),
    "DNS constraint with a leading dot": lambda: named(DNS(".example.com"), san=[DNS("a.example.com")]),
    "DNS constraint with a leading dot, the name itself": lambda: named(DNS(".example.com"), san=[DNS("example.com")]),
    "wildcard over an excluded DNS name": lambda: named(
        DNS("b.example.com"), san=[DNS("*.example.com")], excluded=True
    ),
    "excluded DNS name": lambda: named(DNS("example.com"), san=[DNS("a.example.com")], excluded=True),
    "DNS constraint, common name like a host": lambda: named(DNS("example.com"), name="dev.example.org"),
    "DNS constraint, plain common name": lambda: named(DNS("example.com")),
    "permitted URI": lambda: named(URI("example.com"), san=[URI("https://example.com/x")]),
    "URI that is not permitted": lambda: named(URI("example.com"), san=[URI("https://example.org/x")]),
    "permitted directory": lambda: named(DIR(UNIT), name=called("device", "Works")),
    "directory that is not permitted": lambda: named(DIR(UNIT), name=called("device", "Other")),
    "excluded directory": lambda: named(DIR(UNIT), name=called("device", "Works"), excluded=True),
    "permitted mailbox": lambda: named(MAIL("example.com"), san=[MAIL("a@example.com")]),
    "permitted address": lambda: named(x509.IPAddress(NET), san=[x509.IPAddress(ip_address("192.0.2.7"))]),
    "address that is not permitted": lambda: named(x509.IPAddress(NET), san=[x509.IPAddress(ip_address("192.0.3.7"))]),
    "constraint on registered identifiers": lambda: named(
        x509.RegisteredID(x509.ObjectIdentifier("1.2.3")), san=[x509.RegisteredID(x509.ObjectIdentifier("1.2.3"))]
    ),
    "constraints that are not critical": lambda: below((constraints([DNS("example.com")])[0], False)),
}
