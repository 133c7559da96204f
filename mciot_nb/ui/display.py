"""How certificates, diagnoses, chains and the signing database look in a notebook."""

import math
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cryptography import x509

from mciot_nb.connect.server import ServerCertificate
from mciot_nb.errors import OnboardingError
from mciot_nb.pki.chain import Diagnosis
from mciot_nb.pki.names import label
from mciot_nb.pki.policy import Preview
from mciot_nb.pki.rows import hex_serial
from mciot_nb.pki.store import Store
from mciot_nb.ui.card import certificate_html, certificate_line, certificate_text
from mciot_nb.ui.markup import Row, Shown, escape, plain, table, visible
from mciot_nb.ui.picture import chain_picture
from mciot_nb.ui.stores import password_table, server_html, server_text, store_html, store_text

if TYPE_CHECKING:
    import pandas as pd
    from IPython.core.interactiveshell import InteractiveShell

__all__ = [
    "card",
    "chain_picture",
    "diagnosis_html",
    "diagnosis_text",
    "password_table",
    "register",
    "sentence",
    "signing_table",
]

_STATUS = {"V": "✓ valid", "R": "✗ revoked", "E": "✗ expired"}
_PREVIEW = "What signing would make of it"
_MOST_ROWS = 50  # a notebook is no place for thousands: the frame itself holds them all


def register(ip: "InteractiveShell") -> None:
    """Let a notebook show the types that the helper's functions return, as they are."""
    assert ip.display_formatter
    formatters = ip.display_formatter.formatters
    html, text = formatters["text/html"], formatters["text/plain"]
    html.for_type(x509.Certificate, certificate_html)
    text.for_type(x509.Certificate, _pretty(certificate_text, certificate_line))
    html.for_type(Diagnosis, diagnosis_html)
    text.for_type(Diagnosis, _pretty(diagnosis_text, repr))
    html.for_type(Preview, lambda preview: table(_PREVIEW, preview_rows(preview)))
    text.for_type(Preview, _pretty(lambda preview: plain(_PREVIEW, preview_rows(preview)), repr))
    html.for_type(Store, store_html)
    text.for_type(Store, _pretty(store_text, repr))
    html.for_type(ServerCertificate, server_html)
    text.for_type(ServerCertificate, _pretty(server_text, repr))
    html.for_type(OnboardingError, lambda error: _paragraph(str(error), ' class="mciot-problem"'))
    text.for_type(OnboardingError, _pretty(lambda error: visible(str(error)), repr))


def _pretty(alone: Callable[[Any], str], inside: Callable[[Any], str]) -> Callable[[Any, Any, bool], None]:
    """Make IPython's kind of plain formatter; inside a list or a dict one line is enough."""

    def show(thing: Any, printer: Any, _cycle: bool) -> None:
        text = inside(thing) if len(printer.stack) > 1 else alone(thing)
        for position, line in enumerate(text.split("\n")):
            if position:
                printer.break_()
            printer.text(line)

    return show


def diagnosis_text(diagnosis: Diagnosis) -> str:
    """Show a verdict as plain text, a line for each finding."""
    if diagnosis.ok:
        return "✓ OK: nothing wrong was found."
    return "\n".join(f"✗ {finding.code}: {finding.sentence}" for finding in diagnosis.findings)


def diagnosis_html(diagnosis: Diagnosis) -> str:
    """Show a verdict as a list; a sign and a word say good or bad, not the colour alone."""
    lines = [("✗", finding.code, finding.sentence) for finding in diagnosis.findings]
    lines = lines or [("✓", "OK", "Nothing wrong was found.")]
    items = "".join(f"<li>{sign} <strong>{escape(code)}</strong> {escape(words)}</li>" for sign, code, words in lines)
    return f'<ul class="mciot-diagnosis" style="list-style:none;padding-left:0;overflow-wrap:anywhere">{items}</ul>'


def preview_rows(preview: Preview) -> list[Row]:
    """Give what the policy makes of a requested subject, field by field, and then what would stop the signing."""
    rows = [
        (label(a.oid), str(a.value), "vanishes: the policy does not list it" if a in preview.vanishing else "is kept")
        for a in preview.requested
    ]
    return rows + [("Refused", "", refusal) for refusal in preview.refusals]


def sentence(text: str) -> Shown:
    """Show a plain sentence that wraps between words; what is printed the Lab breaks at any character."""
    return Shown(visible(text), _paragraph(text))


def _paragraph(text: str, attributes: str = "") -> str:
    return f'<p{attributes} style="overflow-wrap:anywhere">{escape(text)}</p>'


def signing_table(frame: "pd.DataFrame", *, at: datetime | None = None) -> Shown:
    """Show the signing database, as ``database.to_frame()`` gives it: the newest first, the status in words.

    ``at`` is the time from which the days that are left are counted, now by default.
    """
    if frame.empty:
        return Shown("No certificate is signed yet.", "<p>No certificate is signed yet.</p>")
    shown = _signing_columns(frame.iloc[::-1].head(_MOST_ROWS), at or datetime.now(UTC))
    older = len(frame) - len(shown)
    more = f"… and {older} older: the table itself holds them all." if older else ""
    # Only the names wrap, for they may be longer than the page is wide; a serial or a word stays whole.
    left = [{"selector": "th, td", "props": "text-align:left;vertical-align:top"}]
    left += [
        {"selector": f"td.col{shown.columns.get_loc(name)}", "props": "overflow-wrap:anywhere;min-width:7em"}
        for name in ("Common name", "Subject")
    ]
    styler = shown.map(escape).style.hide(axis="index").set_uuid("db").set_table_styles(left)  # type: ignore[arg-type]
    text = _columns([list(shown.columns), *shown.map(visible).to_numpy().tolist()]) + (f"\n{more}" if more else "")
    return Shown(text, styler.to_html() + (f"<p>{more}</p>" if more else ""))


def _columns(lines: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in lines]
    return "\n".join(line.rstrip() for line in padded)


def _signing_columns(frame: "pd.DataFrame", now: datetime) -> "pd.DataFrame":
    import pandas as pd  # here, because it takes half a second and %load_ext needs no table

    rows = []
    for row in frame.to_dict("records"):
        status = "E" if row["status"] == "V" and row["expires"] < now else row["status"]
        days = math.ceil((row["expires"] - now).total_seconds() / 86400) if status == "V" else 0
        reason = f": {row['reason']}" if status == "R" and isinstance(row["reason"], str) and row["reason"] else ""
        rows.append(
            {
                "Serial": hex_serial(int(row["serial"])),
                "Status": _STATUS[status] + reason,
                "Days left": str(days) if status == "V" else "-",
                "Common name": str(row["common_name"] or "-"),
                "Subject": str(row["subject"]),
                "Expires": f"{row['expires']:%Y-%m-%d %H:%M:%S} UTC",
                "Revoked": "-" if pd.isna(row["revoked"]) else f"{row['revoked']:%Y-%m-%d %H:%M:%S} UTC",
            }
        )
    return pd.DataFrame(rows)


def card(title: str, rows: Iterable[Row]) -> Shown:
    """Show names, values and what they mean as a table: an MQTT client's settings, the state of the machine."""
    rows = list(rows)
    return Shown(plain(title, rows), table(title, rows))
