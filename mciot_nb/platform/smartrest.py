r"""SmartREST, the comma-separated messages of devices: what a payload asks for, and what is answered.

One message a line; a value with a comma, a quote or a newline stands in quotes, with ``\"`` for a quote in it.
"""

import csv
import io
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from mciot_nb.platform.store import Device, Store

ANSWERS, ERRORS = "s/ds", "s/e"
NUMBER = re.compile(
    r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII
)  # float takes more: 1_000, other scripts' digits
QUOTED = re.compile(r'((?:^|[,\r\n]) *")((?:\\"|[^"])*)')


class Reply(NamedTuple):
    """A line for the device, and the topic on which it goes out."""

    topic: str
    text: str


class BadMessage(Exception):
    """A message that can't be carried out: one sentence for the device."""


@dataclass(frozen=True)
class Message:
    """One message with what is needed to carry it out; ``values`` are those behind the message's number."""

    values: list[str]
    store: Store
    device: Device

    def value(self, index: int, name: str) -> str:
        """Give a value that must not be empty. Raises BadMessage."""
        if not self.optional(index):
            raise BadMessage(f"The {name} is missing.")
        return self.values[index]

    def optional(self, index: int, default: str = "") -> str:
        """Give a value, or the default where it was left out."""
        return self.values[index] if index < len(self.values) and self.values[index] else default

    def time(self, index: int) -> datetime:
        """Give a time in ISO 8601, or that of receipt where it was left out. Raises BadMessage."""
        try:
            time = datetime.fromisoformat(self.optional(index) or datetime.now(UTC).isoformat())
            return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
        except (ValueError, OverflowError):
            raise BadMessage(f"{self.values[index]!r} is no time in ISO 8601.") from None


def answer(payload: bytes, store: Store, device: Device) -> list[Reply]:
    """Carry out every line of ``payload`` and give the replies; a payload that is no CSV is refused as a whole.

    What the error lines look like, apart from ``41,100,Device already existing``, is not verified on a real tenant.
    """
    try:
        rows = parse(payload)
    except BadMessage as problem:
        return [Reply(ERRORS, line("50", "", str(problem)))]
    replies = []
    for number, *values in rows:
        current = store.device(device.tenant, device.device) or device  # an earlier line may have created it
        try:
            if number not in MESSAGES:
                raise BadMessage("There is no message of this number here.")
            reply = MESSAGES[number](Message(values, store, current))
        except BadMessage as problem:
            reply = Reply(ERRORS, line("50", number, str(problem)))
        if reply:
            replies.append(reply)
    return replies


def parse(payload: bytes) -> list[list[str]]:
    """Split a payload into its lines and values. Raises BadMessage."""
    try:
        # "" is the csv module's own way to write a quote inside quotes
        text = QUOTED.sub(lambda value: value[1] + value[2].replace('\\"', '""'), payload.decode())
        return [row for row in csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True) if row]
    except UnicodeDecodeError:
        raise BadMessage("The message is not UTF-8.") from None
    except csv.Error as error:
        raise BadMessage(f"The quotes of the message are wrong: {error}.") from None


def line(*values: str) -> str:
    """Write values as one SmartREST line."""
    return ",".join(
        _quoted(value) if set(value) & set('",\r\n') or value != value.strip() else value for value in values
    )


def _quoted(value: str) -> str:
    return '"' + value.replace('"', '\\"') + '"'


def _create_device(message: Message) -> Reply | None:
    device = message.device
    if device.created:
        return Reply(ERRORS, line("41", "100", "Device already existing"))
    name = message.optional(0, f"MQTT Device {device.device}")
    message.store.create_device(device, name, message.optional(1, "c8y_MQTTDevice"))
    return None


def _internal_id(message: Message) -> Reply:
    return Reply(ANSWERS, line("124", str(message.device.id)))


def _measurement(message: Message) -> None:
    # A device that has not sent 100 may measure too: nothing that we acknowledge is thrown away (not verified).
    text = message.value(2, "value")
    value = float(text) if NUMBER.fullmatch(text) else math.nan
    if not math.isfinite(value):
        raise BadMessage(f"The value {text!r} is no number.")
    fragment, series = message.value(0, "fragment"), message.value(1, "series")
    message.store.add_measurement(message.device, message.time(4), fragment, series, value, message.optional(3))


def _event(message: Message) -> None:
    message.store.add_event(message.device, message.time(2), message.value(0, "type"), message.value(1, "text"))


MESSAGES: dict[str, Callable[[Message], Reply | None]] = {
    "100": _create_device,
    "123": _internal_id,
    "200": _measurement,
    "400": _event,
}
