"""What widgets.js draws: fields whose secret, or file, is in no file that the notebook saves; and a panel's poller."""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets as widgets  # type: ignore[import-untyped]
from traitlets import Bool, Int, Unicode

from mciot_nb.errors import OnboardingError
from mciot_nb.pki.files import meanings
from mciot_nb.secret import Secret
from mciot_nb.ui.markup import Rendered, StaticPicture, escape, paragraph

_HERE = Path(__file__).parent


def style() -> str:
    """Return the style sheet of all forms, to be shown with each."""
    return f"<style>{(_HERE / 'ui.css').read_text('utf-8')}</style>"


def outcome(work: Callable[[], str | None], word: str = "done") -> str | None:
    """Return what ``work`` returns, or a sentence that it is not done, which ``word`` says, and why."""
    try:
        return work()
    except OnboardingError as error:
        return f"✗ {error.with_code}"
    except OSError as error:  # a file that can't be written, for one
        return f"✗ Not {word}: {error.strerror or error}. Fix that, and try again."
    except Exception:
        logging.getLogger(__name__).exception("not %s", word)
        return f"✗ Not {word}, because of an unexpected error: run the cell again."


class BrowserWidget(anywidget.AnyWidget):
    """A widget that ``widgets.js`` draws, by the function that ``view`` names."""

    _esm = _HERE / "widgets.js"
    _css = _HERE / "ui.css"
    view = Unicode().tag(sync=True)


#: Seconds between two polls of something that other programs may change.
POLL_EVERY = 0.5
#: Seconds of polling after a ping, which each view sends every 5 seconds; and after a view has gone.
PATIENCE, GRACE = 60.0, 8.0


class Poller(BrowserWidget):
    """An invisible part of a panel: while a view of it sends pings, ``work`` is called again and again, in one thread.

    A busy kernel hears no ping: after a minute polling pauses until the kernel is free. The view also keeps the Lab's
    keyboard shortcuts out of the panel, and each press behind the changes that were typed before it.
    """

    view = Unicode("poller").tag(sync=True)

    def __init__(self, work: Callable[[], None] | None = None) -> None:
        super().__init__()
        self._work, self._deadline = work, 0.0
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.on_msg(self._hear)

    def _hear(self, _widget: object, message: Any, _buffers: object) -> None:
        if message == "settle":
            self.send({})  # the view waits for this answer before it sends a press
        with self._lock:
            self._deadline = time.monotonic() + (GRACE if message == "gone" else PATIENCE)
            if self._work and self._thread is None and message != "gone":
                self._thread = threading.Thread(target=self._poll, daemon=True)
                self._thread.start()

    def _poll(self) -> None:
        while self._work:
            with self._lock:
                if self.comm is None or time.monotonic() >= self._deadline:
                    self._thread = None
                    return
            self._work()
            time.sleep(POLL_EVERY)


class SecretField(StaticPicture, BrowserWidget):
    """A password input that hands its text to the kernel as a message, never as the widget's state.

    The text goes on Enter or by the button "Use", then the field is empty again. With ``when_left`` it also goes when
    the field loses the focus: in a form with a button of its own the text is then here before the press of that
    button. ``folded`` is the line under which the field is hidden until it is opened, ``hint`` a sentence above it.
    With ``twice`` the text has to be typed in a second field too, because a slip of the finger can't be seen. With the
    length of the ``shortest`` that serves, words say how strong a new one is while it is typed.
    """

    view = Unicode("secret").tag(sync=True)
    label = Unicode("Passphrase").tag(sync=True)
    folded = Unicode("").tag(sync=True)
    hint = Unicode("").tag(sync=True)
    when_left = Bool(False).tag(sync=True)
    twice = Bool(False).tag(sync=True)
    shortest = Int().tag(sync=True)
    status = Unicode("").tag(sync=True)  # what the kernel says beside the field; the secret is in no trait
    awaited = Bool(False)  # whether something was typed, and not taken

    def __init__(self, label: str = "Passphrase", **traits: Any) -> None:
        super().__init__(label=label, **traits)
        #: The last text that was handed over and not refused by a callback, or None.
        self.value: Secret | None = None
        self._callbacks: list[Callable[[Secret], None]] = []
        self.on_msg(self._receive)

    def on_secret(self, callback: Callable[[Secret], None]) -> None:
        """Call ``callback`` with each text that is handed over; the sentence of its OnboardingError is shown."""
        self._callbacks.append(callback)

    def _receive(self, _widget: object, content: dict[str, Any], _buffers: object) -> None:
        # Taken out of the message at once: a traceback that shows local variables would show the message.
        secret, repeated = (Secret(str(content.pop(name, ""))) for name in ("secret", "repeated"))
        if not secret.reveal():
            self.awaited = content.get("typed") is True
            return
        self.awaited = True
        self.status = ""  # so that a second "Received" is a change, and is shown
        if self.twice and repeated != secret:
            self.status = "✗ They differ: type both again."
            return
        before, self.value = self.value, secret
        try:
            for callback in self._callbacks:
                callback(secret)
        except OnboardingError as error:
            self.value = before
            self.status = f"✗ {error}"
        else:
            self.status, self.awaited = "✓ Received; it stays in this kernel's memory.", False

    def picture(self) -> Rendered:
        """Say that something is asked for here, and never what was typed."""
        return paragraph(f"{self.label}: {'received' if self.value else 'to be typed here'}.")


#: Bytes that a file may have: a certificate has some thousands, and a long chain some ten thousands.
LONGEST = 500_000
_PROBLEMS = meanings("problem with a file", "words.csv")


class FileField(StaticPicture, BrowserWidget):
    """A file input, and a place to drop a file; the bytes go to the kernel in a message, never as the widget's state.

    ``take`` gets the file's name and bytes, and returns the sentence to be shown under the field; it may raise
    OnboardingError. The bytes are not kept here. ``longest`` is how many there may be.
    """

    view = Unicode("file").tag(sync=True)
    label = Unicode("File").tag(sync=True)
    longest = Int(LONGEST).tag(sync=True)
    status = Unicode("").tag(sync=True)

    def __init__(self, label: str, take: Callable[[str, bytes], str], longest: int = LONGEST) -> None:
        super().__init__(label=label, longest=longest)
        self._take = take
        self.on_msg(self._receive)

    def _receive(self, _widget: object, content: dict[str, Any], buffers: list[Any]) -> None:
        self.status = ""  # so that the same sentence a second time is a change, and is shown
        name, problem = str(content.get("name", "")), content.get("problem")
        try:
            if problem in _PROBLEMS:
                raise OnboardingError(_PROBLEMS[problem].format(name=name))
            size = len(buffers[0]) if buffers else int(content.get("size", 0))
            if size > self.longest:
                raise OnboardingError(_PROBLEMS["large"].format(name=name, size=size))
            self.status = self._take(name, bytes(buffers[0]) if buffers else b"")
        except OnboardingError as error:
            self.status = f"✗ {error}"

    def picture(self) -> Rendered:
        """Say that a file can be given here."""
        return paragraph(f"{self.label}: to be chosen here.")


def status(sentence: str, kind: str = "said", role: str = "status") -> str:
    """Return a sentence as HTML that a screen reader speaks when it changes; ``kind``: said, problem, warning, good."""
    return f'<span role="{role}" class="mciot-{kind}">{escape(sentence)}</span>'


def button(label: str, action: Callable[[], object], kind: str = "") -> Any:
    """Return a button; ``kind`` is primary, danger or empty."""
    made = widgets.Button(description=label, button_style=kind, layout=widgets.Layout(width="auto"))
    made.on_click(lambda _: action())
    return made


def row(*parts: Any) -> Any:
    """Put parts beside each other, as far as the page is wide."""
    return widgets.HBox(parts).add_class("mciot-row")


def show_if(part: Any, shown: bool) -> None:
    """Show a part, or hide it."""
    (part.remove_class if shown else part.add_class)("mciot-hidden")
