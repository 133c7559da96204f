"""What of a tenant works, found out step by step; nothing is changed on it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import requests

from mciot_nb.connect import rest
from mciot_nb.connect.server import fetch_server_certificate
from mciot_nb.connect.tenant import JSON, Tenant
from mciot_nb.errors import OnboardingError
from mciot_nb.pki.chain import read_certificates

#: Failures of the first call that only somebody who was reached can cause.
_REACHED = ("TLS", "NO_TLS", "NO_ANSWER", "CLOSED")

_NO_ROLE = {
    403: "this login may not read and change trusted certificates: ask an administrator for the role ROLE_TENANT_ADMIN"
}


@dataclass(frozen=True)
class Check:
    """What ``works``, step by step, and the ``problem`` at which it ended, empty where there is none."""

    works: tuple[str, ...]
    problem: str = ""

    def __str__(self) -> str:
        good = f"✓ {', '.join(self.works)}." if self.works else ""
        return " ".join(filter(None, (good, f"✗ {self.problem}" if self.problem else "")))


def check_tenant(tenant: Tenant) -> Check:
    """Try what the tutorial needs of a tenant: REST with a login and the role, and the MQTT port.

    A tenant without password and token is not logged in to. The role is told by reading the trusted certificates, which
    by the vendor's description takes the same role as changing them.
    """
    works: list[str] = []
    try:
        for step in _steps(tenant):
            works.append(step)
    except OnboardingError as error:
        if not works and error.code in _REACHED:
            works.append("reached")
        return Check(tuple(works), str(error))
    return Check(tuple(works))


def _steps(tenant: Tenant) -> Iterator[str]:
    # Whatever is answered to nobody: before a password is sent, the server has proven who it is.
    rest.send("GET", f"{tenant.url}/tenant/currentTenant", _as_nobody, tenant.verify, JSON)
    yield "reached"
    yield "TLS verified"
    if tenant.password is not None or tenant.token is not None:
        name = tenant.request("GET", "/tenant/currentTenant", lambda body: str(body["name"]))
        if name != tenant.tenant_id:
            raise OnboardingError(f"This login is one of the tenant {name}: correct the tenant ID.", "OTHER_TENANT")
        yield f"logged in as {tenant.user}" if tenant.user else "logged in"
        path, one = f"{tenant.path}/trusted-certificates", {"pageSize": "1"}
        tenant.request("GET", path, lambda body: len(body["certificates"]), meaning=_NO_ROLE, params=one)
        yield "may read and change trusted certificates"
    server = fetch_server_certificate(*tenant.mqtt)
    known = read_certificates(Path(tenant.verify)) if isinstance(tenant.verify, str) else []
    trusted = not server.problem or server.certificate in known
    doubt = f", with a certificate that this system does not trust ({server.problem}): see 05"
    yield "MQTT port answers with TLS" + ("" if trusted else doubt)


def _as_nobody(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request
