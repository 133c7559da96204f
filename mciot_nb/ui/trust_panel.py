"""The tenant's trusted certificates, to look at and to change: the guide's "Via User Interface", in the notebook."""

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets  # type: ignore[import-untyped]

from mciot_nb.connect.tenant import Tenant, TrustedCertificate
from mciot_nb.errors import OnboardingError
from mciot_nb.ui.live_table import LiveTable
from mciot_nb.ui.markup import escape, grid, plain, table
from mciot_nb.ui.panel import Panel, button
from mciot_nb.ui.trust_rows import counted, details, name_of, picture_rows, to_frames
from mciot_nb.ui.trust_upload import UploadPart

if TYPE_CHECKING:
    from mciot_nb.workspace import Workspace

#: Seconds between two looks at a local platform's list; a real tenant is asked only where somebody presses a button.
READ_EVERY = 2.0
#: Seconds for which the static picture waits for the first list: a tenant that hangs must not hold up the notebook.
PATIENCE = 5.0
_MOST_ROWS = 50  # of the static picture: a notebook is no place for thousands
_NO_PROOF = "This platform does not know proof of possession: the guide's did not, and today's does."
_NO_KEY = (
    "The key of “{name}” is not in this workspace, and only its owner can prove possession. In the platform's own user "
    "interface the owner gets a code, signs it with “openssl dgst -sha256 -sign caKey.pem code.txt | openssl base64 "
    "-A”, and hands in what that prints."
)


class TrustedCertificatesPanel(Panel):
    """List a tenant's trusted certificates, and upload, enable, disable, rename, prove or delete one.

    ``workspace`` is where the CA to upload lies, and the key that proves possession. Whatever fails is said in a
    sentence. What others change on the local platform appears by itself; on a real tenant it takes a Refresh.
    """

    def __init__(self, tenant: Tenant, workspace: "Workspace | None" = None) -> None:
        super().__init__(f"Trusted certificates of tenant {tenant.tenant_id}")
        self._tenant, self._workspace = tenant, workspace
        self._known: list[TrustedCertificate] | None = None
        self._trouble = "the tenant has not answered yet"  # why there is no list
        self._reading = threading.Lock()  # so that no older list is shown after a newer one
        self._read_once, self._patience = threading.Event(), PATIENCE
        self._next_look = 0.0
        self._hint = widgets.HTML()
        self.table = LiveTable("Trusted certificates", wide=("Name", "Fingerprint"))
        self.table.observe(self._opened_another, "opened")
        self.upload_part = UploadPart(tenant, workspace, self._upload)
        self.new_name = widgets.Text(description="New name", style={"description_width": "initial"})
        self._details = widgets.HTML()
        self.buttons = self._make_buttons()
        self._opened_part = self._row_part()
        self._say_how_current()
        self.build(
            widgets.HBox([self.buttons["refresh"], self._hint]).add_class("mciot-row"),
            self.table,
            self._opened_part,
        )
        # Below the question and the message, so that these stand beside what they are about.
        self.children = [*self.children, self.upload_part]
        self._show_opened()
        self.do("Reading the list", self._read_first, lambda _: "")

    def _make_buttons(self) -> dict[str, Any]:
        return {
            "refresh": button("Refresh", self.refresh),
            "status": button("Disable", self._change_status),
            "automatic": button("Auto-registration off", self._change_auto_registration),
            "prove": button("Prove possession", self._prove),
            "delete": button("Delete", self._delete, "danger"),
            "rename": button("Rename", self._rename),
        }

    def _row_part(self) -> Any:
        """Lay out what a row shows when it is opened."""
        changes = [self.buttons[name] for name in ("status", "automatic", "prove", "delete")]
        rows = [changes, [self.new_name, self.buttons["rename"]]]
        return widgets.VBox([self._details, *(widgets.HBox(row).add_class("mciot-row") for row in rows)])

    # The list ---------------------------------------------------------------------------------------------------------

    def _read_first(self) -> None:
        try:
            self._read()
        except OnboardingError as error:
            self._trouble = str(error)
            raise
        finally:
            self._read_once.set()

    def _read(self) -> list[TrustedCertificate]:
        """Read the list, and show it; raises OnboardingError, and then what is shown stays."""
        with self._reading:
            found = {one.fingerprint: one for one in self._tenant.trusted_certificates.list()}
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

    def look(self) -> None:
        """Read the local platform's list every two seconds, while nothing is being done."""
        if self._tenant.is_local and not self._busy.locked() and time.monotonic() > self._next_look:
            self._read_if_possible()
            self._next_look = time.monotonic() + READ_EVERY

    # What is done with one of them ------------------------------------------------------------------------------------

    @property
    def opened(self) -> TrustedCertificate | None:
        """The certificate whose row is opened, as it was read last."""
        return next((one for one in self._known or () if one.fingerprint == self.table.opened), None)

    def _opened_another(self, _change: object) -> None:
        self.ask_nothing()  # the question was about the one before
        self.new_name.value = ""
        self._show_opened()

    def _show_opened(self) -> None:
        one = self.opened
        self._opened_part.layout.display = "none" if one is None else None
        if one is not None:
            self._details.value = table(name_of(one), details(one))
            self.new_name.placeholder = name_of(one)
            self.buttons["status"].description = "Disable" if one.status == "ENABLED" else "Enable"
            self.buttons["automatic"].description = f"Auto-registration {'off' if one.auto_registration else 'on'}"

    def _act(self, doing: str, call: Callable[[], str]) -> None:
        """Do one thing and read the list again, also where the tenant refuses: others may have been faster."""

        def work() -> str:
            try:
                said = call()
            except OnboardingError as error:
                if error.code.startswith("HTTP_"):
                    self._read_if_possible()
                raise
            self._read_if_possible()
            return said

        self.do(doing, work, lambda said: said)

    def _change(self, doing: str, one: TrustedCertificate, done: str, **values: Any) -> None:
        def call() -> str:
            self._tenant.trusted_certificates.update(one, **values)
            return f"✓ {done}"

        self._act(doing, call)

    def _ask(self, question: str, yes: str, action: Callable[[], None], pressed: Any) -> None:
        if not self._busy.locked():
            self.say("")  # what came of the press before does not belong beside the question
            self.ask(question, yes, action, back=pressed)

    def _change_status(self) -> None:
        if (one := self.opened) is None:
            return
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

    def _change_auto_registration(self) -> None:
        if (one := self.opened) is not None:
            done = f"Auto-registration of “{name_of(one)}” is {'off' if one.auto_registration else 'on'}."
            self._change("Changing", one, done, auto_registration=not one.auto_registration)

    def _rename(self) -> None:
        one, name = self.opened, self.new_name.value.strip()
        if one is not None and not name:
            self.say("✗ Type the new name first.")
        elif one is not None:
            self._change("Renaming", one, f"“{name_of(one)}” is now “{name}”.", name=name)

    def _prove(self) -> None:
        if (one := self.opened) is not None:
            self._act("Proving possession", lambda: self._prove_with_key(one))

    def _prove_with_key(self, one: TrustedCertificate) -> str:
        issuer = self.upload_part.issuer_of(one.fingerprint)
        if self._workspace is not None and issuer:
            self._workspace.branch(issuer).prove_possession(self._tenant)
            return f"✓ Proven: the key of “{name_of(one)}” signed the tenant's code."
        raise OnboardingError(_NO_PROOF if one.proven is None else _NO_KEY.format(name=name_of(one)), "NO_KEY")

    def _delete(self) -> None:
        if (one := self.opened) is None:
            return

        def call() -> str:
            self._tenant.trusted_certificates.delete(one)
            self.buttons["refresh"].focus()  # the pressed button goes with its row
            return f"✓ Deleted “{name_of(one)}”."

        question = (
            f"Delete “{name_of(one)}”? The platform ends the sessions of its devices at once, and lets none of them in "
            "unless the certificate is uploaded anew."
        )
        self._ask(question, "Delete", lambda: self._act("Deleting", call), self.buttons["delete"])

    def _upload(self) -> None:
        self._act("Uploading", self.upload_part.upload)

    # The static picture -----------------------------------------------------------------------------------------------

    def static_text(self) -> str:
        """Give the list as plain text, or why there is none."""
        self._read_once.wait(self._patience)
        self._patience = 0.0  # once is enough
        if not self._known:
            return f"{self.title}: {'none yet' if self._known is not None else self._trouble}".rstrip(".") + "."
        picture = self._picture()
        rows = [(name, f"{status}{on and ', auto-registration '}{on}", digits) for name, status, on, digits in picture]
        return plain(self.title, rows)

    def static_html(self) -> str:
        """Give the list as a table, or why there is none."""
        text = self.static_text()
        if not self._known:
            return f"<p>{escape(text)}</p>"
        return grid(self.title, ("Name", "Status", "Auto-registration", "Fingerprint"), self._picture())

    def _picture(self) -> list[tuple[str, str, str, str]]:
        known = self._known or []
        more = [("…", f"and {counted(len(known) - _MOST_ROWS)} more", "", "")] if known[_MOST_ROWS:] else []
        return [*picture_rows(known[:_MOST_ROWS]), *more]
