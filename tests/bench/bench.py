"""Measure ourselves against a peer in the same run: `python3 run.py bench`. The ratios matter, not the seconds."""

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import authority
import enrolments
import fleet
import pandas as pd
import platform_load
import stores
import tables
from cryptography.hazmat.primitives.asymmetric import rsa

from mciot_nb import CertificateAuthority, DistinguishedName

PASSPHRASE = "benchmark-only"
ROOT = Path(__file__).parents[2]


def median(task: Callable[[], object], runs: int = 5) -> float:
    """Return the median of the seconds that ``task`` takes."""
    taken = []
    for _ in range(runs):
        begin = time.perf_counter()
        task()
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken)


def python(code: str) -> Callable[[], object]:
    """Return a task that runs ``code`` in a Python of its own."""
    return lambda: subprocess.run([sys.executable, "-c", code], check=True)


def quiet(command: list[str]) -> Callable[[], object]:
    """Return a task that runs a command of ours without showing what it says."""
    return lambda: subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    """Print the table."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        rows.append(("import mciot_nb", median(python("import mciot_nb")), "python -c pass", median(python("pass"))))
        key = median(lambda: rsa.generate_private_key(public_exponent=65537, key_size=4096), runs=15)
        folders = (Path(folder) / f"ca-{number}" for number in range(15))
        subject = DistinguishedName(common_name="Bench CA")
        create = median(lambda: CertificateAuthority.create(next(folders), subject, PASSPHRASE), runs=15)
        rows.append(("create a CA, RSA-4096", create, "its bare key alone", key))
        if shutil.which("openssl"):
            rows += [*authority.fleets(Path(folder)), *authority.large_database(Path(folder))]
            rows += [*stores.stores(Path(folder)), *fleet.fleet(Path(folder))]
        book = [sys.executable, "-m", "tools.book", "--out", f"{folder}/book"]
        guide = [sys.executable, "-m", "tools.notebooks", "run"]
        rows.append(("run.py book", median(quiet(book), 3), "run.py guide", median(quiet(guide), 3)))
        rows += enrolments.enrolments(Path(folder))
        rows += [*tables.tables(Path(folder)), *tables.in_the_lab(Path(folder))]
        remark = authority.memory(Path(folder))
    frame = pd.DataFrame(rows, columns=["ours", "seconds", "peer", "peer's seconds"])
    frame["ratio"] = frame["seconds"] / frame["peer's seconds"]
    print(f"{frame.round(4).to_string(index=False)}\n{remark}")
    print(platform_load.platform_load())
    print(fleet.connected())


if __name__ == "__main__":
    main()
