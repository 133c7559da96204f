"""Jupyter Notebook 7, as people start it: `jupyter notebook`, without run.py and the tutorial's settings."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from browser import FLAGS, RUN_TIMEOUT, photograph, serve, wait_until_done
from conftest import ROOT, tool
from platform_tools import wait_for
from playwright.sync_api import Page, expect, sync_playwright

from mciot_nb import LocalPlatform

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve a copy of the notebooks with Notebook 7, so that the checkout stays as it is; returns their address."""
    folder = tmp_path_factory.mktemp("notebook7")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MCIOT_", "JUPYTER_"))}
    (folder / "notebooks").mkdir()
    for path in (ROOT / "notebooks").glob("[0-9i]*.*"):
        (folder / "notebooks" / path.name).write_bytes(path.read_bytes())
    command = ["-m", "notebook", "--allow-root", "--ServerApp.ip=127.0.0.1", f"--ServerApp.root_dir={folder}"]
    with serve(command, folder, environment | {"MCIOT_WORKSPACE": str(folder / "workspace")}) as url:
        yield url.replace("/lab/tree/{name}?reset&", "/notebooks/notebooks/{name}?")
    wait_for(lambda: LocalPlatform.running(folder / "workspace") is None, 60)


@contextmanager
def opened(address: str, name: str) -> Iterator[Page]:
    """Open a notebook, wait for its kernel, and run all its cells without the committed outputs."""
    asked: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=tool("chromium"), args=FLAGS)
        page = browser.new_context(viewport={"width": 1280, "height": 1700}).new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address.format(name=name))
        ready = ".jp-NotebookKernelStatus-fade:not(.jp-NotebookKernelStatus-info)"  # its idle mark shows before that
        expect(page.locator(ready)).to_be_attached()
        for menu, entry in (("Edit", "Clear Outputs of All Cells"), ("Run", "Run All Cells")):
            page.get_by_role("menuitem", name=menu, exact=True).click()
            page.get_by_role("menuitem", name=entry, exact=True).click()
        wait_until_done(page, ROOT / "notebooks" / name)
        yield page
        photograph(page, f"{Path(name).stem}_notebook7")
        browser.close()
    assert [url for url in asked if not url.startswith(("http://127.0.0.1:", "data:", "blob:"))] == []


def test_the_tenants_form_answers_a_press(address: str) -> None:
    with opened(address, "00_start_here.ipynb") as page:
        assert page.get_by_role("img", name=re.compile("^Your CA signs")).evaluate("one => one.naturalWidth") == 760
        page.get_by_label("a real tenant").click()
        page.get_by_role("button", name="Submit").first.click()  # no address was typed
        expect(page.get_by_text("Not submitted: URL, Tenant ID, MQTT host and User are missing")).to_be_visible()


def test_the_devices_form_shows_what_is_typed(address: str) -> None:
    with opened(address, "03_device_certificate.ipynb") as page:
        name = page.get_by_label("Common Name").first
        name.fill("device-0007")
        name.press("Tab")
        expect(page.locator(".jp-OutputArea-output", has_text="CN=device-0007").first).to_be_visible()


def test_the_console_connects_and_sends(address: str) -> None:
    with opened(address, "07_connect_over_mqtt.ipynb") as page:
        console = page.locator(".mciot-console")
        console.get_by_role("button", name="Connect", exact=True).click()
        expect(console).to_contain_text("✓ Connected to", timeout=RUN_TIMEOUT)
        expect(console.locator("img[alt^=Plot]")).to_be_visible()
        expect(console).not_to_contain_text("200,c8y_Temperature,T,33.25,C")
        console.get_by_label("Value").fill("33.25")
        console.get_by_role("button", name="Send measurement", exact=True).click()
        expect(console).to_contain_text("200,c8y_Temperature,T,33.25,C")
        console.scroll_into_view_if_needed()
