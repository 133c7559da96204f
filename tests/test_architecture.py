"""Who may import whom (docs/architecture.md), and how large the packages may grow."""

import ast
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT

PACKAGES = ("mciot_nb", "mciot_platform")
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}
#: What the modules of each room may import of ours; a module belongs to the longest name that it begins with.
ROOMS = {
    "mciot_nb.errors": (),
    "mciot_nb.secret": (),
    "mciot_nb.pki": ("mciot_nb.errors", "mciot_nb.secret", "mciot_nb.pki"),
    "mciot_nb.connect": ("mciot_nb.errors", "mciot_nb.secret", "mciot_nb.pki", "mciot_nb.connect"),
    "mciot_nb.local_platform": ("mciot_nb.errors", "mciot_nb.secret", "mciot_nb.pki", "mciot_nb.connect"),
    "mciot_nb.archive": ("mciot_nb.errors", "mciot_nb.secret", "mciot_nb.pki"),
    "mciot_nb.passphrase": ("mciot_nb.errors", "mciot_nb.secret", "mciot_nb.pki"),
    "mciot_nb.steps": (
        "mciot_nb.errors",
        "mciot_nb.secret",
        "mciot_nb.pki",
        "mciot_nb.local_platform",
        "mciot_nb.workspace",
    ),
    "mciot_nb.workspace": (
        *("mciot_nb.errors", "mciot_nb.secret", "mciot_nb.pki", "mciot_nb.connect", "mciot_nb.local_platform"),
        *("mciot_nb.archive", "mciot_nb.passphrase", "mciot_nb.steps"),
    ),
    "mciot_nb.failures": (
        *("mciot_nb.errors", "mciot_nb.secret", "mciot_nb.pki", "mciot_nb.connect", "mciot_nb.local_platform"),
        "mciot_nb.workspace",
    ),
    "mciot_nb.expiry": ("mciot_nb.errors", "mciot_nb.pki", "mciot_nb.connect"),
    "mciot_nb.fleet": (
        *("mciot_nb.errors", "mciot_nb.secret", "mciot_nb.pki", "mciot_nb.archive", "mciot_nb.local_platform"),
    ),
    "mciot_nb.check": ("mciot_nb.errors", "mciot_nb.pki", "mciot_nb.local_platform", "mciot_nb.workspace"),
    "mciot_nb.practice": (
        *("mciot_nb.errors", "mciot_nb.pki", "mciot_nb.workspace", "mciot_nb.ui.markup", "mciot_nb.fleet"),
    ),
    "mciot_nb.ui": ("mciot_nb",),
    "mciot_nb.__main__": (
        *("mciot_nb.errors", "mciot_nb.secret", "mciot_nb.pki", "mciot_nb.connect", "mciot_nb.fleet"),
    ),
    "mciot_nb": ("mciot_nb.ui",),  # the displays, for %load_ext; all else is loaded by name
    "mciot_platform": (
        *("mciot_platform", "mciot_nb.errors", "mciot_nb.secret", "mciot_nb.pki", "mciot_nb.connect.smartrest"),
    ),
}
ONLY_IN_UI = ("ipywidgets", "anywidget", "IPython", "traitlets", "matplotlib")


def within(module: str, prefix: str) -> bool:
    return module == prefix or module.startswith(f"{prefix}.")


def room_of(module: str) -> str:
    return max((room for room in ROOMS if within(module, room)), key=len)


def imported(module: str, *, when_loaded: bool = False) -> set[str]:
    """Return the modules, ours and others, that a module imports; ``when_loaded``: not those inside functions."""
    tree = ast.parse(FILES[module].read_text(encoding="utf-8"))
    # What stands under TYPE_CHECKING or in a function is not loaded with the module.
    nodes: list[ast.AST] = list(tree.body) if when_loaded else list(ast.walk(tree))
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{module}: imports are absolute"
            for name in node.names:
                whole = f"{node.module}.{name.name}"
                found.add(whole if whole in FILES else node.module)
    return found


def test_every_room_imports_only_what_it_may() -> None:
    for module in FILES:
        for other in imported(module):
            if within(other, "mciot_nb") or within(other, "mciot_platform"):
                allowed = ROOMS[room_of(module)]
                assert any(within(other, room) for room in allowed) or other == module, f"{module} imports {other}"


def test_only_the_displays_and_forms_know_of_notebooks() -> None:
    for module in FILES:
        if not within(module, "mciot_nb.ui"):
            known = {other.split(".")[0] for other in imported(module, when_loaded=True)}
            assert not known & set(ONLY_IN_UI), module


def order(graph: dict[str, set[str]]) -> list[str]:
    return list(TopologicalSorter(graph).static_order())


def test_no_module_imports_itself_through_others() -> None:
    order({module: imported(module, when_loaded=True) & set(FILES) - {module} for module in FILES})
    with pytest.raises(CycleError):  # the control
        order({"a": {"b"}, "b": {"a"}})


def test_no_module_name_stands_twice() -> None:
    names = Counter(name.rsplit(".", 1)[-1] for name, path in FILES.items() if not path.stem.startswith("__"))
    assert [name for name, count in names.items() if count > 1] == []


def test_no_class_name_stands_twice() -> None:
    names: Counter[str] = Counter()
    for path in FILES.values():
        names.update(n.name for n in ast.parse(path.read_text("utf-8")).body if isinstance(n, ast.ClassDef))
    assert [name for name, count in names.items() if count > 1] == []


def lines(paths: list[Path]) -> int:
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths)


#: What is there today; an issue says by how much it may grow, and each change leaves it no larger than its worth.
@pytest.mark.parametrize(
    ("folder", "suffixes", "at_most", "files"),
    [
        ("mciot_nb", (".py",), 12_993, 65),
        ("mciot_nb", (".js", ".css"), 500, 48),
        ("mciot_platform", (".py",), 3500, 20),
        ("tests", (".py", ".java"), 30_700, 120),
    ],
)
def test_size_is_a_promise(folder: str, suffixes: tuple[str, ...], at_most: int, files: int) -> None:
    found = [path for path in (ROOT / folder).rglob("*") if path.suffix in suffixes]
    assert lines(found) <= at_most and len(found) <= files, f"{lines(found)} lines in {len(found)} files"


def test_no_function_is_longer_than_a_page() -> None:
    for module, path in FILES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno:
                assert node.end_lineno - node.lineno < 45, f"{module}.{node.name}"


def test_no_docstring_begins_with_give() -> None:
    for module, path in FILES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                assert not (ast.get_docstring(node) or "").startswith("Give"), f"{module}: {ast.get_docstring(node)}"


def test_notebooks_import_from_the_one_door() -> None:
    for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            assert "from mciot_nb." not in cell.source and "import mciot_nb." not in cell.source, path.name
