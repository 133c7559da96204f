"""What a configuration asks for is signed as the real ``openssl ca`` signs it, or refused before anything is written.

For each setting by itself, and in a walk over changing settings and a sub-CA, in which each turn is made twice: by
openssl in the directory, by ours in a copy of it. Both must come out alike, and the walk goes on with either.
"""

import random
import shutil
from collections import Counter
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from ca_tools import GUIDE, KEY, codes, copied, copy_of, make_ca, openssl_ca, openssl_signs, openssl_status, snapshot
from conftest import PASSPHRASE, run
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID, SignatureAlgorithmOID

from mciot_nb import CertificateAuthority, DistinguishedName, OnboardingError
from mciot_nb.pki.config import find_config
from mciot_nb.pki.crl import read_crl
from mciot_nb.pki.keys import KeyType
from mciot_nb.pki.names import OTHER_FIELDS
from mciot_nb.pki.rows import hex_serial

SAN = x509.SubjectAlternativeName([x509.DNSName("dev.example"), x509.IPAddress(ip_address("::1"))])
ASKED = (SAN, x509.BasicConstraints(True, 3), x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"\x05\x00"))
ASKED += (x509.SubjectKeyIdentifier(b"mine"),)
NAME = DistinguishedName(common_name="Below")
STATUS = {"V": "Valid (V)", "R": "Revoked (R)", "E": "Expired (E)"}
Outcome = x509.Certificate | str | OnboardingError


def request(
    name: str = "device", *extensions: x509.ExtensionType, email: bool = True
) -> x509.CertificateSigningRequest:
    """Make a request for a common name, an address and a surname, the second of the extensions critical."""
    fields = [(NameOID.COMMON_NAME, name), (NameOID.SURNAME, "x")] + [(NameOID.EMAIL_ADDRESS, "a@example.com")] * email
    builder = x509.CertificateSigningRequestBuilder(x509.Name([x509.NameAttribute(*pair) for pair in fields]))
    for number, extension in enumerate(extensions):
        builder = builder.add_extension(extension, critical=number == 1)
    return builder.sign(KEY, SHA256())


def configure(folder: Path, lines: str = "", section: str | None = None) -> None:
    """Put lines into ``[ CA_default ]`` in place of those that say the same, and others into ``[ v3_signed ]``."""
    path = find_config(folder)
    head, rest = path.read_text().split("[ CA_default ]\n")
    own, tail = rest.split("[ req ]\n")
    names = {line.partition("=")[0].strip() for line in lines.split("\n")} - {""}
    own = "\n".join(line for line in own.split("\n") if line.partition("=")[0].strip() not in names)
    if section is not None:
        before, after = tail.split("[ v3_signed ]\n")
        tail = f"{before}[ v3_signed ]\n{section}\n[ crl_ext ]{after.split('[ crl_ext ]')[1]}"
    path.write_text(f"{head}[ CA_default ]\n{lines}\n{own}[ req ]\n{tail}")


def sign_twice(
    folder: Path, csr: x509.CertificateSigningRequest, section: str = "v3_signed"
) -> tuple[Outcome, Outcome]:
    """Let openssl sign in a directory, and ours in ``ours``, a copy from before, at that time and with that luck."""
    shutil.rmtree(folder.with_name("ours"), ignore_errors=True)
    ca = CertificateAuthority.open(copied(folder, folder.with_name("ours")), PASSPHRASE)
    theirs = openssl_signs(folder, csr, "-extensions", section)
    at = datetime.now(UTC)
    with pytest.MonkeyPatch.context() as patch:
        if not isinstance(theirs, str):
            patch.setattr(x509, "random_serial_number", lambda: theirs.serial_number)
            if not ca.config.optional("default_startdate"):
                at = theirs.not_valid_before_utc
            elif not ca.config.optional("default_enddate"):
                at = theirs.not_valid_after_utc - timedelta(days=ca.config.number("default_days"))
        before = snapshot(ca.folder)
        try:
            return theirs, ca.sign(csr, section, at=at)
        except OnboardingError as error:
            assert str(error).endswith(".") and len(str(error).splitlines()) == 1
            assert snapshot(ca.folder) == before, "refused before anything is written"
            return theirs, error


def assert_alike(folder: Path, theirs: Outcome, ours: Outcome) -> None:
    """See that certificates, rows and serials are the same; the signatures are random, and checked by openssl."""
    twin = folder.with_name("ours")
    assert isinstance(theirs, x509.Certificate), theirs
    assert isinstance(ours, x509.Certificate), ours
    assert ours.tbs_certificate_bytes == theirs.tbs_certificate_bytes
    for name in ("database.txt", "serial"):
        assert (twin / name).read_text() == (folder / name).read_text()
    names = [sorted(path.name for path in (side / "deviceCertificates").iterdir()) for side in (folder, twin)]
    assert names[0] == names[1] and f"{hex_serial(ours.serial_number)}.pem" in names[0]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA that was made some years ago, and lasts for decades."""
    folder = tmp_path_factory.mktemp("settings") / "template"
    return make_ca(folder, days=20000, at=datetime.now(UTC) - timedelta(days=2000)).folder


@pytest.fixture
def folder(template: Path, tmp_path: Path) -> Path:
    return copied(template, tmp_path / "caCertificate")


CRITICAL_SAN = "subjectAltName = critical,DNS:a.example, IP:10.0.0.1,URI:http://h/x:y , RID:1.2.3.4,email:b@example.com"
LINES = [
    *(f"copy_extensions = {word}" for word in ("copy", "copyall", "none", "Copy")),
    *(f"email_in_dn = {word}" for word in ("no", "yes", "NO")),
    *("rand_serial = yes", "rand_serial = no", "rand_serial =", "rand_serial = yes\nserial = nowhere"),
    *("default_startdate = 20240229120000Z", "default_startdate = 240229120000Z", "default_enddate = 480101000000Z"),
    *("default_enddate = 20480101000000Z", "default_startdate = 20240101000000Z\ndefault_enddate = 250101000000Z"),
    *("default_days = 7", "default_md = default", "default_md = SHA512"),
    "email_in_dn = no\ncopy_extensions = copyall\nrand_serial = 1\ndefault_enddate = 20470101000000Z",
]
SECTIONS = [
    "basicConstraints = CA:false",
    "keyUsage = critical,digitalSignature\nextendedKeyUsage = critical,clientAuth, 1.2.3.4,anyExtendedKeyUsage",
    "extendedKeyUsage = serverAuth,clientAuth,codeSigning,emailProtection,timeStamping,OCSPSigning",
    CRITICAL_SAN,
    "subjectAltName = @names\n[ names ]\nDNS.1 = a.example\nDNS.2 = b,c\nIP = fe80::1\nemail = copy",
    "subjectAltName = email:copy",
    "authorityKeyIdentifier = keyid,issuer:always\nbasicConstraints = CA:FALSE",
    "authorityKeyIdentifier = issuer\nsubjectKeyIdentifier = none",
    "authorityKeyIdentifier = keyid:always, issuer:always",
    "authorityKeyIdentifier = none\nsubjectKeyIdentifier = hash",
    "keyUsage = digitalSignature\nbasicConstraints = CA:TRUE\nkeyUsage = keyAgreement",
]


@pytest.mark.parametrize(("lines", "section"), [*((line, None) for line in LINES), *(("", each) for each in SECTIONS)])
def test_a_setting_is_followed_as_openssl_follows_it(folder: Path, lines: str, section: str | None) -> None:
    plain = sign_twice(copied(folder, folder.with_name("plain")), request("device", *ASKED))
    configure(folder, lines, section)
    made = sign_twice(folder, request("device", *ASKED))
    assert_alike(folder, *made)
    is_default = any(word in lines for word in ("none", "= yes", "NO", "default_md = default")) and "rand" not in lines
    assert (made[0].tbs_certificate_bytes == plain[0].tbs_certificate_bytes) <= is_default, (
        "the control: it does something"
    )
    run(
        "openssl",
        "verify",
        "-partial_chain",
        "-no_check_time",
        "-trusted",
        folder / "caCert.pem",
        folder.with_name("out.pem"),
    )


# What openssl signs (None) or refuses in which words, and ours refuses in which.
UNFIT: list[tuple[str, str | None, str | None, str]] = [
    ("copy_extensions = some", None, "Invalid extension copy option", "copy_extensions = some: write copy or none"),
    ("default_enddate = 2030-01-01", None, "end date is invalid", "default_enddate = 2030-01-01: write YYMMDD"),
    ("default_enddate = 20300230000000Z", None, "end date is invalid", "default_enddate = 20300230000000Z"),
    ("default_startdate = 19490101000000Z", None, None, "default_startdate = 19490101000000Z"),
    ("default_enddate = 20200101000000Z", None, None, "would end before it begins: correct default_startdate or"),
    ("default_startdate = 20450101000000Z", None, None, "would end before it begins: correct default_startdate"),
    ("default_startdate = tomorrow", None, "start date is invalid", "default_startdate = tomorrow"),
    ("default_days =", None, "cannot lookup how many days", "has no default_days: add it"),
    ("default_enddate = 99991231235959Z", None, None, "UTC: correct default_enddate."),
    ("default_md = sha1", None, None, "default_md = sha1: use sha256"),
    ("default_md = none", None, "", "default_md = none: use sha256"),
    ("", "", None, "asks for no extension, and OpenSSL up to 3.1 would make a certificate of version 1"),
    ("", "subjectAltName = dirName:dn\n[ dn ]\nCN = x", None, "[ v3_signed ] says subjectAltName = dirName:dn"),
    ("", "subjectAltName = email:move", None, "says subjectAltName = email:move"),
    ("", "subjectAltName = DNS:", "", "says subjectAltName = DNS:"),
    ("", "extendedKeyUsage = clientAuth,clientAuth", None, "says extendedKeyUsage = clientAuth,clientAuth"),
    ("", "extendedKeyUsage = clientauth", "", "says extendedKeyUsage = clientauth"),
    ("", "basicConstraints = critical , CA:false", "", "says basicConstraints = critical , CA:false"),
    ("", "nsComment = made here", None, "says nsComment = made here"),
]


@pytest.mark.parametrize(("lines", "section", "theirs", "ours"), UNFIT)
def test_what_is_not_done_is_refused_before_signing(
    folder: Path, lines: str, section: str | None, theirs: str | None, ours: str
) -> None:
    configure(folder, lines, section)
    said, refusal = sign_twice(folder, request("device", *ASKED))
    assert theirs in str(said) if theirs is not None else isinstance(said, x509.Certificate), said
    assert isinstance(refusal, OnboardingError) and ours in str(refusal), refusal
    assert refusal.code in {finding.code for finding in CertificateAuthority.inspect(folder).findings}


def test_what_can_not_be_copied_as_it_is_is_refused(folder: Path) -> None:
    """CA:FALSE written out, though it is the default: openssl copies it byte for byte."""
    configure(folder, "copy_extensions = copyall")
    written_out = x509.UnrecognizedExtension(x509.BasicConstraints.oid, b"\x30\x03\x01\x01\x00")
    theirs, ours = sign_twice(folder, request("device", SAN, written_out))
    assert isinstance(theirs, x509.Certificate) and b"\x04\x05\x30\x03\x01\x01\x00" in theirs.tbs_certificate_bytes
    assert isinstance(ours, OnboardingError) and ours.code == "BAD_REQUEST" and "can't be copied as it is" in str(ours)


def test_fields_beside_the_guides_are_signed_and_recorded(folder: Path) -> None:
    config, names = folder / "caConfig.cnf", [field.long_name for field in OTHER_FIELDS]
    config.write_text(config.read_text() + "".join(f"{name} = supplied\n" for name in names))
    fields = [x509.NameAttribute(field.oid, "x", _ASN1Type.UTF8String) for field in OTHER_FIELDS]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([*fields, *request().subject]))
    assert_alike(folder, *sign_twice(folder, builder.sign(KEY, SHA256())))
    assert "/CN=device/emailAddress=a@example.com/name=x/SN=x/" in (folder / "database.txt").read_text()


BOUND = "-pkeyopt rsa_pss_keygen_md:sha256 -pkeyopt rsa_pss_keygen_mgf1_md:sha256 -pkeyopt rsa_pss_keygen_saltlen:32"


@pytest.mark.parametrize("parameters", [[], BOUND.split()], ids=["any", "bound"])
def test_an_rsa_pss_ca_signs_with_pss_or_not_at_all(folder: Path, parameters: list[str]) -> None:
    """cryptography loads such a key as a plain RSA key, and would sign with PKCS #1 v1.5, which openssl refuses."""
    key, certificate, crl = (folder / name for name in ("caKey.pem", "caCert.pem", "crl/caCrl.pem"))
    made = ["-newkey", "rsa-pss", "-pkeyopt", "rsa_keygen_bits:2048", *parameters]
    to = ["-subj", "/CN=PSS", "-days", 9000, "-passout", "env:PASS", "-keyout", key, "-out", certificate]
    run("openssl", "req", "-x509", "-config", folder / "caConfig.cnf", *made, *to)
    ca, device = CertificateAuthority.open(folder, PASSPHRASE), request("device")
    if parameters:
        before = snapshot(folder)
        for attempt in (lambda: ca.sign(device), lambda: ca.update_crl()):
            with pytest.raises(OnboardingError, match="for RSA-PSS with parameters of its own") as caught:
                attempt()
            assert caught.value.code == "BAD_KEY" and snapshot(folder) == before
        assert "BAD_KEY" in codes(ca)
        return
    ours, theirs = ca.sign(device), openssl_signs(folder, request("theirs"), "-extensions", "v3_signed")
    assert isinstance(theirs, x509.Certificate)
    assert ours.signature_algorithm_oid == theirs.signature_algorithm_oid == SignatureAlgorithmOID.RSASSA_PSS
    ca.revoke(theirs.serial_number)
    ca.update_crl()
    run("openssl", "verify", "-x509_strict", "-crl_check", "-CAfile", certificate, "-CRLfile", crl, copy_of(ca))
    assert "verify OK" in run("openssl", "crl", "-in", crl, "-CAfile", certificate, "-noout").stderr
    assert codes(ca) == GUIDE
    below = ca.create_intermediate(folder.parent / "below", NAME, PASSPHRASE, key_type=KeyType.P256)
    run("openssl", "verify", "-CAfile", certificate, below.folder / "intermediateCert.pem")


DRAWN = {
    "copy_extensions": ("none", "copy", "copyall"),
    "email_in_dn": (None, "no", "yes"),
    "rand_serial": (None, None, "yes"),
    "default_days": ("1", "375", "700"),
    "default_startdate": (None, None, "20240101000000Z"),
    "default_enddate": (None, None, "20480101000000Z", "250101000000Z", "250101000000Z"),
    "default_md": ("default", "sha256", "sha384"),
    "default_crl_hours": (None, "5"),
}


class Walk:
    """A root and an intermediate CA below it; the root gives one subject several certificates, the intermediate one."""

    def __init__(self, template: Path, place: Path, seed: int) -> None:
        self.chance, self.done = random.Random(seed), Counter[str]()
        root = CertificateAuthority.open(copied(template, place / "root" / "caCertificate"), PASSPHRASE)
        below = place / "below" / "intermediateCertificate"
        below.parent.mkdir()
        root.create_intermediate(below, NAME, PASSPHRASE, key_type=KeyType.P256, days=15000)
        self.folders = {root.folder: "unique_subject = no", below: ""}
        self.plain = {folder: find_config(folder).read_bytes() for folder in self.folders}

    def turn(self) -> None:
        """Make one turn in one of the directories, by both, and go on with what either has made."""
        folder = self.chance.choice([*self.folders])
        kinds = [self.sign] * 6 + [self.revoke] * 2 + [self.settle, self.settle, self.list_revoked, self.update]
        self.chance.choice(kinds)(folder)
        twin = folder.with_name("ours")
        if self.chance.random() < 0.5 and twin.exists():
            shutil.rmtree(folder)
            copied(twin, folder)
            self.done["ours"] += 1
        shutil.rmtree(twin, ignore_errors=True)
        ca = CertificateAuthority.open(folder, PASSPHRASE)
        assert ca.recovered == "" and codes(ca) <= GUIDE | {"EXPIRED_ROWS", "CRL_INCOMPLETE"}
        for row in ca.database.rows()[-2:]:
            assert f"{hex_serial(row.serial)}={STATUS[row.status]}" in openssl_status(folder, row.serial)

    def twin(self, folder: Path) -> CertificateAuthority:
        return CertificateAuthority.open(copied(folder, folder.with_name("ours")), PASSPHRASE)

    def settle(self, folder: Path) -> None:
        """Give a directory other settings."""
        drawn = {name: self.chance.choice(words) for name, words in DRAWN.items()}
        if drawn["default_enddate"] == "250101000000Z":
            drawn["default_startdate"] = "20240101000000Z"
        lines = [f"{name} = {word}" for name, word in drawn.items() if word]
        find_config(folder).write_bytes(self.plain[folder])
        configure(folder, "\n".join([*lines, self.folders[folder]]), self.chance.choice([None, *SECTIONS]))
        self.done["settings"] += 1

    def sign(self, folder: Path) -> None:
        chosen = [each for each in ASKED if self.chance.random() < 0.7]
        csr = request(f"device-{self.chance.randrange(6)}", *chosen, email=self.chance.random() < 0.7)
        rows = len((folder / "database.txt").read_text().splitlines())
        theirs, ours = sign_twice(folder, csr, self.chance.choice(["v3_signed", "v3_signed", "v3_ca"]))
        if isinstance(theirs, str):
            assert "There is already a certificate for" in theirs, theirs
            assert isinstance(ours, OnboardingError) and ours.code == "SUBJECT_TAKEN", ours
            self.done["refused"] += 1
            return
        assert_alike(folder, theirs, ours)
        assert len((folder / "database.txt").read_text().splitlines()) == rows + 1
        self.done["signed"] += 1

    def revoke(self, folder: Path) -> None:
        twin = self.twin(folder)
        valid = [row.serial for row in twin.database.rows() if row.status != "R"]
        if not valid:
            return
        serial, reason = self.chance.choice(valid), self.chance.choice(["", "keyCompromise", "superseded"])
        options = ["-crl_reason", reason] if reason else []
        openssl_ca(folder, "-revoke", folder / "deviceCertificates" / f"{hex_serial(serial)}.pem", *options)
        row = CertificateAuthority.open(folder, PASSPHRASE).database.find(serial)
        assert row and row.status == "R"
        assert twin.revoke(serial, reason, at=row.revoked) == row
        assert twin.database.path.read_text() == (folder / "database.txt").read_text()
        self.done["revoked"] += 1

    def update(self, folder: Path) -> None:
        twin = self.twin(folder)
        self.done["expired"] += len(twin.update_database())
        openssl_ca(folder, "-updatedb")
        assert twin.database.path.read_text() == (folder / "database.txt").read_text()

    def list_revoked(self, folder: Path) -> None:
        twin = self.twin(folder)
        path = twin.config.ca_path("crl").relative_to(twin.folder)
        openssl_ca(folder, "-gencrl", "-out", folder / path)
        theirs = read_crl(folder / path)
        ours = twin.update_crl(at=theirs.last_update_utc)
        assert ours.tbs_certlist_bytes == theirs.tbs_certlist_bytes
        assert (folder / "crl" / "crlnumber").read_text() == (twin.folder / "crl" / "crlnumber").read_text()
        self.done["lists"] += 1


@pytest.mark.parametrize(
    ("seed", "turns"), [(1, 12), *(pytest.param(seed, 60, marks=pytest.mark.slow) for seed in range(3, 7))]
)
def test_a_walk_beside_openssl(template: Path, tmp_path: Path, seed: int, turns: int) -> None:
    walk = Walk(template, tmp_path, seed)
    for folder in walk.folders:
        walk.settle(folder)
    for _ in range(turns):
        walk.turn()
    assert walk.done["signed"] > turns / 6 and walk.done["ours"], walk.done
    if turns == 60:
        assert all(walk.done[kind] for kind in ("refused", "revoked", "lists", "expired", "settings")), walk.done
