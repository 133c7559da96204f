"""Forms, without a browser: values, errors, static pictures, and that nothing dangerous gets through."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from conftest import examples
from hypothesis import given
from hypothesis import strategies as st

from mciot_nb.connect.tenant import TenantSettings
from mciot_nb.errors import OnboardingError
from mciot_nb.pki.keys import KeyChoice, KeyType
from mciot_nb.pki.names import FIELDS, DistinguishedName
from mciot_nb.secret import Secret
from mciot_nb.ui.forms import CertificateForm, Form, PassphraseForm
from mciot_nb.ui.inputs import SecretField
from mciot_nb.ui.tenant_form import TenantForm
from mciot_nb.workspace import Workspace
from tools.notebooks import sanitized

GUIDE = DistinguishedName("DE", "Bayern", "München", "Example", None, "device")
NASTY = ["<script>alert(1)</script>", "$(x)", "../x", "CON", '"quotes"', "'single'", "a & b", "Müller-Lüdenscheidt"]
REAL = TenantSettings("https://t.example.com", "t12345", "ann", "t.example.com", 8883, local=False)
WORD = "correct-horse-battery"
PLAIN = ("br", "caption", "code", "p", "small", "span", "table", "tbody", "td", "th", "tr")


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
    """Do what the browser does when Enter is pressed in the field."""
    field._handle_custom_msg({"secret": text, "repeated": repeated}, [])


@dataclass
class TenantWorkspace:
    """Only what TenantForm needs of a workspace."""

    tenant_settings: TenantSettings
    choose_tenant: Callable[[TenantSettings, Secret | None], object]
    platform: Callable[[], Any] = lambda: 1 / 0
    folder: Path = Path("nowhere")


def tenant_form(
    settings: TenantSettings,
    choose: Callable[[TenantSettings, Secret | None], object] = lambda settings, secret: None,
    *,
    secret: Secret | None = None,
    ask_secret: bool = True,
    **workspace: Any,
) -> TenantForm:
    """Return a form for ``settings`` in which ``secret`` was typed, if there is one."""
    form = TenantForm(TenantWorkspace(settings, choose, **workspace), ask_secret=ask_secret)  # type: ignore[arg-type]
    if secret:
        hand_over(form._credential, secret.reveal())
    return form


def subject_form(subject: DistinguishedName, title: str = "Subject", **options: Any) -> CertificateForm:
    return CertificateForm(title, subject, KeyChoice(KeyType.P256, 100), **options)


@dataclass
class FakeWorkspace:
    """Only what PassphraseForm needs of a workspace; it opens with WORD once it has a CA."""

    source: str = ""
    has_ca: bool = True
    typed: list[Secret] = field(default_factory=list)
    awaited: bool = False

    @property
    def passphrases(self) -> "FakeWorkspace":
        return self

    def type_passphrase(self, passphrase: Secret, /) -> None:
        if self.has_ca and passphrase != Secret(WORD):
            raise OnboardingError("The passphrase does not open caKey.pem: type the one it was made with.")
        self.typed.append(passphrase)


# -- the subject


def test_a_subject_is_there_at_once_and_is_mended_and_submitted() -> None:
    form = subject_form(GUIDE)
    assert form.subject == GUIDE and "C=DE, ST=Bayern, L=München, O=Example, CN=device" in form._preview.value
    assert all(note(form, field.attribute) == "" for field in FIELDS)
    form._fields["country"].value = "DEU"
    assert note(form, "country").startswith("✗ Country Name must be the two-letter code")
    press(form)
    assert message(form) == "✗ Not submitted: 1 field to correct first, see above." and form.subject == GUIDE
    form._fields["country"].value = "DK"
    assert note(form, "country") == "" and message(form) == "You have changed something: press Submit."
    for markup in (repr(form), form.picture().html):
        assert form.subject == GUIDE and "DK" not in markup  # typing alone changes nothing
    press(form)
    assert message(form) == "✓ Submitted. Now run the cells below." and form.subject.country == "DK"
    assert "C=DK" in repr(form) and "DK" in form.picture().html


@pytest.mark.parametrize("blank", ["", " ", ".", " . "])
def test_blank_and_dot_leave_a_field_out(blank: str) -> None:
    form = subject_form(GUIDE)
    form._fields["state"].value = blank
    press(form)
    form._fields["common_name"].value = blank
    press(form)
    assert "Common Name is missing" in note(form, "common_name")
    assert (form.subject.state, form.subject.common_name) == (None, "device")


def test_a_colon_in_a_devices_name_is_warned_about_and_allowed() -> None:
    form = subject_form(DistinguishedName(common_name="device:1"), owner="device")
    assert "⚠ The platform splits the ClientId at ':'" in note(form, "common_name")
    assert form.subject.common_name == "device:1", "it is only a warning"
    assert note(subject_form(DistinguishedName(common_name="CA: mine")), "common_name") == ""


def test_a_form_without_a_common_name_has_no_value_until_it_is_filled_in() -> None:
    form = subject_form(DistinguishedName(country="DE"), "The device's subject")
    with pytest.raises(OnboardingError, match="“The device's subject” is not filled in yet"):
        _ = form.subject
    assert "not filled in yet" in repr(form)
    form._fields["common_name"].value = "device"
    press(form)
    assert form.subject == DistinguishedName("DE", common_name="device")


@examples(50)
@given(st.text(max_size=80))
def test_whatever_is_typed_is_shown_as_text_and_never_as_markup(text: str) -> None:
    form = subject_form(GUIDE)
    form._fields["organization"].value = text
    press(form)
    for markup in (form._preview.value, form._notes["organization"].value, form.picture().html):
        assert set(Tags(markup).tags) <= set(PLAIN)
    if not form.problems() and text.strip() not in ("", "."):
        assert form.subject.organization == text.strip()


# -- the static pictures


FORMS: list[Callable[[], Any]] = [
    lambda: subject_form(GUIDE),
    lambda: tenant_form(REAL, secret=Secret(WORD)),
    lambda: tenant_form(TenantSettings(), ask_secret=False),
    lambda: PassphraseForm(FakeWorkspace("practice", has_ca=False)),
    lambda: PassphraseForm(FakeWorkspace("")),
    lambda: SecretField("Password"),
]


@pytest.mark.parametrize("make", FORMS)
def test_a_form_looks_the_same_in_every_run_without_its_widget(make: Callable[[], Any]) -> None:
    first, second = make()._repr_mimebundle_(), make()._repr_mimebundle_()
    view = "application/vnd.jupyter.widget-view+json"
    assert first.pop(view)["model_id"] != second.pop(view)["model_id"]  # the control: these are two widgets
    assert sanitized(first) == sanitized(second)
    assert set(first) == {"text/plain", "text/html"} and "0x" not in str(first)


@pytest.mark.parametrize("nasty", NASTY)
def test_static_pictures_escape(nasty: str) -> None:
    form = subject_form(DistinguishedName(organization=nasty, common_name=nasty), title=nasty)
    tenant = tenant_form(TenantSettings("https://t.example.com", nasty, nasty, nasty, local=False))
    for markup in (form.picture().html, form._heading.value, tenant.picture().html):
        assert nasty in Tags(markup).text and "script" not in Tags(markup).tags


def test_a_static_picture_in_plain_text_shows_what_can_not_be_seen() -> None:
    form = subject_form(DistinguishedName(common_name="a\N{RIGHT-TO-LEFT OVERRIDE}b"))
    for text in (repr(form), form._repr_mimebundle_()["text/plain"]):
        assert text == "Subject: CN=a\N{REPLACEMENT CHARACTER}b; P-256, 100 days"


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
    assert "received" in repr(form.field) and form.field.status.startswith("✓ Received")
    assert repr(form) == "Passphrase: your own, which is stored nowhere."
    assert "Now run the cells below." in form._shown.value
    assert WORD not in all_state(form) and str(len(WORD)) not in form.field.status
    form.field.status = WORD
    assert WORD in all_state(form)  # the control: what is in the state would be found


def test_a_message_is_emptied_so_that_no_traceback_shows_it() -> None:
    content = {"secret": WORD, "repeated": WORD}
    field = SecretField()
    field.on_secret(lambda _: 1 / 0)  # type: ignore[arg-type]
    with pytest.raises(ZeroDivisionError):
        field._receive(field, content, [])
    assert content == {}


def test_a_refused_secret_says_why_and_changes_nothing() -> None:
    form = PassphraseForm(FakeWorkspace("practice"))
    hand_over(form.field, "")  # nothing typed is no secret
    form.field._handle_custom_msg({"something": "else"}, [])
    assert (form.field.value, form.field.status) == (None, "")
    hand_over(form.field, "wrong")
    assert form.field.status.startswith("✗ The passphrase does not open caKey.pem") and form.field.value is None
    assert repr(form) == "Passphrase: the practice one of this workspace, kept in workspace/passphrase."
    hand_over(form.field, WORD)
    hand_over(form.field, "wrong again")
    assert form.field.value == Secret(WORD)


@pytest.mark.parametrize(
    ("source", "line", "asks"),
    [
        ("practice", "Passphrase: the practice one of this workspace, kept in workspace/passphrase.", True),
        ("environment", "Passphrase: the one in MCIOT_PASSPHRASE.", False),
        ("typed", "Passphrase: your own, which is stored nowhere.", False),
        ("", "stored nowhere. Type it, press Enter, and run the cells below.", True),
    ],
)
def test_the_line_says_where_the_passphrase_is_from(source: str, line: str, asks: bool) -> None:
    form = PassphraseForm(FakeWorkspace(source))
    assert repr(form).endswith(line)
    assert (form.field in form.children) == asks
    assert bool(form.field.folded) == (source == "practice")


def test_a_new_passphrase_is_typed_twice_while_there_is_no_ca() -> None:
    workspace = FakeWorkspace("practice", has_ca=False)
    form = PassphraseForm(workspace)
    assert "before you run the next cells" in form.field.hint
    for repeated in ("", "other"):
        hand_over(form.field, WORD, repeated)
        assert form.field.status == "✗ They differ: type both again." and workspace.typed == []
        assert workspace.awaited, "nothing goes on with another"
    hand_over(form.field, WORD, WORD)
    assert workspace.typed == [Secret(WORD)] and WORD not in all_state(form) and not workspace.awaited
    workspace = FakeWorkspace("")
    form = PassphraseForm(workspace)
    assert not form.field.twice
    workspace.has_ca = False  # it was moved aside meanwhile
    hand_over(form.field, WORD)
    assert "type it twice" in form.field.status and (form.field.twice, workspace.typed) == (True, [])
    hand_over(form.field, WORD, WORD)
    assert workspace.typed == [Secret(WORD)]


# -- the tenant


def fill_tenant(form: TenantForm, settings: TenantSettings) -> None:
    form._where.value = False
    for name in ("url", "tenant_id", "user", "mqtt_host", "mqtt_port", "ca_file"):
        form._fields[name].value = getattr(settings, name)


def test_a_tenant_form_is_local_at_once_and_keeps_a_real_tenants_values() -> None:
    kept = TenantSettings("https://t.example.com", "t12345", "ann", "t.example.com", 8884, local=True)
    form = tenant_form(kept)
    assert (form.settings, form.secret, form._real.layout.display) == (kept, None, "none")
    form._where.value = False
    assert form._real.layout.display is None
    form._where.value = True
    press(form)
    assert form.settings == kept


def test_a_real_tenant_is_submitted_with_its_password() -> None:
    calls: list[tuple[TenantSettings, Secret | None]] = []
    form = tenant_form(TenantSettings(), lambda *given: calls.append(given))
    form._where.value = False
    assert not any(note(form, name) for name in form._notes), "nothing is wrong before anything was typed"
    form._fields["url"].value = "http://t.example.com"
    assert [name for name in form._notes if note(form, name)] == ["url"]
    press(form)
    assert message(form) == (
        "✗ Not submitted: 1 field to correct first, see above. "
        "Tenant ID, MQTT host, User and Password are missing: fill them in."
    )
    assert [name for name in form._notes if note(form, name)] == ["url"], "what is missing is said once"
    form._fields["user"].value = "x"
    form._fields["user"].value = ""
    assert note(form, "user").startswith("✗ The user is missing"), "it was touched"
    fill_tenant(form, REAL)
    press(form)
    assert message(form).startswith("✗ Not submitted: Password is missing: it is never stored") and not calls
    hand_over(form._credential, WORD)
    assert note(form, "credential") == ""
    press(form)
    assert calls == [(REAL, Secret(WORD))] == [(form.settings, form.secret)]
    assert WORD not in all_state(form)


def test_a_bearer_token_needs_no_user() -> None:
    form = tenant_form(REAL)
    form._login.value = True
    assert (form._user.layout.display, form._credential.label) == ("none", "Bearer token")
    press(form)
    assert message(form).startswith("✗ Not submitted: Bearer token is missing")
    hand_over(form._credential, WORD)
    press(form)
    assert (form.settings.user, form.secret) == ("", Secret(WORD))  # how real_tenant knows a token
    again = tenant_form(form.settings)
    assert (again._login.value, again.settings) == (True, form.settings)
    form._login.value = False
    assert form._fields["user"].value == "ann" and form._user.layout.display is None
    assert note(form, "credential").startswith("✗ Password is missing: it is never stored"), "a token is no password"
    form._login.value = True
    hand_over(form._credential, WORD)
    form._fields["url"].value = "https://evil.example.com"  # which must not get it
    assert (form._credential.value, form._credential.status) == (None, "")
    assert note(form, "credential").endswith("type it again for this host.")


@pytest.mark.parametrize(
    ("name", "value"), [("url", "https://evil.example.com"), ("tenant_id", "t2"), ("user", "eve"), ("mqtt_port", 8884)]
)
def test_what_was_typed_for_one_host_is_not_handed_to_another(name: str, value: str | int) -> None:
    calls: list[Secret | None] = []
    form = tenant_form(REAL, lambda _, secret: calls.append(secret), secret=Secret(WORD))
    form._fields[name].value = value
    press(form)
    if name == "mqtt_port":  # the control
        assert calls == [Secret(WORD)]
        return
    assert calls == [] and form.settings == REAL
    assert note(form, "credential") == "✗ Password is missing: type it again for this host."
    form._where.value = True
    form._where.value = False
    hand_over(form._credential, "another")
    press(form)
    assert calls == [Secret("another")]


def test_a_form_that_asks_for_no_secret_keeps_the_choice_of_the_login() -> None:
    calls: list[tuple[TenantSettings, Secret | None]] = []
    form = tenant_form(TenantSettings(), lambda *given: calls.append(given), ask_secret=False)
    fill_tenant(form, REAL)
    press(form)
    form._login.value = True
    press(form)
    assert calls[0] == (REAL, None) and calls[1][0].user == ""
    assert "06, 07, 11 and 12 ask for the password or token." in all_state(form) and "credential" not in form._notes


def test_a_tenant_that_the_environment_names_goes_before_the_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MCIOT_URL", "https://other.example.com")
    refused(tenant_form(REAL, Workspace(tmp_path).choose_tenant), "✗ MCIOT_URL names the tenant")
    assert not (tmp_path / "tenant.json").exists()


def refused(form: TenantForm, said: str) -> None:
    """See that what is submitted is refused in one sentence, and changes nothing."""
    form._where.value = True
    press(form)
    assert message(form).startswith(said) and form.settings == REAL


def test_kept_settings_that_are_not_complete_stop_in_one_sentence() -> None:
    form = tenant_form(TenantSettings(url="http://t.example.com", tenant_id="t1", local=False))
    assert "https://" in note(form, "url") and note(form, "mqtt_port") == ""
    form._fields["mqtt_port"].value = 0
    assert "from 1 to 65535" in note(form, "mqtt_port")
    with pytest.raises(OnboardingError, match=r"https:// .* press Submit\.$"):
        _ = form.settings


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OnboardingError("The disk is full: make room."), "✗ The disk is full: make room."),
        (OSError(28, "No space left on device"), "✗ Not submitted: No space left on device. Fix that, and try again."),
    ],
)
def test_a_refusal_of_the_caller_is_shown_and_changes_nothing(error: Exception, said: str) -> None:
    def refuse(_settings: TenantSettings, _secret: Secret | None) -> None:
        raise error

    refused(tenant_form(REAL, refuse), said)
