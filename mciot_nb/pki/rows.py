"""One row of ``database.txt``, as openssl's ``ca`` command reads and writes it, and many of them at once.

A row is ``status⇥expiry⇥revocation⇥SERIAL⇥file⇥subject⏎``: six fields, tabs between them, a newline behind the last.
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import itemgetter
from typing import NoReturn, Self

from cryptography import x509

from mciot_nb.errors import OnboardingError

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
class Row:
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

    def rows(self) -> Iterator[Row]:
        """Give them row by row."""
        return itertools.starmap(Row.of, zip(*vars(self).values(), strict=True))


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
    """Check what `Row.parse` checks, for all rows in one go: each thing once that many rows share."""
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
            row = Row.parse(line)
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
