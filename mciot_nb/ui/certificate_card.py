"""A certificate as a card, and unfolded field by field: what it says, and what each part means on this platform."""

from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from mciot_nb.pki.chain import fingerprint, is_ca, is_issued_by, path_length, with_colons
from mciot_nb.pki.names import label, name_of, readable, short_name
from mciot_nb.pki.parts import WORDS, Extension, extensions_of, key_of, signed_fields
from mciot_nb.pki.pbe import contents, number_of
from mciot_nb.pki.rows import hex_serial
from mciot_nb.ui.markup import Line, Rendered, Row, boxed, card, copyable, counted, escape, listed, visible
from mciot_nb.ui.pictures import validity

_REST = '<summary style="padding:0 6px">The rest: key, extensions, fingerprints</summary>'


def certificate_card(certificate: x509.Certificate) -> Rendered:
    """Return a certificate as a table: its fields, in openssl's words, and what each means here."""
    rows = sorted(_rows(certificate), key=lambda row: row[0] not in ("Subject", "Issuer", "Validity"))
    title = f"{'CA certificate' if is_ca(certificate) else 'Certificate'} of {short_name(name_of(certificate))}"
    folded = f"<details>{_REST}{card('', rows[3:]).html}</details>"
    return Rendered(card(title, rows).text, card(title, rows[:3]).html + folded)


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
        meaning = "✗ appears twice, which RFC 5280, section 4.2, does not allow"
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


class _Node(NamedTuple):
    name: str
    value: str
    inside: Iterable["_Node"] = ()
    meaning: str = ""  # else that of its name


def fields(certificate: x509.Certificate) -> Rendered:
    """Unfold a certificate: each field that it holds, in its order, with its value and what it means.

    Example: ``fields(ca.certificate)``.
    """
    algorithm = _named(certificate.signature_algorithm_oid.dotted_string)
    signature = _Node("Signature algorithm", algorithm), _Node("Signature", _hex(certificate.signature))
    nodes = _Node("What is signed", "the certificate proper", _signed(certificate)), *signature
    title = f"The certificate of {short_name(name_of(certificate))}, field by field"
    text, html = zip(*map(_shown, nodes), strict=True)
    opened = "".join(html).replace("<details", "<details open", 1)
    return Rendered("\n".join([visible(title), *text]), boxed("plain", f"<strong>{escape(title)}</strong>{opened}"))


def _shown(node: _Node, depth: int = 1) -> tuple[str, str]:
    """Return a field and what is inside it as lines of text, and as what unfolds."""
    meaning = node.meaning or WORDS["fields"].get(node.name, "")
    inside = [_shown(one, depth + 1) for one in node.inside]
    line = f"{'  ' * depth}{visible(node.name)}: {visible(node.value)}"
    lines = [f"{line} ({visible(meaning)})" if meaning else line, *(text for text, _ in inside)]
    head, more = f"<strong>{escape(node.name)}</strong>: {escape(node.value)}", "".join(html for _, html in inside)
    more = f'<div style="font-size:0.92em">{escape(meaning)}</div>{more}'
    return "\n".join(lines), f'<details style="margin:3px 0 3px 1em"><summary>{head}</summary>{more}</details>'


def _signed(certificate: x509.Certificate) -> Iterator[_Node]:
    """Yield the fields of the TBSCertificate (RFC 5280, section 4.1)."""
    _, (_, algorithm), _, _, _, (_, key), *rest = signed_fields(certificate)
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    yield _Node("Version", f"{certificate.version.value + 1}")
    yield _Node("Serial number", hex_serial(certificate.serial_number))
    yield _Node("Signature algorithm", _named(number_of(algorithm)))
    yield _name("Issuer", name_of(certificate, "issuer"))
    times = [("Not before", begin), ("Not after", end)]
    days = counted(max((end - begin).days, 0), "day", "days")
    yield _Node("Validity", days, [_Node(name, f"{time:%Y-%m-%d %H:%M:%S} UTC") for name, time in times])
    yield _name("Subject", name_of(certificate))
    yield _Node("Public key", key_kind(certificate), _key(certificate, key))
    for tag, content in rest:
        if tag == 0xA3:
            raw = [contents(one)[-1] for one in contents(contents(content)[0])]
            yield _Node("Extensions", counted(len(raw), "extension", "extensions"), _extensions(certificate, raw))
        else:
            yield _Node("Unique identifier", _hex(content))


def _name(which: str, name: x509.Name) -> _Node:
    parts = [_Node(label(one.oid), str(one.value), meaning=f"OID {one.oid.dotted_string}") for one in name]
    return _Node(which, readable(name) or "(empty)", parts)


def _key(certificate: x509.Certificate, content: bytes) -> Iterator[_Node]:
    yield _Node("Algorithm", _named(certificate.public_key_algorithm_oid.dotted_string))
    key, raw = key_of(certificate), _hex(contents(content)[1][1:])
    if isinstance(key, rsa.RSAPublicKey):
        yield _Node("Modulus", _hex(key.public_numbers().n.to_bytes(-(-key.key_size // 8))))
        yield _Node("Exponent", str(key.public_numbers().e))
    elif isinstance(key, ec.EllipticCurvePublicKey):
        yield from (_Node("Curve", key.curve.name), _Node("Point", raw))
    else:
        yield _Node("Bits", raw)


def _extensions(certificate: x509.Certificate, raw: list[bytes]) -> Iterator[_Node]:
    extensions, ca = extensions_of(certificate), is_ca(certificate)
    for extension, octets in zip(extensions, raw, strict=True):
        name, value, meaning = extension_row(extension, extensions, ca)
        critical, does = ("yes", "must refuse the certificate") if extension.critical else ("no", "may ignore it")
        critical_node = _Node("Critical", critical, meaning=f"a program that does not understand it {does}")
        parts = _Node("OID", extension.oid.dotted_string), critical_node, _Node("Bytes", _hex(octets))
        yield _Node(name, value, parts, meaning)


def _named(oid: str) -> str:
    """Return the name and the object identifier of an algorithm."""
    return f"{WORDS['algorithms'][oid]} ({oid})" if oid in WORDS["algorithms"] else oid


def _hex(data: bytes) -> str:
    return with_colons(data[:16].hex()) + " …" * (len(data) > 16)
