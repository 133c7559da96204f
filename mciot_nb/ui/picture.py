"""A chain of certificates as a picture, drawn by hand: it shows in an untrusted notebook too, and needs no network."""

import base64
from collections.abc import Sequence
from itertools import pairwise

from cryptography import x509

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
    text = visible(_in_words(names, links, _end(names[-1], certificates[-1])))
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


def _end(name: str, last: x509.Certificate) -> str:
    if is_issued_by(last, last):
        return f"{name} is signed by itself: the chain ends here"
    return f"{name} names as its issuer {common_name(last.issuer) or readable(last.issuer)}, which is not in this chain"


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
    parts.append(_text(_MARGIN + 14, height - 26, _shortened(_end(names[-1], certificates[-1]), 84), 14, _MUTED))
    return "".join(parts) + "</svg>"


def _box(certificate: x509.Certificate, name: str, top: int) -> str:
    colour = "#00646e" if is_ca(certificate) else "#4a4a8a"
    kind = "CA" if is_ca(certificate) else "device or server"
    frame = (
        f'<rect x="{_MARGIN}" y="{top}" width="{_WIDTH - 2 * _MARGIN}" height="{_BOX}" rx="6" fill="#ffffff" '
        f'stroke="{colour}" stroke-width="2"/>'
    )
    label = f'<text x="{_WIDTH - _MARGIN - 12}" y="{top + 30}" font-size="13" fill="{colour}" text-anchor="end">'
    return (
        f"{frame}{label}{kind}</text>"
        + _text(_MARGIN + 14, top + 30, _shortened(name, 44), 18, _INK)
        + _text(_MARGIN + 14, top + 54, _shortened(readable(certificate.subject), 72), 13, _MUTED)
    )


def _arrow(top: int, linked: bool) -> str:
    colour, middle, end = _GOOD if linked else _BAD, _MARGIN + 40, top + _GAP - 4
    dashes = "" if linked else ' stroke-dasharray="5 5"'
    words = "signed by" if linked else "✗ broken: not signed by the next certificate"
    return (
        f'<line x1="{middle}" y1="{top + 4}" x2="{middle}" y2="{end - 8}" stroke="{colour}" stroke-width="2"{dashes}/>'
        f'<path d="M{middle - 6} {end - 10} L{middle + 6} {end - 10} L{middle} {end} Z" fill="{colour}"/>'
        + _text(middle + 20, top + _GAP // 2 + 5, words, 14, colour)
    )


def _text(x: int, y: int, words: str, size: int, colour: str) -> str:
    return f'<text x="{x}" y="{y}" font-size="{size}" fill="{colour}">{escape(words)}</text>'


def _shortened(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"
