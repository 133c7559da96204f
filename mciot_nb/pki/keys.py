"""Private keys and certificate signing requests, as ``openssl genrsa`` and ``openssl req -new`` make them."""

from dataclasses import dataclass
from pathlib import Path

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
from mciot_nb.pki.files import read_file, write_whole
from mciot_nb.pki.names import DistinguishedName
from mciot_nb.secret import Secret, reveal

#: What signs a certificate or a request, and what the platform takes.
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

#: The guide's key size, in bits.
KEY_SIZE = 4096
#: The shortest that is still safe (the guide: "at least 2048 bits"), and the longest that anybody waits for.
SHORTEST_RSA, LONGEST_RSA = 2048, 16384
#: What stands for a key on the curve P-256 where bits are asked for.
P256 = 256
#: openssl takes passphrases from 4 bytes, and reads 1023 at a prompt.
SHORTEST_PASSPHRASE, LONGEST_PASSPHRASE = 4, 1023


@dataclass(frozen=True)
class KeyChoice:
    """What kind of key to make, and for how many days its certificate; ``bits`` are RSA's, or 256 for P-256."""

    bits: int
    days: int

    @classmethod
    def of(cls, certificate: x509.Certificate) -> "KeyChoice":
        """Give what a certificate has, `key_bits` and its whole days."""
        return cls(key_bits(certificate), (certificate.not_valid_after_utc - certificate.not_valid_before_utc).days)

    def changed(self, bits: int | None = None, days: int | None = None) -> "KeyChoice":
        """Give this with what is asked for; None asks for nothing."""
        return KeyChoice(self.bits if bits is None else bits, self.days if days is None else days)


def key_bits(owner: x509.Certificate | x509.CertificateSigningRequest | PrivateKey) -> int:
    """Give the bits of somebody's key: RSA's, 256 for P-256, and 0 for one that `create_key` does not make."""
    try:
        key = owner.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return 0
    if isinstance(key, rsa.RSAPublicKey):
        return key.key_size
    return P256 if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1) else 0


def check_bits(bits: int) -> None:
    """Raise OnboardingError (BAD_KEY) where `create_key` makes no such key."""
    if bits != P256 and not SHORTEST_RSA <= bits <= LONGEST_RSA:
        raise OnboardingError(
            f"An RSA key has {SHORTEST_RSA} to {LONGEST_RSA} bits, not {bits}: ask for that, or for {P256}, which "
            "stands for P-256.",
            "BAD_KEY",
        )


def create_key(path: Path, passphrase: Secret | str, bits: int = KEY_SIZE) -> PrivateKey:
    """Make an RSA key of so many bits, or a P-256 key where they are 256, and write it encrypted (mode 0600).

    Raises OnboardingError as `check_bits`, `create_private_key` and `create_ec_key` do.
    """
    check_bits(bits)
    return create_ec_key(path, passphrase) if bits == P256 else create_private_key(path, passphrase, bits)


def create_private_key(path: Path, passphrase: Secret | str, bits: int = KEY_SIZE) -> rsa.RSAPrivateKey:
    """Make an RSA key and write it encrypted (aes256, mode 0600), as ``openssl genrsa -aes256 -out PATH`` does.

    Raises OnboardingError where the file is there already, or the passphrase is one that openssl would refuse.
    """
    if not SHORTEST_RSA <= bits <= LONGEST_RSA:
        raise OnboardingError(f"An RSA key has {SHORTEST_RSA} to {LONGEST_RSA} bits, not {bits}.", "BAD_KEY")
    password = _fit_for_new_key(path, passphrase)
    key = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    _write_key(path, key, password)
    return key


def create_ec_key(path: Path, passphrase: Secret | str) -> ec.EllipticCurvePrivateKey:
    """Make a P-256 key, small and quick, and write it encrypted (mode 0600), as ``openssl genpkey -aes256`` does.

    Raises OnboardingError where the file is there already or the passphrase is one that openssl would refuse.
    """
    password = _fit_for_new_key(path, passphrase)
    key = ec.generate_private_key(ec.SECP256R1())
    _write_key(path, key, password)
    return key


def _fit_for_new_key(path: Path, passphrase: Secret | str) -> bytes:
    if path.exists():
        raise OnboardingError(f"{path} is there already and is never overwritten: move it away first.", "EXISTS")
    return encode_passphrase(passphrase)


def encrypted_pem(key: PrivateKey, password: bytes) -> bytes:
    """Give a private key in PEM form, encrypted with AES-256 as openssl's ``-aes256`` does."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password))


def _write_key(path: Path, key: PrivateKey, password: bytes) -> None:
    try:
        write_whole(path, encrypted_pem(key, password), private=True)
    except FileExistsError:
        raise OnboardingError(f"{path} was made by somebody else meanwhile: run the cell again.", "EXISTS") from None


def encode_passphrase(passphrase: Secret | str) -> bytes:
    """Give the passphrase's bytes; raises OnboardingError where openssl would refuse it."""
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
    """Open an encrypted private key in PEM form, ours or openssl's.

    Raises OnboardingError where the file is missing or no key, or the passphrase is wrong (``WRONG_PASSPHRASE``).
    """
    pem = read_file(path, f"There is no key {path}: create it first.")
    if b"-----BEGIN" not in pem or b"PRIVATE KEY-----" not in pem:
        raise OnboardingError(f"{path} is no private key in PEM form: give the file that genrsa wrote.", "BAD_PEM")
    try:
        key = load_pem_private_key(pem, encode_passphrase(passphrase) if b"ENCRYPTED" in pem else None)
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


def is_key_of(certificate: x509.Certificate, key: PrivateKey) -> bool:
    """Whether ``key`` is the private half of the certificate's; never where that one can't be read."""
    try:
        return certificate.public_key() == key.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return False


def create_request(
    path: Path, key: PrivateKey, subject: DistinguishedName, string_mask: str = "utf8only"
) -> x509.CertificateSigningRequest:
    """Write a certificate signing request for ``subject``, as ``openssl req -new -sha256 -key … -out PATH`` does.

    ``string_mask`` is the configuration's. Raises OnboardingError where the file is there already.
    """
    name = subject.with_string_mask(string_mask)
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, SHA256())
    try:
        write_whole(path, request.public_bytes(Encoding.PEM))
    except FileExistsError:
        raise OnboardingError(
            f"{path} is there already and is never overwritten: move it away first.", "EXISTS"
        ) from None
    return request


def read_request(path: Path) -> x509.CertificateSigningRequest:
    """Read a certificate signing request; raises OnboardingError where there is none or it is damaged."""
    pem = read_file(path, f"There is no request {path}: create it first.")
    try:
        return x509.load_pem_x509_csr(pem)
    except ValueError:
        raise OnboardingError(
            f"{path} is no certificate signing request in PEM form: make it anew.", "BAD_PEM"
        ) from None
