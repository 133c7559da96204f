"""MQTT packets out of bytes: amqtt's packet classes as codec, with the checks of MQTT 3.1.1 that they leave out."""

import struct
from typing import Any

from amqtt.adapters import BufferReader  # type: ignore[import-untyped]
from amqtt.errors import AMQTTError, MQTTError, NoDataError  # type: ignore[import-untyped]
from amqtt.mqtt import MQTTFixedHeader, packet, packet_dict  # type: ignore[import-untyped]
from amqtt.mqtt.connect import ConnectVariableHeader  # type: ignore[import-untyped]

from mciot_platform.tls import NO_WEBSOCKET, TlsStream
from mciot_platform.trust import ConnectionRejected

LONGEST_PAYLOAD = 16184  # bytes, as the vendor documents it
LONGEST_PACKET = LONGEST_PAYLOAD + 1024  # room for the topic
BAD_PROTOCOL_LEVEL = 1  # CONNACK return code (MQTT 3.1.1, table 3.1)
#: What a client may send, with the flags that MQTT prescribes (None: they carry meaning).
CLIENT_PACKETS: dict[int, int | None] = {packet.PUBLISH: None}
CLIENT_PACKETS |= dict.fromkeys((packet.CONNECT, packet.PUBACK, packet.PINGREQ, packet.DISCONNECT), 0)
CLIENT_PACKETS |= dict.fromkeys((packet.PUBREL, packet.SUBSCRIBE, packet.UNSUBSCRIBE), 2)
WITH_PACKET_ID = (packet.PUBACK, packet.PUBREL, packet.SUBSCRIBE, packet.UNSUBSCRIBE)
BAD_PARTS = "The client sent a packet with a part missing, bytes left over, or text that is not UTF-8."


class MalformedPacket(Exception):
    """The client broke the protocol, in one sentence; the connection ends."""


class PacketReader:
    """Cuts MQTT packets out of the bytes of a connection."""

    def __init__(self, stream: TlsStream) -> None:
        self.stream, self._buffer = stream, b""

    async def next(self) -> Any:
        """Return the next packet, or None at the end of the connection.

        Raises: MalformedPacket: if the bytes are none; ConnectionRejected: if they are another protocol's.
        """
        try:
            while (header := await self._complete_header()) is None:
                received = await self.stream.read()
                if not received:
                    return None
                self._buffer += received
            start, end = _body(self._buffer)
            body, self._buffer = self._buffer[start:end], self._buffer[end:]
            if header.packet_type == packet.CONNECT:
                await _check_protocol_level(body)
            received = await packet_dict[header.packet_type].from_stream(BufferReader(body), header)
            _check_content(received, body)
            return received
        except (AMQTTError, MQTTError, NoDataError, AttributeError, ValueError, struct.error) as error:
            raise MalformedPacket("The client sent something that is no MQTT packet.") from error

    def has_message(self) -> bool:
        """Whether a whole PUBLISH has been read already, so that `next` returns it without waiting."""
        start, end = _body(self._buffer)
        return start > 0 and self._buffer[0] >> 4 == packet.PUBLISH and len(self._buffer) >= end

    async def _complete_header(self) -> Any:
        """Return the fixed header once the whole packet is in the buffer, None before."""
        if self._buffer.startswith(b"GET "):
            raise ConnectionRejected("WEBSOCKET", NO_WEBSOCKET)
        header = await MQTTFixedHeader.from_stream(BufferReader(self._buffer))
        if header is None:
            return None
        flags = CLIENT_PACKETS.get(header.packet_type, -1)
        if flags not in (None, header.flags):
            raise MalformedPacket("The client sent a packet of a type or with flags that MQTT does not allow.")
        if header.remaining_length > LONGEST_PACKET:
            sentence = f"The client sent a packet of {header.remaining_length} bytes: {LONGEST_PAYLOAD} at most."
            raise MalformedPacket(sentence)
        return header if len(self._buffer) >= _body(self._buffer)[1] else None


def _body(data: bytes) -> tuple[int, int]:
    """Return where a packet's body begins and ends, 0 before the length (of more bytes than needed, too) is there."""
    start = next((index + 1 for index in range(1, min(5, len(data))) if data[index] < 128), 0)
    return start, start + sum((data[index] & 127) << 7 * (index - 1) for index in range(1, start))


async def _check_protocol_level(connect: bytes) -> None:
    """Check the variable header alone, since an MQTT 5 CONNECT can't be read as a whole."""
    header = await ConnectVariableHeader.from_stream(BufferReader(connect), MQTTFixedHeader(packet.CONNECT))
    if header.proto_name not in ("MQTT", "MQIsdp"):
        raise MalformedPacket("The client's CONNECT names another protocol than MQTT.")
    level = header.proto_level
    if level not in (3, 4):
        sentence = f"The client speaks MQTT protocol level {level}: use MQTT 3.1.1 (level 4) or 3.1 (level 3)."
        raise ConnectionRejected("PROTOCOL_LEVEL", sentence, BAD_PROTOCOL_LEVEL)
    if header.flags & ConnectVariableHeader.RESERVED_FLAG:
        raise MalformedPacket("The client's CONNECT sets the flag that MQTT reserves.")


def _check_content(received: Any, body: bytes) -> None:
    """Refuse what amqtt reads although MQTT forbids it (MQTT 3.1.1, sections 1.5.3, 2.3.1, 3.3, 3.8.3)."""
    kind, parts = received.fixed_header.packet_type, (received.variable_header, received.payload)
    if kind == packet.CONNECT:
        return _check_connect(received, body)
    faults: dict[str, bool] = {BAD_PARTS: b"".join(part.to_bytes() for part in parts if part) != body}
    if kind == packet.PUBLISH:
        bad_topic = not received.topic_name or bool(set(received.topic_name) & set("+#\0"))
        repeated = bool(received.dup_flag and not received.qos)
        faults |= {
            "The client sent a message with QoS 3.": received.qos == 3,
            f"The client sent more than {LONGEST_PAYLOAD} bytes in a message.": len(received.data) > LONGEST_PAYLOAD,
            "The client sent a message of QoS 0 as one that it sent before.": repeated,
            "The client sent a message without a topic, or with a wildcard in it.": bad_topic,
        }
    elif kind in (packet.SUBSCRIBE, packet.UNSUBSCRIBE):
        pairs = [topic if kind == packet.SUBSCRIBE else (topic, 0) for topic in received.payload.topics]
        bad_topic = any(not topic or "\0" in topic for topic, _ in pairs)
        faults |= {
            "The client sent a SUBSCRIBE or UNSUBSCRIBE without topics.": not pairs,
            "The client sent a SUBSCRIBE with a QoS that there is not.": any(qos > 2 for _, qos in pairs),
            "The client sent a SUBSCRIBE or UNSUBSCRIBE with a topic that MQTT does not allow.": bad_topic,
        }
    numbered = kind in WITH_PACKET_ID or (kind == packet.PUBLISH and received.qos > 0)
    faults["The client sent a packet with the identifier 0."] = numbered and not received.variable_header.packet_id
    for sentence, is_so in faults.items():
        if is_so:
            raise MalformedPacket(sentence)


def _check_connect(connect: Any, body: bytes) -> None:
    """Check what a CONNECT contains (MQTT 3.1.1, section 3.1)."""
    header = connect.variable_header
    if header.will_qos == 3 or (not header.will_flag and (header.will_qos or header.will_retain_flag)):
        raise MalformedPacket("The client's CONNECT has a last will that contradicts itself.")
    if header.password_flag and not header.username_flag:
        raise MalformedPacket("The client's CONNECT has a password without a user.")
    texts = [True, *[True, False] * header.will_flag, *[True] * header.username_flag, *[False] * header.password_flag]
    rest = body[len(header.to_bytes()) :]
    for is_text in texts:
        end = 2 + int.from_bytes(rest[:2])
        if len(rest) < max(end, 2) or (is_text and "\0" in rest[2:end].decode()):  # what is no UTF-8 is a ValueError
            raise MalformedPacket(BAD_PARTS)
        rest = rest[end:]
    if rest:
        raise MalformedPacket(BAD_PARTS)
    if header.will_flag and (not connect.will_topic or set(connect.will_topic) & set("+#")):
        raise MalformedPacket("The client's CONNECT has a last will without a topic, or with a wildcard in it.")
