"""Reading and writing files: whole or not at all, and with a sentence where the disk refuses."""

import errno
import os
import tempfile
from contextlib import suppress
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

    ``private`` files can be read by their owner only (0600; on Windows the user's profile protects them).
    Without ``replace`` a file that is there already is left alone.

    Raises FileExistsError if the file is there and ``replace`` is false, OnboardingError (DISK) if the disk refuses.
    """
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise disk_problem(path, error) from None
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if not private:
            temporary.chmod(0o644)
        if replace:
            temporary.replace(path)
        else:
            _rename_to_new(temporary, path)
    except FileExistsError:
        raise
    except OSError as error:
        raise disk_problem(path, error) from None
    finally:
        with suppress(OSError):
            temporary.unlink()
    sync_folder(path.parent)


def _rename_to_new(temporary: Path, path: Path) -> None:
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
    """Make the names in ``folder`` durable (POSIX keeps them apart from the files' content; Windows does not)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems can't, and say so
            raise disk_problem(folder, error) from None
    finally:
        os.close(descriptor)
