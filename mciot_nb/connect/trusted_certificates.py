"""A tenant's trusted certificates over REST: uploaded, proven, and what is signed under them verified and revoked."""

import base64
import builtins
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.hashes import SHA256

from mciot_nb.errors import OnboardingError, fault
from mciot_nb.pki.chain import Given, each_of, fingerprint, to_pem
from mciot_nb.pki.files import meanings, statuses
from mciot_nb.pki.keys import PrivateKey, is_key_of
from mciot_nb.pki.names import common_name, name_of
from mciot_nb.pki.uploads import parse_upload

if TYPE_CHECKING:
    import pandas as pd

    from mciot_nb.connect.tenant import Tenant

#: How many serial numbers the platform takes at once.
LONGEST_REVOCATION = 5000
_CRL, _VERIFY = "/tenant/trusted-certificates/settings/crl", "/tenant/trusted-certificates/verify-cert-chain"
#: The tenant's option that makes the list count; where it is not set, the list is kept and not heeded.
_CHECK = "/tenant/options/configuration/crl.offline.check.enabled"
_CODE, _SIGNED_CODE = "proofOfPossessionUnsignedVerificationCode", "proofOfPossessionSignedVerificationCode"
#: What a status means for a call, where that is not what `Tenant.request` says.
_CHANGE, _PROOF = statuses("change of trust"), statuses("proof of possession")
_REVOCATION, _VERIFYING = statuses("revocation"), statuses("verification")
_EFFECTS = meanings("revoked numbers")


@dataclass(frozen=True)
class TrustedCertificate:
    """A CA (or intermediate) certificate that the tenant trusts, as the platform describes it.

    ``proven`` says whether its uploader has proven possession of the key; None where the platform does not say.
    ``certificate`` is the certificate itself, None where it can't be read. Of an ``own_ca`` the platform has the key.
    """

    fingerprint: str
    name: str
    status: str
    auto_registration: bool
    subject: str
    issuer: str
    not_after: datetime
    proven: bool | None = None
    certificate: x509.Certificate | None = field(default=None, repr=False, compare=False)
    own_ca: bool = False

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> Self:
        """Read the platform's description."""
        certificate = None
        with suppress(OnboardingError):
            certificate = parse_upload(str(body.get("certInPemFormat") or ""), "It")[0]
        proven, not_after = body.get("proofOfPossessionValid"), datetime.fromisoformat(body["notAfter"])
        sha1, status = _text(body["fingerprint"]), _text(body["status"])
        name, subject, issuer = (_text(body.get(key) or "") for key in ("name", "subject", "issuer"))
        automatic = body.get("autoRegistrationEnabled") in (True, "true")
        proven = None if proven is None else bool(proven)
        not_after = not_after if not_after.tzinfo else not_after.replace(tzinfo=UTC)
        own_ca = body.get("tenantCertificateAuthority") is True
        return cls(sha1, name, status, automatic, subject, issuer, not_after, proven, certificate, own_ca)


@dataclass(frozen=True)
class VerifiedChain:
    """A device's chain that the platform found good: names as the platform writes them."""

    subject: str
    issuer: str
    tenant_id: str


#: A trusted certificate: as it is, as the platform described it, or its fingerprint (SHA-1, 40 hex digits).
Which = x509.Certificate | TrustedCertificate | str
Serial = x509.Certificate | int | str


@dataclass(frozen=True)
class TrustedCertificates:
    """The tenant's trust anchors: the CA certificates whose devices it lets in.

    Each method raises OnboardingError as `Tenant.request` does; BAD_FINGERPRINT for a text that is none.
    """

    tenant: "Tenant" = field(repr=False)

    @property
    def _path(self) -> str:
        return f"{self.tenant.path}/trusted-certificates"

    def _path_of(self, which: Which) -> str:
        return f"{self._path}/{_fingerprint(which)}"

    def _request(self, method: str, path: str, **options: Any) -> TrustedCertificate:
        return self.tenant.request(method, path, TrustedCertificate.from_json, **options)

    def list(self) -> "list[TrustedCertificate]":
        """Return all trusted certificates, page by page behind the scenes."""
        return self.tenant.pages(self._path, "certificates", TrustedCertificate.from_json)

    def to_frame(self) -> "pd.DataFrame":
        """Return the list as a table."""
        import pandas as pd  # here, because it takes half a second and most calls need no table

        columns = ["name", "status", "auto_registration", "subject", "not_after", "fingerprint", "proven"]
        return pd.DataFrame([vars(certificate) for certificate in self.list()], columns=columns)

    def find(self, certificate: Which) -> TrustedCertificate | None:
        """Look for a certificate by its fingerprint; None where the tenant does not have it."""
        return self.tenant.find(self._path_of(certificate), TrustedCertificate.from_json)

    def upload(
        self, certificate: x509.Certificate, name: str = "", *, auto_registration: bool = True
    ) -> TrustedCertificate:
        """Upload a CA (or intermediate) certificate, so that devices signed under it may connect (guide: "Via REST").

        ``auto_registration`` lets a new device in at its first connection. Raises: OnboardingError: HTTP_409 where the
        certificate is there already, HTTP_422 where it is no CA's.
        """
        return self._request("POST", self._path, json=_upload_body(certificate, name, auto_registration))

    def upload_all(self, certificates: Given, *, auto_registration: bool = True) -> "builtins.list[TrustedCertificate]":
        """Upload several certificates in one call, under their common names; raises OnboardingError as `upload` does.

        Whether the platform keeps some of them where it refuses one is not documented: list them then.
        """
        bodies = [_upload_body(certificate, "", auto_registration) for certificate in each_of(certificates)]
        path, sent, read = f"{self._path}/bulk", {"certificates": bodies}, TrustedCertificate.from_json
        if not bodies:
            return []
        return self.tenant.request("POST", path, lambda body: [*map(read, body["certificates"])], json=sent)

    def ensure(self, certificate: x509.Certificate, *, auto_registration: bool = True) -> TrustedCertificate:
        """Upload a certificate, or find it where the tenant has it already; raises OnboardingError as `upload` does."""
        try:
            return self.upload(certificate, auto_registration=auto_registration)
        except OnboardingError as error:
            found = self.find(certificate) if error.code == "HTTP_409" else None
            if found is None:
                raise
            return found

    def update(
        self, which: Which, *, name: str | None = None, auto_registration: bool | None = None, status: str | None = None
    ) -> TrustedCertificate:
        """Change what is given, and leave the rest; ``status`` is ENABLED, or DISABLED, which ends all sessions."""
        given = {"name": name, "autoRegistrationEnabled": auto_registration, "status": status}
        body = {key: value for key, value in given.items() if value is not None}
        return self._request("PUT", self._path_of(which), meaning=_CHANGE, json=body)

    def delete(self, which: Which) -> None:
        """Take a certificate away again; the platform ends the sessions of the devices under it."""
        self.tenant.request("DELETE", self._path_of(which), lambda _: None)

    def prove_possession(self, certificate: x509.Certificate, key: PrivateKey) -> TrustedCertificate:
        """Prove to the platform that you own an uploaded certificate: sign the code that it gives, with ``key``.

        As ``openssl dgst -sha256 -sign caKey.pem`` does, without the newline that spoils it. Raises OnboardingError:
        KEY_MISMATCH before anything is sent where the key is not the certificate's; HTTP_404 where the certificate is
        not uploaded or the platform has no such proof; BAD_CODE.
        """
        if not is_key_of(certificate, key):
            raise fault("KEY_MISMATCH.proof")
        path = f"{self.tenant.path}/trusted-certificates-pop/{fingerprint(certificate)}"
        code = self.tenant.request("POST", f"{path}/verification-code", lambda body: _text(body[_CODE]), meaning=_PROOF)
        if not re.fullmatch(r"[ -~]{1,4096}", code):
            # A CA's signature makes certificates: what could be one in DER form, always with control bytes, is refused.
            raise fault("BAD_CODE", url=self.tenant.url)
        if isinstance(key, ec.EllipticCurvePrivateKey):
            signature = key.sign(code.encode(), ec.ECDSA(SHA256()))
        else:
            signature = key.sign(code.encode(), padding.PKCS1v15(), SHA256())
        signed = {_SIGNED_CODE: base64.b64encode(signature).decode()}
        return self._request("POST", f"{path}/pop", meaning=_PROOF, json=signed)

    def verify_chain(self, chain: Given) -> VerifiedChain:
        """Ask the platform whether it would take a device's chain, the device's certificate first.

        Raises: OnboardingError: HTTP_401 where the platform refuses the chain (or the login: the sentence says which).
        """

        def read(body: dict[str, Any]) -> VerifiedChain:
            if body["successfullyValidated"] is not True:
                raise ValueError("The vendor describes a refusal as 401.")
            return VerifiedChain(*(_text(body.get(name) or "") for name in ("subject", "issuer", "tenantId")))

        file, data = ("chain.pem", to_pem(chain), "application/x-pem-file"), {"tenantId": self.tenant.tenant_id}
        try:
            return self.tenant.request("POST", _VERIFY, read, meaning=_VERIFYING, files={"file": file}, data=data)
        except OnboardingError as error:
            if error.code != "HTTP_401":
                raise
            self.tenant.request("GET", "/tenant/currentTenant", lambda body: body["name"])  # is it the login?
            raise fault("HTTP_401", url=self.tenant.url) from None

    def revoke(self, which: Iterable[Serial] | Serial, at: datetime | None = None) -> str:
        """Tell the platform what is revoked, one or several, by serial number (as text: in hex); it can't be undone.

        Returns whether anything will come of it: a platform heeds its list only after `check_revocations`. ``at`` bears
        a time zone, None for now. More than 5000 go in several calls: if one fails, do all once more, for what is known
        stays as it is. Raises: OnboardingError: BAD_SERIAL, HTTP_404 where the platform has no such list.
        """
        date = {}
        if at is not None:
            if at.tzinfo is None:
                raise OnboardingError("The revocation's time has no time zone: give it one.", "BAD_VALUE")
            date = {"revocationDate": f"{at.astimezone(UTC).isoformat(timespec='milliseconds')[:-6]}Z"}
        several = [which] if isinstance(which, x509.Certificate | int | str) else which  # a text is one number
        entries = [{"serialNumberInHex": _serial(one), **date} for one in several]
        for start in range(0, len(entries), LONGEST_REVOCATION):
            body = {"crls": entries[start : start + LONGEST_REVOCATION]}
            self.tenant.request("PUT", _CRL, lambda _: None, meaning=_REVOCATION, json=body)
        try:
            return _EFFECTS["checked" if self.checks_revocations() else "not checked"]
        except OnboardingError:
            return _EFFECTS["not known"]

    def checks_revocations(self) -> bool:
        """Return whether the platform heeds its list of revoked certificates (the offline check)."""
        return self.tenant.find(_CHECK, lambda body: _text(body["value"])) == "true"

    def check_revocations(self, on: bool = True) -> None:
        """Make the platform heed its list of revoked certificates, or no longer: for all devices of the tenant."""
        self.tenant.request("PUT", _CHECK, lambda _: None, json={"value": str(on).lower()})

    def revoked(self) -> "builtins.list[int]":
        """Return the serial numbers of all certificates that the platform knows to be revoked."""
        return [*self.revocations()]

    def revocations(self) -> dict[int, datetime]:
        """Return since when each is revoked, by the serial numbers of `revoked`."""

        def read(der: bytes) -> dict[int, datetime]:
            with suppress(x509.InvalidVersion):
                return {one.serial_number: one.revocation_date_utc for one in x509.load_der_x509_crl(der)}
            raise ValueError("No list has such a version.")

        return self.tenant.request("GET", _CRL, read, accept="*/*", meaning=_REVOCATION)


def _fingerprint(which: Which) -> str:
    """Return a fingerprint as the platform writes it, also of a text with colons or capitals."""
    if isinstance(which, x509.Certificate):
        return fingerprint(which)
    text = which.fingerprint if isinstance(which, TrustedCertificate) else which
    digits = re.sub(r"[:\s]", "", text).lower()
    if not re.fullmatch(r"[0-9a-f]{40}", digits):
        raise fault("BAD_FINGERPRINT.sha1")
    return digits


def _upload_body(certificate: x509.Certificate, name: str, auto_registration: bool) -> dict[str, Any]:
    name, pem = name or common_name(name_of(certificate)) or "CA", to_pem([certificate]).decode()
    return {"status": "ENABLED", "name": name, "autoRegistrationEnabled": auto_registration, "certInPemFormat": pem}


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _serial(one: Serial) -> str:
    if isinstance(one, str):
        digits = one.replace(":", "").strip()
        number = int(digits, 16) if re.fullmatch(r"[0-9A-Fa-f]{1,40}", digits) else 0
    else:
        number = one.serial_number if isinstance(one, x509.Certificate) else one
    if number <= 0:
        raise OnboardingError(f"{one!r} is not a serial number: give it in hexadecimal digits, as text.", "BAD_SERIAL")
    return f"{number:X}"
