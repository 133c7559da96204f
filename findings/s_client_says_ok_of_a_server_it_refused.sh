#!/usr/bin/env bash
# openssl s_client refuses a server's certificate, and then prints "Verify return code: 0 (ok)".
#
# What: with -verify_return_error s_client ends the handshake at a certificate that does not verify, as a device does, and
# exits with 1. On TLS 1.2 its report of that very connection says "Verification error: self-signed certificate" in its
# middle, and "Verify return code: 0 (ok)" at its end, where everybody looks. On TLS 1.3 the same line has the error. So
# has TLS 1.2 without -verify_return_error: there the handshake goes on, and the code is the right one, 18.
# Seen with: OpenSSL 3.0. The result of the check is copied into the session at a point that is not reached.
# Why it matters: "Verify return code" is what guides tell people to look for, what they send to a forum, and what
# monitoring scripts grep for. -verify_return_error is what one adds to be strict, and TLS 1.2 is what older platforms
# speak or devices are pinned to: the stricter check turns a wrong certificate green, unless the exit code is looked at.
set -euo pipefail
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; rm -rf "$work"' EXIT
cd "$work"
openssl version
for name in known unknown; do
    openssl req -x509 -newkey rsa:2048 -nodes -keyout $name.key -out $name.pem -days 90 -subj "/CN=localhost" 2>/dev/null
done
port=$(python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
openssl s_server -accept "127.0.0.1:$port" -cert unknown.pem -key unknown.key -quiet >/dev/null 2>&1 &
server=$!
for _ in $(seq 40); do
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then break; fi
    sleep 0.5
done

# What s_client reports of a server whose certificate is not among the trusted ones: its last verdict, and its exit code.
report() {
    local status=0
    openssl s_client -connect "localhost:$port" -CAfile known.pem "$@" </dev/null >out.txt 2>&1 || status=$?
    echo "$(grep -o 'Verify return code: [0-9]*' out.txt | tail -1), exit code $status"
}
strict12=$(report -tls1_2 -verify_return_error)
strict13=$(report -tls1_3 -verify_return_error)
lax12=$(report -tls1_2)
echo "TLS 1.2, -verify_return_error: $strict12"
echo "TLS 1.3, -verify_return_error: $strict13"
echo "TLS 1.2, without it:           $lax12"
[ "$strict13" = "Verify return code: 18, exit code 1" ]
[ "$lax12" = "Verify return code: 18, exit code 0" ]
if [ "$strict12" != "Verify return code: 0, exit code 1" ]; then
    echo "NO LONGER: the refusal is reported as one"
    exit 1
fi
echo "AS DESCRIBED: refused, and 0 (ok) in the report"
