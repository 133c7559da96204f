"""The MQTT server: takes connections by TLS, and lets devices in or refuses them with a reason."""

import asyncio
import logging
from contextlib import suppress
from socket import socket
from typing import Any

from amqtt.mqtt import ConnackPacket, packet  # type: ignore[import-untyped]
from cryptography import x509
from OpenSSL import SSL

from mciot_nb.pki.admission import device_identifier
from mciot_platform.identity import Credentials, Tokens, find_login
from mciot_platform.packets import MalformedPacket, PacketReader, Publish
from mciot_platform.session import Session
from mciot_platform.storage import LoggedAttempt, RegisteredDevice, Storage, StoredOperation
from mciot_platform.tls import ServerIdentity, TlsContexts, TlsStream
from mciot_platform.trust import ConnectionRejected, Trust, note_chain, readable_certificates

HANDSHAKE_SECONDS = 10.0


class MqttServer:
    """Takes connections, lets devices in or refuses them with a record in the log, and knows the live sessions."""

    def __init__(
        self, storage: Storage, trust: Trust, tokens: Tokens, identity: ServerIdentity, credentials: Credentials
    ) -> None:
        self.storage, self.trust, self.tokens, self.credentials = storage, trust, tokens, credentials
        self._contexts = TlsContexts(identity, storage)
        self._sessions: dict[tuple[str, str], Session] = {}  # by tenant and device
        self._tasks: set[asyncio.Task[None]] = set()
        self._servers: list[asyncio.Server] = []
        self._closing = False

    async def listen(self, sockets: list[socket]) -> None:
        """Take connections on sockets that are bound already."""
        self._servers = [await asyncio.start_server(self._connected, sock=sock) for sock in sockets]

    def end_sessions(self, fingerprint: str, sentence: str) -> None:
        """End the live sessions under a trusted certificate."""
        for session in list(self._sessions.values()):
            if session.anchor and session.anchor.fingerprint == fingerprint:
                session.end(sentence)

    def end_device(self, device: RegisteredDevice, sentence: str) -> None:
        """End the live session of a device, if there is one."""
        if session := self._sessions.get((device.tenant, device.device)):
            session.end(sentence)

    async def deliver(self, operation: StoredOperation) -> None:
        """Send an operation to its device, or to the one above it, if that is connected."""
        name = operation.device
        while not (session := self._sessions.get((operation.tenant, name))):
            known = self.storage.device(operation.tenant, name)
            if known is None or not known.parent:
                return
            name = known.parent
        await session.deliver(operation)

    async def close(self) -> None:
        """End everything."""
        self._closing = True
        for server in self._servers:
            server.close()
        for session in self._sessions.values():
            session.ending = "The platform was stopped."
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        attempt = LoggedAttempt(address="{}:{}".format(*writer.get_extra_info("peername", ("", ""))))
        stream = TlsStream(reader, writer, self._contexts)
        try:
            await self._serve(stream, attempt)
        except asyncio.CancelledError:  # the platform closes; asyncio in Python 3.11 would print a traceback
            pass
        except Exception:  # a fault of ours ends this one connection, never the platform
            logging.exception("The connection from %s failed.", attempt.address)
            self.storage.log(attempt, "SERVER_ERROR", "The platform failed: see its file messages.txt.")
        finally:
            with suppress(asyncio.CancelledError):
                await stream.close()
            self._tasks.discard(task)

    async def _serve(self, stream: TlsStream, attempt: LoggedAttempt) -> None:
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                with readable_certificates():
                    session = await self._authorize(stream, attempt)
        except ConnectionRejected as refusal:
            self.storage.log(attempt, refusal.code, refusal.sentence)
            if refusal.connack:
                with suppress(OSError, SSL.Error):
                    await stream.write(ConnackPacket.build(0, refusal.connack).to_bytes())
        except MalformedPacket as problem:
            self.storage.log(attempt, "MALFORMED", str(problem))
        except TimeoutError:
            self.storage.log(attempt, "TIMEOUT", f"The client took over {HANDSHAKE_SECONDS:.0f} seconds to connect.")
        except (OSError, SSL.Error):
            self.storage.log(attempt, "CONNECTION_LOST", "The connection broke before the client was let in.")
        else:
            await self._run_session(session, attempt)

    async def _handshake(self, stream: TlsStream, attempt: LoggedAttempt) -> list[x509.Certificate]:
        """Do the handshake, and return the client's certificates. Raises: ConnectionRejected, OSError, SSL.Error."""
        try:
            await stream.handshake()
        except SSL.Error as error:
            if not stream.failed:
                raise _handshake_failure(error) from error
            note_chain(attempt, stream.path)
            raise self.trust.explain_failed_handshake(stream.path, stream.failed) from error
        finally:
            attempt.tls = stream.version
        if presented := stream.presented:
            note_chain(attempt, presented)
        return presented

    async def _authorize(self, stream: TlsStream, attempt: LoggedAttempt) -> Session:
        """Do the handshake and read CONNECT. Raises: ConnectionRejected, MalformedPacket, OSError."""
        presented = await self._handshake(stream, attempt)
        packets = PacketReader(stream)
        connect = await packets.next()
        if connect is None:
            raise ConnectionRejected("NO_CONNECT")
        if isinstance(connect, Publish) or connect.fixed_header.packet_type != packet.CONNECT:
            raise MalformedPacket("The client's first packet is not CONNECT.")
        attempt.client_id = "" if connect.client_id_is_random else connect.client_id
        by_certificate, by_user = self.trust.authorize, self._authorize_user
        device, anchor = by_certificate(presented, attempt) if presented else (by_user(connect, attempt), None)
        return Session(packets, self.storage, self.tokens, device, anchor, connect)

    def _authorize_user(self, connect: Any, attempt: LoggedAttempt) -> RegisteredDevice:
        """Let a device without a certificate in by user and password. Raises: ConnectionRejected.

        That a user without the role may not send anything, and is refused at once, is not verified.
        """
        user, password = connect.username, connect.password
        if not user or not password:
            raise ConnectionRejected("NO_CREDENTIALS")
        login = find_login(self.credentials, user, password, with_tenant=True)
        if login is None:
            raise ConnectionRejected("BAD_CREDENTIALS")
        attempt.tenant, is_admin = login
        if not is_admin:
            raise ConnectionRejected("NO_ROLE", user=user)
        if not (identifier := device_identifier(attempt.client_id)):
            raise ConnectionRejected("NO_CLIENT_ID")
        return self.storage.register(attempt.tenant, identifier, with_user=False)

    async def _run_session(self, session: Session, attempt: LoggedAttempt) -> None:
        key, anchor = (session.device.tenant, session.device.device), session.anchor
        if earlier := self._sessions.get(key):
            earlier.end(f"The same ClientId connected again, from {attempt.address}.")
        self._sessions[key] = session
        name = anchor and (anchor.name or anchor.fingerprint)
        reason = f"{attempt.subject} is connected under the trusted certificate {name}."
        without = f"{attempt.client_id} is connected by user and password, without a certificate."
        record = self.storage.log(attempt, "CONNECTED", reason if anchor else without)
        try:
            with suppress(OSError, SSL.Error):
                await session.packets.stream.write(ConnackPacket.build(int(session.resume()), 0).to_bytes())
            await session.run()
        except asyncio.CancelledError:
            if not session.ending:
                raise
        finally:
            if self._sessions.get(key) is session:
                del self._sessions[key]
            self.storage.log_end(record, session.ending)
            if not self._closing:
                session.publish_will()


def _handshake_failure(error: SSL.Error) -> ConnectionRejected:
    """Return why a handshake failed, where no certificate of the client's did."""
    reason = error.args[0][-1][2] if error.args and error.args[0] else "the client ended it"
    sentence = f"The client refused the platform's certificate ({reason}): give it serverCert.pem as trusted CA"
    if "alert unknown ca" in reason:
        sentence += "."
    elif "alert bad certificate" in reason or "alert certificate unknown" in reason:  # also for a name that differs
        sentence += ", or connect under a name or address that it has."
    else:
        sentence = f"The TLS handshake failed ({reason}): check the client's TLS settings."
    return ConnectionRejected("HANDSHAKE_FAILED", sentence)
