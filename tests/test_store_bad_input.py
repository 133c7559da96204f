"""Whatever is wrong with a store, or with what is to go into one: one plain sentence, and the folder is as it was."""

import hashlib
import os
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from conftest import Run
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from test_store_properties import CHAIN, ISSUERS, KEY, LEAF, PASSWORD, SENTENCE, certificate

from mciot_nb import OnboardingError
from mciot_nb.pki import jks, pkcs12
from mciot_nb.pki.keystore import KEY_ENTRY, read_key, read_store, write_keystore, write_truststore
from mciot_nb.secret import Secret

OTHER_KEY = ec.generate_private_key(ec.SECP256R1())
OTHER_PASSWORD = "Tee-42 auch ok"
NOW = datetime(2026, 11, 24, tzinfo=UTC)
LEAF_ONLY = (LEAF,)
MIDDLE_2, MIDDLE, ROOT = ISSUERS
posix = pytest.mark.skipif(os.name == "nt", reason="Windows protects by the user's profile")


def everything(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return every name in a folder with its rights and bytes, hidden drafts too."""
    found = [path for path in [folder, *folder.rglob("*")] if path.exists()]
    return {str(path): (path.stat().st_mode, path.read_bytes() if path.is_file() else b"") for path in found}


def refused(folder: Path, code: str, call: Callable[..., object], *arguments: Any, **options: Any) -> str:
    """See that a call is refused with a code, in one plain sentence and nothing else, and changes nothing."""
    before = everything(folder)
    with warnings.catch_warnings(record=True) as warned, pytest.raises(OnboardingError) as caught:
        warnings.simplefilter("always")
        call(*arguments, **options)
    sentence = str(caught.value)
    assert caught.value.code == code, f"{caught.value.code}: {sentence}"
    assert everything(folder) == before
    assert SENTENCE.fullmatch(sentence), sentence
    secrets = [PASSWORD, OTHER_PASSWORD, *(one.reveal() for one in arguments if isinstance(one, Secret))]
    assert not [one for one in secrets if len(one) > 1 and one in sentence]
    shown = [one.message for one in warned if one.category is not ResourceWarning]  # of what an earlier test has left
    assert not shown, f"a notebook would show this: {shown}"
    return sentence


PLAIN, OTHER_PLAIN = (key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()) for key in (KEY, OTHER_KEY))


def encrypted(alias: str = "key", chain: Any = LEAF_ONLY, key: bytes = PLAIN, password: str = PASSWORD) -> jks.Entry:
    return jks.Entry(alias, KEY_ENTRY, chain, NOW, jks.encrypt_key(key, password))


def jks_of(folder: Path, *entries: jks.Entry) -> Path:
    (folder / "made.jks").write_bytes(jks.dump(entries, PASSWORD))
    return folder / "made.jks"


@pytest.fixture(params=["store.jks", "store.pkcs12"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A good store with a key in a folder: the control, read before anything is done to it."""
    path = tmp_path / str(request.param)
    write_keystore(path, KEY, CHAIN, PASSWORD)
    assert read_store(path, PASSWORD).entries[0].chain == CHAIN
    assert read_key(path, PASSWORD)[1] == CHAIN
    return path


# Files that are no good.


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (bytes(4096), "is empty"),
        (b'{"alias": "devicekeyentry"}\n', "not a keystore of a known kind"),
        (bytes(range(255, 0, -1)), "not a keystore of a known kind"),
        (LEAF.public_bytes(Encoding.PEM), "PEM"),
        (b"Bag Attributes\n" + LEAF.public_bytes(Encoding.PEM), "PEM"),
        (LEAF.public_bytes(Encoding.DER), "certificate"),
        (b"\0\0\0\1" + b"\0\0\0\x14" + bytes(range(20)) + b"\0\0\x04\0" + b"\1", "BKS"),
        (b"\0\0\0\2" + b"\0\0\0\x14" + bytes(range(20)) + b"\0\0\x04\0" + b"\1", "BKS"),
        (b"\xce\xce\xce\xce\0\0\0\2" + bytes(60), "is a JCEKS, which is not read here: keytool -importkeystore"),
    ],
    ids=["empty", "zeros", "JSON", "anything", "PEM", "PEM with a head", "DER", "BKS 1", "BKS 2", "JCEKS"],
)
def test_a_file_of_another_kind_is_named(store: Path, content: bytes, says: str) -> None:
    store.write_bytes(content)
    for read in (read_store, read_key):
        assert says in refused(store.parent, "NO_STORE", read, store, PASSWORD)


@pytest.mark.parametrize("opened", [b"\x30\x80", b"\x24\x80"])
def test_a_file_that_is_nested_deep_is_refused_at_once(store: Path, opened: bytes) -> None:
    store.write_bytes(b"\x30\x80" + opened * 20_000 + b"\4\1x" * 9999 + bytes(50_000))
    refused(store.parent, "DAMAGED", read_store, store, PASSWORD)
    store.write_bytes(b"\x30\x80\2\1\3\x30\x80" + opened * 9 + b"\4\1x" * 9999 + bytes(24))
    refused(store.parent, "DAMAGED", read_store, store, PASSWORD)


def test_what_can_not_be_read_is_named(store: Path) -> None:
    missing = store.with_stem("missing")
    assert "There is no store" in refused(store.parent, "NO_FILE", read_store, missing, PASSWORD)
    missing.mkdir()
    refused(store.parent, "DISK", read_store, missing, PASSWORD)
    refused(store.parent, "DISK", read_key, missing, PASSWORD)
    refused(store.parent, "NO_FILE", read_store, missing / "no folder" / "a.jks", PASSWORD)


def test_a_store_by_the_wrong_name_is_read_with_a_remark(store: Path) -> None:
    crossed = store.with_name("crossed.p12" if store.suffix == ".jks" else "crossed.jks")
    crossed.write_bytes(store.read_bytes())
    here, there = read_store(store, PASSWORD), read_store(crossed, PASSWORD)
    assert here.remark == "" and there.remark.endswith(".") and "name" in there.remark
    assert (there.type, there.entries) == (here.type, here.entries)
    assert read_key(crossed, PASSWORD)[1] == CHAIN
    refused(store.parent, "WRONG_PASSPHRASE", read_store, crossed, OTHER_PASSWORD)


# Passwords.

NOT_ASCII = ["Kaffee-Ölkanne", "Kaffee-\N{HOT BEVERAGE}", "Kaffee\t42", "Kaffee-42\0", "Kaffee-42 ok\udcff"]
OTHERS = [OTHER_PASSWORD, "", "short", PASSWORD[:-1], PASSWORD + "\0", *NOT_ASCII]


@pytest.mark.parametrize("other", OTHERS, ids=ascii)
def test_another_password_opens_no_store(store: Path, other: str) -> None:
    refused(store.parent, "WRONG_PASSPHRASE", read_store, store, Secret(other))
    refused(store.parent, "WRONG_PASSPHRASE", read_key, store, Secret(other))


# What is to go into a store.

NEW = pytest.mark.parametrize("name", ["new.jks", "new.p12"])
#: Java's aliases have no case: of "ok" and "OK" one would replace the other when it opens the file.
BAD_ALIASES = ["OK", "DeviceKeyEntry", "", 65 * "a", "a b", "a/b", "köln", "a\n", "a\0", "\udcff"]
BAD_NAMES = ["store", "store.txt", "store.jks.bak", ".jks", "store.pem"]
GOOD: dict[str, Any] = {"key": KEY, "chain": CHAIN, "password": "six ok"}
BAD_CHAINS = [
    (OTHER_KEY, CHAIN, "KEY_MISMATCH"),
    (KEY, (), "KEY_MISMATCH"),
    (KEY, CHAIN[::-1], "KEY_MISMATCH"),
    (KEY, (LEAF, MIDDLE, MIDDLE_2, ROOT), "CHAIN_ORDER"),
    (KEY, (LEAF, MIDDLE_2, ROOT), "CHAIN_ORDER"),
    (KEY, (LEAF, LEAF, *ISSUERS), "CHAIN_ORDER"),
    (KEY, (*CHAIN, ROOT), "CHAIN_ORDER"),
]
#: What is wrong with the keystore that is to be written, and the code of the refusal.
BAD_KEYSTORES: list[tuple[dict[str, Any], str]] = [
    *(({"key": key, "chain": chain}, code) for key, chain, code in BAD_CHAINS),
    *(({"password": bad}, "BAD_PASSPHRASE") for bad in ("", "short", *NOT_ASCII)),
    *(({"name": "new.jks", "key_password": bad}, "BAD_PASSPHRASE") for bad in ("", "short", *NOT_ASCII)),
    *(({"alias": bad}, "BAD_ALIAS") for bad in BAD_ALIASES),
    *(
        ({"trusted": {"ok": ROOT, bad: ROOT}}, "BAD_ALIAS")
        for bad in (*BAD_ALIASES, "devicekeyentry", "DeviceKeyEntry")
    ),
    *(({"name": bad}, "BAD_NAME") for bad in BAD_NAMES),
]


@NEW
@pytest.mark.parametrize(("wrong", "code"), BAD_KEYSTORES, ids=lambda value: ascii(value)[:40])
def test_a_keystore_that_would_be_no_good_is_not_written(
    name: str, wrong: dict[str, Any], code: str, tmp_path: Path
) -> None:
    path, wanted = tmp_path / wrong.get("name", name), {**GOOD, **wrong}
    wanted.pop("name", None)
    refused(tmp_path, code, write_keystore, path, **wanted)
    write_keystore(tmp_path / name, **GOOD)  # the control
    assert read_key(tmp_path / name, GOOD["password"])[1] == CHAIN


def test_a_truststore_that_would_be_no_good_is_not_written(tmp_path: Path) -> None:
    for name in ("new.jks", "new.p12"):
        path = tmp_path / name
        for password in ("", "short", *NOT_ASCII):
            refused(tmp_path, "BAD_PASSPHRASE", write_truststore, path, {"a": ROOT}, Secret(password))
        for bad in BAD_ALIASES:
            both = {"ok": ROOT, bad: ROOT}
            refused(tmp_path, "BAD_ALIAS", write_truststore, path, both, PASSWORD)
        refused(tmp_path, "EMPTY", write_truststore, path, {}, PASSWORD)
    for bad in BAD_NAMES:
        refused(tmp_path, "BAD_NAME", write_truststore, tmp_path / bad, {"a": ROOT}, PASSWORD)
    for good, kind in (("a.JKS", "JKS"), ("a.P12", "PKCS12"), ("a.pfx", "PKCS12"), ("a.pkcs12", "PKCS12")):
        write_truststore(tmp_path / good, {"ok": ROOT, 64 * "a": ROOT}, PASSWORD)
        store = read_store(tmp_path / good, PASSWORD)
        assert store.type == kind and store.trusted == {"ok": ROOT, 64 * "a": ROOT}


@pytest.mark.parametrize("options", [{"trusted": {"server": ROOT}}, {"key_password": OTHER_PASSWORD}], ids=list)
def test_what_only_a_jks_can_hold_is_named(options: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.p12"
    refused(tmp_path, "NEEDS_JKS", write_keystore, path, KEY, CHAIN, PASSWORD, **options)
    write_keystore(path.with_suffix(".jks"), KEY, CHAIN, PASSWORD, **options)
    assert read_key(path.with_suffix(".jks"), PASSWORD, options.get("key_password"))[1] == CHAIN


def test_a_pkcs12_takes_its_own_password_for_the_keys(tmp_path: Path) -> None:
    path = tmp_path / "a.p12"
    write_keystore(path, KEY, CHAIN, Secret(PASSWORD), key_password=PASSWORD)
    assert read_key(path, PASSWORD, Secret(PASSWORD))[1] == CHAIN
    assert "one for both" in refused(tmp_path, "WRONG_KEY_PASSWORD", read_key, path, PASSWORD, OTHER_PASSWORD)


# Where it is to be written.


@posix
def test_a_store_that_is_there_is_kept_or_replaced_whole(store: Path) -> None:
    store.chmod(0o644)
    refused(store.parent, "EXISTS", write_keystore, store, KEY, LEAF_ONLY, PASSWORD)
    refused(store.parent, "EXISTS", write_truststore, store, {"a": ROOT}, PASSWORD)
    refused(store.parent, "KEY_MISMATCH", write_keystore, store, OTHER_KEY, CHAIN, PASSWORD, replace=True)
    refused(store.parent, "BAD_ALIAS", write_truststore, store, {"A": ROOT}, PASSWORD, replace=True)
    assert store.stat().st_mode & 0o777 == 0o644
    write_keystore(store, KEY, LEAF_ONLY, OTHER_PASSWORD, replace=True)
    assert read_key(store, OTHER_PASSWORD)[1] == LEAF_ONLY
    assert store.stat().st_mode & 0o777 == 0o600 and list(store.parent.iterdir()) == [store]


def test_a_folder_that_takes_no_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file.jks").write_bytes(b"no folder")
    for name in ("missing/a.jks", "file.jks/a.jks", 300 * "x" + ".jks"):
        refused(tmp_path, "DISK", write_keystore, tmp_path / name, KEY, CHAIN, PASSWORD)


# Keys that are of no use.


def test_a_key_is_found_by_its_alias(store: Path) -> None:
    for alias in ("devicekeyentry", "DeviceKeyEntry", None):
        assert read_key(store, PASSWORD, alias=alias)[1] == CHAIN
    for alias in ("other", "", "devicekeyentry "):
        assert "devicekeyentry" in refused(store.parent, "NO_KEY", read_key, store, PASSWORD, alias=alias)


def test_of_two_keys_one_must_be_named(tmp_path: Path) -> None:
    path = jks_of(tmp_path, encrypted("one"), encrypted("two", CHAIN))
    assert "one, two" in refused(path.parent, "NO_KEY", read_key, path, PASSWORD)
    assert read_key(path, PASSWORD, alias="TWO")[1] == CHAIN and read_key(path, PASSWORD, alias="one")[1] == LEAF_ONLY


@pytest.mark.parametrize(
    ("entry", "code"),
    [
        (encrypted(password=OTHER_PASSWORD), "WRONG_KEY_PASSWORD"),
        (encrypted(chain=()), "KEY_MISMATCH"),
        (encrypted(key=OTHER_PLAIN), "KEY_MISMATCH"),
        (encrypted(chain=(ROOT,)), "KEY_MISMATCH"),
        (encrypted(key=b"not a key"), "BAD_KEY"),
        (encrypted(key=b""), "BAD_KEY"),
        (jks.Entry("key", KEY_ENTRY, LEAF_ONLY, NOW, b"not encrypted"), "BAD_KEY"),
        (jks.Entry("key", KEY_ENTRY, LEAF_ONLY, NOW, PLAIN), "BAD_KEY"),
    ],
    ids=["password", "no chain", "other key", "other chain", "no PKCS #8", "nothing", "not encrypted", "in the open"],
)
def test_a_key_in_a_jks_of_no_use_is_named(entry: jks.Entry, code: str, tmp_path: Path) -> None:
    path = jks_of(tmp_path, entry)
    listed = read_store(path, PASSWORD).entries[0]
    assert (listed.kind, listed.chain) == (KEY_ENTRY, entry.chain)
    refused(path.parent, code, read_key, path, PASSWORD)
    if code == "WRONG_KEY_PASSWORD":
        refused(path.parent, code, read_key, path, PASSWORD, "short")
        assert read_key(path, PASSWORD, OTHER_PASSWORD)[1] == LEAF_ONLY
        refused(path.parent, "WRONG_PASSPHRASE", read_key, path, OTHER_PASSWORD)
    assert read_key(jks_of(tmp_path, encrypted()), PASSWORD)[1] == LEAF_ONLY


def test_a_key_entry_without_bytes_is_no_trusted_certificate(tmp_path: Path) -> None:
    """Our `dump` writes none, but its checksum is good, and keytool lists it as a key."""
    der = LEAF.public_bytes(Encoding.DER)
    data = jks.MAGIC + b"\0\0\0\2\0\0\0\1" + b"\0\0\0\1\0\1a" + bytes(8) + bytes(4) + b"\0\0\0\1"
    data += b"\0\5X.509" + len(der).to_bytes(4) + der
    total = hashlib.sha1(PASSWORD.encode("utf-16-be") + b"Mighty Aphrodite" + data).digest()
    (tmp_path / "made.jks").write_bytes(data + total)
    refused(tmp_path, "DAMAGED", read_store, tmp_path / "made.jks", PASSWORD)


def test_a_key_of_another_kind_is_listed_and_not_given(tmp_path: Path) -> None:
    path, key = tmp_path / "odd.p12", ed25519.Ed25519PrivateKey.generate()
    leaf = certificate("odd", key, "root", OTHER_KEY)
    path.write_bytes(pkcs12.dump_key("odd", key, [leaf], PASSWORD.encode()))
    (entry,) = read_store(path, PASSWORD).entries
    assert (entry.alias, entry.kind, entry.chain) == ("odd", KEY_ENTRY, (leaf,))
    assert "RSA" in refused(tmp_path, "BAD_KEY", read_key, path, PASSWORD)


def test_a_certificate_of_an_unknown_curve_is_named(tmp_path: Path, openssl: Run) -> None:
    key, pem = tmp_path / "key.pem", tmp_path / "odd.pem"
    curve = ["-pkeyopt", "ec_paramgen_curve:prime239v1", "-pkeyopt", "ec_param_enc:named_curve"]
    openssl("genpkey", "-algorithm", "EC", *curve, "-out", key)
    openssl("req", "-x509", "-new", "-key", key, "-subj", "/CN=odd", "-out", pem)
    odd = x509.load_pem_x509_certificate(pem.read_bytes())
    refused(tmp_path, "KEY_MISMATCH", write_keystore, tmp_path / "new.jks", KEY, [odd], PASSWORD)
    refused(tmp_path, "KEY_MISMATCH", read_key, jks_of(tmp_path, encrypted(chain=(odd,))), PASSWORD)
