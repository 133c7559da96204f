"""The key and the certificate with which the local platform shows itself, on both of its ports."""

import ipaddress
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mciot_nb.pki.files import write_whole

VALIDITY = timedelta(days=730)
ALWAYS = ("localhost", "127.0.0.1")


def ensure_server_certificate(folder: Path, host: str) -> tuple[Path, Path]:
    """Give the files of key and certificate, made anew only if they are missing, expired, or lack ``host``.

    Kept otherwise, because learners copy the certificate into their trust stores.
    """
    key_file, certificate_file = folder / "serverKey.pem", folder / "serverCert.pem"
    names = [_general_name(name) for name in dict.fromkeys((*ALWAYS, host)) if name not in ("0.0.0.0", "::")]
    if not (key_file.exists() and certificate_file.exists() and _still_good(certificate_file, names)):
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        certificate = _self_signed(key, names)
        certificate_file.unlink(missing_ok=True)  # never an old certificate beside a new key
        write_whole(key_file, pem, private=True, replace=True)
        write_whole(certificate_file, certificate.public_bytes(serialization.Encoding.PEM), replace=True)
    return key_file, certificate_file


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _still_good(file: Path, names: Iterable[x509.GeneralName]) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(file.read_bytes())
    except ValueError:
        return False
    there = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return certificate.not_valid_after_utc > datetime.now(UTC) and set(names) <= set(there)


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
