"""What the platform does with SmartREST messages: the static templates, as one table, and what it answers.

What the error lines look like, apart from ``41,100,Device already existing``, is not verified on a real tenant.
"""

import json
import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

from mciot_nb.connect.smartrest import line, parse
from mciot_nb.pki.files import data_table
from mciot_platform.storage import RegisteredDevice, Storage, StoredOperation, read_object, read_time, timestamp

ANSWERS, ERRORS, TOKENS = "s/ds", "s/e", "s/dat"
NOTIFICATIONS, JSON_ERRORS = "devicecontrol/notifications", "error"
RESTART, COMMAND = "c8y_Restart", "c8y_Command"
DEVICE_TYPE, CHILD_TYPE, SERVICE_TYPE = "c8y_MQTTDevice", "c8y_MQTTChildDevice", "c8y_Service"
#: Stricter than float, which takes 1_000 and the digits of other scripts too.
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
Values = dict[str, Any]


class Reply(NamedTuple):
    """A text for the device, and the topic on which it goes out."""

    topic: str
    text: str


#: Carries a message out: storage, device, the values by their names, the table's words. A list are its replies.
Action = Callable[..., object]


class BadMessage(Exception):
    """A message that can't be carried out: one sentence for the device."""


def decimal(text: str) -> float:
    """Return a number. Raises: BadMessage: if it is none, or not finite."""
    value = float(text) if NUMBER.fullmatch(text) else math.nan
    if not math.isfinite(value):
        raise BadMessage(f"The value {text!r} is not a number.")
    return value


def moment(text: str) -> datetime:
    """Return a time in ISO 8601, or now where it was left out. Raises: BadMessage: if it is none."""
    if not text:
        return datetime.now(UTC)
    try:
        return read_time(text)
    except (ValueError, OverflowError):
        raise BadMessage(f"{text!r} is not a time in ISO 8601.") from None


@lru_cache
def _described(fields: str) -> tuple[list[tuple[str, bool, Callable[[str], Any]]], str, int]:
    """Return a message's fields (name, whether it must be there, how it is read), those that repeat, and how many."""
    once, _, several = fields.partition("*")
    readers: dict[str, Callable[[str], Any]] = {"#": lambda text: text and decimal(text), "@": moment}
    described = [(name.strip("!#@"), "!" in name, readers.get(name[-1], str)) for name in once.split()]
    return described, several, len(several.split())


def read_fields(fields: str, texts: Sequence[str]) -> Values:
    """Return a message's values by their names, as `MESSAGES` describes them. Raises: BadMessage."""
    described, several, size = _described(fields)
    found: Values = {}
    for index, (name, needed, read) in enumerate(described):
        text = texts[index] if index < len(texts) else ""
        if needed and not text:
            raise BadMessage(f"The {name} is missing.")
        found[name] = read(text)
    if several:
        end = max(len(texts), len(described) + ("!" in several))  # then there must be one
        each = [read_fields(several, texts[at : at + size]) for at in range(len(described), end, size)]
        found["each"] = [value for one in each for value in one.values() if value] if size == 1 else each
    return found


def answer(payload: bytes, storage: Storage, sender: RegisteredDevice, child: str = "") -> list[Reply]:
    """Carry out every line of ``payload`` for the sender or a child of it, and return the replies.

    A payload that is no CSV is refused as a whole.
    """
    try:
        rows = parse(payload)
    except ValueError as problem:
        return [Reply(ERRORS, line("50", "", str(problem)))]
    replies: list[Reply] = []
    for number, *texts in rows:
        try:
            replies += _carry_out(storage, sender, child, number, texts)
        except BadMessage as problem:
            replies.append(Reply(ERRORS, line("50", number, str(problem))))
    return replies


def answer_json(
    topic: str, target: str, payload: bytes, storage: Storage, sender: RegisteredDevice, packet_id: int
) -> list[Reply]:
    """Carry out JSON that was sent on one of the topics of `AS_STATIC`, or to update ``target`` in the inventory.

    Measurements, events and alarms are a child's where their externalSource says so. Several come as a list.
    """
    try:
        body = read_object(payload)
        if target:
            changes = {name: value for name, value in body.items() if name not in NO_FRAGMENTS}
            storage.set_fragments(_meant(storage, sender, target, create=True), changes)
            return []
        for one in body.get(topic.partition("/")[2], [body]):
            number, *values = AS_STATIC[topic](one)
            child = one.get("externalSource", {}).get("externalId", "")
            if not isinstance(child, str):
                raise TypeError("a name is a text")
            _carry_out(storage, sender, child, number, list(map(str, values)))
        return []
    except BadMessage as problem:
        said = str(problem)
    except (ValueError, AttributeError, TypeError, KeyError, RecursionError):
        said = "The message is not a JSON object, or lacks what is needed here."
    error = {"error": "undefined/validationError", "message": said, "messageId": packet_id}
    return [Reply(JSON_ERRORS, json.dumps(error))]


def _series(body: Values) -> list[Any]:
    """Return a measurement in JSON as the values of a static one."""
    found = ["201", body["type"], body.get("time", "")]
    for fragment, series in body.items():
        if fragment not in NO_FRAGMENTS and isinstance(series, dict):
            for name, one in series.items():
                found += [fragment, name, one["value"], one.get("unit", "")]
    return found


def _carry_out(
    storage: Storage, sender: RegisteredDevice, child: str, number: str, texts: Sequence[str]
) -> Sequence[Reply]:
    if number not in MESSAGES:
        raise BadMessage("A message with this number is not supported here.")
    fields, carry_out, words = MESSAGES[number]
    values = read_fields(fields, texts)
    replies = carry_out(storage, _meant(storage, sender, child, create=number not in NO_DATA), values, *words)
    return replies if isinstance(replies, list) else []


def _meant(storage: Storage, sender: RegisteredDevice, child: str, *, create: bool) -> RegisteredDevice:
    """Return whom a topic means: its sender, or the child or service below it that the topic ends with.

    Who is not in the inventory is put there, as the vendor documents it of data that come before message 100.
    Raises: BadMessage: for the name of another device.
    """
    device = sender if sender.created else storage.device(sender.tenant, sender.device) or sender
    if not device.created and (create or child):
        name = f"MQTT Device {device.device}"
        storage.update("devices", device.id, created=timestamp(), name=name, type=DEVICE_TYPE)
        device = storage.device(sender.tenant, sender.device) or sender
    if child in ("", device.device):
        return device
    known = storage.device(device.tenant, child)
    if known and child not in storage.family(device):
        raise BadMessage(f"{child} is not a child of {device.device}.")
    return known or storage.add_child(device, child, f"MQTT Device {child}", CHILD_TYPE)


def operation_replies(storage: Storage, operation: StoredOperation) -> list[Reply]:
    """Return an operation as devices receive it: 510 to restart, 511 for a command; and any, in JSON."""
    device = storage.device(operation.tenant, operation.device)
    body: Values = {"id": str(operation.id), "deviceId": str(device.id if device else ""), "status": operation.status}
    body |= {"creationTime": operation.time.replace("+00:00", "Z"), "description": operation.description}
    body |= {"externalSource": {"externalId": operation.device, "type": "c8y_Serial"}}
    replies = [Reply(NOTIFICATIONS, json.dumps(json.loads(operation.fragments) | body))]
    if operation.fragment == RESTART:
        return [Reply(ANSWERS, line("510", operation.device)), *replies]
    return [Reply(ANSWERS, line("511", operation.device, operation.text))] * (operation.fragment == COMMAND) + replies


def _create(storage: Storage, device: RegisteredDevice, values: Values) -> Sequence[Reply] | None:
    """Put a device or, with its name, a child of it into the inventory."""
    child = values.get("child", "")
    if storage.device(device.tenant, child) if child else device.created:
        return [Reply(ERRORS, line("41", "101" if child else "100", "Device already existing"))]
    named, kind = values["name"] or f"MQTT Device {child or device.device}", values["type"]
    if child:
        storage.add_child(device, child, named, kind or CHILD_TYPE)
    else:
        storage.update("devices", device.id, created=timestamp(), name=named, type=kind or DEVICE_TYPE)
    return None


def _create_service(storage: Storage, device: RegisteredDevice, values: Values) -> None:
    """Add a service, or set the status of the one that is there. It is no device, but has a name like a child's."""
    service = storage.device(device.tenant, values["service"])
    if service and service.device not in storage.family(device):
        raise BadMessage(f"{service.device} is not a service of {device.device}.")
    service = service or storage.add_child(device, values["service"], values["name"], SERVICE_TYPE)
    storage.set_fragments(service, {"serviceType": values["type"], "status": values["status"]})


def _fragment(storage: Storage, device: RegisteredDevice, values: Values, name: str) -> None:
    storage.set_fragments(device, {name: values.get("each", values)})


def _required_interval(storage: Storage, device: RegisteredDevice, values: Values) -> None:
    """Set the interval, but only where there is none yet."""
    if not re.fullmatch(r"-?\d{1,6}", values["interval"], re.ASCII):  # a negative one means maintenance
        raise BadMessage(f"The interval {values['interval']!r} is not a number of minutes.")
    required = {"c8y_RequiredAvailability": {"responseInterval": int(values["interval"])}}
    storage.set_fragments(device, required | storage.fragments(device))


def _configuration(storage: Storage, device: RegisteredDevice, values: Values) -> None:
    kept = values | {"name": values["name"] or values["type"], "time": timestamp(values["time"])}
    storage.set_fragments(device, {f"c8y_Configuration_{values['type']}": kept})


def _measurements(storage: Storage, device: RegisteredDevice, values: Values) -> None:
    for one in values["each"]:
        storage.add_record("measurements", device, values["time"], type=values["type"], **one)


def _measurement(storage: Storage, device: RegisteredDevice, values: Values, *fixed: str) -> None:
    """Store one value; fragment, series and unit may be ``fixed``, the real platform's own."""
    names = dict(zip(("fragment", "series", "unit"), fixed, strict=False))
    storage.add_record("measurements", device, **(values | names))


def _alarm(storage: Storage, device: RegisteredDevice, values: Values, severity: str) -> None:
    text = values["text"] or f"Alarm of type {values['type']} raised"
    storage.raise_alarm(device, values["time"], values["type"], text, severity)


def _clear_alarm(storage: Storage, device: RegisteredDevice, values: Values) -> None:
    if not storage.clear_alarm(device, values["type"]):
        raise BadMessage(f"No alarm of type {values['type']} is active.")


def _location(storage: Storage, device: RegisteredDevice, values: Values, kept: str = "") -> None:
    """Store an event of where the device is, which it may tell of itself from now on too: by the fragment ``kept``."""
    time, event = values.pop("time"), {"type": "c8y_LocationUpdate", "text": "Location updated"}
    storage.add_record("events", device, time, fragments=json.dumps({"c8y_Position": values}), **event)
    if kept:
        storage.set_fragments(device, {kept: values})


def _set_operation(
    storage: Storage, device: RegisteredDevice, values: Values, after: str, before: str = "EXECUTING"
) -> None:
    """Begin or end an operation: the one named by its id, or the oldest of a fragment."""
    if number := values.get("id"):
        what = f"{number} of {device.device} is known"
        found = [one for one in storage.operations(device) if str(one.id) == number]
    else:
        what = f"{values['fragment']} is {before.lower()}"
        found = [one for one in storage.operations(device, before) if one.fragment == values["fragment"]]
    if not found:
        raise BadMessage(f"No operation {what}.")
    storage.update("operations", found[0].id, status=after, reason=values.get("reason", ""))


def pending(storage: Storage, device: RegisteredDevice, topic: str = ANSWERS) -> list[Reply]:
    """Return what a device and all below it are to do, as it is told on a topic."""
    family = (storage.device(device.tenant, name) for name in storage.family(device))
    found = [one for member in family if member for one in storage.operations(member, "PENDING")]
    return [reply for one in found for reply in operation_replies(storage, one) if reply.topic == topic]


NUMBERS = {"CRITICAL": "301", "MAJOR": "302", "MINOR": "303", "WARNING": "304"}
#: How JSON is written as a static message, by its topic before /create; what the message does not name is left out.
AS_STATIC: dict[str, Callable[[Values], list[Any]]] = {
    "measurement/measurements": _series,
    "event/events": lambda body: ["400", body["type"], body["text"], body["time"]],
    "alarm/alarms": lambda body: [NUMBERS[body["severity"]], body["type"], body["text"], body["time"]],
}
NO_FRAGMENTS = ("id", "self", "name", "type", "time", "owner", "source", "externalSource", "creationTime")
NO_DATA = ("100", "105", "123", "500")  # what asks, or creates a device itself
ACTIONS: dict[str, Action] = {
    "create": _create,
    "create service": _create_service,
    "answer services": lambda s, device, _: [Reply(ANSWERS, line("106", *s.children(device, SERVICE_TYPE)))],
    "answer id": lambda _, device, __: [Reply(ANSWERS, line("124", str(device.id)))],
    "answer operations": lambda storage, device, _: pending(storage, device),
    "fragment": _fragment,
    "fragments": lambda storage, device, values: storage.set_fragments(device, values),
    "no fragments": lambda storage, device, values: storage.set_fragments(device, dict.fromkeys(values["each"])),
    "interval": _required_interval,
    "configuration": _configuration,
    "measurement": _measurement,
    "measurements": _measurements,
    "alarm": _alarm,
    "clear alarm": _clear_alarm,
    "event": lambda storage, device, values: storage.add_record("events", device, **values),
    "location": _location,
    "operation": _set_operation,
    "nothing": lambda *_: None,
}
#: By number: the values' names (``!``: must be there, ``#``: a number, ``@``: a time, behind ``*``: again and again),
#: what carries the message out, and the words for that. Of 125, a sign of life, nothing is kept.
MESSAGES: dict[str, tuple[str, Action, list[str]]] = {
    row["number"]: (row["fields"], ACTIONS[row["action"]], row["words"].split()) for row in data_table("smartrest.csv")
}
