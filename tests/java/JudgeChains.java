import java.io.*;
import java.nio.file.*;
import java.security.KeyStore;
import java.security.cert.*;
import java.util.*;
import javax.net.ssl.*;

/** Says of each folder on standard input whether a Java TLS server with trusted.pem would take the client of chain.pem. */
public class JudgeChains {
    public static void main(String[] arguments) throws Exception {
        BufferedReader folders = new BufferedReader(new InputStreamReader(System.in));
        for (String folder; (folder = folders.readLine()) != null; ) {
            String verdict = "ok";
            try {
                List<X509Certificate> chain = read(Path.of(folder, "chain.pem"));
                KeyStore trusted = KeyStore.getInstance("PKCS12");
                trusted.load(null, null);
                for (X509Certificate anchor : read(Path.of(folder, "trusted.pem"))) {
                    trusted.setCertificateEntry("anchor" + trusted.size(), anchor);
                }
                TrustManagerFactory factory = TrustManagerFactory.getInstance("PKIX");
                factory.init(trusted);
                ((X509TrustManager) factory.getTrustManagers()[0])
                    .checkClientTrusted(chain.toArray(new X509Certificate[0]), chain.get(0).getPublicKey().getAlgorithm());
            } catch (CertificateException refused) {
                Throwable cause = refused;
                while (cause.getCause() != null) cause = cause.getCause();
                verdict = cause.toString().replaceAll("\\s+", " ");
            }
            System.out.println(verdict);
        }
    }

    private static List<X509Certificate> read(Path file) throws Exception {
        List<X509Certificate> found = new ArrayList<>();
        try (InputStream in = Files.newInputStream(file)) {
            for (Certificate certificate : CertificateFactory.getInstance("X.509").generateCertificates(in)) {
                found.add((X509Certificate) certificate);
            }
        }
        return found;
    }
}
