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
        self._looker: threading.Thread | None = None
        self.add_class("mciot-form")
        self._view_count = 0  # asks the browser to count in how many places the panel is shown
        self.observe(self._seen, "_view_count")

    def build(self, *parts: Any) -> None:
        """Show the heading, the parts, the question while there is one, and the message."""
        self.children = [widgets.HTML(style()), self._heading, *parts, self._question, self._message]

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

    def ask(self, question: str, yes: str, action: Callable[[], None], *parts: Any) -> None:
        """Ask before something is done that can't be undone: ``yes`` is the word on the button that does it.

        ``parts`` are fields that belong to the answer.
        """

        def agreed() -> None:
            self.ask_nothing()
            action()

        no = button("Cancel", self.ask_nothing)
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

    def _seen(self, _change: object) -> None:
        if type(self).look is Panel.look or not self._view_count or (self._looker and self._looker.is_alive()):
            return
        self._looker = threading.Thread(target=self._look_again_and_again, daemon=True)
        self._looker.start()

    def _look_again_and_again(self) -> None:
        over = threading.Event()
        while self._view_count and self.comm is not None:  # shown somewhere, and not closed
            self.look()
            over.wait(LOOK_EVERY)


def button(label: str, action: Callable[[], object], kind: str = "") -> Any:
    """Make a button; ``kind`` is primary, danger or empty."""
    made = widgets.Button(description=label, button_style=kind, layout=widgets.Layout(width="auto"))
    made.on_click(lambda _: action())
    return made
