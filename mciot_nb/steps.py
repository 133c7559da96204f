"""How far a workspace has come: for each notebook what it made, whether that is there, and whether it fits together.

Without a passphrase nobody is asked: files are looked at, and what the local platform has kept, whether it runs or not;
what only a real tenant knows is not known. With it, every key and store is opened, and a real tenant is asked.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mciot_nb.errors import OnboardingError
from mciot_nb.local_platform import LocalPlatform
from mciot_nb.pki import jks, pbe
from mciot_nb.pki.chain import diagnose, fingerprint, is_ca, is_issued_by, read_certificates
from mciot_nb.pki.keys import is_key_of, read_private_key
from mciot_nb.pki.keystore import KEY_ALIAS, TRUST_ALIAS, read_key, read_store
from mciot_nb.pki.names import common_name, name_of
from mciot_nb.secret import Secret

if TYPE_CHECKING:
    from mciot_nb.workspace import Workspace

Check = Callable[["Workspace", Path, Secret | None], str]
DONE, OPEN, WRONG, UNKNOWN = "✓", "○", "✗", "?"


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
        return [(step.title, f"{step.state} {step.said}", ", ".join(step.files)) for step in self.steps]


def look(workspace: "Workspace", secret: Secret | None = None) -> Progress:
    """Look at each step; with ``secret``, the passphrase, also into the keys and stores."""
    return Progress(tuple(_look_at(workspace, secret, *step) for step in _STEPS))


def _look_at(workspace: "Workspace", secret: Secret | None, title: str, owner: str, names: str, check: Check) -> Step:
    folders = {"ca": workspace.ca_folder, "intermediate": workspace.intermediate_folder}
    folder = folders.get(owner) or workspace.device_file("")
    files = tuple(name for name in names.split() if (folder / name).exists())
    try:
        said = check(workspace, folder, secret) if files or not names else ""
    except OnboardingError as error:
        if names or error.code != "NO_FILE":  # else nothing was made yet that could be uploaded, or connect
            return Step(title, UNKNOWN if error.code == UNKNOWN else WRONG, str(error), files)
        said = ""
    if said:
        return Step(title, DONE, said, files)
    return Step(title, OPEN, f"{'optional' if owner == 'intermediate' else 'not yet'}: {title[:2]} makes it", files)


def _need(good: object, sentence: str, code: str = "") -> None:
    if not good:
        raise OnboardingError(sentence, code)


def _key(workspace: "Workspace", path: Path, secret: Secret | None) -> str:
    """Check that a key fits its certificate, as far as it may be opened; a CA's may be in a safe."""
    if not path.exists():
        return f"{path.name} is not here: in a safe, perhaps"
    if secret:
        owner = path.name.removesuffix("Key.pem")
        fits = is_key_of(workspace.certificate(owner), read_private_key(path, secret))
        _need(fits, f"{path.name} is not the key of {owner}Cert.pem: put the right one back.")
    return f"{path.name} {'opens, and fits its certificate' if secret else 'is here, unopened'}"


def _ca(workspace: "Workspace", folder: Path, secret: Secret | None) -> str:
    root = workspace.certificate("ca")
    _need(is_ca(root) and is_issued_by(root, root), "caCert.pem is no root CA's: put the right file back.")
    return f"caCert.pem is a CA's, signed by itself; {_key(workspace, folder / 'caKey.pem', secret)}"


def _intermediate(workspace: "Workspace", folder: Path, secret: Secret | None) -> str:
    _need(workspace.has_intermediate, "intermediateCert.pem is missing, or not signed by your CA: run 02 again.")
    return f"signed by your CA; {_key(workspace, folder / 'intermediateKey.pem', secret)}"


def _device(workspace: "Workspace", folder: Path, secret: Secret | None) -> str:
    by, key = workspace.issuer_certificate, folder / "deviceKey.pem"
    _need(is_issued_by(workspace.certificate("device"), by), "deviceCert.pem is not signed by your CA: run 03 again.")
    _need(key.exists(), f"{key.name} is missing in {folder}, and the device can't connect without it: put it back.")
    return f"signed by {common_name(name_of(by))}; {_key(workspace, key, secret)}"


def _chain(workspace: "Workspace", folder: Path, secret: Secret | None) -> str:
    chain, anchor = read_certificates(folder / "deviceCertChain.pem"), workspace.issuer_certificate
    good = chain[0] == workspace.certificate("device") and diagnose(chain, [anchor]).ok
    _need(good, "deviceCertChain.pem does not lead from this device to its CA: run 04 again.")
    return f"leads from {common_name(name_of(chain[0]))} to {common_name(name_of(anchor))}"


def _stores(workspace: "Workspace", folder: Path, secret: Secret | None) -> str:
    for kind in ("pkcs12", "jks"):
        key, trust = (folder / f"device{name}store.{kind}" for name in ("Key", "Trust"))
        for path in (key, trust):
            data = path.read_bytes() if path.exists() else b""
            whole = data.startswith(jks.MAGIC) or (data[:1] == b"\x30" and pbe.is_whole(data))
            _need(whole, f"{path.name} is missing, or no store: run 05 again.")
        if secret:
            ours = read_key(key, secret, alias=KEY_ALIAS)[1][0] == workspace.certificate("device")
            _need(ours, f"{key.name} is another device's: run 05 again.")
            _need(TRUST_ALIAS in read_store(trust, secret).trusted, f"{trust.name} trusts no server: run 05 again.")
    return "all four open: the device's key, and the server that it trusts" if secret else "all four are here, unopened"


def _upload(workspace: "Workspace", _: Path, secret: Secret | None) -> str:
    by, where = workspace.issuer_certificate, "status FROM trusted_certificates WHERE deleted IS NULL AND fingerprint"
    if workspace.tenant_settings.local:
        found = LocalPlatform.kept(workspace, where, fingerprint(by))
    else:
        _need(secret, "only your tenant knows: 06 asks it, and 12.", UNKNOWN)
        found = [one.status for one in [workspace.tenant().trusted_certificates.find(by)] if one]
    disabled = "your tenant has the CA's certificate, but disabled: enable it in the panel of 06."
    _need(found in ([], ["ENABLED"]), disabled)
    return f"your tenant trusts {common_name(name_of(by))}" if found else ""


def _connected(workspace: "Workspace", _: Path, secret: Secret | None) -> str:
    device = str(common_name(name_of(workspace.certificate("device"))))
    if workspace.tenant_settings.local:
        found = LocalPlatform.kept(workspace, "id FROM measurements WHERE device", device)
    else:
        _need(secret, "only your tenant knows: 07 asks it, and 12.", UNKNOWN)
        tenant = workspace.tenant().devices
        found = list(tenant.measurements(device, limit=1)["value"]) if tenant.find(device) else []
    return f"{device} has connected, and what it measured has arrived" if found else ""


_DEVICE = "deviceKey.pem deviceCsr.pem deviceCert.pem"
_STORES = " ".join(f"device{name}store.{kind}" for kind in ("pkcs12", "jks") for name in ("Key", "Trust"))
_STEPS = (
    ("01 Create your own CA", "ca", "caKey.pem caCert.pem caConfig.cnf database.txt", _ca),
    (
        "02 Create an intermediate certificate",
        "intermediate",
        "intermediateKey.pem intermediateCert.pem",
        _intermediate,
    ),
    ("03 Sign a device certificate", "device", _DEVICE, _device),
    ("04 Build the chain", "device", "deviceCertChain.pem", _chain),
    ("05 Make keystore and truststore", "device", _STORES, _stores),
    ("06 Upload the CA", "device", "", _upload),
    ("07 Connect over MQTT", "device", "", _connected),
)
