"""The HTTPS server's application: which call is at which path, with those for the tenant itself."""

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from tornado.web import Application

from mciot_nb.pki.files import data_table
from mciot_platform.rest.certificates import CertificateCalls
from mciot_platform.rest.chains import ChainCalls
from mciot_platform.rest.est import EnrolmentCalls
from mciot_platform.rest.handler import JSON, Call, Handler, Platform, RestError, unfit
from mciot_platform.rest.inventory import InventoryCalls
from mciot_platform.rest.records import RecordCalls

LONGEST_BODY = 1024 * 1024
ADMIN_ROLES = ("ROLE_TENANT_ADMIN", "ROLE_OPTION_MANAGEMENT_ADMIN")


class TenantCalls(Handler):
    """The calls for the tenant and the user of the login."""

    def _current_tenant(self) -> None:
        """Show the tenant of the login."""
        tenant = {"name": self.login.tenant, "domainName": self.request.host_name, "allowCreateTenants": False}
        parent = {"parent": "management"} if self.flag("withParent") else {}
        practice = {"customProperties": {"practice": True}}  # so that a class's practice CAs may come, see `Tenant`
        self.respond({**tenant, **parent, **practice, "self": self.address(self.request.path)})

    def _current_user(self) -> None:
        """Show the user of the login, with its roles."""
        roles = [{"id": role, "name": role} for role in (ADMIN_ROLES if self.login.is_admin else ())]
        user = {"id": self.login.user, "userName": self.login.user, "shouldResetPassword": False}
        references = {"references": [{"role": role} for role in roles]}
        self.respond({**user, "roles": references, "effectiveRoles": roles, "self": self.address(self.request.path)})

    def _show_user(self, tenant: str, user: str) -> None:
        """Show the user that a device got when it was registered."""
        device = self.storage.device(self.login.tenant, user.removeprefix("device_"))
        if tenant != self.login.tenant or not user.startswith("device_") or not (device and device.registered):
            raise RestError(404, "user/Not Found", f"There is no user {user} of a device.")
        self.respond({"id": user, "userName": user, "self": self.address(self.request.path)})

    def _login_options(self) -> None:
        """Show how users may log in: with Basic alone."""
        basic = {"id": "BASIC", "type": "BASIC", "userManagementSource": "INTERNAL", "visibleOnLoginPage": True}
        self.respond({"loginOptions": [basic], "self": self.address(self.request.path)})

    def _option(self, category: str, key: str) -> dict[str, str]:
        value = self.storage.options(self.login.tenant).get((category, key))
        if value is None:
            raise RestError(404, "options/Not Found", f"The option {key} of {category} is not set.")
        path = f"/tenant/options/{quote(category, safe='')}/{quote(key, safe='')}"
        return {"category": category, "key": key, "value": value, "self": self.address(path)}

    def _list_options(self) -> None:
        """List the options that the tenant has set."""
        found = [self._option(*name) for name in self.storage.options(self.login.tenant)]
        self.respond_page("options", lambda first, size: (found[first : first + size], len(found)))

    def _set_option(self, **name: str) -> None:
        """Set an option; crl.offline.check.enabled of configuration alone does something here."""
        given = {**self.body(), **name}
        option = {part: given.get(part) for part in ("category", "key", "value")}
        if not all(isinstance(text, str) for text in option.values()) or not option["category"] or not option["key"]:
            raise unfit("category, key and value, texts, are required.")
        change = "ON CONFLICT DO UPDATE SET value = excluded.value"
        self.storage.insert("options", change, tenant=self.login.tenant, **option)
        self.respond(self._option(str(option["category"]), str(option["key"])), 200 if name else 201)

    def _show_option(self, category: str, key: str) -> None:
        """Show an option."""
        self.respond(self._option(category, key))

    def _delete_option(self, category: str, key: str) -> None:
        """Take an option away, so that its default counts."""
        self._option(category, key)
        self.storage.delete("options", tenant=self.login.tenant, category=category, key=key)
        self.set_status(204)


def read_calls(kind: type[Handler]) -> Iterator[Call]:
    """Yield what a kind of handler carries out, as the table of calls has it."""
    for row in data_table("rest_calls.csv"):
        of, _, run = row["run"].partition(".")
        consumes, produces = (tuple(row[name].split()) or (JSON,) for name in ("consumes", "produces"))
        errors = tuple(map(int, row["plain_errors"].split())), int(row["unreadable"] or 422)
        if of == kind.__name__:
            known = row["method"], row["path"], getattr(kind, run), row["who"], row["since"] == "current"
            yield Call(*known, consumes, produces, *errors)


KINDS = (TenantCalls, CertificateCalls, ChainCalls, EnrolmentCalls, InventoryCalls, RecordCalls)
CALLS: dict[type[Handler], tuple[Call, ...]] = {kind: tuple(read_calls(kind)) for kind in KINDS}


def pattern(path: str) -> str:
    """Return the expression for a path; the vendor's Python client doubles slashes, and sets some at the end."""
    return re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path.replace("/", "/+")) + "/*"


def make_application(platform: Platform) -> Application:
    """Return the REST interface as a tornado application."""
    paths = {call.path: (kind, calls) for kind, calls in CALLS.items() for call in calls}
    handlers = [
        (pattern(path), kind, {"platform": platform, "calls": [call for call in calls if call.path == path]})
        for path, (kind, calls) in paths.items()
    ]
    unknown: dict[str, Any] = {"default_handler_class": Handler, "default_handler_args": {"platform": platform}}
    return Application(handlers, log_function=lambda _: None, **unknown)
