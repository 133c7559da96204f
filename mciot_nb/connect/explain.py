"""What an error or a client's log means: each cause that it can have, the most frequent first.

What clients say was measured: ``data/client_words.csv``. ``data/answers.csv`` has the words that tell one kind of
refusal from another, and says of each cause how it is told from the others.
"""

import re
from collections import defaultdict
from contextlib import suppress
from functools import cache
from itertools import islice

from mciot_nb.errors import POSSIBLE, Diagnosis, Finding, OnboardingError, finding
from mciot_nb.pki.files import data_table, meanings

#: The words that tell a kind of refusal, the plainest first; and the causes, the most frequent first.
_WORDS, _CAUSES = meanings("words"), meanings("cause")
#: Between the lines of one attempt in the table.
BETWEEN = " / "
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_OUR_CODE = re.compile(r"\(([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)*)\) *$", re.MULTILINE)
_MOST_EXCEPTIONS = 20  # to be looked at: each may come from another one


def explain(error: object) -> Diagnosis:
    """Return what an exception, or a client's log, can mean: a finding for each cause, the most frequent first.

    The exception may be of any library, or of this tutorial; the text may be a line or a whole log. The findings say
    how one cause is told from another, and repeat nothing of a text, where a password may be.

    Example: ``explain("Connection Refused: not authorised.")``
    """
    text = _text_of(error)
    told = (one for one in _OUR_CODE.findall(text)[::-1] if one in _codes() or Finding(one, "").why)
    code = error.code if isinstance(error, OnboardingError) else next(told, "")
    kind = kind_of(code or text)
    codes = _codes().get(code or kind) or {code}
    keys = {one: key if (key := f"{one}.{kind}") in _CAUSES else one for one in codes}
    order = sorted(codes, key=lambda one: ([*_CAUSES, keys[one]].index(keys[one]), one))
    if isinstance(error, OnboardingError) and codes == {code} and code:
        return Diagnosis((Finding(code, str(error)),))
    causes = (Finding(one, _CAUSES.get(keys[one]) or Finding(one, "").why, POSSIBLE) for one in order)
    return Diagnosis(tuple(causes) if any(codes) else (finding("UNKNOWN_MESSAGE"),))


def _text_of(error: object) -> str:
    """Return what there is to read, of an exception with those that it came from or holds."""
    left, seen = [error], list[str]()
    for one in islice(left, _MOST_EXCEPTIONS):  # the list grows meanwhile
        with suppress(Exception):  # somebody else's __str__ may do anything
            seen.append(one.decode("utf-8", "replace") if isinstance(one, bytes) else f"{type(one).__name__}: {one}")
        if isinstance(one, BaseException):
            left += filter(None, (one.__cause__, one.__context__))
            left += one.exceptions if isinstance(one, BaseExceptionGroup) else ()
    return "\n".join(seen)


def kind_of(text: str) -> str:
    """Return the kind of refusal that a text tells of, empty where it has none of the words that tell one."""
    plain = " ".join(_COLOUR.sub("", text).replace("_", " ").lower().split())
    for words, kind in _WORDS.items():
        if words in plain and re.search(rf"(?<![a-z0-9]){re.escape(words)}(?![a-z0-9])", plain):
            return kind
    return ""


@cache
def _codes() -> dict[str, set[str]]:
    """Return the codes that were measured, by the kind of refusal that clients told, and by our own code."""
    found = defaultdict[str, set[str]](set)
    for row in data_table("client_words.csv"):
        for line in row["words"].split(BETWEEN):
            found[line if row["client"] == "mciot_nb" else kind_of(line)].add(row["code"])
    found.pop("", None)
    return found
