"""A Java program connects to the platform with our stores, as MQTT.fx does, and is refused with one thing wrong."""

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

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

    keystore: str
    truststore: str
    key_password: str = PASSWORD

    @property
    def type(self) -> str:
        return "JKS" if self.keystore.endswith("jks") else "PKCS12"


PKCS12, JKS = Form("key.pkcs12", "trust.pkcs12"), Form("key.jks", "trust.jks")
OWN_KEY_PASSWORD, IN_ONE_FILE = Form("own.jks", "trust.jks", KEY_PASSWORD), Form("both.jks", "both.jks")  # step 5
FORMS = [PKCS12, JKS, OWN_KEY_PASSWORD, IN_ONE_FILE]


class Device(NamedTuple):
    """A device with a folder of its PEM files and its stores in every form."""

    folder: Path
    name: str
    key: PrivateKey
    chain: list[x509.Certificate]

    def write_stores(self, server: x509.Certificate) -> None:
        trusted = {TRUST_ALIAS: server}
        for form in FORMS:
            own: Any = {"key_password": form.key_password, "trusted": trusted if form is IN_ONE_FILE else None}
            write_keystore(self.folder / form.keystore, self.key, self.chain, PASSWORD, **own)
        for form in (PKCS12, JKS):
            write_truststore(self.folder / form.truststore, trusted, PASSWORD)


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
    (host, port), folder = platform.mqtt, device.folder
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
    p12, jks_store, both = (tmp_path / form.keystore for form in (PKCS12, JKS, IN_ONE_FILE))
    monkeypatch.setenv("STORE", PASSWORD)
    passwords = ["-passin", "env:PASS", "-passout", "env:STORE"]
    key = ["-name", KEY_ALIAS, "-inkey", pem / "deviceKey.pem", "-in", pem / "deviceCertChain.pem"]
    openssl("pkcs12", "-export", *key, "-out", p12, *passwords)
    convert = ["-srckeystore", p12, "-srcstoretype", "PKCS12", "-srcstorepass:env", "STORE"]
    convert += ["-deststoretype", "JKS", "-deststorepass:env", "STORE"]
    keytool("-importkeystore", *convert, "-destkeystore", jks_store)
    both.write_bytes(jks_store.read_bytes())
    trust = ["-noprompt", "-alias", TRUST_ALIAS, "-file", platform.server_certificate, "-storepass:env", "STORE"]
    keytool("-importcert", *trust, "-keystore", tmp_path / PKCS12.truststore)
    keytool("-import", "-storetype", "JKS", *trust, "-keystore", tmp_path / JKS.truststore)
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
    keys = [jks.load((devices[kind].folder / JKS.keystore).read_bytes(), PASSWORD)[0] for kind in KINDS]
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
