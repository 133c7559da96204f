"""What the tests of the local platform share: small certificates, a device on a chosen TLS version, and waiting."""

import contextlib
import json
import sqlite3
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pandas as pd
import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from mciot_nb.local_platform import LocalPlatform

DAY = timedelta(days=1)
LOOPBACK = ip_address("127.0.0.1")
#: paho's words for the return codes 0 to 5.
CONNACK = [
    "Success",
    "Unsupported protocol version",
    "Client identifier not valid",
    "Server unavailable",
    "Bad user name or password",
    "Not authorized",
]
TLS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@dataclass(frozen=True)
class Entity:
    """A certificate, its key, and the chain from it to the root."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    chain: tuple[x509.Certificate, ...]

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()

    @property
    def fingerprint(self) -> str:
        return self.certificate.fingerprint(hashes.SHA1()).hex()


def make(
    name: str,
    issuer: Entity | None = None,
    ca: bool = False,
    begins: timedelta = -DAY,
    ends: timedelta = 30 * DAY,
    extra: Sequence[x509.ExtensionType] = (),
    bare: bool = False,
    hosts: Sequence[str] = (),
) -> Entity:
    """Make a certificate of a CA, of a device, or with ``hosts``, names or 127.0.0.1, of a server.

    It has ``extra`` extensions; a ``bare`` one has none, as ``openssl x509 -req`` makes it by itself.
    """
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer, signer_name = (issuer.key, issuer.certificate.subject) if issuer else (key, subject)
    serial, dates = x509.random_serial_number(), (now + begins, now + ends)
    builder = x509.CertificateBuilder(signer_name, subject, key.public_key(), serial, *dates)
    extensions: list[x509.ExtensionType] = [
        x509.BasicConstraints(ca, None),
        x509.SubjectKeyIdentifier.from_public_key(key.public_key()),
        x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()),
        *extra,
    ]
    if hosts:
        names = [x509.IPAddress(LOOPBACK) if host == str(LOOPBACK) else x509.DNSName(host) for host in hosts]
        extensions.append(x509.SubjectAlternativeName(names))
    if ca or hosts:
        extensions.append(x509.KeyUsage(bool(hosts), False, False, False, False, ca, ca, False, False))
    for extension in [] if bare else extensions:
        builder = builder.add_extension(extension, isinstance(extension, x509.BasicConstraints | x509.KeyUsage))
    certificate = builder.sign(signer, hashes.SHA256())
    return Entity(certificate, key, (certificate, *(issuer.chain if issuer else ())))


SECONDS = 60.0  # a limit for what happens at once, except on a machine that is busy with other things


def wait_for(condition: Callable[[], Any], seconds: float = SECONDS) -> Any:
    """Return what ``condition`` returns once that is true."""
    give_up = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < give_up, "It did not happen in time."
        time.sleep(0.02)
    return found


def client_context(platform: LocalPlatform, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(platform.server_certificate))
    if version:
        context.minimum_version = context.maximum_version = version
    return context


@dataclass
class Seen:
    """What a client got to see."""

    connack: int | None = None
    raised: str = ""
    log: list[str] = field(default_factory=list)
    messages: list[tuple[str, str]] = field(default_factory=list)
    gone: threading.Event = field(default_factory=threading.Event)
    connected: threading.Event = field(default_factory=threading.Event)

    @property
    def text(self) -> str:
        return self.raised + " ".join(self.log)


@contextlib.contextmanager
def device(
    platform: LocalPlatform,
    folder: Path,
    entity: Entity | None,
    chain: tuple[Entity, ...] | None = None,
    *,
    client_id: str = "dev",
    version: ssl.TLSVersion | None = None,
    protocol: MQTTProtocolVersion = MQTTProtocolVersion.MQTTv311,
    host: str = "localhost",
    login: tuple[str, str] | None = None,
) -> Iterator[tuple[mqtt.Client, Seen]]:
    """Connect with paho; ``chain`` is what follows the entity's certificate, its issuers by default."""
    seen = Seen()
    options = {"protocol": protocol, "reconnect_on_failure": False}
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id, **options)
    client.on_log = lambda _c, _u, _level, text: seen.log.append(text)
    client.on_message = lambda _c, _u, m: seen.messages.append((m.topic, m.payload.decode()))
    client.on_disconnect = lambda *_: seen.gone.set()
    client.tls_set_context(context := client_context(platform, version))
    if login:
        client.username_pw_set(*login)
    if entity:
        sent = entity.chain if chain is None else [link.certificate for link in (entity, *chain)]
        context.load_cert_chain(write_chain(entity, folder / "chain.pem", sent))

    def on_connect(_c: Any, _u: Any, _f: Any, reason: Any, _p: Any) -> None:
        seen.connack = CONNACK.index(str(reason))
        (seen.gone if reason.is_failure else seen.connected).set()

    client.on_connect = on_connect
    try:
        client.connect(host, platform.mqtt[1])
        client.loop_start()
    except OSError as error:
        seen.raised = str(error)
        seen.gone.set()
    wait_for(lambda: seen.gone.is_set() or seen.connected.is_set())
    try:
        yield client, seen
    finally:
        client.disconnect()
        client.loop_stop()


def write_chain(entity: Entity, file: Path, chain: Sequence[x509.Certificate] | None = None) -> Path:
    """Write the key and the chain, the entity's own by default, into one file."""
    key = entity.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(key + b"".join(c.public_bytes(Encoding.PEM) for c in (entity.chain if chain is None else chain)))
    return file


def running(workspace: Path) -> LocalPlatform:
    found = LocalPlatform.running(workspace)
    assert found
    return found


def login(platform: LocalPlatform, tenant: int = 0, *, viewer: bool = False) -> tuple[str, str]:
    """Return user and password of a tenant's administrator, or of its user without a role."""
    name = platform.tenant_ids[tenant]
    known = json.loads((platform.folder / "credentials.json").read_text())[name]
    known = known["others"][0] if viewer else known
    return f"{name}/{known['user']}", known["password"]


def password(platform: LocalPlatform) -> str:
    return login(platform)[1]


def check_no_fault(platform: LocalPlatform) -> None:
    """Check that the platform had no fault of its own, and sent no traceback anywhere."""
    assert "SERVER_ERROR" not in set(platform.log()["code"])
    assert "Traceback" not in (platform.folder / "messages.txt").read_text()


@contextlib.contextmanager
def started(workspace: Path, *arguments: Any, **options: Any) -> Iterator[LocalPlatform]:
    """Start a platform as a notebook does, and check at the end that it had no fault of its own."""
    platform = LocalPlatform.start(workspace, *arguments, **options)
    try:
        yield platform
        check_no_fault(platform)
    finally:
        platform.stop()


def platform_fixture(*arguments: Any, **options: Any) -> Any:
    """Return a module's fixture of a platform; the arguments are those of LocalPlatform.start."""

    @pytest.fixture(scope="module")
    def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPlatform]:
        with started(tmp_path_factory.mktemp("workspace"), *arguments, **options) as platform:
            yield platform

    return platform


def connected(platform: LocalPlatform) -> pd.DataFrame:
    """Return who has connected: each device's last connection, still there where ``ended`` is empty."""
    log = platform.log().query("code == 'CONNECTED'")
    log["device"] = log["client_id"].map(lambda text: text.removeprefix("d:").partition(":")[0])
    columns = ["tenant", "device", "subject", "address", "tls", "time", "ended", "ending"]
    return log.drop_duplicates(["tenant", "device"], keep="last")[columns]


def rest(platform: LocalPlatform, method: str, path: str = "", **options: Any) -> requests.Response:
    """Call REST; a path that does not begin with a slash is below the tenant's trusted certificates."""
    with requests.Session() as session:
        session.trust_env = False
        options.setdefault("auth", login(platform))
        if not path.startswith("/"):
            path = f"/tenant/tenants/{platform.tenant_ids[0]}/trusted-certificates{'/' if path else ''}{path}"
        options |= {"verify": str(platform.server_certificate), "timeout": SECONDS}
        return session.request(method, platform.https + path, **options)


def upload(platform: LocalPlatform, entity: Entity, **fields: Any) -> requests.Response:
    body = {"certInPemFormat": entity.pem, "status": "ENABLED", "name": "test", "autoRegistrationEnabled": "true"}
    return rest(platform, "POST", json=body | fields)


def last_record(platform: LocalPlatform, before: int) -> Any:
    """Return the newest log record once there are more than ``before``."""
    wait_for(lambda: log_length(platform) > before)
    return platform.log().iloc[-1]


def log_length(platform: LocalPlatform) -> int:
    with contextlib.closing(sqlite3.connect(platform.folder / "platform.sqlite")) as database:
        return int(database.execute("SELECT count(*) FROM log").fetchone()[0])


def command(workspace: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "mciot_platform", "--workspace", str(workspace), *options]


@contextlib.contextmanager
def start_in_foreground(
    workspace: Path, *options: str, first: str = "", by: Sequence[str] = ()
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Start the process itself and return it with the line that it printed; ``first`` is Python to run before.

    ``by`` is a command that runs it.
    """
    arguments = [*by, *command(workspace, *options)]
    if first:
        arguments[1:3] = ["-c", f"{first}; import sys; from mciot_platform import __main__ as m; sys.exit(m.main())"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
    with subprocess.Popen(arguments, text=True, **pipes) as process:
        try:
            assert process.stdout and process.stderr
            line = process.stdout.readline()
            assert line, process.stderr.read()
            yield process, json.loads(line)
        finally:
            process.kill()
