"""The parts of the device console: messages, what the tenant keeps, operations, and the fields of what is sent."""

import base64
import io
import logging
import math
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import ipywidgets as widgets  # type: ignore[import-untyped]
import pandas as pd

from mciot_nb.connect import devices
from mciot_nb.connect.device import SEVERITIES, Device, OperationRequest
from mciot_nb.connect.mqtt import ERROR_TOPIC, TOKEN_TOPIC, Message
from mciot_nb.connect.tenant import Tenant
from mciot_nb.errors import OnboardingError
from mciot_nb.ui.markup import escape, grid, visible
from mciot_nb.ui.panel import button, row

#: How many messages are shown, the newest ones, and how many characters of each.
MOST_LINES, LONGEST = 15, 300


class Messages(widgets.HTML):  # type: ignore[misc]
    """The last messages, the newest first. `note` may be called in any thread; `draw` shows what was noted."""

    def __init__(self) -> None:
        super().__init__()
        self.add_class("mciot-messages")
        self._lines: deque[tuple[datetime, Message, bool]] = deque(maxlen=MOST_LINES)
        self._new_errors: deque[str] = deque(maxlen=MOST_LINES)
        self.draw()

    def note(self, message: Message, sent: bool) -> None:
        """Keep a message that goes out or has come: `Connection.on_traffic`."""
        self._lines.appendleft((datetime.now(UTC), message, sent))
        if not sent and message.topic == ERROR_TOPIC:
            self._new_errors.append(message.payload)

    def draw(self) -> None:
        """Show what was noted."""
        rows = [_cells(*line) for line in list(self._lines)]
        columns = ("Time, UTC", "Direction", "Topic", "Line")
        none = "Messages: none yet. What the device sends, and what it is sent, appears here."
        self.value = grid("Messages, the newest first", columns, rows) if rows else none

    def errors(self) -> list[str]:
        """Return the platform's errors that have come since the last call."""
        return [self._new_errors.popleft() for _ in range(len(self._new_errors))]


def _cells(time: datetime, message: Message, sent: bool) -> tuple[str, str, str, str]:
    way = "→ sent" if sent else "⚠ came" if message.topic == ERROR_TOPIC else "← came"
    text = "••••" if message.topic == TOKEN_TOPIC else message.payload
    if len(text) > LONGEST:
        text = f"{text[:LONGEST]}… ({len(text)} characters)"
    return f"{time:%H:%M:%S}", way, message.topic, text


class TenantData(widgets.VBox):  # type: ignore[misc]
    """A plot of the series that was sent last, and what is wrong where the tenant can't be asked.

    `read` asks the tenant over REST for the device of this ``name``, as any application would, and shows what it says;
    the ``operations`` are shown in their own place.
    """

    def __init__(self, tenant: Tenant, name: str, sending: "Sending", operations: "Operations") -> None:
        super().__init__()
        self._tenant, self._name, self._sending, self._operations = tenant, name, sending, operations
        self._reading = threading.Lock()  # so that nothing older is shown after something newer
        self._measured: pd.DataFrame | None = None  # what is drawn
        self.plot, self.trouble = widgets.HTML("Measurements: none yet."), widgets.HTML()
        self.children = [self.plot, self.trouble]

    def read(self) -> None:
        """Ask and show. What fails is said, and what was shown stays."""
        with self._reading:
            trouble = ""
            try:
                measured = self._tenant.devices.measurements(self._name)
                self._operations.show(self._tenant.devices.operations(self._name))
                self._draw(measured)
            except OnboardingError as error:
                if error.code == "NO_DEVICE":
                    self.plot.value = "Measurements: the tenant does not have this device yet. Connect it."
                    self._measured = None
                else:
                    old = "What the tenant keeps can't be shown as it is now"
                    trouble = f'<span role="status">⚠ {old}: {escape(str(error))}</span>'
            self.trouble.value = trouble

    def _draw(self, measured: pd.DataFrame) -> None:
        """Draw the series that was sent last: from here or, where nothing of that is kept, from anywhere."""
        names = list(zip(measured["fragment"], measured["series"], strict=True))
        shown = next((name for name in reversed(self._sending.sent) if name in names), names[-1] if names else None)
        pairs = zip(names, measured["value"], strict=True)
        own = measured.loc[[name == shown and math.isfinite(value) for name, value in pairs]]
        if self._measured is None or not own.equals(self._measured):
            title, unit = " ".join(shown or ()), own["unit"].iloc[-1] if len(own) else ""
            self.plot.value = plot(own.set_index("time")["value"], title, unit)
            self._measured = own


#: Inches of the plot, and its pixels per inch; the page shows it at half of its pixels, so that it is sharp.
_SIZE, _DPI = (5.6, 2.4), 200
#: What the plot can draw; the words beside it have the value itself.
_LARGEST = 1e300
_drawing = threading.Lock()  # matplotlib is not made for threads


def plot(values: "pd.Series[float]", name: str, unit: str = "") -> str:
    """Return the plot of one series as HTML, the last value in words too; ``name`` says what is measured.

    The values are finite, and their index holds the times at which they were measured, with a time zone. The image
    stands in an exported page too.
    """
    if values.empty:
        return "Measurements: none yet."
    values = values.sort_index(kind="stable")
    times = values.index.tz_convert(UTC)  # type: ignore[attr-defined]
    count = f"{len(values)} measurement{'s' if len(values) > 1 else ''}"
    low, high, newest = (_amount(value, unit) for value in (values.min(), values.max(), values.iloc[-1]))
    span = f"from {times[0]:%H:%M:%S} to {times[-1]:%H:%M:%S} UTC, between {low} and {high}"
    alt = f"Plot of {name}: {count} {span}; the last is {newest}."
    title = escape(visible(f"{name} ({unit})" if unit else name))
    source = base64.b64encode(_png(values.set_axis(times.tz_localize(None)))).decode()
    return (
        f'<div><strong>{title}</strong></div><img class="mciot-plot" src="data:image/png;base64,{source}" '
        f'alt="{escape(alt)}" width="{_SIZE[0] * _DPI / 2:.0f}">'
        f"<div>Last value: <strong>{escape(newest)} at {times[-1]:%Y-%m-%d %H:%M:%S} UTC</strong>. {count}.</div>"
    )


def _amount(value: float, unit: str) -> str:
    return f"{value:.10g} {unit}".rstrip()


def _png(values: "pd.Series[float]") -> bytes:
    """Draw the values over their times (UTC), on a ground of its own, which is readable in a dark theme too."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it would write of its font cache into the notebook
    first, last = values.index[0], values.index[-1]
    is_one_day = first.date() == last.date()
    with _drawing, warnings.catch_warnings(action="ignore"):  # of spans of thousands of years
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # here, because it takes half a second
        from matplotlib.dates import AutoDateLocator, DateFormatter
        from matplotlib.figure import Figure

        figure = Figure(figsize=_SIZE, dpi=_DPI, layout="constrained", facecolor="white")
        canvas, axes = FigureCanvasAgg(figure), figure.subplots()
        frame = values.clip(-_LARGEST, _LARGEST).to_frame()
        frame.plot(ax=axes, x_compat=True, legend=False, color="#1565c0", marker="o", markersize=4, rot=0)
        axes.xaxis.set_major_locator(AutoDateLocator(maxticks=5))
        axes.xaxis.set_major_formatter(DateFormatter("%H:%M:%S" if is_one_day else "%m-%d %H:%M"))
        axes.set_xlabel(f"Time{'' if is_one_day else ' since'} {first:%Y-%m-%d}, UTC")
        axes.grid(color="#d0d0d0", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        canvas.print_png(picture := io.BytesIO())
    return picture.getvalue()


#: How many operations are shown at the platform's side, the newest ones.
MOST_OPERATIONS = 5
_SIGNS = {"SUCCESSFUL": "✓ ", "FAILED": "✗ "}


class PendingOperation(widgets.HBox):  # type: ignore[misc]
    """An operation that has arrived at the device, and the buttons that answer it; ``begun`` after a 501."""

    def __init__(self, operation: OperationRequest, answers: dict[str, Callable[["PendingOperation"], None]]) -> None:
        super().__init__()
        self.operation, self.begun, self.name = operation, False, _name(operation)
        self.buttons = {name: button(name, partial(answer, self)) for name, answer in answers.items()}
        for name, made in self.buttons.items():
            made.tooltip = f"{name} {self.name}"
        self._label = widgets.HTML(f"<strong>{escape(self.name)}</strong> has arrived")
        self.children = [self._label, *self.buttons.values()]
        self.add_class("mciot-row")

    def has_begun(self) -> None:
        """Note that the device has said so, which it says once."""
        self.begun = True
        self._label.value = f"<strong>{escape(self.name)}</strong> has begun"
        self.buttons["Begin"].layout.display = "none"
        self.buttons["Done"].focus()


def _name(operation: OperationRequest | devices.Operation) -> str:
    return f"{operation.name} {operation.text}".strip()


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
        self.statuses, self._waiting = widgets.HTML(), widgets.VBox()
        self._nothing = widgets.HTML("Nothing to do: what the platform asks for appears here as it arrives.")
        asking = [part("The platform asks for an operation"), row(self.restart, self.text, self.command), self.statuses]
        sides = (asking, [part("The device answers"), self._waiting])
        self.children = [widgets.VBox(side).add_class("mciot-side") for side in sides]
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
        """Take away what was answered; a keyboard goes on at the next one, or at the platform's side."""
        self._take_away(asked)
        (self.arrived[0].buttons["Done"] if self.arrived else self.restart).focus()

    def _take_away(self, asked: PendingOperation) -> None:
        if asked not in self.arrived:
            return  # it was forgotten while its answer was on the way
        self.arrived.remove(asked)
        self._draw()
        for child in asked.children:
            child.close()
        asked.close()

    def _draw(self) -> None:
        self._waiting.children = self.arrived or [self._nothing]


#: Sends something: what is being done in words, what the device does, and the values that are sent.
Send = Callable[..., None]


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
        values = self.fragment.value, self.series_field.value, self.number(), self.unit.value

        def measure(device: Device) -> None:
            device.measure(*values)
            self.sent.append(values[:2])

        self._transmit("Sending the measurement", measure, *values)

    def send_event(self) -> None:
        """Send the event (400)."""
        values = self.event_type.value, self.event_text.value
        self._transmit("Sending the event", lambda device: device.event(*values), *values)

    def send_alarm(self) -> None:
        """Raise the alarm (301 to 304)."""
        values = self.alarm_type.value, self.alarm_text.value, self.severity.value
        self._transmit("Raising the alarm", lambda device: device.alarm(*values), *values)

    def number(self) -> float:
        """Return the value that is typed, not a number (nan) where it is none that can be measured."""
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
    """Return a short field, with its label beside it."""
    layout = widgets.Layout(width=width, max_width="100%")
    return widgets.Text(description=label, value=value, style={"description_width": "initial"}, layout=layout)


def part(title: str) -> Any:
    """Return the heading of a part of the console."""
    return widgets.HTML(f"<strong>{escape(title)}</strong>")
