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


PROCESSES, EACH = 16, 25


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


def test_sixteen_processes_lose_nothing_and_a_killed_one_blocks_nobody(
    tmp_path: Path, openssl: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = DistinguishedName(country="DE", common_name="Test CA")
    ca = CertificateAuthority.create(tmp_path / "caCertificate", subject, PASSPHRASE, key_type=KeyType.RSA_2048)
    with ExitStack() as stack:
        signers = [
            stack.enter_context(started("sign-many-times", ca.folder, f"process-{number}", EACH))
            for number in range(PROCESSES)
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
        with ThreadPoolExecutor(PROCESSES) as pool:  # each pipe is emptied, or its writer would stand still
            outputs = list(pool.map(lambda signer: signer.communicate(timeout=120), signers))
        assert [(signer.returncode, errors) for signer, (_, errors) in zip(signers, outputs, strict=True)] == [
            (0, "")
        ] * PROCESSES
    handed_out = [each for output, _ in outputs for each in said(output)]
    rows = ca.database.rows()
    assert len(rows) == len(handed_out) == PROCESSES * EACH
    assert len({row.serial for row in rows}) == len({row.subject for row in rows}) == PROCESSES * EACH
    assert {each["serial"] for each in handed_out} == {row.serial for row in rows}
    demand_rows_and_copies_agree(ca.folder)
    for each in handed_out:
        assert (ca.folder / "deviceCertificates" / f"{hex_serial(each['serial'])}.pem").read_text() == each["pem"]
    again = CertificateAuthority.open(ca.folder, PASSPHRASE)
    assert again.recovered == "" and hidden(ca.folder) == []
    assert not BAD & {finding.code for finding in again.check().findings}
    assert f"{hex_serial(rows[-1].serial)}=Valid (V)" in openssl_status(ca.folder, rows[-1].serial)
    # They really took turns: nobody signed all of its requests in one go.
    signer_of = [row.subject.split("process-")[1].split("-")[0] for row in rows]
    assert sum(one != next_one for one, next_one in pairwise(signer_of)) > PROCESSES
