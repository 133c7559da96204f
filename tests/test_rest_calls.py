"""The calls of the platform's REST interface that test_platform.py leaves out, in both profiles."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Run
from cryptography.hazmat.primitives import serialization
from platform_tools import Entity, device, make, rest, upload

from mciot_nb.platform.launcher import LocalPlatform

CRL = "/tenant/trusted-certificates/settings/crl"
TOKEN = "/devicecontrol/deviceAccessToken"


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPlatform]:
    platform = LocalPlatform.start(tmp_path_factory.mktemp("workspace"), "current")
    yield platform
    platform.stop()


@pytest.fixture(scope="module")
def root(platform: LocalPlatform) -> Entity:
    root = make("Root", ca=True)
    assert upload(platform, root).status_code == 201
    return root


def viewer(platform: LocalPlatform) -> tuple[str, str]:
    """Give the login of the user without a role."""
    known = json.loads((platform.folder / "credentials.json").read_text())[platform.tenant_id]["others"][0]
    return f"{platform.tenant_id}/{known['user']}", known["password"]


def with_key(entity: Entity, file: Path) -> str:
    """Write a certificate and its key as requests wants them."""
    key = entity.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(key + entity.pem.encode())
    return str(file)


def revocations(platform: LocalPlatform, openssl: Run, file: Path) -> str:
    """Give the list of what is revoked, as openssl reads it."""
    answer = rest(platform, "GET", CRL)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/pkix-crl")
    file.write_bytes(answer.content)
    return openssl("crl", "-inform", "DER", "-in", file, "-noout", "-text").stdout


@pytest.mark.parametrize("kind", ["JSON", "CSV"])
def test_no_date_that_was_taken_spoils_the_revocation_list(
    platform: LocalPlatform, openssl: Run, tmp_path: Path, kind: str
) -> None:
    def revoke(serial: str, date: str) -> int:
        options: dict[str, Any] = {"json": {"crls": [{"serialNumberInHex": serial, "revocationDate": date}]}}
        if kind == "CSV":
            options = {"files": {"file": ("crl.csv", f"SERIAL NO.,REVOCATION DATE\n{serial},{date}\n")}}
        return rest(platform, "PUT", CRL, **options).status_code

    good, bad = ("A1", "A2") if kind == "JSON" else ("B1", "B2")
    assert revoke(good, "1950-01-01T00:00:00.000Z") == 204  # the control: the earliest date there can be
    assert f"Serial Number: {good}" in revocations(platform, openssl, tmp_path / "crl.der")
    assert revoke(bad, "1950-01-01T00:00:00+14:00") == 400  # in UTC it is 1949
    assert f"Serial Number: {bad}" not in revocations(platform, openssl, tmp_path / "crl.der")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "", "GET, POST"),
        ("PATCH", "/devicecontrol/operations", "GET, POST"),
        ("POST", "/inventory/managedObjects", "GET"),
        ("POST", "/measurement/measurements", "GET"),
        ("POST", "/event/events", "GET"),
        ("POST", "/alarm/alarms", "GET"),
    ],
)
def test_a_method_that_is_not_there_is_told_which_are(
    platform: LocalPlatform, method: str, path: str, allowed: str
) -> None:
    answer = rest(platform, method, path)
    assert (answer.status_code, answer.headers["Allow"]) == (405, allowed)
    assert rest(platform, "GET", path).status_code == 200  # the control


@pytest.mark.parametrize(
    ("method", "headers", "status"), [("GET", {}, 405), ("PUT", {}, 405), ("POST", {"Accept": "text/plain"}, 406)]
)
def test_the_log_names_no_token_that_was_not_given(
    platform: LocalPlatform, root: Entity, tmp_path: Path, method: str, headers: dict[str, str], status: int
) -> None:
    name = f"{method}-{status}"
    options: dict[str, Any] = {"auth": None, "cert": with_key(make(name, root), tmp_path / "device.pem")}
    assert rest(platform, method, TOKEN, headers=headers, **options).status_code == status
    assert "TOKEN" not in set(platform.log().query(f"client_id == '{name}'")["code"])
    assert name not in set(platform.devices()["device"])
    answer = rest(platform, "POST", TOKEN, **options)  # the control
    assert answer.status_code == 200 and answer.json()["access_token"]
    assert list(platform.log().query(f"client_id == '{name}'")["code"]) == ["TOKEN"]
    assert name in set(platform.devices()["device"])


def test_who_has_no_role_may_look_and_change_nothing(platform: LocalPlatform, root: Entity, tmp_path: Path) -> None:
    with device(platform, tmp_path, make("seen", root), client_id="seen") as (client, _):
        client.publish("s/us", "100,Seen,c8y_Seen", qos=1).wait_for_publish(5)
    number = rest(platform, "GET", "/identity/externalIds/c8y_Serial/seen").json()["managedObject"]["id"]
    path, login = f"/inventory/managedObjects/{number}", viewer(platform)
    operation = {"deviceId": number, "c8y_Restart": {}}
    assert rest(platform, "GET", path, auth=login).json()["name"] == "Seen"
    assert rest(platform, "POST", "/devicecontrol/operations", json=operation, auth=login).status_code == 403
    assert rest(platform, "DELETE", path, auth=login).status_code == 403
    assert rest(platform, "GET", "", auth=login).status_code == 403
    assert rest(platform, "POST", "/devicecontrol/operations", json=operation).status_code == 201  # the control
    assert rest(platform, "DELETE", path).status_code == 204


def test_an_empty_accept_is_none(platform: LocalPlatform) -> None:
    assert rest(platform, "GET", headers={"Accept": "text/plain"}).status_code == 406  # the control
    assert rest(platform, "GET", headers={"Accept": ""}).status_code == 200
