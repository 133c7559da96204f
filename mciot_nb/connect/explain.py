"""What an error or a client's log means: each cause that it can have, the most frequent first.

What clients say was measured: ``data/client_words.csv``. ``data/answers.csv`` has the words by which one kind of refusal
is known from another, and says of each cause how it is told from the others.
"""

import re
from collections import defaultdict
from functools import cache

from mciot_nb.errors import Diagnosis, Finding, OnboardingError, code_texts, finding
from mciot_nb.pki.files import data_table, meanings

#: Between the lines of one attempt in the table.
BETWEEN = " / "
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_OUR_CODE = re.compile(r"\(([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)*)\)\s*$", re.MULTILINE)
#: How many exceptions are looked at, from the one that was raised to the one that was first.
_MOST_EXCEPTIONS = 20


def explain(error: object) -> Diagnosis:
    """Return what an exception, or text from a client's log, can mean: a finding for each cause, the likeliest first.

    The exception may be of paho, ssl, requests, cryptography, socket or this tutorial; the text may be a line or a
    whole log. The findings say how one cause is told from another, and repeat nothing of a text, so that no password in
    it is shown again. What is not known is said to be so.

    Example: ``explain("Connection Refused: not authorised.")``
    """
    text = _text_of(error)
    ours = [error.code] if isinstance(error, OnboardingError) else _OUR_CODE.findall(text)
    code = next((one for one in reversed(ours) if code_texts(one)), "")
    kind = _kind(code or text)
    codes = _codes()[code or kind] or {code} - {""}
    if not codes:
        return Diagnosis((finding("UNKNOWN_MESSAGE"),))
    causes = meanings("cause")
    own = {code: str(error)} if isinstance(error, OnboardingError) else {}
    said = {one: own.get(one) or causes.get(f"{one}.{kind}") or causes.get(one) or code_texts(one)["why"] for one in codes}
    return Diagnosis(tuple(Finding(one, said[one]) for one in sorted(codes, key=[*causes, *sorted(codes)].index)))


def _text_of(error: object) -> str:
    """Return what there is to read, of an exception with those that it came from."""
    if isinstance(error, bytes):
        return error.decode("utf-8", "replace")
    parts, seen = list[str](), list[object]()
    while error is not None and len(seen) < _MOST_EXCEPTIONS and not any(error is one for one in seen):
        seen.append(error)
        try:
            parts.append(f"{type(error).__name__}: {error}" if isinstance(error, BaseException) else str(error))
        except Exception:  # somebody else's __str__ may do anything
            parts.append(type(error).__name__)
        error = getattr(error, "__cause__", None) or getattr(error, "__context__", None)
    return "\n".join(parts)


def _kind(text: str) -> str:
    """Return the kind of refusal that a text tells of, empty where it has none of the words that tell one."""
    plain = " ".join(_COLOUR.sub("", text).replace("_", " ").lower().split())
    for words, kind in meanings("words").items():
        if words in plain and re.search(rf"(?<![a-z0-9]){re.escape(words)}(?![a-z0-9])", plain):
            return kind
    return ""


@cache
def _codes() -> dict[str, set[str]]:
    """Return the codes that were measured, by the kind of refusal that clients told, and by our own code."""
    found = defaultdict[str, set[str]](set)
    said = {(row["code"], row["client"], line) for row in data_table("client_words.csv") for line in row["words"].split(BETWEEN)}
    for code, client, line in said:
        found[line if client == "mciot_nb" else _kind(line)].add(code)
    found.pop("", None)
    return found
