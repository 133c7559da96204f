"""Keys and stores of other makes: each is read, or named for what it is in one sentence, whose command is run here, and
what comes out of it is read. The password is the right one each time."""

import hashlib
import hmac
import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import cryptography_vectors
import pytest
from conftest import Run, run
from cryptography.hazmat.primitives.asymmetric import ec
from test_keystore_matrix import CHAINS, KEYS, PASSWORD, Tools, numbers, slow, smoke, tools
from test_store_aliases import cert, content_info, der, key

from mciot_nb import OnboardingError
from mciot_nb.pki.chain import read_certificates
from mciot_nb.pki.keys import encrypted_pem, read_private_key
from mciot_nb.pki.keystore import KEY_ENTRY, read_key, read_store
from mciot_nb.pki.uploads import ca_certificates, parse_upload

__all__ = ["tools"]
BOUNCY_CASTLE = Path("/usr/share/java/bcprov.jar")
MADE = "device"


def refusal(read: Callable[..., object], path: Path, code: str, password: str = PASSWORD) -> str:
    with pytest.raises(OnboardingError) as caught:
        read(path, password)
    assert caught.value.code == code, caught.value
    return str(caught.value)


def follow(sentence: str, folder: Path, answers: int = 4) -> None:
    """Run the commands that a sentence shows, without a terminal, the password on standard input."""
    for command in re.findall(r"(?:openssl|keytool|ssh-keygen) .*?(?=,| convert| write| remove| leave)", sentence):
        words = shlex.split(command.replace("BCPROV.jar", str(BOUNCY_CASTLE)))
        given = {"cwd": folder, "start_new_session": True, "input": f"{PASSWORD}\n" * answers}
        run(words[0], *words[1:], **given)


# --- private keys ---------------------------------------------------------------------------------------------------

TOPK8 = "pkcs8 -topk8 -in EC.pem -passin env:WORD -passout env:WORD -out odd.pem"
OLDER = "ec -in EC.pem -passin env:WORD -passout env:WORD -out odd.pem"
#: How openssl writes a key, and how ours names its encryption.
ENCRYPTIONS = [
    smoke(f"{TOPK8} -v2 camellia256", "Camellia"),
    smoke(f"{TOPK8} -v2 aria128", "ARIA"),
    slow(f"{TOPK8} -v2 aes-128-cfb", "AES in an unusual mode"),
    slow(f"{TOPK8} -scrypt", "a password hash other than PBKDF2"),
    slow(f"{TOPK8} -v1 PBE-MD5-DES -provider legacy -provider default", "an older cipher"),
    slow(f"{OLDER} -camellia256", "CAMELLIA-256-CBC"),
    slow(f"{OLDER} -aria192", "ARIA-192-CBC"),
]


@pytest.fixture
def word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORD", PASSWORD)


@pytest.mark.usefixtures("word")
@pytest.mark.parametrize(("command", "name"), ENCRYPTIONS)
def test_an_unknown_encryption_of_a_key_is_named(command: str, name: str, tools: Tools) -> None:
    tools.openssl(*command.split(), cwd=tools.folder)
    path = tools.folder / "odd.pem"
    sentence = refusal(read_private_key, path, "BAD_KEY")
    assert f"is encrypted with {name}" in sentence or f"({name})" in sentence
    follow(sentence, tools.folder)
    key = read_private_key(tools.folder / "NEW.pem", PASSWORD)
    assert isinstance(key, ec.EllipticCurvePrivateKey) and key.private_numbers() == KEYS["EC"].private_numbers()
    refusal(read_private_key, tools.folder / "NEW.pem", "WRONG_PASSPHRASE", "another")


#: Commands that make a key, and what ours calls it.
OTHERS = [
    slow("dsaparam -genkey -out plain.pem 2048", "a key of the kind DSA"),
    smoke("genrsa -primes 3 -out plain.pem 2048", "a key of the kind RSA of more than two primes"),
    smoke("genpkey -algorithm ED25519 -out plain.pem", "a key of the kind Ed25519"),
    slow("ecparam -genkey -name brainpoolP512t1 -out plain.pem", "of a curve that is unknown"),
]


@pytest.mark.usefixtures("word")
@pytest.mark.parametrize(("command", "name"), OTHERS)
def test_another_kind_of_key_is_named_wherever_it_is(command: str, name: str, tools: Tools) -> None:
    """In the open, as PKCS #8, in OpenSSL's older form, and in both kinds of stores."""
    tools.openssl(*command.split(), cwd=tools.folder)
    for options in ("", "-aes256", "-traditional -aes256")[: 2 if "ED25519" in command else 3]:
        made = ["-in", "plain.pem", *options.split(), "-passout", "env:WORD", "-out", "odd.pem"]
        tools.openssl("pkey", *made, cwd=tools.folder)
        assert name in refusal(read_private_key, tools.folder / "odd.pem", "BAD_KEY")
        if options and "ENCRYPTED" in (tools.folder / "odd.pem").read_text():
            refusal(read_private_key, tools.folder / "odd.pem", "WRONG_PASSPHRASE", "another")
    tools.openssl("req", "-x509", "-key", "plain.pem", "-subj", "/CN=odd", "-out", "odd-cert.pem", cwd=tools.folder)
    path = tools.folder / "odd.p12"
    tools.pkcs12("-export", "-inkey", "plain.pem", "-in", "odd-cert.pem", "-passout", "stdin", "-out", path)
    assert [entry.kind for entry in read_store(path, PASSWORD).entries] == [KEY_ENTRY]
    assert name in refusal(read_key, path, "BAD_KEY")
    refusal(read_store, path, "WRONG_PASSPHRASE", "another")


def test_an_ml_dsa_key_is_named(tmp_path: Path) -> None:
    vectors = Path(cryptography_vectors.__file__).parent / "asymmetric" / "MLDSA"
    for file in ("mldsa44_priv.der", "mldsa65_noseed_priv.der"):
        pem = run("openssl", "base64", "-in", vectors / file).stdout
        (tmp_path / "key.pem").write_text(f"-----BEGIN PRIVATE KEY-----\n{pem}-----END PRIVATE KEY-----\n")
        assert "a key of the kind ML-DSA" in refusal(read_private_key, tmp_path / "key.pem", "BAD_KEY")


def test_an_openssh_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "Bob's key"
    run("ssh-keygen", "-q", "-t", "ecdsa", "-b", 256, "-N", PASSWORD, "-f", path)
    sentence = refusal(read_private_key, path, "BAD_KEY")
    assert "OpenSSH" in sentence
    command = shlex.split(sentence.partition(": ")[2].partition(" rewrites")[0])
    run(*command, "-P", PASSWORD, "-N", PASSWORD)  # it asks a terminal, or an environment's askpass
    assert isinstance(read_private_key(path, PASSWORD), ec.EllipticCurvePrivateKey)


def test_keytools_dsa_certificate_is_named(tools: Tools) -> None:
    """keytool writes NULL as the parameters of DSA, and cryptography refuses the certificate."""
    for kind in ("PKCS12", "JKS"):
        path = tools.folder / f"dsa.{kind}"
        tools.keytool(
            "-genkeypair", "-alias", "d", "-keyalg", "DSA", "-dname", "CN=d", "-keystore", path, "-storetype", kind
        )
        assert tools.listed(path)[1][0][:2] == ("d", KEY_ENTRY)
        assert "can't be read (a certificate of a DSA key)" in refusal(read_store, path, "DAMAGED")


# --- stores ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "name"),
    [
        smoke(("-certpbe", "camellia-256-cbc"), "Camellia"),
        slow(("-keypbe", "aria-256-cbc"), "ARIA"),
        slow(("-certpbe", "PBE-SHA1-RC4-128", "-legacy"), "an older cipher"),
    ],
)
def test_an_unknown_encryption_of_a_store_is_named(options: tuple[str, ...], name: str, tools: Tools) -> None:
    path = tools.export("EC3", "-name", MADE, *options)
    sentence = refusal(read_key, path, "BAD_KEY" if "-keypbe" in options else "ODD_STORE")
    assert f"with {name} (" in sentence
    follow(sentence, tools.folder)
    assert numbers(tools.folder / "NEW.p12") == KEYS["EC"].private_numbers()
    assert list(read_key(tools.folder / "NEW.p12", PASSWORD)[1]) == CHAINS["EC"]


def with_pbmac1(*parts: list[bytes]) -> bytes:
    """Return a store as OpenSSL 3.4 writes it with -pbmac1_pbkdf2 (RFC 9579); its certificates are in the open."""
    safes = der(0x30, *(content_info(der(0x30, *bags)) for bags in parts))
    sha256, number = der(0x30, der(6, bytes.fromhex("2a864886f70d0209")), b"\5\0"), "2a864886f70d01050"
    derivation = der(0x30, der(4, b"salt"), der(2, b"\x08\0"), der(2, b"\x20"), sha256)
    both = der(0x30, der(0x30, der(6, bytes.fromhex(f"{number}c")), derivation), sha256)
    made = hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), b"salt", 2048)
    info = der(0x30, der(0x30, der(6, bytes.fromhex(f"{number}e")), both), der(4, hmac.digest(made, safes, "sha256")))
    return der(0x30, der(2, b"\3"), content_info(safes), der(0x30, info, der(4, bytes(8)), der(2, b"\1")))


def test_pbmac1_is_read_and_no_java_reads_it(tools: Tools) -> None:
    path = tools.folder / "pbmac1.p12"
    path.write_bytes(with_pbmac1([key("EC", MADE, b"1")], [cert(CHAINS["EC"][0], MADE, b"1")]))
    store = read_store(path, PASSWORD)
    assert [(entry.alias, entry.kind) for entry in store.entries] == [(MADE, KEY_ENTRY)]
    assert "which no Java up to 25 supports" in store.remark and numbers(path) == KEYS["EC"].private_numbers()
    refusal(read_store, path, "WRONG_PASSPHRASE", "another")
    path.write_bytes(path.read_bytes().replace(b"salt", b"Salt", 1))
    refusal(read_store, path, "WRONG_PASSPHRASE")
    assert "1.2.840.113549.1.5.14 not available" in tools.keytool("-list", "-keystore", path, check=False)


@pytest.mark.slow
def test_what_nss_and_gnutls_write_is_read(tools: Tools) -> None:
    path, database = tools.export("RSA3", "-name", MADE), f"sql:{tools.folder}"
    (tools.folder / "word").write_text(PASSWORD)
    run("certutil", "-N", "-d", database, "--empty-password")
    run("pk12util", "-i", path, "-d", database, "-w", tools.folder / "word")
    run("pk12util", "-o", path, "-n", MADE, "-d", database, "-w", tools.folder / "word")
    assert path.read_bytes()[:2] == b"\x30\x80", "lengths that are not stated"
    store = read_store(path, PASSWORD)
    assert [entry.alias for entry in store.entries] == [MADE] and numbers(path) == KEYS["RSA"].private_numbers()
    refusal(read_store, path, "WRONG_PASSPHRASE", "another")
    (tools.folder / "open.pem").write_bytes(encrypted_pem(KEYS["EC"], PASSWORD.encode()))
    make = ["--to-p12", "--load-privkey", tools.folder / "open.pem", "--load-certificate", tools.folder / "EC1.pem"]
    for options, password in (("", PASSWORD), ("--outder", PASSWORD)):
        words = ["--p12-name", MADE, "--password", password, *options.split(), "--outfile", path]
        run("certtool", *make, *words)
        store = read_store(path, password)
        assert numbers(path) == KEYS["EC"].private_numbers()
        assert ("It is in PEM form" in store.remark) == (options == "")
        with pytest.raises(OnboardingError, match="is a keystore, which may hold private keys"):
            parse_upload(path.read_bytes(), "it")
        if not options:
            follow(store.remark, tools.folder)
            assert tools.listed(tools.folder / "NEW.p12")[1][0][0] == MADE
            assert read_store(tools.folder / "NEW.p12", password).entries == store.entries


@pytest.mark.slow
def test_an_empty_password_opens(tools: Tools, openssl: Run) -> None:
    """Of an empty password openssl hashes two zeros; others nothing, as cryptography's vectors do."""
    path = tools.export("EC3", "-name", MADE)
    for how in ("-certpbe AES-256-CBC", "-legacy"):
        made = ["-export", "-inkey", "EC.pem", "-in", "EC3.pem", "-passin", "stdin", "-passout", "pass:", "-out", path]
        openssl("pkcs12", *made, *how.split(), input=f"{PASSWORD}\n", cwd=tools.folder)
        assert read_key(path, "")[0].private_numbers() == KEYS["EC"].private_numbers()
        refusal(read_store, path, "WRONG_PASSPHRASE")


@pytest.mark.parametrize("kind", [slow("JCEKS"), slow("BKS"), slow("BCFKS"), smoke("CaseExactJKS")])
def test_javas_other_stores_are_read_or_named(kind: str, tools: Tools) -> None:
    if kind.startswith("B") and not BOUNCY_CASTLE.exists():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{BOUNCY_CASTLE} is missing: see .ci/run")
    provider = ["-provider", "org.bouncycastle.jce.provider.BouncyCastleProvider", "-providerpath", BOUNCY_CASTLE]
    source, path = tools.export("EC3", "-name", MADE), tools.folder / "Bob's other.jks"
    words = ["-srckeystore", source, "-srcalias", MADE, "-destkeystore", path, "-deststoretype", kind]
    made = tools.keytool(
        "-importkeystore", *words, "-destalias", "MyDevice", *(provider if kind.startswith("B") else ())
    )
    if kind == "CaseExactJKS":
        for alias in ("MyDevice", "mydevice", None):
            assert numbers(path, alias=alias) == KEYS["EC"].private_numbers()
        assert "CaseExactJKS" in read_store(path, PASSWORD).remark
        assert "does not exist" in tools.keytool("-list", "-alias", "MyDevice", "-keystore", path, check=False)
        return
    sentence = refusal(read_store, path, "NO_STORE")
    assert f"is a {kind}" in sentence, made
    follow(sentence, tools.folder)
    assert numbers(tools.folder / "NEW.p12") == KEYS["EC"].private_numbers()


@pytest.mark.parametrize("form", ["PEM", "DER", "TRUSTED"])
def test_certificates_in_openssls_other_forms_are_named(form: str, tools: Tools) -> None:
    path = tools.folder / "some certificates"
    if form == "TRUSTED":
        tools.openssl("x509", "-in", "root.pem", "-trustout", "-addtrust", "clientAuth", "-out", path, cwd=tools.folder)
    else:
        make = ["-nocrl", "-certfile", "EC3.pem", "-outform", form, "-out", path]
        tools.openssl("crl2pkcs7", *make, cwd=tools.folder)
    expected = CHAINS["EC"][2:] if form == "TRUSTED" else CHAINS["EC"]
    store = refusal(read_store, path, "NO_STORE")
    with pytest.raises(OnboardingError) as caught:
        parse_upload(path.read_bytes(), str(path))
    for sentence in (store, str(caught.value).replace("FILE", shlex.quote(str(path)))):
        (tools.folder / "NEW.pem").unlink(missing_ok=True)
        follow(sentence, tools.folder)
        assert read_certificates(tools.folder / "NEW.pem") == expected
    assert ca_certificates("NEW.pem", (tools.folder / "NEW.pem").read_bytes())[-1] == CHAINS["EC"][2]
