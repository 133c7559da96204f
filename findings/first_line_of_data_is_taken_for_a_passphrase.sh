#!/usr/bin/env bash
# A device program in a pipe loses its first measurement to OpenSSL, which takes it for the passphrase of the key.
#
# What: a program gets its measurements on standard input and loads a key that is encrypted, without a passphrase. In a
# terminal OpenSSL asks for one there. As a service, in cron or in a container, without a terminal, it does not fail: it
# reads a line of standard input. Python's load_cert_chain then says "[Errno 22] Invalid argument", with no word of a
# passphrase; the first line is gone, and a program that goes on (to try again later) sends what is left as if it were
# all. mosquitto_pub -l takes its first line in the same way: where that happens to be the passphrase, it connects.
# Seen with: Python's ssl with OpenSSL 3.0, and mosquitto_pub 2.0 where installed.
# Why it matters: `sensor | device` is the usual way to glue a reader to a client. A missing passphrase (a secret that was
# not mounted) is a usual fault, and it shows as an error of the operating system and as one value that never arrives.
# Handing in a passphrase, even an empty one by a function, keeps OpenSSL away from the input.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
openssl version
openssl req -x509 -newkey rsa:2048 -passout pass:not-told -keyout key.pem -out cert.pem -days 9 -subj "/CN=dev" 2>/dev/null

cat > device.py <<'PY'
import ssl
import sys

context, told = ssl.create_default_context(), sys.argv[1:]
try:
    context.load_cert_chain("cert.pem", "key.pem", *[lambda: ""] * len(told))
    print("the key is open", end="; ")
except OSError as error:
    print(f"{type(error).__name__}: {error}", end="; ")
print("measurements:", ", ".join(sys.stdin.read().split()))
PY
# setsid: without a terminal, as a service has none
silent=$(printf '20.5\n21.5\n22.5\n' | setsid -w python3 device.py 2>/dev/null)
told=$(printf '20.5\n21.5\n22.5\n' | setsid -w python3 device.py told 2>/dev/null)
lucky=$(printf 'not-told\n21.5\n22.5\n' | setsid -w python3 device.py 2>/dev/null)
echo "no passphrase given:             $silent"
echo "an empty one, by a function:     $told"
echo "a first line that happens to be: $lucky"
[ "${told##*: }" = "20.5, 21.5, 22.5" ]
if [ "$silent" != "OSError: [Errno 22] Invalid argument; measurements: 21.5, 22.5" ]; then
    echo "NO LONGER: the input is left alone, or the error is another"
    exit 1
fi
[ "$lucky" = "the key is open; measurements: 21.5, 22.5" ]
if command -v mosquitto_pub >/dev/null; then
    printf 'not-told\n21.5\n' | setsid -w mosquitto_pub -h localhost -p 1 --cafile cert.pem --cert cert.pem --key key.pem \
        -t t -l 2>&1 | tail -1 || true  # it got as far as to the closed port
fi
echo "AS DESCRIBED: one measurement fewer, and no word of a passphrase"
