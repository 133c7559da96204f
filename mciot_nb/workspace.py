"""The learner's folder, whole: the CA's part and the device's, whom it believes, its tenant, and how to catch up.

Every making method can be called again: it finds what it made for the same input. Asked for something else, it moves
what was there to ``earlier/1`` (2, 3 …) and says so. Nothing is ever deleted.
"""

import copy
import json
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509

from mciot_nb.connect.device import Device
from mciot_nb.connect.server_certificate import CHOICES, ServerCertificate, fetch_server_certificate
from mciot_nb.connect.tenant import (
    Tenant,
    TenantSettings,
    keep_settings,
    read_settings,
    real_tenant,
)
from mciot_nb.connect.trusted_certificates import TrustedCertificate
from mciot_nb.errors import OnboardingError
from mciot_nb.local_platform import LocalPlatform
from mciot_nb.pki import keystore
from mciot_nb.pki.authority import (
    CertificateAuthority,
    is_unfinished,
)
from mciot_nb.pki.chain import PROFILES, build_chain, is_ca, is_issued_by, read_certificates, to_pem
from mciot_nb.pki.chain import fingerprint as fingerprint_of
from mciot_nb.pki.config import (
    CA_DAYS,
    DEVICE_DAYS,
    GUIDE_CONFIG,
    INTERMEDIATE_DAYS,
    CaConfig,
    find_config,
    read_config,
    with_dir,
)
from mciot_nb.pki.database import SigningDatabase
from mciot_nb.pki.files import disk_problem, read_file, write_whole
from mciot_nb.pki.keys import (
    KeyChoice,
    KeyType,
    PrivateKey,
    create_key,
    create_request,
    encode_passphrase,
    read_private_key,
    read_request,
)
from mciot_nb.pki.keystore import SHORTEST_PASSWORD, store_password
from mciot_nb.pki.names import DistinguishedName, oneline, readable
from mciot_nb.pki.signing import days_within, normalize_time, signed_subject
from mciot_nb.secret import Secret


class Passphrase:
    """Finds the passphrase of a workspace. What a learner types is held in memory only."""

    def __init__(self, workspace: Path) -> None:
        self.practice_file = workspace / "passphrase"
        self.typed: Secret | None = None

    @property
    def source(self) -> str:
        """Where the passphrase comes from: ``typed``, ``environment`` or ``practice``, empty where there is none."""
        if self.typed:
            return "typed"
        if os.environ.get("MCIOT_PASSPHRASE"):
            return "environment"
        return "practice" if self.practice_file.exists() else ""

    def find(self) -> Secret | None:
        """Give the passphrase, or None where there is none.

        Raises OnboardingError where it is one that openssl or keytool would refuse.
        """
        if self.source == "environment":
            return checked(Secret(os.environ["MCIOT_PASSPHRASE"]))
        return self._practice() if self.source == "practice" else self.typed

    def make_up(self) -> Secret:
        """Make a passphrase for practice and keep it in the workspace, readable by its owner alone."""
        with suppress(FileExistsError):  # another notebook was faster
            write_whole(self.practice_file, secrets.token_urlsafe(16).encode(), private=True)
        return self._practice()

    @property
    def is_practice(self) -> bool:
        """Whether the passphrase in use lies in the workspace, for anybody who can read that folder."""
        return self.practice_file.exists() and self.find() == self._practice()

    def _practice(self) -> Secret:
        data = read_file(self.practice_file, f"There is no passphrase in {self.practice_file}: put the file back.")
        return checked(Secret(data.decode(errors="replace").strip()))  # an editor may have added a line break


def checked(passphrase: Secret) -> Secret:
    """Give ``passphrase`` back; raises OnboardingError where openssl or keytool would refuse it."""
    encode_passphrase(passphrase)
    if len(passphrase.reveal()) < SHORTEST_PASSWORD:
        raise OnboardingError(
            f"keytool wants passphrases of {SHORTEST_PASSWORD} characters or more: type a longer one.", "BAD_PASSPHRASE"
        )
    return passphrase


def archive(workspace: Path, paths: list[Path], what: str) -> Path:
    """Move files and folders of ``workspace`` to the next free folder in ``earlier``, which it gives, and say so."""
    numbers = [int(folder.name) for folder in (workspace / "earlier").glob("*") if folder.name.isdecimal()]
    target = workspace / "earlier" / str(max(numbers, default=0) + 1)
    there = [path for path in paths if path.exists()]
    for path in there:
        new = target / path.relative_to(workspace)
        try:
            new.parent.mkdir(parents=True, exist_ok=True)
            path.rename(new)
        except OSError as error:  # on Windows, a terminal that stands in the folder
            raise disk_problem(path, error) from None
    if there:
        print(f"Moved {what} to {target.relative_to(workspace.parent).as_posix()}.")
    return target


def is_revoked(config: CaConfig, certificate: x509.Certificate) -> bool:
    """Whether the signing database of ``config`` says that a certificate is revoked, so that it must not come back."""
    row = SigningDatabase.of(config).find(certificate.serial_number)
    return row is not None and row.status == "R"


def mention_revoked(config: CaConfig, certificate: x509.Certificate) -> None:
    """Say so where a certificate that stays in its place is revoked: it can be looked at, and is refused."""
    if is_revoked(config, certificate):
        print(
            f"Mind that the certificate of {readable(certificate.subject)} is revoked: for a new one, submit another "
            "kind of key or other days."
        )


def find_signed(
    workspace: Path,
    request: Path,
    certificate: str,
    subject: DistinguishedName,
    issuer: x509.Certificate,
    fits: Callable[[x509.Certificate], bool],
    also: tuple[str, ...] = (),
) -> Path | None:
    """Look in ``earlier`` for a folder whose ``request`` asked for ``subject`` and was signed by ``issuer``.

    ``request`` is the file's path within the workspace, ``certificate`` the name of what was signed, beside it, which
    must be one that ``fits``; the files ``also`` must be there too.
    """
    for found in (workspace / "earlier").glob(f"*/{request.as_posix()}"):
        if not all((found.parent / name).exists() for name in also):
            continue
        with suppress(OnboardingError):  # what can't be read can't be taken back
            signed = read_certificates(found.with_name(certificate))[0]
            mine = is_issued_by(signed, issuer) and fits(signed)
            if mine and DistinguishedName.from_x509(read_request(found).subject) == subject:
                return found.parent
    return None


#: What the forms offer, and what a notebook that was opened first catches up with.
DEFAULT_CA = DistinguishedName("DE", "Bavaria", "Munich", "Example Company", "Device Onboarding", "Example Root CA")
DEFAULT_INTERMEDIATE = DistinguishedName(
    "DE", "Bavaria", "Munich", "Example Company", "Device Onboarding", "Example Intermediate CA"
)
DEFAULT_CA_KEY, DEFAULT_INTERMEDIATE_KEY = (
    KeyChoice(KeyType.RSA_4096, CA_DAYS),
    KeyChoice(KeyType.RSA_4096, INTERMEDIATE_DAYS),
)

#: Who can sign the tutorial's device, and the folder of each (the guide: "CA or intermediate").
ISSUERS = {"ca": "caCertificate", "intermediate": "caCertificate/intermediateCertificate"}

_INTERMEDIATE_FILES = ("intermediateCert.pem", "intermediateCsr.pem", "intermediateKey.pem", "intermediateConfig.cnf")


class CaWorkspace:
    """What `Workspace` knows of certificate authorities."""

    def __init__(self, folder: Path | None = None) -> None:
        default = os.environ.get("MCIOT_WORKSPACE") or Path(__file__).parents[1] / "workspace"
        self.folder = Path(folder or default).expanduser().absolute()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_problem(self.folder, error) from None
        self._passphrase = Passphrase(self.folder)
        self._opened: dict[Path, CertificateAuthority] = {}
        self._branch = ""

    def __repr__(self) -> str:
        return f"Workspace({str(self.folder)!r})"

    @property
    def ca_folder(self) -> Path:
        """The CA's directory, as the guide lays it out."""
        return self.folder / ISSUERS["ca"]

    @property
    def intermediate_folder(self) -> Path:
        """The intermediate CA's directory, inside the CA's."""
        return self.folder / ISSUERS["intermediate"]

    # Passphrase ------------------------------------------------------------------------------------------------------

    @property
    def passphrase_source(self) -> str:
        """Where the passphrase comes from: typed, environment or practice; empty where it has yet to be typed."""
        return self._passphrase.source or ("" if (self.ca_folder / "caKey.pem").exists() else "practice")

    def type_passphrase(self, passphrase: Secret) -> None:
        """Use a passphrase of the learner's own in this notebook. It is stored nowhere.

        Raises OnboardingError where keytool or Java would refuse it, or it does not open the CA that is there.
        """
        checked(passphrase)
        if not self.has_ca:
            store_password(passphrase)  # what is there stays open to its passphrase, whatever Java says to it
        else:
            try:
                self._open(self.ca_folder, self.ca_folder / "caCert.pem", passphrase)
            except OnboardingError as error:
                if error.code != "WRONG_PASSPHRASE":
                    raise
                raise OnboardingError(
                    "This passphrase does not open the CA that is here: type it again. If it is lost, or you want a CA "
                    "with another one, workspace.start_over() moves everything aside and begins anew.",
                    error.code,
                ) from None
        self._passphrase.typed = passphrase

    @property
    def passphrase(self) -> Secret:
        """The passphrase of every key and store here; a practice one is made up where no key needs another.

        Raises OnboardingError (NEED_PASSPHRASE) where only the learner knows it.
        """
        if not self.passphrase_source:
            raise OnboardingError(
                "Stop here: this workspace's keys have a passphrase of your own. Type it in the field at the top of "
                "this notebook, press Enter, and run the cells below it.",
                "NEED_PASSPHRASE",
            )
        return self._passphrase.find() or self._passphrase.make_up()

    # The CA ----------------------------------------------------------------------------------------------------------

    @property
    def has_ca(self) -> bool:
        """Whether there is a CA, with its configuration, key and certificate."""
        return all((self.ca_folder / name).exists() for name in ("caConfig.cnf", "caKey.pem", "caCert.pem"))

    def create_ca(
        self, subject: DistinguishedName, *, key_type: KeyType | None = None, days: int | None = None
    ) -> CertificateAuthority:
        """Make the CA for ``subject``, or open it if it is there; one that is not what is asked for moves aside.

        Where you ask for no ``key_type`` or ``days``, what
        is there may have any, and what is made has the guide's. Raises OnboardingError before anything moves.
        """
        there = self.ca_key_choice
        if self.has_ca and self.ca_subject == subject and there == there.changed(key_type, days):
            return self.ca()
        asked = DEFAULT_CA_KEY.changed(key_type, days)
        passphrase = self.passphrase  # which may be made up now
        store_password(passphrase)  # here, and not in 05, when half of the way is gone
        unused = [] if self._passphrase.is_practice else [self._passphrase.practice_file]
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=".new-") as draft:
            new = Path(draft) / self.ca_folder.name
            # Whole, before the old one moves.
            config = CertificateAuthority.create(new, subject, passphrase, **vars(asked)).config.path
            write_whole(config, with_dir(config, self.ca_folder), replace=True)
            self._archive([self.ca_folder, *unused], "the CA that was here, and everything made with it,")
            new.rename(self.ca_folder)
        self._opened.clear()
        return self.ca()

    @property
    def ca_subject(self) -> DistinguishedName:
        """The subject of the CA that is there, or else the one that is suggested."""
        path = self.ca_folder / "caCert.pem"
        return DistinguishedName.from_x509(read_certificates(path)[0].subject) if path.exists() else DEFAULT_CA

    @property
    def ca_key_choice(self) -> KeyChoice:
        """The kind of key and the days of the CA that is there, or else the guide's."""
        return _made_choice(self.ca_folder / "caCert.pem", DEFAULT_CA_KEY)

    @property
    def ca_config(self) -> CaConfig:
        """The configuration of the CA that is there, or else the guide's, by which one is made."""
        path = self.ca_folder / "caConfig.cnf"
        return read_config(path if path.exists() else GUIDE_CONFIG)

    def ca(self) -> CertificateAuthority:
        """Open the CA; its key is unlocked once and held in memory."""
        return self._open(self.ca_folder, self.ca_folder / "caCert.pem")

    # The intermediate ------------------------------------------------------------------------------------------------

    @property
    def has_intermediate(self) -> bool:
        """Whether there is an intermediate CA, with all its files, that the CA which is here has signed."""
        files = [self.intermediate_folder / name for name in _INTERMEDIATE_FILES]
        if not (self.has_ca and all(path.exists() for path in files)):
            return False
        return is_issued_by(read_certificates(files[0])[0], read_certificates(self.ca_folder / "caCert.pem")[0])

    def create_intermediate(
        self, subject: DistinguishedName, *, key_type: KeyType | None = None, days: int | None = None
    ) -> CertificateAuthority:
        """Make an intermediate CA for ``subject`` below the CA, or find it (guide: "Creating an intermediate …").

        One that is not what is asked for (see `create_ca`) moves aside, and comes back when it is asked for again.
        Raises OnboardingError, SUBJECT_TAKEN, where the CA has a valid one for ``subject`` with another key or days.
        """
        there = self.intermediate_key_choice
        if self.has_intermediate and self.intermediate_subject == subject and there == there.changed(key_type, days):
            mention_revoked(self.ca_config, self.intermediate().certificate)
            return self.intermediate()
        ca, folder, moved = self.ca(), self.intermediate_folder, None
        found = self._earlier_intermediate(subject, key_type, days)
        unfinished = is_unfinished(folder, subject, key_type)
        asked = KeyType(key_type or KeyType.RSA_4096)
        if not (found or unfinished):  # else it would be refused when the old one has moved
            ca.check_new(
                subject, days_within(ca.certificate, normalize_time(None), INTERMEDIATE_DAYS) if days is None else days
            )
        if folder.exists() and not unfinished:
            what = "the intermediate CA that was here, and everything made with it,"
            moved = self._archive([folder], what) / ISSUERS["intermediate"]
        try:
            if found:
                found.rename(folder)
            else:  # in its place from the start: once it is signed, its key must not be lost
                ca.create_intermediate(folder, subject, self.passphrase, key_type=asked, days=days)
        except BaseException as error:  # somebody who cancels, too
            if moved and not folder.exists():
                moved.rename(folder)
                print("Moved it back.")
            if isinstance(error, OSError):
                raise disk_problem(folder, error) from None
            raise
        self._opened.pop(self.intermediate_folder, None)
        return self.intermediate()

    def _earlier_intermediate(
        self, subject: DistinguishedName, key_type: KeyType | None, days: int | None
    ) -> Path | None:
        """Look for an intermediate that moved aside once, is what is asked for, and was not revoked since."""

        def fits(signed: x509.Certificate) -> bool:
            choice = KeyChoice.of(signed)
            return choice == choice.changed(key_type, days) and not is_revoked(self.ca_config, signed)

        request, issuer = Path(ISSUERS["intermediate"]) / "intermediateCsr.pem", self.ca().certificate
        return find_signed(self.folder, request, "intermediateCert.pem", subject, issuer, fits, _INTERMEDIATE_FILES)

    @property
    def intermediate_key_choice(self) -> KeyChoice:
        """The kind of key and the days of the intermediate that is there, or else the guide's, as far as the CA has."""
        default = DEFAULT_INTERMEDIATE_KEY
        with suppress(OnboardingError):  # there may be no CA yet, and no request
            default = as_far_as(read_certificates(self.ca_folder / "caCert.pem")[0], default)
            default = default.changed(KeyType.of(read_request(self.intermediate_folder / "intermediateCsr.pem")))
        return _made_choice(self.intermediate_folder / "intermediateCert.pem", default)

    @property
    def intermediate_subject(self) -> DistinguishedName:
        """The subject that the intermediate CA asked for, or else the one that is suggested."""
        request = self.intermediate_folder / "intermediateCsr.pem"
        return DistinguishedName.from_x509(read_request(request).subject) if request.exists() else DEFAULT_INTERMEDIATE

    def intermediate(self) -> CertificateAuthority:
        """Open the intermediate CA; its key is unlocked once and held in memory."""
        return self._open(self.intermediate_folder, self.intermediate_folder / "intermediateCert.pem")

    # Who signs -------------------------------------------------------------------------------------------------------

    @property
    def issuer(self) -> str:
        """Who signs the tutorial's device: ``ca``, or ``intermediate`` where that was chosen."""
        chosen = self._branch
        with suppress(OSError, ValueError):  # nobody has chosen, or the file is none of ours
            chosen = chosen or (self.folder / "issuer").read_text(encoding="utf-8").strip()
        return chosen if chosen in ISSUERS else "ca"

    def choose_issuer(self, issuer: str) -> None:
        """Let ``ca`` or ``intermediate`` sign in all notebooks from now on. What the other has signed stays."""
        _check_issuer(issuer)
        write_whole(self.folder / "issuer", f"{issuer}\n".encode(), replace=True)

    def with_issuer(self, issuer: str) -> Self:
        """Give this workspace with another issuer, for a look at the other way; the choice stays as it is."""
        _check_issuer(issuer)
        other = copy.copy(self)  # the passphrase and the opened keys are the same
        other._branch = issuer
        return other

    @property
    def issuer_folder(self) -> Path:
        """The folder of who signs; the device's files lie in its ``deviceCertificates``."""
        return self.folder / ISSUERS[self.issuer]

    @property
    def issuer_certificate(self) -> x509.Certificate:
        """The certificate of who signs, which is the one to upload."""
        return read_certificates(self.issuer_folder / f"{self.issuer}Cert.pem")[0]

    def signer(self) -> CertificateAuthority:
        """Open who signs: the CA, or the intermediate."""
        return self.ca() if self.issuer == "ca" else self.intermediate()

    def _as_signed(self, subject: x509.Name) -> x509.Name:
        """Give the subject that the signer's policy would sign; raises OnboardingError where it would refuse."""
        return signed_subject(self._config(), subject, self.issuer_certificate.subject)

    def _config(self) -> CaConfig:
        return read_config(find_config(self.issuer_folder))

    def _open(self, folder: Path, certificate: Path, passphrase: Secret | None = None) -> CertificateAuthority:
        """Open a CA, or give the one that is open if nobody has changed its certificate or configuration since."""
        known, config = self._opened.get(folder), read_config(find_config(folder))
        state = (read_certificates(certificate)[0], config)
        if passphrase or known is None or (known.certificate, known.config) != state:
            if not config.ca_path("dir").exists():  # openssl could not sign either
                CertificateAuthority.relocate(folder)
                print(f"The workspace was moved: {config.path.name} names its new folder now.")
            known = self._opened[folder] = CertificateAuthority.open(folder, passphrase or self.passphrase)
            if known.recovered:
                print(known.recovered)
        return known

    def _archive(self, paths: list[Path], what: str) -> Path:
        return archive(self.folder, paths, what)


def as_far_as(issuer: x509.Certificate, choice: KeyChoice) -> KeyChoice:
    """Give ``choice`` with no more days than ``issuer`` will have left in an hour: so long a notebook may take."""
    return choice.changed(days=days_within(issuer, normalize_time(None) + timedelta(hours=1), choice.days))


def _made_choice(certificate: Path, default: KeyChoice) -> KeyChoice:
    """Give what a certificate in a file has, or ``default`` where there is none that can be read."""
    with suppress(OnboardingError):
        return KeyChoice.of(read_certificates(certificate)[0])
    return default


def _check_issuer(issuer: str) -> None:
    if issuer not in ISSUERS:
        raise OnboardingError(f"There is no issuer {issuer!r}: say {' or '.join(ISSUERS)}.", "NO_ISSUER")


#: What the form offers, and what a notebook that was opened first catches up with.
DEFAULT_DEVICE = DistinguishedName("DE", "Bavaria", "Munich", "Example Company", "Device Onboarding", "device-0001")
DEFAULT_DEVICE_KEY = KeyChoice(KeyType.RSA_4096, DEVICE_DAYS)

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
            choice = choice.changed(KeyType.of(read_request(request) if request.exists() else self._open_key()))
            signed = read_certificates(self.device_file("deviceCert.pem"))[0]
            return KeyChoice.of(signed) if self._is_for_the_request(signed) else choice
        return choice

    def create_device_key(self, key_type: KeyType | None = None) -> Path:
        """Make the device's private key, encrypted, or find it (guide: "Creating a device certificate", step 2).

        Where you ask for no ``key_type``, a key that is there may be any, and
        a new one is the guide's. The files of a device with another kind of key move aside.
        """
        key, asked, moved = self.device_file("deviceKey.pem"), KeyType(key_type or KeyType.RSA_4096), None
        if key_type is not None and key.exists() and key_type != KeyType.of(self._open_key()):
            moved = self._archive_device("the files of the device, whose key is of another kind,")
        if not key.exists():
            moved = moved or self._archive_device("the files of a device whose key is missing")
            with self._back_without_a_key(moved):
                create_key(key, self.passphrase, asked)
        return key

    def create_device_request(
        self, subject: DistinguishedName, key_type: KeyType | None = None
    ) -> x509.CertificateSigningRequest:
        """Make the device's signing request for ``subject``, or find it (step 3). Another device's files move aside.

        ``key_type`` are as in `create_device_key`. Raises OnboardingError where the issuer's policy would refuse
        ``subject``; then nothing has moved.
        """
        self._as_signed(subject.to_x509())
        path = self.device_file("deviceCsr.pem")
        self.create_device_key(key_type)
        if path.exists():
            request = read_request(path)
            if self.device_subject == subject and request.public_key() == self._open_key().public_key():
                return request
        moved = self._archive_device("the files of the other device", but_a_lone_key=True)
        if not self._bring_back(subject, key_type):
            with self._back_without_a_key(moved):
                self.create_device_key(key_type)
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
                mention_revoked(self._config(), there)
                return there
        signer = self.signer()
        signer.update_database()  # the subject of an expired certificate is free again
        signed = signer.find_issued(request)  # and then something was interrupted
        if signed is None or days not in (None, KeyChoice.of(signed).days):
            signed = self._sign(signer, request, days)
        self._keep(path, lambda: read_certificates(path) == [signed], to_pem([signed]))
        return signed

    def _sign(
        self, signer: CertificateAuthority, request: x509.CertificateSigningRequest, days: int | None
    ) -> x509.Certificate:
        begin = normalize_time(None)
        if days is None:
            days = days_within(signer.certificate, begin, DEFAULT_DEVICE_KEY.days)
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

    def _archive_device(self, what: str, but_a_lone_key: bool = False) -> Path | None:
        """Move the device's files aside and give their folder; None where there are none.

        With ``but_a_lone_key``, a key that nothing was made with yet may stay.
        """
        there = [self.device_file(name) for name in DEVICE_FILES if self.device_file(name).exists()]
        if not there or (but_a_lone_key and [path.name for path in there] == ["deviceKey.pem"]):
            return None
        return self._archive(there, what) / there[0].parent.relative_to(self.folder)

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

    def _bring_back(self, subject: DistinguishedName, key_type: KeyType | None) -> bool:
        """Take back the files of such a device that this very issuer signed, and has not revoked, if they are there."""

        def fits(signed: x509.Certificate) -> bool:
            return key_type in (None, KeyType.of(signed)) and not is_revoked(self._config(), signed)

        request = self.device_file("deviceCsr.pem").relative_to(self.folder)
        found = find_signed(self.folder, request, "deviceCert.pem", subject, self.issuer_certificate, fits)
        if found is None:
            return False
        self._archive_device("the key that was made meanwhile")
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
        self._archive([path], f"{path.name}, which no longer fits,")


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
            server, by = (
                server.proven(fingerprint_of(self._platforms_own(), "sha256"), "the platform's own file"),
                "platform",
            )
        elif not fingerprint and proof == "fingerprint" and server.certificate.not_valid_after_utc > datetime.now(UTC):
            server, by = server.proven(fingerprint_of(server.certificate, "sha256"), "you, once before"), "fingerprint"
        elif not fingerprint:
            server, by = server.proven(), "system"
        path, pem = self.device_file("serverCertificate.pem"), to_pem([server.certificate])
        self._keep(path, lambda: read_certificates(path) == [server.certificate], pem)
        known = {
            "mqtt": f"{server.host}:{server.port}",
            "sha256": fingerprint_of(server.certificate, "sha256"),
            "by": by,
        }
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
            if certificate and (known["mqtt"], known["sha256"]) == (
                f"{host}:{port}",
                fingerprint_of(certificate, "sha256"),
            ):
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
        self._archive(paths, "everything that was made")
        self._opened.clear()
