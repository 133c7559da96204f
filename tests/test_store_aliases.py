"""PKCS12s as no tool of ours writes them, put together bag by bag: each is to us what it is to keytool."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from test_keystore_matrix import CHAINS, KEYS, PASSWORD, ROOT, SERVER, Tools, dateless, shown, slow, smoke, tools

from mciot_nb.pki.keystore import HIDDEN_ENTRY, Keystore, read_store

__all__ = ["tools"]
KEY_BAGS = (bytes.fromhex("060b2a864886f70d010c0a0101"), bytes.fromhex("060b2a864886f70d010c0a0102"))
DATA, TRUST = "2a864886f70d010701", "6086480186f966adca7b0101"


def der(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    size = len(body).to_bytes((len(body).bit_length() + 7) // 8) if len(body) > 127 else b""
    return bytes([tag, 0x80 | len(size) if size else len(body)]) + size + body


def attribute(number: str, value: bytes) -> bytes:
    return der(0x30, der(6, bytes.fromhex(number)), der(0x31, value))


def bag(kind: int, value: bytes, name: str | None = None, key_id: bytes = b"", trust: bool = False) -> bytes:
    """Return a SafeBag (RFC 7292, section 4.2)."""
    attributes = [attribute("2a864886f70d010914", der(0x1E, name.encode("utf-16-be")))] if name is not None else []
    attributes += [attribute("2a864886f70d010915", der(4, key_id))] if key_id else []
    attributes += [attribute(TRUST, der(6, bytes.fromhex("551d2500")))] if trust else []
    number = der(6, bytes.fromhex(f"2a864886f70d010c0a01{kind:02x}"))
    return der(0x30, number, der(0xA0, value), *([der(0x31, *attributes)] if attributes else []))


def key(kind: str, name: str | None = None, key_id: bytes = b"", *, is_open: bool = False) -> bytes:
    encryption = NoEncryption() if is_open else BestAvailableEncryption(PASSWORD.encode())
    return bag(2 - is_open, KEYS[kind].private_bytes(Encoding.DER, PrivateFormat.PKCS8, encryption), name, key_id)


def cert(certificate: x509.Certificate, name: str | None = None, key_id: bytes = b"", trust: bool = False) -> bytes:
    content = der(0xA0, der(4, certificate.public_bytes(Encoding.DER)))
    return bag(3, der(0x30, der(6, bytes.fromhex("2a864886f70d01091601")), content), name, key_id, trust)


def content_info(data: bytes) -> bytes:
    return der(0x30, der(6, bytes.fromhex(DATA)), der(0xA0, der(4, data)))


def pkcs12(*parts: list[bytes]) -> bytes:
    """Return a store without encryption and MAC; each part is a list of bags."""
    safes = der(0x30, *(content_info(der(0x30, *bags)) for bags in parts))
    return der(0x30, der(2, b"\3"), content_info(safes))


LEAF, MIDDLE, _ = CHAINS["EC"]
RSA_LEAF = CHAINS["RSA"][0]
#: The parts of a store.
STORES = {
    "other names": ([key("EC", "Key", b"1")], [cert(LEAF, "Cert", b"1"), cert(MIDDLE), cert(ROOT)]),
    "empty name of the key": ([key("EC", "", b"1")], [cert(LEAF, "Cert", b"1")]),
    "empty name of the certificate": ([key("EC", "Key", b"1")], [cert(LEAF, "", b"1")]),
    "no name of the key": ([key("EC", None, b"1")], [cert(LEAF, "Cert", b"1")]),
    "certificates first": ([cert(MIDDLE), cert(LEAF, "Cert", b"1")], [key("EC", "Key", b"1")]),
    "no identifiers": ([key("EC", "Key")], [cert(LEAF, "Cert"), cert(MIDDLE)]),
    "no identifiers, certificates first": ([cert(LEAF, "Cert"), cert(MIDDLE)], [key("EC", "Key")]),
    "no identifiers, one name, certificates first": ([cert(MIDDLE), cert(LEAF, "KEY")], [key("EC", "Key")]),
    "no identifiers, in one part": ([key("EC", "Key"), cert(LEAF, "Cert")],),
    "no identifiers, the root first": ([key("EC", "Key")], [cert(ROOT), cert(LEAF, "Key")]),
    "another identifier, one name": ([key("EC", "Key", b"1")], [cert(LEAF, "key", b"2")]),
    "the identifier against the name": ([key("EC", "Key", b"1")], [cert(ROOT, "Key", b"2"), cert(LEAF, "no", b"1")]),
    "one identifier twice": ([key("EC", "Key", b"1")], [cert(ROOT, "a", b"1"), cert(LEAF, "b", b"1")]),
    "identifier and name": ([key("EC", "Key", b"1")], [cert(LEAF, "KEY", b"1"), cert(ROOT, "b", b"1")]),
    "identifier and name twice": ([key("EC", "Key", b"1")], [cert(LEAF, "KEY", b"1"), cert(ROOT, "key", b"1")]),
    "trusted with the key's identifier": ([key("EC", "k", b"1")], [cert(LEAF, "t", b"1", True)]),
    "a key alone": ([key("EC", "Key", b"1")],),
    "two keys": ([key("EC", "a", b"1"), key("RSA", "b", b"2")], [cert(LEAF, "a", b"1"), cert(RSA_LEAF, "b", b"2")]),
    "two keys, the second without": ([key("EC", "a"), key("RSA", "b")], [cert(LEAF, "a"), cert(RSA_LEAF, "b")]),
    "two keys of one name": ([key("EC", "a", b"1"), key("RSA", "A", b"2")], [cert(LEAF, "a", b"1"), cert(RSA_LEAF)]),
    "trusted, no name": ([cert(SERVER, None, trust=True), cert(ROOT, None, trust=True)],),
    "trusted, an empty name": ([cert(SERVER, "", trust=True), cert(ROOT, "1", trust=True)],),
    "trusted, one name": ([cert(SERVER, "A", trust=True), cert(ROOT, "a", trust=True)],),
    "trusted and others": ([cert(SERVER, "a", trust=True), cert(ROOT, "b")],),
    "trusted beside a key": ([key("EC", None, b"1")], [cert(LEAF, None, b"1"), cert(ROOT, None, b"", True)]),
    "trusted issuer": ([key("EC", "k", b"1")], [cert(LEAF, None, b"1"), cert(MIDDLE, "m", b"", True)]),
    "trusted under the key's name": ([key("EC", "k", b"1")], [cert(LEAF, "k", b"1"), cert(ROOT, "K", b"", True)]),
    "an open key": ([key("EC", "Key", b"1", is_open=True)], [cert(LEAF, "Key", b"1")]),
    "an open key beside another": (
        [key("RSA", "o", b"2", is_open=True), key("EC", "Key", b"1")],
        [cert(LEAF, "", b"1")],
    ),
}


def seen(store: Keystore) -> list[object]:
    return [entry for entry in dateless(shown(store)) if entry[1] != HIDDEN_ENTRY]  # type: ignore[index]


@pytest.mark.parametrize("name", [smoke("other names"), smoke("empty name of the key"), *map(slow, [*STORES][2:])])
def test_a_store_is_to_us_what_it_is_to_keytool(name: str, tools: Tools) -> None:
    path = tools.folder / "made.p12"
    path.write_bytes(pkcs12(*STORES[name]))
    store, data = read_store(path, PASSWORD), path.read_bytes()
    theirs = dateless(tools.listed(path))
    assert seen(store) == theirs, f"{seen(store)}\n{theirs}"
    there = {one for one in (*CHAINS["EC"], RSA_LEAF, SERVER) if one.public_bytes(Encoding.DER) in data}
    assert {one for entry in store.entries for one in entry.chain} == there, "nothing is lost"
    assert sum(bool(entry.key) for entry in store.entries) == sum(map(data.count, KEY_BAGS))
