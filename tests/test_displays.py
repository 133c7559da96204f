"""The displays: their words, their pictures, and how both look where no script runs: exported, untrusted, narrow."""

import base64
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import pytest
from browser import FLAGS, choose_dark, lab, page_of, photograph
from conftest import tool
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell
from nbconvert import HTMLExporter
from playwright.sync_api import Page, expect, sync_playwright
from test_ui import CA, DEVICE, EC_KEY, NASTY, RSA_KEY, certificate, frame, policy

from mciot_nb.connect.server_certificate import ServerCertificate
from mciot_nb.errors import Finding, OnboardingError
from mciot_nb.pki.chain import PROFILES, diagnose
from mciot_nb.pki.keystore import (
    HIDDEN_ENTRY,
    KEY_ENTRY,
    TRUSTED_ENTRY,
    Entry,
    Keystore,
    read_store,
    write_keystore,
    write_truststore,
)
from mciot_nb.pki.names import DistinguishedName
from mciot_nb.pki.signing import preview_subject
from mciot_nb.ui.certificate_card import certificate_html, certificate_text, extension_rows, trouble, validity
from mciot_nb.ui.chain_picture import chain_picture
from mciot_nb.ui.displays import (
    card,
    diagnosis_text,
    register,
    server_html,
    server_text,
    store_html,
    store_text,
    two_sides,
    what_to_do,
)
from mciot_nb.ui.markup import _EDGES, Rendered
from mciot_nb.ui.signing_panel import signing_table
from mciot_nb.ui.svg import COLOURS
from tools.notebooks import sanitized

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)
SUBJECT = DistinguishedName("DE", "Bavaria", "Munich", "Example Company", "Device Onboarding", "device-0001")
OLD = certificate("old", "Test CA", at=NOW - 500 * DAY)
FUTURE = certificate("future", "Test CA", at=NOW + 5 * DAY)
STRANGER = certificate("Test CA", ca=True, key=RSA_KEY, signer=RSA_KEY)  # the right name, another key
PASSWORD = "Zeppelin-8 Oelkanne"


class Seen(HTMLParser):
    """Collects what a browser would see: images, headings of tables with their text, and all text."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.images: list[dict[str, str | None]] = []
        self.headings: list[tuple[str | None, str]] = []
        self.text, self._heading = "", False
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "iframe", "link")
        self._heading = tag == "th"
        if tag == "th":
            self.headings.append((dict(attrs).get("scope"), ""))
        if tag == "img":
            self.images.append(dict(attrs))

    def handle_endtag(self, tag: str) -> None:
        self._heading = self._heading and tag != "th"

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._heading:
            scope, text = self.headings.pop()
            self.headings.append((scope, text + data))


def svg_of(markup: str) -> str:
    (picture,) = Seen(markup).images
    return base64.b64decode((picture["src"] or "").removeprefix("data:image/svg+xml;base64,")).decode()


def alt_of(markup: str) -> str:
    (picture,) = Seen(markup).images
    return picture["alt"] or ""


# -- validity


@pytest.mark.parametrize("later", [timedelta(), timedelta(seconds=30), timedelta(hours=1), 3 * DAY])
@pytest.mark.parametrize("made", [NOW, NOW + 200 * DAY])
def test_the_bar_of_a_fresh_certificate_is_the_same_in_every_run(made: datetime, later: timedelta) -> None:
    fresh = validity(certificate("device", at=made), made + later)
    first = validity(certificate("device", at=NOW), NOW)
    left = {3 * DAY: 362}.get(later, 365)
    assert fresh.html.replace(f"{left} days left", "365 days left") == first.html
    assert fresh.text == f"365 days, ✓ valid now: 0 % passed, {left} days left"
    assert validity(certificate("device", at=made), made + 4 * DAY).html != first.html  # the control


def test_a_bar_says_how_much_has_passed_and_holds_no_date() -> None:
    one = certificate("device", at=NOW - 100 * DAY)
    shown = validity(one, NOW)
    assert shown.text == "365 days, ✓ valid now: 27 % passed, 265 days left"
    assert shown.text in Seen(shown.html).text and alt_of(shown.html).endswith("today lies at 27 %.")
    assert not re.search(r"\d{4}-\d\d", svg_of(shown.html))
    assert validity(one, NOW + 265 * DAY - timedelta(hours=5)).text.endswith("99 % passed, less than a day left")
    assert validity(one, NOW + 264 * DAY).text.endswith("1 day left")
    assert validity(certificate("short", days=1, at=NOW), NOW).text.startswith("1 day, ✓ valid now: 0 % passed")


def test_a_bar_shows_today_outside_it_where_the_certificate_is_not_valid() -> None:
    for one, words, where in (
        (OLD, "365 days, ✗ expired", "today lies after its end."),
        (FUTURE, "365 days, ✗ not valid yet", "today lies before its begin."),
    ):
        shown = validity(one, NOW)
        assert shown.text == words and alt_of(shown.html).endswith(where)
        assert validity(one, NOW + timedelta(hours=1)) == shown
        assert mark_of(shown) in (24, 376)
        assert words in certificate_text(one) and words in Seen(certificate_html(one)).text
    assert trouble(DEVICE) == "" and trouble(DEVICE, NOW + 366 * DAY) == "✗ expired"


def mark_of(shown: Rendered) -> int:
    """Give the place of the word "today" in the picture."""
    found = re.search(r'<text x="(\d+)"[^>]*>today<', svg_of(shown.html))
    assert found
    return int(found[1])


@settings(deadline=None)
@given(st.integers(1, 20_000), st.floats(-2, 3))
def test_today_is_where_it_belongs(days: int, part: float) -> None:
    one = certificate("device", days=days, at=datetime(2030, 1, 1, tzinfo=UTC))
    begin, end = one.not_valid_before_utc, one.not_valid_after_utc
    at = begin + part * (end - begin)
    place = (mark_of(validity(one, at)) - 48) / 304
    assert (place < 0, place > 1) == (at < begin, at > end)
    if 0 <= place <= 1:
        assert place <= max(part, 0) + 1e-9 and part - place < 0.02


# -- extensions


def meaning(value: x509.ExtensionType, ca: bool = False) -> str:
    ((_, _, words),) = extension_rows([x509.Extension(value.oid, False, value)], ca)
    return words


def usage(*words: str) -> x509.KeyUsage:
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    names += ("key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
    return x509.KeyUsage(**dict.fromkeys(names, False) | dict.fromkeys(words, True))


def test_each_extension_says_in_one_line_what_it_means_here() -> None:
    client, server = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
    assert meaning(usage("digital_signature", "key_cert_sign", "crl_sign"), ca=True) == (
        "this key may sign handshakes and data, sign certificates and sign revocation lists, and nothing else"
    )
    assert meaning(usage("digital_signature")) == "this key may sign handshakes and data, and nothing else"
    assert "clientAuth" not in meaning(x509.ExtendedKeyUsage([client])) == "a device may show it when it connects"
    assert meaning(x509.ExtendedKeyUsage([server, client])) == (
        "a server may show it to its clients and a device may show it when it connects"
    )
    odd = x509.ExtendedKeyUsage([x509.ObjectIdentifier("1.2.3"), x509.ObjectIdentifier("1.2.4")])
    assert meaning(odd) == "something else, not used in this tutorial"
    assert meaning(x509.ExtendedKeyUsage([])) == ""
    for length, between in ((0, "no further CA"), (1, "at most one more CA"), (2, "at most 2 more CAs")):
        words = meaning(x509.BasicConstraints(ca=True, path_length=length))
        assert words.startswith(f"a CA, with {between} between it and a device; ")
    assert meaning(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"")) == "not used in this tutorial"
    for one in (CA, DEVICE):
        assert all(words and "\n" not in words for _, _, words in extension_rows(one.extensions, one is CA))


def test_what_differs_from_run_to_run_comes_last_among_extensions() -> None:
    names = [name for name, _, _ in extension_rows(CA.extensions, True)]
    assert names == ["Basic Constraints", "Subject Key Identifier", "Authority Key Identifier"]


def test_a_certificate_with_the_same_extension_twice_still_has_its_card() -> None:
    builder = x509.CertificateBuilder(DEVICE.subject, CA.subject, EC_KEY.public_key(), 0x1000, NOW, NOW + DAY)
    for last in (4, 5):
        value = x509.UnrecognizedExtension(x509.ObjectIdentifier(f"1.2.3.{last}"), b"\5\0")
        builder = builder.add_extension(value, critical=False)
    der = builder.sign(EC_KEY, SHA256()).public_bytes(Encoding.DER)
    for damaged, words in ((der, "Extension 1.2.3.5"), (der.replace(b"\x2a\3\5", b"\x2a\3\4"), "✗ can't be read")):
        one = x509.load_der_x509_certificate(damaged)
        assert words in certificate_text(one) and words in Seen(certificate_html(one)).text


# -- chains


def test_a_chain_marks_what_is_not_valid_and_is_the_same_for_what_is() -> None:
    for one, words in ((OLD, "✗ expired"), (FUTURE, "✗ not valid yet")):
        shown = chain_picture([one, CA])
        name = x509.Name.rfc4514_string(one.subject).removeprefix("CN=")
        assert f"{name} ({words}), signed by Test CA." in shown.text
        assert f">{words}</text>" in svg_of(shown.html) and words in alt_of(shown.html)
        assert words not in chain_picture([one, CA], at=one.not_valid_before_utc + DAY).text  # the control
    assert "✗" not in svg_of(chain_picture([DEVICE, CA]).html)
    assert chain_picture([DEVICE, CA]) == chain_picture([DEVICE, CA], at=NOW + 100 * DAY)


def test_a_broken_link_says_why() -> None:
    for following, why in (
        (STRANGER, "the name fits, the signature does not"),
        (OLD, "the issuer is Test CA"),
    ):
        shown = chain_picture([DEVICE, following])
        assert f"(✗ broken: {why}" in shown.text
        assert f">{why}</text>" in svg_of(shown.html) and "✗ broken: not signed by" in svg_of(shown.html)


def test_a_chain_shows_what_is_trusted_and_where_it_may_end() -> None:
    middle = certificate("Middle CA", "Test CA", ca=True)
    device = certificate("device", "Middle CA")
    shown = chain_picture([device, middle], trusted=[middle])
    assert shown.text == (
        "Chain of 2 certificates: device, signed by Middle CA (✓ trusted). "
        "Middle CA is trusted: the chain may end here."
    )
    assert ">✓ trusted CA</text>" in svg_of(shown.html)
    assert "✓" not in svg_of(chain_picture([device, middle]).html)  # the control
    alone = chain_picture([device], trusted=[middle])
    assert alone.text.endswith("device is signed by a trusted certificate that is not in this chain: Middle CA.")
    assert ">Middle CA</text>" in svg_of(alone.html)
    assert chain_picture([device], trusted=[CA]).text.endswith("an issuer that is not in this chain: Middle CA.")


# -- stores


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> list[Keystore]:
    folder = tmp_path_factory.mktemp("stores")
    paths = [folder / name for name in ("deviceKeystore.jks", "deviceKeystore.pkcs12", "deviceTruststore.jks")]
    write_keystore(paths[0], RSA_KEY, [DEVICE, CA], PASSWORD, trusted={"servercertificate": CA})
    write_keystore(paths[1], RSA_KEY, [DEVICE, CA], PASSWORD)
    write_truststore(paths[2], {"servercertificate": CA}, PASSWORD)
    return [read_store(path, PASSWORD) for path in paths]


def test_a_store_says_at_a_glance_what_it_holds(stores: list[Keystore]) -> None:
    for store, words in zip(
        stores,
        (
            "1 private key with its chain and 1 trusted certificate",
            "1 private key with its chain and no trusted certificate",
            "no private key and 1 trusted certificate",
        ),
        strict=True,
    ):
        for text in (store_text(store), Seen(store_html(store)).text):
            assert f"Holds {words}." in text
            assert ("✓ is in it, by its certificate RSA, 2048 bits" in text) == ("1 private key" in words)
            assert ("the private key's own; ✓ signed by the next one" in text) == ("1 private key" in words)
            assert "✓ signed by itself" in text


def test_a_store_never_shows_a_secret(stores: list[Keystore]) -> None:
    raw = RSA_KEY.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    numbers = RSA_KEY.private_numbers()
    for store in stores:
        shown = store_text(store) + store_html(store)
        assert CA.fingerprint(SHA256()).hex(":").upper() in shown  # the control: what is no secret would be found
        for secret in (PASSWORD, raw.hex(), base64.b64encode(raw).decode()[100:140], f"{numbers.d:x}", str(numbers.p)):
            assert secret not in shown


@pytest.mark.parametrize(
    ("chain", "words"),
    [
        ((DEVICE, STRANGER), "the private key's own; ✗ not signed by the next one, the chain is broken"),
        ((DEVICE,), "signed by CN=Test CA, whose certificate is not in this entry"),
        ((OLD, CA), "✗ expired: "),
    ],
)
def test_a_store_says_what_is_wrong_with_a_chain(chain: tuple[x509.Certificate, ...], words: str) -> None:
    store = Keystore(Path("odd.jks"), "JKS", (Entry("devicekeyentry", KEY_ENTRY, chain),))
    good = Keystore(Path("odd.jks"), "JKS", (Entry("devicekeyentry", KEY_ENTRY, (DEVICE, CA)),))
    for look in (store_text, lambda store: Seen(store_html(store)).text):
        assert words in look(store) and words not in look(good)


def test_a_store_that_java_does_not_see_is_marked() -> None:
    store = Keystore(Path("odd.p12"), "PKCS12", (Entry("", HIDDEN_ENTRY, (CA,)),), "Java sees no entry in it.")
    for text in (store_text(store), Seen(store_html(store)).text):
        assert "no trusted certificate and 1 entry that Java does not see" in text
        assert "⚠ Java sees no entry in it." in text and "⚠ not seen by Java" in text and "(no alias)" in text


@pytest.mark.parametrize("nasty", [*NASTY, "right\N{RIGHT-TO-LEFT OVERRIDE}left"])
def test_nothing_of_a_store_or_a_server_becomes_markup(nasty: str) -> None:
    shown = nasty.replace("\N{RIGHT-TO-LEFT OVERRIDE}", "\N{REPLACEMENT CHARACTER}")
    store = Keystore(Path("x.jks"), nasty, (Entry(nasty, nasty, (CA,)),), nasty)
    assert Seen(store_html(store)).text.count(shown) == store_text(store).count(shown) == 4
    server = ServerCertificate(nasty, 8883, (certificate(nasty),), nasty, proof=nasty)
    assert Seen(server_html(server)).text.count(shown) == server_text(server).count(shown) == 4


# -- verdicts


def test_what_to_do_stands_apart_from_what_is_wrong() -> None:
    refused = diagnose([OLD, STRANGER], [CA], PROFILES["guide-2021"])
    assert len(refused.findings) == 3
    for finding in refused.findings:
        wrong, advice = what_to_do(finding)
        assert wrong.endswith(".") and advice.endswith(".") and f"{wrong[:-1]}: {advice}" == finding.sentence
        assert f"What to do: {advice}" in diagnosis_text(refused)
    assert what_to_do(Finding("INVALID", "It breaks a rule: a CA can't.")) == ("It breaks a rule: a CA can't.", "")
    assert what_to_do(Finding("X", "No advice here.")) == ("No advice here.", "")
    assert what_to_do(Finding("X", "About CN=CA: mine, lost: find it.")) == ("About CN=CA: mine, lost.", "find it.")


@given(st.text(max_size=60), st.sampled_from(["UNKNOWN_CA", "INVALID"]))
def test_no_word_of_a_finding_is_lost(sentence: str, code: str) -> None:
    wrong, advice = what_to_do(Finding(code, sentence))
    assert sentence in (wrong, f"{wrong[:-1]}: {advice}", f"{wrong[:-1]}; {advice}")


def test_two_sides_show_whatever_has_a_display_and_escape_the_rest() -> None:
    shown = two_sides(
        "<The device>", OnboardingError("Refused <b>: try."), "The platform", card("Log", [("Code", "X", "")])
    )
    assert shown.text.splitlines() == ["<The device>", "  ✗ Refused <b>: try.", "The platform", "  Log", "    Code  X"]
    assert "<The device>✗ Refused <b>: try.The platform" in Seen(shown.html).text and "<b>" not in shown.html
    both = two_sides("a", diagnose([DEVICE, CA], [CA]), "b", "<i>plain</i> text")
    assert both.text == "a\n  ✓ OK: nothing wrong was found.\nb\n  <i>plain</i> text"
    assert "<i>" not in both.html


# -- what holds of all displays


def everything(device: x509.Certificate, ca: x509.Certificate) -> dict[str, Any]:
    """Give one of each display, with the certificates of a run."""
    chain = (device, ca)
    jks = Entry("devicekeyentry", KEY_ENTRY, chain, datetime.now(UTC)), Entry("server", TRUSTED_ENTRY, (ca,))
    asked = preview_subject(policy({"localityName": "supplied"}), device.subject, ca.subject)
    refusal = OnboardingError("127.0.0.1:8883 answered CONNACK 5: check that the ClientId equals the common name.")
    return {
        "device": device,
        "ca": ca,
        "chain": chain_picture(chain, trusted=[ca]),
        "broken": chain_picture([device, STRANGER]),
        "good": diagnose(chain, [ca]),
        "bad": diagnose([device], [], PROFILES["guide-2021"]),
        "store": Keystore(Path("deviceKeystore.jks"), "JKS", jks),
        "server": ServerCertificate("localhost", 8883, chain, "self-signed certificate"),
        "signing": signing_table(frame().assign(subject="/C=DE/ST=Bavaria/O=Example Company/CN=device-0001")),
        "preview": asked,
        "refusal": refusal,
        "sides": two_sides("What the device saw", refusal, "The platform's log", card("Log", [("Code", "X", "why")])),
    }


def run() -> dict[str, Any]:
    """Show everything as a notebook does, with new keys; gives the outputs' data by name."""
    register(shell := InteractiveShell.instance())
    assert shell.display_formatter
    key = ec.generate_private_key(ec.SECP256R1())
    ca = certificate("Test CA", ca=True, serial=x509.random_serial_number(), key=key, signer=key, days=7300)
    device = certificate("device-0001", "Test CA", signer=key, subject=SUBJECT)
    return {name: shell.display_formatter.format(one)[0] for name, one in everything(device, ca).items()}


def test_each_display_is_the_same_in_every_run_but_for_what_is_sanitized() -> None:
    first, second = run(), run()
    for name, data in first.items():
        assert set(data) == {"text/plain", "text/html"}, name
        assert sanitized(data) == sanitized(second[name]), name
    assert first != second  # the control


@pytest.mark.parametrize("name", list(run()))
def test_each_display_can_be_read_without_eyes(name: str) -> None:
    data = run()[name]
    seen = Seen(data["text/html"])
    assert all(scope in ("row", "col") and text.strip() for scope, text in seen.headings)
    assert all((picture["alt"] or "").endswith(".") for picture in seen.images)
    assert "mciot_nb" not in data["text/plain"] and "object at" not in data["text/plain"]
    assert len(data["text/html"]) < 6_000


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_the_pictures_colours_have_contrast_on_both_grounds() -> None:
    assert round(contrast("#000000", "#ffffff")) == 21 and contrast("#777777", "#ffffff") < 4.5  # the control
    for scheme in (0, 1):
        for name in set(COLOURS) - {"ground", "paper"}:
            for ground in ("ground", "paper"):
                assert contrast(COLOURS[name][scheme], COLOURS[ground][scheme]) >= 4.5, (name, ground, scheme)
    for edge in _EDGES.values():
        assert contrast(edge, "#ffffff") >= 3 and contrast(edge, "#111111") >= 3


# -- in the browser


@pytest.fixture(scope="module")
def shown() -> dict[str, Any]:
    return run()


@pytest.fixture(scope="module")
def notebook(shown: dict[str, Any]) -> Any:
    """Make a notebook as it is committed: with outputs, and trusted by nobody."""
    made = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    for count, (name, data) in enumerate(shown.items(), 1):
        output = nbformat.v4.new_output("execute_result", data, execution_count=count)
        made.cells.append(nbformat.v4.new_code_cell(name, execution_count=count, outputs=[output]))
    return made


def words_of(page: Page) -> str:
    return re.sub(r"\s+", "", page.locator("body").inner_text())


def check(page: Page, shown: dict[str, Any]) -> None:
    """See that every picture is drawn and every word is there."""
    widths = page.locator(".mciot-picture").evaluate_all("all => all.map(one => one.naturalWidth)")
    assert widths == [400, 400, 560, 560]
    words = words_of(page)
    for name, data in shown.items():
        for line in data["text/plain"].splitlines() if not name.startswith(("chain", "broken")) else ():
            for cell in re.split(r"\s{2,}", line.strip()):
                said = re.sub(r"\s+", "", cell).removesuffix(":")
                assert said in words, (name, said)


def beside(page: Page) -> bool:
    titles = ("What the device saw", "The platform's log")
    left, right = (page.get_by_text(title, exact=True).bounding_box() for title in titles)
    assert left and right
    return left["y"] == right["y"] and left["x"] < right["x"]


def select(page: Page, clicks: int) -> str:
    page.locator("code[title]").last.click(click_count=clicks)
    selected: str = page.evaluate("getSelection().toString()")
    return selected.strip()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_an_exported_page_shows_everything_without_a_network(
    theme: str, notebook: Any, shown: dict[str, Any], tmp_path: Path
) -> None:
    chromium = tool("chromium")
    path = tmp_path / "export.html"
    path.write_text(HTMLExporter(theme=theme).from_notebook_node(notebook)[0], encoding="utf-8")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_context(offline=True, viewport={"width": 1280, "height": 3000}).new_page()
        page.goto(path.as_uri())
        check(page, shown)
        assert beside(page)
        assert page.locator(".mciot-picture").first.evaluate("one => getComputedStyle(one).colorScheme") == (
            "dark" if theme == "dark" else "normal"
        )
        assert re.fullmatch(r"([0-9A-F]{2}:){31}[0-9A-F]{2}", select(page, 1))
        page.set_viewport_size({"width": 560, "height": 3000})
        assert not beside(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 560
        # The control: a picture that is none has no width.
        page.locator(".mciot-picture").first.evaluate("one => { one.src = 'data:image/svg+xml;base64,AAAA' }")
        expect(page.locator(".mciot-picture").first).to_have_js_property("naturalWidth", 0)
        browser.close()


@pytest.fixture(scope="module")
def untrusted(notebook: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    tool("chromium")
    folder = tmp_path_factory.mktemp("lab")
    nbformat.write(notebook, folder / "try.ipynb")
    with lab(folder) as url:
        yield folder, url


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_an_untrusted_notebook_in_the_lab_shows_everything(
    theme: str, untrusted: tuple[Path, str], shown: dict[str, Any]
) -> None:
    folder, url = untrusted
    if theme == "dark":
        choose_dark(folder / "jupyterlab_settings_dir")
    for width in (1280, 800):
        with page_of(f"{url}&reset", height=4600, width=width) as page:
            page.keyboard.press("Control+b")  # the file browser goes
            expect(page.get_by_text("device-0001").first).to_be_visible()
            expect(page.locator("body")).to_have_attribute("data-jp-theme-light", str(theme == "light").lower())
            assert page.locator(".jp-RenderedHTMLCommon style").count() == 0, "the Lab trusts it after all"
            check(page, shown)
            assert beside(page) == (width == 1280)
            scheme = page.locator(".mciot-picture").first.evaluate("one => getComputedStyle(one).colorScheme")
            assert scheme == theme
            assert re.fullmatch(r"([0-9A-F]{2}:){31}[0-9A-F]{2}", select(page, 3))
            cut = "all => all.filter(one => one.scrollWidth > one.clientWidth + 1).map(one => one.innerText)"
            assert page.locator(".jp-OutputArea-output").evaluate_all(cut) == []
            photograph(page, f"displays_{theme}_{width}")
