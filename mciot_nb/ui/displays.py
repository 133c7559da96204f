"""How a notebook shows what the helper's functions return: certificates, verdicts, problems, stores, sentences.

`render` makes text and HTML of the same lines; `register` lets a notebook use it for each type in `_DISPLAYS`.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography import x509

from mciot_nb.connect.server_certificate import SYSTEM, ServerCertificate
from mciot_nb.errors import POSSIBLE, Diagnosis, Finding, OnboardingError
from mciot_nb.pki.chain import fingerprint, is_issued_by, with_colons
from mciot_nb.pki.files import meanings, read_file
from mciot_nb.pki.jks import HIDDEN_ENTRY, KEY_ENTRY, TRUSTED_ENTRY, Entry
from mciot_nb.pki.keystore import Keystore
from mciot_nb.pki.names import label, name_of, readable
from mciot_nb.pki.rows import hex_serial
from mciot_nb.pki.signing import Preview
from mciot_nb.steps import Progress
from mciot_nb.ui.certificate_card import certificate_card, key_kind
from mciot_nb.ui.markup import Line, Rendered, boxed, card, copyable, counted, escape, folded, listed, visible
from mciot_nb.ui.pictures import progress_picture, trouble

if TYPE_CHECKING:
    import pandas as pd
    from IPython.core.interactiveshell import InteractiveShell

    from mciot_nb.connect.device import Device


def _diagnosis(diagnosis: Diagnosis) -> Rendered:
    """Return whether all is well, and then each finding; a sign and a word say good or bad, not the colour alone."""
    verdict, kind = f"{'✓' if diagnosis.ok else '✗'} {diagnosis.verdict}", "good" if diagnosis.ok else "bad"
    lines, items = [verdict], []
    for finding in diagnosis.findings:
        wrong, advice = what_to_do(finding)
        label = "How to tell" if finding.severity == POSSIBLE else "What to do"
        lines.append(f"  {visible(finding.code)}: {visible(wrong)}")
        lines += [f"    {label}: {visible(advice)}"] if advice else []
        more = f"<br><strong>{label}:</strong> {escape(advice)}" if advice else ""
        items.append(f'<li style="margin:6px 0"><code>{escape(finding.code)}</code>: {escape(wrong)}{more}</li>')
    findings = f'<ul style="margin:0;padding-left:1.5em">{"".join(items)}</ul>' if items else ""
    bold = 4 if diagnosis.ok else len(verdict)  # a sign and a word
    return Rendered("\n".join(lines), boxed(kind, f"<strong>{verdict[:bold]}</strong>{verdict[bold:]}{findings}"))


def what_to_do(finding: Finding) -> tuple[str, str]:
    """Split a finding's sentence, "what is wrong: what to do", in two; the second is empty where it gives no advice."""
    is_cause = finding.severity == POSSIBLE
    ends = finding.sentence.find(": ") if is_cause else max(finding.sentence.rfind(mark) for mark in (": ", "; "))
    if ends < 0:
        return finding.sentence, ""
    return f"{finding.sentence[:ends]}.", finding.sentence[ends + 2 :]


_BASE64 = re.compile(r"[A-Za-z0-9+/]{16,}={0,2}")
_KINDS = meanings("entry")


def _store(store: Keystore) -> Rendered:
    """Return what is in a store: in one sentence, and a table for each entry."""
    title = f"{store.path.name}: {store.type}, {counted(len(store.entries), 'entry', 'entries')}"
    remark, kinds = f"⚠ {store.remark}" if store.remark else "", [entry.kind for entry in store.entries]
    keys, trusted = kinds.count(KEY_ENTRY), kinds.count(TRUSTED_ENTRY)
    holds = [
        counted(keys, "private key with its chain", "private keys, each with its chain") if keys else "no private key",
        counted(trusted, "trusted certificate", "trusted certificates") if trusted else "no trusted certificate",
    ]
    if others := kinds.count(HIDDEN_ENTRY):
        holds.append(counted(others, "entry that Java does not see", "entries that Java does not see"))
    held = f"Holds {listed(holds)}."
    text = [visible(title), held, *filter(None, [visible(remark)])]
    said = [f'<strong style="font-size:1.07em">{escape(title)}</strong>', escape(held), *filter(None, [escape(remark)])]
    html = f'<p style="padding:8px 6px 0">{"<br>".join(said)}</p>'
    for entry in store.entries:
        name, rows, more = f"Entry {entry.alias or '(no alias)'}", [*_entry_rows(entry)], [*_more_of(entry)]
        text.append(card(name, rows + more).text)
        html += card(name, rows).html + folded("Validity, serial numbers and fingerprints", more)
    return Rendered("\n".join(text), html)


def _entry_rows(entry: Entry) -> Iterator[Line]:
    """Yield the entry's kind, and its chain."""
    yield "Kind", _KINDS.get(entry.kind, f"⚠ {entry.kind}"), ""
    if entry.kind == KEY_ENTRY:
        kind = f": {key_kind(entry.chain[0])}, by its certificate" if entry.chain else ""
        yield "Private key", f"✓ is in it{kind}", "kept under the password, and never shown"
    for (name, certificate), signed in zip(_numbered("Certificate", entry.chain), _signatures(entry), strict=True):
        yield name, readable(name_of(certificate)), "; ".join(filter(None, (trouble(certificate), signed)))


def _more_of(entry: Entry) -> Iterator[Line]:
    """Yield what differs from run to run."""
    for name, certificate in _numbered("Certificate", entry.chain):
        yield f"{name}, valid", _validity(certificate), ""
        yield f"{name}, SHA-256", copyable(with_colons(fingerprint(certificate, "sha256"))), ""
    if entry.created:
        yield "Created", f"{entry.created:%Y-%m-%d %H:%M:%S} UTC", ""


def _numbered(name: str, chain: Sequence[x509.Certificate]) -> list[tuple[str, x509.Certificate]]:
    return [(f"{name} {n} of {len(chain)}" if chain[1:] else name, one) for n, one in enumerate(chain, 1)]


def _signatures(entry: Entry) -> Iterator[str]:
    """Yield for each certificate in the chain who signed it."""
    own = "the private key's own; " if entry.kind == KEY_ENTRY else ""
    for certificate, following in zip_longest(entry.chain, entry.chain[1:]):
        if following and is_issued_by(certificate, following):
            yield f"{own}✓ signed by the next one"
        elif following and is_issued_by(certificate, following, unchecked=True):
            yield f"{own}names the next one as its issuer, by a signature that can't be checked here"
        elif following:
            yield f"{own}✗ not signed by the next one, the chain is broken: issued by {_issuer(certificate)}"
        elif is_issued_by(certificate, certificate):
            yield f"{own}✓ signed by itself"
        else:
            yield f"{own}signed by {readable(name_of(certificate, 'issuer'))}, whose certificate is not in this entry"
        own = ""


def _issuer(certificate: x509.Certificate) -> str:
    return "itself" if is_issued_by(certificate, certificate) else readable(name_of(certificate, "issuer"))


def _validity(certificate: x509.Certificate) -> str:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    serial = hex_serial(certificate.serial_number).lower()  # as keytool writes it
    state = f"{state}: " if (state := trouble(certificate)) else ""
    return f"{state}{begin:%Y-%m-%d %H:%M} UTC to {end:%Y-%m-%d %H:%M} UTC; serial number {serial}"


def _server_rows(server: ServerCertificate) -> Iterator[Line]:
    for name, certificate in _numbered("Shown", server.chain):
        yield name, readable(name_of(certificate)), f"issued by {_issuer(certificate)}; valid {_validity(certificate)}"
    whose = "This system's trust" if server.judge == SYSTEM else "Your file's trust"
    yield whose, f"✗ not trusted: {server.problem}" if server.problem else "✓ trusted", ""
    yield "Proof", f"✓ {server.proof}" if server.proof else "✗ none yet: ask the operator for the fingerprint", ""
    until = f"{server.certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    new = f"when the server gets a new one, by {until} at the latest, the device refuses it until its truststore has it"
    yield "If you trust the server", "this one certificate, and nothing else", new
    issuer = "not possible: the server does not prove which one it is", readable(name_of(server.certificate, "issuer"))
    if server.issuer == server.certificate:
        issuer = "the same: this certificate is self-signed", "it is its own issuer"
    elif server.issuer:
        relying = "the server may renew its certificate; you rely on the issuer not to give that name to anyone else"
        issuer = f"every certificate that {readable(name_of(server.issuer))} signs for {server.host}", relying
    yield "If you trust the issuer", *issuer
    compare = "of the server's own certificate; compare it with what its operator tells you"
    yield "SHA-256", copyable(server.fingerprint), compare


def _preview(preview: Preview) -> Rendered:
    """Return what the policy makes of a requested subject, field by field, and then what would stop the signing."""
    fates = {a: f"⚠ is dropped: {why}" for a, why in preview.vanishing.items()}
    rows = [(label(a.oid), str(a.value), fates.get(a, "✓ is kept")) for a in preview.requested]
    rows += [("Refused", f"✗ {refusal}", "") for refusal in preview.refusals]
    return card("What signing would make of it", rows)


def _text(thing: object, kind: str = "plain") -> Rendered:
    return Rendered(visible(str(thing)), boxed(kind, escape(str(thing))))


#: How each type looks that has a display.
_DISPLAYS: dict[type, Callable[[Any], Rendered]] = {
    x509.Certificate: certificate_card,
    Diagnosis: _diagnosis,
    Preview: _preview,
    Keystore: _store,
    ServerCertificate: lambda server: card(f"The certificate of {server.host}:{server.port}", _server_rows(server)),
    Progress: progress_picture,
    OnboardingError: lambda problem: _text(f"✗ {problem.with_code}", "bad"),
}


def render(thing: object) -> Rendered:
    """Return anything as a notebook shows it: by the display of its type, or else as text."""
    if isinstance(thing, Rendered):
        return thing
    return next((display for kind, display in _DISPLAYS.items() if isinstance(thing, kind)), _text)(thing)


def register(ip: "InteractiveShell") -> None:
    """Let a notebook show the types that the helper's functions return, as they are."""
    assert ip.display_formatter
    formatters = ip.display_formatter.formatters
    for kind in _DISPLAYS:
        formatters["text/html"].for_type(kind, lambda thing: render(thing).html)
        formatters["text/plain"].for_type(kind, _print)


def _print(thing: Any, printer: Any, _cycle: bool) -> None:
    """Print the display's text, as IPython's plain formatters do; inside a list or a dict one line is enough."""
    inside = len(printer.stack) > 1
    line = f"<Certificate {readable(name_of(thing))}>" if isinstance(thing, x509.Certificate) else repr(thing)
    for position, text in enumerate((line if inside else render(thing).text).split("\n")):
        if position:
            printer.break_()
        printer.text(text)


def first_lines(*paths: Path) -> Rendered:
    """Show how each file begins, and what it is; of a private key no more than its first line.

    Example: ``first_lines(ca.folder / "caKey.pem", ca.folder / "caCert.pem")``.
    """
    text, html = [], ""
    for path in map(Path, paths):
        data = read_file(path, "") if path.exists() else b""
        remark = _remark(path, data) if path.exists() else " is missing: run the cells above, or put it back"
        lines, said = list(islice(map(visible, _beginning(data)), 8)), path.name + remark
        text += [said, *(f"  {line}" for line in lines)]
        shown = "\n".join(map(escape, lines))
        html += f'<div><strong>{escape(said)}</strong><pre style="margin:0 0 8px;background:none">{shown}</pre></div>'
    return Rendered("\n".join(text), boxed("plain", html))


def _beginning(data: bytes) -> Iterator[str]:
    """Yield the lines to show; of what is encoded in base64 the first one, and none of a private key's."""
    inside = "a binary" if _is_binary(data) else ""
    if inside:
        yield f"{data[: 2 if data[0] == 0x30 else 4].hex(' ')} …"  # in DER a length follows
    for line in map(str.strip, data.decode(errors="replace").expandtabs(2).splitlines()):
        if mark := re.match("-----(BEGIN|END) [^-]*-----", line):
            inside = "" if mark[1] == "END" else "a key" if "PRIVATE" in line else "the first line"
            if inside or "PRIVATE" not in line:
                yield mark[0]
        elif inside == "the first line":
            yield from (line, "…")
            inside = "the rest"
        elif not inside and not _BASE64.fullmatch(line):  # a key may have lost the line that says so
            yield line


def _is_binary(data: bytes) -> bool:
    return bool({"\0", "\N{REPLACEMENT CHARACTER}"} & set(data.decode(errors="replace")))


def _remark(path: Path, data: bytes) -> str:
    """Return what a file is, if it is binary, and what protects it, if it holds a private key."""
    if b"PRIVATE KEY-----" not in data:
        return ": binary" if _is_binary(data) else ""
    locked = "encrypted" if b"ENCRYPTED" in data else "✗ NOT encrypted: anyone who can read it has the key"
    opened = os.name != "nt" and path.stat().st_mode & 0o077
    return f": a private key, {locked}{'; ✗ others on this machine can read the file: chmod 600' if opened else ''}"


def journey(device: "Device", arrived: "pd.DataFrame") -> Rendered:
    """Show the last measurement that arrived, with its time, and its way: device, TLS, platform, REST.

    Example: ``journey(device, tenant.devices.measurements(device.client_id))``.
    """
    if arrived.empty:
        return _text("No measurement has arrived yet: let the device send one.")
    last = arrived.iloc[-1]
    value, time = f"{last['value']:g} {last['unit']}", f"{last['time']:%Y-%m-%d %H:%M:%S} UTC"
    way = [device.client_id, "mutual TLS", f"platform at {device.host}:{device.port}", "REST", "here"]
    style = "border:1px solid #007a87;border-radius:12px;padding:1px 9px"
    stops = (f'<span style="{style}">{escape(stop)}</span>' for stop in way)
    big = f'<strong style="font-size:1.6em">{escape(value)}</strong> &nbsp; measured at {escape(time)}'
    text = visible(f"{value}, measured at {time}: {' → '.join(way)}")
    return Rendered(text, boxed("good", f'{big}<div style="margin:6px 0;line-height:2">{" → ".join(stops)}</div>'))


def two_sides(left_title: str, left: object, right_title: str, right: object) -> Rendered:
    """Show two things beside each other, or below each other on a narrow page: both ends of one refusal, say.

    Each may be a text, or of a type that this module shows: an OnboardingError, a Diagnosis, a certificate, a store.

    Example: ``two_sides("What the device saw", refusal, "What the platform's log says", reason)``.
    """
    lines, columns = [], ""
    for title, shown in ((left_title, render(left)), (right_title, render(right))):
        lines += [visible(title), *(f"  {line}" for line in shown.text.split("\n"))]
        half = f"<strong>{escape(title)}</strong>{shown.html}"
        columns += f'<div class="mciot-half" style="flex:1 1 22em;min-width:0">{half}</div>'
    style = "display:flex;flex-wrap:wrap;gap:8px 24px;max-width:67em"
    return Rendered("\n".join(lines), f'<div style="{style}">{columns}</div>')
