"""Revoking, expiring, and the certificate revocation list, as ``openssl ca`` does these (RFC 5280, section 5)."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat import asn1

from mciot_nb.errors import OnboardingError
from mciot_nb.pki.chain import is_issued_by
from mciot_nb.pki.database import LARGEST_SERIAL, SigningDatabase
from mciot_nb.pki.files import read_file
from mciot_nb.pki.names import readable
from mciot_nb.pki.rows import REASONS, DatabaseRow, check_reason, hex_serial, hold_instruction, read_time, reason_word
from mciot_nb.pki.signing import row_of

#: The extension of a CRL entry that says what to do while a certificate is on hold (RFC 3280, section 5.3.2).
HOLD_INSTRUCTION = x509.ObjectIdentifier("2.5.29.23")


def revoke(
    database: SigningDatabase, issuer: x509.Certificate, serial: int | x509.Certificate, reason: str, at: datetime
) -> DatabaseRow:
    """Mark the row of a certificate as revoked, and return it; a certificate that the database lost gets one.

    Caller must hold the lock. Raises: OnboardingError: BAD_REASON for a reason that openssl does not know, BAD_TIME,
    NOT_OURS if ``issuer`` did not sign the certificate, NO_ROW, or REVOKED if it is revoked already.
    """
    try:
        reason = check_reason(reason) if reason else ""
    except ValueError as error:
        raise OnboardingError(f"This is no reason for a revocation: {error}.", "BAD_REASON") from None
    if not 1950 <= at.year < 2050:
        raise OnboardingError("openssl's database takes revocations from 1950 to 2049 only: set at= so.", "BAD_TIME")
    if not isinstance(serial, int | x509.Certificate):
        raise OnboardingError(
            f"{serial!r} is no serial number: the table shows them in hexadecimal, so 1000 is 0x1000 here.", "NO_ROW"
        )
    certificate = None if isinstance(serial, int) else serial
    if certificate and not is_issued_by(certificate, issuer):
        raise OnboardingError(
            f"The certificate of {readable(certificate.subject)} was signed by {readable(certificate.issuer)}, not by "
            "this CA: let that one revoke it.",
            "NOT_OURS",
        )
    number = serial if isinstance(serial, int) else serial.serial_number
    row = database.find(number)
    if row is None and certificate:
        database.record([revoked := replace(row_of(certificate), status="R", revoked=at, reason=reason)])
        return revoked
    if row is None:
        raise OnboardingError(
            f"There is no certificate with serial {hex_serial(number)} in {database.path}: look its number up there, "
            "and mind that it stands there in hexadecimal (1000 is 0x1000).",
            "NO_ROW",
        )
    _check_revocable(database, row, certificate)
    database.rewrite([revoked := replace(row, status="R", revoked=at, reason=reason)])
    return revoked


def _check_revocable(database: SigningDatabase, row: DatabaseRow, certificate: x509.Certificate | None) -> None:
    number = hex_serial(row.serial)
    if certificate and row.subject != row_of(certificate).subject:
        raise OnboardingError(
            f"{database.path} has serial {number} for {row.subject}, and the certificate is that of "
            f"{readable(certificate.subject)}: find out which of them is right.",
            "NOT_OURS",
        )
    if row.status == "R":
        raise OnboardingError(
            f"The certificate {number}, {row.subject}, is revoked already, since {row.revoked:%Y-%m-%d}: "
            "nothing is left to do but update_crl().",
            "REVOKED",
        )


def expire(database: SigningDatabase, at: datetime) -> list[DatabaseRow]:
    """Mark as expired the valid rows whose time has come by ``at``, and return them. Caller must hold the lock."""
    due = [row for row in database.rows() if row.status == "V" and row.expires <= at]
    expired = [replace(row, status="E") for row in due]
    if expired:
        database.rewrite(expired)
    return expired


def crl_builder(
    issuer: x509.Name, rows: Sequence[DatabaseRow], begin: datetime, end: datetime
) -> x509.CertificateRevocationListBuilder:
    """Begin a revocation list with an entry for each revoked row, ordered by serial; extensions and signature follow.

    Raises: OnboardingError: BAD_DATABASE for a serial that no list can hold.
    """
    revoked = sorted((row for row in rows if row.status == "R"), key=lambda row: row.serial)
    if odd := [row for row in revoked if not 0 < row.serial < LARGEST_SERIAL]:
        raise OnboardingError(
            f"The serial {hex_serial(odd[0].serial)} can't stand in a revocation list, for it is zero or longer than "
            "20 bytes: take that row out of the database.",
            "BAD_DATABASE",
        )
    # Entries added one by one would copy the list each time.
    builder = x509.CertificateRevocationListBuilder(revoked_certificates=[_crl_entry(row) for row in revoked])
    return builder.issuer_name(issuer).last_update(begin).next_update(end)


def _crl_entry(row: DatabaseRow) -> x509.RevokedCertificate:
    """Return the list's entry for a revoked row: its serial, when, and why if a reason was given."""
    assert row.revoked
    builder = x509.RevokedCertificateBuilder().serial_number(row.serial).revocation_date(row.revoked)
    word, _, argument = row.reason.partition(",")
    known = reason_word(word) if word else ""
    if known:
        builder = builder.add_extension(x509.CRLReason(x509.ReasonFlags(REASONS[known])), critical=False)
    if known in ("keyTime", "CAkeyTime"):
        builder = builder.add_extension(x509.InvalidityDate(read_time(argument).replace(tzinfo=None)), critical=False)
    elif known == "holdInstruction":
        instruction = x509.UnrecognizedExtension(HOLD_INSTRUCTION, asn1.encode_der(hold_instruction(argument)))
        builder = builder.add_extension(instruction, critical=False)
    return builder.build()


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
    except ValueError:
        raise OnboardingError(f"{path} is no revocation list in PEM form: make it anew.", "BAD_PEM") from None
