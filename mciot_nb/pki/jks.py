"""Java's own store format, JKS, byte for byte as keytool writes it. No RFC describes it: Java's source is the rule.

A file is ``FEEDFEED``, version 2, the number of entries, the entries, and a SHA-1 checksum keyed with the password.
What is in it can be read without the password; only private keys are encrypted, by a scheme of SHA-1 alone, so the
file must be protected. Numbers are big-endian, passwords are hashed in UTF-16.
"""

import hashlib
import io
import os
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from mciot_nb.pki import pbe

#: keytool's words for the kinds of entries, and ours for what Java does not show of a PKCS12.
KEY_ENTRY, TRUSTED_ENTRY, SECRET_ENTRY = "PrivateKeyEntry", "trustedCertEntry", "SecretKeyEntry"
HIDDEN_ENTRY = "not seen by Java"
MAGIC = b"\xfe\xed\xfe\xed"
_VERSION, _KEY, _TRUSTED = 2, 1, 2
_SALT = b"Mighty Aphrodite"  # a constant of Java's, before what the checksum covers
_ALGORITHM = bytes.fromhex("300e060a2b060104012a021101010500")  # 1.3.6.1.4.1.42.2.17.1.1, Java's KeyProtector
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Damaged(Exception):
    """A store that can't be read; says what is wrong with it."""


@dataclass(frozen=True)
class Entry:
    """What an alias names: a private key's chain, the key's own certificate first, or a trusted certificate.

    ``created`` is known of a JKS only. ``key`` is the key, as it is in the store: encrypted (PKCS #8).
    """

    alias: str
    kind: str
    chain: tuple[x509.Certificate, ...]
    created: datetime | None = None
    key: bytes = field(default=b"", repr=False, compare=False)


def dump(entries: Iterable[Entry], password: str) -> bytes:
    """Return a store with the entries in this order; aliases are ASCII. Times are kept to the millisecond."""
    entries = list(entries)
    data = MAGIC + struct.pack(">II", _VERSION, len(entries))
    for entry in entries:
        milliseconds = ((entry.created or _EPOCH) - _EPOCH) // timedelta(milliseconds=1)
        tag = _KEY if entry.key else _TRUSTED
        data += struct.pack(">I", tag) + _sized(entry.alias.encode(), ">H") + struct.pack(">q", milliseconds)
        if entry.key:
            data += _sized(entry.key) + struct.pack(">I", len(entry.chain))
        for certificate in entry.chain:
            data += _sized(b"X.509", ">H") + _sized(certificate.public_bytes(Encoding.DER))
    return data + _checksum(data, password)


def load(data: bytes, password: str) -> list[Entry]:
    """Return a store's entries. Raises: Damaged; pbe.WrongPassword if only the checksum is wrong."""
    file = io.BytesIO(data[:-20])
    try:
        if (file.read(4), _number(file)) != (MAGIC, _VERSION):
            raise Damaged("no JKS of version 2")
        entries = [_entry(file) for _ in range(_number(file))]
    except (ValueError, OverflowError, struct.error):
        raise Damaged("what it holds can't be read to its end") from None
    if file.read():
        raise Damaged("more than its entries")
    if data[-20:] != _checksum(data[:-20], password):
        raise pbe.WrongPassword
    return entries


def encrypt_key(key: bytes, password: str, random: Callable[[int], bytes] = os.urandom) -> bytes:
    """Return a private key (PKCS #8, DER) encrypted with its password, as Java's KeyProtector does."""
    salt, secret = random(20), _utf16(password)
    content = salt + _xor(key, secret, salt) + hashlib.sha1(secret + key).digest()
    return _der(0x30, _ALGORITHM + _der(0x04, content))  # EncryptedPrivateKeyInfo: RFC 5958, section 3


def decrypt_key(encrypted: bytes, password: str) -> bytes:
    """Return a private key (PKCS #8, DER). Raises: pbe.WrongPassword; ValueError: if it is hidden in another way."""
    (whole,) = pbe.contents(encrypted)
    algorithm, content = pbe.contents(whole, b"\x30\x04")
    if algorithm != _ALGORITHM[2:] or len(content) < 40:
        raise ValueError("not encrypted in JKS's way")
    secret = _utf16(password)
    key = _xor(content[20:-20], secret, content[:20])
    if hashlib.sha1(secret + key).digest() != content[-20:]:
        raise pbe.WrongPassword
    return key


def _der(tag: int, content: bytes) -> bytes:
    size = len(content).to_bytes((len(content).bit_length() + 7) // 8) if len(content) > 127 else b""
    return bytes([tag, 0x80 | len(size) if size else len(content)]) + size + content


def _xor(data: bytes, secret: bytes, salt: bytes) -> bytes:
    stream = salt
    while len(stream) < len(salt + data):
        stream += hashlib.sha1(secret + stream[-20:]).digest()
    return bytes(a ^ b for a, b in zip(data, stream[20:], strict=False))


def _checksum(data: bytes, password: str) -> bytes:
    return hashlib.sha1(_utf16(password) + _SALT + data).digest()


def _utf16(password: str) -> bytes:
    return password.encode("utf-16-be", "surrogatepass")


def _sized(data: bytes, form: str = ">I") -> bytes:
    return struct.pack(form, len(data)) + data


def _number(file: io.BytesIO, form: str = ">I") -> int:
    """Read a number. This and what follows raise `load`'s errors where there is none, or no such thing."""
    return int(struct.unpack(form, file.read(struct.calcsize(form)))[0])


def _piece(file: io.BytesIO, form: str = ">I") -> bytes:
    """Read what `_sized` writes."""
    length = _number(file, form)
    if len(data := file.read(length)) < length:
        raise ValueError
    return data


def _text(file: io.BytesIO) -> str:
    """Read text in Java's "modified UTF-8": a zero in two bytes, beyond FFFF the two halves of its UTF-16."""
    text = _piece(file, ">H").replace(b"\xc0\x80", b"\0").decode("utf-8", "surrogatepass")
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def read_certificate(der: bytes) -> x509.Certificate:
    """Return a certificate. Raises: Damaged."""
    try:
        return x509.load_der_x509_certificate(der)
    except (ValueError, x509.InvalidVersion):
        is_dsa = b"\x06\x07\x2a\x86\x48\xce\x38\x04\x01" in der  # 1.2.840.10040.4.1
        raise Damaged(f"a certificate {'of a DSA key' if is_dsa else 'that is damaged, or unusual'}") from None


def _entry(file: io.BytesIO) -> Entry:
    tag, alias, created = _number(file), _text(file), _EPOCH + timedelta(milliseconds=_number(file, ">q"))
    key, chain = _piece(file) if tag == _KEY else b"", []
    if tag != _TRUSTED and not key:  # keytool lists a key of no bytes as a key
        raise ValueError
    for _ in range(_number(file) if key else 1):
        if _text(file) != "X.509":
            raise ValueError
        chain.append(read_certificate(_piece(file)))
    return Entry(alias, KEY_ENTRY if key else TRUSTED_ENTRY, tuple(chain), created, key)
