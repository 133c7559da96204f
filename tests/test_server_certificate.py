"""Fetching a server's certificate: from real TLS servers on loopback, and from all that is none."""

import dataclasses
import re
import socket
import ssl
import struct
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import Run
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from platform_tools import DAY, TLS, Entity, make, write_chain
from test_tenant_calls import Talk, over_tls, refused, says, served

from mciot_nb import OnboardingError, Workspace
from mciot_nb.connect.server_certificate import ServerCertificate, fetch_server_certificate, proof_on_record
from mciot_nb.connect.tenant import Tenant, TenantSettings
from mciot_nb.pki.chain import fingerprint, read_certificates, to_pem, with_colons
from mciot_nb.pki.keys import encrypted_pem, read_private_key
from mciot_nb.pki.keystore import read_store

HOSTS = ("localhost", "127.0.0.1")


def key_file(folder: Path, entity: Entity, *shown: x509.Certificate) -> Path:
    """Write what a server is made of: its key, and what it shows behind its own certificate."""
    path = folder / f"{entity.certificate.serial_number:x}-{len(shown)}.pem"
    return write_chain(entity, path, (entity.certificate, *shown))


ROOT = make("Test Root", ca=True)
MIDDLE = make("Test Middle", ROOT, ca=True)
LEAF = make("localhost", MIDDLE, hosts=HOSTS)
OTHER_MIDDLE = make("Test Middle", ROOT, ca=True)
ALONE = make("alone", hosts=HOSTS)
EXPIRED = make("localhost", MIDDLE, begins=-40 * DAY, ends=-DAY, hosts=HOSTS)


def write_pem(folder: Path, entity: Entity) -> Path:
    path = folder / "one.pem"
    path.write_bytes(to_pem([entity.certificate]))
    return path


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """What a server with the whole chain is made of."""
    return key_file(tmp_path, LEAF, *LEAF.chain[1:])


@pytest.fixture
def trusting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the system trust the root."""
    path = write_pem(tmp_path, ROOT)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    return path


@pytest.mark.parametrize("demands", [False, True])
@pytest.mark.parametrize("version", TLS)
def test_the_chain_is_the_one_that_openssl_shows(
    version: ssl.TLSVersion, demands: bool, whole: Path, tmp_path: Path, openssl: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_pem(tmp_path, ROOT)
    with served(over_tls(whole, version, demand=str(root) if demands else "")) as port:
        fetched = fetch_server_certificate("localhost", port)
        connect = ["-connect", f"127.0.0.1:{port}", "-servername", "localhost"]
        printed = openssl("s_client", "-showcerts", *connect, check=False).stdout  # not 0 where it is refused
        assert fetched.chain == tuple(x509.load_pem_x509_certificates(printed.encode())) == LEAF.chain
        assert re.search("unable to get|self.signed", fetched.problem) and fetched.proof == ""
        monkeypatch.setenv("SSL_CERT_FILE", str(root))
        trusted = fetch_server_certificate("localhost", port)
        assert trusted.chain == LEAF.chain
        if demands and version == ssl.TLSVersion.TLSv1_2:  # such a server ends it before the system has its say
            assert "handshake could not be finished" in trusted.problem
        else:
            assert trusted.problem == "" and trusted.verified().proof == "this system trusts it for this host"


@pytest.mark.parametrize("version", TLS)
@pytest.mark.parametrize(
    ("leaf", "host", "problem"),
    [
        (LEAF, "localhost", ""),
        (LEAF, "127.0.0.1", ""),
        (make("server", MIDDLE, hosts=["other.example"]), "localhost", "valid for 'localhost'"),
        (make("server", MIDDLE, hosts=["localhost"]), "127.0.0.1", "valid for '127.0.0.1'"),
        (EXPIRED, "localhost", "expired"),
        (make("server", MIDDLE, begins=10 * DAY, hosts=HOSTS), "localhost", "not yet valid"),
    ],
)
@pytest.mark.usefixtures("trusting")
def test_the_systems_verdict(
    version: ssl.TLSVersion, leaf: Entity, host: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(over_tls(key_file(tmp_path, leaf, MIDDLE.certificate), version)) as port:
        fetched = fetch_server_certificate(host, port)
        monkeypatch.delenv("SSL_CERT_FILE")
        assert fetch_server_certificate(host, port).problem, "the control: trusted because of that root alone"
    assert fetched.chain == (leaf.certificate, MIDDLE.certificate)
    if problem:
        assert problem in refused("SERVER_NOT_TRUSTED", fetched.verified)
    else:
        assert fetched.problem == ""


@pytest.mark.parametrize(
    ("entity", "more", "issuer"),
    [
        (LEAF, (MIDDLE, ROOT), MIDDLE),
        (LEAF, (ROOT, MIDDLE), MIDDLE),  # in the wrong order, but it is there
        (ALONE, (), ALONE),
        (ALONE, (ROOT,), ALONE),
        (LEAF, (), None),
        (LEAF, (ROOT,), None),
        (LEAF, (OTHER_MIDDLE, ROOT), None),  # its name, and another key
    ],
)
def test_whom_to_trust(entity: Entity, more: tuple[Entity, ...], issuer: Entity | None, tmp_path: Path) -> None:
    shown = [other.certificate for other in more]
    with served(over_tls(key_file(tmp_path, entity, *shown))) as port:
        fetched = fetch_server_certificate("localhost", port)
    assert fetched.chain == (entity.certificate, *shown)
    assert fetched.certificate == fetched.trust_anchor("server") == entity.certificate
    if issuer:
        assert fetched.issuer == fetched.trust_anchor("issuer") == issuer.certificate
    else:
        assert fetched.issuer is None
        assert "Test Middle" in refused("NO_ISSUER", lambda: fetched.trust_anchor("issuer"))
    for word in ("root", "", "Server"):
        assert "use server or issuer" in refused("NO_CHOICE", lambda word=word: fetched.trust_anchor(word))


def test_the_fingerprint_is_openssls(tmp_path: Path, openssl: Run) -> None:
    show = ["x509", "-in", write_pem(tmp_path, LEAF), "-noout", "-fingerprint"]
    known, sha1 = (openssl(*show, option).stdout.strip().split("=")[1] for option in ("-sha256", "-sha1"))
    fetched = ServerCertificate("localhost", 8883, LEAF.chain, "unable to get local issuer certificate")
    assert fetched.fingerprint == known
    assert known in refused("SERVER_NOT_TRUSTED", fetched.verified)
    bare = known.replace(":", "")
    for right in (known, known.lower(), bare, bare.lower(), known.replace(":", " "), f" {known}\n"):
        verified = fetched.verified(right)
        assert verified.proof == "its fingerprint is the one known from its operator"
        assert verified.proven_by == "fingerprint" and verified.chain == fetched.chain
    trusted = dataclasses.replace(fetched, problem="")
    last_digit = f"{bare[:-1]}{(int(bare[-1], 16) + 1) % 16:x}"
    for wrong in (fingerprint(MIDDLE.certificate, "sha256"), bare[::-1], last_digit):
        for one in (fetched, trusted):  # who gives a fingerprint means it, whatever the system trusts
            assert known in refused("SERVER_DIFFERS", lambda one=one, wrong=wrong: one.verified(wrong))
    for rubbish in (sha1, bare[:-1], f"{bare}0", "rubbish", " ", f"0x{bare}", bare.replace(bare[0], "٣"), "g" * 64):
        refused("BAD_FINGERPRINT", lambda rubbish=rubbish: fetched.verified(rubbish))


def test_what_proves_a_server(tmp_path: Path) -> None:
    """The platform's own file, the operator's fingerprint, the one given before, or else the system's trust."""
    known, other, record = fingerprint(LEAF.certificate, "sha256"), ALONE.certificate, tmp_path / "server.json"
    trusted = ServerCertificate("localhost", 8883, LEAF.chain, "")
    unknown = dataclasses.replace(trusted, problem="self-signed certificate")
    assert (trusted.proof, trusted.proven_by, trusted.verified().proven_by) == ("", "", "system")
    assert unknown.verified(own=LEAF.certificate).proven_by == unknown.verified(known, own=LEAF.certificate).proven_by
    assert "the platform's own file" in unknown.verified(own=LEAF.certificate).proof
    own_and_told = {"own": LEAF.certificate, "fingerprint": "0" * 64}
    for wrong in ({"own": other}, {"own": other, "fingerprint": known}, own_and_told):
        refused("SERVER_DIFFERS", lambda wrong=wrong: trusted.verified(**wrong))
    refused("SERVER_NOT_TRUSTED", lambda: unknown.verified(record=record))
    for first in (trusted.verified(), unknown.verified(own=LEAF.certificate)):  # neither is the learner's word
        first.write_record(record)
        assert proof_on_record(record, LEAF.certificate, "localhost", 8883) == first.proven_by
        refused("SERVER_NOT_TRUSTED", lambda: unknown.verified(record=record))
    unknown.verified(known).write_record(record)
    assert "you, once before" in unknown.verified(record=record).proof
    for changed in ({"port": 8884}, {"host": "127.0.0.1"}, {"chain": ALONE.chain}, {"chain": EXPIRED.chain}):
        elsewhere = dataclasses.replace(unknown, **changed)
        refused("SERVER_NOT_TRUSTED", lambda elsewhere=elsewhere: elsewhere.verified(record=record))
        assert proof_on_record(record, elsewhere.certificate, elsewhere.host, elsewhere.port) == ""
    expired = dataclasses.replace(unknown, chain=EXPIRED.chain)
    expired.verified(fingerprint(expired.certificate, "sha256")).write_record(record)
    refused("SERVER_NOT_TRUSTED", lambda: expired.verified(record=record))
    for damaged in ("{", "[]", "7"):
        record.write_text(damaged)
        assert proof_on_record(record, LEAF.certificate, "localhost", 8883) == ""


def test_somebody_in_between_who_lets_the_second_look_through(whole: Path, tmp_path: Path, trusting: Path) -> None:
    own, showing_own = over_tls(key_file(tmp_path, make("between", hosts=HOSTS))), [True]

    def pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(4096):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def between(connection: socket.socket) -> object:
        if showing_own and showing_own.pop():
            return own(connection)
        with socket.create_connection(("127.0.0.1", real)) as onward:
            back = threading.Thread(target=pump, args=[onward, connection], daemon=True)
            back.start()
            pump(connection, onward)
            return back.join(30)

    with served(over_tls(whole)) as real, served(between) as port:
        fetched = fetch_server_certificate("localhost", port)
        assert not showing_own
        # The control: who passes everything through does no harm.
        assert fetch_server_certificate("localhost", port).problem == ""
    assert fetched.certificate != LEAF.certificate and "another certificate" in fetched.problem
    refused("SERVER_NOT_TRUSTED", fetched.verified)


@pytest.mark.parametrize(
    ("host", "port"),
    [
        *(("127.0.0.1", None), ("localhost", 0), ("localhost", 99999), ("localhost", -1), ("no-such-host.invalid", 1)),
        *(("local host", 1), ("x" * 300, 1), ("a..b", 1), ("https://localhost", 1), ("[::1]", 1), ("", 1)),
    ],
)
def test_where_nothing_answers(host: str, port: int | None) -> None:
    if port is None:
        with socket.create_server(("127.0.0.1", 0)) as nobody:
            port = int(nobody.getsockname()[1])
    said = refused("NOT_REACHED", lambda: fetch_server_certificate(host, port))
    assert f"Nothing answers at {host}:{port}" in said


def drip(connection: socket.socket) -> None:
    for byte in b"\x16\x03\x03\x40\x00\x02" + bytes(1000):  # a long handshake message begins, and never ends
        connection.send(bytes([byte]))
        time.sleep(0.3)


@pytest.mark.parametrize(
    ("handle", "code"),
    [
        pytest.param(lambda connection: None, "NO_ANSWER", id="silent"),
        pytest.param(drip, "NO_ANSWER", id="drips"),
        pytest.param(says(b"\x16\x03\x03\x00\x40\x02", waits=True), "NO_ANSWER", id="begins"),
        pytest.param(lambda connection: connection.close(), "NO_TLS", id="closes"),
        pytest.param(says(b""), "NO_TLS", id="closes-later"),
        pytest.param(says(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"), "NO_TLS", id="HTTP"),
        pytest.param(says(b"\x20\x02\x00\x05"), "NO_TLS", id="MQTT"),
        pytest.param(says(b"\x20\x02\x00\x05\xe0\x00", waits=True), "NO_TLS", id="MQTT-stays"),
        pytest.param(says(bytes(range(256)) * 20), "NO_TLS", id="garbage"),
        pytest.param(says(b"\x15\x03\x03\x00\x02\x02\x28"), "NO_TLS", id="alert"),
    ],
)
def test_what_is_no_tls_server(handle: Talk, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if code == "NO_ANSWER":
        monkeypatch.setattr("mciot_nb.connect.server_certificate.TIMEOUT", 1.0)
    with served(handle) as port:
        assert f"127.0.0.1:{port}" in refused(code, lambda: fetch_server_certificate("127.0.0.1", port))


def hello_with(*shown: bytes) -> bytes:
    """Give the first words of a TLS 1.2 server that shows certificates, whatever they are."""

    def message(kind: int, body: bytes) -> bytes:
        return bytes([22, 3, 3]) + struct.pack(">HI", len(body) + 4, kind << 24 | len(body)) + body

    def sized(body: bytes) -> bytes:
        return struct.pack(">I", len(body))[1:] + body

    secure = b"\x00\x05\xff\x01\x00\x01\x00"  # renegotiation_info, RFC 5746
    hello = b"\x03\x03" + bytes(32) + b"\x00" + b"\xc0\x2b\x00" + secure
    return message(2, hello) + message(11, sized(b"".join(map(sized, shown))))


@pytest.mark.parametrize("kind", ["rubbish", "cut", "version 8"])
def test_a_certificate_that_can_not_be_read(kind: str) -> None:
    der = LEAF.certificate.public_bytes(Encoding.DER)
    with served(says(hello_with(der))) as port:  # the control
        assert fetch_server_certificate("localhost", port).chain == (LEAF.certificate,)
    version = b"\xa0\x03\x02\x01\x02"
    assert der.count(version) == 1
    odd = {"rubbish": b"rubbish", "cut": der[:-3], "version 8": der.replace(version, version[:-1] + b"\x07")}[kind]
    with served(says(hello_with(odd))) as port:
        code = "BAD_CERTIFICATE" if kind == "version 8" else "NO_TLS"
        refused(code, lambda: fetch_server_certificate("localhost", port))


def test_an_issuer_that_was_made_for_the_signature(tmp_path: Path) -> None:
    """A fingerprint proves the server's certificate alone: an RSA key can be made to fit a signature that is known."""
    # made by tests/data/forged_issuer.py
    leaf, real, forged = read_certificates(Path(__file__).with_name("data") / "forged_issuer.pem")
    leaf.verify_directly_issued_by(forged)  # as far as signatures go
    server = Entity(leaf, ec.derive_private_key(7, ec.SECP256R1()), (leaf, real))
    with served(over_tls(key_file(tmp_path, server, real))) as port:  # the control
        fetched = fetch_server_certificate("localhost", port).verified(fingerprint(leaf, "sha256"))
        assert fetched.trust_anchor("issuer") == real
    shown = (certificate.public_bytes(Encoding.DER) for certificate in (leaf, forged))
    with served(says(hello_with(*shown))) as port, pytest.raises(OnboardingError):
        fetch_server_certificate("localhost", port).verified(fingerprint(leaf, "sha256")).trust_anchor("issuer")


def test_served_notices_a_client_that_stays() -> None:
    begun, left_open = threading.Event(), pytest.raises(AssertionError, match="left a connection open")
    with socket.socket() as client, left_open, served(lambda _: begun.set(), patience=0.3) as port:
        client.connect(("127.0.0.1", port))
        assert begun.wait(60)


# --- the workspace: where the proof comes from, and what it keeps ----------------------------------------------------


def real_tenant(port: int) -> TenantSettings:
    return TenantSettings("https://localhost", "t1", "u", "localhost", port, local=False)


def trusted_by(workspace: Workspace, kind: str) -> list[x509.Certificate]:
    store = read_store(workspace.device_file(f"deviceTruststore.{kind}"), workspace.passphrase)
    assert store.type == kind.upper() and list(store.trusted) == ["servercertificate"]
    return list(store.trusted.values())


def test_the_local_platform_is_known_by_its_file(quick_workspace: Workspace) -> None:
    quick_workspace.catch_up("chain")
    platform, kept = quick_workspace.platform(), quick_workspace.device_file("serverCertificate.pem")
    assert not kept.exists()
    fetched = quick_workspace.fetch_server_certificate()
    assert [fetched.certificate] == read_certificates(platform.server_certificate) == read_certificates(kept)
    assert "the platform's own file" in fetched.proof and fetched.problem
    before = kept.read_bytes()
    platform.server_certificate.write_bytes(to_pem([ALONE.certificate]))
    assert "the platform's own file" in refused("SERVER_DIFFERS", quick_workspace.fetch_server_certificate)
    refused("SERVER_DIFFERS", lambda: quick_workspace.create_truststore("jks"))
    assert kept.read_bytes() == before and not quick_workspace.device_file("deviceTruststore.jks").exists()
    platform.server_certificate.write_bytes(before)
    for kind in ("pkcs12", "jks"):
        for trust in ("server", "issuer", ""):  # it is its own issuer
            quick_workspace.create_truststore(kind, trust)
            assert trusted_by(quick_workspace, kind) == [fetched.certificate]
        refused("NO_CHOICE", lambda kind=kind: quick_workspace.create_truststore(kind, "root"))


def test_a_real_tenant_needs_a_fingerprint_once(quick_workspace: Workspace, whole: Path, tmp_path: Path) -> None:
    quick_workspace.catch_up("chain")
    kept, changed = quick_workspace.device_file("serverCertificate.pem"), make("localhost", MIDDLE, hosts=HOSTS)
    local, servers = quick_workspace.fetch_server_certificate().certificate, [over_tls(whole)]
    with served(lambda connection: servers[-1](connection)) as port:
        quick_workspace.choose_tenant(real_tenant(port))
        known = fingerprint(LEAF.certificate, "sha256")
        for call in (quick_workspace.fetch_server_certificate, quick_workspace.create_truststore):
            assert with_colons(known) in refused("SERVER_NOT_TRUSTED", call)
        refused("SERVER_DIFFERS", lambda: quick_workspace.fetch_server_certificate("00" * 32))
        assert read_certificates(kept) == [local], "the local platform's, which proves nothing here"
        kept.write_bytes(b"damaged")  # and does not stand in the way
        assert "operator" in quick_workspace.fetch_server_certificate(known).proof
        assert read_certificates(kept) == [LEAF.certificate]
        assert "you, once before" in quick_workspace.fetch_server_certificate().proof
        for trust, wanted in [("server", LEAF), ("", LEAF), ("issuer", MIDDLE), ("", MIDDLE), ("server", LEAF)]:
            for kind in ("jks", "pkcs12"):  # without a word, what was chosen before stays
                quick_workspace.create_truststore(kind, trust)
                assert trusted_by(quick_workspace, kind) == [wanted.certificate], (trust, kind)
        before = kept.read_bytes()
        servers.append(over_tls(key_file(tmp_path, changed, *changed.chain[1:])))
        refused("SERVER_NOT_TRUSTED", quick_workspace.fetch_server_certificate)
        refused("SERVER_NOT_TRUSTED", lambda: quick_workspace.create_truststore(trust="issuer"))
        assert kept.read_bytes() == before
        quick_workspace.fetch_server_certificate(fingerprint(changed.certificate, "sha256"))
        assert read_certificates(kept) == [changed.certificate]
        assert quick_workspace.fetch_server_certificate().certificate == changed.certificate


def test_a_renewed_platform_is_followed(quick_workspace: Workspace) -> None:
    """The local platform renews its self-signed certificate with the same key, so the old one "signed" the new one."""
    quick_workspace.catch_up("stores")
    platform = quick_workspace.platform()
    before = read_certificates(platform.server_certificate)
    platform.stop()
    platform.server_certificate.unlink()
    quick_workspace.catch_up("stores")
    renewed = read_certificates(quick_workspace.platform().server_certificate)
    assert renewed != before and renewed[0].public_key() == before[0].public_key()
    for kind in ("pkcs12", "jks"):
        assert trusted_by(quick_workspace, kind) == renewed


def test_what_the_system_trusts_needs_no_file_and_what_is_there_no_network(
    quick_workspace: Workspace, whole: Path, trusting: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick_workspace.catch_up("chain")
    with served(over_tls(whole)) as port:
        quick_workspace.choose_tenant(real_tenant(port))
        tenant = Tenant("https://localhost", "t1", "u", "secret", mqtt=("localhost", port))
        assert "this system trusts it" in quick_workspace.fetch_server_certificate().proof
        assert quick_workspace.trusted_file(tenant) is None, "the system knows it by itself"
        quick_workspace.create_truststore("jks", "issuer")
        quick_workspace.catch_up("stores")
        for kind in ("pkcs12", "jks"):  # the choice for one form is the choice for the other
            assert trusted_by(quick_workspace, kind) == [MIDDLE.certificate]
        monkeypatch.delenv("SSL_CERT_FILE")
        refused("SERVER_NOT_TRUSTED", quick_workspace.fetch_server_certificate)  # the file alone proves nothing
        quick_workspace.fetch_server_certificate(fingerprint(LEAF.certificate, "sha256"))
        assert quick_workspace.trusted_file(tenant) == quick_workspace.device_file("serverCertificate.pem")
        other = dataclasses.replace(tenant, mqtt=("127.0.0.1", port))
        assert quick_workspace.trusted_file(other) is None, "it was given for another address"
    stores = [quick_workspace.device_file(f"deviceTruststore.{kind}") for kind in ("pkcs12", "jks")]
    before = [path.read_bytes() for path in stores]
    quick_workspace.catch_up("stores")  # the server is gone
    assert [path.read_bytes() for path in stores] == before
    refused("NOT_REACHED", lambda: quick_workspace.create_truststore("jks", "server"))


def test_what_can_not_be_made_is_said_before_anything_moves(quick_workspace: Workspace) -> None:
    quick_workspace.catch_up("stores")
    folder, key = quick_workspace.device_file(""), quick_workspace.device_file("deviceKey.pem")
    for create in (quick_workspace.create_keystore, quick_workspace.create_truststore):
        refused("BAD_NAME", lambda create=create: create("pem"))
    # A workspace from before new passphrases had to be ASCII.
    key.write_bytes(encrypted_pem(read_private_key(key, quick_workspace.passphrase), "Schlüssel-123".encode()))
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MCIOT_PASSPHRASE", "Schlüssel-123")
        for create in (quick_workspace.create_keystore, quick_workspace.create_truststore):
            assert "start_over" in refused("*", lambda create=create: create("jks"))
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
