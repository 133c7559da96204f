"""A Jupyter server as its own clients see it: REST, and cells run in its kernels."""

import json
import uuid
from dataclasses import dataclass
from typing import Any

import requests
from platform_tools import SECONDS
from websocket import create_connection


@dataclass(frozen=True)
class Server:
    """A Jupyter server, or a JupyterHub, by the address to which ``/api`` is appended."""

    address: str
    token: str

    def call(self, method: str, path: str, **options: Any) -> requests.Response:
        with requests.Session() as session:
            session.trust_env = False
            return session.request(method, f"{self.address}/api{path}", headers=self._login, timeout=SECONDS, **options)

    @property
    def _login(self) -> dict[str, str]:
        return {"Authorization": f"token {self.token}"}

    def execute(self, sources: list[str], folder: str = "") -> list[Any]:
        """Run cells in a new kernel, as the Lab's Run All does; return all of their outputs, and end the kernel."""
        made = self.call("POST", "/kernels", json={"name": "python3", "path": folder})
        assert made.status_code == 201, made.text
        kernel = f"/kernels/{made.json()['id']}"
        options = {"suppress_origin": True, "http_no_proxy": ["127.0.0.1"], "timeout": 2 * SECONDS}
        channels = f"ws{self.address.removeprefix('http')}/api{kernel}/channels"
        socket = create_connection(channels, header=self._login, **options)
        try:
            return [output for source in sources for output in _outputs(socket, source)]
        finally:
            socket.close()
            self.call("DELETE", kernel)


def _outputs(socket: Any, source: str) -> list[Any]:
    """Run one cell, and return what it has shown."""
    header = {"msg_id": uuid.uuid4().hex, "msg_type": "execute_request", "session": "test", "version": "5.3"}
    content = {"code": source, "silent": False, "allow_stdin": False, "stop_on_error": True}
    request = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
    socket.send(json.dumps(request))
    shown: list[Any] = []
    while True:
        message = json.loads(socket.recv())
        if message["parent_header"].get("msg_id") == header["msg_id"] and message["channel"] == "iopub":
            if message["content"].get("execution_state") == "idle":
                return shown
            if message["msg_type"] in ("stream", "display_data", "execute_result", "error"):
                shown.append(message["content"])
