"""A trusted certificate in words, as the panel's table, an opened row and the static picture show it."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mciot_nb.connect.tenant import TrustedCertificate
from mciot_nb.ui.markup import Line, copyable, visible

if TYPE_CHECKING:
    import pandas as pd

_STATUS = {"ENABLED": "✓ enabled", "DISABLED": "✗ disabled"}
_PROVEN = {True: "✓ proven", False: "not proven", None: "-"}
_WHAT_PROOF_MEANS = {
    True: "whoever uploaded it has shown to own its key",
    False: "anybody could have uploaded it, for a certificate is public",
    None: "this platform does not speak of it",
}


def name_of(one: TrustedCertificate) -> str:
    """Give its name, without what can't be seen."""
    return visible(one.name) or "(no name)"


def status_of(one: TrustedCertificate) -> str:
    """Give its status with a sign, and a status that is not documented as it came."""
    return _STATUS.get(one.status, f"⚠ {one.status}")


def counted(number: int) -> str:
    """Say how many certificates there are."""
    return "1 certificate" if number == 1 else f"{number} certificates"


def to_frames(certificates: list[TrustedCertificate]) -> "tuple[pd.DataFrame, pd.DataFrame]":
    """Give the list as it is read, and as it is sorted, under the fingerprints."""
    import pandas as pd  # here, because it takes half a second

    columns = {
        "Name": [name_of(one) for one in certificates],
        "Status": [status_of(one) for one in certificates],
        "Auto-registration": [_on(one) for one in certificates],
        "Possession": [_PROVEN[one.proven] for one in certificates],
        "Expires": [_expires(one) for one in certificates],
        "Fingerprint": [one.fingerprint for one in certificates],
    }
    texts = pd.DataFrame(columns, index=columns["Fingerprint"], dtype=str)
    times = [one.not_after.timestamp() for one in certificates]
    return texts, texts.assign(Name=texts["Name"].str.casefold(), Expires=times)


def details(one: TrustedCertificate) -> Iterator[Line]:
    """Give what the platform knows of it, and what each means for the devices."""
    devices = "its devices may connect" if one.status == "ENABLED" else "none of its devices may connect"
    yield "Status", status_of(one), devices
    unknown = (
        "a device that the platform has never seen is let in"
        if one.auto_registration
        else "only known devices are let in"
    )
    yield "Auto-registration", _on(one), unknown
    yield "Proof of possession", _PROVEN[one.proven], _WHAT_PROOF_MEANS[one.proven]
    yield "Subject", one.subject, "as the platform writes it"
    yield "Issuer", one.issuer, "itself: a self-signed certificate" if one.issuer == one.subject else ""
    yield "Expires", _expires(one), ""
    yield "Fingerprint", copyable(one.fingerprint), "SHA-1, under which the platform keeps it"


def picture_rows(certificates: list[TrustedCertificate]) -> Iterator[tuple[str, str, str, str]]:
    """Give the list's name, status, auto-registration and fingerprint."""
    return ((name_of(one), status_of(one), _on(one), one.fingerprint) for one in certificates)


def _on(one: TrustedCertificate) -> str:
    return "on" if one.auto_registration else "off"


def _expires(one: TrustedCertificate) -> str:
    state = "✗ expired " if one.not_after < datetime.now(UTC) else ""
    return f"{state}{one.not_after:%Y-%m-%d %H:%M} UTC"
