"""The learner's folder, whole: the CA's part and the device's, whom it believes, its tenant, and how to catch up.

Every making method can be called again: it finds what it made for the same input. Asked for something else, it moves
what was there to ``earlier/1`` (2, 3 …) and says so. Nothing is ever deleted.
"""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from mciot_nb.ca_workspace import DEFAULT_CA, DEFAULT_INTERMEDIATE
from mciot_nb.connect.device import Device
from mciot_nb.connect.server import CHOICES, ServerCertificate, fetch_server_certificate
from mciot_nb.connect.settings import TenantSettings, keep_settings, read_settings, real_tenant
from mciot_nb.connect.tenant import Tenant, TrustedCertificate
from mciot_nb.device_workspace import STORE_KINDS, DeviceWorkspace
from mciot_nb.errors import OnboardingError
from mciot_nb.pki import keystore
from mciot_nb.pki.chain import PROFILES, is_ca, is_issued_by, read_certificates, to_pem
from mciot_nb.pki.files import write_whole
from mciot_nb.platform.launcher import LocalPlatform
from mciot_nb.secret import Secret

#: What `Workspace.catch_up` can be asked for.
STEPS = ("ca", "intermediate", "issuer", "device", "chain", "stores", "upload")


class Workspace(DeviceWorkspace):
    """The folder in which the tutorial works: ``MCIOT_WORKSPACE``, or ``workspace`` beside the notebooks."""

    def __init__(self, folder: Path | None = None) -> None:
        super().__init__(folder)
        self._tenant_secret: Secret | None = None

    # Whom the device believes ----------------------------------------------------------------------------------------

    def fetch_server_certificate(self, fingerprint: str = "") -> ServerCertificate:
        """Put the platform's certificate beside the device's files ("Creating keystore and truststore", step 3).

        It is fetched from the MQTT port, and proven: the local platform's by its own file, a real one's by this
        system's trust, or else by the SHA-256 ``fingerprint`` that its operator told you by another way, once.

        Raises OnboardingError where nothing proves it; then the file stays as it was.
        """
        server = fetch_server_certificate(*self._mqtt())
        proof = self._proof_of(server.certificate)
        if fingerprint:
            server, by = server.proven(fingerprint), "fingerprint"
        if self.tenant_settings.local:
            server, by = server.proven(_sha256(self._platforms_own()), "the platform's own file"), "platform"
        elif not fingerprint and proof == "fingerprint" and server.certificate.not_valid_after_utc > datetime.now(UTC):
            server, by = server.proven(_sha256(server.certificate), "you, once before"), "fingerprint"
        elif not fingerprint:
            server, by = server.proven(), "system"
        path, pem = self.device_file("serverCertificate.pem"), to_pem([server.certificate])
        self._keep(path, lambda: read_certificates(path) == [server.certificate], pem)
        known = {"mqtt": f"{server.host}:{server.port}", "sha256": _sha256(server.certificate), "by": by}
        write_whole(self.folder / "server.json", json.dumps(known).encode(), replace=True)
        return server

    def create_truststore(self, kind: str = "pkcs12", trust: str = "") -> Path:
        """Write deviceTruststore.pkcs12, or .jks: whom the device believes, under ``servercertificate`` (step 4).

        ``trust`` is ``server`` for the server's own certificate, or ``issuer`` for its issuer's; unless you say, what
        was chosen before, and the server's at first.
        """
        if trust not in ("", *CHOICES):
            raise OnboardingError(f"There is no choice {trust!r}: say {' or '.join(CHOICES)}.", "NO_CHOICE")
        path, password, kept = self._store("deviceTruststore", kind), self._store_passphrase(), self._kept_server()
        trust = trust or self._chosen_before()
        if trust == "server" and self.tenant_settings.local and kept == self._platforms_own():
            wanted = kept  # no need to ask the platform again
        else:
            wanted = self.fetch_server_certificate().to_trust(trust)
        self._make_room(path, lambda: keystore.read_store(path, password).trusted == {keystore.TRUST_ALIAS: wanted})
        if not path.exists():
            keystore.write_truststore(path, {keystore.TRUST_ALIAS: wanted}, password)
        return path

    def trusted_file(self, tenant: Tenant) -> Path | None:
        """Give serverCertificate.pem where it proves the tenant's server; None where the system knows it by itself."""
        path = self.device_file("serverCertificate.pem")
        by_fingerprint = self._proof_of(self._kept_server(), tenant.mqtt) == "fingerprint"
        return path if tenant.is_local or by_fingerprint else None

    def _mqtt(self) -> tuple[str, int]:
        settings = self.tenant_settings
        return self.platform().mqtt if settings.local else (settings.mqtt_host, settings.mqtt_port)

    def _platforms_own(self) -> x509.Certificate:
        """The local platform's certificate, as its own file has it."""
        return read_certificates(self.platform().server_certificate)[0]

    def _kept_server(self) -> x509.Certificate | None:
        """What serverCertificate.pem holds; None where it is missing or can't be read."""
        with suppress(OnboardingError):
            return read_certificates(self.device_file("serverCertificate.pem"))[0]
        return None

    def _proof_of(self, certificate: x509.Certificate | None, mqtt: tuple[str, int] | None = None) -> str:
        """What proved a certificate for an MQTT address before: platform, system or fingerprint; empty for nothing."""
        host, port = mqtt or self._mqtt()
        with suppress(OSError, ValueError, TypeError, KeyError):  # nothing was, or the file is none of ours
            known = json.loads((self.folder / "server.json").read_text(encoding="utf-8"))
            if certificate and (known["mqtt"], known["sha256"]) == (f"{host}:{port}", _sha256(certificate)):
                return str(known["by"])
        return ""

    def _trusted_before(self, kind: str) -> x509.Certificate | None:
        with suppress(OnboardingError):
            store = keystore.read_store(self.device_file(f"deviceTruststore.{kind}"), self.passphrase)
            return store.trusted.get(keystore.TRUST_ALIAS) if len(store.entries) == 1 else None
        return None

    def _chosen_before(self) -> str:
        """Whom the truststores that are there believe: ``issuer`` where it is a CA, or else ``server``."""
        before = [trusted for kind in STORE_KINDS if (trusted := self._trusted_before(kind))]
        return "issuer" if before and is_ca(before[0]) else "server"

    def _truststore_fits(self, kind: str) -> bool:
        """Whether a truststore that is there may stay, as far as can be said without asking the server."""
        kept, before = self._kept_server(), self._trusted_before(kind)
        if kept is None or before is None or not self._proof_of(kept):
            return False
        current = kept == self._platforms_own() if self.tenant_settings.local else True
        return current and (before == kept or (is_ca(before) and is_issued_by(kept, before)))

    # The tenant -------------------------------------------------------------------------------------------------------

    @property
    def tenant_settings(self) -> TenantSettings:
        """Which tenant was chosen: the environment's, the one kept in ``tenant.json``, or the local platform."""
        return read_settings(self.folder)

    def choose_tenant(self, settings: TenantSettings, secret: Secret | None = None) -> None:
        """Keep the choice for all notebooks; ``secret``, a password or bearer token, in this notebook's memory only."""
        if os.environ.get("MCIOT_URL"):
            raise OnboardingError("MCIOT_URL names the tenant already, and goes before this form: unset it first.")
        keep_settings(self.folder, settings)
        self._tenant_secret = secret

    def tenant(self) -> Tenant:
        """Give the tenant that was chosen: the local platform, started if need be, or the real one.

        Raises OnboardingError where a real tenant's password or token has not been typed in this notebook.
        """
        settings = self.tenant_settings
        return self.platform().tenant if settings.local else real_tenant(settings, self._tenant_secret)

    def platform(self) -> LocalPlatform:
        """Start the local platform, or find the one that runs for this workspace, whichever profile it has."""
        return LocalPlatform.running(self.folder) or LocalPlatform.start(self.folder, self.tenant_settings.profile)

    def use_profile(self, profile: str) -> LocalPlatform:
        """Let the local platform keep the rules of ``guide-2021`` or of ``current``, now and the next time.

        It is started anew if it kept others; what was uploaded stays. Raises OnboardingError for another profile.
        """
        if profile not in PROFILES:
            raise OnboardingError(f"There is no profile {profile!r}: say {' or '.join(PROFILES)}.", "NO_PROFILE")
        if not os.environ.get("MCIOT_URL"):  # else what is kept is not what holds
            keep_settings(self.folder, replace(self.tenant_settings, profile=profile))
        running = LocalPlatform.running(self.folder)
        if running and running.profile != profile:
            running.stop()
        return LocalPlatform.start(self.folder, profile)

    def upload_ca(
        self, tenant: Tenant, *, practice_ca: bool = False, auto_registration: bool | None = None
    ) -> TrustedCertificate:
        """Upload the certificate of the CA, or of the intermediate if that signs, or find it in the tenant.

        A CA whose passphrase lies in the workspace is for practice: a real tenant gets it only with
        ``practice_ca=True``, and then without auto-registration unless you ask for it.
        """
        practice = self._passphrase.is_practice
        if practice and not tenant.is_local and not practice_ca:
            raise OnboardingError(
                "Stop here: the passphrase of this CA lies in the workspace, so whoever reads that folder could sign "
                "devices for your tenant. Type a passphrase of your own in 01, or call upload_ca(tenant, "
                "practice_ca=True) for a short test and delete the certificate afterwards.",
                "PRACTICE_CA",
            )
        if auto_registration is None:
            auto_registration = tenant.is_local or not practice
        return tenant.trusted_certificates.ensure(self.issuer_certificate, auto_registration=auto_registration)

    def prove_possession(self, tenant: Tenant) -> TrustedCertificate:
        """Prove to the tenant that the key of the uploaded CA, or of the intermediate if that signs, is here.

        Raises OnboardingError where the certificate is not uploaded, or the platform is of the guide's time.
        """
        return tenant.trusted_certificates.prove_possession(self.issuer_certificate, self.signer().key)

    def device(self, tenant: Tenant, client_id: str | None = None) -> Device:
        """Give the tutorial's device, ready to connect to ``tenant`` with its chain and key.

        ``client_id`` is the certificate's common name unless you give another.
        """
        return Device(
            *tenant.mqtt,
            chain=self.device_file("deviceCertChain.pem"),
            key=self.device_file("deviceKey.pem"),
            passphrase=self.passphrase,
            trusted=self.trusted_file(tenant),
            client_id=client_id,
        )

    # Catching up, starting over ---------------------------------------------------------------------------------------

    def catch_up(self, step: str) -> None:
        """Make, with the defaults, what is missing up to ``step``, one of `STEPS`; ``issuer`` is whoever was chosen.

        What is there stays. One sentence says what was made, or nothing is said.
        """
        if step not in STEPS:
            raise OnboardingError(f"There is no step {step!r}: use {', '.join(STEPS)}.")
        made = [name for name, missing in self._steps_to(step) if missing]
        if made:
            print(f"Made with the defaults, because it was not there yet: {', '.join(made)}.")

    def _steps_to(self, last: str) -> Iterator[tuple[str, bool]]:
        """Do the steps up to ``last``; give each one's name, and whether it was missing."""
        yield "the CA", not self.has_ca
        if not self.has_ca:
            self.create_ca(DEFAULT_CA)
        if last == "ca":
            return
        if last == "intermediate" or self.issuer == "intermediate":
            yield "the intermediate CA", not self.has_intermediate
            if not self.has_intermediate:
                self.create_intermediate(DEFAULT_INTERMEDIATE)
        if last in ("intermediate", "issuer"):
            return
        yield "the device certificate", not self.device_file("deviceCert.pem").exists()
        if not all(self.device_file(name).exists() for name in ("deviceCsr.pem", "deviceCert.pem")):
            self.create_device_request(self.device_subject)
        self.sign_device_request()
        if last == "device":
            return
        yield "the chain", not self.device_file("deviceCertChain.pem").exists()
        self.create_chain()
        if last == "chain":
            return
        stores = [self.device_file(f"device{name}store.{kind}") for name in ("Key", "Trust") for kind in STORE_KINDS]
        yield "keystore and truststore", not all(path.exists() for path in stores)
        for kind in STORE_KINDS:
            self.create_keystore(kind)
            if not self._truststore_fits(kind):
                self.create_truststore(kind)
        if last == "upload" and self.tenant_settings.local:  # a real tenant is asked for in 06 only
            tenant = self.tenant()
            yield "the upload", tenant.trusted_certificates.find(self.issuer_certificate) is None
            self.upload_ca(tenant)

    def start_over(self) -> None:
        """Stop the local platform and move everything that was made aside, for a fresh start."""
        if platform := LocalPlatform.running(self.folder):
            platform.stop()
        paths = [
            self.ca_folder,
            self.folder / "platform",
            self.folder / "issuer",
            self.folder / "server.json",
            self._passphrase.practice_file,
        ]
        self._move_aside(paths, "everything that was made")
        self._opened.clear()


def _sha256(certificate: x509.Certificate) -> str:
    return certificate.fingerprint(SHA256()).hex()
