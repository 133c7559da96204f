"""Cells run out of order: the notebook explains a name that is not there yet; a slip of the finger is as ever."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from browser import notebook, photograph, tutorial
from jupyter_client.manager import KernelManager
from playwright.sync_api import expect
from test_git_stays_clean import settings

from tools.notebooks import NOTEBOOKS

CA = NOTEBOOKS[1]


class Kernel:
    """A kernel as the tutorial's Lab starts it, beside which a notebook lies."""

    def __init__(self, notebook: Path | None) -> None:
        environment = {name: value for name, value in os.environ.items() if name != "JPY_SESSION_NAME"}
        environment |= {"JPY_SESSION_NAME": str(notebook)} if notebook else {}
        specs = settings().ServerApp.kernel_spec_manager_class()
        self.manager = KernelManager(kernel_name="python3", kernel_spec_manager=specs, transport="ipc")
        self.manager.start_kernel(env=environment)
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=120)

    def run(self, source: str, cell_id: str = "") -> Any:
        """Run a cell as the Lab does, and return what its error looks like; nothing if there was none."""
        content = {"code": source, "silent": False, "store_history": False, "allow_stdin": False, "stop_on_error": True}
        message = self.client.session.msg("execute_request", content, metadata={"cellId": cell_id})
        self.client.shell_channel.send(message)
        found = ""
        while True:
            told = self.client.get_iopub_msg(timeout=120)
            if told["parent_header"].get("msg_id") != message["header"]["msg_id"]:
                continue
            if told["msg_type"] == "error":
                found = re.sub(r"\x1b\[[\d;]*m", "", "\n".join(told["content"]["traceback"]))
            if told["msg_type"] == "status" and told["content"]["execution_state"] == "idle":
                return found

    def end(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    path = tmp_path_factory.mktemp("open") / CA.name
    shutil.copy(CA, path)
    opened = nbformat.read(path, 4)
    opened.cells.append(
        nbformat.v4.new_code_cell(
            "%time x\nimport a.b as c\n[y for y in x]\ndef f():\n  z = 1\ndel thrown_away, e[0]\n"
            "try:\n  pass\nexcept Exception as what_was_wrong: pass",
            id="odd",
        )
    )
    nbformat.write(opened, path)
    kernel = Kernel(path)
    yield kernel
    kernel.end()


ABOVE = "run the cells above (Run > Run All Above Selected Cell), then this one again."
THAT = "run that cell and those above it, then this one again."
SETUP, MADE = "`%reload_ext mciot_nb`", "`ca = workspace.create_ca(form.subject, form.key)`"


@pytest.mark.parametrize(
    ("source", "cell_id", "sentence"),
    [
        ("ca.check()", "ca-check", f"`ca` is made further up, in the cell that begins {MADE}: {ABOVE}"),
        ("CaForm(workspace)", "ca-form", f"`CaForm` is made further up, in the cell that begins {SETUP}: {ABOVE}"),
        ("def g():\n  return ca\ng()", "ca-check", f"`ca` is made further up, in the cell that begins {MADE}: {ABOVE}"),
        ("ca", "ca-form", f"`ca` is made further down, in the cell that begins {MADE}: {THAT}"),
        ("ca", "not-saved", f"`ca` is made elsewhere in this notebook, in the cell that begins {MADE}: {THAT}"),
        ("c, f", "ca-check", f"`c` is made further down, in the cell that begins `%time x`: {THAT}"),
    ],
)
def test_a_name_whose_cell_has_not_run(kernel: Kernel, source: str, cell_id: str, sentence: str) -> None:
    for _ in range(2):  # before the extension is loaded by the notebook, and after
        assert kernel.run(source, cell_id) == sentence
        assert kernel.run("%reload_ext mciot_nb\n%reload_ext mciot_nb") == ""


@pytest.mark.parametrize(
    ("source", "cell_id", "kind"),
    [
        ("x = nowhere_near", "ca-check", "NameError: name 'nowhere_near' is not defined"),
        ("ca = ca", "ca-create", "NameError: name 'ca' is not defined"),  # made in this very cell alone
        ("y, z", "ca-check", "NameError: name 'y' is not defined"),  # a comprehension's, a function's
        ("thrown_away", "ca-check", "NameError: name 'thrown_away' is not defined"),  # it is deleted there
        (
            "what_was_wrong",
            "ca-check",
            "NameError: name 'what_was_wrong' is not defined",
        ),  # it is gone when its `except` ends
        ("def g():\n  ca.x\n  ca = 1\ng()", "ca-check", "UnboundLocalError: cannot access local variable 'ca'"),
        ("raise NameError('ca')", "ca-check", "NameError: ca"),
        (
            "import json\njson.__dict__['f'] = eval('lambda: ca', json.__dict__)\njson.f()",
            "ca-check",
            "name 'ca' is not",
        ),
        ("raise KeyboardInterrupt", "ca-check", "KeyboardInterrupt"),
        ("1 / 0", "ca-check", "ZeroDivisionError: division by zero"),
    ],
)
def test_every_other_error_is_as_ever(kernel: Kernel, source: str, cell_id: str, kind: str) -> None:
    shown = kernel.run(source, cell_id)
    assert kind in shown and "Traceback" in shown and "is made" not in shown
    kernel.run("handler, get_ipython().custom_exceptions = get_ipython().custom_exceptions, ()")
    assert kernel.run(source, cell_id) == shown, "the control: without us it is the same"
    kernel.run("get_ipython().custom_exceptions = handler")


def test_a_slip_of_the_finger_has_pythons_suggestion(kernel: Kernel) -> None:
    assert kernel.run("wrkspace = 1") == ""
    assert kernel.run("wrkspce").endswith("NameError: name 'wrkspce' is not defined. Did you mean: 'wrkspace'?")


@pytest.mark.parametrize("text", [None, "gone", "{", "[]", json.dumps({"cells": [{"cell_type": "code"}]})])
def test_where_no_notebook_can_be_read_python_explains(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "try.ipynb"
    if text not in (None, "gone"):
        path.write_text(str(text))
    kernel = Kernel(path if text else None)
    try:
        for _ in range(2):  # the handler is not taken away
            assert "NameError: name 'ca' is not defined" in kernel.run("ca", "ca-check")
            assert kernel.run("assert get_ipython().custom_exceptions == (NameError,)") == ""
    finally:
        kernel.end()


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_in_the_lab_a_cell_that_runs_too_early_says_what_to_run(tmp_path: Path, theme: str) -> None:
    with tutorial(tmp_path, dark=theme == "dark") as lab, notebook(lab, CA) as page:
        cell = page.locator(".jp-CodeCell").nth(2)
        cell.locator(".jp-InputArea-editor").click()
        page.keyboard.press("Control+Enter")
        output = cell.locator(".jp-OutputArea-output")
        expect(output).to_have_text(f"`workspace` is made further up, in the cell that begins {SETUP}: {ABOVE}")
        photograph(page, f"too_early_{theme}")
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Above Selected Cell").click()  # as it is called
        expect(page.locator(".jp-CodeCell .jp-InputPrompt").nth(1)).to_have_text(re.compile(r"\[\d+\]"))
        cell.locator(".jp-InputArea-editor").click()
        page.keyboard.press("Control+Enter")
        expect(output).to_contain_text("CA certificate of")
