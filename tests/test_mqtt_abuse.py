"""What a careless or hostile client can do to the local platform: be refused, and never leave a secret behind."""

import contextlib
import http.client
import json
import socket
import ssl
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import platform_tools as tools
import psutil
import pytest
import raw_mqtt as mqtt
from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from mciot_nb.connect.smartrest import line

#: What the tests gave to the platform and nobody may find again.
SECRETS: set[bytes] = set()
EVIL = ["'; DROP TABLE devices; --", '" OR ""="', "x' OR '1'='1", "%", "_", "\\'; --", "NULL", "../x", "<b>&amp;</b>"]


world = mqtt.world_fixture("current", tenants=2)


@pytest.fixture(autouse=True)
def control(world: mqtt.World) -> Iterator[None]:
    """After each test a good client is let in, by MQTT and by REST."""
    yield
    world.dial("good").leave()
    assert world.rest("GET", "/tenant/currentTenant").status_code == 200


def trickle(connection: socket.socket, data: bytes) -> bool:
    """Send byte by byte, slowly; give whether the platform let go before all was sent."""
    connection.settimeout(0.1)
    for byte in data:
        try:
            connection.send(bytes([byte]))
            if not connection.recv(1):
                return True
        except TimeoutError:
            continue
        except OSError:
            return True
    return False


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_many_that_say_nothing_and_the_slow_keep_nobody_out(tmp_path: Path, count: int) -> None:
    resource = pytest.importorskip("resource", reason="this system has no limit of open files")
    if (limit := resource.getrlimit(resource.RLIMIT_NOFILE)[0]) != resource.RLIM_INFINITY and limit < count + 200:
        pytest.skip(f"a process may have {limit} files open here")
    first = "import mciot_platform.mqtt_server as q, mciot_platform.__main__ as m; q.HANDSHAKE_SECONDS = 4.0"
    with mqtt.world_in_foreground(tmp_path, f"{first}; m.IDLE_SECONDS = 2.0") as world, contextlib.ExitStack() as held:
        platform, longer = world.platform, mqtt.connect_with(mqtt.USER, "x" * 400)

        def browser(begin: bytes = b"") -> ssl.SSLSocket:
            plain = socket.create_connection(("127.0.0.1", int(platform.https.rpartition(":")[2])))
            tls = tools.client_context(platform).wrap_socket(plain, server_hostname="localhost")
            tls.sendall(begin)
            return tls

        slow: list[tuple[socket.socket, bytes]] = [
            (socket.create_connection(platform.mqtt), b"\x16\3\1\2\0\1\0\1\xfc\3\3" + bytes(400)),
            (world.raw().tls, longer),
            (browser(), b"GET /" + b"x" * 400),
            (browser(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 400\r\n\r\n"), b"x" * 400),
        ]
        with ThreadPoolExecutor(len(slow)) as pool:
            let_go = pool.map(trickle, *zip(*slow, strict=True))
            silent = [held.enter_context(socket.create_connection(platform.mqtt, tools.SECONDS)) for _ in range(count)]
            good = world.dial("dev")
            assert good.ask(mqtt.publish("400,t,x", 1)) == mqtt.acknowledged(mqtt.PUBACK)
            assert world.rest("GET", "/tenant/currentTenant").ok
            assert list(let_go) == [True] * len(slow)
        assert {one.recv(1) for one in silent} == {b""}
        tools.wait_for(lambda: world.logged() >= count + 3)
        codes = list(platform.log()["code"])
        assert codes.count("TIMEOUT") == count + 2 and set(codes) == {"TIMEOUT", "CONNECTED"}
        assert good.ask(mqtt.PING) == mqtt.PONG
        good.leave()
        one_by_one = world.raw()
        for byte in longer:
            one_by_one.send(bytes([byte]))
        assert one_by_one.packet() == b"\x20\2\0\0"  # the control: not the single bytes are what is refused
        one_by_one.leave()
        for connection, _ in slow:
            connection.close()
        process = psutil.Process(platform.pid)
        tools.wait_for(
            lambda: {c.status for c in process.net_connections("tcp")}.isdisjoint({"ESTABLISHED", "CLOSE_WAIT"})
        )


@pytest.mark.parametrize(
    "version", [pytest.param(tools.TLS[0], marks=pytest.mark.slow), tools.TLS[1]], ids=["TLS1.2", "TLS1.3"]
)
def test_a_certificate_of_over_100_kilobytes_is_refused(
    world: mqtt.World, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    for count, code in ((1500, "CONNECTED"), (2000, "HANDSHAKE_FAILED")):
        names = [x509.DNSName(f"{number:05}.{'x' * 40}.example") for number in range(count)]  # of 56 bytes each
        before, wide = world.logged(), tools.make("dev", world.root, extra=[x509.SubjectAlternativeName(names)])
        with world.connect(wide, version=version) as (_, seen):
            assert (seen.connack == 0) == (code == "CONNECTED")
        record = world.last_record(before)
        assert record["code"] == code and len(record["reason"]) < 300


def test_a_chain_of_100_certificates_is_refused_in_a_sentence(world: mqtt.World, tmp_path: Path) -> None:
    links = [world.root]
    for number in range(110):
        links.append(tools.make(f"Link {number}", links[-1], ca=True))
    for length, connack, codes in (
        (10, 0, {"CONNECTED"}),  # the control
        (100, 5, {"CHAIN_TOO_LONG"}),
        (110, None, {"CHAIN_TOO_LONG", "UNKNOWN_CA"}),  # OpenSSL itself looks no further than at 102
    ):
        before = world.logged()
        with world.connect(tools.make("dev", links[length - 2])) as (_, seen):
            assert seen.connack == connack
        assert world.last_record(before)["code"] in codes


@pytest.mark.parametrize("kind", ["PKCS8", "SEC1", "encrypted", "base64", "with its certificate", "called one"])
def test_a_private_key_that_is_uploaded_is_kept_nowhere(world: mqtt.World, kind: str) -> None:
    ca = tools.make(f"Key {kind}", ca=True)
    shape = PrivateFormat.TraditionalOpenSSL if kind == "SEC1" else PrivateFormat.PKCS8
    hidden = BestAvailableEncryption(b"passphrase") if kind == "encrypted" else NoEncryption()
    pem = ca.key.private_bytes(Encoding.PEM, shape, hidden)
    given = {
        "base64": b64encode(ca.key.private_bytes(Encoding.DER, shape, hidden)),
        "with its certificate": ca.pem.encode() + pem,
        "called one": pem.replace(b"PRIVATE KEY", b"CERTIFICATE"),
    }.get(kind, pem)
    SECRETS.add(ca.key.private_numbers().private_value.to_bytes(32))
    SECRETS.update(row for row in (pem + given.replace(ca.pem.encode(), b"")).splitlines() if len(row) > 40)
    body = {"certInPemFormat": given.decode(), "status": "ENABLED"}
    flat = given.decode().replace("\n", " ")
    answers = [
        tools.upload(world.platform, ca, certInPemFormat=given.decode()),
        world.rest("POST", "bulk", json={"certificates": [body]}),
        world.rest("POST", "/tenant/trusted-certificates/verify-cert-chain", files={"file": given}),
        world.rest("POST", "/devicecontrol/deviceAccessToken", headers={"X-Ssl-Cert-Chain": flat}),
        world.rest("GET", quote(flat, safe="")),
        tools.upload(world.platform, ca),  # the control
    ]
    assert [answer.status_code for answer in answers] == [422, 422, 400, 401, 404, 201]
    said = "".join(answer.text for answer in answers[:4]).encode()
    assert not [secret for secret in SECRETS if secret in said]


def test_a_megabyte_of_json_is_refused_and_does_no_harm(world: mqtt.World) -> None:
    ca = tools.make("Much", ca=True)
    good = {"certInPemFormat": ca.pem, "status": "ENABLED"}
    bodies: list[tuple[str, str, int]] = [
        ("", json.dumps(good | {"name": "x" * 1_000_000}), 422),
        ("", json.dumps(good | {"certInPemFormat": "A" * 1_000_000}), 422),
        ("", json.dumps(good)[:-1] + ', "name": ' + "9" * 1_000_000 + "}", 422),
        ("", json.dumps(good)[:-1] + ', "name": ' + "[" * 500_000 + "]" * 500_000 + "}", 422),
        ("", '{"":' * 200_000, 422),
        ("bulk", json.dumps({"certificates": [good] * 1500}), 409),
        ("bulk", json.dumps({"certificates": [{}] * 250_000}), 422),
        ("", json.dumps(good | {str(number): 1 for number in range(80_000)}), 201),  # the control: it is read whole
    ]
    for where, body, status in bodies:
        assert 700_000 < len(body) < 1024 * 1024
        answer = world.rest("POST", where, data=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == status, body[:100]
        assert len(answer.text) < 3000


def test_a_command_of_any_length_is_delivered_or_refused(world: mqtt.World) -> None:
    raw = world.dial("reader")
    raw.until_pong(mqtt.publish("100", 1), mqtt.subscribe("s/ds"))
    body = {"deviceId": world.id_of("reader"), "c8y_Command": {"text": "x" * 1_000_000}}
    made = world.rest("POST", "/devicecontrol/operations", json=body)
    assert made.status_code in (201, 422)
    if made.status_code == 201:
        assert mqtt.read_message(raw.packet()) == ("s/ds", "511,reader," + "x" * 1_000_000)
    world.operate("reader", c8y_Command={"text": "short"})  # the control
    assert mqtt.read_message(raw.packet()) == ("s/ds", "511,reader,short")
    raw.leave()


def test_no_path_leads_out_of_the_interface(world: mqtt.World) -> None:
    (tenant, other), basic = (
        world.platform.tenant_ids,
        b64encode(":".join(tools.login(world.platform)).encode()).decode(),
    )
    trusted, port = f"/tenant/tenants/{tenant}/trusted-certificates", int(world.platform.https.rpartition(":")[2])
    web = http.client.HTTPSConnection(
        "localhost", port, timeout=tools.SECONDS, context=tools.client_context(world.platform)
    )

    def status(path: str, with_login: bool = True) -> int:
        """Ask for a path as it is written: requests would tidy it up before."""
        web.request("GET", path, headers={"Authorization": f"Basic {basic}"} if with_login else {})
        answer = web.getresponse()
        said = answer.read()
        assert b"root:" not in said and b"password" not in said, path
        return answer.status

    for good in (trusted, f"/tenant/tenants/{quote(tenant[0])}%{ord(tenant[1]):x}{tenant[2:]}/trusted-certificates"):
        assert status(good) == 200  # the controls
    outside = ["credentials.json", "../credentials.json", "platform.sqlite", "etc/passwd", "../../../../../etc/passwd"]
    for place in ("/", "//", "/static/", f"{trusted}/", f"{trusted}/../", "/identity/externalIds/c8y_Serial/"):
        for file in outside:
            for written in (file, quote(file, safe=""), file.replace("..", "%2e%2e"), f"{file}%00", file + "%ff"):
                assert status(place + written) in (400, 404), place + written
                assert status(place + written, False) in (400, 401), place + written
    names = [other, f"%{ord(other[0]):x}{other[1:]}", f"{tenant}%00"]
    names += [f"{tenant}%2f..%2f{other}", f"{tenant}/../{other}"]
    paths = [f"/tenant/tenants/{name}/trusted-certificates" for name in names]
    paths += [f"/inventory/managedObjects/{number}" for number in ("1%00", "-1", "..")]
    for path in (*paths, f"{trusted}/."):
        assert status(path) == 404, path
    for path in (f"/{trusted}", f"{trusted}//"):  # the vendor's client for Python writes such
        assert (status(path), status(path, False)) == (200, 401), path
    web.close()


def test_sql_in_paths_and_parameters_is_text(world: mqtt.World) -> None:
    """That any name of a certificate is kept as it is, is in test_rest_model.py."""
    for evil in (quote(f"{name} that no device has", safe="") for name in EVIL):
        for method in ("GET", "PUT", "DELETE"):
            assert world.rest(method, evil, json={}).status_code == 404
        for path in ("/identity/externalIds/c8y_Serial/", "/inventory/managedObjects/", "/devicecontrol/operations/"):
            assert world.rest("GET", path + evil).status_code == 404
        assert world.rest("GET", f"/event/events?type={evil}").json()["events"] == []
        assert world.rest("GET", f"/alarm/alarms?severity={evil}").json()["alarms"] == []
        assert world.rest("GET", f"/event/events?source={evil}").status_code == 404
        assert world.rest("GET", f"/event/events?{evil}=1").status_code == 200  # what is unknown is ignored
        for name in ("type", "owner", "text", "ids", "fragmentType"):
            assert world.rest("GET", f"/inventory/managedObjects?{name}={evil}").json()["managedObjects"] == []
        for written in (evil, f"name%20eq%20{evil}", f"$orderby={evil}"):
            assert world.rest("GET", f"/inventory/managedObjects?query={written}").status_code in (200, 422)
        for name in ("valueFragmentType", "valueFragmentSeries", "type"):
            assert world.rest("GET", f"/measurement/measurements?{name}={evil}").json()["measurements"] == []


def test_sql_in_a_devices_name_and_values_is_text(world: mqtt.World) -> None:
    platform, root = world.platform, world.root
    for evil in EVIL:
        context = tools.client_context(platform)
        context.load_cert_chain(tools.write_chain(tools.make(evil, root), world.folder / "evil.pem"))
        raw = mqtt.Raw(platform, context)
        assert raw.ask(mqtt.connect(evil)) == b"\x20\2\0\0"
        sent = [("100", evil, evil), ("110", evil, evil, evil), ("114", evil), ("200", evil, evil, "1", evil)]
        sent += [("400", evil, evil), ("302", evil, evil), ("501", evil), ("306", evil), ("301", evil, evil)]
        raw.until_pong(mqtt.publish("\n".join(line(*values) for values in sent), 1))
        raw.leave()
        tables = (platform.devices(), ["name", "type"]), (platform.measurements(), ["fragment", "series", "unit"])
        for table, columns in (*tables, (platform.events(), ["type", "text"])):
            assert set(table.query("device == @evil")[columns].to_numpy().ravel()) == {evil}
        assert list(platform.alarms().query("device == @evil")["status"]) == ["CLEARED", "ACTIVE"]
        found = world.rest("GET", f"/identity/externalIds/c8y_Serial/{quote(evil, safe='')}").json()
        shown = world.rest("GET", f"/inventory/managedObjects/{found['managedObject']['id']}").json()
        assert (found["externalId"], shown["c8y_SupportedOperations"]) == (evil, [evil])


def test_no_secret_is_in_the_log_the_messages_or_the_database(world: mqtt.World) -> None:
    platform = world.platform
    known = json.loads((platform.folder / "credentials.json").read_text())
    SECRETS.update(login["password"].encode() for login in known.values())
    SECRETS.update([b"not-the-pass-word", b"the-mqtt-pass-word", b"the-bearer-token"])
    user, right = tools.login(platform)
    for secret, code in ((b"the-mqtt-pass-word", 4), (right.encode(), 0)):  # without a certificate
        with mqtt.Raw(platform, tools.client_context(platform)).tls as tls:
            tls.sendall(mqtt.connect_with(mqtt.USER | mqtt.PASSWORD, user, secret))
            assert tls.recv(4) == bytes([0x20, 2, 0, code])
    raw = mqtt.Raw(platform, world.context("dev"))
    assert raw.ask(mqtt.connect_with(mqtt.USER | mqtt.PASSWORD, "user", b"the-mqtt-pass-word")) == b"\x20\2\0\0"
    raw.until_pong(mqtt.subscribe("s/dat"))
    ((_, token),) = raw.messages(mqtt.publish("", topic="s/uat"))
    SECRETS.add(token.partition(",")[2].encode())
    raw.leave()
    assert tools.rest(platform, "GET", auth=(platform.tenant.user, "not-the-pass-word")).status_code == 401
    bearer = {"Authorization": "Bearer the-bearer-token"}
    assert tools.rest(platform, "GET", auth=None, headers=bearer).status_code == 401
    assert (
        tools.rest(platform, "GET", auth=None, headers={"Authorization": "Basic not-the-pass-word\xe9"}).status_code
        == 401
    )
    files = {file.name: file.read_bytes() for file in platform.folder.iterdir() if file.name != "credentials.json"}
    assert not [name for name, content in files.items() for secret in SECRETS if secret in content]
    log = platform.log().to_csv().encode()
    assert not [secret for secret in SECRETS if secret in log]
    kept = b"".join(files.values())
    assert b"user" in kept and world.root.certificate.public_bytes(Encoding.DER) in kept  # the control


def test_a_busy_device_keeps_nobody_waiting(world: mqtt.World, tmp_path: Path) -> None:
    ca = tools.make("Flood", ca=True)
    assert world.upload(ca) == 201
    raw = mqtt.World(world.platform, ca, tmp_path).dial("flood")

    def flood() -> None:
        with contextlib.suppress(OSError):
            while True:
                raw.send(mqtt.publish("400,t,x") * 2000)

    thread = threading.Thread(target=flood, daemon=True)
    thread.start()
    try:
        tools.wait_for(lambda: len(world.texts("flood")) > 100)
        for _ in range(3):
            assert world.rest("GET", "/tenant/currentTenant").ok
            world.dial("dev").leave()
        assert thread.is_alive()
    finally:
        assert world.rest("DELETE", ca.fingerprint).status_code == 204  # ends the session
        thread.join(tools.SECONDS)
        raw.tls.close()


def test_a_client_that_does_not_read_is_let_go(tmp_path: Path) -> None:
    first = "import mciot_platform.tls as t, mciot_platform.session as s; t.WRITE_SECONDS = s.WRITE_SECONDS = 1"
    with mqtt.world_in_foreground(tmp_path, first) as world:
        raw = world.raw(receive_buffer=4096)  # or megabytes lie in the system's buffers
        assert raw.ask(mqtt.connect("dev")) == b"\x20\2\0\0"
        assert raw.ask(mqtt.subscribe("s/e", qos=0)) == b"\x90\3\0\7\0"
        assert raw.messages(mqtt.publish("9"))  # the control: who reads is served
        with contextlib.suppress(OSError):  # what the platform does not take any more
            raw.send(mqtt.publish("9\n" * 2000) * 200)  # each line is answered on s/e
        (ending,) = tools.wait_for(lambda: world.ending("dev"))
        assert ending == "The client did not read what was sent to it for 1 seconds."
        process = psutil.Process(world.platform.pid)
        tools.wait_for(lambda: not [c for c in process.net_connections("tcp") if c.status == "ESTABLISHED"])
        raw.tls.close()


def test_who_never_releases_is_ended_and_can_put_it_right(tmp_path: Path) -> None:
    most = 20  # a thousand in truth, which is slow: each message is stored
    with mqtt.world_in_foreground(tmp_path, f"import mciot_platform.session as s; s.MOST_UNRELEASED = {most}") as world:
        raw = world.dial("dev", False)
        raw.send(*(mqtt.publish("", 2, number) for number in range(1, most + 1)))
        assert [raw.packet() for _ in range(most)][-1] == mqtt.acknowledged(mqtt.PUBREC, most)
        raw.send(mqtt.publish("400,t,x", 2, most + 1))
        answers = list(iter(raw.packet, b""))  # up to the connection's end
        assert answers in ([], [mqtt.acknowledged(mqtt.PUBREC, most + 1)])
        tools.wait_for(lambda: f"{most} QoS 2 messages without PUBREL" in world.ending("dev")[-1])
        raw = world.dial("dev", False, b"\x20\2\1\0")
        # What is sent again, since its PUBREC was lost, is not one more, and other messages are none of this.
        assert raw.ask(mqtt.publish("400,t,one", 1, 7)) == mqtt.acknowledged(mqtt.PUBACK, 7)
        assert raw.ask(mqtt.publish("", 2, 1, dup=True)) == mqtt.acknowledged(mqtt.PUBREC, 1)
        for number in range(1, most + 1 + len(answers)):
            assert raw.ask(mqtt.acknowledged(mqtt.PUBREL, number)) == mqtt.acknowledged(mqtt.PUBCOMP, number)
        for number in range(1, most + 20):  # who releases may send as many as it likes
            assert raw.ask(mqtt.publish("", 2, number)) == mqtt.acknowledged(mqtt.PUBREC, number)
            assert raw.ask(mqtt.acknowledged(mqtt.PUBREL, number)) == mqtt.acknowledged(mqtt.PUBCOMP, number)
        assert raw.ask(mqtt.publish("400,t,two", 2, 1)) == mqtt.acknowledged(mqtt.PUBREC, 1)
        assert world.texts("dev") == ["x"] * len(answers) + ["one", "two"]
        raw.leave()


@pytest.mark.slow
def test_many_certificates_make_neither_an_upload_nor_a_refusal_slow(tmp_path_factory: pytest.TempPathFactory) -> None:
    """All clients wait for both. Measured is the platform's processor time, which other processes do not lengthen."""
    links = [tools.make("Unknown", ca=True)]
    for number in range(90):
        links.append(tools.make(f"Link {number}", links[-1], ca=True))

    def several(name: str, count: int) -> list[tools.Entity]:
        added = [tools.make(f"{name} {number}", ca=True) for number in range(count)]
        body = {"certificates": [{"certInPemFormat": ca.pem, "status": "ENABLED"} for ca in added]}
        assert world.rest("POST", "bulk", json=body).status_code == 201
        return added

    def refusal(entity: tools.Entity, code: str) -> None:
        before = world.logged()
        with world.connect(entity) as (_, seen):
            assert seen.connack is None
        assert world.last_record(before)["code"] == code

    def cpu(task: Callable[..., Any], *arguments: Any) -> float:
        before = sum(psutil.Process(world.platform.pid).cpu_times()[:2])
        task(*arguments)
        return float(sum(psutil.Process(world.platform.pid).cpu_times()[:2]) - before)

    with mqtt.new_world(tmp_path_factory) as world:
        stranger = tools.make("dev", links[-1])
        refusal(stranger, "UNKNOWN_CA")  # what is loaded on first use
        alone = sum(cpu(refusal, stranger, "UNKNOWN_CA") for _ in range(5))
        for ca in (deleted := several("Deleted", 300)):
            assert world.rest("DELETE", ca.fingerprint).status_code == 204
        assert sum(cpu(refusal, stranger, "UNKNOWN_CA") for _ in range(5)) < 10 * alone
        refusal(tools.make("dev", deleted[-1]), "CA_DELETED")  # the control: it is found out
        first, second = cpu(several, "First", 800), cpu(several, "Second", 800)
        assert second < 5 * first
