"""What is wrong with a CA directory, ours or not: the traps of the guide and of openssl, each in a sentence."""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from mciot_nb.errors import Diagnosis, Finding, OnboardingError
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
    checks = (_configuration, _policy, _signing, _key_and_certificate, _database, _numbers, _copies, _revocation_list)
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
        problem = f"{name} sets preserve in [ {section} ], where openssl does not look for it: "
        yield Finding("PRESERVE_IGNORED", problem + "move it to [ ca ], where it has an effect, or remove it.")
    if not config.optional("x509_extensions"):
        yield Finding(
            "NO_X509_EXTENSIONS",
            f"{name} has no x509_extensions in [ {section} ]: without -extensions v3_signed, openssl makes a "
            "certificate without extensions, up to OpenSSL 3.1 of version 1, which the platform refuses; add "
            "x509_extensions = v3_signed.",
        )


def _policy(config: CaConfig, *_: object) -> Iterator[Finding]:
    listed = {field.long_name for field, _ in config.policy}
    asked = config.sections.get(config.value("req", "distinguished_name") or "", {})
    dropped = [name for name in asked if name in BY_LONG_NAME and name not in listed]
    if dropped and not config.preserve:
        yield Finding(
            "POLICY_DROPS",
            f"The policy does not list {', '.join(dropped)}: what is filled in there is silently left out of the "
            f"signed certificate; add {dropped[0]} = optional to [ {config.ca('policy')} ], if you want it "
            "kept.",
        )


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
        yield Finding("NO_FILE", f"The CA's key {key} is missing: put it back, as nothing can be signed without it.")
    elif os.name != "nt" and stat.S_IMODE(key.stat().st_mode) & 0o077:
        yield Finding("KEY_READABLE", f"Others can read the CA's key {key}: prevent that with chmod 600 {key.name}.")
    if key.exists() and b"ENCRYPTED" not in key.read_bytes():
        yield Finding(
            "KEY_NOT_ENCRYPTED",
            f"The CA's key {key} has no passphrase: openssl pkey -aes256 -in {key.name} -out new.pem writes it with "
            "one; then put new.pem in its place (never name one file twice: OpenSSL 3.0 empties it before it reads).",
        )
    if not is_ca(certificate):
        says = f"{path.name} does not say CA:true, so nobody trusts what it signs: make it with -extensions v3_ca."
        yield Finding("NO_CA", says)


def _database(config: CaConfig, _: Path, now: datetime) -> Iterator[Finding]:
    database = SigningDatabase.of(config)
    for trace in crash_traces(config, database):
        interrupted = f"Signing was interrupted in {config.ca('dir')}, or is going on there right now: {trace}; "
        yield Finding("INTERRUPTED", interrupted + "opening the CA puts that in order.")
    rows = database.rows()
    signing.must_be_unique(database, config)
    if any(line.startswith(b"#") for line in database.path.read_bytes().split(b"\n")):
        says = f"{database.path.name} has a comment: openssl loses it when it signs next; keep it in another file."
        yield Finding("COMMENT", says)
    valid = [row for row in rows if row.status == "V"]
    with suppress(OnboardingError):  # a certificate that can't be read is named elsewhere
        last = read_certificates(config.ca_path("certificate"))[0].not_valid_after_utc
        if late := [row for row in valid if row.expires > last]:
            longer = f"The CA's certificate ends on {last:%Y-%m-%d}, and these last longer: {_named(late)}; "
            renew = "they will stop working with the CA, so renew them, and the CA, before that day."
            yield Finding("OUTLIVES_CA", longer + renew)
    if over := [row for row in valid if row.expires <= now]:
        problem = f"Expired, and still marked as valid: {_named(over)}; "
        advice = "call update_database(), which is openssl's ca -updatedb, before their subjects are signed again."
        yield Finding("EXPIRED_ROWS", problem + advice)


def _numbers(config: CaConfig, *_: object) -> Iterator[Finding]:
    number_path = config.ca_path("crlnumber") if config.optional("crlnumber") else None
    if number_path and not number_path.exists():
        missing = f"There is no file {number_path}, so openssl can't write a revocation list "
        echo = "(the guide never makes it): echo 1000 > crl/crlnumber in the CA's folder, if it has made no list yet."
        yield Finding("NO_CRLNUMBER", missing + echo)
    elif number_path:
        read_serial(number_path)
    database, copies = SigningDatabase.of(config), config.ca_path("new_certs_dir")
    if database.serial_path is None:
        return
    serial_path, serial = database.serial_path, read_serial(database.serial_path)
    database.check_serial(serial)
    if serial in database.index().serials or copy_path(copies, serial).exists():
        used = f"{serial_path.name} holds {hex_serial(serial)}, which is used already, so openssl refuses to sign "
        says = "or overwrites that certificate's copy: write a number there that is higher than all that were given."
        yield Finding("SERIAL_USED", used + says)


def _copies(config: CaConfig, *_: object) -> Iterator[Finding]:
    copies = config.ca_path("new_certs_dir")
    if not copies.is_dir():
        yield Finding("NO_FILE", f"The folder {copies} for signed certificates is missing: make it, or openssl fails.")
        return
    database = SigningDatabase.of(config)
    own, known = read_certificates(config.ca_path("certificate"))[0], database.index().serials
    for path in sorted(copies.glob("*.pem")):
        with suppress(OnboardingError):  # a key or a request
            certificate = read_certificates(path)[0]
            number = certificate.serial_number
            foreign = certificate != own and not is_issued_by(certificate, own, unchecked=True)
            if foreign and path.stem == hex_serial(number) and number in known:
                problem = f"{path.name} has the number of a row, but this CA did not sign it: "
                yield Finding("FOREIGN_COPY", problem + "look for the CA that did, and put the right certificate back.")
            if number not in known and certificate != own and is_issued_by(certificate, own):
                yield Finding(
                    "NO_ROW",
                    f"{path.name}, the certificate of {readable(name_of(certificate))}, is signed by this CA and has "
                    "no row in the database, so it could not be revoked: openssl ca -config "
                    f"{config.path.name} -valid {path.name} adds it, or ca.revoke(certificate) revokes it.",
                )


def _revocation_list(config: CaConfig, _: Path, now: datetime) -> Iterator[Finding]:
    path = config.ca_path("crl") if config.optional("crl") else None
    if not path or not path.exists():
        return
    crl, own = read_crl(path), read_certificates(config.ca_path("certificate"))[0]
    if signature_fits(crl, own) is False:
        yield Finding("FOREIGN_CRL", f"{path.name} was not signed by this CA: call update_crl() for one that is.")
    if crl.next_update_utc and crl.next_update_utc < now:
        yield Finding("CRL_EXPIRED", f"{path.name} expired on {crl.next_update_utc:%Y-%m-%d}: call update_crl().")
    listed = {entry.serial_number for entry in crl}
    if missing := [row for row in SigningDatabase.of(config).rows() if row.status == "R" and row.serial not in listed]:
        yield Finding("CRL_INCOMPLETE", f"Revoked, and not in {path.name} yet: {_named(missing)}; call update_crl().")


def _named(rows: list[DatabaseRow]) -> str:
    more = f" and {len(rows) - _MOST_NAMED} more" if len(rows) > _MOST_NAMED else ""
    return ", ".join(f"{hex_serial(row.serial)} ({row.subject})" for row in rows[:_MOST_NAMED]) + more
