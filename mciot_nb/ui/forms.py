"""Forms for what a learner may choose. Each has its value at once, so that Run All goes straight through.

The rules are not here: `mciot_nb.pki` and `Workspace` judge, a form shows their sentences.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import ipywidgets as widgets  # type: ignore[import-untyped]
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from mciot_nb.errors import OnboardingError
from mciot_nb.pki.config import GUIDE_CONFIG, CaConfig, Prompt, read_config
from mciot_nb.pki.files import meanings
from mciot_nb.pki.keys import KeyChoice, KeyType, certificate_command, request_command
from mciot_nb.pki.keystore import SHORTEST_PASSWORD
from mciot_nb.pki.names import BY_ATTRIBUTE, FIELDS, DistinguishedName, field_problem, mailbox_problem
from mciot_nb.pki.signing import build_extensions, normalize_time, not_after, validity
from mciot_nb.secret import Secret
from mciot_nb.ui.certificate_card import extension_rows
from mciot_nb.ui.inputs import Poller, SecretField, button, outcome, row, status, style
from mciot_nb.ui.markup import Rendered, Row, StaticPicture, card, counted, escape, folded, listed, paragraph, visible
from mciot_nb.workspace import Workspace


class Form(StaticPicture, widgets.VBox):  # type: ignore[misc]
    """Fields with what is wrong beside each, a Submit button, and a line that says what came of it.

    A subclass makes its rows with `row`, gives its parts to `build`, and overrides `problems` and `take`.
    """

    def __init__(self, title: str) -> None:
        super().__init__()
        self.title = title
        self._asked: dict[str, Any] = {}
        self._notes: dict[str, Any] = {}
        self._touched: set[str] = set()
        self._heading = widgets.HTML(f'<span class="mciot-title">{escape(title)}</span>')
        self._button = button("Submit", self.submit, "primary").add_class("mciot-submit")
        self._message = widgets.HTML().add_class("mciot-message")
        self.add_class("mciot-form")

    def row(self, name: str, field: Any) -> Any:
        """Put a place for its problem beside ``field``; both get CSS classes made of ``name``."""
        css_class = f"mciot-{name.replace('_', '-')}"
        self._notes[name] = widgets.HTML().add_class("mciot-note").add_class(f"{css_class}-note")
        self._asked[name] = field.add_class(css_class)
        if not isinstance(field, SecretField):
            field.observe(lambda _: self._touched.add(name), "value")
            field.observe(self._edited, "value")
        return row(field, self._notes[name])

    def build(self, *parts: Any, buttons: tuple[Any, ...] = ()) -> None:
        """Show the heading, the parts, the buttons and the message, and what is wrong from the start."""
        bottom = row(self._button, *buttons, self._message, Poller())
        self.children = [widgets.HTML(style()), self._heading, *parts, bottom]
        self.refresh()

    def problems(self) -> Mapping[str, str]:
        """Return what is wrong with each field, by name; empty if the form can be submitted."""
        return {}

    def take(self) -> None:
        """Make the fields' values the form's value."""

    def refresh(self) -> None:
        """Write what is wrong beside each field, but not beside one that was left blank so far."""
        problems = self.problems()
        for name, note in self._notes.items():
            blank = isinstance(field := self._asked[name], SecretField) or field.value == ""
            said = name in problems and (name in self._touched or not blank)
            note.value = status(f"✗ {problems[name]}", "problem") if said else ""

    def refusal(self, what: str) -> str:
        """Say that the form is not submitted, or tested, and name what is missing; empty where nothing is wrong."""
        self.refresh()
        problems = self.problems()
        labels = {name: getattr(field, "description", "") or field.label for name, field in self._asked.items()}
        missing = [name for name in labels if name in problems and not self._notes[name].value]
        several, beside = listed([labels[name] for name in missing]), len(problems) - len(missing)
        said = f"{several} are missing: fill them in." if missing[1:] else "".join(problems[name] for name in missing)
        mend = f"{counted(beside, 'field', 'fields')} to correct first, see above. " if beside else ""
        return f"✗ Not {what}: {mend}{said}".rstrip() if problems else ""

    def submit(self) -> None:
        """Do what the button does: take the values, or say what to correct first."""
        said = self.refusal("submitted") or outcome(self.take, "submitted")
        self._message.value = status(said or "✓ Submitted. Now run the cells below.")

    def _edited(self, _change: object) -> None:
        self.refresh()
        self._message.value = status("You have changed something: press Submit.")


def labelled(kind: Any, label: str, value: object, width: str = "36em", **options: Any) -> Any:
    """Return a field of an ipywidgets ``kind`` with its label, narrower than ``width`` where the window is."""
    layout = widgets.Layout(flex=f"1 1 {width}", max_width=width, min_width="0")
    return kind(description=label, value=value, style={"description_width": "14em"}, layout=layout, **options)


#: What is said of a subject's fields: of a blank one, of the common name, and of a colon in it, which X.509 allows.
_SUBJECT = meanings("subject form", "words.csv")

#: The kinds of key that are offered, and what each means.
_KINDS = {KeyType(word) if word else None: text for word, text in meanings("kind of key", "words.csv").items()}
_OTHER_KIND = "another kind"


class CertificateForm(Form):
    """Ask for a certificate's subject, the kind of its key, and its days; ``.subject`` and ``.key`` are the values.

    A single ``.`` leaves a field of the subject out, as openssl has it. A blank one takes the default that ``config``
    (the guide's unless given) has for it, or else is left out too. ``owner`` is ``ca``, ``intermediate`` or ``device``.
    ``issuer`` is the certificate of the CA that will sign, None for one that signs its own. With ``made``, ``subject``
    and ``key`` are those of what is there: a field that is left out stays out, and the key is not judged.
    """

    def __init__(
        self,
        title: str,
        subject: DistinguishedName,
        key: KeyChoice,
        *,
        owner: str = "ca",
        config: CaConfig | None = None,
        issuer: x509.Certificate | None = None,
        made: bool = False,
    ) -> None:
        super().__init__(title)
        self._owner, self._issuer, self._made = owner, issuer, (subject.email, key) if made else (None, None)
        self._config = config or read_config(GUIDE_CONFIG)
        self._subject: DistinguishedName | None = None
        self.key, section = key, "v3_signed" if owner == "device" else "v3_ca"
        asked = {prompt.field.attribute: prompt for prompt in config.prompts} if config else {}
        self._prompts = {field.attribute: asked.get(field.attribute, Prompt(field, field.label)) for field in FIELDS}
        self._fields = {name: _field(prompt, getattr(subject, name), made) for name, prompt in self._prompts.items()}
        options = [(kind or _OTHER_KIND, kind) for kind in _KINDS if kind or key.key_type is None]
        self._key_type = labelled(widgets.Dropdown, "Key", key.key_type, options=options)
        self._days = labelled(widgets.IntText, "Days of validity", key.days, "22em", continuous_update=True)
        self._extensions = list(_extension_rows(self._config, section, issuer))
        self._meaning, self._end = (widgets.HTML().add_class("mciot-hint") for _ in range(2))
        self._preview = widgets.HTML().add_class("mciot-preview")
        more = folded("Extensions that the certificate will get", self._extensions)
        blank = _SUBJECT["default" if any(prompt.default for prompt in asked.values()) else "no default"]
        rows = [self.row(name, field) for name, field in self._fields.items()]
        rows += [widgets.HTML(blank).add_class("mciot-hint"), self.row("key_type", self._key_type), self._meaning]
        rows += [self.row("days", self._days), self._end, self._preview, widgets.HTML(more).add_class("mciot-folded")]
        self.build(*rows)
        if not self.problems():
            self.take()

    @property
    def subject(self) -> DistinguishedName:
        """The subject as it was submitted last. Raises: OnboardingError: while there is none."""
        if self._subject is None:
            raise OnboardingError(f"The form “{self.title}” is not filled in yet: fill it in and press Submit.", "FORM")
        return self._subject

    def typed(self) -> dict[str, str | None]:
        """Return what the subject's fields mean now, without blanks around them; None for one that is left out."""
        return {name: prompt.value(self._fields[name].value.strip()) or None for name, prompt in self._prompts.items()}

    def typed_key(self) -> KeyChoice:
        """Return the kind of key and the days that are in the form now."""
        return KeyChoice(self._key_type.value, self._days.value)

    def problems(self) -> dict[str, str]:
        """Ask `mciot_nb.pki` about each field; the guide's policy wants a common name."""
        typed, key, found = self.typed(), self.typed_key(), {}
        for name, text in typed.items():
            if text and (problem := field_problem(BY_ATTRIBUTE[name], text) or self._prompts[name].problem(text)):
                found[name] = problem
        if (email := typed["email"]) and email != self._made[0] and (problem := mailbox_problem(email)):
            found.setdefault("email", problem)
        if typed["common_name"] is None:
            what = _SUBJECT["ClientId" if self._owner == "device" else "CA"]
            found["common_name"] = f"Common Name is missing: type {what}."
        if key != self._made[1]:
            if key.key_type is None:
                found["key_type"] = "Keys of this kind are not made here: choose another one."
            if problem := self._judge(key)[1]:
                found["days"] = problem
        return found

    def refresh(self) -> None:
        """Write what is wrong beside each field; below them what is right, as a subject and as openssl's command."""
        super().refresh()
        problems, key, typed = self.problems(), self.typed_key(), self.typed()
        if self._owner == "device" and "common_name" not in problems and ":" in (typed["common_name"] or ""):
            self._notes["common_name"].value = status(_SUBJECT["colon"], "warning")
        self._meaning.value, self._end.value = escape(_KINDS[key.key_type]), escape(self._judge(key)[0])
        subject = DistinguishedName(**{name: text for name, text in typed.items() if name not in problems})
        if self._owner == "ca":
            command = certificate_command(subject, (self.key if "days" in problems else key).days)
        else:
            name = self._config.path.name if self._owner == "device" else "intermediateConfig.cnf"
            command = request_command(subject, name, self._owner)
        words = (f"<span>{w}</span>" if w[:1] == "-" else w for w in map(escape, command.split(" ")))
        shown = f'<code class="mciot-command">{" ".join(words)}</code>'  # an option is not torn at its hyphen
        if visible(command) != command:
            shown = " ⚠ not shown, because the subject holds characters that can't be seen."
        line = f"<p>Subject: <code>{escape(str(subject) or '(nothing yet)')}</code></p>"
        self._preview.value = f"{line}<p>With openssl:{shown}</p>"

    def take(self) -> None:
        """Make what is typed the values."""
        self._subject, self.key = DistinguishedName(**self.typed()), self.typed_key()

    def picture(self) -> Rendered:
        """Return the submitted values in one line, and as a table with the extensions."""
        key = f"{self.key.key_type or _OTHER_KIND}, {self.key.days} days"
        text = f"{self.title}: {self._subject or '(not filled in yet)'}; {key}"
        shown = asdict(self._subject) if self._subject else self.typed()
        rows = [
            *((field.label, shown[field.attribute] or "-", "") for field in FIELDS),
            ("Key", self.key.key_type or _OTHER_KIND, _KINDS[self.key.key_type]),
            ("Validity", f"{self.key.days} days", self._judge(self.key)[0]),
        ]
        return Rendered(text, card(self.title, [*rows, *self._extensions]).html)

    def _judge(self, key: KeyChoice) -> tuple[str, str]:
        """Return when a certificate ends that is signed now, or else why none can be, each as a sentence."""
        now = normalize_time(None)
        try:
            issuer, days = self._issuer, key.days
            end = validity(self._config, issuer, days, now)[1] if issuer else not_after(now, days)
        except OnboardingError as error:
            return "", str(error)
        total = (end - now).days  # in years where they are full ones as the guide counts them, or many
        years = round(total / 365.25) if total % 365 else total // 365
        about = "about " if total % 365 else ""
        span = about + counted(years, "year", "years") if years > 1 or total == 365 else counted(total, "day", "days")
        return f"Signed now, it expires on {end:%Y-%m-%d %H:%M} UTC, in {span}.", ""


class _WorkspaceForm(CertificateForm):
    """A form with what a workspace has, or suggests, for an ``owner``."""

    owner = "ca"

    def __init__(self, workspace: Workspace) -> None:
        owner, there = self.owner, workspace.issuer_certificates
        issuer = workspace.issuer if owner == "device" else "ca"
        title = f"The {owner.replace('ca', 'CA')}'s certificate"
        asked, config = (workspace.subject(owner), workspace.key_choice(owner)), workspace.config(issuer)
        made = workspace.device_file("deviceCert.pem").exists() if owner == "device" else owner in there
        signer = None if owner == "ca" else there.get(issuer)
        super().__init__(title, *asked, owner=owner, config=config, issuer=signer, made=made)


class CaForm(_WorkspaceForm):
    """Ask for the CA's subject, key and days.

    Example: ``form = CaForm(workspace)``, and in the next cell ``workspace.create_ca(form.subject, form.key)``.
    """


class IntermediateForm(_WorkspaceForm):
    """Ask for the intermediate CA's subject, key and days; it can't outlive the CA.

    Example: ``form = IntermediateForm(workspace)``, then ``workspace.create_intermediate(form.subject, form.key)``.
    """

    owner = "intermediate"


class DeviceForm(_WorkspaceForm):
    """Ask for the device's subject, key and days; it can't outlive the CA that signs.

    Example: ``form = DeviceForm(workspace)``, then ``workspace.create_device_request(form.subject, form.key)`` and
    ``workspace.sign_device_request(form.key)``.
    """

    owner = "device"


def _field(prompt: Prompt, value: str | None, made: bool) -> Any:
    """Return the field to type in; its placeholder is what a blank one takes."""
    text = prompt.fixed or value or ("." if made and prompt.default else prompt.default)
    pale = "" if prompt.fixed else prompt.default
    return labelled(widgets.Text, prompt.words, text, placeholder=pale, disabled=bool(prompt.fixed))


def _extension_rows(config: CaConfig, section: str, issuer: x509.Certificate | None) -> Iterator[Row]:
    """Show the extensions that a section makes; what is made from a key has no value before there is one."""
    key = ec.generate_private_key(ec.SECP256R1()).public_key()  # stands for the one that will be made
    try:
        extensions = build_extensions(config, section, key, issuer)
    except OnboardingError as error:
        yield "Extensions", f"✗ {error}", ""
        return
    ca = any(isinstance(extension.value, x509.BasicConstraints) and extension.value.ca for extension in extensions)
    from_key = [x509.SubjectKeyIdentifier] if issuer else [x509.SubjectKeyIdentifier, x509.AuthorityKeyIdentifier]
    for extension in extensions:
        ((name, content, meaning),) = extension_rows([extension], ca)
        yield name, "made from the key" if type(extension.value) in from_key else content, meaning


_PASSPHRASE = meanings("source of the passphrase", "words.csv")
_OWN_INSTEAD = meanings("own passphrase", "words.csv")


class PassphraseForm(StaticPicture, widgets.VBox):  # type: ignore[misc]
    """Say which passphrase serves, and take another one where that makes sense; it is kept in no file.

    A new passphrase, while there is no CA to try it on, is asked for twice.

    Example: ``PassphraseForm(workspace)`` as a cell's last line.
    """

    def __init__(self, workspace: Workspace) -> None:
        super().__init__()
        self._workspace, source = workspace, workspace.passphrases.source
        self._line = _PASSPHRASE[source]
        self._shown = widgets.HTML(escape(self._line))
        practice, has_ca = source == "practice", workspace.has_ca
        folded = "Type one of your own instead" if practice else ""
        hint = _OWN_INSTEAD["a CA" if has_ca else "no CA"] if practice else ""
        ask = {"folded": folded, "hint": hint, "twice": not has_ca, "shortest": SHORTEST_PASSWORD}
        self.field = SecretField("Passphrase", **ask)
        self.field.on_secret(self._received)
        self.field.observe(self._wait, "awaited")
        workspace.passphrases.awaited = False  # by an earlier form, which this one replaces
        fields = [self.field] if practice or not source else []
        self.children = [widgets.HTML(style()), self._shown, *fields]
        self.add_class("mciot-form")

    def _wait(self, change: Any) -> None:
        self._workspace.passphrases.awaited = change.new

    def _received(self, secret: Secret) -> None:
        if not self._workspace.has_ca and not self.field.twice:  # the CA was archived since
            self.field.twice = True
            raise OnboardingError("There is no CA now, so this is a new passphrase: type it twice.")
        self._workspace.type_passphrase(secret)
        self._line = _PASSPHRASE["typed"]
        self._shown.value = escape(f"{self._line} Now run the cells below.")

    def picture(self) -> Rendered:
        """Return the one line that says which passphrase serves."""
        return paragraph(self._line)
