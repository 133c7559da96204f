"""The local platform as a process: its files, its REST interface, and what outlives a kill."""

import base64
import json
import os
import signal
import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import platform_tools as tools
import psutil
import pytest
import requests
from conftest import Run, examples
from hypothesis import given
from hypothesis import strategies as st

from mciot_nb.errors import OnboardingError
from mciot_nb.local_platform import LocalPlatform
from mciot_platform import __main__ as program
from mciot_platform.identity import server_certificate, server_key

platform = tools.platform_fixture()


def ends(process: "subprocess.Popen[str]") -> bool:
    """Whether the process ends by itself, and well."""
    return process.wait(tools.SECONDS) == 0


def test_a_second_start_finds_the_first(platform: LocalPlatform) -> None:
    workspace = platform.folder.parent
    assert LocalPlatform.start(workspace) == platform == LocalPlatform.running(workspace)
    done = subprocess.run(tools.command(workspace), capture_output=True, text=True, timeout=tools.SECONDS)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "mqtt": list(platform.mqtt),
        "https": platform.https,
        "server_certificate": str(platform.server_certificate),
        "tenants": [{"id": platform.tenant_ids[0], "user": platform.tenant.user}],
        "pid": platform.pid,
    }
    with pytest.raises(OnboardingError, match="guide-2021, not current"):
        LocalPlatform.start(workspace, "current")


def test_it_starts_stops_and_keeps_its_identity(tmp_path: Path) -> None:
    assert LocalPlatform.running(tmp_path) is None
    with tools.start_in_foreground(tmp_path, "--mqtt-port", "0", "--https-port", "0") as (process, line):
        platform = tools.running(tmp_path)
        assert line["mqtt"][1] > 0 and tools.rest(platform, "GET").ok  # 0 stands for any that is free
        identity = platform.server_certificate.read_bytes(), tools.password(platform)
        assert line["pid"] == platform.pid == process.pid
        platform.stop()
        assert ends(process)
    assert LocalPlatform.running(tmp_path) is None
    assert platform.log().empty  # what was kept can be read without the process
    with tools.started(tmp_path) as again:
        assert (again.server_certificate.read_bytes(), tools.password(again)) == identity


def test_a_taken_port_gives_way_to_the_next(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with tools.start_in_foreground(tmp_path, "--mqtt-port", str(port), "--https-port", str(port)) as (
            process,
            line,
        ):
            assert port < line["mqtt"][1] < int(line["https"].rpartition(":")[2])
            process.send_signal(signal.SIGTERM)
            assert ends(process)


def test_it_ends_with_the_process_it_was_started_for(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with parent, tools.start_in_foreground(tmp_path, "--until-pid", str(parent.pid)) as (process, _):
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.2)  # the control: it stays as long as that one does, and looks twice a second
        parent.communicate(b"\n")
        assert ends(process)
    with tools.start_in_foreground(tmp_path, "--until-pid", str(parent.pid)) as (process, _):
        assert ends(process)


def test_the_file_limit_is_raised_and_half_open_https_is_let_go(tmp_path: Path) -> None:
    first = "import mciot_platform.__main__ as m; m.IDLE_SECONDS = 1"
    if os.name != "nt":
        first += "; import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (256, r.getrlimit(r.RLIMIT_NOFILE)[1]))"
    with tools.start_in_foreground(tmp_path, first=first) as (process, line):
        with socket.create_connection(("127.0.0.1", int(line["https"].rpartition(":")[2]))) as half_open:
            half_open.settimeout(tools.SECONDS)
            assert half_open.recv(1) == b""  # no TLS handshake ever came
        assert tools.rest(tools.running(tmp_path), "GET").ok
        if sys.platform == "linux":
            soft, hard = psutil.Process(process.pid).rlimit(psutil.RLIMIT_NOFILE)
            assert soft == hard


def test_a_file_of_another_version_or_a_dead_platform_is_none_that_runs(tmp_path: Path) -> None:
    with tools.start_in_foreground(tmp_path) as (process, _):
        file = tmp_path / "platform" / "running.json"
        kept = json.loads(file.read_text())
        assert LocalPlatform.running(tmp_path)  # the control
        process.kill()
        process.wait()
    reused = json.dumps(kept | {"pid": os.getpid()})  # killed, and its number is another process's now
    for shape in ("{}", "[]", "7", "not json", '{"pid": 1, "mqtt": ["a", 1], "created": 1}', reused):
        file.write_text(shape)
        assert LocalPlatform.running(tmp_path) is None, shape
    with tools.start_in_foreground(tmp_path):
        assert LocalPlatform.running(tmp_path)


IMPOSSIBLE = [
    *(
        (("--host", host), f"'{host}' leads to no address of this machine: give --host 127.0.0.1")
        for host in ("bücher.invalid", "", "no-such-host.invalid", "192.0.2.1")
    ),
    (("--mqtt-port", "-1"), "There is no port -1"),
    (("--until-pid", "-3"), "No process has the number -3"),
    *((("--tenants", n), f"There can't be {n} tenants: give --tenants a number from 1") for n in ("0", "-1", "1001")),
]
#: How a file is damaged, by its name; the first page of a database holds the list of its tables.
DAMAGES: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("serverKey.pem", lambda good: b"[7]"),
    ("credentials.json", lambda good: b"[7]"),
    ("platform.sqlite", lambda good: b"This is not a database at all.\n" * 300),
    ("platform.sqlite", lambda good: good[: len(good) // 2]),
    ("platform.sqlite", lambda good: good[:4096] + b"\xff" * (len(good) - 4096)),
]


def test_a_start_that_can_not_be_is_one_sentence_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(options: tuple[str, ...], sentence: str) -> None:
        monkeypatch.setattr(sys, "argv", tools.command(tmp_path, *options)[2:])
        assert program.main() == 1
        said = capsys.readouterr()
        assert sentence in said.err and said.out == "" and said.err.endswith(".\n")
        assert len(said.err.splitlines()) == 1
        assert certificate.read_bytes() == before and LocalPlatform.running(tmp_path) is None

    with tools.start_in_foreground(tmp_path) as (process, _):  # the control
        certificate = tools.running(tmp_path).server_certificate
        before = certificate.read_bytes()
        process.terminate()
        assert ends(process)
    monkeypatch.setattr(program, "_stop_on_signals", lambda stop: None)  # the signals are pytest's
    for options, sentence in IMPOSSIBLE:
        fails(options, sentence)
    for name, damage in DAMAGES:
        good = (file := certificate.parent / name).read_bytes()
        file.write_bytes(wrong := damage(good))
        fails((), f"{name} is damaged: move it away")
        assert file.read_bytes() == wrong  # what can be saved from it still can
        file.write_bytes(good)
    (certificate.parent / "credentials.json").write_text("{")
    with pytest.raises(OnboardingError, match=r"did not start: .*credentials.json is damaged: move it away") as caught:
        LocalPlatform.start(tmp_path)
    assert caught.value.code == "PLATFORM_DID_NOT_START"


def test_another_name_is_added_with_the_same_key(tmp_path: Path) -> None:
    before = server_certificate(tmp_path, key := server_key(tmp_path), "localhost")
    assert server_certificate(tmp_path, server_key(tmp_path), "127.0.0.1") == before
    after = server_certificate(tmp_path, server_key(tmp_path), "pump.example")
    assert after != before and after.public_key() == key.public_key() == before.public_key()
    assert server_certificate(tmp_path, key, "localhost") == after
    with pytest.raises(OnboardingError, match="ASCII"):
        server_certificate(tmp_path, key, "bücher")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs two processes of one command line")
def test_a_parent_of_the_same_command_line_is_a_stub() -> None:
    begin = "import os, psutil; from mciot_nb.local_platform import _starter; "
    ask = "print(_starter(psutil.Process()))"
    for script in (f"child = os.fork(); os.waitpid(child, 0) if child else {ask}", ask):
        done = subprocess.run(
            [sys.executable, "-c", begin + script], capture_output=True, text=True, timeout=tools.SECONDS
        )
        assert int(done.stdout) == os.getpid(), done.stderr


def test_a_script_takes_its_platform_with_it(tmp_path: Path) -> None:
    code = f"from mciot_nb.local_platform import LocalPlatform; print(LocalPlatform.start({str(tmp_path)!r}).pid)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=tools.SECONDS)
    pid = int(done.stdout)
    tools.wait_for(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    assert LocalPlatform.running(tmp_path) is None


def test_what_was_acknowledged_outlives_a_kill(tmp_path: Path) -> None:
    root, other = tools.make("Root", ca=True), tools.make("Other", ca=True)
    entity = tools.make("dev", root)
    with tools.start_in_foreground(tmp_path) as (killed, _):
        platform = tools.running(tmp_path)
        assert tools.upload(platform, root).status_code == tools.upload(platform, other).status_code == 201
        assert tools.rest(platform, "DELETE", other.fingerprint).status_code == 204
        assert tools.rest(platform, "PUT", root.fingerprint, json={"name": "renamed"}).status_code == 200
        with tools.device(platform, tmp_path, entity) as (client, seen):
            assert seen.connack == 0
            client.publish("s/us", "100,Pump,c8y_Pump", qos=1).wait_for_publish(tools.SECONDS)
            for number in range(20):
                client.publish("s/us", f"200,c8y_P,p,{number}\n400,c8y_Tick,{number}", qos=1).wait_for_publish(
                    tools.SECONDS
                )
            killed.kill()
            killed.wait()
    with tools.started(tmp_path) as platform:
        assert list(platform.measurements()["value"]) == list(range(20))
        assert list(platform.events()["text"]) == [str(number) for number in range(20)]
        assert list(platform.devices()["name"]) == ["Pump"]
        known = tools.rest(platform, "GET").json()["certificates"]
        assert [(one["fingerprint"], one["name"]) for one in known] == [(root.fingerprint, "renamed")]
        with tools.device(platform, tmp_path, entity) as (_, seen):
            assert seen.connack == 0
        with tools.device(platform, tmp_path, tools.make("dev", other)) as (_, seen):
            assert seen.connack is None


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_secrets_are_their_owners_alone(platform: LocalPlatform) -> None:
    """That they stand in no other file is in test_mqtt_abuse.py."""
    for name in ("credentials.json", "serverKey.pem"):
        assert stat.S_IMODE((platform.folder / name).stat().st_mode) == 0o600
    seen = repr(platform) + repr(platform.tenant) + " ".join(psutil.Process(platform.pid).cmdline())
    assert tools.password(platform) not in seen and platform.tenant_ids[0] in seen


def test_keytool_takes_the_server_certificate(platform: LocalPlatform, keytool: Run, tmp_path: Path) -> None:
    """That openssl does is in test_class_platform.py."""
    store = ("-keystore", tmp_path / "trust.p12", "-storepass", "changeit")
    keytool("-importcert", "-noprompt", "-alias", "platform", "-file", platform.server_certificate, *store)
    assert "trustedCertEntry" in keytool("-list", *store).stdout


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_old_tls_is_refused(platform: LocalPlatform) -> None:
    context = ssl.create_default_context(cafile=str(platform.server_certificate))
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    for port in (platform.mqtt[1], int(platform.https.rpartition(":")[2])):
        with socket.create_connection(("127.0.0.1", port)) as plain, pytest.raises(ssl.SSLError) as refused:
            context.wrap_socket(plain, server_hostname="localhost")
        assert "protocol version" in str(refused.value).lower().replace("_", " ")


def test_a_trusted_certificate_is_shown_under_the_vendors_names(platform: LocalPlatform) -> None:
    """Its life is in test_rest_model.py."""
    shown = tools.upload(platform, ca := tools.make("Life", ca=True)).json()
    assert shown["fingerprint"] == ca.fingerprint and shown["serialNumber"] == str(ca.certificate.serial_number)
    assert (shown["version"], shown["algorithmName"], shown["subject"]) == (3, "SHA256withECDSA", "CN=Life")
    assert shown["notAfter"].endswith(".000Z") and "BEGIN" not in shown["certInPemFormat"]
    assert tools.rest(platform, "GET", ca.fingerprint).json() == shown
    deleted = tools.rest(platform, "DELETE", ca.fingerprint)
    assert (deleted.status_code, deleted.content) == (204, b"")


def unknown_signature(entity: tools.Entity) -> str:
    """Return the certificate with a signature algorithm that does not exist: ecdsa-with-SHA256's number, changed."""
    der, number = base64.b64decode("".join(entity.pem.splitlines()[1:-1])), b"\x2a\x86\x48\xce\x3d\x04\x03"
    return base64.b64encode(der.replace(number + b"\x02", number + b"\x7f")).decode()


def test_uploads_that_can_not_be_used(platform: LocalPlatform) -> None:
    """More are in test_rest_model.py."""
    good, begin = tools.make("Good", ca=True), "-----BEGIN CERTIFICATE-----\n"
    wrong = (7, base64.b64encode(b"rubbish").decode(), begin * 3500, begin * 8000, unknown_signature(good))
    for certificate in wrong:
        answer = tools.upload(platform, good, certInPemFormat=certificate)
        assert answer.status_code == 422, certificate
        assert answer.headers["Content-Type"] == "application/vnd.com.nsn.cumulocity.error+json"
    for data in (b"{", b"[" * 100_000, b"[]"):
        assert tools.rest(platform, "POST", data=data).status_code == 422
    assert tools.upload(platform, good, name=None).json()["name"] == ""  # the control


def test_line_breaks_that_are_typed_are_explained(platform: LocalPlatform) -> None:
    ca = tools.make("Typed", ca=True)
    answer = tools.upload(platform, ca, certInPemFormat=ca.pem.replace("\n", "\\n"))
    assert answer.status_code == 422 and "a backslash and an n" in answer.json()["message"]
    known = tools.upload(platform, ca, certInPemFormat="Subject: CN = a\\name\n" + ca.pem)  # the control
    assert known.status_code == 201 and known.json()["fingerprint"] == ca.fingerprint


def test_unknown_places(platform: LocalPlatform) -> None:
    assert tools.rest(platform, "GET", "/tenant/tenants/t9/trusted-certificates").status_code == 404
    assert tools.rest(platform, "GET", "/nothing").status_code == 404
    assert tools.rest(platform, "GET", "0" * 40).json()["error"] == "certificate/Not Found"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["certInPemFormat", "status", "name", "x"]), inner, max_size=4)
    ),
    max_leaves=6,
)


@examples(40)
@given(body=JSON)
def test_no_json_is_a_fault_of_the_platform(platform: LocalPlatform, body: Any) -> None:
    assert tools.rest(platform, "POST", json=body).status_code in (400, 422)


def test_a_body_that_is_too_long_does_no_harm(platform: LocalPlatform) -> None:
    try:
        status = tools.rest(platform, "POST", data=b"x" * 3_000_000).status_code
    except requests.ConnectionError:
        status = 400  # closed before all of it was sent, so the answer was lost
    assert status == 400
    assert tools.rest(platform, "GET").ok
    tools.check_no_fault(platform)


def test_the_launcher_imports_nothing_heavy() -> None:
    code = "import sys, mciot_nb.local_platform; print({'amqtt', 'OpenSSL', 'tornado', 'pandas'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
