"""What a fleet costs beside a shell loop of openssl, and beside the bare cryptography calls; and 2,000 devices at once.

``python tests/bench/fleet.py 100000`` makes that many devices instead: cost and memory from the first thousand to the
last, and what a run that is killed in the middle costs to resume.
"""

import contextlib
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median, quantiles

import authority
import pandas as pd
import platform_load
import psutil
from authority import PASSPHRASE, Line
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from cryptography.hazmat.primitives.serialization.pkcs12 import serialize_key_and_certificates
from platform_tools import make, started, write_chain

from mciot_nb import CertificateAuthority, KeyType, make_fleet
from mciot_nb import fleet as module
from mciot_nb.pki import signing

DEVICES, IN_SHELL, SLOW_KEYS = 1000, 100, 100
CONNECTED, PERIOD, HOLD_SECONDS = 2000, 10.0, 60.0

SHELL = """
for number in $(seq %d); do
  mkdir "$number-%d" && cd "$number-%d"
  openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -aes256 -pass env:PASS -out deviceKey.pem
  openssl req -new -config "$CONFIG" -key deviceKey.pem -passin env:PASS -subj "/CN=shell-%d-$number" -out deviceCsr.pem
  openssl ca -batch -config "$CONFIG" -passin env:PASS -extensions v3_signed -days 365 -notext -md sha256 \
    -in deviceCsr.pem -out deviceCert.pem
  cat deviceCert.pem "$CA" > deviceCertChain.pem
  openssl pkcs12 -export -name devicekeyentry -inkey deviceKey.pem -passin env:PASS -in deviceCertChain.pem \
    -passout env:PASS -out deviceKeystore.pkcs12
  cd ..
done
sync
"""


def table(count: int, name: str) -> pd.DataFrame:
    """Return a table of devices."""
    return pd.DataFrame({"common_name": [f"{name}-{number}" for number in range(count)]})


def whole(ca: CertificateAuthority, folder: Path, count: int, key_type: KeyType = KeyType.P256) -> None:
    """Make a fleet, and demand that nothing failed."""
    made = make_fleet(table(count, folder.name), ca, folder, PASSPHRASE, key_type=key_type)
    assert set(made["state"]) == {"made"}, made["problem"].unique()


def bare(ca: CertificateAuthority, count: int) -> None:
    """Make as many devices with cryptography alone, in one thread and in memory."""
    secret = BestAvailableEncryption(PASSPHRASE.encode())
    for number in range(count):
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, f"bare-{number}")])
        request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, SHA256())
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, secret)
        _, builder = signing.prepare(ca.config, ca.certificate, request, None, 365, signing.normalize_time(None))
        own = builder.serial_number(number + 1).sign(ca.key, SHA256())
        own.public_bytes(Encoding.PEM)
        serialize_key_and_certificates(b"devicekeyentry", key, own, [ca.certificate], secret)


def bare_key(_: int) -> int:
    """Make one RSA key."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048).key_size


def on_one_core(folder: Path) -> tuple[float, float]:
    """Time ours and the bare calls in turns on one processor; for a process of its own."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    ca, rounds = authority.authority(folder / "one"), iter(range(10))
    tasks = (lambda: whole(ca, folder / f"one-{next(rounds)}", DEVICES), lambda: bare(ca, DEVICES))
    return authority.alternate(*tasks, runs=3)


def fleet(folder: Path) -> Iterator[Line]:
    """Compare 1,000 devices below the guide's RSA-4096 CA, end to end and durable; openssl makes a tenth of them."""
    ca, rounds, cores = authority.authority(folder / "fleet-ca"), iter(range(100)), len(os.sched_getaffinity(0))
    environment = {**os.environ, "PASS": PASSPHRASE, "CONFIG": str(ca.config.path)}
    environment["CA"] = str(ca.folder / "caCert.pem")
    (folder / "shell").mkdir()

    def ours() -> None:
        whole(ca, folder / f"ours-{next(rounds)}", DEVICES)

    def shell() -> None:
        code = SHELL % (IN_SHELL, *[next(rounds)] * 3)
        options = {"cwd": folder / "shell", "env": environment, "check": True, "capture_output": True}
        subprocess.run(["bash", "-e", "-c", code], **options)  # type: ignore[call-overload]

    mine, others = authority.alternate(ours, shell, runs=3)
    yield f"fleet: {DEVICES} devices, P-256", mine, "a shell loop of openssl", others * DEVICES / IN_SHELL
    mine, others = authority.alternate(ours, lambda: bare(ca, DEVICES), runs=3)
    yield f"fleet: {DEVICES} devices, P-256, {cores} cores", mine, "bare calls, one thread", others
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
        mine, others = alone.submit(on_one_core, folder).result()
    yield f"fleet: {DEVICES} devices, P-256, one core", mine, "bare calls, one thread", others

    def slow() -> None:
        whole(ca, folder / f"rsa-{next(rounds)}", SLOW_KEYS, KeyType.RSA_2048)

    with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(abs, range(cores * 4)))  # they are up
        keys: Callable[[], object] = lambda: list(pool.map(bare_key, range(SLOW_KEYS)))  # noqa: E731
        mine, others = authority.alternate(slow, keys, runs=5)
    yield f"fleet: {SLOW_KEYS} devices, RSA-2048, {cores} cores", mine, "the bare keys, as many cores", others


def connected() -> str:
    """Let 2,000 devices be connected at once to the local platform and to Mosquitto, and send every ten seconds."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # what is started inherits it
    lines, names = list[str](), [f"device-{number}" for number in range(CONNECTED)]
    with tempfile.TemporaryDirectory() as name, started(Path(name) / "workspace") as platform:
        ca = make("Fleet CA", ca=True)
        for device in names:
            write_chain(make(device, ca), Path(name) / f"{device}.pem")
        platform.tenant.trusted_certificates.upload(ca.certificate, auto_registration=True)

        def hold(server: platform_load.Server, what: str) -> list[platform_load.Sent]:
            _, sent, delays = platform_load.hold_all(server, Path(name), names, HOLD_SECONDS, PERIOD)
            p99 = quantiles(delays, n=100)[98]
            lines.append(
                f"{what}: {len(sent)} devices at once, none refused, {sum(sent.values())} messages acknowledged, after "
                f"{1000 * median(delays):.1f} ms (median) and {1000 * p99:.1f} ms (p99)."
            )
            return [sent]

        ours = platform_load.Server(platform.pid, platform.mqtt[1], platform.server_certificate)
        platform_load.check_stored(platform, hold(ours, "local platform"))
        if program := shutil.which("mosquitto", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])):
            with platform_load.mosquitto(Path(name), program, [ca.certificate], platform.folder) as theirs:
                hold(theirs, "mosquitto")
    return "\n".join(lines)


# Many devices ---------------------------------------------------------------------------------------------------------


def watched(folder: Path, count: int, notes: Path) -> None:
    """Make a fleet, and note when how many devices were made, and the memory of all processes."""
    began, make_some = time.perf_counter(), module._make

    def noting(*what: object) -> Iterator[int]:
        with notes.open("a") as file:
            file.write(f"begin,{time.perf_counter() - began}\n")
            for done in make_some(*what):  # type: ignore[arg-type]
                own = psutil.Process()
                memory = [p.memory_info().rss for p in (own, *own.children(recursive=True)) if p.is_running()]
                file.write(f"{done},{time.perf_counter() - began},{memory[0]},{sum(memory)}\n")
                file.flush()
                yield done

    module._make = noting  # type: ignore[assignment]
    ca = CertificateAuthority.open(folder / "ca", PASSPHRASE)
    made = make_fleet(table(count, "many"), ca, folder / "fleet", PASSPHRASE)
    assert set(made["state"]) <= {"made", "kept"}, made["problem"].unique()
    assert len(set(made["serial"])) == count, "nothing twice, nothing lost"


def read_notes(notes: Path) -> tuple[float, pd.DataFrame]:
    """Return the seconds before the first key, and the rest as a table."""
    first, *rest = notes.read_text().splitlines()
    frame = pd.DataFrame([list(map(float, line.split(","))) for line in rest], columns=["done", "at", "own", "all"])
    return float(first.partition(",")[2]), frame


def devices_made(notes: Path) -> float:
    """Return how many devices are made by now."""
    return float(read_notes(notes)[1]["done"].sum()) if notes.exists() and notes.read_text() else 0.0


def many(count: int) -> str:
    """Make many devices; kill the run in the middle, and resume it."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        authority.authority(folder / "ca")
        run = context.Process(target=watched, args=(folder, count, folder / "first"))
        run.start()
        while run.is_alive() and devices_made(folder / "first") < count / 2:
            time.sleep(0.5)
        for process in psutil.Process(run.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        os.kill(run.pid or 0, signal.SIGKILL)
        run.join()
        again = context.Process(target=watched, args=(folder, count, folder / "second"))
        again.start()
        again.join()
        assert again.exitcode == 0
        _, first = read_notes(folder / "first")
        before, second = read_notes(folder / "second")
    costs = [(rows["at"].iloc[-1] - rows["at"].iloc[0]) / rows["done"].iloc[1:].sum() for rows in (first, second)]
    parts = first.iloc[1:5], second.iloc[-5:-1]
    ends = [part["at"].diff().iloc[1:].sum() / part["done"].iloc[1:].sum() for part in parts]
    return (
        f"{count} devices: {1000 * costs[0]:.2f} ms each up to the kill, {1000 * costs[1]:.2f} ms after it; the last "
        f"thousand took {ends[1] / ends[0]:.2f} of the first thousand; memory of the run "
        f"{(second['own'].max() - first['own'].iloc[0]) / 1e6:.0f} MB above its first batch, of all processes "
        f"{(second['all'].max() - first['all'].iloc[0]) / 1e6:.0f} MB; resumed in {before:.1f} s, "
        f"{100 * before / (second['at'].iloc[-1] - before):.1f} % of the rest."
    )


if __name__ == "__main__":
    if sys.argv[1:]:
        print(many(int(sys.argv[1])))
    else:
        with tempfile.TemporaryDirectory() as where:
            frame = pd.DataFrame(fleet(Path(where)), columns=["ours", "seconds", "peer", "peer's seconds"])
        frame["ratio"] = frame["seconds"] / frame["peer's seconds"]
        print(frame.round(3).to_string(index=False))
        print(connected())
