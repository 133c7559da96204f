"""database.txt and serial: the CA's memory of what it signed, in openssl's own format, so that both can take turns.

Every change is made under one lock, and is on the disk before it is reported. Only openssl itself knows no lock: let it
and the notebooks sign one after the other.

Signing writes in this order, each step durable before the next (`CertificateAuthority.sign_many`):

1. ``serial``: the number behind those that are taken. A crash leaves a gap, which does no harm.
2. ``.<SERIAL>.pem.draft``: the certificate, under a name that no program looks at.
3. ``database.txt``: the row, appended; or for several the file anew, so that they are there together.
4. ``<SERIAL>.pem``: the draft renamed, which is atomic.

So a certificate has a row before it has its name, and one look at the drafts says what a crash has left: `settle` gives
a draft its name if its row is there, and removes it if not. After a success, a failure and a crash it is the same call.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from cryptography import x509
from filelock import FileLock, Timeout

from mciot_nb.errors import OnboardingError, fault
from mciot_nb.pki.config import CaConfig
from mciot_nb.pki.files import (
    disk_errors,
    drafts_of,
    read_file,
    reason_of,
    remove,
    stamp,
    sync_folder,
    write_at,
    write_whole,
)
from mciot_nb.pki.rows import Columns, DatabaseRow, common_name_of, hex_serial, parse_rows, with_century

if TYPE_CHECKING:
    import pandas as pd

#: Seconds to wait for another process that is signing in the same directory.
LOCK_TIMEOUT = 30.0
#: RFC 5280, section 4.1.2.2: a serial number has at most 20 bytes, and its first bit is not set.
LARGEST_SERIAL = 1 << 159

_DRAFT = re.compile(r"\.([0-9A-F]+)\.pem\.draft")


@dataclass
class Index:
    """What a CA must know before it signs: the serials that are used, and the subjects that are valid.

    It covers the first ``size`` bytes of the file. ``stamp`` tells whether the file is still the one that was read.
    """

    stamp: tuple[int, ...] = ()
    size: int = 0
    serials: set[int] = field(default_factory=set)
    valid: dict[str, int] = field(default_factory=dict)
    valid_rows: int = 0

    def add(self, columns: Columns, size: int, stamp: tuple[int, ...]) -> None:
        """Add rows; the file now has ``size`` bytes of whole rows."""
        self.serials.update(columns.serial)
        rows = zip(columns.status, columns.serial, columns.subject, strict=True)
        self.valid.update({subject: serial for status, serial, subject in rows if status == "V"})
        self.valid_rows += columns.status.count("V")
        self.size, self.stamp = size, stamp


@dataclass(frozen=True)
class SigningDatabase:
    """The rows of ``path`` (database.txt), and the next serial number in ``serial_path``: None if they are random."""

    path: Path
    serial_path: Path | None
    _index: Index = field(default_factory=Index, init=False, repr=False, compare=False)

    @classmethod
    def of(cls, config: CaConfig) -> Self:
        """Return the database that a configuration names."""
        is_random = config.optional("rand_serial") is not None  # openssl looks only whether it is there
        return cls(config.ca_path("database"), None if is_random else config.ca_path("serial"))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock, which is beside the CA's folder. Raises: OnboardingError: LOCKED after `LOCK_TIMEOUT` s."""
        folder = self.path.parent
        lock = FileLock(folder.parent / f".{folder.name}.lock", LOCK_TIMEOUT, 0o600, poll_interval=0.01)
        with disk_errors(folder.parent):
            try:
                held = lock.acquire()
            except Timeout:
                raise fault("LOCKED", folder=folder, seconds=LOCK_TIMEOUT) from None
        with held:
            yield

    def rows(self) -> list[DatabaseRow]:
        """Return all rows but a torn last one. Raises: OnboardingError: BAD_DATABASE for what openssl would refuse."""
        columns = self.columns()
        return [columns.row(at) for at in range(len(columns.serial))]

    def find(self, serial: int) -> DatabaseRow | None:
        """Return the row of one certificate, or None."""
        columns = self.columns()
        return columns.row(columns.serial.index(serial)) if serial in columns.serial else None

    def columns(self) -> Columns:
        """Return all rows as columns of text, checked. Raises: OnboardingError: as `rows` does."""
        return self._parse(self._read())

    def _read(self) -> bytes:
        return read_file(self.path, f"There is no signing database {self.path}: put it back.")

    def _parse(self, data: bytes) -> Columns:
        try:
            return parse_rows(data.decode())
        except UnicodeDecodeError:
            raise OnboardingError(f"{self.path} is not text: put the database back.", "BAD_DATABASE") from None
        except OnboardingError as error:
            raise OnboardingError(f"{self.path}, {error}", error.code) from None

    def index(self) -> Index:
        """Return which serials are used and which subjects are valid; the file is read if another has changed it."""
        now = stamp(self.path)
        if not now or now != self._index.stamp:
            data = self._read()
            vars(self._index).update(vars(Index()))
            self._index.add(self._parse(data), data.rfind(b"\n") + 1, now)
        return self._index

    @property
    def attributes_path(self) -> Path:
        """The path of openssl's ``database.txt.attr``."""
        return self.path.with_name(f"{self.path.name}.attr")

    def record(self, rows: Sequence[DatabaseRow]) -> None:
        """Write rows behind the others, all of them or none; durable on return. Caller must hold the lock."""
        index, added = self.index(), "".join(f"{row}\n" for row in rows).encode()
        columns = self._parse(added)  # nothing is written that could not be read
        self.set_tail_aside()
        if len(rows) == 1:
            write_at(self.path, index.size, added)  # over a tail without newline, which would melt into our row
        else:
            write_whole(self.path, self._read()[: index.size] + added, replace=True)
        index.add(columns, index.size + len(added), stamp(self.path))

    def set_tail_aside(self) -> None:
        """Move a last row without its newline, which openssl would drop, to ``database.txt.tail``; lock first."""
        index = self.index()
        if index.stamp[2:3] != (index.size,) and (tail := self._read()[index.size :]):
            aside = self.path.with_name(f"{self.path.name}.tail")
            write_whole(aside, (aside.read_bytes() if aside.exists() else b"") + tail + b"\n", replace=True)
            write_at(self.path, index.size, b"")
            index.stamp = stamp(self.path)

    def rewrite(self, changed: Sequence[DatabaseRow]) -> None:
        """Write the file anew with other rows for these serials, all else untouched. Caller must hold the lock."""
        new = {row.serial: str(row).split("\t") for row in changed}
        self._parse("".join(f"{row}\n" for row in changed).encode())  # nothing that could not be read
        self.set_tail_aside()
        lines = self._read().decode().split("\n")[:-1]
        for position, line in enumerate(lines):
            if not line.startswith("#") and (row := new.get(int((fields := line.split("\t"))[3], 16))):
                lines[position] = "\t".join([row[0], fields[1], row[2], *fields[3:]])
        write_whole(self.path, "".join(f"{line}\n" for line in lines).encode(), replace=True)

    def reserve_serials(self, count: int, taken: Path) -> list[int]:
        """Take the next serial numbers for good, and write the one behind them. Caller must hold the lock.

        Numbers that have a row, or a certificate in the folder ``taken``, are passed over: a gap does no harm.
        """
        used, reserved = self.index().serials, list[int]()
        serial = read_serial(self.serial_path) if self.serial_path else x509.random_serial_number()
        while len(reserved) < count:
            self.check_serial(serial)
            if serial not in used and not copy_path(taken, serial).exists():
                reserved.append(serial)
            serial = serial + 1 if self.serial_path else x509.random_serial_number()
        if self.serial_path:
            write_serial(self.serial_path, serial)
        return reserved

    def check_serial(self, serial: int) -> None:
        """Raises: OnboardingError: BAD_SERIAL if no certificate can have this number."""
        if not 0 < serial < LARGEST_SERIAL:
            raise fault("BAD_SERIAL.size", path=self.serial_path, serial=hex_serial(serial))

    def to_frame(self) -> "pd.DataFrame":
        """Return the rows as a table, in the file's order: ``serial`` is an int, times are UTC, or NaT.

        Its columns are status, expires, revoked, reason, serial, subject, common_name and file.
        """
        import pandas as pd  # here, because it takes half a second and signing needs no table

        columns = self.columns()
        revocations = [text.partition(",") for text in columns.revocation]
        table = {"status": columns.status, "expires": _times(columns.expires)}
        table["revoked"] = _times([time for time, _, _ in revocations])
        table |= {"reason": [reason for _, _, reason in revocations], "serial": pd.Series(columns.serial, dtype=object)}
        names = [common_name_of(subject) for subject in columns.subject]
        return pd.DataFrame(table | {"subject": columns.subject, "common_name": names, "file": columns.file})


def _times(texts: Sequence[str]) -> "pd.Series[pd.Timestamp]":
    """Parse a column of times, an empty text as NaT, by way of ISO 8601, which numpy reads fastest."""
    import numpy as np
    import pandas as pd

    full = [with_century(text) if text else "" for text in texts]
    iso = [f"{t[:4]}-{t[4:6]}-{t[6:8]}T{t[8:10]}:{t[10:12]}:{t[12:14]}" if t else "NaT" for t in full]
    return pd.Series(np.array(iso, dtype="datetime64[s]")).dt.tz_localize("UTC")


def read_serial(path: Path) -> int:
    """Return the next number of ``serial`` or ``crlnumber``. Raises: OnboardingError: BAD_SERIAL, NO_FILE."""
    first = read_file(path, str(fault("NO_FILE.serial", path=path))).split(b"\n")[0].rstrip()
    if not re.fullmatch(rb"(?:[0-9A-Fa-f]{2})+", first):
        raise fault("BAD_SERIAL.text", path=path, found=first.decode(errors="replace"))
    return int(first, 16)


def write_serial(path: Path, number: int) -> None:
    """Write the next number into ``serial`` or ``crlnumber``. Caller must hold the lock.

    One that is as long goes over the old in place: torn by a crash, it is still no lower than the old was.
    """
    data = f"{hex_serial(number)}\n".encode()
    if path.stat().st_size == len(data):
        write_at(path, 0, data)
    else:
        write_whole(path, data, replace=True)


def copy_path(copies: Path, serial: int) -> Path:
    """Return where a certificate's copy is, ``<SERIAL>.pem`` in the configuration's ``new_certs_dir``."""
    return copies / f"{hex_serial(serial)}.pem"


def draft_path(copies: Path, serial: int) -> Path:
    """Return where a certificate is until the database has its row."""
    return copies / f".{hex_serial(serial)}.pem.draft"


def settle(copies: Path, serials: Iterable[int], recorded: set[int]) -> None:
    """Rename the drafts of ``serials`` to their copies' names, if they are ``recorded``, and remove the others.

    Caller must hold the lock. Raises: OnboardingError: UNFINISHED if the disk refuses; opening the CA does it then.
    """
    known = [serial for serial in serials if serial in recorded]
    remove(draft_path(copies, serial) for serial in serials if serial not in recorded)
    try:
        for serial in known:
            draft, copy = draft_path(copies, serial), copy_path(copies, serial)
            if copy.exists():  # openssl was told to sign with this number again
                remove([draft])
            elif draft.exists():
                draft.replace(copy)
        if known:
            sync_folder(copies)
    except OSError as error:
        raise fault("UNFINISHED", copies=copies, reason=reason_of(error)) from None


def recover(config: CaConfig, database: SigningDatabase) -> str:
    """Mend what a crash has left, and say it in a sentence, or an empty one. Raises: OnboardingError: INTERRUPTED."""
    with disk_errors():
        if not crash_traces(config, database):
            return ""
        with database.locked():  # another process may have been at work just now: look again
            found = crash_traces(config, database, mend=True)
    return f"A crash was put in order: {'; '.join(found)}." if found else ""


def crash_traces(config: CaConfig, database: SigningDatabase, *, mend: bool = False) -> list[str]:
    """Return what a crash has left in a CA directory, a clause for each trace; an empty list where all is well.

    With ``mend`` it is put in order; then the caller must hold the lock. Where openssl was interrupted between two
    renames, its new file takes the place of the missing one.
    """
    found = []
    others = [config.ca_path(name) for name in ("crl", "crlnumber") if config.optional(name)]
    for path in filter(None, [database.path, database.attributes_path, database.serial_path, *others]):
        if not path.exists() and path.with_name(f"{path.name}.new").exists():
            found.append(f"{path.name} was missing, as openssl leaves it when it is interrupted")
            if mend:
                new, old = path.with_name(f"{path.name}.new"), path.with_name(f"{path.name}.old")
                if old.exists() and new.stat().st_size < old.stat().st_size:
                    raise fault("INTERRUPTED.rename", path=path, new=new, old=old)
                new.replace(path)
                sync_folder(path.parent)
        if drafts := drafts_of(path):
            found.append(f"{path.name} was being written")
            remove(drafts if mend else [])
    copies = config.ca_path("new_certs_dir")
    names = [path.name for path in copies.iterdir()] if copies.is_dir() else []
    if cut_off := {int(draft[1], 16) for name in names if (draft := _DRAFT.fullmatch(name))}:
        found.append(f"signing was cut off at {_listed(cut_off)}")
        if mend:
            settle(copies, cut_off, database.index().serials)
        if mend and (recorded := cut_off & database.index().serials):
            found.append(f"{_listed(recorded)} had been recorded, and is there now")
    if database.path.exists() and database.path.read_bytes()[-1:] not in (b"", b"\n"):
        found.append(f"the last row of {database.path.name} was not finished")
        if mend:
            database.set_tail_aside()
            found[-1] += f", and is kept in {database.path.name}.tail"
    return found


def _listed(serials: Iterable[int]) -> str:
    return ", ".join(hex_serial(serial) for serial in sorted(serials))
