"""The SQLite file in which the local platform keeps everything: a kill at any moment loses nothing acknowledged."""

import itertools
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from mciot_nb.pki.admission import Uploaded

SCHEMA = Path(__file__).with_name("schema.sql").read_text(encoding="utf-8")
COLUMNS = """SELECT it.name, own.name, own.type, own."notnull", own.dflt_value
    FROM sqlite_schema it, pragma_table_info(it.name) own WHERE it.type = 'table'"""
DEVICE_TABLES = ("measurements", "events", "alarms", "operations")
DEVICE_COLUMNS = "id, tenant, device, created, name, type, registered, parent"
#: A device and all below it. Each child is made once, below one that is there, so this ends.
FAMILY = """WITH RECURSIVE family (device) AS (
    SELECT :device UNION SELECT d.device FROM devices d, family f WHERE d.tenant = :tenant AND d.parent = f.device)
    SELECT device FROM family"""
#: The tenant's option that makes its list of revoked serial numbers count; off where it is not set.
CRL_OPTION = ("configuration", "crl.offline.check.enabled")
MOST_NESTED = 100  # levels in what is stored as JSON: SQLite reads 1000, and Python fewer where it is busy
#: Begins the identifier of an object that is no MQTT device's: no ClientId holds a colon.
NO_DEVICE = ":"
#: A condition, in SQL of ours, and the values for its marks.
Clause = tuple[str, Sequence[object]]
ACTIVE_ALARM = "tenant = ? AND device = ? AND type = ? AND status = 'ACTIVE'"


def read_object(text: bytes) -> dict[str, Any]:
    """Return a JSON object that can be stored, searched and sent again.

    Raises: ValueError: if it is none, or holds NaN, half of a surrogate pair, or more than `MOST_NESTED` levels.
    """
    level = [body := json.loads(text)]
    json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    for _ in range(MOST_NESTED):
        inner = (one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list))
        level = [*itertools.chain.from_iterable(inner)]
    if level or not isinstance(body, dict):
        raise ValueError("no object, or nested too deeply")
    return body


def timestamp(at: datetime | None = None) -> str:
    """Return a time, now by default, in ISO 8601 and UTC, so that text order is time order."""
    return (at.astimezone(UTC) if at else datetime.now(UTC)).isoformat(timespec="milliseconds")


def read_time(text: str) -> datetime:
    """Return a time in ISO 8601, which is UTC's where it names no zone. Raises: ValueError, OverflowError."""
    time = datetime.fromisoformat(text)
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)


@dataclass(frozen=True)
class RegisteredDevice:
    """A device; ``created`` is when a message of its has put it into the inventory, None before.

    ``registered`` is when it got a user of its own, with which it may connect: empty for a child or a service of its
    ``parent``, and for one that has connected with a person's user and password only.
    """

    id: int
    tenant: str
    device: str
    created: str | None
    name: str = ""
    type: str = ""
    registered: str = ""
    parent: str = ""


@dataclass(frozen=True)
class StoredOperation:
    """Something that a device is to do: ``fragment`` is its kind, ``text`` a command's; ``fragments`` JSON, as sent."""

    id: int
    tenant: str
    device: str
    time: str
    fragment: str
    text: str
    description: str
    status: str
    reason: str
    fragments: str = "{}"


@dataclass(frozen=True, kw_only=True)
class TrustAnchor(Uploaded):
    """A certificate that a tenant uploaded; ``proven`` once its owner signed ``code``, good until ``code_until``."""

    fingerprint: str
    name: str
    code: str = ""
    code_until: str = ""


@dataclass
class LoggedAttempt:
    """One connection attempt, as the log keeps it: what was found out until the verdict.

    ``chain`` names the certificates that were presented; where the handshake failed, as far as OpenSSL tells.
    """

    address: str
    tenant: str = ""
    subject: str = ""
    client_id: str = ""
    tls: str = ""
    chain: list[str] = field(default_factory=list)


_parse = lru_cache(4096)(x509.load_der_x509_certificate)  # they are read anew for every connection


def _trust_anchor(row: sqlite3.Row) -> TrustAnchor:
    values = dict(row)
    values.pop("uploaded")
    values |= {name: bool(values[name]) for name in ("auto_registration", "proven")}
    return TrustAnchor(certificate=_parse(values.pop("der")), **values)


@lru_cache
def _insertion(table: str, *columns: str) -> str:
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))}) "


class Storage:
    """The file, opened. Every call but the log's is durable when it returns, inside `transaction` when that ends."""

    def __init__(self, file: Path) -> None:
        self._db = sqlite3.connect(file, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        self._trusted: list[TrustAnchor] | None = None
        self._db.executescript(f"PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; {SCHEMA}")
        there = {(table, column) for table, column, *_ in self.select(COLUMNS)}
        with closing(sqlite3.connect(":memory:")) as new:  # a file of an earlier version lacks some of its columns
            new.executescript(SCHEMA)
            for table, column, kind, required, default in new.execute(COLUMNS):
                if (table, column) not in there:
                    how = f"NOT NULL DEFAULT {default}" if required else ""
                    self._db.execute(f"ALTER TABLE {table} ADD COLUMN {column} {kind} {how}")

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit everything written inside, or nothing of it."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            self._trusted = None
            raise
        self._db.execute("COMMIT")

    @contextmanager
    def _unsynced(self) -> Iterator[None]:
        """Write without waiting for the disk: a kill loses nothing of it, a power failure may. Not in a transaction."""
        self._db.execute("PRAGMA synchronous = NORMAL")
        try:
            yield
        finally:
            self._db.execute("PRAGMA synchronous = FULL")

    def insert(self, table: str, conflict: str = "", **values: Any) -> int:
        """Add a row to one of our tables; ``conflict`` is what SQL does if it is there. Returns its number."""
        return self._db.execute(_insertion(table, *values) + conflict, tuple(values.values())).lastrowid or 0

    def select(self, query: str, *values: object) -> list[sqlite3.Row]:
        """Return the rows of a query of ours, which changes nothing."""
        return self._db.execute(query, values).fetchall()

    def update(self, table: str, number: int, **values: object) -> None:
        """Change values of one row."""
        query = f"UPDATE {table} SET {', '.join(f'{name} = ?' for name in values)} WHERE id = ?"
        self._db.execute(query, (*values.values(), number))

    def delete(self, table: str, **values: object) -> None:
        """Delete the rows with these values."""
        where = " AND ".join(f"{name} = ?" for name in values)
        self._db.execute(f"DELETE FROM {table} WHERE {where}", tuple(values.values()))

    def page(
        self, table: str, clauses: Sequence[Clause], order: str, first: int, size: int
    ) -> tuple[list[sqlite3.Row], int]:
        """Return ``size`` rows from number ``first``, of those that fulfil all clauses, and how many these are."""
        where = " AND ".join(f"({condition})" for condition, _ in clauses)
        values = [value for _, given in clauses for value in given]
        ((count,),) = self.select(f"SELECT count(*) FROM {table} WHERE {where}", *values)
        if first >= count:  # also where the number is larger than SQLite can hold
            return [], count
        query = f"SELECT * FROM {table} WHERE {where} ORDER BY {order} LIMIT ? OFFSET ?"
        return self.select(query, *values, size, first), count

    def device(self, tenant: str, device: str | int) -> RegisteredDevice | None:
        """Return a registered device by its identifier or its number, None where there is none."""
        column = "id" if isinstance(device, int) else "device"
        query = f"SELECT {DEVICE_COLUMNS} FROM devices WHERE tenant = ? AND {column} = ?"
        row = self._db.execute(query, (tenant, device)).fetchone()
        return RegisteredDevice(*row) if row else None

    def register(self, tenant: str, device: str, *, with_user: bool = True) -> RegisteredDevice:
        """Add and return a device, with a user of its own, with which it may connect from now on, or without.

        What REST has given its name becomes it.
        """
        if found := self.find_object(tenant, "c8y_Serial", device):
            for table in (*DEVICE_TABLES, "devices"):
                query = f"UPDATE {table} SET device = ? WHERE tenant = ? AND device = ?"
                self._db.execute(query, (device, tenant, found.device))
        query = "INSERT INTO devices (tenant, device, registered) VALUES (?, ?, ?) ON CONFLICT (tenant, device) DO "
        query += "UPDATE SET registered = excluded.registered WHERE registered = ''"
        self._db.execute(query, (tenant, device, timestamp() if with_user else ""))
        return cast(RegisteredDevice, self.device(tenant, device))

    def add_child(self, parent: RegisteredDevice, child: str, name: str, kind: str) -> RegisteredDevice:
        """Add a child or a service to the inventory, below its parent."""
        values = {"tenant": parent.tenant, "device": child, "registered": "", "created": timestamp(), "name": name}
        values |= {"type": kind, "parent": parent.device}
        return RegisteredDevice(self.insert("devices", **values), **values)

    def children(self, device: RegisteredDevice, *without: str) -> list[str]:
        """Return the names of what is right below a device, in the order in which it came, ``without`` some types."""
        query = "SELECT device, type FROM devices WHERE tenant = ? AND parent = ? ORDER BY id"
        return [name for name, kind in self._db.execute(query, (device.tenant, device.device)) if kind not in without]

    def family(self, device: RegisteredDevice) -> list[str]:
        """Return the names of a device and of all below it."""
        rows = self._db.execute(FAMILY, {"tenant": device.tenant, "device": device.device})
        return [name for (name,) in rows]

    def find_object(self, tenant: str, kind: str, name: str) -> RegisteredDevice | None:
        """Return what bears an external id, None where nothing does."""
        if kind == "c8y_Serial" and (found := self.device(tenant, name)):
            return found
        query = "SELECT object FROM external_ids WHERE tenant = ? AND type = ? AND name = ?"
        return next((self.device(tenant, number) for (number,) in self.select(query, tenant, kind, name)), None)

    def delete_device(self, device: RegisteredDevice, *, with_user: bool) -> None:
        """Delete a device and all that it sent from the inventory; without its user it can't connect any more."""
        with self.transaction():
            for table in (*DEVICE_TABLES, "sessions", "devices", *(["enrolments"] if with_user else [])):
                self.delete(table, tenant=device.tenant, device=device.device)
            self.delete("external_ids", object=device.id)
            if device.registered and not with_user:
                self.register(device.tenant, device.device)

    def fragments(self, device: RegisteredDevice) -> dict[str, Any]:
        """Return what a device has told of itself: its hardware, the operations that it supports …"""
        row = self._db.execute("SELECT fragments FROM devices WHERE id = ?", (device.id,)).fetchone()
        return dict(json.loads(row[0]))

    def set_fragments(self, device: RegisteredDevice, changes: Mapping[str, Any]) -> None:
        """Store what a device tells of itself; None removes a fragment."""
        found = self.fragments(device) | dict(changes)
        kept = {name: value for name, value in found.items() if value is not None}
        self.update("devices", device.id, fragments=json.dumps(kept), updated=timestamp())

    def add_record(self, table: str, device: RegisteredDevice, time: datetime, **values: Any) -> int:
        """Store a measurement, an event or an alarm. Returns its number."""
        owner = {"tenant": device.tenant, "device": device.device}
        return self.insert(table, **owner, time=timestamp(time), received=timestamp(), **values)

    def raise_alarm(self, device: RegisteredDevice, time: datetime, kind: str, text: str, severity: str) -> int:
        """Store an alarm, or count on the active one of its type, as the real platform does. Returns its number."""
        changed = self._db.execute(
            f"UPDATE alarms SET count = count + 1, time = ?, text = ?, severity = ? WHERE {ACTIVE_ALARM} RETURNING id",
            (timestamp(time), text, severity, device.tenant, device.device, kind),
        ).fetchall()
        new = {"type": kind, "text": text, "severity": severity, "status": "ACTIVE", "count": 1}
        return int(changed[0]["id"]) if changed else self.add_record("alarms", device, time, **new)

    def clear_alarm(self, device: RegisteredDevice, kind: str) -> bool:
        """Clear the active alarm of a type. Returns whether there was one."""
        query = f"UPDATE alarms SET status = 'CLEARED' WHERE {ACTIVE_ALARM}"
        return self._db.execute(query, (device.tenant, device.device, kind)).rowcount > 0

    def add_operation(self, device: RegisteredDevice, **values: str) -> StoredOperation:
        """Store something that a device is to do: its fragment, text, description and fragments."""
        values |= {"status": "PENDING", "reason": "", "tenant": device.tenant, "device": device.device}
        values["time"] = timestamp()
        return StoredOperation(id=self.insert("operations", **values), **values)

    def operations(self, device: RegisteredDevice, status: str = "") -> list[StoredOperation]:
        """Return a device's operations, of a status or all, the oldest first."""
        query = "SELECT * FROM operations WHERE tenant = ? AND device = ? AND ? IN (status, '') ORDER BY id"
        return [StoredOperation(**row) for row in self._db.execute(query, (device.tenant, device.device, status))]

    def session(self, device: RegisteredDevice) -> tuple[dict[str, int], set[int]] | None:
        """Return the topics and the unreleased QoS 2 messages of a stored session, None where there is none."""
        query = "SELECT subscriptions, unreleased FROM sessions WHERE tenant = ? AND device = ?"
        row = self._db.execute(query, (device.tenant, device.device)).fetchone()
        return (json.loads(row[0]), set(json.loads(row[1]))) if row else None

    def store_session(self, device: RegisteredDevice, subscriptions: Mapping[str, int], unreleased: set[int]) -> None:
        """Store a session, so that it outlives its connection."""
        values = (device.tenant, device.device, json.dumps(subscriptions), json.dumps(sorted(unreleased)))
        self._db.execute("INSERT OR REPLACE INTO sessions VALUES (?, ?, ?, ?)", values)

    def trusted_certificates(self, tenant: str | None = None) -> Sequence[TrustAnchor]:
        """Return every certificate ever uploaded, the deleted ones too, in the order of their first upload.

        Those of all tenants are the same object until one of them changes.
        """
        if self._trusted is None:
            self._trusted = list(map(_trust_anchor, self.select("SELECT * FROM trusted_certificates ORDER BY rowid")))
        return self._trusted if tenant is None else [one for one in self._trusted if one.tenant == tenant]

    def trusted_certificate(self, fingerprint: str) -> TrustAnchor | None:
        """Return a certificate that was ever uploaded, by any tenant."""
        rows = self._db.execute("SELECT * FROM trusted_certificates WHERE fingerprint = ?", (fingerprint,))
        return next(map(_trust_anchor, rows), None)

    def put_trusted_certificate(self, trusted: TrustAnchor) -> None:
        """Add a certificate, or replace what is stored of it."""
        changing = {name: value for name, value in vars(trusted).items() if name not in ("fingerprint", "certificate")}
        updates = ", ".join(f"{name} = excluded.{name}" for name in changing)
        der = trusted.certificate.public_bytes(Encoding.DER)
        values: dict[str, Any] = {"fingerprint": trusted.fingerprint, "der": der, "uploaded": timestamp(), **changing}
        self._trusted = None
        self.insert("trusted_certificates", f"ON CONFLICT (fingerprint) DO UPDATE SET {updates}", **values)

    def revoke(self, tenant: str, serials: Iterable[tuple[int, datetime]], *, replace: bool) -> None:
        """Store revoked serial numbers; ``replace`` the dates of those that are there already."""
        query = f"INSERT OR {'REPLACE' if replace else 'IGNORE'} INTO revoked VALUES (?, ?, ?)"
        self._db.executemany(query, ((tenant, f"{serial:x}", timestamp(date)) for serial, date in serials))

    def revocations(self, tenant: str) -> dict[int, datetime]:
        """Return the serial numbers on a tenant's list of revoked certificates, and since when they are."""
        rows = self.select("SELECT serial, date FROM revoked WHERE tenant = ? ORDER BY rowid", tenant)
        return {int(serial, 16): datetime.fromisoformat(date) for serial, date in rows}

    def revoked(self, tenant: str) -> dict[int, datetime]:
        """Return what of that list counts: all or, as long as the tenant's option does not say so, nothing."""
        return self.revocations(tenant) if self.options(tenant).get(CRL_OPTION) == "true" else {}

    def options(self, tenant: str) -> dict[tuple[str, str], str]:
        """Return the options of a tenant that are set, by category and key."""
        rows = self.select("SELECT * FROM options WHERE tenant = ? ORDER BY category, key", tenant)
        return {(row["category"], row["key"]): row["value"] for row in rows}

    def log(self, attempt: LoggedAttempt, code: str, reason: str) -> int:
        """Store the verdict on a connection attempt. Returns the record's number, for `log_end`."""
        values = vars(attempt) | {"chain": json.dumps(attempt.chain)}
        with self._unsynced():
            return self.insert("log", time=timestamp(), code=code, reason=reason, **values)

    def log_end(self, record: int, ending: str) -> None:
        """Add to a connection's record when and why it ended."""
        with self._unsynced():
            self.update("log", record, ended=timestamp(), ending=ending)

    def end_interrupted_connections(self) -> None:
        """Mark connections without an end, which a kill leaves behind, as ended."""
        query = "UPDATE log SET ended = ?, ending = ? WHERE code = 'CONNECTED' AND ended IS NULL"
        self._db.execute(query, (timestamp(), "The platform was killed."))
