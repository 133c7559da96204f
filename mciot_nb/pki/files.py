"""Reading and writing files: whole or not at all, durable, and with a sentence where the disk refuses."""

import csv
import errno
import glob
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from secrets import token_hex

from mciot_nb.errors import OnboardingError, fault

#: The tables and texts beside the packages.
DATA = Path(__file__).parents[2] / "data"
#: Bytes of the longest file that is read: a database of a million certificates has less, and a device has no end.
LARGEST = 1 << 28
_BINARY = getattr(os, "O_BINARY", 0)
_together: ContextVar[bool] = ContextVar("together", default=False)  # each thread has its own


def read_file(path: Path, if_missing: str) -> bytes:
    """Return the content of ``path``. Raises: OnboardingError: NO_FILE with the sentence ``if_missing``, DISK."""
    with disk_errors(path):
        try:
            with Path(path).open("rb") as file:  # a str serves too, here and below
                if len(data := file.read(LARGEST + 1)) > LARGEST:
                    raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
                return data
        except FileNotFoundError:
            raise OnboardingError(if_missing, "NO_FILE") from None


def data_table(name: str) -> list[dict[str, str]]:
    """Return the rows of a table in `DATA` by its heading."""
    with (DATA / name).open(encoding="utf-8", newline="") as table:
        return list(csv.DictReader(table))


def meanings(of: str, table: str = "answers.csv") -> dict[str, str]:
    """Return what each answer to something means, for use within a sentence; ``words.csv`` is for forms and panels."""
    return {row["answer"]: row["meaning"] for row in data_table(table) if row["of"] == of}


def statuses(of: str) -> dict[int, str]:
    """Return `meanings` of an HTTP call, by the status."""
    return {int(status): meaning for status, meaning in meanings(of).items()}


@contextmanager
def disk_errors(path: Path | None = None) -> Iterator[None]:
    """Raise what the disk refuses in the block as an OnboardingError (DISK) about ``path``, or the file it refused."""
    try:
        yield
    except OSError as error:
        raise disk_problem(path or Path(str(error.filename)), error) from None


def disk_problem(path: Path, error: OSError) -> OnboardingError:
    """Return the error which says that ``path`` could not be read or written, and why."""
    return fault("DISK", path=path, reason=reason_of(error))


def reason_of(error: OSError) -> str:
    """Return what the system says about a failure, for use within a sentence."""
    return (error.strerror or str(error)).lower()


def write_whole(path: Path, data: bytes, *, private: bool = False, replace: bool = False) -> None:
    """Write ``data`` to ``path`` whole or not at all; it is on the disk when this returns.

    ``private`` files can be read by their owner only (0600; on Windows the user's profile protects them). Without
    ``replace`` a file that exists is left alone; with it, the new file has the old one's rights.

    Raises: OnboardingError: EXISTS if the file exists and ``replace`` is false, DISK if the disk refuses.
    """
    path = Path(path)
    draft = path.parent / f".{path.name}.{token_hex(4)}.draft"
    with disk_errors(path):
        if _together.get():
            with _opened(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600 if private else 0o644) as descriptor:
                return _write(descriptor, data) if hasattr(os, "sync") else _write_and_sync(descriptor, data)
        try:
            with _opened(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL) as descriptor:
                _write_and_sync(descriptor, data)
            if not private:
                draft.chmod(path.stat().st_mode & 0o777 if replace and path.exists() else 0o644)
            if replace:
                draft.replace(path)
            else:
                rename_to_new(draft, path)
        except FileExistsError:
            raise fault("EXISTS.file", path=path) from None
        finally:
            remove([draft])
    sync_folder(path.parent)


@contextmanager
def synced_together() -> Iterator[None]:
    """Let `write_whole` write in a folder of the block's own, over what is there, with one sync for all at the end.

    To sync a file alone takes milliseconds.
    """
    token = _together.set(True)
    try:
        yield
    finally:
        _together.reset(token)
    if hasattr(os, "sync"):
        os.sync()


def drafts_of(path: Path) -> list[Path]:
    """Return what `write_whole` left beside ``path`` because its process was killed."""
    return [other for other in path.parent.glob(f".{glob.escape(path.name)}.????????.draft") if other.is_file()]


def stamp(path: Path | None) -> tuple[int, ...]:
    """Return what tells one state of a file from the next; empty where there is none."""
    with suppress(OSError):
        if path and (status := path.stat()):
            return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
    return ()


def write_draft(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``, over whatever is there; the caller sees to its final name and to `sync_folder`."""
    with _opened(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644) as descriptor:
        _write_and_sync(descriptor, data)


def write_at(path: Path, start: int, data: bytes) -> None:
    """Write ``data`` into ``path`` from byte ``start`` on, where the file then ends; durable when this returns.

    A crash may leave the beginning of the new data and the end of the old.

    Raises: OnboardingError: DISK if the disk refuses; the file is then no longer than before.
    """
    with disk_errors(path), _opened(path, os.O_RDWR) as descriptor:
        end = os.fstat(descriptor).st_size
        try:
            os.lseek(descriptor, start, os.SEEK_SET)
            _write_and_sync(descriptor, data, start + len(data))
        except OSError:
            with suppress(OSError):
                os.ftruncate(descriptor, end)
            raise


def remove(paths: Iterable[Path]) -> None:
    """Remove files; one that does not exist, or that can't be removed, is passed over."""
    for path in paths:
        with suppress(OSError):
            path.unlink()


@contextmanager
def _opened(path: Path, flags: int, mode: int = 0o600) -> Iterator[int]:
    descriptor = os.open(path, flags | _BINARY, mode)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _write_and_sync(descriptor: int, data: bytes, end: int | None = None) -> None:
    _write(descriptor, data)
    if end is not None:
        os.ftruncate(descriptor, end)
    os.fsync(descriptor)


def rename_to_new(draft: Path, path: Path) -> None:
    """Rename ``draft`` to ``path``. Raises: FileExistsError: if that exists."""
    if os.name == "nt":
        draft.rename(path)  # refuses an existing file there
        return
    try:
        path.hardlink_to(draft)  # refuses an existing file, which rename would overwrite
    except FileExistsError:
        raise
    except OSError:  # a memory stick or a network home without hard links
        path.touch(0o600, exist_ok=False)
        draft.replace(path)


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable (POSIX keeps them apart from the files' content; Windows does not).

    Raises: OnboardingError: UNCONFIRMED if the disk can't say that they are; the names themselves are there.
    """
    if os.name == "nt":
        return
    try:
        with _opened(folder, os.O_RDONLY) as descriptor:
            os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems can't, and say so
            raise fault("UNCONFIRMED", folder=folder, reason=reason_of(error)) from None
