"""The form for the passphrase of a workspace's keys."""

from typing import Protocol

import ipywidgets as widgets  # type: ignore[import-untyped]
from traitlets import Int

from mciot_nb.errors import OnboardingError
from mciot_nb.pki.keystore import SHORTEST_PASSWORD
from mciot_nb.secret import Secret
from mciot_nb.ui.base import style
from mciot_nb.ui.markup import StaticPicture, escape
from mciot_nb.ui.secret import SecretField

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
