"""database.txt and serial: the CA's memory of what it signed, in openssl's own format, so that both can take turns.

Every change is made under one lock, and is on the disk before it is reported. Only openssl itself knows no lock: let it
and the notebooks sign one after the other.
"""

import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from filelock import FileLock, Timeout

from mciot_nb.errors import OnboardingError
from mciot_nb.pki.config import CaConfig, is_yes, read_config
from mciot_nb.pki.files import append, disk_problem, overwrite, read_file, write_whole
from mciot_nb.pki.rows import Columns, Row, common_name_of, hex_serial, split_columns, with_century

if TYPE_CHECKING:
    import pandas as pd

#: Seconds to wait for somebody else who is signing in the same directory.
LOCK_TIMEOUT = 30.0
#: RFC 5280, section 4.1.2.2: a serial number has at most 20 bytes, and its first bit is not set.
LARGEST_SERIAL = 1 << 159


@dataclass
class Index:
    """What a CA must know before it signs: the serials that are used, and the subjects that are valid.

    It covers the first ``size`` bytes of the file, whose checksum is ``crc``. ``stamp`` tells whether the file is still
    the one that was read.
    """

    stamp: tuple[int, ...] = ()
    size: int = 0
    crc: int = 0
    serials: set[int] = field(default_factory=set)
    valid: dict[str, int] = field(default_factory=dict)
    valid_rows: int = 0

    def clear(self) -> None:
        """Forget everything: the file was written anew."""
        self.stamp, self.size, self.crc, self.valid_rows = (), 0, 0, 0
        self.serials.clear()
        self.valid.clear()

    def add(self, text: bytes, columns: Columns, stamp: tuple[int, ...]) -> None:
        """Take in the file's further rows; raises OnboardingError where a serial stands twice, as openssl does."""
        if twice := self.serials.intersection(columns.serial):
            raise OnboardingError(f"The serial {hex_serial(min(twice))} stands twice in the database.", "BAD_DATABASE")
        self.serials.update(columns.serial)
        rows = zip(columns.status, columns.serial, columns.subject, strict=True)
        valid = {subject: serial for status, serial, subject in rows if status == "V"}
        if self.valid:
            self.valid.update(valid)
        else:
            self.valid = valid
        self.valid_rows += columns.status.count("V")
        self.crc, self.size, self.stamp = zlib.crc32(text, self.crc), self.size + len(text), stamp

    def refuse_doubles(self) -> None:
        """Raise OnboardingError where two valid rows have one subject, which openssl refuses if subjects are unique."""
        if self.valid_rows != len(self.valid):
            raise OnboardingError(
                "The signing database has two valid rows for one subject, so openssl refuses the whole file: revoke "
                "one of the two, or say unique_subject = no.",
                "SUBJECT_TWICE",
            )


@dataclass(frozen=True)
class SigningDatabase:
    """The rows of ``path`` (database.txt) and the next serial number in ``serial_path``."""

    path: Path
    serial_path: Path
    _index: Index = field(default_factory=Index, init=False, repr=False, compare=False)

    @classmethod
    def of(cls, config: CaConfig) -> Self:
        """Give the database that a configuration names."""
        return cls(config.ca_path("database"), config.ca_path("serial"))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other writer of ours out; the lock file lies beside the CA's folder, not among its own files."""
        folder = self.path.parent
        lock = FileLock(folder.parent / f".{folder.name}.lock", timeout=LOCK_TIMEOUT, poll_interval=0.01)
        try:
            lock.acquire()
        except Timeout:
            raise OnboardingError(
                f"Somebody else has been signing in {folder} for {LOCK_TIMEOUT:.0f} seconds: wait and try again.",
                "LOCKED",
            ) from None
        except OSError as error:
            raise disk_problem(folder.parent, error) from None
        try:
            yield
        finally:
            lock.release()

    def rows(self) -> list[Row]:
        """Read all rows. A last row without its newline was never finished: openssl passes over it, and so do we.

        Raises OnboardingError for a line that openssl would refuse.
        """
        return list(self.columns().rows())

    def find(self, serial: int) -> Row | None:
        """Give the row of one certificate, or None."""
        columns = self.columns()
        if serial not in columns.serial:
            return None
        position = columns.serial.index(serial)
        return next(Columns(*([column[position]] for column in vars(columns).values())).rows())

    def columns(self) -> Columns:
        """Read all rows as columns of text, checked; raises OnboardingError as `rows` does."""
        return self._split(self._read())

    def _read(self) -> bytes:
        return read_file(self.path, f"There is no signing database {self.path}: put it back.")

    def _split(self, data: bytes) -> Columns:
        try:
            return split_columns(data.decode())
        except UnicodeDecodeError:
            raise OnboardingError(f"{self.path} is no text: put the database back.", "BAD_DATABASE") from None
        except OnboardingError as error:
            raise OnboardingError(f"{self.path}, {error}", error.code) from None

    def index(self) -> Index:
        """Say which serials are used and which subjects are valid. Only what was added since the last call is read."""
        index, stamp = self._index, self._stamp()
        if not stamp or stamp != index.stamp:
            data = self._read()
            if zlib.crc32(data[: index.size]) != index.crc:
                index.clear()  # openssl, or a revocation of ours, has written the file anew
            self._take_in(data[index.size : data.rfind(b"\n") + 1], stamp)
        return index

    def _take_in(self, text: bytes, stamp: tuple[int, ...]) -> None:
        try:
            self._index.add(text, self._split(text), stamp)
        except OnboardingError:
            self._index.clear()
            self.columns()  # names the line, counted from the file's beginning
            raise

    def _stamp(self) -> tuple[int, ...]:
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise disk_problem(self.path, error) from None
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns

    @property
    def attributes_path(self) -> Path:
        """The path of openssl's ``database.txt.attr``."""
        return self.path.with_name(f"{self.path.name}.attr")

    @property
    def unique_subject(self) -> bool | None:
        """What ``database.txt.attr`` says, which overrides the configuration; None where it says nothing."""
        if not self.attributes_path.exists():
            return None
        word = read_config(self.attributes_path).sections["default"].get("unique_subject")
        return None if word is None else is_yes(word)

    def record(self, rows: Sequence[Row]) -> None:
        """Write rows behind the others, all of them or none, on the disk when this returns. Call it while `locked`."""
        index, added = self.index(), "".join(f"{row}\n" for row in rows).encode()
        self._split(added)  # nothing is written that could not be read
        if len(rows) == 1:
            append(self.path, index.size, added)  # over a tail without newline, which would melt into our row
        else:
            write_whole(self.path, self._read()[: index.size] + added, replace=True)
        self._take_in(added, self._stamp())

    def rewrite(self, changed: Sequence[Row]) -> None:
        """Write the file anew with other rows for these serials, everything else untouched. Call it while `locked`."""
        new = {row.serial: str(row) for row in changed}
        self._split("".join(f"{text}\n" for text in new.values()).encode())  # nothing that could not be read
        lines = self._read().decode().split("\n")[:-1]  # without a torn tail
        for position, line in enumerate(lines):
            if not line.startswith("#") and (text := new.get(int(line.split("\t")[3], 16))):
                lines[position] = text
        write_whole(self.path, "".join(f"{line}\n" for line in lines).encode(), replace=True)

    def reserve_serials(self, count: int, taken: Path) -> list[int]:
        """Take the next serial numbers for good, and write the one behind them. Call it while `locked`.

        Numbers that have a row, or a certificate in the folder ``taken``, are passed over: a gap does no harm.
        """
        used, serial = self.index().serials, read_serial(self.serial_path)
        reserved: list[int] = []
        while len(reserved) < count:
            if not 0 < serial < LARGEST_SERIAL:
                raise OnboardingError(
                    f"{self.serial_path} holds {hex_serial(serial)}, and a serial number is positive and has at most "
                    "20 bytes: write a number that is higher than every one given so far.",
                    "BAD_SERIAL",
                )
            if serial not in used and not (taken / f"{hex_serial(serial)}.pem").exists():
                reserved.append(serial)
            serial += 1
        write_serial(self.serial_path, serial)
        return reserved

    def to_frame(self) -> "pd.DataFrame":
        """Give the rows as a table, in the file's order; ``serial`` is an int, times are UTC, NaT where there is none.

        Its columns are status, expires, revoked, reason, serial, subject, common_name and file.
        """
        import pandas as pd  # here, because it takes half a second and signing needs no table

        columns = self.columns()
        revocations = [text.partition(",") for text in columns.revocation]
        return pd.DataFrame(
            {
                "status": columns.status,
                "expires": _times(columns.expires),
                "revoked": _times([time for time, _, _ in revocations]),
                "reason": [reason for _, _, reason in revocations],
                "serial": pd.Series(columns.serial, dtype=object),
                "subject": columns.subject,
                "common_name": [common_name_of(subject) for subject in columns.subject],
                "file": columns.file,
            }
        )


def _times(texts: Sequence[str]) -> "pd.Series[pd.Timestamp]":
    """Read a column of times, an empty text as NaT, by way of ISO 8601, which numpy reads fastest."""
    import numpy as np
    import pandas as pd

    full = [with_century(text) if text else "" for text in texts]
    iso = [f"{t[:4]}-{t[4:6]}-{t[6:8]}T{t[8:10]}:{t[10:12]}:{t[12:14]}" if t else "NaT" for t in full]
    return pd.Series(np.array(iso, dtype="datetime64[s]")).dt.tz_localize("UTC")


def read_serial(path: Path) -> int:
    """Read the next number from ``serial`` or ``crlnumber``: hexadecimal of even length, as openssl wants it.

    Raises OnboardingError where it holds anything else.
    """
    missing = (
        f"There is no file {path}, which holds the next number: write one with echo 1000 > {path.name}, or a higher "
        "number in hexadecimal if some were given already."
    )
    first = read_file(path, missing).split(b"\n")[0].rstrip()
    if not re.fullmatch(rb"(?:[0-9A-Fa-f]{2})+", first):
        raise OnboardingError(
            f"{path} must hold the next number in hexadecimal, with an even number of digits, such as 1000, but it "
            f"holds {first.decode(errors='replace')!r}: write a number that is higher than every one given so far.",
            "BAD_SERIAL",
        )
    return int(first, 16)


def write_serial(path: Path, number: int) -> None:
    """Write the next number into ``serial`` or ``crlnumber``.

    One that is as long goes over the old in place: torn by a crash, it is still no lower than the old was.
    """
    data = f"{hex_serial(number)}\n".encode()
    if path.stat().st_size == len(data):
        overwrite(path, data)
    else:
        write_whole(path, data, replace=True)
