"""The HTTPS endpoint: which call stands at which path."""

import json
from typing import Any

from tornado.web import Application

from mciot_platform.rest import certificates, chains, inventory
from mciot_platform.rest.handler import Handler, Platform

LONGEST_BODY = 1024 * 1024
TENANT_TYPE = "application/vnd.com.nsn.cumulocity.currenttenant+json"


class CurrentTenant(Handler):
    """Who am I?"""

    def get(self) -> None:
        """Give the tenant of the login."""
        self.set_header("Content-Type", TENANT_TYPE)
        tenant = {"name": self.login.tenant, "domainName": self.request.host_name, "allowCreateTenants": False}
        parent = {"parent": "management"} if self.flag("withParent") else {}
        own = {"customProperties": {}, "self": self.address(self.request.path)}
        self.finish(json.dumps({**tenant, **parent, **own}))


def make_application(platform: Platform) -> Application:
    """Give the REST interface as a tornado application. What came after the guide's time is there in `current` only."""
    trusted = r"/tenant/tenants/(?P<tenant>[^/]+)/trusted-certificates"
    proof = trusted + r"-pop/(?P<identifier>[^/]+)"
    later: list[tuple[str, type[Handler]]] = [
        (proof + "/verification-code", certificates.VerificationCode),
        (proof + "/pop", certificates.Proof),
        ("/tenant/trusted-certificates/settings/crl", chains.Revocations),
        ("/devicecontrol/deviceAccessToken", chains.DeviceToken),
    ]
    if not platform.trust.profile.calls_of_current:
        later = [(path, chains.NotYet) for path, _ in later]
    routes: list[tuple[str, type[Handler]]] = [
        ("/tenant/currentTenant", CurrentTenant),
        (trusted, certificates.Collection),
        (trusted + "/bulk", certificates.Bulk),
        (trusted + r"/(?P<identifier>[^/]+)", certificates.One),
        ("/tenant/trusted-certificates/verify-cert-chain", chains.VerifyChain),
        *later,
        *inventory.ROUTES,
    ]
    own: dict[str, Any] = {"platform": platform}
    return Application(
        [(path, handler, own) for path, handler in routes],
        default_handler_class=Handler,
        default_handler_args=own,
        log_function=lambda _: None,
    )
