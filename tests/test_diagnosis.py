"""What is said before a device connects, held against what the platform says, the log, and openssl and keytool."""

import errno
import json
import os
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import platform_tools as tools
import pytest
from ca_tools import KEY, request
from chain_shapes import SHAPES, Link, issue
from conftest import PASSPHRASE, ROOT, examples, run, tool
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import example, given
from hypothesis import strategies as st
from OpenSSL import SSL

from mciot_nb import CertificateAuthority, Device, OnboardingError, Workspace, diagnose, diagnose_device, explain
from mciot_nb import __main__ as command
from mciot_nb.connect import diagnosis as module
from mciot_nb.connect.tenant import Tenant
from mciot_nb.connect.trusted_certificates import TrustedCertificate
from mciot_nb.errors import WARNING, Diagnosis, Finding
from mciot_nb.failures import CASES, FailureCase
from mciot_nb.pki.chain import PROFILES, fingerprint, to_pem
from mciot_nb.pki.keys import encrypted_pem
from mciot_nb.pki.keystore import write_keystore
from mciot_nb.secret import Secret
from mciot_platform.storage import LoggedAttempt, Storage, TrustAnchor
from mciot_platform.tls import ServerIdentity, TlsContexts, TlsStream
from mciot_platform.trust import ConnectionRejected, Trust

GUIDE, CURRENT = "guide-2021", "current"

# Every case of the laboratory, on a real platform ---------------------------------------------------------------------

PAIRS = [(GUIDE, tools.TLS[0]), (CURRENT, tools.TLS[1])]
OTHER_PAIRS = [*zip((CURRENT, GUIDE), tools.TLS, strict=True)]
#: What can't be seen beforehand: another client with the same name; and what only an upload is refused for.
NOT_SEEN = {"client-id-twice": "OK", "upload-device": "UNKNOWN_CA"}


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Workspace]]:
    """Return what gives the workspace whose platform has a profile."""
    made: dict[str, Workspace] = {}

    def world(profile: str) -> Workspace:
        if profile not in made:
            made[profile] = Workspace(tmp_path_factory.mktemp("world") / "workspace")
            made[profile].use_profile(profile)
        return made[profile]

    yield world
    for workspace in made.values():
        tools.check_no_fault(workspace.platform())
        workspace.platform().stop()


def predicted(case: FailureCase, tls: ssl.TLSVersion) -> tuple[str, Diagnosis | None]:
    """Return what is said before a case's device connects: of the device, or of its folder where that makes none."""
    with_files = {"client_id": case.client_id, "passphrase": case.passphrase}
    try:
        try:
            found = diagnose_device(case.device(tls), case.tenant)
        except OnboardingError as error:
            if error.code.startswith("HTTP"):
                raise
            found = diagnose_device(case.device_folder, case.tenant, **with_files)
    except OnboardingError as error:
        return error.code, None
    return found.code, found


#: Each case in the profiles in which it is one, where several on both versions of TLS.
ALL = [
    pytest.param(
        name, *pair, marks=[pytest.mark.slow] if pair in OTHER_PAIRS and len(row["profiles"].split()) > 1 else []
    )
    for name, row in CASES.items()
    for pair in (*PAIRS, *OTHER_PAIRS)
    if pair[0] in row["profiles"]
]


@pytest.mark.parametrize(("name", "profile", "tls"), ALL)
def test_what_is_predicted_is_what_the_platform_says(
    worlds: Callable[[str], Workspace], name: str, profile: str, tls: ssl.TLSVersion
) -> None:
    row, case = CASES[name], FailureCase(worlds(profile), name)
    try:
        code, found = predicted(case, tls)
        assert code == NOT_SEEN.get(name, row["code"]), found
        assert not found or len(found.refusals) == (code != "OK"), "a false second finding"
        assert not found or all(one.why and one.fix for one in found.findings)
        refusal, record = case.attempt(tls)
        assert (refusal is None) == (row["client"] in ("", "OK")), refusal
        if refusal and row["client"] != "HTTP_422" and code != "OK":
            # a learner who sees only the client's side finds it among the causes
            assert row["code"] in [one.code for one in explain(refusal).findings], refusal
        if record and row["log"] and not code.startswith(("SERVER", "HTTP")):
            assert record["code"] == ("CONNECTED" if code == "OK" else code)
        case.remedy()
        assert predicted(case, tls) == ("OK", Diagnosis()), "It is put right, and more is said."
        assert case.attempt(tls)[0] is None
    finally:
        case.leave()


def test_a_case_is_predicted_for_its_files_too(worlds: Callable[[str], Workspace]) -> None:
    case = FailureCase(worlds(GUIDE), "three-certificates")
    with_files: dict[str, Any] = {"client_id": case.client_id, "passphrase": case.passphrase}
    whole, other = case.device_folder, diagnose_device(case.device_folder, case.tenant, **with_files)
    assert other.code == "CHAIN_TOO_LONG" and other.findings[0].certificate
    one_by_one = [whole / "deviceCertChain.pem", whole / "deviceKey.pem"]
    assert diagnose_device(one_by_one, case.tenant, **with_files) == other
    case.leave()


def test_what_the_tenant_alone_knows(worlds: Callable[[str], Workspace], tmp_path: Path) -> None:
    workspace = worlds(CURRENT)
    case = FailureCase(workspace, "not-registered")
    tenant, trusted = case.tenant, case.tenant.trusted_certificates
    device, ca = case.device(), case.device().chain[-1]
    assert diagnose_device(device, tenant).code == "NOT_REGISTERED"
    trusted.update(ca, auto_registration=True)
    with device:
        pass  # it sends nothing, so no inventory has it, and yet it has a user
    trusted.update(ca, auto_registration=False)
    assert diagnose_device(device, tenant) == Diagnosis() and tenant.devices.find(device.client_id) is None
    with device:
        device.create()  # so that the case can take it out again
    trusted.revoke(device.chain[0])
    (found,) = diagnose_device(device, tenant).findings
    assert (found.code, found.severity, found.certificate) == ("REVOKED", WARNING, device.chain[0])
    with device:
        pass  # for the list is not checked
    trusted.check_revocations()
    assert diagnose_device(device, tenant).code == "REVOKED"
    trusted.check_revocations(False)
    case.leave()


def test_a_ca_in_another_tenant_of_the_platform(tmp_path: Path) -> None:
    with tools.started(tmp_path, CURRENT, tenants=2) as platform:
        own, other = platform.tenants
        ca = tools.make("CA", ca=True)
        files = tools.write_chain(entity := tools.make("dev", ca), tmp_path / "device.pem")
        assert diagnose_device(files, own).code == "UNKNOWN_CA"
        other.trusted_certificates.upload(ca.certificate)
        (found,) = diagnose_device(files, own).findings
        assert (found.code, found.severity) == ("OTHER_TENANT", WARNING) and other.tenant_id in found.sentence
        with tools.device(platform, tmp_path, entity) as (_, seen):
            assert seen.connack == 0
        assert platform.log().iloc[-1]["tenant"] == other.tenant_id
        assert diagnose_device(files, other) == Diagnosis()
        other.trusted_certificates.delete(ca.certificate)
        assert diagnose_device(files, own).code == "CA_DELETED"
        own.trusted_certificates.upload(ca.certificate)
        assert diagnose_device(files, own) == Diagnosis()


# Random damage, and the platform's judge in this process --------------------------------------------------------------

OLD, EARLY = {"begins": -9 * tools.DAY, "ends": -tools.DAY}, {"begins": tools.DAY}
ROOT_CA, SERVER = tools.make("Root", ca=True), tools.make("localhost", hosts=["localhost"])
MIDDLE = tools.make("Middle", ROOT_CA, ca=True)
#: What may stand in a chain, or be uploaded, beside what is right.
LINKS = {
    "root": ROOT_CA,
    "middle": MIDDLE,
    "namesake": tools.make("Root", ca=True),
    "stranger": tools.make("Stranger", ca=True),
    "no CA": tools.make("Middle", ROOT_CA),
    "old middle": tools.make("Middle", ROOT_CA, ca=True, **OLD),
    "old root": tools.make("Root", ca=True, **OLD),
    "bare": tools.make("Middle", ROOT_CA, bare=True),
}
DEVICES = {
    "good": tools.make("dev", MIDDLE),
    "of the root": tools.make("dev", ROOT_CA),
    "expired": tools.make("dev", MIDDLE, **OLD),
    "early": tools.make("dev", ROOT_CA, **EARLY),
    "renamed": tools.make("other", MIDDLE),
    "colon": tools.make("de:v", MIDDLE),
    "re-signed": tools.make("dev", LINKS["namesake"]),
    "self-signed": tools.make("dev"),
    "CA": tools.make("dev", ca=True),
    "of no CA": tools.make("dev", LINKS["no CA"]),
    "of an old root": tools.make("dev", LINKS["old root"]),
    "for servers": tools.make("dev", MIDDLE, extra=[x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])]),
    "bare": tools.make("dev", MIDDLE, bare=True),
    "an uploaded CA": MIDDLE,
}
STATES = ("ENABLED", "ENABLED", "DISABLED", "DELETED", "elsewhere")
CLIENT_IDS = ["", "d:dev", "dev:template", "other", "de:v", "DEV", "Middle"]
ONCE = "passphrase-of-a-test"


@st.composite
def damaged(draw: st.DrawFn) -> dict[str, Any]:
    """A set-up that is good but for some damage: to the chain, its files, the name, or what the tenant trusts."""
    device = draw(st.sampled_from(["good"] * 6 + [*DEVICES]))
    chain: list[str] = draw(st.sampled_from([["middle"], ["middle", "root"], ["root"], []]))
    uploaded = {draw(st.sampled_from(["middle", "root"])): "ENABLED"}
    chain = list(chain)
    for _ in range(draw(st.integers(0, 2))):
        what = draw(st.sampled_from(["drop", "duplicate", "swap", "insert", "upload"]))
        if what == "insert":
            chain.insert(draw(st.integers(0, len(chain))), draw(st.sampled_from([*LINKS])))
        elif what == "upload":
            uploaded[draw(st.sampled_from(["root", "middle", "namesake", "no CA", "old root"]))] = draw(
                st.sampled_from(STATES)
            )
        elif chain:
            at = draw(st.integers(0, len(chain) - 1))
            if what == "swap":
                chain[at], chain[0] = chain[0], chain[at]
            else:
                chain[at : at + 1] = [chain[at]] * (2 if what == "duplicate" else 0)
    return {
        "device": device,
        "chain": chain,
        "uploaded": uploaded,
        "first": draw(st.integers(0, 1 if draw(st.booleans()) and draw(st.booleans()) else 0)),
        "client_id": draw(
            st.sampled_from(["dev"] * 6 + ["", "d:dev", "dev:template", "other", "de:v", "DEV", "Middle"])
        ),
        "key": draw(st.sampled_from(["own"] * 8 + ["another"])),
        "cut": draw(st.sampled_from([None] * 8 + [1, 200, 700, 900, 1100])),
        "auto": draw(st.sampled_from([True, True, True, False])),
        "registered": draw(st.booleans()),
        "revoked": draw(st.sampled_from([None] * 6 + ["dev", "ca"])),
        "checked": draw(st.booleans()),
        "profile": draw(st.sampled_from([GUIDE, CURRENT])),
    }


#: Two faults at once: OpenSSL stops at the file.
CUT_WITH_ANOTHER_KEY: dict[str, Any] = {
    "device": "good",
    "chain": ["middle"],
    "uploaded": {"middle": "ENABLED"},
    "first": 0,
    "client_id": "dev",
    "key": "another",
    "cut": 700,
    "auto": True,
    "registered": False,
    "revoked": None,
    "checked": False,
    "profile": "guide-2021",
}
#: OpenSSL's path goes on to the issuers of one that is trusted itself.
UPLOADED_ITSELF = {"device": "an uploaded CA", "chain": ["root"], "uploaded": {"middle": "ENABLED"}, "first": 0}
UPLOADED_ITSELF |= {"client_id": "Middle", "key": "own", "cut": None, "auto": True, "registered": False}
UPLOADED_ITSELF |= {"revoked": None, "checked": False, "profile": CURRENT}


def write_setup(folder: Path, case: dict[str, Any]) -> list[x509.Certificate]:
    entity = DEVICES[case["device"]]
    chain = [LINKS[link].certificate for link in case["chain"]]
    chain.insert(min(case["first"], len(chain)), entity.certificate)
    pem = to_pem(chain)
    (folder / "deviceCertChain.pem").write_bytes(pem if case["cut"] is None else pem[: case["cut"]])
    key = entity.key if case["key"] == "own" else ROOT_CA.key
    (folder / "deviceKey.pem").write_bytes(encrypted_pem(key, ONCE.encode()))
    return chain


def fill(storage: Storage, case: dict[str, Any]) -> None:
    for link, state in case["uploaded"].items():
        certificate = LINKS[link].certificate
        given = {"fingerprint": fingerprint(certificate), "name": link, "auto_registration": case["auto"]}
        if state == "DELETED":
            given["deleted"] = "2026-01-01T00:00:00.000Z"
        elif state == "DISABLED":
            given["status"] = state
        tenant = "t1002" if state == "elsewhere" else "t1001"
        storage.put_trusted_certificate(TrustAnchor(certificate=certificate, tenant=tenant, **given))
    if case["registered"]:
        storage.register("t1001", "dev")
    serials = {"dev": DEVICES[case["device"]], "ca": MIDDLE}
    if case["revoked"]:
        revoked = serials[case["revoked"]].certificate.serial_number
        storage.revoke("t1001", [(revoked, datetime.now(UTC))], replace=True)
    if case["checked"]:
        option = {"category": "configuration", "key": "crl.offline.check.enabled", "value": "true"}
        storage.insert("options", tenant="t1001", **option)


def tenant_of(storage: Storage, profile: str) -> Any:
    """Return what a tenant says over REST, without a network."""
    known = storage.trusted_certificates()
    listed = [one for one in known if one.tenant == "t1001" and not one.deleted]
    day = datetime.now(UTC)
    trusted = SimpleNamespace(
        list=lambda: [
            TrustedCertificate(
                one.fingerprint, one.name, one.status, one.auto_registration, "", "", day, certificate=one.certificate
            )
            for one in listed
        ],
        revocations=lambda: storage.revocations("t1001"),
        checks_revocations=lambda: bool(storage.options("t1001")),
    )
    devices = SimpleNamespace(is_registered=lambda name: bool(getattr(storage.device("t1001", name), "registered", "")))
    tenant = SimpleNamespace(tenant_id="t1001", profile=PROFILES[profile], is_local=True, trusted=None)
    tenant.trusted_certificates, tenant.devices, tenant.now = trusted, devices, tenant
    tenant.unlisted = lambda: [one for one in known if one not in listed]
    return tenant


def verdict(storage: Storage, profile: str, folder: Path, client_id: str) -> str:
    """Return the code of the platform's own verdict: a handshake in memory, and then what it makes of CONNECT."""
    trust, identity = Trust(storage, PROFILES[profile]), ServerIdentity(SERVER.key, SERVER.certificate)
    client = ssl.create_default_context(cadata=SERVER.pem)
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        client.load_cert_chain(folder / "deviceCertChain.pem", folder / "deviceKey.pem", ONCE)
    except ssl.SSLError:
        return "THE CLIENT"
    stream = TlsStream.__new__(TlsStream)
    context, stream.anchors = TlsContexts(identity, storage).current()
    stream.failed, stream._tls = None, SSL.Connection(context, None)
    stream._tls.set_app_data(stream)
    stream._tls.set_accept_state()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    end = client.wrap_bio(incoming, outgoing, server_hostname="localhost")
    try:
        for _ in range(4):
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
            if outgoing.pending:
                stream._tls.bio_write(outgoing.read())
            with suppress(SSL.WantReadError):
                stream._tls.do_handshake()
            with suppress(SSL.WantReadError):
                incoming.write(stream._tls.bio_read(1 << 16))
        trust.authorize(stream.presented, LoggedAttempt("", client_id=client_id))
    except SSL.Error:
        assert stream.failed
        return trust.explain_failed_handshake(stream.path, stream.failed).code
    except ConnectionRejected as refusal:
        return refusal.code
    finally:
        stream._tls.set_app_data(None)
    return "OK"


@given(case=damaged())
@examples(2000)
@example(case=UPLOADED_ITSELF)
def test_random_damage_is_judged_as_the_platform_judges_it(
    case: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("damage")
    write_setup(folder, case)
    storage = Storage(Path(":memory:"))
    try:
        fill(storage, case)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "_server_findings", lambda *_: [])
            patch.setattr(module, "_clock", lambda _, now: (now, []))
            tenant = tenant_of(storage, case["profile"])
            found = diagnose_device(folder, tenant, client_id=case["client_id"], passphrase=ONCE)
        said = verdict(storage, case["profile"], folder, case["client_id"] or found_name(case))
        if said == "THE CLIENT":
            assert not found.ok and found.code in ("KEY_MISMATCH", "BAD_PEM"), found
        else:
            assert found.code == said, f"{found}"
        assert all(one.certificate or one.code == "BAD_PEM" for one in found.refusals)
    finally:
        storage.close()


def found_name(case: dict[str, Any]) -> str:
    """Return the ClientId by default: the common name of the certificate that is sent first."""
    first = LINKS[case["chain"][0]] if case["first"] and case["chain"] else DEVICES[case["device"]]
    return first.certificate.subject.rfc4514_string().removeprefix("CN=")


@given(case=damaged())
@examples(60)
@example(case=UPLOADED_ITSELF)
@example(case=CUT_WITH_ANOTHER_KEY)
def test_random_damage_on_a_real_platform(
    worlds: Callable[[str], Workspace], case: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder, platform = tmp_path_factory.mktemp("damage"), worlds(case["profile"]).platform()
    tenant, before = platform.tenant, tools.log_length(platform)
    platform.reset(platform.tenant.tenant_id)
    for link, state in case["uploaded"].items():
        with suppress(OnboardingError):  # no CA, or expired
            uploaded = tenant.trusted_certificates.upload(LINKS[link].certificate, auto_registration=case["auto"])
            if state == "DISABLED":
                tenant.trusted_certificates.update(uploaded, status="DISABLED")
            elif state != "ENABLED":
                tenant.trusted_certificates.delete(uploaded)
    write_setup(folder, case)
    client_id = case["client_id"] or found_name(case)
    found = diagnose_device(folder, tenant, client_id=client_id, passphrase=ONCE)
    try:
        device = Device(
            *platform.mqtt,
            chain=folder / "deviceCertChain.pem",
            key=folder / "deviceKey.pem",
            passphrase=ONCE,
            trusted=platform.server_certificate,
            client_id=client_id,
        )
    except OnboardingError as error:
        assert found.code == error.code
        return
    assert diagnose_device(device, tenant) == found
    before = tools.log_length(platform)
    with suppress(OnboardingError), device:
        device.create()  # or it could not be deleted
    record = tools.last_record(platform, before)
    assert record["code"] == found.code.replace("OK", "CONNECTED") or record["code"] == found.code, str(found)


# Without a tenant -----------------------------------------------------------------------------------------------------


def write_file(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.fixture(scope="module")
def guide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder deviceCertificates beside its CA, as the guide has them, with both keystores."""
    ca, folder = tools.make("CA", ca=True, ends=900 * tools.DAY), tmp_path_factory.mktemp("guide") / "caCertificate"
    device = tools.make("dev", ca, ends=300 * tools.DAY)
    own, now = write_guide(folder, ca, device), datetime.now(UTC)
    crl = x509.CertificateRevocationListBuilder(ca.certificate.subject, now, now + tools.DAY).sign(ca.key, SHA256())
    (folder / "crl").mkdir()
    write_file(folder / "crl" / "caCrl.pem", crl.public_bytes(Encoding.PEM))
    return own


def write_guide(folder: Path, ca: tools.Entity, device: tools.Entity, *more: tools.Entity) -> Path:
    own = folder / "deviceCertificates"
    own.mkdir(parents=True, exist_ok=True)
    (folder / "caCert.pem").write_text(ca.pem)
    chain = [device.certificate, *(one.certificate for one in (*more, ca))]
    (own / "deviceCertChain.pem").write_bytes(to_pem(chain))
    (own / "deviceCert.pem").write_text(device.pem)
    (own / "deviceKey.pem").write_bytes(encrypted_pem(device.key, PASSPHRASE.encode()))
    for kind in ("pkcs12", "jks"):
        write_keystore(own / f"deviceKeystore.{kind}", device.key, chain, "ascii-only", replace=True)
    return own


def look(folder: Path, **options: Any) -> Diagnosis:
    return diagnose_device(folder, **({"passphrase": PASSPHRASE} | options))


def test_a_good_folder_and_good_keystores_have_no_finding(guide: Path) -> None:
    for profile in PROFILES:
        assert look(guide, profile=profile) == Diagnosis()
        for kind in ("pkcs12", "jks"):
            assert look(guide / f"deviceKeystore.{kind}", passphrase="ascii-only", profile=profile) == Diagnosis()
    assert look([guide / "deviceCertChain.pem", str(guide / "deviceKey.pem")]) == Diagnosis()
    stores = [guide / "deviceKeystore.jks"]
    assert look(stores, passphrase="wrong-one").code == "WRONG_PASSPHRASE"
    assert look(stores, passphrase="").code == look(guide, passphrase="").code == "NEED_PASSPHRASE"
    assert look(guide, passphrase="wrong-one").code == "WRONG_PASSPHRASE"
    with pytest.raises(OnboardingError, match="There is no"):
        look(guide / "gone.pem")
    with pytest.raises(OnboardingError, match="holds nothing of a device"):
        look(guide.parent)


def test_what_is_missing_without_a_tenant(guide: Path, tmp_path: Path) -> None:
    alone = guide / "deviceCert.pem"
    (found,) = look(alone).findings
    assert found.code == "INCOMPLETE_CHAIN" and "CN=CA" in found.sentence
    ca = x509.load_pem_x509_certificate((guide.parent / "caCert.pem").read_bytes())
    assert look(alone, anchors=ca) == Diagnosis()
    assert look(alone, anchors=ca, profile=GUIDE).code == "INCOMPLETE_CHAIN"
    assert look(alone, anchors=tools.make("CA", ca=True).certificate).code == "BAD_SIGNATURE"
    assert look(alone, anchors=x509.load_pem_x509_certificate(alone.read_bytes())).code == "NOT_A_CA"
    with pytest.raises(OnboardingError, match="no profile"):
        look(alone, profile="1999")


NEAR = {"ends": 5 * tools.DAY}


@pytest.mark.parametrize(
    ("code", "make"),
    [
        ("EXPIRED", lambda ca: tools.make("dev", ca, **NEAR)),
        ("OUTLIVES_CA", lambda ca: tools.make("dev", ca, ends=4000 * tools.DAY)),
        ("BAD_NAME", lambda ca: tools.make("dev", ca)),
        ("CHAIN_ORDER", lambda ca: tools.make("dev", ca)),
    ],
)
def test_a_warning_refuses_nothing_and_names_its_certificate(
    tmp_path: Path, code: str, make: Callable[[tools.Entity], tools.Entity]
) -> None:
    top = tools.make("Top", ca=True, ends=900 * tools.DAY)
    ca = tools.make("CA", top, ca=True, ends=900 * tools.DAY)
    device = make(ca)
    if code == "BAD_NAME":
        with pytest.warns(UserWarning, match="64"):
            name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x" * 65, _validate=False)])
        long = issue(name, Link(ca.certificate, ca.key))
        device = tools.Entity(long.certificate, long.key, (long.certificate,))
    folder = write_guide(tmp_path / "ca", ca, device)
    if code == "CHAIN_ORDER":
        write_file(folder / "deviceCertChain.pem", to_pem([device.certificate, ca.certificate, top.certificate]))
    found = look(folder)
    assert found.ok and found.code == "OK" and str(found).startswith("OK for now")
    assert [(one.code, one.severity) for one in found.findings] == [(code, WARNING)]
    assert found.findings[0].certificate in (device.certificate, ca.certificate, top.certificate)


@pytest.mark.parametrize(
    ("accident", "code"),
    [
        (lambda pem: pem.replace(b"-----", "\N{EM DASH}".encode()), "BAD_PEM"),
        (lambda pem: pem.replace(b"\n", b"\\n"), "BAD_PEM"),
        (lambda pem: pem.decode().encode("utf-16"), "BAD_PEM"),
        (lambda pem: pem[: len(pem) // 3], "BAD_PEM"),
        (lambda pem: pem[:40], "BAD_PEM"),
        (lambda pem: b"", "BAD_PEM"),
        (lambda pem: pem.replace(b"CERTIFICATE", b"CERTIFICAT"), "BAD_PEM"),
        (lambda pem: pem.replace(b"\n", b"\r\n"), "OK"),
        (lambda pem: b"what openssl x509 -text says\n" + pem, "OK"),
    ],
)
def test_an_accident_to_a_pem_file_is_named(
    guide: Path, tmp_path: Path, accident: Callable[[bytes], bytes], code: str
) -> None:
    files = [tmp_path / "deviceCertChain.pem", guide / "deviceKey.pem"]
    files[0].write_bytes(accident((guide / files[0].name).read_bytes()))
    found = look(files)
    assert found.code == code and len(found.findings) == (code != "OK"), found
    assert all(shlex.quote(str(files[0])) in one.command for one in found.findings if one.command), "this very file"
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        client.load_cert_chain(*files, PASSPHRASE)
        assert code == "OK"
    except ssl.SSLError:
        assert code != "OK"


def test_the_revocation_list_beside_the_folder(tmp_path: Path, shared_ca: CertificateAuthority) -> None:
    ca = shared_ca
    certificate = ca.sign(request("device-of-a-list"))
    (folder := ca.folder / "deviceCertificates" / "one").mkdir()
    chain = write_file(folder / "deviceCertChain.pem", to_pem([certificate, ca.certificate]))
    key = write_file(folder / "deviceKey.pem", encrypted_pem(KEY, PASSPHRASE.encode()))
    beside = tmp_path / "ca" / "deviceCertificates"
    beside.mkdir(parents=True)
    for path in (chain, key):
        write_file(beside / path.name, path.read_bytes())
    write_file(beside.parent / "caCert.pem", to_pem([ca.certificate]))
    assert look(beside) == Diagnosis()
    ca.revoke(certificate)
    ca.update_crl()
    (beside.parent / "crl").mkdir()
    write_file(beside.parent / "crl" / "caCrl.pem", (ca.folder / "crl" / "caCrl.pem").read_bytes())
    (found,) = look(beside).findings
    assert (found.code, found.severity, found.certificate) == ("REVOKED", WARNING, certificate)
    stale = look(beside, at=datetime.now(UTC) + timedelta(days=100)).findings
    assert [one.code for one in stale if one.severity == WARNING] == ["REVOKED", "CRL_EXPIRED"][::-1]


def test_the_clock_is_compared_with_the_servers(guide: Path, tmp_path: Path) -> None:
    """A tenant whose clock is ahead by so much that the device's certificate has expired there."""
    entity = tools.make("localhost", hosts=["localhost"])

    class Answer(BaseHTTPRequestHandler):
        def date_time_string(self, timestamp: float | None = None) -> str:
            return super().date_time_string(int(time.time() + ahead.total_seconds()))

        def do_HEAD(self) -> None:
            self.send_response(401)
            self.end_headers()

        def do_GET(self) -> None:
            body = json.dumps({"certificates": [described]}).encode()
            self.send_response(200 if "trusted-certificates?" in self.path else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    ca = x509.load_pem_x509_certificate((guide.parent / "caCert.pem").read_bytes())
    described = {"fingerprint": fingerprint(ca), "status": "ENABLED", "notAfter": "2099-01-01T00:00:00.000Z"}
    described |= {"certInPemFormat": to_pem([ca]).decode(), "autoRegistrationEnabled": True}
    described |= {"proofOfPossessionValid": False}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tools.write_chain(entity, tmp_path / "server.pem"))
    with ThreadingHTTPServer(("localhost", 0), Answer) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        trusted = write_file(tmp_path / "trusted.pem", entity.pem.encode())
        url, mqtt = f"https://localhost:{server.server_port}", ("localhost", server.server_port)
        tenant = Tenant(url, "t1", "ann", Secret("secret"), mqtt=mqtt, verify=str(trusted))
        ahead = timedelta(days=400)
        found = look(guide, tenant=tenant)
        assert [one.code for one in found.findings] == ["EXPIRED", "CLOCK", "UNPROVEN", "CRL_EXPIRED"], str(found)
        assert "of localhost" in found.findings[1].sentence
        ahead = timedelta(0)  # the control
        assert [one.code for one in look(guide, tenant=tenant).findings] == ["UNPROVEN"]
        server.shutdown()


# What is said of each finding -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHAPES)
def test_every_finding_names_its_certificate(name: str) -> None:
    shape = SHAPES[name]()
    for profile in (None, *PROFILES.values()):
        for one in diagnose(shape.chain, shape.trusted, profile).findings:
            assert one.certificate in (*shape.chain, *shape.trusted), one


def codes_with_a_command() -> list[str]:
    groups = tomllib.loads((ROOT / "data" / "codes.toml").read_text("utf-8"))
    return sorted(code for group in groups.values() for code, row in group.items() if "command" in row)


@pytest.mark.parametrize("code", codes_with_a_command())
def test_every_command_shows_it_on_real_files(guide: Path, code: str) -> None:
    """The guide's names, the files of a diagnosis, and a keystore's: each command runs, and says something."""
    workspace = guide.parent
    shutil.copy(workspace / "caCert.pem", guide / "serverCertificate.pem")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = {"host": "127.0.0.1", "port": server.getsockname()[1]}

        def hang_up() -> None:
            with suppress(OSError):
                while True:
                    server.accept()[0].close()

        threading.Thread(target=hang_up, daemon=True).start()
        whole = {"chain": guide / "deviceCertChain.pem", "key": guide / "deviceKey.pem", **address}
        stores = {"keystore": guide / "deviceKeystore.jks", **address}
        for files in (address, whole, stores):
            command = Finding(code, "", files=files).command
            is_store = command.startswith("keytool")
            assert "{" not in command and command
            typed = "ascii-only\n" if is_store else f"{PASSPHRASE}\n"
            done = subprocess.run(
                [tool("bash"), "-c", f"set -o pipefail; {command}"],
                cwd=workspace, input=typed, text=True, capture_output=True, start_new_session=True,
            )  # fmt: skip
            fails = "s_client" in command  # for what answers here speaks no TLS
            assert (done.returncode != 0) == fails, f"{command}: {done.stderr}"
            assert done.stdout or "pkey -noout" in command, command
            broken = subprocess.run([tool("bash"), "-c", command.replace("device", "gone").replace("caC", "gone")],
                cwd=workspace, input=typed, text=True, capture_output=True, start_new_session=True)  # fmt: skip
            assert broken.returncode != 0 or command == "date -u", "the control"


# The command ----------------------------------------------------------------------------------------------------------


def command_line(*arguments: object, **variables: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MCIOT_")}
    command = [sys.executable, "-m", "mciot_nb", *map(str, arguments)]
    environment |= {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", **variables}
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, text=True, capture_output=True)
    for secret in (
        *(variables[name] for name in ("MCIOT_PASSPHRASE", "MCIOT_PASSWORD") if name in variables),
        "PRIVATE",
    ):
        assert secret not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done


def test_the_command_says_yes_or_no_or_that_it_could_not_look(guide: Path, tmp_path: Path) -> None:
    good = command_line("diagnose", guide, MCIOT_PASSPHRASE=PASSPHRASE)
    assert (good.returncode, good.stdout.strip()) == (0, "✓ OK: nothing wrong was found."), good.stderr
    bad = command_line("diagnose", guide, "--client-id", "dev\x1b[2J", MCIOT_PASSPHRASE=PASSPHRASE)
    assert bad.returncode == 1 and "✗ CLIENT_ID_MISMATCH (refused): " in bad.stdout
    assert "\n  look: openssl x509 -noout -subject " in bad.stdout and "\x1b" not in bad.stdout
    for arguments, says in (
        ((guide,), "NEED_PASSPHRASE"),
        ((tmp_path / "gone",), "NO_FILE"),
        ((), "NO_FILE"),
        ((guide, "--anchor", guide / "deviceKey.pem"), "BAD_PEM"),
        ((guide, "--profile", "1999"), "guide-2021"),
        ((guide, "--url", "https://localhost:1", "--tenant", "t1"), "MCIOT_PASSWORD"),
    ):
        done = command_line("diagnose", *arguments)
        assert done.returncode == 2 and says in done.stdout + done.stderr, done
    store = command_line("diagnose", "--keystore", guide / "deviceKeystore.jks", MCIOT_PASSPHRASE="ascii-only")
    assert store.returncode == 0, store.stdout + store.stderr
    wrong = command_line("diagnose", "--keystore", guide / "deviceKeystore.jks", MCIOT_PASSPHRASE="not-the-one")
    assert wrong.returncode == 1 and "WRONG_PASSPHRASE" in wrong.stdout


def test_the_command_prints_json(guide: Path) -> None:
    done = command_line("diagnose", guide, "--json", "--anchor", guide / "deviceCert.pem", MCIOT_PASSPHRASE=PASSPHRASE)
    said = json.loads(done.stdout)
    assert done.returncode == 1 and said["ok"] is False and said["code"] == said["findings"][0]["code"] == "NOT_A_CA"
    (one,) = said["findings"]
    assert set(one) == {"code", "severity", "sentence", "why", "fix", "command", "certificate"} and all(one.values())
    shown = run("openssl", "x509", "-noout", "-fingerprint", "-sha256", "-in", guide / "deviceCert.pem").stdout
    assert shown.strip().partition("=")[2].replace(":", "").lower() == one["certificate"]["sha256"]


def test_the_command_explains_what_a_client_said() -> None:
    done = command_line("explain", "Connection Refused: not authorised.")
    assert done.returncode == 1 and "CLIENT_ID_MISMATCH (possible)" in done.stdout
    assert done.stdout.startswith("✗ 9 possible causes, the most frequent first.\n"), "which are not all true at once"
    assert command_line("explain", "keystore password was incorrect").returncode == 1  # a cause, and no question
    command, line = [sys.executable, "-m", "mciot_nb", "explain", "--json"], "… certificate verify failed …"
    piped = subprocess.run(command, cwd=ROOT, input=line, text=True, capture_output=True)
    assert piped.returncode == 1 and json.loads(piped.stdout)["code"] == "SERVER_NOT_TRUSTED", piped
    assert command_line("explain", "good morning").returncode == 2


def test_the_command_asks_a_tenant(worlds: Callable[[str], Workspace]) -> None:
    case = FailureCase(worlds(GUIDE), "ca-disabled")
    tenant, platform = case.tenant, case.platform
    where = {"MCIOT_CA_FILE": str(platform.server_certificate), "MCIOT_MQTT_HOST": platform.mqtt[0]}
    where |= {"MCIOT_MQTT_PORT": str(platform.mqtt[1]), "MCIOT_USER": tenant.user}
    secrets = {"MCIOT_PASSPHRASE": case.passphrase.reveal(), "MCIOT_PASSWORD": tenant.password.reveal()}
    ask = ("diagnose", case.device_folder, "--url", tenant.url, "--tenant", tenant.tenant_id, "--profile", GUIDE)
    refused = command_line(*ask, **where, **secrets)
    assert refused.returncode == 1 and "CA_DISABLED" in refused.stdout, refused
    case.remedy()
    assert command_line(*ask, **where, **secrets).returncode == 0
    wrong = command_line(*ask, **where, **secrets | {"MCIOT_PASSWORD": "not-the-password"})
    assert wrong.returncode == 2 and "HTTP_401" in wrong.stderr and not wrong.stdout
    case.leave()


def test_the_command_could_not_look_and_says_so(guide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("a" * 300)
    for source in (long, "/dev/zero"):
        said = command_line("diagnose", source, "--json")
        assert said.returncode == 2 and json.loads(said.stdout)["code"] == "DISK", said
    gone = command_line("diagnose", tmp_path / "gone", "--json")
    assert gone.returncode == 2 and json.loads(gone.stdout)["code"] == "NO_FILE" and "(NO_FILE)" in gone.stderr

    def no_permission(path: Path, *_: Any, **__: Any) -> Any:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "exists", no_permission)
    with pytest.raises(OnboardingError, match="permission denied") as refused:
        look(guide)
    assert refused.value.code == "DISK"
    monkeypatch.undo()
    (tmp_path / "own").mkdir()
    monkeypatch.setattr(Path, "iterdir", no_permission)
    with pytest.raises(OnboardingError, match="permission denied"):
        look(tmp_path / "own")
    monkeypatch.undo()
    no_permission_for(guide / "deviceKey.pem", monkeypatch)
    assert look(guide).code == "DISK"
    monkeypatch.setattr(sys, "argv", ["", "diagnose", str(guide)])
    assert command.main() == 2


def no_permission_for(path: Path, patch: pytest.MonkeyPatch) -> None:
    """Let nobody open a file, also not an administrator."""
    real = Path.open

    def opened(one: Path, *arguments: Any, **options: Any) -> Any:
        if one == path:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(one))
        return real(one, *arguments, **options)

    patch.setattr(Path, "open", opened)


@pytest.mark.parametrize(
    ("shell", "status"),
    [
        (r"printf '\377\376 Connection Refused: not authorised.' | {}", 1),
        ("printf 'Connection Refused: not authorised.' | iconv -t UTF-16 | {}", 1),
        ("{} <&-", 2),
        ("{} 'not authorised' >&-", 1),
        ("{} 'not authorised' >/dev/full", 2),
    ],
)
def test_explain_takes_any_input_and_ends_in_a_sentence(shell: str, status: int) -> None:
    line = shell.format(f"'{sys.executable}' -m mciot_nb explain")
    done = subprocess.run(["sh", "-c", line], cwd=ROOT, stdin=subprocess.DEVNULL, text=True, capture_output=True)
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr, done.stderr
    assert done.returncode == status, done
    assert "could not be printed" in done.stderr or "/dev/full" not in shell
    reader, writer = os.pipe()
    os.close(reader)
    told = [sys.executable, "-m", "mciot_nb", "explain", "not authorised"]
    unread = subprocess.run(told, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert unread.returncode == 2 and unread.stderr.strip().count("\n") == 0, unread.stderr


@pytest.mark.skipif(os.name == "nt", reason="pty")
@pytest.mark.parametrize(
    ("typed", "status"), [(b"\3", 2), (b"\4", 2), (b"not-this\n", 1), (PASSPHRASE.encode() + b"\n", 0)]
)
def test_a_prompt_that_is_left_is_no_traceback(guide: Path, typed: bytes, status: int) -> None:
    import pty

    child, terminal = pty.fork()
    if not child:
        os.environ.pop("MCIOT_PASSPHRASE", None)
        os.chdir(ROOT)
        os.execv(sys.executable, [sys.executable, "-m", "mciot_nb", "diagnose", str(guide)])
    said = b""
    with suppress(OSError):  # the end, on Linux
        while part := os.read(terminal, 4096):
            said += part
            if said.endswith(b"keystore: "):
                os.write(terminal, typed)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == status and b"Traceback" not in said, said
    assert typed.strip() not in said or status == 2


def test_several_files_of_one_device_are_one_device(guide: Path, tmp_path: Path) -> None:
    stores = [guide / "deviceKeystore.jks", guide / "deviceKeystore.pkcs12"]
    assert look(stores, passphrase="ascii-only") == Diagnosis()
    assert look([guide / "deviceCert.pem", guide / "deviceCertChain.pem", guide / "deviceKey.pem"]) == Diagnosis()
    twice = write_file(tmp_path / "twice.pem", (guide / "deviceCertChain.pem").read_bytes() * 2)
    assert look([twice, guide / "deviceKey.pem"]).code == "CHAIN_ORDER", "in one file it is sent twice"
    der = tmp_path / "key.der"
    run(
        "openssl",
        "pkey",
        "-in",
        guide / "deviceKey.pem",
        "-passin",
        f"pass:{PASSPHRASE}",
        "-outform",
        "DER",
        "-out",
        der,
    )
    (found,) = look([guide / "deviceCertChain.pem", der]).findings
    assert found.code == "BAD_PEM" and "is not a private key in PEM form" in found.sentence


def test_certificates_without_an_end_are_looked_at(tmp_path: Path) -> None:
    end = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC) - datetime.now(UTC).replace(microsecond=0)  # RFC 5280, 4.1.2.5
    ca = tools.make("CA", ca=True, ends=end)
    folder = write_guide(tmp_path / "caCertificate", ca, tools.make("dev", ca, ends=end))
    assert look(folder) == Diagnosis()
    almost = ca.certificate.not_valid_after_utc - timedelta(seconds=1)
    assert [one.code for one in look(folder, at=almost).findings] == ["EXPIRED", "EXPIRED"] and look(
        folder, at=almost
    ).ok


def test_nobody_is_refused_where_only_rest_is_out_of_reach(guide: Path, worlds: Callable[[str], Workspace]) -> None:
    platform = worlds(GUIDE).platform()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        url = f"https://127.0.0.1:{taken.getsockname()[1]}"
        tenant = Tenant(url, "t1", "ann", Secret("x"), platform.mqtt, verify=str(platform.server_certificate))
        with pytest.raises(OnboardingError) as silent:
            look(guide, tenant=tenant)
        assert silent.value.code == "NOT_REACHED"


# Speed ----------------------------------------------------------------------------------------------------------------


def test_it_takes_a_fraction_of_openssl_verify(guide: Path) -> None:
    """A third where nothing else runs, which the bench measures; half leaves room for a machine that is busy."""
    chain, anchor = guide / "deviceCertChain.pem", guide.parent / "caCert.pem"
    verify = ("verify", "-partial_chain", "-purpose", "sslclient", "-trusted", anchor, "-untrusted", chain, chain)

    def taken(task: Callable[[], object]) -> float:
        begin = time.perf_counter()
        task()
        return time.perf_counter() - begin

    ours, theirs = list[float](), list[float]()
    for _ in range(7):
        ours += [taken(lambda: look(guide)) for _ in range(3)]  # the first opens the key
        theirs.append(taken(lambda: run("openssl", *verify)))
    assert min(ours) < min(theirs) / 2, (ours, theirs)
