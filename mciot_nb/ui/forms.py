"""Forms for what a learner may choose. Each has its value at once, so that Run All goes straight through.

The rules are not here: `mciot_nb.pki` and `TenantSettings.problems` judge, a form shows their sentences.
"""

from dataclasses import asdict
from typing import Any

import ipywidgets as widgets  # type: ignore[import-untyped]

from mciot_nb.errors import OnboardingError
from mciot_nb.pki.authority import CA_DAYS
from mciot_nb.pki.commands import certificate_command, request_command
from mciot_nb.pki.config import CaConfig, Prompt
from mciot_nb.pki.names import BY_ATTRIBUTE, FIELDS, DistinguishedName, field_problem
from mciot_nb.ui.base import Form, text_field
from mciot_nb.ui.key_form import KeyForm
from mciot_nb.ui.markup import escape, table, visible
from mciot_nb.ui.passphrase import PassphraseForm
from mciot_nb.ui.tenant_form import TenantForm

__all__ = ["KeyForm", "PassphraseForm", "SubjectForm", "TenantForm"]

#: What a blank field means, by whether the configuration has a default for any.
_BLANK = {
    False: "A blank field, or one that holds a single dot, is left out.",
    True: "A blank field takes the configuration's default, which stands in it, pale. A single dot leaves a field out.",
}
_UNSEEN = "⚠ not shown, for the subject holds characters that can't be seen."


class SubjectForm(Form):
    """Ask for the seven fields of a certificate's subject; ``.value`` is ``default`` until somebody submits another.

    A single ``.`` leaves a field out, as openssl has it. A blank one takes the default that ``config`` has for it, or
    else is left out too; ``config`` also says in which words a field is asked for. ``made`` says that ``default`` is
    the subject of what is there already: then a field that it leaves out stays out, whatever ``config`` says.

    Below the fields stands the openssl command that does the same: for a CA's certificate, or for the request of a
    device or of an intermediate CA.
    """

    def __init__(
        self,
        default: DistinguishedName,
        title: str = "Subject",
        for_device: bool = False,
        for_intermediate: bool = False,
        *,
        config: CaConfig | None = None,
        made: bool = False,
    ) -> None:
        super().__init__(title)
        self._for_device, self._for_intermediate, self._days = for_device, for_intermediate, CA_DAYS
        self._config_name = config.path.name if config else "caConfig.cnf"
        self._value: DistinguishedName | None = None
        asked = {prompt.field.attribute: prompt for prompt in config.prompts} if config else {}
        self._prompts = {field.attribute: asked.get(field.attribute, Prompt(field, field.label)) for field in FIELDS}
        self._fields = {name: _field(prompt, getattr(default, name), made) for name, prompt in self._prompts.items()}
        self._preview = widgets.HTML().add_class("mciot-preview")
        hint = widgets.HTML(_BLANK[any(prompt.default for prompt in asked.values())]).add_class("mciot-hint")
        self.build(*(self.row(name, field) for name, field in self._fields.items()), hint, self._preview)
        if not self.problems():
            self.take()

    @property
    def value(self) -> DistinguishedName:
        """The subject as it was submitted last. Raises OnboardingError while there is none."""
        if self._value is None:
            raise OnboardingError(f"The form “{self.title}” is not filled in yet: fill it in and press Submit.", "FORM")
        return self._value

    def typed(self) -> dict[str, str | None]:
        """Give what the fields stand for as they are now, without blanks around them; None for one that is left out."""
        return {name: prompt.value(self._fields[name].value.strip()) or None for name, prompt in self._prompts.items()}

    def problems(self) -> dict[str, str]:
        """Ask `field_problem` and the configuration about each field; the guide's policy wants a common name."""
        typed = self.typed()
        found = {
            name: field_problem(BY_ATTRIBUTE[name], text) or self._prompts[name].problem(text)
            for name, text in typed.items()
            if text
        }
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
        """Write what is wrong beside each field; below them what is right, as a subject and as openssl's command."""
        super().refresh()
        problems = self.problems()
        subject = DistinguishedName(**{name: text for name, text in self.typed().items() if name not in problems})
        command = self.command(subject)
        shown = _command_html(command) if visible(command) == command else f" {_UNSEEN}"
        line = f"Subject: <code>{escape(str(subject) or '(nothing yet)')}</code>"
        self._preview.value = f"<p>{line}</p><p>With openssl:{shown}</p>"

    def command(self, subject: DistinguishedName) -> str:
        """Give the openssl command that would do the same, in the CA's folder or the intermediate's."""
        if self._for_intermediate:
            return request_command(subject, "intermediateConfig.cnf", "intermediate")
        return (
            request_command(subject, self._config_name)
            if self._for_device
            else certificate_command(subject, self._days)
        )

    def set_days(self, days: int) -> None:
        """Let the command make a CA's certificate of so many days; for the ``on_days`` of a `KeyForm`."""
        self._days = days
        self.refresh()

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


def _command_html(command: str) -> str:
    """Show a command; an option is not torn at its hyphen where the line ends."""
    words = map(escape, command.split(" "))
    return f'<code class="mciot-command">{" ".join(f"<span>{w}</span>" if w[:1] == "-" else w for w in words)}</code>'


def _field(prompt: Prompt, value: str | None, made: bool) -> Any:
    """Make the line to type in; what a blank one takes stands in it, pale."""
    if prompt.fixed:
        text, example = prompt.fixed, ""
    else:
        text, example = value or ("." if made and prompt.default else prompt.default), prompt.default
    field = text_field(prompt.words, text, example)
    field.disabled = bool(prompt.fixed)
    return field
