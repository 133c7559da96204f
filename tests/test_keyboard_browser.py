"""Keyboard alone, from 01 to the connected device of 07: no trap, nothing out of reach, and the focus is always seen,
in both themes.

Cells are run by the Lab's command palette (Ctrl+Shift+C); everything else is Tab, Enter, Space and typing.
"""

import re
from pathlib import Path

import pytest
from browser import page_of, photograph, retype, tab_to, tutorial, wait_until_done
from playwright.sync_api import Locator, Page, expect

from tools.notebooks import NOTEBOOKS

pytestmark = pytest.mark.slow

#: Marks what the focus has reached; returns whether that can be seen, None outside of our outputs.
SEEN = """() => {
  const element = document.activeElement, style = getComputedStyle(element);
  if (!element.closest(".jp-OutputArea-output")) return null;
  element.dataset.reached = "yes";
  return style.outlineStyle !== "none" || style.boxShadow !== "none" || element.outerHTML.slice(0, 200);
}"""
#: What Tab has to reach: of radio buttons the chosen one, and of what is folded nothing.
OUT_OF_REACH = """() => [...document.querySelectorAll(".jp-OutputArea-output :is(a, button, input, select, summary)")]
  .filter((one) => one.checkVisibility() && !one.disabled && !(one.type === "radio" && !one.checked))
  .filter((one) => one.dataset.reached !== "yes").map((one) => one.outerHTML.slice(0, 200))"""


def command(page: Page, name: str) -> None:
    """Choose a command of the Lab by keyboard."""
    page.keyboard.press("Control+Shift+c")
    palette = page.locator(".lm-CommandPalette-input")
    expect(palette).to_be_focused()
    page.keyboard.type(name)
    expect(page.locator(".lm-CommandPalette-item.lm-mod-active")).to_contain_text(name)
    page.keyboard.press("Enter")
    expect(palette).to_be_hidden()


def press(page: Page, part: Locator, key: str = "Enter") -> None:
    tab_to(page, part)
    page.keyboard.press(key)


def button(page: Page, name: str) -> Locator:
    return page.locator(".jp-OutputArea-output").get_by_role("button", name=name, exact=True)


def go_round(page: Page) -> None:
    """Press Tab until the focus has come by the page's first link twice: it was everywhere, and could be seen."""
    rounds = 0
    for _ in range(250):
        page.keyboard.press("Tab")
        assert page.evaluate(SEEN) in (True, None)
        rounds += page.evaluate("document.activeElement.matches('.skip-link')")
        if rounds == 2:
            break
    assert rounds == 2, "Tab is caught somewhere"
    assert page.evaluate(OUT_OF_REACH) == []


def go_round_in_both_themes(page: Page) -> None:
    """Go round, and again in the other theme, which the next notebook is opened in."""
    go_round(page)
    body = page.locator("body")
    was_light = body.get_attribute("data-jp-theme-light") == "true"
    command(page, f"Use Theme: JupyterLab {'Dark' if was_light else 'Light'}")
    expect(body).to_have_attribute("data-jp-theme-light", "false" if was_light else "true")
    page.evaluate("document.querySelectorAll('[data-reached]').forEach((one) => delete one.dataset.reached)")
    go_round(page)


def make_a_ca(page: Page) -> None:
    form = page.locator(".mciot-form", has=page.get_by_label("Common Name"))
    press(page, form.locator("summary"))
    expect(form.get_by_text("critical: CA:TRUE")).to_be_visible()
    tab_to(page, form.get_by_label("Common Name"), "Shift+Tab")
    retype(page, "Keyboard CA")
    tab_to(page, form.get_by_label("Key", exact=True))
    page.keyboard.type("P")
    press(page, form.locator(".mciot-submit"))
    expect(form.locator(".mciot-message")).to_contain_text("✓ Submitted.")
    command(page, "Select Cell Below")
    command(page, "Run Selected Cell and All Below")
    expect(page.get_by_text("CA certificate of Keyboard CA")).to_be_visible()


def open_a_row(page: Page) -> None:
    press(page, button(page, "Open 1000"))
    expect(page.locator(".mciot-opened")).to_contain_text("Subject Key Identifier")
    press(page, button(page, "Close 1000"), "Space")
    expect(page.locator(".mciot-opened")).to_be_hidden()


def unfold_a_store(page: Page) -> None:
    folded = page.locator(".jp-OutputArea-output details", has_text="SHA-256").first
    press(page, folded.locator("summary"))
    expect(folded.locator("code").first).to_be_visible()


def upload(page: Page) -> None:
    press(page, button(page, "Upload"))
    expect(page.get_by_text("“Keyboard CA”").first).to_be_visible()
    press(page, button(page, "Open Keyboard CA"), "Space")
    expect(button(page, "Disable")).to_be_visible()


def connect_and_send(page: Page) -> None:
    console = page.locator(".mciot-console")
    for name, said in (("somebody-else", "CLIENT_ID_MISMATCH"), ("device-0001", "✓ Connected to")):
        tab_to(page, console.get_by_label("ClientId"), "Tab" if name == "somebody-else" else "Shift+Tab")
        retype(page, name)
        press(page, button(page, "Connect"))
        expect(console).to_contain_text(said)
    tab_to(page, console.get_by_label("Value"))
    retype(page, "23.5")
    press(page, button(page, "Send measurement"), "Space")
    expect(page.get_by_role("img", name=re.compile("Plot of c8y_Temperature T: .* the last is 23.5 C"))).to_be_visible()


#: What is done in which notebook besides running it and going round.
DONE = {"01": make_a_ca, "03": open_a_row, "05": unfold_a_store, "06": upload, "07": connect_and_send}


def test_keyboard_alone_goes_through_01_to_07(tmp_path: Path) -> None:
    with tutorial(tmp_path) as lab:
        for path in NOTEBOOKS[1:8]:
            with page_of(lab.format(name=path.name)) as page:
                command(page, "Clear Outputs of All Cells")
                command(page, "Run All Cells")
                wait_until_done(page, path)
                DONE.get(path.stem[:2], lambda _: None)(page)
                photograph(page, f"keyboard_{path.stem[:2]}")
                go_round_in_both_themes(page)
                if path == NOTEBOOKS[1]:
                    see_that_it_would_be_seen(page)


def see_that_it_would_be_seen(page: Page) -> None:
    """The controls: a button out of reach, one whose focus can't be seen, and a trap."""
    for wrong, words in (
        ('<button tabindex="-1">wrong</button>', "wrong"),
        ('<button style="outline:none!important">wrong</button>', "wrong"),
        ('<button onblur="this.focus()" onkeydown="event.preventDefault()">wrong</button>', "caught"),
    ):
        page.locator(".mciot-submit").first.evaluate("(one, html) => one.insertAdjacentHTML('afterend', html)", wrong)
        with pytest.raises(AssertionError, match=words):
            go_round(page)
        page.get_by_role("button", name="wrong").evaluate("one => one.remove()")
