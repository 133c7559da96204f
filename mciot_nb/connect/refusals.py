"""What the platform's answers to a connecting device mean, each in one sentence."""

import re
import ssl

from mciot_nb.errors import OnboardingError

#: What the platform's CONNACK codes mean (MQTT 3.1.1, section 3.2.2.3, and what the platform uses them for).
CONNACK = {
    1: "the platform speaks MQTT 3.1 and 3.1.1 only: choose one of these",
    2: "the platform does not take this ClientId: use the common name of the device certificate",
    3: "the platform is not available: try again later",
    4: "the platform expects a user and password here: connect to its TLS port with the certificate",
    5: "the platform knows the CA but refuses this device: check that the ClientId equals the common name, that the "
    "chain is complete and not too long, that the name holds no colon, and that auto-registration is on",
}

#: What a TLS alert of the platform means for the device (RFC 8446, section 6.2).
ALERTS = {
    "UNKNOWN_CA": "the platform does not trust the CA of this certificate: upload the CA certificate to the tenant",
    "CERTIFICATE_UNKNOWN": "the platform does not trust this certificate: upload its CA certificate to the tenant, and "
    "check that nothing has expired",
    "CERTIFICATE_EXPIRED": "a certificate of the chain has expired: sign a new one",
    "CERTIFICATE_REVOKED": "this device certificate was revoked: sign a new one",
    "BAD_CERTIFICATE": "the platform can't use this certificate: check that its validity has begun",
    "DECRYPT_ERROR": "a signature in the chain is wrong: build the chain from the certificates that belong together",
    "HANDSHAKE_FAILURE": "the platform ended the handshake: give the device its certificate and key",
    "CERTIFICATE_REQUIRED": "the platform wants a client certificate: give the device its certificate and key",
}


def silence(where: str) -> OnboardingError:
    """Say that ``where``, a host and port, takes the connection and then nothing comes."""
    return OnboardingError(
        f"{where} takes the connection and then says nothing: check that the port is the "
        "platform's TLS port, and that the platform is well.",
        "NO_ANSWER",
    )


def failure(where: str, text: str, notes: list[str], error: Exception | None = None) -> OnboardingError:
    """Turn what OpenSSL, the network or paho's notes say about ``where``, a host and port, into one sentence."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return OnboardingError(
            f"The server certificate of {where} was not trusted ({error.verify_message}): check the host name, and "
            "that the truststore holds this server's certificate.",
            "SERVER_NOT_TRUSTED",
        )
    if isinstance(error, TimeoutError) and "handshake" in text:
        return silence(where)
    alert = re.search(r"ALERT[_ ]([A-Z_ ]+)\]?", " ".join([text, *notes]).upper())
    if alert:
        name = alert[1].strip().replace(" ", "_")
        meaning = ALERTS.get(name, "the platform ended the handshake")
        return OnboardingError(f"{where} sent the TLS alert {name.lower()}: {meaning}.", f"ALERT_{name}")
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
        return OnboardingError(
            f"Nothing answers at {where}: check host, port and network, and that the platform runs.",
            "NOT_REACHED",
        )
    return OnboardingError(
        f"{where} closed the connection without a reason: check that the port is the platform's TLS port, and look "
        "into its log.",
        "CLOSED",
    )
