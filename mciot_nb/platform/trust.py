"""Whom the local platform lets in: which uploads it accepts, and the verdict on a device, with its reason."""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from mciot_nb.errors import OnboardingError
from mciot_nb.pki.chain import Finding, Profile, diagnose, is_ca, parse_certificates
from mciot_nb.pki.names import common_name, readable
from mciot_nb.platform.store import Attempt, Device, Store, TrustedCertificate

BAD_CLIENT_ID, NOT_AUTHORIZED = 2, 5  # CONNACK return codes (MQTT 3.1.1, table 3.1)
PEM = re.compile(r"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL)


class Refusal(Exception):
    """The platform does not let a client in: the log's code and sentence, and the CONNACK code if one can be sent."""

    def __init__(self, code: str, sentence: str, connack: int | None = None) -> None:
        super().__init__(sentence)
        self.code, self.sentence, self.connack = code, sentence, connack


@dataclass(frozen=True)
class FailedCertificate:
    """What OpenSSL objected to in a handshake: the certificate, its depth (the device's is 0) and the error number."""

    certificate: x509.Certificate
    depth: int
    error: int


def read_upload(text: str) -> x509.Certificate:
    """Read the certificate of an upload: PEM with line breaks or on one line, text around it, or bare base64.

    Raises OnboardingError where there is not exactly one that can serve as a trusted certificate: a CA's, version 3,
    not expired. (That an expired one or version 1 is refused by the real platform too is inferred, not documented.)
    """
    bodies = PEM.findall(text) or [text]
    if len(bodies) > 1:
        raise OnboardingError(f"The text holds {len(bodies)} certificates: upload the CA certificate alone.", "BAD_PEM")
    try:
        certificate = x509.load_der_x509_certificate(base64.b64decode("".join(bodies[0].split()), validate=True))
        certificate.public_key()
        subject, usable = readable(certificate.subject), is_ca(certificate)
    except Exception:  # cryptography has a type for each of many kinds of damage
        parse_certificates(text.encode("utf-8", "replace"))  # says what is wrong with the markers
        raise OnboardingError("The certificate is damaged: copy the whole file again.", "BAD_PEM") from None
    if certificate.version != x509.Version.v3 or not usable:
        raise OnboardingError(
            f"The certificate of {subject} is not a CA's (version 3 with CA:true): upload the one that signs devices.",
            "NOT_A_CA",
        )
    if certificate.not_valid_after_utc < datetime.now(UTC):
        raise OnboardingError(f"The certificate of {subject} has expired: make a new one and upload that.", "EXPIRED")
    return certificate


def fingerprint(certificate: x509.Certificate) -> str:
    """Give the SHA-1 by which the platform identifies a trusted certificate."""
    return certificate.fingerprint(hashes.SHA1()).hex()


def device_identifier(client_id: str) -> str:
    """Take the device's identifier out of a ClientId ``[connectionType:]deviceIdentifier[:defaultTemplate]``."""
    return client_id.removeprefix("d:").partition(":")[0]


class Trust:
    """The uploaded certificates as judges of devices. They are read anew each time, so a change works at once."""

    def __init__(self, store: Store, profile: Profile) -> None:
        self.store, self.profile = store, profile

    def enabled(self) -> list[TrustedCertificate]:
        """Give the certificates under which devices may connect now."""
        return [trusted for trusted in self.store.trusted_certificates() if trusted.enabled]

    def admit(
        self, presented: Sequence[x509.Certificate], verified: Sequence[x509.Certificate], attempt: Attempt
    ) -> tuple[Device, TrustedCertificate]:
        """Judge a client that got through the TLS handshake; ``verified`` is the path that OpenSSL found.

        Gives the device, registered if need be, and the trusted certificate that vouches for it. Raises Refusal.
        """
        anchors = {trusted.certificate: trusted for trusted in self.enabled()}
        finding = self._finding(presented, list(anchors), self.profile)
        if finding:
            raise Refusal(finding.code, finding.sentence, NOT_AUTHORIZED)
        trusted = next((anchors[certificate] for certificate in verified if certificate in anchors), None)
        if trusted is None:  # deleted while the handshake was under way
            raise Refusal("UNKNOWN_CA", "The chain leads to no trusted certificate: upload the CA's.", NOT_AUTHORIZED)
        attempt.tenant = trusted.tenant
        self._check_client_id(attempt.client_id, presented[0])
        return self._registered(device_identifier(attempt.client_id), trusted), trusted

    def after_failed_handshake(self, path: Sequence[x509.Certificate], failed: FailedCertificate) -> Refusal:
        """Say why OpenSSL refused a client; ``path`` is as far as it got from the device's certificate."""
        anchors = [trusted.certificate for trusted in self.enabled()]
        presented = list(path) or [failed.certificate]
        if len(presented) == 1:
            # pyOpenSSL does not tell what else was presented. If the issuer's name is one that we trust, its
            # certificate most likely was, and did not make the signature.
            presented += [anchor for anchor in anchors if anchor.subject == presented[0].issuer != presented[0].subject]
        finding = self._finding(presented, anchors) or Finding(
            "INVALID",
            f"OpenSSL refuses the certificate of {readable(failed.certificate.subject)}, error {failed.error}: "
            "run openssl verify on the chain to see what it means.",
        )
        return Refusal(finding.code, finding.sentence)

    def _finding(
        self, presented: Sequence[x509.Certificate], anchors: list[x509.Certificate], profile: Profile | None = None
    ) -> Finding | None:
        diagnosis = diagnose(presented, anchors, profile)
        if diagnosis.code in ("UNKNOWN_CA", "BAD_SIGNATURE"):
            for trusted in self.store.trusted_certificates():
                if not trusted.enabled and diagnose(presented, [trusted.certificate]).code not in (
                    "UNKNOWN_CA",
                    "BAD_SIGNATURE",
                ):
                    return _no_longer_trusted(trusted)
        return None if diagnosis.ok else diagnosis.findings[0]

    def _check_client_id(self, client_id: str, certificate: x509.Certificate) -> None:
        if not client_id:
            raise Refusal("NO_CLIENT_ID", "The ClientId is empty: use the certificate's common name.", BAD_CLIENT_ID)
        name = common_name(certificate.subject)
        if device_identifier(client_id) == name:
            return
        sentence = (
            f"The ClientId {client_id!r} is not the common name of the certificate {readable(certificate.subject)}: "
        )
        sentence += (
            "connect with that common name as ClientId."
            if name and ":" not in name
            else "sign a certificate whose common name is the ClientId, without a colon."
        )
        raise Refusal("CLIENT_ID_MISMATCH", sentence, NOT_AUTHORIZED)

    def _registered(self, identifier: str, trusted: TrustedCertificate) -> Device:
        if trusted.auto_registration:
            self.store.register(trusted.tenant, identifier)
        device = self.store.device(trusted.tenant, identifier)
        if device is None:
            raise Refusal(
                "NOT_REGISTERED",
                f"The device {identifier} is not registered, and auto-registration is off for the trusted certificate "
                f"of {readable(trusted.certificate.subject)}: switch it on there.",
                NOT_AUTHORIZED,
            )
        return device


def _no_longer_trusted(trusted: TrustedCertificate) -> Finding:
    subject = readable(trusted.certificate.subject)
    if trusted.deleted:
        return Finding("CA_DELETED", f"The trusted certificate of {subject} was deleted: upload it again.")
    return Finding("CA_DISABLED", f"The trusted certificate of {subject} is disabled: enable it.")
