"""A file of what was made is gone: a step goes on, or stops in one sentence; nothing is made in its place."""

from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest

from mciot_nb import LocalPlatform, Workspace
from mciot_nb.errors import OnboardingError
from mciot_nb.secret import Secret
from tools.notebooks import NOTEBOOKS, execute

STEPS: dict[str, Callable[[Workspace], object]] = {
    "01": lambda w: w.create_ca(w.subject("ca")),
    "02": lambda w: w.create_intermediate(w.subject("intermediate")),
    "03": lambda w: (w.signer(), w.create_device_request(w.subject("device")), w.sign_device_request()),
    "04": lambda w: w.create_chain(),
    "05": lambda w: w.create_keystore(),
    "06": lambda w: (w.issuer_certificate, w.signer().key),
    "07": lambda w: w.device(w.tenant()),
}
ROOT, MIDDLE, DEVICE = "caCertificate", "caCertificate/intermediateCertificate", "deviceCertificates"
#: By the file that is lost, for each issuer: the steps that stop. In those of `RESTORED` the file is there again.
LOST = {
    "ca": {
        f"{ROOT}/caKey.pem": "01 03 06",
        f"{ROOT}/caCert.pem": "01 03 04 05 06",
        f"{ROOT}/caConfig.cnf": "01 03 06",
        f"{ROOT}/database.txt": "01 03 06",
        f"{ROOT}/serial": "",
        f"{ROOT}/{DEVICE}/deviceKey.pem": "03 05 07",
        f"{ROOT}/{DEVICE}/deviceCsr.pem": "",
        f"{ROOT}/{DEVICE}/deviceCert.pem": "",
        f"{ROOT}/{DEVICE}/deviceCertChain.pem": "",
        "passphrase": "01 02 03 05 06 07",
    },
    "intermediate": {
        f"{ROOT}/caKey.pem": "01",  # which lies in a safe
        f"{ROOT}/caCert.pem": "01",
        f"{ROOT}/caConfig.cnf": "01",
        f"{ROOT}/database.txt": "01",
        f"{MIDDLE}/intermediateKey.pem": "02 03 06",
        f"{MIDDLE}/intermediateConfig.cnf": "02 03 06",
        f"{MIDDLE}/intermediateCsr.pem": "",
        f"{MIDDLE}/intermediateCert.pem": "",
        f"{MIDDLE}/database.txt": "02 03 06",
        f"{MIDDLE}/{DEVICE}/deviceKey.pem": "03 05 07",
        f"{MIDDLE}/{DEVICE}/deviceCsr.pem": "",
        "passphrase": "01 02 03 05 06 07",
    },
}
RESTORED = ("deviceCsr.pem", "deviceCert.pem", "deviceCertChain.pem", "intermediateCert.pem")
EACH = [(issuer, lost) for issuer, files in LOST.items() for lost in files]


def made(workspace: Workspace, issuer: str) -> None:
    workspace.catch_up("intermediate")
    workspace.choose_issuer(issuer)
    workspace.catch_up("stores")


def files(workspace: Workspace) -> dict[str, bytes]:
    """Return what is in the workspace, but for locks, what the platform keeps, and stores, which are made anew."""
    paths = [path for path in workspace.folder.rglob("*") if path.is_file() and path.suffix not in (".lock", ".json")]
    names = {path.relative_to(workspace.folder).as_posix(): path for path in paths}
    return {name: path.read_bytes() for name, path in names.items() if not name.startswith("platform/")}


@pytest.mark.parametrize(("issuer", "lost"), EACH, ids=[f"{issuer} {lost}" for issuer, lost in EACH])
def test_a_lost_file_stops_only_what_needs_it_and_nothing_is_replaced(
    quick_workspace: Workspace, issuer: str, lost: str
) -> None:
    made(quick_workspace, issuer)
    before, path = files(quick_workspace), quick_workspace.folder / lost
    aside = path.rename(quick_workspace.folder.parent / "aside")
    stopped = []
    for step, do in STEPS.items():
        try:
            do(Workspace(quick_workspace.folder))
        except OnboardingError as error:
            stopped.append(step)
            assert path.name in str(error) and "workspace.start_over()" in str(error) and str(error).endswith(".")
    assert " ".join(stopped) == LOST[issuer][lost]
    after = files(quick_workspace)
    assert path.exists() == (path.name in RESTORED)
    assert {name: data for name, data in after.items() if name != lost} == {
        name: data for name, data in before.items() if name != lost
    }, "nothing has moved or changed"

    aside.replace(path)  # the control: with the file, everything goes on, and with nothing new
    for do in STEPS.values():
        do(Workspace(quick_workspace.folder))
    assert files(quick_workspace) == before


def test_another_subject_is_asked_for_and_archives_what_has_no_key(quick_workspace: Workspace) -> None:
    workspace = quick_workspace
    workspace.catch_up("chain")
    key = workspace.device_file("deviceKey.pem")
    key.unlink()
    assert workspace.create_device_request(workspace.subject("device").__class__(common_name="another"))
    assert key.exists() and list(workspace.folder.glob("earlier/1/**/deviceCert.pem"))


def test_a_lost_practice_passphrase_is_taken_from_memory(quick_workspace: Workspace) -> None:
    quick_workspace.catch_up("device")
    path = quick_workspace.folder / "passphrase"
    text = path.read_text()
    path.unlink()
    workspace = Workspace(quick_workspace.folder)
    with pytest.raises(OnboardingError, match="does not open"):
        workspace.type_passphrase(Secret("another passphrase"))
    aside = (workspace.ca_folder / "caKey.pem").rename(workspace.folder / "safe.pem")
    with pytest.raises(OnboardingError, match=r"does not open deviceKey\.pem, which is here"):
        workspace.type_passphrase(Secret("another passphrase"))
    aside.rename(workspace.ca_folder / "caKey.pem")
    workspace.type_passphrase(Secret(text))
    assert workspace.ca().certificate and not path.exists()


SAFE = [(issuer, lost) for issuer, lost in EACH if Path(lost).name in ("caKey.pem", "caCert.pem", "deviceKey.pem")]
SAFE += [("ca", f"{ROOT}/database.txt"), ("ca", f"{ROOT}/serial"), ("ca", "passphrase")]


@pytest.mark.slow
@pytest.mark.parametrize(("issuer", "lost"), SAFE, ids=[f"{issuer} {lost}" for issuer, lost in SAFE])
def test_every_notebook_goes_on_or_stops_in_a_sentence(
    quick_workspace: Workspace, issuer: str, lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(quick_workspace, issuer)
    (quick_workspace.folder / lost).unlink()
    before = {name: data for name, data in files(quick_workspace).items() if name.endswith((".pem", ".cnf"))}
    monkeypatch.setenv("MCIOT_WORKSPACE", str(quick_workspace.folder))
    stopped = {}
    for path in NOTEBOOKS[1:]:
        failure = execute(nbformat.read(path, as_version=4), path)
        if failure:
            stopped[path.stem[:2]] = failure
            way_out = "echo 1000 > serial" if Path(lost).name == "serial" else "workspace.start_over()"
            assert Path(lost).name in failure and way_out in failure and "Traceback" not in failure
    if (issuer, Path(lost).name) == ("intermediate", "caKey.pem"):
        assert set(stopped) <= {"01", "02", "09"}, "as 02 advises: the root's key is in a safe; 09 moves to a new root"
    after, root = files(quick_workspace), quick_workspace.folder
    changed = {name for name, data in before.items() if after.get(name) != data}
    assert {Path(name).parent.name for name in changed} <= {DEVICE}, "09 renews the device, and nothing else changes"
    for name in changed:
        assert before[name] in [path.read_bytes() for path in root.glob(f"earlier/*/{name}")], "a copy is kept"
    assert not (root / lost).exists() or lost == "passphrase"
    if platform := LocalPlatform.running(quick_workspace.folder):
        platform.stop()
