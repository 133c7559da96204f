"""Keystores and truststores for Java, MQTT.fx and openssl (guide: "Creating keystore and truststore").

The file's name says which type is written: ``.jks`` is JKS; ``.pkcs12``, ``.p12`` and ``.pfx`` are PKCS12. What is read
is known by its content.
"""

import base64
import itertools
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from mciot_nb.errors import OnboardingError, fault
from mciot_nb.pki import jks, pbe, pkcs12
from mciot_nb.pki.chain import Given, each_of, is_issued_by
from mciot_nb.pki.files import data_table, meanings, read_file, write_whole
from mciot_nb.pki.jks import HIDDEN_ENTRY, KEY_ENTRY, TRUSTED_ENTRY, Entry
from mciot_nb.pki.keys import OtherKey, PrivateKey, is_key_of, open_key, read_private_key
from mciot_nb.pki.names import name_of, readable
from mciot_nb.secret import Secret, reveal

#: How the names of PKCS12 files end.
PKCS12_NAMES = (".pkcs12", ".p12", ".pfx")
#: The guide's aliases.
KEY_ALIAS, TRUST_ALIAS = "devicekeyentry", "servercertificate"
#: keytool refuses shorter ones.
SHORTEST_PASSWORD = 6
#: Aliases are unique without regard to case, and Java shows them in lower case.
_ALIAS = re.compile("[a-z0-9._-]{1,64}")
#: What certtool puts around a PKCS12 unless it is told --outder.
_ARMOUR = re.compile(rb"-----BEGIN PKCS12-----([^-]+)-----END PKCS12-----")
#: Files of other kinds: how each begins, as a regular expression, and what it is and what to do about it.
_OTHER_KINDS = data_table("other_files.csv")
#: What is said of a store that can be read, and is odd.
_REMARKS = meanings("store")


@dataclass(frozen=True)
class Keystore:
    """What is in a store: ``type`` is JKS or PKCS12, ``remark`` what is odd about it, or empty."""

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

    Raises: OnboardingError: NO_FILE; WRONG_PASSPHRASE; DAMAGED; NO_STORE for a file of another kind; ODD_STORE for one
    that is protected in a way that is not known here, with the commands that write it anew.
    """
    path = Path(path)
    data = read_file(path, f"There is no store {path}: make it first.")
    try:
        if data.startswith(jks.MAGIC):
            entries = tuple(jks.load(data, reveal(password)))
            return Keystore(path, "JKS", entries, _remark(path, "JKS", entries))
        armour = _ARMOUR.search(data)
        entries, mac = pkcs12.load(base64.b64decode(armour[1]) if armour else data, reveal(password))
        oddities = {"no checksum": not mac, "PBMAC1": mac == pbe.PBMAC1, "PEM": armour}
        return Keystore(path, "PKCS12", entries, _remark(path, "PKCS12", entries, **oddities))
    except jks.Damaged as error:
        raise fault("DAMAGED.store", path=path, error=error) from None
    except pbe.UnknownEncryption as unknown:
        raise OnboardingError(f"{path} is protected with {_anew(path, unknown)}.", "ODD_STORE") from None
    except pkcs12.NotPkcs12:
        if data.startswith(b"\x30") and not pbe.is_whole(data):
            raise fault("DAMAGED.end", path=path) from None
        form = other_form(data, shlex.quote(str(path)), of_certificates=False)
        raise OnboardingError(f"{path} {form}.", "NO_STORE") from None
    except ValueError:  # which a password that can't be encoded is, too
        raise fault("WRONG_PASSPHRASE.store", path=path) from None


def _anew(path: Path, unknown: pbe.UnknownEncryption) -> str:
    """Return what is not known, and how a PKCS12 is written without it."""
    legacy = " -legacy" if pbe.OLDER_CIPHER in str(unknown) else ""
    read = f"{unknown}, which is not read here: openssl pkcs12{legacy} -in {shlex.quote(str(path))} -out NEW.pem"
    return f"{read}, then openssl pkcs12 -export -in NEW.pem -out NEW.p12, convert it"


def other_form(data: bytes, file: str, *, of_certificates: bool = True) -> str:
    """Return what a file in another form, of certificates or of a store, is, and what to do about it; "" if of none."""
    kinds = [row for row in _OTHER_KINDS if row["of_certificates"] or not of_certificates]
    says = (row["says"] for row in kinds if re.match(row["begins"].encode(), data, re.DOTALL))
    return next(says, "").format(file=file)


def _remark(path: Path, type_: str, entries: tuple[Entry, ...], **oddities: object) -> str:
    """Return what is odd about a store, in a sentence each."""
    hidden = [entry for entry in entries if entry.kind == HIDDEN_ENTRY]
    is_all, is_pkcs12, suffix = len(hidden) == len(entries), type_ == "PKCS12", path.suffix.lower()
    has_key, has_capitals = any(entry.key for entry in hidden), any(e.alias != e.alias.lower() for e in entries)
    oddities |= {
        "open key": is_all and has_key,
        "no trust mark": hidden and is_all and not has_key,
        "hidden": hidden and not is_all,
        "capitals": has_capitals,
        "a JKS": not is_pkcs12 and suffix in PKCS12_NAMES,
        "a PKCS12": is_pkcs12 and suffix == ".jks",
    }
    return " ".join(says.format(file=shlex.quote(str(path))) for odd, says in _REMARKS.items() if oddities.get(odd))


def read_key(
    path: Path, password: Secret | str, key_password: Secret | str | None = None, alias: str | None = None
) -> tuple[PrivateKey, tuple[x509.Certificate, ...]]:
    """Return a store's private key with its chain; ``alias`` names it where there are several.

    ``key_password`` is the key's own, if it is another than the store's.

    Example: ``key, chain = read_key(workspace.device_file("deviceKeystore.pkcs12"), workspace.passphrase)``

    Raises: OnboardingError: as `read_store` does; WRONG_KEY_PASSWORD if only the key does not open; NO_KEY,
    KEY_MISMATCH or BAD_KEY if it is of no use.
    """
    store = read_store(path, password)
    keys = {entry.alias: entry for entry in store.entries if entry.kind == KEY_ENTRY}
    keys = keys or {entry.alias: entry for entry in store.entries if entry.key}
    found = [one for one in keys if alias is None or one.lower() == alias.lower()]
    if not found or (alias is None and len(found) > 1):
        there = f"its keys are {', '.join(keys)}" if keys else "it holds no key at all"
        raise fault("NO_KEY", path=path, there=there)
    entry = keys[alias if alias in found else found[0]]
    key, chain = _decrypt_key(store, entry, reveal(password if key_password is None else key_password)), entry.chain
    if not chain or not is_key_of(chain[0], key):
        raise fault("KEY_MISMATCH.store", path=path, fits="does not belong to its" if chain else "has no")
    return key, chain


def _decrypt_key(store: Keystore, entry: Entry, password: str) -> PrivateKey:
    key = f"The key {entry.alias} in {store.path}"
    try:
        return open_key(jks.decrypt_key(entry.key, password) if store.type == "JKS" else entry.key, password)
    except pbe.WrongPassword:
        raise fault("WRONG_KEY_PASSWORD", key=key) from None
    except OtherKey as other:
        raise OnboardingError(f"{key} is {other}: make an RSA key, or an EC key on P-256.", "BAD_KEY") from None
    except pbe.UnknownEncryption as unknown:
        raise OnboardingError(f"{key} is encrypted with {_anew(store.path, unknown)}.", "BAD_KEY") from None
    except ValueError:
        raise OnboardingError(f"{key} is damaged, or hidden in an unknown way: make it again.", "BAD_KEY") from None


def write_keystore(
    path: Path,
    key: PrivateKey,
    chain: Given,
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
    file that is there. (A Java before 8u301 or 11.0.12 reads the JKS only.)

    Example: ``write_keystore(Path("deviceKeystore.pkcs12"), key, [device, ca], passphrase)``

    Raises: OnboardingError: if the key is not the first certificate's, the chain is in the wrong order, keytool would
    refuse a password or an alias, or the file is there already; then nothing is written.
    """
    if not (chain := each_of(chain)) or not is_key_of(chain[0], key):
        raise fault("KEY_MISMATCH.first")
    for certificate, issuer in itertools.pairwise(chain):
        if certificate == issuer or not is_issued_by(certificate, issuer, unchecked=True):
            upper, lower = readable(name_of(issuer)), readable(name_of(certificate))
            raise fault("CHAIN_ORDER.store", upper=upper, lower=lower)
    secret, others, plain = store_password(password), trusted or {}, (Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    _check_aliases([alias, *others])
    if _is_jks(path):
        key_secret = secret if key_password is None else store_password(key_password)
        encrypted, created = jks.encrypt_key(key.private_bytes(*plain), key_secret), at or datetime.now(UTC)
        entries = [Entry(alias, KEY_ENTRY, tuple(chain), created, encrypted), *_trusted_entries(others, created)]
        data = jks.dump(entries, secret)
    elif others or (key_password is not None and reveal(key_password) != secret):
        raise fault("NEEDS_JKS", path=path)
    else:
        data = pkcs12.dump_key(alias, key, chain, secret.encode())
    write_whole(path, data, private=True, replace=replace)


def write_truststore(
    path: Path,
    trusted: Mapping[str, x509.Certificate],
    password: Secret | str,
    *,
    at: datetime | None = None,
    replace: bool = False,
) -> None:
    """Write trusted certificates under their aliases, as ``keytool -importcert`` does; the rest as `write_keystore`.

    Example: ``write_truststore(Path("deviceTruststore.jks"), {TRUST_ALIAS: server}, passphrase)``

    Raises: OnboardingError: if there is no certificate, keytool would refuse an alias or the password, or the file is
    there already; then nothing is written.
    """
    if not trusted:
        raise OnboardingError("A truststore needs a certificate to trust: give the server's.", "EMPTY")
    secret, entries = store_password(password), _trusted_entries(trusted, at or datetime.now(UTC))
    _check_aliases([*trusted])
    data = jks.dump(entries, secret) if _is_jks(path) else pkcs12.dump_trusted(trusted, secret.encode())
    write_whole(path, data, private=True, replace=replace)


def _trusted_entries(trusted: Mapping[str, x509.Certificate], created: datetime) -> list[Entry]:
    return [Entry(alias, TRUSTED_ENTRY, (certificate,), created) for alias, certificate in trusted.items()]


def _check_aliases(aliases: list[str]) -> None:
    if odd := [alias for alias in aliases if not _ALIAS.fullmatch(alias)]:
        raise fault("BAD_ALIAS", alias=odd[0])
    if len(set(aliases)) < len(aliases):
        raise OnboardingError("Two entries have one alias: give each its own.", "BAD_ALIAS")


def _is_jks(path: Path) -> bool:
    """Whether the name of a new store says JKS. Raises: OnboardingError: if it says no type at all."""
    path = Path(path)  # a str serves too, as everywhere
    if path.suffix.lower() not in (".jks", *PKCS12_NAMES):
        raise fault("BAD_NAME.store", path=path, names=", ".join(PKCS12_NAMES))
    return path.suffix.lower() == ".jks"


def store_password(password: Secret | str) -> str:
    """Return a new store's password. Raises: OnboardingError: if keytool would refuse it, or Java not open a store."""
    text = reveal(password)
    if len(text) < SHORTEST_PASSWORD:
        raise fault("BAD_PASSPHRASE.store", shortest=SHORTEST_PASSWORD)
    if not (text.isascii() and text.isprintable()):
        raise fault("BAD_PASSPHRASE.java")
    return text


def which_password_opens(paths: Iterable[Path], passwords: Mapping[str, Secret | str]) -> list[tuple[str, str, str]]:
    """Try every password, by its name, on private keys in PEM form, keystores and truststores, and on each key in them.

    The answer: a file's name, a part of it, and the names of the passwords that open that part; but no password.

    Example: ``which_password_opens([path], {"the key's": passphrase})`` is
    ``[("deviceKeystore.jks", "the store", "the key's"), ("deviceKeystore.jks", "the key devicekeyentry in it", …)]``

    Raises: OnboardingError: if a file is missing, damaged or of another kind.
    """
    openings = []
    for path in map(Path, paths):
        if not _ARMOUR.search(data := read_file(path, f"There is no {path}: make it first.")) and b"-----BEGIN" in data:
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
