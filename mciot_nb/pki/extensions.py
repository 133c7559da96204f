"""The extensions of a certificate, as the configuration's sections ask for them (openssl's x509v3_config man page)."""

from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from mciot_nb.errors import OnboardingError
from mciot_nb.pki.names import readable

if TYPE_CHECKING:
    from mciot_nb.pki.config import CaConfig

#: openssl's words for the key usages, and cryptography's.
KEY_USAGES = {
    "digitalSignature": "digital_signature",
    "nonRepudiation": "content_commitment",
    "keyEncipherment": "key_encipherment",
    "dataEncipherment": "data_encipherment",
    "keyAgreement": "key_agreement",
    "keyCertSign": "key_cert_sign",
    "cRLSign": "crl_sign",
    "encipherOnly": "encipher_only",
    "decipherOnly": "decipher_only",
}


def build_extensions(
    config: "CaConfig", section: str, public_key: CertificatePublicKeyTypes, issuer: x509.Certificate | None
) -> list[x509.Extension[x509.ExtensionType]]:
    """Build the extensions of ``section`` in its order, for a certificate with ``public_key``.

    ``issuer`` is None for a self-signed certificate. Raises OnboardingError for an extension or a value that the
    guide's configuration does not use.
    """
    extensions = []
    for name, text in config.section(section).items():
        words = [word.strip() for word in text.split(",")]
        critical = words[0] == "critical"
        try:
            value = _extension(name, words[critical:], public_key, issuer)
        except (KeyError, TypeError, ValueError):
            raise OnboardingError(
                f"{config.path}: [ {section} ] says {name} = {text}, which is not understood here: write it as the "
                "guide's configuration does.",
                "BAD_CONFIG",
            ) from None
        extensions.append(x509.Extension(value.oid, critical, value))
    return extensions


def _extension(
    name: str, words: list[str], public_key: CertificatePublicKeyTypes, issuer: x509.Certificate | None
) -> x509.ExtensionType:
    if name == "subjectKeyIdentifier" and words == ["hash"]:
        return x509.SubjectKeyIdentifier.from_public_key(public_key)
    if name == "authorityKeyIdentifier" and {word.split(":")[0] for word in words} <= {"keyid", "issuer"}:
        return _authority_key_identifier(words, public_key, issuer)
    if name == "basicConstraints":
        values = dict(word.split(":", 1) for word in words)
        ca = {"true": True, "false": False}[values.pop("CA", "false").lower()]
        path_length = int(values.pop("pathlen")) if "pathlen" in values else None
        if not values:
            return x509.BasicConstraints(ca, path_length)
    if name == "keyUsage":
        usages = dict.fromkeys(KEY_USAGES.values(), False) | {KEY_USAGES[word]: True for word in words}
        return x509.KeyUsage(**usages)
    raise ValueError(name)


def _authority_key_identifier(
    words: list[str], public_key: CertificatePublicKeyTypes, issuer: x509.Certificate | None
) -> x509.AuthorityKeyIdentifier:
    """Name the issuer's key as the issuer names it itself: by the key id, or else by name and serial number."""
    if issuer is None:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(public_key)  # type: ignore[arg-type]
    try:
        own = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        if "keyid:always" in words or not any(word.startswith("issuer") for word in words):
            raise OnboardingError(
                f"The CA's certificate, {readable(issuer.subject)}, has no subject key identifier to copy: say "
                "authorityKeyIdentifier = keyid,issuer in the configuration.",
                "BAD_CONFIG",
            ) from None
        return x509.AuthorityKeyIdentifier(None, [x509.DirectoryName(issuer.issuer)], issuer.serial_number)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)
