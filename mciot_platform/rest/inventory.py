"""The REST calls for devices and what they sent, as far as the tutorial uses them, in the vendor's shapes."""

import sqlite3
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from mciot_platform.messages import COMMAND, RESTART
from mciot_platform.rest.handler import Handler, RestError, is_text
from mciot_platform.storage import RegisteredDevice, StoredOperation, timestamp

Conditions = dict[str, object]  # as for `Storage.page`
RowToJson = Callable[[sqlite3.Row], dict[str, Any]]
PAGING = ("currentPage", "pageSize", "withTotalElements", "withTotalPages")


class DeviceCall(Handler):
    """What the calls share. A device, logged in by its token, meets nothing but itself."""

    def visible(self, device: RegisteredDevice | None, what: str) -> RegisteredDevice:
        """Return a device of the inventory. Raises: RestError: if there is none that the login may see."""
        if device is None or device.created is None or self.login.device not in (None, device.device):
            raise RestError(404, "inventory/Not Found", f"{what} is not in the inventory.")
        return device

    def by_id(self, number: str) -> RegisteredDevice:
        """Return a device by the number in a path or a body. Raises: RestError: if there is none."""
        found = self.platform.storage.device(self.login.tenant, int(number)) if is_id(number) else None
        return self.visible(found, f"The device {number}")

    def time_argument(self, name: str) -> str:
        """Return a query parameter that is a time. Raises: RestError: if it is none."""
        try:
            time = datetime.fromisoformat(self.get_query_argument(name).replace(" ", "+"))  # an unquoted +01:00
            return timestamp(time if time.tzinfo else time.replace(tzinfo=UTC))
        except (ValueError, OverflowError):
            raise RestError(422, "general/Unprocessable Entity", f"{name} must be a time in ISO 8601.") from None

    def conditions(self, source: str | None, *known: str) -> Conditions:
        """Return the rows that the login and the parameter ``source`` select.

        Raises: RestError: for a parameter that is not ``known``, for a filter that does nothing misleads.
        """
        if others := sorted(set(self.request.query_arguments) - {source, *known, *PAGING}):
            sentence = f"The local platform does not know the parameter {others[0]} here."
            raise RestError(422, "general/Unprocessable Entity", sentence)
        conditions: Conditions = {"tenant = ?": self.login.tenant}
        device = self.login.device
        if source is not None and source in self.request.query_arguments:
            device = self.by_id(self.get_query_argument(source)).device
        return conditions | ({"device = ?": device} if device else {})

    def respond_rows(
        self, table: str, conditions: Conditions, as_json: RowToJson, newest_first: bool = False, name: str = ""
    ) -> None:
        """Answer a page of a table's rows."""

        def rows(first: int, size: int) -> tuple[list[dict[str, Any]], int]:
            page, count = self.platform.storage.page(table, conditions, first, size, newest_first=newest_first)
            return [as_json(row) for row in page], count

        self.respond_page(name or table, rows)

    def reference(self, device: RegisteredDevice | None) -> dict[str, str]:
        """Return how an answer refers to a device."""
        if device is None:
            return {}
        return {"id": str(device.id), "self": self.address(f"/inventory/managedObjects/{device.id}")}

    def managed_object(self, device: RegisteredDevice) -> dict[str, Any]:
        """Return a device as the inventory shows it."""
        fixed = {"name": device.name, "type": device.type, "owner": f"device_{device.device}", "c8y_IsDevice": {}}
        times = {"creationTime": device.created, "lastUpdated": device.created}
        return {**self.platform.storage.fragments(device), **fixed, **times, **self.reference(device)}

    def operation(self, operation: StoredOperation) -> dict[str, Any]:
        """Return an operation as it is sent."""
        device = self.platform.storage.device(operation.tenant, operation.device)
        body: dict[str, Any] = {"id": str(operation.id), "deviceId": str(device.id) if device else ""}
        body |= {"status": operation.status, "creationTime": operation.time, "description": operation.description}
        body[operation.fragment] = {"text": operation.text} if operation.fragment == COMMAND else {}
        if operation.status == "FAILED":
            body["failureReason"] = operation.reason
        elif operation.reason:
            body[operation.fragment]["result"] = operation.reason
        return {**body, "self": self.address(f"/devicecontrol/operations/{operation.id}")}


def is_id(number: str) -> bool:
    """Whether a text of a request can be the number of a row."""
    return number.isascii() and number.isdigit() and len(number) < 19


class Identity(DeviceCall):
    """The device with this serial, which is its ClientId."""

    def get(self, external_id: str) -> None:
        """Find it."""
        what = f"The device with the serial {external_id}"
        device = self.visible(self.platform.storage.device(self.login.tenant, external_id), what)
        found = {"externalId": external_id, "type": "c8y_Serial", "managedObject": self.reference(device)}
        self.respond({**found, "self": self.address(self.request.path)})


class ManagedObjects(DeviceCall):
    """The inventory."""

    def get(self) -> None:
        """List a page of the devices."""
        conditions = self.conditions(None, "fragmentType") | {"created > ?": ""}
        if self.get_query_argument("fragmentType", "c8y_IsDevice") != "c8y_IsDevice":
            conditions["id = ?"] = None  # there is nothing but devices
        name = "managedObjects"
        self.respond_rows("devices", conditions, lambda row: self.managed_object(self.by_id(str(row["id"]))), name=name)


class ManagedObject(DeviceCall):
    """One device of the inventory."""

    def get(self, number: str) -> None:
        """Show it."""
        self.respond(self.managed_object(self.by_id(number)))

    def delete(self, number: str) -> None:
        """Delete it, with its user too if asked: then it can't connect until it is registered again."""
        self.require_admin()
        device, with_user = self.by_id(number), self.flag("withDeviceUser")
        self.platform.storage.delete_device(device, with_user=with_user)
        if with_user:
            self.platform.mqtt_server.end_device(device, "The device was deleted.")
        self.set_status(204)


def _measurement(row: sqlite3.Row) -> dict[str, Any]:
    return {"type": row["fragment"], row["fragment"]: {row["series"]: {"value": row["value"], "unit": row["unit"]}}}


def _some(*columns: str) -> RowToJson:
    return lambda row: {name: row[name] for name in columns}


class RecordKind(NamedTuple):
    """Measurements, events or alarms: how they are shown, selected (query parameter: column) and sorted."""

    table: str
    as_json: RowToJson
    columns: Mapping[str, str]
    newest_first: bool = True


MEASURED = {"type": "fragment", "valueFragmentType": "fragment", "valueFragmentSeries": "series"}
STATE = {name: name for name in ("type", "severity", "status")}
#: By path.
KINDS = {
    "/measurement/measurements": RecordKind("measurements", _measurement, MEASURED, newest_first=False),
    "/event/events": RecordKind("events", _some("type", "text"), {"type": "type"}),
    "/alarm/alarms": RecordKind("alarms", _some("type", "text", "severity", "status", "count"), STATE),
}


class Records(DeviceCall):
    """What devices sent, of the path's kind."""

    def get(self) -> None:
        """List a page of them."""
        kind, given = KINDS[self.request.path], self.request.query_arguments
        conditions = self.conditions("source", "dateFrom", "dateTo", "revert", *kind.columns)
        for name in kind.columns.keys() & given.keys():
            conditions[f"{kind.columns[name]} = ?"] = self.get_query_argument(name)
        for name, condition in (("dateFrom", "time >= ?"), ("dateTo", "time <= ?")):
            if name in given:
                conditions[condition] = self.time_argument(name)

        def as_json(row: sqlite3.Row) -> dict[str, Any]:
            source = self.reference(self.platform.storage.device(row["tenant"], row["device"]))
            common = {"id": str(row["id"]), "time": row["time"], "creationTime": row["received"], "source": source}
            return {**common, **kind.as_json(row)}

        self.respond_rows(kind.table, conditions, as_json, kind.newest_first ^ self.flag("revert"))


class OperationsCall(DeviceCall):
    """Operations for devices."""

    def get(self) -> None:
        """List a page of them, the oldest first."""
        conditions = self.conditions("deviceId", "status")
        if status := self.get_query_argument("status", ""):
            conditions["status = ?"] = status
        self.respond_rows("operations", conditions, lambda row: self.operation(StoredOperation(**row)))

    async def post(self) -> None:
        """Add one, and send it to the device at once if that is connected."""
        self.require_admin()
        body = self.body()
        device = self.by_id(str(body.get("deviceId", "")))
        fragment = next((name for name in (RESTART, COMMAND) if isinstance(body.get(name), dict)), None)
        text = body[COMMAND].get("text") if fragment == COMMAND else ""
        description = body.get("description", "")
        if fragment is None or not is_text(text) or not is_text(description):
            sentence = f"An operation of the local platform is {RESTART} or {COMMAND}, with a text."
            raise RestError(422, "devicecontrol/Unprocessable Entity", sentence)
        operation = self.platform.storage.add_operation(device, fragment, text, description)
        self.respond(self.operation(operation), 201)
        await self.platform.mqtt_server.deliver(operation)  # after the answer: the device may be slow


class OneOperation(DeviceCall):
    """One operation."""

    def get(self, number: str) -> None:
        """Show it, with what the device said of it."""
        operation = self.platform.storage.operation(self.login.tenant, int(number)) if is_id(number) else None
        if operation is None or self.login.device not in (None, operation.device):
            raise RestError(404, "devicecontrol/Not Found", f"There is no operation {number}.")
        self.respond(self.operation(operation))
