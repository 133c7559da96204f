"""A device made of its keystore and truststore, against the real local platform and a server of the test's own."""

import socket
import ssl
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from conftest import PASSPHRASE, Run
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from platform_tools import DAY, TLS, Entity, make, upload
from test_server_certificate import EXPIRED, HOSTS, LEAF, MIDDLE, OTHER_MIDDLE, ROOT, key_file
from test_tenant_calls import hear, over_tls, refused, served

from mciot_nb import Device, LocalPlatform, Secret
from mciot_nb.connect.device import tls_context
from mciot_nb.pki.chain import diagnose, read_certificates, to_pem
from mciot_nb.pki.keys import encrypted_pem
from mciot_nb.pki.keystore import write_keystore, write_truststore

PASSWORD, OTHER = "Kaffee-42 ok", "Tee mit Milch"
CA = make("Keystore CA", ca=True)
DEVICE = make("keystore-device", CA)
KEY = DEVICE.key
KINDS = ["pkcs12", "jks"]


@dataclass(frozen=True)
class Lab:
    """A platform that runs, and the stores of a device whose CA it knows."""

    platform: LocalPlatform
    folder: Path

    def device(self, keystore: str, truststore: str, **options: Any) -> Device:
        stores = self.folder / keystore, self.folder / truststore
        return Device.from_keystores(*stores, options.pop("password", PASSWORD), *self.platform.mqtt, **options)

    def assert_works(self, keystore: str, truststore: str, **options: Any) -> None:
        """Connect, publish, and find at the platform what was published."""
        before = len(self.platform.events())
        with self.device(keystore, truststore, **options) as connected:
            connected.publish("100,keystore-device,c8y_MQTTDevice", f"400,c8y_Stores,{keystore} {truststore}")
        events = self.platform.events()["text"].tolist()
        assert events[before:] == [f"{keystore} {truststore}"]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, openssl: Run) -> Iterator[Lab]:
    folder, chain = tmp_path_factory.mktemp("stores"), DEVICE.chain
    platform = LocalPlatform.start(tmp_path_factory.mktemp("platform"))
    assert upload(platform, CA).status_code == 201
    trusted = {"servercertificate": read_certificates(platform.server_certificate)[0]}
    for kind in KINDS:
        write_keystore(folder / f"key.{kind}", KEY, chain, PASSWORD)
        write_truststore(folder / f"trust.{kind}", trusted, PASSWORD)
        write_truststore(folder / f"others.{kind}", {"other": ROOT.certificate}, PASSWORD)
        write_truststore(folder / f"own.{kind}", trusted, OTHER)
    write_keystore(folder / "own-key.jks", KEY, chain, PASSWORD, key_password=OTHER)
    write_keystore(folder / "both.jks", KEY, chain, PASSWORD, trusted=trusted)
    write_keystore(folder / "server-first.jks", KEY, chain, PASSWORD, trusted={"a": ROOT.certificate} | trusted)
    (folder / "key.pem").write_bytes(encrypted_pem(KEY, PASSWORD.encode()))
    (folder / "chain.pem").write_bytes(to_pem(chain))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORE", PASSWORD)
        export = ["pkcs12", "-export", "-passout", "env:STORE"]
        key = ["-inkey", folder / "key.pem", "-passin", "env:STORE", "-in", folder / "chain.pem"]
        openssl(*export, *key, "-name", "devicekeyentry", "-out", folder / "openssl.pkcs12")
        openssl(*export, "-nokeys", "-in", platform.server_certificate, "-out", folder / "openssl-trust.pkcs12")
    yield Lab(platform, folder)
    platform.stop()


@pytest.fixture(autouse=True)
def temporary(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary files go; whatever the test did, nothing may stay there."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("tls", TLS)
@pytest.mark.parametrize("truststore", KINDS)
@pytest.mark.parametrize("keystore", KINDS)
def test_both_kinds_connect_and_publish(lab: Lab, keystore: str, truststore: str, tls: ssl.TLSVersion) -> None:
    lab.assert_works(f"key.{keystore}", f"trust.{truststore}", tls=tls)
    refused("SERVER_NOT_TRUSTED", lab.device(f"key.{keystore}", f"others.{truststore}", tls=tls).connect)


@pytest.mark.parametrize(
    ("keystore", "truststore", "options"),
    [
        ("own-key.jks", "trust.jks", {"key_password": OTHER}),
        ("own-key.jks", "own.pkcs12", {"key_password": Secret(OTHER), "trust_password": Secret(OTHER)}),
        ("key.pkcs12", "own.jks", {"trust_password": OTHER, "password": Secret(PASSWORD)}),
        ("both.jks", "both.jks", {}),
        ("server-first.jks", "server-first.jks", {"alias": "devicekeyentry"}),
        ("openssl.pkcs12", "trust.jks", {"client_id": "keystore-device"}),
    ],
)
def test_all_sorts_of_stores_work(lab: Lab, keystore: str, truststore: str, options: dict[str, Any]) -> None:
    lab.assert_works(keystore, truststore, **options)


@pytest.mark.parametrize(
    ("keystore", "truststore", "options", "code", "says"),
    [
        ("key.pkcs12", "trust.jks", {"password": OTHER, "trust_password": PASSWORD}, "WRONG_PASSPHRASE", "key.pkcs12"),
        ("key.jks", "trust.jks", {"trust_password": ""}, "WRONG_PASSPHRASE", "trust.jks"),
        ("own-key.jks", "trust.jks", {}, "WRONG_KEY_PASSWORD", "devicekeyentry"),
        ("own-key.jks", "trust.jks", {"key_password": ""}, "WRONG_KEY_PASSWORD", "devicekeyentry"),
        ("key.jks", "none.pkcs12", {}, "NO_FILE", "none.pkcs12"),
        ("key.jks", "chain.pem", {}, "NO_STORE", "PEM"),
        ("key.jks", "openssl-trust.pkcs12", {}, "NO_TRUST", "openssl-trust.pkcs12"),
        ("key.jks", "key.jks", {}, "NO_TRUST", "key.jks"),  # its chain is shown, not trusted
        ("trust.jks", "trust.jks", {}, "NO_KEY", "trust.jks"),
        ("both.jks", "both.jks", {"alias": "servercertificate"}, "NO_KEY", "devicekeyentry"),
    ],
)
def test_each_wrong_thing_is_a_sentence(
    lab: Lab, keystore: str, truststore: str, options: dict[str, Any], code: str, says: str
) -> None:
    sentence = refused(code, lambda: lab.device(keystore, truststore, **options))
    assert says in sentence and not any(secret in sentence for secret in (PASSWORD, OTHER, PASSPHRASE))


def test_no_secret_and_no_key_stays(lab: Lab, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Secret] = []
    plain = KEY.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    number = KEY.private_numbers().private_value.to_bytes(32, "big")

    def look(chain: Path, key: Path, passphrase: Secret, *rest: Any) -> ssl.SSLContext:
        files = {path: path.read_bytes() for path in temporary.rglob("*") if path.is_file()}
        assert chain in files and b"BEGIN ENCRYPTED PRIVATE KEY" in files[key]
        assert key.stat().st_mode & 0o777 == 0o600 and key.parent.stat().st_mode & 0o777 == 0o700
        assert not any(plain in data or number in data for data in files.values())
        opened = load_pem_private_key(files[key], passphrase.reveal().encode())
        assert isinstance(opened, ec.EllipticCurvePrivateKey) and opened.private_numbers() == KEY.private_numbers()
        with pytest.raises(ValueError):
            load_pem_private_key(files[key], PASSWORD.encode())
        assert not any(text.encode() in b"".join(files.values()) for text in (passphrase.reveal(), PASSWORD))
        seen.append(passphrase)
        return tls_context(chain, key, passphrase, *rest)

    monkeypatch.setattr("mciot_nb.connect.device.tls_context", look)
    for kind in KINDS:
        with lab.device(f"key.{kind}", f"trust.{kind}") as made:
            assert list(temporary.iterdir()) == [] and PASSWORD not in repr(vars(made))
    assert len(set(seen)) == 2, "each time another passphrase"

    def fail(*_: Any) -> ssl.SSLContext:
        assert list(temporary.rglob("key.pem"))
        raise KeyboardInterrupt

    monkeypatch.setattr("mciot_nb.connect.device.tls_context", fail)
    with pytest.raises(KeyboardInterrupt):
        lab.device("key.jks", "trust.jks")  # `temporary` looks at what stays


def test_a_failure_after_the_key_was_written(lab: Lab, temporary: Path, tmp_path: Path) -> None:
    """OpenSSL refuses a short key: the sentence names what is there, not a temporary file that is gone."""
    key, now, path = rsa.generate_private_key(65537, 1024), datetime.now(UTC), tmp_path / "short.jks"
    name = x509.Name.from_rfc4514_string("CN=short")
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1).not_valid_before(now - DAY)
    short = builder.not_valid_after(now + DAY).sign(key, hashes.SHA256())
    assert "WEAK_KEY" in str(said := diagnose([short], [short])) and "on the device itself" in str(said)
    write_keystore(path, key, [short], PASSWORD)
    stores = path, lab.folder / "trust.jks"
    sentence = refused("WEAK", lambda: Device.from_keystores(*stores, PASSWORD, *lab.platform.mqtt))
    assert "too short" in sentence and str(path) in sentence and str(temporary) not in sentence


# --- whom the truststore makes the device believe -------------------------------------------------------------------


def accept_anyone(connection: socket.socket) -> None:
    """Be an MQTT server that accepts everybody."""
    if connection.recv(4096)[:1] == b"\x10":  # CONNECT
        connection.sendall(b"\x20\x02\x00\x00")  # CONNACK 0
        hear(connection)


TWIN = make("localhost", MIDDLE, hosts=HOSTS)  # another leaf of the same CA
BELOW = make("localhost", LEAF, hosts=HOSTS)  # as if a server could sign
ELSEWHERE = make("other.example", MIDDLE, hosts=["other.example"])


@pytest.mark.parametrize("tls", TLS)
@pytest.mark.parametrize(
    ("trusted", "server", "shown", "accepted"),
    [
        (MIDDLE, LEAF, [], True),  # the issuer, which is no root
        (MIDDLE, LEAF, [MIDDLE], True),
        (MIDDLE, LEAF, [MIDDLE, ROOT], True),
        (MIDDLE, TWIN, [], True),
        (MIDDLE, ELSEWHERE, [MIDDLE], False),
        (MIDDLE, EXPIRED, [MIDDLE], False),
        (OTHER_MIDDLE, LEAF, [MIDDLE, ROOT], False),  # the same name, and another key
        (LEAF, LEAF, [], True),  # the leaf alone, which is not self-signed
        (LEAF, LEAF, [MIDDLE, ROOT], True),
        (LEAF, TWIN, [MIDDLE, ROOT], False),
        (LEAF, BELOW, [LEAF], False),
        (ELSEWHERE, ELSEWHERE, [], False),
        (EXPIRED, EXPIRED, [], False),
        (ROOT, LEAF, [MIDDLE], True),
        (ROOT, LEAF, [], False),
    ],
)
def test_whom_the_device_believes(
    lab: Lab, tmp_path: Path, trusted: Entity, server: Entity, shown: list[Entity], accepted: bool, tls: ssl.TLSVersion
) -> None:
    truststore = tmp_path / "trust.jks"
    write_truststore(truststore, {"servercertificate": trusted.certificate}, PASSWORD)
    file = key_file(tmp_path, server, *[entity.certificate for entity in shown])
    with served(over_tls(file, tls, talk=accept_anyone)) as port:
        made = Device.from_keystores(lab.folder / "key.jks", truststore, PASSWORD, "localhost", port, tls=tls)
        if accepted:
            with made:
                assert repr(made).startswith("Device 'keystore-device', connected to ")
        else:
            refused("SERVER_NOT_TRUSTED", made.connect)
