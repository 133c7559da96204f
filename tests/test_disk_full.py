"""What a CA directory is after the disk was full, or failed, in the midst of an operation."""

import errno
import os
import stat
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ca_tools import snapshot
from conftest import PASSPHRASE
from crash_child import around_every_change, perform
from crash_tools import CASES, Base, Case, demand_rows_and_copies_agree, hidden, state_of
from cryptography import x509

from mciot_nb import CertificateAuthority, OnboardingError

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the order of these calls is that of POSIX")


class FullDisk:
    """Lets the call at ``point`` that needs room fail: once, or from there on all that write or create.

    The call that fills the disk for good writes half of its data, and says so, as the kernel does.
    """

    def __init__(self, needs: str = "", point: int = 0, stays_full: bool = False) -> None:
        self.needs, self.point, self.stays_full = needs, point, stays_full
        self.counts: Counter[str] = Counter()
        self.counting = threading.Lock()
        self.full = False

    def meet(self, name: str, real: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        need = self._need(name, arguments)
        if not need:
            return real(*arguments, **options)
        if self.full and need in ("write", "create"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with self.counting:  # several threads write at once
            self.counts[need] += 1
            here = (need, self.counts[need]) == (self.needs, self.point)
        if here:
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
        if name in ("replace", "rename") and str(arguments[0]).endswith(".pem.draft"):
            return "rename of a draft"
        return "write" if name == "write" else ""


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


@pytest.mark.slow
@pytest.mark.parametrize("stays_full", [False, True], ids=["once", "for good"])
@pytest.mark.parametrize("needs", ["write", "create", "sync", "sync folder"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_full_disk_undoes_the_operation(case: Case, needs: str, stays_full: bool, base: Base, tmp_path: Path) -> None:
    fill_everywhere(case, needs, stays_full, base, tmp_path)


@pytest.mark.parametrize("needs", ["write", "sync folder"])
def test_a_full_disk_undoes_a_batch(needs: str, base: Base, tmp_path: Path) -> None:
    """The quick tier's share."""
    fill_everywhere(Case("sign_many"), needs, True, base, tmp_path)


def fill_everywhere(case: Case, needs: str, stays_full: bool, base: Base, parent: Path) -> None:
    count = FullDisk()
    work(CertificateAuthority.open(base.copy(parent / "count", case), PASSPHRASE), case, base, count)
    assert count.counts[needs] > 0
    disks = [FullDisk(needs, number, stays_full) for number in range(1, count.counts[needs] + 1)]
    looks = [fill_and_look(base, case, disk, parent / str(disk.point)) for disk in disks]
    wrong = [each for each in looks if each]
    assert not wrong, "\n".join([f"{len(wrong)} of {len(disks)} points:", *wrong])


@pytest.mark.parametrize("case", [Case("sign"), Case("sign_many")], ids=str)
def test_a_rename_that_fails_costs_no_certificate(case: Case, base: Base, tmp_path: Path) -> None:
    """Where the row is written already, an error may leave work for the next opening, and nothing worse."""
    for point in range(1, case.signed + 1):
        folder = base.copy(tmp_path / str(point), case)
        ca = CertificateAuthority.open(folder, PASSPHRASE)
        with pytest.raises(OnboardingError, match="its copy could not be written") as caught:
            work(ca, case, base, FullDisk("rename of a draft", point))
        assert caught.value.code == "UNFINISHED" and "no space left" in str(caught.value)
        again = CertificateAuthority.open(folder, PASSPHRASE)
        assert "is there now" in again.recovered
        demand_rows_and_copies_agree(folder)
        assert state_of(case, folder, again) and hidden(folder) == []


def test_a_full_disk_makes_itself_felt(base: Base, tmp_path: Path) -> None:
    """The control: the faults come through, and the sentence names the disk."""
    ca = CertificateAuthority.open(base.copy(tmp_path, Case("sign")), PASSPHRASE)
    with pytest.raises(OnboardingError, match=r"no space left on device: check .* the free space") as caught:
        work(ca, Case("sign"), base, FullDisk("write", 1, stays_full=True))
    assert caught.value.code == "DISK"
