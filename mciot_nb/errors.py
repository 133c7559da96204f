"""The one exception that this package raises on purpose: a plain sentence for the person in front of it."""

import re

_LINE_BREAKS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class OnboardingError(Exception):
    """Something that we can name went wrong: one sentence says what, where, and what to do next.

    ``code`` is a stable word for programs (``WRONG_PASSPHRASE``, ``CLIENT_ID_MISMATCH`` …), empty where nobody branches
    on it.
    """

    def __init__(self, sentence: str, code: str = "") -> None:
        super().__init__(_LINE_BREAKS.sub("\N{REPLACEMENT CHARACTER}", sentence))  # a file may hold anything
        self.code = code

    def _render_traceback_(self) -> list[str]:
        """Show the sentence alone in a notebook: a traceback through our code would teach nothing."""
        return [str(self)]
