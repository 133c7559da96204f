import dataclasses
import errno
import itertools
import os
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import tqdm
from ca_tools import SUBJECT, copy_of, devices, make_ca, request, snapshot
from conftest import PASSPHRASE, Run
from cryptography.hazmat.primitives.asymmetric import ec

from mciot_nb import CertificateAuthority, DistinguishedName, OnboardingError
from mciot_nb.pki import authority
from mciot_nb.pki.chain import read_certificates
from mciot_nb.pki.files import write_whole
from mciot_nb.pki.keys import KeyType, create_key, create_request, read_private_key


def test_the_folder_is_the_guides_and_private(ca: CertificateAuthority) -> None:
    names = {str(path.relative_to(ca.folder)) for path in ca.folder.rglob("*")}
    guide = {"caConfig.cnf", "database.txt", "serial", "crl", "crl/crlnumber", "deviceCertificates"}
    assert names == guide | {"caKey.pem", "caCert.pem"}
    assert (ca.folder / "caKey.pem").stat().st_mode & 0o777 == 0o600
    assert b"ENCRYPTED" in (ca.folder / "caKey.pem").read_bytes()
    assert (ca.folder / "database.txt").read_bytes() == b"" and (ca.folder / "serial").read_text() == "1000\n"
    assert 2**100 < ca.certificate.serial_number < 2**160, "a random serial, as openssl's"
    assert [path.name for path in ca.folder.parent.iterdir() if path.name.startswith(".caCertificate.")] == []


@pytest.mark.parametrize(("key_type", "kind"), [(KeyType.RSA_2048, "rsaEncryption"), (KeyType.P256, "prime256v1")])
def test_our_keys_and_requests_open_in_openssl(tmp_path: Path, openssl: Run, key_type: KeyType, kind: str) -> None:
    path, csr = tmp_path / "key.pem", tmp_path / "csr.pem"
    key = create_key(path, PASSPHRASE, key_type)
    assert KeyType.of(key) == KeyType.of(read_private_key(path, PASSPHRASE)) == key_type
    assert path.stat().st_mode & 0o777 == 0o600
    create_request(csr, key, SUBJECT)
    shown = openssl("req", "-in", csr, "-noout", "-text", "-verify")
    assert "self-signature verify OK" in shown.stderr and kind in shown.stdout
    openssl("pkey", "-in", path, "-passin", "env:PASS", "-noout", "-check")
    assert openssl("pkey", "-in", path, "-passin", "pass:wrong!", "-noout", check=False).returncode != 0
    algorithm = ["RSA"] if key_type is KeyType.RSA_2048 else ["EC", "-pkeyopt", "ec_paramgen_curve:P-256"]
    theirs = tmp_path / "theirs.pem"
    openssl("genpkey", "-aes256", "-pass", "env:PASS", "-algorithm", *algorithm, "-out", theirs)
    assert KeyType.of(read_private_key(theirs, PASSPHRASE)) == key_type


def test_odd_names_do_no_harm_in_files(ca: CertificateAuthority) -> None:
    before = set(ca.folder.parent.rglob("*"))
    assert len(ca.sign_many([request(DistinguishedName(common_name=name)) for name in ("../x", "CON", "$(x)")])) == 3
    new = {path.name for path in set(ca.folder.parent.rglob("*")) - before}
    assert new <= {"1000.pem", "1001.pem", "1002.pem", ".caCertificate.lock"}


def test_nothing_is_overwritten(ca: CertificateAuthority) -> None:
    key = (ca.folder / "caKey.pem").read_bytes()
    with pytest.raises(OnboardingError, match="never overwritten"):
        make_ca(ca.folder, SUBJECT)
    with pytest.raises(OnboardingError, match="never overwritten"):
        create_key(ca.folder / "caKey.pem", PASSPHRASE)
    assert (ca.folder / "caKey.pem").read_bytes() == key


def test_a_file_system_without_hard_links_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    ca = make_ca(tmp_path / "ca", SUBJECT)
    assert ca.sign(request("device")).serial_number == 0x1000
    with pytest.raises(OnboardingError, match="never overwritten"):
        write_whole(ca.folder / "serial", b"2000\n")
    assert (ca.folder / "serial").read_bytes() == b"1001\n" and not list(ca.folder.glob(".*"))


def test_a_ca_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    for subject, passphrase in [(DistinguishedName(country="DE"), PASSPHRASE), (SUBJECT, "abc")]:
        with pytest.raises(OnboardingError):
            CertificateAuthority.create(tmp_path / "caCertificate", subject, passphrase)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_passphrase_is_named_and_changes_nothing(ca: CertificateAuthority) -> None:
    with pytest.raises(OnboardingError, match=r"does not open .*caKey\.pem") as caught:
        CertificateAuthority.open(ca.folder, "not this one")
    assert caught.value.code == "WRONG_PASSPHRASE" and "not this one" not in str(caught.value)
    assert PASSPHRASE not in repr(ca) and "Key" not in repr(ca) and len(repr(ca)) < 400, "a learner's cell shows it"


def test_a_serial_that_was_set_back_is_not_issued_twice(ca: CertificateAuthority) -> None:
    ca.sign(request(SUBJECT))
    (ca.folder / "serial").write_text("1000\n")
    assert ca.sign(request("next")).serial_number == 0x1001


def test_signers_side_by_side_lose_nothing(ca: CertificateAuthority) -> None:
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(ca.sign, devices(12)))
    assert sorted(row.serial for row in ca.database.rows()) == list(range(0x1000, 0x100C))


def stop(*_: object) -> None:
    raise KeyboardInterrupt


def stopped(pairs: Iterable[object], **_: object) -> Iterator[object]:
    yield from itertools.islice(pairs, 2)
    raise KeyboardInterrupt


STOPS = [(tqdm, "tqdm", stopped), (authority, "write_draft", stop), (authority.SigningDatabase, "record", stop)]


@pytest.mark.parametrize("where", STOPS, ids=["signing", "writing", "recording"])
def test_a_batch_that_is_stopped_is_as_if_it_had_not_begun(
    ca: CertificateAuthority, where: tuple[object, str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = devices(5)
    with monkeypatch.context() as patch:
        patch.setattr(*where)
        with pytest.raises(KeyboardInterrupt):
            ca.sign_many(requests)
    assert ca.database.rows() == [] and list((ca.folder / "deviceCertificates").iterdir()) == []
    numbers = [each.serial_number for each in ca.sign_many(requests)]
    assert numbers == list(range(0x1005, 0x100A)), "the others are gone"


@pytest.mark.parametrize("terminal", [True, False])
def test_a_long_batch_is_counted_on_a_terminal_only(
    ca: CertificateAuthority, terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    ca.sign_many(devices(3))
    ca.sign(request(SUBJECT))
    said = capsys.readouterr()
    assert ("3/3" in said.err) is terminal and "1/1" not in said.err and said.out == ""
    assert terminal or said.err == ""


def test_an_open_ca_leaves_the_one_alone_that_took_its_place(ca: CertificateAuthority) -> None:
    ca.sign(request(SUBJECT))
    ca.folder.rename(ca.folder.with_name("moved"))
    other = make_ca(ca.folder, "Other")
    before = snapshot(ca.folder)
    for work in (lambda: ca.sign(request(SUBJECT)), lambda: ca.revoke(0x1000), ca.update_crl, ca.update_database):
        with pytest.raises(OnboardingError, match="holds another CA by now") as caught:
            work()
        assert caught.value.code == "REPLACED"
    assert snapshot(ca.folder) == before
    assert other.sign(request(SUBJECT)).serial_number == 0x1000


def test_what_was_signed_for_a_request_is_found(ca: CertificateAuthority) -> None:
    csr = request(SUBJECT)
    assert ca.find_issued(csr) is None
    signed = ca.sign(csr)
    assert ca.find_issued(csr) == signed
    assert ca.find_issued(request(SUBJECT, ec.generate_private_key(ec.SECP256R1()))) is None, "another key"
    copy = copy_of(ca)
    copy.rename(copy.with_name(".1000.pem.draft"))  # as a process leaves it that ends between the row and the name
    assert ca.find_issued(csr) == signed and copy.exists()
    assert ca.find_issued(csr, ca=True) is None, "it is not a CA's"
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
    assert read_certificates(copy_of(ca)) == [signed]
    with pytest.raises(OnboardingError, match="sign into that folder: start in the folder from which"):
        CertificateAuthority.open(ca.folder, PASSPHRASE)


@pytest.mark.parametrize("signed", [False, True], ids=["before signing", "after signing"])
def test_an_intermediate_that_was_cut_off_is_gone_on_with(ca: CertificateAuthority, signed: bool) -> None:
    folder, subject = ca.folder / "intermediateCertificate", DistinguishedName(common_name="Below")
    whole = ca.create_intermediate(folder, subject, PASSPHRASE, key_type=KeyType.P256)
    (folder / "intermediateCert.pem").unlink()
    if not signed:
        ca.database.path.write_bytes(b"")
        copy_of(ca).unlink()
    again = ca.create_intermediate(folder, subject, PASSPHRASE, key_type=KeyType.P256)
    assert again.certificate.public_key() == whole.certificate.public_key()
    assert (again.certificate == whole.certificate) == signed and len(ca.database.rows()) == 1
    for other, says in ((DistinguishedName(common_name="Another"), "there already"), (subject, "there already")):
        with pytest.raises(OnboardingError, match=says):
            ca.create_intermediate(folder, other, PASSPHRASE, key_type=KeyType.P256)


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
        lambda: make_ca(tmp_path / "x", at=at),
    ):
        with pytest.raises(OnboardingError):
            work()
    assert ca.database.rows() == [] and not (tmp_path / "x").exists()


def test_odd_folders_and_keys_are_named(ca: CertificateAuthority, tmp_path: Path) -> None:
    for folder in (tmp_path / ("x" * 300), tmp_path / "\udcff"):
        with pytest.raises(OnboardingError):
            make_ca(folder, SUBJECT)
    for look in (CertificateAuthority.inspect, CertificateAuthority.relocate):
        with pytest.raises(OnboardingError):
            look(tmp_path / ("x" * 300))


@pytest.mark.parametrize("key_type", [-1, 257, 1024])
def test_no_other_key_is_made(tmp_path: Path, key_type: KeyType) -> None:
    with pytest.raises(OnboardingError, match=r"give one of KeyType.RSA_2048, .*KeyType.P256") as error:
        create_key(tmp_path / "key.pem", PASSPHRASE, key_type)
    assert error.value.code == "BAD_KEY" and not any(tmp_path.iterdir())
    assert {KeyType.of(ec.generate_private_key(curve)) for curve in (ec.SECP384R1(), ec.SECP256K1())} == {None}


def test_what_would_be_refused_is_said_before_a_key_is_made(ca: CertificateAuthority) -> None:
    ca.check_new(SUBJECT, 365)
    nameless, late = DistinguishedName(country="DE"), ca.certificate.not_valid_after_utc
    for subject, days, at, code in (
        (nameless, 365, None, "POLICY"),
        (SUBJECT, 0, None, "BAD_DAYS"),
        (SUBJECT, -1, None, "BAD_DAYS"),
        (SUBJECT, 40000, None, "BAD_DAYS"),
        (SUBJECT, 7301, None, "OUTLIVES_CA"),
        (SUBJECT, 1, late - timedelta(hours=1), "OUTLIVES_CA"),
        (SUBJECT, 1, late, "CA_EXPIRED"),
    ):
        with pytest.raises(OnboardingError) as error:
            ca.check_new(subject, days, at=at)
        assert error.value.code == code and "ask for 0 days" not in str(error.value)
        with pytest.raises(OnboardingError) as same:
            ca.sign(request(subject), days=days, at=at)
        assert str(same.value) == str(error.value)
    ca.sign(request(SUBJECT))
    with pytest.raises(OnboardingError, match="already a certificate"):
        ca.check_new(SUBJECT, 365)
    (ca.folder / "serial").unlink()
    with pytest.raises(OnboardingError, match="echo 1000 > serial"):
        ca.check_new(dataclasses.replace(SUBJECT, common_name="another"), 365)
