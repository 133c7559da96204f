"""A Java program connects to the platform with our stores, as MQTT.fx does, and is refused with one thing wrong."""

import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import PASSPHRASE, ROOT, Run, tool
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from platform_tools import make

from mciot_nb import CertificateAuthority, DistinguishedName, LocalPlatform
from mciot_nb.pki import jks
from mciot_nb.pki.chain import read_certificates, to_pem
from mciot_nb.pki.keys import PrivateKey, create_request, encrypted_pem
from mciot_nb.pki.keystore import KEY_ALIAS, TRUST_ALIAS, write_keystore, write_truststore

PASSWORD, KEY_PASSWORD = "Kaffee-42 ok", "Kuchen-43 ok"  # ASCII: Java opens no PKCS12 with others
KINDS = ["rsa", "ec"]


class Form(NamedTuple):
    """How a device's two stores are made."""

    type: str
    key_password: str = PASSWORD
    in_one_file: bool = False

    @property
    def keystore(self) -> str:
        return f"deviceKeystore.{self.type.lower()}"

    @property
    def truststore(self) -> str:
        return self.keystore if self.in_one_file else f"deviceTruststore.{self.type.lower()}"


PKCS12, JKS = Form("PKCS12"), Form("JKS")
OWN_KEY_PASSWORD, IN_ONE_FILE = Form("JKS", key_password=KEY_PASSWORD), Form("JKS", in_one_file=True)  # guide, step 5
FORMS = [PKCS12, JKS, OWN_KEY_PASSWORD, IN_ONE_FILE]


class Device(NamedTuple):
    """A device with its PEM files and its stores, each form of them in a folder of its own."""

    folder: Path
    name: str
    key: PrivateKey
    chain: list[x509.Certificate]

    def stores(self, form: Form) -> Path:
        return self.folder / str(FORMS.index(form))

    def write_stores(self, server: x509.Certificate) -> None:
        for form in FORMS:
            (folder := self.stores(form)).mkdir()
            write_keystore(
                folder / form.keystore,
                self.key,
                self.chain,
                PASSWORD,
                key_password=form.key_password,
                trusted={TRUST_ALIAS: server} if form.in_one_file else None,
            )
            if not form.in_one_file:
                write_truststore(folder / form.truststore, {TRUST_ALIAS: server}, PASSWORD)


class Attempt(NamedTuple):
    """What a learner types into MQTT.fx, in the order in which ConnectDevice.java reads it."""

    host: str
    port: int
    client_id: str
    key_type: str
    keystore: Path
    password: str
    key_alias: str
    key_password: str
    trust_type: str
    truststore: Path
    trust_password: str
    trusted_alias: str


def right(platform: LocalPlatform, device: Device, form: Form = PKCS12) -> Attempt:
    """An attempt with everything right."""
    (host, port), folder = platform.mqtt, device.stores(form)
    key = form.type, folder / form.keystore, PASSWORD, KEY_ALIAS, form.key_password
    return Attempt(host, port, device.name, *key, form.type, folder / form.truststore, PASSWORD, TRUST_ALIAS)


Check = Callable[..., None]


@pytest.fixture(scope="module")
def check() -> Iterator[Check]:
    """Let one Java make attempts, one after the other, and compare how the line on each begins."""
    command = [tool("java"), "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Duser.language=en"]
    command.append(str(ROOT / "tests" / "java" / "ConnectDevice.java"))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as java:
        assert java.stdin and java.stdout

        def attempt_all(*expected: tuple[Attempt, str]) -> None:
            assert java.stdin and java.stdout
            for attempt, begin in expected:
                java.stdin.write("\t".join(map(str, attempt)) + "\n")
                line = java.stdout.readline()
                assert line.startswith(begin), (attempt, line)
                assert PASSWORD not in line and KEY_PASSWORD not in line

        yield attempt_all
        java.stdin.close()
        assert java.wait(60) == 0


def verdicts(platform: LocalPlatform, seen: int, subject: str) -> list[str]:
    """Return what the platform's log says of a certificate, after the first ``seen`` records."""
    log = platform.log().iloc[seen:]
    return [str(code) for code in log["code"][log["subject"] == subject]]


@pytest.fixture(scope="module")
def platform(shared_ca: CertificateAuthority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPlatform]:
    tool("java")
    platform = LocalPlatform.start(tmp_path_factory.mktemp("java"))
    platform.tenant.trusted_certificates.ensure(shared_ca.certificate, auto_registration=True)
    yield platform
    platform.stop()


@pytest.fixture(scope="module")
def server(platform: LocalPlatform) -> x509.Certificate:
    return read_certificates(platform.server_certificate)[0]


@pytest.fixture(scope="module")
def devices(
    shared_ca: CertificateAuthority, server: x509.Certificate, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Device]:
    made = {}
    for kind in KINDS:
        rsa_key = kind == "rsa"
        key = rsa.generate_private_key(65537, 2048) if rsa_key else ec.generate_private_key(ec.SECP256R1())
        folder, name = tmp_path_factory.mktemp(kind), f"java-device-{kind}"
        csr = create_request(folder / "deviceCsr.pem", key, DistinguishedName("DE", common_name=name))
        made[kind] = Device(folder, name, key, [shared_ca.sign(csr), shared_ca.certificate])
        (folder / "deviceKey.pem").write_bytes(encrypted_pem(key, PASSPHRASE.encode()))
        (folder / "deviceCertChain.pem").write_bytes(to_pem(made[kind].chain))
        made[kind].write_stores(server)
    return made


@pytest.mark.parametrize("kind", ["ec", pytest.param("rsa", marks=pytest.mark.slow)])
def test_java_connects_with_every_form(
    kind: str, platform: LocalPlatform, devices: dict[str, Device], check: Check
) -> None:
    attempts, seen = [right(platform, devices[kind], form) for form in FORMS], len(platform.log())
    # The two stores need not be of one type.
    attempts += [attempts[0]._replace(trust_type="JKS", truststore=attempts[1].truststore)]
    attempts += [attempts[1]._replace(trust_type="PKCS12", truststore=attempts[0].truststore)]
    others = [attempt._replace(client_id="another-device") for attempt in attempts]
    check(*((attempt, "CONNACK 0") for attempt in attempts), *((attempt, "CONNACK 5") for attempt in others))
    codes = ["CONNECTED"] * len(attempts) + ["CLIENT_ID_MISMATCH"] * len(others)
    assert verdicts(platform, seen, f"C=DE, CN={devices[kind].name}") == codes, "it was this device's certificate"


@pytest.mark.slow
def test_java_connects_with_what_the_guides_commands_make(
    check: Check,
    platform: LocalPlatform,
    devices: dict[str, Device],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    openssl: Run,
    keytool: Run,
) -> None:
    device, pem = devices["rsa"]._replace(folder=tmp_path), devices["rsa"].folder
    for form in (PKCS12, JKS, IN_ONE_FILE):
        device.stores(form).mkdir()
    p12, jks_store, both = (device.stores(form) / form.keystore for form in (PKCS12, JKS, IN_ONE_FILE))
    p12_trust, jks_trust = (device.stores(form) / form.truststore for form in (PKCS12, JKS))
    monkeypatch.setenv("STORE", PASSWORD)
    passwords = ["-passin", "env:PASS", "-passout", "env:STORE"]
    key = ["-name", KEY_ALIAS, "-inkey", pem / "deviceKey.pem", "-in", pem / "deviceCertChain.pem"]
    openssl("pkcs12", "-export", *key, "-out", p12, *passwords)
    convert = ["-srckeystore", p12, "-srcstoretype", "PKCS12", "-srcstorepass:env", "STORE"]
    convert += ["-deststoretype", "JKS", "-deststorepass:env", "STORE"]
    keytool("-importkeystore", *convert, "-destkeystore", jks_store)
    both.write_bytes(jks_store.read_bytes())
    trust = ["-noprompt", "-alias", TRUST_ALIAS, "-file", platform.server_certificate, "-storepass:env", "STORE"]
    keytool("-importcert", *trust, "-keystore", p12_trust)
    keytool("-import", "-storetype", "JKS", *trust, "-keystore", jks_trust)
    keytool("-import", "-storetype", "JKS", *trust, "-keystore", both)
    # The control: openssl can't give a truststore the mark without which Java sees nothing in it.
    unmarked, source = tmp_path / "unmarked.pkcs12", platform.server_certificate
    openssl("pkcs12", "-export", "-nokeys", "-name", TRUST_ALIAS, "-in", source, "-out", unmarked, *passwords)
    attempts = [right(platform, device, form) for form in (PKCS12, JKS, IN_ONE_FILE)]
    check(
        *((attempt, "CONNACK 0") for attempt in attempts),
        *((attempt._replace(client_id="another-device"), "CONNACK 5") for attempt in attempts),
        (attempts[0]._replace(truststore=unmarked), f"NO ALIAS {TRUST_ALIAS} "),
    )


@pytest.mark.slow
def test_java_refuses_a_server_that_it_does_not_know(
    check: Check, platform: LocalPlatform, devices: dict[str, Device], shared_ca: CertificateAuthority, tmp_path: Path
) -> None:
    device = devices["ec"]._replace(folder=tmp_path)
    device.write_stores(shared_ca.certificate)  # under the same alias
    check(*((right(platform, device, form), "SERVER REFUSED PKIX path building failed") for form in FORMS))


@pytest.mark.slow
def test_a_wrong_password_is_refused_for_that_reason(
    check: Check, platform: LocalPlatform, devices: dict[str, Device]
) -> None:
    expected = []
    for form in FORMS:
        attempt, pkcs12 = right(platform, devices["rsa"], form), form.type == "PKCS12"
        key = "Get Key failed" if pkcs12 else "Cannot recover key"
        store = "keystore password was incorrect" if pkcs12 else "Keystore was tampered with, or password was incorrect"
        expected += [
            (attempt._replace(password="not the one"), f"STORE {store}"),
            (attempt._replace(trust_password="not the one"), f"STORE {store}"),
            (attempt._replace(key_password="not the one"), f"STORE {key}"),
            (attempt, "CONNACK 0"),
        ]
    attempt = right(platform, devices["ec"], OWN_KEY_PASSWORD)
    check(
        *expected,
        (attempt._replace(key_password=PASSWORD), "STORE Cannot recover key"),
        (attempt._replace(password=KEY_PASSWORD), "STORE Keystore was tampered with, or password was incorrect"),
        (attempt, "CONNACK 0"),
    )


@pytest.mark.slow
def test_type_and_aliases_are_what_mqttfx_is_told(
    check: Check, platform: LocalPlatform, devices: dict[str, Device], tmp_path: Path
) -> None:
    p12, one_file = right(platform, devices["rsa"]), right(platform, devices["rsa"], IN_ONE_FILE)
    keys = [jks.load((devices[kind].stores(JKS) / JKS.keystore).read_bytes(), PASSWORD)[0] for kind in KINDS]
    (tmp_path / "two.jks").write_bytes(
        jks.dump([replace(key, alias=kind) for key, kind in zip(keys, KINDS, strict=True)], PASSWORD)
    )
    two = right(platform, devices["rsa"], JKS)._replace(keystore=tmp_path / "two.jks", key_alias="rsa")
    check(
        (p12._replace(key_type="JKS"), "STORE Invalid keystore format"),
        (one_file._replace(key_type="PKCS12"), "STORE "),
        (p12._replace(key_alias="device"), "NO ALIAS device "),
        (one_file._replace(key_alias=TRUST_ALIAS), f"NO ALIAS {TRUST_ALIAS} of a key"),
        (one_file._replace(trusted_alias=KEY_ALIAS), f"NO ALIAS {KEY_ALIAS} of a trusted"),
        (p12._replace(key_alias=KEY_ALIAS.upper(), trusted_alias=TRUST_ALIAS.title()), "CONNACK 0"),
        (two, "CONNACK 0"),
        (two._replace(key_alias="ec"), "CONNACK 5"),
        (two._replace(key_alias="ec", client_id=devices["ec"].name), "CONNACK 0"),
    )


@pytest.mark.slow
def test_a_device_of_a_ca_that_was_not_uploaded_stays_outside(
    check: Check, platform: LocalPlatform, devices: dict[str, Device], server: x509.Certificate, tmp_path: Path
) -> None:
    stranger = make(devices["ec"].name, issuer=make("Never uploaded", ca=True))
    device = Device(tmp_path, devices["ec"].name, stranger.key, list(stranger.chain))
    device.write_stores(server)
    seen = len(platform.log())
    check(*((right(platform, device, form), "HANDSHAKE FAILED Received fatal alert: unknown_ca") for form in FORMS))
    assert verdicts(platform, seen, f"CN={device.name}") == ["UNKNOWN_CA"] * len(FORMS)


@contextmanager
def other_server(chain: Path, key: Path, oldest: ssl.TLSVersion) -> Iterator[tuple[int, list[object]]]:
    """A server that lets any one client in; yields its port, and what it sees: TLS version and CONNECT."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = oldest
    context.load_cert_chain(chain, key, PASSPHRASE)
    seen: list[object] = []

    def serve() -> None:
        with suppress(OSError), context.wrap_socket(listening.accept()[0], server_side=True) as client:
            seen.extend([client.version(), client.recv(1024)])
            client.sendall(b"\x20\x02\x00\x00")
            seen.append(client.recv(1024))

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(60)
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1], seen
        thread.join(60)


@pytest.mark.slow
def test_the_client_itself_is_as_strict_as_it_says(
    check: Check, platform: LocalPlatform, devices: dict[str, Device], tmp_path: Path
) -> None:
    device, (old, new) = devices["rsa"], (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
    # It trusts the device's certificate as a server's here, which has no name that fits.
    write_truststore(tmp_path / "t.jks", {TRUST_ALIAS: device.chain[0]}, PASSWORD)
    attempt, name = right(platform, device, JKS)._replace(host="127.0.0.1"), "x" * 200
    same = (platform.server_certificate, platform.folder / "serverKey.pem")
    with (
        other_server(*same, oldest=old) as (port, seen),
        other_server(*same, oldest=new) as (new_port, none),
        other_server(device.folder / "deviceCertChain.pem", device.folder / "deviceKey.pem", old) as (odd_port, _),
    ):
        check(
            (attempt._replace(port=port, client_id=name), "CONNACK 0"),
            (attempt._replace(port=new_port), "HANDSHAKE FAILED Received fatal alert: protocol_version"),
            (attempt._replace(port=odd_port, truststore=tmp_path / "t.jks"), "SERVER REFUSED No subject alternative"),
        )
    # CONNECT, then the length in two bytes, MQTT 3.1.1, clean session alone, 60 seconds, the ClientId; and DISCONNECT.
    connect = b"\x10\xd4\x01" + b"\x00\x04MQTT\x04\x02\x00\x3c" + b"\x00\xc8" + name.encode()
    assert seen == ["TLSv1.2", connect, b"\xe0\x00"] and none == []
