"""What a password opens: PBES2 and PBMAC1 (RFC 8018), PKCS #12's own older way (RFC 7292, appendix B), and their ASN.1.

cryptography says ValueError to a wrong password and to much that it does not know. Here what a password protects is
looked at first, so that a right one is never called wrong.
"""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import TypeVar

from Crypto.Cipher import ARC2
from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.ciphers.algorithms import AES

from mciot_nb.pki.files import data_table

#: Tags of ASN.1 (X.690, section 8.1.2).
INTEGER, OCTET_STRING, NULL, OBJECT_IDENTIFIER, CONSTRUCTED, SEQUENCE = 0x02, 0x04, 0x05, 0x06, 0x20, 0x30
_IN_PIECES = OCTET_STRING | CONSTRUCTED
_PBES2, PBMAC1 = "1.2.840.113549.1.5.13", "1.2.840.113549.1.5.14"
_SHA2 = dict(enumerate(("sha256", "sha384", "sha512", "sha224"), 1))
DIGESTS = {"1.3.14.3.2.26": "sha1"} | {f"2.16.840.1.101.3.4.2.{n}": name for n, name in _SHA2.items()}
HMACS = {f"1.2.840.113549.2.{n}": name for n, name in enumerate(("sha1", "sha224", "sha256", "sha384", "sha512"), 7)}
_AES, _OLDER = "2.16.840.1.101.3.4.1.", "1.2.840.113549.1.12.1."
#: Ciphers in CBC mode with the bytes of their keys: of PBES2, of OpenSSL's older form of a key, and PKCS #12's own.
Made = type[AES | TripleDES] | None
_MADE: dict[str, Made] = {"AES": AES, "TripleDES": TripleDES, "RC2": None}
_CIPHERS = {row["name"]: (_MADE[row["cipher"]], int(row["bytes"])) for row in data_table("ciphers.csv")}
OLDER_CIPHER = "an older cipher"
#: How the numbers of those begin that are only named.
_NAMES = {
    **{"1.2.410.200046.1.1.": "ARIA", "1.2.392.200011.61.1.1.1.": "Camellia", _AES: "AES in an unusual mode"},
    **dict.fromkeys((_OLDER, "1.2.840.113549.1.5.", "1.2.840.113549.3.", "1.3.14.3.2."), OLDER_CIPHER),
}
T = TypeVar("T")


class UnknownEncryption(ValueError):
    """Something is encrypted in a way that is not known here; says in which."""


class WrongPassword(ValueError):
    """The password is not the right one, or the bytes were changed."""


def split(data: bytes, depth: int = 0) -> list[tuple[int, bytes]]:
    """Return tag and content of each ASN.1 value in ``data``, in DER, or without stated lengths, as NSS writes them.

    Raises: ValueError: if one is cut off, or its length is not written in the shortest way.
    """
    values, end = [], 0
    while end < len(data):
        tag, content, end = value(data, end, depth)
        values.append((tag, content))
    return values


def contents(data: bytes, tags: bytes = b"", optional: int = 0) -> list[bytes]:
    """Return the content of each ASN.1 value in ``data``; ``tags`` says which there have to be, but for the last ones.

    Raises: ValueError: as `split`, or if there are others.
    """
    values = split(data)
    if tags and not (tags.startswith(bytes(tag for tag, _ in values)) and len(values) >= len(tags) - optional):
        raise ValueError("another structure")
    return [content for _, content in values]


def is_whole(data: bytes) -> bool:
    """Whether ``data`` is one ASN.1 value, neither cut off nor followed by anything."""
    with suppress(ValueError):
        return len(split(data)) == 1
    return False


def value(data: bytes, at: int, depth: int = 0) -> tuple[int, bytes, int]:
    """Return tag and content of the value that begins there, and where it ends."""
    if at + 2 > len(data) or depth > 8:
        raise ValueError("it ends too early, or is nested too deep")
    tag, length, begin = data[at], data[at + 1], at + 2
    if length == 0x80 and tag & CONSTRUCTED:  # it ends where two zeros do (X.690, section 8.1.3.6)
        end, pieces = begin, b""
        while data[end : end + 2] != b"\0\0":
            _, piece, end = value(data, end, depth + 1)
            pieces += piece
        return (OCTET_STRING, pieces, end + 2) if tag == _IN_PIECES else (tag, data[begin:end], end + 2)
    if length >= 0x80:
        size = data[begin : begin + length - 0x80]
        length, begin = int.from_bytes(size), begin + len(size)
        if length < 0x80 or size[0] == 0:
            raise ValueError("a length that is not written in the shortest way")
    content, end = data[begin : begin + length], begin + length
    if len(content) < length:
        raise ValueError("it ends too early")
    return (OCTET_STRING, octets(tag, content, depth + 1), end) if tag == _IN_PIECES else (tag, content, end)


def octets(tag: int, content: bytes, depth: int = 0) -> bytes:
    """Return what is in an octet string, which may come in pieces."""
    return b"".join(piece for _, piece in split(content, depth)) if tag & CONSTRUCTED else content


def oid(content: bytes) -> str:
    """Return an object identifier in dots. Raises: ValueError: if it is none."""
    return asn1.decode_der(x509.ObjectIdentifier, bytes([0x06, len(content)]) + content).dotted_string


def number_of(algorithm: bytes) -> str:
    """Return the object identifier in the content of an AlgorithmIdentifier. Raises: ValueError."""
    number, *_ = contents(algorithm)
    return oid(number)


def known(table: Mapping[str, T], number: str) -> T:
    """Return what a table of object identifiers says. Raises: UnknownEncryption."""
    if number not in table:
        name = next((name for begin, name in _NAMES.items() if number.startswith(begin)), "a cipher")
        raise UnknownEncryption(f"{name} ({number})")
    return table[number]


def secrets(password: str) -> list[bytes]:
    """Return a password as PKCS #12 hashes it (RFC 7292, appendix B.1), an empty one in either of two ways."""
    zero_ended = f"{password}\0".encode("utf-16-be")
    return [zero_ended] if password else [zero_ended, b""]


def pkcs12_key(purpose: int, size: int, secret: bytes, salt: bytes, rounds: bytes, digest: str = "sha1") -> bytes:
    """Return a key (purpose 1), an initial value (2) or the key of a MAC (3): RFC 7292, appendix B.2."""
    hashed, block, turns = getattr(hashlib, digest), hashlib.new(digest).block_size, _checked(rounds)
    salted = b"".join((text * block)[: -(-len(text) // block) * block] for text in (salt, secret))
    key = b""
    while len(key) < size:
        part = bytes([purpose]) * block + salted
        for _ in range(turns):
            part = hashed(part).digest()
        key += part
        added = int.from_bytes((part * block)[:block]) + 1
        pieces = (int.from_bytes(salted[at : at + block]) + added for at in range(0, len(salted), block))
        salted = b"".join((piece % 256**block).to_bytes(block) for piece in pieces)
    return key[:size]


def derived_key(derivation: bytes, password: str, size: int = 0) -> bytes:
    """Return a key made by PBKDF2, of ``size`` bytes or as many as are stated. Raises: as `decrypt`."""
    kind, parameters = contents(derivation)
    (_, salt), (_, first), *more = split(parameters)
    if oid(kind) != "1.2.840.113549.1.5.12":
        raise UnknownEncryption(f"a password hash other than PBKDF2 ({oid(kind)})")
    size = size or min([64, *(int.from_bytes(content) for tag, content in more if tag == INTEGER)])
    digest = next((number_of(value) for tag, value in more if tag == SEQUENCE), next(iter(HMACS)))
    return hashlib.pbkdf2_hmac(known(HMACS, digest), password.encode(), salt, _checked(first), size)


def _checked(rounds: bytes) -> int:
    if int.from_bytes(rounds) > 5_000_000:  # Java takes no more; a file can ask for thousands of millions
        raise UnknownEncryption("a password that is hashed over 5 million times")
    return int.from_bytes(rounds)


def decrypt(algorithm: bytes, encrypted: bytes, password: str) -> bytes:
    """Return the ASN.1 sequence that is encrypted. ``algorithm`` is the content of its AlgorithmIdentifier.

    Raises: UnknownEncryption; WrongPassword, which damage looks like too; ValueError: for odd parameters.
    """
    scheme, parameters = contents(algorithm)
    first, second = contents(parameters)
    if oid(scheme) == _PBES2:
        number, iv = contents(second)
        made, size = known(_CIPHERS, oid(number))
        return _opened(made, [(derived_key(first, password, size), iv)], encrypted)
    made, size = known(_CIPHERS, oid(scheme))
    hashed = partial(pkcs12_key, salt=first, rounds=second)
    return _opened(made, [(hashed(1, size, one), hashed(2, 8, one)) for one in secrets(password)], encrypted)


def decrypt_pem(cipher: str, iv: bytes, encrypted: bytes, password: str) -> bytes:
    """Return a key in OpenSSL's older form, where the password is hashed with MD5. Raises: as `decrypt`."""
    (made, size), key = known(_CIPHERS, cipher), b""
    while len(key) < size:
        key += hashlib.md5(key[-16:] + password.encode() + iv[:8], usedforsecurity=False).digest()
    return _opened(made, [(key[:size], iv)], encrypted)


def _opened(made: Made, tries: list[tuple[bytes, bytes]], encrypted: bytes) -> bytes:
    """Return the ASN.1 sequence that a key and initial value open, without its padding. Raises: WrongPassword."""
    for key, iv in tries:
        with suppress(ValueError):
            if made is None:  # RC2, of which cryptography has no key as short as the older PKCS #12 uses
                plain = ARC2.new(key, ARC2.MODE_CBC, iv, effective_keylen=8 * len(key)).decrypt(encrypted)
            else:
                decryptor = Cipher(made(key), modes.CBC(iv)).decryptor()
                plain = decryptor.update(encrypted) + decryptor.finalize()
            tag, _, end = value(plain, 0)
            if tag == SEQUENCE and plain[end:] == bytes([len(plain) - end]) * (len(plain) - end):
                return plain[:end]
    raise WrongPassword
