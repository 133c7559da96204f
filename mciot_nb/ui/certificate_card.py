"""A certificate as a card: what it says, and what each part means on this platform."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from mciot_nb.pki.chain import is_ca, is_issued_by
from mciot_nb.pki.names import common_name, readable
from mciot_nb.pki.rows import hex_serial
from mciot_nb.pki.signing import KEY_USAGES
from mciot_nb.ui.markup import Line, Rendered, Row, copyable, escape, listed, plain, table
from mciot_nb.ui.svg import image, words

#: What extensions are called, and what they mean here where that does not depend on their value.
_KNOWN = {
    ExtensionOID.BASIC_CONSTRAINTS: ("Basic Constraints", ""),
    ExtensionOID.KEY_USAGE: ("Key Usage", ""),
    ExtensionOID.EXTENDED_KEY_USAGE: ("Extended Key Usage", ""),
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME: (
        "Subject Alternative Name",
        "the host names and addresses that a client checks when it connects",
    ),
    ExtensionOID.SUBJECT_KEY_IDENTIFIER: ("Subject Key Identifier", ""),
    ExtensionOID.AUTHORITY_KEY_IDENTIFIER: (
        "Authority Key Identifier",
        "the short name of the key that signed this certificate",
    ),
    ExtensionOID.NAME_CONSTRAINTS: ("Name Constraints", "the names for which this CA may sign"),
    ExtensionOID.CERTIFICATE_POLICIES: ("Certificate Policies", "the rules by which its CA issued it"),
    ExtensionOID.CRL_DISTRIBUTION_POINTS: ("CRL Distribution Points", "where its CA says which ones are revoked"),
    ExtensionOID.AUTHORITY_INFORMATION_ACCESS: (
        "Authority Information Access",
        "where its CA's certificate, and its word on revocation, can be had",
    ),
    ExtensionOID.PRECERT_SIGNED_CERTIFICATE_TIMESTAMPS: (
        "Certificate Transparency",
        "the public logs that know of this certificate",
    ),
}
#: What a key may do, by openssl's words for its usages (RFC 5280, section 4.2.1.3).
_USES = {
    "digitalSignature": "sign handshakes and data",
    "nonRepudiation": "sign what can't be denied later",
    "keyEncipherment": "receive a session's key (older TLS)",
    "dataEncipherment": "receive encrypted data",
    "keyAgreement": "agree on a key",
    "keyCertSign": "sign certificates",
    "cRLSign": "sign revocation lists",
}
_PURPOSES = {
    ExtendedKeyUsageOID.SERVER_AUTH: ("serverAuth", "a server may show it to its clients"),
    ExtendedKeyUsageOID.CLIENT_AUTH: ("clientAuth", "a device may show it when it connects"),
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE: ("anyExtendedKeyUsage", "it may be shown for anything"),
}


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


def _rows(certificate: x509.Certificate) -> Iterator[Line]:
    """Give what is the same in every run first, and last what is not: times, random numbers, fingerprints."""
    signed_by_itself = is_issued_by(certificate, certificate)
    yield "Subject", readable(certificate.subject), ""
    yield "Issuer", readable(certificate.issuer), "itself: a self-signed certificate" if signed_by_itself else ""
    if _counted(certificate):
        number = certificate.serial_number
        yield "Serial number", f"{hex_serial(number)} (hexadecimal, as openssl writes it; {number} in decimal)", ""
    yield "Validity", validity(certificate), ""
    yield "Public key", key_kind(certificate), ""
    yield "CA", _ca(certificate), ""
    yield from _extension_rows(certificate)
    yield from _changing_rows(certificate)


def _counted(certificate: x509.Certificate) -> bool:
    return certificate.serial_number < 2**32  # from a serial file, as the guide's 1000; else drawn at random


def _ca(certificate: x509.Certificate) -> str:
    if not is_ca(certificate):
        return "no"
    length = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length
    return "yes, any path length" if length is None else f"yes, path length {length}"


def key_kind(certificate: x509.Certificate) -> str:
    """Name the kind and the size of a certificate's key."""
    try:
        key = certificate.public_key()
    except (UnsupportedAlgorithm, ValueError):
        return "of a kind that can't be read here"
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA, {key.key_size} bits"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"EC, {key.curve.name}, {key.key_size} bits"
    return type(key).__name__.removesuffix("PublicKey")


def extension_rows(extensions: Iterable[x509.Extension[x509.ExtensionType]], ca: bool) -> Iterator[Row]:
    """Give for each extension its name, its value in openssl's words, and what it means here; ``ca``: for a CA.

    What differs from run to run, the identifiers of keys, comes last.
    """
    identifiers = (x509.SubjectKeyIdentifier, x509.AuthorityKeyIdentifier)
    for extension in sorted(extensions, key=lambda extension: isinstance(extension.value, identifiers)):
        unknown = f"Extension {extension.oid.dotted_string}", "not used in this tutorial"
        name, meaning = _KNOWN.get(extension.oid, unknown)
        critical = "critical: " if extension.critical else ""
        yield name, critical + _content(extension.value), _meaning(extension.value, ca) or meaning


def _extension_rows(certificate: x509.Certificate) -> Iterator[Row]:
    try:
        yield from extension_rows(certificate.extensions, is_ca(certificate))
    except (ValueError, x509.DuplicateExtension) as error:
        yield "Extensions", f"✗ can't be read: {error}", ""


def _meaning(value: x509.ExtensionType, ca: bool) -> str:
    """Say what a value means here; empty where every value of its extension means the same."""
    match value:
        case x509.BasicConstraints():
            return _what_it_may_sign(value)
        case x509.KeyUsage():
            uses = [_USES[word] for word in _usages(value) if word in _USES]
            return f"this key may {listed(uses)}, and nothing else" if uses else ""
        case x509.ExtendedKeyUsage():
            others = "something else, not used in this tutorial"
            return listed(list(dict.fromkeys(_PURPOSES.get(purpose, ("", others))[1] for purpose in value)))
        case x509.SubjectKeyIdentifier():
            by_others = ", by which the certificates that it signs refer to it" if ca else ""
            return f"a short name of this key{by_others}"
    return ""


def _usages(value: x509.KeyUsage) -> list[str]:
    # cryptography lets the last two be read only where keyAgreement is set
    only = [] if value.key_agreement else ["encipherOnly", "decipherOnly"]
    return [word for word, attribute in KEY_USAGES.items() if word not in only and getattr(value, attribute)]


def _content(value: x509.ExtensionType) -> str:
    """Write an extension's value in openssl's words."""
    match value:
        case x509.BasicConstraints():
            length = "" if value.path_length is None else f", pathlen:{value.path_length}"
            return f"CA:{str(value.ca).upper()}{length}"
        case x509.KeyUsage():
            return ", ".join(_usages(value))
        case x509.ExtendedKeyUsage():
            return ", ".join(_PURPOSES.get(purpose, (purpose.dotted_string, ""))[0] for purpose in value)
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
    between = {0: "no further CA", 1: "at most one more CA"}.get(
        value.path_length, f"at most {value.path_length} more CAs"
    )
    return f"a CA, with {between} between it and a device; the platform takes only a CA's certificate as trusted"


def _changing_rows(certificate: x509.Certificate) -> Iterator[Line]:
    yield "Valid from", f"{certificate.not_valid_before_utc:%Y-%m-%d %H:%M:%S} UTC", ""
    yield "Valid to", f"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC", ""
    if not _counted(certificate):
        yield "Serial number", f"{certificate.serial_number:040x} (hexadecimal, drawn at random)", ""
    kept = "under this the platform keeps it once it is uploaded" if is_ca(certificate) else ""
    yield "SHA-1 fingerprint", copyable(certificate.fingerprint(hashes.SHA1()).hex()), kept
    yield "SHA-256 fingerprint", copyable(certificate.fingerprint(hashes.SHA256()).hex()), ""


_DAY = timedelta(days=1)
_WIDTH, _HEIGHT, _BEGIN, _END = 400, 52, 48, 352  # pixels; the bar lies between the last two


def trouble(certificate: x509.Certificate, at: datetime | None = None) -> str:
    """Say that a certificate is not valid at a time, now by default; empty where it is."""
    at = at or datetime.now(UTC)
    if at > certificate.not_valid_after_utc:
        return "✗ expired"
    return "✗ not valid yet" if at < certificate.not_valid_before_utc else ""


def validity(certificate: x509.Certificate, at: datetime | None = None) -> Rendered:
    """Show for how long a certificate is valid, and how much of that has passed at a time, now by default.

    What has passed is rounded down to whole percents and days, so a certificate that was just made always looks the
    same. The dates are left to the words around the picture: a test can't see them in it.
    """
    at = at or datetime.now(UTC)
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    total = _days(max((end - begin) // _DAY, 0))
    if state := trouble(certificate, at):
        where = "after its end" if at > end else "before its begin"
        mark = (_END + _WIDTH) // 2 if at > end else _BEGIN // 2
        return _shown(f"{total}, {state}", f"today lies {where}", mark, bad=True)
    percent = 100 * (at - begin) // max(end - begin, timedelta(seconds=1))
    left = _days(-((at - end) // _DAY)) if end - at >= _DAY else "less than a day"  # a day that has begun counts
    mark = _BEGIN + (_END - _BEGIN) * percent // 100
    return _shown(f"{total}, ✓ valid now: {percent} % passed, {left} left", f"today lies at {percent} %", mark)


def _days(number: int) -> str:
    return "1 day" if number == 1 else f"{number} days"


def _shown(text: str, where: str, mark: int, *, bad: bool = False) -> Rendered:
    alt = f"Validity as a bar from its begin to its end; {where}."
    return Rendered(text, f"{escape(text)}<br>{image(_bar(mark, bad=bad), (_WIDTH, _HEIGHT), alt)}")


def _bar(mark: int, *, bad: bool) -> Iterator[str]:
    """Draw what is over filled, what is left empty, and a pointer at today, which may lie beside the bar."""
    over = min(max(mark, _BEGIN), _END) - _BEGIN
    colour = "bad" if bad else "good"
    yield f'<rect width="{_WIDTH}" height="{_HEIGHT}" rx="6" class="ground"/>'
    yield f'<rect x="{_BEGIN}" y="23" width="{over}" height="10" class="{colour}"/>'
    yield (
        f'<rect x="{_BEGIN}" y="23" width="{_END - _BEGIN}" height="10" rx="2" fill="none" stroke="currentColor" '
        f'class="{colour}"/>'
    )
    yield f'<path d="M{mark - 6} 16h12l-6 8z M{mark - 1} 16h2v22h-2z" class="ink"/>'
    yield words(mark, 13, "today", 12, "ink", _BEGIN, "middle")
    yield words(_BEGIN, 47, "begin", 12, "muted", _BEGIN, "middle")
    yield words(_END, 47, "end", 12, "muted", _BEGIN, "middle")
