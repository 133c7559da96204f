"""Where no widget lives and no script runs: exported, untrusted, narrow, light and dark.

The notebooks are first run as a learner runs them, so that their outputs name widgets which are not there any more.
"""

import json
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import pytest
import requests
from browser import FLAGS, choose_theme, lab, page_of, photograph
from conftest import ROOT, tool
from nbconvert import HTMLExporter
from platform_tools import wait_for
from playwright.sync_api import Page, expect, sync_playwright
from test_displays import run_displays
from test_lab import CUT
from traitlets.config import Config

from mciot_nb import LocalPlatform
from tools.notebooks import NOTEBOOKS, execute

pytestmark = pytest.mark.slow

VIEW = "application/vnd.jupyter.widget-view+json"
#: With these settings, the Lab's menu *Save and Export Notebook As* makes a page that needs no network.
EXPORT_SETTINGS = ROOT / "jupyter-config" / "jupyter_server_config.json"
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


@pytest.fixture(scope="module")
def displays() -> Any:
    """A notebook with an output of every display."""
    made = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    for count, (name, data) in enumerate(run_displays().items(), 1):
        output = nbformat.v4.new_output("execute_result", data, execution_count=count)
        made.cells.append(nbformat.v4.new_code_cell(name, execution_count=count, outputs=[output]))
    return made


@contextmanager
def offline() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=tool("chromium"), args=FLAGS)
        yield browser.new_context(viewport={"width": 1280, "height": 3000}, offline=True).new_page()
        browser.close()


def expected_words(notebook: Any, only_widgets: bool = False) -> list[str]:
    """Return for each output what a person would read in its HTML, in the browser's own opinion."""
    outputs = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]
    found = []
    with offline() as page:
        for data in outputs:
            if "text/html" in data and (VIEW in data or not only_widgets):
                page.set_content(data["text/html"])
                found.append(page.locator("body").evaluate(WORDS).strip())
    assert found and all(words or not only_widgets for words in found)
    return found


def wait_for_words(page: Page, expected: list[str]) -> None:
    """Wait until the Lab shows all of them: outputs below the window are drawn when it has time."""

    def missing() -> list[str]:
        shown: str = page.locator(".jp-Notebook").evaluate(WORDS)
        return [words for words in expected if words not in shown]

    give_up = time.monotonic() + 60
    while missing() and time.monotonic() < give_up:
        page.wait_for_timeout(100)
    assert missing() == []


def export(page: Page, notebook: Any, folder: Path, theme: str = "light") -> str:
    """Open a notebook exported as HTML, as the tutorial's Lab exports it, and return its words."""
    asked: list[str] = []
    path = folder / "export.html"
    page.on("request", lambda request: asked.append(request.url))
    settings = Config(json.loads(EXPORT_SETTINGS.read_text(encoding="utf-8")))
    beside: Any = {"metadata": {"path": str(NOTEBOOKS[0].parent)}}  # where 00's picture is
    made = HTMLExporter(theme=theme, config=settings).from_notebook_node(notebook, beside)[0]
    path.write_text(made, encoding="utf-8")
    page.goto(path.as_uri())
    words: str = page.locator("body").evaluate(WORDS)
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == [], "it needs no network"
    return words


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_an_export_shows_every_output_without_a_network(path: Path, run: dict[Path, Any], tmp_path: Path) -> None:
    notebook = run[path]
    expected, of_widgets = expected_words(notebook), expected_words(notebook, only_widgets=True)
    of_others = Counter(expected) - Counter(of_widgets)  # 10 says once more what its widget said
    with offline() as page:
        shown = export(page, notebook, tmp_path)
        photograph(page, f"{path.stem}_export")
        assert [words for words in expected if words not in shown] == []
        images = page.locator("img")
        assert all(images.evaluate_all("images => images.map(image => image.naturalWidth > 0 && image.alt)"))

        for cell in notebook.cells:  # the control: without its picture a widget is nothing there
            for output in cell.get("outputs", []):
                if VIEW in output.get("data", {}):
                    output["data"] = {VIEW: output["data"][VIEW]}
        shown = export(page, notebook, tmp_path)
        assert [words for words in of_widgets if shown.count(words) > of_others[words]] == []


def test_the_labs_menu_exports_a_page_that_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (NOTEBOOKS[0], NOTEBOOKS[0].with_name("idea.svg")):
        shutil.copy(path, tmp_path)
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", str(EXPORT_SETTINGS.parent))
    with lab(tmp_path) as url, offline() as page:
        asked = url.replace("/lab/tree/try.ipynb", f"/nbconvert/html/{NOTEBOOKS[0].name}")
        made = tmp_path / "menu.html"
        made.write_bytes(requests.get(asked, timeout=60).content)
        gone: list[str] = []
        page.on("request", lambda request: gone.append(request.url))
        page.goto(made.as_uri())
        assert [one for one in gone if not one.startswith(("file:", "data:"))] == []
        drawn = page.get_by_role("img", name=re.compile("^Your CA signs"))
        expect(drawn).to_have_js_property("naturalWidth", 760)


def test_an_untrusted_notebook_shows_every_output(run: dict[Path, Any], tmp_path: Path) -> None:
    expected = {path: expected_words(notebook) for path, notebook in run.items()}
    with lab(tmp_path) as url:
        for path, notebook in run.items():
            nbformat.write(notebook, tmp_path / "try.ipynb")  # it is not signed, so the Lab does not trust it
            with page_of(f"{url}&reset", height=6000) as page:
                wait_for_words(page, expected[path])
                photograph(page, f"{path.stem}_untrusted")
                assert page.locator(".mciot-submit").count() == 0, "the control: no widget is alive here"


def check_displays(page: Page, scheme: str, clicks: int, is_wide: bool) -> None:
    """Check that every picture is drawn, by its colours, and that so many clicks select a fingerprint."""
    pictures = page.locator(".mciot-picture")
    for picture, width in zip(pictures.all(), (400, 400, 640, 640, 560), strict=True):
        expect(picture).to_have_js_property("naturalWidth", width)
    assert pictures.first.evaluate("one => getComputedStyle(one).colorScheme") == scheme
    wait_for(lambda: beside(page) == is_wide)
    page.locator("code[title]").last.click(click_count=clicks)
    assert re.fullmatch(r"([0-9A-F]{2}:){31}[0-9A-F]{2}", page.evaluate("getSelection().toString()").strip())


def beside(page: Page) -> bool:
    titles = ("What the device saw", "The platform's log")
    left, right = (page.get_by_text(title, exact=True).bounding_box() for title in titles)
    assert left and right
    return left["y"] == right["y"] and left["x"] < right["x"]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_an_export_shows_every_display(theme: str, displays: Any, tmp_path: Path) -> None:
    expected = expected_words(displays)
    with offline() as page:
        shown = export(page, displays, tmp_path, theme)
        assert [words for words in expected if words not in shown] == []
        check_displays(page, "dark" if theme == "dark" else "normal", clicks=1, is_wide=True)
        page.set_viewport_size({"width": 560, "height": 3000})
        wait_for(lambda: not beside(page))
        wait_for(lambda: page.evaluate("document.documentElement.scrollWidth") <= 560)
        # The control: a picture that is none has no width.
        page.locator(".mciot-picture").first.evaluate("one => { one.src = 'data:image/svg+xml;base64,AAAA' }")
        expect(page.locator(".mciot-picture").first).to_have_js_property("naturalWidth", 0)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_an_untrusted_notebook_shows_every_display(theme: str, displays: Any, tmp_path: Path) -> None:
    expected = expected_words(displays)
    nbformat.write(displays, tmp_path / "try.ipynb")
    if theme == "dark":
        choose_theme(tmp_path / "jupyterlab_settings_dir", True)
    with lab(tmp_path) as url:
        for width in (1280, 800):
            with page_of(f"{url}&reset", height=6000, width=width) as page:
                page.keyboard.press("Control+b")  # the file browser goes
                expect(page.get_by_text("device-0001").first).to_be_visible()
                expect(page.locator("body")).to_have_attribute("data-jp-theme-light", str(theme == "light").lower())
                assert page.locator(".jp-RenderedHTMLCommon style").count() == 0, "the Lab trusts it after all"
                wait_for_words(page, expected)
                check_displays(page, theme, clicks=3, is_wide=width == 1280)
                wait_for(lambda: page.locator(".jp-OutputArea-output").evaluate_all(CUT) == [])
                photograph(page, f"displays_{theme}_{width}")
