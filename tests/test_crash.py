"""What a CA directory is after the process that worked in it was killed, the disk was full, or many signed at once.

Killed means SIGKILL: what was written stays, in the order in which it was written. The loss of power is another matter
and is not tested here.
"""

import errno
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from conftest import PASSPHRASE, ROOT, Run, run
from crash_child import around_every_change, perform
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from mciot_nb import CertificateAuthority, DistinguishedName, OnboardingError
from mciot_nb.pki import database as database_module
from mciot_nb.pki.chain import read_certificates
from mciot_nb.pki.revocation import read_crl
from mciot_nb.pki.rows import Row, hex_serial

pytestmark = pytest.mark.skipif(os.name == "nt", reason="SIGKILL and the order of these calls are those of POSIX")

CHILD = ROOT / "tests" / "crash_child.py"
KEY = ec.generate_private_key(ec.SECP256R1())
#: In the directory that every test starts from: one certificate that nobody touches, and one to be revoked.
UNTOUCHED, TO_REVOKE = 0x1000, 0x1001
#: What a look through the directory must not find after it was opened again.
BAD = {"INTERRUPTED", "NO_ROW", "SERIAL_USED", "BAD_DATABASE"}


@dataclass(frozen=True)
class Case:
    """An operation, and what is special about the directory that it works in."""

    operation: str
    first_crl: bool = False
    no_links: bool = False

    def __str__(self) -> str:
        extras = [" without a CRL yet"] * self.first_crl + [" without hard links"] * self.no_links
        return self.operation + "".join(extras)

    def arguments(self, base: "Base") -> list[str]:
        if self.operation == "revoke":
            return [str(TO_REVOKE)]
        return [str(path) for path in base.requests[: {"sign": 1, "sign_many": 3}.get(self.operation, 0)]]

    @property
    def signed(self) -> int:
        return {"sign": 1, "sign_many": 3}.get(self.operation, 0)


CASES = [Case("sign"), Case("sign_many"), Case("revoke"), Case("update_crl"), Case("update_crl", first_crl=True)]
WITHOUT_LINKS = [Case("sign", no_links=True), Case("sign_many", no_links=True)]


def request_for(name: str) -> x509.CertificateSigningRequest:
    subject = DistinguishedName(country="DE", common_name=name).to_x509()
    return x509.CertificateSigningRequestBuilder().subject_name(subject).sign(KEY, SHA256())


@dataclass(frozen=True)
class Base:
    """A CA with two certificates and a revocation list, and requests beside it; never worked in, only copied."""

    folder: Path
    requests: list[Path]

    def copy(self, parent: Path, case: Case) -> Path:
        """Make a CA directory of its own, in a folder of its own because the lock lies beside the directory."""
        folder = parent / self.folder.name
        shutil.copytree(self.folder, folder)
        CertificateAuthority.relocate(folder)
        if case.first_crl:
            crl_of(folder).unlink()
        return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    parent = tmp_path_factory.mktemp("crash")
    subject = DistinguishedName(country="DE", common_name="Test CA")
    ca = CertificateAuthority.create(parent / "caCertificate", subject, PASSPHRASE, bits=2048)
    signed = ca.sign_many([request_for("untouched"), request_for("to be revoked")])
    assert [certificate.serial_number for certificate in signed] == [UNTOUCHED, TO_REVOKE]
    ca.update_crl()
    requests = [parent / f"device-{number}.pem" for number in range(3)]
    for path in requests:
        path.write_bytes(request_for(path.stem).public_bytes(Encoding.PEM))
    return Base(ca.folder, requests)


# --- The process is killed -------------------------------------------------------------------------------------------


def child(*arguments: object, no_links: bool = False) -> "subprocess.CompletedProcess[str]":
    """Run crash_child.py to its end, which may be SIGKILL. It compiles nothing, as that would write files too."""
    environment = {**os.environ, "PASS": PASSPHRASE, "PYTHONDONTWRITEBYTECODE": "1"}
    if no_links:
        environment["NO_LINKS"] = "1"
    command = [sys.executable, str(CHILD), *map(str, arguments)]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL)


def said(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


@dataclass(frozen=True)
class Point:
    """Where the process is killed: at the call with this number, ``before`` it, ``half`` way, or ``after`` it."""

    number: int
    call: str
    when: str

    def __str__(self) -> str:
        return f"{self.when} call {self.number}, os.{self.call}"


def points(calls: Sequence[str]) -> Iterator[Point]:
    for number, call in enumerate(calls, 1):
        for when in ("before", "half", "after") if call == "write" else ("before", "after"):
            yield Point(number, call, when)


@dataclass(frozen=True)
class Seen:
    """What a killed process left: whether the operation took place, and what opening the CA again said."""

    point: Point
    done: bool
    recovered: str


def whole_rows(folder: Path) -> list[Row]:
    """Read the database by hand, as openssl does: a last line without its end does not count."""
    return [Row.parse(line) for line in (folder / "database.txt").read_text().split("\n")[:-1]]


def copies(folder: Path) -> list[Path]:
    return list((folder / "deviceCertificates").glob("[!.]*.pem"))


def hidden(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.rglob(".*")]


def crl_of(folder: Path) -> Path:
    return folder / "crl" / "caCrl.pem"


def crl_number(crl: x509.CertificateRevocationList) -> int:
    return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def openssl_status(folder: Path, serial: int) -> str:
    """Ask the real openssl for a row; it reads the whole database for that. What it says is on its stderr."""
    config = next(folder.glob("*.cnf"))
    return run("openssl", "ca", "-config", config, "-status", hex_serial(serial), check=False).stderr


def openssl_reads(folder: Path) -> bool:
    return f"{hex_serial(UNTOUCHED)}=Valid (V)" in openssl_status(folder, UNTOUCHED)


def serials_in_names(folder: Path) -> set[int]:
    """Every serial that a file stands for: a copy's, and that of a draft, which nobody was given."""
    return {int(path.name.strip(".").partition(".")[0], 16) for path in (folder / "deviceCertificates").iterdir()}


def demand_rows_and_copies_agree(folder: Path) -> None:
    rows = [row.serial for row in whole_rows(folder)]
    assert len(rows) == len(set(rows)), "a serial stands twice"
    assert {path.name for path in copies(folder)} == {f"{hex_serial(serial)}.pem" for serial in rows}
    for path in copies(folder):
        certificate = read_certificates(path)[0]
        assert f"{hex_serial(certificate.serial_number)}.pem" == path.name


def state_of(case: Case, folder: Path, now: CertificateAuthority) -> bool:
    """Say whether the operation took place, and demand that it did so wholly or not at all."""
    rows = {row.serial: row for row in now.database.rows()}
    if case.signed:
        new = rows.keys() - {UNTOUCHED, TO_REVOKE}
        assert len(new) in (0, case.signed), f"{len(new)} of {case.signed} are signed"
        return bool(new)
    assert rows.keys() == {UNTOUCHED, TO_REVOKE}
    if case.operation == "revoke":
        row = rows[TO_REVOKE]
        assert (row.status, row.reason) in (("V", ""), ("R", "keyCompromise"))
        return row.status == "R"
    assert crl_of(folder).exists() or case.first_crl, "the old revocation list is gone"
    if not crl_of(folder).exists():
        return False
    run("openssl", "crl", "-in", crl_of(folder), "-noout")
    number = crl_number(read_crl(crl_of(folder)))
    return number > 0x1000  # a number may have been lost


def reopened(base: Base, case: Case, folder: Path, point: Point) -> Seen:
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
    return Seen(point, done, ca.recovered)


def kill_and_look(base: Base, case: Case, point: Point, parent: Path) -> Seen | str:
    """Kill a process at one point and give what it left, or, as text, what is wrong with that."""
    folder = base.copy(parent, case)
    arguments = (folder, point.when, point.number, case.operation, *case.arguments(base))
    try:
        killed = child("act", *arguments, no_links=case.no_links)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert said(killed.stdout) == [], "it has handed something out"
        return reopened(base, case, folder, point)
    except Exception as error:  # one bad point must not hide the others
        return f"{case}, {point}: {type(error).__name__}: {str(error) or repr(error)}"


def counted(base: Base, case: Case, parent: Path) -> list[str]:
    """Let a process do the operation undisturbed, and give the calls that it made to change files."""
    folder = base.copy(parent, case)
    done = child("act", folder, "count", 0, case.operation, *case.arguments(base), no_links=case.no_links)
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


TOLD: Counter[str] = Counter()


@pytest.mark.parametrize("case", [*CASES, *WITHOUT_LINKS], ids=str)
def test_killed_anywhere_the_directory_is_whole(
    case: Case,
    base: Base,
    tmp_path: Path,
    openssl: Run,
    capsys: pytest.CaptureFixture[str],
    record_property: Callable[[str, object], None],
) -> None:
    calls = counted(base, case, tmp_path / "undisturbed")
    chosen = list(points(calls))
    if case.no_links:  # up to the first link, all is as with links
        chosen = [point for point in chosen if point.number >= calls.index("link") + 1]
    with ThreadPoolExecutor(4) as pool:
        looks = pool.map(lambda pair: kill_and_look(base, case, pair[1], tmp_path / str(pair[0])), enumerate(chosen))
        results = list(looks)
    TOLD[str(case)] = len(chosen)
    record_property("kill_points", len(chosen))
    with capsys.disabled():
        print(f"\n{case}: killed at {len(chosen)} points around {len(calls)} calls; {TOLD.total()} points so far")
    wrong, seen = [each for each in results if isinstance(each, str)], [r for r in results if isinstance(r, Seen)]
    assert not wrong, "\n".join([f"{len(wrong)} of {len(chosen)} points:", *wrong])
    # The control: there is one moment at which it happens, with points on both sides, or only behind it where that is
    # all that was looked at; and what lay about was seen.
    assert [each.done for each in seen] == sorted(each.done for each in seen)
    assert {each.done for each in seen} == ({True} if case.no_links else {True, False})
    assert any(each.recovered for each in seen) and not all(each.recovered for each in seen)


def intermediate_after(base: Base, number: int, parent: Path) -> int:
    """Kill the making of an intermediate before one of its calls, make it again, and give the rows that were there."""
    folder = base.copy(parent, Case("create_intermediate"))
    killed = child("act", folder, "before", number, "create_intermediate")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    ca, below = CertificateAuthority.open(folder, PASSPHRASE), folder / "intermediateCertificate"
    before = len(ca.database.rows())
    if not (below / "intermediateCert.pem").exists():
        ca.create_intermediate(below, DistinguishedName(common_name="Below"), PASSPHRASE, bits=2048)
    intermediate = CertificateAuthority.open(below, PASSPHRASE)
    assert len(ca.database.rows()) == 3 and ca.database.find(intermediate.certificate.serial_number)
    return before


def test_an_intermediate_never_loses_its_key_wherever_it_is_killed(
    base: Base, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = base.copy(tmp_path / "undisturbed", Case("create_intermediate"))
    calls = said(child("act", folder, "count", 0, "create_intermediate").stdout)[-1]["calls"]
    with ThreadPoolExecutor(4) as pool:
        numbers = range(1, len(calls) + 1)
        rows = list(pool.map(lambda number: intermediate_after(base, number, tmp_path / str(number)), numbers))
    with capsys.disabled():
        print(f"\ncreate_intermediate: killed before each of {len(calls)} calls")
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


# --- The disk is full ------------------------------------------------------------------------------------------------


class FullDisk:
    """Lets the call at ``point`` that needs room fail: once, or from there on all that write or create.

    The call that fills the disk for good writes half of its data, and says so, as the kernel does.
    """

    def __init__(self, needs: str = "", point: int = 0, stays_full: bool = False) -> None:
        self.needs, self.point, self.stays_full = needs, point, stays_full
        self.counts: Counter[str] = Counter()
        self.full = False

    def meet(self, name: str, real: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        need = self._need(name, arguments)
        if not need:
            return real(*arguments, **options)
        if self.full and need in ("write", "create", "link"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.counts[need] += 1
        if (need, self.counts[need]) == (self.needs, self.point):
            self.full = self.stays_full
            if need == "write" and self.stays_full:
                descriptor, data = arguments
                return real(descriptor, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments, **options)

    @staticmethod
    def _need(name: str, arguments: tuple[Any, ...]) -> str:
        if name == "open" and arguments[1] & os.O_CREAT and not Path(arguments[0]).exists():
            return "create"
        if name == "fsync":
            return "sync folder" if stat.S_ISDIR(os.fstat(arguments[0]).st_mode) else "sync"
        return name if name in ("write", "link") else ""


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file with its rights and its bytes."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): (path.stat().st_mode, path.read_bytes()) for path in files}


def work(ca: CertificateAuthority, case: Case, base: Base, disk: FullDisk) -> list[x509.Certificate]:
    with pytest.MonkeyPatch.context() as patch:
        around_every_change(lambda name, function: patch.setattr(os, name, function), disk.meet)
        return perform(ca, case.operation, case.arguments(base))


def demand_unchanged(before: dict[str, tuple[int, bytes]], after: dict[str, tuple[int, bytes]]) -> None:
    assert before.keys() == after.keys(), f"files came or went: {sorted(before.keys() ^ after.keys())}"
    changed = [name for name in before if before[name] != after[name]]
    assert set(changed) <= {"serial", "crl/crlnumber"}, f"changed: {changed}"
    assert all(int(after[name][1], 16) > int(before[name][1], 16) for name in changed)


def fill_and_look(base: Base, case: Case, disk: FullDisk, parent: Path) -> str:
    """Let the disk be full at one point, and say what is wrong then; nothing where all is well."""
    folder = base.copy(parent, case)
    ca, before = CertificateAuthority.open(folder, PASSPHRASE), snapshot(folder)
    try:
        try:
            work(ca, case, base, disk)
        except OnboardingError as error:
            assert error.code == ("UNCONFIRMED" if disk.needs == "sync folder" else "DISK"), f"{error.code}: {error}"
            ca = CertificateAuthority.open(folder, PASSPHRASE) if error.code == "UNCONFIRMED" else ca
            if error.code == "DISK" or not state_of(case, folder, ca):  # nobody knows what the disk did not confirm
                demand_unchanged(before, snapshot(folder))
                perform(ca, case.operation, case.arguments(base))  # there is room again
        demand_rows_and_copies_agree(folder)
        assert state_of(case, folder, ca) and hidden(folder) == []
    except Exception as error:
        return f"{disk.needs} number {disk.point}: {type(error).__name__}: {str(error) or repr(error)}"
    return ""


@pytest.mark.parametrize("stays_full", [False, True], ids=["once", "for good"])
@pytest.mark.parametrize("needs", ["write", "create", "sync", "sync folder"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_full_disk_undoes_the_operation(
    case: Case, needs: str, stays_full: bool, base: Base, tmp_path: Path, openssl: Run
) -> None:
    count = FullDisk()
    work(CertificateAuthority.open(base.copy(tmp_path / "count", case), PASSPHRASE), case, base, count)
    assert count.counts[needs] > 0
    disks = [FullDisk(needs, number, stays_full) for number in range(1, count.counts[needs] + 1)]
    looks = [fill_and_look(base, case, disk, tmp_path / str(disk.point)) for disk in disks]
    wrong = [each for each in looks if each]
    assert not wrong, "\n".join([f"{len(wrong)} of {len(disks)} points:", *wrong])


@pytest.mark.parametrize("needs", ["sync folder", "link"])
@pytest.mark.parametrize("case", [Case("sign"), Case("sign_many")], ids=str)
def test_a_disk_that_fails_late_costs_no_certificate(
    case: Case, needs: str, base: Base, tmp_path: Path, openssl: Run
) -> None:
    """Where the row may be written already, an error may leave work for the next opening, and nothing worse."""
    count = FullDisk()
    work(CertificateAuthority.open(base.copy(tmp_path / "count", case), PASSPHRASE), case, base, count)
    assert count.counts[needs] > 0
    wrong, completed = [], 0
    for point in range(1, count.counts[needs] + 1):
        folder = base.copy(tmp_path / str(point), case)
        try:
            with pytest.raises(OnboardingError, match="no space left"):
                work(CertificateAuthority.open(folder, PASSPHRASE), case, base, FullDisk(needs, point, stays_full=True))
            again = CertificateAuthority.open(folder, PASSPHRASE)
            demand_rows_and_copies_agree(folder)
            assert hidden(folder) == []
            completed += state_of(case, folder, again)
        except (Exception, pytest.fail.Exception) as error:
            wrong.append(f"{needs} number {point}: {type(error).__name__}: {error}")
    assert not wrong, "\n".join([f"{len(wrong)} of {count.counts[needs]} points:", *wrong])
    assert completed


@pytest.mark.parametrize("case", [Case("sign"), Case("sign_many")], ids=str)
def test_a_link_that_fails_once_is_done_otherwise(case: Case, base: Base, tmp_path: Path) -> None:
    folder = base.copy(tmp_path, case)
    disk = FullDisk("link", 1)
    assert len(work(CertificateAuthority.open(folder, PASSPHRASE), case, base, disk)) == case.signed
    assert disk.counts["link"] == case.signed
    demand_rows_and_copies_agree(folder)
    assert hidden(folder) == []


def test_a_full_disk_makes_itself_felt(base: Base, tmp_path: Path) -> None:
    """The control: the faults come through, and the sentence names the disk."""
    ca = CertificateAuthority.open(base.copy(tmp_path, Case("sign")), PASSPHRASE)
    with pytest.raises(OnboardingError, match=r"no space left on device: check .* the free space") as caught:
        work(ca, Case("sign"), base, FullDisk("write", 1, stays_full=True))
    assert caught.value.code == "DISK"


# --- Many processes at once ------------------------------------------------------------------------------------------

PROCESSES, EACH = 16, 25


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


def test_sixteen_processes_lose_nothing_and_a_killed_one_blocks_nobody(
    tmp_path: Path, openssl: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = DistinguishedName(country="DE", common_name="Test CA")
    ca = CertificateAuthority.create(tmp_path / "caCertificate", subject, PASSPHRASE, bits=2048)
    with ExitStack() as stack:
        signers = [
            stack.enter_context(started("sign-many-times", ca.folder, f"process-{number}", EACH))
            for number in range(PROCESSES)
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
            ca.sign(request_for("impatient"))
        assert caught.value.code == "LOCKED"
        assert holder.poll() is None and all(signer.poll() is None for signer in signers)
        assert ca.database.path.read_bytes() == b"" and copies(ca.folder) == []

        holder.kill()
        assert holder.wait() == -signal.SIGKILL
        with ThreadPoolExecutor(PROCESSES) as pool:  # each pipe is emptied, or its writer would stand still
            outputs = list(pool.map(lambda signer: signer.communicate(timeout=120), signers))
        assert [(signer.returncode, errors) for signer, (_, errors) in zip(signers, outputs, strict=True)] == [
            (0, "")
        ] * PROCESSES
    handed_out = [each for output, _ in outputs for each in said(output)]
    rows = ca.database.rows()
    assert len(rows) == len(handed_out) == PROCESSES * EACH
    assert len({row.serial for row in rows}) == len({row.subject for row in rows}) == PROCESSES * EACH
    assert {each["serial"] for each in handed_out} == {row.serial for row in rows}
    demand_rows_and_copies_agree(ca.folder)
    for each in handed_out:
        assert (ca.folder / "deviceCertificates" / f"{hex_serial(each['serial'])}.pem").read_text() == each["pem"]
    again = CertificateAuthority.open(ca.folder, PASSPHRASE)
    assert again.recovered == "" and hidden(ca.folder) == []
    assert not BAD & {finding.code for finding in again.check().findings}
    assert f"{hex_serial(rows[-1].serial)}=Valid (V)" in openssl_status(ca.folder, rows[-1].serial)
    # They really took turns: nobody signed all of its requests in one go.
    signer_of = [row.subject.split("process-")[1].split("-")[0] for row in rows]
    assert sum(one != next_one for one, next_one in pairwise(signer_of)) > PROCESSES


# --- What openssl itself leaves --------------------------------------------------------------------------------------


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
