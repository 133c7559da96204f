"""The notebooks are the product: each runs, says what it said when it was committed, and shows only what is run."""

import ast
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from conftest import PASSPHRASE, ROOT, tool
from platform_tools import connected

import mciot_nb
from mciot_nb import LocalPlatform, Workspace
from mciot_nb.pki.chain import read_certificates
from mciot_nb.secret import reveal
from tools.notebooks import NOTEBOOKS, SANITIZE, canonical, execute, keep_old_outputs, prepare

NAMES = [path.stem for path in NOTEBOOKS]
#: One is run in the quick tier; the others are slow.
RUN = [pytest.param(path, id=path.stem, marks=[] if path == NOTEBOOKS[3] else pytest.mark.slow) for path in NOTEBOOKS]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    for name in list(os.environ):
        if name.startswith("MCIOT_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("MCIOT_WORKSPACE", str(tmp_path / "workspace"))
    yield Workspace()
    if platform := LocalPlatform.running(tmp_path / "workspace"):
        platform.stop()


def load(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def nbval(notebook: Path, folder: Path, word: str) -> tuple[int, str]:
    """Compare the outputs of a notebook; returns how many cells ``word`` is said of, and all that was said."""
    command = [sys.executable, "-m", "pytest", "-q", "--nbval", "--nbval-current-env", "-p", "no:cacheprovider"]
    command += ["--nbval-sanitize-with", str(SANITIZE), "--rootdir", str(folder), str(notebook)]
    said = subprocess.run(command, cwd=folder, capture_output=True, text=True).stdout
    found = re.search(rf"(\d+) {word}", said.splitlines()[-1])
    return int(found[1]) if found else 0, said


@pytest.mark.parametrize("path", RUN)
def test_outputs_are_as_committed_and_every_cell_is_compared(path: Path, workspace: Workspace, tmp_path: Path) -> None:
    for program in ("openssl", "keytool"):
        tool(program)  # 00 shows whether they are there
    prepare(workspace, path)
    notebook = load(path)
    passed, said = nbval(path, ROOT, "passed")
    assert passed == len(code_cells(notebook)) and " failed" not in said, said

    # The control: with each output changed, each cell fails.
    for cell in code_cells(notebook):
        cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text="something else entirely\n")]
    nbformat.write(notebook, tmp_path / path.name)
    failed, said = nbval(tmp_path / path.name, tmp_path, "failed")
    assert failed == len(code_cells(notebook)), said


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_the_file_is_canonical_and_holds_no_secret_and_no_path_of_a_machine(path: Path) -> None:
    text, notebook = path.read_text(encoding="utf-8"), load(path)
    assert text == canonical(notebook), "run: python3 run.py rebuild"
    assert set(re.findall(r"(?:127\.0\.0\.1|localhost):(\d+)", text)) <= {"8883"}, "one platform has one port"
    assert [cell.execution_count for cell in code_cells(notebook)] == list(range(1, len(code_cells(notebook)) + 1))
    shown = text.replace("-----BEGIN ENCRYPTED PRIVATE KEY-----<", "").replace(
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\\n", ""
    )
    assert "PRIVATE KEY" not in shown, "no more of a key than its first line, and only of one that is encrypted"
    for word in (PASSPHRASE, "widget-state", str(ROOT), str(Path.home()) + "/", "/tmp/", "Basic ey"):
        assert word not in text
    assert len(text) < 60_000


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_the_form_is_the_tutorials(path: Path) -> None:
    cells = load(path).cells
    assert cells[0].source.startswith("# ") and "**You will**" in cells[0].source and "**Time:**" in cells[0].source
    if path != NOTEBOOKS[0]:  # 00 says of each how long it takes
        minutes = re.search(r"\*\*Time:\*\* (\d+) minutes, plus (\d+) for the exercises", cells[0].source)
        assert minutes, "how long it takes, without the exercises and with them"
        row = rf"\({path.name}\).* {minutes[1]} \| {minutes[2]} \|$"
        assert re.search(row, load(NOTEBOOKS[0]).cells[2].source, re.M)
    if path != NOTEBOOKS[0]:  # which shows at its top how far the learner is
        assert cells.pop().source == "workspace.progress()"
    exercises = [cell.metadata.get("tags") for cell in cells if cell.source.startswith("# Exercise")]
    assert exercises and all(tags == ["raises-exception"] for tags in exercises), "none of them may stop Run All"
    headings = [cell.source.partition("\n")[0] for cell in cells if cell.cell_type == "markdown"]
    assert [heading for heading in headings if heading in ("## Exercises", "## Questions", "## Recap")] == [
        *("## Exercises", "## Questions", "## Recap")
    ]
    assert cells[-1].source.startswith("## Recap") and ".ipynb)" in cells[-1].source
    for before, cell in itertools.pairwise(cells):
        if cell.cell_type == "code":
            assert before.cell_type == "markdown", f"no prose before:\n{cell.source}"
            assert len(cell.source.splitlines()) <= 10
    for link in re.findall(r"\]\(([^)]+\.ipynb)\)", "\n".join(cell.source for cell in cells)):
        assert (path.parent / link).exists(), link


# The one door --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_every_import_of_ours_is_from_the_package_itself(path: Path) -> None:
    folded = re.findall(r"```python\n(.*?)```", "\n".join(cell.source for cell in load(path).cells), re.DOTALL)
    for source in [*(cell.source for cell in code_cells(load(path))), *folded]:
        for node in ast.walk(ast.parse(source.replace("%reload_ext", "#"))):
            if isinstance(node, ast.Import):
                assert not any(name.name.startswith("mciot") for name in node.names), source
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mciot"):
                assert node.module == "mciot_nb" and {name.name for name in node.names} <= set(mciot_nb.__all__), source


@pytest.mark.parametrize("name", mciot_nb.__all__)
def test_every_public_name_shows_an_example(name: str) -> None:
    text = getattr(mciot_nb, name).__doc__ or ""
    assert "Example: " in text or "::" in text


def test_the_package_is_quick_to_import_and_lists_its_names() -> None:
    assert set(mciot_nb.__all__) <= set(dir(mciot_nb)) and len(mciot_nb.__all__) <= 52
    code = "import mciot_nb, sys; print({'pandas', 'ipywidgets', 'cryptography'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
    with pytest.raises(AttributeError, match="no attribute 'SubjectForm'"):
        _ = mciot_nb.SubjectForm


# Whole notebooks -----------------------------------------------------------------------------------------------------


def run_all(paths: list[Path]) -> None:
    for path in paths:
        assert execute(load(path), path) == ""


#: Who gets a new certificate in each run: a lost device and the guide's own in 09, a lost site in 10.
MADE_ANEW = re.compile("CN=(device-lost|device-0001|ulm-.*)(,|$)")
RENEWED = "device(Cert|CertChain|Key|Csr|Keystore)[.](pem|jks|pkcs12)"


def contents(workspace: Workspace) -> dict[Path, bytes]:
    """Return the CA's files, without what 09 and 10 make anew each time; of the device's own, whose they are."""
    found = {path: path.read_bytes() for path in workspace.ca_folder.rglob("*") if path.is_file()}
    for path in [path for path in found if "fleet" in path.parts or re.match("serial|crlnumber|caCrl", path.name)]:
        del found[path]
    for path in [path for path in found if re.fullmatch("[0-9A-F]{4,}", path.stem)]:
        if MADE_ANEW.search(read_certificates(path)[0].subject.rfc4514_string()):
            del found[path]
    for path in [path for path in found if path.name.startswith("database")]:
        rows = found[path].decode().splitlines()
        found[path] = "\n".join(row for row in rows if not MADE_ANEW.search(row)).encode()
    for path in [path for path in found if path.parent == workspace.device_file("") and is_renewed(path)]:
        known = [one.subject.rfc4514_string() for one in read_certificates(path)] if "Cert" in path.stem else []
        found[path] = "\n".join(known).encode()
    return found


def is_renewed(path: Path) -> bool:
    return re.fullmatch(RENEWED, path.name) is not None


@pytest.mark.slow
def test_run_all_works_in_any_order_again_and_again(workspace: Workspace) -> None:
    run_all(NOTEBOOKS[::-1])
    made = contents(workspace)
    run_all([*NOTEBOOKS, *NOTEBOOKS[1:4]])
    assert contents(workspace) == made
    earlier = [path for path in (workspace.folder / "earlier").rglob("*") if path.is_file()]
    assert earlier and all(map(is_renewed, earlier)), "only 09 replaces something, and keeps a copy"


@pytest.mark.slow
def test_07_runs_on_todays_platform_too_and_its_clean_up_leaves_nothing(workspace: Workspace) -> None:
    tenant = workspace.use_profile("current").tenant
    last = NOTEBOOKS[7]
    assert execute(load(last), last) == ""  # the control: the clean-up waits to be asked for
    assert len(tenant.trusted_certificates.list()) == len(tenant.devices.to_frame()) == 1
    notebook = load(last)
    cell = next(cell for cell in notebook.cells if cell.source.startswith("clean_up = False\n"))
    cell.source = cell.source.replace("False", "True")
    assert execute(notebook, last) == ""
    assert tenant.trusted_certificates.list() == [] and tenant.devices.to_frame().empty
    running = LocalPlatform.running(workspace.folder)
    assert running and running.profile == "current"


@pytest.mark.slow
def test_a_trainee_uses_a_tenant_of_the_class(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = LocalPlatform.start(tmp_path / "class", "current", tenants=2)
    try:
        tenant = platform.tenants[1]
        known = {"URL": tenant.url, "TENANT": tenant.tenant_id, "USER": tenant.user, "MQTT_PORT": str(tenant.mqtt[1])}
        known |= {"PASSWORD": reveal(tenant.password or ""), "PASSPHRASE": "Zug-um-Zug-7"}
        for name, value in known.items():
            monkeypatch.setenv(f"MCIOT_{name}", value)
        assert "certificate verify failed" in execute(load(NOTEBOOKS[6]), NOTEBOOKS[6])  # the control
        monkeypatch.setenv("MCIOT_CA_FILE", str(platform.server_certificate))
        run_all(NOTEBOOKS[5:8])
        assert set(connected(platform)["tenant"]) == {tenant.tenant_id}
        assert tenant.trusted_certificates.list()[0].proven and not platform.tenant.trusted_certificates.list()
    finally:
        platform.stop()


@pytest.mark.slow
def test_another_subject_moves_the_old_ca_aside_and_the_rest_is_remade(workspace: Workspace) -> None:
    run_all(NOTEBOOKS)
    old, notebook = read_certificates(workspace.ca_folder / "caCert.pem"), load(NOTEBOOKS[1])
    form = next(cell for cell in notebook.cells if cell.id == "ca-form")
    form.source += '\nform._fields["common_name"].value = "Another CA"\nform.submit()'
    assert execute(notebook, NOTEBOOKS[1]) == "" and "Moved the CA that was here" in json.dumps(notebook)
    (earlier,) = {path.parent for path in workspace.folder.glob("earlier/*/caCertificate/caCert.pem")}  # 09's have none
    assert read_certificates(earlier / "caCert.pem") == old
    assert (earlier / "deviceCertificates" / "deviceKey.pem").exists()
    run_all(NOTEBOOKS)  # the form now offers what was submitted: nothing moves again
    assert workspace.subject("ca").common_name == "Another CA"
    assert [p.parent for p in workspace.folder.glob("earlier/*/caCertificate/caCert.pem")] == [earlier]
    device = read_certificates(workspace.device_file("deviceCertChain.pem"))
    assert device[0].issuer == workspace.subject("ca").to_x509()


@pytest.mark.slow
def test_the_guide_runs_in_the_workspace_that_is_named(tmp_path: Path) -> None:
    folder, secret = tmp_path / "workspace", "Zeppelin-8 Oelkanne"  # ASCII, for keytool
    environment = {**os.environ, "MCIOT_WORKSPACE": str(folder), "MCIOT_PASSPHRASE": secret}
    command = [sys.executable, "-m", "tools.notebooks", "run"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    end = r"Achieved:\n  ✓ device-0001 connected .*\n  ✓ device-0002 .*\n  ✓ device-lost .*\n"
    end += r"(  ✓ lab-device-\d+ .*\n)?  ✓ 40 devices of the fleet .*\n  ✓ \d+ measurements .*\n  ✓ a ClientId .*\n"
    assert f"Workspace: {folder}\n" in done.stdout and re.search(f"{end}$", done.stdout) and not done.stderr
    assert not re.search(r"(?i)fail|error|refused|✗|[ /]\.", done.stdout), "no word of failure, no hidden file"
    assert not (folder / "passphrase").exists(), "the environment's passphrase serves"
    assert LocalPlatform.running(folder) is None, "the guide stops its own platform"
    for data in [(done.stdout + done.stderr).encode(), *(p.read_bytes() for p in folder.rglob("*") if p.is_file())]:
        assert secret.encode() not in data
    ca, chain = folder / "caCertificate", folder / "caCertificate" / "deviceCertificates" / "deviceCertChain.pem"
    verified = subprocess.run([tool("openssl"), "verify", "-CAfile", ca / "caCert.pem", chain], capture_output=True)
    assert verified.stdout.endswith(b": OK\n"), "that openssl and keytool take each file: test_by_hand, and their own"
    again = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert again.returncode == 0 and f"Workspace: {folder}\n" not in again.stdout, "a folder in use is left alone"


def test_rebuilding_keeps_an_output_that_differs_only_in_what_differs_in_every_run() -> None:
    def notebook(text: str) -> Any:
        data = {"text/html": f"<b>{text}</b>", "text/plain": text}
        data = dict(reversed(data.items())) if "2027" in text else data
        cell = nbformat.v4.new_code_cell("x", outputs=[nbformat.v4.new_output("execute_result", data)])
        cell.id = "one"
        return nbformat.v4.new_notebook(cells=[cell])

    for text, same in (("at 2027-01-02 11:12:13 UTC", True), ("at noon", False)):
        old, new = notebook("at 2026-11-23 10:00:00 UTC"), notebook(text)
        keep_old_outputs(new, old)
        assert (new.cells[0].outputs == old.cells[0].outputs) == same
