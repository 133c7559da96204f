"""Run the notebooks: the whole guide unattended (`run.py guide`), or again into their committed form (`rebuild`)."""

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
SANITIZE = ROOT / "tests" / "sanitize.cfg"  # what differs from run to run: nbval's own file, so both have one list
SHOWN_WORKSPACE = "/home/user/tutorial/workspace"  # shown in place of the folder in which outputs were made
CELL_TIMEOUT = 120  # seconds


def run() -> int:
    """Run every notebook in order in a fresh workspace, and say what came out; returns the exit code."""
    asked = os.environ.get("MCIOT_WORKSPACE")
    fresh = asked and not (Path(asked).exists() and any(Path(asked).iterdir()))
    begin = time.monotonic()
    with workspace_of_kernels(Path(asked) if asked and fresh else Path(tempfile.mkdtemp(prefix="mciot-"))) as workspace:
        print(f"Workspace: {workspace.folder}", flush=True)
        if workspace.tenant_settings.local:
            threading.Thread(target=workspace.platform).start()  # needed in 05
        for path in NOTEBOOKS:
            print(f"  {path.stem:<32}", end="", flush=True)
            started = time.monotonic()
            if failure := execute(nbformat.read(path, as_version=4), path):
                print(f"failed\n{failure}")
                return 1
            print(f"{time.monotonic() - started:5.1f} s", flush=True)
        print(f"Done in {time.monotonic() - begin:.1f} s.\n{summary(workspace)}")
    return 0


@contextmanager
def workspace_of_kernels(folder: Path) -> Iterator[Workspace]:
    """Provide a workspace in ``folder`` in which the kernels work; its local platform is stopped at the end."""
    workspace = Workspace(folder)
    os.environ["MCIOT_WORKSPACE"] = str(workspace.folder)
    try:
        yield workspace
    finally:
        if platform := LocalPlatform.running(workspace.folder):
            platform.stop()


def execute(notebook: Any, path: Path) -> str:
    """Run all cells of ``notebook``, as the Lab's Run All does; returns the error that stopped them, or nothing."""
    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT,
        shutdown_kernel="immediate",  # nothing in it is worth waiting for
        store_widget_state=False,  # it would put every typed text into the file
        record_timing=False,
        config=Config({"KernelManager": {"transport_encryption": "auto"}}),  # as in jupyter-config
        resources={"metadata": {"path": str(path.parent)}},
    )
    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        return f"{error.ename}: {error.evalue}" if isinstance(error, CellExecutionError) else str(error)
    return ""


def summary(workspace: Workspace) -> str:
    """Say what the guide made, and how the device's connection went, read from the files and the platform's log."""
    files = sorted(str(p.relative_to(workspace.folder)) for p in workspace.ca_folder.rglob("*") if p.is_file())
    lines = ["Made:", *(f"  {name}" for name in files)]
    if platform := LocalPlatform.running(workspace.folder):
        log = (f"  {row['client_id']}: {row['code']}: {row['reason']}" for _, row in platform.log().iterrows())
        lines += ["Connections:", *log, f"Measurements that arrived: {len(platform.measurements())}"]
    return "\n".join(lines)


def rebuild() -> int:
    """Run each notebook in a workspace of its own, and write it back in canonical form; returns the exit code."""
    for path in NOTEBOOKS:
        old = nbformat.read(path, as_version=4)
        new = nbformat.from_dict(old.copy())
        with (
            tempfile.TemporaryDirectory(prefix="mciot-") as folder,
            workspace_of_kernels(Path(folder) / "workspace") as workspace,
        ):
            prepare(workspace, path)
            if failure := execute(new, path):
                print(f"{path.name}: {failure}")
                return 1
            new = nbformat.from_dict(json.loads(json.dumps(new).replace(str(workspace.folder), SHOWN_WORKSPACE)))
        keep_old_outputs(new, old)
        path.write_text(canonical(new), encoding="utf-8", newline="\n")
        print(f"{path.name}: rebuilt")
    return 0


def prepare(workspace: Workspace, path: Path) -> None:
    """Make, without a word, exactly what the notebook would catch up with."""
    if step := re.search(r"catch_up\(\W*(\w+)", path.read_text(encoding="utf-8")):
        with redirect_stdout(io.StringIO()):
            workspace.catch_up(step[1])


def keep_old_outputs(new: Any, old: Any) -> None:
    """Take a cell's old outputs where the new ones differ only in what differs in every run, for a quiet diff."""
    before = {cell.id: cell.outputs for cell in old.cells if cell.cell_type == "code"}
    for cell in new.cells:
        outputs = before.get(cell.id)
        if outputs and sanitized(canonical_outputs(outputs)) == sanitized(canonical_outputs(cell.outputs)):
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
        cell.metadata = {key: value for key, value in cell.metadata.items() if key == "tags"}
        if cell.cell_type == "code":
            count += 1
            cell.execution_count = count
            cell.outputs = canonical_outputs(cell.outputs, count)
    return json.dumps(notebook, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def canonical_outputs(outputs: Any, count: int = 0) -> Any:
    """Drop from outputs what belongs to one run alone: widget models, and numbers of executions."""
    kept = []
    for output in json.loads(json.dumps(outputs)):
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
