"""A certificate unfolded field by field, in the order in which its bytes stand, and what each of them means."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from mciot_nb.pki.chain import is_ca, with_colons
from mciot_nb.pki.names import label, name_of, readable
from mciot_nb.pki.parts import extensions_of, key_of, values
from mciot_nb.pki.rows import hex_serial
from mciot_nb.ui.certificate_card import WORDS, extension_row, key_kind, short_name
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
    _, (_, _, algorithm), _ = values(next(values(certificate.public_bytes(Encoding.DER)))[2])
    signature = _Node("Signature algorithm", _named(algorithm)), _Node("Signature", _hex(certificate.signature))
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
    parts = list(values(next(values(certificate.tbs_certificate_bytes))[2]))
    version = int.from_bytes(next(values(parts.pop(0)[2]))[2]) if parts[0][0] == 0xA0 else 0
    (_, _, serial), algorithm, _, _, _, key, *rest = parts
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    yield _Node("Version", f"{version + 1}")
    yield _Node("Serial number", hex_serial(int.from_bytes(serial, signed=True)))
    yield _Node("Signature algorithm", _named(algorithm[2]))
    yield _name("Issuer", name_of(certificate, "issuer"))
    times = [("Not before", begin), ("Not after", end)]
    days = counted(max((end - begin).days, 0), "day", "days")
    yield _Node("Validity", days, [_Node(name, f"{time:%Y-%m-%d %H:%M:%S} UTC") for name, time in times])
    yield _name("Subject", name_of(certificate))
    yield _Node("Public key", key_kind(certificate), _key(certificate, key[2]))
    for tag, _, content in rest:
        if tag == 0xA3:
            raw = [list(values(one))[-1][2] for _, _, one in values(next(values(content))[2])]
            yield _Node("Extensions", counted(len(raw), "extension", "extensions"), _extensions(certificate, raw))
        else:
            yield _Node("Unique identifier", _hex(content))


def _name(which: str, name: x509.Name) -> _Node:
    parts = [_Node(label(one.oid), str(one.value), meaning=f"OID {one.oid.dotted_string}") for one in name]
    return _Node(which, readable(name) or "(empty)", parts)


def _key(certificate: x509.Certificate, content: bytes) -> Iterator[_Node]:
    (_, _, algorithm), (_, _, bits) = values(content)
    yield _Node("Algorithm", _named(algorithm))
    key, raw = key_of(certificate), _hex(bits[1:])
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


def _named(algorithm: bytes) -> str:
    """Return the name and the object identifier with which an AlgorithmIdentifier begins."""
    oid = asn1.decode_der(x509.ObjectIdentifier, next(values(algorithm))[1]).dotted_string
    return f"{WORDS['algorithms'][oid]} ({oid})" if oid in WORDS["algorithms"] else oid


def _hex(data: bytes) -> str:
    return with_colons(data[:16].hex()) + " …" * (len(data) > 16)
