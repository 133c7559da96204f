"""OpenSSL's verdict on a chain, as a TLS server asks for it, and our sentence for each of its errors.

The numbers are those of openssl/x509_vfy.h; ``man X509_STORE_CTX_get_error`` says what each means. What OpenSSL leaves
out, or pyOpenSSL can't ask for, is checked here: purposes, the profile of RFC 5280, and what Java judges otherwise.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID
from cryptography.x509.oid import SignatureAlgorithmOID as _OID

from mciot_nb.errors import REFUSED, STRICT, Finding, finding
from mciot_nb.pki.files import data_table
from mciot_nb.pki.names import name_of, readable
from mciot_nb.pki.parts import extension_of, extensions_of, key_of

if TYPE_CHECKING:
    from OpenSSL.crypto import X509

SIGNATURE_FAILURE, INVALID_PURPOSE = 7, 26
DATES = 9, 10  # not valid yet, and expired
NO_ISSUER = (2, SIGNATURE_FAILURE, 18, 19, 20, 21)  # no certificate that is trusted made a signature
NO_CRL = 3
_OF_NO_CERTIFICATE = (1, 17, 69, 70)
#: Flags of ``man X509_VERIFY_PARAM_set_flags``: X509_STRICT, NO_CHECK_TIME, CRL_CHECK, PARTIAL_CHAIN.
STRICTLY, NO_DATES, WITH_CRLS, _EACH_TRUSTED = 0x20, 0x200000, 0x4, 0x80000
#: What OpenSSL compares at most below one CA (NAME_CHECK_MAX in its sources). A quarter of a second.
_MOST_PAIRS = 1 << 20
_NETSCAPE_TYPE = x509.ObjectIdentifier("2.16.840.1.113730.1.1")
#: A host's name (RFC 1034, section 3.5) or a mailbox; empty for a name of another kind.
_HOST_OR_MAILBOX = re.compile(r"([^@]+@[^@]+)|(?!.*\.[0-9]+$)([A-Za-z0-9*-]+(\.[A-Za-z0-9*-]+)*)?")
_CURVES_OF_JAVA = ("secp256r1", "secp384r1", "secp521r1")
_OLD_SIGNATURES = {_OID.RSA_WITH_MD5: "MD5", _OID.RSA_WITH_SHA1: "SHA-1", _OID.ECDSA_WITH_SHA1: "SHA-1"}

TAKEN_BY_JAVA = ", which a Java platform takes"
#: By OpenSSL's error: a code, what is wrong with a certificate, and what to do; 0 is for those that we don't know.
_SENTENCES = {int(row["error"]): (row["code"], row["what"], row["advice"]) for row in data_table("openssl_errors.csv")}


class Verdict(NamedTuple):
    """OpenSSL's error, 0 for none; the depth and the certificate it is about; and the path, where there is none."""

    error: int
    depth: int
    certificate: x509.Certificate
    path: tuple[x509.Certificate, ...] = ()


@lru_cache(4096)
def to_openssl(certificate: x509.Certificate) -> "X509":
    """Return a certificate as pyOpenSSL has it, which reads it anew: a megabyte for thirty connections."""
    from OpenSSL.crypto import X509

    return X509.from_cryptography(certificate)


def ask_openssl(
    presented: Sequence[x509.Certificate],
    anchors: Sequence[x509.Certificate],
    at: datetime,
    flags: int = 0,
    crls: Iterable[x509.CertificateRevocationList] = (),
) -> Verdict:
    """Return the verdict of `X509_verify_cert` on a chain, each anchor being trusted by itself (PARTIAL_CHAIN).

    It looks at no purpose and at the length of no key, unlike a handshake. ``at`` is taken in whole seconds.
    """
    from OpenSSL.crypto import X509, Error, X509Store, X509StoreContext, X509StoreContextError

    every = (*presented, *anchors)
    names = sum(len(_alternatives(one)) for one in every)
    if names * sum(len(_trees(one)) for one in every) > _MOST_PAIRS:
        return Verdict(1, 0, presented[0])
    store = X509Store()
    store.set_time(at.astimezone(UTC))
    store.set_flags(_EACH_TRUSTED | flags)
    try:
        for anchor in anchors:
            store.add_cert(to_openssl(anchor))
        for crl in crls:
            store.add_crl(crl)
        device, *others = map(X509.from_cryptography, presented)  # not kept: a class of devices is many
        path = X509StoreContext(store, device, others).get_verified_chain()
    except X509StoreContextError as error:
        number, depth, _ = error.errors
        known = number not in _OF_NO_CERTIFICATE
        return Verdict(number, depth, error.certificate.to_cryptography() if known else presented[0])
    except Error:  # on what cryptography reads and OpenSSL does not
        return Verdict(5 if crls else 41, 0, presented[0])
    return Verdict(0, 0, presented[0], tuple(certificate.to_cryptography() for certificate in path))


def refusal(error: int, certificate: x509.Certificate, depth: int, java: str = "", severity: str = REFUSED) -> Finding:
    """Return our sentence for one of OpenSSL's errors; ``java`` adds that a Java platform takes it."""
    if error == INVALID_PURPOSE and (found := purpose_finding(certificate, depth)):
        return found
    code, what, advice = _SENTENCES.get(error, _SENTENCES[0])
    what = what.format(begins=certificate.not_valid_before_utc, ends=certificate.not_valid_after_utc, error=error)
    if error == 79 and (usage := extension_of(certificate, x509.KeyUsage)) and not usage.key_cert_sign:
        what, advice = "lacks keyCertSign in its key usage, so it can't sign certificates", _SENTENCES[92][2]
    if severity == STRICT:
        code, what = "STRICT", f"{what}, which strict verifiers, such as Python 3.13's default, refuse"
    return Finding(code, f"{the(certificate)} {what}{java}: {advice}.", severity, certificate)


def purpose_finding(certificate: x509.Certificate, depth: int, java: bool = False) -> Finding | None:
    """Return why a TLS server takes a certificate for no client's, or for none of a CA of clients.

    ``java``: whether it is trusted itself, so that a Java platform takes it for every purpose.
    """
    usage = extension_of(certificate, x509.KeyUsage)
    others = {extension.oid: extension.value for extension in extensions_of(certificate)}
    purposes = others.get(ExtensionOID.EXTENDED_KEY_USAGE)
    known = list(purposes) if isinstance(purposes, x509.ExtendedKeyUsage) else []  # an empty one is read by nobody
    netscape = others.get(_NETSCAPE_TYPE)
    if purposes and ExtendedKeyUsageOID.CLIENT_AUTH not in known:
        java |= depth > 0 or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in known
        lacks = "its extended key usage does not allow clientAuth"
    elif not depth and usage and not (usage.digital_signature or usage.key_agreement):
        lacks = "its key usage lacks digitalSignature"
    elif not depth and isinstance(netscape, x509.UnrecognizedExtension) and not netscape.value[-1] & 0x80:
        lacks = "its Netscape certificate type is not that of a client"
    else:
        return None
    sort, taken = "of a CA for devices" if depth else "a device's", TAKEN_BY_JAVA * java
    sentence = f"{the(certificate)} is not {sort}, because {lacks}{taken}: sign it as one."
    return Finding("INVALID_PURPOSE", sentence, certificate=certificate)


def the(certificate: x509.Certificate) -> str:
    """Return what a sentence about a certificate begins with."""
    name = readable(name_of(certificate))
    return f"The certificate of {name}" if name else f"The certificate without a name, {certificate.serial_number:X},"


def strict_findings(path: Sequence[x509.Certificate], at: datetime) -> Iterator[Finding]:
    """Yield what is accepted here, and refused by strict verifiers or by Java."""
    verdict = ask_openssl(path, path[-1:], at, STRICTLY | NO_DATES)  # `examine` has looked at those
    if verdict.error:
        yield refusal(verdict.error, verdict.certificate, verdict.depth, "", STRICT)
    stars = [name[1:] for name in _alternatives(path[0]) if name.startswith("*.")]
    excluded = [_text(tree) for ca in path for tree in _trees(ca, permitted=False)]
    if any(tree.endswith(star) for tree in excluded for star in stars):
        yield finding("STRICT.wildcard", STRICT, path[0], certificate=the(path[0]))
    for depth, certificate in enumerate(path):
        if slips := [slip for slip, is_there in _slips(certificate).items() if is_there]:
            yield finding("STRICT.slips", STRICT, certificate, certificate=the(certificate), slips=" and ".join(slips))
        yield from _oddities(certificate, depth if len(path) > 1 else -1, certificate == path[-1])


def _slips(certificate: x509.Certificate) -> dict[str, bool]:
    """Return what of RFC 5280's profile OpenSSL 4.0 does not look at, even strictly."""
    critical = {extension.oid: extension.critical for extension in extensions_of(certificate)}
    ca, trees = getattr(extension_of(certificate, x509.BasicConstraints), "ca", False), _trees(certificate)
    dotted = [tree for tree in trees if isinstance(tree, x509.DNSName) and tree.value.startswith(".")]
    named = name_of(certificate).rdns or critical.get(ExtensionOID.SUBJECT_ALTERNATIVE_NAME)
    return {
        "a serial number that is not positive, or longer than 20 bytes": not 0 < certificate.serial_number < 1 << 159,
        "basic constraints that are not critical": ca and not critical[ExtensionOID.BASIC_CONSTRAINTS],
        "name constraints that are not critical": not critical.get(ExtensionOID.NAME_CONSTRAINTS, True),
        "policy constraints that are not critical": not critical.get(ExtensionOID.POLICY_CONSTRAINTS, True),
        "name constraints without being a CA's": bool(trees) and not ca,
        "name constraints that begin with a dot": bool(dotted),
        "an alternative name that is malformed": not all(map(_HOST_OR_MAILBOX.fullmatch, _alternatives(certificate))),
        "neither a subject nor a critical alternative name": not named,
    }


def _oddities(certificate: x509.Certificate, depth: int, last: bool) -> Iterator[Finding]:
    """Yield what else is taken here alone. ``last``: whether it is the trust anchor."""
    usage, subject = extension_of(certificate, x509.KeyUsage), the(certificate)
    if depth == 0 and certificate.version == x509.Version.v1:
        yield finding("VERSION_1", STRICT, certificate, certificate=subject)
    if usage and depth == 0 and usage.key_agreement and not usage.digital_signature:
        yield finding("JAVA.usage", STRICT, certificate, certificate=subject)
    key = key_of(certificate)
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name not in _CURVES_OF_JAVA:
        yield finding("JAVA.curve", STRICT, certificate, certificate=subject, curve=key.curve.name)
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < 2048:
        yield finding("WEAK_KEY", STRICT, certificate, certificate=subject, size=key.key_size)
    if not last and (old := _OLD_SIGNATURES.get(certificate.signature_algorithm_oid)):
        yield finding("WEAK_SIGNATURE", STRICT, certificate, certificate=subject, digest=old)


def _trees(certificate: x509.Certificate, permitted: bool = True) -> list[x509.GeneralName]:
    constraints = extension_of(certificate, x509.NameConstraints)
    if constraints is None:
        return []
    return [*((permitted and constraints.permitted_subtrees) or ()), *(constraints.excluded_subtrees or ())]


def _alternatives(certificate: x509.Certificate) -> list[str]:
    return [_text(name) for name in extension_of(certificate, x509.SubjectAlternativeName) or ()]


def _text(name: x509.GeneralName) -> str:
    return name.value if isinstance(name, x509.DNSName | x509.RFC822Name) else ""
