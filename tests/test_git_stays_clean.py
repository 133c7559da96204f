"""A notebook that was run and saved leaves git's checkout clean; what was written in one is a small diff, and kept."""

import asyncio
import json
import os
import re
import runpy
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jupyter_server.services.contents.largefilemanager as jupyter
import nbformat
import pytest
import traitlets.config
from browser import page_of, run_all, serve, wait_until_done
from conftest import ROOT, tool
from playwright.sync_api import expect
from tornado.web import HTTPError

from tools.notebooks import NOTEBOOKS, canonical, guided

NAME = "notebooks/01_ca_certificate.ipynb"
#: The cell that a learner edits, and one that upstream does.
FORM, CHECK = "ca-form", "ca-check"


class Checkout:
    """A clone of this checkout, as its files are now, and the server's contents manager of its Lab."""

    def __init__(self, folder: Path, *, ours: bool = True) -> None:
        tool("git")
        self.upstream, self.folder = folder / "upstream", folder / "clone"
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).exists() and name.startswith(("notebooks/", "data/", ".git")):
                (self.upstream / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, self.upstream / name)
        self.git("init", "-q", "-b", "main", folder=self.upstream)
        self.commit("first")
        self.git("clone", "-q", str(self.upstream), str(self.folder), folder=folder)
        kind = settings().ServerApp.contents_manager_class if ours else jupyter.AsyncLargeFileManager
        self.manager = kind(root_dir=str(self.folder))

    def git(self, *words: str, folder: Path | None = None, works: bool = True) -> str:
        who = ["-c", "user.name=Learner", "-c", "user.email=learner@example.com"]
        environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "LC_ALL": "C"}
        command = [tool("git"), *who, *words]
        done = subprocess.run(command, cwd=folder or self.folder, env=environment, capture_output=True, text=True)
        assert (done.returncode == 0) == works, done.stdout + done.stderr
        return done.stdout + done.stderr

    def commit(self, message: str) -> None:
        """Commit all that is new upstream."""
        self.git("add", "-A", folder=self.upstream)
        self.git("commit", "-q", "-m", message, folder=self.upstream)

    def write_upstream(self, text: str, cell_id: str = CHECK) -> None:
        path = self.upstream / NAME
        notebook = nbformat.read(path, 4)
        cell(notebook, cell_id).source = text
        path.write_text(canonical(notebook), encoding="utf-8", newline="\n")
        self.commit(text)

    def open(self, name: str = NAME) -> Any:
        return asyncio.run(self.manager.get(name))["content"]

    def save(self, content: Any, name: str = NAME) -> None:
        asyncio.run(self.manager.save({"type": "notebook", "format": "json", "content": content}, name))

    def run_and_save(self, name: str = NAME, **texts: str) -> None:
        """Save as the Lab does after Run All, with other texts in the cells that are named."""
        content = self.open(name)
        for number, one in enumerate(content["cells"]):
            one["source"] = texts.get(one["id"], one["source"])
            if one["cell_type"] == "code":
                one["execution_count"] = 100 + number
                one["outputs"] = [nbformat.v4.new_output("stream", name="stdout", text=f"this run's {number}\n")]
                one["metadata"] = {**one["metadata"], "scrolled": True, "trusted": True}
        content["metadata"]["language_info"] = {"name": "python", "version": "3.99"}
        self.save(content, name)


def settings() -> Any:
    """Return what the tutorial's settings of the server are."""
    config = traitlets.config.Config()
    runpy.run_path(str(ROOT / "jupyter-config" / "jupyter_server_config.py"), {"get_config": lambda: config})
    return config


def cell(notebook: Any, cell_id: str) -> Any:
    return next(one for one in notebook["cells"] if one["id"] == cell_id)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))  # the signatures
    return Checkout(tmp_path)


def test_what_a_run_leaves_is_shown_again_and_git_sees_nothing_of_it(checkout: Checkout) -> None:
    for path in NOTEBOOKS:
        name = f"notebooks/{path.name}"
        for _ in range(2):  # and what was saved is saved again
            checkout.run_and_save(name)
            code = [one for one in checkout.open(name)["cells"] if one["cell_type"] == "code"]
            assert all("this run's" in one["outputs"][0]["text"] and one["metadata"]["trusted"] for one in code)
    assert checkout.git("status", "--porcelain") == ""
    kept = list((checkout.folder / "notebooks" / ".ran").iterdir())
    assert len(kept) == len(NOTEBOOKS), "one page a notebook"


def test_without_our_settings_a_run_is_a_change(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path, ours=False)
    checkout.run_and_save()
    assert checkout.git("status", "--porcelain") == f" M {NAME}\n"


def test_what_was_written_is_all_of_the_difference(checkout: Checkout) -> None:
    checkout.run_and_save(**{FORM: "form = CaForm(workspace)\n# my note"})
    assert checkout.git("status", "--porcelain") == f" M {NAME}\n"
    changed = [line for line in checkout.git("diff", "-U0").splitlines() if line[0] in "+-" and line[1] not in "+-"]
    assert len(changed) == 2 and "my note" in changed[1] and all('"source": "form =' in line for line in changed)
    content = checkout.open()
    assert cell(content, FORM)["source"].endswith("# my note")
    assert "this run's" in cell(content, FORM)["outputs"][0]["text"]
    checkout.save(nbformat.read(checkout.upstream / NAME, 4))
    assert checkout.git("status", "--porcelain") == "", "taken back"
    # A new cell of code and one of prose, and a cell that is deleted.
    cells = [one for one in content["cells"] if one["id"] != CHECK]
    code = nbformat.v4.new_code_cell("1 + 1", outputs=[nbformat.v4.new_output("stream", text="2\n")], id="mine")
    checkout.save({**content, "cells": [*cells, code, nbformat.v4.new_markdown_cell("a thought", id="thought")]})
    on_disk = nbformat.read(checkout.folder / NAME, 4)
    assert [one.id for one in on_disk.cells] == [*(one["id"] for one in cells), "mine", "thought"]
    assert cell(on_disk, "mine").outputs == [] and cell(checkout.open(), "mine")["outputs"][0]["text"] == "2\n"


def test_git_pull_takes_what_is_new_and_keeps_what_was_written(checkout: Checkout) -> None:
    checkout.run_and_save()
    checkout.write_upstream("ca.check()  # new")
    checkout.git("pull")
    assert cell(checkout.open(), CHECK)["source"] == "ca.check()  # new"
    assert "this run's" not in str(checkout.open()), "a page of another notebook is not shown"
    # Written in one cell, while another changes upstream: git stops, and goes on when it is told to put work aside.
    checkout.run_and_save(**{FORM: "form = CaForm(workspace)  # mine"})
    checkout.write_upstream("ca.check()  # newer")
    assert "would be overwritten" in checkout.git("pull", works=False)
    assert "Applied autostash" in checkout.git("pull", "--autostash")
    for cell_id, text in ((FORM, "# mine"), (CHECK, "# newer")):
        assert cell(checkout.open(), cell_id)["source"].endswith(text)
    assert checkout.git("status", "--porcelain") == f" M {NAME}\n"
    # Both in one cell: nothing is lost, as docs/updating.md says.
    checkout.write_upstream("form = None", FORM)
    assert "conflict" in checkout.git("pull", "--autostash")
    checkout.git("checkout", "HEAD", "--", "notebooks")
    assert cell(checkout.open(), FORM)["source"] == "form = None"
    assert "# mine" in checkout.git("show", f"stash@{{0}}:{NAME}")


def test_a_maintainer_who_rebuilds_commits_new_outputs(checkout: Checkout) -> None:
    checkout.run_and_save()
    path = checkout.folder / NAME
    notebook = nbformat.read(path, 4)
    cell(notebook, CHECK).outputs = [nbformat.v4.new_output("stream", text="rebuilt\n")]
    path.write_text(canonical(notebook), encoding="utf-8", newline="\n")
    assert checkout.git("status", "--porcelain") == f" M {NAME}\n"
    assert cell(checkout.open(), CHECK)["outputs"][0]["text"] == "rebuilt\n", "and sees them in the Lab"


def test_a_notebook_of_ones_own_is_saved_as_it_is(checkout: Checkout) -> None:
    assert asyncio.run(checkout.manager.new(path="notebooks/own.ipynb"))["type"] == "notebook"  # it has no cell yet
    own = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")])
    checkout.save(own, "notebooks/own.ipynb")
    checkout.run_and_save("notebooks/own.ipynb")
    assert "this run's" in (checkout.folder / "notebooks" / "own.ipynb").read_text()
    assert not (checkout.folder / "notebooks" / ".ran").exists()
    (checkout.folder / NAME).write_text("no notebook")
    checkout.save(own)
    assert nbformat.read(checkout.folder / NAME, 4).cells[0].source == "1"


@pytest.mark.parametrize("new", ["notebooks/mine.ipynb", "mine.ipynb", "notebooks/01_ca_certificate.mine.ipynb"])
def test_a_notebook_that_is_renamed_or_moved_keeps_what_a_run_showed(checkout: Checkout, new: str) -> None:
    checkout.run_and_save()
    asyncio.run(checkout.manager.rename(NAME, new))
    assert "this run's" in str(checkout.open(new))
    checkout.git("checkout", "--", NAME)
    assert "this run's" not in str(checkout.open())
    checkout.run_and_save()
    assert "this run's" in str(checkout.open(new)), "another notebook's page is not this one's to delete"


def test_a_notebook_that_is_deleted_takes_its_page_along(checkout: Checkout) -> None:
    checkout.manager.delete_to_trash = False
    for path in NOTEBOOKS[1:3]:
        checkout.run_and_save(f"notebooks/{path.name}")
    asyncio.run(checkout.manager.delete(NAME))
    (kept,) = (checkout.folder / "notebooks" / ".ran").iterdir()
    assert kept.name.startswith(NOTEBOOKS[2].stem), "another's stays"


def test_what_was_written_is_kept_where_its_page_cant_be(checkout: Checkout) -> None:
    ran = checkout.folder / "notebooks" / ".ran"
    ran.write_text("a file where the folder belongs; as root nothing is read-only")
    with pytest.raises(HTTPError, match="Unexpected error while saving"):  # the Lab says so
        checkout.run_and_save(**{FORM: "mine = 1"})
    assert cell(checkout.open(), FORM)["source"] == "mine = 1"
    ran.unlink()
    checkout.run_and_save()
    next(ran.iterdir()).write_text("{")  # the machine went off
    assert cell(checkout.open(), FORM)["source"] == "mine = 1"
    old = json.loads(json.dumps(checkout.open()))  # a client that knows no ids
    cell(old, FORM)["source"] = "mine = 2"
    for one in old["cells"]:
        del one["id"]
    checkout.save({**old, "nbformat_minor": 4})
    assert "mine = 2" in [one["source"] for one in checkout.open()["cells"]]


def test_a_dead_widget_says_once_to_run_its_cell_again(checkout: Checkout) -> None:
    dead = {"text/html": "form", "application/vnd.jupyter.widget-view+json": {"model_id": "gone"}}
    for _ in range(2):  # it was opened, saved as it was shown, and its kernel ended again
        content = checkout.open()
        cell(content, FORM)["outputs"] = [nbformat.v4.new_output("display_data", dead)]
        checkout.save(content)
        dead |= {"text/html": cell(checkout.open(), FORM)["outputs"][0]["data"]["text/html"]}
        assert str(cell(checkout.open(), FORM)["outputs"]).count("Run this cell again") == 1


@pytest.mark.slow
@pytest.mark.parametrize("ours", [True, False], ids=["with our settings", "without, the control"])
def test_the_lab_runs_and_saves_every_notebook(tmp_path: Path, ours: bool) -> None:
    tool("chromium")
    checkout = Checkout(tmp_path)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MCIOT_")}
    environment["JUPYTER_CONFIG_PATH"] = str(ROOT / "jupyter-config") if ours else ""
    environment["MCIOT_WORKSPACE"] = str(tmp_path / "workspace")
    command = ["-m", "jupyterlab", "--allow-root", f"--ServerApp.root_dir={checkout.folder}"]
    with serve(command, tmp_path, environment) as address:
        for path in NOTEBOOKS if ours else NOTEBOOKS[:1]:
            url = address.format(name=f"notebooks/{path.name}")
            with page_of(url) as page:
                run_all(page)
                wait_until_done(page, path)
                page.get_by_role("menuitem", name="File", exact=True).click()
                page.locator(".lm-Menu-item", has_text="Save Notebook").first.click()
                expect(page.locator(".lm-TabBar-tab.jp-mod-dirty")).to_have_count(0)
    changed = "" if ours else f" M notebooks/{NOTEBOOKS[0].name}\n"
    assert checkout.git("status", "--porcelain") == changed


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_guide_runs_no_exercise_that_a_reader_has_written(path: Path) -> None:
    cells = {cell.id: cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"}
    left_out = [cells[name] for name in cells.keys() - {cell.id for cell in guided(path).cells}]
    assert left_out and all(re.match(r"# Exercise \d: write your code here$", source) for source in left_out)
    assert not any("# Exercise" in cell.source for cell in guided(path).cells if cell.cell_type == "code")
