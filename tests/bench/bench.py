"""Measure ourselves against a peer in the same run: `python3 run.py bench`. The ratios matter, not the seconds."""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from mciot_nb import CertificateAuthority, DistinguishedName

PASSPHRASE = "benchmark-only"


def median(task: Callable[[], object], runs: int = 5) -> float:
    """Give the median of the seconds that ``task`` takes."""
    taken = []
    for _ in range(runs):
        begin = time.perf_counter()
        task()
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken)


def python(code: str) -> Callable[[], object]:
    """Give a task that runs ``code`` in a Python of its own."""
    return lambda: subprocess.run([sys.executable, "-c", code], check=True)


def request(number: int) -> x509.CertificateSigningRequest:
    """Give a signing request with a P-256 key and a subject of its own."""
    subject = DistinguishedName(common_name=f"device-{number}").to_x509()
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(subject)
        .sign(ec.generate_private_key(ec.SECP256R1()), SHA256())
    )


def signing(folder: Path) -> tuple[float, float]:
    """Sign with us and with ``openssl ca`` in the same directory; gives the seconds for a certificate of each."""
    subject = DistinguishedName(common_name="Bench CA")
    ca = CertificateAuthority.create(folder / "caCertificate", subject, PASSPHRASE)
    requests = iter([request(number) for number in range(40)])
    ours = median(lambda: ca.sign(next(requests)), runs=20)

    def theirs() -> None:
        (folder / "csr.pem").write_bytes(next(requests).public_bytes(Encoding.PEM))
        command = ["openssl", "ca", "-batch", "-config", ca.folder / "caConfig.cnf", "-passin", "env:PASS", "-notext"]
        command += ["-extensions", "v3_signed", "-in", folder / "csr.pem", "-out", folder / "out.pem"]
        environment = {**os.environ, "PASS": PASSPHRASE}
        subprocess.run(command, check=True, capture_output=True, env=environment)

    return ours, median(theirs, runs=20)


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
            ours, theirs = signing(Path(folder))
            rows.append(("sign a request, durable", ours, "openssl ca", theirs))
    frame = pd.DataFrame(rows, columns=["ours", "seconds", "peer", "peer's seconds"])
    frame["ratio"] = frame["seconds"] / frame["peer's seconds"]
    print(frame.round(4).to_string(index=False))


if __name__ == "__main__":
    main()
