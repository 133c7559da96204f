"""database.txt and serial: the CA's memory of what it signed, in openssl's own format, so that both can take turns.

Every change is made under one lock, and is on the disk before it is reported. Only openssl itself knows no lock: let it
and the notebooks sign one after the other.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

from filelock import FileLock, Timeout

from mciot_nb.errors import OnboardingError
from mciot_nb.pki.files import disk_problem, read_file, write_whole

if TYPE_CHECKING:
    import pandas as pd

#: Seconds to wait for somebody else who is signing in the same directory.
LOCK_TIMEOUT = 30.0


@dataclass(frozen=True)
class Row:
    """One certificate that the CA signed. ``status`` is V (valid), R (revoked) or E (expired); times are UTC.

    ``subject`` is openssl's one-line form, ``/C=DE/CN=device``; ``reason`` openssl's word, empty where none was given.
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
        """Read one line of the database; raises ValueError where it is none."""
        status, expires, revocation, serial, file, subject = line.split("\t")
        if status not in ("V", "R", "E"):
            raise ValueError(status)
        revoked, _, reason = revocation.partition(",")
        return cls(
            status,
            _read_time(expires),
            _read_time(revoked) if revoked else None,
            reason,
            int(serial, 16),
            file,
            subject,
        )

    def __str__(self) -> str:
        revocation = ",".join(filter(None, [_write_time(self.revoked) if self.revoked else "", self.reason]))
        return "\t".join(
            (self.status, _write_time(self.expires), revocation, hex_serial(self.serial), self.file, self.subject)
        )


def hex_serial(serial: int) -> str:
    """Write a serial number as openssl's files hold it: upper-case hexadecimal of even length."""
    digits = f"{serial:X}"
    return digits if len(digits) % 2 == 0 else f"0{digits}"


def _read_time(text: str) -> datetime:
    """Read ASN.1's UTCTime (two-digit years up to 2049) or GeneralizedTime (RFC 5280, section 4.1.2.5)."""
    if len(text) == len("YYMMDDHHMMSSZ"):
        text = ("19" if text[:2] >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def _write_time(time: datetime) -> str:
    return time.strftime("%Y%m%d%H%M%SZ" if time.year >= 2050 else "%y%m%d%H%M%SZ")


@dataclass(frozen=True)
class SigningDatabase:
    """The rows of ``path`` (database.txt) and the next serial number in ``serial_path``."""

    path: Path
    serial_path: Path

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other writer of ours out; the lock file lies beside the CA's folder, not among openssl's."""
        folder = self.path.parent
        try:
            with FileLock(folder.parent / f".{folder.name}.lock", timeout=LOCK_TIMEOUT):
                yield
        except Timeout:
            raise OnboardingError(
                f"Somebody else has been signing in {folder} for {LOCK_TIMEOUT:.0f} seconds: wait and try again.",
                "LOCKED",
            ) from None

    def rows(self) -> list[Row]:
        """Read all rows. A last row without its newline was never finished: openssl passes over it, and so do we.

        Raises OnboardingError for a line that openssl would refuse.
        """
        rows = []
        for number, line in enumerate(self._read().split("\n")[:-1], 1):
            if line.startswith("#"):
                continue
            try:
                rows.append(Row.parse(line))
            except ValueError:
                raise OnboardingError(
                    f"{self.path}, line {number} is no row of a signing database, so openssl would refuse the whole "
                    "file: correct or remove that line.",
                    "BAD_DATABASE",
                ) from None
        return rows

    def _read(self) -> str:
        data = read_file(self.path, f"There is no signing database {self.path}: put it back.")
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise OnboardingError(f"{self.path} is no text: put the database back.", "BAD_DATABASE") from None

    @property
    def unique_subject(self) -> bool | None:
        """What ``database.txt.attr`` says, which overrides the configuration; None where openssl has made none."""
        try:
            text = self.path.with_name(f"{self.path.name}.attr").read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        return not re.search(r"(?m)^\s*unique_subject\s*=\s*[nNfF0]", text)

    def append(self, row: Row) -> None:
        """Write one row behind the others, on the disk when this returns. Call it while `locked`."""
        try:
            with self.path.open("r+b") as file:
                data = file.read()
                file.seek(data.rfind(b"\n") + 1)
                file.truncate()  # a tail without newline would melt into our row
                file.write(f"{row}\n".encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise disk_problem(self.path, error) from None

    def reserve_serial(self, rows: list[Row], taken: Path) -> int:
        """Take the next serial number for good, and write the one behind it. Call it while `locked`.

        Numbers that have a row, or a certificate in the folder ``taken``, are passed over: a gap does no harm.
        """
        used = {row.serial for row in rows}
        serial = self._read_serial()
        while serial in used or (taken / f"{hex_serial(serial)}.pem").exists():
            serial += 1
        write_whole(self.serial_path, f"{hex_serial(serial + 1)}\n".encode(), replace=True)
        return serial

    def _read_serial(self) -> int:
        try:
            text = self.serial_path.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            text = ""
        except UnicodeDecodeError:
            text = "?"
        if not re.fullmatch(r"[0-9A-Fa-f]+", text):
            raise OnboardingError(
                f"{self.serial_path} must hold the next serial number in hexadecimal, such as 1000, but it holds "
                f"{text!r}: write a number that is higher than every serial in {self.path.name}.",
                "BAD_SERIAL",
            )
        return int(text, 16)

    def to_frame(self) -> "pd.DataFrame":
        """Give the rows as a table, in the file's order; ``serial`` is an int, times are UTC."""
        import pandas as pd  # here, because it takes half a second and signing needs no table

        columns = ["status", "expires", "revoked", "reason", "serial", "subject", "common_name", "file"]
        records = [vars(row) | {"common_name": common_name_of(row.subject)} for row in self.rows()]
        frame = pd.DataFrame(records, columns=columns)
        times = {name: pd.to_datetime(frame[name], utc=True) for name in ("expires", "revoked")}
        return frame.assign(**times).astype({"serial": object})


def common_name_of(subject: str) -> str:
    r"""Take the common name out of openssl's one-line form, ``\xHH`` and ``\/`` resolved; empty where there is none."""
    match = re.search(r"(?<!\\)/CN=((?:\\.|[^/\\])*)", subject)
    if not match:
        return ""
    text = re.sub(r"\\([/+])", r"\1", match[1])
    return re.sub(rb"\\x([0-9A-F]{2})", lambda byte: bytes([int(byte[1], 16)]), text.encode()).decode(errors="replace")
