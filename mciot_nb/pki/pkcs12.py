"""PKCS #12 stores (RFC 7292), as far as cryptography goes, and how to tell a file with which it would go wrong.

cryptography gives one private key and a heap of certificates. Java knows more: several keys in a file, trusted
certificates beside a key, and a mark without which it sees no trusted certificate at all. A file of which something
would be lost is refused here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import KeySerializationEncryption, PrivateFormat, pkcs12

from mciot_nb.pki.chain import is_issued_by
from mciot_nb.pki.keys import PrivateKey
from mciot_nb.pki.pkcs12_layers import NoPkcs12, OddStore, Pfx, decrypted, hidden_length, structure

__all__ = ["Contents", "NoPkcs12", "OddStore", "dump_key", "dump_trusted", "load"]

#: How a bag's kind and Java's trust mark stand in a file. So many bytes stand nowhere by chance, so they are counted.
_BAG = bytes.fromhex("060b2a864886f70d010c0a01")
_KEY_BAGS, _SECRET_BAG = (_BAG + b"\x01", _BAG + b"\x02"), _BAG + b"\x05"
_TRUST_MARK = bytes.fromhex("060c6086480186f966adca7b0101")


@dataclass(frozen=True)
class Contents:
    """One private key under its alias, with its chain, or certificates under theirs; None is no alias."""

    key: object
    alias: str | None
    chain: tuple[x509.Certificate, ...]
    certificates: tuple[tuple[str | None, x509.Certificate], ...]
    #: Whether Java sees the key, which has to be encrypted, or the certificates, which have to bear its mark.
    seen_by_java: bool
    #: Whether a changed byte would be noticed.
    has_mac: bool


def dump_key(alias: str, key: PrivateKey, chain: Sequence[x509.Certificate], password: bytes, legacy: bool) -> bytes:
    """Write a store with a key and its chain."""
    encryption = _encryption(password, legacy)
    return pkcs12.serialize_key_and_certificates(alias.encode(), key, chain[0], chain[1:], encryption)


def dump_trusted(trusted: Mapping[str, x509.Certificate], password: bytes, legacy: bool) -> bytes:
    """Write a store with trusted certificates, marked as Java wants it."""
    entries = [pkcs12.PKCS12Certificate(certificate, alias.encode()) for alias, certificate in trusted.items()]
    return pkcs12.serialize_java_truststore(entries, _encryption(password, legacy))


def _encryption(password: bytes, legacy: bool) -> KeySerializationEncryption:
    """Encrypt as OpenSSL 3 and Java 17 do by default, or as a Java before 8u301 can read it."""
    scheme = pkcs12.PBES.PBESv1SHA1And3KeyTripleDESCBC if legacy else pkcs12.PBES.PBESv2SHA256AndAES256CBC
    builder = PrivateFormat.PKCS12.encryption_builder().kdf_rounds(10000).key_cert_algorithm(scheme)
    return builder.hmac_hash(hashes.SHA1() if legacy else hashes.SHA256()).build(password)


def load(data: bytes, password: bytes) -> Contents:
    """Read a store.

    Raises OddStore where something would be lost, NoPkcs12, and ValueError where the password is wrong, or the store
    is damaged behind its structure.
    """
    pfx = structure(data)
    if b"\0" in password:
        raise ValueError("no password holds a NUL")  # and cryptography would not survive it
    try:
        store = pkcs12.load_pkcs12(data, password)
    except x509.InvalidVersion as error:
        raise ValueError(str(error)) from None
    except UnsupportedAlgorithm:
        raise OddStore("a key or an encryption of a kind that is not known here") from None
    if _SECRET_BAG in data:
        raise OddStore("a secret key", fits_jks=False)
    if sum(map(data.count, _KEY_BAGS)) > (store.key is not None):  # keytool and openssl leave these bags in the open
        raise OddStore("several keys")
    found = [(_text(entry.friendly_name), entry.certificate) for entry in store.additional_certs]
    if store.key is None:
        return Contents(None, None, (), tuple(found), _are_marked(pfx, password, found), pfx.mac is not None)
    if store.cert is None:
        raise OddStore("a key without its certificate")
    if _is_one_marked(pfx, password, found):
        raise OddStore("trusted certificates beside its key")
    chain, rest = [store.cert.certificate], [certificate for _, certificate in found]
    while issuer := next((other for other in rest if is_issued_by(chain[-1], other) and other != chain[-1]), None):
        rest.remove(issuer)
        chain.append(issuer)
    if rest:
        raise OddStore("certificates beside the chain of its key")
    alias, seen = _text(store.cert.friendly_name), _KEY_BAGS[0] not in data
    return Contents(store.key, alias, tuple(chain), (), seen, pfx.mac is not None)


def _text(friendly_name: bytes | None) -> str | None:
    return None if friendly_name is None else friendly_name.decode(errors="replace").lower()  # as Java shows it


def _are_marked(pfx: Pfx, password: bytes, found: Sequence[tuple[str | None, x509.Certificate]]) -> bool:
    """Whether a store's certificates bear Java's trust mark, all of them."""
    try:
        marks = sum(content.count(_TRUST_MARK) for content in decrypted(pfx, password))
    except (ValueError, KeyError):  # an older encryption: the marks make longer what it hides
        entries = [pkcs12.PKCS12Certificate(certificate, (alias or "").encode()) for alias, certificate in found]
        marked = pkcs12.serialize_java_truststore(entries, _encryption(password or b" ", True)) if entries else b""
        marks = len(found) if entries and hidden_length(pfx) >= hidden_length(structure(marked)) else 0
    if 0 < marks < len(found):
        raise OddStore("certificates that Java trusts and others that it does not")
    aliases = [alias for alias, _ in found]
    if marks and len(set(aliases)) < len(aliases):
        raise OddStore("two certificates under one alias")
    return marks > 0


def _is_one_marked(pfx: Pfx, password: bytes, found: Sequence[tuple[str | None, x509.Certificate]]) -> bool:
    try:
        return any(_TRUST_MARK in content for content in decrypted(pfx, password))
    except (ValueError, KeyError):  # an older encryption: keytool names a chain's certificates by their subjects
        return any(alias and "=" not in alias for alias, _ in found)
