"""What the tests share: the real tools, and a small CA made once."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from mciot_nb import workspace
from mciot_nb.local_platform import LocalPlatform
from mciot_nb.pki.authority import CertificateAuthority
from mciot_nb.pki.keys import KeyType
from mciot_nb.pki.names import DistinguishedName
from mciot_nb.workspace import Workspace

if TYPE_CHECKING:
    from crash_tools import Base

#: The passphrase of every key that the tests make. No test may find it in a file of the project or in an output.
PASSPHRASE = "Zeppelin-7 Ölkanne"
ROOT = Path(__file__).parents[1]

settings.register_profile("project", deadline=None, derandomize=bool(os.environ.get("CI")), max_examples=20)
settings.register_profile("all", parent=settings.get_profile("project"), max_examples=100)
settings.load_profile("project")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="the slow tests too, and the others at full depth")


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile("all" if config.getoption("--all") else "project")  # before a test file is imported


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--all") or config.option.markexpr or any("::" in name for name in config.args):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    config.hook.pytest_deselected(items=slow)
    items[:] = [item for item in items if item not in slow]


def examples(at_full_depth: int) -> settings:
    """Return the settings of a property test: so many examples with ``--all``, else a tenth of them, 5 at least."""
    is_all = settings.default is not None and settings.default.max_examples == 100
    return settings(max_examples=at_full_depth if is_all else max(5, at_full_depth // 10))


Run = Callable[..., "subprocess.CompletedProcess[str]"]


def tool(name: str) -> str:
    """Find a program; without it the test is skipped on a user's machine, and fails on CI."""
    path = shutil.which(name)
    if path is None:
        if os.environ.get("CI"):
            pytest.fail(f"{name} is missing, and CI must have it: see .ci/run")
        pytest.skip(f"{name} is not installed")
    return path


def run(name: str, *arguments: object, check: bool = True, **options: object) -> "subprocess.CompletedProcess[str]":
    """Run a program without a terminal; the passphrase is in the environment as PASS, never on the command line."""
    environment = {**os.environ, "PASS": PASSPHRASE, "LC_ALL": "C.UTF-8"}
    done: subprocess.CompletedProcess[str] = subprocess.run(  # type: ignore[call-overload]
        [tool(name), *map(str, arguments)],
        env=environment,
        text=True,
        capture_output=True,
        **({"stdin": subprocess.DEVNULL} if "input" not in options else {}),
        **options,
    )
    assert not check or done.returncode == 0, done.stderr + done.stdout
    return done


@pytest.fixture(scope="session")
def openssl() -> Run:
    tool("openssl")
    return lambda *arguments, **options: run("openssl", *arguments, **options)


@pytest.fixture(scope="session")
def keytool() -> Run:
    tool("keytool")
    quick = ("-J-XX:TieredStopAtLevel=1", "-J-XX:+UseSerialGC")  # half the processor time for so short a life
    return lambda *arguments, **options: run("keytool", "-J-Duser.language=en", *quick, *arguments, **options)


@pytest.fixture(scope="session")
def shared_ca(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    """A CA for tests that only read it, or sign without caring what else was signed. P-256, for speed."""
    folder = tmp_path_factory.mktemp("shared") / "caCertificate"
    return CertificateAuthority.create(
        folder, DistinguishedName(country="DE", common_name="Test CA"), PASSPHRASE, key_type=KeyType.P256
    )


@pytest.fixture
def ca(tmp_path: Path) -> CertificateAuthority:
    """A CA of the test's own."""
    subject = DistinguishedName(country="DE", locality="Ulm", organization="Probe & Söhne", common_name="Test CA")
    return CertificateAuthority.create(tmp_path / "caCertificate", subject, PASSPHRASE, key_type=KeyType.P256)


def make_keys_quick(patch: pytest.MonkeyPatch) -> None:
    """Let every key that is not asked for otherwise be of P-256, and the environment choose nothing."""
    for name in [name for name in os.environ if name.startswith("MCIOT_")]:
        patch.delenv(name)
    makers = (CertificateAuthority.create.__func__, CertificateAuthority.create_intermediate)  # type: ignore[attr-defined]
    for function in makers:
        patch.setattr(function, "__kwdefaults__", {**function.__kwdefaults__, "key_type": KeyType.P256})
    for owner, choice in workspace.DEFAULT_KEYS.items():
        patch.setitem(workspace.DEFAULT_KEYS, owner, choice.changed(key_type=KeyType.P256))


@pytest.fixture
def quick_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    """An empty workspace whose keys are quick to make, with no choice of the environment's."""
    make_keys_quick(monkeypatch)
    yield Workspace(tmp_path / "workspace")
    if platform := LocalPlatform.running(tmp_path / "workspace"):
        platform.stop()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> "Base":
    """What the tests of crashes start from: a CA with two certificates and a revocation list, and requests."""
    from crash_tools import make_base  # here, because it imports this file

    return make_base(tmp_path_factory.mktemp("crash"))
