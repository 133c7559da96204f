"""Chains of certificates: read them, build them, and say what is wrong with one and why.

The local platform judges with `diagnose` too, so that a learner is told before connecting what the platform answers.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from cryptography import x509
from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from mciot_nb.errors import REFUSED, Diagnosis, Finding, OnboardingError, fault, finding
from mciot_nb.pki import verdicts
from mciot_nb.pki.files import read_file
from mciot_nb.pki.names import name_of, readable
from mciot_nb.pki.parts import extension_of

Chain = Sequence[x509.Certificate]
One = TypeVar("One", x509.Certificate, x509.CertificateRevocationList)
Given = Iterable[x509.Certificate] | x509.Certificate
_CONTENTS = ("certificate", "certlist", "certrequest")
Signed = x509.Certificate | x509.CertificateRevocationList | x509.CertificateSigningRequest


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


def profile_of(name: str) -> Profile:
    """Return the profile of a name. Raises: OnboardingError: NO_PROFILE."""
    if name not in PROFILES:
        raise OnboardingError(f"There is no profile {name!r}: use {' or '.join(PROFILES)}.", "NO_PROFILE")
    return PROFILES[name]


def each_of(given: Iterable[One] | One) -> list[One]:
    """Return certificates or revocation lists as a list, one that was given by itself too."""
    return [given] if isinstance(given, x509.Certificate | x509.CertificateRevocationList) else list(given)


def read_copy(path: Path, serial: int, issuer: x509.Certificate) -> x509.Certificate:
    """Return the certificate that ``issuer`` signed under this serial number, by its copy in the CA's folder.

    Raises: OnboardingError: NO_FILE, OTHER_FILE if it is another certificate, or BAD_PEM.
    """
    if not path.exists():
        raise fault("NO_FILE.copy", path=path)
    certificate = read_certificates(path)[0]
    if certificate.serial_number != serial or not is_issued_by(certificate, issuer):
        raise fault("OTHER_FILE", path=path)
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
        raise fault("BAD_PEM.dashes")
    try:
        return x509.load_pem_x509_certificates(pem)
    except (ValueError, x509.InvalidVersion):  # which is none
        whole = b"-----BEGIN CERTIFICATE-----" in pem and b"-----END CERTIFICATE-----" in pem
        raise fault("BAD_PEM.certificate" if whole else "BAD_PEM.markers") from None


def to_pem(chain: Given) -> bytes:
    """Return certificates one after the other, as the guide's ``cat`` does. Example: ``to_pem([device, ca])``."""
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in each_of(chain))


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
    """Whether the names agree as RFC 5280, section 7.1 has it: whatever their case, blanks and string types."""
    return _comparable(name_of(certificate, "issuer")) == _comparable(name_of(issuer))


def _comparable(name: x509.Name) -> list[set[tuple[x509.ObjectIdentifier, str]]]:
    return [{(field.oid, " ".join(str(field.value).casefold().split())) for field in rdn} for rdn in name.rdns]


def signature_fits(signed: Signed, signer: x509.Certificate | x509.CertificateSigningRequest) -> bool | None:
    """Whether the key of ``signer`` made the signature; None where that can't be checked here.

    cryptography's own checks (`is_signature_valid`, `verify_directly_issued_by`) do so for SHA-1 and MD5 no more. A
    request is signed by its own key.
    """
    content = next(getattr(signed, f"tbs_{it}_bytes") for it in _CONTENTS if hasattr(signed, f"tbs_{it}_bytes"))
    try:
        digest, parameters = signed.signature_hash_algorithm, signed.signature_algorithm_parameters
        return is_signature(signer.public_key(), signed.signature, content, digest, parameters)
    except (ValueError, UnsupportedAlgorithm, InternalError):
        return None


def is_signature(
    key: Any, signature: bytes, content: bytes, digest: hashes.HashAlgorithm | None, parameters: object = None
) -> bool:
    """Whether ``key`` made the ``signature``; ``parameters`` are those of RSA-PSS. Raises: as `signature_fits` says."""
    arguments: tuple[object, ...] = ()
    if isinstance(key, rsa.RSAPublicKey):
        arguments = (parameters if isinstance(parameters, padding.PSS) else padding.PKCS1v15(), digest)
    elif digest and isinstance(key, ec.EllipticCurvePublicKey):
        arguments = (ec.ECDSA(digest),)
    elif isinstance(key, dsa.DSAPublicKey):
        arguments = (digest,)
    try:
        key.verify(signature, content, *arguments)
    except (InvalidSignature, TypeError, AttributeError):  # the last two: a key of another kind made it
        return False
    return True


def build_chain(
    leaf: x509.Certificate, candidates: Given, *, up_to: x509.Certificate | None = None
) -> list[x509.Certificate]:
    """Return ``leaf`` followed by its issuers, as far as ``up_to``, or else a self-signed certificate.

    Raises: OnboardingError: if an issuer is not among ``candidates`` (guide: "Creating the chain of certificates").
    """
    chain, rest = [leaf], each_of(candidates)
    while chain[-1] != up_to and not is_issued_by(chain[-1], chain[-1], unchecked=True):
        issuer = next((c for c in rest if c not in chain and is_issued_by(chain[-1], c, unchecked=True)), None)
        if issuer is None:
            subject, name = readable(name_of(chain[-1])), readable(name_of(chain[-1], "issuer"))
            raise fault("INCOMPLETE_CHAIN.issuer", subject=subject, issuer=name)
        chain.append(issuer)
    return chain


def diagnose(
    presented: Given,
    anchors: Given,
    profile: Profile | str | None = None,
    *,
    at: datetime | None = None,
    crls: Iterable[x509.CertificateRevocationList] | x509.CertificateRevocationList = (),
) -> Diagnosis:
    """Check the chain that a device presents against the trust anchors: the certificates that were uploaded.

    The verdict is OpenSSL's, as a TLS server asks for it (``openssl verify -partial_chain -purpose sslclient``), and
    with ``crls`` that of ``-crl_check``: the handshake fails on what it finds. With a ``profile`` the platform's own
    rules follow, on which it answers CONNACK 5. What other verifiers refuse is a finding of severity `STRICT`. ``at``
    is the time of the check, local where it has no time zone; now by default. Raises: OnboardingError: NO_PROFILE.

    Example: ``diagnose(chain, [ca.certificate], "guide-2021").code`` is ``"OK"`` or the first fault's code.
    """
    at = (at or datetime.now(UTC)).astimezone(UTC).replace(microsecond=0)
    presented, anchors = each_of(presented), each_of(anchors)
    path, findings = examine(presented, anchors, profile, at=at)
    if path and not findings:
        findings += _revocation_findings(path, at, each_of(crls))
    if path:
        findings += verdicts.strict_findings(path, at)
    return Diagnosis(tuple(findings))


def examine(
    presented: Chain, anchors: Sequence[x509.Certificate], profile: Profile | str | None = None, *, at: datetime
) -> tuple[Chain, list[Finding]]:
    """Return the path to a trust anchor, empty where there is none, and all on which a platform refuses the chain."""
    if not presented:
        return (), [Finding("NO_CLIENT_CERT", "No certificate was presented: give the device its chain and key.")]
    profile = profile_of(profile) if isinstance(profile, str) else profile
    verdict = judge(presented, anchors, at)
    path = verdict.path or judge(presented, anchors, at, verdicts.NO_DATES).path
    # one that is trusted itself, OpenSSL leaves followed by its issuers
    path = path[: next((number for number, one in enumerate(path, 1) if one in anchors), 0)]
    purposes = (verdicts.purpose_finding(certificate, depth, len(path) == 1) for depth, certificate in enumerate(path))
    # One that is trusted itself is for every purpose to a platform, which is Java.
    findings = list(filter(None, purposes)) if len(path) > 1 or not profile else []
    if verdict.error in verdicts.DATES:  # of which it names one
        for link in dict.fromkeys((verdict.certificate, *path)):
            error = verdicts.DATES[at > link.not_valid_after_utc]
            if not link.not_valid_before_utc <= at <= link.not_valid_after_utc:
                findings.append(explain(verdict._replace(error=error, certificate=link), presented, anchors))
    elif verdict.error:
        findings.append(explain(verdict, presented, anchors))
    if profile and path:
        findings += _platform_findings(presented, path[-1], profile)
    return path, findings


def judge(presented: Chain, anchors: Sequence[x509.Certificate], at: datetime, flags: int = 0) -> verdicts.Verdict:
    """Return OpenSSL's verdict on a chain, and the path that it took, from the device to a trust anchor.

    OpenSSL tries one trusted certificate of a name only. Of a CA that was renewed with its old key, the certificate
    that was presented comes first; and if one did not sign, this asks again without it.
    """
    sent = [anchor for anchor in anchors if anchor in presented]
    verdict = verdicts.ask_openssl(presented, sent or anchors, at, flags)
    if sent and verdict.error:
        verdict = verdicts.ask_openssl(presented, anchors, at, flags)
    while verdict.error == verdicts.SIGNATURE_FAILURE:
        namesakes = [anchor for anchor in anchors if same_name(verdict.certificate, anchor)]
        others = [anchor for anchor in namesakes if not is_issued_by(verdict.certificate, anchor)]
        if len(others) in (0, len(namesakes)):
            break
        anchors = [anchor for anchor in anchors if anchor not in others]
        verdict = verdicts.ask_openssl(presented, anchors, at, flags)
    return verdict


def explain(verdict: verdicts.Verdict, presented: Chain, anchors: Chain) -> Finding:
    """Return the sentence for OpenSSL's error; for `verdicts.NO_ISSUER`, why it finds none, or none that it follows."""
    last = verdict.certificate
    if verdict.error not in verdicts.NO_ISSUER:
        # of a trust anchor Java looks at name, key and the right to sign alone
        java = last in anchors and last != presented[0] and verdict.error in (*verdicts.DATES, 25, 34)
        return verdicts.refusal(verdict.error, last, verdict.depth, verdicts.TAKEN_BY_JAVA * java)
    subject, issuer = readable(name_of(last)), readable(name_of(last, "issuer"))
    namesakes = [other for other in (*anchors, *presented) if other != last and same_name(last, other)]
    signer = next((other for other in namesakes if is_issued_by(last, other)), None)
    if signer and (usage := extension_of(signer, x509.KeyUsage)) and not usage.key_cert_sign:
        return verdicts.refusal(79, signer, verdict.depth + 1)
    wanted = extension_of(last, x509.AuthorityKeyIdentifier)
    own = extension_of(signer, x509.SubjectKeyIdentifier) if signer else None
    if signer and wanted and own and wanted.key_identifier not in (None, own.digest):
        return finding("UNKNOWN_CA.identifier", REFUSED, last, subject=subject, issuer=issuer)
    if signer:
        return verdicts.refusal(41, last, verdict.depth)
    if any(is_issued_by(last, other, unchecked=True) for other in namesakes):
        return finding("BAD_SIGNATURE.unchecked", REFUSED, last, subject=subject, issuer=issuer)
    about, (sent, known) = (REFUSED, last), ({*namesakes} & {*some} for some in (presented, anchors))
    if not known:
        return finding("UNKNOWN_CA.presented" if sent else "UNKNOWN_CA.none", *about, subject=subject, issuer=issuer)
    both = sent & known
    return finding("BAD_SIGNATURE.presented" if both else "UNKNOWN_CA.namesake", *about, subject=subject, issuer=issuer)


def _revocation_findings(path: Chain, at: datetime, crls: list[x509.CertificateRevocationList]) -> Iterator[Finding]:
    """Yield what the lists say of each certificate under its issuer; that a CA's own issuer gave none is no fault."""
    for depth, (certificate, issuer) in enumerate(itertools.pairwise(path) if crls else ()):
        verdict = verdicts.ask_openssl([certificate], [issuer], at, verdicts.WITH_CRLS, crls)
        if verdict.error and not (depth and verdict.error == verdicts.NO_CRL):
            yield verdicts.refusal(verdict.error, certificate, depth)


def _platform_findings(presented: Chain, anchor: x509.Certificate, profile: Profile) -> Iterator[Finding]:
    device = presented[0]
    broken = next((pair for pair in itertools.pairwise(presented) if not is_issued_by(*pair, unchecked=True)), None)
    if broken:
        first, following = (readable(name_of(certificate)) for certificate in broken)
        yield finding("CHAIN_ORDER.presented", REFUSED, broken[1], first=first, following=following)
    if len(presented) > profile.longest_chain:
        subject, number = readable(name_of(device)), len(presented)
        yield finding("CHAIN_TOO_LONG", REFUSED, presented[-1], subject=subject, number=number, profile=profile)
    if anchor not in presented and not (profile.device_alone and is_issued_by(device, anchor)):
        yield finding("INCOMPLETE_CHAIN.anchor", REFUSED, anchor, anchor=readable(name_of(anchor)))


def is_ca(certificate: x509.Certificate) -> bool:
    """Whether ``certificate`` says CA:true in its basic constraints (RFC 5280, section 4.2.1.9)."""
    return bool(getattr(extension_of(certificate, x509.BasicConstraints), "ca", False))


def path_length(certificate: x509.Certificate) -> int | None:
    """Return how many more CAs may stand below ``certificate``, None where it does not limit that."""
    return getattr(extension_of(certificate, x509.BasicConstraints), "path_length", None)
