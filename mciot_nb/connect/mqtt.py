"""A device's MQTT connection over mutual TLS, and one sentence for each way in which it can be refused."""

import re
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

import paho.mqtt.client as mqtt
from cryptography import x509
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.reasoncodes import ReasonCode

from mciot_nb.connect.smartrest import line, parse
from mciot_nb.errors import OnboardingError, fault
from mciot_nb.pki.chain import read_certificates, to_pem
from mciot_nb.pki.files import meanings

#: Seconds to wait for the platform's answer.
TIMEOUT = 15.0
#: Seconds of silence after which several answers to one question are taken to be all.
QUIET = 0.3
#: The largest message that the platform takes, in bytes, and what of it is not payload, apart from the topic.
LARGEST_MESSAGE, HEADER = 16184, 7
#: How many of paho's log lines are kept, the last ones: it logs each message, and a connection may last for days.
MOST_NOTES = 100
#: Where a device publishes SmartREST, and where it hears answers and errors.
PUBLISH_TOPIC, ANSWER_TOPIC, ERROR_TOPIC = "s/us", "s/ds", "s/e"
#: Where a device asks for a token, and where it hears it.
ASK_TOKEN_TOPIC, TOKEN_TOPIC = "s/uat", "s/dat"

#: What the platform's CONNACK codes mean (MQTT 3.1.1, section 3.2.2.3), and its TLS alerts (RFC 8446, section 6.2).
CONNACK, ALERTS = meanings("CONNACK"), meanings("TLS alert")
#: paho reports the reason codes of MQTT 5: the CONNACK code of MQTT 3.1.1 for each.
_CONNACK_OF_REASON = {0x84: 1, 0x85: 2, 0x88: 3, 0x86: 4, 0x87: 5}


def connection_error(where: str, error: Exception | None = None, notes: Iterable[str] = ()) -> OnboardingError:
    """Return the error for a connection to ``where`` that failed with ``error``, or of which paho logged ``notes``."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return fault("SERVER_NOT_TRUSTED.device", where=where, why=error.verify_message)
    text = "" if error is None else str(error)
    if isinstance(error, TimeoutError) and "handshake" in text:
        return fault("NO_ANSWER.connection", where=where)
    if alert := re.search(r"ALERT[_ ]([A-Z_ ]+)\]?", " ".join([text, *notes]).upper()):
        name = alert[1].strip().replace(" ", "_")
        meaning = ALERTS.get(name, "the platform ended the handshake")
        return OnboardingError(f"{where} sent the TLS alert {name.lower()}: {meaning}.", f"ALERT_{name}")
    if isinstance(error, ssl.SSLError | ConnectionResetError | ConnectionAbortedError | BrokenPipeError):
        return fault("NO_TLS.mqtt", where=where)
    if error is not None:
        return fault("NOT_REACHED.device", where=where)
    return fault("CLOSED.mqtt", where=where)


def client_context(trusted: Path | Sequence[x509.Certificate] | None) -> ssl.SSLContext:
    """Return a context that trusts certificates, given or in a PEM file, or what this system trusts.

    Raises: OnboardingError: NO_FILE, BAD_PEM, for a file that can't be used.
    """
    if isinstance(trusted, Path | str):
        trusted = read_certificates(Path(trusted))  # says in a sentence what is wrong with the file
    context = ssl.create_default_context(cadata=to_pem(trusted).decode() if trusted else None)
    if trusted:
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # what is trusted need not be a root: Java sees it so too
    return context


class Message(NamedTuple):
    """One line that the platform sent, or the device; its ``repr`` does not show a token."""

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
    """paho's client, whose thread reports its end, also where a server sends what paho can't read."""

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

    It subscribes after its first `publish`, for a new device has to send `100` before that; or at the first `receive`.
    What the platform answers to the very first message is therefore not heard.
    """

    def __init__(self, host: str, port: int, context: ssl.SSLContext, client_id: str) -> None:
        self.host, self.port, self.client_id = host, port, client_id
        self.locate: Callable[[], tuple[str, int]] = lambda: (self.host, self.port)  # asked at each `connect`
        #: paho's log of the connection. On TLS 1.3 the platform's alert appears here only.
        self.notes: deque[str] = deque(maxlen=MOST_NOTES)
        #: Called with each line that is sent (True) or received (False), at once and in paho's thread too, to watch
        #: without taking anything away from `receive`.
        self.on_traffic: Callable[[Message, bool], object] = lambda message, sent: None
        #: What paho is told of the client, and whether it speaks TLS: others for a client that is set up wrongly.
        self.options: dict[str, Any] = {"protocol": mqtt.MQTTv311, "transport": "tcp"}
        self.encrypted = True
        self._context = context
        self._client: _Client | None = None
        # All below is changed by paho's thread too, under this lock; every change is notified.
        self._changed = threading.Condition()
        self._connack: ReasonCode | None = None
        self._open = self._ended = self._subscribed = False
        self._acknowledged: dict[int, int] = {}  # message id: how many lines had been received by then
        self._granted: list[ReasonCode] | None = None
        self._received: dict[int, Message] = {}  # by the number in which they came, as long as they are not taken
        self._count = self._count_at_acknowledgement = 0

    def __repr__(self) -> str:
        state = f"connected to {self.host}:{self.port}" if self.is_connected else "not connected"
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

        Raises: OnboardingError: with one sentence: code ``CONNACK_<n>`` where the platform refused the device,
        ``ALERT_<name>`` or ``NO_TLS`` where the handshake failed, ``NOT_REACHED``, ``SERVER_NOT_TRUSTED``,
        ``NO_ANSWER`` where it takes the connection and says nothing, or ``CLOSED``.
        """
        self.disconnect()
        self._connack, self._ended, self._subscribed = None, False, False
        self.notes.clear()
        self._acknowledged.clear()
        self.host, self.port = self.locate()
        where = f"{self.host}:{self.port}"
        # A new one each time: paho would send again what was never acknowledged, behind the learner's back.
        self._client = client = self._new_client()
        try:
            client.connect(self.host, self.port, keepalive=60)
        except (OSError, ValueError) as error:
            raise connection_error(where, error, self.notes) from None
        client.loop_start()
        try:
            self._wait(lambda: self._connack is not None or self._ended, TIMEOUT)
            silent = not self._ended
        finally:
            if not self._open:
                self.disconnect()
        if self._connack is not None and self._connack.is_failure:
            code = _CONNACK_OF_REASON.get(self._connack.value, self._connack.value)
            answer = f"{where} answered CONNACK {code} to ClientId {self.client_id!r}"
            meaning = CONNACK.get(str(code), "the platform refused the connection")
            raise OnboardingError(f"{answer}: {meaning}.", f"CONNACK_{code}")
        if not self._open:
            if silent:
                raise fault("NO_ANSWER.connection", where=where)
            raise connection_error(where, notes=self.notes)

    def disconnect(self) -> None:
        """End the connection with MQTT's DISCONNECT; nothing happens where there is none."""
        self._open = False
        if self._client:
            self._client.disconnect()
            with suppress(AttributeError):  # paho's thread has ended between two looks at it
                self._client.loop_stop()

    def publish(self, *lines: str, topic: str = PUBLISH_TOPIC) -> None:
        """Publish SmartREST lines with QoS 1, and return once the platform has acknowledged them.

        Raises: OnboardingError: if the payload is too large or no acknowledgement comes.
        """
        try:
            payload = "\n".join(lines).encode()
        except UnicodeEncodeError:
            raise OnboardingError("The message holds half a character: correct its text.", "BAD_VALUE") from None
        if (size := HEADER + len(topic.encode()) + len(payload)) > LARGEST_MESSAGE:
            raise fault("TOO_LARGE", size=size, largest=LARGEST_MESSAGE)
        client = self._connected("publish")
        for text in lines:
            self.on_traffic(Message(topic, text), True)  # now, for the answer may be faster than we are afterwards
        sent = client.publish(topic, payload, qos=1)
        if sent.rc == mqtt.MQTT_ERR_SUCCESS:
            self._wait(lambda: sent.mid in self._acknowledged or not self._open, TIMEOUT)
        if sent.mid not in self._acknowledged:
            raise fault("NOT_ACKNOWLEDGED", topic=topic)
        self._subscribe(client)
        self._count_at_acknowledgement = self._acknowledged.pop(sent.mid)

    def receive(self, timeout: float = 2.0) -> Message | None:
        """Wait up to ``timeout`` seconds for a line that the platform sends; return None where nothing came.

        Lines come in their order. Raises: OnboardingError: NOT_CONNECTED where nothing is left and nothing can come,
        NOT_SUBSCRIBED where the platform does not let the device listen.
        """
        if not self._received:
            self._listen()
            self._wait(lambda: self._received or not self._open, timeout)
            if not self._received:
                self._connected("receive")
                return None
        with self._changed:
            return self._received.pop(next(iter(self._received)))

    def _request(self, question: str, number: str, topic: str = PUBLISH_TOPIC, on: str = ANSWER_TOPIC) -> list[str]:
        """Publish ``question`` and return the values of the line ``number`` that answers it.

        Raises: OnboardingError: NO_ANSWER, or REFUSED with the error that the platform sent (left to `receive`, as all
        other lines are).
        """
        self._listen()
        since, error = self._count, [ERROR_TOPIC, question.partition(",")[0]]
        self.publish(question, topic=topic)

        def is_answer(message: Message) -> bool:
            values = message.values
            return [message.topic, *values[:1]] == [on, number] or [message.topic, *values[1:2]] == error

        for count, answer in self._find(is_answer, TIMEOUT, since).items():
            if answer.topic == ERROR_TOPIC:
                raise fault("REFUSED", question=question or topic, error=", ".join(answer.values[2:]))
            self._pop([count])
            return answer.values[1:]
        self._connected("ask")
        raise fault("NO_ANSWER.question", question=question or topic)

    def _find(self, wanted: Callable[[Message], bool], seconds: float, since: int = 0) -> dict[int, Message]:
        """Wait up to ``seconds`` for ``wanted`` lines, numbered from ``since`` on, and return them by their numbers."""

        def find() -> dict[int, Message]:
            return {count: one for count, one in self._received.items() if count >= since and wanted(one)}

        with self._changed:
            self._changed.wait_for(lambda: find() or not self._open, seconds)
            return find()

    def _pop(self, counts: Iterable[int]) -> list[Message]:
        with self._changed:
            return [self._received.pop(count) for count in counts if count in self._received]

    def _take(self, wanted: Callable[[Message], bool], timeout: float) -> list[Message]:
        """Take out ``wanted`` lines: wait for them up to ``timeout`` seconds, and while more of them follow at once."""
        taken, deadline = list[Message](), time.monotonic() + timeout
        while True:
            left = deadline - time.monotonic()
            found = self._pop(self._find(wanted, min(QUIET, left) if taken else left))
            taken += found
            if not found or left <= 0:
                return taken

    def _connected(self, doing: str) -> _Client:
        if not self._open or self._client is None:
            raise OnboardingError(f"The device is not connected: connect it, and {doing} again.", "NOT_CONNECTED")
        return self._client

    def _listen(self) -> None:
        """Subscribe unless that is done. Raises: OnboardingError: NOT_CONNECTED or NOT_SUBSCRIBED."""
        self._subscribe(self._connected("receive"))
        self._connected("receive")
        if not self._subscribed:
            raise fault("NOT_SUBSCRIBED")

    def _subscribe(self, client: _Client) -> None:
        """Subscribe, once a connection; the platform may refuse, and is asked again after the next message."""
        if self._subscribed or not self._open:
            return
        self._granted = None
        client.subscribe([(ANSWER_TOPIC, 1), (ERROR_TOPIC, 1), (TOKEN_TOPIC, 1)])
        self._wait(lambda: self._granted is not None or not self._open, TIMEOUT)
        granted: list[ReasonCode] = self._granted or []
        # A platform without tokens may refuse their topic; the other two are enough.
        self._subscribed = len(granted) > 1 and not any(code.is_failure for code in granted[:2])

    def _wait(self, condition: Callable[[], object], seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(condition, seconds)

    # What paho's thread calls -----------------------------------------------------------------------------------------

    def _new_client(self) -> _Client:
        # A refusal is shown, not tried again and again behind the learner's back.
        client = _Client(CallbackAPIVersion.VERSION2, self.client_id, reconnect_on_failure=False, **self.options)
        client.connect_timeout = TIMEOUT
        if self.encrypted:
            client.tls_set_context(self._context)
        client.ended = lambda: self._update(_open=False, _ended=True)
        client.on_connect = lambda _c, _u, _f, reason, _p: self._update(_connack=reason, _open=not reason.is_failure)
        client.on_subscribe = lambda _c, _u, _number, codes, *_: self._update(_granted=codes)
        client.on_publish = lambda _c, _u, number, *_: self._on_acknowledged(number)
        client.on_message = lambda _c, _u, message: self._on_message(message.topic, bytes(message.payload))
        client.on_log = lambda _c, _u, _level, note: self.notes.append(note)
        client.on_socket_close = lambda _c, _u, socket: self._read_alert(socket)
        return client

    def _read_alert(self, socket: Any) -> None:
        """Note the alert that may wait unread: on TLS 1.3 a refusal follows the handshake, and paho's write fails."""
        try:
            if self._connack is None:
                socket.recv(1)
        except OSError as error:  # a reset has nothing to say
            if "ALERT" in str(error):
                self.notes.append(str(error))

    def _update(self, **state: object) -> None:
        with self._changed:
            vars(self).update(state)
            self._changed.notify_all()

    def _on_acknowledged(self, number: int) -> None:
        with self._changed:
            self._acknowledged[number] = self._count
            self._changed.notify_all()

    def _on_message(self, topic: str, payload: bytes) -> None:
        with self._changed:
            for message in (Message(topic, text) for text in _lines(payload)):
                self._received[self._count] = message
                self._count += 1
                self.on_traffic(message, False)
            self._changed.notify_all()


def _lines(payload: bytes) -> list[str]:
    """Split a payload into its SmartREST lines; one that is no SmartREST stays as it is."""
    try:
        rows = parse(payload)
    except ValueError:
        rows = []
    return [line(*row) for row in rows] if len(rows) > 1 else [payload.decode(errors="replace")]
