"""The fields of a distinguished name, the guide's seven and others: checks, and openssl's ways to write them."""

import re
import unicodedata
import warnings
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from cryptography import x509
from cryptography.x509.oid import NameOID as _OID

from mciot_nb.errors import OnboardingError, fault
from mciot_nb.pki.files import data_table
from mciot_nb.pki.parts import UNREADABLE, signed_fields
from mciot_nb.pki.pbe import contents, oid, split


class Field(NamedTuple):
    """One field as the guide's configuration knows it; ``longest`` is RFC 5280's upper bound (appendix A.1)."""

    attribute: str
    long_name: str
    short_name: str
    label: str
    oid: x509.ObjectIdentifier
    longest: int


warnings.filterwarnings("ignore", "Attribute's length must be", UserWarning)  # a platform's CA is in “United States”
_TABLE = [
    Field(attribute, long_name, short_name, name, x509.ObjectIdentifier(oid), int(longest))
    for attribute, long_name, short_name, name, oid, longest in map(dict.values, data_table("name_fields.csv"))
]
#: In the order in which ``openssl req`` asks for them, and in which `DistinguishedName` has them.
FIELDS = tuple(field for field in _TABLE if field.attribute)
#: What a policy may list besides.
OTHER_FIELDS = tuple(field for field in _TABLE if not field.attribute)
BY_OID = {field.oid: field for field in _TABLE}
BY_LONG_NAME = {field.long_name: field for field in FIELDS}
BY_ATTRIBUTE = {field.attribute: field for field in FIELDS}
#: The encodings of strings, by their tags (X.690, section 8.23). T61 is Latin-1, as OpenSSL and Java have it.
_ENCODINGS = dict.fromkeys((0x0C, 0x12, 0x13, 0x16), "utf-8") | {0x14: "latin-1", 0x1C: "utf-32-be", 0x1E: "utf-16-be"}


def field_problem(field: Field, value: str) -> str | None:
    """Return in one sentence what is wrong with ``value`` for ``field``, or None."""
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in value):
        return f"{field.label} holds a line break or another control character: type it on one line, without tabs."
    if field.attribute == "country" and not (len(value) == 2 and value.isascii() and value.isalpha()):
        return f"{field.label} must be the two-letter code of the country, such as DE, not {value!r}."
    if field.attribute == "email" and not value.isascii():
        return f"{field.label} may hold plain ASCII characters only: write {value!r} without umlauts and the like."
    # cryptography counts the UTF-8 bytes of a common name, openssl its characters: what both take is safe.
    length = len(value.encode()) if field.attribute == "common_name" else len(value)
    if length > field.longest:
        return f"{field.label} is {length} long, and X.509 allows {field.longest}: shorten it."
    return None


def mailbox_problem(address: str) -> str | None:
    """Return why this is no mail address (RFC 5321, section 4.1.2; odd ones that exist are), or None."""
    if re.fullmatch(r"""([\w!#$%&'*+/=?^`{|}~.-]+|"([^"\\]|\\.)+")@(\w([\w.-]*\w)?|\[[^]\s]+\])""", address, re.ASCII):
        return None
    return f"Email Address must be an address such as ops@example.com, not {address!r}: correct it, or leave it blank."


@dataclass(frozen=True)
class DistinguishedName:
    """The subject of a certificate, in the guide's seven fields; each may be left out.

    Raises: OnboardingError: BAD_NAME for a value that X.509 or openssl would refuse (RFC 5280, appendix A.1).

    Example: ``DistinguishedName(country="DE", common_name="device-0001")``.
    """

    country: str | None = None
    state: str | None = None
    locality: str | None = None
    organization: str | None = None
    organizational_unit: str | None = None
    common_name: str | None = None
    email: str | None = None

    def __post_init__(self) -> None:
        for field in FIELDS:
            value = getattr(self, field.attribute)
            if not value:
                object.__setattr__(self, field.attribute, None)  # an empty answer leaves the field out, as in openssl
            elif problem := field_problem(field, value):
                raise OnboardingError(problem, "BAD_NAME")

    @classmethod
    def from_x509(cls, name: x509.Name) -> "DistinguishedName":
        """Return the fields of ``name``. Raises: OnboardingError: BAD_NAME if one is there twice or is an eighth."""
        values: dict[str, str] = {}
        for attribute in name:
            field = BY_OID.get(attribute.oid)
            if field not in FIELDS:
                raise fault("BAD_NAME.field", name=readable(name), field=label(attribute.oid))
            if field.attribute in values:
                raise fault("BAD_NAME.twice", name=readable(name), field=field.label)
            values[field.attribute] = str(attribute.value)
        return cls(**values)

    def to_x509(self) -> x509.Name:
        """Return the name as cryptography has it, typed as ``string_mask = utf8only`` does, in openssl's order."""
        pairs = [(field.oid, getattr(self, field.attribute)) for field in FIELDS]
        return x509.Name([x509.NameAttribute(oid, value) for oid, value in pairs if value is not None])

    def __str__(self) -> str:
        return readable(self.to_x509())


def readable(name: x509.Name) -> str:
    """Return ``name`` for people, first field first, as ``openssl x509 -noout -subject`` does: ``C=DE, CN=device``."""
    return ", ".join(" + ".join(f"{_short(one.oid)}={_shown(one.value)}" for one in rdn) for rdn in name.rdns)


def _shown(value: str | bytes) -> str:
    return value if isinstance(value, str) else f"#{value.hex()}"  # RFC 4514, section 2.4


def name_of(certificate: x509.Certificate, which: str = "subject") -> x509.Name:
    """Return the ``subject`` or the ``issuer``, with what is no text in it as its bytes in hex."""
    with suppress(*UNREADABLE):
        return certificate.subject if which == "subject" else certificate.issuer
    rdns = contents(signed_fields(certificate)[2 if which == "issuer" else 4][1])
    return x509.Name([_attribute(one) for rdn in rdns for one in contents(rdn)])


def _attribute(pair: bytes) -> x509.NameAttribute[str]:
    (_, number), (tag, data) = split(pair)
    text = data.decode(_ENCODINGS[tag], "replace") if tag in _ENCODINGS else _shown(data)
    return x509.NameAttribute(x509.ObjectIdentifier(oid(number)), text, _validate=False)


def check_issuer(certificate: x509.Certificate) -> None:
    """Refuse a CA whose name can't be written into what it signs. Raises: OnboardingError: BAD_NAME."""
    try:
        certificate.subject  # noqa: B018
    except UNREADABLE:
        raise fault("BAD_NAME.old", name=readable(name_of(certificate))) from None


def oneline(name: x509.Name) -> str:
    r"""Return ``name`` as ``database.txt`` holds it (openssl's X509_NAME_oneline): ``/C=DE/CN=device``.

    ``/`` and ``+`` in a value become ``\/`` and ``\+``, bytes outside printable ASCII ``\xHH``.
    """
    values = ((_short(one.oid), re.sub(r"[/+]", r"\\\g<0>", str(one.value))) for one in name)
    text = "".join(f"/{field}={value}" for field, value in values)
    return re.sub(rb"[^ -~]", lambda byte: f"\\x{byte[0][0]:02X}".encode(), text.encode()).decode()


def common_name(name: x509.Name) -> str | None:
    """Return the common name of ``name``, which a device uses as its ClientId, or None."""
    values = name.get_attributes_for_oid(_OID.COMMON_NAME)
    return str(values[0].value) if values else None


def short_name(name: x509.Name) -> str:
    """Return the name by which people know a certificate: its common name, or else the whole name."""
    return common_name(name) or readable(name) or "(no name)"


def label(oid: x509.ObjectIdentifier) -> str:
    """Return a field's name for people, such as Locality Name, or its OID if the guide does not know the field."""
    return BY_OID[oid].label if oid in BY_OID else oid.dotted_string


def _short(oid: x509.ObjectIdentifier) -> str:
    return BY_OID[oid].short_name if oid in BY_OID else oid.dotted_string


def subject_option(subject: DistinguishedName) -> str:
    r"""Return a subject for openssl's ``-subj``: ``/C=DE/CN=device``, a backslash before ``/``, ``+`` and ``\``."""
    values = [(field.short_name, getattr(subject, field.attribute)) for field in FIELDS]
    fields = [f"/{name}=" + re.sub(r"[/+\\]", r"\\\g<0>", value) for name, value in values if value is not None]
    return "".join(fields) or "/"


def read_subject(text: str) -> DistinguishedName:
    r"""Return the subject that openssl's ``-subj`` means by ``/C=DE/CN=device``. Raises: OnboardingError: BAD_NAME."""
    values: dict[str, str] = {}
    for part in re.findall(r"(?:\\.|[^\\/])+", text):
        name, equals, value = part.partition("=")
        field = next((one for one in FIELDS if name in (one.short_name, one.long_name)), None)
        if text[0] != "/" or not equals or field is None or field.attribute in values:
            raise fault("BAD_NAME.subject", text=text, part=part)
        values[field.attribute] = re.sub(r"\\(.)", r"\1", value)
    return DistinguishedName(**values)
