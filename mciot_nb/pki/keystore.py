"""Writing keystores and truststores for Java, MQTT.fx and openssl (guide: "Creating keystore and truststore").

The file's name says which type it becomes: ``.jks`` is JKS; ``.pkcs12``, ``.p12`` and ``.pfx`` are PKCS12. What opens
them again is in `store`, and can be had from here too.
"""

import itertools
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_private_key

from mciot_nb.errors import OnboardingError
from mciot_nb.pki import jks, pkcs12
from mciot_nb.pki.chain import is_issued_by
from mciot_nb.pki.files import read_file, write_whole
from mciot_nb.pki.keys import PrivateKey, is_key_of, read_private_key
from mciot_nb.pki.names import readable
from mciot_nb.secret import Secret, reveal

#: keytool's words for the kinds of entries.
KEY_ENTRY, TRUSTED_ENTRY = "PrivateKeyEntry", "trustedCertEntry"
#: And ours for what a PKCS12 holds in a way that Java passes over.
UNSEEN = "not seen by Java"
#: How the names of PKCS12 files end.
PKCS12_NAMES = (".pkcs12", ".p12", ".pfx")

T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """What lies under one alias: a private key's chain, the key's own certificate first, or a trusted certificate.

    ``created`` is known of a JKS only; `read_key` gives the key itself.
    """

    alias: str
    kind: str
    chain: tuple[x509.Certificate, ...]
    created: datetime | None = None


@dataclass(frozen=True)
class Keystore:
    """What is in a store, without its keys: ``type`` is JKS or PKCS12, ``remark`` what is odd about it, or empty."""

    path: Path
    type: str
    entries: tuple[Entry, ...]
    remark: str = ""

    @property
    def trusted(self) -> dict[str, x509.Certificate]:
        """The certificates that Java trusts, under their aliases."""
        return {entry.alias: entry.chain[0] for entry in self.entries if entry.kind == TRUSTED_ENTRY}


def read_store(path: Path, password: Secret | str) -> Keystore:
    """Say what is in a store, ours, keytool's or openssl's, as ``keytool -list`` does.

    Raises OnboardingError: NO_FILE; WRONG_PASSPHRASE; DAMAGED; NO_STORE for a file of another kind; ODD_STORE for a
    PKCS12 that can't be read without losing something, with the keytool command that makes a JKS of it.

    Example: ``read_store(workspace.device_file("deviceKeystore.jks"), workspace.passphrase)``.
    """
    data, kind = _read(path)
    if kind == "JKS":
        entries = tuple(
            Entry(e.alias, KEY_ENTRY if e.sealed else TRUSTED_ENTRY, e.certificates, e.created)
            for e in _load_jks(path, data, password)
        )
        remark = "" if path.suffix.lower() not in PKCS12_NAMES else "It is a JKS, whatever its name says."
        return Keystore(path, kind, entries, remark)
    contents = _load_pkcs12(path, data, password)
    if contents.chain:
        entry_kind = KEY_ENTRY if contents.seen_by_java else UNSEEN
        entries = (Entry(contents.alias or "1", entry_kind, contents.chain),)  # Java counts those without an alias
    else:
        entry_kind = TRUSTED_ENTRY if contents.seen_by_java else UNSEEN
        entries = tuple(Entry(alias or "", entry_kind, (found,)) for alias, found in contents.certificates)
    return Keystore(path, kind, entries, _remark(path, contents))


def _remark(path: Path, contents: pkcs12.Contents) -> str:
    remarks = []
    if contents.certificates and not contents.seen_by_java:
        remarks.append(
            "Java sees no entry in it, for its certificates lack Java's trust mark: write_truststore or keytool "
            "-importcert makes a store with it."
        )
    if contents.chain and not contents.seen_by_java:
        remarks.append("Java sees no entry in it, for its key is not encrypted: write_keystore makes one that is.")
    if not contents.has_mac:
        remarks.append("It has no checksum, so a change to it would not be noticed.")
    if path.suffix.lower() == ".jks":
        remarks.append("It is PKCS12, though its name says JKS: keytool writes so unless it is told -storetype JKS.")
    return " ".join(remarks)


def read_key(
    path: Path, password: Secret | str, key_password: Secret | str | None = None, alias: str | None = None
) -> tuple[PrivateKey, tuple[x509.Certificate, ...]]:
    """Give a store's private key with its chain; ``alias`` names it where there are several.

    ``key_password`` is the key's own, if it is another than the store's. Raises OnboardingError as `read_store` does,
    WRONG_KEY_PASSWORD where the key alone stays shut, and NO_KEY, KEY_MISMATCH or BAD_KEY where it is of no use.

    Example: ``key, chain = read_key(path, passphrase)``.
    """
    data, kind = _read(path)
    if kind == "JKS":
        sealed = {entry.alias: entry for entry in _load_jks(path, data, password) if entry.sealed}
        entry = _choose(path, sealed, alias)
        key, chain = _decrypt_key(path, entry, password if key_password is None else key_password), entry.certificates
    else:
        contents = _load_pkcs12(path, data, password)
        if key_password is not None and reveal(key_password) != reveal(password):
            raise OnboardingError(
                f"The key password is another one than that of {path}: a PKCS12 has one for both, give that.",
                "WRONG_KEY_PASSWORD",
            )
        _choose(path, {contents.alias or "1": contents} if contents.chain else {}, alias)
        key, chain = contents.key, contents.chain
    if not isinstance(key, PrivateKey):
        raise OnboardingError(f"The key in {path} is neither an RSA nor an EC key: make one of these.", "BAD_KEY")
    if not chain or not is_key_of(chain[0], key):
        raise OnboardingError(
            f"The key in {path} does not belong to its certificate: make the store anew, from the pair that was made "
            "together.",
            "KEY_MISMATCH",
        )
    return key, chain


def _choose(path: Path, keys: Mapping[str, T], alias: str | None) -> T:
    """Pick the key under ``alias``, or the only one."""
    if alias is None and len(keys) == 1:
        return next(iter(keys.values()))
    if alias is None or alias.lower() not in keys:
        there = f"its keys are {', '.join(keys)}" if keys else "it holds no key at all"
        raise OnboardingError(
            f"{path} does not say which key is meant, {there}: give an alias that is there.", "NO_KEY"
        )
    return keys[alias.lower()]


@lru_cache(maxsize=16)  # as in `mciot_nb.pki.keys`
def _load_der(data: bytes) -> object:
    return load_der_private_key(data, None)


def _decrypt_key(path: Path, entry: jks.JksEntry, password: Secret | str) -> object:
    try:
        return _load_der(jks.decrypt_key(entry.sealed, reveal(password)))
    except jks.WrongPassword:
        raise OnboardingError(
            f"The password opens {path}, but not the key {entry.alias} in it: in a JKS that keytool converted, the key "
            "keeps the PKCS12's password.",
            "WRONG_KEY_PASSWORD",
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise OnboardingError(
            f"The key {entry.alias} in {path} is of a kind, or hidden in a way, that is not known here: make it anew.",
            "BAD_KEY",
        ) from None


def _read(path: Path) -> tuple[bytes, str]:
    """Give a store's bytes, and its type by its content."""
    data = read_file(path, f"There is no store {path}: make it first.")
    if data.startswith(jks.MAGIC):
        return data, "JKS"
    if data.startswith(b"\x30"):
        if len(data) != _length(data):
            raise OnboardingError(
                f"{path} is cut off, or something follows its end: it is damaged, copy or make it anew.", "DAMAGED"
            )
        return data, "PKCS12"
    raise OnboardingError(f"{path} {_other(data)}.", "NO_STORE")


def _length(data: bytes) -> int:
    """Give the bytes that an ASN.1 value claims in its first ones, or has where it claims none (X.690, 8.1.3)."""
    if len(data) < 2 or data[1] == 0x80:
        return len(data)
    if data[1] < 0x80:
        return 2 + data[1]
    count = data[1] & 0x7F
    return 2 + count + int.from_bytes(data[2 : 2 + count])


def _other(data: bytes) -> str:
    """Say what a file is that is neither PKCS12 nor JKS, and what to do about it."""
    if not data.strip(b"\0"):
        return "is empty: make it anew"
    if data.startswith(b"\xce\xce\xce\xce"):
        return "is a JCEKS, which is not read here: convert it with keytool -importkeystore -srcstoretype JCEKS"
    if data[:4] in (b"\0\0\0\1", b"\0\0\0\2"):
        return "is a BKS of Bouncy Castle, which is not read here: convert it with the tool that made it"
    if data.startswith(b"\x30"):
        return "is no PKCS12, or damaged: give a store, and for a certificate alone let keytool -importcert make one"
    if b"-----BEGIN" in data:
        return "is a PEM file: openssl pkcs12 -export, or keytool -importcert, makes a store of it"
    return "is no keystore of a known kind: give a PKCS12 or a JKS"


def _load_jks(path: Path, data: bytes, password: Secret | str) -> list[jks.JksEntry]:
    try:
        return jks.load(data, reveal(password))
    except jks.WrongPassword:
        raise _shut(path) from None
    except ValueError as error:
        raise OnboardingError(f"{path} is damaged ({error}): copy or make it anew.", "DAMAGED") from None


def _load_pkcs12(path: Path, data: bytes, password: Secret | str) -> pkcs12.Contents:
    try:
        return pkcs12.load(data, reveal(password).encode())
    except pkcs12.UnsupportedPkcs12 as odd:
        raise OnboardingError(f"{path} holds {odd}, {_way_out(path, odd)}", "ODD_STORE") from None
    except pkcs12.NotPkcs12:
        raise OnboardingError(f"{path} {_other(data)}.", "NO_STORE") from None
    except ValueError:
        raise _shut(path) from None


def _way_out(path: Path, odd: pkcs12.UnsupportedPkcs12) -> str:
    """Say how keytool makes something of a PKCS12 that can be read here."""
    name = shlex.quote(str(path))
    convert = f"keytool -importkeystore -srckeystore {name} -srcstoretype PKCS12 -destkeystore {name}.jks"
    if odd.fits_jks:
        return f"which is not read here: {convert} -deststoretype JKS makes a JKS of what Java sees in it."
    return f"which no JKS holds: {convert} -deststoretype JKS -srcalias ALIAS copies the one entry that you need."


def _shut(path: Path) -> OnboardingError:
    return OnboardingError(
        f"The password does not open {path}, or the file is damaged: type the password it was made with, or make it "
        "anew.",
        "WRONG_PASSPHRASE",
    )


#: The guide's aliases.
KEY_ALIAS, TRUST_ALIAS = "devicekeyentry", "servercertificate"
#: keytool refuses shorter ones.
SHORTEST_PASSWORD = 6

_ALIAS = "abcdefghijklmnopqrstuvwxyz0123456789._-"


def write_keystore(
    path: Path,
    key: PrivateKey,
    chain: Sequence[x509.Certificate],
    password: Secret | str,
    alias: str = KEY_ALIAS,
    *,
    key_password: Secret | str | None = None,
    trusted: Mapping[str, x509.Certificate] | None = None,
    legacy: bool = False,
    at: datetime | None = None,
    replace: bool = False,
) -> None:
    """Write a device's key with its chain, as ``openssl pkcs12 -export -name ALIAS`` and keytool do. Mode 0600.

    In a JKS the key may have a ``key_password`` of its own, and certificates may be ``trusted`` beside it, under their
    aliases (the guide's step 5); ``at`` is the time that it states for its entries, now by default. ``legacy``
    encrypts a PKCS12 so that a Java before 8u301 can read it. ``replace`` writes over a file that is there.

    Raises OnboardingError where the key is not the first certificate's, the chain is in the wrong order, a password or
    an alias is one that keytool would refuse, or the file is there already; then nothing is written.

    Example: ``write_keystore(Path("device.jks"), key, chain, Secret("changeit"))``.
    """
    _check_chain(key, chain)
    secret, others = store_password(password), dict(trusted or {})
    aliases = _check_aliases([alias, *others])
    if _type_by_name(path) == "PKCS12":
        if others or (key_password is not None and reveal(key_password) != secret):
            raise OnboardingError(
                f"A PKCS12 such as {path.name} has one password, and here a key and its chain alone: give it a name "
                "that ends in .jks for more.",
                "NEEDS_JKS",
            )
        return _write(path, pkcs12.dump_key(alias, key, chain, secret.encode(), legacy), replace)
    plain = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    sealed = jks.encrypt_key(plain, secret if key_password is None else store_password(key_password))
    created = (at or datetime.now(UTC)).astimezone(UTC)
    entries = [jks.JksEntry(alias, created, tuple(chain), sealed)]
    entries += [jks.JksEntry(name, created, (others[name],)) for name in aliases[1:]]
    _write(path, jks.dump(entries, secret), replace)


def write_truststore(
    path: Path,
    trusted: Mapping[str, x509.Certificate],
    password: Secret | str,
    *,
    legacy: bool = False,
    at: datetime | None = None,
    replace: bool = False,
) -> None:
    """Write trusted certificates under their aliases, as ``keytool -importcert`` does. Mode 0600.

    ``legacy``, ``at`` and ``replace`` are as in `write_keystore`. Raises OnboardingError where there is no certificate,
    an alias or the password is one that keytool would refuse, or the file is there already; then nothing is written.

    Example: ``write_truststore(Path("trust.jks"), {"servercertificate": certificate}, Secret("changeit"))``.
    """
    if not trusted:
        raise OnboardingError("A truststore needs a certificate to trust: give the server's.", "EMPTY")
    secret, aliases = store_password(password), _check_aliases(list(trusted))
    if _type_by_name(path) == "PKCS12":
        return _write(path, pkcs12.dump_trusted(trusted, secret.encode(), legacy), replace)
    created = (at or datetime.now(UTC)).astimezone(UTC)
    _write(path, jks.dump([jks.JksEntry(name, created, (trusted[name],)) for name in aliases], secret), replace)


def _check_chain(key: PrivateKey, chain: Sequence[x509.Certificate]) -> None:
    if not chain or not is_key_of(chain[0], key):
        raise OnboardingError(
            "The private key does not belong to the first certificate of the chain: give the key that the device "
            "certificate was requested with, and the chain with the device first.",
            "KEY_MISMATCH",
        )
    for certificate, issuer in itertools.pairwise(chain):
        if certificate == issuer or not is_issued_by(certificate, issuer):
            raise OnboardingError(
                f"The chain is in the wrong order, or something is missing in it: {readable(issuer.subject)} has not "
                f"signed {readable(certificate.subject)}: let each certificate be followed by its issuer's.",
                "CHAIN_ORDER",
            )


def _check_aliases(aliases: list[str]) -> list[str]:
    for alias in aliases:
        if not 1 <= len(alias) <= 64 or set(alias) - set(_ALIAS):
            raise OnboardingError(
                f"The alias {alias!r} would not survive in every store: use lower-case letters, digits, '.', '_' and "
                "'-', 64 at most.",
                "BAD_ALIAS",
            )
    if len(set(aliases)) < len(aliases):
        raise OnboardingError("Two entries have one alias: give each its own.", "BAD_ALIAS")
    return aliases


def _type_by_name(path: Path) -> str:
    if path.suffix.lower() == ".jks":
        return "JKS"
    if path.suffix.lower() in PKCS12_NAMES:
        return "PKCS12"
    raise OnboardingError(
        f"{path.name} does not say what it is to be: let it end in .jks, or in {', '.join(PKCS12_NAMES)}.", "BAD_NAME"
    )


def store_password(password: Secret | str) -> str:
    """Give a new store's password; raises OnboardingError where keytool would refuse it, or Java not open the store."""
    text = reveal(password)
    if len(text) < SHORTEST_PASSWORD:
        raise OnboardingError(
            f"keytool wants a store password of {SHORTEST_PASSWORD} characters or more: choose a longer one.",
            "BAD_PASSPHRASE",
        )
    if not (text.isascii() and text.isprintable()):
        raise OnboardingError(
            "Java opens a store only if its password is of ASCII characters: choose one without umlauts and accents.",
            "BAD_PASSPHRASE",
        )
    return text


def _write(path: Path, data: bytes, replace: bool) -> None:
    try:
        write_whole(path, data, private=True, replace=replace)
    except FileExistsError:
        raise OnboardingError(
            f"{path} is there already and is never overwritten: move it away first.", "EXISTS"
        ) from None


#: A file, the part of it that is shut, and the names of the passwords that open that part.
Opening = tuple[str, str, str]


def which_password_opens(paths: Iterable[Path], passwords: Mapping[str, Secret | str]) -> list[Opening]:
    """Try every password, by its name, on private keys in PEM form, keystores and truststores, and on each key in them.

    No password stands in the answer. Raises OnboardingError where a file is missing, damaged or of another kind.

    Example: ``which_password_opens([path], {"the store's": one, "the key's": other})``.
    """
    return [opening for path in paths for opening in _openings(path, passwords)]


def _openings(path: Path, passwords: Mapping[str, Secret | str]) -> list[Opening]:
    if b"-----BEGIN" in read_file(path, f"There is no {path}: make it first."):
        return [(path.name, "the key", _named(passwords, partial(read_private_key, path)))]
    found = [(path.name, "the store", _named(passwords, partial(read_store, path)))]
    fitting = [password for password in passwords.values() if _opens(partial(read_store, path), password)]
    for entry in read_store(path, fitting[0]).entries if fitting else ():
        if entry.kind == KEY_ENTRY:
            opener = partial(read_key, path, fitting[0], alias=entry.alias)
            found.append((path.name, f"the key {entry.alias} in it", _named(passwords, opener)))
    return found


def _named(passwords: Mapping[str, Secret | str], opener: Callable[[Secret | str], object]) -> str:
    return ", ".join(name for name, password in passwords.items() if _opens(opener, password)) or "none of these"


def _opens(opener: Callable[[Secret | str], object], password: Secret | str) -> bool:
    try:
        opener(password)
    except OnboardingError as error:
        if error.code not in ("WRONG_PASSPHRASE", "WRONG_KEY_PASSWORD", "BAD_PASSPHRASE"):
            raise
        return False
    return True
