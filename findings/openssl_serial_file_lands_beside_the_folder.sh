#!/usr/bin/env bash
# The serial number file of `openssl x509 -req` lands outside the CA's folder when this has a dot in its name.
#
# What: with -CAcreateserial openssl makes the file's name by cutting the CA file's path at its last dot and adding
# ".srl". Where the CA's file has no ending and a folder above it has a dot, the cut is in the folder's name: for
# pki.d/line-a the file is pki.srl, beside the folder. So all CAs of that folder, and those in a folder pki.old next to
# it, use one file, and each goes on where another one stopped. In a folder whose name begins with a dot it is ".srl".
# Seen with: OpenSSL 3.0.
# Why it matters: whoever copies, backs up or hands over the CA's folder leaves its counter behind, and a signing run
# that was to touch its own folder only writes a file elsewhere. What a plant takes for one line's running numbers has
# gaps that another line's devices filled. Dots in folder names (v1.2, pki.d, .pki) and CA files without an ending are
# both common; with an ending, as in pki.d/line-a.pem, the file is where one looks for it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
openssl version
openssl req -newkey rsa:2048 -nodes -keyout device.key -out device.csr -subj "/CN=device" 2>/dev/null

# authority PATH: makes a CA there and lets it sign once.
authority() {
    mkdir -p "$(dirname "$1")"
    openssl req -x509 -newkey rsa:2048 -nodes -keyout "$1-key" -out "$1" -days 900 -subj "/CN=$(basename "$1")" 2>/dev/null
    openssl x509 -req -in device.csr -CA "$1" -CAkey "$1-key" -CAcreateserial -days 90 -out "$1-device" 2>/dev/null
    echo "signed by $1: serial $(openssl x509 -in "$1-device" -noout -serial | cut -d= -f2)"
}
for ca in plain/line-a pki.d/line-a pki.d/line-b pki.old/line-a .hidden/line-a pki.d/line-c.pem; do authority "$ca"; done
echo "serial files:"
find . -name '*srl' | LC_ALL=C sort | tee found.txt

cat > expected.txt <<'EXPECTED'
./.srl
./pki.d/line-c.srl
./pki.srl
./plain/line-a.srl
EXPECTED
diff expected.txt found.txt || { echo "NO LONGER: the files lie elsewhere"; exit 1; }
# Three CAs count in one file: each number is the one before it plus one.
number() { openssl x509 -in "$1" -noout -serial | cut -d= -f2; }
python3 - "$(number pki.d/line-a-device)" "$(number pki.d/line-b-device)" "$(number pki.old/line-a-device)" "$(cat pki.srl)" <<'PY'
import sys

first, second, third, kept = (int(text, 16) for text in sys.argv[1:])
assert (second, third, kept) == (first + 1, first + 2, first + 2), "NO LONGER: a counter for each"
PY
echo "AS DESCRIBED: the counter is beside the folder, and three CAs in two folders share it"
