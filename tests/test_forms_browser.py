"""The forms in the real Lab, by keyboard alone: a passphrase's strength, a key and its days, a tenant's test."""

from pathlib import Path

import pytest
from browser import (
    FLAGS,
    choose_theme,
    lab,
    page_of,
    photograph,
    retype,
    run_last_cell,
    tab_to,
    write_notebook,
)
from conftest import PASSPHRASE, ROOT, tool
from playwright.sync_api import Page, expect, sync_playwright

STRENGTHS = [
    ("abcde", "✗ Strength: too short, 6 characters at least."),
    ("password", "⚠ Strength: weak, little more than a very common password."),
    ("P4ssw0rd123", "⚠ Strength: weak, little more than a very common password."),
    ("changeit", "⚠ Strength: weak, little more than a very common password."),
    ("1234567890", "⚠ Strength: weak, it repeats itself or runs through the alphabet."),
    ("aaaaaaaaaaaaaaaaaaaaaaaaaaaa", "⚠ Strength: weak, it repeats itself or runs through the alphabet."),
    ("a1a1a1a1a1a1a1a1", "⚠ Strength: weak, it repeats itself or runs through the alphabet."),
    ("sommer2026", "⚠ Strength: weak, make it longer or mix in other characters."),
    ("tg-4f9a8c2d", "✓ Strength: fair; a longer one is stronger."),
    ("😀🎉🚀🐍🍕🎈🦊🌍", "✓ Strength: fair; a longer one is stronger."),
    ("correct horse battery staple", "✓ Strength: strong, unless it can be looked up (a name, a date, a quotation)."),
    (PASSPHRASE, "✓ Strength: strong, unless it can be looked up (a name, a date, a quotation)."),
]

CELLS = [
    """import pathlib
from mciot_nb import CaForm, PassphraseForm, TenantForm, Workspace
workspace = Workspace()
PassphraseForm(workspace).add_class("try-passphrase")""",
    'form = CaForm(workspace).add_class("try-ca")\nform',
    'TenantForm(workspace).add_class("try-tenant")',
    """class Fake:
    source, has_ca = "", True
fake = Fake()
fake.passphrases = fake
PassphraseForm(fake).add_class("try-old")""",
    """workspace.platform().stop()
pathlib.Path("result.txt").write_text(f"{form.key}, {form.subject}, {workspace.passphrases.source}, {fake.awaited}")""",
]


pytestmark = pytest.mark.slow


def test_the_strength_of_a_passphrase_in_words() -> None:
    source = (ROOT / "mciot_nb" / "ui" / "widgets.js").read_text(encoding="utf-8")
    script = """async ([source, texts]) => {
        const module = await import(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
        return texts.map((text) => module.strength(text, 6));
    }"""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=tool("chromium"), args=FLAGS)
        said = browser.new_page().evaluate(script, [source, [text for text, _ in STRENGTHS]])
        browser.close()
    assert said == [words for _, words in STRENGTHS]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_form_is_filled_in_by_keyboard_alone(tmp_path: Path, dark: bool) -> None:
    tool("chromium")
    write_notebook(tmp_path, CELLS)
    if dark:
        choose_theme(tmp_path / "jupyterlab_settings_dir", True)
    theme, environment = "dark" if dark else "light", {"MCIOT_WORKSPACE": str(tmp_path / "workspace")}
    with lab(tmp_path, **environment) as url, page_of(url, height=2400) as page:
        page.locator(".jp-CodeCell .jp-InputArea-editor").first.click()
        for _ in CELLS[:-1]:
            page.keyboard.press("Shift+Enter")
        expect(page.locator(".try-tenant .mciot-submit")).to_be_visible(timeout=30_000)
        page.locator(".try-passphrase summary").focus()  # from here on there are only keys
        type_a_passphrase(page)
        type_a_subject(page)
        choose_a_key(page)
        try_the_tenant(page)
        page.locator(".try-old").get_by_label("Passphrase", exact=True).press_sequentially("abc")
        expect(page.locator(".try-old").get_by_text("Typed, not confirmed yet")).to_be_visible()
        expect(page.locator(".try-old").get_by_text("Strength")).to_have_count(0)  # one that is there is not rated
        for width in (1280, 800):
            page.set_viewport_size({"width": width, "height": 3000})
            page.wait_for_timeout(300)
            photograph(page, f"forms_{theme}_{width}")
        assert (
            run_last_cell(page, tmp_path / "result.txt")
            == "KeyChoice(key_type=<KeyType.P256: 'P-256'>, days=100), C=DE, CN=My CA, typed, True"
        )


def type_a_passphrase(page: Page) -> None:
    form = page.locator(".try-passphrase")
    rating = form.locator("[role=status]", has_text="Strength")
    page.keyboard.press("Enter")
    expect(rating).to_have_count(0)
    tab_to(page, form.get_by_label("Passphrase", exact=True))
    page.keyboard.type("Zeppe")
    expect(rating).to_have_text("✗ Strength: too short, 6 characters at least.")
    page.keyboard.type("lin-7 Oelkanne")
    expect(rating).to_contain_text("✓ Strength: strong")
    page.keyboard.press("Enter")
    page.keyboard.type("Zeppelin-7 Oelkanne")
    page.keyboard.press("Enter")
    expect(form.get_by_text("✓ Received")).to_be_visible()
    expect(rating).to_have_count(0)


def type_a_subject(page: Page) -> None:
    form = page.locator(".try-ca")
    for label in ("State or Province Name", "Locality Name", "Organization Name", "Organizational Unit Name"):
        tab_to(page, form.get_by_label(label))
        retype(page, ".")
    tab_to(page, form.get_by_label("Common Name"))
    retype(page, "My CA")
    expect(form.locator(".mciot-command")).to_contain_text("-subj '/C=DE/CN=My CA' -out caCert.pem")


def choose_a_key(page: Page) -> None:
    form = page.locator(".try-ca")
    tab_to(page, form.get_by_label("Key", exact=True))
    page.keyboard.type("P")  # the list's own way
    expect(form.get_by_text("as strong as RSA 3072")).to_be_visible()
    tab_to(page, form.get_by_label("Days of validity"))
    retype(page, "100")
    expect(form.get_by_text("UTC, in 100 days.")).to_be_visible()
    tab_to(page, form.locator("summary"))
    expect(form.get_by_text("critical: CA:TRUE")).to_be_hidden()
    page.keyboard.press("Enter")
    expect(form.get_by_text("critical: CA:TRUE")).to_be_visible()
    tab_to(page, form.locator(".mciot-submit"))
    page.keyboard.press("Space")
    expect(form.locator(".mciot-message")).to_contain_text("✓ Submitted.")


def try_the_tenant(page: Page) -> None:
    form = page.locator(".try-tenant")
    tab_to(page, form.locator(".mciot-test"))
    page.keyboard.press("Enter")
    expect(form.locator(".mciot-result [role=status]")).to_contain_text("MQTT port answers with TLS.", timeout=30_000)
    expect(form.locator(".mciot-test")).to_be_focused()
