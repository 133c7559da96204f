"""The part of the device console that sends: a measurement, an event, an alarm, each with its own button."""

import math
from collections.abc import Callable
from typing import Any

import ipywidgets as widgets  # type: ignore[import-untyped]

from mciot_nb.connect.device import SEVERITIES, Device
from mciot_nb.ui.markup import escape
from mciot_nb.ui.panel import button

#: Sends something: what is being done in words, and what the device does.
Send = Callable[[str, Callable[[Device], None]], None]


class Sending(widgets.VBox):  # type: ignore[misc]
    """Fields with good defaults; ``send`` is called on a press, and never with a value that can't be sent.

    ``sent`` holds the fragment and series of each measurement that was sent, the last one last.
    """

    def __init__(self, send: Send) -> None:
        super().__init__()
        self._transmit = send
        self.sent: list[tuple[str, str]] = []
        self.fragment = field("Fragment", "c8y_Temperature", "16em")
        self.series_field, self.unit = field("Series", "T", "9em"), field("Unit", "C", "8em")
        self.measured = field("Value", "21.5", "9em").add_class("mciot-value")
        self.event_type = field("Event type", "c8y_Door", "18em")
        self.event_text = field("Event text", "The door was opened", "30em")
        self.severity = widgets.Dropdown(
            description="Severity",
            options=list(SEVERITIES),
            value="MAJOR",
            style={"description_width": "initial"},
            layout=widgets.Layout(width="15em"),
        )
        self.alarm_type = field("Alarm type", "c8y_TooHot", "18em")
        self.alarm_text = field("Alarm text", "It is too hot", "22em")
        measurement = (self.fragment, self.series_field, self.measured, self.unit)
        self._value_note = widgets.HTML().add_class("mciot-note")
        self.children = [
            part("The device sends"),
            row(*measurement, button("Send measurement", self.send_measurement), self._value_note),
            row(self.event_type, self.event_text, button("Send event", self.send_event)),
            row(self.severity, self.alarm_type, self.alarm_text, button("Raise alarm", self.send_alarm)),
        ]
        self.measured.observe(lambda _: self._check(), "value")

    def send_measurement(self) -> None:
        """Send what stands in the fields (200); a value that is no number stays here, with a word beside it."""
        if not self._check():
            self.measured.focus()
            return
        fragment, series, value, unit = self.fragment.value, self.series_field.value, self.number(), self.unit.value

        def measure(device: Device) -> None:
            device.measure(fragment, series, value, unit)
            self.sent.append((fragment, series))

        self._transmit("Sending the measurement", measure)

    def send_event(self) -> None:
        """Send the event (400)."""
        kind, text = self.event_type.value, self.event_text.value
        self._transmit("Sending the event", lambda device: device.event(kind, text))

    def send_alarm(self) -> None:
        """Raise the alarm (301 to 304)."""
        kind, text, severity = self.alarm_type.value, self.alarm_text.value, self.severity.value
        self._transmit("Raising the alarm", lambda device: device.alarm(kind, text, severity))

    def number(self) -> float:
        """Give the value that is typed, not a number (nan) where it is none that can be measured."""
        try:
            value = float(self.measured.value)
        except ValueError:
            return math.nan
        return value if math.isfinite(value) else math.nan

    def _check(self) -> bool:
        good = not math.isnan(self.number())
        typed = self.measured.value.strip()
        wrong = f"✗ {typed!r} is no number: type one with a point, such as 21.5." if typed else "✗ Type a number."
        note = "" if good else f'<span role="alert" class="mciot-problem">{escape(wrong)}</span>'
        self._value_note.value = note
        return good


def field(label: str, value: str, width: str) -> Any:
    """Make a short field, with its label beside it."""
    layout = widgets.Layout(width=width, max_width="100%")
    return widgets.Text(description=label, value=value, style={"description_width": "initial"}, layout=layout)


def part(title: str) -> Any:
    """Make the heading of a part of the console."""
    return widgets.HTML(f"<strong>{escape(title)}</strong>")


def row(*parts: Any) -> Any:
    """Put parts beside each other, as far as the page is wide."""
    return widgets.HBox(parts).add_class("mciot-row")
