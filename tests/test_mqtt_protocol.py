"""MQTT of the local platform, packet by packet: what is acknowledged, stored and kept, and what ends a connection."""

import contextlib
import time

import pytest
import raw_mqtt as mqtt
from platform_tools import wait_for

LONGEST_PACKET = 16184  # with its header


world = mqtt.world_fixture()


def test_each_quality_of_service_is_acknowledged_as_it_asks(world: mqtt.World) -> None:
    raw = world.dial("qos")
    assert raw.ask(mqtt.publish("400,t,zero"), mqtt.PING) == mqtt.PONG
    assert raw.ask(mqtt.publish("400,t,one", 1, 258)) == mqtt.acknowledged(mqtt.PUBACK, 258)
    assert raw.ask(mqtt.publish("400,t,two", 2, 65535)) == mqtt.acknowledged(mqtt.PUBREC, 65535)
    assert raw.ask(mqtt.acknowledged(mqtt.PUBREL, 65535)) == mqtt.acknowledged(mqtt.PUBCOMP, 65535)
    assert world.texts("qos") == ["zero", "one", "two"]
    raw.leave()


def test_only_qos_2_counts_a_repeated_message_once(world: mqtt.World) -> None:
    raw = world.dial("again")
    for dup in (False, True):
        assert raw.ask(mqtt.publish("400,t,one", 1, 5, dup)) == mqtt.acknowledged(mqtt.PUBACK, 5)
        assert raw.ask(mqtt.publish("400,t,two", 2, 5, dup)) == mqtt.acknowledged(mqtt.PUBREC, 5)
    assert world.texts("again") == ["one", "two", "one"]
    for _ in range(2):  # a PUBREL that is sent again is answered again
        assert raw.ask(mqtt.acknowledged(mqtt.PUBREL, 5)) == mqtt.acknowledged(mqtt.PUBCOMP, 5)
    assert raw.ask(mqtt.publish("400,t,new", 2, 5)) == mqtt.acknowledged(mqtt.PUBREC, 5)  # the number is free again
    assert world.texts("again") == ["one", "two", "one", "new"]
    raw.leave()


@pytest.mark.parametrize(("clean", "stored"), [(False, 1), (True, 2)])
def test_qos_2_survives_a_reconnect_if_the_session_does(world: mqtt.World, clean: bool, stored: int) -> None:
    name = f"resent-{clean}"
    raw = world.dial(name, clean)
    assert raw.ask(mqtt.publish("400,t,once", 2, 9)) == mqtt.acknowledged(mqtt.PUBREC, 9)
    raw.tls.close()  # PUBREC is lost, as far as the device knows
    raw = world.dial(name, clean, b"\x20\2\0\0" if clean else b"\x20\2\1\0")
    assert raw.ask(mqtt.publish("400,t,once", 2, 9, dup=True)) == mqtt.acknowledged(mqtt.PUBREC, 9)
    assert raw.ask(mqtt.acknowledged(mqtt.PUBREL, 9)) == mqtt.acknowledged(mqtt.PUBCOMP, 9)
    assert world.texts(name) == ["once"] * stored
    raw.leave()


def test_subscriptions_are_kept_with_the_session_and_the_client_is_told(world: mqtt.World) -> None:
    fresh, kept = b"\x20\2\0\0", b"\x20\2\1\0"
    raw = world.dial("kept", False, fresh)
    assert raw.ask(mqtt.subscribe("s/ds", "s/e")) == b"\x90\4\0\7\1\1"
    raw.leave()
    raw = world.dial("kept", False, kept)
    assert [topic for topic, _ in raw.messages(mqtt.publish("123\n999"))] == ["s/ds", "s/e"]
    assert raw.ask(mqtt.packet(0xA2, b"\0\7" + mqtt.text("s/ds"))) == b"\xb0\2\0\7"
    raw.leave()
    raw = world.dial("kept", False, kept)
    assert [topic for topic, _ in raw.messages(mqtt.publish("123\n999"))] == ["s/e"]
    raw.leave()
    raw = world.dial("kept", True, fresh)
    assert raw.messages(mqtt.publish("123\n999")) == []
    raw.leave()
    raw = world.dial("kept", False, fresh)  # the clean one has thrown the kept one away
    assert raw.messages(mqtt.publish("123\n999")) == []
    raw.leave()


def test_a_kept_session_is_there_even_if_nothing_is_in_it(world: mqtt.World) -> None:
    """MQTT 3.1.1, section 3.2.2.2: the flag says whether the server has stored state, from CONNECT on."""
    world.dial("empty", False).leave()
    world.dial("empty", False, b"\x20\2\1\0").leave()


def test_who_is_silent_is_ended_and_who_pings_is_not(world: mqtt.World) -> None:
    silent, pinging, free = (world.dial(n, keep_alive=k) for n, k in (("silent", 1), ("pinging", 8), ("free", 0)))
    while not (ended := world.ending("silent")):
        assert pinging.ask(mqtt.PING) == mqtt.PONG
        time.sleep(0.1)
    assert ended == ["The client was silent for longer than its keep-alive of 1 seconds allows."]
    assert silent.packet() == b""
    assert pinging.ask(mqtt.PING) == mqtt.PONG and free.ask(mqtt.PING) == mqtt.PONG
    assert not world.ending("pinging") and not world.ending("free")


def test_half_a_packet_does_not_keep_a_connection_alive(world: mqtt.World) -> None:
    half, whole = world.dial("half", keep_alive=1), world.dial("whole", keep_alive=8)
    for byte in mqtt.publish("400,t," + "x" * 20):
        with contextlib.suppress(OSError):  # it has been ended
            half.send(bytes([byte]))
        assert whole.ask(mqtt.PING) == mqtt.PONG
        time.sleep(0.1)
    wait_for(lambda: world.ending("half"))
    assert world.ending("half")[0].startswith("The client was silent")
    assert not world.ending("whole") and not world.texts("half")


def test_the_last_will_is_carried_out_unless_the_client_says_goodbye(world: mqtt.World) -> None:
    will = ("s/us", "400,c8y_Gone,gone")
    world.dial("polite", will=will).leave()
    broken = world.dial("broken", will=will)
    broken.tls.close()
    malformed = world.dial("malformed", will=will)
    assert malformed.ask(b"\xff\0") == b""
    first = world.dial("taken", will=will)
    second = world.dial("taken", will=will)
    assert first.packet() == b""
    for name in ("broken", "malformed", "taken"):
        wait_for(lambda name=name: world.texts(name) == ["gone"])
    assert not world.texts("polite")
    assert second.ask(mqtt.PING) == mqtt.PONG
    second.leave()
    assert world.texts("taken") == ["gone"]


def test_the_last_will_of_a_device_that_is_deleted_breaks_nothing(world: mqtt.World) -> None:
    for will in ("110,serial,model,revision", "200,f,s,1", "999", '100,"', "400,t,x"):
        raw = world.dial("deleted", will=("s/us", will))
        assert raw.ask(mqtt.publish("100,deleted", 1)) == mqtt.acknowledged(mqtt.PUBACK)
        path = f"/inventory/managedObjects/{world.id_of('deleted')}?withDeviceUser=true"
        assert world.rest("DELETE", path).status_code == 204 and raw.packet() == b""
        wait_for(lambda: world.ending("deleted")[-1] == "The device was deleted.")
        assert not world.texts("deleted")  # what was deleted does not come back
        assert "deleted" not in set(world.platform.measurements()["device"])
    world.dial("control", will=("s/us", "400,t,x")).tls.close()
    wait_for(lambda: world.texts("control") == ["x"])


def test_a_takeover_keeps_the_second_and_its_session(world: mqtt.World) -> None:
    first = world.dial("twin", False)
    assert first.ask(mqtt.subscribe("s/ds")) == b"\x90\3\0\7\1"
    assert first.ask(mqtt.publish("400,t,once", 2, 3)) == mqtt.acknowledged(mqtt.PUBREC, 3)
    second = world.dial("twin", False, b"\x20\2\1\0")
    assert first.packet() == b""
    assert second.until_pong(mqtt.publish("400,t,once", 2, 3, True)) == [mqtt.acknowledged(mqtt.PUBREC, 3)]
    assert world.texts("twin") == ["once"]
    assert [topic for topic, _ in second.messages(mqtt.publish("123"))] == ["s/ds"]
    (sentence,) = wait_for(lambda: world.ending("twin"))
    assert sentence.startswith("The same ClientId connected again, from 127.0.0.1:")
    second.leave()


def test_a_device_reads_its_own_topics_and_no_other(world: mqtt.World) -> None:
    raw = world.dial("topics")
    for qos in (2, 1, 0):
        assert raw.ask(mqtt.subscribe("s/ds", "s/e", "s/dat", qos=qos)) == b"\x90\5\0\7" + bytes([qos] * 3)
    granted = ("s/dt", "s/dc/x", "s/dc/#", "s/dc", "error", "devicecontrol/notifications", "s/dl/x", "s/ol/x")
    assert raw.ask(mqtt.subscribe(*granted)) == mqtt.packet(0x90, b"\0\7" + b"\1" * len(granted))
    others = (
        "#",
        "+",
        "+/ds",
        "s/#",
        "s/+",
        "s/us",
        "s/uat",
        "s/ds/topics",
        "$SYS/#",
        "S/DS",
        "/s/ds",
        "s/ds ",
        "s/uc/x",
    )
    answer = raw.ask(mqtt.subscribe(*others))
    assert answer == mqtt.packet(0x90, b"\0\7" + b"\x80" * len(others))
    (error,) = raw.messages(mqtt.publish("x", topic="elsewhere"))
    assert error == ("s/e", "50,,A device publishes on s/us or s/uat and JSON on event/events/create and the like.")
    raw.leave()


def test_a_subscription_of_qos_2_is_served_in_qos_2(world: mqtt.World) -> None:
    raw = world.dial("exactly")
    assert raw.ask(mqtt.subscribe("s/ds", qos=2)) == b"\x90\3\0\7\2"
    for number in (1, 2):
        message = raw.ask(mqtt.publish("123"))
        assert message[0] == mqtt.PUBLISH | 4 and mqtt.read_message(message)[1].startswith("124,")
        assert message[8:10] == number.to_bytes(2)  # behind the topic
        for _ in range(2):  # what is sent again is answered again, and the message does not come twice
            assert raw.ask(mqtt.acknowledged(mqtt.PUBREC, number)) == mqtt.acknowledged(mqtt.PUBREL, number)
            assert raw.ask(mqtt.acknowledged(mqtt.PUBCOMP, number), mqtt.PING) == mqtt.PONG
    raw.leave()


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_packet_is_16184_bytes_at_most(world: mqtt.World, qos: int) -> None:
    raw, name = world.dial("long"), "long"
    before, head = len(world.texts(name)), "400,t,"
    room = LONGEST_PACKET - len(mqtt.publish(head + "x" * 1000, qos)) + 1000
    assert len(mqtt.publish(head + "x" * room, qos)) == LONGEST_PACKET
    raw.until_pong(mqtt.publish(head + "x" * room, qos, 1))
    assert len(world.texts(name)) == before + 1
    assert raw.ask(mqtt.publish(head + "x" * (room + 1), qos, 2)) == b""
    assert len(world.texts(name)) == before + 1
    wait_for(lambda: f"more than {LONGEST_PACKET} bytes" in world.ending(name)[-1])
