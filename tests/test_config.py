"""The configuration is read as libcrypto reads it, and a name is written as openssl writes it."""

import ctypes
import ctypes.util
import os
from pathlib import Path

import pytest
from ca_tools import request
from conftest import Run, examples
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from mciot_nb import DistinguishedName, OnboardingError
from mciot_nb.pki.config import GUIDE_CONFIG, guide_config, read_config, with_dir
from mciot_nb.pki.names import oneline, readable

ODD_CASES = {
    "comments": "a = 1 # x\n# whole\nb = 2 ; no comment\n[ s ]\nc = '#' # d\nd = \\# e",
    "quotes": "a = 'one two' three\nb = \"x # y\"z\nc = `t`\nd = O'Brien\ne = 'it\\'s'",
    "escapes": "a = x\\ny\\tz\nb = back\\\\slash\nc = C:\\\\Users\\\\new\nd = \\q",
    "continuation": "a = one \\\n  two\nb = end\\\\\nc = 3",
    "variables": "x = 1\n[ s ]\ny = 2\nz = $x-${y}-$(x)-$s::y-${s::y}\nq = '$x'\nr = $y)tail",
    "merge": "[ a ]\nx = 1\n[ b ]\nx = 2\n[ a ]\nx = 3\ny = 4",
    "other section": "[ a ]\nb::x = 1\ny = $b::x",
    "crlf": "a = 1\r\n[ s ]\r\nb = 2\r\n",
    "blanks": "  a=1  \n[s]\n\tb\t=\tsome  text\t\nempty =\n[ two words ]\nc = 1",
}


def libcrypto_reads(path: Path) -> dict[str, dict[str, str]] | None:
    """Let libcrypto read and dump the file; None where it refuses."""
    name = ctypes.util.find_library("crypto")
    if name is None:
        pytest.skip("libcrypto is not installed")
    crypto = ctypes.CDLL(name)
    for function in ("NCONF_new", "BIO_new", "BIO_s_mem"):
        getattr(crypto, function).restype = ctypes.c_void_p
    conf, memory = (
        ctypes.c_void_p(crypto.NCONF_new(None)),
        ctypes.c_void_p(crypto.BIO_new(ctypes.c_void_p(crypto.BIO_s_mem()))),
    )
    if crypto.NCONF_load(conf, os.fsencode(path), None) != 1:
        return None
    crypto.NCONF_dump_bio(conf, memory)
    pointer = ctypes.c_void_p()
    size = crypto.BIO_ctrl(memory, 3, 0, ctypes.byref(pointer))  # BIO_CTRL_INFO: the buffer and its length
    sections: dict[str, dict[str, str]] = {"default": {}}
    section = key = ""
    for line in ctypes.string_at(pointer, size).decode().removesuffix("\n").split("\n"):
        if line.startswith("[["):
            sections.setdefault(line[2:-2], {})
        elif line.startswith("["):
            section, _, rest = line[1:].partition("] ")
            key, _, value = rest.partition("=")
            sections.setdefault(section, {})[key] = value
        else:
            sections[section][key] += f"\n{line}"  # the value itself has a line break
    return sections


def ours(path: Path) -> dict[str, dict[str, str]] | None:
    try:
        return read_config(path).sections
    except OnboardingError:
        return None


@pytest.mark.parametrize("text", ODD_CASES.values(), ids=ODD_CASES.keys())
def test_odd_files_read_as_libcrypto_reads_them(text: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.cnf"
    path.write_bytes(text.encode())
    expected = libcrypto_reads(path)
    assert expected is not None
    assert ours(path) == expected


@pytest.mark.parametrize("path", [GUIDE_CONFIG, Path("/etc/ssl/openssl.cnf")])
def test_real_files_read_as_libcrypto_reads_them(path: Path) -> None:
    if not path.exists():
        pytest.skip(f"{path} is not on this machine")
    assert ours(path) == libcrypto_reads(path)


words = st.text(
    "ab1 ='\"\\$#{}()`:\t[]", max_size=20
)  # no "n": a line break in a value makes libcrypto's dump ambiguous


@examples(500)
@given(st.lists(words, max_size=5))
def test_any_value_reads_as_libcrypto_reads_it(tmp_path_factory: pytest.TempPathFactory, values: list[str]) -> None:
    path = tmp_path_factory.getbasetemp() / "any.cnf"
    path.write_text("[ s ]\n" + "\n".join(f"k{number} = {value}" for number, value in enumerate(values)) + "\n")
    assert ours(path) == libcrypto_reads(path)


@pytest.mark.parametrize("name", ["plain", "with space", "a#b", "a$b", "back\\slash", "it's", 'quo"te', " edge", "ünï"])
def test_openssl_finds_the_folder_whatever_its_name(name: str, tmp_path: Path, openssl: Run) -> None:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "caConfig.cnf").write_bytes(guide_config(folder))
    config = read_config(folder / "caConfig.cnf")
    assert Path(config.ca("dir")) == folder
    assert config.ca("database") == f"{folder.as_posix()}/database.txt"
    assert libcrypto_reads(folder / "caConfig.cnf") == config.sections


def test_only_the_dir_line_changes(tmp_path: Path) -> None:
    before = guide_config(tmp_path / "one").decode().splitlines()
    (tmp_path / "config.cnf").write_text("\n".join(before))
    after = with_dir(tmp_path / "config.cnf", tmp_path / "two").decode().splitlines()
    assert [a for a, b in zip(after, before, strict=True) if a != b] == [f"dir               = {tmp_path}/two"]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("commonName              = supplied", "commonName = demanded", "write match, supplied or optional"),
        ("commonName              = supplied", "nickName = optional", "names the field nickName"),
        ("policy            = signing_policy", "policy = other", "has no section"),
    ],
)
def test_a_wrong_policy_is_refused(old: str, new: str, says: str, tmp_path: Path) -> None:
    text = guide_config(tmp_path).decode()
    assert old in text
    (tmp_path / "bad.cnf").write_text(text.replace(old, new))
    with pytest.raises(OnboardingError, match=says):
        _ = read_config(tmp_path / "bad.cnf").policy


# Names ----------------------------------------------------------------------------------------------------------------

ODD = ["Mün/chen+Ulm", '"quoted"', "<script>alert(1)</script>", "$(reboot)", "../x", "O'Brien", "back\\slash", "日本"]
legal_text = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=30)


@given(legal_text.filter(lambda text: len(text.encode()) <= 64), legal_text)
def test_any_legal_name_round_trips(common_name: str, locality: str) -> None:
    name = DistinguishedName(locality=locality, common_name=common_name)
    assert DistinguishedName.from_x509(x509.Name.from_bytes(name.to_x509().public_bytes())) == name
    assert "\n" not in oneline(name.to_x509()) and oneline(name.to_x509()).isascii()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"country": "GER"}, "two-letter code"),
        ({"country": "D"}, "two-letter code"),
        ({"country": "ÖÄ"}, "two-letter code"),
        ({"common_name": "x" * 65}, "65 long"),
        ({"common_name": "a\nb"}, "line break"),
        ({"locality": "a\x00b"}, "control character"),
        ({"organization": "x" * 65}, "65 long"),
        ({"email": "jürgen@example.com"}, "ASCII"),
    ],
)
def test_refused_values_are_named_in_one_sentence(values: dict[str, str], says: str) -> None:
    with pytest.raises(OnboardingError, match=says) as caught:
        DistinguishedName(**values)
    assert "\n" not in str(caught.value)


def test_an_empty_answer_leaves_the_field_out() -> None:
    assert DistinguishedName(country="", common_name="a") == DistinguishedName(common_name="a")


def test_a_second_value_and_an_unknown_field_are_refused() -> None:
    twice = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text) for text in ("a", "b")])
    with pytest.raises(OnboardingError, match="two values"):
        DistinguishedName.from_x509(twice)
    unknown = x509.Name([x509.NameAttribute(x509.NameOID.SURNAME, "a")])
    with pytest.raises(OnboardingError, match="configuration does not have"):
        DistinguishedName.from_x509(unknown)


@pytest.mark.parametrize("value", [*ODD, "x" * 64, "  edges  "])
def test_openssl_reads_the_same_name(value: str, openssl: Run, tmp_path: Path) -> None:
    name = DistinguishedName("DE", "Bayern", value[:20], value[:60], "OU", value, "a@example.com")
    path = tmp_path / "request.pem"
    path.write_bytes(request(name).public_bytes(Encoding.PEM))
    shown = openssl("req", "-in", path, "-noout", "-subject", "-nameopt", "compat")
    assert shown.stdout.removeprefix("subject=").strip("\n") == oneline(name.to_x509())


def test_readable_is_openssls_subject_line() -> None:
    name = DistinguishedName(country="DE", common_name="device")
    assert readable(name.to_x509()) == "C=DE, CN=device" == str(name)
