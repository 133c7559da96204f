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
from mciot_nb.ui.markup import Row, Shown, plain, table

_KINDS = {
    KEY_ENTRY: "PrivateKeyEntry: a private key, and the chain that belongs to it",
    TRUSTED_ENTRY: "trustedCertEntry: a certificate to be trusted",
}


def store_html(store: Store) -> str:
    """Show what is in a store as a table."""
    return table(_store_title(store), _store_rows(store))


def store_text(store: Store) -> str:
    """Show what is in a store as plain text, with the lines of the table."""
    return plain(_store_title(store), _store_rows(store))


def _store_title(store: Store) -> str:
    entries = "1 entry" if len(store.entries) == 1 else f"{len(store.entries)} entries"
    return f"{store.path.name}: {store.type}, {entries}"


def _store_rows(store: Store) -> Iterator[Row]:
    for entry in store.entries:
        yield "Alias", entry.alias or "(none)", _KINDS.get(entry.kind, entry.kind)
        if entry.created:
            yield "Created", f"{entry.created:%Y-%m-%d %H:%M:%S} UTC", ""
        yield from _entry_rows(entry)
    if store.remark:
        yield "Note", store.remark, ""


def _entry_rows(entry: Entry) -> Iterator[Row]:
    for position, certificate in enumerate(entry.chain, 1):
        name = "Certificate" if len(entry.chain) == 1 else f"Certificate {position}"
        yield name, readable(certificate.subject), f"issued by {_issuer(certificate)}; {_validity(certificate)}"
        yield "SHA-256", certificate.fingerprint(hashes.SHA256()).hex(":").upper(), ""


def _issuer(certificate: x509.Certificate) -> str:
    return "itself" if is_issued_by(certificate, certificate) else readable(certificate.issuer)


def _validity(certificate: x509.Certificate) -> str:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    serial = hex_serial(certificate.serial_number).lower()  # as keytool writes it
    return f"valid {begin:%Y-%m-%d %H:%M} UTC to {end:%Y-%m-%d %H:%M} UTC; serial number {serial}"


def server_html(server: ServerCertificate) -> str:
    """Show what a server showed as a table, and what follows from trusting it."""
    return table(f"The certificate of {server.host}:{server.port}", _server_rows(server))


def server_text(server: ServerCertificate) -> str:
    """Show what a server showed as plain text, with the lines of the table."""
    return plain(f"The certificate of {server.host}:{server.port}", _server_rows(server))


def _server_rows(server: ServerCertificate) -> Iterator[Row]:
    for position, certificate in enumerate(server.chain, 1):
        name = "Shown" if len(server.chain) == 1 else f"Shown, {position} of {len(server.chain)}"
        yield name, readable(certificate.subject), f"issued by {_issuer(certificate)}; {_validity(certificate)}"
    yield "This system's trust", f"✗ not trusted: {server.problem}" if server.problem else "✓ trusted", ""
    yield "Proof", f"✓ {server.proof}" if server.proof else "✗ none yet: compare the fingerprint by another way", ""
    yield from _what_follows(server)
    yield "SHA-256", server.fingerprint, "of the server's own certificate; compare it with what its operator tells you"


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
