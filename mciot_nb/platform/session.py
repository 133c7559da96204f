"""One device's connection: what it may publish and subscribe to, and what it is answered.

It is no general broker: a device publishes to the platform's topics and receives only its own answers.
"""

import asyncio
from typing import Any

from amqtt.mqtt import (  # type: ignore[import-untyped]
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

from mciot_nb.platform import smartrest
from mciot_nb.platform.packets import LONGEST_PAYLOAD, Malformed, PacketReader
from mciot_nb.platform.store import Device, Store
from mciot_nb.platform.tls import WRITE_SECONDS, TlsStream
from mciot_nb.platform.trust import Refusal

PUBLISH_TOPICS, SUBSCRIBE_TOPICS = ("s/us", "s/uat"), ("s/ds", "s/e", "s/dat")
FAILED_SUBSCRIPTION = 0x80


class Ended(Exception):
    """The client has gone, or has been silent for too long, in one sentence."""


class Session:
    """One device's connection, from its CONNACK to its end.

    Nothing of it outlives the connection, also with clean_session=0: a QoS 2 message that the client sends again after
    a reconnect is stored a second time. Exactly once across reconnects is later work.
    """

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
                await self._handle(await self._next(keep_alive))
                await asyncio.sleep(0)  # a busy device must not keep the others waiting
        except (Ended, Malformed, Refusal) as end:
            self.ending = str(end)
        except TimeoutError:
            self.ending = f"The client did not read what was sent to it for {WRITE_SECONDS:.0f} seconds."
        except (OSError, SSL.Error):
            self.ending = "The connection broke."

    async def _next(self, keep_alive: int) -> Any:
        """Give the client's next packet. Raises Ended where none will come."""
        try:
            async with asyncio.timeout(1.5 * keep_alive or None):  # MQTT 3.1.1, section 3.1.2.10
                received = await self.packets.next()
        except TimeoutError:
            sentence = f"The client was silent for longer than its keep-alive of {keep_alive} seconds allows."
            raise Ended(sentence) from None
        if received is None:
            raise Ended("The client closed the connection.")
        if received.fixed_header.packet_type == packet.DISCONNECT:
            raise Ended("The client disconnected.")
        return received

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
        if len(message.data) > LONGEST_PAYLOAD:
            raise Malformed(f"The client sent more than {LONGEST_PAYLOAD} bytes in a message.")
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
