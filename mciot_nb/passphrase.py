"""The passphrase of a workspace: typed by the learner, set in the environment, or made up for practice."""

import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from mciot_nb.errors import OnboardingError, fault
from mciot_nb.pki.files import read_file, write_whole
from mciot_nb.pki.keys import encode_passphrase, read_private_key
from mciot_nb.pki.keystore import SHORTEST_PASSWORD, store_password
from mciot_nb.secret import Secret


class Passphrase:
    """The passphrase of a workspace: what a learner types is held in memory only, the practice one in a file.

    ``keys`` returns the paths of the keys that are there, which it opens.
    """

    def __init__(self, practice_file: Path, keys: Callable[[], list[Path]]) -> None:
        self.practice_file, self._keys = practice_file, keys
        self._typed: Secret | None = None
        self.awaited = False  # what was typed and not taken must not give way to another in silence

    @property
    def source(self) -> str:
        """Where it comes from: ``typed``, ``environment`` or ``practice``, empty where it has yet to be typed."""
        if self._typed:
            return "typed"
        if os.environ.get("MCIOT_PASSPHRASE"):
            return "environment"
        return "practice" if self.practice_file.exists() or not self._keys() else ""

    def find(self) -> Secret:
        """Return the passphrase; a practice one is made up where no key needs another.

        Raises: OnboardingError: NEED_PASSPHRASE, if only the learner knows it, BAD_PASSPHRASE if openssl or keytool
            would refuse it.
        """
        if self.awaited:
            raise fault("NEED_PASSPHRASE.typed")
        if self._typed:
            return self._typed
        if text := os.environ.get("MCIOT_PASSPHRASE"):
            return checked(Secret(text))
        if self.source:
            if not self.practice_file.exists():
                try:
                    write_whole(self.practice_file, secrets.token_urlsafe(16).encode(), private=True)
                except OnboardingError as error:
                    if error.code != "EXISTS":  # then another notebook was faster
                        raise
            return self._practice()
        raise fault("NEED_PASSPHRASE.learners", path=self.practice_file)

    def for_store(self) -> Secret:
        """Return the passphrase for a keystore or truststore. Raises: OnboardingError: if Java would not open it."""
        passphrase = self.find()
        try:
            store_password(passphrase)
        except OnboardingError as error:
            raise fault("BAD_PASSPHRASE.java_too", error=error) from None
        return passphrase

    def type(self, passphrase: Secret) -> None:
        """Use a passphrase of the learner's own.

        Raises: OnboardingError: if keytool or Java would refuse it, or it does not open the keys that are there.
        """
        checked(passphrase)
        if not (keys := self._keys()):
            store_password(passphrase)  # what is there stays open to its passphrase, whatever Java says to it
        for key in keys[:1]:
            try:
                read_private_key(key, passphrase)
            except OnboardingError as error:
                if error.code != "WRONG_PASSPHRASE":
                    raise
                raise fault("WRONG_PASSPHRASE.typed", key=key) from None
        self._typed = passphrase

    @property
    def is_practice(self) -> bool:
        """Whether the passphrase in use is kept in the workspace, for everyone who can read that folder."""
        return self.practice_file.exists() and self.find() == self._practice()

    def _practice(self) -> Secret:
        data = read_file(self.practice_file, f"There is no passphrase in {self.practice_file}: put the file back.")
        with suppress(OnboardingError):
            return checked(Secret(data.decode(errors="replace").strip()))  # an editor may have added a line break
        raise fault("BAD_PASSPHRASE.practice", path=self.practice_file)


def checked(passphrase: Secret) -> Secret:
    """Return ``passphrase``. Raises: OnboardingError: if openssl or keytool would refuse it."""
    encode_passphrase(passphrase)
    if len(passphrase.reveal()) < SHORTEST_PASSWORD:
        raise fault("BAD_PASSPHRASE.typed", shortest=SHORTEST_PASSWORD)
    return passphrase
