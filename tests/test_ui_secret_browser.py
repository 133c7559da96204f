"""The forms in the real Lab, in a real browser: what is typed arrives, and a secret is in no file that is saved."""

import base64
import secrets
import subprocess
import sys
from pathlib import Path

import pytest
from browser import lab, page_of, run_all, run_last_cell, save, write_notebook
from conftest import tool
from platform_tools import wait_for
from playwright.sync_api import Page, expect

SECRETS_NOTEBOOK = [
    """import os, pathlib
import ipywidgets
from mciot_nb import PassphraseForm, TenantForm
from mciot_nb.connect.tenant import TenantSettings
got = []
class Fake:
    tenant_settings = TenantSettings("https://localhost:1", "t1", "ann", "localhost", 1, local=False)
    type_passphrase = staticmethod(got.append)
    def __init__(self, source, has_ca):
        self.passphrases, self.source, self.has_ca = self, source, has_ca
    def choose_tenant(self, settings, secret):
        got.append(secret)
passphrase = PassphraseForm(Fake("", True))
passphrase.add_class("try-passphrase")""",
    """other = PassphraseForm(Fake("practice", False))
other.add_class("try-other")""",
    """TenantForm(Fake("", True)).add_class("try-tenant")""",
    """control = ipywidgets.Password(description="control").add_class("try-control")
control""",
    """import mciot_nb.secret
wanted = [mciot_nb.secret.Secret(os.environ[name]) for name in ("TRY_ENTERED", "TRY_USED", "TRY_SUBMITTED")]
pathlib.Path("result.txt").write_text("same" if got == wanted else f"different: {got}")""",
]
pytestmark = pytest.mark.slow


def files_with(text: str, folder: Path) -> list[Path]:
    """Return the files that hold ``text`` in one of the ways in which text is written; base64 at each offset."""
    plain = text.encode()
    forms = [plain, text.encode("utf-16-le"), text.encode("utf-16-be"), plain.hex().encode()]
    forms += [base64.b64encode(b"\0" * offset + plain)[4 if offset else 0 : -4] for offset in range(3)]
    return [p for p in folder.rglob("*") if p.is_file() and any(form in p.read_bytes() for form in forms)]


def test_a_secret_is_in_no_file_however_it_was_typed(tmp_path: Path) -> None:
    typed = {
        name: f"try-{name}-{secrets.token_hex(12)}" for name in ("entered", "used", "submitted", "half", "control")
    }
    tool("chromium")
    path = write_notebook(tmp_path, SECRETS_NOTEBOOK)
    environment = {f"TRY_{name.upper()}": text for name, text in typed.items()}
    with lab(tmp_path, **environment) as url, page_of(url) as page:
        run_all(page)
        expect(page.locator(".try-control input")).to_be_visible(timeout=30_000)
        enter_secrets(page, typed)
        assert run_last_cell(page, tmp_path / "result.txt") == "same"
        page.locator(".try-passphrase input:visible").press_sequentially(typed["half"])
        page.locator(".try-other").get_by_label("Repeat it").press_sequentially(typed["half"])
        expect(page.locator(".try-passphrase").get_by_text("Typed, not confirmed yet")).to_be_visible()
        page.locator(".jp-CodeCell .jp-InputArea-editor").last.click()  # a secret field takes all keys
        assert "application/vnd.jupyter.widget-state+json" in save(page, path)
        wait_for(lambda: any(".ipynb_checkpoints" in file.parts for file in files_with(typed["control"], tmp_path)))
    export = [sys.executable, "-m", "nbconvert", "--to", "html", "--log-level=ERROR", str(path)]
    subprocess.run(export, check=True)
    found = files_with(typed.pop("control"), tmp_path)  # what a plain password field does, so the search works
    assert path in found and path.with_suffix(".html") in found
    assert any(".ipynb_checkpoints" in file.parts for file in found)
    for text in typed.values():
        assert files_with(text, tmp_path) == []


def enter_secrets(page: Page, typed: dict[str, str]) -> None:
    page.locator(".try-passphrase").get_by_label("Passphrase", exact=True).press_sequentially(typed["entered"])
    page.keyboard.press("Enter")
    expect(page.locator(".try-passphrase").get_by_text("✓ Received")).to_be_visible()
    expect(page.locator(".try-passphrase input:visible")).to_have_value("")
    other = page.locator(".try-other")
    other.locator("summary").click()
    other.get_by_label("Passphrase", exact=True).press_sequentially(typed["used"])
    page.keyboard.press("Enter")
    expect(other.get_by_label("Repeat it")).to_be_focused()
    page.keyboard.type("a slip of the finger")
    page.keyboard.press("Enter")
    expect(other.get_by_text("The two differ: type both again.")).to_be_visible()
    for label in ("Passphrase", "Repeat it"):
        other.get_by_label(label, exact=True).press_sequentially(typed["used"])
    other.get_by_role("button").click()
    expect(other.get_by_text("✓ Received")).to_be_visible()
    page.locator(".try-tenant .mciot-submit").click()  # the control: without the password it can't be submitted
    expect(page.locator(".try-tenant .mciot-message")).to_contain_text("Not submitted: Password is missing")
    for login, label in (("bearer token", "Bearer token"), ("user and password", "Password")):
        page.locator(".try-tenant").get_by_label(login, exact=True).check()
        expect(page.locator(".try-tenant").get_by_label(label, exact=True)).to_be_visible()
    page.locator(".try-tenant").get_by_label("Password", exact=True).press_sequentially(typed["submitted"])
    page.locator(".try-tenant").get_by_role("button", name="Test", exact=True).click()
    expect(page.locator(".try-tenant .mciot-result")).to_contain_text("Nothing answers at localhost:1")
    page.locator(".try-tenant .mciot-submit").click()
    expect(page.locator(".try-tenant .mciot-message")).to_contain_text("Submitted.")
    page.locator(".try-control input").fill(typed["control"])
