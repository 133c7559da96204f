"""The documents: errors.md is made from the code, every link leads somewhere, and every name in them exists."""

import ast
import json
import re
import string
from pathlib import Path

import pytest
from conftest import ROOT

from mciot_nb.errors import SENTENCES
from run import COMMANDS
from tools import platform_page
from tools.error_pages import BY_KEY, PACKAGES, PAGE, coded_errors, page

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def test_the_page_of_errors_is_up_to_date() -> None:
    entries = coded_errors()
    assert PAGE.read_text(encoding="utf-8") == page(entries), "run python -m tools.error_pages"
    assert page(entries[:-1]) != page(entries)  # the control


def test_the_page_of_calls_and_messages_is_up_to_date() -> None:
    written = platform_page.PAGE.read_text(encoding="utf-8")
    assert written == platform_page.page(), "run python -m tools.platform_page"
    tested = json.loads((ROOT / "tests" / "client_calls.json").read_text(encoding="utf-8"))
    assert set(tested) <= set(re.findall(r"`((?:GET|POST|PUT|DELETE) [^`]+)`", written))  # of calls that there are


def test_each_way_of_writing_a_coded_error_is_found(tmp_path: Path) -> None:
    for name in ("mciot_nb", "mciot_platform"):
        (tmp_path / name).mkdir()
    (tmp_path / "mciot_nb" / "one.py").write_text("""
LATE = "It is {when}: hurry."
def f(path, bad):
    raise OnboardingError(f"{path.name} is gone" + ": look.", "GONE")
def e(path):
    yield finding("CRL_EXPIRED", path=path, date=1)
    read_file(path, str(fault("BAD_NAME.twice", name=1, field=2)))
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
        ("BAD_NAME", "The name {name} has two values for {field}: keep one.", "mciot_nb.one.e"),
        ("BLUE", "It is {when}: hurry.", "mciot_nb.one.g"),
        ("CRL_EXPIRED", "{path} expired on {date}: call update_crl().", "mciot_nb.one.e"),
        ("GONE", "{path} is gone: look.", "mciot_nb.one.f"),
        ("RED", "It is {when}: hurry.", "mciot_nb.one.g"),
        ("REFUSED", "No.", "mciot_nb.one.C.h"),
    ]


def test_each_sentence_of_the_table_is_said_with_just_the_values_that_it_has() -> None:
    fields = {key: string.Formatter().parse(text) for key, text in SENTENCES.items()}
    values = {key: {re.split(r"[.\[]", name)[0] for _, name, *_ in parts if name} for key, parts in fields.items()}
    said: set[object] = set()
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") in BY_KEY:
                keys = [one.value for one in ast.walk(call.args[0]) if isinstance(one, ast.Constant)]
                given = {keyword.arg for keyword in call.keywords}
                assert keys and all(values[str(key)] == given for key in keys), ast.unparse(call)
                said |= set(keys)
    assert said == set(SENTENCES)


@pytest.mark.parametrize("path", PAGES, ids=[path.name for path in PAGES])
def test_every_link_of_a_document_leads_to_a_file(path: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text(encoding="utf-8"))
    assert [target for target in targets if not (path.parent / target).exists()] == []


def notebook_texts() -> dict[str, str]:
    """Return the Markdown of each notebook, by its file's name."""
    found = {}
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        found[path.name] = "\n\n".join("".join(one["source"]) for one in cells if one["cell_type"] == "markdown")
    return found


#: What is abbreviated or emphasised in the notebooks and is no term: products, units, signs, and stress.
NO_TERMS = {
    *(
        "ASCII",
        "CONNECTION",
        "ESTABLISHED",
        "ID",
        "IoT",
        "JupyterLab",
        "MQTTX",
        "MindConnect",
        "OneDrive",
        "PDF",
        "URL",
    ),
    *(
        "PowerShell",
        "PrivateKeyEntry",
        "UTF-16",
        "CA's",
        "device's",
        "PKCS12's",
        "asks",
        "before",
        "is",
        "trusts",
        "off",
        "server",
        "demands",
        "connected to",
        "RFC",
    ),
    *("its", "your", "unverified", "offline", "mutual", "request", "the local platform", "a real tenant"),
}


def test_the_glossary_has_every_term_of_the_notebooks_with_where_it_is_explained() -> None:
    texts = notebook_texts()
    page = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+) \| [^|]+ \| \[\d\d ([^|]+)\]\(\.\./notebooks/([^|)]+)\) \|$", page, re.MULTILINE)
    assert len(rows) == page.count("\n| ") - 1, "a row without its notebook"
    for term, heading, name in rows:
        assert f"## {heading}\n" in texts[name], f"{term}: {name} has no section {heading!r}"
    terms = [term for term, *_ in rows]
    assert terms == sorted(terms, key=lambda term: term.lower().split(","))
    known = {word.strip().lower() for term in terms for word in (term, *term.split(","))}
    used = set[str]()
    for text in texts.values():
        prose = re.sub(r"```.*?```|`[^`]*`|https?:\S+|data:\S+", "", text, flags=re.DOTALL)
        used |= set(re.findall(r"\b[A-Z][A-Za-z0-9]*[A-Z0-9][A-Za-z0-9]*(?:-\d+)?\b", prose))
        used |= set(re.findall(r"(?<!\*)\*([a-z][^*\n\d]{2,30})(?: \d+)?\*(?!\*)", prose))
    assert {"CA", "ClientId", "tenant", "alias", "RSA"} <= used
    assert {word for word in used - NO_TERMS if not {word.lower(), word.lower().removesuffix("s")} & known} == set()


def names_in_the_code() -> set[str]:
    """Return the name of every module, class, function, argument and attribute of the two packages."""
    names: set[str] = set()
    for path in [path for name in PACKAGES for path in (ROOT / name).rglob("*")]:
        names |= {path.stem, *path.relative_to(ROOT).parts}
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if path.suffix == ".py" else ():
            names |= {str(getattr(node, field, "")) for field in ("name", "id", "attr", "arg")}
    return names


def test_every_name_in_the_architecture_exists() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    known = names_in_the_code() | set(re.findall(r"\w+", (ROOT / "data" / "caConfig.cnf").read_text(encoding="utf-8")))
    named = set(re.findall(r"`([A-Za-z][\w.]*)(?:\([^`]*\))?`", text))
    python = {n for n in named if not n.isupper() and not n.endswith((".pem", ".cnf", ".json", ".sqlite", ".md"))}
    assert len(python) > 60
    assert {name for name in python if not set(name.removesuffix(".py").split(".")) <= known} == set()


def test_the_readme_has_a_row_for_each_notebook_and_command_and_is_short() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, notebook in notebook_texts().items():
        minutes = re.findall(r"\*\*Time:\*\* (\d+) minutes, plus (\d+)", notebook)
        row = re.search(rf"^\| \[{name[:2]} [^]]+\]\(notebooks/{name}\).* \| (\d+) \+ (\d+) \|$", text, re.MULTILINE)
        assert row and [row.groups()] == minutes, f"{name}: {minutes}"
    assert all(f"`python3 run.py {name}`" in text or f"`{name}`" in text for name in {*COMMANDS} - {"lab"})
    assert len(text.splitlines()) < 120
    ((picture, alternative),) = re.findall(r'<img src="([^"]+)" width="\d+" alt="([^"]+)">', text)
    assert len(alternative) > 40 and (ROOT / picture).stat().st_size < 200_000


def test_the_example_in_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(from pathlib .*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(code.replace('"a passphrase")\nkey', '"a passphrase", key_type=KeyType.P256)\nkey'), {})  # which is quicker
    assert (tmp_path / "caCertificate" / "crl" / "caCrl.pem").exists()
