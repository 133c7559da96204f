#!/usr/bin/env bash
# A device whose keytool store is used by others than Java sends the whole store to the broker as "its chain".
#
# What: a PKCS12 store by keytool may hold a trusted broker's certificate and the keys of several devices. Java keeps
# them apart. OpenSSL has no such thing as an entry: it takes one key, its certificate, and hands out all the rest as
# "the chain". So MQTT.js (Node), given this store as pfx, takes the device that was imported first, and sends the
# broker's own certificate and the other device's certificate along in the handshake. And `openssl pkcs12 -nodes`
# writes the certificates in the order of import: where the broker's came first, it stands first in the PEM file, where
# Python looks for the device's, and load_cert_chain says that the key does not match.
# Seen with: keytool of Java 17, MQTT.js 5.16.0 on Node 20, OpenSSL 3.0, Python's ssl.
# Why it matters: "keystore and truststore in one file" is a usual step of Java guides, and the same file is then given
# to a Node or Python device. A platform that counts the chain's certificates or checks their order refuses the device,
# and the name of every device in a shared store is told to each broker. Options -clcerts and a store of one key help.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund --prefix js mqtt@5.16.0 >/dev/null
echo "MQTT.js $(node -p 'require("./js/node_modules/mqtt/package.json").version') on Node $(node --version)"
openssl version
java -version 2>&1 | sed -n 1p

openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 900 -subj "/CN=Device CA" 2>/dev/null
openssl req -x509 -newkey rsa:2048 -nodes -keyout broker.key -out broker.pem -days 90 -subj "/CN=localhost" \
    -addext "subjectAltName=DNS:localhost" 2>/dev/null
keytool -importcert -noprompt -alias broker -file broker.pem -keystore store.p12 -storetype PKCS12 -storepass changeit 2>/dev/null
for device in pump valve; do
    openssl req -newkey rsa:2048 -nodes -keyout $device.key -out $device.csr -subj "/CN=$device" 2>/dev/null
    openssl x509 -req -in $device.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 90 -out $device.pem 2>/dev/null
    openssl pkcs12 -export -inkey $device.key -in $device.pem -certfile ca.pem -name $device -passout pass:changeit -out $device.p12
    keytool -importkeystore -srckeystore $device.p12 -srcstorepass changeit \
        -destkeystore store.p12 -deststorepass changeit 2>/dev/null
    cp store.p12 "up-to-$device.p12"
done
keytool -list -keystore store.p12 -storepass changeit 2>/dev/null | grep -oE '^[a-z]+, |[A-Za-z]+Entry' | paste -sd ' '
for alias in pump valve; do
    [ "$(keytool -list -v -alias $alias -keystore store.p12 -storepass changeit 2>/dev/null | sed -n 's/Certificate chain length: //p')" = 2 ]
done

cat > client.cjs <<'JS'
const [, , folder, port, store] = process.argv;
const fs = require("fs"), mqtt = require(folder + "/js/node_modules/mqtt");
const client = mqtt.connect({ protocol: "mqtts", host: "localhost", port: Number(port), reconnectPeriod: 0,
  pfx: fs.readFileSync(store), passphrase: "changeit", ca: fs.readFileSync("broker.pem") });
client.on("error", () => {});
client.on("close", () => process.exit(0));
setTimeout(() => process.exit(1), 8000);
JS

cat > look.py <<'PY'
import os
import socket
import ssl
import subprocess
import threading


def common_names(tls):
    if hasattr(tls, "get_unverified_chain"):  # from Python 3.13
        chain = [ssl.DER_cert_to_PEM_cert(der) for der in tls.get_unverified_chain()]
    else:
        chain = [certificate.public_bytes() for certificate in tls._sslobj.get_unverified_chain()]
    subject = ["openssl", "x509", "-noout", "-subject", "-nameopt", "multiline"]
    return [subprocess.run(subject, input=pem, capture_output=True, text=True, check=True).stdout.split("= ")[-1].strip()
            for pem in chain]


def sent(store):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("broker.pem", "broker.key")
    context.load_verify_locations("ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(20)
    client = subprocess.Popen(["node", "client.cjs", os.getcwd(), str(listener.getsockname()[1]), store])
    try:
        connection, _ = listener.accept()
        connection.settimeout(10)
        with context.wrap_socket(connection, server_side=True) as tls:
            return common_names(tls)
    finally:
        listener.close()
        client.wait(20)


assert sent("pump.p12") == ["pump", "Device CA"]
print("pump's own store: sends", sent("pump.p12"))
for store, others in [("up-to-pump.p12", {"localhost"}), ("up-to-valve.p12", {"localhost", "valve"})]:
    found = sent(store)
    print(f"{store}: sends {found}")
    assert found[0] == "pump" and others <= set(found[1:]), "NO LONGER: only the device's own chain is sent"

for options, expected in [([], "KEY_VALUES_MISMATCH"), (["-clcerts"], "taken")]:
    subprocess.run(["openssl", "pkcs12", "-in", "up-to-pump.p12", "-passin", "pass:changeit", "-nodes", *options,
                    "-out", "pump-all.pem"], check=True)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain("pump-all.pem")
        found = "taken"
    except ssl.SSLError as error:
        found = error.reason
    print("up-to-pump.p12 as PEM by openssl", *options, "in Python:", found)
    assert found == expected, "NO LONGER: the device's certificate comes first"
print("AS DESCRIBED: what Java keeps apart is one chain to the others")
PY
python3 look.py
