"""The learner's folder: its paths and passphrase, the making of every step, catching up, and the archive.

Every making method can be called again: it finds what it made for the same input. Asked for something else, it makes
that first, as a draft; then it moves what was there to ``earlier/1`` (2, 3 …) and says so. Nothing is ever deleted.
"""

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar, Self

from cryptography import x509

from mciot_nb.archive import RENEWAL, Archive, finish
from mciot_nb.connect.client_settings import ClientSettings
from mciot_nb.connect.device import Device
from mciot_nb.connect.enrolment import enrol
from mciot_nb.connect.server_certificate import CHOICES, ServerCertificate, fetch_server_certificate, proof_on_record
from mciot_nb.connect.tenant import Tenant, TenantSettings, keep_settings, read_settings, real_tenant
from mciot_nb.connect.trusted_certificates import TrustedCertificate
from mciot_nb.errors import OnboardingError, fault
from mciot_nb.local_platform import LocalPlatform
from mciot_nb.passphrase import Passphrase
from mciot_nb.pki import keystore
from mciot_nb.pki.authority import CertificateAuthority, is_unfinished
from mciot_nb.pki.chain import build_chain, is_ca, is_issued_by, profile_of, read_certificates, to_pem
from mciot_nb.pki.config import CA_DAYS, DEVICE_DAYS, GUIDE_CONFIG, INTERMEDIATE_DAYS, CaConfig, read_config, with_dir
from mciot_nb.pki.database import SigningDatabase, read_serial, write_serial
from mciot_nb.pki.files import disk_errors, disk_problem, meanings, rename_to_new, sync_folder, write_whole
from mciot_nb.pki.keys import KeyChoice, KeyType, PrivateKey, create_key, create_request, read_private_key, read_request
from mciot_nb.pki.names import DistinguishedName, common_name, name_of, oneline, read_subject, readable
from mciot_nb.pki.signing import check_unique_subject, days_within, normalize_time, signed_subject, subject_of
from mciot_nb.secret import Secret
from mciot_nb.steps import Progress, look

#: What the forms offer, and what a notebook that was opened first catches up with.
_NAMES = {"ca": "Example Root CA", "intermediate": "Example Intermediate CA", "device": "device-0001"}
_COMPANY = ("DE", "Bavaria", "Munich", "Example Company", "Device Onboarding")
DEFAULTS = {owner: DistinguishedName(*_COMPANY, name) for owner, name in _NAMES.items()}
_DAYS = {"ca": CA_DAYS, "intermediate": INTERMEDIATE_DAYS, "device": DEVICE_DAYS}
DEFAULT_KEYS = {owner: KeyChoice(KeyType.RSA_4096, days) for owner, days in _DAYS.items()}

#: Who can sign the tutorial's device, and the folder of each (the guide: "CA or intermediate").
ISSUERS = {"ca": "caCertificate", "intermediate": "caCertificate/intermediateCertificate"}
#: What `Workspace.catch_up` can be asked for.
STEPS = ("ca", "intermediate", "issuer", "device", "chain", "stores", "upload")
#: The forms of the stores, as their files' names end.
STORE_KINDS = ("pkcs12", "jks")
#: What an issuer can't do without, and why; see `Workspace._check_there`.
_NEEDED = meanings("why a file is needed", "words.csv")
#: The files of the tutorial's own device, under the guide's names. They move together.
DEVICE_FILES = (
    *("deviceKey.pem", "deviceCsr.pem", "deviceCert.pem", "deviceCertChain.pem"),
    *("deviceKeystore.pkcs12", "deviceKeystore.jks", "deviceTruststore.pkcs12", "deviceTruststore.jks"),
)


def suggested(owner: str) -> DistinguishedName:
    """Return the subject that a form offers: with ``MCIOT_SUBJECT``, such as ``/C=DE/O=Acme``, your own company's."""
    if not (text := os.environ.get("MCIOT_SUBJECT")):
        return DEFAULTS[owner]
    company = read_subject(text)
    begin = (company.organization or "").encode()[:48].decode(errors="ignore")  # 64 bytes are allowed in all
    name = _NAMES[owner].replace("Example", begin).strip()
    return replace(company, common_name=name, email=None)


def mention_revoked(config: CaConfig, certificate: x509.Certificate) -> None:
    """Print a sentence if a certificate that stays in its place is revoked: it can be looked at, and is refused."""
    row = None
    with suppress(OnboardingError):  # without its database it is not known to be
        row = SigningDatabase.of(config).find(certificate.serial_number)
    if row is not None and row.status == "R":
        way_out = "for a new one, submit another kind of key or other days."
        print(f"Note that the certificate of {readable(certificate.subject)} is revoked: {way_out}")


def check_choice(key: object) -> None:
    """Raise OnboardingError, BAD_VALUE, for a kind of key that is no `KeyChoice`, such as a text."""
    if not isinstance(key, KeyChoice | None):
        raise OnboardingError("Give the key as a KeyChoice, such as KeyChoice(KeyType.P256, days=365).", "BAD_VALUE")


@contextmanager
def way_out_if_taken(ca: CertificateAuthority, subject: x509.Name, call: str) -> Iterator[None]:
    """Add to a SUBJECT_TAKEN of the block how to revoke, with ``call``, the certificate that has ``subject``."""
    try:
        yield
    except OnboardingError as error:
        if error.code != "SUBJECT_TAKEN":
            raise
        name = oneline(signed_subject(ca.config, subject, ca.certificate.subject))
        revoke = f"{call}.revoke(0x{ca.database.index().valid[name]:X}, 'superseded')"
        way_out = f"To revoke it, run {revoke} in a cell of its own, and then this cell again."
        raise OnboardingError(f"{error} {way_out}", error.code) from None


class Workspace:
    """The folder in which the tutorial works: ``MCIOT_WORKSPACE``, or ``workspace`` beside the notebooks.

    Example: from nothing to a connected device, with the guide's values::

        workspace = Workspace()
        workspace.catch_up("upload")
        with workspace.device(workspace.tenant()) as device:
            device.measure("c8y_Temperature", "T", 21.5, "C")
    """

    #: The one that was opened last: what `check_my_work` looks at.
    latest: ClassVar["Workspace | None"] = None

    def __init__(self, folder: Path | None = None) -> None:
        default = os.environ.get("MCIOT_WORKSPACE") or Path(__file__).parents[1] / "workspace"
        self.folder = Path(folder or default).expanduser().absolute()
        try:
            self.folder.mkdir(0o700, parents=True, exist_ok=True)  # other accounts of the machine have no business here
        except OSError as error:
            raise disk_problem(self.folder, error) from None
        #: The CA's directory, as the guide lays it out, and the intermediate's inside it.
        self.ca_folder, self.intermediate_folder = (self.folder / folder for folder in ISSUERS.values())
        self._archive = Archive(self.folder)
        #: Where the passphrase comes from, and whether a form waits for one.
        self.passphrases = Passphrase(self.folder / "passphrase", self._keys)
        #: An intermediate that is being made. It is no temporary folder: once it is signed, its key must not be lost.
        self._begun = self.folder / ".new-intermediate"
        self._server_record = self.folder / "server.json"  # what proved the server's certificate
        self._opened: dict[str, CertificateAuthority] = {}
        self._issuer = ""
        self._tenant_secret: Secret | None = None
        for issuer in ISSUERS.values():
            finish(self.folder / issuer / "deviceCertificates")
        Workspace.latest = self

    def __repr__(self) -> str:
        return f"Workspace({str(self.folder)!r})"

    @property
    def issuer_folder(self) -> Path:
        """The folder of the CA that signs; the device's files are in its ``deviceCertificates``."""
        return self.folder / ISSUERS[self.issuer]

    def device_file(self, name: str) -> Path:
        """Return the path of one of the tutorial device's files, such as ``deviceCertChain.pem``."""
        return self.issuer_folder / "deviceCertificates" / name

    @property
    def practice_folder(self) -> Path:
        """The folder of the exercises' own files, which no notebook needs; it is made here."""
        with disk_errors(folder := self.folder / "practice"):
            folder.mkdir(exist_ok=True)
        return folder

    def subject(self, owner: str) -> DistinguishedName:
        """Return the subject asked for by the ``ca``, ``intermediate`` or ``device``; else one like the CA's."""
        if self._file(owner, "Csr.pem").exists():
            return DistinguishedName.from_x509(subject_of(self._request(owner)))
        if self._file(owner, "Cert.pem").exists():
            return DistinguishedName.from_x509(name_of(self.certificate(owner)))
        suggestion = suggested(owner)
        with suppress(OnboardingError):  # there may be no CA yet, or one of another's make, with other fields
            company = DistinguishedName.from_x509(name_of(self.certificate("ca")))
            return replace(company, common_name=suggestion.common_name, email=None)
        return suggestion

    def key_choice(self, owner: str) -> KeyChoice:
        """Return the kind of key and the days of the ``ca``, ``intermediate`` or ``device`` that is there.

        Where there is none, the guide's, as far as its issuer has days left in an hour: so long a notebook may take.
        """
        choice = DEFAULT_KEYS[owner]
        with suppress(OnboardingError):  # there may be no issuer yet, no key, no request, no certificate
            if owner != "ca":
                issuer = self.certificate(self.issuer if owner == "device" else "ca")
                in_an_hour = normalize_time(None) + timedelta(hours=1)
                choice = choice.changed(days=days_within(issuer, in_an_hour, choice.days))
                has_key_only = owner == "device" and not self._file(owner, "Csr.pem").exists()
                choice = choice.changed(KeyType.of(self._device_key() if has_key_only else self._request(owner)))
            there = self.certificate(owner)
            if owner != "device" or self._is_for_the_request(there):
                return KeyChoice.of(there)
        return choice

    def _is_what_was_asked(self, owner: str, subject: DistinguishedName, key: KeyChoice | None) -> bool:
        return self.subject(owner) == subject and key in (None, self.key_choice(owner))

    def config(self, issuer: str) -> CaConfig:
        """Return the configuration of the ``ca`` or the ``intermediate`` that is there, or else the guide's.

        If the workspace was moved, the configuration names its new folder afterwards.
        """
        self._check_there(issuer, "Config.cnf")
        path = self._file(issuer, "Config.cnf")
        config = read_config(path if path.exists() else GUIDE_CONFIG)
        if not path.exists() or config.ca_path("dir").exists():
            return config
        CertificateAuthority.relocate(path.parent)  # openssl could not sign either
        print(f"The workspace was moved: {path.name} names its new folder now.")
        return read_config(path)

    def _file(self, owner: str, name: str) -> Path:
        """Return the path of a file of the ``ca``, ``intermediate`` or ``device``, such as ``Cert.pem``."""
        folder = self.device_file("") if owner == "device" else self.folder / ISSUERS[owner]
        return folder / (name if name == "database.txt" else f"{owner}{name}")

    def _check_there(self, owner: str, *names: str) -> None:
        """Check that files of what was made are there. Raises: OnboardingError: MISSING; nothing is made in its place.

        What was not made yet is another matter: it is what `catch_up` makes.
        """
        for path in (self._file(owner, name) for name in names if self._has(owner)):
            if not path.exists():
                why = _NEEDED.get(path.name) or _NEEDED[path.name.removeprefix(owner)]
                raise fault("MISSING" if owner in ISSUERS else "MISSING.device", path=path, why=why)

    def certificate(self, owner: str) -> x509.Certificate:
        """Return the certificate of the ``ca``, the ``intermediate`` or the ``device``; no key is needed for it.

        Raises: OnboardingError: if it is not made yet (NO_FILE), or its file is gone (MISSING).
        """
        if owner in ISSUERS:
            if not self._has(owner):
                kind, makes = owner.replace("ca", "CA"), f"workspace.catch_up({owner!r}) makes one with the defaults"
                raise OnboardingError(f"There is no {kind} in {self.folder} yet: {makes}.", "NO_FILE")
            self._check_there(owner, "Cert.pem")
        return read_certificates(self._file(owner, "Cert.pem"))[0]

    def _keys(self) -> list[Path]:
        """Return the paths of the keys that are here: a CA's own may be elsewhere, in a safe."""
        keys = [*(self._file(issuer, "Key.pem") for issuer in ISSUERS), self._file("device", "Key.pem")]
        return [path for path in keys if path.exists()]

    def _request(self, owner: str) -> x509.CertificateSigningRequest:
        return read_request(self._file(owner, "Csr.pem"))

    def _device_key(self) -> PrivateKey:
        self._check_there("device", "Key.pem")
        return read_private_key(self._file("device", "Key.pem"), self.passphrase)

    @property
    def passphrase(self) -> Secret:
        """The passphrase of every key and store here; a practice one is made up where no key needs another.

        Raises: OnboardingError: NEED_PASSPHRASE, if only the learner knows it.
        """
        return self.passphrases.find()

    def type_passphrase(self, passphrase: Secret) -> None:
        """Use a passphrase of the learner's own in this notebook. It is stored nowhere.

        Raises: OnboardingError: if keytool or Java would refuse it, or it does not open the keys that are there.
        """
        self.passphrases.type(passphrase)

    # The CA ----------------------------------------------------------------------------------------------------------

    @property
    def has_ca(self) -> bool:
        """Whether a CA was made here. Its key may be elsewhere, in a safe; for a missing file it is not made anew."""
        return self._has("ca")

    def _has(self, owner: str) -> bool:
        """Whether something was made for an owner. Without certificate, an intermediate is only begun."""
        made = {"ca": ("Cert.pem", "Key.pem", "database.txt"), "intermediate": ("Cert.pem",)}
        return any(self._file(owner, name).exists() for name in made.get(owner, ("Cert.pem", "Csr.pem")))

    def create_ca(self, subject: DistinguishedName, key: KeyChoice | None = None) -> CertificateAuthority:
        """Make the CA for ``subject``, or open it if it is there; one that is not what is asked for is archived.

        Without ``key``, what is there may have any key and days, and what is made has the guide's. Raises:
        OnboardingError: if it can't be made; then nothing has moved.
        """
        check_choice(key)
        if self.has_ca and self._is_what_was_asked("ca", subject, key):
            return self.ca()
        passphrase = self.passphrase  # which may be made up now
        keystore.store_password(passphrase)  # here, and not in 05, when half of the way is gone
        unused = [] if self.passphrases.is_practice else [self.passphrases.practice_file]
        with self._archive.draft() as draft:
            new, options = draft / self.ca_folder.name, vars(key or DEFAULT_KEYS["ca"])
            config = CertificateAuthority.create(new, subject, passphrase, **options).config.path
            write_whole(config, with_dir(config, self.ca_folder), replace=True)
            with suppress(OnboardingError):  # there is no CA before; a tenant's list of revoked ones names no issuer
                write_serial(new / "serial", read_serial(self.ca_folder / "serial"))
            old = [self.ca_folder, self._begun, self.folder / "completion", *unused]
            self._archive.move(old, "the CA that was here, and everything made with it,")
            new.rename(self.ca_folder)
        self._opened.clear()
        return self.ca()

    def ca(self) -> CertificateAuthority:
        """Open the CA; its key is decrypted once and held in memory."""
        return self._open("ca")

    def _open(self, issuer: str) -> CertificateAuthority:
        """Open a CA, or return the one that is open if its certificate and configuration are still the same."""
        there = self.certificate(issuer)
        self._check_there(issuer, "Key.pem")
        folder, now = self.folder / ISSUERS[issuer], self.config(issuer)
        known = self._opened.get(issuer)
        if known is None or (known.certificate, known.config) != (there, now):
            try:
                known = self._opened[issuer] = CertificateAuthority.open(folder, self.passphrase)
            except OnboardingError:
                self._check_there(issuer, "database.txt")  # which opening restores where openssl was interrupted
                raise
            if known.recovered:
                print(known.recovered)
        return known

    # The intermediate ------------------------------------------------------------------------------------------------

    @property
    def has_intermediate(self) -> bool:
        """Whether there is an intermediate CA, which the CA that is here has signed, if its certificate is here."""
        root = self._file("ca", "Cert.pem")
        return self._has("intermediate") and (
            not root.exists() or is_issued_by(self.certificate("intermediate"), self.certificate("ca"))
        )

    def create_intermediate(self, subject: DistinguishedName, key: KeyChoice | None = None) -> CertificateAuthority:
        """Make an intermediate CA for ``subject`` below the CA, or find it (guide: "Creating an intermediate …").

        One that is not what is asked for (see `create_ca`) is archived.

        Raises: OnboardingError: SUBJECT_TAKEN, if the CA has a valid one for ``subject`` with another key or days.
        """
        check_choice(key)
        if self.has_intermediate and self._is_what_was_asked("intermediate", subject, key):
            if self._file("ca", "Config.cnf").exists():
                mention_revoked(self.config("ca"), self.certificate("intermediate"))
            return self.intermediate()
        ca, folder, draft = self.ca(), self.intermediate_folder, self._begun
        options = {"key_type": (key or DEFAULT_KEYS["intermediate"]).key_type, "days": key.days if key else None}

        def create(path: Path) -> None:
            with way_out_if_taken(ca, subject.to_x509(), "workspace.ca()"):
                ca.create_intermediate(path, subject, self.passphrase, **options)  # type: ignore[arg-type]

        def is_begun(path: Path) -> bool:
            return is_unfinished(path, subject, key.key_type if key else None)

        if is_begun(folder):  # its certificate is missing: go on with it
            create(folder)
        else:
            if not self._is_signed_draft(subject, key):
                if not is_begun(draft):
                    self._archive.move([draft], "an intermediate CA that was begun")
                create(draft)
            config = draft / "intermediateConfig.cnf"
            write_whole(config, with_dir(config, folder), replace=True)
            self._archive.move([folder], "the intermediate CA that was here, and everything made with it,")
            with disk_errors(folder):
                draft.rename(folder)
        self._opened.pop("intermediate", None)
        return self.intermediate()

    def _is_signed_draft(self, subject: DistinguishedName, key: KeyChoice | None) -> bool:
        """Whether an intermediate such as is asked for was made and signed, and only has to come to its place."""
        with suppress(OnboardingError):  # there is none, or it can't be read
            signed = read_certificates(self._begun / "intermediateCert.pem")[0]
            asked = DistinguishedName.from_x509(subject_of(read_request(self._begun / "intermediateCsr.pem")))
            is_asked = asked == subject and key in (None, KeyChoice.of(signed))
            return is_asked and is_issued_by(signed, self.certificate("ca"))
        return False

    def intermediate(self) -> CertificateAuthority:
        """Open the intermediate CA; its key is decrypted once and held in memory."""
        return self._open("intermediate")

    @property
    def issuer(self) -> str:
        """Which CA signs the tutorial's device: ``ca``, or ``intermediate`` where that was chosen."""
        chosen = self._issuer
        with suppress(OSError, ValueError):  # no choice was made, or the file is not ours
            chosen = chosen or (self.folder / "issuer").read_text(encoding="utf-8").strip()
        return chosen if chosen in ISSUERS else "ca"

    def choose_issuer(self, issuer: str) -> None:
        """Let ``ca`` or ``intermediate`` sign in all notebooks from now on. What the other has signed stays."""
        self.with_issuer(issuer)  # which refuses one that there is not
        write_whole(self.folder / "issuer", f"{issuer}\n".encode(), replace=True)

    def with_issuer(self, issuer: str) -> Self:
        """Return this workspace with another issuer, for a look at the other way; the choice stays as it is."""
        if issuer not in ISSUERS:
            raise OnboardingError(f"There is no issuer {issuer!r}: use {' or '.join(ISSUERS)}.", "NO_ISSUER")
        other = copy.copy(self)  # the passphrase and the opened keys are the same
        other._issuer = issuer
        return other

    @property
    def issuer_certificates(self) -> dict[str, x509.Certificate]:
        """The certificates of all issuers that are here, by their names."""
        has = {"ca": self.has_ca, "intermediate": self.has_intermediate}
        here = [issuer for issuer in ISSUERS if has[issuer] and self._file(issuer, "Cert.pem").exists()]
        return {issuer: self.certificate(issuer) for issuer in here}

    @property
    def issuer_certificate(self) -> x509.Certificate:
        """The certificate of the CA that signs, which is the one to upload."""
        return self.certificate(self.issuer)

    def signer(self) -> CertificateAuthority:
        """Open the CA that signs: the root, or the intermediate."""
        return self.ca() if self.issuer == "ca" else self.intermediate()

    # The device ------------------------------------------------------------------------------------------------------

    def create_device_request(
        self, subject: DistinguishedName, key: KeyChoice | None = None
    ) -> x509.CertificateSigningRequest:
        """Make the device's private key, encrypted, and its signing request, or find them (steps 2 and 3).

        The files of a device with another subject or kind of key are archived; a key that nothing was made with yet is
        used. Without ``key``, a key that is there may be of any kind, and a new one is the guide's.

        Raises: OnboardingError: if the issuer's policy would refuse ``subject``, another certificate has it
            (SUBJECT_TAKEN), or it can't be made; then nothing has moved.
        """
        check_choice(key)
        wanted = self._as_signed(subject.to_x509())
        there = [name for name in DEVICE_FILES if self.device_file(name).exists()]
        is_same = self._has("device") and self.subject("device") == subject
        own = self._device_key() if is_same or "deviceKey.pem" in there else None
        fits = own is not None and (key is None or key.key_type == KeyType.of(own))
        if own and fits and is_same:
            if "deviceCsr.pem" not in there and self.certificate("device").public_key() == own.public_key():
                print("deviceCsr.pem was missing: it is written again, for the same key and subject.")
                return create_request(self.device_file("deviceCsr.pem"), own, subject)
            if "deviceCsr.pem" in there and (request := self._request("device")).public_key() == own.public_key():
                return request
        old = "the files of a device whose key is missing"
        if own:
            old = "the files of the other device" if fits else "the files of the device, whose key is of another kind,"
        with self._archive.draft() as draft:
            if own and fits and there == ["deviceKey.pem"]:
                there, new = [], own
            else:
                signer = self.signer()
                signer.update_database()  # the subject of an expired certificate is free again
                with way_out_if_taken(signer, wanted, "workspace.signer()"):
                    check_unique_subject(signer.database, signer.config, [wanted])
                asked = (key or DEFAULT_KEYS["device"]).key_type
                new = create_key(draft / "deviceKey.pem", self.passphrase, asked)  # type: ignore[arg-type]
            request = create_request(draft / "deviceCsr.pem", new, subject)
            self._archive.move([self.device_file(name) for name in there], old)
            for name in DEVICE_FILES[:2]:
                if (draft / name).exists():
                    rename_to_new(draft / name, self.device_file(name))
        sync_folder(self.device_file(""))
        return request

    def sign_device_request(self, key: KeyChoice | None = None) -> x509.Certificate:
        """Let the issuer sign the device's request, or find what it signed (step 4).

        Without ``key``, what is there may be valid for any days, and a new certificate for the guide's 365, or what is
        left of the issuer's own. One that has expired, or is valid for other days than the key's, is archived.

        Raises: OnboardingError: SUBJECT_TAKEN, if the database has another valid certificate for the subject, of
            another key or for other days; then nothing has moved.
        """
        check_choice(key)
        days = key.days if key else None
        path, request = self.device_file("deviceCert.pem"), self._request("device")
        self._as_signed(subject_of(request))
        with suppress(OnboardingError):  # a file that can't be read does not fit
            there = read_certificates(path)[0]
            if self._is_for_the_request(there, days):
                mention_revoked(self.config(self.issuer), there)
                return there
        signer = self.signer()
        signer.update_database()  # the subject of an expired certificate is free again
        signed = signer.find_issued(request)  # and then something was interrupted
        if signed is None or days not in (None, KeyChoice.of(signed).days):
            begin = normalize_time(None)
            if days is None:
                days = days_within(signer.certificate, begin, DEFAULT_KEYS["device"].days)
            with way_out_if_taken(signer, request.subject, "workspace.signer()"):
                signed = signer.sign(request, days=days, at=begin)
        self._archive.keep_certificates(path, [signed])
        return signed

    def renew_device(self, key: KeyChoice | None = None) -> x509.Certificate:
        """Renew the device's certificate, for its key and the same days, or with a new key as ``key`` asks.

        The new files take the places of the old ones together; those are copied to ``earlier``. The old certificate
        stays valid until `supersede_device`. Interrupted at any point, the old device is there or the new one; called
        again, it goes on with what was begun. Raises: OnboardingError: KEY_LOST, if only a new key would help.
        """
        check_choice(key)
        folder, signer, old = self.device_file(""), self.signer(), self.certificate("device")
        row = signer.database.find(old.serial_number)
        if key is None and row and row.reason == "keyCompromise":
            raise fault("KEY_LOST", serial=f"{row.serial:X}")
        draft = folder / RENEWAL
        begun, csr = draft / "deviceKey.pem", (draft if key else folder) / "deviceCsr.pem"
        if begun.exists() and (not key or KeyType.of(read_private_key(begun, self.passphrase)) != key.key_type):
            self._archive.move([draft], "a renewal with a new key that was begun")
        with disk_errors(draft):
            draft.mkdir(exist_ok=True)
        if key and not begun.exists():
            create_key(begun, self.passphrase, key.key_type or KeyType.P256)
        own = read_private_key(begun, self.passphrase) if key else self._device_key()
        request = read_request(csr) if csr.exists() else create_request(csr, own, self.subject("device"))
        signer.allow_same_subject()
        signed = signer.find_issued(request)  # and then something was interrupted
        if signed is None or signed == old:
            begin, days = normalize_time(None), (key or KeyChoice.of(old)).days
            signed = signer.sign(request, days=days_within(signer.certificate, begin, days), at=begin)
        chain = build_chain(signed, [signer.certificate], up_to=signer.certificate)
        write_whole(draft / "deviceCert.pem", to_pem(chain[:1]), replace=True)
        write_whole(draft / "deviceCertChain.pem", to_pem(chain), replace=True)
        for name in (f"deviceKeystore.{kind}" for kind in STORE_KINDS):
            if (folder / name).exists():
                keystore.write_keystore(draft / name, own, chain, self.passphrases.for_store(), replace=True)
        self._archive.replace(draft, folder, "the device's files, as they were before it was renewed,")
        return signed

    def supersede_device(self, device: Device, tenant: Tenant) -> str:
        """Revoke every older certificate of ``device`` as superseded, and `publish` that; return what comes of it.

        Raises: OnboardingError: NOT_SEEN unless the device is connected with its newest certificate.
        """
        signer, new = self.signer(), self.certificate("device")
        if not device.is_connected or device.certificate != new:
            raise fault("NOT_SEEN", device=device.client_id)
        for row in signer.database.rows():
            if (row.status, row.subject) == ("V", oneline(name_of(new))) and row.serial != new.serial_number:
                signer.revoke(row.serial, "superseded")
        return self.publish(tenant)

    def publish(self, tenant: Tenant) -> str:
        """Write the issuer's revocation list, and tell ``tenant`` what is on it; return what will come of that.

        The tenant's list does not say whose a number is. One that is also the issuer's own (an intermediate and its
        first device both have 1000) is left out, because it would shut out every device below the issuer.
        """
        listed, own = [one.serial_number for one in self.signer().update_crl()], self.issuer_certificate.serial_number
        told = tenant.trusted_certificates.revoke([serial for serial in listed if serial != own])
        if own not in listed:
            return told
        return f"{told} The tenant was not told of {own:X}: the issuer itself has that number, and would be refused."

    def _as_signed(self, subject: x509.Name) -> x509.Name:
        """Return the subject that the issuer's policy makes of one. Raises: OnboardingError: if it would refuse."""
        return signed_subject(self.config(self.issuer), subject, name_of(self.issuer_certificate))

    def _is_for_the_request(self, signed: x509.Certificate, days: int | None = None) -> bool:
        """Whether a certificate is what the issuer signs for the device's request, and valid still, for ``days``."""
        request, choice = self._request("device"), KeyChoice.of(signed)
        same = signed.public_key() == request.public_key() and name_of(signed) == self._as_signed(subject_of(request))
        valid = is_issued_by(signed, self.issuer_certificate) and signed.not_valid_after_utc > datetime.now(UTC)
        return same and valid and choice == choice.changed(days=days)

    def create_chain(self) -> list[x509.Certificate]:
        """Write the device's certificate followed by its issuer's, the one to upload (guide: "Creating the chain …").

        Below an intermediate the chain ends with that, so that every platform takes it: two certificates.
        """
        device = self.certificate("device")
        chain = build_chain(device, [self.issuer_certificate], up_to=self.issuer_certificate)
        self._archive.keep_certificates(self.device_file("deviceCertChain.pem"), chain)
        return chain

    # Stores, and the server that the device trusts ------------------------------------------------------------------

    def create_keystore(self, kind: str = "pkcs12") -> Path:
        """Write deviceKeystore.pkcs12, or .jks: the device's key and chain under ``devicekeyentry`` (steps 1 and 2)."""
        path, key, password = self._store("deviceKeystore", kind), self._device_key(), self.passphrases.for_store()
        chain = self.create_chain()
        return self._archive.keep(
            path,
            lambda: list(keystore.read_key(path, password, alias=keystore.KEY_ALIAS)[1]) == chain,
            lambda draft: keystore.write_keystore(draft, key, chain, password),
        )

    def create_truststore(self, kind: str = "pkcs12", trust: str = "") -> Path:
        """Write deviceTruststore.pkcs12, or .jks: the server to trust, under ``servercertificate`` (step 4).

        ``trust`` is ``server`` for the server's own certificate, or ``issuer`` for its issuer's; by default what was
        chosen before, and the server's at first.
        """
        if trust not in ("", *CHOICES):
            raise OnboardingError(f"There is no choice {trust!r}: use {' or '.join(CHOICES)}.", "NO_CHOICE")
        path, _, password = self._store("deviceTruststore", kind), self._device_key(), self.passphrases.for_store()
        trust, known = self._known(trust)
        wanted = {keystore.TRUST_ALIAS: known or self.fetch_server_certificate().trust_anchor(trust)}
        return self._archive.keep(
            path,
            lambda: keystore.read_store(path, password).trusted == wanted,
            lambda draft: keystore.write_truststore(draft, wanted, password),
        )

    def _store(self, name: str, kind: str) -> Path:
        if kind not in STORE_KINDS:
            raise OnboardingError(f"There is no store of kind {kind!r}: use {' or '.join(STORE_KINDS)}.", "BAD_NAME")
        return self.device_file(f"{name}.{kind}")

    def fetch_server_certificate(self, fingerprint: str = "") -> ServerCertificate:
        """Put the platform's certificate beside the device's files ("Creating keystore and truststore", step 3).

        It is fetched from the MQTT port, and proven: the local platform's by its own file, a real one's by this
        system's trust, or else by the SHA-256 ``fingerprint`` that its operator told you by another way, once.

        Raises: OnboardingError: if nothing proves it; then the file stays as it was.
        """
        address, own = self._server()
        settings = self.tenant_settings
        trusted = None if settings.local or not settings.ca_file else Path(settings.ca_file)
        server = fetch_server_certificate(*address, trusted).verified(fingerprint, own=own, record=self._server_record)
        self._archive.keep_certificates(self.device_file("serverCertificate.pem"), [server.certificate])
        server.write_record(self._server_record)
        return server

    def trusted_file(self, tenant: Tenant) -> Path | None:
        """Return serverCertificate.pem if it proves the tenant's server, else the tenant's file; None for neither."""
        proof = proof_on_record(self._server_record, self._stored_server(), *tenant.mqtt)
        pinned = tenant.is_local or proof == "fingerprint"
        return self.device_file("serverCertificate.pem") if pinned else tenant.trusted

    def _server(self) -> tuple[tuple[str, int], x509.Certificate | None]:
        """Return the MQTT server's address, and the local platform's certificate, as its own file has it."""
        settings = self.tenant_settings
        if not settings.local:
            return (settings.mqtt_host, settings.mqtt_port), None
        platform = self.platform()
        return platform.mqtt, read_certificates(platform.server_certificate)[0]

    def _stored_server(self) -> x509.Certificate | None:
        """Return what serverCertificate.pem holds; None if it is missing or can't be read."""
        with suppress(OnboardingError):
            return read_certificates(self.device_file("serverCertificate.pem"))[0]
        return None

    def _known(self, trust: str) -> tuple[str, x509.Certificate | None]:
        """Return the choice for the truststores, and what they hold by it if the server need not be asked again."""
        before, stored = None, self._stored_server()
        for kind in STORE_KINDS:
            with suppress(OnboardingError):
                store = keystore.read_store(self.device_file(f"deviceTruststore.{kind}"), self.passphrase)
                before = before or store.trusted.get(keystore.TRUST_ALIAS)
        choice = trust or ("issuer" if before and is_ca(before) else "server")
        address, own = self._server()
        if own:  # self-signed, so both choices are the same
            return choice, stored if stored == own else None
        fits = before and stored and (before == stored or (is_ca(before) and is_issued_by(stored, before)))
        proven = proof_on_record(self._server_record, stored, *address)
        return choice, before if fits and proven and not trust else None

    # The tenant -------------------------------------------------------------------------------------------------------

    @property
    def tenant_settings(self) -> TenantSettings:
        """Which tenant was chosen: the environment's, the one kept in ``tenant.json``, or the local platform."""
        return read_settings(self.folder)

    def choose_tenant(self, settings: TenantSettings, secret: Secret | None = None) -> None:
        """Keep the choice for all notebooks; ``secret``, a password or bearer token, in this notebook's memory only."""
        if os.environ.get("MCIOT_URL"):
            raise OnboardingError("MCIOT_URL names the tenant, and takes precedence over this form: unset it first.")
        keep_settings(self.folder, settings)
        self._tenant_secret = secret

    def tenant(self) -> Tenant:
        """Return the tenant that was chosen: the local platform, started if need be, or the real one.

        Raises: OnboardingError: if a real tenant's password or token has not been typed in this notebook.
        """
        settings = self.tenant_settings
        return self.platform().tenant if settings.local else real_tenant(settings, self._tenant_secret)

    def platform(self) -> LocalPlatform:
        """Start the local platform, or find the one that runs for this workspace, whichever profile it has."""
        return LocalPlatform.running(self.folder) or LocalPlatform.start(self.folder, self.tenant_settings.profile)

    def use_profile(self, profile: str) -> LocalPlatform:
        """Let the local platform keep the rules of ``guide-2021`` or of ``current``, now and the next time.

        It is started anew if it kept others; what was uploaded stays.

        Raises: OnboardingError: if there is no such profile.
        """
        profile_of(profile)
        if not os.environ.get("MCIOT_URL"):  # else what is kept is not what holds
            keep_settings(self.folder, replace(self.tenant_settings, profile=profile))
        running = LocalPlatform.running(self.folder)
        if running and running.profile != profile:
            return running.restart(profile)
        return LocalPlatform.start(self.folder, profile)

    def upload_ca(
        self, tenant: Tenant, *, practice_ca: bool = False, auto_registration: bool | None = None
    ) -> TrustedCertificate:
        """Upload the certificate of the CA, or of the intermediate if that signs, or find it in the tenant.

        A CA whose passphrase is in the workspace is for practice: a real tenant, other than a class's, gets it only
        with ``practice_ca=True``, and then without auto-registration unless you ask for it.
        """
        practice = self.passphrases.is_practice and not tenant.is_for_practice()
        if practice and not practice_ca:
            raise fault("PRACTICE_CA")
        auto = not practice if auto_registration is None else auto_registration
        return tenant.trusted_certificates.ensure(self.issuer_certificate, auto_registration=auto)

    def prove_possession(self, tenant: Tenant) -> TrustedCertificate:
        """Prove to the tenant that the key of the uploaded CA, or of the intermediate if that signs, is here.

        Raises: OnboardingError: if the certificate is not uploaded, or the platform is of the guide's time.
        """
        return tenant.trusted_certificates.prove_possession(self.issuer_certificate, self.signer().key)

    def device(self, tenant: Tenant, client_id: str | None = None) -> Device:
        """Return the tutorial's device, ready to connect to ``tenant`` with its chain and key.

        ``client_id`` is the certificate's common name by default.
        """
        self._check_there("device", "Key.pem")
        chain, key = self.device_file("deviceCertChain.pem"), self.device_file("deviceKey.pem")
        secret, trusted = self.passphrase, self.trusted_file(tenant)
        device = Device(*tenant.now.mqtt, chain=chain, key=key, passphrase=secret, trusted=trusted, client_id=client_id)
        device.locate = lambda: tenant.now.mqtt
        return device

    def enrol(self, tenant: Tenant, device_id: str, secret: Secret, *, again: bool = False) -> Device:
        """Return a device whose certificate the platform's own CA has signed, for a key that is made here.

        Its one-time password is the ``secret``; what was signed is found. ``again`` one is signed for a `Device.token`.
        """
        here, path = tenant.now, self.folder / "enrolledDevice" / "deviceCert.pem"
        key_path, ca = path.with_name("deviceKey.pem"), here.own_ca.certificate()
        if not key_path.exists():
            with disk_errors(path.parent):
                path.parent.mkdir(exist_ok=True)
            create_key(key_path, self.passphrase, KeyType.P256)
        key, there = read_private_key(key_path, self.passphrase), read_certificates(path) if path.exists() else []
        own = [one for one in there if one.public_key() == key.public_key() and common_name(name_of(one)) == device_id]
        valid = [one for one in own if ca and is_issued_by(one, ca) and one.not_valid_after_utc > datetime.now(UTC)]
        if again or not valid:
            write_whole(path, to_pem(enrol(here.url, device_id, key, secret, again, here.verify)), replace=True)
        return Device(*here.mqtt, chain=path, key=key_path, passphrase=self.passphrase, trusted=here.trusted)

    def client_settings(self, tenant: Tenant) -> ClientSettings:
        """Return what other MQTT clients need to connect the tutorial's device to ``tenant``."""
        return ClientSettings(tenant, self.device_file(""), self.trusted_file(tenant))

    def catch_up(self, step: str) -> None:
        """Make, with the defaults, what is missing up to ``step``, one of `STEPS`; ``issuer`` is the one chosen.

        What is there stays. One sentence says what was made, or nothing is said.
        """
        if step not in STEPS:
            raise OnboardingError(f"There is no step {step!r}: use {', '.join(STEPS)}.")
        if made := list(self._steps_to(step)):
            print(f"Made with the defaults, because it was not there yet: {', '.join(made)}.")

    def _steps_to(self, last: str) -> Iterator[str]:
        """Do the steps up to ``last``; yield the names of those that were missing."""
        if not self.has_ca:
            self.create_ca(suggested("ca"))
            yield "the CA"
        if last != "ca" and "intermediate" in (last, self.issuer) and not self.has_intermediate:
            self.create_intermediate(self.subject("intermediate"))
            yield "the intermediate CA"
        if last not in STEPS[3:]:
            return
        if not self.device_file("deviceCert.pem").exists():
            yield "the device certificate"
        if not all(self.device_file(name).exists() for name in ("deviceCsr.pem", "deviceCert.pem")):
            self.create_device_request(self.subject("device"))
        self.sign_device_request()
        if last == "device":
            return
        if not self.device_file("deviceCertChain.pem").exists():
            yield "the chain"
        self.create_chain()
        if last == "chain":
            return
        stores = [self.device_file(f"device{name}store.{kind}") for name in ("Key", "Trust") for kind in STORE_KINDS]
        if not all(path.exists() for path in stores):
            yield "keystore and truststore"
        for kind in STORE_KINDS:
            self.create_keystore(kind)
            self.create_truststore(kind)
        if last == "upload" and self.tenant_settings.local:  # a real tenant is asked for in 06 only
            tenant = self.tenant()
            if tenant.trusted_certificates.find(self.issuer_certificate) is None:
                yield "the upload"
            self.upload_ca(tenant)

    def progress(self) -> Progress:
        """Return which steps are done; no key is opened for it, and nobody is asked, see `steps.look`."""
        return look(self)

    def verified(self) -> Progress:
        """Return which steps are done, with every key and store opened, and a real tenant asked.

        Example: ``card("What you have made", workspace.verified().rows)``.
        """
        return look(self, self.passphrase if self._keys() else None)

    def start_over(self) -> None:
        """Stop the local platform and archive everything that was made, for a fresh start."""
        if platform := LocalPlatform.running(self.folder):
            platform.stop()
        names = (
            "platform",
            "issuer",
            "server.json",
            "passphrase",
            "practice",
            "completion",
            "enrolledDevice",
            "renewal",
        )
        others = [self.folder / name for name in names]
        self._archive.move([self.ca_folder, *others, *self.folder.glob(".new-*")], "everything that was made")
        self._opened.clear()
