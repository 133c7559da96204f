"""The calls of the platform's REST interface that test_platform.py leaves out, with --all in both profiles."""

import base64
import contextlib
import json
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from conftest import PASSPHRASE, Run, run
from platform_tools import (
    DAY,
    SECONDS,
    Entity,
    device,
    login,
    make,
    platform_fixture,
    rest,
    upload,
    wait_for,
    write_chain,
)

from mciot_nb.local_platform import LocalPlatform
from mciot_nb.pki.authority import CertificateAuthority
from mciot_nb.pki.keys import KeyType
from mciot_nb.pki.names import DistinguishedName
from mciot_platform.storage import timestamp

CRL = "/tenant/trusted-certificates/settings/crl"
TOKEN = "/devicecontrol/deviceAccessToken"
VERIFY = "/tenant/trusted-certificates/verify-cert-chain"
ERROR = "application/vnd.com.nsn.cumulocity.error+json"
PROOF_ERRORS = {400: "tenants/Bad Request", 422: "tenants/Unprocessable Entity"}


platform = platform_fixture("current", tenants=2)
old = platform_fixture(tenants=2)  # of the guide's time


@pytest.fixture(params=["platform", pytest.param("old", marks=pytest.mark.slow)], ids=["current", "guide-2021"])
def either(request: pytest.FixtureRequest) -> LocalPlatform:
    found: LocalPlatform = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="module")
def root(platform: LocalPlatform) -> Entity:
    return uploaded(platform)


def uploaded(platform: LocalPlatform, name: str = "Root", issuer: Entity | None = None, **fields: Any) -> Entity:
    """Make a CA, and upload it."""
    ca = make(name, issuer, ca=True)
    assert upload(platform, ca, **fields).status_code == 201
    return ca


def revocations(platform: LocalPlatform, openssl: Run, file: Path) -> str:
    """Return the list of what is revoked, as openssl reads it."""
    answer = rest(platform, "GET", CRL)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/pkix-crl")
    file.write_bytes(answer.content)
    return openssl("crl", "-inform", "DER", "-in", file, "-noout", "-text").stdout


def test_the_log_names_no_token_that_was_not_given(platform: LocalPlatform, root: Entity, tmp_path: Path) -> None:
    entity = make("asks-wrongly", root)
    options: dict[str, Any] = {"auth": None, "cert": str(write_chain(entity, tmp_path / "own.pem", entity.chain[:1]))}

    def seen() -> tuple[list[str], bool]:
        codes = platform.log().query("client_id == 'asks-wrongly'")["code"]
        return list(codes), "asks-wrongly" in set(platform.devices()["device"])

    for method, accept, status in (("GET", "*/*", 405), ("PUT", "*/*", 405), ("POST", "text/plain", 406)):
        assert rest(platform, method, TOKEN, headers={"Accept": accept}, **options).status_code == status
        assert seen() == ([], False)
    assert rest(platform, "POST", TOKEN, **options).json()["access_token"]  # the control
    assert seen() == (["TOKEN"], True)


def trusted(platform: LocalPlatform, which: Entity | str = "", call: str = "", tenant: str = "") -> str:
    """Return the path of the trusted certificates, of one of them, or of a ``call`` for proof of possession."""
    identifier = which.fingerprint if isinstance(which, Entity) else which
    below = "/".join(filter(None, [f"trusted-certificates{'-pop' if call else ''}", identifier, call]))
    return f"/tenant/tenants/{tenant or platform.tenant_ids[0]}/{below}"


def body(entity: Entity, **fields: Any) -> dict[str, Any]:
    return {"certInPemFormat": entity.pem, "status": "ENABLED", "autoRegistrationEnabled": True, **fields}


def is_known(platform: LocalPlatform, entity: Entity) -> bool:
    status = rest(platform, "GET", entity.fingerprint).status_code
    assert status in (200, 404)
    return status == 200


def device_login(platform: LocalPlatform, folder: Path, entity: Entity, name: str) -> dict[str, Any]:
    """Make the device, and give the options of a call with the token that it was sent over MQTT."""
    with device(platform, folder, entity, client_id=name) as (client, seen):
        client.publish("s/us", f"100,{name},c8y_Test", qos=1).wait_for_publish(SECONDS)
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


#: The guide's own, to which it adds the certificate in one line.
TEMPLATE = """{
    "status" :  "ENABLED",
    "name" : "certificateName",
    "autoRegistrationEnabled" : "%s",
    "certInPemFormat" : "%s"
}"""


@pytest.mark.parametrize(("flag", "connack"), [("true", 0), ("false", 5)])
def test_the_guides_upload_with_curl_is_taken(
    either: LocalPlatform, openssl: Run, tmp_path: Path, flag: str, connack: int
) -> None:
    ca, name, certificate = make("Guide's CA", ca=True), f"curl-{flag}", either.server_certificate
    shown, given = openssl("x509", "-text", input=ca.pem).stdout, tmp_path / "body.json"
    given.write_text(TEMPLATE % (flag, shown[shown.index("-----BEGIN") :].replace("\n", "")))

    def post(*user_and_password: str) -> tuple[int, int, str]:
        basic = base64.b64encode(":".join(user_and_password).encode()).decode()
        headers = (f'header = "Authorization: Basic {basic}"', 'header = "Content-Type: application/json"')
        return curl(either, f'url = "{either.https}{trusted(either)}"', *headers, f'data-binary = "@{given}"')

    assert post(f"{either.tenant_ids[0]}/admin", "wrong")[:2] == (0, 401)
    assert post(*login(either, viewer=True))[:2] == (0, 403)
    certificate.rename(aside := certificate.with_name("aside.pem"))
    certificate.write_text(ca.pem)
    code, _, said = post(*login(either))
    aside.replace(certificate)
    assert code == 60 and "certificate" in said  # curl does not believe this platform
    assert not is_known(either, ca)
    _, status, answer = post(*login(either))
    created = json.loads(answer)
    assert (status, created["name"], created["status"]) == (201, "certificateName", "ENABLED")
    assert created["autoRegistrationEnabled"] is (flag == "true")
    with device(either, tmp_path, make(name, ca), client_id=name) as (_, seen):
        assert seen.connack == connack
    assert rest(either, "DELETE", ca.fingerprint).status_code == 204


def test_only_administrators_manage_what_is_trusted(platform: LocalPlatform, tmp_path: Path) -> None:
    """What is answered to others than devices is in test_rest_model.py."""
    ca = uploaded(platform, "Managed")
    by_token = device_login(platform, tmp_path, leaf := make("manages", ca), "manages")
    calls: list[tuple[str, str, dict[str, Any], int]] = [
        ("GET", trusted(platform), {}, 200),
        ("GET", trusted(platform, ca), {}, 200),
        ("PUT", trusted(platform, ca), {"json": {"name": "changed"}}, 200),
        ("POST", trusted(platform), {"json": body(make("Added", ca=True))}, 201),
        ("POST", trusted(platform, "bulk"), {"json": {"certificates": [body(make("Several", ca=True))]}}, 201),
        ("POST", VERIFY, chain_file(leaf, ca), 200),
        ("POST", trusted(platform, ca, "verification-code"), {}, 200),
        ("POST", trusted(platform, ca, "pop"), {"json": {}}, 422),  # let in, and then told what is missing
        ("PUT", CRL, {"json": {"crls": [{"serialNumberInHex": "ABCDEF"}]}}, 204),
        ("DELETE", trusted(platform, ca), {}, 204),
    ]
    before = rest(platform, "GET").json()
    for method, path, options, _ in calls:
        answer = rest(platform, method, path, **options, **by_token)
        assert (answer.status_code, answer.headers["Content-Type"]) == (403, ERROR), (method, path)
    assert rest(platform, "GET").json() == before
    for method, path, options, status in calls:  # the control
        assert rest(platform, method, path, **options).status_code == status, (method, path)


def test_a_list_of_no_certificates_is_refused(platform: LocalPlatform) -> None:
    one = body(make("Not in a list", ca=True))
    for wrong in ({}, {"certificates": one}, {"certificates": None}, {"certificates": [one, "text"]}):
        assert rest(platform, "POST", "bulk", json=wrong).status_code == 422
    assert rest(platform, "POST", "bulk", json={"certificates": [one]}).status_code == 201  # the control


def test_without_accept_post_and_put_answer_nothing(platform: LocalPlatform) -> None:
    ca, several = make("Silent", ca=True), {"certificates": [body(make("Silent too", ca=True))]}
    calls = [("POST", "", body(ca), 201), ("POST", "bulk", several, 201), ("PUT", ca.fingerprint, {"name": "x"}, 200)]
    for method, path, given, status in calls:
        answer = rest(platform, method, path, json=given, headers={"Accept": None})
        assert (answer.status_code, answer.content, "Content-Type" in answer.headers) == (status, b"", False)


def test_each_login_sees_its_tenant_and_who_has_none_is_told_how_to_log_in(
    either: LocalPlatform, tmp_path: Path
) -> None:
    ca, path = uploaded(either, "Tenant's"), "/tenant/currentTenant"
    (user, right), viewer, second = login(either), login(either, viewer=True), login(either, 1)
    logins: list[dict[str, Any]] = [{"auth": given} for given in ((user, right), ("admin", right), viewer)]
    for options in (*logins, device_login(either, tmp_path, make("asks", ca), "asks")):
        assert rest(either, "GET", path, **options).json()["name"] == either.tenant_ids[0]
    assert rest(either, "GET", path, auth=second).json()["name"] == either.tenants[1].tenant_id
    for wrong in (None, ("admin", "wrong"), ("t9/admin", right), (second[0], right), ("", "")):
        answer = rest(either, "GET", path, auth=wrong)
        assert (answer.status_code, answer.json()["error"]) == (401, "security/Unauthorized")
        # RFC 9110, section 11.6.1: a 401 must say so, and a browser asks for the password only then
        assert answer.headers["WWW-Authenticate"].startswith("Basic realm=")
    assert rest(either, "GET", path, auth=None, headers={"Authorization": "Basic ä"}).status_code == 401
    assert "WWW-Authenticate" not in rest(either, "GET", auth=viewer).headers
    for flag, has_parent in (("true", True), ("false", False), (None, False)):
        assert ("parent" in rest(either, "GET", path, params={"withParent": flag}).json()) == has_parent


def test_what_is_sent_and_wanted_must_be_json(platform: LocalPlatform) -> None:
    kinds = ("text/plain", "application/xml", "application/x-www-form-urlencoded")
    media: list[tuple[int, dict[str, str]]] = [(415, {"Content-Type": kind}) for kind in kinds]
    media += [(406, {"Accept": kind}) for kind in ("text/plain", "text/html, image/*")]
    media += [(201, {"Content-Type": kind}) for kind in ("application/json; charset=UTF-8", "application/vnd.x+json")]
    media += [(201, {"Accept": kind}) for kind in ("text/html, application/json;q=0.5", "application/vnd.x+json", "")]
    for status, headers in media:
        ca = make("Media", ca=True)
        assert rest(platform, "POST", data=json.dumps(body(ca)), headers=headers).status_code == status, headers
        assert is_known(platform, ca) == (status == 201)


ALLOWED = {"": "GET, POST", "bulk": "POST", "0" * 40: "GET, PUT, DELETE", "/tenant/currentTenant": "GET"}
ALLOWED |= {VERIFY: "POST", CRL: "GET, PUT", TOKEN: "POST", "/identity/externalIds/c8y_Serial/x": "GET, DELETE"}
ALLOWED |= {"/identity/globalIds/7/externalIds": "GET, POST", "/tenant/loginOptions": "GET", "/user/currentUser": "GET"}
ALLOWED |= {"/tenant/options": "GET, POST", "/tenant/options/a/b": "GET, PUT, DELETE", "/alarm/alarms/count": "GET"}
ALLOWED |= {"/inventory/managedObjects": "GET, POST", "/inventory/managedObjects/7": "GET, PUT, DELETE"}
ALLOWED |= {f"/{name}/{name}s": "GET, POST" for name in ("measurement", "event", "alarm")}
ALLOWED |= {"/measurement/measurements/7": "GET", "/event/events/7": "GET, PUT", "/alarm/alarms/7": "GET, PUT"}
ALLOWED |= {"/devicecontrol/operations": "GET, POST", "/devicecontrol/operations/7": "GET, PUT"}


def test_each_call_has_its_methods(platform: LocalPlatform) -> None:
    for path, allowed in ALLOWED.items():
        for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
            answer = rest(platform, method, path)
            assert (answer.status_code == 405) == (method not in allowed.split(", ")), (method, path)
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
    platform: LocalPlatform, openssl: Run, tmp_path: Path, kind: str
) -> None:
    """Other wrong signatures, and the order of the calls, are in test_rest_model.py."""
    ca = make("Proven", ca=True)
    key = write_chain(ca, tmp_path / "ca.pem")
    if kind == "RSA":  # as the guide's own CA, whose key has a passphrase
        subject = DistinguishedName(country="DE", common_name="RSA")
        own = CertificateAuthority.create(tmp_path / "rsa", subject, PASSPHRASE, key_type=KeyType.RSA_2048)
        ca, key = Entity(own.certificate, ca.key, ()), own.folder / "caKey.pem"
    assert upload(platform, ca).json()["proofOfPossessionValid"] is False

    def sign(text: str) -> str:
        (tmp_path / "code.txt").write_text(text)
        options = ("-sign", key, "-passin", "env:PASS", "-out", tmp_path / "code.sig")
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

    prove(sign("before there was a code"), 422)
    made = rest(platform, "POST", trusted(platform, ca, "verification-code"))
    assert made.json() == rest(platform, "GET", ca.fingerprint).json()
    assert datetime.fromisoformat(made.json()["proofOfPossessionVerificationCodeUsableUntil"]) > datetime.now(UTC)
    code = made.json()["proofOfPossessionUnsignedVerificationCode"]
    right, wrong = sign(code), sign(code.upper())
    for useless in (None, 7, right[:20] + "\n" + right[20:]):
        prove(useless, 422)
    for years, signature, status in ((-1, right, 422), (1, wrong, 400)):  # no test can wait until a code is too old
        until = timestamp(datetime.now(UTC) + years * 365 * DAY)
        with contextlib.closing(sqlite3.connect(platform.folder / "platform.sqlite", isolation_level=None)) as database:
            database.execute("UPDATE trusted_certificates SET code_until = ? WHERE code = ?", (until, code))
        prove(signature, status)
    assert "proofOfPossessionUnsignedVerificationCode" not in prove(right, 200)
