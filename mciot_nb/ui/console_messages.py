"""What goes over the line between a device and the platform, as the device console shows it."""

from collections import deque
from datetime import UTC, datetime
from typing import NamedTuple

import ipywidgets as widgets  # type: ignore[import-untyped]

from mciot_nb.connect.connection import ERROR_TOPIC, TOKEN_TOPIC, Message
from mciot_nb.ui.markup import grid

#: How many messages are shown, the newest ones, and how many characters of each.
MOST, LONGEST = 15, 300


class _Line(NamedTuple):
    time: datetime
    sent: bool
    message: Message


class Messages(widgets.HTML):  # type: ignore[misc]
    """The last messages, the newest first. `note` may be called in any thread; `draw` shows what was noted."""

    def __init__(self) -> None:
        super().__init__()
        self.add_class("mciot-messages")
        self._lines: deque[_Line] = deque(maxlen=MOST)
        self._untold: deque[Message] = deque(maxlen=MOST)
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
