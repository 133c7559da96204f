"""A device's connection and a tenant's settings, against the real local platform: each success, and what is wrong."""

import dataclasses
import ssl
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import test_trust_panel
from conftest import PASSPHRASE, Run
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from platform_tools import DAY, TLS, Entity, make, started, wait_for
from test_tenant_calls import device_of, refused

from mciot_nb import Device, DistinguishedName, LocalPlatform, Secret, Workspace
from mciot_nb.connect.tenant import Tenant, TenantSettings, read_settings, real_tenant
from mciot_nb.pki.chain import diagnose, read_certificates, to_pem
from mciot_nb.pki.keys import KeyType, create_key

CA = make("Connect CA", ca=True)
DEVICE = make("device", CA)
EXPIRED = make("device", CA, begins=-400 * DAY, ends=-35 * DAY)
OTHER_CA = make("Other CA", ca=True)
STRANGER = make("device", OTHER_CA)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPlatform]:
    with started(tmp_path_factory.mktemp("connect")) as platform:
        yield platform


@pytest.fixture
def tenant(platform: LocalPlatform) -> Tenant:
    tenant = platform.tenant
    tenant.trusted_certificates.ensure(CA.certificate)
    return tenant


def assert_verdict(platform: LocalPlatform, code: str) -> None:
    """Wait for the platform's log, which may be written just after the client has heard it."""
    wait_for(lambda: platform.log().iloc[-1]["code"] == code, 60)


@pytest.mark.parametrize("tls", TLS)
@pytest.mark.parametrize(
    ("entity", "chain", "options", "code", "reason"),
    [
        (DEVICE, [DEVICE, CA], {"client_id": "other"}, "CONNACK_5", "CLIENT_ID_MISMATCH"),
        (DEVICE, [DEVICE], {}, "CONNACK_5", "INCOMPLETE_CHAIN"),
        (DEVICE, [DEVICE, CA, CA], {}, "CONNACK_5", "CHAIN_TOO_LONG"),
        (EXPIRED, [EXPIRED, CA], {}, "ALERT_CERTIFICATE_EXPIRED", "EXPIRED"),
        (STRANGER, [STRANGER, OTHER_CA], {}, "ALERT_*UNKNOWN*", "UNKNOWN_CA"),
        (DEVICE, [], {"chain": None, "key": None, "client_id": "device"}, "CONNACK_5", "NO_CREDENTIALS"),
    ],
)
@pytest.mark.usefixtures("tenant")
def test_each_refusal_is_one_sentence_here_and_a_reason_there(
    platform: LocalPlatform,
    tmp_path: Path,
    tls: ssl.TLSVersion,
    entity: Entity,
    chain: list[Entity],
    options: dict[str, Any],
    code: str,
    reason: str,
) -> None:
    shown = [one.certificate for one in chain]
    sentence = refused(code, device_of(platform, tmp_path, entity, shown=shown, tls=tls, **options).connect)
    assert sentence.startswith(f"{platform.mqtt[0]}:{platform.mqtt[1]} ") and PASSPHRASE not in sentence
    assert_verdict(platform, reason)
    with device_of(platform, tmp_path, DEVICE, tls=tls):  # the control: the same device with nothing wrong
        assert_verdict(platform, "CONNECTED")


def test_a_ca_whose_key_writes_its_curve_out_is_no_matter_of_dates(
    platform: LocalPlatform, tmp_path: Path, openssl: Run
) -> None:
    key, file = tmp_path / "explicit.key", tmp_path / "explicit.pem"
    curve = ("-pkeyopt", "ec_paramgen_curve:P-256", "-pkeyopt", "ec_param_enc:explicit")
    openssl("genpkey", "-algorithm", "EC", *curve, "-out", key)
    usage = ("-addext", "keyUsage=critical,keyCertSign")
    openssl("req", "-x509", "-key", key, "-subj", "/CN=Explicit", *usage, "-out", file)
    own, loaded = read_certificates(file)[0], load_pem_private_key(key.read_bytes(), None)
    device = make("explicit", Entity(own, loaded, (own,)))  # type: ignore[arg-type]
    platform.tenant.trusted_certificates.upload(own)
    said = refused("ALERT_BAD_CERTIFICATE", device_of(platform, tmp_path, device).connect)
    assert "perhaps" in said and "states its curve by numbers" in said and "ask diagnose" in said
    assert "its curve written out" in str(diagnose(device.chain, [own], "guide-2021")), "which it does say"


@pytest.mark.usefixtures("tenant")
def test_what_is_published_while_not_connected_is_not_sent_later(platform: LocalPlatform, tmp_path: Path) -> None:
    once = device_of(platform, tmp_path, DEVICE)
    with once:
        once.publish("100,device,c8y_MQTTDevice")
    refused("NOT_CONNECTED", lambda: once.publish("400,c8y_Once,never to arrive"))
    with once:
        once.publish("400,c8y_Once,arrived")
    events = platform.events()["text"].tolist()
    assert (events.count("never to arrive"), events.count("arrived")) == (0, 1)


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"passphrase": "not this one"}, "WRONG_PASSPHRASE"),
        ({"passphrase": ""}, "WRONG_PASSPHRASE"),
        ({"key": "other.pem"}, "KEY_MISMATCH"),
        ({"key": "none.pem"}, "NO_FILE"),
        ({"chain": "none.pem"}, "NO_FILE"),
        ({"trusted": "none.pem"}, "NO_FILE"),
        ({"chain": None, "key": None}, "NO_CLIENT_ID"),
        ({"address": ("", 8883)}, "NO_HOST"),
    ],
)
def test_what_a_device_is_made_of_is_checked(
    platform: LocalPlatform, tmp_path: Path, wrong: dict[str, Any], code: str
) -> None:
    create_key(tmp_path / "other.pem", PASSPHRASE, key_type=KeyType.P256)
    options = {name: tmp_path / given if str(given).endswith(".pem") else given for name, given in wrong.items()}
    assert "not this one" not in refused(code, lambda: device_of(platform, tmp_path, DEVICE, **options))
    assert isinstance(device_of(platform, tmp_path, DEVICE), Device)  # the control


@pytest.mark.parametrize(
    ("changed", "code", "says"),
    [
        ({"password": Secret("wrong-one")}, "HTTP_401", "check user, password and tenant ID"),
        ({"tenant_id": "t0", "user": "x"}, "HTTP_401", ""),
        ({"user": "ünknown"}, "HTTP_401", ""),
        ({"token": Secret("wrong-one")}, "HTTP_401", ""),
        ({"token": Secret("wrong-one\n")}, "HTTP_401", ""),
        ({"verify": "other.pem"}, "TLS", "was not trusted"),
        ({"verify": True}, "TLS", "was not trusted"),
        ({"verify": "/no/such/file"}, "", "can't be called"),
        ({"verify": False}, "", "never switched off"),
        ({"url": "https://["}, "", "can't be called"),
        ({"url": f"https://{'x' * 70}.example.com"}, "*", ""),  # requests can't write it, or nothing answers
        *(({"token": Secret(token)}, "BAD_TOKEN", "") for token in ("“typographic”", "two\nwrong-one", "")),
    ],
)
def test_a_tenant_that_is_described_wrongly_says_what_to_do(
    tenant: Tenant, tmp_path: Path, changed: dict[str, Any], code: str, says: str
) -> None:
    (tmp_path / "other.pem").write_bytes(to_pem([CA.certificate]))
    changed = changed | ({"verify": str(tmp_path / "other.pem")} if changed.get("verify") == "other.pem" else {})
    sentence = refused(code, lambda: dataclasses.replace(tenant, **changed).trusted_certificates.list())
    assert says in sentence and "wrong-one" not in sentence
    assert tenant.trusted_certificates.list() and "Secret('••••')" in repr(tenant)  # the control


def test_an_environment_ca_bundle_does_not_get_in_the_way(
    tenant: Tenant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other.pem").write_bytes(to_pem([CA.certificate]))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "other.pem"))
    assert tenant.trusted_certificates.list()


REAL = TenantSettings("https://t.example.com", "t1", "ann", "t.example.com", local=False)


def test_the_choice_is_kept_without_the_secret(quick_workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, word = quick_workspace.folder, "very-secret-word"
    assert read_settings(folder).local
    quick_workspace.choose_tenant(REAL, Secret(word))
    assert read_settings(folder) == REAL == Workspace(folder).tenant_settings
    assert all(word.encode() not in path.read_bytes() for path in folder.iterdir() if path.is_file())
    real = quick_workspace.tenant()
    assert (real.url, real.mqtt, real.verify, real.is_local) == (REAL.url, ("t.example.com", 8883), True, False)
    assert "Stop here: type the password" in refused("NEED_PASSWORD", Workspace(folder).tenant)
    monkeypatch.setenv("MCIOT_PASSWORD", word)
    assert Workspace(folder).tenant() == real
    assert real_tenant(dataclasses.replace(REAL, user=""), Secret("t")).token == Secret("t")
    for damaged in ("{", "[]", "{}", (folder / "tenant.json").read_text().replace("8883", '"8883"')):
        (folder / "tenant.json").write_text(damaged)
        assert "damaged" in refused("BAD_FILE", lambda: read_settings(folder))
    monkeypatch.setenv("MCIOT_URL", "https://u.example.com:444")
    assert read_settings(folder).mqtt_host == "u.example.com"


@pytest.mark.parametrize(
    "url",
    [
        *("", "http://t.example.com", "https://", "https://[", "t.example.com", "https://t.example.com:x"),
        *("https://me:word@t.example.com", "https://t.example.com/apps", "https://t.example.com?a=b"),
    ],
)
def test_a_url_that_can_not_work_is_named(url: str) -> None:
    assert "https://" in dataclasses.replace(REAL, url=url).problems()["url"]
    assert REAL.problems() == {}  # the control
    all_fields = {"url", "tenant_id", "user", "mqtt_host", "mqtt_port"}
    assert set(TenantSettings(local=False, mqtt_port=0).problems()) == all_fields


def test_a_password_given_as_plain_text_is_not_shown() -> None:
    assert "Zeppelin" not in repr(Tenant("https://t.example.com", "t1", "ann", "Zeppelin"))  # type: ignore[arg-type]


def test_a_practice_ca_stays_away_from_a_real_tenant(tenant: Tenant, quick_workspace: Workspace) -> None:
    subject = DistinguishedName(common_name="Practice")
    quick_workspace.create_ca(subject)
    assert dataclasses.replace(tenant, is_local=False).is_for_practice(), "as one of a class says of itself"
    real = test_trust_panel.real(tenant)
    assert "practice_ca=True" in refused("PRACTICE_CA", lambda: quick_workspace.upload_ca(real))
    assert tenant.trusted_certificates.find(quick_workspace.issuer_certificate) is None
    assert quick_workspace.upload_ca(real, practice_ca=True).auto_registration is False
    assert stat.S_IMODE((quick_workspace.folder / "passphrase").stat().st_mode) == 0o600
