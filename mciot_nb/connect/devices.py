"""A tenant's devices over REST: what they have sent, and what they are asked to do."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import quote

from mciot_nb.errors import fault
from mciot_nb.pki.files import statuses

if TYPE_CHECKING:
    import pandas as pd

    from mciot_nb.connect.tenant import Tenant

T = TypeVar("T")

_OBJECTS, _OPERATIONS = "/inventory/managedObjects", "/devicecontrol/operations"
#: The properties of a managed object that are not fragments.
_PROPERTIES = {"id", "name", "type", "owner", "creationTime", "lastUpdated", "self"}
_MEANING = statuses("devices")


@dataclass(frozen=True)
class ManagedDevice:
    """A device as the platform keeps it: ``id`` is the platform's, ``external_id`` the common name of its certificate.

    ``fragments`` holds what else is known of it, such as ``c8y_Hardware``.
    """

    id: str
    external_id: str
    name: str
    type: str
    created: datetime
    fragments: dict[str, Any] = field(default_factory=dict, hash=False)

    @classmethod
    def from_json(cls, body: dict[str, Any], external_id: str = "") -> Self:
        """Read the platform's description of a managed object, which does not name the external ID."""
        name, kind = (str(body.get(key) or "") for key in ("name", "type"))
        fragments = {key: value for key, value in body.items() if key not in _PROPERTIES}
        created = datetime.fromisoformat(body["creationTime"])
        return cls(_identifier(body["id"]), external_id, name, kind, created, fragments)


@dataclass(frozen=True)
class Operation:
    """Something that a device is asked to do, as the platform keeps it.

    ``name`` is its fragment, such as ``c8y_Restart``; ``text`` that of a ``c8y_Command``; ``status`` is PENDING,
    EXECUTING, SUCCESSFUL or FAILED, then with the ``failure``'s reason.
    """

    id: str
    device_id: str
    name: str
    status: str
    created: datetime
    text: str = ""
    failure: str = ""

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> Self:
        """Read the platform's description."""
        name = next((key for key in body if key.startswith("c8y_")), "")
        text = str(body[name].get("text", "")) if isinstance(body.get(name), dict) else ""
        created, failure = datetime.fromisoformat(body["creationTime"]), str(body.get("failureReason") or "")
        number, device = _identifier(body["id"]), _identifier(body["deviceId"])
        return cls(number, device, name, str(body["status"]), created, text, failure)


@dataclass(frozen=True)
class Devices:
    """The tenant's devices. ``external_id`` is a device's identifier: the common name of its certificate.

    Each method raises OnboardingError as `Tenant.request` does, and NO_DEVICE where the tenant has no such device.
    """

    tenant: "Tenant" = field(repr=False)

    def find(self, external_id: str) -> ManagedDevice | None:
        """Look for a device; None where the tenant does not have it."""
        if external_id in ("", ".", ".."):  # a URL can't hold them as a name
            return None
        path = f"/identity/externalIds/c8y_Serial/{quote(external_id, safe='')}"
        number = self.tenant.find(path, lambda body: _identifier(body["managedObject"]["id"]), meaning=_MEANING)
        read = partial(ManagedDevice.from_json, external_id=external_id)
        return self.tenant.find(f"{_OBJECTS}/{number}", read, meaning=_MEANING) if number else None

    def is_registered(self, external_id: str) -> bool:
        """Whether a device has a user of its own, with which it may connect; on its first connection it gets one."""
        path = f"/user/{quote(self.tenant.tenant_id, safe='')}/users/{quote(f'device_{external_id}', safe='')}"
        return self.tenant.find(path, lambda body: str(body["id"])) is not None

    def to_frame(self) -> "pd.DataFrame":
        """Return all devices as a table, in the platform's order."""

        def read(body: dict[str, Any]) -> dict[str, Any]:
            return vars(ManagedDevice.from_json(body)) | {"owner": str(body.get("owner") or "")}

        found = self._pages(_OBJECTS, "managedObjects", read, fragmentType="c8y_IsDevice")
        return _frame(found, ["id", "name", "type", "owner", "created"])

    def measurements(self, external_id: str, limit: int = 100) -> "pd.DataFrame":
        """Return a device's last measurements as a table, a row for each series, the newest last."""
        # The vendor's platform heeds revert (the newest first) only with a date.
        query = {"source": self._id(external_id), "revert": "true", "dateFrom": "1970-01-01"}
        found = self._pages("/measurement/measurements", "measurements", _series, limit=limit, **query)
        rows = [row for measurement in reversed(found) for row in measurement]
        return _frame(rows, ["time", "fragment", "series", "value", "unit"])

    def events(self, external_id: str, limit: int = 100) -> "pd.DataFrame":
        """Return a device's last events as a table, the newest first."""
        return self._reports("event", external_id, limit, ["time", "type", "text"])

    def alarms(self, external_id: str, limit: int = 100) -> "pd.DataFrame":
        """Return a device's alarms as a table, the newest first; ``count`` says how often one was raised."""
        return self._reports("alarm", external_id, limit, ["time", "type", "text", "severity", "status", "count"])

    def _reports(self, kind: str, external_id: str, limit: int, columns: list[str]) -> "pd.DataFrame":
        def read(body: dict[str, Any]) -> dict[str, Any]:
            return {name: body.get(name) for name in columns} | {"time": datetime.fromisoformat(body["time"])}

        source = self._id(external_id)
        return _frame(self._pages(f"/{kind}/{kind}s", f"{kind}s", read, limit=limit, source=source), columns)

    def restart(self, external_id: str) -> Operation:
        """Ask a device to restart; it is brought to the device as soon as that is connected and listens."""
        return self._create_operation(external_id, "Restart", {"c8y_Restart": {}})

    def command(self, external_id: str, text: str) -> Operation:
        """Ask a device to carry out a command, whatever the device makes of ``text``."""
        return self._create_operation(external_id, "Command", {"c8y_Command": {"text": text}})

    def _create_operation(self, external_id: str, description: str, fragment: dict[str, Any]) -> Operation:
        body = {"deviceId": self._id(external_id), "description": description, **fragment}
        return self.tenant.request("POST", _OPERATIONS, Operation.from_json, meaning=_MEANING, json=body)

    def operations(self, external_id: str) -> list[Operation]:
        """Return all operations of a device, in the platform's order."""
        return self._pages(_OPERATIONS, "operations", Operation.from_json, deviceId=self._id(external_id))

    def delete(self, external_id: str) -> None:
        """Delete a device with its user and all that it has sent."""
        path = f"{_OBJECTS}/{self._id(external_id)}?withDeviceUser=true"
        self.tenant.request("DELETE", path, lambda _: None, meaning=_MEANING)

    def _id(self, external_id: str) -> str:
        found = self.find(external_id)
        if found is None:
            raise fault("NO_DEVICE", device=external_id)
        return found.id

    def _pages(self, path: str, name: str, read: Callable[[Any], T], **options: Any) -> list[T]:
        return self.tenant.pages(path, name, read, meaning=_MEANING, **options)


def _identifier(value: object) -> str:
    """Check an id that the platform gave, for it goes into URLs. Raises: ValueError: if it is none."""
    text = str(value)
    if not re.fullmatch(r"[0-9A-Za-z_-]+", text):
        raise ValueError("This is not an id.")
    return text


def _series(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each value of a measurement, which names its fragments and their series as keys."""
    time, rows = datetime.fromisoformat(body["time"]), []
    for fragment, series in body.items():
        if fragment == "source" or not isinstance(series, dict):
            continue
        for name, value in series.items():
            if isinstance(value, dict) and isinstance(value.get("value"), int | float):
                row = {"time": time, "fragment": fragment, "series": name, "value": float(value["value"])}
                rows.append(row | {"unit": str(value.get("unit") or "")})
    return rows


def _frame(rows: list[dict[str, Any]], columns: list[str]) -> "pd.DataFrame":
    import pandas as pd  # here, because it takes half a second and most calls need no table

    frame = pd.DataFrame(rows, columns=columns)
    time = "time" if "time" in columns else "created"
    frame[time] = pd.to_datetime(frame[time], utc=True)
    return frame
