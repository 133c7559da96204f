"""Revoking, expiring, and the certificate revocation list, as ``openssl ca`` does these (RFC 5280, section 5)."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from cryptography import x509

from mciot_nb.errors import OnboardingError, fault
from mciot_nb.pki.chain import is_issued_by
from mciot_nb.pki.database import LARGEST_SERIAL, SigningDatabase
from mciot_nb.pki.files import read_file
from mciot_nb.pki.names import name_of, readable
from mciot_nb.pki.rows import REASONS, DatabaseRow, hex_serial, read_time, split_reason
from mciot_nb.pki.signing import row_of


def revoke(
    database: SigningDatabase, issuer: x509.Certificate, serial: int | x509.Certificate, reason: str, at: datetime
) -> DatabaseRow:
    """Mark the row of a certificate as revoked, and return it; a certificate that the database lost gets one.

    Caller must hold the lock. Raises: OnboardingError: BAD_REASON for a reason that openssl does not know, BAD_TIME,
    NOT_OURS if ``issuer`` did not sign the certificate, NO_ROW, or REVOKED if it is revoked already.
    """
    try:
        reason = ",".join(filter(None, split_reason(reason))) if reason else ""
        if reason.startswith("holdInstruction"):
            raise ValueError("RFC 5280 has dropped holdInstruction; use certificateHold")
    except ValueError as error:
        raise OnboardingError(f"This is not a reason for a revocation: {error}.", "BAD_REASON") from None
    if not 1950 <= at.year < 2050:
        raise OnboardingError("openssl's database takes revocations from 1950 to 2049 only: set at= so.", "BAD_TIME")
    if not isinstance(serial, int | x509.Certificate):
        raise fault("NO_ROW.number", serial=serial)
    row, is_recorded = _row_to_revoke(database, issuer, serial)
    revoked = replace(row, status="R", revoked=at, reason=reason)
    (database.rewrite if is_recorded else database.record)([revoked])
    return revoked


def _row_to_revoke(
    database: SigningDatabase, issuer: x509.Certificate, serial: int | x509.Certificate
) -> tuple[DatabaseRow, bool]:
    """Return the row of a certificate, and whether it is in the database."""
    certificate, number = (None, serial) if isinstance(serial, int) else (serial, serial.serial_number)
    if certificate and not is_issued_by(certificate, issuer, unchecked=True):
        subject, signer = readable(name_of(certificate)), readable(name_of(certificate, "issuer"))
        raise fault("NOT_OURS.certificate", subject=subject, signer=signer)
    row, shown = database.find(number), hex_serial(number)
    if row is None and certificate:
        return row_of(certificate), False
    if row is None:
        raise fault("NO_ROW.serial", serial=shown, path=database.path)
    if certificate and row.subject != row_of(certificate).subject:
        holder = readable(name_of(certificate))
        raise fault("NOT_OURS.row", path=database.path, serial=shown, subject=row.subject, holder=holder)
    if row.status == "R":
        raise fault("REVOKED", serial=shown, subject=row.subject, date=row.revoked)
    return row, True


def revoked_entries(rows: Iterable[DatabaseRow]) -> list[x509.RevokedCertificate]:
    """Return a list's entries, ordered by serial. Raises: OnboardingError: BAD_DATABASE for one too long for it."""
    revoked = sorted((row for row in rows if row.status == "R"), key=lambda row: row.serial)
    if odd := [row for row in revoked if not 0 < row.serial < LARGEST_SERIAL]:
        raise fault("BAD_DATABASE", serial=hex_serial(odd[0].serial))
    entries = []
    for row in revoked:
        word, argument = split_reason(row.reason) if row.reason else ("", "")
        values: list[x509.ExtensionType] = [x509.CRLReason(x509.ReasonFlags(REASONS[word]))] if word else []
        if argument and word != "holdInstruction":  # what to do meanwhile: RFC 5280 has dropped that
            values.append(x509.InvalidityDate(read_time(argument).replace(tzinfo=None)))
        extensions = [x509.Extension(value.oid, False, value) for value in values]
        entries.append(x509.RevokedCertificateBuilder(row.serial, row.revoked, extensions).build())
    return entries


def unlisted(path: Path, revoked: set[int]) -> int:
    """Return how many of the serial numbers are not on the revocation list; all where it is missing or damaged."""
    try:
        return len(revoked - {entry.serial_number for entry in read_crl(path)})
    except OnboardingError:
        return len(revoked)


def read_crl(path: Path) -> x509.CertificateRevocationList:
    """Read a revocation list in PEM form. Raises: OnboardingError: if there is none or it is damaged."""
    pem = read_file(path, f"There is no revocation list {path}: make it with update_crl().")
    try:
        return x509.load_pem_x509_crl(pem)
    except (ValueError, x509.InvalidVersion):
        raise fault("BAD_PEM.crl", path=path) from None
