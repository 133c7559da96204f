"""The real Lab in a real browser: what the browser tests share."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from conftest import tool
from playwright.sync_api import Page, expect, sync_playwright

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]


def free_port() -> int:
    """Give a port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def wait_for_port(port: int) -> None:
    for _ in range(300):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError("the Lab did not start within 30 seconds")


@contextmanager
def page_of(url: str, height: int = 1400) -> Iterator[Page]:
    """Open a notebook in the Lab, in the system's chromium, cut off from the network."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=tool("chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": height})
        page.goto(url)
        expect(page.get_by_text("| Idle")).to_be_visible(timeout=60_000)
        yield page
        browser.close()


def run_all(page: Page) -> None:
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
