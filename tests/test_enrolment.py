"""The platform's own CA, and enrolment (EST): by curl, openssl, Bouncy Castle, strongSwan, and our own client."""

import base64
import contextlib
import sqlite3
import threading
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import platform_tools as tools
import pytest
import requests
from conftest import ROOT, Run, run
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from cryptography.x509.oid import NameOID
from platform_tools import rest

from mciot_nb import LocalPlatform, OnboardingError, Secret, Workspace, enrol
from mciot_nb.connect import http as http_module
from mciot_nb.connect.enrolment import certificates_of
from mciot_nb.pki.chain import is_issued_by
from mciot_nb.secret import reveal
from mciot_platform.rest.est import BEGIN, END, MOST_WRONG, NO_CA

EST, FEATURE = "/.well-known/est", "/features/certificate-authority"
BULK = "/devicecontrol/bulkNewDeviceRequests"
PASSWORD = "Blitz#42 Ölkanne"  # 16 characters, not all of them ASCII
JARS = ":".join(f"/usr/share/java/bc{name}.jar" for name in ("pkix", "prov", "util"))
KEY = ec.generate_private_key(ec.SECP256R1())
PKCS10 = {"Content-Type": "application/pkcs10"}
platform = tools.platform_fixture("current", tenants=2)


@pytest.fixture(scope="module")
def ca(platform: LocalPlatform) -> x509.Certificate:
    """The CA of the first tenant."""
    platform.tenant.own_ca.turn_on()
    return platform.tenant.own_ca.create()


def register(platform: LocalPlatform, *devices: str, password: str = PASSWORD, tenant: int = 0) -> dict[str, Any]:
    table = "ID;TYPE;NAME;AUTH_TYPE;ENROLLMENT_OTP\n"
    table += "".join(f"{device};c8y_Device;Sample;CERTIFICATES;{password}\n" for device in devices)
    options = {"auth": tools.login(platform, tenant), "headers": {"Accept": "application/json"}}
    answer = rest(platform, "POST", BULK, files={"file": ("devices.csv", table.encode())}, **options)
    assert answer.status_code == 201
    return dict(answer.json())


def csr_of(name: str, key: Any = KEY, *extensions: x509.ExtensionType) -> x509.CertificateSigningRequest:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateSigningRequestBuilder(subject)
    for extension in extensions:
        builder = builder.add_extension(extension, True)
    return builder.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())


def as_base64(csr: x509.CertificateSigningRequest) -> bytes:
    return base64.b64encode(csr.public_bytes(Encoding.DER))


def post(platform: LocalPlatform, device: str, password: str, body: bytes, **headers: str) -> requests.Response:
    basic = base64.b64encode(f"{device}:{password}".encode()).decode()
    sent = {**PKCS10, "Authorization": f"Basic {basic}", **headers}
    return rest(platform, "POST", f"{EST}/simpleenroll", data=body, headers=sent, auth=lambda request: request)


def renewed(platform: LocalPlatform, token: str, body: bytes) -> requests.Response:
    sent = {**PKCS10, "Authorization": f"Bearer {token}"}
    return rest(platform, "POST", f"{EST}/simplereenroll", data=body, headers=sent, auth=lambda request: request)


def issued(platform: LocalPlatform, device: str) -> int:
    return int((platform.issued()["device"] == device).sum())


def certificate_in(answer: requests.Response) -> x509.Certificate:
    assert answer.status_code == 200, answer.text
    (certificate,) = certificates_of(answer.content)
    return certificate


# The CA --------------------------------------------------------------------------------------------------------------


def test_the_ca_is_made_once_is_trusted_and_goes_with_its_key(platform: LocalPlatform) -> None:
    second = {"auth": tools.login(platform, 1), "headers": {"Accept": "application/json"}}
    path = f"/tenant/tenants/{platform.tenant_ids[1]}/trusted-certificates"
    make = lambda: rest(platform, "POST", "/certificate-authority", **second)  # noqa: E731
    feature = rest(platform, "GET", FEATURE, **second)
    assert feature.json() == {
        **{"phase": "PUBLIC_PREVIEW", "strategy": "TENANT", "key": "certificate-authority"},
        "active": False,
    }
    assert make().status_code == 403 and "turn it on" in make().json()["message"]
    assert rest(platform, "PUT", f"{FEATURE}/by-tenant", json={"active": "yes"}, **second).status_code == 422
    assert rest(platform, "PUT", f"{FEATURE}/by-tenant", json={"active": True}, **second).json()["active"] is True
    for call in (("PUT", f"{FEATURE}/by-tenant"), ("POST", "/certificate-authority"), ("POST", BULK)):
        assert rest(platform, *call, auth=tools.login(platform, 1, viewer=True)).status_code == 403
    made = make()
    assert made.status_code == 201
    shown = {"tenantCertificateAuthority": True, "status": "ENABLED", "autoRegistrationEnabled": False, "version": 3}
    assert made.json() | shown == made.json()
    assert made.json()["subject"] == f"CN={platform.tenant_ids[1]}, O=Cumulocity, C=United States"
    assert make().status_code == 409 and "there already" in make().json()["message"]
    other = {"certInPemFormat": tools.make("Other", ca=True).pem, "status": "ENABLED"}
    assert rest(platform, "POST", path, json=other, **second).json()["tenantCertificateAuthority"] is False
    lists = [rest(platform, "GET", path + only, **second).json() for only in ("", "?certificateAuthority=true")]
    assert [len(one["certificates"]) for one in lists] == [2, 1] and lists[1]["certificates"] == [made.json()]

    with contextlib.closing(sqlite3.connect(platform.folder / "platform.sqlite")) as database:
        keys = "SELECT key FROM authorities WHERE tenant = ?", (platform.tenant_ids[1],)
        ((key,),) = database.execute(*keys).fetchall()
        assert key.startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
        fingerprint = made.json()["fingerprint"]
        assert rest(platform, "DELETE", f"{path}/{fingerprint}", **second).status_code == 204
        assert database.execute(*keys).fetchall() == []
    again = make()
    assert again.status_code == 201 and again.json()["fingerprint"] != fingerprint


def test_the_platform_of_the_guides_time_has_none_of_it(tmp_path: Path) -> None:
    with tools.started(tmp_path) as old:
        for call in (("GET", FEATURE), ("POST", "/certificate-authority"), ("POST", f"{EST}/simpleenroll")):
            assert rest(old, *call).status_code == 404
        with pytest.raises(OnboardingError, match="use_profile") as refusal:
            old.tenant.own_ca.turn_on()
        assert refusal.value.code == "HTTP_404" and old.tenant.own_ca.certificate() is None


# Registration --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("ca")
def test_a_table_registers_devices_and_says_what_it_did_not(platform: LocalPlatform) -> None:
    first = register(platform, "bulk-1", "bulk-2")
    assert [first[f"numberOf{name}"] for name in ("All", "Created", "Failed", "Successful")] == [2, 2, 0, 2]
    known = platform.tenant.devices.find("bulk-1")
    assert known and (known.name, known.type) == ("Sample", "c8y_Device")
    mixed = register(platform, "bulk-1", "a:b", "x" * 65)
    assert mixed["credentialUpdatedList"] == [{"bulkNewDeviceStatus": "CREDENTIAL_UPDATED", "deviceId": "bulk-1"}]
    assert [one["deviceId"] for one in mixed["failedCreationList"]] == ["a:b", "x" * 65]
    assert PASSWORD not in str(mixed)
    assert register(platform, "bulk-3", password="x" * 33)["numberOfFailed"] == 1
    tabs = b"\xef\xbb\xbfAUTH_TYPE\tID\tENROLLMENT_OTP\r\nCERTIFICATES\tbulk-4\tone\r\nBASIC\tbulk-5\ttwo\r\n"
    counts = rest(platform, "POST", BULK, files={"file": tabs}, headers={"Accept": "application/json"}).json()
    assert (counts["numberOfCreated"], counts["numberOfFailed"]) == (1, 1)
    for bad in (b"", b"NAME;TYPE\na;b\n", b"\xff\xfe\x00"):
        assert rest(platform, "POST", BULK, files={"file": bad}).status_code == 422
    with pytest.raises(OnboardingError, match="leave out colons"):
        platform.tenant.own_ca.register("a;b")
    with pytest.raises(OnboardingError, match="did not register a b") as refusal:
        platform.tenant.own_ca.register("a b")
    assert refusal.value.code == "NOT_REGISTERED"


# Enrolment, as others ask for it -------------------------------------------------------------------------------------

TEXT = b"PKCS #10 Certificate Request Information:\n\tVersion: 1\n"
BODIES = {
    "one line": as_base64,
    "lines": lambda csr: base64.encodebytes(csr.public_bytes(Encoding.DER)),
    "CRLF": lambda csr: base64.encodebytes(csr.public_bytes(Encoding.DER)).replace(b"\n", b"\r\n"),
    "PEM": lambda csr: csr.public_bytes(Encoding.PEM),
    "certtool": lambda csr: TEXT + csr.public_bytes(Encoding.PEM).replace(b"CERTIFICATE REQ", b"NEW CERTIFICATE REQ"),
    "DER": lambda csr: csr.public_bytes(Encoding.DER),
}


@pytest.mark.parametrize("form", BODIES)
def test_a_request_comes_in_every_form_and_openssl_reads_the_answer(
    form: str, platform: LocalPlatform, ca: x509.Certificate, openssl: Run, keytool: Run, tmp_path: Path
) -> None:
    device = f"form {form}".replace(" ", "-")
    register(platform, device)
    answer = post(platform, device, PASSWORD, BODIES[form](csr_of(device)))
    assert answer.headers["Content-Type"] == "application/pkcs7-mime; smime-type=certs-only"
    assert answer.headers["Content-Transfer-Encoding"] == "base64"
    certificate, path = certificate_in(answer), tmp_path / "answer.p7"
    assert certificate.public_key() == KEY.public_key() and is_issued_by(certificate, ca)
    path.write_bytes(ber := base64.b64decode(answer.content))
    assert ber.startswith(BEGIN) and ber.endswith(END), "without stated lengths, as the real platform writes it"
    pem = openssl("pkcs7", "-inform", "DER", "-in", path, "-print_certs").stdout
    assert x509.load_pem_x509_certificate(pem[pem.index("-----") :].encode()) == certificate
    assert f"CN={device}" in keytool("-printcert", "-file", path).stdout
    (tmp_path / "ca.pem").write_bytes(ca.public_bytes(Encoding.PEM))
    (tmp_path / "device.pem").write_text(pem)
    assert (
        "OK"
        in openssl("verify", "-purpose", "sslclient", "-CAfile", tmp_path / "ca.pem", tmp_path / "device.pem").stdout
    )
    as_pem = post(platform, device, PASSWORD, as_base64(csr_of(device)), Accept="application/pkcs10")
    assert x509.load_pem_x509_certificate(as_pem.content) == certificate, "the vendor's other form, and the same again"


@pytest.mark.usefixtures("ca")
def test_curl_as_the_vendors_documents_write_it(platform: LocalPlatform, openssl: Run, tmp_path: Path) -> None:
    user, password = tools.login(platform)
    curl = ["curl", "-s", "--fail", "--cacert", platform.server_certificate]
    body = '{"phase": "IN_DEVELOPMENT","active": true,"strategy": "TENANT","key": "certificate-authority"}'
    put = ["-u", f"{user}:{password}", "-H", "Content-Type: application/json", "-X", "PUT", "-d", body]
    run(*curl, "-v", *put, f"{platform.https}{FEATURE}/by-tenant")
    register(platform, "by-curl", password="somePassword@123")
    key, csr = tmp_path / "key.pem", tmp_path / "csr.pem"
    new = ["-newkey", "rsa:2048", "-nodes", "-keyout", key, "-subj", "/CN=by-curl/O=Thin Edge", "-out", csr]
    openssl("req", "-new", *new)
    lines = "".join(csr.read_text().splitlines(keepends=True)[1:-1])  # as thin-edge.io sends it
    header = ["-H", "Content-Type: application/pkcs10", "-H", "Content-Transfer-Encoding: base64"]
    for user in ("by-curl", f"{platform.tenant.tenant_id}/by-curl"):
        done = run(
            *curl,
            "-u",
            f"{user}:somePassword@123",
            *header,
            "--data-binary",
            lines,
            f"{platform.https}{EST}/simpleenroll",
        )
        (certificate,) = certificates_of(done.stdout.encode())
    assert certificate.subject.rfc4514_string() == "O=Thin Edge,CN=by-curl"
    assert issued(platform, "by-curl") == 1


@pytest.mark.slow
def test_bouncy_castle_enrols(platform: LocalPlatform, ca: x509.Certificate) -> None:
    register(platform, "by-java", password="somePassword@123")
    program = ["-XX:TieredStopAtLevel=1", "-cp", JARS, ROOT / "tests" / "java" / "EnrolDevice.java"]
    where = [f"localhost:{platform.https.rpartition(':')[2]}", platform.server_certificate, "by-java"]
    for password, said in (("a wrong one", "REFUSED"), ("somePassword@123", "ENROLLED CN=by-java")):
        lines = run("java", *program, *where, password).stdout.splitlines()
        assert f"CA C=United States,O=Cumulocity,CN={platform.tenant.tenant_id}" in lines
        assert lines[-1].startswith(said) and issued(platform, "by-java") == (said != "REFUSED")


@pytest.mark.usefixtures("ca")
def test_strongswan_asks_and_the_platform_signs(platform: LocalPlatform, tmp_path: Path) -> None:
    """Its version 5.9.8 then reads no answer that is not in DER, which the real platform's is not."""
    register(platform, "by-swan", password="somePassword@123")
    (tmp_path / "csr.der").write_bytes(csr_of("by-swan").public_bytes(Encoding.DER))
    trust = ["--url", platform.https.replace("127.0.0.1", "localhost"), "--cacert", platform.server_certificate]
    for password, number in (("wrong", 0), ("somePassword@123", 1)):
        login = ["--userpass", f"by-swan:{password}", "--in", tmp_path / "csr.der", "--maxpolltime", "1"]
        run("pki", "--est", *trust, *login, check=False)
        assert issued(platform, "by-swan") == number


# What is refused -----------------------------------------------------------------------------------------------------


def tampered(name: str) -> bytes:
    der = bytearray(csr_of(name).public_bytes(Encoding.DER))
    der[-1] ^= 1
    return base64.b64encode(der)


WEAK = rsa.generate_private_key(65537, 1024)
BAD = {
    "another name": (lambda: as_base64(csr_of("somebody-else")), 403, "common name somebody-else"),
    "no name": (
        lambda: as_base64(x509.CertificateSigningRequestBuilder(x509.Name([])).sign(KEY, hashes.SHA256())),
        403,
        "None",
    ),
    "a signature": (lambda: tampered("refused"), 400, "changed after it was made"),
    "RSA 1024": (lambda: as_base64(csr_of("refused", WEAK)), 400, "too weak"),
    "P-192": (lambda: as_base64(csr_of("refused", ec.generate_private_key(ec.SECP192R1()))), 400, "weak"),
    "Ed25519": (lambda: as_base64(csr_of("refused", ed25519.Ed25519PrivateKey.generate())), 400, ""),
    "CA:TRUE": (lambda: as_base64(csr_of("refused", KEY, x509.BasicConstraints(True, None))), 400, "CA:TRUE"),
    "nothing": (lambda: b"", 400, "no signing request"),
    "rubbish": (lambda: b"{}", 400, "no signing request"),
    "a certificate": (
        lambda: base64.b64encode(tools.make("refused").certificate.public_bytes(Encoding.DER)),
        400,
        "PKCS#10",
    ),
}


@pytest.mark.usefixtures("ca")
@pytest.mark.parametrize("what", BAD)
def test_a_bad_request_is_refused_in_a_sentence_and_costs_nothing(what: str, platform: LocalPlatform) -> None:
    register(platform, "refused")
    body, status, sentence = BAD[what]
    before = issued(platform, "refused")
    answer = post(platform, "refused", PASSWORD, body())
    assert answer.status_code == status and sentence in answer.json()["message"], answer.text
    assert issued(platform, "refused") == before
    certificate_in(post(platform, "refused", PASSWORD, as_base64(csr_of("refused"))))  # the control


@pytest.mark.usefixtures("ca")
def test_a_one_time_password_serves_one_key_for_a_day(platform: LocalPlatform) -> None:
    body, other = as_base64(csr_of("once")), as_base64(csr_of("once", ec.generate_private_key(ec.SECP384R1())))
    assert post(platform, "once", PASSWORD, body).status_code == 401, "not registered yet"
    register(platform, "once")
    assert post(platform, "once", "another", body).status_code == 401
    assert post(platform, "once", "", body).status_code == 401
    first = certificate_in(post(platform, "once", PASSWORD, body))
    assert certificate_in(post(platform, "once", PASSWORD, as_base64(csr_of("once")))) == first, "asked again"
    assert post(platform, "once", PASSWORD, other).status_code == 401, "used"
    register(platform, "once")  # even with the same password, it is a new one
    assert certificate_in(post(platform, "once", PASSWORD, other)).serial_number != first.serial_number
    assert issued(platform, "once") == 2
    register(platform, "late")
    with contextlib.closing(sqlite3.connect(platform.folder / "platform.sqlite", isolation_level=None)) as database:
        database.execute("UPDATE enrolments SET until = '2026-01-01' WHERE device = 'late'")
    assert post(platform, "late", PASSWORD, as_base64(csr_of("late"))).status_code == 401, "expired"


@pytest.mark.usefixtures("ca")
def test_guessing_is_slowed_down_for_that_device_alone(platform: LocalPlatform) -> None:
    register(platform, "guessed", "neighbour")
    body = as_base64(csr_of("guessed"))
    statuses = [post(platform, "guessed", f"guess {number}", body).status_code for number in range(MOST_WRONG + 1)]
    assert statuses == [401] * MOST_WRONG + [429]
    assert post(platform, "guessed", PASSWORD, body).status_code == 429, "also for who knows it now"
    certificate_in(post(platform, "neighbour", PASSWORD, as_base64(csr_of("neighbour"))))
    unknown = [post(platform, "nobody", "x", body).status_code for _ in range(MOST_WRONG + 2)]
    assert set(unknown) == {401}, "where there is nothing to guess, a device may ask until it is registered"


def test_a_name_in_two_tenants_is_told_apart_by_password_or_prefix(
    platform: LocalPlatform, ca: x509.Certificate
) -> None:
    second = platform.tenants[1].own_ca
    second.turn_on()
    other = second.create()
    register(platform, "twin", password="first")
    register(platform, "twin", password="second", tenant=1)
    body = as_base64(csr_of("twin"))
    for user, password, signer in (
        ("twin", "first", ca),
        ("twin", "second", other),
        (f"{platform.tenant_ids[0]}/twin", "first", ca),
        (f"{platform.tenant_ids[1]}/twin", "second", other),
    ):
        assert is_issued_by(certificate_in(post(platform, user, password, body)), signer)
    assert post(platform, f"{platform.tenant_ids[0]}/twin", "second", body).status_code == 401
    found = certificates_of(rest(platform, "GET", f"{EST}/cacerts", auth=lambda request: request).content)
    assert set(found) == {ca, other}


# The life of a device ------------------------------------------------------------------------------------------------


def entity(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey = KEY) -> tools.Entity:
    return tools.Entity(certificate, key, (certificate,))


def connack(platform: LocalPlatform, folder: Path, device: tools.Entity, name: str) -> int | None:
    with tools.device(platform, folder, device, client_id=name) as (_, seen):
        return seen.connack


def test_a_device_connects_renews_and_is_refused_with_its_ca(tmp_path: Path) -> None:
    with tools.started(tmp_path / "workspace", "current") as own:
        body, authority = as_base64(csr_of("dev")), own.tenant.own_ca
        authority.turn_on()
        register(own, "dev", "other")
        early = post(own, "dev", PASSWORD, body)
        assert early.status_code == 422 and early.json()["message"] == NO_CA
        ca = authority.create()
        first = certificate_in(post(own, "dev", PASSWORD, body))
        assert connack(own, tmp_path, entity(first), "dev") == 0, "registered, with auto-registration off"
        stranger = tools.make("stranger", tools.Entity(ca, KEY, (ca,)))  # of the CA's name, by another key
        assert connack(own, tmp_path, stranger, "stranger") is None
        tools.write_chain(entity(first), tmp_path / "mutual.pem")
        token = rest(
            own, "POST", "/devicecontrol/deviceAccessToken", auth=None, cert=str(tmp_path / "mutual.pem")
        ).json()
        new = ec.generate_private_key(ec.SECP256R1())
        second = certificate_in(renewed(own, token["accessToken"], as_base64(csr_of("dev", new))))
        by_tls = rest(
            own,
            "POST",
            f"{EST}/simplereenroll",
            auth=None,
            cert=str(tmp_path / "mutual.pem"),
            data=body,
            headers=PKCS10,
        )
        third = certificate_in(by_tls)
        assert len({one.serial_number for one in (first, second, third)}) == 3 == issued(own, "dev")
        for device in (entity(first), entity(second, new), entity(third)):
            assert connack(own, tmp_path, device, "dev") == 0
        foreign = renewed(own, token["accessToken"], as_base64(csr_of("other")))
        assert foreign.status_code == 403 and "that of the device dev" in foreign.json()["message"]
        assert renewed(own, "no.token.at-all", body).status_code == 401
        assert rest(own, "POST", f"{EST}/simplereenroll", data=body, headers=PKCS10).status_code == 403, (
            "an administrator"
        )
        assert rest(own, "POST", f"{EST}/simplereenroll", data=body, headers=PKCS10, auth=None).status_code == 401
        trusted = own.tenant.trusted_certificates
        for change in (partial(trusted.update, status="DISABLED"), trusted.delete):
            change(ca)
            assert renewed(own, token["accessToken"], body).json()["message"] == NO_CA
            assert post(own, "other", PASSWORD, as_base64(csr_of("other"))).status_code == 422
            assert connack(own, tmp_path, entity(second, new), "dev") is None
        assert own.log().iloc[-1]["code"] == "CA_DELETED"
        assert rest(own, "GET", f"{EST}/cacerts").status_code == 404
        authority.create()
        assert post(own, "dev", PASSWORD, body).status_code == 401, "the other CA's certificate helps nobody now"
        certificate_in(post(own, "other", PASSWORD, as_base64(csr_of("other"))))
        own.tenant.devices.delete("other")
        assert post(own, "other", PASSWORD, as_base64(csr_of("other"))).status_code == 401


# Our own client ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("ca")
def test_a_device_asks_until_it_is_registered_or_for_a_while(platform: LocalPlatform) -> None:
    ask = {"verify": str(platform.server_certificate), "wait": 5.0}
    registered = threading.Timer(1.0, lambda: register(platform, "patient"))
    registered.start()
    assert enrol(platform.https, "patient", KEY, Secret(PASSWORD), **ask).public_key() == KEY.public_key()
    registered.join()
    with pytest.raises(
        OnboardingError, match=r"401: nobody is not registered yet, or its one-time .*register it again\.$"
    ) as late:
        enrol(platform.https, "nobody", KEY, Secret(PASSWORD), **ask | {"wait": 0.2})
    assert late.value.code == "HTTP_401" and PASSWORD not in str(late.value)
    with pytest.raises(OnboardingError) as never:
        enrol(platform.https, "nobody", KEY, Secret("not.a.token"), again=True, **ask)
    assert never.value.code == "HTTP_401"
    with pytest.raises(OnboardingError) as untrusted:
        enrol(platform.https, "patient", KEY, Secret(PASSWORD))
    assert untrusted.value.code == "TLS"


@pytest.mark.usefixtures("ca")
def test_a_table_is_read_as_csv_is(platform: LocalPlatform) -> None:
    def sent(table: bytes) -> requests.Response:
        options = {"auth": tools.login(platform), "headers": {"Accept": "application/json"}}
        answer: requests.Response = rest(platform, "POST", BULK, files={"file": ("devices.csv", table)}, **options)
        return answer

    head = b"ID;AUTH_TYPE;NAME\n"
    long = sent(head + b"never;CERTIFICATES;" + b"x" * 200_000)
    assert long.status_code == 422 and "can't be read as CSV" in long.json()["message"]
    assert sent(b'"ID";"AUTH_TYPE"\n"in-quotes";"CERTIFICATES"\n').json()["numberOfSuccessful"] == 1
    parted = "before\u2028after"  # ends no line of CSV
    (done,) = sent(head + f"{parted};CERTIFICATES;\n".encode()).json()["credentialUpdatedList"]
    assert done["deviceId"] == parted
    assert sent(head.replace(b"\n", b"\r") + b"old-mac-1;CERTIFICATES;\r").json()["numberOfSuccessful"] == 1


def test_what_can_not_be_asked_for_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_module, "send", lambda *_, **__: pytest.fail("sent"))
    ask = partial(enrol, "https://t1.example.com", key=KEY)
    for name in ("", "a:b", "a\nb", "\ud800", "x" * 65):
        with pytest.raises(OnboardingError) as refused:
            ask(name, secret=Secret("x"))
        assert refused.value.code == "BAD_NAME", name
    for token in ("", "two words", "a\nb", "\u20ac", "\ud800"):
        with pytest.raises(OnboardingError) as refused:
            ask("dev", secret=Secret(token), again=True)
        assert refused.value.code == "BAD_TOKEN" and (not token or token not in str(refused.value))
    monkeypatch.setattr(http_module, "send", lambda *_, **__: (403, b""))
    with pytest.raises(OnboardingError, match="answered 403"):
        ask("dev", secret=Secret("of a shell in Latin-1: \udcfc"))


def test_what_an_odd_status_means_is_not_made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    says = {202: "try again later", 302: "check the URL", 415: "check the URL", 500: "try again later"}
    for status, advice in says.items():
        asked: list[int] = []
        monkeypatch.setattr(http_module, "send", lambda *_, asked=asked, s=status, **__: (asked.append(s) or s, b""))
        with pytest.raises(OnboardingError, match=f"answered {status}: .*{advice}"):
            enrol("https://t1.example.com", "dev", KEY, Secret("x"), wait=0.1)
        assert (len(asked) > 1) == (status in (202, 500)), "RFC 7030, 4.2.3: asked again until it is ready"


def test_only_a_certificate_for_this_device_and_key_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    own, stranger, twin = tools.make("dev"), tools.make("stranger"), tools.make("dev")
    answers = {
        "of another key": ((200, BEGIN + twin.certificate.public_bytes(Encoding.DER) + END), "KEY_MISMATCH"),
        "of another name": ((200, BEGIN + stranger.certificate.public_bytes(Encoding.DER) + END), "KEY_MISMATCH"),
        "empty": ((200, BEGIN + END), "KEY_MISMATCH"),
        "no PKCS#7": ((200, b"<html>"), "NOT_A_TENANT"),
        "a bad request": ((400, b""), "HTTP_400"),
        "an odd status": ((302, b""), "HTTP_302"),
    }
    for answer, code in answers.values():
        monkeypatch.setattr(http_module, "send", lambda *_, answer=answer, **__: answer)
        with pytest.raises(OnboardingError) as refusal:
            enrol("https://t1.example.com", "dev", own.key, Secret("x"))
        assert refusal.value.code == code
    both = [twin.certificate, own.certificate]
    for status, form in ((200, Encoding.DER), (201, Encoding.DER)):
        body = base64.b64encode(pkcs7.serialize_certificates(both, form))
        monkeypatch.setattr(http_module, "send", lambda *_, answer=(status, body), **__: answer)
        assert enrol("https://t1.example.com", "dev", own.key, Secret("x")) == own.certificate


def test_pkcs7_is_read_in_der_and_ber_without_a_warning_and_cut_off_nowhere(openssl: Run, tmp_path: Path) -> None:
    several = [tools.make(f"device-{number}").certificate for number in range(3)]
    (tmp_path / "all.pem").write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in several))
    openssl("crl2pkcs7", "-nocrl", "-certfile", tmp_path / "all.pem", "-outform", "DER", "-out", tmp_path / "all.p7")
    der, ber = (
        (tmp_path / "all.p7").read_bytes(),
        BEGIN + b"".join(one.public_bytes(Encoding.DER) for one in several) + END,
    )
    with warnings.catch_warnings(action="error"):
        for whole in (der, ber):
            assert set(certificates_of(whole)) == set(certificates_of(base64.encodebytes(whole))) == set(several)
            for end in range(len(whole)):
                with pytest.raises((ValueError, LookupError)):
                    certificates_of(whole[:end])
    with pytest.warns(UserWarning):  # the control: why we read it ourselves
        pkcs7.load_der_pkcs7_certificates(ber)


def test_a_workspace_finds_what_it_has_and_no_password_lies_about(quick_workspace: Workspace) -> None:
    tenant = quick_workspace.use_profile("current").tenant
    tenant.own_ca.turn_on()
    ca, password = tenant.own_ca.create(), tenant.own_ca.register("device-0002")
    assert tenant.own_ca.create() == ca
    device = quick_workspace.enrol(tenant, "device-0002", password)
    assert quick_workspace.enrol(tenant, "device-0002", Secret("not asked for")).certificate == device.certificate
    key = quick_workspace.folder / "enrolledDevice" / "deviceKey.pem"
    assert key.stat().st_mode & 0o777 == 0o600 and b"ENCRYPTED" in key.read_bytes()
    with device:
        device.create()
        token = device.token()
    again = quick_workspace.enrol(tenant, "device-0002", token, again=True)
    assert again.certificate != device.certificate
    with again:
        again.measure("c8y_Temperature", "T", 20.0)
    assert not (quick_workspace.folder / "earlier").exists()
    tenant.trusted_certificates.delete(ca)
    tenant.own_ca.create()
    renewed = quick_workspace.enrol(tenant, "device-0002", tenant.own_ca.register("device-0002"))
    assert renewed.certificate not in (device.certificate, again.certificate), "of a CA that is gone"
    for file in (one for one in quick_workspace.folder.rglob("*") if one.is_file()):
        assert reveal(password).encode() not in file.read_bytes(), file
