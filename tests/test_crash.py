"""What a CA directory is after the process that worked in it was killed.

Killed means SIGKILL: what was written stays, in the order in which it was written. The loss of power is another matter
and is not tested here.
"""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import PASSPHRASE, Run
from crash_child import perform
from crash_tools import (
    BAD,
    CASES,
    Base,
    Case,
    child,
    copies,
    crl_number,
    crl_of,
    demand_rows_and_copies_agree,
    hidden,
    openssl_reads,
    request_for,
    said,
    serials_in_names,
    state_of,
    whole_rows,
)

from mciot_nb import CertificateAuthority, DistinguishedName
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
    known = {row.serial for row in whole_rows(folder)}
    found = {int(path.stem, 16) for path in copies(folder)}
    assert found <= known, "a certificate is there that the database does not know"
    before = serials_in_names(folder) | known

    ca = CertificateAuthority.open(folder, PASSPHRASE)
    assert hidden(folder) == []
    demand_rows_and_copies_agree(folder)
    done = state_of(case, folder, ca)
    assert not (bad := [finding for finding in ca.check().findings if finding.code in BAD]), bad
    assert openssl_reads(folder), "openssl refuses what opening has put in order"

    if not done:  # whatever was cut off can be done anew
        perform(ca, case.operation, case.arguments(base))
        assert state_of(case, folder, ca)
    assert ca.sign(request_for("another")).serial_number not in before
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
        assert said(killed.stdout) == [], "it has handed something out"
        return reopened(base, case, folder)
    except Exception as error:  # one bad point must not hide the others
        return f"{case}, {point}: {type(error).__name__}: {str(error) or repr(error)}"


def counted(base: Base, case: Case, parent: Path) -> list[str]:
    """Let a process do the operation undisturbed, and give the calls that it made to change files."""
    folder = base.copy(parent, case)
    done = child("act", folder, "count", 0, case.operation, *case.arguments(base))
    assert done.returncode == 0, done.stderr
    *handed_out, report = said(done.stdout)
    assert report["escaped"] == [], "files are changed where no kill point is"
    assert report["audited"] > 0
    assert len(handed_out) == case.signed
    demand_rows_and_copies_agree(folder)
    for each in handed_out:
        copy = folder / "deviceCertificates" / f"{hex_serial(each['serial'])}.pem"
        assert copy.read_text() == each["pem"]
    assert state_of(case, folder, CertificateAuthority.open(folder, PASSPHRASE))
    return list(report["calls"])


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_killed_anywhere_the_directory_is_whole(case: Case, base: Base, tmp_path: Path, openssl: Run) -> None:
    kill_at(case, base, tmp_path, lambda calls: list(points(calls)))


@pytest.mark.parametrize("case", [Case("sign"), Case("sign_many")], ids=str)
def test_killed_around_the_row_and_the_rename_the_directory_is_whole(
    case: Case, base: Base, tmp_path: Path, openssl: Run
) -> None:
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
    calls = said(child("act", folder, "count", 0, "create_intermediate").stdout)[-1]["calls"]
    with ThreadPoolExecutor(4) as pool:
        numbers = range(1, len(calls) + 1)
        rows = list(pool.map(lambda number: intermediate_after(base, number, tmp_path / str(number)), numbers))
    assert set(rows) == {2, 3}, "before it was signed, and behind that"


def test_a_change_past_the_kill_points_would_be_seen(base: Base, tmp_path: Path) -> None:
    report = said(child("act", base.copy(tmp_path, Case("escape")), "count", 0, "escape").stdout)[-1]
    assert report["calls"] == [] and "escaped.txt" in report["escaped"][0]


def test_openssl_refuses_a_damaged_database(base: Base, tmp_path: Path, openssl: Run) -> None:
    """The control of `openssl_reads`: what it accepts everywhere, it need not accept."""
    folder = base.copy(tmp_path, Case("sign"))
    assert openssl_reads(folder)
    with (folder / "database.txt").open("a") as file:
        file.write("V\t271123180706Z\t\t1002\tunk\n")
    assert not openssl_reads(folder)
