"""One row of ``database.txt``, as openssl's ``ca`` command reads and writes it, and many of them at once.

A row is ``status⇥expiry⇥revocation⇥SERIAL⇥file⇥subject⏎``: six fields, tabs between them, a newline behind the last.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import compress
from operator import itemgetter
from typing import Self

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
_BY_LOWER_CASE = {word.lower(): word for word in REASONS}

_TIME = re.compile(r"(?:\d\d)?\d{12}Z", re.ASCII)
_PARTS = ((-7,), (-7, -5), (-5, -3), (-3, None))  # of YYMMDDHHMMSSZ: the day, hour, minute, second with its Z
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
        if subject.endswith("\r"):
            raise ValueError("it ends as lines do on Windows (CRLF); save the file with LF alone")
        if bool(revocation) != (status == "R"):
            raise ValueError("a revocation date belongs to a revoked row (R), and to no other")
        if not re.fullmatch(r"(?:[0-9A-F]{2})+", serial):
            raise ValueError(f"its serial {serial!r} is not upper-case hexadecimal of even length")
        revoked, _, reason = revocation.partition(",")
        if reason:
            check_reason(reason)
        return cls(
            status, read_time(expires), read_time(revoked) if revoked else None, reason, int(serial, 16), file, subject
        )

    def __str__(self) -> str:
        revocation = ",".join(filter(None, [write_time(self.revoked) if self.revoked else "", self.reason]))
        return "\t".join(
            (self.status, write_time(self.expires), revocation, hex_serial(self.serial), self.file, self.subject)
        )


@dataclass(frozen=True)
class Columns:
    """Many rows, field by field, as text: a hundred thousand are looked through in a tenth of a second."""

    status: Sequence[str]
    expires: Sequence[str]
    revocation: Sequence[str]
    serial: Sequence[str]
    file: Sequence[str]
    subject: Sequence[str]


def split_columns(text: str, first_line: int = 1) -> Columns:
    """Split the lines of a database into its columns, and check them all, comments left out.

    Raises OnboardingError (BAD_DATABASE) for the first line that openssl would refuse, counted from ``first_line``.
    """
    lines = text[: text.rfind("\n") + 1]
    if "#" in lines:
        lines = re.sub(r"(?m)^#.*\n", "", lines)
    fields = lines.replace("\n", "\t").split("\t")[:-1]
    columns = Columns(*(fields[position::6] for position in range(6)))
    if len(fields) != 6 * lines.count("\n") or "\r" in lines or not _all_good(columns):
        _name_the_bad_line(text, first_line)
    return columns


def _all_good(columns: Columns) -> bool:
    """Check what `Row.parse` checks, for all rows in one go: each thing once that many rows share."""
    revocations = list(filter(None, columns.revocation))
    try:
        _check_times(columns.expires)
        _check_times([text.partition(",")[0] for text in revocations])
        for reason in {text.partition(",")[2] for text in revocations} - {""}:
            check_reason(reason)
    except ValueError:
        return False
    return (
        set(columns.status) <= {"V", "R", "E"}
        and set(compress(columns.status, columns.revocation)) <= {"R"}
        and len(revocations) == columns.status.count("R")
        and not any(length % 2 or not length for length in set(map(len, columns.serial)))
        and _UPPER_CASE_HEX.fullmatch("".join(columns.serial)) is not None
    )


def _check_times(times: Sequence[str]) -> None:
    """Read every day, hour, minute and second that stands in ``times``; raises ValueError where one is none."""
    days, hours, minutes, seconds = (set(map(itemgetter(slice(*part)), times)) for part in _PARTS)
    for time in [f"{day}000000Z" for day in days] + [f"000101{hour}0000Z" for hour in hours]:
        read_time(time)
    for time in [f"00010100{minute}00Z" for minute in minutes] + [f"0001010000{second}" for second in seconds]:
        read_time(time)


def _name_the_bad_line(text: str, first_line: int) -> None:
    for number, line in enumerate(text.split("\n")[:-1], first_line):
        if not line.startswith("#"):
            try:
                Row.parse(line)
            except ValueError as error:
                raise OnboardingError(
                    f"line {number} is no row of a signing database, so openssl would refuse the whole file: {error}. "
                    "Correct or remove that line.",
                    "BAD_DATABASE",
                ) from None


def check_reason(reason: str) -> str:
    """Give the reason in openssl's spelling, with its argument; raises ValueError where openssl does not know it."""
    word, _, argument = reason.partition(",")
    known = _BY_LOWER_CASE.get(word.lower())
    if known is None:
        raise ValueError(f"there is no reason {word!r}; use one of {', '.join(REASONS)}")
    if known in ("keyTime", "CAkeyTime"):
        if not re.fullmatch(r"\d{14}Z", argument, re.ASCII):
            raise ValueError(f"{known} bears a time, such as {known},20261123120000Z")
        read_time(argument)
    if known == "holdInstruction" and not argument:
        raise ValueError("holdInstruction bears an instruction, such as holdInstruction,holdInstructionReject")
    return f"{known},{argument}" if argument else known


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
    if len(text) == len("YYMMDDHHMMSSZ"):
        return ("19" if text[:2] >= "50" else "20") + text
    return text


def write_time(time: datetime) -> str:
    """Write a time as the database holds it: with four digits of the year from 2050 on."""
    return time.strftime("%Y%m%d%H%M%SZ" if time.year >= 2050 else "%y%m%d%H%M%SZ")


def common_name_of(subject: str) -> str:
    r"""Take the common name out of openssl's one-line form, ``\xHH`` and ``\/`` resolved; empty where there is none."""
    if "\\" not in subject:
        return subject.partition("/CN=")[2].partition("/")[0]
    match = re.search(r"(?<!\\)/CN=((?:\\.|[^/\\])*)", subject)
    text = re.sub(r"\\([/+])", r"\1", match[1] if match else "")
    return re.sub(rb"\\x([0-9A-F]{2})", lambda byte: bytes([int(byte[1], 16)]), text.encode()).decode(errors="replace")
