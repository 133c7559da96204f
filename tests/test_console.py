"""The device console against the real platform: what a press does, both ends of a refusal, and what others do."""

import base64
import html
import os
import re
import signal
import ssl
import subprocess
import sys
import threading
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import ipywidgets
import pandas as pd
import pytest
from conftest import examples
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st
from platform_tools import TLS, Entity, make, upload, wait_for
from test_ui import Tags

from mciot_nb import Device, LocalPlatform, Workspace
from mciot_nb.connect import mqtt as connection
from mciot_nb.connect.device import OperationRequest
from mciot_nb.connect.mqtt import Message
from mciot_nb.pki.chain import to_pem
from mciot_nb.secret import Secret
from mciot_nb.ui.console import DeviceConsole
from mciot_nb.ui.console_parts import MOST_LINES as MOST
from mciot_nb.ui.console_parts import Messages, plot
from mciot_nb.ui.markup import COLOURS
from tools.notebooks import sanitized

CA, STRANGER = make("Console CA", ca=True), make("Unknown CA", ca=True)
SCRIPT = "<script>alert('x')</script>"
KILL = signal.SIGTERM if os.name == "nt" else signal.SIGKILL


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPlatform]:
    platform = LocalPlatform.start(tmp_path_factory.mktemp("console"), "current")
    assert upload(platform, CA).status_code == 201
    yield platform
    platform.stop()


def device_of(platform: LocalPlatform, entity: Entity, folder: Path, **options: Any) -> Device:
    chain, key = folder / f"{id(entity)}.pem", folder / f"{id(entity)}Key.pem"
    chain.write_bytes(to_pem(entity.chain))
    key.write_bytes(entity.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    options = {"trusted": platform.server_certificate, **options}
    return Device(*platform.mqtt, chain=chain, key=key, **options)


@dataclass
class Bench:
    """A console of a device of the test's own, and what a person reads in it."""

    console: DeviceConsole
    platform: LocalPlatform
    entity: Entity
    folder: Path

    @property
    def name(self) -> str:
        return self.console.name

    def press(self, button: Any) -> str:
        button.click()
        return self.done()

    def done(self) -> str:
        self.console.wait()
        return text(self.console._message)

    def connect(self, client_id: str | None = None) -> str:
        self.console.client_id.value = self.name if client_id is None else client_id
        return self.press(self.button("Connect"))

    def send(self, **values: str) -> str:
        for name, value in values.items():
            self.console.sending.fields[name].value = value
        return self.press(self.button("Send measurement"))

    def button(self, label: str) -> Any:
        buttons = (each for each in widgets_of(self.console) if isinstance(each, ipywidgets.Button))
        return next(each for each in buttons if each.description == label)

    def arrived(self) -> Any:
        """Return the operation that arrives next."""
        return wait_for(lambda: self.look() and self.console.operations.arrived)[0]

    def another(self, **options: Any) -> "Bench":
        """Return a bench with a new console of the same device, or of one that differs in the ``options``."""
        return bench_of(self.platform, self.entity, self.folder, **options)

    def look(self) -> str:
        """Do what the panel's thread does when it asks the platform too."""
        self.console._next_read = 0.0
        self.console.poll()
        return self.done()

    @property
    def state(self) -> str:
        return text(self.console.state)

    @property
    def sides(self) -> tuple[str, str]:
        left, _, right = text(self.console.ends).partition("What the platform's log says")
        return left, right

    @property
    def html(self) -> str:
        return "".join(each.value for each in widgets_of(self.console) if isinstance(each, ipywidgets.HTML))

    @property
    def points(self) -> int:
        found = re.search(r"(\d+) measurements?\.", text(self.console.plot))
        return int(found[1]) if found else 0

    @property
    def lines(self) -> list[str]:
        """What went over the line, the newest first."""
        rows = re.findall(r"<tr><th scope=\"row\".*?</tr>", self.console.messages.value)
        return [" ".join(text_of(cell) for cell in re.findall(r"<td.*?</td>", row)) for row in rows]

    @property
    def statuses(self) -> str:
        return text(self.console.operations.statuses)


def widgets_of(widget: Any) -> Iterator[Any]:
    yield widget
    for child in getattr(widget, "children", ()):
        yield from widgets_of(child)


def text(widget: Any) -> str:
    return text_of(widget.value)


def text_of(markup: str) -> str:
    return html.unescape(re.sub(r"<[^>]*>", " ", markup.replace("<wbr>", ""))).strip()


def bench_of(platform: LocalPlatform, entity: Entity, folder: Path, **options: Any) -> Bench:
    tenant, device = options.pop("tenant", platform.tenant), options.pop("device", None)
    device = device or device_of(platform, entity, folder, **options)
    if tenant.is_local:
        device.locate = lambda: tenant.now.mqtt  # as `Workspace.device` does
    return Bench(DeviceConsole(Workspace(platform.folder.parent), device, tenant), platform, entity, folder)


@pytest.fixture
def bench(platform: LocalPlatform, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bench]:
    entity = make(f"dev-{abs(hash(request.node.name)) % 10**9}", CA)
    bench = bench_of(platform, entity, tmp_path)
    yield bench
    bench.console.end()


@pytest.fixture
def short_lived(tmp_path: Path) -> Iterator[Bench]:
    """A console at a platform of the test's own, which may be stopped, hung or killed."""
    any_ports = "--mqtt-port", "0", "--https-port", "0"  # which no other test's platform takes when it has stopped
    platform = LocalPlatform._launch(tmp_path / "short" / "platform", "guide-2021", 1, "127.0.0.1", *any_ports)
    assert upload(platform, CA).status_code == 201
    bench = bench_of(platform, make("short", CA), tmp_path)
    yield bench
    bench.console.end()
    platform.stop()


def test_nothing_is_connected_until_somebody_presses_and_both_ends_say_how_it_went(bench: Bench) -> None:
    before = len(bench.platform.log())
    bench.look()
    assert len(bench.platform.log()) == before and bench.state.startswith("○ Not connected")
    assert bench.press(bench.button("Disconnect")) == "The device is not connected."
    assert bench.connect() == "✓ Connected."
    assert bench.state.startswith("✓ Connected to 127.0.0.1:")
    left, right = bench.sides
    assert "✓ CONNACK 0" in left and "✓ CONNECTED" in right
    assert f"1. CN={bench.name}" in right and "2. CN=Console CA" in right and "TLSv1.3" in right
    assert bench.lines == [  # a new device says who it is first
        "→ sent s/us 500",
        "→ sent s/us 114,c8y_Restart,c8y_Command",
        f"→ sent s/us 100,{bench.name},c8y_MQTTDevice",
    ]
    found = bench.platform.tenant.devices.find(bench.name)
    assert found and found.fragments["c8y_SupportedOperations"] == ["c8y_Restart", "c8y_Command"]
    assert bench.connect("  ") == "The device is already connected: disconnect it first."
    assert bench.connect("somebody-else").startswith("✗ Not connected") and "CLIENT_ID_MISMATCH" in bench.sides[1]
    assert bench.connect(bench.name) == "✓ Connected."
    assert bench.press(bench.button("Disconnect")) == "✓ Disconnected."
    left, right = bench.sides
    assert "You disconnected" in left and "Then: The client disconnected." in right
    assert bench.state.startswith("✗ Not connected") and len(bench.platform.log()) == before + 3
    assert bench.connect("  ") == "✓ Connected." and bench.console.client_id.value == bench.name  # blank is its own


#: Each refusal: whose certificate, its dates, under which ClientId, what the device sees, and what the log says.
PAST = {"begins": timedelta(days=-3), "ends": timedelta(days=-1)}
REFUSALS: dict[str, tuple[Entity, dict[str, timedelta], str, str, str]] = {
    "wrong name": (CA, {}, "somebody-else", "CONNACK_5", "CLIENT_ID_MISMATCH The ClientId 'somebody-else' is not the"),
    "unknown CA": (STRANGER, {}, "refused", "ALERT_UNKNOWN_CA", "UNKNOWN_CA The certificate of CN=Unknown CA was"),
    "expired": (CA, PAST, "refused", "ALERT_CERTIFICATE_EXPIRED", "EXPIRED"),
    "disabled": (CA, {}, "refused", "ALERT_UNKNOWN_CA", "CA_DISABLED The trusted certificate of CN=Console CA is"),
}


@pytest.mark.parametrize("version", [pytest.param(TLS[0], marks=pytest.mark.slow), TLS[1]], ids=["TLSv1.2", "TLSv1.3"])
@pytest.mark.parametrize("case", REFUSALS)
def test_both_ends_of_a_refusal_stand_beside_each_other(
    platform: LocalPlatform, tmp_path: Path, case: str, version: ssl.TLSVersion
) -> None:
    issuer, dates, client_id, device_saw, log_says = REFUSALS[case]
    bench = bench_of(platform, make("refused", issuer, **dates), tmp_path, tls=version)
    trusted = platform.tenant.trusted_certificates
    if case == "disabled":
        trusted.update(CA.certificate, status="DISABLED")
    try:
        assert bench.connect(client_id) == "✗ Not connected: what each side saw is above."
    finally:
        trusted.update(CA.certificate, status="ENABLED")
    left, right = bench.sides
    assert device_saw in left and log_says in re.sub(r"\s+", " ", right)
    assert "1. CN=refused" in right and version.name.replace("_", ".") in right
    assert ("paho's note: failed to receive" in left) == ("ALERT" in device_saw and version is TLS[1])
    assert "the attempt failed" in bench.state and bench.console.device.client_id == "refused"
    good = bench_of(platform, make("refused", CA), tmp_path, tls=version)  # the control
    assert good.connect() == "✓ Connected." and "✓ CONNECTED" in good.sides[1]
    good.console.end()


def test_a_server_that_is_not_the_tenants_is_refused_by_the_device(bench: Bench, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    other.write_bytes(to_pem([CA.certificate]))
    wrong = bench.another(trusted=other)
    assert wrong.connect().startswith("✗ Not connected")
    left, right = wrong.sides
    assert "SERVER_NOT_TRUSTED" in left and "HANDSHAKE_FAILED" in right and "serverCert.pem" in right
    wrong.console.end()


def test_a_platform_that_is_off_is_said_at_both_sides(short_lived: Bench) -> None:
    short_lived.platform.stop()
    assert short_lived.connect().startswith("✗ Not connected")
    left, right = short_lived.sides
    assert "NOT_REACHED" in left and "is not running: workspace.tenant() starts it" in right
    assert "is not running" in short_lived.press(short_lived.console.operations.restart)
    assert "not connected" in short_lived.send()
    short_lived.look()
    assert "⚠ What the tenant has now can't be shown" in text(short_lived.console.trouble)
    again = LocalPlatform.start(short_lived.platform.folder.parent)  # at other ports, mostly: see test_ports
    try:
        assert short_lived.connect() == "✓ Connected." and text(short_lived.console.trouble) == ""
    finally:
        again.stop()


def come_as_a_twin(bench: Bench) -> None:
    with device_of(bench.platform, bench.entity, bench.folder):
        pass


#: What ends a connection, and what the platform's log says of it then.
ENDS: dict[str, tuple[Callable[[Bench], object], str]] = {
    "disabled": (
        lambda bench: bench.platform.tenant.trusted_certificates.update(CA.certificate, status="DISABLED"),
        "Then: The trusted certificate was disabled.",
    ),
    "twin": (come_as_a_twin, "Then: The same ClientId connected again, from 127.0.0.1:"),
    "stopped": (lambda bench: bench.platform.stop(), "Then: The platform was stopped."),
    "killed": (lambda bench: os.kill(bench.platform.pid, KILL), "Then: the log does not say how the connection ended."),
    "cell": (lambda bench: bench.console.device.disconnect(), "Then: The client disconnected."),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_connection_that_ends_by_itself_is_noticed_and_both_sides_say_so(short_lived: Bench, end: str) -> None:
    how, log_says = ENDS[end]
    short_lived.connect()
    assert short_lived.look() == "✓ Connected."  # the control
    how(short_lived)
    wait_for(lambda: not short_lived.console.device.is_connected)
    short_lived.console.poll()  # one look is enough
    assert short_lived.done() == "✗ The connection has ended on its own: what each side knows is above."
    left, right = short_lived.sides
    assert "nobody told the device why" in left and "✓ CONNECTED" in right and log_says in right
    assert "the connection ended" in short_lived.state
    short_lived.look()
    assert log_says in short_lived.sides[1]  # a twin's record does not take the place of our own


@pytest.mark.skipif(os.name == "nt", reason="a process can't be halted there")
def test_a_platform_that_hangs_stops_neither_kernel_nor_console(
    short_lived: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "TIMEOUT", 1.5)
    short_lived.connect()
    before = short_lived.lines
    os.kill(short_lived.platform.pid, signal.SIGSTOP)
    try:
        send = short_lived.button("Send measurement")
        send.click()  # which returns although nothing answers
        assert "Sending the measurement …" in text(short_lived.console._message)
        send.click()  # of impatience
        assert short_lived.done().count("did not acknowledge") == 1
        assert short_lived.lines == ["→ sent s/us 200,c8y_Temperature,T,21.5,C", *before]
        assert short_lived.press(short_lived.button("Disconnect")) == "✓ Disconnected."
        assert short_lived.connect().startswith("✗ Not connected")
        left, right = short_lived.sides
        assert "NO_ANSWER" in left and "no record of this attempt" in right
    finally:
        os.kill(short_lived.platform.pid, signal.SIGCONT)
    assert wait_for(lambda: short_lived.connect() == "✓ Connected.")  # the control
    assert "acknowledged" in short_lived.send()


def test_a_connection_that_a_cell_has_made_is_taken_up(bench: Bench) -> None:
    bench.console.device.connect()
    assert bench.look() == "✓ Connected by a cell of the notebook."
    assert bench.state.startswith("✓ Connected") and "✓ CONNECTED" in bench.sides[1]
    bench.platform.tenant.devices.restart(bench.name)
    wait_for(lambda: bench.look() and bench.console.operations.arrived)
    bench.console.device.disconnect()
    assert "on its own" in bench.look() and "The client disconnected." in bench.sides[1]
    bench.console.device.connect()
    assert bench.press(bench.button("Disconnect")) == "✓ Disconnected."  # before anybody has looked
    assert "The client disconnected." in bench.sides[1]


def test_a_measurement_is_a_line_a_point_and_a_record(bench: Bench) -> None:
    assert "The device is not connected" in bench.send() and bench.points == 0  # the control
    assert bench.lines == []
    bench.connect()
    for number, value in enumerate(("21.5", "-0.25", " 1e3 "), 1):
        assert bench.send(Value=value).startswith("✓ The platform has acknowledged it.")
        assert bench.points == number
    assert bench.lines[0] == "→ sent s/us 200,c8y_Temperature,T,1000.0,C"
    kept = bench.platform.tenant.devices.measurements(bench.name)
    assert kept["value"].tolist() == [21.5, -0.25, 1000.0] and kept["unit"].tolist() == ["C"] * 3
    shown = bench.console.plot.value
    assert 'alt="Plot of c8y_Temperature T: 3 measurements' in shown
    assert "the last is 1000 C" in shown and "Last value: <strong>1000 C at" in shown


def test_what_is_pressed_while_the_panel_is_busy_is_done_next_with_the_values_of_that_time(bench: Bench) -> None:
    fields = bench.console.sending.fields
    bench.button("Connect").click()
    for value in ("20", "21", "22"):
        fields["Value"].value = value
        bench.button("Send measurement").click()
    fields["Value"].value = "23"
    bench.button("Send event").click()
    said = bench.done()
    assert said.startswith("✓ Connected. ✓ The platform has acknowledged it.") and said.count("acknowledged") == 4
    assert bench.platform.tenant.devices.measurements(bench.name)["value"].tolist() == [20.0, 21.0, 22.0]
    assert len(bench.platform.tenant.devices.events(bench.name)) == 1
    assert bench.connect() == "The device is already connected: disconnect it first."  # the control: not busy now


def test_events_and_alarms_arrive_as_they_were_typed(bench: Bench) -> None:
    bench.connect()
    fields, devices = bench.console.sending.fields, bench.platform.tenant.devices
    fields["Event text"].value, fields["Severity"].value = 'open, "wide"', "CRITICAL"
    for words in ("Send event", "Raise alarm"):
        assert "acknowledged" in bench.press(bench.button(words))
    assert bench.lines[1] == '→ sent s/us 400,c8y_Door,"open, \\"wide\\""'
    assert bench.lines[0] == "→ sent s/us 301,c8y_TooHot,It is too hot"
    assert devices.events(bench.name)[["type", "text"]].to_numpy().tolist() == [["c8y_Door", 'open, "wide"']]
    assert devices.alarms(bench.name)[["type", "severity"]].to_numpy().tolist() == [["c8y_TooHot", "CRITICAL"]]


def test_a_value_that_is_no_number_is_said_beside_its_field_and_nothing_is_sent(bench: Bench) -> None:
    bench.connect()
    before, note = bench.lines, bench.console.sending.value_note
    for typed in ("warm", "", "  ", "21,5", "nan", "inf", "1e999", "0x10", SCRIPT):
        bench.send(Value=typed)
        assert ("is not a number" in text(note) and typed in text(note)) or text(note) == "✗ Type a number."
        assert bench.lines == before and bench.points == 0 and "<script" not in note.value
        bench.console.sending.fields["Value"].value = "21.5"
        assert text(note) == ""  # while typing
    bench.send()
    assert bench.points == 1  # the control


def test_what_the_platform_has_against_a_line_is_said_and_shown(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    sentence = "⚠ The platform answers with an error: 50,200,The series is missing."
    bench.connect()
    assert "acknowledged" in bench.send()
    assert bench.look().startswith("✓")  # the control
    bench.send(Series="")
    wait_for(lambda: any("came s/e" in line for line in bench.look() and bench.lines))
    assert text(bench.console._message) == sentence
    assert bench.lines[0] == "⚠ came s/e 50,200,The series is missing." and bench.points == 1
    with monkeypatch.context() as patch:  # one that comes before the press is done is not talked over
        patch.setattr(bench.console, "read", lambda: wait_for(lambda: bench.console.messages._error))
        assert bench.send(Unit="", Series="") == sentence
    assert bench.send(Series="T").startswith("✓")  # the control


def test_nothing_that_is_typed_becomes_html(bench: Bench) -> None:
    assert bench.connect(SCRIPT).startswith("✗ Not connected")
    bench.connect()
    fields = bench.console.sending.fields
    fields["Event text"].value = fields["Alarm text"].value = SCRIPT
    bench.press(bench.button("Send event"))
    bench.press(bench.button("Raise alarm"))
    bench.send(Fragment=SCRIPT, Series=SCRIPT, Unit=SCRIPT)
    bench.console.operations.text.value = bench.console.reason.value = SCRIPT
    bench.press(bench.console.operations.command)
    bench.arrived().buttons["Failed…"].click()
    question = bench.console._question.children
    assert SCRIPT in text(question[0]) and SCRIPT in text(bench.console.operations.arrived[0].children[0])
    assert "<script" not in bench.html
    bench.press(question[-2])
    assert bench.platform.tenant.devices.events(bench.name)["text"].tolist() == [SCRIPT]
    assert any(SCRIPT in line for line in bench.lines) and bench.points == 1 and SCRIPT in bench.statuses
    assert "<script" not in bench.html


def test_the_messages_are_bounded_and_show_no_token() -> None:
    messages = Messages()
    for number in range(3 * MOST):
        messages.note(Message("s/us", f"line-{number} " + "x" * 16000), True)
    messages.note(Message("s/dat", "71,eyJsecret"), False)
    messages.draw()
    shown = text(messages)
    assert messages.value.count("<tr>") == MOST + 1  # with the heading
    assert "•••• " in shown + " " and "eyJ" not in messages.value
    assert f"line-{3 * MOST - 1} " in shown and " line-0 " not in shown and "(16008 characters)" in shown
    assert len(messages.value) < 20_000


def test_an_operation_is_sent_appears_and_is_answered_both_ways(bench: Bench) -> None:
    operations = bench.console.operations
    assert "✗ The tenant has no device" in bench.press(operations.restart)  # the control
    bench.connect()
    assert bench.press(operations.restart) == "✓ The platform has accepted the operation."
    assert "c8y_Restart  PENDING" in bench.statuses
    wait_for(lambda: bench.look() and operations.arrived)
    assert "An operation has arrived at the device: c8y_Restart." in text(bench.console._message)
    (restart,) = operations.arrived
    assert bench.press(restart.buttons["Done"]) == "✓ c8y_Restart: done (503)."
    assert "PENDING → EXECUTING → ✓ SUCCESSFUL" in bench.statuses and operations.arrived == []
    assert bench.lines[:3] == [
        "→ sent s/us 503,c8y_Restart",
        "→ sent s/us 501,c8y_Restart",
        f"← came s/ds 510,{bench.name}",
    ]
    operations.text.value, bench.console.reason.value = "close, valve", "it is stuck"
    bench.press(operations.command)
    wait_for(lambda: bench.look() and operations.arrived)
    (command,) = operations.arrived
    assert bench.press(command.buttons["Begin"]) == "✓ c8y_Command close, valve: begun (501)."
    assert "EXECUTING" in bench.statuses and "has begun" in text(command.label)
    assert bench.press(command.buttons["Begin"]) == "✓ c8y_Command close, valve: begun (501)."  # and is not sent again
    command.buttons["Failed…"].click()
    question, field, _, no = bench.console._question.children
    assert text(question) == "Why has c8y_Command close, valve failed?" and field is bench.console.reason
    no.click()
    assert operations.arrived == [command]  # the control
    command.buttons["Failed…"].click()
    assert bench.press(bench.console._question.children[2]) == "✓ c8y_Command close, valve: failed (502)."
    assert "PENDING → EXECUTING → ✗ FAILED: it is stuck" in bench.statuses
    assert [line for line in bench.lines if "501,c8y_Command" in line] == ["→ sent s/us 501,c8y_Command"]
    kept = bench.platform.tenant.devices.operations(bench.name)
    assert [(o.name, o.status, o.failure) for o in kept] == [
        ("c8y_Restart", "SUCCESSFUL", ""),
        ("c8y_Command", "FAILED", "it is stuck"),
    ]


def test_what_the_tenant_said_first_is_not_shown_last(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.connect()
    bench.press(bench.console.operations.restart)
    show = bench.console.operations.show
    has_asked, never = threading.Event(), threading.Event()

    def show_the_first_late(operations: Any) -> None:
        if not has_asked.is_set():
            has_asked.set()
            never.wait(1)
        show(operations)

    monkeypatch.setattr(bench.console.operations, "show", show_the_first_late)
    first = threading.Thread(target=bench.console.read)
    first.start()
    assert has_asked.wait(60)
    bench.console.device.executing(OperationRequest("c8y_Restart"))
    bench.console.device.done(OperationRequest("c8y_Restart"))
    bench.console.read()
    first.join()
    assert bench.statuses.endswith("PENDING → ✓ SUCCESSFUL")


def test_what_waits_comes_when_the_device_connects_and_comes_once(bench: Bench) -> None:
    bench.connect()
    bench.press(bench.button("Disconnect"))
    devices, operations = bench.platform.tenant.devices, bench.console.operations
    devices.command(bench.name, "first")
    devices.command(bench.name, "second")
    bench.look()
    assert operations.arrived == [] and bench.statuses.count("PENDING") == 2
    for _ in range(2):  # over a second connection they come again, and are not there twice
        bench.connect()
        wait_for(lambda: bench.look() and len(operations.arrived) == 2)
        assert [asked.name for asked in operations.arrived] == ["c8y_Command first", "c8y_Command second"]
        bench.press(bench.button("Disconnect"))
    first = operations.arrived[0]
    assert "The device is not connected" in bench.press(first.buttons["Done"])
    assert operations.arrived[0] is first and not first.begun  # an answer that can't be sent leaves it there
    bench.connect()
    wait_for(lambda: bench.look() and len(operations.arrived) == 2)
    assert "begun" in bench.press(operations.arrived[0].buttons["Begin"])  # the control
    bench.press(bench.button("Disconnect"))
    bench.connect()
    wait_for(lambda: bench.look() and len(operations.arrived) == 2)
    assert [asked.begun for asked in operations.arrived] == [True, False]


def test_what_others_measure_appears_and_the_series_in_the_fields_is_drawn(bench: Bench) -> None:
    bench.connect()
    bench.console.device.measure("c8y_Flow", "F", 3, "l/s")
    assert bench.points == 0
    bench.look()
    assert bench.points == 1 and "Plot of c8y_Flow F" in bench.console.plot.value
    bench.send(Value="7")
    assert bench.points == 1 and "Plot of c8y_Temperature T" in bench.console.plot.value
    bench.console.device.measure("c8y_Flow", "F", 4, "l/s")
    bench.look()
    assert "Plot of c8y_Temperature T: 1 measurement " in bench.console.plot.value
    bench.send(Fragment="c8y_Flow", Series="F", Value="5", Unit="l/s")
    assert bench.points == 3


def test_a_real_tenant_is_asked_after_a_press_only_and_nobody_sees_its_log(bench: Bench) -> None:
    remote = bench.another(tenant=replace(bench.platform.tenant, is_local=False))
    assert remote.connect("somebody-else").startswith("✗ Not connected")
    left, right = remote.sides
    assert "CONNACK_5" in left and "Only the platform's operator sees this" in right
    assert remote.connect() == "✓ Connected."
    remote.send()
    assert remote.points == 1
    remote.console.device.measure("c8y_Temperature", "T", 30, "C")
    remote.look()
    assert remote.points == 1  # nobody has asked
    assert remote.press(remote.button("Refresh")) == "✓ Refreshed."
    assert remote.points == 2
    with pytest.raises(StopIteration):  # the control: the local platform needs no such button
        bench.button("Refresh")
    remote.console.end()


def test_a_login_that_is_refused_is_said_and_the_device_can_send_none_the_less(bench: Bench) -> None:
    other = bench.another(tenant=replace(bench.platform.tenant, password=Secret("wrong")))
    other.connect()
    assert "acknowledged" in other.send() and other.points == 0
    assert "the login of" in text(other.console.trouble)
    assert bench.platform.tenant.devices.measurements(bench.name)["value"].tolist() == [21.5]
    other.console.end()


def test_whoever_looks_on_takes_nothing_away(bench: Bench) -> None:
    bench.connect()
    found = bench.platform.tenant.devices.find(bench.name)
    assert found and bench.console.device._request("123", "124") == [found.id]
    bench.look()
    assert bench.lines[:2] == [f"← came s/ds 124,{found.id}", "→ sent s/us 123"]
    token = bench.console.device.token().reveal()
    bench.look()
    assert bench.lines[0] == "← came s/dat ••••" and token not in bench.console.messages.value


def threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.is_alive()}


def test_the_cell_run_again_ends_the_old_console_with_its_connection(bench: Bench) -> None:
    before, consoles = threads(), [bench]
    for _ in range(3):
        bench.console._poller._hear(None, "ping", [])  # as in a browser
        assert bench.connect() == "✓ Connected."
        assert len(threads() - before) >= 2  # the control: paho's and the one that looks
        bench = bench.another()
        consoles.append(bench)
    wait_for(lambda: threads() <= before)
    for old in consoles[:-1]:
        assert not old.console.device.is_connected and "go on in the newer one" in old.state
        old.press(old.button("Connect"))
        assert not old.console.device.is_connected
    log = bench.platform.log().query(f"client_id == '{bench.name}'")
    assert log["ending"].tolist() == ["The client disconnected."] * 3  # nobody was thrown out
    assert bench.connect() == "✓ Connected."
    again = bench.another(device=bench.console.device)  # of the very same device
    assert again.state.startswith("○ Not connected")
    assert again.connect() == "✓ Connected." and again.lines[0] == "→ sent s/us 500"
    again.console.end()


@pytest.mark.skipif(os.name == "nt", reason="a process can't be halted there")
def test_a_console_that_ends_while_it_connects_leaves_no_connection(short_lived: Bench) -> None:
    os.kill(short_lived.platform.pid, signal.SIGSTOP)
    try:
        short_lived.button("Connect").click()
        short_lived.console.end()
    finally:
        os.kill(short_lived.platform.pid, signal.SIGCONT)
    short_lived.console.wait()
    assert not short_lived.console.device.is_connected
    log = wait_for(lambda: short_lived.platform.log()[["code", "ending"]].to_numpy().tolist())
    wait_for(lambda: short_lived.platform.log().query("code == 'CONNECTED' and ended.isna()").empty)
    assert len(log) == 1


def test_the_static_picture_is_the_same_in_every_run_and_shows_no_secret(
    quick_workspace: Workspace, tmp_path: Path
) -> None:
    quick_workspace.catch_up("upload")
    tenant, console = quick_workspace.tenant(), DeviceConsole(quick_workspace)
    bundle = console._repr_mimebundle_()
    assert {"text/plain", "text/html"} < set(bundle)
    shown = bundle["text/plain"]
    for words in ("device-0001", "127.0.0.1:", "mutual TLS", "Here you can", "an event or an alarm"):
        assert words in shown and words in text_of(bundle["text/html"])
    other = shown.replace(str(tenant.mqtt[1]), "8899")
    assert sanitized(other) == sanitized(shown) and "PORT" in sanitized(shown)
    console.connect()
    console.wait()
    assert console.device.is_connected and console.picture().text == shown
    secret = quick_workspace.passphrase.reveal()
    assert secret and not any(secret in repr(widget.get_state()) for widget in widgets_of(console))
    assert secret not in repr(vars(console))
    console.end()


TIMES = st.datetimes(datetime(1970, 1, 2), datetime(9000, 1, 1), timezones=st.just(UTC))
VALUES = st.floats(allow_nan=False, allow_infinity=False)


def series(points: list[tuple[datetime, float]]) -> "pd.Series[float]":
    index = pd.DatetimeIndex([time for time, _ in points], dtype="datetime64[us, UTC]")
    return pd.Series([value for _, value in points], index=index, dtype=float)


@examples(50)
@given(points=st.lists(st.tuples(TIMES, VALUES), min_size=1, max_size=30), name=st.text(max_size=60))
def test_whatever_was_measured_is_drawn_and_read_out(points: list[tuple[datetime, float]], name: str) -> None:
    shown = plot(series(points), name, "C")
    image = ElementTree.fromstring(re.findall("<img[^>]*>", shown)[0].replace(">", "/>"))
    assert f"{len(points)} measurement" in image.attrib["alt"] and "script" not in Tags(shown).tags
    picture = base64.b64decode(image.attrib["src"].removeprefix("data:image/svg+xml;base64,"))
    assert ElementTree.fromstring(picture).tag == "{http://www.w3.org/2000/svg}svg"
    assert picture.count(COLOURS["ground"][0].encode()) == 1, "all is drawn in colours that follow the theme"
    assert b"#000000" not in picture and b"#ffffff" not in picture.split(b"</style>", 1)[1]


def test_a_plot_says_in_words_what_it_shows() -> None:
    begin = datetime(2026, 1, 31, 9, 0, tzinfo=UTC)
    points = [(begin + timedelta(seconds=10 * n), value) for n, value in enumerate((19.0, 22.0, 21.5))]
    shown = plot(series(points[::-1]), "c8y_Temperature T", "C")  # in whatever order they come
    assert (
        'alt="Plot of c8y_Temperature T: 3 measurements from 09:00:00 to 09:00:20 UTC, between 19 C and 22 C; '
        'the last is 21.5 C."' in shown
    )
    assert "Last value: <strong>21.5 C at 2026-01-31 09:00:20 UTC</strong>. 3 measurements." in shown
    assert "<strong>c8y_Temperature T (C)</strong>" in shown
    assert plot(series([]), "x") == "Measurements: none yet."


@pytest.mark.slow
def test_a_plot_leaves_no_figure_and_no_warning() -> None:
    code = "import pandas as pd; from mciot_nb.ui.console_parts import plot; import matplotlib.pyplot as plt;"
    code += "plot(pd.Series([1.0], index=pd.DatetimeIndex(['2026-01-31 09:00+00:00'])), 'x'); print(plt.get_fignums())"
    environment = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "MPLBACKEND")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert (done.stdout, done.stderr) == ("[]\n", "")
