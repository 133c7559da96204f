"""A device with its certificate: it connects, and says in SmartREST what a device has to say."""

import contextlib
import http.client
import json
import math
import re
import secrets
import ssl
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from cryptography import x509

from mciot_nb.connect import mqtt as connection
from mciot_nb.connect.http import https_host
from mciot_nb.connect.mqtt import ANSWER_TOPIC, ASK_TOKEN_TOPIC, TOKEN_TOPIC, Connection, Message
from mciot_nb.connect.smartrest import line
from mciot_nb.errors import OnboardingError, fault
from mciot_nb.pki.chain import read_certificates, to_pem
from mciot_nb.pki.files import disk_problem, meanings, write_whole
from mciot_nb.pki.keys import encrypted_pem, read_private_key
from mciot_nb.pki.keystore import read_key, read_store
from mciot_nb.pki.names import common_name, name_of
from mciot_nb.secret import Secret, reveal

#: The message of each severity of an alarm.
SEVERITIES = {"CRITICAL": "301", "MAJOR": "302", "MINOR": "303", "WARNING": "304"}
#: The operations that a device understands here: the message that brings each, and its name on the platform.
OPERATIONS = {"510": "c8y_Restart", "511": "c8y_Command"}

#: Where a device gets a token over HTTPS, and the port on which the platform speaks mutual TLS there.
TOKEN_PATH, MUTUAL_TLS_PORT = "/devicecontrol/deviceAccessToken", 8443
_LARGEST_TOKEN = 1024 * 1024

_TOKEN_REFUSALS = meanings("device token")
#: OpenSSL's reasons for not loading a chain or key that is weak.
_WEAK = meanings("OpenSSL on the device")


@dataclass(frozen=True)
class OperationRequest:
    """Something that the device is asked to do: ``c8y_Restart``, or ``c8y_Command`` with the command's text."""

    name: str
    text: str = ""


class Device(Connection):
    """A device with its certificate chain and key, which connects to a tenant's MQTT port over mutual TLS.

    ``chain`` and ``key`` are PEM files, ``trusted`` is a PEM file with the server certificate (or its CA), None for the
    system's trust. ``client_id`` is the certificate's common name unless you give another. ``tls`` narrows TLS to one
    version. Use it with ``with``, or call `connect` and `disconnect`.

    Its methods publish one SmartREST message each, and return once that is acknowledged; they raise OnboardingError as
    `publish` does, and BAD_VALUE where a value can't be sent. What the platform has against one comes by `receive`.

    Raises: OnboardingError: if the files do not fit together or the passphrase is wrong.

    Example: ``with workspace.device(tenant) as device: device.measure("c8y_Temperature", "T", 21.5, "C")``.
    """

    _asked_for_operations: object = None  # the connection on which that was done

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
        self.chain = tuple(read_certificates(chain)) if chain else ()
        self.certificate = self.chain[0] if chain else None
        self.trusted = tuple(read_certificates(trusted)) if trusted else ()
        client_id = client_id or (common_name(name_of(self.certificate)) if self.certificate else None)
        if not client_id:
            raise fault("NO_CLIENT_ID")
        super().__init__(host, port, tls_context(chain, key, passphrase, trusted, tls), client_id)

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
        names the key where there are several. Raises: OnboardingError: as `read_key` and `read_store` do, and NO_TRUST
        where the truststore holds nothing that Java would trust.
        """
        key, chain = read_key(keystore, password, key_password, alias)
        trusted = read_store(truststore, password if trust_password is None else trust_password).trusted
        if not trusted:
            raise fault("NO_TRUST", path=truststore)
        once = Secret(secrets.token_urlsafe())  # OpenSSL reads keys from files only: encrypted, and gone a moment later
        with tempfile.TemporaryDirectory() as folder:
            files = {name: Path(folder, f"{name}.pem") for name in ("chain", "key", "trusted")}
            files["chain"].write_bytes(to_pem(chain))
            write_whole(files["key"], encrypted_pem(key, once.reveal().encode()), private=True)
            files["trusted"].write_bytes(to_pem(trusted.values()))
            try:
                return cls(host, port, passphrase=once, client_id=client_id, tls=tls, **files)
            except OnboardingError as error:  # the learner knows the store, not the files that are gone
                if error.code == "WRONG_PASSPHRASE":
                    raise fault("BAD_STORE", path=keystore) from None
                raise OnboardingError(str(error).replace(str(files["chain"]), str(keystore)), error.code) from None

    # What a device says of itself ------------------------------------------------------------------------------------

    def create(self, name: str = "", kind: str = "c8y_MQTTDevice") -> None:
        """Create the device on the platform (100); without a name the platform gives it one.

        Where it is there already the platform says ``41,100,Device already existing``, and nothing is wrong.
        """
        self._send("100", name, kind)

    def supported_operations(self, *names: str) -> None:
        """Say which operations the device understands (114), such as ``c8y_Restart``."""
        self._send("114", *names)

    # What it reports -------------------------------------------------------------------------------------------------

    def measure(self, fragment: str, series: str, value: float, unit: str = "", time: datetime | None = None) -> None:
        """Send a measurement (200); ``time`` bears a time zone, None for the moment of receipt."""
        self._send("200", fragment, series, _number(value), unit, _time(time))

    def event(self, kind: str, text: str, time: datetime | None = None) -> None:
        """Send an event (400)."""
        self._send("400", kind, text, _time(time))

    def alarm(self, kind: str, text: str = "", severity: str = "MAJOR", time: datetime | None = None) -> None:
        """Raise an alarm (301 to 304); ``severity`` is CRITICAL, MAJOR, MINOR or WARNING."""
        if severity not in SEVERITIES:
            known = ", ".join(SEVERITIES)
            raise OnboardingError(f"There is no severity {severity!r}: give one of {known}.", "BAD_VALUE")
        self._send(SEVERITIES[severity], kind, text, _time(time))

    def clear_alarm(self, kind: str) -> None:
        """Clear the device's alarm of this type (306)."""
        self._send("306", kind)

    # What it is asked to do ------------------------------------------------------------------------------------------

    def operations(self, timeout: float = 2.0) -> list[OperationRequest]:
        """Return the operations that have arrived, or arrive within ``timeout`` seconds; none where nothing came.

        The platform pushes a new one, and once a connection it is asked for those that wait (500): so one that was not
        reported as executing comes again after the device has connected anew. The messages bear no number, so one that
        is made at the very moment of asking may come twice.
        """
        self._listen()
        before: list[Message] = []
        if self._asked_for_operations is not self._client:
            self.publish("500")
            self._asked_for_operations, acknowledged = self._client, self._count_at_acknowledgement
            # They wait too, so they come again.
            before = self._pop(count for count in self._find(_is_operation, 0) if count < acknowledged)
        return [_operation(message) for message in self._take(_is_operation, timeout) or before]

    def executing(self, operation: OperationRequest) -> None:
        """Say that the device has begun with an operation (501)."""
        self._send("501", operation.name)

    def done(self, operation: OperationRequest) -> None:
        """Say that an operation succeeded (503); only one that `executing` has begun can."""
        self._send("503", operation.name)

    def failed(self, operation: OperationRequest, reason: str) -> None:
        """Say that an operation failed, and why (502)."""
        self._send("502", operation.name, reason)

    # Its tokens ------------------------------------------------------------------------------------------------------

    def token(self) -> Secret:
        """Ask over MQTT for a bearer token of the device's user.

        Raises: OnboardingError: NO_ANSWER where the platform gives none, REFUSED where it says why.
        """
        (token, *_) = self._request("", "71", ASK_TOKEN_TOPIC, TOKEN_TOPIC) or [""]
        if not token:
            raise OnboardingError("The platform answered with an empty token: try again later.", "NO_ANSWER")
        return Secret(token)

    def access_token(self, url: str) -> Secret:
        """Ask over HTTPS for a bearer token of the device's user: ``url`` is the platform's mutual TLS port, 8443.

        The device shows the same chain as over MQTT, and trusts the same server. The token lasts about an hour. Raises
        OnboardingError: ``HTTP_<status>``, 401 where the chain is refused; NOT_A_TENANT where no token comes; and what
        `connect` raises.
        """
        if not self.chain:
            raise OnboardingError("The device has no certificate to show: give it its chain and key.", "NO_CERTIFICATE")
        host, port = https_host(url)
        port = port or MUTUAL_TLS_PORT
        if not host:
            raise fault("BAD_URL.token", port=MUTUAL_TLS_PORT)
        status, body = _post_chain(host, port, self._context, self.chain)
        if not 200 <= status < 300:
            default = "this is not what the platform answers a device: check the URL and its port"
            meaning = _TOKEN_REFUSALS.get(str(status), default)
            raise OnboardingError(f"{host}:{port} answered {status}: {meaning}.", f"HTTP_{status}")
        try:
            answer = json.loads(body)
            token = answer.get("accessToken") or answer.get("access_token")  # the vendor's descriptions differ
            if not re.fullmatch(r"[!-~]+", token):
                raise ValueError("HTTP headers take no other characters")
        except (ValueError, TypeError, AttributeError, RecursionError):
            raise fault("NOT_A_TENANT.token", where=f"{host}:{port}", port=MUTUAL_TLS_PORT) from None
        return Secret(token)

    def _send(self, *values: str) -> None:
        """Publish one line, without the empty values at its end (a comma that is a value's own is in quotes)."""
        self.publish(line(*values).rstrip(","))


def _number(value: float) -> str:
    """Return a number with all its digits: parsed again, it is the very same."""
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        if math.isfinite(number := float(value)):
            return repr(number)
    raise OnboardingError(f"{value!r} is not a number that can be measured: send another one.", "BAD_VALUE")


def _time(time: datetime | None) -> str:
    if time is None:
        return ""
    with contextlib.suppress(ValueError, OverflowError):
        if time.tzinfo is not None:
            return time.astimezone(UTC).isoformat().replace("+00:00", "Z")
    raise fault("BAD_VALUE.time", time=time)


def _is_operation(message: Message) -> bool:
    return message.topic == ANSWER_TOPIC and message.values[:1] in [[number] for number in OPERATIONS]


def _operation(message: Message) -> OperationRequest:
    """Parse ``510,serial`` or ``511,serial,command``."""
    number, *values = message.values
    return OperationRequest(OPERATIONS[number], ",".join(values[1:]) if number == "511" else "")


def tls_context(
    chain: Path | None, key: Path | None, passphrase: Secret | str, trusted: Path | None, version: ssl.TLSVersion | None
) -> ssl.SSLContext:
    """Return the context in which a device shows ``chain`` with ``key``, and trusts ``trusted`` or else the system.

    Raises: OnboardingError: if the files do not fit together or the passphrase is wrong.
    """
    context = connection.client_context(trusted)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    if chain is not None:
        load_chain(context, chain, key, passphrase)
    return context


def load_chain(context: ssl.SSLContext, chain: Path, key: Path | None, passphrase: Secret | str) -> None:
    """Let a context show ``chain`` with ``key``. Raises: OnboardingError: as `tls_context` does."""
    try:
        # A function, not the text: OpenSSL would ask on the terminal for a passphrase that is empty.
        context.load_cert_chain(chain, key, lambda: reveal(passphrase))
    except FileNotFoundError:
        raise OnboardingError(f"There is no key {key}: make the device's key first.", "NO_FILE") from None
    except ssl.SSLError as error:
        if "KEY_VALUES_MISMATCH" in str(error):
            raise fault("KEY_MISMATCH.device", key=key, chain=chain) from None
        if error.reason in _WEAK:
            raise OnboardingError(f"OpenSSL refuses {chain}, because {_WEAK[error.reason]}.", "WEAK") from None
        try:
            read_private_key(key or chain, passphrase)
        except OnboardingError:
            raise fault("WRONG_PASSPHRASE.device", key=key) from None
        raise fault("BAD_PEM.openssl", path=chain) from None
    except OSError as error:
        raise disk_problem(key or chain, error) from None


def _post_chain(host: str, port: int, context: ssl.SSLContext, chain: Sequence[x509.Certificate]) -> tuple[int, bytes]:
    """Ask for a token with the device's TLS context and chain, and return the response's status and body.

    With Python's own client, not requests: urllib3 changes a context that it is given (it announces HTTP, and trusts
    more), and this one also serves MQTT. Raises: OnboardingError.
    """
    where = f"{host}:{port}"
    headers = {"Accept": "application/json", "X-Ssl-Cert-Chain": to_pem(chain).decode().strip().replace("\n", " ")}
    client = http.client.HTTPSConnection(host, port, timeout=connection.TIMEOUT, context=context)
    with contextlib.closing(client):
        try:
            client.connect()
        except (OSError, ValueError) as error:
            raise connection.connection_error(where, error) from None
        try:
            # on TLS 1.3 a refusal may wait, to be read below
            with contextlib.suppress(ConnectionError, ssl.SSLEOFError):
                client.request("POST", TOKEN_PATH, headers=headers)
            response = client.getresponse()
            return response.status, response.read(_LARGEST_TOKEN)
        except TimeoutError:
            raise fault("NO_ANSWER.connection", where=where) from None
        except OSError as error:  # http.client's RemoteDisconnected, too
            raise connection.connection_error(where, notes=[str(error)]) from None
        except http.client.HTTPException:
            raise fault("NOT_A_TENANT.token", where=where, port=MUTUAL_TLS_PORT) from None
