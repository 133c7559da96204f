"""The signing database, live, in the real Lab: seen, filtered, opened and revoked as a person does, by keyboard too."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from browser import Notebooks, notebooks, photograph, run_all, run_last_cell, serious, tab_to
from conftest import PASSPHRASE, Run
from playwright.sync_api import Page, expect

from mciot_nb import CertificateAuthority
from mciot_nb.pki.crl import read_crl
from mciot_nb.pki.keys import KeyType, create_key, create_request
from mciot_nb.pki.names import DistinguishedName

pytestmark = pytest.mark.slow
__all__ = ["notebooks"]  # the fixture

OPEN = """import pathlib, threading
from mciot_nb import CertificateAuthority, SigningPanel
from mciot_nb.pki.keys import read_request
from mciot_nb.ui import panel
panel.GRACE, panel.PATIENCE = 3, 20
folder = pathlib.Path({folder!r})
ca = CertificateAuthority.open(folder / "caCertificate", {passphrase!r})"""
SHOW = "SigningPanel(ca)"
SIGN = """if (folder / "go").exists():
    ca.sign(read_request(folder / "ours.csr"))
(folder / "result.txt").write_text("signed")"""
THREADS = """pollers = [thread.name for thread in threading.enumerate() if "_poll" in thread.name]
(folder / "result.txt").write_text(str(len(pollers)))"""

NAMES = ["one", "two", "thr<b>ee", *(f"device-{number:02}" for number in range(10))]


@pytest.fixture
def ca(ca: CertificateAuthority, tmp_path: Path) -> CertificateAuthority:
    """A CA with some rows, and two requests that are not signed."""
    key = create_key(tmp_path / "key.pem", PASSPHRASE, KeyType.P256)

    def request(name: str, path: Path) -> Any:
        subject = DistinguishedName(country="DE", organization="Example Company", common_name=name)
        return create_request(path, key, subject)

    ca.sign_many([request(name, tmp_path / f"{number}.csr") for number, name in enumerate(NAMES)])
    ca.revoke(0x1003, "cessationOfOperation")
    for name in ("ours", "openssls"):
        request(f"by {name}", tmp_path / f"{name}.csr")
    return ca


@contextmanager
def shown(notebooks: Notebooks, folder: Path, *cells: str, **options: Any) -> Iterator[Page]:
    """Open a notebook that shows the panel, and run it; no cell may write a traceback."""
    opening = OPEN.format(folder=str(folder), passphrase=PASSPHRASE)
    with notebooks.run([opening, SHOW, *cells], **options) as page:
        expect(page.get_by_role("rowheader").first).to_be_visible()
        yield page
        wrong = '[data-mime-type="application/vnd.jupyter.error"], [data-mime-type="application/vnd.jupyter.stderr"]'
        assert page.locator(wrong).all_inner_texts() == []


def openssl_signs(openssl: Run, ca: CertificateAuthority, request: Path) -> None:
    options = ("-extensions", "v3_signed", "-notext", "-in", request, "-out", request.with_suffix(".pem"))
    openssl("ca", "-batch", "-config", ca.config.path, "-passin", "env:PASS", *options)


def status(page: Page) -> Any:
    return page.locator(".mciot-table-status")


def row(page: Page, serial: str) -> Any:
    return page.get_by_role("row").filter(has=page.get_by_role("rowheader", name=serial))


def test_the_table_grows_whoever_signs_and_is_looked_through(
    ca: CertificateAuthority, tmp_path: Path, openssl: Run, notebooks: Notebooks
) -> None:
    with shown(notebooks, tmp_path, SIGN) as page:
        expect(status(page)).to_have_text("13 rows.")
        (tmp_path / "go").touch()
        assert run_last_cell(page, tmp_path / "result.txt") == "signed"
        expect(status(page)).to_have_text("1 new: 100D. 14 rows.")
        openssl_signs(openssl, ca, tmp_path / "openssls.csr")  # without touching the notebook
        expect(status(page)).to_have_text("1 new: 100E. 15 rows.")
        expect(row(page, "100E")).to_contain_text("by openssls")
        expect(row(page, "100E")).to_have_class(re.compile("mciot-new"))
        expect(row(page, "100D")).not_to_have_class(re.compile("mciot-new"))

        search = page.get_by_role("searchbox", name="Filter")
        search.press_sequentially("DEVICE-0 valid")
        expect(status(page)).to_contain_text("9 of 15 rows.")
        page.get_by_role("button", name="Common name").click()
        expect(page.locator("td.mciot-wide").first).to_have_text("device-01")
        search.fill("no such row")
        expect(page.get_by_text("No row has all these words.")).to_be_visible()
        search.fill("")
        page.get_by_role("button", name="Next").click()
        expect(page.get_by_text("11 to 15 of 15")).to_be_visible()
        search.fill("thr<b>ee")
        page.get_by_role("button", name="Open 1002").click()
        expect(page.locator(".mciot-opened").get_by_text("Certificate of thr<b>ee")).to_be_visible()
        page.get_by_role("button", name="Close 1002").click()
        expect(page.locator(".mciot-opened")).to_be_hidden()


def test_a_row_is_revoked_by_keyboard_alone(ca: CertificateAuthority, tmp_path: Path, notebooks: Notebooks) -> None:
    with shown(notebooks, tmp_path) as page:
        before, focused = ca.database.path.read_bytes(), page.locator(":focus")
        page.get_by_role("searchbox", name="Filter").focus()  # as Tab from the cell above would
        page.keyboard.type("two")
        expect(status(page)).to_contain_text("1 of 13 rows.")
        tab_to(page, page.get_by_role("button", name="Open 1001"))
        page.keyboard.press("Enter")
        expect(focused).to_have_text("Close")
        expect(page.locator(".mciot-revoke")).to_be_visible()
        tab_to(page, page.get_by_role("button", name="Revoke …"))
        page.keyboard.press("Enter")
        expect(focused).to_have_text("Cancel")
        page.keyboard.press("Enter")
        expect(page.locator(".mciot-question")).to_be_hidden()
        expect(focused).to_have_text("Revoke …")
        assert ca.database.path.read_bytes() == before, "cancelling changes nothing"

        page.keyboard.press("Shift+Tab")
        expect(focused).to_have_value("no reason given")
        page.keyboard.type("unspe")  # letters that are commands of the Lab, too
        page.keyboard.press("ArrowDown")
        expect(focused).to_have_value(re.compile("keyCompromise"))
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")  # at once: the choice goes before the press
        expect(focused).to_have_text("Cancel")
        expect(page.get_by_role("alert")).to_contain_text("Revoke 1001, two? Reason: keyCompromise.")
        page.keyboard.press("Shift+Tab")
        expect(focused).to_have_text("Revoke")
        page.keyboard.press("Enter")
        expect(page.locator(".mciot-message")).to_contain_text("✓ 1001 is revoked (keyCompromise). Nobody learns")
        expect(row(page, "1001")).to_contain_text("✗ revoked: keyCompromise")
        expect(focused).to_have_text("Write the revocation list")
        assert focused.evaluate("element => getComputedStyle(element).outlineWidth") == "2px", "it must be seen"
        page.keyboard.press("Enter")
        expect(page.locator(".mciot-message")).to_contain_text("✓ Revocation list 1000 is written")
        assert {entry.serial_number for entry in read_crl(ca.config.ca_path("crl"))} == {0x1001, 0x1003}
        expect(focused).to_have_text("Write the revocation list")
        expect(page.locator(".jp-Cell")).to_have_count(2)  # no letter was a command


def test_polls_do_not_pile_up_and_end(ca: CertificateAuthority, tmp_path: Path, notebooks: Notebooks) -> None:
    def pollers(wanted: str) -> None:
        for _ in range(100):
            if (found := run_last_cell(page, tmp_path / "result.txt")) == wanted:
                return
            page.wait_for_timeout(500)
        raise AssertionError(f"{found} threads poll, not {wanted}")

    def run() -> None:
        run_all(page)
        expect(page.get_by_role("rowheader").first).to_be_visible()

    with shown(notebooks, tmp_path, THREADS) as page:
        for _ in range(2):
            run()
        pollers("1")
        page.reload()
        expect(page.get_by_text("| Idle")).to_be_visible()
        run()
        pollers("1")
        page.get_by_role("menuitem", name="Edit", exact=True).click()
        page.get_by_role("menuitem", name="Clear Outputs of All Cells").click()
        pollers("0")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_looks_well_and_shuts_nobody_out(
    ca: CertificateAuthority, tmp_path: Path, openssl: Run, notebooks: Notebooks, theme: str
) -> None:
    with shown(notebooks, tmp_path, dark=theme == "dark") as page:
        openssl_signs(openssl, ca, tmp_path / "openssls.csr")
        expect(status(page)).to_have_text("1 new: 100D. 14 rows.")
        page.get_by_role("button", name="Open 100D").click()
        page.get_by_role("button", name="Revoke …").click()
        expect(page.locator(":focus")).to_have_text("Cancel")
        for width in (1280, 800):
            page.set_viewport_size({"width": width, "height": 2200})
            page.wait_for_timeout(500)
            page.locator(".mciot-title").evaluate("element => element.scrollIntoView()")
            photograph(page, f"signing_panel_{theme}_{width}")
            assert serious(page, ".mciot-form") == []
