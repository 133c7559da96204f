"""SmartREST of the local platform: every message of the facts page, its answer, and whom that reaches."""

import jwt
import pytest
from conftest import examples
from hypothesis import given
from hypothesis import strategies as st
from raw_mqtt import PUBACK, Raw, World, publish, read_message, subscribe, world_fixture

from mciot_nb.connect.smartrest import line, parse
from mciot_platform.messages import MESSAGES, NUMBER

world = world_fixture()


def talk(world: World, name: str) -> Raw:
    """Connect a device that exists and listens."""
    raw = world.dial(name)
    raw.send(publish('100,"My, \\"best\\" device",c8y_MQTTDevice', 1), subscribe("s/ds", "s/e", "s/dat"))
    assert [raw.packet()[0] for _ in range(2)] == [PUBACK, 0x90]
    return raw


def test_what_a_device_tells_of_itself_is_in_the_inventory(world: World) -> None:
    raw = talk(world, "told")
    assert raw.messages(publish('110,"s,1","m ""x",r\n114,c8y_Restart,c8y_Command\n117,-5\n123')) == [
        ("s/ds", f"124,{world.id_of('told')}")
    ]
    shown = world.rest("GET", f"/inventory/managedObjects/{world.id_of('told')}").json()
    assert (shown["name"], shown["type"]) == ('My, "best" device', "c8y_MQTTDevice")
    assert shown["c8y_Hardware"] == {"serialNumber": "s,1", "model": 'm "x', "revision": "r"}
    assert shown["c8y_SupportedOperations"] == ["c8y_Restart", "c8y_Command"]
    assert shown["c8y_RequiredAvailability"] == {"responseInterval": -5}
    raw.leave()


def test_measurements_alarms_and_events_are_kept_as_sent(world: World) -> None:
    raw, at = talk(world, "sends"), "2026-01-31T09:00:00.000+01:00"
    sent = f"200,f,s,-1.5e2,K,{at}\n200,f,s,2\n211,25,{at}\n212,95\n400,c8y_Door,open,{at}\n"
    sent += f"301,a,one,{at}\n302,b\n303,c,three\n304,d,four\n301,a,again\n306,c"
    assert raw.messages(publish(sent)) == []
    measured = world.platform.measurements().query("device == 'sends'")
    assert measured[["fragment", "series", "value", "unit"]].to_numpy().tolist() == [
        ["f", "s", -150.0, "K"],
        ["f", "s", 2.0, ""],
        ["c8y_TemperatureMeasurement", "T", 25.0, "C"],
        ["c8y_Battery", "level", 95.0, "%"],
    ]
    assert [str(time) for time in measured["time"]][::2] == ["2026-01-31 08:00:00+00:00"] * 2
    assert measured["time"].iloc[1] == measured["received"].iloc[1]
    assert world.platform.events().query("device == 'sends'")[["type", "text"]].to_numpy().tolist() == [
        ["c8y_Door", "open"]
    ]
    alarms = world.platform.alarms().query("device == 'sends'")
    assert alarms[["type", "text", "severity", "status", "count"]].to_numpy().tolist() == [
        ["a", "again", "CRITICAL", "ACTIVE", 2],
        ["b", "Alarm of type b raised", "MAJOR", "ACTIVE", 1],
        ["c", "three", "MINOR", "CLEARED", 1],
        ["d", "four", "WARNING", "ACTIVE", 1],
    ]
    raw.leave()


def test_a_time_at_the_edge_can_still_be_shown(world: World) -> None:
    raw = talk(world, "times")
    times = ["0001-01-01T00:00:00Z", "1066-10-14T09:00:00Z", "9999-12-31T23:59:59.999Z", "2026-01-31T09:00:00-23:59"]
    assert raw.messages(publish("\n".join(f"400,t,x,{time}" for time in times))) == []
    assert len(world.texts("times")) == len(times)
    number = world.id_of("times")
    assert len(world.rest("GET", f"/event/events?source={number}").json()["events"]) == len(times)
    for beyond in ("0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00"):  # in UTC there is no such year
        ((topic, _),) = raw.messages(publish(f"400,t,x,{beyond}"))
        assert topic == "s/e"
    raw.leave()


BAD = ["999,x", "200,f,s,warm", "200,f", "200,f,s,nan", "200,f,s,1e999", "200,f,s,1,C,noon", "211", "211,x", "212,"]
BAD += ["301", "302,", "306", "306,never", "400,t", "400,,x", "117,soon", "117"]
BAD += ["501", "501,c8y_Restart", "502", "503,x"]


def test_a_bad_line_is_answered_and_the_others_of_its_payload_are_kept(world: World) -> None:
    raw = talk(world, "mixed")
    payload = "\n".join(part for bad in BAD for part in (bad, f"400,kept,{bad.partition(',')[0]}"))
    errors = raw.messages(publish(payload))
    assert [topic for topic, _ in errors] == ["s/e"] * len(BAD)
    rows = [parse(error.encode())[0] for _, error in errors]
    assert [row[:2] for row in rows] == [["50", bad.partition(",")[0]] for bad in BAD]
    assert all(len(row) == 3 and row[2].endswith(".") for row in rows)
    assert world.texts("mixed") == [bad.partition(",")[0] for bad in BAD]
    assert raw.messages(publish("100,again,x")) == [("s/e", "41,100,Device already existing")]
    for wrong in (b"400,t,\xff", b'400,t,x\n400,t,"open'):  # no lines can be told apart, so none is carried out
        ((topic, error),) = raw.messages(publish(wrong))
        assert topic == "s/e" and error.startswith("50,,")
    assert len(world.texts("mixed")) == len(BAD)
    raw.leave()


def test_a_token_is_the_devices_login_to_rest(world: World) -> None:
    raw = talk(world, "token")
    ((topic, answer),) = raw.messages(publish("", topic="s/uat"))
    number, token = answer.split(",")
    assert (topic, number) == ("s/dat", "71")
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["sub"] == "device_token" and claims["ten"] == world.platform.tenant_ids[0]
    assert claims["exp"] - claims["iat"] == 3600
    path = f"/inventory/managedObjects/{world.id_of('token')}"

    def status(of: str) -> int:
        return world.rest("GET", path, auth=None, headers={"Authorization": f"Bearer {of}"}).status_code

    head, body, signature = token.split(".")
    assert status(token) == 200
    assert status(f"{head}.{body}.{signature[:-4]}AAAA") == 401
    assert status(f"{head}.{body}.") == 401
    other = talk(world, "other-token")
    ((_, answer),) = other.messages(publish("", topic="s/uat"))
    assert status(answer.split(",")[1]) == 404  # another device's token sees that device alone
    for leaving in (raw, other):
        leaving.leave()


def test_an_operation_reaches_its_device_and_no_other(world: World) -> None:
    raw, other = talk(world, "works"), talk(world, "watches")
    command = 'show "all", now\nplease '
    restart = world.operate("works", c8y_Restart={}, description="again")
    ordered = world.operate("works", c8y_Command={"text": command})
    pushed = [read_message(raw.packet()) for _ in range(2)]
    assert pushed == [("s/ds", "510,works"), ("s/ds", line("511", "works", command))]
    assert parse(pushed[1][1].encode()) == [["511", "works", command]]
    assert other.messages(publish("500")) == []
    assert [world.operation(number)["status"] for number in (restart, ordered)] == ["PENDING"] * 2
    assert other.messages(publish("501,c8y_Restart"))[0][1].startswith("50,501,")  # it has none of its own
    assert raw.messages(publish("501,c8y_Restart\n501,c8y_Command")) == []
    assert [world.operation(number)["status"] for number in (restart, ordered)] == ["EXECUTING"] * 2
    assert raw.messages(publish('502,c8y_Restart,"no, never"\n503,c8y_Command,the result')) == []
    failed, done = world.operation(restart), world.operation(ordered)
    assert (failed["status"], failed["failureReason"]) == ("FAILED", "no, never")
    assert (done["status"], done["c8y_Command"]) == ("SUCCESSFUL", {"text": command, "result": "the result"})
    assert raw.messages(publish("503,c8y_Command"))[0][1].startswith("50,503,")  # there is none left
    for leaving in (raw, other):
        leaving.leave()


def test_operations_made_while_a_device_is_away_are_there_when_it_asks(world: World) -> None:
    talk(world, "away").leave()
    for order in ("first", "second"):
        world.operate("away", c8y_Command={"text": order})
    raw = talk(world, "away-too")
    assert raw.messages(publish("500")) == []
    back = world.dial("away")
    assert back.ask(subscribe("s/ds")) == b"\x90\3\0\7\1"
    assert back.messages() == []  # not before it asks
    assert back.messages(publish("500")) == [("s/ds", "511,away,first"), ("s/ds", "511,away,second")]
    assert back.messages(publish("501,c8y_Command\n500")) == [("s/ds", "511,away,second")]  # the oldest goes first
    for leaving in (raw, back):
        leaving.leave()


def test_numbers_and_quotes() -> None:
    assert parse(b'100,"a \\"b\\", c",x') == [["100", 'a "b", c', "x"]]
    assert parse(b'100,a\\"b,x') == [["100", 'a\\"b', "x"]]  # outside quotes a backslash is itself
    for number in ("1", "-1.5", ".5", "2.", "1e3"):
        assert NUMBER.fullmatch(number)
    for other in ("1_000", "\u0661", "nan", "inf", "", "0x1"):
        assert not NUMBER.fullmatch(other)


@pytest.fixture(scope="module")
def talker(world: World) -> Raw:
    return talk(world, "talker")


VALUES = st.sampled_from(["", "x", "1", "-2e9", "c8y_Restart", "2026-01-31", '"', '\\"', "\0", "\ud7ff", "'; DROP"])
LINES = st.lists(VALUES, max_size=6).flatmap(
    lambda v: st.sampled_from([*MESSAGES, "999"]).map(lambda n: ",".join([n, *v]))
)


@examples(100)
@given(st.binary(max_size=200) | st.lists(LINES, max_size=5).map(lambda lines: "\n".join(lines).encode()))
def test_every_payload_is_acknowledged_and_answered_in_lines(talker: Raw, payload: bytes) -> None:
    first, *answers = talker.until_pong(publish(payload, 1))
    assert first == b"\x40\2\0\1"
    for topic, answer in map(read_message, answers):
        ((number, *_),) = parse(answer.encode())
        assert (topic, number) in {("s/ds", "106"), ("s/ds", "124"), ("s/ds", "510"), ("s/e", "41"), ("s/e", "50")}
