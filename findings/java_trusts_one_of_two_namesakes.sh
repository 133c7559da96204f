#!/usr/bin/env bash
# Of two CAs in a truststore from Python, Java sees one, where both were given the same name or names in another case.
#
# What: cryptography writes a Java truststore from pairs of a certificate and a name, and takes any names. In the file
# both certificates are there, with Java's trust mark, and cryptography and openssl list both. Java's aliases are unique
# and have no case: the later one replaces the earlier while the file is opened. keytool says "1 entry", with no remark,
# and the device trusts one CA only. Without any name both are kept, as "1" and "2". A trust store that keytool itself
# makes can't get into this state, since -importcert refuses an alias that is taken.
# Seen with: cryptography 50.0.2, keytool of Java 17, OpenSSL 3.0.
# Why it matters: the common name of the CA is the obvious name for its entry, and a renewed CA keeps its common name.
# Both are put into the store so that devices go on working during the change; which of them works depends on the
# order of a list, and half the brokers are refused with "unable to find valid certification path".
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check cryptography==50.0.2 2>/dev/null
openssl version
java -version 2>&1 | sed -n 1p
for age in old new; do
    openssl req -x509 -newkey rsa:2048 -nodes -keyout "$age.key" -out "$age.pem" -days 900 -subj "/CN=Plant CA" 2>/dev/null
done

cat > look.py <<'PY'
import re
import subprocess
from importlib.metadata import version

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.serialization import pkcs12

print("cryptography", version("cryptography"))


def load(path):
    with open(path, "rb") as file:
        return x509.load_pem_x509_certificate(file.read())


old, new = load("old.pem"), load("new.pem")
prints = {":".join(f"{byte:02X}" for byte in c.fingerprint(hashes.SHA256())): name
          for c, name in [(old, "old CA"), (new, "new CA")]}


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def seen(*entries):
    """What keytool, openssl and cryptography see in a store of these (certificate, name)."""
    data = pkcs12.serialize_java_truststore([pkcs12.PKCS12Certificate(*entry) for entry in entries],
                                            serialization.BestAvailableEncryption(b"changeit"))
    with open("trust.p12", "wb") as file:
        file.write(data)
    listing = run("keytool", "-list", "-v", "-keystore", "trust.p12", "-storepass", "changeit")
    java = [prints[found] for found in re.findall(r"SHA256: (\S+)", listing)]
    openssl = run("openssl", "pkcs12", "-in", "trust.p12", "-passin", "pass:changeit", "-nokeys").count("BEGIN")
    python = len(pkcs12.load_pkcs12(data, b"changeit").additional_certs)
    print(f"names {[name for _, name in entries]}: keytool {java}, openssl {openssl}, cryptography {python}")
    assert openssl == python == 2
    return sorted(java)


assert seen((old, b"plant ca 1"), (new, b"plant ca 2")) == ["new CA", "old CA"]
assert seen((old, None), (new, None)) == ["new CA", "old CA"]
for first, second in [(b"plant ca", b"plant ca"), (b"Plant CA", b"plant ca")]:
    assert seen((old, first), (new, second)) == ["new CA"], "NO LONGER: keytool sees both"
    assert seen((new, first), (old, second)) == ["old CA"], "NO LONGER: keytool sees both"
print("AS DESCRIBED: the last one of a name is trusted, the other one is in the file only")
PY
venv/bin/python look.py
