#!/usr/bin/env bash
# Bouncy Castle's EST client never sends its password where the server's first answer, 401, has a body.
#
# What: with HttpAuth, the client posts without a password first, as it should, and waits for the server to name a
# realm. Before it asks again with the password it closes the first answer without reading it, and its own check that
# an answer was read to its end then throws: "Stream closed before limit fully read". A 401 without a body works, and
# so does a header that is set by hand (ESTAuth as a lambda).
# Seen with: Bouncy Castle 1.72 (Debian's libbcpkix-java), Java 17.
# Why it matters: a platform says in the body why it refused, so a device of this library never enrols there with its
# one-time password, and the message sounds like a broken network.
set -euo pipefail
work=$(mktemp -d)
trap 'kill "$server" 2>/dev/null; rm -rf "$work"' EXIT
cd "$work"
apt-get download -q libbcpkix-java=1.72-2 libbcprov-java=1.72-2 libbcutil-java=1.72-2 >/dev/null 2>&1
for package in *.deb; do dpkg -x "$package" .; done
jars=$(printf '%s:' usr/share/java/bc*-1.72.jar)
java -version 2>&1 | sed -n 1p
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out cert.pem -days 2 \
    -subj /CN=localhost -addext subjectAltName=DNS:localhost 2>/dev/null
cat > server.py <<'PY'
import ssl
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        known = "Authorization" in self.headers
        body = b"please log in" if self.path.startswith("/.well-known/est/body") and not known else b""
        self.send_response(403 if known else 401)  # 403: the password has come, and that is all we want to see
        self.send_header("WWW-Authenticate", 'Basic realm="est"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("cert.pem", "key.pem")
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
server.serve_forever()
PY
python3 server.py > port &
server=$!
until [ -s port ]; do sleep 0.1; done
cat > Ask.java <<'JAVA'
import java.nio.file.*;
import java.security.*;
import java.security.cert.*;
import java.util.*;
import org.bouncycastle.asn1.x500.X500Name;
import org.bouncycastle.est.*;
import org.bouncycastle.est.jcajce.*;
import org.bouncycastle.jce.provider.BouncyCastleProvider;
import org.bouncycastle.operator.jcajce.*;
import org.bouncycastle.pkcs.*;
import org.bouncycastle.pkcs.jcajce.*;

public class Ask {
    public static void main(String[] given) throws Exception {
        Security.addProvider(new BouncyCastleProvider());
        X509Certificate server = (X509Certificate) CertificateFactory.getInstance("X.509")
            .generateCertificate(Files.newInputStream(Path.of("cert.pem")));
        KeyPairGenerator generator = KeyPairGenerator.getInstance("EC");
        generator.initialize(256);
        KeyPair pair = generator.generateKeyPair();
        PKCS10CertificationRequest csr = new JcaPKCS10CertificationRequestBuilder(new X500Name("CN=d"), pair.getPublic())
            .build(new JcaContentSignerBuilder("SHA256withECDSA").build(pair.getPrivate()));
        for (String label : List.of("empty", "body")) {
            ESTService service = new JsseESTServiceBuilder("localhost:" + given[0], JcaJceUtils.getCertPathTrustManager(
                Set.of(new TrustAnchor(server, null)), null)).withLabel(label).build();
            try {
                service.simpleEnroll(false, csr, new JcaHttpAuthBuilder("est", "d", "secret".toCharArray()).build());
            } catch (ESTException refused) {
                System.out.println("401 with " + label + ": " + refused.getMessage());
            }
        }
    }
}
JAVA
java -cp "$jars" Ask.java "$(cat port)" | tee said
grep -q "^401 with empty: .*403" said  # the control: there the password was sent
grep -q "^401 with body: Stream closed before limit fully read" said
echo "AS DESCRIBED: a 401 with a body ends the attempt before the password was sent"
