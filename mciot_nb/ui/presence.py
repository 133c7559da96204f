"""Whether somebody has a panel on the screen: the Lab itself does not say when a page was closed or loaded again."""

import asyncio
import threading
import time
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any

import anywidget

#: Seconds between two questions whether somebody is there, and how many of them without an answer mean that nobody is.
ASK_EVERY, MOST_UNANSWERED = 10.0, 3
#: Seconds that another view has to answer when one has gone.
GRACE = 2.0


class Presence(anywidget.AnyWidget):
    """An invisible part of a panel, which keeps the Lab's keyboard shortcuts out of it.

    ``work`` is called every ``pause`` seconds, in a thread, while the panel is on a screen. There is one thread at
    most; it ends when the output is cleared, and half a minute after the page was closed.
    """

    _esm = Path(__file__).with_name("presence.js")

    def __init__(self, work: Callable[[], None] | None = None, pause: float = 0.5) -> None:
        super().__init__()
        self._work, self._pause = work, pause
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop = _running_loop()  # the kernel's, which is also there where an answer comes by a thread of the Lab's
        self._asking, self._unanswered = False, 0
        self._ask_at, self._deadline = 0.0, inf
        self.on_msg(self._hear)

    def _hear(self, _widget: object, message: Any, _buffers: object) -> None:
        """Note that a view is there, or that one has gone: then the others are asked at once."""
        if message != "here":
            now = time.monotonic()
            self._ask_at, self._deadline = now + ASK_EVERY, now + GRACE
            self._ask()  # and not in the thread, which may have long to do
            return
        with self._lock:
            self._unanswered, self._deadline = 0, inf
            if self._work and self._thread is None:
                self._thread = threading.Thread(target=self._go_on, daemon=True)
                self._thread.start()

    def _go_on(self) -> None:
        assert self._work
        while self._somebody_is_there():
            self._work()
            time.sleep(self._pause)

    def _somebody_is_there(self) -> bool:
        with self._lock:
            now = time.monotonic()
            if self.comm is None or now > self._deadline or self._unanswered >= MOST_UNANSWERED:
                self._thread = None
                return False
            if self._asking or now < self._ask_at:
                return True
            self._asking, self._ask_at = True, now + ASK_EVERY
        if self._loop and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._ask)
        else:
            self._ask()
        return True

    def _ask(self) -> None:
        """Ask whether somebody is there; the kernel does so when it is free, for a busy one hears no answer."""
        with self._lock:
            self._asking = False
            self._unanswered += 1
        self.send({})


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
