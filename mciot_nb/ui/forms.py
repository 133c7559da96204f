"""Forms for what a learner may choose. Each has its value at once, so that Run All goes straight through.

The rules are not here: `mciot_nb.pki.names` and `TenantSettings.problems` judge, a form shows their sentences.
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import ipywidgets as widgets  # type: ignore[import-untyped]

from mciot_nb.connect.settings import TenantSettings
from mciot_nb.errors import OnboardingError
from mciot_nb.pki.names import BY_ATTRIBUTE, FIELDS, DistinguishedName, field_problem
from mciot_nb.secret import Secret
from mciot_nb.ui.base import Form, choice, number_field, text_field
from mciot_nb.ui.markup import escape, table
from mciot_nb.ui.passphrase import PassphraseForm
from mciot_nb.ui.secret import SecretField

__all__ = ["PassphraseForm", "SubjectForm", "TenantForm"]


class SubjectForm(Form):
    """Ask for the seven fields of a certificate's subject; ``.value`` is ``default`` until somebody submits another.

    A field that is blank, or holds a single ``.`` as openssl has it, is left out of the subject.
    """

    def __init__(self, default: DistinguishedName, title: str = "Subject", for_device: bool = False) -> None:
        super().__init__(title)
        self._for_device = for_device
        self._value: DistinguishedName | None = None
        self._fields = {f.attribute: text_field(f.label, getattr(default, f.attribute) or "") for f in FIELDS}
        self._preview = widgets.HTML().add_class("mciot-preview")
        self.build(*(self.row(name, field) for name, field in self._fields.items()), self._preview)
        if not self.problems():
            self.take()

    @property
    def value(self) -> DistinguishedName:
        """The subject as it was submitted last. Raises OnboardingError while there is none."""
        if self._value is None:
            raise OnboardingError(f"The form “{self.title}” is not filled in yet: fill it in and press Submit.", "FORM")
        return self._value

    def typed(self) -> dict[str, str | None]:
        """Give the fields as they stand now, without blanks around them; None for one that is left out."""
        stripped = {name: field.value.strip() for name, field in self._fields.items()}
        return {name: None if text in ("", ".") else text for name, text in stripped.items()}

    def problems(self) -> dict[str, str]:
        """Ask `field_problem` about each field; the guide's policy wants a common name."""
        typed = self.typed()
        found = {name: field_problem(BY_ATTRIBUTE[name], text) for name, text in typed.items() if text}
        if typed["common_name"] is None:
            purpose = "the device's ClientId" if self._for_device else "the name by which people will know this CA"
            found["common_name"] = f"Common Name is missing: type {purpose}."
        return {name: problem for name, problem in found.items() if problem}

    def warnings(self) -> dict[str, str]:
        """Warn of a ``:`` in a device's common name: X.509 allows it, and the platform can't use it."""
        if self._for_device and ":" in (self.typed()["common_name"] or ""):
            return {
                "common_name": "The platform splits the ClientId at ':', so this device would be refused: "
                "take a name without ':'."
            }
        return {}

    def refresh(self) -> None:
        """Write what is wrong beside each field, and the subject of those that are right below them."""
        super().refresh()
        right = {name: text for name, text in self.typed().items() if name not in self.problems()}
        subject = str(DistinguishedName(**right)) or "(nothing yet)"
        self._preview.value = f"Subject: <code>{escape(subject)}</code>"

    def take(self) -> None:
        """Make what is typed the subject."""
        self._value = DistinguishedName(**self.typed())

    def static_text(self) -> str:
        """Give the submitted subject in one line."""
        return f"{self.title}: {self._value or '(not filled in yet)'}"

    def static_html(self) -> str:
        """Give the submitted subject as a table."""
        shown = asdict(self._value) if self._value else self.typed()
        return table(self.static_text(), [(f.label, shown[f.attribute] or "-", "") for f in FIELDS])


class TenantForm(Form):
    """Ask which tenant the notebooks talk to; ``.settings`` and ``.secret`` are what was given until somebody submits.

    ``on_submit(settings, secret)`` is called then, to keep the settings in a file. The secret is the user's password, a
    bearer token where the settings have no user, or None for the local platform; it is in this kernel's memory only.
    With ``ask_secret=False`` no secret is asked for: for a notebook that only keeps the choice.
    """

    def __init__(
        self,
        settings: TenantSettings,
        on_submit: Callable[[TenantSettings, Secret | None], None] | None = None,
        *,
        secret: Secret | None = None,
        ask_secret: bool = True,
    ) -> None:
        super().__init__("Tenant")
        self._settings, self._on_submit, self._ask_secret = settings, on_submit, ask_secret
        self._forgotten: set[SecretField] = set()
        by_token = not settings.local and not settings.user
        self.secret = None if settings.local else secret
        self._fields = _tenant_fields(settings)
        self._where = choice("Use", [("the local platform", True), ("a real tenant", False)], settings.local)
        self._login = choice("Log in with", [("user and password", False), ("bearer token", True)], by_token)
        self._password, self._token = (SecretField(label, when_left=True) for label in ("Password", "Bearer token"))
        self._secret_field().value = secret
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
        self.build(self.row("where", self._where), self._real)

    def _forget(self, _change: object) -> None:
        """Forget what was typed for one host: it must not be handed over to another."""
        for field in (self._password, self._token):
            if field.value:
                field.value, field.status = None, ""
                self._forgotten.add(field)

    @property
    def settings(self) -> TenantSettings:
        """The settings as they were submitted last. Raises OnboardingError where a real tenant's are not complete."""
        for problem in _problems(self._settings, by_token=not self._settings.user).values():
            raise OnboardingError(f"{problem} Fill in the form “{self.title}” and press Submit.", "FORM")
        return self._settings

    def typed(self) -> TenantSettings:
        """Give the settings as they stand in the form now, a real tenant's too where the local platform is chosen."""
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
        if self._on_submit:
            self._on_submit(settings, secret)  # first: where it raises, nothing has changed
        self._settings, self.secret = settings, secret

    def _secret_field(self) -> SecretField:
        return self._token if self._login.value else self._password

    def static_text(self) -> str:
        """Give the choice in one line."""
        if self._settings.local:
            return "Tenant: the local platform"
        return f"Tenant: {self._settings.tenant_id} at {self._settings.url}"

    def static_html(self) -> str:
        """Give the choice, and a real tenant's values where one was chosen, as a table without any secret."""
        if self._settings.local:
            return super().static_html()
        values = asdict(self._settings)
        return table(self.static_text(), [(f.description, str(values[name]), "") for name, f in self._fields.items()])


def _problems(settings: TenantSettings, by_token: bool) -> dict[str, str]:
    problems = {} if settings.local else settings.problems()
    return {name: problem for name, problem in problems.items() if not (by_token and name == "user")}


def _tenant_fields(settings: TenantSettings) -> dict[str, Any]:
    return {
        "url": text_field("URL", settings.url, "https://mytenant.example.com"),
        "tenant_id": text_field("Tenant ID", settings.tenant_id, "t12345"),
        "mqtt_host": text_field("MQTT host", settings.mqtt_host, "mytenant.example.com"),
        "mqtt_port": number_field("MQTT port", settings.mqtt_port),
        "user": text_field("User", settings.user),
    }
