"""What can be wrong: the one error that users meet, and the findings of a check that does not stop at the first.

`OnboardingError` is the only error that public functions raise on purpose. A check returns a `Diagnosis`: a verdict
with a `Finding` for each thing that is wrong. Codes and sentences of both are of one kind.
"""

import re
import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cryptography import x509

_DATA = Path(__file__).parents[1] / "data"
#: The longer sentences: by their code, and behind a dot a word where one code has several.
SENTENCES: dict[str, str] = tomllib.loads((_DATA / "sentences.toml").read_text("utf-8"))
LINE_BREAKS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class OnboardingError(Exception):
    """Something that we can name went wrong: one sentence says what, where, and what to do next.

    ``code`` is a stable word for programs (``WRONG_PASSPHRASE``, ``CLIENT_ID_MISMATCH`` …), empty where none branches
    on it.

    Example: ``except OnboardingError as error: display(error)``.
    """

    def __init__(self, sentence: str, code: str = "") -> None:
        super().__init__(LINE_BREAKS.sub("\N{REPLACEMENT CHARACTER}", sentence))  # a file may hold anything
        self.code = code

    def _render_traceback_(self) -> list[str]:
        """Show the sentence and the code in a notebook: a traceback through our code would teach nothing."""
        return [self.with_code]

    @property
    def with_code(self) -> str:
        """The sentence, with the code to look up in docs/troubleshooting.md."""
        return f"{self} ({self.code})" if self.code else str(self)


def fault(key: str, /, **values: object) -> OnboardingError:
    """Return the error whose sentence is in `SENTENCES`, with these values in it."""
    return OnboardingError(SENTENCES[key].format(**values), key.partition(".")[0])


#: How bad a finding is: refused here; what may have been refused; accepted here, and refused by stricter verifiers or
#: those of another make; or a warning.
REFUSED, POSSIBLE, STRICT, WARNING = "refused", "possible", "strict", "warning"


@lru_cache
def _codes() -> dict[str, Any]:
    return tomllib.loads((_DATA / "codes.toml").read_text("utf-8"))


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: a stable code, a sentence that says what, where, and what to do, and how bad it is.

    ``certificate`` is the one that it is about, if any; ``files`` are what `command` names, else the guide's.
    """

    code: str
    sentence: str
    severity: str = REFUSED
    certificate: "x509.Certificate | None" = None
    files: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def _text(self, what: str) -> str:
        return str(next((group[self.code].get(what, "") for group in _codes().values() if self.code in group), ""))

    @property
    def why(self) -> str:
        """Why this is said, as docs/troubleshooting.md has it."""
        return self._text("why")

    @property
    def fix(self) -> str:
        """What to do about it in the tutorial."""
        return self._text("fix")

    @property
    def command(self) -> str:
        """The openssl or keytool command that shows the same; empty where none does."""
        command, named = self._text("command"), {**_codes()["files"], **self.files}
        if "keystore" in self.files and ("{chain}" in command or "{key}" in command):
            command = named["in_keystore"]
        return command.format_map({name: shlex.quote(str(file)) for name, file in named.items()})


def finding(key: str, severity: str = REFUSED, about: "x509.Certificate | None" = None, /, **values: object) -> Finding:
    """Return the finding, ``about`` a certificate, whose sentence is in `SENTENCES`, with these values in it."""
    return Finding(key.partition(".")[0], SENTENCES[key].format(**values), severity, about)


@dataclass(frozen=True)
class Diagnosis:
    """A verdict with its reasons. The first finding that is `REFUSED` is the one on which a platform would refuse."""

    findings: tuple[Finding, ...] = ()

    @property
    def refusals(self) -> tuple[Finding, ...]:
        """The findings but for warnings, and for those that stricter verifiers alone mind."""
        return tuple(one for one in self.findings if one.severity in (REFUSED, POSSIBLE))

    @property
    def ok(self) -> bool:
        """Whether nothing was found on which it would be refused here."""
        return not self.refusals

    @property
    def code(self) -> str:
        """The code of the first finding on which it would be refused, or ``OK``."""
        return "OK" if self.ok else self.refusals[0].code

    def __str__(self) -> str:
        found = [f"{one.code}: {one.sentence}" for one in self.findings]
        return "\n".join([self.verdict, *found] if self.ok else found)

    @property
    def verdict(self) -> str:
        """The verdict in words."""
        number = len(self.refusals)
        if any(one.severity == POSSIBLE for one in self.findings):
            return f"{number} possible causes, the most frequent first." if number > 1 else "This is what it means."
        if number:
            return f"Not OK: {number} finding{'s' if number > 1 else ''}."
        if any(one.severity == STRICT for one in self.findings):
            return "OK here, but not everywhere."
        return "OK for now, but look at this." if self.findings else "OK: nothing wrong was found."
