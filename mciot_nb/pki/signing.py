"""What stands between a request and a signature, in the order in which `prepare` goes through it.

The request itself, the subject that the policy leaves, its uniqueness, the times, and the extensions: every check that
``openssl ca`` makes, and those that it leaves out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import NameOID

from mciot_nb.errors import OnboardingError
from mciot_nb.pki.chain import signature_fits
from mciot_nb.pki.config import CaConfig, is_yes, read_config
from mciot_nb.pki.database import SigningDatabase
from mciot_nb.pki.keys import SHORTEST_RSA, Request
from mciot_nb.pki.names import BY_OID, Field, label, name_of, oneline, readable
from mciot_nb.pki.rows import DatabaseRow, hex_serial

Attribute = x509.NameAttribute[str | bytes]

#: The string types in which openssl writes a subject today (RFC 5280, section 4.1.2.4).
_STRING_TYPES = ("UTF8String", "PrintableString", "IA5String")
#: openssl's words for the key usages, and cryptography's.
KEY_USAGES = {
    "digitalSignature": "digital_signature",
    "nonRepudiation": "content_commitment",
    "keyEncipherment": "key_encipherment",
    "dataEncipherment": "data_encipherment",
    "keyAgreement": "key_agreement",
    "keyCertSign": "key_cert_sign",
    "cRLSign": "crl_sign",
    "encipherOnly": "encipher_only",
    "decipherOnly": "decipher_only",
}
#: A hundred years: more is a typing error.
LONGEST_DAYS = 36500
#: The last year in which something may begin, so that its end can still be written.
LAST_YEAR = 9898


def prepare(
    config: CaConfig, issuer: x509.Certificate, csr: Request, section: str, days: int, begin: datetime
) -> tuple[x509.Name, x509.CertificateBuilder]:
    """Check a request; return its subject, and all but the serial number. Raises: OnboardingError: if refused."""
    check_request(csr)
    subject = signed_subject(config, csr.subject, issuer.subject)
    end = not_after_within(issuer, begin, days, f"The certificate of {readable(subject)}")
    made = build_extensions(config, section, csr.public_key(), issuer)
    return subject, x509.CertificateBuilder(issuer.subject, subject, csr.public_key(), None, begin, end, made)


def row_of(certificate: x509.Certificate) -> DatabaseRow:
    """Return the row of a certificate that was just signed; openssl writes the serial for an empty subject."""
    subject = oneline(name_of(certificate)) or hex_serial(certificate.serial_number)
    return DatabaseRow("V", certificate.not_valid_after_utc, None, "", certificate.serial_number, "unknown", subject)


# The request ----------------------------------------------------------------------------------------------------------


def subject_of(csr: Request) -> x509.Name:
    """Return a request's subject. Raises: OnboardingError: BAD_REQUEST if it can't be read."""
    try:
        return csr.subject
    except (ValueError, TypeError):  # cryptography reads it only now
        raise OnboardingError("The subject of the request can't be read: make it anew.", "BAD_REQUEST") from None


def check_request(csr: Request) -> None:
    """Refuse what openssl signs without a word too, as a short key. Raises: OnboardingError: BAD_REQUEST."""
    try:
        subject, key, valid = subject_of(csr), csr.public_key(), signature_fits(csr, csr)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # cryptography reads its parts only when asked
        raise OnboardingError("A part of the request can't be read: make it anew.", "BAD_REQUEST") from None
    if valid is None:
        problem = "is signed by a method that can't be checked here: make it anew, signed with SHA-256."
    elif not valid:
        problem = "was changed after it was made, or its key is not its own: make it anew."
    elif isinstance(key, rsa.RSAPublicKey) and key.key_size < SHORTEST_RSA:
        problem = f"has an RSA key of {key.key_size} bits, which is too weak: make one of {SHORTEST_RSA} or more."
    elif any(len(rdn) > 1 for rdn in subject.rdns):
        problem = "has several fields in one step of its name (a + between them): make it with one field a step."
    elif problems := [problem for attribute in subject if (problem := _string_problem(attribute))]:
        problem = f"{problems[0]}: make it anew, with string_mask = utf8only."
    else:
        return
    raise OnboardingError(f"The request of {readable(subject)} {problem}", "BAD_REQUEST")


def _string_problem(attribute: Attribute) -> str:
    string_type = attribute._type.name  # cryptography tells it by this private name only
    if string_type not in _STRING_TYPES:
        return f"has its {label(attribute.oid)} in an old string type, such as BMPString or T61String"
    if attribute.oid == NameOID.EMAIL_ADDRESS and string_type != "IA5String":
        return "has its emailAddress in another type than IA5STRING, which openssl refuses"
    return ""


# The policy -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Preview:
    """What signing would make of a requested subject, before anything is signed.

    ``subject`` is what would be signed; ``vanishing`` the fields that the policy drops without a word; ``refusals``
    what would stop it, in the order in which openssl finds it.
    """

    requested: x509.Name
    subject: x509.Name
    vanishing: tuple[Attribute, ...] = ()
    refusals: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the CA would sign; fields may vanish all the same."""
        return not self.refusals

    def __str__(self) -> str:
        lines = [f"Asked for: {readable(self.requested)}"]
        lines += [f"Would be signed: {readable(self.subject)}"] if self.ok else []
        lines += [f"Vanishes: {label(a.oid)} ({a.value!s}), which the policy does not list" for a in self.vanishing]
        return "\n".join(lines + [f"Refused: {refusal}" for refusal in self.refusals])


def preview_subject(config: CaConfig, requested: x509.Name, issuer: x509.Name) -> Preview:
    """Return what ``openssl ca`` makes of a subject, in the policy's order; ``preserve = yes`` keeps it as it is."""
    kept: list[Attribute] = []
    refusals = []
    for field, word in config.policy:
        found = requested.get_attributes_for_oid(field.oid)
        if word != "optional" and not found:
            says = "mandatory {} field" if word == "match" else "{} field needed to be supplied and"
            refusals.append(f"The {says.format(field.long_name)} was missing: make the request with a {field.label}.")
        elif word == "match" and (problem := _mismatch(field, found, issuer.get_attributes_for_oid(field.oid))):
            refusals.append(problem)
        kept += found
    subject, vanishing = x509.Name(kept), tuple(attribute for attribute in requested if attribute not in kept)
    if config.preserve:
        subject, vanishing = requested, ()
        refusals += [
            f"The field {attribute.oid.dotted_string} is none of the guide's seven, and preserve = yes would keep it: "
            "make the request without it."
            for attribute in requested
            if attribute.oid not in BY_OID
        ]
    return Preview(requested, subject, vanishing, tuple(refusals))


def _mismatch(field: Field, found: list[Attribute], own: list[Attribute]) -> str:
    """Compare as openssl does: the encoded strings, their type included."""
    if not own:
        return (
            f"The {field.long_name} field does not exist in the CA certificate, so the 'policy' is misconfigured: say "
            "optional or supplied in it."
        )
    encoded = [x509.Name([attribute]).public_bytes() for attribute in own]
    for attribute in found:
        if x509.Name([attribute]).public_bytes() not in encoded:
            return (
                f"The {field.long_name} field is different between CA certificate ({own[-1].value!s}) and the request "
                f"({attribute.value!s}): make the request with the CA's value"
                + (", written in the same string type." if attribute.value == own[-1].value else ".")
            )
    return ""


def signed_subject(config: CaConfig, requested: x509.Name, issuer: x509.Name) -> x509.Name:
    """Return the subject that ``openssl ca`` would sign. Raises: OnboardingError: POLICY, in openssl's own words."""
    preview = preview_subject(config, requested, issuer)
    if preview.refusals:
        raise OnboardingError(preview.refusals[0], "POLICY")
    return preview.subject


def must_be_unique(database: SigningDatabase, config: CaConfig) -> bool:
    """Whether a subject has one valid certificate at most: ``unique_subject``, of database.txt.attr or else here.

    Raises: OnboardingError: SUBJECT_TWICE if that is so, and two valid rows have one subject.
    """
    path, index = database.attributes_path, database.index()
    own = read_config(path).sections["default"].get("unique_subject") if path.exists() else None
    unique = is_yes(config.optional("unique_subject") or "yes" if own is None else own)
    if unique and index.valid_rows != len(index.valid):
        raise OnboardingError(
            "The signing database has two valid rows for one subject, so openssl refuses the whole file: revoke one of "
            "the two, or say unique_subject = no.",
            "SUBJECT_TWICE",
        )
    return unique


def check_unique_subject(database: SigningDatabase, config: CaConfig, subjects: Sequence[x509.Name]) -> None:
    """Check that no subject has a valid certificate already, nor stands twice in the batch, unless it may.

    The answer lasts only while the caller holds the lock. Raises: OnboardingError: SUBJECT_TAKEN, SUBJECT_TWICE.
    """
    if not must_be_unique(database, config):
        return
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


# The times ------------------------------------------------------------------------------------------------------------


def normalize_time(at: datetime | None) -> datetime:
    """Return ``at``, or now, in UTC and whole seconds. Raises: OnboardingError: BAD_TIME if no certificate has it."""
    try:
        time = (at or datetime.now(UTC)).astimezone(UTC).replace(microsecond=0)
    except (OverflowError, ValueError):
        time = datetime.min.replace(tzinfo=UTC)
    if not 1950 <= time.year <= LAST_YEAR:
        raise OnboardingError(f"A certificate states times from 1950 to {LAST_YEAR}: set at= so.", "BAD_TIME")
    return time


def not_after(begin: datetime, days: int, what: str = "A certificate") -> datetime:
    """Return the end of what begins at ``begin``. Raises: OnboardingError: BAD_DAYS if ``days`` make no sense."""
    if not 1 <= days <= LONGEST_DAYS:
        raise OnboardingError(f"{what} is valid for 1 to {LONGEST_DAYS} days, not {days}: ask for that.", "BAD_DAYS")
    return begin + timedelta(days=days)


def not_after_within(issuer: x509.Certificate, begin: datetime, days: int, what: str = "A certificate") -> datetime:
    """Return the end of what ``issuer`` signs. Raises: OnboardingError: BAD_DAYS, CA_EXPIRED, OUTLIVES_CA."""
    end, last = not_after(begin, days), issuer.not_valid_after_utc
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


def days_within(issuer: x509.Certificate, begin: datetime, at_most: int) -> int:
    """Return ``at_most``, or the days that ``issuer`` has left if they are fewer; never less than one."""
    return max(1, min(at_most, (issuer.not_valid_after_utc - begin).days))


# The extensions -------------------------------------------------------------------------------------------------------


def build_extensions(
    config: CaConfig, section: str, public_key: CertificatePublicKeyTypes, issuer: x509.Certificate | None
) -> list[x509.Extension[x509.ExtensionType]]:
    """Return the extensions of ``section``, in its order, for a certificate with ``public_key``.

    ``issuer`` is None for a self-signed certificate. Raises: OnboardingError: BAD_CONFIG for an extension or a value
    that the guide's configuration does not use.
    """
    extensions = []
    for name, text in config.section(section).items():
        words = [word.strip() for word in text.split(",")]
        critical = words[0] == "critical"
        try:
            value = _extension(name, words[critical:], public_key, issuer)
        except (KeyError, TypeError, ValueError):
            raise OnboardingError(
                f"{config.path}: [ {section} ] says {name} = {text}, which is not understood here: write it as the "
                "guide's configuration does.",
                "BAD_CONFIG",
            ) from None
        extensions.append(x509.Extension(value.oid, critical, value))
    return extensions


def _extension(
    name: str, words: list[str], public_key: CertificatePublicKeyTypes, issuer: x509.Certificate | None
) -> x509.ExtensionType:
    if name == "subjectKeyIdentifier" and words == ["hash"]:
        return x509.SubjectKeyIdentifier.from_public_key(public_key)
    if name == "authorityKeyIdentifier" and {word.split(":")[0] for word in words} <= {"keyid", "issuer"}:
        if issuer is None:
            return x509.AuthorityKeyIdentifier.from_issuer_public_key(public_key)  # type: ignore[arg-type]
        return _authority_key_identifier(words, issuer)
    if name == "basicConstraints":
        values = dict(word.split(":", 1) for word in words)
        ca = {"true": True, "false": False}[values.pop("CA", "false").lower()]
        path_length = int(values.pop("pathlen")) if "pathlen" in values else None
        if ca and issuer:
            _check_path_length(issuer)
        if not values:
            return x509.BasicConstraints(ca, path_length)
    if name == "keyUsage":
        usages = dict.fromkeys(KEY_USAGES.values(), False) | {KEY_USAGES[word]: True for word in words}
        return x509.KeyUsage(**usages)
    raise ValueError(name)


def _authority_key_identifier(words: list[str], issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """Name the issuer's key as the issuer names it itself: by the key id, or else by name and serial number."""
    try:
        own = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        if "keyid:always" in words or not any(word.startswith("issuer") for word in words):
            raise OnboardingError(
                f"The CA's certificate, {readable(issuer.subject)}, has no subject key identifier to copy: say "
                "authorityKeyIdentifier = keyid,issuer in the configuration.",
                "BAD_CONFIG",
            ) from None
        return x509.AuthorityKeyIdentifier(None, [x509.DirectoryName(issuer.issuer)], issuer.serial_number)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def _check_path_length(issuer: x509.Certificate) -> None:
    if any(getattr(extension.value, "path_length", None) == 0 for extension in issuer.extensions):
        raise OnboardingError(
            f"{readable(issuer.subject)} has path length 0, so it may sign devices, but no further CA: "
            "let the CA above it sign.",
            "PATH_LENGTH",
        )
