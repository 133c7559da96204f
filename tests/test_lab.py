"""`run.py` opens the Lab, and a person clicks Run All in every notebook. Screenshots lie in test-artefacts/."""

import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from browser import free_port, page_of, run_all, wait_for_port
from conftest import ROOT, tool
from playwright.sync_api import Page, expect

from mciot_nb import LocalPlatform, Workspace
from mciot_nb.guide import NOTEBOOKS

PICTURES = ROOT / "test-artefacts"
#: Milliseconds for all cells of a notebook.
RUN_TIMEOUT = 90_000


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[str]:
    """Start the Lab as a user does, with a workspace of the test's own; gives its address up to the notebook's name."""
    tool("chromium")
    port, token = free_port(), secrets.token_hex(8)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MCIOT_")}
    for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR"):
        environment[name] = str(tmp_path / name.lower())
    environment |= {"MCIOT_WORKSPACE": str(tmp_path / "workspace"), "IPYTHONDIR": str(tmp_path / "ipython")}
    options = ["--no-browser", f"--ServerApp.port={port}", f"--IdentityProvider.token={token}"]
    with (tmp_path / "lab.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "run.py", *options], cwd=ROOT, env=environment, stdout=log, stderr=log
        )
    try:
        wait_for_port(port)
        yield f"http://127.0.0.1:{port}/lab/tree/notebooks/{{name}}?reset&token={token}"
    finally:
        server.terminate()
        server.wait(20)
        ended = wait_for_the_end_of_the_platform(tmp_path / "workspace")
    assert ended, "the local platform ends with the Lab"


def wait_for_the_end_of_the_platform(workspace: Path) -> bool:
    for _ in range(200):
        platform = LocalPlatform.running(workspace)
        if platform is None:
            return True
        time.sleep(0.1)
    platform.stop()
    return False


@contextmanager
def notebook(lab: str, path: Path) -> Iterator[Page]:
    """Open a notebook without its committed outputs, so that what is seen is new."""
    with page_of(lab.format(name=path.name), height=4200) as page:
        page.get_by_role("menuitem", name="Edit", exact=True).click()
        page.get_by_role("menuitem", name="Clear Outputs of All Cells").click()
        yield page


def wait_until_done(page: Page, cells: int) -> None:
    """Wait for the last cell's number, then look for anything that went wrong."""
    last = page.locator(".jp-CodeCell .jp-InputPrompt").last
    expect(last).to_have_text(re.compile(r"^\[\d+\]:$"), timeout=RUN_TIMEOUT)
    expect(page.locator(".jp-CodeCell")).to_have_count(cells)
    errors = page.locator(
        '[data-mime-type="application/vnd.jupyter.error"], [data-mime-type="application/vnd.jupyter.stderr"]'
    )
    assert errors.all_inner_texts() == []


def count_code_cells(path: Path) -> int:
    return path.read_text(encoding="utf-8").count('"cell_type": "code"')


def run_to_the_end(lab: str, path: Path, picture: str) -> str:
    with notebook(lab, path) as page:
        run_all(page)
        wait_until_done(page, count_code_cells(path))
        page.wait_for_timeout(500)  # widgets are drawn after their cell is done
        PICTURES.mkdir(exist_ok=True)
        page.screenshot(path=PICTURES / f"{picture}.png")
        return page.locator(".jp-Notebook").inner_text()


def test_run_all_goes_through_every_notebook(lab: str, tmp_path: Path) -> None:
    for path in NOTEBOOKS:
        text = run_to_the_end(lab, path, path.stem)
    assert "CLIENT_ID_MISMATCH" in text and "CONNACK 5" in text, "both ends of the refusal in 07"
    platform = LocalPlatform.running(tmp_path / "workspace")
    assert platform and len(platform.measurements()) == 2, "one by PEM files, one by the stores"


def test_another_subject_typed_in_the_browser_is_followed_everywhere(lab: str, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "workspace")
    first, rest = NOTEBOOKS[1], NOTEBOOKS[2:]
    workspace.catch_up("device")
    with notebook(lab, first) as page:
        run_all(page)
        wait_until_done(page, count_code_cells(first))
        name = page.get_by_label("Common Name")
        name.fill("Browser CA")
        page.locator(".mciot-submit").click()
        expect(page.locator(".mciot-message")).to_contain_text("Submitted")
        page.locator(".jp-CodeCell .jp-InputArea-editor").nth(2).click()
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run Selected Cell and All Below").click()
        expect(page.get_by_text("Moved the CA that was here")).to_be_visible(timeout=RUN_TIMEOUT)
        expect(page.get_by_text("CA certificate of Browser CA")).to_be_visible(timeout=RUN_TIMEOUT)
        page.screenshot(path=PICTURES / "01_another_subject.png")
    assert (workspace.folder / "earlier" / "1" / "caCertificate" / "deviceCertificates" / "deviceCert.pem").exists()
    for path in rest:
        text = run_to_the_end(lab, path, f"{path.stem}_another_subject")
    assert "Browser CA" in text and "CONNECTED" in text
