"""MQTT packets out of bytes: amqtt's packet classes, with the checks that they leave to others."""

from collections.abc import Awaitable, Callable
from typing import Any

from amqtt.adapters import BufferReader  # type: ignore[import-untyped]
from amqtt.errors import AMQTTError, MQTTError, NoDataError  # type: ignore[import-untyped]
from amqtt.mqtt import MQTTFixedHeader, packet, packet_dict  # type: ignore[import-untyped]
from amqtt.mqtt.connect import ConnectVariableHeader  # type: ignore[import-untyped]

from mciot_nb.platform.trust import Refusal

LONGEST_PAYLOAD = 16184
LONGEST_PACKET = LONGEST_PAYLOAD + 1024  # room for the topic
BAD_PROTOCOL_LEVEL = 1  # CONNACK return code (MQTT 3.1.1, table 3.1)
#: What a client may send, with the flags that MQTT prescribes (None: they carry meaning).
FROM_CLIENTS = {
    packet.CONNECT: 0,
    packet.PUBLISH: None,
    packet.PUBACK: 0,
    packet.PUBREL: 2,
    packet.SUBSCRIBE: 2,
    packet.UNSUBSCRIBE: 2,
    packet.PINGREQ: 0,
    packet.DISCONNECT: 0,
}


class Malformed(Exception):
    """The client broke the protocol, in one sentence; the connection ends."""


class PacketReader:
    """Cuts MQTT packets out of the bytes of a connection."""

    def __init__(self, read: Callable[[], Awaitable[bytes]]) -> None:
        self._read, self._buffer = read, b""

    async def next(self) -> Any:
        """Give the next packet, or None at the end of the connection. Raises Malformed."""
        try:
            while (header := await self._header()) is None:
                received = await self._read()
                if not received:
                    return None
                self._buffer += received
            end = len(header.to_bytes()) + header.remaining_length
            body, self._buffer = self._buffer[len(header.to_bytes()) : end], self._buffer[end:]
            if header.packet_type == packet.CONNECT:
                await _check_protocol_level(body)
            return await packet_dict[header.packet_type].from_stream(BufferReader(body), header)
        except (AMQTTError, MQTTError, NoDataError, AttributeError, ValueError) as error:
            raise Malformed("The client sent something that is no MQTT packet.") from error

    async def _header(self) -> Any:
        """Give the fixed header once the whole packet is in the buffer."""
        header = await MQTTFixedHeader.from_stream(BufferReader(self._buffer))
        if header is None:
            return None
        flags = FROM_CLIENTS.get(header.packet_type, -1)
        if flags not in (None, header.flags):
            raise Malformed("The client sent a packet of a type or with flags that MQTT does not allow.")
        if header.remaining_length > LONGEST_PACKET:
            raise Malformed(f"The client sent a packet of {header.remaining_length} bytes: {LONGEST_PAYLOAD} at most.")
        complete = len(self._buffer) >= len(header.to_bytes()) + header.remaining_length
        return header if complete else None


async def _check_protocol_level(connect: bytes) -> None:
    """Look at the level alone, since an MQTT 5 CONNECT can't be read as a whole."""
    level = (
        await ConnectVariableHeader.from_stream(BufferReader(connect), MQTTFixedHeader(packet.CONNECT))
    ).proto_level
    if level not in (3, 4):
        sentence = f"The client speaks MQTT protocol level {level}: use MQTT 3.1.1 (level 4) or 3.1 (level 3)."
        raise Refusal("PROTOCOL_LEVEL", sentence, BAD_PROTOCOL_LEVEL)
