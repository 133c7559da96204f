"""The local platform under the load of a class, and beside Mosquitto: 300 devices, connections, messages, memory."""

import asyncio
import contextlib
import getpass
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import psutil
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

TENANTS, DEVICES = 30, 10
PERIOD, HOLD_SECONDS = 2.0, 60.0
PROCESSES = 2  # of clients
CONNECTIONS, AT_ONCE, MESSAGE_SECONDS = 100, 8, 3.0
BATCH = 20  # messages under way at once

# The clients, in processes of their own: a job comes in as a line of JSON; they say that they are ready, begin when
# they are told to, and answer a line of JSON.


@dataclass
class Client:
    """One MQTT connection."""

    name: str
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    sent: int = 0

    def publish(self, qos: int) -> bytes:
        """Write the next number as a measurement."""
        body = b"\x00\x04s/us" + ((self.sent % 0xFFFF + 1).to_bytes(2) if qos else b"")
        body += b"200,c8y_N,n,%d" % self.sent
        self.sent += 1
        return bytes([0x30 | qos << 1, len(body)]) + body

    async def close(self) -> None:
        """Say goodbye, and wait for the server's own end."""
        self.writer.write(b"\xe0\x00")
        with contextlib.suppress(OSError):
            await self.reader.read()
            self.writer.close()
            await self.writer.wait_closed()


def context(job: dict[str, Any], name: str) -> ssl.SSLContext:
    """Make a device's TLS context."""
    made = ssl.create_default_context(cafile=job["trusted"])
    made.load_cert_chain(Path(job["folder"]) / f"{name}.pem")
    return made


async def connect(job: dict[str, Any], name: str, made: ssl.SSLContext) -> Client:
    """Connect a device, up to its CONNACK."""
    reader, writer = await asyncio.open_connection("127.0.0.1", job["port"], ssl=made, server_hostname="localhost")
    body = b"\x00\x04MQTT\x04\x02\x00\x3c" + len(name).to_bytes(2) + name.encode()
    writer.write(bytes([0x10, len(body)]) + body)
    answer = await asyncio.wait_for(reader.readexactly(4), 30)
    assert answer == b"\x20\x02\x00\x00", answer
    return Client(name, reader, writer)


async def told_to_begin() -> None:
    """Say that we are ready, and wait."""
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)


@contextlib.asynccontextmanager
async def connected(job: dict[str, Any]) -> AsyncIterator[list[Client]]:
    """Hold the connections of all the job's devices."""
    limit = asyncio.Semaphore(AT_ONCE)

    async def one(name: str) -> Client:
        async with limit:
            return await connect(job, name, context(job, name))

    clients = await asyncio.gather(*map(one, job["names"]))
    await told_to_begin()
    yield clients
    await asyncio.gather(*(client.close() for client in clients))


async def hold(job: dict[str, Any]) -> dict[str, Any]:
    """Hold all connections, and let each send a message every two seconds: the number acknowledged, and the delays."""
    delays: list[float] = []

    async def talk(client: Client, offset: float) -> None:
        await asyncio.sleep(offset)
        for _ in range(round(job["seconds"] / PERIOD)):
            began = time.perf_counter()
            client.writer.write(client.publish(1))
            answer = await asyncio.wait_for(client.reader.readexactly(4), 30)
            assert answer == b"\x40\x02" + client.sent.to_bytes(2), answer
            delays.append(time.perf_counter() - began)
            await asyncio.sleep(max(0.0, PERIOD - delays[-1]))

    async with connected(job) as clients:
        share = PERIOD / len(clients)
        await asyncio.gather(*(talk(client, share * number) for number, client in enumerate(clients)))
    return {"sent": {client.name: client.sent for client in clients}, "delays": delays}


async def only_connect(job: dict[str, Any]) -> dict[str, Any]:
    """Connect and leave, with so many at once."""
    limit, made = asyncio.Semaphore(job["at_once"]), {name: context(job, name) for name in job["names"]}

    async def one(name: str) -> None:
        async with limit:
            await (await connect(job, name, made[name])).close()

    await told_to_begin()
    began = time.perf_counter()
    await asyncio.gather(*map(one, job["names"]))
    return {"count": len(made), "seconds": time.perf_counter() - began}


async def publish(job: dict[str, Any]) -> dict[str, Any]:
    """Send as much as is taken: 20 messages, then wait for what acknowledges them (QoS 0: for the answer to a ping)."""
    qos = job["qos"]
    ending, answer = (b"", 4 * BATCH) if qos else (b"\xc0\x00", 2)

    async def flood(client: Client) -> None:
        while time.perf_counter() < began + job["seconds"]:
            client.writer.write(b"".join(client.publish(qos) for _ in range(BATCH)) + ending)
            await client.reader.readexactly(answer)

    async with connected(job) as clients:
        began = time.perf_counter()
        await asyncio.gather(*map(flood, clients))
        seconds = time.perf_counter() - began
    sent = {client.name: client.sent for client in clients}
    return {"count": sum(sent.values()), "seconds": seconds, "sent": sent}


class Job:
    """A process of clients, from its start to its answer."""

    def __init__(self, what: str, server: "Server", **options: Any) -> None:
        command = [sys.executable, __file__, "clients"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._write({"what": what, "port": server.port, "trusted": str(server.trusted), **options})

    def _write(self, line: dict[str, Any]) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(line) + "\n")
        self._process.stdin.flush()

    def read(self) -> str:
        """Wait for a line."""
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line, "The clients failed."
        return line

    def begin(self) -> None:
        """Tell the clients, who are ready, to begin."""
        self._write({})

    def answer(self) -> dict[str, Any]:
        """Wait for the end of it."""
        answer: dict[str, Any] = json.loads(self.read())
        assert self._process.wait(60) == 0
        return answer


def main_of_clients() -> None:
    """Do one job."""
    job = json.loads(sys.stdin.readline())
    print(json.dumps(asyncio.run({"hold": hold, "connect": only_connect, "publish": publish}[job["what"]](job))))


# The servers, and what is asked of them.


@dataclass(frozen=True)
class Server:
    """One of the two that are compared."""

    pid: int
    port: int
    trusted: Path

    def cpu(self) -> float:
        """Give the processor time it has used, in seconds."""
        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)

    def memory(self) -> int:
        """Give the memory it has, in bytes."""
        return int(psutil.Process(self.pid).memory_info().rss)

    def measure(self, what: str, **options: Any) -> tuple[float, float, dict[str, Any]]:
        """Do a job: how many a second, the processor time for each in milliseconds, and the whole answer."""
        job = Job(what, self, **options)
        job.read()
        before = self.cpu()
        job.begin()
        answer = job.answer()
        return answer["count"] / answer["seconds"], 1000 * (self.cpu() - before) / answer["count"], answer


def certificate(
    name: str, issuer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None = None
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Make a CA, or a device's certificate by one, on the curve P-256."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    by, signer = (issuer[0].subject, issuer[1]) if issuer else (subject, key)
    builder = x509.CertificateBuilder(by, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=1))
    builder = builder.add_extension(x509.BasicConstraints(issuer is None, None), True)
    return builder.sign(signer, hashes.SHA256()), key


def make_class(folder: Path) -> tuple[list[x509.Certificate], list[str]]:
    """Make a CA for each tenant, and the files of its devices. Gives the CAs and the devices' names."""
    cas, names = [], []
    for tenant in range(TENANTS):
        ca = certificate(f"CA {tenant}")
        cas.append(ca[0])
        for number in range(DEVICES):
            names.append(name := f"device-{tenant}-{number}")
            own, key = certificate(name, ca)
            pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            pem += b"".join(link.public_bytes(Encoding.PEM) for link in (own, ca[0]))
            (folder / f"{name}.pem").write_bytes(pem)
    return cas, names


@contextlib.contextmanager
def mosquitto(folder: Path, program: str, cas: list[x509.Certificate], platform: Path) -> Iterator[Server]:
    """Run Mosquitto with mutual TLS, with the platform's own certificate and the same CAs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "cas.pem").write_bytes(b"".join(ca.public_bytes(Encoding.PEM) for ca in cas))
    trusted = platform / "serverCert.pem"
    (folder / "mosquitto.conf").write_text(
        f"user {getpass.getuser()}\npersistence false\nlog_type error\nlistener {port} 127.0.0.1\n"
        f"cafile {folder / 'cas.pem'}\ncertfile {trusted}\nkeyfile {platform / 'serverKey.pem'}\n"
        "require_certificate true\nset_tcp_nodelay true\nuse_identity_as_username true\n"
    )
    said = folder / "mosquitto.txt"
    with (
        said.open("wb") as out,
        subprocess.Popen([program, "-c", str(folder / "mosquitto.conf")], stdout=out, stderr=out) as process,
    ):
        try:
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                assert process.poll() is None, said.read_text()
                time.sleep(0.05)
            yield Server(process.pid, port, trusted)
        finally:
            process.terminate()


def hold_all(
    server: Server, folder: Path, names: list[str], seconds: float
) -> tuple[float, dict[str, int], list[float]]:
    """Let all devices be there at once. Gives the bytes for each idle one, the numbers sent, and the delays."""
    before, jobs = server.memory(), []
    for number in range(PROCESSES):
        share = {"names": names[number::PROCESSES], "folder": str(folder), "seconds": seconds}
        jobs.append(Job("hold", server, **share))
    for job in jobs:
        job.read()
    memory = (server.memory() - before) / len(names)
    for job in jobs:
        job.begin()
    answers = [job.answer() for job in jobs]
    sent = {name: count for answer in answers for name, count in answer["sent"].items()}
    return memory, sent, [delay for answer in answers for delay in answer["delays"]]


def compare(server: Server, folder: Path, names: list[str]) -> tuple[dict[str, float], dict[str, int]]:
    """Measure one server. Gives the figures by what they are, and how many messages each device has sent."""
    figures: dict[str, float] = {}
    sent: dict[str, int] = {}
    given, others = {"folder": str(folder)}, iter(range(0, len(names), 10))
    for at_once in (1, AT_ONCE):
        rate, cpu, _ = server.measure("connect", names=names[:CONNECTIONS], at_once=at_once, **given)
        figures[f"connections a second, {at_once} at a time"] = rate
        figures[f"  processor time for each, {at_once} at a time, ms"] = cpu
    for qos in (0, 1):
        for clients in (1, 10):
            first = next(others)  # other devices each time, so that their numbers begin at 0
            options = {"names": names[first : first + clients], "qos": qos, "seconds": MESSAGE_SECONDS, **given}
            rate, cpu, answer = server.measure("publish", **options)
            figures[f"messages a second, QoS {qos}, clients: {clients}"] = rate
            figures[f"  processor time for each, QoS {qos}, clients: {clients}, ms"] = cpu
            sent |= answer["sent"]
    return figures, sent


def check_stored(platform: Any, sent: dict[str, int], after: int) -> int:
    """Demand that every number that was sent is there, once. Gives how many are there, with those of before."""
    measured = platform.measurements().iloc[after:]
    stored = measured.groupby("device")["value"].apply(lambda values: sorted(map(int, values)))
    for name, count in sent.items():
        assert stored[name] == list(range(count)), f"{name}: {count} acknowledged, {len(stored[name])} stored"
    assert len(measured) == sum(sent.values())
    return after + len(measured)


def platform_load() -> str:
    """Measure, and give the text. Asserts that nothing acknowledged was lost."""
    import pandas as pd  # here, because the clients' processes need neither

    from mciot_nb.local_platform import LocalPlatform

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cas, names = make_class(folder)
        platform = LocalPlatform.start(folder / "workspace", tenants=TENANTS)
        try:
            for tenant, ca in zip(platform.tenants, cas, strict=True):
                tenant.trusted_certificates.upload(ca, auto_registration=True)
            ours = Server(platform.pid, platform.mqtt[1], platform.server_certificate)
            ours.measure("connect", names=names[:5], at_once=1, folder=str(folder))  # what it loads on first use
            memory, sent, delays = hold_all(ours, folder, names, HOLD_SECONDS)
            stored = check_stored(platform, sent, 0)
            figures, sent = compare(ours, folder, names)
            check_stored(platform, sent, stored)
            figures["memory for each idle device, kB"] = memory / 1000
            peer = {}
            program = shutil.which("mosquitto", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))
            if program:
                with mosquitto(folder, program, cas, platform.folder) as theirs:
                    theirs.measure("connect", names=names[:5], at_once=1, folder=str(folder))
                    memory, _, _ = hold_all(theirs, folder, names, 0)
                    peer, _ = compare(theirs, folder, names)
                    peer["memory for each idle device, kB"] = memory / 1000
        finally:
            platform.stop()
    text = (
        f"{len(names)} devices of {TENANTS} tenants, a QoS 1 message every {PERIOD:.0f} s for {HOLD_SECONDS:.0f} s: "
        f"{stored} acknowledged, {stored} stored. PUBACK after {1000 * median(delays):.1f} ms (median), "
        f"{1000 * quantiles(delays, n=100)[98]:.1f} ms (p99), {1000 * max(delays):.1f} ms (max).\n"
    )
    frame = pd.DataFrame({"platform": figures})
    if not peer:
        return f"{text}{frame.round(3).to_string()}\nmosquitto is not installed, so there is nothing to compare with."
    frame["mosquitto"] = pd.Series(peer)
    frame["ratio"] = frame["platform"] / frame["mosquitto"]
    return text + frame.round(3).to_string()


if __name__ == "__main__":
    if sys.argv[1:] == ["clients"]:
        main_of_clients()
    else:
        print(platform_load())
