"""Reading and writing files: whole or not at all, and with a sentence where the disk refuses."""

import errno
import glob
import os
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from mciot_nb.errors import OnboardingError


def read_file(path: Path, if_missing: str) -> bytes:
    """Read ``path``; raises OnboardingError with the sentence ``if_missing`` (NO_FILE), or with what the disk said."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise OnboardingError(if_missing, "NO_FILE") from None
    except OSError as error:
        raise disk_problem(path, error) from None


def disk_problem(path: Path, error: OSError) -> OnboardingError:
    """Put into a sentence that ``path`` could not be read or written."""
    reason = (error.strerror or str(error)).lower()
    return OnboardingError(f"{path} can't be used, {reason}: check the folder, its rights and the free space.", "DISK")


def write_whole(path: Path, data: bytes, *, private: bool = False, replace: bool = False) -> None:
    """Write ``data`` to ``path`` whole or not at all, and see it safely on the disk.

    ``private`` files can be read by their owner only (0600; on Windows the user's profile protects them). Without
    ``replace`` a file that is there already is left alone; with it, the new file has the old one's rights.

    Raises FileExistsError if the file is there and ``replace`` is false, OnboardingError (DISK) if the disk refuses.
    """
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".draft")
    except OSError as error:
        raise disk_problem(path, error) from None
    temporary = Path(name)
    try:
        try:
            _write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if not private:
            temporary.chmod(path.stat().st_mode & 0o777 if replace and path.exists() else 0o644)
        if replace:
            temporary.replace(path)
        else:
            rename_to_new(temporary, path)
    except FileExistsError:
        raise
    except OSError as error:
        raise disk_problem(path, error) from None
    finally:
        with suppress(OSError):
            temporary.unlink()
    sync_folder(path.parent)


def left_behind(path: Path) -> list[Path]:
    """Find what `write_whole` left beside ``path`` because its process was killed."""
    return [other for other in path.parent.glob(f".{glob.escape(path.name)}.????????.draft") if other.is_file()]


def write_drafts(drafts: Iterable[tuple[Path, bytes]], *, private: bool = False, threads: int = 0) -> None:
    """Write files of one folder, and see them all safely on the disk.

    ``private`` files can be read by their owner only. With ``threads``, the next one is made while others are on their
    way. Raises OnboardingError (DISK) if the disk refuses; then, or where making one raises, none of them is left.
    """
    mode, paths = 0o600 if private else 0o644, []
    try:
        with ThreadPoolExecutor(threads or 1) as pool:  # what waits for the disk together, the disk does together
            tasks = []
            for path, data in drafts:
                paths.append(path)
                if threads:
                    tasks.append(pool.submit(_write_draft, path, data, mode))
                else:
                    _write_draft(path, data, mode)
        for task in tasks:
            task.result()
        for folder in {path.parent for path in paths}:
            sync_folder(folder)
    except OSError as error:
        remove(paths)
        raise disk_problem(paths[-1], error) from None
    except BaseException:  # somebody who cancels, too
        remove(paths)
        raise


def _write_draft(path: Path, data: bytes, mode: int) -> None:
    with _opened(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), mode) as descriptor:
        _write_all(descriptor, data)
        os.fsync(descriptor)


def remove(paths: Iterable[Path]) -> None:
    """Remove files that nobody was told of; one that is not there, or that the disk keeps, is passed over."""
    for path in paths:
        with suppress(OSError):
            path.unlink()


@contextmanager
def _opened(path: Path, flags: int, mode: int = 0o644) -> Iterator[int]:
    descriptor = os.open(path, flags, mode)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def append(path: Path, size: int, data: bytes) -> None:
    """Write ``data`` behind the first ``size`` bytes of ``path``, on the disk when this returns; what stood there goes.

    Raises OnboardingError (DISK) if the disk refuses; then the file has its first ``size`` bytes as before.
    """
    try:
        with _opened(path, os.O_RDWR | getattr(os, "O_BINARY", 0)) as descriptor:
            try:
                os.ftruncate(descriptor, size)
                os.lseek(descriptor, size, os.SEEK_SET)
                _write_all(descriptor, data)
                os.fsync(descriptor)
            except OSError:
                with suppress(OSError):
                    os.ftruncate(descriptor, size)
                raise
    except OSError as error:
        raise disk_problem(path, error) from None


def overwrite(path: Path, data: bytes) -> None:
    """Write ``data`` over what ``path`` holds, which is as long, on the disk when this returns.

    A crash may leave the beginning of the new and the end of the old. Raises OnboardingError (DISK) if the disk
    refuses.
    """
    try:
        with _opened(path, os.O_WRONLY | getattr(os, "O_BINARY", 0)) as descriptor:
            _write_all(descriptor, data)
            os.fsync(descriptor)
    except OSError as error:
        raise disk_problem(path, error) from None


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def rename_to_new(temporary: Path, path: Path) -> None:
    """Give ``temporary`` the name ``path``; raises FileExistsError where that is taken."""
    if os.name == "nt":
        temporary.rename(path)  # refuses an existing file there
        return
    try:
        path.hardlink_to(temporary)  # refuses an existing file, which rename would overwrite
    except FileExistsError:
        raise
    except OSError:  # a memory stick or a network home without hard links
        path.touch(0o600, exist_ok=False)
        temporary.replace(path)


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable (POSIX keeps them apart from the files' content; Windows does not).

    Raises OnboardingError (UNCONFIRMED) where the disk can't say that they are: the names themselves are there.
    """
    if os.name == "nt":
        return
    try:
        with _opened(folder, os.O_RDONLY) as descriptor:
            os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems can't, and say so
            raise OnboardingError(
                f"The disk does not confirm what was written in {folder} ({(error.strerror or str(error)).lower()}): "
                "look whether it is there before you do it again.",
                "UNCONFIRMED",
            ) from None
