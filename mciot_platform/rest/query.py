"""The query language of the inventory (parameters ``q`` and ``query``), as a test of one object and an order of all.

What is not known here is refused, so that no list is wrong: ``bygroupid``, ``isinhierarchyof``, ``ne``, ``null``.
"""

import operator
import re
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from mciot_platform.rest.handler import RestError, as_time, zulu
from mciot_platform.storage import timestamp

#: A text in quotes, where '' and a backslash escape what follows; a bracket or a comma; any other word.
TOKEN = re.compile(r"\s*('(?:[^'\\]|''|\\.)*'|[(),]|[^\s'(),]+)", re.DOTALL)
MOST_TOKENS = 300  # so that no nesting is too deep
PATH = re.compile(r"[A-Za-z_][\w-]*(\.[A-Za-z_][\w-]*)*", re.ASCII)
NUMBER = re.compile(r"(-?\d+(\.\d+)?([eE][+-]?\d+)?)[fFdDlL]?", re.ASCII)
OPERATORS = {"eq": operator.eq, "gt": operator.gt, "ge": operator.ge, "lt": operator.lt, "le": operator.le}
TIMES = {f"{name}{part}": name for name in ("creationTime", "lastUpdated") for part in ("", ".date")}
Test = Callable[[dict[str, Any]], bool]


def refused(what: str) -> RestError:
    """Return the answer to a query that can't be carried out."""
    sentence = f"The local platform can't use {what} in a query: it takes {', '.join(OPERATORS)}, and, or, not, has()."
    return RestError(422, "inventory/Invalid Data", sentence)


def parse(text: str) -> tuple[Test, list[tuple[Callable[[dict[str, Any]], Any], bool]]]:
    """Return the test of a statement, and its sort keys, each with whether it descends. Raises: RestError: 422."""
    condition, _, order = text.partition("$orderby=")
    condition = condition.strip("+ \t\r\n").removeprefix("$filter=")  # the vendor's clients set a + before $orderby
    tokens = deque(TOKEN.findall(condition))
    if len(tokens) > MOST_TOKENS or TOKEN.sub("", condition).strip():
        raise refused("a condition that is so long" if len(tokens) > MOST_TOKENS else repr(condition))
    test: Test = _joined(tokens, "or") if tokens else lambda _: True
    if tokens:
        raise refused(repr(tokens[0]))
    keys = [part.split() for part in order.split(",") if part.strip()]
    if not all(direction in ([], ["asc"], ["desc"]) for _, *direction in keys):
        raise refused(f"the order {order!r}")
    return test, [(partial(_rank, _property(name)), direction == ["desc"]) for name, *direction in keys]


def _rank(value: Callable[[Any], Any], one: dict[str, Any]) -> tuple[str, Any]:
    found = value(one)
    return (type(found).__name__, found) if isinstance(found, str | int | float) else ("", "")


def _take(tokens: deque[str], *wanted: str) -> str:
    if not tokens or (wanted and tokens[0].lower() not in wanted):
        raise refused(repr(tokens[0]) if tokens else "a condition that breaks off")
    return tokens.popleft()


def _joined(tokens: deque[str], word: str) -> Test:
    """Return the test of terms that ``or`` or ``and`` joins; ``and`` binds more closely."""
    term = _term if word == "and" else lambda rest: _joined(rest, "and")
    terms, which = [term(tokens)], any if word == "or" else all
    while tokens and tokens[0].lower() == word:
        tokens.popleft()
        terms.append(term(tokens))
    return lambda one: which(test(one) for test in terms)


def _term(tokens: deque[str]) -> Test:
    token = _take(tokens)
    if token == "(":
        inner = _joined(tokens, "or")
        _take(tokens, ")")
        return inner
    if token.lower() == "not":
        negated = _term(tokens)
        return lambda one: not negated(one)
    if tokens and tokens[0] == "(":
        if token != "has":
            raise refused(f"{token}()")
        tokens.popleft()
        value = _property(_take(tokens))
        _take(tokens, ")")
        return lambda one: value(one) is not None
    return _comparison(token, _take(tokens, *OPERATORS).lower(), _take(tokens))


def _property(name: str) -> Callable[[dict[str, Any]], Any]:
    if not PATH.fullmatch(name) or name == "text":  # which may mean the parameter of that name
        raise refused(repr(name))

    def value(one: Any) -> Any:
        for part in TIMES.get(name, "id" if name == "_id" else name).split("."):
            one = one.get(part) if isinstance(one, dict) else None
        return one

    return value


def _comparison(name: str, word: str, token: str) -> Test:
    value, wanted = _property(name), _literal(token)
    if name in TIMES:
        wanted = zulu(timestamp(as_time(token.strip("'"), name)))
    elif isinstance(wanted, float) and name in ("id", "_id", "name", "type", "owner"):
        wanted = token
    if isinstance(wanted, bool | re.Pattern) and word != "eq":
        raise refused(f"{word} {token}")
    kind = (int, float) if isinstance(wanted, float) else type(wanted)

    def test(one: dict[str, Any]) -> bool:
        found = value(one)
        if isinstance(wanted, re.Pattern):
            return isinstance(found, str) and wanted.fullmatch(found) is not None
        same = isinstance(found, kind) and isinstance(found, bool) == isinstance(wanted, bool)
        return same and bool(OPERATORS[word](found, wanted))

    return test


def _literal(token: str) -> bool | float | str | re.Pattern[str]:
    """Return what a value means; a text with * as a pattern."""
    if token in ("null", "(", ")", ","):
        raise refused(token)
    if not token.startswith("'") and (token in ("true", "false") or NUMBER.fullmatch(token)):
        return token == "true" if token in ("true", "false") else float(token.rstrip("fFdDlL"))
    text = token[1:-1].replace("''", "'") if token.startswith("'") else token
    parts = re.findall(r"\\.|.", text, re.DOTALL)
    if "*" in parts:  # with atomic groups, so that many of them cost no more than a few
        first, *inner, last = "".join("\n*" if part == "*" else re.escape(part[-1]) for part in parts).split("\n*")
        return re.compile(first + "".join(f"(?>.*?{part})" for part in inner) + ".*" + last, re.DOTALL)
    return "".join(part[-1] for part in parts)
