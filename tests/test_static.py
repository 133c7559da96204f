"""Where no widget lives, each form and panel shows its static picture: untrusted, exported, on a page without scripts.

The notebooks are first run as a learner runs them, so that their outputs name widgets which are not there any more.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import pytest
from browser import FLAGS, lab, page_of, photograph
from conftest import tool
from playwright.sync_api import Page, sync_playwright

from mciot_nb import LocalPlatform
from tools.notebooks import NOTEBOOKS, execute

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
    """Give the static picture, as HTML, of each widget that a notebook shows."""
    outputs = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]
    return [data["text/html"] for data in outputs if VIEW in data and "text/html" in data]


@contextmanager
def offline() -> Iterator[Page]:
    tool("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=tool("chromium"), args=FLAGS)
        context = browser.new_context(viewport={"width": 1280, "height": 3000}, offline=True)
        yield context.new_page()
        browser.close()


def words_of(page: Page, markup: str) -> str:
    """Give the words that a person would read in ``markup``, in the browser's own opinion."""
    page.set_content(markup)
    words: str = page.locator("body").evaluate(WORDS)
    return words.strip()


def export(notebook: Any, folder: Path) -> Path:
    nbformat.write(notebook, folder / "export.ipynb")
    command = [sys.executable, "-m", "nbconvert", "--to", "html", "--log-level=ERROR", str(folder / "export.ipynb")]
    subprocess.run(command, check=True)
    return folder / "export.html"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_an_export_shows_every_picture_without_a_network(path: Path, run: dict[Path, Any], tmp_path: Path) -> None:
    notebook = run[path]
    with offline() as page:
        expected = [words_of(page, markup) for markup in pictures(notebook)]
        assert expected and all(expected)
        page.goto(export(notebook, tmp_path).as_uri())
        shown: str = page.locator("body").evaluate(WORDS)
        photograph(page, f"{path.stem}_export")
        assert [words for words in expected if words not in shown] == []
        images = page.locator(".jp-OutputArea-output img")
        assert all(images.evaluate_all("images => images.map(image => image.naturalWidth > 0 && image.alt)"))

        for cell in notebook.cells:  # the control: without its picture a widget is nothing there
            for output in cell.get("outputs", []):
                if VIEW in output.get("data", {}):
                    output["data"] = {VIEW: output["data"][VIEW]}
        page.goto(export(notebook, tmp_path).as_uri())
        shown = page.locator("body").evaluate(WORDS)
        assert [words for words in expected if words in shown] == []


def test_an_untrusted_notebook_shows_every_picture(run: dict[Path, Any], tmp_path: Path) -> None:
    tool("chromium")
    for path, notebook in run.items():
        with offline() as page:
            expected = [words_of(page, markup) for markup in pictures(notebook)]
        nbformat.write(notebook, tmp_path / "try.ipynb")  # nobody has signed it, so the Lab does not trust it
        with lab(tmp_path) as url, page_of(url, height=6000) as page:
            shown: str = page.locator(".jp-Notebook").evaluate(WORDS)
            photograph(page, f"{path.stem}_untrusted")
            assert [words for words in expected if words not in shown] == []
            assert page.locator(".mciot-submit").count() == 0, "the control: no widget is alive here"
        shutil.rmtree(tmp_path / "jupyter_runtime_dir", ignore_errors=True)
