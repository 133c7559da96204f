"""The signing database, live: what any program signs or revokes is shown; and a row can be revoked."""

import math
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import ipywidgets as widgets  # type: ignore[import-untyped]
import numpy as np
import pandas as pd
from cryptography import x509

from mciot_nb.errors import OnboardingError
from mciot_nb.pki.authority import CertificateAuthority
from mciot_nb.pki.chain import read_copy
from mciot_nb.pki.crl import unlisted
from mciot_nb.pki.files import meanings, stamp
from mciot_nb.pki.names import common_name, name_of
from mciot_nb.pki.rows import DatabaseRow, decoded, hex_serial
from mciot_nb.ui.certificate_card import certificate_card
from mciot_nb.ui.inputs import button, row, show_if, status
from mciot_nb.ui.markup import Rendered, counted, paragraph, table
from mciot_nb.ui.panel import TablePanel
from mciot_nb.workspace import Workspace

_STATUS = {"V": "✓ valid", "R": "✗ revoked", "E": "✗ expired"}
_DAY = 86_400  # seconds


def signing_texts(frame: pd.DataFrame, now: datetime) -> pd.DataFrame:
    """Return the rows of ``database.to_frame()`` as they are read, under the serial number in hexadecimal."""
    status = frame["status"].mask((frame["status"] == "V") & (frame["expires"] < now), "E")
    serials = [hex_serial(serial) for serial in frame["serial"]]
    reasons = [f": {reason}" if reason else "" for reason in frame["reason"]]
    days = [math.ceil(seconds / _DAY) for seconds in (frame["expires"] - now).dt.total_seconds()]
    columns = {"Serial": serials}
    columns["Status"] = [_STATUS[word] + reason for word, reason in zip(status, reasons, strict=True)]
    columns["Days left"] = [str(left) if word == "V" else "-" for word, left in zip(status, days, strict=True)]
    columns["Common name"] = [name or "-" for name in frame["common_name"]]
    columns["Subject"] = [decoded(subject) for subject in frame["subject"]]
    columns |= {"Expires": _times(frame["expires"]), "Revoked": _times(frame["revoked"])}
    return pd.DataFrame(columns, index=pd.Index(serials, dtype=str), dtype=str)


def signing_values(frame: pd.DataFrame, texts: pd.DataFrame) -> pd.DataFrame:
    """Return that by which each column of `signing_texts` is sorted: numbers and times as such, letters without case.

    Its days left are times of expiry, of valid rows alone.
    """
    columns: dict[str, Any] = {name: texts[name].str.casefold() for name in ("Status", "Common name", "Subject")}
    columns |= {"Serial": frame["serial"], "Expires": frame["expires"], "Revoked": frame["revoked"]}
    columns["Days left"] = frame["expires"].where((texts["Days left"] != "-").to_numpy())
    return pd.DataFrame({name: column.array for name, column in columns.items()}, index=texts.index)


def _times(times: "pd.Series[pd.Timestamp]") -> list[str]:
    texts = np.datetime_as_string(times.dt.tz_localize(None).to_numpy(), unit="s").tolist()
    return ["-" if text == "NaT" else f"{text[:10]} {text[11:]} UTC" for text in texts]


#: openssl's words for why, in plain English. removeFromCRL is not among them: it belongs into a delta list, and in any
#: other openssl takes it for no revocation at all. Nor are the three that bear an argument.
REASONS = meanings("reason to revoke", "words.csv")
_WORDS = meanings("renewal", "words.csv")
#: Seconds that the database may be missing or torn before that is said: openssl replaces it by renames.
PATIENCE = 1.5
#: Seconds after which a database that has not changed is read all the same: a day is over, or a row has expired.
RENEW_AFTER = 60.0


class SigningPanel(TablePanel):
    """The signing database of the CA that signs, or of another ``issuer``, as a table that follows its file.

    Any CA serves in place of the workspace. A row that is opened shows its certificate, and can be revoked.

    Example: ``SigningPanel(workspace)`` as a cell's last line.
    """

    def __init__(self, workspace: Workspace | CertificateAuthority, issuer: str = "") -> None:
        ca, self.own = workspace, row()
        if isinstance(ca, Workspace):
            ca = ca.with_issuer(issuer or ca.issuer)
            self.own, ca = row(*self._buttons(ca)), ca.signer()
        options = [(f"{word}: {meaning}" if word else meaning, word) for word, meaning in REASONS.items()]
        layout = widgets.Layout(width="auto", max_width="100%")
        self._reason = widgets.Dropdown(description="Reason", options=options, value="", layout=layout)
        title = f"Signing database of {common_name(name_of(ca.certificate)) or 'this CA'}"
        super().__init__(title, "Signed certificates", ("Common name", "Subject"), self._reason)
        self.ca = ca
        self._crl_path = ca.config.ca_path("crl") if ca.config.optional("crl") else None
        self._trouble, self._why, self._crl_line = (widgets.HTML() for _ in range(3))
        self._revoke = row(self._reason, button("Revoke …", self._ask_to_revoke, "danger").add_class("mciot-revoke"))
        self._opened.children = [self._details, self._revoke, self._why]
        self._write = button("Write the revocation list", self._write_crl)
        self._crl_row = row(self._crl_line, self._write)
        self._polling = threading.Lock()  # one poll at a time; its holder may take table.lock, and never the reverse
        self._frame, self._texts = pd.DataFrame(), pd.DataFrame()
        self._stamps: list[tuple[int, ...]] = []  # of the files as they were read last
        self._failing_since, self._problem, self._suggested_for = 0.0, "", ""
        self.build(self._trouble, self.table, self._crl_row, self.own, self._opened)
        self.poll()

    def poll(self) -> None:
        """Show what any program has written since, and what the passing of time has changed."""
        with self._polling:
            files = (self.ca.database.path, self._crl_path, self.ca.config.ca_path("certificate"))
            stamps = [*map(stamp, files), (int(time.monotonic() / RENEW_AFTER),)]
            if stamps != self._stamps:
                self._read(stamps)

    def _read(self, stamps: list[tuple[int, ...]]) -> None:
        try:
            self.ca.check_in_place()
            self._frame = self.ca.database.to_frame()
        except OnboardingError as error:
            self._problem, self._failing_since = str(error), self._failing_since or time.monotonic()
            if time.monotonic() - self._failing_since >= PATIENCE:
                self._stamps = stamps  # it is said, and not read again before a file has changed
                self._trouble.value = status(f"✗ {self._problem}", "problem", "alert")
            return
        self._stamps, self._failing_since, self._problem, self._trouble.value = stamps, 0.0, "", ""
        self._show()
        self._show_crl()

    def _show(self) -> None:
        newest_first = self._frame.iloc[::-1]
        texts = signing_texts(newest_first, datetime.now(UTC))
        before = dict(self._texts["Status"]) if len(self._texts) else {}
        changed = [serial for serial, words in texts["Status"].items() if before.get(serial, words) != words]
        with self.table.lock:
            self._texts = texts
            self.table.show(texts, signing_values(newest_first, texts), changed)  # type: ignore[arg-type]
            self.show_opened()

    def _show_crl(self) -> None:
        """Say whether the revocation list, if the configuration names one, has every certificate that is revoked."""
        revoked = set(self._frame["serial"][self._frame["status"] == "R"])
        show_if(self._crl_row, bool(self._crl_path and revoked))
        missing = unlisted(self._crl_path, revoked) if self._crl_path else 0
        self._write.button_style = "primary" if missing else ""
        kind, words = "good", "✓ The revocation list names every certificate that is revoked."
        if missing:
            words = f"⚠ {_certificates(missing, 'revoked ')} not on the revocation list yet, so nobody learns of it."
            kind = "warning"
        self._crl_line.value = status(words, kind)

    def describe(self) -> str:
        """Return the certificate of the open row, and show how to revoke it, or why that can't be."""
        if (serial := self.table.opened) not in self._texts.index:
            return ""
        words, self._why.value = self._texts.loc[serial], ""
        if words["Revoked"] != "-":
            self._why.value = f"Revoked already, since {words['Revoked']}: that is final."
        elif words["Days left"] == "-":
            expired = f"Expired on {words['Expires']}"
            self._why.value = f"{expired}: nobody accepts it any more, so there is nothing to revoke."
        show_if(self._revoke, not self._why.value)
        if serial != self._suggested_for:  # else it is the learner's choice
            same = self._texts.index[(self._texts["Subject"] == words["Subject"]) & (self._texts["Days left"] != "-")]
            self._suggested_for, self._reason.value = serial, "superseded" if serial in same[1:] else ""
        if self._why.value:
            self.ask_nothing()
        path = self.ca.config.ca_path("new_certs_dir") / f"{serial}.pem"
        try:
            return certificate_card(read_copy(path, int(serial, 16), self.ca.certificate)).html
        except OnboardingError as error:
            return status(f"✗ {error}", "problem")

    # -- what a person may do

    def _buttons(self, workspace: Workspace) -> Iterator[widgets.Button]:
        def renew() -> None:
            said = _WORDS["renewed"].format
            self.do("Renewing", workspace.renew_device, lambda new: said(hex_serial(new.serial_number)))

        def tell() -> None:
            self.do("Telling the tenant", lambda: workspace.publish(workspace.tenant()), "✓ {}".format)

        yield button("Renew the device …", lambda: self.ask(_WORDS["renew"], "Renew", renew))
        yield button("Tell the tenant", tell)

    def _ask_to_revoke(self) -> None:
        serial, reason = self.table.opened, self._reason.value
        if serial not in self._texts.index:
            self.say("✗ Nothing was done: that row is no longer in the database.")
            return
        name, why = str(self._texts.at[serial, "Common name"]), reason or "none given"
        question = f"Revoke {serial}, {name}? Reason: {why}. That can't be taken back."
        self.ask(question, "Revoke", lambda: self._revoke_row(serial, reason))

    def _revoke_row(self, serial: str, reason: str) -> None:
        def then(row: DatabaseRow) -> str:
            self.poll()
            self._write.focus()
            why = f" ({row.reason})" if row.reason else ""
            return f"✓ {serial} is revoked{why}. Nobody learns of it until the revocation list is written."

        self.do(f"Revoking {serial}", lambda: self.ca.revoke(int(serial, 16), reason), then)

    def _write_crl(self) -> None:
        def then(crl: x509.CertificateRevocationList) -> str:
            self.poll()
            number = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
            many, until = _certificates(len(crl)), f"{crl.next_update_utc:%Y-%m-%d}"
            return f"✓ Revocation list {hex_serial(number)} is written: {many} on it, and it is good until {until}."

        self.do("Writing the revocation list", self.ca.update_crl, then)

    def picture(self) -> Rendered:
        """Return the database as a table, or why there is none."""
        self.poll()
        if not len(self._texts):
            return paragraph(self._problem or "No certificate has been signed yet.")
        return table("Signed certificates, the newest first", self._texts, self._texts.to_numpy().tolist())


def _certificates(count: int, kind: str = "") -> str:
    return counted(count, f"{kind}certificate is", f"{kind}certificates are")
