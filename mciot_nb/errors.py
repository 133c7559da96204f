"""What can be wrong: the one error that users meet, and the findings of a check that does not stop at the first.

`OnboardingError` is the only error that public functions raise on purpose. A check returns a `Diagnosis`: a verdict
with a `Finding` for each thing that is wrong. Codes and sentences of both are of one kind.
"""

import re
from dataclasses import dataclass

_LINE_BREAKS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class OnboardingError(Exception):
    """Something that we can name went wrong: one sentence says what, where, and what to do next.

    ``code`` is a stable word for programs (``WRONG_PASSPHRASE``, ``CLIENT_ID_MISMATCH`` …), empty where none branches
    on it.

    Example: ``except OnboardingError as error: display(error)``.
    """

    def __init__(self, sentence: str, code: str = "") -> None:
        super().__init__(_LINE_BREAKS.sub("\N{REPLACEMENT CHARACTER}", sentence))  # a file may hold anything
        self.code = code

    def _render_traceback_(self) -> list[str]:
        """Show the sentence alone in a notebook: a traceback through our code would teach nothing."""
        return [str(self)]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: a stable code, and a sentence that says what, where, and what to do."""

    code: str
    sentence: str


@dataclass(frozen=True)
class Diagnosis:
    """A verdict with its reasons. The first finding is the one on which a platform would refuse."""

    findings: tuple[Finding, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    @property
    def code(self) -> str:
        """The first finding's code, or ``OK``."""
        return "OK" if self.ok else self.findings[0].code

    def __str__(self) -> str:
        found = "\n".join(f"{finding.code}: {finding.sentence}" for finding in self.findings)
        return found or "OK: nothing wrong was found."
