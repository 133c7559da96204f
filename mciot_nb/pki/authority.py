"""The certificate authority: a folder of files that openssl's ``ca`` command reads and writes as well."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256

from mciot_nb.errors import OnboardingError
from mciot_nb.pki.chain import read_certificates, to_pem
from mciot_nb.pki.config import CaConfig, guide_config, read_config, with_dir
from mciot_nb.pki.database import Row, SigningDatabase, hex_serial
from mciot_nb.pki.extensions import build_extensions
from mciot_nb.pki.files import disk_problem, sync_folder, write_whole
from mciot_nb.pki.keys import KEY_SIZE, PrivateKey, create_private_key, read_private_key
from mciot_nb.pki.names import DistinguishedName, Field, oneline, readable
from mciot_nb.secret import Secret

#: How long the guide's CA certificate is valid, in days.
CA_DAYS = 7300
#: A hundred years: whoever asks for more has mistyped.
LONGEST_DAYS = 36500
#: The guide's first serial number (hexadecimal 1000).
FIRST_SERIAL = 0x1000


@dataclass(frozen=True)
class CertificateAuthority:
    """A CA in its folder, opened: its configuration, certificate and signing database, and the key, held in memory.

    Make one with `create`, or open one, ours or openssl's, with `open`.
    """

    folder: Path
    config: CaConfig
    certificate: x509.Certificate
    database: SigningDatabase
    _key: PrivateKey = field(repr=False)

    @classmethod
    def create(
        cls,
        folder: Path,
        subject: DistinguishedName,
        passphrase: Secret | str,
        *,
        days: int = CA_DAYS,
        bits: int = KEY_SIZE,
        at: datetime | None = None,
    ) -> "CertificateAuthority":
        """Make the guide's CA directory with its self-signed certificate (guide: "Creating a self-signed CA …").

        ``bits`` is the RSA key's size; ``at`` the time from which the certificate is valid, now by default. The folder
        appears whole or not at all.

        Raises OnboardingError where the folder is there already, or ``subject`` has no common name.
        """
        if subject.common_name is None:
            raise OnboardingError("A CA needs a common name, by which people know it: fill in Common Name.", "BAD_NAME")
        with _new_folder(folder) as draft:
            (draft / "crl").mkdir()
            (draft / "deviceCertificates").mkdir()
            write_whole(draft / "caConfig.cnf", guide_config(folder))
            write_whole(draft / "database.txt", b"")
            write_whole(draft / "serial", f"{hex_serial(FIRST_SERIAL)}\n".encode())
            write_whole(draft / "crl" / "crlnumber", f"{hex_serial(FIRST_SERIAL)}\n".encode())
            key = create_private_key(draft / "caKey.pem", passphrase, bits)
            config = read_config(draft / "caConfig.cnf")
            builder = _builder(subject.to_x509(), subject.to_x509(), key.public_key(), days, at)
            for extension in build_extensions(
                config, config.required("req", "x509_extensions"), key.public_key(), None
            ):
                builder = builder.add_extension(extension.value, extension.critical)
            certificate = builder.serial_number(x509.random_serial_number()).sign(key, SHA256())
            write_whole(draft / "caCert.pem", to_pem([certificate]))
        return cls._opened(folder, key)

    @classmethod
    def open(cls, folder: Path, passphrase: Secret | str) -> "CertificateAuthority":
        """Open a CA directory that `create` or openssl made.

        Raises OnboardingError where something is missing, the passphrase is wrong, or the configuration's ``dir`` names
        another folder: openssl would sign into that one.
        """
        config = read_config(folder / "caConfig.cnf")
        named = Path(config.ca("dir"))
        if not (named.exists() and named.samefile(folder)):
            raise OnboardingError(
                f"{config.path} says dir = {named}, so openssl would sign into that folder: if this is a copy or was "
                f"moved, call CertificateAuthority.relocate(Path({str(folder)!r})) and open it again.",
                "OTHER_DIR",
            )
        return cls._opened(folder, read_private_key(Path(config.ca("private_key")), passphrase))

    @staticmethod
    def relocate(folder: Path) -> None:
        """Make a copied or moved directory a CA of its own: rewrites the configuration's ``dir`` line, nothing else."""
        config = folder / "caConfig.cnf"
        read_config(config)
        write_whole(config, with_dir(config, folder), replace=True)

    @classmethod
    def _opened(cls, folder: Path, key: PrivateKey) -> "CertificateAuthority":
        config = read_config(folder / "caConfig.cnf")
        certificate = read_certificates(Path(config.ca("certificate")))[0]
        if certificate.public_key() != key.public_key():
            raise OnboardingError(
                f"The key {config.ca('private_key')} does not belong to the certificate {config.ca('certificate')}: "
                "put the pair back that was made together.",
                "KEY_MISMATCH",
            )
        database = SigningDatabase(Path(config.ca("database")), Path(config.ca("serial")))
        return cls(folder, config, certificate, database, key)

    def sign(
        self,
        csr: x509.CertificateSigningRequest,
        extensions: str = "v3_signed",
        days: int = 365,
        *,
        at: datetime | None = None,
    ) -> x509.Certificate:
        """Sign a request by the policy, keep a copy under the serial number, and write the database's row.

        The same as ``openssl ca -extensions … -days … -notext -md sha256`` (guide: "Creating a device certificate").
        Raises OnboardingError where the request's signature is wrong, the policy refuses it, or a valid certificate for
        the same subject is there already; then nothing has changed.
        """
        if not csr.is_signature_valid:
            raise OnboardingError(
                f"The request of {readable(csr.subject)} was changed after it was made, or its key is not its own: "
                "make the request anew.",
                "BAD_REQUEST",
            )
        subject = apply_policy(self.config, csr.subject, self.certificate.subject)
        builder = _builder(subject, self.certificate.subject, csr.public_key(), days, at)
        for extension in build_extensions(self.config, extensions, csr.public_key(), self.certificate):
            builder = builder.add_extension(extension.value, extension.critical)
        with self.database.locked():
            rows = self.database.rows()
            self._refuse_second(rows, subject)
            copies = Path(self.config.ca("new_certs_dir"))
            serial = self.database.reserve_serial(rows, copies)
            certificate = builder.serial_number(serial).sign(self._key, SHA256())
            write_whole(copies / f"{hex_serial(serial)}.pem", to_pem([certificate]))
            row = Row("V", certificate.not_valid_after_utc, None, "", serial, "unknown", oneline(subject))
            self.database.append(row)
        return certificate

    def _refuse_second(self, rows: list[Row], subject: x509.Name) -> None:
        unique = self.database.unique_subject
        if unique is None:
            word = self.config.value(self.config.required("ca", "default_ca"), "unique_subject") or "yes"
            unique = word[0] not in "nNfF0"
        twin = next((row for row in rows if row.status == "V" and row.subject == oneline(subject)), None)
        if unique and twin:
            raise OnboardingError(
                f"There is already a certificate for {twin.subject}, with serial {hex_serial(twin.serial)}: revoke "
                "that one first, or request another subject.",
                "SUBJECT_TAKEN",
            )


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """Give a draft folder that becomes ``folder`` at the end, or vanishes where anything fails."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise OnboardingError(f"{folder} is there already and is never overwritten: choose another folder.", "EXISTS")
    draft = folder.parent / f".{folder.name}.draft"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        yield draft
        if folder.exists():
            folder.rmdir()  # empty, or this raises; Windows can't rename onto it
        draft.rename(folder)
        sync_folder(folder.parent)
    except OSError as error:
        raise disk_problem(folder, error) from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def apply_policy(config: CaConfig, requested: x509.Name, issuer: x509.Name) -> x509.Name:
    """Build the subject that ``openssl ca`` would sign: the policy's fields, in the policy's order.

    What the policy does not list vanishes. Raises OnboardingError, with openssl's own words first, where a field is
    missing or differs from the CA's.
    """
    attributes: list[x509.NameAttribute[str | bytes]] = []
    for policy_field, word in config.policy:
        found = requested.get_attributes_for_oid(policy_field.oid)
        if word == "match":
            _refuse_mismatch(policy_field, found, issuer.get_attributes_for_oid(policy_field.oid))
        if word == "supplied" and not found:
            raise OnboardingError(
                f"The {policy_field.long_name} field needed to be supplied and was missing: "
                f"make the request with a {policy_field.label}.",
                "POLICY",
            )
        attributes += found
    return x509.Name(attributes)


def _refuse_mismatch(
    policy_field: Field, found: list[x509.NameAttribute[str | bytes]], own: list[x509.NameAttribute[str | bytes]]
) -> None:
    if not own:
        raise OnboardingError(
            f"The {policy_field.long_name} field does not exist in the CA certificate, so the policy can't match it: "
            "say optional or supplied in the policy.",
            "POLICY",
        )
    # openssl compares the encoded string, its type included
    if [x509.Name([a]).public_bytes() for a in found] != [x509.Name([own[0]]).public_bytes()] * max(len(found), 1):
        values = " + ".join(str(attribute.value) for attribute in found)
        raise OnboardingError(
            f"The {policy_field.long_name} field is different between CA certificate ({own[0].value!s}) and the "
            f"request ({values}): make the request with the CA's value.",
            "POLICY",
        )


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: CertificatePublicKeyTypes, days: int, at: datetime | None
) -> x509.CertificateBuilder:
    if not 1 <= days <= LONGEST_DAYS:
        raise OnboardingError(f"A certificate is valid for 1 to {LONGEST_DAYS} days, not {days}.", "BAD_DAYS")
    begin = (at or datetime.now(UTC)).replace(microsecond=0)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=days))
    )
