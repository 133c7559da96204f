"""Clients of other makes against the local platform: mosquitto's programs, and gmqtt."""

import asyncio
import ssl
import subprocess
from pathlib import Path
from typing import Any

import gmqtt
import pytest
from conftest import run, tool
from gmqtt.mqtt.constants import MQTTv311
from gmqtt.storage import PersistentStorage
from platform_tools import SECONDS, TLS, wait_for
from raw_mqtt import World, world_fixture

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


world = world_fixture()


def arguments(world: World, name: str, *options: object, client_id: str = "") -> list[str]:
    """Return the options of a device, with another ClientId than its name if one is given."""
    world.context(name)  # makes the file, whose key has no passphrase
    (host, port), file = world.platform.mqtt, world.folder / f"{name}.pem"
    files = ["--cafile", world.platform.server_certificate, "--cert", file, "--key", file]
    return [*map(str, ("-h", host, "-p", port, "-i", client_id or name, *files, *options))]


def mosquitto(program: str, *given: Any, **options: Any) -> "subprocess.CompletedProcess[str]":
    """Run one of mosquitto's programs."""
    return run(program, *arguments(*given, **options), check=False, timeout=SECONDS)


def temperatures(world: World, name: str) -> list[float]:
    return list(world.platform.measurements().query("device == @name")["value"])


@pytest.mark.parametrize("version", [pytest.param(TLS[0], marks=pytest.mark.slow), TLS[1]], ids=["TLS1.2", "TLS1.3"])
@pytest.mark.parametrize("qos", QOS)
def test_mosquitto_pub_publishes(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, qos: int, version: ssl.TLSVersion
) -> None:
    platform, name, tls = world.platform, f"pub-{qos}-{version.name}", version.name.replace("_", ".")
    # mosquitto's own --tls-version names the oldest version only: OpenSSL's configuration can name the newest.
    (tmp_path / "openssl.cnf").write_text(OPENSSL_CONF.format(tls))
    monkeypatch.setenv("OPENSSL_CONF", str(tmp_path / "openssl.cnf"))
    options = ("-d", "-q", qos, "-t", "s/us", "-m", f"211,2{qos}.5")
    sent = mosquitto("mosquitto_pub", world, name, *options)
    assert sent.returncode == 0, sent.stderr
    answers = [line.split(" received ")[1].split()[0] for line in sent.stdout.splitlines() if " received " in line]
    assert answers == ["CONNACK", *ACKNOWLEDGED[qos]]
    wait_for(lambda: temperatures(world, name))  # with QoS 0 the client has gone before it is stored
    assert platform.log().iloc[-1][["code", "tls"]].to_list() == ["CONNECTED", tls]
    refused = mosquitto("mosquitto_pub", world, name, *options, client_id=ANOTHER)
    assert refused.returncode == NOT_AUTHORISED and "not authorised" in refused.stderr
    assert platform.log().iloc[-1][["code", "client_id"]].to_list() == ["CLIENT_ID_MISMATCH", ANOTHER]
    assert temperatures(world, name) == [20.5 + qos]


@pytest.mark.parametrize("qos", QOS)
def test_mosquitto_sub_receives_its_own_operations(world: World, qos: int) -> None:
    name, other = f"sub-{qos}", f"other-{qos}"
    for each in (other, name):
        assert mosquitto("mosquitto_pub", world, each, "-q", 1, "-t", "s/us", "-m", "100").returncode == 0
    # Subscribed before it connects again: who is connected then listens already, and nothing must be guessed.
    listen = ("-c", "-q", qos, "-W", 60, "-F", "%t %q %p", "-t", "s/ds")
    assert mosquitto("mosquitto_sub", world, name, *listen, "-E").returncode == 0
    command = [tool("mosquitto_sub"), *arguments(world, name, *listen, "-C", 1)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as listener:
        wait_for(lambda: list(world.platform.log()["client_id"]).count(name) == 3)
        for to, text in ((other, "not for you"), (name, "for you")):
            world.operate(to, c8y_Command={"text": text})
        heard, _ = listener.communicate(timeout=SECONDS)
    assert heard == f"s/ds {qos} 511,{name},for you\n"
    refused = mosquitto("mosquitto_sub", world, name, *listen, client_id=ANOTHER)
    assert refused.returncode == NOT_AUTHORISED and "not authorised" in refused.stderr
    denied = mosquitto("mosquitto_sub", world, name, *listen[:-1], "s/us")
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
            client.publish(
                "s/us", "500", qos=1
            )  # acknowledged behind the answer's PUBREL, which must not come too late
            await storage.wait_empty()
        finally:
            await client.disconnect()
    return [kept, list(codes), answer]


@pytest.mark.parametrize("version", TLS, ids=["TLS1.2", "TLS1.3"])
@pytest.mark.parametrize("qos", QOS)
def test_gmqtt_publishes_and_subscribes(world: World, qos: int, version: ssl.TLSVersion) -> None:
    name = f"gmqtt-{qos}-{version.name}"
    context = world.context(name, version)
    kept, granted, answer = asyncio.run(talk(world.platform, context, name, qos))
    assert kept == KEPT[qos]
    assert granted == [qos, 0x80]  # a device reads s/ds, not s/us
    assert answer == ("s/ds", qos, f"124,{world.id_of(name)}")
    with pytest.raises(gmqtt.MQTTConnectError) as refused:
        asyncio.run(talk(world.platform, context, ANOTHER, qos))
    assert refused.value.args[0] == NOT_AUTHORISED
    assert world.platform.log().iloc[-1]["code"] == "CLIENT_ID_MISMATCH"
    assert temperatures(world, name) == [20.5 + qos]
