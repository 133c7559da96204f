"""Every way to be refused: what the client sees, what the log says of it, and that one thing mended lets it in."""

import contextlib
import http.client
import json
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import platform_tools as tools
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import SSL
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from raw_mqtt import World, connect, new_world

from mciot_nb.pki.names import common_name
from mciot_platform.identity import server_certificate, server_key
from mciot_platform.storage import Storage, TrustAnchor
from mciot_platform.tls import ServerIdentity, TlsContexts

GUIDE, CURRENT = "guide-2021", "current"
VERSIONS = {ssl.TLSVersion.TLSv1_2: "TLSv1.2", ssl.TLSVersion.TLSv1_3: "TLSv1.3"}
#: Every test meets both profiles and both versions; all four pairs with --all.
PAIRS = [(GUIDE, tools.TLS[0]), (CURRENT, tools.TLS[1])]
OTHER_PAIRS = [pytest.param(*pair, marks=pytest.mark.slow) for pair in zip((CURRENT, GUIDE), tools.TLS, strict=True)]
both_versions = pytest.mark.parametrize(("world", "version"), [*PAIRS, *OTHER_PAIRS], indirect=["world"])
one_profile = pytest.mark.parametrize("world", [CURRENT], indirect=True)
both_ways = pytest.mark.parametrize("how", ["CA_DISABLED", "CA_DELETED"])
#: Without "sslv3" or "tlsv1" before it: other versions of OpenSSL say "ssl/tls" there.
UNKNOWN_CA = ("alert unknown ca",) * 2
EXPIRED, BAD_CERTIFICATE = ("alert certificate expired",) * 2, ("alert bad certificate",) * 2
#: What a row connects with: first so that it is refused, then with the one thing mended, as `World.device` by default.
Steps = Iterator[dict[str, Any]]


@pytest.fixture(scope="module", params=[GUIDE, CURRENT])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with new_world(tmp_path_factory, request.param, tenants=2) as world:
        yield world


def trusted(world: World, name: str = "Own", issuer: tools.Entity | None = None, **fields: Any) -> tools.Entity:
    """Upload a new CA of the test's own."""
    ca = tools.make(name, issuer, ca=True)
    assert world.upload(ca, **fields) == 201
    return ca


def revoke(world: World, entity: tools.Entity) -> tools.Entity:
    body = {"crls": [{"serialNumberInHex": f"{entity.certificate.serial_number:x}"}]}
    answer = world.rest("PUT", "/tenant/trusted-certificates/settings/crl", json=body)
    assert answer.status_code == (204 if world.platform.profile == CURRENT else 404)
    option = "/tenant/options/configuration/crl.offline.check.enabled"  # without it the list does nothing
    assert world.rest("PUT", option, json={"value": "true"}).status_code == 200
    return entity


def change(world: World, ca: tools.Entity, **fields: Any) -> None:
    assert world.rest("PUT", ca.fingerprint, json=fields).status_code == 200


def take_away(world: World, ca: tools.Entity, how: str) -> None:
    if how == "CA_DISABLED":
        return change(world, ca, status="DISABLED")
    assert world.rest("DELETE", ca.fingerprint).status_code == 204


def give_back(world: World, ca: tools.Entity, how: str) -> None:
    if how == "CA_DISABLED":
        return change(world, ca, status="ENABLED")
    assert world.upload(ca) == 201


def not_registered(world: World) -> Steps:
    ca = trusted(world, autoRegistrationEnabled=False)
    name = f"new {ca.fingerprint}"
    yield {"entity": (entity := tools.make(name, ca)), "client_id": name}
    change(world, ca, autoRegistrationEnabled=True)
    yield {"entity": entity, "client_id": name}


def with_intermediate(world: World, *more: tools.Entity) -> Steps:
    """The device with its intermediate and ``more``; an intermediate that is uploaded is the anchor."""
    intermediate = tools.make("Intermediate", world.root, ca=True)
    yield {"entity": (entity := tools.make("dev", intermediate)), "chain": (intermediate, *more)}
    assert world.upload(intermediate) == 201
    yield {"entity": entity, "chain": (intermediate,)}


def long_chain(world: World, length: int) -> Steps:
    last = world.root
    for number in range(length - 2):
        last = tools.make(f"Intermediate {number}", last, ca=True)
    yield {"entity": (entity := tools.make("dev", last))}
    assert len(entity.chain) == length and world.upload(last) == 201
    yield {"entity": entity, "chain": (last,)}


def wrong_order(world: World) -> Steps:
    intermediate = trusted(world, "Intermediate", world.root)
    yield {"entity": (entity := tools.make("dev", intermediate)), "chain": (world.root, intermediate)}
    yield {"entity": entity, "chain": (intermediate,)}


def not_uploaded(world: World, ca: tools.Entity) -> Steps:
    yield {"entity": tools.make("dev", ca)}
    assert world.upload(ca) == 201
    yield {"entity": tools.make("dev", ca)}


def namesake(ca: tools.Entity) -> tools.Entity:
    return tools.make(common_name(ca.certificate.subject) or "", ca=True)


def not_its_signature(world: World) -> Steps:
    yield {"entity": tools.make("dev", namesake(world.root)), "chain": (world.root,)}


def namesakes_leaf_alone(world: World) -> Steps:
    yield {"entity": tools.make("dev", namesake(world.root)), "chain": ()}


def taken_away(world: World, how: str) -> Steps:
    entity = tools.make("dev", ca := trusted(world))
    take_away(world, ca, how)
    yield {"entity": entity}
    give_back(world, ca, how)
    yield {"entity": entity}


def no_certificate(world: World, user: str | None = None, password: str | None = None, **options: Any) -> Steps:
    """Without a certificate user and password decide, the right ones where they are not given."""
    right = tools.login(world.platform, **options)
    if user or password or options:
        yield {
            "entity": None,
            "login": (right[0] if user is None else user, right[1] if password is None else password),
        }
    else:
        yield {"entity": None}
    yield {"entity": None, "login": tools.login(world.platform)}


def expired_with_a_password(world: World) -> Steps:
    yield {"entity": tools.make("dev", world.root, **OLD), "login": tools.login(world.platform)}


def ca_as_device(world: World) -> Steps:
    """As thin-edge.io has it: a self-signed CA's certificate is uploaded, and the device presents it itself."""
    own = trusted(world)
    yield {"entity": own, "client_id": "another"}
    yield {"entity": own, "client_id": "Own"}


def revoked_intermediate(world: World) -> Steps:
    intermediate = revoke(world, trusted(world, "Intermediate", world.root))
    yield {"entity": tools.make("dev", intermediate), "chain": (intermediate,)}


@dataclass(frozen=True)
class Row:
    """``sees`` is the CONNACK code, the alert on TLS 1.2 and 1.3, or what `connect` raises; ``names`` a subject."""

    name: str
    code: str
    sees: int | tuple[str, str] | type[Exception] | None
    steps: Callable[[World], Iterable[dict[str, Any]]]
    names: str = "CN=dev"
    profiles: tuple[str, ...] = (GUIDE, CURRENT)  # in the others it connects


OLD, EARLY = {"begins": -9 * tools.DAY, "ends": -tools.DAY}, {"begins": tools.DAY}
WS, WS_ERROR = {"transport": "websockets"}, mqtt.WebsocketConnectionError
ROWS = [
    Row("wrong ClientId", "CLIENT_ID_MISMATCH", 5, lambda w: [{"entity": w.device, "client_id": "another"}]),
    Row("device alone", "INCOMPLETE_CHAIN", 5, lambda w: [{"entity": w.device, "chain": ()}], "CN=Root", (GUIDE,)),
    Row("root left out", "INCOMPLETE_CHAIN", 5, with_intermediate, "CN=Root"),
    Row("three", "CHAIN_TOO_LONG", 5, lambda w: with_intermediate(w, w.root), profiles=(GUIDE,)),
    Row("ten", "CHAIN_TOO_LONG", 5, lambda w: long_chain(w, 10), profiles=(GUIDE,)),
    Row("eleven", "CHAIN_TOO_LONG", 5, lambda w: long_chain(w, 11)),
    Row("wrong order", "CHAIN_ORDER", 5, wrong_order),
    Row("CA as device", "CLIENT_ID_MISMATCH", 5, ca_as_device, "CN=Own"),
    Row("auto-registration off", "NOT_REGISTERED", 5, not_registered, "CN=Own"),
    Row("unknown CA", "UNKNOWN_CA", UNKNOWN_CA, lambda w: not_uploaded(w, tools.make("New", ca=True)), "CN=New"),
    Row("namesake", "UNKNOWN_CA", UNKNOWN_CA, lambda w: not_uploaded(w, namesake(trusted(w, "Twin"))), "CN=Twin"),
    Row("self-signed", "UNKNOWN_CA", UNKNOWN_CA, lambda w: [{"entity": tools.make("dev")}]),
    Row("not its signature", "BAD_SIGNATURE", UNKNOWN_CA, not_its_signature),
    Row("leaf of a namesake", "BAD_SIGNATURE", UNKNOWN_CA, namesakes_leaf_alone, "or put that one into the chain."),
    Row("CA disabled", "CA_DISABLED", UNKNOWN_CA, lambda w: taken_away(w, "CA_DISABLED"), "CN=Own"),
    Row("CA deleted", "CA_DELETED", UNKNOWN_CA, lambda w: taken_away(w, "CA_DELETED"), "CN=Own"),
    Row("expired", "EXPIRED", EXPIRED, lambda w: [{"entity": tools.make("dev", w.root, **OLD)}]),
    Row("expired, alone", "EXPIRED", EXPIRED, lambda w: [{"entity": tools.make("dev", w.root, **OLD), "chain": ()}]),
    Row("not yet valid", "NOT_YET_VALID", BAD_CERTIFICATE, lambda w: [{"entity": tools.make("dev", w.root, **EARLY)}]),
    Row("revoked", "REVOKED", 5, lambda w: [{"entity": revoke(w, tools.make("dev", w.root))}], profiles=(CURRENT,)),
    Row("intermediate revoked", "REVOKED", 5, revoked_intermediate, "CN=Intermediate", (CURRENT,)),
    Row("no certificate", "NO_CREDENTIALS", 5, no_certificate, ""),
    Row("no password", "NO_CREDENTIALS", 5, lambda w: no_certificate(w, password=""), ""),
    Row("wrong password", "BAD_CREDENTIALS", 4, lambda w: no_certificate(w, password="wrong"), "tenantID/"),
    Row("wrong user", "BAD_CREDENTIALS", 4, lambda w: no_certificate(w, user="t1001/nobody"), ""),
    Row("no tenant", "BAD_CREDENTIALS", 4, lambda w: no_certificate(w, user="admin"), "tenantID/"),
    Row("another tenant", "BAD_CREDENTIALS", 4, lambda w: no_certificate(w, user="t1002/admin"), ""),
    Row("no role", "NO_ROLE", 5, lambda w: no_certificate(w, viewer=True), "viewer"),
    Row("expired, password", "EXPIRED", EXPIRED, expired_with_a_password),
    Row("wss", "WEBSOCKET", WS_ERROR, lambda w: [{"entity": w.device, **WS}], ""),
    Row("ws", "WEBSOCKET", WS_ERROR, lambda _: [{"entity": None, **WS, "tls": False}], ""),
    Row("plain MQTT", "PLAIN_MQTT", None, lambda _: [{"entity": None, "tls": False}], ""),
    Row("MQTT 5", "PROTOCOL_LEVEL", 1, lambda w: [{"entity": w.device, "protocol": MQTTProtocolVersion.MQTTv5}], ""),
]


@contextlib.contextmanager
def attempt(
    world: World, version: ssl.TLSVersion, *, transport: Any = "tcp", tls: bool = True, **options: Any
) -> Iterator[tools.Seen]:
    """Connect as a row wants it."""
    if transport == "tcp" and tls:
        with world.connect(**options, version=version) as (_, seen):
            yield seen
        return
    seen = tools.Seen()
    client = mqtt.Client(CallbackAPIVersion.VERSION2, "dev", transport=transport, reconnect_on_failure=False)
    client.on_connect = lambda *_: seen.connected.set()
    client.on_disconnect = lambda *_: seen.gone.set()
    if tls:
        client.tls_set_context(context_of(world, options["entity"], version))
    try:
        client.connect("localhost", world.platform.mqtt[1])
        client.loop_start()
        tools.wait_for(lambda: seen.gone.is_set() or seen.connected.is_set())
    except mqtt.WebsocketConnectionError as error:
        seen.raised = f"{type(error).__name__}: {error}"
    yield seen
    client.loop_stop()


def chain_in_the_log(options: dict[str, Any]) -> list[str]:
    """Name what was sent as the log does: subject, and serial number as ``openssl x509 -serial`` shows it."""
    entity, chain = options["entity"], options.get("chain")
    if not entity:
        return []
    sent = entity.chain if chain is None else [link.certificate for link in (entity, *chain)]
    return [f"{c.subject.rfc4514_string()} (serial number {c.serial_number:X})" for c in sent]


def check_what_the_client_sees(row: Row, seen: tools.Seen, version: ssl.TLSVersion) -> None:
    if isinstance(row.sees, int):
        assert seen.connack == row.sees and not seen.raised
        return
    assert seen.connack is None and not seen.connected.is_set()
    if isinstance(row.sees, tuple):
        alert = row.sees[tools.TLS.index(version)]
        tools.wait_for(lambda: alert in seen.text.lower().replace("_", " "))
        assert bool(seen.raised) == (version == ssl.TLSVersion.TLSv1_2)  # on 1.3 on_log alone tells it
        assert seen.gone.wait(tools.SECONDS)
    elif row.sees:
        assert seen.raised.startswith(row.sees.__name__)
    else:
        assert seen.gone.is_set() and not seen.text


@both_versions
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_refusal_is_seen_on_both_sides(world: World, row: Row, version: ssl.TLSVersion) -> None:
    steps = iter(row.steps(world))
    check(world, version, next(steps), row if world.platform.profile in row.profiles else None)
    check(world, version, next(steps, {"entity": world.device}), None)  # the control


def check(world: World, version: ssl.TLSVersion, options: dict[str, Any], row: Row | None) -> None:
    """Connect, and see that client and log say what the row of the refusal says, or that it is let in."""
    before = world.logged()
    with attempt(world, version, **options) as seen:
        if row:
            check_what_the_client_sees(row, seen, version)
        else:
            assert seen.connack == 0, seen.text
    record, entity, sent = world.last_record(before), options["entity"], chain_in_the_log(options)
    assert world.logged() == before + 1
    assert record["code"] == (row.code if row else "CONNECTED"), record["reason"]
    assert record["reason"].endswith(".") and ". " not in record["reason"], "It is not one sentence."
    assert (row.names if row else "") in record["reason"], record["reason"]
    assert record["address"].startswith("127.0.0.1:")
    assert record["tls"] == (VERSIONS[version] if options.get("tls", True) else "")
    assert record["subject"] == (entity.certificate.subject.rfc4514_string() if entity else "")
    assert record["client_id"] == (options.get("client_id", "dev") if not row or row.sees in (4, 5) else "")
    failed_handshake = row and entity and isinstance(row.sees, tuple)  # then it is as long as OpenSSL tells
    assert record["chain"] == (sent[: max(1, len(record["chain"]))] if failed_handshake else sent)


def connection(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> ssl.SSLSocket:
    plain = socket.create_connection(("127.0.0.1", port), timeout=tools.SECONDS)
    return context.wrap_socket(plain, server_hostname="localhost", session=session)


def connack(tls: ssl.SSLSocket) -> bytes:
    tls.sendall(connect("dev"))
    return tls.recv(10)


def https_port(world: World) -> int:
    return int(world.platform.https.rpartition(":")[2])


def context_of(world: World, entity: tools.Entity, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """Return what a device connects with, without paho."""
    context = tools.client_context(world.platform, version)
    context.load_cert_chain(tools.write_chain(entity, world.folder / "context.pem"))
    return context


CLIENT_IDS = [
    *(("dev", accepted, 0) for accepted in ("dev", "d:dev", "d:dev:template", "dev:template", "dev:")),
    *(("dev", refused, 5) for refused in ("devx", "DEV", "d:devx", "d:d:dev", ":dev", "x:dev", "d:", " dev")),
    ("dev", "", 2),
    *(("00:11", refused, 5) for refused in ("00:11", "d:00:11", "00", "00:11:template")),
    *(("d", accepted, 0) for accepted in ("d", "d:d", "d:d:d")),
]


@one_profile
@pytest.mark.parametrize("name", ["dev", "00:11", "d"])
def test_a_client_id_bears_the_common_name(world: World, name: str) -> None:
    for client_id, code in [(client_id, code) for other, client_id, code in CLIENT_IDS if other == name]:
        before = world.logged()
        with world.raw(name).tls as tls:  # paho keeps CONNACK 2 to itself
            tls.sendall(connect(client_id))
            assert tls.recv(4) == bytes([0x20, 2, 0, code]), client_id
        record = world.last_record(before)
        assert record["code"] == {0: "CONNECTED", 2: "NO_CLIENT_ID", 5: "CLIENT_ID_MISMATCH"}[code]
        assert record["client_id"] == client_id and record["subject"] == f"CN={name}"
        assert ("without a colon" in record["reason"]) == (name == "00:11")
    assert (name in set(world.platform.devices()["device"])) == (name != "00:11")


@one_profile
def test_a_namesake_without_key_identifiers_is_named_truly(world: World) -> None:
    """OpenSSL then takes the trusted certificate for the issuer, although the client never sent that one."""
    ca, before = trusted(world, "Plain"), world.logged()
    entity = tools.make("dev", other := namesake(ca), bare=True)
    with world.connect(entity) as (_, seen):
        assert seen.connack is None
    record, sent = world.last_record(before), chain_in_the_log({"entity": entity})
    assert record["code"] in ("UNKNOWN_CA", "BAD_SIGNATURE")
    assert "the certificate of that name in the chain did not sign it" not in record["reason"]  # it did
    assert record["chain"] == sent[: max(1, len(record["chain"]))]
    take_away(world, ca, "CA_DELETED")
    assert world.upload(other) == 201
    with world.connect(entity) as (_, seen):  # the control
        assert seen.connack == 0


@one_profile
@pytest.mark.parametrize("bare", [False, True], ids=["identifiers", "none"])
def test_a_namesake_of_another_tenant_locks_nobody_out(world: World, bare: bool) -> None:
    """A class that follows one text may well make CAs of one name."""
    ca = trusted(world, "Class")
    for issuer in (ca, namesake(ca)):
        if issuer is not ca:
            assert upload_to_second(world, issuer) == 201
        before = world.logged()
        with world.connect(tools.make("dev", issuer, bare=bare)) as (_, seen):
            record = world.last_record(before)
            assert seen.connack == 0, (issuer is ca, record["reason"])


@both_ways
@both_versions
def test_a_resumed_session_does_not_get_round_a_ca_taken_away(world: World, version: ssl.TLSVersion, how: str) -> None:
    """On the MQTT port there is none; on the HTTPS port each call checks the chain anew, on a kept connection too."""
    entity, port, https = tools.make("dev", ca := trusted(world)), world.platform.mqtt[1], https_port(world)
    context, good = context_of(world, entity, version), 200 if world.platform.profile == CURRENT else 404
    with connection(port, context) as tls:
        assert connack(tls) == b"\x20\x02\x00\x00"
        sessions = [tls.session]
    with connection(https, context) as kept:
        assert ask_for_token(kept) == good
        sessions.append(kept.session)

        def tokens(status: int) -> None:
            assert ask_for_token(kept) == status
            for session in (sessions[1], None):
                with connection(https, context, session) as tls:
                    assert tls.session_reused == bool(session) and ask_for_token(tls) == status

        tokens(good)  # so the client does offer its session
        for session in sessions:
            with connection(port, context, session) as tls:
                assert connack(tls) == b"\x20\x02\x00\x00" and not tls.session_reused
        take_away(world, ca, how)
        for session in (None, *sessions):
            before = world.logged()
            with pytest.raises(ssl.SSLError, match="UNKNOWN_CA"), connection(port, context, session) as tls:
                connack(tls)
            assert world.last_record(before)["code"] == how
        before = world.logged()
        tokens(401 if good == 200 else 404)
        if good == 200:
            assert list(world.platform.log()["code"][before:]) == [how] * 3
        give_back(world, ca, how)
        with connection(port, context, sessions[1]) as tls:  # the control
            assert connack(tls) == b"\x20\x02\x00\x00"
        tokens(good)
        if good == 200:
            revoke(world, entity)
            tokens(401)
            assert list(world.platform.log()["code"][-3:]) == ["REVOKED"] * 3


def ask_for_token(tls: ssl.SSLSocket) -> int:
    """Return the status of the answer; the connection stays."""
    request = "POST /devicecontrol/deviceAccessToken HTTP/1.1\r\nHost: localhost\r\nAccept: application/json"
    tls.sendall(f"{request}\r\nContent-Length: 0\r\n\r\n".encode())
    answer = http.client.HTTPResponse(tls, method="POST")
    answer.begin()
    assert ("access_token" in json.loads(answer.read())) == (answer.status == 200)
    return answer.status


@both_versions
def test_the_list_of_accepted_issuers_is_what_is_trusted_now(world: World, version: ssl.TLSVersion) -> None:
    """A client may leave its certificate at home if the list does not name its issuer."""
    ca = trusted(world, f"Listed {version}")

    def listed() -> bool:
        context, heard = SSL.Context(SSL.TLS_CLIENT_METHOD), b""
        context.set_max_proto_version(SSL.TLS1_2_VERSION if version == tools.TLS[0] else SSL.TLS1_3_VERSION)
        with socket.create_connection(world.platform.mqtt, tools.SECONDS) as plain:
            tls = SSL.Connection(context, None)
            tls.set_connect_state()
            with contextlib.suppress(SSL.WantReadError):
                tls.do_handshake()
            plain.sendall(tls.bio_read(65536))
            names: list[Any] = []
            while not names:
                heard = plain.recv(65536)
                assert heard
                tls.bio_write(heard)
                with contextlib.suppress(SSL.WantReadError):
                    tls.do_handshake()
                names = tls.get_client_ca_list()
        return common_name(ca.certificate.subject) in [name.CN for name in names]

    assert listed()
    change(world, ca, status="DISABLED")
    assert not listed()


@pytest.mark.parametrize(("count", "listed"), [(100, 100), (1500, 0)])
def test_a_list_of_issuers_that_is_too_long_is_left_out(tmp_path: Path, count: int, listed: int) -> None:
    """From 64 kB of names on OpenSSL fails every handshake, whoever knocks."""
    storage, key = Storage(tmp_path / "platform.sqlite"), server_key(tmp_path)
    contexts = TlsContexts(ServerIdentity(key, server_certificate(tmp_path, key, "localhost")), storage)
    with storage.transaction():
        for number in range(count):
            ca = tools.make(f"A name of thirty letters {number:05}", ca=True)
            storage.put_trusted_certificate(
                TrustAnchor(ca.certificate, "t1001", "ENABLED", True, fingerprint=ca.fingerprint, name="")
            )
    server, client = (
        SSL.Connection(contexts.current()[0], None),
        SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None),
    )
    server.set_accept_state()
    client.set_connect_state()
    for one, other in [(client, server), (server, client)] * 2:
        with contextlib.suppress(SSL.WantReadError):
            one.do_handshake()
        with contextlib.suppress(SSL.WantReadError):
            other.bio_write(one.bio_read(10**6))
    assert server.get_state_string().startswith(b"SSL negotiation finished")
    assert len(client.get_client_ca_list()) == listed
    storage.close()


@one_profile
@both_ways
def test_a_ca_taken_away_between_handshake_and_connect_lets_nobody_in(world: World, how: str) -> None:
    ca, before = trusted(world), world.logged()
    context = context_of(world, tools.make("dev", ca), ssl.TLSVersion.TLSv1_2)  # there both know that it is over
    with connection(world.platform.mqtt[1], context) as tls:  # that this chain was good must not be remembered too long
        assert connack(tls) == b"\x20\x02\x00\x00"
    before += 1
    with connection(world.platform.mqtt[1], context) as tls:
        take_away(world, ca, how)
        assert connack(tls) == b"\x20\x02\x00\x05"
    assert world.last_record(before)["code"] == how
    give_back(world, ca, how)
    with connection(world.platform.mqtt[1], context) as tls:  # the control
        assert connack(tls) == b"\x20\x02\x00\x00"


def served(client: mqtt.Client, seen: tools.Seen) -> bool:
    """Whether the platform still acknowledges what the device sends."""
    message = client.publish("s/us", "400,t,still here", qos=1)
    message.wait_for_publish(tools.SECONDS)
    return message.is_published() and not seen.gone.is_set()


@both_ways
@both_versions
def test_a_ca_taken_away_ends_its_sessions_and_no_others(world: World, version: ssl.TLSVersion, how: str) -> None:
    platform, ca = world.platform, trusted(world)
    below = trusted(world, "Below", ca)  # uploaded itself, so it vouches for its devices alone
    before, options = world.logged(), {"version": version}
    with (
        world.connect(tools.make("a1", ca), client_id="a1", **options) as (_, a1),
        world.connect(tools.make("a2", ca), client_id="d:a2:x", **options) as (client, a2),
        world.connect(world.device, **options) as (other, control),
        world.connect(tools.make("b", below), (below,), client_id="b", **options) as (lower, b),
    ):
        assert [a1.connack, a2.connack, control.connack, b.connack] == [0] * 4
        change(world, ca, name="renamed")
        assert served(client, a2)
        take_away(world, ca, how)
        assert a1.gone.wait(tools.SECONDS) and a2.gone.wait(tools.SECONDS)
        assert served(other, control) and served(lower, b)
        records = platform.log().iloc[before:].set_index("client_id")
        word = how.removeprefix("CA_").lower()
        assert set(records.loc[["a1", "d:a2:x"], "ending"]) == {f"The trusted certificate was {word}."}
        assert records.loc[["dev", "b"], "ended"].isna().all()
    give_back(world, ca, how)
    with world.connect(tools.make("a1", ca), client_id="a1", **options) as (_, a1):
        assert a1.connack == 0


@one_profile
def test_a_refused_connection_ends_no_other_and_one_in_another_form_does(world: World) -> None:
    """More on takeovers is in test_mqtt_protocol.py."""
    before = world.logged()
    with world.connect(world.device) as (client, first):
        for entity, name, expected in (
            (tools.make("dev", tools.make("Stranger", ca=True)), "dev", None),
            (tools.make("mallory", world.root), "dev", 5),
            (tools.make("mallory", world.root), "mallory", 0),
        ):
            with world.connect(entity, client_id=name) as (_, seen):
                assert seen.connack == expected
        assert served(client, first)
        with world.connect(tools.make("dev", trusted(world)), client_id="d:dev:x") as (client, second):  # of another CA
            assert first.gone.wait(tools.SECONDS) and second.connack == 0
            assert served(client, second)
            assert world.platform.log()["ending"].iloc[before].startswith("The same ClientId connected again")


def upload_to_second(world: World, ca: tools.Entity) -> int:
    body = {"certInPemFormat": ca.pem, "status": "ENABLED", "autoRegistrationEnabled": True}
    path = f"/tenant/tenants/{world.platform.tenant_ids[1]}/trusted-certificates"
    return world.rest("POST", path, json=body, auth=tools.login(world.platform, 1)).status_code


@both_versions
def test_a_device_lands_in_the_tenant_of_its_ca(world: World, version: ssl.TLSVersion) -> None:
    platform, one = world.platform, trusted(world, "Twin")
    two = namesake(one)
    assert upload_to_second(world, two) == 201
    before, events = world.logged(), len(platform.events())
    with (
        world.connect(tools.make("twin", one), client_id="twin", version=version) as (client_one, first),
        world.connect(tools.make("twin", two), client_id="twin", version=version) as (client_two, second),
    ):
        assert served(client_one, first) and served(client_two, second)  # no takeover across tenants
        records = platform.log().iloc[before:]
        assert list(records["tenant"]) == list(platform.tenant_ids)
        assert list(platform.events().iloc[events:]["tenant"]) == list(platform.tenant_ids)
        assert list(platform.devices().query("device == 'twin'")["tenant"]) == list(platform.tenant_ids)
        take_away(world, one, "CA_DISABLED")
        assert first.gone.wait(tools.SECONDS) and served(client_two, second)


@one_profile
def test_a_client_that_does_not_know_the_platform_is_named(world: World) -> None:
    for version in tools.TLS:
        before, context = world.logged(), ssl.create_default_context()
        context.minimum_version = context.maximum_version = version
        with socket.create_connection(world.platform.mqtt) as plain, pytest.raises(ssl.SSLCertVerificationError):
            context.wrap_socket(plain, server_hostname="localhost")
        record = world.last_record(before)
        assert record["code"] == "HANDSHAKE_FAILED" and record["reason"].endswith(
            "give it serverCert.pem as trusted CA."
        )


@one_profile
def test_both_names_of_the_platform_verify_and_no_third_one(world: World) -> None:
    context = tools.client_context(world.platform)
    context.verify_flags |= ssl.VERIFY_X509_STRICT  # Python 3.13 sets it by itself
    for port in (world.platform.mqtt[1], https_port(world)):
        for name in ("localhost", "127.0.0.1", "other.example"):
            said = ""  # the MQTT port's complaint about the missing certificate comes later, or is another error
            with socket.create_connection(("127.0.0.1", port)) as plain:
                try:
                    context.wrap_socket(plain, server_hostname=name).close()
                except ssl.SSLCertVerificationError as error:
                    said = str(error)
            assert ("Hostname mismatch" in said) if name == "other.example" else not said


@one_profile
@pytest.mark.parametrize(
    ("oid", "der", "code"), [("17", "3004a3020500", "CONNECTED"), ("37", "3000", "INVALID_PURPOSE")]
)
def test_what_cryptography_can_not_read_is_taken_as_openssl_takes_it(
    world: World, oid: str, der: str, code: str
) -> None:
    """An X.400 address as alternative name, and an extended key usage without any."""
    before, number = world.logged(), x509.ObjectIdentifier(f"2.5.29.{oid}")
    odd = tools.make("dev", world.root, extra=[x509.UnrecognizedExtension(number, bytes.fromhex(der))])
    with world.connect(odd) as (_, seen):
        assert (seen.connack == 0) == (code == "CONNECTED")
    record = world.last_record(before)
    assert record["code"] == code and record["reason"].endswith("."), record["reason"]
    with world.connect(world.device) as (_, seen):  # the control
        assert seen.connack == 0


@one_profile
@pytest.mark.parametrize("usage", [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
def test_a_certificate_for_servers_is_named(world: World, usage: x509.ObjectIdentifier) -> None:
    before = world.logged()
    with world.connect(tools.make("dev", world.root, extra=[x509.ExtendedKeyUsage([usage])])) as (_, seen):
        assert (seen.connack == 0) == (usage == ExtendedKeyUsageOID.CLIENT_AUTH)
    record = world.last_record(before)
    if usage == ExtendedKeyUsageOID.SERVER_AUTH:
        assert record["code"] == "INVALID_PURPOSE" and "clientAuth" in record["reason"]
