"""Clients of other makes against the local platform: mosquitto's programs, gmqtt, and curl for the upload."""

import asyncio
import base64
import json
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import gmqtt
import pytest
from conftest import Run, run, tool
from cryptography.hazmat.primitives import serialization
from gmqtt.mqtt.constants import MQTTv311
from gmqtt.storage import PersistentStorage
from platform_tools import TLS, Entity, client_context, last_record, make, password, rest, upload, wait_for

from mciot_nb.local_platform import LocalPlatform

QOS = [0, 1, 2]
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
    """A device and its files; the key has no passphrase."""

    name: str
    chain: Path
    key: Path


@pytest.fixture(scope="module", params=["guide-2021", "current"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    platform = LocalPlatform.start(tmp_path_factory.mktemp("workspace"), request.param)
    try:
        root = make("Root", ca=True)
        assert upload(platform, root).status_code == 201
        yield World(platform, root)
        assert "Traceback" not in (platform.folder / "messages.txt").read_text()
        assert "SERVER_ERROR" not in set(platform.log()["code"])
    finally:
        platform.stop()


def issue(root: Entity, name: str, folder: Path, links: int = 2) -> Owner:
    """Make a device's certificate, and write the first ``links`` of its chain."""
    entity, owner = make(name, root), Owner(name, folder / f"{name}.chain.pem", folder / f"{name}.key.pem")
    owner.chain.write_bytes(b"".join(c.public_bytes(serialization.Encoding.PEM) for c in entity.chain[:links]))
    form = serialization.PrivateFormat.PKCS8
    owner.key.write_bytes(entity.key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return owner


def arguments(platform: LocalPlatform, owner: Owner, client_id: str, *options: object) -> list[object]:
    host, port = platform.mqtt
    files = ["--cafile", platform.server_certificate, "--cert", owner.chain, "--key", owner.key]
    return ["-h", host, "-p", port, "-i", client_id, *files, *options]


def mosquitto(
    program: str, platform: LocalPlatform, owner: Owner, *options: object, client_id: str = ""
) -> "subprocess.CompletedProcess[str]":
    """Run one of mosquitto's programs as ``owner``, with another ClientId than its name if one is given."""
    return run(program, *arguments(platform, owner, client_id or owner.name, *options), check=False, timeout=30)


def temperatures(platform: LocalPlatform, owner: Owner) -> list[float]:
    return list(platform.measurements().query(f"device == '{owner.name}'")["value"])


def connections(platform: LocalPlatform, owner: Owner) -> int:
    return len(platform.log().query(f"client_id == '{owner.name}' and code == 'CONNECTED'"))


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
    options = ("-V", "mqttv311", "-q", qos, "-W", 10, "-t", "s/us", "-e", "s/ds", "-F", "%t %q %p", "-m")
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
    listen = ("-c", "-q", qos, "-W", 20, "-F", "%t %q %p", "-t", "s/ds")
    assert mosquitto("mosquitto_sub", platform, owner, *listen, "-E").returncode == 0
    command = [tool("mosquitto_sub"), *map(str, arguments(platform, owner, owner.name, *listen, "-C", 1))]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as listener:
        wait_for(lambda: connections(platform, owner) == 3)
        for number, text in zip(numbers, ("not for you", "for you"), strict=True):
            body = {"deviceId": number, "c8y_Command": {"text": text}}
            assert rest(platform, "POST", "/devicecontrol/operations", json=body).status_code == 201
        heard, _ = listener.communicate(timeout=30)
    assert heard == f"s/ds {min(qos, 1)} 511,{owner.name},for you\n"
    refused = mosquitto("mosquitto_sub", platform, owner, *listen, client_id=ANOTHER)
    assert refused.returncode == NOT_AUTHORISED and "not authorised" in refused.stderr
    denied = mosquitto("mosquitto_sub", platform, owner, *listen[:-1], "s/us")
    assert "All subscription requests were denied" in denied.stderr


def test_mosquitto_with_the_leaf_alone_gets_in_only_today(world: World, tmp_path: Path) -> None:
    platform = world.platform
    today, options = platform.profile == "current", ("-q", 1, "-t", "s/us", "-m", "211,1")
    for links, welcome in ((1, today), (2, True)):
        owner = issue(world.root, f"leaf-{links}", tmp_path, links)
        sent = mosquitto("mosquitto_pub", platform, owner, *options)
        assert sent.returncode == (0 if welcome else NOT_AUTHORISED), sent.stderr
        assert platform.log().iloc[-1]["code"] == ("CONNECTED" if welcome else "INCOMPLETE_CHAIN")
        assert temperatures(platform, owner) == ([1.0] if welcome else [])


class Storage(PersistentStorage):
    """gmqtt's own store of what is not acknowledged yet, which also notes the types of the packets."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[int] = []

    def push_message(self, mid: int, raw_package: bytes) -> None:
        self.kept.append(raw_package[0] >> 4)
        super().push_message(mid, raw_package)


async def talk(platform: LocalPlatform, context: ssl.SSLContext, client_id: str, qos: int) -> list[Any]:
    """Publish a temperature, subscribe, and ask for the internal id; gives what was kept, granted and received."""
    storage, granted, received = Storage(), asyncio.Queue[tuple[int, ...]](), asyncio.Queue[tuple[str, int, str]]()
    client = gmqtt.Client(client_id, persistent_storage=storage)
    client.set_config({"reconnect_retries": 0})
    client.on_subscribe = lambda _client, _mid, codes, _properties: granted.put_nowait(codes)
    client.on_message = lambda _client, topic, text, qos, _p: received.put_nowait((topic, qos, text.decode()))
    async with asyncio.timeout(20):
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
    context.load_cert_chain(owner.chain, owner.key)
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


def curl(
    platform: LocalPlatform, folder: Path, body: dict[str, str], secret: str = "", trusted: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    """Send the guide's request ("Via REST") and print its status; what is secret goes in on standard input."""
    login = f"{platform.tenant_id}/{platform.tenant.user}:{secret or password(platform)}"
    headers = [f"Authorization: Basic {base64.b64encode(login.encode()).decode()}", "Content-Type: application/json"]
    config = [*headers, "Accept:"]  # the guide's request has no such header, and curl's own has
    (folder / "body.json").write_text(json.dumps(body, indent=4))
    return run(
        "curl",
        *("-q", "--noproxy", "*", "--silent", "--show-error", "--max-time", 30, "--config", "-"),
        *("--cacert", trusted or platform.server_certificate, "--write-out", "%{http_code}"),
        *("--request", "POST", "--data-binary", f"@{folder / 'body.json'}"),
        f"{platform.https}/tenant/tenants/{platform.tenant_id}/trusted-certificates",
        check=False,
        input="".join(f"header = {json.dumps(header)}\n" for header in config),
    )


def as_the_guide_says(openssl: Run, ca: Entity, folder: Path) -> dict[str, str]:
    """Print the certificate, copy its PEM value, remove the line breaks, and put it into the guide's body."""
    (folder / "caCert.pem").write_text(ca.pem)
    printed = openssl("x509", "-in", folder / "caCert.pem", "-text").stdout
    value = printed[printed.index("-----BEGIN") :].replace("\n", "")
    assert value.endswith("-----END CERTIFICATE-----")
    settings = {"status": "ENABLED", "name": "certificateName", "autoRegistrationEnabled": "true"}
    return {**settings, "certInPemFormat": value}


@pytest.mark.parametrize("automatic", ["true", "false"])
def test_the_guides_upload_by_curl(world: World, tmp_path: Path, openssl: Run, automatic: str) -> None:
    platform, ca = world.platform, make("By curl", ca=True)
    owner = issue(ca, f"curl-{automatic}", tmp_path)
    publish = ("mosquitto_pub", platform, owner, "-q", 1, "-t", "s/us", "-m", "211,1")
    before = len(platform.log())
    assert mosquitto(*publish).returncode != 0
    assert last_record(platform, before)["code"] == "UNKNOWN_CA"
    body = as_the_guide_says(openssl, ca, tmp_path) | {"autoRegistrationEnabled": automatic}
    sent = curl(platform, tmp_path, body)
    assert sent.stdout == "201", sent.stderr  # and no text: without Accept the platform gives none
    shown = rest(platform, "GET", ca.fingerprint).json()
    assert (shown["name"], shown["status"]) == ("certificateName", "ENABLED")
    assert shown["autoRegistrationEnabled"] is (automatic == "true")
    assert mosquitto(*publish).returncode == (0 if automatic == "true" else NOT_AUTHORISED)
    assert platform.log().iloc[-1]["code"] == ("CONNECTED" if automatic == "true" else "NOT_REGISTERED")
    assert temperatures(platform, owner) == ([1.0] if automatic == "true" else [])


def test_curl_is_refused_for_what_is_wrong(world: World, tmp_path: Path, openssl: Run) -> None:
    platform, ca = world.platform, make("Refused", ca=True)
    body = as_the_guide_says(openssl, ca, tmp_path)
    answer = curl(platform, tmp_path, body, secret="not the password").stdout
    assert answer.endswith("401") and json.loads(answer[:-3])["error"] == "security/Unauthorized"
    unknown = curl(platform, tmp_path, body, trusted=tmp_path / "caCert.pem")
    assert unknown.returncode == 60 and "certificate" in unknown.stderr  # curl does not believe this platform
    leaf = {**body, "certInPemFormat": make("leaf", ca).pem.replace("\n", "")}
    assert curl(platform, tmp_path, leaf).stdout.endswith("422")
    assert rest(platform, "GET", ca.fingerprint).status_code == 404
    assert [curl(platform, tmp_path, body).stdout[-3:] for _ in range(2)] == ["201", "409"]  # the first is the control
