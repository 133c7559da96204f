"""Run the notebooks: the whole guide unattended (`run.py guide`), or again into their committed form (`rebuild`)."""

import asyncio
import configparser
import io
import json
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from traitlets.config import Config

from mciot_nb.errors import OnboardingError
from mciot_nb.local_platform import LocalPlatform
from mciot_nb.workspace import Workspace

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
#: What differs from run to run: nbval's own file, so that both have one list.
SANITIZE = ROOT / "tests" / "sanitize.cfg"
#: What committed outputs show in place of the folder in which they were made.
SHOWN_WORKSPACE = "/home/user/tutorial/workspace"
#: The port that they show, whichever was free.
SHOWN_PORT = "8883"
#: Seconds that one cell may take.
CELL_TIMEOUT = 120


def run() -> int:
    """Run every notebook in order in a fresh workspace, and say what came out; returns the exit code."""
    asked = os.environ.get("MCIOT_WORKSPACE")
    fresh = asked and not (Path(asked).exists() and any(Path(asked).iterdir()))
    workspace = Workspace(Path(asked) if asked and fresh else Path(tempfile.mkdtemp(prefix="mciot-")))
    print(f"Workspace: {workspace.folder}", flush=True)
    begin = time.monotonic()
    with kernels_work_in(workspace):
        if failure := asyncio.run(run_each({path: guided(path) for path in NOTEBOOKS})):
            print(f"failed\n{failure}")
            return 1
        print(f"Done in {time.monotonic() - begin:.1f} s.\n{summary(workspace)}")
        return 0


@contextmanager
def kernels_work_in(workspace: Workspace) -> Iterator[None]:
    """Let the block's kernels work in ``workspace``, with a local platform from the start if that is its tenant."""
    os.environ["MCIOT_WORKSPACE"] = str(workspace.folder)
    try:
        if workspace.tenant_settings.local:
            threading.Thread(target=workspace.platform).start()  # needed in 05
        yield
    finally:
        if platform := LocalPlatform.running(workspace.folder):
            platform.stop()


async def run_each(notebooks: dict[Path, Any]) -> str:
    """Run notebooks one after the other, with progress; returns the first error, or nothing.

    The next notebook's kernel starts while the last one's works.
    """
    clients = [client_of(notebook, path) for path, notebook in notebooks.items()]
    ahead = asyncio.create_task(start_kernel(clients[0]))
    for number, (path, client) in enumerate(zip(notebooks, clients, strict=True), start=1):
        print(f"  {path.stem:<32}", end="", flush=True)
        started = time.monotonic()
        await ahead
        if number < len(clients):
            ahead = asyncio.create_task(start_kernel(clients[number]))
        if failure := await outcome(client):
            return f"{path.name}: {failure}"  # the kernel that was started ahead ends with this process
        print(f"{time.monotonic() - started:5.1f} s", flush=True)
    return ""


def guided(path: Path) -> Any:
    """Read a notebook without its exercises: what its reader wrote there need not run in an empty workspace."""
    notebook = nbformat.read(path, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if not re.search(r"-(practice|exercise)-\d+$", cell.id)]
    return notebook


def client_of(notebook: Any, path: Path) -> NotebookClient:
    """Return what runs all cells of ``notebook``, as the Lab's Run All does."""
    return NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT,
        shutdown_kernel="immediate",  # nothing in it is worth waiting for
        store_widget_state=False,  # it would put every typed text into the file
        record_timing=False,
        config=Config({"KernelManager": {"transport_encryption": "auto"}}),  # as in jupyter-config
        resources={"metadata": {"path": str(path.parent)}},
    )


async def start_kernel(client: NotebookClient) -> None:
    """Start the kernel of ``client`` before its cells are run, and let it load what every notebook loads."""
    client.km = client.create_kernel_manager()
    await client.async_start_new_kernel()
    kernel = await client.async_start_new_kernel_client()
    kernel.execute("import mciot_nb.workspace, mciot_nb.ui.displays, mciot_nb.ui.forms", silent=True)


async def outcome(client: NotebookClient) -> str:
    """Run all cells; returns the error that stopped them, or nothing."""
    try:
        await client.async_execute()
    except CellExecutionError as error:
        number = client.code_cells_executed
        run = [cell for cell in client.nb.cells if cell.cell_type == "code" and cell.source.strip()]
        return f"cell [{number}], {run[number - 1].source.splitlines()[-1]!r}: {error.ename}: {error.evalue}"
    except (CellTimeoutError, DeadKernelError) as error:
        return str(error)
    return ""


def execute(notebook: Any, path: Path) -> str:
    """Run all cells of ``notebook``; returns the error that stopped them, or nothing."""
    return asyncio.run(outcome(client_of(notebook, path)))


def summary(workspace: Workspace) -> str:
    """Say which files the guide has made, and what it has achieved, read from the platform's log."""
    paths = [path.relative_to(workspace.folder) for path in workspace.ca_folder.rglob("*") if path.is_file()]
    guides = [path for path in sorted(paths) if path.name[0] != "." and not {"fleet", "certs"} & {*path.parts}]
    fleet = {path.parent.name for path in paths if path.name == "deviceCert.pem" and "fleet" in path.parts}
    said = ["Made:", *(f"  {path.as_posix()}" for path in guides)]
    said += [f"  the same for a fleet of {len(fleet)} devices"] if fleet else []
    if platform := LocalPlatform.running(workspace.folder):
        log, arrived = platform.log(), len(platform.measurements())
        connected = sorted(set(log["client_id"][log["code"] == "CONNECTED"]))
        said.append("Achieved:")
        said += [f"  ✓ {one} connected to the platform by mutual TLS" for one in connected if one not in fleet]
        said += [f"  ✓ {len(fleet & {*connected})} devices of the fleet did so, too"] if fleet & {*connected} else []
        said += [f"  ✓ {arrived} measurements arrived there"] if arrived else []
        if (log["code"] == "CLIENT_ID_MISMATCH").any():
            said.append("  ✓ a ClientId that is not the certificate's, which 07 tries on purpose, was not let in")
    return "\n".join(said)


def rebuild() -> int:
    """Run each notebook in a workspace of its own, and write it back in canonical form; returns the exit code."""
    for path in NOTEBOOKS:
        old = nbformat.read(path, as_version=4)
        new = nbformat.from_dict(old.copy())
        with tempfile.TemporaryDirectory(prefix="mciot-") as folder:
            workspace = Workspace(Path(folder) / "workspace")
            os.environ["MCIOT_WORKSPACE"] = str(workspace.folder)
            prepare(workspace, path)
            failure = execute(new, path)
            new = as_shown(new, workspace)
            if platform := LocalPlatform.running(workspace.folder):
                platform.stop()
        if failure:
            print(f"{path.name}: {failure}")
            return 1
        keep_old_outputs(new, old)
        path.write_text(canonical(new), encoding="utf-8", newline="\n")
        print(f"{path.name}: rebuilt")
    return 0


def as_shown(notebook: Any, workspace: Workspace) -> Any:
    """Replace the workspace's folder and the port of its running platform by those that are the same for all."""
    shown = json.dumps(notebook).replace(json.dumps(str(workspace.folder))[1:-1], SHOWN_WORKSPACE)
    if platform := LocalPlatform.running(workspace.folder):
        shown = re.sub(rf"(?<![\w+/]){platform.mqtt[1]}(?![\w+/])", SHOWN_PORT, shown)
    return nbformat.from_dict(json.loads(shown))


def prepare(workspace: Workspace, path: Path) -> None:
    """Make, without a word, exactly what the notebook would catch up with."""
    if step := re.search(r"catch_up\(\W*(\w+)", path.read_text(encoding="utf-8")):
        with redirect_stdout(io.StringIO()):
            workspace.catch_up(step[1])
    if path.stem == "12_finish":  # it makes nothing, and looks at what all the others have made
        with redirect_stdout(io.StringIO()):
            workspace.catch_up("upload")
        with workspace.device(workspace.tenant()) as device:
            device.create()
            device.measure("c8y_Temperature", "T", 21.5, "C")


def keep_old_outputs(new: Any, old: Any) -> None:
    """Take a cell's old outputs where the new ones differ only in what differs in every run, for a quiet diff."""
    before = {cell.id: cell for cell in old.cells if cell.cell_type == "code"}
    for cell in new.cells:
        if cell.cell_type == "code" and cell.id in before:
            outputs = before[cell.id].outputs
            if sanitized(canonical_outputs(outputs)) == sanitized(canonical_outputs(cell.outputs)):
                cell.outputs = outputs


def sanitized(outputs: Any) -> str:
    """Write outputs as text, with what differs from run to run replaced as nbval does."""
    patterns = configparser.RawConfigParser()
    patterns.read(SANITIZE, encoding="utf-8")
    text = json.dumps(outputs, sort_keys=True)
    for section in patterns.sections():
        text = re.sub(patterns[section]["regex"], patterns[section]["replace"], text)
    return text


def canonical(notebook: Any) -> str:
    """Write a notebook so that the same content always gives the same text, whichever Lab or kernel ran it."""
    notebook = nbformat.from_dict(notebook.copy())
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    count = 0
    for cell in notebook.cells:
        cell.metadata = {key: value for key, value in cell.metadata.items() if key in ("tags",)}
        if cell.cell_type == "code":
            count += 1
            cell.execution_count = count
            cell.outputs = canonical_outputs(cell.outputs, count)
    return json.dumps(notebook, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def canonical_outputs(outputs: Any, count: int = 0) -> Any:
    """Drop from outputs what belongs to one run alone: widget models, numbers of executions, and another MQTT port."""
    kept = []
    for output in json.loads(re.sub(r"\b88[89]\d\b", "8883", json.dumps(outputs))):
        output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
        if "execution_count" in output:
            output["execution_count"] = count
        if output["output_type"] == "error":
            output["traceback"] = output["traceback"][-1:]
        kept.append(nbformat.from_dict(output))
    return kept


if __name__ == "__main__":
    try:
        sys.exit({"run": run, "rebuild": rebuild}[sys.argv[1]]())
    except OnboardingError as problem:
        sys.exit(str(problem))
