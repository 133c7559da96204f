"""A device's named messages: what it says is what the platform keeps, and what it is told is what was sent."""

import math
import socket
import struct
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import jwt
import pytest
from conftest import examples
from hypothesis import given
from hypothesis import strategies as st
from platform_tools import TLS, make, started, upload, wait_for
from test_tenant_calls import Talk, device_of, hear, over_tls, refused, says, served, server

from mciot_nb import Device, LocalPlatform, Secret, Tenant
from mciot_nb.connect import mqtt as connection
from mciot_nb.connect.device import OperationRequest
from mciot_nb.connect.devices import Operation
from mciot_nb.connect.mqtt import Connection, Message
from mciot_nb.connect.smartrest import line, parse

CA = make("Message CA", ca=True)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPlatform]:
    with started(tmp_path_factory.mktemp("messages"), "current") as platform:
        assert upload(platform, CA).status_code == 201
        yield platform


@pytest.fixture
def device(platform: LocalPlatform, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Device]:
    name = f"dev-{abs(hash(request.node.name))}"
    with device_of(platform, tmp_path, make(name, CA)) as device:
        yield device


def test_what_a_device_says_of_itself_is_in_the_inventory(platform: LocalPlatform, device: Device) -> None:
    devices = platform.tenant.devices
    assert devices.find(device.client_id) is None
    device.create('My, "best" pump', "c8y_Pump")
    device.create("another name")  # is no error
    device.publish(line("110", "S 1", "M,2", "R3"), "117,10")
    device.supported_operations("c8y_Restart", "c8y_Command")
    found = devices.find(device.client_id)
    assert found and (found.name, found.type) == ('My, "best" pump', "c8y_Pump")
    assert found.fragments["c8y_Hardware"] == {"serialNumber": "S 1", "model": "M,2", "revision": "R3"}
    assert found.fragments["c8y_SupportedOperations"] == ["c8y_Restart", "c8y_Command"]
    assert found.fragments["c8y_RequiredAvailability"] == {"responseInterval": 10}
    assert device._request("123", "124") == [found.id]
    error = device.receive(60)
    assert error == Message("s/e", "41,100,Device already existing")


def test_pahos_notes_are_bounded(platform: LocalPlatform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MOST_NOTES", 5)
    with device_of(platform, tmp_path, make("noted", CA)) as device:
        for _ in range(5):
            device.create()
        assert len(device.notes) == 5 and not any("CONNACK" in note for note in device.notes)
        device.connect()
        assert any("CONNACK" in note for note in device.notes)  # the control: it is noted


def test_measurements_events_and_alarms_arrive_with_their_time(platform: LocalPlatform, device: Device) -> None:
    then, devices = datetime(2026, 1, 31, 9, 0, 0, 125000, timezone(timedelta(hours=2))), platform.tenant.devices
    device.create()
    device.measure("c8y_Flow", "F", 0.1 + 0.2, "l/s", then)
    device.publish("211,-3.5", "212,99")
    device.event("c8y_Door", "open", then)
    for severity in ("CRITICAL", "MAJOR", "MINOR", "WARNING"):
        device.alarm(f"c8y_{severity}", "hot", severity, then)
    device.alarm("c8y_MAJOR", "hotter")
    device.clear_alarm("c8y_MINOR")
    measured = devices.measurements(device.client_id)
    first = measured.iloc[0]
    assert (first["time"], first["value"], first["unit"]) == (then, 0.1 + 0.2, "l/s")
    assert measured["fragment"].tolist() == ["c8y_Flow", "c8y_TemperatureMeasurement", "c8y_Battery"]
    assert devices.measurements(device.client_id, limit=1)["value"].tolist() == [99]
    (event,) = devices.events(device.client_id).to_dict("records")
    assert (event["time"], event["type"], event["text"]) == (then, "c8y_Door", "open")
    alarms = devices.alarms(device.client_id).set_index("type")
    assert {kind: alarms.loc[kind, "severity"] for kind in alarms.index} == {
        f"c8y_{severity}": severity for severity in ("CRITICAL", "MAJOR", "MINOR", "WARNING")
    }
    assert alarms.loc["c8y_MAJOR", "count"] == 2 and alarms.loc["c8y_MAJOR", "text"] == "hotter"
    assert [alarms.loc[f"c8y_{name}", "status"] for name in ("MINOR", "MAJOR")] == ["CLEARED", "ACTIVE"]


def test_an_operation_is_sent_carried_out_and_followed(platform: LocalPlatform, device: Device) -> None:
    devices = platform.tenant.devices
    device.create()
    waiting = devices.command(device.client_id, 'echo "a, b"')  # before the device asks for anything
    assert device.operations() == [OperationRequest("c8y_Command", 'echo "a, b"')]
    restart = devices.restart(device.client_id)  # pushed to the device

    def operation(asked: Operation) -> Operation:
        return next(one for one in devices.operations(device.client_id) if one.id == asked.id)

    assert device.operations(60) == [OperationRequest("c8y_Restart")]
    assert operation(restart).status == "PENDING"
    device.executing(OperationRequest("c8y_Restart"))
    assert operation(restart).status == "EXECUTING"
    device.done(OperationRequest("c8y_Restart"))
    device.failed(OperationRequest("c8y_Command"), "too early")  # the control: it is not EXECUTING
    error = device.receive(60)
    assert error and error.values[1] == "502" and operation(waiting).status == "PENDING"
    device.executing(OperationRequest("c8y_Command"))
    device.failed(OperationRequest("c8y_Command"), "no such command")
    assert operation(restart).status == "SUCCESSFUL"
    failed = operation(waiting)
    assert (failed.status, failed.failure) == ("FAILED", "no such command")
    device.done(OperationRequest("c8y_Restart"))  # the control: there is none left
    error = device.receive(60)
    assert error and error.topic == "s/e" and error.values[1] == "503"
    assert device.operations(0.2) == []
    assert refused("NO_DEVICE", lambda: devices.restart("nobody")).endswith(".")


def test_a_device_gets_tokens_both_ways(platform: LocalPlatform, device: Device, tmp_path: Path) -> None:
    device.create()
    for token in (device.token(), device.access_token(platform.https)):
        claims = jwt.decode(token.reveal(), options={"verify_signature": False})
        assert claims["ten"] == platform.tenant_ids[0] and device.client_id in claims["sub"]
        assert token.reveal() not in repr(token) + repr(device)
        own = Tenant(platform.https, platform.tenant_ids[0], token=token, verify=str(platform.server_certificate))
        found = own.devices.find(device.client_id)
        assert found and own.devices.to_frame()["id"].tolist() == [found.id]
        assert "ROLE_TENANT_ADMIN" in refused("HTTP_403", own.trusted_certificates.list)
    stranger = device_of(platform, tmp_path, make("dev", make("Another CA", ca=True)))
    assert "upload" in refused("ALERT_UNKNOWN_CA", lambda: stranger.access_token(platform.https))
    refused("BAD_URL", lambda: device.access_token("http://localhost"))
    with started(tmp_path / "old") as old:  # the control: the guide's platform gives none over HTTPS
        refused("HTTP_404", lambda: device_of(old, tmp_path, make("dev", CA)).access_token(old.https))


def test_what_can_not_be_sent_is_refused_before_it_is(platform: LocalPlatform, device: Device) -> None:
    for value in (math.nan, math.inf, -math.inf, "warm"):
        refused("BAD_VALUE", lambda value=value: device.measure("f", "s", value))
    assert "time zone" in refused("BAD_VALUE", lambda: device.event("t", "x", datetime(2026, 1, 1)))
    assert "CRITICAL" in refused("BAD_VALUE", lambda: device.alarm("t", severity="BAD"))
    refused("BAD_VALUE", lambda: device.event("t", "\ud800"))
    refused("TOO_LARGE", lambda: device.event("t", "x" * 17000))
    device.event("t", "x" * 16000)  # the control
    assert platform.events().query(f"device == '{device.client_id}'")["text"].str.len().tolist() == [16000]


def test_a_device_that_is_not_connected_says_so_at_once(platform: LocalPlatform, device: Device) -> None:
    device.disconnect()
    for call in (device.receive, device.operations, device.token, device.create):
        assert "connect it" in refused("NOT_CONNECTED", call)
    device.connect()
    device.create()  # the control


TEXT = st.text(st.characters(codec="utf-8"), max_size=30)


@examples(300)
@given(values=st.lists(TEXT, min_size=1, max_size=5))
def test_every_line_is_read_as_it_was_written(values: list[str]) -> None:
    assert parse(f"{line(*values)}\n{line('1', *values)}".encode()) == [values, ["1", *values]]


def test_what_needs_quotes_is_written_as_the_platform_describes_it() -> None:
    assert line("400", "t", "plain") == "400,t,plain"
    assert line("400", "t", 'a "b", c', " edge") == '400,t,"a \\"b\\", c"," edge"'
    for wrong in (b'400,"open', b"\xff"):
        with pytest.raises(ValueError, match=r"\.$"):
            parse(wrong)


@examples(25)
@given(text=TEXT.filter(bool), value=st.floats(allow_nan=False, allow_infinity=False))
def test_the_platform_keeps_what_the_device_sent(talker: tuple[LocalPlatform, Device], text: str, value: float) -> None:
    platform, device = talker
    device.event("c8y_Any", text)
    device.measure("c8y_Any", "s", value, text)
    assert platform.events().iloc[-1]["text"] == text
    kept = platform.measurements().iloc[-1]
    assert (kept["value"], kept["unit"]) == (value, text)


@pytest.fixture(scope="module")
def talker(platform: LocalPlatform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalPlatform, Device]]:
    entity, folder = make("talker", CA), tmp_path_factory.mktemp("talker")
    with device_of(platform, folder, entity) as device:
        device.create()
        yield platform, device


#: Instead of an answer.
RESET = b"a reset"


def resets(connection: socket.socket) -> None:
    connection.recv(4096)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def answering(said: bytes | None, patch: pytest.MonkeyPatch) -> Talk:
    """Hear something, answer, and leave; or say nothing (None), and less time than usual is waited for that."""
    if said is not None:
        return resets if said is RESET else says(said)
    patch.setattr(connection, "TIMEOUT", 1.0)
    return hear


@pytest.mark.parametrize(
    ("said", "tls", "code"),
    [
        (None, True, "NO_ANSWER"),
        (None, False, "NO_ANSWER"),
        *((said, False, "NO_TLS") for said in (RESET, b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x20\x02\x00\x05")),
        *((said, True, "CLOSED") for said in (RESET, b"", b"HTTP/1.1 400 Bad Request\r\n\r\n")),
        (b"\x20\x7f", True, "CLOSED"),
        (b"\x20\x00", True, "CLOSED"),
        (b"\xff" * 500, True, "CLOSED"),
        (b"\x20\x02\x00\x05", True, "CONNACK_5"),
        (b"\x20\x02\x00\x03", True, "CONNACK_3"),
    ],
)
def test_whatever_a_server_answers_is_one_sentence(
    platform: LocalPlatform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bytes | None, tls: bool, code: str
) -> None:
    with server(platform, answering(said, monkeypatch), tls=tls) as port:
        odd = device_of(platform, tmp_path, make("dev", CA), address=("localhost", port))
        assert f"localhost:{port}" in refused(code, odd.connect)
        refused("NOT_CONNECTED", lambda: odd.publish("123"))


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "NOT_A_TENANT"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n<html>...", "NOT_A_TENANT"),
        (b"rubbish", "NOT_A_TENANT"),
        (b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n", "HTTP_401"),
        (b"", "CLOSED"),
        (None, "NO_ANSWER"),
        (RESET, "CLOSED"),
    ],
)
def test_whatever_is_answered_for_a_token_is_one_sentence(
    platform: LocalPlatform, device: Device, monkeypatch: pytest.MonkeyPatch, said: bytes | None, code: str
) -> None:
    assert isinstance(device.access_token(platform.https), Secret)  # the control
    with server(platform, answering(said, monkeypatch)) as port:
        refused(code, lambda: device.access_token(f"https://localhost:{port}"))


@pytest.mark.parametrize("stranger", [False, True])
def test_a_refusal_that_comes_before_the_device_writes_keeps_its_reason(
    platform: LocalPlatform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stranger: bool
) -> None:
    """On TLS 1.3 the device is done with the handshake first: its write fails, and the alert waits unread."""
    certificate = platform.server_certificate
    shake_hands = over_tls(certificate, TLS[1], key=certificate.with_name("serverKey.pem"), demand=str(certificate))
    over, make_client = threading.Semaphore(0), Connection._new_client

    def refuse(connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # its end is a reset
        try:
            shake_hands(connection)
        finally:
            over.release()

    def new_client(device: Connection) -> Any:
        client = make_client(device)
        client.on_socket_open = lambda *_: over.acquire(timeout=60)
        return client

    monkeypatch.setattr(Connection, "_new_client", new_client)
    options: dict[str, Any] = {} if stranger else {"chain": None, "key": None, "client_id": "dev"}
    with served(refuse) as port:
        device = device_of(platform, tmp_path, make("dev", CA), address=("localhost", port), **options)
        refused("ALERT_UNKNOWN_CA" if stranger else "ALERT_CERTIFICATE_REQUIRED", device.connect)


def test_a_platform_that_is_off_or_goes_away_is_said_so(tmp_path: Path) -> None:
    platform = LocalPlatform.start(tmp_path / "short")
    assert upload(platform, CA).status_code == 201
    gone = device_of(platform, tmp_path, make("dev", CA))
    gone.connect()
    platform.stop()
    wait_for(lambda: "not connected" in repr(gone), 60)
    refused("NOT_CONNECTED", gone.create)
    with socket.create_server(("127.0.0.1", 0)) as closed:  # the platform's own port may be another platform's by now
        gone.port = closed.getsockname()[1]
    refused("NOT_REACHED", gone.connect)
    refused("NOT_REACHED", lambda: gone.access_token(f"https://127.0.0.1:{gone.port}"))
    assert datetime.now(UTC) - platform.log().iloc[-1]["time"] < timedelta(days=1)  # what was kept is there
