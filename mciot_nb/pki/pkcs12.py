"""PKCS #12 stores (RFC 7292): written by cryptography, and read as Java reads them.

cryptography returns one private key and a list of certificates. Java knows more: several keys, trusted certificates
beside a key, an attribute without which it sees no trusted certificate, and which entry bears which alias.
"""

import hashlib
import hmac
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import KeySerializationEncryption, PrivateFormat, pkcs12

from mciot_nb.pki import pbe
from mciot_nb.pki.chain import is_issued_by
from mciot_nb.pki.jks import HIDDEN_ENTRY, KEY_ENTRY, SECRET_ENTRY, TRUSTED_ENTRY, Damaged, Entry, read_certificate
from mciot_nb.pki.keys import PrivateKey
from mciot_nb.pki.pbe import contents, oid

#: Object identifiers: data and encrypted data (RFC 5652), bags (RFC 7292, section 4.2).
_DATA, _ENCRYPTED_DATA, _BAG = "1.2.840.113549.1.7.1", "1.2.840.113549.1.7.6", "1.2.840.113549.1.12.10.1."
_KEY, _ENCRYPTED_KEY, _CERTIFICATE, _SECRET = (f"{_BAG}{number}" for number in (1, 2, 3, 5))
_KINDS = {_ENCRYPTED_KEY: KEY_ENTRY, _CERTIFICATE: TRUSTED_ENTRY, _SECRET: SECRET_ENTRY}


class NotPkcs12(ValueError):
    """The bytes are no PKCS #12 of version 3, or are damaged."""


@dataclass
class _Bag:
    """What a bag holds, with its attributes; ``key_id`` ties a key to its certificate."""

    kind: str
    value: bytes
    alias: str | None = None
    key_id: bytes | None = None
    is_trusted: bool = False
    certificate: x509.Certificate | None = None


def dump_key(alias: str, key: PrivateKey, chain: Sequence[x509.Certificate], password: bytes) -> bytes:
    """Return a store with a key and its chain."""
    return pkcs12.serialize_key_and_certificates(alias.encode(), key, chain[0], chain[1:], _encryption(password))


def dump_trusted(trusted: Mapping[str, x509.Certificate], password: bytes) -> bytes:
    """Return a store with trusted certificates, each with Java's attribute."""
    entries = [pkcs12.PKCS12Certificate(certificate, alias.encode()) for alias, certificate in trusted.items()]
    return pkcs12.serialize_java_truststore(entries, _encryption(password))


def _encryption(password: bytes) -> KeySerializationEncryption:
    """Return the encryption that OpenSSL 3 and Java 17 use by default. A Java before 8u301 or 11.0.12 needs a JKS."""
    builder = PrivateFormat.PKCS12.encryption_builder().kdf_rounds(10000)
    return builder.key_cert_algorithm(pkcs12.PBES.PBESv2SHA256AndAES256CBC).hmac_hash(hashes.SHA256()).build(password)


@lru_cache(maxsize=4)  # hashing takes a while (NSS: 0.5 s), and notebooks open the same store again and again
def load(data: bytes, password: str) -> tuple[tuple[Entry, ...], str]:
    """Return what is in a store, and the number of its MAC's algorithm; without a MAC, a changed byte can go unnoticed.

    Raises: NotPkcs12; jks.Damaged; pbe.WrongPassword; pbe.UnknownEncryption.
    """
    try:
        (pfx,) = contents(data, b"\x30")
        version, safe, *mac = contents(pfx, b"\x02\x30\x30", optional=1)
        kind, wrapped = contents(safe, b"\x06\xa0")
        (safes,) = contents(wrapped, b"\x04")
        if (version, oid(kind)) != (b"\3", _DATA):
            raise NotPkcs12  # or protected without a password
    except ValueError:
        raise NotPkcs12 from None
    try:
        algorithm = _check(mac[0], safes, password) if mac else ""
        (parts,) = contents(safes)
        return tuple(_entries([list(_bags(part, password)) for part in contents(parts)])), algorithm
    except (pbe.WrongPassword, pbe.UnknownEncryption):
        raise
    except UnicodeEncodeError:
        raise pbe.WrongPassword from None
    except ValueError:
        raise Damaged("what it holds can't be read to its end") from None


def _check(mac: bytes, data: bytes, password: str) -> str:
    """Compare a MAC, and return the number of its algorithm. Raises: WrongPassword; UnknownEncryption; ValueError."""
    info, salt, *rounds = contents(mac, b"\x30\x04\x02", optional=1)
    algorithm, digest = contents(info, b"\x30\x04")
    (tag, number), *parameters = pbe.split(algorithm)
    if (kind := oid(number)) == pbe.PBMAC1:
        derivation, scheme = contents(b"".join(content for _, content in parameters), b"\x30\x30")
        name, keys = pbe.known(pbe.HMACS, pbe.number_of(scheme)), [pbe.derived_key(derivation, password)]
    elif tag == pbe.OBJECT_IDENTIFIER and parameters in ([], [(pbe.NULL, b"")]):  # OpenSSL would take anything
        name = pbe.known(pbe.DIGESTS, kind)
        size, turns = hashlib.new(name).digest_size, rounds[0] if rounds else b"\1"
        keys = [pbe.pkcs12_key(3, size, secret, salt, turns, name) for secret in pbe.secrets(password)]
    else:
        raise ValueError("odd parameters")
    if not any(hmac.compare_digest(hmac.digest(key, data, name), digest) for key in keys):
        raise pbe.WrongPassword
    return kind


def _bags(part: bytes, password: str) -> Iterator[_Bag]:
    """Yield the bags of a ContentInfo (RFC 7292, section 4). Raises: as `load`, ValueError instead of Damaged."""
    kind, wrapped = contents(part)
    (content,) = contents(wrapped)
    if oid(kind) == _ENCRYPTED_DATA:
        _, encrypted_info, *_ = contents(content)
        _, (_, algorithm), encrypted = pbe.split(encrypted_info)
        content = pbe.decrypt(algorithm, pbe.octets(*encrypted), password)
    (bags,) = contents(content)
    for bag in contents(bags):
        number, value, *attributes = contents(bag)
        made = _Bag(oid(number), value)
        for attribute in contents(attributes[0]) if attributes else ():
            name, values = contents(attribute)
            first, *_ = contents(values)
            match oid(name):
                case "1.2.840.113549.1.9.20":
                    made.alias = first.decode("utf-16-be", "replace")
                case "1.2.840.113549.1.9.21":
                    made.key_id = first
                case "2.16.840.1.113894.746875.1.1":  # Java's own
                    made.is_trusted = made.kind == _CERTIFICATE
        if made.kind == _CERTIFICATE:
            (certificate_bag,) = contents(value)
            _, wrapped = contents(certificate_bag)
            made.certificate = read_certificate(b"".join(contents(wrapped)))
        yield made


def _entries(parts: list[list[_Bag]]) -> Iterator[Entry]:
    """Yield the entries as Java's PKCS12KeyStore shows them, and then what it does not show."""
    shown: dict[str, _Bag] = {}
    hidden: list[_Bag] = []
    unnamed, encrypted_keys = itertools.count(1), 0
    for bags in parts:
        for place, bag in enumerate(bags):
            encrypted_keys += bag.kind == _ENCRYPTED_KEY
            # Java ties the first key, if it has no identifier, to the first certificate of what comes behind it.
            if bag.key_id is None and encrypted_keys == 1 and (bag.kind == _ENCRYPTED_KEY or place == 0):
                bag.key_id = b"01"
            if bag.is_trusted or bag.kind == _SECRET or (bag.kind == _ENCRYPTED_KEY and bag.key_id is not None):
                bag.alias = str(next(unnamed)) if bag.alias is None else bag.alias
                hidden += filter(None, [shown.pop(bag.alias.lower(), None)])  # Java forgets the earlier one
                shown[bag.alias.lower()] = bag
            elif bag.kind in (_KEY, *_KINDS):
                hidden.append(bag)
    entries = [*((bag, _KINDS[bag.kind]) for bag in shown.values()), *((bag, HIDDEN_ENTRY) for bag in hidden)]
    certificates = [bag for bags in parts for bag in bags if bag.certificate]
    chains = {id(bag): _chain(bag, certificates) for bag, _ in entries if bag.kind in (_KEY, _ENCRYPTED_KEY)}
    chained = set(itertools.chain(*chains.values()))
    for bag, kind in entries:
        chain = chains.get(id(bag), (bag.certificate,) if bag.certificate else ())
        if id(bag) in chains or kind != HIDDEN_ENTRY or not chained.issuperset(chain):
            yield Entry((bag.alias or "").lower(), kind, chain, key=bag.value if id(bag) in chains else b"")


def _chain(key: _Bag, certificates: list[_Bag]) -> tuple[x509.Certificate, ...]:
    """Return a key's certificate, found by the identifier rather than by the alias, as Java does, and its issuers."""
    alias, fitting = None if key.alias is None else key.alias.lower(), dict[tuple[bool, bool], x509.Certificate]()
    for bag in certificates:
        same_id, same_alias = bag.key_id == key.key_id is not None, bag.alias is not None and bag.alias.lower() == alias
        if bag.certificate and (same_id or same_alias) and not bag.is_trusted and (True, True) not in fitting:
            fitting[same_id, same_alias] = bag.certificate
    if not fitting:
        return ()
    chain, known = [fitting[max(fitting)]], [bag.certificate for bag in certificates if bag.certificate]
    while chain[-1].issuer != chain[-1].subject:
        issuers = [one for one in known if one.subject == chain[-1].issuer and one not in chain]
        if not issuers:
            break
        chain.append(max(issuers, key=partial(is_issued_by, chain[-1])))  # by its name, if no signature can be checked
    return tuple(chain)
