"""What is checked between a request and a signature, in the order in which `prepare` goes through it.

The request itself, the subject that the policy leaves, its uniqueness, the times, and the extensions: every check that
``openssl ca`` makes, and those that it leaves out.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes as PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID, PublicKeyAlgorithmOID

from mciot_nb.errors import OnboardingError, fault
from mciot_nb.pki.chain import path_length, signature_fits
from mciot_nb.pki.config import CaConfig, is_yes, read_config
from mciot_nb.pki.database import SigningDatabase
from mciot_nb.pki.keys import SHORTEST_RSA, Request
from mciot_nb.pki.names import BY_OID, Field, label, name_of, oneline, readable
from mciot_nb.pki.parts import UNREADABLE, WORDS, Extension, extension_of, key_of
from mciot_nb.pki.rows import DatabaseRow, hex_serial, read_time

Attribute = x509.NameAttribute[str | bytes]
Words = Iterable[tuple[str, str]]

#: The string types in which openssl writes a subject today (RFC 5280, section 4.1.2.4).
_STRING_TYPES = ("UTF8String", "PrintableString", "IA5String")
#: openssl's words for the key usages, and cryptography's; and for the extended ones, with their OIDs.
_USAGES = {word: field for word, (field, _) in WORDS["usages"].items()}
_PURPOSES = {word: number for number, (word, _) in WORDS["purposes"].items()}
#: openssl's words for the kinds of alternative name (x509v3_config man page); a dirName and an otherName are not made.
_GENERAL_NAMES: dict[str, Callable[[str], x509.GeneralName]] = {
    "DNS": x509.DNSName,
    "IP": lambda text: x509.IPAddress(ip_address(text)),
    "URI": x509.UniformResourceIdentifier,
    "email": x509.RFC822Name,
    "RID": lambda text: x509.RegisteredID(x509.ObjectIdentifier(text)),
}
_BOOLEANS = {"true": True, "TRUE": True, "yes": True, "false": False, "FALSE": False, "no": False}
#: What ``none`` makes of a key identifier: openssl leaves out one that is empty.
_NO_IDENTIFIERS: dict[str, x509.ExtensionType] = {
    "subjectKeyIdentifier = none": x509.SubjectKeyIdentifier(b""),
    "authorityKeyIdentifier = none": x509.AuthorityKeyIdentifier(None, None, None),
}
#: An RSA-PSS key's algorithm without parameters (RFC 4055, section 3.1): it takes any hash.
_ANY_PSS = bytes.fromhex("300b06092a864886f70d01010a")
#: A hundred years: more is a typing error.
LONGEST_DAYS = 36500
#: The last year in which something may begin, so that its end can still be written.
LAST_YEAR = 9898


def prepare(
    config: CaConfig, issuer: x509.Certificate, csr: Request, section: str | None, days: int | None, at: datetime
) -> tuple[x509.Name, x509.CertificateBuilder]:
    """Check a request; return its subject, and all but the serial number. Raises: OnboardingError: if refused."""
    check_request(csr)
    subject = signed_subject(config, csr.subject, issuer.subject)
    begin, end = validity(config, issuer, days, at, f"The certificate of {readable(subject)}")
    section = default_section(config) if section is None else section
    made = build_extensions(config, section, csr.public_key(), issuer, csr)
    return subject, x509.CertificateBuilder(issuer.subject, subject, csr.public_key(), None, begin, end, made)


def signing_options(config: CaConfig, issuer: x509.Certificate) -> dict[str, Any]:
    """Return how ``issuer``'s key signs: with the hash ``default_md``, and as RSA-PSS if its certificate says so.

    Raises: OnboardingError: BAD_CONFIG, NOT_FOLLOWED, or BAD_KEY for a key with which nothing is signed here.
    """
    if (hack := config.value("ca", "msie_hack") or "no")[0] in "yY":
        raise fault("NOT_FOLLOWED", path=config.path, hack=hack)
    digest, content, key = config.digest, issuer.tbs_certificate_bytes, key_of(issuer)
    is_pss = issuer.public_key_algorithm_oid == PublicKeyAlgorithmOID.RSASSA_PSS
    if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey) or (is_pss and _ANY_PSS not in content):
        raise fault("BAD_KEY.ca")
    pss = padding.PSS(padding.MGF1(digest), padding.PSS.DIGEST_LENGTH) if is_pss else None
    return {"algorithm": digest, "rsa_padding": pss}


def row_of(certificate: x509.Certificate) -> DatabaseRow:
    """Return the row of a certificate that was just signed; openssl writes the serial for an empty subject."""
    subject = oneline(name_of(certificate)) or hex_serial(certificate.serial_number)
    return DatabaseRow("V", certificate.not_valid_after_utc, None, "", certificate.serial_number, "unknown", subject)


def subject_of(csr: Request) -> x509.Name:
    """Return a request's subject. Raises: OnboardingError: BAD_REQUEST if it can't be read."""
    try:
        return csr.subject
    except UNREADABLE:  # cryptography reads it only now
        raise OnboardingError("The subject of the request can't be read: make it again.", "BAD_REQUEST") from None


def check_request(csr: Request) -> None:
    """Refuse what openssl signs without a word too, as a short key. Raises: OnboardingError: BAD_REQUEST."""
    try:
        subject, key, valid = subject_of(csr), csr.public_key(), signature_fits(csr, csr)
    except UNREADABLE:  # cryptography reads its parts only when asked
        raise OnboardingError("A part of the request can't be read: make it again.", "BAD_REQUEST") from None
    if valid is None:
        problem = "is signed by a method that can't be checked here: make it again, signed with SHA-256."
    elif not valid:
        problem = "was changed after it was made, or its key is not its own: make it again."
    elif isinstance(key, rsa.RSAPublicKey) and key.key_size < SHORTEST_RSA:
        problem = f"has an RSA key of {key.key_size} bits, which is too weak: make one of {SHORTEST_RSA} or more."
    elif key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) not in csr.tbs_certrequest_bytes:
        problem = "has its key in a form that is not written here, such as RSA-PSS: make it with a plain RSA or EC key."
    elif any(len(rdn) > 1 for rdn in subject.rdns):
        problem = "has several fields in one step of its name (a + between them): make it with one field a step."
    elif problems := [problem for attribute in subject if (problem := _string_problem(attribute))]:
        problem = f"{problems[0]}: make it again, with string_mask = utf8only."
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


@dataclass(frozen=True)
class Preview:
    """What signing would make of a requested subject, before anything is signed.

    ``subject`` is what would be signed; ``vanishing`` the fields that are dropped without a word, and why; ``refusals``
    what would stop it, in the order in which openssl finds it.
    """

    requested: x509.Name
    subject: x509.Name
    vanishing: dict[Attribute, str]
    refusals: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the CA would sign; fields may vanish all the same."""
        return not self.refusals


def preview_subject(config: CaConfig, requested: x509.Name, issuer: x509.Name) -> Preview:
    """Return what ``openssl ca`` makes of a subject, in the policy's order; ``preserve = yes`` keeps it as it is."""
    kept: list[Attribute] = []
    refusals = []
    for field, word in config.policy:
        found = requested.get_attributes_for_oid(field.oid)
        if word != "optional" and not found:
            says = "mandatory {} field" if word == "match" else "{} field needed to be supplied and"
            refusals.append(f"The {says.format(field.long_name)} was missing: make the request with a {field.label}.")
        elif word == "match" and (problem := mismatch(field, found, issuer.get_attributes_for_oid(field.oid))):
            refusals.append(problem)
        kept += found
    if config.preserve:
        kept = list(requested)
        unknown = [attribute.oid.dotted_string for attribute in requested if attribute.oid not in BY_OID]
        kept_too = "is unknown here, and preserve = yes would keep it: make the request without it."
        refusals += [f"The field {number} {kept_too}" for number in unknown]
    vanishing = {attribute: "the policy does not list it" for attribute in requested if attribute not in kept}
    if config.optional("email_in_dn") == "no":  # no other word, says apps/ca.c
        vanishing |= {attribute: "email_in_dn is no" for attribute in kept if attribute.oid == NameOID.EMAIL_ADDRESS}
    return Preview(requested, x509.Name(a for a in kept if a not in vanishing), vanishing, tuple(refusals))


def mismatch(field: Field, found: list[Attribute], own: list[Attribute]) -> str:
    """Return one sentence if a request's field is not the CA's ``own``: encoded strings count, as for openssl."""
    if not own:
        return str(fault("POLICY.absent", field=field))
    encoded = [x509.Name([attribute]).public_bytes() for attribute in own]
    for attribute in found:
        if x509.Name([attribute]).public_bytes() not in encoded:
            ours, theirs = own[-1].value, attribute.value
            another_type = ", written in the same string type" if ours == theirs else ""
            return str(fault("POLICY.differs", field=field, ours=ours, theirs=theirs, another_type=another_type))
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
        raise fault("SUBJECT_TWICE")
    return unique


def check_unique_subject(database: SigningDatabase, config: CaConfig, subjects: Sequence[x509.Name]) -> None:
    """Check that no subject has a valid certificate already, or is twice in the batch, unless it may.

    The answer lasts only while the caller holds the lock. Raises: OnboardingError: SUBJECT_TAKEN, SUBJECT_TWICE.
    """
    if not must_be_unique(database, config):
        return
    taken, seen = database.index().valid, set[str]()
    for subject in map(oneline, subjects):
        if subject in taken:
            raise fault("SUBJECT_TAKEN", subject=subject, serial=hex_serial(taken[subject]))
        if subject and subject in seen:
            raise OnboardingError(f"Two of the requests are for {subject}: give each its own.", "SUBJECT_TAKEN")
        seen.add(subject)


def normalize_time(at: datetime | None) -> datetime:
    """Return ``at``, or now, in UTC and whole seconds. Raises: OnboardingError: BAD_TIME if no certificate has it."""
    try:
        time = (at or datetime.now(UTC)).astimezone(UTC).replace(microsecond=0)
    except (OverflowError, ValueError):
        time = datetime.min.replace(tzinfo=UTC)
    if not 1950 <= time.year <= LAST_YEAR:
        raise OnboardingError(f"A certificate can state times from 1950 to {LAST_YEAR}: set at= so.", "BAD_TIME")
    return time


def not_after(begin: datetime, days: int, what: str = "A certificate") -> datetime:
    """Return the end of what begins at ``begin``. Raises: OnboardingError: BAD_DAYS if ``days`` make no sense."""
    if not 1 <= days <= LONGEST_DAYS:
        raise OnboardingError(f"{what} is valid for 1 to {LONGEST_DAYS} days, not {days}: ask for that.", "BAD_DAYS")
    return begin + timedelta(days=days)


def validity(
    config: CaConfig, issuer: x509.Certificate, days: int | None, at: datetime, what: str = "A certificate"
) -> tuple[datetime, datetime]:
    """Return the times of what ``issuer`` signs at ``at``, for ``days``, or else for ``default_days``, from then on.

    As for openssl, ``default_startdate`` moves the beginning alone, and ``default_enddate`` overrules the days.

    Raises: OnboardingError: BAD_CONFIG, BAD_TIME, BAD_DAYS, CA_EXPIRED, OUTLIVES_CA.
    """
    begin, fixed = _default_time(config, "startdate"), _default_time(config, "enddate")
    if days is None and not fixed:
        config.ca("default_days")  # openssl can't do without it either
    end = fixed or not_after(at, config.number("default_days") if days is None else days, what)
    if (last := issuer.not_valid_after_utc) <= at:
        raise OnboardingError(f"The CA's certificate expired on {last:%Y-%m-%d}: make a new CA.", "CA_EXPIRED")
    if end > last:
        left = (last - at).days
        do = "correct default_enddate" if fixed else f"ask for {left} days or fewer" if left else "make a new CA"
        raise fault("OUTLIVES_CA.days", what=what, last=last, do=do)
    if end <= (begin or at):  # openssl signs that
        raise fault("BAD_DAYS", what=what, path=config.path)
    return begin or at, end


def _default_time(config: CaConfig, which: str) -> datetime | None:
    text = config.optional(f"default_{which}")
    if text is None or (which, text) == ("startdate", "today"):  # which openssl 3.0 refuses and 3.5 takes
        return None
    with suppress(ValueError):
        if (time := read_time(text)).year >= 1950:  # the first that a certificate can state
            return time
    raise fault("BAD_CONFIG.date", path=config.path, which=which, text=text)


def days_within(issuer: x509.Certificate, begin: datetime, at_most: int) -> int:
    """Return ``at_most``, or the days that ``issuer`` has left if they are fewer; never less than one."""
    return max(1, min(at_most, (issuer.not_valid_after_utc - begin).days))


def default_section(config: CaConfig) -> str:
    """Return the section for a device's extensions: the guide's v3_signed, or else what ``x509_extensions`` names."""
    return "v3_signed" if "v3_signed" in config.sections else config.optional("x509_extensions") or "v3_signed"


def build_extensions(
    config: CaConfig, section: str, key: PublicKey, issuer: x509.Certificate | None, csr: Request | None = None
) -> list[Extension]:
    """Return the extensions of a certificate: those of ``section``, in its order, and what openssl adds.

    That is what ``copy_extensions`` takes from ``csr``, and the key identifiers where the section has none. ``issuer``
    is None for a self-signed certificate. Raises: OnboardingError: BAD_CONFIG, BAD_REQUEST, PATH_LENGTH.
    """
    made = {each.oid: each for each in section_extensions(config, section, key, issuer, csr)}
    copies = config.optional("copy_extensions") or "none"
    if copies.lower() not in ("none", "copy", "copyall"):
        raise OnboardingError(f"{config.path} says copy_extensions = {copies}: write copy or none.", "BAD_CONFIG")
    for each in _copied_extensions(csr) if csr and copies.lower() != "none" else ():
        if copies.lower() == "copyall":
            made.pop(each.oid, None)
        made.setdefault(each.oid, each)
    if not made:
        raise fault("BAD_CONFIG.no_extension", path=config.path, section=section)
    added: list[x509.ExtensionType] = [x509.SubjectKeyIdentifier.from_public_key(key)]
    if issuer and issuer.public_key() != key:
        added.append(_authority_key_identifier({"keyid": "", "issuer": ""}, issuer))
    for value in added:
        made.setdefault(value.oid, x509.Extension(value.oid, False, value))
    is_ca = any(getattr(each.value, "ca", False) for each in made.values())
    if issuer and is_ca and path_length(issuer) == 0:
        raise fault("PATH_LENGTH", issuer=readable(issuer.subject))
    return [each for each in made.values() if each.value not in _NO_IDENTIFIERS.values()]


def _copied_extensions(csr: Request) -> list[Extension]:
    """Return a request's extensions. Raises: OnboardingError: BAD_REQUEST if one would be written otherwise here."""
    with suppress(NotImplementedError, *UNREADABLE):
        extensions = list(csr.extensions)
        if all(asn1.encode_der(each.value.public_bytes()) in csr.tbs_certrequest_bytes for each in extensions):
            return extensions
    raise fault("BAD_REQUEST", subject=readable(csr.subject))


def section_extensions(
    config: CaConfig, section: str | None, key: PublicKey, issuer: x509.Certificate | None, csr: Request | None = None
) -> list[Extension]:
    """Return the extensions of ``section`` alone, as for a revocation list; none if there is no section.

    Raises: OnboardingError: BAD_CONFIG for an extension or a value that is not made here.
    """
    made: list[Extension] = []
    for name, text in (config.section(section) if section is not None else {}).items():
        value = text.removeprefix("critical,")
        words = [(word.partition(":")[0].strip(), word.partition(":")[2].strip()) for word in value.split(",")]
        try:
            if len(dict(words)) < len(words) and name != "subjectAltName":
                raise ValueError(text)
            if name == "subjectAltName":
                extension: x509.ExtensionType = x509.SubjectAlternativeName(_general_names(config, words, csr))
            else:
                extension = _extension(name, dict(words), key, issuer)
        except (KeyError, TypeError, ValueError):
            raise fault("BAD_CONFIG.value", path=config.path, section=section, name=name, text=text) from None
        made.append(x509.Extension(extension.oid, value != text, extension))
    return made


def _general_names(config: CaConfig, words: Words, csr: Request | None) -> Iterator[x509.GeneralName]:
    """Yield the names that ``DNS:a, IP:10.0.0.1`` or ``@section`` lists; ``email:copy`` is the subject's address."""
    if (first := next(iter(words))[0]).startswith("@"):
        words = config.section(first[1:]).items()
    for kind, text in ((kind.partition(".")[0], text) for kind, text in words):
        if not text or (kind, text) == ("email", "move"):
            raise ValueError(text)
        if (kind, text) != ("email", "copy"):
            yield _GENERAL_NAMES[kind](text)
        elif csr and (config.preserve or any(field.oid == NameOID.EMAIL_ADDRESS for field, _ in config.policy)):
            emails = csr.subject.get_attributes_for_oid(NameOID.EMAIL_ADDRESS)
            yield from (x509.RFC822Name(str(email.value)) for email in emails)


def _extension(name: str, words: dict[str, str], key: PublicKey, issuer: x509.Certificate | None) -> x509.ExtensionType:
    if name == "authorityKeyIdentifier" and words != {"none": ""}:
        return _authority_key_identifier(words, issuer, key)
    if name == "basicConstraints":
        path_length = int(words.pop("pathlen")) if "pathlen" in words else None
        ca = _BOOLEANS[words.pop("CA", "false")]
        if not words:
            return x509.BasicConstraints(ca, path_length)
    if any(words.values()):
        raise ValueError(name)
    if name == "keyUsage":
        return x509.KeyUsage(**dict.fromkeys(_USAGES.values(), False) | {_USAGES[word]: True for word in words})
    if name == "extendedKeyUsage":
        return x509.ExtendedKeyUsage([x509.ObjectIdentifier(_PURPOSES.get(word, word)) for word in words])
    if name == "subjectKeyIdentifier" and [*words] == ["hash"]:
        return x509.SubjectKeyIdentifier.from_public_key(key)
    return _NO_IDENTIFIERS[f"{name} = {','.join(words)}"]


def _authority_key_identifier(
    asked: dict[str, str], issuer: x509.Certificate | None, key: PublicKey | None = None
) -> x509.AuthorityKeyIdentifier:
    """Name the issuer's key as the issuer names it itself: by the key id, by name and serial number, or by both."""
    if not asked.keys() <= {"keyid", "issuer"}:
        raise ValueError(asked)
    if issuer is None:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(key)  # type: ignore[arg-type]
    found = extension_of(issuer, x509.SubjectKeyIdentifier) if "keyid" in asked else None
    key_id = found.digest if found else None
    if key_id is None and (asked.get("keyid") == "always" or "issuer" not in asked):
        raise fault("BAD_CONFIG.identifier", issuer=readable(issuer.subject))
    if key_id is None or asked.get("issuer") == "always":
        return x509.AuthorityKeyIdentifier(key_id, [x509.DirectoryName(issuer.issuer)], issuer.serial_number)
    return x509.AuthorityKeyIdentifier(key_id, None, None)
