import java.io.StringReader;
import java.nio.file.*;
import java.security.*;
import java.security.cert.*;
import java.security.spec.ECGenParameterSpec;
import java.util.*;
import org.bouncycastle.asn1.x500.X500Name;
import org.bouncycastle.cert.X509CertificateHolder;
import org.bouncycastle.est.*;
import org.bouncycastle.est.jcajce.*;
import org.bouncycastle.jce.provider.BouncyCastleProvider;
import org.bouncycastle.operator.jcajce.*;
import org.bouncycastle.pkcs.*;
import org.bouncycastle.pkcs.jcajce.*;

/** Bouncy Castle's EST client: takes host:port, a PEM file to trust, a device's id and its one-time password; enrols. */
public class EnrolDevice {
    public static void main(String[] given) throws Exception {
        Security.addProvider(new BouncyCastleProvider());
        Set<TrustAnchor> anchors = new HashSet<>();
        CertificateFactory factory = CertificateFactory.getInstance("X.509");
        X509Certificate server = (X509Certificate) factory.generateCertificate(Files.newInputStream(Path.of(given[1])));
        anchors.add(new TrustAnchor(server, null));
        JsseESTServiceBuilder builder = new JsseESTServiceBuilder(given[0], JcaJceUtils.getCertPathTrustManager(anchors, null));
        ESTService service = builder.build();
        for (X509CertificateHolder ca : ESTService.storeToArray(service.getCACerts().getCertificateStore())) {
            System.out.println("CA " + ca.getSubject());
        }
        KeyPairGenerator generator = KeyPairGenerator.getInstance("EC");
        generator.initialize(new ECGenParameterSpec("secp256r1"));
        KeyPair pair = generator.generateKeyPair();
        PKCS10CertificationRequest csr = new JcaPKCS10CertificationRequestBuilder(new X500Name("CN=" + given[2]), pair.getPublic())
            .build(new JcaContentSignerBuilder("SHA256withECDSA").build(pair.getPrivate()));
        try {
            // its own HttpAuth asks without a password first, and then gives up at a 401 that has a body
            String basic = Base64.getEncoder().encodeToString((given[2] + ":" + given[3]).getBytes());
            ESTAuth login = request -> request.addHeader("Authorization", "Basic " + basic);
            EnrollmentResponse answer = service.simpleEnroll(false, csr, login);
            for (X509CertificateHolder one : ESTService.storeToArray(answer.getStore())) {
                boolean own = Arrays.equals(one.getSubjectPublicKeyInfo().getEncoded(), pair.getPublic().getEncoded());
                System.out.println((own ? "ENROLLED " : "OTHER ") + one.getSubject());
            }
        } catch (ESTException refused) {
            System.out.println("REFUSED " + refused.getMessage().replaceAll("\\s+", " "));
        }
    }
}
