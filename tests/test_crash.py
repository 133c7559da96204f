"""What a CA directory is after a process that worked in it was killed: ours, the real openssl, or one of many signers.

Killed means SIGKILL: what was written stays, in the order in which it was written. The loss of power is another matter
and is not tested here.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import ca_tools
import crash_tools
import pytest
from ca_tools import codes, copy_of, make_ca, openssl_ca, openssl_reads, openssl_sign, request, snapshot
from conftest import PASSPHRASE, ROOT
from crash_child import perform
from crash_tools import BAD, CHILD, Base, Case, child, copies, crl_number, crl_of, demand_rows_and_copies_agree, hidden

from mciot_nb import CertificateAuthority, DistinguishedName, OnboardingError
from mciot_nb.pki import database as database_module
from mciot_nb.pki.chain import read_certificates
from mciot_nb.pki.crl import read_crl
from mciot_nb.pki.keys import KeyType
from mciot_nb.pki.rows import hex_serial

pytestmark = pytest.mark.skipif(os.name == "nt", reason="SIGKILL and the order of these calls are those of POSIX")


@dataclass(frozen=True)
class Point:
    """Where the process is killed: at the call with this number, ``before`` it, ``half`` way, or ``after`` it."""

    number: int
    call: str
    when: str

    def __str__(self) -> str:
        return f"{self.when} call {self.number}, os.{self.call}"


def points(calls: Sequence[str]) -> Iterator[Point]:
    """Yield all points; what lies on the disk after a call is what lies there before the next one."""
    for number, call in enumerate(calls, 1):
        for when in ("before", "half") if call == "write" else ("before",):
            yield Point(number, call, when)
    yield Point(len(calls), calls[-1], "after")


@dataclass(frozen=True)
class Seen:
    """What a killed process left: whether the operation took place, and what opening the CA again said."""

    done: bool
    recovered: str


def reopened(base: Base, case: Case, folder: Path) -> Seen:
    """Look at what a process left that was killed, first as it is, then opened again, and go on working with it."""
    assert openssl_reads(folder), "openssl refuses what the crash left"
    known = {row.serial for row in crash_tools.whole_rows(folder)}
    found = {int(path.stem, 16) for path in copies(folder)}
    assert found <= known, "a certificate is there that the database does not know"
    before = crash_tools.serials_in_names(folder) | known

    ca = CertificateAuthority.open(folder, PASSPHRASE)
    assert hidden(folder) == []
    demand_rows_and_copies_agree(folder)
    done = crash_tools.state_of(case, folder, ca)
    assert not (bad := BAD & codes(ca)), bad
    assert openssl_reads(folder), "openssl refuses what opening has put in order"

    if not done:  # whatever was cut off can be done anew
        perform(ca, case.operation, case.arguments(base))
        assert crash_tools.state_of(case, folder, ca)
    assert ca.sign(request("another")).serial_number not in before
    demand_rows_and_copies_agree(folder)
    if case.operation == "update_crl":
        last = crl_number(read_crl(crl_of(folder)))
        assert last > 0x1000 and crl_number(ca.update_crl()) > last
    return Seen(done, ca.recovered)


def kill_and_look(base: Base, case: Case, point: Point, parent: Path) -> Seen | str:
    """Kill a process at one point and give what it left, or, as text, what is wrong with that."""
    folder = base.copy(parent, case)
    arguments = (folder, point.when, point.number, case.operation, *case.arguments(base))
    try:
        killed = child("act", *arguments)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert crash_tools.said(killed.stdout) == [], "it has handed something out"
        return reopened(base, case, folder)
    except Exception as error:  # one bad point must not hide the others
        return f"{case}, {point}: {type(error).__name__}: {str(error) or repr(error)}"


def counted(base: Base, case: Case, parent: Path) -> list[str]:
    """Let a process do the operation undisturbed, and give the calls that it made to change files."""
    folder = base.copy(parent, case)
    done = child("act", folder, "count", 0, case.operation, *case.arguments(base))
    assert done.returncode == 0, done.stderr
    *handed_out, report = crash_tools.said(done.stdout)
    assert report["escaped"] == [], "files are changed where no kill point is"
    assert report["audited"] > 0
    assert len(handed_out) == case.signed
    demand_rows_and_copies_agree(folder)
    for each in handed_out:
        copy = folder / "deviceCertificates" / f"{hex_serial(each['serial'])}.pem"
        assert copy.read_text() == each["pem"]
    assert crash_tools.state_of(case, folder, CertificateAuthority.open(folder, PASSPHRASE))
    return list(report["calls"])


@pytest.mark.slow
@pytest.mark.parametrize("case", crash_tools.CASES, ids=str)
def test_killed_anywhere_the_directory_is_whole(case: Case, base: Base, tmp_path: Path) -> None:
    kill_at(case, base, tmp_path, lambda calls: list(points(calls)))


@pytest.mark.parametrize("case", [Case("sign"), Case("sign_many")], ids=str)
def test_killed_around_the_row_and_the_rename_the_directory_is_whole(case: Case, base: Base, tmp_path: Path) -> None:
    """The quick tier's share: half of the row, or of the new database, is written; and the last draft has no name."""

    def chosen(calls: Sequence[str]) -> list[Point]:
        row = [number for number, call in enumerate(calls, 1) if call == "write"][-1]
        renamed = len(calls) - calls[::-1].index("replace")
        return [Point(row, "write", "half"), Point(renamed, "replace", "before")]

    kill_at(case, base, tmp_path, chosen)


def kill_at(case: Case, base: Base, parent: Path, choose: Callable[[Sequence[str]], list[Point]]) -> None:
    chosen = choose(counted(base, case, parent / "undisturbed"))
    with ThreadPoolExecutor(4) as pool:
        looks = pool.map(lambda pair: kill_and_look(base, case, pair[1], parent / str(pair[0])), enumerate(chosen))
        results = list(looks)
    wrong, seen = [each for each in results if isinstance(each, str)], [r for r in results if isinstance(r, Seen)]
    assert not wrong, "\n".join([f"{len(wrong)} of {len(chosen)} points:", *wrong])
    # The control: there is one moment at which it happens, with points on both sides; and what lay about was seen.
    assert [each.done for each in seen] == sorted(each.done for each in seen)
    assert {each.done for each in seen} == {True, False}
    assert any(each.recovered for each in seen)


def intermediate_after(base: Base, number: int, parent: Path) -> int:
    """Kill the making of an intermediate before one of its calls, make it again, and give the rows that were there."""
    folder = base.copy(parent, Case("create_intermediate"))
    killed = child("act", folder, "before", number, "create_intermediate")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    ca, below = CertificateAuthority.open(folder, PASSPHRASE), folder / "intermediateCertificate"
    before = len(ca.database.rows())
    if not (below / "intermediateCert.pem").exists():
        ca.create_intermediate(below, DistinguishedName(common_name="Below"), PASSPHRASE, key_type=KeyType.P256)
    intermediate = CertificateAuthority.open(below, PASSPHRASE)
    assert len(ca.database.rows()) == 3 and ca.database.find(intermediate.certificate.serial_number)
    return before


@pytest.mark.slow
def test_an_intermediate_never_loses_its_key_wherever_it_is_killed(base: Base, tmp_path: Path) -> None:
    folder = base.copy(tmp_path / "undisturbed", Case("create_intermediate"))
    calls = crash_tools.said(child("act", folder, "count", 0, "create_intermediate").stdout)[-1]["calls"]
    with ThreadPoolExecutor(4) as pool:
        numbers = range(1, len(calls) + 1)
        rows = list(pool.map(lambda number: intermediate_after(base, number, tmp_path / str(number)), numbers))
    assert set(rows) == {2, 3}, "before it was signed, and behind that"


def test_a_change_past_the_kill_points_would_be_seen(base: Base, tmp_path: Path) -> None:
    report = crash_tools.said(child("act", base.copy(tmp_path, Case("escape")), "count", 0, "escape").stdout)[-1]
    assert report["calls"] == [] and "escaped.txt" in report["escaped"][0]


# openssl, interrupted ------------------------------------------------------------------------------------------------


@pytest.fixture
def by_openssl(base: Base, tmp_path: Path) -> Path:
    """A CA directory in which openssl has just signed and written a revocation list, with its .old files."""
    folder = base.copy(tmp_path, Case("sign"))
    openssl_sign(folder, request("theirs"))
    openssl_ca(folder, "-gencrl", "-out", crl_of(folder))
    return folder


@pytest.mark.parametrize("name", ["serial", "database.txt", "crl/crlnumber"])
def test_openssls_unfinished_rename_is_finished(name: str, by_openssl: Path) -> None:
    path, whole = by_openssl / name, snapshot(by_openssl)
    new = path.with_name(f"{path.name}.new")
    path.rename(new)  # as if openssl had been killed between its two renames
    assert path.with_name(f"{path.name}.old").exists()
    if name == "crl/crlnumber":  # the control: openssl does not help itself
        assert openssl_ca(by_openssl, "-gencrl", "-out", os.devnull, check=False).returncode != 0
    else:
        assert isinstance(ca_tools.openssl_signs(by_openssl, request("refused")), str)
    assert "INTERRUPTED" in {finding.code for finding in CertificateAuthority.inspect(by_openssl).findings}

    ca = CertificateAuthority.open(by_openssl, PASSPHRASE)
    assert f"{path.name} was missing" in ca.recovered
    assert snapshot(by_openssl) == whole
    assert CertificateAuthority.open(by_openssl, PASSPHRASE).recovered == ""
    assert not BAD & codes(ca)
    openssl_sign(by_openssl, request("next"))
    openssl_ca(by_openssl, "-gencrl", "-out", crl_of(by_openssl))


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


def test_openssl_killed_between_its_two_files_is_named(by_openssl: Path) -> None:
    """openssl puts the new serial in place first: then a copy is there whose row is in database.txt.new only."""
    database = by_openssl / "database.txt"
    database.rename(database.with_name("database.txt.new"))
    database.with_name("database.txt.old").rename(database)
    ca = CertificateAuthority.open(by_openssl, PASSPHRASE)
    found = {finding.code: str(finding) for finding in ca.check().findings}
    assert "1002.pem" in found["NO_ROW"]
    assert ca.sign(request("next")).serial_number == 0x1003
    ca.revoke(read_certificates(by_openssl / "deviceCertificates" / "1002.pem")[0])  # as the finding advises
    assert not BAD & codes(ca)
    demand_rows_and_copies_agree(by_openssl)


def test_what_openssl_signed_with_the_number_of_a_draft_stays(by_openssl: Path) -> None:
    """A number that was set back by hand: our draft of before has it, and now so has a certificate of openssl's."""
    copy = by_openssl / "deviceCertificates" / "1002.pem"
    before, draft = copy.read_bytes(), copy.with_name(".1002.pem.draft")
    draft.write_bytes((by_openssl / "deviceCertificates" / "1001.pem").read_bytes())
    assert "signing was cut off at 1002" in CertificateAuthority.open(by_openssl, PASSPHRASE).recovered
    assert copy.read_bytes() == before and not draft.exists()
    demand_rows_and_copies_agree(by_openssl)


# Many signers ---------------------------------------------------------------------------------------------------------


@contextmanager
def started(*arguments: object) -> "Iterator[subprocess.Popen[str]]":
    """A child that goes on beside the test, and ends with it at the latest."""
    environment = {**os.environ, "PASS": PASSPHRASE}
    command = [sys.executable, str(CHILD), *map(str, arguments)]
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, env=environment, cwd=ROOT, text=True, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


def expect(process: "subprocess.Popen[str]", state: str) -> None:
    assert process.stdout and process.stderr
    line = process.stdout.readline()
    assert line and json.loads(line) == {"state": state}, line or process.stderr.read()


@pytest.mark.parametrize(("processes", "each"), [(4, 8), pytest.param(16, 25, marks=pytest.mark.slow)])
def test_many_processes_lose_nothing_and_a_killed_one_blocks_none(
    processes: int, each: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca = make_ca(tmp_path / "caCertificate")
    with ExitStack() as stack:
        signers = [
            stack.enter_context(started("sign-many-times", ca.folder, f"process-{number}", each))
            for number in range(processes)
        ]
        for signer in signers:
            expect(signer, "ready")
        holder = stack.enter_context(started("hold", ca.folder))
        expect(holder, "held")
        for signer in signers:
            assert signer.stdin
            signer.stdin.write("go\n")
            signer.stdin.flush()
            expect(signer, "started")
        # The control: while the holder lives, nobody gets on, neither they nor we.
        with monkeypatch.context() as patch, pytest.raises(OnboardingError) as caught:
            patch.setattr(database_module, "LOCK_TIMEOUT", 0.3)
            ca.sign(request("impatient"))
        assert caught.value.code == "LOCKED"
        assert holder.poll() is None and all(signer.poll() is None for signer in signers)
        assert ca.database.path.read_bytes() == b"" and copies(ca.folder) == []

        holder.kill()
        assert holder.wait() == -signal.SIGKILL
        with ThreadPoolExecutor(processes) as pool:  # each pipe is emptied, or its writer would stand still
            outputs = list(pool.map(lambda signer: signer.communicate(timeout=600), signers))
        assert [(signer.returncode, errors) for signer, (_, errors) in zip(signers, outputs, strict=True)] == [
            (0, "")
        ] * processes
    handed_out = [certificate for output, _ in outputs for certificate in crash_tools.said(output)]
    rows = ca.database.rows()
    assert len(rows) == len(handed_out) == processes * each
    assert len({row.serial for row in rows}) == len({row.subject for row in rows}) == processes * each
    assert {certificate["serial"] for certificate in handed_out} == {row.serial for row in rows}
    demand_rows_and_copies_agree(ca.folder)
    for certificate in handed_out:
        assert copy_of(ca, certificate["serial"]).read_text() == certificate["pem"]
    again = CertificateAuthority.open(ca.folder, PASSPHRASE)
    assert again.recovered == "" and hidden(ca.folder) == []
    assert not BAD & codes(again)
    assert f"{hex_serial(rows[-1].serial)}=Valid (V)" in ca_tools.openssl_status(ca.folder, rows[-1].serial)
    # They really took turns, and did not sign all of their requests in one go (few processes may).
    signer_of = [row.subject.split("process-")[1].split("-")[0] for row in rows]
    assert processes < 16 or sum(one != next_one for one, next_one in pairwise(signer_of)) > processes
