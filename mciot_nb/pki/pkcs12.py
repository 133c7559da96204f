"""PKCS #12 stores (RFC 7292), as far as cryptography goes, and how to tell a file with which it would go wrong.

cryptography gives one private key and a heap of certificates. Java knows more: several keys in a file, trusted
certificates beside a key, and a mark without which it sees no trusted certificate at all. A file of which something
would be lost is refused here.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes, padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC
from cryptography.hazmat.primitives.serialization import KeySerializationEncryption, PrivateFormat, pkcs12

from mciot_nb.pki.chain import is_issued_by
from mciot_nb.pki.keys import PrivateKey

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


class UnsupportedPkcs12(ValueError):
    """A store of which something would be lost here; says what that is, and whether a JKS could hold it."""

    def __init__(self, what: str, *, fits_jks: bool = True) -> None:
        super().__init__(what)
        self.fits_jks = fits_jks


class NotPkcs12(ValueError):
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
        raise UnsupportedPkcs12("lengths in the older way of writing them (BER)")
    if max(_rounds(data), default=0) > _MOST_ROUNDS:
        raise UnsupportedPkcs12("a password that is hashed over 5 million times")
    try:
        pfx = asn1.decode_der(Pfx, data)
    except ValueError:
        raise NotPkcs12 from None
    if pfx.version != 3:
        raise NotPkcs12
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


#: How a bag's kind and Java's trust mark stand in a file. So many bytes stand nowhere by chance, so they are counted.
_BAG = bytes.fromhex("060b2a864886f70d010c0a01")
_KEY_BAGS, _SECRET_BAG = (_BAG + b"\x01", _BAG + b"\x02"), _BAG + b"\x05"
_TRUST_MARK = bytes.fromhex("060c6086480186f966adca7b0101")


@dataclass(frozen=True)
class Contents:
    """One private key under its alias, with its chain, or certificates under theirs; None is no alias."""

    key: object
    alias: str | None
    chain: tuple[x509.Certificate, ...]
    certificates: tuple[tuple[str | None, x509.Certificate], ...]
    #: Whether Java sees the key, which has to be encrypted, or the certificates, which have to bear its mark.
    seen_by_java: bool
    #: Whether a changed byte would be noticed.
    has_mac: bool


def dump_key(alias: str, key: PrivateKey, chain: Sequence[x509.Certificate], password: bytes, legacy: bool) -> bytes:
    """Write a store with a key and its chain."""
    encryption = _encryption(password, legacy)
    return pkcs12.serialize_key_and_certificates(alias.encode(), key, chain[0], chain[1:], encryption)


def dump_trusted(trusted: Mapping[str, x509.Certificate], password: bytes, legacy: bool) -> bytes:
    """Write a store with trusted certificates, marked as Java wants it."""
    entries = [pkcs12.PKCS12Certificate(certificate, alias.encode()) for alias, certificate in trusted.items()]
    return pkcs12.serialize_java_truststore(entries, _encryption(password, legacy))


def _encryption(password: bytes, legacy: bool) -> KeySerializationEncryption:
    """Encrypt as OpenSSL 3 and Java 17 do by default, or as a Java before 8u301 can read it."""
    scheme = pkcs12.PBES.PBESv1SHA1And3KeyTripleDESCBC if legacy else pkcs12.PBES.PBESv2SHA256AndAES256CBC
    builder = PrivateFormat.PKCS12.encryption_builder().kdf_rounds(10000).key_cert_algorithm(scheme)
    return builder.hmac_hash(hashes.SHA1() if legacy else hashes.SHA256()).build(password)


def load(data: bytes, password: bytes) -> Contents:
    """Read a store.

    Raises OddStore where something would be lost, NoPkcs12, and ValueError where the password is wrong, or the store
    is damaged behind its structure.
    """
    pfx = structure(data)
    if b"\0" in password:
        raise ValueError("no password holds a NUL")  # and cryptography would not survive it
    try:
        store = _decrypted(data, password)
    except x509.InvalidVersion as error:
        raise ValueError(str(error)) from None
    except UnsupportedAlgorithm:
        raise UnsupportedPkcs12("a key or an encryption of a kind that is not known here") from None
    if _SECRET_BAG in data:
        raise UnsupportedPkcs12("a secret key", fits_jks=False)
    if sum(map(data.count, _KEY_BAGS)) > (store.key is not None):  # keytool and openssl leave these bags in the open
        raise UnsupportedPkcs12("several keys")
    found = [(_text(entry.friendly_name), entry.certificate) for entry in store.additional_certs]
    if store.key is None:
        return Contents(None, None, (), tuple(found), _are_marked(pfx, password, found), pfx.mac is not None)
    if store.cert is None:
        raise UnsupportedPkcs12("a key without its certificate")
    if _is_one_marked(pfx, password, found):
        raise UnsupportedPkcs12("trusted certificates beside its key")
    chain, rest = [store.cert.certificate], [certificate for _, certificate in found]
    while issuer := next((other for other in rest if is_issued_by(chain[-1], other) and other != chain[-1]), None):
        rest.remove(issuer)
        chain.append(issuer)
    if rest:
        raise UnsupportedPkcs12("certificates beside the chain of its key")
    alias, seen = _text(store.cert.friendly_name), _KEY_BAGS[0] not in data
    return Contents(store.key, alias, tuple(chain), (), seen, pfx.mac is not None)


@lru_cache(maxsize=16)  # the check of an RSA key takes 0.2 s: once in a process is enough
def _decrypted(data: bytes, password: bytes) -> pkcs12.PKCS12KeyAndCertificates:
    return pkcs12.load_pkcs12(data, password)


def _text(friendly_name: bytes | None) -> str | None:
    return None if friendly_name is None else friendly_name.decode(errors="replace").lower()  # as Java shows it


def _are_marked(pfx: Pfx, password: bytes, found: Sequence[tuple[str | None, x509.Certificate]]) -> bool:
    """Whether a store's certificates bear Java's trust mark, all of them."""
    try:
        marks = sum(content.count(_TRUST_MARK) for content in decrypted(pfx, password))
    except (ValueError, KeyError):  # an older encryption: the marks make longer what it hides
        entries = [pkcs12.PKCS12Certificate(certificate, (alias or "").encode()) for alias, certificate in found]
        marked = pkcs12.serialize_java_truststore(entries, _encryption(password or b" ", True)) if entries else b""
        marks = len(found) if entries and hidden_length(pfx) >= hidden_length(structure(marked)) else 0
    if 0 < marks < len(found):
        raise UnsupportedPkcs12("certificates that Java trusts and others that it does not")
    aliases = [alias for alias, _ in found]
    if marks and len(set(aliases)) < len(aliases):
        raise UnsupportedPkcs12("two certificates under one alias")
    return marks > 0


def _is_one_marked(pfx: Pfx, password: bytes, found: Sequence[tuple[str | None, x509.Certificate]]) -> bool:
    try:
        return any(_TRUST_MARK in content for content in decrypted(pfx, password))
    except (ValueError, KeyError):  # an older encryption: keytool names a chain's certificates by their subjects
        return any(alias and "=" not in alias for alias, _ in found)
