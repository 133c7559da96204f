"""Where no widget lives, each form and panel shows its static picture: untrusted, exported, on a page without scripts.

The notebooks are first run as a learner runs them, so that their outputs name widgets which are not there any more.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from browser import FLAGS, lab, page_of, photograph
from conftest import tool
from nbconvert import HTMLExporter
from playwright.sync_api import Page, sync_playwright

from mciot_nb import LocalPlatform
from tools.notebooks import NOTEBOOKS, execute

pytestmark = pytest.mark.slow

VIEW = "application/vnd.jupyter.widget-view+json"
WORDS = "element => element.innerText.replaceAll(/\\s+/g, ' ')"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Path, Any]]:
    """Run every notebook, without saving widgets' state, as the tutorial's Lab does not save it either."""
    folder = tmp_path_factory.mktemp("static")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MCIOT_WORKSPACE", str(folder / "workspace"))
        notebooks = {path: nbformat.read(path, as_version=4) for path in NOTEBOOKS}
        for path, notebook in notebooks.items():
            assert execute(notebook, path) == ""
    yield notebooks
    if platform := LocalPlatform.running(folder / "workspace"):
        platform.stop()


def pictures(notebook: Any) -> list[str]:
    """Return the static picture, as HTML, of each widget that a notebook shows."""
    outputs = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]
    return [data["text/html"] for data in outputs if VIEW in data and "text/html" in data]


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=tool("chromium"), args=FLAGS)
        yield browser.new_context(viewport={"width": 1280, "height": 3000}, offline=True).new_page()
        browser.close()


def words_of(page: Page, markup: str) -> str:
    """Return the words that a person would read in ``markup``, in the browser's own opinion."""
    page.set_content(markup)
    words: str = page.locator("body").evaluate(WORDS)
    return words.strip()


def export(page: Page, notebook: Any, folder: Path) -> str:
    """Open a notebook exported as HTML, and return its words."""
    path = folder / "export.html"
    path.write_text(HTMLExporter().from_notebook_node(notebook)[0], encoding="utf-8")
    page.goto(path.as_uri())
    words: str = page.locator("body").evaluate(WORDS)
    return words


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_an_export_shows_every_picture_without_a_network(
    path: Path, run: dict[Path, Any], page: Page, tmp_path: Path
) -> None:
    notebook = run[path]
    expected = [words_of(page, markup) for markup in pictures(notebook)]
    assert expected and all(expected)
    shown = export(page, notebook, tmp_path)
    photograph(page, f"{path.stem}_export")
    assert [words for words in expected if words not in shown] == []
    images = page.locator(".jp-OutputArea-output img")
    assert all(images.evaluate_all("images => images.map(image => image.naturalWidth > 0 && image.alt)"))

    for cell in notebook.cells:  # the control: without its picture a widget is nothing there
        for output in cell.get("outputs", []):
            if VIEW in output.get("data", {}):
                output["data"] = {VIEW: output["data"][VIEW]}
    shown = export(page, notebook, tmp_path)
    assert [words for words in expected if words in shown] == []


def test_an_untrusted_notebook_shows_every_picture(run: dict[Path, Any], page: Page, tmp_path: Path) -> None:
    expected = {path: [words_of(page, markup) for markup in pictures(notebook)] for path, notebook in run.items()}
    with lab(tmp_path) as url:
        for path, notebook in run.items():
            nbformat.write(notebook, tmp_path / "try.ipynb")  # it is not signed, so the Lab does not trust it
            with page_of(f"{url}&reset", height=6000) as in_the_lab:
                shown: str = in_the_lab.locator(".jp-Notebook").evaluate(WORDS)
                photograph(in_the_lab, f"{path.stem}_untrusted")
                assert [words for words in expected[path] if words not in shown] == []
                assert in_the_lab.locator(".mciot-submit").count() == 0, "the control: no widget is alive here"
