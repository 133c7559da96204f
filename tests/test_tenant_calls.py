"""A tenant's REST calls against the real local platform, and against servers that are off, silent or no platform."""

import contextlib
import dataclasses
import json
import re
import secrets
import socket
import ssl
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest
import urllib3.util.connection
from conftest import PASSPHRASE, examples
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st
from platform_tools import Entity, make, started

from mciot_nb import Device, DistinguishedName, LocalPlatform, OnboardingError, Secret, Tenant
from mciot_nb.connect import http as rest
from mciot_nb.connect import tenant as tenant_module
from mciot_nb.connect import trusted_certificates
from mciot_nb.pki.authority import CertificateAuthority
from mciot_nb.pki.chain import to_pem
from mciot_nb.pki.keys import KeyType, read_private_key

Talk = Callable[[socket.socket], object]


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPlatform]:
    with started(tmp_path_factory.mktemp("current"), "current") as platform:
        yield platform


@pytest.fixture(autouse=True)
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest._RETRIES, "backoff_factor", 0.0)


@pytest.fixture(scope="module")
def tenant(platform: LocalPlatform) -> Tenant:
    return platform.tenant


@pytest.fixture(scope="module")
def root(platform: LocalPlatform) -> Entity:
    root = make("Root", ca=True)
    platform.tenant.trusted_certificates.upload(root.certificate)
    return root


def device_of(
    platform: LocalPlatform, folder: Path, entity: Entity, *, shown: Sequence[x509.Certificate] = (), **options: Any
) -> Device:
    """Make a device of a small certificate; ``shown`` is what it presents if not its chain."""
    key = entity.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(PASSPHRASE.encode()))
    files = {"chain": folder / "chain.pem", "key": folder / "key.pem", "trusted": platform.server_certificate}
    files["key"].write_bytes(key)
    files["chain"].write_bytes(to_pem(shown or entity.chain))
    host, port = options.pop("address", platform.mqtt)
    return Device(host, port, **{"passphrase": PASSPHRASE, **files, **options})


def refused(code: str, call: Callable[[], object]) -> str:
    """Check that ``call`` is refused in one sentence with this code (or pattern), and return the sentence."""
    with pytest.raises(OnboardingError) as error:
        call()
    text = str(error.value)
    assert fnmatchcase(error.value.code, code), text
    assert "\n" not in text and text.endswith(".") and len(text) < 400
    return text


def hear(connection: socket.socket) -> None:
    """Say nothing until the client has ended the connection."""
    while connection.recv(4096):
        pass


def says(data: bytes, *, waits: bool = False) -> Talk:
    """Hear the client's first words, answer, and end the connection, or wait for what comes."""

    def talk(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(data)
        if not waits:
            connection.shutdown(socket.SHUT_WR)

    return talk


def over_tls(
    file: Path, version: ssl.TLSVersion | None = None, *, key: Path | None = None, talk: Talk = hear, demand: str = ""
) -> Talk:
    """Shake hands with the key and the chain of ``file``, and with ``demand``, ask for a certificate of that CA."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, key)
    if version:
        context.minimum_version = context.maximum_version = version
    if demand:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(demand)

    def handle(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secured:
            talk(secured)

    return handle


@contextlib.contextmanager
def served(talk: Talk, patience: float = 60.0) -> Iterator[int]:
    """Serve on a port of 127.0.0.1, a thread for each connection, which must see the client's end in time."""
    threads: list[threading.Thread] = []

    def serve_one(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            talk(connection)
            hear(connection)

    def serve() -> None:
        with contextlib.suppress(OSError):  # closed: the test is over
            while True:
                threads.append(threading.Thread(target=serve_one, args=[listener.accept()[0]], daemon=True))
                threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepting = threading.Thread(target=serve, daemon=True)
        accepting.start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        accepting.join(30)
    for thread in threads if patience else []:
        thread.join(patience)
        assert not thread.is_alive(), "the client has left a connection open"


@contextlib.contextmanager
def server(known: LocalPlatform | Tenant, talk: Talk, *, tls: bool = True) -> Iterator[int]:
    """Serve with the platform's own certificate; ``talk`` gets each connection, and may be left in the midst of it."""
    file = Path(str(known.verify)) if isinstance(known, Tenant) else known.server_certificate
    shaken = over_tls(file, key=file.with_name("serverKey.pem"), talk=talk) if tls else talk
    with served(shaken, patience=0) as port:
        yield port


class Call(NamedTuple):
    method: str
    path: str
    body: bytes

    @classmethod
    def read(cls, connection: socket.socket) -> "Call":
        """Read all of it: who leaves before that resets the connection."""
        received = b""
        while b"\r\n\r\n" not in received:
            if not (data := connection.recv(65536)):
                raise ConnectionError("The client has left.")
            received += data
        head, _, body = received.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: *(\d+)", head)
        while length and len(body) < int(length[1]):
            body += connection.recv(65536)
        method, path, _ = head.decode().split(" ", 2)
        return cls(method, path, body)


def answer(body: object, status: str = "200 OK", *headers: str) -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(content)}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + content


@contextlib.contextmanager
def scripted(tenant: Tenant, *answers: bytes) -> Iterator[tuple[Tenant, list[Call]]]:
    """Be a tenant that gives these answers in turn, the last one again and again; an empty one breaks off."""
    calls: list[Call] = []

    def talk(connection: socket.socket) -> None:
        calls.append(Call.read(connection))
        connection.sendall(answers[min(len(calls), len(answers)) - 1])

    with server(tenant, talk) as port:
        yield dataclasses.replace(tenant, url=f"https://127.0.0.1:{port}"), calls


EMPTY = answer({"certificates": []})
BUSY = answer(b"", "503 Service Unavailable", "Retry-After: 3600")
CERTIFICATE = {"fingerprint": "ab" * 20, "name": "CA", "status": "ENABLED", "notAfter": "2041-08-29T07:42:00.000Z"}


def test_one_trusted_certificate_is_read_changed_and_taken_away(tenant: Tenant) -> None:
    trusted, ca = tenant.trusted_certificates, make("Changing", ca=True)
    uploaded = trusted.upload(ca.certificate, "first", auto_registration=False)
    assert uploaded in trusted.list() and "first" in trusted.to_frame()["name"].tolist()
    assert uploaded.not_after.replace(microsecond=0) == ca.certificate.not_valid_after_utc
    assert "there already" in refused("HTTP_409", lambda: trusted.upload(ca.certificate))
    assert trusted.ensure(ca.certificate) == trusted.find(ca.certificate) == uploaded
    with_colons = ":".join(re.findall("..", ca.fingerprint.upper()))
    for which in (ca.certificate, uploaded, ca.fingerprint, with_colons):
        assert trusted.find(which) == uploaded
    changed = trusted.update(uploaded, name="second")
    assert (changed.name, changed.auto_registration, changed.status) == ("second", False, "ENABLED")
    assert trusted.update(uploaded, auto_registration=True).auto_registration
    assert trusted.update(uploaded, status="DISABLED") == trusted.find(uploaded)
    assert trusted.find(uploaded).status == "DISABLED"
    assert trusted.update(uploaded, status="ENABLED").status == "ENABLED" and trusted.find(uploaded).name == "second"
    assert "ENABLED or DISABLED" in refused("HTTP_422", lambda: trusted.update(uploaded, status="OFF"))
    trusted.delete(uploaded)
    assert trusted.find(ca.certificate) is None
    for call in (trusted.delete, lambda one: trusted.update(one, status="ENABLED")):
        refused("HTTP_404", lambda call=call: call(uploaded))  # type: ignore[misc]
    for text in ("", "ab" * 19, "../" + "a" * 37, "g" * 40, "ab" * 32):
        assert "40" in refused("BAD_FINGERPRINT", lambda text=text: trusted.find(text))  # type: ignore[misc]


def test_several_at_once_are_all_taken_or_none(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    trusted, cas = tenant.trusted_certificates, [make(f"Bulk {number}", ca=True).certificate for number in range(7)]
    before = trusted.list()
    uploaded = trusted.upload_all(cas[:6], auto_registration=False)
    assert [one.name for one in uploaded] == [f"Bulk {number}" for number in range(6)]
    assert not any(one.auto_registration for one in uploaded) and trusted.upload_all([]) == []
    assert "there already" in refused("HTTP_409", lambda: trusted.upload_all(cas[0]))
    refused("HTTP_409", lambda: trusted.upload_all([cas[6], cas[0]]))
    assert "CA:true" in refused("HTTP_422", lambda: trusted.upload_all([cas[6], make("leaf").certificate]))
    assert trusted.find(cas[6]) is None
    for size in (1, 2, 3, 100):
        monkeypatch.setattr(tenant_module, "PAGE", size)
        listed = trusted.list()
        assert {one.fingerprint for one in listed} == {one.fingerprint for one in [*before, *uploaded]}
        assert len(listed) == len(before) + 6
    assert set(trusted.to_frame()["name"]) >= {"Bulk 0", "Bulk 5"}
    for one in uploaded:
        trusted.delete(one)
    assert trusted.list() == before


@pytest.mark.parametrize(
    ("pages", "names"),
    [
        ([["a", "b"], ["c"]], "abc"),  # says that there is more
        ([["a"] * 100, ["b"]], "a" * 100 + "b"),  # says nothing, but the page is full
        ([["a"], ["a"]], "a"),  # a server that knows no pages
        ([["a"], []], "a"),  # it says so until a page is empty, as the vendor's does
    ],
)
def test_pages_are_followed_to_the_end(tenant: Tenant, pages: list[list[str]], names: str) -> None:
    bodies = [
        {"certificates": [CERTIFICATE | {"name": name} for name in page]}
        | ({"next": "https://elsewhere.example.com"} if len(page) < 100 and number < len(pages) - 1 else {})
        for number, page in enumerate(pages)
    ]
    with scripted(tenant, *map(answer, bodies)) as (odd, calls):
        assert "".join(one.name for one in odd.trusted_certificates.list()) == names
    assert ["currentPage=1&" in calls[0].path, "currentPage=2&" in calls[1].path] == [True, True]


def test_possession_is_proven_with_the_right_key_only(tenant: Tenant, root: Entity) -> None:
    trusted, other = tenant.trusted_certificates, make("Other", ca=True)
    assert trusted.find(root.certificate).proven is False
    nowhere = dataclasses.replace(tenant, url="https://127.0.0.1:1").trusted_certificates
    refused("KEY_MISMATCH", lambda: nowhere.prove_possession(root.certificate, other.key))
    refused("NOT_REACHED", lambda: nowhere.prove_possession(root.certificate, root.key))  # the control
    assert "not uploaded" in refused("HTTP_404", lambda: trusted.prove_possession(other.certificate, other.key))
    assert trusted.find(root.certificate).proven is False
    assert trusted.prove_possession(root.certificate, root.key).proven is True
    assert trusted.find(root.certificate).proven is True


def test_an_rsa_key_proves_possession_too(tenant: Tenant, tmp_path: Path) -> None:
    ca = CertificateAuthority.create(
        tmp_path, DistinguishedName(common_name="RSA"), PASSPHRASE, key_type=KeyType.RSA_2048
    )
    tenant.trusted_certificates.upload(ca.certificate)
    key = read_private_key(ca.folder / "caKey.pem", PASSPHRASE)
    assert tenant.trusted_certificates.prove_possession(ca.certificate, key).proven is True
    tenant.trusted_certificates.delete(ca.certificate)


@pytest.mark.parametrize("code", ["0\x82\x01 tbs", "", "two\nlines", "é", "x" * 5000])
def test_a_ca_key_signs_nothing_but_a_plain_code(tenant: Tenant, code: str) -> None:
    ca = make("Signer", ca=True)
    with scripted(tenant, answer({"proofOfPossessionUnsignedVerificationCode": code})) as (odd, calls):
        refused("BAD_CODE", lambda: odd.trusted_certificates.prove_possession(ca.certificate, ca.key))
    assert len(calls) == 1
    plain = answer({"proofOfPossessionUnsignedVerificationCode": "6qgy/Iiq+nYAx=="})
    with scripted(tenant, plain, answer(CERTIFICATE | {"proofOfPossessionValid": True})) as (odd, calls):
        assert odd.trusted_certificates.prove_possession(ca.certificate, ca.key).proven
    assert [call.path.rpartition("/")[2] for call in calls] == ["verification-code", "pop"]
    assert re.fullmatch(r"[A-Za-z0-9+/=]+", json.loads(calls[1].body)["proofOfPossessionSignedVerificationCode"])


def test_a_chain_is_verified_and_a_revoked_one_refused(
    tenant: Tenant, platform: LocalPlatform, root: Entity, tmp_path: Path
) -> None:
    trusted, leaf, stays = tenant.trusted_certificates, make("leaf", root), make("stays", root)
    verified = trusted.verify_chain(leaf.chain)
    assert (verified.subject, verified.issuer, verified.tenant_id) == ("CN=leaf", "CN=Root", tenant.tenant_id)
    foreign = make("leaf", make("Root", ca=True))
    assert "the chain is not valid" in refused("HTTP_401", lambda: trusted.verify_chain(foreign.chain))
    wrong = dataclasses.replace(tenant, password=Secret("wrong-one")).trusted_certificates
    assert "login" in refused("HTTP_401", lambda: wrong.verify_chain(leaf.chain))
    assert "ten certificates" in refused("HTTP_400", lambda: trusted.verify_chain(leaf.chain * 6))
    with device_of(platform, tmp_path, leaf):  # the control
        pass
    said = trusted.revoke([leaf.certificate, 0x1000, "1f:FE"], datetime.now(UTC) - timedelta(days=1))
    assert {leaf.certificate.serial_number, 0x1000, 0x1FFE} <= set(trusted.revoked())
    before = set(trusted.revoked())
    for one in (leaf.certificate, 0x2000, "2FFE"):  # a text is one number, not one of each letter
        assert trusted.revoke(one) == said
    assert set(trusted.revoked()) - before == {0x2000, 0x2FFE}
    assert trusted.verify_chain(iter(leaf.chain)) == verified
    assert "no effect yet" in said and "check_revocations()" in said and not trusted.checks_revocations()
    for on in (False, True, False):  # the first and the last are the control
        trusted.check_revocations(on)
        assert trusted.checks_revocations() is on
        assert ("refused from now on" in trusted.revoke([])) == on
        if on:
            refused("HTTP_401", lambda: trusted.verify_chain(leaf.chain))
            with pytest.raises(OnboardingError):
                device_of(platform, tmp_path, leaf).connect()
        else:
            assert trusted.verify_chain(leaf.chain).subject == "CN=leaf"
            with device_of(platform, tmp_path, leaf):
                pass
        assert trusted.verify_chain(stays.chain).subject == "CN=stays"


def test_serial_numbers_go_in_batches(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    trusted = tenant.trusted_certificates
    before = len(trusted.revoked())
    monkeypatch.setattr(trusted_certificates, "LONGEST_REVOCATION", 2)
    trusted.revoke(range(0x20000, 0x20005))
    assert set(range(0x20000, 0x20005)) <= set(trusted.revoked()) and len(trusted.revoked()) == before + 5
    with scripted(tenant, answer(b"", "204 No Content")) as (odd, calls):
        odd.trusted_certificates.revoke(range(1, 6))
        assert "can't be read with this login" in odd.trusted_certificates.revoke([])
    assert [len(json.loads(call.body)["crls"]) for call in calls if call.method == "PUT"] == [2, 2, 1]
    assert json.loads(calls[0].body)["crls"] == [{"serialNumberInHex": "1"}, {"serialNumberInHex": "2"}]
    for wrong in (0, -5, "", "xyz", "1 2", "f" * 41):
        refused("BAD_SERIAL", lambda wrong=wrong: trusted.revoke([wrong]))  # type: ignore[misc]
    assert "time zone" in refused("BAD_VALUE", lambda: trusted.revoke([1], datetime(2026, 1, 1)))
    assert "since 1950" in refused("HTTP_400", lambda: trusted.revoke([1], datetime(1949, 1, 1, tzinfo=UTC)))


def test_a_platform_of_the_guides_time_says_what_it_lacks(tmp_path: Path) -> None:
    ca = make("Old", ca=True)
    with started(tmp_path) as old:
        trusted = old.tenant.trusted_certificates
        trusted.upload(ca.certificate)
        assert "no proof of possession" in refused("HTTP_404", lambda: trusted.prove_possession(ca.certificate, ca.key))
        assert "older" in refused("HTTP_404", lambda: trusted.revoke([1]))
        assert "older" in refused("HTTP_404", trusted.revoked)
        assert trusted.find(ca.certificate).name == "Old"  # what it does have


def test_devices_are_found_with_what_they_sent(
    tenant: Tenant, platform: LocalPlatform, root: Entity, tmp_path: Path
) -> None:
    name, devices, at = "dev/1, 100% ü?#", tenant.devices, datetime(2026, 3, 1, 12, 0, 0, 5000, UTC)
    assert devices.find(name) is None
    for call in (devices.measurements, devices.events, devices.alarms, devices.operations, devices.delete):
        assert "create" in refused("NO_DEVICE", lambda call=call: call(name))  # type: ignore[misc]
    refused("NO_DEVICE", lambda: devices.command(name, "x"))
    with device_of(platform, tmp_path, make(name, root)) as device:
        device.create("My device", "c8y_Test")
        for frame in (devices.measurements(name), devices.events(name), devices.alarms(name)):
            assert frame.empty and str(frame["time"].dtype).startswith("datetime64")
        assert devices.operations(name) == []
        for number in range(5):
            device.measure("c8y_T", "T", number + 0.1, "C", at + timedelta(seconds=number))
            device.event("c8y_E", f"event {number}", at + timedelta(seconds=number))
    found = devices.find(name)
    assert found and (found.name, found.type, found.external_id) == ("My device", "c8y_Test", name)
    assert found.id in devices.to_frame().query("name == 'My device'")["id"].tolist()
    measured = devices.measurements(name)
    assert list(measured.columns) == ["time", "fragment", "series", "value", "unit"]
    assert measured["value"].tolist() == [0.1, 1.1, 2.1, 3.1, 4.1] and measured["time"][0] == at
    assert devices.measurements(name, limit=2)["value"].tolist() == [3.1, 4.1]
    assert devices.events(name, limit=3)["text"].tolist() == ["event 4", "event 3", "event 2"]
    devices.delete(name)
    assert devices.find(name) is None and found.id not in devices.to_frame()["id"].tolist()
    assert all(devices.find(odd) is None for odd in ("", ".", "..", "/", "dev/", "../dev"))


HTML = b"<!DOCTYPE html><html><body>Sign in</body></html>"
GARBAGE = {
    "HTML": answer(HTML),
    "half JSON": answer(b'{"certificates": [{"fingerprint":'),
    "a list": answer([]),
    "a number": answer(7),
    "nothing": answer(b""),
    "null": answer({"certificates": None}),
    "a text": answer({"certificates": "abc"}),
    "numbers": answer({"certificates": [1, 2]}),
    "wrong fields": answer({"certificates": [{"fingerprint": 5, "status": [], "notAfter": 7}]}),
    "no date": answer({"certificates": [CERTIFICATE | {"notAfter": "soon"}]}),
    "no text": answer({"certificates": [CERTIFICATE | {"name": {"a": 1}}]}),
    "no UTF-8": answer(b'{"certificates": ["\xff\xfe"]}'),
    "deep": answer(b"[" * 100_000),
    "a long number": answer(b'{"certificates": ' + b"9" * 10_000 + b"}"),
    "another success": answer(b"", "204 No Content"),
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_is_no_tenant(tenant: Tenant, kind: str) -> None:
    with scripted(tenant, GARBAGE[kind]) as (odd, calls):
        assert "no tenant's" in refused("NOT_A_TENANT", odd.trusted_certificates.list)
    assert len(calls) == 1


@pytest.mark.parametrize("status", ["302 Found", "307 Temporary Redirect", "418 Odd", "500 Oh"])
def test_other_statuses_are_named_and_no_redirect_is_followed(tenant: Tenant, status: str) -> None:
    with scripted(tenant, EMPTY) as (elsewhere, reached):
        odd_answer = answer(HTML, status, f"Location: {elsewhere.url}/")
        with scripted(tenant, odd_answer) as (odd, calls):
            refused(f"HTTP_{status[:3]}", odd.trusted_certificates.list)
            refused(f"HTTP_{status[:3]}", lambda: odd.trusted_certificates.upload(make("CA", ca=True).certificate))
    assert len(calls) == 2 and not reached


def test_an_answer_without_end_is_cut(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "MAX_BYTES", 1_000_000)
    endless = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b" " * 1_100_000
    with scripted(tenant, endless) as (odd, _):
        assert "endless answer" in refused("NOT_A_TENANT", odd.trusted_certificates.list)
    with scripted(tenant, endless[:900_000] + json.dumps({"certificates": []}).encode()) as (odd, _):
        assert odd.trusted_certificates.list() == []


def test_off_silent_and_no_tls(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    ca = make("CA", ca=True).certificate

    def odd(port: int, scheme: str = "https") -> Tenant:
        return dataclasses.replace(tenant, url=f"{scheme}://127.0.0.1:{port}")

    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    refused("NOT_REACHED", odd(port).trusted_certificates.list)
    refused("NOT_REACHED", lambda: odd(port).trusted_certificates.upload(ca))
    for tls in (False, True):
        with server(tenant, hear, tls=tls) as port, monkeypatch.context() as patch:
            patch.setattr(rest, "TIMEOUT", (0.5, 0.5))
            said = refused("NO_ANSWER", odd(port).trusted_certificates.list)
            assert "does not answer:" in said  # not for how long: in the handshake it is given less time
            refused("NO_ANSWER", lambda: odd(port).trusted_certificates.upload(ca))
    with server(tenant, lambda plain: plain.sendall(b"220 mail.example.com ESMTP\r\n"), tls=False) as port:
        assert "does not speak TLS" in refused("NO_TLS", odd(port).trusted_certificates.list)
    with server(tenant, lambda tls: tls.sendall(b"\x20\x02\x00\x00" * 9)) as port:  # an MQTT server, for one
        refused("CLOSED", odd(port).trusted_certificates.list)
    assert "https://" in refused("BAD_URL", odd(port, "http").trusted_certificates.list)
    assert tenant.trusted_certificates.list() is not None  # the control


def calls_that_fail(tenant: Tenant) -> dict[str, Callable[[], object]]:
    ca = make("CA", ca=True).certificate
    trusted = tenant.trusted_certificates
    return {
        "GET": trusted.list,
        "PUT": lambda: trusted.update(ca, status="ENABLED"),
        "POST": lambda: trusted.upload(ca),
        "DELETE": lambda: trusted.delete(ca),
    }


@pytest.mark.parametrize(("method", "times"), [("GET", 3), ("PUT", 3), ("POST", 1), ("DELETE", 1)])
def test_only_what_may_be_done_twice_is_repeated(tenant: Tenant, method: str, times: int) -> None:
    for status in ("429 Slow down", "502 Bad Gateway", "503 Busy", "504 Late"):
        with scripted(tenant, answer(b"", status, "Retry-After: 3600")) as (odd, calls):
            refused(f"HTTP_{status[:3]}", calls_that_fail(odd)[method])
        assert [call.method for call in calls] == [method] * times
    with scripted(tenant, b"") as (odd, calls):
        sentence = refused("CLOSED", calls_that_fail(odd)[method])
        assert "before you repeat it" in sentence
    assert len(calls) == times


def test_a_repeat_helps(tenant: Tenant) -> None:
    with scripted(tenant, BUSY, b"", EMPTY) as (busy, calls):
        assert busy.trusted_certificates.list() == []
    assert len(calls) == 3
    with scripted(tenant, BUSY, BUSY, BUSY, EMPTY) as (busy, calls):  # the control: small is the number
        refused("HTTP_503", busy.trusted_certificates.list)
    half = answer({"certificates": []}).replace(b"Content-Length: 20", b"Content-Length: 99")
    with scripted(tenant, half) as (odd, _):
        refused("CLOSED", odd.trusted_certificates.list)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_call_that_never_reached_the_server_is_repeated(
    tenant: Tenant, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect, refusals = urllib3.util.connection.create_connection, [ConnectionRefusedError(), ConnectionRefusedError()]

    def late(*given: Any, **named: Any) -> socket.socket:
        if refusals:
            raise refusals.pop()
        return connect(*given, **named)

    monkeypatch.setattr(urllib3.util.connection, "create_connection", late)
    with scripted(tenant, EMPTY if method == "GET" else answer(CERTIFICATE, "201 Created")) as (odd, calls):
        assert calls_that_fail(odd)[method]() is not None
    assert [call.method for call in calls] == [method] and not refusals


def test_no_secret_is_ever_shown(tenant: Tenant) -> None:
    word = secrets.token_hex()
    for given_as in ("password", "token"):
        echo = answer({"message": word}, "500 Oh", f"X-Echo: {word}")
        for answers in ([echo], [b""], [answer(word.encode())]):
            with scripted(dataclasses.replace(tenant, **{given_as: Secret(word)}), *answers) as (odd, _):
                with pytest.raises(OnboardingError) as error:
                    odd.trusted_certificates.list()
                shown = "".join(traceback.format_exception(error.value)) + repr(odd) + repr(odd.trusted_certificates)
            assert "OnboardingError" in shown and word not in shown


NAMES = st.sampled_from(["certificates", "next", "id", "managedObject", "managedObjects", "measurements"])
SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
BODIES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=8
)


@examples(40)
@given(body=BODIES)
def test_no_json_at_all_ends_in_another_exception(tenant: Tenant, body: object) -> None:
    for call in (
        tenant.trusted_certificates.list,
        tenant.devices.to_frame,
        lambda: tenant.devices.find("x"),
        lambda: tenant.devices.operations("x"),
        lambda: tenant.devices.measurements("x"),
    ):
        sent = 200, json.dumps(body).encode()  # without a network, for there are many
        with mock.patch.object(rest, "send", return_value=sent), contextlib.suppress(OnboardingError):
            call()


def test_a_revocation_list_of_a_version_that_there_is_not_is_no_list(tenant: Tenant) -> None:
    ca, now = make("List", ca=True), datetime.now(UTC)
    builder = x509.CertificateRevocationListBuilder(ca.certificate.subject, now, now + timedelta(days=1))
    good = builder.sign(ca.key, SHA256()).public_bytes(Encoding.DER)
    for der, version in ((good, 1), (good.replace(b"\x02\x01\x01", b"\x02\x01\x02", 1), 2)):
        with scripted(tenant, answer(der)) as (odd, _):
            if version == 1:
                assert odd.trusted_certificates.revoked() == []  # the control
            else:
                refused("NOT_A_TENANT", odd.trusted_certificates.revoked)
