"""The calls of the platform's REST interface that test_platform.py leaves out, in both profiles."""

import base64
import contextlib
import json
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests
from conftest import Run, run
from cryptography.hazmat.primitives import serialization
from platform_tools import DAY, Entity, device, make, password, rest, upload, wait_for

from mciot_nb.local_platform import LocalPlatform
from mciot_nb.pki.authority import CertificateAuthority
from mciot_platform.storage import timestamp

CRL = "/tenant/trusted-certificates/settings/crl"
TOKEN = "/devicecontrol/deviceAccessToken"
VERIFY = "/tenant/trusted-certificates/verify-cert-chain"
ERROR = "application/vnd.com.nsn.cumulocity.error+json"
PROOF_ERRORS = {400: "tenants/Bad Request", 422: "tenants/Unprocessable Entity"}
NOBODY: dict[str, Any] = {"auth": None}


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPlatform]:
    platform = LocalPlatform.start(tmp_path_factory.mktemp("workspace"), "current", tenants=2)
    yield platform
    platform.stop()


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPlatform]:
    """A platform of the guide's time."""
    platform = LocalPlatform.start(tmp_path_factory.mktemp("old"), tenants=2)
    yield platform
    platform.stop()


@pytest.fixture(params=["platform", "old"], ids=["current", "guide-2021"])
def either(request: pytest.FixtureRequest) -> LocalPlatform:
    found: LocalPlatform = request.getfixturevalue(request.param)
    return found


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


def other_tenant(platform: LocalPlatform) -> tuple[str, str]:
    """Give the login of the second tenant's administrator."""
    tenant = platform.tenants[1].tenant_id
    known = json.loads((platform.folder / "credentials.json").read_text())[tenant]
    return f"{tenant}/{known['user']}", known["password"]


def trusted(platform: LocalPlatform, which: Entity | str = "", call: str = "", tenant: str = "") -> str:
    """Give the path of the trusted certificates, of one of them, or of a ``call`` for proof of possession."""
    identifier = which.fingerprint if isinstance(which, Entity) else which
    below = "/".join(filter(None, [f"trusted-certificates{'-pop' if call else ''}", identifier, call]))
    return f"/tenant/tenants/{tenant or platform.tenant_id}/{below}"


def body(entity: Entity, **fields: Any) -> dict[str, Any]:
    return {"certInPemFormat": entity.pem, "status": "ENABLED", "autoRegistrationEnabled": True, **fields}


def bulk(platform: LocalPlatform, *certificates: object, **options: Any) -> requests.Response:
    return rest(platform, "POST", "bulk", json={"certificates": certificates}, **options)


def is_known(platform: LocalPlatform, entity: Entity) -> bool:
    status = rest(platform, "GET", entity.fingerprint).status_code
    assert status in (200, 404)
    return status == 200


def device_login(platform: LocalPlatform, folder: Path, entity: Entity, name: str) -> dict[str, Any]:
    """Make the device, and give the options of a call with the token that it was sent over MQTT."""
    with device(platform, folder, entity, client_id=name) as (client, seen):
        client.publish("s/us", f"100,{name},c8y_Test", qos=1).wait_for_publish(5)
        client.subscribe("s/dat", 1)
        client.publish("s/uat", "", qos=1)
        ((_, answer),) = wait_for(lambda: seen.messages)
    return {"auth": None, "headers": {"Authorization": f"Bearer {answer.removeprefix('71,')}"}}


def chain_file(*chain: Entity) -> dict[str, Any]:
    return {"files": {"file": ("chain.pem", "".join(link.pem for link in chain))}}


def curl(platform: LocalPlatform, *config: str) -> tuple[int, int, str]:
    """Call curl, its secrets on stdin, and give its exit code, the status, and what it got or has to say."""
    lines = [f'cacert = "{platform.server_certificate}"', 'noproxy = "*"', r'write-out = "\n%{http_code}"', *config]
    done = run("curl", "-q", "--silent", "--show-error", "--config", "-", input="\n".join(lines), check=False)
    content, _, status = done.stdout.rpartition("\n")
    return done.returncode, int(status), content or done.stderr


@pytest.mark.parametrize(("flag", "connack"), [("true", 0), ("false", 5)])
def test_the_guides_upload_with_curl_is_taken(
    either: LocalPlatform, openssl: Run, tmp_path: Path, flag: str, connack: int
) -> None:
    ca = make("Guide's CA", ca=True)
    (tmp_path / "caCert.pem").write_text(ca.pem)
    shown = openssl("x509", "-in", tmp_path / "caCert.pem", "-text").stdout
    pem = shown[shown.index("-----BEGIN") :].replace("\n", "")
    template = """{
    "status" :  "ENABLED",
    "name" : "certificateName",
    "autoRegistrationEnabled" : "%s",
    "certInPemFormat" : "%s"
}"""
    (tmp_path / "body.json").write_text(template % (flag, pem))

    def post(login: str) -> tuple[int, int, str]:
        authentication = base64.b64encode(login.encode()).decode()
        headers = (f'header = "Authorization: Basic {authentication}"', 'header = "Content-Type: application/json"')
        url = either.https + trusted(either)
        return curl(either, f'url = "{url}"', *headers, f'data-binary = "@{tmp_path / "body.json"}"')

    for login, status in ((f"{either.tenant_id}/admin:wrong", 401), (":".join(viewer(either)), 403)):
        assert post(login)[:2] == (0, status)
    assert not is_known(either, ca)
    _, status, answer = post(f"{either.tenant_id}/{either.tenant.user}:{password(either)}")
    created = json.loads(answer)
    assert (status, created["name"], created["status"]) == (201, "certificateName", "ENABLED")
    assert created["autoRegistrationEnabled"] is (flag == "true")
    name = f"curl-{flag}"
    with device(either, tmp_path, make(name, ca), client_id=name) as (_, seen):
        assert seen.connack == connack
    assert rest(either, "DELETE", ca.fingerprint).status_code == 204


def test_several_are_added_at_once_or_none_is(either: LocalPlatform) -> None:
    cas = [make(f"Bulk {number}", ca=True) for number in range(4)]
    first, second, third, fourth = cas
    answer = bulk(either, body(first, name="one"), body(second, name="two", autoRegistrationEnabled="false"))
    assert answer.status_code == 201
    added = answer.json()["certificates"]
    assert [certificate["name"] for certificate in added] == ["one", "two"]
    assert [certificate["autoRegistrationEnabled"] for certificate in added] == [True, False]
    assert [rest(either, "GET", ca.fingerprint).json() for ca in (first, second)] == added
    refused: list[tuple[int, tuple[object, ...]]] = [
        (409, (body(third), body(first))),
        (409, (body(third), body(third, name="again"))),
        (422, (body(third), body(make("leaf")))),
        (422, (body(third), body(fourth, status="MAYBE"))),
        (422, (body(third), {"certInPemFormat": fourth.pem})),  # the status is missing
        (422, (body(third), "text")),
    ]
    for status, certificates in refused:
        answer = bulk(either, *certificates)
        assert (answer.status_code, answer.headers["Content-Type"]) == (status, ERROR), certificates
        assert not is_known(either, third) and not is_known(either, fourth)
    for wrong in ({}, {"certificates": body(third)}, {"certificates": None}):
        assert rest(either, "POST", "bulk", json=wrong).status_code == 422
    silent = bulk(either, body(third), body(fourth), headers={"Accept": None})  # the control
    assert (silent.status_code, silent.content) == (201, b"")
    assert is_known(either, third) and is_known(either, fourth)


def test_only_administrators_manage_what_is_trusted(either: LocalPlatform, tmp_path: Path) -> None:
    ca, added, several = make("Managed", ca=True), make("Added", ca=True), make("Several", ca=True)
    assert upload(either, ca).status_code == 201
    leaf = make("manages", ca)
    by_token = device_login(either, tmp_path, leaf, "manages")
    calls: list[tuple[str, str, dict[str, Any], int]] = [
        ("GET", trusted(either), {}, 200),
        ("GET", trusted(either, ca), {}, 200),
        ("PUT", trusted(either, ca), {"json": {"name": "changed"}}, 200),
        ("POST", trusted(either), {"json": body(added)}, 201),
        ("POST", trusted(either, "bulk"), {"json": {"certificates": [body(several)]}}, 201),
        ("POST", VERIFY, chain_file(leaf, ca), 200),
        ("DELETE", trusted(either, ca), {}, 204),
    ]
    if either.profile == "current":
        calls[-1:-1] = [
            ("POST", trusted(either, ca, "verification-code"), {}, 200),
            ("POST", trusted(either, ca, "pop"), {"json": {}}, 422),  # let in, and then told what is missing
            ("PUT", CRL, {"json": {"crls": [{"serialNumberInHex": "ABCDEF"}]}}, 204),
        ]
    before = rest(either, "GET", ca.fingerprint).json()
    for method, path, options, _ in calls:
        for login, status in (({"auth": viewer(either)}, 403), (by_token, 403), (NOBODY, 401)):
            answer = rest(either, method, path, **options, **login)
            assert (answer.status_code, answer.headers["Content-Type"]) == (status, ERROR), (method, path)
        if "/tenants/" in path:
            assert rest(either, method, path, **options, auth=other_tenant(either)).status_code == 404
    assert rest(either, "GET", ca.fingerprint).json() == before
    assert not is_known(either, added) and not is_known(either, several)
    for method, path, options, status in calls:  # the control
        assert rest(either, method, path, **options).status_code == status, (method, path)


def test_who_is_not_let_in_is_told_how_to_log_in(either: LocalPlatform) -> None:
    for login, status in (({"auth": None}, 401), ({"auth": ("admin", "wrong")}, 401), ({"auth": viewer(either)}, 403)):
        answer = rest(either, "GET", **login)
        assert answer.status_code == status
        # RFC 9110, section 11.6.1: a 401 must say so, and a browser asks for the password only then
        assert answer.headers.get("WWW-Authenticate", "").startswith("Basic realm=") == (status == 401)


def test_the_current_tenant_is_everybodys_own(either: LocalPlatform, tmp_path: Path) -> None:
    ca, path = make("Tenant's", ca=True), "/tenant/currentTenant"
    assert upload(either, ca).status_code == 201
    logins: list[dict[str, Any]] = [{}, {"auth": viewer(either)}]
    for login in (*logins, device_login(either, tmp_path, make("asks", ca), "asks")):
        assert rest(either, "GET", path, **login).json()["name"] == either.tenant_id
    assert rest(either, "GET", path, auth=other_tenant(either)).json()["name"] == either.tenants[1].tenant_id
    assert rest(either, "GET", path, **NOBODY).status_code == 401
    for flag, has_parent in (("true", True), ("false", False), (None, False)):
        assert ("parent" in rest(either, "GET", path, params={"withParent": flag}).json()) == has_parent


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/xml"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Accept": "text/plain"}, 406),
        ({"Accept": "text/html, image/*"}, 406),
        ({"Content-Type": "application/json; charset=UTF-8"}, 201),
        ({"Content-Type": "application/vnd.example+json", "Accept": "application/vnd.example+json"}, 201),
        ({"Accept": "text/html, application/json;q=0.5"}, 201),
    ],
)
def test_what_is_sent_and_wanted_must_be_json(either: LocalPlatform, headers: dict[str, str], status: int) -> None:
    ca = make("Media", ca=True)
    assert rest(either, "POST", data=json.dumps(body(ca)), headers=headers).status_code == status
    assert is_known(either, ca) == (status == 201)


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("", "GET, POST"),
        ("bulk", "POST"),
        ("0" * 40, "GET, PUT, DELETE"),
        ("/tenant/currentTenant", "GET"),
        (VERIFY, "POST"),
        (CRL, "GET, PUT"),
        (TOKEN, "POST"),
        ("/identity/externalIds/c8y_Serial/x", "GET"),
        ("/inventory/managedObjects/7", "GET, DELETE"),
        ("/devicecontrol/operations/7", "GET"),
    ],
)
def test_each_call_has_its_methods(platform: LocalPlatform, path: str, allowed: str) -> None:
    for method in {"GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"}:
        answer = rest(platform, method, path)
        assert (answer.status_code == 405) == (method not in allowed.split(", ")), method
        assert answer.headers.get("Allow") == (allowed if answer.status_code == 405 else None)
        assert answer.status_code < 500


def test_a_platform_of_the_guides_time_has_none_of_the_later_calls(platform: LocalPlatform, old: LocalPlatform) -> None:
    ca = make("Of both times", ca=True)
    calls = [("POST", "verification-code"), ("POST", "pop"), ("GET", CRL), ("PUT", CRL), ("POST", TOKEN)]
    for each in (platform, old):
        created = upload(each, ca).json()
        assert ("proofOfPossessionValid" in created) == (each is platform)
        for method, call in calls:
            path = call if call.startswith("/") else trusted(each, ca, call)
            answer = rest(each, method, path, json={})
            assert (answer.status_code == 404) == (each is old), path


@pytest.mark.parametrize("kind", ["RSA", "EC"])
def test_possession_is_proven_with_openssl_as_documented(
    platform: LocalPlatform, openssl: Run, shared_ca: CertificateAuthority, tmp_path: Path, kind: str
) -> None:
    ca, other = make("Proven", ca=True), make("Other", ca=True)
    with_key(ca, key := tmp_path / "ca.pem")
    with_key(other, wrong_key := tmp_path / "other.pem")
    if kind == "RSA":  # the notebooks' own CA, whose key has a passphrase
        ca, key = Entity(shared_ca.certificate, ca.key, ()), shared_ca.folder / "caKey.pem"
    assert upload(platform, ca).json()["proofOfPossessionValid"] is False

    def new_code() -> str:
        answer = rest(platform, "POST", trusted(platform, ca, "verification-code"))
        until = datetime.fromisoformat(answer.json()["proofOfPossessionVerificationCodeUsableUntil"])
        assert answer.status_code == 200 and until > datetime.now(UTC)
        code: str = answer.json()["proofOfPossessionUnsignedVerificationCode"]
        assert rest(platform, "GET", ca.fingerprint).json()["proofOfPossessionUnsignedVerificationCode"] == code
        return code

    def sign(text: str, with_this: Path) -> str:
        (tmp_path / "code.txt").write_text(text)
        options = ("-sign", with_this, "-passin", "env:PASS", "-out", tmp_path / "code.sig")
        openssl("dgst", "-sha256", *options, tmp_path / "code.txt")
        return openssl("base64", "-A", "-in", tmp_path / "code.sig").stdout

    def prove(signed: object, status: int) -> dict[str, Any]:
        sent = {"proofOfPossessionSignedVerificationCode": signed}
        answer = rest(platform, "POST", trusted(platform, ca, "pop"), json=sent)
        assert (answer.status_code, answer.headers["Content-Type"].partition(";")[0]) == (status, "application/json")
        shown = rest(platform, "GET", ca.fingerprint).json()
        assert shown["proofOfPossessionValid"] is (status == 200)
        found: dict[str, Any] = answer.json()
        assert (found == shown) if status == 200 else found["error"] == PROOF_ERRORS[status]
        return found

    prove(sign("before there was a code", key), 422)
    replaced, code = new_code(), new_code()
    assert replaced != code
    for text, signer in ((code, wrong_key), (code + "\n", key), (replaced, key), (code.upper(), key)):
        prove(sign(text, signer), 400)
    right = sign(code, key)
    for useless in (None, 7, "", "no base64!", right[:20] + "\n" + right[20:]):
        prove(useless, 422)
    prove(base64.b64encode(b"no signature").decode(), 400)
    for years, status in ((-1, 422), (1, 400)):  # no test can wait until a code is too old: it is made so
        until = datetime.now(UTC) + years * 365 * DAY
        with contextlib.closing(sqlite3.connect(platform.folder / "platform.sqlite", isolation_level=None)) as database:
            database.execute("UPDATE trusted_certificates SET code_until = ? WHERE code = ?", (timestamp(until), code))
        prove(sign(code, wrong_key if status == 400 else key), status)
    assert "proofOfPossessionUnsignedVerificationCode" not in prove(right, 200)
    again = {"proofOfPossessionSignedVerificationCode": right}
    assert rest(platform, "POST", trusted(platform, ca, "pop"), json=again).status_code == 422  # the code is used up
    assert rest(platform, "GET", ca.fingerprint).json()["proofOfPossessionValid"] is True
    for call in ("verification-code", "pop"):
        unknown = rest(platform, "POST", trusted(platform, other, call), json=again)
        assert (unknown.status_code, unknown.json()["error"]) == (404, "certificate/Not Found")
    assert rest(platform, "DELETE", ca.fingerprint).status_code == 204
    assert upload(platform, ca).json()["proofOfPossessionValid"] is False  # another upload, to be proven anew
    assert rest(platform, "DELETE", ca.fingerprint).status_code == 204
