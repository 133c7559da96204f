"""What clients write over REST: objects, names, records, operations and options; and what they look for."""

import json
from pathlib import Path
from typing import Any

import pytest
import test_rest_calls
from conftest import examples
from hypothesis import given
from hypothesis import strategies as st
from platform_tools import SECONDS, device, login, make, rest, write_chain
from test_rest_calls import CRL, VERIFY, device_login, uploaded
from test_rest_devices import all_of, number_of, send

from mciot_nb.local_platform import LocalPlatform

platform = test_rest_calls.platform  # the fixture
OBJECTS, TIME = "/inventory/managedObjects", "2026-03-01T13:00:00.000+01:00"
ZULU = "2026-03-01T12:00:00.000Z"


def call(platform: LocalPlatform, method: str, path: str, status: int, body: object = None, **options: Any) -> Any:
    """Call REST, check the status, and return the answer's JSON."""
    answer = rest(platform, method, path, **({} if body is None else {"json": body}), **options)
    assert answer.status_code == status, (method, path, body, answer.text)
    return answer.json() if answer.content else None


@pytest.fixture(scope="module")
def pumps(platform: LocalPlatform, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Two devices and three objects that are none; by name, the number of each."""
    folder, root = tmp_path_factory.mktemp("pumps"), uploaded(platform)
    for name, model in (("pump-1", "P 100"), ("pump-2", "P 200")):
        send(platform, folder, make(name, root), name, f"110,S-{name[-1]},{model},rev")
    created = [
        {"name": "hall", "type": "Hall", "c8y_Size": {"area": 20.5, "floors": 2}, "owner": "ann", "note": "it's [hot]"},
        {"name": "yard", "type": "Yard", "c8y_Size": {"area": 300, "open": True}, "tags": [{"word": "two words"}]},
        {"name": "kit", "c8y_IsDevice": {}, "c8y_Size": {"area": "20.5"}, "note": "a*b"},
    ]
    found = {name: number_of(platform, name) or "" for name in ("pump-1", "pump-2")}
    return found | {body["name"]: call(platform, "POST", OBJECTS, 201, body)["id"] for body in created}


def names(platform: LocalPlatform, pumps: dict[str, str], **parameters: Any) -> list[str]:
    """Return the names of what is found, in order, as far as it is ours."""
    found = all_of(platform, OBJECTS, pageSize=3, **parameters)
    return [one["name"] for one in found if one["id"] in pumps.values()]


FILTERS = [
    ({}, "pump-1 pump-2 hall yard kit"),
    ({"unknown": "x"}, "pump-1 pump-2 hall yard kit"),
    ({"type": "c8y_Pump"}, "pump-1 pump-2"),
    ({"type": "c8y_"}, ""),
    ({"owner": "device_pump-1"}, "pump-1"),
    ({"owner": "ann"}, "hall"),
    ({"owner": "admin"}, "yard kit"),
    ({"fragmentType": "c8y_IsDevice"}, "pump-1 pump-2 kit"),
    ({"fragmentType": "c8y_Hardware"}, "pump-1 pump-2"),
    ({"fragmentType": "c8y_Hard"}, ""),
    ({"text": "P 200"}, "pump-2"),
    ({"text": "'two words'"}, "yard"),
    ({"text": "yard"}, "yard"),
    ({"text": "two"}, ""),
    ({"type": "c8y_Pump", "text": "hall"}, ""),
    ({"onlyRoots": "false"}, "pump-1 pump-2 hall yard kit"),
]
#: Statements of ``query``, what they find, and what finds nothing of it: the control.
QUERIES = [
    ("name eq 'hall'", "hall", "name eq 'Hall'"),
    ("$filter=(name eq 'pump*')", "pump-1 pump-2", "name eq '*pumps'"),
    ("$filter=(has(c8y_IsDevice) and name eq 'pump-1')", "pump-1", "has(c8y_IsDevice) and name eq 'hall'"),
    ("has(c8y_Size.open)", "yard", "has(c8y_Size.shut)"),
    ("type eq c8y_Pump", "pump-1 pump-2", "type eq c8y_Pum"),
    ("owner eq 'ann' or owner eq 'device_pump-2'", "pump-2 hall", "owner eq 'ann' and owner eq 'device_pump-2'"),
    ("not(has(c8y_IsDevice)) and not (type eq 'Yard')", "hall", "not(has(name))"),
    (
        "name eq 'hall' or name eq 'yard' and type eq 'Yard'",
        "hall yard",
        "(name eq 'hall' or name eq 'kit') and type eq Yard",
    ),
    ("c8y_Hardware.model eq 'P 100'", "pump-1", "c8y_Hardware.model eq 'P 1'"),
    ("c8y_Size.area gt 20", "hall yard", "c8y_Size.area gt 300"),
    ("c8y_Size.area le 20.5d", "hall", "c8y_Size.area lt 20.5"),
    ("c8y_Size.area eq '20.5'", "kit", "c8y_Size.area eq '300'"),
    ("c8y_Size.open eq true", "yard", "c8y_Size.open eq 1"),
    ("note eq 'it''s \\[hot\\]'", "hall", "note eq 'it''s hot'"),
    ("note eq 'a\\*b'", "kit", "note eq 'a\\*'"),
    ("note eq 'a\\**'", "kit", "note eq '*\\*'"),
    ("note eq '*s*t*'", "hall", "note eq '*t*s*t*s*'"),
    (
        "creationTime.date gt '2026-01-01T00:00:00+01:00'",
        "pump-1 pump-2 hall yard kit",
        "creationTime.date lt '2026-01-01'",
    ),
    ("$filter=(c8y_Size.area ge 20.5)+$orderby=c8y_Size.area desc", "yard hall", "$filter=(c8y_Size.area ge 301)"),
    ("$orderby=type desc,name asc", "pump-1 pump-2 yard hall kit", "name eq nobody $orderby=name"),
    ("_id eq {hall}", "hall", "id eq '{hall}0'"),
]
REFUSED = [
    "x",
    "name",
    "name eq",
    "name ne 'x'",
    "name eq null",
    "bygroupid(1)",
    "has(c8y_X",
    "(name eq 'x'",
    "name eq 'x",
]
REFUSED += ["name eq 'x')", "text eq 'x'", "name gt 'a*'", "a eq true and", "c8y_X gt true", "creationTime eq 'noon'"]
REFUSED += [
    "$filter=(name eq 'x')$orderby=name up",
    "a-b.c d e",
    "()",
    "(" * 400,
    "not " * 299,
    "a b eq 1",
    "'a' eq 'b'",
]


@pytest.mark.parametrize(("parameters", "found"), FILTERS, ids=[json.dumps(parameters) for parameters, _ in FILTERS])
def test_documented_filters_of_the_inventory_work(
    platform: LocalPlatform, pumps: dict[str, str], parameters: dict[str, str], found: str
) -> None:
    assert names(platform, pumps, **parameters) == found.split()


def test_objects_are_found_by_numbers(platform: LocalPlatform, pumps: dict[str, str]) -> None:
    two = f"{pumps['hall']},{pumps['pump-1']},99999,x"
    assert names(platform, pumps, ids=two) == ["pump-1", "hall"]
    assert names(platform, pumps, ids=two.split(",")) == ["pump-1", "hall"]  # the vendor's client for JavaScript
    assert names(platform, pumps, ids="99999") == []


@pytest.mark.parametrize(("query", "found", "nothing"), QUERIES, ids=[query for query, *_ in QUERIES])
def test_queries_find_what_they_say(
    platform: LocalPlatform, pumps: dict[str, str], query: str, found: str, nothing: str
) -> None:
    ours = [name for name in found.split() if not query.startswith("creationTime")]
    seen = names(platform, pumps, query=query.format(**pumps) if "{" in query else query)
    assert seen == ours or (not ours and len(seen) == 5)
    devices = [name for name in seen if name in ("pump-1", "pump-2", "kit")]
    assert names(platform, pumps, q=query.format(**pumps) if "{" in query else query) == devices
    assert names(platform, pumps, query=nothing.format(**pumps) if "{" in nothing else nothing) == []


@pytest.mark.parametrize("query", REFUSED, ids=[query[:40] for query in REFUSED])
def test_what_a_query_can_not_do_is_said(platform: LocalPlatform, query: str) -> None:
    for name in ("q", "query"):
        answer = call(platform, "GET", OBJECTS, 422, params={name: query})
        said = ("The local platform can't use ", "creationTime must be a time")
        assert answer["message"].startswith(said) and answer["message"].endswith(".")


def test_an_object_is_added_changed_and_deleted(platform: LocalPlatform, tmp_path: Path) -> None:
    viewer: dict[str, Any] = {"auth": login(platform, viewer=True)}
    made = call(platform, "POST", OBJECTS, 201, {"name": "box", "type": "Box", "c8y_A": {"b": [1, None]}, "id": "7"})
    path = f"{OBJECTS}/{made['id']}"
    assert made["self"].endswith(path) and (made["name"], made["owner"], made["c8y_A"]) == (
        "box",
        "admin",
        {"b": [1, None]},
    )
    assert made["creationTime"] == made["lastUpdated"] and made["creationTime"].endswith("Z")
    changed = call(platform, "PUT", path, 200, {"name": "chest", "c8y_A": None, "c8y_B": 1, "creationTime": "x"})
    assert (changed["name"], changed["type"], changed["c8y_B"]) == ("chest", "Box", 1)
    assert changed["lastUpdated"] > changed["creationTime"] == made["creationTime"] and "c8y_A" not in changed
    assert call(platform, "GET", path, 200) == changed
    for wrong in ({"name": 7}, {"type": []}, {"owner": {}}, [], "x"):
        call(platform, "POST", OBJECTS, 422, wrong)
        call(platform, "PUT", path, 422, wrong)
    deep, deeper = ('{"a":' * levels + "1" + "}" * levels for levels in (150, 1500))  # what is stored is searched
    for unreadable in ("{", '{"a": NaN}', '{"a": 1e999}', '{"a": {"b": "\\ud800"}}', deep, deeper):
        assert rest(platform, "POST", OBJECTS, data=unreadable).status_code == 422
    for method, where in (("POST", OBJECTS), ("PUT", path), ("DELETE", path)):
        call(platform, method, where, 403, {"name": "x"}, **viewer)
    assert rest(platform, "DELETE", path).status_code == 204
    call(platform, "GET", path, 404)
    dev = make("writes", uploaded(platform))
    token = device_login(platform, tmp_path, dev, "writes")
    own = f"{OBJECTS}/{number_of(platform, 'writes')}"
    assert call(platform, "PUT", own, 200, {"c8y_Notes": "mine"}, **token)["owner"] == "device_writes"
    call(platform, "POST", OBJECTS, 403, {"name": "x"}, **token)
    send(platform, tmp_path, dev, "writes", "110,S,M,R")  # what a device says later leaves what was written
    kept = call(platform, "GET", own, 200)
    assert kept["c8y_Notes"] == "mine" and kept["c8y_Hardware"]["model"] == "M" and kept["c8y_IsDevice"] == {}


def test_an_object_has_external_ids(platform: LocalPlatform, tmp_path: Path) -> None:
    made = call(platform, "POST", OBJECTS, 201, {"name": "named"})["id"]
    path, where = f"/identity/globalIds/{made}/externalIds", "/identity/externalIds/c8y_Asset/A%2F1"
    assert call(platform, "GET", path, 200)["externalIds"] == []
    added = call(platform, "POST", path, 201, {"type": "c8y_Asset", "externalId": "A/1"})
    assert added == call(platform, "GET", where, 200) == call(platform, "GET", path, 200)["externalIds"][0]
    assert added["managedObject"]["id"] == made and added["self"].endswith(where)
    other = call(platform, "POST", OBJECTS, 201, {})["id"]
    call(platform, "POST", f"/identity/globalIds/{other}/externalIds", 409, {"type": "c8y_Asset", "externalId": "A/1"})
    for wrong in ({}, {"type": "x"}, {"type": "", "externalId": "x"}, {"type": "x", "externalId": 7}):
        call(platform, "POST", path, 422, wrong)
    call(platform, "GET", where, 404, auth=login(platform, 1))
    assert rest(platform, "DELETE", where).status_code == 204
    call(platform, "GET", where, 404)
    # a device that was made ready by REST is the one that connects
    call(platform, "POST", path, 201, {"type": "c8y_Serial", "externalId": "ready"})
    event = {"source": {"id": made}, "type": "t", "text": "before", "time": TIME}
    call(platform, "POST", "/event/events", 201, event)
    with device(platform, tmp_path, make("ready", uploaded(platform)), client_id="ready") as (client, _):
        client.publish("s/us", "400,t,after", qos=1).wait_for_publish(SECONDS)
    assert number_of(platform, "ready") == made
    assert {one["text"] for one in all_of(platform, "/event/events", source=made)} == {"before", "after"}
    (own,) = call(platform, "GET", path, 200)["externalIds"]
    assert (own["type"], own["externalId"]) == ("c8y_Serial", "ready")
    call(platform, "DELETE", "/identity/externalIds/c8y_Serial/ready", 422)


RECORDS: dict[str, tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]] = {
    "event": (
        {"type": "c8y_Door", "text": "open", "c8y_Extra": {"a": 1}},
        {"text": "shut", "c8y_Extra": None, "c8y_More": 2},
        [{"text": 7}, {"type": None}, {"time": "noon"}, {"source": {}}, {"source": "1"}],
    ),
    "alarm": (
        {"type": "c8y_Door", "text": "open", "severity": "MAJOR", "status": "ACTIVE", "c8y_Extra": {"a": 1}},
        {"status": "ACKNOWLEDGED", "severity": "MINOR", "c8y_More": 2},
        [{"severity": "BAD"}, {"status": "BAD"}, {"text": None}, {"time": None}],
    ),
    "measurement": (
        {
            "type": "c8y_Climate",
            "c8y_P": {"T": {"value": 20.5, "unit": "C"}, "H": {"value": 40}},
            "c8y_Q": {"a": {"value": 1}},
        },
        {},
        [
            {"c8y_P": {"T": {"value": "20"}}},
            {"c8y_P": {"T": {"value": 10**400}}},
            {"c8y_P": {}, "c8y_Q": {}},
            {"type": 7},
        ],
    ),
}


@pytest.mark.parametrize("kind", RECORDS)
def test_records_are_written(platform: LocalPlatform, tmp_path: Path, kind: str) -> None:
    body, change, wrong = RECORDS[kind]
    token = device_login(platform, tmp_path, make(f"sends-{kind}", uploaded(platform)), f"sends-{kind}")
    number, path = number_of(platform, f"sends-{kind}"), f"/{kind}/{kind}s"
    body = {"source": {"id": number}, "time": TIME, **body}
    made = call(platform, "POST", path, 201, body)
    shown = {name: value for name, value in body.items() if name not in ("source", "time")}
    assert {name: made[name] for name in shown} == shown and made["source"]["id"] == number
    assert made["time"] == ZULU and made["creationTime"].endswith("Z")
    own = made["self"].removeprefix(platform.https)
    assert call(platform, "GET", own, 200) == made == all_of(platform, path, source=number)[0]
    for flaw in wrong:
        call(platform, "POST", path, 422, body | flaw)
    for source, status in (({"id": "99999"}, 404), (None, 422)):
        call(platform, "POST", path, status, body | {"source": source})
    call(platform, "POST", path, 403, body, auth=login(platform, viewer=True))
    call(platform, "GET", own, 404, auth=login(platform, 1))
    call(platform, "GET", f"{path}/99999", 404)
    second = call(platform, "POST", path, 201, body, **token)
    assert (second["id"] == made["id"]) == (kind == "alarm")  # an active alarm of that type is counted on
    if kind == "measurement":
        call(platform, "PUT", own, 405, {"type": "x"})
        several = call(platform, "POST", path, 201, {"measurements": [body, body]})["measurements"]
        assert len({one["id"] for one in several} | {made["id"]}) == 3
        call(platform, "POST", path, 422, {"measurements": [body, {}]})
        for parameters, count in (({}, 4), ({"type": "c8y_Climate"}, 4), ({"type": "c8y_P"}, 0)):
            assert len(all_of(platform, path, source=number, **parameters)) == count
        for fragment, series, count in (("c8y_P", "H", 4), ("c8y_Q", "a", 4), ("c8y_R", "T", 0), ("c8y_P", "b", 0)):
            selected = {"valueFragmentType": fragment, "valueFragmentSeries": series}
            assert len(all_of(platform, path, source=number, **selected)) == count
        return
    assert [len(all_of(platform, path, source=number, fragmentType=name)) for name in ("c8y_Extra", "a")] != [0, 0]
    changed = call(platform, "PUT", own, 200, change, **token)
    assert {name: changed.get(name) for name in change} == change and changed["type"] == "c8y_Door"
    assert all_of(platform, path, source=number, fragmentType="c8y_More")[0]["id"] == made["id"]
    for flaw in ({"text": 7}, [], *([{"status": "BAD"}] if kind == "alarm" else [])):
        call(platform, "PUT", own, 422, flaw)
    call(platform, "PUT", own, 403, change, auth=login(platform, viewer=True))


def test_an_operation_is_written_to(platform: LocalPlatform, tmp_path: Path) -> None:
    token = device_login(platform, tmp_path, make("obeys", uploaded(platform)), "obeys")
    path, number = "/devicecontrol/operations", number_of(platform, "obeys")
    relay = {"deviceId": number, "description": "on", "c8y_Relay": {"relayState": "OPEN"}}
    made = call(platform, "POST", path, 201, relay)
    assert (made["c8y_Relay"], made["status"], made["description"]) == ({"relayState": "OPEN"}, "PENDING", "on")
    own = f"{path}/{made['id']}"
    assert call(platform, "PUT", own, 200, {"status": "EXECUTING"}, **token)["status"] == "EXECUTING"
    failed = call(platform, "PUT", own, 200, {"status": "FAILED", "failureReason": "stuck", "c8y_Relay": "x", "n": 1})
    assert (failed["failureReason"], failed["c8y_Relay"], failed["n"]) == ("stuck", "x", 1)
    for wrong in ({"status": "DONE"}, {"failureReason": 7}, []):
        call(platform, "PUT", own, 422, wrong)
    call(platform, "PUT", own, 403, {"status": "PENDING"}, auth=login(platform, viewer=True))
    call(platform, "PUT", f"{path}/99999", 404, {})
    second = call(platform, "POST", path, 201, {"deviceId": number, "c8y_Restart": {}})["id"]

    def found(**parameters: str) -> list[str]:
        return [one["id"] for one in all_of(platform, path, deviceId=number, **parameters)]

    assert found() == found(agentId=str(number)) == found(dateFrom="2026-01-01") == [made["id"], second]
    assert found(revert="true") == [second, made["id"]] and found(dateTo="2026-01-01") == []
    assert found(status="FAILED,PENDING") == [made["id"], second] and found(status="FAILED") == [made["id"]]
    assert found(fragmentType="c8y_Restart") == [second] and found(fragmentType="c8y_Rest") == []
    # an agent's operations are those of its children too
    send(platform, tmp_path, make("obeys", uploaded(platform)), "obeys", "101,obeys-child,Child,c8y_Test")
    child = number_of(platform, "obeys-child")
    third = call(platform, "POST", path, 201, {"deviceId": child, "c8y_Restart": {}})["id"]
    assert [one["id"] for one in all_of(platform, path, agentId=number)] == [made["id"], second, third]
    assert [one["id"] for one in all_of(platform, path, agentId=child)] == [third] and third not in found()


def test_options_are_set_and_taken_away(platform: LocalPlatform) -> None:
    option, where = {"category": "notes", "key": "a.b"}, "/tenant/options/notes/a.b"
    call(platform, "GET", where, 404)
    made = call(platform, "POST", "/tenant/options", 201, option | {"value": "1"})
    assert made["value"] == "1" and call(platform, "PUT", where, 200, {"value": "2"})["value"] == "2"
    assert call(platform, "GET", where, 200)["value"] == "2"
    assert {"notes"} <= {one["category"] for one in all_of(platform, "/tenant/options", pageSize=1)}
    for wrong in (option, option | {"value": 7}, {"value": "1"}, option | {"key": "", "value": "1"}):
        call(platform, "POST", "/tenant/options", 422, wrong)
    for who, status in ((login(platform, 1), 404), (login(platform, viewer=True), 403)):
        call(platform, "GET", where, status, auth=who)
    assert rest(platform, "DELETE", where).status_code == 204
    call(platform, "GET", where, 404)
    call(platform, "DELETE", where, 404)


def test_a_login_learns_who_it_is_and_how_to_log_in(platform: LocalPlatform, tmp_path: Path) -> None:
    assert [one["type"] for one in call(platform, "GET", "/tenant/loginOptions", 200, auth=None)["loginOptions"]] == [
        "BASIC"
    ]
    admin, viewer = (
        call(platform, "GET", "/user/currentUser", 200, auth=login(platform, viewer=v)) for v in (False, True)
    )
    assert (admin["userName"], viewer["userName"]) == ("admin", "viewer")
    assert "ROLE_TENANT_ADMIN" in [role["id"] for role in admin["effectiveRoles"]] and viewer["effectiveRoles"] == []
    token = device_login(platform, tmp_path, make("whoami", uploaded(platform)), "whoami")
    assert call(platform, "GET", "/user/currentUser", 200, **token)["id"] == "device_whoami"
    call(platform, "GET", "/user/currentUser", 401, auth=None)


def test_the_type_asked_for_is_the_one_answered(platform: LocalPlatform) -> None:
    own = "application/vnd.com.nsn.cumulocity.currenttenant+json"
    pairs = [
        ("application/vnd.com.nsn.cumulocity.managedobject+json", ""),
        ("application/json", ""),
        ("*/*", "application/json"),
    ]
    pairs += [("text/html, application/vnd.x+json;ver=0.9, application/json", "application/vnd.x+json")]
    for path, accept, answered in (
        *((OBJECTS, *pair) for pair in pairs),
        ("/tenant/currentTenant", "*/*", own),
        ("/tenant/currentTenant", "application/json", ""),
        ("/alarm/alarms/count", "*/*", "text/plain"),
        ("/alarm/alarms/count", "application/json", ""),
    ):
        answer = rest(platform, "GET", path, headers={"Accept": accept})
        assert answer.headers["Content-Type"].partition(";")[0] == (answered or accept), (path, accept)
    refused = rest(platform, "GET", f"{OBJECTS}/0")
    assert refused.json()["info"].startswith("https://") and refused.headers["Content-Type"] == test_rest_calls.ERROR


def test_slashes_too_many_lead_to_the_same_call(platform: LocalPlatform) -> None:
    for path in ("/alarm/alarms/", "//alarm//alarms", "/inventory/managedObjects//"):
        assert rest(platform, "GET", path).status_code == 200
    assert rest(platform, "GET", "/alarm/alarms/x/y").status_code == 404


def test_a_file_in_a_form_needs_no_name(platform: LocalPlatform, tmp_path: Path) -> None:
    root = uploaded(platform)
    dev = make("formed", root)
    write_chain(dev, tmp_path / "chain.pem")
    content = (dev.pem + root.pem).encode()
    for part in ((None, content), ("chain.pem", content), (None, content, "application/octet-stream")):
        assert rest(platform, "POST", VERIFY, files={"file": part}).status_code == 200
    assert rest(platform, "POST", VERIFY, files={"other": (None, content)}).status_code == 400
    for heading in ('"SERIAL NO.","REVOCATION DATE"\r\n', "serial no.,revocation date\n", ""):
        text = f"{heading}ABCD,2023-01-01T00:00:00.000Z\r\nABCE\r\n"
        assert rest(platform, "PUT", CRL, files={"file": (None, text)}).status_code == 204, heading
    assert rest(platform, "PUT", CRL, files={"file": (None, "no heading\r\nABCD")}).status_code == 400


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.sampled_from(["1", TIME])
KEYS = st.sampled_from(["id", "name", "type", "text", "time", "source", "value", "status", "severity", "category"])
KEYS |= st.sampled_from(["key", "c8y_X", "c8y_Command", "deviceId", "owner", "externalId", "crls"])
TREES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5))
WORDS = st.sampled_from(["name", "eq", "gt", "'a*'", "(", ")", "and", "or", "not", "has", "$orderby=", "$filter=", ","])


@examples(150)
@given(body=TREES, query=st.lists(WORDS | st.text(max_size=4), max_size=9).map(" ".join))
def test_no_body_and_no_query_is_a_fault(platform: LocalPlatform, body: Any, query: str) -> None:
    """What is answered is 2xx, or a refusal; that there was no traceback is checked at the platform's end."""
    number, given = call(platform, "POST", OBJECTS, 201, {})["id"], json.dumps(body)
    paths = [("POST", OBJECTS), ("PUT", f"{OBJECTS}/{number}"), ("POST", f"/identity/globalIds/{number}/externalIds")]
    paths += [("POST", path) for path in ("/devicecontrol/operations", "/tenant/options", CRL, VERIFY)]
    paths += [("POST", f"/{kind}/{kind}s") for kind in RECORDS]
    for method, path in paths:
        assert rest(platform, method, path, data=given).status_code < 500, (method, path, given)
    for name in ("q", "query", "text", "ids"):
        assert rest(platform, "GET", OBJECTS, params={name: query}).status_code in (200, 422), query
