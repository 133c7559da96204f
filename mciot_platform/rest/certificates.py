"""The REST calls for a tenant's trusted certificates, and for the proof that their keys are the tenant's."""

import base64
import binascii
import secrets
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from mciot_nb.errors import OnboardingError
from mciot_nb.pki.chain import fingerprint
from mciot_nb.pki.uploads import single_ca_certificate
from mciot_platform.rest.handler import Handler, Problem, is_text
from mciot_platform.storage import TrustAnchor, timestamp


def describe(trusted: TrustAnchor, *, with_proof: bool) -> dict[str, Any]:
    """Give a trusted certificate's fields under the vendor's names; a platform of the guide's time knew no proof."""
    certificate = trusted.certificate
    body = certificate.public_bytes(Encoding.PEM).decode().splitlines()[1:-1]
    proof: dict[str, Any] = {"proofOfPossessionValid": trusted.proven}
    if trusted.code:
        proof["proofOfPossessionUnsignedVerificationCode"] = trusted.code
        proof["proofOfPossessionVerificationCodeUsableUntil"] = trusted.code_until.replace("+00:00", "Z")
    return {
        **(proof if with_proof else {}),
        "algorithmName": _algorithm(certificate),
        "autoRegistrationEnabled": trusted.auto_registration,
        "certInPemFormat": "\n".join(body),
        "fingerprint": trusted.fingerprint,
        "issuer": reversed_name(certificate.issuer),
        "name": trusted.name,
        "notAfter": f"{certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%S}.000Z",
        "notBefore": f"{certificate.not_valid_before_utc:%Y-%m-%dT%H:%M:%S}.000Z",
        "serialNumber": str(certificate.serial_number),
        "status": trusted.status,
        "subject": reversed_name(certificate.subject),
        "version": certificate.version.value + 1,
    }


def reversed_name(name: x509.Name) -> str:
    """Write a name as Java does: last field first."""
    known = {NameOID.EMAIL_ADDRESS: "EMAILADDRESS"}
    return ", ".join(rdn.rfc4514_string(known) for rdn in reversed(name.rdns))


def _algorithm(certificate: x509.Certificate) -> str:
    """Name the signature's algorithm as Java does."""
    digest = certificate.signature_hash_algorithm
    if digest is None:
        return "EdDSA"
    kind = "ECDSA" if isinstance(certificate.signature_algorithm_parameters, ec.ECDSA) else "RSA"
    return f"{digest.name.upper()}with{kind}"


LONGEST_NAME = 256
CODE_VALIDITY = timedelta(days=7)  # not verified


class CertificateCall(Handler):
    """What the calls share."""

    for_admins = True

    def presented(self, trusted: TrustAnchor) -> dict[str, Any]:
        """Give a trusted certificate as it is sent, with the address of it."""
        path = f"/tenant/tenants/{trusted.tenant}/trusted-certificates/{trusted.fingerprint}"
        shown = describe(trusted, with_proof=self.platform.trust.profile.calls_of_current)
        return {**shown, "self": self.address(path)}

    def trusted(self) -> list[TrustAnchor]:
        """Give the tenant's certificates, without those that were deleted."""
        return [known for known in self.platform.store.trusted_certificates(self.login.tenant) if not known.deleted]

    def find(self, identifier: str) -> TrustAnchor:
        """Give the certificate of this fingerprint. Raises Problem."""
        trusted = self.platform.store.trusted_certificate(identifier)
        if trusted is None or trusted.deleted or trusted.tenant != self.login.tenant:
            raise Problem(404, "certificate/Not Found", f"Cannot find certificate with fingerprint {identifier}.")
        return trusted

    def uploaded(self, body: Any) -> TrustAnchor:
        """Read what is to be added. Raises Problem: 422 where it can't be, 409 where any tenant has it already."""
        if not isinstance(body, dict) or not isinstance(body.get("certInPemFormat"), str) or "status" not in body:
            raise invalid("certInPemFormat, a text, and status are required.")
        try:
            certificate = single_ca_certificate(body["certInPemFormat"])
        except OnboardingError as error:
            raise invalid(str(error)) from None
        identifier = fingerprint(certificate)
        known = self.platform.store.trusted_certificate(identifier)
        if known and not known.deleted:
            raise Problem(409, "certificate/Conflict", f"The certificate {identifier} is trusted already.")
        trusted = changed(TrustAnchor(identifier, self.login.tenant, certificate, "", "ENABLED", False), body)
        self.presented(trusted)  # what can't be described must not be in the list
        return trusted


class Collection(CertificateCall):
    """All trusted certificates of a tenant."""

    def get(self, tenant: str) -> None:
        """List a page of them."""
        known = self.trusted()
        self.respond_page(
            "certificates", lambda first, size: (map(self.presented, known[first : first + size]), len(known))
        )

    def post(self, tenant: str) -> None:
        """Add one."""
        trusted = self.uploaded(self.body())
        self.platform.add_trusted(trusted)
        self.respond(self.presented(trusted), 201)


class Bulk(CertificateCall):
    """Several trusted certificates at once."""

    def post(self, tenant: str) -> None:
        """Add all of them, or none. (That none is added where one can't be is not verified.)"""
        given = self.body().get("certificates")
        if not isinstance(given, list):
            raise invalid("certificates, a list, is required.")
        added = {trusted.fingerprint: trusted for trusted in map(self.uploaded, given)}
        if len(added) < len(given):
            raise Problem(409, "certificate/Conflict", "The same certificate stands in the list twice.")
        self.platform.add_trusted(*added.values())
        self.respond({"certificates": [self.presented(trusted) for trusted in added.values()]}, 201)


class One(CertificateCall):
    """One trusted certificate."""

    def get(self, tenant: str, identifier: str) -> None:
        """Give it."""
        self.respond(self.presented(self.find(identifier)))

    def put(self, tenant: str, identifier: str) -> None:
        """Change its name, its status or its auto-registration."""
        trusted = changed(self.find(identifier), self.body())
        self.platform.store.put_trusted_certificate(trusted)
        if not trusted.enabled:
            self.platform.endpoint.end_sessions(identifier, "The trusted certificate was disabled.")
        self.respond(self.presented(trusted))

    def delete(self, tenant: str, identifier: str) -> None:
        """Delete it: the live sessions under it end."""
        self.platform.store.put_trusted_certificate(replace(self.find(identifier), deleted=timestamp()))
        self.platform.endpoint.end_sessions(identifier, "The trusted certificate was deleted.")
        self.set_status(204)


class VerificationCode(CertificateCall):
    """The code that the owner of a certificate's key signs."""

    def post(self, tenant: str, identifier: str) -> None:
        """Make a new one; the one before serves no longer."""
        until = timestamp(datetime.now(UTC) + CODE_VALIDITY)
        trusted = replace(self.find(identifier), code=secrets.token_hex(20), code_until=until)
        self.platform.store.put_trusted_certificate(trusted)
        self.respond(self.presented(trusted))


class Proof(CertificateCall):
    """The proof of possession: the code, signed. (Devices may connect without it; that is not verified.)"""

    plain_errors = (400, 422)

    def post(self, tenant: str, identifier: str) -> None:
        """Check the signature."""
        trusted, signed = self.find(identifier), self.body().get("proofOfPossessionSignedVerificationCode")
        try:
            signature = base64.b64decode(signed, validate=True) if isinstance(signed, str) else b""
        except (binascii.Error, ValueError):
            signature = b""
        if not trusted.code or trusted.code_until < timestamp() or not signature:
            sentence = "There is no code that is valid, or the signature is no base64: make a code, and sign that one."
            raise Problem(422, "tenants/Unprocessable Entity", sentence)
        if not is_signature(trusted.certificate.public_key(), signature, trusted.code.encode()):
            sentence = "The signature is not that of the code with this certificate's key: sign its exact bytes."
            raise Problem(400, "tenants/Bad Request", sentence)
        trusted = replace(trusted, proven=True, code="", code_until="")
        self.platform.store.put_trusted_certificate(trusted)
        self.respond(self.presented(trusted))


def is_signature(key: CertificatePublicKeyTypes, signature: bytes, data: bytes) -> bool:
    """Whether ``signature`` is one as ``openssl dgst -sha256 -sign`` makes it."""
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, data, padding.PKCS1v15(), hashes.SHA256())
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
        else:
            return False
    except InvalidSignature:
        return False
    return True


def invalid(message: str) -> Problem:
    """Give the answer to a body that can be read but not used."""
    return Problem(422, "certificate/Unprocessable Entity", message)


def changed(trusted: TrustAnchor, body: Mapping[str, Any]) -> TrustAnchor:
    """Give ``trusted`` with what a request may set. Raises Problem."""
    name, status = trusted.name if body.get("name") is None else body["name"], body.get("status", trusted.status)
    automatic = body.get("autoRegistrationEnabled", trusted.auto_registration)
    if not is_text(name) or len(name) > LONGEST_NAME:
        raise invalid(f"name must be a text of {LONGEST_NAME} characters at most.")
    if status not in ("ENABLED", "DISABLED"):
        raise invalid("status must be ENABLED or DISABLED.")
    if automatic not in (True, False, "true", "false"):
        raise invalid("autoRegistrationEnabled must be true or false.")
    return replace(trusted, name=name, status=status, auto_registration=automatic in (True, "true"))
