"""The device's part of the learner's folder: its key, request, certificate, chain and keystore.

What each making method does when it is called again, `ca_workspace` says.
"""

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from mciot_nb import earlier
from mciot_nb.ca_workspace import CaWorkspace
from mciot_nb.errors import OnboardingError
from mciot_nb.pki import keystore
from mciot_nb.pki.chain import build_chain, is_issued_by, read_certificates, to_pem
from mciot_nb.pki.files import write_whole
from mciot_nb.pki.keys import create_private_key, create_request, read_private_key, read_request
from mciot_nb.pki.names import DistinguishedName
from mciot_nb.secret import Secret

#: What the form offers, and what a notebook that was opened first catches up with.
DEFAULT_DEVICE = DistinguishedName("DE", "Bavaria", "Munich", "Example Company", "Device Onboarding", "device-0001")

#: The forms of the stores, as their files' names end.
STORE_KINDS = ("pkcs12", "jks")

#: The files of the tutorial's own device, under the guide's names. They move together.
DEVICE_FILES = (
    *("deviceKey.pem", "deviceCsr.pem", "deviceCert.pem", "deviceCertChain.pem"),
    *("deviceKeystore.pkcs12", "deviceKeystore.jks", "deviceTruststore.pkcs12", "deviceTruststore.jks"),
)


class DeviceWorkspace(CaWorkspace):
    """What `Workspace` knows of its own device."""

    def device_file(self, name: str) -> Path:
        """Give the path of one of the tutorial device's files, such as ``deviceCertChain.pem``."""
        return self.issuer_folder / "deviceCertificates" / name

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

    def create_keystore(self, kind: str = "pkcs12") -> Path:
        """Write deviceKeystore.pkcs12, or .jks: the device's key and chain under ``devicekeyentry`` (steps 1 and 2)."""
        path, password, chain = self._store("deviceKeystore", kind), self._store_passphrase(), self.create_chain()
        key = read_private_key(self.device_file("deviceKey.pem"), password)
        self._make_room(path, lambda: list(keystore.read_key(path, password, alias=keystore.KEY_ALIAS)[1]) == chain)
        if not path.exists():
            keystore.write_keystore(path, key, chain, password)
        return path

    def _store(self, name: str, kind: str) -> Path:
        if kind not in STORE_KINDS:
            raise OnboardingError(f"There is no store of kind {kind!r}: say {' or '.join(STORE_KINDS)}.", "BAD_NAME")
        return self.device_file(f"{name}.{kind}")

    def _store_passphrase(self) -> Secret:
        """Give the passphrase, which is the device key's and fit for a store, before anything moves for it.

        Raises OnboardingError where it is another one, or Java would not open a store with it.
        """
        passphrase = self.passphrase
        read_private_key(self.device_file("deviceKey.pem"), passphrase)
        try:
            keystore.store_password(passphrase)
        except OnboardingError as error:
            raise OnboardingError(
                f"{error} This workspace's own is not such a one: workspace.start_over() moves everything aside and "
                "begins anew with another.",
                error.code,
            ) from None
        return passphrase

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
