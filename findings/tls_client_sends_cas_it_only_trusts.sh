#!/usr/bin/env bash
# An MQTT client sends CA certificates to the broker that it was only told to trust.
#
# What: a device is given its own certificate alone (no chain) and a file of CAs to check the broker with. Where the
# device's own issuers happen to be in that file, OpenSSL completes the device's chain out of it, up to and including
# the root, and sends them all. With a trust file of the broker's CA alone the same device sends one certificate.
# Adding just one issuer to the device's file switches the completion off: then exactly what the file holds is sent.
# Seen with: paho-mqtt 2.2.0 (Python's ssl, OpenSSL 3.0), MQTT.js 5.16.0 (Node 20), and mosquitto_pub where installed.
# Why it matters: platforms judge what is sent: some want the chain complete, some without the root, some count the
# certificates. The trust file is thought to say whom the device believes; here it also decides what the device sends.
# So an incomplete device file passes every test in the workshop, where one big CA file is used, and is refused in the
# field, where the trust file holds the broker's CA only.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check paho-mqtt==2.2.0 2>/dev/null
npm install --silent --no-audit --no-fund --prefix js mqtt@5.16.0 >/dev/null

key=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
openssl req -x509 "${key[@]}" -keyout root.key -out root.pem -days 3650 -subj "/CN=Root" 2>/dev/null
openssl req "${key[@]}" -keyout inter.key -out inter.csr -subj "/CN=Intermediate" 2>/dev/null
openssl x509 -req -in inter.csr -CA root.pem -CAkey root.key -set_serial 1 -days 900 -out inter.pem \
    -extfile <(echo "basicConstraints=critical,CA:true") 2>/dev/null
openssl req "${key[@]}" -keyout device.key -out device.csr -subj "/CN=device" 2>/dev/null
openssl x509 -req -in device.csr -CA inter.pem -CAkey inter.key -set_serial 2 -days 90 -out device.pem 2>/dev/null
openssl req -x509 "${key[@]}" -keyout broker.key -out broker.pem -days 90 -subj "/CN=localhost" \
    -addext "subjectAltName=DNS:localhost" 2>/dev/null
cat broker.pem inter.pem root.pem > everything.pem
cat device.pem inter.pem > two.pem

cat > client.cjs <<'JS'
const [, , folder, port, cert, ca] = process.argv;
const fs = require("fs"), mqtt = require(folder + "/js/node_modules/mqtt");
const client = mqtt.connect({ protocol: "mqtts", host: "localhost", port: Number(port), reconnectPeriod: 0,
  cert: fs.readFileSync(cert), key: fs.readFileSync("device.key"), ca: fs.readFileSync(ca) });
client.on("error", () => {});
client.on("close", () => process.exit(0));
setTimeout(() => process.exit(1), 8000);
JS

cat > look.py <<'PY'
import os
import shutil
import socket
import ssl
import subprocess
import threading
from importlib.metadata import version

import paho.mqtt.client as mqtt


def common_names(tls):
    if hasattr(tls, "get_unverified_chain"):  # from Python 3.13
        chain = [ssl.DER_cert_to_PEM_cert(der) for der in tls.get_unverified_chain()]
    else:
        chain = [certificate.public_bytes() for certificate in tls._sslobj.get_unverified_chain()]
    names = []
    for pem in chain:
        subject = subprocess.run(["openssl", "x509", "-noout", "-subject", "-nameopt", "multiline"],
                                 input=pem, capture_output=True, text=True, check=True).stdout
        names.append(subject.split("= ")[-1].strip())
    return names


def sent(start):
    """What a client sends to a TLS server that knows the device's issuers; start(port) runs the client."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("broker.pem", "broker.key")
    context.load_verify_locations("everything.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(20)
    seen = []

    def serve():
        connection, _ = listener.accept()
        connection.settimeout(10)
        with context.wrap_socket(connection, server_side=True) as tls:
            seen.extend(common_names(tls))

    thread = threading.Thread(target=serve)
    thread.start()
    start(listener.getsockname()[1])
    thread.join()
    listener.close()
    return seen


def paho(cert, ca):
    def start(port):
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, "device")
        client.tls_set(ca_certs=ca, certfile=cert, keyfile="device.key")
        client.connect("localhost", port)
        client.loop(timeout=0.2)
    return start


def node(cert, ca):
    return lambda port: subprocess.run(["node", "client.cjs", os.getcwd(), str(port), cert, ca], timeout=30)


def mosquitto(cert, ca):
    command = ["mosquitto_pub", "-h", "localhost", "--cafile", ca, "--cert", cert, "--key", "device.key", "-t", "t", "-m", "m"]
    return lambda port: subprocess.run([*command, "-p", str(port)], capture_output=True, timeout=30)


print("paho-mqtt", version("paho-mqtt"), "with", ssl.OPENSSL_VERSION, flush=True)
print("MQTT.js 5.16.0, Node", subprocess.run(["node", "--version"], capture_output=True, text=True).stdout.strip())
clients = [paho, node] + ([mosquitto] if shutil.which("mosquitto_pub") else [])
for client in clients:
    for cert, ca, expected in [
        ("device.pem", "broker.pem", ["device"]),
        ("device.pem", "everything.pem", ["device", "Intermediate", "Root"]),
        ("two.pem", "everything.pem", ["device", "Intermediate"]),
    ]:
        found = sent(client(cert, ca))
        print(f"{client.__name__}: certificate file {cert}, trust file {ca}: sends {found}")
        assert found == expected, f"NO LONGER: expected {expected}"
print("AS DESCRIBED: the trust file decides which certificates are sent")
PY
# The name localhost has to lead to 127.0.0.1 here; the certificate bears no address.
venv/bin/python look.py
