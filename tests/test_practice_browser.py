"""Questions and exercises in the real Lab: by mouse and keyboard, in both themes, trusted or not, with no kernel."""

import shutil
from pathlib import Path

import pytest
from browser import lab, page_of, photograph, run_all, serious, tab_to
from conftest import tool
from playwright.sync_api import expect

from tools.notebooks import NOTEBOOKS

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("dark", "width"), [(False, 1280), (True, 800)], ids=["light", "dark"])
def test_an_answer_opens_by_a_click_or_enter_and_the_check_shows_what_is_done(
    tmp_path: Path, dark: bool, width: int
) -> None:
    tool("chromium")
    shutil.copy(NOTEBOOKS[0], tmp_path / "try.ipynb")  # as cloned: not trusted, and nothing was run
    workspace = tmp_path / "workspace"
    with lab(tmp_path, dark, MCIOT_WORKSPACE=str(workspace)) as url, page_of(url, height=4200, width=width) as page:
        answers = page.locator(".jp-RenderedMarkdown details", has_text="✓ Right.")
        right, wrong = answers.first, page.locator(".jp-RenderedMarkdown details", has_text="✗ No.").first
        reason = "It is uploaded once, and every device"
        expect(right.get_by_text(reason)).to_be_hidden()
        wrong.locator("summary").click()
        expect(wrong.get_by_text("You upload nothing about the device.")).to_be_visible()
        tab_to(page, right.locator("summary"))
        page.keyboard.press("Enter")
        expect(right.get_by_text(reason)).to_be_visible()
        border = "element => getComputedStyle(element).borderTopStyle"
        assert right.evaluate(border) == "solid", "its style is kept where nothing is trusted"

        check = page.locator(".jp-OutputArea-output", has_text="Your exercises in 00")
        expect(check).to_contain_text("0 of 2 done")
        (workspace / "practice").mkdir(parents=True)
        (workspace / "practice" / "where.txt").write_text(str(workspace / "caCertificate"))
        run_all(page)
        expect(check).to_contain_text("1 of 2 done", timeout=90_000)
        expect(check).to_contain_text("Right. The folder itself appears in 01.")
        assert serious(page, ".jp-RenderedMarkdown") + serious(page, ".jp-OutputArea-output") == []
        photograph(page, f"practice-{'dark' if dark else 'light'}")
