"""PKCS #12 stores (RFC 7292) as cryptography reads and writes them, and how to tell one of which it would lose a part.

cryptography returns one private key and a list of certificates. Java knows more: several keys, trusted certificates
beside a key, and an attribute without which it sees no trusted certificate. A store with more is refused by name.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC
from cryptography.hazmat.primitives.serialization import KeySerializationEncryption, PrivateFormat, pkcs12

from mciot_nb.pki.chain import is_issued_by
from mciot_nb.pki.keys import PrivateKey

#: Tags of ASN.1 (X.690, section 8.1.2).
_INTEGER, _OCTET_STRING, _NULL, _CONSTRUCTED, _SEQUENCE = 0x02, 0x04, 0x05, 0x20, 0x30
#: As many rounds of hashing does Java take.
_MOST_ROUNDS = 5_000_000
#: Object identifiers as they stand in a file: encrypted data (RFC 5652), PBES2, its digests and ciphers (RFC 8018, C).
_ENCRYPTED_DATA, _PBES2 = bytes.fromhex("2a864886f70d010706"), bytes.fromhex("2a864886f70d01050d")
_PRF: dict[bytes, type[hashes.HashAlgorithm]] = {
    bytes.fromhex("2a864886f70d0207"): hashes.SHA1,
    bytes.fromhex("2a864886f70d0209"): hashes.SHA256,
    bytes.fromhex("2a864886f70d020b"): hashes.SHA512,
}
_AES_KEY_BYTES = {bytes.fromhex("6086480165030401" + last): size for last, size in (("02", 16), ("16", 24), ("2a", 32))}
#: The kinds of bags and Java's trust attribute. So many bytes stand nowhere by chance, so they are counted.
_BAG = bytes.fromhex("060b2a864886f70d010c0a01")
_KEY_BAGS, _SECRET_BAG = (_BAG + b"\x01", _BAG + b"\x02"), _BAG + b"\x05"
_TRUST_ATTRIBUTE = bytes.fromhex("060c6086480186f966adca7b0101")
#: The one thing in a PKCS12 that no JKS holds.
SECRET_KEY = "a secret key"


class UnsupportedPkcs12(ValueError):
    """A store of which something would be lost here; says what that is."""


class NotPkcs12(ValueError):
    """The bytes are no PKCS #12 of version 3, or are damaged."""


@dataclass(frozen=True)
class Pkcs12Store:
    """A private key under its alias, with its chain, or certificates, each under its own; None is no alias.

    ``seen_by_java``: whether Java shows them: a key must be encrypted, a certificate bear the trust attribute; None if
    the encryption hides that attribute here. Without a MAC (``has_mac``) a changed byte can go unnoticed.
    """

    key: object
    entries: tuple[tuple[str | None, tuple[x509.Certificate, ...]], ...]
    seen_by_java: bool | None
    has_mac: bool


def dump_key(alias: str, key: PrivateKey, chain: Sequence[x509.Certificate], password: bytes) -> bytes:
    """Return a store with a key and its chain."""
    return pkcs12.serialize_key_and_certificates(alias.encode(), key, chain[0], chain[1:], _encryption(password))


def dump_trusted(trusted: Mapping[str, x509.Certificate], password: bytes) -> bytes:
    """Return a store with trusted certificates, each with Java's attribute."""
    entries = [pkcs12.PKCS12Certificate(certificate, alias.encode()) for alias, certificate in trusted.items()]
    return pkcs12.serialize_java_truststore(entries, _encryption(password))


def _encryption(password: bytes) -> KeySerializationEncryption:
    """Return the encryption that OpenSSL 3 and Java 17 use by default. A Java before 8u301 needs a JKS."""
    builder = PrivateFormat.PKCS12.encryption_builder().kdf_rounds(10000)
    return builder.key_cert_algorithm(pkcs12.PBES.PBESv2SHA256AndAES256CBC).hmac_hash(hashes.SHA256()).build(password)


@lru_cache(maxsize=4)  # opening an RSA-4096 key takes 0.3 s, and notebooks open the same store again and again
def load(data: bytes, password: bytes) -> Pkcs12Store:
    """Return what is in a store.

    Raises: UnsupportedPkcs12; NotPkcs12; ValueError: if the password is wrong, or the store is damaged deeper inside.
    """
    parts, has_mac = _structure(data)
    if b"\0" in password:
        raise ValueError("no password holds a NUL")  # cryptography would end the process
    try:
        with warnings.catch_warnings(action="ignore"):  # that a part in BER may be refused one day
            store = pkcs12.load_pkcs12(data, password)
    except x509.InvalidVersion as error:
        raise ValueError(str(error)) from None
    except UnsupportedAlgorithm:
        raise UnsupportedPkcs12("a key or an encryption of a kind that is not known here") from None
    if _SECRET_BAG in data:
        raise UnsupportedPkcs12(SECRET_KEY)
    if sum(map(data.count, _KEY_BAGS)) > (store.key is not None):  # keytool and openssl leave these bags in the open
        raise UnsupportedPkcs12("several keys")
    found = [(_alias(entry.friendly_name), entry.certificate) for entry in store.additional_certs]
    try:
        trusted = sum(_decrypt(part, password).count(_TRUST_ATTRIBUTE) for part in parts)
    except (ValueError, KeyError):  # not encrypted with PBES2 and AES
        trusted = None
    if store.key is None:
        if trusted and trusted < len(found):
            raise UnsupportedPkcs12("certificates that Java trusts and others that it does not")
        if trusted and len({alias for alias, _ in found}) < len(found):
            raise UnsupportedPkcs12("two certificates under one alias")
        seen = None if trusted is None else trusted > 0
        return Pkcs12Store(None, tuple((alias, (certificate,)) for alias, certificate in found), seen, has_mac)
    if store.cert is None:
        raise UnsupportedPkcs12("a key without its certificate")
    # If the attribute is hidden: keytool names the certificates of a chain by their subjects.
    if trusted or (trusted is None and any(alias and "=" not in alias for alias, _ in found)):
        raise UnsupportedPkcs12("trusted certificates beside its key")
    chain, rest = [store.cert.certificate], [certificate for _, certificate in found]
    while issuer := next((other for other in rest if is_issued_by(chain[-1], other) and other != chain[-1]), None):
        rest.remove(issuer)
        chain.append(issuer)
    if rest:
        raise UnsupportedPkcs12("certificates beside the chain of its key")
    entry = _alias(store.cert.friendly_name), tuple(chain)
    return Pkcs12Store(store.key, (entry,), _KEY_BAGS[0] not in data, has_mac)


def _alias(friendly_name: bytes | None) -> str | None:
    return None if friendly_name is None else friendly_name.decode(errors="replace").lower()  # as Java shows it


def is_whole(data: bytes) -> bool:
    """Whether ``data`` is one ASN.1 value, neither cut off nor followed by anything, as far as its length says."""
    with suppress(ValueError):
        return data[1:2] == b"\x80" or len(_split(data)) == 1  # of no length: the older form, refused by `load`
    return False


def _split(data: bytes) -> list[tuple[int, bytes]]:
    """Return tag and content of each ASN.1 value in ``data``. Raises: ValueError: if their lengths are not DER's."""
    values, begin = [], 0
    while begin < len(data):
        length, begin, tag = int.from_bytes(data[begin + 1 : begin + 2]), begin + 2, data[begin]
        if length >= 0x80:
            size = data[begin : begin + length - 0x80]
            length, begin = int.from_bytes(size), begin + len(size)
            if length < 0x80 or size[0] == 0:
                raise ValueError("a length that is not written in the shortest way")
        if begin + length > len(data):
            raise ValueError("it ends too early")
        values.append((tag, data[begin : begin + length]))
        begin += length
    return values


def _contents(data: bytes) -> list[bytes]:
    return [content for _, content in _split(data)]


def _structure(data: bytes) -> tuple[list[bytes], bool]:
    """Return the parts of a store (each a ContentInfo), and whether it has a MAC.

    Raises: NotPkcs12; UnsupportedPkcs12: if it is in BER, or would take minutes to open.
    """
    if data[:2] == b"\x30\x80":
        raise UnsupportedPkcs12("lengths in the older way of writing them (BER)")
    try:
        (pfx,) = _contents(data)
        version, safe, *mac = _contents(pfx)
        (octets,) = _contents(_contents(safe)[1])
        (parts,) = _contents(octets)
        # An algorithm's parameters are none, NULL or a sequence: OpenSSL would take anything instead of NULL.
        tags = [tag for one in mac for tag, _ in _split(_contents(_contents(one)[0])[0])[1:]]
        if version != b"\3" or len(mac) > 1 or tags not in ([], [_NULL], [_SEQUENCE]):
            raise NotPkcs12
        most, contents = max(_rounds(data), default=0), _contents(parts)
    except (ValueError, IndexError):
        raise NotPkcs12 from None
    if most > _MOST_ROUNDS:
        raise UnsupportedPkcs12("a password that is hashed over 5 million times")
    return contents, bool(mac)


def _rounds(data: bytes) -> Iterator[int]:
    """Yield each number that follows a salt: so often is a password hashed before it can turn out to be wrong."""
    waiting = [(_SEQUENCE, data)]
    while waiting:
        tag, data = waiting.pop()
        try:
            values = _split(data)
        except ValueError:
            if tag & _CONSTRUCTED:
                raise
            continue  # an octet string that only begins like a value
        for (before, _), (tag, content) in pairwise([(0, b""), *values]):
            if (before, tag) == (_OCTET_STRING, _INTEGER):
                yield int.from_bytes(content)
            if tag & _CONSTRUCTED or (tag == _OCTET_STRING and content[:1] == b"\x30"):
                waiting.append((tag, content))


def _decrypt(part: bytes, password: bytes) -> bytes:
    """Return the content of a ContentInfo (RFC 7292, section 4; RFC 8018, appendix A.4)."""
    kind, wrapped = _contents(part)
    (content,) = _contents(wrapped)
    if kind != _ENCRYPTED_DATA:
        return content
    _, algorithm, encrypted = _contents(_contents(content)[1])
    scheme, parameters = _contents(algorithm)
    if scheme != _PBES2:
        raise ValueError("not PBES2")
    (_, derivation), (cipher, iv) = map(_contents, _contents(parameters))
    (_, salt), (_, rounds), *options = _split(derivation)
    digest = next((_PRF[_contents(value)[0]] for tag, value in options if tag == _SEQUENCE), hashes.SHA1)
    key = PBKDF2HMAC(digest(), _AES_KEY_BYTES[cipher], salt, int.from_bytes(rounds)).derive(password)
    decryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).decryptor()
    unpadder = padding.PKCS7(128).unpadder()
    return unpadder.update(decryptor.update(encrypted) + decryptor.finalize()) + unpadder.finalize()
