"""Private keys and certificate signing requests, as ``openssl genrsa`` and ``openssl req`` make them."""

import shlex
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import NoReturn

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from mciot_nb.errors import OnboardingError
from mciot_nb.pki.config import CA_DAYS
from mciot_nb.pki.files import read_file, write_whole
from mciot_nb.pki.names import DistinguishedName, subject_option
from mciot_nb.secret import Secret, reveal

#: What signs a certificate or a request, and what the platform takes.
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
Request = x509.CertificateSigningRequest

#: The shortest RSA key that is still safe (the guide: "at least 2048 bits").
SHORTEST_RSA = 2048
#: openssl takes passphrases from 4 bytes, and reads 1023 at a prompt.
SHORTEST_PASSPHRASE, LONGEST_PASSPHRASE = 4, 1023


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
        try:
            key = owner.public_key()
        except (ValueError, UnsupportedAlgorithm):
            return None
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

    Raises: OnboardingError: EXISTS, BAD_PASSPHRASE if openssl would refuse the passphrase, BAD_KEY for another type.
    """
    key_type = KeyType(key_type)
    password = encode_passphrase(passphrase)
    key: PrivateKey
    if key_type is KeyType.P256:
        key = ec.generate_private_key(ec.SECP256R1())
    else:
        key = rsa.generate_private_key(public_exponent=65537, key_size=int(key_type.removeprefix("RSA ")))
    write_whole(path, encrypted_pem(key, password), private=True)
    return key


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
        raise OnboardingError(
            f"A passphrase is UTF-8 text of {SHORTEST_PASSPHRASE} to {LONGEST_PASSPHRASE} bytes (keytool wants 6 "
            "characters): choose another one.",
            "BAD_PASSPHRASE",
        )
    return password


def read_private_key(path: Path, passphrase: Secret | str) -> PrivateKey:
    """Open a private key in PEM form. Raises: OnboardingError: NO_FILE, BAD_PEM, BAD_KEY, WRONG_PASSPHRASE."""
    pem = read_file(path, f"There is no key {path}: create it first.")
    if b"-----BEGIN" not in pem or b"PRIVATE KEY-----" not in pem:
        raise OnboardingError(f"{path} is no private key in PEM form: give the file that genrsa wrote.", "BAD_PEM")
    try:
        key = _load_pem(pem, encode_passphrase(passphrase) if b"ENCRYPTED" in pem else None)
    except UnsupportedAlgorithm:
        raise OnboardingError(
            f"{path} is of a kind, or encrypted in a way, that is not known here: openssl pkey -aes256 -in {path.name} "
            "writes it in one that is.",
            "BAD_KEY",
        ) from None
    except (ValueError, TypeError):
        raise OnboardingError(
            f"The passphrase does not open {path}, or the file is damaged: type the one that this key was made with.",
            "WRONG_PASSPHRASE",
        ) from None
    if not isinstance(key, PrivateKey):
        raise OnboardingError(f"{path} holds neither an RSA nor an EC key: make one of these.", "BAD_KEY")
    return key


@lru_cache(maxsize=16)  # the check of an RSA key takes 0.2 s: once in a process is enough
def _load_pem(pem: bytes, password: bytes | None) -> object:
    return load_pem_private_key(pem, password)


def is_key_of(certificate: x509.Certificate, key: PrivateKey) -> bool:
    """Whether ``key`` is the private half of the certificate's; False if that one can't be read."""
    try:
        return certificate.public_key() == key.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return False


def create_request(path: Path, key: PrivateKey, subject: DistinguishedName) -> Request:
    """Write a request, as ``openssl req -new -sha256`` does. Raises: OnboardingError: EXISTS if the file exists."""
    request = x509.CertificateSigningRequestBuilder().subject_name(subject.to_x509()).sign(key, SHA256())
    write_whole(path, request.public_bytes(Encoding.PEM))
    return request


def read_request(path: Path) -> Request:
    """Read a certificate signing request. Raises: OnboardingError: NO_FILE, or BAD_PEM if it is damaged."""
    pem = read_file(path, f"There is no request {path}: create it first.")
    try:
        return x509.load_pem_x509_csr(pem)
    except (ValueError, x509.InvalidVersion):
        problem = "is no certificate signing request in PEM form, or not of version 1, the only one (RFC 2986)"
        raise OnboardingError(f"{path} {problem}: make it anew.", "BAD_PEM") from None


def certificate_command(subject: DistinguishedName, days: int = CA_DAYS) -> str:
    """Return the command that makes the CA's certificate (guide: "Creating a self-signed CA certificate", step 8)."""
    made = f"-new -x509 -days {days} -sha256 -extensions v3_ca -subj {shlex.quote(subject_option(subject))}"
    return f"openssl req -config caConfig.cnf -utf8 -key caKey.pem {made} -out caCert.pem"


def request_command(subject: DistinguishedName, config: str = "caConfig.cnf", name: str = "device") -> str:
    """Return the command that makes a request, the ``device``'s or the ``intermediate``'s, with the file ``config``."""
    file = f"deviceCertificates/{name}" if name == "device" else name
    made = f"-new -sha256 -key {file}Key.pem -subj {shlex.quote(subject_option(subject))} -out {file}Csr.pem"
    return f"openssl req -config {shlex.quote(config)} -utf8 {made}"
