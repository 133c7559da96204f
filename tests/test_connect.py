"""A tenant and a device, against the real local platform: each success, and the same with the one thing wrong."""

import dataclasses
import os
import socket
import ssl
import stat
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from conftest import PASSPHRASE
from cryptography import x509

from mciot_nb import (
    CertificateAuthority,
    Device,
    DistinguishedName,
    LocalPlatform,
    OnboardingError,
    Secret,
    Tenant,
    Workspace,
)
from mciot_nb.connect.server_certificate import fetch_server_certificate
from mciot_nb.connect.tenant import TenantSettings, read_settings, real_tenant
from mciot_nb.pki.chain import fingerprint, read_certificates, to_pem
from mciot_nb.pki.keys import KeyType, create_key, create_request

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPlatform]:
    platform = LocalPlatform.start(tmp_path_factory.mktemp("connect"))
    yield platform
    platform.stop()


@pytest.fixture(scope="module")
def files(shared_ca: CertificateAuthority, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A device's key, and its chain in several states."""
    folder = tmp_path_factory.mktemp("device")
    key = create_key(folder / "key.pem", PASSPHRASE, key_type=KeyType.RSA_2048)
    csr = create_request(folder / "csr.pem", key, DistinguishedName(common_name="device"))
    device, root = shared_ca.sign(csr), shared_ca.certificate
    old_csr = create_request(folder / "old.pem", key, DistinguishedName(organization="old", common_name="device"))
    old = shared_ca.sign(old_csr, at=datetime.now(UTC) - timedelta(days=400))
    chains = {"good": [device, root], "alone": [device], "long": [device, root, root], "expired": [old, root]}
    for name, chain in chains.items():
        (folder / f"{name}.pem").write_bytes(to_pem(chain))
    return folder


@pytest.fixture
def tenant(platform: LocalPlatform, shared_ca: CertificateAuthority) -> Tenant:
    tenant = platform.tenant
    tenant.trusted_certificates.ensure(shared_ca.certificate)
    return tenant


def device(platform: LocalPlatform, files: Path, chain: str | None = "good", **options: object) -> Device:
    arguments = {"chain": files / f"{chain}.pem" if chain else None, "key": files / "key.pem"} | options
    return Device(
        *platform.mqtt,
        passphrase=PASSPHRASE,
        trusted=platform.server_certificate,
        **arguments,  # type: ignore[arg-type]
    )


def last_verdict(platform: LocalPlatform, wanted: str) -> str:
    """Give the last verdict in the platform's log, which may be written just after the client has heard it."""
    for _ in range(100):
        if (code := str(platform.log().iloc[-1]["code"])) == wanted:
            break
        time.sleep(0.05)
    return code


def sentence(error: "pytest.ExceptionInfo[OnboardingError]") -> str:
    text = str(error.value)
    assert "\n" not in text and text.endswith(".") and PASSPHRASE not in text
    return text


@pytest.mark.parametrize("tls", VERSIONS)
def test_a_device_connects_publishes_and_hears(
    platform: LocalPlatform, tenant: Tenant, files: Path, tls: ssl.TLSVersion
) -> None:
    with device(platform, files, tls=tls) as connected:
        assert repr(connected) == "Device 'device', connected"
        connected.publish("100,device,c8y_MQTTDevice", f"200,c8y_Temperature,T,{tls.value},C", "400,c8y_Door,opened")
        connected.publish("100,device,c8y_MQTTDevice")
        message = connected.receive(5)
        assert message and message.topic == "s/e" and message.payload.startswith("41,100")
    assert repr(connected) == "Device 'device', not connected"
    assert tls.value in platform.measurements()["value"].tolist()
    assert platform.events().iloc[-1]["text"] == "opened"
    assert platform.log().iloc[-1]["code"] == "CONNECTED"


@pytest.mark.parametrize("tls", VERSIONS)
@pytest.mark.parametrize(
    ("options", "code", "reason"),
    [
        ({"client_id": "other"}, "CONNACK_5", "CLIENT_ID_MISMATCH"),
        ({"chain": "alone"}, "CONNACK_5", "INCOMPLETE_CHAIN"),
        ({"chain": "long"}, "CONNACK_5", "CHAIN_TOO_LONG"),
        ({"chain": "expired"}, "ALERT_CERTIFICATE_EXPIRED", "EXPIRED"),
        ({"chain": None, "key": None, "client_id": "device"}, "ALERT_", "NO_CLIENT_CERT"),
    ],
)
def test_each_refusal_is_one_sentence_here_and_a_reason_there(
    platform: LocalPlatform,
    tenant: Tenant,
    files: Path,
    tls: ssl.TLSVersion,
    options: dict[str, str | None],
    code: str,
    reason: str,
) -> None:
    refused = device(platform, files, tls=tls, **options)
    with pytest.raises(OnboardingError) as error:
        refused.connect()
    assert error.value.code.startswith(code), error.value.code
    assert sentence(error).startswith(f"{platform.mqtt[0]}:{platform.mqtt[1]} ")
    assert last_verdict(platform, wanted=reason) == reason
    with device(platform, files, tls=tls):  # the control: the same device with nothing wrong
        assert last_verdict(platform, wanted="CONNECTED") == "CONNECTED"


@pytest.mark.parametrize("tls", VERSIONS)
def test_a_ca_that_is_not_uploaded_is_unknown(
    platform: LocalPlatform, tenant: Tenant, files: Path, tls: ssl.TLSVersion, shared_ca: CertificateAuthority
) -> None:
    tenant.trusted_certificates.delete(shared_ca.certificate)
    with pytest.raises(OnboardingError, match="upload the CA certificate") as error:
        device(platform, files, tls=tls).connect()
    assert error.value.code in ("ALERT_UNKNOWN_CA", "ALERT_CERTIFICATE_UNKNOWN")
    tenant.trusted_certificates.upload(shared_ca.certificate)
    with device(platform, files, tls=tls):
        pass


def test_a_device_does_not_trust_another_server(
    platform: LocalPlatform, tenant: Tenant, files: Path, shared_ca: CertificateAuthority
) -> None:
    with pytest.raises(OnboardingError, match=r"server certificate of .* was not trusted") as error:
        Device(
            *platform.mqtt,
            chain=files / "good.pem",
            key=files / "key.pem",
            passphrase=PASSPHRASE,
            trusted=files / "good.pem",
        ).connect()
    assert error.value.code == "SERVER_NOT_TRUSTED"
    with device(platform, files) as connected, pytest.raises(OnboardingError, match="16184"):
        connected.publish("x" * 16185)


def test_what_is_published_while_not_connected_is_not_sent_later(
    platform: LocalPlatform, tenant: Tenant, files: Path
) -> None:
    once = device(platform, files)
    with once:
        once.publish("100,device,c8y_MQTTDevice")
    with pytest.raises(OnboardingError, match="not connected"):
        once.publish("400,c8y_Once,never to arrive")
    with once:
        once.publish("400,c8y_Once,arrived")
    assert platform.events()["text"].tolist().count("never to arrive") == 0
    assert platform.events()["text"].tolist().count("arrived") == 1


def test_the_platform_is_trusted_as_soon_as_the_system_trusts_it(
    platform: LocalPlatform, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = fetch_server_certificate("localhost", platform.mqtt[1])
    assert list(shown.chain) == read_certificates(platform.server_certificate) and "self-signed" in shown.problem
    monkeypatch.setenv("SSL_CERT_FILE", str(platform.server_certificate))
    assert fetch_server_certificate("localhost", platform.mqtt[1]).problem == ""


def test_what_a_device_is_made_of_is_checked(platform: LocalPlatform, files: Path, tmp_path: Path) -> None:
    create_key(tmp_path / "other.pem", PASSPHRASE, key_type=KeyType.RSA_2048)
    good = {"chain": files / "good.pem", "key": files / "key.pem", "passphrase": PASSPHRASE}
    for wrong, says in [
        ({"passphrase": "not this one"}, "does not open"),
        ({"passphrase": ""}, "does not open"),
        ({"key": tmp_path / "other.pem"}, "does not belong"),
        ({"key": tmp_path / "none.pem"}, "There is no key"),
        ({"chain": tmp_path / "none.pem"}, "There is no file"),
        ({"trusted": tmp_path / "none.pem"}, "There is no file"),
        ({"chain": None, "key": None}, "ClientId is unknown"),
    ]:
        with pytest.raises(OnboardingError, match=says) as error:
            Device(*platform.mqtt, **(good | wrong))  # type: ignore[arg-type]
        assert "not this one" not in sentence(error)


def test_nobody_there_and_somebody_else_there(files: Path, platform: LocalPlatform) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    good = {"chain": files / "good.pem", "key": files / "key.pem", "passphrase": PASSPHRASE}
    with pytest.raises(OnboardingError, match="Nothing answers") as error:
        Device("127.0.0.1", port, **good).connect()  # type: ignore[arg-type]
    assert error.value.code == "NOT_REACHED"
    with pytest.raises(OnboardingError, match="Nothing answers"):
        tenant = dataclasses.replace(platform.tenant, url=f"https://127.0.0.1:{port}")
        tenant.trusted_certificates.list()


def test_trusted_certificates_come_and_go(tenant: Tenant, shared_ca: CertificateAuthority) -> None:
    found = tenant.trusted_certificates.find(shared_ca.certificate)
    assert found and found.fingerprint == fingerprint(shared_ca.certificate) and found.status == "ENABLED"
    assert found in tenant.trusted_certificates.list()
    assert found.not_after.replace(microsecond=0) == shared_ca.certificate.not_valid_after_utc
    assert tenant.trusted_certificates.to_frame()["name"].tolist() == ["Test CA"]
    with pytest.raises(OnboardingError, match="409") as error:
        tenant.trusted_certificates.upload(shared_ca.certificate)
    assert error.value.code == "HTTP_409" and "there already" in sentence(error)
    assert tenant.trusted_certificates.ensure(shared_ca.certificate) == found
    tenant.trusted_certificates.delete(shared_ca.certificate)
    assert tenant.trusted_certificates.find(shared_ca.certificate) is None
    with pytest.raises(OnboardingError, match="404"):
        tenant.trusted_certificates.delete(shared_ca.certificate)


def test_each_http_failure_says_what_to_do(tenant: Tenant, files: Path) -> None:
    leaf = x509.load_pem_x509_certificates((files / "good.pem").read_bytes())[0]
    for wrong, says in [
        (dataclasses.replace(tenant, password=Secret("wrong-one")), "401: .*check user, password and tenant ID"),
        (dataclasses.replace(tenant, tenant_id="t0", user="x"), "401"),
        (dataclasses.replace(tenant, user="ünknown"), "401"),
        (dataclasses.replace(tenant, token=Secret("no-token")), "401"),
        (
            dataclasses.replace(tenant, url=tenant.url.replace("127.0.0.1", "127.0.0.2")),
            "(not trusted|Nothing answers)",
        ),
        (dataclasses.replace(tenant, verify=str(files / "good.pem")), "was not trusted"),
        (dataclasses.replace(tenant, verify=True), "was not trusted"),
        (dataclasses.replace(tenant, verify="/no/such/file"), "can't be called"),
        (dataclasses.replace(tenant, url="https://["), "can't be called"),
        (dataclasses.replace(tenant, url=f"https://{'x' * 70}.example.com"), "(can't be called|Nothing answers)"),
        (dataclasses.replace(tenant, token=Secret("token-with-newline\n")), "401"),
    ]:
        with pytest.raises(OnboardingError, match=says) as error:
            wrong.trusted_certificates.list()
        assert "wrong-one" not in sentence(error) and "no-token" not in str(error.value)
    with pytest.raises(OnboardingError, match=r"422: .*CA:true"):
        tenant.trusted_certificates.upload(leaf)
    for token in ("“typographic”", "two\nlines", ""):
        with pytest.raises(OnboardingError, match="bearer token holds characters") as error:
            dataclasses.replace(tenant, token=Secret(token))
        assert "lines" not in sentence(error)
    with pytest.raises(OnboardingError, match="never switched off"):
        dataclasses.replace(tenant, verify=False)
    assert "Secret('••••')" in repr(tenant)


class Odd(BaseHTTPRequestHandler):
    """A server that is no platform: it answers what its path says."""

    def do_GET(self) -> None:
        status = int(self.path.split("/")[1])
        self.send_response(status)
        self.send_header("Location", "/elsewhere")
        self.end_headers()
        if status == 200:
            self.wfile.write(b"<html>")

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("status", "says"),
    [(200, "no tenant's REST interface"), (302, "check the URL"), (403, "ROLE_TENANT_ADMIN"), (503, "try again later")],
)
def test_odd_servers_are_named(platform: LocalPlatform, tenant: Tenant, status: int, says: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(platform.server_certificate, platform.folder / "serverKey.pem")
    with HTTPServer(("127.0.0.1", 0), Odd) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        odd = dataclasses.replace(tenant, url=f"https://127.0.0.1:{server.server_port}/{status}")
        with pytest.raises(OnboardingError, match=says):
            odd.trusted_certificates.list()
        server.shutdown()


def test_an_environment_ca_bundle_does_not_get_in_the_way(
    tenant: Tenant, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(files / "good.pem"))
    assert tenant.trusted_certificates.list()


def test_the_choice_is_kept_without_the_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("MCIOT_")]:
        monkeypatch.delenv(name)
    assert read_settings(tmp_path).local
    settings = TenantSettings("https://t.example.com", "t1", "ann", "t.example.com", local=False)
    workspace = Workspace(tmp_path)
    workspace.choose_tenant(settings, Secret("very-secret-word"))
    assert read_settings(tmp_path) == settings == Workspace(tmp_path).tenant_settings
    assert all(b"very-secret-word" not in path.read_bytes() for path in tmp_path.iterdir())
    real = workspace.tenant()
    assert (real.url, real.mqtt, real.verify, real.is_local) == (settings.url, ("t.example.com", 8883), True, False)
    with pytest.raises(OnboardingError, match="Stop here: type the password"):
        Workspace(tmp_path).tenant()
    monkeypatch.setenv("MCIOT_PASSWORD", "very-secret-word")
    assert Workspace(tmp_path).tenant() == real
    assert real_tenant(dataclasses.replace(settings, user=""), Secret("t")).token == Secret("t")
    (tmp_path / "tenant.json").write_text("{")
    with pytest.raises(OnboardingError, match="damaged"):
        read_settings(tmp_path)
    monkeypatch.setenv("MCIOT_URL", "https://u.example.com:444")
    assert read_settings(tmp_path).mqtt_host == "u.example.com"


@pytest.mark.parametrize(
    "url",
    [
        *("", "http://t.example.com", "https://", "https://[", "t.example.com", "https://t.example.com:x"),
        *("https://me:word@t.example.com", "https://t.example.com/apps", "https://t.example.com?a=b"),
    ],
)
def test_a_url_that_can_not_work_is_named(url: str) -> None:
    assert "https://" in TenantSettings(url, "t", "u", "h", local=False).problems()["url"]
    assert TenantSettings("https://t.example.com", "t", "u", "h", local=False).problems() == {}
    assert set(TenantSettings(local=False, mqtt_port=0).problems()) == {
        "url",
        "tenant_id",
        "user",
        "mqtt_host",
        "mqtt_port",
    }


def test_a_practice_ca_stays_away_from_a_real_tenant(
    tenant: Tenant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MCIOT_PASSPHRASE", raising=False)
    workspace = Workspace(tmp_path)
    CertificateAuthority.create(
        workspace.ca_folder, DistinguishedName(common_name="Practice"), workspace.passphrase, key_type=KeyType.RSA_2048
    )
    real = dataclasses.replace(tenant, is_local=False)
    with pytest.raises(OnboardingError, match="practice_ca=True"):
        workspace.upload_ca(real)
    assert len(tenant.trusted_certificates.list()) <= 1
    assert workspace.upload_ca(real, practice_ca=True).auto_registration is False
    assert stat.S_IMODE((tmp_path / "passphrase").stat().st_mode) == 0o600
