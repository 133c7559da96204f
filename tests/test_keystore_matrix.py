"""Every store that we write, in every form, is to the real keytool what it is to us, and survives its conversion.

The comparison is made of everything that ``keytool -list -v`` says: its listing and what `read_store` gives are brought
into one form, and have to be equal. What keytool and openssl write is read in test_keystore_reading.
"""

import dataclasses
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import Run
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from mciot_nb import DistinguishedName, OnboardingError
from mciot_nb.pki import jks
from mciot_nb.pki.keys import PrivateKey
from mciot_nb.pki.keystore import (
    KEY_ENTRY,
    TRUSTED_ENTRY,
    Keystore,
    read_key,
    read_store,
    write_keystore,
    write_truststore,
)

PASSWORD, KEY_PASSWORD = "Kaffee-42 ok", "Tee & Kuchen 7"
#: Shortly before midnight in UTC, so that a wrong time zone or a rounded millisecond makes another day.
CREATED = datetime(2001, 2, 3, 23, 59, 59, 999000, tzinfo=UTC)
smoke = pytest.param  # without --all, too


def slow(*values: object) -> Any:
    return pytest.param(*values, marks=pytest.mark.slow)


def certify(
    name: str, key: PrivateKey, issuer: x509.Certificate | None, issuer_key: PrivateKey, number: int = 0
) -> x509.Certificate:
    """Make a certificate; without an issuer it signs itself, and lives beyond 2050, where the form of dates changes."""
    subject = DistinguishedName(country="DE", common_name=name).to_x509()
    first = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC) - timedelta(seconds=0 if issuer else 86400)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(number or x509.random_serial_number())
        .not_valid_before(first)
        .not_valid_after(first + timedelta(days=3650 if issuer else 12000))
        .add_extension(x509.BasicConstraints(ca="CA" in name, path_length=None), critical=True)
        .sign(issuer_key, SHA256())
    )


KEYS: dict[str, PrivateKey] = {
    "RSA": rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "EC": ec.generate_private_key(ec.SECP256R1()),
}
ROOT_KEY, MIDDLE_KEY = ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048)
ROOT = certify("Wurzel-CA ä", ROOT_KEY, None, ROOT_KEY, 1)
MIDDLE = certify("Zwischen-CA", MIDDLE_KEY, ROOT, ROOT_KEY)
CHAINS = {kind: [certify(f"Gerät {kind}", key, MIDDLE, MIDDLE_KEY), MIDDLE, ROOT] for kind, key in KEYS.items()}
#: In no chain: a server's certificate, and one whose serial number fills its 20 bytes.
SERVER = certify("server", KEYS["EC"], None, KEYS["EC"], 0x1000)
BIG = certify("x", KEYS["RSA"], None, KEYS["RSA"], 2**159 - 1)
TRUSTED = {"servercertificate": SERVER, "root-2.ca": ROOT, "b_3": BIG}


def facts(certificate: x509.Certificate) -> tuple[str, ...]:
    times = (certificate.not_valid_before_utc, certificate.not_valid_after_utc)
    prints = (certificate.fingerprint(SHA1()), certificate.fingerprint(SHA256()))
    shown = [f"{time:%a %b %d %H:%M:%S UTC %Y}" for time in times] + [value.hex(":").upper() for value in prints]
    return f"{certificate.serial_number:x}", *shown


#: The type, and for each entry: alias, kind, creation date (of a JKS only), length of the chain (a key's only), facts.
Rendered = tuple[str, list[tuple[str, str, str, int, list[tuple[str, ...]]]]]


def shown(store: Keystore) -> Rendered:
    """Return what `read_store` says in the form of `listed`."""
    entries = []
    for entry in store.entries:
        created = f"{entry.created:%b} {entry.created.day}, {entry.created.year}" if entry.created else ""
        length = len(entry.chain) if entry.kind == KEY_ENTRY else 0
        entries.append((entry.alias, entry.kind, created, length, [facts(c) for c in entry.chain]))
    return store.type, sorted(entries)


def listed(keytool: Run, path: Path) -> Rendered:
    """Let keytool list a store, and parse its listing."""
    head, *blocks = told(keytool, "-list", "-v", "-keystore", path).split("Alias name: ")
    kind, count = re.findall(r"Keystore type: (\w+)|contains (\d+) entr", head)
    assert int(count[1]) == len(blocks)
    entries = []
    for block in blocks:
        alias, created, entry = re.findall(r"\A(.*)\nCreation date: (.*)\nEntry type: (\w+)\n", block)[0]
        length = re.findall(r"^Certificate chain length: (\d+)$", block, re.MULTILINE) or [0]
        each = r"Serial number: (.*)\nValid from: (.*) until: (.*)\n.*\n\s+SHA1: (.*)\n\s+SHA256: (.*)\n"
        # keytool gives the entries of a PKCS12 the time at which it reads them
        entries.append((alias, entry, created if kind[0] == "JKS" else "", int(length[0]), re.findall(each, block)))
    return kind[0], sorted(entries)


def told(keytool: Run, *arguments: object, **options: Any) -> str:
    """Run keytool, and type the one password wherever it asks for one."""
    return keytool("-J-Duser.timezone=UTC", *arguments, input=f"{PASSWORD}\n" * 4, **options).stdout


def converted(keytool: Run, path: Path, *options: object) -> Path:
    """Let keytool make a PKCS12 of a JKS, or a JKS of a PKCS12."""
    kind, suffix = ("PKCS12", ".p12") if path.suffix == ".jks" else ("JKS", ".jks")
    to = path.with_name(f"converted{len(list(path.parent.iterdir()))}{suffix}")
    told(keytool, "-importkeystore", "-srckeystore", path, "-destkeystore", to, "-deststoretype", kind, *options)
    return to


def contents(store: Keystore) -> dict[str, tuple[str, Sequence[x509.Certificate]]]:
    """Return what a conversion has to leave as it was."""
    return {entry.alias: (entry.kind, list(entry.chain)) for entry in store.entries}


def numbers(path: Path, **options: Any) -> object:
    """Return the numbers that are the private key."""
    return read_key(path, PASSWORD, **options)[0].private_numbers()


@pytest.mark.parametrize(
    ("name", "kind", "length"),
    [
        smoke("store.pkcs12", "EC", 2),
        slow("store.p12", "RSA", 3),
        slow("store.pfx", "EC", 1),
        slow("store.jks", "RSA", 1),
        slow("store.jks", "EC", 3),
        slow("store.pkcs12", "trusted", 3),
        slow("store.jks", "trusted", 3),
    ],
)
def test_keytool_lists_and_converts_our_stores(name: str, kind: str, length: int, tmp_path: Path, keytool: Run) -> None:
    path, expected = tmp_path / name, {alias: (TRUSTED_ENTRY, [trusted]) for alias, trusted in TRUSTED.items()}
    if kind == "trusted":
        write_truststore(path, TRUSTED, PASSWORD, at=CREATED)
    else:
        expected = {"device-1": (KEY_ENTRY, CHAINS[kind][:length])}
        write_keystore(path, KEYS[kind], CHAINS[kind][:length], PASSWORD, "device-1", at=CREATED)
    other = converted(keytool, path)
    store, again = read_store(path, PASSWORD), read_store(other, PASSWORD)
    assert listed(keytool, path) == shown(store) and listed(keytool, other) == shown(again)
    assert contents(again) == contents(store) == expected and again.type != store.type and store.remark == ""
    for made in (path, other):
        if kind == "trusted":
            with pytest.raises(OnboardingError, match="no key at all"):
                read_key(made, PASSWORD)
        else:
            assert numbers(made) == KEYS[kind].private_numbers()


@pytest.mark.parametrize(("kind", "length"), [smoke("EC", 2), slow("RSA", 3)])
def test_keytool_lists_and_converts_our_store_of_a_key_and_trusted_certificates(
    kind: str, length: int, tmp_path: Path, keytool: Run
) -> None:
    """The guide's step 5. The PKCS12 that keytool makes of it is one that we refuse, and a JKS of that is as before."""
    path, chain = tmp_path / "store.jks", CHAINS[kind][:length]
    trusted = {alias: TRUSTED[alias] for alias in ("servercertificate", "b_3")}
    write_keystore(path, KEYS[kind], chain, PASSWORD, trusted=trusted, at=CREATED)
    store = read_store(path, PASSWORD)
    assert listed(keytool, path) == shown(store)
    assert contents(store)["devicekeyentry"] == (KEY_ENTRY, chain) and store.trusted == trusted
    other = converted(keytool, path)
    with pytest.raises(OnboardingError, match="holds trusted certificates") as caught:
        read_store(other, PASSWORD)
    assert caught.value.code == "ODD_STORE"
    again = read_store(converted(keytool, other), PASSWORD)
    assert contents(again) == contents(store)
    assert numbers(path) == numbers(again.path) == KEYS[kind].private_numbers()


@pytest.mark.slow
def test_keytool_converts_our_jks_whose_key_has_its_own_password(
    tmp_path: Path, keytool: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store.jks"
    write_keystore(path, KEYS["RSA"], CHAINS["RSA"], PASSWORD, key_password=KEY_PASSWORD, at=CREATED)
    monkeypatch.setenv("KEY_PASS", "Tee & Kuchen 8")
    options = ("-srcalias", "devicekeyentry", "-srckeypass:env", "KEY_PASS")
    with pytest.raises(AssertionError, match="UnrecoverableKeyException"):
        converted(keytool, path, *options)
    monkeypatch.setenv("KEY_PASS", KEY_PASSWORD)
    # in a PKCS12 the key has the store's password, whatever it had before
    other = converted(keytool, path, *options, "-destkeypass:env", "KEY_PASS")
    assert contents(read_store(other, PASSWORD)) == contents(read_store(path, PASSWORD))
    assert numbers(other) == numbers(path, key_password=KEY_PASSWORD) == KEYS["RSA"].private_numbers()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["store.pkcs12", "store.jks"])
def test_keytool_refuses_what_was_changed_and_a_wrong_password(name: str, tmp_path: Path, keytool: Run) -> None:
    path = tmp_path / name
    write_keystore(path, KEYS["EC"], CHAINS["EC"], PASSWORD)
    assert told(keytool, "-list", "-keystore", path)
    refused = keytool("-list", "-keystore", path, input=f"{KEY_PASSWORD}\n", check=False)
    assert refused.returncode != 0 and "password was incorrect" in refused.stdout + refused.stderr
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    refused = keytool("-list", "-keystore", path, input=f"{PASSWORD}\n", check=False)
    assert refused.returncode != 0 and "IOException" in refused.stdout + refused.stderr


@pytest.mark.slow
def test_keytools_jks_truststore_is_ours_to_the_byte(tmp_path: Path, keytool: Run) -> None:
    path = tmp_path / "theirs.jks"
    for alias in TRUSTED:
        (tmp_path / alias).write_bytes(TRUSTED[alias].public_bytes(Encoding.DER))
        which = ("-alias", alias.upper(), "-file", tmp_path / alias)
        told(keytool, "-importcert", "-noprompt", "-storetype", "JKS", "-keystore", path, *which)
    data = path.read_bytes()
    read = jks.load(data, PASSWORD)  # in the order of Java's hash table
    own = [jks.JksEntry(entry.alias, entry.created, (TRUSTED[entry.alias],)) for entry in read]
    assert own == read and {entry.alias for entry in read} == set(TRUSTED)
    assert jks.dump(own, PASSWORD) == data != jks.dump(own[::-1], PASSWORD)


@pytest.mark.slow
def test_an_alias_of_keytools_that_is_not_ascii_stays_as_it_is(tmp_path: Path, keytool: Run) -> None:
    path = tmp_path / "store.jks"
    for alias in ("GERÄT", "日本 🙂"):  # Java writes the second's last character as two surrogates
        make = ("-genkeypair", "-keyalg", "EC", "-dname", "CN=x", "-storetype", "JKS", "-alias", alias)
        told(keytool, *make, "-keystore", path)
        entries = jks.load(path.read_bytes(), PASSWORD)
        assert alias.lower() in [entry.alias for entry in entries]
        assert jks.dump(entries, PASSWORD) == path.read_bytes()


@pytest.mark.slow
def test_the_comparison_sees_each_difference(tmp_path: Path, keytool: Run) -> None:
    """The control of all the others: one thing different, and it is no longer equal."""
    path = tmp_path / "store.jks"
    write_keystore(path, KEYS["EC"], CHAINS["EC"], PASSWORD, trusted={"b_3": SERVER}, at=CREATED)
    store = read_store(path, PASSWORD)
    theirs, (key, trusted), (leaf, middle, root) = listed(keytool, path), store.entries, store.entries[0].chain
    assert shown(store) == theirs
    other = certify("Gerät EC", KEYS["EC"], MIDDLE, MIDDLE_KEY, leaf.serial_number + 1)
    for change in (
        {"alias": "devicekeyentry2"},
        {"kind": TRUSTED_ENTRY},
        {"created": CREATED + timedelta(milliseconds=1)},
        {"chain": (leaf, middle)},
        {"chain": (leaf, root, middle)},
        {"chain": (other, middle, root)},
    ):
        changed = dataclasses.replace(key, **change)
        assert shown(dataclasses.replace(store, entries=(changed, trusted))) != theirs, change
    assert shown(dataclasses.replace(store, entries=(key,))) != theirs
