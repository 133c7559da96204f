"""Who may import whom, as docs/architecture.md says; no circle, no module name twice, and how long things may be."""

import ast
from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path

from conftest import ROOT

BASE = ("mciot_nb.errors", "mciot_nb.secret")
PKI = (*BASE, "mciot_nb.pki")
CONNECT = (*PKI, "mciot_nb.connect")
#: By the beginning of a module's name: the beginnings of what it may import of ours. The first that fits counts.
RULES = {
    "mciot_nb.errors": (),
    "mciot_nb.secret": (),
    "mciot_nb.pki": PKI,
    "mciot_nb.connect": CONNECT,
    "mciot_nb.local_platform": CONNECT,
    "mciot_nb.workspace": (*CONNECT, "mciot_nb.local_platform", "mciot_nb.passphrase"),
    "mciot_nb": ("mciot_nb",),
    "mciot_platform": ("mciot_platform", *PKI, "mciot_nb.connect.smartrest"),
}
WIDGETS = ("ipywidgets", "anywidget", "IPython")


def modules() -> dict[str, Path]:
    paths = [path for name in ("mciot_nb", "mciot_platform") for path in (ROOT / name).rglob("*.py")]
    return {".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p for p in paths}


def imports(path: Path, known: set[str]) -> set[str]:
    """Return what a module imports when it runs, inside functions too; what only types need is left out."""
    found: set[str] = set()
    todo: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            full = {f"{node.module}.{alias.name}" for alias in node.names} & known
            found |= full or {node.module}
        todo += ast.iter_child_nodes(node)
    return found


def below(name: str, starts: tuple[str, ...]) -> bool:
    return any(name == start or name.startswith(f"{start}.") for start in starts)


def test_every_import_keeps_the_rules() -> None:
    known = modules()
    for name, path in known.items():
        allowed = next(allowed for start, allowed in RULES.items() if below(name, (start,)))
        for imported in imports(path, set(known)):
            assert below(imported, allowed) or not below(imported, ("mciot_nb", "mciot_platform")), (name, imported)
            assert below(name, ("mciot_nb.ui",)) or not below(imported, WIDGETS), (name, imported)
    assert not below("mciot_nb.ui.forms", RULES["mciot_nb.pki"]), "the control"


def test_there_is_no_circle_and_no_name_twice() -> None:
    known = modules()
    graph = {name: imports(path, set(known)) & known.keys() for name, path in known.items()}
    assert len(list(TopologicalSorter(graph).static_order())) == len(known)  # raises CycleError
    names = Counter(name.rpartition(".")[2] for name in known if not name.endswith(("mciot_nb", "__main__")))
    assert [name for name, times in names.items() if times > 1] == []


def test_size_is_a_promise() -> None:
    texts = {name: path.read_text(encoding="utf-8") for name, path in modules().items()}
    functions = {
        f"{name}.{node.name}": node.end_lineno - node.lineno + 1
        for name, text in texts.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno
    }
    assert {name: lines for name, lines in functions.items() if lines > 45} == {}
    assert sum(text.count("\n") for text in texts.values()) <= 15_000
