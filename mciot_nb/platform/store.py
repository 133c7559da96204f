"""What the local platform keeps: one SQLite file, so that a kill at any moment loses nothing that was acknowledged."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

#: ``device`` is always the device's identifier, the common name of its certificate.
SCHEMA = """
CREATE TABLE IF NOT EXISTS trusted_certificates (
    fingerprint TEXT PRIMARY KEY, tenant TEXT NOT NULL, der BLOB NOT NULL, name TEXT NOT NULL, status TEXT NOT NULL,
    auto_registration INTEGER NOT NULL, uploaded TEXT NOT NULL, deleted TEXT);
CREATE TABLE IF NOT EXISTS devices (
    id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, device TEXT NOT NULL, registered TEXT NOT NULL,
    created TEXT, name TEXT, type TEXT, UNIQUE (tenant, device));
CREATE TABLE IF NOT EXISTS measurements (
    id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, device TEXT NOT NULL, time TEXT NOT NULL, received TEXT NOT NULL,
    fragment TEXT NOT NULL, series TEXT NOT NULL, value REAL NOT NULL, unit TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, device TEXT NOT NULL, time TEXT NOT NULL, received TEXT NOT NULL,
    type TEXT NOT NULL, text TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS log (
    id INTEGER PRIMARY KEY, time TEXT NOT NULL, address TEXT NOT NULL, tenant TEXT NOT NULL, subject TEXT NOT NULL,
    client_id TEXT NOT NULL, code TEXT NOT NULL, reason TEXT NOT NULL, ended TEXT, ending TEXT);
"""


def timestamp(at: datetime | None = None) -> str:
    """Write a time, now by default, in ISO 8601 and UTC, so that text order is time order."""
    return (at or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="milliseconds")


@dataclass(frozen=True)
class TrustedCertificate:
    """A certificate that a tenant uploaded. One that was deleted stays known as such, to name it in a refusal."""

    fingerprint: str
    tenant: str
    certificate: x509.Certificate
    name: str
    status: str
    auto_registration: bool
    deleted: str | None = None

    @property
    def enabled(self) -> bool:
        """Whether devices may connect under it."""
        return self.deleted is None and self.status == "ENABLED"


@dataclass(frozen=True)
class Device:
    """A registered device; ``created`` once its message 100 has put it into the inventory."""

    id: int
    tenant: str
    device: str
    created: bool


@dataclass
class Attempt:
    """One connection attempt, as the log keeps it: what was found out until the verdict."""

    address: str
    tenant: str = ""
    subject: str = ""
    client_id: str = ""


class Store:
    """The SQLite file. Every call is durable when it returns; those inside `transaction` when that ends."""

    def __init__(self, file: Path) -> None:
        self._db = sqlite3.connect(file, isolation_level=None)
        self._db.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;" + SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Keep everything written inside, or nothing of it."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def trusted_certificates(self, tenant: str | None = None) -> list[TrustedCertificate]:
        """Give every certificate ever uploaded, the deleted ones too, in the order of upload."""
        rows = self._db.execute(
            "SELECT fingerprint, tenant, der, name, status, auto_registration, deleted FROM trusted_certificates"
            " WHERE ? IS NULL OR tenant = ? ORDER BY rowid",
            (tenant, tenant),
        )
        return [
            TrustedCertificate(fingerprint, tenant, x509.load_der_x509_certificate(der), name, status, bool(auto), gone)
            for fingerprint, tenant, der, name, status, auto, gone in rows
        ]

    def put_trusted_certificate(self, trusted: TrustedCertificate) -> None:
        """Add a certificate, or replace what is known of it."""
        self._db.execute(
            "INSERT INTO trusted_certificates VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (fingerprint) DO UPDATE SET"
            " tenant = excluded.tenant, name = excluded.name, status = excluded.status, deleted = excluded.deleted,"
            " auto_registration = excluded.auto_registration",
            (
                trusted.fingerprint,
                trusted.tenant,
                trusted.certificate.public_bytes(Encoding.DER),
                trusted.name,
                trusted.status,
                trusted.auto_registration,
                timestamp(),
                trusted.deleted,
            ),
        )

    def device(self, tenant: str, device: str) -> Device | None:
        """Find a registered device."""
        row = self._db.execute(
            "SELECT id, created FROM devices WHERE tenant = ? AND device = ?", (tenant, device)
        ).fetchone()
        return Device(row[0], tenant, device, row[1] is not None) if row else None

    def register(self, tenant: str, device: str) -> None:
        """Make the device's user, with which it may connect from now on."""
        self._db.execute(
            "INSERT OR IGNORE INTO devices (tenant, device, registered) VALUES (?, ?, ?)", (tenant, device, timestamp())
        )

    def create_device(self, device: Device, name: str, kind: str) -> None:
        """Put a registered device into the inventory."""
        self._db.execute(
            "UPDATE devices SET created = ?, name = ?, type = ? WHERE id = ?", (timestamp(), name, kind, device.id)
        )

    def add_measurement(
        self, device: Device, time: datetime, fragment: str, series: str, value: float, unit: str
    ) -> None:
        """Keep one measured value."""
        self._db.execute(
            "INSERT INTO measurements (tenant, device, time, received, fragment, series, value, unit)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (device.tenant, device.device, timestamp(time), timestamp(), fragment, series, value, unit),
        )

    def add_event(self, device: Device, time: datetime, kind: str, text: str) -> None:
        """Keep one event."""
        self._db.execute(
            "INSERT INTO events (tenant, device, time, received, type, text) VALUES (?, ?, ?, ?, ?, ?)",
            (device.tenant, device.device, timestamp(time), timestamp(), kind, text),
        )

    def log(self, attempt: Attempt, code: str, reason: str) -> int:
        """Keep the verdict on a connection attempt. Returns the record's number, for `log_end`."""
        cursor = self._db.execute(
            "INSERT INTO log (time, address, tenant, subject, client_id, code, reason) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (timestamp(), attempt.address, attempt.tenant, attempt.subject, attempt.client_id, code, reason),
        )
        return cursor.lastrowid or 0

    def log_end(self, record: int, ending: str) -> None:
        """Add to a connection's record when and why it ended."""
        self._db.execute("UPDATE log SET ended = ?, ending = ? WHERE id = ?", (timestamp(), ending, record))
