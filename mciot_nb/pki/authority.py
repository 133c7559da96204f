"""The certificate authority: a folder of files that openssl's ``ca`` command reads and writes as well."""

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from mciot_nb.errors import Diagnosis, OnboardingError, fault
from mciot_nb.pki import crl, signing
from mciot_nb.pki.audit import audit
from mciot_nb.pki.chain import is_ca, is_issued_by, read_certificates, to_pem
from mciot_nb.pki.config import CA_DAYS, INTERMEDIATE_DAYS, CaConfig, find_config, guide_config, read_config, with_dir
from mciot_nb.pki.database import SigningDatabase, copy_path, draft_path, read_serial, recover, settle, write_serial
from mciot_nb.pki.files import disk_errors, sync_folder, write_draft, write_whole
from mciot_nb.pki.keys import KeyType, PrivateKey, Request, create_key, create_request, read_private_key, read_request
from mciot_nb.pki.names import DistinguishedName, check_issuer, oneline, readable
from mciot_nb.pki.rows import DatabaseRow, hex_serial
from mciot_nb.pki.signing import Preview, build_extensions, normalize_time, signed_subject, subject_of
from mciot_nb.secret import Secret

#: The guide's first serial number (hexadecimal 1000).
FIRST_SERIAL = 0x1000


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """Yield a draft folder that becomes ``folder`` at the end, or vanishes if anything fails."""
    with disk_errors(folder):
        if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
            raise fault("EXISTS.folder", folder=folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            yield draft
            if folder.exists():
                folder.rmdir()  # empty, or this raises; Windows can't rename onto it
            draft.rename(folder)
            sync_folder(folder.parent)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def _make_tree(draft: Path, folder: Path, prefix: str) -> CaConfig:
    """Make the guide's tree in ``draft``, which will become ``folder``; ``prefix`` is ``ca`` or ``intermediate``."""
    (draft / "crl").mkdir()
    (draft / "deviceCertificates").mkdir()
    config = draft / f"{prefix}Config.cnf"
    write_whole(config, guide_config(folder, prefix))
    write_whole(draft / "database.txt", b"")
    for name in ("serial", "crl/crlnumber"):
        write_whole(draft / name, f"{hex_serial(FIRST_SERIAL)}\n".encode())
    return read_config(config)


@dataclass(frozen=True)
class CertificateAuthority:
    """A CA in its folder, opened: its configuration, certificate and signing database, and the key, held in memory.

    Make one with `create` or `create_intermediate`, or open one, ours or openssl's, with `open`. ``recovered`` says
    what a crash had left and opening has put in order; mostly it is empty.

    Example: ``CertificateAuthority.open(folder, passphrase).sign(request)``.
    """

    folder: Path
    config: CaConfig = field(repr=False)
    certificate: x509.Certificate
    database: SigningDatabase = field(repr=False)
    key: PrivateKey = field(repr=False)
    recovered: str = ""

    @classmethod
    def create(
        cls,
        folder: Path,
        subject: DistinguishedName,
        passphrase: Secret | str,
        *,
        days: int = CA_DAYS,
        key_type: KeyType = KeyType.RSA_4096,
        at: datetime | None = None,
    ) -> "CertificateAuthority":
        """Make the guide's CA directory with its self-signed certificate (guide: "Creating a self-signed CA …").

        ``at`` is the time from which the certificate is valid, now by default. The folder appears whole or not at all.

        Raises: OnboardingError: if the folder exists already, or ``subject`` has no common name.
        """
        _check_common_name(subject)
        folder, begin = Path(folder), normalize_time(at)
        end = signing.not_after(begin, days)
        with _new_folder(folder) as draft:
            config = _make_tree(draft, folder, "ca")
            key = create_key(draft / "caKey.pem", passphrase, key_type)
            name, public, section = subject.to_x509(), key.public_key(), config.required("req", "x509_extensions")
            number, extensions = x509.random_serial_number(), build_extensions(config, section, public, None)
            builder = x509.CertificateBuilder(name, name, public, number, begin, end, extensions)
            certificate = builder.sign(key, config.digest)
            write_whole(draft / "caCert.pem", to_pem([certificate]))
        return cls._opened(folder, read_config(folder / "caConfig.cnf"), key)

    def create_intermediate(
        self,
        folder: Path,
        subject: DistinguishedName,
        passphrase: Secret | str,
        *,
        extensions: str = "v3_ca",
        days: int | None = None,
        key_type: KeyType = KeyType.RSA_4096,
        at: datetime | None = None,
    ) -> "CertificateAuthority":
        """Make an intermediate CA, signed by this one, in a folder of its own (guide: "Creating an intermediate …").

        The result can make intermediates in turn; a path length of 0 ends that. ``extensions`` names the section of
        *this* CA's configuration for the certificate; ``days`` are the guide's 3650 unless you say otherwise, or what
        is left of this CA's own. A folder with key and request alone, where a crash came before the certificate, is
        gone on with.

        Raises: OnboardingError: if the folder exists already, or this CA would not sign ``subject``.
        """
        _check_common_name(subject)
        begin = normalize_time(at)  # once: a key takes seconds, and what is left of this CA's days is counted from here
        if days is None:
            days = signing.days_within(self.certificate, begin, INTERMEDIATE_DAYS)
        folder = Path(folder)
        if not is_unfinished(folder, subject):
            with _new_folder(folder) as draft:
                self.check_new(subject, days, at=begin)
                _make_tree(draft, folder, "intermediate")
                new_key = create_key(draft / "intermediateKey.pem", passphrase, key_type)
                request = create_request(draft / "intermediateCsr.pem", new_key, subject)
                # What would be refused is refused now: from here on the folder stays, for its key must not be lost.
                signing.prepare(self.config, self.certificate, request, extensions, days, begin)
        key = read_private_key(folder / "intermediateKey.pem", passphrase)
        request = read_request(folder / "intermediateCsr.pem")
        if key.public_key() != request.public_key():
            raise fault("KEY_MISMATCH.request", folder=folder)
        certificate = self.find_issued(request, ca=True) or self.sign(request, extensions, days, at=begin)
        if (path := folder / "intermediateCert.pem").exists():
            raise OnboardingError(f"{folder} was finished by another program meanwhile: open it.", "EXISTS")
        write_whole(path, to_pem([certificate]))
        return CertificateAuthority._opened(folder, read_config(folder / "intermediateConfig.cnf"), key)

    @classmethod
    def open(cls, folder: Path, passphrase: Secret | str, config: Path | None = None) -> "CertificateAuthority":
        """Open a CA directory that `create` or openssl made, and put in order what a crash has left in it.

        ``config`` names its configuration, where the folder has none of the guide's names, or several.

        Raises: OnboardingError: if something is missing or damaged, the passphrase is wrong, or the configuration's
            ``dir`` names another folder: openssl would sign into that one. `inspect` tells more, without opening it.
        """
        read = read_config(Path(config or find_config(folder)))
        if other := read.other_folder(folder):
            raise OnboardingError(other, "OTHER_DIR")
        return cls._opened(folder, read, read_private_key(read.ca_path("private_key"), passphrase))

    @staticmethod
    def relocate(folder: Path) -> None:
        """Make a copied or moved directory a CA of its own: rewrite the configuration's ``dir`` line, nothing else.

        A relative ``dir`` is as right in a copy, and stays as it is.
        """
        config = find_config(folder)
        if Path(read_config(config).ca("dir")).is_absolute():
            write_whole(config, with_dir(config, folder), replace=True)

    @classmethod
    def _opened(cls, folder: Path, config: CaConfig, key: PrivateKey) -> "CertificateAuthority":
        certificate = read_certificates(config.ca_path("certificate"))[0]
        check_issuer(certificate)
        if certificate.public_key() != key.public_key():
            raise fault("KEY_MISMATCH.ca", key=config.ca("private_key"), certificate=config.ca("certificate"))
        database = SigningDatabase.of(config)
        recovered = recover(config, database)
        database.index()
        return cls(Path(folder), config, certificate, database, key, recovered)

    inspect = staticmethod(audit)

    def check(self) -> Diagnosis:
        """Look through this CA's directory, as `inspect` does."""
        return audit(self.folder, self.config.path)

    def preview(self, subject: DistinguishedName | Request) -> Preview:
        """Return what signing would make of a subject: what the policy drops, misses or refuses. Nothing is signed."""
        name = subject.to_x509() if isinstance(subject, DistinguishedName) else subject_of(subject)
        return signing.preview_subject(self.config, name, self.certificate.subject)

    def check_new(self, subject: DistinguishedName, days: int, *, at: datetime | None = None) -> None:
        """Check, before a key is made, that `sign` would sign ``subject``. Raises: OnboardingError: as `sign` does."""
        name = signed_subject(self.config, subject.to_x509(), self.certificate.subject)
        what = f"The certificate of {readable(name)}"
        signing.validity(self.config, self.certificate, days, normalize_time(at), what)
        signing.check_unique_subject(self.database, self.config, [name])
        if self.database.serial_path:
            self.database.check_serial(read_serial(self.database.serial_path))

    def sign(
        self, csr: Request, extensions: str | None = None, days: int | None = None, *, at: datetime | None = None
    ) -> x509.Certificate:
        """Sign a request by the policy, write the database's row, and keep a copy under the serial number.

        The same as ``openssl ca -extensions … -days … -notext`` (guide: "Creating a device certificate"). Without
        ``extensions``, the section v3_signed, or else the one that ``x509_extensions`` names; without ``days``,
        ``default_days``. As for openssl, ``default_enddate`` overrules either.

        Raises: OnboardingError: if the request is bad, the policy refuses it, a valid certificate for the same subject
            exists already, or the certificate would outlive the CA; then nothing has changed. If the disk fails behind
            the row (UNFINISHED, UNCONFIRMED) the certificate is signed, and `find_issued` returns it.
        """
        return self.sign_many([csr], extensions, days, at=at)[0]

    def sign_many(
        self,
        requests: Iterable[Request],
        extensions: str | None = None,
        days: int | None = None,
        *,
        at: datetime | None = None,
        shows_progress: bool = True,
    ) -> list[x509.Certificate]:
        """Sign many requests as `sign` does, all of them or none, in a fraction of the time.

        Where stderr is a terminal, a bar shows how many are signed, unless the caller has its own. Stopped before the
        last one, none is recorded.

        Raises: OnboardingError: for the first request that can't be signed; then none is.
        """
        from tqdm import tqdm  # here, because it takes a fifth of a second

        begin = normalize_time(at)
        prepared = [signing.prepare(self.config, self.certificate, csr, extensions, days, begin) for csr in requests]
        if not prepared:
            return []
        copies, options = self.config.ca_path("new_certs_dir"), signing.signing_options(self.config, self.certificate)
        with self._locked():
            signing.check_unique_subject(self.database, self.config, [subject for subject, _ in prepared])
            serials = self.database.reserve_serials(len(prepared), copies)
            try:
                numbered = zip(serials, [builder for _, builder in prepared], strict=True)
                bar = tqdm(numbered, total=len(serials), disable=None if shows_progress and serials[1:] else True)
                certificates = self._write_drafts(copies, bar, options)
                self.database.record([signing.row_of(certificate) for certificate in certificates])
            finally:  # whatever happened: what has a row gets its name, and nothing else stays
                settle(copies, serials, self.database.index().serials)
        return certificates

    def _write_drafts(
        self, copies: Path, numbered: Iterable[tuple[int, x509.CertificateBuilder]], options: dict[str, Any]
    ) -> list[x509.Certificate]:
        """Sign, and write each certificate under its draft's name while the next one is signed; durable on return."""
        certificates, writes = [], []
        with disk_errors(copies):
            with ThreadPoolExecutor(8) as pool:  # what waits for the disk together, the disk does together
                for serial, builder in numbered:
                    certificates.append(certificate := builder.serial_number(serial).sign(self.key, **options))
                    writes.append(pool.submit(write_draft, draft_path(copies, serial), to_pem([certificate])))
            for write in writes:
                write.result()
        sync_folder(copies)
        return certificates

    def find_issued(self, csr: Request, *, ca: bool = False) -> x509.Certificate | None:
        """Return the valid certificate that this CA signed last for a request's subject, if its key is the request's.

        ``ca`` says whether it is to be a CA's or a device's. None if there is no such certificate.

        Raises: OnboardingError: if the request is bad or the policy would refuse it.
        """
        signing.check_request(csr)
        subject = signed_subject(self.config, subject_of(csr), self.certificate.subject)
        serial = self.database.index().valid.get(oneline(subject))
        if serial is None:
            return None
        path = copy_path(self.config.ca_path("new_certs_dir"), serial)
        if not path.exists():
            self.check_in_place()
            recover(self.config, self.database)  # signing was cut off between the row and the name
        for found in read_certificates(path)[:1] if path.exists() else ():
            same = (found.public_key(), found.serial_number, is_ca(found)) == (csr.public_key(), serial, ca)
            if same and found.not_valid_after_utc > normalize_time(None) and is_issued_by(found, self.certificate):
                return found
        return None

    def allow_same_subject(self) -> None:
        """Let a subject have several valid certificates: in ``database.txt.attr``, which overrules the .cnf."""
        with self._locked():
            if signing.must_be_unique(self.database, self.config):
                write_whole(self.database.attributes_path, b"unique_subject = no\n", replace=True)

    def cross_sign(self, new: "CertificateAuthority") -> x509.Certificate:
        """Return a certificate of the ``new`` CA's name and key, signed by this one: a cross-certificate.

        The name stays whole whatever the policy drops (``-preserveDN``): a certificate names its issuer in full.
        """
        whole = self.config.sections | {"ca": {**self.config.sections["ca"], "preserve": "yes"}}
        signer = replace(self, config=replace(self.config, sections=whole))
        request = x509.CertificateSigningRequestBuilder().subject_name(new.certificate.subject).sign(new.key, SHA256())
        return signer.find_issued(request, ca=True) or signer.sign(request, "v3_ca")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock, in a directory that still is this CA's: another may have taken its place."""
        with self.database.locked():
            self.check_in_place()
            yield

    def check_in_place(self) -> None:
        """Check that the folder is this CA's still. Raises: OnboardingError: REPLACED if it holds another."""
        if read_certificates(self.config.ca_path("certificate"))[0] != self.certificate:
            raise fault("REPLACED", folder=self.folder)

    def revoke(self, serial: int | x509.Certificate, reason: str = "", *, at: datetime | None = None) -> DatabaseRow:
        """Mark a certificate as revoked from ``at`` on, now by default (``openssl ca -revoke … -crl_reason …``).

        ``serial`` is its number, or the certificate itself. ``reason`` is one of openssl's words, such as
        keyCompromise, or empty for none. Others learn of it by `update_crl` only.

        Raises: OnboardingError: if the certificate is not this CA's or is revoked already; then nothing has changed.
        """
        with self._locked():
            return crl.revoke(self.database, self.certificate, serial, reason, normalize_time(at))

    def update_database(self, *, at: datetime | None = None) -> list[DatabaseRow]:
        """Mark as expired what has expired by ``at``, now by default; return these rows (``openssl ca -updatedb``).

        Only then can a subject be signed again whose certificate has run out.
        """
        time = normalize_time(at)
        with self._locked():
            due = [row for row in self.database.rows() if row.status == "V" and row.expires <= time]
            expired = [replace(row, status="E") for row in due]
            if expired:
                self.database.rewrite(expired)
        return expired

    def update_crl(self, days: int | None = None, *, at: datetime | None = None) -> x509.CertificateRevocationList:
        """Write a new revocation list, valid for ``days``, to the configuration's ``crl`` (``openssl ca -gencrl``).

        Without ``days``: ``default_crl_days``, and ``default_crl_hours``.

        Raises: OnboardingError: if the configuration names no ``crl``, or the file of its ``crlnumber`` is missing.
        """
        begin, own = normalize_time(at), self.certificate
        options = signing.signing_options(self.config, own)
        hours = self.config.number("default_crl_hours") if days is None else 0
        days = self.config.number("default_crl_days") if days is None else days
        end = signing.not_after(begin, days, "A revocation list") + timedelta(hours=hours)
        section = self.config.optional("crl_extensions")
        extensions = signing.section_extensions(self.config, section, own.public_key(), own)
        path, number_path = self.config.ca_path("crl"), self.config.ca_path("crlnumber")
        with self._locked():
            number = x509.CRLNumber(read_serial(number_path))
            extensions.append(x509.Extension(number.oid, False, number))
            entries = crl.revoked_entries(self.database.rows())
            builder = x509.CertificateRevocationListBuilder(own.subject, begin, end, extensions, entries)
            made = builder.sign(self.key, **options)
            write_serial(number_path, number.crl_number + 1)  # first: one that is lost does no harm, one twice does
            write_whole(path, made.public_bytes(Encoding.PEM), replace=True)
        return made


def _check_common_name(subject: DistinguishedName) -> None:
    if subject.common_name is None:
        raise OnboardingError("A CA needs a common name, by which people know it: fill in Common Name.", "BAD_NAME")


def is_unfinished(folder: Path, subject: DistinguishedName, key_type: KeyType | None = None) -> bool:
    """Whether an intermediate CA for ``subject``, with a key of the type, lacks nothing but its certificate."""
    names = ("intermediateKey.pem", "intermediateCsr.pem", "intermediateConfig.cnf", "database.txt", "serial")
    try:
        there = all((folder / name).exists() for name in names) and not (folder / "intermediateCert.pem").exists()
        request = read_request(folder / "intermediateCsr.pem")
        return there and request.subject == subject.to_x509() and key_type in (None, KeyType.of(request))
    except (OSError, ValueError, OnboardingError):  # what can't be read can't be gone on with
        return False
