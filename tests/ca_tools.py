"""What the tests of a CA directory share: requests, directories, what is in them, and the real ``openssl ca``."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

from conftest import PASSPHRASE, run
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from mciot_nb import CertificateAuthority, DistinguishedName
from mciot_nb.pki.chain import read_certificates
from mciot_nb.pki.config import find_config, guide_config
from mciot_nb.pki.keys import KeyType
from mciot_nb.pki.rows import hex_serial

KEY = ec.generate_private_key(ec.SECP256R1())
SUBJECT = DistinguishedName("DE", "Bayern", "München", "Probe & Söhne", "Team 1/2+3", "device", "a@example.com")
#: What `inspect` says of the guide's own configuration.
GUIDE = {"PRESERVE_IGNORED", "NO_X509_EXTENSIONS", "POLICY_DROPS"}
Name = str | DistinguishedName | x509.Name


def make_ca(
    folder: Path, name: Name = "Test CA", key_type: KeyType = KeyType.P256, **options: Any
) -> CertificateAuthority:
    subject = name if isinstance(name, DistinguishedName) else DistinguishedName("DE", common_name=str(name))
    return CertificateAuthority.create(folder, subject, PASSPHRASE, key_type=key_type, **options)


def request(name: Name, key: ec.EllipticCurvePrivateKey = KEY) -> x509.CertificateSigningRequest:
    """Make a request for a common name, or for a whole name."""
    name = DistinguishedName(common_name=name) if isinstance(name, str) else name
    subject = name.to_x509() if isinstance(name, DistinguishedName) else name
    return x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, SHA256())


def devices(count: int) -> list[x509.CertificateSigningRequest]:
    return [request(f"device-{number}") for number in range(count)]


def copied(folder: Path, to: Path) -> Path:
    """Copy a directory and make the copy a CA of its own, with whatever stands in it."""
    shutil.copytree(folder, to)
    CertificateAuthority.relocate(to)
    return to


def copy_of(ca: CertificateAuthority, serial: int = 0x1000) -> Path:
    return ca.folder / "deviceCertificates" / f"{hex_serial(serial)}.pem"


def reset(folder: Path) -> None:
    """Make a directory one that has signed nothing yet."""
    for path in (*folder.glob("database.txt*"), *folder.glob("serial*"), *folder.glob("deviceCertificates/*")):
        path.unlink()
    (folder / "database.txt").touch()
    (folder / "serial").write_text("1000\n")


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file with its rights and its bytes."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): (path.stat().st_mode, path.read_bytes()) for path in files}


def codes(ca: CertificateAuthority) -> set[str]:
    return {finding.code for finding in ca.check().findings}


def openssl_ca(folder: Path, *options: object, check: bool = True) -> "subprocess.CompletedProcess[str]":
    """Run ``openssl ca``; what it says of what is wrong is on its stderr."""
    return run("openssl", "ca", "-batch", "-config", find_config(folder), "-passin", "env:PASS", *options, check=check)


def openssl_signs(folder: Path, csr: x509.CertificateSigningRequest, *options: object) -> x509.Certificate | str:
    """Let openssl sign by its configuration and what is asked for; return the certificate, or what it said."""
    path, out = folder.parent / "csr.pem", folder.parent / "out.pem"
    path.write_bytes(csr.public_bytes(Encoding.PEM))
    out.unlink(missing_ok=True)
    done = openssl_ca(folder, "-notext", *options, "-in", path, "-out", out, check=False)
    signed = out.exists() and out.stat().st_size
    return read_certificates(out)[0] if signed else done.stderr + done.stdout


def openssl_sign(folder: Path, csr: x509.CertificateSigningRequest) -> x509.Certificate:
    """Let openssl sign as the guide does."""
    signed = openssl_signs(folder, csr, "-extensions", "v3_signed", "-days", 365, "-md", "sha256")
    assert isinstance(signed, x509.Certificate), signed
    return signed


def openssl_status(folder: Path, serial: int = 0x1000) -> str:
    """Ask openssl for a row; it reads the whole database for that."""
    done = openssl_ca(folder, "-status", hex_serial(serial), check=False)
    return done.stderr + done.stdout


def openssl_reads(folder: Path) -> bool:
    return "1000=Valid (V)" in openssl_status(folder)


def ca_of_openssl(folder: Path, key_type: KeyType = KeyType.P256, days: int = 7300) -> None:
    """Make a CA as the guide does, with the real openssl."""
    for name in ("crl", "deviceCertificates"):
        (folder / name).mkdir(parents=True)
    (folder / "caConfig.cnf").write_bytes(guide_config(folder))
    reset(folder)
    kind = ["EC", "-pkeyopt", "ec_paramgen_curve:P-256"] if key_type is KeyType.P256 else ["RSA"]
    key = folder / "caKey.pem"
    run("openssl", "genpkey", "-aes256", "-pass", "env:PASS", "-algorithm", *kind, "-out", key)
    answers = "DE\nBayern\nMünchen\nProbe & Söhne\nTeam 1/2+3\nTest CA\na@example.com\n"
    common = ["-config", folder / "caConfig.cnf", "-key", key, "-passin", "env:PASS", "-utf8"]
    options = ["-new", "-x509", "-days", days, "-sha256", "-extensions", "v3_ca", "-out", folder / "caCert.pem"]
    run("openssl", "req", *common, *options, input=answers)
