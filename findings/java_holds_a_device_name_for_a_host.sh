#!/usr/bin/env bash
# Below a CA that may sign for example.com only, Java refuses a device called device-0001, and takes one called device 0001.
#
# What: a CA whose name constraints permit DNS names below example.com says nothing of device names; RFC 5280, section
# 4.2.1.10, applies them to alternative names of that kind only. Java's path validation holds the common name for a host
# where a certificate has no alternative DNS name, and every string that could be a host's name is one to it, dot or not:
# the device is refused with "name constraints check failed". A blank in the name, or an alternative DNS name that is
# permitted, lets it in. OpenSSL looks at the common name too, but at one with a dot only. GnuTLS is as Java, Go looks
# at no common name.
# Seen with: OpenSSL 3.0, Java 17 (and 25 with the same classes).
# Why it matters: a company's issuing CA often has such constraints. Its devices, whose common name is the device's id,
# connect to a broker that uses OpenSSL, and are refused by a platform that is written in Java; the same device with a
# blank in its id is let in.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
openssl version
java -version 2>&1 | sed -n 1p
cat > Judge.java <<'JAVA'
import java.io.FileInputStream;
import java.security.KeyStore;
import java.security.cert.*;
import javax.net.ssl.*;

public class Judge {
    static X509Certificate read(String file) throws Exception {
        try (FileInputStream in = new FileInputStream(file)) {
            return (X509Certificate) CertificateFactory.getInstance("X.509").generateCertificate(in);
        }
    }

    public static void main(String[] files) throws Exception {
        KeyStore trusted = KeyStore.getInstance("PKCS12");
        trusted.load(null, null);
        trusted.setCertificateEntry("root", read("root.pem"));
        TrustManagerFactory factory = TrustManagerFactory.getInstance("PKIX");
        factory.init(trusted);
        for (String file : files) {
            String verdict = "refused";
            try {
                X509Certificate[] chain = {read(file), read("ca.pem")};
                ((X509TrustManager) factory.getTrustManagers()[0]).checkClientTrusted(chain, "EC");
                verdict = "taken";
            } catch (CertificateException error) {
                if (!error.toString().contains("name constraints")) throw error;
            }
            System.out.println(verdict);
        }
    }
}
JAVA

key=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
openssl req -x509 "${key[@]}" -keyout root.key -out root.pem -subj "/CN=Root" -days 30 2>/dev/null
sign() { # file, subject, issuer, extensions
    openssl req -new "${key[@]}" -keyout "$1.key" -out "$1.csr" -subj "$2" 2>/dev/null
    openssl x509 -req -in "$1.csr" -CA "$3.pem" -CAkey "$3.key" -set_serial "$RANDOM" -days 20 -out "$1.pem" \
        -extfile <(printf '%b' "$4") 2>/dev/null
}
sign ca "/CN=Issuing CA" root "basicConstraints=critical,CA:true\nkeyUsage=critical,keyCertSign,cRLSign\nnameConstraints=critical,permitted;DNS:example.com\n"
usage="keyUsage=critical,digitalSignature\nextendedKeyUsage=clientAuth\n"
sign hyphen "/CN=device-0001" ca "$usage"
sign blank "/CN=device 0001" ca "$usage"
sign named "/CN=device-0001" ca "${usage}subjectAltName=DNS:device-0001.example.com\n"
sign dotted "/CN=device.0001" ca "$usage"

mapfile -t java < <(java Judge.java hyphen.pem blank.pem named.pem dotted.pem)
row=0
for expected in "hyphen taken refused" "blank taken taken" "named taken taken" "dotted refused refused"; do
    read -r name by_openssl by_java <<< "$expected"
    found=refused
    openssl verify -purpose sslclient -CAfile root.pem -untrusted ca.pem "$name.pem" >/dev/null 2>&1 && found=taken
    echo "$name, $(openssl x509 -in "$name.pem" -noout -subject): OpenSSL $found, Java ${java[$row]}"
    [ "$found ${java[$row]}" = "$by_openssl $by_java" ] || { echo "NO LONGER: expected OpenSSL $by_openssl, Java $by_java"; exit 1; }
    row=$((row + 1))
done
echo "AS DESCRIBED: Java holds a device's common name for a host's name"
