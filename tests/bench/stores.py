"""What keystores cost beside keytool and openssl: a call of ours against a whole process, as a notebook starts it."""

import os
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from shutil import which

from authority import PASSPHRASE, Line, alternate, authority
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256

from mciot_nb import DistinguishedName, diagnose_device
from mciot_nb.pki import pkcs12
from mciot_nb.pki.chain import to_pem
from mciot_nb.pki.keys import encrypted_pem
from mciot_nb.pki.keystore import read_key, read_store, write_keystore, write_truststore

RUNS = 7


def stores(folder: Path) -> Iterator[Line]:
    """Write and read the guide's stores, RSA-4096, each way as keytool or openssl would."""
    folder = folder / "stores"
    folder.mkdir()
    ca, key = authority(folder / "ca"), rsa.generate_private_key(public_exponent=65537, key_size=4096)
    name = DistinguishedName(common_name="bench").to_x509()
    chain = [ca.sign(x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, SHA256())), ca.certificate]
    (folder / "key.pem").write_bytes(encrypted_pem(key, PASSPHRASE.encode()))
    (folder / "chain.pem").write_bytes(to_pem(chain))
    (folder / "server.pem").write_bytes(to_pem(chain[1:]))
    number = count()

    def new(kind: str) -> Path:
        return folder / f"{next(number)}.{kind}"

    def run(*command: object) -> None:
        environment = {**os.environ, "PASS": PASSPHRASE}
        subprocess.run([str(part) for part in command], env=environment, check=True, capture_output=True)

    def export() -> None:
        secrets = ("-passin", "env:PASS", "-passout", "env:PASS")
        run("openssl", "pkcs12", "-export", "-inkey", folder / "key.pem", "-in", folder / "chain.pem", *secrets, "-out",
            new("p12"))  # fmt: skip

    def convert() -> None:
        secrets = ("-srcstorepass:env", "PASS", "-deststorepass:env", "PASS")
        run("keytool", "-importkeystore", "-srckeystore", store["pkcs12"], "-destkeystore", new("jks"), *secrets,
            "-deststoretype", "JKS")  # fmt: skip

    def trust() -> None:
        secrets, file = ("-storepass:env", "PASS"), folder / "server.pem"
        run("keytool", "-importcert", "-noprompt", "-alias", "one", "-file", file, "-keystore", new("p12"), *secrets)

    def listed(kind: str) -> Callable[[], None]:
        return lambda: run("keytool", "-list", "-v", "-keystore", store[kind], "-storepass:env", "PASS")

    store = {kind: new(kind) for kind in ("pkcs12", "jks")}
    for path in store.values():
        write_keystore(path, key, chain, PASSPHRASE)

    shown = ("openssl", "pkcs12", "-in", store["pkcs12"], "-passin", "env:PASS", "-nodes", "-out", os.devnull)
    trusted, write = {"one": chain[1]}, partial(write_keystore, key=key, chain=chain, password=PASSPHRASE)
    files, anchor, sent = [folder / "key.pem", folder / "chain.pem"], folder / "server.pem", folder / "chain.pem"
    judged = partial(diagnose_device, files, anchors=chain[1:], passphrase=PASSPHRASE)
    verify = ("openssl", "verify", "-partial_chain", "-purpose", "sslclient", "-trusted", anchor, sent)
    tasks: list[tuple[str, Callable[[], object], str, Callable[[], object]]] = [
        ("diagnose_device", judged, "openssl verify", lambda: run(*verify)),
        ("write_keystore, PKCS12", lambda: write(new("p12")), "openssl pkcs12", export),
        ("read_key, PKCS12", lambda: read_key(store["pkcs12"], PASSPHRASE), "openssl pkcs12 -in", lambda: run(*shown)),
    ]
    if which("keytool"):
        tasks += [
            ("write_keystore, JKS", lambda: write(new("jks")), "keytool", convert),
            ("write_truststore, PKCS12", lambda: write_truststore(new("p12"), trusted, PASSPHRASE), "keytool", trust),
        ]
        for kind in store:
            task = partial(read_store, store[kind], PASSPHRASE)
            tasks.append((f"read_store, {kind}", task, "keytool -list -v", listed(kind)))
    for ours, task, peer, other in tasks:
        mine, theirs = alternate(lambda task=task: (pkcs12.load.cache_clear(), task()), other, RUNS)  # type: ignore[misc]
        yield f"{ours} (a call)", mine, f"{peer} (a process)", theirs
