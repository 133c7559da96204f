"""What keytool and openssl write is read as keytool reads it, or is refused by name: it is never silently shortened."""

import shlex
from pathlib import Path
from typing import Any

import pytest
from conftest import Run
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from test_keystore_matrix import (
    BIG,
    CHAINS,
    KEY_PASSWORD,
    KEYS,
    MIDDLE,
    PASSWORD,
    ROOT,
    SERVER,
    Rendered,
    contents,
    converted,
    listed,
    numbers,
    shown,
    slow,
    smoke,
    told,
)

from mciot_nb import OnboardingError
from mciot_nb.pki import jks
from mciot_nb.pki.keys import PrivateKey, encrypted_pem
from mciot_nb.pki.keystore import KEY_ENTRY, read_key, read_store

#: What keytool of a Java before 8u301 wrote: 3DES and RC2.
OLD_JAVA = "-J-Dkeystore.pkcs12.legacy"


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of PEM files: the keys, encrypted, each chain in each length, and the certificates by themselves."""
    folder = tmp_path_factory.mktemp("given")
    files = {"root": [ROOT], "middle": [MIDDLE], "server": [SERVER], "big": [BIG]}
    for kind, key in KEYS.items():
        (folder / f"{kind}.pem").write_bytes(encrypted_pem(key, PASSWORD.encode()))
        files |= {f"{kind}{length}": CHAINS[kind][:length] for length in (1, 2, 3)}
        files |= {f"{kind}-reversed": CHAINS[kind][::-1]}
    for name, certificates in files.items():
        (folder / f"{name}.pem").write_bytes(b"".join(c.public_bytes(Encoding.PEM) for c in certificates))
    return folder


def pkcs12(openssl: Run, *options: object, **others: Any) -> str:
    if "-legacy" in options and openssl("list", "-providers", "-provider", "legacy", check=False).returncode:
        pytest.skip("this openssl has no legacy provider")
    return openssl("pkcs12", *options, input=f"{PASSWORD}\n" * 2, **others).stdout


def export(openssl: Run, given: Path, to: Path, certificates: str, key: str, *options: str) -> Path:
    """Let openssl make a PKCS12: of a key with its chain, or of certificates alone where the key is ""."""
    which = ["-inkey", f"{key}.pem", "-passin", "stdin"] if key else ["-nokeys"]
    arguments = ["-export", "-in", f"{certificates}.pem", *which, "-out", to, "-passout", "stdin", *options]
    pkcs12(openssl, *arguments, cwd=given)
    return to


def key_that_openssl_shows(openssl: Run, path: Path, *options: str) -> PrivateKey:
    text = pkcs12(openssl, "-in", path, "-nocerts", "-noenc", "-passin", "stdin", *options)
    key = load_pem_private_key(text.encode(), None)
    assert isinstance(key, PrivateKey)
    return key


def dateless(entries: Rendered) -> list[object]:
    """Return the entries as they are in a JKS and in a PKCS12 alike."""
    return [(alias, kind, length, certificates) for alias, kind, _, length, certificates in entries[1]]


# --- stores of one key ----------------------------------------------------------------------------------------------

#: Which certificates and key openssl packs, with which options, and the alias (Java numbers what has none).
OPENSSLS = [
    smoke("EC3", (), "1"),
    slow("RSA1", ("-name", "Gerät Ä 1"), "gerät ä 1"),
    slow("RSA2", ("-legacy",), "1"),
    slow("EC3", ("-legacy", "-name", "deviceKeyEntry"), "devicekeyentry"),
    slow("EC-reversed", ("-certpbe", "NONE"), "1"),  # the root first
    slow("EC3", ("-certpbe", "AES-128-CBC", "-keypbe", "AES-192-CBC", "-macalg", "sha512"), "1"),
    slow("EC3", ("-certpbe", "PBE-SHA1-3DES", "-keypbe", "PBE-SHA1-3DES", "-macalg", "sha1", "-noiter"), "1"),
    slow("EC-reversed", ("-name", "same", "-caname", "same"), "same"),
]


@pytest.mark.parametrize(("source", "options", "alias"), OPENSSLS)
def test_openssls_keystore_is_read_as_keytool_reads_it(
    source: str, options: tuple[str, ...], alias: str, given: Path, tmp_path: Path, openssl: Run, keytool: Run
) -> None:
    kind = source.rstrip("123").removesuffix("-reversed")
    chain = CHAINS[kind][: int(source[-1]) if source[-1].isdigit() else 3]
    path = export(openssl, given, tmp_path / "store.p12", source, kind, *options)
    store = read_store(path, PASSWORD)
    assert shown(store) == listed(keytool, path) and store.remark == ""
    assert contents(store) == {alias: (KEY_ENTRY, chain)}
    assert numbers(path, alias=alias) == KEYS[kind].private_numbers()
    with pytest.raises(OnboardingError, match=f"its keys are {alias}") as caught:
        numbers(path, alias="another")
    assert caught.value.code == "NO_KEY"


@pytest.mark.slow
def test_a_key_that_openssl_did_not_encrypt_is_said_to_be_unseen_by_java(
    given: Path, tmp_path: Path, openssl: Run, keytool: Run
) -> None:
    path = export(openssl, given, tmp_path / "store.p12", "EC3", "EC", "-keypbe", "NONE")
    assert listed(keytool, path)[1] == []
    assert numbers(path) == KEYS["EC"].private_numbers()
    assert "Java sees no entry in it, for its key is not encrypted" in read_store(path, PASSWORD).remark


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "length"), [("RSA", 3), ("EC", 1)])
def test_keytools_jks_of_openssls_store_is_read_and_written_again_to_the_byte(
    kind: str, length: int, given: Path, tmp_path: Path, openssl: Run, keytool: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY_PASS", KEY_PASSWORD)
    source = export(openssl, given, tmp_path / "store.p12", f"{kind}{length}", kind, "-name", "deviceKeyEntry")
    path = converted(keytool, source, "-srcalias", "devicekeyentry", "-destkeypass:env", "KEY_PASS")
    store, key = read_store(path, PASSWORD), key_that_openssl_shows(openssl, source)
    assert shown(store) == listed(keytool, path) and store.remark == ""
    assert contents(store) == {"devicekeyentry": (KEY_ENTRY, CHAINS[kind][:length])}
    assert numbers(path, key_password=KEY_PASSWORD) == key.private_numbers() == KEYS[kind].private_numbers()
    with pytest.raises(OnboardingError) as caught:
        numbers(path)
    assert caught.value.code == "WRONG_KEY_PASSWORD"

    data = path.read_bytes()
    (entry,) = entries = jks.load(data, PASSWORD)
    assert jks.dump(entries, PASSWORD) == data != jks.dump(entries, KEY_PASSWORD)
    plain = jks.decrypt_key(entry.key, KEY_PASSWORD)
    salt = entry.key[-len(plain) - 40 :][:20]
    assert jks.encrypt_key(plain, KEY_PASSWORD, lambda length: salt[:length]) == entry.key, "with Java's own salt"
    assert jks.encrypt_key(plain, KEY_PASSWORD) != entry.key


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "old"), [("EC", ()), ("RSA", (OLD_JAVA,))])
def test_keytools_own_pkcs12_key_is_read(
    kind: str, old: tuple[str, ...], tmp_path: Path, openssl: Run, keytool: Run
) -> None:
    path = tmp_path / "store.pfx"
    told(keytool, *old, "-genkeypair", "-keyalg", kind, "-dname", "CN=own", "-alias", "OWN.Key", "-keystore", path)
    store = read_store(path, PASSWORD)
    assert shown(store) == listed(keytool, path) and list(contents(store)) == ["own.key"] and store.remark == ""
    theirs = key_that_openssl_shows(openssl, path, *(["-legacy"] if old else []))
    assert numbers(path, alias="Own.KEY") == theirs.private_numbers()


@pytest.mark.slow
def test_each_of_two_keys_in_keytools_jks_is_read(
    tmp_path: Path, keytool: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under a name that says PKCS12, and the second with a password of its own."""
    monkeypatch.setenv("KEY_PASS", KEY_PASSWORD)
    path = tmp_path / "store.pkcs12"
    make = ("-genkeypair", "-storetype", "JKS", "-keystore", path, "-dname", "CN=own", "-keyalg")
    told(keytool, *make, "RSA", "-keysize", "2048", "-alias", "First")
    told(keytool, *make, "EC", "-alias", "Second", "-keypass:env", "KEY_PASS")
    store = read_store(path, PASSWORD)
    assert shown(store) == listed(keytool, path) and store.remark == "It is a JKS, whatever its name says."
    for alias, password in {"first": PASSWORD, "SECOND": KEY_PASSWORD}.items():
        key, chain = read_key(path, PASSWORD, password, alias)
        assert contents(store)[alias.lower()] == (KEY_ENTRY, list(chain))
        assert key.public_key() == chain[0].public_key()
    for options, code in (({}, "NO_KEY"), ({"alias": "second"}, "WRONG_KEY_PASSWORD")):
        with pytest.raises(OnboardingError) as caught:
            numbers(path, **options)
        assert caught.value.code == code
    data = path.read_bytes()
    assert jks.dump(jks.load(data, PASSWORD), PASSWORD) == data
    assert jks.dump(jks.load(data, PASSWORD)[::-1], PASSWORD) != data


# --- trusted certificates -------------------------------------------------------------------------------------------

HIDDEN = "Whether Java sees an entry in it can't be told here"
KEYTOOLS = [
    smoke("store.p12", (), ""),
    slow("store.jks", (), "It is PKCS12, though its name says JKS"),
    slow("store.pfx", (OLD_JAVA,), HIDDEN),
    slow("store.jks", ("-storetype", "JKS"), ""),
    slow("store.p12", ("-storetype", "JKS"), "It is a JKS, whatever its name says"),
]


def trust(keytool: Run, given: Path, path: Path, alias: str, name: str, *options: str) -> None:
    arguments = ("-importcert", "-noprompt", "-alias", alias, "-file", f"{name}.pem", "-keystore", path)
    told(keytool, *options, *arguments, cwd=given)


@pytest.mark.parametrize(("name", "options", "remark"), KEYTOOLS)
def test_keytools_truststore_is_read(
    name: str, options: tuple[str, ...], remark: str, given: Path, tmp_path: Path, keytool: Run
) -> None:
    path = tmp_path / name
    for alias, file in {"ServerCertificate": "server", "b_3": "big"}.items():
        trust(keytool, given, path, alias, file, *options)
    store = read_store(path, PASSWORD)
    assert shown(store) == listed(keytool, path)
    assert store.trusted == {"servercertificate": SERVER, "b_3": BIG}
    assert store.remark.startswith(remark) and bool(store.remark) == bool(remark)
    with pytest.raises(OnboardingError, match="no key at all"):
        read_key(path, PASSWORD)


#: What openssl makes of certificates alone: Java opens it, and sees nothing in it.
CERTIFICATES_ONLY = [
    smoke(("-caname", "A", "-caname", "b", "-caname", "c")),
    slow(("-caname", "A", "-caname", "A", "-caname", "A")),
    slow(("-certpbe", "NONE")),
    slow(("-nomac",)),
    slow(("-legacy", "-caname", "A")),
]


@pytest.mark.parametrize("options", CERTIFICATES_ONLY)
def test_openssls_certificates_alone_are_said_to_be_unseen_by_java(
    options: tuple[str, ...], given: Path, tmp_path: Path, openssl: Run, keytool: Run
) -> None:
    path, legacy = export(openssl, given, tmp_path / "store.p12", "EC3", "", *options), "-legacy" in options
    assert listed(keytool, path) == ("PKCS12", [])
    store = read_store(path, PASSWORD)
    found: set[x509.Certificate] = {entry.chain[0] for entry in store.entries}
    assert found == set(CHAINS["EC"]) and ("It has no checksum" in store.remark) == ("-nomac" in options)
    if legacy:  # what hides the attribute from us does so in both cases
        assert HIDDEN in store.remark
    else:
        assert {entry.kind for entry in store.entries} == {"not seen by Java"} and store.trusted == {}
        assert "Java sees no entry in it" in store.remark
    # The control: keytool adds a certificate, and forgets those that it has not seen.
    trust(keytool, given, path, "Server", "server", *((OLD_JAVA,) if legacy else ()))
    assert read_store(path, PASSWORD).trusted == {"server": SERVER}


# --- stores that cryptography would shorten -------------------------------------------------------------------------

SECOND_KEY = ("-genkeypair", "-keyalg", "EC", "-dname", "CN=second", "-alias", "Second")
TRUST = ("-importcert", "-noprompt", "-alias", "Trust", "-file")
BESIDE = "holds trusted certificates"
#: openssl's store of a chain, the options it is made with, what keytool then adds to it, and what ours says of it.
ODD = [
    slow("RSA3", (), SECOND_KEY, "holds several keys"),
    slow("RSA3", ("-legacy",), (*TRUST, "server.pem", OLD_JAVA), BESIDE),
    slow("EC1", (), (*TRUST, "EC1.pem"), BESIDE),  # the key's own
    slow("EC3", (), (*TRUST, "middle.pem"), BESIDE),  # one of the chain
    smoke("EC2", (), (*TRUST, "root.pem"), BESIDE),  # the one that the chain lacks
    slow("EC2", ("-legacy",), (*TRUST, "root.pem", OLD_JAVA), BESIDE),
]


def shown_command(error: OnboardingError) -> list[str]:
    """Take the keytool command out of a sentence."""
    words = str(error).partition(" here: ")[2].partition(" makes a JKS")[0]
    return shlex.split(words)


@pytest.mark.parametrize(("source", "options", "step", "says"), ODD)
def test_an_odd_store_is_named_and_the_command_shown_loses_nothing(
    source: str,
    options: tuple[str, ...],
    step: tuple[str, ...],
    says: str,
    given: Path,
    tmp_path: Path,
    openssl: Run,
    keytool: Run,
) -> None:
    path = export(openssl, given, tmp_path / "Bob's store.p12", source, source[:-1], "-name", "device", *options)
    assert len(read_store(path, PASSWORD).entries) == 1, "before, it is not odd"
    told(keytool, *step, "-keystore", path, cwd=given)
    theirs = listed(keytool, path)
    assert len(theirs[1]) == 2
    for read in (read_store, read_key):
        with pytest.raises(OnboardingError, match=says) as caught:
            read(path, PASSWORD)
        assert caught.value.code == "ODD_STORE"
    command = shown_command(caught.value)
    assert command[0] == "keytool"
    told(keytool, *command[1:])
    made = Path(command[command.index("-destkeystore") + 1])
    assert made.parent == tmp_path
    assert dateless(shown(read_store(made, PASSWORD))) == dateless(theirs)
    assert numbers(made, alias="device") == KEYS[source[:-1]].private_numbers()


@pytest.mark.slow
@pytest.mark.parametrize("before", ["nothing", "key"])
def test_a_secret_key_is_named(before: str, given: Path, tmp_path: Path, openssl: Run, keytool: Run) -> None:
    path = tmp_path / "store.p12"
    if before == "key":
        assert len(read_store(export(openssl, given, path, "EC3", "EC"), PASSWORD).entries) == 1
    told(keytool, "-genseckey", "-keyalg", "AES", "-keysize", "256", "-alias", "Secret", "-keystore", path)
    with pytest.raises(OnboardingError, match="holds a secret key") as caught:
        read_store(path, PASSWORD)
    assert caught.value.code == "ODD_STORE"
    assert "makes a JKS" not in str(caught.value) and "-srcalias" in str(caught.value), "for no JKS holds it"


@pytest.mark.slow
def test_certificates_that_nobody_asked_for_are_named(given: Path, tmp_path: Path, openssl: Run, keytool: Run) -> None:
    """Java skips them; the sentence names them, and the command shown makes a store of the rest."""
    path = export(openssl, given, tmp_path / "store.p12", "EC3", "EC", "-certfile", "big.pem")
    with pytest.raises(OnboardingError, match="certificates beside the chain of its key") as caught:
        read_store(path, PASSWORD)
    told(keytool, *shown_command(caught.value)[1:])
    made = read_store(tmp_path / "store.p12.jks", PASSWORD)
    assert dateless(shown(made)) == dateless(listed(keytool, path)) and len(made.entries) == 1
