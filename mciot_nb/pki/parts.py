"""The parts of a certificate, read one by one: cryptography refuses a name, or all extensions, because of one of them.

An umlaut in a T61String, or an ediPartyName among the alternative names, is enough. OpenSSL and Java read both.
"""

from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes as PublicKey

Extension = x509.Extension[x509.ExtensionType]
_Kind = TypeVar("_Kind", bound=x509.ExtensionType)

#: What cryptography raises for a part that it can't read.
UNREADABLE = (
    *(ValueError, TypeError, UnsupportedAlgorithm),
    *(x509.DuplicateExtension, x509.InvalidVersion, x509.UnsupportedGeneralNameType),
)


def extensions_of(certificate: x509.Certificate) -> list[Extension]:
    """Return the extensions; one that can't be read is an `x509.UnrecognizedExtension` with its bytes."""
    with suppress(*UNREADABLE):
        return list(certificate.extensions)
    *_, (_, _, whole) = values(next(values(certificate.tbs_certificate_bytes))[2])
    return [_read(list(values(each))) for _, _, each in values(next(values(whole))[2])]


def _read(parts: list[tuple[int, bytes, bytes]]) -> Extension:
    """Let cryptography read one extension, as the only one of a certificate that is made for it."""
    oid, critical = asn1.decode_der(x509.ObjectIdentifier, parts[0][1]), len(parts) > 2
    bare = x509.Extension(oid, critical, x509.UnrecognizedExtension(oid, parts[-1][2]))
    key, name, day = Ed25519PrivateKey.generate(), x509.Name([]), datetime(2000, 1, 1)
    with suppress(*UNREADABLE):
        made = x509.CertificateBuilder(name, name, key.public_key(), 1, day, day, [bare]).sign(key, None)
        return next(iter(made.extensions))
    return bare


def key_of(owner: x509.Certificate | x509.CertificateSigningRequest) -> PublicKey | None:
    """Return the public key of a certificate or a request; None where it can't be read."""
    with suppress(*UNREADABLE):
        return owner.public_key()
    return None


def extension_of(certificate: x509.Certificate, kind: type[_Kind]) -> _Kind | None:
    """Return the value of the extension of this kind; None where there is none, or several."""
    found = [each.value for each in extensions_of(certificate) if isinstance(each.value, kind)]
    return found[0] if len(found) == 1 else None


def values(der: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield what stands in DER that cryptography has checked: each value's tag, itself and its content (X.690, 8.1)."""
    while der:
        begin = 2 + max(der[1] - 0x80, 0)
        end = begin + (int.from_bytes(der[2:begin]) if begin > 2 else der[1])
        yield der[0], der[:end], der[begin:end]
        der = der[end:]
