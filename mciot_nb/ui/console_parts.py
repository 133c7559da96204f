"""What goes over the line between a device and the platform, as the device console shows it."""

import math
import threading
from collections import deque
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import ipywidgets as widgets  # type: ignore[import-untyped]

from mciot_nb.connect import devices
from mciot_nb.connect.device import SEVERITIES, Device, OperationRequest
from mciot_nb.connect.mqtt import ERROR_TOPIC, TOKEN_TOPIC, Message
from mciot_nb.connect.tenant import Tenant
from mciot_nb.errors import OnboardingError
from mciot_nb.ui.markup import escape, grid
from mciot_nb.ui.panel import button
from mciot_nb.ui.plot import Point, plot

if TYPE_CHECKING:
    import pandas as pd

#: How many messages are shown, the newest ones, and how many characters of each.
MOST_LINES, LONGEST = 15, 300


class _Line(NamedTuple):
    time: datetime
    sent: bool
    message: Message


class Messages(widgets.HTML):  # type: ignore[misc]
    """The last messages, the newest first. `note` may be called in any thread; `draw` shows what was noted."""

    def __init__(self) -> None:
        super().__init__()
        self.add_class("mciot-messages")
        self._lines: deque[_Line] = deque(maxlen=MOST_LINES)
        self._untold: deque[Message] = deque(maxlen=MOST_LINES)
        self.draw()

    def note(self, message: Message, sent: bool) -> None:
        """Keep a message that goes out or has come: `Connection.on_traffic`."""
        self._lines.appendleft(_Line(datetime.now(UTC), sent, message))
        if not sent and message.topic == ERROR_TOPIC:
            self._untold.append(message)

    def draw(self) -> None:
        """Show what was noted."""
        rows = [_row(line) for line in list(self._lines)]
        columns = ("Time, UTC", "Direction", "Topic", "Line")
        none = "Messages: none yet. What the device sends, and what it is sent, appears here."
        self.value = grid("Messages, the newest first", columns, rows) if rows else none

    def errors(self) -> list[str]:
        """Give the platform's errors that have come since the last call."""
        return [self._untold.popleft().payload for _ in range(len(self._untold))]


def _row(line: _Line) -> tuple[str, str, str, str]:
    way = "→ sent" if line.sent else "⚠ came" if line.message.topic == ERROR_TOPIC else "← came"
    text = "••••" if line.message.topic == TOKEN_TOPIC else line.message.payload
    if len(text) > LONGEST:
        text = f"{text[:LONGEST]}… ({len(text)} characters)"
    return f"{line.time:%H:%M:%S}", way, line.message.topic, text


class TenantData(widgets.VBox):  # type: ignore[misc]
    """A plot of the series that was sent last, and what is wrong where the tenant can't be asked.

    `read` asks the tenant over REST for the device of this ``name``, as any application would, and shows what it says;
    the ``operations`` are shown in their own place.
    """

    def __init__(self, tenant: Tenant, name: str, sending: "Sending", operations: "Operations") -> None:
        super().__init__()
        self._tenant, self._name, self._sending, self._operations = tenant, name, sending, operations
        self._reading = threading.Lock()  # so that nothing older is shown after something newer
        self.plot, self.trouble = widgets.HTML(plot([], "")), widgets.HTML()
        self.children = [self.plot, self.trouble]

    def read(self) -> None:
        """Ask and show. What fails is said, and what was shown stays."""
        with self._reading:
            try:
                measured = self._tenant.devices.measurements(self._name)
                self._operations.show(self._tenant.devices.operations(self._name))
                self.plot.value = self._plotted(measured)
                self.trouble.value = ""
            except OnboardingError as error:
                self._say_why_not(error)

    def _say_why_not(self, error: OnboardingError) -> None:
        if error.code == "NO_DEVICE":
            self.plot.value = "Measurements: the tenant does not have this device yet. Connect it."
            self.trouble.value = ""
        else:
            old = "What the tenant keeps can't be shown as it is now"
            self.trouble.value = f'<span role="status">⚠ {old}: {escape(str(error))}</span>'

    def _plotted(self, measured: "pd.DataFrame") -> str:
        """Draw the series that was sent last: from here or, where nothing of that is kept, by anybody."""
        names = list(zip(measured["fragment"], measured["series"], strict=True))
        if not names:
            return plot([], "")
        shown = next((name for name in reversed(self._sending.sent) if name in names), names[-1])
        own = measured[[name == shown for name in names]]
        pairs = zip(own["time"], own["value"], strict=True)
        points = [Point(time, value) for time, value in pairs if math.isfinite(value)]
        return plot(points, " ".join(shown), own["unit"].iloc[-1])


#: How many operations are shown at the platform's side, the newest ones.
MOST_OPERATIONS = 5
_SIGNS = {"SUCCESSFUL": "✓ ", "FAILED": "✗ "}


class PendingOperation(widgets.HBox):  # type: ignore[misc]
    """An operation that has arrived at the device, and the buttons that answer it; ``begun`` after a 501."""

    def __init__(self, operation: OperationRequest, answers: dict[str, Callable[["PendingOperation"], None]]) -> None:
        super().__init__()
        self.operation, self.begun = operation, False
        self._label = widgets.HTML()
        self.buttons = {name: button(name, partial(answer, self)) for name, answer in answers.items()}
        for name, made in self.buttons.items():
            made.tooltip = f"{name} {self.name}"
        self.children = [self._label, *self.buttons.values()]
        self.add_class("mciot-row")
        self._describe("has arrived")

    @property
    def name(self) -> str:
        """What is asked for, in words."""
        return f"{self.operation.name} {self.operation.text}".strip()

    def has_begun(self) -> None:
        """Note that the device has said so, which it says once."""
        self.begun = True
        self._describe("has begun")
        begin = self.buttons["Begin"]
        begin.layout.display = "none"
        self.buttons["Done"].focus()

    def _describe(self, state: str) -> None:
        self._label.value = f"<strong>{escape(self.name)}</strong> {state}"


class Operations(widgets.HBox):  # type: ignore[misc]
    """At the left the platform asks; at the right the device says what becomes of it.

    ``ask(text)`` sends a command, or a restart where the text is None. ``answers`` are called with what has arrived, by
    the words on their buttons: Begin, Done and Failed…; then `answered` takes it away.
    """

    def __init__(
        self, ask: Callable[[str | None], None], answers: dict[str, Callable[[PendingOperation], None]]
    ) -> None:
        super().__init__()
        self._answers = answers
        self.arrived: list[PendingOperation] = []
        self._history: dict[str, list[str]] = {}
        self.text = field("Command text", "open valve 3", "18em")
        self.restart = button("Restart", lambda: ask(None))
        self.command = button("Command", lambda: ask(self.text.value))
        self.statuses = widgets.HTML()
        self._nothing = widgets.HTML("Nothing to do: what the platform asks for appears here as it arrives.")
        self._waiting = widgets.VBox()
        buttons = row(self.restart, self.text, self.command)
        self.children = [
            widgets.VBox([part("The platform asks for an operation"), buttons, self.statuses]).add_class("mciot-side"),
            widgets.VBox([part("The device answers"), self._waiting]).add_class("mciot-side"),
        ]
        self.add_class("mciot-sides")
        self.show([])
        self._draw()

    def show(self, operations: Iterable[devices.Operation]) -> None:
        """Show the tenant's operations for this device, each with the statuses in which it was seen."""
        rows = []
        for operation in list(operations)[-MOST_OPERATIONS:]:
            seen = self._history.setdefault(operation.id, [])
            if seen[-1:] != [operation.status]:
                seen.append(operation.status)
            way = " → ".join([*seen[:-1], _SIGNS.get(seen[-1], "") + seen[-1]])
            rows.append((_name(operation), f"{way}: {operation.failure}" if operation.failure else way))
        columns = ("Operation", "Status")
        none = "None was sent yet."
        self.statuses.value = grid("As the platform keeps them", columns, reversed(rows)) if rows else none

    def arrive(self, operations: Iterable[OperationRequest]) -> None:
        """Let operations appear at the device."""
        self.arrived += [PendingOperation(operation, self._answers) for operation in operations]
        self._draw()

    def forget_what_comes_again(self) -> None:
        """Forget what was not begun: the platform brings it again over a new connection."""
        for asked in [asked for asked in self.arrived if not asked.begun]:
            self._take_away(asked)

    def answered(self, asked: PendingOperation) -> None:
        """Take away what was answered; whoever works by keyboard goes on at the next one, or at the platform's side."""
        self._take_away(asked)
        (self.arrived[0].buttons["Done"] if self.arrived else self.restart).focus()

    def _take_away(self, asked: PendingOperation) -> None:
        self.arrived.remove(asked)
        self._draw()
        for child in asked.children:
            child.close()
        asked.close()

    def _draw(self) -> None:
        self._waiting.children = self.arrived or [self._nothing]


def _name(operation: devices.Operation) -> str:
    return f"{operation.name} {operation.text}".strip()


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
