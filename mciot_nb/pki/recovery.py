"""What a CA directory needs after a crash: signing that was cut off is finished, or undone as if it had not begun.

A certificate is a draft until the database has its row. Only then does it get its name, ``<SERIAL>.pem``: so nobody
ever finds a certificate that the database does not know.
"""

import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from mciot_nb.errors import OnboardingError
from mciot_nb.pki.config import CaConfig
from mciot_nb.pki.database import SigningDatabase, hex_serial
from mciot_nb.pki.files import append, disk_problem, left_behind, remove, rename_to_new, sync_folder

_DRAFT = re.compile(r"\.([0-9A-F]+)\.pem\.draft")


def draft_name(serial: int) -> str:
    """Give the name of a certificate that the database does not know yet."""
    return f".{hex_serial(serial)}.pem.draft"


def publish(copies: Path, serials: Iterable[int]) -> None:
    """Give drafts their names, now that the database knows them; whoever opens the CA next does what this could not."""
    try:
        for serial in serials:
            draft, copy = copies / draft_name(serial), copies / f"{hex_serial(serial)}.pem"
            try:
                rename_to_new(draft, copy)
            except FileExistsError:  # a crash came in between: the new name is there, perhaps empty still
                if draft.exists() and not copy.stat().st_size:
                    draft.replace(copy)
            draft.unlink(missing_ok=True)
        sync_folder(copies)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OnboardingError(
            f"What was signed is recorded, but {copies} did not take its copy ({reason}): see to the disk, and "
            "open the CA again.",
            "UNFINISHED",
        ) from None


def traces(config: CaConfig, database: SigningDatabase) -> list[str]:
    """Say what a crash has left in a CA directory, a clause for each trace; nothing where all is well."""
    found = []
    for path in _replaced(config, database):
        if not path.exists() and _by_openssl(path).exists():
            found.append(f"{path.name} was missing, as openssl leaves it when it is interrupted")
        if left_behind(path):
            found.append(f"{path.name} was being written")
    if drafts := _drafts(config.ca_path("new_certs_dir")):
        found.append(f"signing was cut off at {_listed(drafts)}")
    if _torn(database.path):
        found.append(f"the last row of {database.path.name} was not finished")
    return found


def recover(config: CaConfig, database: SigningDatabase) -> str:
    """Put in order what a crash has left, and say so in one sentence; empty where nothing was to be done.

    A draft whose row is there gets its name, any other vanishes: it was handed to nobody. Where openssl was interrupted
    between two renames, its new file takes the place of the missing one, if it holds all that the old one held.
    """
    try:
        return _recover(config, database) if traces(config, database) else ""
    except OSError as error:
        raise disk_problem(Path(str(error.filename or database.path)), error) from None


def _recover(config: CaConfig, database: SigningDatabase) -> str:
    copies = config.ca_path("new_certs_dir")
    with database.locked():
        found = traces(config, database)  # somebody may have been at work just now
        for path in _replaced(config, database):
            remove(left_behind(path))
            _finish_openssls_rename(path)
        known, drafts = database.index(), _drafts(copies)
        recorded = drafts & known.serials
        remove(copies / draft_name(serial) for serial in drafts - recorded)
        publish(copies, recorded)
        if recorded:
            found.append(f"{_listed(recorded)} had been recorded, and is there now")
        if _torn(database.path):
            append(database.path, known.size, b"")
    return f"A crash was put in order: {'; '.join(found)}." if found else ""


def _replaced(config: CaConfig, database: SigningDatabase) -> list[Path]:
    others = [config.ca_path(name) for name in ("crl", "crlnumber") if config.optional(name)]
    return [database.path, database.attributes_path, database.serial_path, *others]


def _listed(serials: Iterable[int]) -> str:
    return ", ".join(hex_serial(serial) for serial in sorted(serials))


def _by_openssl(path: Path) -> Path:
    return path.with_name(f"{path.name}.new")


def _finish_openssls_rename(path: Path) -> None:
    new, old = _by_openssl(path), path.with_name(f"{path.name}.old")
    if path.exists() or not new.exists():
        return
    if old.exists() and new.stat().st_size < old.stat().st_size:
        raise OnboardingError(
            f"{path} is missing, and {new.name}, which openssl was about to put there, is shorter than {old.name}: "
            "compare the two, and rename the right one.",
            "INTERRUPTED",
        )
    new.replace(path)
    sync_folder(path.parent)


def _drafts(copies: Path) -> set[int]:
    if not copies.is_dir():
        return set()
    return {int(found[1], 16) for path in copies.iterdir() if (found := _DRAFT.fullmatch(path.name))}


def _torn(path: Path) -> bool:
    with suppress(FileNotFoundError), path.open("rb") as file:
        if file.seek(0, 2):
            file.seek(-1, 2)
            return file.read() != b"\n"
    return False
