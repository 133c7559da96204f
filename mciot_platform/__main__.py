"""``python -m mciot_platform``: the local platform in the foreground, until it is stopped."""

import argparse
import asyncio
import errno
import ipaddress
import logging
import signal
import socket
import sqlite3
import ssl
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from cryptography.hazmat.primitives.serialization import Encoding
from filelock import FileLock, Timeout
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from mciot_nb.errors import OnboardingError
from mciot_nb.pki.chain import PROFILES
from mciot_platform import running
from mciot_platform.identity import Tokens, read_credentials, server_certificate, server_key, write_sheets
from mciot_platform.mqtt_server import MqttServer
from mciot_platform.rest.application import LONGEST_BODY, make_application
from mciot_platform.rest.handler import Platform
from mciot_platform.storage import Storage
from mciot_platform.tls import ServerIdentity
from mciot_platform.trust import Trust

PORTS_TRIED = 200
IDLE_SECONDS = 30.0
LOCK_SECONDS = 60.0


def main() -> int:
    """Run the platform of a workspace, or say where the one that runs already is."""
    options = _options()
    folder = options.workspace.resolve() / "platform"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _run_or_point_to_running(options, folder)
    except (OnboardingError, OSError, sqlite3.Error) as error:
        print(f"The local platform of {folder} can't run: {error}", file=sys.stderr)
        return 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m mciot_platform", description="Run the platform until it is stopped.")
    parser.add_argument("--workspace", type=Path, required=True, help="the folder to work in, in its platform/")
    host = "the name or address by which others reach this machine; it goes into the server certificate. With a name, "
    host += "the platform listens on every address, with an address, on that one; the default is the loopback's"
    parser.add_argument("--host", default="127.0.0.1", help=host)
    parser.add_argument("--mqtt-port", type=int, default=8883, help="the next free port if it is taken")
    parser.add_argument("--https-port", type=int, default=8443, help="the next free port if it is taken")
    parser.add_argument("--tenants", type=int, default=1, help="how many, each with its own trust: t1001, t1002 …")
    parser.add_argument("--profile", choices=sorted(PROFILES), default="guide-2021", help="the rules to follow")
    parser.add_argument("--until-pid", type=int, help="end when the process with this number ends")
    return parser.parse_args()


def _run_or_point_to_running(options: argparse.Namespace, folder: Path) -> int:
    """Try again for a while, since the platform that holds the lock may be starting or ending just now."""
    give_up = time.monotonic() + LOCK_SECONDS
    while time.monotonic() < give_up:
        try:
            with FileLock(folder / "lock", timeout=0, mode=0o600):
                asyncio.run(_run(options, folder))
                return 0
        except Timeout:
            known = running.read(folder)
        if known:
            has = known["host"], known["profile"], max(len(known["tenants"]), options.tenants)
            if has != (options.host, options.profile, len(known["tenants"])):
                told = f"{known['host']}, with {len(known['tenants'])} tenants and the profile {known['profile']}"
                print(f"It runs already, as {told}. For another one, stop process {known['pid']}.", file=sys.stderr)
            print(running.line(known), flush=True)
            return 0
        time.sleep(0.05)
    raise OnboardingError("another process holds the lock but does not answer: end it, then start again.")


async def _run(options: argparse.Namespace, folder: Path) -> None:
    """Start both servers, say where they answer, and wait for the end. Caller must hold the lock."""
    (folder / running.FILE).unlink(missing_ok=True)  # of one that was killed; the lock says that it is gone
    stop = asyncio.Event()
    _stop_on_signals(stop)
    is_needed, key = _process_check(options.until_pid), server_key(folder)
    credentials = read_credentials(folder / "credentials.json", options.tenants)
    storage = _open_storage(folder / "platform.sqlite")
    mqtt_sockets, mqtt_port = _bind(options.host, options.mqtt_port)
    https_sockets, https_port = _bind(options.host, options.https_port)
    # only now: a start that fails must not change the certificate that learners have copied
    identity = ServerIdentity(key, server_certificate(folder, key, options.host))
    trust, tokens = Trust(storage, PROFILES[options.profile]), Tokens(key)
    mqtt_server = MqttServer(storage, trust, tokens, identity, credentials)
    _raise_file_limit()
    await mqtt_server.listen(mqtt_sockets)
    context = _https_context(folder, trust)
    https_server = _https_server(Platform(credentials, storage, trust, tokens, mqtt_server, identity, context))
    https_server.add_sockets(https_sockets)
    known = running.write(folder, options.host, mqtt_port, https_port, options.profile, credentials)
    _explain(known, write_sheets(folder.parent, known, credentials) if len(credentials) > 1 else None)
    print(running.line(known), flush=True)
    try:
        await _wait(stop, is_needed)
    finally:
        (folder / running.FILE).unlink(missing_ok=True)
        https_server.stop()
        await https_server.close_all_connections()
        await mqtt_server.close()
        storage.close()


def _open_storage(file: Path) -> Storage:
    try:
        storage = Storage(file)
        storage.end_interrupted_connections()
        return storage
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise  # the disk is full, or the file locked: nothing is wrong with it
        raise OnboardingError(f"{file} is damaged: move it away, and an empty one is made.") from None


def _raise_file_limit() -> None:
    """Take as many connections as the system allows: the soft limit is often 256 or 1024."""
    with suppress(ImportError, ValueError, OSError):  # Windows has no such module, macOS refuses "unlimited"
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _https_context(folder: Path, trust: Trust) -> ssl.SSLContext:
    """Return the HTTPS port's context: a device may show its certificate there too, where the profile has a use for it.

    Every call checks that certificate anew, so it does no harm that OpenSSL goes on knowing a CA that was deleted.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(folder / "serverCert.pem", folder / "serverKey.pem")
    if trust.profile.has_proof_and_revocation:
        context.verify_mode = ssl.CERT_OPTIONAL
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    for trusted in trust.storage.trusted_certificates():
        context.load_verify_locations(cadata=trusted.certificate.public_bytes(Encoding.DER))
    return context


def _https_server(platform: Platform) -> HTTPServer:
    logging.getLogger("tornado.general").setLevel(logging.CRITICAL)  # what clients do wrong is no news here
    # a TLS handshake that never comes is waited for no longer than for a request or its body
    limits = {"idle_connection_timeout": IDLE_SECONDS, "body_timeout": IDLE_SECONDS, "max_body_size": LONGEST_BODY}
    return HTTPServer(make_application(platform), ssl_options=platform.context, **limits)


def _stop_on_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    # signal.signal, because the loop's own add_signal_handler does not exist on Windows.
    for name in ("SIGINT", "SIGTERM", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: loop.call_soon_threadsafe(stop.set))


def _process_check(until_pid: int | None) -> Callable[[], bool]:
    """Return whether the process that the platform was started for still runs, as a function."""
    if until_pid is None:
        return lambda: True
    try:
        return partial(running.is_alive, psutil.Process(until_pid))
    except psutil.NoSuchProcess:
        return lambda: False
    except (ValueError, OverflowError):
        raise OnboardingError(f"No process has the number {until_pid}: give --until-pid one that runs.") from None


async def _wait(stop: asyncio.Event, is_needed: Callable[[], bool]) -> None:
    """Wait for a signal, or for the end of the process that the platform was started for."""
    while not stop.is_set() and is_needed():
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 0.5)


def _bind(host: str, first: int) -> tuple[list[socket.socket], int]:
    """Bind the first free port from ``first`` upward, or any one for 0. Raises: OnboardingError: if there is none."""
    if not 0 <= first <= 65535:
        raise OnboardingError(f"There is no port {first}: name one from 0 to 65535.")
    own = [one.address for card in psutil.net_if_addrs().values() for one in card if one.family == socket.AF_INET]
    told = f"{host!r} leads to no address of this machine: give --host {' or '.join(own)}, or its name."
    try:
        socket.getaddrinfo(host, None)
    except (OSError, UnicodeError):
        raise OnboardingError(told) from None
    # a machine's own name often stands for its loopback address only, so: every address
    address = host if _is_address(host) else None
    for port in range(first, min(first + PORTS_TRIED, 65536)):
        try:
            sockets = bind_sockets(port, address)
            return sockets, sockets[0].getsockname()[1]
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise OnboardingError(told) from None
    raise OnboardingError(f"No port from {first} upward is free on {host}: name another one.")


def _is_address(host: str) -> bool:
    """Whether ``host`` names one address to listen on; any other name stands for this machine as a whole."""
    with suppress(ValueError):
        return bool(ipaddress.ip_address(host))
    return host == "localhost"


def _explain(known: Mapping[str, Any], sheets: Path | None) -> None:
    """Say on stderr what is listened on where others can reach it, or should, and where the trainees' sheets are."""
    host, (_, port), https_port = known["host"], known["mqtt"], known["https"].rpartition(":")[2]
    where = host if _is_address(host) else f"every address of this machine, which others reach as {host}"
    text = f"Listening on {where}, ports {port} (MQTT) and {https_port} (HTTPS): "
    if host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback):
        if sheets is None:
            return  # one learner's own
        text += "nobody else can reach it, so for a class give --host the name or address of this machine."
    else:
        text += "everyone on the network can reach this platform now. A device gets in with a certificate from a CA "
        text += "that was uploaded, a user with a password from platform/credentials.json."
    text += " Give --host this machine's name, or they can't verify it." * (host in running.EVERY_ADDRESS)
    text += f"\nThe trainees' logins, one sheet each, and all of them in all.html: {sheets}" if sheets else ""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
