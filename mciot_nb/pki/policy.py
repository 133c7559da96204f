"""The signing policy: which fields of a request ``openssl ca`` keeps, demands or compares, and what vanishes."""

from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from mciot_nb.errors import OnboardingError
from mciot_nb.pki.config import CaConfig
from mciot_nb.pki.keys import SHORTEST_RSA
from mciot_nb.pki.names import BY_OID, Field, label, readable

#: ASN.1's tags of the string types in which openssl writes a subject today (RFC 5280, section 4.1.2.4).
_TODAYS_STRINGS = {0x0C: "UTF8String", 0x13: "PrintableString", 0x16: "IA5String"}

Attribute = x509.NameAttribute[str | bytes]


@dataclass(frozen=True)
class Preview:
    """What signing would make of a requested subject, before anything is signed.

    ``subject`` is what would be signed; ``vanishing`` the fields that the policy drops without a word; ``refusals``
    what would stop it, in the order in which openssl finds it, the missing and the different fields also by name.
    """

    requested: x509.Name
    subject: x509.Name
    vanishing: tuple[Attribute, ...] = ()
    missing: tuple[str, ...] = ()
    different: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the CA would sign; fields may vanish all the same."""
        return not self.refusals

    def __str__(self) -> str:
        lines = [f"Asked for: {readable(self.requested)}"]
        lines += [f"Would be signed: {readable(self.subject)}"] if self.ok else []
        lines += [f"Vanishes: {label(a.oid)} ({a.value!s}), which the policy does not list" for a in self.vanishing]
        return "\n".join(lines + [f"Refused: {refusal}" for refusal in self.refusals])


def preview_subject(config: CaConfig, requested: x509.Name, issuer: x509.Name) -> Preview:
    """Go through the policy of ``openssl ca`` field by field, in the policy's order, and say what comes of it.

    With ``preserve = yes`` in ``[ ca ]`` the subject stays as it is, and the policy only checks it.
    """
    kept: list[Attribute] = []
    missing, different, refusals = [], [], []
    for field, word in config.policy:
        found = requested.get_attributes_for_oid(field.oid)
        if word != "optional" and not found:
            missing.append(field.long_name)
            refusals.append(_missing(field, word))
        elif word == "match" and (problem := _mismatch(field, found, issuer.get_attributes_for_oid(field.oid))):
            different.append(field.long_name)
            refusals.append(problem)
        kept += found
    vanishing = tuple(attribute for attribute in requested if attribute not in kept)
    subject = x509.Name(kept)
    if config.preserve:
        subject, vanishing = requested, ()
        refusals += [
            f"The field {attribute.oid.dotted_string} is none of the guide's seven, and preserve = yes would keep it: "
            "make the request without it."
            for attribute in requested
            if attribute.oid not in BY_OID
        ]
    return Preview(requested, subject, vanishing, tuple(missing), tuple(different), tuple(refusals))


def _missing(field: Field, word: str) -> str:
    says = {
        "match": f"The mandatory {field.long_name} field was missing",
        "supplied": f"The {field.long_name} field needed to be supplied and was missing",
    }
    return f"{says[word]}: make the request with a {field.label}."


def _mismatch(field: Field, found: list[Attribute], own: list[Attribute]) -> str:
    """Compare as openssl does: the encoded strings, their type included."""
    if not own:
        return (
            f"The {field.long_name} field does not exist in the CA certificate, so the 'policy' is misconfigured: say "
            "optional or supplied in it."
        )
    encoded = [x509.Name([attribute]).public_bytes() for attribute in own]
    for attribute in found:
        if x509.Name([attribute]).public_bytes() not in encoded:
            return (
                f"The {field.long_name} field is different between CA certificate ({own[-1].value!s}) and the request "
                f"({attribute.value!s}): make the request with the CA's value"
                + (", written in the same string type." if attribute.value == own[-1].value else ".")
            )
    return ""


def signed_subject(config: CaConfig, requested: x509.Name, issuer: x509.Name) -> x509.Name:
    """Give the subject that ``openssl ca`` would sign: the policy's fields, in the policy's order.

    Raises OnboardingError (POLICY), with openssl's own words first, where a field is missing or differs from the CA's.
    """
    preview = preview_subject(config, requested, issuer)
    if preview.refusals:
        raise OnboardingError(preview.refusals[0], "POLICY")
    return preview.subject


def subject_of(csr: x509.CertificateSigningRequest) -> x509.Name:
    """Give a request's subject; raises OnboardingError where it can't be read."""
    try:
        return csr.subject
    except (ValueError, TypeError):  # cryptography reads it only now
        raise OnboardingError("The subject of the request can't be read: make it anew.", "BAD_REQUEST") from None


def check_request(csr: x509.CertificateSigningRequest) -> None:
    """Raise OnboardingError for a request that would give a certificate of doubtful use, or is not its owner's.

    openssl signs some of these without a word: a short key, a subject in an old string type or with several fields in
    one step.
    """
    try:
        subject, key, valid = subject_of(csr), csr.public_key(), csr.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm):  # cryptography reads its parts only when asked
        raise OnboardingError("A part of the request can't be read: make it anew.", "BAD_REQUEST") from None
    if not valid:
        problem = "was changed after it was made, or its key is not its own: make it anew."
    elif isinstance(key, rsa.RSAPublicKey) and key.key_size < SHORTEST_RSA:
        problem = f"has an RSA key of {key.key_size} bits, which is too weak: make one of {SHORTEST_RSA} or more."
    elif any(len(rdn) > 1 for rdn in subject.rdns):
        problem = "has several fields in one step of its name (a + between them): make it with one field a step."
    elif problems := [problem for attribute in subject if (problem := _string_problem(attribute))]:
        problem = f"{problems[0]}: make it anew, with string_mask = utf8only."
    else:
        return
    raise OnboardingError(f"The request of {readable(subject)} {problem}", "BAD_REQUEST")


def _string_problem(attribute: Attribute) -> str:
    tag, name = _string_tag(attribute), label(attribute.oid)
    if tag not in _TODAYS_STRINGS:
        return f"has its {name} in an old string type, such as BMPString or T61String"
    if attribute.oid == NameOID.EMAIL_ADDRESS and _TODAYS_STRINGS[tag] != "IA5String":
        return "has its emailAddress in another type than IA5STRING, which openssl refuses"
    return ""


def _string_tag(attribute: Attribute) -> int:
    """Give the ASN.1 tag of an attribute's string, which stands behind the OID in the encoded name."""
    der, position = x509.Name([attribute]).public_bytes(), 0
    for _ in range(3):  # the name, the step and the pair: a tag, and a length that may need further bytes
        position += 2 + (der[position + 1] & 0x7F if der[position + 1] & 0x80 else 0)
    return der[position + 2 + der[position + 1]]
