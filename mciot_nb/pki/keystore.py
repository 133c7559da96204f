"""Keystores and truststores for Java, MQTT.fx and openssl (guide: "Creating keystore and truststore").

The file's name says which type is written: ``.jks`` is JKS; ``.pkcs12``, ``.p12`` and ``.pfx`` are PKCS12. What is read
is known by its content.
"""

import itertools
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache, partial
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_private_key

from mciot_nb.errors import OnboardingError
from mciot_nb.pki import jks, pkcs12
from mciot_nb.pki.chain import is_issued_by
from mciot_nb.pki.files import read_file, write_whole
from mciot_nb.pki.keys import PrivateKey, is_key_of, read_private_key
from mciot_nb.pki.names import name_of, readable
from mciot_nb.secret import Secret, reveal

#: keytool's words for the kinds of entries, and ours for what Java does not show of a PKCS12.
KEY_ENTRY, TRUSTED_ENTRY, HIDDEN_ENTRY = "PrivateKeyEntry", "trustedCertEntry", "not seen by Java"
#: How the names of PKCS12 files end.
PKCS12_NAMES = (".pkcs12", ".p12", ".pfx")
#: The guide's aliases.
KEY_ALIAS, TRUST_ALIAS = "devicekeyentry", "servercertificate"
#: keytool refuses shorter ones.
SHORTEST_PASSWORD = 6
#: Aliases are unique without regard to case, and Java shows them in lower case.
_ALIAS = re.compile("[a-z0-9._-]{1,64}")


@dataclass(frozen=True)
class Entry:
    """What an alias names: a private key's chain, the key's own certificate first, or a trusted certificate.

    ``created`` is known of a JKS only. `read_key` returns the key itself.
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
    """Return what is in a store of ours, keytool's or openssl's, as ``keytool -list`` shows it.

    Example: ``read_store(workspace.device_file("deviceTruststore.jks"), workspace.passphrase).trusted``

    Raises: OnboardingError: NO_FILE; WRONG_PASSPHRASE; DAMAGED; NO_STORE for a file of another kind; ODD_STORE for a
    PKCS12 that can't be read without losing something, with the keytool command that makes a JKS of it.
    """
    path = Path(path)
    store = _load(path, password)
    if not isinstance(store, pkcs12.Pkcs12Store):
        entries = [Entry(e.alias, KEY_ENTRY if e.key else TRUSTED_ENTRY, e.certificates, e.created) for e in store]
        remark = "It is a JKS, whatever its name says." if path.suffix.lower() in PKCS12_NAMES else ""
        return Keystore(path, "JKS", tuple(entries), remark)
    kind = HIDDEN_ENTRY if store.seen_by_java is False else KEY_ENTRY if store.key else TRUSTED_ENTRY
    unnamed = "1" if store.key else ""  # Java numbers keys without an alias
    entries = [Entry(alias or unnamed, kind, chain) for alias, chain in store.entries]
    return Keystore(path, "PKCS12", tuple(entries), _remark(path, store))


def _remark(path: Path, store: pkcs12.Pkcs12Store) -> str:
    certificates, seen = bool(store.entries) and not store.key, store.seen_by_java
    remarks = {
        "Java sees no entry in it, for its key is not encrypted: write_keystore makes one that is.": (
            store.key and not seen
        ),
        "Whether Java sees an entry in it can't be told here, for its certificates are encrypted in an older way: "
        "keytool -list shows those that it sees.": certificates and seen is None,
        "Java sees no entry in it, for its certificates lack Java's trust mark: write_truststore or keytool "
        "-importcert makes a store with it.": certificates and seen is False,
        "It has no checksum, so a change to it would not be noticed.": not store.has_mac,
        "It is PKCS12, though its name says JKS: keytool writes so unless it is told -storetype JKS.": (
            path.suffix.lower() == ".jks"
        ),
    }
    return " ".join(remark for remark, holds in remarks.items() if holds)


def read_key(
    path: Path, password: Secret | str, key_password: Secret | str | None = None, alias: str | None = None
) -> tuple[PrivateKey, tuple[x509.Certificate, ...]]:
    """Return a store's private key with its chain; ``alias`` names it where there are several.

    ``key_password`` is the key's own, if it is another than the store's.

    Example: ``key, chain = read_key(workspace.device_file("deviceKeystore.pkcs12"), workspace.passphrase)``

    Raises: OnboardingError: as `read_store` does; WRONG_KEY_PASSWORD if only the key does not open; NO_KEY,
    KEY_MISMATCH or BAD_KEY if it is of no use.
    """
    store = _load(path, password)
    if isinstance(store, pkcs12.Pkcs12Store):
        if key_password is not None and reveal(key_password) != reveal(password):
            raise OnboardingError(
                f"The key password is another one than that of {path}: a PKCS12 has one for both, give that.",
                "WRONG_KEY_PASSWORD",
            )
        key, ((name, chain), *_) = store.key, store.entries or ((None, ()),)
        _choose(path, [name or "1"] if key else [], alias)
    else:
        keys = {entry.alias: entry for entry in store if entry.key}
        entry = keys[_choose(path, list(keys), alias)]
        key, chain = _decrypt_key(path, entry, password if key_password is None else key_password), entry.certificates
    if not isinstance(key, PrivateKey):
        raise OnboardingError(f"The key in {path} is neither an RSA nor an EC key: make one of these.", "BAD_KEY")
    if not chain or not is_key_of(chain[0], key):
        raise OnboardingError(
            f"The key in {path} does not belong to its certificate: make the store anew, from the pair that was made "
            "together.",
            "KEY_MISMATCH",
        )
    return key, chain


def _choose(path: Path, aliases: list[str], alias: str | None) -> str:
    """Return ``alias`` as it is in the store, or the only one there is."""
    if alias is None and len(aliases) == 1:
        return aliases[0]
    if alias is None or alias.lower() not in aliases:
        there = f"its keys are {', '.join(aliases)}" if aliases else "it holds no key at all"
        raise OnboardingError(
            f"{path} does not say which key is meant, {there}: give an alias that is there.", "NO_KEY"
        )
    return alias.lower()


@lru_cache(maxsize=4)  # as `pkcs12.load`
def _load_key(encrypted: bytes, password: str) -> object:
    return load_der_private_key(jks.decrypt_key(encrypted, password), None)


def _decrypt_key(path: Path, entry: jks.JksEntry, password: Secret | str) -> object:
    try:
        return _load_key(entry.key, reveal(password))
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


def _load(path: Path, password: Secret | str) -> list[jks.JksEntry] | pkcs12.Pkcs12Store:
    """Return what is in a JKS or a PKCS12. Raises: OnboardingError: as `read_store`."""
    data = read_file(path, f"There is no store {path}: make it first.")
    try:
        if data.startswith(jks.MAGIC):
            return jks.load(data, reveal(password))
        if data.startswith(b"\x30") and not pkcs12.is_whole(data):
            raise OnboardingError(
                f"{path} is cut off, or something follows its end: it is damaged, copy or make it anew.", "DAMAGED"
            )
        return pkcs12.load(data, reveal(password).encode())
    except jks.Damaged as error:
        raise OnboardingError(f"{path} is damaged ({error}): copy or make it anew.", "DAMAGED") from None
    except pkcs12.UnsupportedPkcs12 as unsupported:
        name = shlex.quote(str(path))
        convert = f"keytool -importkeystore -srckeystore {name} -srcstoretype PKCS12 -destkeystore {name}.jks"
        advice = f"which is not read here: {convert} -deststoretype JKS makes a JKS of what Java sees in it."
        if str(unsupported) == pkcs12.SECRET_KEY:
            copy = "-deststoretype JKS -srcalias ALIAS copies the one entry that you need."
            advice = f"which no JKS holds: {convert} {copy}"
        raise OnboardingError(f"{path} holds {unsupported}, {advice}", "ODD_STORE") from None
    except pkcs12.NotPkcs12:
        raise OnboardingError(f"{path} {_other_kind(data)}.", "NO_STORE") from None
    except ValueError:  # which a password that can't be encoded is, too
        raise OnboardingError(
            f"The password does not open {path}, or the file is damaged: type the password it was made with, or make "
            "it anew.",
            "WRONG_PASSPHRASE",
        ) from None


def _other_kind(data: bytes) -> str:
    """Return what a file is that is neither PKCS12 nor JKS, and what to do about it."""
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


def write_keystore(
    path: Path,
    key: PrivateKey,
    chain: Sequence[x509.Certificate],
    password: Secret | str,
    alias: str = KEY_ALIAS,
    *,
    key_password: Secret | str | None = None,
    trusted: Mapping[str, x509.Certificate] | None = None,
    at: datetime | None = None,
    replace: bool = False,
) -> None:
    """Write a device's key with its chain, as ``openssl pkcs12 -export -name ALIAS`` and keytool do. Mode 0600.

    A JKS can have a ``key_password`` of the key's own, and ``trusted`` certificates beside the key, under their aliases
    (the guide's step 5); ``at`` is the time that it states for its entries, now by default. ``replace`` overwrites a
    file that is there. (A Java before 8u301 can read the JKS only.)

    Example: ``write_keystore(Path("deviceKeystore.pkcs12"), key, [device, ca], passphrase)``

    Raises: OnboardingError: if the key is not the first certificate's, the chain is in the wrong order, keytool would
    refuse a password or an alias, or the file is there already; then nothing is written.
    """
    _check_chain(key, chain)
    secret, others = store_password(password), trusted or {}
    _check_aliases([alias, *others])
    if not _is_jks(path):
        if others or (key_password is not None and reveal(key_password) != secret):
            raise OnboardingError(
                f"A PKCS12 such as {path.name} has one password, and here a key and its chain alone: give it a name "
                "that ends in .jks for more.",
                "NEEDS_JKS",
            )
        return write_whole(path, pkcs12.dump_key(alias, key, chain, secret.encode()), private=True, replace=replace)
    plain, created = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()), at or datetime.now(UTC)
    encrypted = jks.encrypt_key(plain, secret if key_password is None else store_password(key_password))
    entries = [jks.JksEntry(alias, created, tuple(chain), encrypted)]
    entries += [jks.JksEntry(name, created, (one,)) for name, one in others.items()]
    write_whole(path, jks.dump(entries, secret), private=True, replace=replace)


def write_truststore(
    path: Path,
    trusted: Mapping[str, x509.Certificate],
    password: Secret | str,
    *,
    at: datetime | None = None,
    replace: bool = False,
) -> None:
    """Write trusted certificates under their aliases, as ``keytool -importcert`` does. Mode 0600.

    ``at`` and ``replace`` are as in `write_keystore`.

    Example: ``write_truststore(Path("deviceTruststore.jks"), {TRUST_ALIAS: server}, passphrase)``

    Raises: OnboardingError: if there is no certificate, keytool would refuse an alias or the password, or the file is
    there already; then nothing is written.
    """
    if not trusted:
        raise OnboardingError("A truststore needs a certificate to trust: give the server's.", "EMPTY")
    secret, created = store_password(password), at or datetime.now(UTC)
    _check_aliases([*trusted])
    if not _is_jks(path):
        return write_whole(path, pkcs12.dump_trusted(trusted, secret.encode()), private=True, replace=replace)
    write_whole(
        path,
        jks.dump([jks.JksEntry(name, created, (one,)) for name, one in trusted.items()], secret),
        private=True,
        replace=replace,
    )


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
                f"The chain is in the wrong order, or something is missing in it: {readable(name_of(issuer))} has not "
                f"signed {readable(name_of(certificate))}: let each certificate be followed by its issuer's.",
                "CHAIN_ORDER",
            )


def _check_aliases(aliases: list[str]) -> None:
    for alias in aliases:
        if not _ALIAS.fullmatch(alias):
            raise OnboardingError(
                f"The alias {alias!r} would not survive in every store: use lower-case letters, digits, '.', '_' and "
                "'-', 64 at most.",
                "BAD_ALIAS",
            )
    if len(set(aliases)) < len(aliases):
        raise OnboardingError("Two entries have one alias: give each its own.", "BAD_ALIAS")


def _is_jks(path: Path) -> bool:
    """Whether the name of a new store says JKS. Raises: OnboardingError: if it says no type at all."""
    path = Path(path)  # a str serves too, as everywhere
    if path.suffix.lower() not in (".jks", *PKCS12_NAMES):
        sentence = f"{path.name} does not say what it is to be: let it end in .jks, or in {', '.join(PKCS12_NAMES)}."
        raise OnboardingError(sentence, "BAD_NAME")
    return path.suffix.lower() == ".jks"


def store_password(password: Secret | str) -> str:
    """Return a new store's password. Raises: OnboardingError: if keytool would refuse it, or Java not open a store."""
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


#: A file's name, the part of it that a password opens, and the names of the passwords that open that part.
Opening = tuple[str, str, str]


def which_password_opens(paths: Iterable[Path], passwords: Mapping[str, Secret | str]) -> list[Opening]:
    """Try every password, by its name, on private keys in PEM form, keystores and truststores, and on each key in them.

    No password stands in the answer.

    Example: ``which_password_opens([path], {"the key's": passphrase})`` is
    ``[("deviceKeystore.jks", "the store", "the key's"), ("deviceKeystore.jks", "the key devicekeyentry in it", …)]``

    Raises: OnboardingError: if a file is missing, damaged or of another kind.
    """
    openings = []
    for path in map(Path, paths):
        if b"-----BEGIN" in read_file(path, f"There is no {path}: make it first."):
            openings.append((path.name, "the key", _fitting(partial(read_private_key, path), passwords)))
            continue
        names = _fitting(partial(read_store, path), passwords)
        openings.append((path.name, "the store", names))
        for name in names[:1]:
            for entry in read_store(path, passwords[name]).entries:
                if entry.kind == KEY_ENTRY:
                    opener = partial(read_key, path, passwords[name], alias=entry.alias)
                    openings.append((path.name, f"the key {entry.alias} in it", _fitting(opener, passwords)))
    return [(name, part, ", ".join(names) or "none of these") for name, part, names in openings]


def _fitting(opener: Callable[[Secret | str], object], passwords: Mapping[str, Secret | str]) -> list[str]:
    """Return the names of the passwords with which ``opener`` does not fail."""
    names = []
    for name, password in passwords.items():
        try:
            opener(password)
            names.append(name)
        except OnboardingError as error:
            if error.code not in ("WRONG_PASSPHRASE", "WRONG_KEY_PASSWORD", "BAD_PASSPHRASE"):
                raise
    return names
