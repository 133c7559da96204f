"""Write docs/errors.md from the code, by ``python -m tools.error_pages``: each coded error with its sentence.

docs/troubleshooting.md, which says why and what to do, and docs/client_words.md, what other clients say, are written
with it: see trouble_page and words_page.

The code is read and not imported. A value that is put into a sentence is shown by its name in the code: {path}. Where a
function only passes on the sentence or the code that it was given, its callers are listed in its place.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

from mciot_nb.errors import SENTENCES
from mciot_nb.pki.files import data_table

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "errors.md"
PACKAGES = ("mciot_nb", "mciot_platform")
#: The position of the code and of the sentence in a call; ``log`` is the platform's of connections.
CALLS = {"OnboardingError": (1, 0), "Finding": (0, 1), "ConnectionRejected": (0, 1), "log": (1, 2)}
BY_KEY = ("fault", "finding")  # calls that take their sentence from the table
INTRODUCTION = """# Coded errors

*Made by `python -m tools.error_pages` from the code; do not edit it by hand.*

Each is an `OnboardingError` with this `.code`, a `Finding` of a `Diagnosis` or of a CA's check, or the reason in the
local platform's log. The code is stable and meant for programs; the sentence is for people. `{words in braces}` stand
for values. Errors without a code, which no program needs to tell apart, are not listed.
[Troubleshooting](troubleshooting.md) says why each of them is said, and how to fix it.
"""
MOST_VARIANTS = 4  # of one sentence; more would be all combinations of several choices


class Entry(NamedTuple):
    """One place in the code that makes a coded error."""

    code: str
    sentence: str
    place: str


class Scope(NamedTuple):
    """A function with the modules' constants: where a name in it gets its value."""

    place: str
    function: ast.FunctionDef | ast.AsyncFunctionDef | None
    names: dict[str, list[ast.expr]]


def coded_errors(root: Path = ROOT) -> list[Entry]:
    """Return every coded error in the packages below ``root``, sorted by its code."""
    trees = {
        path: ast.parse(path.read_text(encoding="utf-8")) for name in PACKAGES for path in (root / name).rglob("*.py")
    }
    constants: dict[str, list[ast.expr]] = defaultdict(list)
    calls: list[tuple[Scope, ast.Call]] = []
    entries: set[Entry] = set()
    for tree in trees.values():
        _collect_values(tree.body, constants)
    for path, tree in trees.items():
        module = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        calls += _calls(tree, Scope(module, None, constants))
    for row in data_table("openssl_errors.csv") if root == ROOT else ():
        what = re.sub(":%[^}]*", "", row["what"])
        said = f"The certificate of {{subject}} {what}: {row['advice']}."
        entries.add(Entry(row["code"], said, "mciot_nb.pki.verdicts"))
    refusals = data_table("refusals.csv") if root == ROOT else ()
    entries |= {Entry(row["code"], row["sentence"], "mciot_nb.pki.admission") for row in refusals}
    for scope, call in calls:
        if (kind := _name(call.func)) in CALLS:
            named = next((keyword.value for keyword in call.keywords if keyword.arg == "code"), None)
            code, sentence = ((*call.args, named, named, named)[position] for position in CALLS[kind])
            if sentence:  # else it is in a table
                entries.update(_entries(scope, code, sentence, calls))
        for key in _texts(call.args[0], scope) if kind in BY_KEY else ():
            entries.update(Entry(key.partition(".")[0], text, scope.place) for text in _said(key, scope))
    return sorted(entry for entry in entries if entry.sentence)


def _entries(scope: Scope, code: ast.expr | None, sentence: ast.expr | None, calls: list) -> Iterator[Entry]:  # type: ignore[type-arg]
    parameters = [argument.arg for argument in scope.function.args.args] if scope.function else []
    passed = [one.id for one in (code, sentence) if isinstance(one, ast.Name) and one.id in parameters]
    if passed and scope.function:
        for outer, call in calls:  # look at the callers for what this function was given
            if _name(call.func) == scope.function.name:
                given = dict(zip(parameters[parameters[:1] == ["self"] :], call.args, strict=False))
                given |= {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
                own = [given.get(one.id, one) if isinstance(one, ast.Name) else one for one in (code, sentence)]
                if not any(isinstance(one, ast.Name) and one.id in passed for one in own):
                    yield from _entries(outer, own[0], own[1], calls)
        return
    for word in _texts(code, scope) if code else []:
        if re.fullmatch(r"[A-Z][A-Z0-9_]+(\{.*\})?", word):
            for text in _texts(sentence, scope) or ["{sentence}"]:
                yield Entry(word, text, scope.place)


def _calls(node: ast.AST, scope: Scope) -> Iterator[tuple[Scope, ast.Call]]:
    for child in ast.iter_child_nodes(node):
        inner = scope
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inner = Scope(f"{scope.place}.{child.name}", None, scope.names)
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            local = {name: list(values) for name, values in scope.names.items()}
            own: dict[str, list[ast.expr]] = defaultdict(list)
            _collect_values(child.body, own)
            inner = inner._replace(function=child, names=local | own)
        if isinstance(child, ast.Call):
            held = _held_at(child, scope.function.body, {}) if scope.function else {}
            yield scope._replace(names={**scope.names, **held}), child
        yield from _calls(child, inner)


def _held_at(call: ast.Call, body: list[ast.stmt], held: dict[str, list[ast.expr]]) -> dict[str, list[ast.expr]]:
    """Return what the names that a function assigns may hold where it is called."""
    for statement in body:
        if statement.lineno <= call.lineno <= (statement.end_lineno or 0):
            for block in _blocks(statement):
                if block[0].lineno <= call.lineno <= (block[-1].end_lineno or 0):
                    return _held_at(call, block, held)
            return held
        held = _held_after(statement, held)
    return held


def _held_after(statement: ast.stmt, held: dict[str, list[ast.expr]]) -> dict[str, list[ast.expr]]:
    match statement:
        case ast.Assign(targets=[target], value=value):
            return {**held, **_assigned(target, value)}
        case ast.AugAssign(target=ast.Name(id=name), value=value):
            return {**held, name: [ast.BinOp(known, ast.Add(), value) for known in held.get(name, [])]}
    ways = [] if isinstance(statement, ast.If) and statement.orelse else [held]
    for block in _blocks(statement):
        after = held
        for inner in block:
            after = _held_after(inner, after)
        if not isinstance(block[-1], ast.Return | ast.Raise | ast.Continue | ast.Break):  # what follows is not reached
            ways.append(after)
    found: dict[str, list[ast.expr]] = {}
    for name, value in ((name, value) for way in ways for name, values in way.items() for value in values):
        if value not in found.setdefault(name, []):
            found[name].append(value)
    return found


def _assigned(target: ast.expr, value: ast.expr) -> dict[str, list[ast.expr]]:
    """Return the names of an assignment with what each may hold; nothing known where a value is taken apart."""
    match target, value:
        case ast.Name(id=name), _:
            return {name: [value]}
        case ast.Tuple(elts=targets), ast.Tuple(elts=values) if len(targets) == len(values):
            pairs = zip(targets, values, strict=True)
            return {name: held for one, its in pairs for name, held in _assigned(one, its).items()}
        case ast.Tuple(elts=targets), _:
            return {one.id: [] for one in targets if isinstance(one, ast.Name)}
    return {}


def _blocks(statement: ast.stmt) -> list[list[ast.stmt]]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return []
    handlers = [handler.body for handler in getattr(statement, "handlers", [])]
    cases = [case.body for case in getattr(statement, "cases", [])]
    own = [getattr(statement, name, []) for name in ("body", "orelse", "finalbody")]
    return [block for block in [*own, *handlers, *cases] if block]


def _collect_values(body: list[ast.stmt], names: dict[str, list[ast.expr]]) -> None:
    for statement in body:
        for node in ast.walk(statement):
            if isinstance(node, ast.Assign):
                for name, values in _assigned(node.targets[0], node.value).items():
                    names[name] += values
            elif isinstance(node, ast.AnnAssign | ast.NamedExpr) and isinstance(node.target, ast.Name) and node.value:
                names[node.target.id].append(node.value)
            elif isinstance(node, ast.For):  # not known, whatever has the same name elsewhere
                for target in (one for one in ast.walk(node.target) if isinstance(one, ast.Name)):
                    names[target.id] += []
            elif isinstance(node, ast.FunctionDef):  # a call stands for what the function returns
                names[node.name] += [one.value for one in ast.walk(node) if isinstance(one, ast.Return) and one.value]


def _texts(node: ast.expr | None, scope: Scope) -> list[str]:
    """Return the texts that an expression may be."""
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=parts):
            pieces = [_texts(p, scope) if isinstance(p, ast.Constant) else [_placeholder(p)] for p in parts]
            return ["".join(piece) for piece in product(*pieces)]
        case ast.IfExp(body=one, orelse=other):
            return [*_texts(one, scope), *_texts(other, scope)]
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return ["".join(pair) for pair in product(_texts(left, scope) or ["{…}"], _texts(right, scope) or ["{…}"])]
        case ast.Name(id=name):
            values = [value for value in scope.names.get(name, []) if not isinstance(value, ast.Name)]
            within = scope._replace(names={**scope.names, name: []})  # x = y if x is None else x
            return [text for value in values for text in _texts(value, within)][:MOST_VARIANTS]
        case ast.Call(func=ast.Attribute(value=template, attr="format")):
            return _texts(template, scope)
        case ast.Call(func=ast.Name(id="str"), args=[ast.Call(func=ast.Name(id=name), args=[ast.Constant(value=key)])]):
            return _said(str(key), scope) if name in BY_KEY else []
        case ast.Call(func=ast.Name() as function):
            return _texts(function, scope)
    return []


def _said(key: str, scope: Scope) -> list[str]:
    """Return a sentence of the table, which is written as an f-string is."""
    return _texts(ast.parse(f"f{SENTENCES[key]!r}", mode="eval").body, scope)


def _placeholder(node: ast.expr) -> str:
    """Return the readable name of a value in a sentence."""
    match node:
        case (
            ast.FormattedValue(value=inner)
            | ast.Subscript(value=inner)
            | ast.Await(value=inner)
            | ast.Call(func=ast.Attribute(value=ast.Constant()), args=[inner, *_])  # ", ".join(names)
            | ast.Call(func=ast.Attribute(value=inner, attr="hex" | "strip" | "decode" | "upper" | "lower"))
            | ast.Call(args=[inner, *_])
            | ast.Call(func=inner)
            | ast.Attribute(value=inner, attr="name" | "value" | "id" | "strerror")
        ):
            return _placeholder(inner)
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return f"{{{name.strip('_').lower().replace('_', ' ')}}}"
        case ast.IfExp(body=ast.Constant(value=str(text)), orelse=ast.Constant(value=str(other))) if text and other:
            return f"{{{text} / {other}}}"
    return "{…}"


def _name(function: ast.expr) -> str:
    return getattr(function, "id", getattr(function, "attr", ""))


def page(entries: list[Entry]) -> str:
    """Return the page: a heading for each code, and below it each sentence with the functions that make it."""
    by_code: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for entry in entries:
        by_code[entry.code][entry.sentence].append(entry.place)
    parts = [INTRODUCTION]
    for code, sentences in by_code.items():
        parts.append(f"## {code}\n")
        for text, places in sentences.items():
            shown = re.sub(r"([\\`*_<>|])", r"\\\1", text.replace("\n", " "))  # Markdown shows it as it is
            parts.append(f"- {shown}<br>{', '.join(f'`{place}`' for place in places)}")
        parts.append("")
    return "\n".join(parts)


if __name__ == "__main__":
    from tools import trouble_page, words_page  # which import this module

    found = coded_errors()
    PAGE.write_text(page(found), encoding="utf-8", newline="\n")
    trouble_page.write(found)
    words_page.write()
