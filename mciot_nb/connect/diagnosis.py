"""Whether a device will be let in, and if not why: said before it connects, from its files and from its tenant."""

import http.client
import itertools
import shlex
import socket
import ssl
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from OpenSSL import SSL

from mciot_nb.connect.device import Device
from mciot_nb.connect.http import https_host
from mciot_nb.connect.mqtt import client_context, connection_error
from mciot_nb.connect.server_certificate import TIMEOUT, fetch_server_certificate
from mciot_nb.connect.tenant import Tenant
from mciot_nb.errors import REFUSED, WARNING, Diagnosis, Finding, OnboardingError, fault, finding
from mciot_nb.pki import admission, verdicts
from mciot_nb.pki.chain import Given, Profile, each_of, is_ca, profile_of, to_pem
from mciot_nb.pki.crl import read_crl
from mciot_nb.pki.files import read_file
from mciot_nb.pki.keys import KEY_BLOCK, PrivateKey, is_key_of, read_private_key
from mciot_nb.pki.keystore import PKCS12_NAMES, read_key
from mciot_nb.pki.names import BY_ATTRIBUTE, common_name, name_of, readable
from mciot_nb.pki.uploads import parse_upload
from mciot_nb.secret import Secret, reveal

Source = Device | Path | str | Iterable[Path | str]
#: What is said in time: of an end, and of a certificate that outlasts its issuer's by more than this.
SOON, A_DAY = timedelta(days=14), timedelta(days=1)
#: By how much the clocks of two machines may differ before anybody notices.
CLOCKS_DIFFER = timedelta(minutes=2)
#: A folder of the guide: the first of each that is there is the device's.
_CHAINS, _STORES = ("deviceCertChain.pem", "deviceCert.pem"), ("deviceKeystore.pkcs12", "deviceKeystore.jks")
_ISSUERS = ("caCert.pem", "intermediateCert.pem")


@dataclass
class _Setup:
    """What a device has: as far as it could be read, with what was found on the way."""

    passphrase: Secret | str
    chain: list[x509.Certificate] = field(default_factory=list)
    key: PrivateKey | None = None
    client_id: str = ""
    anchors: list[x509.Certificate] = field(default_factory=list)
    crls: list[x509.CertificateRevocationList] = field(default_factory=list)
    server: tuple[str, int] | None = None
    trusted: Sequence[x509.Certificate] = ()
    files: dict[str, Any] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def read(self, source: Source) -> None:
        """Read a folder, files or a device. Raises: OnboardingError: NO_FILE where there is nothing to look at."""
        if isinstance(source, Device):
            self.chain, self.client_id, self.trusted = [*source.chain], source.client_id, source.trusted
            self.server = source.locate()
            return
        for path in map(Path, [source] if isinstance(source, str | Path) else source):
            (self._read_folder if path.is_dir() else self._read_file)(path)

    def _read_folder(self, folder: Path) -> None:
        there = [folder / name for name in (*_CHAINS, *_STORES) if (folder / name).exists()]
        if not there:
            raise fault("NO_FILE.device", folder=folder, names=" or ".join((*_CHAINS, *_STORES)))
        self._read_file(there[0])
        if there[0].suffix == ".pem":
            self._read_file(folder / "deviceKey.pem")
        for name in _ISSUERS:
            with suppress(OnboardingError):
                self.anchors += parse_upload(read_file(folder.parent / name, ""), name)
                self.files["anchor"] = folder.parent / name
        with suppress(OnboardingError):
            self.trusted = parse_upload(read_file(folder / "serverCertificate.pem", ""), "It")
        for path in (folder.parent / "crl").glob("*.pem"):
            with suppress(OnboardingError):
                self.crls.append(read_crl(path))
                self.files["crl"] = path

    def _read_file(self, path: Path) -> None:
        try:
            data = read_file(path, f"There is no file {path}: make it first, or correct the path.")
            certificates = self._certificates(path, KEY_BLOCK.sub(b"", data))
            if certificates is None:
                self.files["keystore"] = path
                self.key, chain = read_key(path, self.passphrase)
                self.chain += chain
                return
            if certificates:
                self.files.setdefault("chain", path)
                self.chain += certificates
            if b"PRIVATE KEY" in data:
                self._read_key(path, data)
        except OnboardingError as error:
            self.findings.append(Finding(error.code, str(error)))

    def _certificates(self, path: Path, data: bytes) -> list[x509.Certificate] | None:
        """Return the certificates of a file, None where it is a keystore."""
        if path.suffix.lower() in (".jks", *PKCS12_NAMES):
            return None
        try:
            found = parse_upload(data, str(path)) if data.strip() else []
        except OnboardingError as error:
            if error.code == "KEYSTORE":
                return None
            if error.code == "PRIVATE_KEY" or "key" in path.stem.lower():
                return []
            self.files.setdefault("chain", path)
            raise OnboardingError(f"{path}: {error}", error.code) from None
        try:
            SSL.Context(SSL.TLS_CLIENT_METHOD).use_certificate_chain_file(path)
        except SSL.Error:
            if found:
                raise fault("BAD_PEM.openssl", path=path) from None
        return found

    def _read_key(self, path: Path, data: bytes) -> None:
        self.files["key"] = path
        if b"ENCRYPTED" in data and not reveal(self.passphrase):
            raise fault("NEED_PASSPHRASE.key", path=path)
        self.key = read_private_key(path, self.passphrase)


@dataclass(frozen=True)
class _Trust:
    """What the platform trusts, as far as it can be told."""

    anchors: Mapping[x509.Certificate, str]  # enabled, with the tenant of each
    gone: Mapping[x509.Certificate, bool] = field(default_factory=dict)
    without_registration: frozenset[x509.Certificate] = frozenset()
    unproven: frozenset[x509.Certificate] = frozenset()
    revoked: Mapping[int, datetime] = field(default_factory=dict)
    checks_revocations: bool = False

    @classmethod
    def of(cls, tenant: Tenant) -> "_Trust":
        """Ask a tenant. Raises: OnboardingError: if it does not answer, or not to this login."""
        listed = [one for one in tenant.trusted_certificates.list() if one.certificate]
        anchors = {one.certificate: tenant.tenant_id for one in listed if one.certificate and one.status == "ENABLED"}
        gone = {one.certificate: False for one in listed if one.certificate and one.status != "ENABLED"}
        for der, owner, status in tenant.unlisted():
            certificate = x509.load_der_x509_certificate(der)
            if status == "ENABLED":
                anchors[certificate] = owner
            else:
                gone[certificate] = status == "DELETED"
        revoked, checks = dict[int, datetime](), False
        if tenant.profile.has_proof_and_revocation:
            with suppress(OnboardingError):  # a platform without such a list, or a login that may not read it
                revoked = tenant.trusted_certificates.revocations()
                checks = tenant.trusted_certificates.checks_revocations()
        closed = frozenset(one.certificate for one in listed if one.certificate and not one.auto_registration)
        unproven = frozenset(one.certificate for one in listed if one.certificate and one.proven is False)
        return cls(anchors, gone, closed, frozenset() if tenant.is_local else unproven, revoked, checks)


def diagnose_device(
    source: Source,
    tenant: Tenant | None = None,
    *,
    client_id: str = "",
    passphrase: Secret | str = "",
    anchors: Given = (),
    profile: Profile | str | None = None,
    at: datetime | None = None,
) -> Diagnosis:
    """Say before a device connects whether it will be let in, and everything that is wrong with it, in order.

    ``source`` is a folder such as ``deviceCertificates``, PEM files, a keystore, or a `Device`. With a ``tenant`` it is
    asked what it trusts; without one, ``anchors`` are taken to be uploaded, those beside the folder where none are
    given, else the end of the chain. The first finding that is `REFUSED` is what the platform, or the device itself,
    would say. ``passphrase`` opens key and keystore; ``at`` is the time of the check.

    Raises: OnboardingError: NO_FILE where a folder has no device; what `Tenant.request` raises.

    Example: ``diagnose_device(workspace.device(tenant), tenant)``
    """
    setup = _Setup(passphrase)
    setup.read(source)
    setup.anchors = each_of(anchors) or setup.anchors
    if isinstance(profile, str):
        profile = profile_of(profile)
    profile = profile or (tenant.profile if tenant else profile_of("current"))
    findings = [*setup.findings, *_key_findings(setup)]
    with suppress(OnboardingError):
        setup.server = setup.server or (tenant.now.mqtt if tenant else None)
    findings += _server_findings(setup, tenant)
    try:
        trust = _Trust.of(tenant) if tenant else None
        now, clock = _clock(tenant) if tenant else (datetime.now(UTC), [])
    except OnboardingError as error:
        if error.code != "NOT_REACHED":
            raise
        findings += [] if any(one.code == error.code for one in findings) else [Finding(error.code, str(error))]
        trust, now, clock = None, datetime.now(UTC), []
    if setup.chain or not findings:
        findings += _chain_findings(setup, trust, client_id, profile, (at or now).astimezone(UTC), tenant)
    findings.sort(key=lambda one: one.severity != REFUSED)
    return Diagnosis(tuple(replace(one, files=setup.files) for one in [*findings, *clock]))


def _key_findings(setup: _Setup) -> Iterator[Finding]:
    key, chain = setup.key, setup.chain
    if key and chain and not is_key_of(chain[0], key):
        owner = next((number for number, one in enumerate(chain, 1) if is_key_of(one, key)), 0)
        where, file = setup.files.get("chain"), setup.files.get("key")
        if owner:
            yield finding("KEY_MISMATCH.order", REFUSED, chain[0], key=file, chain=where, number=owner)
            chain.insert(0, chain.pop(owner - 1))  # what else there is to say is said of the device's own
        else:
            yield finding("KEY_MISMATCH.device", REFUSED, chain[0], key=file, chain=where)


def _server_findings(setup: _Setup, tenant: Tenant | None) -> Iterator[Finding]:
    """Yield why the device would not speak to its server, by a handshake without its certificate."""
    if not setup.server:
        return
    host, port = setup.server
    setup.files |= {"host": host, "port": port}
    context = client_context(tenant.trusted if tenant and not setup.trusted else None)
    if setup.trusted:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.load_verify_locations(cadata=to_pem(setup.trusted).decode())
    try:
        with socket.create_connection((host, port), TIMEOUT) as plain:
            context.wrap_socket(plain, server_hostname=host).close()
    except (OSError, ValueError) as error:
        problem, shown = connection_error(f"{host}:{port}", error), None
        if isinstance(error, ssl.SSLCertVerificationError):
            with suppress(OnboardingError):
                shown = fetch_server_certificate(host, port).certificate
        yield Finding(problem.code, str(problem), certificate=shown)


def _clock(tenant: Tenant) -> tuple[datetime, list[Finding]]:
    """Return the server's time, by which it judges, and what is to be said of this machine's clock."""
    here, found = datetime.now(UTC), list[Finding]()
    host, port = https_host(tenant.now.url)
    with suppress(OSError, ValueError, http.client.HTTPException):
        context = client_context(tenant.trusted)
        with closing(http.client.HTTPSConnection(host, port, timeout=TIMEOUT, context=context)) as client:
            client.request("HEAD", "/tenant/currentTenant")
            there = parsedate_to_datetime(client.getresponse().getheader("Date", "")).astimezone(UTC)
        if abs(there - here) > CLOCKS_DIFFER:
            found.append(finding("CLOCK", WARNING, host=host, here=here, there=there))
            here = there
    return here, found


def _chain_findings(
    setup: _Setup, trust: _Trust | None, client_id: str, profile: Profile, at: datetime, tenant: Tenant | None
) -> Iterator[Finding]:
    """Yield what the platform has against a device, in its order, and then what is worth a look."""
    chain, given = setup.chain, setup.anchors or [one for one in setup.chain[-1:] if is_ca(one)]
    known = trust or _Trust(dict.fromkeys(given, ""))
    path, found = admission.judge_chain(chain, list(known.anchors), known.gone, profile, at)
    if not trust and path and (not is_ca(path[-1]) or path[-1].version != x509.Version.v3):
        yield finding("NOT_A_CA.upload", REFUSED, path[-1], subject=readable(name_of(path[-1])))
        found = [one for one in found if one.certificate != path[-1]]
    yield from found
    if not chain:
        return
    name = common_name(name_of(chain[0])) or ""
    identifier = client_id or setup.client_id or name
    foreign = bool(path) and tenant is not None and known.anchors[path[-1]] != tenant.tenant_id
    if path and not foreign:
        revoked = admission.revocation((*chain, path[-1]), known.revoked)
        if revoked:
            yield revoked if known.checks_revocations else finding(
                "REVOKED.unchecked", WARNING, revoked.certificate, serial=f"{revoked.certificate.serial_number:X}"
            )
    if wrong := admission.client_id(identifier, chain[0]):
        yield wrong
    elif path and not foreign and tenant and path[-1] in known.without_registration:
        device = admission.device_identifier(identifier)
        new = admission.registration(device, path[-1], registered=_is_registered(tenant, device), automatic=False)
        yield from [new] if new else []
    if foreign and tenant:
        yield finding("OTHER_TENANT.anchor", WARNING, path[-1], subject=readable(name_of(path[-1])), owner=known.anchors[path[-1]], tenant=tenant.tenant_id)
    yield from _warnings(setup, path, at, bool(found))
    if path and path[-1] in known.unproven:
        yield finding("UNPROVEN", WARNING, path[-1], subject=readable(name_of(path[-1])))


def _is_registered(tenant: Tenant, device: str) -> bool:
    try:
        return tenant.devices.is_registered(device)
    except OnboardingError:  # this login may not see users, but perhaps devices
        return tenant.devices.find(device) is not None


def _warnings(setup: _Setup, path: Sequence[x509.Certificate], at: datetime, refused: bool) -> Iterator[Finding]:
    if path:
        yield from verdicts.strict_findings(path, at)
    for one in setup.chain if path and not refused else ():
        if one not in path:
            yield finding("CHAIN_ORDER.superfluous", WARNING, one, subject=readable(name_of(one)))
    for one in path:
        if at <= one.not_valid_after_utc < at + SOON:
            yield finding("EXPIRED.soon", WARNING, one, certificate=verdicts.the(one), date=one.not_valid_after_utc)
    for one, issuer in itertools.pairwise(path):
        if one.not_valid_after_utc > issuer.not_valid_after_utc + A_DAY:
            yield finding("OUTLIVES_CA.chain", WARNING, one, certificate=verdicts.the(one), last=issuer.not_valid_after_utc)
    longest, name = BY_ATTRIBUTE["common_name"].longest, common_name(name_of(setup.chain[0])) or ""
    if len(name) > longest:
        yield finding("BAD_NAME.length", WARNING, setup.chain[0], length=len(name), longest=longest)
    for crl in setup.crls:
        if crl.next_update_utc and crl.next_update_utc < at:
            yield finding("CRL_EXPIRED", WARNING, path=setup.files["crl"], date=crl.next_update_utc)
        for one in setup.chain:
            if crl.issuer == one.issuer and crl.get_revoked_certificate_by_serial_number(one.serial_number):
                yield finding("REVOKED.listed", WARNING, one, certificate=verdicts.the(one), path=setup.files["crl"])
