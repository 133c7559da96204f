"""The rules by which a platform lets a device in: the local platform applies them, and a diagnosis predicts with them.

They are functions over plain data, and each returns what a platform would refuse for, None or nothing where it would
not. `data/refusals.csv` has their sentences.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from cryptography import x509

from mciot_nb.errors import REFUSED, Finding, finding
from mciot_nb.pki.chain import PROFILES, Chain, Profile, examine, judge, same_name
from mciot_nb.pki.files import data_table
from mciot_nb.pki.names import common_name, name_of, readable
from mciot_nb.pki.verdicts import NO_DATES

#: By code: the sentence for the log, and the CONNACK return code (MQTT 3.1.1, table 3.1) where one can be sent.
REFUSALS = {row["code"]: row for row in data_table("refusals.csv")}
LONGEST_CHAIN = max(profile.longest_chain for profile in PROFILES.values())


def _refused(reason: str, about: x509.Certificate, /, **values: object) -> Finding:
    return Finding(reason, REFUSALS[reason]["sentence"].format(**values), certificate=about)


def device_identifier(client_id: str) -> str:
    """Return the device's identifier of a ClientId ``[connectionType:]deviceIdentifier[:defaultTemplate]``."""
    return client_id.removeprefix("d:").partition(":")[0]


def subject_and_serial(certificate: x509.Certificate) -> str:
    """Return what names a certificate in the log: subject, and serial number as ``openssl x509 -serial`` shows it."""
    return f"{readable(name_of(certificate))} (serial number {certificate.serial_number:X})"


def judge_chain(
    presented: Chain,
    anchors: Sequence[x509.Certificate],
    gone: Mapping[x509.Certificate, bool],
    profile: Profile,
    at: datetime,
) -> tuple[Chain, list[Finding]]:
    """Return the path to one of the ``anchors``, which are enabled, and all that a platform has against the chain.

    ``gone`` are those that are enabled no more, with whether they were deleted.
    """
    path, findings = examine(presented, anchors, profile, at=at)
    return path, [with_reason(one, presented, anchors, gone, at) for one in findings]


def with_reason(
    found: Finding,
    presented: Chain,
    anchors: Sequence[x509.Certificate],
    gone: Mapping[x509.Certificate, bool],
    at: datetime,
) -> Finding:
    """Return a finding, or what a platform says instead, which knows what it no longer trusts, and namesakes."""
    if found.code not in ("UNKNOWN_CA", "BAD_SIGNATURE"):
        return found
    if gone and (path := judge(presented[:LONGEST_CHAIN], list(gone), at, NO_DATES).path):
        key = "CA_DELETED" if gone[path[-1]] else "CA_DISABLED"
        return finding(key, REFUSED, path[-1], subject=readable(name_of(path[-1])))
    device = presented[0]
    if found.certificate == device and any(same_name(device, one) and one != device for one in anchors):
        # for both cases: the trusted certificate was presented too and did not sign, or a namesake of it did
        subject, issuer = readable(name_of(device)), readable(name_of(device, "issuer"))
        return _refused("BAD_SIGNATURE", device, subject=subject, issuer=issuer)
    return found


def revocation(chain: Iterable[x509.Certificate], revoked: Mapping[int, datetime]) -> Finding | None:
    """Return what a tenant's list of revoked serial numbers has against a chain and its trusted certificate."""
    for certificate in chain:
        if since := revoked.get(certificate.serial_number):
            name = subject_and_serial(certificate)
            return _refused("REVOKED", certificate, certificate=name, since=since.date())
    return None


def client_id(given: str, certificate: x509.Certificate) -> Finding | None:
    """Return what is wrong with a ClientId for a device's certificate."""
    if not given:
        return _refused("NO_CLIENT_ID", certificate)
    name, subject = common_name(name_of(certificate)), readable(name_of(certificate))
    if device_identifier(given) == name:
        return None
    advice = "connect with that common name as ClientId."
    if not name or ":" in name:
        advice = "sign a certificate whose common name is the ClientId, without a colon."
    return _refused("CLIENT_ID_MISMATCH", certificate, given=repr(given), subject=subject, advice=advice)


def registration(identifier: str, anchor: x509.Certificate, *, registered: bool, automatic: bool) -> Finding | None:
    """Return what is missing where a device is new and the trusted certificate's auto-registration is off."""
    if registered or automatic:
        return None
    return _refused("NOT_REGISTERED", anchor, device=identifier, ca=readable(name_of(anchor)))
