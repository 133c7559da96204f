"""The HTTPS server's application: which call is at which path."""

import json

from tornado.web import Application

from mciot_platform.rest import certificates, chains, inventory
from mciot_platform.rest.handler import Handler, Platform

LONGEST_BODY = 1024 * 1024
TENANT_TYPE = "application/vnd.com.nsn.cumulocity.currenttenant+json"
TRUSTED = r"/tenant/tenants/(?P<tenant>[^/]+)/trusted-certificates"
PROOF = TRUSTED + r"-pop/(?P<identifier>[^/]+)"


class CurrentTenant(Handler):
    """The tenant of the login."""

    def get(self) -> None:
        """Show it."""
        self.set_header("Content-Type", TENANT_TYPE)
        tenant = {"name": self.login.tenant, "domainName": self.request.host_name, "allowCreateTenants": False}
        parent = {"parent": "management"} if self.flag("withParent") else {}
        own = {"customProperties": {}, "self": self.address(self.request.path)}
        self.finish(json.dumps({**tenant, **parent, **own}))


ROUTES: list[tuple[str, type[Handler]]] = [
    ("/tenant/currentTenant", CurrentTenant),
    (TRUSTED, certificates.TrustedCertificatesCall),
    (TRUSTED + "/bulk", certificates.BulkUpload),
    (TRUSTED + r"/(?P<identifier>[^/]+)", certificates.OneTrustedCertificate),
    ("/tenant/trusted-certificates/verify-cert-chain", chains.VerifyChain),
    (r"/identity/externalIds/c8y_Serial/(?P<external_id>[^/]+)", inventory.Identity),
    ("/inventory/managedObjects", inventory.ManagedObjects),
    (r"/inventory/managedObjects/(?P<number>[^/]+)", inventory.ManagedObject),
    *((path, inventory.Records) for path in inventory.KINDS),
    ("/devicecontrol/operations", inventory.OperationsCall),
    (r"/devicecontrol/operations/(?P<number>[^/]+)", inventory.OneOperation),
    (PROOF + "/verification-code", certificates.VerificationCode),
    (PROOF + "/pop", certificates.ProofOfPossession),
    ("/tenant/trusted-certificates/settings/crl", chains.Revocations),
    ("/devicecontrol/deviceAccessToken", chains.DeviceToken),
]


def make_application(platform: Platform) -> Application:
    """Return the REST interface as a tornado application."""
    own = {"platform": platform}
    return Application(
        [(path, handler, own) for path, handler in ROUTES],
        default_handler_class=Handler,
        default_handler_args=own,
        log_function=lambda _: None,
    )
