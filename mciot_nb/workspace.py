"""The learner's folder: where each file of the guide lies, and how a notebook finds, makes or catches up with them.

Every making method can be called again: it finds what it made for the same input. Asked for something else, it moves
what was there to ``earlier/1`` (2, 3 …) and says so. Nothing is ever deleted.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from mciot_nb import earlier
from mciot_nb.ca_workspace import DEFAULT_CA, DEFAULT_INTERMEDIATE, CaWorkspace
from mciot_nb.connect.device import Device
from mciot_nb.connect.server import fetch_server_certificate
from mciot_nb.connect.settings import TenantSettings, keep_settings, read_settings, real_tenant
from mciot_nb.connect.tenant import Tenant, TrustedCertificate
from mciot_nb.errors import OnboardingError
from mciot_nb.pki import keystore
from mciot_nb.pki.chain import build_chain, is_issued_by, read_certificates, to_pem
from mciot_nb.pki.files import write_whole
from mciot_nb.pki.keys import create_private_key, create_request, read_private_key, read_request
from mciot_nb.pki.names import DistinguishedName
from mciot_nb.platform.launcher import LocalPlatform
from mciot_nb.secret import Secret

#: What the form offers, and what a notebook that was opened first catches up with.
DEFAULT_DEVICE = DistinguishedName("DE", "Bavaria", "Munich", "Example Company", "Device Onboarding", "device-0001")

#: What `Workspace.catch_up` can be asked for.
STEPS = ("ca", "intermediate", "issuer", "device", "chain", "stores", "upload")

#: The files of the tutorial's own device, under the guide's names. They move together.
DEVICE_FILES = (
    *("deviceKey.pem", "deviceCsr.pem", "deviceCert.pem", "deviceCertChain.pem"),
    *("deviceKeystore.pkcs12", "deviceKeystore.jks", "deviceTruststore.pkcs12", "deviceTruststore.jks"),
)


class Workspace(CaWorkspace):
    """The folder in which the tutorial works: ``MCIOT_WORKSPACE``, or ``workspace`` beside the notebooks."""

    def __init__(self, folder: Path | None = None) -> None:
        super().__init__(folder)
        self._tenant_secret: Secret | None = None

    def device_file(self, name: str) -> Path:
        """Give the path of one of the tutorial device's files, such as ``deviceCertChain.pem``."""
        return self.issuer_folder / "deviceCertificates" / name

    # The device ------------------------------------------------------------------------------------------------------

    @property
    def device_subject(self) -> DistinguishedName:
        """The subject that the tutorial's device asked for, or else the one that is suggested."""
        request = self.device_file("deviceCsr.pem")
        return DistinguishedName.from_x509(read_request(request).subject) if request.exists() else DEFAULT_DEVICE

    def create_device_key(self) -> Path:
        """Make the device's private key, encrypted, or find it (guide: "Creating a device certificate", step 2)."""
        key = self.device_file("deviceKey.pem")
        if not key.exists():
            self._move_device_aside("the files of a device whose key is missing")
            create_private_key(key, self.passphrase)
        return key

    def create_device_request(self, subject: DistinguishedName) -> x509.CertificateSigningRequest:
        """Make the device's signing request for ``subject``, or find it (step 3). Another device's files move aside.

        Raises OnboardingError where the issuer's policy would refuse ``subject``; then nothing has moved.
        """
        self._as_signed(subject.to_x509())
        path, key = self.device_file("deviceCsr.pem"), self.create_device_key()
        private_key = read_private_key(key, self.passphrase)
        if path.exists():
            request = read_request(path)
            if self.device_subject == subject and request.public_key() == private_key.public_key():
                return request
        self._move_device_aside("the files of the other device", but_a_lone_key=True)
        if not self._bring_back(subject):
            private_key = read_private_key(self.create_device_key(), self.passphrase)
            create_request(path, private_key, subject, self._config().string_mask)
        return read_request(path)

    def sign_device_request(self) -> x509.Certificate:
        """Let the CA, or the intermediate, sign the device's request, or find what it signed (step 4).

        A certificate that has expired moves aside, and a new one is signed.
        """
        path, request = self.device_file("deviceCert.pem"), read_request(self.device_file("deviceCsr.pem"))
        subject, issuer = self._as_signed(request.subject), self.issuer_certificate

        def fits(file: Path) -> bool:
            signed = read_certificates(file)[0]
            same = signed.public_key() == request.public_key() and signed.subject == subject
            return same and is_issued_by(signed, issuer) and signed.not_valid_after_utc > datetime.now(UTC)

        self._make_room(path, lambda: fits(path))
        if not path.exists():
            signer = self.signer()
            signer.update_database()  # the subject of an expired certificate is free again
            signed = signer.signed_for(request) or signer.sign(request)  # or signed, and then something was interrupted
            write_whole(path, to_pem([signed]))
        return read_certificates(path)[0]

    def create_chain(self) -> list[x509.Certificate]:
        """Write the device's certificate followed by its issuer's, the one to upload (guide: "Creating the chain …").

        Below an intermediate the chain ends with that, so that every platform takes it: two certificates.
        """
        device = read_certificates(self.device_file("deviceCert.pem"))[0]
        chain = build_chain(device, [self.issuer_certificate], up_to=self.issuer_certificate)
        path = self.device_file("deviceCertChain.pem")
        self._keep(path, lambda: read_certificates(path) == chain, to_pem(chain))
        return chain

    def fetch_server_certificate(self) -> x509.Certificate:
        """Put the platform's certificate beside the device's files ("Creating keystore and truststore", step 3)."""
        settings, path = self.tenant_settings, self.device_file("serverCertificate.pem")
        if settings.local:
            server = read_certificates(self.platform().server_certificate)[0]
        else:
            server = fetch_server_certificate(settings.mqtt_host, settings.mqtt_port)
        self._keep(path, lambda: read_certificates(path) == [server], to_pem([server]))
        return server

    def create_keystore(self) -> Path:
        """Write deviceKeystore.pkcs12: the device's key and chain under ``devicekeyentry`` (step 1)."""
        path, chain = self.device_file("deviceKeystore.pkcs12"), self.create_chain()
        key = read_private_key(self.device_file("deviceKey.pem"), self.passphrase)  # now the passphrase is proven
        self._make_room(path, lambda: keystore.read_store_certificates(path, self.passphrase) == chain)
        if not path.exists():
            keystore.write_keystore(path, key, chain, self.passphrase)
        return path

    def create_truststore(self) -> Path:
        """Write deviceTruststore.pkcs12: the platform's certificate under ``servercertificate`` (step 4)."""
        path, server = self.device_file("deviceTruststore.pkcs12"), self.fetch_server_certificate()
        read_private_key(self.device_file("deviceKey.pem"), self.passphrase)  # proves the passphrase
        self._make_room(path, lambda: keystore.read_store_certificates(path, self.passphrase) == [server])
        if not path.exists():
            keystore.write_truststore(path, {keystore.TRUST_ALIAS: server}, self.passphrase)
        return path

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
        return LocalPlatform.running(self.folder) or LocalPlatform.start(self.folder)

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

    def device(self, tenant: Tenant, client_id: str | None = None) -> Device:
        """Give the tutorial's device, ready to connect to ``tenant`` with its chain and key.

        ``client_id`` is the certificate's common name unless you give another.
        """
        return Device(
            *tenant.mqtt,
            chain=self.device_file("deviceCertChain.pem"),
            key=self.device_file("deviceKey.pem"),
            passphrase=self.passphrase,
            trusted=self.device_file("serverCertificate.pem") if tenant.is_local else None,
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
        yield "keystore and truststore", not self.device_file("deviceTruststore.pkcs12").exists()
        self.create_keystore()
        self.create_truststore()
        if last == "upload" and self.tenant_settings.local:  # a real tenant is asked for in 06 only
            tenant = self.tenant()
            yield "the upload", tenant.trusted_certificates.find(self.issuer_certificate) is None
            self.upload_ca(tenant)

    def start_over(self) -> None:
        """Stop the local platform and move everything that was made aside, for a fresh start."""
        if platform := LocalPlatform.running(self.folder):
            platform.stop()
        paths = [self.ca_folder, self.folder / "platform", self.folder / "issuer", self._passphrase.practice_file]
        self._move_aside(paths, "everything that was made")
        self._opened.clear()

    def _move_device_aside(self, what: str, but_a_lone_key: bool = False) -> None:
        """Move the device's files aside; with ``but_a_lone_key``, a key that nothing was made with yet may stay."""
        there = [self.device_file(name) for name in DEVICE_FILES if self.device_file(name).exists()]
        if not (but_a_lone_key and [path.name for path in there] == ["deviceKey.pem"]):
            self._move_aside(there, what)

    def _bring_back(self, subject: DistinguishedName) -> bool:
        """Take back the files of a device of this subject that this very issuer signed, if they moved aside once."""
        request = self.device_file("deviceCsr.pem").relative_to(self.folder)
        found = earlier.find_signed(self.folder, request, "deviceCert.pem", subject, self.issuer_certificate)
        if found is None:
            return False
        self._move_device_aside("the key that was made meanwhile")
        for name in DEVICE_FILES:
            if (found / name).exists():
                (found / name).rename(self.device_file(name))
        return True

    def _keep(self, path: Path, fits: Callable[[], bool], data: bytes) -> None:
        """Write a file of the device unless what is there fits; what does not fit moves aside."""
        self._make_room(path, fits)
        if not path.exists():
            write_whole(path, data)

    def _make_room(self, path: Path, fits: Callable[[], bool]) -> None:
        with suppress(OnboardingError):  # a file that can't be read does not fit
            if not path.exists() or fits():
                return
        self._move_aside([path], f"{path.name}, which no longer fits,")
