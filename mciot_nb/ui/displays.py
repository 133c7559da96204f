"""How verdicts, problems and sentences look in a notebook: what is wrong, and apart from it what to do next."""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from mciot_nb.connect.server_certificate import ServerCertificate
from mciot_nb.errors import OnboardingError
from mciot_nb.pki.chain import Diagnosis, Finding, is_issued_by
from mciot_nb.pki.keystore import KEY_ENTRY, TRUSTED_ENTRY, Entry, Keystore, Opening
from mciot_nb.pki.names import label, readable
from mciot_nb.pki.rows import hex_serial
from mciot_nb.pki.signing import Preview
from mciot_nb.ui.certificate_card import certificate_html, certificate_line, certificate_text, key_kind, trouble
from mciot_nb.ui.markup import Line, Rendered, Row, boxed, copyable, escape, listed, plain, table, visible

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

#: Its sentence ends with the rule that was broken, not with what to do.
_WITHOUT_ADVICE = ("INVALID",)


def diagnosis_text(diagnosis: Diagnosis) -> str:
    """Show a verdict as plain text: whether all is well, and then each finding with what to do about it."""
    if diagnosis.ok:
        return "✓ OK: nothing wrong was found."
    lines = [_not_ok(diagnosis)]
    for finding in diagnosis.findings:
        wrong, advice = what_to_do(finding)
        lines.append(f"  {visible(finding.code)}: {visible(wrong)}")
        lines += [f"    What to do: {visible(advice)}"] if advice else []
    return "\n".join(lines)


def diagnosis_html(diagnosis: Diagnosis) -> str:
    """Show a verdict as a list; a sign and a word say good or bad, not the colour alone."""
    if diagnosis.ok:
        return boxed("good", "<strong>✓ OK</strong>: nothing wrong was found.")
    items = []
    for finding in diagnosis.findings:
        wrong, advice = what_to_do(finding)
        more = f"<br><strong>What to do:</strong> {escape(advice)}" if advice else ""
        items.append(f'<li style="margin:6px 0"><code>{escape(finding.code)}</code>: {escape(wrong)}{more}</li>')
    findings = f'<ul style="margin:0;padding-left:1.5em">{"".join(items)}</ul>'
    return boxed("bad", f"<strong>{_not_ok(diagnosis)}</strong>{findings}")


def _not_ok(diagnosis: Diagnosis) -> str:
    number = len(diagnosis.findings)
    return f"✗ Not OK: {number} {'finding' if number == 1 else 'findings'}."


def what_to_do(finding: Finding) -> tuple[str, str]:
    """Split a finding's sentence, "what is wrong: what to do", in two; the second is empty where it gives no advice."""
    ends = max(finding.sentence.rfind(mark) for mark in (": ", "; "))
    if ends < 0 or finding.code in _WITHOUT_ADVICE:
        return finding.sentence, ""
    return f"{finding.sentence[:ends]}.", finding.sentence[ends + 2 :]


def problem_html(problem: Exception) -> str:
    """Show what went wrong as its sentence."""
    return boxed("bad", f"✗ {escape(str(problem))}")


def problem_text(problem: Exception) -> str:
    """Show what went wrong as its sentence, in plain text."""
    return f"✗ {visible(str(problem))}"


def sentence(text: str) -> Rendered:
    """Show a plain sentence that wraps between words; what is printed the Lab breaks at any character."""
    return Rendered(visible(text), f'<p style="overflow-wrap:anywhere">{escape(text)}</p>')


_KINDS = {
    KEY_ENTRY: "PrivateKeyEntry: a private key, and the chain that belongs to it",
    TRUSTED_ENTRY: "trustedCertEntry: a certificate to be trusted",
}


def store_html(store: Keystore) -> str:
    """Show what is in a store: in one sentence, and a table for each entry."""
    tables = "".join(table(_entry_title(entry), _entry_rows(entry)) for entry in store.entries)
    remark = f"<p>⚠ {escape(store.remark)}</p>" if store.remark else ""
    return f"<p><strong>{escape(_store_title(store))}</strong><br>{escape(_at_a_glance(store))}</p>{remark}{tables}"


def store_text(store: Keystore) -> str:
    """Show what is in a store as plain text, with the words of the tables."""
    tables = [plain(_entry_title(entry), _entry_rows(entry)) for entry in store.entries]
    remark = [f"⚠ {visible(store.remark)}"] if store.remark else []
    return "\n".join([visible(_store_title(store)), _at_a_glance(store), *remark, *tables])


def _store_title(store: Keystore) -> str:
    return f"{store.path.name}: {store.type}, {_number(len(store.entries), 'entry', 'entries')}"


def _at_a_glance(store: Keystore) -> str:
    kinds = [entry.kind for entry in store.entries]
    keys, trusted = kinds.count(KEY_ENTRY), kinds.count(TRUSTED_ENTRY)
    held = [
        _number(keys, "private key with its chain", "private keys, each with its chain") if keys else "no private key",
        _number(trusted, "trusted certificate", "trusted certificates") if trusted else "no trusted certificate",
    ]
    others = len(kinds) - keys - trusted
    held += [_number(others, "entry that Java does not see", "entries that Java does not see")] if others else []
    return f"Holds {listed(held)}."


def _number(number: int, one: str, more: str) -> str:
    return f"{number} {one if number == 1 else more}"


def _entry_title(entry: Entry) -> str:
    return f"Entry {entry.alias or '(no alias)'}"


def _entry_rows(entry: Entry) -> Iterator[Line]:
    """Give the entry's kind and its chain first, which are the same in every run, and last what is not."""
    yield "Kind", _KINDS.get(entry.kind, f"⚠ {entry.kind}"), ""
    if entry.kind == KEY_ENTRY:
        kind = f", by its certificate {key_kind(entry.chain[0])}" if entry.chain else ""
        yield "Private key", f"✓ is in it{kind}", "kept under the password, and never shown"
    names = _numbered("Certificate", len(entry.chain))
    for name, certificate, signed in zip(names, entry.chain, _signatures(entry), strict=True):
        yield name, readable(certificate.subject), signed
    for name, certificate in zip(names, entry.chain, strict=True):
        yield f"{name}, valid", _validity(certificate), ""
        yield f"{name}, SHA-256", copyable(_fingerprint(certificate)), ""
    if entry.created:
        yield "Created", f"{entry.created:%Y-%m-%d %H:%M:%S} UTC", ""


def _numbered(name: str, number: int) -> list[str]:
    return [name] if number == 1 else [f"{name} {position} of {number}" for position in range(1, number + 1)]


def _signatures(entry: Entry) -> Iterator[str]:
    """Say of each certificate in the chain who signed it."""
    for position, certificate in enumerate(entry.chain):
        own = "the private key's own; " if entry.kind == KEY_ENTRY and position == 0 else ""
        following = entry.chain[position + 1 : position + 2]
        if following and is_issued_by(certificate, following[0]):
            yield f"{own}✓ signed by the next one"
        elif following:
            yield f"{own}✗ not signed by the next one, the chain is broken: issued by {_issuer(certificate)}"
        elif is_issued_by(certificate, certificate):
            yield f"{own}✓ signed by itself"
        else:
            yield f"{own}signed by {readable(certificate.issuer)}, whose certificate is not in this entry"


def _issuer(certificate: x509.Certificate) -> str:
    return "itself" if is_issued_by(certificate, certificate) else readable(certificate.issuer)


def _fingerprint(certificate: x509.Certificate) -> str:
    return certificate.fingerprint(hashes.SHA256()).hex(":").upper()


def _validity(certificate: x509.Certificate) -> str:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    serial = hex_serial(certificate.serial_number).lower()  # as keytool writes it
    state = f"{state}: " if (state := trouble(certificate)) else ""
    return f"{state}{begin:%Y-%m-%d %H:%M} UTC to {end:%Y-%m-%d %H:%M} UTC; serial number {serial}"


def server_html(server: ServerCertificate) -> str:
    """Show what a server showed as a table, and what follows from trusting it."""
    return table(f"The certificate of {server.host}:{server.port}", _server_rows(server))


def server_text(server: ServerCertificate) -> str:
    """Show what a server showed as plain text, with the lines of the table."""
    return plain(f"The certificate of {server.host}:{server.port}", _server_rows(server))


def _server_rows(server: ServerCertificate) -> Iterator[Line]:
    for name, certificate in zip(_numbered("Rendered", len(server.chain)), server.chain, strict=True):
        yield name, readable(certificate.subject), f"issued by {_issuer(certificate)}; valid {_validity(certificate)}"
    yield "This system's trust", f"✗ not trusted: {server.problem}" if server.problem else "✓ trusted", ""
    yield "Proof", f"✓ {server.proof}" if server.proof else "✗ none yet: compare the fingerprint by another way", ""
    yield from _what_follows(server)
    compare = "of the server's own certificate; compare it with what its operator tells you"
    yield "SHA-256", copyable(server.fingerprint), compare


def _what_follows(server: ServerCertificate) -> Iterator[Row]:
    until = f"{server.certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    yield (
        "If you trust the server",
        "this one certificate, and nothing else",
        f"when the server gets a new one, by {until} at the latest, the device refuses it until its truststore has it",
    )
    name = "If you trust the issuer"
    if server.issuer is None:
        yield name, "not possible: the server does not surely show it", readable(server.certificate.issuer)
    elif server.issuer == server.certificate:
        yield name, "the same: this certificate is self-signed", "it is its own issuer"
    else:
        yield (
            name,
            f"every certificate that {readable(server.issuer.subject)} signs for {server.host}",
            "the server may renew its certificate; you rely on the issuer to give that name to nobody else",
        )


def password_table(openings: Iterable[Opening]) -> Rendered:
    """Show which password opens what, as ``which_password_opens`` found out."""
    rows = [(f"{name}: {part}", opened_by, "") for name, part, opened_by in openings]
    title = "Which password opens what?"
    return Rendered(plain(title, rows), table(title, rows))


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
    Keystore: (store_html, store_text, repr),
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


def card(title: str, rows: Iterable[Line]) -> Rendered:
    """Show names, values and what they mean as a table: an MQTT client's settings, the state of the machine."""
    rows = list(rows)
    return Rendered(plain(title, rows), table(title, rows))


def two_sides(left_title: str, left: object, right_title: str, right: object) -> Rendered:
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
    return Rendered("\n".join(lines), f'<div style="display:flex;flex-wrap:wrap;gap:8px 24px">{columns}</div>')


def _shown(thing: object) -> Rendered:
    if isinstance(thing, Rendered):
        return thing
    for kind, (html, text, _) in _LOOKS.items():
        if isinstance(thing, kind):
            return Rendered(text(thing), html(thing))
    return Rendered(visible(str(thing)), boxed("plain", escape(str(thing))))
