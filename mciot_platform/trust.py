"""Whom the local platform lets in: the verdict on a device, with its reason."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509.oid import ExtendedKeyUsageOID

from mciot_nb.errors import Finding
from mciot_nb.pki.chain import PROFILES, Profile, diagnose, path_to_anchor
from mciot_nb.pki.names import common_name, readable
from mciot_platform.storage import LoggedAttempt, RegisteredDevice, Storage, TrustAnchor

BAD_CLIENT_ID, NOT_AUTHORIZED = 2, 5  # CONNACK return codes (MQTT 3.1.1, table 3.1)
LONGEST_CHAIN = max(profile.longest_chain for profile in PROFILES.values())
#: OpenSSL's own words for errors that `diagnose` does not name (X509_verify_cert_error_string, which pyOpenSSL hides).
SIGNATURE_FAILURE, INVALID_PURPOSE = 7, 26
OPENSSL_WORDS = {
    SIGNATURE_FAILURE: "certificate signature failure",
    25: "path length constraint exceeded",
    INVALID_PURPOSE: "unsuitable certificate purpose",
    32: "key usage does not include certificate signing",
    34: "unhandled critical extension",
    37: "invalid non-CA certificate (has CA markings)",
    41: "invalid or inconsistent certificate extension",
    42: "invalid or inconsistent certificate policy extension",
    47: "permitted subtree violation",
    48: "excluded subtree violation",
    66: "EE certificate key too weak",
    67: "CA certificate key too weak",
    68: "CA signature digest algorithm too weak",
    76: "Cannot find certificate signature algorithm",
    79: "invalid CA certificate",
    94: "Certificate public key has explicit ECC parameters",
}


class ConnectionRejected(Exception):
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


@contextmanager
def readable_certificates() -> Iterator[None]:
    """Turn what cryptography raises on odd certificates into a Refusal: they are the client's fault, not ours."""
    try:
        yield
    except (
        x509.DuplicateExtension,
        x509.InvalidVersion,
        x509.UnsupportedGeneralNameType,
        UnsupportedAlgorithm,
        ValueError,
    ) as error:
        sentence = (
            f"A certificate that the client sent can't be read ({type(error).__name__}, {error}): sign a new one."
        )
        raise ConnectionRejected("INVALID", sentence, NOT_AUTHORIZED) from error


def device_identifier(client_id: str) -> str:
    """Take the device's identifier out of a ClientId ``[connectionType:]deviceIdentifier[:defaultTemplate]``."""
    return client_id.removeprefix("d:").partition(":")[0]


def named(certificate: x509.Certificate) -> str:
    """Name a certificate in the log: its subject, and its serial number as ``openssl x509 -serial`` shows it."""
    return f"{readable(certificate.subject)} (serial number {certificate.serial_number:X})"


class Trust:
    """The uploaded certificates as judges of devices. They are read anew each time, so a change works at once."""

    def __init__(self, store: Storage, profile: Profile) -> None:
        self.store, self.profile = store, profile

    def enabled(self) -> list[TrustAnchor]:
        """Give the certificates under which devices may connect now."""
        return [trusted for trusted in self.store.trusted_certificates() if trusted.enabled]

    def anchors(self) -> list[x509.Certificate]:
        """Give the certificates themselves."""
        return [trusted.certificate for trusted in self.enabled()]

    def admit(
        self, presented: Sequence[x509.Certificate], attempt: LoggedAttempt
    ) -> tuple[RegisteredDevice, TrustAnchor]:
        """Judge a client that got through the TLS handshake.

        Gives the device, registered if need be, and the trusted certificate that vouches for it. Raises Refusal.
        """
        trusted, path = self._lead(presented)
        attempt.tenant = trusted.tenant
        self._check_not_revoked(path, trusted.tenant)
        self._check_client_id(attempt.client_id, presented[0])
        return self.registered(device_identifier(attempt.client_id), trusted), trusted

    def judge(self, presented: Sequence[x509.Certificate], tenant: str | None = None) -> TrustAnchor:
        """Judge a chain without a connection, for one tenant or for whichever it leads to. Raises Refusal."""
        trusted, path = self._lead(presented, tenant)
        self._check_not_revoked(path, trusted.tenant)
        return trusted

    def _lead(
        self, presented: Sequence[x509.Certificate], tenant: str | None = None
    ) -> tuple[TrustAnchor, list[x509.Certificate]]:
        """Give the trusted certificate that a chain leads to, and every certificate on the way. Raises Refusal."""
        anchors = {trusted.certificate: trusted for trusted in self.enabled() if tenant in (None, trusted.tenant)}
        finding = self._finding(presented, list(anchors), self.profile)
        if finding:
            raise ConnectionRejected(finding.code, finding.sentence, NOT_AUTHORIZED)
        path, _ = path_to_anchor(presented, list(anchors), datetime.now(UTC))
        return anchors[path[-1]], [*presented, *path]

    def _check_not_revoked(self, chain: Sequence[x509.Certificate], tenant: str) -> None:
        """Refuse what the tenant's list of revoked serial numbers names.

        That it is refused after the handshake is not verified on a real tenant: only there is the tenant known. A
        connection that is there when its certificate is revoked stays (not verified either).
        """
        revoked = self.store.revoked(tenant) if self.profile.calls_of_current else {}
        for certificate in chain:
            if since := revoked.get(certificate.serial_number):
                sentence = f"The certificate {named(certificate)} was revoked on {since:%Y-%m-%d}: sign a new one."
                raise ConnectionRejected("REVOKED", sentence, NOT_AUTHORIZED)

    def after_failed_handshake(self, path: Sequence[x509.Certificate], failed: FailedCertificate) -> ConnectionRejected:
        """Say why OpenSSL refused a client; ``path`` leads from the device's certificate to the one that failed."""
        anchors = self.anchors()
        presented = list(path)
        if len(presented) == 1:
            # pyOpenSSL does not tell what else was presented. If the issuer's name is one that we trust, its
            # certificate most likely was, and did not make the signature.
            presented += [anchor for anchor in anchors if anchor.subject == presented[0].issuer != presented[0].subject]
        finding = self._finding(presented, anchors)
        if finding is None or finding.code == "INVALID":
            finding = _in_openssl_words(failed)
        elif finding.code == "BAD_SIGNATURE" and len(path) < 2:
            finding = Finding(finding.code, _not_signed_by_its_name(presented[0]))
        return ConnectionRejected(finding.code, finding.sentence)

    def _finding(
        self, presented: Sequence[x509.Certificate], anchors: list[x509.Certificate], profile: Profile | None = None
    ) -> Finding | None:
        diagnosis = diagnose(presented, anchors, profile)
        if diagnosis.code in ("UNKNOWN_CA", "BAD_SIGNATURE"):
            gone = {known.certificate: known for known in self.store.trusted_certificates() if not known.enabled}
            # One walk for them all, no longer than any profile allows: a class deletes many, and chains can be long.
            path, broken = path_to_anchor(presented[:LONGEST_CHAIN], list(gone), datetime.now(UTC))
            if not broken:
                return _no_longer_trusted(gone[path[-1]])
        return None if diagnosis.ok else diagnosis.findings[0]

    def _check_client_id(self, client_id: str, certificate: x509.Certificate) -> None:
        if not client_id:
            raise ConnectionRejected(
                "NO_CLIENT_ID", "The ClientId is empty: use the certificate's common name.", BAD_CLIENT_ID
            )
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
        raise ConnectionRejected("CLIENT_ID_MISMATCH", sentence, NOT_AUTHORIZED)

    def registered(self, identifier: str, trusted: TrustAnchor) -> RegisteredDevice:
        """Give the device, registered now if the trusted certificate allows that. Raises Refusal."""
        device = self.store.device(trusted.tenant, identifier)
        if device is None and trusted.auto_registration:
            self.store.register(trusted.tenant, identifier)
            device = self.store.device(trusted.tenant, identifier)
        if device is None:
            raise ConnectionRejected(
                "NOT_REGISTERED",
                f"The device {identifier} is not registered, and auto-registration is off for the trusted certificate "
                f"of {readable(trusted.certificate.subject)}: switch it on there.",
                NOT_AUTHORIZED,
            )
        return device


def _not_signed_by_its_name(certificate: x509.Certificate) -> str:
    """Word it for both: the trusted certificate was presented too and did not sign, or a namesake of it signed."""
    return (
        f"The certificate of {readable(certificate.subject)} was not signed by the trusted certificate of that name, "
        f"{readable(certificate.issuer)}: upload the CA that signed it, or put that one into the chain."
    )


def _in_openssl_words(failed: FailedCertificate) -> Finding:
    subject = readable(failed.certificate.subject)
    if failed.error == INVALID_PURPOSE and failed.depth == 0 and not _may_be_client(failed.certificate):
        return Finding(
            "INVALID_PURPOSE",
            f"The certificate of {subject} is no device's, its extended key usage does not allow clientAuth: sign it "
            "as a device's.",
        )
    words = OPENSSL_WORDS.get(failed.error, f"error {failed.error}")
    return Finding("INVALID", f"OpenSSL refuses the certificate of {subject} ({words}): sign it anew without that.")


def _may_be_client(certificate: x509.Certificate) -> bool:
    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return bool({ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE} & set(usages))


def _no_longer_trusted(trusted: TrustAnchor) -> Finding:
    subject = readable(trusted.certificate.subject)
    if trusted.deleted:
        return Finding("CA_DELETED", f"The trusted certificate of {subject} was deleted: upload it again.")
    return Finding("CA_DISABLED", f"The trusted certificate of {subject} is disabled: enable it.")
