"""MQTT packets out of bytes: amqtt's packet classes as codec, with the checks of MQTT 3.1.1 that they leave out."""

import re
import struct
from typing import Any, NamedTuple

from amqtt.adapters import BufferReader  # type: ignore[import-untyped]
from amqtt.errors import AMQTTError, MQTTError, NoDataError  # type: ignore[import-untyped]
from amqtt.mqtt import MQTTFixedHeader, packet, packet_dict  # type: ignore[import-untyped]
from amqtt.mqtt.connect import ConnectVariableHeader  # type: ignore[import-untyped]

from mciot_platform.tls import TlsStream
from mciot_platform.trust import ConnectionRejected

LONGEST_PACKET = 16184  # bytes, header and payload, as the vendor documents it
#: What a client may send, with the flags that MQTT prescribes (None: they carry meaning).
CLIENT_PACKETS: dict[int, int | None] = {packet.PUBLISH: None}
CLIENT_PACKETS |= dict.fromkeys((packet.CONNECT, packet.PUBACK, packet.PUBREC, packet.PUBCOMP), 0)
CLIENT_PACKETS |= dict.fromkeys((packet.PINGREQ, packet.DISCONNECT), 0)
CLIENT_PACKETS |= dict.fromkeys((packet.PUBREL, packet.SUBSCRIBE, packet.UNSUBSCRIBE), 2)
WITHOUT_PACKET_ID = (packet.CONNECT, packet.PINGREQ, packet.DISCONNECT)
GOOD_TOPIC = re.compile(r"[^+#\0]+")
BAD_PARTS = "The client sent a packet with a part missing, bytes left over, or text that is not UTF-8."
BAD_PUBLISH = (
    "The client sent a message with QoS 3.",
    BAD_PARTS,
    "The client sent a message of QoS 0 as one that it sent before.",
    "The client sent a message without a topic, or with a wildcard in it.",
    "The client sent a packet with the identifier 0.",
)


class MalformedPacket(Exception):
    """The client broke the protocol, in one sentence; the connection ends."""


class Publish(NamedTuple):
    """A client's message; ``size`` is that of its packet in bytes, ``packet_id`` 0 where its QoS is."""

    topic: str
    payload: bytes
    qos: int
    packet_id: int
    size: int


class PacketReader:
    """Cuts MQTT packets out of the bytes of a connection."""

    def __init__(self, stream: TlsStream) -> None:
        self.stream, self._buffer = stream, b""

    async def next(self) -> Any:
        """Return the next packet, a `Publish` or one of amqtt's, or None at the end of the connection.

        Raises: MalformedPacket: if the bytes are none; ConnectionRejected: if they are another protocol's.
        """
        while (whole := self._cut()) is None:
            if not (received := await self.stream.read()):
                return None
            self._buffer += received
        first, body = whole
        if first >> 4 == packet.PUBLISH:
            return _publish(first, body)
        try:
            if first >> 4 == packet.CONNECT:
                await _check_protocol_level(body)
            header = MQTTFixedHeader(first >> 4, first & 15, len(body))
            read = await packet_dict[header.packet_type].from_stream(BufferReader(body), header)
            _check_content(read, body)
            return read
        except (AMQTTError, MQTTError, NoDataError, AttributeError, ValueError, struct.error) as error:
            raise MalformedPacket("The client sent something that is not an MQTT packet.") from error

    def message(self) -> Publish | None:
        """Return the next packet if it is a message that has been read already. Raises: MalformedPacket."""
        if self._buffer and self._buffer[0] >> 4 == packet.PUBLISH and (whole := self._cut()):
            return _publish(*whole)
        return None

    def _cut(self) -> tuple[int, bytes] | None:
        """Take the next packet, its first byte and its body, out of the buffer; None before it is there as a whole."""
        data, length, start = self._buffer, 0, 1
        if data.startswith(b"GET "):
            raise ConnectionRejected("WEBSOCKET")
        for start in range(1, 5):  # of more bytes than needed, too
            if start >= len(data):
                return None
            length |= (data[start] & 127) << 7 * (start - 1)
            if data[start] < 128:
                break
        else:
            raise MalformedPacket("The client sent a packet with a length that MQTT does not allow.")
        if CLIENT_PACKETS.get(data[0] >> 4, -1) not in (None, data[0] & 15):
            raise MalformedPacket("The client sent a packet of a type or with flags that MQTT does not allow.")
        if (end := start + 1 + length) > LONGEST_PACKET:
            raise MalformedPacket(f"The client sent more than {LONGEST_PACKET} bytes in a packet, with its header.")
        if len(data) < end:
            return None
        self._buffer = data[end:]
        return data[0], data[start + 1 : end]


def _publish(first: int, body: bytes) -> Publish:
    """Read a message, and refuse what MQTT forbids (MQTT 3.1.1, sections 1.5.3, 2.3.1 and 3.3)."""
    qos, end = first >> 1 & 3, 2 + int.from_bytes(body[:2])
    begin = end + 2 * bool(qos)
    number = int.from_bytes(body[end:begin])
    try:
        topic = body[2:end].decode()
    except UnicodeDecodeError:
        raise MalformedPacket(BAD_PARTS) from None
    no_topic, repeated = not GOOD_TOPIC.fullmatch(topic), first & 8 and not qos
    faults = qos == 3, len(body) < max(begin, 2), repeated, no_topic, qos and not number
    if any(faults):
        raise MalformedPacket(next(sentence for sentence, is_so in zip(BAD_PUBLISH, faults, strict=True) if is_so))
    return Publish(topic, body[begin:], qos, number, len(body))


async def _check_protocol_level(connect: bytes) -> None:
    """Check the variable header alone, since an MQTT 5 CONNECT can't be read as a whole."""
    header = await ConnectVariableHeader.from_stream(BufferReader(connect), MQTTFixedHeader(packet.CONNECT))
    if header.proto_name not in ("MQTT", "MQIsdp"):
        raise MalformedPacket("The client's CONNECT names another protocol than MQTT.")
    if header.proto_level not in (3, 4):
        raise ConnectionRejected("PROTOCOL_LEVEL", level=header.proto_level)
    if header.flags & ConnectVariableHeader.RESERVED_FLAG:
        raise MalformedPacket("The client's CONNECT sets the flag that MQTT reserves.")


def _check_content(received: Any, body: bytes) -> None:
    """Refuse what amqtt reads although MQTT forbids it (MQTT 3.1.1, sections 1.5.3, 2.3.1, 3.8.3)."""
    kind, parts = received.fixed_header.packet_type, (received.variable_header, received.payload)
    if kind == packet.CONNECT:
        return _check_connect(received, body)
    faults: dict[str, bool] = {BAD_PARTS: b"".join(part.to_bytes() for part in parts if part) != body}
    if kind in (packet.SUBSCRIBE, packet.UNSUBSCRIBE):
        pairs = [topic if kind == packet.SUBSCRIBE else (topic, 0) for topic in received.payload.topics]
        bad_topic = any(not topic or "\0" in topic for topic, _ in pairs)
        faults |= {
            "The client sent a SUBSCRIBE or UNSUBSCRIBE without topics.": not pairs,
            "The client sent a SUBSCRIBE with a QoS that there is not.": any(qos > 2 for _, qos in pairs),
            "The client sent a SUBSCRIBE or UNSUBSCRIBE with a topic that MQTT does not allow.": bad_topic,
        }
    unnumbered = kind not in WITHOUT_PACKET_ID and not received.variable_header.packet_id
    faults["The client sent a packet with the identifier 0."] = unnumbered
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
