"""The signing database as a table that stands still: the newest first, the status in words."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mciot_nb.pki.rows import hex_serial
from mciot_nb.ui.markup import Shown, grid, visible

if TYPE_CHECKING:
    import pandas as pd

_TITLE = "Signed certificates, the newest first"
_COLUMNS = ("Serial", "Status", "Days left", "Common name", "Subject", "Expires", "Revoked")
_STATUS = {"V": "✓ valid", "R": "✗ revoked", "E": "✗ expired"}
_MOST_ROWS = 50  # a notebook is no place for thousands: the frame itself holds them all


def signing_table(frame: "pd.DataFrame", *, at: datetime | None = None) -> Shown:
    """Show the signing database, as ``database.to_frame()`` gives it: the newest first, the status in words.

    ``at`` is the time from which the days that are left are counted, now by default.
    """
    if frame.empty:
        return Shown("No certificate is signed yet.", "<p>No certificate is signed yet.</p>")
    newest = frame.iloc[::-1].head(_MOST_ROWS).to_dict("records")
    rows = [_cells(row, at or datetime.now(UTC)) for row in newest]
    older = len(frame) - len(rows)
    more = f"… and {older} older: the table itself holds them all." if older else ""
    text, html = _aligned([[visible(text) for text in row] for row in (_COLUMNS, *rows)]), grid(_TITLE, _COLUMNS, rows)
    return Shown(f"{text}\n{more}", f"{html}<p>{more}</p>") if more else Shown(text, html)


def _cells(row: Mapping[Any, Any], now: datetime) -> list[str]:
    status = "E" if row["status"] == "V" and row["expires"] < now else row["status"]
    days = math.ceil((row["expires"] - now).total_seconds() / 86400)
    reason = f": {row['reason']}" if status == "R" and isinstance(row["reason"], str) and row["reason"] else ""
    return [
        hex_serial(int(row["serial"])),
        _STATUS[status] + reason,
        str(days) if status == "V" else "-",
        str(row["common_name"] or "-"),
        str(row["subject"]),
        _time(row["expires"]),
        _time(row["revoked"]),
    ]


def _time(time: "datetime | pd.Timestamp | None") -> str:
    return f"{time:%Y-%m-%d %H:%M:%S} UTC" if time is not None and time == time else "-"  # NaT is not equal to itself


def _aligned(lines: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in lines]
    return "\n".join(line.rstrip() for line in padded)
