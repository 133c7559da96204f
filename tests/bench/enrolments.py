"""Enrolment of 1,000 devices at the local platform: beside bare cryptography calls, and another CA's server (cfssl)."""

import base64
import contextlib
import json
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import requests
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

sys.path.insert(0, str(Path(__file__).parents[1]))

from platform_tools import make, rest, running, start_in_foreground, wait_for, write_chain

DEVICES, ROUNDS = 1000, 3
#: The table in which cfssl records what it signs.
CFSSL_SCHEMA = """CREATE TABLE certificates (
    serial_number blob NOT NULL, authority_key_identifier blob NOT NULL, ca_label blob, status blob NOT NULL,
    reason int, expiry timestamp, revoked_at timestamp, pem blob NOT NULL,
    PRIMARY KEY (serial_number, authority_key_identifier))"""
CFSSL_FILES = {"ca": "ca", "ca-key": "caKey", "tls-cert": "server", "tls-key": "serverKey"}
CFSSL = {"signing": {"default": {"expiry": "8760h", "usages": ["digital signature"]}}}


def csr_of(name: str) -> x509.CertificateSigningRequest:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    return x509.CertificateSigningRequestBuilder(subject).sign(ec.generate_private_key(ec.SECP256R1()), SHA256())


#: Put into the platform's process: its processor time from the login to the certificate that is on record, and that of
#: the bare calls for the same request, in turns before and after it, so that both meet the same caches.
TIMER = """
import sys, time
from pathlib import Path
sys.path.insert(0, {here!r})
import bare_calls
from mciot_platform.rest.est import EnrolmentCalls
enrol, send, begun, taken = EnrolmentCalls._enrol, EnrolmentCalls._send, [0.0], ([], [])
record = bare_calls.open_record({folder!r} + "/bare.sqlite")
def bare(self):
    begin = time.thread_time()
    bare_calls.sign(self.request.body, record)
    taken[1].append(time.thread_time() - begin)
def timed_enrol(self):
    number = len(taken[0])
    if number % 2:
        bare(self)
    begun[0] = time.thread_time()
    enrol(self)
    if not number % 2:
        bare(self)
    if number + 1 == {devices}:
        Path({folder!r}, "taken").write_text(" ".join(str(sum(each)) for each in taken))
def timed_send(self, *certificates):
    taken[0].append(time.thread_time() - begun[0])
    send(self, *certificates)
EnrolmentCalls._enrol, EnrolmentCalls._send = timed_enrol, timed_send
"""


def platform_enrols(folder: Path, csrs: list[x509.CertificateSigningRequest], timed: bool) -> list[float]:
    """Enrol all devices over one connection; returns the seconds, or what `TIMER` has measured."""
    values = {"here": str(Path(__file__).parent), "folder": str(folder), "devices": len(csrs)}
    (folder / "timer.py").write_text(TIMER.format(**values) if timed else "")
    first = f"import sys; sys.path.insert(0, {str(folder)!r}); import timer"
    with start_in_foreground(folder / "workspace", "--profile", "current", first=first):
        platform = running(folder / "workspace")
        platform.tenant.own_ca.turn_on()
        platform.tenant.own_ca.create()
        table = "".join(f"device-{number};CERTIFICATES;password-{number}\n" for number in range(len(csrs)))
        files = {"file": ("devices.csv", f"ID;AUTH_TYPE;ENROLLMENT_OTP\n{table}")}
        assert rest(platform, "POST", "/devicecontrol/bulkNewDeviceRequests", files=files).status_code == 201

        def ask(session: requests.Session, number: int) -> requests.Response:
            session.auth, body = (f"device-{number}", f"password-{number}"), csrs[number].public_bytes(Encoding.DER)
            headers = {"Content-Type": "application/pkcs10"}
            return session.post(
                f"{platform.https}/.well-known/est/simpleenroll", base64.b64encode(body), headers=headers
            )

        seconds = through_one_session(str(platform.server_certificate), len(csrs), ask)
        assert len(platform.issued()) == len(csrs)
    return [float(text) for text in (folder / "taken").read_text().split()] if timed else [seconds]


def through_one_session(trusted: str, number: int, ask: Callable[[requests.Session, int], requests.Response]) -> float:
    with requests.Session() as session:
        session.trust_env, session.verify = False, trusted
        begin = time.perf_counter()
        for each in range(number):
            assert (answer := ask(session, each)).ok, answer.text
        return time.perf_counter() - begin


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def cfssl_signs(folder: Path, csrs: list[x509.CertificateSigningRequest]) -> float:
    """Let another CA's server sign the same over HTTPS; it asks for no password, and records what it signs too."""
    server, ca = make("localhost", hosts=["localhost"]), make("CA", ca=True)
    for name, one in (("server", server), ("ca", ca)):
        (folder / f"{name}.pem").write_text(one.pem)
        write_chain(one, folder / f"{name}Key.pem", [])
    database = {"driver": "sqlite3", "data_source": str(folder / "cfssl.sqlite")}
    for name, content in (("config", CFSSL), ("database", database)):
        (folder / f"{name}.json").write_text(json.dumps(content))
    with contextlib.closing(sqlite3.connect(database["data_source"])) as made:
        made.executescript(f"PRAGMA journal_mode = WAL; {CFSSL_SCHEMA}")
    port, files = free_port(), [f"-{name}={folder / file}.pem" for name, file in CFSSL_FILES.items()]
    command = [
        "cfssl",
        "serve",
        f"-port={port}",
        f"-config={folder / 'config.json'}",
        f"-db-config={folder / 'database.json'}",
        "-loglevel=5",
        *files,
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(lambda: answers(port))
            url = f"https://localhost:{port}/api/v1/cfssl/sign"

            def ask(session: requests.Session, number: int) -> requests.Response:
                return session.post(url, json={"certificate_request": csrs[number].public_bytes(Encoding.PEM).decode()})

            return through_one_session(str(folder / "server.pem"), len(csrs), ask)
        finally:
            process.kill()


def enrolments(folder: Path) -> Iterator[tuple[str, float, str, float]]:
    """Yield the lines of the table."""
    csrs, folder = [csr_of(f"device-{number}") for number in range(DEVICES)], folder / "enrolments"
    folder.mkdir()
    rounds = []
    for number in range(ROUNDS):  # in turns, so that all meet the same machine
        timed, untimed = folder / f"{number}-timed", folder / f"{number}"
        timed.mkdir()
        untimed.mkdir()
        peer = cfssl_signs(untimed, csrs) if shutil.which("cfssl") else None
        rounds.append((*platform_enrols(timed, csrs, True), *platform_enrols(untimed, csrs, False), peer))
    own, calls, seconds, peer = (sorted(column)[ROUNDS // 2] for column in zip(*rounds, strict=True))
    yield f"{DEVICES} enrolments, processor time", own, "bare cryptography calls, and a record", calls
    if peer is not None:
        yield f"{DEVICES} enrolments over HTTPS, durable", seconds, "cfssl: no password, not durable", peer
