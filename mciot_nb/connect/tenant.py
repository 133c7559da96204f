"""A tenant over REST: the same calls for the local platform and for a real tenant."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import requests
from requests.auth import HTTPBasicAuth

from mciot_nb.connect import rest
from mciot_nb.connect.devices import Devices
from mciot_nb.connect.trusted_certificates import TrustedCertificate, TrustedCertificates, fingerprint
from mciot_nb.errors import OnboardingError
from mciot_nb.pki.chain import PROFILES, Profile
from mciot_nb.secret import Secret, reveal

__all__ = ["Tenant", "TrustedCertificate", "TrustedCertificates", "fingerprint"]

T = TypeVar("T")

JSON = "application/json"
#: How many entries a page of a list holds at most (the vendor's limit), and how many we ask for.
LONGEST_PAGE, PAGE = 2000, 100
_MOST_PAGES = 1000


@dataclass(frozen=True)
class Tenant:
    """One tenant: where it is, and who logs in: a user with a password, or a bearer ``token``.

    ``verify`` is True for the system's trust, or the path of a PEM file with the certificates to trust instead.
    """

    url: str
    tenant_id: str
    user: str = ""
    password: Secret | None = None
    mqtt: tuple[str, int] = ("", 8883)
    profile: Profile = PROFILES["current"]
    verify: bool | str = True
    token: Secret | None = None
    is_local: bool = False
    trusted_certificates: TrustedCertificates = field(init=False, repr=False, compare=False)
    devices: Devices = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.verify is False:
            raise OnboardingError(
                "TLS verification is never switched off: give verify=True, or the path of a PEM file."
            )
        if self.token is not None:
            token = reveal(self.token).strip()
            if not re.fullmatch(r"[!-~]+", token):  # HTTP headers take no others, and their errors would show it
                raise OnboardingError(
                    "The bearer token holds characters that no token has: copy it again.", "BAD_TOKEN"
                )
            object.__setattr__(self, "token", Secret(token))
        object.__setattr__(self, "url", self.url.rstrip("/"))
        object.__setattr__(self, "trusted_certificates", TrustedCertificates(self))
        object.__setattr__(self, "devices", Devices(self))

    @property
    def path(self) -> str:
        """Where the tenant itself lies in its REST interface."""
        return f"/tenant/tenants/{quote(self.tenant_id, safe='')}"

    def request(
        self,
        method: str,
        path: str,
        read: Callable[[Any], T],
        *,
        accept: str = JSON,
        meaning: Mapping[int, str] | None = None,
        **options: Any,
    ) -> T:
        """Send one REST request, and give what ``read`` makes of the answer's JSON (of None where it is empty).

        With another type than JSON in ``accept``, ``read`` gets the bytes. ``meaning`` says what a status means for
        this call and what to do, in half a sentence. A call that did not reach the server is tried three times, GET and
        PUT also where the answer was lost or the server busy.

        Raises OnboardingError in one sentence for whatever fails, with the code ``HTTP_<status>`` where there is one.
        """
        answer = rest.send(method, self.url + path, self._log_in, self.verify, accept, **options)
        if not 200 <= answer.status < 300:
            raise OnboardingError(self._what_to_do(answer.status, path, meaning or {}), f"HTTP_{answer.status}")
        try:
            if accept != JSON:
                return read(answer.body)
            return read(json.loads(answer.body) if answer.body else None)
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError):
            raise OnboardingError(
                f"{self.url} answered something that no tenant's REST interface does: check the URL.", "NOT_A_TENANT"
            ) from None

    def pages(
        self,
        path: str,
        name: str,
        read: Callable[[Any], T],
        *,
        limit: int | None = None,
        meaning: Mapping[int, str] | None = None,
        **query: str,
    ) -> list[T]:
        """Give the entries that a collection holds under ``name``, page by page, ``limit`` at most.

        Raises OnboardingError as `request` does.
        """

        def read_page(body: Any) -> tuple[list[T], bool]:
            entries = [read(entry) for entry in body[name]]
            return entries, bool(body.get("next")) or len(entries) >= size

        found: list[T] = []
        last: list[T] = []
        size = PAGE if limit is None else min(max(limit, 1), LONGEST_PAGE)
        for page in range(1, _MOST_PAGES):
            parameters = {**query, "currentPage": str(page), "pageSize": str(size)}
            entries, more = self.request("GET", path, read_page, meaning=meaning, params=parameters)
            if entries == last:  # none, or a server that knows no pages
                break
            found += entries
            last = entries
            if not more or (limit is not None and len(found) >= limit):
                break
        return found[:limit]

    def _log_in(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self.token is not None:
            request.headers["Authorization"] = f"Bearer {reveal(self.token)}"
            return request
        user, password = f"{self.tenant_id}/{self.user}", reveal(self.password or "")
        prepared: requests.PreparedRequest = HTTPBasicAuth(user.encode(), password.encode())(request)
        return prepared

    def _what_to_do(self, status: int, path: str, meaning: Mapping[int, str]) -> str:
        explanations = {
            401: f"the login of {self.user or 'the token'} was refused: check user, password and tenant ID "
            f"{self.tenant_id} (a user with single sign-on needs a bearer token)",
            403: f"{self.user or 'the token'} may not do that: ask an administrator for the role ROLE_TENANT_ADMIN",
            404: f"there is nothing at {urlsplit(path).path}: check the tenant ID {self.tenant_id} and the fingerprint",
            409: "this certificate is there already, in this tenant or in another one: list the trusted certificates, "
            "and delete the old entry if you need to upload it anew",
            422: "it can't use this certificate: upload the CA's (or an intermediate's) X.509 v3 certificate with "
            "CA:true that has not expired",
            **meaning,
        }
        default = "the platform is in trouble: try again later"
        if status < 500:
            default = "this is not what the tenant's REST interface answers: check the URL"
        return f"{self.url} answered {status}: {explanations.get(status, default)}."
