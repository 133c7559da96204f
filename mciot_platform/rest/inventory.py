"""The REST calls for the inventory, the names of its objects, and what devices are to do."""

import json
import secrets
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import quote

from mciot_platform.messages import COMMAND, RESTART, SERVICE_TYPE
from mciot_platform.rest.handler import Handler, RestError, as_time, unfit, zulu
from mciot_platform.rest.query import parse
from mciot_platform.storage import NO_DEVICE, Clause, RegisteredDevice, StoredOperation, timestamp

#: Documented filters that are not done here: a list without them would be a wrong one.
UNSUPPORTED = {"bulkOperationId", "fragmentValue", "lastUpdatedFrom", "lastUpdatedTo", "onlyRoots", "withSourceAssets"}
UNSUPPORTED |= {"childAdditionId", "childAssetId", "childDeviceId", "withSourceDevices"}
#: By parameter: the SQL of a filter, whose marks are all the parameter's value. That of a time begins with date.
Filters = Mapping[str, str]
HAS_FRAGMENT = "EXISTS (SELECT 1 FROM json_each(fragments) WHERE key = ?)"
PERIOD: Filters = {"dateFrom": "time >= ?", "dateTo": "time <= ?"}
IN_STATUS = "instr(',' || ? || ',', ',' || status || ',') > 0"
OF_DEVICE, OF_FAMILY = "device = ?", "device IN (SELECT value FROM json_each(?))"
OPERATIONS = {**PERIOD, "deviceId": OF_DEVICE, "agentId": OF_FAMILY, "status": IN_STATUS, "fragmentType": HAS_FRAGMENT}
STATES = {"status": ("PENDING", "EXECUTING", "SUCCESSFUL", "FAILED")}
#: What of an operation's body is no fragment.
OPERATIONS_OWN = ("deviceId", "status", "description", "failureReason", "bulkOperationId")


def texts(value: Any) -> list[str]:
    """Return all texts in a JSON value."""
    if isinstance(value, dict | list):
        return [text for inner in (value.values() if isinstance(value, dict) else value) for text in texts(inner)]
    return [value] if isinstance(value, str) else []


#: By parameter: whether an object is one of those that are asked for. The vendor's Python client quotes blanks.
INVENTORY: dict[str, Callable[[dict[str, Any], str], bool]] = {
    "fragmentType": lambda one, text: text in one,
    "type": lambda one, text: one.get("type") == text,
    "owner": lambda one, text: one.get("owner") == text,
    "ids": lambda one, text: one["id"] in text.split(","),
    "text": lambda one, text: (text.strip("'") if " " in text else text) in texts(one),
    "q": lambda one, _: "c8y_IsDevice" in one,
}


def as_text(
    body: Mapping[str, Any], name: str, default: str | None = None, allowed: Mapping[str, Sequence[str]] = {}
) -> str:
    """Return a text of a body. Raises: RestError: 422 if it is missing, none, or not allowed."""
    text = body.get(name, default)
    if not isinstance(text, str) or text not in allowed.get(name, (text,)):
        raise unfit(f"{name} must be {'one of ' + ', '.join(allowed[name]) if name in allowed else 'a text'}.")
    return str(text)


def as_fragments(body: Mapping[str, Any], *reserved: str) -> str:
    """Return all of a body but what is reserved, and but what is null, as JSON."""
    left_out = ("id", "self", "creationTime", "lastUpdated", *reserved)
    return json.dumps({name: value for name, value in body.items() if name not in left_out and value is not None})


class InventoryCalls(Handler):
    """The calls. A device, logged in by its token, meets nothing but itself."""

    def _visible(self, device: RegisteredDevice | None, what: str, created: bool = True) -> RegisteredDevice:
        if not device or (created and not device.created) or self.login.device not in (None, device.device):
            raise RestError(404, "inventory/Not Found", f"{what} is not in the inventory.")
        return device

    def _by_id(self, number: object, created: bool = True) -> RegisteredDevice:
        is_id = (text := str(number)).isascii() and text.isdigit() and len(text) < 19
        found = self.storage.device(self.login.tenant, int(text) if is_id else 0)
        return self._visible(found, f"The device {text}", created)

    def _row(self, table: str, number: str) -> sqlite3.Row:
        query = f"SELECT * FROM {table} WHERE id = ? AND CAST(id AS TEXT) = ? AND tenant = ? AND ? IN ('', device)"
        for row in self.storage.select(query, number, number, self.login.tenant, self.login.device or ""):
            return row
        raise RestError(404, f"{table[:-1]}/Not Found", f"There is no {table[:-1]} {number}.")

    def _require_writer(self, device: str) -> None:
        if self.login.device != device:
            self.require_admin()

    def _given(self) -> dict[str, str]:
        """Return the query's parameters, lists with commas. Raises: RestError: 422 for a filter that is not done."""
        given = {name: ",".join(self.get_query_arguments(name)) for name in self.request.query_arguments}
        for name in sorted(UNSUPPORTED & given.keys()):
            if given[name].lower() != "false":
                raise unfit(f"The local platform does not support the filter {name}: leave it out.")
        return given

    def _clauses(self, filters: Filters) -> list[Clause]:
        """Return what the login and the filters select; other parameters are ignored, as by the real platform."""
        given, clauses = self._given(), list[Clause]([("tenant = ?", [self.login.tenant])])
        if self.login.device:
            clauses.append(("device = ?", [self.login.device]))
        for name in filters.keys() & given.keys():
            value = timestamp(as_time(given[name], name)) if name.endswith(("From", "To")) else given[name]
            if filters[name] in (OF_DEVICE, OF_FAMILY):
                device = self._by_id(value)
                value = device.device if name != "agentId" else json.dumps(self.storage.family(device))
            clauses.append((filters[name], [value] * filters[name].count("?")))
        return clauses

    def _reference(self, device: RegisteredDevice | None) -> dict[str, str]:
        return {"id": str(device.id), "self": self.address(f"/inventory/managedObjects/{device.id}")} if device else {}

    def _objects(self, number: int | None = None) -> list[dict[str, Any]]:
        """Return what the login sees of the inventory, all or one; a device is its own owner."""
        query = "SELECT * FROM devices WHERE tenant = ? AND created > '' AND ? IN ('', device) AND ifnull(?, id) = id"
        found, values = [], (self.login.tenant, self.login.device or "", number)
        for row in self.storage.select(f"{query} ORDER BY created, id", *values):
            is_device = not row["device"].startswith(NO_DEVICE) and row["type"] != SERVICE_TYPE
            own = {"owner": f"device_{row['device']}", "c8y_IsDevice": {}} if is_device else {}
            own |= json.loads(row["fragments"]) | {name: row[name] for name in ("name", "type") if row[name]}
            own |= {"creationTime": zulu(row["created"]), "lastUpdated": zulu(row["updated"] or row["created"])}
            found.append(own | {"id": str(row["id"]), "self": self.address(f"/inventory/managedObjects/{row['id']}")})
        return found

    def _list_objects(self) -> None:
        """List the inventory: devices, and what was added by REST."""
        given, found = self._given(), self._objects()
        for name in INVENTORY.keys() & given.keys():
            found = [one for one in found if INVENTORY[name](one, given[name])]
        for name in {"q", "query"} & given.keys():
            test, keys = parse(given[name])
            found = [one for one in found if test(one)]
            for key, descending in reversed(keys):
                found.sort(key=key, reverse=descending)
        self.respond_page("managedObjects", lambda first, size: (found[first : first + size], len(found)))

    def _show_object(self, number: str) -> None:
        """Show an object of the inventory."""
        self.respond(self._objects(self._by_id(number).id)[0])

    def _object_values(self, body: Mapping[str, Any]) -> dict[str, str]:
        name, kind, _ = (as_text(body, name, "") for name in ("name", "type", "owner"))
        return {"name": name, "type": kind, "fragments": as_fragments(body, "name", "type")}

    def _add_object(self) -> None:
        """Add an object to the inventory; the login is its owner, unless another one is named."""
        values = self._object_values({"owner": self.login.user, **self.body()})
        values |= {"tenant": self.login.tenant, "device": f"{NO_DEVICE}{secrets.token_hex(8)}"}
        number = self.storage.insert("devices", registered="", created=timestamp(), **values)
        self.respond(self._objects(number)[0], 201)

    def _change_object(self, number: str) -> None:
        """Change an object: what is given, of which null takes a fragment away."""
        device, body = self._by_id(number), self.body()
        self._require_writer(device.device)
        values = self._object_values(self._objects(device.id)[0] | body)
        self.storage.update("devices", device.id, updated=timestamp(), **values)
        self._show_object(number)

    def _delete_object(self, number: str) -> None:
        """Delete it, with its user too if asked, also before its message 100: then it has to be registered again."""
        device = self._by_id(number, created=not (with_user := self.flag("withDeviceUser")))
        self.storage.delete_device(device, with_user=with_user)
        if with_user:
            self.platform.mqtt_server.end_device(device, "The device was deleted.")
        self.set_status(204)

    def _name(self, device: RegisteredDevice, kind: str, name: str) -> dict[str, Any]:
        path = self.address(f"/identity/externalIds/{quote(kind, safe='')}/{quote(name, safe='')}")
        return {"externalId": name, "type": kind, "managedObject": self._reference(device), "self": path}

    def _named(self, kind: str, name: str) -> RegisteredDevice:
        found = self.storage.find_object(self.login.tenant, kind, name)
        return self._visible(found, f"The device with the {kind} {name}")

    def _find_name(self, kind: str, name: str) -> None:
        """Find an object by an external id; the c8y_Serial of a device is its ClientId."""
        self.respond(self._name(self._named(kind, name), kind, name))

    def _list_names(self, number: str) -> None:
        """List the external ids of an object."""
        device = self._by_id(number)
        own = [] if device.device.startswith(NO_DEVICE) else [("c8y_Serial", device.device)]
        rows = self.storage.select("SELECT type, name FROM external_ids WHERE object = ?", device.id)
        found = [self._name(device, *each) for each in dict.fromkeys([*own, *map(tuple, rows)])]
        self.respond({"externalIds": found, "self": self.address(self.request.path)})

    def _add_name(self, number: str) -> None:
        """Add an external id to an object; a device that registers later with this c8y_Serial becomes it."""
        device, body = self._by_id(number), self.body()
        kind, name = as_text(body, "type"), as_text(body, "externalId")
        if not kind or not name:
            raise unfit("type and externalId must not be empty.")
        if self.storage.find_object(device.tenant, kind, name):
            raise RestError(409, "identity/Duplicate", f"The {kind} {name} exists already.")
        self.storage.insert("external_ids", tenant=device.tenant, type=kind, name=name, object=device.id)
        self.respond(self._name(device, kind, name), 201)

    def _delete_name(self, kind: str, name: str) -> None:
        """Take an external id away from its object, but not the one that a device has from its certificate."""
        if (kind, self._named(kind, name).device) == ("c8y_Serial", name):
            raise unfit(f"{name} is the device's own name, by its certificate: delete the device.")
        self.storage.delete("external_ids", tenant=self.login.tenant, type=kind, name=name)
        self.set_status(204)

    def _operation(self, row: Mapping[str, Any] | sqlite3.Row) -> dict[str, Any]:
        operation = StoredOperation(**row)
        device = self.storage.device(operation.tenant, operation.device)
        body: dict[str, Any] = {"id": str(operation.id), "deviceId": str(device.id) if device else ""}
        body |= {"status": operation.status, "creationTime": zulu(operation.time), "description": operation.description}
        body[operation.fragment] = {"text": operation.text} if operation.fragment == COMMAND else {}
        body |= json.loads(operation.fragments)
        if operation.status == "FAILED":
            body["failureReason"] = operation.reason
        elif operation.reason and isinstance(body[operation.fragment], dict):
            body[operation.fragment]["result"] = operation.reason
        return {**body, "self": self.address(f"/devicecontrol/operations/{operation.id}")}

    def _list_operations(self) -> None:
        """List operations, the oldest first; with revert the newest."""
        order = "id DESC" if self.flag("revert") else "id"
        rows = partial(self.storage.page, "operations", self._clauses(OPERATIONS), order)
        self.respond_page("operations", rows, self._operation)

    async def _add_operation(self) -> None:
        """Add an operation, and send it to the device at once if that is connected."""
        body = self.body()
        device = self._by_id(body.get("deviceId", ""))
        kinds = [name for name, value in body.items() if name not in OPERATIONS_OWN and isinstance(value, dict)]
        kind = next((name for name in (RESTART, COMMAND, *kinds) if name in kinds), None)
        text = body[COMMAND].get("text") if kind == COMMAND else ""
        if kind is None or not isinstance(text, str):
            raise unfit(f"An operation has a fragment, an object such as {RESTART}, or {COMMAND} with a text.")
        values = {"fragment": kind, "text": text, "description": as_text(body, "description", "")}
        fragments = as_fragments(body, *OPERATIONS_OWN)
        operation = self.storage.add_operation(device, **values, fragments=fragments)
        self.respond(self._operation(vars(operation)), 201)
        await self.platform.mqtt_server.deliver(operation)  # after the answer: the device may be slow

    def _show_operation(self, number: str) -> None:
        """Show an operation, with what the device said of it."""
        self.respond(self._operation(self._row("operations", number)))

    def _change_operation(self, number: str) -> None:
        """Store what is said of an operation: its status, the reason of a failure, and fragments."""
        operation, body = StoredOperation(**self._row("operations", number)), self.body()
        self._require_writer(operation.device)
        status = as_text(body, "status", operation.status, STATES)
        reason = as_text(body, "failureReason", operation.reason)
        fragments = as_fragments(json.loads(operation.fragments) | body, *OPERATIONS_OWN)
        self.storage.update("operations", operation.id, status=status, reason=reason, fragments=fragments)
        self._show_operation(number)
