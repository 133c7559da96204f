"""The rules by which a platform lets a device in: the local platform applies them, and a diagnosis predicts with them.

Each returns what a platform would refuse for, in the words of `data/refusals.csv`, or None.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from mciot_nb.errors import REFUSED, Finding, finding
from mciot_nb.pki.chain import PROFILES, Chain, judge, same_name
from mciot_nb.pki.files import data_table
from mciot_nb.pki.names import common_name, name_of, readable
from mciot_nb.pki.verdicts import NO_DATES

#: By code: the sentence for the log, and the CONNACK return code (MQTT 3.1.1, table 3.1) where one can be sent.
REFUSALS = {row["code"]: row for row in data_table("refusals.csv")}
LONGEST_CHAIN = max(profile.longest_chain for profile in PROFILES.values())


@dataclass(frozen=True)
class Uploaded:
    """A certificate that a tenant was given to trust. One that was deleted stays known, to name it in a refusal."""

    certificate: x509.Certificate
    tenant: str = ""
    status: str = "ENABLED"
    auto_registration: bool = True
    deleted: str | None = None
    proven: bool | None = False

    @property
    def enabled(self) -> bool:
        """Whether devices may connect under it."""
        return self.deleted is None and self.status == "ENABLED"


def refusal(reason: str, about: x509.Certificate | None = None, /, **values: object) -> Finding:
    """Return the finding with the sentence of the platform's log."""
    return Finding(reason, REFUSALS[reason]["sentence"].format(**values), certificate=about)


def device_identifier(client_id: str) -> str:
    """Return the device's identifier of a ClientId ``[connectionType:]deviceIdentifier[:defaultTemplate]``."""
    return client_id.removeprefix("d:").partition(":")[0]


def subject_and_serial(certificate: x509.Certificate) -> str:
    """Return what names a certificate in the log: subject, and serial number as ``openssl x509 -serial`` shows it."""
    return f"{readable(name_of(certificate))} (serial number {certificate.serial_number:X})"


def with_reason(found: Finding, presented: Chain, known: Sequence[Uploaded], at: datetime) -> Finding:
    """Return ``found``, or what a platform says instead, which knows what it trusts no more, and namesakes."""
    if found.code not in ("UNKNOWN_CA", "BAD_SIGNATURE"):
        return found
    gone, device = {one.certificate: one for one in known if not one.enabled}, presented[0]
    if gone and (path := judge(presented[:LONGEST_CHAIN], list(gone), at, NO_DATES).path):
        last, subject = path[-1], readable(name_of(path[-1]))
        return finding("CA_DELETED" if gone[last].deleted else "CA_DISABLED", REFUSED, last, subject=subject)
    anchors = (one.certificate for one in known if one.enabled)
    if found.certificate == device and any(same_name(device, one) and one != device for one in anchors):
        # for both cases: the trusted certificate was presented too and did not sign, or a namesake of it did
        subject, issuer = readable(name_of(device)), readable(name_of(device, "issuer"))
        return refusal("BAD_SIGNATURE", device, subject=subject, issuer=issuer)
    return found


def check_revoked(chain: Iterable[x509.Certificate], revoked: Mapping[int, datetime]) -> Finding | None:
    """Check a chain, its trusted certificate included, against a tenant's list of revoked serial numbers."""
    for one in chain:
        if since := revoked.get(one.serial_number):
            return refusal("REVOKED", one, certificate=subject_and_serial(one), since=since.date())
    return None


def check_client_id(client_id: str, certificate: x509.Certificate) -> Finding | None:
    """Check a ClientId against a device's certificate."""
    name, subject = common_name(name_of(certificate)), readable(name_of(certificate))
    if not client_id:
        return refusal("NO_CLIENT_ID", certificate)
    if device_identifier(client_id) == name:
        return None
    advice = "connect with that common name as ClientId."
    if not name or ":" in name:
        advice = "sign a certificate whose common name is the ClientId, without a colon."
    return refusal("CLIENT_ID_MISMATCH", certificate, given=repr(client_id), subject=subject, advice=advice)


def check_registered(device: str, trusted: Uploaded, registered: bool) -> Finding | None:
    """Check whether a device has a user, or gets one now, because its trusted certificate registers new devices."""
    if registered or trusted.auto_registration:
        return None
    return refusal("NOT_REGISTERED", trusted.certificate, device=device, ca=readable(name_of(trusted.certificate)))
