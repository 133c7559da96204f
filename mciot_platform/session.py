"""One device's connection: what it may publish and subscribe to, and what it is answered.

It is no general broker: a device publishes to the platform's topics and receives only its own answers.
"""

import asyncio
import re
from contextlib import suppress
from typing import Any

from amqtt import mqtt  # type: ignore[import-untyped]
from amqtt.mqtt import packet  # type: ignore[import-untyped]
from OpenSSL import SSL

from mciot_nb.connect.smartrest import line
from mciot_platform import messages
from mciot_platform.identity import Tokens
from mciot_platform.packets import LONGEST_PACKET, MalformedPacket, PacketReader, Publish
from mciot_platform.storage import RegisteredDevice, Storage, StoredOperation, TrustAnchor
from mciot_platform.tls import WRITE_SECONDS
from mciot_platform.trust import ConnectionRejected

#: What a device may hear: answers, errors, tokens, and what is never sent here: on templates of its own (s/dt, s/dc),
#: on JSON, and on SmartREST 1.0 (s/dl, s/ol). All of it is its own, so a wildcard behind s/dc does no harm.
SUBSCRIBE_TOPICS = re.compile(r"s/(ds|e|dat|dt|(dc|dl|ol)(/[^+]+)?)|error|devicecontrol/notifications")
FAILED_SUBSCRIPTION = 0x80
ACKNOWLEDGED = {1: b"\x40\2", 2: b"\x50\2"}  # PUBACK and PUBREC, by QoS, before the packet's identifier
MOST_UNRELEASED = 1000  # they are stored anew at every QoS 2 message
MOST_AT_ONCE = 50  # messages of one device, while others wait


class ConnectionEnded(Exception):
    """The client has gone, or has been silent for too long, in one sentence."""


class Session:
    """One device's connection, from its CONNACK to its end. It has no ``anchor`` where a password let it in.

    Its subscriptions and unfinished QoS 2 messages outlive it if the client asked for that (clean session 0).
    """

    def __init__(
        self,
        packets: PacketReader,
        storage: Storage,
        tokens: Tokens,
        device: RegisteredDevice,
        anchor: TrustAnchor | None,
        connect: Any,
    ) -> None:
        self.packets, self.storage, self.tokens, self.device, self.anchor = packets, storage, tokens, device, anchor
        self.ending, self.keep_alive = "", connect.keep_alive
        self._task = asyncio.current_task()
        self._clean = connect.clean_session_flag
        self._will = (connect.will_topic, connect.will_message) if connect.will_flag else None
        self._subscribed: dict[str, int] = {}
        self._unreleased: set[int] = set()  # QoS 2 messages that are stored, until the client's PUBREL
        self._last_packet_id = 0

    def resume(self) -> bool:
        """Load the stored session, or delete it, as the client asked. Returns whether it goes on (session present)."""
        if self._clean:
            self.storage.delete("sessions", tenant=self.device.tenant, device=self.device.device)
            return False
        stored = self.storage.session(self.device)
        self._subscribed, self._unreleased = stored or ({}, set())
        self._store()
        return stored is not None

    def _store(self) -> None:
        if not self._clean:
            self.storage.store_session(self.device, self._subscribed, self._unreleased)

    def publish_will(self) -> None:
        """Carry out the client's last will, unless it disconnected properly (MQTT 3.1.1, section 3.1.2.5)."""
        if self._will and (sender := self.storage.device(self.device.tenant, self.device.device)):
            with self.storage.transaction():
                self._handle_message(sender, *self._will)

    async def deliver(self, operation: StoredOperation) -> None:
        """Send an operation to the device if it has subscribed; else it asks for it with message 500."""
        replies = messages.operation_replies(self.storage, operation)
        with suppress(OSError, SSL.Error):  # TimeoutError is one too; the session itself notices a broken connection
            await self.packets.stream.write(b"".join(map(self._publication, replies)))

    def end(self, sentence: str) -> None:
        """End the connection from outside; ``sentence`` goes into the log."""
        self.ending = sentence
        if self._task:
            self._task.cancel()

    async def run(self) -> None:
        """Serve the device until it leaves or breaks a rule; `ending` says afterwards which."""
        try:
            while True:
                received = await self._next(self.keep_alive)
                if isinstance(received, Publish):
                    await self._receive_messages(received)
                else:
                    await self._handle_packet(received)
                await asyncio.sleep(0)  # a busy device must not keep the others waiting
        except (ConnectionEnded, MalformedPacket, ConnectionRejected) as end:
            self.ending = str(end)
        except TimeoutError:
            self.ending = f"The client did not read what was sent to it for {WRITE_SECONDS:.0f} seconds."
        except (OSError, SSL.Error):
            self.ending = "The connection broke."

    async def _next(self, keep_alive: int) -> Any:
        """Return the client's next packet. Raises: ConnectionEnded: if none will come."""
        try:
            async with asyncio.timeout(1.5 * keep_alive or None):  # MQTT 3.1.1, section 3.1.2.10
                received = await self.packets.next()
        except TimeoutError:
            sentence = f"The client was silent for longer than its keep-alive of {keep_alive} seconds allows."
            raise ConnectionEnded(sentence) from None
        if received is None:
            raise ConnectionEnded("The client closed the connection.")
        if not isinstance(received, Publish) and received.fixed_header.packet_type == packet.DISCONNECT:
            self._will = None
            raise ConnectionEnded("The client disconnected.")
        return received

    async def _handle_packet(self, received: Any) -> None:
        match received.fixed_header.packet_type:
            case packet.PUBREL:
                self._unreleased.discard(received.variable_header.packet_id)
                self._store()
                await self._send(mqtt.PubcompPacket.build(received.variable_header.packet_id))
            case packet.PUBREC:  # of a message of ours of QoS 2, which the client releases by PUBCOMP
                await self._send(mqtt.PubrelPacket.build(received.variable_header.packet_id))
            case packet.SUBSCRIBE:
                await self._subscribe(received)
            case packet.UNSUBSCRIBE:
                for topic in received.payload.topics:
                    self._subscribed.pop(topic, None)
                self._store()
                await self._send(mqtt.UnsubackPacket.build(received.variable_header.packet_id))
            case packet.PINGREQ:
                await self._send(mqtt.PingRespPacket())
            case packet.CONNECT:
                raise MalformedPacket("The client sent CONNECT twice.")

    async def _receive_messages(self, first: Publish) -> None:
        """Store a message, and those that are complete behind it: one commit serves them all. Then acknowledge them."""
        received, size, problem = [first], first.size, None
        try:
            while len(received) < MOST_AT_ONCE and size < LONGEST_PACKET and (more := self.packets.message()):
                received.append(more)
                size += more.size
        except MalformedPacket as error:  # those before it are good
            problem = error
        replies: list[messages.Reply] = []
        sent = b""
        sender = self.storage.device(self.device.tenant, self.device.device) or self.device
        with self.storage.transaction():
            for message in received:
                new_qos_2 = message.qos == 2 and message.packet_id not in self._unreleased
                if new_qos_2 and len(self._unreleased) >= MOST_UNRELEASED:
                    problem = MalformedPacket(f"The client left {MOST_UNRELEASED} QoS 2 messages without PUBREL.")
                    break
                if new_qos_2:
                    self._unreleased.add(message.packet_id)
                    self._store()
                if new_qos_2 or message.qos < 2:
                    replies += self._handle_message(sender, *message[:2], message.packet_id)
                if message.qos:
                    sent += ACKNOWLEDGED[message.qos] + message.packet_id.to_bytes(2)
        await self.packets.stream.write(sent + b"".join(map(self._publication, replies)))
        if problem:
            raise problem

    def _handle_message(
        self, sender: RegisteredDevice, topic: str, payload: bytes, packet_id: int = 0
    ) -> list[messages.Reply]:
        """Do what a message asks for; it may be acknowledged once the transaction around this has ended.

        What is sent to be processed in another way (t/, q/, c/) is stored like the rest.
        """
        match topic.split("/"):
            case ["s" | "t" | "q" | "c", "us", *child] if len(child) < 2:
                return messages.answer(payload, self.storage, sender, "".join(child))
            case [api, resource, "create" | "createBulk"] if f"{api}/{resource}" in messages.AS_STATIC:
                return messages.answer_json(f"{api}/{resource}", "", payload, self.storage, sender, packet_id)
            case ["inventory", "managedObjects", "update", target] if target:
                return messages.answer_json("", target, payload, self.storage, sender, packet_id)
            case ["s", "uat"]:
                token = self.tokens.issue(self.device.tenant, self.device.device)
                return [messages.Reply(messages.TOKENS, line("71", token))]
            case ["s", "ut", collection] if not payload:
                return [messages.Reply("s/dt", line("41", collection))]  # there is none of this name
            case ["s" | "t" | "q" | "c", "ut" | "uc", collection, *_]:
                sentence = f"The local platform keeps no templates of a device's own, so not {collection} either."
            case _:
                sentence = "A device publishes on s/us or s/uat and JSON on event/events/create and the like."
        return [messages.Reply(messages.ERRORS, line("50", "", sentence))]

    def _publication(self, reply: messages.Reply) -> bytes:
        """Return the PUBLISH packet of a reply; nothing where the device has not subscribed to its topic."""
        qos = self._subscribed.get(reply.topic)
        if qos is None:
            return b""
        self._last_packet_id = self._last_packet_id % 0xFFFF + 1
        identifier = self._last_packet_id if qos else None
        packed = mqtt.PublishPacket.build(reply.topic, reply.text.encode(), identifier, False, qos, False)
        return bytes(packed.to_bytes())

    async def _subscribe(self, request: Any) -> None:
        granted = []
        for topic, qos in request.payload.topics:
            if allowed := SUBSCRIBE_TOPICS.fullmatch(topic):
                self._subscribed[topic] = qos
            granted.append(qos if allowed else FAILED_SUBSCRIPTION)
        self._store()
        await self._send(mqtt.SubackPacket.build(request.variable_header.packet_id, granted))
        if messages.NOTIFICATIONS in (topic for topic, _ in request.payload.topics):
            waiting = messages.pending(self.storage, self.device, messages.NOTIFICATIONS)
            await self.packets.stream.write(b"".join(map(self._publication, waiting)))

    async def _send(self, answer: Any) -> None:
        await self.packets.stream.write(answer.to_bytes())
