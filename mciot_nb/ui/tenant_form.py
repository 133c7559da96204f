"""The form for the tenant: which one, and what of it works."""

import threading
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets  # type: ignore[import-untyped]

from mciot_nb.connect.tenant import Tenant, TenantSettings, check_tenant, real_tenant
from mciot_nb.errors import OnboardingError
from mciot_nb.secret import Secret
from mciot_nb.ui.forms import Form, fields_to_mend, labelled
from mciot_nb.ui.inputs import SecretField
from mciot_nb.ui.markup import card, escape

if TYPE_CHECKING:
    from mciot_nb.workspace import Workspace


class TenantForm(Form):
    """Ask which tenant the notebooks talk to; what is submitted goes to `Workspace.choose_tenant`.

    ``.settings`` and ``.secret`` are what was submitted last. The secret is the user's password, a bearer token where
    the settings have no user, or None for the local platform; it is in this kernel's memory only. With
    ``ask_secret=False`` no secret is asked for: for a notebook that only keeps the choice.

    The button "Test" says what works of the tenant as it stands in the form, submitted or not.

    Example: ``TenantForm(workspace)`` as a cell's last line, and in the next cell ``workspace.tenant()``.
    """

    def __init__(self, workspace: "Workspace", *, ask_secret: bool = True) -> None:
        super().__init__("Tenant")
        self._workspace, self._settings, self._ask_secret = workspace, workspace.tenant_settings, ask_secret
        settings = self._settings
        self._tester: threading.Thread | None = None
        self._forgotten: set[SecretField] = set()
        by_token = not settings.local and not settings.user
        self.secret: Secret | None = None
        self._fields = _tenant_fields(settings)
        self._where = _choice("Use", {"the local platform": True, "a real tenant": False}, settings.local)
        self._login = _choice("Log in with", {"user and password": False, "bearer token": True}, by_token)
        self._password, self._token = (SecretField(label, when_left=True) for label in ("Password", "Bearer token"))
        for field in (self._password, self._token):
            field.on_secret(lambda _: self._edited(None))
        for name in ("url", "tenant_id", "user"):  # first of all, so that no note speaks of what is forgotten
            self._fields[name].observe(self._forget, "value")
        self._build()

    def _build(self) -> None:
        rows = {name: self.row(name, field) for name, field in self._fields.items()}
        self._only_for = {False: [rows.pop("user")], True: []}
        if self._ask_secret:
            self._only_for[False].append(self.row("password", self._password))
            self._only_for[True].append(self.row("token", self._token))
            last = []
        else:
            last = [widgets.HTML("The password or token is asked for in 06 and 07.").add_class("mciot-later")]
        by_login = [row for rows_of_one in self._only_for.values() for row in rows_of_one]
        self._real = widgets.VBox([*rows.values(), self.row("login", self._login), *by_login, *last])
        self._test = widgets.Button(description="Test", tooltip="Say what works of this tenant").add_class("mciot-test")
        self._test.on_click(lambda _: self.test())
        self._result = widgets.HTML().add_class("mciot-result")
        self.build(self.row("where", self._where), self._real, buttons=(self._test,))
        self.children = [*self.children, self._result]

    def _forget(self, _change: object) -> None:
        """Forget what was typed for one host: it must not be handed over to another."""
        for field in (self._password, self._token):
            if field.value:
                field.value, field.status = None, ""
                self._forgotten.add(field)

    @property
    def settings(self) -> TenantSettings:
        """The settings as they were submitted last. Raises: OnboardingError: if a real tenant's are incomplete."""
        for problem in _problems(self._settings, by_token=not self._settings.user).values():
            raise OnboardingError(f"{problem} Fill in the form “{self.title}” and press Submit.", "FORM")
        return self._settings

    def typed(self) -> TenantSettings:
        """Return the settings as they stand in the form now, a real tenant's too where the local platform is chosen."""
        url, tenant_id, user, host = (
            self._fields[name].value.strip() for name in ("url", "tenant_id", "user", "mqtt_host")
        )
        user = "" if self._login.value else user
        port, local = self._fields["mqtt_port"].value, self._where.value
        return TenantSettings(url, tenant_id, user, host, port, local, self._settings.profile)

    def problems(self) -> dict[str, str]:
        """Ask `TenantSettings.problems` about a real tenant; a secret is wanted too, and a token needs no user."""
        problems = _problems(self.typed(), by_token=self._login.value)
        name, label = ("token", "Bearer token") if self._login.value else ("password", "Password")
        if self._ask_secret and not self._where.value and self._secret_field().value is None:
            again = self._secret_field() in self._forgotten
            what = "type it again for this host" if again else "it is kept in no file, so type it once in each kernel"
            problems[name] = f"{label} is missing: {what}."
        return problems

    def refresh(self) -> None:
        """Show the fields that the choices ask for, and what is wrong with them."""
        self._real.layout.display = "none" if self._where.value else None
        for token, rows in self._only_for.items():
            for row in rows:
                row.layout.display = None if token == self._login.value else "none"
        super().refresh()

    def take(self) -> None:
        """Make what is typed the settings, and hand them on."""
        settings = self.typed()
        secret = None if settings.local else self._secret_field().value
        self._workspace.choose_tenant(settings, secret)  # first: where it raises, nothing has changed
        self._settings, self.secret = settings, secret

    def test(self) -> None:
        """Do what the button "Test" does: try in a thread what is typed, and say in a sentence what works."""
        self.refresh()
        if problems := self.problems():
            self._say_result(f"✗ Not tested: {fields_to_mend(problems)}")
        elif self._tester is None:
            self._say_result("Testing …")
            work = threading.Thread(target=self._try, args=(self.typed(), self._secret_field().value), daemon=True)
            self._tester = work
            work.start()

    def _try(self, settings: TenantSettings, secret: Secret | None) -> None:
        try:
            sentence = check_tenant(self._typed_tenant(settings, secret))
            if not settings.local and not self._ask_secret:
                sentence += " The login is tested in 06, where its password is asked for."
        except OnboardingError as error:
            sentence = f"✗ {error}"
        except Exception:
            sentence = "✗ Not tested, for a reason that has no name here: run the cell again."
        if self._tester is threading.current_thread():  # else the form says something else by now
            self._tester = None
            self._say_result(sentence)

    def _typed_tenant(self, settings: TenantSettings, secret: Secret | None) -> Tenant:
        if settings.local:
            return self._workspace.platform().tenant
        if self._ask_secret:
            return real_tenant(settings, secret)
        mqtt = settings.mqtt_host, settings.mqtt_port
        return Tenant(settings.url, settings.tenant_id, settings.user, mqtt=mqtt)

    def _edited(self, change: object) -> None:
        super()._edited(change)
        tested, self._tester = self._tester, None
        self._say_result("Changed since: press Test again." if tested else "")

    def _say_result(self, sentence: str) -> None:
        self._result.value = f'<span role="status">{escape(sentence)}</span>'

    def _secret_field(self) -> SecretField:
        return self._token if self._login.value else self._password

    def static_text(self) -> str:
        """Return the choice in one line."""
        if self._settings.local:
            return "Tenant: the local platform"
        return f"Tenant: {self._settings.tenant_id} at {self._settings.url}"

    def static_html(self) -> str:
        """Return the choice, and a real tenant's values where one was chosen, as a table without any secret."""
        if self._settings.local:
            return super().static_html()
        values = asdict(self._settings)
        rows = [(field.description, str(values[name]), "") for name, field in self._fields.items()]
        return card(self.static_text(), rows).html


def _problems(settings: TenantSettings, by_token: bool) -> dict[str, str]:
    problems = {} if settings.local else settings.problems()
    return {name: problem for name, problem in problems.items() if not (by_token and name == "user")}


def _choice(label: str, options: dict[str, bool], value: bool) -> Any:
    return labelled(widgets.RadioButtons, label, value, options=list(options.items()))


def _tenant_fields(settings: TenantSettings) -> dict[str, Any]:
    return {
        "url": labelled(widgets.Text, "URL", settings.url, placeholder="https://mytenant.example.com"),
        "tenant_id": labelled(widgets.Text, "Tenant ID", settings.tenant_id, placeholder="t12345"),
        "mqtt_host": labelled(widgets.Text, "MQTT host", settings.mqtt_host, placeholder="mytenant.example.com"),
        "mqtt_port": labelled(widgets.IntText, "MQTT port", settings.mqtt_port, "22em", continuous_update=True),
        "user": labelled(widgets.Text, "User", settings.user),
    }
