"""Opening a keystore or truststore that we, keytool or openssl made: what is in it, and its key.

The type is the content's, not the name's: keytool of Java 9 and later writes PKCS12 whatever the name says.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_private_key

from mciot_nb.errors import OnboardingError
from mciot_nb.pki import jks, pkcs12
from mciot_nb.pki.files import read_file
from mciot_nb.pki.keys import PrivateKey, is_key_of
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
class Store:
    """What is in a store, without its keys: ``type`` is JKS or PKCS12, ``remark`` what is odd about it, or empty."""

    path: Path
    type: str
    entries: tuple[Entry, ...]
    remark: str = ""

    @property
    def trusted(self) -> dict[str, x509.Certificate]:
        """The certificates that Java trusts, under their aliases."""
        return {entry.alias: entry.chain[0] for entry in self.entries if entry.kind == TRUSTED_ENTRY}


def read_store(path: Path, password: Secret | str) -> Store:
    """Say what is in a store, ours, keytool's or openssl's, as ``keytool -list`` does.

    Raises OnboardingError: NO_FILE; WRONG_PASSPHRASE; DAMAGED; NO_STORE for a file of another kind; ODD_STORE for a
    PKCS12 that can't be read without losing something, with the keytool command that makes a JKS of it.
    """
    data, kind = _read(path)
    if kind == "JKS":
        entries = tuple(
            Entry(e.alias, KEY_ENTRY if e.sealed else TRUSTED_ENTRY, e.certificates, e.created)
            for e in _load_jks(path, data, password)
        )
        remark = "" if path.suffix.lower() not in PKCS12_NAMES else "It is a JKS, whatever its name says."
        return Store(path, kind, entries, remark)
    contents = _load_pkcs12(path, data, password)
    if contents.chain:
        entry_kind = KEY_ENTRY if contents.seen_by_java else UNSEEN
        entries = (Entry(contents.alias or "1", entry_kind, contents.chain),)  # Java counts those without an alias
    else:
        entry_kind = TRUSTED_ENTRY if contents.seen_by_java else UNSEEN
        entries = tuple(Entry(alias or "", entry_kind, (found,)) for alias, found in contents.certificates)
    return Store(path, kind, entries, _remark(path, contents))


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
    """
    data, kind = _read(path)
    if kind == "JKS":
        sealed = {entry.alias: entry for entry in _load_jks(path, data, password) if entry.sealed}
        entry = _choose(path, sealed, alias)
        key, chain = _unseal(path, entry, password if key_password is None else key_password), entry.certificates
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


def _unseal(path: Path, entry: jks.JksEntry, password: Secret | str) -> object:
    try:
        return load_der_private_key(jks.unseal(entry.sealed, reveal(password)), None)
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
    except pkcs12.OddStore as odd:
        raise OnboardingError(f"{path} holds {odd}, {_way_out(path, odd)}", "ODD_STORE") from None
    except pkcs12.NoPkcs12:
        raise OnboardingError(f"{path} {_other(data)}.", "NO_STORE") from None
    except ValueError:
        raise _shut(path) from None


def _way_out(path: Path, odd: pkcs12.OddStore) -> str:
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
