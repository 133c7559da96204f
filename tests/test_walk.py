"""A person's way through the tutorial's interactive parts, in the Lab that run.py starts; pictures are kept."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from browser import RUN_TIMEOUT, notebook, photograph, run_all, tutorial, wait_until_done
from conftest import tool
from playwright.sync_api import Locator, Page, expect

from mciot_nb import LocalPlatform, Workspace
from tools.notebooks import NOTEBOOKS

pytestmark = pytest.mark.slow
_, CA, _, DEVICE, *BETWEEN, UPLOAD, CONNECT = NOTEBOOKS[:8]
SIGN = """
openssl req -new -newkey rsa:2048 -nodes -keyout next.key -subj /CN=signed-by-openssl -out next.csr
openssl ca -batch -config caCertificate/caConfig.cnf -passin file:passphrase -extensions v3_signed -days 30 -notext \
  -in next.csr -out next.pem
"""


def press(part: Locator, name: str) -> None:
    part.get_by_role("button", name=name, exact=True).click()


def panel(page: Page, title: str) -> Locator:
    """Return a panel by its heading."""
    heading = page.locator(".mciot-title", has_text=title)
    return page.locator(".mciot-form", has=heading).last


def run_from(page: Page, source: str) -> None:
    """Run the cell that holds ``source`` and all below it."""
    page.locator(".jp-CodeCell .jp-InputArea-editor", has_text=source).first.click()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run Selected Cell and All Below").click()


def test_a_person_goes_all_the_way(tmp_path: Path) -> None:
    tool("openssl")
    workspace = Workspace(tmp_path / "workspace")
    with tutorial(tmp_path) as lab:
        with notebook(lab, CA) as page:
            type_a_subject_and_see_the_certificate(page)
        for path in (DEVICE, *BETWEEN):  # another subject than the tutorial's is followed everywhere
            with notebook(lab, path) as page:
                run_all(page)
                wait_until_done(page, path)
                expect(page.locator(".jp-Notebook")).to_contain_text("Walking CA")
                if path == DEVICE:
                    see_the_table_grow(page, workspace)
        with notebook(lab, UPLOAD) as page:
            upload_by_the_panel(page, workspace)
        with notebook(lab, CONNECT) as page:
            be_refused_and_send_a_measurement(page, lab)
        log = LocalPlatform.running(workspace.folder).log()  # type: ignore[union-attr]
        assert "CA_DISABLED" in set(log["code"]), "the platform's own log says the same"
        reasons = log.query("code == 'CONNECTED'")["reason"].tolist()
        assert reasons and all("under the trusted certificate Walking CA" in reason for reason in reasons)


def type_a_subject_and_see_the_certificate(page: Page) -> None:
    run_all(page)
    wait_until_done(page, CA)
    expect(page.get_by_text("CA certificate of Example Root CA")).to_be_visible()
    form = panel(page, "The CA's certificate")
    form.get_by_label("Country Name").fill("DEU")
    expect(form.locator(".mciot-country-note")).to_contain_text("two-letter code")
    photograph(page, "walk_01_error")
    form.get_by_label("Country Name").fill("DE")
    form.get_by_label("Common Name").fill("Walking CA")
    expect(form.locator(".mciot-preview")).to_contain_text("CN=Walking CA")
    form.get_by_label("Key", exact=True).select_option(label="P-256")
    form.get_by_label("Days of validity").fill("1000")
    press(form, "Submit")
    expect(form.locator(".mciot-message")).to_contain_text("Submitted")
    run_from(page, "workspace.create_ca(")
    expect(page.get_by_text("Moved the CA that was here")).to_be_visible(timeout=RUN_TIMEOUT)
    expect(page.get_by_text("CA certificate of Walking CA")).to_be_visible(timeout=RUN_TIMEOUT)
    expect(page.locator(".jp-OutputArea-output", has_text="CA certificate of Walking CA")).to_contain_text("1000 days")
    wait_until_done(page, CA)
    photograph(page, "walk_01")


def see_the_table_grow(page: Page, workspace: Workspace) -> None:
    before = page.locator(".mciot-live-table tbody tr")
    expect(before).to_have_count(1)
    expect(before).to_contain_text("device-0001")
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    subprocess.run(["sh", "-ec", SIGN], cwd=workspace.folder, env=environment, check=True, capture_output=True)
    expect(before).to_have_count(2)  # nobody has touched the notebook
    expect(before.filter(has_text="signed-by-openssl")).to_contain_text("✓ valid")
    photograph(page, "walk_03")


def upload_by_the_panel(page: Page, workspace: Workspace) -> None:
    page.locator(".jp-CodeCell .jp-InputArea-editor", has_text="TrustedCertificatesPanel(").click()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Above Selected Cell").click()
    page.keyboard.press("Control+Enter")
    trusted = panel(page, "Trusted certificates")
    expect(trusted.locator(".mciot-file")).to_be_visible(timeout=RUN_TIMEOUT)
    press(trusted, "Upload")
    expect(trusted.locator(".mciot-message")).to_contain_text("✓ Uploaded “Walking CA”")
    expect(trusted.locator(".mciot-live-table tbody tr", has_text="Walking CA")).to_contain_text("✓ enabled")
    assert workspace.tenant().trusted_certificates.find(workspace.issuer_certificate)
    photograph(page, "walk_06")


def be_refused_and_send_a_measurement(page: Page, lab: str) -> None:
    run_all(page)
    wait_until_done(page, CONNECT)
    console = panel(page, "Device console")
    press(console, "Connect")
    expect(console).to_contain_text("✓ Connected to")
    other = page.context.new_page()
    other.goto(lab.format(name=UPLOAD.name))
    expect(other.get_by_text("| Idle")).to_be_visible(timeout=60_000)
    run_all(other)
    trusted = panel(other, "Trusted certificates")
    expect(trusted.locator(".mciot-file")).to_be_visible(timeout=RUN_TIMEOUT)
    wait_until_done(other, UPLOAD)
    trusted.get_by_role("button", name="Open Walking CA").click()
    press(trusted, "Disable")
    trusted.locator(".mciot-yes").click()
    expect(trusted.locator(".mciot-message")).to_contain_text("✓ Disabled “Walking CA”")
    page.bring_to_front()
    expect(console).not_to_contain_text("✓ Connected to")  # thrown out, without a press
    press(console, "Connect")
    expect(console).to_contain_text("alert")  # what the device saw
    expect(console).to_contain_text("CA_DISABLED")  # what the platform's log says
    photograph(page, "walk_07_refused")
    other.bring_to_front()
    press(trusted, "Enable")
    expect(trusted.locator(".mciot-message")).to_contain_text("✓ Enabled “Walking CA”")
    page.bring_to_front()
    press(console, "Connect")
    expect(console).to_contain_text("✓ Connected to")
    press(console, "Send measurement")
    expect(console.get_by_role("img", name=re.compile("^Plot of .*: 3 measurements"))).to_be_visible()
    photograph(page, "walk_07")
