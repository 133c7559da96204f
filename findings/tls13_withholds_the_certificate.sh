#!/usr/bin/env bash
# A device with a brainpool or secp256k1 key connects over TLS 1.3 without its certificate, and is not told.
#
# What: the certificate and its key are loaded without a complaint and belong together, and a certificate on a P-256
# key beside it works. But TLS 1.3 has a fixed list of signature schemes, and OpenSSL 3.0 knows none in it for these
# curves. The client then does not fail: it answers the broker's request for a certificate with an empty one. Its
# handshake is complete, with no error. Only the broker knows: "peer did not return a certificate". On TLS 1.2 the
# same device fails in its handshake, and the broker's log names the curve.
# Seen with: paho-mqtt 2.2.0, Python's ssl with OpenSSL 3.0, mosquitto 2.0.
# Why it matters: brainpool is the curve family that European rules and smart-card chips bring, and secp256k1 comes
# with some secure elements. Where the broker only asks for a certificate, because it also takes passwords, the device
# looks like one that has no certificate at all, and one searches for a wrong path or a missing option on the device.
set -euo pipefail
command -v mosquitto >/dev/null || PATH=$PATH:/usr/sbin
work=$(mktemp -d)
broker=
trap '[ -z "$broker" ] || kill "$broker" 2>/dev/null || true; rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check paho-mqtt==2.2.0 2>/dev/null
mosquitto -h | sed -n 1p || true

openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 900 -subj "/CN=Device CA" 2>/dev/null
openssl req -x509 -newkey rsa:2048 -nodes -keyout broker.key -out broker.pem -days 90 -subj "/CN=localhost" \
    -addext "subjectAltName=DNS:localhost" 2>/dev/null
for curve in P-256 secp256k1 brainpoolP256r1; do
    openssl req -newkey ec -pkeyopt "ec_paramgen_curve:$curve" -nodes -keyout "$curve.key" -out "$curve.csr" \
        -subj "/CN=device" 2>/dev/null
    openssl x509 -req -in "$curve.csr" -CA ca.pem -CAkey ca.key -set_serial 1 -days 90 -out "$curve.pem" 2>/dev/null
    openssl verify -CAfile ca.pem "$curve.pem"
done

port=$(python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat > broker.conf <<CONF
user $(id -un)
listener $port 127.0.0.1
cafile ca.pem
certfile broker.pem
keyfile broker.key
require_certificate true
use_identity_as_username true
log_type all
CONF
mosquitto -c broker.conf > broker.log 2>&1 &
broker=$!
for _ in 1 2 3 4 5 6 7 8 9 10; do
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then break; fi
    sleep 0.5
done

cat > look.py <<'PY'
import ssl
import sys
import time
from importlib.metadata import version

import paho.mqtt.client as mqtt

port = int(sys.argv[1])
print("paho-mqtt", version("paho-mqtt"), "with", ssl.OPENSSL_VERSION)


def attempt(curve, limit):
    """The TLS version of the finished handshake or None, whether CONNACK 0 came, and what the broker wrote meanwhile."""
    with open("broker.log") as log:
        log.seek(0, 2)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations("broker.pem")
        context.load_cert_chain(f"{curve}.pem", f"{curve}.key")
        context.maximum_version = limit
        finished, codes, refused = [], [], ""
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, "device")
        # paho-mqtt makes this call when the TLS handshake is done, from the client's point of view.
        client.on_socket_open = lambda client, data, connection: finished.append(connection.version())
        client.on_connect = lambda client, data, flags, reason, properties: codes.append(reason.value)
        client.tls_set_context(context)
        try:
            client.connect("localhost", port)
            end = time.monotonic() + 3
            while not codes and time.monotonic() < end and client.loop(timeout=0.2) == 0:
                pass
            client.disconnect()
        except OSError as error:
            refused = f"; connect() raised {error}"
        time.sleep(0.3)
        broker = log.read()
    reasons = [reason for reason in ("peer did not return a certificate", "wrong curve") if reason in broker]
    print(f"{curve}, at most {limit.name}: handshake finished for the client: {bool(finished)}; "
          f"accepted: {codes == [0]}; the broker's log: {reasons}{refused}")
    return finished, codes == [0], reasons


tls12, tls13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
assert attempt("P-256", tls12) == (["TLSv1.2"], True, [])
assert attempt("P-256", tls13) == (["TLSv1.3"], True, [])
for curve in ("secp256k1", "brainpoolP256r1"):
    finished, accepted, reasons = attempt(curve, tls12)
    assert not finished and not accepted and reasons == ["wrong curve"], "NO LONGER: TLS 1.2 differs"
    finished, accepted, reasons = attempt(curve, tls13)
    assert finished == ["TLSv1.3"], "NO LONGER: the handshake fails for the client"
    assert not accepted and reasons == ["peer did not return a certificate"], "NO LONGER: the certificate is sent"
print("AS DESCRIBED: on TLS 1.3 the handshake succeeds for the client, and its certificate stays at home")
PY
venv/bin/python look.py "$port"
