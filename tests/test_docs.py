"""The documents: errors.md is made from the code, every link leads somewhere, and every name in them exists."""

import ast
import re
from pathlib import Path

import pytest
from conftest import ROOT

from tools.error_pages import PAGE, coded_errors, page

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def test_the_page_of_errors_is_up_to_date() -> None:
    entries = coded_errors()
    assert PAGE.read_text(encoding="utf-8") == page(entries), "run python -m tools.error_pages"
    assert page(entries[:-1]) != page(entries)  # the control


def test_each_way_of_writing_a_coded_error_is_found(tmp_path: Path) -> None:
    for name in ("mciot_nb", "mciot_platform"):
        (tmp_path / name).mkdir()
    (tmp_path / "mciot_nb" / "one.py").write_text("""
LATE = "It is {when}: hurry."
def f(path, bad):
    raise OnboardingError(f"{path.name} is gone" + ": look.", "GONE")
def g(path, key):
    word = "RED" if key else "BLUE"
    return Finding(word, LATE.format(when=1))
class C:
    def fail(self, sentence, code):
        raise ConnectionRejected(code, sentence)
    def h(self):
        self.fail("No.", "REFUSED")
        raise OnboardingError("Without a code.")
""")
    assert [tuple(entry) for entry in coded_errors(tmp_path)] == [
        ("BLUE", "It is {when}: hurry.", "mciot_nb.one.g"),
        ("GONE", "{path} is gone: look.", "mciot_nb.one.f"),
        ("RED", "It is {when}: hurry.", "mciot_nb.one.g"),
        ("REFUSED", "No.", "mciot_nb.one.C.h"),
    ]


@pytest.mark.parametrize("path", PAGES, ids=[path.name for path in PAGES])
def test_every_link_of_a_document_leads_to_a_file(path: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text(encoding="utf-8"))
    assert [target for target in targets if not (path.parent / target).exists()] == []


def names_in_the_code() -> set[str]:
    """Return every name of a module, class, function, argument or attribute in the repository's Python."""
    names: set[str] = set()
    for path in ROOT.rglob("*.py"):
        names |= {path.stem, *path.relative_to(ROOT).parts}
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names |= {getattr(node, field, "") for field in ("name", "id", "attr", "arg")} - {None}
    return names


def test_every_function_that_the_architecture_names_exists() -> None:
    known = names_in_the_code()
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = {name for code in re.findall(r"`([\w.]+)(?:\([^`]*\))?`", text) for name in code.split(".")}
    files = {path.name.rpartition(".")[0] for path in (ROOT / "mciot_nb").rglob("*.*")}
    unknown = {name for name in named if name not in known and name not in files and not name.startswith(("ca", "dev"))}
    assert len(named) > 60 and unknown - {"pem", "json", "js", "css", "md", "py", "db"} == set()
