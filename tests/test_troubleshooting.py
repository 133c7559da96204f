"""The page of troubleshooting: every code has its entry, every heading is there, every command and procedure works."""

import ast
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from conftest import ROOT, tool

from mciot_nb import (
    CertificateAuthority,
    KeyChoice,
    KeyType,
    LocalPlatform,
    OnboardingError,
    Secret,
    Workspace,
    diagnose,
)
from mciot_nb.connect.mqtt import ALERTS, CONNACK
from mciot_nb.pki.config import read_config
from mciot_nb.pki.keys import read_private_key
from tools import trouble_page
from tools.error_pages import PACKAGES, coded_errors

ROWS = trouble_page.known_codes()
HEAD = trouble_page.HEAD.read_text(encoding="utf-8")
CHAIN = "caCertificate/deviceCertificates"


def test_the_page_is_up_to_date() -> None:
    entries = coded_errors()
    assert trouble_page.PAGE.read_text(encoding="utf-8") == trouble_page.page(entries), (
        "run python -m tools.error_pages"
    )


def statuses() -> set[int]:
    """Return each status that the platform's REST answers a call with, or that the client has a sentence for."""
    found = {401, 403, 404, 409, 422}  # of Tenant.request
    for path in (ROOT / "mciot_platform" / "rest").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("RestError", "HTTPError"):
                found |= {one.value for one in node.args[:1] if isinstance(one, ast.Constant)}  # type: ignore[misc]
    return found


def test_every_code_has_an_entry_and_every_entry_a_code() -> None:
    said = {entry.code for entry in coded_errors()} | {f"HTTP_{status}" for status in statuses()}
    said |= {f"CONNACK_{number}" for number in CONNACK} | {f"ALERT_{name}" for name in ALERTS}
    assert {"CONNACK_5", "HTTP_415", "OTHER_PROFILE"} <= said and "OK" not in said
    assert said - set(ROWS) == set(), "add them to data/codes.toml"
    assert set(ROWS) - said == set(), "nothing says these any more: take them out of data/codes.toml"
    assert sum(len(group) - 2 for group in trouble_page.groups().values()) == len(ROWS), "a code stands in two groups"


def test_every_entry_says_why_and_what_to_do_and_names_a_heading_of_a_notebook() -> None:
    headings = {
        number: set(re.findall(r"^##+ (.+)$", "\n".join(markdown(path)), re.MULTILINE))
        for number, path in trouble_page.BY_NUMBER.items()
    }
    for code, row in ROWS.items():
        assert set(row) - {"see", "command"} == {"why", "fix", "read"}, code
        assert all(row[part].endswith((".", ")")) for part in ("why", "fix")), code
        number, _, heading = row["read"].partition(" ")
        assert heading in headings[number], f"{code}: notebook {number} has no section {heading!r}"


def markdown(path: Path) -> list[str]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]


def test_what_is_seen_can_be_read() -> None:
    page = trouble_page.PAGE.read_text(encoding="utf-8")
    assert "{" not in page and "“”" not in page
    for code, row in ROWS.items():  # a sentence that is made elsewhere is described in the table
        assert "see" in row or f"### {code}\n\n- **You see:** “" in page
        seen = page.partition(f"### {code}\n\n- **You see:** ")[2].partition("\n")[0]
        assert "see" in row or len(re.sub(r"\*[^*]+\*", "", seen)) > 25, f"{code} needs a see: {seen}"


# Commands ------------------------------------------------------------------------------------------------------------


def commands(text: str) -> list[str]:
    """Return the commands in a text: what stands in backticks and has a blank or a bracket, but is no setting."""
    spans = re.findall(r"`([^`]+)`", text)
    return [one for one in spans if re.search(r"[ (]", one) and not re.search(r" = |: |^[-\[\d]", one)]


COMMANDS = {command: code for code, row in ROWS.items() for command in commands(row["fix"])}
#: The first needs a connection, the last change what the others need: the platform may get another port.
PROFILES = tuple(f'workspace.use_profile("{name}")' for name in ("current", "guide-2021"))
CHANGES = ("ca.revoke(certificate)", "ca.update_crl()", "LocalPlatform.running(workspace).stop()")
ORDER = ("device.create()", "", *PROFILES, *CHANGES)


def run_command(command: str, names: dict[str, object], folder: Path) -> str:
    """Run a command in a cell or in the CA's folder; returns what went wrong."""
    try:
        if re.match(r"[\w.]+\(|[\w.]+\.\w+\(", command):
            exec(command, dict(names))
            return ""
        done = subprocess.run(
            [tool("bash"), "-c", command], cwd=folder, text=True, capture_output=True, stdin=subprocess.DEVNULL
        )
        return "" if done.returncode == 0 else done.stderr or str(done.returncode)
    except Exception as error:  # a name that is gone, too
        return f"{type(error).__name__}: {error}"


def test_every_command_of_a_fix_runs(quick_workspace: Workspace) -> None:
    workspace = quick_workspace
    workspace.catch_up("upload")
    tenant, ca, chain = workspace.tenant(), workspace.ca(), workspace.create_chain()
    names = {"workspace": workspace, "tenant": tenant, "ca": ca, "chain": chain, "certificate": chain[0]}
    names |= {"LocalPlatform": LocalPlatform, "CertificateAuthority": CertificateAuthority, "diagnose": diagnose}
    names |= {"KeyChoice": KeyChoice, "KeyType": KeyType}
    assert len(COMMANDS) > 20
    with workspace.device(tenant) as device:
        names |= {"device": device, "subject": workspace.subject("device")}
        failed = {}
        for command in sorted(COMMANDS, key=lambda one: ORDER.index(one if one in ORDER else "")):
            if problem := run_command(command, names, ca.folder):
                failed[command] = f"{COMMANDS[command]}: {problem}"
    assert failed == {}
    assert "NameError" in run_command("workspaces.tenant()", names, ca.folder)  # the controls
    assert run_command("openssl x509 -noout -in gone.pem", names, ca.folder)


# Procedures ----------------------------------------------------------------------------------------------------------


def blocks(heading: str) -> list[tuple[str, str]]:
    """Return the language and the text of each block of code below a heading, up to the next one."""
    (section,) = re.findall(rf"^##+ {re.escape(heading)}\n(.*?)(?=^##|\Z)", HEAD, re.DOTALL | re.MULTILINE)
    found = re.findall(r"```(\w+)\n(.*?)```", section, re.DOTALL)
    assert found
    return found


def follow(
    block: tuple[str, str], folder: Path, answers: Sequence[str] = ()
) -> "subprocess.CompletedProcess[str] | None":
    """Do what a block of code says, in a cell or in a terminal, to the letter."""
    language, text = block
    if language == "python":
        exec(text, {})
        return None
    typed = "".join(f"{line}\n" for line in answers)
    new = {"start_new_session": os.name != "nt"}  # without a terminal openssl reads what is piped
    return subprocess.run([tool("bash"), "-c", text], cwd=folder, input=typed, text=True, capture_output=True, **new)


@pytest.fixture
def tutorial(quick_workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tutorial's folder whose workspace has everything; ``Workspace()`` means that one."""
    monkeypatch.setenv("MCIOT_WORKSPACE", str(quick_workspace.folder))
    shutil.copytree(ROOT / "data", quick_workspace.folder.parent / "data")
    quick_workspace.catch_up("intermediate")
    quick_workspace.catch_up("upload")
    return quick_workspace.folder.parent


def kept(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.suffix in (".pem", ".jks", ".pkcs12", ".cnf", ".txt", "")]
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in paths if path.is_file() and path.name != "lock"
    }


def test_start_over_and_back_again(tutorial: Path) -> None:
    before = kept(tutorial / "workspace")
    start_over, back = blocks("Start over")
    follow(start_over, tutorial)
    workspace = Workspace()
    assert not workspace.has_ca and LocalPlatform.running(workspace) is None
    assert before.items() <= kept(tutorial / "workspace" / "earlier" / "1").items()
    done = follow(back, tutorial)
    assert done and done.returncode == 0, done
    assert before.items() <= kept(tutorial / "workspace").items()
    workspace = Workspace()
    assert workspace.tenant().trusted_certificates.find(workspace.ca().certificate)
    with workspace.device(workspace.tenant()) as device:
        assert device.is_connected


def test_a_passphrase_that_is_lost(tutorial: Path) -> None:
    workspace = Workspace()
    workspace.start_over()
    workspace.type_passphrase(Secret("Kaffee-42-ok"))
    workspace.catch_up("upload")
    (check,) = blocks("I lost my passphrase")
    with pytest.raises(OnboardingError, match="is not kept in it") as stopped:
        Workspace().ca()
    assert stopped.value.code == "NEED_PASSPHRASE"
    with pytest.raises(OnboardingError) as refused:
        Workspace().type_passphrase(Secret("Kaffee-43-ok"))
    assert refused.value.code == "WRONG_PASSPHRASE"
    right, wrong = (follow(check, tutorial, [typed]) for typed in ("Kaffee-42-ok", "Kaffee-43-ok"))
    assert right and right.returncode == 0 and "Key is valid" in right.stdout + right.stderr
    assert wrong and wrong.returncode != 0 and "Key is valid" not in wrong.stdout + wrong.stderr
    follow(blocks("Start over")[0], tutorial)
    workspace = Workspace()
    workspace.catch_up("upload")
    assert (
        workspace.passphrases.is_practice
        and (tutorial / "workspace" / "earlier" / "2" / "caCertificate" / "caKey.pem").exists()
    )


def test_a_practice_passphrase_that_is_put_back(tutorial: Path) -> None:
    path = tutorial / "workspace" / "passphrase"
    aside = path.rename(tutorial / "trash")
    with pytest.raises(OnboardingError, match="put that back"):
        Workspace().ca()
    aside.rename(path)
    assert Workspace().ca().certificate


STORES = [f"{CHAIN}/device{which}store.{kind}" for which in ("Key", "Trust") for kind in ("pkcs12", "jks")]
OF_THE_DEVICE = [f"{CHAIN}/device{name}.pem" for name in ("Csr", "Cert", "CertChain")]
Undone = Callable[[Workspace], object]
#: By the heading: what is deleted, what stops without it (if anything), and what a learner types at a prompt.
DELETED: dict[str, tuple[list[str], Undone | None, bool]] = {
    "A file of the device, except its key": ([*OF_THE_DEVICE, *STORES, f"{CHAIN}/serverCertificate.pem"], None, False),
    "The device's key": ([f"{CHAIN}/deviceKey.pem"], lambda w: w.device(w.tenant()), True),
    "The CA's certificate": (["caCertificate/caCert.pem"], lambda w: w.ca(), False),
    "The intermediate's certificate": (["caCertificate/intermediateCertificate/intermediateCert.pem"], None, False),
    "The CA's configuration": (["caCertificate/caConfig.cnf"], lambda w: w.ca(), False),
}
HEADINGS = re.findall(r"^### (.+)$", HEAD, re.MULTILINE)


def test_every_procedure_for_a_deleted_file_is_tested() -> None:
    assert set(HEADINGS) - set(DELETED) == {"The local platform's folder", "The CA's key, or its database"}


@pytest.mark.parametrize("heading", DELETED)
def test_a_file_that_was_deleted(tutorial: Path, heading: str) -> None:
    names, stops, is_prompted = DELETED[heading]
    workspace = Workspace()
    certificates = {name: (tutorial / "workspace" / name).read_bytes() for name in names if "store" not in name}
    key, passphrase = (
        read_private_key(workspace.device_file("deviceKey.pem"), workspace.passphrase),
        workspace.passphrase,
    )
    every = [[name] for name in names] + [names] if len(names) > 1 else [names]  # each alone, and all together
    for lost in every:
        for name in lost:
            (tutorial / "workspace" / name).unlink()
        if stops:
            with pytest.raises(OnboardingError, match=Path(lost[0]).name):
                stops(Workspace())
        folder = tutorial / "workspace" / ("caCertificate" if "configuration" in heading else CHAIN)
        for block in blocks(heading):
            done = follow(block, folder, [passphrase.reveal()] * 3 if is_prompted else [])
            assert done is None or done.returncode == 0, done
        assert all((tutorial / "workspace" / name).exists() for name in lost)
        if stops:
            assert stops(Workspace())
    same = {name: data for name, data in certificates.items() if name.endswith("Cert.pem")}
    assert all((tutorial / "workspace" / name).read_bytes() == data for name, data in same.items())
    assert read_private_key(workspace.device_file("deviceKey.pem"), passphrase).public_key() == key.public_key()
    assert os.name == "nt" or workspace.device_file("deviceKey.pem").stat().st_mode & 0o077 == 0
    assert read_config(workspace.ca_folder / "caConfig.cnf").ca_path("dir") == workspace.ca_folder
    with Workspace().device(workspace.tenant()) as device:
        assert device.is_connected


def test_the_platforms_folder_that_was_deleted(tutorial: Path) -> None:
    workspace = Workspace()
    before = workspace.tenant()
    workspace.platform().stop()
    shutil.rmtree(tutorial / "workspace" / "platform")
    for block in blocks("The local platform's folder"):
        follow(block, tutorial)
    tenant = Workspace().tenant()
    assert tenant.trusted_certificates.find(workspace.ca().certificate) and tenant.password != before.password


@pytest.mark.parametrize("name", ["caKey.pem", "database.txt"])
def test_a_file_that_only_starting_over_helps(tutorial: Path, name: str) -> None:
    lost = tutorial / "workspace" / "caCertificate" / name
    aside = lost.rename(tutorial / "trash")
    with pytest.raises(OnboardingError, match=name) as stopped:
        Workspace().ca()
    assert stopped.value.code == "MISSING"
    shutil.copy(aside, lost)
    assert Workspace().ca().certificate, "put back, it is as good as before"
    lost.unlink()
    follow(blocks("Start over")[0], tutorial)
    Workspace().catch_up("chain")
    assert lost.exists()


def test_the_page_speaks_of_code_that_there_is() -> None:
    source = "\n".join(path.read_text(encoding="utf-8") for name in PACKAGES for path in (ROOT / name).rglob("*.py"))
    variables = set(re.findall(r"MCIOT_\w+", HEAD + trouble_page.TABLE.read_text(encoding="utf-8")))
    assert variables and {name for name in variables if name not in source} == set()
