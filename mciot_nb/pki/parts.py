"""The parts of a certificate, read one by one: cryptography refuses a name, or all extensions, because of one of them.

An umlaut in a T61String, or an ediPartyName among the alternative names, is enough. OpenSSL and Java read both.
"""

from contextlib import suppress
from typing import Annotated, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.serialization import Encoding

Extension = x509.Extension[x509.ExtensionType]
_Kind = TypeVar("_Kind", bound=x509.ExtensionType)

#: What cryptography raises for a part that it can't read.
UNREADABLE = (
    *(ValueError, TypeError, UnsupportedAlgorithm),
    *(x509.DuplicateExtension, x509.InvalidVersion, x509.UnsupportedGeneralNameType),
)


@asn1.sequence
class _Attribute:
    oid: x509.ObjectIdentifier
    value: asn1.TLV


@asn1.sequence
class _Extension:
    oid: x509.ObjectIdentifier
    critical: Annotated[bool, asn1.Default(False)]
    value: bytes


@asn1.sequence
class _Content:  # TBSCertificate in RFC 5280, section 4.1
    version: Annotated[int | None, asn1.Explicit(0)]
    serial: asn1.TLV
    algorithm: asn1.TLV
    issuer: list[asn1.SetOf[_Attribute]]
    validity: asn1.TLV
    subject: list[asn1.SetOf[_Attribute]]
    key: asn1.TLV
    issuer_id: Annotated[asn1.BitString | None, asn1.Implicit(1)]
    subject_id: Annotated[asn1.BitString | None, asn1.Implicit(2)]
    extensions: Annotated[list[_Extension] | None, asn1.Explicit(3)]


@asn1.sequence
class _Certificate:
    content: _Content
    algorithm: asn1.TLV
    signature: asn1.BitString


def extensions_of(certificate: x509.Certificate) -> list[Extension]:
    """Return the extensions; one that can't be read is an `x509.UnrecognizedExtension` with its bytes."""
    with suppress(*UNREADABLE):
        return list(certificate.extensions)
    read: list[Extension] = []
    with suppress(ValueError):
        copy = parse(certificate)
        for each in copy.content.extensions or ():
            copy.content.extensions = [each]  # cryptography shall see no other
            try:
                read += x509.load_der_x509_certificate(asn1.encode_der(copy)).extensions
            except UNREADABLE:
                bare = x509.UnrecognizedExtension(each.oid, each.value)
                read.append(x509.Extension(each.oid, each.critical, bare))
    return read


def extension_of(certificate: x509.Certificate, kind: type[_Kind]) -> _Kind | None:
    """Return the value of the extension of this kind; None where there is none, or several."""
    values = [each.value for each in extensions_of(certificate) if isinstance(each.value, kind)]
    return values[0] if len(values) == 1 else None


def parse(certificate: x509.Certificate) -> _Certificate:
    """Return what RFC 5280, section 4.1 has in a certificate, names and extensions unread. Raises: ValueError."""
    return asn1.decode_der(_Certificate, certificate.public_bytes(Encoding.DER))
