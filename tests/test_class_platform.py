"""One platform for a class: tenants that know nothing of each other, a name by which others reach it, its tables."""

import contextlib
import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
import requests
from conftest import Run
from platform_tools import Entity, command, device, make, rest, start_in_foreground, upload, wait_for

from mciot_nb.errors import OnboardingError
from mciot_nb.local_platform import LocalPlatform


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPlatform]:
    platform = LocalPlatform.start(tmp_path_factory.mktemp("class"), tenants=3)
    yield platform
    platform.stop()


def running(folder: Path) -> LocalPlatform:
    found = LocalPlatform.running(folder)
    assert found
    return found


def credentials(platform: LocalPlatform) -> dict[str, dict[str, Any]]:
    known: dict[str, dict[str, Any]] = json.loads((platform.folder / "credentials.json").read_text())
    return known


def call(
    platform: LocalPlatform, tenant: str, method: str, *, login: tuple[str, str] | None = None, **body: Any
) -> requests.Response:
    """Call a tenant's list of trusted certificates as its administrator, or with another login."""
    login = login or (f"{tenant}/admin", credentials(platform)[tenant]["password"])
    path = f"/tenant/tenants/{tenant}/trusted-certificates"
    return rest(platform, method, path, auth=login, **({"json": body} if body else {}))


def trusted(platform: LocalPlatform, tenant: str) -> list[str]:
    return [certificate["fingerprint"] for certificate in call(platform, tenant, "GET").json()["certificates"]]


def give(platform: LocalPlatform, tenant: str, ca: Entity) -> int:
    body = {"certInPemFormat": ca.pem, "status": "ENABLED", "name": tenant, "autoRegistrationEnabled": True}
    return call(platform, tenant, "POST", **body).status_code


def last_connection(platform: LocalPlatform, name: str) -> "pd.Series[Any]":
    table = platform.connected()
    return table[table["subject"] == f"CN={name}"].iloc[-1]


def test_each_tenant_has_a_login_that_no_other_takes(platform: LocalPlatform) -> None:
    known = credentials(platform)
    assert list(known) == list(platform.tenant_ids) == ["t1001", "t1002", "t1003"]
    passwords = [login["password"] for tenant in known.values() for login in (tenant, *tenant["others"])]
    assert len(set(passwords)) == len(passwords) == 6
    for tenant in known:
        assert call(platform, tenant, "GET").status_code == 200
        for other in known.keys() - {tenant}:
            for user in (f"{tenant}/admin", f"{other}/admin", "admin"):
                status = call(platform, other, "GET", login=(user, known[tenant]["password"])).status_code
                assert status == (401 if user == f"{other}/admin" else 404)
        (viewer,) = known[tenant]["others"]
        assert call(platform, tenant, "GET", login=(f"{tenant}/viewer", viewer["password"])).status_code == 403
    assert [tenant.tenant_id for tenant in platform.tenants] == list(known)


def test_each_tenant_has_a_list_of_its_own_and_no_ca_is_two_tenants(platform: LocalPlatform) -> None:
    first, second = make("First", ca=True), make("Second", ca=True)
    assert give(platform, "t1001", first) == give(platform, "t1002", second) == 201
    assert give(platform, "t1002", first) == give(platform, "t1001", first) == 409
    assert first.fingerprint in trusted(platform, "t1001") and first.fingerprint not in trusted(platform, "t1002")
    assert second.fingerprint in trusted(platform, "t1002") and second.fingerprint not in trusted(platform, "t1001")
    assert trusted(platform, "t1003") == []
    with pytest.raises(OnboardingError) as caught:
        platform.tenants[1].trusted_certificates.upload(first.certificate)
    assert caught.value.code == "HTTP_409"
    path = f"/tenant/tenants/t1001/trusted-certificates/{first.fingerprint}"
    stranger = ("t1002/admin", credentials(platform)["t1002"]["password"])
    assert rest(platform, "DELETE", path, auth=stranger).status_code == 404
    assert rest(platform, "DELETE", path).status_code == 204
    assert give(platform, "t1002", first) == 201  # who has given it up


def test_a_device_lands_in_the_tenant_of_its_ca(platform: LocalPlatform, tmp_path: Path) -> None:
    cas = {tenant: make(f"CA of {tenant}", ca=True) for tenant in ("t1002", "t1003")}
    for tenant, ca in cas.items():
        assert give(platform, tenant, ca) == 201
    for value, (tenant, ca) in enumerate(cas.items()):  # devices of one name, that know nothing of each other
        with device(platform, tmp_path, make("twin", ca), client_id="twin") as (client, seen):
            assert seen.connack == 0
            client.publish("s/us", f"100,{tenant},c8y_Pump\n200,c8y_P,p,{value}", qos=1).wait_for_publish(5)
    found = platform.devices().query("device == 'twin'")
    assert found[["tenant", "name"]].values.tolist() == [["t1002", "t1002"], ["t1003", "t1003"]]
    measured = platform.measurements().query("device == 'twin'")
    assert measured[["tenant", "value"]].values.tolist() == [["t1002", 0.0], ["t1003", 1.0]]
    with device(platform, tmp_path, make("twin", make("CA of t1002", ca=True)), client_id="twin") as (_, seen):
        assert seen.connack is None  # the control: a CA of that name, that no tenant has


def test_devices_of_one_name_in_two_tenants_are_there_at_once(platform: LocalPlatform, tmp_path: Path) -> None:
    first, second = make("Left", ca=True), make("Right", ca=True)
    assert give(platform, "t1001", first) == give(platform, "t1002", second) == 201
    with (
        device(platform, tmp_path, make("both", first), client_id="both") as (_, one),
        device(platform, tmp_path, make("both", second), client_id="both") as (_, other),
    ):
        assert one.connack == other.connack == 0
        there = platform.connected().query("device == 'both'")
        assert there["tenant"].tolist() == ["t1001", "t1002"] and there["ended"].isna().all()
        with device(platform, tmp_path, make("both", first), client_id="both") as (_, third):  # the control
            assert third.connack == 0 and one.gone.wait(5) and not other.gone.is_set()


def test_tenants_and_what_they_trust_stay_when_fewer_are_asked_for(tmp_path: Path) -> None:
    ca = make("Stays", ca=True)
    with start_in_foreground(tmp_path, "--tenants", "3") as (process, line):
        before = credentials(running(tmp_path))
        assert line["tenants"] == [{"id": tenant, "user": "admin"} for tenant in ("t1001", "t1002", "t1003")]
        assert give(running(tmp_path), "t1003", ca) == 201
        process.terminate()
        assert process.wait(10) == 0
    for wanted, there in ((1, 3), (4, 4)):
        platform = LocalPlatform.start(tmp_path, tenants=wanted)
        try:
            known = credentials(platform)
            assert len(platform.tenant_ids) == len(known) == there
            assert {tenant: known[tenant] for tenant in before} == before
            assert trusted(platform, "t1003") == [ca.fingerprint]
            with device(platform, tmp_path, make("dev", ca)) as (_, seen):
                assert seen.connack == 0
            assert last_connection(platform, "dev")["tenant"] == "t1003"
        finally:
            platform.stop()


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
    ("options", "sentence"),
    [
        (("--tenants", "0"), "There can't be 0 tenants: give --tenants a number from 1 to 1000."),
        (("--tenants", "-1"), "There can't be -1 tenants: give --tenants a number from 1 to 1000."),
        (("--tenants", "1001"), "There can't be 1001 tenants: give --tenants a number from 1 to 1000."),
        (("--host", "no-such-host.invalid"), "'no-such-host.invalid' can't be listened on: give --host"),
        (("--host", "192.0.2.1"), "'192.0.2.1' can't be listened on: give --host"),
    ],
)
def test_what_can_not_be_is_one_sentence_and_leaves_nothing_behind(
    tmp_path: Path, options: tuple[str, str], sentence: str
) -> None:
    done = subprocess.run(command(tmp_path, *options), capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1), done.stderr
    assert sentence in done.stderr and done.stderr.endswith(".\n")
    assert LocalPlatform.running(tmp_path) is None
    settings = {"tenants": int(options[1])} if options[0] == "--tenants" else {"host": options[1]}
    with pytest.raises(OnboardingError) as caught:
        LocalPlatform.start(tmp_path, **settings)  # type: ignore[arg-type]
    assert caught.value.code == "PLATFORM_DID_NOT_START" and sentence in str(caught.value)
    with start_in_foreground(tmp_path):  # the control
        assert running(tmp_path).tenant_ids == ("t1001",)


def listens_on(pid: int) -> set[str]:
    return {c.laddr.ip for c in psutil.Process(pid).net_connections("tcp") if c.status == psutil.CONN_LISTEN}


def own_name() -> str:
    """Give a name of this machine that others might use; there is no test without one."""
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
    assert said.startswith(f"Listening on {name}: everybody on the network can reach this platform now.")
    with start_in_foreground(tmp_path) as (process, _):  # the loopback again, with the certificate that others copied
        assert listens_on(process.pid) == {"127.0.0.1"}
        assert verified(openssl, running(tmp_path), name)


@pytest.mark.parametrize("host", ["0.0.0.0", "localhost"])
def test_an_address_that_stands_for_others_starts_and_is_found_again(tmp_path: Path, host: str) -> None:
    try:
        platform = LocalPlatform.start(tmp_path, host=host)
        assert ("0.0.0.0" in listens_on(platform.pid)) == (host == "0.0.0.0")
        assert rest(platform, "GET").ok
        assert LocalPlatform.start(tmp_path, host=host) == platform
        assert platform.connected().empty
        said = (platform.folder / "messages.txt").read_text()
        assert ("Give --host this machine's name" in said) == (host == "0.0.0.0")
    finally:
        running(tmp_path).stop()


def test_who_is_connected_and_who_has_gone(platform: LocalPlatform, tmp_path: Path) -> None:
    ca = make("Class", ca=True)
    assert give(platform, "t1003", ca) == 201
    with device(platform, tmp_path, make("here", ca), client_id="d:here") as (_, first):
        with device(platform, tmp_path, make("away", ca), client_id="away") as (_, second):
            assert first.connack == second.connack == 0
        wait_for(lambda: pd.notna(last_connection(platform, "away")["ended"]))
        here, away = last_connection(platform, "here"), last_connection(platform, "away")
        assert list(platform.connected()) == [
            *("tenant", "device", "subject", "address", "tls", "time", "ended", "ending"),
        ]
        assert (here["tenant"], here["device"], here["tls"]) == ("t1003", "here", "TLSv1.3")
        assert pd.isna(here["ended"]) and pd.isna(here["ending"])
        assert away["ending"] == "The client disconnected." and away["ended"] >= away["time"]
        with device(platform, tmp_path, make("here", ca), client_id="here") as (_, again):
            assert again.connack == 0 and first.gone.wait(5)
            table = platform.connected().query("subject == 'CN=here'")
            assert table["device"].tolist() == ["here"] and table["ended"].isna().all()  # its last one only
        with device(platform, tmp_path, make("here", ca), client_id="nobody") as (_, refused):
            assert refused.connack == 5
        assert "nobody" not in set(platform.connected()["device"])


def test_a_device_with_a_renewed_certificate_is_one_device(platform: LocalPlatform, tmp_path: Path) -> None:
    old, new = make("Before", ca=True), make("After", ca=True)
    assert give(platform, "t1001", old) == give(platform, "t1001", new) == 201
    for ca in (old, new):
        with device(platform, tmp_path, make("renewed", ca), client_id="renewed") as (_, seen):
            assert seen.connack == 0
    assert len(platform.connected().query("device == 'renewed'")) == 1
    assert len(platform.devices().query("device == 'renewed'")) == 1


def test_a_device_that_comes_back_uses_up_no_number(platform: LocalPlatform, tmp_path: Path) -> None:
    ca = make("Again", ca=True)
    assert give(platform, "t1001", ca) == 201
    for name in ("again", "again", "again", "next"):
        with device(platform, tmp_path, make(name, ca), client_id=name) as (_, seen):
            assert seen.connack == 0
    first, second = platform.devices().query("device in ['again', 'next']").index
    assert second == first + 1


def test_the_tables_of_alarms_operations_and_attempts(platform: LocalPlatform, tmp_path: Path) -> None:
    ca = make("Tables", ca=True)
    assert give(platform, "t1001", ca) == 201
    with device(platform, tmp_path, make("table", ca), client_id="table") as (client, seen):
        client.publish("s/us", "100,Pump\n301,c8y_Hot,too hot,2026-01-02T03:04:05+01:00", qos=1).wait_for_publish(5)
        client.publish("s/us", "302,c8y_Hot,still\n304,c8y_Low\n306,c8y_Low", qos=1).wait_for_publish(5)
        number = platform.devices().query("device == 'table'").index[0]
        body = {"deviceId": str(number), "c8y_Command": {"text": "look, there"}, "description": "Look"}
        assert rest(platform, "POST", "/devicecontrol/operations", json=body).status_code == 201
        client.publish("s/us", '502,c8y_Command,"no, I won\'t"', qos=1).wait_for_publish(5)
    alarms = platform.alarms().query("device == 'table'")
    assert alarms[["tenant", "type", "text", "severity", "status", "count"]].values.tolist() == [
        ["t1001", "c8y_Hot", "still", "MAJOR", "ACTIVE", 2],
        ["t1001", "c8y_Low", "Alarm of type c8y_Low raised", "WARNING", "CLEARED", 1],
    ]
    operations = platform.operations().query("device == 'table'")
    assert operations[["tenant", "fragment", "text", "description", "status", "reason"]].values.tolist() == [
        ["t1001", "c8y_Command", "look, there", "Look", "FAILED", "no, I won't"]
    ]
    before = len(platform.log())
    with device(platform, tmp_path, make("table", make("Stranger", ca=True)), client_id="table") as (_, seen):
        assert seen.connack is None
    log = wait_for(lambda: platform.log().iloc[before:].to_dict("records"))[0]
    assert (log["tenant"], log["subject"], log["code"], log["tls"]) == ("", "CN=table", "UNKNOWN_CA", "TLSv1.3")
    assert log["chain"] and log["chain"][0].startswith("CN=table (serial number ") and pd.isna(log["ended"])
    for frame, *times in (
        (platform.alarms(), "time", "received"),
        (platform.operations(), "time"),
        (platform.log(), "time", "ended"),
        (platform.connected(), "time", "ended"),
    ):
        for column in times:
            assert isinstance(frame[column].dtype, pd.DatetimeTZDtype), column
        assert frame.index.name == "id" and frame.index.is_unique
