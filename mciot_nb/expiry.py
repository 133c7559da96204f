"""What expires next: in a workspace, in any folder, in a tenant; as a table, and for a calendar."""

import uuid
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
from cryptography import x509

from mciot_nb.connect.tenant import Tenant
from mciot_nb.errors import OnboardingError
from mciot_nb.pki.chain import fingerprint, is_ca, read_certificates
from mciot_nb.pki.crl import read_crl
from mciot_nb.pki.database import SigningDatabase
from mciot_nb.pki.files import DATA, write_whole
from mciot_nb.pki.names import name_of, short_name

#: Folders of what is in no use: what was replaced, and cases that are wrong on purpose.
_UNUSED = ("earlier", "laboratory")
_ESCAPES = str.maketrans({"\\": r"\\", ";": r"\;", ",": r"\,", "\n": r"\n", "\r": None})  # RFC 5545, section 3.3.11


def expiring(source: Any, *, at: datetime | None = None) -> pd.DataFrame:
    """Return what expires next, each certificate and revocation list of a folder, a `Workspace` or a `Tenant`.

    Not what is revoked, archived or in a keystore. Example: ``expiring(workspace).head()``.
    """
    if isinstance(source, Tenant):
        listed = source.trusted_certificates.list()
        found = {one.fingerprint: (one.name, "trusted certificate", one.not_after, "tenant") for one in listed}
    else:
        found = dict(_files(Path(getattr(source, "folder", source))))
    frame = pd.DataFrame(found.values(), index=[*found], columns=["name", "kind", "expires", "where"])
    frame["expires"] = pd.to_datetime(frame["expires"], utc=True)
    frame.insert(2, "days", [-(((at or datetime.now(UTC)) - end) // timedelta(days=1)) for end in frame["expires"]])
    return frame.sort_values(["days", "name", "kind", "expires"])


def _files(folder: Path) -> Iterator[tuple[str, tuple[str, str, datetime, str]]]:
    """Yield a row for each that is in use, under its fingerprint; of several files the one that says most is last."""
    revoked = set[tuple[x509.Name, int]]()
    for path in folder.rglob("database.txt"):
        with suppress(OnboardingError):
            issuer = name_of(read_certificates(next(path.parent.glob("*Cert.pem"), path))[0])
            revoked |= {(issuer, row.serial) for row in SigningDatabase(path, None).rows() if row.status == "R"}
    paths = [path for path in folder.rglob("*") if path.suffix in (".pem", ".crt", ".cer") and path.is_file()]
    for path in sorted(paths, key=lambda path: (not path.name[0].isdigit(), -len(str(path)), path)):
        where = path.relative_to(folder)
        if any(part[0] == "." or part in _UNUSED for part in where.parts):
            continue
        with suppress(OnboardingError):
            for one in read_certificates(path):
                if (name_of(one, "issuer"), one.serial_number) not in revoked:
                    kind, end = "CA" if is_ca(one) else "certificate", one.not_valid_after_utc
                    yield fingerprint(one), (short_name(name_of(one)), kind, end, where.as_posix())
        with suppress(OnboardingError):
            if until := (crl := read_crl(path)).next_update_utc:
                yield str(path), (short_name(crl.issuer), "CRL", until, where.as_posix())


def calendar(frame: pd.DataFrame, path: Path) -> Path:
    """Write an ``.ics`` file (RFC 5545) with a reminder before each end; imported again, an entry replaces itself.

    Example: ``calendar(expiring(workspace), workspace.folder / "expiring.ics")``.
    """
    (text, event, tail), now = (DATA / "calendar.txt").read_text("utf-8").split("\n\n"), datetime.now(UTC)
    for key, row in zip(frame.index, frame.to_dict("records"), strict=True):
        values = {name: str(row[name]).translate(_ESCAPES) for name in ("name", "kind", "where")}
        times = {name: f"{time:%Y%m%dT%H%M%SZ}" for name, time in (("stamp", now), ("end", row["expires"]))}
        before = 7 if row["kind"] == "CRL" else 30
        text += "\n" + event.format(uid=uuid.uuid5(uuid.NAMESPACE_URL, key), before=before, **times, **values)
    # A line has 75 bytes at most, and a character up to four.
    lines = [[line[at : at + 18] for at in range(0, len(line), 18)] for line in f"{text}\n{tail}".splitlines()]
    folded = ["".join(line) if len("".join(line).encode()) <= 75 else "\r\n ".join(line) for line in lines]
    write_whole(path, "".join(f"{line}\r\n" for line in folded).encode(), replace=True)
    return path
