"""A client that writes its own MQTT packets over mutual TLS, for the tests that look at single bytes."""

import contextlib
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from platform_tools import (
    SECONDS,
    Entity,
    client_context,
    device,
    last_record,
    log_length,
    make,
    rest,
    running,
    start_in_foreground,
    started,
    upload,
    write_chain,
)

from mciot_nb.local_platform import LocalPlatform

PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = 0x30, 0x40, 0x50, 0x62, 0x70
WILL, USER, PASSWORD = 0x04, 0x80, 0x40  # flags of CONNECT
PING, PONG, DISCONNECT = b"\xc0\x00", b"\xd0\x00", b"\xe0\x00"


def packet(first: int, body: bytes) -> bytes:
    length, rest_of_it = b"", len(body)
    while rest_of_it > 127:
        length, rest_of_it = length + bytes([rest_of_it % 128 | 128]), rest_of_it // 128
    return bytes([first]) + length + bytes([rest_of_it]) + body


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return len(data).to_bytes(2) + data


def connect(client_id: str, clean: bool = True, keep_alive: int = 60, will: tuple[str, str] | None = None) -> bytes:
    flags = 2 * clean | 4 * bool(will)
    parts = b"".join(map(text, (client_id, *(will or ()))))
    return packet(0x10, text("MQTT") + bytes([4, flags]) + keep_alive.to_bytes(2) + parts)


def connect_with(flags: int, *parts: str | bytes, behind: bytes = b"") -> bytes:
    """Write a CONNECT of the device ``dev`` with any flags and parts, also such as contradict each other."""
    head, said = text("MQTT") + bytes([4, 2 | flags]) + b"\0\x3c", b"".join(map(text, ("dev", *parts)))
    return packet(0x10, head + said + behind)


def publish(payload: str | bytes, qos: int = 0, number: int = 1, dup: bool = False, topic: str = "s/us") -> bytes:
    data = payload.encode() if isinstance(payload, str) else payload
    return packet(PUBLISH | qos << 1 | dup << 3, text(topic) + (number.to_bytes(2) if qos else b"") + data)


def subscribe(*topics: str, qos: int = 1) -> bytes:
    return packet(0x82, b"\0\x07" + b"".join(text(topic) + bytes([qos]) for topic in topics))


def acknowledged(kind: int, number: int = 1) -> bytes:
    return packet(kind, number.to_bytes(2))


class Raw:
    """A device that writes its own packets over mutual TLS."""

    def __init__(self, platform: LocalPlatform, context: ssl.SSLContext, receive_buffer: int = 0) -> None:
        plain = socket.socket()
        if receive_buffer:  # before it connects: the system then never makes it larger
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        plain.connect(platform.mqtt)
        self.tls = context.wrap_socket(plain, server_hostname="localhost")
        self.tls.settimeout(SECONDS)
        self._buffer = b""

    def send(self, *packets: bytes) -> None:
        self.tls.sendall(b"".join(packets))

    def packet(self) -> bytes:
        """Return the next packet; nothing at the connection's end."""
        while not (whole := self._whole()):
            try:
                received = self.tls.recv(65536)
            except ConnectionError:
                received = b""
            if not received:
                return b""
            self._buffer += received
        return whole

    def _whole(self) -> bytes:
        length = 0
        for index, byte in enumerate(self._buffer[1:5]):
            length |= (byte & 127) << 7 * index
            if byte < 128:
                end = 2 + index + length
                if len(self._buffer) < end:
                    return b""
                whole, self._buffer = self._buffer[:end], self._buffer[end:]
                return whole
        return b""

    def ask(self, *packets: bytes) -> bytes:
        """Send, and return the one packet that answers."""
        self.send(*packets)
        return self.packet()

    def until_pong(self, *packets: bytes) -> list[bytes]:
        """Send with a ping behind, and return all that comes before its answer. QoS 1 is acknowledged."""
        self.send(*packets, PING)
        return list(iter(self._acknowledging, PONG))

    def _acknowledging(self) -> bytes:
        received = self.packet()
        assert received, "the platform ended the connection"
        if received[0] & 0xF6 == PUBLISH | 2:
            at = len(received) - len(_behind_header(received)) + 2 + len(_topic(received))
            self.send(b"\x40\x02" + received[at : at + 2])
        return received

    def messages(self, *packets: bytes) -> list[tuple[str, str]]:
        """Send, and return the messages that come until a ping is answered."""
        return [read_message(one) for one in self.until_pong(*packets) if one[0] & 0xF0 == PUBLISH]

    def everything(self) -> list[bytes]:
        """Send no more, and return all packets until the platform ends the connection."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.tls, socket.SHUT_WR)  # ssl's own shutdown would forget the keys
        received = list(iter(self.packet, b""))
        self.tls.close()
        assert not self._buffer, "the platform sent half a packet"
        return received

    def leave(self) -> None:
        """Say goodbye, and wait until the platform has let go."""
        self.send(DISCONNECT)
        while self.packet():
            pass
        self.tls.close()


def _behind_header(received: bytes) -> bytes:
    return received[next(index for index in range(1, 5) if received[index] < 128) + 1 :]


def _topic(received: bytes) -> bytes:
    body = _behind_header(received)
    return body[2 : 2 + int.from_bytes(body[:2])]


def read_message(received: bytes) -> tuple[str, str]:
    topic, body = _topic(received), _behind_header(received)
    return topic.decode(), body[2 + len(topic) + (2 if received[0] & 6 else 0) :].decode()


@dataclass
class World:
    """A platform that trusts one root, its devices with certificates by that root, and where those are."""

    platform: LocalPlatform
    root: Entity
    folder: Path

    def __post_init__(self) -> None:
        self.device = make("dev", self.root)

    def rest(self, method: str, path: str = "", **options: Any) -> requests.Response:
        return rest(self.platform, method, path, **options)

    def upload(self, entity: Entity, **fields: Any) -> int:
        return upload(self.platform, entity, **fields).status_code

    def logged(self) -> int:
        return log_length(self.platform)

    def last_record(self, before: int) -> Any:
        return last_record(self.platform, before)

    def connect(self, entity: Entity | None, *arguments: Any, **options: Any) -> Any:
        """Connect with paho: see `platform_tools.device`."""
        return device(self.platform, self.folder, entity, *arguments, **options)

    def raw(self, name: str = "dev", **options: Any) -> "Raw":
        """Do the handshake as the device of this name."""
        return Raw(self.platform, self.context(name), **options)

    def context(self, name: str, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
        """Return a context with the certificate of the device of this name, made when first asked for."""
        context, file = client_context(self.platform, version), self.folder / f"{name}.pem"
        context.load_cert_chain(file if file.exists() else write_chain(make(name, self.root), file))
        return context

    def dial(self, name: str, clean: bool = True, expected: bytes = b"\x20\2\0\0", **options: Any) -> Raw:
        """Connect as a device with a certificate of its own."""
        raw = self.raw(name)
        assert raw.ask(connect(name, clean, **options)) == expected
        return raw

    def texts(self, name: str) -> list[str]:
        """Return the texts of a device's events."""
        return list(self.platform.events().query("device == @name")["text"])

    def ending(self, name: str) -> list[str]:
        """Return how a device's connections ended."""
        return list(self.platform.log().query("client_id == @name")["ending"].dropna())

    def id_of(self, name: str) -> str:
        found = self.rest("GET", f"/identity/externalIds/c8y_Serial/{name}")
        return str(found.json()["managedObject"]["id"])

    def operate(self, name: str, **what: Any) -> str:
        """Make an operation by REST and return its number."""
        made = self.rest("POST", "/devicecontrol/operations", json={"deviceId": self.id_of(name), **what})
        assert made.status_code == 201, made.text
        return str(made.json()["id"])

    def operation(self, number: str) -> dict[str, Any]:
        return dict(self.rest("GET", f"/devicecontrol/operations/{number}").json())


@contextlib.contextmanager
def new_world(tmp_path_factory: pytest.TempPathFactory, *arguments: Any, **options: Any) -> Iterator[World]:
    """Start a platform that trusts one root; the arguments are those of LocalPlatform.start."""
    with started(tmp_path_factory.mktemp("workspace"), *arguments, **options) as platform:
        root = make("Root", ca=True)
        assert upload(platform, root).status_code == 201
        yield World(platform, root, tmp_path_factory.mktemp("devices"))


@contextlib.contextmanager
def world_in_foreground(folder: Path, first: str) -> Iterator[World]:
    """Start such a platform as a process that first runs some Python: see `platform_tools.start_in_foreground`."""
    with start_in_foreground(folder, first=first):
        world = World(running(folder), make("Root", ca=True), folder)
        assert world.upload(world.root) == 201
        yield world


def world_fixture(*arguments: Any, **options: Any) -> Any:
    """Return a module's fixture of such a world."""

    @pytest.fixture(scope="module")
    def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
        with new_world(tmp_path_factory, *arguments, **options) as world:
            yield world

    return world
