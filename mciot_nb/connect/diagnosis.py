"""Whether a device will be let in, and if not why: said before it connects, from its files and from its tenant."""

import http.client
import itertools
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from socket import create_connection
from typing import Any

from cryptography import x509
from OpenSSL import SSL

from mciot_nb.connect.device import Device, load_chain
from mciot_nb.connect.http import https_host
from mciot_nb.connect.mqtt import QUIET, TIMEOUT, client_context, connection_error
from mciot_nb.connect.tenant import Tenant
from mciot_nb.errors import REFUSED, WARNING, Diagnosis, Finding, OnboardingError, fault, finding
from mciot_nb.pki import admission
from mciot_nb.pki.admission import Uploaded, refusal
from mciot_nb.pki.chain import Chain, Given, Profile, each_of, examine, is_ca, profile_of
from mciot_nb.pki.crl import read_crl
from mciot_nb.pki.files import disk_errors, read_file
from mciot_nb.pki.keys import KEY_BLOCK, PrivateKey, is_key_of, read_private_key
from mciot_nb.pki.keystore import PKCS12_NAMES, read_key
from mciot_nb.pki.names import BY_ATTRIBUTE, common_name, name_of, readable
from mciot_nb.pki.uploads import parse_upload
from mciot_nb.pki.verdicts import strict_findings, the
from mciot_nb.secret import Secret, reveal

#: An end that is near, a difference in ends that counts, and one between clocks that somebody should look at.
SOON, A_DAY, CLOCKS_DIFFER = timedelta(days=14), timedelta(days=1), timedelta(minutes=2)
_CHAIN, _KEYSTORES = "deviceCertChain.pem", ("deviceKeystore.pkcs12", "deviceKeystore.jks")
_CAS = ("caCert.pem", "intermediateCert.pem")


@dataclass
class _Setup:
    """What a device has, as far as it can be read, and what was found on the way."""

    passphrase: Secret | str = ""
    chain: list[x509.Certificate] = field(default_factory=list)
    key: PrivateKey | None = None
    client_id: str = ""
    anchors: list[x509.Certificate] = field(default_factory=list)
    trusted: Sequence[x509.Certificate] = ()
    locate: Callable[[], tuple[str, int]] | None = None
    known: Sequence[Uploaded] = ()
    revoked: Mapping[int, datetime] = field(default_factory=dict)
    files: dict[str, Any] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def read_folder(self, folder: Path) -> None:
        """Read a folder like deviceCertificates, and what a CA has beside it."""
        there = [folder / name for name in (_CHAIN, *_KEYSTORES) if (folder / name).exists()] or [folder / _CHAIN]
        if not any(one.match("device*.*") for one in folder.iterdir()):  # glob passes over a folder that it can't read
            raise fault("NO_FILE.device", folder=folder)
        for path in (there[0], folder / "deviceKey.pem") if there[0].suffix == ".pem" else there[:1]:
            self.read_file(path)
        for path in (folder.parent / name for name in _CAS):
            with suppress(OnboardingError):
                self.anchors += parse_upload(read_file(path, ""), "It")
                self.files["anchor"] = path
        with suppress(OnboardingError):
            self.trusted = parse_upload(read_file(folder / "serverCertificate.pem", ""), "It")
        self.files |= zip(("crl",), (folder.parent / "crl").glob("*.pem"))  # noqa: B905 - one, if there is any

    def read_file(self, path: Path) -> None:
        """Read certificates, a key, or both, or a keystore."""
        try:
            data = read_file(path, f"There is no {path}: make it first, or correct the path.")
            is_store, is_key = path.suffix.lower() in (".jks", *PKCS12_NAMES), b"PRIVATE KEY" in data
            try:
                found = [] if is_store else parse_upload(KEY_BLOCK.sub(b"", data), str(path))
            except OnboardingError as error:
                is_store, found = error.code == "KEYSTORE", []
                is_key &= b"BEGIN CERTIFICATE" not in data
                is_key |= error.code == "PRIVATE_KEY"  # in another form than PEM, which is said below
                if not is_store and not is_key:
                    self.files.setdefault("chain", path)
                    raise OnboardingError(f"{path}: {error}", error.code) from None
            if is_store:
                self.files["keystore"] = path
                self.key, chain = read_key(path, self.passphrase)
                found = [*chain]
            elif found:
                self.files.setdefault("chain", path)
            self.chain += [one for one in found if one not in self.chain]  # each file has its own twice, if at all
            if is_key:
                self.files["key"] = path
                self.key = read_private_key(path, self.passphrase)
        except OnboardingError as error:
            if error.code == "WRONG_PASSPHRASE" and not reveal(self.passphrase):
                error = fault("NEED_PASSPHRASE.device", path=path)
            self.findings.append(Finding(error.code, str(error)))

    def check(self) -> Iterator[Finding]:
        """Yield why a client can't use what was read: key and first certificate, and what OpenSSL says of the files."""
        key, chain, files = self.key, self.chain, self.files
        if not key or not chain:
            return
        if "chain" in files and "key" in files and (problem := self._problem_of_openssl()):
            yield Finding(problem.code, str(problem), certificate=chain[0])
            if problem.code == "BAD_PEM":
                return chain.clear()  # there may be more in the file than could be read
        owner = next((number for number, one in enumerate(chain) if is_key_of(one, key)), 0)
        if owner:
            yield finding("KEY_MISMATCH.order", REFUSED, chain[0], number=owner + 1)
            chain.insert(0, chain.pop(owner))  # the rest is said of the device's own
        elif not is_key_of(chain[0], key):
            where, own = files.get("chain", files.get("keystore")), files.get("key", "that was given")
            yield finding("KEY_MISMATCH.device", REFUSED, chain[0], key=own, chain=where)

    def _problem_of_openssl(self) -> OnboardingError | None:
        """Return why OpenSSL does not take the certificates, which it reads before it looks at the key."""
        try:
            with suppress(SSL.Error):
                return SSL.Context(SSL.TLS_CLIENT_METHOD).use_certificate_chain_file(self.files["chain"])
            load_chain(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), self.files["chain"], self.files["key"], self.passphrase)
        except OnboardingError as error:
            return error
        return None


def diagnose_device(
    source: Device | Path | str | Iterable[Path | str],
    tenant: Tenant | None = None,
    *,
    client_id: str = "",
    passphrase: Secret | str = "",
    anchors: Given = (),
    profile: Profile | str | None = None,
    at: datetime | None = None,
) -> Diagnosis:
    """Say before a device connects whether it will be let in, and what is wrong with it.

    ``source`` is a folder such as ``deviceCertificates``, PEM files or a keystore, or a `Device`. A ``tenant`` is asked
    what it trusts; without one the ``anchors`` are taken to be uploaded, else the CA's beside the folder, else the end
    of the chain. The first finding that is `REFUSED` is what the client or the platform would say. Raises:
    OnboardingError: NO_FILE where there is nothing to look at; what `Tenant.request` does.

    Example: ``diagnose_device(workspace.device(tenant), tenant)``
    """
    setup, now = _read(source, passphrase), datetime.now(UTC)
    setup.known = [Uploaded(one) for one in each_of(anchors) or setup.anchors or filter(is_ca, setup.chain[-1:])]
    findings = [*setup.findings, *setup.check()]
    try:
        tenant = tenant and tenant.now
        findings += _server_findings(setup, tenant)
        if tenant:
            setup.known = [*_uploaded(tenant)]
            with suppress(OnboardingError):  # a platform without such a list, or a login that may not read it
                setup.revoked = tenant.trusted_certificates.revocations()
            now, clock = _clock(tenant, now)
            findings += clock
    except OnboardingError as error:
        if error.code != "NOT_REACHED" or not (tenant and tenant.is_local):
            raise  # as MQTT may answer where REST does not, and let the device in
        tenant = None
        findings += [] if error.code in [one.code for one in findings] else [Finding(error.code, str(error))]
    rules = profile_of(profile) if isinstance(profile, str) else profile
    rules, at = rules or (tenant.profile if tenant else profile_of("current")), (at or now).astimezone(UTC)
    if setup.chain:
        setup.client_id = client_id or setup.client_id or common_name(name_of(setup.chain[0])) or ""
        findings += _judge(setup, tenant, rules, at)
    elif not any(one.severity == REFUSED for one in findings):
        findings.append(refusal("NO_CREDENTIALS"))
    findings.sort(key=lambda one: one.severity != REFUSED)
    return Diagnosis(tuple(replace(one, files=setup.files) for one in findings))


def _read(source: Device | Path | str | Iterable[Path | str], passphrase: Secret | str) -> _Setup:
    if isinstance(source, Device):
        setup = _Setup("", [*source.chain], client_id=source.client_id, trusted=source.trusted, locate=source.locate)
        wrong = {"WEBSOCKET": source.options["transport"] != "tcp", "PLAIN_MQTT": not source.encrypted}
        setup.findings += [refusal(code) for code, is_so in wrong.items() if is_so]
        if (level := int(source.options["protocol"])) > 4:
            setup.findings.append(refusal("PROTOCOL_LEVEL", level=level))
        return setup
    setup = _Setup(passphrase)
    for path in map(Path, [source] if isinstance(source, str | Path) else source):
        with disk_errors(path):
            if not path.exists():
                raise OnboardingError(f"There is no {path}: make it first, or correct the path.", "NO_FILE")
            (setup.read_folder if path.is_dir() else setup.read_file)(path)
    return setup


def _server_findings(setup: _Setup, tenant: Tenant | None) -> Iterator[Finding]:
    """Yield why the device would not speak to its server, by a handshake without its certificate."""
    if not setup.locate and not tenant:
        return
    host, port = setup.locate() if setup.locate else tenant.mqtt if tenant else ("", 0)
    setup.files |= {"host": host, "port": port}
    context = client_context(setup.trusted or (tenant.trusted if tenant else None))
    try:
        with create_connection((host, port), TIMEOUT) as plain:
            secured = context.wrap_socket(plain, server_hostname=host)
            secured.settimeout(QUIET)
            with suppress(OSError):
                secured.unwrap()  # the server has closed it too, and its log has its record
    except (OSError, ValueError) as error:
        problem = connection_error(f"{host}:{port}", error)
        yield Finding(problem.code, str(problem))


def _uploaded(tenant: Tenant) -> Iterator[Uploaded]:
    for one in tenant.trusted_certificates.list():
        if one.certificate:
            proof = None if tenant.is_local else one.proven  # the local platform asks for none
            yield Uploaded(one.certificate, tenant.tenant_id, one.status, one.auto_registration, None, proof)
    yield from tenant.unlisted()


def _clock(tenant: Tenant, here: datetime) -> tuple[datetime, list[Finding]]:
    """Return the server's time, by which it judges, and what is to be said of this machine's clock."""
    (host, port), there = https_host(tenant.url), here
    with suppress(OSError, ValueError, OverflowError, http.client.HTTPException):
        context = client_context(tenant.trusted)
        with closing(http.client.HTTPSConnection(host, port, timeout=TIMEOUT, context=context)) as client:
            client.request("HEAD", "/tenant/currentTenant")
            there = parsedate_to_datetime(client.getresponse().headers["Date"]).astimezone(UTC)
    if abs(there - here) < CLOCKS_DIFFER:
        return here, []
    return there, [finding("CLOCK", WARNING, host=host, here=here, there=there)]


def _judge(setup: _Setup, tenant: Tenant | None, profile: Profile, at: datetime) -> Iterator[Finding]:
    """Yield what a platform has against a device, in its order, and then what is worth a look."""
    chain, known = setup.chain, setup.known
    anchors = {one.certificate: one for one in known if one.enabled}
    if not known and not tenant:
        subject, issuer = (readable(name_of(chain[-1], which)) for which in ("subject", "issuer"))
        yield finding("INCOMPLETE_CHAIN.issuer", REFUSED, chain[-1], subject=subject, issuer=issuer)
        return
    path, found = examine(chain, list(anchors), profile, at=at)
    trusted = anchors[path[-1]] if path else None
    if trusted and not tenant and not (is_ca(path[-1]) and path[-1].version == x509.Version.v3):
        unfit = finding("NOT_A_CA.upload", REFUSED, path[-1], subject=readable(name_of(path[-1])))
        found = [unfit, *(one for one in found if one.certificate != path[-1])]
    yield from (admission.with_reason(one, chain, known, at) for one in found)
    own = trusted if trusted and tenant and trusted.tenant == tenant.tenant_id else None
    if own and tenant and (listed := admission.check_revoked((*chain, own.certificate), setup.revoked)):
        heeded = profile.has_proof_and_revocation and tenant.trusted_certificates.checks_revocations()
        yield listed if heeded else finding("REVOKED.unchecked", WARNING, listed.certificate)
    if wrong := admission.check_client_id(setup.client_id, chain[0]):
        yield wrong
    elif trusted and tenant and not trusted.auto_registration:
        device = admission.device_identifier(setup.client_id)
        known_here = own is not None and tenant.devices.is_registered(device)
        yield from filter(None, [admission.check_registered(device, trusted, known_here)])
    if own and own.proven is False:
        yield finding("UNPROVEN", WARNING, own.certificate, subject=readable(name_of(own.certificate)))
    if trusted and tenant and not own:
        yield finding("OTHER_TENANT.anchor", WARNING, path[-1], owner=trusted.tenant, tenant=tenant.tenant_id)
    yield from _warnings(setup, path, at, superfluous=not found)


def _warnings(setup: _Setup, path: Chain, at: datetime, superfluous: bool) -> Iterator[Finding]:
    for one in setup.chain if path and superfluous else ():
        if one not in path:
            yield finding("CHAIN_ORDER.superfluous", WARNING, one, subject=readable(name_of(one)))
    for one in path:
        if timedelta() <= one.not_valid_after_utc - at < SOON:
            yield finding("EXPIRED.soon", WARNING, one, certificate=the(one), date=one.not_valid_after_utc)
    for one, issuer in itertools.pairwise(path):
        if one.not_valid_after_utc - (last := issuer.not_valid_after_utc) > A_DAY:  # a sum may be after the year 9999
            yield finding("OUTLIVES_CA.chain", WARNING, one, certificate=the(one), last=last)
    longest, name = BY_ATTRIBUTE["common_name"].longest, common_name(name_of(setup.chain[0])) or ""
    if len(name) > longest:
        yield finding("BAD_NAME.length", WARNING, setup.chain[0], length=len(name), longest=longest)
    with suppress(OnboardingError, KeyError):
        crl = read_crl(setup.files["crl"])
        if crl.next_update_utc and crl.next_update_utc < at:
            yield finding("CRL_EXPIRED", WARNING, path=setup.files["crl"], date=crl.next_update_utc)
        for one in setup.chain:
            if crl.issuer == one.issuer and crl.get_revoked_certificate_by_serial_number(one.serial_number):
                yield finding("REVOKED.listed", WARNING, one, certificate=the(one), path=setup.files["crl"])
    if path:
        yield from strict_findings(path, at)
