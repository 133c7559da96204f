"""A certificate as a card: what it says, and what each part means on this platform."""

from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from mciot_nb.pki.chain import fingerprint, is_ca, is_issued_by, path_length
from mciot_nb.pki.names import common_name, name_of, readable
from mciot_nb.pki.parts import WORDS, Extension, extensions_of
from mciot_nb.pki.rows import hex_serial
from mciot_nb.ui.markup import OUTLINE, Line, Rendered, Row, card, copyable, counted, escape, image, listed, words


def certificate_card(certificate: x509.Certificate) -> Rendered:
    """Return a certificate as a table: its fields, in openssl's words, and what each means here."""
    rows = sorted(_rows(certificate), key=lambda row: row[0] not in ("Subject", "Issuer", "Validity"))
    title = f"{'CA certificate' if is_ca(certificate) else 'Certificate'} of {short_name(name_of(certificate))}"
    rest = card("What else it says", rows[3:]).html
    folded = f"<details><summary>The rest: key, extensions, fingerprints</summary>{rest}</details>"
    return Rendered(card(title, rows).text, card(title, rows[:3]).html + folded)


def short_name(name: x509.Name) -> str:
    """Return the name by which people know a certificate: its common name, or else the whole name."""
    return common_name(name) or readable(name) or "(no name)"


def _rows(certificate: x509.Certificate) -> Iterator[Line]:
    """Yield what is the same in every run first, and last what is not: times, random numbers, fingerprints."""
    ca, number = is_ca(certificate), certificate.serial_number
    counted = number < 2**32  # from a serial file, as the guide's 1000; else drawn at random
    yield "Subject", readable(name_of(certificate)), ""
    by_itself = "itself: a self-signed certificate" if is_issued_by(certificate, certificate) else ""
    yield "Issuer", readable(name_of(certificate, "issuer")), by_itself
    if counted:
        yield "Serial number", f"{hex_serial(number)} (hexadecimal, as openssl writes it; {number} in decimal)", ""
    yield "Validity", validity(certificate), ""
    yield "Public key", key_kind(certificate), ""
    length = path_length(certificate)
    yes = "yes, any path length" if length is None else f"yes, path length {length}"
    yield "CA", yes if ca else "no", ""
    yield from extension_rows(extensions_of(certificate), ca)
    yield "Valid from", f"{certificate.not_valid_before_utc:%Y-%m-%d %H:%M:%S} UTC", ""
    yield "Valid to", f"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC", ""
    if not counted:
        yield "Serial number", f"{number:040x} (hexadecimal, drawn at random)", ""
    kept = "the platform's name for it once it is uploaded" if ca else ""
    yield "SHA-1 fingerprint", copyable(fingerprint(certificate)), kept
    yield "SHA-256 fingerprint", copyable(fingerprint(certificate, "sha256")), ""


def key_kind(certificate: x509.Certificate) -> str:
    """Return the kind and the size of a certificate's key."""
    try:
        key = certificate.public_key()
    except (UnsupportedAlgorithm, ValueError):
        return "of a kind that can't be read here"
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA, {key.key_size} bits"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"EC, {key.curve.name}, {key.key_size} bits"
    return type(key).__name__.removesuffix("PublicKey")


def extension_rows(extensions: Collection[Extension], ca: bool) -> Iterator[Row]:
    """Yield for each extension its name, its value in openssl's words, and what it means here; ``ca``: for a CA.

    What differs from run to run, the identifiers of keys, comes last.
    """
    identifiers = (x509.SubjectKeyIdentifier, x509.AuthorityKeyIdentifier)
    for extension in sorted(extensions, key=lambda extension: isinstance(extension.value, identifiers)):
        yield extension_row(extension, extensions, ca)


def extension_row(extension: Extension, extensions: Collection[Extension], ca: bool) -> Row:
    """Return what `extension_rows` says of one of the ``extensions``."""
    name, known = WORDS["extensions"].get(extension.oid.dotted_string, ("", "not used in this tutorial"))
    content, meaning = _explained(extension.value, ca)
    if sum(other.oid == extension.oid for other in extensions) > 1:
        meaning = "✗ is there twice, which no certificate may have (RFC 5280, section 4.2)"
    critical = "critical: " if extension.critical else ""
    return name or f"Extension {extension.oid.dotted_string}", critical + content, meaning or known


def _explained(value: x509.ExtensionType, ca: bool) -> tuple[str, str]:
    """Return a value in openssl's words, and what it means here; empty where all of its extension mean the same."""
    match value:
        case x509.BasicConstraints():
            length, signs = value.path_length, WORDS["signs"]
            meaning = signs.get(str(length), signs["more"]) if value.ca else signs["no"]
            limit = "" if length is None else f", pathlen:{length}"
            return f"CA:{str(value.ca).upper()}{limit}", meaning.format(length=length)
        case x509.KeyUsage():
            # cryptography lets the last two be read only where keyAgreement is set
            only = [] if value.key_agreement else ["encipherOnly", "decipherOnly"]
            known = WORDS["usages"].items()
            usages = {word: use for word, (field, use) in known if word not in only and getattr(value, field)}
            uses = listed([*filter(None, usages.values())])
            return ", ".join(usages), f"this key may {uses}, and nothing else" if uses else ""
        case x509.ExtendedKeyUsage():
            others = "something else, not used in this tutorial"
            oids = [purpose.dotted_string for purpose in value]
            purposes = [WORDS["purposes"].get(oid, (oid, others)) for oid in oids]
            return ", ".join(name for name, _ in purposes), listed(list(dict.fromkeys(may for _, may in purposes)))
        case x509.SubjectAlternativeName():
            return ", ".join(str(getattr(name, "value", name)) for name in value), ""
        case x509.SubjectKeyIdentifier():
            by_others = ", by which the certificates that it signs refer to it" if ca else ""
            return value.digest.hex(), f"a short name of this key{by_others}"
        case x509.AuthorityKeyIdentifier() if value.key_identifier:
            return value.key_identifier.hex(), ""
        case x509.UnrecognizedExtension() if value.oid.dotted_string in WORDS["extensions"]:
            return "✗ can't be read here", ""
    return "present", ""


_DAY = timedelta(days=1)
_WIDTH, _HEIGHT, _BEGIN, _END = 400, 52, 48, 352  # pixels; the bar lies between the last two


def trouble(certificate: x509.Certificate, at: datetime | None = None) -> str:
    """Return that a certificate is not valid at a time, now by default; empty where it is."""
    at = (at or datetime.now(UTC)).astimezone(UTC)
    if at > certificate.not_valid_after_utc:
        return "✗ expired"
    return "✗ not valid yet" if at < certificate.not_valid_before_utc else ""


def validity(certificate: x509.Certificate, at: datetime | None = None) -> Rendered:
    """Return for how long a certificate is valid, and how much of that has passed at a time, now by default.

    What has passed is rounded down to whole percents and days, so a certificate that was just made always looks the
    same. The picture holds no dates: a test can't see them in it.
    """
    at = (at or datetime.now(UTC)).astimezone(UTC)
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    total, state = counted(max((end - begin) // _DAY, 0), "day", "days"), trouble(certificate, at)
    text, colour = f"{total}, {state}", "bad"
    where, mark = ("after its end", (_END + _WIDTH) // 2) if at > end else ("before its beginning", _BEGIN // 2)
    if not state:
        percent = 100 * (at - begin) // max(end - begin, timedelta(seconds=1))
        left = counted(-((at - end) // _DAY), "day", "days") if end - at >= _DAY else "less than a day"
        text, where, colour = f"{total}, ✓ valid now: {percent} % passed, {left} left", f"at {percent} %", "good"
        mark = _BEGIN + (_END - _BEGIN) * percent // 100
    alt = f"Validity as a bar from its beginning to its end; today is {where}."
    return Rendered(text, f"{escape(text)}<br>{image(_bar(mark, colour), (_WIDTH, _HEIGHT), alt)}")


def _bar(mark: int, colour: str) -> Iterator[str]:
    """Yield what is over filled, what is left empty, and a pointer at today, which may lie beside the bar."""
    over = min(max(mark, _BEGIN), _END) - _BEGIN
    yield f'<rect width="{_WIDTH}" height="{_HEIGHT}" rx="6" class="ground"/>'
    yield f'<rect x="{_BEGIN}" y="23" width="{over}" height="10" class="{colour}"/>'
    yield f'<rect x="{_BEGIN}" y="23" width="{_END - _BEGIN}" height="10" rx="2" {OUTLINE} class="{colour}"/>'
    yield f'<path d="M{mark - 6} 16h12l-6 8z M{mark - 1} 16h2v22h-2z" class="ink"/>'
    yield words(mark, 13, "today", 12, "ink", _BEGIN, "middle")
    yield words(_BEGIN, 47, "begin", 12, "muted", _BEGIN, "middle")
    yield words(_END, 47, "end", 12, "muted", _BEGIN, "middle")
