"""What goes wrong for people, made for real, and put right: the cases of ``data/failure_cases.csv``.

A row's ``setup`` says what is usual in its case, ``faults`` what is wrong with it, both as ``name=value; …``; that of
``good`` has what they leave out. A name with a dot is about one certificate, and else about the tenant or the client.
"""

import json
import shutil
import ssl
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from mciot_nb.connect.device import Device
from mciot_nb.connect.diagnosis import diagnose_device
from mciot_nb.connect.mqtt import connection_error
from mciot_nb.connect.tenant import Tenant
from mciot_nb.errors import Diagnosis, Finding, OnboardingError, fault
from mciot_nb.local_platform import LocalPlatform
from mciot_nb.pki.chain import fingerprint, read_certificates, to_pem
from mciot_nb.pki.config import GUIDE_CONFIG, read_config
from mciot_nb.pki.files import data_table, write_whole
from mciot_nb.pki.keys import PrivateKey, encode_passphrase, encrypted_pem
from mciot_nb.pki.names import DistinguishedName, common_name, name_of, readable
from mciot_nb.pki.signing import section_extensions
from mciot_nb.secret import Secret
from mciot_nb.workspace import Workspace

#: The rows of the table, by the names of their cases.
CASES = {row["name"]: row for row in data_table("failure_cases.csv")}
#: Seconds that are given to the platform to write its record, and to end a connection.
PATIENCE = 3.0
_EXTENSIONS = ("basicConstraints", "keyUsage", "extendedKeyUsage")
_ACCIDENTS: dict[str, Callable[[bytes], bytes]] = {
    "dashes": lambda pem: pem.replace(b"-----", "\N{EN DASH}".encode() * 5),
    "truncated": lambda pem: pem[: len(pem) // 4],
    "crlf": lambda pem: pem.replace(b"\n", b"\r\n"),
    "der": lambda pem: ssl.PEM_cert_to_DER_cert(pem[: pem.index(b"END") + 20].decode()),
}


def _settings(text: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in text.split("; ") if part)


class FailureCase:
    """One case, made for real when this is called: `remedy` puts it right, `leave` takes it out of the tenant again.

    It has a CA and a device of its own in ``folder``, and works with the local platform, also where a real tenant was
    chosen. One case at a time is in the tenant. What else is in the workspace and in the tenant stays as it is.

    Example: ``case = FailureCase(workspace, "namesake-ca")``; then ``case.diagnose()``, and ``case.attempt()``.
    """

    def __init__(self, workspace: Workspace, name: str) -> None:
        if name not in CASES:
            raise OnboardingError(f"There is no case {name!r}: use one of {', '.join(CASES)}.", "BAD_VALUE")
        self.row, self.name = CASES[name], f"lab-device-{list(CASES).index(name)}"  # which tells nothing of the case
        self.folder = workspace.folder / "laboratory" / name
        self.device_folder = self.folder / "deviceCertificates"
        self.platform, self._passphrase = workspace.platform(), workspace.passphrase
        self._admin, profile = self.platform.tenant, self.platform.profile
        if profile not in self.row["profiles"]:
            raise fault("OTHER_PROFILE.case", title=self.row["title"], profile=profile, other=self.row["profiles"])
        self._checks = self._admin.trusted_certificates.checks_revocations()
        self._signed: dict[str, dict[str, str]] = {}  # how each certificate was asked for
        self._certificates: dict[str, x509.Certificate] = {}
        self._keys: dict[str, PrivateKey] = {}
        self.leave()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.device_folder.mkdir(parents=True)
        self._make(_settings(self.row["faults"]))

    def remedy(self) -> Self:
        """Put right what is wrong, leave the rest as it is, and return the case."""
        self._make({})
        return self

    def leave(self) -> None:
        """Take what any case has left in the tenant out of it; the files stay until the case is made again."""
        trusted = self._admin.trusted_certificates
        own = {fingerprint(read_certificates(path)[0]) for path in self.folder.parent.glob("*/*Cert.pem")}
        for certificate in trusted.list():
            if certificate.fingerprint in own:
                trusted.delete(certificate)
        if self._admin.devices.find(self.name):
            self._admin.devices.delete(self.name)
        if trusted.checks_revocations() != self._checks:
            trusted.check_revocations(self._checks)

    def _make(self, faults: dict[str, str]) -> None:
        """Sign what was not asked for in this way before, write the chain, and arrange the tenant."""
        self.state = state = _settings(CASES["good"]["setup"]) | _settings(self.row["setup"]) | faults
        issuer, trusted = "", self._admin.trusted_certificates
        for link in state["links"].split():
            own = {name.partition(".")[2]: value for name, value in state.items() if name.startswith(f"{link}.")}
            if self._signed.get(link) != own:
                before = self._certificates.get(link)
                self._certificates[link] = self._sign(link, "" if link in ("ca", "namesake") else issuer, own)
                self._signed[link] = own
                if before and trusted.find(before):
                    trusted.delete(before)
            issuer = link
        if state["file"] != "missing":
            chain = _ACCIDENTS.get(state["file"], bytes)(to_pem(self._named("sent")))
            write_whole(self.file("device", "CertChain.pem"), chain, replace=True)
        if state["elsewhere"]:
            other = LocalPlatform.start(self.folder / "elsewhere", self.platform.profile)
            other.tenant.trusted_certificates.ensure(self._certificates["ca"])
            other.stop()
        if self._signed["device"].get("revoked"):
            trusted.revoke(self._certificates["device"])
            trusted.check_revocations()
        if self.row["group"] != "The upload" or not faults:
            self._upload()

    def _sign(self, link: str, issuer: str, own: dict[str, str]) -> x509.Certificate:
        """Sign a certificate by the guide's configuration, with what is asked for in place of its words."""
        is_device, now = link == "device", datetime.now(UTC).replace(microsecond=0)
        if is_device or link not in self._keys:
            weak = own.get("key") == "RSA 1024"
            key = rsa.generate_private_key(65537, 1024) if weak else ec.generate_private_key(ec.SECP256R1())
            pem = encrypted_pem(key, encode_passphrase(self._passphrase))
            write_whole(self.file(link, "Key.pem"), pem, private=True, replace=True)
            self._keys[link] = key
        key = ec.generate_private_key(ec.SECP256R1()) if own.get("key") == "another" else self._keys[link]
        kind = {"device": "", "ca": "CA of ", "namesake": "CA of "}.get(link, f"{link} of ")
        subject = DistinguishedName(organization="Laboratory", common_name=own.get("name", kind + self.name)).to_x509()
        config, section = read_config(GUIDE_CONFIG), own.get("section") or ("v3_signed" if is_device else "v3_ca")
        words = config.sections[section] | {name: value for name, value in own.items() if name in _EXTENSIONS}
        signer, config = self._certificates.get(issuer), replace(config, sections={section: words})
        begin, end = (now + timedelta(int(days)) for days in own.get("days", "-1 365").split())
        extensions = section_extensions(config, section, key.public_key(), signer)
        issuer_name, number = name_of(signer) if signer else subject, x509.random_serial_number()
        builder = x509.CertificateBuilder(issuer_name, subject, key.public_key(), number, begin, end, extensions)
        certificate = builder.sign(self._keys.get(issuer, key), SHA256())
        write_whole(self.file(link, "Cert.pem"), to_pem([certificate]), replace=True)
        return certificate

    def file(self, link: str, kind: str) -> Path:
        """Return the path of a file of the ``device`` or a CA of the case, such as ``Key.pem``."""
        return (self.device_folder if link == "device" else self.folder) / f"{link}{kind}"

    def _named(self, setting: str) -> list[x509.Certificate]:
        return [self._certificates[link] for link in self.state[setting].split()]

    def _upload(self) -> None:
        trusted, status, auto = self.tenant.trusted_certificates, self.state["status"], self.state["auto"] == "on"
        for certificate in self._named("uploaded"):
            trusted.ensure(certificate)
            if status == "DELETED":
                trusted.delete(certificate)
            else:
                trusted.update(certificate, status=status, auto_registration=auto)

    @property
    def tenant(self) -> Tenant:
        """The tenant, with the login that the case has for it."""
        if not self.state["login"]:
            return self._admin
        known = json.loads((self.platform.folder / "credentials.json").read_bytes())[self._admin.tenant_id]
        login = known["others"][0] if self.state["login"] == "viewer" else {"user": "nobody", "password": "nothing"}
        return replace(self._admin, user=login["user"], password=Secret(login["password"]))

    @property
    def passphrase(self) -> Secret:
        """The passphrase that the client has for the device's key."""
        return Secret(self.state["passphrase"]) if self.state["passphrase"] else self._passphrase

    @property
    def client_id(self) -> str:
        """The ClientId under which the device connects: its certificate's common name, unless that is the fault."""
        return self.state["client_id"] or common_name(name_of(self._certificates["device"])) or self.name

    def device(self, tls: ssl.TLSVersion | None = None) -> Device:
        """Return the device as its client is set up. Raises: OnboardingError: if its files do not let it get so far."""
        state, (host, port), server = self.state, self.platform.mqtt, self.platform.server_certificate
        chain, key = self.file("device", "CertChain.pem") if state["sent"] else None, self.file(state["key"], "Key.pem")
        trusted = self.file(state["trusted"], "Cert.pem") if state["trusted"] else server
        files: Any = {"chain": chain, "key": key, "passphrase": self.passphrase, "trusted": trusted}
        where = state["host"] or host, int(state["port"] or port)
        device = Device(*where, **files, client_id=self.client_id, tls=tls)
        device.encrypted = state["transport"] != "plain"
        device.options |= {"protocol": int(state["protocol"]), "transport": state["transport"].replace("plain", "tcp")}
        return device

    def diagnose(self, tls: ssl.TLSVersion | None = None) -> Diagnosis:
        """Say what will happen, before anything connects: of the device, or of its files where it can't be made."""
        try:
            source: Device | list[Path] = self.device(tls)
        except OnboardingError:
            source = [self.file("device", "CertChain.pem"), self.file(self.state["key"], "Key.pem")]
        try:
            return diagnose_device(source, self.tenant, client_id=self.client_id, passphrase=self.passphrase)
        except OnboardingError as error:  # there is nothing to look at, or the tenant says no
            return Diagnosis((Finding(error.code, str(error)),))

    def attempt(self, tls: ssl.TLSVersion | None = None) -> tuple[OnboardingError | None, dict[str, Any] | None]:
        """Connect; return why the client could not, and what the platform's log says of it, None where nothing came."""
        since, refusal, clients = max(self.platform.log().index, default=0), None, list[Device]()
        try:
            self._upload()
            for _ in range(int(self.state["clients"])):
                clients.append(self.device(tls))
                clients[-1].connect()
            clients[-1].create()  # so that the tenant has it, and can delete it
            self._wait(lambda: not (clients[1:] and clients[0].is_connected))
            if not clients[0].is_connected:
                raise connection_error("{}:{}".format(*self.platform.mqtt), notes=clients[0].notes)
        except OnboardingError as error:
            refusal = error
        if self.row["log"] or not refusal:
            self._wait(lambda: (found := self._record(since)) and (not clients[1:] or found["ending"]))
        record = self._record(since)
        for client in clients:
            client.disconnect()
        return refusal, record

    def _wait(self, condition: Callable[[], Any]) -> None:
        give_up = time.monotonic() + PATIENCE
        while not condition() and time.monotonic() < give_up:
            time.sleep(0.02)

    def _record(self, since: int) -> dict[str, Any] | None:
        """Return the log's first record of this case after the one numbered ``since``; a prediction leaves others."""
        log, subjects = self.platform.log(), ["", *(readable(name_of(one)) for one in self._certificates.values())]
        own = log[(log.index > since) & log["subject"].isin(subjects) & log["client_id"].isin(["", self.client_id])]
        return next((dict(row) for _, row in own.iterrows() if row["code"] != "NO_CONNECT"), None)
