"""What the tests share that look at a CA directory after a crash: where they start, and what must hold behind it."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ca_tools import copied, make_ca, request
from conftest import PASSPHRASE, ROOT, run
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from mciot_nb import CertificateAuthority
from mciot_nb.pki.chain import read_certificates
from mciot_nb.pki.crl import read_crl
from mciot_nb.pki.rows import DatabaseRow, hex_serial, parse_rows

CHILD = ROOT / "tests" / "crash_child.py"
#: In the directory that every test starts from: one certificate that nobody touches, and one to be revoked.
UNTOUCHED, TO_REVOKE = 0x1000, 0x1001
#: What a look through the directory must not find after it was opened again.
BAD = {"INTERRUPTED", "NO_ROW", "SERIAL_USED", "BAD_DATABASE"}


@dataclass(frozen=True)
class Case:
    """An operation, and what is special about the directory that it works in."""

    operation: str
    first_crl: bool = False

    def __str__(self) -> str:
        return self.operation + " without a CRL yet" * self.first_crl

    def arguments(self, base: "Base") -> list[str]:
        if self.operation == "revoke":
            return [str(TO_REVOKE)]
        return [str(path) for path in base.requests[: self.signed]]

    @property
    def signed(self) -> int:
        return {"sign": 1, "sign_many": 3}.get(self.operation, 0)


CASES = [Case("sign"), Case("sign_many"), Case("revoke"), Case("update_crl"), Case("update_crl", first_crl=True)]


@dataclass(frozen=True)
class Base:
    """A CA with two certificates and a revocation list, and requests beside it; never worked in, only copied."""

    folder: Path
    requests: list[Path]

    def copy(self, parent: Path, case: Case) -> Path:
        """Make a CA directory of its own, in a folder of its own because the lock lies beside the directory."""
        folder = copied(self.folder, parent / self.folder.name)
        if case.first_crl:
            crl_of(folder).unlink()
        return folder


def make_base(parent: Path) -> Base:
    """Make the directory that the tests start from."""
    ca = make_ca(parent / "caCertificate")
    signed = ca.sign_many([request("untouched"), request("to be revoked")])
    assert [certificate.serial_number for certificate in signed] == [UNTOUCHED, TO_REVOKE]
    ca.update_crl()
    requests = [parent / f"device-{number}.pem" for number in range(3)]
    for path in requests:
        path.write_bytes(request(path.stem).public_bytes(Encoding.PEM))
    return Base(ca.folder, requests)


def child(*arguments: object) -> "subprocess.CompletedProcess[str]":
    """Run crash_child.py to its end, which may be SIGKILL. It compiles nothing, as that would write files too."""
    environment = {**os.environ, "PASS": PASSPHRASE, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, str(CHILD), *map(str, arguments)]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL)


def said(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def whole_rows(folder: Path) -> list[DatabaseRow]:
    """Read the database by hand, as openssl does: a last line without its end does not count."""
    columns = parse_rows((folder / "database.txt").read_text())
    return [columns.row(at) for at in range(len(columns.serial))]


def copies(folder: Path) -> list[Path]:
    return list((folder / "deviceCertificates").glob("[!.]*.pem"))


def hidden(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.rglob(".*")]


def crl_of(folder: Path) -> Path:
    return folder / "crl" / "caCrl.pem"


def crl_number(crl: x509.CertificateRevocationList) -> int:
    return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def serials_in_names(folder: Path) -> set[int]:
    """Every serial that a file stands for: a copy's, and that of a draft, which nobody was given."""
    return {int(path.name.strip(".").partition(".")[0], 16) for path in (folder / "deviceCertificates").iterdir()}


def demand_rows_and_copies_agree(folder: Path) -> None:
    rows = [row.serial for row in whole_rows(folder)]
    assert len(rows) == len(set(rows)), "a serial stands twice"
    assert {path.name for path in copies(folder)} == {f"{hex_serial(serial)}.pem" for serial in rows}
    for path in copies(folder):
        certificate = read_certificates(path)[0]
        assert f"{hex_serial(certificate.serial_number)}.pem" == path.name


def state_of(case: Case, folder: Path, now: CertificateAuthority) -> bool:
    """Say whether the operation took place, and demand that it did so wholly or not at all."""
    rows = {row.serial: row for row in now.database.rows()}
    if case.signed:
        new = rows.keys() - {UNTOUCHED, TO_REVOKE}
        assert len(new) in (0, case.signed), f"{len(new)} of {case.signed} are signed"
        return bool(new)
    assert rows.keys() == {UNTOUCHED, TO_REVOKE}
    if case.operation == "revoke":
        row = rows[TO_REVOKE]
        assert (row.status, row.reason) in (("V", ""), ("R", "keyCompromise"))
        return row.status == "R"
    assert crl_of(folder).exists() or case.first_crl, "the old revocation list is gone"
    if not crl_of(folder).exists():
        return False
    run("openssl", "crl", "-in", crl_of(folder), "-noout")
    number = crl_number(read_crl(crl_of(folder)))
    return number > 0x1000  # a number may have been lost
