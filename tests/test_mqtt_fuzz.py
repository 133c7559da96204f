"""Packets that break MQTT's rules end one connection with one sentence in the log, and never harm the platform."""

import contextlib
import socket
import ssl
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import psutil
import pytest
from conftest import examples
from hypothesis import given
from hypothesis import strategies as st
from platform_tools import SECONDS, TLS, wait_for
from raw_mqtt import (
    PASSWORD,
    PING,
    PONG,
    USER,
    WILL,
    Raw,
    World,
    acknowledged,
    connect,
    connect_with,
    new_world,
    packet,
    publish,
    subscribe,
    text,
    world_fixture,
)

#: So many bytes that are no UTF-8 that, written as Python shows them, they are more than MQTT's two bytes can count.
LONG_RUBBISH = b"\xff" * 17000


world = world_fixture()


RIGHT_CONNECTS = [
    connect_with(USER, "user"),
    connect_with(USER | PASSWORD, "user", b"\xff\0"),  # a password is any bytes
    connect_with(WILL, "s/us", "400,t,x"),
    connect_with(WILL | 0x10, "s/us", "400,t,x"),
    connect_with(WILL | USER, "s/us", "400,t,x", "user"),
    connect_with(WILL | USER | PASSWORD, "s/us", "400,t,x", "user", "password"),
]
ALL_PARTS = WILL | USER | PASSWORD
#: MQTT 3.1.1, section 3.1.2.9: no password without a user.
WRONG_CONNECTS = [connect_with(PASSWORD, "password"), connect_with(USER | PASSWORD), connect_with(ALL_PARTS)]
WRONG_CONNECTS += [connect_with(USER | PASSWORD, "user"), connect_with(0x08), connect_with(0x20)]
WRONG_CONNECTS += [connect_with(USER | PASSWORD, user, "password") for user in (b"\xff", "user\0")]
WRONG_CONNECTS += [connect_with(USER | PASSWORD, "user", "password", behind=b"zzzz")]
WRONG_CONNECTS += [connect_with(ALL_PARTS, topic, "x", "user", "password") for topic in ("#", "s/us\0", b"s/\xff")]
WRONG_CONNECTS += [connect_with(ALL_PARTS | 0x18, "s/us", "x", "user", "password")]
WRONG_CONNECTS += [packet(0x10, text(LONG_RUBBISH) + b"\4\2\0\x3c" + text("dev"))]
WRONG_CONNECTS += [packet(0x10, text("MQTT") + b"\4\2\0\x3c" + text(LONG_RUBBISH))]
WRONG_CONNECTS += [packet(0x10, text("MQTX") + b"\4\2\0\x3c" + text("dev"))]
WRONG_CONNECTS += [packet(0x10, text("MQTT") + b"\4\3\0\x3c" + text("dev"))]  # the flag that is reserved


def test_a_connect_with_all_its_parts_is_let_in_and_one_that_contradicts_itself_is_malformed(world: World) -> None:
    for parts in RIGHT_CONNECTS:
        raw = world.raw()
        assert raw.ask(parts) == b"\x20\2\0\0" and raw.ask(PING) == PONG
        raw.leave()
    for wrong in WRONG_CONNECTS:
        before = world.logged()
        assert world.raw().ask(wrong) == b"", wrong
        assert world.last_record(before)["code"] == "MALFORMED", wrong


WRONG_PACKETS = [packet(0x82, b"\0\7" + text(LONG_RUBBISH) + b"\0"), packet(0xA2, b"\0\7" + text(LONG_RUBBISH))]
WRONG_PACKETS += [packet(0x30, text(LONG_RUBBISH) + b"x"), packet(0x82, b"\0\7\0\x09s/e\0")]
WRONG_PACKETS += [subscribe("s/ds\0"), packet(0xA2, b"\0\7" + text("s/ds\0"))]  # section 1.5.3
WRONG_PACKETS += [subscribe("s/ds", qos=3), subscribe("s/ds", qos=0xFF), subscribe("")]  # sections 3.8.3, 4.7.3
WRONG_PACKETS += [publish("400,t,x", dup=True)]  # section 3.3.1.1: QoS 0 is never sent again
WRONG_PACKETS += [b"\x30\x80\x80\x80\x80\x01"]  # section 2.2.3: a length has four bytes at most
WRONG_PACKETS += [publish("400,t,x", 1, topic=topic) for topic in ("", "s/+", "s/#", "#", "+", "s/us\0")]
WRONG_PACKETS += [publish("400,t,x", qos=1, number=0), publish("400,t,x", qos=3)]
WRONG_PACKETS += [packet(0x82, b"\0\7"), packet(0xA2, b"\0\7")]  # no topics
WRONG_PACKETS += [packet(0x82, b"\0\0" + text("s/e") + b"\0"), connect("dev")]
#: What only servers send, and what nobody sends.
WRONG_PACKETS += [b"\x20\2\0\0", b"\x50\2\0\0", b"\x90\3\0\7\0", b"\xd0\0", b"\0\0", b"\xf0\0"]


@pytest.mark.parametrize("wrong", WRONG_PACKETS)
def test_a_packet_that_mqtt_forbids_ends_the_connection_with_a_sentence(world: World, wrong: bytes) -> None:
    raw = world.dial("dev")
    before = world.logged()
    assert raw.ask(wrong, PING) == b""
    assert world.logged() == before, "a fault of the client's is not a second record, SERVER_ERROR"
    assert world.ending("dev")[-1].startswith("The client sent ")


def test_stopping_with_clients_in_the_way_leaves_no_traceback(tmp_path_factory: pytest.TempPathFactory) -> None:
    with new_world(tmp_path_factory) as world:
        held: list[Any] = [socket.create_connection(world.platform.mqtt), world.dial("connected")]
        held += [world.raw(name) for name in ("in the handshake", "refused")]
        assert held[-1].ask(connect("another")) == b"\x20\2\0\5"
        held.append(world.dial("malformed"))
        assert held[-1].ask(b"\xff\0") == b""
        wait_for(lambda: world.logged() == 3)
        process = psutil.Process(world.platform.pid)
        wait_for(lambda: len([c for c in process.net_connections("tcp") if c.raddr]) >= 3)  # it has seen the others
        world.platform.stop()
        assert set(world.platform.log()["code"]) == {"CONNECTED", "CLIENT_ID_MISMATCH"}
        assert "The platform was stopped." in world.ending("connected")


BYTES, TEXTS = st.binary(max_size=30), st.sampled_from(["s/us", "s/uat", "s/ds", "s/e", "#", "s/+", "x", ""])
PAYLOADS = st.sampled_from(["", "123", "400,t,x", "211,1", "999", '400,"', "x" * 200]).map(str.encode) | BYTES
NUMBERS, QOS = st.sampled_from([0, 1, 2, 7, 65535]), st.sampled_from([0, 1, 2, 3])
#: Packets that are whole, of both sides; not all of them are allowed, and none in every place.
PACKETS = st.one_of(
    st.builds(publish, PAYLOADS, QOS, NUMBERS, st.booleans(), TEXTS),
    st.builds(publish, PAYLOADS, QOS, NUMBERS),
    st.lists(TEXTS, max_size=4).map(lambda topics: subscribe(*topics)),
    st.lists(TEXTS, max_size=4).map(lambda topics: packet(0xA2, b"\0\7" + b"".join(map(text, topics)))),
    st.builds(acknowledged, st.sampled_from([0x20, 0x40, 0x50, 0x62, 0x70, 0x90, 0xB0]), NUMBERS),
    st.builds(
        lambda flags, parts, behind: connect_with(sum(flags), *parts, behind=behind),
        st.sets(st.sampled_from([1, 8, 16, 32, WILL, PASSWORD, USER])),
        st.lists(TEXTS | BYTES, max_size=4),
        st.just(b"") | BYTES,
    ),
    st.builds(connect, st.sampled_from(["dev", "other", "d:dev:x", ""]), st.booleans(), st.just(60)),
    st.sampled_from([PING, PING, PONG, b"\xe0\0", b"\xf0\0", b"GET / HTTP/1.1\r\n\r\n"]),
)
Mutation = Callable[[bytes], bytes]


def overwriting(at: int, others: bytes) -> Mutation:
    return lambda data: data[:at] + others + data[at + len(others) :]


def stretched(length: int, more: int) -> bytes:
    """Write a length of one byte in more bytes than it needs; with four more it is one that MQTT does not allow."""
    return bytes([length | 128, *[128] * (more - 1), 0]) if more else bytes([length])


MUTATIONS: st.SearchStrategy[Mutation] = st.one_of(
    st.just(lambda data: data),
    st.integers(1, 255).map(lambda mask: lambda data: bytes([data[0] ^ mask]) + data[1:]),  # type and flags
    st.integers(0, 255).map(lambda length: lambda data: data[:1] + bytes([length]) + data[2:]),
    st.integers(1, 4).map(lambda more: lambda data: data[:1] + stretched(data[1], more) + data[2:]),
    st.integers(0, 40).map(lambda kept: lambda data: data[:kept]),
    BYTES.map(lambda more: lambda data: data + more),
    st.builds(overwriting, st.integers(0, 40), BYTES),
    st.sampled_from([b"s\0us", b"\xff\xfe/u", b"s/\xed\xa0", b"\xc0\xafus"]).map(
        lambda bad: lambda data: data.replace(b"s/us", bad)
    ),
    st.just(lambda data: data.replace(b"\0\7", b"\0\0")),
    st.just(lambda data: data.replace(b"\0\4s/us", b"\xff\xffs/us")),
)
STREAMS = st.lists(st.builds(lambda data, change: change(data), PACKETS, MUTATIONS), min_size=1, max_size=6)


def conversation(world: World, *records: bytes) -> list[bytes]:
    """Send each part as a TLS record of its own, and give what the platform answers until the connection ends."""
    raw = world.raw()
    with contextlib.suppress(ConnectionError):  # the platform has heard enough
        for record in filter(None, records):
            raw.send(record)
    return raw.everything()


#: Of a client whose certificate is good.
VERDICTS = {"CONNECTED", "MALFORMED", "CLIENT_ID_MISMATCH", "NO_CLIENT_ID", "PROTOCOL_LEVEL", "NO_CONNECT", "WEBSOCKET"}
#: What is allowed in any order, each with its answer.
ANSWERED = st.one_of(
    st.sampled_from([(PING, PONG), (subscribe("s/ds", "#"), b"\x90\4\0\7\1\x80"), (publish("211,1"), b"")]),
    st.integers(1, 65535).map(lambda n: (publish("400,t,x", 1, n), acknowledged(0x40, n))),
    st.integers(1, 3).map(lambda n: (publish("400,t,x", 2, n), acknowledged(0x50, n))),
    st.integers(1, 3).map(lambda n: (acknowledged(0x62, n), acknowledged(0x70, n))),
)
CUTS = st.lists(st.integers(0, 300), max_size=8)


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    return [stream[start:end] for start, end in pairwise([0, *sorted(places), len(stream)])]


@examples(60)
@given(pairs=st.lists(ANSWERED, max_size=20), more=st.integers(0, 3), cuts=CUTS)
def test_what_is_allowed_is_answered_however_it_is_cut_and_its_lengths_are_written(
    world: World, pairs: list[tuple[bytes, bytes]], more: int, cuts: list[int]
) -> None:
    sent = [connect("dev"), *(one[:1] + stretched(one[1], more) + one[2:] for one, _ in pairs)]
    heard = conversation(world, *cut(b"".join(sent), cuts))
    assert heard == [b"\x20\2\0\0", *(answer for _, answer in pairs if answer)]


def alike(answers: list[bytes]) -> tuple[list[bytes], list[bytes]]:
    """Return the messages apart from the rest, for either may overtake the other; a token is another one each time."""
    messages = [one.partition(b",eyJ")[0][4:] if b",eyJ" in one else one for one in answers if one[0] & 0xF0 == 0x30]
    return messages, [one for one in answers if one[0] & 0xF0 != 0x30]


@examples(60)
@given(begin=st.sampled_from([True, True, False]), parts=STREAMS, cuts=CUTS)
def test_many_packets_and_mutants_of_them_have_one_meaning_however_they_are_cut(
    world: World, begin: bool, parts: list[bytes], cuts: list[int]
) -> None:
    stream = (connect("dev") if begin else b"") + b"".join(parts)
    before = world.logged()
    heard = []
    for records in ([stream], cut(stream, cuts)):
        heard.append(conversation(world, *records))
        world.dial("dev").leave()  # the control; it throws away what the mutants had kept in a session
    assert alike(heard[0]) == alike(heard[1])
    assert not heard[0] or heard[0][0][:2] == b"\x20\2", "CONNACK comes first, and nothing else without it"
    codes = world.platform.log()["code"][before:]
    assert len(codes) == 4, "one record a connection"
    assert set(codes) <= VERDICTS


def garbage_after(first: bytes) -> st.SearchStrategy[bytes]:
    """Return bytes that are no TLS, or a record's header with rubbish in it, or a real record that was changed."""
    headers = st.tuples(st.integers(20, 25), st.sampled_from([0, 1, 3, 4]), st.binary(max_size=60)).map(
        lambda part: bytes([part[0], 3, part[1]]) + len(part[2]).to_bytes(2) + part[2]
    )
    changed = st.builds(overwriting, st.integers(0, len(first)), BYTES).map(lambda change: change(first))
    return st.binary(max_size=200) | headers | changed


def client_hello() -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    hello = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        hello.do_handshake()
    return outgoing.read()


@examples(50)
@given(data=garbage_after(client_hello()))
def test_garbage_instead_of_a_handshake_is_one_record_in_the_log(world: World, data: bytes) -> None:
    before = world.logged()
    with socket.create_connection(world.platform.mqtt, SECONDS) as plain:
        plain.sendall(data)
        plain.shutdown(socket.SHUT_WR)
        drain(plain)
    assert world.last_record(before)["code"] in {"NOT_TLS", "PLAIN_MQTT", "WEBSOCKET", "HANDSHAKE_FAILED"}
    assert world.logged() == before + 1


@examples(40)
@given(data=garbage_after(b"\x17\3\3\0\x20" + bytes(32)), admitted=st.booleans(), version=st.sampled_from(TLS))
def test_garbage_after_the_handshake_ends_the_connection(
    world: World, data: bytes, admitted: bool, version: ssl.TLSVersion
) -> None:
    before, context = world.logged(), world.context("dev")
    context.minimum_version = context.maximum_version = version
    raw = Raw(world.platform, context)
    if admitted:
        assert raw.ask(connect("dev")) == b"\x20\2\0\0"
    with raw.tls:
        socket.socket.sendall(raw.tls, data)  # past the encryption
        socket.socket.shutdown(raw.tls, socket.SHUT_WR)
        drain(raw.tls)
    record = world.last_record(before)
    assert record["code"] in ({"CONNECTED"} if admitted else {"NO_CONNECT", "CONNECTION_LOST"})
    assert world.logged() == before + 1
    if admitted:
        assert record["ending"] in {"The client closed the connection.", "The connection broke."}


def drain(connection: socket.socket) -> None:
    """Read until the platform ends the connection; TimeoutError, if it does not, is no ConnectionError."""
    with contextlib.suppress(ssl.SSLError, ConnectionError):
        while connection.recv(65536):
            pass


def test_after_all_that_no_connection_is_left(world: World) -> None:
    world.dial("dev").leave()
    wait_for(lambda: not world.platform.log().query("code == 'CONNECTED'")["ending"].isna().any())

    def held() -> list[Any]:
        connections = psutil.Process(world.platform.pid).net_connections("tcp")
        return [one for one in connections if one.status in (psutil.CONN_ESTABLISHED, psutil.CONN_CLOSE_WAIT)]

    wait_for(lambda: not held())
    raw = world.dial("dev")  # the control: one that is there is seen
    assert len(held()) == 1
    raw.leave()
