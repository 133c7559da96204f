"""A certificate as a card: what it says, and what each part means on this platform."""

from collections.abc import Iterator
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from mciot_nb.pki.chain import is_ca, is_issued_by
from mciot_nb.pki.extensions import KEY_USAGES
from mciot_nb.pki.names import common_name, readable
from mciot_nb.pki.rows import hex_serial
from mciot_nb.ui.markup import Row, plain, table

_NAMES = {
    ExtensionOID.BASIC_CONSTRAINTS: "Basic Constraints",
    ExtensionOID.KEY_USAGE: "Key Usage",
    ExtensionOID.EXTENDED_KEY_USAGE: "Extended Key Usage",
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME: "Subject Alternative Name",
    ExtensionOID.SUBJECT_KEY_IDENTIFIER: "Subject Key Identifier",
    ExtensionOID.AUTHORITY_KEY_IDENTIFIER: "Authority Key Identifier",
}
_MEANINGS = {
    ExtensionOID.KEY_USAGE: "what this key may be used for, and nothing else",
    ExtensionOID.EXTENDED_KEY_USAGE: "the protocols in which this certificate may be shown",
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME: "the host names and addresses that a client checks when it connects",
    ExtensionOID.AUTHORITY_KEY_IDENTIFIER: "the short name of the key that signed this certificate",
}
_PURPOSES = {ExtendedKeyUsageOID.SERVER_AUTH: "serverAuth", ExtendedKeyUsageOID.CLIENT_AUTH: "clientAuth"}


def certificate_html(certificate: x509.Certificate) -> str:
    """Show a certificate as a table."""
    return table(_title(certificate), _rows(certificate))


def certificate_text(certificate: x509.Certificate) -> str:
    """Show a certificate as plain text, with the lines of the table."""
    return plain(_title(certificate), _rows(certificate))


def certificate_line(certificate: x509.Certificate) -> str:
    """Name a certificate in one line, as it stands inside a list."""
    return f"<Certificate {readable(certificate.subject)}>"


def _title(certificate: x509.Certificate) -> str:
    kind = "CA certificate" if is_ca(certificate) else "Certificate"
    return f"{kind} of {common_name(certificate.subject) or readable(certificate.subject) or '(no name)'}"


def _rows(certificate: x509.Certificate) -> Iterator[Row]:
    """Give what is the same in every run first, and last what is not: times, random numbers, fingerprints."""
    signed_by_itself = is_issued_by(certificate, certificate)
    yield "Subject", readable(certificate.subject), ""
    yield "Issuer", readable(certificate.issuer), "itself: a self-signed certificate" if signed_by_itself else ""
    if _counted(certificate):
        number = certificate.serial_number
        yield "Serial number", f"{hex_serial(number)} (hexadecimal, as openssl writes it; {number} in decimal)", ""
    yield "Validity", _validity(certificate), ""
    yield "Public key", _key(certificate), ""
    yield "CA", _ca(certificate), ""
    yield from _extension_rows(certificate)
    yield from _changing_rows(certificate)


def _counted(certificate: x509.Certificate) -> bool:
    return certificate.serial_number < 2**32  # from a serial file, as the guide's 1000; else drawn at random


def _validity(certificate: x509.Certificate) -> str:
    begin, end, now = certificate.not_valid_before_utc, certificate.not_valid_after_utc, datetime.now(UTC)
    state = "not valid yet" if now < begin else "expired" if now > end else "valid now"
    return f"{(end - begin).days} days, {state}"


def _ca(certificate: x509.Certificate) -> str:
    if not is_ca(certificate):
        return "no"
    length = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length
    return "yes, any path length" if length is None else f"yes, path length {length}"


def _key(certificate: x509.Certificate) -> str:
    try:
        key = certificate.public_key()
    except (UnsupportedAlgorithm, ValueError):
        return "of a kind that can't be read here"
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA, {key.key_size} bits"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"EC, {key.curve.name}, {key.key_size} bits"
    return type(key).__name__.removesuffix("PublicKey")


def _extension_rows(certificate: x509.Certificate) -> Iterator[Row]:
    try:
        extensions = list(certificate.extensions)
    except ValueError as error:
        yield "Extensions", f"can't be read: {error}", ""
        return
    identifiers = (x509.SubjectKeyIdentifier, x509.AuthorityKeyIdentifier)
    for extension in sorted(extensions, key=lambda extension: isinstance(extension.value, identifiers)):
        name = _NAMES.get(extension.oid, f"Extension {extension.oid.dotted_string}")
        critical = "critical: " if extension.critical else ""
        yield name, critical + _content(extension.value), _meaning(extension, is_ca(certificate))


def _meaning(extension: x509.Extension[x509.ExtensionType], ca: bool) -> str:
    match extension.value:
        case x509.BasicConstraints():
            return _what_it_may_sign(extension.value)
        case x509.SubjectKeyIdentifier():
            by_others = ", by which the certificates that it signs refer to it" if ca else ""
            return f"a short name of this key{by_others}"
    return _MEANINGS.get(extension.oid, "" if extension.oid in _NAMES else "not used in this tutorial")


def _content(value: x509.ExtensionType) -> str:
    """Write an extension's value in openssl's words."""
    match value:
        case x509.BasicConstraints():
            length = "" if value.path_length is None else f", pathlen:{value.path_length}"
            return f"CA:{str(value.ca).upper()}{length}"
        case x509.KeyUsage():
            # cryptography lets the last two be read only where keyAgreement is set
            only = [] if value.key_agreement else ["encipherOnly", "decipherOnly"]
            return ", ".join(w for w, attribute in KEY_USAGES.items() if w not in only and getattr(value, attribute))
        case x509.ExtendedKeyUsage():
            return ", ".join(_PURPOSES.get(purpose, purpose.dotted_string) for purpose in value)
        case x509.SubjectAlternativeName():
            return ", ".join(str(getattr(name, "value", name)) for name in value)
        case x509.SubjectKeyIdentifier():
            return value.digest.hex()
        case x509.AuthorityKeyIdentifier() if value.key_identifier:
            return value.key_identifier.hex()
    return "present"


def _what_it_may_sign(value: x509.BasicConstraints) -> str:
    if not value.ca:
        return "no CA: it can identify a device or a server, and sign no certificates"
    if value.path_length is None:
        return "a CA: it may sign certificates, of further CAs too; the platform takes only such a one as trusted"
    return (
        f"a CA, with at most {value.path_length} more CAs between it and a device; "
        "the platform takes only a CA's certificate as trusted"
    )


def _changing_rows(certificate: x509.Certificate) -> Iterator[Row]:
    yield "Valid from", f"{certificate.not_valid_before_utc:%Y-%m-%d %H:%M:%S} UTC", ""
    yield "Valid to", f"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC", ""
    if not _counted(certificate):
        yield "Serial number", f"{certificate.serial_number:040x} (hexadecimal, drawn at random)", ""
    kept = "under this the platform keeps it once it is uploaded" if is_ca(certificate) else ""
    yield "SHA-1 fingerprint", certificate.fingerprint(hashes.SHA1()).hex(), kept
    yield "SHA-256 fingerprint", certificate.fingerprint(hashes.SHA256()).hex(), ""
