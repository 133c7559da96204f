"""What a workspace replaces: the new is made first, as a draft; then the old moves to ``earlier``, where it stays."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cryptography import x509

from mciot_nb.errors import OnboardingError, fault
from mciot_nb.pki.chain import read_certificates, to_pem
from mciot_nb.pki.files import disk_errors, rename_to_new, sync_folder, write_whole

#: In a device's folder, its files that are being renewed; under the second name they are complete.
RENEWAL, RENEWED = ".renewal", ".renewed"


class Archive:
    """The folders ``earlier/1``, 2, 3 … of a workspace, and the drafts of what takes the place of what moves there.

    Where a draft fails (the disk is full, the learner cancels), nothing has moved.
    """

    def __init__(self, workspace: Path) -> None:
        self._workspace = workspace

    @contextmanager
    def draft(self) -> Iterator[Path]:
        """Provide a folder for what is being made, on the workspace's disk; it goes at the end, with what is in it."""
        with disk_errors(self._workspace):
            try:
                with tempfile.TemporaryDirectory(dir=self._workspace, prefix=".new-") as folder:
                    yield Path(folder)
            except FileExistsError as error:
                raise fault("EXISTS.meanwhile", path=error.filename2 or error.filename) from None

    def move(self, paths: list[Path], what: str) -> None:
        """Move files and folders of the workspace to the next free folder in ``earlier``, and say so."""
        there = [path for path in paths if path.exists()]
        if not there:
            return
        target, has_moved = self._next_folder(), False
        try:
            for path in there:
                new = target / path.relative_to(self._workspace)
                with disk_errors(path):  # on Windows, a terminal whose current folder it is
                    new.parent.mkdir(parents=True, exist_ok=True)
                    path.rename(new)
                has_moved = True
        finally:  # also where only some of them could be moved
            if has_moved:
                print(f"Moved {what} to {target.relative_to(self._workspace.parent).as_posix()}.")

    def _next_folder(self) -> Path:
        """Return a new folder in ``earlier`` with the next number, which no other process gets."""
        earlier = self._workspace / "earlier"
        with disk_errors(earlier):
            earlier.mkdir(exist_ok=True)
            number = max((int(folder.name) for folder in earlier.glob("*") if folder.name.isdecimal()), default=0)
            while True:
                number += 1
                with suppress(FileExistsError):
                    (earlier / str(number)).mkdir()
                    return earlier / str(number)

    def keep(self, path: Path, fits: Callable[[], bool], make: Callable[[Path], object]) -> Path:
        """Leave a file that ``fits``, or else let ``make`` write it, and archive what is in its place."""
        with suppress(OnboardingError):  # a file that can't be read does not fit
            if path.exists() and fits():
                return path
        with self.draft() as folder:
            make(folder / path.name)
            self.move([path], f"{path.name}, which no longer fits,")
            rename_to_new(folder / path.name, path)
        sync_folder(path.parent)
        return path

    def keep_certificates(self, path: Path, certificates: list[x509.Certificate]) -> Path:
        """See that a file holds these certificates, as `keep` does."""
        pem = to_pem(certificates)
        return self.keep(path, lambda: read_certificates(path) == certificates, lambda new: write_whole(new, pem))

    def replace(self, draft: Path, folder: Path, what: str) -> None:
        """Put the files of ``draft`` in the places of ``folder``'s, and copies of those in ``earlier``.

        Once ``draft`` has its new name they all will come to their places: `finish` goes on after a crash.
        """
        target = self._next_folder() / folder.relative_to(self._workspace)
        with disk_errors(folder):
            target.mkdir(parents=True)
            for path in (folder / new.name for new in draft.glob("device*") if (folder / new.name).exists()):
                write_whole(target / path.name, path.read_bytes(), private=not path.stat().st_mode & 0o077)
            draft.rename(folder / RENEWED)
        finish(folder)
        print(f"Copied {what} to {target.relative_to(self._workspace.parent).as_posix()}.")


def finish(folder: Path) -> None:
    """Move renewed files that are complete to their places; nothing happens where there are none."""
    with disk_errors(folder):
        for path in sorted((folder / RENEWED).glob("device*")):
            with suppress(FileNotFoundError):  # another process has just done it
                path.replace(folder / path.name)
    if (folder / RENEWED).exists():
        sync_folder(folder)
        shutil.rmtree(folder / RENEWED, ignore_errors=True)
