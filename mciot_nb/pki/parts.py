"""The parts of a certificate, read one by one: cryptography refuses a name, or all extensions, because of one of them.

An umlaut in a T61String, or an ediPartyName among the alternative names, is enough. OpenSSL and Java read both.
"""

import json
from contextlib import suppress
from datetime import datetime
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes as PublicKey

from mciot_nb.pki.files import DATA
from mciot_nb.pki.pbe import contents, oid, split

Extension = x509.Extension[x509.ExtensionType]
_Kind = TypeVar("_Kind", bound=x509.ExtensionType)

#: What the fields, extensions, usages and purposes of certificates are called, by openssl and by cryptography, and what
#: they mean here (RFC 5280).
WORDS = json.loads((DATA / "x509.json").read_text(encoding="utf-8"))
#: What cryptography raises for a part that it can't read.
UNREADABLE = (
    *(ValueError, TypeError, UnsupportedAlgorithm),
    *(x509.DuplicateExtension, x509.InvalidVersion, x509.UnsupportedGeneralNameType),
)


def extensions_of(certificate: x509.Certificate) -> list[Extension]:
    """Return the extensions; one that can't be read is an `x509.UnrecognizedExtension` with its bytes."""
    with suppress(*UNREADABLE):
        return list(certificate.extensions)
    *_, (_, whole) = signed_fields(certificate)
    return [_read(contents(each)) for each in contents(contents(whole)[0])]


def signed_fields(certificate: x509.Certificate) -> list[tuple[int, bytes]]:
    """Return tag and content of each field that is signed, but for the version (RFC 5280, section 4.1)."""
    return [(tag, field) for tag, field in split(contents(certificate.tbs_certificate_bytes)[0]) if tag != 0xA0]


def _read(parts: list[bytes]) -> Extension:
    """Let cryptography read one extension, as the only one of a certificate that is made for it."""
    number, critical = x509.ObjectIdentifier(oid(parts[0])), len(parts) > 2
    bare = x509.Extension(number, critical, x509.UnrecognizedExtension(number, parts[-1]))
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
