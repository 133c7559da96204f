#!/usr/bin/env bash
# A request that Python makes with an RSA-PSS device key brings a certificate that does not fit this key.
#
# What: keytool and openssl make keys of the kind RSASSA-PSS, which the key itself says. cryptography reads such a key
# without a remark, but as a plain RSA key. Its signing request is valid, the CA signs it, and the certificate's public
# key is of the kind rsaEncryption. Then the device can't start: Python's load_cert_chain refuses the pair (its
# certificate's slot is RSA, its key's is RSA-PSS) and Node's checkPrivateKey says false, although the modulus is the
# same. A request by keytool from the same store keeps the kind, and its certificate is taken.
# Seen with: cryptography 50.0.2, keytool of Java 17, OpenSSL 3.0, Node 20.
# Why it matters: keys are made by one tool, and requested for by another, in every onboarding script. The usual check,
# comparing the two moduli, says that they match. The way out is to write the key with cryptography too: it becomes
# plain RSA, and the pair fits.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check cryptography==50.0.2 2>/dev/null
openssl version
java -version 2>&1 | sed -n 1p
echo "Node $(node --version)"

openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 900 -subj "/CN=CA" 2>/dev/null
keytool -genkeypair -keyalg RSASSA-PSS -keysize 2048 -alias device -dname "CN=device" \
    -keystore store.p12 -storetype PKCS12 -storepass changeit 2>/dev/null
keytool -certreq -alias device -keystore store.p12 -storepass changeit -file keytool.csr 2>/dev/null
openssl pkcs12 -in store.p12 -passin pass:changeit -nodes -nocerts -out device.key

cat > request.py <<'PY'
from importlib.metadata import version

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.x509.oid import NameOID

print("cryptography", version("cryptography"))
with open("device.key", "rb") as file:
    key = serialization.load_pem_private_key(file.read(), None)
pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "device")])
request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256(), rsa_padding=pss)
with open("python.csr", "wb") as file:
    file.write(request.public_bytes(serialization.Encoding.PEM))
with open("rewritten.key", "wb") as file:
    file.write(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                 serialization.NoEncryption()))
PY
venv/bin/python request.py

# fits CERTIFICATE KEY: what Python and Node say of the pair.
fits() {
    python3 - "$@" <<'PY'
import ssl
import sys

try:
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(sys.argv[1], sys.argv[2])
    print("Python: yes")
except ssl.SSLError as error:
    print("Python: no,", error.reason)
PY
    node -e '
        const fs = require("fs"), crypto = require("crypto"), [certificate, key] = process.argv.slice(1);
        const pair = new crypto.X509Certificate(fs.readFileSync(certificate));
        console.log("Node:", pair.checkPrivateKey(crypto.createPrivateKey(fs.readFileSync(key))) ? "yes" : "no");
    ' "$@"
}

for by in keytool python; do
    openssl req -in $by.csr -noout -verify 2>&1 | grep -q "verify OK"
    openssl x509 -req -in $by.csr -CA ca.pem -CAkey ca.key -set_serial 1 -days 90 -out $by.pem 2>/dev/null
    openssl verify -CAfile ca.pem $by.pem
    kind=$(openssl x509 -in $by.pem -noout -text | sed -n 's/ *Public Key Algorithm: //p')
    fits $by.pem device.key > $by.txt
    echo "request by $by: the certificate's key is $kind; does it fit the device's key?" $(cat $by.txt)
    declare "kind_$by=$kind"
done
modulus() { openssl "$@" -noout -text | grep -A 25 -i modulus | tr -d ' \n' | grep -oE '([0-9a-f]{2}:){20,}[0-9a-f]{2}' | sed -n 1p; }
[ "$(modulus x509 -in python.pem)" = "$(modulus pkey -in device.key)" ] && echo "the modulus is the same"
fits python.pem rewritten.key > rewritten.txt
echo "with the key as cryptography writes it:" $(cat rewritten.txt)

[ "$kind_keytool" = rsassaPss ]
[ "$(grep -c yes keytool.txt)" = 2 ]
[ "$kind_python" = rsaEncryption ] || { echo "NO LONGER: the request keeps the key's kind"; exit 1; }
[ "$(grep -c no, python.txt)" = 1 ] && grep -q "Node: no" python.txt || { echo "NO LONGER: the pair fits"; exit 1; }
[ "$(grep -c yes rewritten.txt)" = 2 ]
echo "AS DESCRIBED: the key's kind is lost on the way, and the certificate does not fit the key it was made for"
