#!/usr/bin/env bash
# A broker whose revocation list has run out tells each device that the device's own certificate has expired.
#
# What: TLS has no alert for "my revocation list is stale". OpenSSL's verifier knows the difference ("CRL has expired"),
# but on the wire its error becomes certificate_expired, the same alert that a certificate past its date gets; a list
# that is missing for one CA becomes unknown_ca, and one that is not valid yet bad_certificate. The device's certificate
# is good in all three: with a fresh list the very same one connects. Mosquitto's log says "certificate verify failed".
# Seen with: mosquitto 2.0 and OpenSSL 3.0 at the broker, Python's ssl at the device, TLS 1.2 and 1.3.
# Why it matters: a list is good for 30 days by default, and a broker reads it from a file that nobody renews by itself.
# One morning a whole fleet is refused, each device with a reason that sends people to the devices: to look at dates that
# are right, to set clocks, or to sign certificates anew. A second CA without a list looks like one that is not trusted.
set -euo pipefail
command -v mosquitto >/dev/null || PATH=$PATH:/usr/sbin
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
mosquitto -h | sed -n 1p || true
openssl version

cat > ca.cnf <<'CONF'
[ca]
default_ca = here
[here]
database = index.txt
default_md = sha256
default_crl_days = 30
CONF
: > index.txt
for ca in "Device CA" "Other CA"; do
    openssl req -x509 -newkey rsa:2048 -nodes -keyout "$ca.key" -out "$ca.pem" -days 900 -subj "/CN=$ca" 2>/dev/null
done
openssl req -x509 -newkey rsa:2048 -nodes -keyout broker.key -out broker.pem -days 90 -subj "/CN=localhost" \
    -addext "subjectAltName=DNS:localhost" 2>/dev/null
openssl req -newkey rsa:2048 -nodes -keyout device.key -out device.csr -subj "/CN=device" 2>/dev/null
openssl x509 -req -in device.csr -CA "Device CA.pem" -CAkey "Device CA.key" -set_serial 1 -days 90 -out device.pem 2>/dev/null
list() {  # list FILE CA FROM TO
    openssl ca -gencrl -config ca.cnf -cert "$2.pem" -keyfile "$2.key" -out "$1" -crl_lastupdate "$(date -u -d "$3" +%Y%m%d%H%M%SZ)" \
        -crl_nextupdate "$(date -u -d "$4" +%Y%m%d%H%M%SZ)" 2>/dev/null
}
list fresh.crl "Device CA" "-1 day" "+1 day"
list stale.crl "Device CA" "-9 days" "-1 day"
list early.crl "Device CA" "+1 day" "+9 days"
list "other ca's.crl" "Other CA" "-1 day" "+1 day"
openssl verify -CAfile "Device CA.pem" device.pem
{ openssl verify -crl_check -CRLfile stale.crl -CAfile "Device CA.pem" device.pem || true; } 2>&1 | grep -o "CRL has expired"

cat > look.py <<'PY'
import pathlib
import socket
import ssl
import subprocess
import time


def alert(crl, version):
    """What a device with a good certificate is told by a broker that checks this list."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = ["cafile Device CA.pem", "certfile broker.pem", "keyfile broker.key", f"crlfile {crl}", "log_type all"]
    settings += ["require_certificate true", "allow_anonymous true", f"listener {port} 127.0.0.1"]
    settings = [f"user {subprocess.getoutput('id -un')}", settings.pop(), *settings]
    pathlib.Path("broker.conf").write_text("\n".join(settings) + "\n")
    with open("broker.log", "w") as log:
        broker = subprocess.Popen(["mosquitto", "-c", "broker.conf"], stdout=log, stderr=log)
    try:
        context = ssl.create_default_context(cafile="broker.pem")
        context.load_cert_chain("device.pem", "device.key")
        context.minimum_version = context.maximum_version = version
        end = time.monotonic() + 20
        while True:
            try:
                plain = socket.create_connection(("127.0.0.1", port), 20)
                break
            except ConnectionRefusedError:
                assert time.monotonic() < end, pathlib.Path("broker.log").read_text()
                time.sleep(0.2)
        try:
            with context.wrap_socket(plain, server_hostname="localhost") as tls:
                try:
                    tls.sendall(b"\x10\x12\x00\x04MQTT\x04\x02\x00\x3c\x00\x06device")
                except OSError:
                    pass  # the alert waits to be read
                return f"CONNACK {tls.recv(4)[3]}"
        except ssl.SSLError as error:
            return error.reason.lower().partition("alert_")[2]
    finally:
        broker.terminate()
        broker.wait()


for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
    told = {crl: alert(crl, version) for crl in ("fresh.crl", "stale.crl", "early.crl", "other ca's.crl")}
    print(version.name, told, "; the broker's log:", "certificate verify failed" in pathlib.Path("broker.log").read_text())
    assert told["fresh.crl"] == "CONNACK 0", "the control: the certificate is good"
    assert told["stale.crl"] == "certificate_expired", "NO LONGER: a stale list is told from an expired certificate"
    assert told["early.crl"] == "bad_certificate" and told["other ca's.crl"] == "unknown_ca", "NO LONGER"
print("AS DESCRIBED: the device hears that its certificate has expired, and it is the broker's list that has")
PY
python3 look.py
