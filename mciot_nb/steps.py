"""How far a workspace has come: for each notebook what it made, whether that is there, and whether it fits together.

Without a passphrase nobody is asked: files are looked at, and what the local platform has kept, whether it runs or not;
what only a real tenant knows is not known. With it, every key and store is opened, and a real tenant is asked.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mciot_nb.errors import OnboardingError
from mciot_nb.local_platform import LocalPlatform
from mciot_nb.pki import jks, pbe
from mciot_nb.pki.chain import diagnose, fingerprint, is_ca, is_issued_by, read_certificates
from mciot_nb.pki.files import read_file
from mciot_nb.pki.keys import is_key_of, read_private_key
from mciot_nb.pki.keystore import TRUST_ALIAS, read_key, read_store
from mciot_nb.pki.names import common_name, name_of
from mciot_nb.secret import Secret

if TYPE_CHECKING:
    from mciot_nb.workspace import Workspace

DONE, OPEN, WRONG, UNKNOWN = "✓", "○", "✗", "?"
_STEPS = json.loads((Path(__file__).parents[1] / "data" / "steps.json").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Step:
    """What a notebook makes: ``DONE``, ``OPEN``, ``WRONG`` or ``UNKNOWN``, a sentence, and the files that are there."""

    title: str
    state: str
    said: str
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Progress:
    """The steps of the tutorial, in their order."""

    steps: tuple[Step, ...]

    @property
    def left(self) -> list[Step]:
        """The steps that a connected device needs, and that are not done; the intermediate of 02 is optional."""
        return [step for step in self.steps if step.state != DONE and not step.title.startswith("02")]

    @property
    def rows(self) -> list[tuple[str, str, str]]:
        """Title, state and sentence, and files of each step, for a card."""
        return [(step.title, f"{step.state} {step.said}.", ", ".join(step.files)) for step in self.steps]


def look(workspace: "Workspace", secret: Secret | None = None) -> Progress:
    """Look at each step; with ``secret``, the passphrase, also into the keys and stores."""
    folders = {"ca": workspace.ca_folder, "intermediate": workspace.intermediate_folder}
    return Progress(tuple(_look_at(workspace, folders.get(s["owner"]), secret, s) for s in _STEPS))


def _look_at(workspace: "Workspace", folder: Path | None, secret: Secret | None, known: dict[str, Any]) -> Step:
    folder, title, names = folder or workspace.device_file(""), known["title"], known["files"]
    files = tuple(name for name in names if (folder / name).exists())
    if not names and not secret and not workspace.tenant_settings.local:
        return Step(title, UNKNOWN, f"only your tenant can say: {title[:2]} asks it")
    good = None
    try:
        if files or not names:
            good = _CHECKS[title[:2]](workspace, folder, secret)
    except OnboardingError as error:
        if error.code != "NO_FILE" or title[:2] in ("04", "05"):  # else what it is to be made of is not there yet
            return Step(title, WRONG if names else UNKNOWN, str(error).removesuffix("."), files)
    if good is None:
        return Step(title, OPEN, f"{'optional' if title[:2] == '02' else 'not yet'}: {title[:2]} makes it")
    in_a_safe = "; its key is not here: in a safe, perhaps" if names and names[0] not in files else ""
    said = known["here"] + in_a_safe if in_a_safe or not secret else known.get("opened", known["here"])
    return Step(title, DONE, said, files) if good else Step(title, WRONG, known["wrong"], files)


def _pair(owner: str, workspace: "Workspace", folder: Path, secret: Secret | None) -> bool:
    """Whether a certificate is signed by whom it should, and, as far as its key may be opened, fits that."""
    one, path = workspace.certificate(owner), folder / f"{owner}Key.pem"
    if owner == "device" and not path.exists():
        raise OnboardingError("deviceKey.pem is missing, and no device can connect without it: put it back.")
    signed = is_issued_by(one, workspace.issuer_certificate if owner == "device" else workspace.certificate("ca"))
    fits = not secret or not path.exists() or is_key_of(one, read_private_key(path, secret))
    return signed and fits and is_ca(one) == (owner != "device")


def _chain(workspace: "Workspace", folder: Path, _: Secret | None) -> bool:
    chain = read_certificates(folder / "deviceCertChain.pem")
    return chain[0] == workspace.certificate("device") and diagnose(chain, [workspace.issuer_certificate]).ok


def _stores(workspace: "Workspace", folder: Path, secret: Secret | None) -> bool:
    for path in (folder / name for name in _STEPS[4]["files"]):
        data = read_file(path, f"{path.name} is missing: run 05 again.")
        if not (data.startswith(jks.MAGIC) or (data[:1] == b"\x30" and pbe.is_whole(data))):
            return False
        if secret and "Key" in path.name and read_key(path, secret)[1][0] != workspace.certificate("device"):
            return False
        if secret and "Trust" in path.name and TRUST_ALIAS not in read_store(path, secret).trusted:
            return False
    return True


def _upload(workspace: "Workspace", _folder: Path, _secret: Secret | None) -> bool | None:
    by, where = workspace.issuer_certificate, "status FROM trusted_certificates WHERE deleted IS NULL AND fingerprint ="
    if workspace.tenant_settings.local:
        found = [status for (status,) in LocalPlatform.kept(workspace, where, fingerprint(by))]
    else:
        found = [one.status for one in [workspace.tenant().trusted_certificates.find(by)] if one]
    return found == ["ENABLED"] if found else None


def _connected(workspace: "Workspace", _folder: Path, _secret: Secret | None) -> bool | None:
    device = str(common_name(name_of(workspace.certificate("device"))))
    if workspace.tenant_settings.local:
        return bool(LocalPlatform.kept(workspace, "id FROM measurements WHERE device =", device)) or None
    known = workspace.tenant().devices
    return bool(known.find(device) and len(known.measurements(device, limit=1))) or None


_CHECKS: dict[str, Callable[..., bool | None]] = {
    **{number: partial(_pair, owner) for number, owner in (("01", "ca"), ("02", "intermediate"), ("03", "device"))},
    **{"04": _chain, "05": _stores, "06": _upload, "07": _connected},
}
