"""One platform for a class: tenants that know nothing of each other, a name by which others reach it, its tables."""

import contextlib
import json
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
import requests
from conftest import Run
from platform_tools import (
    SECONDS,
    Entity,
    connected,
    device,
    log_length,
    login,
    make,
    platform_fixture,
    rest,
    running,
    start_in_foreground,
    started,
    upload,
    wait_for,
)

from mciot_nb import ClassPanel
from mciot_nb.connect.server_certificate import fetch_server_certificate
from mciot_nb.errors import OnboardingError
from mciot_nb.local_platform import LocalPlatform

platform = platform_fixture(tenants=3)


def tenant_call(platform: LocalPlatform, number: int, method: str, **options: Any) -> requests.Response:
    """Call a tenant's list of trusted certificates as its administrator, or with another login."""
    path = f"/tenant/tenants/{platform.tenant_ids[number]}/trusted-certificates"
    return rest(platform, method, path, **{"auth": login(platform, number), **options})


def give(platform: LocalPlatform, number: int, ca: Entity) -> int:
    body = {"certInPemFormat": ca.pem, "status": "ENABLED", "autoRegistrationEnabled": True}
    return tenant_call(platform, number, "POST", json=body).status_code


def last_connection(platform: LocalPlatform, name: str) -> "pd.Series[Any]":
    table = connected(platform)
    return table[table["subject"] == f"CN={name}"].iloc[-1]


def test_each_tenant_has_a_login_that_no_other_takes(platform: LocalPlatform) -> None:
    assert [tenant.tenant_id for tenant in platform.tenants] == ["t1001", "t1002", "t1003"]
    admins = [login(platform, number) for number in range(3)]
    viewers = [login(platform, number, viewer=True) for number in range(3)]
    assert len({password for _, password in (*admins, *viewers)}) == 6
    for number, (user, password) in enumerate(admins):
        for other, (other_user, _) in enumerate(admins):
            for given, status in ((user, 404), (other_user, 401), ("admin", 404)):
                answer = tenant_call(platform, other, "GET", auth=(given, password))
                assert answer.status_code == (200 if other == number else status)
        assert tenant_call(platform, number, "GET", auth=viewers[number]).status_code == 403


def credentials(platform: LocalPlatform) -> dict[str, Any]:
    known: dict[str, Any] = json.loads((platform.folder / "credentials.json").read_text())
    return known


def test_tenants_and_what_they_trust_stay_when_fewer_are_asked_for(tmp_path: Path) -> None:
    ca = make("Stays", ca=True)
    with start_in_foreground(tmp_path, "--tenants", "3") as (process, line):
        before = credentials(running(tmp_path))
        assert line["tenants"] == [{"id": tenant, "user": "admin"} for tenant in ("t1001", "t1002", "t1003")]
        assert give(running(tmp_path), 2, ca) == 201
        process.terminate()
        assert process.wait(SECONDS) == 0
    for wanted, there in ((1, 3), (4, 4)):
        with started(tmp_path, tenants=wanted) as platform:
            known = credentials(platform)
            assert len(platform.tenant_ids) == len(known) == there
            assert {tenant: known[tenant] for tenant in before} == before
            (kept,) = tenant_call(platform, 2, "GET").json()["certificates"]
            assert kept["fingerprint"] == ca.fingerprint
            with device(platform, tmp_path, make("dev", ca)) as (_, seen):
                assert seen.connack == 0
            assert last_connection(platform, "dev")["tenant"] == "t1003"


def test_more_tenants_than_run_or_another_name_are_refused_in_a_sentence(platform: LocalPlatform) -> None:
    workspace = platform.folder.parent
    for fits in ({}, {"tenants": 1}, {"tenants": 3}, {"host": "127.0.0.1"}):
        assert LocalPlatform.start(workspace, **fits) == platform
    for differs in ({"tenants": 4}, {"host": "pump.example"}):
        with pytest.raises(OnboardingError, match=r"runs for 3 tenants as 127\.0\.0\.1: stop it first") as caught:
            LocalPlatform.start(workspace, **differs)
        assert caught.value.code == "OTHER_SETTINGS" and str(caught.value).endswith(".")
    assert LocalPlatform.running(workspace) == platform


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], ""),
        (["--tenants", "2"], ""),
        (["--tenants", "4"], "It runs already, as 127.0.0.1, with 3 tenants and the profile guide-2021."),
        (["--host", "127.0.0.2"], "It runs already, as 127.0.0.1"),
        (["--profile", "current"], "It runs already, as 127.0.0.1"),
    ],
)
def test_a_second_start_in_a_terminal_says_what_it_does_not_do(
    platform: LocalPlatform, options: list[str], said: str
) -> None:
    command = [sys.executable, "-m", "mciot_platform", "--workspace", str(platform.folder.parent), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0 and json.loads(done.stdout)["pid"] == platform.pid
    assert said in done.stderr and (f"stop process {platform.pid}" in done.stderr) == bool(said)


def listens_on(pid: int) -> set[str]:
    return {c.laddr.ip for c in psutil.Process(pid).net_connections("tcp") if c.status == psutil.CONN_LISTEN}


def own_name() -> str:
    """Return a name of this machine that others might use; there is no test without one."""
    for name in (socket.gethostname(), "localhost.localdomain"):
        with contextlib.suppress(OSError, UnicodeError):
            socket.getaddrinfo(name, None)
            if name not in ("localhost", "127.0.0.1"):
                return name
    pytest.skip("this machine's own name does not resolve here")


def verified(openssl: Run, platform: LocalPlatform, name: str) -> bool:
    """Whether openssl takes the HTTPS port under a name."""
    port, certificate = platform.https.rpartition(":")[2], platform.server_certificate
    arguments = ("s_client", "-brief", "-verify_return_error", "-CAfile", certificate, "-verify_hostname", name)
    done = openssl(*arguments, "-connect", f"localhost:{port}", check=False)
    assert ("Verification: OK" in done.stderr) == (done.returncode == 0), done.stderr
    return bool(done.returncode == 0)


def test_by_default_it_listens_on_the_loopback_and_says_nothing(tmp_path: Path, openssl: Run) -> None:
    with start_in_foreground(tmp_path) as (process, line):
        assert (line["mqtt"][0], line["https"].rpartition(":")[0]) == ("127.0.0.1", "https://127.0.0.1")
        assert listens_on(process.pid) == {"127.0.0.1"}
        assert verified(openssl, running(tmp_path), "localhost")
        assert not verified(openssl, running(tmp_path), "pump.example")
        process.terminate()
        assert process.stderr and process.stderr.read() == ""


def test_with_a_name_others_can_reach_and_verify_it(tmp_path: Path, openssl: Run) -> None:
    name, ca = own_name(), make("Root", ca=True)
    with start_in_foreground(tmp_path):
        assert not verified(openssl, running(tmp_path), name)  # the control
        before = running(tmp_path).server_certificate.read_bytes()
    with start_in_foreground(tmp_path, "--host", name) as (process, line):
        platform = running(tmp_path)
        assert platform.mqtt[0] == line["mqtt"][0] == name and line["https"].startswith(f"https://{name}:")
        assert listens_on(process.pid) <= {"0.0.0.0", "::"}
        assert platform.server_certificate.read_bytes() != before
        for known in (name, "localhost"):
            assert verified(openssl, platform, known)
        assert not verified(openssl, platform, "other.example")
        assert upload(platform, ca).status_code == 201  # requests, under that name
        with device(platform, tmp_path, make("dev", ca), host=name) as (_, seen):
            assert seen.connack == 0
        assert LocalPlatform.start(tmp_path) == LocalPlatform.start(tmp_path, host=name) == platform
        process.terminate()
        assert process.stderr
        (said,) = process.stderr.read().splitlines()
    ports = f"ports {line['mqtt'][1]} (MQTT) and {line['https'].rpartition(':')[2]} (HTTPS)"
    reached = f"Listening on every address of this machine, which others reach as {name}, {ports}: everyone on"
    assert said.startswith(reached)
    with start_in_foreground(tmp_path) as (process, _):  # the loopback again, with the certificate that others copied
        assert listens_on(process.pid) == {"127.0.0.1"}
        assert verified(openssl, running(tmp_path), name)


@pytest.mark.parametrize("host", ["0.0.0.0", "localhost"])
def test_an_address_that_stands_for_others_starts_and_is_found_again(tmp_path: Path, host: str) -> None:
    with started(tmp_path, host=host) as platform:
        assert ("0.0.0.0" in listens_on(platform.pid)) == (host == "0.0.0.0")
        assert rest(platform, "GET").ok
        assert LocalPlatform.start(tmp_path, host=host) == platform
        assert connected(platform).empty
        said = (platform.folder / "messages.txt").read_text()
        assert ("Give --host this machine's name" in said) == (host == "0.0.0.0")


def test_who_is_connected_and_who_has_gone(platform: LocalPlatform, tmp_path: Path) -> None:
    ca = make("Class", ca=True)
    assert give(platform, 2, ca) == 201
    with device(platform, tmp_path, make("here", ca), client_id="d:here") as (_, first):
        with device(platform, tmp_path, make("away", ca), client_id="away") as (_, second):
            assert first.connack == second.connack == 0
        wait_for(lambda: pd.notna(last_connection(platform, "away")["ended"]))
        here, away = last_connection(platform, "here"), last_connection(platform, "away")
        assert " ".join(connected(platform)) == "tenant device subject address tls time ended ending"
        assert (here["tenant"], here["device"], here["tls"]) == ("t1003", "here", "TLSv1.3")
        assert pd.isna(here["ended"]) and pd.isna(here["ending"])
        assert away["ending"] == "The client disconnected." and away["ended"] >= away["time"]
        with device(platform, tmp_path, make("here", ca), client_id="here") as (_, again):
            assert again.connack == 0 and first.gone.wait(SECONDS)
            table = connected(platform).query("subject == 'CN=here'")
            assert table["device"].tolist() == ["here"] and table["ended"].isna().all()  # its last one only
        with device(platform, tmp_path, make("here", ca), client_id="nobody") as (_, refused):
            assert refused.connack == 5
        assert "nobody" not in set(connected(platform)["device"])


def test_a_device_that_comes_back_is_the_same_and_uses_up_no_number(platform: LocalPlatform, tmp_path: Path) -> None:
    old, new = make("Before", ca=True), make("After", ca=True)
    assert give(platform, 0, old) == give(platform, 0, new) == 201
    for name, ca in (("again", old), ("again", old), ("again", new), ("next", new)):  # new: a renewed certificate
        with device(platform, tmp_path, make(name, ca), client_id=name) as (_, seen):
            assert seen.connack == 0
    first, second = platform.devices().query("device in ['again', 'next']").index
    assert second == first + 1
    assert len(connected(platform).query("device == 'again'")) == 1


def test_the_panel_follows_each_tenant_and_a_reset_begins_anew(tmp_path: Path) -> None:
    panel, ca, stranger = ClassPanel(tmp_path), make("Class", ca=True), make("pump", make("Nobody's", ca=True))
    assert (
        f"✗ No platform is running in {tmp_path}: start it" in panel._trouble.value
        and "no platform is running" in repr(panel)
    )
    with pytest.raises(OnboardingError, match="or name the folder of the one that runs") as caught:
        LocalPlatform.find(tmp_path)
    assert caught.value.code == "NOT_RUNNING"

    def shown(key: str = "t1002") -> list[str]:
        panel.poll()
        return next((texts for name, *texts in panel.table.rows if name == key), [])

    def refused(entity: Entity, name: str) -> None:
        with device(platform, tmp_path, entity, client_id=name) as (_, seen):
            assert seen.connack != 0

    for profile in ("current", "guide-2021"):
        with started(tmp_path, tenants=3, profile=profile) as platform:  # at another port: the panel finds it again
            assert shown()[:4] == ["t1002", "1 nothing yet", "0", "-"] and not panel._trouble.value
            before = log_length(platform)
            fetch_server_certificate(*platform.mqtt)  # no device: it looks at the server, thrice, and goes
            wait_for(lambda platform=platform, before=before: log_length(platform) == before + 3)
            assert not shown("from 127.0.0.1")
            refused(stranger, "pump")
            assert shown("from 127.0.0.1")[:2] == ["-", "from 127.0.0.1"]
            assert re.fullmatch(r"\d\d:\d\d:\d\d UNKNOWN_CA", shown("from 127.0.0.1")[4])
            panel.table.opened = "from 127.0.0.1"
            assert "Nobody&#x27;s" in panel._details.value and "mciot-hidden" in panel._reset._dom_classes
            assert give(platform, 1, ca) == 201 and shown()[1] == "2 CA uploaded"
            with device(platform, tmp_path, make("here", ca), client_id="here") as (client, seen):
                assert seen.connack == 0 and shown()[1:4] == ["3 device connected", "0", "here"]
                assert not shown("from 127.0.0.1"), "who gets in from there is no stranger any more"
                client.publish("s/us", "100,here,x\n200,T,T,1", 1).wait_for_publish(SECONDS)
                assert shown()[1:4] == ["4 measurement arrived", "1", "here"]
            wait_for(lambda: shown()[3] == "-")
            refused(make("here", ca), "somebody-else")
            assert (
                shown()[4].endswith(" CLIENT_ID_MISMATCH") and shown("t1001")[1] == shown("t1003")[1] == "1 nothing yet"
            )
            trusted = platform.tenants[1].trusted_certificates
            if profile == "current":
                trusted.revoke(make("here", ca).certificate)
                trusted.check_revocations()
            panel.table.opened = "t1002"
            assert "somebody-else" in panel._details.value and "mciot-hidden" not in panel._reset._dom_classes
            with device(platform, tmp_path, make("silent", ca), client_id="silent") as (_, seen):  # which sends no 100
                assert seen.connack == 0 and "silent" in [*platform.devices()["device"]]
            panel._reset.click()
            assert trusted.list(), "it asks first"
            panel._question.children[-2].click()
            panel.wait()
            assert "✓ t1002 starts afresh." in panel._message.value
            assert shown()[1:4] == ["1 nothing yet", "0", "-"] and platform.devices().empty
            assert not trusted.list() and not trusted.checks_revocations()
            assert re.search("t1002 +1 nothing yet +0 +- ", repr(panel))
        panel.table.opened = ""
        panel.poll()
        panel.table.opened = "t1002"  # its log can be read when it has ended
        assert "No platform is running" in panel._trouble.value and "somebody-else" in panel._details.value


def test_each_trainee_gets_a_sheet_and_no_password_is_printed(tmp_path: Path) -> None:
    with start_in_foreground(tmp_path, "--tenants", "2", "--profile", "current") as (process, line):
        known, sheets = credentials(running(tmp_path)), tmp_path / "sheets"
        texts = {path.stem: path.read_text("utf-8") for path in sheets.iterdir()}
        assert sorted(texts) == ["all", "t1001", "t1002"]
        assert {stat.S_IMODE(path.stat().st_mode) for path in sheets.iterdir()} <= {0o600, 0o666}  # the latter: Windows
        for tenant, login in known.items():
            other = next(known[one] for one in known if one != tenant)
            for part in (login["password"], line["https"], str(line["mqtt"][1]), f">{tenant}<", "BEGIN CERTIFICATE"):
                assert part in texts[tenant] and part in texts["all"], part
            assert other["password"] not in texts[tenant] and "$" not in texts[tenant]
            assert re.fullmatch(r"([a-z2-9]{4}-){3}[a-z2-9]{4}", login["password"])
        process.terminate()
        printed = json.dumps(line) + (process.stderr.read() if process.stderr else "")
    assert str(sheets) in printed and "nobody else can reach it, so for a class give --host" in printed
    assert not any(login["password"] in printed for login in known.values())


# Two machines ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def machines(request: pytest.FixtureRequest) -> Iterator[tuple[list[str], list[str]]]:
    """Begin the commands of a trainer's machine and of a trainee's, joined by a cable: two network namespaces.

    Without any, both are this machine, and the cable is another address of its loopback.
    """
    if request.param == "loopback":
        yield [], []
        return
    names = [f"mciot-{os.getpid()}-{who}" for who in ("trainer", "trainee")]
    cable = [part for name in names for part in ("peer", "name", "cable", "netns", name)][1:]
    setup = [["netns", "add", name] for name in names] + [["link", "add", *cable[:4], "type", "veth", *cable[4:]]]
    for name, address in zip(names, ("10.77.0.1/24", "10.77.0.2/24"), strict=True):
        setup += [
            ["-n", name, *words] for words in (["addr", "add", address, "dev", "cable"], ["link", "set", "lo", "up"])
        ]
        setup.append(["-n", name, "link", "set", "cable", "up"])
    hosts = [Path("/etc/netns", name, "hosts") for name in names]  # what `ip netns exec` shows as /etc/hosts
    try:
        for words in setup:
            if shutil.which("ip") is None or subprocess.run(["ip", *words], capture_output=True).returncode != 0:
                pytest.skip("no network namespaces can be made here: ip is missing, or we are not root")
        for path in hosts:
            path.parent.mkdir(parents=True)
            path.write_text("127.0.0.1 localhost\n10.77.0.1 trainer.example\n")
        trainer, trainee = (["ip", "netns", "exec", name] for name in names)
        yield trainer, trainee
    finally:
        for name, path in zip(names, hosts, strict=True):
            shutil.rmtree(path.parent, ignore_errors=True)
            if shutil.which("ip"):
                subprocess.run(["ip", "netns", "del", name], capture_output=True)


#: What a trainee does in 01 to 07, with quick keys.
TRAINEE = """
import getpass
from mciot_nb import Device, KeyChoice, KeyType, Workspace
from mciot_nb.connect.tenant import check_tenant
from mciot_nb.workspace import DEFAULTS

workspace, key = Workspace(), KeyChoice(KeyType.P256, 100)
workspace.create_ca(DEFAULTS["ca"], key)
workspace.create_device_request(DEFAULTS["device"], key)
tenant = workspace.tenant()
print(check_tenant(tenant))
workspace.catch_up("stores")
print(workspace.fetch_server_certificate().proof)
workspace.upload_ca(tenant)
with workspace.device(tenant) as device:
    device.publish("100,device-0001,x", "200,T,T,1")
stores = [workspace.device_file(f"device{name}store.jks") for name in ("Key", "Trust")]
with Device.from_keystores(*stores, workspace.passphrase, *tenant.mqtt) as device:
    device.publish("200,T,T,2")
getpass.getpass = lambda prompt: workspace.passphrase.reveal()
settings = workspace.client_settings(tenant)
exec(settings.paho)
print(settings.mosquitto_pub)
print(tenant.devices.measurements("device-0001")["value"].tolist())
"""


def has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


IPV6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


@pytest.mark.parametrize(
    ("machines", "host"),
    [
        ("namespaces", "trainer.example"),
        ("namespaces", "10.77.0.1"),
        ("loopback", "127.0.0.2"),
        pytest.param("loopback", "::1", marks=IPV6),
    ],
    indirect=["machines"],
)
def test_a_class_on_two_machines(machines: tuple[list[str], list[str]], host: str, tmp_path: Path) -> None:
    """As docs/class.md says: the trainee has the sheet, and nothing else of the trainer's."""
    trainer, trainee = machines
    with start_in_foreground(tmp_path / "class", "--tenants", "2", "--host", host, "--profile", "current", by=trainer):
        platform = running(tmp_path / "class")
        sheet = (tmp_path / "class" / "sheets" / "t1002.html").read_text("utf-8")
        values = dict(re.findall(r'<th scope="row">([^<]+)</th><td><code>([^<]+)</code>', sheet))
        names = {"URL": "URL", "TENANT": "Tenant ID", "MQTT_HOST": "MQTT host", "MQTT_PORT": "MQTT port"}
        names |= {"USER": "User", "PASSWORD": "Password"}
        proof, wrong = tmp_path / "serverCert.pem", tmp_path / "caCert.pem"
        proof.write_text(sheet.partition("<pre>")[2].partition("</pre>")[0])
        wrong.write_text(make("Another", ca=True).pem)

        def run(code: str, folder: str, **more: str) -> "subprocess.CompletedProcess[str]":
            environment = {f"MCIOT_{name}": values[label] for name, label in names.items()} | more
            environment = {**os.environ, "MCIOT_WORKSPACE": str(tmp_path / folder), **environment}
            line = [*trainee, sys.executable, "-c", code]
            return subprocess.run(line, capture_output=True, text=True, env=environment)

        if trainee:  # the control: it is another machine, whose loopback has no platform
            probe = "import socket; socket.create_connection(('127.0.0.1', {}), 5)"
            assert "refused" in run(probe.format(platform.mqtt[1]), "none").stderr
        assert "was not trusted" in run(TRAINEE, "untrusting").stdout
        assert f"{wrong} must hold this server's certificate" in run(TRAINEE, "wrong", MCIOT_CA_FILE=str(wrong)).stdout
        gone = run(TRAINEE, "gone", MCIOT_CA_FILE=str(tmp_path / "gone.pem"))
        assert f"The server certificate: There is no file {tmp_path / 'gone.pem'}: " in gone.stderr
        done = run(TRAINEE, "workspace", MCIOT_CA_FILE=str(proof))
        assert done.returncode == 0, done.stdout + done.stderr
        assert (
            "✓ reached, TLS verified, logged in as admin, may read and change trusted certificates, MQTT port"
            in done.stdout
        )
        assert f"the file {proof} trusts it for this host" in done.stdout and f"--cafile {proof}" in done.stdout
        assert "CONNACK: Success" in done.stdout and done.stdout.endswith("[1.0, 2.0, 21.5]\n")
        assert platform.progress()["step"].tolist() == ["1 nothing yet", "4 measurement arrived"]
        assert values["Password"] not in done.stdout + done.stderr


def test_the_tables_have_times_and_numbers(platform: LocalPlatform, tmp_path: Path) -> None:
    """Their contents are in test_smartrest.py and test_refusals.py."""
    ca = make("Tables", ca=True)
    assert give(platform, 0, ca) == 201
    with device(platform, tmp_path, make("table", ca), client_id="table") as (client, _):
        client.publish("s/us", "100,Pump\n301,c8y_Hot,too hot,2026-01-02T03:04:05+01:00", 1).wait_for_publish(SECONDS)
        number = platform.devices().query("device == 'table'").index[0]
        body = {"deviceId": str(number), "c8y_Command": {"text": "look, there"}, "description": "Look"}
        assert rest(platform, "POST", "/devicecontrol/operations", json=body).status_code == 201
    (operation,) = (
        platform.operations().query("device == 'table'").drop(columns=["time", "fragments"]).to_dict("records")
    )
    expected = ["t1001", "table", "c8y_Command", "look, there", "Look", "PENDING", ""]
    assert list(operation.values()) == expected
    for frame in (platform.alarms(), platform.operations(), platform.log(), connected(platform)):
        for column in {"time", "received", "ended"} & set(frame.columns):
            assert isinstance(frame[column].dtype, pd.DatetimeTZDtype), column
        assert len(frame) and frame.index.name == "id" and frame.index.is_unique
