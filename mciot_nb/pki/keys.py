"""Private keys and certificate signing requests, as ``openssl genrsa`` and ``openssl req`` make them."""

import base64
import re
import shlex
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import NoReturn

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from mciot_nb.errors import OnboardingError, fault
from mciot_nb.pki import pbe
from mciot_nb.pki.config import CA_DAYS
from mciot_nb.pki.files import read_file, write_whole
from mciot_nb.pki.names import DistinguishedName, subject_option
from mciot_nb.pki.parts import UNREADABLE, WORDS, key_of
from mciot_nb.secret import Secret, reveal

#: What signs a certificate or a request, and what the platform takes.
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
Request = x509.CertificateSigningRequest

#: The shortest RSA key that is still safe (the guide: "at least 2048 bits").
SHORTEST_RSA = 2048
#: openssl takes passphrases from 4 bytes, and reads 1023 at a prompt.
SHORTEST_PASSPHRASE, LONGEST_PASSPHRASE = 4, 1023

#: A private key in PEM form.
KEY_BLOCK = re.compile(
    rb"-----BEGIN (?P<label>[A-Z0-9 ]*)PRIVATE KEY-----\s+(Proc-Type: 4,ENCRYPTED\s+DEK-Info: (?P<cipher>[^,\s]+),"
    rb"(?P<iv>[0-9A-F]+)\s+)?(?P<body>[^-]*)-----END (?P=label)PRIVATE KEY-----",
)
#: Kinds of keys, by how their numbers begin (RFC 8017, RFC 5480, RFC 8410, RFC 9881).
_KINDS = WORDS["kinds"]


class OtherKey(ValueError):
    """A private key that is of no use here; says of what kind it is."""


class KeyType(StrEnum):
    """The kinds of key that the helper makes. The guide's own is ``RSA_4096``.

    Example: ``KeyChoice(KeyType.P256, days=365)``.
    """

    RSA_2048 = "RSA 2048"
    RSA_3072 = "RSA 3072"
    RSA_4096 = "RSA 4096"
    P256 = "P-256"

    @classmethod
    def _missing_(cls, value: object) -> NoReturn:
        offered = ", ".join(f"KeyType.{kind.name}" for kind in cls)
        raise OnboardingError(f"There is no key type {value!r} here: give one of {offered}.", "BAD_KEY")

    @classmethod
    def of(cls, owner: x509.Certificate | Request | PrivateKey) -> "KeyType | None":
        """Return the kind of the key in ``owner``, or None for a kind that `create_key` does not make."""
        key = owner.public_key() if isinstance(owner, PrivateKey) else key_of(owner)
        if isinstance(key, rsa.RSAPublicKey):
            return next((kind for kind in cls if kind == f"RSA {key.key_size}"), None)
        return cls.P256 if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1) else None


@dataclass(frozen=True)
class KeyChoice:
    """The kind of key to make, and the number of days for which its certificate is valid.

    ``key_type`` is None for a key that is there already and of a kind that `create_key` does not make.

    Example: ``workspace.create_ca(subject, KeyChoice(KeyType.P256, days=3650))``.
    """

    key_type: KeyType | None
    days: int

    @classmethod
    def of(cls, certificate: x509.Certificate) -> "KeyChoice":
        """Return the kind of key and the whole days of ``certificate``."""
        return cls(KeyType.of(certificate), (certificate.not_valid_after_utc - certificate.not_valid_before_utc).days)

    def changed(self, key_type: KeyType | None = None, days: int | None = None) -> "KeyChoice":
        """Return this choice with what is asked for; None asks for nothing."""
        return KeyChoice(self.key_type if key_type is None else KeyType(key_type), self.days if days is None else days)


def create_key(path: Path, passphrase: Secret | str, key_type: KeyType = KeyType.RSA_4096) -> PrivateKey:
    """Make a private key and write it encrypted (AES-256, mode 0600), as ``openssl genrsa -aes256 -out PATH`` does.

    Example: ``key = create_key(folder / "deviceKey.pem", workspace.passphrase, KeyType.P256)``

    Raises: OnboardingError: EXISTS, BAD_PASSPHRASE if openssl would refuse the passphrase, BAD_KEY for another type.
    """
    password, key = encode_passphrase(passphrase), new_key(KeyType(key_type))
    write_whole(path, encrypted_pem(key, password), private=True)
    return key


def new_key(key_type: KeyType) -> PrivateKey:
    """Return a new private key."""
    if key_type is KeyType.P256:
        return ec.generate_private_key(ec.SECP256R1())
    return rsa.generate_private_key(public_exponent=65537, key_size=int(key_type.removeprefix("RSA ")))


def encrypted_pem(key: PrivateKey, password: bytes) -> bytes:
    """Return a private key in PEM form, encrypted with AES-256 as openssl's ``-aes256`` does."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password))


def encode_passphrase(passphrase: Secret | str) -> bytes:
    """Return the passphrase's bytes. Raises: OnboardingError: BAD_PASSPHRASE if openssl would refuse it."""
    try:
        password = reveal(passphrase).encode()
    except UnicodeEncodeError:  # from an environment that is not in UTF-8
        password = b""
    if not SHORTEST_PASSPHRASE <= len(password) <= LONGEST_PASSPHRASE:
        raise fault("BAD_PASSPHRASE.length", shortest=SHORTEST_PASSPHRASE, longest=LONGEST_PASSPHRASE)
    return password


def read_private_key(path: Path, passphrase: Secret | str) -> PrivateKey:
    """Open a private key in PEM form. Raises: OnboardingError: NO_FILE, BAD_PEM, BAD_KEY, WRONG_PASSPHRASE.

    Example: ``key = read_private_key(workspace.device_file("deviceKey.pem"), workspace.passphrase)``
    """
    pem = read_file(path, f"There is no key {path}: create it first.")
    block, name = KEY_BLOCK.search(pem), shlex.quote(str(path))
    if not block:
        raise OnboardingError(f"{path} is not a private key in PEM form: give the file that genrsa wrote.", "BAD_PEM")
    if block["label"] == b"OPENSSH ":
        raise fault("BAD_KEY.openssh", path=path, name=name)
    try:
        return _load_pem(block[0], reveal(passphrase) if b"ENCRYPTED" in block[0] else "")
    except OtherKey as other:
        raise OnboardingError(f"{path} holds {other}: make an RSA key, or an EC key on P-256.", "BAD_KEY") from None
    except pbe.UnknownEncryption as unknown:
        legacy = "-provider legacy -provider default " if pbe.OLDER_CIPHER in str(unknown) else ""
        raise fault("BAD_KEY.cipher", path=path, cipher=unknown, legacy=legacy, name=name) from None
    except ValueError:
        raise fault("WRONG_PASSPHRASE.key", path=path) from None


@lru_cache(maxsize=16)  # the check of an RSA key takes 0.2 s: once in a process is enough
def _load_pem(pem: bytes, passphrase: str) -> PrivateKey:
    """Return the key in a PEM block, in the form of PKCS #8 or OpenSSL's older one. Raises: as `open_key`."""
    block = KEY_BLOCK.fullmatch(pem)
    assert block
    data, label = base64.b64decode(block["body"]), block["label"].decode().strip()
    if label in ("", "ENCRYPTED"):
        return open_key(data, passphrase)
    if block["cipher"]:
        data = pbe.decrypt_pem(block["cipher"].decode(), bytes.fromhex(block["iv"].decode()), data, passphrase)
    return _usable(data, data, label)


@lru_cache(maxsize=4)
def open_key(data: bytes, password: str) -> PrivateKey:
    """Return a private key (PKCS #8, DER, perhaps encrypted). Raises: as `pbe.decrypt` does; OtherKey; ValueError."""
    (whole,) = pbe.contents(data)
    (tag, first), (second, content), *rest = pbe.split(whole)
    if tag == pbe.SEQUENCE:
        return open_key(pbe.decrypt(first, pbe.octets(second, content), password), "")
    number, ((_, inside), *_) = pbe.number_of(content), rest
    return _usable(data, inside, next((name for begin, name in _KINDS.items() if number.startswith(begin)), number))


def _usable(data: bytes, inside: bytes, kind: str) -> PrivateKey:
    """Return the key in ``data``; ``inside`` is its own form, of PKCS #1 or such. Raises: OtherKey; ValueError."""
    with suppress(*UNREADABLE):
        key = serialization.load_der_private_key(data, None)
        if isinstance(key, PrivateKey):
            return key
    if kind == "RSA":
        (numbers,) = pbe.contents(inside)
        version, *_ = pbe.contents(numbers)
        kind = "RSA of more than two primes" if version == b"\1" else "RSA, damaged"
    raise OtherKey(f"a key of the kind {kind.replace('EC', 'EC, damaged or of a curve that is unknown or unnamed')}")


def is_key_of(certificate: x509.Certificate, key: PrivateKey) -> bool:
    """Whether ``key`` is the private half of the certificate's; False if that one can't be read."""
    return key_of(certificate) == key.public_key()


def create_request(path: Path, key: PrivateKey, subject: DistinguishedName) -> Request:
    """Write a request, as ``openssl req -new -sha256`` does. Raises: OnboardingError: EXISTS if the file exists.

    Example: ``request = create_request(folder / "deviceCsr.pem", key, DistinguishedName(common_name="device-2"))``
    """
    request = new_request(key, subject)
    write_whole(path, request.public_bytes(Encoding.PEM))
    return request


def new_request(key: PrivateKey, subject: DistinguishedName) -> Request:
    """Return a new request."""
    return x509.CertificateSigningRequestBuilder().subject_name(subject.to_x509()).sign(key, SHA256())


def read_request(path: Path) -> Request:
    """Read a certificate signing request. Raises: OnboardingError: NO_FILE, BAD_PEM if it is damaged, BAD_REQUEST."""
    pem = read_file(path, f"There is no request {path}: create it first.")
    try:
        return x509.load_pem_x509_csr(pem)
    except (ValueError, x509.InvalidVersion):
        raise fault("BAD_PEM.request", path=path) from None


def certificate_command(subject: DistinguishedName, days: int = CA_DAYS) -> str:
    """Return the command that makes the CA's certificate (guide: "Creating a self-signed CA certificate", step 8)."""
    made = f"-new -x509 -days {days} -sha256 -extensions v3_ca -subj {shlex.quote(subject_option(subject))}"
    return f"openssl req -config caConfig.cnf -utf8 -key caKey.pem {made} -out caCert.pem"


def request_command(subject: DistinguishedName, config: str = "caConfig.cnf", name: str = "device") -> str:
    """Return the command that makes a request, the ``device``'s or the ``intermediate``'s, with the file ``config``."""
    file = f"deviceCertificates/{name}" if name == "device" else name
    made = f"-new -sha256 -key {file}Key.pem -subj {shlex.quote(subject_option(subject))} -out {file}Csr.pem"
    return f"openssl req -config {shlex.quote(config)} -utf8 {made}"
