import java.io.ByteArrayOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.KeyStore;
import java.security.Security;
import java.security.cert.CertificateException;
import java.util.Collections;
import java.util.Scanner;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLException;
import javax.net.ssl.SSLParameters;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.TrustManagerFactory;

/**
 * Connects a device as MQTT.fx does: with a keystore (who am I?) and a truststore (whom do I believe?), over TLS 1.2.
 *
 * Run it with "java ConnectDevice.java". Each line of its standard input is one attempt, twelve values with tabs in
 * between: host, port, ClientId; the keystore's type, file, password, key alias and key password; the truststore's
 * type, file, password and trusted alias. (Passwords come this way because everybody on the machine can see a command
 * line.) Each attempt is answered with one line:
 *
 *   CONNACK 0             the platform lets the device in; any other number is its reason not to
 *   SERVER REFUSED ...    we do not believe the server
 *   HANDSHAKE FAILED ...  the TLS connection ended otherwise, for instance because the server does not believe us
 *   STORE ...             a store, or the key in it, does not open
 *   NO ALIAS ...          nothing of the right kind lies under this alias
 */
public class ConnectDevice {
    public static void main(String[] arguments) throws Exception {
        // By default Java opens a PKCS12 also where a JKS was asked for, and the other way round. Not here.
        Security.setProperty("keystore.type.compat", "false");
        Scanner attempts = new Scanner(System.in, StandardCharsets.UTF_8);
        while (attempts.hasNextLine()) {
            System.out.println(attempt(attempts.nextLine().split("\t", -1)));
        }
    }

    /** Makes one attempt, and says in one line how it ended. What no learner can cause is thrown. */
    static String attempt(String[] value) throws Exception {
        String host = value[0], clientId = value[2], keyAlias = value[6], trustedAlias = value[11];
        SSLContext context = SSLContext.getInstance("TLS");
        try {
            KeyStore keystore = open(value[3], value[4], value[5]);
            KeyStore truststore = open(value[8], value[9], value[10]);
            if (!keystore.isKeyEntry(keyAlias)) {
                return "NO ALIAS " + keyAlias + " of a key in the keystore";
            }
            if (!truststore.isCertificateEntry(trustedAlias)) {
                return "NO ALIAS " + trustedAlias + " of a trusted certificate in the truststore";
            }
            // The factory would offer every key of the store: forget the others, in memory only.
            for (String other : Collections.list(keystore.aliases())) {
                if (!other.equalsIgnoreCase(keyAlias)) {
                    keystore.deleteEntry(other);
                }
            }
            KeyManagerFactory keys = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
            keys.init(keystore, value[7].toCharArray());
            TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
            trust.init(truststore);
            context.init(keys.getKeyManagers(), trust.getTrustManagers(), null);
        } catch (IOException | GeneralSecurityException problem) {
            return "STORE " + problem.getMessage();
        }
        try (SSLSocket socket = (SSLSocket) context.getSocketFactory().createSocket(host, Integer.parseInt(value[1]))) {
            socket.setSoTimeout(20_000);
            socket.setEnabledProtocols(new String[] {"TLSv1.2"});
            // Without this, Java believes a server that shows anybody's trusted certificate. (The rules for a server's
            // name are those of HTTPS, for MQTT too.)
            SSLParameters parameters = socket.getSSLParameters();
            parameters.setEndpointIdentificationAlgorithm("HTTPS");
            socket.setSSLParameters(parameters);
            try {
                socket.startHandshake();
                return "CONNACK " + connect(socket, clientId);
            } catch (SSLException end) {
                boolean ours = end.getCause() instanceof CertificateException;
                // A newer Java puts the alert's name in front of its message, in brackets.
                String reason = end.getMessage().replaceFirst("^\\(\\w+\\) ", "");
                return (ours ? "SERVER REFUSED " : "HANDSHAKE FAILED ") + reason;
            }
        }
    }

    static KeyStore open(String type, String file, String password) throws IOException, GeneralSecurityException {
        KeyStore store = KeyStore.getInstance(type);
        try (InputStream in = new FileInputStream(file)) {
            store.load(in, password.toCharArray());
        }
        return store;
    }

    /** Sends CONNECT and gives the return code of the answer (MQTT 3.1.1, sections 3.1 and 3.2). */
    static int connect(SSLSocket socket, String clientId) throws IOException {
        ByteArrayOutputStream body = new ByteArrayOutputStream();
        DataOutputStream fields = new DataOutputStream(body);
        fields.writeUTF("MQTT"); // a text is its length in two bytes, then UTF-8: just what Java's writeUTF writes
        fields.writeByte(4); // the protocol's level: 3.1.1
        fields.writeByte(0b10); // clean session; no user, no password, no will
        fields.writeShort(60); // keep-alive, in seconds
        fields.writeUTF(clientId);

        ByteArrayOutputStream packet = new ByteArrayOutputStream();
        packet.write(0x10); // CONNECT
        int rest = body.size();
        do { // the length of what follows: seven bits a byte, the lowest first, and the eighth says that more come
            packet.write(rest > 127 ? rest % 128 + 128 : rest);
            rest /= 128;
        } while (rest > 0);
        body.writeTo(packet);
        packet.writeTo(socket.getOutputStream());

        byte[] answer = new byte[4];
        new DataInputStream(socket.getInputStream()).readFully(answer);
        if (answer[0] != 0x20 || answer[1] != 2) {
            throw new IOException("The answer to CONNECT is no CONNACK");
        }
        if (answer[3] == 0) {
            socket.getOutputStream().write(new byte[] {(byte) 0xE0, 0}); // DISCONNECT, the polite end
        }
        return answer[3];
    }
}
