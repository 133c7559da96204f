"""Clients of other makes against the local platform: mosquitto's programs, and gmqtt."""

import asyncio
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import gmqtt
import pytest
from conftest import run, tool
from gmqtt.mqtt.constants import MQTTv311
from gmqtt.storage import PersistentStorage
from platform_tools import SECONDS, TLS, Entity, client_context, make, rest, started, upload, wait_for, write_chain

from mciot_nb.local_platform import LocalPlatform

QOS = [1, *(pytest.param(qos, marks=pytest.mark.slow) for qos in (0, 2))]
#: What mosquitto says of the acknowledgements that each quality of service has, in their order.
ACKNOWLEDGED = {0: [], 1: ["PUBACK"], 2: ["PUBREC", "PUBCOMP"]}
#: What gmqtt keeps until it is acknowledged, as the packets' types: PUBLISH is 3, PUBREL is 6.
KEPT = {0: [], 1: [3], 2: [3, 6]}
NOT_AUTHORISED = 5  # as CONNACK code, and as mosquitto's exit code
ANOTHER = "somebody-else"
OPENSSL_CONF = """\
openssl_conf = all
[all]
ssl_conf = programs
[programs]
system_default = limits
[limits]
MinProtocol = {0}
MaxProtocol = {0}
"""


class World(NamedTuple):
    platform: LocalPlatform
    root: Entity


class Owner(NamedTuple):
    """A device and its file; the key has no passphrase."""

    name: str
    file: Path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with started(tmp_path_factory.mktemp("workspace")) as platform:
        root = make("Root", ca=True)
        assert upload(platform, root).status_code == 201
        yield World(platform, root)


def issue(root: Entity, name: str, folder: Path) -> Owner:
    """Make a device's certificate, and write its key and its chain into one file."""
    return Owner(name, write_chain(make(name, root), folder / f"{name}.pem"))


def arguments(platform: LocalPlatform, owner: Owner, client_id: str, *options: object) -> list[object]:
    host, port = platform.mqtt
    files = ["--cafile", platform.server_certificate, "--cert", owner.file, "--key", owner.file]
    return ["-h", host, "-p", port, "-i", client_id, *files, *options]


def mosquitto(
    program: str, platform: LocalPlatform, owner: Owner, *options: object, client_id: str = ""
) -> "subprocess.CompletedProcess[str]":
    """Run one of mosquitto's programs as ``owner``, with another ClientId than its name if one is given."""
    return run(program, *arguments(platform, owner, client_id or owner.name, *options), check=False, timeout=SECONDS)


def temperatures(platform: LocalPlatform, owner: Owner) -> list[float]:
    return list(platform.measurements().query(f"device == '{owner.name}'")["value"])


@pytest.mark.parametrize("version", TLS, ids=["TLS1.2", "TLS1.3"])
@pytest.mark.parametrize("qos", QOS)
def test_mosquitto_pub_publishes(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, qos: int, version: ssl.TLSVersion
) -> None:
    platform, owner = world.platform, issue(world.root, f"pub-{qos}-{version.name}", tmp_path)
    tls = version.name.replace("_", ".")
    # mosquitto's own --tls-version names the oldest version only: OpenSSL's configuration can name the newest.
    (tmp_path / "openssl.cnf").write_text(OPENSSL_CONF.format(tls))
    monkeypatch.setenv("OPENSSL_CONF", str(tmp_path / "openssl.cnf"))
    options = ("-d", "-q", qos, "-t", "s/us", "-m", f"211,2{qos}.5")
    sent = mosquitto("mosquitto_pub", platform, owner, *options)
    assert sent.returncode == 0, sent.stderr
    answers = [line.split(" received ")[1].split()[0] for line in sent.stdout.splitlines() if " received " in line]
    assert answers == ["CONNACK", *ACKNOWLEDGED[qos]]
    wait_for(lambda: temperatures(platform, owner))  # with QoS 0 the client has gone before it is stored
    assert platform.log().iloc[-1][["code", "tls"]].to_list() == ["CONNECTED", tls]
    refused = mosquitto("mosquitto_pub", platform, owner, *options, client_id=ANOTHER)
    assert refused.returncode == NOT_AUTHORISED and "not authorised" in refused.stderr
    assert platform.log().iloc[-1][["code", "client_id"]].to_list() == ["CLIENT_ID_MISMATCH", ANOTHER]
    assert temperatures(platform, owner) == [20.5 + qos]


@pytest.mark.parametrize("qos", QOS)
def test_mosquitto_rr_is_answered(world: World, tmp_path: Path, qos: int) -> None:
    platform, owner = world.platform, issue(world.root, f"rr-{qos}", tmp_path)
    assert mosquitto("mosquitto_pub", platform, owner, "-q", 1, "-t", "s/us", "-m", "100").returncode == 0
    options = ("-V", "mqttv311", "-q", qos, "-W", 60, "-t", "s/us", "-e", "s/ds", "-F", "%t %q %p", "-m")
    asked = mosquitto("mosquitto_rr", platform, owner, *options, "123")
    number = rest(platform, "GET", f"/identity/externalIds/c8y_Serial/{owner.name}").json()["managedObject"]["id"]
    assert asked.stdout == f"s/ds {min(qos, 1)} 124,{number}\n", asked.stderr  # the platform grants QoS 1 at most
    refused = mosquitto("mosquitto_rr", platform, owner, *options, "123", client_id=ANOTHER)
    assert (refused.returncode, refused.stdout) == (NOT_AUTHORISED, "")


@pytest.mark.parametrize("qos", QOS)
def test_mosquitto_sub_receives_its_own_operations(world: World, tmp_path: Path, qos: int) -> None:
    platform, owner = world.platform, issue(world.root, f"sub-{qos}", tmp_path)
    other = issue(world.root, f"other-{qos}", tmp_path)
    numbers = []
    for each in (other, owner):
        assert mosquitto("mosquitto_pub", platform, each, "-q", 1, "-t", "s/us", "-m", "100").returncode == 0
        identity = rest(platform, "GET", f"/identity/externalIds/c8y_Serial/{each.name}")
        numbers.append(identity.json()["managedObject"]["id"])
    # Subscribed before it connects again: who is connected then listens already, and nothing must be guessed.
    listen = ("-c", "-q", qos, "-W", 60, "-F", "%t %q %p", "-t", "s/ds")
    assert mosquitto("mosquitto_sub", platform, owner, *listen, "-E").returncode == 0
    command = [tool("mosquitto_sub"), *map(str, arguments(platform, owner, owner.name, *listen, "-C", 1))]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as listener:
        wait_for(lambda: list(platform.log()["client_id"]).count(owner.name) == 3)
        for number, text in zip(numbers, ("not for you", "for you"), strict=True):
            body = {"deviceId": number, "c8y_Command": {"text": text}}
            assert rest(platform, "POST", "/devicecontrol/operations", json=body).status_code == 201
        heard, _ = listener.communicate(timeout=SECONDS)
    assert heard == f"s/ds {min(qos, 1)} 511,{owner.name},for you\n"
    refused = mosquitto("mosquitto_sub", platform, owner, *listen, client_id=ANOTHER)
    assert refused.returncode == NOT_AUTHORISED and "not authorised" in refused.stderr
    denied = mosquitto("mosquitto_sub", platform, owner, *listen[:-1], "s/us")
    assert "All subscription requests were denied" in denied.stderr


class Storage(PersistentStorage):
    """gmqtt's own store of what is not acknowledged yet, which also notes the types of the packets."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[int] = []

    def push_message(self, mid: int, raw_package: bytes) -> None:
        self.kept.append(raw_package[0] >> 4)
        super().push_message(mid, raw_package)


async def talk(platform: LocalPlatform, context: ssl.SSLContext, client_id: str, qos: int) -> list[Any]:
    """Publish a temperature, subscribe, and ask for the internal id; returns what was kept, granted and received."""
    storage, granted, received = Storage(), asyncio.Queue[tuple[int, ...]](), asyncio.Queue[tuple[str, int, str]]()
    client = gmqtt.Client(client_id, persistent_storage=storage)
    client.set_config({"reconnect_retries": 0})
    client.on_subscribe = lambda _client, _mid, codes, _properties: granted.put_nowait(codes)
    client.on_message = lambda _client, topic, text, qos, _p: received.put_nowait((topic, qos, text.decode()))
    async with asyncio.timeout(SECONDS):
        await client.connect(*platform.mqtt, ssl=context, version=MQTTv311)
        try:
            client.publish("s/us", f"100\n211,2{qos}.5", qos=qos)
            await storage.wait_empty()
            kept = list(storage.kept)
            client.subscribe([gmqtt.Subscription(topic, qos=qos) for topic in ("s/ds", "s/us")])
            codes = await granted.get()
            client.publish("s/us", "123", qos=qos)
            answer = await received.get()
            await storage.wait_empty()
        finally:
            await client.disconnect()
    return [kept, list(codes), answer]


@pytest.mark.parametrize("version", TLS, ids=["TLS1.2", "TLS1.3"])
@pytest.mark.parametrize("qos", QOS)
def test_gmqtt_publishes_and_subscribes(world: World, tmp_path: Path, qos: int, version: ssl.TLSVersion) -> None:
    platform, owner = world.platform, issue(world.root, f"gmqtt-{qos}-{version.name}", tmp_path)
    context = client_context(platform, version)
    context.load_cert_chain(owner.file)
    kept, granted, answer = asyncio.run(talk(platform, context, owner.name, qos))
    number = rest(platform, "GET", f"/identity/externalIds/c8y_Serial/{owner.name}").json()["managedObject"]["id"]
    assert kept == KEPT[qos]
    assert granted == [min(qos, 1), 0x80]  # a device reads s/ds, not s/us
    assert answer == ("s/ds", min(qos, 1), f"124,{number}")
    with pytest.raises(gmqtt.MQTTConnectError) as refused:
        asyncio.run(talk(platform, context, ANOTHER, qos))
    assert refused.value.args[0] == NOT_AUTHORISED
    assert platform.log().iloc[-1]["code"] == "CLIENT_ID_MISMATCH"
    assert temperatures(platform, owner) == [20.5 + qos]
