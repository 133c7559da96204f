"""Mutual TLS for one client: pyOpenSSL in memory, asyncio streams for the bytes.

asyncio's own TLS sends no alert when a client's certificate fails, so the client would not learn why it is refused.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from socket import SO_KEEPALIVE, SOL_SOCKET

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL
from OpenSSL.crypto import X509, X509StoreFlags

from mciot_nb.pki.chain import is_issued_by
from mciot_nb.pki.verdicts import INVALID_PURPOSE, SIGNATURE_FAILURE, Verdict, to_openssl
from mciot_platform.storage import Storage, TrustAnchor
from mciot_platform.trust import ConnectionRejected

CHUNK = 65536  # bytes
#: Bytes of the accepted issuers' names. From 65,536 on every handshake fails, and Java reads 32,768 in a message.
LONGEST_LIST = 15_000
LINGER_SECONDS = 2.0
WRITE_SECONDS = 30.0


@dataclass(frozen=True)
class ServerIdentity:
    """The platform's own certificate, and its key as OpenSSL holds it."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


class TlsContexts:
    """The context for the next connection: one for all, until what is trusted changes.

    No session is ever resumed, on TLS 1.2 or 1.3, for that would go past the check of the certificate.
    """

    def __init__(self, identity: ServerIdentity, storage: Storage) -> None:
        self._identity, self._storage = identity, storage
        self._known: Sequence[TrustAnchor] = ()
        self._current: tuple[SSL.Context, list[x509.Certificate]] | None = None

    def current(self) -> tuple[SSL.Context, list[x509.Certificate]]:
        """Return the context, and what it trusts."""
        known = self._storage.trusted_certificates()  # the same object as long as nothing has changed
        if self._current is None or known is not self._known:
            anchors = [one.certificate for one in known if one.enabled]
            self._known, self._current = known, (self._make(anchors), anchors)
        return self._current

    def _make(self, anchors: list[x509.Certificate]) -> SSL.Context:
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)  # most devices are silent for most of the time
        context.set_cipher_list(b"DEFAULT:@SECLEVEL=0")  # it weighs chains too, and Java takes RSA 1024 and SHA-1 there
        context.use_certificate(self._identity.certificate)
        context.use_privatekey(self._identity.key)
        context.set_verify(SSL.VERIFY_PEER, _on_verify)  # none is needed where a password comes
        store = context.get_cert_store()
        assert store is not None  # every context has one
        store.set_flags(X509StoreFlags.PARTIAL_CHAIN)  # an uploaded intermediate is an anchor too
        for anchor in anchors:
            store.add_cert(to_openssl(anchor))
        with suppress(ValueError):  # of a name that can't be read: no list means any issuer
            names = {anchor.subject.public_bytes(): anchor for anchor in anchors}
            for one in names.values() if sum(len(name) + 2 for name in names) <= LONGEST_LIST else ():
                context.add_client_ca(one)
        return context


def _on_verify(tls: SSL.Connection, presented: X509, error: int, depth: int, ok: int) -> bool:
    """Correct OpenSSL's verdict on one certificate. One that can't be read raises, which ends the handshake."""
    if ok:
        return True
    certificate, stream = presented.to_cryptography(), tls.get_app_data()
    if error == INVALID_PURPOSE and depth == 0 and certificate in stream.anchors:
        return True  # one that is trusted itself is for every purpose to the platform, which is Java
    if error == SIGNATURE_FAILURE and any(is_issued_by(certificate, a) for a in stream.anchors):
        return True  # OpenSSL tried another trusted certificate of that name; `Trust.authorize` checks them all
    stream.failed = Verdict(error, depth, certificate)
    return False


class TlsStream:
    """The TLS side of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, contexts: TlsContexts) -> None:
        """Take a connection. Its context is chosen when the handshake begins, for it may change until then."""
        with suppress(OSError):  # a client that died may never say so: the system asks it from time to time
            writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_KEEPALIVE, 1)
        self._reader, self._writer, self._contexts = reader, writer, contexts
        self.anchors: list[x509.Certificate] = []
        self.failed: Verdict | None = None  # what OpenSSL objected to
        self._tls: SSL.Connection | None = None  # made when the client speaks: many that connect never do

    async def handshake(self) -> None:
        """Do the TLS handshake. `close` sends the alert, so that the log has its record before the client learns of it.

        Raises:
            ConnectionRejected: if it fails for another reason than the client's certificate.
            SSL.Error: if the certificate fails; it stands in `failed`.
        """
        first = await self._reader.read(CHUNK)
        if first[:1] == b"\x10":
            raise ConnectionRejected("PLAIN_MQTT")
        if first[:4] == b"GET " and b"websocket" in first.lower():
            raise ConnectionRejected("WEBSOCKET")
        if first and first[:1] != b"\x16":
            raise ConnectionRejected("NOT_TLS")
        context, self.anchors = self._contexts.current()
        self._tls = SSL.Connection(context, None)
        self._tls.set_app_data(self)
        self._tls.set_accept_state()
        while first:
            self._tls.bio_write(first)
            try:
                self._tls.do_handshake()
            except SSL.WantReadError:
                self._send_pending()  # our part of the handshake
            else:
                self._send_pending()
                return
            first = await self._reader.read(CHUNK)
        raise ConnectionRejected("HANDSHAKE_FAILED")

    @property
    def presented(self) -> list[x509.Certificate]:
        """The certificates that the client sent, its own first; known after the handshake."""
        assert self._tls is not None
        own = self._tls.get_peer_certificate(as_cryptography=True)
        rest = self._tls.get_peer_cert_chain(as_cryptography=True) or []  # on the server without the client's own
        return [own, *rest] if own else []

    @property
    def path(self) -> list[x509.Certificate]:
        """The path that OpenSSL built from the client's certificate up to the one in `failed`, that one included.

        What may follow there is a trusted certificate of ours, which the client did not present.
        """
        assert self._tls is not None and self.failed is not None
        path = self._tls.get_verified_chain(as_cryptography=True) or []
        return path[: self.failed.depth + 1] or [self.failed.certificate]

    @property
    def version(self) -> str:
        """The version of TLS, empty before the client has spoken."""
        return self._tls.get_protocol_version_name() if self._tls else ""

    async def read(self) -> bytes:
        """Wait for the client's next bytes; none at the end of the connection."""
        assert self._tls is not None
        while True:
            try:
                return self._tls.recv(CHUNK)
            except SSL.WantReadError:
                pass  # and wait below: as long as it is handled, the error holds the buffer that recv had made
            except (SSL.ZeroReturnError, SSL.SysCallError):
                return b""
            if not (received := await self._reader.read(CHUNK)):
                return b""
            self._tls.bio_write(received)

    async def write(self, data: bytes) -> None:
        """Send ``data`` to the client. Raises: TimeoutError: if it does not read for `WRITE_SECONDS`."""
        assert self._tls is not None
        self._tls.sendall(data)  # into memory; what another task writes meanwhile comes behind it
        while self._send_pending(at_most=1):
            async with asyncio.timeout(WRITE_SECONDS):
                await self._writer.drain()

    def _send_pending(self, at_most: int | None = None) -> bool:
        """Hand encrypted bytes to the system, ``at_most`` so many chunks. Returns whether there were any."""
        sent = 0
        with suppress(SSL.WantReadError):
            while self._tls and sent != at_most:
                self._writer.write(self._tls.bio_read(CHUNK))
                sent += 1
        return bool(sent)

    async def close(self) -> None:
        """Send close_notify, wait a little for the client's own, and close the connection.

        Closing with unread bytes would reset the connection, and the client would lose the alert or CONNACK before.
        """
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                with suppress(SSL.Error):
                    if self._tls:
                        self._tls.shutdown()
                self._send_pending()
                self._writer.write_eof()
                while await self._reader.read(CHUNK):
                    pass
                self._writer.close()
                await self._writer.wait_closed()
        except (OSError, SSL.Error):
            pass
        finally:
            if self._tls:
                self._tls.set_app_data(None)  # or the two hold each other
            self._writer.transport.abort()  # a client that does not read would keep the connection for ever
