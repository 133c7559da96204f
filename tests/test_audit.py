"""Each thing that is wrong with a CA directory is found, alone, without a byte changed; and each trap is a real one."""

import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from conftest import PASSPHRASE, Run
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from test_authority import KEY, SUBJECT, openssl_ca, openssl_sign, request

from mciot_nb import CertificateAuthority, DistinguishedName
from mciot_nb.errors import Finding
from mciot_nb.pki.audit import audit
from mciot_nb.pki.chain import read_certificates
from mciot_nb.pki.keys import KeyType, read_private_key
from mciot_nb.pki.rows import DatabaseRow

#: What the guide's own configuration brings with it.
GUIDE = {"PRESERVE_IGNORED", "NO_X509_EXTENSIONS", "POLICY_DROPS"}
NEXT = DistinguishedName(common_name="next")


def state(folder: Path) -> dict[str, object]:
    """Give all that ``ls`` and ``cat`` tell: names, rights, times and content, of the CA's folder and beside it."""
    return {
        str(path): (path.stat().st_mode, path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in [folder.parent, *folder.parent.rglob("*")]
    }


def look(folder: Path, at: datetime | None = None) -> dict[str, str]:
    """Look through a directory, and give what was found by code; see that it is well put, and that nothing changed."""
    before = state(folder)
    findings = audit(folder, at=at).findings
    assert state(folder) == before
    for finding in findings:
        assert isinstance(finding, Finding) and finding.sentence.endswith("."), finding
        assert len(finding.sentence.splitlines()) == 1 and not re.search("Traceback|Errno| None", finding.sentence)
    return {finding.code: finding.sentence for finding in findings}


def configure(ca: CertificateAuthority, section: str, line: str) -> None:
    path = ca.folder / "caConfig.cnf"
    assert f"[ {section} ]\n" in path.read_text()
    path.write_text(path.read_text().replace(f"[ {section} ]\n", f"[ {section} ]\n{line}\n"))


def unconfigure(ca: CertificateAuthority, line: str) -> None:
    path = ca.folder / "caConfig.cnf"
    kept = re.sub(rf"(?m)^{line}.*\n", "", path.read_text())
    assert kept != path.read_text()
    path.write_text(kept)


def add_row(ca: CertificateAuthority, expires: datetime, name: str = "old") -> None:
    with ca.database.path.open("a") as file:
        file.write(f"{DatabaseRow('V', expires.replace(microsecond=0), None, '', 0x2000, 'unknown', f'/CN={name}')}\n")


def unlock_key(ca: CertificateAuthority) -> None:
    key = read_private_key(ca.folder / "caKey.pem", PASSPHRASE)
    (ca.folder / "caKey.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def no_ca(ca: CertificateAuthority) -> None:
    key = read_private_key(ca.folder / "caKey.pem", PASSPHRASE)
    builder = x509.CertificateBuilder(ca.certificate.subject, ca.certificate.subject, key.public_key(), 7)
    builder = builder.not_valid_before(ca.certificate.not_valid_before_utc)
    builder = builder.not_valid_after(ca.certificate.not_valid_after_utc)
    builder = builder.add_extension(x509.BasicConstraints(False, None), True)
    (ca.folder / "caCert.pem").write_bytes(builder.sign(key, SHA256()).public_bytes(Encoding.PEM))


def half_renamed(ca: CertificateAuthority) -> None:
    (ca.folder / "serial").rename(ca.folder / "serial.old")
    (ca.folder / "serial.new").write_text("1001\n")


def serial_set_back(ca: CertificateAuthority) -> None:
    ca.sign(request(NEXT))
    (ca.folder / "serial").write_text("1000\n")


def copy_without_row(ca: CertificateAuthority) -> None:
    ca.sign(request(NEXT))
    ca.database.path.write_text("")


def used_copy(ca: CertificateAuthority) -> None:
    copy_without_row(ca)
    (ca.folder / "serial").write_text("1000\n")


def crl_then_revoke(ca: CertificateAuthority) -> None:
    ca.sign(request(NEXT))
    ca.update_crl()
    ca.revoke(0x1000)


def write(name: str, text: str) -> Callable[[CertificateAuthority], object]:
    return lambda ca: (ca.folder / name).write_text(text)


def remove(name: str) -> Callable[[CertificateAuthority], object]:
    return lambda ca: (ca.folder / name).unlink()


def setting(section: str, line: str) -> Callable[[CertificateAuthority], object]:
    return lambda ca: configure(ca, section, line)


torn = write("database.txt", "V\t29")
half_signed = write("deviceCertificates/.1000.pem.draft", "a certificate")
half_written = write(".serial.abc_defg.draft", "10")
LATE = datetime(2060, 1, 1, tzinfo=UTC)
# What is done to a fresh directory, what is found then besides the guide's three, and in which words.
WRONG: list[tuple[Callable[[CertificateAuthority], object], set[str], str]] = [
    (setting("CA_default", "copy_extensions = copy"), {"NOT_FOLLOWED"}, "copy_extensions = copy"),
    (setting("CA_default", "email_in_dn = no"), {"NOT_FOLLOWED"}, "email_in_dn = no"),
    (setting("CA_default", "rand_serial = yes"), {"NOT_FOLLOWED"}, "rand_serial = yes"),
    (setting("ca", "msie_hack = yes"), {"NOT_FOLLOWED"}, "msie_hack = yes"),
    (remove("caKey.pem"), {"NO_FILE"}, "caKey.pem is missing: put it back"),
    (remove("caCert.pem"), {"NO_FILE"}, "caCert.pem: make it first"),
    (remove("database.txt"), {"NO_FILE"}, "database.txt: put it back"),
    (lambda ca: (ca.folder / "deviceCertificates").rmdir(), {"NO_FILE"}, "deviceCertificates for signed certificates"),
    (lambda ca: (ca.folder / "caKey.pem").chmod(0o640), {"KEY_READABLE"}, "chmod 600 caKey.pem"),
    (unlock_key, {"KEY_NOT_ENCRYPTED"}, "openssl pkey -aes256 -in caKey.pem -out new.pem"),
    (no_ca, {"NO_CA"}, "caCert.pem does not say CA:true"),
    (torn, {"INTERRUPTED"}, "the last row of database.txt was not finished"),
    (half_signed, {"INTERRUPTED"}, "signing was cut off at 1000"),
    (half_written, {"INTERRUPTED"}, "serial was being written"),
    (half_renamed, {"INTERRUPTED", "NO_FILE"}, "serial was missing, as openssl leaves it"),
    (write("database.txt", "# mine\n"), {"COMMENT"}, "database.txt has a comment"),
    (lambda ca: add_row(ca, LATE), {"OUTLIVES_CA"}, "2000 (/CN=old)"),
    (lambda ca: add_row(ca, datetime.now(UTC) - timedelta(1)), {"EXPIRED_ROWS"}, "2000 (/CN=old)"),
    (remove("crl/crlnumber"), {"NO_CRLNUMBER"}, "echo 1000 > crl/crlnumber"),
    (serial_set_back, {"SERIAL_USED"}, "serial holds 1000, which is used already"),
    (used_copy, {"SERIAL_USED", "NO_ROW"}, "serial holds 1000, which is used already"),
    (copy_without_row, {"NO_ROW"}, "1000.pem, the certificate of CN=next"),
    (crl_then_revoke, {"CRL_INCOMPLETE"}, "1000 (/CN=next); call update_crl()"),
    (write("database.txt", "\n"), {"BAD_DATABASE"}, "line 1 is no row"),
    (write("database.txt", 2 * "V\t291123180706Z\t\t2000\tunknown\t/CN=a\n"), {"BAD_DATABASE"}, "stands there twice"),
    (write("serial", "0x10\n"), {"BAD_SERIAL"}, "serial must hold the next number"),
    (write("crl/crlnumber", "100\n"), {"BAD_SERIAL"}, "crlnumber must hold the next number"),
    (write("caCert.pem", "nothing"), {"BAD_PEM"}, "caCert.pem"),
    (write("crl/caCrl.pem", "nothing"), {"BAD_PEM"}, "caCrl.pem"),
]


@pytest.mark.parametrize(
    ("spoil", "codes", "says"), WRONG, ids=lambda value: "+".join(sorted(value)) if isinstance(value, set) else None
)
def test_what_is_wrong_is_found_and_nothing_else(
    ca: CertificateAuthority, spoil: Callable[[CertificateAuthority], object], codes: set[str], says: str
) -> None:
    assert set(look(ca.folder)) == GUIDE, "the control: the guide's fresh directory"
    spoil(ca)
    found = look(ca.folder)
    assert set(found) == GUIDE | codes
    assert says in " ".join(found.values())
    assert ca.check() == CertificateAuthority.inspect(ca.folder)


@pytest.mark.parametrize(
    ("section", "line", "code"),
    [
        ("CA_default", "copy_extensions = none", "NOT_FOLLOWED"),
        ("CA_default", "email_in_dn = yes", "NOT_FOLLOWED"),
        ("ca", "msie_hack = no", "NOT_FOLLOWED"),
        ("CA_default", "x509_extensions = v3_signed", "NO_X509_EXTENSIONS"),
        ("signing_policy", "localityName = optional", "POLICY_DROPS"),
        ("ca", "preserve = yes", "POLICY_DROPS"),
    ],
)
def test_what_is_right_is_not_found(ca: CertificateAuthority, section: str, line: str, code: str) -> None:
    configure(ca, section, line)
    assert set(look(ca.folder)) == GUIDE - {code}


def test_time_alone_makes_things_wrong(ca: CertificateAuthority) -> None:
    signed, crl, end = ca.sign(request(NEXT), days=10), ca.update_crl(5), ca.certificate.not_valid_after_utc
    day = timedelta(days=1)
    assert crl.next_update_utc
    assert set(look(ca.folder)) == set(look(ca.folder, crl.next_update_utc)) == GUIDE
    assert set(look(ca.folder, crl.next_update_utc + day)) == GUIDE | {"CRL_EXPIRED"}
    assert set(look(ca.folder, signed.not_valid_after_utc)) == GUIDE | {"CRL_EXPIRED", "EXPIRED_ROWS"}
    ca.update_database(at=signed.not_valid_after_utc)
    ca.update_crl(36500)
    assert set(look(ca.folder, end)) == GUIDE
    found = look(ca.folder, end + day)
    assert set(found) == GUIDE | {"CA_EXPIRED"} and f"{end:%Y-%m-%d}" in found["CA_EXPIRED"]


def test_a_directory_made_by_openssl_alone_is_looked_through(tmp_path: Path, openssl: Run) -> None:
    folder = tmp_path / "caCertificate"
    openssl_ca(folder, openssl)
    assert set(look(folder)) == GUIDE | {"NO_CRLNUMBER"}
    openssl_sign(folder, request(SUBJECT), openssl)
    (folder / "out.pem").unlink()
    assert set(look(folder)) == GUIDE | {"NO_CRLNUMBER"}, "its .old and .attr files are nothing odd"


def test_a_healthy_directory_is_ok(ca: CertificateAuthority) -> None:
    unconfigure(ca, "preserve")
    configure(ca, "CA_default", "x509_extensions = v3_signed")
    configure(ca, "signing_policy", "localityName = optional")
    ca.sign_many([request(DistinguishedName(common_name=f"device-{number}")) for number in range(3)])
    ca.revoke(0x1001)
    ca.update_crl()
    assert look(ca.folder) == {} and ca.check().ok


# From here on: the trap is real, and who does what the finding says is out of it.


def sign_plainly(ca: CertificateAuthority, openssl: Run, *options: object, name: DistinguishedName = SUBJECT) -> str:
    """Sign with ``openssl ca`` as somebody does who knows only the configuration; give what it printed."""
    (ca.folder / "csr.pem").write_bytes(request(name).public_bytes(Encoding.PEM))
    config = ["-batch", "-config", ca.folder / "caConfig.cnf", "-passin", "env:PASS", "-notext"]
    paths = ["-in", ca.folder / "csr.pem", "-out", ca.folder / "out.pem"]
    done = openssl("ca", *config, *options, *paths, check=False)
    return done.stdout + done.stderr


def signed_by(ca: CertificateAuthority) -> x509.Certificate:
    return read_certificates(ca.folder / "out.pem")[0]


def test_version_1_is_real(ca: CertificateAuthority, openssl: Run) -> None:
    sign_plainly(ca, openssl)
    assert signed_by(ca).version is x509.Version.v1
    configure(ca, "CA_default", "x509_extensions = v3_signed")
    sign_plainly(ca, openssl, name=NEXT)
    assert signed_by(ca).version is x509.Version.v3 and "NO_X509_EXTENSIONS" not in look(ca.folder)


def test_signing_into_another_folder_is_real(ca: CertificateAuthority, openssl: Run) -> None:
    copy = ca.folder.parent / "copy"
    shutil.copytree(ca.folder, copy)
    assert set(look(copy)) == GUIDE | {"OTHER_DIR"}
    openssl_sign(copy, request(NEXT), openssl)
    assert (copy / "database.txt").read_bytes() == b"" and len(ca.database.rows()) == 1
    CertificateAuthority.relocate(copy)
    assert "OTHER_DIR" not in look(copy)
    openssl_sign(copy, request(NEXT), openssl)
    assert len((copy / "database.txt").read_text().splitlines()) == len(ca.database.rows()) == 1
    copy.rename(copy.with_name("moved"))
    assert "OTHER_DIR" in look(copy.with_name("moved")), "and the folder that is named is gone"


@pytest.mark.parametrize(
    ("section", "line", "differs"),
    [
        ("CA_default", "copy_extensions = copy", True),
        ("CA_default", "copy_extensions = copyall", True),
        ("CA_default", "copy_extensions = none", False),
        ("CA_default", "email_in_dn = no", True),
        ("CA_default", "email_in_dn = yes", False),
        ("CA_default", "rand_serial = yes", True),
        # openssl looks only whether rand_serial is there (apps/ca.c): a "no" gives random serials too.
        ("CA_default", "rand_serial = no", True),
        ("CA_default", "unused = yes", False),
    ],
)
def test_a_setting_is_named_where_openssl_makes_something_else_of_it(
    ca: CertificateAuthority, openssl: Run, section: str, line: str, differs: bool
) -> None:
    configure(ca, section, line)
    builder = x509.CertificateSigningRequestBuilder().subject_name(SUBJECT.to_x509())
    csr = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("device")]), False).sign(KEY, SHA256())
    theirs = openssl_sign(ca.folder, csr, openssl)
    for path in (*ca.folder.glob("database.txt*"), *ca.folder.glob("serial*"), *ca.folder.glob("deviceC*/*")):
        path.unlink()
    (ca.folder / "database.txt").touch()
    (ca.folder / "serial").write_text("1000\n")
    ours = CertificateAuthority.open(ca.folder, PASSPHRASE).sign(csr, at=theirs.not_valid_before_utc)
    assert (ours.tbs_certificate_bytes != theirs.tbs_certificate_bytes) is differs
    assert ("NOT_FOLLOWED" in look(ca.folder)) is differs


def test_a_used_serial_is_refused_or_overwrites(ca: CertificateAuthority, openssl: Run) -> None:
    copy = ca.folder / "deviceCertificates" / "1000.pem"
    serial_set_back(ca)
    before = copy.read_bytes()
    assert "1000" in sign_plainly(ca, openssl) and len(ca.database.rows()) == 1
    assert copy.read_bytes() == before, "with the row there, openssl refuses"
    ca.database.path.write_text("")
    sign_plainly(ca, openssl)
    assert copy.read_bytes() != before, "without it, openssl overwrites"
    (ca.folder / "serial").write_text("1000\n")
    assert "SERIAL_USED" in look(ca.folder)
    (ca.folder / "serial").write_text("1001\n")
    assert "SERIAL_USED" not in look(ca.folder)
    sign_plainly(ca, openssl, name=NEXT)
    assert signed_by(ca).serial_number == 0x1001


@pytest.mark.parametrize("how", ["ours", "openssl"])
def test_a_certificate_without_a_row_gets_one(ca: CertificateAuthority, openssl: Run, how: str) -> None:
    copy_without_row(ca)
    copy = ca.folder / "deviceCertificates" / "1000.pem"
    assert "-valid 1000.pem" in look(ca.folder)["NO_ROW"]
    if how == "ours":
        assert ca.revoke(read_certificates(copy)[0]).status == "R"
    else:
        openssl("ca", "-config", ca.folder / "caConfig.cnf", "-passin", "env:PASS", "-valid", copy)
    assert set(look(ca.folder)) == GUIDE and len(ca.database.rows()) == 1


def test_a_key_without_passphrase_or_open_to_others_is_mended(ca: CertificateAuthority, openssl: Run) -> None:
    key = ca.folder / "caKey.pem"
    unlock_key(ca)
    key.chmod(0o644)
    assert {"KEY_READABLE", "KEY_NOT_ENCRYPTED"} <= set(look(ca.folder))
    openssl("pkey", "-in", key, "-noout")
    new = key.with_name("new.pem")  # openssl 3.0 empties a file that is -in and -out before it reads it
    openssl("pkey", "-aes256", "-in", key, "-passout", "env:PASS", "-out", new)
    new.replace(key)
    assert openssl("pkey", "-in", key, "-noout", "-passin", "pass:wrong", check=False).returncode != 0
    key.chmod(0o600)
    assert set(look(ca.folder)) == GUIDE and CertificateAuthority.open(ca.folder, PASSPHRASE)


def test_a_certificate_that_outlives_its_ca_stops_with_it(ca: CertificateAuthority, openssl: Run) -> None:
    sign_plainly(ca, openssl, "-extensions", "v3_signed", "-days", 8000)
    end = ca.certificate.not_valid_after_utc
    assert signed_by(ca).not_valid_after_utc > end, "openssl signs it without a word"
    assert "1000 (/C=DE" in look(ca.folder)["OUTLIVES_CA"]
    verify = ["verify", "-CAfile", ca.folder / "caCert.pem", "-attime"]
    openssl(*verify, int(end.timestamp()) - 1, ca.folder / "out.pem")
    late = openssl(*verify, int(end.timestamp()) + 1, ca.folder / "out.pem", check=False)
    assert "certificate has expired" in late.stderr
    ca.revoke(0x1000)
    assert set(look(ca.folder)) == GUIDE


def test_what_a_non_ca_signs_is_not_trusted(ca: CertificateAuthority, openssl: Run) -> None:
    sign_plainly(ca, openssl, "-extensions", "v3_signed")
    verify = ["verify", "-CAfile", ca.folder / "caCert.pem", ca.folder / "out.pem"]
    openssl(*verify)
    no_ca(ca)
    assert "NO_CA" in look(ca.folder)
    assert "invalid CA certificate" in openssl(*verify, check=False).stderr


def test_a_missing_folder_stops_openssl(ca: CertificateAuthority, openssl: Run) -> None:
    (ca.folder / "deviceCertificates").rmdir()
    sign_plainly(ca, openssl)
    assert "NO_FILE" in look(ca.folder) and ca.database.rows() == []
    (ca.folder / "deviceCertificates").mkdir()
    sign_plainly(ca, openssl)
    assert set(look(ca.folder)) == GUIDE and len(ca.database.rows()) == 1


@pytest.mark.parametrize("spoil", [torn, half_signed, half_written, half_renamed])
def test_opening_puts_in_order_what_was_interrupted(
    ca: CertificateAuthority, spoil: Callable[[CertificateAuthority], None]
) -> None:
    spoil(ca)
    assert "opening the CA puts that in order" in look(ca.folder)["INTERRUPTED"]
    assert CertificateAuthority.open(ca.folder, PASSPHRASE).recovered
    assert set(look(ca.folder)) == GUIDE


def test_the_revocation_list_is_made_anew(ca: CertificateAuthority, openssl: Run) -> None:
    crl_then_revoke(ca)
    copy, crl = ca.folder / "deviceCertificates" / "1000.pem", ca.folder / "crl" / "caCrl.pem"
    verify = ["verify", "-crl_check", "-CAfile", ca.folder / "caCert.pem", "-CRLfile", crl]
    openssl(*verify, copy)
    assert "CRL_INCOMPLETE" in look(ca.folder), "and openssl still trusts it"
    ca.update_crl()
    assert "certificate revoked" in openssl(*verify, copy, check=False).stderr
    assert set(look(ca.folder)) == GUIDE
    later = datetime.now(UTC) + timedelta(days=31)
    assert "CRL_EXPIRED" in look(ca.folder, later)
    expired = openssl(*verify, "-attime", int(later.timestamp()), copy, check=False)
    assert "CRL has expired" in expired.stderr


def test_many_rows_are_named_by_the_first_few(ca: CertificateAuthority) -> None:
    at = datetime.now(UTC) - timedelta(days=2)
    for number in range(7):
        ca.sign(request(DistinguishedName(common_name=f"device-{number}")), days=1, at=at - timedelta(hours=1))
    sentence = look(ca.folder)["EXPIRED_ROWS"]
    assert "1004 (/CN=device-4) and 2 more" in sentence and "device-5" not in sentence
    assert "; call update_database()" in sentence, "what to do comes last, as in every finding"


def test_what_another_ca_signed_is_named(ca: CertificateAuthority, tmp_path: Path) -> None:
    """Two CAs begin with the same serial: what one of them made must not pass for the other's."""
    other = CertificateAuthority.create(
        tmp_path / "other", DistinguishedName(common_name="Other"), PASSPHRASE, key_type=KeyType.P256
    )
    for each in (ca, other):
        each.sign(request(SUBJECT))
        each.update_crl()
    foreign = {"FOREIGN_COPY": "deviceCertificates/1000.pem", "FOREIGN_CRL": "crl/caCrl.pem"}
    assert not foreign.keys() & {finding.code for finding in ca.check().findings}, "each has its own"
    for name in foreign.values():
        (ca.folder / name).write_bytes((other.folder / name).read_bytes())
    found = {finding.code: finding.sentence for finding in ca.check().findings}
    assert "1000.pem has the number of a row, but this CA did not sign it" in found["FOREIGN_COPY"]
    assert "caCrl.pem was not signed by this CA" in found["FOREIGN_CRL"]
    ca.update_crl()  # as the finding advises
    assert "FOREIGN_CRL" not in {finding.code for finding in ca.check().findings}
