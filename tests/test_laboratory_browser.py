"""The laboratory and the quiz in the real Lab, in a real browser: by keyboard alone, in both themes."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from browser import RUN_TIMEOUT, Notebooks, notebooks, photograph, retype, serious, tab_to
from playwright.sync_api import Locator, Page, expect

from mciot_nb import Workspace

pytestmark = pytest.mark.slow
__all__ = ["notebooks"]  # the fixture


@contextmanager
def opened(notebooks: Notebooks, workspace: Workspace, widget: str, **options: Any) -> Iterator[Page]:
    """Open a notebook with one of the two in the Lab."""
    workspace.platform()
    setup = f"from mciot_nb import Laboratory, Quiz, Workspace\nworkspace = Workspace({str(workspace.folder)!r})"
    with notebooks.run([setup, f"{widget}(workspace)"], **options) as page:
        expect(page.locator(".mciot-form")).to_be_visible(timeout=RUN_TIMEOUT)
        yield page


def button(page: Page, name: str) -> Locator:
    return page.locator(".mciot-form").get_by_role("button", name=name, exact=True)


def press(page: Page, name: str) -> None:
    tab_to(page, button(page, name))
    page.keyboard.press("Enter")


def side(page: Page, title: str) -> Locator:
    return page.locator(".mciot-form .mciot-half", has=page.locator(f"> strong:text-is({title!r})"))


def said(page: Page) -> Locator:
    return page.locator(".mciot-form > .mciot-message")


def picture(page: Page, name: str) -> None:
    """Keep a picture at both widths."""
    for width in (800, 1280):
        page.set_viewport_size({"width": width, "height": 1700})
        page.wait_for_timeout(300)
        photograph(page, f"laboratory_{name}_{width}")


def choose(page: Page, words: str) -> None:
    """Filter the cases, and open the one that is left."""
    page.locator(".mciot-table-top input").focus()
    retype(page, words)
    expect(page.locator(".mciot-live-table tbody tr")).to_have_count(1)
    tab_to(page, page.locator(".mciot-live-table tbody button"))
    page.keyboard.press("Enter")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_case_is_chosen_made_put_right_and_connected_by_keyboard(
    quick_workspace: Workspace, notebooks: Notebooks, dark: bool
) -> None:
    theme = "dark" if dark else "light"
    with opened(notebooks, quick_workspace, "Laboratory", dark=dark) as page:
        picture(page, f"list_{theme}")
        choose(page, "same name")
        press(page, "Make it, and try")
        expect(said(page)).to_have_text("✗ Not connected: ALERT_UNKNOWN_CA.")
        picture(page, f"refused_{theme}")
        expect(side(page, "What was predicted")).to_contain_text("UNKNOWN_CA")
        expect(side(page, "What the client saw")).to_contain_text("ALERT_UNKNOWN_CA")
        expect(side(page, "What the platform's log says")).to_contain_text("UNKNOWN_CA")
        expect(side(page, "How it is put right")).to_contain_text("has the same name and another key")
        expect(button(page, "Put it right, and try again")).to_be_focused()  # the next press
        page.keyboard.press("Enter")
        expect(said(page)).to_have_text("✓ Connected.")
        expect(side(page, "What was predicted")).to_contain_text("✓ OK")
        expect(side(page, "What the client saw")).to_contain_text("CONNACK 0")
        expect(side(page, "What the platform's log says")).to_contain_text("✓ CONNECTED")
        expect(button(page, "Put it right, and try again")).to_be_hidden()
        picture(page, f"connected_{theme}")
        assert serious(page, ".mciot-form") == []
        tenant = quick_workspace.tenant()
        assert len(tenant.trusted_certificates.list()) == 2
        tab_to(page, page.locator(".mciot-live-table tbody button"), "Shift+Tab")
        page.keyboard.press("Enter")  # which closes the row
        expect(said(page)).to_have_text("The previous case was removed from the tenant.")
        assert tenant.trusted_certificates.list() == []


def test_the_quiz_is_answered_by_keyboard(quick_workspace: Workspace, notebooks: Notebooks) -> None:
    with opened(notebooks, quick_workspace, "Quiz") as page:
        press(page, "Ask me")
        for _ in range(2):
            expect(said(page)).to_have_text("Which of these is it?")
            choices = page.locator(".mciot-form .widget-vbox button")
            expect(choices).to_have_count(4)
            expect(choices.first).to_be_focused()
            picture(page, "quiz_asked")
            reasons = ["Which of these is it?"]
            for choice in choices.all():
                if reasons[1:]:
                    tab_to(page, choice)
                page.keyboard.press("Enter")
                expect(said(page)).not_to_have_text(reasons[-1])
                expect(said(page)).to_have_text(re.compile("^(✓ Right|✗ Not “.*”: then)"))
                reasons.append(said(page).inner_text())
            picture(page, "quiz_answered")
            assert [one[:34] for one in reasons].count("✓ Right. The platform's log says: ") == 1
            assert len(set(reasons)) == 5
            press(page, "Next question")
        assert serious(page, ".mciot-form") == []
    assert quick_workspace.tenant().trusted_certificates.list() == []
