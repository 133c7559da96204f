"""What a careless or hostile client can do to the local platform: be refused, and never leave a secret behind."""

import contextlib
import http.client
import json
import socket
import ssl
import threading
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from platform_tools import (
    SECONDS,
    TLS,
    Entity,
    client_context,
    device,
    last_record,
    log_length,
    login,
    make,
    rest,
    running,
    start_in_foreground,
    started,
    upload,
    wait_for,
    write_chain,
)
from raw_mqtt import (
    PASSWORD,
    PING,
    PONG,
    PUBACK,
    PUBCOMP,
    PUBREC,
    PUBREL,
    USER,
    Raw,
    World,
    acknowledged,
    connect,
    connect_with,
    new_world,
    publish,
    read_message,
    subscribe,
)

from mciot_nb.connect.smartrest import line

MOST_UNRELEASED = 1000
#: What the tests gave to the platform and nobody may find again.
SECRETS: set[bytes] = set()
EVIL = ["'; DROP TABLE devices; --", '" OR ""="', "x' OR '1'='1", "%", "_", "\\'; --", "NULL", "../x", "<b>&amp;</b>"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with new_world(tmp_path_factory, "current", tenants=2) as world:
        yield world


@pytest.fixture(autouse=True)
def control(world: World) -> Iterator[None]:
    """After each test a good client is let in, by MQTT and by REST."""
    yield
    world.dial("good").leave()
    assert rest(world.platform, "GET", "/tenant/currentTenant").status_code == 200


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
    with start_in_foreground(tmp_path, first=f"{first}; m.IDLE_SECONDS = 2.0"), contextlib.ExitStack() as held:
        platform = running(tmp_path)
        root = make("Root", ca=True)
        assert upload(platform, root).status_code == 201
        world = World(platform, root, tmp_path)
        longer = connect_with(USER, "x" * 400)
        web = ("127.0.0.1", int(platform.https.rpartition(":")[2]))
        browser = client_context(platform)
        slow: list[tuple[socket.socket, bytes]] = [
            (socket.create_connection(platform.mqtt), b"\x16\3\1\2\0\1\0\1\xfc\3\3" + bytes(400)),
            (Raw(platform, world.context("dev")).tls, longer),
            (browser.wrap_socket(socket.create_connection(web), server_hostname="localhost"), b"GET /" + b"x" * 400),
            (browser.wrap_socket(socket.create_connection(web), server_hostname="localhost"), b"x" * 400),
        ]
        slow[3][0].sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 400\r\n\r\n")
        with ThreadPoolExecutor(len(slow)) as pool:
            let_go = pool.map(trickle, *zip(*slow, strict=True))
            silent = [held.enter_context(socket.create_connection(platform.mqtt, SECONDS)) for _ in range(count)]
            good = world.dial("dev")
            assert good.ask(publish("400,t,x", 1)) == acknowledged(PUBACK)
            assert rest(platform, "GET", "/tenant/currentTenant").status_code == 200
            assert list(let_go) == [True] * len(slow)
        for one in silent:
            assert one.recv(1) == b""
        wait_for(lambda: log_length(platform) >= count + 3)
        codes = list(platform.log()["code"])
        assert codes.count("TIMEOUT") == count + 2 and set(codes) == {"TIMEOUT", "CONNECTED"}
        assert good.ask(PING) == PONG
        good.leave()
        one_by_one = Raw(platform, world.context("dev"))
        for byte in longer:
            one_by_one.send(bytes([byte]))
        assert one_by_one.packet() == b"\x20\2\0\0"  # the control: not the single bytes are what is refused
        one_by_one.leave()
        for connection, _ in slow:
            connection.close()
        process = psutil.Process(platform.pid)
        wait_for(lambda: {c.status for c in process.net_connections("tcp")}.isdisjoint({"ESTABLISHED", "CLOSE_WAIT"}))


def with_names(world: World, count: int) -> Entity:
    """Make a device's certificate with so many alternative names of 56 bytes."""
    plain = make("dev", world.root)
    names = [x509.DNSName(f"{number:05}.{'x' * 40}.example") for number in range(count)]
    old = plain.certificate
    builder = x509.CertificateBuilder(old.issuer, old.subject, old.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(old.not_valid_before_utc).not_valid_after(old.not_valid_after_utc)
    builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
    certificate = builder.sign(world.root.key, hashes.SHA256())
    return Entity(certificate, plain.key, (certificate, world.root.certificate))


@pytest.mark.parametrize("version", [pytest.param(TLS[0], marks=pytest.mark.slow), TLS[1]], ids=["TLS1.2", "TLS1.3"])
def test_a_certificate_of_over_100_kilobytes_is_refused(world: World, tmp_path: Path, version: ssl.TLSVersion) -> None:
    for count, code in ((1500, "CONNECTED"), (2000, "HANDSHAKE_FAILED")):
        before, wide = log_length(world.platform), with_names(world, count)
        with device(world.platform, tmp_path, wide, version=version) as (_, seen):
            assert (seen.connack == 0) == (code == "CONNECTED")
        record = last_record(world.platform, before)
        assert record["code"] == code and len(record["reason"]) < 300


def test_a_chain_of_100_certificates_is_refused_in_a_sentence(world: World, tmp_path: Path) -> None:
    links = [world.root]
    for number in range(110):
        links.append(make(f"Link {number}", links[-1], ca=True))
    for length, connack, codes in (
        (10, 0, {"CONNECTED"}),  # the control
        (100, 5, {"CHAIN_TOO_LONG"}),
        (110, None, {"CHAIN_TOO_LONG", "UNKNOWN_CA"}),  # OpenSSL itself looks no further than at 102
    ):
        before = log_length(world.platform)
        with device(world.platform, tmp_path, make("dev", links[length - 2])) as (_, seen):
            assert seen.connack == connack
        assert last_record(world.platform, before)["code"] in codes


def secret_key(entity: Entity, *parts: bytes) -> None:
    """Note what may be found of a key nowhere: its number, and the lines of what was sent."""
    SECRETS.add(entity.key.private_numbers().private_value.to_bytes(32))
    SECRETS.update(row for part in parts for row in part.splitlines() if len(row) > 40)


@pytest.mark.parametrize("kind", ["PKCS8", "SEC1", "encrypted", "base64", "with its certificate", "called one"])
def test_a_private_key_that_is_uploaded_is_kept_nowhere(world: World, kind: str) -> None:
    ca = make(f"Key {kind}", ca=True)
    shape = PrivateFormat.TraditionalOpenSSL if kind == "SEC1" else PrivateFormat.PKCS8
    hidden = BestAvailableEncryption(b"passphrase") if kind == "encrypted" else NoEncryption()
    pem = ca.key.private_bytes(Encoding.PEM, shape, hidden)
    given = {
        "base64": b64encode(ca.key.private_bytes(Encoding.DER, shape, hidden)),
        "with its certificate": ca.pem.encode() + pem,
        "called one": pem.replace(b"PRIVATE KEY", b"CERTIFICATE"),
    }.get(kind, pem)
    secret_key(ca, pem, given.replace(ca.pem.encode(), b""))
    body = {"certInPemFormat": given.decode(), "status": "ENABLED"}
    path = f"/tenant/tenants/{world.platform.tenant_id}/trusted-certificates"
    flat = given.decode().replace("\n", " ")
    answers = [
        upload(world.platform, ca, certInPemFormat=given.decode()),
        rest(world.platform, "POST", f"{path}/bulk", json={"certificates": [body]}),
        rest(world.platform, "POST", "/tenant/trusted-certificates/verify-cert-chain", files={"file": given}),
        rest(world.platform, "POST", "/devicecontrol/deviceAccessToken", headers={"X-Ssl-Cert-Chain": flat}),
        rest(world.platform, "GET", quote(flat, safe="")),
        upload(world.platform, ca),  # the control; it is there already if it came together with its key
    ]
    known = kind == "with its certificate"
    assert [answer.status_code for answer in answers] == (
        [201, 409, 401, 401, 404, 409] if known else [422, 422, 400, 401, 404, 201]
    )
    said = "".join(answer.text for answer in answers[:4]).encode()
    assert not [secret for secret in SECRETS if secret in said]


def test_a_megabyte_of_json_is_refused_and_does_no_harm(world: World) -> None:
    ca = make("Much", ca=True)
    good = {"certInPemFormat": ca.pem, "status": "ENABLED"}
    bodies: list[tuple[str, str, int]] = [
        ("", json.dumps(good | {"name": "x" * 1_000_000}), 422),
        ("", json.dumps(good | {"certInPemFormat": "A" * 1_000_000}), 422),
        ("", json.dumps(good)[:-1] + ', "name": ' + "9" * 1_000_000 + "}", 422),
        ("", json.dumps(good)[:-1] + ', "name": ' + "[" * 500_000 + "]" * 500_000 + "}", 422),
        ("", '{"":' * 200_000, 422),
        ("/bulk", json.dumps({"certificates": [good] * 1500}), 409),
        ("/bulk", json.dumps({"certificates": [{}] * 250_000}), 422),
        ("", json.dumps(good | {str(number): 1 for number in range(80_000)}), 201),  # the control: it is read whole
    ]
    path = f"/tenant/tenants/{world.platform.tenant_id}/trusted-certificates"
    for where, body, status in bodies:
        assert 700_000 < len(body) < 1024 * 1024
        answer = rest(world.platform, "POST", path + where, data=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == status, body[:100]
        assert len(answer.text) < 3000


def test_a_command_of_any_length_is_delivered_or_refused(world: World) -> None:
    raw = world.dial("reader")
    raw.until_pong(publish("100", 1), subscribe("s/ds"))
    body = {"deviceId": world.id_of("reader"), "c8y_Command": {"text": "x" * 1_000_000}}
    made = rest(world.platform, "POST", "/devicecontrol/operations", json=body)
    assert made.status_code in (201, 422)
    if made.status_code == 201:
        assert read_message(raw.packet()) == ("s/ds", "511,reader," + "x" * 1_000_000)
    world.operate("reader", c8y_Command={"text": "short"})  # the control
    assert read_message(raw.packet()) == ("s/ds", "511,reader,short")
    raw.leave()


def status_of(world: World, path: str, with_login: bool) -> tuple[int, bytes]:
    """Ask for a path as it is written: requests would tidy it up before."""
    port = int(world.platform.https.rpartition(":")[2])
    context, basic = client_context(world.platform), b64encode(":".join(login(world.platform)).encode()).decode()
    with contextlib.closing(http.client.HTTPSConnection("localhost", port, timeout=SECONDS, context=context)) as web:
        web.request("GET", path, headers={"Authorization": f"Basic {basic}"} if with_login else {})
        answer = web.getresponse()
        return answer.status, answer.read()


def test_no_path_leads_out_of_the_interface(world: World) -> None:
    tenant, other = world.platform.tenant_ids
    trusted = f"/tenant/tenants/{tenant}/trusted-certificates"
    for good in (trusted, f"/tenant/tenants/{quote(tenant[0])}%{ord(tenant[1]):x}{tenant[2:]}/trusted-certificates"):
        assert status_of(world, good, True)[0] == 200  # the controls
    outside = ["credentials.json", "../credentials.json", "platform.sqlite", "etc/passwd", "../../../../../etc/passwd"]
    for place in ("/", "//", "/static/", f"{trusted}/", f"{trusted}/../", "/identity/externalIds/c8y_Serial/"):
        for file in outside:
            for written in (file, quote(file, safe=""), file.replace("..", "%2e%2e"), f"{file}%00", file + "%ff"):
                status, said = status_of(world, place + written, True)
                assert status in (400, 404) and b"root:" not in said and b"password" not in said, place + written
                assert status_of(world, place + written, False)[0] in (400, 401), place + written
    for path in (
        f"/tenant/tenants/{other}/trusted-certificates",
        f"/tenant/tenants/%{ord(other[0]):x}{other[1:]}/trusted-certificates",
        f"/tenant/tenants/{tenant}%00/trusted-certificates",
        f"/tenant/tenants/{tenant}%2f..%2f{other}/trusted-certificates",
        f"/tenant/tenants/{tenant}/../{other}/trusted-certificates",
        f"/{trusted}",
        f"{trusted}//",
        f"{trusted}/.",
        "/inventory/managedObjects/1%00",
        "/inventory/managedObjects/-1",
        "/inventory/managedObjects/..",
    ):
        assert status_of(world, path, True)[0] == 404, path


def test_sql_in_names_and_paths_is_text(world: World) -> None:
    world.dial("dev").leave()
    for number, evil in enumerate(EVIL):
        ca = make(f"SQL {number}", ca=True)
        assert upload(world.platform, ca, name=evil).status_code == 201
        assert rest(world.platform, "GET", ca.fingerprint).json()["name"] == evil
        assert rest(world.platform, "PUT", ca.fingerprint, json={"name": evil * 2}).json()["name"] == evil * 2
        for method in ("GET", "PUT", "DELETE"):
            assert rest(world.platform, method, quote(evil, safe=""), json={}).status_code == 404
        for path in ("/identity/externalIds/c8y_Serial/", "/inventory/managedObjects/", "/devicecontrol/operations/"):
            assert rest(world.platform, "GET", path + quote(evil, safe="")).status_code == 404
        for path, name in (("/event/events", "type"), ("/alarm/alarms", "severity"), ("/event/events", "source")):
            answer = rest(world.platform, "GET", path, params={name: evil})
            assert answer.status_code == 404 if name == "source" else answer.json()[path.split("/")[2]] == []
        assert rest(world.platform, "GET", "/event/events", params={evil: 1}).status_code == 422
        assert rest(world.platform, "DELETE", ca.fingerprint).status_code == 204


def test_sql_in_a_devices_name_and_values_is_text(world: World, tmp_path: Path) -> None:
    for evil in EVIL:
        context = client_context(world.platform)
        context.load_cert_chain(write_chain(make(evil, world.root), tmp_path / "evil.pem"))
        raw = Raw(world.platform, context)
        assert raw.ask(connect(evil)) == b"\x20\2\0\0"
        sent = [("100", evil, evil), ("110", evil, evil, evil), ("114", evil), ("200", evil, evil, "1", evil)]
        sent += [("400", evil, evil), ("302", evil, evil), ("501", evil), ("306", evil), ("301", evil, evil)]
        raw.until_pong(publish("\n".join(line(*values) for values in sent), 1))
        platform = world.platform
        (kept,) = platform.devices().query("device == @evil").to_dict("records")
        assert (kept["name"], kept["type"]) == (evil, evil)
        (kept,) = platform.measurements().query("device == @evil").to_dict("records")
        assert (kept["fragment"], kept["series"], kept["unit"]) == (evil, evil, evil)
        (kept,) = platform.events().query("device == @evil").to_dict("records")
        assert (kept["type"], kept["text"]) == (evil, evil)
        assert list(platform.alarms().query("device == @evil")["status"]) == ["CLEARED", "ACTIVE"]
        found = rest(platform, "GET", f"/identity/externalIds/c8y_Serial/{quote(evil, safe='')}").json()
        shown = rest(platform, "GET", f"/inventory/managedObjects/{found['managedObject']['id']}").json()
        assert (found["externalId"], shown["c8y_SupportedOperations"]) == (evil, [evil])
        raw.leave()


def test_of_uploads_of_one_ca_at_once_one_is_taken(world: World) -> None:
    for turn in range(3):
        ca, together = make(f"Wanted {turn}", ca=True), threading.Barrier(6)

        def send(number: int, ca: Entity = ca, together: threading.Barrier = together) -> int:
            path = f"/tenant/tenants/{world.platform.tenant_ids[number % 2]}/trusted-certificates"
            body = {"certInPemFormat": ca.pem, "status": "ENABLED"}
            together.wait(SECONDS)
            return rest(world.platform, "POST", path, auth=login(world.platform, number % 2), json=body).status_code

        with ThreadPoolExecutor(6) as pool:
            assert sorted(pool.map(send, range(6))) == [201, 409, 409, 409, 409, 409]


def test_no_secret_is_in_the_log_the_messages_or_the_database(world: World) -> None:
    platform = world.platform
    known = json.loads((platform.folder / "credentials.json").read_text())
    SECRETS.update(login["password"].encode() for login in known.values())
    SECRETS.update([b"not-the-pass-word", b"the-mqtt-pass-word", b"the-bearer-token"])
    raw = Raw(platform, world.context("dev"))
    assert raw.ask(connect_with(USER | PASSWORD, "user", b"the-mqtt-pass-word")) == b"\x20\2\0\0"
    raw.until_pong(subscribe("s/dat"))
    ((_, token),) = raw.messages(publish("", topic="s/uat"))
    SECRETS.add(token.partition(",")[2].encode())
    raw.leave()
    assert rest(platform, "GET", auth=(platform.tenant.user, "not-the-pass-word")).status_code == 401
    bearer = {"Authorization": "Bearer the-bearer-token"}
    assert rest(platform, "GET", auth=None, headers=bearer).status_code == 401
    assert rest(platform, "GET", auth=None, headers={"Authorization": "Basic not-the-pass-word\xe9"}).status_code == 401
    files = {file.name: file.read_bytes() for file in platform.folder.iterdir() if file.name != "credentials.json"}
    assert not [name for name, content in files.items() for secret in SECRETS if secret in content]
    log = platform.log().to_csv().encode()
    assert not [secret for secret in SECRETS if secret in log]
    assert b"user" in b"".join(files.values()) and world.root.certificate.public_bytes(Encoding.DER) in b"".join(
        files.values()
    ), "the control: what is kept can be found"


def test_a_busy_device_keeps_nobody_waiting(world: World, tmp_path: Path) -> None:
    ca = make("Flood", ca=True)
    assert upload(world.platform, ca).status_code == 201
    (tmp_path / "flood").mkdir()
    raw = world._replace(root=ca, folder=tmp_path / "flood").dial("flood")

    def flood() -> None:
        with contextlib.suppress(OSError):
            while True:
                raw.send(publish("400,t,x") * 2000)

    thread = threading.Thread(target=flood, daemon=True)
    thread.start()
    try:
        wait_for(lambda: len(world.texts("flood")) > 100)
        for _ in range(3):
            assert rest(world.platform, "GET", "/tenant/currentTenant").ok
            world.dial("dev").leave()
        assert thread.is_alive()
    finally:
        assert rest(world.platform, "DELETE", ca.fingerprint).status_code == 204  # ends the session
        thread.join(SECONDS)
        raw.tls.close()


def test_a_client_that_does_not_read_is_let_go(tmp_path: Path) -> None:
    first = "import mciot_platform.tls as t, mciot_platform.session as s; t.WRITE_SECONDS = s.WRITE_SECONDS = 1"
    with start_in_foreground(tmp_path, first=first):
        platform = running(tmp_path)
        root = make("Root", ca=True)
        assert upload(platform, root).status_code == 201
        world = World(platform, root, tmp_path)
        raw = Raw(platform, world.context("dev"), receive_buffer=4096)  # or megabytes lie in the system's buffers
        assert raw.ask(connect("dev")) == b"\x20\2\0\0"
        assert raw.ask(subscribe("s/e", qos=0)) == b"\x90\3\0\7\0"
        assert raw.messages(publish("9"))  # the control: who reads is served
        with contextlib.suppress(OSError):  # what the platform does not take any more
            raw.send(publish("9\n" * 2000) * 200)  # each line is answered on s/e
        (ending,) = wait_for(lambda: world.ending("dev"))
        assert ending == "The client did not read what was sent to it for 1 seconds."
        process = psutil.Process(platform.pid)
        wait_for(lambda: not [c for c in process.net_connections("tcp") if c.status == "ESTABLISHED"])
        raw.tls.close()


def test_who_never_releases_is_ended_and_can_put_it_right(world: World) -> None:
    raw, name = world.dial("hoards", False), "hoards"
    raw.send(*(publish("", 2, number) for number in range(1, MOST_UNRELEASED + 1)))
    assert [raw.packet() for _ in range(MOST_UNRELEASED)][-1] == acknowledged(PUBREC, MOST_UNRELEASED)
    raw.send(publish("400,t,x", 2, MOST_UNRELEASED + 1))
    answers = list(iter(raw.packet, b""))  # up to the connection's end
    assert answers in ([], [acknowledged(PUBREC, MOST_UNRELEASED + 1)])
    wait_for(lambda: f"{MOST_UNRELEASED} QoS 2 messages without PUBREL" in world.ending(name)[-1])
    raw = world.dial(name, False, b"\x20\2\1\0")
    # What is sent again, since its PUBREC was lost, is not one more, and other messages are none of this.
    assert raw.ask(publish("400,t,one", 1, 7)) == acknowledged(PUBACK, 7)
    assert raw.ask(publish("", 2, 1, dup=True)) == acknowledged(PUBREC, 1)
    numbers = range(1, MOST_UNRELEASED + 1 + len(answers))
    raw.send(*(acknowledged(PUBREL, number) for number in numbers))
    assert [raw.packet() for _ in numbers] == [acknowledged(PUBCOMP, number) for number in numbers]
    for number in range(1, MOST_UNRELEASED + 20):  # who releases may send as many as it likes
        raw.send(publish("", 2, number), acknowledged(PUBREL, number))
    assert [raw.packet() for _ in range(2 * (MOST_UNRELEASED + 19))][-1] == acknowledged(PUBCOMP, MOST_UNRELEASED + 19)
    assert raw.ask(publish("400,t,two", 2, 1)) == acknowledged(PUBREC, 1)
    assert world.texts(name) == ["x"] * len(answers) + ["one", "two"]
    raw.leave()


@pytest.mark.slow
def test_many_certificates_make_neither_an_upload_nor_a_refusal_slow(tmp_path: Path) -> None:
    """All clients wait for both. Measured is the platform's processor time, which other processes do not lengthen."""
    links = [make("Unknown", ca=True)]
    for number in range(90):
        links.append(make(f"Link {number}", links[-1], ca=True))
    stranger = make("dev", links[-1])

    def cpu() -> float:
        times = psutil.Process(platform.pid).cpu_times()
        return float(times.user + times.system)

    def several(name: str, count: int) -> tuple[list[Entity], float]:
        added = [make(f"{name} {number}", ca=True) for number in range(count)]
        body = {"certificates": [{"certInPemFormat": ca.pem, "status": "ENABLED"} for ca in added]}
        began = cpu()
        assert rest(platform, "POST", "bulk", json=body).status_code == 201
        return added, cpu() - began

    def refusal(entity: Entity, code: str, times: int = 1) -> float:
        began = cpu()
        for _ in range(times):
            before = log_length(platform)
            with device(platform, tmp_path, entity) as (_, seen):
                assert seen.connack is None
            assert last_record(platform, before)["code"] == code
        return cpu() - began

    with started(tmp_path) as platform:
        refusal(stranger, "UNKNOWN_CA")  # what is loaded on first use
        alone = refusal(stranger, "UNKNOWN_CA", 5)
        deleted, _ = several("Deleted", 300)
        for ca in deleted:
            assert rest(platform, "DELETE", ca.fingerprint).status_code == 204
        assert refusal(stranger, "UNKNOWN_CA", 5) < 10 * alone
        refusal(make("dev", deleted[-1]), "CA_DELETED")  # the control: it is found out
        _, first = several("First", 800)
        _, second = several("Second", 800)
        assert second < 5 * first
