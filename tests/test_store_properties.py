"""What holds for every store: nothing is lost in it, and whatever becomes of its bytes is noticed."""

import itertools
import subprocess
import sys
import tracemalloc
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from conftest import Run
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_fuzz import mutated, only_sentences

from mciot_nb import DistinguishedName, OnboardingError
from mciot_nb.pki import jks
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
RSA_KEY = rsa.generate_private_key(65537, 2048)
LEAF, RSA_LEAF = (certificate("leaf", key, "middle 2", _middle_key) for key in (KEY, RSA_KEY))
#: Who signed the leaves, up to the root.
ISSUERS = (
    certificate("middle 2", _middle_key, "middle", _middle_key),
    certificate("middle", _middle_key, "root", _root_key),
    certificate("root", _root_key, "root", _root_key),
)
CHAIN = (LEAF, *ISSUERS)
POOL = (*CHAIN, RSA_LEAF)

aliases = st.text("abcdefghijklmnopqrstuvwxyz0123456789._-", min_size=1, max_size=64)
passwords = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=6, max_size=80)
times = st.datetimes(timezones=st.just(UTC)).map(lambda time: time.replace(microsecond=time.microsecond // 1000 * 1000))
certificates = st.sampled_from(POOL)
chains = st.lists(certificates, max_size=4).map(tuple)
trusted = st.dictionaries(aliases, certificates, min_size=1, max_size=6)
owners = st.sampled_from([(KEY, LEAF), (RSA_KEY, RSA_LEAF)])
entries = st.one_of(
    st.builds(jks.JksEntry, aliases, times, st.tuples(certificates)),
    st.builds(jks.JksEntry, aliases, times, chains, st.builds(jks.encrypt_key, st.binary(max_size=300), passwords)),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stores")


# Nothing is lost.


@given(st.lists(entries, max_size=6, unique_by=lambda entry: entry.alias), passwords, passwords)
def test_what_a_jks_is_made_of_comes_back(made: list[jks.JksEntry], password: str, other: str) -> None:
    data = jks.dump(made, password)
    assert jks.load(data, password) == made
    assume(other != password)
    with pytest.raises(jks.WrongPassword):
        jks.load(data, other)


@given(st.binary(max_size=3000), st.text(), st.text())
def test_a_sealed_key_comes_back_for_its_password_only(key: bytes, password: str, other: str) -> None:
    sealed = jks.encrypt_key(key, password)
    assert jks.decrypt_key(sealed, password) == key
    assume(other != password)
    with pytest.raises(jks.WrongPassword):
        jks.decrypt_key(sealed, other)


def test_a_time_is_kept_to_the_millisecond_and_no_further() -> None:
    finest = datetime(2026, 11, 24, 12, 0, 0, 123456, tzinfo=UTC)
    (entry,) = jks.load(jks.dump([jks.JksEntry("a", finest, (LEAF,))], PASSWORD), PASSWORD)
    assert entry.created == finest.replace(microsecond=123000)


@settings(max_examples=50)
@given(owners, st.integers(0, 3), aliases, passwords, passwords, st.dictionaries(aliases, certificates), times)
def test_a_jks_gives_back_key_chain_and_trusted(
    folder: Path,
    owner: tuple[PrivateKey, x509.Certificate],
    issuers: int,
    alias: str,
    password: str,
    key_password: str,
    others: dict[str, x509.Certificate],
    at: datetime,
) -> None:
    assume(alias not in others)
    (key, leaf), path = owner, folder / "any.jks"
    chain = (leaf, *ISSUERS[:issuers])
    write_keystore(path, key, chain, password, alias, key_password=key_password, trusted=others, at=at, replace=True)
    store = read_store(path, password)
    listed = [Entry(name, TRUSTED_ENTRY, (found,), at) for name, found in others.items()]
    assert store.entries == (Entry(alias, KEY_ENTRY, chain, at), *listed)
    assert (store.type, store.remark, store.trusted) == ("JKS", "", others)
    found, its_chain = read_key(path, password, key_password, alias)
    assert (found.private_numbers(), its_chain) == (key.private_numbers(), chain)
    assume(key_password != password)
    with pytest.raises(OnboardingError) as caught:
        read_key(path, password)
    assert caught.value.code == "WRONG_KEY_PASSWORD"


@settings(max_examples=50)
@given(owners, st.integers(0, 3), aliases, passwords, st.booleans())
def test_a_pkcs12_gives_back_key_and_chain(
    folder: Path,
    owner: tuple[PrivateKey, x509.Certificate],
    issuers: int,
    alias: str,
    password: str,
    legacy: bool,
) -> None:
    (key, leaf), path = owner, folder / "any.pkcs12"
    chain = (leaf, *ISSUERS[:issuers])
    write_keystore(path, key, chain, password, alias, legacy=legacy, replace=True)
    store = read_store(path, password)
    assert store.entries == (Entry(alias, KEY_ENTRY, chain),)
    assert (store.type, store.remark, store.trusted) == ("PKCS12", "", {})
    found, its_chain = read_key(path, password, alias=alias)
    assert (found.private_numbers(), its_chain) == (key.private_numbers(), chain)


@settings(max_examples=50)
@given(trusted, passwords, times, st.booleans())
def test_a_truststore_gives_back_its_certificates(
    folder: Path, made: dict[str, x509.Certificate], password: str, at: datetime, legacy: bool
) -> None:
    for name, time in (("any-trust.jks", at), ("any-trust.pkcs12", None)):
        write_truststore(folder / name, made, password, legacy=legacy, at=at, replace=True)
        store = read_store(folder / name, password)
        assert store.entries == tuple(Entry(alias, TRUSTED_ENTRY, (one,), time) for alias, one in made.items())
        assert store.trusted == made and store.remark == ""


# Whatever becomes of the bytes is noticed.


@pytest.fixture(scope="module", params=["key.jks", "trust.jks", "key.pkcs12", "trust.pkcs12"])
def good(request: pytest.FixtureRequest, folder: Path) -> bytes:
    path = folder / str(request.param)
    if path.stem == "key":
        write_keystore(path, KEY, [LEAF], PASSWORD)
    else:
        write_truststore(path, {"server": LEAF}, PASSWORD)
    return path.read_bytes()


def reading(path: Path, data: bytes) -> object:
    """Read all that is in a store of these bytes; gives a code where that is refused."""
    path.write_bytes(data)
    try:
        store = read_store(path, PASSWORD)
        if all(entry.kind != KEY_ENTRY for entry in store.entries):
            return store
        key, chain = read_key(path, PASSWORD)
        return store, key.private_numbers(), chain
    except OnboardingError as error:
        return error.code


def test_every_flipped_bit_is_noticed(good: bytes, tmp_path: Path) -> None:
    path, wrong = tmp_path / "flipped", []
    as_before = reading(path, good)
    assert not isinstance(as_before, str), "the control"
    for place, bit in itertools.product(range(len(good)), range(8)):
        flipped = bytearray(good)
        flipped[place] ^= 1 << bit
        try:
            found = reading(path, bytes(flipped))
        except Exception as error:
            found = repr(error)
        if found not in NOTICED:
            wrong.append(f"byte {place}, bit {bit}: {'read as before' if found == as_before else found}")
    assert not wrong, "\n".join([f"{len(wrong)} of {8 * len(good)} bits:", *wrong])


def test_a_store_that_ends_early_is_noticed(good: bytes, tmp_path: Path) -> None:
    path = tmp_path / "cut"
    assert not isinstance(reading(path, good), str)
    for length in range(len(good)):
        assert reading(path, good[:length]) in NOTICED, f"after {length} bytes"


@given(more=st.binary(min_size=1, max_size=300))
def test_a_store_that_goes_on_is_noticed(good: bytes, folder: Path, more: bytes) -> None:
    assert reading(folder / "longer", good + more) in NOTICED


# Bytes from anywhere.


def in_asn1(content: bytes) -> bytes:
    return b"\x30\x82" + len(content).to_bytes(2) + content


any_bytes = st.binary(max_size=300)
MAGIC = b"\xfe\xed\xfe\xed"


@settings(max_examples=500)
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
def test_any_bytes_are_refused_in_a_sentence(folder: Path, data: bytes) -> None:
    path = folder / "anything"
    path.write_bytes(data)
    assert not only_sentences(lambda: read_store(path, PASSWORD))
    assert not only_sentences(lambda: read_key(path, PASSWORD))


@settings(max_examples=200)
@given(data=st.data())
def test_a_damaged_store_is_refused_in_a_sentence(good: bytes, folder: Path, data: st.DataObject) -> None:
    path = folder / "damaged"
    path.write_bytes(data.draw(mutated(good)))
    only_sentences(lambda: (read_store(path, PASSWORD), read_key(path, PASSWORD)))


def entry(tag: int, *numbers: int) -> bytes:
    """Begin a JKS that claims one entry, without alias, and what else ``numbers`` say."""
    fields = [tag.to_bytes(4), bytes(2), bytes(8), *(number.to_bytes(4) for number in numbers)]
    return MAGIC + b"\0\0\0\2\0\0\0\1" + b"".join(fields)


MOST = 2**32 - 1


@pytest.mark.parametrize(
    "data",
    [
        MAGIC + b"\0\0\0\2" + MOST.to_bytes(4) + bytes(40),
        entry(1, MOST) + bytes(40),
        entry(1, 1) + b"x" + MOST.to_bytes(4) + bytes(40),
        entry(1, 0, MOST) + b"\0\5X.509" + MOST.to_bytes(4) + bytes(40),
        entry(2) + b"\0\5X.509" + MOST.to_bytes(4) + bytes(40),
        entry(2) + b"\xff\xffX.509" + bytes(40),
        b"\x30\x88" + (2**63).to_bytes(8) + bytes(40),
        b"\x30\x84\xff\xff\xff\xff" + bytes(40),
        in_asn1(b"\x02\x01\x03\x30\x88" + (2**63).to_bytes(8) + bytes(40)),
        in_asn1(b"\x02\x01\x03\x30\x84\xff\xff\xff\xff" + bytes(40)),
    ],
    ids=["entries", "key", "chain", "its first", "trusted", "name", "DER", "DER 4", "inner DER", "inner DER 4"],
)
def test_a_claim_costs_no_memory(data: bytes, tmp_path: Path) -> None:
    """The control is the second reading: a store of a megabyte does show in what is measured."""
    big = jks.dump([jks.JksEntry("a", datetime.now(UTC), (LEAF,), bytes(2**20))], PASSWORD)
    peaks, expected = [], []
    for content in (data, big):
        (tmp_path / "claims").write_bytes(content)
        tracemalloc.start()
        expected.append(only_sentences(lambda: read_store(tmp_path / "claims", PASSWORD)))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert expected == [False, True]
    assert peaks[0] < 2**20 < peaks[1]


READ_IN_A_CHILD = """
import sys
from pathlib import Path
from mciot_nb import OnboardingError
from mciot_nb.pki.keystore import read_store
try:
    print(read_store(Path(sys.argv[1]), input()).type)
except OnboardingError as error:
    print("refused", error.code)
"""


@pytest.mark.parametrize("what", [["-certpbe", "NONE"], ["-nomac"]], ids=["MAC", "encryption"])
def test_a_store_that_asks_for_endless_work_is_refused(what: list[str], tmp_path: Path, openssl: Run) -> None:
    """Java takes 5 million rounds at most. The time limit only ends what would go on for minutes."""
    (tmp_path / "leaf.pem").write_bytes(LEAF.public_bytes(Encoding.PEM))
    export = ["pkcs12", "-export", "-nokeys", "-in", tmp_path / "leaf.pem", *what, "-passout", "stdin"]
    said = {}
    for rounds in (2048, 2**23):
        path = tmp_path / f"{rounds}.pkcs12"
        openssl(*export, "-iter", rounds, "-out", path, input=f"{PASSWORD}\n")
        if rounds == 2**23:  # four bytes in ASN.1, as many as the most has
            data = path.read_bytes()
            assert data.count(b"\x02\x04\x00\x80\x00\x00") == 1
            path.write_bytes(data.replace(b"\x02\x04\x00\x80\x00\x00", b"\x02\x04\x7f\xff\xff\xff"))
        command = [sys.executable, "-c", READ_IN_A_CHILD, str(path)]
        done = subprocess.run(command, input=PASSWORD, text=True, capture_output=True, timeout=20)
        said[rounds] = done.stdout.strip() or done.stderr
    assert said[2048] == "PKCS12" and said[2**23].startswith("refused")


def test_a_store_without_a_mac_is_read_or_refused_in_a_sentence(tmp_path: Path, openssl: Run) -> None:
    """Nothing guards such a store but the padding of its encryption: here flipped bits reach every parser."""
    key = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "both.pem").write_bytes(key + LEAF.public_bytes(Encoding.PEM))
    path, wrong = tmp_path / "store.pkcs12", []
    openssl(
        "pkcs12", "-export", "-in", tmp_path / "both.pem", "-nomac", "-out", path, "-passout", "stdin", input=PASSWORD
    )
    good = path.read_bytes()
    assert not isinstance(reading(path, good), str)
    for place, bit in itertools.product(range(len(good)), range(8)):
        flipped = bytearray(good)
        flipped[place] ^= 1 << bit
        try:
            reading(path, bytes(flipped))
        except Exception as error:
            wrong.append(f"byte {place}, bit {bit}: {error!r}")
    assert not wrong, "\n".join([f"{len(wrong)} of {8 * len(good)} bits:", *wrong])
