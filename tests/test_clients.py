"""What the cards and snippets say is what really works: they are read, copied and run here, as a learner would."""

import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import PASSPHRASE, Run, tool
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from mciot_nb import Device, OnboardingError, Tenant, Workspace
from mciot_nb.connect.client_settings import ClientSettings

ANOTHER = "somebody-else"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    workspace = Workspace(tmp_path_factory.mktemp("clients") / "work space")  # what is shown must be quoted
    workspace.catch_up("upload")
    yield workspace
    workspace.platform().stop()


@pytest.fixture
def settings(workspace: Workspace) -> ClientSettings:
    return workspace.client_settings(workspace.tenant())


def values(settings: list[tuple[str, str, str]]) -> dict[str, str]:
    return {name: value for name, value, _ in settings}


def last_attempt(workspace: Workspace) -> tuple[str, str]:
    attempt = workspace.platform().log().iloc[-1]
    return attempt["code"], attempt["client_id"]


def typed(command: list[str], text: str) -> "subprocess.CompletedProcess[str]":
    """Run a command with ``text`` on standard input, and no terminal to ask at."""
    return subprocess.run(command, input=text, capture_output=True, text=True, start_new_session=True, timeout=60)


def test_mqttfx_is_told_what_connects(workspace: Workspace, settings: ClientSettings) -> None:
    card = values(settings.mqttfx)
    stores = Path(card["Client Keystore"]), Path(card["Keystore File"])
    address = card["Broker Address"], int(card["Broker Port"])
    alias = card["Client KeyPair Alias"]
    with Device.from_keystores(*stores, workspace.passphrase, *address, alias=alias, client_id=card["Client ID"]):
        assert last_attempt(workspace) == ("CONNECTED", card["Client ID"])
    with pytest.raises(OnboardingError, match="CONNACK 5"):
        Device.from_keystores(*stores, workspace.passphrase, *address, client_id=ANOTHER).connect()
    assert all(path.suffix == ".jks" for path in stores), "the form that MQTT.fx's own Java can read"


def test_mosquitto_pub_sends_a_measurement(workspace: Workspace, settings: ClientSettings) -> None:
    program = tool("mosquitto_pub")
    command = [program, *shlex.split(settings.mosquitto_pub)[1:]]
    arrived = len(workspace.platform().measurements())
    sent = typed(command, f"{workspace.passphrase.reveal()}\n")
    assert sent.returncode == 0, sent.stderr
    assert last_attempt(workspace) == ("CONNECTED", "device-0001")
    assert len(workspace.platform().measurements()) == arrived + 1
    assert typed(command, "not the passphrase\n").returncode != 0
    command[command.index("-i") + 1] = ANOTHER
    assert typed(command, f"{workspace.passphrase.reveal()}\n").returncode != 0
    assert last_attempt(workspace) == ("CLIENT_ID_MISMATCH", ANOTHER)
    assert len(workspace.platform().measurements()) == arrived + 1


def test_the_paho_snippet_sends_a_measurement(workspace: Workspace, settings: ClientSettings) -> None:
    program = settings.paho
    arrived = len(workspace.platform().measurements())
    sent = typed([sys.executable, "-W", "ignore", "-c", program], f"{workspace.passphrase.reveal()}\n")
    assert "CONNACK: Success" in sent.stdout and "\nacknowledged" in sent.stdout, sent.stderr
    assert len(workspace.platform().measurements()) == arrived + 1
    other = program.replace("'device-0001'", repr(ANOTHER)).replace("(10)", "(2)")
    sent = typed([sys.executable, "-W", "ignore", "-c", other], f"{workspace.passphrase.reveal()}\n")
    assert "Not authorized" in sent.stdout and "not acknowledged" in sent.stdout, sent.stderr
    assert last_attempt(workspace) == ("CLIENT_ID_MISMATCH", ANOTHER)


def test_mqttx_is_told_of_three_pem_files(workspace: Workspace, settings: ClientSettings, openssl: Run) -> None:
    """MQTTX needs a screen: openssl connects with the same three files in its place."""
    open_key = typed(shlex.split(settings.open_key), f"{workspace.passphrase.reveal()}\n")
    assert open_key.returncode == 0, open_key.stderr
    card = values(settings.mqttx)
    key = Path(card["Client key file"])
    assert load_pem_private_key(key.read_bytes(), None) and key.stat().st_mode & 0o777 == 0o600
    chain, server = card["Client Certificate File"], card["CA File"]
    address = f"{card['Host'].removeprefix('mqtts://')}:{card['Port']}"
    connect = ["s_client", "-connect", address, "-tls1_2", "-verify_return_error"]
    own = ["-cert", chain, "-cert_chain", chain, "-key", key]
    assert openssl(*connect, "-CAfile", server, *own).returncode == 0
    assert openssl(*connect, "-CAfile", workspace.ca_folder / "caCert.pem", *own, check=False).returncode != 0
    key.unlink()


def test_a_real_tenant_is_trusted_by_the_system(workspace: Workspace) -> None:
    tenant = Tenant("https://example.com", "t1", "user", "password", mqtt=("mqtt.example.com", 8883))
    settings = ClientSettings(tenant, workspace.device_file(""), None)
    assert values(settings.mqttx)["CA File"] == "(leave it empty)"
    assert "--cafile" not in settings.mosquitto_pub and "ca_certs=None" in settings.paho


def test_nothing_that_is_shown_holds_a_password(workspace: Workspace, settings: ClientSettings) -> None:
    shown = [str(settings.mqttfx), str(settings.mqttx), settings.open_key]
    shown += [settings.mosquitto_pub, settings.paho]
    for secret in (workspace.passphrase.reveal(), PASSPHRASE):
        assert secret not in "\n".join(shown)


def test_without_a_device_certificate_one_sentence_says_so(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(OnboardingError, match=r"deviceCertChain\.pem"):
        ClientSettings(workspace.tenant(), tmp_path, None)
