import java.io.FileInputStream;
import java.io.IOException;
import java.net.Socket;
import java.net.SocketTimeoutException;
import java.security.KeyStore;
import java.util.LinkedHashSet;
import java.util.Scanner;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLParameters;
import javax.net.ssl.SSLServerSocket;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.TrustManagerFactory;
import org.fusesource.mqtt.client.BlockingConnection;
import org.fusesource.mqtt.client.MQTT;

/**
 * Connects with mqtt-client (Debian's Java MQTT client) or with Java's own TLS, or serves TLS as a Java platform does.
 *
 * The first argument is "mqtt-client", "jsse" or "serve". Each line of standard input is one attempt, values with tabs in
 * between: host, port, ClientId, TLS version, keystore (PKCS12, may be empty), truststore, their password, user, password.
 * It is answered with one line: what was said, with tabs in between.
 */
public class JavaClient {
    static final int SECONDS = 6;

    public static void main(String[] arguments) throws Exception {
        Scanner attempts = new Scanner(System.in);
        while (attempts.hasNextLine()) {
            String[] value = attempts.nextLine().split("\t", -1);
            Set<String> said = new LinkedHashSet<>();
            CompletableFuture<Void> attempt = CompletableFuture.runAsync(() -> {
                try {
                    switch (arguments[0]) {
                        case "serve" -> serve(value);
                        case "jsse" -> handshake(value);
                        default -> connect(value, said);
                    }
                } catch (Throwable error) {
                    said.add(error.toString());
                    while (error.getCause() != null) {
                        error = error.getCause();
                    }
                    said.add(error.toString());
                }
            });
            try {
                attempt.get(SECONDS, TimeUnit.SECONDS);
            } catch (ExecutionException | TimeoutException silence) {
                // then nothing was said
            }
            System.out.println(String.join("\t", said).replaceAll("\\R", " "));
        }
        System.exit(0); // mqtt-client's threads would keep it alive
    }

    static SSLContext context(String[] value) throws Exception {
        KeyStore own = null;
        if (!value[4].isEmpty()) {
            own = KeyStore.getInstance("PKCS12");
            own.load(new FileInputStream(value[4]), value[6].toCharArray());
        }
        KeyStore trusted = KeyStore.getInstance("PKCS12");
        trusted.load(new FileInputStream(value[5]), value[6].toCharArray());
        KeyManagerFactory keys = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        keys.init(own, value[6].toCharArray());
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(trusted);
        SSLContext context = SSLContext.getInstance(value[3]);
        context.init(keys.getKeyManagers(), trust.getTrustManagers(), null);
        return context;
    }

    static void connect(String[] value, Set<String> said) throws Exception {
        MQTT mqtt = new MQTT();
        mqtt.setHost((value[3].isEmpty() ? "tcp" : "tls") + "://" + value[0] + ":" + value[1]);
        if (!value[3].isEmpty()) {
            mqtt.setSslContext(context(value));
        }
        mqtt.setClientId(value[2]);
        mqtt.setVersion("3.1.1");
        mqtt.setConnectAttemptsMax(0);
        if (!value[7].isEmpty()) {
            mqtt.setUserName(value[7]);
            mqtt.setPassword(value[8]);
        }
        BlockingConnection connection = mqtt.blockingConnection();
        connection.connect();
        said.add("CONNECTED");
        connection.disconnect();
    }

    /** Does what Eclipse Paho's network module does: a handshake with the host's name checked; then it reads. */
    static void handshake(String[] value) throws Exception {
        try (SSLSocket socket = (SSLSocket) context(value).getSocketFactory()
                .createSocket(new Socket(value[0], Integer.parseInt(value[1])), value[0], Integer.parseInt(value[1]), true)) {
            SSLParameters parameters = socket.getSSLParameters();
            parameters.setEndpointIdentificationAlgorithm("HTTPS");
            socket.setSSLParameters(parameters);
            socket.setSoTimeout(1000 * SECONDS / 2);
            socket.startHandshake();
            try {
                socket.getInputStream().read();
            } catch (SocketTimeoutException silence) {
                // the handshake was good
            }
        }
    }

    /** Serves one connection after the other on a port that it tells; asks for a certificate whose issuer it trusts. */
    static void serve(String[] value) throws Exception {
        SSLServerSocket server = (SSLServerSocket) context(value).getServerSocketFactory().createServerSocket(0);
        server.setWantClientAuth(true);
        System.out.println(server.getLocalPort());
        while (true) {
            try (SSLSocket socket = (SSLSocket) server.accept()) {
                socket.setSoTimeout(1000 * SECONDS / 2);
                socket.startHandshake();
                socket.getInputStream().read();
            } catch (IOException refused) {
                // the client learns why
            }
        }
    }
}
