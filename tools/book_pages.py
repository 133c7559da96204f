"""Make the book's pages: the notebooks as they were run, the documents, and the public names of mciot_nb.

``python -m tools.book_pages SOURCE OUT STATE`` reads all sources, while the notebooks still run, then waits for a line
of text, which goes to the foot of each page, and writes the pages.
"""

import io
import os
import re
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nbformat

from tools import diagrams

ROOT = Path(__file__).parents[1]
THEME = Path(__file__).parent / "book_theme"
#: The documents in the order in which they are of use; others follow by name.
FIRST = ("glossary", "troubleshooting", "errors", "platform", "verifiers", "class", "unverified", "architecture")
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?\)")


def documents() -> list[Path]:
    """Return the documents that become pages."""
    order = {name: number for number, name in enumerate(FIRST)}
    return sorted((ROOT / "docs").glob("*.md"), key=lambda path: (order.get(path.stem, len(order)), path.stem))


def adapted(text: str, folder: Path, source: Path) -> str:
    """Return Markdown with its diagrams drawn, and links only to what is in the book.

    ``folder`` is where it stands in the repository, ``source`` what the book is made from. A file of the repository
    that is no page comes along, as a download.
    """

    def picture(found: re.Match[str]) -> str:
        path = diagrams.drawing(found[1])
        shutil.copyfile(path, source / path.name)
        return f"![{diagrams.description(found[1])}](/{path.name})"

    def link(found: re.Match[str]) -> str:
        target = (folder / found[2].replace("README.md", "index.md")).resolve()
        inside = source / target.relative_to(ROOT) if target.is_relative_to(ROOT) else source / "nowhere"
        if target.is_file() and target.suffix not in (".ipynb", ".md") and not inside.exists():
            inside.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(target, inside)
        return found[0].replace("README.md", "index.md") if inside.is_file() else found[1]

    text = re.sub(r'<img src="([^"]+)" width="(\d+)" alt="([^"]+)">', r"![\3](\1){width=\2px}", text)
    parts = re.split(r"(^ *```.*?^ *```$|`[^`\n]+`)", diagrams.FENCE.sub(picture, text), flags=re.DOTALL | re.MULTILINE)
    parts[::2] = [LINK.sub(link, part) for part in parts[::2]]
    return "".join(parts)


def api_pages() -> Iterator[tuple[str, str]]:
    """Return the name and text of each page of the public names, in the groups that mciot_nb/__init__ has."""
    text = (ROOT / "mciot_nb" / "__init__.py").read_text(encoding="utf-8")
    groups = re.findall(r'^    # (.+)\n((?:    "[\w.]+": "[\w ]+",\n)+)', text, re.MULTILINE)
    for title, rows in groups:
        names = [name for _, found in re.findall(r'"([\w.]+)": "([\w ]+)"', rows) for name in found.split()]
        title = title[0].upper() + title[1:]
        lines = [title, "=" * len(title), "", "Import them from ``mciot_nb``.", ""]
        for name in names:
            directive = ["autoclass", "   :members:"] if name[0].isupper() else ["autofunction", ""]
            lines += [name, "-" * len(name), "", f".. {directive[0]}:: mciot_nb.{name}", directive[1], ""]
        yield re.sub(r"\W+", "-", title.lower()).strip("-"), "\n".join(lines)


def index(notebooks: list[Path], documents: list[Path], names: list[str]) -> str:
    """Return the first page: the README, with the list of all pages."""

    def tree(caption: str, pages: list[str]) -> str:
        return "\n".join(["", "```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```", ""])

    return (
        (ROOT / "README.md").read_text(encoding="utf-8")
        + tree("Notebooks", [f"notebooks/{path.stem}" for path in notebooks])
        + tree("To look things up", [f"docs/{path.stem}" for path in documents])
        + tree("Public names", [f"api/{name}" for name in names])
        + tree("The project", ["CONTRIBUTING", "CHANGELOG", "about"])
    )


def write_sources(source: Path, notebooks: dict[Path, Any], about: str) -> None:
    """Write what Sphinx makes the book from, laid out as the repository, so that links hold."""
    api = dict(api_pages())
    texts = {path.relative_to(ROOT): path.read_text(encoding="utf-8") for path in documents()}
    texts |= {Path(name): (ROOT / name).read_text(encoding="utf-8") for name in ("CONTRIBUTING.md", "CHANGELOG.md")}
    texts[Path("index.md")] = index(list(notebooks), documents(), list(api))
    for path in [*texts, *(Path("notebooks") / path.name for path in notebooks), Path("api/none")]:
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).touch()  # so that each link knows what will be there
    for path, text in texts.items():
        (source / path).write_text(adapted(text, ROOT / path.parent, source), encoding="utf-8")
    write_notebooks(source, notebooks)
    for name, text in api.items():
        (source / "api" / f"{name}.rst").write_text(text, encoding="utf-8")
    for picture in (*ROOT.glob("docs/*.png"), *ROOT.glob("notebooks/*.svg")):
        shutil.copyfile(picture, source / picture.relative_to(ROOT))
    (source / "about.md").write_text(about, encoding="utf-8")


def write_notebooks(source: Path, notebooks: dict[Path, Any]) -> None:
    """Write the notebooks beside the other sources."""
    for path, notebook in notebooks.items():
        copy = nbformat.from_dict(notebook)
        for cell in copy.cells:
            if cell.cell_type == "markdown":
                cell.source = adapted(cell.source, path.parent, source)
        nbformat.write(copy, source / "notebooks" / path.name)


def split_docstring(_app: object, _what: str, _name: str, _obj: object, _options: object, lines: list[str]) -> None:
    """Give what is raised, and the example, a paragraph of its own."""
    for number, line in reversed(list(enumerate(lines))):
        for word in ("Raises: ", "Example: "):
            before, found, after = line.partition(word)
            if found:
                line = f"**{word.strip()}** {after}"
                lines[number : number + 1] = [before.rstrip(), "", line] if before.strip() else [line]


def build(builder: str, source: Path, out: Path, state: Path, ran: str = "") -> list[str]:
    """Let Sphinx build the book, or with the builder ``dummy`` only read it; returns its warnings."""
    from sphinx.application import Sphinx  # here, because what runs the notebooks needs none of it
    from sphinx.util.docutils import docutils_namespace

    settings: dict[str, Any] = {
        "project": "Connect devices with X.509 certificates",
        "html_title": "Connect devices with X.509 certificates",
        "version": version("mciot-nb"),
        "extensions": ["myst_nb", "sphinx.ext.autodoc"],
        "nb_execution_mode": "off",  # they were run already, one after the other
        "nb_ipywidgets_js": {},  # no widget works in a page; each has its static picture
        "myst_enable_extensions": ["attrs_inline"],
        "myst_heading_anchors": 3,
        "suppress_warnings": ["misc.highlighting_failure", "mystnb.unknown_mime_type", "myst.header"],
        "default_role": "py:obj",
        "autodoc_typehints_format": "short",
        "autodoc_preserve_defaults": True,  # as they are written: their values may be paths of this machine
        "autodoc_default_options": {"no-value": True},
        "autodoc_member_order": "bysource",
        "python_display_short_literal_types": True,
        "add_module_names": False,
        "toc_object_entries": False,  # each class has its heading
        "html_theme": "furo",
        "html_theme_options": {"top_of_page_buttons": []},
        "templates_path": [str(THEME)],
        "html_static_path": [str(THEME / "book.css"), str(THEME / "book.js")],
        "html_css_files": ["book.css"],
        "html_js_files": ["book.js"],
        "html_context": {"theme_ran": ran},
        "html_copy_source": False,
        "html_use_index": False,
        "html_show_copyright": False,
        "html_show_sphinx": False,
    }
    warnings = io.StringIO()
    with docutils_namespace():
        processes = os.cpu_count() or 1
        app = Sphinx(source, None, out, state, builder, settings, None, warnings, parallel=processes)
        app.connect("autodoc-process-docstring", split_docstring)
        if builder == "dummy":
            app.builder.write_documents = lambda docnames: None  # type: ignore[method-assign]
        app.build()
    return warnings.getvalue().splitlines()


#: What the theme and pandas leave unsaid for screen readers, and what says it.
SAID = (
    (r' role="heading"', r' role="heading" aria-level="2"'),
    (r'<aside class="sidebar-drawer"', r'\g<0> aria-label="All pages"'),
    (r'<aside class="toc-drawer[^>]*"', r'\g<0> aria-label="This page"'),
    (r'<th(?: scope="\w+")?([^>]*)>(?:<p></p>)?</th>', r"<td\1></td>"),  # an empty header is none
    (r'<div id="search-results">', r"<h1>Search</h1>\g<0>"),
)


def finish(out: Path) -> None:
    """Put into all pages what screen readers need besides."""
    (out / "_sources").rmdir()  # myst-nb makes it, and has nothing for it
    for path in out.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        for pattern, better in SAID:
            text = re.sub(pattern, better, text)
        path.write_text(text, encoding="utf-8")


def main() -> None:
    """Read, wait, and write; print the warnings."""
    source, out, state = map(Path, sys.argv[1:])
    warnings = build("dummy", source, out, state)
    ran = sys.stdin.readline().strip()
    warnings += build("html", source, out, state, ran)
    finish(out)
    print("\n".join(dict.fromkeys(warnings)))


if __name__ == "__main__":
    main()
