"""A fleet: from a table of devices to keys, certificates, chains and keystores, on all processors.

Each device gets a folder named by its common name, with the guide's file names in it. The folder appears whole or not
at all, so a run that was stopped or killed goes on where it was. Keys and stores are made in processes, because
cryptography holds Python's lock while it computes; the CA signs here, in batches.
"""

import csv
import io
import multiprocessing
import os
import re
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from filelock import FileLock, Timeout

from mciot_nb.archive import Archive
from mciot_nb.errors import OnboardingError, fault
from mciot_nb.pki.authority import CertificateAuthority
from mciot_nb.pki.chain import to_pem
from mciot_nb.pki.config import DEVICE_DAYS
from mciot_nb.pki.files import disk_errors, read_file, synced_together, write_whole
from mciot_nb.pki.keys import KeyType, PrivateKey, encrypted_pem, new_key, new_request
from mciot_nb.pki.keystore import store_password, write_keystore
from mciot_nb.pki.names import DistinguishedName, oneline
from mciot_nb.pki.rows import hex_serial
from mciot_nb.pki.signing import days_within, normalize_time, signed_subject
from mciot_nb.secret import Secret

if TYPE_CHECKING:
    import pandas as pd

    from mciot_nb.local_platform import LocalPlatform

#: How many devices are signed together, and how many of them a worker takes at a time.
BATCH, PORTION = 400, 20
REGISTRATION = "bulkRegistration.csv"  # for the platform's bulk registration
#: A common name that is a folder's name on every system too.
_RESERVED = r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)|(bulkregistration\.csv|earlier)$"
_SAFE = re.compile(rf"(?!{_RESERVED})[a-z0-9]([a-z0-9._-]{{0,62}}[a-z0-9_-])?", re.I)
_KEY = re.compile(rb"-----BEGIN PRIVATE KEY-----.*?-----END PRIVATE KEY-----\n", re.DOTALL)
#: Stands for any name.
_SAMPLE = "NAME-OF-THE-DEVICE"
_FILES = ("deviceKey.pem", "deviceCsr.pem", "deviceCert.pem", "deviceCertChain.pem")
#: How keys that are made elsewhere are encrypted for us: each portion's by Fernet, and Fernet's key by RSA.
_OAEP = padding.OAEP(padding.MGF1(SHA256()), SHA256(), None)
_PUBLIC = Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
_OPEN = Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
#: The columns that the table of what was made has, and a table of devices may not have.
_OWN = {"line", "state", "problem", "serial"}
#: A device: its line in the table, common_name, state (made, kept, failed, or empty), problem, serial, other columns.
Row = dict[str, Any]


def read_devices(source: "Path | str | pd.DataFrame") -> list[Row]:
    """Return the devices of a CSV file, with commas or a spreadsheet's semicolons, or of a DataFrame.

    The column ``common_name`` is required, others are carried along. What can't be a device has failed already.

    Raises: OnboardingError: NO_FILE, BAD_TABLE if it is not in UTF-8, has no rows, or no such column.
    """
    where = str(source) if isinstance(source, Path | str) else "The table"
    if isinstance(source, Path | str):
        try:
            text = read_file(Path(source), f"There is no table {source}: correct the path.").decode("utf-8-sig")
        except UnicodeDecodeError:
            raise fault("BAD_TABLE.encoding", where=where) from None
    else:
        text = source.to_csv(index=False)
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, restkey="", restval="")
    seen, rows = dict[str, int](), list[Row]()
    try:
        if "common_name" not in (columns := reader.fieldnames or ()):
            raise fault("BAD_TABLE.column", where=where, columns=", ".join(columns) or "nothing")
        if isinstance(source, Path | str) and (own := sorted(_OWN & {*columns})):
            raise fault("BAD_TABLE.own", where=where, columns=", ".join(own))
        for found in reader:
            name = (found["common_name"] or "").strip()
            row: Row = {"line": reader.line_num, "common_name": name, "state": "", "problem": "", "serial": ""}
            rows.append(row | {column: value for column, value in found.items() if column and column not in row})
            if not _SAFE.fullmatch(name):
                _fail(rows[-1], fault("BAD_NAME.fleet", name=name))
            elif (first := seen.setdefault(name.lower(), row["line"])) != row["line"]:
                _fail(rows[-1], fault("BAD_NAME.fleet_twice", name=name, line=first))
    except csv.Error:
        raise fault("BAD_TABLE.csv", where=where, line=reader.line_num) from None
    if not rows:
        raise fault("BAD_TABLE.empty", where=where)
    return rows


def _fail(row: Row, error: OnboardingError) -> None:
    row.update(state="failed", problem=str(error))


def make_fleet(
    devices: "Path | str | pd.DataFrame",
    ca: CertificateAuthority,
    folder: Path,
    passphrase: Secret | str,
    *,
    days: int | None = None,
    key_type: KeyType = KeyType.P256,
    stores: Sequence[str] = ("pkcs12",),
    executor: Executor | None = None,
    renew: str = "",
) -> "pd.DataFrame":
    """Make every device's key, request, certificate, chain and keystores, and the platform's registration file.

    Returns the table: what was made or kept, what failed and why. What is in ``folder`` is kept, so the same call goes
    on with a run that was stopped. ``passphrase`` protects every key and store; ``days`` are the guide's, or what the
    CA has left. ``executor``, such as dask's ``client.get_executor()``, makes the keys: they come back encrypted.
    With ``renew``, a reason such as superseded, the CA first revokes what the devices have, which moves to ``earlier``;
    tell the tenant with ``tenant.trusted_certificates.revoke(old["serial"])``, and if stopped go on without ``renew``.

    Raises: OnboardingError: as `read_devices` and `check_new`; LOCKED if another run works in ``folder``.

    Example: ``make_fleet("data/fleet.csv", workspace.signer(), workspace.folder / "fleet", workspace.passphrase)``
    """
    import pandas as pd

    rows, folder = read_devices(devices), Path(folder).absolute()
    if days is None:
        days = days_within(ca.certificate, normalize_time(None) + timedelta(hours=1), DEVICE_DAYS)
    ca.check_new(_subject(ca, _SAMPLE), days)
    opener = new_key(KeyType.RSA_3072).private_bytes(*_OPEN) if executor else b""
    work = _Work(folder, KeyType(key_type), store_password(passphrase), tuple(stores), to_pem([ca.certificate]), opener)
    with _locked(folder):
        ca.update_database()  # the subject of an expired certificate is free again
        good = [row for row in rows if not row["state"]]
        if renew:
            _put_aside(_names(good), ca, folder, renew)
        problem = _make_all(list(_todo(good, ca, work)), ca, days, work, executor)
        for row in rows:
            row["problem"] = row["problem"] or ("" if row["state"] else problem)
        with suppress(OnboardingError) if problem else nullcontext():  # on a disk that is full
            names = sorted(path.parent.name for path in folder.glob("[!.]*/deviceCert.pem"))
            lines = ("ID;AUTH_TYPE", *(f"{name};CERTIFICATES" for name in names))
            write_whole(folder / REGISTRATION, "".join(f"{line}\n" for line in lines).encode(), replace=True)
    return pd.DataFrame(rows)


def fleet_health(fleet: "pd.DataFrame", ca: CertificateAuthority, platform: "LocalPlatform") -> "pd.DataFrame":
    """Return of each device whether it is connected, its certificate's state and end, and why it was refused last.

    The CA's database and the platform's log say so; a refusal that a connection has followed is not shown.

    Example: ``fleet_health(fleet, workspace.signer(), workspace.platform()).query("refused != ''")``
    """
    import pandas as pd

    log, states = platform.log(), {"V": "valid", "R": "revoked", "E": "expired"}
    last = log.groupby(log["subject"].str.rpartition("CN=")[2]).tail(1)
    is_refused, is_on = last["code"] != "CONNECTED", (last["code"] == "CONNECTED") & last["ended"].isna()
    said = last[["code", "reason"]].where(is_refused, "").set_axis(["refused", "why"], axis=1).assign(connected=is_on)
    said.index = pd.Index(last["subject"].str.rpartition("CN=")[2])
    rows = {hex_serial(row.serial): row for row in ca.database.rows()}
    known = [rows.get(serial) for serial in fleet["serial"]]
    health = fleet.drop(columns=["line", "state", "problem"]).join(said, on="common_name")
    health.insert(1, "certificate", [states[row.status] if row else "none" for row in known])
    health.insert(2, "expires", pd.Series([row.expires if row else None for row in known], dtype="datetime64[us, UTC]"))
    return health.fillna({"connected": False, "refused": "", "why": ""})


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(folder / ".fleet.lock", timeout=0).acquire()
    except Timeout:
        raise fault("LOCKED.fleet", folder=folder) from None
    with lock:
        yield


def _put_aside(names: list[str], ca: CertificateAuthority, folder: Path, reason: str) -> None:
    """Revoke the certificates that devices have, and move their folders to ``earlier``."""
    subject_of, valid = _subjects(ca), ca.database.index().valid
    for serial in [valid[subject_of(name)] for name in names if subject_of(name) in valid]:
        ca.revoke(serial, reason)
    Archive(folder).move([folder / name for name in names], "what was there of these devices")


def _todo(rows: list[Row], ca: CertificateAuthority, work: "_Work") -> Iterator[Row]:
    """Yield the devices that are not made yet; of the others, note whether they are what they should be."""
    there, subject_of, valid = {path.name for path in work.folder.iterdir()}, _subjects(ca), ca.database.index().valid
    files = {*_FILES, *(f"deviceKeystore.{kind}" for kind in work.stores)}
    for row in rows:
        place, serial = work.folder / row["common_name"], valid.get(subject_of(row["common_name"]))
        row["serial"] = hex_serial(serial) if serial else ""
        if place.name in there:
            row["state"] = "kept"
            missing = files - {path.name for path in place.iterdir()}
            if not serial:
                _fail(row, fault("EXISTS.other", place=place))
            elif missing:
                _fail(row, fault("EXISTS.device", place=place, missing=", ".join(missing)))
        elif serial and work.draft(place.name).name not in there:
            _fail(row, fault("SUBJECT_TAKEN", subject=subject_of(place.name), serial=row["serial"]))
        else:
            yield row


def _subject(ca: CertificateAuthority, name: str) -> DistinguishedName:
    return replace(DistinguishedName.from_x509(ca.certificate.subject), common_name=name, email=None)


def _subjects(ca: CertificateAuthority) -> Callable[[str], str]:
    """Return what makes of a device's name its subject as the CA signs it, as the database has it."""
    pattern = oneline(signed_subject(ca.config, _subject(ca, _SAMPLE).to_x509(), ca.certificate.subject))
    return lambda name: pattern.replace(_SAMPLE, name)


def _make_all(todo: list[Row], ca: CertificateAuthority, days: int, work: "_Work", executor: Executor | None) -> str:
    """Make the devices, with a bar in a terminal; return what has stopped that, if anything has."""
    from tqdm import tqdm

    with tqdm(total=len(todo), unit="device", disable=None if todo[1:] else True) as bar, _workers() as pool:
        try:
            for done in _make(todo, ca, days, work, pool, executor):
                bar.update(done)
        except KeyboardInterrupt:
            return "It was stopped: the same call goes on."
        except BrokenExecutor:
            return str(fault("WORKER.died"))
        except OnboardingError as error:
            return str(error)
        finally:
            pool.shutdown(cancel_futures=True)
    return ""


def _make(
    todo: list[Row], ca: CertificateAuthority, days: int, work: "_Work", pool: Executor, elsewhere: Executor | None
) -> Iterator[int]:
    """Make the devices, batch by batch; yield how many more are done. While the CA signs, the workers go on."""
    recipient = _load(work.opener).public_key().public_bytes(*_PUBLIC) if elsewhere else b""

    def begin(batch: list[Row]) -> list[tuple[list[Row], Future[Any]]]:
        orders = [(rows, [_subject(ca, row["common_name"]) for row in rows]) for rows in _portions(batch, PORTION)]
        if not elsewhere:
            return [(rows, _submit(pool, work.begin, subjects)) for rows, subjects in orders]
        return [(rows, elsewhere.submit(new_keys, subjects, work.key_type, recipient)) for rows, subjects in orders]

    def made(finishing: list[tuple[list[Row], Future[None]]]) -> int:
        for rows, future in finishing:
            future.result()
            for row in rows:
                row["state"] = "made"
        return sum(len(rows) for rows, _ in finishing)

    batches, finishing = _portions(todo, BATCH), list[tuple[list[Row], Future[None]]]()
    coming = begin(batches[0]) if batches else []
    for following in (*batches[1:], []):
        if elsewhere:
            coming = [(rows, _submit(pool, work.keep, _names(rows), *_from_elsewhere(one))) for rows, one in coming]
        requests = [(row, one) for rows, future in coming for row, one in zip(rows, future.result(), strict=True)]
        coming = begin(following)
        signed = _sign(requests, ca, days)
        yield made(finishing)
        finishing = [
            (rows, _submit(pool, work.finish, _names(rows), [signed[name] for name in _names(rows)]))
            for rows in _portions([row for row, _ in requests if row["common_name"] in signed], PORTION)
        ]
    yield made(finishing)


def _submit(pool: Executor, *work: Any) -> "Future[Any]":
    """Submit ``work``. Raises: BrokenExecutor: if a worker has died, even while the pool is still being closed."""
    try:
        return pool.submit(*work)
    except OSError as error:
        if error.errno is not None:  # the system's own, such as no memory for another process
            raise
        raise BrokenExecutor(str(error)) from error  # "handle is closed": to start a worker needs the pool's pipes


def _portions(rows: list[Row], size: int) -> list[list[Row]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _names(rows: list[Row]) -> list[str]:
    return [row["common_name"] for row in rows]


def _from_elsewhere(future: "Future[tuple[bytes, list[bytes]]]") -> tuple[bytes, list[bytes]]:
    try:
        return future.result()
    except Exception as error:  # each library has its own for a worker that died
        raise fault("WORKER.elsewhere", error=type(error).__name__, said=error) from None


def _sign(requests: list[tuple[Row, bytes]], ca: CertificateAuthority, days: int) -> dict[str, bytes]:
    """Return the certificates by the devices' names, in PEM form; one that a killed run had signed is found."""
    loaded = [(row, x509.load_der_x509_csr(request)) for row, request in requests]
    signed = {row["common_name"]: ca.find_issued(request) for row, request in loaded if row["serial"]}
    new = [(row["common_name"], request) for row, request in loaded if not row["serial"]]
    made = ca.sign_many([request for _, request in new], days=days, shows_progress=False)
    signed |= dict(zip([name for name, _ in new], made, strict=True))
    for row, request in loaded:
        if certificate := signed[row["common_name"]]:
            row["serial"] = hex_serial(certificate.serial_number)
        else:
            _fail(row, fault("SUBJECT_TAKEN", subject=oneline(request.subject), serial=row["serial"]))
    return {name: to_pem([certificate]) for name, certificate in signed.items() if certificate}


# In the workers ------------------------------------------------------------------------------------------------------


def _workers() -> Executor:
    """Return what makes files: a process for each processor, or a thread where there is only one."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if processors == 1:
        return ThreadPoolExecutor(1)
    forks = "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if forks else "spawn")
    if forks:
        context.set_forkserver_preload([__name__])  # so that the modules are loaded once
    # Stop goes to the kernel and to its children, which ignore it. Windows waits for no more than 61 processes.
    return ProcessPoolExecutor(min(processors, 61), context, signal.signal, (signal.SIGINT, signal.SIG_IGN))


def _load(pem: bytes, passphrase: bytes | None = None) -> PrivateKey:
    """Return a key of our own, without the check, which takes long for RSA."""
    key = serialization.load_pem_private_key(pem, passphrase, unsafe_skip_rsa_key_validation=True)
    assert isinstance(key, PrivateKey)
    return key


def new_keys(subjects: Sequence[DistinguishedName], key_type: KeyType, recipient: bytes) -> tuple[bytes, list[bytes]]:
    """Return new keys, in PEM form, and their requests, DER; it runs anywhere.

    The keys are encrypted for ``recipient``, an RSA key in PEM form, if one is given.
    """
    keys = [new_key(key_type) for _ in subjects]
    requests = [new_request(*one).public_bytes(Encoding.DER) for one in zip(keys, subjects, strict=True)]
    pem = b"".join(key.private_bytes(*_OPEN) for key in keys)
    if recipient:
        owner, secret = serialization.load_pem_public_key(recipient), Fernet.generate_key()
        assert isinstance(owner, rsa.RSAPublicKey)
        pem = owner.encrypt(secret, _OAEP) + Fernet(secret).encrypt(pem)
    return pem, requests


@dataclass(frozen=True)
class _Work:
    """What a worker does, and knows: ``issuer`` is the chain's end, ``opener`` opens keys that were made elsewhere."""

    folder: Path
    key_type: KeyType
    passphrase: str = field(repr=False)
    stores: tuple[str, ...]
    issuer: bytes
    opener: bytes = field(repr=False)

    def draft(self, name: str) -> Path:
        """Return the folder in which a device's files are made."""
        return self.folder / f".{name}.draft"

    def begin(self, subjects: Sequence[DistinguishedName]) -> list[bytes]:
        """Make keys and requests here, and keep them."""
        return self.keep([str(one.common_name) for one in subjects], *new_keys(subjects, self.key_type, b""))

    def keep(self, names: Sequence[str], keys: bytes, requests: Sequence[bytes]) -> list[bytes]:
        """Write keys and requests, durably, so that no certificate is signed for a key that a crash can lose.

        Returns the requests; where a run was cut off those of then, which it may have had signed.
        """
        kept = list(requests)
        if self.opener:
            opener = _load(self.opener)
            assert isinstance(opener, rsa.RSAPrivateKey)
            length = opener.key_size // 8
            keys = Fernet(opener.decrypt(keys[:length], _OAEP)).decrypt(keys[length:])
        with synced_together():
            for number, (name, pem) in enumerate(zip(names, _KEY.findall(keys), strict=True)):
                draft = self.draft(name)
                with disk_errors(draft):
                    draft.mkdir(exist_ok=True)
                with suppress(OSError, ValueError):  # there is none, or it was not written to its end
                    before = x509.load_pem_x509_csr((draft / "deviceCsr.pem").read_bytes())
                    key = _load((draft / "deviceKey.pem").read_bytes(), self.passphrase.encode())
                    if key.public_key() == before.public_key():
                        kept[number] = before.public_bytes(Encoding.DER)
                        continue
                write_whole(draft / "deviceKey.pem", encrypted_pem(_load(pem), self.passphrase.encode()), private=True)
                request = x509.load_der_x509_csr(requests[number])
                write_whole(draft / "deviceCsr.pem", request.public_bytes(Encoding.PEM))
        return kept

    def finish(self, names: Sequence[str], certificates: Sequence[bytes]) -> None:
        """Write certificates, chains and stores, then give each folder its name."""
        with synced_together():
            for name, certificate in zip(names, certificates, strict=True):
                draft, pem = self.draft(name), certificate + self.issuer
                key = _load((draft / "deviceKey.pem").read_bytes(), self.passphrase.encode())
                write_whole(draft / "deviceCert.pem", certificate)
                write_whole(draft / "deviceCertChain.pem", pem)
                chain = x509.load_pem_x509_certificates(pem)
                for path in (draft / f"deviceKeystore.{kind}" for kind in self.stores):
                    write_keystore(path, key, chain, self.passphrase)
        for name in names:
            with disk_errors(self.folder / name):
                self.draft(name).rename(self.folder / name)
