"""The page is loaded again, the notebook opened the next day, the kernel restarted: no widget is left a riddle."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from browser import RUN_TIMEOUT, lab, page_of, photograph, run_all, write_notebook
from conftest import ROOT, tool
from playwright.sync_api import Locator, Page, expect

pytestmark = pytest.mark.slow

SETUP = """%reload_ext mciot_nb
from mciot_nb import CaForm, ClassPanel, CompletionForm, DeviceConsole, Laboratory, PassphraseForm, Quiz, SigningPanel
from mciot_nb import TenantForm, TrustedCertificatesPanel, Workspace
workspace = Workspace()
workspace.catch_up("upload")
tenant = workspace.tenant()"""
#: Each widget, and in the order of the cells what shows that it works: a button, and what is said after a press.
WIDGETS = {
    "PassphraseForm(workspace)": ("Type one of your own instead", "keytool wants"),
    "CaForm(workspace)": ("Submit", "✓ Submitted."),
    "SigningPanel(workspace)": ("Open 1000", "Subject Key Identifier"),
    "TrustedCertificatesPanel(workspace)": ("Refresh", "✓ "),
    "TenantForm(workspace)": ("Test", "✓ "),
    "ClassPanel(workspace)": ("Open t1001", "Reset this tenant"),
    "CompletionForm(workspace)": ("Submit", "✓ Submitted."),
    "Laboratory(workspace)": ("Open Nothing is wrong", "Close"),
    "Quiz(workspace)": ("Ask me", "Stop here: the passphrase"),  # of which the first form has a half
    "DeviceConsole(workspace)": ("Connect", "✓ Connected"),
}
PICTURED = "Run this cell again to use it."
DEAD = "The kernel was restarted or shut down, so nothing here works any more: run this cell again."
RIDDLES = re.compile("Loading widget|model not found")
BEFORE = "element => getComputedStyle(element, '::before').content"


@contextmanager
def opened(folder: Path, dark: bool = False, *, ours: bool = True) -> Iterator[Page]:
    """Open a notebook with every widget in the Lab, with the tutorial's settings or without, and run it."""
    tool("chromium")
    path = write_notebook(folder, [SETUP, *WIDGETS])
    environment = {"MCIOT_WORKSPACE": str(folder / "workspace")}
    environment["JUPYTER_CONFIG_PATH"] = str(ROOT / "jupyter-config") if ours else ""  # run.py may have set it
    with lab(folder, dark=dark, **environment) as url, page_of(url, height=4600) as page:
        assert path.exists()
        run_all(page)
        wait_until_live(page)
        yield page


def outputs(page: Page) -> Locator:
    return page.locator(".jp-CodeCell .jp-OutputArea-output")


def wait_until_live(page: Page) -> None:
    expect(page.locator(".jp-OutputArea-output .mciot-form")).to_have_count(len(WIDGETS), timeout=90_000)
    expect(page.get_by_role("button", name="Connect", exact=True)).to_be_visible()


def save_and(page: Page, *menu: str) -> None:
    """Save the notebook, choose something in the menu of the kernel, and load the page again."""
    page.get_by_role("menuitem", name="File", exact=True).click()
    page.locator(".lm-Menu-item", has_text="Save Notebook").first.click()
    expect(page.locator(".lm-TabBar-tab.jp-mod-dirty")).to_have_count(0)
    in_kernel_menu(page, *menu)
    page.reload()
    expect(page.locator(".jp-CodeCell")).to_have_count(len(WIDGETS) + 1)


def reload_unsaved(page: Page) -> None:
    """Load the page again without saving: the widgets that the kernel has are there again."""
    page.once("dialog", lambda dialog: dialog.accept())
    page.reload()
    expect(page.locator(".jp-CodeCell")).to_have_count(len(WIDGETS) + 1)
    wait_until_live(page)


def in_kernel_menu(page: Page, *words: str) -> None:
    for word in words:
        page.get_by_role("menuitem", name="Kernel", exact=True).click()
        page.locator(".lm-Menu-item", has_text=word).first.click()
        if "…" in word:
            page.locator(".jp-Dialog .jp-mod-accept").click()
        state = "No Kernel" if word == "Shut Down Kernel" else "Python 3 (ipykernel) | Idle"
        expect(page.get_by_text(state).first).to_be_visible()


def check_all_work(page: Page) -> None:
    for number, (button, said) in enumerate(WIDGETS.values()):
        form = page.locator(".jp-OutputArea-output .mciot-form").nth(number)
        if button.startswith("Type"):
            form.get_by_text(button).click()
            form.locator("input[type=password]").first.fill("short")
            form.locator("input[type=password]").first.press("Enter")
        else:
            form.get_by_role("button", name=button, exact=True).click()
        expect(form).to_contain_text(said)


def test_a_page_that_is_loaded_again_goes_on(tmp_path: Path) -> None:
    with opened(tmp_path) as page:
        reload_unsaved(page)  # the file has no output at all
        save_and(page)
        wait_until_live(page)
        expect(page.get_by_text(PICTURED)).to_have_count(0)
        run_all(page)  # new widgets, while the file names the old ones
        last = page.locator(".jp-CodeCell .jp-InputPrompt").last
        expect(last).to_have_text(f"[{2 * len(WIDGETS) + 2}]:", timeout=RUN_TIMEOUT)
        reload_unsaved(page)
        check_all_work(page)


@pytest.mark.parametrize(("theme", "menu"), [("light", "Shut Down Kernel"), ("dark", "Restart Kernel…")])
def test_what_is_opened_without_its_kernel_is_a_picture_and_says_so(tmp_path: Path, theme: str, menu: str) -> None:
    with opened(tmp_path, theme == "dark") as page:
        save_and(page, menu)
        expect(page.get_by_text(PICTURED)).to_have_count(len(WIDGETS))
        expect(page.locator(".jp-Notebook")).not_to_contain_text(RIDDLES)
        expect(outputs(page).last).to_contain_text("Device console: device-0001")
        photograph(page, f"reopened_{theme}")
        run_all(page)  # the control: then they live
        wait_until_live(page)
        expect(page.get_by_text(PICTURED)).to_have_count(0)
        check_all_work(page)


def test_without_our_settings_it_is_a_riddle(tmp_path: Path) -> None:
    with opened(tmp_path, ours=False) as page:
        save_and(page, "Shut Down Kernel")
        expect(page.locator(".jp-Notebook")).to_contain_text(RIDDLES)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_kernel_that_restarts_is_said_at_once_on_every_widget(tmp_path: Path, theme: str) -> None:
    with opened(tmp_path, theme == "dark") as page:
        forms = page.locator(".jp-OutputArea-output .mciot-form")
        assert DEAD not in forms.first.evaluate(BEFORE)
        in_kernel_menu(page, "Restart Kernel…")
        for form in forms.all():
            expect(form).to_have_class(re.compile("jupyter-widgets-disconnected"))
            assert form.evaluate(BEFORE) == f'"{DEAD}"'
            for control in form.locator("button:visible, input:visible, select:visible").all():
                expect(control).to_have_css("pointer-events", "none")
        photograph(page, f"restarted_{theme}")
        run_all(page)
        expect(page.locator(".jp-OutputArea-output .jupyter-widgets-disconnected")).to_have_count(0)
        wait_until_live(page)
        check_all_work(page)
