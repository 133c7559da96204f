"""One REST call over HTTPS: time limits, retries where they are safe, and a sentence for what goes wrong on the way."""

import time
from typing import Any, Self
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import ConnectTimeoutError, ReadTimeoutError
from urllib3.util import Retry

from mciot_nb.errors import OnboardingError, fault

#: Seconds to wait for the connection, and for the next bytes of the answer.
TIMEOUT = (5.0, 30.0)
#: Seconds in which an answer must be complete, and the bytes that it may have.
MAX_SECONDS, MAX_BYTES = 120.0, 32 * 1024 * 1024


class _Retry(Retry):
    """Retries of a call, except after a read timeout: the server has the call, and waiting again takes too long."""

    def increment(self, method: Any = None, url: Any = None, *arguments: Any, **named: Any) -> Self:
        if isinstance(error := named.get("error"), ReadTimeoutError):
            raise error
        return super().increment(method, url, *arguments, **named)


#: A call that never reached the server is retried, whatever its method; one that was lost or met a busy server only
#: where it is idempotent. A server's Retry-After may name an hour: it is ignored.
_RETRIES = _Retry(
    total=2,
    other=0,  # TLS: it would fail again, or break in the midst of an answer to a POST
    redirect=0,
    allowed_methods={"GET", "PUT"},
    status_forcelist={429, 502, 503, 504},
    backoff_factor=0.4,
    respect_retry_after_header=False,
    raise_on_status=False,
)


def send(method: str, url: str, login: Any, verify: bool | str, accept: str, **options: Any) -> tuple[int, bytes]:
    """Send one call to an https ``url`` and return the answer's status and body, whatever they are.

    ``login`` changes the prepared request; ``verify`` is True for the system's trust, or a PEM file's path. Raises:
    OnboardingError: BAD_URL, NOT_REACHED, TLS, NO_TLS, NO_ANSWER where it is silent, CLOSED where it breaks off,
    NOT_A_TENANT for an endless answer.
    """
    host = ""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        if parts.scheme != "https":
            raise fault("BAD_URL.tenant")
        with requests.Session() as session:
            session.trust_env = verify is True  # a CA bundle named in the environment would override a path
            session.auth = login
            session.mount("https://", HTTPAdapter(max_retries=_RETRIES))
            headers = {"Accept": accept, **options.pop("headers", {})}  # without Accept, POST and PUT answer nothing
            # a POST that is redirected becomes a GET, and nothing is uploaded
            options |= {"verify": verify, "timeout": TIMEOUT, "allow_redirects": False, "stream": True}
            with session.request(method, url, headers=headers, **options) as response:
                body, deadline = bytearray(), time.monotonic() + MAX_SECONDS
                for part in response.iter_content(16 * 1024):
                    body += part
                    if len(body) > MAX_BYTES or time.monotonic() > deadline:
                        raise fault("NOT_A_TENANT.endless", host=host)
                return response.status_code, bytes(body)
    except (OSError, ValueError) as error:  # requests' own exceptions are OSErrors
        raise _explain(host, error, verify) from None


def https_host(url: str) -> tuple[str, int | None]:
    """Return the host and port of a plain https URL; no host where it holds more (a password must not be kept)."""
    try:
        parts = urlsplit(url)
        more = parts.scheme != "https" or "@" in parts.netloc or parts.path.strip("/") or parts.query or parts.fragment
        return ("", None) if more or parts.port == 0 else (parts.hostname or "", parts.port)
    except ValueError:  # a bracket that is never closed, for one, or a port that is no number
        return "", None


def _explain(host: str, error: Exception, verify: bool | str) -> OnboardingError:
    """Return the sentence for an exception of requests."""
    exceptions, cause = requests.exceptions, error.args[0] if error.args else None
    if isinstance(error, exceptions.SSLError):
        _, failed, reason = str(error).partition("certificate verify failed")
        if not failed:
            return fault("NO_TLS.tenant", host=host)
        why = failed + reason.split(" (_ssl")[0]
        if verify is True:
            return fault("TLS.system", host=host, why=why)
        return fault("TLS.file", host=host, why=why, file=verify)
    if isinstance(error, exceptions.ReadTimeout):
        return fault("NO_ANSWER.call", host=host)
    if isinstance(error, exceptions.ConnectTimeout) or isinstance(getattr(cause, "reason", cause), ConnectTimeoutError):
        return OnboardingError(f"Nothing answers at {host}: check the URL and the network.", "NOT_REACHED")
    if isinstance(error, exceptions.ConnectionError | exceptions.ChunkedEncodingError):
        return fault("CLOSED.call", host=host)
    return OnboardingError(  # requests' other errors, and a file of trusted certificates that is not there
        f"{host or 'The tenant'} can't be called: check the URL, and that the file to verify with is there."
    )
