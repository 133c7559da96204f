"""What a notebook shows of the helper's types, and the displays that are called by name."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from cryptography import x509

from mciot_nb.connect.server import ServerCertificate
from mciot_nb.errors import OnboardingError
from mciot_nb.pki.chain import Diagnosis
from mciot_nb.pki.names import label
from mciot_nb.pki.policy import Preview
from mciot_nb.pki.store import Store
from mciot_nb.ui.card import certificate_html, certificate_line, certificate_text
from mciot_nb.ui.markup import Line, Row, Shown, boxed, escape, plain, table, visible
from mciot_nb.ui.picture import chain_picture
from mciot_nb.ui.signing_table import signing_table
from mciot_nb.ui.stores import password_table, server_html, server_text, store_html, store_text
from mciot_nb.ui.verdict import diagnosis_html, diagnosis_text, problem_html, problem_text, sentence

if TYPE_CHECKING:
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
    "two_sides",
]

_PREVIEW = "What signing would make of it"


def preview_rows(preview: Preview) -> list[Row]:
    """Give what the policy makes of a requested subject, field by field, and then what would stop the signing."""
    fates = {True: "⚠ vanishes: the policy does not list it", False: "✓ is kept"}
    rows = [(label(a.oid), str(a.value), fates[a in preview.vanishing]) for a in preview.requested]
    return rows + [("Refused", f"✗ {refusal}", "") for refusal in preview.refusals]


#: How each type looks: as HTML, as plain text, and in one line inside a list or a dict.
_LOOKS: dict[type, tuple[Callable[[Any], str], Callable[[Any], str], Callable[[Any], str]]] = {
    x509.Certificate: (certificate_html, certificate_text, certificate_line),
    Diagnosis: (diagnosis_html, diagnosis_text, repr),
    Preview: (lambda preview: table(_PREVIEW, preview_rows(preview)), lambda p: plain(_PREVIEW, preview_rows(p)), repr),
    Store: (store_html, store_text, repr),
    ServerCertificate: (server_html, server_text, repr),
    OnboardingError: (problem_html, problem_text, repr),
}


def register(ip: "InteractiveShell") -> None:
    """Let a notebook show the types that the helper's functions return, as they are."""
    assert ip.display_formatter
    formatters = ip.display_formatter.formatters
    for kind, (html, text, inside) in _LOOKS.items():
        formatters["text/html"].for_type(kind, html)
        formatters["text/plain"].for_type(kind, _pretty(text, inside))


def _pretty(alone: Callable[[Any], str], inside: Callable[[Any], str]) -> Callable[[Any, Any, bool], None]:
    """Make IPython's kind of plain formatter; inside a list or a dict one line is enough."""

    def show(thing: Any, printer: Any, _cycle: bool) -> None:
        text = inside(thing) if len(printer.stack) > 1 else alone(thing)
        for position, line in enumerate(text.split("\n")):
            if position:
                printer.break_()
            printer.text(line)

    return show


def card(title: str, rows: Iterable[Line]) -> Shown:
    """Show names, values and what they mean as a table: an MQTT client's settings, the state of the machine."""
    rows = list(rows)
    return Shown(plain(title, rows), table(title, rows))


def two_sides(left_title: str, left: object, right_title: str, right: object) -> Shown:
    """Show two things beside each other, or below each other on a narrow page: both ends of one refusal, say.

    Each may be a text, anything that is shown by this module, or of a type that a notebook shows as it is here: an
    OnboardingError, a Diagnosis, a certificate, a store.
    """
    sides = [(left_title, _shown(left)), (right_title, _shown(right))]
    lines = [line for title, shown in sides for line in (visible(title), *(f"  {x}" for x in shown.text.split("\n")))]
    columns = "".join(
        f'<div style="flex:1 1 22em;min-width:0"><strong>{escape(title)}</strong>{shown.html}</div>'
        for title, shown in sides
    )
    return Shown("\n".join(lines), f'<div style="display:flex;flex-wrap:wrap;gap:8px 24px">{columns}</div>')


def _shown(thing: object) -> Shown:
    if isinstance(thing, Shown):
        return thing
    for kind, (html, text, _) in _LOOKS.items():
        if isinstance(thing, kind):
            return Shown(text(thing), html(thing))
    return Shown(visible(str(thing)), boxed("plain", escape(str(thing))))
