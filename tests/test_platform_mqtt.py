"""The local platform's MQTT endpoint, through paho-mqtt: who gets in, who does not, and what both sides see."""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from platform_tools import (
    TLS,
    Entity,
    client_context,
    device,
    last_record,
    make,
    rest,
    start_in_foreground,
    upload,
    wait_for,
)

from mciot_nb.local_platform import LocalPlatform

CONNECT = b"\x10\x0f\x00\x04MQTT\x04\x02\x00\x3c\x00\x03dev"


class World(NamedTuple):
    platform: LocalPlatform
    root: Entity
    device: Entity


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    platform = LocalPlatform.start(tmp_path_factory.mktemp("workspace"))
    root = make("Root", ca=True)
    assert upload(platform, root).status_code == 201
    yield World(platform, root, make("dev", root))
    platform.stop()


def test_a_client_without_tls_is_told_apart(world: World) -> None:
    before = len(world.platform.log())
    with socket.create_connection(world.platform.mqtt) as plain:
        plain.sendall(b"GET / HTTP")
        plain.settimeout(5)
        assert plain.recv(100) == b""
    assert last_record(world.platform, before)["code"] == "NOT_TLS"


def test_a_client_that_does_not_know_the_platform_is_named(world: World) -> None:
    for version in TLS:
        before, context = len(world.platform.log()), ssl.create_default_context()
        context.minimum_version = context.maximum_version = version
        with socket.create_connection(world.platform.mqtt) as plain, pytest.raises(ssl.SSLCertVerificationError):
            context.wrap_socket(plain, server_hostname="localhost")
        record = last_record(world.platform, before)
        assert record["code"] == "HANDSHAKE_FAILED" and record["reason"].endswith(
            "give it serverCert.pem as trusted CA."
        )


def test_both_names_of_the_platform_verify_and_no_third_one(world: World) -> None:
    platform, context = world.platform, client_context(world.platform)
    context.verify_flags |= ssl.VERIFY_X509_STRICT  # Python 3.13 sets it by itself
    for port in (platform.mqtt[1], int(platform.https.rpartition(":")[2])):
        for name in ("localhost", "127.0.0.1", "other.example"):
            with socket.create_connection(("127.0.0.1", port)) as plain:
                if name == "other.example":
                    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
                        context.wrap_socket(plain, server_hostname=name)
                else:  # the MQTT port's complaint about the missing certificate comes later, or is another error
                    try:
                        context.wrap_socket(plain, server_hostname=name).close()
                    except ssl.SSLCertVerificationError as error:
                        pytest.fail(str(error))


def test_an_uploaded_intermediate_is_an_anchor(world: World, tmp_path: Path) -> None:
    intermediate = make("Intermediate", make("Offline root", ca=True), ca=True)
    entity = make("dev3", intermediate)
    with device(world.platform, tmp_path, entity, (intermediate,), client_id="dev3") as (_, seen):
        assert seen.connack is None
    assert upload(world.platform, intermediate).status_code == 201
    with device(world.platform, tmp_path, entity, (intermediate,), client_id="dev3") as (_, seen):
        assert seen.connack == 0


@pytest.mark.parametrize(("change", "code"), [("DELETE", "CA_DELETED"), ("PUT", "CA_DISABLED")])
@pytest.mark.parametrize("version", TLS, ids=["TLS1.2", "TLS1.3"])
def test_a_ca_that_is_taken_away_ends_its_sessions(
    world: World, tmp_path: Path, change: str, code: str, version: ssl.TLSVersion
) -> None:
    platform, ca = world.platform, make("Short-lived", ca=True)
    entity = make("dev4", ca)
    assert upload(platform, ca).status_code == 201
    with (
        device(platform, tmp_path, world.device, version=version) as (_, control),
        device(platform, tmp_path, entity, client_id="dev4", version=version) as (_, seen),
    ):
        assert seen.connack == 0
        body = {"json": {"status": "DISABLED"}} if change == "PUT" else {}
        assert rest(platform, change, ca.fingerprint, **body).ok
        assert seen.gone.wait(5)
        assert not control.gone.is_set()
    before = len(platform.log())
    with device(platform, tmp_path, entity, client_id="dev4", version=version) as (_, seen):
        assert seen.connack is None
        wait_for(lambda: "unknown ca" in seen.text.lower().replace("_", " "))
    record = last_record(platform, before)
    assert record["code"] == code and "Short-lived" in record["reason"]


def raw_connection(world: World, folder: Path, chain: Path | None = None) -> ssl.SSLSocket:
    with device(world.platform, folder, world.device) as (_, seen):  # writes the chain's file
        assert seen.connack == 0
    context = client_context(world.platform)
    context.load_cert_chain(chain or folder / "chain.pem")
    tls = context.wrap_socket(socket.create_connection(world.platform.mqtt), server_hostname="localhost")
    tls.settimeout(25)
    return tls


def message(topic: bytes, payload: bytes) -> bytes:
    """Write a PUBLISH with QoS 0, of less than 128 bytes."""
    body = len(topic).to_bytes(2) + topic + payload
    return b"\x30" + bytes([len(body)]) + body


def test_a_busy_device_keeps_nobody_waiting(world: World, tmp_path: Path) -> None:
    ca = make("Flood", ca=True)
    assert upload(world.platform, ca).status_code == 201
    (tmp_path / "flood").mkdir()
    with device(world.platform, tmp_path / "flood", make("flood", ca), client_id="flood") as (_, seen):
        assert seen.connack == 0
    tls = raw_connection(world, tmp_path, tmp_path / "flood" / "chain.pem")
    tls.sendall(b"\x10\x11\x00\x04MQTT\x04\x02\x00\x3c\x00\x05flood")
    assert tls.recv(10) == b"\x20\x02\x00\x00"

    def flood() -> None:
        with contextlib.suppress(OSError):
            while True:
                tls.sendall(message(b"s/us", b"400,t,x") * 2000)

    thread = threading.Thread(target=flood, daemon=True)
    thread.start()
    try:
        time.sleep(1)
        for _ in range(3):
            began = time.monotonic()
            assert rest(world.platform, "GET", "/tenant/currentTenant").ok
            assert time.monotonic() - began < 5
            with device(world.platform, tmp_path, world.device) as (_, seen):
                assert seen.connack == 0
        assert thread.is_alive()
        assert len(world.platform.events().query("device == 'flood'")) > 100
    finally:
        assert rest(world.platform, "DELETE", ca.fingerprint).status_code == 204  # ends the session
        thread.join(10)
        tls.close()


def test_a_client_that_does_not_read_is_let_go(tmp_path: Path) -> None:
    first = "import mciot_platform.tls as t, mciot_platform.session as s; t.WRITE_SECONDS = s.WRITE_SECONDS = 1"
    root = make("Root", ca=True)
    with start_in_foreground(tmp_path, first=first):
        platform = LocalPlatform.running(tmp_path)
        assert platform and upload(platform, root).status_code == 201
        world = World(platform, root, make("dev", root))
        with raw_connection(world, tmp_path) as tls:
            tls.sendall(CONNECT)
            assert tls.recv(10) == b"\x20\x02\x00\x00"
            tls.sendall(b"\x82\x08\x00\x01\x00\x03s/e\x00")
            assert tls.recv(10) == b"\x90\x03\x00\x01\x00"  # the control: who reads is served
            body = b"\x00\x04s/us" + b"9\n" * 8000  # each line is answered on s/e
            packet = b"\x30" + bytes([len(body) % 128 | 128, len(body) // 128]) + body
            with contextlib.suppress(OSError):  # what the platform does not take any more
                tls.sendall(packet * 100)
            ending = wait_for(
                lambda: [text for text in platform.log()["ending"].dropna() if "did not read" in text], 20
            )
            assert ending == ["The client did not read what was sent to it for 1 seconds."]
            process = psutil.Process(platform.pid)
            wait_for(lambda: not [c for c in process.net_connections("tcp") if c.status == "ESTABLISHED"])


def tlv(tag: int, content: bytes) -> bytes:
    """Write one element of DER."""
    size = len(content)
    length = (
        bytes([size])
        if size < 128
        else bytes([0x80 | (size.bit_length() + 7) // 8]) + size.to_bytes((size.bit_length() + 7) // 8)
    )
    return bytes([tag]) + length + content


def with_extension_twice(entity: Entity, issuer: Entity) -> Entity:
    """Give the entity with one more extension in its certificate, written twice, signed again.

    It is one that OpenSSL does not know: of others the client's OpenSSL would not even load the certificate.
    """
    old = entity.certificate
    tbs = old.tbs_certificate_bytes
    constraints, unknown = (
        tlv(0x30, bytes.fromhex("0603551d130101ff04023000")),
        tlv(0x30, bytes.fromhex("06032a030404020500")),
    )
    first = tbs.index(constraints)  # the extensions are the last field, and this is the first of them
    inner, at = tbs[first:] + unknown * 2, first - 4
    content = tbs[4:at] if tbs[1] == 0x82 else tbs[3:at]
    tbs = tlv(0x30, content + tlv(0xA3, tlv(0x30, inner)))
    signature = issuer.key.sign(tbs, ec.ECDSA(hashes.SHA256()))
    algorithm = tlv(0x30, bytes.fromhex("06082a8648ce3d040302"))
    der = tlv(0x30, tbs + algorithm + tlv(0x03, b"\x00" + signature))
    return Entity(x509.load_der_x509_certificate(der), entity.key, (x509.load_der_x509_certificate(der), *issuer.chain))


def test_an_odd_certificate_is_refused_in_a_sentence(world: World, tmp_path: Path) -> None:
    before = len(world.platform.log())
    odd = with_extension_twice(make("dev", world.root), world.root)
    with device(world.platform, tmp_path, odd) as (_, seen):
        assert seen.connack != 0
    record = last_record(world.platform, before)
    assert record["code"] == "INVALID" and record["reason"].endswith("."), record["reason"]
    with device(world.platform, tmp_path, world.device) as (_, seen):  # the control
        assert seen.connack == 0


@pytest.mark.parametrize("usage", [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
def test_a_certificate_for_servers_is_named(world: World, tmp_path: Path, usage: x509.ObjectIdentifier) -> None:
    before, key = len(world.platform.log()), ec.generate_private_key(ec.SECP256R1())
    plain = make("dev", world.root).certificate
    builder = x509.CertificateBuilder(plain.issuer, plain.subject, key.public_key(), 7)
    builder = builder.not_valid_before(plain.not_valid_before_utc).not_valid_after(plain.not_valid_after_utc)
    builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), False)
    entity = Entity(signed := builder.sign(world.root.key, hashes.SHA256()), key, (signed, *world.root.chain))
    with device(world.platform, tmp_path, entity) as (_, seen):
        assert (seen.connack == 0) == (usage == ExtendedKeyUsageOID.CLIENT_AUTH)
    record = last_record(world.platform, before)
    if usage == ExtendedKeyUsageOID.SERVER_AUTH:
        assert record["code"] == "INVALID_PURPOSE" and "clientAuth" in record["reason"]


def test_a_leaf_alone_of_a_namesake_is_worded_for_both(world: World, tmp_path: Path) -> None:
    before = len(world.platform.log())
    with device(world.platform, tmp_path, make("dev", make("Root", ca=True)), ()):
        pass
    record = last_record(world.platform, before)
    assert record["code"] == "BAD_SIGNATURE"
    assert record["reason"].endswith("upload the CA that signed it, or put that one into the chain.")


def test_after_all_that_the_platform_had_no_fault_of_its_own(world: World, tmp_path: Path) -> None:
    with device(world.platform, tmp_path, world.device) as (_, seen):
        assert seen.connack == 0
    assert "SERVER_ERROR" not in set(world.platform.log()["code"])
    assert "Traceback" not in (world.platform.folder / "messages.txt").read_text()
