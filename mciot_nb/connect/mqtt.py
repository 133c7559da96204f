"""What the platform's answers to a connecting device mean, each in one sentence."""

import math
import re
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Self

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.reasoncodes import ReasonCode

from mciot_nb.connect.smartrest import line, parse
from mciot_nb.errors import OnboardingError

#: What the platform's CONNACK codes mean (MQTT 3.1.1, section 3.2.2.3, and what the platform uses them for).
CONNACK = {
    1: "the platform speaks MQTT 3.1 and 3.1.1 only: choose one of these",
    2: "the platform does not take this ClientId: use the common name of the device certificate",
    3: "the platform is not available: try again later",
    4: "the platform expects a user and password here: connect to its TLS port with the certificate",
    5: "the platform knows the CA but refuses this device: check that the ClientId equals the common name, that the "
    "chain is complete and not too long, that the name holds no colon, and that auto-registration is on",
}

#: What a TLS alert of the platform means for the device (RFC 8446, section 6.2).
ALERTS = {
    "UNKNOWN_CA": "the platform does not trust the CA of this certificate: upload the CA certificate to the tenant",
    "CERTIFICATE_UNKNOWN": "the platform does not trust this certificate: upload its CA certificate to the tenant, and "
    "check that nothing has expired",
    "CERTIFICATE_EXPIRED": "a certificate of the chain has expired: sign a new one",
    "CERTIFICATE_REVOKED": "this device certificate was revoked: sign a new one",
    "BAD_CERTIFICATE": "the platform can't use this certificate: check that its validity has begun",
    "DECRYPT_ERROR": "a signature in the chain is wrong: build the chain from the certificates that belong together",
    "HANDSHAKE_FAILURE": "the platform ended the handshake: give the device its certificate and key",
    "CERTIFICATE_REQUIRED": "the platform wants a client certificate: give the device its certificate and key",
}


def silence(where: str) -> OnboardingError:
    """Say that ``where``, a host and port, takes the connection and then nothing comes."""
    return OnboardingError(
        f"{where} takes the connection and then says nothing: check that the port is the "
        "platform's TLS port, and that the platform is well.",
        "NO_ANSWER",
    )


def failure(where: str, text: str, notes: list[str], error: Exception | None = None) -> OnboardingError:
    """Turn what OpenSSL, the network or paho's notes say about ``where``, a host and port, into one sentence."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return OnboardingError(
            f"The server certificate of {where} was not trusted ({error.verify_message}): check the host name, and "
            "that the truststore holds this server's certificate.",
            "SERVER_NOT_TRUSTED",
        )
    if isinstance(error, TimeoutError) and "handshake" in text:
        return silence(where)
    alert = re.search(r"ALERT[_ ]([A-Z_ ]+)\]?", " ".join([text, *notes]).upper())
    if alert:
        name = alert[1].strip().replace(" ", "_")
        meaning = ALERTS.get(name, "the platform ended the handshake")
        return OnboardingError(f"{where} sent the TLS alert {name.lower()}: {meaning}.", f"ALERT_{name}")
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
        return OnboardingError(
            f"Nothing answers at {where}: check host, port and network, and that the platform runs.",
            "NOT_REACHED",
        )
    return OnboardingError(
        f"{where} closed the connection without a reason: check that the port is the platform's TLS port, and look "
        "into its log.",
        "CLOSED",
    )


#: Seconds to wait for the platform's answer.
TIMEOUT = 15.0
#: Seconds of silence after which several answers to one question are taken to be all.
QUIET = 0.3
#: The largest payload that the platform takes, in bytes.
LARGEST_PAYLOAD = 16184
#: How many of paho's notes are kept, the last ones: it notes each message, and a connection may last for days.
MOST_NOTES = 100
#: Where a device publishes SmartREST, and where it hears answers and errors.
PUBLISH_TOPIC, ANSWER_TOPIC, ERROR_TOPIC = "s/us", "s/ds", "s/e"
#: Where a device asks for a token, and where it hears it.
ASK_TOKEN_TOPIC, TOKEN_TOPIC = "s/uat", "s/dat"


class Message(NamedTuple):
    """Something that the platform sent; its ``repr`` does not show a token."""

    topic: str
    payload: str

    def __repr__(self) -> str:
        payload = "••••" if self.topic == TOKEN_TOPIC else self.payload
        return f"Message(topic={self.topic!r}, payload={payload!r})"

    @property
    def values(self) -> list[str]:
        """The values of its SmartREST line; none where it is no SmartREST."""
        try:
            return (parse(self.payload.encode()) or [[]])[0]
        except ValueError:
            return []


class _Client(mqtt.Client):
    """paho's client, whose thread says that it ends, also where a server sends what paho stumbles over."""

    ended: Callable[[], None]

    def loop_forever(self, timeout: float = 1.0, retry_first_connection: bool = False) -> MQTTErrorCode:
        try:
            return super().loop_forever(timeout, retry_first_connection)
        except Exception as error:  # paho trusts the lengths that it reads, for one
            if self.on_log:
                self.on_log(self, None, mqtt.MQTT_LOG_ERR, f"paho could not read what came: {type(error).__name__}")
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
        finally:
            self.ended()


class Connection:
    """A device's MQTT connection (3.1.1) with a TLS context. Use it with ``with``, or `connect` and `disconnect`.

    It listens from its first `publish` on, for a new device has to say `100` before it subscribes; or from the first
    `receive` on. What the platform says against the very first message is therefore not heard.
    """

    def __init__(self, host: str, port: int, context: ssl.SSLContext, client_id: str) -> None:
        self.host, self.port, self.client_id = host, port, client_id
        #: What paho noted about the connection. On TLS 1.3 the platform's alert appears here only.
        self.notes: list[str] = []
        #: Told of each line that goes out (True) or has come (False), at once and in paho's thread too, by whoever
        #: wants to look on without taking what others wait for.
        self.on_traffic: Callable[[Message, bool], object] = lambda message, sent: None
        self._context = context
        self._client: _Client | None = None
        # All below is changed by paho's thread too, under this lock, and whoever waits is told.
        self._changed = threading.Condition()
        self._connack: ReasonCode | None = None
        self._open = self._ended = self._subscribed = False
        self._acknowledged: dict[int, int] = {}
        self._granted: list[ReasonCode] | None = None
        self._received: list[tuple[int, Message]] = []
        self._count = 0

    def __repr__(self) -> str:
        state = "connected" if self.is_connected else "not connected"
        return f"{type(self).__name__} {self.client_id!r}, {state}"

    @property
    def is_connected(self) -> bool:
        """Whether the connection is there; one that the platform has ended is not."""
        return self._open

    def __enter__(self) -> Self:
        self.connect()
        return self

    def __exit__(self, *_: object) -> None:
        self.disconnect()

    def connect(self) -> None:
        """Connect.

        Raises OnboardingError with one sentence: code ``CONNACK_<n>`` where the platform refused the device,
        ``ALERT_<name>`` where the handshake failed, ``NOT_REACHED``, ``SERVER_NOT_TRUSTED``, ``NO_ANSWER`` where it
        takes the connection and says nothing, or ``CLOSED``.
        """
        self.disconnect()
        self._connack, self._ended, self._subscribed = None, False, False
        self.notes.clear()
        self._acknowledged.clear()
        # A new one each time: paho would send again what was never acknowledged, behind the learner's back.
        self._client = client = self._new_client()
        try:
            client.connect(self.host, self.port, keepalive=60)
        except (OSError, ValueError) as error:
            raise failure(f"{self.host}:{self.port}", str(error), self.notes, error) from None
        client.loop_start()
        try:
            self._wait(lambda: self._connack is not None or self._ended, TIMEOUT)
            silent = not self._ended
        finally:
            if not self._open:
                self.disconnect()
        if self._connack is not None and self._connack.is_failure:
            raise self._refusal(self._connack)
        if not self._open:
            raise silence(f"{self.host}:{self.port}") if silent else failure(f"{self.host}:{self.port}", "", self.notes)

    def disconnect(self) -> None:
        """End the connection, in the way that MQTT asks for; nothing happens where there is none."""
        self._open = False
        if self._client:
            self._client.disconnect()
            self._client.loop_stop()

    def publish(self, *lines: str, topic: str = PUBLISH_TOPIC) -> None:
        """Publish SmartREST lines with QoS 1, and return once the platform has acknowledged them.

        Raises OnboardingError where the payload is too large or no acknowledgement comes.
        """
        self._deliver(*lines, topic=topic)

    def _deliver(self, *lines: str, topic: str = PUBLISH_TOPIC) -> int:
        """Publish as `publish` does; gives how many messages had come when the platform acknowledged it."""
        try:
            payload = "\n".join(lines).encode()
        except UnicodeEncodeError:
            raise OnboardingError("The message holds half a character: correct its text.", "BAD_VALUE") from None
        if len(payload) > LARGEST_PAYLOAD:
            raise OnboardingError(
                f"The payload has {len(payload)} bytes, and the platform takes {LARGEST_PAYLOAD}: send less at a time.",
                "TOO_LARGE",
            )
        client = self._connected("publish")
        for text in lines:
            self.on_traffic(Message(topic, text), True)  # now, for the answer may be faster than we are afterwards
        sent = client.publish(topic, payload, qos=1)
        if sent.rc == mqtt.MQTT_ERR_SUCCESS:
            self._wait(lambda: sent.mid in self._acknowledged or not self._open, TIMEOUT)
        if sent.mid not in self._acknowledged:
            raise OnboardingError(
                f"The platform did not acknowledge the message on {topic}: connect the device again and send it anew.",
                "NOT_ACKNOWLEDGED",
            )
        self._subscribe(client)
        return self._acknowledged.pop(sent.mid)

    def receive(self, timeout: float = 2.0) -> Message | None:
        """Wait up to ``timeout`` seconds for something that the platform sends; None where nothing came.

        Everything comes in its order, a line at a time. Raises OnboardingError: NOT_CONNECTED where nothing is left and
        nothing can come, NOT_SUBSCRIBED where the platform does not let the device listen.
        """
        if not self._received:
            self._listen()
            self._wait(lambda: self._received or not self._open, timeout)
            if not self._received:
                self._connected("receive")
                return None
        return self._received.pop(0)[1]

    def _new_client(self) -> _Client:
        # A refusal is shown, not tried again and again behind the learner's back.
        client = _Client(
            CallbackAPIVersion.VERSION2,
            client_id=self.client_id,
            protocol=mqtt.MQTTv311,
            reconnect_on_failure=False,
        )
        client.connect_timeout = TIMEOUT
        client.tls_set_context(self._context)
        client.ended = self._on_end
        client.on_connect = self._on_connect
        client.on_disconnect = lambda *_: self._on_end()
        client.on_message = lambda client, userdata, message: self._on_message(message)
        client.on_log = lambda *arguments: self._on_log(str(arguments[-1]))
        client.on_publish = lambda client, userdata, number, *_: self._on_publish(number)
        client.on_subscribe = lambda client, userdata, number, codes, *_: self._on_subscribe(codes)
        return client

    def _connected(self, doing: str) -> _Client:
        if not self._open or self._client is None:
            raise OnboardingError(f"The device is not connected: connect it, and {doing} again.", "NOT_CONNECTED")
        return self._client

    def _wait(self, for_what: Callable[[], object], seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(for_what, seconds)

    def _subscribe(self, client: _Client) -> None:
        """Subscribe, once a connection; the platform may refuse, and is asked again after the next message."""
        if self._subscribed or not self._open:
            return
        self._granted = None
        client.subscribe([(ANSWER_TOPIC, 1), (ERROR_TOPIC, 1), (TOKEN_TOPIC, 1)])
        self._wait(lambda: self._granted is not None or not self._open, TIMEOUT)
        granted: list[ReasonCode] = self._granted or []
        # Whoever has no tokens to give may refuse their topic, and the others are heard none the less.
        self._subscribed = len(granted) > 1 and not any(code.is_failure for code in granted[:2])

    def _listen(self) -> None:
        self._subscribe(self._connected("receive"))
        self._connected("receive")
        if not self._subscribed:
            raise OnboardingError(
                "The platform does not let the device listen to its answers: a new device is created first, with "
                "create() or the message 100.",
                "NOT_SUBSCRIBED",
            )

    def _ask(self, question: str, number: str, topic: str = PUBLISH_TOPIC, on: str = ANSWER_TOPIC) -> list[str]:
        """Publish a question and give the values of the line ``number`` that answers it; the rest is left to `receive`.

        Raises OnboardingError: NO_ANSWER, or REFUSED with the error that the platform sent (which `receive` gives too).
        """
        self._listen()
        since = self._count
        self.publish(question, topic=topic)

        def is_refusal(message: Message) -> bool:
            return message.topic == ERROR_TOPIC and message.values[1:2] == [question.partition(",")[0]]

        def is_answer(message: Message) -> bool:
            return message.topic == on and message.values[:1] == [number]

        def find() -> tuple[int, Message] | None:
            new = (item for item in self._received if item[0] >= since)
            return next((item for item in new if is_answer(item[1]) or is_refusal(item[1])), None)

        self._wait(lambda: find() or not self._open, TIMEOUT)
        found = find()
        if found is None:
            self._connected("ask")
            raise OnboardingError(
                f"The platform took the question {question or topic!r} and did not answer it: try again later.",
                "NO_ANSWER",
            )
        if is_refusal(found[1]):
            raise OnboardingError(
                f"The platform answered {question or topic!r} with an error: {', '.join(found[1].values[2:])}.",
                "REFUSED",
            )
        with self._changed:
            self._received.remove(found)
        return found[1].values[1:]

    def _take(self, wanted: Callable[[Message], bool], before: float = math.inf) -> list[Message]:
        """Take out all messages that are wanted, of the first so many that came; the others stay for `receive`."""
        with self._changed:
            taken = [item for item in self._received if item[0] < before and wanted(item[1])]
            self._received = [item for item in self._received if item not in taken]
        return [message for _, message in taken]

    def _take_several(self, wanted: Callable[[Message], bool], timeout: float) -> list[Message]:
        """Wait for messages up to ``timeout`` seconds, and then for as long as more of them follow at once."""
        taken: list[Message] = []
        give_up = time.monotonic() + timeout
        while (left := give_up - time.monotonic()) > 0:
            pause = min(QUIET, left) if taken else left
            self._wait(lambda: any(wanted(message) for _, message in self._received) or not self._open, pause)
            new = self._take(wanted)
            taken += new
            if not new:
                break
        return taken

    def _on_log(self, note: str) -> None:
        self.notes.append(note)
        del self.notes[:-MOST_NOTES]

    def _on_connect(self, client: Any, userdata: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        with self._changed:
            self._connack, self._open = reason, not reason.is_failure
            self._changed.notify_all()

    def _on_end(self) -> None:
        with self._changed:
            self._open, self._ended = False, True
            self._changed.notify_all()

    def _on_publish(self, number: int) -> None:
        with self._changed:
            self._acknowledged[number] = self._count
            self._changed.notify_all()

    def _on_subscribe(self, codes: list[ReasonCode]) -> None:
        with self._changed:
            self._granted = codes
            self._changed.notify_all()

    def _on_message(self, message: mqtt.MQTTMessage) -> None:
        with self._changed:
            for text in _lines(bytes(message.payload)):
                self._received.append((self._count, Message(message.topic, text)))
                self._count += 1
                self.on_traffic(Message(message.topic, text), False)
            self._changed.notify_all()

    def _refusal(self, reason: ReasonCode) -> OnboardingError:
        # paho speaks of MQTT 5's reason codes: back to the numbers that stand in the platform's CONNACK
        code = {0x84: 1, 0x85: 2, 0x88: 3, 0x86: 4, 0x87: 5}.get(reason.value, reason.value)
        meaning = CONNACK.get(code, "the platform refused the connection")
        return OnboardingError(
            f"{self.host}:{self.port} answered CONNACK {code} to ClientId {self.client_id!r}: {meaning}.",
            f"CONNACK_{code}",
        )


def _lines(payload: bytes) -> list[str]:
    """Give the lines of a payload, so that each can be taken by whoever waits for it."""
    try:
        rows = parse(payload)
    except ValueError:
        rows = []
    return [line(*row) for row in rows] if len(rows) > 1 else [payload.decode(errors="replace")]
