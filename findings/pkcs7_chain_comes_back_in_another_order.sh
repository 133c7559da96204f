#!/usr/bin/env bash
# A chain that Python packs as PKCS#7 comes back in another order, as a rule with the device's certificate last.
#
# What: cryptography's serialize_certificates takes a list, and load_*_pkcs7_certificates gives a list, but in between
# the certificates are a SET, which DER sorts by its bytes. So the shortest certificate comes first; whatever order the
# list had, the result is the same bytes. A device's certificate has most in its name and extensions and goes to the end.
# `openssl crl2pkcs7` does not sort (cryptography warns that its file is no DER), so the same three files packed by it
# keep their order, and a program tried on openssl's files works. keytool sorts it out by itself on -importcert;
# `openssl pkcs7 -print_certs` does not.
# Seen with: cryptography 50.0.2, OpenSSL 3.0, Python's ssl, keytool of Java 17.
# Why it matters: enrolment over EST answers with such a PKCS#7 (content type application/pkcs7-mime; certs-only).
# A client that takes the first certificate as its own, or saves what -print_certs writes as its chain file, gets the
# root there: the key does not match, at the first renewal from a server that is built in this way.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check cryptography==50.0.2 2>/dev/null
openssl version
java -version 2>&1 | sed -n 1p

key=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
openssl req -x509 "${key[@]}" -keyout root.key -out root.pem -days 3650 -subj "/CN=R" 2>/dev/null
openssl req "${key[@]}" -keyout inter.key -out inter.csr -subj "/O=Example/CN=Plant intermediate" 2>/dev/null
openssl x509 -req -in inter.csr -CA root.pem -CAkey root.key -set_serial 1 -days 900 -out inter.pem \
    -extfile <(printf '%s\n' basicConstraints=critical,CA:true subjectKeyIdentifier=hash authorityKeyIdentifier=keyid) 2>/dev/null
openssl req "${key[@]}" -keyout device.key -out device.csr \
    -subj "/O=Example/OU=Line 4/CN=temperature-sensor-0001/serialNumber=PID:TS SN:0001" 2>/dev/null
openssl x509 -req -in device.csr -CA inter.pem -CAkey inter.key -set_serial 2 -days 90 -out device.pem \
    -extfile <(printf '%s\n' basicConstraints=CA:false keyUsage=digitalSignature extendedKeyUsage=clientAuth \
        subjectKeyIdentifier=hash authorityKeyIdentifier=keyid subjectAltName=DNS:sensor.example) 2>/dev/null
cat device.pem inter.pem root.pem > chain.pem
openssl crl2pkcs7 -nocrl -certfile chain.pem -out openssl.p7
# The same chain in a keystore that has the key and no chain yet, for keytool to take the reply.
openssl req -x509 -key device.key -days 1 -subj "/CN=before" -out before.pem
openssl pkcs12 -export -inkey device.key -in before.pem -name device -passout pass:changeit -out store.p12

cat > look.py <<'PY'
import ssl
import subprocess
from importlib.metadata import version
from itertools import permutations

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

print("cryptography", version("cryptography"))


def names(certificates):
    return [c.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value for c in certificates]


with open("chain.pem", "rb") as file:
    chain = x509.load_pem_x509_certificates(file.read())
with open("openssl.p7", "rb") as file:
    by_openssl = pkcs7.load_pem_pkcs7_certificates(file.read())
packed = pkcs7.serialize_certificates(chain, Encoding.PEM)
unpacked = pkcs7.load_pem_pkcs7_certificates(packed)
with open("python.p7", "wb") as file:
    file.write(packed)
print("the list            ", names(chain))
print("packed by openssl   ", names(by_openssl))
print("packed by Python    ", names(unpacked))
sizes = [len(c.public_bytes(Encoding.DER)) for c in unpacked]
print("sizes in bytes      ", sizes)
kinds = {pkcs7.serialize_certificates(list(order), Encoding.DER) for order in permutations(chain)}
print("different results from the six orders of the list:", len(kinds))
assert names(by_openssl) == names(chain)
assert names(unpacked) != names(chain), "NO LONGER: the order is kept"
assert sizes == sorted(sizes) and len(kinds) == 1 and unpacked[-1] == chain[0]

for maker in ("openssl", "python"):
    printed = subprocess.run(["openssl", "pkcs7", "-in", f"{maker}.p7", "-print_certs", "-out", f"{maker}.chain"])
    assert printed.returncode == 0
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(f"{maker}.chain", "device.key")
        fits = "taken"
    except ssl.SSLError as error:
        fits = f"refused, {error.reason}"
    print(f"{maker}.p7 through -print_certs, as the device's chain file: {fits}")
    assert fits.startswith("taken" if maker == "openssl" else "refused")
PY
venv/bin/python look.py
keytool -importcert -noprompt -alias device -file python.p7 -keystore store.p12 -storepass changeit 2>/dev/null
first=$(keytool -list -v -keystore store.p12 -storepass changeit 2>/dev/null | sed -n 's/^Owner: //p' | sed -n 1p)
echo "keytool's chain from python.p7 begins with: $first"
[[ $first == *temperature-sensor-0001* ]]
echo "AS DESCRIBED: the order of the list does not survive PKCS#7 by cryptography"
