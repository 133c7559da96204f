"""Nothing is ever deleted: what no longer fits moves to ``earlier/1`` (2, 3 …) in the workspace, and may come back."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cryptography import x509

from mciot_nb.errors import OnboardingError
from mciot_nb.pki.chain import is_issued_by, read_certificates
from mciot_nb.pki.config import CaConfig
from mciot_nb.pki.database import SigningDatabase
from mciot_nb.pki.files import disk_problem
from mciot_nb.pki.keys import read_request
from mciot_nb.pki.names import DistinguishedName, readable


def move_aside(workspace: Path, paths: list[Path], what: str) -> Path:
    """Move files and folders of ``workspace`` to the next free folder in ``earlier``, which it gives, and say so."""
    numbers = [int(folder.name) for folder in (workspace / "earlier").glob("*") if folder.name.isdecimal()]
    target = workspace / "earlier" / str(max(numbers, default=0) + 1)
    there = [path for path in paths if path.exists()]
    for path in there:
        new = target / path.relative_to(workspace)
        try:
            new.parent.mkdir(parents=True, exist_ok=True)
            path.rename(new)
        except OSError as error:  # on Windows, a terminal that stands in the folder
            raise disk_problem(path, error) from None
    if there:
        print(f"Moved {what} to {target.relative_to(workspace.parent).as_posix()}.")
    return target


def is_revoked(config: CaConfig, certificate: x509.Certificate) -> bool:
    """Whether the signing database of ``config`` says that a certificate is revoked, so that it must not come back."""
    row = SigningDatabase.of(config).find(certificate.serial_number)
    return row is not None and row.status == "R"


def mention_revoked(config: CaConfig, certificate: x509.Certificate) -> None:
    """Say so where a certificate that stays in its place is revoked: it can be looked at, and is refused."""
    if is_revoked(config, certificate):
        print(
            f"Mind that the certificate of {readable(certificate.subject)} is revoked: for a new one, submit another "
            "kind of key or other days."
        )


def find_signed(
    workspace: Path,
    request: Path,
    certificate: str,
    subject: DistinguishedName,
    issuer: x509.Certificate,
    fits: Callable[[x509.Certificate], bool],
    also: tuple[str, ...] = (),
) -> Path | None:
    """Look in ``earlier`` for a folder whose ``request`` asked for ``subject`` and was signed by ``issuer``.

    ``request`` is the file's path within the workspace, ``certificate`` the name of what was signed, beside it, which
    must be one that ``fits``; the files ``also`` must be there too.
    """
    for found in (workspace / "earlier").glob(f"*/{request.as_posix()}"):
        if not all((found.parent / name).exists() for name in also):
            continue
        with suppress(OnboardingError):  # what can't be read can't be taken back
            signed = read_certificates(found.with_name(certificate))[0]
            mine = is_issued_by(signed, issuer) and fits(signed)
            if mine and DistinguishedName.from_x509(read_request(found).subject) == subject:
                return found.parent
    return None
