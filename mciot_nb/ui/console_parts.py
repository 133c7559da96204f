"""The parts of the device console: both ends of an attempt, messages, operations, what is sent, and the plot."""

import io
import logging
import math
import sqlite3
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

import ipywidgets as widgets  # type: ignore[import-untyped]
import pandas as pd
from pandas.errors import DatabaseError

from mciot_nb.connect import devices
from mciot_nb.connect.device import SEVERITIES, Device, OperationRequest
from mciot_nb.connect.mqtt import ERROR_TOPIC, TOKEN_TOPIC, Message
from mciot_nb.errors import OnboardingError
from mciot_nb.local_platform import LocalPlatform
from mciot_nb.pki.names import name_of, readable
from mciot_nb.ui.displays import two_sides
from mciot_nb.ui.inputs import button, row, show_if
from mciot_nb.ui.markup import COLOURS, Rendered, boxed, escape, grid, themed

#: What paho notes of every connection; its other notes are news: an alert of TLS 1.3, for one.
_USUAL = ("Sending ", "Received ")
_CONNECTED = "CONNECTED"
#: Seconds that are given to the platform to write its record.
PATIENCE = 1.0


class Attempt(NamedTuple):
    """An attempt to connect, as the device met it; ``since`` is the number of the log's last record before it."""

    client_id: str
    since: int
    refusal: OnboardingError | None = None
    ending: str = ""


class BothEnds(widgets.HTML):  # type: ignore[misc]
    """The device's last attempt to connect, and beside it what the log of the local ``platform`` says of it."""

    def __init__(self, device: Device, platform: LocalPlatform | None) -> None:
        super().__init__()
        self._device, self._platform = device, platform
        self._subject = readable(name_of(device.certificate)) if device.certificate else ""
        self._attempt: Attempt | None = None
        self._drawing = threading.Lock()  # so that nothing older is shown after something newer

    @property
    def is_on(self) -> bool:
        """Whether a connection is known that has not ended as far as is known here."""
        return self._attempt is not None and not (self._attempt.refusal or self._attempt.ending)

    @property
    def client_id(self) -> str:
        """The ClientId of the last attempt, empty before the first."""
        return self._attempt.client_id if self._attempt else ""

    def connect(self, client_id: str) -> bool:
        """Let the device connect under this ClientId, and note what comes of it; returns whether it is connected."""
        own, since, refusal = self._device.client_id, max(self._log().index, default=0), None
        try:
            self._device.client_id = client_id
            self._device.connect()
        except OnboardingError as error:
            refusal = error
        finally:
            self._device.client_id = own
        self._attempt = Attempt(client_id, since, refusal)
        self._await_record()
        return refusal is None

    def adopt(self) -> Attempt:
        """Note a connection that was not made by `connect`."""
        log = self._log()
        own = log[(log["code"] == _CONNECTED) & (log["subject"] == self._subject) & log["ended"].isna()]
        since = max(own.index) - 1 if len(own) else max(log.index, default=0)
        self._attempt = attempt = Attempt(self._device.client_id, since)
        self._await_record()
        return attempt

    def end(self, ending: str, how: Callable[[], None] = lambda: None) -> None:
        """Note how the connection ends, and let ``how`` end it."""
        attempt = self._attempt if self._attempt and self.is_on else self.adopt()
        self._attempt = attempt._replace(ending=ending)  # first, because of what polls meanwhile
        how()
        self._await_record()

    def state(self) -> str:
        """Say in words what state the connection is in."""
        attempt, device = self._attempt, self._device
        if not device.is_connected:
            with suppress(OnboardingError):  # the local platform is not running
                device.host, device.port = device.locate()
        where = f"{device.host}:{device.port}"
        if device.is_connected:
            return f"✓ Connected to {where}"
        why = "" if attempt is None else ": the attempt failed" if attempt.refusal else ": the connection ended"
        return f"{'✗' if attempt else '○'} Not connected to {where}{why}"

    def draw(self) -> None:
        """Show the two sides."""
        with self._drawing:
            device = platform = box("plain", "Nothing yet: press Connect.")
            if attempt := self._attempt:
                record = self._record(attempt)
                device = self._device_side(attempt)
                platform = platform_side(record, attempt) if record else box("plain", self._why_no_record())
            self.value = two_sides("What the device saw", device, "What the platform's log says", platform).html

    def _device_side(self, attempt: Attempt) -> Rendered:
        answer = ("✓ CONNACK 0", f"The platform lets the device in, as ClientId {attempt.client_id!r}.")
        lines = [f"✗ {attempt.refusal.code}", str(attempt.refusal)] if attempt.refusal else list(answer)
        if attempt.ending:
            lines.append(f"Then: {attempt.ending}")
        notes = [note for note in list(self._device.notes) if not note.startswith(_USUAL)]
        if notes and not self.is_on:
            lines.append(f"paho's note: {'; '.join(notes)}")
        return box("good" if self.is_on else "bad", *lines)

    def _why_no_record(self) -> str:
        if self._platform is None:
            alone = "Only the platform's operator sees this: you get the left side alone."
            return f"{alone} The local platform shows you both."
        if LocalPlatform.running(self._platform.folder.parent) is None:
            return "The local platform is not running: workspace.tenant() starts it; then connect again."
        return "There is no record of this attempt: it did not reach the platform, or the platform does not respond."

    def _await_record(self) -> None:
        """Wait until the log says all that it will ever say of the attempt so far, for `PATIENCE` at most."""
        give_up = time.monotonic() + PATIENCE
        while self._platform and self._attempt and time.monotonic() < give_up:
            record = self._record(self._attempt)
            if record and (self.is_on or record["code"] != _CONNECTED or pd.notna(record["ended"])):
                return
            time.sleep(0.1)

    def _record(self, attempt: Attempt) -> dict[str, Any] | None:
        """Return the log's record of an attempt; one without subject and ClientId, as early failures leave it, last."""
        log = self._log()
        later = log[(log.index > attempt.since) & log["client_id"].isin(["", attempt.client_id])]
        for subject in (self._subject, ""):
            if len(own := later[later["subject"] == subject]):
                return dict(own.iloc[0])  # the first: later ones are those of a twin
        return None

    def _log(self) -> pd.DataFrame:
        """Return the platform's log, empty where there is none to read."""
        with suppress(DatabaseError, sqlite3.Error):  # its folder was moved
            if self._platform:
                return self._platform.log()
        return pd.DataFrame(columns=["code", "subject", "client_id", "ended"], index=pd.Index([], dtype=int))


def platform_side(record: dict[str, Any], attempt: Attempt) -> Rendered:
    """Return what the log's record says of an attempt."""
    let_in, ended = record["code"] == _CONNECTED, pd.notna(record["ended"])
    lines = [f"{'✓' if let_in else '✗'} {record['code']}", record["reason"]]
    if ended:
        lines.append(f"Then: {record['ending']} ({record['ended']:%H:%M:%S} UTC)")
    elif let_in and attempt.ending:
        lines.append("Then: the log does not say how the connection ended. The platform was killed, or can't write.")
    if chain := record["chain"]:
        over = f" over {record['tls']}" if record["tls"] else ""
        lines += [f"Presented{over}, in this order:", *(f"{place}. {name}" for place, name in enumerate(chain, 1))]
    return box("good" if let_in and not ended else "bad", *lines)


def box(kind: str, first: str, *lines: str) -> Rendered:
    """Return lines that are set apart, the first one in bold."""
    shown = "<br>".join([f"<strong>{escape(first)}</strong>", *map(escape, lines)])
    return Rendered("", boxed(kind, shown))


#: How many messages are shown, the newest ones, and how many characters of each.
MOST_LINES, LONGEST = 15, 300


class Messages(widgets.HTML):  # type: ignore[misc]
    """The last messages, the newest first. `note` may be called in any thread; `draw` shows what was noted."""

    def __init__(self) -> None:
        super().__init__()
        self.add_class("mciot-messages")
        self._lines: deque[tuple[str, str, str, str]] = deque(maxlen=MOST_LINES)
        self._error = ""
        self.draw()

    def note(self, message: Message, sent: bool) -> None:
        """Keep a message that goes out or has come: `Connection.on_traffic`."""
        is_error = not sent and message.topic == ERROR_TOPIC
        text = "••••" if message.topic == TOKEN_TOPIC else message.payload
        if len(text) > LONGEST:
            text = f"{text[:LONGEST]}… ({len(text)} characters)"
        way = "→ sent" if sent else "⚠ came" if is_error else "← came"
        self._lines.appendleft((f"{datetime.now(UTC):%H:%M:%S}", way, message.topic, text))
        if is_error:
            self._error = f"⚠ The platform answers with an error: {message.payload}"

    def draw(self) -> None:
        """Show what was noted."""
        columns, lines = ("Time, UTC", "Direction", "Topic", "Line"), list(self._lines)
        none = "Messages: none yet. What the device sends, and what it is sent, appears here."
        self.value = grid("Messages, the newest first", columns, lines) if lines else none

    def error(self) -> str:
        """Return the platform's last error as a sentence, once."""
        error, self._error = self._error, ""
        return error


#: How many operations are shown at the platform's side, the newest ones.
MOST_OPERATIONS = 5
_NOTHING_TO_DO = "Nothing to do: what the platform asks for appears here as it arrives."
_SIGNS = {"SUCCESSFUL": "✓ ", "FAILED": "✗ "}


class PendingOperation(widgets.HBox):  # type: ignore[misc]
    """An operation that has arrived at the device, and the buttons that answer it; ``begun`` after a 501."""

    def __init__(self, operation: OperationRequest, answers: dict[str, Callable[[Any], None]]) -> None:
        super().__init__()
        self.operation, self.begun, self.name = operation, False, f"{operation.name} {operation.text}".strip()
        self.buttons = {word: button(word, partial(answer, self)) for word, answer in answers.items()}
        for word, made in self.buttons.items():
            made.tooltip = f"{word} {self.name}"
        self.label = widgets.HTML(f"<strong>{escape(self.name)}</strong> has arrived")
        self.children = [self.label, *self.buttons.values()]
        self.add_class("mciot-row")


class Operations(widgets.HBox):  # type: ignore[misc]
    """At the left the platform asks; at the right the device says what becomes of it.

    ``ask(text)`` sends a command, or a restart where the text is None. ``answers`` are called with what has arrived, by
    the words on their buttons: Begin, Done and Failed…; then `answered` takes it away.
    """

    def __init__(self, ask: Callable[[str | None], None], answers: dict[str, Callable[[Any], None]]) -> None:
        super().__init__()
        self._answers = answers
        self.arrived: list[PendingOperation] = []
        self._history: dict[str, dict[str, str]] = {}
        self.text = field("Command text", "open valve 3", 16)
        self.restart = button("Restart", lambda: ask(None))
        self.command = button("Command", lambda: ask(self.text.value))
        self.statuses, self._nothing = widgets.HTML(), widgets.HTML(_NOTHING_TO_DO)
        self._waiting = widgets.VBox([self._nothing])
        asked = row(self.restart, self.text, self.command)
        asking = [widgets.HTML("<strong>The platform asks for an operation</strong>"), asked, self.statuses]
        answering = [widgets.HTML("<strong>The device answers</strong>"), self._waiting]
        self.children = [widgets.VBox(side).add_class("mciot-side") for side in (asking, answering)]
        self.add_class("mciot-sides")
        self.show([])
        self.arrive([], [])

    def show(self, operations: Iterable[devices.Operation]) -> None:
        """Show the tenant's operations for this device, each with the statuses in which it was seen."""
        rows = []
        for operation in list(operations)[-MOST_OPERATIONS:]:
            seen = self._history.setdefault(operation.id, {})
            seen[operation.status] = _SIGNS.get(operation.status, "") + operation.status
            way = " → ".join(seen.values())
            name = f"{operation.name} {operation.text}".strip()
            rows.append((name, f"{way}: {operation.failure}" if operation.failure else way))
        shown = grid("As the platform keeps them", ("Operation", "Status"), reversed(rows))
        self.statuses.value = shown if rows else "None has been sent yet."

    def arrive(self, operations: Iterable[OperationRequest], kept: Iterable[PendingOperation]) -> None:
        """Let operations appear at the device, after those that are ``kept``; the others are hidden."""
        new = [PendingOperation(operation, self._answers) for operation in operations]
        self.arrived = [*kept, *new]
        self._waiting.children += tuple(new)  # none is taken out: those behind it would be drawn anew, under a press
        for one in self._waiting.children:
            show_if(one, one in (self.arrived or [self._nothing]))

    def answered(self, asked: PendingOperation) -> None:
        """Take away what was answered; a keyboard goes on at the platform's side, in a field: a hasty Enter is none."""
        self.arrive([], [other for other in self.arrived if other is not asked])
        self.text.focus()


_MEASUREMENT = (("Fragment", "c8y_Temperature", 16), ("Series", "T", 9), ("Value", "21.5", 9), ("Unit", "C", 8))
_EVENT = (("Event type", "c8y_Door", 18), ("Event text", "The door was opened", 30))
_ALARM = (("Severity", "MAJOR", 15), ("Alarm type", "c8y_TooHot", 16), ("Alarm text", "It is too hot", 19))
#: Each button: its words, what is said while it sends, its fields (label, value, width in em), and how it sends them.
_SENT: tuple[tuple[str, str, tuple[tuple[str, str, int], ...], Callable[..., None]], ...] = (
    ("Send measurement", "Sending the measurement", _MEASUREMENT, lambda d, f, s, v, u: d.measure(f, s, float(v), u)),
    ("Send event", "Sending the event", _EVENT, Device.event),
    ("Raise alarm", "Raising the alarm", _ALARM, lambda device, severity, *words: device.alarm(*words, severity)),
)


class Sending(widgets.VBox):  # type: ignore[misc]
    """Fields with good defaults, by their labels; a press calls ``send`` with what in words, how, and good values."""

    def __init__(self, send: Callable[..., None]) -> None:
        super().__init__()
        self._transmit = send
        self.fields = {each[0]: field(*each) for *_, labels, _ in _SENT for each in labels}
        self.value_note = widgets.HTML().add_class("mciot-note")
        lines = [self._line(*message) for message in _SENT]
        self.children = [widgets.HTML("<strong>The device sends</strong>"), *lines]
        self.children[1].children += (self.value_note,)
        self.fields["Value"].observe(lambda _: self._check(), "value")

    def _line(self, words: str, doing: str, labels: Iterable[tuple[str, str, int]], how: Callable[..., None]) -> Any:
        fields = [self.fields[name] for name, *_ in labels]

        def press() -> None:
            if self.fields["Value"] in fields and not self._check():
                self.fields["Value"].focus()
                return
            self._transmit(doing, how, *(each.value for each in fields))

        return row(*fields, button(words, press))

    def _check(self) -> bool:
        """Return whether the value that is typed can be measured, and say beside it where it can't."""
        typed = self.fields["Value"].value.strip()
        try:
            good = math.isfinite(float(typed))
        except ValueError:
            good = False
        wrong = f"✗ {typed!r} is not a number: type one with a point, such as 21.5." if typed else "✗ Type a number."
        self.value_note.value = "" if good else f'<span role="alert" class="mciot-problem">{escape(wrong)}</span>'
        return good


def field(label: str, value: str, width: int) -> Any:
    """Return a field of so many em, with its label beside it."""
    layout = widgets.Layout(width=f"{width}em", max_width="100%")
    options = {"description": label, "value": value, "style": {"description_width": "initial"}, "layout": layout}
    return widgets.Dropdown(options=list(SEVERITIES), **options) if value in SEVERITIES else widgets.Text(**options)


#: Inches of the plot, its width on the page in pixels, and the points that are 13 pixels there, as the words around it.
_SIZE, _WIDE, _POINTS = (5.6, 2.4), 560, 9.4
_drawing = threading.Lock()  # matplotlib is not made for threads


def plot(values: "pd.Series[float]", name: str, unit: str = "") -> str:
    """Return the plot of a series, finite values by their times with a zone, as HTML; the last value in words too."""
    if values.empty:
        return "Measurements: none yet."
    values = values.sort_index(kind="stable")
    times = values.index.tz_convert(UTC)  # type: ignore[attr-defined]
    count = f"{len(values)} measurement{'s' if len(values) > 1 else ''}"
    low, high, newest = (f"{x:.10g} {unit}".rstrip() for x in (values.min(), values.max(), values.iloc[-1]))
    span = f"from {times[0]:%H:%M:%S} to {times[-1]:%H:%M:%S} UTC, between {low} and {high}"
    alt = f"Plot of {name}: {count} {span}; the last is {newest}."
    title = escape(f"{name} ({unit})" if unit else name)
    return (
        f"<div><strong>{title}</strong></div>{themed(_svg(values.set_axis(times.tz_localize(None))), _WIDE, alt)}"
        f"<div>Last value: <strong>{escape(newest)} at {times[-1]:%Y-%m-%d %H:%M:%S} UTC</strong>. {count}.</div>"
    )


def _svg(values: "pd.Series[float]") -> str:
    """Draw the values over their times (UTC)."""

    def draw(axes: Any) -> None:
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter  # here, because it takes half a second

        drawn = values.clip(-1e300, 1e300)  # what matplotlib can draw; the words have the value itself
        axes.plot(drawn.index, drawn, color=COLOURS["ca"][0], marker="o", markersize=4)
        margin = (drawn.index[-1] - drawn.index[0]) / 20 or pd.Timedelta(seconds=30)  # else one point had years
        axes.set_xlim(drawn.index[0] - margin, drawn.index[-1] + margin)
        axes.xaxis.set_major_locator(locator := AutoDateLocator(maxticks=5))
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
        axes.set_xlabel("Time, UTC")

    return drawn_svg(draw, _SIZE)


def drawn_svg(draw: Callable[[Any], None], size: tuple[float, float]) -> str:
    """Return an SVG of what ``draw`` does with matplotlib's axes, in the colours of our other pictures."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it would write of its font cache into the notebook
    ground, ink, muted = (COLOURS[name][0] for name in ("ground", "ink", "muted"))
    with _drawing, warnings.catch_warnings(action="ignore"):  # of spans of thousands of years
        from matplotlib.figure import Figure

        axes = (figure := Figure(figsize=size, layout="constrained", facecolor=ground)).subplots()
        draw(axes)
        axes.set_facecolor(ground)
        axes.xaxis.label.set(color=ink, size=_POINTS)
        axes.tick_params(colors=ink, labelsize=_POINTS)
        axes.grid(color=muted, alpha=0.3, linewidth=0.6)
        axes.spines[:].set_color(ink)
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(picture := io.StringIO(), format="svg", metadata={"Date": None})
    svg = picture.getvalue()
    for name, (light, _) in COLOURS.items():
        svg = svg.replace(light, f"var(--{name})")
    return svg
