"""The local platform as a process: its files, its REST interface, and what outlives a kill."""

import base64
import contextlib
import json
import os
import signal
import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from conftest import Run
from hypothesis import given, settings
from hypothesis import strategies as st
from platform_tools import (
    DAY,
    Entity,
    command,
    device,
    make,
    password,
    rest,
    start_in_foreground,
    upload,
    wait_for,
)

from mciot_nb.errors import OnboardingError
from mciot_nb.local_platform import LocalPlatform, is_alive
from mciot_platform.identity import server_certificate, server_key


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPlatform]:
    platform = LocalPlatform.start(tmp_path_factory.mktemp("workspace"))
    yield platform
    platform.stop()


def running(folder: Path) -> LocalPlatform:
    found = LocalPlatform.running(folder)
    assert found
    return found


def test_a_second_start_finds_the_first(platform: LocalPlatform) -> None:
    workspace = platform.folder.parent
    assert LocalPlatform.start(workspace) == platform == LocalPlatform.running(workspace)
    done = subprocess.run(command(workspace), capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "mqtt": list(platform.mqtt),
        "https": platform.https,
        "server_certificate": str(platform.server_certificate),
        "tenants": [{"id": platform.tenant_id, "user": platform.tenant.user}],
        "pid": platform.pid,
    }
    with pytest.raises(OnboardingError, match="guide-2021, not current"):
        LocalPlatform.start(workspace, "current")


def test_it_starts_stops_and_keeps_its_identity(tmp_path: Path) -> None:
    assert LocalPlatform.running(tmp_path) is None
    with start_in_foreground(tmp_path) as (process, line):
        platform = running(tmp_path)
        identity = platform.server_certificate.read_bytes(), password(platform)
        assert line["pid"] == platform.pid == process.pid
        platform.stop()
        assert process.wait(10) == 0
    assert LocalPlatform.running(tmp_path) is None
    assert platform.log().empty  # what was kept can be read without the process
    again = LocalPlatform.start(tmp_path)
    try:
        assert (again.server_certificate.read_bytes(), password(again)) == identity
    finally:
        again.stop()


def test_a_taken_port_gives_way_to_the_next(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with start_in_foreground(tmp_path, "--mqtt-port", str(port), "--https-port", str(port)) as (process, line):
            assert port < line["mqtt"][1] < int(line["https"].rpartition(":")[2])
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0


def test_port_zero_announces_the_one_that_it_became(tmp_path: Path) -> None:
    with start_in_foreground(tmp_path, "--mqtt-port", "0", "--https-port", "0") as (_, line):
        assert line["mqtt"][1] > 0
        assert rest(running(tmp_path), "GET").ok


def test_it_ends_with_the_process_it_was_started_for(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with parent, start_in_foreground(tmp_path, "--until-pid", str(parent.pid)) as (process, _):
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.2)  # the control: it stays as long as that one does
        parent.communicate(b"\n")
        assert process.wait(10) == 0
    with start_in_foreground(tmp_path, "--until-pid", str(parent.pid)) as (process, _):
        assert process.wait(10) == 0


def test_the_file_limit_is_raised_and_half_open_https_is_let_go(tmp_path: Path) -> None:
    first = "import mciot_platform.__main__ as m; m.IDLE_SECONDS = 1"
    if os.name != "nt":
        first += "; import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (256, r.getrlimit(r.RLIMIT_NOFILE)[1]))"
    with start_in_foreground(tmp_path, first=first) as (process, line):
        with socket.create_connection(("127.0.0.1", int(line["https"].rpartition(":")[2]))) as half_open:
            half_open.settimeout(15)
            assert half_open.recv(1) == b""  # no TLS handshake ever came
        assert rest(running(tmp_path), "GET").ok
        if sys.platform == "linux":
            soft, hard = psutil.Process(process.pid).rlimit(psutil.RLIMIT_NOFILE)
            assert soft == hard


@pytest.mark.parametrize("shape", ["{}", "[]", "7", "not json", '{"pid": 1, "mqtt": ["a", 1], "created": 1}', "reused"])
def test_a_file_of_another_version_or_a_dead_platform_is_none_that_runs(tmp_path: Path, shape: str) -> None:
    if shape == "reused":  # killed, and its number is another process's now
        with start_in_foreground(tmp_path) as (process, _):
            kept = json.loads((tmp_path / "platform" / "running.json").read_text())
            assert LocalPlatform.running(tmp_path)  # the control
            process.kill()
            process.wait()
        shape = json.dumps(kept | {"pid": os.getpid()})
    (tmp_path / "platform").mkdir(exist_ok=True)
    (tmp_path / "platform" / "running.json").write_text(shape)
    assert LocalPlatform.running(tmp_path) is None


@pytest.mark.parametrize(
    ("options", "damaged", "sentence"),
    [
        (("--host", "bücher.invalid"), "", "can't be listened on"),
        (("--host", ""), "", "can't be listened on"),
        (("--mqtt-port", "-1"), "", "There is no port -1"),
        (("--until-pid", "-3"), "", "No process has the number -3"),
        ((), "serverKey.pem", "serverKey.pem is damaged"),
        ((), "credentials.json", "credentials.json is damaged"),
    ],
)
def test_a_start_that_can_not_be_is_one_sentence_and_changes_no_certificate(
    tmp_path: Path, options: tuple[str, ...], damaged: str, sentence: str
) -> None:
    with start_in_foreground(tmp_path):  # the control
        before = running(tmp_path).server_certificate.read_bytes()
    if damaged:
        (tmp_path / "platform" / damaged).write_text("[7]")
    done = subprocess.run(command(tmp_path, *options), capture_output=True, text=True, timeout=30)
    assert done.returncode == 1 and sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert (tmp_path / "platform" / "serverCert.pem").read_bytes() == before


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
    code = (
        "import os, psutil; from mciot_nb.local_platform import _starter; child = os.fork();"
        "os.waitpid(child, 0) if child else print(_starter(psutil.Process()))"
    )
    plain = "import psutil; from mciot_nb.local_platform import _starter; print(_starter(psutil.Process()))"
    for script in (code, plain):
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=20)
        assert int(done.stdout) == os.getpid(), done.stderr


def test_a_script_takes_its_platform_with_it(tmp_path: Path) -> None:
    code = f"from mciot_nb.local_platform import LocalPlatform; print(LocalPlatform.start({str(tmp_path)!r}).pid)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    wait_for(lambda: not _runs(int(done.stdout)))
    assert LocalPlatform.running(tmp_path) is None


def _runs(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return is_alive(psutil.Process(pid))
    return False


def test_a_start_that_fails_says_why_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "platform").mkdir()
    (tmp_path / "platform" / "credentials.json").write_text("{")
    with pytest.raises(OnboardingError, match=r"did not start: .*credentials.json is damaged: move it away"):
        LocalPlatform.start(tmp_path)


def test_what_was_acknowledged_outlives_a_kill(tmp_path: Path) -> None:
    root, other = make("Root", ca=True), make("Other", ca=True)
    entity = make("dev", root)
    with start_in_foreground(tmp_path) as (killed, _):
        platform = running(tmp_path)
        assert upload(platform, root).status_code == upload(platform, other).status_code == 201
        assert rest(platform, "DELETE", other.fingerprint).status_code == 204
        with device(platform, tmp_path, entity) as (client, seen):
            assert seen.connack == 0
            client.publish("s/us", "100,Pump,c8y_Pump", qos=1).wait_for_publish(5)
            for number in range(20):
                client.publish("s/us", f"200,c8y_P,p,{number}\n400,c8y_Tick,{number}", qos=1).wait_for_publish(5)
            killed.kill()
            killed.wait()
    platform = LocalPlatform.start(tmp_path)
    try:
        assert list(platform.measurements()["value"]) == list(range(20))
        assert list(platform.events()["text"]) == [str(number) for number in range(20)]
        assert list(platform.devices()["name"]) == ["Pump"]
        known = rest(platform, "GET").json()["certificates"]
        assert [certificate["fingerprint"] for certificate in known] == [root.fingerprint]
        with device(platform, tmp_path, entity) as (_, seen):
            assert seen.connack == 0
        with device(platform, tmp_path, make("dev", other)) as (_, seen):
            assert seen.connack is None
    finally:
        platform.stop()


def test_no_password_is_written_anywhere_but_in_the_credentials(platform: LocalPlatform, tmp_path: Path) -> None:
    secret = password(platform).encode()
    assert rest(platform, "GET").ok
    assert rest(platform, "GET", auth=("x", "y")).status_code == 401
    files = [file for file in platform.folder.iterdir() if file.name != "credentials.json"]
    assert len(files) > 4
    assert not [file for file in files if secret in file.read_bytes()]
    assert secret.decode() not in repr(platform) + repr(platform.tenant) + " ".join(
        psutil.Process(platform.pid).cmdline()
    )
    if os.name != "nt":
        for name in ("credentials.json", "serverKey.pem"):
            assert stat.S_IMODE((platform.folder / name).stat().st_mode) == 0o600


def test_openssl_and_keytool_take_the_server_certificate(
    platform: LocalPlatform, openssl: Run, keytool: Run, tmp_path: Path
) -> None:
    port, certificate = platform.https.rpartition(":")[2], platform.server_certificate
    arguments = ("s_client", "-verify_return_error", "-brief", "-connect", f"localhost:{port}", "-verify_hostname")
    openssl(*arguments, "localhost", "-CAfile", certificate)
    assert openssl(*arguments, "other.example", "-CAfile", certificate, check=False).returncode != 0
    other = tmp_path / "other.pem"
    other.write_text(make("localhost", ca=True).pem)
    assert openssl(*arguments, "localhost", "-CAfile", other, check=False).returncode != 0
    store = ("-keystore", tmp_path / "trust.p12", "-storepass", "changeit")
    keytool("-importcert", "-noprompt", "-alias", "servercertificate", "-file", certificate, *store)
    assert "trustedCertEntry" in keytool("-list", *store).stdout


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_old_tls_is_refused(platform: LocalPlatform) -> None:
    context = ssl.create_default_context(cafile=str(platform.server_certificate))
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    for port in (platform.mqtt[1], int(platform.https.rpartition(":")[2])):
        plain = socket.create_connection(("127.0.0.1", port))
        with (
            pytest.raises(ssl.SSLError, match=r"(?i)protocol version"),
            context.wrap_socket(plain, server_hostname="localhost"),
        ):
            pass


def test_the_life_of_a_trusted_certificate(platform: LocalPlatform) -> None:
    ca = make("Life", ca=True)
    created = upload(platform, ca)
    assert created.status_code == 201
    body = created.json()
    assert body["fingerprint"] == ca.fingerprint and body["serialNumber"] == str(ca.certificate.serial_number)
    assert (body["version"], body["algorithmName"], body["subject"]) == (3, "SHA256withECDSA", "CN=Life")
    assert body["autoRegistrationEnabled"] is True and body["notAfter"].endswith(".000Z")
    assert "BEGIN" not in body["certInPemFormat"]
    assert rest(platform, "GET", ca.fingerprint).json() == body
    changed = rest(
        platform, "PUT", ca.fingerprint, json={"status": "DISABLED", "name": "New", "autoRegistrationEnabled": False}
    )
    assert changed.json() == body | {"status": "DISABLED", "name": "New", "autoRegistrationEnabled": False}
    assert rest(platform, "PUT", ca.fingerprint, json={"status": "MAYBE"}).status_code == 422
    assert upload(platform, ca).status_code == 409
    deleted = rest(platform, "DELETE", ca.fingerprint)
    assert (deleted.status_code, deleted.content) == (204, b"")
    for method in ("GET", "PUT", "DELETE"):
        assert rest(platform, method, ca.fingerprint, json={}).status_code == 404
    assert upload(platform, ca).status_code == 201  # gone is gone


def test_without_accept_post_and_put_answer_nothing(platform: LocalPlatform) -> None:
    ca = make("Silent", ca=True)
    body = {"certInPemFormat": ca.pem, "status": "ENABLED"}
    created = rest(platform, "POST", json=body, headers={"Accept": None})
    assert (created.status_code, created.content) == (201, b"")
    assert "Content-Type" not in created.headers
    changed = rest(platform, "PUT", ca.fingerprint, json={"name": "x"}, headers={"Accept": None})
    assert (changed.status_code, changed.content) == (200, b"")


@pytest.mark.parametrize("spelling", ["lines", "one line", "base64", "preamble", "CRLF"])
def test_spellings_of_a_certificate(platform: LocalPlatform, spelling: str) -> None:
    ca = make(f"Spelling {spelling}", ca=True)
    base64_text = "".join(ca.pem.splitlines()[1:-1])
    text = {
        "lines": ca.pem,
        "one line": ca.pem.replace("\n", ""),
        "base64": base64_text,
        "preamble": "Certificate:\n    Data:\n" + ca.pem,
        "CRLF": ca.pem.replace("\n", "\r\n"),
    }[spelling]
    answer = upload(platform, ca, certInPemFormat=text)
    assert answer.status_code == 201 and answer.json()["fingerprint"] == ca.fingerprint


def unknown_signature(entity: Entity) -> str:
    """Give the certificate with a signature algorithm that does not exist: ecdsa-with-SHA256's number, changed."""
    der = base64.b64decode("".join(entity.pem.splitlines()[1:-1]))
    return base64.b64encode(
        der.replace(b"\x2a\x86\x48\xce\x3d\x04\x03\x02", b"\x2a\x86\x48\xce\x3d\x04\x03\x7f")
    ).decode()


def test_uploads_that_can_not_be_used(platform: LocalPlatform) -> None:
    good, leaf, old = make("Good", ca=True), make("Leaf"), make("Old", ca=True, begins=-9 * DAY, ends=-DAY)
    for body in (
        {"certInPemFormat": leaf.pem},
        {"certInPemFormat": old.pem},
        {"certInPemFormat": "no certificate"},
        {"certInPemFormat": good.pem + leaf.pem},
        {"certInPemFormat": good.pem.replace("-----", "–––––")},  # noqa: RUF001 - the guide's dashes
        {"certInPemFormat": base64.b64encode(b"rubbish").decode()},
        {"certInPemFormat": 7},
        {"status": "MAYBE"},
        {"name": "\ud800"},
        {"name": "x" * 257},
        {"certInPemFormat": "-----BEGIN CERTIFICATE-----\n" * 3500},
        {"certInPemFormat": "-----BEGIN CERTIFICATE-----\n" * 8000},
        {"certInPemFormat": unknown_signature(good)},
        {"autoRegistrationEnabled": "perhaps"},
    ):
        answer = upload(platform, good, **body)
        assert answer.status_code == 422, body
        assert answer.headers["Content-Type"] == "application/vnd.com.nsn.cumulocity.error+json"
        assert set(answer.json()) == {"error", "message", "info"}
    assert rest(platform, "POST", data=b"{").status_code == 422
    assert rest(platform, "POST", data=b"[" * 100_000).status_code == 422
    assert rest(platform, "POST", data=b"[]").status_code == 422
    assert upload(platform, good, name=None).status_code == 201  # the control
    assert rest(platform, "GET", good.fingerprint).json()["name"] == ""
    assert rest(platform, "GET", params={"pageSize": 2000}).status_code == 200


def test_line_breaks_that_are_typed_are_explained(platform: LocalPlatform) -> None:
    ca = make("Typed", ca=True)
    answer = upload(platform, ca, certInPemFormat=ca.pem.replace("\n", "\\n"))
    assert answer.status_code == 422 and "a backslash and an n" in answer.json()["message"]
    known = upload(platform, ca, certInPemFormat="Subject: CN = a\\name\n" + ca.pem)  # the control
    assert known.status_code == 201 and known.json()["fingerprint"] == ca.fingerprint


def test_logins_and_unknown_places(platform: LocalPlatform) -> None:
    right, path = password(platform), "/tenant/currentTenant"
    for user in (f"{platform.tenant_id}/{platform.tenant.user}", platform.tenant.user):
        assert rest(platform, "GET", path, auth=(user, right)).json()["name"] == platform.tenant_id
    for user, secret in ((platform.tenant.user, "wrong"), (f"t9/{platform.tenant.user}", right), ("", "")):
        answer = rest(platform, "GET", path, auth=(user, secret))
        assert answer.status_code == 401
        assert answer.json()["error"] == "security/Unauthorized"
    assert rest(platform, "GET", path, auth=None, headers={"Authorization": "Basic ä"}).status_code == 401
    assert rest(platform, "GET", "/tenant/tenants/t9/trusted-certificates").status_code == 404
    assert rest(platform, "GET", "/nothing").status_code == 404
    assert rest(platform, "GET", "0" * 40).json()["error"] == "certificate/Not Found"


def test_pages(tmp_path: Path) -> None:
    platform = LocalPlatform.start(tmp_path)
    try:
        names = [f"CA {number}" for number in range(7)]
        for name in names:
            assert upload(platform, make(name, ca=True), name=name).status_code == 201
        first = rest(platform, "GET", params={"withTotalElements": "true", "withTotalPages": "true"}).json()
        assert first["statistics"] == {"currentPage": 1, "pageSize": 5, "totalElements": 7, "totalPages": 2}
        second = rest(platform, "GET", params={"currentPage": 2}).json()
        shown = [certificate["name"] for page in (first, second) for certificate in page["certificates"]]
        assert shown == names
        assert "prev" not in first and "next" not in second
        assert first["next"].endswith("pageSize=5&currentPage=2") and second["prev"].endswith("currentPage=1")
        assert len(rest(platform, "GET", params={"pageSize": 2000}).json()["certificates"]) == 7
        for wrong in ({"pageSize": 2001}, {"pageSize": 0}, {"currentPage": "x"}):
            assert rest(platform, "GET", params=wrong).status_code == 422
    finally:
        platform.stop()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["certInPemFormat", "status", "name", "x"]), inner, max_size=4)
    ),
    max_leaves=6,
)


@settings(max_examples=40, deadline=None)
@given(body=JSON)
def test_no_json_is_a_fault_of_the_platform(platform: LocalPlatform, body: Any) -> None:
    assert rest(platform, "POST", json=body).status_code in (400, 422)


def test_a_body_that_is_too_long_does_no_harm(platform: LocalPlatform) -> None:
    try:
        status = rest(platform, "POST", data=b"x" * 3_000_000).status_code
    except requests.ConnectionError:
        status = 400  # closed before all of it was sent, so the answer was lost
    assert status == 400
    assert rest(platform, "GET").ok
    assert "Traceback" not in (platform.folder / "messages.txt").read_text()


def test_the_launcher_imports_nothing_heavy() -> None:
    code = "import sys, mciot_nb.local_platform; print({'amqtt', 'OpenSSL', 'tornado', 'pandas'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
