"""What the platform does with SmartREST messages, and what it answers."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from mciot_nb.connect.smartrest import line, parse
from mciot_platform.storage import RegisteredDevice, Storage, StoredOperation

ANSWERS, ERRORS, TOKENS = "s/ds", "s/e", "s/dat"
RESTART, COMMAND = "c8y_Restart", "c8y_Command"
#: Stricter than float, which takes 1_000 and the digits of other scripts too.
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


class Reply(NamedTuple):
    """A line for the device, and the topic on which it goes out."""

    topic: str
    text: str


class BadMessage(Exception):
    """A message that can't be carried out: one sentence for the device."""


@dataclass(frozen=True)
class DeviceMessage:
    """One message with what is needed to carry it out; ``values`` are those behind the message's ``number``."""

    number: str
    values: list[str]
    storage: Storage
    device: RegisteredDevice

    def value(self, index: int, name: str) -> str:
        """Return a value. Raises: BadMessage: if it is empty or missing."""
        if not self.optional(index):
            raise BadMessage(f"The {name} is missing.")
        return self.values[index]

    def optional(self, index: int, default: str = "") -> str:
        """Return a value, or the default where it was left out."""
        return self.values[index] if index < len(self.values) and self.values[index] else default

    def decimal(self, index: int) -> float:
        """Return a number. Raises: BadMessage: if it is none, or not finite."""
        text = self.value(index, "value")
        value = float(text) if NUMBER.fullmatch(text) else math.nan
        if not math.isfinite(value):
            raise BadMessage(f"The value {text!r} is no number.")
        return value

    def time(self, index: int) -> datetime:
        """Return a time in ISO 8601, or that of receipt where it was left out. Raises: BadMessage: if it is none."""
        try:
            time = datetime.fromisoformat(self.optional(index) or datetime.now(UTC).isoformat())
            return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
        except (ValueError, OverflowError):
            raise BadMessage(f"{self.values[index]!r} is no time in ISO 8601.") from None


def answer(payload: bytes, storage: Storage, device: RegisteredDevice) -> list[Reply]:
    """Carry out every line of ``payload`` and return the replies; a payload that is no CSV is refused as a whole.

    What the error lines look like, apart from ``41,100,Device already existing``, is not verified on a real tenant.
    """
    try:
        rows = parse(payload)
    except ValueError as problem:
        return [Reply(ERRORS, line("50", "", str(problem)))]
    replies: list[Reply] = []
    current = storage.device(device.tenant, device.device) or device
    for number, *values in rows:
        if number == "100":  # an earlier one may have created it
            current = storage.device(device.tenant, device.device) or device
        try:
            if number not in MESSAGES:
                raise BadMessage("There is no message of this number here.")
            replies += MESSAGES[number](DeviceMessage(number, values, storage, current)) or []
        except BadMessage as problem:
            replies.append(Reply(ERRORS, line("50", number, str(problem))))
    return replies


def operation_reply(operation: StoredOperation) -> Reply:
    """Return an operation as the device receives it: 510 to restart, 511 for a command."""
    if operation.fragment == RESTART:
        return Reply(ANSWERS, line("510", operation.device))
    return Reply(ANSWERS, line("511", operation.device, operation.text))


def _create_device(message: DeviceMessage) -> list[Reply] | None:
    device = message.device
    if device.created:
        return [Reply(ERRORS, line("41", "100", "Device already existing"))]
    name = message.optional(0, f"MQTT Device {device.device}")
    message.storage.create_device(device, name, message.optional(1, "c8y_MQTTDevice"))
    return None


def _hardware(message: DeviceMessage) -> None:
    names = ("serialNumber", "model", "revision")
    hardware = {name: message.optional(index) for index, name in enumerate(names)}
    message.storage.set_fragment(message.device, "c8y_Hardware", hardware)


def _required_interval(message: DeviceMessage) -> None:
    text = message.value(0, "interval")
    if not re.fullmatch(r"-?\d{1,6}", text, re.ASCII):  # a negative one means maintenance
        raise BadMessage(f"The interval {text!r} is no number of minutes.")
    message.storage.set_fragment(message.device, "c8y_RequiredAvailability", {"responseInterval": int(text)})


def _measurement(message: DeviceMessage) -> None:
    """Store a value. A device that has not sent 100 may measure too: that this is so is not verified."""
    values = {"value": message.decimal(2), "fragment": message.value(0, "fragment")}
    values |= {"series": message.value(1, "series"), "unit": message.optional(3)}
    message.storage.add_record("measurements", message.device, message.time(4), **values)


def _fixed_measurement(message: DeviceMessage) -> None:
    values = dict(zip(("fragment", "series", "unit"), FIXED_MEASUREMENTS[message.number], strict=True))
    time = message.time(1)
    message.storage.add_record("measurements", message.device, time, value=message.decimal(0), **values)


def _alarm(message: DeviceMessage) -> None:
    kind, time = message.value(0, "type"), message.time(2)
    text = message.optional(1, f"Alarm of type {kind} raised")
    message.storage.raise_alarm(message.device, time, kind, text, SEVERITIES[message.number])


def _clear_alarm(message: DeviceMessage) -> None:
    kind = message.value(0, "type")
    if not message.storage.clear_alarm(message.device, kind):
        raise BadMessage(f"No alarm of type {kind} is active.")


def _event(message: DeviceMessage) -> None:
    kind, text = message.value(0, "type"), message.value(1, "text")
    message.storage.add_record("events", message.device, message.time(2), type=kind, text=text)


def _set_operation(before: tuple[str, ...], after: str) -> Callable[[DeviceMessage], None]:
    """Return what puts the oldest operation of the message's fragment from one of these statuses into the next.

    Documented of 502 and 503 is the one that is EXECUTING. That one still PENDING may end too is not documented.
    """

    def set_operation(message: DeviceMessage) -> None:
        fragment = message.value(0, "fragment")
        for status in before:
            for operation in message.storage.operations(message.device, status):
                if operation.fragment == fragment:
                    return message.storage.set_operation(operation, after, message.optional(1))
        raise BadMessage(f"No operation {fragment} is {' or '.join(before).lower()}.")

    return set_operation


#: The real platform's own fragments, series and units.
FIXED_MEASUREMENTS = {"211": ("c8y_TemperatureMeasurement", "T", "C"), "212": ("c8y_Battery", "level", "%")}
SEVERITIES = {"301": "CRITICAL", "302": "MAJOR", "303": "MINOR", "304": "WARNING"}
#: By number.
MESSAGES: dict[str, Callable[[DeviceMessage], list[Reply] | None]] = {
    "100": _create_device,
    "110": _hardware,
    "114": lambda message: message.storage.set_fragment(message.device, "c8y_SupportedOperations", message.values),
    "117": _required_interval,
    "123": lambda message: [Reply(ANSWERS, line("124", str(message.device.id)))],
    "200": _measurement,
    **dict.fromkeys(FIXED_MEASUREMENTS, _fixed_measurement),
    **dict.fromkeys(SEVERITIES, _alarm),
    "306": _clear_alarm,
    "400": _event,
    "500": lambda message: [
        operation_reply(pending)
        for pending in message.storage.operations(message.device, "PENDING")
        if pending.fragment in (RESTART, COMMAND)
    ],
    "501": _set_operation(("PENDING",), "EXECUTING"),
    "502": _set_operation(("EXECUTING", "PENDING"), "FAILED"),
    "503": _set_operation(("EXECUTING", "PENDING"), "SUCCESSFUL"),
}
