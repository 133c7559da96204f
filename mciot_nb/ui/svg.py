"""Pictures drawn by hand as SVG: they show in an untrusted notebook and in an export too, and need no network."""

import base64
import unicodedata
from collections.abc import Iterable

from mciot_nb.ui.markup import escape, visible

#: Colours by their purpose, on a light ground and on a dark one; words have a contrast of 4.5:1 at least on either.
COLOURS = {
    "ground": ("#f7f9fa", "#1e2429"),
    "paper": ("#ffffff", "#12171b"),
    "ink": ("#1b1b1b", "#f1f3f4"),
    "muted": ("#4f5b66", "#b4c0c9"),
    "good": ("#1b5e20", "#8fd694"),
    "bad": ("#b71c1c", "#ff8a80"),
    "ca": ("#00646e", "#6fd3dd"),
    "end": ("#4a4a8a", "#b9b9ff"),
}
# An image sees no theme, only the colour scheme that the page gives it: the Lab does so, a page that was exported in
# the dark theme needs this. Where nobody does, the picture stays light, on a ground of its own.
_FOLLOW_THE_PAGE = '<style>[data-jp-theme-light="false"] .mciot-picture{color-scheme:dark}</style>'


def image(parts: Iterable[str], size: tuple[int, int], alt: str) -> str:
    """Make an image, as HTML, of SVG shapes whose classes are names of `COLOURS`; ``size`` is in pixels."""
    (wide, high), shapes = size, "".join(parts)
    used = {name: colours for name, colours in COLOURS.items() if f'class="{name}"' in shapes}
    light, dark = ("".join(f".{name}{{color:{pair[n]}}}" for name, pair in used.items()) for n in (0, 1))
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide}" height="{high}" viewBox="0 0 {wide} {high}" '
        f'font-family="system-ui, sans-serif" fill="currentColor" stroke-width="2">'
        f"<style>{light}@media(prefers-color-scheme:dark){{{dark}}}</style>{shapes}</svg>"
    )
    source = f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
    return (
        f'{_FOLLOW_THE_PAGE}<img class="mciot-picture" src="{source}" alt="{escape(alt)}" width="{wide}" '
        'style="max-width:100%">'
    )


def words(x: int, y: int, text: str, size: int, colour: str, room: int, anchor: str = "start") -> str:
    """Write one line at ``x``, shortened to ``room`` pixels."""
    shown = escape(fitted(visible(text), room / size))
    at = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text x="{x}" y="{y}" font-size="{size}" class="{colour}"{at}>{shown}</text>'


def fitted(text: str, widest: float) -> str:
    """Shorten ``text`` in its middle until it is at most ``widest`` em wide: names differ at their ends."""
    if width(text) <= widest:
        return text
    half = len(text) // 2
    while half and width(text[:half] + "…" + text[-half:]) > widest:
        half -= 1
    return text[:half] + "…" + text[len(text) - half :]


def width(text: str) -> float:
    """Estimate the width of ``text`` in em, rather too wide: which font the reader has is not known."""
    return sum(_character_width(character) for character in text)


def _character_width(character: str) -> float:
    if unicodedata.east_asian_width(character) in "WF" or character in "mwMW@%…":
        return 1.0
    if character in " .,:;!|'()[]/-filjtr":
        return 0.45
    return 0.75 if character.isupper() else 0.65
