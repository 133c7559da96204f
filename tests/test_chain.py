import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from conftest import PASSPHRASE
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from mciot_nb import CertificateAuthority, DistinguishedName, OnboardingError, diagnose
from mciot_nb.pki.chain import (
    PROFILES,
    build_chain,
    parse_certificates,
    read_certificates,
    to_pem,
)
from mciot_nb.pki.keys import KeyType

GUIDE, CURRENT = PROFILES["guide-2021"], PROFILES["current"]
KEY = ec.generate_private_key(ec.SECP256R1())


def sign(
    ca: CertificateAuthority, name: str, extensions: str = "v3_signed", at: datetime | None = None
) -> x509.Certificate:
    subject = DistinguishedName(common_name=name).to_x509()
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(KEY, SHA256())
    return ca.sign(csr, extensions, at=at)


def sign_under(issuer: x509.Certificate, name: str, *, key: ec.EllipticCurvePrivateKey = KEY) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(DistinguishedName(common_name=name).to_x509())
    builder = builder.issuer_name(issuer.subject).public_key(KEY.public_key()).serial_number(7)
    return builder.not_valid_before(now - timedelta(1)).not_valid_after(now + timedelta(9)).sign(key, SHA256())


def test_a_good_chain_is_found_good(ca: CertificateAuthority) -> None:
    root, device = ca.certificate, sign(ca, "device")
    for profile in (None, GUIDE, CURRENT):
        assert diagnose([device, root], [root], profile).ok
    assert build_chain(device, [root]) == [device, root]
    assert str(diagnose([device, root], [root])) == "OK: nothing wrong was found."


def test_each_fault_has_its_code_and_its_sentence(ca: CertificateAuthority, tmp_path: Path) -> None:
    root, device = ca.certificate, sign(ca, "device")
    other = CertificateAuthority.create(
        tmp_path / "other", DistinguishedName("DE", common_name="Other"), PASSPHRASE, key_type=KeyType.RSA_2048
    )
    twin = CertificateAuthority.create(
        tmp_path / "twin", DistinguishedName.from_x509(root.subject), PASSPHRASE, key_type=KeyType.RSA_2048
    ).certificate
    middle = sign(ca, "middle", "v3_ca")
    leaf = sign_under(middle, "leaf")
    day = timedelta(days=1)
    cases = [
        ([], GUIDE, None, "NO_CLIENT_CERT"),
        ([device], GUIDE, None, "INCOMPLETE_CHAIN"),
        ([device], CURRENT, None, "OK"),
        ([leaf, middle, root], GUIDE, None, "CHAIN_TOO_LONG"),
        ([leaf, middle, root], CURRENT, None, "OK"),
        ([leaf, middle], CURRENT, None, "INCOMPLETE_CHAIN"),
        ([leaf, root, middle], CURRENT, None, "CHAIN_ORDER"),
        ([root], GUIDE, None, "CA_AS_DEVICE"),
        ([leaf], CURRENT, None, "UNKNOWN_CA"),
        ([sign_under(root, "forged"), root], GUIDE, None, "BAD_SIGNATURE"),
        ([device, root], GUIDE, device.not_valid_after_utc + day, "EXPIRED"),
        ([device, root], GUIDE, device.not_valid_before_utc - day, "NOT_YET_VALID"),
    ]
    for presented, profile, at, code in cases:
        diagnosis = diagnose(presented, [root], profile, at=at)
        assert diagnosis.code == code, (code, str(diagnosis))
        assert all(
            finding.sentence.count("\n") == 0 and finding.sentence.endswith(".") for finding in diagnosis.findings
        )
    assert diagnose([device, root], [other.certificate]).code == "UNKNOWN_CA"
    assert diagnose([device, root], [twin]).code == "UNKNOWN_CA", "another CA of the same name is another CA"


def test_an_uploaded_intermediate_is_the_anchor(ca: CertificateAuthority) -> None:
    middle = sign(ca, "middle", "v3_ca")
    leaf = sign_under(middle, "leaf")
    assert diagnose([leaf, middle], [middle], GUIDE).ok
    assert diagnose([leaf, middle], [ca.certificate], GUIDE).code == "INCOMPLETE_CHAIN"


def test_a_device_can_not_sign_others(ca: CertificateAuthority) -> None:
    device = sign(ca, "device")
    diagnosis = diagnose([sign_under(device, "leaf"), device, ca.certificate], [ca.certificate], CURRENT)
    assert diagnosis.code == "INVALID" and "CA" in str(diagnosis)


def test_a_missing_issuer_is_named(ca: CertificateAuthority, shared_ca: CertificateAuthority) -> None:
    device = sign(ca, "device")
    with pytest.raises(OnboardingError, match="not among those given"):
        build_chain(device, [shared_ca.certificate])


def test_pem_files_are_read_whole(ca: CertificateAuthority, tmp_path: Path) -> None:
    device = sign(ca, "device")
    path = tmp_path / "chain.pem"
    path.write_bytes(b"Certificate:\n  text before\n" + to_pem([device, ca.certificate]).replace(b"\n", b"\r\n"))
    assert read_certificates(path) == [device, ca.certificate]


@pytest.mark.parametrize(("text", "says"), [("", "no certificate in PEM form"), ("junk", "no certificate in PEM form")])
def test_what_is_no_pem_is_named(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "file.pem").write_text(text)
    with pytest.raises(OnboardingError, match=says) as caught:
        read_certificates(tmp_path / "file.pem")
    assert str(tmp_path / "file.pem") in str(caught.value)
    with pytest.raises(OnboardingError, match="There is no file"):
        read_certificates(tmp_path / "none.pem")


@pytest.mark.parametrize("dash", ["–", "—"])  # noqa: RUF001 - the guide's page has these
def test_the_guides_typographic_dashes_are_named(ca: CertificateAuthority, dash: str) -> None:
    pem = ca.certificate.public_bytes(Encoding.PEM)
    broken = pem.replace(b"-----", f"{dash}{dash}{dash}".encode())
    with pytest.raises(OnboardingError, match="typographic dashes"):
        parse_certificates(broken)
    assert parse_certificates(pem) == [ca.certificate]


def test_a_certificate_of_an_odd_version_is_no_certificate(shared_ca: CertificateAuthority, tmp_path: Path) -> None:
    der = shared_ca.certificate.public_bytes(Encoding.DER)
    odd = der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x73", 1)
    path = tmp_path / "odd.pem"
    for data in (der, odd):
        body = base64.encodebytes(data).decode()
        path.write_text(f"-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n")
        if data is der:
            assert read_certificates(path) == [shared_ca.certificate]  # the control
    with pytest.raises(OnboardingError, match="This is no certificate in PEM form") as error:
        read_certificates(path)
    assert error.value.code == "BAD_PEM"
