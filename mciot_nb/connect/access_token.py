"""A device's bearer token over HTTPS with its certificate: what the platform's mutual TLS port gives."""

import http.client
import json
import re
import ssl
from collections.abc import Sequence
from urllib.parse import urlsplit

from cryptography import x509

from mciot_nb.connect import connection
from mciot_nb.connect.refusals import failure, silence
from mciot_nb.errors import OnboardingError
from mciot_nb.pki.chain import to_pem
from mciot_nb.secret import Secret

PATH = "/devicecontrol/deviceAccessToken"
#: The port on which the platform speaks mutual TLS over HTTPS.
PORT = 8443
_LARGEST = 1024 * 1024
_MEANING = {
    400: "it can't read the certificate chain: build the chain from the certificates that belong together",
    401: "it refused the certificate chain: upload the CA certificate, and check that nothing is expired or revoked",
    404: "it gives no tokens to devices with certificates: ask its operator, or ask for the token over MQTT",
    422: "it does not know this device: connect it over MQTT first, with auto-registration on",
}


def fetch_access_token(url: str, context: ssl.SSLContext, chain: Sequence[x509.Certificate]) -> Secret:
    """Ask the platform at ``url`` for a token, with the device's TLS context and certificate chain.

    Python's own client, not requests: urllib3 changes a context that it is given (it announces HTTP, and trusts more),
    and this one also serves MQTT. Raises OnboardingError: ``HTTP_<status>``, NOT_A_TENANT where no token comes, and
    what `Connection.connect` raises.
    """
    host, port = _address(url)
    where = f"{host}:{port}"
    headers = {"Accept": "application/json", "X-Ssl-Cert-Chain": to_pem(chain).decode().strip().replace("\n", " ")}
    client = http.client.HTTPSConnection(host, port, timeout=connection.TIMEOUT, context=context)
    try:
        _ask(client, headers)
        answer = client.getresponse()
        status, body = answer.status, answer.read(_LARGEST)
    except TimeoutError as error:  # after the handshake it is a silent server, before it perhaps none
        raise silence(where) if client.sock else failure(where, str(error), [], error) from None
    except ConnectionResetError:  # http.client's RemoteDisconnected, too
        raise failure(where, "", []) from None
    except http.client.HTTPException:
        raise _no_token(where) from None
    except (OSError, ValueError) as error:
        raise failure(where, str(error), [], error) from None
    finally:
        client.close()
    if not 200 <= status < 300:
        meaning = _MEANING.get(status, "this is not what the platform answers a device: check the URL and its port")
        raise OnboardingError(f"{where} answered {status}: {meaning}.", f"HTTP_{status}")
    return _read(body, where)


def _ask(client: http.client.HTTPSConnection, headers: dict[str, str]) -> None:
    try:
        client.request("POST", PATH, headers=headers)
    except (ConnectionError, ssl.SSLEOFError):
        if client.sock:  # on TLS 1.3 a refusal follows the handshake, and waits unread where we can't write any more
            client.sock.recv(1)  # raises it, if there is one
        raise


def _address(url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or PORT
    except ValueError:
        host, port = "", 0
    if not host or parts.scheme != "https" or parts.path.strip("/"):
        raise OnboardingError(
            f"A device's token comes from https://, the platform's host, and its mutual TLS port {PORT}: correct the "
            "URL.",
            "BAD_URL",
        )
    return host, port


def _read(body: bytes, where: str) -> Secret:
    """Find the token; some of the vendor's descriptions call it ``accessToken``, others ``access_token``."""
    try:
        answer = json.loads(body)
        token = answer.get("accessToken") or answer.get("access_token")
        if not re.fullmatch(r"[!-~]+", token):
            raise ValueError("HTTP headers take no other characters")
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise _no_token(where) from None
    return Secret(token)


def _no_token(where: str) -> OnboardingError:
    return OnboardingError(
        f"{where} answered something that is no token: check that the URL names the platform's mutual TLS port {PORT}.",
        "NOT_A_TENANT",
    )
