"""Chains of certificates: read them, build them, and say what is wrong with one and why.

The local platform judges with `diagnose` too, so that a learner is told before connecting what the platform answers.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID

from mciot_nb.errors import Diagnosis, Finding, OnboardingError
from mciot_nb.pki.files import read_file
from mciot_nb.pki.names import name_of, readable
from mciot_nb.pki.parts import extension_of

Chain = Sequence[x509.Certificate]
#: What is said of a certificate that cryptography does not read; OpenSSL, less strict, may do so.
DAMAGED = "The certificate is damaged, or of a form that is not read here: copy it again, or let it be made anew."


@dataclass(frozen=True)
class Profile:
    """What a platform of a certain time accepts: the longest chain, and whether the device's certificate is enough.

    ``has_proof_and_revocation``: whether it has what came later: proof of possession, revocation, device tokens.
    """

    name: str
    longest_chain: int
    device_alone: bool
    has_proof_and_revocation: bool


PROFILES = {
    "guide-2021": Profile("guide-2021", longest_chain=2, device_alone=False, has_proof_and_revocation=False),
    "current": Profile("current", longest_chain=10, device_alone=True, has_proof_and_revocation=True),
}


def read_copy(path: Path, serial: int, issuer: x509.Certificate) -> x509.Certificate:
    """Return the certificate that ``issuer`` signed under this serial number, by its copy in the CA's folder.

    Raises: OnboardingError: NO_FILE, OTHER_FILE if it is another certificate, or BAD_PEM.
    """
    if not path.exists():
        raise OnboardingError(
            f"{path.name} is missing in {path.parent}: of this certificate there is only its row.", "NO_FILE"
        )
    certificate = read_certificates(path)[0]
    if certificate.serial_number != serial or not is_issued_by(certificate, issuer):
        raise OnboardingError(
            f"{path} holds another certificate than the one that this CA signed: put the right one back.", "OTHER_FILE"
        )
    return certificate


def read_certificates(path: Path) -> list[x509.Certificate]:
    """Return every certificate of a PEM file, in their order; other text between them is skipped.

    Example: ``device, *issuers = read_certificates(workspace.device_file("deviceCertChain.pem"))``

    Raises: OnboardingError: if the file is missing (NO_FILE) or holds no readable certificate (BAD_PEM).
    """
    pem = read_file(path, f"There is no file {path}: make it first, or correct the path.")
    try:
        return parse_certificates(pem)
    except OnboardingError as error:
        raise OnboardingError(f"{path}: {error}", error.code) from None


def parse_certificates(pem: bytes) -> list[x509.Certificate]:
    """Return every certificate in ``pem``. Raises: OnboardingError: BAD_PEM if there is none, or one is damaged."""
    if any(f"{dash}BEGIN CERTIFICATE".encode() in pem for dash in "–—"):  # noqa: RUF001 - the guide's own dashes
        raise OnboardingError(
            "The PEM markers are written with typographic dashes, as on the guide's web page: "
            "replace each marker by -----BEGIN CERTIFICATE----- and -----END CERTIFICATE-----, with five hyphens.",
            "BAD_PEM",
        )
    try:
        return x509.load_pem_x509_certificates(pem)
    except (ValueError, x509.InvalidVersion):  # which is none
        whole = b"-----BEGIN CERTIFICATE-----" in pem and b"-----END CERTIFICATE-----" in pem
        markers = "a line -----BEGIN CERTIFICATE-----, the base64 text, and a line -----END CERTIFICATE-----"
        none = f"This is no certificate in PEM form: it needs {markers}; copy the whole file again."
        raise OnboardingError(DAMAGED if whole else none, "BAD_PEM") from None


def to_pem(chain: Iterable[x509.Certificate]) -> bytes:
    """Return the certificates one after the other in PEM form, as the guide's ``cat`` does."""
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in chain)


def fingerprint(certificate: x509.Certificate, algorithm: str = "sha1") -> str:
    """Return the digest of a certificate's DER form in lower-case hex, without colons; ``algorithm``: sha1 or sha256.

    SHA-1 is the name under which the platform keeps a trusted certificate, not a protection.
    """
    return certificate.fingerprint({"sha1": hashes.SHA1, "sha256": hashes.SHA256}[algorithm]()).hex()


def with_colons(digits: str) -> str:
    """Return a fingerprint as openssl and keytool show it: ``AB:CD:…``."""
    return bytes.fromhex(digits).hex(":").upper()


def is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate, *, unchecked: bool = False) -> bool:
    """Whether ``issuer`` bears the name that ``certificate`` states as its issuer, and its key made the signature.

    Returns ``unchecked`` where the names agree and the signature can't be checked here.
    """
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):  # of SHA-1, or a name in other letters, too
        fits = same_name(certificate, issuer) and signature_fits(certificate, issuer)
        return unchecked if fits is None else fits
    return True


def same_name(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether the names agree as RFC 5280, section 7.1 has it: whatever their case, blanks and string types.

    True too where cryptography can't read one, as a T61String with umlauts: then the signature alone tells.
    """
    try:
        return _comparable(certificate.issuer) == _comparable(issuer.subject)
    except ValueError:
        return True


def _comparable(name: x509.Name) -> list[set[tuple[str, bytes | str]]]:
    return [
        {
            (field.oid.dotted_string, " ".join(field.value.casefold().split()) if isinstance(field.value, str) else b"")
            for field in rdn
        }
        for rdn in name.rdns
    ]


def signature_fits(signed: Signed, signer: x509.Certificate | x509.CertificateSigningRequest) -> bool | None:
    """Whether the key of ``signer`` made the signature; None where that can't be checked here.

    cryptography's own checks (`is_signature_valid`, `verify_directly_issued_by`) do so for SHA-1 and MD5 no more. A
    request is signed by its own key.
    """
    try:
        key: Any = signer.public_key()
        digest, parameters = signed.signature_hash_algorithm, signed.signature_algorithm_parameters
        arguments: tuple[object, ...] = ()
        if isinstance(key, rsa.RSAPublicKey):
            arguments = (parameters if isinstance(parameters, padding.PSS) else padding.PKCS1v15(), digest)
        elif digest and isinstance(key, ec.EllipticCurvePublicKey):
            arguments = (ec.ECDSA(digest),)
        elif isinstance(key, dsa.DSAPublicKey):
            arguments = (digest,)
        key.verify(signed.signature, _signed_content(signed), *arguments)
    except (InvalidSignature, TypeError, AttributeError):  # the last two: a key of another kind made it
        return False
    except (ValueError, UnsupportedAlgorithm, InternalError):
        return None
    return True


def _signed_content(signed: Signed) -> bytes:
    if isinstance(signed, x509.Certificate):
        return signed.tbs_certificate_bytes
    if isinstance(signed, x509.CertificateRevocationList):
        return signed.tbs_certlist_bytes
    return signed.tbs_certrequest_bytes


def build_chain(
    leaf: x509.Certificate, candidates: Iterable[x509.Certificate], *, up_to: x509.Certificate | None = None
) -> list[x509.Certificate]:
    """Return ``leaf`` followed by its issuers, as far as ``up_to``, or else a self-signed certificate.

    Raises: OnboardingError: if an issuer is not among ``candidates`` (guide: "Creating the chain of certificates").
    """
    chain, rest = [leaf], list(candidates)
    while chain[-1] != up_to and not is_issued_by(chain[-1], chain[-1], unchecked=True):
        issuer = next((c for c in rest if c not in chain and is_issued_by(chain[-1], c, unchecked=True)), None)
        if issuer is None:
            raise OnboardingError(
                f"The certificate of {readable(name_of(chain[-1]))} was signed by "
                f"{readable(name_of(chain[-1], 'issuer'))}, whose certificate is not among those given: add it.",
                "INCOMPLETE_CHAIN",
            )
        chain.append(issuer)
    return chain


def diagnose(
    presented: Chain,
    anchors: Iterable[x509.Certificate],
    profile: Profile | str | None = None,
    *,
    at: datetime | None = None,
) -> Diagnosis:
    """Check the chain that a device presents against the trust anchors: the certificates that were uploaded.

    The rules of X.509 come first (as ``openssl verify -partial_chain`` checks them); the TLS handshake fails on them.
    With a ``profile`` the platform's own follow, on which it answers CONNACK 5. ``at`` is the time of the check, with
    its time zone; now by default.

    Example: ``diagnose(chain, [ca.certificate], "guide-2021").code`` is ``"OK"`` or the first fault's code.
    """
    if not presented:
        finding = Finding("NO_CLIENT_CERT", "No certificate was presented: give the device its chain and key.")
        return Diagnosis((finding,))
    at, anchors = at or datetime.now(UTC), list(anchors)
    profile = PROFILES[profile] if isinstance(profile, str) else profile
    path, findings = path_to_anchor(presented, anchors, at)
    findings += [finding for certificate in path for finding in _validity_findings(certificate, at)]
    if not findings:
        findings += _verifier_findings(path, at)
    if profile and path[-1] in anchors:
        findings += _platform_findings(presented, path[-1], profile)
    return Diagnosis(tuple(findings))


def path_to_anchor(presented: Chain, anchors: Chain, at: datetime) -> tuple[list[x509.Certificate], list[Finding]]:
    """Return the path of issuers from the device to a trust anchor, and the finding on which it ends early, if any.

    A CA renewed with its old key has two certificates that fit: the presented one is preferred, then a valid one.
    """
    trusted = set(anchors)

    def preference(issuer: x509.Certificate) -> tuple[bool, bool, bool]:
        return issuer not in trusted, issuer not in presented, bool(_validity_findings(issuer, at))

    candidates = sorted(dict.fromkeys((*anchors, *presented)), key=preference)
    path = [presented[0]]
    while (last := path[-1]) not in trusted:
        issuer = next((c for c in candidates if c not in path and is_issued_by(path[-1], c)), None)
        if issuer:
            path.append(issuer)
            continue
        subject, issuer_name = readable(name_of(last)), readable(name_of(last, "issuer"))
        if any(name_of(c) == name_of(last, "issuer") for c in presented if c != last):
            finding = Finding(
                "BAD_SIGNATURE",
                f"The certificate of {subject} names {issuer_name} as its issuer, but the certificate of that name in "
                "the chain did not sign it: put in the one that did.",
            )
        else:
            finding = Finding(
                "UNKNOWN_CA",
                f"The certificate of {subject} was signed by {issuer_name}, and no trusted certificate with that name "
                "and key is there: upload the CA certificate that signed it.",
            )
        return path, [finding]
    return path, []


def _validity_findings(certificate: x509.Certificate, at: datetime) -> list[Finding]:
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if begins <= at <= ends:
        return []
    subject = f"The certificate of {readable(name_of(certificate))}"
    if at > ends:
        return [Finding("EXPIRED", f"{subject} expired on {ends:%Y-%m-%d %H:%M} UTC: sign a new one.")]
    return [Finding("NOT_YET_VALID", f"{subject} is valid from {begins:%Y-%m-%d %H:%M} UTC only: check the clocks.")]


def _verifier_findings(path: Chain, at: datetime) -> list[Finding]:
    """Return what cryptography's verifier finds in a path whose signatures are good: path lengths, usages, forms."""
    if len(path) == 1:
        return []  # the anchor itself was presented: nothing is left to verify
    anything, critical_or_not = verification.ExtensionPolicy.permit_all(), verification.Criticality.AGNOSTIC
    builder = verification.PolicyBuilder().store(verification.Store([path[-1]])).time(at).max_chain_depth(len(path))
    builder = builder.extension_policies(
        ca_policy=anything.require_present(x509.BasicConstraints, critical_or_not, _must_be_ca),
        ee_policy=anything.may_be_present(x509.ExtendedKeyUsage, critical_or_not, _must_be_client),
    )
    try:
        builder.build_client_verifier().verify(path[0], list(path[1:-1]))
    except verification.VerificationError as error:
        return [Finding("INVALID", f"The chain of {readable(name_of(path[0]))} breaks a rule of X.509: {error}.")]
    return []


def _must_be_ca(_: verification.Policy, certificate: x509.Certificate, constraints: x509.BasicConstraints) -> None:
    if not constraints.ca:
        raise ValueError(f"{readable(name_of(certificate))} is no CA, so it can't sign certificates")


def _must_be_client(_: object, certificate: x509.Certificate, usage: x509.ExtendedKeyUsage | None) -> None:
    fitting = {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}
    if usage is not None and not fitting & {*usage}:
        raise ValueError(f"the extended key usage of {readable(name_of(certificate))} does not allow clientAuth")


def _platform_findings(presented: Chain, anchor: x509.Certificate, profile: Profile) -> Iterator[Finding]:
    device = presented[0]
    broken = next((pair for pair in itertools.pairwise(presented) if not is_issued_by(*pair)), None)
    if broken:
        yield Finding(
            "CHAIN_ORDER",
            f"In the chain, {readable(name_of(broken[0]))} is followed by {readable(name_of(broken[1]))}, "
            "which did not sign it: put the device first, and each issuer behind what it signed.",
        )
    if is_ca(device):
        sentence = f"The first certificate, {readable(name_of(device))}, is a CA's own: present a device certificate."
        yield Finding("CA_AS_DEVICE", sentence)
    if len(presented) > profile.longest_chain:
        yield Finding(
            "CHAIN_TOO_LONG",
            f"The chain of {readable(name_of(device))} has {len(presented)} certificates, and profile "
            f"{profile.name} takes {profile.longest_chain} at most: upload the intermediate certificate and "
            "present the chain up to it.",
        )
    if anchor not in presented and not (profile.device_alone and is_issued_by(device, anchor)):
        yield Finding(
            "INCOMPLETE_CHAIN",
            f"The chain ends before the uploaded certificate of {readable(name_of(anchor))}: "
            "append that certificate to the chain.",
        )


def is_ca(certificate: x509.Certificate) -> bool:
    """Whether ``certificate`` says CA:true in its basic constraints (RFC 5280, section 4.2.1.9)."""
    constraints = extension_of(certificate, x509.BasicConstraints)
    return constraints is not None and constraints.ca
