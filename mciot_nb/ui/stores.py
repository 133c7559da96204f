"""How a keystore, a truststore and a server's certificate look in a notebook."""

from collections.abc import Iterable, Iterator

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from mciot_nb.connect.server import ServerCertificate
from mciot_nb.pki.chain import is_issued_by
from mciot_nb.pki.names import readable
from mciot_nb.pki.passwords import Opening
from mciot_nb.pki.rows import hex_serial
from mciot_nb.pki.store import KEY_ENTRY, TRUSTED_ENTRY, Entry, Store
from mciot_nb.ui.card import key_kind
from mciot_nb.ui.markup import Line, Row, Shown, copyable, escape, listed, plain, table, visible
from mciot_nb.ui.validity import trouble

_KINDS = {
    KEY_ENTRY: "PrivateKeyEntry: a private key, and the chain that belongs to it",
    TRUSTED_ENTRY: "trustedCertEntry: a certificate to be trusted",
}


def store_html(store: Store) -> str:
    """Show what is in a store: in one sentence, and a table for each entry."""
    tables = "".join(table(_entry_title(entry), _entry_rows(entry)) for entry in store.entries)
    remark = f"<p>⚠ {escape(store.remark)}</p>" if store.remark else ""
    return f"<p><strong>{escape(_store_title(store))}</strong><br>{escape(_at_a_glance(store))}</p>{remark}{tables}"


def store_text(store: Store) -> str:
    """Show what is in a store as plain text, with the words of the tables."""
    tables = [plain(_entry_title(entry), _entry_rows(entry)) for entry in store.entries]
    remark = [f"⚠ {visible(store.remark)}"] if store.remark else []
    return "\n".join([visible(_store_title(store)), _at_a_glance(store), *remark, *tables])


def _store_title(store: Store) -> str:
    return f"{store.path.name}: {store.type}, {_number(len(store.entries), 'entry', 'entries')}"


def _at_a_glance(store: Store) -> str:
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
    for name, certificate in zip(_numbered("Shown", len(server.chain)), server.chain, strict=True):
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


def password_table(openings: Iterable[Opening]) -> Shown:
    """Show which password opens what, as ``which_password_opens`` found out."""
    rows = [(f"{name}: {part}", opened_by, "") for name, part, opened_by in openings]
    title = "Which password opens what?"
    return Shown(plain(title, rows), table(title, rows))
