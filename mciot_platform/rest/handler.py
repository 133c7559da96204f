"""What every REST call shares: login and role, JSON in and out, pages, and errors in the vendor's shape."""

import base64
import json
import math
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import urlencode

from cryptography.hazmat.primitives.serialization import Encoding
from tornado.web import HTTPError, RequestHandler

from mciot_platform.identity import Credentials, Tokens, find_login
from mciot_platform.mqtt_server import MqttServer
from mciot_platform.storage import Storage, TrustAnchor, read_object, read_time
from mciot_platform.tls import ServerIdentity
from mciot_platform.trust import Trust

DEFAULT_PAGE, LARGEST_PAGE = 5, 2000
JSON, ERROR_TYPE = "application/json", "application/vnd.com.nsn.cumulocity.error+json"
BAD_CREDENTIALS = (401, "security/Unauthorized", "Invalid credentials! : Bad credentials")
#: What the vendor's description names in each error: the page on errors.
INFO = "https://www.cumulocity.com/guides/reference-guide/#error_reporting"


class RestError(HTTPError):
    """An answer other than success: status, the error's type, and a message for people. Tornado logs none."""

    def __init__(self, status: int, error: str, message: str) -> None:
        super().__init__(status)
        self.error, self.message = error, message


def unfit(sentence: str, room: str = "general") -> RestError:
    """Return the answer to what can be read but not carried out."""
    return RestError(422, f"{room}/Unprocessable Entity", sentence)


def zulu(time: str) -> str:
    """Return a stored time as answers have it: ending in Z."""
    return time.replace("+00:00", "Z")


def as_time(text: object, name: str) -> datetime:
    """Return a time of a request. Raises: RestError: 422 if it is none."""
    try:
        return read_time(str(text).replace(" ", "+"))  # an unquoted +01:00
    except (ValueError, OverflowError):
        raise unfit(f"{name} must be a time in ISO 8601.") from None


@dataclass(frozen=True)
class Platform:
    """What every call works on; ``context`` is the HTTPS port's, and holds the CAs for mutual TLS there."""

    credentials: Credentials
    storage: Storage
    trust: Trust
    tokens: Tokens
    mqtt_server: MqttServer
    identity: ServerIdentity
    context: ssl.SSLContext

    def add_trusted(self, *added: TrustAnchor) -> None:
        """Trust these certificates from now on. Raises: RestError: if one can't be read; then none is added."""
        try:
            for trusted in added:
                self.context.load_verify_locations(cadata=trusted.certificate.public_bytes(Encoding.DER))
        except ssl.SSLError:
            raise unfit("OpenSSL can't read the certificate: make it again.", "certificate") from None
        with self.storage.transaction():
            for trusted in added:
                self.storage.put_trusted_certificate(trusted)


@dataclass(frozen=True)
class Login:
    """Who calls: a user of a tenant, with the role of an administrator or without, or a device by its token."""

    tenant: str
    is_admin: bool = False
    device: str | None = None
    user: str = ""


#: Who may make a call; administrators have ROLE_TENANT_ADMIN.
ANYONE, ADMINS = "anyone", "administrators"


class Call(NamedTuple):
    """One row of rest_calls.csv: method, path with the names of its parts in braces, and what carries it out."""

    method: str
    path: str
    #: Gets the handler, and the parts of the path by name.
    run: Callable[..., Awaitable[None] | None]
    #: Whether it is the device itself that calls is checked where the device is known.
    who: str = "any login"
    #: Whether the call came after the guide's time: then the profile `guide-2021` has it not.
    after_guide: bool = False
    #: What media types it reads and writes; types that end in ``+json`` go where JSON does.
    consumes: tuple[str, ...] = (JSON,)
    produces: tuple[str, ...] = (JSON,)
    #: Which of its errors the vendor's description gives as plain JSON.
    plain_errors: tuple[int, ...] = ()
    #: The status for a body that is no JSON: the description of a call knows either 400 or 422.
    unreadable: int = 422


UNKNOWN = Call("", "", lambda call: None)


class Handler(RequestHandler):
    """Carries out the calls of one path. Without calls it answers every unknown path."""

    def initialize(self, platform: Platform, calls: Sequence[Call] = ()) -> None:
        """Take what the application hands to every handler."""
        self.platform, self.storage = platform, platform.storage
        self.media, self.login, self.call = JSON, Login(""), UNKNOWN
        is_late = platform.trust.profile.has_proof_and_revocation
        self.known, self.calls = calls, {call.method: call for call in calls if is_late or not call.after_guide}

    def prepare(self) -> None:
        """Check method, login, tenant, role and media types before any call is carried out."""
        if self.known and not self.calls:
            raise RestError(404, "Not Found", "A platform of the profile guide-2021 has no such call.")
        if self.known and self.request.method not in self.calls:
            raise HTTPError(405)
        self.call = self.calls.get(str(self.request.method), UNKNOWN)
        self.login = Login("") if self.call.who == ANYONE else self.log_in()
        if not self.known:
            raise RestError(404, "general/Not Found", f"There is nothing at {self.request.path}.")
        if self.path_kwargs.get("tenant", self.login.tenant) != self.login.tenant:
            raise RestError(404, "security/Not Found", f"There is no tenant with id = {self.path_kwargs['tenant']}")
        if self.call.who == ADMINS:
            self.require_admin()
        self._check_media_types()

    def _run(self, **parts: str) -> Awaitable[None] | None:
        return self.call.run(self, **parts)

    get = post = put = delete = _run

    def require_admin(self) -> None:
        """Refuse devices, and users without the role. Raises: RestError: 403."""
        if not self.login.is_admin:
            raise RestError(403, "security/Forbidden", "Access is denied.")

    def _check_media_types(self) -> None:
        kind = self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        known = kind in ("", *self.call.consumes) or (kind.startswith("application/") and kind.endswith("+json"))
        if self.request.body and not known:
            sentence = f"The body must be {' or '.join(self.call.consumes)}, not {kind}."
            raise RestError(415, "general/Unsupported Media Type", sentence)
        produces = self.call.produces
        accepted = [part.partition(";")[0].strip() for part in (self.request.headers.get("Accept") or "*/*").split(",")]
        wanted = [each for each in accepted if each in (*produces, "application/*", "*/*") or each.endswith("+json")]
        if not wanted:
            raise RestError(406, "general/Not Acceptable", f"The answer is {produces[0]}: accept that.")
        self.media = produces[0] if "*" in wanted[0] else wanted[0]

    def log_in(self) -> Login:
        """Return who calls: by ``tenant/user:password``, also without the tenant, or by a device's token; or 401."""
        scheme, _, given = self.request.headers.get("Authorization", "").partition(" ")
        known = self.platform.tokens.read(given) if scheme.lower() == "bearer" else None
        if known and self.storage.device(*known):  # its user may be gone
            return Login(known[0], device=known[1], user=f"device_{known[1]}")
        user, password = self.basic_login()
        if found := find_login(self.platform.credentials, user, password):
            return Login(*found, user=user.rpartition("/")[2])
        raise RestError(*BAD_CREDENTIALS)

    def basic_login(self) -> tuple[str, str]:
        """Return user and password of Basic authentication, empty ones where there is none."""
        scheme, _, given = self.request.headers.get("Authorization", "").partition(" ")
        with suppress(ValueError):  # no base64, or no UTF-8
            text = base64.b64decode(given, validate=True).decode() if scheme.lower() == "basic" else ""
            return (text.partition(":")[0], text.partition(":")[2])
        return "", ""

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Write the vendor's error body, and never a traceback."""
        raised = kwargs.get("exc_info", (None, None))[1]
        known = raised if isinstance(raised, RestError) else RestError(status_code, "general/Error", self._reason)
        if status_code == 401:
            self.set_header("WWW-Authenticate", 'Basic realm="mciot-nb"')
        if status_code == 405:
            self.set_header("Allow", ", ".join(self.calls))
        self.set_header("Content-Type", JSON if status_code in self.call.plain_errors else ERROR_TYPE)
        self.finish(json.dumps({"error": known.error, "message": known.message, "info": INFO}))

    def body(self) -> dict[str, Any]:
        """Return the request's JSON object. Raises: RestError: if it is none."""
        with suppress(ValueError, RecursionError):
            return read_object(self.request.body)
        raise RestError(self.call.unreadable, "general/Bad Request", "The body must be a JSON object.")

    def number(self, name: str, default: int, largest: int | None = None) -> int:
        """Return a query parameter that counts from one. Raises: RestError, whose status 422 is not verified."""
        text = self.get_query_argument(name, str(default))
        if not (text.isascii() and text.isdigit() and len(text) < 1000 and 1 <= int(text) <= (largest or int(text))):
            limit = f" to {largest}" if largest else ""
            raise unfit(f"{name} must be a number from 1{limit}.")
        return int(text)

    def flag(self, name: str) -> bool:
        """Return a query parameter that is true or false."""
        return self.get_query_argument(name, "false").lower() == "true"

    def respond(self, body: Any, status: int = 200) -> None:
        """Write JSON, except that POST and PUT without an Accept header answer nothing, as the real platform does."""
        self.set_status(status)
        if self.request.method == "GET" or self.request.headers.get("Accept"):
            self.set_header("Content-Type", f"{self.media}; charset=UTF-8")
            self.finish(json.dumps(body))
        else:
            self.clear_header("Content-Type")
            self.finish()

    def respond_page(
        self, name: str, rows: Callable[[int, int], tuple[Iterable[Any], int]], as_json: Callable[[Any], Any] = dict
    ) -> None:
        """Answer a page of what ``rows`` returns, given the first row's number and how many, with the count of all."""
        page, size = self.number("currentPage", 1), self.number("pageSize", DEFAULT_PAGE, LARGEST_PAGE)
        found, count = rows((page - 1) * size, size)
        statistics = {"currentPage": page, "pageSize": size}
        if self.flag("withTotalElements"):
            statistics["totalElements"] = count
        if self.flag("withTotalPages"):
            statistics["totalPages"] = math.ceil(count / size)
        answer = {name: [as_json(one) for one in found], "statistics": statistics, "self": self._page(page, size)}
        if page > 1:
            answer["prev"] = self._page(page - 1, size)
        if page * size < count:
            answer["next"] = self._page(page + 1, size)
        self.respond(answer)

    def _page(self, number: int, size: int) -> str:
        """Return the address of another page of the same query."""
        given = self.request.query_arguments.items()
        kept = {name: values for name, values in given if name not in ("pageSize", "currentPage")}
        query = urlencode(kept | {"pageSize": size, "currentPage": number}, doseq=True)
        return self.address(f"{self.request.path}?{query}")

    def address(self, path: str) -> str:
        """Return the full URL of a path."""
        return f"{self.request.protocol}://{self.request.host}{path}"
