"""The device console in the real Lab, in a real browser: by mouse in both themes, and once by keyboard alone."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from browser import RUN_TIMEOUT, Notebooks, notebooks, photograph, retype, run_all, save, serious, tab_to
from platform_tools import wait_for
from playwright.sync_api import Locator, Page, expect

from mciot_nb import Workspace

pytestmark = pytest.mark.slow
__all__ = ["notebooks"]  # the fixture

LEFT, RIGHT = "What the device saw", "What the platform's log says"


@contextmanager
def console(notebooks: Notebooks, workspace: Workspace, **options: Any) -> Iterator[Page]:
    """Open a notebook with a console in the Lab; the platform runs, and the CA is uploaded."""
    workspace.catch_up("upload")
    cells = [
        f"""from mciot_nb import DeviceConsole, Workspace
workspace = Workspace({str(workspace.folder)!r})
tenant = workspace.tenant()""",
        "DeviceConsole(workspace)",
    ]
    with notebooks.run(cells, **options) as page:
        expect(button(page, "Connect")).to_be_visible(timeout=RUN_TIMEOUT)
        yield page


def button(page: Page, name: str) -> Locator:
    return page.locator(".mciot-console").get_by_role("button", name=name, exact=True)


def click(page: Page, name: str) -> None:
    button(page, name).click()


def fill(page: Page, label: str, typed: str) -> None:
    """Type as a person does, key by key; what is pressed next is pressed at once."""
    page.get_by_label(label).focus()
    retype(page, typed)


def side(page: Page, title: str) -> Locator:
    """One end of the last attempt."""
    return page.locator(".mciot-console div", has=page.locator(f"> strong:text-is({title!r})")).last


def said(page: Page) -> Locator:
    return page.locator(".mciot-console > .mciot-message")


def state(page: Page) -> Locator:
    return page.locator(".mciot-console .mciot-state")


def plot(page: Page, count: int) -> Locator:
    """The plot, by its alternative text, once it has so many points."""
    return page.get_by_role("img", name=re.compile(rf"Plot of c8y_Temperature T: {count} measurements?\b"))


def picture(page: Page, name: str) -> None:
    """Keep a picture at both widths."""
    for width in (800, 1280):
        page.set_viewport_size({"width": width, "height": 1700})
        page.wait_for_timeout(300)
        photograph(page, f"console_{name}_{width}")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_person_is_refused_connects_sends_and_answers(
    quick_workspace: Workspace, notebooks: Notebooks, dark: bool
) -> None:
    theme = "dark" if dark else "light"
    with console(notebooks, quick_workspace, dark=dark) as page:
        tenant = quick_workspace.tenant()
        expect(state(page)).to_contain_text("○ Not connected")
        fill(page, "ClientId", "somebody-else")  # refused, at both ends
        click(page, "Connect")
        expect(side(page, LEFT)).to_contain_text("CONNACK_5")
        expect(side(page, RIGHT)).to_contain_text("CLIENT_ID_MISMATCH")
        picture(page, f"refused_{theme}")

        for typed in ("device-0001", "20", "23.25"):  # right after typing, and while the panel is busy
            fill(page, "ClientId" if typed.startswith("dev") else "Value", typed)
            click(page, "Connect" if typed.startswith("dev") else "Send measurement")
        expect(state(page)).to_contain_text("✓ Connected to 127.0.0.1:")
        expect(plot(page, 2)).to_be_visible()
        assert tenant.devices.measurements("device-0001")["value"].tolist() == [20.0, 23.25]
        click(page, "Command")  # what the platform asks for
        click(page, "Failed…")
        fill(page, "Reason", "it is <b>stuck</b>")
        picture(page, f"asked_{theme}")
        click(page, "Report the failure")
        expect(page.locator(".mciot-console")).to_contain_text("✗ FAILED: it is <b>stuck</b>")
        expect(page.locator(".mciot-console script, .mciot-console b")).to_have_count(0)
        assert serious(page, ".mciot-console") == []
        picture(page, f"working_{theme}")
        page.locator(".jp-CodeCell .jp-InputArea-editor").last.click()
        assert "mciot-console" in save(page, page.path)  # type: ignore[attr-defined]
    secret = quick_workspace.passphrase.reveal().encode()
    assert [p for p in notebooks.folder.rglob("*") if p.is_file() and secret in p.read_bytes()] == []


def test_the_connection_outlives_the_page_and_ends_with_the_cell_or_the_kernel(
    quick_workspace: Workspace, notebooks: Notebooks
) -> None:
    def endings() -> list[str]:  # of the device's connections; empty where there is none yet
        log = quick_workspace.platform().log().query("client_id == 'device-0001'")
        return log["ending"].fillna("").tolist()

    with console(notebooks, quick_workspace) as page:
        ended = "The client disconnected."
        click(page, "Connect")
        expect(said(page)).to_have_text("✓ Connected.")
        page.reload()  # the page goes, and the kernel stays
        expect(page.get_by_text("| Idle")).to_be_visible(timeout=60_000)
        assert endings() == [""]
        run_all(page)
        expect(state(page)).to_contain_text("○ Not connected", timeout=RUN_TIMEOUT)
        expect(page.locator(".mciot-console")).to_have_count(1)
        click(page, "Connect")
        expect(said(page)).to_have_text("✓ Connected.")
        wait_for(lambda: endings() == [ended, ""], 60)
        page.get_by_role("menuitem", name="Kernel", exact=True).click()
        page.get_by_role("menuitem", name="Shut Down Kernel", exact=True).click()
        wait_for(lambda: all(endings()), 60)  # the kernel's end is the connection's


#: The rows of the console whose buttons are not beside their fields; and how many lines a table's cell takes.
TORN = """() => [...document.querySelectorAll(".mciot-console .mciot-row")].filter((row) => {
  const parts = [...row.children].filter((one) => one.matches(".widget-button, .widget-text, .widget-dropdown"));
  const middles = parts.map((one) => one.getBoundingClientRect()).map((box) => box.top + box.height / 2);
  return Math.max(...middles) - Math.min(...middles) > 8;
}).map((row) => row.innerText)"""
LINES = """(cell) => {
  const range = document.createRange();
  range.selectNodeContents(cell);
  return new Set([...range.getClientRects()].map((box) => Math.round(box.top))).size;
}"""
#: What is typed into a field before Enter, and what comes of it.
ENTERED = (
    ("ClientId", "somebody-else", "CONNACK_5"),
    ("ClientId", "device-0001", "✓ Connected."),
    ("Value", "22.5", "200,c8y_Temperature,T,22.5,C"),
    ("Event text", "ajar", "400,c8y_Door,ajar"),
    ("Alarm text", "hot", "302,c8y_TooHot,hot"),
    ("Command text", "close", "c8y_Command close has arrived"),
    ("Reason", "stuck", "✗ FAILED: stuck"),
)


def test_enter_in_a_field_does_what_its_button_does(quick_workspace: Workspace, notebooks: Notebooks) -> None:
    with console(notebooks, quick_workspace) as page:
        expect(page.locator(".jp-DirListing-content")).to_be_visible()  # the file browser takes its part of the width
        for width, found in ((800, "> 0"), (1240, "== 0")):  # the control; and a scroll bar takes some, too
            page.set_viewport_size({"width": width, "height": 1400})
            page.wait_for_function(f"({TORN})().length {found}")  # the Lab lays it out anew after a while
        for label, typed, then in ENTERED:
            if label == "Reason":
                click(page, "Failed…")
            fill(page, label, typed)
            page.keyboard.press("Enter")
            expect(page.locator(".mciot-console")).to_contain_text(then)
        picture(page, "entered")
        assert quick_workspace.tenant().devices.events("device-0001")["text"].tolist() == ["ajar"]
        page.set_viewport_size({"width": 1100, "height": 1400})
        click(page, "Restart")
        assert page.locator(".mciot-console th", has_text=re.compile("^c8y_Restart$")).evaluate(LINES) == 1


def press(page: Page, name: str, key: str = "Enter") -> None:
    tab_to(page, button(page, name))
    page.keyboard.press(key)


def test_everything_is_done_by_keyboard_alone(quick_workspace: Workspace, notebooks: Notebooks) -> None:
    with console(notebooks, quick_workspace) as page:
        tenant, console_ = quick_workspace.tenant(), page.locator(".mciot-console")
        page.get_by_label("ClientId").focus()  # as Tab from the cell above would, through the Lab's own elements
        retype(page, "somebody-else")
        press(page, "Connect")
        expect(side(page, LEFT)).to_contain_text("CONNACK_5")
        expect(side(page, RIGHT)).to_contain_text("CLIENT_ID_MISMATCH")
        page.keyboard.press("Shift+Tab")
        expect(page.get_by_label("ClientId")).to_be_focused()
        retype(page, "device-0001")
        press(page, "Connect")
        expect(said(page)).to_contain_text("✓ Connected.")
        expect(button(page, "Connect")).to_be_focused()  # the focus stays where it is
        tab_to(page, page.get_by_label("Value"))
        retype(page, "24.5")
        press(page, "Send measurement", "Space")
        tab_to(page, page.get_by_label("Event text"))
        retype(page, "xxdd")  # letters that are commands in the Lab
        press(page, "Send event")  # while the measurement is being sent
        tab_to(page, page.get_by_label("Severity"))
        page.keyboard.press("ArrowUp")
        press(page, "Raise alarm")
        press(page, "Restart")
        expect(page.get_by_role("row", name="400,c8y_Door,xxdd")).to_be_visible()
        expect(page.get_by_role("row", name="301,c8y_TooHot")).to_be_visible()
        expect(plot(page, 1)).to_be_visible()
        expect(button(page, "Begin")).to_be_visible()
        press(page, "Begin")
        expect(console_).to_contain_text("PENDING → EXECUTING")
        expect(button(page, "Begin")).to_be_focused()  # no button comes under a key that is pressed twice
        press(page, "Done")
        expect(console_).to_contain_text("✓ SUCCESSFUL")
        expect(page.get_by_label("Command text")).to_be_focused()
        press(page, "Command")
        expect(button(page, "Failed…")).to_be_visible()
        press(page, "Failed…")
        expect(page.get_by_label("Reason")).to_be_focused()
        retype(page, "stuck")
        press(page, "Report the failure")
        expect(console_).to_contain_text("✗ FAILED: stuck")
        expect(page.get_by_label("Command text")).to_be_focused()
        tab_to(page, button(page, "Disconnect"), "Shift+Tab")
        page.keyboard.press("Enter")
        expect(said(page)).to_contain_text("✓ Disconnected.")
        assert tenant.devices.measurements("device-0001")["value"].tolist() == [24.5]
        assert tenant.devices.events("device-0001")["text"].tolist() == ["xxdd"]
        assert tenant.devices.alarms("device-0001")["severity"].tolist() == ["CRITICAL"]
        expect(page.locator(".jp-CodeCell")).to_have_count(2)  # the Lab took no letter for a command
