import shutil
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from conftest import PASSPHRASE, Run
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from mciot_nb import CertificateAuthority, DistinguishedName, OnboardingError
from mciot_nb.pki.chain import read_certificates
from mciot_nb.pki.config import guide_config, read_config
from mciot_nb.pki.database import SigningDatabase
from mciot_nb.pki.rows import DatabaseRow, parse_rows
from mciot_nb.pki.keys import KeyType, create_key, create_request, read_private_key, read_request

KEY = ec.generate_private_key(ec.SECP256R1())
SUBJECT = DistinguishedName("DE", "Bayern", "München", "Probe & Söhne", "Team 1/2+3", "device", "a@example.com")


def request(
    name: DistinguishedName | x509.Name, key: ec.EllipticCurvePrivateKey = KEY
) -> x509.CertificateSigningRequest:
    subject = name.to_x509() if isinstance(name, DistinguishedName) else name
    return x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, SHA256())


def openssl_ca(folder: Path, openssl: Run, key_type: KeyType = KeyType.RSA_2048, days: int = 7300) -> None:
    """Make a CA as the guide does, with the real openssl."""
    for name in ("crl", "deviceCertificates"):
        (folder / name).mkdir(parents=True)
    (folder / "caConfig.cnf").write_bytes(guide_config(folder))
    (folder / "database.txt").touch()
    (folder / "serial").write_text("1000\n")
    rsa, ec = ["RSA", "-pkeyopt", "rsa_keygen_bits:2048"], ["EC", "-pkeyopt", "ec_paramgen_curve:P-256"]
    kind = ec if key_type is KeyType.P256 else rsa
    openssl("genpkey", "-aes256", "-pass", "env:PASS", "-algorithm", *kind, "-out", folder / "caKey.pem")
    answers = "DE\nBayern\nMünchen\nProbe & Söhne\nTeam 1/2+3\nTest CA\na@example.com\n"
    common = ["-config", folder / "caConfig.cnf", "-key", folder / "caKey.pem", "-passin", "env:PASS", "-utf8"]
    options = ["-new", "-x509", "-days", days, "-sha256", "-extensions", "v3_ca", "-out", folder / "caCert.pem"]
    openssl("req", *common, *options, input=answers)


def openssl_sign(
    folder: Path, csr: x509.CertificateSigningRequest, openssl: Run, **options: object
) -> x509.Certificate:
    (folder / "csr.pem").write_bytes(csr.public_bytes(Encoding.PEM))
    arguments = ["-extensions", "v3_signed", "-days", 365, "-notext", "-md", "sha256", "-in", folder / "csr.pem"]
    out = folder / "out.pem"
    openssl(
        *("ca", "-batch", "-config", folder / "caConfig.cnf", "-passin", "env:PASS", *arguments, "-out", out), **options
    )
    return read_certificates(out)[0]


@pytest.mark.parametrize("key_type", [KeyType.RSA_2048, KeyType.P256])
def test_our_root_equals_openssls_field_by_field(tmp_path: Path, openssl: Run, key_type: KeyType) -> None:
    openssl_ca(tmp_path / "theirs", openssl, key_type)
    theirs = read_certificates(tmp_path / "theirs" / "caCert.pem")[0]
    subject = DistinguishedName.from_x509(theirs.subject)
    ours = CertificateAuthority.create(tmp_path / "ours", subject, PASSPHRASE, key_type=key_type).certificate
    assert KeyType.of(ours) == KeyType.of(theirs) == key_type
    for field in ("version", "signature_hash_algorithm", "signature_algorithm_oid"):
        assert str(getattr(ours, field)) == str(getattr(theirs, field))
    assert ours.subject.public_bytes() == theirs.subject.public_bytes() == ours.issuer.public_bytes()
    lifetimes = [c.not_valid_after_utc - c.not_valid_before_utc for c in (ours, theirs)]
    assert lifetimes == [timedelta(days=7300)] * 2
    assert [(e.oid, e.critical) for e in ours.extensions] == [(e.oid, e.critical) for e in theirs.extensions]
    for kind in (x509.BasicConstraints, x509.KeyUsage):
        extensions = [c.extensions.get_extension_for_class(kind).value for c in (ours, theirs)]
        assert extensions[0] == extensions[1]
    for certificate in (ours, theirs):
        own = x509.SubjectKeyIdentifier.from_public_key(certificate.public_key())
        assert certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value == own
        issuer = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
        assert issuer == x509.AuthorityKeyIdentifier(own.digest, None, None)
    assert 2**100 < ours.serial_number < 2**160, "a random serial, as openssl's"


def test_our_device_certificate_is_openssls_to_the_byte(tmp_path: Path, openssl: Run) -> None:
    openssl_ca(tmp_path / "theirs", openssl)
    shutil.copytree(tmp_path / "theirs", tmp_path / "ours")
    CertificateAuthority.relocate(tmp_path / "ours")
    theirs = openssl_sign(tmp_path / "theirs", request(SUBJECT), openssl)
    ca = CertificateAuthority.open(tmp_path / "ours", PASSPHRASE)
    ours = ca.sign(request(SUBJECT), at=theirs.not_valid_before_utc)
    assert ours.public_bytes(Encoding.DER) == theirs.public_bytes(Encoding.DER)
    assert ours.serial_number == 0x1000
    for name in ("database.txt", "serial"):
        assert (tmp_path / "ours" / name).read_text() == (tmp_path / "theirs" / name).read_text()
    copies = [read_certificates(tmp_path / side / "deviceCertificates" / "1000.pem") for side in ("ours", "theirs")]
    assert copies == [[ours], [theirs]]
    other = ca.sign(request(DistinguishedName(common_name="other")), at=theirs.not_valid_before_utc)
    assert other.public_bytes(Encoding.DER) != theirs.public_bytes(Encoding.DER)


def test_openssl_and_we_take_turns(ca: CertificateAuthority, openssl: Run) -> None:
    for number in range(4):
        csr = request(DistinguishedName(common_name=f"device-{number}"))
        signed = ca.sign(csr) if number % 2 == 0 else openssl_sign(ca.folder, csr, openssl)
        assert signed.serial_number == 0x1000 + number
    assert [row.serial for row in ca.database.rows()] == [0x1000 + number for number in range(4)]
    for serial in ("1000", "1001"):
        status = openssl("ca", "-config", ca.folder / "caConfig.cnf", "-status", serial, check=False)
        assert f"{serial}=Valid (V)" in status.stderr + status.stdout
    unknown = openssl("ca", "-config", ca.folder / "caConfig.cnf", "-status", "1004", check=False)
    assert "not present" in unknown.stderr + unknown.stdout


def test_openssl_verifies_what_we_sign(ca: CertificateAuthority, openssl: Run, tmp_path: Path) -> None:
    ca.sign(request(DistinguishedName(common_name="device")))
    copy = ca.folder / "deviceCertificates" / "1000.pem"
    assert "OK" in openssl("verify", "-CAfile", ca.folder / "caCert.pem", copy).stdout
    other = CertificateAuthority.create(
        tmp_path / "other", DistinguishedName(common_name="Other"), PASSPHRASE, key_type=KeyType.RSA_2048
    )
    refused = openssl("verify", "-CAfile", other.folder / "caCert.pem", copy, check=False)
    assert refused.returncode != 0 and "unable to get local issuer certificate" in refused.stderr


def test_the_folder_is_the_guides_and_private(ca: CertificateAuthority) -> None:
    names = {str(path.relative_to(ca.folder)) for path in ca.folder.rglob("*")}
    guide = {"caConfig.cnf", "database.txt", "serial", "crl", "crl/crlnumber", "deviceCertificates"}
    assert names == guide | {"caKey.pem", "caCert.pem"}
    assert (ca.folder / "caKey.pem").stat().st_mode & 0o777 == 0o600
    assert b"ENCRYPTED" in (ca.folder / "caKey.pem").read_bytes()
    assert (ca.folder / "database.txt").read_bytes() == b"" and (ca.folder / "serial").read_text() == "1000\n"
    assert ca.certificate.public_key().key_size == 2048  # type: ignore[union-attr]
    assert [path.name for path in ca.folder.parent.iterdir() if path.name.startswith(".caCertificate.")] == []


def test_our_keys_and_requests_open_in_openssl(tmp_path: Path, openssl: Run) -> None:
    key = create_key(tmp_path / "key.pem", PASSPHRASE, key_type=KeyType.RSA_2048)
    create_request(tmp_path / "csr.pem", key, SUBJECT)
    assert "verify OK" in openssl("req", "-in", tmp_path / "csr.pem", "-noout", "-verify").stderr
    openssl("pkey", "-in", tmp_path / "key.pem", "-passin", "env:PASS", "-noout", "-check")
    assert openssl("pkey", "-in", tmp_path / "key.pem", "-passin", "pass:wrong!", "-noout", check=False).returncode != 0
    openssl("genrsa", "-aes256", "-passout", "env:PASS", "-out", tmp_path / "theirs.pem", 2048)
    assert read_private_key(tmp_path / "theirs.pem", PASSPHRASE)
    assert (tmp_path / "key.pem").stat().st_mode & 0o777 == 0o600


def test_the_policy_drops_what_it_does_not_list_and_keeps_its_order(ca: CertificateAuthority) -> None:
    reversed_name = x509.Name(reversed(list(SUBJECT.to_x509())))
    signed = ca.sign(request(reversed_name))
    expected = ["DE", "Bayern", "Probe & Söhne", "Team 1/2+3", "device", "a@example.com"]
    assert [attribute.value for attribute in signed.subject] == expected


def set_policy(ca: CertificateAuthority, old: str, new: str) -> CertificateAuthority:
    path = ca.folder / "caConfig.cnf"
    path.write_text(path.read_text().replace(old, new))
    return CertificateAuthority.open(ca.folder, PASSPHRASE)


def test_match_and_supplied_refuse_in_openssls_words(ca: CertificateAuthority, openssl: Run) -> None:
    strict = set_policy(ca, "organizationName        = optional", "organizationName = match")
    good = DistinguishedName(organization="Probe & Söhne", common_name="a")
    for name, says in [
        (DistinguishedName(organization="Other", common_name="b"), "organizationName field is different between"),
        (DistinguishedName(organization="Probe & Söhne"), "commonName field needed to be supplied and was missing"),
    ]:
        with pytest.raises(OnboardingError, match=says):
            strict.sign(request(name))
        theirs = subprocess.CalledProcessError
        with pytest.raises((AssertionError, theirs), match=says):
            openssl_sign(ca.folder, request(name), openssl)
    assert strict.database.rows() == [] and (ca.folder / "serial").read_text() == "1000\n"
    assert strict.sign(request(good)).serial_number == 0x1000


def test_a_subject_is_signed_once_while_valid(ca: CertificateAuthority) -> None:
    ca.sign(request(SUBJECT))
    with pytest.raises(OnboardingError, match="already a certificate for /C=DE/") as caught:
        ca.sign(request(SUBJECT))
    assert caught.value.code == "SUBJECT_TAKEN" and len(ca.database.rows()) == 1
    (ca.folder / "database.txt.attr").write_text("unique_subject = no\n")
    assert ca.sign(request(SUBJECT)).serial_number == 0x1001


@pytest.mark.parametrize(
    "subject", [SUBJECT, DistinguishedName(common_name="../x"), DistinguishedName(common_name="CON")]
)
def test_odd_names_do_no_harm_in_files(ca: CertificateAuthority, subject: DistinguishedName) -> None:
    before = {path for path in ca.folder.parent.rglob("*")}
    assert ca.sign(request(subject)).subject
    new = {path.name for path in ca.folder.parent.rglob("*")} - {path.name for path in before}
    assert new <= {"1000.pem", ".caCertificate.lock"}


def test_nothing_is_overwritten(ca: CertificateAuthority) -> None:
    key = (ca.folder / "caKey.pem").read_bytes()
    with pytest.raises(OnboardingError, match="never overwritten"):
        CertificateAuthority.create(ca.folder, SUBJECT, PASSPHRASE, key_type=KeyType.RSA_2048)
    with pytest.raises(OnboardingError, match="never overwritten"):
        create_key(ca.folder / "caKey.pem", PASSPHRASE)
    assert (ca.folder / "caKey.pem").read_bytes() == key


def test_a_ca_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    for subject, passphrase in [(DistinguishedName(country="DE"), PASSPHRASE), (SUBJECT, "abc")]:
        with pytest.raises(OnboardingError):
            CertificateAuthority.create(tmp_path / "caCertificate", subject, passphrase)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_passphrase_is_named_and_changes_nothing(ca: CertificateAuthority) -> None:
    with pytest.raises(OnboardingError, match=r"does not open .*caKey\.pem") as caught:
        CertificateAuthority.open(ca.folder, "not this one")
    assert caught.value.code == "WRONG_PASSPHRASE" and "not this one" not in str(caught.value)
    assert PASSPHRASE not in repr(ca) and "Key" not in repr(ca).split("database")[0].split("certificate=")[0]


def test_a_copied_directory_is_refused_until_relocated(ca: CertificateAuthority, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(ca.folder, copy)
    with pytest.raises(OnboardingError, match="relocate"):
        CertificateAuthority.open(copy, PASSPHRASE)
    CertificateAuthority.relocate(copy)
    CertificateAuthority.open(copy, PASSPHRASE).sign(request(SUBJECT))
    assert ca.database.rows() == [] and read_config(copy / "caConfig.cnf").ca("dir") == copy.as_posix()


def test_a_tampered_request_is_refused(ca: CertificateAuthority) -> None:
    der = bytearray(request(SUBJECT).public_bytes(Encoding.DER))
    der[-1] ^= 1
    with pytest.raises(OnboardingError, match="changed after it was made"):
        ca.sign(x509.load_der_x509_csr(bytes(der)))
    assert ca.database.rows() == []


def test_a_damaged_request_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "csr.pem").write_text("nothing")
    with pytest.raises(OnboardingError, match="no certificate signing request"):
        read_request(tmp_path / "csr.pem")
    with pytest.raises(OnboardingError, match="There is no request"):
        read_request(tmp_path / "none.pem")


@pytest.mark.parametrize("days", [0, -1, 40000])
def test_days_have_bounds(ca: CertificateAuthority, days: int) -> None:
    with pytest.raises(OnboardingError, match="valid for 1 to"):
        ca.sign(request(SUBJECT), days=days)


def test_time_can_be_set(tmp_path: Path) -> None:
    at = datetime(2049, 6, 1, 12, tzinfo=UTC)
    subject = DistinguishedName(common_name="Late CA")
    ca = CertificateAuthority.create(tmp_path / "ca", subject, PASSPHRASE, key_type=KeyType.RSA_2048, at=at)
    signed = ca.sign(request(SUBJECT), at=at)
    assert (signed.not_valid_before_utc, signed.not_valid_after_utc) == (at, at + timedelta(days=365))
    assert ca.database.path.read_text().split("\t")[1] == "20500601120000Z", "four digits from 2050 on"


def test_the_frame_shows_the_rows(ca: CertificateAuthority) -> None:
    assert ca.database.to_frame().empty
    signed = ca.sign(request(SUBJECT))
    row = ca.database.to_frame().iloc[0]
    assert (row.status, row.serial, row.common_name, row.file) == ("V", 0x1000, "device", "unknown")
    assert row.expires == signed.not_valid_after_utc and row.revoked is not row.expires


def test_a_torn_last_row_is_dropped_never_completed(ca: CertificateAuthority) -> None:
    ca.sign(request(SUBJECT))
    with ca.database.path.open("a") as file:
        file.write("V\t271123180706Z\t\t1001\tunk")
    assert len(ca.database.rows()) == 1
    ca.sign(request(DistinguishedName(common_name="next")))
    assert [row.serial for row in ca.database.rows()] == [0x1000, 0x1001]


def test_a_serial_that_was_set_back_is_not_issued_twice(ca: CertificateAuthority) -> None:
    ca.sign(request(SUBJECT))
    (ca.folder / "serial").write_text("1000\n")
    assert ca.sign(request(DistinguishedName(common_name="next"))).serial_number == 0x1001


@pytest.mark.parametrize("text", ["", "0x10", "no", "ü"])
def test_a_damaged_serial_file_is_named(ca: CertificateAuthority, text: str) -> None:
    (ca.folder / "serial").write_text(text)
    with pytest.raises(OnboardingError, match="next number in hexadecimal"):
        ca.sign(request(SUBJECT))
    assert ca.database.rows() == []


@pytest.mark.parametrize("line", ["", "V\t271123180706Z\t\t1000\tunknown", "X\t271123180706Z\t\t1000\tunknown\t/CN=a"])
def test_a_damaged_database_is_named_with_its_line(ca: CertificateAuthority, line: str) -> None:
    ca.database.path.write_text(f"V\t271123180706Z\t\t1000\tunknown\t/CN=a\n{line}\n")
    with pytest.raises(OnboardingError, match="line 2 is no row"):
        ca.sign(request(SUBJECT))


def test_signers_side_by_side_lose_nothing(ca: CertificateAuthority) -> None:
    def sign(number: int) -> None:
        ca.sign(request(DistinguishedName(common_name=f"device-{number}")))

    threads = [threading.Thread(target=sign, args=[number]) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(row.serial for row in ca.database.rows()) == list(range(0x1000, 0x100C))


times = st.datetimes(datetime(1990, 1, 1), datetime(2149, 1, 1)).map(lambda t: t.replace(microsecond=0, tzinfo=UTC))


@given(times, times.filter(lambda t: t.year < 2050), st.integers(1, 2**159), st.sampled_from(["", "keyCompromise"]))
def test_rows_round_trip(expires: datetime, revoked: datetime, serial: int, reason: str) -> None:
    row = DatabaseRow("R", expires, revoked, reason, serial, "unknown", "/CN=a")
    assert list(parse_rows(f"{row}\n").rows()) == [row]
    assert len(str(row).split("\t")[3]) % 2 == 0


def test_a_missing_database_is_named(tmp_path: Path) -> None:
    with pytest.raises(OnboardingError, match="no signing database"):
        SigningDatabase(tmp_path / "database.txt", tmp_path / "serial").rows()


@pytest.mark.parametrize("reason", ["superseded,x", "keyCompromise,\ud800", "keyTime", "keyTime,now", "stolen", "a\tb"])
def test_a_reason_that_is_none_never_reaches_the_database(ca: CertificateAuthority, reason: str) -> None:
    ca.sign(request(SUBJECT))
    before = ca.database.path.read_bytes()
    with pytest.raises(OnboardingError, match="no reason for a revocation"):
        ca.revoke(0x1000, reason)
    assert ca.database.path.read_bytes() == before
    assert ca.revoke(0x1000, "KEYTIME,20260101000000Z").reason == "keyTime,20260101000000Z"


def test_a_serial_as_the_table_shows_it_is_explained(ca: CertificateAuthority) -> None:
    ca.sign(request(SUBJECT))
    for serial in ("1000", 1000):
        with pytest.raises(OnboardingError, match="1000 is 0x1000"):
            ca.revoke(serial)  # type: ignore[arg-type]


def test_an_open_ca_leaves_the_one_alone_that_took_its_place(ca: CertificateAuthority) -> None:
    ca.sign(request(SUBJECT))
    ca.folder.rename(ca.folder.with_name("moved"))
    other = CertificateAuthority.create(
        ca.folder, DistinguishedName(common_name="Other"), PASSPHRASE, key_type=KeyType.RSA_2048
    )
    before = {path: path.read_bytes() for path in ca.folder.rglob("*") if path.is_file()}
    for work in (lambda: ca.sign(request(SUBJECT)), lambda: ca.revoke(0x1000), ca.update_crl, ca.update_database):
        with pytest.raises(OnboardingError, match="holds another CA by now") as caught:
            work()
        assert caught.value.code == "REPLACED"
    assert {path: path.read_bytes() for path in ca.folder.rglob("*") if path.is_file()} == before
    assert other.sign(request(SUBJECT)).serial_number == 0x1000


def test_what_was_signed_for_a_request_is_found(ca: CertificateAuthority) -> None:
    csr = request(SUBJECT)
    assert ca.find_issued(csr) is None
    signed = ca.sign(csr)
    assert ca.find_issued(csr) == signed
    assert ca.find_issued(request(SUBJECT, ec.generate_private_key(ec.SECP256R1()))) is None, "another key"
    copy = ca.folder / "deviceCertificates" / "1000.pem"
    copy.rename(copy.with_name(".1000.pem.draft"))  # as a process leaves it that ends between the row and the name
    assert ca.find_issued(csr) == signed and copy.exists()
    assert ca.find_issued(csr, ca=True) is None, "it is no CA's"
    ca.revoke(0x1000)
    assert ca.find_issued(csr) is None
    ca.sign(csr, days=1, at=datetime.now(UTC) - timedelta(days=3))
    assert ca.find_issued(csr) is None, "it has expired"


def test_relative_paths_are_seen_from_where_the_ca_was_opened(
    ca: CertificateAuthority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ca.folder / "caConfig.cnf"
    config.write_text(config.read_text().replace(f"= {ca.folder}", "= ."))
    monkeypatch.chdir(ca.folder)
    here = CertificateAuthority.open(ca.folder, PASSPHRASE)
    monkeypatch.chdir(tmp_path)
    signed = here.sign(request(SUBJECT))
    assert read_certificates(ca.folder / "deviceCertificates" / "1000.pem") == [signed]
    with pytest.raises(OnboardingError, match="openssl would sign into that folder"):
        CertificateAuthority.open(ca.folder, PASSPHRASE)


@pytest.mark.parametrize("signed", [False, True], ids=["before signing", "after signing"])
def test_an_intermediate_that_was_cut_off_is_gone_on_with(ca: CertificateAuthority, signed: bool) -> None:
    folder, subject = ca.folder / "intermediateCertificate", DistinguishedName(common_name="Below")
    whole = ca.create_intermediate(folder, subject, PASSPHRASE, key_type=KeyType.RSA_2048)
    (folder / "intermediateCert.pem").unlink()
    if not signed:
        ca.database.path.write_bytes(b"")
        (ca.folder / "deviceCertificates" / "1000.pem").unlink()
    again = ca.create_intermediate(folder, subject, PASSPHRASE, key_type=KeyType.RSA_2048)
    assert again.certificate.public_key() == whole.certificate.public_key()
    assert (again.certificate == whole.certificate) == signed and len(ca.database.rows()) == 1
    for other, says in ((DistinguishedName(common_name="Another"), "there already"), (subject, "there already")):
        with pytest.raises(OnboardingError, match=says):
            ca.create_intermediate(folder, other, PASSPHRASE, key_type=KeyType.RSA_2048)


def test_a_hidden_file_of_a_persons_own_is_left_alone(ca: CertificateAuthority) -> None:
    backup = ca.folder / ".database.txt.20260101"
    backup.write_text("mine")
    assert CertificateAuthority.open(ca.folder, PASSPHRASE).recovered == "" and backup.read_text() == "mine"


@pytest.mark.parametrize(
    "at", [datetime(9999, 6, 1, tzinfo=UTC), datetime(1900, 1, 1, tzinfo=UTC), datetime.min, datetime.max]
)
def test_times_beyond_all_bounds_are_named(ca: CertificateAuthority, tmp_path: Path, at: datetime) -> None:
    for work in (
        lambda: ca.sign(request(SUBJECT), at=at),
        lambda: ca.revoke(0x1000, at=at),
        lambda: ca.update_crl(at=at),
        lambda: ca.update_database(at=at),
        lambda: CertificateAuthority.create(tmp_path / "x", SUBJECT, PASSPHRASE, at=at),
    ):
        with pytest.raises(OnboardingError):
            work()
    assert ca.database.rows() == [] and not (tmp_path / "x").exists()


def test_odd_folders_and_keys_are_named(ca: CertificateAuthority, tmp_path: Path) -> None:
    for folder in (tmp_path / ("x" * 300), tmp_path / "\udcff"):
        with pytest.raises(OnboardingError):
            CertificateAuthority.create(folder, SUBJECT, PASSPHRASE, key_type=KeyType.RSA_2048)
    for look in (CertificateAuthority.inspect, CertificateAuthority.relocate):
        with pytest.raises(OnboardingError):
            look(tmp_path / ("x" * 300))
    with pytest.raises(OnboardingError, match="no key type 1024"):
        CertificateAuthority.create(tmp_path / "x", SUBJECT, PASSPHRASE, key_type=1024)


@pytest.mark.parametrize(("key_type", "kind"), [(KeyType.RSA_2048, "rsaEncryption"), (KeyType.P256, "prime256v1")])
def test_every_kind_of_key_is_made_by_one_door(tmp_path: Path, openssl: Run, key_type: KeyType, kind: str) -> None:
    key = create_key(tmp_path / "key.pem", PASSPHRASE, key_type)
    assert KeyType.of(key) == KeyType.of(read_private_key(tmp_path / "key.pem", PASSPHRASE)) == key_type
    create_request(tmp_path / "csr.pem", key, SUBJECT)
    assert kind in openssl("req", "-in", tmp_path / "csr.pem", "-noout", "-text").stdout
    assert "self-signature verify OK" in openssl("req", "-in", tmp_path / "csr.pem", "-noout", "-verify").stderr


@pytest.mark.parametrize("key_type", [-1, 0, 255, 257, 384, 2047, 16385])
def test_no_other_key_is_made(tmp_path: Path, key_type: KeyType) -> None:
    with pytest.raises(OnboardingError, match=r"give one of KeyType.RSA_2048, .*KeyType.P256") as error:
        create_key(tmp_path / "key.pem", PASSPHRASE, key_type)
    assert error.value.code == "BAD_KEY" and not any(tmp_path.iterdir())
    assert (
        KeyType.of(ec.generate_private_key(ec.SECP384R1()))
        is KeyType.of(ec.generate_private_key(ec.SECP256K1()))
        is None
    )


def test_what_would_be_refused_is_said_before_a_key_is_made(ca: CertificateAuthority) -> None:
    ca.check_new(SUBJECT, 365)
    nameless, late = DistinguishedName(country="DE"), ca.certificate.not_valid_after_utc
    for subject, days, at, code in (
        (nameless, 365, None, "POLICY"),
        (SUBJECT, 0, None, "BAD_DAYS"),
        (SUBJECT, 7301, None, "OUTLIVES_CA"),
        (SUBJECT, 1, late - timedelta(hours=1), "OUTLIVES_CA"),
        (SUBJECT, 1, late, "CA_EXPIRED"),
    ):
        with pytest.raises(OnboardingError) as error:
            ca.check_new(subject, days, at=at)
        assert error.value.code == code
        assert "ask for 0 days" not in str(error.value)
    ca.sign(request(SUBJECT))
    with pytest.raises(OnboardingError, match="already a certificate"):
        ca.check_new(SUBJECT, 365)


def test_an_expired_ca_says_so(ca: CertificateAuthority) -> None:
    late = ca.certificate.not_valid_after_utc + timedelta(days=1)
    with pytest.raises(OnboardingError, match=r"CA's certificate expired on .*: make a new CA") as caught:
        ca.sign(request(SUBJECT), at=late)
    assert caught.value.code == "CA_EXPIRED"
