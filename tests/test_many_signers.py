"""Many processes sign in one directory at once; one of them is killed while all others wait for it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from conftest import PASSPHRASE, ROOT, Run
from crash_tools import BAD, CHILD, copies, demand_rows_and_copies_agree, hidden, openssl_status, request_for, said

from mciot_nb import CertificateAuthority, DistinguishedName, OnboardingError
from mciot_nb.pki import database as database_module
from mciot_nb.pki.keys import KeyType
from mciot_nb.pki.rows import hex_serial

pytestmark = pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX")


@contextmanager
def started(*arguments: object) -> "Iterator[subprocess.Popen[str]]":
    """A child that goes on beside the test, and ends with it at the latest."""
    environment = {**os.environ, "PASS": PASSPHRASE}
    command = [sys.executable, str(CHILD), *map(str, arguments)]
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, env=environment, cwd=ROOT, text=True, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


def expect(process: "subprocess.Popen[str]", state: str) -> None:
    assert process.stdout and process.stderr
    line = process.stdout.readline()
    assert line and json.loads(line) == {"state": state}, line or process.stderr.read()


@pytest.mark.parametrize(("processes", "each"), [(4, 8), pytest.param(16, 25, marks=pytest.mark.slow)])
def test_many_processes_lose_nothing_and_a_killed_one_blocks_none(
    processes: int, each: int, tmp_path: Path, openssl: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = DistinguishedName(country="DE", common_name="Test CA")
    ca = CertificateAuthority.create(tmp_path / "caCertificate", subject, PASSPHRASE, key_type=KeyType.P256)
    with ExitStack() as stack:
        signers = [
            stack.enter_context(started("sign-many-times", ca.folder, f"process-{number}", each))
            for number in range(processes)
        ]
        for signer in signers:
            expect(signer, "ready")
        holder = stack.enter_context(started("hold", ca.folder))
        expect(holder, "held")
        for signer in signers:
            assert signer.stdin
            signer.stdin.write("go\n")
            signer.stdin.flush()
            expect(signer, "started")
        # The control: while the holder lives, nobody gets on, neither they nor we.
        with monkeypatch.context() as patch, pytest.raises(OnboardingError) as caught:
            patch.setattr(database_module, "LOCK_TIMEOUT", 0.3)
            ca.sign(request_for("impatient"))
        assert caught.value.code == "LOCKED"
        assert holder.poll() is None and all(signer.poll() is None for signer in signers)
        assert ca.database.path.read_bytes() == b"" and copies(ca.folder) == []

        holder.kill()
        assert holder.wait() == -signal.SIGKILL
        with ThreadPoolExecutor(processes) as pool:  # each pipe is emptied, or its writer would stand still
            outputs = list(pool.map(lambda signer: signer.communicate(timeout=600), signers))
        assert [(signer.returncode, errors) for signer, (_, errors) in zip(signers, outputs, strict=True)] == [
            (0, "")
        ] * processes
    handed_out = [certificate for output, _ in outputs for certificate in said(output)]
    rows = ca.database.rows()
    assert len(rows) == len(handed_out) == processes * each
    assert len({row.serial for row in rows}) == len({row.subject for row in rows}) == processes * each
    assert {certificate["serial"] for certificate in handed_out} == {row.serial for row in rows}
    demand_rows_and_copies_agree(ca.folder)
    for certificate in handed_out:
        copy = ca.folder / "deviceCertificates" / f"{hex_serial(certificate['serial'])}.pem"
        assert copy.read_text() == certificate["pem"]
    again = CertificateAuthority.open(ca.folder, PASSPHRASE)
    assert again.recovered == "" and hidden(ca.folder) == []
    assert not BAD & {finding.code for finding in again.check().findings}
    assert f"{hex_serial(rows[-1].serial)}=Valid (V)" in openssl_status(ca.folder, rows[-1].serial)
    # They really took turns, and did not sign all of their requests in one go (few processes may).
    signer_of = [row.subject.split("process-")[1].split("-")[0] for row in rows]
    assert processes < 16 or sum(one != next_one for one, next_one in pairwise(signer_of)) > processes
