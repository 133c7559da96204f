"""What clients that were onboarded by certificate send first, read from their sources, and what becomes of it.

thin-edge.io (commit c6cc23d6a, 2026): the bridge's rules ``c8y/bridge/mqtt-core.toml``, ``tedge/src/bridge/c8y.rs``,
the connection check ``cli/connect/c8y.rs`` and the mapper's own tests. The vendor's agent c8ydm (commit 25ff683):
``client/mqtt_agent.py``, its modules and ``framework/smartrest.py``, which doubles a quote and cuts blanks and commas
at the end. What the real platform does with each is in the vendor's page on static templates.
"""

import json
from typing import Any

import jwt
import pytest
import raw_mqtt as mqtt
from platform_tools import login, make, upload, wait_for

from mciot_nb.connect.smartrest import parse
from mciot_platform.messages import MESSAGES

world = mqtt.world_fixture()
#: What each client subscribes to, with the QoS, in its order.
SUBSCRIPTIONS = {
    "mosquitto bridge": [("s/dt", 1), ("s/ds", 1), ("s/e", 0), ("s/dc/#", 1), ("devicecontrol/notifications", 1)],
    "mosquitto bridge, more": [("error", 1), ("s/dat", 0), ("s/dc/template-1", 1), ("s/dl/old", 1), ("s/ol/old", 1)],
    "c8ydm": [("s/e", 0), ("s/ds", 0), ("s/dat", 2), ("s/dc/c8y-dm-agent-v1.0", 0)],
}
SOFTWARE = [{"name": "a", "version": "1", "url": "u"}, {"name": "b", "version": "", "url": ""}]
ADVANCED = [{"name": "a", "version": "1", "softwareType": "apt", "url": ""}]
AGENT = {"name": "DM Reference Agent", "version": "1.2", "url": "https://agent.example", "maintainer": "Open Source"}
MOBILE = ("imei", "iccid", "imsi", "mcc", "mnc", "lac", "cellId")
#: Topic (behind it CHILD stands for the child), message, and the fragments that the device or the child then has.
TOLD: list[tuple[str, str, dict[str, Any]]] = [
    ("s/us", "114,c8y_Restart,c8y_Command", {"c8y_SupportedOperations": ["c8y_Restart", "c8y_Command"]}),
    ("s/us", "114", {"c8y_SupportedOperations": []}),
    ("s/us", "117,10", {"c8y_RequiredAvailability": {"responseInterval": 10}}),
    ("s/us", "117,5", {"c8y_RequiredAvailability": {"responseInterval": 10}}),  # only where none is set
    ("s/us", "110,s 1,docker,1.0", {"c8y_Hardware": {"serialNumber": "s 1", "model": "docker", "revision": "1.0"}}),
    ("s/us", '113,"a = 1\nb = ""x"""', {"c8y_Configuration": {"config": 'a = 1\nb = "x"'}}),
    ("s/us", f"122,{','.join(AGENT.values())}", {"c8y_Agent": AGENT}),
    ("s/us", "115,linux-12,6.1,None", {"c8y_Firmware": {"name": "linux-12", "version": "6.1", "url": "None"}}),
    ("s/us", "116,a,1,u,b", {"c8y_SoftwareList": SOFTWARE}),
    ("s/us", "140,a,1,apt", {"c8y_SoftwareList": ADVANCED}),
    ("s/us", "118,agentlog", {"c8y_SupportedLogs": ["agentlog"]}),
    ("s/us", "119,sshd,agent", {"c8y_SupportedConfigurations": ["sshd", "agent"]}),
    ("s/us", "143,apt", {"c8y_SupportedSoftwareTypes": ["apt"]}),
    ("s/us", "150,ssh,,vnc", {"c8y_RemoteAccessSupportedProtocols": ["ssh", "vnc"]}),
    ("s/us", "111,1,2,3,4,5,6,7", {"c8y_Mobile": dict(zip(MOBILE, "1234567", strict=True))}),
    ("s/us", "112,50.3,6.4", {"c8y_Position": {"lat": 50.3, "lng": 6.4, "alt": "", "accuracy": ""}}),
    ("s/us", "402,1,2,3,4", {"c8y_Position": {"lat": 1, "lng": 2, "alt": 3, "accuracy": 4}}),
    ("s/us", "107,c8y_Position,c8y_Agent", {"c8y_Position": None, "c8y_Agent": None}),
    ("s/us", "121,true", {"c8y_Profile": {"profileExecuted": "true", "profileId": ""}}),
    ("s/us", "121,false,84", {"c8y_Profile": {"profileExecuted": "false", "profileId": "84"}}),
    (
        "s/us",
        "120,path/A,http://x/1,,2026-01-31T09:00:00Z",
        {
            "c8y_Configuration_path/A": {
                "type": "path/A",
                "url": "http://x/1",
                "name": "path/A",
                "time": "2026-01-31T09:00:00.000+00:00",
            }
        },
    ),
    ("s/us", "125", {}),
    ("t/us", "114,transient", {"c8y_SupportedOperations": ["transient"]}),
    ("s/us/CHILD", "114,c8y_Firmware", {"c8y_SupportedOperations": ["c8y_Firmware"]}),
    ("s/us/CHILD", "117,0", {"c8y_RequiredAvailability": {"responseInterval": 0}}),
    ("s/us/CHILD", "122,agent,1,,me", {"c8y_Agent": {"name": "agent", "version": "1", "url": "", "maintainer": "me"}}),
    (
        "inventory/managedObjects/update/CHILD",
        '{"c8y_Agent": {"name": "thin-edge.io"}}',
        {"c8y_Agent": {"name": "thin-edge.io"}},
    ),
    ("inventory/managedObjects/update/NAME", '{"a": 1, "name": "x"}', {"a": 1}),
]
DEEP = "[" * 200 + "]" * 200
#: What is answered: topic, message, topic of the answer, and how that begins.
ANSWERED = [
    ("s/us", "100,again,thin-edge.io", "s/e", "41,100,Device already existing"),
    ("s/us", "101,CHILD,again,t,false", "s/e", "41,101,Device already existing"),
    ("s/us", "123", "s/ds", "124,"),
    ("s/us", "105", "s/ds", "106,CHILD"),
    ("s/us", "122,only,name", "s/e", "50,122,The maintainer is missing."),
    ("s/us", "201,t,", "s/e", "50,201,The fragment is missing."),
    ("s/us", "503,c8y_UploadConfigFile,https://x", "s/e", "50,503,No operation c8y_UploadConfigFile is executing."),
    ("s/us", "504,99999", "s/e", "50,504,No operation 99999 of "),
    ("s/us", "141,a,1,apt", "s/e", "50,141,A message with"),
    ("s/us/other-device", "400,t,x", "s/e", "50,400,other-device is not a child of "),
    ("s/us", "102,other-device,systemd,x,up", "s/e", "50,102,other-device is not a service of "),
    ("s/ut/template-1", "", "s/dt", "41,template-1"),
    ("s/ut/template-1", "10,999,POST,MEASUREMENT", "s/e", "50,,"),
    ("s/uc/c8y-dm-agent-v1.0", "dm100,x,10.0.0.1,255.0.0.0,eth0,1,AA", "s/e", "50,,"),
    ("elsewhere", "x", "s/e", "50,,A device publishes on"),
    ("event/events/create", '{"type": "t"}', "error", '{"error": "undefined/validationError"'),
    ("event/events/create", "400,t,x", "error", "{"),
    ("event/events/create", "[]", "error", "{"),
    ("event/events/create", '{"type": "t", "text": "\\ud800", "time": ""}', "error", "{"),
    ("event/events/create", '{"type": "t", "text": "x", "time": "noon"}', "error", "{"),
    ("measurement/measurements/create", '{"type": "t", "f": {"s": {"value": NaN}}}', "error", "{"),
    ("alarm/alarms/create", '{"type": "t", "text": "x", "time": "", "severity": "BAD"}', "error", "{"),
    *(
        ("event/events/create", f'{{"type": "t", "text": "x", "time": "", "externalSource": {bad}}}', "error", "{")
        for bad in ('{"externalId": ["x"]}', '{"externalId": 7}', "7")
    ),
    *(("inventory/managedObjects/update/NAME", f'{{"a": {bad}}}', "error", "{") for bad in ("NaN", DEEP)),
    ("inventory/managedObjects/update/other-device", "{}", "error", "{"),
]
JSON_TIME = "2026-01-31T09:00:00Z"
MEASURED = {"type": "ThinEdge", "time": JSON_TIME, "a": {"x": {"value": 1.5, "unit": "C"}, "y": {"value": 2}}}


def everything() -> list[tuple[str, int]]:
    return [pair for pairs in SUBSCRIPTIONS.values() for pair in pairs]


@pytest.fixture(scope="module")
def talker(world: mqtt.World) -> mqtt.Raw:
    """A device with one child, which has subscribed to all that the clients do."""
    world.dial("other-device").until_pong(mqtt.publish("400,t,x", 1))
    raw = world.dial("edge")
    for topic, qos in everything():
        assert raw.ask(mqtt.subscribe(topic, qos=qos)) == b"\x90\3\0\7" + bytes([qos]), topic
    assert raw.messages(mqtt.subscribe("s/dat", qos=1)) == []
    assert raw.messages(mqtt.publish("100,edge,thin-edge.io", 1)) == []
    assert raw.messages(mqtt.publish("101,edge:child,Child 1,thin-edge.io-child,false", 1, 2)) == []
    return raw


def shown(world: mqtt.World, name: str) -> dict[str, Any]:
    return dict(world.rest("GET", f"/inventory/managedObjects/{world.id_of(name)}").json())


def named(text: str) -> str:
    return text.replace("CHILD", "edge:child").replace("NAME", "edge")


def test_what_clients_tell_of_a_device_is_in_the_inventory(world: mqtt.World, talker: mqtt.Raw) -> None:
    assert (shown(world, "edge:child")["name"], shown(world, "edge:child")["type"]) == ("Child 1", "thin-edge.io-child")
    for topic, message, fragments in TOLD:
        assert talker.messages(mqtt.publish(message, 1, topic=named(topic))) == [], message
        found = shown(world, "edge:child" if "CHILD" in topic else "edge")
        assert {name: found.get(name) for name in fragments} == fragments, message
    assert shown(world, "edge")["name"] == "edge"


@pytest.mark.parametrize(("topic", "message", "reply", "begins"), ANSWERED)
def test_what_is_answered(talker: mqtt.Raw, topic: str, message: str, reply: str, begins: str) -> None:
    ((heard, answer),) = talker.messages(mqtt.publish(named(message), 1, topic=named(topic)))
    assert (heard, answer[: len(named(begins))]) == (reply, named(begins))
    if reply == "error":
        body = json.loads(answer)
        assert body["messageId"] == 1 and body["message"].endswith(".")


def test_measurements_events_and_alarms_are_kept_in_either_form(world: mqtt.World, talker: mqtt.Raw) -> None:
    child = {"externalSource": {"externalId": "edge:child", "type": "c8y_Serial"}}
    event, alarm = {"type": "e", "text": "JSON", "time": JSON_TIME}, {"type": "a", "text": "hot", "time": JSON_TIME}
    sent = [
        ("s/us", "201,c8y_deviceStats,,cpu,idle,97.5,,cpu,user,2,%,disk,free,1e9"),
        ("s/us/edge:child", f"201,t,{JSON_TIME},c,one,1,C"),
        ("s/us/edge:child", "400,e,SmartREST"),
        ("s/us", "401,51.1,6.9"),
        ("s/us", "301,temperature,high"),
        ("measurement/measurements/create", json.dumps(MEASURED)),
        ("measurement/measurements/createBulk", json.dumps({"measurements": [MEASURED | child] * 2})),
        ("event/events/create", json.dumps(event | child)),
        ("event/events/createBulk", json.dumps({"events": [event]})),
        ("alarm/alarms/create", json.dumps(alarm | {"severity": "MINOR"})),
    ]
    for topic, message in sent:
        assert talker.messages(mqtt.publish(message, 1, topic=topic)) == [], message
    measured = world.platform.measurements()
    kept = {
        name: measured.query("device == @name")[["fragment", "series", "value", "unit"]].to_numpy().tolist()
        for name in ("edge", "edge:child")
    }
    in_json = [["a", "x", 1.5, "C"], ["a", "y", 2.0, ""]]
    own = [["cpu", "idle", 97.5, ""], ["cpu", "user", 2.0, "%"], ["disk", "free", 1e9, ""]]
    assert kept == {"edge": own + in_json, "edge:child": [["c", "one", 1.0, "C"], *in_json, *in_json]}
    assert world.texts("edge:child")[-2:] == ["SmartREST", "JSON"]
    place = {"lat": 51.1, "lng": 6.9, "alt": "", "accuracy": ""}
    assert json.loads(world.platform.events().query("device == 'edge'").iloc[-2]["fragments"]) == {
        "c8y_Position": place
    }
    assert world.texts("edge")[-2:] == ["Location updated", "JSON"]
    alarms = world.platform.alarms().query("device == 'edge'")[["type", "severity", "status"]].to_numpy().tolist()
    assert alarms == [["temperature", "CRITICAL", "ACTIVE"], ["a", "MINOR", "ACTIVE"]]


def test_services_are_below_their_device_and_go_by_their_own_topic(world: mqtt.World, talker: mqtt.Raw) -> None:
    for message in ("102,edge:service:x,systemd,x,up", "102,edge:service:x,systemd,x,down"):
        assert talker.messages(mqtt.publish(message, 1)) == []
    found = shown(world, "edge:service:x")
    assert (found["type"], found["serviceType"], found["status"]) == ("c8y_Service", "systemd", "down")
    sent = [("104,up", "s/us/edge:service:x"), ("201,ResourceUsage,,ResourceUsage,cpu,7,%", "s/us/edge:service:x")]
    for message, topic in sent:
        assert talker.messages(mqtt.publish(message, 1, topic=topic)) == []
    assert shown(world, "edge:service:x")["status"] == "up"
    assert list(world.platform.measurements().query("device == 'edge:service:x'")["value"]) == [7.0]
    assert talker.messages(mqtt.publish("105")) == [("s/ds", "106,edge:child")]  # it is no device


def test_the_bridge_asks_for_a_token(world: mqtt.World, talker: mqtt.Raw) -> None:
    ((topic, answer),) = talker.messages(mqtt.publish("", topic="s/uat"))
    assert topic == "s/dat" and jwt.decode(answer.split(",")[1], options={"verify_signature": False})


def test_data_before_100_create_the_device_and_a_child_that_is_named(world: mqtt.World) -> None:
    raw = world.dial("early")
    path = "/identity/externalIds/c8y_Serial/"
    assert raw.ask(mqtt.subscribe("s/ds", "s/e"), mqtt.publish("123\n500\n999\n211,warm")) == b"\x90\4\0\7\1\1"
    raw.until_pong()
    assert world.rest("GET", path + "early").status_code == 404  # the control: who only asks is not created
    assert raw.messages(mqtt.publish("400,t,x", 1, topic="s/us/early-child")) == []
    device, child = shown(world, "early"), shown(world, "early-child")
    assert (device["name"], device["type"]) == ("MQTT Device early", "c8y_MQTTDevice")
    assert (child["name"], child["type"]) == ("MQTT Device early-child", "c8y_MQTTChildDevice")
    assert raw.messages(mqtt.publish("100,named,t", 1)) == [("s/e", "41,100,Device already existing")]
    raw.leave()


def test_an_operation_of_a_child_comes_to_the_device_above_it_in_both_forms(world: mqtt.World) -> None:
    raw = world.dial("root")
    raw.until_pong(
        mqtt.publish("100\n101,root-child", 1), mqtt.publish("101,root-grandchild", 1, 2, topic="s/us/root-child")
    )
    waiting = world.operate("root-grandchild", c8y_Restart={})
    assert raw.messages(mqtt.subscribe("s/ds")) == [] and raw.messages(mqtt.publish("500")) == [
        ("s/ds", "510,root-grandchild")
    ]
    ((topic, text),) = raw.messages(mqtt.subscribe("devicecontrol/notifications"))
    body = json.loads(text)
    assert (topic, body["id"], body["c8y_Restart"]) == ("devicecontrol/notifications", waiting, {})
    assert body["externalSource"] == {"externalId": "root-grandchild", "type": "c8y_Serial"}
    ordered = world.operate("root-child", c8y_Command={"text": "ls"})
    pushed = dict(mqtt.read_message(raw.packet()) for _ in range(2))
    assert pushed["s/ds"] == "511,root-child,ls"
    assert json.loads(pushed["devicecontrol/notifications"])["c8y_Command"] == {"text": "ls"}
    raw.until_pong(mqtt.publish(f"504,{ordered}", 1))  # the control: it is another device's
    assert world.operation(ordered)["status"] == "PENDING"
    steps = [(f"504,{ordered}", "EXECUTING"), (f'506,{ordered},"a ""b""\n"', "SUCCESSFUL")]
    for message, status in steps:
        raw.until_pong(mqtt.publish(message, 1, topic="s/us/root-child"))
        assert world.operation(ordered)["status"] == status
    assert world.operation(ordered)["c8y_Command"]["result"] == 'a "b"\n'
    raw.until_pong(mqtt.publish(f"505,{waiting},no", 1, topic="s/us/root-grandchild"))
    assert (world.operation(waiting)["status"], world.operation(waiting)["failureReason"]) == ("FAILED", "no")
    raw.leave()


def test_the_oldest_that_executes_goes_first(world: mqtt.World) -> None:
    raw = world.dial("many")
    raw.until_pong(mqtt.publish("100", 1))
    first, second, third = (world.operate("many", c8y_Command={"text": text}) for text in ("1", "2", "3"))
    raw.until_pong(mqtt.publish("501,c8y_Command\n501,c8y_Command\n503,c8y_Command,ok", 1))
    status = [world.operation(number)["status"] for number in (first, second, third)]
    assert status == ["SUCCESSFUL", "EXECUTING", "PENDING"]
    raw.leave()


def test_a_child_has_no_user_of_its_own(world: mqtt.World) -> None:
    ca = make("No registration", ca=True)
    assert upload(world.platform, ca, autoRegistrationEnabled=False).status_code == 201
    raw = world.dial("parent")
    raw.until_pong(mqtt.publish("101,parent-child", 1))
    for name, connack in (("parent-child", 5), ("parent", 0)):  # the control: that one is registered
        with world.connect(make(name, ca), client_id=name) as (_, seen):
            assert seen.connack == connack
    wait_for(lambda: "NOT_REGISTERED" in set(world.platform.log()["code"]))


def test_a_device_that_came_with_a_password_is_its_clients_id(world: mqtt.World) -> None:
    with world.connect(None, client_id="d:keyless:x", login=login(world.platform)) as (client, seen):
        assert seen.connack == 0
        sent = client.publish("s/us", "400,t,by password", qos=1)
        sent.wait_for_publish(60)
        assert world.texts("keyless") == ["by password"]
    assert shown(world, "keyless")["type"] == "c8y_MQTTDevice"
    world.dial("keyless").leave()  # by certificate, later: it gets its user then


def test_every_message_of_the_table_is_sent_somewhere_in_the_tests() -> None:
    sent = {message.partition(",")[0] for _, message, _ in TOLD} | {row[1].partition(",")[0] for row in ANSWERED}
    elsewhere = {"102", "104", "200", "211", "212", "301", "302", "303", "304", "306", "400", "401", "500"}
    elsewhere |= {"501", "502", "505", "506"}
    assert set(MESSAGES) <= sent | elsewhere
    assert all(parse(message.encode()) for topic, message, _ in TOLD if "us" in topic)
