"""The passphrase of a workspace's keys and stores: typed, from the environment, or made up for practice."""

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
    """Finds the passphrase of a workspace. What a learner types is held in memory only."""

    def __init__(self, workspace: Path) -> None:
        self.practice_file = workspace / "passphrase"
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
        """Give the passphrase, or None where there is none.

        Raises OnboardingError where it is one that openssl or keytool would refuse.
        """
        if self.source == "environment":
            return checked(Secret(os.environ["MCIOT_PASSPHRASE"]))
        return self._practice() if self.source == "practice" else self.typed

    def make_up(self) -> Secret:
        """Make a passphrase for practice and keep it in the workspace, readable by its owner alone."""
        with suppress(FileExistsError):  # another notebook was faster
            write_whole(self.practice_file, secrets.token_urlsafe(16).encode(), private=True)
        return self._practice()

    @property
    def is_practice(self) -> bool:
        """Whether the passphrase in use lies in the workspace, for anybody who can read that folder."""
        return self.practice_file.exists() and self.find() == self._practice()

    def _practice(self) -> Secret:
        data = read_file(self.practice_file, f"There is no passphrase in {self.practice_file}: put the file back.")
        return checked(Secret(data.decode(errors="replace").strip()))  # an editor may have added a line break


def checked(passphrase: Secret) -> Secret:
    """Give ``passphrase`` back; raises OnboardingError where openssl or keytool would refuse it."""
    encode_passphrase(passphrase)
    if len(passphrase.reveal()) < SHORTEST_PASSWORD:
        raise OnboardingError(
            f"keytool wants passphrases of {SHORTEST_PASSWORD} characters or more: type a longer one.", "BAD_PASSPHRASE"
        )
    return passphrase
