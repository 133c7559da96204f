"""The tenant's trusted certificates, to look at and to change: the guide's "Via User Interface", in the notebook."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets  # type: ignore[import-untyped]
import pandas as pd
from cryptography import x509

from mciot_nb.connect.tenant import Tenant
from mciot_nb.connect.trusted_certificates import TrustedCertificate
from mciot_nb.errors import OnboardingError
from mciot_nb.pki.chain import fingerprint
from mciot_nb.pki.names import common_name, readable
from mciot_nb.pki.uploads import ca_certificates
from mciot_nb.ui.certificate_card import certificate_card
from mciot_nb.ui.inputs import FileField
from mciot_nb.ui.markup import Line, card, copyable, escape, grid, visible
from mciot_nb.ui.panel import Panel, button, row, show_if
from mciot_nb.ui.table import LiveTable

if TYPE_CHECKING:
    from mciot_nb.workspace import Workspace

_COLUMNS = ["Name", "Status", "Auto-registration", "Possession", "Expires", "Fingerprint"]
_STATUS = {"ENABLED": "✓ enabled", "DISABLED": "✗ disabled"}
_PROVEN = {True: "✓ proven", False: "not proven", None: "-"}
_WHAT_PROOF_MEANS = {
    True: "whoever uploaded it has shown to own its key",
    False: "anybody could have uploaded it, for a certificate is public",
    None: "this platform does not speak of it",
}


def words_of(one: TrustedCertificate) -> dict[str, str]:
    """Return what the table shows of one, by column; what can't be seen and what is not documented is marked."""
    state = "✗ expired " if one.not_after < datetime.now(UTC) else ""
    return {
        "Name": visible(one.name) or "(no name)",
        "Status": _STATUS.get(one.status, f"⚠ {one.status}"),
        "Auto-registration": "on" if one.auto_registration else "off",
        "Possession": _PROVEN[one.proven],
        "Expires": f"{state}{one.not_after:%Y-%m-%d %H:%M} UTC",
        "Fingerprint": one.fingerprint,
    }


def name_of(one: TrustedCertificate) -> str:
    """Return its name, without what can't be seen."""
    return words_of(one)["Name"]


def counted(number: int) -> str:
    """Say how many certificates there are."""
    return "1 certificate" if number == 1 else f"{number} certificates"


def to_frames(certificates: list[TrustedCertificate]) -> "tuple[pd.DataFrame, pd.DataFrame]":
    """Return the list as it is read, and as it is sorted, under the fingerprints."""
    prints = [one.fingerprint for one in certificates]
    texts = pd.DataFrame([words_of(one) for one in certificates], index=prints, columns=_COLUMNS, dtype=str)
    times = [one.not_after.timestamp() for one in certificates]
    return texts, texts.assign(Name=texts["Name"].str.casefold(), Expires=times)


def details(one: TrustedCertificate) -> Iterator[Line]:
    """Return what the platform knows of it, and what each means for the devices."""
    words = words_of(one)
    devices = "its devices may connect" if one.status == "ENABLED" else "none of its devices may connect"
    known = "only known devices are let in"
    if one.auto_registration:
        known = "a device that the platform has never seen is let in"
    yield "Status", words["Status"], devices
    yield "Auto-registration", words["Auto-registration"], known
    yield "Proof of possession", words["Possession"], _WHAT_PROOF_MEANS[one.proven]
    yield "Subject", one.subject, "as the platform writes it"
    yield "Issuer", one.issuer, "itself: a self-signed certificate" if one.issuer == one.subject else ""
    yield "Expires", words["Expires"], ""
    yield "Fingerprint", copyable(one.fingerprint), "SHA-1, under which the platform keeps it"


_NOTHING = "There is nothing to upload yet: make a CA in 01, or choose a file."
_PRACTICE = (
    "⚠ This CA is for practice: its passphrase lies in the workspace, so whoever reads that folder could sign devices "
    "for this tenant. If you upload it for a short test, delete it here afterwards."
)


@dataclass(frozen=True)
class Offer:
    """A certificate that can be uploaded; ``issuer`` is the workspace's word for whose it is, empty for a file's."""

    label: str
    certificate: x509.Certificate
    issuer: str = ""


class UploadPart(widgets.VBox):  # type: ignore[misc]
    """Fields for what is to be uploaded, and how; ``press`` is called by the button, and `upload` does it."""

    def __init__(self, tenant: Tenant, workspace: "Workspace | None", press: Callable[[], None]) -> None:
        super().__init__()
        self._tenant, self._workspace = tenant, workspace
        self._here: list[Offer] = []
        self._from_file: list[Offer] = []
        self._problem = ""
        self._offering = threading.RLock()  # or reading the workspace would undo a choice, or lose a file
        self._is_practice = False  # what the workspace said when it was asked
        layout, style = widgets.Layout(width="auto", max_width="60em"), {"description_width": "initial"}
        self.choice = widgets.Dropdown(description="Certificate", style=style, layout=layout).add_class("mciot-offers")
        self.choice.observe(lambda _: self._show(), "value")
        self.file = FileField("Or from a file", self._take)
        self.card = widgets.HTML()
        self.automatic = _checkbox("Auto-registration: let a new device in at its first connection", tenant.is_local)
        self.consent = _checkbox("Upload this practice CA all the same", False)
        self._warning = widgets.VBox([widgets.HTML(f'<span role="status">{escape(_PRACTICE)}</span>'), self.consent])
        self.button = button("Upload", press, "primary")
        heading = widgets.HTML('<span class="mciot-title">Upload a CA certificate</span>')
        bottom = widgets.HBox([self.button])
        self.children = [heading, self.choice, self.file, self.automatic, self._warning, bottom, self.card]
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
                signing = [offer for offer in self._here if self._workspace and offer.issuer == self._workspace.issuer]
                self.choice.value = next((offer for offer in (before, *signing, *offers) if offer in offers), None)
            self._show()

    def _of_workspace(self) -> Iterator[Offer]:
        if self._workspace is None or not self._workspace.has_ca:
            return
        for issuer in ("ca", "intermediate") if self._workspace.has_intermediate else ("ca",):
            certificate = self._workspace.with_issuer(issuer).issuer_certificate
            signs = ", which signs your devices" if issuer == self._workspace.issuer else ""
            yield Offer(f"{_name(certificate)} ({issuer}Cert.pem of the workspace{signs})", certificate, issuer)

    def _take(self, name: str, data: bytes) -> str:
        """Offer the CA certificates of a file, and choose the first; raises OnboardingError where there is none."""
        found = ca_certificates(name, data)
        offers = [Offer(f"{_name(certificate)} (from {visible(name)})", certificate) for certificate in found]
        with self._offering:
            self._from_file = offers
            self.refresh()
            self.choice.value = self._from_file[0]
        several = f"{len(found)} CA certificates: choose one above, then" if found[1:] else "a CA certificate:"
        return f"✓ {name} holds {several} look at it below and press Upload. Nothing was sent yet."

    def _show(self) -> None:
        offer = self.choice.value
        problem = self._problem or ("" if offer else _NOTHING)
        words = f'<p role="status">{escape(problem)}</p>' if problem else ""
        sent = f"<p>This is what Upload sends:</p>{certificate_card(offer.certificate).html}" if offer else ""
        self.card.value = words + sent
        self.choice.disabled = offer is None
        show_if(self._warning, offer is not None and self._needs_consent(offer))

    def _needs_consent(self, offer: Offer) -> bool:
        """Whether the person is asked first; whether it may be uploaded, `Workspace.upload_ca` says."""
        if self._tenant.is_local or self._workspace is None or not self._issuer(offer):
            return False
        return self._is_practice or self._workspace.passphrase_source == "practice"

    def _issuer(self, offer: Offer) -> str:
        """Return the workspace's word for whose certificate it is, also where it came from a file; else nothing."""
        return offer.issuer or self.issuer_of(fingerprint(offer.certificate))

    def issuer_of(self, identifier: str) -> str:
        """Return the workspace's word for whose certificate has this fingerprint; nothing where it is not here."""
        return next((offer.issuer for offer in self._here if fingerprint(offer.certificate) == identifier.lower()), "")

    def request(self) -> tuple[Offer | None, bool, bool]:
        """Return what is asked for now: the certificate, auto-registration, and the consent to a practice CA."""
        return self.choice.value, self.automatic.value, self.consent.value

    def upload(self, offer: Offer | None, automatic: bool, consent: bool) -> str:
        """Upload it, and return the sentence that says so; raises OnboardingError where nothing was uploaded.

        A workspace's CA goes the way of `Workspace.upload_ca`, with its rule for a practice CA, from a file too.
        """
        trusted = self._tenant.trusted_certificates
        if offer is None:
            raise OnboardingError(_NOTHING, "NO_OFFER")
        if self._needs_consent(offer) and not consent:
            raise OnboardingError(
                "Nothing was sent: this is a practice CA. Tick its box above Upload first, if you mean it.",
                "PRACTICE_CA",
            )
        if found := trusted.find(offer.certificate):
            return f"✓ It is in the list already, as “{found.name}”: nothing was sent."
        if issuer := self._issuer(offer):
            uploaded = self._upload_workspaces(issuer, offer.certificate, automatic, consent)
        else:
            uploaded = trusted.upload(offer.certificate, auto_registration=automatic)
        self.consent.value = False  # it was given for this one
        return f"✓ Uploaded “{uploaded.name}”, auto-registration {'on' if uploaded.auto_registration else 'off'}."

    def _upload_workspaces(
        self, issuer: str, shown: x509.Certificate, automatic: bool, consent: bool
    ) -> TrustedCertificate:
        assert self._workspace
        with_issuer = self._workspace.with_issuer(issuer)
        if with_issuer.issuer_certificate != shown:
            self.refresh()
            raise OnboardingError(
                "Nothing was sent: another CA is in the workspace now. Look at it, and press Upload again.", "CHANGED"
            )
        try:
            return with_issuer.upload_ca(self._tenant, practice_ca=consent, auto_registration=automatic)
        except OnboardingError as error:
            if error.code == "PRACTICE_CA":  # a passphrase from elsewhere, and a copy of it in the workspace
                self._is_practice = True
                self._show()
            raise


def _name(certificate: x509.Certificate) -> str:
    return visible(common_name(certificate.subject) or readable(certificate.subject) or "(no name)")


def _checkbox(label: str, value: bool) -> Any:
    layout = widgets.Layout(width="auto", max_width="60em")
    return widgets.Checkbox(description=label, value=value, indent=False, layout=layout).add_class("mciot-check")


#: Seconds between two readings of a local platform's list; a real tenant is asked only at a press of a button.
READ_EVERY = 2.0
#: Seconds for which the static picture waits for the first list: a tenant that hangs must not hold up the notebook.
PATIENCE = 5.0
_MOST_ROWS = 50  # of the static picture: a notebook is no place for thousands
_PICTURED = ("Name", "Status", "Auto-registration", "Fingerprint")
_NO_PROOF = "This platform does not know proof of possession: the guide's did not, and today's does."
_NO_KEY = (
    "The key of “{name}” is not in this workspace, and only its owner can prove possession. In the platform's own user "
    "interface the owner gets a code, signs it with “openssl dgst -sha256 -sign caKey.pem code.txt | openssl base64 "
    "-A”, and hands in what that prints."
)


class TrustedCertificatesPanel(Panel):
    """List a tenant's trusted certificates, and upload, enable, disable, rename, prove or delete one.

    ``workspace`` is where the CA to upload lies, and the key that proves possession. Whatever fails is said in a
    sentence. What other clients change on the local platform appears by itself; on a real tenant it takes a Refresh.

    Example: ``TrustedCertificatesPanel(tenant, workspace)`` as a cell's last line.
    """

    def __init__(self, tenant: Tenant, workspace: "Workspace | None" = None) -> None:
        super().__init__(f"Trusted certificates of tenant {tenant.tenant_id}")
        self._tenant, self._workspace = tenant, workspace
        self._known: list[TrustedCertificate] | None = None
        self._trouble = "the tenant has not answered yet"  # why there is no list
        self._reading = threading.Lock()  # so that no older list is shown after a newer one
        self._next_read, self._give_up = 0.0, time.monotonic() + PATIENCE
        self._hint = widgets.HTML()
        self.table = LiveTable("Trusted certificates", wide=("Name", "Fingerprint"))
        self.table.observe(self._on_opened, "opened")
        self.upload_part = UploadPart(tenant, workspace, self._upload)
        self.new_name = widgets.Text(description="New name", style={"description_width": "initial"})
        self._details = widgets.HTML()
        self.buttons = {
            "refresh": button("Refresh", self.refresh),
            "status": button("Disable", lambda: self._on_row(self._change_status)),
            "automatic": button("Auto-registration off", lambda: self._on_row(self._change_auto_registration)),
            "prove": button("Prove possession", lambda: self._on_row(self._prove)),
            "delete": button("Delete", lambda: self._on_row(self._delete), "danger"),
            "rename": button("Rename", lambda: self._on_row(self._rename)),
        }
        changes = [self.buttons[name] for name in ("status", "automatic", "prove", "delete")]
        self._opened = widgets.VBox([self._details, row(*changes), row(self.new_name, self.buttons["rename"])])
        self._say_how_current()
        # The upload stands below the question and the message, so that these stand beside what they are about.
        self.build(row(self.buttons["refresh"], self._hint), self.table, self._opened, below=(self.upload_part,))
        self._show_opened()
        self.do("Reading the list", self._read, lambda _: "")

    # The list ---------------------------------------------------------------------------------------------------------

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
                changed = [one.fingerprint for one in before or () if found.get(one.fingerprint, one) != one]
                self.table.show(*to_frames(self._known), changed)
                self._show_opened()
        self.upload_part.refresh()
        self._say_how_current()
        return self._known

    def _read_if_possible(self) -> None:
        try:
            self._read()
        except OnboardingError as error:
            self._say_how_current(f"✗ The list may be old: {error}")

    def _say_how_current(self, problem: str = "") -> None:
        hint = "What others change appears by itself." if self._tenant.is_local else "Refresh shows what others change."
        self._hint.value = f'<span role="status">{escape(problem or hint)}</span>'

    def refresh(self) -> None:
        """Read the list again."""
        self.do("Reading the list", self._read, lambda known: f"✓ Read: {counted(len(known))}.")

    def poll(self) -> None:
        """Read the local platform's list every two seconds, while nothing is being done."""
        if self._tenant.is_local and not self.busy and time.monotonic() > self._next_read:
            self._read_if_possible()
            self._next_read = time.monotonic() + READ_EVERY

    # What is done with one of them ------------------------------------------------------------------------------------

    @property
    def opened(self) -> TrustedCertificate | None:
        """The certificate whose row is open, as it was read last."""
        return next((one for one in self._known or () if one.fingerprint == self.table.opened), None)

    def _on_opened(self, _change: object) -> None:
        self.ask_nothing()  # the question was about the one before
        self.new_name.value = ""
        self._show_opened()

    def _show_opened(self) -> None:
        one = self.opened
        show_if(self._opened, one is not None)
        if one is not None:
            self._details.value = card(name_of(one), details(one)).html
            self.new_name.placeholder = name_of(one)
            self.buttons["status"].description = "Disable" if one.status == "ENABLED" else "Enable"
            self.buttons["automatic"].description = f"Auto-registration {'off' if one.auto_registration else 'on'}"

    def _on_row(self, action: Callable[[TrustedCertificate], None]) -> None:
        if (one := self.opened) is not None:  # else the row went while the press was on its way
            action(one)

    def _act(self, doing: str, call: Callable[[], str], *about: object) -> None:
        """Do one thing and read the list again, also where the tenant refuses: another client may have been faster."""

        def work() -> str:
            try:
                said = call()
            except OnboardingError as error:
                if error.code.startswith("HTTP_"):
                    self._read_if_possible()
                raise
            self._read_if_possible()
            return said

        self.do(doing, work, str, *about)

    def _change(self, doing: str, one: TrustedCertificate, done: str, **values: Any) -> None:
        def call() -> str:
            self._tenant.trusted_certificates.update(one, **values)
            return f"✓ {done}"

        self._act(doing, call, one.fingerprint, values)

    def _ask(self, question: str, yes: str, action: Callable[[], None], pressed: Any) -> None:
        if not self.busy:
            self.say("")  # what came of the press before does not belong beside the question
        self.ask(question, yes, action, back=pressed)

    def _change_status(self, one: TrustedCertificate) -> None:
        if one.status != "ENABLED":
            self._change("Enabling", one, f"Enabled “{name_of(one)}”: its devices may connect.", status="ENABLED")
            return
        question = (
            f"Disable “{name_of(one)}”? The platform ends the sessions of its devices at once, and lets none of them "
            "in until you enable it again."
        )
        done = f"Disabled “{name_of(one)}”: no device under it may connect."

        def disable() -> None:
            self._change("Disabling", one, done, status="DISABLED")

        self._ask(question, "Disable", disable, self.buttons["status"])

    def _change_auto_registration(self, one: TrustedCertificate) -> None:
        done = f"Auto-registration of “{name_of(one)}” is {'off' if one.auto_registration else 'on'}."
        self._change("Changing", one, done, auto_registration=not one.auto_registration)

    def _rename(self, one: TrustedCertificate) -> None:
        if name := self.new_name.value.strip():
            self._change("Renaming", one, f"“{name_of(one)}” is now “{name}”.", name=name)
        else:
            self.say("✗ Type the new name first.")

    def _prove(self, one: TrustedCertificate) -> None:
        self._act("Proving possession", lambda: self._prove_with_key(one), one.fingerprint)

    def _prove_with_key(self, one: TrustedCertificate) -> str:
        issuer = self.upload_part.issuer_of(one.fingerprint)
        if self._workspace is not None and issuer:
            self._workspace.with_issuer(issuer).prove_possession(self._tenant)
            return f"✓ Proven: the key of “{name_of(one)}” signed the tenant's code."
        raise OnboardingError(_NO_PROOF if one.proven is None else _NO_KEY.format(name=name_of(one)), "NO_KEY")

    def _delete(self, one: TrustedCertificate) -> None:
        def call() -> str:
            self._tenant.trusted_certificates.delete(one)
            self.buttons["refresh"].focus()  # the pressed button goes with its row
            return f"✓ Deleted “{name_of(one)}”."

        question = (
            f"Delete “{name_of(one)}”? The platform ends the sessions of its devices at once, and lets none of them in "
            "unless the certificate is uploaded anew."
        )
        self._ask(question, "Delete", lambda: self._act("Deleting", call, one.fingerprint), self.buttons["delete"])

    def _upload(self) -> None:
        request = self.upload_part.request()
        self._act("Uploading", lambda: self.upload_part.upload(*request), *request)

    # The static picture -----------------------------------------------------------------------------------------------

    def static_text(self) -> str:
        """Return the list as plain text, or why there is none."""
        if not self._known:
            self.wait(max(0.0, self._give_up - time.monotonic()))
        if not self._known:
            return f"{self.title}: {'none yet' if self._known is not None else self._trouble}".rstrip(".") + "."
        picture = self._picture()
        rows = [(name, f"{status}{on and ', auto-registration '}{on}", digits) for name, status, on, digits in picture]
        return card(self.title, rows).text

    def static_html(self) -> str:
        """Return the list as a table, or why there is none."""
        if not self._known:
            return f"<p>{escape(self.static_text())}</p>"
        return grid(self.title, _PICTURED, self._picture())

    def _picture(self) -> list[tuple[str, ...]]:
        known = self._known or []
        more = [("…", f"and {counted(len(known) - _MOST_ROWS)} more", "", "")] if known[_MOST_ROWS:] else []
        return [*(tuple(words_of(one)[name] for name in _PICTURED) for one in known[:_MOST_ROWS]), *more]
