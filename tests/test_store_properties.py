"""What holds for every store: nothing is lost in it, and whatever becomes of its bytes is noticed."""

import re
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from conftest import Run, examples
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import assume, given
from hypothesis import strategies as st

from mciot_nb import DistinguishedName, OnboardingError
from mciot_nb.pki import jks, keystore, pbe
from mciot_nb.pki.keys import PrivateKey
from mciot_nb.pki.keystore import (
    KEY_ENTRY,
    TRUSTED_ENTRY,
    Entry,
    read_key,
    read_store,
    write_keystore,
    write_truststore,
)

PASSWORD = "Kaffee-42 ok?"
NOTICED = {"DAMAGED", "WRONG_PASSPHRASE", "NO_STORE", "ODD_STORE"}


def certificate(name: str, key: PrivateKey, issuer: str, signer: PrivateKey) -> x509.Certificate:
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder(
        DistinguishedName(common_name=issuer).to_x509(), DistinguishedName(common_name=name).to_x509()
    )
    builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    return builder.not_valid_before(begin).not_valid_after(begin + timedelta(3650)).sign(signer, SHA256())


KEY, _middle_key, _root_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
LONG_KEY = ec.generate_private_key(ec.SECP384R1())
LEAF, LONG_LEAF = (certificate("leaf", key, "middle 2", _middle_key) for key in (KEY, LONG_KEY))
#: Who signed the leaves, up to the root.
ISSUERS = (
    certificate("middle 2", _middle_key, "middle", _middle_key),
    certificate("middle", _middle_key, "root", _root_key),
    certificate("root", _root_key, "root", _root_key),
)
CHAIN = (LEAF, *ISSUERS)
POOL = (*CHAIN, LONG_LEAF)

aliases = st.text("abcdefghijklmnopqrstuvwxyz0123456789._-", min_size=1, max_size=64)
passwords = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=6, max_size=80)
times = st.datetimes(timezones=st.just(UTC)).map(lambda time: time.replace(microsecond=time.microsecond // 1000 * 1000))
certificates = st.sampled_from(POOL)
trusted = st.dictionaries(aliases, certificates, min_size=1, max_size=6)
owners = st.sampled_from([(KEY, LEAF), (LONG_KEY, LONG_LEAF)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stores")


# Nothing is lost.


@given(st.binary(max_size=3000), st.text(), st.text())
def test_an_encrypted_key_comes_back_for_its_password_only(key: bytes, password: str, other: str) -> None:
    encrypted = jks.encrypt_key(key, password)
    assert jks.decrypt_key(encrypted, password) == key
    assume(other != password)
    with pytest.raises(pbe.WrongPassword):
        jks.decrypt_key(encrypted, other)


NAMES = st.sampled_from(["any.jks", "any.pkcs12"])
OTHERS = st.dictionaries(aliases, certificates)


@examples(100)
@given(NAMES, owners, st.integers(0, 3), st.tuples(aliases, passwords, passwords), OTHERS, times)
def test_a_keystore_gives_back_all_that_is_in_it(
    folder: Path,
    name: str,
    owner: tuple[PrivateKey, x509.Certificate],
    issuers: int,
    words: tuple[str, str, str],
    others: dict[str, x509.Certificate],
    at: datetime,
) -> None:
    (key, leaf), (alias, password, key_password), path = owner, words, folder / name
    chain, is_jks = (leaf, *ISSUERS[:issuers]), name.endswith("jks")
    assume(alias not in others)
    if not is_jks:
        key_password, others = password, {}
    options = {"key_password": key_password, "trusted": others, "at": at + timedelta(microseconds=999)}  # to the ms
    write_keystore(path, key, chain, password, alias, **options, replace=True)
    store, created = read_store(path, password), at if is_jks else None
    listed = [Entry(other, TRUSTED_ENTRY, (found,), at) for other, found in others.items()]
    assert store.entries == (Entry(alias, KEY_ENTRY, chain, created), *listed)
    assert (store.type, store.remark, store.trusted) == ("JKS" if is_jks else "PKCS12", "", others)
    found, its_chain = read_key(path, password, key_password, alias)
    assert (found.private_numbers(), its_chain) == (key.private_numbers(), chain)
    if key_password != password:
        with pytest.raises(OnboardingError) as caught:
            read_key(path, password)
        assert caught.value.code == "WRONG_KEY_PASSWORD"


@examples(50)
@given(trusted, passwords, times)
def test_a_truststore_gives_back_its_certificates(
    folder: Path, made: dict[str, x509.Certificate], password: str, at: datetime
) -> None:
    for name, time in (("any-trust.jks", at), ("any-trust.pkcs12", None)):
        write_truststore(folder / name, made, password, at=at, replace=True)
        store = read_store(folder / name, password)
        assert store.entries == tuple(Entry(alias, TRUSTED_ENTRY, (one,), time) for alias, one in made.items())
        assert store.trusted == made and store.remark == ""


# Whatever becomes of the bytes is noticed.

SENTENCE = re.compile(r"(?!.*(Traceback|[a-z]Error\b|Exception|codec| object at 0x|\bNone\b|[{}]))[^\n]+\.")


def reading(data: bytes) -> object:
    """Return all that is in a store of these bytes, or the code of the sentence with which it is refused."""
    with pytest.MonkeyPatch.context() as patch:  # thousands of files would be slow to write
        patch.setattr(keystore, "read_file", lambda *_: data)
        try:
            store = read_store(Path("any"), PASSWORD)
            if all(entry.kind != KEY_ENTRY for entry in store.entries):
                return store
            key, chain = read_key(Path("any"), PASSWORD)
        except OnboardingError as error:
            assert SENTENCE.fullmatch(str(error)), str(error)
            return error.code
    return store, key.private_numbers(), chain


@pytest.fixture(scope="module", params=["key.jks", "trust.jks", "key.pkcs12", "trust.pkcs12"])
def good(request: pytest.FixtureRequest, folder: Path) -> bytes:
    path = folder / str(request.param)
    if path.stem == "key":
        write_keystore(path, KEY, [LEAF], PASSWORD, replace=True)  # in another order it is made once more
    else:
        write_truststore(path, {"server": LEAF}, PASSWORD, replace=True)
    assert not isinstance(reading(path.read_bytes()), str), "the control"
    return path.read_bytes()


def flips(data: bytes, every: int) -> Iterator[tuple[str, bytes]]:
    """Yield ``data`` with one bit flipped: of the first bytes each bit, then one in ``every``; and where it is."""
    for place in [*range(128), *range(128, 8 * len(data), every)]:
        at, bit = divmod(place, 8)
        yield f"byte {at}, bit {bit}", data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


@pytest.mark.parametrize("every", [61, pytest.param(1, marks=pytest.mark.slow)])
def test_a_flipped_bit_and_an_early_end_are_noticed(good: bytes, every: int) -> None:
    cut = ((f"after {length} bytes", good[:length]) for length in range(0, len(good), every))
    read = ((what, reading(data)) for what, data in (*flips(good, every), *cut))
    assert [f"{what}: {found}" for what, found in read if found not in NOTICED] == []


@given(more=st.binary(min_size=1, max_size=300))
def test_a_store_that_goes_on_is_noticed(good: bytes, more: bytes) -> None:
    assert reading(good + more) in NOTICED


@examples(200)
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 40), st.binary(max_size=5)), min_size=1, max_size=4))
def test_a_damaged_store_is_refused_in_a_sentence(good: bytes, cuts: list[tuple[float, int, bytes]]) -> None:
    for place, length, put in cuts:
        at = int(place * len(good))
        good = good[:at] + put + good[at + length :]
    reading(good)


@pytest.mark.parametrize("every", [61, pytest.param(1, marks=pytest.mark.slow)])
def test_a_store_without_a_mac_is_read_or_refused_in_a_sentence(every: int, tmp_path: Path, openssl: Run) -> None:
    """Nothing guards such a store but the padding of its encryption: here flipped bits reach every parser."""
    key = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "both.pem").write_bytes(key + LEAF.public_bytes(Encoding.PEM))
    path = tmp_path / "store.pkcs12"
    make = ["-export", "-in", tmp_path / "both.pem", "-nomac", "-iter", "1", "-out", path, "-passout", "stdin"]
    openssl("pkcs12", *make, input=PASSWORD)
    assert not isinstance(reading(path.read_bytes()), str)
    for _, data in flips(path.read_bytes(), every):
        reading(data)


# Bytes from anywhere.


def in_asn1(content: bytes) -> bytes:
    return b"\x30\x82" + len(content).to_bytes(2) + content


any_bytes = st.binary(max_size=300)
MAGIC = b"\xfe\xed\xfe\xed"


@examples(500)
@given(
    st.one_of(
        any_bytes,
        any_bytes.map(lambda data: MAGIC + data),
        st.tuples(st.integers(0, 3), any_bytes).map(lambda it: MAGIC + b"\0\0\0\2\0\0\0" + bytes(it[:1]) + it[1]),
        any_bytes.map(lambda data: b"\x30\x82" + data),
        any_bytes.map(in_asn1),
        any_bytes.map(lambda data: in_asn1(b"\x02\x01\x03" + data)),
        any_bytes.map(lambda data: in_asn1(b"\x02\x01\x03\x30" + data)),
        any_bytes.map(lambda data: b"\xce\xce\xce\xce" + data),
    )
)
def test_any_bytes_are_refused_in_a_sentence(data: bytes) -> None:
    assert reading(data) in NOTICED


def entry(tag: int, *numbers: int) -> bytes:
    """Begin a JKS that claims one entry, without alias, and what else ``numbers`` say."""
    fields = [tag.to_bytes(4), bytes(2), bytes(8), *(number.to_bytes(4) for number in numbers)]
    return MAGIC + b"\0\0\0\2\0\0\0\1" + b"".join(fields)


def test_a_claim_costs_no_memory() -> None:
    """The control is the last one: a store of a megabyte does show in what is measured."""
    most, rest = 2**32 - 1, bytes(40)
    claims = [
        MAGIC + b"\0\0\0\2" + most.to_bytes(4) + rest,
        entry(1, most) + rest,
        entry(1, 1) + b"x" + most.to_bytes(4) + rest,
        entry(1, 0, most) + b"\0\5X.509" + most.to_bytes(4) + rest,
        entry(2) + b"\0\5X.509" + most.to_bytes(4) + rest,
        entry(2) + b"\xff\xffX.509" + rest,
        b"\x30\x88" + (2**63).to_bytes(8) + rest,
        in_asn1(b"\x02\x01\x03\x30\x88" + (2**63).to_bytes(8) + rest),
        jks.dump([jks.Entry("a", KEY_ENTRY, (LEAF,), datetime.now(UTC), bytes(2**20))], PASSWORD),
    ]
    peaks = []
    for data in claims:
        tracemalloc.start()
        found = reading(data)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert found in NOTICED or data is claims[-1]
    assert max(peaks[:-1]) < 2**20 < peaks[-1]


@pytest.mark.parametrize("what", [["-certpbe", "NONE"], ["-nomac"]], ids=["MAC", "encryption"])
def test_a_store_that_asks_for_endless_work_is_refused(what: list[str], tmp_path: Path, openssl: Run) -> None:
    """Java takes 5 million rounds at most, and a file can ask for thousands of millions: they are not begun."""
    (tmp_path / "leaf.pem").write_bytes(LEAF.public_bytes(Encoding.PEM))
    path, rounds = tmp_path / "store.pkcs12", b"\x02\x03\x02\x00\x00"
    export = ["-export", "-nokeys", "-in", tmp_path / "leaf.pem", *what, "-out", path, "-passout", "stdin"]
    openssl("pkcs12", *export, "-iter", 2**17, input=f"{PASSWORD}\n")
    data = path.read_bytes()
    assert data.count(rounds) == 1 and not isinstance(reading(data), str), "the control"
    path.write_bytes(data.replace(rounds, b"\x02\x03\x7f\xff\xff"))
    with pytest.raises(OnboardingError, match="5 million times"):
        read_store(path, PASSWORD)
