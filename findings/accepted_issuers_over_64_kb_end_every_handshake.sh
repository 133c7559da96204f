#!/usr/bin/env bash
# A TLS server that trusts some hundred CAs for its clients refuses everybody, those whom it trusts too.
#
# What: a server that asks for client certificates sends the names of the CAs it accepts. TLS counts their length in two
# bytes. OpenSSL takes any number of them when the list is loaded, starts, and says that it is ready; from 65,536 bytes
# of names on (each with two bytes of its own; a little less on TLS 1.3, where other extensions share the room) every
# handshake ends in "internal error". The CAs themselves are not the trouble: where the same ones are trusted and no
# list is sent, all is well.
# s_server sends a list made from its -CAfile; mosquitto sends none, and so takes the same CAs.
# Seen with: OpenSSL 3.0 (Debian), mosquitto 2.0 (Debian), cryptography 50 to make the CAs.
# Why it matters: a platform on which each tenant uploads its own CA works until one more upload shuts all devices out,
# and neither side's message points at the list. Leaving it out is allowed, and means that any issuer will do.
set -euo pipefail
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet cryptography==50.0.0
openssl version
mosquitto=$(PATH=$PATH:/usr/sbin command -v mosquitto)
("$mosquitto" -h || true) | head -1

cat > make.py <<'PY'
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now()


def make(name, issuer=None):
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    serial, dates = x509.random_serial_number(), (now - timedelta(1), now + timedelta(30))
    builder = x509.CertificateBuilder(issuer or subject, subject, key.public_key(), serial, *dates)
    return builder.add_extension(x509.BasicConstraints(issuer is None, None), True).sign(key, hashes.SHA256())


pem = serialization.Encoding.PEM
plain = serialization.NoEncryption()
open("key.pem", "wb").write(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
open("server.pem", "wb").write(make("localhost").public_bytes(pem))
cas = [make(f"Tenant {number:05} {'x' * 50}") for number in range(900)]
open("device.pem", "wb").write(make("device", cas[0].subject).public_bytes(pem))
length = len(cas[0].subject.public_bytes()) + 2
for name, count in (("fits", 65000 // length), ("over", 65535 // length + 1)):
    open(f"{name}.pem", "wb").write(b"".join(ca.public_bytes(pem) for ca in cas[:count]))
    print(f"{name}.pem: {count} CAs, {count * length} bytes of names")
PY
venv/bin/python make.py

# try PORT VERSION: a client that the server trusts; prints "done" if the handshake is.
try() {
    openssl s_client -connect "localhost:$1" -CAfile server.pem -cert device.pem -key key.pem "-$2" </dev/null >client.txt 2>&1 || true
    grep -q "alert internal error" client.txt && echo failed && return
    grep -q "Verify return code: 0" client.txt && grep -q "BEGIN CERTIFICATE" client.txt && echo done || echo nothing
}
# started PORT: wait for a server.
started() {
    for _ in $(seq 100); do (exec 3<>"/dev/tcp/localhost/$1") 2>/dev/null && return; sleep 0.1; done
    echo "no server at $1" && exit 2
}
port=$((20000 + RANDOM % 20000))
check() { # check SERVER LIST EXPECTED
    for version in tls1_2 tls1_3; do
        found=$(try "$port" "$version")
        echo "$1, $2, $version: $found"
        [ "$found" = "$3" ] || { echo "NO LONGER: expected $3"; exit 1; }
    done
    port=$((port + 1))
}
for list in fits over; do
    [ $list = fits ] && expected=done || expected=failed
    openssl s_server -quiet -accept "$port" -cert server.pem -key key.pem -CAfile "$list.pem" -verify 1 >s_server.txt 2>&1 &
    started "$port"
    check "openssl s_server" "$list" "$expected"
    printf '%s\n' "listener $port" "cafile $list.pem" "certfile server.pem" "keyfile key.pem" "log_type error" \
        "require_certificate true" \
        "user $(id -un)" > mosquitto.conf
    "$mosquitto" -c mosquitto.conf >mosquitto.txt 2>&1 &
    started "$port"
    check mosquitto "$list" done  # a control: it sends no list
done
openssl s_server -quiet -accept "$port" -cert server.pem -key key.pem -verifyCAfile over.pem -verify 1 >s_server.txt 2>&1 &
started "$port"
check "openssl s_server, no list" over done  # the control: the trust is no trouble
echo "AS DESCRIBED: a few CAs more, and nobody gets in"
