"""HTML that is safe to show: what comes from a certificate or a person is escaped here, in one place."""

import html
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

#: One line of a table: what it is, its value, and what it means (may be empty).
Row = tuple[str, str, str]

_BORDER = "1px solid var(--jp-border-color1, #bdbdbd)"
_LEFT = "text-align:left;vertical-align:top"  # the Lab would put the text of tables at the right


def visible(text: str) -> str:
    """Replace what can't be seen, or turns the text around (control and format characters), by a question mark."""
    return "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(c)[0] == "C" else c for c in text)


def escape(text: str) -> str:
    """Make ``text`` safe inside HTML and SVG, in attributes too."""
    return html.escape(visible(text))


def table(title: str, rows: Iterable[Row]) -> str:
    """Write a table of names and values; it reads well without any style too, as on GitHub."""
    lines = "".join(_line(*row) for row in rows)
    return (
        f'<table class="mciot-card" style="border:{_BORDER};margin:4px 0">'
        f'<thead><tr><th colspan="2" style="{_LEFT}">{escape(title)}</th></tr></thead><tbody>{lines}</tbody></table>'
    )


def _line(name: str, value: str, meaning: str) -> str:
    more = f"<br><small>{escape(meaning)}</small>" if meaning else ""
    cell = f'<td style="{_LEFT};overflow-wrap:anywhere">{escape(value)}{more}</td>'
    return f'<tr><th scope="row" style="{_LEFT}">{escape(name)}</th>{cell}</tr>'


def plain(title: str, rows: Iterable[Row]) -> str:
    """Write the same table as plain text."""
    rows = list(rows)
    width = max((len(name) for name, *_ in rows), default=0) + 2
    lines = [visible(title)]
    for name, value, meaning in rows:
        lines.append(f"  {name:{width}}{visible(value)}")
        lines += [f"  {'':{width}}{visible(meaning)}"] if meaning else []
    return "\n".join(lines)


@dataclass(frozen=True)
class Shown:
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
        return self.static_text()  # the same in every run: no id of the widget, no address in memory

    def _repr_mimebundle_(self, **_: Any) -> Any:
        view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        return {
            "text/plain": self.static_text(),
            "text/html": self.static_html(),
            "application/vnd.jupyter.widget-view+json": view,
        }
