"""What a CA must do for each request, and no more: read, check, sign, and record it."""

import base64
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

KEY, NAME = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
VALUES = (
    x509.BasicConstraints(False, None),
    x509.KeyUsage(True, False, False, False, False, False, False, False, False),
    x509.AuthorityKeyIdentifier.from_issuer_public_key(KEY.public_key()),
)


def open_record(file: Path) -> sqlite3.Connection:
    database = sqlite3.connect(file, isolation_level=None)
    database.executescript(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE t (serial PRIMARY KEY, der)"
    )
    return database


def sign(body: bytes, record: sqlite3.Connection) -> None:
    csr, now = x509.load_der_x509_csr(base64.b64decode(body)), datetime.now(UTC)
    assert csr.is_signature_valid
    public, dates = csr.public_key(), (now, now + timedelta(days=365))
    builder = x509.CertificateBuilder(NAME, csr.subject, public, x509.random_serial_number(), *dates)
    for value in (*VALUES, x509.SubjectKeyIdentifier.from_public_key(public)):  # type: ignore[arg-type]
        builder = builder.add_extension(value, False)
    made = builder.sign(KEY, SHA256())
    record.execute("INSERT INTO t VALUES (?, ?)", (f"{made.serial_number:x}", made.public_bytes(Encoding.DER)))
