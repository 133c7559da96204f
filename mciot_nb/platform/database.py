"""The SQLite file in which the local platform keeps everything: a kill at any moment loses nothing acknowledged."""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

#: ``device`` is always the device's identifier, the common name of its certificate. Numbers that others may have kept
#: of what was deleted are not given again (AUTOINCREMENT).
SCHEMA = """
CREATE TABLE IF NOT EXISTS trusted_certificates (
    fingerprint TEXT PRIMARY KEY, tenant TEXT NOT NULL, der BLOB NOT NULL, name TEXT NOT NULL, status TEXT NOT NULL,
    auto_registration INTEGER NOT NULL, uploaded TEXT NOT NULL, deleted TEXT,
    proven INTEGER NOT NULL DEFAULT 0, code TEXT NOT NULL DEFAULT '', code_until TEXT NOT NULL DEFAULT '');
CREATE TABLE IF NOT EXISTS revoked (
    tenant TEXT NOT NULL, serial TEXT NOT NULL, date TEXT NOT NULL, PRIMARY KEY (tenant, serial));
CREATE TABLE IF NOT EXISTS devices (
    id INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL, device TEXT NOT NULL, registered TEXT NOT NULL,
    created TEXT, name TEXT, type TEXT, fragments TEXT NOT NULL DEFAULT '{}', UNIQUE (tenant, device));
CREATE TABLE IF NOT EXISTS measurements (
    id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, device TEXT NOT NULL, time TEXT NOT NULL, received TEXT NOT NULL,
    fragment TEXT NOT NULL, series TEXT NOT NULL, value REAL NOT NULL, unit TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, device TEXT NOT NULL, time TEXT NOT NULL, received TEXT NOT NULL,
    type TEXT NOT NULL, text TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS alarms (
    id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, device TEXT NOT NULL, time TEXT NOT NULL, received TEXT NOT NULL,
    type TEXT NOT NULL, text TEXT NOT NULL, severity TEXT NOT NULL, status TEXT NOT NULL, count INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS operations (
    id INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL, device TEXT NOT NULL, time TEXT NOT NULL,
    fragment TEXT NOT NULL, text TEXT NOT NULL, description TEXT NOT NULL, status TEXT NOT NULL, reason TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS sessions (
    tenant TEXT NOT NULL, device TEXT NOT NULL, subscriptions TEXT NOT NULL, unreleased TEXT NOT NULL,
    PRIMARY KEY (tenant, device));
CREATE TABLE IF NOT EXISTS log (
    id INTEGER PRIMARY KEY, time TEXT NOT NULL, address TEXT NOT NULL, tenant TEXT NOT NULL, subject TEXT NOT NULL,
    client_id TEXT NOT NULL, code TEXT NOT NULL, reason TEXT NOT NULL, ended TEXT, ending TEXT,
    tls TEXT NOT NULL DEFAULT '', chain TEXT NOT NULL DEFAULT '[]');
"""
#: What tables of an earlier version lack.
ADDED = (
    ("trusted_certificates", "proven", "INTEGER NOT NULL DEFAULT 0"),
    ("trusted_certificates", "code", "TEXT NOT NULL DEFAULT ''"),
    ("trusted_certificates", "code_until", "TEXT NOT NULL DEFAULT ''"),
    ("devices", "fragments", "TEXT NOT NULL DEFAULT '{}'"),
    ("log", "tls", "TEXT NOT NULL DEFAULT ''"),
    ("log", "chain", "TEXT NOT NULL DEFAULT '[]'"),
)
INDEXES = "".join(
    f"CREATE INDEX IF NOT EXISTS {table}_of_device ON {table} (tenant, device, time);"
    for table in ("measurements", "events", "alarms", "operations")
)


def timestamp(at: datetime | None = None) -> str:
    """Write a time, now by default, in ISO 8601 and UTC, so that text order is time order."""
    return (at or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="milliseconds")


class Database:
    """The file, opened. Every call is durable when it returns; those inside `transaction` when that ends."""

    def __init__(self, file: Path) -> None:
        self._db = sqlite3.connect(file, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        self._db.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;" + SCHEMA + INDEXES)
        for table, column, kind in ADDED:
            if column not in {row["name"] for row in self._db.execute(f"PRAGMA table_info ({table})")}:
                self._db.execute(f"ALTER TABLE {table} ADD COLUMN {column} {kind}")

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

    def add(self, table: str, **values: object) -> int:
        """Add a row to one of our tables. Returns its number."""
        marks = ", ".join("?" * len(values))
        cursor = self._db.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})", tuple(values.values()))
        return cursor.lastrowid or 0

    def page(
        self, table: str, conditions: Mapping[str, object], first: int, size: int, *, newest_first: bool = False
    ) -> tuple[list[sqlite3.Row], int]:
        """Give ``size`` rows from number ``first``, of those that fulfil the conditions, and how many these are.

        A condition is a piece of SQL of ours with one mark, such as ``tenant = ?``, and the value for it.
        """
        where, values = " AND ".join(conditions), tuple(conditions.values())
        (count,) = self._db.execute(f"SELECT count(*) FROM {table} WHERE {where}", values).fetchone()
        if first >= count:  # also where the number is larger than SQLite can hold
            return [], count
        time, order = "created" if table == "devices" else "time", "DESC" if newest_first else "ASC"
        query = f"SELECT * FROM {table} WHERE {where} ORDER BY {time} {order}, id {order} LIMIT ? OFFSET ?"
        return self._db.execute(query, (*values, size, first)).fetchall(), count
