"""Which devices the local platform lets in: the verdict on each, with its reason."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from cryptography import x509

from mciot_nb.errors import Finding
from mciot_nb.pki.chain import PROFILES, Chain, Profile, examine, explain, fingerprint, judge, same_name
from mciot_nb.pki.files import data_table
from mciot_nb.pki.names import common_name, name_of, readable
from mciot_nb.pki.parts import UNREADABLE
from mciot_nb.pki.verdicts import NO_DATES, Verdict
from mciot_platform.storage import LoggedAttempt, RegisteredDevice, Storage, TrustAnchor

#: By code: the sentence for the log, and the CONNACK return code (MQTT 3.1.1, table 3.1) where one can be sent.
_REFUSALS = {row["code"]: row for row in data_table("refusals.csv")}
NOT_AUTHORIZED = 5  # the CONNACK for what the table does not name
MOST_REMEMBERED = 4096  # chains that were good
LONGEST_CHAIN = max(profile.longest_chain for profile in PROFILES.values())


class ConnectionRejected(Exception):
    """The platform does not let a client in: the log's code and sentence, and the CONNACK code if one can be sent.

    Without a ``sentence`` it is as refusals.csv has it, with ``values``.
    """

    def __init__(self, code: str, sentence: str = "", connack: int = 0, **values: object) -> None:
        if not sentence:
            row = _REFUSALS[code]
            sentence, connack = row["sentence"].format(**values), int(row["connack"] or 0)
        super().__init__(sentence)
        self.code, self.sentence, self.connack = code, sentence, connack


@contextmanager
def readable_certificates() -> Iterator[None]:
    """Raise ConnectionRejected for what cryptography raises on odd certificates: they are the client's fault."""
    try:
        yield
    except UNREADABLE as error:
        raise ConnectionRejected("INVALID") from error


def device_identifier(client_id: str) -> str:
    """Return the device's identifier of a ClientId ``[connectionType:]deviceIdentifier[:defaultTemplate]``."""
    return client_id.removeprefix("d:").partition(":")[0]


def subject_and_serial(certificate: x509.Certificate) -> str:
    """Return what names a certificate in the log: subject, and serial number as ``openssl x509 -serial`` shows it."""
    return f"{readable(name_of(certificate))} (serial number {certificate.serial_number:X})"


def note_chain(attempt: LoggedAttempt, chain: Chain) -> None:
    """Note for the log which certificates a client has presented."""
    attempt.subject, attempt.chain = readable(name_of(chain[0])), list(map(subject_and_serial, chain))


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
        self._check_client_id(attempt.client_id, presented[0])
        return self.get_or_register(device_identifier(attempt.client_id), trusted), trusted

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
        for certificate in (*presented, trusted.certificate):
            if since := revoked.get(certificate.serial_number):
                raise ConnectionRejected("REVOKED", certificate=subject_and_serial(certificate), since=since.date())
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
                finding = self._of_one_gone(presented, findings[0])
                raise ConnectionRejected(finding.code, finding.sentence, NOT_AUTHORIZED)
            trusted = anchors[path[-1]]
            self._good[key] = trusted, min(one.not_valid_after_utc for one in (*presented, *path))
        return trusted

    def explain_failed_handshake(self, path: Chain, failed: Verdict) -> ConnectionRejected:
        """Return why OpenSSL refused a client; ``path`` leads from the device's certificate to the one that failed."""
        anchors = list(self.enabled())
        presented = list(path)
        if len(presented) == 1:
            # pyOpenSSL does not tell what else was presented. If the issuer's name is one that we trust, its
            # certificate most likely was, and did not make the signature.
            presented += [one for one in anchors if same_name(presented[0], one) and one != presented[0]]
        finding = self._of_one_gone(presented, explain(failed, presented, anchors))
        if finding.code == "BAD_SIGNATURE" and len(path) < 2:
            # for both cases: the trusted certificate was presented too and did not sign, or a namesake of it did
            subject, issuer = readable(name_of(presented[0])), readable(name_of(presented[0], "issuer"))
            return ConnectionRejected("BAD_SIGNATURE", subject=subject, issuer=issuer)
        return ConnectionRejected(finding.code, finding.sentence)

    def _of_one_gone(self, presented: Chain, finding: Finding) -> Finding:
        """Return what to say instead, where the chain leads to a trusted certificate that is enabled no more."""
        if finding.code in ("UNKNOWN_CA", "BAD_SIGNATURE"):
            gone = {known.certificate: known for known in self.storage.trusted_certificates() if not known.enabled}
            path = judge(presented[:LONGEST_CHAIN], list(gone), datetime.now(UTC), NO_DATES).path
            if path:
                what = f"The trusted certificate of {readable(name_of(path[-1]))}"
                if gone[path[-1]].deleted:
                    return Finding("CA_DELETED", f"{what} was deleted: upload it again.")
                return Finding("CA_DISABLED", f"{what} is disabled: enable it.")
        return finding

    def _check_client_id(self, client_id: str, certificate: x509.Certificate) -> None:
        if not client_id:
            raise ConnectionRejected("NO_CLIENT_ID")
        name = common_name(name_of(certificate))
        if device_identifier(client_id) == name:
            return
        subject, advice = readable(name_of(certificate)), "connect with that common name as ClientId."
        if not name or ":" in name:
            advice = "sign a certificate whose common name is the ClientId, without a colon."
        raise ConnectionRejected("CLIENT_ID_MISMATCH", given=repr(client_id), subject=subject, advice=advice)

    def get_or_register(self, identifier: str, trusted: TrustAnchor) -> RegisteredDevice:
        """Return the device, registered now if that is allowed. Raises: ConnectionRejected: if it is not."""
        device = self.storage.device(trusted.tenant, identifier)
        if not (device and device.registered) and trusted.auto_registration:
            device = self.storage.register(trusted.tenant, identifier)
        if device is None or not device.registered:
            raise ConnectionRejected("NOT_REGISTERED", device=identifier, ca=readable(name_of(trusted.certificate)))
        return device
