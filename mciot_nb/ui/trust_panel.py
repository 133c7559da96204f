"""The tenant's trusted certificates, to look at and to change: the guide's "Via User Interface", in the notebook."""

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple

import ipywidgets as widgets  # type: ignore[import-untyped]
import pandas as pd
from cryptography import x509

from mciot_nb.connect.tenant import Tenant
from mciot_nb.connect.trusted_certificates import TrustedCertificate
from mciot_nb.errors import OnboardingError, fault
from mciot_nb.pki.chain import fingerprint
from mciot_nb.pki.files import data_table, meanings
from mciot_nb.pki.names import name_of, short_name
from mciot_nb.pki.uploads import ca_certificates
from mciot_nb.ui.certificate_card import certificate_card
from mciot_nb.ui.inputs import FileField, button, row, show_if, status
from mciot_nb.ui.markup import Line, Rendered, card, copyable, counted, escape, paragraph, table, visible
from mciot_nb.ui.panel import TablePanel
from mciot_nb.workspace import Workspace

_COLUMNS = ["Name", "Status", "Auto-registration", "Possession", "Expires", "Fingerprint"]
_STATUS = {"ENABLED": "✓ enabled", "DISABLED": "✗ disabled"}
#: What the platform says of the proof of possession, and what that means.
_PROVEN = "✓ proven", "the uploader has proven that they have its private key"
_NOT_PROVEN = "not proven", "anyone could have uploaded it, because a certificate is public"
_PROOF = {True: _PROVEN, False: _NOT_PROVEN, None: ("-", "this platform does not say")}


def words_of(one: TrustedCertificate) -> dict[str, str]:
    """Return what the table shows of one, by column; what can't be seen and what is not documented is marked."""
    state = "✗ expired " if one.not_after < datetime.now(UTC) else ""
    texts = [
        (visible(one.name) or "(no name)") + " (the tenant's own CA)" * one.own_ca,
        _STATUS.get(one.status, f"⚠ {one.status}"),
    ]
    texts += ["on" if one.auto_registration else "off", _PROOF[one.proven][0]]
    texts += [f"{state}{one.not_after:%Y-%m-%d %H:%M} UTC", one.fingerprint]
    return dict(zip(_COLUMNS, texts, strict=True))


def details(one: TrustedCertificate) -> Iterator[Line]:
    """Return what the platform knows of it, and what each means for the devices."""
    words = words_of(one)
    known = "a device that the platform has never seen" if one.auto_registration else "only known devices"
    yield "Status", words["Status"], f"{'' if one.status == 'ENABLED' else 'none of '}its devices may connect"
    yield "Auto-registration", words["Auto-registration"], f"{known} {'is' if one.auto_registration else 'are'} let in"
    yield "Proof of possession", *_PROOF[one.proven]
    yield "Subject", one.subject, "as the platform writes it"
    yield "Issuer", one.issuer, "itself: a self-signed certificate" if one.issuer == one.subject else ""
    yield "Expires", words["Expires"], ""
    yield "Fingerprint", copyable(one.fingerprint), "SHA-1, under which the platform keeps it"


_WORDS = meanings("upload", "words.csv")


class Offer(NamedTuple):
    """A certificate that can be uploaded; ``issuer`` is the workspace's word for whose it is, empty for a file's."""

    label: str
    certificate: x509.Certificate
    issuer: str = ""


class UploadPart(widgets.VBox):  # type: ignore[misc]
    """Fields for what is to be uploaded, and how; ``press`` is called by the button, and `upload` does it."""

    def __init__(self, tenant: Tenant, workspace: Workspace, press: Callable[[], None]) -> None:
        super().__init__()
        self._tenant, self._workspace = tenant, workspace
        self._here: list[Offer] = []
        self._from_file: list[Offer] = []
        self._problem, self._is_practice = "", False
        self._offering = threading.RLock()  # or reading the workspace would undo a choice, or lose a file
        look = {"layout": widgets.Layout(width="auto", max_width="60em"), "style": {"description_width": "initial"}}
        self.choice = widgets.Dropdown(description="Certificate", **look).add_class("mciot-offers")
        self.choice.observe(lambda _: self._show(), "value")
        self.file, self.card = FileField("Or from a file", self._take), widgets.HTML()
        labels = {_WORDS["automatic"]: tenant.is_local, _WORDS["consent"]: False}
        checkboxes = [widgets.Checkbox(description=text, value=on, indent=False, **look) for text, on in labels.items()]
        self.automatic, self.consent = (checkbox.add_class("mciot-check") for checkbox in checkboxes)
        self._warning = widgets.VBox([widgets.HTML(status(_WORDS["warning"])), self.consent])
        self.button = button("Upload", press, "primary")
        heading = widgets.HTML('<span class="mciot-title">Upload a CA certificate</span>')
        self.children = [heading, self.choice, self.file, self.automatic, self._warning, row(self.button), self.card]
        self.refresh()

    def refresh(self) -> None:
        """Read the workspace again; what is chosen stays chosen while it is there."""
        with self._offering:
            try:
                self._here, self._problem = list(self._of_workspace()), ""
            except (OnboardingError, OSError) as error:  # a file that can't be read
                self._here, self._problem = [], f"⚠ {error}"
            offers, before = [*self._here, *self._from_file], self.choice.value
            if offers != [offer for _, offer in self.choice.options]:
                self.choice.options = [(offer.label, offer) for offer in offers]
                signing = [offer for offer in self._here if offer.issuer == self._workspace.issuer]
                self.choice.value = next((offer for offer in (before, *signing, *offers) if offer in offers), None)
            self._show()

    def _of_workspace(self) -> Iterator[Offer]:
        if not self._workspace.has_ca:
            return
        self._is_practice = self._workspace.passphrases.is_practice
        for issuer, certificate in self._workspace.issuer_certificates.items():
            signs = ", which signs your devices" if issuer == self._workspace.issuer else ""
            name = visible(short_name(name_of(certificate)))
            yield Offer(f"{name} ({issuer}Cert.pem of the workspace{signs})", certificate, issuer)

    def _take(self, name: str, data: bytes) -> str:
        """Offer the CA certificates of a file, and choose the first; raises OnboardingError where there is none."""
        found = ca_certificates(name, data)
        with self._offering:
            origin = f"(from {visible(name)})"
            self._from_file = [Offer(f"{visible(short_name(name_of(one)))} {origin}", one) for one in found]
            self.refresh()
            self.choice.value = self._from_file[0]
        several = f"{len(found)} CA certificates: choose one above, then" if found[1:] else "a CA certificate:"
        return f"✓ {name} holds {several} look at it below and press Upload. Nothing is sent before that."

    def _show(self) -> None:
        offer = self.choice.value
        problem = self._problem or ("" if offer else str(fault("NO_OFFER")))
        words = f'<p role="status">{escape(problem)}</p>' if problem else ""
        sent = f"<p>This is what Upload sends:</p>{certificate_card(offer.certificate).html}" if offer else ""
        self.card.value = words + sent
        self.choice.disabled = offer is None
        asks = offer and self._is_practice and not self._tenant.is_local and self.issuer_of(offer.certificate)
        show_if(self._warning, bool(asks))

    def issuer_of(self, which: x509.Certificate | TrustedCertificate) -> str:
        """Return the workspace's word for whose certificate it is; nothing where it is not here."""
        wanted = which.fingerprint.lower() if isinstance(which, TrustedCertificate) else fingerprint(which)
        return next((offer.issuer for offer in self._here if fingerprint(offer.certificate) == wanted), "")

    def upload(self, offer: Offer | None, automatic: bool, consent: bool) -> str:
        """Upload it, and return the sentence that says so; raises OnboardingError where nothing was uploaded.

        A workspace's CA goes the way of `Workspace.upload_ca`, with its rule for a practice CA, from a file too.
        """
        if offer is None:
            raise fault("NO_OFFER")
        trusted, issuer = self._tenant.trusted_certificates, offer.issuer or self.issuer_of(offer.certificate)
        if found := trusted.find(offer.certificate):
            return f"✓ It is already in the list, as “{found.name}”: nothing was sent."
        if not issuer:
            uploaded = trusted.upload(offer.certificate, auto_registration=automatic)
        else:
            workspace = self._workspace.with_issuer(issuer)
            self.refresh()  # so that another CA, or the box, is there where one is named
            if workspace.issuer_certificate != offer.certificate:
                raise fault("CHANGED")
            try:
                uploaded = workspace.upload_ca(self._tenant, practice_ca=consent, auto_registration=automatic)
            except OnboardingError as error:
                raise fault("PRACTICE_CA.panel") if error.code == "PRACTICE_CA" else error from None
        self.consent.value = False  # it was given for this one
        return f"✓ Uploaded “{uploaded.name}”, auto-registration {'on' if uploaded.auto_registration else 'off'}."


#: What a button does with the open row: its label, what is said meanwhile and afterwards, and what is asked first.
ACTIONS = {row["action"]: row for row in data_table("trust_actions.csv")}
#: What an action sets, where that is always the same.
_CHANGES: dict[str, dict[str, Any]] = {
    **{"disable": {"status": "DISABLED"}, "enable": {"status": "ENABLED"}},
    **{"off": {"auto_registration": False}, "on": {"auto_registration": True}},
}

#: Seconds between two readings of a local platform's list; a real tenant is asked only at a press of a button.
READ_EVERY = 2.0
#: Seconds for which the static picture waits for the first list: a tenant that hangs must not hold up the notebook.
PATIENCE = 5.0
_PICTURED = ("Name", "Status", "Auto-registration", "Fingerprint")


class TrustedCertificatesPanel(TablePanel):
    """List a tenant's trusted certificates, and upload, enable, disable, rename, prove or delete one.

    ``workspace`` holds the CA to upload, and the key that proves possession; ``tenant`` is the one that was
    chosen by default. Whatever fails is said in a sentence. What other clients change on the local platform appears by
    itself; on a real tenant it takes a Refresh.

    Example: ``TrustedCertificatesPanel(workspace)`` as a cell's last line.
    """

    def __init__(self, workspace: Workspace, tenant: Tenant | None = None) -> None:
        tenant = tenant or workspace.tenant()
        self.new_name = widgets.Text(description="New name", style={"description_width": "initial"})
        title = f"Trusted certificates of tenant {tenant.tenant_id}"
        super().__init__(title, "Trusted certificates", ("Name", "Fingerprint"), self.new_name)
        self._tenant, self._workspace = tenant, workspace
        self._known: list[TrustedCertificate] | None = None
        self._trouble = "the tenant has not answered yet"  # why there is no list
        self._reading = threading.Lock()  # so that no older list is shown after a newer one
        self._next_read, self._give_up = 0.0, time.monotonic() + PATIENCE
        self._hint = widgets.HTML()
        self.upload_part = UploadPart(tenant, workspace, self._upload)
        names = ("status", "automatic", "prove", "delete", "rename")
        self.buttons = {name: button("", partial(self._press, name)) for name in names}
        self.buttons["delete"].button_style = "danger"
        self.buttons["refresh"] = button("Refresh", self.refresh)
        changes, rename = [self.buttons[name] for name in names[:-1]], row(self.new_name, self.buttons["rename"])
        self._opened.children = [self._details, row(*changes), rename]
        self._say_how_current()
        # The upload is below the question and the message, so that these are beside what they are about.
        self.build(row(self.buttons["refresh"], self._hint), self.table, self._opened, below=(self.upload_part,))
        self.do("Reading the list", self._read, lambda _: "")

    def _read(self) -> list[TrustedCertificate]:
        """Read the list, and show it; raises OnboardingError, and then what is shown stays."""
        with self._reading:
            try:
                found = {one.fingerprint: one for one in self._tenant.trusted_certificates.list()}
            except OnboardingError as error:
                self._trouble = str(error)
                raise
            before, self._known = self._known, list(found.values())
            if before != self._known:
                texts = pd.DataFrame(map(words_of, self._known), index=[*found], columns=_COLUMNS, dtype=str)
                times = [one.not_after.timestamp() for one in self._known]
                values = texts.assign(Name=texts["Name"].str.casefold(), Expires=times)
                changed = [one.fingerprint for one in before or () if found.get(one.fingerprint, one) != one]
                self.table.show(texts, values, changed)
                self.show_opened()
        self.upload_part.refresh()
        self._say_how_current()
        return self._known

    def _read_if_possible(self) -> None:
        try:
            self._read()
        except OnboardingError as error:
            self._say_how_current(f"✗ The list may be out of date: {error}")

    def _say_how_current(self, problem: str = "") -> None:
        self._hint.value = status(problem or _WORDS["local" if self._tenant.is_local else "real"])

    def refresh(self) -> None:
        """Read the list again."""
        said = lambda it: f"✓ Read: {counted(len(it), 'certificate', 'certificates')}."  # noqa: E731
        self.do("Reading the list", self._read, said)

    def poll(self) -> None:
        """Read the local platform's list every two seconds, while nothing is being done."""
        if self._tenant.is_local and not self.busy and time.monotonic() > self._next_read:
            self._read_if_possible()
            self._next_read = time.monotonic() + READ_EVERY

    @property
    def opened(self) -> TrustedCertificate | None:
        """The certificate whose row is open, as it was read last."""
        return next((one for one in self._known or () if one.fingerprint == self.table.opened), None)

    def describe(self) -> str:
        """Return what is known of the open row, and name its buttons by what they would do."""
        if (one := self.opened) is None:
            return ""
        name = self.new_name.placeholder = words_of(one)["Name"]
        for button_name in ("status", "automatic", "prove", "delete", "rename"):
            self.buttons[button_name].description = ACTIONS[_action(button_name, one)]["label"]
        return card(name, details(one)).html

    def _press(self, pressed: str) -> None:
        if (one := self.opened) is None:
            self.say("✗ Nothing was done: that certificate is no longer in the list.")
            return
        new, kind = self.new_name.value.strip(), _action(pressed, one)
        action = ACTIONS[kind]
        values = {"name": new} if kind == "rename" else _CHANGES.get(kind)
        names = {"name": words_of(one)["Name"], "new": new}
        if values == {"name": ""}:
            self.say("✗ Type the new name first.")
            return

        def call() -> str:
            if values:
                self._tenant.trusted_certificates.update(one, **values)
            elif pressed == "prove":
                self._prove(one)
            else:
                self._tenant.trusted_certificates.delete(one)
                self.buttons["refresh"].focus()  # the pressed button goes with its row
            return f"✓ {action['done'].format(**names)}"

        def act() -> None:
            self._act(action["doing"], call, one.fingerprint, values)

        if not action["question"]:
            act()
            return
        if not self.busy:
            self.say("")  # what came of the press before does not belong beside the question
        self.ask(action["question"].format(**names), action["label"], act)

    def _act(self, doing: str, call: Callable[[], str], *about: object) -> None:
        """Do one thing and read the list again, also where the tenant refuses: another client may have been faster."""

        def work() -> str:
            try:
                return call()
            finally:
                self._read_if_possible()

        self.do(doing, work, str, *about)

    def _prove(self, one: TrustedCertificate) -> None:
        self.upload_part.refresh()  # the workspace may have another CA by now
        issuer = self.upload_part.issuer_of(one)
        if not issuer:
            if one.proven is None:
                raise fault("NO_KEY.platform")
            raise fault("NO_KEY.proof", name=words_of(one)["Name"])
        self._workspace.with_issuer(issuer).prove_possession(self._tenant)

    def _upload(self) -> None:
        part = self.upload_part
        request = part.choice.value, part.automatic.value, part.consent.value
        self._act("Uploading", lambda: part.upload(*request), *request)

    def picture(self) -> Rendered:
        """Return the list as a table, or why there is none."""
        if not self._known:
            self.wait(max(0.0, self._give_up - time.monotonic()))
        if not (known := self._known):
            return paragraph(f"{self.title}: {'none yet' if known is not None else self._trouble}".rstrip(".") + ".")
        shown = table(self.title, _PICTURED, [itemgetter(*_PICTURED)(words_of(one)) for one in known])
        return Rendered(f"{self.title}\n{shown.text}", shown.html)


def _action(pressed: str, one: TrustedCertificate) -> str:
    """Return the name of what a button does now: two of them turn something on and off."""
    if pressed == "automatic":
        return "off" if one.auto_registration else "on"
    if pressed == "delete" and one.own_ca:
        return "delete_own"
    return pressed if pressed != "status" else "disable" if one.status == "ENABLED" else "enable"
