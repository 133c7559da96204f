"""The project's own files agree with each other."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import PASSPHRASE, ROOT
from packaging.specifiers import SpecifierSet

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RANGES = dict(
    re.match(r"([\w.-]+)(.*)", line).groups()  # type: ignore[union-attr]
    for group in [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    for line in group
)
#: conda's: one version, and no range, which repo2docker would not understand (tests/test_binder.py).
(ENVIRONMENT_PYTHON,) = re.findall(r"^  - python=(3\.\d+)(?: |$)", (ROOT / "environment.yml").read_text(), re.MULTILINE)


def test_environment_yml_agrees_with_pyproject() -> None:
    text = (ROOT / "environment.yml").read_text()
    listed = dict(re.findall(r"^  - ([\w-]+)(>=[\d.]+)$", text, re.MULTILINE))
    assert ENVIRONMENT_PYTHON in SpecifierSet(PROJECT["requires-python"])
    for system in ("openssl", "openjdk"):
        assert system in listed and listed.pop(system)
    assert listed == {name: RANGES[name] for name in listed} and len(listed) >= 7
    assert re.findall(r"(?<=channels:\n)((?:  - .*\n)+)", text) == ["  - conda-forge\n  - nodefaults\n"]


def test_constraints_pin_every_dependency_and_name_no_address() -> None:
    text = (ROOT / "constraints.txt").read_text()
    pinned = {re.split(r"==|[ ;]", line)[0].lower() for line in text.splitlines()}
    assert {name.lower() for name in RANGES} <= pinned
    assert "://" not in text and " @ " not in text


def test_every_dependency_has_its_reason() -> None:
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    dependencies = [line for line in lines if re.match(r'    "[\w.-]+[>=\d.]*",', line)]
    assert len(dependencies) == len(RANGES)
    assert all(re.search(r"# \S+", line) for line in dependencies)


def run_py(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, ROOT / "run.py", *arguments], capture_output=True, text=True)


def test_run_py_explains_itself_and_names_a_wrong_command() -> None:
    for asking in (["--help"], ["help"], ["-h"]):
        assert "python3 run.py guide" in run_py(*asking).stdout, "and nothing is run"
    for command, about in {
        "lab": "--help-all",
        "test": "--all",
        "guide": "MCIOT_WORKSPACE",
        "book": "--tenant-url",
        "check": "ports",
        "class": "--tenants N",
        "bench": "Measures",
        "rebuild": "form",
    }.items():
        said = run_py(command, "--help").stdout
        assert (
            re.match(f"python3 run.py {command}\\b", said)
            and about in said
            and (command == "guide" or "run.py guide" not in said)
        )
    wrong = run_py("gide")
    assert wrong.returncode != 0 and "no command 'gide'" in wrong.stderr and "Traceback" not in wrong.stderr


#: What pip and uv wrote in a first start, shortened, and what is shown then.
PIP = {
    "Collecting jupyterlab>=4.6 (from mciot-nb==0.1.0)": "finding out what is needed",
    "  Downloading jupyterlab-4.6.6-py3-none-any.whl (17.3 MB)": "0 MB downloaded, now jupyterlab (17.3 MB)",
    "  Downloading dacite-1.9.2-py3-none-any.whl (16 kB)": "",  # too small to tell of
    "  Using cached pandas-3.1.1-cp311-cp311-win_amd64.whl (12.4 MB)": "17 MB downloaded, now pandas (12.4 MB)",
    "WARNING: Retrying (Retry(total=4, connect=None)) after": "no answer from the network, trying again",
    "Installing collected packages: pure-eval, jupyterlab": "everything is here, installing it",
}
UV = {
    "Resolved 127 packages in 1.43s": "finding out what is needed",
    "Downloading pydantic-core (2.1MiB)": "0 MB downloaded, now pydantic-core (2.1 MB)",
    "Downloading jupyterlab (16.5MiB)": "0 MB downloaded, now jupyterlab (16.5 MB)",
    " Downloaded jupyterlab": "16 MB downloaded, jupyterlab too",
    "Prepared 127 packages in 40.09s": "everything is here, installing it",
}


@pytest.mark.parametrize("lines", [PIP, UV], ids=["pip", "uv"])
@pytest.mark.parametrize("terminal", [False, True])
def test_the_first_start_shows_how_far_it_is(lines: dict[str, str], terminal: bool) -> None:
    says = f"for line in {list(lines)!r}: print(line, flush=True), input()"
    code = (
        f"import sys, run; sys.stdout.isatty = lambda: {terminal}; print(run.follow([sys.executable, '-c', {says!r}]))"
    )
    command, pipe = [sys.executable, "-c", code], subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, bufsize=0) as shown:
        assert shown.stdin and shown.stdout
        seen = ""
        for state in lines.values():
            before = len(seen)
            while state not in seen[before:] + seen[-1:]:
                seen += shown.stdout.read(1).decode()
            shown.stdin.write(b"\n")
        seen += shown.stdout.read().decode()
    assert seen.splitlines()[-1].startswith("(True, ") and ("\r" in seen) == terminal
    assert next(iter(lines)) in seen.splitlines()[-1], "all that was said is kept"


@pytest.mark.parametrize("columns", [30, 200])
def test_the_line_that_moves_is_shorter_than_the_terminal(columns: int) -> None:
    code = "import sys, run; sys.stdout.isatty = lambda: True; run.follow([sys.executable, '-c', ''])"
    command, environment = [sys.executable, "-c", code], {**os.environ, "COLUMNS": str(columns)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=True)
    first, *lines, end = done.stdout.decode().split("\r")
    assert (first, end) == ("", "") and {len(line) for line in lines} == {min(columns - 1, 70)}


@pytest.mark.slow
def test_without_a_network_one_sentence_says_so(tmp_path: Path) -> None:
    for name in ("run.py", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_CONFIG_FILE": os.devnull, "PIP_RETRIES": "1"}
    environment = {**os.environ, **nowhere, "PIP_NO_CACHE_DIR": "1", "PATH": os.defpath}  # no uv
    base = Path(sys.base_prefix) / ("python.exe" if os.name == "nt" else "bin/python3")
    for _ in range(2):  # and a second start begins again
        done = subprocess.run([base, tmp_path / "run.py", "check"], env=environment, capture_output=True, text=True)
        assert done.returncode != 0 and "no answer from the network" in done.stdout
        assert re.fullmatch(r"The packages could not be installed; the package server was not [^\n]*\n", done.stderr)
        assert "Retrying" in (tmp_path / ".venv" / "prepare.log").read_text()


def test_check_looks_at_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCIOT_WORKSPACE", str(tmp_path / "workspace"))
    done = run_py("check")
    assert done.returncode == 0 and "✓ good       Local platform" in done.stdout, done.stdout + done.stderr


def test_a_python_without_ensurepip_is_told_what_to_install(tmp_path: Path) -> None:
    for name in ("run.py", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    lame = tmp_path / "lame"
    lame.mkdir()
    (lame / "sitecustomize.py").write_text(
        "import importlib.util as u, sys\nfind = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'ensurepip' else find(name, *a)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(lame), "PATH": "/nowhere"}
    base = Path(sys.base_prefix) / ("python.exe" if os.name == "nt" else "bin/python3")
    done = subprocess.run([base, tmp_path / "run.py", "check"], env=environment, capture_output=True, text=True)
    assert done.returncode != 0 and "no ensurepip: install it first" in done.stderr and "Traceback" not in done.stderr


def test_a_python_that_is_too_old_is_told_so() -> None:
    code = "import sys; sys.version_info = (3, 10, 2); exec(compile(open('run.py').read(), 'run.py', 'exec'))"
    command = [sys.executable, "-c", f"__file__ = 'run.py'; {code}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0 and "needs Python 3.11 or later" in done.stderr


def test_no_file_of_the_project_holds_a_secret_or_a_path_of_a_machine() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True).stdout.split("\0")
    if listed == [""]:
        pytest.skip("this is no git checkout")
    for name in filter(None, listed):
        data = (ROOT / name).read_bytes()
        assert str(ROOT).encode() + b"/" not in data, name
        assert PASSPHRASE.encode() not in data or name == "tests/conftest.py", name
        assert not re.search(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\n[A-Za-z0-9+/=\n]{64,}", data), name
