"""The outer layers of a PKCS #12 (RFC 7292, section 4), to see what cryptography does not show: Java's trust mark."""

from collections.abc import Iterator
from typing import Annotated

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes, padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

#: RFC 8018, appendices A.2, B.1.2 and C: the parts of an encryption, by their identifiers.
_ENCRYPTED, _PBES2 = "1.2.840.113549.1.7.6", "1.2.840.113549.1.5.13"
_PRF: dict[str, type[hashes.HashAlgorithm]] = {
    "1.2.840.113549.2.7": hashes.SHA1,
    "1.2.840.113549.2.9": hashes.SHA256,
    "1.2.840.113549.2.11": hashes.SHA512,
}
#: Tags of ASN.1, and how often Java hashes a password at most.
_INTEGER, _OCTETS, _CONSTRUCTED, _MOST_ROUNDS = 0x02, 0x04, 0x20, 5_000_000
_AES_KEY_BYTES = {"2.16.840.1.101.3.4.1.2": 16, "2.16.840.1.101.3.4.1.22": 24, "2.16.840.1.101.3.4.1.42": 32}


class OddStore(ValueError):
    """A store of which something would be lost here; says what that is, and whether a JKS could hold it."""

    def __init__(self, what: str, *, fits_jks: bool = True) -> None:
        super().__init__(what)
        self.fits_jks = fits_jks


class NoPkcs12(ValueError):
    """The bytes are no PKCS #12 of version 3, or are damaged."""


@asn1.sequence
class _Algorithm:
    oid: x509.ObjectIdentifier
    parameters: asn1.TLV


@asn1.sequence
class _Prf:
    oid: x509.ObjectIdentifier
    parameters: asn1.Null | None


@asn1.sequence
class _Pbkdf2:
    salt: bytes
    iterations: int
    length: int | None
    prf: _Prf | None


@asn1.sequence
class _Pbes2:
    derivation: _Algorithm
    cipher: _Algorithm


@asn1.sequence
class _EncryptedContent:
    oid: x509.ObjectIdentifier
    algorithm: _Algorithm
    content: Annotated[bytes, asn1.Implicit(0)]


@asn1.sequence
class _EncryptedData:
    version: int
    content: _EncryptedContent


@asn1.sequence
class _ContentInfo:
    oid: x509.ObjectIdentifier
    content: Annotated[asn1.TLV, asn1.Explicit(0)]


@asn1.sequence
class _Safes:
    first: _ContentInfo
    second: _ContentInfo | None
    third: _ContentInfo | None


@asn1.sequence
class _Digest:
    algorithm: _Prf
    digest: bytes


@asn1.sequence
class _Mac:
    digest: _Digest
    salt: bytes
    iterations: int | None


@asn1.sequence
class Pfx:
    """The outermost layer: what the store holds, and the checksum that hangs on the password."""

    version: int
    safes: _ContentInfo
    mac: _Mac | None


def structure(data: bytes) -> Pfx:
    """Read the outermost layer; raises NoPkcs12, and OddStore where the file would take minutes or is not in DER."""
    if data[1:2] == b"\x80":
        raise OddStore("lengths in the older way of writing them (BER)")
    if max(_rounds(data), default=0) > _MOST_ROUNDS:
        raise OddStore("a password that is hashed over 5 million times")
    try:
        pfx = asn1.decode_der(Pfx, data)
    except ValueError:
        raise NoPkcs12 from None
    if pfx.version != 3:
        raise NoPkcs12
    return pfx


def _rounds(data: bytes, depth: int = 0) -> Iterator[int]:
    """Find the numbers that follow a salt: so often is a password hashed, before it can turn out to be wrong."""
    before = None
    while len(data) > 2 and depth < 20:
        tag, length, data = data[0], data[1], data[2:]
        if length > 0x80:
            count = length & 0x7F
            length, data = int.from_bytes(data[:count]), data[count:]
        body, data = data[:length], data[length:]
        if (before, tag) == (_OCTETS, _INTEGER):
            yield int.from_bytes(body)
        if tag & _CONSTRUCTED or (tag == _OCTETS and body[:1] == b"\x30"):
            yield from _rounds(body, depth + 1)
        before = tag


def _parts(pfx: Pfx) -> list[_ContentInfo]:
    safes = asn1.decode_der(_Safes, pfx.safes.content.parse(bytes))
    return [part for part in (safes.first, safes.second, safes.third) if part]


def hidden_length(pfx: Pfx) -> int:
    """Count the bytes that are encrypted, but for keys."""
    encrypted = (part.content.parse(_EncryptedData) for part in _parts(pfx) if part.oid.dotted_string == _ENCRYPTED)
    return sum(len(data.content.content) for data in encrypted)


def decrypted(pfx: Pfx, password: bytes) -> list[bytes]:
    """Give what each part of a store holds; raises ValueError or KeyError for an encryption other than PBES2's AES."""
    return [
        _decrypt(part.content.parse(_EncryptedData).content, password)
        if part.oid.dotted_string == _ENCRYPTED
        else part.content.parse(bytes)
        for part in _parts(pfx)
    ]


def _decrypt(encrypted: _EncryptedContent, password: bytes) -> bytes:
    if encrypted.algorithm.oid.dotted_string != _PBES2:
        raise ValueError("not PBES2")
    scheme = encrypted.algorithm.parameters.parse(_Pbes2)
    derivation = scheme.derivation.parameters.parse(_Pbkdf2)
    prf = _PRF[derivation.prf.oid.dotted_string] if derivation.prf else hashes.SHA1
    length = _AES_KEY_BYTES[scheme.cipher.oid.dotted_string]
    key = PBKDF2HMAC(prf(), length, derivation.salt, derivation.iterations).derive(password)
    decryptor = Cipher(algorithms.AES(key), modes.CBC(scheme.cipher.parameters.parse(bytes))).decryptor()
    unpadder = padding.PKCS7(128).unpadder()
    return unpadder.update(decryptor.update(encrypted.content) + decryptor.finalize()) + unpadder.finalize()
