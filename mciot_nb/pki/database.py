"""database.txt and serial: the CA's memory of what it signed, in openssl's own format, so that both can take turns.

Every change is made under one lock, and is on the disk before it is reported. Only openssl itself knows no lock: let it
and the notebooks sign one after the other.
"""

import itertools
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Self

from cryptography import x509
from filelock import FileLock, Timeout

from mciot_nb.errors import OnboardingError
from mciot_nb.pki.config import CaConfig, is_yes, read_config
from mciot_nb.pki.files import append, disk_problem, overwrite, read_file, write_whole

if TYPE_CHECKING:
    import pandas as pd

#: openssl's reasons for a revocation, each with the word that cryptography has for it (RFC 5280, section 5.3.1).
REASONS = {
    "unspecified": "unspecified",
    "keyCompromise": "keyCompromise",
    "CACompromise": "cACompromise",
    "affiliationChanged": "affiliationChanged",
    "superseded": "superseded",
    "cessationOfOperation": "cessationOfOperation",
    "certificateHold": "certificateHold",
    "removeFromCRL": "removeFromCRL",
    # These three bear an argument: -crl_hold, -crl_compromise and -crl_CA_compromise of openssl's ca man page.
    "holdInstruction": "certificateHold",
    "keyTime": "keyCompromise",
    "CAkeyTime": "cACompromise",
}
#: What RFC 5280 dropped, and openssl still writes (RFC 3280, section 5.3.2).
HOLD_INSTRUCTIONS = {
    "holdInstructionNone": "1.2.840.10040.2.1",
    "holdInstructionCallIssuer": "1.2.840.10040.2.2",
    "holdInstructionReject": "1.2.840.10040.2.3",
}
_BY_LOWER_CASE = {word.lower(): word for word in REASONS}
_WITH_ARGUMENT = ("holdinstruction", "keytime", "cakeytime")

_TIME = re.compile(r"(?:\d\d)?\d{12}Z", re.ASCII)
_PARTS = ((-7,), (-7, -5), (-5, -3), (-3, None))  # of YYMMDDHHMMSSZ: the day, hour, minute, second with its Z
_UTC_TIME = len("YYMMDDHHMMSSZ")
_LONGEST_COMMENT = 511  # bytes: openssl takes what is behind for a row
_UPPER_CASE_HEX = re.compile(r"[0-9A-F]*")


@dataclass(frozen=True)
class DatabaseRow:
    """One certificate that the CA signed. ``status`` is V (valid), R (revoked) or E (expired); times are UTC.

    ``subject`` is openssl's one-line form, ``/C=DE/CN=device``; ``reason`` openssl's word, empty where none was given,
    and with its argument where it bears one: ``keyTime,20261123120000Z``.
    """

    status: str
    expires: datetime
    revoked: datetime | None
    reason: str
    serial: int
    file: str
    subject: str

    @classmethod
    def parse(cls, line: str) -> Self:
        """Read one line of the database; raises ValueError, which says why, where openssl would refuse it."""
        fields = line.split("\t")
        if len(fields) != 6:
            raise ValueError("it has not six fields with tabs between them")
        status, expires, revocation, serial, file, subject = fields
        if status not in ("V", "R", "E"):
            raise ValueError(f"its status is {status!r}, not V, R or E")
        if "\r" in line:
            raise ValueError("it has a carriage return, as lines on Windows have (CRLF); save the file with LF alone")
        if "\0" in line or "\\\t" in line:
            raise ValueError("it has a zero byte, or a backslash before a tab")
        if bool(revocation) != (status == "R"):
            raise ValueError("a revocation date belongs to a revoked row (R), and to no other")
        if not re.fullmatch(r"(?:[0-9A-F]{2})+", serial):
            raise ValueError(f"its serial {serial!r} is not upper-case hexadecimal of even length")
        if revocation:
            _check_revocation(revocation)
        return cls.of(status, expires, revocation, int(serial, 16), file, subject)

    @classmethod
    def of(cls, status: str, expires: str, revocation: str, serial: int, file: str, subject: str) -> Self:
        """Make a row of fields that are known to be good."""
        revoked, _, reason = revocation.partition(",")
        return cls(status, read_time(expires), read_time(revoked) if revoked else None, reason, serial, file, subject)

    def __str__(self) -> str:
        revocation = ",".join(filter(None, [write_time(self.revoked) if self.revoked else "", self.reason]))
        return "\t".join(
            (self.status, write_time(self.expires), revocation, hex_serial(self.serial), self.file, self.subject)
        )


@dataclass(frozen=True)
class Columns:
    """Many rows, field by field: a hundred thousand are looked through in a tenth of a second."""

    status: Sequence[str]
    expires: Sequence[str]
    revocation: Sequence[str]
    serial: Sequence[int]
    file: Sequence[str]
    subject: Sequence[str]

    def rows(self) -> Iterator[DatabaseRow]:
        """Give them row by row."""
        return itertools.starmap(DatabaseRow.of, zip(*vars(self).values(), strict=True))


def split_columns(text: str) -> Columns:
    """Split the lines of a database into its columns, and check them all, comments left out.

    A last line without its newline is passed over. Raises OnboardingError (BAD_DATABASE) for the first line that
    openssl would refuse.
    """
    lines = text[: text.rfind("\n") + 1]
    if "#" in lines:
        lines = "".join(f"{line}\n" for line in lines.split("\n")[:-1] if not _is_comment(line))
    # A newline stays before the status behind it, so that a row too short is not made up for by one too long.
    fields = lines.replace("\n", "\t\n").split("\t")[:-1]
    starts, expires, revocations, serials, files, subjects = (fields[position::6] for position in range(6))
    statuses = [start[-1:] for start in starts]
    good = (
        len(fields) == 6 * lines.count("\n")
        and set(starts[1:]) <= {"\nV", "\nR", "\nE"}
        and set(starts[:1]) <= {"V", "R", "E"}
        and not ("\r" in lines or "\0" in lines or ("\\" in lines and "\\\t" in lines))
        and _all_good(statuses, expires, revocations, serials)
    )
    numbers = [int(serial, 16) for serial in serials] if good else []
    if not good or len(set(numbers)) != len(numbers):
        _name_the_bad_line(text)
    return Columns(statuses, expires, revocations, numbers, files, subjects)


def _is_comment(line: str) -> bool:
    return line.startswith("#") and len(line.encode()) < _LONGEST_COMMENT


def _all_good(status: Sequence[str], expires: Sequence[str], revocation: Sequence[str], serial: Sequence[str]) -> bool:
    """Check what `DatabaseRow.parse` checks, for all rows in one go: each thing once that many rows share."""
    revocations = list(filter(None, revocation))
    try:
        _check_times(expires)
        _check_times([text[:_UTC_TIME] for text in revocations])
        for rest in {text[_UTC_TIME:] for text in revocations}:
            _check_revocation(f"260101000000Z{rest}")
    except ValueError:
        return False
    return (
        set(itertools.compress(status, revocation)) <= {"R"}
        and len(revocations) == status.count("R")
        and not any(length % 2 or not length for length in set(map(len, serial)))
        and _UPPER_CASE_HEX.fullmatch("".join(serial)) is not None
    )


def _check_times(times: Sequence[str]) -> None:
    """Read every day, hour, minute and second that stands in ``times``; raises ValueError where one is none."""
    days, hours, minutes, seconds = (set(map(itemgetter(slice(*part)), times)) for part in _PARTS)
    for time in [f"{day}000000Z" for day in days] + [f"000101{hour}0000Z" for hour in hours]:
        read_time(time)
    for time in [f"00010100{minute}00Z" for minute in minutes] + [f"0001010000{second}" for second in seconds]:
        read_time(time)


def _name_the_bad_line(text: str) -> NoReturn:
    seen = set()
    for number, line in enumerate(text.split("\n")[:-1], 1):
        if _is_comment(line):
            continue
        try:
            row = DatabaseRow.parse(line)
            if row.serial in seen:
                raise ValueError(f"the serial {hex_serial(row.serial)} stands there twice")
        except ValueError as error:
            raise OnboardingError(
                f"line {number} is no row of a signing database, so openssl would refuse the whole file: {error}; "
                "correct or remove that line.",
                "BAD_DATABASE",
            ) from None
        seen.add(row.serial)
    raise OnboardingError("this is no signing database that openssl would read: put it back.", "BAD_DATABASE")


def _check_revocation(text: str) -> None:
    time, comma, reason = text.partition(",")
    if len(time) != _UTC_TIME:
        raise ValueError(f"{time!r} is no time of the form YYMMDDHHMMSSZ, with two digits for the year")
    read_time(time)
    if comma:  # openssl reads past an argument that means nothing
        word = reason.partition(",")[0]
        check_reason(reason if word.lower() in _WITH_ARGUMENT else word)


def reason_word(word: str) -> str:
    """Give a reason in openssl's spelling; raises ValueError where openssl does not know it."""
    if word.lower() not in _BY_LOWER_CASE:
        raise ValueError(f"there is no reason {word!r}; use one of {', '.join(REASONS)}")
    return _BY_LOWER_CASE[word.lower()]


def check_reason(reason: str) -> str:
    """Give a reason in openssl's spelling, with its argument; raises ValueError where it is not one, or lacks that."""
    word, _, argument = reason.partition(",")
    known = reason_word(word)
    if known in ("keyTime", "CAkeyTime"):
        if not re.fullmatch(r"\d{14}Z", argument, re.ASCII):
            raise ValueError(f"{known} bears a time, such as {known},20261123120000Z")
        read_time(argument)
    elif known == "holdInstruction":
        hold_instruction(argument)
    elif argument:
        raise ValueError(f"{known} bears nothing behind a comma")
    return f"{known},{argument}" if argument else known


def hold_instruction(name: str) -> x509.ObjectIdentifier:
    """Give the number of a hold instruction, by its name or its number; raises ValueError where it is neither."""
    try:
        return x509.ObjectIdentifier(HOLD_INSTRUCTIONS.get(name, name))
    except ValueError:
        known = ", ".join(HOLD_INSTRUCTIONS)
        raise ValueError(f"there is no hold instruction {name!r}; use {known}, or a number such as 1.2.3") from None


def hex_serial(serial: int) -> str:
    """Write a serial number as openssl's files hold it: upper-case hexadecimal of even length."""
    digits = f"{serial:X}"
    return digits if len(digits) % 2 == 0 else f"0{digits}"


def read_time(text: str) -> datetime:
    """Read ASN.1's UTCTime (two-digit years up to 2049) or GeneralizedTime (RFC 5280, section 4.1.2.5).

    Raises ValueError where ``text`` is neither.
    """
    if not _TIME.fullmatch(text):
        raise ValueError(f"{text!r} is no time of the form YYMMDDHHMMSSZ")
    full = with_century(text)
    month, day, hour, minute, second = (int(full[position : position + 2]) for position in range(4, 14, 2))
    return datetime(int(full[:4]), month, day, hour, minute, second, tzinfo=UTC)


def with_century(text: str) -> str:
    """Write a time of the database with all four digits of its year."""
    if len(text) == _UTC_TIME:
        return ("19" if text[:2] >= "50" else "20") + text
    return text


def write_time(time: datetime) -> str:
    """Write a time as the database holds it: with two digits of the year from 1950 to 2049, else with four."""
    year = f"{time:%y}" if 1950 <= time.year < 2050 else f"{time.year:04}"
    return f"{year}{time:%m%d%H%M%SZ}"


def common_name_of(subject: str) -> str:
    r"""Take the common name out of openssl's one-line form, ``\xHH`` and ``\/`` resolved; empty where there is none."""
    if "\\" not in subject:
        return subject.partition("/CN=")[2].partition("/")[0]
    match = re.search(r"(?<!\\)/CN=((?:\\.|[^/\\])*)", subject)
    text = re.sub(r"\\([/+])", r"\1", match[1] if match else "")
    return re.sub(rb"\\x([0-9A-F]{2})", lambda byte: bytes([int(byte[1], 16)]), text.encode()).decode(errors="replace")


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

    def rows(self) -> list[DatabaseRow]:
        """Read all rows. A last row without its newline was never finished: openssl passes over it, and so do we.

        Raises OnboardingError for a line that openssl would refuse.
        """
        return list(self.columns().rows())

    def find(self, serial: int) -> DatabaseRow | None:
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

    def record(self, rows: Sequence[DatabaseRow]) -> None:
        """Write rows behind the others, all of them or none, on the disk when this returns. Call it while `locked`."""
        index, added = self.index(), "".join(f"{row}\n" for row in rows).encode()
        self._split(added)  # nothing is written that could not be read
        if len(rows) == 1:
            append(self.path, index.size, added)  # over a tail without newline, which would melt into our row
        else:
            write_whole(self.path, self._read()[: index.size] + added, replace=True)
        self._take_in(added, self._stamp())

    def rewrite(self, changed: Sequence[DatabaseRow]) -> None:
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
