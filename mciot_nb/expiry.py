"""What expires next: in a workspace, in any folder, in a tenant; as a table, and for a calendar."""

import uuid
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography import x509

from mciot_nb.connect.tenant import Tenant
from mciot_nb.errors import OnboardingError
from mciot_nb.pki.chain import fingerprint, is_ca, read_certificates
from mciot_nb.pki.crl import read_crl
from mciot_nb.pki.database import SigningDatabase
from mciot_nb.pki.files import DATA, write_whole
from mciot_nb.pki.names import name_of, short_name

if TYPE_CHECKING:
    import pandas as pd

#: Folders in which nothing is in use: what was replaced, and cases that are wrong on purpose.
_UNUSED = ("earlier", "laboratory")
#: What a calendar's text can't hold as it is (RFC 5545, section 3.3.11).
_ESCAPES = str.maketrans({"\\": r"\\", ";": r"\;", ",": r"\,", "\n": r"\n", "\r": None})


def expiring(source: Any, *, at: datetime | None = None) -> "pd.DataFrame":
    """Return what expires next, each certificate and revocation list of a folder, a `Workspace` or a `Tenant`.

    Revoked ones are left out, and what is archived or in the laboratory. Keystores, which take a password, are not
    opened. Example: ``expiring(workspace).head()``.
    """
    import pandas as pd

    if isinstance(source, Tenant):
        listed = source.trusted_certificates.list()
        found = {one.fingerprint: (one.name, "trusted certificate", one.not_after, "tenant") for one in listed}
    else:
        found = {key: row for key, *row in _files(Path(getattr(source, "folder", source)))}  # type: ignore[misc]
    frame = pd.DataFrame(found.values(), index=[*found], columns=["name", "kind", "expires", "where"])
    frame["expires"] = pd.to_datetime(frame["expires"], utc=True)
    frame.insert(2, "days", [-(((at or datetime.now(UTC)) - end) // timedelta(days=1)) for end in frame["expires"]])
    return frame.sort_values(["days", "name", "kind", "expires"])


def _files(folder: Path) -> Iterator[tuple[str, str, str, datetime, str]]:
    """Yield fingerprint, name, kind, end and file of what is in use; the best name of each certificate comes last."""
    paths = [path for path in folder.rglob("*") if path.suffix in (".pem", ".crt", ".cer") and path.is_file()]
    paths.sort(key=lambda path: (not path.name[0].isdigit(), -len(str(path)), path))  # a CA's copies first
    where = {path: path.relative_to(folder) for path in paths}
    revoked = set[tuple[x509.Name, int]]()
    for path in folder.rglob("database.txt"):
        with suppress(OnboardingError):
            issuer = name_of(read_certificates(next(path.parent.glob("*Cert.pem"), path))[0])
            revoked |= {(issuer, row.serial) for row in SigningDatabase(path, None).rows() if row.status == "R"}
    for path in (path for path in paths if not any(part[0] == "." or part in _UNUSED for part in where[path].parts)):
        with suppress(OnboardingError):
            for one in read_certificates(path):
                if (name_of(one, "issuer"), one.serial_number) not in revoked:
                    kind, end = "CA" if is_ca(one) else "certificate", one.not_valid_after_utc
                    yield fingerprint(one), short_name(name_of(one)), kind, end, where[path].as_posix()
        with suppress(OnboardingError):
            if end := (crl := read_crl(path)).next_update_utc:  # type: ignore[assignment]
                yield str(path), short_name(crl.issuer), "revocation list", end, where[path].as_posix()


def calendar(frame: "pd.DataFrame", path: Path) -> Path:
    """Write what `expiring` returned into an ``.ics`` file (RFC 5545), with a reminder before each end.

    Imported again, an entry replaces itself, for its UID stays the same.
    """
    (head, event, tail), now = (DATA / "calendar.txt").read_text("utf-8").split("\n\n"), datetime.now(UTC)
    for key, row in zip(frame.index, frame.to_dict("records"), strict=True):
        values = {name: str(row[name]).translate(_ESCAPES) for name in ("name", "kind", "where")}
        times = {"stamp": f"{now:%Y%m%dT%H%M%SZ}", "end": f"{row['expires']:%Y%m%dT%H%M%SZ}"}
        before = 7 if row["kind"] == "revocation list" else 30
        head += "\n" + event.format(uid=uuid.uuid5(uuid.NAMESPACE_URL, key), before=before, **times, **values)
    # A line has 75 bytes at most, and a character up to four.
    folded = [[line[at : at + 18] for at in range(0, len(line), 18)] for line in f"{head}\n{tail}".splitlines()]
    lines = ["".join(line) if len("".join(line).encode()) <= 75 else "\r\n ".join(line) for line in folded]
    write_whole(path, "".join(f"{line}\r\n" for line in lines).encode(), replace=True)
    return path
