"""Which devices the local platform lets in: the verdict on each, with its reason."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from cryptography import x509

from mciot_nb.errors import Finding
from mciot_nb.pki import admission
from mciot_nb.pki.chain import Chain, Profile, examine, explain, fingerprint
from mciot_nb.pki.names import name_of, readable
from mciot_nb.pki.parts import UNREADABLE
from mciot_nb.pki.verdicts import Verdict
from mciot_platform.storage import LoggedAttempt, RegisteredDevice, Storage, TrustAnchor

NOT_AUTHORIZED = 5  # the CONNACK for what refusals.csv does not name
MOST_REMEMBERED = 4096  # chains that were good


class ConnectionRejected(Exception):
    """The platform does not let a client in: the log's code and sentence, and the CONNACK code if one can be sent.

    Without a ``sentence`` it is as refusals.csv has it, with ``values``.
    """

    def __init__(self, code: str, sentence: str = "", connack: int = 0, **values: object) -> None:
        if not sentence:
            row = admission.REFUSALS[code]
            sentence, connack = row["sentence"].format(**values), int(row["connack"] or 0)
        super().__init__(sentence)
        self.code, self.sentence, self.connack = code, sentence, connack


def reject(finding: Finding | None) -> None:
    """Raise ConnectionRejected for what was found, after the handshake."""
    if finding:
        connack = admission.REFUSALS.get(finding.code, {}).get("connack")
        raise ConnectionRejected(finding.code, finding.sentence, int(connack or NOT_AUTHORIZED))


@contextmanager
def readable_certificates() -> Iterator[None]:
    """Raise ConnectionRejected for what cryptography raises on odd certificates: they are the client's fault."""
    try:
        yield
    except UNREADABLE as error:
        raise ConnectionRejected("INVALID") from error


def note_chain(attempt: LoggedAttempt, chain: Chain) -> None:
    """Note for the log which certificates a client has presented."""
    attempt.subject, attempt.chain = readable(name_of(chain[0])), list(map(admission.subject_and_serial, chain))


class Trust:
    """Checks devices against the uploaded certificates, which are read anew each time, so a change works at once."""

    def __init__(self, storage: Storage, profile: Profile) -> None:
        self.storage, self.profile = storage, profile
        self._known: Sequence[TrustAnchor] = ()
        self._good: dict[tuple[str | None, ...], tuple[TrustAnchor, datetime]] = {}  # until when, by fingerprints

    def enabled(self, tenant: str | None = None) -> dict[x509.Certificate, TrustAnchor]:
        """Return what devices may connect under now, in one tenant or in any."""
        return {known.certificate: known for known in self.storage.trusted_certificates(tenant) if known.enabled}

    def authorize(self, presented: Chain, attempt: LoggedAttempt) -> tuple[RegisteredDevice, TrustAnchor]:
        """Return the device, registered if need be, and the trusted certificate that its chain leads to.

        Raises: ConnectionRejected: if it is not let in.
        """
        trusted = self.verify_chain(presented, attempt=attempt)
        reject(admission.check_client_id(attempt.client_id, presented[0]))
        return self.get_or_register(admission.device_identifier(attempt.client_id), trusted), trusted

    def verify_chain(
        self, presented: Chain, tenant: str | None = None, attempt: LoggedAttempt | None = None
    ) -> TrustAnchor:
        """Return the trusted certificate that a chain leads to, in one tenant or in any.

        That a revoked certificate is refused after the handshake is not verified on a real tenant: only then is the
        tenant known. A connection that is there when its certificate is revoked stays (not verified either).
        Raises: ConnectionRejected: if a device with this chain is not let in.
        """
        trusted = self._anchor_of(presented, tenant)
        if attempt:
            attempt.tenant = trusted.tenant
        revoked = self.storage.revoked(trusted.tenant) if self.profile.has_proof_and_revocation else {}
        reject(admission.check_revoked((*presented, trusted.certificate), revoked))
        return trusted

    def _anchor_of(self, presented: Chain, tenant: str | None) -> TrustAnchor:
        """Return what a chain leads to; what was good is so again, until a date or what is trusted changes."""
        now, known = datetime.now(UTC), self.storage.trusted_certificates()
        if known is not self._known or len(self._good) > MOST_REMEMBERED:
            self._known, self._good = known, {}
        key = (tenant, *(fingerprint(one, "sha256") for one in presented))
        trusted, until = self._good.get(key, (None, now))
        if trusted is None or until <= now:
            anchors = self.enabled(tenant)
            path, findings = examine(presented, list(anchors), self.profile, at=now)
            if findings:
                reject(admission.with_reason(findings[0], presented, known, now))
            trusted = anchors[path[-1]]
            self._good[key] = trusted, min(one.not_valid_after_utc for one in (*presented, *path))
        return trusted

    def explain_failed_handshake(self, path: Chain, failed: Verdict) -> ConnectionRejected:
        """Return why OpenSSL refused a client; ``path`` leads from the device's certificate to the one that failed."""
        known = self.storage.trusted_certificates()
        finding = explain(failed, path, list(self.enabled()))
        finding = admission.with_reason(finding, path, known, datetime.now(UTC))
        return ConnectionRejected(finding.code, finding.sentence)

    def get_or_register(self, identifier: str, trusted: TrustAnchor) -> RegisteredDevice:
        """Return the device, registered now if that is allowed. Raises: ConnectionRejected: if it is not."""
        device = self.storage.device(trusted.tenant, identifier)
        if not (device and device.registered) and trusted.auto_registration:
            device = self.storage.register(trusted.tenant, identifier)
        reject(admission.check_registered(identifier, trusted, bool(device and device.registered)))
        assert device is not None
        return device
