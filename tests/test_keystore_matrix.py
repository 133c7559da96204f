"""Each store that we write is to the real keytool what it is to us, and what keytool and openssl write is to us what it
is to keytool, or is refused by name: nothing is silently shortened.

The comparison is made of everything that ``keytool -list -v`` says: its listing and what `read_store` returns are
brought into one form, and have to be equal.
"""

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import Run
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from mciot_nb import DistinguishedName, OnboardingError
from mciot_nb.pki import jks
from mciot_nb.pki.chain import fingerprint, to_pem, with_colons
from mciot_nb.pki.keys import PrivateKey, encrypted_pem
from mciot_nb.pki.keystore import KEY_ENTRY as KEY
from mciot_nb.pki.keystore import TRUSTED_ENTRY, Keystore, read_key, read_store, write_keystore, write_truststore

PASSWORD, KEY_PASSWORD = "Kaffee-42 ok", "Tee & Kuchen 7"
#: Shortly before midnight in UTC, so that a wrong time zone or a rounded millisecond makes another day.
CREATED = datetime(2001, 2, 3, 23, 59, 59, 999000, tzinfo=UTC)
#: What keytool of a Java before 8u301 wrote: 3DES and RC2.
OLD_JAVA = "-J-Dkeystore.pkcs12.legacy"
smoke = pytest.param  # without --all, too


def slow(*values: object) -> Any:
    return pytest.param(*values, marks=pytest.mark.slow)


def certify(
    name: str, key: PrivateKey, issuer: x509.Certificate | None, issuer_key: PrivateKey, number: int = 0
) -> x509.Certificate:
    """Make a certificate; without an issuer it signs itself, and lives beyond 2050, where the form of dates changes."""
    subject = DistinguishedName(country="DE", common_name=name).to_x509()
    first = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC) - timedelta(seconds=0 if issuer else 86400)
    builder = x509.CertificateBuilder(issuer.subject if issuer else subject, subject, key.public_key())
    builder = builder.serial_number(number or x509.random_serial_number()).not_valid_before(first)
    builder = builder.not_valid_after(first + timedelta(days=3650 if issuer else 12000))
    return builder.add_extension(x509.BasicConstraints("CA" in name, None), critical=True).sign(issuer_key, SHA256())


KEYS: dict[str, PrivateKey] = {
    "RSA": rsa.generate_private_key(65537, 2048),
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

#: The type, and for each entry: alias, kind, creation date (of a JKS only), length of the chain (a key's only), facts.
Rendered = tuple[str, list[tuple[str, str, str, int, list[tuple[str, ...]]]]]


def facts(certificate: x509.Certificate) -> tuple[str, ...]:
    times = (certificate.not_valid_before_utc, certificate.not_valid_after_utc)
    prints = (with_colons(fingerprint(certificate, algorithm)) for algorithm in ("sha1", "sha256"))
    return f"{certificate.serial_number:x}", *(f"{time:%a %b %d %H:%M:%S UTC %Y}" for time in times), *prints


def shown(store: Keystore) -> Rendered:
    """Return what `read_store` says in the form of `Tools.listed`."""
    entries = []
    for entry in store.entries:
        created = f"{entry.created:%b} {entry.created.day}, {entry.created.year}" if entry.created else ""
        length = len(entry.chain) if entry.kind == KEY else 0
        entries.append((entry.alias, entry.kind, created, length, [facts(c) for c in entry.chain]))
    return store.type, sorted(entries)


def dateless(entries: Rendered) -> list[object]:
    """Return the entries as they are in a JKS and in a PKCS12 alike."""
    return [(alias, kind, length, certificates) for alias, kind, _, length, certificates in entries[1]]


def contents(store: Keystore) -> dict[str, tuple[str, Sequence[x509.Certificate]]]:
    """Return what a conversion has to leave as it was."""
    return {entry.alias: (entry.kind, list(entry.chain)) for entry in store.entries}


def numbers(path: Path, **options: Any) -> object:
    """Return the numbers that are the private key."""
    return read_key(path, PASSWORD, **options)[0].private_numbers()


@dataclass(frozen=True)
class Tools:
    """keytool and openssl, at work in a folder of PEM files; the one password is typed wherever they ask for one."""

    folder: Path
    openssl: Run
    _keytool: Run

    def keytool(self, *arguments: object, **options: Any) -> str:
        given = {"input": f"{PASSWORD}\n" * 4, "cwd": self.folder, **options}
        done = self._keytool("-J-Duser.timezone=UTC", *arguments, **given)
        return done.stdout + (done.stderr if done.returncode else "")

    def listed(self, path: Path) -> Rendered:
        """Let keytool list a store, and parse its listing."""
        head, *blocks = self.keytool("-list", "-v", "-keystore", path).split("Alias name: ")
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

    def converted(self, path: Path, *options: object) -> Path:
        """Let keytool make a PKCS12 of a JKS, or a JKS of a PKCS12."""
        kind, suffix = ("PKCS12", ".p12") if path.suffix == ".jks" else ("JKS", ".jks")
        to = path.with_name(f"converted{len(list(path.parent.iterdir()))}{suffix}")
        self.keytool("-importkeystore", "-srckeystore", path, "-destkeystore", to, "-deststoretype", kind, *options)
        return to

    def trust(self, path: Path, alias: str, name: str, *options: str) -> None:
        file = ("-alias", alias, "-file", f"{name}.pem", "-keystore", path)
        self.keytool(*options, "-importcert", "-noprompt", *file)

    def pkcs12(self, *options: object) -> str:
        if "-legacy" in options and self.openssl("list", "-providers", "-provider", "legacy", check=False).returncode:
            pytest.skip("this openssl has no legacy provider")
        return self.openssl("pkcs12", *options, input=f"{PASSWORD}\n" * 2, cwd=self.folder).stdout

    def export(self, certificates: str, *options: str, alone: bool = False) -> Path:
        """Let openssl make a PKCS12: of a chain with its key, or of certificates alone."""
        path, kind = self.folder / "Bob's store.p12", re.match("RSA|EC", certificates)
        assert kind
        which = ["-nokeys"] if alone else ["-inkey", f"{kind[0]}.pem", "-passin", "stdin"]
        self.pkcs12("-export", "-in", f"{certificates}.pem", *which, "-out", path, "-passout", "stdin", *options)
        return path


@pytest.fixture
def tools(tmp_path: Path, openssl: Run, keytool: Run) -> Tools:
    files = {"root": [ROOT], "middle": [MIDDLE], "server": [SERVER], "big": [BIG]}
    for kind, key in KEYS.items():
        (tmp_path / f"{kind}.pem").write_bytes(encrypted_pem(key, PASSWORD.encode()))
        files |= {f"{kind}{length}": CHAINS[kind][:length] for length in (1, 2, 3)} | {f"{kind}-": CHAINS[kind][::-1]}
    for name, certificates in files.items():
        (tmp_path / f"{name}.pem").write_bytes(to_pem(certificates))
    return Tools(tmp_path, openssl, keytool)


# --- what we write --------------------------------------------------------------------------------------------------


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
def test_keytool_lists_and_converts_our_stores(name: str, kind: str, length: int, tools: Tools) -> None:
    path, expected = tools.folder / name, {alias: (TRUSTED_ENTRY, [trusted]) for alias, trusted in TRUSTED.items()}
    if kind == "trusted":
        write_truststore(path, TRUSTED, PASSWORD, at=CREATED)
    else:
        expected = {"device-1": (KEY, CHAINS[kind][:length])}
        write_keystore(path, KEYS[kind], CHAINS[kind][:length], PASSWORD, "device-1", at=CREATED)
    other = tools.converted(path)
    store, again = read_store(path, PASSWORD), read_store(other, PASSWORD)
    assert tools.listed(path) == shown(store) and tools.listed(other) == shown(again)
    assert contents(again) == contents(store) == expected and again.type != store.type and store.remark == ""
    for made in (path, other):
        if kind == "trusted":
            with pytest.raises(OnboardingError, match="no key at all"):
                read_key(made, PASSWORD)
        else:
            assert numbers(made) == KEYS[kind].private_numbers()


@pytest.mark.parametrize(("kind", "length"), [smoke("EC", 2), slow("RSA", 3)])
def test_keytool_lists_and_converts_our_store_of_a_key_and_trusted_certificates(
    kind: str, length: int, tools: Tools
) -> None:
    """The guide's step 5. The PKCS12 that keytool makes of it holds the same, and so does a JKS of that."""
    path, chain = tools.folder / "store.jks", CHAINS[kind][:length]
    trusted = {alias: TRUSTED[alias] for alias in ("servercertificate", "b_3")}
    write_keystore(path, KEYS[kind], chain, PASSWORD, trusted=trusted, at=CREATED)
    store = read_store(path, PASSWORD)
    assert tools.listed(path) == shown(store)
    assert contents(store)["devicekeyentry"] == (KEY, chain) and store.trusted == trusted
    other = tools.converted(path)
    again = read_store(tools.converted(other), PASSWORD)
    assert contents(again) == contents(read_store(other, PASSWORD)) == contents(store)
    assert tools.listed(other) == shown(read_store(other, PASSWORD))
    assert numbers(path) == numbers(again.path) == KEYS[kind].private_numbers()


@pytest.mark.slow
def test_the_comparison_sees_each_difference(tools: Tools) -> None:
    """The control of all the others: one thing different, and it is no longer equal."""
    path = tools.folder / "store.jks"
    write_keystore(path, KEYS["EC"], CHAINS["EC"], PASSWORD, trusted={"b_3": SERVER}, at=CREATED)
    store = read_store(path, PASSWORD)
    theirs, (key, trusted), (leaf, middle, root) = tools.listed(path), store.entries, store.entries[0].chain
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


# --- what keytool and openssl write ---------------------------------------------------------------------------------

#: Which certificates openssl packs with their key, with which options, and the alias (Java numbers what has none).
OPENSSLS = [
    smoke("EC3", (), "1"),
    slow("RSA1", ("-name", "Gerät Ä 1"), "gerät ä 1"),
    slow("RSA2", ("-legacy",), "1"),
    slow("EC3", ("-legacy", "-name", "deviceKeyEntry"), "devicekeyentry"),
    slow("EC-", ("-certpbe", "NONE"), "1"),  # the root first
    slow("EC3", ("-certpbe", "AES-128-CBC", "-keypbe", "AES-192-CBC", "-macalg", "sha512"), "1"),
    slow("EC3", ("-certpbe", "PBE-SHA1-3DES", "-keypbe", "PBE-SHA1-3DES", "-macalg", "sha1", "-noiter"), "1"),
    slow("EC-", ("-name", "same", "-caname", "same"), "same"),
    slow("EC3", ("-legacy", "-name", "Device", "-caname", "My CA", "-caname", "root"), "device"),
]


@pytest.mark.parametrize(("source", "options", "alias"), OPENSSLS)
def test_openssls_keystore_is_read_as_keytool_reads_it(
    source: str, options: tuple[str, ...], alias: str, tools: Tools
) -> None:
    kind, length = source[:-1], int(source[-1].replace("-", "3"))
    path = tools.export(source, *options)
    store = read_store(path, PASSWORD)
    assert shown(store) == tools.listed(path) and store.remark == ""
    assert contents(store) == {alias: (KEY, CHAINS[kind][:length])}
    assert numbers(path, alias=alias) == KEYS[kind].private_numbers()
    with pytest.raises(OnboardingError, match=f"its keys are {alias}") as caught:
        numbers(path, alias="another")
    assert caught.value.code == "NO_KEY"


@pytest.mark.slow
def test_a_key_that_openssl_did_not_encrypt_is_said_to_be_unseen_by_java(tools: Tools) -> None:
    path = tools.export("EC3", "-keypbe", "NONE")
    assert tools.listed(path)[1] == [] and numbers(path) == KEYS["EC"].private_numbers()
    assert "Java sees no entry in it, because its key is not encrypted" in read_store(path, PASSWORD).remark


@pytest.mark.slow
def test_each_of_two_keys_in_keytools_jks_is_read(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a name that says PKCS12, the second with a password of its own, and an alias in two surrogates."""
    monkeypatch.setenv("KEY_PASS", KEY_PASSWORD)
    path = tools.folder / "store.pkcs12"
    make = ("-genkeypair", "-storetype", "JKS", "-keystore", path, "-dname", "CN=own", "-keyalg")
    tools.keytool(*make, "RSA", "-keysize", "2048", "-alias", "First")
    entries = jks.load(path.read_bytes(), PASSWORD)  # an ASCII alias alone: ours are
    assert jks.dump(entries, PASSWORD) == path.read_bytes() != jks.dump(entries, KEY_PASSWORD)
    tools.keytool(*make, "EC", "-alias", "GERÄT 日本 🙂", "-keypass:env", "KEY_PASS")
    store = read_store(path, PASSWORD)
    assert store.remark == "It is a JKS, whatever its name says." and tools.listed(path)[0] == "JKS"
    for alias, password in {"first": PASSWORD, "Gerät 日本 🙂": KEY_PASSWORD}.items():
        key, chain = read_key(path, PASSWORD, password, alias)
        assert contents(store)[alias.lower()] == (KEY, list(chain))
        assert key.public_key() == chain[0].public_key()
    for options, code in (({}, "NO_KEY"), ({"alias": "gerät 日本 🙂"}, "WRONG_KEY_PASSWORD")):
        with pytest.raises(OnboardingError) as caught:
            numbers(path, **options)
        assert caught.value.code == code
    entries = jks.load(path.read_bytes(), PASSWORD)
    for entry, password in zip(sorted(entries, key=lambda entry: entry.alias), (PASSWORD, KEY_PASSWORD), strict=True):
        plain = jks.decrypt_key(entry.key, password)
        salt = entry.key[-len(plain) - 40 :][:20]
        assert jks.encrypt_key(plain, password, lambda length, salt=salt: salt[:length]) == entry.key, "Java's own salt"
        assert jks.encrypt_key(plain, password) != entry.key


KEYTOOLS = [
    smoke("store.p12", (), ""),
    slow("store.jks", (), "It is PKCS12, though its name says JKS"),
    slow("store.pfx", (OLD_JAVA,), ""),
    slow("store.jks", ("-storetype", "JKS"), ""),
    slow("store.p12", ("-storetype", "JKS"), "It is a JKS, whatever its name says"),
]


@pytest.mark.parametrize(("name", "options", "remark"), KEYTOOLS)
def test_keytools_truststore_is_read(name: str, options: tuple[str, ...], remark: str, tools: Tools) -> None:
    path = tools.folder / name
    for alias, file in {"ServerCertificate": "server", "b_3": "big"}.items():
        tools.trust(path, alias, file, *options)
    store = read_store(path, PASSWORD)
    assert shown(store) == tools.listed(path)
    assert store.trusted == {"servercertificate": SERVER, "b_3": BIG}
    assert store.remark.startswith(remark) and bool(store.remark) == bool(remark)
    if store.type == "JKS":
        entries = jks.load(path.read_bytes(), PASSWORD)
        own = [jks.Entry(entry.alias, TRUSTED_ENTRY, (store.trusted[entry.alias],), entry.created) for entry in entries]
        assert jks.dump(own, PASSWORD) == path.read_bytes() != jks.dump(own[::-1], PASSWORD), "ours to the byte"


#: What openssl makes of certificates alone: Java opens it, and sees nothing in it.
CERTIFICATES_ONLY = [
    smoke(("-caname", "A", "-caname", "b", "-caname", "c")),
    slow(("-caname", "A", "-caname", "A", "-caname", "A")),
    slow(("-certpbe", "NONE")),
    slow(("-nomac",)),
    slow(("-legacy", "-caname", "A")),
]


@pytest.mark.parametrize("options", CERTIFICATES_ONLY)
def test_openssls_certificates_alone_are_said_to_be_unseen_by_java(options: tuple[str, ...], tools: Tools) -> None:
    path, legacy = tools.export("EC3", *options, alone=True), "-legacy" in options
    assert tools.listed(path) == ("PKCS12", [])
    store = read_store(path, PASSWORD)
    found: set[x509.Certificate] = {entry.chain[0] for entry in store.entries}
    assert found == set(CHAINS["EC"]) and ("It has no checksum" in store.remark) == ("-nomac" in options)
    assert {entry.kind for entry in store.entries} == {"not seen by Java"} and store.trusted == {}
    assert "Java sees no entry in it" in store.remark
    # The control: keytool adds a certificate, and forgets those that it has not seen.
    tools.trust(path, "Server", "server", *((OLD_JAVA,) if legacy else ()))
    assert read_store(path, PASSWORD).trusted == {"server": SERVER}


# --- stores of which cryptography shows a part only -------------------------------------------------------------------

TRUST = ("-importcert", "-noprompt", "-alias", "Trust", "-file")
#: openssl's store of a chain, the options it is made with, and what keytool then adds to it.
MIXED = [
    slow("RSA3", (), ("-genkeypair", "-keyalg", "EC", "-dname", "CN=second", "-alias", "Second")),
    slow("RSA3", (), ("-genseckey", "-keyalg", "AES", "-keysize", "256", "-alias", "Secret")),
    slow("RSA3", ("-legacy",), (*TRUST, "server.pem", OLD_JAVA)),
    slow("EC1", (), (*TRUST, "EC1.pem")),  # the key's own
    slow("EC3", (), (*TRUST, "middle.pem")),  # one of the chain
    smoke("EC2", (), (*TRUST, "root.pem")),  # the one that the chain lacks
    slow("EC2", ("-legacy", "-caname", "CA"), (*TRUST, "root.pem", OLD_JAVA)),
    slow("EC3", ("-certfile", "big.pem"), ()),  # which Java skips
]


@pytest.mark.parametrize(("source", "options", "step"), MIXED)
def test_all_that_keytool_lists_is_read_and_the_rest_is_said_to_be_unseen(
    source: str, options: tuple[str, ...], step: tuple[str, ...], tools: Tools
) -> None:
    path = tools.export(source, "-name", "device", *options)
    if step:
        assert len(read_store(path, PASSWORD).entries) == 1, "before"
        tools.keytool(*step, "-keystore", path)
    store, theirs = read_store(path, PASSWORD), tools.listed(path)
    seen = tuple(entry for entry in store.entries if entry.kind != "not seen by Java")
    assert shown(dataclasses.replace(store, entries=seen)) == theirs and len(seen) == (2 if step else 1)
    assert [entry.chain for entry in store.entries if entry not in seen] == ([] if step else [(BIG,)])
    assert store.remark == ("" if step else "Java does not see all that is in it.")
    assert numbers(path, alias="device") == KEYS[source[:-1]].private_numbers()
