"""A Java program connects to the platform with our stores, as MQTT.fx does, and is refused with one thing wrong."""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import ROOT, tool
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from platform_tools import Entity, make, upload

from mciot_nb import LocalPlatform
from mciot_nb.pki.chain import read_certificates
from mciot_nb.pki.keystore import KEY_ALIAS, TRUST_ALIAS, write_keystore, write_truststore

PASSWORD, KEY_PASSWORD = "Kaffee-42 ok", "Kuchen-43 ok"  # ASCII: Java opens no PKCS12 with others
CA = make("Java CA", ca=True)


def with_rsa(entity: Entity) -> Entity:
    """Return a device like another, with an RSA key."""
    key, twin = rsa.generate_private_key(65537, 2048), entity.certificate
    builder = x509.CertificateBuilder(twin.issuer, twin.subject, key.public_key(), twin.serial_number + 1)
    builder = builder.not_valid_before(twin.not_valid_before_utc).not_valid_after(twin.not_valid_after_utc)
    signed = builder.sign(CA.key, SHA256())
    return replace(entity, certificate=signed, key=key, chain=(signed, *CA.chain))


DEVICES = {"ec": make("java-device-ec", CA), "rsa": with_rsa(make("java-device-rsa", CA))}


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


def write_stores(folder: Path, device: Entity, server: x509.Certificate) -> Path:
    """Write a device's stores in every form."""
    folder.mkdir()
    for form in FORMS:
        own: Any = {"trusted": {TRUST_ALIAS: server}} if form is IN_ONE_FILE else {"key_password": form.key_password}
        write_keystore(folder / form.keystore, device.key, list(device.chain), PASSWORD, **own)
    for form in (PKCS12, JKS):
        write_truststore(folder / form.truststore, {TRUST_ALIAS: server}, PASSWORD)
    return folder


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


@dataclass(frozen=True)
class Lab:
    """The platform, the stores of its devices, and a Java that makes attempts."""

    platform: LocalPlatform
    folder: Path
    java: "subprocess.Popen[str]"

    @property
    def server(self) -> x509.Certificate:
        return read_certificates(self.platform.server_certificate)[0]

    def right(self, kind: str, form: Form = PKCS12, folder: Path | None = None) -> Attempt:
        """An attempt with everything right."""
        (host, port), folder, name = self.platform.mqtt, folder or self.folder / kind, f"java-device-{kind}"
        key = form.type, folder / form.keystore, PASSWORD, KEY_ALIAS, form.key_password
        return Attempt(host, port, name, *key, form.type, folder / form.truststore, PASSWORD, TRUST_ALIAS)

    def check(self, *expected: tuple[Attempt, str]) -> None:
        """Let Java make the attempts, one after the other, and compare how its line on each begins."""
        assert self.java.stdin and self.java.stdout
        for attempt, begin in expected:
            self.java.stdin.write("\t".join(map(str, attempt)) + "\n")
            line = self.java.stdout.readline()
            assert line.startswith(begin), (attempt, line)
            assert PASSWORD not in line and KEY_PASSWORD not in line

    def verdicts(self, seen: int, kind: str) -> list[str]:
        """Return what the platform's log says of a device's certificate, after the first ``seen`` records."""
        log = self.platform.log().iloc[seen:]
        return [str(code) for code in log["code"][log["subject"] == f"CN=java-device-{kind}"]]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    options = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Duser.language=en"]
    command = [tool("java"), *options, str(ROOT / "tests" / "java" / "ConnectDevice.java")]
    folder = tmp_path_factory.mktemp("java")
    platform = LocalPlatform.start(folder / "workspace")
    assert upload(platform, CA).status_code == 201
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as java:
        made = Lab(platform, folder, java)
        for kind, device in DEVICES.items():
            write_stores(folder / kind, device, made.server)
        yield made
        java.communicate(timeout=60)
    platform.stop()
    assert java.returncode == 0


@pytest.mark.parametrize("kind", ["ec", pytest.param("rsa", marks=pytest.mark.slow)])
def test_java_connects_with_every_form(kind: str, lab: Lab) -> None:
    attempts, seen = [lab.right(kind, form) for form in FORMS], len(lab.platform.log())
    # The two stores need not be of one type.
    attempts += [attempts[0]._replace(trust_type="JKS", truststore=attempts[1].truststore)]
    attempts += [attempts[1]._replace(trust_type="PKCS12", truststore=attempts[0].truststore)]
    others = [attempt._replace(client_id="another-device") for attempt in attempts]
    lab.check(*((attempt, "CONNACK 0") for attempt in attempts), *((attempt, "CONNACK 5") for attempt in others))
    codes = ["CONNECTED"] * len(attempts) + ["CLIENT_ID_MISMATCH"] * len(others)
    assert lab.verdicts(seen, kind) == codes, "it was this device's certificate"


@pytest.mark.slow
def test_java_refuses_an_unknown_server_and_presents_no_certificate_of_an_unknown_ca(lab: Lab, tmp_path: Path) -> None:
    elsewhere = write_stores(tmp_path / "elsewhere", DEVICES["ec"], CA.certificate)  # under the same alias
    refused = "SERVER REFUSED PKIX path building failed"
    lab.check(*((lab.right("ec", form, elsewhere), refused) for form in FORMS))
    stranger = make("java-device-ec", issuer=make("Never uploaded", ca=True))
    strange, seen = write_stores(tmp_path / "stranger", stranger, lab.server), len(lab.platform.log())
    # Java holds back a certificate whose issuer is not among those that the server accepts, and has no password.
    lab.check(*((lab.right("ec", form, strange), "CONNACK 5") for form in FORMS))
    assert list(lab.platform.log()["code"].iloc[seen:]) == ["NO_CREDENTIALS"] * len(FORMS)


@pytest.mark.slow
def test_a_wrong_password_is_refused_for_that_reason(lab: Lab) -> None:
    for form in FORMS:
        attempt, pkcs12 = lab.right("rsa", form), form.type == "PKCS12"
        key = "Get Key failed" if pkcs12 else "Cannot recover key"
        store = "keystore password was incorrect" if pkcs12 else "Keystore was tampered with, or password was incorrect"
        lab.check(
            (attempt._replace(password="not the one"), f"STORE {store}"),
            (attempt._replace(trust_password="not the one"), f"STORE {store}"),
            (attempt._replace(key_password="not the one"), f"STORE {key}"),
            (attempt, "CONNACK 0"),
        )
    attempt = lab.right("rsa", OWN_KEY_PASSWORD)
    lab.check((attempt._replace(key_password=PASSWORD), "STORE Cannot recover key"))


@pytest.mark.slow
def test_type_and_aliases_are_what_mqttfx_is_told(lab: Lab) -> None:
    p12, one_file = lab.right("rsa"), lab.right("rsa", IN_ONE_FILE)
    lab.check(
        (p12._replace(key_type="JKS"), "STORE Invalid keystore format"),
        (one_file._replace(key_type="PKCS12"), "STORE "),
        (p12._replace(key_alias="device"), "NO ALIAS device "),
        (one_file._replace(key_alias=TRUST_ALIAS), f"NO ALIAS {TRUST_ALIAS} of a key"),
        (one_file._replace(trusted_alias=KEY_ALIAS), f"NO ALIAS {KEY_ALIAS} of a trusted"),
        (p12._replace(key_alias=KEY_ALIAS.upper(), trusted_alias=TRUST_ALIAS.title()), "CONNACK 0"),
    )
