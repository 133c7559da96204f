"""What stands between a request and a signature: every check that openssl makes, and those that it leaves out."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509

from mciot_nb.errors import OnboardingError
from mciot_nb.pki.config import CaConfig, is_yes
from mciot_nb.pki.database import SigningDatabase
from mciot_nb.pki.extensions import build_extensions
from mciot_nb.pki.names import oneline, readable
from mciot_nb.pki.policy import check_request, signed_subject
from mciot_nb.pki.rows import Row, hex_serial

#: A hundred years: whoever asks for more has mistyped.
LONGEST_DAYS = 36500
#: The last year in which something may begin, so that its end can still be written.
LAST_YEAR = 9898


@dataclass(frozen=True)
class Issuer:
    """Who signs, and by which rules."""

    config: CaConfig
    certificate: x509.Certificate


def moment(at: datetime | None) -> datetime:
    """Give ``at``, or now, in UTC and whole seconds, as certificates and databases have it.

    Raises OnboardingError for a time that no certificate can state.
    """
    try:
        time = (at or datetime.now(UTC)).astimezone(UTC).replace(microsecond=0)
    except (OverflowError, ValueError):
        time = datetime.min.replace(tzinfo=UTC)
    if not 1950 <= time.year <= LAST_YEAR:
        raise OnboardingError(f"A certificate states times from 1950 to {LAST_YEAR}: set at= so.", "BAD_TIME")
    return time


def end_of(begin: datetime, days: int, what: str = "A certificate") -> datetime:
    """Give the end of what begins at ``begin``; raises OnboardingError where ``days`` make no sense."""
    if not 1 <= days <= LONGEST_DAYS:
        raise OnboardingError(f"{what} is valid for 1 to {LONGEST_DAYS} days, not {days}: ask for that.", "BAD_DAYS")
    return begin + timedelta(days=days)


def end_below(issuer: x509.Certificate, begin: datetime, days: int, what: str = "A certificate") -> datetime:
    """Give the end of what ``issuer`` signs at ``begin``.

    Raises OnboardingError where ``days`` make no sense (BAD_DAYS), or are more than the issuer has left (CA_EXPIRED,
    OUTLIVES_CA).
    """
    end, last = end_of(begin, days), issuer.not_valid_after_utc
    if last <= begin:
        raise OnboardingError(f"The CA's certificate expired on {last:%Y-%m-%d}: make a new CA.", "CA_EXPIRED")
    if end > last:
        left = (last - begin).days
        raise OnboardingError(
            f"{what} would outlive its CA, which is valid until {last:%Y-%m-%d %H:%M} UTC: "
            + (f"ask for {left} days or fewer." if left else "make a new CA."),
            "OUTLIVES_CA",
        )
    return end


def days_below(issuer: x509.Certificate, begin: datetime, at_most: int) -> int:
    """Give ``at_most``, or the days that ``issuer`` has left if they are fewer; never less than one."""
    return max(1, min(at_most, (issuer.not_valid_after_utc - begin).days))


def prepare(
    issuer: Issuer, csr: x509.CertificateSigningRequest, section: str, days: int, begin: datetime
) -> tuple[x509.Name, x509.CertificateBuilder]:
    """Check a request, and give the subject and everything to be signed but the serial number.

    Raises OnboardingError for a request that is bad, that the policy refuses, or that asks for more than the issuer
    has.
    """
    check_request(csr)
    own, key = issuer.certificate, csr.public_key()
    subject = signed_subject(issuer.config, csr.subject, own.subject)
    end = end_below(own, begin, days, f"The certificate of {readable(subject)}")
    builder = certificate_builder(own.subject, subject, begin, end).public_key(key)
    for extension in build_extensions(issuer.config, section, key, own):
        _refuse_beyond_path_length(own, extension.value)
        builder = builder.add_extension(extension.value, extension.critical)
    return subject, builder


def certificate_builder(
    issuer: x509.Name, subject: x509.Name, begin: datetime, end: datetime
) -> x509.CertificateBuilder:
    """Begin a certificate with its names and times."""
    builder = x509.CertificateBuilder().issuer_name(issuer).subject_name(subject)
    return builder.not_valid_before(begin).not_valid_after(end)


def _refuse_beyond_path_length(issuer: x509.Certificate, value: x509.ExtensionType) -> None:
    try:
        own = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return
    if isinstance(value, x509.BasicConstraints) and value.ca and own.path_length == 0:
        raise OnboardingError(
            f"{readable(issuer.subject)} has path length 0, so it may sign devices, but no further CA: "
            "let the CA above it sign.",
            "PATH_LENGTH",
        )


def must_be_unique(database: SigningDatabase, config: CaConfig) -> bool:
    """Whether a subject has one valid certificate at most: ``unique_subject``, of the database's own or else here."""
    own = database.unique_subject
    return is_yes(config.optional("unique_subject") or "yes") if own is None else own


def refuse_second(database: SigningDatabase, config: CaConfig, subjects: Sequence[x509.Name]) -> None:
    """Raise OnboardingError where a subject has a valid certificate already, or stands twice in the batch.

    Unless subjects need not be unique. Only while the database is ``locked`` does the answer last.
    """
    if not must_be_unique(database, config):
        return
    database.index().refuse_doubles()
    taken, seen = database.index().valid, set[str]()
    for subject in map(oneline, subjects):
        if subject in taken:
            raise OnboardingError(
                f"There is already a certificate for {subject}, with serial {hex_serial(taken[subject])}: revoke that "
                "one first (or call update_database(), if it has expired), or request another subject.",
                "SUBJECT_TAKEN",
            )
        if subject and subject in seen:
            raise OnboardingError(f"Two of the requests are for {subject}: give each its own.", "SUBJECT_TAKEN")
        seen.add(subject)


def row_of(certificate: x509.Certificate) -> Row:
    """Give the row of a certificate that was just signed; openssl writes the serial for an empty subject."""
    subject = oneline(certificate.subject) or hex_serial(certificate.serial_number)
    return Row("V", certificate.not_valid_after_utc, None, "", certificate.serial_number, "unknown", subject)
