"""The vendor's own clients against the local platform, and the upload of thin-edge.io: each finds its way.

Each records the calls that succeeded; which those are stands in client_calls.json, which docs/platform.md shows.
"""

import asyncio
import base64
import json
import os
import re
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import certifi
import pytest
import requests
from c8y_api import CumulocityApi, UnauthorizedError
from c8y_api.model import Alarm, Celsius, Event, ManagedObject, Measurement, Operation
from conftest import ROOT, run
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from platform_tools import Entity, login, make, platform_fixture, rest, write_chain
from pyc8y.auth import BasicAuth
from pyc8y.client import CumulocityClient
from pyc8y.model import alarm as pyc8y_alarm
from pyc8y.model import event as pyc8y_event
from pyc8y.model import managed_object as pyc8y_object
from pyc8y.model import measurement as pyc8y_measurement
from pyc8y.model import operation as pyc8y_operation
from pyc8y.model.trusted_certificates import TrustedCertificate as PyCertificate
from pyc8y.rest import CumulocityRestClient

from mciot_nb.local_platform import LocalPlatform
from mciot_platform.rest.application import CALLS, pattern

TABLE = json.loads((ROOT / "tests" / "client_calls.json").read_text())
JAVASCRIPT = "@c8y/client@1023.77.1"
TIME = "2026-03-01T12:00:00.000Z"
platform = platform_fixture("current", tenants=2)


def check(client: str, made: list[tuple[str, str, int]]) -> None:
    """The calls that succeeded are those that the table names."""
    known = [call.path for calls in CALLS.values() for call in calls]
    good = {(method, path) for method, path, status in made if status < 400}
    done = {f"{method} {next(each for each in known if re.fullmatch(pattern(each), path))}" for method, path in good}
    assert sorted(done) == sorted(call for call, clients in TABLE.items() if client in clients)


def source(platform: LocalPlatform, name: str) -> str:
    """Add a device."""
    body = {"name": name, "type": "c8y_Test", "c8y_IsDevice": {}}
    return str(rest(platform, "POST", "/inventory/managedObjects", json=body).json()["id"])


def sign(ca: Entity, code: str) -> str:
    return base64.b64encode(ca.key.sign(code.encode(), ec.ECDSA(hashes.SHA256()))).decode()


@pytest.fixture
def spied(platform: LocalPlatform, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str, int]]]:
    """Record what requests and aiohttp send; both trust the platform's certificate alone."""
    made: list[tuple[str, str, int]] = []
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(platform.server_certificate))
    monkeypatch.setattr(certifi, "where", lambda: str(platform.server_certificate))
    send, request = requests.Session.send, aiohttp.ClientSession._request

    def spy(self: Any, prepared: Any, **options: Any) -> Any:
        answer = send(self, prepared, **options)
        made.append((prepared.method, urlsplit(prepared.url).path, answer.status_code))
        return answer

    async def aspy(self: Any, method: str, url: Any, **options: Any) -> Any:
        answer = await request(self, method, url, **options)
        made.append((method, answer.url.path, answer.status))
        return answer

    monkeypatch.setattr(requests.Session, "send", spy)
    monkeypatch.setattr(aiohttp.ClientSession, "_request", aspy)
    yield made


@pytest.mark.slow
def test_the_client_for_python(platform: LocalPlatform, spied: list[tuple[str, str, int]]) -> None:
    user, password = login(platform)
    c8y = CumulocityApi(platform.https, platform.tenant_ids[0], user, password)
    current = c8y.tenants.get_current()  # it looks for an id, which the answer does not have: the name is it
    assert current.id is None and c8y.get("/tenant/currentTenant")["name"] == platform.tenant_ids[0]
    me = c8y.users.get_current()
    assert me.username == "admin" and "ROLE_TENANT_ADMIN" in me.effective_permission_ids
    # It knows no trusted certificates, but has ways to call anything.
    ca, path = make("Python", ca=True), f"/tenant/tenants/{platform.tenant_ids[0]}/trusted-certificates"
    body = {"name": "Python", "status": "ENABLED", "autoRegistrationEnabled": "true", "certInPemFormat": ca.pem}
    assert c8y.post(path, body)["fingerprint"] == ca.fingerprint
    assert ca.fingerprint in [one["fingerprint"] for one in c8y.get(path, {"pageSize": 2000})["certificates"]]
    assert c8y.put(f"{path}/{ca.fingerprint}", {"status": "DISABLED"})["status"] == "DISABLED"
    proof = f"{path}-pop/{ca.fingerprint}"
    code = c8y.post(f"{proof}/verification-code", {})["proofOfPossessionUnsignedVerificationCode"]
    signed = {"proofOfPossessionSignedVerificationCode": sign(ca, code)}
    assert c8y.post(f"{proof}/pop", signed)["proofOfPossessionValid"] is True
    crl = "/tenant/trusted-certificates/settings/crl"
    assert c8y.put(crl, {"crls": [{"serialNumberInHex": "CD01"}]}) == {}
    assert 0xCD01 in [one.serial_number for one in x509.load_der_x509_crl(c8y.get_file(crl))]
    # What it gets wrong: a file is put as the whole body, not in a form; what is posted must answer 201, not 200.
    with pytest.raises(ValueError, match="Status: 415"):
        c8y.put_file(crl, str(platform.server_certificate))
    c8y.put(f"{path}/{ca.fingerprint}", {"status": "ENABLED"})
    (chain := platform.folder / "chain.pem").write_text(make("leaf", ca).pem + ca.pem)
    with pytest.raises(ValueError, match=r'Status: 200 Response:\n\{"successfullyValidated": true'):
        c8y.post_file("/tenant/trusted-certificates/verify-cert-chain", str(chain))
    c8y.delete(f"{path}/{ca.fingerprint}")
    c8y.tenant_options.set_value("python", "a", "1")
    assert c8y.tenant_options.get_value("python", "a") == "1" and c8y.tenant_options.get_all()
    c8y.tenant_options.delete_by("python", "a")

    made = ManagedObject(c8y, name="python 1", type="Python", c8y_A={"b": 1}).create()
    made.name = "python 2"
    assert made.update().name == "python 2" and c8y.inventory.get(made.id)["c8y_A"] == {"b": 1}
    for filters in ({"name": "python 2"}, {"fragments": ["c8y_A"]}, {"text": "python 2"}, {"ids": [made.id]}):
        assert [one.id for one in c8y.inventory.get_all(**filters)] == [made.id], filters
    assert c8y.inventory.get_all(name="python 1") == []
    # it sets a + before $orderby, and writes values without quotes
    assert [one.id for one in c8y.inventory.get_all(fragments=["c8y_A"], type="Python", order_by="name")] == [made.id]
    assert c8y.inventory.get_count(type="Python") == 1 and c8y.device_inventory.get_all(name="python 2") == []
    c8y.identity.create("python-1", "c8y_Python", made.id)
    assert c8y.identity.get_id("python-1", "c8y_Python") == made.id and len(c8y.identity.get_all(made.id)) == 1
    c8y.identity.delete("python-1", "c8y_Python")
    made.delete()
    with pytest.raises(KeyError):
        c8y.inventory.get(made.id)

    of = source(platform, "python")
    one = Measurement(c8y, type="c8y_T", source=of, time=TIME, c8y_T={"T": Celsius(20.5)}).create()
    c8y.measurements.create(*[Measurement(type="c8y_T", source=of, c8y_T={"T": Celsius(t)}) for t in (21, 22)])
    assert c8y.measurements.get(one.id)["c8y_T"]["T"]["value"] == 20.5
    assert [m.c8y_T.T.value for m in c8y.measurements.get_all(source=of, series="c8y_T.T")] == [20.5, 21, 22]
    assert c8y.measurements.get_last(source=of).c8y_T.T.value == 22
    event = Event(c8y, type="t", time=TIME, source=of, text="one").create()
    event.text = "two"
    assert event.update().text == "two" and c8y.events.get(event.id).text == "two"
    assert [e.id for e in c8y.events.get_all(source=of, type="t")] == [event.id]
    # Its alarms lie at //, their list comes with filter=<class 'filter'>.
    alarm = Alarm(c8y, type="t", time=TIME, source=of, text="one", severity="MAJOR").create()
    alarm.status = "CLEARED"
    assert alarm.update().status == "CLEARED" and c8y.alarms.get(alarm.id).severity == "MAJOR"
    assert [a.id for a in c8y.alarms.get_all(source=of, severity="MAJOR", status="CLEARED")] == [alarm.id]
    assert c8y.alarms.count(source=of) == 1 and c8y.alarms.get_all(source=of, status="ACTIVE") == []
    operation = Operation(c8y, device_id=of, description="on", c8y_Relay={"relayState": "OPEN"}).create()
    operation.status = "EXECUTING"
    assert operation.update().status == "EXECUTING" and c8y.operations.get(operation.id).status == "EXECUTING"
    assert [o.id for o in c8y.operations.get_all(device_id=of)] == [c8y.operations.get_last(device_id=of).id]
    with pytest.raises(UnauthorizedError):
        CumulocityApi(platform.https, platform.tenant_ids[0], user, "wrong").post("/tenant/options", {})
    check("c8y-api 3.7.3", spied)


@pytest.mark.slow
def test_the_client_for_python_with_asyncio(platform: LocalPlatform, spied: list[tuple[str, str, int]]) -> None:
    asyncio.run(_asyncio(platform))
    check("pyc8y 4.1.0", spied)


async def _asyncio(platform: LocalPlatform) -> None:
    user, password = login(platform)
    # Its login sends the user as given: the tenant must stand before it.
    auth, _ = await CumulocityRestClient.authenticate(platform.https, platform.tenant_ids[0], user, password)
    assert isinstance(auth, BasicAuth)
    with pytest.raises(Exception, match="401"):
        await CumulocityRestClient.authenticate(platform.https, platform.tenant_ids[0], user, "wrong")

    async def connector() -> aiohttp.BaseConnector:
        return aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=str(platform.server_certificate)))

    async with CumulocityClient(platform.https, platform.tenant_ids[0], auth, connector_factory=connector) as c8y:
        assert (await c8y.tenants.get_current()).get("name") == platform.tenant_ids[0]
        assert (await c8y.users.get_current()).get("userName") == "admin"
        await _certificates(c8y)
        await _inventory(c8y)
        await _records(c8y, source(platform, "asyncio"))


async def _certificates(c8y: CumulocityClient) -> None:
    ca, trusted = make("Asyncio", ca=True), c8y.trusted_certificates
    options: dict[str, Any] = {"certificate_pem": ca.pem, "status": "ENABLED", "auto_registration_enabled": True}
    made = await PyCertificate(c8y, name="one", **options).create()
    assert made.fingerprint == ca.fingerprint
    made.status = "DISABLED"
    assert (await made.update()).status == (await trusted.get(made.fingerprint)).status == "DISABLED"
    other = make("Bulk", ca=True)
    await trusted.create(PyCertificate(c8y, name="two", **options | {"certificate_pem": other.pem}))
    listed = [one.fingerprint for one in await trusted.get_all(limit=None)]
    assert {ca.fingerprint, other.fingerprint} <= set(listed)
    with pytest.raises(KeyError):  # the tenant has no CA of its own
        await trusted.get_certificate_authority()
    code = (await trusted.generate_pop_challenge(ca.fingerprint)).pop_challenge
    assert (await trusted.provide_pop_verification(ca.fingerprint, sign(ca, code))).pop_valid is True
    # A form of CSV whose file has no name, and no second column where there is no date.
    await trusted.revoke("EF01", ("EF02", "2023-01-11T16:12:36.288Z"))
    revoked = [one.serial_number for one in x509.load_der_x509_crl(await trusted.get_revoked())]
    assert {0xEF01, 0xEF02} <= set(revoked)
    await trusted.delete(ca.fingerprint, other.fingerprint)
    await c8y.tenant_options.set_value("asyncio", "a", "1")
    assert await c8y.tenant_options.get_value("asyncio", "a") == "1"


async def _inventory(c8y: CumulocityClient) -> None:
    made = await pyc8y_object.ManagedObject(c8y, name="it's async", type="Async", c8y_A={"b": 1}).create()
    made.name = "async 2"
    assert (await made.update()).name == (await c8y.inventory.get(made.id)).name == "async 2"
    for filters in ({"name": "async 2"}, {"fragments": ["c8y_A"], "type": "Async"}, {"type": "Async"}):
        assert [one.id for one in await c8y.inventory.get_all(**filters)] == [made.id], filters
    assert await c8y.inventory.get_all(name="it's async") == []
    assert await c8y.inventory.get_all(ids=[made.id]) == []  # it sends ids=('1',), which is no list of numbers
    assert [one.id for one in await c8y.inventory.get_all(type="Async", order_by="name")] == [made.id]
    assert await c8y.device_inventory.get_all(name="async 2") == []
    await c8y.identity.create(external_id="async-1", external_type="c8y_Async", managed_object_id=made.id)
    assert await c8y.identity.get_id("async-1", "c8y_Async") == made.id
    assert len(await c8y.identity.get_all(made.id)) == 1
    await c8y.identity.delete(external_id="async-1", external_type="c8y_Async")
    await made.delete()
    with pytest.raises(KeyError):
        await c8y.inventory.get(made.id)


async def _records(c8y: CumulocityClient, of: str) -> None:
    values = {"type": "c8y_T", "source": of, "time": TIME, "c8y_T": {"T": {"value": 20.5, "unit": "C"}}}
    one = await pyc8y_measurement.Measurement(c8y, **values).create()
    assert len(await c8y.measurements.create_bulk(*[pyc8y_measurement.Measurement(**values) for _ in "ab"])) == 2
    assert (await c8y.measurements.get(one.id)).get("c8y_T.T.value") == 20.5
    assert len(await c8y.measurements.get_all(source=of, series="c8y_T.T")) == 3
    assert (await c8y.measurements.get_last(source=of)).type == "c8y_T"
    event = await pyc8y_event.Event(c8y, type="t", time=TIME, source=of, text="one").create()
    event.text = "two"
    assert (await event.update()).text == (await c8y.events.get(event.id)).text == "two"
    assert [e.id for e in await c8y.events.get_all(source=of)] == [event.id]
    alarm = await pyc8y_alarm.Alarm(c8y, type="t", time=TIME, source=of, text="one", severity="MAJOR").create()
    alarm.status = "CLEARED"
    assert (await alarm.update()).status == (await c8y.alarms.get(alarm.id)).status == "CLEARED"
    assert [a.id for a in await c8y.alarms.get_all(source=of, severity="MAJOR")] == [alarm.id]
    assert await c8y.alarms.count(source=of, resolved=True) == 1  # as plain text
    operation = await pyc8y_operation.Operation(c8y, device_id=of, c8y_Relay={"relayState": "OPEN"}).create()
    operation.status = "EXECUTING"
    assert (await operation.update()).status == (await c8y.operations.get(operation.id)).status == "EXECUTING"
    assert [o.id for o in await c8y.operations.get_all(device_id=of)] == [operation.id]


@pytest.mark.slow
def test_the_client_for_javascript(platform: LocalPlatform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It asks for lists by repeating a parameter, puts a CSV into a form without a file's name, escapes brackets."""
    options = ("--no-audit", "--no-fund", "--ignore-scripts", "--prefix", tmp_path)
    installed = run("npm", "install", *options, JAVASCRIPT, check=bool(os.environ.get("CI")))
    if installed.returncode:
        pytest.skip("npm reaches no registry")
    ca, of = make("JavaScript", ca=True), source(platform, "js")
    user, password = login(platform)
    (tmp_path / "ca.pem").write_text(ca.pem)
    tenant = platform.tenant_ids[0]
    environment = {"BASE": platform.https, "TENANT": tenant, "USER": user.partition("/")[2], "SOURCE": of}
    environment |= {"PASSWORD": password, "CA_FILE": str(tmp_path / "ca.pem")}
    environment["KEY_FILE"] = str(write_chain(ca, tmp_path / "key.pem", []))
    environment["NODE_EXTRA_CA_CERTS"] = str(platform.server_certificate)
    environment["NODE_PATH"] = str(tmp_path / "node_modules")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    done = json.loads(run("node", ROOT / "tests" / "vendor_client.cjs").stdout)
    found = done["found"]
    revoked = [one.serial_number for one in x509.load_der_x509_crl(base64.b64decode(found.pop("crl")))]
    assert {0xAB01, 0xAB02} <= set(revoked)
    assert found == {
        **{"tenant": platform.tenant_ids[0], "loginOptions": ["BASIC"], "user": "admin", "admin": True},
        **{"listed": True, "own": 0, "disabled": "DISABLED", "proven": True, "option": "true", "options": True},
        **{"query": ["js [1]"], "devices": 1, "renamed": "js 2", "detail": "js 2", "page": 2},
        **{"identity": True, "names": 1, "measurement": 21, "measurements": 1, "event": "two", "events": 1},
        **{"alarm": "CLEARED", "alarms": 1, "count": 1, "operation": "EXECUTING", "operations": 1, "refused": 401},
    }
    check("@c8y/client 1023.77.1", [tuple(call) for call in done["calls"]])


#: What `tedge cert upload c8y` sends (upload.rs, August 2026): user without tenant, any type of answer, PEM as it is.
TEDGE: list[tuple[str, str, dict[str, Any] | None, set[int]]] = [
    ("GET", "/tenant/currentTenant", None, {200}),
    ("POST", "/tenant/tenants/{tenant}/trusted-certificates", {"autoRegistrationEnabled": True}, {200, 201, 409}),
]


def test_the_upload_of_thin_edge(platform: LocalPlatform) -> None:
    """Its device's certificate is self-signed, with CA:true. A second upload is answered 409, which it takes."""
    ca, made = make("tedge-1", ca=True), []
    (user, password), statuses, tenant = login(platform), [], ""
    for method, path, given, wanted in (*TEDGE, TEDGE[1]):
        body = given and {"name": "tedge-1", "certInPemFormat": ca.pem, "status": "ENABLED", **given}
        where, options = path.format(tenant=tenant), {"auth": (user.partition("/")[2], password)}
        answer = rest(platform, method, where, json=body, headers={"Accept": "*/*"}, **options)
        assert answer.status_code in wanted
        tenant = tenant or answer.json()["name"]
        statuses.append(answer.status_code)
        made.append((method, where, answer.status_code))
    assert statuses == [200, 201, 409]
    wrong = rest(platform, "GET", TEDGE[0][1], auth=(user, "wrong"))
    assert wrong.status_code == 401  # the control
    check("thin-edge.io", made)
