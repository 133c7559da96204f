"""What openssl leaves in a CA directory when it is interrupted, and what opening the directory makes of that."""

import os
import subprocess
from pathlib import Path

import pytest
from conftest import PASSPHRASE, Run
from crash_tools import BAD, Base, Case, crl_of, demand_rows_and_copies_agree, openssl_reads, request_for, snapshot

from mciot_nb import CertificateAuthority, OnboardingError
from mciot_nb.pki.chain import read_certificates


def openssl_signs(folder: Path, request: Path, openssl: Run, **options: object) -> "subprocess.CompletedProcess[str]":
    config = ["-config", folder / "caConfig.cnf", "-passin", "env:PASS", "-batch", "-notext"]
    return openssl("ca", *config, "-extensions", "v3_signed", "-in", request, "-out", os.devnull, **options)


@pytest.fixture
def by_openssl(base: Base, tmp_path: Path, openssl: Run) -> Path:
    """A CA directory in which openssl has just signed and written a revocation list, with its .old files."""
    folder = base.copy(tmp_path, Case("sign"))
    openssl_signs(folder, base.requests[0], openssl)
    config = ["-config", folder / "caConfig.cnf", "-passin", "env:PASS"]
    openssl("ca", *config, "-gencrl", "-out", crl_of(folder))
    return folder


@pytest.mark.parametrize("name", ["serial", "database.txt", "crl/crlnumber"])
def test_openssls_unfinished_rename_is_finished(name: str, base: Base, by_openssl: Path, openssl: Run) -> None:
    path, whole = by_openssl / name, snapshot(by_openssl)
    new = path.with_name(f"{path.name}.new")
    path.rename(new)  # as if openssl had been killed between its two renames
    assert path.with_name(f"{path.name}.old").exists()
    command = ["ca", "-config", by_openssl / "caConfig.cnf", "-passin", "env:PASS"]
    if name == "crl/crlnumber":  # the control: openssl does not help itself
        assert openssl(*command, "-gencrl", "-out", os.devnull, check=False).returncode != 0
    else:
        assert openssl_signs(by_openssl, base.requests[1], openssl, check=False).returncode != 0
    assert "INTERRUPTED" in {finding.code for finding in CertificateAuthority.inspect(by_openssl).findings}

    ca = CertificateAuthority.open(by_openssl, PASSPHRASE)
    assert f"{path.name} was missing" in ca.recovered
    assert snapshot(by_openssl) == whole
    assert CertificateAuthority.open(by_openssl, PASSPHRASE).recovered == ""
    assert not BAD & {finding.code for finding in ca.check().findings}
    openssl_signs(by_openssl, base.requests[1], openssl)
    openssl(*command, "-gencrl", "-out", crl_of(by_openssl))


@pytest.mark.parametrize("name", ["serial", "database.txt", "crl/crlnumber"])
def test_what_openssl_has_not_finished_writing_is_refused(name: str, by_openssl: Path) -> None:
    path = by_openssl / name
    path.unlink()
    old, new = path.with_name(f"{path.name}.old"), path.with_name(f"{path.name}.new")
    new.write_bytes(old.read_bytes()[:-1])
    before = snapshot(by_openssl)
    with pytest.raises(OnboardingError, match=f"{path.name}.new, .* is shorter than {path.name}.old") as caught:
        CertificateAuthority.open(by_openssl, PASSPHRASE)
    assert caught.value.code == "INTERRUPTED"
    assert snapshot(by_openssl) == before


def test_openssl_killed_between_its_two_files_is_named(base: Base, by_openssl: Path, openssl: Run) -> None:
    """openssl puts the new serial in place first: then a copy is there whose row is in database.txt.new only."""
    database = by_openssl / "database.txt"
    database.rename(database.with_name("database.txt.new"))
    database.with_name("database.txt.old").rename(database)
    ca = CertificateAuthority.open(by_openssl, PASSPHRASE)
    found = {finding.code: str(finding) for finding in ca.check().findings}
    assert "1002.pem" in found["NO_ROW"]
    assert ca.sign(request_for("next")).serial_number == 0x1003
    ca.revoke(read_certificates(by_openssl / "deviceCertificates" / "1002.pem")[0])  # as the finding advises
    assert not BAD & {finding.code for finding in ca.check().findings}
    demand_rows_and_copies_agree(by_openssl)


def test_a_torn_last_row_is_dropped_at_opening_and_said(base: Base, tmp_path: Path, openssl: Run) -> None:
    folder = base.copy(tmp_path, Case("sign"))
    before = snapshot(folder)
    assert CertificateAuthority.open(folder, PASSPHRASE).recovered == ""
    with (folder / "database.txt").open("a") as file:
        file.write("V\t271123180706Z\t\t1002\tunk")
    assert openssl_reads(folder)
    ca = CertificateAuthority.open(folder, PASSPHRASE)
    assert "the last row of database.txt was not finished" in ca.recovered
    assert snapshot(folder) == before and openssl_reads(folder)
    assert ca.sign(request_for("next")).serial_number == 0x1002


def test_what_openssl_signed_with_the_number_of_a_draft_stays(base: Base, by_openssl: Path) -> None:
    """A number that was set back by hand: our draft of before has it, and now so has a certificate of openssl's."""
    copy = by_openssl / "deviceCertificates" / "1002.pem"
    before, draft = copy.read_bytes(), copy.with_name(".1002.pem.draft")
    draft.write_bytes((by_openssl / "deviceCertificates" / "1001.pem").read_bytes())
    assert "signing was cut off at 1002" in CertificateAuthority.open(by_openssl, PASSPHRASE).recovered
    assert copy.read_bytes() == before and not draft.exists()
    demand_rows_and_copies_agree(by_openssl)
