"""With the same keys, dates and serials, what we make is what the real openssl makes, to the byte.

RSA's PKCS#1 v1.5 signatures are deterministic, so that even these must be equal. Every comparison has its negative
control: the same with one thing different.
"""

import shutil
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from ca_tools import copied, make_ca, openssl_ca
from conftest import PASSPHRASE, run
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from mciot_nb import CertificateAuthority, DistinguishedName
from mciot_nb.pki import authority
from mciot_nb.pki.chain import read_certificates
from mciot_nb.pki.config import find_config, guide_config, read_config
from mciot_nb.pki.crl import read_crl
from mciot_nb.pki.keys import KeyType, PrivateKey, create_key, create_request, read_private_key, read_request
from mciot_nb.pki.names import FIELDS
from mciot_nb.pki.rows import REASONS

ROOT_SUBJECT = DistinguishedName("DE", "Bayern", "München", "Probe & Söhne", "Team 1/2+3", "Wurzel+CA", "a@example.com")
SUBJECTS = (
    DistinguishedName("DE", "Bayern", "München", "Probe & Söhne", "Team 1/2+3", "Gerät 日本 🙂", "a@example.com"),
    DistinguishedName(common_name="plain"),
    DistinguishedName(organization="A/B+C=D,E;F", common_name='/CN=not+me "quoted" back\\slash'),
    DistinguishedName(state="ß" * 128, organization="Ö" * 64, organizational_unit="ü" * 64, common_name="ä" * 32),
    DistinguishedName(common_name="x" * 64, email="a" * 116 + "@example.com"),
    DistinguishedName(common_name="  blanks at both ends  "),
)
#: What bears an argument is asked of openssl by an option of its own, not by -crl_reason.
OPTIONS = {"keyTime": "-crl_compromise", "CAkeyTime": "-crl_CA_compromise"}
FULL_REASONS = [
    *[word for word in REASONS if word not in {*OPTIONS, "holdInstruction"}],
    *("keyTime,20260102030405Z", "CAkeyTime,20260102030406Z", ""),
]


Key = tuple[Path, rsa.RSAPrivateKey]


def der(made: x509.Certificate | x509.CertificateSigningRequest | x509.CertificateRevocationList) -> bytes:
    return made.public_bytes(Encoding.DER)


def stamp(moment: datetime) -> str:
    return moment.strftime("%Y%m%d%H%M%SZ")


def lines(subject: DistinguishedName) -> str:
    """What a person would type at openssl's prompts."""
    return "".join(f"{getattr(subject, field.attribute) or ''}\n" for field in FIELDS)


def theirs_of(config: Path, key: Path, answers: str, *options: object) -> bytes:
    """Let ``openssl req`` make a request, or a self-signed certificate with -x509, and give its DER form."""
    out = config.with_suffix(".made")
    common = ["-new", "-config", config, "-key", key, "-passin", "env:PASS", "-utf8", "-sha256", "-outform", "DER"]
    run("openssl", "req", *common, *options, "-out", out, input=answers)
    return out.read_bytes()


def openssl_sign(folder: Path, csr: Path, like: x509.Certificate, extensions: str = "v3_signed") -> x509.Certificate:
    """Let ``openssl ca`` sign a request with the dates of a certificate of ours."""
    times = ["-startdate", stamp(like.not_valid_before_utc), "-enddate", stamp(like.not_valid_after_utc)]
    options = ["-extensions", extensions, *times, "-notext", "-md", "sha256", "-in", csr]
    openssl_ca(folder, *options, "-out", folder / "out.pem")
    return read_certificates(folder / "out.pem")[0]


def assert_same_files(ours: Path, theirs: Path) -> None:
    lists = [path.relative_to(ours) for path in (ours / "crl").glob("*.pem")]
    for name in ("database.txt", "serial", "crl/crlnumber", *lists):
        assert (ours / name).read_text() == (theirs / name).read_text(), name
    for copy in (ours / "deviceCertificates").iterdir():
        assert copy.read_bytes() == (theirs / "deviceCertificates" / copy.name).read_bytes()
    names = [sorted(path.name for path in (side / "deviceCertificates").iterdir()) for side in (ours, theirs)]
    assert names[0] == names[1]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root of ours that the tests copy, and never change."""
    folder = tmp_path_factory.mktemp("golden") / "caCertificate"
    return make_ca(folder, ROOT_SUBJECT, KeyType.RSA_2048).folder


@pytest.fixture(scope="module")
def intermediate(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    above = CertificateAuthority.open(copied(root, tmp_path_factory.mktemp("above") / "caCertificate"), PASSPHRASE)
    folder, subject = (
        above.folder.parent / "intermediateCertificate",
        DistinguishedName("DE", common_name="Zwischen/CA"),
    )
    return above.create_intermediate(folder, subject, PASSPHRASE, key_type=KeyType.RSA_2048).folder


@pytest.fixture(scope="module")
def rsa_key(tmp_path_factory: pytest.TempPathFactory) -> Key:
    path = tmp_path_factory.mktemp("key") / "deviceKey.pem"
    return path, create_key(path, PASSPHRASE, key_type=KeyType.RSA_2048)


def test_the_root_is_openssls(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`openssl req` takes no start date: so ours gets openssl's date, and the same key and serial number."""
    folder = copied(root, tmp_path / "theirs")
    options = ["-x509", "-days", 7300, "-extensions", "v3_ca", "-set_serial", "0x1234"]
    key = folder / "caKey.pem"
    theirs = theirs_of(folder / "caConfig.cnf", key, lines(ROOT_SUBJECT), *options)
    monkeypatch.setattr(x509, "random_serial_number", lambda: 0x1234)
    opened, begin = read_private_key(key, PASSPHRASE), x509.load_der_x509_certificate(theirs).not_valid_before_utc
    monkeypatch.setattr(authority, "create_key", lambda path, *_: shutil.copy(key, path) and opened)
    ours, later = (
        CertificateAuthority.create(tmp_path / name, ROOT_SUBJECT, PASSPHRASE, at=begin + timedelta(seconds=late))
        for late, name in enumerate(("ours", "later"))
    )
    assert der(ours.certificate) == theirs
    assert der(later.certificate) != theirs and len(der(later.certificate)) == len(theirs), "only the times differ"


def test_the_intermediate_is_openssls(root: Path, tmp_path: Path) -> None:
    theirs, other = copied(root, tmp_path / "theirs"), copied(root, tmp_path / "other")
    ca = CertificateAuthority.open(copied(root, tmp_path / "ours"), PASSPHRASE)
    subject = DistinguishedName("DE", "Bayern", "Köln", "Söhne/Töchter", None, "Zwischen+CA", "b@example.com")
    folder, at = tmp_path / "intermediate", datetime.now(UTC) + timedelta(days=1)
    ours = ca.create_intermediate(folder, subject, PASSPHRASE, key_type=KeyType.RSA_2048, at=at).certificate
    csr, key = folder / "intermediateCsr.pem", folder / "intermediateKey.pem"
    assert der(read_request(csr)) == theirs_of(folder / "intermediateConfig.cnf", key, lines(subject))
    assert der(openssl_sign(theirs, csr, ours, "v3_ca")) == der(ours)
    assert_same_files(ca.folder, theirs)
    assert ours.not_valid_after_utc - ours.not_valid_before_utc == timedelta(days=3650), "openssl took our dates"
    assert der(openssl_sign(other, csr, ours, "v3_signed")) != der(ours), "other extensions, another DER"
    with pytest.raises(AssertionError):
        assert_same_files(ca.folder, other)


@pytest.mark.parametrize("kind", ["rsa", "ec"])
@pytest.mark.parametrize("issuer", ["root", "intermediate"])
def test_device_certificates_are_openssls(
    issuer: str, kind: str, request: pytest.FixtureRequest, rsa_key: Key, tmp_path: Path
) -> None:
    above: Path = request.getfixturevalue(issuer)
    key: PrivateKey = rsa_key[1] if kind == "rsa" else ec.generate_private_key(ec.SECP256R1())
    theirs, ours = copied(above, tmp_path / "theirs"), copied(above, tmp_path / "ours")
    ca = CertificateAuthority.open(ours, PASSPHRASE)
    late = ca.certificate.not_valid_after_utc - timedelta(days=500)
    for number, subject in enumerate(SUBJECTS):
        csr = tmp_path / f"{number}.pem"
        made = ca.sign(create_request(csr, key, subject), days=365, at=late if number % 2 else None)
        assert der(openssl_sign(theirs, csr, made)) == der(made), str(subject)
        assert made.not_valid_after_utc - made.not_valid_before_utc == timedelta(days=365), "openssl took our dates"
        assert_same_files(ca.folder, theirs)
    # The control: one second less, and it is another certificate.
    csr = tmp_path / "control.pem"
    asked = create_request(csr, key, DistinguishedName(common_name="control"))
    control, made = CertificateAuthority.open(copied(ours, tmp_path / "control"), PASSPHRASE), ca.sign(asked)
    sooner = control.sign(asked, at=made.not_valid_before_utc - timedelta(seconds=1))
    assert der(openssl_sign(theirs, csr, sooner)) == der(sooner) != der(made)


def test_dates_from_2050_on_are_openssls(tmp_path: Path) -> None:
    ca = make_ca(tmp_path / "ours", ROOT_SUBJECT, KeyType.RSA_2048, days=36500)
    theirs = copied(ca.folder, tmp_path / "theirs")
    key, csr = ec.generate_private_key(ec.SECP256R1()), tmp_path / "csr.pem"
    create_request(csr, key, SUBJECTS[0])
    for folder in (ca.folder, theirs):
        (folder / "database.txt.attr").write_text("unique_subject = no\n")
    # The last second that has a two-digit year, and the first that needs four: either end is written in its own way.
    last = datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC)
    for begin in (last, last + timedelta(seconds=1), last - timedelta(days=365)):
        ours = ca.sign(read_request(csr), at=begin)
        assert der(openssl_sign(theirs, csr, ours)) == der(ours)
        assert_same_files(ca.folder, theirs)
    lists = [ca.update_crl(at=begin) for begin in (last, last + timedelta(seconds=1))]
    assert [der(crl) for crl in lists] == [openssl_list(theirs, crl) for crl in lists]
    assert der(lists[1]) != openssl_list(theirs, lists[0])


@pytest.mark.parametrize("subject", [*SUBJECTS, ROOT_SUBJECT], ids=lambda subject: subject.common_name[:8])
def test_requests_are_openssls(subject: DistinguishedName, rsa_key: Key, tmp_path: Path) -> None:
    config = tmp_path / "caConfig.cnf"
    config.write_bytes(guide_config(tmp_path))
    ours = der(create_request(tmp_path / "csr.pem", rsa_key[1], subject))
    assert ours == theirs_of(config, rsa_key[0], lines(subject))
    other = DistinguishedName(**{**vars(subject), "common_name": "another"})
    assert ours != theirs_of(config, rsa_key[0], lines(other))


# --- revocation ---------------------------------------------------------------------------------------------------


def openssl_list(folder: Path, like: x509.CertificateRevocationList) -> bytes:
    """Let openssl write the revocation list with the dates of one of ours; gives its DER form."""
    assert like.next_update_utc
    times = ["-crl_lastupdate", stamp(like.last_update_utc), "-crl_nextupdate", stamp(like.next_update_utc)]
    path = Path(read_config(find_config(folder)).ca("crl"))
    openssl_ca(folder, "-gencrl", *times, "-out", path)
    return der(read_crl(path))


@pytest.fixture
def signed(root: Path, tmp_path: Path) -> CertificateAuthority:
    """A CA with a certificate for each reason, and one that stays valid."""
    ca = CertificateAuthority.open(copied(root, tmp_path / "ours"), PASSPHRASE)
    key, numbers = ec.generate_private_key(ec.SECP256R1()), range(len(FULL_REASONS) + 1)
    ca.sign_many([create_request(tmp_path / f"{n}.pem", key, DistinguishedName(common_name=f"{n}")) for n in numbers])
    return ca


def test_revocations_and_lists_are_openssls(signed: CertificateAuthority, tmp_path: Path) -> None:
    theirs = copied(signed.folder, tmp_path / "theirs")
    assert der(empty := signed.update_crl()) == openssl_list(theirs, empty), "nothing is revoked yet"
    for number, reason in enumerate(FULL_REASONS, 0x1000):
        word, _, argument = reason.partition(",")
        options = [OPTIONS[word], argument] if argument else ["-crl_reason", word] if word else []
        openssl_ca(theirs, "-revoke", theirs / "deviceCertificates" / f"{number:X}.pem", *options)
        row = CertificateAuthority.open(theirs, PASSPHRASE).database.find(number)
        assert row and row.reason == reason
        signed.revoke(number, reason, at=row.revoked)
    assert_same_files(signed.folder, theirs)
    crl = signed.update_crl(45)
    assert len(crl) == len(FULL_REASONS) and der(crl) == openssl_list(theirs, crl)
    assert_same_files(signed.folder, theirs)
    again = signed.update_crl(45, at=crl.last_update_utc)
    assert der(again) != der(crl), "its number has grown"
    assert der(again) == openssl_list(theirs, again)


def test_lists_of_the_first_and_the_last_second_are_openssls(signed: CertificateAuthority, tmp_path: Path) -> None:
    first, last = datetime(1999, 12, 31, 23, 59, 59, tzinfo=UTC), datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC)
    for number, reason in reversed(list(enumerate(FULL_REASONS, 0x1000))):
        signed.revoke(number, reason, at=last if number % 2 else first)
    theirs, other = copied(signed.folder, tmp_path / "theirs"), copied(signed.folder, tmp_path / "other")
    crl = signed.update_crl()
    assert [entry.serial_number for entry in crl] == [0x1000 + number for number in range(len(FULL_REASONS))]
    assert der(crl) == openssl_list(theirs, crl)
    assert_same_files(signed.folder, theirs)
    database = other / "database.txt"
    database.write_text(database.read_text().replace("991231235959Z", "991231235958Z", 1))
    assert der(crl) != openssl_list(other, crl), "one second earlier, and it is another list"
    with pytest.raises(AssertionError, match=r"database\.txt"):
        assert_same_files(signed.folder, other)


def test_a_list_of_the_intermediate_is_openssls(intermediate: Path, tmp_path: Path) -> None:
    ca = CertificateAuthority.open(copied(intermediate, tmp_path / "ours"), PASSPHRASE)
    csr = create_request(tmp_path / "csr.pem", ec.generate_private_key(ec.SECP256R1()), SUBJECTS[0])
    ca.revoke(ca.sign(csr), "superseded")
    seen = set()
    for extensions in (2, 1):  # the CA's key id and the list's own number, then the number alone
        theirs = copied(ca.folder, tmp_path / f"theirs{extensions}")
        crl = ca.update_crl()
        assert der(crl) == openssl_list(theirs, crl) and len(crl.extensions) == extensions
        assert_same_files(ca.folder, theirs)
        seen.add(der(crl))
        config = find_config(ca.folder)
        config.write_text(config.read_text().replace("crl_extensions    = crl_ext\n", ""))
        ca = CertificateAuthority.open(ca.folder, PASSPHRASE)
    assert len(seen) == 2


# --- what `openssl req` makes of its configuration ------------------------------------------------------------------

DEFAULTS = {
    **{"countryName_default": "PL", "stateOrProvinceName_default": "Śląsk", "emailAddress_default": "a@example.com"},
    **{"organizationName_default": "Łódź & Söhne", "countryName_min": "2", "countryName_max": "2"},
    "commonName_max": "64",
}
ORGANIZATION = "organizationName                = Organization Name"
# What is changed in the configuration, what is added to it, what is typed, and what to type for the control.
ASKED: list[tuple[tuple[str, str], dict[str, str], dict[str, str]]] = [
    *[
        (("", ""), DEFAULTS, answers)
        for answers in (
            {"commonName": "device"},
            dict.fromkeys(("countryName", "stateOrProvinceName", "organizationName", "emailAddress"), ".")
            | {"commonName": "d"},
            {"countryName": "DE", "localityName": "Köln", "organizationalUnitName": "OU", "commonName": "Gerät/1+2"},
            {"countryName": "", "localityName": "..", "organizationName": " .", "commonName": " . "},
            {"stateOrProvinceName": " ", "commonName": "..", "emailAddress": "b@example.com"},
            {"localityName": ".", "organizationalUnitName": ".", "commonName": "#no comment $var"},
        )
    ],
    # The default has the same prefix as the field, as in openssl's own openssl.cnf.
    ((ORGANIZATION, f"0.{ORGANIZATION}\n0.organizationName_default = Firma Ö"), {}, {"commonName": "device"}),
    # Only the answer "." leaves a field empty: openssl takes the default "." as it stands.
    (("", ""), {"localityName_default": "."}, {"commonName": "device"}),
]


def config_with(folder: Path, old: str = "", new: str = "", **further: str) -> Path:
    """Write the guide's configuration with a line of it changed, and with more lines in its section of prompts."""
    text, prompts = guide_config(folder).decode(), "[ req_distinguished_name ]\n"
    assert text.count(prompts) == 1 and old in text
    added = "".join(f"{name} = {value}\n" for name, value in further.items())
    path = folder / "caConfig.cnf"
    path.write_text(text.replace(prompts, prompts + added).replace(old, new, 1))
    return path


def answered(config: Path, answers: Mapping[str, str]) -> DistinguishedName:
    """Return the subject that our prompts make of the answers."""
    values = {}
    for prompt in read_config(config).prompts:
        value = values[prompt.field.attribute] = prompt.value(answers.get(prompt.field.long_name, ""))
        assert prompt.problem(value) is None
    return DistinguishedName(**values)


def typed(answers: Mapping[str, str]) -> str:
    return "".join(f"{answers.get(field.long_name, '')}\n" for field in FIELDS)


@pytest.mark.parametrize(("change", "added", "answers"), ASKED)
def test_defaults_and_dots_are_openssls(
    change: tuple[str, str], added: dict[str, str], answers: dict[str, str], rsa_key: Key, tmp_path: Path
) -> None:
    config = config_with(tmp_path, *change, **added)
    ours = der(create_request(tmp_path / "csr.pem", rsa_key[1], answered(config, answers)))
    assert ours == theirs_of(config, rsa_key[0], typed(answers))
    assert ours != theirs_of(config, rsa_key[0], typed({**answers, "localityName": "another"}))


def test_a_fixed_value_is_openssls(rsa_key: Key, tmp_path: Path) -> None:
    """openssl asks nothing where the configuration has a ``_value``: the prompts are one fewer."""
    config = config_with(tmp_path, localityName_value="Ulm")
    fixed = x509.load_der_x509_csr(theirs_of(config, rsa_key[0], "\n\n\n\ndevice\n\n"))
    assert fixed.subject == answered(config, {"commonName": "device"}).to_x509()


@pytest.mark.parametrize(
    ("answer", "limit", "refused"),
    [
        ("Sohne", "max = 5", False),
        ("Sohne", "max = 4", True),
        ("Söhne", "max = 6", False),
        ("Söhne", "max = 5", True),
        ("So", "min = 3", True),
        ("Soh", "min = 3", False),
        ("Sö", "min = 3", False),
    ],
)
def test_limits_of_answers_are_openssls(answer: str, limit: str, refused: bool, rsa_key: Key, tmp_path: Path) -> None:
    """openssl counts the bytes of an answer: "String too long, must be at most 5 bytes long"."""
    name, _, number = limit.partition(" = ")
    config = config_with(tmp_path, **{f"organizationName_{name}": number})
    answers = {"organizationName": answer, "commonName": "device"}
    # openssl asks again after a refusal, so that the prompts run out of answers and it makes nothing.
    out = tmp_path / "theirs.der"
    common = ["-new", "-config", config, "-key", rsa_key[0], "-passin", "env:PASS", "-utf8", "-sha256"]
    done = run("openssl", "req", *common, "-outform", "DER", "-out", out, input=typed(answers), check=False)
    assert (f"String too {'long' if name == 'max' else 'short'}" in done.stderr) == refused, done.stderr
    if refused:
        (prompt,) = [prompt for prompt in read_config(config).prompts if prompt.field.attribute == "organization"]
        assert "must have" in str(prompt.problem(answer))
    else:
        ours = create_request(tmp_path / "csr.pem", rsa_key[1], answered(config, answers))
        assert der(ours) == out.read_bytes()
