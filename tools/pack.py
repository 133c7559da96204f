"""Pack what a class needs into one folder (`run.py pack`), from which `run.py --from FOLDER` starts without a network.

The folder holds ``wheels/``, what a user's commands need and no more; ``tutorial/``, the files that git tracks, as they
are; a page that says what to do; and `LIST`, which says for which Python and system each wheel is, and its SHA-256.
run.py imports this before anything is installed: at the top there is the standard library only.
"""

import argparse
import hashlib
import importlib.util
import json
import platform
import shutil
import subprocess
import sys
import zipfile
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIST = "pack.json"
#: What makes the editable installation of the checkout; pip and uv build it in an environment of its own.
BUILD = ("hatchling", "editables")
#: How many wheels are fetched before they count as there; a few, because an interruption loses only these.
BATCH = 20
PAGE = """# The tutorial, for a room with a poor network

Copy this whole folder to your disk. Open a terminal in the copy, and type

    python3 tutorial/run.py --from . check      once, the day before: it installs everything, and looks at the machine
    python3 tutorial/run.py --from .            opens JupyterLab at the first notebook

On Windows, type `py` instead of `python3`. No network is needed. The folder serves these, and no others:

{kinds}

The packages are unpacked into `tutorial/.venv` (about 550 MB), and your files are in `tutorial/workspace`. Once it is
installed, the wheels can go.

If a file was damaged on its way, the first start names it: copy that file again.

For the trainer: `python3 tutorial/run.py --from . class --tenants 12 --host NAME` runs the class's platform;
`tutorial/docs/class.md` has the whole day.
"""


def kind() -> str:
    """Return for which machines the wheels are that fit this one."""
    name = {"CPython": "Python"}.get(platform.python_implementation(), platform.python_implementation())
    system = {"Darwin": "macOS"}.get(platform.system(), platform.system())
    return f"{name} {sys.version_info.major}.{sys.version_info.minor} on {system} {platform.machine()}"


def options_for(folder: Path) -> list[str]:
    """Return what tells pip or uv to install from ``folder`` alone.

    Exits with a sentence if the folder is no pack, is one for other machines or another version, or is damaged.
    """
    wheels, known = folder / "wheels", read_list(folder)
    if not known:
        sys.exit(f"{folder} is no folder that “run.py pack” has finished: look for the one with {LIST} in it.")
    if kind() not in known:
        found = f"{folder} is for {'; '.join(known)}, and this is {kind()}"
        sys.exit(f"{found}: start run.py with such a Python, or pack for this one.")
    if not is_of_this_version(folder):
        sys.exit(f"{folder} was packed for another version of the tutorial: use {folder / 'tutorial' / 'run.py'}.")
    for name, digest in known[kind()].items():
        if digest_of(wheels / name) != digest:
            state = "damaged" if (wheels / name).exists() else "missing"
            sys.exit(f"{wheels / name} is {state}: copy that file again from the original folder.")
    return ["--no-index", "--find-links", str(wheels.absolute())]


def read_list(folder: Path) -> dict[str, dict[str, str]]:
    """Return the SHA-256 of each wheel, for each kind of machine; empty if it can't be read."""
    try:
        known: dict[str, dict[str, str]] = json.loads((folder / LIST).read_text("utf-8"))
        return {name: {**wheels} for name, wheels in known.items()}
    except (OSError, ValueError, TypeError, AttributeError):  # also of another form
        return {}


def write_list(folder: Path, known: dict[str, dict[str, str]]) -> None:
    """Write what `read_list` reads, all or nothing."""
    (folder / f"{LIST}.new").write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", "utf-8")
    (folder / f"{LIST}.new").replace(folder / LIST)


def is_of_this_version(folder: Path) -> bool:
    """Whether the pack's tutorial needs what this one does; git on Windows may end the lines otherwise."""
    pairs = [(folder / "tutorial" / name, ROOT / name) for name in ("pyproject.toml", "constraints.txt")]
    return all(one.is_file() and one.read_text("utf-8") == other.read_text("utf-8") for one, other in pairs)


def digest_of(path: Path) -> str:
    """Return a file's SHA-256, or nothing if it is not there."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def main() -> int:
    """Pack, or go on with what was interrupted; return the exit code."""
    parser = argparse.ArgumentParser("run.py pack")
    parser.add_argument("--out", type=Path, default=ROOT / "class-pack")
    parser.add_argument("--here", type=Path, default=Path.cwd(), help="the folder in which a relative one lies")
    given = parser.parse_args()
    folder = given.here / given.out.expanduser()
    try:
        if folder.exists() and any(folder.iterdir()) and not (folder / LIST).exists():
            sys.exit(f"{folder} holds something else already: name a folder that is empty or not there yet.")
        print(f"Packing into {folder} for {kind()}: about 120 MB of wheels.", flush=True)
        (folder / "wheels").mkdir(parents=True, exist_ok=True)
        if not is_of_this_version(folder):
            write_list(folder, {})  # not finished, and what is there for other machines is of another version
        fetch(needed := requirements(), folder / "wheels")
        copy_tutorial(folder / "tutorial")
        finish(folder, needed)
    except subprocess.CalledProcessError as error:
        print(f"{error.cmd[0]} failed, and has said why above. Run it again, and it goes on from what is there.")
        return 1
    except OSError as error:
        print(f"{folder} could not be filled: {error}. Run it again, and it goes on from what is there.")
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted: run it again, and it goes on from what is there.")
        return 1
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    print(f"Done: {len(needed)} wheels, {size:.0f} MB in all. {folder / 'README.md'} says what to do with the folder.")
    return 0


def requirements() -> dict[str, str]:
    """Return the names and versions that pip would install here for a user, and for building the checkout."""
    asked = [*pip(), "install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-", "-c", "constraints.txt"]
    report = subprocess.run([*asked, *BUILD, "."], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    from packaging.utils import canonicalize_name
    from packaging.version import Version

    found = [one["metadata"] for one in json.loads(report)["install"] if not one["is_direct"]]
    return {canonicalize_name(one["name"]): str(Version(one["version"])) for one in found}


def pip() -> list[str]:
    """Return how pip is called; an environment that uv has made gets it first."""
    if importlib.util.find_spec("pip") is None:
        subprocess.run([shutil.which("uv") or "uv", "pip", "install", "-q", "-p", sys.executable, "pip"], check=True)
    return [sys.executable, "-m", "pip", "--disable-pip-version-check"]


def fetch(needed: dict[str, str], wheels: Path) -> None:
    """Download the wheels that are not there yet, and whole."""
    for path in wheels.glob("*.whl"):
        if not is_whole(path):
            path.unlink()
    missing = [f"{name}=={needed[name]}" for name in needed.keys() - fitting(needed, wheels).keys()]
    for start in range(0, len(missing), BATCH):
        print(f"  {len(needed) - len(missing) + start:3} of {len(needed)} wheels are here", flush=True)
        download = [*pip(), "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest", str(wheels)]
        subprocess.run([*download, *sorted(missing)[start : start + BATCH]], cwd=ROOT, check=True)


def is_whole(path: Path) -> bool:
    """Whether a wheel can be unpacked; one whose download was cut off can't."""
    try:
        with zipfile.ZipFile(path) as wheel:
            return wheel.testzip() is None
    except (zipfile.BadZipFile, OSError):
        return False


def fitting(needed: dict[str, str], wheels: Path) -> dict[str, Path]:
    """Return the wheels of the versions that are needed, and that this Python can use."""
    from packaging.tags import sys_tags
    from packaging.utils import parse_wheel_filename

    usable, found = set(sys_tags()), {}
    for path in wheels.glob("*.whl"):
        name, version, _, tags = parse_wheel_filename(path.name)
        if needed.get(name) == str(version) and usable & tags:
            found[str(name)] = path
    return found


def copy_tutorial(folder: Path) -> None:
    """Copy the files that git tracks, and nothing of a workspace; nothing that is there, such as one, is deleted."""
    git = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    for name in filter(None, git.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
            with suppress(OSError):  # a stick may know no such modes
                shutil.copymode(ROOT / name, folder / name)


def finish(folder: Path, needed: dict[str, str]) -> None:
    """Write the page and the list, which says that the folder is complete; drop the wheels that nobody needs."""
    known = read_list(folder)
    known[kind()] = {path.name: digest_of(path) for path in sorted(fitting(needed, folder / "wheels").values())}
    for path in (folder / "wheels").glob("*.whl"):
        if not any(path.name in wheels for wheels in known.values()):
            path.unlink()
    (folder / "README.md").write_text(PAGE.format(kinds="\n".join(f"- {one}" for one in sorted(known))), "utf-8")
    write_list(folder, known)


if __name__ == "__main__":
    sys.exit(main())
