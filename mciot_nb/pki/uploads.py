"""What is in a file that somebody offers for upload: CA certificates, or a sentence that says what else it is."""

import base64
import codecs
import re
from contextlib import suppress
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_private_key

from mciot_nb.errors import OnboardingError
from mciot_nb.pki import jks
from mciot_nb.pki.chain import is_ca, parse_certificates
from mciot_nb.pki.names import readable

#: How files begin that hold keys under a password: JKS, JCEKS, BKS.
_STORES = (jks.MAGIC, b"\xce\xce\xce\xce", b"\0\0\0\1", b"\0\0\0\2")
#: A PKCS12 is a sequence, of a length in one to five bytes, that begins with version 3 and another sequence (RFC 7292).
_PKCS12 = re.compile(rb"\x30.{1,5}\x02\x01\x03\x30", re.DOTALL)
_PRIVATE = re.compile(rb"BEGIN [A-Z0-9 ]*PRIVATE KEY|PuTTY-User-Key-File")
_NOT_SENT = "It was neither sent nor kept."


def ca_certificates(name: str, data: bytes) -> list[x509.Certificate]:
    """Give the CA certificates in the file ``name``, each once and in their order; device certificates are left out.

    ``data`` is PEM with any text around it, also in UTF-16 as PowerShell writes it, or one certificate in DER form.
    Raises OnboardingError: EMPTY, PRIVATE_KEY, KEYSTORE, NOT_A_CA, or BAD_PEM for whatever else it is.
    """
    text = _as_bytes_of_ascii(data)
    if not text.strip():
        raise OnboardingError(f"{name} is empty: choose the file of the CA's certificate.", "EMPTY")
    if _PRIVATE.search(text) or _is_private_der(data):
        raise OnboardingError(
            f"{name} holds a private key, which nobody but its owner ever needs. {_NOT_SENT} Choose the certificate "
            "that belongs to it, such as caCert.pem.",
            "PRIVATE_KEY",
        )
    if data.startswith(_STORES) or _PKCS12.match(data):
        raise OnboardingError(
            f"{name} is a keystore, which may hold private keys. {_NOT_SENT} Choose the CA's certificate alone, such "
            "as caCert.pem.",
            "KEYSTORE",
        )
    return _of_cas(name, _parse(name, text, data))


def _as_bytes_of_ascii(data: bytes) -> bytes:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace").encode()
    return data


def _is_private_der(data: bytes) -> bool:
    try:
        load_der_private_key(data, None)
    except (ValueError, UnsupportedAlgorithm):
        return False
    except TypeError:  # it is one, and encrypted
        return True
    return True


def _parse(name: str, text: bytes, data: bytes) -> list[x509.Certificate]:
    with suppress(ValueError, x509.InvalidVersion):
        return [x509.load_der_x509_certificate(data)]
    try:
        return parse_certificates(text)
    except OnboardingError as error:
        raise OnboardingError(f"{name}: {error}", error.code) from None


def _of_cas(name: str, certificates: list[x509.Certificate]) -> list[x509.Certificate]:
    try:
        names = [(readable(certificate.subject), readable(certificate.issuer)) for certificate in certificates]
    except ValueError:  # names are read when they are asked for
        raise OnboardingError(f"{name} holds a damaged certificate: copy the whole file again.", "BAD_PEM") from None
    found = [*dict.fromkeys(filter(is_ca, certificates))]
    if not found:
        raise OnboardingError(
            f"{name} holds the certificate of {names[0][0]}, which is no CA's: choose the certificate of the CA that "
            "signed it.",
            "NOT_A_CA",
        )
    return found


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
