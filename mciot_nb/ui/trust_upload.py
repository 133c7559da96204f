"""What is to be uploaded as a trusted certificate: one of the workspace's CAs, or one from a file, shown as it is."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets  # type: ignore[import-untyped]
from cryptography import x509

from mciot_nb.connect.tenant import Tenant, TrustedCertificate, fingerprint
from mciot_nb.errors import OnboardingError
from mciot_nb.pki.names import common_name, readable
from mciot_nb.pki.offered import ca_certificates
from mciot_nb.ui.card import certificate_html
from mciot_nb.ui.file_field import FileField
from mciot_nb.ui.markup import escape, visible
from mciot_nb.ui.panel import button

if TYPE_CHECKING:
    from mciot_nb.workspace import Workspace

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
        self._offering = threading.RLock()  # or a look into the workspace would undo a choice, or lose a file
        self._is_practice = False  # what the workspace said when it was asked
        wide = widgets.Layout(width="auto", max_width="60em")
        self.choice = widgets.Dropdown(
            description="Certificate", style={"description_width": "initial"}, layout=wide
        ).add_class("mciot-offers")
        self.choice.observe(self._show, "value")
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
        """Look into the workspace again; what is chosen stays chosen while it is there."""
        with self._offering:
            try:
                self._here, self._problem = list(self._look_into_workspace()), ""
            except (OnboardingError, OSError) as error:  # a file that nobody can read
                self._here, self._problem = [], f"⚠ {error}"
            offers, before = [*self._here, *self._from_file], self.choice.value
            if offers != [offer for _, offer in self.choice.options]:
                self.choice.options = [(offer.label, offer) for offer in offers]
                signing = [offer for offer in self._here if self._workspace and offer.issuer == self._workspace.issuer]
                self.choice.value = next((offer for offer in (before, *signing, *offers) if offer in offers), None)
            self._show()

    def _look_into_workspace(self) -> Iterator[Offer]:
        if self._workspace is None or not self._workspace.has_ca:
            return
        for issuer in ("ca", "intermediate") if self._workspace.has_intermediate else ("ca",):
            certificate = self._workspace.branch(issuer).issuer_certificate
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

    def _show(self, _change: object = None) -> None:
        offer = self.choice.value
        problem = self._problem or ("" if offer else _NOTHING)
        words = f'<p role="status">{escape(problem)}</p>' if problem else ""
        card = f"<p>This is what Upload sends:</p>{certificate_html(offer.certificate)}" if offer else ""
        self.card.value = words + card
        self.choice.disabled = offer is None
        needed = offer is not None and self._needs_consent(offer)
        self._warning.layout.display = None if needed else "none"

    def _needs_consent(self, offer: Offer) -> bool:
        """Whether the person is asked first; whether it may be uploaded, `Workspace.upload_ca` says."""
        if self._tenant.is_local or self._workspace is None or not self._issuer(offer):
            return False
        return self._is_practice or self._workspace.passphrase_source == "practice"

    def _issuer(self, offer: Offer) -> str:
        """Give the workspace's word for whose certificate it is, also where it came from a file; else nothing."""
        return offer.issuer or next((o.issuer for o in self._here if o.certificate == offer.certificate), "")

    def issuer_of(self, identifier: str) -> str:
        """Give the workspace's word for whose certificate has this fingerprint; nothing where it is not here."""
        return next((offer.issuer for offer in self._here if fingerprint(offer.certificate) == identifier.lower()), "")

    def upload(self) -> str:
        """Upload what is shown, and give the sentence that says so; raises OnboardingError where nothing was uploaded.

        A workspace's CA goes the way of `Workspace.upload_ca`, with its rule for a practice CA, from a file too.
        """
        offer, automatic, trusted = self.choice.value, self.automatic.value, self._tenant.trusted_certificates
        if offer is None:
            raise OnboardingError(_NOTHING, "NO_OFFER")
        if self._needs_consent(offer) and not self.consent.value:
            raise OnboardingError(
                "Nothing was sent: this is a practice CA. Tick its box above Upload first, if you mean it.",
                "PRACTICE_CA",
            )
        if found := trusted.find(offer.certificate):
            return f"✓ It is in the list already, as “{found.name}”: nothing was sent."
        if issuer := self._issuer(offer):
            uploaded = self._upload_workspaces(issuer, offer.certificate, automatic)
        else:
            uploaded = trusted.upload(offer.certificate, auto_registration=automatic)
        self.consent.value = False  # it was given for this one
        return f"✓ Uploaded “{uploaded.name}”, auto-registration {'on' if uploaded.auto_registration else 'off'}."

    def _upload_workspaces(self, issuer: str, shown: x509.Certificate, automatic: bool) -> TrustedCertificate:
        assert self._workspace
        branch = self._workspace.branch(issuer)
        if branch.issuer_certificate != shown:
            self.refresh()
            raise OnboardingError(
                "Nothing was sent: another CA is in the workspace now. Look at it, and press Upload again.", "CHANGED"
            )
        try:
            return branch.upload_ca(self._tenant, practice_ca=self.consent.value, auto_registration=automatic)
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
