"""The platform's key and certificate, on both of its ports; its users' passwords, and the tokens of devices."""

import base64
import hmac
import ipaddress
import json
import secrets
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from string import Template
from typing import Any

import jwt
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mciot_nb.errors import OnboardingError
from mciot_nb.pki.files import write_whole

CERTIFICATE_VALIDITY, TOKEN_VALIDITY = timedelta(days=730), timedelta(hours=1)
FIRST_TENANT, MOST_TENANTS = 1001, 1000
#: The administrator of each tenant, and a user of it without any role, who may look but not trust.
USER, WITHOUT_ROLE = "admin", "viewer"
#: What a trainee is handed; one page of it for each tenant.
SHEET = Path(__file__).parents[1] / "data" / "credentials_sheet.html"
#: By tenant: the administrator's user and password, and under ``others`` those of users without the role.
Credentials = Mapping[str, Mapping[str, Any]]


def server_key(folder: Path) -> ec.EllipticCurvePrivateKey:
    """Return the platform's key, made the first time. Raises: OnboardingError: if its file is damaged."""
    file = folder / "serverKey.pem"
    with suppress(ValueError, TypeError, UnsupportedAlgorithm):
        try:
            key = load_pem_private_key(file.read_bytes(), None)
        except FileNotFoundError:
            key = ec.generate_private_key(ec.SECP256R1())
            (folder / "serverCert.pem").unlink(missing_ok=True)  # never an old certificate beside a new key
            pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            write_whole(file, pem, private=True, replace=True)
        if isinstance(key, ec.EllipticCurvePrivateKey):
            return key
    raise OnboardingError(f"{file} is damaged: move it away, and a new key and certificate are made.")


def server_certificate(folder: Path, key: ec.EllipticCurvePrivateKey, host: str) -> x509.Certificate:
    """Return the platform's certificate, signed anew only if it is missing, expired, another key's, or lacks ``host``.

    Kept otherwise, because learners copy it into their trust stores.
    Raises: OnboardingError: if ``host`` can't be in a certificate.
    """
    file = folder / "serverCert.pem"
    needed = {_general_name(name) for name in ("localhost", "127.0.0.1", host) if name not in ("0.0.0.0", "::")}
    try:
        kept = x509.load_pem_x509_certificate(file.read_bytes())
        there = set(kept.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
        expired = kept.not_valid_after_utc < datetime.now(UTC)
        if needed <= there and not expired and kept.public_key() == key.public_key():
            return kept
    except (FileNotFoundError, ValueError, x509.ExtensionNotFound):
        there = set()  # missing or damaged
    certificate = _self_signed(key, sorted(needed | there, key=str))
    write_whole(file, certificate.public_bytes(Encoding.PEM), replace=True)
    return certificate


def _general_name(name: str) -> x509.GeneralName:
    with suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(name))
    try:
        return x509.DNSName(name)
    except ValueError:
        raise OnboardingError(f"{name} can't be in a certificate: give --host an ASCII name or address.") from None


def _self_signed(key: ec.EllipticCurvePrivateKey, names: list[x509.GeneralName]) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    values = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), x509.SubjectAlternativeName(names)
    return make_certificate((name, key), (name, key.public_key()), CERTIFICATE_VALIDITY, *values)


def make_certificate(
    issuer: tuple[x509.Name, Any], owner: tuple[x509.Name, Any], validity: timedelta, *others: Any, ca: bool = False
) -> x509.Certificate:
    """Sign a certificate: the ``issuer`` is a name and a private key, the ``owner`` a name and a public key."""
    usage = x509.KeyUsage(not ca, False, False, False, False, ca, ca, False, False)  # digitalSignature, or signing
    own = x509.SubjectKeyIdentifier.from_public_key(owner[1])
    signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer[1].public_key())
    values = x509.BasicConstraints(ca, 0 if ca else None), usage, *others, own, signer
    made = [x509.Extension(one.oid, number < 2, one) for number, one in enumerate(values)]
    serial, now, minutes = x509.random_serial_number(), datetime.now(UTC), timedelta(minutes=5)
    builder = x509.CertificateBuilder(issuer[0], *owner, serial, now - minutes, now + validity, made)
    return builder.sign(issuer[1], hashes.SHA256())


def read_credentials(file: Path, tenants: int) -> Credentials:
    """Return the tenants' logins, making those that are missing. Raises: OnboardingError: if the file is damaged."""
    if not 1 <= tenants <= MOST_TENANTS:
        raise OnboardingError(f"There can't be {tenants} tenants: give --tenants a number from 1 to {MOST_TENANTS}.")
    known: dict[str, dict[str, Any]] = {}
    try:
        kept = json.loads(file.read_bytes()) if file.exists() else {}
        for tenant, given in kept.items():
            known[tenant] = _login(given) | {"others": [_login(other) for other in given.get("others", ())]}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise OnboardingError(f"{file} is damaged: move it away, and new passwords are made.") from None
    for number in range(FIRST_TENANT, FIRST_TENANT + tenants):
        known.setdefault(f"t{number}", {**_new_login(USER), "others": []})
    for login in known.values():
        login["others"] = login["others"] or [_new_login(WITHOUT_ROLE)]
    if known != kept:
        write_whole(file, json.dumps(known, indent=1).encode(), private=True, replace=True)
    return known


def find_login(
    credentials: Credentials, user: str, password: str, *, with_tenant: bool = False
) -> tuple[str, bool] | None:
    """Return whose login this is, the tenant and whether an administrator's, or None; ``user`` may name the tenant.

    It must ``with_tenant``, as over MQTT, where no host name tells which it is.
    """
    for tenant, admin in credentials.items():
        for login in (admin, *admin.get("others", ())):
            right_user = user == f"{tenant}/{login['user']}" or (user == login["user"] and not with_tenant)
            if right_user and secrets.compare_digest(password.encode(), login["password"].encode()):
                return tenant, login is admin
    return None


def write_sheets(folder: Path, known: Mapping[str, Any], credentials: Credentials) -> Path:
    """Write what their tenant form asks for, a page for each trainee: a file each, and all.html. Returns the folder.

    ``known`` is what `running.write` returns.
    """
    pem, sheets = Path(known["server_certificate"]).read_bytes(), folder / "sheets"
    sha256 = x509.load_pem_x509_certificate(pem).fingerprint(hashes.SHA256()).hex(":").upper()
    shared = {"sha256": sha256, "pem": pem.decode(), "file": base64.b64encode(pem).decode(), "url": known["https"]}
    shared |= dict(zip(("host", "port"), known["mqtt"], strict=True))
    head, page, tail = SHEET.read_text(encoding="utf-8").split("<!-- page -->")
    pages = {tenant: Template(page).substitute(shared, tenant=tenant, **login) for tenant, login in credentials.items()}
    sheets.mkdir(exist_ok=True)
    for name, content in {**pages, "all": "".join(pages.values())}.items():
        write_whole(sheets / f"{name}.html", f"{head}{content}{tail}".encode(), private=True, replace=True)
    return sheets


def _new_login(user: str) -> dict[str, Any]:
    """Make up a password that can be typed from paper, of 79 bits: no letter of it looks like a digit."""
    parts = ("".join(secrets.choice("abcdefghjkmnpqrstuvwxyz23456789") for _ in range(4)) for _ in range(4))
    return {"user": user, "password": "-".join(parts)}


def _login(given: Any) -> dict[str, Any]:
    return {"user": given["user"] + "", "password": given["password"] + ""}  # TypeError for what is no text


class Tokens:
    """Issues and checks tokens, signed with the platform's own key, so that they outlive a restart."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key, self._secret = key, key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())

    def seal(self, *texts: str) -> str:
        """Return what stands for a secret in what is stored: it tells nothing to whom the platform's key is missing."""
        return hmac.digest(self._secret, "\0".join(texts).encode(), "sha256").hex()

    def issue(self, tenant: str, device: str) -> str:
        """Return a token for a device, valid for an hour. (The names of the claims are not verified.)"""
        now = datetime.now(UTC)
        claims = {"iss": "localhost", "aud": "localhost", "sub": f"device_{device}", "ten": tenant, "iat": now}
        claims |= {"nbf": now, "exp": now + TOKEN_VALIDITY, "jti": secrets.token_hex(8)}
        return jwt.encode(claims, self._key, algorithm="ES256")

    def read(self, token: str) -> tuple[str, str] | None:
        """Return the tenant and the device of a token; None if it is none of ours, or no longer valid."""
        key = self._key.public_key()
        try:
            claims = jwt.decode(token, key, ["ES256"], audience="localhost", options={"require": ["exp", "sub"]})
        except jwt.InvalidTokenError:
            return None
        return claims["ten"], claims["sub"].removeprefix("device_")
