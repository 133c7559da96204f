"""The REST calls for what devices have sent: measurements, events and alarms."""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from mciot_platform.rest.handler import as_time, unfit, zulu
from mciot_platform.rest.inventory import HAS_FRAGMENT, IN_STATUS, PERIOD, InventoryCalls, as_fragments, as_text

ALLOWED = {"severity": ("CRITICAL", "MAJOR", "MINOR", "WARNING"), "status": ("ACTIVE", "ACKNOWLEDGED", "CLEARED")}
#: What of a record's body is no fragment.
RESERVED = ("source", "time", "type", "text", "severity", "status", "count")


class RecordKind(NamedTuple):
    """Measurements, events or alarms: what is shown, required of a new one, and may change; filters and order."""

    table: str
    shown: tuple[str, ...]
    required: tuple[str, ...]
    changed: tuple[str, ...]
    filters: Mapping[str, str]
    newest_first: bool = True


#: Of a measurement the first value has columns; all of them, if it came by REST, are in ``fragments``.
SERIES = "EXISTS (SELECT 1 FROM json_tree(fragments) AS inner WHERE inner.key = ? AND inner.path <> '$')"
MEASURED = {**PERIOD, "source": "device = ?", "type": "coalesce(nullif(type, ''), fragment) = ?"}
MEASURED |= {"valueFragmentType": f"fragment = ? OR {HAS_FRAGMENT}", "valueFragmentSeries": f"series = ? OR {SERIES}"}
REPORTED = {**PERIOD, "source": "device = ?", "type": "type = ?", "fragmentType": HAS_FRAGMENT}
REPORTED |= {"createdFrom": "received >= ?", "createdTo": "received <= ?"}
STATE = {**REPORTED, **{name: IN_STATUS.replace("status", name) for name in ("type", "severity", "status")}}
STATE |= {"resolved": "(status = 'CLEARED') = (lower(?) = 'true')"}
ALARM = ("type", "text", "severity")
MEASUREMENTS = RecordKind("measurements", (), ("type",), (), MEASURED, newest_first=False)
EVENTS = RecordKind("events", ("type", "text"), ("type", "text"), ("text",), REPORTED)
ALARMS = RecordKind("alarms", (*ALARM, "status", "count"), ALARM, ("text", "severity", "status"), STATE)
KINDS = {"measurement": MEASUREMENTS, "event": EVENTS, "alarm": ALARMS}


def measured(body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield each value of a measurement, as columns. Raises: RestError: 422 if one is no number."""
    for fragment, series in body.items():
        for name, value in series.items() if isinstance(series, dict) and fragment not in RESERVED else ():
            if isinstance(value, dict) and "value" in value:
                number = value["value"]
                if type(number) not in (int, float) or abs(number) > 1e308:
                    raise unfit(f"The value of {fragment}.{name} must be a number.")
                yield {"fragment": fragment, "series": name, "value": float(number), "unit": as_text(value, "unit", "")}


class RecordCalls(InventoryCalls):
    """The calls, of the path's kind."""

    @property
    def kind(self) -> RecordKind:
        """The path's kind."""
        return KINDS[self.request.path.strip("/").partition("/")[0]]

    def _record(self, row: sqlite3.Row) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(row["fragments"]) | {name: row[name] for name in self.kind.shown}
        if self.kind is MEASUREMENTS:
            body.setdefault(row["fragment"], {row["series"]: {"value": row["value"], "unit": row["unit"]}})
            body["type"] = row["type"] or row["fragment"]
        source = self._reference(self.storage.device(row["tenant"], row["device"]))
        times = {"time": zulu(row["time"]), "creationTime": zulu(row["received"])}
        path = self.address(f"/{self.kind.table[:-1]}/{self.kind.table}/{row['id']}")
        return {**body, "id": str(row["id"]), **times, "source": source, "self": path}

    def _list_records(self) -> None:
        """List what was sent, events and alarms the newest first; with revert the other way round."""
        direction = "DESC" if self.kind.newest_first ^ self.flag("revert") else "ASC"
        order, table = f"time {direction}, id {direction}", self.kind.table
        rows = partial(self.storage.page, table, self._clauses(self.kind.filters), order)
        self.respond_page(table, rows, self._record)

    def _count_records(self) -> None:
        """Count what the filters select."""
        self.respond(self.storage.page(self.kind.table, self._clauses(self.kind.filters), "id", 0, 1)[1])

    def _show_record(self, number: str) -> None:
        """Show one record."""
        self.respond(self._record(self._row(self.kind.table, number)))

    def _change_record(self, number: str) -> None:
        """Change a text, an alarm's severity or status, or fragments."""
        row, body = self._row(self.kind.table, number), self.body()
        self._require_writer(row["device"])
        values = {name: as_text(body, name, row[name], ALLOWED) for name in self.kind.changed}
        values["fragments"] = as_fragments(json.loads(row["fragments"]) | body, *RESERVED)
        self.storage.update(self.kind.table, row["id"], **values)
        self._show_record(number)

    def _store(self, body: Any) -> dict[str, Any]:
        """Store a new one; an alarm of a type that is active is counted on. Returns it as it is sent."""
        source = body.get("source") if isinstance(body, dict) else None
        if not isinstance(source, dict) or "id" not in source:
            raise unfit("source, an object with the id of a device, is required.")
        self._require_writer((device := self._by_id(source["id"])).device)
        values: dict[str, Any] = {name: as_text(body, name, None, ALLOWED) for name in self.kind.required}
        time, fragments = as_time(body.get("time"), "time"), as_fragments(body, *RESERVED)
        if self.kind is MEASUREMENTS:
            if not (found := list(measured(body))):
                raise unfit('A measurement has a fragment, a series, a value: "c8y_P": {"T": {"value": 1}}.')
            values |= found[0]
        if self.kind is ALARMS:
            number = self.storage.raise_alarm(device, time, *values.values())
            status = as_text(body, "status", "ACTIVE", ALLOWED)
            self.storage.update("alarms", number, status=status, fragments=fragments)
        else:
            number = self.storage.add_record(self.kind.table, device, time, fragments=fragments, **values)
        return self._record(self._row(self.kind.table, str(number)))

    def _add_records(self) -> None:
        """Add a record; of measurements several in one body, all of them or none."""
        body = self.body()
        several = body.get("measurements") if self.kind is MEASUREMENTS else None
        with self.storage.transaction():
            added = [self._store(one) for one in (several if isinstance(several, list) else [body])]
        self.respond({"measurements": added} if isinstance(several, list) else added[0], 201)
