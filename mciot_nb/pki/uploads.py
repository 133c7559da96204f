"""Certificates of unknown form: pasted, dropped on a field, or sent by REST. One reader, and two sets of rules."""

import base64
import codecs
import re
from contextlib import suppress
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_private_key

from mciot_nb.errors import OnboardingError, fault
from mciot_nb.pki import jks
from mciot_nb.pki.chain import is_ca, parse_certificates
from mciot_nb.pki.keystore import other_form
from mciot_nb.pki.names import name_of, readable
from mciot_nb.pki.parts import UNREADABLE

#: How files begin that hold keys under a password: JKS, JCEKS, BKS.
_STORES = (jks.MAGIC, b"\xce\xce\xce\xce", b"\0\0\0\1", b"\0\0\0\2")
#: A PKCS12 is a sequence, of a length in one to five bytes, that begins with version 3 and another sequence (RFC 7292).
_PKCS12 = re.compile(rb"\x30.{1,5}\x02\x01\x03\x30", re.DOTALL)
_PRIVATE_KEY = re.compile(rb"BEGIN [A-Z0-9 ]*PRIVATE KEY|PuTTY-User-Key-File")
#: The longest upload by REST, in characters; a certificate has some thousands.
LONGEST_UPLOAD = 100_000


def parse_upload(data: bytes | str, name: str, assurance: str = "It is not kept.") -> list[x509.Certificate]:
    """Return the certificates in ``data``, in their order.

    It may be PEM with text around it, on one line or with blanks for line breaks, also in UTF-16 as PowerShell writes
    it; bare base64, with commas between several; or one certificate in DER form. ``name`` is what the sentences call
    it, ``assurance`` what they say has become of a private key.

    Raises: OnboardingError: PRIVATE_KEY, KEYSTORE, or BAD_PEM for anything else that is no certificate.
    """
    if isinstance(data, str):
        data = data.encode("utf-8", "replace")
    elif data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        data = data.decode("utf-16", "replace").encode()
    data = data.removeprefix(codecs.BOM_UTF8)
    values = _der_values(data)
    if _PRIVATE_KEY.search(data) or any(map(_is_private_key, values)):
        raise fault("PRIVATE_KEY", name=name, assurance=assurance)
    if b"BEGIN PKCS12" in data or any(value.startswith(_STORES) or _PKCS12.match(value) for value in values):
        raise fault("KEYSTORE", name=name, assurance=assurance)
    try:
        return [x509.load_der_x509_certificate(value) for value in values]
    except (ValueError, x509.InvalidVersion):
        if values != [data]:
            raise fault("BAD_PEM.certificate") from None
    try:
        return parse_certificates(data)
    except OnboardingError:
        if b"BEGIN CERTIFICATE" in data and rb"\n" in data:
            raise fault("BAD_PEM.breaks") from None
        if says := other_form(values[0], "FILE"):
            raise OnboardingError(f"This {says}.", "BAD_PEM") from None
        raise


def _der_values(data: bytes) -> list[bytes]:
    """Return what is in bare base64 if it looks like DER, a sequence each, and else ``data`` itself."""
    with suppress(ValueError):
        values = [base64.b64decode(b"".join(block.split()), validate=True) for block in data.split(b",")]
        if all(value.startswith(b"\x30") for value in values):
            return values
    return [data]


def _is_private_key(data: bytes) -> bool:
    try:
        load_der_private_key(data, None)
    except (ValueError, UnsupportedAlgorithm):
        return False
    except TypeError:  # it is one, and encrypted
        pass
    return True


def ca_certificates(name: str, data: bytes) -> list[x509.Certificate]:
    """Return the CA certificates in the file ``name``, each once; device certificates are left out.

    Raises: OnboardingError: as `parse_upload`; EMPTY; NOT_A_CA if there is no CA's among them.
    """
    if not data.strip(b"\0\xff\xfe \t\r\n"):
        raise OnboardingError(f"{name} is empty: choose the file of the CA's certificate.", "EMPTY")
    try:
        certificates = parse_upload(data, name, "It was neither sent nor kept.")
    except OnboardingError as error:
        raise (OnboardingError(f"{name}: {error}", error.code) if error.code == "BAD_PEM" else error) from None
    found = [*dict.fromkeys(filter(is_ca, certificates))]
    if not found:
        raise fault("NOT_A_CA.file", name=name, subject=readable(name_of(certificates[0])))
    return found


def single_ca_certificate(text: str) -> x509.Certificate:
    """Return the one certificate of an upload by REST, which can serve as a trusted certificate.

    That an expired one, or one of version 1, is refused by the real platform too is inferred, not documented.

    Raises: OnboardingError: as `parse_upload`; NOT_A_CA; EXPIRED; BAD_PEM if there are several.
    """
    if len(text) > LONGEST_UPLOAD:
        raise fault("BAD_PEM.long", longest=LONGEST_UPLOAD)
    certificate, *others = parse_upload(text, "The text")
    if others:
        raise fault("BAD_PEM.several", number=len(others) + 1)
    try:
        certificate.public_key()
        certificate.signature_hash_algorithm  # noqa: B018 - raises for one that can't be described later
    except UNREADABLE:
        raise fault("BAD_PEM.kind") from None
    subject = readable(name_of(certificate))
    if certificate.version != x509.Version.v3 or not is_ca(certificate):
        raise fault("NOT_A_CA.upload", subject=subject)
    if certificate.not_valid_after_utc < datetime.now(UTC):
        raise OnboardingError(f"The certificate of {subject} has expired: make a new one and upload that.", "EXPIRED")
    return certificate
