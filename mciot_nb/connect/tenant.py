"""A tenant and its trusted certificates over REST: the same calls for the local platform and for a real tenant."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import urlsplit

import requests
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA1
from requests.auth import HTTPBasicAuth

from mciot_nb.errors import OnboardingError
from mciot_nb.pki.chain import PROFILES, Profile, to_pem
from mciot_nb.pki.names import common_name
from mciot_nb.secret import Secret, reveal

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")

#: Seconds to wait for the connection and for the answer.
TIMEOUT = (5.0, 30.0)


@dataclass(frozen=True)
class TrustedCertificate:
    """A CA (or intermediate) certificate that the tenant trusts, as the platform describes it."""

    fingerprint: str
    name: str
    status: str
    auto_registration: bool
    subject: str
    issuer: str
    not_after: datetime

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> Self:
        """Read the platform's description."""
        return cls(
            fingerprint=body["fingerprint"],
            name=body.get("name", ""),
            status=body["status"],
            auto_registration=bool(body.get("autoRegistrationEnabled", False)),
            subject=body.get("subject", ""),
            issuer=body.get("issuer", ""),
            not_after=datetime.fromisoformat(body["notAfter"]),
        )


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
    trusted_certificates: "TrustedCertificates" = field(init=False, repr=False, compare=False)

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

    def request(self, method: str, path: str, read: Callable[[Any], T], **options: Any) -> T:
        """Send one REST request, and give what ``read`` makes of the answer's JSON (of None where it is empty).

        Raises OnboardingError in one sentence for whatever fails, with the code ``HTTP_<status>`` where there is one.
        """
        with _named_failures(self.url), requests.Session() as session:
            session.trust_env = self.verify is True  # a CA bundle named in the environment would override a path
            session.auth = self._log_in
            answer = session.request(
                method,
                self.url + path,
                headers={"Accept": "application/json"},  # without it, POST and PUT answer nothing
                verify=self.verify,
                timeout=TIMEOUT,
                allow_redirects=False,  # a POST that is redirected becomes a GET, and nothing is uploaded
                **options,
            )
        if not 200 <= answer.status_code < 300:
            raise OnboardingError(self._what_to_do(answer), f"HTTP_{answer.status_code}")
        try:
            return read(answer.json() if answer.content else None)
        except (ValueError, KeyError, TypeError):
            raise OnboardingError(
                f"{self.url} answered something that no tenant's REST interface does: check the URL.", "NOT_A_TENANT"
            ) from None

    def _log_in(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self.token is not None:
            request.headers["Authorization"] = f"Bearer {reveal(self.token)}"
            return request
        user, password = f"{self.tenant_id}/{self.user}", reveal(self.password or "")
        prepared: requests.PreparedRequest = HTTPBasicAuth(user.encode(), password.encode())(request)
        return prepared

    def _what_to_do(self, answer: requests.Response) -> str:
        explanations = {
            401: f"the login of {self.user or 'the token'} was refused: check user, password and tenant ID "
            f"{self.tenant_id} (a user with single sign-on needs a bearer token)",
            403: f"{self.user or 'the token'} may not do that: ask an administrator for the role ROLE_TENANT_ADMIN",
            404: f"there is nothing at {urlsplit(answer.url).path}: check the tenant ID {self.tenant_id} and the "
            "fingerprint",
            409: "this certificate is there already, in this tenant or in another one: list the trusted certificates, "
            "and delete the old entry if you need to upload it anew",
            422: "it can't use this certificate: upload the CA's (or an intermediate's) X.509 v3 certificate with "
            "CA:true that has not expired",
        }
        default = "the platform is in trouble: try again later"
        if answer.status_code < 500:
            default = "this is not what the tenant's REST interface answers: check the URL"
        return f"{self.url} answered {answer.status_code}: {explanations.get(answer.status_code, default)}."


@dataclass(frozen=True)
class TrustedCertificates:
    """The tenant's trust anchors: the CA certificates whose devices it lets in."""

    tenant: Tenant = field(repr=False)

    @property
    def _path(self) -> str:
        return f"/tenant/tenants/{self.tenant.tenant_id}/trusted-certificates"

    def list(self) -> "list[TrustedCertificate]":
        """Give all trusted certificates, page by page behind the scenes."""
        found: list[TrustedCertificate] = []
        for page in range(1, 1000):
            query = {"currentPage": page, "pageSize": 100}
            certificates = self.tenant.request("GET", self._path, _read_collection, params=query)
            found += certificates
            if len(certificates) < 100:
                break
        return found

    def to_frame(self) -> "pd.DataFrame":
        """Give the list as a table."""
        import pandas as pd  # here, because it takes half a second and most calls need no table

        columns = ["name", "status", "auto_registration", "subject", "not_after", "fingerprint"]
        return pd.DataFrame([vars(certificate) for certificate in self.list()], columns=columns)

    def find(self, certificate: x509.Certificate) -> TrustedCertificate | None:
        """Look for a certificate by its fingerprint; None where the tenant does not have it."""
        try:
            path = f"{self._path}/{fingerprint(certificate)}"
            return self.tenant.request("GET", path, TrustedCertificate.from_json)
        except OnboardingError as error:
            if error.code == "HTTP_404":
                return None
            raise

    def upload(
        self, certificate: x509.Certificate, name: str = "", *, auto_registration: bool = True
    ) -> TrustedCertificate:
        """Upload a CA (or intermediate) certificate, so that devices signed under it may connect (guide: "Via REST").

        ``auto_registration`` lets a new device in at its first connection. Raises OnboardingError: HTTP_409 where the
        certificate is there already, HTTP_422 where it is no CA's.
        """
        body = {
            "status": "ENABLED",
            "name": name or common_name(certificate.subject) or "CA",
            "autoRegistrationEnabled": auto_registration,
            "certInPemFormat": to_pem([certificate]).decode(),
        }
        return self.tenant.request("POST", self._path, TrustedCertificate.from_json, json=body)

    def ensure(self, certificate: x509.Certificate, *, auto_registration: bool = True) -> TrustedCertificate:
        """Upload a certificate, or find it where the tenant has it already; raises OnboardingError as `upload` does."""
        try:
            return self.upload(certificate, auto_registration=auto_registration)
        except OnboardingError as error:
            found = self.find(certificate) if error.code == "HTTP_409" else None
            if found is None:
                raise
            return found

    def delete(self, certificate: x509.Certificate) -> None:
        """Take a certificate away again; the platform ends the sessions of the devices under it."""
        self.tenant.request("DELETE", f"{self._path}/{fingerprint(certificate)}", lambda _: None)


def _read_collection(body: dict[str, Any]) -> "list[TrustedCertificate]":
    return [TrustedCertificate.from_json(certificate) for certificate in body["certificates"]]


def fingerprint(certificate: x509.Certificate) -> str:
    """Give the fingerprint under which the platform keeps a certificate: SHA-1 of its DER form, in lower-case hex."""
    return certificate.fingerprint(SHA1()).hex()  # an identifier, chosen by the platform: no protection


@contextmanager
def _named_failures(url: str) -> Iterator[None]:
    try:
        host = urlsplit(url).netloc.rpartition("@")[2]
    except ValueError:
        host = ""
    try:
        yield
    except requests.exceptions.SSLError as error:
        raise OnboardingError(
            f"The server certificate of {host} was not trusted ({_reason(error)}): check the host name, and that the "
            "certificate you trust is this server's.",
            "TLS",
        ) from None
    except (requests.exceptions.ConnectionError, requests.exceptions.Timeout):
        raise OnboardingError(
            f"Nothing answers at {host}: check the URL and the network; workspace.tenant() starts the local platform.",
            "NOT_REACHED",
        ) from None
    except (OSError, ValueError):  # requests' other errors, and a file of trusted certificates that is not there
        raise OnboardingError(
            f"{host or 'The tenant'} can't be called: check the URL, and that the file to verify with is there."
        ) from None


def _reason(error: Exception) -> str:
    text = str(error)
    start = text.find("certificate verify failed")
    return text[start:].split(" (_ssl")[0] if start >= 0 else "TLS failed"
