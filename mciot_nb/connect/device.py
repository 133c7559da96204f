"""A device that connects to the platform over MQTT with its certificate, publishes, and receives."""

import queue
import re
import secrets
import ssl
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

import paho.mqtt.client as mqtt
from cryptography import x509
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from mciot_nb.connect.tls_context import tls_context
from mciot_nb.errors import OnboardingError
from mciot_nb.pki.chain import read_certificates, to_pem
from mciot_nb.pki.files import write_whole
from mciot_nb.pki.keys import encrypted_pem
from mciot_nb.pki.names import common_name
from mciot_nb.pki.store import read_key, read_store
from mciot_nb.secret import Secret

#: Seconds to wait for the platform's answer.
TIMEOUT = 15.0
#: The largest payload that the platform takes, in bytes.
LARGEST_PAYLOAD = 16184
#: Where a device publishes SmartREST, and where it hears answers and errors.
PUBLISH_TOPIC, ANSWER_TOPIC, ERROR_TOPIC = "s/us", "s/ds", "s/e"

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


class Message(NamedTuple):
    """Something that the platform sent."""

    topic: str
    payload: str


class Device:
    """A device with its certificate chain and key, which connects to a tenant's MQTT port over mutual TLS.

    ``chain`` and ``key`` are PEM files, ``trusted`` is a PEM file with the server certificate (or its CA), None for the
    system's trust. ``client_id`` is the certificate's common name unless you give another. ``tls`` narrows TLS to one
    version. Use it with ``with``, or call `connect` and `disconnect`.

    Raises OnboardingError where the files do not fit together or the passphrase is wrong.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        chain: Path | None,
        key: Path | None = None,
        passphrase: Secret | str = "",
        trusted: Path | None = None,
        client_id: str | None = None,
        tls: ssl.TLSVersion | None = None,
    ) -> None:
        if not host:
            raise OnboardingError("The device does not know where to connect: give the MQTT host, in 00.", "NO_HOST")
        self.host, self.port = host, port
        self.certificate = read_certificates(chain)[0] if chain else None
        self.client_id = client_id or _client_id(self.certificate)
        #: What paho noted about the connection. On TLS 1.3 the platform's alert appears here only.
        self.notes: list[str] = []
        self._answer: queue.Queue[ReasonCode | str] = queue.Queue()
        self._received: queue.Queue[Message] = queue.Queue()
        self._subscribed = threading.Event()
        # A refusal is shown, not tried again and again behind the learner's back.
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self.client_id,
            protocol=mqtt.MQTTv311,
            reconnect_on_failure=False,
        )
        self._client.tls_set_context(tls_context(chain, key, passphrase, trusted, tls))
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_message = self._on_message
        self._client.on_log = lambda *arguments: self.notes.append(str(arguments[-1]))
        self._client.on_subscribe = lambda *_: self._subscribed.set()

    @classmethod
    def from_keystores(
        cls,
        keystore: Path,
        truststore: Path,
        password: Secret | str,
        host: str,
        port: int,
        *,
        key_password: Secret | str | None = None,
        trust_password: Secret | str | None = None,
        alias: str | None = None,
        client_id: str | None = None,
        tls: ssl.TLSVersion | None = None,
    ) -> Self:
        """Make a device of its keystore and truststore, PKCS12 or JKS: just what MQTT.fx would load.

        ``password`` opens both stores and the key, unless you give the key or the truststore one of its own; ``alias``
        names the key where there are several. Raises OnboardingError as `read_key` and `read_store` do, and NO_TRUST
        where the truststore holds nothing that Java would trust.
        """
        key, chain = read_key(keystore, password, key_password, alias)
        trusted = read_store(truststore, password if trust_password is None else trust_password).trusted
        if not trusted:
            raise OnboardingError(
                f"{truststore} holds no certificate that Java would trust: make a truststore of the server's.",
                "NO_TRUST",
            )
        once = Secret(secrets.token_urlsafe())  # OpenSSL reads keys from files only: encrypted, and gone a moment later
        with tempfile.TemporaryDirectory() as folder:
            chain_file, key_file, trusted_file = (
                Path(folder, name) for name in ("chain.pem", "key.pem", "trusted.pem")
            )
            chain_file.write_bytes(to_pem(chain))
            write_whole(key_file, encrypted_pem(key, once.reveal().encode()), private=True)
            trusted_file.write_bytes(to_pem(trusted.values()))
            files = {"chain": chain_file, "key": key_file, "trusted": trusted_file}
            try:
                return cls(host, port, passphrase=once, client_id=client_id, tls=tls, **files)
            except OnboardingError as error:  # the learner knows the store, not the files that are gone
                if error.code == "WRONG_PASSPHRASE":
                    raise OnboardingError(
                        f"OpenSSL can't use the key and the chain in {keystore}: make them anew as the guide does.",
                        "BAD_STORE",
                    ) from None
                raise OnboardingError(str(error).replace(str(chain_file), str(keystore)), error.code) from None

    def __repr__(self) -> str:
        state = "connected" if self._client.is_connected() else "not connected"
        return f"Device {self.client_id!r}, {state}"

    def __enter__(self) -> Self:
        self.connect()
        return self

    def __exit__(self, *_: object) -> None:
        self.disconnect()

    def connect(self) -> None:
        """Connect.

        Raises OnboardingError with one sentence: code ``CONNACK_<n>`` where the platform refused the device,
        ``ALERT_<name>`` where the handshake failed, ``NOT_REACHED``, ``SERVER_NOT_TRUSTED`` or ``CLOSED``.
        """
        self._answer = queue.Queue()
        self._subscribed.clear()
        self.notes.clear()
        try:
            self._client.connect(self.host, self.port, keepalive=60)
        except (OSError, ValueError) as error:
            raise self._failure(str(error), error) from None
        self._client.loop_start()
        try:
            answer = self._answer.get(timeout=TIMEOUT)
        except queue.Empty:
            answer = "no answer"
        if isinstance(answer, str) or answer.is_failure:
            self.disconnect()
            raise self._refusal(answer) if isinstance(answer, ReasonCode) else self._failure(answer)

    def disconnect(self) -> None:
        """End the connection, in the way that MQTT asks for."""
        self._client.disconnect()
        self._client.loop_stop()

    def publish(self, *lines: str, topic: str = PUBLISH_TOPIC) -> None:
        """Publish SmartREST lines with QoS 1, and return once the platform has acknowledged them.

        Raises OnboardingError where the payload is too large or no acknowledgement comes.
        """
        payload = "\n".join(lines).encode()
        if len(payload) > LARGEST_PAYLOAD:
            raise OnboardingError(
                f"The payload has {len(payload)} bytes, and the platform takes {LARGEST_PAYLOAD}: send less at a time.",
                "TOO_LARGE",
            )
        if not self._client.is_connected():  # paho would keep it, and send it a second time later
            raise OnboardingError("The device is not connected: connect it, and publish again.", "NOT_CONNECTED")
        information = self._client.publish(topic, payload, qos=1)
        with suppress(RuntimeError, ValueError):  # not connected any more: said below
            information.wait_for_publish(TIMEOUT)
        if information.rc != mqtt.MQTT_ERR_SUCCESS or not information.is_published():
            raise OnboardingError(
                f"The platform did not acknowledge the message on {topic}: connect the device again and send it anew.",
                "NOT_ACKNOWLEDGED",
            )
        self._subscribe()

    def _subscribe(self) -> None:
        """Subscribe, once a connection: not before the first message, for a new device has to say `100` first."""
        if not self._subscribed.is_set():
            self._client.subscribe([(ANSWER_TOPIC, 1), (ERROR_TOPIC, 1)])
            self._subscribed.wait(TIMEOUT)

    def receive(self, timeout: float = 2.0) -> Message | None:
        """Wait up to ``timeout`` seconds for something that the platform sends; None where nothing came."""
        self._subscribe()
        try:
            return self._received.get(timeout=timeout)
        except queue.Empty:
            return None

    def _on_connect(self, client: Any, userdata: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        self._answer.put(reason)

    def _on_disconnect(self, client: Any, userdata: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        self._answer.put("closed")  # heard by `connect` alone: it waits for the first answer

    def _on_message(self, client: Any, userdata: Any, message: mqtt.MQTTMessage) -> None:
        self._received.put(Message(message.topic, message.payload.decode(errors="replace")))

    def _refusal(self, reason: ReasonCode) -> OnboardingError:
        # paho speaks of MQTT 5's reason codes: back to the numbers that stand in the platform's CONNACK
        code = {0x84: 1, 0x85: 2, 0x88: 3, 0x86: 4, 0x87: 5}.get(reason.value, reason.value)
        meaning = CONNACK.get(code, "the platform refused the connection")
        return OnboardingError(
            f"{self.host}:{self.port} answered CONNACK {code} to ClientId {self.client_id!r}: {meaning}.",
            f"CONNACK_{code}",
        )

    def _failure(self, text: str, error: Exception | None = None) -> OnboardingError:
        """Turn what OpenSSL, the network or paho's notes say into one sentence."""
        where = f"{self.host}:{self.port}"
        if isinstance(error, ssl.SSLCertVerificationError):
            return OnboardingError(
                f"The server certificate of {where} was not trusted ({error.verify_message}): check the host name, and "
                "that the truststore holds this server's certificate.",
                "SERVER_NOT_TRUSTED",
            )
        alert = re.search(r"ALERT[_ ]([A-Z_ ]+)\]?", " ".join([text, *self.notes]).upper())
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


def _client_id(certificate: x509.Certificate | None) -> str:
    name = common_name(certificate.subject) if certificate else None
    if not name:
        raise OnboardingError(
            "The device has no certificate with a common name, so its ClientId is unknown: give client_id.",
            "NO_CLIENT_ID",
        )
    return name
