"""The certificate with which an MQTT server shows itself: fetched, verified, and chosen for the device's truststore."""

import ipaddress
import re
import select
import socket
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL, crypto

from mciot_nb.errors import OnboardingError
from mciot_nb.pki.chain import fingerprint, is_issued_by, with_colons
from mciot_nb.pki.names import readable

#: Seconds for the server to take a connection, and then to show its certificate.
TIMEOUT = 10.0
#: What can go into the truststore: the server's own certificate, or its issuer's.
CHOICES = ("server", "issuer")


@dataclass(frozen=True)
class ServerCertificate:
    """What a server showed, and what speaks for it being the right server.

    ``chain`` begins with the server's own certificate. ``problem`` says why this system does not trust it, empty where
    it does; ``signed`` whether the server has signed what it showed, so that nobody can have changed the rest of the
    chain; ``proof`` says what proves the server's own certificate, empty until `proven`.
    """

    host: str
    port: int
    chain: tuple[x509.Certificate, ...]
    problem: str
    signed: bool = False
    proof: str = ""

    @property
    def certificate(self) -> x509.Certificate:
        """The server's own certificate."""
        return self.chain[0]

    @property
    def fingerprint(self) -> str:
        """The SHA-256 fingerprint of the server's own certificate, as openssl and keytool write it: with colons."""
        return with_colons(fingerprint(self.certificate, "sha256"))

    @property
    def issuer(self) -> x509.Certificate | None:
        """The certificate of whoever signed the server's, itself if it is self-signed; None if none was surely shown.

        That its key fits the signature is not enough: a key can be made to fit an RSA signature that is known.
        """
        certain = self.chain if self.signed else self.chain[:1]
        return next((shown for shown in certain if is_issued_by(self.certificate, shown)), None)

    def proven(self, fingerprint: str = "", source: str = "its operator") -> Self:
        """Give this with its proof: the SHA-256 ``fingerprint`` known from ``source``, or else this system's trust.

        Raises OnboardingError (SERVER_DIFFERS, SERVER_NOT_TRUSTED or BAD_FINGERPRINT) where it is not proven.
        """
        where = f"{self.host}:{self.port}"
        if not fingerprint and self.problem:
            raise OnboardingError(
                f"This system does not trust the server certificate of {where} ({self.problem}): compare its SHA-256 "
                f"fingerprint, {self.fingerprint}, with the one that the platform's operator tells you by another way, "
                "and give that one to fetch_server_certificate.",
                "SERVER_NOT_TRUSTED",
            )
        if not fingerprint:
            return replace(self, proof="this system trusts it for this host")
        digits = re.sub(r"[:\s]", "", fingerprint)
        if not re.fullmatch(r"[0-9A-Fa-f]{64}", digits):
            raise OnboardingError(
                "A SHA-256 fingerprint has 64 hexadecimal digits, with colons between them or without: give that one.",
                "BAD_FINGERPRINT",
            )
        if digits.upper() != self.fingerprint.replace(":", ""):
            raise OnboardingError(
                f"{where} shows another certificate than the one known from {source}: its SHA-256 fingerprint is "
                f"{self.fingerprint}, so somebody may stand in between: do not trust it before you know why.",
                "SERVER_DIFFERS",
            )
        return replace(self, proof=f"its fingerprint is the one known from {source}")

    def to_trust(self, choice: str) -> x509.Certificate:
        """Give what goes into the truststore: the ``server`` certificate itself, or its ``issuer``'s.

        Raises OnboardingError where the server did not show its issuer's, or did not sign what it showed.
        """
        if choice not in CHOICES:
            raise OnboardingError(f"There is no choice {choice!r}: say {' or '.join(CHOICES)}.", "NO_CHOICE")
        if choice == "server":
            return self.certificate
        if self.issuer is None:
            raise OnboardingError(
                f"{self.host}:{self.port} does not surely show the certificate of its issuer, "
                f"{readable(self.certificate.issuer)}: trust the server's own, or ask the platform's operator for it.",
                "NO_ISSUER",
            )
        return self.issuer


def fetch_server_certificate(host: str, port: int) -> ServerCertificate:
    """Fetch the chain that a TLS server shows (guide: "Creating keystore and truststore", step 3).

    The guide's ``openssl s_client`` waits for ever where nothing answers, and takes whatever comes over the wire. This
    one looks three times, with a limit of time for each, and says whether this system trusts what came.

    Raises OnboardingError: NOT_REACHED, NO_ANSWER where it hangs, NO_TLS where it speaks something else.
    """
    seen, _ = _look(host, port)
    # Now with the handshake to its end: so the server itself signs the whole chain, with the key of the certificate.
    again, finished = _look(host, port, anchor=seen[0])
    signed = finished and again[0] == seen[0]
    return ServerCertificate(host, port, again if signed else seen, _problem(host, port, seen[0]), signed)


def _look(host: str, port: int, anchor: x509.Certificate | None = None) -> tuple[tuple[x509.Certificate, ...], bool]:
    """Look at the chain that a server shows; says too whether the handshake came to its end.

    OpenSSL trusts the server whose certificate is ``anchor``, or nobody; then it ends the handshake at the chain.
    """
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_verify(SSL.VERIFY_PEER)
    if anchor and (store := context.get_cert_store()):
        store.add_cert(crypto.X509.from_cryptography(anchor))
        store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
    finished, where = False, f"{host}:{port}"
    with _connected(host, port) as plain:
        connection = SSL.Connection(context, plain)
        with suppress(ValueError):  # an address has no name to ask for
            ipaddress.ip_address(host)
            host = ""
        if host:
            connection.set_tlsext_host_name(host.encode("idna"))
        connection.set_connect_state()
        with suppress(SSL.Error):  # the end that we wanted, if we have seen the chain
            _shake_hands(connection, plain, time.monotonic() + TIMEOUT, where)
            finished = True
        try:
            chain = tuple(connection.get_peer_cert_chain(as_cryptography=True) or ())
        except (ValueError, x509.InvalidVersion):
            raise OnboardingError(
                f"{where} shows a certificate that can't be read: check the MQTT host and port in 00, and tell the "
                "platform's operator.",
                "BAD_CERTIFICATE",
            ) from None
    if not chain:
        raise OnboardingError(
            f"{where} does not speak TLS, or ends it before it shows a certificate: check the MQTT host and port in "
            "00; the platform's port for certificates is 8883.",
            "NO_TLS",
        )
    return chain, finished


def _shake_hands(connection: SSL.Connection, plain: socket.socket, deadline: float, where: str) -> None:
    while True:
        try:
            return connection.do_handshake()
        except SSL.WantReadError:  # the socket has a time limit, so it does not wait by itself
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([plain], [], [], left)[0]:
                raise OnboardingError(
                    f"{where} takes the connection and then says nothing for {TIMEOUT:.0f} seconds: check the MQTT "
                    "port in 00; the platform's port for certificates is 8883.",
                    "NO_ANSWER",
                ) from None


def _connected(host: str, port: int) -> socket.socket:
    try:
        return socket.create_connection((host, port), TIMEOUT)
    except (OSError, UnicodeError, OverflowError):
        raise OnboardingError(
            f"Nothing answers at {host}:{port}: check the MQTT host and port in 00, and the network.", "NOT_REACHED"
        ) from None


def _problem(host: str, port: int, certificate: x509.Certificate) -> str:
    """Say why this system does not trust the server for this host, asked as a device asks; empty where it does."""
    context = ssl.create_default_context()
    try:
        with _connected(host, port) as plain, context.wrap_socket(plain, server_hostname=host) as secured:
            shown = secured.getpeercert(binary_form=True)
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    except (OSError, ValueError) as error:
        return f"the handshake could not be finished, {error}"
    # Without this, somebody in between could show his own first, and let the second look through to the real server.
    return "" if shown == certificate.public_bytes(Encoding.DER) else "a second look showed another certificate"
