"""What all panels share: buttons, a line that says what came of the last press, a question before what can't be undone.

What a button does runs in a thread of its own, so that a server that does not answer stops neither the kernel nor the
other widgets.
"""

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import ipywidgets as widgets  # type: ignore[import-untyped]

from mciot_nb.errors import OnboardingError
from mciot_nb.ui.base import style
from mciot_nb.ui.markup import StaticPicture, escape
from mciot_nb.ui.presence import Presence

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
        self._presence = Presence(None if type(self).look is Panel.look else self._look, LOOK_EVERY)
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
