"""The device console in the real Lab, in a real browser: by mouse in both themes, and once by keyboard alone."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from browser import RUN_TIMEOUT, choose_dark, lab, page_of, photograph, run_all, serious, write_notebook
from conftest import tool
from platform_tools import wait_for
from playwright.sync_api import Locator, Page, expect

from mciot_nb import Workspace

NOTEBOOK = [
    """from mciot_nb import Workspace
from mciot_nb.ui.console import DeviceConsole
workspace = Workspace()
tenant = workspace.tenant()""",
    """device = workspace.device(tenant)
DeviceConsole(device, tenant, workspace.platform())""",
]
#: Milliseconds that a person takes: a press can overtake what was typed right before it, on its way to the kernel.
PAUSE = 150
LEFT, RIGHT = "What the device saw", "What the platform's log says"


@contextmanager
def console(workspace: Workspace, folder: Path, dark: bool = False) -> Iterator[Page]:
    """Open a notebook with a console in the Lab; the platform runs, and the CA is uploaded."""
    tool("chromium")
    workspace.catch_up("upload")
    folder.mkdir()
    write_notebook(folder, NOTEBOOK)
    if dark:
        choose_dark(folder / "jupyterlab_settings_dir")
    with (
        lab(folder, MCIOT_WORKSPACE=str(workspace.folder)) as url,
        page_of(url, height=1700) as page,
    ):
        run_all(page)
        expect(button(page, "Connect")).to_be_visible(timeout=RUN_TIMEOUT)
        yield page


def button(page: Page, name: str) -> Locator:
    return page.locator(".mciot-console").get_by_role("button", name=name, exact=True)


def click(page: Page, name: str) -> None:
    button(page, name).click(delay=PAUSE)


def fill(page: Page, label: str, typed: str) -> None:
    page.get_by_label(label).fill(typed)
    page.wait_for_timeout(PAUSE)


def side(page: Page, title: str) -> Locator:
    """Give one end of the last attempt."""
    return page.locator(".mciot-console div", has=page.locator(f"> strong:text-is({title!r})")).last


def said(page: Page) -> Locator:
    return page.locator(".mciot-console > .mciot-message")


def state(page: Page) -> Locator:
    return page.locator(".mciot-console .mciot-state")


def plot(page: Page, count: int) -> Locator:
    """Give the plot, by its alternative text, once it has so many points."""
    name = re.compile(rf"Plot of c8y_Temperature T: {count} measurements?\b")
    found = page.get_by_role("img", name=name)
    expect(found).to_be_visible()
    expect(found.locator("circle")).to_have_count(count)
    return found


def picture(page: Page, name: str) -> None:
    """Keep a picture at both widths."""
    for width in (800, 1280):
        page.set_viewport_size({"width": width, "height": 1700})
        page.wait_for_timeout(300)
        photograph(page, f"console_{name}_{width}")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_person_connects_sends_is_refused_and_thrown_out(
    quick_workspace: Workspace, tmp_path: Path, dark: bool
) -> None:
    theme = "dark" if dark else "light"
    with console(quick_workspace, tmp_path / "lab", dark) as page:
        tenant = quick_workspace.tenant()
        expect(state(page)).to_contain_text("○ Not connected")
        picture(page, f"new_{theme}")

        fill(page, "ClientId", "somebody-else")  # refused, at both ends
        click(page, "Connect")
        expect(side(page, LEFT)).to_contain_text("CONNACK_5")
        expect(side(page, RIGHT)).to_contain_text("CLIENT_ID_MISMATCH")
        expect(side(page, RIGHT)).to_contain_text("The ClientId 'somebody-else' is not the common name")
        expect(side(page, RIGHT)).to_contain_text("2. C=DE")
        picture(page, f"refused_{theme}")

        fill(page, "ClientId", "device-0001")
        click(page, "Connect")
        expect(state(page)).to_contain_text("✓ Connected to 127.0.0.1:")
        expect(page.locator(".mciot-console").get_by_role("img")).to_have_count(0)
        click(page, "Send measurement")
        plot(page, 1)
        fill(page, "Value", "warm")
        click(page, "Send measurement")
        expect(page.get_by_role("alert")).to_have_text("✗ 'warm' is no number: type one with a point, such as 21.5.")
        fill(page, "Value", "23.25")
        click(page, "Send measurement")
        plot(page, 2)
        assert tenant.devices.measurements("device-0001")["value"].tolist() == [21.5, 23.25]
        with quick_workspace.device(tenant, "device-0001") as other:  # a twin throws it out, and measures
            other.temperature(20)
            expect(side(page, LEFT)).to_contain_text("nobody told the device why")
            expect(side(page, RIGHT)).to_contain_text("The same ClientId connected again")
        click(page, "Connect")
        expect(said(page)).to_have_text("✓ Connected.")

        click(page, "Restart")  # what the platform asks for
        click(page, "Done")
        expect(page.locator(".mciot-console")).to_contain_text("PENDING → EXECUTING → ✓ SUCCESSFUL")
        fill(page, "Command text", "<script>alert(1)</script>")
        click(page, "Command")
        click(page, "Failed…")
        fill(page, "Reason", "it is <b>stuck</b>")
        picture(page, f"asked_{theme}")
        click(page, "Report the failure")
        expect(page.locator(".mciot-console")).to_contain_text("✗ FAILED: it is <b>stuck</b>")
        expect(page.locator(".mciot-console script, .mciot-console b")).to_have_count(0)
        assert [operation.status for operation in tenant.devices.operations("device-0001")] == ["SUCCESSFUL", "FAILED"]

        click(page, "Send event")
        expect(page.get_by_role("row", name="400,c8y_Door,The door was opened")).to_be_visible()
        fill(page, "Series", "")
        click(page, "Send measurement")
        expect(said(page)).to_have_text("⚠ The platform answers with an error: 50,200,The series is missing.")
        expect(page.get_by_role("row", name="⚠ came s/e 50,200,The series is missing.")).to_be_visible()
        assert serious(page, ".mciot-console") == []
        picture(page, f"working_{theme}")

        tenant.trusted_certificates.disable(quick_workspace.issuer_certificate)  # another client
        expect(said(page)).to_contain_text("✗ The connection has ended by itself")
        expect(state(page)).to_contain_text("✗ Not connected")
        expect(side(page, LEFT)).to_contain_text("nobody told the device why")
        expect(side(page, RIGHT)).to_contain_text("Then: The trusted certificate was disabled.")
        click(page, "Connect")
        expect(side(page, LEFT)).to_contain_text("ALERT_UNKNOWN_CA")
        expect(side(page, LEFT)).to_contain_text("paho's note: failed to receive on socket")
        expect(side(page, RIGHT)).to_contain_text("CA_DISABLED")
        assert serious(page, ".mciot-console") == []
        picture(page, f"disabled_{theme}")
        save(page, tmp_path / "lab" / "try.ipynb")
    secret = quick_workspace.passphrase.reveal().encode()
    holding = [path for path in (tmp_path / "lab").rglob("*") if path.is_file() and secret in path.read_bytes()]
    assert holding == [] and b"mciot-console" in (tmp_path / "lab" / "try.ipynb").read_bytes()


def save(page: Page, path: Path) -> None:
    before = path.stat().st_mtime_ns
    page.locator(".jp-CodeCell .jp-InputArea-editor").last.click()
    page.keyboard.press("Control+s")
    wait_for(lambda: path.stat().st_mtime_ns != before and path.stat().st_size)


def test_the_cell_run_again_ends_the_old_connection_cleanly(quick_workspace: Workspace, tmp_path: Path) -> None:
    with console(quick_workspace, tmp_path / "lab") as page:

        def log() -> Any:  # of the device; other records stand there too
            return quick_workspace.platform().log().query("client_id == 'device-0001'")

        for times in (1, 2):
            click(page, "Connect")
            expect(said(page)).to_have_text("✓ Connected.")
            page.locator(".jp-CodeCell .jp-InputArea-editor").last.click()
            page.keyboard.press("Control+Enter")
            expect(state(page)).to_contain_text("○ Not connected")
            expect(page.locator(".mciot-console")).to_have_count(1)
            assert log()["ending"].tolist() == ["The client disconnected."] * times
        click(page, "Connect")
        expect(said(page)).to_have_text("✓ Connected.")
        page.reload()  # the page goes, and the kernel stays
        expect(page.get_by_text("| Idle")).to_be_visible(timeout=60_000)
        assert log()["ended"].isna().tolist() == [False, False, True]
        run_all(page)
        expect(state(page)).to_contain_text("○ Not connected", timeout=RUN_TIMEOUT)
        click(page, "Connect")
        expect(said(page)).to_have_text("✓ Connected.")
        assert log()["ending"].tolist()[:3] == ["The client disconnected."] * 3
        page.get_by_role("menuitem", name="Kernel", exact=True).click()
        page.get_by_role("menuitem", name="Shut Down Kernel", exact=True).click()
        wait_for(lambda: log()["ended"].notna().all())  # the kernel's end is the connection's


def tab_to(page: Page, target: Locator) -> None:
    """Press Tab until the target has the focus, which is seen there."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if target.evaluate("element => element === document.activeElement"):
            return
    raise AssertionError(f"Tab does not lead to {target}")


def press(page: Page, name: str) -> None:
    tab_to(page, button(page, name))
    page.keyboard.press("Enter")


def retype(page: Page, typed: str) -> None:
    page.keyboard.press("Control+a")
    page.keyboard.type(typed)
    page.wait_for_timeout(PAUSE)


def type_into(page: Page, label: str, typed: str) -> None:
    tab_to(page, page.get_by_label(label))
    retype(page, typed)


def test_everything_is_done_by_keyboard_alone(quick_workspace: Workspace, tmp_path: Path) -> None:
    with console(quick_workspace, tmp_path / "lab") as page:
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
        expect(said(page)).to_have_text("✓ Connected.")
        expect(button(page, "Connect")).to_be_focused()  # nobody is thrown out of where they are
        type_into(page, "Value", "24.5")
        press(page, "Send measurement")
        plot(page, 1)
        type_into(page, "Event text", "xxdd")  # letters that are commands in the Lab
        press(page, "Send event")
        expect(page.get_by_role("row", name="400,c8y_Door,xxdd")).to_be_visible()
        page.wait_for_timeout(500)  # what comes while something is being done is passed over
        tab_to(page, page.get_by_label("Severity"))
        page.keyboard.press("ArrowUp")
        press(page, "Raise alarm")
        expect(page.get_by_role("row", name="301,c8y_TooHot")).to_be_visible()
        press(page, "Restart")
        expect(button(page, "Begin")).to_be_visible()
        press(page, "Begin")
        expect(console_).to_contain_text("PENDING → EXECUTING")
        expect(button(page, "Done")).to_be_focused()
        page.keyboard.press("Enter")
        expect(console_).to_contain_text("✓ SUCCESSFUL")
        expect(button(page, "Restart")).to_be_focused()
        press(page, "Command")
        expect(button(page, "Failed…")).to_be_visible()
        press(page, "Failed…")
        expect(page.get_by_label("Reason")).to_be_focused()
        retype(page, "stuck")
        press(page, "Report the failure")
        expect(console_).to_contain_text("✗ FAILED: stuck")
        expect(button(page, "Restart")).to_be_focused()
        for _ in range(60):
            page.keyboard.press("Shift+Tab")
            if button(page, "Disconnect").evaluate("element => element === document.activeElement"):
                break
        page.keyboard.press("Enter")
        expect(said(page)).to_have_text("✓ Disconnected.")
        assert tenant.devices.measurements("device-0001")["value"].tolist() == [24.5]
        assert tenant.devices.events("device-0001")["text"].tolist() == ["xxdd"]
        assert tenant.devices.alarms("device-0001")["severity"].tolist() == ["CRITICAL"]
        expect(page.locator(".jp-CodeCell")).to_have_count(len(NOTEBOOK))  # the Lab took no letter for a command
