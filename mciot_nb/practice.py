"""The exercises of the notebooks, and how far a learner is with them.

What is asked for is in ``data/exercises.toml``: for each exercise its files, its ``check`` and its sentences. A check
yields facts, a name and a value each; one counts where the exercise has a sentence of that name, and must be true, or
what ``wants`` says. Looking changes nothing, and whatever the files hold, the answer is a sentence.
"""

import os
import re
import tomllib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from cryptography import x509

from mciot_nb.errors import OnboardingError
from mciot_nb.fleet import read_devices
from mciot_nb.pki import chain, keystore
from mciot_nb.pki.config import read_config
from mciot_nb.pki.crl import unlisted
from mciot_nb.pki.database import SigningDatabase
from mciot_nb.pki.files import DATA
from mciot_nb.pki.keys import KeyChoice, is_key_of, read_private_key
from mciot_nb.pki.names import common_name, name_of
from mciot_nb.ui.markup import Rendered, card
from mciot_nb.workspace import Workspace

DONE, TODO, WRONG = "✓ done", "○ not done yet", "✗ look here"
Words = dict[str, Any]
Facts = Iterator[tuple[str, object]]


def check_my_work(notebook: str, workspace: Workspace | None = None) -> Rendered:
    """Look at what the workspace holds of a notebook's exercises, and show what is done and what is not.

    The workspace is the one that was opened last. Example: ``check_my_work("03")``.
    """
    number, table = f"{notebook!s:0>2}", tomllib.loads((DATA / "exercises.toml").read_text("utf-8"))
    if number not in table:
        raise OnboardingError(f"There are no exercises in {number}: use one of {', '.join(table)}.", "BAD_VALUE")
    desk = _Desk(workspace or Workspace.latest or Workspace())
    rows = [(f"{at}. {words['title']}", *_look(desk, words)) for at, words in enumerate(table[number], 1)]
    done = sum(state == DONE for _, state, _ in rows)
    return card(f"Your exercises in {number}: {done} of {len(rows)} done", rows)


def _look(desk: "_Desk", words: Words) -> tuple[str, str]:
    """Return the state of one exercise, and the sentence that says what was found."""
    before, file = words.get("after", ("", ""))
    if not (desk.folder / file).exists():
        return TODO, f"This builds on exercise {before}: do that one first."
    missing = [file for file in words.get("files", ()) if not (desk.folder / file).exists()]
    if missing and missing == words["files"]:
        return TODO, words["todo"]
    if missing:
        return WRONG, f"Begun, but practice/{missing[0]} is missing. {words['todo']}"
    try:
        for name, found in getattr(desk, words["check"])(words):
            if name in words and found != words.get("wants", {}).get(name, True):
                return TODO if name in ("todo", "asked") else WRONG, words[name].format(found)
    except OnboardingError as error:
        return WRONG, str(error)
    except Exception as error:  # whatever is there: no traceback
        return WRONG, f"What is there can't be read ({type(error).__name__}): make the files of this exercise again."
    return DONE, words["done"]


class _Desk:
    """The learner's own part of the workspace, a second CA and a device of that one, and the checks of it."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace, self.folder = workspace, workspace.practice_folder

    def read(self, file: str) -> list[x509.Certificate]:
        return chain.read_certificates(self.folder / file)

    def own(self) -> list[x509.Certificate]:
        return [self.read("device/deviceCert.pem")[0], self.read("secondCa/caCert.pem")[0]]

    def name(self) -> str:
        return common_name(name_of(self.own()[0])) or ""

    def revocations(self) -> dict[int, str]:
        rows = SigningDatabase(self.folder / "secondCa/database.txt", None).rows()
        return {row.serial: row.reason for row in rows if row.status == "R"}

    def answers(self, note: str) -> dict[str, str]:
        """Return what may be written down, and the name of the sentence that it deserves; ``right`` has none."""
        workspace, settings = self.workspace, self.workspace.tenant_settings
        if note == "where.txt":
            return {str(workspace.folder): "outside", str(workspace.ca_folder): "right"}
        if note == "tenant.txt":
            return {"local" if settings.local else settings.url: "right"}
        first = workspace.certificate("ca")
        if note == "path-length.txt":
            return {str(chain.path_length(first)): "right"}
        if note == "fingerprint.txt":
            second = self.read("secondCa/caCert.pem")[0]
            wrong = {chain.fingerprint(first, "sha256"): "first", chain.fingerprint(second): "sha1"}
            return wrong | {chain.fingerprint(second, "sha256"): "right"}
        if note == "failed.txt":
            return {
                str(row["line"]): "right" if row["state"] else "good" for row in read_devices(self.folder / "plant.csv")
            }
        device = workspace.certificate("device")  # later.txt
        later = device.not_valid_after_utc + timedelta(days=1)
        return {"OK": "today", chain.diagnose([device], [workspace.issuer_certificate], at=later).code: "right"}

    def note(self, words: Words) -> Facts:
        *_, file = words["files"]
        known = {_plain(text): name for text, name in (words.get("answers") or self.answers(file)).items()}
        found = _text(self.folder / file)[:200]
        yield known.get(_plain(found), "other"), found

    def certificate(self, words: Words) -> Facts:
        file, key = words["files"]
        signed, name = self.read(file)[0], common_name(name_of(self.read(file)[0]))
        yield "issuer", chain.is_issued_by(signed, self.read("secondCa/caCert.pem")[0])
        yield "ca", chain.is_ca(signed)
        yield "pathlen", chain.path_length(signed)
        yield "type", KeyChoice.of(signed).key_type
        yield "days", KeyChoice.of(signed).days
        yield "umlaut", name_of(signed).rfc4514_string().isascii()
        yield "name", name and ":" not in name and name != self.workspace.subject("device").common_name
        yield "open", b"ENCRYPTED" in (self.folder / key).read_bytes()
        yield "pair", is_key_of(signed, read_private_key(self.folder / key, self.workspace.passphrase))
        yield "revoked", signed.serial_number not in self.revocations()

    def plant(self, words: Words) -> Facts:
        made = [chain.read_certificates(path)[0] for path in self.folder.glob("plant/*/deviceCert.pem")]
        yield "few", len(made) >= 3
        yield "issuer", all(chain.is_issued_by(one, self.read("secondCa/caCert.pem")[0]) for one in made)
        yield "days", {KeyChoice.of(one).days for one in made} == {90}

    def section(self, _: Words) -> Facts:
        section = read_config(self.folder / "secondCa/caConfig.cnf").sections.get("v3_intermediate", {})
        said = {name: _plain(section.get(name, "")).split(",") for name in ("basicConstraints", "keyUsage")}
        yield "todo", bool(section)
        yield "ca", {"critical", "catrue"} <= set(said["basicConstraints"])
        yield "pathlen", "pathlen0" in said["basicConstraints"]
        yield "usage", "keycertsign" in said["keyUsage"]

    def revoked(self, _: Words) -> Facts:
        rows, path = self.revocations(), self.folder / "secondCa/crl/caCrl.pem"
        yield "todo", bool(rows)
        yield "reason", "keyCompromise" in rows.values()
        yield "list", path.exists()
        yield "old", not unlisted(path, set(rows))

    def chain(self, words: Words) -> Facts:
        (device, second), shown = self.own(), self.read(words["files"][0])
        verdict = chain.diagnose(shown, [second], "guide-2021", at=device.not_valid_before_utc)
        yield "others", device in shown
        yield "first", shown[0] == second
        yield "good", verdict.ok
        if len(words["files"]) > 1:
            yield from self.note(words | {"answers": {verdict.code: "right"}})

    def store(self, words: Words) -> Facts:
        path, note = self.folder / words["files"][0], self.folder / "device/password.txt"
        password, server = _text(note), self.workspace.device_file("serverCertificate.pem")
        yield "mode", os.name != "posix" or not note.stat().st_mode & 0o077
        yield "same", password != self.workspace.passphrase.reveal()
        entries = keystore.read_store(path, password).entries
        held = [certificate for entry in entries for certificate in entry.chain]
        yield "own", self.own()[0] in held
        yield "second", self.own()[1] in held
        yield "alias", keystore.KEY_ALIAS not in [entry.alias for entry in entries]
        yield "server", server.exists() and chain.read_certificates(server)[0] in held

    def upload(self, _: Words) -> Facts:
        tenant, name = self.workspace.tenant(), self.name()
        found = tenant.trusted_certificates.find(self.own()[1])
        yield "todo", found is not None
        yield "disabled", found and found.status == "ENABLED"
        yield "auto", bool((found and not found.auto_registration) or tenant.devices.find(name))  # 07 turns it on

    def refused(self, words: Words) -> Facts:
        yield from self.note(words)
        if self.workspace.tenant_settings.local:  # a real tenant shows nobody its log
            log, name = self.workspace.platform().log(), self.name()
            codes = sorted(set(log["code"][log["client_id"] == name]))
            yield "log", "NOT_REGISTERED" in codes or ", ".join(codes) or "nothing"

    def sent(self, _: Words) -> Facts:
        devices, name = self.workspace.tenant().devices, self.name()
        yield "todo", devices.find(name) is not None
        yield "event", not devices.events(name).empty
        states = [operation.status for operation in devices.operations(name)]
        yield "asked", bool(states)
        yield "answered", "SUCCESSFUL" in states or "".join(states[-1:])


def _text(path: Path) -> str:
    data = path.read_bytes()  # Notepad begins with a mark, and PowerShell's ">" writes UTF-16
    return data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig", "replace").strip()


def _plain(text: str) -> str:
    return re.sub(r"[\s:'\"]", "", text).rstrip("/\\.").casefold()
