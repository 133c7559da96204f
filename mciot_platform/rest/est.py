"""The REST calls for a tenant's own CA: making it, registering devices, and EST enrolment (RFC 7030)."""

import base64
import csv
import io
import re
import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from mciot_nb.errors import OnboardingError
from mciot_nb.pki.chain import fingerprint, is_issued_by
from mciot_nb.pki.keys import encrypted_pem
from mciot_nb.pki.names import common_name
from mciot_nb.pki.parts import UNREADABLE
from mciot_nb.pki.signing import check_request
from mciot_platform.identity import make_certificate
from mciot_platform.rest.certificates import CertificateCalls
from mciot_platform.rest.chains import ChainCalls
from mciot_platform.rest.handler import BAD_CREDENTIALS, RestError, unfit
from mciot_platform.storage import TrustAnchor, timestamp

DEVICE_VALIDITY, CA_VALIDITY, PASSWORD_VALIDITY = (timedelta(days=number) for number in (365, 1095, 1))
MOST_WRONG, WRONG_SECONDS, WRONG = 5, 60.0, dict[str, list[float]]()  # when wrong passwords came, by device
DEVICE_ID, PEM = re.compile(r"[^:\x00-\x20]{1,64}"), re.compile(rb"-----BEGIN [A-Z ]+-----(.+?)-----END", re.DOTALL)
#: What stands around the certificates in an answer: PKCS#7 without stated lengths, as the real platform writes it.
BEGIN = bytes.fromhex("3080 06092a864886f70d010702 a080 3080 020101 3100 300b06092a864886f70d010701 a080")
END = bytes.fromhex("0000 3100 0000 0000 0000")
LIMITS = "ID: 64 characters at most, no blank, no colon; ENROLLMENT_OTP: 32; AUTH_TYPE: CERTIFICATES."
NO_CA = "Tenant CA certificate is either missing, expired, or has a validity of less than one year"
BadRequest, open_key = partial(RestError, 400, "est/Bad Request"), lru_cache(64)(load_pem_private_key)


def read_csr(body: bytes) -> x509.CertificateSigningRequest:
    """Return a request that may be signed: in base64 with line breaks or without, PEM, or DER. Raises: RestError."""
    try:
        text = b"".join((found[1] if (found := PEM.search(body)) else body).split())
        csr = x509.load_der_x509_csr(body if body[:1] == b"\x30" else base64.b64decode(text, validate=True))
        check_request(csr)
        key, wishes = csr.public_key(), [one.value for one in csr.extensions]
    except OnboardingError as error:
        raise BadRequest(str(error)) from None
    except UNREADABLE:
        raise BadRequest("The body is no signing request: send PKCS#10 in base64, without BEGIN and END.") from None
    if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey) or key.key_size < 256:
        raise BadRequest("The request's key is weak or of another kind: make an RSA key, or EC with 256 bits or more.")
    if any(isinstance(wish, x509.BasicConstraints) and wish.ca for wish in wishes):
        raise BadRequest("The request asks for CA:TRUE, and a device signs nothing: make it without.")
    return csr


class EnrolmentCalls(CertificateCalls, ChainCalls):
    """The calls for the tenant's own CA, and those of devices that want a certificate of it."""

    def _feature(self) -> None:
        """Show whether the tenant may have a CA of its own; with PUT turn that on or off."""
        if self.request.method == "PUT":
            if not isinstance(active := self.body().get("active"), bool):
                raise unfit("active must be true or false.", "features")
            change = "ON CONFLICT DO UPDATE SET active = excluded.active"
            self.storage.insert("features", change, tenant=self.login.tenant, active=active)
        toggle = {"phase": "PUBLIC_PREVIEW", "strategy": "TENANT", "key": "certificate-authority"}
        rows = self.storage.select("SELECT 1 FROM features WHERE tenant = ? AND active", self.login.tenant)
        self.respond({**toggle, "active": bool(rows)})

    def _own_ca(self, tenant: str) -> tuple[TrustAnchor | None, bytes]:
        """Return the tenant's CA, if there is one, and its key. Raises: RestError: if the feature is off."""
        query = "SELECT fingerprint, key FROM features LEFT JOIN authorities USING (tenant) WHERE tenant = ? AND active"
        for identifier, key in self.storage.select(query, tenant):
            known = (one for one in self.storage.trusted_certificates(tenant) if one.fingerprint == identifier)
            return next(known, None), key
        raise RestError(403, "features/Forbidden", "The feature certificate-authority is off: turn it on first.")

    def _create_authority(self) -> None:
        """Make the tenant's own CA, which is trusted at once; there is one at most."""
        tenant, key = self.login.tenant, ec.generate_private_key(ec.SECP256R1())
        if self._own_ca(tenant)[0]:
            raise RestError(409, "certificate/Conflict", "The tenant's CA is there already: delete it for a new one.")
        fields = zip(("2.5.4.6", "2.5.4.10", "2.5.4.3"), ("United States", "Cumulocity", tenant), strict=True)
        parts = [x509.NameAttribute(x509.ObjectIdentifier(oid), text, _validate=False) for oid, text in fields]
        made = make_certificate((x509.Name(parts), key), (x509.Name(parts), key.public_key()), CA_VALIDITY, ca=True)
        trusted = TrustAnchor(made, tenant, auto_registration=False, fingerprint=fingerprint(made), name=tenant)
        pem = encrypted_pem(key, self.platform.tokens.seal(tenant).encode())
        self.storage.delete("authorities", tenant=tenant)  # a key whose certificate a kill has prevented
        self.storage.insert("authorities", tenant=tenant, fingerprint=trusted.fingerprint, key=pem)
        self.platform.add_trusted(trusted)
        self.respond(self._as_json(trusted), 201)

    def _register_devices(self) -> None:
        """Register devices with certificates, from a file of CSV; the one-time passwords in it are for enrolment."""
        text = (self._uploaded_file() or b"").decode("utf-8-sig", "replace")
        delimiter = next((one for one in "\t;," if one in re.split("[\r\n]", text)[0]), ";")
        try:
            table = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, restval="")
            columns, rows = table.fieldnames or (), [*table]
        except csv.Error as error:
            raise unfit(f"file can't be read as CSV: {error}.", "devicecontrol") from None
        if "ID" not in columns:
            raise unfit("file, a CSV whose first line names the column ID, is required.", "devicecontrol")
        with self.storage.transaction():
            found = [self._register(row) for row in rows]
        done, failed = ([one for one in found if ("line" in one) == bad] for bad in (False, True))
        counts = {"numberOfAll": len(found), "numberOfSuccessful": len(done), "numberOfFailed": len(failed)}
        counts["numberOfCreated"] = sum("CREATED" in one.values() for one in done)
        self.respond({**counts, "credentialUpdatedList": done, "failedCreationList": failed}, 201)

    def _register(self, row: dict[str, str]) -> dict[str, str]:
        """Register the device of one row. Returns what became of it. Caller must hold the transaction."""
        device, password = row["ID"], row.get("ENROLLMENT_OTP", "")
        result, tenant = {"bulkNewDeviceStatus": "FAILED", "deviceId": device}, self.login.tenant
        if row.get("AUTH_TYPE") != "CERTIFICATES" or not DEVICE_ID.fullmatch(device) or len(password) > 32:
            return {**result, "failureReason": LIMITS, "line": device}
        known = self.storage.register(tenant, device)
        if not known.created:
            named = {"name": row.get("NAME") or device, "type": row.get("TYPE") or "c8y_MQTTDevice"}
            self.storage.update("devices", known.id, created=timestamp(), **named)
        self.storage.delete("enrolments", tenant=tenant, device=device)
        if password:
            until = timestamp(datetime.now(UTC) + PASSWORD_VALIDITY)
            seal = self.platform.tokens.seal(tenant, device, password, until)
            self.storage.insert("enrolments", tenant=tenant, device=device, password=seal, until=until)
        return result | {"bulkNewDeviceStatus": "CREDENTIAL_UPDATED" if known.created else "CREATED"}

    def _enrol(self) -> None:
        """Sign the request of a device that logs in with its id and its one-time password."""
        user, password = self.basic_login()
        query = "SELECT * FROM enrolments WHERE device IN (?, ?) AND ? IN (device, tenant || '/' || device)"
        rows = self.storage.select(query, user, user.partition("/")[2], user)
        wrong, now = WRONG.setdefault(user, []) if rows else [], time.monotonic()
        if len(wrong) >= MOST_WRONG and now - wrong[-MOST_WRONG] < WRONG_SECONDS:
            raise RestError(429, "security/Too Many Requests", "Too many wrong one-time passwords: wait a minute.")
        for row in rows:
            seal = self.platform.tokens.seal(row["tenant"], row["device"], password, row["until"])
            if seal == row["password"] and row["until"] > timestamp():
                return self._issue(row["tenant"], row["device"], seal)
        wrong.append(now)
        raise RestError(*BAD_CREDENTIALS)

    def _renew(self) -> None:
        """Sign a new request of a device that logs in with its token, or with its certificate over mutual TLS."""
        known = self.log_in() if "Authorization" in self.request.headers else self.by_certificate()[0]
        if not known.device:
            raise RestError(403, "security/Forbidden", "Access is denied.")
        self._issue(known.tenant, known.device)

    def _issue(self, tenant: str, device: str, seal: str = "") -> None:
        """Sign the request, on record before it is sent; with a password's ``seal`` one, sent again if asked."""
        (trusted, pem), latest = self._own_ca(tenant), datetime.now(UTC) + DEVICE_VALIDITY
        if not trusted or not trusted.enabled or trusted.certificate.not_valid_after_utc < latest:
            raise unfit(NO_CA, "est")
        csr, ca = read_csr(self.request.body), trusted.certificate
        if (name := common_name(csr.subject)) != device:
            sentence = f"The request is for the common name {name}, and this login is that of the device {device}."
            raise RestError(403, "security/Forbidden", sentence)
        for (der,) in self.storage.select("SELECT der FROM issued WHERE password > '' AND password = ?", seal):
            made = x509.load_der_x509_certificate(der)
            if made.public_key() != csr.public_key() or not is_issued_by(made, ca):
                raise RestError(*BAD_CREDENTIALS)
            return self._send(made)
        try:
            key = open_key(pem, self.platform.tokens.seal(tenant).encode())
        except ValueError:  # the platform's own key is another one since
            raise unfit("Failed to retrieve tenant keypair", "est") from None
        made = make_certificate((ca.subject, key), (csr.subject, csr.public_key()), DEVICE_VALIDITY)
        values = {"serial": f"{made.serial_number:040x}", "tenant": tenant, "device": device, "time": timestamp()}
        self.storage.insert("issued", password=seal, der=made.public_bytes(Encoding.DER), **values)
        self._send(made)

    def _send_authorities(self) -> None:
        """Send the certificate of the CA to anyone: those of all tenants, as no host name says which is meant."""
        query = "SELECT der FROM trusted_certificates JOIN authorities USING (fingerprint)"
        found = [x509.load_der_x509_certificate(der) for (der,) in self.storage.select(query)]
        if not found:
            raise RestError(404, "est/Not Found", NO_CA)
        self._send(*found)

    def _send(self, *certificates: x509.Certificate) -> None:
        is_pem = self.media == "application/pkcs10"  # as the vendor calls PEM here
        written = b"".join(one.public_bytes(Encoding.PEM if is_pem else Encoding.DER) for one in certificates)
        self.set_header("Content-Type", self.media if is_pem else "application/pkcs7-mime; smime-type=certs-only")
        self.set_header("Content-Transfer-Encoding", "8bit" if is_pem else "base64")  # RFC 7030; clients need it
        self.finish(written if is_pem else base64.encodebytes(BEGIN + written + END))
