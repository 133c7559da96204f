"""Fetching a server's certificate: from real TLS servers on loopback, and from all that is none."""

import dataclasses
import gc
import ipaddress
import itertools
import math
import socket
import ssl
import struct
import subprocess
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import Run, tool
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from platform_tools import TLS, Entity

from mciot_nb import OnboardingError, Workspace
from mciot_nb.connect.server_certificate import ServerCertificate, fetch_server_certificate
from mciot_nb.connect.tenant import Tenant, TenantSettings
from mciot_nb.pki.chain import read_certificates, to_pem
from mciot_nb.pki.keys import encrypted_pem, read_private_key
from mciot_nb.pki.keystore import read_store

Handler = Callable[[socket.socket], None]
HOSTS = ("localhost", "127.0.0.1")
IP = ipaddress.ip_address("127.0.0.1")


def signed(name: str, issuer: Entity | None = None, *, hosts: tuple[str, ...] = (), age: int = 1) -> Entity:
    """Make a server's certificate for ``hosts``, or a CA's without; it is valid for 30 days from ``age`` days ago."""
    key, begins = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC) - timedelta(days=age)
    subject = x509.Name.from_rfc4514_string(f"CN={name}")
    signer, signer_name = (issuer.key, issuer.certificate.subject) if issuer else (key, subject)
    builder = x509.CertificateBuilder(signer_name, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(begins).not_valid_after(begins + timedelta(days=30))
    usage = x509.KeyUsage(bool(hosts), False, False, False, False, not hosts, not hosts, False, False)
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(not hosts, None), True),
        (usage, True),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False),
    ]
    if hosts:
        names = [x509.IPAddress(IP) if host == str(IP) else x509.DNSName(host) for host in hosts]
        extensions.append((x509.SubjectAlternativeName(names), False))
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    certificate = builder.sign(signer, hashes.SHA256())
    return Entity(certificate, key, (certificate, *(issuer.chain if issuer else ())))


def key_file(folder: Path, entity: Entity, *shown: x509.Certificate) -> Path:
    """Write what a server is made of: its key, and what it shows behind its own certificate."""
    path = folder / f"{entity.certificate.serial_number:x}-{len(shown)}.pem"
    key = entity.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(key + to_pem([entity.certificate, *shown]))
    return path


@contextmanager
def served(handle: Handler) -> Iterator[int]:
    """Serve on a port of 127.0.0.1, a thread for each connection, which must see the client's end."""
    threads: list[threading.Thread] = []

    def serve_one(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            handle(connection)
            while connection.recv(4096):
                pass

    def serve() -> None:
        with suppress(OSError):  # closed: the test is over
            while True:
                threads.append(threading.Thread(target=serve_one, args=[server.accept()[0]], daemon=True))
                threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        listener = threading.Thread(target=serve, daemon=True)
        listener.start()
        yield int(server.getsockname()[1])
        server.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        listener.join(30)
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive(), "the client has left a connection open"


def tls(file: Path, version: ssl.TLSVersion | None = None, *, demand: Path | None = None) -> Handler:
    """Shake hands with the key and the chain of ``file``, and with ``demand``, ask for a certificate of that CA."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    if version:
        context.minimum_version = context.maximum_version = version
    if demand:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(demand)

    def handle(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secured:
            while secured.recv(4096):
                pass

    return handle


def sentence(error: "pytest.ExceptionInfo[OnboardingError]") -> str:
    text = str(error.value)
    assert text.endswith(".") and not set(text) & {"\n", "\ufffd"}
    return text


ROOT = signed("Test Root")
MIDDLE = signed("Test Middle", ROOT)
LEAF = signed("localhost", MIDDLE, hosts=HOSTS)


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """What a server with the whole chain is made of."""
    return key_file(tmp_path, LEAF, *LEAF.chain[1:])


@pytest.fixture
def trusting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the system trust the root."""
    path = tmp_path / "root.pem"
    path.write_bytes(to_pem([ROOT.certificate]))
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    return path


def shown_by_openssl(openssl: Run, port: int) -> tuple[x509.Certificate, ...]:
    connect = ["-connect", f"127.0.0.1:{port}", "-servername", "localhost"]
    printed = openssl("s_client", "-showcerts", *connect, check=False).stdout  # not 0 where it is refused
    return tuple(x509.load_pem_x509_certificates(printed.encode()))


@pytest.mark.parametrize("demands", [False, True])
@pytest.mark.parametrize("version", TLS)
def test_the_chain_is_the_one_that_openssl_shows(
    version: ssl.TLSVersion, demands: bool, whole: Path, tmp_path: Path, openssl: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root.pem"
    root.write_bytes(to_pem([ROOT.certificate]))
    with served(tls(whole, version, demand=root if demands else None)) as port:
        fetched = fetch_server_certificate("localhost", port)
        assert fetched.chain == shown_by_openssl(openssl, port) == LEAF.chain
        assert "unable to get" in fetched.problem or "self-signed" in fetched.problem.replace("self s", "self-s")
        assert fetched.proof == ""
        monkeypatch.setenv("SSL_CERT_FILE", str(root))
        trusted = fetch_server_certificate("localhost", port)
        assert trusted.chain == LEAF.chain
        if demands and version == ssl.TLSVersion.TLSv1_2:  # such a server ends it before the system has its say
            assert "handshake could not be finished" in trusted.problem
        else:
            assert trusted.problem == "" and trusted.verified().proof == "this system trusts it for this host"


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
@pytest.mark.parametrize("demand", [[], ["-Verify", "1"]])
def test_openssls_own_server(version: str, demand: list[str], whole: Path, trusting: Path) -> None:
    options = ["-accept", "127.0.0.1:0", "-cert", whole, "-key", whole, "-cert_chain", trusting]
    command = [tool("openssl"), "s_server", *map(str, options), version, *demand]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        assert server.stdout
        port = next(int(line.rsplit(b":", 1)[1]) for line in server.stdout if line.startswith(b"ACCEPT"))
        try:
            fetched = fetch_server_certificate("localhost", port)
        finally:
            server.kill()
    assert fetched.chain == (LEAF.certificate, ROOT.certificate)  # as it was told to: the middle one is missing
    assert fetched.issuer is None and "unable to get local issuer" in fetched.problem


@pytest.mark.parametrize("version", TLS)
@pytest.mark.parametrize(
    ("hosts", "age", "host", "problem"),
    [
        (HOSTS, 1, "localhost", ""),
        (HOSTS, 1, "127.0.0.1", ""),
        (("other.example",), 1, "localhost", "valid for 'localhost'"),
        (("localhost",), 1, "127.0.0.1", "valid for '127.0.0.1'"),
        (HOSTS, 40, "localhost", "expired"),
        (HOSTS, -10, "localhost", "not yet valid"),
    ],
)
def test_the_systems_verdict(
    version: ssl.TLSVersion,
    hosts: tuple[str, ...],
    age: int,
    host: str,
    problem: str,
    tmp_path: Path,
    trusting: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    leaf = signed("server", MIDDLE, hosts=hosts, age=age)
    with served(tls(key_file(tmp_path, leaf, MIDDLE.certificate), version)) as port:
        fetched = fetch_server_certificate(host, port)
        monkeypatch.delenv("SSL_CERT_FILE")
        assert fetch_server_certificate(host, port).problem, "the control: trusted because of that root alone"
    assert fetched.chain == (leaf.certificate, MIDDLE.certificate)
    if problem:
        assert problem in fetched.problem
        with pytest.raises(OnboardingError, match=problem) as error:
            fetched.verified()
        assert error.value.code == "SERVER_NOT_TRUSTED"
    else:
        assert fetched.problem == ""


OTHER_MIDDLE = signed("Test Middle", ROOT)
ALONE = signed("alone", hosts=HOSTS)


@pytest.mark.parametrize(
    ("entity", "more", "issuer"),
    [
        (LEAF, (MIDDLE, ROOT), MIDDLE),
        (LEAF, (ROOT, MIDDLE), MIDDLE),  # in the wrong order, but it is there
        (ALONE, (), ALONE),
        (ALONE, (ROOT,), ALONE),
        (LEAF, (), None),
        (LEAF, (ROOT,), None),
        (LEAF, (OTHER_MIDDLE, ROOT), None),  # its name, and another key
    ],
)
def test_whom_to_trust(entity: Entity, more: tuple[Entity, ...], issuer: Entity | None, tmp_path: Path) -> None:
    shown = [other.certificate for other in more]
    with served(tls(key_file(tmp_path, entity, *shown))) as port:
        fetched = fetch_server_certificate("localhost", port)
    assert fetched.chain == (entity.certificate, *shown)
    assert fetched.certificate == fetched.trust_anchor("server") == entity.certificate
    if issuer:
        assert fetched.issuer == fetched.trust_anchor("issuer") == issuer.certificate
    else:
        assert fetched.issuer is None
        with pytest.raises(OnboardingError, match=r"Test Middle") as error:
            fetched.trust_anchor("issuer")
        assert error.value.code == "NO_ISSUER" and sentence(error)
    for word in ("root", "", "Server"):
        with pytest.raises(OnboardingError, match="say server or issuer") as error:
            fetched.trust_anchor(word)
        assert error.value.code == "NO_CHOICE" and sentence(error)


def test_the_fingerprint_is_openssls(tmp_path: Path, openssl: Run) -> None:
    path = tmp_path / "leaf.pem"
    path.write_bytes(to_pem([LEAF.certificate]))
    known, sha1 = (
        openssl("x509", "-in", path, "-noout", "-fingerprint", option).stdout.strip().split("=")[1]
        for option in ("-sha256", "-sha1")
    )
    fetched = ServerCertificate("localhost", 8883, LEAF.chain, "unable to get local issuer certificate")
    assert fetched.fingerprint == known
    with pytest.raises(OnboardingError, match="unable to get local issuer certificate") as error:
        fetched.verified()
    assert error.value.code == "SERVER_NOT_TRUSTED" and known in sentence(error)
    bare = known.replace(":", "")
    for right in (known, known.lower(), bare, bare.lower(), known.replace(":", " "), f" {known}\n"):
        proven = fetched.verified(right)
        assert "its operator" in proven.proof and proven.chain == fetched.chain
    of_issuer = MIDDLE.certificate.fingerprint(hashes.SHA256()).hex(":")
    for wrong in (of_issuer, bare[::-1], f"{bare[:-1]}{(int(bare[-1], 16) + 1) % 16:x}"):
        for problem in ("", "expired"):  # who gives a fingerprint means it, whatever the system trusts
            with pytest.raises(OnboardingError, match=r"another certificate than .*its operator") as error:
                ServerCertificate("localhost", 8883, LEAF.chain, problem).verified(wrong)
            assert error.value.code == "SERVER_DIFFERS" and known in sentence(error)
    for rubbish in (sha1, bare[:-1], f"{bare}0", "rubbish", " ", f"0x{bare}", bare.replace(bare[0], "٣"), "g" * 64):
        with pytest.raises(OnboardingError, match="64 hexadecimal digits") as error:
            fetched.verified(rubbish)
        assert error.value.code == "BAD_FINGERPRINT" and sentence(error)


def test_somebody_in_between_who_lets_the_second_look_through(whole: Path, tmp_path: Path, trusting: Path) -> None:
    own = tls(key_file(tmp_path, signed("between", hosts=HOSTS)))

    def pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(4096):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    with served(tls(whole)) as real:

        def between(first: int) -> Handler:
            counter = itertools.count()

            def handle(connection: socket.socket) -> None:
                if next(counter) < first:
                    return own(connection)
                with socket.create_connection(("127.0.0.1", real)) as onward:
                    back = threading.Thread(target=pump, args=[onward, connection], daemon=True)
                    back.start()
                    pump(connection, onward)
                    back.join(30)

            return handle

        with served(between(1)) as port:
            fetched = fetch_server_certificate("localhost", port)
        with served(between(0)) as port:  # the control: who passes everything through does no harm
            assert fetch_server_certificate("localhost", port).problem == ""
    assert fetched.certificate != LEAF.certificate and "another certificate" in fetched.problem
    with pytest.raises(OnboardingError) as error:
        fetched.verified()
    assert error.value.code == "SERVER_NOT_TRUSTED"


@pytest.mark.parametrize(
    ("host", "port"),
    [
        *(("127.0.0.1", None), ("localhost", 0), ("localhost", 99999), ("localhost", -1), ("no-such-host.invalid", 1)),
        *(("local host", 1), ("x" * 300, 1), ("a..b", 1), ("https://localhost", 1), ("[::1]", 1), ("", 1)),
    ],
)
def test_where_nothing_answers(host: str, port: int | None) -> None:
    if port is None:
        with socket.create_server(("127.0.0.1", 0)) as nobody:
            port = int(nobody.getsockname()[1])
    with pytest.raises(OnboardingError, match="Nothing answers at") as error:
        fetch_server_certificate(host, port)
    assert error.value.code == "NOT_REACHED" and f"{host}:{port}" in sentence(error)
    assert error.value.__suppress_context__


def drip(connection: socket.socket) -> None:
    for byte in b"\x16\x03\x03\x40\x00\x02" + bytes(1000):  # a long handshake message begins, and never ends
        connection.send(bytes([byte]))
        time.sleep(0.3)


def says(data: bytes, *, waits: bool = False) -> Handler:
    """Hear the client's first words, answer, and end the connection, or wait for what comes."""

    def handle(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(data)
        if not waits:
            connection.shutdown(socket.SHUT_WR)

    return handle


@pytest.mark.parametrize(
    ("handle", "code"),
    [
        pytest.param(lambda connection: None, "NO_ANSWER", id="silent"),
        pytest.param(drip, "NO_ANSWER", id="drips"),
        pytest.param(says(b"\x16\x03\x03\x00\x40\x02", waits=True), "NO_ANSWER", id="begins"),
        pytest.param(lambda connection: connection.close(), "NO_TLS", id="closes"),
        pytest.param(says(b""), "NO_TLS", id="closes-later"),
        pytest.param(says(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"), "NO_TLS", id="HTTP"),
        pytest.param(says(b"\x20\x02\x00\x05"), "NO_TLS", id="MQTT"),
        pytest.param(says(b"\x20\x02\x00\x05\xe0\x00", waits=True), "NO_TLS", id="MQTT-stays"),
        pytest.param(says(bytes(range(256)) * 20), "NO_TLS", id="garbage"),
        pytest.param(says(b"\x15\x03\x03\x00\x02\x02\x28"), "NO_TLS", id="alert"),
    ],
)
def test_what_is_no_tls_server(handle: Handler, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mciot_nb.connect.server_certificate.TIMEOUT", 1.0)
    caught: list[BaseException] = []

    def fetch() -> None:
        try:
            fetch_server_certificate("127.0.0.1", port)
        except BaseException as error:
            caught.append(error)

    with served(handle) as port:
        thread = threading.Thread(target=fetch, daemon=True)
        thread.start()
        thread.join(60)
        assert not thread.is_alive(), "it never ends"
    with pytest.raises(OnboardingError, match=f"127.0.0.1:{port}") as error:
        raise caught[0]
    assert error.value.code == code and sentence(error)


def hello_with(*shown: bytes) -> bytes:
    """Give the first words of a TLS 1.2 server that shows certificates, whatever they are."""

    def message(kind: int, body: bytes) -> bytes:
        return bytes([22, 3, 3]) + struct.pack(">HI", len(body) + 4, kind << 24 | len(body)) + body

    def sized(body: bytes) -> bytes:
        return struct.pack(">I", len(body))[1:] + body

    hello = (
        b"\x03\x03" + bytes(32) + b"\x00" + b"\xc0\x2b\x00" + b"\x00\x05\xff\x01\x00\x01\x00"
    )  # renegotiation_info, RFC 5746
    return message(2, hello) + message(11, sized(b"".join(map(sized, shown))))


def test_a_server_that_shows_its_certificate_and_no_more() -> None:
    with served(says(hello_with(LEAF.certificate.public_bytes(Encoding.DER)))) as port:  # the control of the next
        assert fetch_server_certificate("localhost", port).chain == (LEAF.certificate,)


@pytest.mark.parametrize("kind", ["rubbish", "cut", "version 8"])
def test_a_certificate_that_can_not_be_read(kind: str) -> None:
    der = LEAF.certificate.public_bytes(Encoding.DER)
    version = b"\xa0\x03\x02\x01\x02"
    assert der.count(version) == 1
    odd = {"rubbish": b"rubbish", "cut": der[:-3], "version 8": der.replace(version, version[:-1] + b"\x07")}[kind]
    with served(says(hello_with(odd))) as port, pytest.raises(OnboardingError) as error:
        fetch_server_certificate("localhost", port)
    assert sentence(error)


# Primes of which all factors of P - 1 and Q - 1 are small, and but for 2 no two are the same.
P = int(
    "ef59bbbfce06cf66fc43bb554a77c4c4c63ccde49573c85187192b2b7ebee0354e23f800ff3ece41f97cb2b720e4e7ddaa7b"
    "ca9b23efd0ac753b4d4caf8fc04b42a5a492019e6daadf9e20c4e92c8d04f5d3ccc05cfcf5339c96ae8e5272b389d855c19c"
    "65eba360ff71fff3756ae5986907fe9d18b31d5c6d5a42edd74ce48b",
    16,
)
Q = int(
    "e88e978a23878c354fd764bf27461eea831632008ecf0d7e2f2eeb73ca663a684554964ce6bbaa7c8995ec77620946e052b5"
    "c2a22ae1332f7e360614af00cab5f6bc918c03916654daf81a7965c027648a46d37ae836c580c20c053a69cc99e3e09852ee"
    "c6c6a076f37bef049b06f62ca8e8d6806091f0aed8f37abdc98881bb",
    16,
)
FACTORS = {prime: [factor for factor in range(3, 1 << 16, 2) if (prime - 1) % factor == 0] for prime in (P, Q)}


def exponent(base: int, power: int) -> int | None:
    """Find the odd e with ``base ** e == power`` modulo P * Q: Pohlig and Hellman's way, which small factors allow."""
    e, modulus = 1, 2
    for prime in (P, Q):
        if any(pow(number, (prime - 1) // 2, prime) == 1 for number in (base, power)):
            return None
        for factor in (
            f for f in range(3, 1 << 16, 2) if (prime - 1) % f == 0 and all(f % d for d in range(3, 256, 2))
        ):
            one, other = (pow(number, (prime - 1) // factor, prime) for number in (base, power))
            step, at, found = pow(one, 256, prime), 1, {}
            for high in range(257):
                found[at], at = high * 256, at * step % prime
            at = other
            for low in range(256):  # base ** (256 * high) == power * base ** low
                if at in found:
                    e += modulus * ((found[at] - low - e) * pow(modulus, -1, factor) % factor)
                    break
                at = at * one % prime
            modulus *= factor
    return e


def issuer_for_a_signature() -> tuple[Entity, x509.Certificate, x509.Certificate]:
    """Give a server, its RSA CA, and what bears that CA's name, fits the server's signature, and has our own key."""
    ca_key, now = rsa.generate_private_key(65537, 2048), datetime.now(UTC)
    name = x509.Name.from_rfc4514_string("CN=RSA CA")

    def certificate(subject: x509.Name, public: Any, signer: rsa.RSAPrivateKey, ca: bool) -> x509.Certificate:
        builder = x509.CertificateBuilder(name, subject, public, x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(1)).not_valid_after(now + timedelta(1))
        return builder.add_extension(x509.BasicConstraints(ca, None), True).sign(signer, hashes.SHA256())

    key, numbers = ec.generate_private_key(ec.SECP256R1()), ca_key.public_key().public_numbers()
    while True:
        leaf = certificate(x509.Name.from_rfc4514_string("CN=localhost"), key.public_key(), ca_key, False)
        signature = int.from_bytes(leaf.signature, "big")
        padded = pow(signature, numbers.e, numbers.n)
        e = exponent(signature, padded) if max(signature, padded) < P * Q else None
        if e and math.gcd(e, (P - 1) * (Q - 1)) == 1:
            break
    d = pow(e, -1, (P - 1) * (Q - 1))
    public = rsa.RSAPublicNumbers(e, P * Q)
    own = rsa.RSAPrivateNumbers(P, Q, d, d % (P - 1), d % (Q - 1), pow(Q, -1, P), public).private_key()
    forged, real = certificate(name, own.public_key(), own, True), certificate(name, ca_key.public_key(), ca_key, True)
    return Entity(leaf, key, (leaf, real)), real, forged


def test_an_issuer_that_was_made_for_the_signature(tmp_path: Path) -> None:
    """A fingerprint proves the server's certificate alone: an RSA key can be made to fit a signature that is known."""
    server, real, forged = issuer_for_a_signature()
    server.certificate.verify_directly_issued_by(forged)  # as far as signatures go
    fingerprint = server.certificate.fingerprint(hashes.SHA256()).hex()
    with served(tls(key_file(tmp_path, server, real))) as port:  # the control
        assert fetch_server_certificate("localhost", port).verified(fingerprint).trust_anchor("issuer") == real
    shown = (certificate.public_bytes(Encoding.DER) for certificate in (server.certificate, forged))
    with served(says(hello_with(*shown))) as port, pytest.raises(OnboardingError):
        fetch_server_certificate("localhost", port).verified(fingerprint).trust_anchor("issuer")


def test_nothing_is_left_open(whole: Path) -> None:
    """That the server sees the end is in `served`, of every test here; this is the control, and the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with served(tls(whole)) as port:
            fetch_server_certificate("localhost", port)
        with served(says(b"")) as port, suppress(OnboardingError):
            fetch_server_certificate("localhost", port)
        gc.collect()
    assert not [warning for warning in caught if warning.category is ResourceWarning]
    ended = threading.Event()

    def wait(connection: socket.socket) -> None:
        while connection.recv(1):
            pass
        ended.set()

    with served(wait) as port, socket.create_connection(("127.0.0.1", port)):
        assert not ended.wait(0.3)


# --- the workspace ---------------------------------------------------------------------------------------------------


def test_the_local_platform_is_known_by_its_file(quick_workspace: Workspace) -> None:
    quick_workspace.catch_up("chain")
    platform, kept = quick_workspace.platform(), quick_workspace.device_file("serverCertificate.pem")
    assert not kept.exists()
    fetched = quick_workspace.fetch_server_certificate()
    assert [fetched.certificate] == read_certificates(platform.server_certificate) == read_certificates(kept)
    assert "the platform's own file" in fetched.proof and fetched.problem
    before = kept.read_bytes()
    platform.server_certificate.write_bytes(to_pem([ALONE.certificate]))
    with pytest.raises(OnboardingError, match="the platform's own file") as error:
        quick_workspace.fetch_server_certificate()
    assert error.value.code == "SERVER_DIFFERS" and kept.read_bytes() == before and sentence(error)
    with pytest.raises(OnboardingError) as error:
        quick_workspace.create_truststore("jks")
    assert error.value.code == "SERVER_DIFFERS"
    assert not quick_workspace.device_file("deviceTruststore.jks").exists()
    platform.server_certificate.write_bytes(before)
    for kind in ("pkcs12", "jks"):
        for trust in ("server", "issuer", ""):  # it is its own issuer
            store = read_store(quick_workspace.create_truststore(kind, trust), quick_workspace.passphrase)
            assert store.type == kind.upper() and store.trusted == {"servercertificate": fetched.certificate}
        with pytest.raises(OnboardingError, match="no choice 'root'"):
            quick_workspace.create_truststore(kind, "root")


def test_a_real_tenant_needs_a_fingerprint_once(quick_workspace: Workspace, whole: Path, tmp_path: Path) -> None:
    quick_workspace.catch_up("chain")
    kept, changed = quick_workspace.device_file("serverCertificate.pem"), signed("localhost", MIDDLE, hosts=HOSTS)
    servers = [tls(whole)]
    with served(lambda connection: servers[-1](connection)) as port:
        real = TenantSettings("https://localhost", "t1", "u", "localhost", port, local=False)
        quick_workspace.choose_tenant(real)
        fingerprint = LEAF.certificate.fingerprint(hashes.SHA256()).hex(":").upper()
        with pytest.raises(OnboardingError, match=fingerprint) as error:
            quick_workspace.fetch_server_certificate()
        assert error.value.code == "SERVER_NOT_TRUSTED" and not kept.exists()
        with pytest.raises(OnboardingError) as error:
            quick_workspace.fetch_server_certificate("00" * 32)
        assert error.value.code == "SERVER_DIFFERS" and not kept.exists()
        assert "operator" in quick_workspace.fetch_server_certificate(fingerprint).proof
        assert read_certificates(kept) == [LEAF.certificate]
        assert "you, once before" in quick_workspace.fetch_server_certificate().proof
        for trust, wanted in [("server", LEAF), ("", LEAF), ("issuer", MIDDLE), ("", MIDDLE), ("server", LEAF)]:
            for kind in ("jks", "pkcs12"):  # without a word, what was chosen before stays
                store = read_store(quick_workspace.create_truststore(kind, trust), quick_workspace.passphrase)
                assert store.trusted == {"servercertificate": wanted.certificate}, (trust, kind)
        before = kept.read_bytes()
        servers.append(tls(key_file(tmp_path, changed, *changed.chain[1:])))
        for again in (
            quick_workspace.fetch_server_certificate,
            lambda: quick_workspace.create_truststore(trust="issuer"),
        ):
            with pytest.raises(OnboardingError) as error:
                again()
            assert error.value.code == "SERVER_NOT_TRUSTED" and kept.read_bytes() == before
        quick_workspace.fetch_server_certificate(changed.certificate.fingerprint(hashes.SHA256()).hex())
        assert read_certificates(kept) == [changed.certificate]
        assert quick_workspace.fetch_server_certificate().certificate == changed.certificate


def test_a_damaged_file_does_not_stand_in_the_way(quick_workspace: Workspace, whole: Path) -> None:
    quick_workspace.catch_up("chain")
    kept = quick_workspace.device_file("serverCertificate.pem")
    kept.write_bytes(b"damaged")
    with served(tls(whole)) as port:
        quick_workspace.choose_tenant(TenantSettings("https://localhost", "t1", "u", "localhost", port, local=False))
        quick_workspace.fetch_server_certificate(LEAF.certificate.fingerprint(hashes.SHA256()).hex())
    assert read_certificates(kept) == [LEAF.certificate]


def test_the_local_platforms_certificate_is_not_a_real_tenants(quick_workspace: Workspace, whole: Path) -> None:
    quick_workspace.catch_up("chain")
    local = quick_workspace.fetch_server_certificate().certificate
    with served(tls(whole)) as port:
        quick_workspace.choose_tenant(TenantSettings("https://localhost", "t1", "u", "localhost", port, local=False))
        with pytest.raises(OnboardingError) as error:
            quick_workspace.create_truststore("jks")
    assert error.value.code == "SERVER_NOT_TRUSTED"
    assert read_certificates(quick_workspace.device_file("serverCertificate.pem")) == [local]


def test_a_renewed_platform_is_followed(quick_workspace: Workspace) -> None:
    """The local platform renews its self-signed certificate with the same key, so the old one "signed" the new one."""
    quick_workspace.catch_up("stores")
    platform = quick_workspace.platform()
    before = read_certificates(platform.server_certificate)
    platform.stop()
    platform.server_certificate.unlink()
    quick_workspace.catch_up("stores")
    renewed = read_certificates(quick_workspace.platform().server_certificate)
    assert renewed != before and renewed[0].public_key() == before[0].public_key()
    for kind in ("pkcs12", "jks"):
        store = read_store(quick_workspace.device_file(f"deviceTruststore.{kind}"), quick_workspace.passphrase)
        assert list(store.trusted.values()) == renewed


def test_a_proof_is_for_its_own_server_and_what_is_there_needs_no_network(
    quick_workspace: Workspace, whole: Path, trusting: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick_workspace.catch_up("chain")
    with served(tls(whole)) as port:
        real = TenantSettings("https://localhost", "t1", "u", "localhost", port, local=False)
        quick_workspace.choose_tenant(real)
        tenant = Tenant("https://localhost", "t1", "u", "secret", mqtt=("localhost", port))
        assert "this system trusts it" in quick_workspace.fetch_server_certificate().proof
        assert quick_workspace.trusted_file(tenant) is None, "the system knows it by itself"
        quick_workspace.create_truststore("jks", "issuer")
        quick_workspace.catch_up("stores")
        stores = [quick_workspace.device_file(f"deviceTruststore.{kind}") for kind in ("pkcs12", "jks")]
        for path in stores:  # the choice for one form is the choice for the other
            assert list(read_store(path, quick_workspace.passphrase).trusted.values()) == [MIDDLE.certificate]
        monkeypatch.delenv("SSL_CERT_FILE")
        with pytest.raises(OnboardingError) as error:  # the file alone proves nothing: nobody gave its fingerprint
            quick_workspace.fetch_server_certificate()
        assert error.value.code == "SERVER_NOT_TRUSTED"
        quick_workspace.fetch_server_certificate(LEAF.certificate.fingerprint(hashes.SHA256()).hex())
        assert quick_workspace.trusted_file(tenant) == quick_workspace.device_file("serverCertificate.pem")
        other = dataclasses.replace(tenant, mqtt=("127.0.0.1", port))
        assert quick_workspace.trusted_file(other) is None, "it was given for another address"
    before = [path.read_bytes() for path in stores]
    quick_workspace.catch_up("stores")  # nobody answers any more
    assert [path.read_bytes() for path in stores] == before
    with pytest.raises(OnboardingError, match="Nothing answers"):
        quick_workspace.create_truststore("jks", "server")


def test_what_can_not_be_made_is_said_before_anything_moves(quick_workspace: Workspace) -> None:
    quick_workspace.catch_up("stores")
    folder, key = quick_workspace.device_file(""), quick_workspace.device_file("deviceKey.pem")
    for make in (quick_workspace.create_keystore, quick_workspace.create_truststore):
        with pytest.raises(OnboardingError, match="no store of kind 'pem'"):
            make("pem")
    # A workspace from before new passphrases had to be ASCII.
    key.write_bytes(encrypted_pem(read_private_key(key, quick_workspace.passphrase), "Schlüssel-123".encode()))
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MCIOT_PASSPHRASE", "Schlüssel-123")
        for make in (quick_workspace.create_keystore, quick_workspace.create_truststore):
            with pytest.raises(OnboardingError, match="start_over"):
                make("jks")
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
