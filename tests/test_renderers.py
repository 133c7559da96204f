"""Notebooks where others render them: what a reader needs is there, by what each renderer says that it lets through.

JupyterLab, Notebook 7 and nbconvert run here for real (`test_lab.py`, `test_static.py`, `test_notebook7_browser.py`).
GitHub, VS Code and Colab can't, so their lists of tags, attributes and MIME types stand here, each with its source,
and a real sanitizer applies them to the committed notebooks. docs/opening.md says what came out.
"""

import base64
import itertools
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import nbformat
import nh3
import pytest
from browser import FLAGS, photograph
from bs4 import BeautifulSoup
from conftest import ROOT, tool
from markdown_it import MarkdownIt
from playwright.sync_api import expect, sync_playwright

from tools.notebooks import NOTEBOOKS

#: gjtorikian/html-pipeline, lib/html/pipeline/sanitization_filter.rb (made at GitHub, which publishes no newer list).
#: ``style`` is not in it, in notebooks either: jupyter/nbviewer, issue 450, and karolzak/ipyplot, issue 3.
GITHUB_TAGS = """
h1 h2 h3 h4 h5 h6 br b i strong em a pre code img tt div ins del sup sub p ol ul table thead tbody tfoot blockquote
dl dt dd kbd q samp var hr ruby rt rp li tr td th s strike summary details
"""
GITHUB_ATTRIBUTES = "abbr align alt border colspan dir headers height lang open rowspan scope span start title width"
#: microsoft/vscode, extensions/markdown-language-features/notebook/index.ts: Markdown in a folder that is not trusted.
VS_CODE_TAGS = """
a abbr b bdo blockquote br caption cite code col colgroup dd del details dfn div dl dt em figcaption figure h1 h2 h3 h4
h5 h6 hr i img ins kbd label li mark ol p pre q rp rt ruby samp small source span strike strong sub summary sup table
tbody td tfoot th thead time tr tt u ul var video wbr
"""
#: microsoft/vscode, extensions/notebook-renderers/package.json. ``text/html`` is shown as it is, or in a folder that
#: is not trusted not at all (src/index.ts there).
VS_CODE_TYPES = {"text/html", "text/plain", "image/png", "image/jpeg", "image/svg+xml"}
#: googlecolab/colabtools, google/colab/output/_publish.py: it shows HTML through IPython's own display, as it is.
COLAB_TYPES = {"text/html", "text/plain", "image/png"}


@dataclass(frozen=True)
class Renderer:
    """What a renderer lets through: of Markdown, and of the HTML of outputs."""

    markdown: str
    outputs: str = ""  # nothing: all of it
    attributes: str = GITHUB_ATTRIBUTES
    schemes: tuple[str, ...] = ("http", "https", "mailto")

    def clean(self, html: str, tags: str) -> str:
        """Let the sanitizer take away what this renderer takes away; it keeps the words of a tag that goes."""
        if not tags:
            return html
        attributes = {"*": set(self.attributes.split()), "a": {"href"}, "img": {"src"}}
        return nh3.clean(
            html,
            tags=set(tags.split()),
            attributes=attributes,
            clean_content_tags={"script", "style"},
            url_schemes=set(self.schemes),
            link_rel=None,
        )


GITHUB = Renderer(GITHUB_TAGS, GITHUB_TAGS)
#: Nobody says whether GitHub shows pictures that are inside an output; a reader must do with both.
GITHUB_WITH_DATA = replace(GITHUB, schemes=(*GITHUB.schemes, "data"))
VS_CODE = Renderer(VS_CODE_TAGS, attributes=f"{GITHUB_ATTRIBUTES} class style", schemes=GITHUB_WITH_DATA.schemes)
RENDERERS = {"github": GITHUB, "github_with_data": GITHUB_WITH_DATA, "vs_code": VS_CODE}
#: VS Code's own Markdown renderer in Python; GitHub's agrees with it on what notebooks use.
MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable("table")


@dataclass(frozen=True)
class Needed:
    """What a reader needs of a cell."""

    words: str
    pictures: tuple[str, ...]  # their alternative texts
    folds: tuple[str, ...]
    tables: tuple[tuple[str, ...], ...]
    code: tuple[str, ...]
    links: tuple[str, ...]


def needed(html: str) -> Needed:
    """Read from HTML what a reader needs of it."""
    soup = BeautifulSoup(html, "html.parser")
    for one in soup(["style", "script"]):
        one.decompose()

    def words(found: Any) -> str:
        return "".join(found.get_text().split())  # a tag that goes leaves no space

    def each(name: str) -> tuple[str, ...]:
        return tuple(words(one) for one in soup(name))

    return Needed(
        words(soup),
        tuple(str(one.get("alt", "")) for one in soup(["img", "svg", "canvas"])),
        each("summary"),
        tuple(tuple(words(cell) for cell in table(["th", "td"])) for table in soup("table")),
        each("pre"),
        tuple(str(one.get("href", "")) for one in soup("a")),
    )


def rendered(notebook: Any, renderer: Renderer) -> Iterator[tuple[str, str, str]]:
    """Make HTML of each cell and output: its name, as written, and as this renderer lets it through."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            html = MARKDOWN.render(cell.source)
            yield cell.id, html, renderer.clean(html, renderer.markdown)
        for output in cell.get("outputs", []):
            data = output.get("data", {"text/plain": output.get("text", "")})
            html = data.get("text/html") or f"<pre>{escape(data['text/plain'])}</pre>"
            yield cell.id, html, renderer.clean(html, renderer.outputs)


def lost(notebook: Any, renderer: Renderer) -> list[str]:
    """Return the names of the cells of which a reader would miss something."""
    return [name for name, whole, left in rendered(notebook, renderer) if needed(whole) != needed(left)]


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


@pytest.mark.parametrize("renderer", RENDERERS.values(), ids=RENDERERS)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_every_renderer_leaves_words_pictures_tables_folds_code_and_links(path: Path, renderer: Renderer) -> None:
    assert lost(read(path), renderer) == []


@pytest.mark.parametrize(
    "html",
    [
        '<svg viewBox="0 0 9 9"><path d="M0 0h9"/></svg>',
        "<button>Submit</button><script>document.body.append('words')</script><canvas></canvas>",
        '<form><input value="21.5"></form><math><mi>x</mi></math><video src="x"></video><svg></svg>',
    ],
)
def test_what_a_renderer_drops_is_noticed(html: str) -> None:
    output = nbformat.v4.new_output("display_data", {"text/html": html})
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("show()", outputs=[output])])
    assert lost(notebook, GITHUB) and not lost(notebook, VS_CODE)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_every_output_has_a_type_that_each_renderer_shows(path: Path) -> None:
    for cell in read(path).cells:
        for output in cell.get("outputs", []):
            types = set(output.get("data", {"text/plain": ""}))
            assert types & VS_CODE_TYPES and types & COLAB_TYPES and "text/plain" in types, cell.id


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_every_picture_has_a_text_and_one_in_markdown_is_a_file(path: Path) -> None:
    for cell in read(path).cells:
        html = "".join(output.get("data", {}).get("text/html", "") for output in cell.get("outputs", []))
        if cell.cell_type == "markdown":
            html = MARKDOWN.render(cell.source)
            drawn = re.findall(r"!\[[^]]*\]\(([^)]*)\)", re.sub("```.*?```", "", cell.source, flags=re.DOTALL))
            assert html.count("<img") == len(drawn), f"{cell.id}: VS Code shows no picture that is inside Markdown"
            assert all((path.parent / name).is_file() for name in drawn), cell.id
            assert "```mermaid" not in cell.source, f"{cell.id}: only the Lab draws it, use an SVG file"
        assert all(len(text) > 20 for text in needed(html).pictures), cell.id


def test_a_picture_inside_markdown_is_none_in_vs_code() -> None:
    svg = base64.b64encode(b'<svg xmlns="http://www.w3.org/2000/svg"/>').decode()
    assert "<img" not in MARKDOWN.render(f"![A CA](data:image/svg+xml;base64,{svg})")


def test_each_line_of_the_page_names_a_test_that_exists() -> None:
    page = (ROOT / "docs" / "opening.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ") and "Where |" not in line]
    named = [re.findall(r"`(test_\w+\.py)(?: -k (\w+))?` \|$", row) for row in rows]
    assert len(rows) >= 8 and all(named)
    for file, word in itertools.chain(*named):
        assert word in (ROOT / "tests" / file).read_text(encoding="utf-8"), (file, word)


# As it looks ---------------------------------------------------------------------------------------------------------

STYLE = """
body{{font:16px/1.5 system-ui,sans-serif;margin:24px auto;max-width:980px;background:{ground};color:{ink}}}
pre{{background:#8882;padding:8px;overflow:auto}} td,th{{border:1px solid #8888;padding:4px 10px}}
table{{border-collapse:collapse;display:block;overflow:auto}} img{{max-width:100%}} a{{color:{link}}}
.code{{margin:0 0 16px 24px;overflow:auto}} :root{{color-scheme:{scheme}}}
"""
LIGHT = {"ground": "#fff", "ink": "#1f2328", "link": "#0969da", "scheme": "light"}
DARK = {"ground": "#0d1117", "ink": "#e6edf3", "link": "#4493f8", "scheme": "dark"}
TOO_WIDE = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"


def page_of(notebook: Any, renderer: Renderer, colours: dict[str, str]) -> str:
    """Make a page of a notebook, much as the renderer does."""
    parts = [f"<!doctype html><meta charset=utf-8><style>{STYLE.format(**colours)}</style>"]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            parts.append(f"<pre>{escape(cell.source)}</pre>")
        one = nbformat.v4.new_notebook(cells=[cell])
        parts += [f"<div class={cell.cell_type}>{left}</div>" for _, _, left in rendered(one, renderer)]
    return "\n".join(parts)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "colours"), [("github_with_data", LIGHT), ("github_with_data", DARK), ("github", LIGHT), ("vs_code", DARK)]
)
def test_it_can_be_read_in_a_browser(name: str, colours: dict[str, str], tmp_path: Path) -> None:
    renderer, file, asked = RENDERERS[name], tmp_path / "page.html", list[str]()
    shutil.copy(ROOT / "notebooks" / "idea.svg", tmp_path)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=tool("chromium"), args=FLAGS)
        page = browser.new_context(viewport={"width": 1100, "height": 3000}, offline=True).new_page()
        page.on("request", lambda request: asked.append(request.url))
        for path in NOTEBOOKS:
            file.write_text(page_of(read(path), renderer, colours), encoding="utf-8")
            page.goto(file.as_uri())
            folded = page.locator("details:not([open]) > :not(summary)").first
            expect(folded).to_be_hidden()
            page.locator("details:not([open]) > summary").first.click()
            page.locator("details").evaluate_all("all => all.forEach(one => { one.open = true })")
            shown = "".join(page.locator("body").inner_text().split())
            for cell, _, left in rendered(read(path), renderer):
                assert all(part in shown for part in (*needed(left).code, *needed(left).folds)), cell
            drawn = page.locator("img").evaluate_all("all => all.map(one => [one.naturalWidth > 0, one.src, one.alt])")
            assert all((width or not source) and alt for width, source, alt in drawn), "a picture, or else its text"
            assert page.evaluate(TOO_WIDE) <= 0, "nothing makes the page wider than the window"
            photograph(page, f"{path.stem}_{name}_{colours['scheme']}")
        browser.close()
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
