"""The REST calls about devices: their chains, revocations and tokens, what they are, what they sent and are to do."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
import test_rest_calls
from conftest import Run
from platform_tools import DAY, SECONDS, Entity, device, login, make, rest, write_chain
from test_rest_calls import (
    CRL,
    ERROR,
    TOKEN,
    VERIFY,
    body,
    chain_file,
    curl,
    device_login,
    revocations,
    trusted,
    uploaded,
)

from mciot_nb.local_platform import LocalPlatform

platform, old, either = test_rest_calls.platform, test_rest_calls.old, test_rest_calls.either  # the fixtures
OLDEST = "1950-01-01T00:00:00.000Z"
BEGINNING = datetime(2026, 3, 1, 12, tzinfo=UTC)
#: By kind of record: where they are, how a device sends number ``n``, what is shown of it, and whether newest first.
KINDS: dict[str, tuple[str, str, dict[str, Any], bool]] = {
    "measurements": ("/measurement/measurements", "200,c8y_{n},T,{n}.5,C,{time}", {"value": 3.5, "unit": "C"}, False),
    "events": ("/event/events", "400,c8y_{n},text {n},{time}", {"text": "text 3"}, True),
    "alarms": (
        "/alarm/alarms",
        "302,c8y_{n},text {n},{time}",
        {"text": "text 3", "severity": "MAJOR", "count": 1},
        True,
    ),
}


def verify(platform: LocalPlatform, *chain: Entity, **options: Any) -> requests.Response:
    return rest(platform, "POST", VERIFY, **chain_file(*chain), **options)


def in_header(separator: str, *chain: Entity) -> str:
    return separator.join(" ".join(link.pem.split("\n")).strip() for link in chain)


def tower(platform: LocalPlatform, height: int) -> list[Entity]:
    """Return a device's chain of ``height`` certificates, whose root is uploaded."""
    chain = [uploaded(platform)]
    while len(chain) < height:
        chain.insert(0, make(f"Link {len(chain)}", chain[0], ca=len(chain) < height - 1))
    return chain


def test_a_chain_is_judged_as_on_a_connection(either: LocalPlatform) -> None:
    root, foreign, namesake = uploaded(either), make("Foreign", ca=True), make("Root", ca=True)
    tenant = either.tenants[1].tenant_id
    theirs = rest(either, "POST", trusted(either, tenant=tenant), json=body(foreign), auth=login(either, 1))
    assert theirs.status_code == 201
    inner, current = make("Inner", root, ca=True), either.profile == "current"
    dev, deep = make("dev", root), make("deep", inner)
    judged: list[tuple[bool, tuple[Entity, ...]]] = [(True, (dev, root)), (current, (dev,)), (True, (root,))]
    judged += [(current, (deep, inner, root)), (False, (deep, root, inner)), (False, (make("dev", namesake), root))]
    judged += [(False, (make("dev", foreign), foreign)), (False, (make("dev", root, begins=DAY), root))]
    for number, (good, chain) in enumerate(judged):
        answer = verify(either, *chain)
        assert answer.status_code == (200 if good else 401), number
        assert good or (answer.json()["error"], answer.headers["Content-Type"]) == ("security/Unauthorized", ERROR)
    found = {"successfullyValidated": True, "tenantId": either.tenant_ids[0], "issuer": "CN=Root", "subject": "CN=dev"}
    assert verify(either, dev, root).json() == found
    assert verify(either, make("dev", foreign), foreign, auth=login(either, 1)).status_code == 200  # the control


def test_a_chain_has_ten_certificates_in_a_file_and_five_in_a_header(platform: LocalPlatform) -> None:
    def in_this_header(text: str) -> int:
        headers = {"X-Cumulocity-Client-Cert-Chain": text}
        return rest(platform, "POST", VERIFY, headers=headers).status_code

    ten, five = tower(platform, 10), tower(platform, 5)
    assert verify(platform, *ten).status_code == 200
    assert verify(platform, *ten, ten[-1]).status_code == 400
    assert in_this_header(in_header(",", *five)) == 200
    assert in_this_header(in_header(",", *five, five[-1])) == 400
    bare = re.sub(" *-----[A-Z ]*----- *", "", in_header(",", *five))
    assert in_this_header(bare) == 200
    assert in_this_header(in_header(",", *five[1:])) == 401  # a CA first
    assert in_this_header("") == in_this_header("rubbish") == in_this_header(bare[:-30]) == 400


def test_only_a_certificate_is_a_chain_and_a_file_comes_before_a_header(platform: LocalPlatform) -> None:
    root = uploaded(platform)
    dev = make("dev", root)
    good, path = {"X-Cumulocity-Client-Cert-Chain": in_header(",", dev, root)}, VERIFY
    assert rest(platform, "POST", path, headers=good).status_code == 200  # the control
    for content in (b"", b"rubbish", b"\xff\x00", dev.pem.replace("MII", "AAA").encode(), dev.pem[:-40].encode()):
        answer = rest(platform, "POST", path, files={"file": content}, headers=good)
        assert (answer.status_code, answer.json()["error"]) == (400, "Device Certificates/Bad Request")
    assert verify(platform, dev, root, headers={"X-Cumulocity-Client-Cert-Chain": "rubbish"}).status_code == 200
    assert rest(platform, "POST", path, json={"file": dev.pem}).status_code == 415
    assert rest(platform, "POST", path).status_code == 400


def test_a_chain_is_judged_for_the_logins_own_tenant(platform: LocalPlatform) -> None:
    root = uploaded(platform)
    dev, own, other = make("dev", root), platform.tenant_ids[0], platform.tenants[1].tenant_id
    for tenant, status in ((own, 200), (other, 403), ("t9", 404)):
        assert verify(platform, dev, root, data={"tenantId": tenant}).status_code == status
        assert verify(platform, dev, root, headers={"X-Cumulocity-TenantId": tenant}).status_code == status
    assert verify(platform, dev, root, data={"tenantId": other}, auth=login(platform, 1)).status_code == 401


def revoke(platform: LocalPlatform, *entries: tuple[object, object], csv: bool = False, **options: Any) -> int:
    """Revoke serial numbers, each with a date, None for none given. More on dates is in test_rest_model.py."""
    rows = [{"serialNumberInHex": serial} | ({"revocationDate": date} if date else {}) for serial, date in entries]
    if csv:
        lines = [f"{serial},{date}" if date else str(serial) for serial, date in entries]
        options |= {"files": {"file": ("crl.csv", "SERIAL NO.,REVOCATION DATE\r\n" + "\r\n".join(lines))}}
    answer = rest(platform, "PUT", CRL, **({} if csv else {"json": {"crls": rows}}), **options)
    assert (answer.content == b"") == (answer.status_code == 204)
    return answer.status_code


def listed(platform: LocalPlatform, openssl: Run, folder: Path) -> dict[str, datetime]:
    text = revocations(platform, openssl, folder / "crl.der")
    found = re.findall(r"Serial Number: (\w+)\n +Revocation Date: (.+) GMT", text)
    return {serial: datetime.strptime(date, "%b %d %H:%M:%S %Y").replace(tzinfo=UTC) for serial, date in found}


@pytest.mark.parametrize("csv", [False, True], ids=["JSON", "CSV"])
def test_a_list_with_one_bad_entry_revokes_nothing(
    platform: LocalPlatform, openssl: Run, tmp_path: Path, csv: bool
) -> None:
    good, date = ("C6" if csv else "16", None), "2023-01-11T16:12:36.288Z"
    bad: list[tuple[object, object]] = [("xyz", date), ("", date), ("0", date), ("0x10", date), ("f" * 41, date)]
    bad += [("10", "1950-01-01T00:00:00+14:00")]  # in UTC it is 1949, before any that a list can hold
    bad += [("-10", date), ("10 11", date), ("\u0661", date), ("10", "yesterday"), ("10", "2023-01-11"), ("10", "7")]
    bad += [] if csv else [(10, date), (None, date), ("10", 7), ("10", [date])]
    for entry in bad:
        assert revoke(platform, good, entry, csv=csv) == 400, entry
        assert good[0] not in listed(platform, openssl, tmp_path)
    for wrong in ({"json": {}}, {"json": {"crls": {}}}, {"json": {"crls": ["10"]}}, {"data": b"{"}, {"json": []}):
        assert rest(platform, "PUT", CRL, **wrong).status_code == 400  # type: ignore[arg-type]
    assert rest(platform, "PUT", CRL, files={"file": b"\xff\xfe"}).status_code == 400
    assert rest(platform, "PUT", CRL, data=b"10", headers={"Content-Type": "text/csv"}).status_code == 415
    moment, spelt = "2024-02-12T17:13:37.299+01:00", f"00{good[0]}AA".lower()
    assert revoke(platform, good, ("f" * 40, date), ("19", OLDEST), (spelt, moment), csv=csv) == 204  # the control
    found = listed(platform, openssl, tmp_path)
    assert {good[0], "F" * 40} <= set(found)
    assert found[spelt[2:].upper()] == datetime(2024, 2, 12, 16, 13, 37, tzinfo=UTC)


@pytest.mark.parametrize("csv", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["JSON", "CSV"])
def test_five_thousand_are_revoked_at_once_and_not_one_more(
    platform: LocalPlatform, openssl: Run, tmp_path: Path, csv: bool
) -> None:
    mark = "C7" if csv else "17"
    entries = [(f"{mark}{number:06X}", "2023-01-11T16:12:36.288Z") for number in range(5001)]
    assert revoke(platform, *entries, csv=csv) == 400
    before = listed(platform, openssl, tmp_path)
    assert not before.keys() & {serial for serial, _ in entries}
    assert revoke(platform, *entries[1:], csv=csv) == 204
    assert set(listed(platform, openssl, tmp_path)) - set(before) == {serial for serial, _ in entries[1:]}


def test_a_tenants_list_is_signed(platform: LocalPlatform, openssl: Run, tmp_path: Path) -> None:
    """That it is the tenant's own, and whom it keeps out, is in test_rest_model.py and test_refusals.py."""
    assert revoke(platform, ("18AB", None)) == 204
    assert "18AB" in revocations(platform, openssl, tmp_path / "crl.der")
    (tmp_path / "other.pem").write_text(make("localhost", ca=True).pem)
    arguments = ("crl", "-inform", "DER", "-in", tmp_path / "crl.der", "-noout", "-CAfile")
    assert "verify OK" in openssl(*arguments, platform.server_certificate).stderr
    assert "verify OK" not in openssl(*arguments, tmp_path / "other.pem", check=False).stderr
    assert rest(platform, "GET", CRL, auth=None).status_code == 401


def ask(platform: LocalPlatform, folder: Path, *sent: Entity, header: str = "", tls: str = "1.3") -> tuple[int, Any]:
    """Ask with curl for a device's token, and give the status, 0 where TLS fails, and the answer."""
    config = [f'url = "{platform.https}{TOKEN}"', 'request = "POST"', f'tls-max = "{tls}"']
    if sent:
        file = write_chain(sent[0], folder / "device.pem", [link.certificate for link in sent])
        config.append(f'cert = "{file}"')
    config += [f'header = "X-Ssl-Cert-Chain: {header}"'] if header else []
    code, status, answer = curl(platform, *config)
    assert (code == 0) == (status > 0)
    return status, json.loads(answer) if status else answer


def test_a_certificate_gives_a_device_a_token(platform: LocalPlatform, tmp_path: Path) -> None:
    """That a CA that was taken away gives none is in test_refusals.py."""
    root, manual = uploaded(platform), uploaded(platform, "Manual", autoRegistrationEnabled=False)
    dev = make("asks-curl", root)
    status, answer = ask(platform, tmp_path, dev)
    assert status == 200 and answer["access_token"] == answer["accessToken"]
    login = {"auth": None, "headers": {"Authorization": f"Bearer {answer['access_token']}"}}
    assert rest(platform, "GET", "/tenant/currentTenant", **login).json()["name"] == platform.tenant_ids[0]

    def refused(status: int, code: str, *sent: Entity) -> str:
        before = len(platform.log())
        answered, answer = ask(platform, tmp_path, *sent)
        assert answered == status
        assert list(platform.log()["code"][before:]) == [code]
        return str(answer["error"])

    assert refused(401, "NO_CLIENT_CERT") == "security/Unauthorized"
    assert refused(401, "CLIENT_ID_MISMATCH", make("a:b", root)) == "security/Unauthorized"
    assert refused(422, "NOT_REGISTERED", make("new", manual)) == "Auto registration is off/Unprocessable Entity"
    form = {"cert": str(write_chain(make("new", manual), tmp_path / "new.pem")), "auth": None}
    assert rest(platform, "POST", TOKEN, **form).headers["Content-Type"].startswith("application/json")
    assert ask(platform, tmp_path, dev)[0] == 200  # the control


@pytest.mark.parametrize("tls", ["1.2", "1.3"])
def test_a_certificate_that_fails_in_tls_gives_none(platform: LocalPlatform, tmp_path: Path, tls: str) -> None:
    root, before = uploaded(platform), len(platform.log())
    stranger, old = make("dev", make("Root", ca=True)), make("dev", root, begins=-9 * DAY, ends=-DAY)
    for entity, words in ((stranger, "unknown ca"), (old, "verification failed")):  # so curl words the alert
        status, answer = ask(platform, tmp_path, entity, tls=tls)
        assert status == 0
        # on TLS 1.3 curl sends its request before it hears of the alert, and may find the connection closed
        assert tls == "1.3" or words in answer
    assert len(platform.log()) == before
    assert ask(platform, tmp_path, make("dev", root), tls=tls)[0] == 200  # the control


def test_a_longer_chain_goes_in_the_header_too(platform: LocalPlatform, tmp_path: Path) -> None:
    root = uploaded(platform)
    inner = make("Inner", root, ca=True)
    dev, other = make("deep", inner), make("other", inner)
    for separator in (" ", ","):
        assert ask(platform, tmp_path, dev, inner, header=in_header(separator, dev, inner, root))[0] == 200
        assert ask(platform, tmp_path, dev, inner, header=in_header(separator, inner, root))[0] == 200
    for chain in ((dev, inner), (dev, root), (other, inner, root), (dev, root, inner)):
        assert ask(platform, tmp_path, dev, inner, header=in_header(" ", *chain))[0] == 401
    assert ask(platform, tmp_path, dev, inner, header="rubbish")[0] == 400
    assert ask(platform, tmp_path, dev, inner, header=in_header(" ", *[dev] * 11))[0] == 400


def send(platform: LocalPlatform, folder: Path, entity: Entity, name: str, *lines: str) -> None:
    """Create the device, and let it say ``lines``."""
    with device(platform, folder, entity, client_id=name) as (client, seen):
        assert seen.connack == 0
        client.publish("s/us", "\n".join((f"100,{name},c8y_Pump", *lines)), qos=1).wait_for_publish(SECONDS)


def number_of(platform: LocalPlatform, name: str, **options: Any) -> str | None:
    """Return the device's number in the inventory, None where it is not there."""
    answer = rest(platform, "GET", f"/identity/externalIds/c8y_Serial/{name}", **options)
    assert answer.status_code in (200, 404)
    number: str | None = answer.json().get("managedObject", {}).get("id")
    return number


def all_of(platform: LocalPlatform, path: str, **parameters: Any) -> list[dict[str, Any]]:
    """Return what is on a page, and on those after it."""
    answer, found = rest(platform, "GET", path, params=parameters), []
    while True:
        assert answer.status_code == 200, answer.text
        (name,) = answer.json().keys() - {"statistics", "self", "next", "prev"}
        found += answer.json()[name]
        if "next" not in answer.json():
            return found
        answer = rest(platform, "GET", answer.json()["next"].removeprefix(platform.https))


@pytest.mark.parametrize("kind", KINDS)
def test_records_are_paged_turned_round_and_selected(platform: LocalPlatform, tmp_path: Path, kind: str) -> None:
    path, line, content, newest_first = KINDS[kind]
    times = [BEGINNING + timedelta(seconds=number) for number in range(7)]
    lines = [line.format(n=n, time=time.isoformat(timespec="milliseconds")) for n, time in enumerate(times)]
    root = uploaded(platform)
    send(platform, tmp_path, make(f"many-{kind}", root), f"many-{kind}", *lines[4:], *lines[:4])
    send(platform, tmp_path, make(f"few-{kind}", root), f"few-{kind}", lines[3])
    many, few = number_of(platform, f"many-{kind}"), number_of(platform, f"few-{kind}")

    def types(**parameters: Any) -> list[str]:
        return [record["type"][4:] for record in all_of(platform, path, **{"source": many, **parameters})]

    order = list("6543210" if newest_first else "0123456")
    for size in (1, 3, 7, 2000):
        assert types(pageSize=size) == order
        assert types(pageSize=size, revert="true") == order[::-1]
    assert types(currentPage=2, pageSize=5) == order[5:] and types(currentPage=99) == []
    for size, more in ((6, True), (7, False)):  # no empty page is promised
        answer = rest(platform, "GET", path, params={"source": many, "pageSize": size})
        assert ("next" in answer.json()) == more and "prev" not in answer.json()
    within = {"dateFrom": times[2].isoformat(), "dateTo": times[4].isoformat()}
    assert sorted(types(**within)) == ["2", "3", "4"]
    elsewhere = {"dateFrom": "2026-03-01T13:00:05+01:00", "pageSize": 1}
    assert sorted(types(**elsewhere)) == ["5", "6"]  # also on the page after
    assert types(dateFrom="2026-03-01T12:00:06.001Z") == [] and types(dateTo="2026-03-01T11:59:59.999Z") == []
    assert types(type="c8y_3") == types(source=few) == ["3"] and types(type="c8y_9") == []
    (found,) = all_of(platform, path, source=few)
    assert datetime.fromisoformat(found["time"]) == times[3] and found["source"]["id"] == few
    shown = found["c8y_3"]["T"] if kind == "measurements" else found
    assert {key: shown[key] for key in content} == content
    total = {"source": many, "withTotalElements": "true", "withTotalPages": "true"}
    counted = rest(platform, "GET", path, params=total)
    assert counted.json()["statistics"] == {"currentPage": 1, "pageSize": 5, "totalElements": 7, "totalPages": 2}
    assert types(odd="x", filter="<class 'filter'>", pageSize=9) == order  # unknown parameters do nothing
    unknown = [{name: "x"} for name in ("lastUpdatedFrom", "fragmentValue", "withSourceDevices", "bulkOperationId")]
    for wrong in ({"dateFrom": "noon"}, {"pageSize": 0}, {"pageSize": 2001}, {"currentPage": 0}, *unknown):
        assert rest(platform, "GET", path, params=wrong).status_code == 422, wrong
    for nobody in ("", "0", "x", "99999", "9" * 30):
        assert rest(platform, "GET", path, params={"source": nobody}).status_code == 404


def test_alarms_and_measurements_have_selections_of_their_own(platform: LocalPlatform, tmp_path: Path) -> None:
    lines = ("301,c8y_A", "303,c8y_B", "306,c8y_B", "303,c8y_C", "200,c8y_P,a,1", "200,c8y_P,b,2", "200,c8y_Q,a,3")
    send(platform, tmp_path, make("selects", uploaded(platform)), "selects", *lines)
    source = number_of(platform, "selects")

    def alarms(**parameters: str) -> str:
        return "".join(alarm["type"][4:] for alarm in all_of(platform, "/alarm/alarms", source=source, **parameters))

    assert sorted(alarms()) == ["A", "B", "C"]
    assert alarms(severity="CRITICAL") == "A" and alarms(status="CLEARED") == "B"
    assert alarms(severity="MINOR", status="ACTIVE") == "C" and alarms(severity="MAJOR") == ""
    assert sorted(alarms(severity="CRITICAL,MINOR")) == ["A", "B", "C"] and alarms(severity="MAJOR,CRITICAL") == "A"
    assert sorted(alarms(status="ACTIVE,CLEARED")) == ["A", "B", "C"] and alarms(status="ACKNOWLEDGED,CLEARED") == "B"
    assert alarms(resolved="true") == "B" and sorted(alarms(resolved="false")) == ["A", "C"]
    assert sorted(alarms(type="c8y_A,c8y_C")) == ["A", "C"] and alarms(type="c8y_,8y_A") == ""
    assert alarms(createdTo="2026-01-01") == "" and len(alarms(createdFrom="2026-01-01")) == 3
    counted = {"source": source, "status": "ACTIVE"}
    assert rest(platform, "GET", "/alarm/alarms/count", params=counted, headers={"Accept": "text/plain"}).text == "2"

    def series(**parameters: str) -> list[str]:
        found = all_of(platform, "/measurement/measurements", source=source, **parameters)
        return [name for record in found for name in record[record["type"]]]

    assert series(valueFragmentType="c8y_P") == ["a", "b"] and series(valueFragmentType="c8y_X") == []
    assert series(valueFragmentType="c8y_P", valueFragmentSeries="b") == ["b"]


def test_the_inventory_lists_devices_once_they_say_what_they_are(platform: LocalPlatform, tmp_path: Path) -> None:
    root, path = uploaded(platform), "/inventory/managedObjects"
    with device(platform, tmp_path, make("mute", root), client_id="mute") as (_, seen):
        assert seen.connack == 0
    assert number_of(platform, "mute") is None
    for name in ("one", "two", "three"):
        send(platform, tmp_path, make(name, root), name, "110,S-1,model,rev")
    found = {each["name"]: each for each in all_of(platform, path, fragmentType="c8y_IsDevice", pageSize=2)}
    assert {"one", "two", "three"} <= set(found) and "mute" not in found
    one = rest(platform, "GET", f"{path}/{number_of(platform, 'one')}").json()
    assert one == found["one"] == rest(platform, "GET", one["self"].removeprefix(platform.https)).json()
    assert (one["type"], one["owner"], one["c8y_IsDevice"]) == ("c8y_Pump", "device_one", {})
    assert one["c8y_Hardware"] == {"serialNumber": "S-1", "model": "model", "revision": "rev"}
    assert all_of(platform, path, fragmentType="c8y_Group") == []
    for wrong in ({"query": "x"}, {"q": "x"}, {"childDeviceId": "1"}, {"onlyRoots": "true"}, {"pageSize": 2001}):
        assert rest(platform, "GET", path, params=wrong).status_code == 422
    for number in ("0", "x", "-1", "1e3", "9" * 30):
        assert rest(platform, "GET", f"{path}/{number}").status_code == 404


ANSWERS = ("501,c8y_Restart", "503,c8y_Restart", "501,c8y_Command", "502,c8y_Command,no such thing")


def test_an_operation_is_ordered_and_listed(platform: LocalPlatform, tmp_path: Path) -> None:
    """How its device receives it and what it answers is in test_smartrest.py."""
    root, path = uploaded(platform), "/devicecontrol/operations"
    send(platform, tmp_path, make("works", root), "works")
    number = number_of(platform, "works")

    def order(status: int, **fields: Any) -> dict[str, Any]:
        answer = rest(platform, "POST", path, json={"deviceId": number, **fields})
        assert answer.status_code == status, fields
        return dict(answer.json())

    for wrong in ({}, {"c8y_Other": 7}, {"c8y_Restart": True}, {"c8y_Command": {}}, {"c8y_Command": {"text": 7}}):
        order(422, **wrong)
    order(422, c8y_Restart={}, description=7)
    for nobody in ("", None, 0, "x"):
        order(404, c8y_Restart={}, deviceId=nobody)
    restart = order(201, c8y_Restart={}, description="now")
    made = [restart["id"], order(201, c8y_Command={"text": "say a, b"})["id"], order(201, c8y_Restart={})["id"]]
    assert (restart["deviceId"], restart["status"], restart["description"]) == (number, "PENDING", "now")
    send(platform, tmp_path, make("works", root), "works", *ANSWERS)
    found = all_of(platform, path, deviceId=number, pageSize=2)
    assert [each["id"] for each in found] == made
    assert [each["status"] for each in found] == ["SUCCESSFUL", "FAILED", "PENDING"]
    assert [each["id"] for each in all_of(platform, path, deviceId=number, status="FAILED")] == made[1:2]
    for wrong, status in (({"dateFrom": "noon"}, 422), ({"deviceId": "99999"}, 404), ({"agentId": "99999"}, 404)):
        assert rest(platform, "GET", path, params=wrong).status_code == status
    for unknown in ("0", "x", "99999"):
        assert rest(platform, "GET", f"{path}/{unknown}").status_code == 404


def test_a_device_is_nobodys_but_its_tenants_and_its_own(platform: LocalPlatform, tmp_path: Path) -> None:
    root = uploaded(platform)
    lines = ("200,c8y_P,a,1", "400,c8y_E,text", "302,c8y_A")
    send(platform, tmp_path, make("mine", root), "mine", *lines)
    number, other = number_of(platform, "mine"), device_login(platform, tmp_path, make("other", root), "other")
    own = device_login(platform, tmp_path, make("mine", root), "mine")
    operation = {"deviceId": number, "c8y_Restart": {}}
    ordered = rest(platform, "POST", "/devicecontrol/operations", json=operation).json()["id"]
    lists = ["/measurement/measurements", "/event/events", "/alarm/alarms", "/inventory/managedObjects"]
    paths = ["/identity/externalIds/c8y_Serial/mine", f"/inventory/managedObjects/{number}"]
    paths += [f"/devicecontrol/operations?deviceId={number}", f"/devicecontrol/operations/{ordered}"]
    paths += [f"{path}?source={number}" for path in lists[:3]]
    stranger: dict[str, Any] = {"auth": login(platform, 1)}
    viewer: dict[str, Any] = {"auth": login(platform, viewer=True)}
    seen = [({}, 200), (own, 200), (viewer, 200), (other, 404), (stranger, 404), ({"auth": None}, 401)]
    for path in paths:
        for who, status in seen:
            assert rest(platform, "GET", path, **who).status_code == status, path
    for path in (*lists, "/devicecontrol/operations"):
        for who, has in ((own, True), (other, False), (stranger, False)):
            page = rest(platform, "GET", path, params={"pageSize": 2000}, **who).text
            assert (f'managedObjects/{number}"' in page or f'"deviceId": "{number}"' in page) == has, path
    for who, status in ((own, 403), (other, 403), (viewer, 403), (stranger, 404)):
        assert rest(platform, "POST", "/devicecontrol/operations", json=operation, **who).status_code == status
        assert rest(platform, "DELETE", f"/inventory/managedObjects/{number}", **who).status_code == status
    assert rest(platform, "DELETE", f"/inventory/managedObjects/{number}").status_code == 204  # the control


@pytest.mark.parametrize("with_user", [False, True], ids=["alone", "with its user"])
def test_a_deleted_device_may_come_back_unless_its_user_is_gone(
    platform: LocalPlatform, tmp_path: Path, with_user: bool
) -> None:
    """Numbers of what was deleted are not given again: who kept one meets nothing else."""
    root, name, operations = uploaded(platform), f"deleted-{with_user}", "/devicecontrol/operations"
    entity, parameters = make(name, root), {"withDeviceUser": "true"} if with_user else {}
    token = device_login(platform, tmp_path, entity, name)

    def order(number: str | None) -> str:
        body = {"deviceId": number, "c8y_Restart": {}}
        return str(rest(platform, "POST", operations, json=body).json()["id"])

    assert rest(platform, "PUT", root.fingerprint, json={"autoRegistrationEnabled": False}).status_code == 200
    with device(platform, tmp_path, entity, client_id=name) as (client, seen):
        client.publish("s/us", "200,c8y_P,a,1\n400,c8y_E,text\n302,c8y_A", qos=1).wait_for_publish(SECONDS)
        number = number_of(platform, name)
        path, ordered = f"/inventory/managedObjects/{number}", order(number)
        assert rest(platform, "GET", "/tenant/currentTenant", **token).status_code == 200  # the control
        assert rest(platform, "DELETE", path, params=parameters).status_code == 204
        assert not with_user or seen.gone.wait(SECONDS)
        assert rest(platform, "GET", "/tenant/currentTenant", **token).status_code == (401 if with_user else 200)
        assert rest(platform, "DELETE", path).status_code == rest(platform, "GET", path).status_code == 404
        assert rest(platform, "GET", f"{operations}/{ordered}").status_code == 404
        if not with_user:
            client.publish("s/us", f"100,{name},c8y_Pump", qos=1).wait_for_publish(SECONDS)
            back = number_of(platform, name)
            assert [all_of(platform, path, source=back) for path, *_ in KINDS.values()] == [[], [], []]
            assert all_of(platform, operations, deviceId=back) == []
            assert back != number and order(back) != ordered
    for table in (platform.measurements(), platform.events(), platform.alarms()):
        assert name not in set(table["device"])
    with device(platform, tmp_path, entity, client_id=name) as (_, seen):
        assert seen.connack == (5 if with_user else 0)
