"""Writing files so that a reader sees the old content or the new, never half of it, even after a power cut."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path


def write_whole(path: Path, data: bytes, *, private: bool = False, replace: bool = False) -> None:
    """Write ``data`` to ``path`` whole or not at all, and see it safely on the disk.

    ``private`` files can be read by their owner only (0600; on Windows the user's profile protects them).
    Without ``replace`` a file that is there already is left alone.

    Raises FileExistsError if the file is there and ``replace`` is false, OSError if the disk refuses.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
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
        elif os.name == "nt":
            temporary.rename(path)  # refuses an existing file there
        else:
            path.hardlink_to(temporary)  # refuses an existing file, which rename would overwrite
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable (POSIX keeps them apart from the files' content; Windows does not)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
