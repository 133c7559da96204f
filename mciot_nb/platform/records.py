"""What devices send and are sent: the inventory, measurements, events, alarms and operations."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mciot_nb.platform.database import Database, timestamp

DEVICE_TABLES = ("measurements", "events", "alarms", "operations", "sessions")


@dataclass(frozen=True)
class Device:
    """A registered device; ``created`` is when its message 100 has put it into the inventory, None before."""

    id: int
    tenant: str
    device: str
    created: str | None
    name: str = ""
    type: str = ""


@dataclass(frozen=True)
class Operation:
    """Something that a device is to do: ``fragment`` is its kind, ``text`` a command's."""

    id: int
    tenant: str
    device: str
    time: str
    fragment: str
    text: str
    description: str
    status: str
    reason: str


class Records(Database):
    """The part of the file that devices fill."""

    def device(self, tenant: str, device: str) -> Device | None:
        """Find a registered device."""
        return self._one_device("device = ?", tenant, device)

    def device_by_id(self, tenant: str, number: int) -> Device | None:
        """Find a registered device by its number."""
        return self._one_device("id = ?", tenant, number)

    def _one_device(self, condition: str, tenant: str, value: object) -> Device | None:
        row = self._db.execute(
            f"SELECT id, tenant, device, created, name, type FROM devices WHERE tenant = ? AND {condition}",
            (tenant, value),
        ).fetchone()
        return Device(*row) if row else None

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

    def delete_device(self, device: Device, *, with_user: bool) -> None:
        """Take a device and all that it sent out of the inventory; without its user it can't connect any more."""
        with self.transaction():
            for table in DEVICE_TABLES:
                self._db.execute(f"DELETE FROM {table} WHERE tenant = ? AND device = ?", (device.tenant, device.device))
            self._db.execute("DELETE FROM devices WHERE id = ?", (device.id,))
            if not with_user:
                self.register(device.tenant, device.device)

    def fragments(self, device: Device) -> dict[str, Any]:
        """Give what a device has told of itself: its hardware, the operations that it supports …"""
        row = self._db.execute("SELECT fragments FROM devices WHERE id = ?", (device.id,)).fetchone()
        found: dict[str, Any] = json.loads(row[0])
        return found

    def set_fragment(self, device: Device, fragment: str, value: Any) -> None:
        """Keep one thing that a device tells of itself."""
        found = self.fragments(device) | {fragment: value}
        self._db.execute("UPDATE devices SET fragments = ? WHERE id = ?", (json.dumps(found), device.id))

    def add_record(self, table: str, device: Device, time: datetime, **values: object) -> None:
        """Keep a measured value or an event."""
        self.add(
            table, tenant=device.tenant, device=device.device, time=timestamp(time), received=timestamp(), **values
        )

    def raise_alarm(self, device: Device, time: datetime, kind: str, text: str, severity: str) -> None:
        """Keep an alarm; one of the same type that is active is counted on, as the real platform does."""
        changed = self._db.execute(
            "UPDATE alarms SET count = count + 1, time = ?, text = ?, severity = ?"
            " WHERE tenant = ? AND device = ? AND type = ? AND status = 'ACTIVE'",
            (timestamp(time), text, severity, device.tenant, device.device, kind),
        ).rowcount
        if not changed:
            self.add_record("alarms", device, time, type=kind, text=text, severity=severity, status="ACTIVE", count=1)

    def clear_alarm(self, device: Device, kind: str) -> bool:
        """Clear the active alarm of a type. Returns whether there was one."""
        cursor = self._db.execute(
            "UPDATE alarms SET status = 'CLEARED' WHERE tenant = ? AND device = ? AND type = ? AND status = 'ACTIVE'",
            (device.tenant, device.device, kind),
        )
        return cursor.rowcount > 0

    def add_operation(self, device: Device, fragment: str, text: str, description: str) -> Operation:
        """Keep something that a device is to do."""
        values = {"time": timestamp(), "fragment": fragment, "text": text, "description": description}
        values |= {"status": "PENDING", "reason": "", "tenant": device.tenant, "device": device.device}
        return Operation(id=self.add("operations", **values), **values)

    def operation(self, tenant: str, number: int) -> Operation | None:
        """Find an operation by its number."""
        row = self._db.execute("SELECT * FROM operations WHERE tenant = ? AND id = ?", (tenant, number)).fetchone()
        return Operation(**row) if row else None

    def operations(self, device: Device, status: str) -> list[Operation]:
        """Give a device's operations of a status, the oldest first."""
        rows = self._db.execute(
            "SELECT * FROM operations WHERE tenant = ? AND device = ? AND status = ? ORDER BY id",
            (device.tenant, device.device, status),
        )
        return [Operation(**row) for row in rows]

    def set_operation(self, operation: Operation, status: str, reason: str = "") -> None:
        """Follow what a device says of an operation."""
        self._db.execute("UPDATE operations SET status = ?, reason = ? WHERE id = ?", (status, reason, operation.id))

    def session(self, device: Device) -> tuple[dict[str, int], set[int]] | None:
        """Give the topics and the unreleased QoS 2 messages of a session that was to be kept (clean session 0)."""
        row = self._db.execute(
            "SELECT subscriptions, unreleased FROM sessions WHERE tenant = ? AND device = ?",
            (device.tenant, device.device),
        ).fetchone()
        return (json.loads(row[0]), set(json.loads(row[1]))) if row else None

    def keep_session(self, device: Device, subscriptions: Mapping[str, int], unreleased: set[int]) -> None:
        """Keep a session beyond its connection."""
        self._db.execute(
            "INSERT OR REPLACE INTO sessions VALUES (?, ?, ?, ?)",
            (device.tenant, device.device, json.dumps(subscriptions), json.dumps(sorted(unreleased))),
        )

    def forget_session(self, device: Device) -> None:
        """Forget what was kept of a session."""
        self._db.execute("DELETE FROM sessions WHERE tenant = ? AND device = ?", (device.tenant, device.device))
