"""The three parsers under fire: whatever a file holds, it is read as openssl reads it or refused in one sentence."""

import os
import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from ca_tools import codes, make_ca, openssl_ca, openssl_status
from conftest import PASSPHRASE, examples
from cryptography import x509
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from mciot_nb import CertificateAuthority, DistinguishedName, OnboardingError
from mciot_nb.pki.config import guide_config, read_config
from mciot_nb.pki.database import SigningDatabase
from mciot_nb.pki.names import oneline
from mciot_nb.pki.rows import REASONS, DatabaseRow, common_name_of, parse_rows
from mciot_nb.pki.signing import build_extensions

REAL_DATABASE = (
    b"# a comment\n"
    b"V\t271123180706Z\t\t1000\tunknown\t/C=DE/O=Probe & S\\xC3\\xB6hne/OU=Team 1\\/2\\+3/CN=device/emailAddress=a@b\n"
    b"R\t271123180706Z\t261123180706Z,keyCompromise\t1001\tunknown\t/CN=device-1\n"
    b"R\t20500101000000Z\t261123180706Z\t1002\tunknown\t/CN=device-2\n"
    b"R\t271123180706Z\t261123180706Z,keyTime,20261101000000Z\t01FFAB\tunknown\t/CN=device-3\n"
    b"E\t251123180706Z\t\t1004\tunknown\t/CN=device-4\n"
)
TOKENS = [b"\t", b"\n", b"\r\n", b"\r", b"#", b"\\", b"\\\n", b" ", b"\x00", b"\xff", "ü".encode(), b"\xe2\x80\xa8"]
TOKENS += [b"$dir", b"${", b"$x::y", b"'", b'"', b"[", b"]", b"=", b"::", b".include x", b"\t\t", b"V\t", b",", b"9999"]


@st.composite
def mutated(draw: st.DrawFn, real: bytes) -> bytes:
    """Do to a real file what editors, disks and people do to it, a few times over."""
    data = real
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.sampled_from([1, 1, 2, 5, 40])))
        lines = data.splitlines(keepends=True) or [b""]
        line = draw(st.integers(0, len(lines) - 1))
        other = draw(st.integers(0, len(lines) - 1))
        flipped, token = bytes(byte ^ 1 << draw(st.integers(0, 7)) for byte in data[start:end]), st.sampled_from(TOKENS)
        changes = [
            *(data[:start] + new + data[end:] for new in (flipped, b"", data[start:end] * 2, draw(token))),
            *(data[:start] + draw(token) + data[start:], data[:start]),
            b"".join(lines[:line] + lines[line + 1 :]),
            b"".join([*lines[: line + 1], lines[other], *lines[line + 1 :]]),
        ]
        data = draw(st.sampled_from(changes))
    return data


def only_sentences(call: Callable[[], object]) -> bool:
    """Whether ``call`` succeeds; it may fail in one sentence, and in nothing else."""
    try:
        call()
    except OnboardingError as error:
        assert len(str(error).splitlines()) == 1 and str(error).endswith("."), str(error)
        return False
    return True


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    folder = tmp_path_factory.mktemp("fuzz") / "caCertificate"
    return make_ca(folder)


# The configuration.


def utf8(text: str) -> bytes:
    return text.encode("utf-8", "replace")


@examples(400)
@given(st.data())
def test_a_damaged_configuration_is_used_or_refused(ca: CertificateAuthority, data: st.DataObject) -> None:
    folder = ca.folder.parent / "damaged"
    if not folder.exists():
        shutil.copytree(ca.folder, folder)
    path, anything = folder / "caConfig.cnf", st.one_of(st.binary(max_size=200), st.text(max_size=200).map(utf8))
    path.write_bytes(data.draw(st.one_of(mutated(guide_config(folder)), anything)))
    only_sentences(lambda: CertificateAuthority.inspect(folder))
    if not only_sentences(lambda: read_config(path)):
        return
    config, key = read_config(path), ca.certificate.public_key()
    for use in (
        lambda: config.policy,
        lambda: config.digest,
        lambda: config.ca("dir"),
        lambda: config.optional("crl"),
        lambda: config.prompts,
        lambda: build_extensions(config, "v3_signed", key, ca.certificate),
        lambda: build_extensions(config, config.required("req", "x509_extensions"), key, None),
        lambda: ca.preview(DistinguishedName("DE", common_name="a")),
    ):
        only_sentences(use)


@pytest.mark.parametrize("setting", ["certificate", "private_key", "database", "serial", "new_certs_dir", "crl", "dir"])
@pytest.mark.parametrize("value", ["$dir/a\0b", "$dir/" + 300 * "x", "", "/dev/null/x", "$dir/crl"])
def test_a_path_that_is_none_is_named(ca: CertificateAuthority, setting: str, value: str) -> None:
    folder = ca.folder.parent / "paths"
    if not folder.exists():
        shutil.copytree(ca.folder, folder)
    good = guide_config(folder).decode()
    line = value.replace("$dir", str(folder)) if setting == "dir" else value
    bad = re.sub(rf"(?m)^{setting} .*$", lambda _: f"{setting} = {line}", good, count=1)
    assert bad != good
    (folder / "caConfig.cnf").write_text(bad)
    only_sentences(lambda: CertificateAuthority.inspect(folder))
    only_sentences(lambda: CertificateAuthority.open(folder, PASSPHRASE))
    (folder / "caConfig.cnf").write_text(good)
    assert CertificateAuthority.open(folder, PASSPHRASE)


# The database. Each field is mostly good, so that whole rows are; NUL and the backslash have their own test below.

times = st.datetimes(datetime(1950, 1, 1), datetime(2149, 12, 31)).map(lambda t: t.replace(microsecond=0, tzinfo=UTC))
recent = times.filter(lambda t: t.year < 2050)
no_line = st.characters(exclude_categories=("Cs",), exclude_characters="\t\n\r\0\\")
odd_subjects = ["/CN=a", "/C=DE/CN=M\\xC3\\xBCller\\/x", "", "1000", "#", "/CN=a\\+b"]
subjects = st.one_of(st.sampled_from(odd_subjects), st.text(no_line, max_size=20))
with_arguments = ["keyTime,20261101000000Z", "CAkeyTime,20261101000000Z"]
reasons = st.sampled_from(
    ["", *list(REASONS)[:8], "cacompromise", *with_arguments, "holdInstruction,holdInstructionReject"]
)
odd_times = st.sampled_from(
    [
        *("", "Z", "271123180706", "271323180706Z", "270229000000Z", "280229000000Z", "271123240000Z"),
        *("271123186000Z", "271123180760Z", "00000101000000Z", "27112318070Z", "271123180706Z\r"),
        *("\uff1271123180706Z", "-71123180706Z"),  # int() would read the full-width digit, and openssl does not
    ]
)
odd_reasons = st.sampled_from(["x", "keyTime", "keyTime,271123180706Z", "keyTime,20261301000000Z"])
odd_serials = st.sampled_from(["", "1", "10ab", "0x10", "\uff11\uff10", "-1", "10 0", "1000\r", "00", "0000"])


@st.composite
def good_rows(draw: st.DrawFn) -> list[DatabaseRow]:
    serials = draw(st.lists(st.integers(0, 2**159), max_size=5, unique=True))
    rows = []
    for serial in serials:
        status = draw(st.sampled_from("VRE"))
        revoked, reason = (draw(recent), draw(reasons)) if status == "R" else (None, "")
        file = draw(st.sampled_from(["unknown", "", "x y"]))
        rows.append(DatabaseRow(status, draw(times), revoked, reason, serial, file, draw(subjects)))
    return rows


@st.composite
def odd_lines(draw: st.DrawFn, good: int = 3) -> str:
    """Write a database in which one row in about ``good`` has a field, a tab or a newline that should not be."""
    text = ""
    for row in draw(good_rows()):
        fields = str(row).split("\t")
        change = draw(st.sampled_from([*range(7), *[7] * 7 * good]))
        if change == 0:
            fields[0] = draw(st.sampled_from(["", "v", "X", "VV", "R", "V", "#V"]))
        elif change == 1:
            fields[1] = draw(odd_times)
        elif change == 2:
            fields[2] = draw(st.one_of(odd_times, odd_reasons.map("261123180706Z,{}".format)))
        elif change == 3:
            fields[3] = draw(odd_serials)
        elif change == 4:
            fields.insert(draw(st.integers(0, 6)), "")
        elif change == 5:
            fields.pop(draw(st.integers(0, 5)))
        elif change == 6:
            text += draw(st.sampled_from(["\n", "# a comment\n", "#\n", "\r\n", "\t\t\t\t\t\n", " \n"]))
        text += "\t".join(fields) + draw(st.sampled_from(["\n"] * 4 * good + ["\r\n", "", "\n\n"]))
    return text


@examples(200)
@given(st.one_of(st.binary(max_size=100), mutated(REAL_DATABASE), odd_lines().map(str.encode)))
def test_any_bytes_are_a_database_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.txt"
    path.write_bytes(data)
    database = SigningDatabase(path, path.with_name("any.serial"))
    uses = (database.rows, database.index, database.to_frame, lambda: database.find(0x1000))
    assert len({only_sentences(use) for use in uses}) == 1


@examples(100)
@given(good_rows())
def test_the_table_has_the_rows(tmp_path_factory: pytest.TempPathFactory, rows: list[DatabaseRow]) -> None:
    path = tmp_path_factory.getbasetemp() / "good.txt"
    path.write_bytes("".join(f"{row}\n" for row in rows).encode())
    database = SigningDatabase(path, path.with_name("good.serial"))
    assert database.rows() == rows
    assert database.index().serials == {row.serial for row in rows}
    frame = database.to_frame()
    assert len(frame) == len(rows)
    for row, found in zip(rows, frame.itertuples(), strict=True):
        for name in ("status", "serial", "file", "subject", "expires", "reason"):
            assert getattr(found, name) == getattr(row, name)
        assert found.revoked == row.revoked if row.revoked else found.revoked != found.revoked  # NaT
        assert found.common_name == common_name_of(row.subject)


@examples(200)
@given(odd_lines())
def test_the_first_bad_line_is_named(text: str) -> None:
    lines = text.split("\n")[:-1]
    try:
        parse_rows(text)
    except OnboardingError as error:
        number = int(re.fullmatch(r"line (\d+) is not a row .*\.", str(error))[1])  # type: ignore[index]
        assert only_sentences(lambda: parse_rows("".join(f"{line}\n" for line in lines[: number - 1])))
        assert not only_sentences(lambda: parse_rows("".join(f"{line}\n" for line in lines[:number])))
        if "is there twice" not in str(error):
            assert not only_sentences(lambda: parse_rows(f"{lines[number - 1]}\n"))


def openssl_takes(ca: CertificateAuthority, data: bytes) -> bool:
    """Whether openssl reads the database (-status), and likes each of its rows (-gencrl)."""
    ca.database.path.write_bytes(data)
    status = openssl_status(ca.folder)
    crl = openssl_ca(ca.folder, "-gencrl", "-out", os.devnull, check=False)
    read = "1000=" in status or "not present" in status
    assert read or crl.returncode != 0
    return read and crl.returncode == 0


def we_take(ca: CertificateAuthority, data: bytes) -> bool:
    ca.database.path.write_bytes(data)
    database = SigningDatabase(ca.database.path, ca.database.serial_path)
    return only_sentences(database.rows) and only_sentences(database.index)


def test_the_real_database_is_taken_by_both(ca: CertificateAuthority) -> None:
    assert we_take(ca, REAL_DATABASE) and openssl_takes(ca, REAL_DATABASE)


@examples(25)
@given(odd_lines(30).filter(lambda text: only_sentences(lambda: parse_rows(text))))
def test_what_we_take_openssl_takes(ca: CertificateAuthority, text: str) -> None:
    attributes = ca.folder / "database.txt.attr"  # one subject in two rows has a test of its own
    attributes.write_text("unique_subject = no\n")
    try:
        assert not we_take(ca, text.encode()) or openssl_takes(ca, text.encode())
    finally:
        attributes.unlink()


def test_a_subject_that_is_valid_twice_is_named(ca: CertificateAuthority) -> None:
    """Left by somebody who had unique_subject = no for a while: openssl refuses the whole file from then on."""
    twice, once = ROW + NEXT_ROW.replace("=b", "=a"), ROW + NEXT_ROW
    attributes = ca.folder / "database.txt.attr"
    attributes.write_text("unique_subject = no\n")
    assert openssl_takes(ca, twice.encode())
    before = codes(ca)
    attributes.unlink()
    assert not openssl_takes(ca, twice.encode()) and openssl_takes(ca, once.encode())
    assert codes(ca) == before
    ca.database.path.write_text(twice)
    assert codes(ca) > before


ROW, NEXT_ROW = "V\t271123180706Z\t\t1000\tunknown\t/CN=a\n", "V\t271123180706Z\t\t1001\tunknown\t/CN=b\n"
REVOKED = "R\t271123180706Z\t261123180706Z{}\t1000\tunknown\t/CN=a\n"


@pytest.mark.parametrize(
    ("bad", "good"),
    [
        # Six fields in the average of two lines are no six fields in each.
        (ROW.replace("\t/CN", "\n/CN").replace("a\n", "a\t") + NEXT_ROW, ROW + NEXT_ROW),
        (REVOKED.replace("261123180706Z{}", ",keyCompromise"), REVOKED.format(",keyCompromise")),
        (REVOKED.replace("261123180706Z{}", "20261123180706Z"), REVOKED.format("")),
        # A backslash takes the tab behind it into the field (crypto/txt_db).
        (ROW.replace("unknown", "unknown\\"), ROW.replace("/CN=a", "/CN=a\\")),
        # openssl's line ends at a NUL, and goes on with the next one.
        (ROW.replace("=a", "=a\0") + NEXT_ROW, ROW + NEXT_ROW),
        # openssl reads 511 bytes at a time, and takes only the first for a comment.
        ("#" + 600 * "-" + "\n" + ROW, "#" + 500 * "-" + "\n" + ROW),
    ],
    ids=["shifted fields", "reason alone", "four-digit revocation", "backslash", "NUL", "long comment"],
)
def test_what_openssl_refuses_we_refuse(ca: CertificateAuthority, bad: str, good: str) -> None:
    assert we_take(ca, good.encode()) and openssl_takes(ca, good.encode())
    assert not openssl_takes(ca, bad.encode())
    assert not we_take(ca, bad.encode())


# The subject's line.


@examples(500)
@given(st.one_of(st.text(), st.text("/CN=\\x41+abC3 ", max_size=30)))
def test_any_text_has_a_common_name_or_none(subject: str) -> None:
    assert isinstance(common_name_of(subject), str)


values = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\\"), min_size=1, max_size=15)
fields = st.sampled_from([NameOID.ORGANIZATION_NAME, NameOID.LOCALITY_NAME, NameOID.STATE_OR_PROVINCE_NAME])


@examples(300)
@given(values, st.lists(st.tuples(fields, values), max_size=3), st.lists(st.tuples(fields, values), max_size=2))
def test_a_common_name_comes_back_from_its_line(
    common_name: str, before: list[tuple[x509.ObjectIdentifier, str]], after: list[tuple[x509.ObjectIdentifier, str]]
) -> None:
    pairs = [*before, (NameOID.COMMON_NAME, common_name), *after]
    line = oneline(x509.Name([x509.NameAttribute(oid, value) for oid, value in pairs]))
    assert line.isascii() and line.isprintable(), "so it fits into one field of one row"
    assert common_name_of(line) == common_name
    without = oneline(x509.Name([x509.NameAttribute(oid, value) for oid, value in [*before, *after]]))
    assert common_name_of(without) == "", "a /CN= within a value is none"
