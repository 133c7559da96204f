"""A CA's directory: the guide's tree and file names, made whole or not at all, and which configuration rules it."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mciot_nb.errors import OnboardingError
from mciot_nb.pki.config import CaConfig, guide_config, read_config
from mciot_nb.pki.files import disk_problem, sync_folder, write_whole
from mciot_nb.pki.rows import hex_serial

#: The guide's first serial number (hexadecimal 1000).
FIRST_SERIAL = 0x1000
#: The guide's names for the configuration of a root and of an intermediate CA.
CONFIG_NAMES = ("caConfig.cnf", "intermediateConfig.cnf")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Give a draft folder that becomes ``folder`` at the end, or vanishes where anything fails."""
    draft = folder.parent / f".{folder.name}.draft"
    try:
        if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
            raise OnboardingError(
                f"{folder} is there already and is never overwritten: choose another folder.", "EXISTS"
            )
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        yield draft
        if folder.exists():
            folder.rmdir()  # empty, or this raises; Windows can't rename onto it
        draft.rename(folder)
        sync_folder(folder.parent)
    except OSError as error:
        raise disk_problem(folder, error) from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def fill_tree(draft: Path, folder: Path, prefix: str) -> CaConfig:
    """Put the guide's tree into ``draft``, which will become ``folder``; ``prefix`` is ``ca`` or ``intermediate``."""
    (draft / "crl").mkdir()
    (draft / "deviceCertificates").mkdir()
    config = draft / f"{prefix}Config.cnf"
    write_whole(config, guide_config(folder, prefix))
    write_whole(draft / "database.txt", b"")
    for name in ("serial", "crl/crlnumber"):
        write_whole(draft / name, f"{hex_serial(FIRST_SERIAL)}\n".encode())
    return read_config(config)


def find_config(folder: Path) -> Path:
    """Find the configuration of a CA directory: under one of the guide's names, or the only ``.cnf`` file there.

    Raises OnboardingError (NO_FILE) where there is none, or several without one of these names.
    """
    try:
        named = [folder / name for name in CONFIG_NAMES if (folder / name).exists()]
        found = named or sorted(folder.glob("*.cnf"))
    except OSError as error:
        raise disk_problem(folder, error) from None
    if len(found) == 1:
        return found[0]
    has = ", ".join(path.name for path in found) or "none"
    raise OnboardingError(
        f"{folder} must hold one configuration, caConfig.cnf or intermediateConfig.cnf, and it has {has}: "
        "create the CA first, or name the folder of one.",
        "NO_FILE",
    )


def is_folder(named: Path, folder: Path) -> bool:
    """Whether ``named``, as a configuration has it, is this very folder."""
    try:
        return named.samefile(folder)
    except OSError:  # it is not there, or can't be
        return False
