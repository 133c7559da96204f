"""The certificate of a tenant's MQTT server, for the device's truststore."""

import socket
import ssl

from cryptography import x509

from mciot_nb.errors import OnboardingError

#: Seconds to wait for the server.
TIMEOUT = 10.0


def fetch_server_certificate(host: str, port: int) -> x509.Certificate:
    """Fetch the server's own certificate, verified against the system's trust (guide: "Creating keystore", step 3).

    The guide's ``openssl s_client`` takes whatever comes over the wire. Raises OnboardingError where nothing answers,
    or the server is not trusted.
    """
    context = ssl.create_default_context()
    try:
        plain = socket.create_connection((host, port), TIMEOUT)
        with plain, context.wrap_socket(plain, server_hostname=host) as secured:
            return x509.load_der_x509_certificate(secured.getpeercert(binary_form=True) or b"")
    except ssl.SSLError as error:
        reason = getattr(error, "verify_message", "") or error.reason or "TLS failed"
        raise OnboardingError(
            f"The certificate of {host}:{port} could not be fetched and verified ({reason}): check the MQTT host and "
            "port in 00.",
            "SERVER_NOT_TRUSTED",
        ) from None
    except (OSError, UnicodeError):
        raise OnboardingError(
            f"Nothing answers at {host}:{port}: check the MQTT host and port in 00, and the network.", "NOT_REACHED"
        ) from None
