"""Certificates of every odd shape, for the judge, and for those it is held against."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID

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
