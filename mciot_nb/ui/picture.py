"""A chain of certificates as a picture, drawn by hand: it shows in an untrusted notebook too, and needs no network."""

import base64
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mciot_nb.pki.chain import is_ca, is_issued_by
from mciot_nb.pki.names import common_name, readable
from mciot_nb.ui.markup import Shown, escape, visible

_WIDTH, _BOX, _GAP, _MARGIN = 640, 72, 56, 16
_INK, _MUTED, _GOOD, _BAD = "#1b1b1b", "#4f5b66", "#1b5e20", "#b71c1c"


def chain_picture(certificates: Sequence[x509.Certificate]) -> Shown:
    """Draw a chain as it stands, the device's certificate at the top, with an arrow for each signature.

    A certificate that the next one did not sign is shown as a broken link. The picture holds no dates and no
    fingerprints, so it is the same in every run. Give the certificates of one chain, from the file or from the maker.
    """
    if not certificates:
        return Shown("An empty chain.", "<p>An empty chain.</p>")
    names = [_name(certificate) for certificate in certificates]
    links = [is_issued_by(one, following) for one, following in pairwise(certificates)]
    text = visible(_in_words(names, links, f"{names[-1]} {_end(certificates[-1])}"))
    svg = base64.b64encode(_svg(certificates, names, links).encode()).decode()
    source = f"data:image/svg+xml;base64,{svg}"
    return Shown(text, f'<img src="{source}" alt="{escape(text)}" width="{_WIDTH}" style="max-width:100%">')


def _name(certificate: x509.Certificate) -> str:
    return common_name(certificate.subject) or readable(certificate.subject) or "(no name)"


def _in_words(names: list[str], links: list[bool], end: str) -> str:
    words = [f"Chain of {len(names)} certificate{'s' if names[1:] else ''}: {names[0]}"]
    for name, linked in zip(names[1:], links, strict=True):
        words.append(f", {'signed by' if linked else 'NOT signed by'} {name}")
    return "".join(words) + f". {end}."


def _end(last: x509.Certificate) -> str:
    if is_issued_by(last, last):
        return "is signed by itself: the chain ends here"
    issuer = common_name(last.issuer) or readable(last.issuer)
    return f"names an issuer that is not in this chain: {issuer}"


def _svg(certificates: Sequence[x509.Certificate], names: list[str], links: list[bool]) -> str:
    height = len(names) * (_BOX + _GAP) + _MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}" font-family="system-ui, sans-serif">',
        # a ground of its own: the picture can't know whether the Lab is light or dark
        f'<rect width="{_WIDTH}" height="{height}" rx="8" fill="#f7f9fa"/>',
    ]
    for position, certificate in enumerate(certificates):
        top = _MARGIN + position * (_BOX + _GAP)
        parts.append(_box(certificate, names[position], top))
        if position < len(links):
            parts.append(_arrow(top + _BOX, links[position]))
    parts.append(_text(_MARGIN + 14, height - 26, _end(certificates[-1]), 14, _MUTED))
    return "".join(parts) + "</svg>"


def _box(certificate: x509.Certificate, name: str, top: int) -> str:
    colour = "#00646e" if is_ca(certificate) else "#4a4a8a"
    frame = (
        f'<rect x="{_MARGIN}" y="{top}" width="{_WIDTH - 2 * _MARGIN}" height="{_BOX}" rx="6" fill="#ffffff" '
        f'stroke="{colour}" stroke-width="2"/>'
    )
    label = f'<text x="{_WIDTH - _MARGIN - 12}" y="{top + 30}" font-size="13" fill="{colour}" text-anchor="end">'
    return (
        f"{frame}{label}{_kind(certificate)}</text>"
        + _text(_MARGIN + 14, top + 30, name, 18, _INK, beside=60)  # the kind's word stands at the right
        + _text(_MARGIN + 14, top + 54, _rest_of(certificate.subject), 13, _MUTED)
    )


def _kind(certificate: x509.Certificate) -> str:
    if is_ca(certificate):
        return "CA"
    with suppress(x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        if ExtendedKeyUsageOID.SERVER_AUTH in purposes:
            return "server"
    return "device"


def _rest_of(subject: x509.Name) -> str:
    """Give what of ``subject`` is not in the title already."""
    if common_name(subject) is None:
        return ""
    return readable(x509.Name([a for a in subject if a.oid != NameOID.COMMON_NAME]))


def _arrow(top: int, linked: bool) -> str:
    colour, middle, end = _GOOD if linked else _BAD, _MARGIN + 40, top + _GAP - 4
    dashes = "" if linked else ' stroke-dasharray="5 5"'
    words = "signed by" if linked else "✗ broken: not signed by the next certificate"
    return (
        f'<line x1="{middle}" y1="{top + 4}" x2="{middle}" y2="{end - 8}" stroke="{colour}" stroke-width="2"{dashes}/>'
        f'<path d="M{middle - 6} {end - 10} L{middle + 6} {end - 10} L{middle} {end} Z" fill="{colour}"/>'
        + _text(middle + 20, top + _GAP // 2 + 5, words, 14, colour)
    )


def _text(x: int, y: int, words: str, size: int, colour: str, beside: int = 0) -> str:
    """Write one line from ``x`` to the right edge of the box, less what stands ``beside`` it there."""
    words = fitted(visible(words), (_WIDTH - x - _MARGIN - 12 - beside) / size)
    return f'<text x="{x}" y="{y}" font-size="{size}" fill="{colour}">{escape(words)}</text>'


def fitted(text: str, widest: float) -> str:
    """Shorten ``text`` in its middle until it is at most ``widest`` em wide: names differ at their ends."""
    if width(text) <= widest:
        return text
    half = len(text) // 2
    while width(text[:half] + "…" + text[-half:]) > widest:
        half -= 1
    return text[:half] + "…" + text[-half:]


def width(text: str) -> float:
    """Estimate the width of ``text`` in em, rather too wide: which font the reader has is not known."""
    return sum(_character_width(character) for character in text)


def _character_width(character: str) -> float:
    if unicodedata.east_asian_width(character) in "WF" or character in "mwMW@%…":
        return 1.0
    return 0.75 if character.isupper() else 0.6
