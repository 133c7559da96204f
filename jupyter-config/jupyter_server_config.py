"""The Jupyter server's settings for this tutorial: how a notebook opens whose widgets are gone."""

from typing import Any

from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager

VIEW = "application/vnd.jupyter.widget-view+json"
RUN_AGAIN = "This is how it looked when the notebook was saved. Run this cell again to use it."
#: Seconds for which a kernel may think about its widgets; a busy one says nothing, and its widgets come back later.
PATIENCE = 2.0


class Contents(AsyncLargeFileManager):  # type: ignore[misc]
    """Opens a widget that no kernel has any more as its static picture; JupyterLab would say "model not found"."""

    async def get(self, path: str, content: bool = True, *args: Any, **options: Any) -> Any:
        """Return a file's model, as the base class does."""
        model = await super().get(path, content, *args, **options)
        if model["type"] == "notebook" and model["content"]:
            cells = model["content"]["cells"]
            outputs = [output.get("data", {}) for cell in cells for output in cell.get("outputs", [])]
            views = [data for data in outputs if VIEW in data and "text/html" in data]
            alive = await self.alive(path) if views else None
            for data in views:
                if alive is not None and data[VIEW]["model_id"] not in alive:
                    del data[VIEW]
                    data["text/html"] += f"<p><em>{RUN_AGAIN}</em></p>"
        return model

    async def alive(self, path: str) -> set[str] | None:
        """Return the ids of the widgets that the kernel of the notebook has; None if it does not answer in time."""
        sessions = await self.parent.session_manager.list_sessions()
        found: set[str] = set()
        for session in (one for one in sessions if one["path"] == path.strip("/")):
            client = self.parent.kernel_manager.get_kernel(session["kernel"]["id"]).client()
            client.start_channels(shell=True, iopub=False, stdin=False, hb=False, control=False)
            try:
                reply = await client.comm_info(target_name="jupyter.widget", reply=True, timeout=PATIENCE)
                found |= set(reply["content"]["comms"])
            except TimeoutError:
                return None
            finally:
                client.stop_channels()
        return found


c = get_config()  # type: ignore[name-defined]  # noqa: F821 - Jupyter defines it
c.ServerApp.contents_manager_class = Contents
