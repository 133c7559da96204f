"""Forms and displays, without a browser: values, errors, static pictures, and that nothing dangerous gets through."""

import base64
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given, settings
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell

from mciot_nb.connect.tenant import TenantSettings
from mciot_nb.errors import Diagnosis, Finding, OnboardingError
from mciot_nb.pki.chain import diagnose
from mciot_nb.pki.config import CaConfig
from mciot_nb.pki.names import FIELDS, DistinguishedName
from mciot_nb.pki.signing import preview_subject
from mciot_nb.secret import Secret
from mciot_nb.ui.certificate_card import certificate_html, certificate_text
from mciot_nb.ui.chain_picture import chain_picture
from mciot_nb.ui.displays import diagnosis_html, diagnosis_text, register, sentence
from mciot_nb.ui.forms import Form, SubjectForm
from mciot_nb.ui.inputs import PassphraseForm, SecretField
from mciot_nb.ui.signing_panel import signing_table
from mciot_nb.ui.svg import width
from mciot_nb.ui.tenant_form import TenantForm
from mciot_nb.workspace import Workspace

GUIDE = DistinguishedName("DE", "Bayern", "München", "Example", None, "device")
NASTY = ["<script>alert(1)</script>", "$(x)", "../x", "CON", '"quotes"', "'single'", "a & b", "Müller-Lüdenscheidt"]
REAL = TenantSettings("https://t.example.com", "t12345", "ann", "t.example.com", 8883, local=False)
WORD = "correct-horse-battery"

RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())


def certificate(
    name: str,
    issuer: str | None = None,
    *,
    ca: bool = False,
    serial: int = 0x1000,
    key: Any = EC_KEY,
    signer: Any = EC_KEY,
    days: int = 365,
    at: datetime | None = None,
    purpose: x509.ObjectIdentifier | None = None,
    subject: DistinguishedName | None = None,
) -> x509.Certificate:
    begin = at or datetime.now(UTC)
    builder = x509.CertificateBuilder(serial_number=serial, public_key=key.public_key())
    builder = builder.subject_name((subject or DistinguishedName(common_name=name)).to_x509())
    builder = builder.issuer_name(DistinguishedName(common_name=issuer or name).to_x509())
    builder = builder.not_valid_before(begin).not_valid_after(begin + timedelta(days=days))
    builder = builder.add_extension(x509.BasicConstraints(ca, 10 if ca else None), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False)
    if purpose:
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    return builder.sign(signer, SHA256())


CA = certificate("Test CA", ca=True, serial=x509.random_serial_number(), days=7300)
DEVICE = certificate("device", "Test CA", key=RSA_KEY)


class Tags(HTMLParser):
    """Collects the tags, attributes and text that a browser would see."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: dict[str, str | None] = {}
        self.text = ""
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= dict(attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


def note(form: Form, name: str) -> str:
    return Tags(form._notes[name].value).text


def message(form: Form) -> str:
    return Tags(form._message.value).text


def press(form: Form) -> None:
    form._button.click()


def hand_over(field: SecretField, text: str, repeated: str = "") -> None:
    """Do what the browser does when somebody presses Enter in the field."""
    field._handle_custom_msg({"secret": text, "repeated": repeated}, [])


@dataclass
class FakeWorkspace:
    """Only what PassphraseForm needs of a workspace; it opens with WORD once it has a CA."""

    passphrase_source: str = ""
    has_ca: bool = True
    typed: list[Secret] = field(default_factory=list)

    def type_passphrase(self, passphrase: Secret, /) -> None:
        if self.has_ca and passphrase != Secret(WORD):
            raise OnboardingError("The passphrase does not open caKey.pem: type the one it was made with.")
        self.typed.append(passphrase)


def shell() -> InteractiveShell:
    ip = InteractiveShell.instance()
    register(ip)
    return ip


# -- the subject


def test_a_subject_form_has_its_value_at_once() -> None:
    form = SubjectForm(GUIDE)
    assert form.value == GUIDE
    assert "C=DE, ST=Bayern, L=München, O=Example, CN=device" in form._preview.value
    assert all(note(form, field.attribute) == "" for field in FIELDS)


def test_a_subject_is_mended_and_submitted() -> None:
    form = SubjectForm(GUIDE)
    form._fields["country"].value = "DEU"
    assert note(form, "country").startswith("✗ Country Name must be the two-letter code")
    press(form)
    assert message(form) == "✗ Not submitted: 1 field to mend first, see above."
    assert form.value == GUIDE
    form._fields["country"].value = "DK"
    assert note(form, "country") == ""
    assert message(form) == "Changed since: press Submit."
    assert form.value == GUIDE  # typing alone changes nothing
    press(form)
    assert message(form) == "✓ Submitted. Now run the cells below."
    assert form.value.country == "DK"


@pytest.mark.parametrize("blank", ["", " ", ".", " . "])
def test_blank_and_dot_leave_a_field_out(blank: str) -> None:
    form = SubjectForm(GUIDE)
    form._fields["state"].value = blank
    press(form)
    assert form.value.state is None
    form._fields["common_name"].value = blank
    assert "Common Name is missing" in note(form, "common_name")
    press(form)
    assert form.value.common_name == "device"


@pytest.mark.parametrize(("text", "problem"), [("x" * 65, "65 long"), ("a\tb", "control character"), ("x" * 64, "")])
def test_a_common_name_is_judged_by_the_rules_of_names(text: str, problem: str) -> None:
    form = SubjectForm(GUIDE)
    form._fields["common_name"].value = text
    assert problem in note(form, "common_name")
    assert bool(note(form, "common_name")) == bool(problem)


def test_a_colon_in_a_devices_name_is_warned_about_and_allowed() -> None:
    form = SubjectForm(DistinguishedName(common_name="device:1"), for_device=True)
    assert "⚠ The platform splits the ClientId at ':'" in note(form, "common_name")
    assert form.value.common_name == "device:1"
    assert note(SubjectForm(DistinguishedName(common_name="CA: mine")), "common_name") == ""


def test_a_form_without_a_common_name_has_no_value_until_it_is_filled_in() -> None:
    form = SubjectForm(DistinguishedName(country="DE"), "The device's subject")
    with pytest.raises(OnboardingError, match="“The device's subject” is not filled in yet"):
        _ = form.value
    assert "not filled in yet" in repr(form)
    form._fields["common_name"].value = "device"
    press(form)
    assert form.value == DistinguishedName("DE", common_name="device")


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=80))
def test_whatever_is_typed_is_shown_as_text_and_never_as_markup(text: str) -> None:
    form = SubjectForm(GUIDE)
    form._fields["organization"].value = text
    press(form)
    for markup in (form._preview.value, form._notes["organization"].value, form.static_html()):
        assert set(Tags(markup).tags) <= {"code", "p", "span", "table", "caption", "tbody", "tr", "th", "td"}
    if not form.problems() and text.strip() not in ("", "."):
        assert form.value.organization == text.strip()


# -- the static pictures


FORMS: list[Callable[[], Any]] = [
    lambda: SubjectForm(GUIDE),
    lambda: TenantForm(TenantSettings()),
    lambda: TenantForm(REAL, secret=Secret(WORD)),
    lambda: TenantForm(TenantSettings(), ask_secret=False),
    lambda: PassphraseForm(FakeWorkspace("practice", has_ca=False)),
    lambda: PassphraseForm(FakeWorkspace("")),
    lambda: SecretField("Password"),
]


@pytest.mark.parametrize("make", FORMS)
def test_a_form_looks_the_same_in_every_run_without_its_widget(make: Callable[[], Any]) -> None:
    first, second = make()._repr_mimebundle_(), make()._repr_mimebundle_()
    view = "application/vnd.jupyter.widget-view+json"
    assert first.pop(view)["model_id"] != second.pop(view)["model_id"]  # the control: these are two widgets
    assert first == second
    assert set(first) == {"text/plain", "text/html"}
    assert "0x" not in str(first)


def test_the_static_picture_shows_what_was_submitted() -> None:
    form = SubjectForm(GUIDE)
    assert "München" in Tags(form.static_html()).text
    form._fields["locality"].value = "Berlin"
    assert "Berlin" not in form.static_html()
    press(form)
    assert "L=Berlin" in repr(form)
    assert "Berlin" in form.static_html()


@pytest.mark.parametrize("nasty", NASTY)
def test_static_pictures_escape(nasty: str) -> None:
    form = SubjectForm(DistinguishedName(organization=nasty, common_name=nasty), title=nasty)
    assert nasty in Tags(form.static_html()).text
    assert "script" not in Tags(form.static_html()).tags + Tags(form._heading.value).tags
    tenant = TenantForm(TenantSettings("https://t.example.com", nasty, nasty, nasty, local=False))
    assert nasty in Tags(tenant.static_html()).text
    assert "script" not in Tags(tenant.static_html()).tags


def test_a_static_picture_in_plain_text_shows_what_can_not_be_seen() -> None:
    form = SubjectForm(DistinguishedName(common_name="a\N{RIGHT-TO-LEFT OVERRIDE}b"))
    for text in (repr(form), form._repr_mimebundle_()["text/plain"]):
        assert text == "Subject: CN=a\N{REPLACEMENT CHARACTER}b"


# -- secrets


def all_state(widget: Any) -> str:
    """Everything that the Lab would write of ``widget`` and its children."""
    children = "".join(all_state(child) for child in getattr(widget, "children", ()))
    return json.dumps(widget.get_state(), default=str) + repr(widget) + str(widget._repr_mimebundle_()) + children


def test_a_secret_is_in_no_state_and_no_picture() -> None:
    workspace = FakeWorkspace("")
    form = PassphraseForm(workspace)
    hand_over(form.field, WORD)
    assert workspace.typed == [Secret(WORD)] == [form.field.value]
    assert "received" in repr(form.field)
    assert form.field.status.startswith("✓ Received")
    assert repr(form) == "Passphrase: your own, kept in no file."
    assert "Now run the cells below." in form._shown.value
    assert WORD not in all_state(form)
    assert str(len(WORD)) not in form.field.status
    form.field.status = WORD
    assert WORD in all_state(form)  # the control: what is in the state would be found


def test_a_message_is_emptied_so_that_no_traceback_shows_it() -> None:
    content = {"secret": WORD, "repeated": WORD}
    field = SecretField()
    field.on_secret(lambda _: 1 / 0)  # type: ignore[arg-type]
    with pytest.raises(ZeroDivisionError):
        field._receive(field, content, [])
    assert content == {}


def test_nothing_typed_is_no_secret() -> None:
    field = SecretField()
    hand_over(field, "")
    field._handle_custom_msg({"something": "else"}, [])
    assert field.value is None


def test_a_refused_secret_says_why_and_changes_nothing() -> None:
    form = PassphraseForm(FakeWorkspace("practice"))
    hand_over(form.field, "wrong")
    assert form.field.status.startswith("✗ The passphrase does not open caKey.pem")
    assert repr(form) == "Passphrase: the practice one of this workspace, kept in workspace/passphrase."
    assert form.field.value is None
    hand_over(form.field, WORD)
    hand_over(form.field, "wrong again")
    assert form.field.value == Secret(WORD)


@pytest.mark.parametrize(
    ("source", "line", "asks"),
    [
        ("practice", "Passphrase: the practice one of this workspace, kept in workspace/passphrase.", True),
        ("environment", "Passphrase: the one in MCIOT_PASSPHRASE.", False),
        ("typed", "Passphrase: your own, kept in no file.", False),
        ("", "kept nowhere: type it, press Enter, and run the cells below.", True),
    ],
)
def test_the_line_says_where_the_passphrase_is_from(source: str, line: str, asks: bool) -> None:
    form = PassphraseForm(FakeWorkspace(source))
    assert repr(form).endswith(line)
    assert (form.field in form.children) == asks
    assert bool(form.field.folded) == (source == "practice")


def test_a_new_passphrase_is_typed_twice_before_the_ca_is_made() -> None:
    workspace = FakeWorkspace("practice", has_ca=False)
    form = PassphraseForm(workspace)
    assert "before you run the next cells" in form.field.hint
    for repeated in ("", "other"):
        hand_over(form.field, WORD, repeated)
        assert form.field.status == "✗ The two differ: type both again."
        assert workspace.typed == []
    hand_over(form.field, WORD, WORD)
    assert workspace.typed == [Secret(WORD)]
    assert WORD not in all_state(form)


def test_a_passphrase_is_typed_twice_where_the_ca_was_moved_aside_meanwhile() -> None:
    workspace = FakeWorkspace("")
    form = PassphraseForm(workspace)
    assert not form.field.twice
    workspace.has_ca = False
    hand_over(form.field, WORD)
    assert "type it twice" in form.field.status
    assert (form.field.twice, workspace.typed) == (True, [])
    hand_over(form.field, WORD, WORD)
    assert workspace.typed == [Secret(WORD)]


# -- the tenant


def test_a_tenant_form_is_local_at_once_and_keeps_a_real_tenants_values() -> None:
    kept = TenantSettings("https://t.example.com", "t12345", "ann", "t.example.com", 8884, local=True)
    form = TenantForm(kept)
    assert form.settings == kept
    assert form.secret is None
    assert form._real.layout.display == "none"
    form._where.value = False
    assert form._real.layout.display is None
    form._where.value = True
    press(form)
    assert form.settings == kept


def test_a_real_tenant_is_submitted_with_its_password() -> None:
    calls: list[tuple[TenantSettings, Secret | None]] = []
    form = TenantForm(TenantSettings(), lambda *given: calls.append(given))
    form._where.value = False
    for name in ("url", "tenant_id", "user", "mqtt_host", "password"):
        assert note(form, name).startswith("✗ "), name
    for name in ("url", "tenant_id", "user", "mqtt_host"):
        form._fields[name].value = getattr(REAL, name)
    press(form)
    assert message(form) == "✗ Not submitted: 1 field to mend first, see above."
    assert not calls
    hand_over(form._password, WORD)
    assert note(form, "password") == ""
    press(form)
    assert calls == [(REAL, Secret(WORD))]
    assert (form.settings, form.secret) == calls[0]
    assert WORD not in all_state(form)


def test_a_bearer_token_needs_no_user() -> None:
    form = TenantForm(REAL)
    form._login.value = True
    assert [row.layout.display for row in form._only_for[False]] == ["none", "none"]
    assert note(form, "token").startswith("✗ Bearer token is missing")
    hand_over(form._token, WORD)
    press(form)
    assert (form.settings.user, form.secret) == ("", Secret(WORD))  # how real_tenant knows a token
    again = TenantForm(form.settings)
    assert (again._login.value, again.settings) == (True, form.settings)
    form._login.value = False
    assert form._fields["user"].value == "ann"


@pytest.mark.parametrize(
    ("name", "value"), [("url", "https://evil.example.com"), ("tenant_id", "t2"), ("user", "eve"), ("mqtt_port", 8884)]
)
def test_what_was_typed_for_one_host_is_not_handed_to_another(name: str, value: str | int) -> None:
    calls: list[Secret | None] = []
    form = TenantForm(REAL, lambda _, secret: calls.append(secret), secret=Secret(WORD))
    form._fields[name].value = value
    press(form)
    if name == "mqtt_port":  # the control
        assert calls == [Secret(WORD)]
        return
    assert calls == []
    assert form.settings == REAL
    assert note(form, "password") == "✗ Password is missing: type it again for this host."
    form._where.value = True
    form._where.value = False
    hand_over(form._password, "another")
    press(form)
    assert calls == [Secret("another")]


def test_a_token_is_forgotten_too() -> None:
    form = TenantForm(REAL)
    form._login.value = True
    hand_over(form._token, WORD)
    form._fields["url"].value = "https://evil.example.com"
    assert (form._token.value, form._token.status) == (None, "")
    assert note(form, "token").endswith("type it again for this host.")


def test_a_form_that_asks_for_no_secret_keeps_the_choice_of_the_login() -> None:
    calls: list[tuple[TenantSettings, Secret | None]] = []
    form = TenantForm(TenantSettings(), lambda *given: calls.append(given), ask_secret=False)
    form._where.value = False
    for name in ("url", "tenant_id", "user", "mqtt_host"):
        form._fields[name].value = getattr(REAL, name)
    press(form)
    assert calls == [(REAL, None)]
    form._login.value = True
    press(form)
    assert calls[1][0].user == ""
    assert "is asked for in 06 and 07." in all_state(form)
    assert "password" not in form._notes and "token" not in form._notes


def test_a_tenant_that_the_environment_names_goes_before_the_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace(tmp_path)
    monkeypatch.setenv("MCIOT_URL", "https://other.example.com")
    form = TenantForm(REAL, workspace.choose_tenant, secret=Secret(WORD))
    form._where.value = True
    press(form)
    assert message(form).startswith("✗ MCIOT_URL names the tenant already")
    assert (form.settings, form.secret) == (REAL, Secret(WORD))
    assert not (tmp_path / "tenant.json").exists()


def test_a_disk_that_refuses_is_named() -> None:
    def full(_settings: TenantSettings, _secret: Secret | None) -> None:
        raise OSError(28, "No space left on device")

    form = TenantForm(TenantSettings(), full)
    press(form)
    assert message(form).startswith("✗ Not submitted: No space left on device.")


@pytest.mark.parametrize(
    ("field", "bad", "sentence"),
    [("url", "http://t.example.com", "https://"), ("url", "https://", "host"), ("mqtt_port", 0, "from 1 to 65535")],
)
def test_a_tenants_problems_stand_beside_their_fields(field: str, bad: str | int, sentence: str) -> None:
    form = TenantForm(REAL, secret=Secret(WORD))
    assert note(form, field) == ""
    form._fields[field].value = bad
    assert sentence in note(form, field)
    press(form)
    assert form.settings == REAL


def test_kept_settings_that_are_not_complete_stop_in_one_sentence() -> None:
    form = TenantForm(TenantSettings(url="http://t.example.com", tenant_id="t1", local=False))
    with pytest.raises(OnboardingError, match=r"https:// .* press Submit\.$"):
        _ = form.settings


def test_a_refusal_of_the_caller_is_shown_and_changes_nothing() -> None:
    def refuse(_settings: TenantSettings, _secret: Secret | None) -> None:
        raise OnboardingError("The disk is full: make room.")

    form = TenantForm(REAL, refuse, secret=Secret(WORD))
    form._where.value = True
    press(form)
    assert message(form) == "✗ The disk is full: make room."
    assert form.settings == REAL


# -- displays


def test_a_certificates_card_says_the_same_in_html_and_text() -> None:
    text, seen = certificate_text(DEVICE), Tags(certificate_html(DEVICE)).text
    for words in (
        "CN=device",
        "CN=Test CA",
        "1000 (hexadecimal, as openssl writes it; 4096 in decimal)",
        "365 days, ✓ valid now: 0 % passed, 365 days left",
        "RSA, 2048 bits",
        "critical: CA:FALSE",
        f"{DEVICE.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC",
    ):
        assert words in text
        assert words in seen
    assert "yes, path length 10" in certificate_text(CA)
    assert "EC, secp256r1, 256 bits" in certificate_text(CA)
    assert "expired" in certificate_text(certificate("old", days=1, at=datetime(2020, 1, 1, tzinfo=UTC)))


def test_a_card_ends_with_all_that_changes_from_run_to_run() -> None:
    one, two = (
        certificate("CA", ca=True, serial=x509.random_serial_number(), key=key, signer=key, at=at)
        for key, at in (
            (EC_KEY, None),
            (ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC) - timedelta(hours=1)),
        )
    )
    lines = [certificate_text(c).splitlines() for c in (one, two)]
    same = [a == b for a, b in zip(*lines, strict=True)]
    assert all(same[: same.index(False)])
    assert same.index(False) == next(i for i, line in enumerate(lines[0]) if "Key Identifier" in line)
    sanitized = [re.sub(r"[0-9a-f]{16,}|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "*", certificate_text(c)) for c in (one, two)]
    assert sanitized[0] == sanitized[1]


def test_a_card_says_of_each_kind_of_certificate_only_what_is_true_of_it() -> None:
    for one in (CA, DEVICE):
        text = certificate_text(one)
        identifier = one.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest.hex()
        assert f"Subject Key Identifier    {identifier}" in text
        assert text.count("Subject Key Identifier") == text.count("Authority Key Identifier") == 1
        assert "a short name of this key" in text
        assert ("under this the platform keeps it once it is uploaded" in text) == (one is CA)
        assert ("by which the certificates that it signs refer to it" in text) == (one is CA)


@pytest.mark.parametrize("nasty", [*NASTY, "right\N{RIGHT-TO-LEFT OVERRIDE}left"])
def test_displays_escape(nasty: str) -> None:
    one = certificate(nasty, "Test CA")
    diagnosis = Diagnosis((Finding("X", f"about {nasty}"),))
    shown = nasty.replace("\N{RIGHT-TO-LEFT OVERRIDE}", "\N{REPLACEMENT CHARACTER}")
    for markup in (certificate_html(one), diagnosis_html(diagnosis), signing_table(frame(nasty)).html):
        assert shown in Tags(markup).text
        assert "script" not in Tags(markup).tags
    picture = Tags(chain_picture([one, CA]).html)
    assert picture.tags == ["style", "img"]
    assert shown in (picture.attributes["alt"] or "")
    assert shown in "".join(ElementTree.fromstring(svg_of([one, CA])).itertext())


@settings(deadline=None, max_examples=30)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=15))
def test_every_name_makes_a_picture_that_can_be_read(name: str) -> None:
    builder = x509.CertificateBuilder(serial_number=1, public_key=EC_KEY.public_key()).not_valid_before(
        datetime.now(UTC)
    )
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name, _validate=False)])
    odd = builder.not_valid_after(datetime.now(UTC) + timedelta(1)).subject_name(subject).issuer_name(subject)
    ElementTree.fromstring(svg_of([odd.sign(EC_KEY, SHA256())]))


def svg_of(chain: list[x509.Certificate]) -> str:
    source = Tags(chain_picture(chain).html).attributes["src"] or ""
    return base64.b64decode(source.removeprefix("data:image/svg+xml;base64,")).decode()


def test_a_chain_is_drawn_with_its_signatures_and_a_broken_link_shows() -> None:
    good = chain_picture([DEVICE, CA])
    assert (
        repr(good)
        == "Chain of 2 certificates: device, signed by Test CA. Test CA is signed by itself: the chain ends here."
    )
    assert "signed by" in svg_of([DEVICE, CA])
    assert "broken" not in svg_of([DEVICE, CA])
    stranger = certificate("Test CA", ca=True, key=RSA_KEY, signer=RSA_KEY)  # the right name, another key
    assert "NOT signed by" in repr(chain_picture([DEVICE, stranger]))
    assert "broken" in svg_of([DEVICE, stranger])
    assert repr(chain_picture([DEVICE])).endswith("device names an issuer that is not in this chain: Test CA.")
    assert repr(chain_picture([])) == "An empty chain."


LONG = DistinguishedName("DE", "Baden-Württemberg " * 5, "M" * 64, "株式会社" * 16, "unit " * 12, "W" * 60 + "-end")


@pytest.mark.parametrize("subject", [LONG, DistinguishedName(organization="O" * 64), GUIDE])
def test_no_text_of_a_picture_is_wider_than_its_box(subject: DistinguishedName) -> None:
    svg = svg_of([certificate("", "W" * 64, subject=subject)])
    picture = ElementTree.fromstring(svg)
    for text in picture.iter("{http://www.w3.org/2000/svg}text"):
        if text.get("text-anchor") != "end":
            end = float(text.get("x", 0)) + float(text.get("font-size", 0)) * width(text.text or "")
            assert end <= float(picture.get("width", 0)) - 16


def test_a_picture_shows_the_end_of_a_long_name_and_no_name_twice() -> None:
    svg = svg_of([certificate("", "CA", subject=LONG)])
    assert "W-end</text>" in svg
    assert "CN=" not in svg_of([DEVICE, CA])
    assert "C=DE, ST=Bayern, L=München, O=Example</text>" in svg_of([certificate("", subject=GUIDE)])


def test_a_box_says_what_the_certificate_is_for() -> None:
    client, server = x509.ExtendedKeyUsageOID.CLIENT_AUTH, x509.ExtendedKeyUsageOID.SERVER_AUTH
    for purpose, word in ((None, "device"), (client, "device"), (server, "server")):
        svg = svg_of([certificate("x", "Test CA", purpose=purpose)])
        assert [w for w in ("device", "server", "CA") if f">{w}</text>" in svg] == [word]
    assert ">CA</text>" in svg_of([CA])


def test_a_chains_picture_is_the_same_in_every_run() -> None:
    other_ca = certificate("Test CA", ca=True, key=RSA_KEY, signer=RSA_KEY, days=7300)
    other = certificate("device", "Test CA", signer=RSA_KEY)
    assert chain_picture([DEVICE, CA]) == chain_picture([other, other_ca])
    assert chain_picture([DEVICE, CA]) != chain_picture([CA, DEVICE])


def test_a_diagnosis_says_good_or_bad_in_words() -> None:
    assert diagnosis_text(diagnose([DEVICE, CA], [CA])) == "✓ OK: nothing wrong was found."
    assert Tags(diagnosis_html(diagnose([DEVICE, CA], [CA]))).text == "✓ OK: nothing wrong was found."
    refused = diagnose([DEVICE], [])
    words = [
        "✗ Not OK: 1 finding.",
        "UNKNOWN_CA",
        "The certificate of CN=device was signed by CN=Test CA, and no trusted certificate with that name and key is "
        "there.",
        "What to do:",
        "upload the CA certificate that signed it.",
    ]
    for text in (diagnosis_text(refused), Tags(diagnosis_html(refused)).text):
        assert sorted(words, key=text.index) == words


def policy(fields: dict[str, str]) -> CaConfig:
    sections = {"default": {}, "ca": {"default_ca": "CA_default"}, "CA_default": {"policy": "p"}, "p": fields}
    return CaConfig(Path("ca.cnf"), sections)


@pytest.mark.parametrize("nasty", [*NASTY, "Munich"])
def test_a_preview_says_field_by_field_what_signing_would_make_of_it(nasty: str) -> None:
    asked = DistinguishedName(locality=nasty, common_name="device").to_x509()
    preview = preview_subject(policy({"organizationName": "supplied", "commonName": "optional"}), asked, CA.subject)
    data, _ = shell().display_formatter.format(preview)  # type: ignore[union-attr]
    assert "vanishes: the policy does not list it" in data["text/plain"] and "is kept" in data["text/plain"]
    assert "organizationName field needed to be supplied and was missing" in Tags(data["text/html"]).text
    assert "<script" not in data["text/html"]
    good = preview_subject(policy({"localityName": "optional", "commonName": "optional"}), asked, CA.subject)
    assert "vanishes" not in repr(shell().display_formatter.format(good))  # type: ignore[union-attr]


def frame(name: str = "device", rows: int = 3) -> pd.DataFrame:
    now = datetime.now(UTC)
    records: list[tuple[object, ...]] = [("V", now + timedelta(365), None, "", 0x1000, f"/CN={name}", name, "unknown")]
    records += [("R", now + timedelta(10), now, "keyCompromise", 0x1001, "/CN=stolen", "stolen", "unknown")]
    records += [("V", now - timedelta(1), None, "", 0x100A + n, "/CN=old", "old", "unknown") for n in range(rows - 2)]
    columns = ["status", "expires", "revoked", "reason", "serial", "subject", "common_name", "file"]
    table = pd.DataFrame(records, columns=columns)
    return table.assign(**{name: pd.to_datetime(table[name], utc=True) for name in ("expires", "revoked")})


def test_the_signing_table_says_in_words_what_the_database_holds() -> None:
    shown = signing_table(frame())
    lines = repr(shown).splitlines()
    assert [line.split()[0] for line in lines] == ["Serial", "100A", "1001", "1000"]
    assert "✗ expired" in lines[1]
    assert "✗ revoked: keyCompromise" in lines[2]
    assert re.search(r"✓ valid +365 +device", lines[3])
    for words in ("✗ expired", "✗ revoked: keyCompromise", "✓ valid", "100A"):
        assert words in Tags(shown.html).text
    assert " id=" not in shown.html  # no random name in it
    assert repr(signing_table(frame().head(0))) == "No certificate is signed yet."


def test_a_long_signing_table_is_cut_and_says_so() -> None:
    shown = signing_table(frame(rows=10_000))
    assert "9950 older" in repr(shown)
    assert "9950 older" in shown.html
    assert len(shown.html) < 50_000


def test_a_notebook_shows_certificates_and_diagnoses_as_they_are() -> None:
    data, _ = shell().display_formatter.format(DEVICE)  # type: ignore[union-attr]
    assert data["text/html"] == certificate_html(DEVICE)
    assert data["text/plain"] == certificate_text(DEVICE)
    data, _ = shell().display_formatter.format([DEVICE, CA])  # type: ignore[union-attr]
    assert data["text/plain"] == "[<Certificate CN=device>, <Certificate CN=Test CA>]"
    data, _ = shell().display_formatter.format(diagnose([DEVICE, CA], [CA]))  # type: ignore[union-attr]
    assert data["text/plain"] == "✓ OK: nothing wrong was found."
    assert data["text/html"] == diagnosis_html(diagnose([DEVICE, CA], [CA]))


@pytest.mark.parametrize("nasty", NASTY)
def test_a_notebook_shows_a_problem_as_its_sentence(nasty: str) -> None:
    data, _ = shell().display_formatter.format(OnboardingError(nasty))  # type: ignore[union-attr]
    assert data["text/plain"] == f"✗ {nasty}"
    shown = Tags(data["text/html"])
    assert (shown.tags, shown.text) == (["div"], f"✗ {nasty}")
    plain = Tags(sentence(nasty).html)
    assert (plain.tags, plain.text, repr(sentence(nasty))) == (["p"], nasty, nasty)


def test_the_displays_load_neither_pandas_nor_widgets() -> None:
    code = (
        "import sys, mciot_nb.ui.displays; print([m for m in ('pandas', 'ipywidgets', 'requests') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
