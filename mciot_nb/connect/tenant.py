"""A tenant over REST: the same calls for the local platform and for a real tenant."""

import base64
import json
import os
import re
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import requests

from mciot_nb.connect import http as rest
from mciot_nb.connect.devices import Devices
from mciot_nb.connect.enrolment import OwnCa
from mciot_nb.connect.server_certificate import fetch_server_certificate
from mciot_nb.connect.trusted_certificates import TrustedCertificates
from mciot_nb.errors import OnboardingError, fault
from mciot_nb.pki.admission import Uploaded
from mciot_nb.pki.chain import PROFILES, Profile, read_certificates
from mciot_nb.pki.files import meanings, read_file, statuses, write_whole
from mciot_nb.secret import Secret, reveal

T = TypeVar("T")
Read = Callable[[Any], T]  # makes something of an answer's JSON
Meaning = Mapping[int, str] | None  # by status: what it means for a call and what to do, in half a sentence

JSON = "application/json"
#: What the answers of REST calls mean, where a call has no other meaning of its own; and what is wrong in the settings.
_MEANING, _PROBLEMS = statuses("tenant"), meanings("tenant settings")
#: How many entries a page of a list holds at most (the vendor's limit), how many we ask for, and pages at most.
LONGEST_PAGE, PAGE, MOST_PAGES = 2000, 100, 1000


@dataclass(frozen=True)
class Tenant:
    """One tenant: where it is, and who logs in: a user with a password, or a bearer ``token``.

    ``verify`` is True for the system's trust, or the path of a PEM file with the certificates to trust instead.

    Example: ``Tenant("https://t1.example.com", "t1", "ann", Secret(password), mqtt=("t1.example.com", 8883))``.
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
    #: How to find the local platform's tenant again; a copy with another address is a tenant of its own.
    locate: "Callable[[], Tenant] | None" = field(init=False, default=None, repr=False, compare=False)
    #: Returns what REST does not list, and the local platform keeps: deleted certificates, and those of other tenants.
    unlisted: Callable[[], list[Uploaded]] = field(init=False, default=list, repr=False, compare=False)
    trusted_certificates: TrustedCertificates = field(init=False, repr=False, compare=False)
    devices: Devices = field(init=False, repr=False, compare=False)
    own_ca: OwnCa = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.verify is False:
            raise OnboardingError("TLS verification is never switched off: give True, or the path of a PEM file.")
        if isinstance(self.password, str):
            object.__setattr__(self, "password", Secret(self.password))  # so that no repr shows it
        if self.token is not None:
            token = reveal(self.token).strip()
            if not re.fullmatch(r"[!-~]+", token):  # HTTP headers take no others, and their errors would show it
                raise fault("BAD_TOKEN")
            object.__setattr__(self, "token", Secret(token))
        object.__setattr__(self, "url", self.url.rstrip("/"))
        object.__setattr__(self, "trusted_certificates", TrustedCertificates(self))
        object.__setattr__(self, "devices", Devices(self))
        object.__setattr__(self, "own_ca", OwnCa(self))

    @property
    def now(self) -> "Tenant":
        """The tenant where it is now. Raises: OnboardingError: NOT_REACHED where its local platform is not running."""
        return self.locate() if self.locate else self

    @property
    def trusted(self) -> Path | None:
        """The PEM file of ``verify``; None for the system's trust."""
        return Path(self.verify) if isinstance(self.verify, str) else None

    @property
    def path(self) -> str:
        """The path of the tenant itself in its REST interface."""
        return f"/tenant/tenants/{quote(self.tenant_id, safe='')}"

    def request(
        self, method: str, path: str, read: Read[T], *, accept: str = JSON, meaning: Meaning = None, **options: Any
    ) -> T:
        """Send one REST request, and return what ``read`` makes of the answer's JSON (of None where it is empty).

        With another type than JSON in ``accept``, ``read`` gets the bytes. A call that did not reach the server is
        tried three times, GET and PUT also where the answer was lost or the server busy. Raises: OnboardingError: in
        one sentence for whatever fails, with the code ``HTTP_<status>`` where there is one.
        """
        here = self.now
        status, body = rest.send(method, here.url + path, here._log_in, here.verify, accept, **options)
        if not 200 <= status < 300:
            raise OnboardingError(here._explain(status, path, meaning or {}), f"HTTP_{status}")
        try:
            return read(body if accept != JSON else json.loads(body) if body else None)
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError):
            raise fault("NOT_A_TENANT.answer", url=here.url) from None

    def find(self, path: str, read: Read[T], **options: Any) -> T | None:
        """Return what a GET of `request` returns, None where the tenant answers 404."""
        try:
            return self.request("GET", path, read, **options)
        except OnboardingError as error:
            if error.code == "HTTP_404":
                return None
            raise

    def pages(
        self, path: str, name: str, read: Read[T], *, limit: int | None = None, meaning: Meaning = None, **query: str
    ) -> list[T]:
        """Return the entries of a collection's list ``name``, page by page, ``limit`` at most; raises as `request`."""
        size = PAGE if limit is None else min(max(limit, 1), LONGEST_PAGE)

        def read_page(body: Any) -> tuple[list[T], bool]:
            entries = [read(entry) for entry in body[name]]
            return entries, bool(body.get("next")) or len(entries) >= size

        found, last = list[T](), list[T]()
        for page in range(1, MOST_PAGES):
            parameters = {**query, "currentPage": str(page), "pageSize": str(size)}
            entries, more = self.request("GET", path, read_page, meaning=meaning, params=parameters)
            if entries == last:  # none, or a server that knows no pages
                break
            found, last = found + entries, entries
            if not more or (limit is not None and len(found) >= limit):
                break
        return found[:limit]

    def is_for_practice(self) -> bool:
        """Whether it is a tenant of a local platform, this workspace's or a class's, which says so of itself."""
        read = lambda body: "practice" in (body.get("customProperties") or ())  # noqa: E731
        return self.is_local or self.request("GET", "/tenant/currentTenant", read)

    def _log_in(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        login = f"Bearer {reveal(self.token)}" if self.token is not None else ""
        basic = f"{self.tenant_id}/{self.user}:{reveal(self.password or '')}"
        request.headers["Authorization"] = login or f"Basic {base64.b64encode(basic.encode()).decode()}"
        return request

    def _explain(self, status: int, path: str, meaning: Mapping[int, str]) -> str:
        default = "the platform has a problem: try again later"
        if status < 500:
            default = "this is not what the tenant's REST interface answers: check the URL"
        values = {"who": self.user or "the token", "tenant": self.tenant_id, "path": urlsplit(path).path}
        says = meaning.get(status) or _MEANING.get(status, default)
        return f"{self.url} answered {status}: {says.format(**values)}."


@dataclass(frozen=True)
class TenantSettings:
    """Which tenant the learner chose in 00: what ``workspace/tenant.json`` keeps, without any secret.

    A real tenant's values stay there while ``local`` is true, so that going back to it needs no typing.
    """

    url: str = ""
    tenant_id: str = ""
    user: str = ""
    mqtt_host: str = ""
    mqtt_port: int = 8883
    local: bool = True
    profile: str = "guide-2021"  # of the local platform
    ca_file: str = ""  # PEM: what proves the server of a real tenant; empty for what this system trusts

    def problems(self, by_token: bool = False) -> dict[str, str]:
        """Say for each field what keeps a real tenant from being reached with it; a token needs no user."""
        good = {
            "url": rest.https_host(self.url)[0],
            "tenant_id": self.tenant_id,
            "user": self.user or by_token,
            "mqtt_host": re.fullmatch(r"[A-Za-z0-9.-]+|[0-9A-Fa-f]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*", self.mqtt_host),
            "mqtt_port": 1 <= self.mqtt_port <= 65535,
        }
        found = {name: _PROBLEMS[name] for name, is_good in good.items() if not is_good}
        try:
            if self.ca_file and read_certificates(Path(self.ca_file)):
                ssl.create_default_context(cafile=self.ca_file)  # which reads less than we do
        except OnboardingError as error:
            found["ca_file"] = f"The server certificate: {error}"
        except OSError:
            found["ca_file"] = _PROBLEMS["ca_file"].format(file=self.ca_file)
        return found


def read_settings(folder: Path) -> TenantSettings:
    """Read the choice that 00 kept in ``folder``; ``MCIOT_URL`` and its companions go before it.

    Raises: OnboardingError: if the file is damaged.
    """
    if url := os.environ.get("MCIOT_URL"):
        host = os.environ.get("MCIOT_MQTT_HOST") or rest.https_host(url)[0]
        port = os.environ.get("MCIOT_MQTT_PORT", "8883")
        tenant, user = os.environ.get("MCIOT_TENANT", ""), os.environ.get("MCIOT_USER", "")
        server = host, int(port) if port.isdecimal() else 0
        return TenantSettings(url, tenant, user, *server, local=False, ca_file=os.environ.get("MCIOT_CA_FILE", ""))
    path = folder / "tenant.json"
    if not path.exists():
        return TenantSettings()
    try:
        kept = {"profile": TenantSettings.profile, "ca_file": ""} | json.loads(read_file(path, ""))
        settings = {field.name: kept[field.name] for field in fields(TenantSettings)}
        kinds = [list(map(type, each.values())) for each in (settings, asdict(TenantSettings()))]
        if kinds[0] != kinds[1] or settings["profile"] not in PROFILES:
            raise TypeError("Another version, or another hand, wrote it.")
        return TenantSettings(**settings)
    except (ValueError, TypeError, KeyError):
        raise OnboardingError(f"{path} is damaged: remove it, and choose the tenant again in 00.", "BAD_FILE") from None


def keep_settings(folder: Path, settings: TenantSettings) -> None:
    """Keep the choice for the other notebooks, without any secret."""
    write_whole(folder / "tenant.json", json.dumps(asdict(settings), indent=2).encode(), replace=True)


def real_tenant(settings: TenantSettings, secret: Secret | None = None) -> Tenant:
    """Return the real tenant of ``settings``; ``secret`` is the user's password, or a bearer token without a user.

    Without ``secret`` it comes from ``MCIOT_TOKEN`` or ``MCIOT_PASSWORD``. Raises: OnboardingError: BAD_SETTINGS,
    NEED_PASSWORD.
    """
    by_token = not settings.user or bool(os.environ.get("MCIOT_TOKEN"))
    if secret is None and (text := os.environ.get("MCIOT_TOKEN" if by_token else "MCIOT_PASSWORD")):
        secret = Secret(text)
    if problems := settings.problems(by_token):
        raise OnboardingError(" ".join(problems.values()), "BAD_SETTINGS")
    if secret is None:
        raise fault("NEED_PASSWORD")
    who, mqtt = (settings.url, settings.tenant_id, settings.user), (settings.mqtt_host, settings.mqtt_port)
    password, token = (None, secret) if by_token else (secret, None)
    return Tenant(*who, password, mqtt=mqtt, verify=settings.ca_file or True, token=token)


def check_tenant(tenant: Tenant) -> str:
    """Return what passed, and the first thing that did not, of what the tutorial needs: REST, role, and the MQTT port.

    A tenant without password and token is not logged in to. The role is told by reading the trusted certificates, which
    by the vendor's description takes the same role as changing them.
    """
    passed, problem = list[str](), ""
    try:
        for check in _checks(tenant.now):
            passed.append(check)
    except OnboardingError as error:
        if not passed and error.code in ("TLS", "NO_TLS", "NO_ANSWER", "CLOSED"):  # only a server can fail like that
            passed.append("reached")
        problem = f"✗ {error}"
    return " ".join(filter(None, (f"✓ {', '.join(passed)}." if passed else "", problem)))


def _checks(tenant: Tenant) -> Iterator[str]:
    """Yield what each check that passes has shown; raises OnboardingError at the first that does not."""
    # Without login: before a password is sent, the server has proven who it is.
    rest.send("GET", f"{tenant.url}/tenant/currentTenant", lambda request: request, tenant.verify, JSON)
    yield "reached"
    yield "TLS verified"
    if tenant.password is not None or tenant.token is not None:
        name = tenant.request("GET", "/tenant/currentTenant", lambda body: str(body["name"]))
        if name != tenant.tenant_id:
            raise OnboardingError(f"This login is one of the tenant {name}: correct the tenant ID.", "OTHER_TENANT")
        yield f"logged in as {tenant.user}" if tenant.user else "logged in"
        no_role = "this login may not read and change trusted certificates: "
        no_role += "ask an administrator for the role ROLE_TENANT_ADMIN"
        path, one = f"{tenant.path}/trusted-certificates", {"pageSize": "1"}
        tenant.request("GET", path, lambda body: len(body["certificates"]), meaning={403: no_role}, params=one)
        yield "may read and change trusted certificates"
    server = fetch_server_certificate(*tenant.mqtt, tenant.trusted)
    doubt = f", with a certificate that {server.judge} does not trust ({server.problem}): see 05"
    yield "MQTT port answers with TLS" + (doubt if server.problem else "")
