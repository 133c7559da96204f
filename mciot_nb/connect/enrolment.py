"""A certificate from the tenant's own CA: what its administrator does, and what a device asks for (EST, RFC 7030)."""

import base64
import re
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from mciot_nb.connect import http as rest
from mciot_nb.errors import OnboardingError, fault
from mciot_nb.pki import pbe
from mciot_nb.pki.files import statuses
from mciot_nb.pki.keys import PrivateKey, is_key_of
from mciot_nb.pki.names import DistinguishedName, common_name, name_of
from mciot_nb.pki.uploads import parse_upload
from mciot_nb.secret import Secret

if TYPE_CHECKING:
    from mciot_nb.connect.tenant import Tenant

_OWN_CA, _ENROLMENT = statuses("own CA"), statuses("enrolment")
#: What a device is answered before it is registered or its certificate ready, or where the server has too much to do.
_LATER = (202, 401, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class OwnCa:
    """The tenant's own CA, whose key the platform keeps; its methods raise OnboardingError as `Tenant.request` does."""

    tenant: "Tenant" = field(repr=False)

    def turn_on(self) -> None:
        """Turn on the feature that lets the tenant have a CA of its own."""
        path = "/features/certificate-authority/by-tenant"
        self.tenant.request("PUT", path, bool, meaning=_OWN_CA, json={"active": True})

    def certificate(self) -> x509.Certificate | None:
        """Return the CA's certificate; None where the tenant has no CA."""
        path = f"{self.tenant.path}/trusted-certificates"
        found = self.tenant.pages(path, "certificates", dict, certificateAuthority="true")
        return next((_read(one) for one in found if one.get("tenantCertificateAuthority") is True), None)

    def create(self) -> x509.Certificate:
        """Let the platform make the CA, or find the one that is there; returns its certificate."""
        return self.certificate() or self.tenant.request("POST", "/certificate-authority", _read, meaning=_OWN_CA)

    def register(self, device_id: str) -> Secret:
        """Register a device; returns the one-time password for its first certificate."""
        _name(device_id)
        path, password = "/devicecontrol/bulkNewDeviceRequests", secrets.token_hex(16)  # the longest that it takes
        table = f"ID;AUTH_TYPE;ENROLLMENT_OTP;NAME\n{device_id};CERTIFICATES;{password};{device_id}\n"
        read = lambda body: [str(one["failureReason"]) for one in body["failedCreationList"]]  # noqa: E731
        if failed := self.tenant.request("POST", path, read, meaning=_OWN_CA, files={"file": ("new.csv", table)}):
            raise fault("NOT_REGISTERED.device", device=device_id, reason=failed[0])
        return Secret(password)


def _read(body: dict[str, Any]) -> x509.Certificate:
    return parse_upload(body["certInPemFormat"], "It")[0]


def _name(device_id: str) -> x509.Name:
    if not device_id or set(device_id) & set(':;,"\r\n'):
        raise fault("BAD_NAME.device", device=device_id)
    return DistinguishedName(common_name=device_id).to_x509()


def enrol(
    url: str, device_id: str, key: PrivateKey, secret: Secret, again: bool = False, verify: Any = True, wait: float = 60
) -> x509.Certificate:
    """Return a certificate for a device: its first, for its one-time password, or ``again`` one, for a `Device.token`.

    Until it is registered it asks anew, for ``wait`` seconds. Raises: OnboardingError: ``HTTP_<status>``, KEY_MISMATCH,
    NOT_A_TENANT, and as `http.send` does. Example: ``enrol(tenant.url, "device-2", key, password)``.
    """
    builder, said = x509.CertificateSigningRequestBuilder(_name(device_id)), secret.reveal()
    if again and not re.fullmatch(r"[!-~]+", said):  # as of a `Tenant`
        raise fault("BAD_TOKEN")
    basic = base64.b64encode(f"{device_id}:{said}".encode("utf-8", "replace")).decode()
    headers = {"Authorization": f"Bearer {said}" if again else f"Basic {basic}"}
    csr = base64.b64encode(builder.sign(key, SHA256()).public_bytes(Encoding.DER))
    url, deadline = f"{url}/.well-known/est/simple{'re' * again}enroll", time.monotonic() + wait * (not again)
    options = {"data": csr, "headers": headers | {"Content-Type": "application/pkcs10"}}
    while True:
        status, body = rest.send("POST", url, lambda request: request, verify, "application/pkcs7-mime", **options)
        if status not in _LATER or time.monotonic() >= deadline:
            break
        time.sleep(min(5.0, wait / 10))
    if status not in (200, 201):
        default = "this is not what a platform answers here: check the URL"
        later = "try again later" if status in _LATER or status > 499 else default
        says = _ENROLMENT.get(status, later).format(device=device_id)
        raise OnboardingError(f"{url} answered {status}: {says}.", f"HTTP_{status}")
    try:
        found = certificates_of(body)
    except (ValueError, LookupError):
        raise fault("NOT_A_TENANT.certificate", url=url) from None
    for certificate in found:
        if is_key_of(certificate, key) and common_name(name_of(certificate)) == device_id:
            return certificate
    raise fault("KEY_MISMATCH.enrolment", url=url, device=device_id)


def certificates_of(data: bytes) -> list[x509.Certificate]:
    """Return the certificates of a PKCS#7 in DER or BER, which may be in base64. Raises: ValueError, LookupError."""
    data = data if data[:1] == b"\x30" else base64.b64decode(b"".join(data.split()), validate=True)
    _, signed = pbe.contents(pbe.contents(data)[0], b"\x06\xa0")
    left, found = dict(pbe.split(pbe.contents(signed)[0]))[0xA0], list[x509.Certificate]()
    while left:  # cryptography's own reader warns of BER, and may refuse it one day
        *_, end = pbe.value(left, 0)
        found, left = [*found, x509.load_der_x509_certificate(left[:end])], left[end:]
    return found
