"""Fields that hand a secret, or a file's bytes, to the kernel so that they are in no file that the notebook saves."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import anywidget
import ipywidgets as widgets  # type: ignore[import-untyped]
from traitlets import Bool, Int, Unicode

from mciot_nb.errors import OnboardingError
from mciot_nb.pki.keystore import SHORTEST_PASSWORD
from mciot_nb.secret import Secret
from mciot_nb.ui.markup import StaticPicture, escape

_HERE = Path(__file__).parent


def style() -> str:
    """Return the style sheet of all forms, to be shown with each."""
    return f"<style>{(_HERE / 'ui.css').read_text('utf-8')}</style>"


class BrowserWidget(anywidget.AnyWidget):
    """A widget that ``widgets.js`` draws, by the function that ``view`` names."""

    _esm = _HERE / "widgets.js"
    _css = _HERE / "ui.css"
    view = Unicode().tag(sync=True)


class SecretField(StaticPicture, BrowserWidget):
    """A password input that hands its text to the kernel as a message, never as the widget's state.

    The text goes on Enter or by the button "Use", then the field is empty again. With ``when_left`` it also goes when
    the field loses the focus: in a form with a button of its own the text is then here before the press of that
    button. ``folded`` is the line under which the field is hidden until it is opened, ``hint`` a sentence above it.
    With ``twice`` the text has to be typed in a second field too, because a slip of the finger can't be seen.
    """

    view = Unicode("secret").tag(sync=True)
    label = Unicode("Passphrase").tag(sync=True)
    folded = Unicode("").tag(sync=True)
    hint = Unicode("").tag(sync=True)
    when_left = Bool(False).tag(sync=True)
    twice = Bool(False).tag(sync=True)
    status = Unicode("").tag(sync=True)  # what the kernel says beside the field; the secret is in no trait

    def __init__(
        self,
        label: str = "Passphrase",
        *,
        folded: str = "",
        hint: str = "",
        when_left: bool = False,
        twice: bool = False,
    ) -> None:
        super().__init__(label=label, folded=folded, hint=hint, when_left=when_left, twice=twice)
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
            return
        self.status = ""  # so that a second "Received" is a change, and is shown
        if self.twice and repeated != secret:
            self.status = "✗ The two differ: type both again."
            return
        before, self.value = self.value, secret
        try:
            for callback in self._callbacks:
                callback(secret)
        except OnboardingError as error:
            self.value = before
            self.status = f"✗ {error}"
        else:
            self.status = "✓ Received; it stays in this kernel's memory."

    def static_text(self) -> str:
        """Say that something is asked for here, and never what was typed."""
        return f"{self.label}: {'received' if self.value else 'to be typed here'}."


#: Bytes that a file may have: a certificate has some thousands, and a long chain some ten thousands.
LONGEST = 500_000
_PROBLEMS = {
    "none": "That was no file: drop a file, or choose one.",
    "several": "These were several files: drop one at a time.",
    "folder": "{name} is a folder: open it, and drop the file that is in it.",
    "unreadable": "{name} can't be read: look whether it is a folder, or still there.",
}


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
                raise OnboardingError(
                    f"{name} has {size:,} bytes, and a certificate some thousands: it was not read; choose another."
                )
            self.status = self._take(name, bytes(buffers[0]) if buffers else b"")
        except OnboardingError as error:
            self.status = f"✗ {error}"

    def static_text(self) -> str:
        """Say that a file can be given here."""
        return f"{self.label}: to be chosen here."


_LINES = {
    "practice": "Passphrase: the practice one of this workspace, kept in workspace/passphrase.",
    "environment": "Passphrase: the one in MCIOT_PASSPHRASE.",
    "typed": "Passphrase: your own, kept in no file.",
    "": "Passphrase: this workspace's keys were made with one that is kept nowhere: type it, press Enter, and run the "
    "cells below.",
}
_HINTS = {  # by whether there is a CA
    False: "The CA is made with it: type it, and press Enter, before you run the next cells.",
    True: "The CA that is here has the practice one. To make another with your own, run workspace.start_over() in a "
    "cell, then type yours here.",
}


class HasPassphrase(Protocol):
    """What the form needs of a workspace."""

    @property
    def passphrase_source(self) -> str:
        """Where the passphrase is from: practice, environment, typed, or empty where one is needed."""

    @property
    def has_ca(self) -> bool:
        """Whether there is a CA, so that a passphrase can be tried."""

    def type_passphrase(self, passphrase: Secret, /) -> None:
        """Use a passphrase; raises OnboardingError where it is refused."""


class PassphraseField(SecretField):
    """A field for a passphrase; while a new one is typed, twice, it says in words how strong that is."""

    shortest = Int(SHORTEST_PASSWORD).tag(sync=True)


class PassphraseForm(StaticPicture, widgets.VBox):  # type: ignore[misc]
    """Say which passphrase serves, and take another one where that makes sense; it is kept in no file.

    A new passphrase, while there is no CA to try it on, is asked for twice.
    """

    def __init__(self, workspace: HasPassphrase) -> None:
        super().__init__()
        self._workspace, source = workspace, workspace.passphrase_source
        self._line = _LINES[source]
        self._shown = widgets.HTML(escape(self._line))
        practice, has_ca = source == "practice", workspace.has_ca
        folded, hint = ("Type one of your own instead", _HINTS[has_ca]) if practice else ("", "")
        self.field = PassphraseField("Passphrase", folded=folded, hint=hint, twice=not has_ca)
        self.field.on_secret(self._received)
        fields = [self.field] if practice or not source else []
        self.children = [widgets.HTML(style()), self._shown, *fields]
        self.add_class("mciot-form")

    def _received(self, secret: Secret) -> None:
        if not self._workspace.has_ca and not self.field.twice:  # the CA was moved aside since
            self.field.twice = True
            raise OnboardingError("This is a new passphrase, for there is no CA now: type it twice.")
        self._workspace.type_passphrase(secret)
        self._line = _LINES["typed"]
        self._shown.value = escape(f"{self._line} Now run the cells below.")

    def static_text(self) -> str:
        """Give the one line that says which passphrase serves."""
        return self._line
