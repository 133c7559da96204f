"""What is wrong with a CA directory, ours or not: the traps of the guide and of openssl, each in a sentence."""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from mciot_nb.errors import Diagnosis, Finding, OnboardingError, finding
from mciot_nb.pki import signing
from mciot_nb.pki.chain import is_ca, is_issued_by, read_certificates, signature_fits
from mciot_nb.pki.config import CaConfig, find_config, read_config
from mciot_nb.pki.crl import read_crl
from mciot_nb.pki.database import SigningDatabase, copy_path, crash_traces, read_serial
from mciot_nb.pki.files import disk_errors
from mciot_nb.pki.names import BY_LONG_NAME, check_issuer, name_of, readable
from mciot_nb.pki.parts import UNREADABLE
from mciot_nb.pki.rows import DatabaseRow, hex_serial

_MOST_NAMED = 5


def audit(folder: Path, config: Path | None = None, *, at: datetime | None = None) -> Diagnosis:
    """Look through a CA directory, ours or not, and return what is wrong with it and what to do about each.

    It needs no passphrase and changes nothing. ``config`` names its configuration, where the folder has none of the
    guide's name, or several. ``at`` is the time of the audit, now by default.

    Raises: OnboardingError: if there is no configuration that could be read.
    """
    read, now = read_config(Path(config or find_config(folder))), at or datetime.now(UTC)
    findings: list[Finding] = []
    checks = (_configuration, _signing, _key_and_certificate, _database, _numbers, _copies, _revocation_list)
    for check in checks:
        try:  # what can't be read is a finding too, and the next check goes on
            with disk_errors():
                findings += check(read, Path(folder), now)
        except OnboardingError as error:
            findings.append(Finding(error.code, str(error)))
    return Diagnosis(tuple(dict.fromkeys(findings)))


def _configuration(config: CaConfig, folder: Path, _: datetime) -> Iterator[Finding]:
    name, section = config.path.name, config.required("ca", "default_ca")
    if other := config.other_folder(folder):
        yield Finding("OTHER_DIR", other)
    if "preserve" in config.sections.get(section, {}):
        yield finding("PRESERVE_IGNORED", name=name, section=section)
    if not config.optional("x509_extensions"):
        yield finding("NO_X509_EXTENSIONS", name=name, section=section)
    listed = {field.long_name for field, _ in config.policy}
    asked = config.sections.get(config.value("req", "distinguished_name") or "", {})
    dropped = [name for name in asked if name in BY_LONG_NAME and name not in listed]
    if dropped and not config.preserve:
        yield finding("POLICY_DROPS", fields=", ".join(dropped), first=dropped[0], policy=config.ca("policy"))


def _signing(config: CaConfig, _: Path, now: datetime) -> Iterator[Finding]:
    """What `sign` and `update_crl` would refuse, whatever the request is: by their own checks."""
    own = read_certificates(config.ca_path("certificate"))[0]
    check_issuer(own)
    checks: tuple[Callable[[], object], ...] = (
        lambda: signing.signing_options(config, own),
        lambda: signing.validity(config, own, min(1, config.number("default_days")) or None, now),
        lambda: signing.build_extensions(config, signing.default_section(config), own.public_key(), own),
        lambda: signing.section_extensions(config, config.optional("crl_extensions"), own.public_key(), own),
    )
    for check in checks:
        try:
            with suppress(*UNREADABLE):  # the key, as the first check has told
                check()
        except OnboardingError as error:
            yield Finding(error.code, str(error))
    for field, word in config.policy:
        if word == "match" and (problem := signing.mismatch(field, [], own.subject.get_attributes_for_oid(field.oid))):
            yield Finding("POLICY", problem)


def _key_and_certificate(config: CaConfig, _: Path, now: datetime) -> Iterator[Finding]:
    key, path = config.ca_path("private_key"), config.ca_path("certificate")
    certificate = read_certificates(path)[0]
    if not key.exists():
        yield finding("NO_FILE.ca_key", key=key)
    elif os.name != "nt" and stat.S_IMODE(key.stat().st_mode) & 0o077:
        yield finding("KEY_READABLE", key=key)
    if key.exists() and b"ENCRYPTED" not in key.read_bytes():
        yield finding("KEY_NOT_ENCRYPTED", key=key)
    if not is_ca(certificate):
        yield finding("NO_CA", path=path)


def _database(config: CaConfig, _: Path, now: datetime) -> Iterator[Finding]:
    database = SigningDatabase.of(config)
    for trace in crash_traces(config, database):
        yield finding("INTERRUPTED.trace", folder=config.ca("dir"), trace=trace)
    rows = database.rows()
    signing.must_be_unique(database, config)
    if any(line.startswith(b"#") for line in database.path.read_bytes().split(b"\n")):
        yield finding("COMMENT", path=database.path)
    valid = [row for row in rows if row.status == "V"]
    with suppress(OnboardingError):  # a certificate that can't be read is named elsewhere
        last = read_certificates(config.ca_path("certificate"))[0].not_valid_after_utc
        if late := [row for row in valid if row.expires > last]:
            yield finding("OUTLIVES_CA.rows", last=last, rows=_named(late))
    if over := [row for row in valid if row.expires <= now]:
        yield finding("EXPIRED_ROWS", rows=_named(over))


def _numbers(config: CaConfig, *_: object) -> Iterator[Finding]:
    number_path = config.ca_path("crlnumber") if config.optional("crlnumber") else None
    if number_path and not number_path.exists():
        yield finding("NO_CRLNUMBER", path=number_path)
    elif number_path:
        read_serial(number_path)
    database, copies = SigningDatabase.of(config), config.ca_path("new_certs_dir")
    if database.serial_path is None:
        return
    serial = read_serial(database.serial_path)
    database.check_serial(serial)
    if serial in database.index().serials or copy_path(copies, serial).exists():
        yield finding("SERIAL_USED", path=database.serial_path, serial=hex_serial(serial))


def _copies(config: CaConfig, *_: object) -> Iterator[Finding]:
    copies = config.ca_path("new_certs_dir")
    if not copies.is_dir():
        yield finding("NO_FILE.copies", copies=copies)
        return
    database = SigningDatabase.of(config)
    own, known = read_certificates(config.ca_path("certificate"))[0], database.index().serials
    for path in sorted(copies.glob("*.pem")):
        with suppress(OnboardingError):  # a key or a request
            certificate = read_certificates(path)[0]
            number = certificate.serial_number
            foreign = certificate != own and not is_issued_by(certificate, own, unchecked=True)
            if foreign and path.stem == hex_serial(number) and number in known:
                yield finding("FOREIGN_COPY", path=path)
            if number not in known and certificate != own and is_issued_by(certificate, own):
                yield finding("NO_ROW.copy", path=path, subject=readable(name_of(certificate)), config=config.path)


def _revocation_list(config: CaConfig, _: Path, now: datetime) -> Iterator[Finding]:
    path = config.ca_path("crl") if config.optional("crl") else None
    if not path or not path.exists():
        return
    crl, own = read_crl(path), read_certificates(config.ca_path("certificate"))[0]
    if signature_fits(crl, own) is False:
        yield finding("FOREIGN_CRL", path=path)
    if crl.next_update_utc and crl.next_update_utc < now:
        yield finding("CRL_EXPIRED", path=path, date=crl.next_update_utc)
    listed = {entry.serial_number for entry in crl}
    if missing := [row for row in SigningDatabase.of(config).rows() if row.status == "R" and row.serial not in listed]:
        yield finding("CRL_INCOMPLETE", path=path, rows=_named(missing))


def _named(rows: list[DatabaseRow]) -> str:
    more = f" and {len(rows) - _MOST_NAMED} more" if len(rows) > _MOST_NAMED else ""
    return ", ".join(f"{hex_serial(row.serial)} ({row.subject})" for row in rows[:_MOST_NAMED]) + more
