"""What the local platform keeps of its tenants: whom they trust, what they revoked, and who tried to connect."""

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from mciot_nb.platform.database import timestamp
from mciot_nb.platform.records import Records

_parse = lru_cache(4096)(x509.load_der_x509_certificate)  # they are read anew for every connection


@dataclass(frozen=True)
class TrustedCertificate:
    """A certificate that a tenant uploaded. One that was deleted stays known as such, to name it in a refusal.

    ``proven`` once its owner has signed ``code``, which serves for that until ``code_until``.
    """

    fingerprint: str
    tenant: str
    certificate: x509.Certificate
    name: str
    status: str
    auto_registration: bool
    deleted: str | None = None
    proven: bool = False
    code: str = ""
    code_until: str = ""

    @property
    def enabled(self) -> bool:
        """Whether devices may connect under it."""
        return self.deleted is None and self.status == "ENABLED"


@dataclass
class Attempt:
    """One connection attempt, as the log keeps it: what was found out until the verdict.

    ``chain`` names the certificates that were presented; where the handshake failed, as far as OpenSSL tells.
    """

    address: str
    tenant: str = ""
    subject: str = ""
    client_id: str = ""
    tls: str = ""
    chain: list[str] = field(default_factory=list)


class Store(Records):
    """The whole file."""

    def trusted_certificates(self, tenant: str | None = None) -> list[TrustedCertificate]:
        """Give every certificate ever uploaded, the deleted ones too, in the order of their first upload."""
        rows = self._db.execute(
            "SELECT * FROM trusted_certificates WHERE ? IS NULL OR tenant = ? ORDER BY rowid", (tenant, tenant)
        )
        return [_trusted(row) for row in rows]

    def trusted_certificate(self, fingerprint: str) -> TrustedCertificate | None:
        """Find a certificate that was ever uploaded, by any tenant."""
        query = "SELECT * FROM trusted_certificates WHERE fingerprint = ?"
        row = self._db.execute(query, (fingerprint,)).fetchone()
        return _trusted(row) if row else None

    def put_trusted_certificate(self, trusted: TrustedCertificate) -> None:
        """Add a certificate, or replace what is known of it."""
        self._db.execute(
            "INSERT INTO trusted_certificates VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (fingerprint)"
            " DO UPDATE SET tenant = excluded.tenant, name = excluded.name, status = excluded.status,"
            " deleted = excluded.deleted, auto_registration = excluded.auto_registration,"
            " proven = excluded.proven, code = excluded.code, code_until = excluded.code_until",
            (
                trusted.fingerprint,
                trusted.tenant,
                trusted.certificate.public_bytes(Encoding.DER),
                trusted.name,
                trusted.status,
                trusted.auto_registration,
                timestamp(),
                trusted.deleted,
                trusted.proven,
                trusted.code,
                trusted.code_until,
            ),
        )

    def revoke(self, tenant: str, serials: Iterable[tuple[int, datetime]], *, replace: bool) -> None:
        """Keep revoked serial numbers; ``replace`` the dates of those that are there already."""
        self._db.executemany(
            f"INSERT OR {'REPLACE' if replace else 'IGNORE'} INTO revoked VALUES (?, ?, ?)",
            ((tenant, f"{serial:x}", timestamp(date)) for serial, date in serials),
        )

    def revoked(self, tenant: str) -> dict[int, datetime]:
        """Give a tenant's revoked serial numbers, and since when."""
        rows = self._db.execute("SELECT serial, date FROM revoked WHERE tenant = ? ORDER BY rowid", (tenant,))
        return {int(serial, 16): datetime.fromisoformat(date) for serial, date in rows}

    def log(self, attempt: Attempt, code: str, reason: str) -> int:
        """Keep the verdict on a connection attempt. Returns the record's number, for `log_end`."""
        values = vars(attempt) | {"chain": json.dumps(attempt.chain)}
        return self.add("log", time=timestamp(), code=code, reason=reason, **values)

    def log_end(self, record: int, ending: str) -> None:
        """Add to a connection's record when and why it ended."""
        self._db.execute("UPDATE log SET ended = ?, ending = ? WHERE id = ?", (timestamp(), ending, record))

    def end_what_was_cut_off(self) -> None:
        """Say of connections without an end, which a kill leaves behind, that they are gone."""
        self._db.execute(
            "UPDATE log SET ended = ?, ending = 'The platform was killed.' WHERE code = 'CONNECTED' AND ended IS NULL",
            (timestamp(),),
        )


def _trusted(row: sqlite3.Row) -> TrustedCertificate:
    return TrustedCertificate(
        fingerprint=row["fingerprint"],
        tenant=row["tenant"],
        certificate=_parse(row["der"]),
        name=row["name"],
        status=row["status"],
        auto_registration=bool(row["auto_registration"]),
        deleted=row["deleted"],
        proven=bool(row["proven"]),
        code=row["code"],
        code_until=row["code_until"],
    )
