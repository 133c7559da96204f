"""A certificate unfolded field by field, in the order of its bytes, and what each of them means."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from mciot_nb.pki.chain import is_ca, with_colons
from mciot_nb.pki.names import label, name_of, readable
from mciot_nb.pki.parts import WORDS, extensions_of, key_of, signed_fields
from mciot_nb.pki.pbe import contents, number_of
from mciot_nb.pki.rows import hex_serial
from mciot_nb.ui.certificate_card import extension_row, key_kind, short_name
from mciot_nb.ui.markup import Rendered, boxed, counted, escape, visible


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
