"""What keystores cost beside keytool and openssl: a call of ours against a whole process, as a notebook starts it."""

import os
import subprocess
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from shutil import which

from authority import PASSPHRASE, Line, alternate, authority
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256

from mciot_nb import DistinguishedName
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

    def line(ours: str, task: Callable[[], object], peer: str, other: Callable[[], object]) -> Line:
        mine, theirs = alternate(lambda: (pkcs12.load.cache_clear(), task()), other, RUNS)  # each as the first one
        return f"{ours} (a call)", mine, f"{peer} (a process)", theirs

    yield line(
        "write_keystore, PKCS12", lambda: write_keystore(new("p12"), key, chain, PASSPHRASE), "openssl pkcs12", export
    )
    shown = ("openssl", "pkcs12", "-in", store["pkcs12"], "-passin", "env:PASS", "-nodes", "-out", os.devnull)
    yield line(
        "read_key, PKCS12", lambda: read_key(store["pkcs12"], PASSPHRASE), "openssl pkcs12 -in", lambda: run(*shown)
    )
    if which("keytool"):
        yield line(
            "write_keystore, JKS",
            lambda: write_keystore(new("jks"), key, chain, PASSPHRASE),
            "keytool -import",
            convert,
        )
        trusted = {"one": chain[1]}
        yield line(
            "write_truststore, PKCS12", lambda: write_truststore(new("p12"), trusted, PASSPHRASE), "keytool", trust
        )
        for kind in store:
            yield line(
                f"read_store, {kind}",
                lambda kind=kind: read_store(store[kind], PASSPHRASE),
                "keytool -list -v",
                listed(kind),
            )
