"""What every REST call shares: login and role, JSON in and out, pages, and errors in the vendor's shape."""

import base64
import json
import math
import ssl
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from cryptography.hazmat.primitives.serialization import Encoding
from tornado.web import HTTPError, RequestHandler

from mciot_platform.identity import Credentials, Tokens, find_login
from mciot_platform.mqtt_server import MqttServer
from mciot_platform.storage import Storage, TrustAnchor
from mciot_platform.tls import ServerIdentity
from mciot_platform.trust import Trust

DEFAULT_PAGE, LARGEST_PAGE = 5, 2000
ERROR_TYPE = "application/vnd.com.nsn.cumulocity.error+json"


class RestError(HTTPError):
    """An answer other than success: status, the error's type, and a message for people. Tornado logs none."""

    def __init__(self, status: int, error: str, message: str) -> None:
        super().__init__(status)
        self.error, self.message = error, message


def is_text(value: Any) -> bool:
    """Whether ``value`` is a text that can be stored and sent: JSON can hold half of a surrogate pair."""
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


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
            sentence = "OpenSSL can't read the certificate: make it anew."
            raise RestError(422, "certificate/Unprocessable Entity", sentence) from None
        with self.storage.transaction():
            for trusted in added:
                self.storage.put_trusted_certificate(trusted)


@dataclass(frozen=True)
class Login:
    """Who calls: a user of a tenant, with the role of an administrator or without, or a device by its token."""

    tenant: str
    is_admin: bool = False
    device: str | None = None


class Handler(RequestHandler):
    """The base of all calls. By itself it answers every unknown path."""

    platform: Platform
    login: Login
    #: Whether ROLE_TENANT_ADMIN is needed, and what media types a call reads and writes.
    admins_only = False
    consumes: tuple[str, ...] = ("application/json",)
    produces: tuple[str, ...] = ("application/json", "application/*", "*/*")
    #: Whether the call came after the guide's time: then the profile `guide-2021` has it not.
    after_guide = False
    #: Which of a call's errors the vendor's description gives as plain JSON.
    plain_json_errors: tuple[int, ...] = ()
    #: The status for a body that is no JSON: the description of a call knows either 400 or 422.
    unreadable_status = 422

    def initialize(self, platform: Platform) -> None:
        """Take what the application hands to every handler."""
        self.platform = platform

    def prepare(self) -> None:
        """Check method, login, tenant, role and media types before any call is carried out."""
        if self.after_guide and not self.platform.trust.profile.has_proof_and_revocation:
            raise RestError(404, "Not Found", "A platform of the profile guide-2021 has no such call.")
        if type(self) is not Handler and self.request.method not in self._methods():
            raise HTTPError(405)
        self.login = self.log_in()
        if type(self) is Handler:
            raise RestError(404, "general/Not Found", f"There is nothing at {self.request.path}.")
        if self.path_kwargs.get("tenant", self.login.tenant) != self.login.tenant:
            raise RestError(404, "security/Not Found", f"There is no tenant with id = {self.path_kwargs['tenant']}")
        if self.admins_only:
            self.require_admin()
        self._check_media_types()

    def _methods(self) -> list[str]:
        names = ("GET", "POST", "PUT", "DELETE")
        return [name for name in names if getattr(type(self), name.lower()) is not getattr(Handler, name.lower())]

    def require_admin(self) -> None:
        """Refuse devices, and users without the role. Raises: RestError: 403."""
        if not self.login.is_admin:
            raise RestError(403, "security/Forbidden", "Access is denied.")

    def _check_media_types(self) -> None:
        kind = self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        known = kind in ("", *self.consumes) or (kind.startswith("application/") and kind.endswith("+json"))
        if self.request.body and not known:
            sentence = f"The body must be {' or '.join(self.consumes)}, not {kind}."
            raise RestError(415, "general/Unsupported Media Type", sentence)
        accepted = [part.partition(";")[0].strip() for part in (self.request.headers.get("Accept") or "*/*").split(",")]
        if not any(kind in self.produces or kind.endswith("+json") for kind in accepted):
            raise RestError(406, "general/Not Acceptable", f"The answer is {self.produces[0]}: accept that.")

    def log_in(self) -> Login:
        """Return who calls: by ``tenant/user:password``, also without the tenant, or by a device's token; or 401."""
        scheme, _, given = self.request.headers.get("Authorization", "").partition(" ")
        known = self.platform.tokens.read(given) if scheme.lower() == "bearer" else None
        if known and self.platform.storage.device(*known):  # its user may be gone
            return Login(known[0], device=known[1])
        try:
            user, _, password = base64.b64decode(given, validate=True).decode().partition(":")
        except ValueError:  # no base64, or no UTF-8
            scheme = user = password = ""
        if scheme.lower() == "basic" and (login := find_login(self.platform.credentials, user, password)):
            return Login(*login)
        raise RestError(401, "security/Unauthorized", "Invalid credentials! : Bad credentials")

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Write the vendor's error body, and never a traceback."""
        raised = kwargs.get("exc_info", (None, None))[1]
        known = raised if isinstance(raised, RestError) else RestError(status_code, "general/Error", self._reason)
        if status_code == 401:
            self.set_header("WWW-Authenticate", 'Basic realm="mciot-nb"')
        if status_code == 405:
            self.set_header("Allow", ", ".join(self._methods()))
        self.set_header("Content-Type", "application/json" if status_code in self.plain_json_errors else ERROR_TYPE)
        self.finish(json.dumps({"error": known.error, "message": known.message, "info": ""}))

    def body(self) -> dict[str, Any]:
        """Return the request's JSON object. Raises: RestError: if it is none."""
        with suppress(ValueError, RecursionError):
            body = json.loads(self.request.body)
            if isinstance(body, dict):
                return body
        raise RestError(self.unreadable_status, "general/Bad Request", "The body must be a JSON object.")

    def number(self, name: str, default: int, largest: int | None = None) -> int:
        """Return a query parameter that counts from one. Raises: RestError, whose status 422 is not verified."""
        text = self.get_query_argument(name, str(default))
        if not (text.isascii() and text.isdigit() and len(text) < 1000 and 1 <= int(text) <= (largest or int(text))):
            limit = f" to {largest}" if largest else ""
            raise RestError(422, "general/Unprocessable Entity", f"{name} must be a number from 1{limit}.")
        return int(text)

    def flag(self, name: str) -> bool:
        """Return a query parameter that is true or false."""
        return self.get_query_argument(name, "false").lower() == "true"

    def respond(self, body: Mapping[str, Any], status: int = 200) -> None:
        """Write JSON, except that POST and PUT without an Accept header answer nothing, as the real platform does."""
        self.set_status(status)
        if self.request.method == "GET" or self.request.headers.get("Accept"):
            self.finish(dict(body))
        else:
            self.clear_header("Content-Type")
            self.finish()

    def respond_page(self, name: str, rows: Callable[[int, int], tuple[Iterable[Mapping[str, Any]], int]]) -> None:
        """Answer a page of what ``rows`` returns, given the first row's number and how many, with the count of all."""
        page, size = self.number("currentPage", 1), self.number("pageSize", DEFAULT_PAGE, LARGEST_PAGE)
        found, count = rows((page - 1) * size, size)
        statistics = {"currentPage": page, "pageSize": size}
        if self.flag("withTotalElements"):
            statistics["totalElements"] = count
        if self.flag("withTotalPages"):
            statistics["totalPages"] = math.ceil(count / size)
        answer = {name: list(found), "statistics": statistics, "self": self._page(page, size)}
        if page > 1:
            answer["prev"] = self._page(page - 1, size)
        if page * size < count:
            answer["next"] = self._page(page + 1, size)
        self.respond(answer)

    def _page(self, number: int, size: int) -> str:
        """Return the address of another page of the same query."""
        given = {name: values[-1].decode("utf-8", "replace") for name, values in self.request.query_arguments.items()}
        kept = {name: value for name, value in given.items() if name not in ("pageSize", "currentPage")}
        return self.address(f"{self.request.path}?{urlencode(kept | {'pageSize': size, 'currentPage': number})}")

    def address(self, path: str) -> str:
        """Return the full URL of a path."""
        return f"{self.request.protocol}://{self.request.host}{path}"
