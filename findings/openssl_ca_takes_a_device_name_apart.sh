#!/usr/bin/env bash
# `openssl ca` takes a name of two values apart, so the device's certificate has another name than its request.
#
# What: a device's name may hold one element of two values, a common name together with a serial number, and
# `openssl req` writes it when the -subj has a plus sign. `openssl ca` rebuilds the name along its policy and puts each
# value into an element of its own. All values are there, nothing is said, but it is another name.
# Its database does not see that either name is the device's: with unique_subject = yes the request is signed a second
# time under -preserveDN, where it is kept as it was. `openssl x509 -req` keeps it in any case.
# Seen with: OpenSSL 3.0, keytool of Java 17.
# Why it matters: device identities with a product's serial number have this form, and are then compared as a whole:
# an access list by subject, a tenant's list of certificates, a renewal whose old and new name have to be equal. On a
# screen the two differ by a plus in place of a comma.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
openssl version
java -version 2>&1 | sed -n 1p

mkdir new
touch database.txt
echo 1000 > serial
cat > ca.cnf <<'CNF'
[ca]
default_ca = authority
[authority]
database = database.txt
new_certs_dir = new
serial = serial
certificate = ca.pem
private_key = ca.key
default_md = sha256
default_days = 90
unique_subject = yes
policy = policy
[policy]
organizationName = optional
commonName = supplied
serialNumber = optional
[req]
distinguished_name = name
[name]
CNF
openssl req -x509 -config ca.cnf -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 900 -subj "/CN=CA" 2>/dev/null
openssl req -config ca.cnf -newkey rsa:2048 -nodes -keyout device.key -out device.csr \
    -subj "/O=Example/CN=gateway-7+serialNumber=4711" 2>/dev/null
openssl ca -config ca.cnf -batch -notext -in device.csr -out ca-made.pem 2> ca.log
openssl ca -config ca.cnf -batch -notext -in device.csr -out preserved.pem -preserveDN 2>> ca.log
openssl x509 -req -in device.csr -CA ca.pem -CAkey ca.key -set_serial 1 -days 90 -out x509-made.pem 2>/dev/null

subject() { openssl "$@" -noout -subject -nameopt RFC2253 | sed 's/subject=//'; }
asked=$(subject req -in device.csr)
echo "the request:            $asked"
for how in x509-made preserved ca-made; do
    name=$(subject x509 -in "$how.pem")
    elements=$(openssl x509 -in "$how.pem" -noout -subject -nameopt sep_multiline | grep -c =)
    echo "$how: $name ($((elements - 1)) elements); keytool: $(keytool -printcert -file "$how.pem" | sed -n 's/^Owner: //p')"
    declare "${how//-/_}=$name"
done
echo "the database:"
cat database.txt

[ "$x509_made" = "$asked" ] && [ "$preserved" = "$asked" ]
[[ $asked == *+* ]]
[ "$ca_made" != "$asked" ] || { echo "NO LONGER: openssl ca keeps the name"; exit 1; }
[ "$ca_made" = "serialNumber=4711,CN=gateway-7,O=Example" ]
[ "$(grep -c '^V' database.txt)" = 2 ] || { echo "NO LONGER: the second one is refused as a duplicate"; exit 1; }
if grep -iE 'warn|error' ca.log; then echo "NO LONGER: something is said"; exit 1; fi
echo "AS DESCRIBED: one element of two values became two elements, without a word"
