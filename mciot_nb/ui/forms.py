"""Forms for what a learner may choose. Each has its value at once, so that Run All goes straight through.

The rules are not here: `mciot_nb.pki` and `TenantSettings.problems` judge, a form shows their sentences.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

import ipywidgets as widgets  # type: ignore[import-untyped]
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from mciot_nb.errors import OnboardingError
from mciot_nb.pki.config import CA_DAYS, GUIDE_CONFIG, CaConfig, Prompt, read_config
from mciot_nb.pki.keys import KeyChoice, KeyType, certificate_command, request_command
from mciot_nb.pki.names import (
    BY_ATTRIBUTE,
    FIELDS,
    DistinguishedName,
    field_problem,
)
from mciot_nb.pki.signing import build_extensions, normalize_time, not_after, not_after_within
from mciot_nb.ui.certificate_card import extension_rows
from mciot_nb.ui.inputs import SecretField, style
from mciot_nb.ui.markup import Row, StaticPicture, escape, table, visible

_LABEL = {"description_width": "14em"}
_SUBMITTED = "✓ Submitted. Now run the cells below."
_CHANGED = "Changed since: press Submit."


class Form(StaticPicture, widgets.VBox):  # type: ignore[misc]
    """Fields with what is wrong beside each, a Submit button, and a line that says what came of it.

    A form of one's own makes its rows with `row`, gives its parts to `build`, and overrides `problems` and `take`.
    """

    def __init__(self, title: str) -> None:
        super().__init__()
        self.title = title
        self._notes: dict[str, Any] = {}
        self._style = widgets.HTML(style())
        self._heading = widgets.HTML(f'<span class="mciot-title">{escape(title)}</span>')
        self._button = widgets.Button(description="Submit", button_style="primary").add_class("mciot-submit")
        self._button.on_click(lambda _: self.submit())
        self._message = widgets.HTML().add_class("mciot-message")
        self.add_class("mciot-form")

    def row(self, name: str, field: Any) -> Any:
        """Put a place for its problem beside ``field``; both get CSS classes made of ``name``."""
        css_class = f"mciot-{name.replace('_', '-')}"
        self._notes[name] = widgets.HTML().add_class("mciot-note").add_class(f"{css_class}-note")
        field.add_class(css_class)
        if not isinstance(field, SecretField):
            field.observe(self._edited, "value")
        return widgets.HBox([field, self._notes[name]]).add_class("mciot-row")

    def build(self, *parts: Any, buttons: tuple[Any, ...] = ()) -> None:
        """Show the heading, the parts, the buttons and the message, and what is wrong from the start."""
        bottom = widgets.HBox([self._button, *buttons, self._message]).add_class("mciot-row")
        self.children = [self._style, self._heading, *parts, bottom]
        self.refresh()

    def problems(self) -> Mapping[str, str]:
        """Say for each field by name what is wrong with it; empty where the form can be submitted."""
        raise NotImplementedError

    def warnings(self) -> Mapping[str, str]:
        """Say for each field by name what is allowed but hardly meant."""
        return {}

    def take(self) -> None:
        """Make the fields' values the form's value."""
        raise NotImplementedError

    def refresh(self) -> None:
        """Write what is wrong beside each field."""
        problems, warnings = self.problems(), self.warnings()
        for name, note in self._notes.items():
            note.value = _note("problem", "✗", problems.get(name)) or _note("warning", "⚠", warnings.get(name))

    def submit(self) -> None:
        """Do what the button does: take the values, or say what to mend first."""
        self.refresh()
        problems = self.problems()
        if problems:
            self._say(f"✗ Not submitted: {fields_to_mend(problems)}")
            return
        try:
            self.take()
        except OnboardingError as error:
            self._say(f"✗ {error}")
        except OSError as error:  # a form may keep its value in a file
            self._say(f"✗ Not submitted: {error.strerror or error}. Mend that, and press Submit again.")
        else:
            self._say(_SUBMITTED)

    def _edited(self, _change: object) -> None:
        self.refresh()
        self._say(_CHANGED)

    def _say(self, sentence: str) -> None:
        self._message.value = f'<span role="status">{escape(sentence)}</span>'


def fields_to_mend(problems: Mapping[str, str]) -> str:
    """Say how many fields have a problem beside them."""
    return f"{'1 field' if len(problems) == 1 else f'{len(problems)} fields'} to mend first, see above."


def number_field(label: str, value: int) -> Any:
    """Make a field for a whole number, which says at each key what stands in it."""
    return widgets.IntText(
        description=label, value=value, continuous_update=True, style=_LABEL, layout=_as_wide_as("22em")
    )


def list_field(label: str, options: Sequence[tuple[str, object]], value: object) -> Any:
    """Return a list of words, each standing for a value, of which one is chosen."""
    return widgets.Dropdown(description=label, options=options, value=value, style=_LABEL, layout=_as_wide_as("36em"))


def _note(kind: str, sign: str, sentence: str | None) -> str:
    return f'<span role="status" class="mciot-{kind}">{sign} {escape(sentence)}</span>' if sentence else ""


def text_field(label: str, value: str, example: str = "") -> Any:
    """Make a line to type in; ``example`` stands in it, pale, while it is empty."""
    return widgets.Text(description=label, value=value, placeholder=example, style=_LABEL, layout=_as_wide_as("36em"))


def choice(label: str, options: list[tuple[str, bool]], value: bool) -> Any:
    """Make a choice between a few words, each standing for a value."""
    return widgets.RadioButtons(
        description=label, options=options, value=value, style=_LABEL, layout=_as_wide_as("36em")
    )


def _as_wide_as(width: str) -> Any:
    return widgets.Layout(flex=f"1 1 {width}", max_width=width, min_width="0")  # narrower where the window is


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


#: The kinds of key that are offered, and what each means.
_KINDS: dict[KeyType | None, str] = {
    KeyType.RSA_2048: "The shortest that is still safe, quick to make; taken everywhere.",
    KeyType.RSA_3072: "As strong as P-256: what is advised for RSA keys that serve beyond 2030.",
    KeyType.RSA_4096: "The guide's: stronger than needed today, and a second or more to make.",
    KeyType.P256: "An elliptic curve: as strong as RSA 3072, small and quick; made for small devices.",
}
_OTHER_KIND, _OTHER_MEANING = "another kind", "The kind of key that is there; it is not offered anew."
_TITLE = "Extensions that the certificate will get"


class KeyForm(Form):
    """Ask for the kind of a key and for the days of its certificate; ``.value`` is a `KeyChoice`, ``default`` at first.

    ``issuer`` is the certificate of who will sign, None for a CA that signs its own; ``config`` (the guide's, unless
    you give one) and its ``section`` say which extensions the certificate gets. ``made`` says that ``default`` is what
    is there already: as long as it stands in the form nothing is judged, for the same subject finds what is there.
    ``on_days`` is told the days that stand in the form, from the start, whenever they are good.
    """

    def __init__(
        self,
        default: KeyChoice,
        title: str = "Key and validity",
        *,
        issuer: x509.Certificate | None = None,
        config: CaConfig | None = None,
        section: str = "v3_ca",
        made: bool = False,
        on_days: Callable[[int], None] | None = None,
    ) -> None:
        super().__init__(title)
        self._value, self._issuer, self._made, self._on_days = default, issuer, default if made else None, on_days
        self._extensions = list(_extension_rows(config or read_config(GUIDE_CONFIG), section, issuer))
        options = [(kind or _OTHER_KIND, kind) for kind in dict.fromkeys([*_KINDS, default.key_type])]
        self._key_type = list_field("Key", options, default.key_type)
        self._days = number_field("Days of validity", default.days)
        self._meaning, self._end = (widgets.HTML().add_class("mciot-hint") for _ in range(2))
        folded = f"<details><summary>{_TITLE}</summary>{table(_TITLE, self._extensions)}</details>"
        extensions = widgets.HTML(folded).add_class("mciot-folded")
        self.build(
            self.row("key_type", self._key_type), self._meaning, self.row("days", self._days), self._end, extensions
        )

    @property
    def value(self) -> KeyChoice:
        """What was submitted last."""
        return self._value

    def typed(self) -> KeyChoice:
        """Give what stands in the form now."""
        return KeyChoice(self._key_type.value, self._days.value)

    def problems(self) -> dict[str, str]:
        """Ask `mciot_nb.pki` whether such a key can be made, and a certificate of so many days be signed now."""
        typed = self.typed()
        if typed == self._made:
            return {}
        if typed.key_type is None:
            return {"key_type": "Such a key is not made here: choose one of the others."}
        try:
            self._end_of(typed)
        except OnboardingError as error:
            return {"days": str(error)}
        return {}

    def refresh(self) -> None:
        """Write what is wrong with the days, or else when they end; and what the kind of key means."""
        super().refresh()
        self._meaning.value = escape(_KINDS.get(self.typed().key_type, _OTHER_MEANING))
        good = not self.problems()
        self._end.value = escape(self._ends(self.typed()) if good else "")
        if good and self._on_days:
            self._on_days(self.typed().days)

    def take(self) -> None:
        """Make what stands in the form the value."""
        self._value = self.typed()

    def static_text(self) -> str:
        """Give the submitted choice in one line."""
        return f"{self.title}: {self._value.key_type or _OTHER_KIND}, {self._value.days} days"

    def static_html(self) -> str:
        """Give the submitted choice, and the extensions, as a table."""
        kind, meaning = self._value.key_type or _OTHER_KIND, _KINDS.get(self._value.key_type, _OTHER_MEANING)
        rows = [("Key", kind, meaning), ("Validity", f"{self._value.days} days", self._ends(self._value))]
        return table(self.static_text(), rows + self._extensions)

    def _end_of(self, choice: KeyChoice) -> datetime:
        now = normalize_time(None)
        return not_after_within(self._issuer, now, choice.days) if self._issuer else not_after(now, choice.days)

    def _ends(self, choice: KeyChoice) -> str:
        """Say when a certificate ends that is signed now; nothing where none can be."""
        try:
            return f"Signed now, it expires on {self._end_of(choice):%Y-%m-%d %H:%M} UTC, in {_span(choice.days)}."
        except OnboardingError:
            return ""


def _span(days: int) -> str:
    """Say how long so many days are, in years where they are full ones as the guide counts them, or many."""
    years = round(days / 365.25) if days % 365 else days // 365
    if years < 2 and days != 365:
        return f"{days} days" if days != 1 else "1 day"
    return ("about " if days % 365 else "") + (f"{years} years" if years != 1 else "1 year")


def _extension_rows(config: CaConfig, section: str, issuer: x509.Certificate | None) -> Iterator[Row]:
    """Show the extensions that a section makes; what is made from a key has no value before there is one."""
    key = ec.generate_private_key(ec.SECP256R1()).public_key()  # stands for the one that will be made
    try:
        extensions = build_extensions(config, section, key, issuer)
    except OnboardingError as error:
        yield "Extensions", f"✗ {error}", ""
        return
    ca = any(isinstance(extension.value, x509.BasicConstraints) and extension.value.ca for extension in extensions)
    for extension in extensions:
        for name, content, meaning in extension_rows([extension], ca):
            own = isinstance(extension.value, x509.SubjectKeyIdentifier)
            of_issuer = isinstance(extension.value, x509.AuthorityKeyIdentifier)
            yield name, "made from the key" if own or (of_issuer and not issuer) else content, meaning
