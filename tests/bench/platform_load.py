"""The local platform under the load of a class, and beside Mosquitto: 300 devices, connections, messages, memory."""

import asyncio
import contextlib
import getpass
import multiprocessing
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import psutil
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

sys.path.insert(0, str(Path(__file__).parents[1]))

import raw_mqtt
from platform_tools import make, started, wait_for, write_chain
from raw_mqtt import DISCONNECT, PING, PUBACK, acknowledged, publish

TENANTS, DEVICES, PROCESSES, BATCH = 30, 10, 2, 20  # processes of clients, messages under way at once
PERIOD, HOLD_SECONDS = 2.0, 60.0
CONNECTIONS, AT_ONCE, MESSAGE_SECONDS = 100, 8, 3.0

# The clients, in processes of their own: they say that they are ready, begin when they are told to, and answer.
Sent = dict[str, int]  # how many messages each device has sent
PROCESS = multiprocessing.get_context("spawn")


@dataclass
class Client:
    """One MQTT connection."""

    name: str
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    sent: int = 0

    def publish(self, qos: int) -> bytes:
        """Write the next number as a measurement."""
        self.sent += 1
        return publish(f"200,c8y_N,n,{self.sent - 1}", qos, (self.sent - 1) % 0xFFFF + 1)

    async def close(self) -> None:
        """Say goodbye, and wait for the server's own end."""
        self.writer.write(DISCONNECT)
        with contextlib.suppress(OSError):
            await self.reader.read()
            self.writer.close()
            await self.writer.wait_closed()


def context(job: dict[str, Any], name: str) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=job["trusted"])
    made.load_cert_chain(Path(job["folder"]) / f"{name}.pem")
    return made


async def connect(job: dict[str, Any], name: str, made: ssl.SSLContext) -> Client:
    """Connect a device, up to its CONNACK."""
    reader, writer = await asyncio.open_connection("127.0.0.1", job["port"], ssl=made, server_hostname="localhost")
    writer.write(raw_mqtt.connect(name))
    answer = await asyncio.wait_for(reader.readexactly(4), 30)
    assert answer == b"\x20\x02\x00\x00", answer
    return Client(name, reader, writer)


async def told_to_begin(job: dict[str, Any]) -> None:
    """Say that we are ready, and wait."""
    job["pipe"].send("ready")
    await asyncio.to_thread(job["pipe"].recv)


@contextlib.asynccontextmanager
async def connected(job: dict[str, Any]) -> AsyncIterator[list[Client]]:
    """Hold the connections of all the job's devices."""
    limit = asyncio.Semaphore(AT_ONCE)

    async def one(name: str) -> Client:
        async with limit:
            return await connect(job, name, context(job, name))

    clients = await asyncio.gather(*map(one, job["names"]))
    await told_to_begin(job)
    yield clients
    await asyncio.gather(*(client.close() for client in clients))


async def hold(job: dict[str, Any]) -> dict[str, Any]:
    """Hold all connections, and let each send a message now and then: the number acknowledged, and the delays."""
    delays: list[float] = []
    period = job["period"]

    async def talk(client: Client, offset: float) -> None:
        await asyncio.sleep(offset)
        for _ in range(round(job["seconds"] / period)):
            began = time.perf_counter()
            client.writer.write(client.publish(1))
            answer = await asyncio.wait_for(client.reader.readexactly(4), 30)
            assert answer == acknowledged(PUBACK, client.sent), answer
            delays.append(time.perf_counter() - began)
            await asyncio.sleep(max(0.0, period - delays[-1]))

    async with connected(job) as clients:
        share = period / len(clients)
        await asyncio.gather(*(talk(client, share * number) for number, client in enumerate(clients)))
    return {"sent": {client.name: client.sent for client in clients}, "delays": delays}


async def only_connect(job: dict[str, Any]) -> dict[str, Any]:
    """Connect and leave, with so many at once."""
    limit = asyncio.Semaphore(job["at_once"])

    async def one(client: Coroutine[Any, Any, Client]) -> None:
        async with limit:
            await (await client).close()

    made = [connect(job, name, context(job, name)) for name in job["names"]]
    await told_to_begin(job)
    began = time.perf_counter()
    await asyncio.gather(*map(one, made))
    return {"count": len(made), "seconds": time.perf_counter() - began}


async def flood(job: dict[str, Any]) -> dict[str, Any]:
    """Send as much as is taken: 20 messages, then wait for what acknowledges them (QoS 0: for the answer to a ping)."""
    qos = job["qos"]
    ending, answer = (b"", 4 * BATCH) if qos else (PING, 2)

    async def send(client: Client) -> None:
        while time.perf_counter() < began + job["seconds"]:
            client.writer.write(b"".join(client.publish(qos) for _ in range(BATCH)) + ending)
            await client.reader.readexactly(answer)

    async with connected(job) as clients:
        began = time.perf_counter()
        await asyncio.gather(*map(send, clients))
        seconds = time.perf_counter() - began
    sent = {client.name: client.sent for client in clients}
    return {"count": sum(sent.values()), "seconds": seconds, "sent": sent}


def clients(what: str, job: dict[str, Any]) -> None:
    """Do one job."""
    job["pipe"].send(asyncio.run({"hold": hold, "connect": only_connect, "publish": flood}[what](job)))


class Job:
    """A process of clients, which are ready once it is made, from its start to its answer."""

    def __init__(self, what: str, server: "Server", **options: Any) -> None:
        self.pipe, theirs = PROCESS.Pipe()
        job = {"port": server.port, "trusted": str(server.trusted), "pipe": theirs, **options}
        PROCESS.Process(target=clients, args=(what, job)).start()
        theirs.close()  # so that its end is noticed
        assert self.pipe.recv() == "ready"

    def answer(self) -> dict[str, Any]:
        """Wait for the end of it."""
        return dict(self.pipe.recv())


@dataclass(frozen=True)
class Server:
    """One of the two that are compared."""

    pid: int
    port: int
    trusted: Path

    def cpu(self) -> float:
        """Return the processor time it has used, in seconds."""
        return float(sum(psutil.Process(self.pid).cpu_times()[:2]))

    def memory(self) -> int:
        """Return the memory it has, in bytes."""
        return int(psutil.Process(self.pid).memory_info().rss)

    def measure(self, what: str, **options: Any) -> tuple[float, float, dict[str, Any]]:
        """Do a job: how many a second, the processor time for each in milliseconds, and the whole answer."""
        job, before = Job(what, self, **options), self.cpu()
        job.pipe.send("begin")
        answer = job.answer()
        return answer["count"] / answer["seconds"], 1000 * (self.cpu() - before) / answer["count"], answer


def make_class(folder: Path) -> tuple[list[x509.Certificate], list[str]]:
    """Make a CA for each tenant, and the files of its devices. Returns the CAs and the devices' names."""
    cas = [make(f"CA {tenant}", ca=True) for tenant in range(TENANTS)]
    names = {f"device-{tenant}-{number}": cas[tenant] for tenant in range(TENANTS) for number in range(DEVICES)}
    for name, ca in names.items():
        write_chain(make(name, ca), folder / f"{name}.pem")
    return [ca.certificate for ca in cas], list(names)


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
    with subprocess.Popen([program, "-c", str(folder / "mosquitto.conf")]) as process:
        try:
            wait_for(lambda: process.poll() is not None or not socket.socket().connect_ex(("127.0.0.1", port)))
            assert process.poll() is None
            yield Server(process.pid, port, trusted)
        finally:
            process.terminate()


def hold_all(
    server: Server, folder: Path, names: list[str], seconds: float, period: float = PERIOD
) -> tuple[float, Sent, list[float]]:
    """Let all devices be there at once. Returns the bytes for each idle one, the numbers sent, and the delays."""
    before, given = server.memory(), {"folder": str(folder), "seconds": seconds, "period": period}
    jobs = [Job("hold", server, names=names[number::PROCESSES], **given) for number in range(PROCESSES)]
    memory = (server.memory() - before) / len(names)
    for job in jobs:
        job.pipe.send("begin")
    answers = [job.answer() for job in jobs]
    sent = {name: count for answer in answers for name, count in answer["sent"].items()}
    return memory, sent, [delay for answer in answers for delay in answer["delays"]]


def compare(server: Server, folder: Path, names: list[str], seconds: float) -> tuple[Any, list[Sent], list[float]]:
    """Measure one server. Returns the figures by what they are, what was sent at first and then, and the delays."""
    given, others, sent = {"folder": str(folder)}, iter(range(0, len(names), 10)), {}
    server.measure("connect", names=names[:5], at_once=1, **given)  # what it loads on first use
    memory, held, delays = hold_all(server, folder, names, seconds)
    figures = {"memory for each idle device, kB": memory / 1000}
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
    return figures, [held, sent], delays


def check_stored(platform: Any, phases: list[Sent]) -> None:
    """Demand that every number that was sent is there, once."""
    measured = platform.measurements()
    for sent in phases:
        part, measured = measured.iloc[: sum(sent.values())], measured.iloc[sum(sent.values()) :]
        stored = part.groupby("device")["value"].apply(lambda values: sorted(map(int, values)))
        for name, count in sent.items():
            assert stored[name] == list(range(count)), f"{name}: {count} acknowledged, {len(stored[name])} stored"
    assert measured.empty


def platform_load() -> str:
    """Measure, and return the text. Asserts that nothing acknowledged was lost."""
    import pandas as pd  # here, because the clients' processes do not need it

    with tempfile.TemporaryDirectory() as name, started(Path(name) / "workspace", tenants=TENANTS) as platform:
        cas, names = make_class(folder := Path(name))
        for tenant, ca in zip(platform.tenants, cas, strict=True):
            tenant.trusted_certificates.upload(ca, auto_registration=True)
        ours = Server(platform.pid, platform.mqtt[1], platform.server_certificate)
        figures, sent, delays = compare(ours, folder, names, HOLD_SECONDS)
        check_stored(platform, sent)
        stored, peer = sum(sent[0].values()), None
        if program := shutil.which("mosquitto", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])):
            with mosquitto(folder, program, cas, platform.folder) as theirs:
                peer, _, _ = compare(theirs, folder, names, 0)
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
    print(platform_load())
