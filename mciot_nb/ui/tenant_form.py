"""The form for the tenant: which one, and what of it works."""

import threading
from pathlib import Path
from typing import Any

import ipywidgets as widgets  # type: ignore[import-untyped]

from mciot_nb.connect.tenant import Tenant, TenantSettings, check_tenant, real_tenant
from mciot_nb.errors import OnboardingError
from mciot_nb.pki.chain import fingerprint, to_pem
from mciot_nb.pki.files import write_whole
from mciot_nb.pki.names import name_of, readable
from mciot_nb.pki.uploads import parse_upload
from mciot_nb.secret import Secret
from mciot_nb.ui.forms import Form, labelled
from mciot_nb.ui.inputs import FileField, SecretField, button, outcome, status
from mciot_nb.ui.markup import Rendered, card, paragraph
from mciot_nb.workspace import Workspace

#: The fields of a real tenant, by the name of the setting: kind, label, and options.
_FIELDS: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "url": (widgets.Text, "URL", {"placeholder": "https://mytenant.example.com"}),
    "tenant_id": (widgets.Text, "Tenant ID", {"placeholder": "t12345"}),
    "mqtt_host": (widgets.Text, "MQTT host", {"placeholder": "mytenant.example.com"}),
    "mqtt_port": (widgets.IntText, "MQTT port", {"width": "22em", "continuous_update": True}),
    "ca_file": (widgets.Text, "Server certificate", {"placeholder": "empty: this system's trust"}),
    "user": (widgets.Text, "User", {}),
}
_USE = [("the local platform", True), ("a real tenant", False)]
_LOGIN = [("user and password", False), ("bearer token", True)]
_CREDENTIAL = {False: "Password", True: "Bearer token"}  # by the login that is chosen


class TenantForm(Form):
    """Ask which tenant the notebooks talk to; what is submitted goes to `Workspace.choose_tenant`.

    ``.settings`` and ``.secret`` are what was submitted last. The secret is the user's password, a bearer token where
    the settings have no user, or None for the local platform; it is in this kernel's memory only. With
    ``ask_secret=False`` no secret is asked for: for a notebook that only keeps the choice.

    The button "Test" says what works with the values in the form, submitted or not.

    Example: ``TenantForm(workspace)`` as a cell's last line, and in the next cell ``workspace.tenant()``.
    """

    def __init__(self, workspace: Workspace, *, ask_secret: bool = True) -> None:
        super().__init__("Tenant")
        self._workspace, self._ask_secret = workspace, ask_secret
        self._settings = settings = workspace.tenant_settings
        self.secret: Secret | None = None
        self._tester: threading.Thread | None = None
        self._forgotten = False
        by_token = not settings.local and not settings.user
        self._fields = {
            name: labelled(kind, label, getattr(settings, name), **options)
            for name, (kind, label, options) in _FIELDS.items()
        }
        self._where = labelled(widgets.RadioButtons, "Use", settings.local, options=_USE)
        self._login = labelled(widgets.RadioButtons, "Log in with", by_token, options=_LOGIN)
        self._credential = SecretField(_CREDENTIAL[by_token], when_left=True)
        self._credential.on_secret(lambda _: self._edited(None))
        for field in (self._login, *(self._fields[name] for name in ("url", "tenant_id", "user"))):
            field.observe(self._forget, "value")  # first of all, so that no note speaks of what is forgotten
        self._fields["ca_file"].observe(self._paste, "value")  # before the note is written
        self._file = FileField("Or paste its PEM text above, or choose it", self._keep).add_class("mciot-ca-upload")
        rows = {name: self.row(name, field) for name, field in self._fields.items()}
        self._user, rows["upload"] = rows.pop("user"), self._file
        last = widgets.HTML("06, 07, 11 and 12 ask for the password or token.").add_class("mciot-later")
        last = self.row("credential", self._credential) if ask_secret else last
        self._real = widgets.VBox([*rows.values(), self.row("login", self._login), self._user, last])
        self._test = button("Test", self.test).add_class("mciot-test")
        self._test.tooltip = "See what works with this tenant"
        self._result = widgets.HTML().add_class("mciot-result")
        self.build(self.row("where", self._where), self._real, buttons=(self._test,))
        self.children = [*self.children, self._result]

    def _forget(self, change: Any) -> None:
        """Forget the secret: what was typed for one host must not go to another, and a password is no token."""
        self._forgotten = change.owner is not self._login and (self._forgotten or self._credential.value is not None)
        if self._credential.value is not None:
            self._touched.add("credential")
        self._credential.value, self._credential.status = None, ""
        self._credential.label = _CREDENTIAL[self._login.value]

    def _paste(self, change: Any) -> None:
        """Take a PEM text that was pasted for its file; nothing of it stays in the field."""
        if "BEGIN " in change.new:  # with dashes of whatever kind
            change.owner.value = ""
            self._file._receive(self, {"name": "What you pasted"}, [change.new.encode()])

    def _keep(self, name: str, data: bytes) -> str:
        """Keep certificates beside the settings, and name their file in the form."""
        certificates = parse_upload(data, name)
        path = self._workspace.folder / f"trusted-{fingerprint(certificates[0])[:8]}.pem"
        write_whole(path, to_pem(certificates), replace=True)
        self._fields["ca_file"].value = str(path)
        return f"✓ Kept as {path.name}, the certificate of {readable(name_of(certificates[0]))}: now press Submit."

    @property
    def settings(self) -> TenantSettings:
        """The settings as they were submitted last. Raises: OnboardingError: if a real tenant's are incomplete."""
        settings = self._settings
        for problem in [] if settings.local else settings.problems(by_token=not settings.user).values():
            raise OnboardingError(f"{problem} Fill in the form “{self.title}” and press Submit.", "FORM")
        return settings

    def typed(self) -> TenantSettings:
        """Return the settings that are in the form now, a real tenant's too where the local platform is chosen."""
        values = {name: field.value for name, field in self._fields.items()}
        values = {name: value.strip() if isinstance(value, str) else value for name, value in values.items()}
        if self._login.value:
            values["user"] = ""
        if values["ca_file"]:
            values["ca_file"] = str(Path(values["ca_file"]).expanduser().absolute())
        return TenantSettings(**values, local=self._where.value, profile=self._settings.profile)

    def problems(self) -> dict[str, str]:
        """Ask `TenantSettings.problems` about a real tenant; a secret is wanted too, and a token needs no user."""
        problems = {} if self._where.value else self.typed().problems(by_token=self._login.value)
        if self._ask_secret and not self._where.value and self._credential.value is None:
            kept = "it is never stored, so type it once in each notebook"
            what = "type it again for this host" if self._forgotten else kept
            problems["credential"] = f"{self._credential.label} is missing: {what}."
        return problems

    def refresh(self) -> None:
        """Show the fields that the choices ask for, and what is wrong with them."""
        self._real.layout.display = "none" if self._where.value else None
        self._user.layout.display = "none" if self._login.value else None
        super().refresh()

    def take(self) -> None:
        """Make what is typed the settings, and hand them on."""
        settings = self.typed()
        secret = None if settings.local else self._credential.value
        self._workspace.choose_tenant(settings, secret)  # first: where it raises, nothing has changed
        self._settings, self.secret = settings, secret

    def test(self) -> None:
        """Do what the button "Test" does: try in a thread what is typed, and say in a sentence what works."""
        if refusal := self.refusal("tested"):
            self._result.value = status(refusal)
        elif self._tester is None:
            self._result.value, given = status("Testing …"), (self.typed(), self._credential.value)
            self._test.add_class("mciot-busy")
            self._tester = threading.Thread(target=self._try, args=given, daemon=True)
            self._tester.start()
        else:
            self._result.value = status("Testing … Pressed twice: it is done once.")

    def _try(self, settings: TenantSettings, secret: Secret | None) -> None:
        def test() -> str:
            if settings.local:
                return check_tenant(self._workspace.platform().tenant)
            if self._ask_secret:
                return check_tenant(real_tenant(settings, secret))
            mqtt, verify = (settings.mqtt_host, settings.mqtt_port), settings.ca_file or True
            said = check_tenant(Tenant(settings.url, settings.tenant_id, mqtt=mqtt, verify=verify))
            return f"{said} The login is tested in 06, where its password is asked for."

        said = outcome(test, "tested") or ""
        if self._tester is threading.current_thread():  # else the form says something else by now
            self._tester = None
            self._test.remove_class("mciot-busy")
            self._result.value = status(said)

    def _edited(self, change: object) -> None:
        super()._edited(change)
        tested, self._tester = self._tester, None
        self._test.remove_class("mciot-busy")
        self._result.value = status("You have changed something: press Test again." if tested else "")

    def picture(self) -> Rendered:
        """Return the choice, and a real tenant's values where one was chosen, as a table without any secret."""
        if self._settings.local:
            return paragraph("Tenant: the local platform")
        text = f"Tenant: {self._settings.tenant_id} at {self._settings.url}"
        rows = [(label, str(getattr(self._settings, name)), "") for name, (_, label, _) in _FIELDS.items()]
        return Rendered(text, card(text, rows).html)
