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
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from mciot_nb.connect.device import Device
from mciot_nb.connect.mqtt import connection_error
from mciot_nb.connect.tenant import Tenant
from mciot_nb.errors import OnboardingError
from mciot_nb.local_platform import LocalPlatform
from mciot_nb.pki.chain import read_certificates, to_pem
from mciot_nb.pki.config import GUIDE_CONFIG, read_config
from mciot_nb.pki.files import data_table, write_whole
from mciot_nb.pki.keys import PrivateKey, encode_passphrase, encrypted_pem
from mciot_nb.pki.names import DistinguishedName, common_name, name_of, readable
from mciot_nb.pki.signing import section_extensions
from mciot_nb.secret import Secret
from mciot_nb.workspace import Workspace

#: The rows of the table, by the names of their cases.
CASES = {row["name"]: row for row in data_table("failure_cases.csv")}
_EXTENSIONS = ("basicConstraints", "keyUsage", "extendedKeyUsage")
#: Seconds that are given to the platform to write its record, and to end a connection.
PATIENCE = 3.0
_ACCIDENTS: dict[str, Callable[[bytes], bytes]] = {
    "dashes": lambda pem: pem.replace(b"-----", "\N{EN DASH}".encode() * 5),
    "truncated": lambda pem: pem[: len(pem) // 4],
    "crlf": lambda pem: pem.replace(b"\n", b"\r\n"),
    "der": lambda pem: ssl.PEM_cert_to_DER_cert(pem[: pem.index(b"END") + 20].decode()),
}


def _settings(text: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in text.split("; ") if part)


class FailureCase:
    """One case, made when this is called; `remedy` puts it right, and `leave` takes it out of the tenant again.

    It has a CA and a device of its own in ``folder``, and the local platform's tenant, also where a real one was
    chosen; what else is in the workspace and in the tenant stays as it is.

    Example: ``case = FailureCase(workspace, "namesake-ca")``, and ``case.attempt()`` is the refusal, and the log's row.
    """

    def __init__(self, workspace: Workspace, name: str) -> None:
        if name not in CASES:
            raise OnboardingError(f"There is no case {name!r}: use one of {', '.join(CASES)}.", "BAD_VALUE")
        self.name, self.row, self.folder = name, CASES[name], workspace.folder / "laboratory" / name
        self.device_folder = self.folder / "deviceCertificates"
        self.platform, self._passphrase = workspace.platform(), workspace.passphrase
        self._admin = self.platform.tenant
        self._made: dict[str, dict[str, str]] = {}  # how each certificate was asked for
        self._certificates: dict[str, x509.Certificate] = {}
        self._keys: dict[str, PrivateKey] = {}
        self._checks = self._admin.trusted_certificates.checks_revocations()
        self.leave()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.device_folder.mkdir(parents=True)
        self._make(_settings(self.row["faults"]))

    def remedy(self) -> str:
        """Put right what is wrong, leave the rest as it is, and return the sentence that says what was done."""
        self._make({})
        return self.row["remedy"]

    def leave(self) -> None:
        """Take the case's certificates and its device out of the tenant; its files stay until it is made again."""
        trusted = self._admin.trusted_certificates
        for certificate in [read_certificates(path)[0] for path in self.folder.glob("*Cert.pem")]:
            if trusted.find(certificate):
                trusted.delete(certificate)
        if self._admin.devices.find(f"lab-{self.name}"):
            self._admin.devices.delete(f"lab-{self.name}")
        if trusted.checks_revocations() != self._checks:
            trusted.check_revocations(self._checks)

    # Files and tenant ------------------------------------------------------------------------------------------------

    def _make(self, faults: dict[str, str]) -> None:
        """Sign what was not asked for in this way before, write the chain, and arrange the tenant."""
        self._state = _settings(CASES["good"]["setup"]) | _settings(self.row["setup"]) | faults
        issuer, before = "", list(self._certificates.values())
        for link in self._state["links"].split():
            own = {name.partition(".")[2]: value for name, value in self._state.items() if name.startswith(f"{link}.")}
            issuer = "" if link in ("ca", "namesake") else issuer
            if self._made.get(link) != own:
                self._made[link], self._certificates[link] = own, self._sign(link, issuer, own)
            issuer = link
        chain, file = to_pem(self._named("sent")), self._state["file"]
        path, accident = self.device_folder / "deviceCertChain.pem", _ACCIDENTS.get(file, bytes)
        if file != "missing":
            write_whole(path, accident(chain), replace=True)
        trusted = self._admin.trusted_certificates
        for old in before:
            if old not in self._named("uploaded") and trusted.find(old):
                trusted.delete(old)
        if self._state["elsewhere"]:
            other = LocalPlatform.start(self.folder / "elsewhere", self.platform.profile)
            other.tenant.trusted_certificates.ensure(self._certificates["ca"])
            other.stop()
        if self._made["device"].get("revoked"):
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
            write_whole(self._file(link, "Key.pem"), pem, private=True, replace=True)
            self._keys[link] = key
        key = ec.generate_private_key(ec.SECP256R1()) if own.get("key") == "another" else self._keys[link]
        what = {"namesake": "CA", "ca": "CA"}.get(link, link)
        name = own.get("name", f"lab-{self.name}" if is_device else f"Laboratory {what} of {self.name}")
        subject = DistinguishedName(organization="Laboratory", common_name=name).to_x509()
        signer, signer_key = self._certificates.get(issuer), self._keys.get(issuer, key)
        begin, end = (now + timedelta(int(days)) for days in own.get("days", "-1 365").split())
        config, section = read_config(GUIDE_CONFIG), own.get("section") or ("v3_signed" if is_device else "v3_ca")
        words = config.sections[section] | {name: value for name, value in own.items() if name in _EXTENSIONS}
        config = replace(config, sections={section: words})
        number, extensions = x509.random_serial_number(), section_extensions(config, section, key.public_key(), signer)
        names = name_of(signer) if signer else subject, subject
        made = x509.CertificateBuilder(*names, key.public_key(), number, begin, end, extensions)
        certificate = made.sign(signer_key, SHA256())
        write_whole(self._file(link, "Cert.pem"), to_pem([certificate]), replace=True)
        return certificate

    def _file(self, link: str, kind: str) -> Path:
        return (self.device_folder if link == "device" else self.folder) / f"{link}{kind}"

    def _named(self, setting: str) -> list[x509.Certificate]:
        return [self._certificates[link] for link in self._state[setting].split()]

    def _upload(self) -> None:
        trusted, status, auto = self.tenant.trusted_certificates, self._state["status"], self._state["auto"] == "on"
        for certificate in self._named("uploaded"):
            trusted.ensure(certificate, auto_registration=auto)
            if status == "DELETED":
                trusted.delete(certificate)
            else:
                trusted.update(certificate, status=status, auto_registration=auto)

    @property
    def tenant(self) -> Tenant:
        """The tenant, with the login that the case has for it."""
        if not self._state["login"]:
            return self._admin
        known = json.loads((self.platform.folder / "credentials.json").read_bytes())[self._admin.tenant_id]
        login = known["others"][0] if self._state["login"] == "viewer" else {"user": "nobody", "password": "nothing"}
        return replace(self._admin, user=login["user"], password=Secret(login["password"]))

    # The client ------------------------------------------------------------------------------------------------------

    @property
    def client_id(self) -> str:
        """The ClientId under which the device connects: its certificate's common name, unless that is the fault."""
        return self._state["client_id"] or common_name(name_of(self._certificates["device"])) or f"lab-{self.name}"

    @property
    def passphrase(self) -> Secret:
        """The passphrase that the client has for the device's key."""
        return Secret(self._state["passphrase"]) if self._state["passphrase"] else self._passphrase

    def device(self, tls: ssl.TLSVersion | None = None) -> Device:
        """Return the device as its client is set up. Raises: OnboardingError: if its files do not let it get so far."""
        state, (host, port) = self._state, self.platform.mqtt
        device = Device(
            state["host"] or host,
            int(state["port"] or port),
            chain=self.device_folder / "deviceCertChain.pem" if state["sent"] else None,
            key=self._file(state["key"], "Key.pem"),
            passphrase=self.passphrase,
            trusted=self._file(state["trusted"], "Cert.pem") if state["trusted"] else self.platform.server_certificate,
            client_id=self.client_id,
            tls=tls,
        )
        device.encrypted = state["transport"] != "plain"
        device.options["protocol"] = int(state["protocol"])
        device.options["transport"] = "websockets" if state["transport"] == "websockets" else "tcp"
        return device

    def attempt(self, tls: ssl.TLSVersion | None = None) -> tuple[OnboardingError | None, dict[str, Any] | None]:
        """Connect, and return why the client could not, and what the platform's log says of it; None for neither."""
        since, refusal, clients = max(self.platform.log().index, default=0), None, list[Device]()
        try:
            self._upload()
            clients += [self.device(tls) for _ in range(int(self._state["clients"]))]
            for client in clients:
                client.connect()
            give_up = time.monotonic() + PATIENCE * (len(clients) - 1)
            while clients[0].is_connected and time.monotonic() < give_up:
                time.sleep(0.05)
            clients[-1].create()  # so that the tenant has it, and can delete it
            if not clients[0].is_connected:
                raise connection_error("{}:{}".format(*self.platform.mqtt), notes=clients[0].notes)
        except OnboardingError as error:
            refusal = error
        give_up, record = time.monotonic() + PATIENCE, self._record(since)
        while self._lacks(record, refusal) and time.monotonic() < give_up:
            time.sleep(0.05)
            record = self._record(since)
        for client in clients:
            client.disconnect()
        return refusal, record

    def _lacks(self, record: dict[str, Any] | None, refusal: OnboardingError | None) -> bool:
        """Whether the log will say more of an attempt."""
        if record is None:
            return bool(self.row["log"] or not refusal)
        return bool(refusal) and record["code"] == "CONNECTED" and not record["ending"]

    def _record(self, since: int) -> dict[str, Any] | None:
        """Return the log's first record of this case after the one numbered ``since``."""
        log, subjects = self.platform.log(), ["", *(readable(name_of(one)) for one in self._certificates.values())]
        own = log[(log.index > since) & log["subject"].isin(subjects) & log["client_id"].isin(["", self.client_id])]
        return dict(own.iloc[0]) if len(own) else None
