"""The certificate with which an MQTT server shows itself: fetched, verified, and chosen for the device's truststore."""

import ipaddress
import json
import re
import select
import socket
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL, crypto

from mciot_nb.connect.mqtt import client_context
from mciot_nb.errors import OnboardingError, fault
from mciot_nb.pki.chain import fingerprint as fingerprint_of
from mciot_nb.pki.chain import is_issued_by, with_colons
from mciot_nb.pki.files import write_whole
from mciot_nb.pki.names import name_of, readable

#: Seconds for the server to take a connection, and then to show its certificate.
TIMEOUT = 10.0
#: What can go into the truststore: the server's own certificate, or its issuer's.
CHOICES = ("server", "issuer")
#: Whose trust is asked where the learner has named no file.
SYSTEM = "this system"


@dataclass(frozen=True)
class ServerCertificate:
    """What a server showed, and what proves that it is the right server.

    ``chain`` begins with the server's own certificate. ``problem`` says why this system does not trust it, empty where
    it does. ``signed`` says whether the server has signed the handshake in which it showed the chain, so that no one in
    between can have changed it. ``proof`` says what proves the server's own certificate, and ``proven_by`` does in a
    word: platform, fingerprint, file or system; both are empty until `verified`. ``judge`` is whose trust was asked:
    the learner's PEM file, or this system.
    """

    host: str
    port: int
    chain: tuple[x509.Certificate, ...]
    problem: str
    signed: bool = False
    proof: str = ""
    proven_by: str = ""
    judge: str = SYSTEM

    @property
    def certificate(self) -> x509.Certificate:
        """The server's own certificate."""
        return self.chain[0]

    @property
    def fingerprint(self) -> str:
        """The SHA-256 fingerprint of the server's own certificate, as openssl and keytool write it: with colons."""
        return with_colons(fingerprint_of(self.certificate, "sha256"))

    @property
    def issuer(self) -> x509.Certificate | None:
        """The certificate of the server's issuer, itself if it is self-signed; None if none was surely shown.

        That its key fits the signature is not enough: a key can be made to fit an RSA signature that is known.
        """
        certain = self.chain if self.signed else self.chain[:1]
        return next((shown for shown in certain if is_issued_by(self.certificate, shown)), None)

    def trust_anchor(self, choice: str) -> x509.Certificate:
        """Return what goes into the truststore: the ``server`` certificate itself, or its ``issuer``'s.

        Raises: OnboardingError: if the server did not show its issuer's, or did not sign what it showed.
        """
        if choice not in CHOICES:
            raise OnboardingError(f"There is no choice {choice!r}: say {' or '.join(CHOICES)}.", "NO_CHOICE")
        if choice == "server":
            return self.certificate
        if self.issuer is None:
            raise fault("NO_ISSUER", server=self, issuer=readable(name_of(self.certificate, "issuer")))
        return self.issuer

    def verified(
        self, fingerprint: str = "", *, own: x509.Certificate | None = None, record: Path | None = None
    ) -> Self:
        """Return this with its proof: the platform's own file, a fingerprint, one on record, or the trust of `judge`.

        ``own`` is the certificate in the local platform's file, ``fingerprint`` the SHA-256 one that the operator told,
        ``record`` the file that `write_record` wrote: a fingerprint given once is good until the certificate expires.
        What is given is compared. Raises: OnboardingError: SERVER_DIFFERS, SERVER_NOT_TRUSTED, BAD_FINGERPRINT.
        """
        told = self._compare(fingerprint, "its operator") if fingerprint else None
        if own:
            return self._compare(fingerprint_of(own, "sha256"), "the platform's own file", "platform")
        if told:
            return told
        before = proof_on_record(record, self.certificate, self.host, self.port) if record else ""
        if before == "fingerprint" and self.certificate.not_valid_after_utc > datetime.now(UTC):
            return self._compare(self.fingerprint, "you, once before")
        if self.problem:
            raise fault("SERVER_NOT_TRUSTED.proof", server=self)
        proven_by = "system" if self.judge == SYSTEM else "file"
        return replace(self, proof=f"{self.judge} trusts it for this host", proven_by=proven_by)

    def _compare(self, fingerprint: str, source: str, proven_by: str = "fingerprint") -> Self:
        digits = re.sub(r"[:\s]", "", fingerprint)
        if not re.fullmatch(r"[0-9A-Fa-f]{64}", digits):
            raise fault("BAD_FINGERPRINT.sha256")
        if digits.upper() != self.fingerprint.replace(":", ""):
            raise fault("SERVER_DIFFERS", server=self, source=source)
        return replace(self, proof=f"its fingerprint is the one known from {source}", proven_by=proven_by)

    def write_record(self, path: Path) -> None:
        """Record in ``path``, the workspace's server.json, what has proven the certificate, for `proof_on_record`."""
        sha256 = fingerprint_of(self.certificate, "sha256")
        record = {"mqtt": f"{self.host}:{self.port}", "sha256": sha256, "by": self.proven_by}
        write_whole(path, json.dumps(record).encode(), replace=True)


def proof_on_record(path: Path, certificate: x509.Certificate | None, host: str, port: int) -> str:
    """Return what proved a server's certificate before, in a word; empty where nothing did."""
    with suppress(OSError, ValueError, TypeError, KeyError):  # nothing was recorded, or the file is none of ours
        record = json.loads(path.read_text(encoding="utf-8"))
        known = certificate is not None and record["sha256"] == fingerprint_of(certificate, "sha256")
        if known and record["mqtt"] == f"{host}:{port}":
            return str(record["by"])
    return ""


def fetch_server_certificate(host: str, port: int, trusted: Path | None = None) -> ServerCertificate:
    """Fetch the chain that a TLS server shows (guide: "Creating keystore and truststore", step 3).

    The guide's ``openssl s_client`` waits for ever where nothing answers, and takes whatever comes over the wire. This
    one verifies each time, with a time limit, and says whether this system, or the file ``trusted``, proves what came.

    Raises: OnboardingError: if that file can't be used; NOT_REACHED, NO_ANSWER, NO_TLS where it speaks something else.
    """
    context = client_context(trusted)
    shown, _ = _handshake(host, port)
    # Now with the handshake to its end: so the server itself signs the whole chain, with the key of the certificate.
    again, finished = _handshake(host, port, anchor=shown[0])
    signed = finished and again[0] == shown[0]
    problem = _problem(host, port, shown[0], context)
    chain, judge = again if signed else shown, SYSTEM if trusted is None else f"the file {trusted}"
    return ServerCertificate(host, port, chain, problem, signed, judge=judge)


def _handshake(
    host: str, port: int, anchor: x509.Certificate | None = None
) -> tuple[tuple[x509.Certificate, ...], bool]:
    """Return the chain that a server shows, and whether the handshake came to its end.

    ``anchor`` is the only certificate that is trusted. Without one OpenSSL trusts nothing, and ends the handshake when
    it has seen the chain.
    """
    where, finished = f"{host}:{port}", False
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_verify(SSL.VERIFY_PEER)
    if anchor and (store := context.get_cert_store()):
        store.add_cert(crypto.X509.from_cryptography(anchor))
        store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
    with _connected(host, port) as plain:
        connection = SSL.Connection(context, plain)
        try:
            ipaddress.ip_address(host)  # an address is no name to ask for (RFC 6066, section 3)
        except ValueError:
            connection.set_tlsext_host_name(host.encode("idna"))
        connection.set_connect_state()
        with suppress(SSL.Error):  # the end that is wanted, if the chain was seen
            _shake_hands(connection, plain, where)
            finished = True
        try:
            chain = tuple(connection.get_peer_cert_chain(as_cryptography=True) or ())
        except (ValueError, x509.InvalidVersion):
            raise fault("BAD_CERTIFICATE", where=where) from None
    if not chain:
        raise fault("NO_TLS.mqtt", where=where)
    return chain, finished


def _shake_hands(connection: SSL.Connection, plain: socket.socket, where: str) -> None:
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            return connection.do_handshake()
        except SSL.WantReadError:  # the socket has a time limit, so it does not wait by itself
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([plain], [], [], left)[0]:
                raise fault("NO_ANSWER.connection", where=where) from None


def _connected(host: str, port: int) -> socket.socket:
    try:
        return socket.create_connection((host, port), TIMEOUT)
    except (OSError, UnicodeError, OverflowError):
        raise fault("NOT_REACHED.server", host=host, port=port) from None


def _problem(host: str, port: int, certificate: x509.Certificate, context: ssl.SSLContext) -> str:
    """Return why ``context`` does not trust the server for this host, asked as a device asks; empty if it does."""
    try:
        with _connected(host, port) as plain, context.wrap_socket(plain, server_hostname=host) as secured:
            shown = secured.getpeercert(binary_form=True)
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    except (OSError, ValueError):
        return "the handshake could not be finished"
    # Else a man in the middle could show his own certificate first, and let the second connection through.
    return "" if shown == certificate.public_bytes(Encoding.DER) else "a second look showed another certificate"
