"""Text, HTML and SVG that are safe to show: what comes from a certificate or a person is escaped here, in one place.

Pictures are SVG inside an ``<img>``: an untrusted notebook and an export show them too, without a network.
"""

import base64
import html
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Rendered:
    """What a notebook shows: HTML, and plain text that says the same."""

    text: str
    html: str = field(repr=False)

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.text


#: One line of a table: its name, its value (in a `Line` more than text, maybe), and what it means (may be empty).
Row = tuple[str, str, str]
Line = tuple[str, str | Rendered, str]

# An untrusted notebook drops var(…), so these colours are literal. Each has a contrast of 3:1 at least with the ground
# of the Lab's light and dark theme, and none is the only sign.
_EDGES = {"good": "#2e7d32", "bad": "#d32f2f", "plain": "#757575"}
_LEFT = "text-align:left;vertical-align:top"  # the Lab would put the text of tables at the right
_WRAP = "overflow-wrap:anywhere"  # a name may be longer than the page is wide


def visible(text: str) -> str:
    """Return ``text`` with each control or format character (Unicode category C) as a replacement character."""
    return "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(c)[0] == "C" else c for c in text)


def escape(text: str) -> str:
    """Return ``text`` made safe inside HTML and SVG, in attributes too."""
    return html.escape(visible(text))


def counted(number: int, one: str, more: str) -> str:
    """Return a number with its noun."""
    return f"{number} {one if number == 1 else more}"


def listed(words: list[str]) -> str:
    """Return the words one after the other, with an "and" before the last."""
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def card(title: str, rows: Iterable[Line]) -> Rendered:
    """Return a table of names, values and what they mean: an MQTT client's settings, the state of the machine.

    Example: ``card("MQTT client", [("Port", "8883", "MQTT over TLS")])``.
    """
    rows, lines, table = list(rows), [visible(title)], []
    width = max((len(name) for name, *_ in rows), default=0) + 2
    for name, value, meaning in rows:
        shown = value if isinstance(value, Rendered) else Rendered(value, escape(value))
        lines.append(f"  {visible(name):{width}}{visible(shown.text)}")
        lines += [f"  {'':{width}}{visible(meaning)}"] if meaning else []
        more = f"<br><small>{escape(meaning)}</small>" if meaning else ""
        table.append(f'<tr>{_heading(name)}<td style="{_LEFT};{_WRAP}">{shown.html}{more}</td></tr>')
    return Rendered("\n".join(lines), _table(title, f"<tbody>{''.join(table)}</tbody>"))


def _table(title: str, content: str) -> str:
    style = "caption-side:top;text-align:left;padding:4px 0;font-weight:600"
    caption = f'<caption style="{style}">{escape(title)}</caption>'
    return f'<table class="mciot-card" style="border:1px solid #757575;margin:4px 0">{caption}{content}</table>'


def grid(title: str, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return an HTML table with a heading for each column; the first cell of a row is the row's heading."""
    heads = "".join(_heading(column, "col") for column in columns)
    lines = "".join(f"<tr>{_heading(first)}{''.join(map(_cell, rest))}</tr>" for first, *rest in rows)
    return _table(title, f"<thead><tr>{heads}</tr></thead><tbody>{lines}</tbody>")


def _heading(text: str, scope: str = "row") -> str:
    return f'<th scope="{scope}" style="{_LEFT}">{escape(text)}</th>'


def _cell(text: str) -> str:
    """Return a cell no wider than it must be: a subject or path may break before each slash, a date stays whole."""
    longest = max(re.split(r"\s|(?=/)", text), key=len)
    style = f";min-width:{0.6 * len(longest):.0f}em" if "-" in longest[1:] and longest[0] != "/" else ""
    if len(longest) > 20:
        style = f";min-width:7em;{_WRAP if len(longest) <= 40 else 'word-break:break-all'}"  # the latter untrusted too
    return f'<td style="{_LEFT}{style}">{escape(text).replace("/", "<wbr>/")}</td>'


def copyable(text: str) -> Rendered:
    """Return a text that one click selects whole; where a notebook is not trusted, three clicks do."""
    title = "Click to select it whole (three times in an untrusted notebook), then copy it."
    return Rendered(text, f'<code title="{title}" style="user-select:all;word-break:break-all">{escape(text)}</code>')


def paragraph(text: str) -> Rendered:
    """Return a text as it is, and as a paragraph."""
    return Rendered(text, f"<p>{escape(text)}</p>")


def boxed(kind: str, content: str) -> str:
    """Set HTML apart by an edge at its left; ``kind`` is good, bad or plain."""
    return f'<div style="border-left:4px solid {_EDGES[kind]};padding:2px 12px;margin:4px 0;{_WRAP}">{content}</div>'


class StaticPicture:
    """Mixed into a widget: what stands for it where no widget can live (GitHub, an exported page, nbval).

    The picture shows the widget's values as they are now, and never a secret.
    """

    model_id: str

    def picture(self) -> Rendered:
        """Return what stands for the widget."""
        raise NotImplementedError

    def static_text(self) -> str:
        """Return the picture as one or a few lines of plain text."""
        return self.picture().text

    def static_html(self) -> str:
        """Return the picture as HTML."""
        return self.picture().html

    def __repr__(self) -> str:
        # no widget's id, no address: the same in every run
        return "\n".join(map(visible, self.static_text().split("\n")))

    def _repr_mimebundle_(self, **_: Any) -> Any:
        view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        static = {"text/plain": repr(self), "text/html": self.static_html()}
        return {**static, "application/vnd.jupyter.widget-view+json": view}


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
# An image sees no theme, only the colour scheme that the page gives it. The Lab sets one; a page exported in the dark
# theme needs this rule. Elsewhere the picture stays light, on a ground of its own.
FOLLOW_THE_PAGE = '<style>[data-jp-theme-light="false"] .mciot-picture{color-scheme:dark}</style>'

#: The attributes of a shape that is drawn as a line, in the colour of its class.
OUTLINE = 'fill="none" stroke="currentColor"'


def image(parts: Iterable[str], size: tuple[int, int], alt: str) -> str:
    """Return an ``<img>`` of SVG shapes whose classes are names of `COLOURS`; ``size`` is in pixels."""
    (wide, high), shapes = size, "".join(parts)
    used = {name: colours for name, colours in COLOURS.items() if f'class="{name}"' in shapes}
    light, dark = ("".join(f".{name}{{color:{pair[n]}}}" for name, pair in used.items()) for n in (0, 1))
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide}" height="{high}" viewBox="0 0 {wide} {high}" '
        f'font-family="system-ui, sans-serif" fill="currentColor" stroke-width="2">'
        f"<style>{light}@media(prefers-color-scheme:dark){{{dark}}}</style>{shapes}</svg>"
    )
    source = f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
    sizes = f'alt="{escape(alt)}" width="{wide}" style="max-width:100%"'
    return f'{FOLLOW_THE_PAGE}<img class="mciot-picture" src="{source}" {sizes}>'


def words(x: int, y: int, text: str, size: int, colour: str, room: int, anchor: str = "start") -> str:
    """Return one line of SVG text at ``x``, shortened to ``room`` pixels."""
    shown = escape(fitted(visible(text), room / size))
    at = f' text-anchor="{anchor}"' * (anchor != "start")
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
