"""What all panels share: buttons, a line that says what came of the last press, a question before what can't be undone.

What a button does runs in a thread of its own, so that a server that does not answer stops neither the kernel nor the
other widgets.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any, TypeVar

import anywidget
import ipywidgets as widgets  # type: ignore[import-untyped]

from mciot_nb.errors import OnboardingError
from mciot_nb.ui.inputs import style
from mciot_nb.ui.markup import StaticPicture, escape

#: Seconds between two questions whether somebody is there, and how many of them without an answer mean that nobody is.
ASK_EVERY, MOST_UNANSWERED = 10.0, 3
#: Seconds that another view has to answer when one has gone.
GRACE = 2.0


class Poller(anywidget.AnyWidget):
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


T = TypeVar("T")

#: Seconds between two looks at something that others may change.
LOOK_EVERY = 0.5


class Panel(StaticPicture, widgets.VBox):  # type: ignore[misc]
    """A heading, parts of a panel's own, and a line for what is going on; one thing is done at a time.

    A panel of one's own gives its parts to `build`, and overrides `look` where others may change what it shows.
    """

    def __init__(self, title: str) -> None:
        super().__init__()
        self.title = title
        self._heading = widgets.HTML(f'<span class="mciot-title">{escape(title)}</span>')
        self._message = widgets.HTML().add_class("mciot-message")
        self._question = widgets.HBox().add_class("mciot-question").add_class("mciot-row").add_class("mciot-hidden")
        self._busy = threading.Lock()
        self._worker: threading.Thread | None = None
        self._presence = Poller(None if type(self).look is Panel.look else self._look, LOOK_EVERY)
        self.add_class("mciot-form")

    def build(self, *parts: Any) -> None:
        """Show the heading, the parts, the question while there is one, and the message."""
        bottom = (self._question, self._message, self._presence)
        self.children = [widgets.HTML(style()), self._heading, *parts, *bottom]

    def say(self, sentence: str) -> None:
        """Write what came of the last press; a screen reader speaks it."""
        self._message.value = f'<span role="status">{escape(sentence)}</span>' if sentence else ""

    def do(self, doing: str, work: Callable[[], T], then: Callable[[T], str]) -> None:
        """Do ``work`` in a thread, saying ``doing`` meanwhile; ``then`` shows its result and gives the last sentence.

        An error that we can name is said in its sentence. While something is being done, nothing else is begun.
        """
        if not self._busy.acquire(blocking=False):
            return
        self.ask_nothing()
        self.say(f"{doing} …")
        self._worker = threading.Thread(target=self._do, args=(work, then), daemon=True)
        self._worker.start()

    def _do(self, work: Callable[[], T], then: Callable[[T], str]) -> None:
        try:
            self.say(then(work()))
        except OnboardingError as error:
            self.say(f"✗ {error}")
        except OSError as error:  # a file that can't be written, for one
            self.say(f"✗ Not done: {error.strerror or error}. Mend that, and try again.")
        except BaseException:
            self.say("✗ Not done, for a reason that has no name here: run the cell again.")
            raise
        finally:
            self._busy.release()

    def wait(self, seconds: float = 60) -> None:
        """Wait until what was begun is done: for programs, not for people."""
        if self._worker:
            self._worker.join(seconds)

    def ask(self, question: str, yes: str, action: Callable[[], None], *parts: Any, back: Any = None) -> None:
        """Ask before something is done that can't be undone: ``yes`` is the word on the button that does it.

        ``parts`` are fields that belong to the answer; ``back`` is the widget that has the focus again after it.
        """

        def answered() -> None:
            self.ask_nothing()
            if back is not None:
                back.focus()  # else a keyboard is at the page's beginning again

        def agreed() -> None:
            answered()
            action()

        no = button("Cancel", answered)
        self._question.children = [
            widgets.HTML(f'<span role="alert">{escape(question)}</span>'),
            *parts,
            button(yes, agreed, "danger").add_class("mciot-yes"),
            no.add_class("mciot-no"),
        ]
        self._question.remove_class("mciot-hidden")
        no.focus()  # what a hasty Enter presses

    def ask_nothing(self) -> None:
        """Take the question away."""
        self._question.children = []
        self._question.add_class("mciot-hidden")

    def look(self) -> None:
        """Look whether others have changed something, and show it; called twice a second while somebody watches."""

    def _look(self) -> None:
        try:
            self.look()
        except Exception:  # no thread may write its traceback into a notebook, twice a second
            self.say("✗ What others change may be missing here, for a reason that has no name: run the cell again.")


def button(label: str, action: Callable[[], object], kind: str = "") -> Any:
    """Make a button; ``kind`` is primary, danger or empty."""
    made = widgets.Button(description=label, button_style=kind, layout=widgets.Layout(width="auto"))
    made.on_click(lambda _: action())
    return made
