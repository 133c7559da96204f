"""Forms beside the real tools: the command that is shown, the configuration's prompts, a key's validity, a tenant."""

import dataclasses
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from browser import free_port
from conftest import PASSPHRASE, Run, examples, tool
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import example, given
from hypothesis import strategies as st
from platform_tools import make, wait_for
from test_tenant_calls import server
from test_ui import Tags, fill_tenant, hand_over, message, note, press, subject_form, tenant_form

from mciot_nb import CaForm, DeviceForm, DistinguishedName, IntermediateForm, LocalPlatform, OnboardingError, Workspace
from mciot_nb.connect import http as rest
from mciot_nb.connect.tenant import TenantSettings, check_tenant
from mciot_nb.pki.authority import CertificateAuthority
from mciot_nb.pki.chain import read_certificates, to_pem
from mciot_nb.pki.config import CaConfig, guide_config, read_config
from mciot_nb.pki.keys import KeyChoice, KeyType, read_request
from mciot_nb.pki.names import FIELDS, Field, field_problem
from mciot_nb.secret import Secret, reveal
from mciot_nb.ui.certificate_card import extension_rows
from mciot_nb.ui.forms import CertificateForm, Form
from mciot_nb.ui.tenant_form import TenantForm

WORD = "correct-horse-battery"
CUT_OFF = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


# The command that is shown -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA's folder as it stands before the guide's step 8, with keys that ask for no passphrase."""
    folder = tmp_path_factory.mktemp("by-hand")
    (folder / "deviceCertificates").mkdir()
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for name in ("caKey.pem", "intermediateKey.pem", "deviceCertificates/deviceKey.pem"):
        (folder / name).write_bytes(pem)
    for name in ("ca", "intermediate"):
        (folder / f"{name}Config.cnf").write_bytes(guide_config(folder, name))
    return folder


def type_in_a_shell(command: str, folder: Path) -> None:
    done = subprocess.run(
        [tool("sh"), "-c", command], cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}\n{done.stderr}"


def shown_command(form: CertificateForm) -> str:
    """The command as somebody would copy it from the page."""
    (code,) = ElementTree.fromstring(f"<div>{form._preview.value}</div>").findall(".//code[@class='mciot-command']")
    return "".join(code.itertext())


def values(field: Field) -> st.SearchStrategy[str]:
    letters = st.characters(exclude_categories=["C", "Zl", "Zp"])
    odd = st.sampled_from([*"'\"\\/+=`!#,;& ü漢", "$(x)", "<b>", "-x"])
    text = st.lists(letters | odd, min_size=1, max_size=20).map("".join)
    if field.attribute == "country":
        text = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=2, max_size=2)
    if field.attribute == "email":
        text = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=30)
    return text.filter(lambda value: field_problem(field, value) is None)


subjects = st.builds(
    DistinguishedName,
    **{f.attribute: values(f) if f.attribute == "common_name" else st.none() | values(f) for f in FIELDS},
)


@examples(100)
@given(st.sampled_from(["ca", "intermediate", "device"]), subjects)
@example("ca", DistinguishedName("DE", "a/b", "c+d", "\\", "e\\/f", 'Müller\'s "CA" $HOME `id` ', "o'b@example.com"))
@example("device", DistinguishedName(organization="  two  blanks  ", common_name="/"))
def test_the_command_that_is_shown_does_what_the_form_does(
    by_hand: Path, whose: str, subject: DistinguishedName
) -> None:
    form = subject_form(DistinguishedName(common_name="x"), owner=whose)
    fill(form, **dataclasses.asdict(subject))
    press(form)
    type_in_a_shell(shown_command(form), by_hand)
    if whose == "ca":
        certificate = read_certificates(by_hand / "caCert.pem")[0]
        assert KeyChoice.of(certificate) == form.key
        made = certificate.subject
    else:
        folder = "deviceCertificates/" if whose == "device" else ""
        made = read_request(by_hand / f"{folder}{whose}Csr.pem").subject
    if not form.problems():  # a name of blanks alone is none
        assert made.public_bytes() == form.subject.to_x509().public_bytes()


def test_the_command_is_the_folded_one_and_holds_only_what_is_right() -> None:
    form = subject_form(DistinguishedName("DE", common_name="Example CA"))
    for days, shown in ((50, 50), (0, 100)):  # what is wrong is not in it: these were submitted last
        form._days.value = days
        assert shown_command(form) == (
            f"openssl req -config caConfig.cnf -utf8 -key caKey.pem -new -x509 -days {shown} -sha256 -extensions v3_ca "
            "-subj '/C=DE/CN=Example CA' -out caCert.pem"
        )
    device = subject_form(DistinguishedName(common_name="device-0001"), owner="device")
    for country, name, subject in (("DEU", "device-0001", "/CN=device-0001"), ("", "", "/")):
        fill(device, country=country, common_name=name)
        assert shown_command(device) == (
            "openssl req -config caConfig.cnf -utf8 -new -sha256 -key deviceCertificates/deviceKey.pem "
            f"-subj {subject} -out deviceCertificates/deviceCsr.pem"
        )


@pytest.mark.parametrize("unseen", ["\u200d", "\u202e", "\ue000", "\ufffe"])
def test_no_command_is_shown_that_could_not_be_copied(unseen: str) -> None:
    form = subject_form(DistinguishedName(common_name=f"de{unseen}vice"))
    assert form.subject.common_name == f"de{unseen}vice"
    assert "openssl req" not in form._preview.value and "can't be seen" in form._preview.value


# The configuration's prompts -----------------------------------------------------------------------------------------


PROMPTS = """
[ req ]
distinguished_name = dn
string_mask = utf8only
[ dn ]
countryName = Land (zwei Buchstaben)
countryName_default = PL
localityName = Ort
localityName_min = 3
0.organizationName = Firma
0.organizationName_default = Müller & Söhne
organizationalUnitName_value = Werk 3
organizationalUnitName = Abteilung
commonName = Name
commonName_max = 12
"""


@pytest.fixture
def config(tmp_path: Path) -> CaConfig:
    (tmp_path / "req.cnf").write_text(PROMPTS)
    return read_config(tmp_path / "req.cnf")


def fill(form: CertificateForm, **typed: str | None) -> None:
    for name, text in typed.items():
        form._fields[name].value = text or ""


def test_prompts_and_defaults_are_the_configurations(config: CaConfig) -> None:
    form = subject_form(DistinguishedName(locality="Ulm", common_name="device"), config=config)
    asked = ["Land (zwei Buchstaben)", "State or Province Name", "Ort", "Firma", "Abteilung", "Name", "Email Address"]
    assert [field.description for field in form._fields.values()] == asked, "ours where it does not ask"
    assert form.subject == DistinguishedName("PL", None, "Ulm", "Müller & Söhne", "Werk 3", "device")
    assert form._fields["country"].value == "PL" and form._fields["organizational_unit"].disabled
    fill(form, country="", organization=".", locality=" . ", state="")
    press(form)
    assert form.subject == DistinguishedName("PL", organizational_unit="Werk 3", common_name="device")
    assert form._fields["country"].placeholder == "PL" and "configuration's default" in form.children[9].value
    fill(form, country=".", organization="Ours")
    press(form)
    assert form.subject == DistinguishedName(None, None, None, "Ours", "Werk 3", "device")
    assert "left out" in subject_form(DistinguishedName(common_name="x")).children[9].value


def test_the_configurations_limits_and_a_subject_that_was_made(config: CaConfig) -> None:
    made = DistinguishedName(None, None, None, None, "Werk 3", "device")
    form = subject_form(made, config=config, made=True)
    assert form.subject == made and form._fields["country"].value == form._fields["organization"].value == "."
    assert form._fields["locality"].value == "", "nothing stands in for it, so nothing keeps it out"
    assert subject_form(made, config=config).subject.country == "PL", "the control"
    fill(form, locality="Ul", common_name="a-long-device")
    assert note(form, "locality").startswith("✗ Locality Name must have 3 to 1024 bytes, says the configuration")
    assert "must have 0 to 12 bytes" in note(form, "common_name")
    press(form)
    assert message(form) == "✗ Not submitted: 2 fields to correct first, see above."


@pytest.mark.parametrize(
    ("address", "good"),
    [
        *(
            (one, True)
            for one in ("ops@example.com", "a@b", "x.@docomo.example", "o'b+c@sub.example.com", "a_b@h_1.local")
        ),
        *(
            (one, True)
            for one in ('"Ann Lee"@example.com', "root@[192.0.2.1]", "root@[IPv6:2001:db8::1]", "$c@example.com")
        ),
        *((one, False) for one in ("nonsense", "a b@example.com", "@example.com", "a@", "a@b@c", "a@.example.com")),
        *((one, False) for one in ("Ann <ann@example.com>", "mailto:a@example.com", "a@example.com, b@example.com")),
    ],
)
def test_an_address_is_one_and_may_look_odd(address: str, good: bool) -> None:
    form = subject_form(DistinguishedName(common_name="x"))
    fill(form, email=address)
    assert note(form, "email") == "" if good else "must be an address such as ops@example.com" in note(form, "email")
    press(form)
    assert form.subject.email == (address if good else None)
    made = subject_form(DistinguishedName(common_name="x", email=address), made=True)
    assert made.subject.email == address, "openssl takes it, so what was made with it stays"


answers = st.sampled_from(["", ".", "Ulm", "Müller", " x ", "DE"])
countries = st.sampled_from(["", ".", "DE"])


@examples(25)
@given(st.fixed_dictionaries({"country": countries, "locality": answers, "organization": answers}))
def test_blank_and_dot_mean_what_they_mean_at_openssls_prompts(
    by_hand: Path, openssl: Run, typed: dict[str, str]
) -> None:
    (by_hand / "req.cnf").write_text(PROMPTS)
    form = subject_form(DistinguishedName(common_name="x"), config=read_config(by_hand / "req.cnf"))
    fill(form, **typed, common_name="device")
    press(form)
    if form.problems():
        return
    lines = [typed["country"], typed["locality"].strip(), typed["organization"].strip(), "device"]
    made = ["-new", "-key", by_hand / "caKey.pem", "-utf8", "-out", by_hand / "typed.pem"]
    openssl("req", "-config", by_hand / "req.cnf", *made, input="".join(f"{line}\n" for line in lines))
    assert read_request(by_hand / "typed.pem").subject.public_bytes() == form.subject.to_x509().public_bytes()


# Key and validity ----------------------------------------------------------------------------------------------------


NAME = DistinguishedName(common_name="x")


@pytest.fixture(scope="module")
def short_ca(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    folder, subject = tmp_path_factory.mktemp("short") / "ca", DistinguishedName(common_name="Short")
    yesterday = datetime.now(UTC) - timedelta(days=1)
    return CertificateAuthority.create(folder, subject, PASSPHRASE, key_type=KeyType.P256, days=101, at=yesterday)


def key_form(key_type: KeyType | None, days: int, **options: Any) -> CertificateForm:
    return CertificateForm("Device", NAME, KeyChoice(key_type, days), **options)


def text_of(form: CertificateForm) -> str:
    return Tags(f"{form._meaning.value} {form._end.value}").text


def test_a_key_has_its_value_at_once_and_follows_what_is_chosen() -> None:
    form, first = key_form(KeyType.RSA_4096, 7300), KeyChoice(KeyType.RSA_4096, 7300)
    until = datetime.now(UTC) + timedelta(days=7300)
    assert form.key == first and f"it expires on {until:%Y-%m-%d} " in text_of(form) and "The guide's" in text_of(form)
    form._key_type.value, form._days.value = KeyType.P256, 100
    assert "as strong as RSA 3072" in text_of(form) and "UTC, in 100 days." in text_of(form)
    assert form.key == first and message(form) == "You have changed something: press Submit."
    press(form)
    assert form.key == KeyChoice(KeyType.P256, 100) and repr(form) == "Device: CN=x; P-256, 100 days"
    assert [key_type for _, key_type in form._key_type.options] == list(KeyType)


SPANS = {1: "1 day", 364: "364 days", 365: "1 year", 366: "366 days", 730: "2 years", 1000: "about 3 years"}
SPANS |= {7300: "20 years", 36500: "100 years"}


def test_the_days_are_judged_and_the_end_is_said_in_words() -> None:
    form = key_form(KeyType.RSA_2048, 365)
    for days, span in SPANS.items():
        form._days.value = days
        assert text_of(form).endswith(f"in {span}.") and note(form, "days") == ""
    for days in (0, -1, 36501, 10**30):
        form._days.value = days
        assert note(form, "days") == f"✗ A certificate is valid for 1 to 36500 days, not {days}: ask for that."
        assert "expires" not in text_of(form)
    press(form)
    assert message(form).startswith("✗ Not submitted: 1 field") and form.key.days == 365


def test_nothing_may_outlive_its_issuer(short_ca: CertificateAuthority) -> None:
    form = key_form(KeyType.P256, 99, issuer=short_ca.certificate, config=short_ca.config, owner="device")
    assert note(form, "days") == ""
    form._days.value = 101
    end = f"{short_ca.certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    assert note(form, "days").startswith(f"✗ A certificate would outlive its CA, which is valid until {end}: ask for ")
    with pytest.raises(OnboardingError, match="would outlive its CA"):  # the same verdict where it is signed
        short_ca.check_new(DistinguishedName(common_name="device"), form.typed_key().days)
    assert note(key_form(KeyType.P256, 101), "days") == "", "the control: it signs its own"


def test_what_is_there_is_not_judged(short_ca: CertificateAuthority) -> None:
    form = key_form(None, 4000, issuer=short_ca.certificate, made=True)
    assert note(form, "days") == "" and form.key == KeyChoice(None, 4000) and "that you have" in text_of(form)
    assert form._key_type.options[-1] == ("another kind", None)
    press(form)
    assert form.key == KeyChoice(None, 4000)
    form._days.value = 90
    assert "Keys of this kind are not made here" in note(form, "key_type") and note(form, "days") == ""
    form._key_type.value, form._days.value = KeyType.P256, 4000
    assert note(form, "key_type") == "" and "would outlive its CA" in note(form, "days")


@pytest.mark.parametrize(("section", "owner"), [("v3_ca", "ca"), ("v3_signed", "device")])
def test_the_extensions_that_are_shown_are_those_that_it_gets(
    short_ca: CertificateAuthority, section: str, owner: str
) -> None:
    form = key_form(KeyType.P256, 9, issuer=short_ca.certificate, config=short_ca.config, owner=owner)
    request = x509.CertificateSigningRequestBuilder().subject_name(DistinguishedName(common_name=section).to_x509())
    signed = short_ca.sign(request.sign(short_ca.key, short_ca.config.digest), section, 9)
    expected = list(extension_rows(signed.extensions, section == "v3_ca"))
    shown = {name: (content, meaning) for name, content, meaning in form._extensions}
    assert set(shown) == {name for name, *_ in expected}
    for name, content, meaning in expected:
        assert shown[name] == ("made from the key" if name == "Subject Key Identifier" else content, meaning)
        for markup in (form.children[-2].value, form.picture().html):
            assert meaning and meaning in Tags(markup).text


def test_a_section_that_can_not_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "caConfig.cnf").write_text(f"{PROMPTS}[ v3_ca ]\nnsCertType = <b>client</b>\n")
    config = read_config(tmp_path / "caConfig.cnf")
    for owner, says in (("ca", "nsCertType"), ("device", "no section [ v3_signed ]")):
        form = key_form(KeyType.RSA_2048, 9, config=config, owner=owner)
        assert says in form.picture().html and "✗" in form.picture().html and "<b>" not in form.picture().html
        assert form.key == KeyChoice(KeyType.RSA_2048, 9)


# Of a workspace ------------------------------------------------------------------------------------------------------


def test_the_forms_offer_what_a_workspace_has(quick_workspace: Workspace) -> None:
    workspace = quick_workspace
    forms = [CaForm(workspace), IntermediateForm(workspace), DeviceForm(workspace)]  # before there is a CA
    offered = [(form.subject.common_name, form.key.days) for form in forms]
    assert offered == [("Example Root CA", 7300), ("Example Intermediate CA", 3650), ("device-0001", 365)]
    workspace.create_ca(forms[0].subject, KeyChoice(KeyType.P256, 100))
    device = DeviceForm(workspace)
    assert CaForm(workspace).key.days == 100 and IntermediateForm(workspace).key.days == device.key.days == 99
    device._days.value = 101
    assert "would outlive its CA" in note(device, "days") and "critical: CA:FALSE" in device.picture().html
    fill(device, common_name="mine", country=".")
    device._days.value = 9
    press(device)
    workspace.create_device_request(device.subject, device.key)
    certificate, again = workspace.sign_device_request(device.key), DeviceForm(workspace)
    assert again.subject == device.subject and again.subject.country is None
    assert again.key == device.key == KeyChoice.of(certificate)
    workspace.choose_issuer("intermediate")
    assert DeviceForm(workspace).key.days == 365, "no issuer, nothing to outlive"
    workspace.catch_up("intermediate")
    below = DeviceForm(workspace)
    assert "-config intermediateConfig.cnf" in shown_command(below) and below.subject.common_name == "device-0001"


# The tenant ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPlatform]:
    platform = LocalPlatform.start(tmp_path_factory.mktemp("tenant"))
    yield platform
    platform.stop()


def real(platform: LocalPlatform, **changed: object) -> TenantSettings:
    """The local platform, as one that is reached over the net, proven by its file as a trainee's is in a class."""
    known = TenantSettings(platform.https, platform.tenant_ids[0], platform.tenant.user, *platform.mqtt, local=False)
    proof: dict[str, Any] = {"ca_file": str(platform.server_certificate)}
    return dataclasses.replace(known, **(proof | changed))


def password(platform: LocalPlatform) -> Secret:
    return Secret(reveal(platform.tenant.password or ""))


def result(form: Form) -> str:
    return "".join(ElementTree.fromstring(form._result.value).itertext())  # type: ignore[attr-defined]


def verdict(form: TenantForm) -> str:
    form._test.click()
    wait_for(lambda: not result(form).startswith("Testing"), 40)
    return result(form)


@pytest.fixture
def says(platform: LocalPlatform) -> Callable[..., str]:
    """Return what the button says of the platform with other settings, or another password."""
    return lambda secret=None, **changed: verdict(
        tenant_form(real(platform, **changed), secret=secret or password(platform))
    )


WORKS = "✓ reached, TLS verified, logged in as admin, may read and change trusted certificates"
GOOD = f"{WORKS}, MQTT port answers with TLS."


def test_a_tenant_that_works_says_so(platform: LocalPlatform) -> None:
    before = platform.tenant.trusted_certificates.list()
    form = tenant_form(real(platform), secret=password(platform))
    assert verdict(form) == GOOD and reveal(password(platform)) not in result(form)
    local = tenant_form(TenantSettings(), platform=lambda: platform)
    assert verdict(local) == GOOD and local.settings.local
    no_secret = verdict(tenant_form(real(platform), ask_secret=False))
    assert no_secret.startswith("✓ reached, TLS verified, MQTT port answers with TLS. The login is tested in 06, ")
    assert platform.tenant.trusted_certificates.list() == before


def test_the_first_thing_that_fails_is_said_and_nothing_after_it(
    platform: LocalPlatform, says: Callable[..., str]
) -> None:
    wrong = says(Secret(WORD))
    assert wrong.startswith("✓ reached, TLS verified. ✗ ") and "the login of admin was refused" in wrong
    viewer = json.loads((platform.folder / "credentials.json").read_text())[platform.tenant_ids[0]]["others"][0]
    no_role = says(Secret(viewer["password"]), user=viewer["user"])
    assert no_role.startswith("✓ reached, TLS verified, logged in as viewer. ✗ ") and "ROLE_TENANT_ADMIN" in no_role
    closed = free_port()
    for url in ("https://nowhere.invalid", f"https://127.0.0.1:{closed}"):
        assert says(url=url).startswith("✗ Nothing answers at ")
    no_mqtt, what_to_do = says(mqtt_port=closed), "check the MQTT host and port in 00, and the network."
    assert no_mqtt == f"{WORKS}. ✗ Nothing answers at 127.0.0.1:{closed}: {what_to_do}"
    assert "check user, password and tenant ID t9" in says(tenant_id="t9")
    assert "MQTT" not in wrong + no_role


def test_a_certificate_that_nobody_trusts_ends_it_before_a_password_is_sent(says: Callable[..., str]) -> None:
    told = says(ca_file="")
    assert told.startswith("✓ reached. ✗ The server certificate of ") and "was not trusted" in told


def test_the_platforms_certificate_is_a_path_or_a_text_or_a_file(platform: LocalPlatform, tmp_path: Path) -> None:
    pem, own = platform.server_certificate.read_text(), read_certificates(platform.server_certificate)
    form = tenant_form(real(platform, ca_file=""), secret=password(platform), folder=tmp_path)
    field, upload = form._fields["ca_file"], form._file
    for text in (pem, pem.replace("\n", ""), f"subject=CN=localhost\n{pem}"):  # a text field takes no line breaks
        field.value = text
        assert upload.status.endswith(", the certificate of CN=localhost: now press Submit.")
        assert note(form, "ca_file") == ""
        assert read_certificates(Path(field.value)) == own and Path(field.value).parent == tmp_path
    field.value = ""
    upload._handle_custom_msg({"name": "serverCert.der"}, [own[0].public_bytes(Encoding.DER)])
    assert read_certificates(Path(field.value)) == own and verdict(form) == GOOD
    press(form)
    assert form.settings.ca_file == field.value and form.settings.problems() == {}


def test_a_wrong_certificate_for_the_platform_is_named(
    platform: LocalPlatform, tmp_path: Path, says: Callable[..., str]
) -> None:
    key = (platform.folder / "serverKey.pem").read_text()
    form = tenant_form(real(platform), secret=password(platform), folder=tmp_path)
    form._fields["ca_file"].value = key
    assert form._file.status.startswith("✗ What you pasted holds a private key")
    assert form._fields["ca_file"].value == "" and not list(tmp_path.iterdir()), "nothing of it is kept"
    form._fields["ca_file"].value = key.replace("-----", "\N{EM DASH}")  # as the guide's web page writes them
    assert form._file.status.startswith("✗ ") and form._fields["ca_file"].value == ""
    one_line = platform.server_certificate.read_text().replace("\n", "")
    broken = {"none.pem": "", "key.pem": key, "text.pem": "hello", "cut.pem": CUT_OFF, "line.pem": one_line}
    for name, content in broken.items():
        (tmp_path / name).write_text(content)
    for path in (tmp_path / "gone.pem", tmp_path, *sorted(tmp_path.iterdir())):
        form._fields["ca_file"].value = str(path)
        said = note(form, "ca_file")
        assert said.startswith("✗ The server certificate: ") and str(path) in said and said.endswith("."), said
        assert verdict(form) == "✗ Not tested: 1 field to correct first, see above."
    other = tmp_path / "caCert.pem"  # the learner's own: a certificate, and not the server's
    other.write_bytes(to_pem([make("Example Root CA", ca=True).certificate]))
    told = says(ca_file=str(other))
    assert told.startswith("✓ reached. ✗ The server certificate of 127.0.0.1:") and str(other) in told


def test_an_mqtt_certificate_that_the_file_does_not_trust_is_named(platform: LocalPlatform) -> None:
    with server(platform, lambda _: None) as port:  # the same certificate, so the control
        assert "does not trust" not in str(check_tenant(dataclasses.replace(platform.tenant, mqtt=("127.0.0.1", port))))
    other = LocalPlatform.start(platform.folder.parent / "other")
    try:
        told = str(check_tenant(dataclasses.replace(platform.tenant, mqtt=other.mqtt)))
        doubt = f"with a certificate that the file {platform.server_certificate} does not trust ("
        assert told.startswith("✓ ") and doubt in told
    finally:
        other.stop()


def test_ports_that_speak_no_tls_or_nothing(
    platform: LocalPlatform, says: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rest, "TIMEOUT", (1.0, 1.0))
    monkeypatch.setattr("mciot_nb.connect.server_certificate.TIMEOUT", 1.0)
    with server(platform, lambda plain: plain.sendall(b"220 hello\r\n"), tls=False) as port:
        assert says(url=f"https://127.0.0.1:{port}").startswith(f"✓ reached. ✗ 127.0.0.1:{port} does not speak TLS")
        assert says(mqtt_port=port).endswith("the platform's port for certificates is 8883.")
    with server(platform, lambda plain: time.sleep(30), tls=False) as port:
        told = says(mqtt_port=port)
        assert f"✗ 127.0.0.1:{port} accepts the connection and does not answer" in told and "may read" in told
        assert says(url=f"https://127.0.0.1:{port}").startswith(f"✓ reached. ✗ 127.0.0.1:{port} accepts the call")


def test_a_tenant_that_hangs_stops_neither_the_kernel_nor_the_form(platform: LocalPlatform) -> None:
    release = threading.Event()
    with server(platform, lambda connection: release.wait(60)) as port:
        form = tenant_form(real(platform, url=f"https://127.0.0.1:{port}"), secret=password(platform))
        for said in ("Testing …", "Testing … Pressed twice: it is done once."):
            form._test.click()
            assert result(form) == said and "mciot-busy" in form._test._dom_classes
            hanging = form._tester
        form._fields["mqtt_port"].value += 1
        assert "mciot-busy" not in form._test._dom_classes
        assert result(form) == "You have changed something: press Test again."
        form._fields["mqtt_port"].value -= 1
        form._where.value = True
        press(form)
        assert form.settings.local and result(form) == ""
        form._where.value = False
        form._fields["url"].value = platform.https
        hand_over(form._credential, reveal(password(platform)))
        assert verdict(form) == GOOD and hanging and hanging.is_alive(), "while the first one hangs still"
        release.set()
    hanging.join(60)
    assert result(form) == GOOD, "what comes late is not shown"


def test_what_is_typed_is_tested_and_a_secret_is_asked_for(platform: LocalPlatform) -> None:
    form = tenant_form(TenantSettings(), platform=lambda: platform)
    fill_tenant(form, real(platform))
    assert verdict(form).startswith("✗ Not tested: Password is missing")
    hand_over(form._credential, reveal(password(platform)))
    assert verdict(form) == GOOD and form.settings.local, "nothing was submitted"
    form._fields["user"].value = "somebody"  # the password was another one's
    assert verdict(form).startswith("✗ Not tested: 1 field")


def test_a_local_platform_that_does_not_start_says_why() -> None:
    def refuse() -> None:
        raise OnboardingError("The local platform can't start: mend that.")

    form = tenant_form(TenantSettings(), platform=refuse)
    assert verdict(form) == "✗ The local platform can't start: mend that."
    broken = tenant_form(TenantSettings())
    assert verdict(broken) == "✗ Not tested, because of an unexpected error: run the cell again."
