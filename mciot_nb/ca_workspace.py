"""The CA's part of the learner's folder: its passphrase, the CA, an intermediate below it, and which of them signs.

Every making method can be called again: it finds what it made for the same input. Asked for something else, it moves
what was there to ``earlier/1`` (2, 3 …) and says so. Nothing is ever deleted.
"""

import copy
import os
import tempfile
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Self

from cryptography import x509

from mciot_nb import earlier
from mciot_nb.errors import OnboardingError
from mciot_nb.passphrase import Passphrase, checked
from mciot_nb.pki.authority import CA_DAYS, INTERMEDIATE_DAYS, CertificateAuthority, is_unfinished
from mciot_nb.pki.chain import is_issued_by, read_certificates
from mciot_nb.pki.config import GUIDE_CONFIG, CaConfig, read_config, with_dir
from mciot_nb.pki.directory import find_config
from mciot_nb.pki.files import disk_problem, write_whole
from mciot_nb.pki.keys import KEY_SIZE, KeyChoice, check_bits, key_bits, read_request
from mciot_nb.pki.keystore import store_password
from mciot_nb.pki.names import DistinguishedName
from mciot_nb.pki.policy import signed_subject
from mciot_nb.pki.signing import days_below, moment
from mciot_nb.secret import Secret

#: What the forms offer, and what a notebook that was opened first catches up with.
DEFAULT_CA = DistinguishedName("DE", "Bavaria", "Munich", "Example Company", "Device Onboarding", "Example Root CA")
DEFAULT_INTERMEDIATE = DistinguishedName(
    "DE", "Bavaria", "Munich", "Example Company", "Device Onboarding", "Example Intermediate CA"
)
DEFAULT_CA_KEY, DEFAULT_INTERMEDIATE_KEY = KeyChoice(KEY_SIZE, CA_DAYS), KeyChoice(KEY_SIZE, INTERMEDIATE_DAYS)

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
        self, subject: DistinguishedName, *, bits: int | None = None, days: int | None = None
    ) -> CertificateAuthority:
        """Make the CA for ``subject``, or open it if it is there; one that is not what is asked for moves aside.

        ``bits`` are those of an RSA key, or 256 for P-256, and ``days`` the certificate's. Where you ask for none, what
        is there may have any, and what is made has the guide's. Raises OnboardingError before anything moves.
        """
        there = self.ca_key_choice
        if self.has_ca and self.ca_subject == subject and there == there.changed(bits, days):
            return self.ca()
        asked = DEFAULT_CA_KEY.changed(bits, days)
        passphrase = self.passphrase  # which may be made up now
        store_password(passphrase)  # here, and not in 05, when half of the way is gone
        unused = [] if self._passphrase.is_practice else [self._passphrase.practice_file]
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=".new-") as draft:
            new = Path(draft) / self.ca_folder.name
            # Whole, before the old one moves.
            config = CertificateAuthority.create(new, subject, passphrase, **vars(asked)).config.path
            write_whole(config, with_dir(config, self.ca_folder), replace=True)
            self._move_aside([self.ca_folder, *unused], "the CA that was here, and everything made with it,")
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
        self, subject: DistinguishedName, *, bits: int | None = None, days: int | None = None
    ) -> CertificateAuthority:
        """Make an intermediate CA for ``subject`` below the CA, or find it (guide: "Creating an intermediate …").

        One that is not what is asked for (see `create_ca`) moves aside, and comes back when it is asked for again.
        Raises OnboardingError, SUBJECT_TAKEN, where the CA has a valid one for ``subject`` with another key or days.
        """
        there = self.intermediate_key_choice
        if self.has_intermediate and self.intermediate_subject == subject and there == there.changed(bits, days):
            earlier.mention_revoked(self.ca_config, self.intermediate().certificate)
            return self.intermediate()
        ca, folder, moved = self.ca(), self.intermediate_folder, None
        found = self._earlier_intermediate(subject, bits, days)
        unfinished = is_unfinished(folder, subject, bits)
        asked = DEFAULT_INTERMEDIATE_KEY.changed(bits)
        if not (found or unfinished):  # else it would be refused when the old one has moved
            check_bits(asked.bits)
            ca.check_new(subject, days_below(ca.certificate, moment(None), INTERMEDIATE_DAYS) if days is None else days)
        if folder.exists() and not unfinished:
            what = "the intermediate CA that was here, and everything made with it,"
            moved = self._move_aside([folder], what) / ISSUERS["intermediate"]
        try:
            if found:
                found.rename(folder)
            else:  # in its place from the start: once it is signed, its key must not be lost
                ca.create_intermediate(folder, subject, self.passphrase, bits=asked.bits, days=days)
        except BaseException as error:  # somebody who cancels, too
            if moved and not folder.exists():
                moved.rename(folder)
                print("Moved it back.")
            if isinstance(error, OSError):
                raise disk_problem(folder, error) from None
            raise
        self._opened.pop(self.intermediate_folder, None)
        return self.intermediate()

    def _earlier_intermediate(self, subject: DistinguishedName, bits: int | None, days: int | None) -> Path | None:
        """Look for an intermediate that moved aside once, is what is asked for, and was not revoked since."""

        def fits(signed: x509.Certificate) -> bool:
            choice = KeyChoice.of(signed)
            return choice == choice.changed(bits, days) and not earlier.is_revoked(self.ca_config, signed)

        request, issuer = Path(ISSUERS["intermediate"]) / "intermediateCsr.pem", self.ca().certificate
        return earlier.find_signed(
            self.folder, request, "intermediateCert.pem", subject, issuer, fits, _INTERMEDIATE_FILES
        )

    @property
    def intermediate_key_choice(self) -> KeyChoice:
        """The kind of key and the days of the intermediate that is there, or else the guide's, as far as the CA has."""
        default = DEFAULT_INTERMEDIATE_KEY
        with suppress(OnboardingError):  # there may be no CA yet, and no request
            default = as_far_as(read_certificates(self.ca_folder / "caCert.pem")[0], default)
            default = default.changed(key_bits(read_request(self.intermediate_folder / "intermediateCsr.pem")))
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

    def branch(self, issuer: str) -> Self:
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

    def _move_aside(self, paths: list[Path], what: str) -> Path:
        return earlier.move_aside(self.folder, paths, what)


def as_far_as(issuer: x509.Certificate, choice: KeyChoice) -> KeyChoice:
    """Give ``choice`` with no more days than ``issuer`` will have left in an hour: so long a notebook may take."""
    return choice.changed(days=days_below(issuer, moment(None) + timedelta(hours=1), choice.days))


def _made_choice(certificate: Path, default: KeyChoice) -> KeyChoice:
    """Give what a certificate in a file has, or ``default`` where there is none that can be read."""
    with suppress(OnboardingError):
        return KeyChoice.of(read_certificates(certificate)[0])
    return default


def _check_issuer(issuer: str) -> None:
    if issuer not in ISSUERS:
        raise OnboardingError(f"There is no issuer {issuer!r}: say {' or '.join(ISSUERS)}.", "NO_ISSUER")
