"""The device's keystore and truststore in PKCS12 form, for Java, MQTT.fx and openssl (guide: "Creating keystore")."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    KeySerializationEncryption,
    PrivateFormat,
    pkcs12,
)

from mciot_nb.errors import OnboardingError
from mciot_nb.pki.files import read_file, write_whole
from mciot_nb.pki.keys import PrivateKey, encode_passphrase
from mciot_nb.secret import Secret, reveal

#: The guide's aliases.
KEY_ALIAS, TRUST_ALIAS = "devicekeyentry", "servercertificate"
#: keytool refuses shorter ones.
SHORTEST_PASSWORD = 6


def write_keystore(
    path: Path, key: PrivateKey, chain: Sequence[x509.Certificate], password: Secret | str, alias: str = KEY_ALIAS
) -> None:
    """Write a device's key with its chain, as ``openssl pkcs12 -export -name ALIAS`` does. Mode 0600.

    Raises OnboardingError where the key is not the first certificate's, the password is too short for keytool, or the
    file is there already.
    """
    if not chain or chain[0].public_key() != key.public_key():
        raise OnboardingError(
            "The private key does not belong to the first certificate of the chain: give the key that the device "
            "certificate was requested with, and the chain with the device first.",
            "KEY_MISMATCH",
        )
    encryption = _encryption(password)
    _write(path, pkcs12.serialize_key_and_certificates(_alias(alias), key, chain[0], chain[1:], encryption))


def write_truststore(path: Path, trusted: Mapping[str, x509.Certificate], password: Secret | str) -> None:
    """Write trusted certificates under their aliases, as ``keytool -importcert`` does. Mode 0600.

    Raises OnboardingError where there is no certificate, an alias or the password is one that keytool would refuse, or
    the file is there already.
    """
    if not trusted:
        raise OnboardingError("A truststore needs a certificate to trust: give the server's.", "EMPTY")
    entries = [pkcs12.PKCS12Certificate(certificate, _alias(alias)) for alias, certificate in trusted.items()]
    _write(path, pkcs12.serialize_java_truststore(entries, _encryption(password)))


def read_keystore(path: Path, password: Secret | str) -> pkcs12.PKCS12KeyAndCertificates:
    """Open a PKCS12 file; raises OnboardingError where the password is wrong or the file is damaged."""
    data = read_file(path, f"There is no store {path}: make it first.")
    try:
        return pkcs12.load_pkcs12(data, encode_passphrase(password))
    except ValueError:
        raise OnboardingError(
            f"The password does not open {path}, or the file is damaged: type the password it was made with, or make "
            "it anew.",
            "WRONG_PASSPHRASE",
        ) from None


def read_store_certificates(path: Path, password: Secret | str) -> list[x509.Certificate]:
    """Give the certificates of a PKCS12 file, a key's own first; raises OnboardingError as `read_keystore` does."""
    store = read_keystore(path, password)
    own = [store.cert.certificate] if store.cert else []
    return own + [entry.certificate for entry in store.additional_certs]


def _alias(alias: str) -> bytes:
    if not re.fullmatch(r"[a-z0-9._-]{1,64}", alias):
        raise OnboardingError(
            f"The alias {alias!r} would not survive in every store: use lower-case letters, digits, '.', '_' and '-'.",
            "BAD_ALIAS",
        )
    return alias.encode()


def _encryption(password: Secret | str) -> KeySerializationEncryption:
    """Encrypt as OpenSSL 3 and Java 17 do by default; both open it."""
    text = reveal(password)
    if len(text) < SHORTEST_PASSWORD:
        raise OnboardingError(
            f"keytool wants a store password of {SHORTEST_PASSWORD} characters or more: choose a longer one.",
            "BAD_PASSPHRASE",
        )
    builder = PrivateFormat.PKCS12.encryption_builder().kdf_rounds(10000)
    return (
        builder.key_cert_algorithm(pkcs12.PBES.PBESv2SHA256AndAES256CBC)
        .hmac_hash(SHA256())
        .build(encode_passphrase(text))
    )


def _write(path: Path, data: bytes) -> None:
    try:
        write_whole(path, data, private=True)
    except FileExistsError:
        raise OnboardingError(
            f"{path} is there already and is never overwritten: move it away first.", "EXISTS"
        ) from None
