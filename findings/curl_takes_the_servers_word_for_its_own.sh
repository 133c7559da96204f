#!/usr/bin/env bash
# curl says that the server's certificate could not be verified, when it is the device's own that has expired.
#
# What: a server refuses a client whose certificate has expired, with the TLS alert certificate_expired. On TLS 1.2 curl
# makes of it its error 60, "SSL certificate verification failed", the one that means: I do not trust this server. The
# server's certificate is good, curl has verified it a moment before, and no word speaks of the client's. Any other alert
# about the client's certificate, such as unknown_ca, is error 35 with the alert's name. On TLS 1.3 both are error 56
# with the name.
# Seen with: curl 7.88.1 with OpenSSL 3.0.
# Why it matters: scripts and people have learned what to do about error 60: renew the CA file, or add -k. Neither helps,
# and with -k in the script the server is from now on not verified at all, to cure a date on the device. It happens to a
# whole fleet on the day its certificates end. Only -v tells of an alert, in a line above.
set -euo pipefail
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; rm -rf "$work"' EXIT
cd "$work"
curl --version | head -1
openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 900 -subj "/CN=Device CA" 2>/dev/null
openssl req -x509 -newkey rsa:2048 -nodes -keyout server.key -out server.pem -days 90 -subj "/CN=localhost" \
    -addext "subjectAltName=DNS:localhost" 2>/dev/null
openssl req -x509 -newkey rsa:2048 -nodes -keyout stranger.key -out stranger.pem -days 90 -subj "/CN=device" 2>/dev/null
openssl req -newkey rsa:2048 -nodes -keyout old.key -out old.csr -subj "/CN=device" 2>/dev/null
mkdir -p copies && touch index.txt
cat > ca.cnf <<'CONF'
[ca]
default_ca = a
[a]
database = index.txt
new_certs_dir = copies
rand_serial = yes
default_md = sha256
policy = p
[p]
commonName = supplied
CONF
openssl ca -batch -config ca.cnf -cert ca.pem -keyfile ca.key -in old.csr -out old.pem -notext \
    -startdate 20240101000000Z -enddate 20240201000000Z 2>/dev/null
port=$(python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
openssl s_server -accept "127.0.0.1:$port" -cert server.pem -key server.key -CAfile ca.pem -Verify 1 -verify_return_error \
    -www -quiet >/dev/null 2>&1 &
server=$!
for _ in $(seq 40); do
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then break; fi
    sleep 0.5
done

call() {  # a certificate, and a version of TLS
    curl -sS --max-time 20 --cacert server.pem --cert "$1.pem" --key "$1.key" --tlsv1.2 --tls-max "$2" \
        "https://localhost:$port/" 2>&1 >/dev/null | sed -n 's/OpenSSL[^:]*: //g; s/error:[0-9A-F]*:SSL routines:[a-z_0-9]*://; /^curl:/p' ||
        true  # it fails each time
}
old12=$(call old 1.2) old13=$(call old 1.3) stranger12=$(call stranger 1.2)
echo "expired, TLS 1.2:           $old12"
echo "expired, TLS 1.3:           $old13"
echo "of an unknown CA, TLS 1.2:  $stranger12"
[[ $stranger12 == "curl: (35)"*"unknown ca"* && $old13 == "curl: (56)"*"certificate expired"* ]]
if [ "$old12" != "curl: (60) SSL certificate verification failed" ]; then
    echo "NO LONGER: the alert is named"
    exit 1
fi
echo "AS DESCRIBED: the device's date is told as the server's fault"
