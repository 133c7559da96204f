"""The part of the device console where the platform asks for something, and the device answers."""

from collections.abc import Callable, Iterable
from functools import partial

import ipywidgets as widgets  # type: ignore[import-untyped]

from mciot_nb.connect import devices
from mciot_nb.connect.device import Operation
from mciot_nb.ui.console_send import field, part, row
from mciot_nb.ui.markup import escape, grid
from mciot_nb.ui.panel import button

#: How many operations are shown at the platform's side, the newest ones.
MOST = 5
_SIGNS = {"SUCCESSFUL": "✓ ", "FAILED": "✗ "}


class Asked(widgets.HBox):  # type: ignore[misc]
    """An operation that has arrived at the device, and the buttons that answer it; ``begun`` after a 501."""

    def __init__(self, operation: Operation, answers: dict[str, Callable[["Asked"], None]]) -> None:
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

    def __init__(self, ask: Callable[[str | None], None], answers: dict[str, Callable[[Asked], None]]) -> None:
        super().__init__()
        self._answers = answers
        self.arrived: list[Asked] = []
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
        for operation in list(operations)[-MOST:]:
            seen = self._history.setdefault(operation.id, [])
            if seen[-1:] != [operation.status]:
                seen.append(operation.status)
            way = " → ".join([*seen[:-1], _SIGNS.get(seen[-1], "") + seen[-1]])
            rows.append((_name(operation), f"{way}: {operation.failure}" if operation.failure else way))
        columns = ("Operation", "Status")
        none = "None was sent yet."
        self.statuses.value = grid("As the platform keeps them", columns, reversed(rows)) if rows else none

    def arrive(self, operations: Iterable[Operation]) -> None:
        """Let operations appear at the device."""
        self.arrived += [Asked(operation, self._answers) for operation in operations]
        self._draw()

    def forget_what_comes_again(self) -> None:
        """Forget what was not begun: the platform brings it again over a new connection."""
        for asked in [asked for asked in self.arrived if not asked.begun]:
            self._take_away(asked)

    def answered(self, asked: Asked) -> None:
        """Take away what was answered; whoever works by keyboard goes on at the next one, or at the platform's side."""
        self._take_away(asked)
        (self.arrived[0].buttons["Done"] if self.arrived else self.restart).focus()

    def _take_away(self, asked: Asked) -> None:
        self.arrived.remove(asked)
        self._draw()
        for child in asked.children:
            child.close()
        asked.close()

    def _draw(self) -> None:
        self._waiting.children = self.arrived or [self._nothing]


def _name(operation: devices.Operation) -> str:
    return f"{operation.name} {operation.text}".strip()
