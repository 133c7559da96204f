"""The signing database as a table that stands still: the newest first, the status in words."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mciot_nb.ui.markup import Shown, grid, visible

if TYPE_CHECKING:
    import pandas as pd

_TITLE = "Signed certificates, the newest first"
_MOST_ROWS = 50  # a notebook is no place for thousands: the frame itself holds them all


def signing_table(frame: "pd.DataFrame", *, at: datetime | None = None) -> Shown:
    """Show the signing database, as ``database.to_frame()`` gives it: the newest first, the status in words.

    ``at`` is the time from which the days that are left are counted, now by default.
    """
    from mciot_nb.ui.signing_rows import signing_texts  # here, because pandas takes half a second

    if frame.empty:
        return Shown("No certificate is signed yet.", "<p>No certificate is signed yet.</p>")
    newest = signing_texts(frame.iloc[::-1].head(_MOST_ROWS), at or datetime.now(UTC))
    columns, rows = list(newest.columns), newest.to_numpy().tolist()
    older = len(frame) - len(rows)
    more = f"… and {older} older: the table itself holds them all." if older else ""
    text, html = _aligned([[visible(text) for text in row] for row in (columns, *rows)]), grid(_TITLE, columns, rows)
    return Shown(f"{text}\n{more}", f"{html}<p>{more}</p>") if more else Shown(text, html)


def _aligned(lines: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in lines]
    return "\n".join(line.rstrip() for line in padded)
