"""Each thing that is wrong with a CA directory is found, alone, without a byte changed; and each trap is a real one."""

import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import ca_tools
import pytest
from ca_tools import GUIDE, SUBJECT, codes, copy_of, devices, openssl_sign, openssl_signs, request
from conftest import PASSPHRASE, Run, run
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from mciot_nb import CertificateAuthority, OnboardingError
from mciot_nb.errors import Finding
from mciot_nb.pki.audit import audit
from mciot_nb.pki.chain import read_certificates
from mciot_nb.pki.keys import read_private_key
from mciot_nb.pki.rows import DatabaseRow

EASY_RSA = "/usr/share/easy-rsa/easyrsa"
Act = Callable[[CertificateAuthority], object]


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
    own = ca.certificate
    times = own.not_valid_before_utc, own.not_valid_after_utc
    builder = x509.CertificateBuilder(own.subject, own.subject, key.public_key(), 7, *times)
    builder = builder.add_extension(x509.BasicConstraints(False, None), True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
    (ca.folder / "caCert.pem").write_bytes(builder.sign(key, SHA256()).public_bytes(Encoding.PEM))


def half_renamed(ca: CertificateAuthority) -> None:
    (ca.folder / "serial").rename(ca.folder / "serial.old")
    (ca.folder / "serial.new").write_text("1001\n")


def serial_set_back(ca: CertificateAuthority) -> None:
    ca.sign(request("next"))
    (ca.folder / "serial").write_text("1000\n")


def copy_without_row(ca: CertificateAuthority) -> None:
    ca.sign(request("next"))
    ca.database.path.write_text("")


def used_copy(ca: CertificateAuthority) -> None:
    copy_without_row(ca)
    (ca.folder / "serial").write_text("1000\n")


def crl_then_revoke(ca: CertificateAuthority) -> None:
    ca.sign(request("next"))
    ca.update_crl()
    ca.revoke(0x1000)


def write(name: str, text: str) -> Act:
    return lambda ca: (ca.folder / name).write_text(text)


def remove(name: str) -> Act:
    return lambda ca: (ca.folder / name).unlink()


def setting(section: str, line: str) -> Act:
    return lambda ca: configure(ca, section, line)


torn = write("database.txt", "V\t29")
half_signed = write("deviceCertificates/.1000.pem.draft", "a certificate")
half_written = write(".serial.abc_defg.draft", "10")
LATE = datetime(2060, 1, 1, tzinfo=UTC)
# What is done to a fresh directory, what is found then besides the guide's three, and in which words.
WRONG: list[tuple[Act, set[str], str]] = [
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
    (write("database.txt", "\n"), {"BAD_DATABASE"}, "line 1 is not a row"),
    (write("database.txt", 2 * "V\t291123180706Z\t\t2000\tunknown\t/CN=a\n"), {"BAD_DATABASE"}, "is there twice"),
    (write("serial", "00\n"), {"BAD_SERIAL"}, "serial holds 00, and a serial number is positive"),
    (setting("signing_policy", "surname = match"), {"POLICY"}, "the 'policy' is misconfigured"),
    (write("serial", "0x10\n"), {"BAD_SERIAL"}, "serial must hold the next number"),
    (write("crl/crlnumber", "100\n"), {"BAD_SERIAL"}, "crlnumber must hold the next number"),
    (write("caCert.pem", "nothing"), {"BAD_PEM"}, "caCert.pem"),
    (write("crl/caCrl.pem", "nothing"), {"BAD_PEM"}, "caCrl.pem"),
]


@pytest.mark.parametrize(
    ("spoil", "codes", "says"), WRONG, ids=lambda value: "+".join(sorted(value)) if isinstance(value, set) else None
)
def test_what_is_wrong_is_found_and_nothing_else(
    ca: CertificateAuthority, spoil: Act, codes: set[str], says: str
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
    signed, crl, end = ca.sign(request("next"), days=10), ca.update_crl(5), ca.certificate.not_valid_after_utc
    day = timedelta(days=1)
    assert crl.next_update_utc
    assert set(look(ca.folder)) == set(look(ca.folder, crl.next_update_utc)) == GUIDE
    assert set(look(ca.folder, crl.next_update_utc + day)) == GUIDE | {"CRL_EXPIRED"}
    assert set(look(ca.folder, signed.not_valid_after_utc)) == GUIDE | {"CRL_EXPIRED", "EXPIRED_ROWS"}
    ca.update_database(at=signed.not_valid_after_utc)
    ca.update_crl(36500)
    assert set(look(ca.folder, end - day)) == GUIDE
    assert set(look(ca.folder, end - day / 2)) == GUIDE | {"OUTLIVES_CA"}, "nothing can be signed for a whole day"
    found = look(ca.folder, end)
    assert set(found) == GUIDE | {"CA_EXPIRED"} and f"{end:%Y-%m-%d}" in found["CA_EXPIRED"]


def test_a_directory_made_by_openssl_alone_is_looked_through(tmp_path: Path) -> None:
    folder = tmp_path / "caCertificate"
    ca_tools.ca_of_openssl(folder)
    assert set(look(folder)) == GUIDE | {"NO_CRLNUMBER"}
    openssl_sign(folder, request(SUBJECT))
    assert set(look(folder)) == GUIDE | {"NO_CRLNUMBER"}, "its .old and .attr files are nothing odd"


def test_a_healthy_directory_is_ok(ca: CertificateAuthority) -> None:
    unconfigure(ca, "preserve")
    configure(ca, "CA_default", "x509_extensions = v3_signed")
    configure(ca, "signing_policy", "localityName = optional")
    ca.sign_many(devices(3))
    ca.revoke(0x1001)
    ca.update_crl()
    assert look(ca.folder) == {} and ca.check().ok


# From here on: the trap is real, and who does what the finding says is out of it.


def plainly(ca: CertificateAuthority, name: str = "device", *options: object) -> x509.Certificate:
    """Sign with ``openssl ca`` as somebody does who knows only the configuration."""
    signed = openssl_signs(ca.folder, request(name), *options)
    assert isinstance(signed, x509.Certificate), signed
    return signed


def test_version_1_is_real(ca: CertificateAuthority, openssl: Run) -> None:
    signed, version = plainly(ca), openssl("version").stdout.split()[1]
    is_old = tuple(map(int, version.split(".")[:2])) < (3, 2)
    made = [type(extension.value) for extension in signed.extensions]
    assert (signed.version is x509.Version.v1) is is_old
    assert made == ([] if is_old else [x509.SubjectKeyIdentifier, x509.AuthorityKeyIdentifier]), (
        "none that the guide asks for"
    )
    configure(ca, "CA_default", "x509_extensions = v3_signed")
    assert plainly(ca, "next").version is x509.Version.v3 and "NO_X509_EXTENSIONS" not in look(ca.folder)


def test_signing_into_another_folder_is_real(ca: CertificateAuthority) -> None:
    copy = ca.folder.parent / "copy"
    shutil.copytree(ca.folder, copy)
    assert set(look(copy)) == GUIDE | {"OTHER_DIR"}
    with pytest.raises(OnboardingError, match="relocate"):
        CertificateAuthority.open(copy, PASSPHRASE)
    openssl_sign(copy, request("next"))
    assert (copy / "database.txt").read_bytes() == b"" and len(ca.database.rows()) == 1
    CertificateAuthority.relocate(copy)
    assert "OTHER_DIR" not in look(copy)
    openssl_sign(copy, request("next"))
    CertificateAuthority.open(copy, PASSPHRASE).sign(request(SUBJECT))
    assert (len((copy / "database.txt").read_text().splitlines()), len(ca.database.rows())) == (2, 1)
    copy.rename(copy.with_name("moved"))
    assert "OTHER_DIR" in look(copy.with_name("moved")), "and the folder that is named is gone"


def test_a_relative_dir_is_right_from_where_it_is_seen(
    ca: CertificateAuthority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """openssl's own layout, ``dir = ./demoCA``: relocating it would break it."""
    folder, config = tmp_path / "place" / "demoCA", tmp_path / "place" / "openssl.cnf"
    folder.parent.mkdir()
    ca.folder.rename(folder)
    config.write_text((folder / "caConfig.cnf").read_text().replace(f"= {ca.folder}", "= ./demoCA"))
    (folder / "caConfig.cnf").unlink()
    monkeypatch.chdir(config.parent)
    for seen_from in (Path(), config.parent, folder):
        found = CertificateAuthority.inspect(seen_from, config=config)
        assert {finding.code for finding in found.findings} == GUIDE
    for name in ("first", "second"):
        CertificateAuthority.open(Path(), PASSPHRASE).sign(request(name))
        CertificateAuthority.relocate(Path())
        assert isinstance(
            openssl_signs(Path(), request(f"{name} of theirs"), "-extensions", "v3_signed"), x509.Certificate
        )
    assert len(CertificateAuthority.open(folder, PASSPHRASE, config).database.rows()) == 4
    monkeypatch.chdir(tmp_path)
    assert "start in the folder from which ./demoCA/database.txt is right" in look(config.parent)["OTHER_DIR"]


def test_paths_that_are_written_out_are_seen(ca: CertificateAuthority) -> None:
    """As easy-rsa 3.1 writes them: ``dir`` alone does not make a copy a CA of its own."""
    config = ca.folder / "caConfig.cnf"
    config.write_text(config.read_text().replace("$dir", str(ca.folder)))
    assert set(look(ca.folder)) == GUIDE
    copy = ca_tools.copied(ca.folder, ca.folder.with_name("copy"))
    assert "correct its paths, which don't begin with $dir" in look(copy)["OTHER_DIR"]
    with pytest.raises(OnboardingError, match="correct its paths"):
        CertificateAuthority.open(copy, PASSPHRASE)


def test_a_directory_of_easy_rsa_is_looked_through_and_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian's easy-rsa 3.1 leaves two configurations: one with ``$ENV::`` in it, and the same written out."""
    for name, value in {"EASYRSA_BATCH": "1", "EASYRSA_PKI": str(tmp_path / "pki"), "EASYRSA_ALGO": "ec"}.items():
        monkeypatch.setenv(name, value)
    for words in ("init-pki", "--req-cn=VPN build-ca nopass", "build-client-full c1 nopass"):
        run(EASY_RSA, *words.split(), cwd=tmp_path)
    folder, codes = tmp_path / "pki", {"PRESERVE_IGNORED", "KEY_NOT_ENCRYPTED"}
    assert set(look(folder)) == codes
    monkeypatch.delenv("EASYRSA_PKI")
    (folder / "caConfig.cnf").write_text((folder / "openssl-easyrsa.cnf").read_text())
    with pytest.raises(OnboardingError, match="the environment variable EASYRSA_PKI is not set: set it"):
        audit(folder, folder / "openssl-easyrsa.cnf")
    with pytest.raises(
        OnboardingError, match=r"it has caConfig\.cnf, safessl-easyrsa\.cnf.* or give its path as config="
    ):
        audit(folder)
    ca = CertificateAuthority.open(folder, "none", folder / "safessl-easyrsa.cnf")
    assert {finding.code for finding in ca.check().findings} == codes
    assert ca.sign(request("c2")).extensions
    run("openssl", "verify", "-CAfile", folder / "ca.crt", *(folder / "certs_by_serial").iterdir())
    assert len(list((folder / "certs_by_serial").iterdir())) == 2


def test_a_used_serial_is_refused_or_overwrites(ca: CertificateAuthority) -> None:
    serial_set_back(ca)
    before = copy_of(ca).read_bytes()
    assert "1000" in str(openssl_signs(ca.folder, request(SUBJECT))) and len(ca.database.rows()) == 1
    assert copy_of(ca).read_bytes() == before, "with the row there, openssl refuses"
    ca.database.path.write_text("")
    plainly(ca)
    assert copy_of(ca).read_bytes() != before, "without it, openssl overwrites"
    (ca.folder / "serial").write_text("1000\n")
    assert "SERIAL_USED" in look(ca.folder)
    (ca.folder / "serial").write_text("1001\n")
    assert "SERIAL_USED" not in look(ca.folder)
    assert plainly(ca, "next").serial_number == 0x1001


@pytest.mark.parametrize("how", ["ours", "openssl"])
def test_a_certificate_without_a_row_gets_one(ca: CertificateAuthority, how: str) -> None:
    copy_without_row(ca)
    assert "-valid 1000.pem" in look(ca.folder)["NO_ROW"]
    if how == "ours":
        assert ca.revoke(read_certificates(copy_of(ca))[0]).status == "R"
    else:
        ca_tools.openssl_ca(ca.folder, "-valid", copy_of(ca))
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
    end = ca.certificate.not_valid_after_utc
    signed = plainly(ca, "device", "-extensions", "v3_signed", "-days", 8000)
    assert signed.not_valid_after_utc > end, "openssl signs it without a word"
    assert "1000 (/CN=device" in look(ca.folder)["OUTLIVES_CA"]
    verify = ["verify", "-CAfile", ca.folder / "caCert.pem", "-attime"]
    openssl(*verify, int(end.timestamp()) - 1, copy_of(ca))
    late = openssl(*verify, int(end.timestamp()) + 1, copy_of(ca), check=False)
    assert "certificate has expired" in late.stderr
    ca.revoke(0x1000)
    assert set(look(ca.folder)) == GUIDE


def test_what_a_non_ca_signs_is_not_trusted(ca: CertificateAuthority, openssl: Run) -> None:
    openssl_sign(ca.folder, request(SUBJECT))
    verify = ["verify", "-CAfile", ca.folder / "caCert.pem", copy_of(ca)]
    openssl(*verify)
    no_ca(ca)
    assert "NO_CA" in look(ca.folder)
    assert "invalid CA certificate" in openssl(*verify, check=False).stderr


def test_a_missing_folder_stops_openssl(ca: CertificateAuthority) -> None:
    (ca.folder / "deviceCertificates").rmdir()
    assert isinstance(openssl_signs(ca.folder, request(SUBJECT)), str)
    assert "NO_FILE" in look(ca.folder) and ca.database.rows() == []
    (ca.folder / "deviceCertificates").mkdir()
    plainly(ca)
    assert set(look(ca.folder)) == GUIDE and len(ca.database.rows()) == 1


@pytest.mark.parametrize("spoil", [torn, half_signed, half_written, half_renamed])
def test_opening_puts_in_order_what_was_interrupted(ca: CertificateAuthority, spoil: Act) -> None:
    spoil(ca)
    assert "opening the CA puts that in order" in look(ca.folder)["INTERRUPTED"]
    assert CertificateAuthority.open(ca.folder, PASSPHRASE).recovered
    assert set(look(ca.folder)) == GUIDE


def test_the_revocation_list_is_made_anew(ca: CertificateAuthority, openssl: Run) -> None:
    crl_then_revoke(ca)
    copy, crl = copy_of(ca), ca.folder / "crl" / "caCrl.pem"
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
    ca.sign_many(devices(7), days=1, at=at)
    sentence = look(ca.folder)["EXPIRED_ROWS"]
    assert "1004 (/CN=device-4) and 2 more" in sentence and "device-5" not in sentence
    assert "; call update_database()" in sentence, "what to do comes last, as in every finding"


def test_what_another_ca_signed_is_named(ca: CertificateAuthority, tmp_path: Path) -> None:
    """Two CAs begin with the same serial: what one of them made must not pass for the other's."""
    other = ca_tools.make_ca(tmp_path / "other", "Other")
    for each in (ca, other):
        each.sign(request(SUBJECT))
        each.update_crl()
    foreign = {"FOREIGN_COPY": "deviceCertificates/1000.pem", "FOREIGN_CRL": "crl/caCrl.pem"}
    assert not foreign.keys() & codes(ca), "each has its own"
    for name in foreign.values():
        (ca.folder / name).write_bytes((other.folder / name).read_bytes())
    found = {finding.code: finding.sentence for finding in ca.check().findings}
    assert "1000.pem has the number of a row, but this CA did not sign it" in found["FOREIGN_COPY"]
    assert "caCrl.pem was not signed by this CA" in found["FOREIGN_CRL"]
    ca.update_crl()  # as the finding advises
    assert "FOREIGN_CRL" not in codes(ca)
