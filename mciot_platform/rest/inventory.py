"""The REST calls for devices and what they sent, as far as the tutorial uses them, in the vendor's shapes."""

import sqlite3
from datetime import UTC, datetime
from typing import Any, ClassVar

from mciot_platform.messages import COMMAND, RESTART
from mciot_platform.rest.handler import Handler, Problem, is_text
from mciot_platform.storage import RegisteredDevice, StoredOperation, timestamp

PAGING = ("currentPage", "pageSize", "withTotalElements", "withTotalPages")


class DeviceCall(Handler):
    """What the calls share. A device, logged in by its token, meets nothing but itself."""

    def own(self, device: RegisteredDevice | None, what: str) -> RegisteredDevice:
        """Give a device of the inventory that the login may see. Raises Problem."""
        if device is None or device.created is None or self.login.device not in (None, device.device):
            raise Problem(404, "inventory/Not Found", f"{what} is not in the inventory.")
        return device

    def by_id(self, number: str) -> RegisteredDevice:
        """Find a device by the number in a path or a body. Raises Problem."""
        known = number.isascii() and number.isdigit() and len(number) < 19
        found = self.platform.store.device_by_id(self.login.tenant, int(number)) if known else None
        return self.own(found, f"The device {number}")

    def moment(self, name: str) -> str:
        """Give a query parameter that is a time. Raises Problem."""
        try:
            time = datetime.fromisoformat(self.get_query_argument(name).replace(" ", "+"))  # an unquoted +01:00
            return timestamp(time if time.tzinfo else time.replace(tzinfo=UTC))
        except (ValueError, OverflowError):
            raise Problem(422, "general/Unprocessable Entity", f"{name} must be a time in ISO 8601.") from None

    def check_parameters(self, *known: str) -> None:
        """Refuse a parameter that we would not heed: a filter that does nothing misleads. Raises Problem."""
        if others := sorted(set(self.request.query_arguments) - {*known, *PAGING}):
            sentence = f"The local platform does not know the parameter {others[0]} here."
            raise Problem(422, "general/Unprocessable Entity", sentence)

    def source(self, device: RegisteredDevice) -> dict[str, str]:
        """Refer to a device."""
        return {"id": str(device.id), "self": self.address(f"/inventory/managedObjects/{device.id}")}

    def managed_object(self, device: RegisteredDevice) -> dict[str, Any]:
        """Give a device as the inventory shows it."""
        fixed = {"name": device.name, "type": device.type, "owner": f"device_{device.device}", "c8y_IsDevice": {}}
        times = {"creationTime": device.created, "lastUpdated": device.created}
        return {**self.platform.store.fragments(device), **fixed, **times, **self.source(device)}


class Identity(DeviceCall):
    """The device with this serial, which is its ClientId."""

    def get(self, external_id: str) -> None:
        """Find it."""
        what = f"The device with the serial {external_id}"
        device = self.own(self.platform.store.device(self.login.tenant, external_id), what)
        found = {"externalId": external_id, "type": "c8y_Serial", "managedObject": self.source(device)}
        self.respond({**found, "self": self.address(self.request.path)})


class ManagedObjects(DeviceCall):
    """The inventory."""

    def get(self) -> None:
        """List a page of the devices."""
        self.check_parameters("fragmentType")
        conditions: dict[str, object] = {"tenant = ?": self.login.tenant, "created > ?": ""}
        if self.login.device:
            conditions["device = ?"] = self.login.device
        if self.get_query_argument("fragmentType", "c8y_IsDevice") != "c8y_IsDevice":
            conditions["id = ?"] = None  # there is nothing but devices

        def rows(first: int, size: int) -> tuple[list[dict[str, Any]], int]:
            shown, count = self.platform.store.page("devices", conditions, first, size)
            return [self.managed_object(self.by_id(str(row["id"]))) for row in shown], count

        self.respond_page("managedObjects", rows)


class ManagedObject(DeviceCall):
    """One device of the inventory."""

    def get(self, number: str) -> None:
        """Give it."""
        self.respond(self.managed_object(self.by_id(number)))

    def delete(self, number: str) -> None:
        """Delete it, with its user too if asked: then it can't connect until it is registered again."""
        self.demand_role()
        device = self.by_id(number)
        with_user = self.flag("withDeviceUser")
        self.platform.store.delete_device(device, with_user=with_user)
        if with_user:
            self.platform.endpoint.end_device(device, "The device was deleted.")
        self.set_status(204)


class RecordsCall(DeviceCall):
    """Measurements, events or alarms."""

    name: str
    newest_first: ClassVar[bool] = True
    #: Query parameters that select by a column.
    columns: ClassVar[dict[str, str]] = {"type": "type"}

    def get(self) -> None:
        """List a page of them."""
        self.check_parameters("source", "dateFrom", "dateTo", "revert", *self.columns)
        conditions: dict[str, object] = {"tenant = ?": self.login.tenant}
        given = self.request.query_arguments
        if "source" in given:
            conditions["device = ?"] = self.by_id(self.get_query_argument("source")).device
        elif self.login.device:
            conditions["device = ?"] = self.login.device
        for name in self.columns.keys() & given.keys():
            conditions[f"{self.columns[name]} = ?"] = self.get_query_argument(name)
        for name, condition in (("dateFrom", "time >= ?"), ("dateTo", "time <= ?")):
            if name in given:
                conditions[condition] = self.moment(name)
        newest_first = self.newest_first ^ self.flag("revert")

        def rows(first: int, size: int) -> tuple[list[dict[str, Any]], int]:
            shown, count = self.platform.store.page(self.name, conditions, first, size, newest_first=newest_first)
            return [self._shown(row) for row in shown], count

        self.respond_page(self.name, rows)

    def _shown(self, row: sqlite3.Row) -> dict[str, Any]:
        device = self.platform.store.device(row["tenant"], row["device"])
        common = {"id": str(row["id"]), "time": row["time"], "creationTime": row["received"]}
        return {**common, **self.content(row), "source": self.source(device) if device else {}}

    def content(self, row: sqlite3.Row) -> dict[str, Any]:
        """Give what a kind of record has of its own."""
        raise NotImplementedError


class Measurements(RecordsCall):
    """Measured values."""

    name, newest_first = "measurements", False
    columns: ClassVar[dict[str, str]] = {
        "type": "fragment",
        "valueFragmentType": "fragment",
        "valueFragmentSeries": "series",
    }

    def content(self, row: sqlite3.Row) -> dict[str, Any]:
        """Give the value, under its fragment and series."""
        return {"type": row["fragment"], row["fragment"]: {row["series"]: {"value": row["value"], "unit": row["unit"]}}}


class Events(RecordsCall):
    """Events."""

    name = "events"

    def content(self, row: sqlite3.Row) -> dict[str, Any]:
        """Give its type and text."""
        return {"type": row["type"], "text": row["text"]}


class Alarms(RecordsCall):
    """Alarms."""

    name = "alarms"
    columns: ClassVar[dict[str, str]] = {"type": "type", "severity": "severity", "status": "status"}

    def content(self, row: sqlite3.Row) -> dict[str, Any]:
        """Give its type, text, severity, status and how often it was raised."""
        return {name: row[name] for name in ("type", "text", "severity", "status", "count")}


class OperationCall(DeviceCall):
    """What the calls for operations share."""

    def shown(self, operation: StoredOperation) -> dict[str, Any]:
        """Give an operation as it is sent."""
        device = self.platform.store.device(operation.tenant, operation.device)
        body: dict[str, Any] = {"id": str(operation.id), "deviceId": str(device.id) if device else ""}
        body |= {"status": operation.status, "creationTime": operation.time, "description": operation.description}
        body[operation.fragment] = {"text": operation.text} if operation.fragment == COMMAND else {}
        if operation.status == "FAILED":
            body["failureReason"] = operation.reason
        elif operation.reason:
            body[operation.fragment]["result"] = operation.reason
        return {**body, "self": self.address(f"/devicecontrol/operations/{operation.id}")}


class Operations(OperationCall):
    """Operations for devices."""

    def get(self) -> None:
        """List a page of them, the oldest first."""
        self.check_parameters("deviceId", "status")
        conditions: dict[str, object] = {"tenant = ?": self.login.tenant}
        if number := self.get_query_argument("deviceId", ""):
            conditions["device = ?"] = self.by_id(number).device
        elif self.login.device:
            conditions["device = ?"] = self.login.device
        if status := self.get_query_argument("status", ""):
            conditions["status = ?"] = status

        def rows(first: int, size: int) -> tuple[list[dict[str, Any]], int]:
            found, count = self.platform.store.page("operations", conditions, first, size)
            return [self.shown(StoredOperation(**row)) for row in found], count

        self.respond_page("operations", rows)

    async def post(self) -> None:
        """Make one, and send it to the device at once if that is connected."""
        self.demand_role()
        body = self.body()
        device = self.by_id(str(body.get("deviceId", "")))
        fragment = next((name for name in (RESTART, COMMAND) if isinstance(body.get(name), dict)), None)
        text = body[COMMAND].get("text") if fragment == COMMAND else ""
        description = body.get("description", "")
        if fragment is None or not is_text(text) or not is_text(description):
            sentence = f"An operation of the local platform is {RESTART} or {COMMAND}, with a text."
            raise Problem(422, "devicecontrol/Unprocessable Entity", sentence)
        operation = self.platform.store.add_operation(device, fragment, text, description)
        self.respond(self.shown(operation), 201)
        await self.platform.endpoint.deliver(operation)  # after the answer: the device may be slow


class OneOperation(OperationCall):
    """One operation."""

    def get(self, number: str) -> None:
        """Give it, with what the device said of it."""
        known = number.isascii() and number.isdigit() and len(number) < 19
        operation = self.platform.store.operation(self.login.tenant, int(number)) if known else None
        if operation is None or self.login.device not in (None, operation.device):
            raise Problem(404, "devicecontrol/Not Found", f"There is no operation {number}.")
        self.respond(self.shown(operation))


ROUTES: list[tuple[str, type[Handler]]] = [
    (r"/identity/externalIds/c8y_Serial/(?P<external_id>[^/]+)", Identity),
    (r"/inventory/managedObjects", ManagedObjects),
    (r"/inventory/managedObjects/(?P<number>[^/]+)", ManagedObject),
    (r"/measurement/measurements", Measurements),
    (r"/event/events", Events),
    (r"/alarm/alarms", Alarms),
    (r"/devicecontrol/operations", Operations),
    (r"/devicecontrol/operations/(?P<number>[^/]+)", OneOperation),
]
