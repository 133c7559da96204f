"""How the platform describes a trusted certificate in JSON."""

from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from mciot_nb.platform.store import TrustedCertificate


def describe(trusted: TrustedCertificate, *, with_proof: bool) -> dict[str, Any]:
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
