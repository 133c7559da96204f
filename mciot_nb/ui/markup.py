"""HTML that is safe to show: what comes from a certificate or a person is escaped here, in one place."""

import html
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

#: One line of a table: what it is, its value, and what it means (may be empty).
Row = tuple[str, str, str]
#: The same where the value may be more than text.
Line = tuple[str, "str | Rendered", str]

# Colours stand here as such where an untrusted notebook shall have them: it drops var(…). Each can be told from the
# ground in the Lab's light and dark theme (3:1 at least); none is the only sign.
_EDGES = {"good": "#2e7d32", "bad": "#d32f2f", "plain": "#757575"}
_LEFT = "text-align:left;vertical-align:top"  # the Lab would put the text of tables at the right
_TABLE = "border:1px solid #757575;margin:4px 0"
_WRAP = "overflow-wrap:anywhere"  # a name may be longer than the page is wide


def visible(text: str) -> str:
    """Replace what can't be seen, or turns the text around (control and format characters), by a question mark."""
    return "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(c)[0] == "C" else c for c in text)


def escape(text: str) -> str:
    """Make ``text`` safe inside HTML and SVG, in attributes too."""
    return html.escape(visible(text))


def table(title: str, rows: Iterable[Line]) -> str:
    """Write a table of names and values; it reads well without any style too, as on GitHub."""
    lines = "".join(_line(*row) for row in rows)
    return f'<table class="mciot-card" style="{_TABLE}">{_caption(title)}<tbody>{lines}</tbody></table>'


def _caption(title: str) -> str:
    return f'<caption style="caption-side:top;text-align:left;padding:4px 0;font-weight:600">{escape(title)}</caption>'


def _line(name: str, value: "str | Rendered", meaning: str) -> str:
    shown = value.html if isinstance(value, Rendered) else escape(value)
    more = f"<br><small>{escape(meaning)}</small>" if meaning else ""
    cell = f'<td style="{_LEFT};{_WRAP}">{shown}{more}</td>'
    return f'<tr><th scope="row" style="{_LEFT}">{escape(name)}</th>{cell}</tr>'


def plain(title: str, rows: Iterable[Line]) -> str:
    """Write the same table as plain text."""
    rows = list(rows)
    width = max((len(name) for name, *_ in rows), default=0) + 2
    lines = [visible(title)]
    for name, value, meaning in rows:
        lines.append(f"  {visible(name):{width}}{visible(value.text if isinstance(value, Rendered) else value)}")
        lines += [f"  {'':{width}}{visible(meaning)}"] if meaning else []
    return "\n".join(lines)


def grid(title: str, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Write a table with a heading for each column; the first cell of a row is the row's heading."""
    heads = "".join(f'<th scope="col" style="{_LEFT}">{escape(column)}</th>' for column in columns)
    lines = []
    for first, *rest in rows:
        cells = "".join(_cell(text) for text in rest)
        lines.append(f'<tr><th scope="row" style="{_LEFT}">{escape(first)}</th>{cells}</tr>')
    body = f"<thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return f'<table class="mciot-card" style="{_TABLE}">{_caption(title)}{body}</table>'


def _cell(text: str) -> str:
    """Write a cell no wider than it must be: a subject or path may break before each slash, a date stays whole."""
    longest = max(re.split(r"\s|(?=/)", text), key=len)
    style = f";min-width:{0.6 * len(longest):.0f}em" if "-" in longest[1:] and longest[0] != "/" else ""
    if len(longest) > 20:
        style = f";min-width:7em;{_WRAP if len(longest) <= 40 else 'word-break:break-all'}"  # the latter untrusted too
    return f'<td style="{_LEFT}{style}">{escape(text).replace("/", "<wbr>/")}</td>'


def copyable(text: str) -> "Rendered":
    """Show a text that one click selects whole; where a notebook is not trusted, three clicks do."""
    title = "Click to select it whole (three times in an untrusted notebook), then copy it."
    return Rendered(text, f'<code title="{title}" style="user-select:all;word-break:break-all">{escape(text)}</code>')


def listed(words: list[str]) -> str:
    """Write words one after the other, with an "and" before the last; nothing where there is none."""
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def boxed(kind: str, content: str) -> str:
    """Set HTML apart by an edge at its left; ``kind`` is good, bad or plain."""
    return f'<div style="border-left:4px solid {_EDGES[kind]};padding:2px 12px;margin:4px 0;{_WRAP}">{content}</div>'


@dataclass(frozen=True)
class Rendered:
    """Something to look at in a notebook: HTML, and plain text that says the same."""

    text: str
    html: str = field(repr=False)

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.text


class StaticPicture:
    """Mixed into a widget: what stands for it where no widget can live (GitHub, an exported page, nbval).

    The picture shows the widget's values as they are now, and never a secret.
    """

    model_id: str

    def static_text(self) -> str:
        """Give the picture as one or a few lines of plain text."""
        raise NotImplementedError

    def static_html(self) -> str:
        """Give the picture as HTML."""
        return f"<p>{escape(self.static_text())}</p>"

    def __repr__(self) -> str:
        lines = self.static_text().split("\n")  # the same in every run: no id of the widget, no address in memory
        return "\n".join(map(visible, lines))

    def _repr_mimebundle_(self, **_: Any) -> Any:
        view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        return {
            "text/plain": repr(self),
            "text/html": self.static_html(),
            "application/vnd.jupyter.widget-view+json": view,
        }
