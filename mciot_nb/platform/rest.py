"""The HTTPS endpoint: a tenant's trusted certificates, in the shapes of the real platform."""

import base64
import binascii
import json
import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tornado.web import Application, RequestHandler

from mciot_nb.errors import OnboardingError
from mciot_nb.platform.description import describe
from mciot_nb.platform.mqtt import Endpoint
from mciot_nb.platform.store import Store, TrustedCertificate, timestamp
from mciot_nb.platform.trust import fingerprint
from mciot_nb.platform.upload import read_upload

Credentials = Mapping[str, Mapping[str, str]]
LONGEST_BODY, LONGEST_NAME = 1024 * 1024, 256
DEFAULT_PAGE, LONGEST_PAGE = 5, 2000
ERROR_TYPE = "application/vnd.com.nsn.cumulocity.error+json"
TENANT_TYPE = "application/vnd.com.nsn.cumulocity.currenttenant+json"


class Problem(Exception):
    """An answer other than success: status, the error's type, and a message for people."""

    def __init__(self, status: int, error: str, message: str) -> None:
        super().__init__(message)
        self.status, self.error = status, error


@dataclass(frozen=True)
class Platform:
    """What every call works on."""

    credentials: Credentials
    store: Store
    endpoint: Endpoint


def make_application(platform: Platform) -> Application:
    """Give the REST interface as a tornado application."""
    certificates = r"/tenant/tenants/([^/]+)/trusted-certificates"
    routes: list[Any] = [
        (r"/tenant/currentTenant", CurrentTenant, {"platform": platform}),
        (certificates, Collection, {"platform": platform}),
        (certificates + r"/([^/]+)", One, {"platform": platform}),
    ]
    return Application(
        routes, default_handler_class=Handler, default_handler_args={"platform": platform}, log_function=lambda _: None
    )


class Handler(RequestHandler):
    """Login, JSON in and out, and errors in the vendor's shape. By itself it answers every unknown path."""

    platform: Platform
    tenant: str

    def initialize(self, platform: Platform) -> None:
        """Take what tornado hands to every handler."""
        self.platform = platform

    def prepare(self) -> None:
        """Check the login and the tenant in the path before any call is carried out."""
        self.tenant = self._login()
        if type(self) is Handler:
            raise Problem(404, "general/Not Found", f"There is nothing at {self.request.path}.")
        if self.path_args and self.path_args[0] != self.tenant:
            raise Problem(404, "security/Not Found", f"There is no tenant with id = {self.path_args[0]}")

    def _login(self) -> str:
        """Give the tenant whose credentials the request bears, as ``tenant/user:password`` or without the tenant."""
        try:
            scheme, _, encoded = self.request.headers.get("Authorization", "").partition(" ")
            login, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError, ValueError):
            scheme = login = password = ""
        for tenant, known in self.platform.credentials.items():
            right_user = login in (known["user"], f"{tenant}/{known['user']}")
            right_password = secrets.compare_digest(password.encode(), known["password"].encode())
            if scheme.lower() == "basic" and right_user and right_password:
                return tenant
        self.set_header("WWW-Authenticate", 'Basic realm="mciot-nb"')
        raise Problem(401, "security/Unauthorized", "Invalid credentials! : Bad credentials")

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Write the vendor's error body, and never a traceback."""
        problem = kwargs.get("exc_info", (None, None))[1]
        error, message = "general/Error", self._reason
        if isinstance(problem, Problem):
            error, message = problem.error, str(problem)
        self.set_header("Content-Type", ERROR_TYPE)
        self.finish(json.dumps({"error": error, "message": message, "info": ""}))

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        """Answer a `Problem` with its own status."""
        problem = kwargs.get("exc_info", (None, None))[1]
        super().send_error(problem.status if isinstance(problem, Problem) else status_code, **kwargs)

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Write only our own faults to stderr, not the answers that are errors."""
        if not isinstance(value, Problem):
            super().log_exception(typ, value, tb)

    def body(self) -> dict[str, Any]:
        """Give the request's JSON object. Raises Problem."""
        try:
            body = json.loads(self.request.body)
        except (ValueError, RecursionError):
            raise Problem(400, "general/Bad Request", "The body is no JSON.") from None
        if not isinstance(body, dict):
            raise invalid("The body must be a JSON object.")
        return body

    def number(self, name: str, default: int, longest: int) -> int:
        """Give a query parameter that counts from one. Raises Problem."""
        text = self.get_query_argument(name, str(default))
        if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= longest):
            raise invalid(f"{name} must be a number from 1 to {longest}.")
        return int(text)

    def flag(self, name: str) -> bool:
        """Give a query parameter that is true or false."""
        return self.get_query_argument(name, "false").lower() == "true"

    def respond(self, body: Mapping[str, Any]) -> None:
        """Write JSON, except that POST and PUT without an Accept header answer nothing, as the real platform does."""
        if self.request.method == "GET" or "Accept" in self.request.headers:
            self.finish(dict(body))
        else:
            self.clear_header("Content-Type")
            self.finish()

    def address(self, path: str) -> str:
        """Give the full URL of a path."""
        return f"{self.request.protocol}://{self.request.host}{path}"

    def presented(self, trusted: TrustedCertificate) -> dict[str, Any]:
        """Give a trusted certificate as it is sent, with the address of it."""
        path = f"/tenant/tenants/{trusted.tenant}/trusted-certificates/{trusted.fingerprint}"
        return {**describe(trusted), "self": self.address(path)}

    def trusted(self) -> list[TrustedCertificate]:
        """Give the tenant's certificates, without those that were deleted."""
        return [known for known in self.platform.store.trusted_certificates(self.tenant) if not known.deleted]


class CurrentTenant(Handler):
    """Who am I?"""

    def get(self) -> None:
        """Give the tenant of the login."""
        self.set_header("Content-Type", TENANT_TYPE)
        tenant = {"name": self.tenant, "domainName": self.request.host_name, "allowCreateTenants": False}
        self.finish(json.dumps({**tenant, "customProperties": {}, "self": self.address(self.request.path)}))


class Collection(Handler):
    """All trusted certificates of a tenant."""

    def get(self, tenant: str) -> None:
        """List a page of them."""
        page, size = self.number("currentPage", 1, 10**8), self.number("pageSize", DEFAULT_PAGE, LONGEST_PAGE)
        known = self.trusted()
        statistics = {"currentPage": page, "pageSize": size}
        if self.flag("withTotalElements"):
            statistics["totalElements"] = len(known)
        if self.flag("withTotalPages"):
            statistics["totalPages"] = math.ceil(len(known) / size)
        shown = [self.presented(trusted) for trusted in known[(page - 1) * size : page * size]]
        answer = {"certificates": shown, "statistics": statistics, "self": self._page(page, size)}
        if page > 1:
            answer["prev"] = self._page(page - 1, size)
        if page * size < len(known):
            answer["next"] = self._page(page + 1, size)
        self.respond(answer)

    def _page(self, page: int, size: int) -> str:
        return self.address(f"{self.request.path}?pageSize={size}&currentPage={page}")

    def post(self, tenant: str) -> None:
        """Add one."""
        body = self.body()
        if not isinstance(body.get("certInPemFormat"), str) or "status" not in body:
            raise invalid("certInPemFormat, a text, and status are required.")
        try:
            certificate = read_upload(body["certInPemFormat"])
        except OnboardingError as error:
            raise invalid(str(error)) from None
        identifier = fingerprint(certificate)
        if any(t.fingerprint == identifier and not t.deleted for t in self.platform.store.trusted_certificates()):
            raise Problem(409, "certificate/Conflict", f"The certificate {identifier} is trusted already.")
        trusted = changed(TrustedCertificate(identifier, self.tenant, certificate, "", "ENABLED", False), body)
        answer = self.presented(trusted)  # before it is kept: what can't be described must not be in the list
        self.platform.store.put_trusted_certificate(trusted)
        self.set_status(201)
        self.respond(answer)


class One(Handler):
    """One trusted certificate."""

    def find(self, identifier: str) -> TrustedCertificate:
        """Give the certificate of this fingerprint. Raises Problem."""
        for trusted in self.trusted():
            if trusted.fingerprint == identifier:
                return trusted
        raise Problem(404, "certificate/Not Found", f"Cannot find certificate with fingerprint {identifier}.")

    def get(self, tenant: str, identifier: str) -> None:
        """Give it."""
        self.respond(self.presented(self.find(identifier)))

    def put(self, tenant: str, identifier: str) -> None:
        """Change its name, its status or its auto-registration."""
        trusted = changed(self.find(identifier), self.body())
        self.platform.store.put_trusted_certificate(trusted)
        if not trusted.enabled:
            self.platform.endpoint.end_sessions(identifier, "The trusted certificate was disabled.")
        self.respond(self.presented(trusted))

    def delete(self, tenant: str, identifier: str) -> None:
        """Delete it: the live sessions under it end."""
        self.platform.store.put_trusted_certificate(replace(self.find(identifier), deleted=timestamp()))
        self.platform.endpoint.end_sessions(identifier, "The trusted certificate was deleted.")
        self.set_status(204)


def invalid(message: str) -> Problem:
    """Give the answer to a body or a parameter that can be read but not used."""
    return Problem(422, "certificate/Unprocessable Entity", message)


def changed(trusted: TrustedCertificate, body: Mapping[str, Any]) -> TrustedCertificate:
    """Give ``trusted`` with what a request may set. Raises Problem."""
    name, status = trusted.name if body.get("name") is None else body["name"], body.get("status", trusted.status)
    automatic = body.get("autoRegistrationEnabled", trusted.auto_registration)
    if not isinstance(name, str) or len(name) > LONGEST_NAME or any("\ud800" <= letter <= "\udfff" for letter in name):
        raise invalid(f"name must be a text of {LONGEST_NAME} characters at most.")
    if status not in ("ENABLED", "DISABLED"):
        raise invalid("status must be ENABLED or DISABLED.")
    if automatic not in (True, False, "true", "false"):
        raise invalid("autoRegistrationEnabled must be true or false.")
    return replace(trusted, name=name, status=status, auto_registration=automatic in (True, "true"))
