"""The passphrase of a workspace: typed by the learner, set in the environment, or made up for practice."""

import os
import secrets
from contextlib import suppress
from pathlib import Path

from mciot_nb.errors import OnboardingError
from mciot_nb.pki.files import read_file, write_whole
from mciot_nb.pki.keys import encode_passphrase
from mciot_nb.pki.keystore import SHORTEST_PASSWORD
from mciot_nb.secret import Secret


class Passphrase:
    """The passphrase of a workspace. What a learner types is held in memory only, the practice one in a file."""

    def __init__(self, practice_file: Path) -> None:
        self.practice_file = practice_file
        self.typed: Secret | None = None

    @property
    def source(self) -> str:
        """Where the passphrase comes from: ``typed``, ``environment`` or ``practice``, empty where there is none."""
        if self.typed:
            return "typed"
        if os.environ.get("MCIOT_PASSPHRASE"):
            return "environment"
        return "practice" if self.practice_file.exists() else ""

    def find(self) -> Secret | None:
        """Return the passphrase, or None where there is none.

        Raises: OnboardingError: if openssl or keytool would refuse it.
        """
        if self.source == "environment":
            return check_passphrase(Secret(os.environ["MCIOT_PASSPHRASE"]))
        return self._practice() if self.source == "practice" else self.typed

    def make_up(self) -> Secret:
        """Make a passphrase for practice and keep it in the workspace, readable by its owner alone."""
        with suppress(FileExistsError):  # another notebook was faster
            write_whole(self.practice_file, secrets.token_urlsafe(16).encode(), private=True)
        return self._practice()

    @property
    def is_practice(self) -> bool:
        """Whether the passphrase in use lies in the workspace, for everyone who can read that folder."""
        return self.practice_file.exists() and self.find() == self._practice()

    def _practice(self) -> Secret:
        data = read_file(self.practice_file, f"There is no passphrase in {self.practice_file}: put the file back.")
        # An editor may have added a line break.
        return check_passphrase(Secret(data.decode(errors="replace").strip()))


def check_passphrase(passphrase: Secret) -> Secret:
    """Return ``passphrase``. Raises: OnboardingError: if openssl or keytool would refuse it."""
    encode_passphrase(passphrase)
    if len(passphrase.reveal()) < SHORTEST_PASSWORD:
        raise OnboardingError(
            f"keytool wants passphrases of {SHORTEST_PASSWORD} characters or more: type a longer one.", "BAD_PASSPHRASE"
        )
    return passphrase
