#!/usr/bin/env bash
# The name by which a bought device is known is not in the list of names that a JavaScript library gives.
#
# What: an IEEE 802.1AR birth certificate bears the hardware's type and serial number as an alternative name of the kind
# "otherName" (hardwareModuleName, RFC 4108). @peculiar/x509 knows two kinds of otherName (a GUID and a Microsoft user
# name) and leaves out every other one without a word: the list of names is empty, or holds the remaining names only,
# and its text form shows the extension with nothing in it. An extension that is made of this list again has lost the
# name. Node's own class says "othername:<unsupported>", which shows at least that something is there; jsrsasign gives
# the whole value.
# Seen with: @peculiar/x509 2.2.0, jsrsasign 11.1.5, Node 20; certificate by OpenSSL 3.0.
# Why it matters: an onboarding service that reads the names of the manufacturer's certificate to find its order sees a
# device without a name, and one that copies them into the certificate it issues makes one without the hardware's name.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund --prefix js @peculiar/x509@2.2.0 reflect-metadata@0.2.2 jsrsasign@11.1.5 >/dev/null
openssl version
echo "Node $(node --version)"

openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 900 -subj "/CN=Maker" 2>/dev/null
openssl req -newkey rsa:2048 -nodes -keyout device.key -out device.csr -subj "/serialNumber=PID:PUMP SN:0042" 2>/dev/null
# birth FILE NAMES: a device's certificate with these alternative names.
birth() {
    printf '%s\n' "subjectAltName=$2" "[hardware]" "type=OID:1.3.6.1.4.1.32473.1" "serial=OCT:0042" > names.cnf
    openssl x509 -req -in device.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 90 -extfile names.cnf -out "$1" 2>/dev/null
    openssl verify -CAfile ca.pem "$1"
}
hardware="otherName:1.3.6.1.5.5.7.8.4;SEQUENCE:hardware"
birth alone.pem "$hardware"
birth mixed.pem "$hardware,DNS:pump.example"
birth user.pem "otherName:1.3.6.1.4.1.311.20.2.3;UTF8:pump@maker.example"

cat > js/look.cjs <<'JS'
require("reflect-metadata");
const assert = require("assert"), fs = require("fs"), crypto = require("crypto");
const peculiar = require("@peculiar/x509"), jsrsasign = require("jsrsasign");
for (const name of ["@peculiar/x509", "jsrsasign"]) {
  console.log(name, JSON.parse(fs.readFileSync(`${__dirname}/node_modules/${name}/package.json`)).version);
}

function look(file) {
  const pem = fs.readFileSync(file, "utf8");
  const certificate = new peculiar.X509Certificate(pem);
  const extension = certificate.getExtension("2.5.29.17");
  const names = extension.names.toJSON();
  const again = new peculiar.SubjectAlternativeNameExtension(names);
  const other = new jsrsasign.X509();
  other.readCertPEM(pem);
  const found = { peculiar: names, node: new crypto.X509Certificate(pem).subjectAltName,
    jsrsasign: JSON.stringify(other.getExtSubjectAltName().array),
    kept: Buffer.compare(Buffer.from(extension.rawData), Buffer.from(again.rawData)) === 0 };
  console.log(file, found);
  return found;
}

const serial = Buffer.from("0042").toString("hex");
const user = look("user.pem");
assert.deepEqual(user.peculiar, [{ type: "upn", value: "pump@maker.example" }]);
for (const [file, rest] of [["alone.pem", []], ["mixed.pem", [{ type: "dns", value: "pump.example" }]]]) {
  const found = look(file);
  assert.deepEqual(found.peculiar, rest, "NO LONGER: the hardware's name is in the list");
  assert.equal(found.kept, false, "NO LONGER: the extension made of the list is the same");
  assert.match(found.node, /othername:<unsupported>/);
  assert.ok(found.jsrsasign.includes("1.3.6.1.5.5.7.8.4") && found.jsrsasign.includes(serial));
}
console.log("AS DESCRIBED: the hardware's name is left out without a word");
JS
node js/look.cjs
