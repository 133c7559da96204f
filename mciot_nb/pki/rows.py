"""The rows of database.txt, as openssl writes them (index.txt of its ca man page): parsed, checked, written.

A row has six fields with tabs between them: status, expiry, revocation, serial number, file, subject.
"""

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from mciot_nb.errors import OnboardingError, fault
from mciot_nb.pki.files import data_table

#: openssl's reasons for a revocation, each with the word that cryptography has for it (RFC 5280, section 5.3.1). Three
#: bear an argument, which the table names as openssl's ca man page does.
REASONS = {row["word"]: row["reason"] for row in data_table("reasons.csv")}
_BY_LOWER_CASE = {word.lower(): word for word in REASONS}

_TIME = re.compile(r"(?:\d\d)?\d{12}Z", re.ASCII)
_CLOCK = re.compile(r"(?:[01]\d|2[0-3])(?:[0-5]\d){2}Z", re.ASCII)
_UTC_TIME = len("YYMMDDHHMMSSZ")
_LONGEST_COMMENT = 511  # bytes: openssl takes what is behind for a row
_REFUSED = ", so that openssl refuses the whole file"


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

    def __str__(self) -> str:
        revocation = ",".join(filter(None, [write_time(self.revoked) if self.revoked else "", self.reason]))
        serial = hex_serial(self.serial)
        return "\t".join((self.status, write_time(self.expires), revocation, serial, self.file, self.subject))


@dataclass(frozen=True)
class Columns:
    """Many rows, field by field: a hundred thousand are parsed in a tenth of a second."""

    status: Sequence[str]
    expires: Sequence[str]
    revocation: Sequence[str]
    serial: Sequence[int]
    file: Sequence[str]
    subject: Sequence[str]

    def row(self, at: int) -> DatabaseRow:
        """Return the row at an index."""
        time, _, reason = self.revocation[at].partition(",")
        revoked, expires = read_time(time) if time else None, read_time(self.expires[at])
        return DatabaseRow(self.status[at], expires, revoked, reason, self.serial[at], self.file[at], self.subject[at])


def parse_rows(text: str) -> Columns:
    """Parse and check rows, without comments and a torn last line. Raises: OnboardingError: BAD_DATABASE."""
    lines = text[: text.rfind("\n") + 1]
    if "#" in lines:
        lines = "".join(f"{line}\n" for line in lines.split("\n")[:-1] if not _is_comment(line))
    try:
        columns = _split(lines)
        if len(set(columns.serial)) == len(columns.serial):
            return columns
    except ValueError:
        pass
    raise _first_problem(text)


def _is_comment(line: str) -> bool:
    return line.startswith("#") and len(line.encode()) < _LONGEST_COMMENT


def _first_problem(text: str) -> OnboardingError:
    """Return what is wrong with the first bad line, by splitting them one by one."""
    seen: set[int] = set()
    for number, line in enumerate(text.split("\n")[:-1], 1):
        if _is_comment(line):
            continue
        try:
            serials = _split(f"{line}\n").serial
            if not seen.isdisjoint(serials):
                raise ValueError(f"the serial {hex_serial(serials[0])} is there twice{_REFUSED}")
        except ValueError as error:
            return fault("BAD_DATABASE.row", number=number, error=error)
        seen.update(serials)
    return OnboardingError("this is not a signing database that openssl would read: put it back.", "BAD_DATABASE")


def _split(lines: str) -> Columns:
    """Split rows into columns and check these: a value that many rows share is looked at once.

    Raises: ValueError: if one is not as openssl writes it; where ``lines`` is one line, it says why, and whether
    openssl refuses the whole file. Where it does not, it misreads the row: it takes a carriage return for a part of the
    subject, a letter of a serial for another than its capital, and a status that it does not know for no status.
    """
    # A newline stays before the status behind it, so that a row too short is not made up for by one too long.
    fields = f"\n{lines}".replace("\n", "\t\n").split("\t")[1:-1]
    starts, expires, revocations, serials, files, subjects = (fields[position::6] for position in range(6))
    statuses = set(starts)
    if len(fields) != 6 * lines.count("\n") or not all(start.startswith("\n") for start in statuses):
        raise ValueError(f"it has not six fields with tabs between them{_REFUSED}")
    if odd := statuses - {"\nV", "\nR", "\nE"}:
        is_marked = lines.startswith("\ufeff")
        what = "it begins with a byte order mark" if is_marked else f"its status is {odd.pop()[1:]!r}, not V, R or E"
        raise ValueError(f"{what} (openssl signs all the same)")
    if "\r" in lines:
        raise ValueError("it ends in a carriage return (CRLF; openssl signs all the same); save the file with LF alone")
    if "\0" in lines or ("\\" in lines and "\\\t" in lines):
        raise ValueError("it has a zero byte, or a backslash before a tab")
    if [start == "\nR" for start in starts] != list(map(bool, revocations)):
        raise ValueError(f"a revocation date belongs to a revoked row (R), and to no other{_REFUSED}")
    if any(length % 2 or not length for length in set(map(len, serials))) or re.search("[^0-9A-F]", "".join(serials)):
        theirs = " (openssl takes it)" if re.fullmatch("-?([0-9A-Fa-f]{2})+", serials[0]) else _REFUSED
        raise ValueError(f"its serial {serials[0]!r} is not upper-case hexadecimal of even length{theirs}")
    revoked = list(filter(None, revocations))
    for rest in {text[_UTC_TIME:] for text in revoked}:
        if rest and not rest.startswith(","):
            time = revoked[0].partition(",")[0]
            raise ValueError(f"{time!r} is not a time of the form YYMMDDHHMMSSZ, with two digits for the year")
        if rest:
            split_reason(rest[1:])
    _check_times([text[:_UTC_TIME] for text in revoked])
    _check_times(expires)
    return Columns([start[1] for start in starts], expires, revocations, [int(s, 16) for s in serials], files, subjects)


def _check_times(times: Iterable[str]) -> None:
    """Check times of the database. Raises: ValueError: if one is none."""
    if all(map(_CLOCK.fullmatch, {time[-7:] for time in times})):
        times = {time[:-7]: time for time in times}.values()  # then one of each day is enough
    for time in times:
        read_time(time)


def split_reason(reason: str) -> tuple[str, str]:
    """Return a reason's word in openssl's spelling, and its argument. Raises: ValueError: if openssl refuses it."""
    word, _, argument = reason.partition(",")
    if word.lower() not in _BY_LOWER_CASE:
        raise ValueError(f"there is no reason {word!r}; use one of {', '.join(REASONS)}")
    known = _BY_LOWER_CASE[word.lower()]
    if known in ("keyTime", "CAkeyTime"):
        if not re.fullmatch(r"\d{14}Z", argument, re.ASCII):
            raise ValueError(f"{known} has a time, such as {known},20261123120000Z")
        read_time(argument)
    elif known != "holdInstruction":  # openssl's alone; RFC 5280 has dropped it
        argument = ""
    return known, argument


def hex_serial(serial: int) -> str:
    """Return a serial number as openssl's files hold it: upper-case hexadecimal of even length."""
    digits = f"{serial:X}"
    return digits if len(digits) % 2 == 0 else f"0{digits}"


def read_time(text: str) -> datetime:
    """Parse UTCTime or GeneralizedTime (RFC 5280, section 4.1.2.5). Raises: ValueError: if ``text`` is neither."""
    if _TIME.fullmatch(text):
        full = with_century(text)
        month, day, hour, minute, second = (int(full[position : position + 2]) for position in range(4, 14, 2))
        with suppress(ValueError):
            return datetime(int(full[:4]), month, day, hour, minute, second, tzinfo=UTC)
    raise ValueError(f"{text!r} is not a time of the form YYMMDDHHMMSSZ")


def with_century(text: str) -> str:
    """Return a time of the database with all four digits of its year."""
    if len(text) == _UTC_TIME:
        return ("19" if text[:2] >= "50" else "20") + text
    return text


def write_time(time: datetime) -> str:
    """Return a time as the database holds it: with two digits of the year from 1950 to 2049, else with four."""
    year = f"{time:%y}" if 1950 <= time.year < 2050 else f"{time.year:04}"
    return f"{year}{time:%m%d%H%M%SZ}"


def common_name_of(subject: str) -> str:
    r"""Return the common name in openssl's one-line form, ``\xHH`` and ``\/`` resolved; empty where there is none."""
    if "\\" not in subject:
        return subject.partition("/CN=")[2].partition("/")[0]
    match = re.search(r"(?<!\\)/CN=((?:\\.|[^/\\])*)", subject)
    text = re.sub(r"\\([/+])", r"\1", match[1] if match else "")
    return decoded(text)


def decoded(text: str) -> str:
    r"""Return ``text`` with the letters that openssl writes as ``\xHH``, the bytes of their UTF-8."""
    return re.sub(rb"\\x([0-9A-F]{2})", lambda byte: bytes([int(byte[1], 16)]), text.encode()).decode(errors="replace")
