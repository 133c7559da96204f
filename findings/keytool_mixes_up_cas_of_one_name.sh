#!/usr/bin/env bash
# Java's PKCS12 store gives a device the chain of another CA when two CAs bear one name.
#
# What: a keystore holds two device keys. Each device's certificate comes from its own CA, and both CAs have the same
# subject but different keys, as after a CA was renewed with a new key. keytool imports each entry with its right
# chain. When the PKCS12 store is opened again, both chains end in the CA that was stored first: Java finds the
# issuers in the file by subject name alone, one certificate for each name. Nothing is said, the file itself still
# holds both CAs, and the same two imports into a JKS store keep the right chains.
# Seen with: keytool of Java 17, OpenSSL 3.0.
# Why it matters: it is the ordinary state of a plant in the middle of a CA roll-over. The device that was onboarded
# last offers a chain that does not verify, the server answers with a bad signature or an unknown CA, and whoever looks
# at the names in `keytool -list -v` sees a faultless chain; only the fingerprints tell.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
openssl version
java -version 2>&1 | sed -n 1p

fingerprint() { openssl x509 -in "$1" -noout -fingerprint -sha256 | cut -d= -f2; }

for age in old new; do
    openssl req -x509 -newkey rsa:2048 -nodes -keyout "ca-$age.key" -out "ca-$age.pem" -days 3650 \
        -subj "/O=Example/CN=Plant CA" 2>/dev/null
    openssl req -newkey rsa:2048 -nodes -keyout "$age.key" -out "$age.csr" -subj "/O=Example/CN=device-$age" 2>/dev/null
    openssl x509 -req -in "$age.csr" -CA "ca-$age.pem" -CAkey "ca-$age.key" -set_serial 4096 -days 90 \
        -out "$age.pem" 2>/dev/null
    openssl verify -CAfile "ca-$age.pem" "$age.pem"
    openssl pkcs12 -export -inkey "$age.key" -in "$age.pem" -certfile "ca-$age.pem" -name "device-$age" \
        -passout pass:changeit -out "$age.p12"
    for kind in PKCS12 JKS; do
        keytool -importkeystore -srckeystore "$age.p12" -srcstorepass changeit \
            -destkeystore "both.$kind" -deststorepass changeit -deststoretype "$kind" 2>/dev/null
    done
done

# issuer STORE ALIAS: the fingerprint of the second certificate in the alias's chain, as Java reads the store.
issuer() {
    keytool -list -v -alias "$2" -keystore "$1" -storepass changeit 2>/dev/null | awk '/SHA256:/ {print $2}' | sed -n 2p
}

old=$(fingerprint ca-old.pem)
new=$(fingerprint ca-new.pem)
echo "CA, old key: ${old:0:23}…   CA, new key: ${new:0:23}…"
for kind in PKCS12 JKS; do
    for age in old new; do
        found=$(issuer "both.$kind" "device-$age")
        echo "$kind: the chain of device-$age ends in ${found:0:23}…"
        declare "${kind}_$age=$found"
    done
done
held=$(openssl pkcs12 -in both.PKCS12 -passin pass:changeit -nokeys 2>/dev/null | grep -c 'BEGIN CERTIFICATE')
echo "certificates in the PKCS12 file, counted by openssl: $held"

[ "$held" = 4 ]
[ "$JKS_old" = "$old" ] && [ "$JKS_new" = "$new" ]
[ "$PKCS12_old" = "$old" ]
[ "$PKCS12_new" = "$old" ] || { echo "NO LONGER: PKCS12 keeps the new device's own CA"; exit 1; }
# The chain that Java would now present, judged by openssl: the names fit, the signature does not.
keytool -list -rfc -alias device-new -keystore both.PKCS12 -storepass changeit 2>/dev/null > chain.txt
awk '/BEGIN CERT/ {n++} n==2' chain.txt | sed -n '/BEGIN/,/END/p' > presented-ca.pem
if openssl verify -CAfile presented-ca.pem new.pem 2>&1; then exit 1; fi
echo "AS DESCRIBED: the new device's chain has the old CA in it, in PKCS12 only"
