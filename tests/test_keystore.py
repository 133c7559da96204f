from pathlib import Path

import pytest
from conftest import Run
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from mciot_nb import CertificateAuthority, DistinguishedName, OnboardingError
from mciot_nb.pki.keystore import read_keystore, write_keystore, write_truststore

KEY = ec.generate_private_key(ec.SECP256R1())
PASSWORD = "Kaffee-42 ok"  # ASCII: keytool refuses others in PKCS12


@pytest.fixture(scope="module")
def chain(shared_ca: CertificateAuthority) -> list[x509.Certificate]:
    subject = DistinguishedName(common_name="keystore-device").to_x509()
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(KEY, SHA256())
    return [shared_ca.sign(csr), shared_ca.certificate]


def test_keytool_lists_our_keystore_with_its_chain(chain: list[x509.Certificate], tmp_path: Path, keytool: Run) -> None:
    path = tmp_path / "deviceKeystore.pkcs12"
    write_keystore(path, KEY, chain, PASSWORD)
    listed = keytool("-list", "-v", "-keystore", path, input=f"{PASSWORD}\n").stdout
    assert "Alias name: devicekeyentry" in listed and "Entry type: PrivateKeyEntry" in listed
    assert "Certificate chain length: 2" in listed and "Your keystore contains 1 entry" in listed
    fingerprint = chain[0].fingerprint(SHA256()).hex(":").upper()
    assert fingerprint in listed
    refused = keytool("-list", "-keystore", path, input="wrong-one\n", check=False)
    assert refused.returncode != 0 and "password was incorrect" in refused.stdout + refused.stderr
    assert path.stat().st_mode & 0o777 == 0o600


def test_keytool_lists_our_truststore(chain: list[x509.Certificate], tmp_path: Path, keytool: Run) -> None:
    path = tmp_path / "deviceTruststore.pkcs12"
    write_truststore(path, {"servercertificate": chain[1], "second": chain[0]}, PASSWORD)
    listed = keytool("-list", "-keystore", path, input=f"{PASSWORD}\n").stdout
    assert "servercertificate" in listed and listed.count("trustedCertEntry") == 2
    assert path.stat().st_mode & 0o777 == 0o600


def test_openssl_opens_our_keystore(chain: list[x509.Certificate], tmp_path: Path, openssl: Run) -> None:
    path = tmp_path / "deviceKeystore.pkcs12"
    write_keystore(path, KEY, chain, PASSWORD)
    shown = openssl("pkcs12", "-in", path, "-nokeys", "-passin", "stdin", input=f"{PASSWORD}\n").stdout
    assert x509.load_pem_x509_certificates(shown.encode()) == chain and "friendlyName: devicekeyentry" in shown


def test_we_open_openssls_keystore(chain: list[x509.Certificate], tmp_path: Path, openssl: Run) -> None:
    encrypted = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(PASSWORD.encode()))
    (tmp_path / "key.pem").write_bytes(encrypted)
    (tmp_path / "chain.pem").write_bytes(b"".join(c.public_bytes(Encoding.PEM) for c in chain))
    arguments = ["-export", "-name", "devicekeyentry", "-inkey", tmp_path / "key.pem", "-in", tmp_path / "chain.pem"]
    store = tmp_path / "store.pkcs12"
    passwords = ["-passin", "stdin", "-passout", "stdin"]
    openssl("pkcs12", *arguments, "-out", store, *passwords, input=f"{PASSWORD}\n{PASSWORD}\n")
    opened = read_keystore(store, PASSWORD)
    assert opened.cert and opened.cert.certificate == chain[0] and opened.cert.friendly_name == b"devicekeyentry"
    assert [entry.certificate for entry in opened.additional_certs] == chain[1:]


def test_bad_input_is_named_and_writes_nothing(chain: list[x509.Certificate], tmp_path: Path) -> None:
    path = tmp_path / "store.pkcs12"
    other = ec.generate_private_key(ec.SECP256R1())
    for call, says in [
        (lambda: write_keystore(path, other, chain, PASSWORD), "does not belong"),
        (lambda: write_keystore(path, KEY, chain[::-1], PASSWORD), "does not belong"),
        (lambda: write_keystore(path, KEY, chain, "short"), "6 characters"),
        (lambda: write_keystore(path, KEY, chain, PASSWORD, alias="DeviceKeyEntry"), "would not survive"),
        (lambda: write_truststore(path, {}, PASSWORD), "needs a certificate"),
        (lambda: read_keystore(path, PASSWORD), "There is no store"),
    ]:
        with pytest.raises(OnboardingError, match=says):
            call()
        assert list(tmp_path.iterdir()) == []


def test_a_store_is_never_overwritten_and_a_wrong_password_named(chain: list[x509.Certificate], tmp_path: Path) -> None:
    path = tmp_path / "store.pkcs12"
    write_keystore(path, KEY, chain, PASSWORD)
    before = path.read_bytes()
    with pytest.raises(OnboardingError, match="never overwritten"):
        write_keystore(path, KEY, chain, PASSWORD)
    with pytest.raises(OnboardingError, match="does not open") as caught:
        read_keystore(path, "another one")
    assert path.read_bytes() == before and "another one" not in str(caught.value)
    path.write_bytes(before[:-20])
    with pytest.raises(OnboardingError, match="damaged"):
        read_keystore(path, PASSWORD)
