"""Accessibility: axe-core looks over what each notebook shows, and one form is filled in by keyboard alone."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import notebook, photograph, run_all, serious, tutorial, wait_until_done
from playwright.sync_api import expect

from tools.notebooks import NOTEBOOKS

pytestmark = pytest.mark.slow

#: What our cells put on the page; the Lab around it is not ours to mend.
OURS = ".jp-OutputArea-output"


@pytest.fixture(scope="module", params=["light", "dark"])
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with tutorial(tmp_path_factory.mktemp(request.param), dark=request.param == "dark") as address:
        yield address


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_axe_finds_nothing_serious(lab: str, path: Path, request: pytest.FixtureRequest) -> None:
    with notebook(lab, path) as page:
        run_all(page)
        wait_until_done(page, path)
        theme = request.node.callspec.params["lab"]
        for width in (800, 1280):
            page.set_viewport_size({"width": width, "height": 4200})
            page.wait_for_timeout(300)  # for the picture only
            photograph(page, f"{path.stem}_{theme}_{width}")
        for details in page.locator(".jp-OutputArea-output details").all():  # what is folded is looked over, too
            details.evaluate("element => { element.open = true; }")
        assert serious(page, OURS) == []
        page.locator(".jp-OutputArea-output").first.evaluate(  # the control: axe-core sees what is wrong
            "element => element.insertAdjacentHTML('beforeend', '<img src=\"data:,\"><button></button>')"
        )
        assert [finding.split(" ")[0] for finding in serious(page, OURS)] == ["button-name", "image-alt"]


def test_a_form_is_filled_in_by_keyboard_alone(lab: str) -> None:
    first = NOTEBOOKS[1]
    with notebook(lab, first) as page:
        run_all(page)
        wait_until_done(page, first)
        page.get_by_label("Country Name").focus()  # as Tab from the cell above would, through the Lab's own elements
        page.keyboard.press("Control+a")
        page.keyboard.type("DEU")
        expect(page.locator(".mciot-country-note")).to_contain_text("two-letter code")
        for key in ("Backspace", "Backspace", "K"):
            page.keyboard.press(key)
        expect(page.locator(".mciot-country-note")).not_to_contain_text("two-letter code")
        focused = page.locator(":focus")
        for _ in range(6):  # to the last of the seven fields of the subject
            page.keyboard.press("Tab")
        expect(page.get_by_label("Email Address")).to_be_focused()
        for _ in range(5):  # past what else the form asks for, to its button
            page.keyboard.press("Tab")
            if focused.inner_text() == "Submit":
                break
        expect(focused).to_have_text("Submit")
        outline = focused.evaluate("one => getComputedStyle(one).outlineStyle + getComputedStyle(one).outlineWidth")
        assert outline not in ("none0px", "none"), "where the focus is must be seen"
        page.keyboard.press("Enter")
        expect(page.locator(".mciot-message").first).to_contain_text("Submitted")
        expect(page.locator(".mciot-preview").first).to_contain_text("C=DK")
