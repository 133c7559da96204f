"""Which uploads the local platform accepts as trusted certificates."""

import base64
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from mciot_nb.errors import OnboardingError
from mciot_nb.pki.chain import is_ca, parse_certificates
from mciot_nb.pki.names import readable

LONGEST_UPLOAD = 100_000  # characters; a certificate has some thousands


def read_upload(text: str) -> x509.Certificate:
    """Read the certificate of an upload: PEM with line breaks or on one line, text around it, or bare base64.

    Raises OnboardingError where there is not exactly one that can serve as a trusted certificate: a CA's, version 3,
    not expired. (That an expired one or version 1 is refused by the real platform too is inferred, not documented.)
    """
    if len(text) > LONGEST_UPLOAD:
        raise OnboardingError(
            f"The text is longer than {LONGEST_UPLOAD} characters: upload one certificate.", "BAD_PEM"
        )
    try:
        certificate = _single_certificate(text)
        certificate.public_key()
        certificate.signature_hash_algorithm  # noqa: B018 - raises for one that can't be described later
        subject, usable = readable(certificate.subject), is_ca(certificate)
    except UnsupportedAlgorithm:
        sentence = "The certificate's key or signature is of an unknown kind: make one with RSA or ECDSA and SHA-256."
        raise OnboardingError(sentence, "BAD_PEM") from None
    except OnboardingError:
        raise
    except Exception:  # cryptography has a type for each of many kinds of damage
        raise OnboardingError("The certificate is damaged: copy the whole file again.", "BAD_PEM") from None
    if certificate.version != x509.Version.v3 or not usable:
        raise OnboardingError(
            f"The certificate of {subject} is not a CA's (version 3 with CA:true): upload the one that signs devices.",
            "NOT_A_CA",
        )
    if certificate.not_valid_after_utc < datetime.now(UTC):
        raise OnboardingError(f"The certificate of {subject} has expired: make a new one and upload that.", "EXPIRED")
    return certificate


def _single_certificate(text: str) -> x509.Certificate:
    try:
        der = base64.b64decode("".join(text.split()), validate=True)
    except ValueError:  # it has markers
        try:
            certificates = parse_certificates(text.encode("utf-8", "replace"))
        except OnboardingError:
            if "\\n" in text:
                sentence = r"The line breaks are written as \n, a backslash and an n: put real ones there, or none."
                raise OnboardingError(sentence, "BAD_PEM") from None
            raise
        if len(certificates) > 1:
            sentence = f"The text holds {len(certificates)} certificates: upload the CA certificate alone."
            raise OnboardingError(sentence, "BAD_PEM") from None
        return certificates[0]
    return x509.load_der_x509_certificate(der)
