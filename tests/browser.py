"""The real Lab in a real browser: what the browser tests share."""

import os
import re
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import ROOT, tool
from platform_tools import wait_for
from playwright.sync_api import Locator, Page, expect, sync_playwright

from mciot_nb import LocalPlatform

PICTURES = ROOT / "test-artefacts"
#: Milliseconds for all cells of a notebook.
RUN_TIMEOUT = 90_000

expect.set_options(timeout=60_000)  # a machine with much to do is no failure

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]

SETTINGS = {  # widget state is saved into the notebook: the worst case for a secret
    "@jupyter-widgets/jupyterlab-manager/plugin": '{"saveState": true}',
    "@jupyterlab/apputils-extension/kernels-settings": '{"commsOverSubshells": "disabled"}',  # as in jupyter-config
    "@jupyterlab/apputils-extension/notification": '{"fetchNews": "false", "checkForUpdates": false}',
}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def page_of(url: str, height: int = 1400, width: int = 1280) -> Iterator[Page]:
    """Open a notebook in the Lab, in the system's chromium, cut off from the network, for which nothing may ask."""
    asked: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=tool("chromium"), args=FLAGS)
        context = browser.new_context(viewport={"width": width, "height": height})
        context.on("request", lambda request: asked.append(request.url))
        page = context.new_page()
        page.goto(url)
        expect(page.get_by_text("| Idle")).to_be_visible(timeout=60_000)
        yield page
        browser.close()
    assert [url for url in asked if not url.startswith(("http://127.0.0.1:", "data:", "blob:", "attachment:"))] == []


def run_all(page: Page) -> None:
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()


def write_notebook(folder: Path, cells: list[str], name: str = "try.ipynb") -> Path:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path = folder / name
    nbformat.write(notebook, path)
    return path


@contextmanager
def serve(
    command: list[str], folder: Path, environment: dict[str, str], python: str | Path = sys.executable
) -> Iterator[str]:
    """Serve a Lab whose every file is under ``folder``, so that a search finds them all; returns its address."""
    environment |= {
        name: str(folder / name.lower())
        for name in (
            "JUPYTER_CONFIG_DIR",
            "JUPYTER_RUNTIME_DIR",
            "JUPYTERLAB_SETTINGS_DIR",
            "JUPYTERLAB_WORKSPACES_DIR",
            "IPYTHONDIR",
        )
    }
    port, token = free_port(), secrets.token_hex(8)
    options = ["--no-browser", f"--ServerApp.port={port}", f"--IdentityProvider.token={token}"]
    with (folder / "lab.log").open("w") as log:
        command = [str(python), *command, *options]
        server = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)

    def answers() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_for(answers, 60)
        yield f"http://127.0.0.1:{port}/lab/tree/{{name}}?reset&token={token}"
    finally:
        server.terminate()
        server.wait(120)  # it ends its kernels first


@contextmanager
def lab(folder: Path, dark: bool = False, **environment: str) -> Iterator[str]:
    """Serve ``folder`` with a Lab; returns the address of its notebook try.ipynb."""
    if dark:
        choose_theme(folder / "jupyterlab_settings_dir", True)
    for name, text in SETTINGS.items():
        path = folder / "jupyterlab_settings_dir" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    command = ["-m", "jupyterlab", "--allow-root", "--ServerApp.ip=127.0.0.1", f"--ServerApp.root_dir={folder}"]
    with serve(command, folder, {**os.environ, **environment}) as address:
        yield address.format(name="try.ipynb")


@dataclass
class Notebooks:
    """A Lab that runs for all tests of a module, and the folder that it serves."""

    folder: Path
    url: str

    @contextmanager
    def run(self, cells: list[str], *, dark: bool = False, height: int = 1700, **options: Any) -> Iterator[Page]:
        """Write a new notebook of these cells, open it in the Lab in one of the themes, and run all its cells."""
        choose_theme(self.folder / "jupyterlab_settings_dir", dark)
        path = write_notebook(self.folder, cells, f"{secrets.token_hex(4)}.ipynb")
        with page_of(self.url.replace("try.ipynb", path.name), height=height, **options) as page:
            page.path = path  # type: ignore[attr-defined]
            run_all(page)
            yield page


@pytest.fixture(scope="module")
def notebooks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebooks]:
    """One Lab for a module's tests; a test that needs another folder makes its own."""
    tool("chromium")
    folder = tmp_path_factory.mktemp("lab")
    with lab(folder) as url:
        yield Notebooks(folder, url)


@contextmanager
def tutorial(folder: Path, dark: bool = False) -> Iterator[str]:
    """Start the Lab as a user does, with all that it keeps in ``folder``, the workspace too; it ends the platform.

    Returns the address of a notebook, with ``{name}`` for its file's.
    """
    tool("chromium")
    choose_theme(folder / "jupyterlab_settings_dir", dark)
    workspace = folder / "workspace"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MCIOT_")}
    with serve(["run.py"], folder, environment | {"MCIOT_WORKSPACE": str(workspace)}) as address:
        yield address.replace("{name}", "notebooks/{name}")
    wait_for(lambda: LocalPlatform.running(workspace) is None, 60)


def choose_theme(settings: Path, dark: bool) -> None:
    """Choose one of the Lab's themes in a folder of its settings, which each page reads."""
    path = settings / "@jupyterlab" / "apputils-extension" / "themes.jupyterlab-settings"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'{{"theme": "JupyterLab {"Dark" if dark else "Light"}"}}')


@contextmanager
def notebook(address: str, path: Path, height: int = 4200, width: int = 1280) -> Iterator[Page]:
    """Open a notebook of the tutorial without its committed outputs, so that what is seen is new."""
    with page_of(address.format(name=path.name), height=height, width=width) as page:
        page.get_by_role("menuitem", name="Edit", exact=True).click()
        page.get_by_role("menuitem", name="Clear Outputs of All Cells").click()
        yield page


def wait_until_done(page: Page, path: Path) -> None:
    """Wait for the last cell's number, then look for anything that went wrong."""
    last = page.locator(".jp-CodeCell .jp-InputPrompt").last
    expect(last).to_have_text(re.compile(r"^\[\d+\]:$"), timeout=RUN_TIMEOUT)
    expect(page.locator(".jp-CodeCell")).to_have_count(path.read_text(encoding="utf-8").count('"cell_type": "code"'))
    errors = page.locator(
        '[data-mime-type="application/vnd.jupyter.error"], [data-mime-type="application/vnd.jupyter.stderr"]'
    )
    assert errors.all_inner_texts() == []
    page.wait_for_timeout(500)  # widgets are drawn after their cell is done


def serious(page: Page, selector: str) -> list[str]:
    """Return axe-core's serious and critical findings in what ``selector`` finds, each with the elements it means."""
    found: Any = Axe().run(page, context={"include": [[selector]]}).response
    return [
        f"{violation['id']} ({violation['impact']}): {[node['html'][:200] for node in violation['nodes']]}"
        for violation in found["violations"]
        if violation["impact"] in ("serious", "critical")
    ]


def tab_to(page: Page, target: Locator, key: str = "Tab") -> None:
    """Press Tab until ``target`` has the focus, and see that this can be seen."""
    for _ in range(80):
        page.keyboard.press(key)
        if target.evaluate("element => element === document.activeElement"):
            outline = target.evaluate("e => getComputedStyle(e).outlineStyle + getComputedStyle(e).boxShadow")
            assert outline != "nonenone", "the focus can be seen"
            return
    raise AssertionError(f"{key} does not lead to {target}")


def retype(page: Page, typed: str) -> None:
    """Type over what stands in the field that has the focus, key by key."""
    page.keyboard.press("Control+a")
    page.keyboard.type(typed)


def save(page: Page, path: Path) -> str:
    """Save the notebook by the Lab's shortcut, wherever the focus is, and return what is in the file then."""
    before = path.stat().st_mtime_ns
    page.keyboard.press("Control+s")
    wait_for(lambda: path.stat().st_mtime_ns != before and path.stat().st_size, 60)
    return path.read_text("utf-8")


#: Scrolls to the top; returns how far the last cell ends below the window (the Lab lets one scroll past it).
HIDDEN = """one => {
  one.scrollTop = 0;
  const end = [...one.querySelectorAll(".jp-Cell")].pop().getBoundingClientRect().bottom;
  return Math.max(0, Math.ceil(end - one.getBoundingClientRect().bottom));
}"""


def whole(page: Page, width: int) -> None:
    """Make the window as wide, and as high as the notebook is, without the file browser."""
    sidebar = page.locator("#jp-left-stack")
    if sidebar.is_visible():
        page.keyboard.press("Escape")
        page.keyboard.press("Control+b")
        expect(sidebar).to_be_hidden()
    page.set_viewport_size({"width": width, "height": 30_000})  # each cell is drawn
    page.wait_for_timeout(500)
    last = page.locator(".jp-Notebook .jp-Cell").last.bounding_box()
    assert last
    height, hidden = int(last["y"] + last["height"]) + 60, 0
    for _ in range(9):  # what was drawn only now makes the notebook higher, and the Lab scrolls to its active cell
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_timeout(300)
        hidden = page.locator(".jp-WindowedPanel-outer").first.evaluate(HIDDEN)
        if not hidden:
            break
        height += hidden
    assert not hidden, "the whole notebook is in the picture"


def photograph(page: Page, name: str) -> None:
    """Keep a picture of the page in test-artefacts/."""
    PICTURES.mkdir(exist_ok=True)
    page.screenshot(path=PICTURES / f"{name}.png")


def run_last_cell(page: Page, result: Path) -> str:
    """Run the last cell as a person does, and return what it wrote."""
    result.unlink(missing_ok=True)
    page.locator(".jp-CodeCell .jp-InputArea-editor").last.click()
    page.keyboard.press("Control+Enter")
    return str(wait_for(lambda: result.exists() and result.read_text(), 60))
