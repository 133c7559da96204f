"""One REST call over HTTPS: time limits, repeats where they are safe, and a sentence for what goes wrong on the way."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import ConnectTimeoutError, ReadTimeoutError
from urllib3.util import Retry

from mciot_nb.errors import OnboardingError

#: Seconds to wait for the connection, and for the server to say something more.
TIMEOUT = (5.0, 30.0)
#: Seconds in which an answer must be whole, and the bytes that it may have.
LONGEST, LARGEST = 120.0, 32 * 1024 * 1024

Login = Callable[[requests.PreparedRequest], requests.PreparedRequest]


class Answer(NamedTuple):
    """What a server answered."""

    status: int
    body: bytes


class _Retry(Retry):
    """Repeats of a call, except where the server took it and said nothing: that has lasted long enough."""

    def increment(self, method: Any = None, url: Any = None, *arguments: Any, **named: Any) -> Self:
        if isinstance(error := named.get("error"), ReadTimeoutError):
            raise error
        return super().increment(method, url, *arguments, **named)


def _repeats() -> Retry:
    """Say what is repeated.

    A call that never reached the server, whatever it is; one that was lost or met a busy server only where doing it
    twice is doing it once. A server's Retry-After may name an hour: it is passed over.
    """
    return _Retry(
        total=2,
        other=0,  # TLS: it would fail again, or break in the midst of an answer to a POST
        redirect=0,
        allowed_methods={"GET", "PUT"},
        status_forcelist={429, 502, 503, 504},
        backoff_factor=0.4,
        respect_retry_after_header=False,
        raise_on_status=False,
    )


def send(method: str, url: str, login: Login, verify: bool | str, accept: str, **options: Any) -> Answer:
    """Send one call to an https ``url`` and give the answer, whatever its status.

    ``verify`` is True for the system's trust, or the path of a PEM file. Raises OnboardingError: NOT_REACHED, TLS,
    NO_ANSWER where the server is silent, CLOSED where it breaks off, NOT_A_TENANT for an endless answer.
    """
    with _named_failures(url) as host, requests.Session() as session:
        session.trust_env = verify is True  # a CA bundle named in the environment would override a path
        session.auth = login
        session.mount("https://", HTTPAdapter(max_retries=_repeats()))
        with session.request(
            method,
            url,
            headers={"Accept": accept},  # without it, POST and PUT answer nothing
            verify=verify,
            timeout=TIMEOUT,
            allow_redirects=False,  # a POST that is redirected becomes a GET, and nothing is uploaded
            stream=True,
            **options,
        ) as answer:
            return Answer(answer.status_code, _body(answer, host))


def _body(answer: requests.Response, host: str) -> bytes:
    body, give_up = bytearray(), time.monotonic() + LONGEST
    for part in answer.iter_content(16 * 1024):
        body += part
        if len(body) > LARGEST or time.monotonic() > give_up:
            raise OnboardingError(
                f"{host} answers without an end: check the URL, for no tenant's REST interface does that.",
                "NOT_A_TENANT",
            )
    return bytes(body)


@contextmanager
def _named_failures(url: str) -> Iterator[str]:
    try:
        parts = urlsplit(url)
        host, scheme = parts.netloc.rpartition("@")[2], parts.scheme
    except ValueError:
        host, scheme = "", "https"  # requests finds its own words
    if scheme != "https":
        raise OnboardingError(
            "The tenant's URL begins with https://, so that nobody reads along: correct it.", "BAD_URL"
        )
    try:
        yield host
    except requests.exceptions.SSLError as error:
        raise _tls_failure(host, str(error)) from None
    except requests.exceptions.ReadTimeout:
        raise OnboardingError(
            f"{host} takes the call and then says nothing: try again later, and look first whether the call was "
            "carried out.",
            "NO_ANSWER",
        ) from None
    except (requests.exceptions.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
        raise _lost(host, error) from None
    except (OSError, ValueError):  # requests' other errors, and a file of trusted certificates that is not there
        raise OnboardingError(
            f"{host or 'The tenant'} can't be called: check the URL, and that the file to verify with is there."
        ) from None


def _lost(host: str, error: Exception) -> OnboardingError:
    cause = error.args[0] if error.args else None
    if isinstance(error, requests.exceptions.ConnectTimeout) or isinstance(
        getattr(cause, "reason", cause), ConnectTimeoutError
    ):
        return OnboardingError(
            f"Nothing answers at {host}: check the URL and the network; workspace.tenant() starts the local platform.",
            "NOT_REACHED",
        )
    return OnboardingError(
        f"{host} ended the connection in the midst of the call: check the URL, and look whether the call was carried "
        "out before you repeat it.",
        "CLOSED",
    )


def _tls_failure(host: str, text: str) -> OnboardingError:
    start = text.find("certificate verify failed")
    if start < 0:
        return OnboardingError(
            f"{host} does not speak TLS as a tenant does, or ends it early: check the host and the port in the URL.",
            "NO_TLS",
        )
    return OnboardingError(
        f"The server certificate of {host} was not trusted ({text[start:].split(' (_ssl')[0]}): check the host name, "
        "and that the certificate you trust is this server's.",
        "TLS",
    )
