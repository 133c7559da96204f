"""Writing keystores and truststores for Java, MQTT.fx and openssl (guide: "Creating keystore and truststore").

The file's name says which type it becomes: ``.jks`` is JKS; ``.pkcs12``, ``.p12`` and ``.pfx`` are PKCS12. What opens
them again is in `store`, and can be had from here too.
"""

import itertools
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from mciot_nb.errors import OnboardingError
from mciot_nb.pki import jks, pkcs12
from mciot_nb.pki.chain import is_issued_by
from mciot_nb.pki.files import write_whole
from mciot_nb.pki.keys import PrivateKey, is_key_of
from mciot_nb.pki.names import readable
from mciot_nb.pki.store import KEY_ENTRY, PKCS12_NAMES, TRUSTED_ENTRY, Entry, Store, read_key, read_store
from mciot_nb.secret import Secret, reveal

__all__ = [
    "KEY_ALIAS",
    "KEY_ENTRY",
    "SHORTEST_PASSWORD",
    "TRUSTED_ENTRY",
    "TRUST_ALIAS",
    "Entry",
    "Store",
    "read_key",
    "read_store",
    "store_password",
    "write_keystore",
    "write_truststore",
]

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
    sealed = jks.seal(plain, secret if key_password is None else store_password(key_password))
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
