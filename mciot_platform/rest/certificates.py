"""The REST calls for a tenant's trusted certificates, and for the proof that their keys are the tenant's."""

import base64
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from mciot_nb.errors import OnboardingError
from mciot_nb.pki.chain import fingerprint, is_signature
from mciot_nb.pki.names import name_of
from mciot_nb.pki.uploads import single_ca_certificate
from mciot_platform.rest.handler import Handler, RestError, unfit, zulu
from mciot_platform.storage import TrustAnchor, timestamp


def reversed_name(name: x509.Name) -> str:
    """Return a name as Java writes it: last field first."""
    known = {NameOID.EMAIL_ADDRESS: "EMAILADDRESS"}
    return ", ".join(rdn.rfc4514_string(known) for rdn in reversed(name.rdns))


def _algorithm(certificate: x509.Certificate) -> str:
    """Return the signature's algorithm as Java names it."""
    digest = certificate.signature_hash_algorithm
    if digest is None:
        return "EdDSA"
    kind = "ECDSA" if isinstance(certificate.signature_algorithm_parameters, ec.ECDSA) else "RSA"
    return f"{digest.name.upper()}with{kind}"


LONGEST_NAME = 256
invalid = partial(unfit, room="certificate")
CODE_VALIDITY = timedelta(days=7)  # not verified


class CertificateCalls(Handler):
    """The calls for trusted certificates."""

    def _as_json(self, trusted: TrustAnchor) -> dict[str, Any]:
        """Return a trusted certificate as it is sent, under the vendor's names."""
        certificate = trusted.certificate
        proof: dict[str, Any] = {}
        if self.platform.trust.profile.has_proof_and_revocation:
            proof = {"proofOfPossessionValid": trusted.proven, "tenantCertificateAuthority": self._is_own(trusted)}
        if proof and trusted.code:
            proof["proofOfPossessionUnsignedVerificationCode"] = trusted.code
            proof["proofOfPossessionVerificationCodeUsableUntil"] = zulu(trusted.code_until)
        path = f"/tenant/tenants/{trusted.tenant}/trusted-certificates/{trusted.fingerprint}"
        return {
            **proof,
            "algorithmName": _algorithm(certificate),
            "autoRegistrationEnabled": trusted.auto_registration,
            "certInPemFormat": "\n".join(certificate.public_bytes(Encoding.PEM).decode().splitlines()[1:-1]),
            "fingerprint": trusted.fingerprint,
            "issuer": reversed_name(name_of(certificate, "issuer")),
            "name": trusted.name,
            "notAfter": zulu(timestamp(certificate.not_valid_after_utc)),
            "notBefore": zulu(timestamp(certificate.not_valid_before_utc)),
            "serialNumber": str(certificate.serial_number),
            "status": trusted.status,
            "subject": reversed_name(name_of(certificate)),
            "version": certificate.version.value + 1,
            "self": self.address(path),
        }

    def _is_own(self, trusted: TrustAnchor) -> bool:
        return bool(self.storage.select("SELECT 1 FROM authorities WHERE fingerprint = ?", trusted.fingerprint))

    def _find(self, identifier: str) -> TrustAnchor:
        trusted = self.storage.trusted_certificate(identifier)
        if trusted is None or trusted.deleted or trusted.tenant != self.login.tenant:
            raise RestError(404, "certificate/Not Found", f"Cannot find certificate with fingerprint {identifier}.")
        return trusted

    def _store(self, trusted: TrustAnchor) -> None:
        self.storage.put_trusted_certificate(trusted)
        self.respond(self._as_json(trusted))

    def _read_trusted(self, body: Any) -> TrustAnchor:
        """Return what is to be added. Raises: RestError: 422 if it can't be, 409 if any tenant has it already."""
        if not isinstance(body, dict) or not isinstance(body.get("certInPemFormat"), str) or "status" not in body:
            raise invalid("certInPemFormat, a text, and status are required.")
        try:
            certificate = single_ca_certificate(body["certInPemFormat"])
        except OnboardingError as error:
            raise invalid(str(error)) from None
        identifier = fingerprint(certificate)
        known = self.storage.trusted_certificate(identifier)
        if known and not known.deleted:
            raise RestError(409, "certificate/Conflict", f"The certificate {identifier} is trusted already.")
        new = TrustAnchor(certificate, self.login.tenant, "ENABLED", False, fingerprint=identifier, name="")
        trusted = with_changes(new, body)
        self._as_json(trusted)  # what can't be described must not be in the list
        return trusted

    def _list_trusted(self, tenant: str) -> None:
        """List the tenant's trusted certificates."""
        stored, only = self.storage.trusted_certificates(self.login.tenant), self.flag("certificateAuthority")
        known = [self._as_json(one) for one in stored if not one.deleted and (self._is_own(one) or not only)]
        self.respond_page("certificates", lambda first, size: (known[first : first + size], len(known)))

    def _add(self, tenant: str) -> None:
        """Add a trusted certificate."""
        trusted = self._read_trusted(self.body())
        self.platform.add_trusted(trusted)
        self.respond(self._as_json(trusted), 201)

    def _add_several(self, tenant: str) -> None:
        """Add all of several trusted certificates, or none. (That none is added where one can't be is not verified.)"""
        given = self.body().get("certificates")
        if not isinstance(given, list):
            raise invalid("certificates, a list, is required.")
        added = {trusted.fingerprint: trusted for trusted in (self._read_trusted(one) for one in given)}
        if len(added) < len(given):
            raise RestError(409, "certificate/Conflict", "The same certificate is in the list twice.")
        self.platform.add_trusted(*added.values())
        self.respond({"certificates": [self._as_json(trusted) for trusted in added.values()]}, 201)

    def _show(self, tenant: str, identifier: str) -> None:
        """Show a trusted certificate."""
        self.respond(self._as_json(self._find(identifier)))

    def _change(self, tenant: str, identifier: str) -> None:
        """Change its name, its status or its auto-registration."""
        self._store(trusted := with_changes(self._find(identifier), self.body()))
        if not trusted.enabled:
            self.platform.mqtt_server.end_sessions(identifier, "The trusted certificate was disabled.")

    def _delete(self, tenant: str, identifier: str) -> None:
        """Delete it: the live sessions under it end, and if it is the tenant's own CA, its key is gone."""
        with self.storage.transaction():
            self.storage.put_trusted_certificate(replace(self._find(identifier), deleted=timestamp()))
            self.storage.delete("authorities", fingerprint=identifier)
        self.platform.mqtt_server.end_sessions(identifier, "The trusted certificate was deleted.")
        self.set_status(204)

    def _make_code(self, tenant: str, identifier: str) -> None:
        """Make the code that the owner of its key is to sign; the previous one is void."""
        until = timestamp(datetime.now(UTC) + CODE_VALIDITY)
        self._store(replace(self._find(identifier), code=secrets.token_hex(20), code_until=until))

    def _prove(self, tenant: str, identifier: str) -> None:
        """Check the signature of the code. (That devices may connect without it is not verified.)"""
        trusted, signed = self._find(identifier), self.body().get("proofOfPossessionSignedVerificationCode")
        signature = b""
        with suppress(ValueError):  # no base64, or no ASCII
            signature = base64.b64decode(signed, validate=True) if isinstance(signed, str) else b""
        if not trusted.code or trusted.code_until < timestamp() or not signature:
            sentence = "There is no code that is valid, or the signature is not base64: make a code, and sign that one."
            raise RestError(422, "tenants/Unprocessable Entity", sentence)
        if not is_signature(trusted.certificate.public_key(), signature, trusted.code.encode(), hashes.SHA256()):
            sentence = "The signature is not that of the code with this certificate's key: sign its exact bytes."
            raise RestError(400, "tenants/Bad Request", sentence)
        self._store(replace(trusted, proven=True, code="", code_until=""))


def with_changes(trusted: TrustAnchor, body: Mapping[str, Any]) -> TrustAnchor:
    """Return ``trusted`` with what a request sets. Raises: RestError: if a value is not allowed."""
    name, status = trusted.name if body.get("name") is None else body["name"], body.get("status", trusted.status)
    automatic = body.get("autoRegistrationEnabled", trusted.auto_registration)
    if not isinstance(name, str) or len(name) > LONGEST_NAME:
        raise invalid(f"name must be a text of {LONGEST_NAME} characters at most.")
    if status not in ("ENABLED", "DISABLED"):
        raise invalid("status must be ENABLED or DISABLED.")
    if automatic not in (True, False, "true", "false"):
        raise invalid("autoRegistrationEnabled must be true or false.")
    return replace(trusted, name=name, status=status, auto_registration=automatic in (True, "true"))
