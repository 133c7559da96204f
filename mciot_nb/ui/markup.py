"""Text, HTML and SVG that are safe to show: what comes from a certificate or a person is escaped here, in one place.

Pictures are SVG inside an ``<img>``: an untrusted notebook and an export show them too, without a network.
"""

import base64
import html
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from IPython.core.getipython import get_ipython

from mciot_nb.pki.files import data_table


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
_EDGES = {"good": "#2e7d32", "bad": "#d32f2f", "plain": "#007a87"}  # the last is the accent
_TITLE = "font-weight:600;font-size:1.15em"  # as .mciot-title in ui.css; what explains is 0.92em, all else 1em
_LEFT = "text-align:left;vertical-align:top"  # the Lab would put the text of tables at the right
_WRAP = "overflow-wrap:anywhere"  # a name may be longer than the page is wide
#: A path breaks after the workspace, and before its last folder and its file's name.
_FILE = re.compile(r"(?<=workspace)(?=[/\\])|(?<=\w)(?=[/\\]([\w.-]+[/\\])?[\w.-]+\.\w+$)")


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
    rows, lines, table = list(rows), [visible(title)], list[str]()
    width = max((len(name) for name, *_ in rows), default=0) + 2
    for name, value, meaning in rows:
        shown = value if isinstance(value, Rendered) else Rendered(value, _FILE.sub("<wbr>", escape(value)))
        lines.append(f"  {visible(name):{width}}{visible(shown.text)}")
        lines += [f"  {'':{width}}{visible(meaning)}"] if meaning else []
        more = f'<br><small style="font-size:0.92em">{escape(meaning)}</small>' if meaning else ""
        head = _heading(name, more="" if table else ";width:15em")
        table.append(f'<tr>{head}<td style="{_LEFT};{_WRAP}">{shown.html}{more}</td></tr>')
    return Rendered("\n".join(lines), _table(title, f"<tbody>{''.join(table)}</tbody>"))


def folded(summary: str, rows: Sequence[Line]) -> str:
    """Return a card that is folded under its title; nothing where it has no rows."""
    head = f'<summary style="padding:0 6px">{escape(summary)}</summary>'
    return f"<details>{head}{card('', rows).html}</details>" if rows else ""


def _table(title: str, content: str) -> str:
    line = f"border-top:3px solid {_EDGES['plain']}"  # above all, as in a form
    style = f"caption-side:top;text-align:left;padding:8px 6px 4px;{line};{_TITLE}"
    caption = title and f'<caption style="{style}">{escape(title)}</caption>'
    style = f"width:100%;max-width:72em;table-layout:auto;margin:8px 0;{'' if title else line}"
    return f'<table class="mciot-card" style="{style}">{caption}{content}</table>'


def grid(title: str, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return an HTML table with a heading for each column; the first cell of a row is the row's heading."""
    heads = "".join(_heading(column, "col") for column in columns)
    lines = "".join(f"<tr>{_heading(first)}{''.join(map(_cell, rest))}</tr>" for first, *rest in rows)
    return _table(title, f"<thead><tr>{heads}</tr></thead><tbody>{lines}</tbody>")


#: How many rows of a long table a static picture shows: a notebook is no place for thousands.
MOST_ROWS = 50


def table(title: str, columns: Iterable[object], rows: Sequence[Sequence[str]]) -> Rendered:
    """Return the first rows of a table as `grid` shows them, and as text in columns."""
    shown, heads = rows[:MOST_ROWS], [*map(str, columns)]
    more = f"… and {len(rows) - MOST_ROWS} more." if rows[MOST_ROWS:] else ""
    lines = [[visible(text) for text in row] for row in (heads, *shown)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
    return Rendered(f"{text}\n{more}".rstrip(), grid(title, heads, shown) + (f"<p>{more}</p>" if more else ""))


def _heading(text: str, scope: str = "row", more: str = "") -> str:
    return f'<th scope="{scope}" style="{_LEFT}{more}">{escape(text)}</th>'


def _cell(text: str) -> str:
    """Return a cell no wider than it must be: a path may break before a slash, a line behind a comma, no date."""
    longest = max(re.split(r"\s|(?=/)", text), key=len)
    style = f";min-width:{0.6 * len(longest):.0f}em" if "-" in longest[1:] and longest[0] != "/" else ""
    if len(longest) > 20:
        style = f";min-width:7em;{_WRAP if len(longest) <= 40 else 'word-break:break-all'}"  # the latter untrusted too
    return f'<td style="{_LEFT}{style}">{escape(text).replace("/", "<wbr>/").replace(",", ",<wbr>")}</td>'


def copyable(text: str) -> Rendered:
    """Return a text that one click selects whole; where a notebook is not trusted, three clicks do."""
    title = "Click to select it whole (three times in an untrusted notebook), then copy it."
    half = (len(text) + 1) // 2 if text[48:] else None  # a long one breaks there, not inside a pair of a fingerprint
    halves = "<wbr>".join(map(escape, (text[:half], text[half:]) if half else (text,)))
    return Rendered(text, f'<code title="{title}" style="user-select:all;{_WRAP}">{halves}</code>')


def paragraph(text: str) -> Rendered:
    """Return a text as it is, and as a paragraph."""
    return Rendered(visible(text), f"<p>{escape(text)}</p>")


def boxed(kind: str, content: str) -> str:
    """Set HTML apart by an edge at its left; ``kind`` is good, bad or plain."""
    edge = f"border-left:4px solid {_EDGES[kind]};border-radius:2px 6px 6px 2px"
    box = f"{edge};max-width:64.5em;background:{_EDGES[kind]}14;padding:6px 14px;margin:8px 0"  # as wide as a card
    return f'<div style="{box};{_WRAP}">{content}</div>'


#: The widget that each cell shows, by the Lab's id of the cell; the server asks, for a page that is loaded again.
SHOWN: dict[str, str] = {}


class StaticPicture:
    """Mixed into a widget: what stands for it where no widget can live (GitHub, an exported page, nbval).

    The picture shows the widget's values as they are now, and never a secret.
    """

    model_id: str

    def picture(self) -> Rendered:
        """Return what stands for the widget."""
        raise NotImplementedError

    def __repr__(self) -> str:
        # no widget's id, no address: the same in every run
        return "\n".join(map(visible, self.picture().text.split("\n")))

    def _repr_mimebundle_(self, **_: Any) -> Any:
        view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        static = {"text/plain": repr(self), "text/html": self.picture().html}
        parent: dict[str, Any] = getattr(get_ipython(), "get_parent", dict)()
        SHOWN[parent.get("metadata", {}).get("cellId", "")] = self.model_id
        return {**static, "application/vnd.jupyter.widget-view+json": view}


#: Colours by their purpose, on a light ground and on a dark one; words have a contrast of 4.5:1 at least on either.
COLOURS = {row["name"]: (row["light"], row["dark"]) for row in data_table("colours.csv")}
# An image sees no theme, only the colour scheme that the page gives it. The Lab sets one; a page exported in the dark
# theme needs this rule. Elsewhere the picture stays light, on a ground of its own.
FOLLOW_THE_PAGE = '<style>[data-jp-theme-light="false"] .mciot-picture{color-scheme:dark}</style>'

#: The attributes of a shape that is drawn as a line, in the colour of its class.
OUTLINE = 'fill="none" stroke="currentColor"'


def image(parts: Iterable[str], size: tuple[int, int], alt: str) -> str:
    """Return an ``<img>`` of SVG shapes whose classes are names of `COLOURS`; ``size`` is in pixels."""
    (wide, high), shapes = size, "".join(parts)
    used = [name for name in COLOURS if f'class="{name}"' in shapes]
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide}" height="{high}" viewBox="0 0 {wide} {high}" '
        f'font-family="system-ui, sans-serif" fill="currentColor" stroke-width="2">'
        f"<style>{''.join(f'.{name}{{color:var(--{name})}}' for name in used)}</style>{shapes}</svg>"
    )
    return themed(svg, wide, alt)


def themed(svg: str, wide: int, alt: str) -> str:
    """Return an ``<img>`` of an SVG whose colours are ``var(--name)``, with a name of `COLOURS`."""
    used = {name: pair for name, pair in COLOURS.items() if f"var(--{name})" in svg}
    light, dark = (";".join(f"--{name}:{pair[n]}" for name, pair in used.items()) for n in (0, 1))
    rules = f"<style>svg{{{light}}}@media(prefers-color-scheme:dark){{svg{{{dark}}}}}</style></svg>"
    source = f"data:image/svg+xml;base64,{base64.b64encode(svg.replace('</svg>', rules).encode()).decode()}"
    sizes = f'alt="{escape(alt)}" width="{wide}" style="max-width:100%"'
    return f'{FOLLOW_THE_PAGE}<img class="mciot-picture" src="{source}" {sizes}>'


def words(x: int, y: int, text: str, size: int, colour: str, room: int, anchor: str = "start") -> str:
    """Return one line of SVG text at ``x``, shortened to ``room`` pixels."""
    shown = escape(fitted(visible(text), room / size))
    at = f' text-anchor="{anchor}"' * (anchor != "start")
    return f'<text x="{x}" y="{y}" font-size="{size}" class="{colour}"{at}>{shown}</text>'


def fitted(text: str, widest: float) -> str:
    """Shorten ``text`` in its middle to ``widest`` em: names differ at their ends, and a subject loses whole fields."""
    if width(text) <= widest:
        return text
    half = len(text) // 2
    while half and width(text[:half] + "…" + text[-half:]) > widest:
        half -= 1
    left, right = text[:half], text[len(text) - half :]
    fields = left.rpartition(", ")[0], right.partition(", ")[2]
    return ", …, ".join(fields) if all(fields) else f"{left}…{right}"


def width(text: str) -> float:
    """Estimate the width of ``text`` in em, rather too wide: which font the reader has is not known."""
    return sum(_character_width(character) for character in text)


def _character_width(character: str) -> float:
    if unicodedata.east_asian_width(character) in "WF" or character in "mwMW@%…":
        return 1.0
    if character in " .,:;!|'()[]/-filjtr":
        return 0.45
    return 0.75 if character.isupper() else 0.65
