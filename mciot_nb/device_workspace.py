"""The device's part of the learner's folder: its key, request, certificate, chain and keystore.

What each making method does when it is called again, `ca_workspace` says.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from mciot_nb import earlier
from mciot_nb.ca_workspace import CaWorkspace, as_far_as
from mciot_nb.errors import OnboardingError
from mciot_nb.pki import keystore
from mciot_nb.pki.authority import DEVICE_DAYS, CertificateAuthority
from mciot_nb.pki.chain import build_chain, is_issued_by, read_certificates, to_pem
from mciot_nb.pki.files import write_whole
from mciot_nb.pki.keys import (
    KEY_SIZE,
    KeyChoice,
    PrivateKey,
    check_bits,
    create_key,
    create_request,
    key_bits,
    read_private_key,
    read_request,
)
from mciot_nb.pki.names import DistinguishedName, oneline
from mciot_nb.pki.signing import days_below, moment
from mciot_nb.secret import Secret

#: What the form offers, and what a notebook that was opened first catches up with.
DEFAULT_DEVICE = DistinguishedName("DE", "Bavaria", "Munich", "Example Company", "Device Onboarding", "device-0001")
DEFAULT_DEVICE_KEY = KeyChoice(KEY_SIZE, DEVICE_DAYS)

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

    @property
    def device_key_choice(self) -> KeyChoice:
        """The kind of key and the days of the device that is there, or else the guide's, as far as the issuer has."""
        choice, request = DEFAULT_DEVICE_KEY, self.device_file("deviceCsr.pem")
        with suppress(OnboardingError):  # there may be nobody to sign yet, no key, no certificate
            choice = as_far_as(self.issuer_certificate, choice)
            choice = choice.changed(key_bits(read_request(request) if request.exists() else self._open_key()))
            signed = read_certificates(self.device_file("deviceCert.pem"))[0]
            return KeyChoice.of(signed) if self._is_for_the_request(signed) else choice
        return choice

    def create_device_key(self, bits: int | None = None) -> Path:
        """Make the device's private key, encrypted, or find it (guide: "Creating a device certificate", step 2).

        ``bits`` are those of an RSA key, or 256 for P-256. Where you ask for none, a key that is there may be any, and
        a new one is the guide's. The files of a device with another kind of key move aside.
        """
        key, asked, moved = self.device_file("deviceKey.pem"), DEFAULT_DEVICE_KEY.changed(bits).bits, None
        if bits is not None and key.exists() and bits != key_bits(self._open_key()):
            check_bits(bits)  # before anything moves
            moved = self._move_device_aside("the files of the device, whose key is of another kind,")
        if not key.exists():
            check_bits(asked)
            moved = moved or self._move_device_aside("the files of a device whose key is missing")
            with self._back_without_a_key(moved):
                create_key(key, self.passphrase, asked)
        return key

    def create_device_request(
        self, subject: DistinguishedName, bits: int | None = None
    ) -> x509.CertificateSigningRequest:
        """Make the device's signing request for ``subject``, or find it (step 3). Another device's files move aside.

        ``bits`` are as in `create_device_key`. Raises OnboardingError where the issuer's policy would refuse
        ``subject``; then nothing has moved.
        """
        self._as_signed(subject.to_x509())
        path = self.device_file("deviceCsr.pem")
        self.create_device_key(bits)
        if path.exists():
            request = read_request(path)
            if self.device_subject == subject and request.public_key() == self._open_key().public_key():
                return request
        moved = self._move_device_aside("the files of the other device", but_a_lone_key=True)
        if not self._bring_back(subject, bits):
            with self._back_without_a_key(moved):
                self.create_device_key(bits)
            create_request(path, self._open_key(), subject, self._config().string_mask)
        return read_request(path)

    def sign_device_request(self, *, days: int | None = None) -> x509.Certificate:
        """Let the CA, or the intermediate, sign the device's request, or find what it signed (step 4).

        Where you ask for no ``days``, what is there may have any, and a new certificate has the guide's 365, or what is
        left of the issuer's own. One that has expired, or is valid for other days, moves aside.

        Raises OnboardingError, SUBJECT_TAKEN, where the database has another valid certificate for the subject, of
        another key or for other days; then nothing has moved.
        """
        path, request = self.device_file("deviceCert.pem"), read_request(self.device_file("deviceCsr.pem"))
        self._as_signed(request.subject)
        with suppress(OnboardingError):  # a file that can't be read does not fit
            there = read_certificates(path)[0]
            if self._is_for_the_request(there, days):
                earlier.mention_revoked(self._config(), there)
                return there
        signer = self.signer()
        signer.update_database()  # the subject of an expired certificate is free again
        signed = signer.signed_for(request)  # and then something was interrupted
        if signed is None or days not in (None, KeyChoice.of(signed).days):
            signed = self._sign(signer, request, days)
        self._keep(path, lambda: read_certificates(path) == [signed], to_pem([signed]))
        return signed

    def _sign(
        self, signer: CertificateAuthority, request: x509.CertificateSigningRequest, days: int | None
    ) -> x509.Certificate:
        begin = moment(None)
        if days is None:
            days = days_below(signer.certificate, begin, DEFAULT_DEVICE_KEY.days)
        try:
            return signer.sign(request, days=days, at=begin)
        except OnboardingError as error:
            if error.code != "SUBJECT_TAKEN":
                raise
            serial = signer.database.index().valid[oneline(self._as_signed(request.subject))]
            raise OnboardingError(
                f"{error} To revoke it, run workspace.signer().revoke(0x{serial:X}, 'superseded') in a cell of its "
                "own, and then this cell again.",
                error.code,
            ) from None

    def _is_for_the_request(self, signed: x509.Certificate, days: int | None = None) -> bool:
        """Whether a certificate is what the issuer signs for the device's request, and valid still, for ``days``."""
        request, choice = read_request(self.device_file("deviceCsr.pem")), KeyChoice.of(signed)
        same = signed.public_key() == request.public_key() and signed.subject == self._as_signed(request.subject)
        valid = is_issued_by(signed, self.issuer_certificate) and signed.not_valid_after_utc > datetime.now(UTC)
        return same and valid and choice == choice.changed(days=days)

    def _open_key(self) -> PrivateKey:
        return read_private_key(self.device_file("deviceKey.pem"), self.passphrase)

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
        key = self._open_key()
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

    def _move_device_aside(self, what: str, but_a_lone_key: bool = False) -> Path | None:
        """Move the device's files aside and give their folder; None where there are none.

        With ``but_a_lone_key``, a key that nothing was made with yet may stay.
        """
        there = [self.device_file(name) for name in DEVICE_FILES if self.device_file(name).exists()]
        if not there or (but_a_lone_key and [path.name for path in there] == ["deviceKey.pem"]):
            return None
        return self._move_aside(there, what) / there[0].parent.relative_to(self.folder)

    @contextmanager
    def _back_without_a_key(self, moved: Path | None) -> Iterator[None]:
        """Take back what moved aside for a new key where none is made: the disk is full, or somebody cancels."""
        try:
            yield
        except BaseException:
            if moved and not self.device_file("deviceKey.pem").exists():
                self._take_back(moved)
                print("Moved them back.")
            raise

    def _take_back(self, folder: Path) -> None:
        for name in DEVICE_FILES:
            if (folder / name).exists():
                (folder / name).rename(self.device_file(name))

    def _bring_back(self, subject: DistinguishedName, bits: int | None) -> bool:
        """Take back the files of such a device that this very issuer signed, and has not revoked, if they are there."""

        def fits(signed: x509.Certificate) -> bool:
            return bits in (None, key_bits(signed)) and not earlier.is_revoked(self._config(), signed)

        request = self.device_file("deviceCsr.pem").relative_to(self.folder)
        found = earlier.find_signed(self.folder, request, "deviceCert.pem", subject, self.issuer_certificate, fits)
        if found is None:
            return False
        self._move_device_aside("the key that was made meanwhile")
        self._take_back(found)
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
