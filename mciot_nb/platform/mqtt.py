"""The MQTT endpoint: devices connect by mutual TLS, send SmartREST and read what is meant for them.

It is no general broker: a device publishes to the platform's topics and receives only its own answers.
"""

import asyncio
import logging
from contextlib import suppress
from socket import socket
from typing import Any

from amqtt.mqtt import (  # type: ignore[import-untyped]
    ConnackPacket,
    PingRespPacket,
    PubackPacket,
    PubcompPacket,
    PublishPacket,
    PubrecPacket,
    SubackPacket,
    UnsubackPacket,
    packet,
)
from OpenSSL import SSL

from mciot_nb.pki.names import readable
from mciot_nb.platform import smartrest
from mciot_nb.platform.packets import LONGEST_PAYLOAD, Malformed, PacketReader
from mciot_nb.platform.store import Attempt, Device, Store, TrustedCertificate
from mciot_nb.platform.tls import ServerIdentity, TlsStream
from mciot_nb.platform.trust import Refusal, Trust

HANDSHAKE_SECONDS = 10.0
PUBLISH_TOPICS, SUBSCRIBE_TOPICS = ("s/us", "s/uat"), ("s/ds", "s/e", "s/dat")
FAILED_SUBSCRIPTION = 0x80


class Session:
    """One device's connection, from its CONNACK to its end."""

    def __init__(self, stream: TlsStream, packets: PacketReader, store: Store, device: Device) -> None:
        self.stream, self.packets, self.store, self.device = stream, packets, store, device
        self.ending = ""
        self._task = asyncio.current_task()
        self._subscribed: dict[str, int] = {}
        self._unreleased: set[int] = set()  # QoS 2 messages that are stored, until the client's PUBREL
        self._last_packet_id = 0

    def end(self, sentence: str) -> None:
        """End the connection from outside; ``sentence`` goes into the log."""
        self.ending = sentence
        if self._task:
            self._task.cancel()

    async def run(self, keep_alive: int) -> None:
        """Serve the device until it leaves or breaks a rule; `ending` says afterwards which."""
        try:
            while True:
                async with asyncio.timeout(1.5 * keep_alive or None):  # MQTT 3.1.1, section 3.1.2.10
                    received = await self.packets.next()
                    if received is None or received.fixed_header.packet_type == packet.DISCONNECT:
                        self.ending = "The client disconnected." if received else "The client closed the connection."
                        return
                    await self._handle(received)
        except TimeoutError:
            self.ending = f"The client was silent for longer than its keep-alive of {keep_alive} seconds allows."
        except (Malformed, Refusal) as problem:
            self.ending = str(problem)
        except (OSError, SSL.Error):
            self.ending = "The connection broke."

    async def _handle(self, received: Any) -> None:
        match received.fixed_header.packet_type:
            case packet.PUBLISH:
                await self._publish(received)
            case packet.PUBREL:
                self._unreleased.discard(received.variable_header.packet_id)
                await self._send(PubcompPacket.build(received.variable_header.packet_id))
            case packet.SUBSCRIBE:
                await self._subscribe(received)
            case packet.UNSUBSCRIBE:
                for topic in received.payload.topics:
                    self._subscribed.pop(topic, None)
                await self._send(UnsubackPacket.build(received.variable_header.packet_id))
            case packet.PINGREQ:
                await self._send(PingRespPacket())
            case packet.CONNECT:
                raise Malformed("The client sent CONNECT twice.")

    async def _publish(self, message: Any) -> None:
        if message.qos == 3 or len(message.data) > LONGEST_PAYLOAD:
            raise Malformed(f"The client sent QoS 3, or more than {LONGEST_PAYLOAD} bytes in a message.")
        replies: list[smartrest.Reply] = []
        if message.qos < 2 or message.packet_id not in self._unreleased:
            replies = self._carry_out(message.topic_name, message.data)
        if message.qos == 1:
            await self._send(PubackPacket.build(message.packet_id))
        elif message.qos == 2:
            self._unreleased.add(message.packet_id)
            await self._send(PubrecPacket.build(message.packet_id))
        for reply in replies:
            await self._tell(reply)

    def _carry_out(self, topic: str, payload: bytes) -> list[smartrest.Reply]:
        """Do what a message asks for; it is stored when this returns, so that it may be acknowledged."""
        if topic == "s/us":
            with self.store.transaction():
                return smartrest.answer(payload, self.store, self.device)
        known = topic in PUBLISH_TOPICS
        sentence = "Tokens are not given yet." if known else f"A device publishes on {' or '.join(PUBLISH_TOPICS)}."
        return [smartrest.Reply(smartrest.ERRORS, smartrest.line("50", "", sentence))]

    async def _tell(self, reply: smartrest.Reply) -> None:
        qos = self._subscribed.get(reply.topic)
        if qos is None:
            return
        self._last_packet_id = self._last_packet_id % 0xFFFF + 1
        identifier = self._last_packet_id if qos else None
        await self._send(PublishPacket.build(reply.topic, reply.text.encode(), identifier, False, qos, False))

    async def _subscribe(self, request: Any) -> None:
        granted = []
        for topic, qos in request.payload.topics:
            allowed = topic in SUBSCRIBE_TOPICS and qos <= 2
            if allowed:
                self._subscribed[topic] = min(qos, 1)
            granted.append(min(qos, 1) if allowed else FAILED_SUBSCRIPTION)
        await self._send(SubackPacket.build(request.variable_header.packet_id, granted))

    async def _send(self, answer: Any) -> None:
        await self.stream.write(answer.to_bytes())


class Endpoint:
    """Takes connections, lets devices in or refuses them with a record in the log, and keeps who is connected."""

    def __init__(self, store: Store, trust: Trust, identity: ServerIdentity) -> None:
        self.store, self.trust, self.identity = store, trust, identity
        self._sessions: dict[tuple[str, str], tuple[Session, str]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._servers: list[asyncio.Server] = []

    async def listen(self, sockets: list[socket]) -> None:
        """Take connections on sockets that are bound already."""
        self._servers = [await asyncio.start_server(self._connected, sock=sock) for sock in sockets]

    def end_sessions(self, fingerprint: str, sentence: str) -> None:
        """End the live sessions under a trusted certificate."""
        for session, anchor in list(self._sessions.values()):
            if anchor == fingerprint:
                session.end(sentence)

    async def close(self) -> None:
        """End everything."""
        for server in self._servers:
            server.close()
        for session, _ in list(self._sessions.values()):
            session.ending = "The platform was stopped."
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        attempt = Attempt(address="{}:{}".format(*writer.get_extra_info("peername", ("", ""))))
        anchors = [trusted.certificate for trusted in self.trust.enabled()]
        stream = TlsStream(reader, writer, self.identity, anchors)
        try:
            await self._serve(stream, attempt)
        except Exception:  # a fault of ours ends this one connection, never the platform
            logging.exception("The connection from %s failed.", attempt.address)
            self.store.log(attempt, "SERVER_ERROR", "The platform failed: see its own messages.")
        finally:
            self._tasks.discard(task)
            await stream.close()

    async def _serve(self, stream: TlsStream, attempt: Attempt) -> None:
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                session, trusted, keep_alive = await self._admit(stream, attempt)
        except Refusal as refusal:
            self.store.log(attempt, refusal.code, refusal.sentence)
            if refusal.connack:
                with suppress(OSError, SSL.Error):
                    await stream.write(ConnackPacket.build(0, refusal.connack).to_bytes())
        except Malformed as problem:
            self.store.log(attempt, "MALFORMED", str(problem))
        except TimeoutError:
            self.store.log(attempt, "TIMEOUT", f"The client took over {HANDSHAKE_SECONDS:.0f} seconds to connect.")
        except (OSError, SSL.Error):
            self.store.log(attempt, "CONNECTION_LOST", "The connection broke before the client was let in.")
        else:
            await self._keep(session, trusted, attempt, keep_alive)

    async def _admit(self, stream: TlsStream, attempt: Attempt) -> tuple[Session, TrustedCertificate, int]:
        """Do the handshake and read CONNECT. Raises Refusal, Malformed, OSError."""
        try:
            await stream.handshake()
        except SSL.Error as error:
            if stream.failed:
                attempt.subject = readable((stream.verified or [stream.failed.certificate])[0].subject)
                raise self.trust.after_failed_handshake(stream.verified, stream.failed) from error
            raise _without_certificate(error) from error
        attempt.subject = readable(stream.presented[0].subject)
        packets = PacketReader(stream.read)
        connect = await packets.next()
        if connect is None:
            raise Refusal("NO_CONNECT", "The client ended the connection after the TLS handshake, without CONNECT.")
        if connect.fixed_header.packet_type != packet.CONNECT:
            raise Malformed("The client's first packet is not CONNECT.")
        attempt.client_id = "" if connect.client_id_is_random else connect.client_id
        device, trusted = self.trust.admit(stream.presented, stream.verified, attempt)
        return Session(stream, packets, self.store, device), trusted, connect.keep_alive

    async def _keep(self, session: Session, trusted: TrustedCertificate, attempt: Attempt, keep_alive: int) -> None:
        key = (session.device.tenant, session.device.device)
        if key in self._sessions:
            self._sessions[key][0].end(f"The same ClientId connected again, from {attempt.address}.")
        self._sessions[key] = session, trusted.fingerprint
        reason = f"{attempt.subject} is connected under the trusted certificate {trusted.name or trusted.fingerprint}."
        record = self.store.log(attempt, "CONNECTED", reason)
        try:
            with suppress(OSError, SSL.Error):
                await session.stream.write(ConnackPacket.build(0, 0).to_bytes())
            await session.run(keep_alive)
        except asyncio.CancelledError:
            if not session.ending:
                raise
        finally:
            self.store.log_end(record, session.ending)
            if self._sessions.get(key, (None,))[0] is session:
                del self._sessions[key]


def _without_certificate(error: SSL.Error) -> Refusal:
    """Name a handshake that failed for another reason than a certificate that was judged."""
    reason = error.args[0][-1][2] if error.args and error.args[0] else "the client ended it"
    if reason == "peer did not return a certificate":
        return Refusal(
            "NO_CLIENT_CERT", "The client sent no certificate: give it the device's certificate chain and private key."
        )
    if "alert" in reason:
        sentence = f"The client refused the platform's certificate ({reason}): give it serverCert.pem as trusted CA."
        return Refusal("HANDSHAKE_FAILED", sentence)
    return Refusal("HANDSHAKE_FAILED", f"The TLS handshake failed ({reason}): check the client's TLS settings.")
