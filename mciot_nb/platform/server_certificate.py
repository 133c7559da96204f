"""The key and the certificate with which the local platform shows itself, on both of its ports."""

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mciot_nb.errors import OnboardingError
from mciot_nb.pki.files import write_whole

VALIDITY = timedelta(days=730)
ALWAYS = ("localhost", "127.0.0.1")


def server_key(folder: Path) -> ec.EllipticCurvePrivateKey:
    """Give the platform's key, made the first time. Raises OnboardingError where its file is damaged."""
    file = folder / "serverKey.pem"
    try:
        key = serialization.load_pem_private_key(file.read_bytes(), None)
    except FileNotFoundError:
        key = ec.generate_private_key(ec.SECP256R1())
        (folder / "serverCert.pem").unlink(missing_ok=True)  # never an old certificate beside a new key
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_whole(file, pem, private=True, replace=True)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise _damaged(file) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _damaged(file)
    return key


def _damaged(file: Path) -> OnboardingError:
    return OnboardingError(f"{file} is damaged: move it away, and a new key and certificate are made.")


def server_certificate(folder: Path, key: ec.EllipticCurvePrivateKey, host: str) -> x509.Certificate:
    """Give the platform's certificate, signed anew only if it is missing, expired, another key's, or lacks ``host``.

    Kept otherwise, because learners copy it into their trust stores. Raises OnboardingError.
    """
    file = folder / "serverCert.pem"
    needed = {_general_name(name) for name in (*ALWAYS, host) if name not in ("0.0.0.0", "::")}
    try:
        kept = x509.load_pem_x509_certificate(file.read_bytes())
        there = set(kept.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
        expired = kept.not_valid_after_utc < datetime.now(UTC)
        if needed <= there and not expired and kept.public_key() == key.public_key():
            return kept
    except (FileNotFoundError, ValueError, x509.ExtensionNotFound):
        there = set()  # missing or damaged
    certificate = _self_signed(key, sorted(needed | there, key=str))
    write_whole(file, certificate.public_bytes(serialization.Encoding.PEM), replace=True)
    return certificate


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    try:
        return x509.DNSName(name)
    except ValueError:
        raise OnboardingError(f"{name} can't stand in a certificate: give --host an ASCII name or address.") from None


def _self_signed(key: ec.EllipticCurvePrivateKey, names: list[x509.GeneralName]) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now, public = datetime.now(UTC), key.public_key()
    builder = x509.CertificateBuilder(name, name, public, x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(minutes=5)).not_valid_after(now + VALIDITY)
    usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)  # digitalSignature
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (usage, True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
        (x509.SubjectAlternativeName(names), False),
        (x509.SubjectKeyIdentifier.from_public_key(public), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(public), False),
    ]
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(key, hashes.SHA256())
