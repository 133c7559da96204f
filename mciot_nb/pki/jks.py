"""Java's own store format, JKS, byte for byte as keytool writes it. No RFC describes it: Java itself is the rule.

A file is ``FEEDFEED``, version 2, the number of entries, the entries, and a SHA-1 sum that hangs on the password. What
is in it can be read without the password; only private keys are hidden, by a scheme of SHA-1 alone, so keep the file
to yourself. Numbers are big-endian, passwords count in UTF-16.
"""

import hashlib
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.serialization import Encoding

MAGIC = b"\xfe\xed\xfe\xed"
_VERSION, _KEY, _TRUSTED = 2, 1, 2
_WHITENER = b"Mighty Aphrodite"  # Sun's people had fun
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class WrongPassword(ValueError):
    """The password is not the one, or somebody changed the bytes."""


@dataclass(frozen=True)
class JksEntry:
    """A trusted certificate, or a key that is still ``sealed`` with the chain that belongs to it."""

    alias: str
    created: datetime
    certificates: tuple[x509.Certificate, ...]
    sealed: bytes = b""


@asn1.sequence
class _Algorithm:
    oid: x509.ObjectIdentifier
    parameters: asn1.Null


@asn1.sequence
class _SealedKey:  # PKCS #8's EncryptedPrivateKeyInfo, RFC 5958, section 3
    algorithm: _Algorithm
    content: bytes


_KEY_PROTECTOR = _Algorithm(oid=x509.ObjectIdentifier("1.3.6.1.4.1.42.2.17.1.1"), parameters=asn1.Null())


def dump(entries: Iterable[JksEntry], password: str) -> bytes:
    """Write a store, its entries in the order given. Times are kept to the millisecond."""
    entries = list(entries)
    data = MAGIC + struct.pack(">II", _VERSION, len(entries))
    for entry in entries:
        milliseconds = (entry.created - _EPOCH) // timedelta(milliseconds=1)
        data += struct.pack(">I", _KEY if entry.sealed else _TRUSTED) + _text(entry.alias)
        data += struct.pack(">q", milliseconds)
        if entry.sealed:
            data += _sized(entry.sealed) + struct.pack(">I", len(entry.certificates))
        for certificate in entry.certificates:
            data += _text("X.509") + _sized(certificate.public_bytes(Encoding.DER))
    return data + _sum(data, password)


def load(data: bytes, password: str) -> list[JksEntry]:
    """Read a store; raises ValueError where it is damaged, `WrongPassword` where its sum is not the password's."""
    if len(data) < 32:
        raise ValueError("too short")
    reader = _Reader(data[:-20])
    if reader.take(4) != MAGIC or reader.number(">I") != _VERSION:
        raise ValueError("no JKS of version 2")
    entries = [_entry(reader) for _ in range(reader.number(">I"))]
    if not reader.is_at_end:
        raise ValueError("more than its entries")
    if data[-20:] != _sum(data[:-20], password):
        raise WrongPassword
    return entries


def _entry(reader: "_Reader") -> JksEntry:
    tag, alias = reader.number(">I"), reader.text()
    try:
        created = _EPOCH + timedelta(milliseconds=reader.number(">q"))
    except OverflowError:
        raise ValueError("a time out of all bounds") from None
    if tag == _TRUSTED:
        return JksEntry(alias, created, (reader.certificate(),))
    if tag != _KEY:
        raise ValueError("an entry of an unknown kind")
    sealed = reader.take(reader.number(">I"))
    if not sealed:
        raise ValueError("a key of no bytes")
    return JksEntry(alias, created, tuple(reader.certificate() for _ in range(reader.number(">I"))), sealed)


def encrypt_key(key: bytes, password: str, random: Callable[[int], bytes] = os.urandom) -> bytes:
    """Hide a private key, in PKCS #8 DER, under its password, as Java's KeyProtector does."""
    salt, secret = random(20), _utf16(password)
    hidden = _xor(key, secret, salt)
    content = salt + hidden + hashlib.sha1(secret + key).digest()
    return asn1.encode_der(_SealedKey(algorithm=_KEY_PROTECTOR, content=content))


def decrypt_key(sealed: bytes, password: str) -> bytes:
    """Give a private key back; raises ValueError where it is hidden otherwise, `WrongPassword` for another password."""
    whole = asn1.decode_der(_SealedKey, sealed)
    if whole.algorithm.oid != _KEY_PROTECTOR.oid or len(whole.content) < 40:
        raise ValueError("not hidden in JKS's way")
    secret = _utf16(password)
    key = _xor(whole.content[20:-20], secret, whole.content[:20])
    if hashlib.sha1(secret + key).digest() != whole.content[-20:]:
        raise WrongPassword
    return key


def _xor(data: bytes, secret: bytes, salt: bytes) -> bytes:
    stream, block = b"", salt
    while len(stream) < len(data):
        block = hashlib.sha1(secret + block).digest()
        stream += block
    return bytes(a ^ b for a, b in zip(data, stream, strict=False))


def _sum(data: bytes, password: str) -> bytes:
    return hashlib.sha1(_utf16(password) + _WHITENER + data).digest()


def _utf16(password: str) -> bytes:
    return password.encode("utf-16-be", "surrogatepass")


def _text(text: str) -> bytes:
    """Write text in Java's "modified UTF-8": a zero in two bytes, beyond FFFF the two halves of its UTF-16."""
    raw = b"".join(unit.encode("utf-8", "surrogatepass") for unit in _units(text)).replace(b"\0", b"\xc0\x80")
    return struct.pack(">H", len(raw)) + raw


def _units(text: str) -> Iterator[str]:
    encoded = text.encode("utf-16-be", "surrogatepass")
    return (chr(unit) for (unit,) in struct.iter_unpack(">H", encoded))


def _sized(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


class _Reader:
    """Takes one piece after the other, and never more than there is."""

    def __init__(self, data: bytes) -> None:
        self._data, self._position = data, 0

    @property
    def is_at_end(self) -> bool:
        return self._position == len(self._data)

    def take(self, length: int) -> bytes:
        begin, self._position = self._position, self._position + length
        if self._position > len(self._data):
            raise ValueError("it ends too early")
        return self._data[begin : self._position]

    def number(self, form: str) -> int:
        return int(struct.unpack(form, self.take(struct.calcsize(form)))[0])

    def text(self) -> str:
        """Read what `_text` writes."""
        raw = self.take(self.number(">H")).replace(b"\xc0\x80", b"\0")
        try:
            units = raw.decode("utf-8", "surrogatepass").encode("utf-16-le", "surrogatepass")
        except UnicodeError:
            raise ValueError("a name that is no text") from None
        return units.decode("utf-16-le", "replace")

    def certificate(self) -> x509.Certificate:
        if self.text() != "X.509":
            raise ValueError("a certificate that is no X.509")
        data = self.take(self.number(">I"))
        try:
            return x509.load_der_x509_certificate(data)
        except (ValueError, x509.InvalidVersion):
            raise ValueError("a certificate that can't be read") from None
