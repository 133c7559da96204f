"""Measure what real clients say when they are refused: write data/client_words.csv.

``python -m tools.measure_clients [CLIENT…]`` measures all clients, or those of these names. A local platform in a
temporary workspace refuses each client for each cause, on TLS 1.2 and 1.3; so do servers with a fault of their own, and
one that is written in Java, as the real platform is. A row is what a client said of a cause; what it also says where
nothing is wrong is left out. All of it takes a quarter of an hour on a machine that does nothing else, and needs
openssl, curl, npm, a JDK, mosquitto and mosquitto-clients, and libmqtt-client-java (Debian's names).
"""

import contextlib
import csv
import json
import os
import re
import socket
import socketserver
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import requests
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from mciot_nb.connect.device import Device
from mciot_nb.connect.explain import BETWEEN
from mciot_nb.connect.mqtt import connection_error
from mciot_nb.errors import OnboardingError
from mciot_nb.failures import CASES, FailureCase
from mciot_nb.pki.chain import read_certificates, to_pem
from mciot_nb.pki.files import data_table
from mciot_nb.pki.keystore import write_keystore, write_truststore
from mciot_nb.secret import reveal
from mciot_nb.workspace import Workspace

ROOT = Path(__file__).parents[1]
TABLE, DRIVERS = ROOT / "data" / "client_words.csv", ROOT / "tools" / "clients"
HEADING = ("code", "client", "version", "tls", "words")
VERSIONS = ("TLSv1.2", "TLSv1.3")
#: What is installed for the measurement, and for nothing else.
PYTHON_CLIENTS = {
    "paho-mqtt 2.1": ("paho-mqtt==2.1.0",),
    "paho-mqtt": ("paho-mqtt==2.2.0",),
    "gmqtt": ("gmqtt==0.8.0",),
    "aiomqtt": ("aiomqtt==2.5.1", "paho-mqtt==2.2.0"),
}
NODE_CLIENT = "mqtt@5.16.0"
JARS = ":".join(
    f"/usr/share/java/{name}.jar" for name in ("mqtt-client", "hawtbuf", "hawtdispatch", "hawtdispatch-transport")
)
#: Seconds in which a client has said what it has to say.
SECONDS = 6.0
STORE_PASSWORD = "kein-geheimnis"
#: What differs from run to run or from machine to machine is taken out of the words, rule by rule.
CLEANING = [
    (r"\x1b\[[0-9;]*m", ""),  # colours
    (r"_ssl\.c:\d+", "_ssl.c"),
    (r":[./\w]*\.c:\d+:", "::"),  # OpenSSL's file and line
    (r"\b[0-9A-F]{12,16}:error:", "error:"),  # its thread
    (r"https://[^\s\"]+", "URL"),
    (r"\b(127\.0\.0\.1|localhost|127\.1|[a-z.-]*\.invalid)\b", "HOST"),
    (r"(?<=[\s(:'\"=])/[^\s:'\",)]+/", ""),  # folders
    (r"0x[0-9a-f]{6,}", "0x…"),
    (r"(?<=fd=)\d+|(?<= after )\d+(?= m)|(?<=laddr=)\S+|(?<=raddr=)\S+", "…"),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d\S*|\w{3} \w{3} +\d+ \d\d:\d\d:\d\d( \w{3,4})? \d{4}", "TIME"),
    (r"\s+", " "),
]
#: Lines that are about every connection, whatever comes of it.
NOISE = re.compile(
    r"sending CONNECT|^Can't use SSL_get_servername|^verify return:|^Verification: OK|^ *Verify return code: 0"
    r"|^Verified peername|^curl: \((28|52)\) (Operation|Empty)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Attempt:
    """How a client is told to connect, or to upload the certificate in a file.

    ``wait`` is the pause between handshake and CONNECT, for races on TLS 1.3; with ``stay`` it waits for its end.
    """

    host: str
    port: int
    id: str
    ca: str
    cert: str = ""
    key: str = ""
    passphrase: str = ""
    user: str = ""
    password: str = ""
    plain: bool = False
    websocket: bool = False
    mqtt5: bool = False
    stay: bool = False
    upload: str = ""
    tls: str = VERSIONS[1]
    wait: float = 0


def clean(line: str, attempt: Attempt) -> str:
    """Return a line without addresses, times, ports, folders and names of this attempt."""
    for pattern, put in CLEANING:
        line = re.sub(pattern, put, line)
    line = re.sub(rf"\b{attempt.port}\b", "PORT", line)
    return (line.replace(attempt.id, "CLIENTID") if attempt.id else line).strip()


def run(command: list[str], **options: Any) -> "subprocess.CompletedProcess[str]":
    """Run a program without a terminal, at which it could ask for something; what it printed in time counts."""
    process = subprocess.Popen(
        command,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        errors="replace",
        **options,
    )
    timer = threading.Timer(SECONDS, process.kill)
    timer.start()
    said, _ = process.communicate()
    timer.cancel()
    return subprocess.CompletedProcess(command, process.returncode, said)


class Driver:
    """A program that makes the attempts which it reads as lines, and answers each with a line."""

    def __init__(
        self, command: list[str], write: Callable[[Attempt], str], read: Callable[[str], list[str]], **options: Any
    ) -> None:
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, text=True, start_new_session=True, **pipes, **options)
        self.write, self.read = write, read

    def __call__(self, attempt: Attempt) -> list[str]:
        """Make an attempt, and return what the client said."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(self.write(attempt) + "\n")
        self.process.stdin.flush()
        return self.read(self.process.stdout.readline())


def python_driver(python: str, module: str) -> tuple[str, Driver]:
    """Return the version of a Python client in an environment, and how it connects."""
    ask = "import ssl, sys; from importlib.metadata import version as v; print("
    ask += f"v({module!r}), '(Python %d.%d,' % sys.version_info[:2], *ssl.OPENSSL_VERSION.split()[:2])"
    command = [python, str(DRIVERS / "python_client.py"), module]
    version = run([python, "-c", ask]).stdout.strip() + ")"
    return version, Driver(command, lambda attempt: json.dumps(asdict(attempt)), json.loads)


def python_client(folder: Path, name: str) -> tuple[str, Driver]:
    """Install a Python client in an environment of its own, and return its version and how it connects."""
    python = str(folder / name / "bin" / "python")
    subprocess.run([sys.executable, "-m", "venv", folder / name], check=True)
    quiet = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([python, *quiet, *PYTHON_CLIENTS[name]], check=True, stderr=subprocess.DEVNULL)
    return python_driver(python, name.split()[0])


def node_driver(folder: Path) -> tuple[str, Driver]:
    """Install MQTT.js, and return its version and how it connects."""
    options = ["--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder)]
    subprocess.run(["npm", "install", *options, NODE_CLIENT], check=True, stdout=subprocess.DEVNULL)
    asked = run(["node", "-p", "`(Node ${process.versions.node}, OpenSSL ${process.versions.openssl})`"]).stdout.strip()
    environment = {**os.environ, "NODE_PATH": str(folder / "node_modules")}
    command = ["node", str(DRIVERS / "mqttjs.cjs")]
    driver = Driver(command, lambda attempt: json.dumps(asdict(attempt)), json.loads, env=environment)
    return f"{NODE_CLIENT.partition('@')[2]} {asked}", driver


def java_driver(folder: Path, kind: str) -> tuple[str, Driver]:
    """Return Java's version and how a client on it connects: ``mqtt-client``, or ``jsse``, Java's TLS alone."""
    java = run(["java", "-version"]).stdout.split('"')[1]
    package = run(["dpkg-query", "-W", "-f", "${Version}", "libmqtt-client-java"]).stdout
    options = ["-XX:TieredStopAtLevel=1", "-Duser.language=en", "-cp", JARS]
    command = ["java", *options, str(DRIVERS / "JavaClient.java"), kind]
    driver = Driver(command, partial(java_line, folder), lambda line: line.rstrip("\n").split("\t"))
    return (f"{package} (Java {java})" if kind == "mqtt-client" else java), driver


def java_line(folder: Path, attempt: Attempt) -> str:
    """Write the stores of an attempt, and return the line that `JavaClient.java` reads."""
    own, trusted = folder / "own.p12", folder / "trusted.p12"
    password = STORE_PASSWORD
    if attempt.cert:
        try:
            key = load_pem_private_key(Path(attempt.key).read_bytes(), attempt.passphrase.encode() or None)
            write_keystore(own, key, read_certificates(Path(attempt.cert)), STORE_PASSWORD, replace=True)  # type: ignore[arg-type]
        except (ValueError, TypeError):  # a passphrase that is wrong is a store's here
            password = attempt.passphrase
    write_truststore(
        trusted, {"servercertificate": read_certificates(Path(attempt.ca))[0]}, STORE_PASSWORD, replace=True
    )
    stores = str(own) if attempt.cert else "", str(trusted), password, attempt.user, attempt.password
    return "\t".join([attempt.host, str(attempt.port), attempt.id, "" if attempt.plain else attempt.tls, *stores])


def mosquitto_pub(folder: Path, attempt: Attempt) -> list[str]:
    """Publish; the versions of TLS are OpenSSL's to limit, for ``--tls-version`` names the oldest one only."""
    limits = f"MinProtocol = {attempt.tls}\nMaxProtocol = {attempt.tls}\n"
    (folder / "openssl.cnf").write_text(f"openssl_conf = a\n[a]\nssl_conf = b\n[b]\nsystem_default = c\n[c]\n{limits}")
    lines = [
        "-d",
        f"-h {attempt.host}",
        f"-p {attempt.port}",
        "-t s/us",
        "-m 100",
        f"-V {'mqttv5' if attempt.mqtt5 else 'mqttv311'}",
    ]
    lines += [f"-i {attempt.id}"] if attempt.id else []
    lines += [] if attempt.plain else [f"--cafile {attempt.ca}"]
    lines += (
        [f"--cert {attempt.cert}", f"--key {plain_key(folder, attempt)}"] if attempt.cert and not attempt.plain else []
    )
    lines += [f"-u {attempt.user}", f"-P {attempt.password}"] if attempt.user else []
    (folder / "mosquitto_pub").write_text("\n".join(lines) + "\n")
    environment = {**os.environ, "XDG_CONFIG_HOME": str(folder), "OPENSSL_CONF": str(folder / "openssl.cnf")}
    return run(["mosquitto_pub"], env=environment).stdout.splitlines()


def plain_key(folder: Path, attempt: Attempt) -> str:
    """Return a file with the key without its passphrase, for mosquitto_pub; the same file if that is wrong."""
    try:
        key = load_pem_private_key(Path(attempt.key).read_bytes(), attempt.passphrase.encode() or None)
    except (OSError, ValueError, TypeError):
        return attempt.key
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return str(folder / "key.pem")


def s_client(folder: Path, attempt: Attempt) -> list[str]:
    """Do the handshake with openssl, and wait for the server's answer to it; what speaks of trouble is returned."""
    limit = "-tls1_2" if attempt.tls == VERSIONS[0] else "-tls1_3"
    (folder / "pass").write_text(attempt.passphrase + "\n")
    command = [
        "openssl",
        "s_client",
        "-connect",
        f"{attempt.host}:{attempt.port}",
        limit,
        "-CAfile",
        attempt.ca,
        "-ign_eof",
    ]
    command += ["-verify_return_error", "-verify_hostname", attempt.host]
    if attempt.cert:
        command += ["-cert", attempt.cert, "-cert_chain", attempt.cert, "-key", attempt.key]
        command += ["-pass", f"file:{folder / 'pass'}"] if attempt.passphrase else []
    wanted = re.compile(r"error|alert|could not|can't|unable|errno|refused|not known|verif", re.IGNORECASE)
    return [line for line in run(command).stdout.splitlines() if wanted.search(line)]


def path_of(attempt: Attempt) -> str:
    """Return where an attempt uploads to."""
    return f"/tenant/tenants/{attempt.user.partition('/')[0]}/trusted-certificates" if attempt.upload else "/"


def body_of(attempt: Attempt) -> dict[str, str]:
    """Return what an attempt uploads."""
    return {"status": "ENABLED", "name": "x", "certInPemFormat": Path(attempt.upload).read_text(encoding="utf-8")}


def curl(folder: Path, attempt: Attempt) -> list[str]:
    """Call the same port with curl, or upload something where there is a login."""
    version = attempt.tls.removeprefix("TLSv")
    lines = ["silent", "show-error", f"tlsv{version}", f"tls-max = {version}", f'cacert = "{attempt.ca}"']
    lines += (
        [f'cert = "{attempt.cert}"', f'key = "{attempt.key}"', f'pass = "{attempt.passphrase}"'] if attempt.cert else []
    )
    lines += [f'url = "https://{attempt.host}:{attempt.port}{path_of(attempt)}"', "max-time = 5"]
    if attempt.upload:
        (folder / "body.json").write_text(json.dumps(body_of(attempt)))
        lines += [f'user = "{attempt.user}:{attempt.password}"', f'json = "@{folder / "body.json"}"']
    (folder / "curl.txt").write_text("\n".join(lines) + "\n")
    said = run(["curl", "--config", str(folder / "curl.txt")]).stdout.splitlines()
    return [line for line in said if line.startswith(("curl: ", "{"))]


def with_requests(folder: Path, attempt: Attempt) -> list[str]:
    """Do the same with requests."""
    with requests.Session() as session:
        session.trust_env = False
        files = (attempt.cert, plain_key(folder, attempt)) if attempt.cert else None
        try:
            url = f"https://{attempt.host}:{attempt.port}{path_of(attempt)}"
            options: Any = {"verify": attempt.ca, "timeout": 5}
            if attempt.upload:
                login = (attempt.user, attempt.password)
                session.post(url, json=body_of(attempt), auth=login, **options).raise_for_status()
            else:
                session.get(url, cert=files, **options)
        except (OSError, ValueError) as error:
            return [f"{type(error).__module__}.{type(error).__name__}: {error}"]
    return []


def with_cryptography(_folder: Path, attempt: Attempt) -> list[str]:
    """Load what the device has to show."""
    try:
        if attempt.cert:
            x509.load_pem_x509_certificates(Path(attempt.cert).read_bytes())
            load_pem_private_key(Path(attempt.key).read_bytes(), attempt.passphrase.encode() or None)
    except (OSError, ValueError, TypeError) as error:
        return [f"{type(error).__name__}: {error}"]
    return ["CONNECTED"]


def mciot_nb(_folder: Path, attempt: Attempt) -> list[str]:
    """Connect as our own `Device` does; its codes are told."""
    files = (Path(attempt.cert), Path(attempt.key)) if attempt.cert else (None, None)
    try:
        device = Device(
            attempt.host,
            attempt.port,
            chain=files[0],
            key=files[1],
            passphrase=attempt.passphrase,
            trusted=Path(attempt.ca),
            client_id=attempt.id,
            tls=ssl.TLSVersion[attempt.tls.replace(".", "_")],
        )
        device.encrypted = not attempt.plain
        device.options = {
            "protocol": 5 if attempt.mqtt5 else 4,
            "transport": "websockets" if attempt.websocket else "tcp",
        }
        with device:
            give_up = time.monotonic() + SECONDS
            while attempt.stay and device.is_connected and time.monotonic() < give_up:
                time.sleep(0.05)
            if attempt.stay:
                raise connection_error(attempt.host, notes=device.notes)
            return ["CONNECTED"]
    except OnboardingError as error:
        return [error.code]


# What is wrong -------------------------------------------------------------------------------------------------------


def of_case(case: FailureCase) -> Attempt:
    """Return how a case of the laboratory wants its client to connect."""
    state, (host, port) = case.state, case.platform.mqtt
    return Attempt(
        state["host"] or ("localhost" if host == "127.0.0.1" else host),
        int(free_port() if state["port"] else port),
        case.client_id,
        str(case.file(state["trusted"], "Cert.pem") if state["trusted"] else case.platform.server_certificate),
        cert=str(case.device_folder / "deviceCertChain.pem") if state["sent"] else "",
        key=str(case.file(state["key"], "Key.pem")),
        passphrase=state["passphrase"] or str(reveal(case.passphrase)),
        plain=state["transport"] == "plain",
        websocket=state["transport"] == "websockets",
        mqtt5=state["protocol"] == "5",
    )


def upload_of(case: FailureCase) -> dict[str, Any]:
    """Return how a case uploads its certificate."""
    tenant, file = case.tenant, case.file(case.state["uploaded"], "Cert.pem")
    user, port = f"{tenant.tenant_id}/{tenant.user}", int(tenant.url.rpartition(":")[2])
    return {"port": port, "user": user, "password": reveal(tenant.password or ""), "upload": str(file)}


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def certificates(folder: Path, name: str, begins: int, ends: int) -> tuple[str, str]:
    """Make a CA, and a server's certificate that is valid between two days, counted from today; return their files."""
    now, keys, file = datetime.now(UTC), [ec.generate_private_key(ec.SECP256R1()) for _ in "ab"], folder / f"{name}.pem"
    names, days = (
        [x509.Name.from_rfc4514_string(f"CN={one}") for one in (f"CA of {name}", "localhost")],
        [(-9, 9), (begins, ends)],
    )
    more = x509.BasicConstraints(True, None), x509.SubjectAlternativeName([x509.DNSName("localhost")])
    signed = [
        x509.CertificateBuilder(names[0], names[it], keys[it].public_key(), x509.random_serial_number())
        .not_valid_before(now + timedelta(days[it][0]))
        .not_valid_after(now + timedelta(days[it][1]))
        .add_extension(more[it], critical=not it)
        .sign(keys[0], SHA256())
        for it in (0, 1)
    ]
    (folder / f"{name}-ca.pem").write_bytes(to_pem(signed[0]))
    file.write_bytes(keys[1].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + to_pem(signed[1]))
    return str(file), str(folder / f"{name}-ca.pem")


class Handshake(socketserver.BaseRequestHandler):
    """What a TLS server does that shows the certificate of a file."""

    def handle(self) -> None:
        """Shake hands, and wait for the client's end."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.server.file)  # type: ignore[attr-defined]
        self.request.settimeout(SECONDS)
        with contextlib.suppress(OSError), context.wrap_socket(self.request, server_side=True) as secured:
            while secured.recv(4096):
                pass


@contextlib.contextmanager
def with_servers(folder: Path, good: FailureCase) -> Iterator[list[tuple[str, Attempt]]]:
    """Start servers with a fault, and return the code of each fault with the attempt that meets it."""
    right, found = of_case(good), list[tuple[str, Attempt]]()
    with contextlib.ExitStack() as open_ones:
        for name, *days in (("expired", -9, -1), ("early", 1, 9), ("issued", -1, 9)):
            file, ca = certificates(folder, name, *days)
            server = open_ones.enter_context(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handshake))
            server.daemon_threads, server.file = True, file  # type: ignore[attr-defined]
            threading.Thread(target=server.serve_forever, daemon=True).start()
            open_ones.callback(server.shutdown)
            port, trusted = server.server_address[1], right.ca if name == "issued" else ca
            found.append(("SERVER_NOT_TRUSTED", replace(right, host="localhost", port=port, ca=trusted)))
        silent = open_ones.enter_context(socket.create_server(("127.0.0.1", 0)))
        found.append(("NO_ANSWER", replace(right, port=silent.getsockname()[1])))
        plain = free_port()
        (folder / "broker.conf").write_text(f"user root\nlistener {plain} 127.0.0.1\nallow_anonymous true\n")
        broker = ["/usr/sbin/mosquitto", "-c", str(folder / "broker.conf")]
        open_ones.callback(subprocess.Popen(broker, stderr=subprocess.DEVNULL).kill)
        found.append(("NO_TLS", replace(right, port=plain)))
        tenant, wrong = good.platform.tenant_ids[0], {"user": "nobody", "password": "not-this-one"}
        viewer = json.loads((good.platform.folder / "credentials.json").read_bytes())[tenant]["others"][0]
        logins = {"BAD_CREDENTIALS": wrong, "NO_ROLE": viewer}
        found += [
            ("NOT_REACHED", replace(right, host="mqtt.nowhere.invalid")),
            ("NEED_PASSPHRASE", replace(right, passphrase="")),
            ("NO_CLIENT_ID", replace(right, id="")),
            *(
                (code, replace(right, cert="", **login | {"user": f"{tenant}/{login['user']}"}))
                for code, login in logins.items()
            ),
        ]
        yield found


@contextlib.contextmanager
def java_platform(folder: Path, case: FailureCase) -> Iterator[Attempt]:
    """Serve TLS with Java, which trusts the CA of a case if that was uploaded; it is the real platform's kind."""
    own, trusted, at = folder / "server.p12", folder / "uploaded.p12", case.platform.folder
    key = load_pem_private_key((at / "serverKey.pem").read_bytes(), None)
    chain = read_certificates(case.platform.server_certificate)
    write_keystore(own, key, chain, STORE_PASSWORD, replace=True)  # type: ignore[arg-type]
    uploaded = chain if case.row["code"] == "UNKNOWN_CA" else read_certificates(case.folder / "caCert.pem")
    write_truststore(trusted, {"ca": uploaded[0]}, STORE_PASSWORD, replace=True)
    command = ["java", "-cp", JARS, str(DRIVERS / "JavaClient.java"), "serve"]
    with subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin and process.stdout
        values = ["", "0", "", VERSIONS[1], str(own), str(trusted), STORE_PASSWORD, "", ""]
        process.stdin.write("\t".join(values) + "\n")
        process.stdin.flush()
        yield replace(of_case(case), port=int(process.stdout.readline()))
        process.kill()


#: The groups of cases whose codes stand for several refusals, each with words of its own.
MANY_WORDS = ("Key and files", "The client")


def causes(folder: Path) -> Iterator[tuple[str, Attempt]]:
    """Make one cause after the other, and return its code with the attempt that meets it; the good case comes first."""
    workspaces = {profile: Workspace(folder / profile) for profile in ("guide-2021", "current")}
    try:
        for profile, workspace in workspaces.items():
            workspace.use_profile(profile)
        first = FailureCase(workspaces["guide-2021"], "good")
        yield "OK", of_case(first)
        with with_servers(folder, first) as found:
            yield from found
        for name in ("unknown-ca", "expired", "not-yet-valid"):
            case = FailureCase(workspaces["current"], name)
            with java_platform(folder, case) as attempt:
                yield case.row["code"], attempt
        seen = set[tuple[str, ...]]()
        for name, row in CASES.items():
            alike = (row["code"], row["client"], name if row["group"] in MANY_WORDS else "")
            if row["client"] and alike not in seen:
                seen.add(alike)
                case = FailureCase(workspaces[row["profiles"].split()[0]], name)
                attempt = replace(of_case(case), stay=row["client"] == "CLOSED" and row["code"] == "OK")
                if row["group"] == "The upload":
                    attempt = replace(attempt, cert="", **upload_of(case))
                code = row["client"] if row["client"].startswith("HTTP_") or attempt.stay else row["code"]
                yield code, attempt
                case.leave()
    finally:
        for workspace in workspaces.values():
            workspace.platform().stop()


# The measurement ------------------------------------------------------------------------------------------------------

Client = Callable[[Attempt], list[str]]
#: What takes part in the handshake only.
WITHOUT_MQTT = ("Java", "openssl s_client", "curl", "requests", "cryptography")
STAYING = ("paho-mqtt 2.1", "paho-mqtt", "MQTT.js", "mciot_nb")  # until another comes
WITH_WEBSOCKET = ("paho-mqtt 2.1", "paho-mqtt", "aiomqtt", "MQTT.js", "mciot_nb")


#: By the name of a program how it is run, and how it tells its version.
PROGRAMS = {
    "mosquitto_pub": (mosquitto_pub, "mosquitto_pub --help"),
    "openssl s_client": (s_client, "openssl version"),
    "curl": (curl, "curl --version"),
}


def program(name: str, folder: Path) -> tuple[str, Client]:
    """Return a program's version and how it connects, with files of its own in a folder."""
    function, ask = PROGRAMS[name]
    return re.findall(r"\d+\.\d+\.\d+", run(ask.split()).stdout)[0], partial(function, folder)


#: What is called here, by the name of its package.
LIBRARIES = {"requests": with_requests, "cryptography": with_cryptography, "mciot_nb": mciot_nb}


def library(name: str, folder: Path) -> tuple[str, Client]:
    """Return a library's version and how it is used."""
    return version(name.replace("_", "-")), partial(LIBRARIES[name], folder)


def clients(folder: Path, wanted: Sequence[str] = ()) -> dict[str, tuple[str, Client]]:
    """Return the ``wanted`` clients by their names, all of them by default, each with its version."""
    makers: dict[str, Callable[[], tuple[str, Client]]] = {
        **{name: partial(python_client, folder, name) for name in PYTHON_CLIENTS},
        "MQTT.js": partial(node_driver, folder / "node"),
        "mqtt-client": partial(java_driver, folder, "mqtt-client"),
        "Java": partial(java_driver, folder, "jsse"),
        **{name: partial(program, name, folder) for name in PROGRAMS},
        **{name: partial(library, name, folder) for name in LIBRARIES},
    }
    return {name: make() for name, make in makers.items() if not wanted or name in wanted}


def said_by(client: Client, attempt: Attempt) -> list[str]:
    """Return the cleaned lines that a client says in an attempt, each once."""
    try:
        lines = client(attempt)
    except OnboardingError:  # of such a file no Java store can be made
        return []
    cleaned = dict.fromkeys(clean(part, attempt) for line in lines for part in line.splitlines())
    return [line for line in cleaned if line and not NOISE.search(line)]


def words_of(client: Client, attempt: Attempt, noise: set[str]) -> str:
    """Return what a client says in an attempt, but for what it says in a good one; empty where it is let in."""
    said = said_by(client, attempt)
    return "" if "CONNECTED" in said and not attempt.stay else BETWEEN.join(line for line in said if line not in noise)


def takes_part(name: str, attempt: Attempt, after_handshake: bool) -> bool:
    """Whether a client can make such an attempt at all."""
    if attempt.upload:
        return name in ("curl", "requests")
    if name in WITHOUT_MQTT:
        return not (after_handshake or attempt.plain or attempt.websocket or attempt.mqtt5 or attempt.stay)
    cannot = {"mqtt-client": attempt.mqtt5, "mosquitto_pub": attempt.plain, "gmqtt": not attempt.id}
    if cannot.get(name) or (name == "mciot_nb" and attempt.user) or (attempt.stay and name not in STAYING):
        return False
    return not attempt.websocket or name in WITH_WEBSOCKET


def measure(folder: Path, wanted: Sequence[str] = ()) -> Iterator[tuple[str, ...]]:
    """Return the rows of the table; ``wanted`` are names of clients, all of them by default."""
    known = clients(folder, wanted)
    noise: dict[str, set[str]] = {name: {"CONNECTED"} for name in known}
    for code, attempt in causes(folder):
        after_handshake = False
        for name, (release, client) in known.items():
            if not takes_part(name, attempt, after_handshake):
                continue
            for tls, wait in ((VERSIONS[0], 0.0), (VERSIONS[1], 0.0), (VERSIONS[1], 0.05)):
                if attempt.stay:
                    other = replace(attempt, stay=False)  # of the same ClientId
                    threading.Timer(1.0, mciot_nb, (folder, other)).start()
                if code == "OK":
                    noise[name] |= set(said_by(client, replace(attempt, tls=tls)))
                elif words := words_of(client, replace(attempt, tls=tls, wait=wait), noise[name]):
                    after_handshake = after_handshake or "CONNACK" in words
                    yield code, name, release, tls, words
        print(f"{code}: {attempt.host}:{attempt.port}", file=sys.stderr)


def main(*wanted: str) -> None:
    """Measure the clients of these names, all by default, and put their rows into the table."""
    with tempfile.TemporaryDirectory() as folder:
        new = {*measure(Path(folder), wanted)}
    kept = [tuple(row.values()) for row in data_table(TABLE.name) if wanted and row["client"] not in wanted]
    with TABLE.open("w", encoding="utf-8", newline="") as table:
        csv.writer(table, lineterminator="\n").writerows([HEADING, *sorted({*new, *kept})])


if __name__ == "__main__":
    main(*sys.argv[1:])
