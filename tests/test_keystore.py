"""Keystores beside openssl, and which password opens what (for keytool: test_keystore_matrix)."""

from pathlib import Path

import pytest
from conftest import Run
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from mciot_nb import CertificateAuthority, DistinguishedName, OnboardingError, Secret
from mciot_nb.pki.chain import to_pem
from mciot_nb.pki.keys import KeyType, create_key
from mciot_nb.pki.keystore import which_password_opens, write_keystore, write_truststore

PASSWORD = "Kaffee-42 ok"  # ASCII: Java opens no other
OTHER, THIRD = "Tee-Nr-17 ok", "Kakao-8 also"


Chain = list[x509.Certificate]
Key = ec.EllipticCurvePrivateKey


@pytest.fixture
def key(tmp_path: Path) -> Key:
    return create_key(tmp_path / "deviceKey.pem", PASSWORD, KeyType.P256)


@pytest.fixture
def chain(ca: CertificateAuthority, key: Key) -> Chain:
    subject = DistinguishedName(common_name="keystore-device").to_x509()
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, SHA256())
    return [ca.sign(csr), ca.certificate]


def test_openssl_opens_our_keystore(chain: Chain, key: Key, tmp_path: Path, openssl: Run) -> None:
    path = tmp_path / "deviceKeystore.pkcs12"
    write_keystore(path, key, chain, PASSWORD)
    show = ["pkcs12", "-info", "-in", path, "-nodes", "-passin", "stdin"]
    shown = openssl(*show, input=f"{PASSWORD}\n")
    assert x509.load_pem_x509_certificates(shown.stdout.encode()) == chain
    assert "friendlyName: devicekeyentry" in shown.stdout and "BEGIN PRIVATE KEY" in shown.stdout
    assert "PBES2, PBKDF2, AES-256-CBC" in shown.stderr
    assert openssl(*show, input=f"{OTHER}\n", check=False).returncode != 0


def test_openssl_opens_our_truststore(chain: Chain, tmp_path: Path, openssl: Run) -> None:
    path = tmp_path / "deviceTruststore.p12"
    write_truststore(path, {"servercertificate": chain[1], "second": chain[0]}, PASSWORD)
    shown = openssl("pkcs12", "-in", path, "-nokeys", "-passin", "stdin", input=f"{PASSWORD}\n").stdout
    assert x509.load_pem_x509_certificates(shown.encode()) == chain[::-1]
    assert shown.count("2.16.840.1.113894.746875.1.1") == 2, "Java's mark"


def test_which_password_opens_what(chain: Chain, key: Key, tmp_path: Path) -> None:
    pkcs12, jks, trust = (tmp_path / name for name in ("store.pkcs12", "store.jks", "trust.jks"))
    write_keystore(pkcs12, key, chain, OTHER)
    write_keystore(jks, key, chain, THIRD, key_password=OTHER)
    write_truststore(trust, {"servercertificate": chain[1]}, "nobody knows it")
    passwords = {"the PEM's": Secret(PASSWORD), "the PKCS12's": OTHER, "the JKS's": THIRD}
    openings = which_password_opens([tmp_path / "deviceKey.pem", pkcs12, jks, trust], passwords)
    assert openings == [
        ("deviceKey.pem", "the key", "the PEM's"),
        ("store.pkcs12", "the store", "the PKCS12's"),
        ("store.pkcs12", "the key devicekeyentry in it", "the PKCS12's"),
        ("store.jks", "the store", "the JKS's"),
        ("store.jks", "the key devicekeyentry in it", "the PKCS12's"),
        ("trust.jks", "the store", "none of these"),
    ]
    assert not any(word in repr(openings) for word in (PASSWORD, OTHER, THIRD))
    same = which_password_opens([jks], {"one": THIRD, "the same": THIRD, "other": OTHER})
    assert [names for *_, names in same] == ["one, the same", "other"]
    with pytest.raises(OnboardingError, match="There is no"):
        which_password_opens([tmp_path / "nowhere.jks"], passwords)
    (tmp_path / "chain.pem").write_bytes(to_pem(chain))
    with pytest.raises(OnboardingError, match="not a private key"):
        which_password_opens([tmp_path / "chain.pem"], passwords)
