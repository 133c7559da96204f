"""The Jupyter server's settings for this tutorial: how notebooks are kept and opened, and kernels started."""

import ast
import hashlib
import json
from contextlib import suppress
from glob import escape
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.kernelspec import NATIVE_KERNEL_NAME, KernelSpecManager
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager
from tornado.web import HTTPError

VIEW = "application/vnd.jupyter.widget-view+json"
RUN_AGAIN = "This is how it looked when the notebook was saved. Run this cell again to use it."
#: Seconds for which a kernel may think about its widgets; a busy one says nothing, and its widgets come back later.
PATIENCE = 2.0


#: What a kernel knows of the widgets that its cells show; see mciot_nb/ui/markup.py.
SHOWN = "__import__('sys').modules['mciot_nb.ui.markup'].SHOWN"
#: The folder beside the notebooks, ignored by git, with what they looked like when they were saved.
RAN = ".ran"


def canonical(notebook: Any) -> str:
    """Write a notebook as ``tools/notebooks.py`` does."""
    return json.dumps(notebook, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def is_canonical(text: str) -> bool:
    """Whether a file is a notebook of the tutorial, as it is committed; a Lab writes texts as lists of lines."""
    try:
        notebook = json.loads(text)
        texts = [cell["source"] for cell in notebook["cells"]]
        return all(isinstance(one, str) for one in texts) and bool(texts) and canonical(notebook) == text
    except (ValueError, LookupError, TypeError):
        return False


def written(notebook: Any, committed: Any) -> Any:
    """Return ``committed`` with what was written in the cells of ``notebook``, and nothing of what a run has put there.

    The outputs stay the committed ones; a new cell has none.
    """
    ran = {cell["id"]: cell for cell in committed["cells"] if cell["cell_type"] == "code"}
    cells = []
    for cell in notebook["cells"]:
        kept = {name: cell[name] for name in ("attachments", "cell_type", "id") if name in cell}
        kept["source"] = "".join(cell["source"])
        kept["metadata"] = {name: tags for name, tags in cell["metadata"].items() if name == "tags"}
        if cell["cell_type"] == "code":
            before = ran.get(cell.get("id"), {"execution_count": None, "outputs": []})
            kept |= {name: before[name] for name in ("execution_count", "outputs")}
        cells.append(kept)
    return {**committed, "cells": cells}


def seen(path: Path, found: bytes) -> Path:
    """Return where the page is kept on which the notebook ``path`` was saved as the bytes ``found``."""
    return path.parent / RAN / f"{path.stem}.{hashlib.sha256(found).hexdigest()[:16]}.ipynb"


class Contents(AsyncLargeFileManager):  # type: ignore[misc]
    """Keeps what a run puts into a notebook out of git's sight, and shows no widget that is dead.

    A notebook of the tutorial that is saved stays as it is committed, but for what was written in its cells; all that
    was on the page is kept in a file under `RAN`, and opened again until something else changes the notebook.
    A widget that no kernel has any more is opened as its static picture; JupyterLab would say "model not found".
    """

    async def _save_notebook(self, os_path: str, nb: Any, capture_validation_error: Any = None) -> None:
        """Write a notebook; the base class calls this when it has signed it."""
        path = Path(os_path)
        before = path.read_bytes().decode(errors="replace") if path.exists() else ""
        if not is_canonical(before):  # the learner's own
            return await super()._save_notebook(os_path, nb, capture_validation_error)
        after = canonical(written(nb, json.loads(before)))
        page = seen(path, after.encode())
        try:
            page.parent.mkdir(exist_ok=True)
            await super()._save_notebook(str(page), nb, capture_validation_error)  # first, because it holds everything
        finally:  # what was written is kept also where the page can't be
            if after != before:
                await self._save_file(os_path, after, "text")
        for old in set(page.parent.glob(f"{escape(path.stem)}.{'?' * 16}.ipynb")) - {page}:
            old.unlink(missing_ok=True)

    async def _read_notebook(self, os_path: str, *options: Any, raw: bool = False, **more: Any) -> Any:
        """Return a notebook, and if ``raw`` is true the file's bytes, by which the Lab sees whether it was changed."""
        found = Path(os_path).read_bytes() if Path(os_path).is_file() else b""
        page = seen(Path(os_path), found)
        with suppress(HTTPError):  # it may have been cut off
            if page.is_file():
                notebook = await super()._read_notebook(str(page), *options, **more)
                return (notebook, found) if raw else notebook
        return await super()._read_notebook(os_path, *options, raw=raw, **more)

    async def rename_file(self, old_path: str, new_path: str) -> None:
        """Rename or move a file, and the page of a notebook with it."""
        await super().rename_file(old_path, new_path)
        old, new = Path(self._get_os_path(old_path)), Path(self._get_os_path(new_path))
        with suppress(OSError):  # a folder, or a notebook that has no page
            (kept := seen(new, new.read_bytes())).parent.mkdir(exist_ok=True)
            seen(old, new.read_bytes()).replace(kept)

    async def delete_file(self, path: str) -> None:
        """Delete a file, and the page of a notebook with it."""
        await super().delete_file(path)
        gone = Path(self._get_os_path(path))
        for page in (gone.parent / RAN).glob(f"{escape(gone.stem)}.{'?' * 16}.ipynb"):
            page.unlink(missing_ok=True)

    async def get(self, path: str, content: bool = True, *args: Any, **options: Any) -> Any:
        """Return a file's model, as the base class does."""
        model = await super().get(path, content, *args, **options)
        if model["type"] == "notebook" and model["content"]:
            kernel, again = await self.kernel_of(path), f"<p><em>{RUN_AGAIN}</em></p>"
            for cell in model["content"]["cells"] if kernel else []:
                alive, shown = kernel
                datas = [output["data"] for output in cell.get("outputs", []) if "text/html" in output.get("data", {})]
                if shown.get(cell.get("id")) in alive:  # whether it was saved or not
                    cell["metadata"]["trusted"] = True  # this kernel has run it
                    if not datas:
                        cell["outputs"].append(nbformat.v4.new_output("display_data", {"text/html": ""}))
                        datas = [cell["outputs"][-1]["data"]]
                    datas[-1][VIEW] = {"version_major": 2, "version_minor": 0, "model_id": shown[cell["id"]]}
                for data in datas:
                    if VIEW in data and data[VIEW]["model_id"] not in alive:
                        del data[VIEW]
                        data["text/html"] = data["text/html"].removesuffix(again) + again
        return model

    async def kernel_of(self, path: str) -> tuple[set[str], dict[str, str]] | None:
        """Return the ids of the widgets that the notebook's kernel has, and which cell shows which.

        None if it does not answer in time.
        """
        alive: set[str] = set()
        shown: dict[str, str] = {}
        sessions = await self.parent.session_manager.list_sessions() if self.parent else []
        for session in (one for one in sessions if one["path"] == path.strip("/")):
            client = self.parent.kernel_manager.get_kernel(session["kernel"]["id"]).client()
            client.start_channels(shell=True, iopub=False, stdin=False, hb=False, control=False)
            try:
                reply = await client.comm_info(target_name="jupyter.widget", reply=True, timeout=PATIENCE)
                alive |= set(reply["content"]["comms"])
                ask = {"silent": True, "user_expressions": {"shown": SHOWN}, "reply": True, "timeout": PATIENCE}
                answer = (await client.execute("", **ask))["content"]["user_expressions"]["shown"]
                if answer["status"] == "ok":  # the notebook has loaded the extension
                    shown |= ast.literal_eval(answer["data"]["text/plain"])
            except (TimeoutError, LookupError):  # the latter: it took no requests, because a cell had failed
                return None
            finally:
                client.stop_channels()
        return alive, shown


class Kernels(KernelSpecManager):  # type: ignore[misc]
    """Lets a kernel load the extension when it starts: a notebook's first cell may not be the first to run."""

    def get_kernel_spec(self, kernel_name: str) -> Any:
        """Return how a kernel is started, as the base class does."""
        spec = super().get_kernel_spec(kernel_name)
        if kernel_name == NATIVE_KERNEL_NAME:
            spec.argv.append("--ext=mciot_nb")
        return spec


c = get_config()  # type: ignore[name-defined]  # noqa: F821 - Jupyter defines it
c.ServerApp.contents_manager_class = Contents
c.ServerApp.kernel_spec_manager_class = Kernels
