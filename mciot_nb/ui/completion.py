"""A certificate of completion: a picture with a name and a date, signed by the learner's own CA."""

import html
import re
from contextlib import suppress
from datetime import UTC, datetime
from string import Template
from urllib.parse import quote

import ipywidgets as widgets  # type: ignore[import-untyped]
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.hazmat.primitives.serialization.pkcs7 import PKCS7Options, PKCS7SignatureBuilder

from mciot_nb.archive import Archive
from mciot_nb.pki.chain import fingerprint, to_pem
from mciot_nb.pki.files import DATA, disk_errors, write_whole
from mciot_nb.pki.names import name_of, short_name
from mciot_nb.pki.signing import signing_options
from mciot_nb.ui.forms import Form, labelled
from mciot_nb.ui.markup import FOLLOW_THE_PAGE, Rendered, escape, fitted, listed, paragraph, width
from mciot_nb.workspace import Workspace

_TEMPLATE = Template((DATA / "completion.svg").read_text(encoding="utf-8"))


class CompletionForm(Form):
    """Ask for the name on the certificate of completion, the last one or "A learner" at first; `sign` makes it.

    Example: ``form = CompletionForm(workspace)``, and in the next cell ``form.sign()``.
    """

    def __init__(self, workspace: Workspace) -> None:
        super().__init__("Your certificate of completion")
        self._workspace, self._file = workspace, workspace.folder / "completion" / "certificate.svg"
        known = re.search('font-weight="600">(.*)</text>', self._there())
        self._name = labelled(widgets.Text, "Your name", html.unescape(known[1]) if known else "A learner")
        self.build(self.row("name", self._name))
        self.take()

    def problems(self) -> dict[str, str]:
        """Return what is wrong with the name."""
        fits = 0 < len(self._name.value.strip()) <= 64
        return {} if fits else {"name": "Type a name of at most 64 characters."}

    def take(self) -> None:
        """Make what is typed the name."""
        self.name = self._name.value.strip()

    def picture(self) -> Rendered:
        """Return the name in one line."""
        return paragraph(f"The name on your certificate: {self.name}")

    def sign(self) -> Rendered:
        """Write certificate.svg, its signature, and the root CA's certificate to ``workspace/completion``; show it.

        What is there for the same name and CA keeps its date. Without all that a connected device needs there is none.
        """
        workspace, folder = self._workspace, self._file.parent
        if left := workspace.verified().left:
            todo = listed([step.title for step in left])
            return paragraph(f"Not yet: first do what is missing in {todo}. Then run this cell again.")
        signer, there = workspace.signer(), self._there()
        known = re.search(r"(\d{4}-\d\d-\d\d \d\d:\d\d) UTC</text>", there)
        svg = self._drawn(known[1]) if known else ""
        if not svg or svg != there:
            Archive(workspace.folder).move([folder], "the certificate of completion that was here")
            svg = self._drawn(f"{datetime.now(UTC):%Y-%m-%d %H:%M}")
        pair, pss = (signer.certificate, signer.key), signing_options(signer.config, signer.certificate)["rsa_padding"]
        builder = PKCS7SignatureBuilder().set_data(svg.encode()).add_signer(*pair, SHA256(), rsa_padding=pss)
        signature = builder.sign(Encoding.PEM, [PKCS7Options.DetachedSignature, PKCS7Options.Binary])
        with disk_errors(folder):
            folder.mkdir(exist_ok=True)
        root = to_pem(workspace.certificate("ca"))
        for name, data in ((self._file.name, svg.encode()), ("certificate.svg.p7s", signature), ("caCert.pem", root)):
            write_whole(folder / name, data, replace=True)
        alt = f"Certificate of completion for {self.name}, signed by {short_name(name_of(signer.certificate))}."
        source = f"data:image/svg+xml,{quote(svg, safe=' :')}"  # no base64: what differs in every run can be seen
        shown = f'<img class="mciot-picture" src="{source}" alt="{escape(alt)}" width="840" style="max-width:100%">'
        where = f'<p style="padding:0 6px">It is in {escape(str(folder))}.</p>'
        return Rendered(f"{alt} It is in {folder}.", f"{FOLLOW_THE_PAGE}{shown}{where}")

    def _there(self) -> str:
        with suppress(OSError):
            return self._file.read_text(encoding="utf-8", errors="replace")
        return ""

    def _drawn(self, date: str) -> str:
        certificate, device = (self._workspace.certificate(owner) for owner in (self._workspace.issuer, "device"))
        digits = fingerprint(certificate, "sha256")
        names = {"signer": short_name(name_of(certificate)), "device": short_name(name_of(device))}
        shown = {key: escape(fitted(name, 28)) for key, name in names.items()}
        shown |= {"name": escape(self.name), "size": f"{min(40.0, 680 / max(width(self.name), 1)):.1f}"}
        return _TEMPLATE.substitute(shown, date=date, first=digits[:32], second=digits[32:])
