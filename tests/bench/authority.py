"""What the certificate authority costs beside openssl, beside the bare cryptography calls, and beside pandas."""

import gc
import itertools
import os
import random
import subprocess
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter

import pandas as pd
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from mciot_nb import CertificateAuthority, DistinguishedName
from mciot_nb.pki.files import write_whole
from mciot_nb.pki.keys import KeyType, create_key, encrypted_pem

PASSPHRASE = "benchmark-only"
DEVICES = 250
ROWS = 100_000

#: One line of the table: what is ours, its seconds, the peer, its seconds.
Line = tuple[str, float, str, float]

#: A shell loop over openssl alone.
SHELL = """
for number in $(seq %d); do
  name=shell-%d-$number
  openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -aes256 -pass env:PASS -out $name.key
  openssl req -new -config "$CONFIG" -key $name.key -passin env:PASS -subj /CN=$name -out $name.csr
  openssl ca -batch -config "$CONFIG" -passin env:PASS -extensions v3_signed -days 365 -notext -md sha256 \
    -in $name.csr -out $name.crt
done
"""


def alternate(ours: Callable[[], object], peer: Callable[[], object], runs: int) -> tuple[float, float]:
    """Time two tasks in turns, so that both meet the same machine; gives the median of each."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(runs):
        for task, taken in zip((ours, peer), times, strict=True):
            gc.collect()  # what the other has left is not this one's to clear away
            begin = perf_counter()
            task()
            taken.append(perf_counter() - begin)
    return tuple(sorted(taken)[runs // 2] for taken in times)  # type: ignore[return-value]


def authority(folder: Path) -> CertificateAuthority:
    """Make a CA as the guide does, RSA-4096."""
    return CertificateAuthority.create(folder, DistinguishedName(common_name="Bench CA"), PASSPHRASE)


def request(name: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateSigningRequest:
    """Return a signing request for a subject of its own."""
    subject = DistinguishedName(common_name=name).to_x509()
    return x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, SHA256())


def fleets(folder: Path) -> Iterator[Line]:
    """Make 250 devices with P-256 keys: one by one, as a batch, with openssl, and with cryptography alone."""
    ca, numbers = authority(folder / "fleets"), itertools.count()
    environment, rounds = {**os.environ, "PASS": PASSPHRASE, "CONFIG": str(ca.config.path)}, itertools.count()
    made = folder / "made"
    made.mkdir()

    def shell() -> None:
        options = {"cwd": made, "env": environment, "check": True, "capture_output": True}
        subprocess.run(["bash", "-e", "-c", SHELL % (DEVICES, next(rounds))], **options)  # type: ignore[call-overload]

    def one_by_one() -> None:
        for _ in range(DEVICES):
            name = f"one-{next(numbers)}"
            ca.sign(request(name, create_key(made / f"{name}.key", PASSPHRASE, KeyType.P256)))

    def bare_fleet(prefix: str) -> tuple[dict[Path, bytes], list[x509.CertificateSigningRequest]]:
        keys, requests = {}, []
        for _ in range(DEVICES):
            name = f"{prefix}-{next(numbers)}"
            key = ec.generate_private_key(ec.SECP256R1())
            requests.append(request(name, key))
            keys[made / f"{name}.key"] = encrypted_pem(key, PASSPHRASE.encode())
        return keys, requests

    def batch() -> None:
        keys, requests = bare_fleet("batch")
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda path: write_whole(path, keys[path], private=True), keys))
        ca.sign_many(requests)

    own = ca.certificate
    builder = x509.CertificateBuilder(own.subject, own.subject)
    builder = builder.not_valid_before(own.not_valid_before_utc).not_valid_after(own.not_valid_after_utc)

    def bare() -> None:
        for number, csr in enumerate(bare_fleet("bare")[1], 1):
            builder.public_key(csr.public_key()).serial_number(number).sign(ca.key, SHA256())

    single, openssl = alternate(one_by_one, shell, 3)
    yield f"{DEVICES} devices, each durable", single, "shell loop of openssl", openssl
    together, cryptography = alternate(batch, bare, 9)
    yield f"{DEVICES} devices, as a batch", together, "shell loop of openssl", openssl
    yield f"{DEVICES} devices, as a batch", together, "bare cryptography calls", cryptography


def fill(database: Path, rows: int = ROWS) -> None:
    """Write rows for many devices, a tenth of them revoked, with dates of their own."""
    dice = random.Random(1)

    def clock() -> str:
        return f"{dice.randint(0, 23):02}{dice.randint(0, 59):02}{dice.randint(0, 59):02}Z"

    with database.open("w", encoding="utf-8", newline="\n") as file:
        for number in range(rows):
            revoked = f"261101{clock()},keyCompromise" if number % 10 == 0 else ""
            expires = f"27{dice.randint(1, 12):02}{dice.randint(1, 28):02}{clock()}"
            subject = f"/C=DE/ST=Bavaria/O=Example Company/OU=Device Onboarding/CN=device-{number:06d}"
            serial = f"{0x100000 + number:X}"
            file.write(f"{'R' if revoked else 'V'}\t{expires}\t{revoked}\t{serial}\tunknown\t{subject}\n")


def large_database(folder: Path) -> Iterator[Line]:
    """Sign into, open and tabulate a database of 100,000 rows."""
    empty, large = authority(folder / "empty"), authority(folder / "large")
    fill(large.database.path)
    numbers = itertools.count()

    def sign(ca: CertificateAuthority) -> Callable[[], object]:
        def one() -> None:
            ca.sign(request(f"new-{next(numbers)}", ec.generate_private_key(ec.SECP256R1())))

        return one

    large.database.index()
    many, none = alternate(sign(large), sign(empty), 41)
    yield f"sign into {ROWS:,} rows", many, "ours, into an empty database", none
    many, none = alternate(openssl_signs(large, numbers), openssl_signs(empty, numbers), 7)
    yield f"openssl ca, into {ROWS:,} rows", many, "openssl ca, into an empty one", none

    def read_csv() -> None:
        pd.read_csv(large.database.path, sep="\t", header=None)

    opened, read = alternate(lambda: CertificateAuthority._opened(large.folder, large.config, large.key), read_csv, 15)
    yield f"open {ROWS:,} rows, key aside", opened, "pandas.read_csv", read
    tabulated, read = alternate(large.database.to_frame, read_csv, 15)
    yield f"to_frame() of {ROWS:,} rows", tabulated, "pandas.read_csv", read


def openssl_signs(ca: CertificateAuthority, numbers: Iterator[int]) -> Callable[[], object]:
    """Return a task that lets ``openssl ca`` sign a request."""
    folder, environment = ca.folder.parent, {**os.environ, "PASS": PASSPHRASE}
    key = ec.generate_private_key(ec.SECP256R1())

    def one() -> None:
        csr = request(f"openssl-{next(numbers)}", key)
        (folder / "csr.pem").write_bytes(csr.public_bytes(Encoding.PEM))
        command = ["openssl", "ca", "-batch", "-config", ca.config.path, "-passin", "env:PASS", "-notext"]
        command += ["-extensions", "v3_signed", "-in", folder / "csr.pem", "-out", folder / "out.pem"]
        subprocess.run(command, check=True, capture_output=True, env=environment)

    return one


def memory(folder: Path) -> str:
    """Say how much memory 100,000 rows take: while the CA is open, and at most while it is being opened."""
    ca = authority(folder / "memory")
    fill(ca.database.path)
    tracemalloc.start()
    ca.database.index()
    kept, most = (number / 1e6 for number in tracemalloc.get_traced_memory())
    frame = ca.database.to_frame()
    table = frame.memory_usage(deep=True).sum() / 1e6
    tracemalloc.stop()
    size = ca.database.path.stat().st_size / 1e6
    return (
        f"{ROWS:,} rows are {size:.0f} MB on the disk; an open CA holds {kept:.0f} MB for them, and {most:.0f} MB "
        f"for a moment while it reads them; the table has {table:.0f} MB."
    )
