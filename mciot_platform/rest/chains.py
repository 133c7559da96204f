"""The REST calls that check a device's chain: verify it, list what is revoked, issue a token for a certificate."""

import csv
import io
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from mciot_nb.errors import OnboardingError
from mciot_nb.pki.names import common_name, name_of
from mciot_nb.pki.uploads import parse_upload
from mciot_platform.rest.certificates import reversed_name
from mciot_platform.rest.handler import Handler, RestError
from mciot_platform.storage import LoggedAttempt, RegisteredDevice
from mciot_platform.trust import ConnectionRejected, note_chain, readable_certificates

LONGEST_FILE, LONGEST_HEADER, LONGEST_LIST = 10, 5, 5000
SERIAL = re.compile(r"[0-9a-fA-F]{1,40}")  # RFC 5280: 20 bytes at most
OLDEST = datetime(1950, 1, 1, tzinfo=UTC)  # the earliest date that a revocation list can hold (RFC 5280, 5.1.2.6)
NOT_LET_IN = (401, "security/Unauthorized", "A device with this certificate chain is not let in.")


def read_chain(data: bytes | str, longest: int) -> list[x509.Certificate]:
    """Return the chain that a client sent: a file, or a header with blanks for the line breaks. Raises RestError."""
    try:
        chain = parse_upload(data, "It")
    except OnboardingError as error:
        raise _unreadable(f"The chain can't be read. {error}") from None
    if len(chain) > longest:
        raise _unreadable(f"The chain has {len(chain)} certificates: send {longest} at most.")
    return chain


def _unreadable(message: str) -> RestError:
    return RestError(400, "Device Certificates/Bad Request", message)


class ChainCalls(Handler):
    """The calls for chains and revocations."""

    def _uploaded_file(self) -> bytes | None:
        """Return the part ``file`` of a form, with a file's name or without; None where there is none."""
        files, fields = self.request.files.get("file"), self.request.body_arguments.get("file")
        return bytes(files[0].body) if files else fields[0] if fields else None

    def _verify_chain(self) -> None:
        """Say whether a device with the chain of a form's file, or of a header, would be let in."""
        if (given := self._uploaded_file()) is not None:
            chain = read_chain(given, LONGEST_FILE)
        else:
            chain = read_chain(self.request.headers.get("X-Cumulocity-Client-Cert-Chain", ""), LONGEST_HEADER)
        tenant = self.get_body_argument("tenantId", "") or self.request.headers.get("X-Cumulocity-TenantId")
        if tenant and tenant not in self.platform.credentials:
            raise RestError(404, "Device Certificates/Not Found", f"There is no tenant {tenant}.")
        if tenant and tenant != self.login.tenant:
            raise RestError(403, "security/Forbidden", "Access is denied.")
        try:
            with readable_certificates():
                self.platform.trust.verify_chain(chain, self.login.tenant)
        except ConnectionRejected:
            raise RestError(*NOT_LET_IN) from None
        names = {each: reversed_name(name_of(chain[0], each)) for each in ("issuer", "subject")}
        self.respond({"successfullyValidated": True, "tenantId": self.login.tenant, **names})

    def _send_revocations(self) -> None:
        """Send the list of revoked certificates, signed by the platform. (Who signs it is not verified.)"""
        identity, now = self.platform.identity, datetime.now(UTC)
        builder = x509.CertificateRevocationListBuilder(identity.certificate.subject, now, now + timedelta(days=7))
        for serial, date in self.storage.revocations(self.login.tenant).items():
            builder = builder.add_revoked_certificate(x509.RevokedCertificateBuilder(serial, date).build())
        self.set_header("Content-Type", "application/pkix-crl")
        self.finish(builder.sign(identity.key, hashes.SHA256()).public_bytes(Encoding.DER))

    def _add_revocations(self) -> None:
        """Add serial numbers to it: JSON, where what is there stays, or a file of CSV, where the later one counts."""
        if (given := self._uploaded_file()) is not None:
            serials, replace = list(_from_csv(given)), True
        else:
            serials, replace = list(_from_json(self.body().get("crls"))), False
        if len(serials) > LONGEST_LIST:
            raise _unreadable(f"The list has {len(serials)} entries: send {LONGEST_LIST} at most.")
        with self.storage.transaction():
            self.storage.revoke(self.login.tenant, serials, replace=replace)
        self.set_status(204)

    def _device_token(self) -> None:
        """Issue a token to a device that shows its certificate in the TLS handshake: mutual TLS over HTTPS."""
        device, attempt = self.by_certificate()
        token = self.platform.tokens.issue(device.tenant, device.device)
        self.storage.log(attempt, "TOKEN", f"{attempt.subject} was given a device access token.")
        self.respond({"access_token": token, "accessToken": token})  # the description's name, and that of other pages

    def by_certificate(self) -> tuple[RegisteredDevice, LoggedAttempt]:
        """Return the device that shows its certificate in the handshake. Raises: RestError: as the log then says."""
        attempt = LoggedAttempt(self.request.remote_ip or "", tls="HTTPS")
        try:
            with readable_certificates():
                return self._authorize(attempt), attempt
        except ConnectionRejected as refusal:
            self.storage.log(attempt, refusal.code, refusal.sentence)
            if refusal.code == "NOT_REGISTERED":
                raise RestError(422, "Auto registration is off/Unprocessable Entity", refusal.sentence) from None
            raise RestError(*NOT_LET_IN) from None

    def _authorize(self, attempt: LoggedAttempt) -> RegisteredDevice:
        """Check the handshake's certificate, with the chain in the header. Raises: ConnectionRejected, RestError."""
        der = self.request.get_ssl_certificate(binary_form=True)
        if not isinstance(der, bytes):
            raise ConnectionRejected("NO_CLIENT_CERT")
        own = x509.load_der_x509_certificate(der)
        header = self.request.headers.get("X-Ssl-Cert-Chain")
        given = read_chain(header, LONGEST_FILE) if header else []
        chain = [own, *(link for link in given if link != own)]  # the key of `own` alone is proven
        note_chain(attempt, chain)
        trusted = self.platform.trust.verify_chain(chain, attempt=attempt)
        attempt.client_id = common_name(name_of(own)) or ""
        if not attempt.client_id or ":" in attempt.client_id:
            sentence = "The common name is not a device's: sign one without a colon in it."
            raise ConnectionRejected("CLIENT_ID_MISMATCH", sentence)
        return self.platform.trust.get_or_register(attempt.client_id, trusted)


def _from_json(entries: Any) -> Iterator[tuple[int, datetime]]:
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise _unreadable("crls, a list of entries with serialNumberInHex, is required.")
    now = datetime.now(UTC)
    for entry in entries:
        yield _serial(entry.get("serialNumberInHex")), min(_date(entry.get("revocationDate"), now), now)


def _from_csv(text: bytes) -> Iterator[tuple[int, datetime]]:
    now = datetime.now(UTC)
    try:
        rows = [row for row in csv.reader(io.StringIO(text.decode("utf-8-sig")), strict=True) if row]
    except (UnicodeDecodeError, csv.Error):
        raise _unreadable("The file is not a CSV.") from None
    if rows and "SERIAL" in rows[0][0].upper():  # a heading: SERIAL NO.
        del rows[0]
    for serial, *date in rows:
        if (since := _date(date[0].strip() if date else None, now)) <= now:  # one in the future is passed over
            yield _serial(serial.strip()), since


def _serial(text: Any) -> int:
    if not isinstance(text, str) or not SERIAL.fullmatch(text) or not int(text, 16):
        raise _unreadable("serialNumberInHex must be a positive hexadecimal number of 40 digits at most.")
    return int(text, 16)


def _date(text: Any, default: datetime) -> datetime:
    with suppress(ValueError, TypeError, OverflowError):
        date = datetime.fromisoformat(text) if text else default
        if date.tzinfo and date.astimezone(UTC) >= OLDEST:
            return date.astimezone(UTC)
    raise _unreadable("A date must be written like 2026-01-31T09:00:00.000Z.")
