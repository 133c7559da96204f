"""SIGKILL at every file operation of issuing on the platform: nothing is lost, and no serial number comes twice."""

import contextlib
import os
import re
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import platform_tools as tools
import pytest
import requests
from conftest import tool
from cryptography.hazmat.primitives.asymmetric import ec
from test_enrolment import KEY, PASSWORD, as_base64, certificate_in, csr_of, post, register, renewed

from mciot_nb import LocalPlatform
from mciot_nb.pki.chain import is_issued_by

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="SIGKILL and strace are POSIX")]
#: What changes a file, and what sends the answer.
CALLS = ("pwrite64", "write", "fdatasync", "fsync", "ftruncate", "unlink", "rename")


def watched(folder: Path, do: Callable[[LocalPlatform], Any], call: str = "", number: int = 0) -> tuple[list[str], Any]:
    """Let the platform do something, killed on entering that ``call``; returns the calls made, and the answer."""
    answer = None
    with tools.start_in_foreground(folder, "--profile", "current") as (process, _):
        platform = tools.running(folder)
        attach = [
            tool("strace"),
            "-f",
            "-p",
            str(process.pid),
            "-o",
            str(folder / "calls"),
            "-e",
            f"trace={','.join(CALLS)}",
        ]
        attach += ["-e", f"inject={call}:signal=SIGKILL:when={number}"] if call else []
        with subprocess.Popen(attach, stderr=subprocess.PIPE, text=True) as strace:
            assert strace.stderr and "attached" in strace.stderr.readline()
            with contextlib.suppress(requests.ConnectionError):
                answer = do(platform)
            if answer is None:
                assert process.wait(tools.SECONDS) == -signal.SIGKILL
            strace.terminate()
            strace.communicate(timeout=tools.SECONDS)
    return re.findall(r"^\d+ +(\w+)\(", (folder / "calls").read_text(), re.MULTILINE), answer


def serials(folder: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(folder / "platform" / "platform.sqlite")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return [serial for (serial,) in database.execute("SELECT serial FROM issued ORDER BY id")]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A workspace whose platform has a CA and a device that may enrol, and that device's token."""
    folder = tmp_path_factory.mktemp("crash") / "base"
    with tools.started(folder, "current") as platform:
        platform.tenant.own_ca.turn_on()
        platform.tenant.own_ca.create()
        register(platform, "dev")
        certificate = certificate_in(post(platform, "dev", PASSWORD, as_base64(csr_of("dev"))))
        tools.write_chain(tools.Entity(certificate, KEY, (certificate,)), folder / "dev.pem")
        path, shown = "/devicecontrol/deviceAccessToken", str(folder / "dev.pem")
        token = tools.rest(platform, "POST", path, auth=None, cert=shown).json()["access_token"]
        register(platform, "dev")
    return folder, token


def at_every_call(base: Path, parent: Path, do: Callable[[LocalPlatform], Any], check: Callable[[Path], bool]) -> None:
    """Kill at each call in turn; ``check`` says whether it had happened by then."""
    calls, answer = watched(shutil.copytree(base, parent / "undisturbed"), do)
    assert answer.ok and {"pwrite64", "fdatasync"} <= set(calls)
    seen = []
    for number, call in enumerate(calls):
        folder = shutil.copytree(base, parent / str(number))
        watched(folder, do, call, calls[: number + 1].count(call))
        seen.append(check(folder))
    assert seen == sorted(seen) and set(seen) == {False, True}, f"one moment at which it happens: {calls} {seen}"


def test_a_device_whose_platform_is_killed_while_it_enrols_gets_its_certificate(
    base: tuple[Path, str], tmp_path: Path
) -> None:
    body, other = as_base64(csr_of("dev")), as_base64(csr_of("dev", ec.generate_private_key(ec.SECP256R1())))

    def check(folder: Path) -> bool:
        before = serials(folder)
        with tools.start_in_foreground(folder, "--profile", "current"):
            platform = tools.running(folder)
            certificate = certificate_in(post(platform, "dev", PASSWORD, body))
            assert post(platform, "dev", PASSWORD, other).status_code == 401
        after = serials(folder)
        assert len(set(after)) == len(after) == 2 and f"{certificate.serial_number:040x}" == after[-1]
        assert after[: len(before)] == before, "what was signed before the kill is what the device gets"
        return len(before) == 2

    at_every_call(base[0], tmp_path, lambda platform: post(platform, "dev", PASSWORD, body), check)


def test_a_renewal_whose_platform_is_killed_leaves_nothing_unknown(base: tuple[Path, str], tmp_path: Path) -> None:
    folder, token = base
    body = as_base64(csr_of("dev"))

    def check(folder: Path) -> bool:
        before = serials(folder)
        with tools.start_in_foreground(folder, "--profile", "current"):
            certificate = certificate_in(renewed(tools.running(folder), token, body))
        after = serials(folder)
        assert len(set(after)) == len(after) == len(before) + 1 and f"{certificate.serial_number:040x}" == after[-1]
        return len(before) == 2

    at_every_call(folder, tmp_path, lambda platform: renewed(platform, token, body), check)


@pytest.mark.parametrize("there", [False, True], ids=["made", "deleted"])
def test_a_ca_is_there_with_its_key_or_not_at_all(there: bool, base: tuple[Path, str], tmp_path: Path) -> None:
    with tools.started(shutil.copytree(base[0], tmp_path / "base"), "current") as platform:
        known = platform.tenant.own_ca.certificate()
        assert known
        if not there:
            platform.tenant.trusted_certificates.delete(known)
    fingerprint = tools.Entity(known, KEY, ()).fingerprint

    def change(platform: LocalPlatform) -> Any:
        return (
            tools.rest(platform, "DELETE", fingerprint)
            if there
            else tools.rest(platform, "POST", "/certificate-authority")
        )

    def check(folder: Path) -> bool:
        with tools.start_in_foreground(folder, "--profile", "current"):
            platform = tools.running(folder)
            found = platform.tenant.own_ca.certificate()
            ca = found or platform.tenant.own_ca.create()
            assert is_issued_by(certificate_in(post(platform, "dev", PASSWORD, as_base64(csr_of("dev")))), ca)
            assert platform.tenant.own_ca.certificate() == ca
        return (found is not None) != there

    at_every_call(tmp_path / "base", tmp_path, change, check)
