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
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers import algorithms
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, pkcs7
from filelock import FileLock, Timeout

from mciot_nb.errors import OnboardingError, fault
from mciot_nb.pki.authority import CertificateAuthority
from mciot_nb.pki.chain import to_pem
from mciot_nb.pki.files import disk_errors, read_file, sync_all, write_plain, write_whole
from mciot_nb.pki.keys import KeyType, PrivateKey, Request, encrypted_pem, new_key, new_request, read_private_key
from mciot_nb.pki.keystore import keystore_bytes, store_password
from mciot_nb.pki.names import DistinguishedName, oneline
from mciot_nb.pki.rows import hex_serial
from mciot_nb.pki.signing import days_within, normalize_time, signed_subject
from mciot_nb.secret import Secret

if TYPE_CHECKING:
    import pandas as pd

#: How many devices are signed together, and how many of them a worker takes at a time.
BATCH, PORTION = 400, 20
#: What the platform's bulk registration reads; a device with a certificate needs no password.
REGISTRATION = "bulkRegistration.csv"
#: A common name that is a folder's name on every system too.
_SAFE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9_-])?")
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_KEY = re.compile(rb"-----BEGIN PRIVATE KEY-----.*?-----END PRIVATE KEY-----\n", re.DOTALL)
#: A key in memory; in a file, and on its way to another process, it is encrypted.
_OPEN_PEM = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
#: Stands for a device's name in the pattern of their subjects.
_NAME = "NAME-OF-THE-DEVICE"
#: What can be wrong with one request; everything else would stop the others too.
_OF_ONE_REQUEST = ("SUBJECT_TAKEN", "BAD_REQUEST", "POLICY")


@dataclass
class FleetDevice:
    """A row of the table of devices and what became of it: ``state`` is made, kept, failed, or empty."""

    line: int
    name: str
    columns: Mapping[str, str] = field(default_factory=dict, repr=False)
    state: str = ""
    problem: str = ""
    serial: int | None = None

    def fails(self, problem: object) -> None:
        """Note why the device was not made."""
        self.state, self.problem = "failed", str(problem)


@dataclass(frozen=True)
class Fleet:
    """The devices of a run, and the folder that holds a folder for each."""

    folder: Path
    devices: tuple[FleetDevice, ...]
    stopped: str = ""

    def count(self, state: str) -> int:
        """Return how many devices are ``made``, ``kept`` or ``failed``; an empty state: not begun."""
        return sum(device.state == state for device in self.devices)

    def __str__(self) -> str:
        counts = ", ".join(f"{self.count(state):,} {state}" for state in ("made", "kept", "failed"))
        return " ".join(filter(None, [f"{len(self.devices):,} devices: {counts}.", self.stopped]))

    def to_frame(self) -> "pd.DataFrame":
        """Return the table: the line, the name, what became of it and why, the serial number, and all other columns."""
        import pandas as pd

        rows = [
            {"line": d.line, "common_name": d.name, "state": d.state, "problem": d.problem}
            | {"serial": hex_serial(d.serial) if d.serial else "", **d.columns}
            for d in self.devices
        ]
        return pd.DataFrame(rows, columns=None if rows else ["line", "common_name", "state", "problem", "serial"])


@dataclass(frozen=True)
class _Work:
    """What a worker process knows; ``opener`` opens keys that were made elsewhere."""

    folder: Path
    key_type: KeyType
    passphrase: str = field(repr=False)
    stores: tuple[str, ...]
    issuers: bytes
    recipient: bytes
    opener: bytes = field(repr=False)
    run_key: bytes = field(repr=False)

    @property
    def files(self) -> set[str]:
        """The names of a device's files."""
        return {f"device{name}" for name in ("Key.pem", "Csr.pem", "Cert.pem", "CertChain.pem")} | {
            f"deviceKeystore.{kind}" for kind in self.stores
        }

    def draft(self, name: str) -> Path:
        """Return the folder in which a device's files are made."""
        return self.folder / f".{name}.draft"


#: A request, DER, and its key, encrypted for the run.
Begun = tuple[bytes, bytes]
Rows = list[FleetDevice]
#: Devices, and what becomes of their files in a worker.
Portion = tuple[Rows, Future[Any]]
_work: _Work  # of a worker process


def read_devices(source: "Path | str | pd.DataFrame") -> list[FleetDevice]:
    """Return the devices of a CSV file, with commas or a spreadsheet's semicolons, or of a DataFrame.

    The column ``common_name`` is required, others are carried along. A row that can't be a device has failed already.

    Raises: OnboardingError: NO_FILE, BAD_TABLE if it is not in UTF-8, has no rows, or no such column.
    """
    if isinstance(source, Path | str):
        where = str(source)
        try:
            text = read_file(Path(source), f"There is no table {source}: correct the path.").decode("utf-8-sig")
        except UnicodeDecodeError:
            raise fault("BAD_TABLE.encoding", where=where) from None
        heading = text.partition("\n")[0]
        delimiter = max(",;\t", key=heading.count)
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, restkey="", restval="")
        rows = [(reader.line_num, row) for row in reader]
        columns = list(reader.fieldnames or ())
    else:
        where, columns = "The table", [str(column) for column in source.columns]
        values = source.astype(object).where(source.notna(), "")
        rows = [(line, dict(zip(columns, map(str, row), strict=True))) for line, row in enumerate(values.values, 1)]
    if "common_name" not in columns:
        raise fault("BAD_TABLE.column", where=where, columns=", ".join(columns) or "none")
    if not rows:
        raise fault("BAD_TABLE.empty", where=where)
    seen: dict[str, int] = {}
    devices = []
    for line, row in rows:
        name = (row.pop("common_name") or "").strip()
        row.pop("", None)
        device = FleetDevice(line, name, row)
        if not _SAFE.fullmatch(name) or _RESERVED.fullmatch(name):
            device.fails(fault("BAD_NAME.fleet", name=name))
        elif (first := seen.setdefault(name.lower(), line)) != line:
            device.fails(fault("BAD_NAME.fleet_twice", name=name, line=first))
        devices.append(device)
    return devices


def make_fleet(
    devices: "Path | str | pd.DataFrame",
    ca: CertificateAuthority,
    folder: Path,
    passphrase: Secret | str,
    *,
    days: int = 365,
    key_type: KeyType = KeyType.P256,
    stores: Sequence[str] = ("pkcs12",),
    issuers: Sequence[x509.Certificate] = (),
    executor: Executor | None = None,
) -> Fleet:
    """Make key, request, certificate, chain and keystores of every device, and the platform's registration file.

    What is in ``folder`` already is kept, so the same call goes on with a run that was stopped. ``passphrase`` protects
    every key and store. ``issuers`` follow the CA in each chain. ``executor`` makes the keys elsewhere, such as dask's
    ``client.get_executor()``: they come back encrypted for this run alone.

    Raises: OnboardingError: as `read_devices`; LOCKED if another run works in ``folder``; BAD_PASSPHRASE.

    Example: ``make_fleet(Path("data/fleet.csv"), workspace.ca(), workspace.folder / "fleet", workspace.passphrase)``
    """
    from tqdm import tqdm

    rows, folder = read_devices(devices), Path(folder).absolute()
    chain = to_pem([ca.certificate, *issuers])
    recipient, opener = _new_envelope() if executor else (b"", b"")
    secrets = (recipient, opener, AESGCM.generate_key(256))
    work = _Work(folder, KeyType(key_type), store_password(passphrase), tuple(stores), chain, *secrets)
    stopped = ""
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(folder / ".fleet.lock", timeout=0).acquire()
    except Timeout:
        raise fault("LOCKED.fleet", folder=folder) from None
    with lock:
        there = {path.name for path in folder.iterdir()}
        subject = replace(DistinguishedName.from_x509(ca.certificate.subject), common_name=_NAME, email=None)
        pattern = oneline(signed_subject(ca.config, subject.to_x509(), ca.certificate.subject))
        todo = [row for row in rows if not row.state and not _is_kept(row, ca, work, there, pattern)]
        with tqdm(total=len(todo), unit="device", disable=None if todo[1:] else True) as bar, _workers(work) as pool:
            try:
                for done in _make(todo, ca, days, work, there, pool, executor):
                    bar.update(done)
            except KeyboardInterrupt:
                stopped = "It was stopped: the same call goes on."
            except BrokenExecutor:
                stopped = "A worker process has died, perhaps for want of memory: the same call goes on."
            except OnboardingError as error:
                stopped = f"{error} The same call goes on."
            finally:
                pool.shutdown(cancel_futures=True)
        _write_registration(folder, [row for row in rows if row.state in ("made", "kept")])
    return Fleet(folder, tuple(rows), stopped)


def _make(
    todo: Rows,
    ca: CertificateAuthority,
    days: int,
    work: _Work,
    there: set[str],
    pool: Executor,
    elsewhere: Executor | None,
) -> Iterator[int]:
    """Make the devices, batch by batch; yield how many more are done. While the CA signs, the workers go on."""
    company = DistinguishedName.from_x509(ca.certificate.subject)
    days = days_within(ca.certificate, normalize_time(None) + timedelta(hours=1), days)

    def begin(batch: Rows) -> list[Portion]:
        begun = []
        for portion in _portions(batch, PORTION):
            names = [replace(company, common_name=row.name, email=None) for row in portion]
            made: Future[Any]
            if elsewhere:
                made = elsewhere.submit(new_keys, names, work.key_type, work.recipient)
            else:
                made = pool.submit(_begin, names, work.key_type, work.recipient)
            begun.append((portion, made))
        return begun

    batches = _portions(todo, BATCH)
    coming, finishing = begin(batches[0]) if batches else [], list[Portion]()
    for number, batch in enumerate(batches):
        if elsewhere:
            coming = [(rows, pool.submit(_keep, [row.name for row in rows], made.result())) for rows, made in coming]
        begun = {row.name: answer for row, answer in _results(coming) if answer}
        coming = begin(batches[number + 1]) if batches[number + 1 :] else []
        requests = [(row, x509.load_der_x509_csr(begun[row.name][0])) for row in batch if row.name in begun]
        signed = _sign(requests, ca, days, there)
        yield _count(finishing)
        good = _portions([row for row in batch if row.name in signed], PORTION)
        finishing = [
            (rows, pool.submit(_finish, [(row.name, begun[row.name][1], signed[row.name]) for row in rows]))
            for rows in good
        ]
        yield len(batch) - len(signed)
    yield _count(finishing)


def _portions(rows: Rows, size: int) -> list[Rows]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _results(portions: list[Portion]) -> Iterator[tuple[FleetDevice, Any]]:
    """Yield the devices with their workers' answers; where a worker says what is wrong with one, that is noted."""
    for rows, future in portions:
        for row, (answer, problem) in zip(rows, future.result(), strict=True):
            if problem:
                row.fails(problem)
            yield row, answer


def _count(portions: list[Portion]) -> int:
    """Note which devices are made, and return how many are done."""
    done = [row for row, _ in _results(portions)]
    for row in done:
        row.state = row.state or "made"
    return len(done)


def _is_kept(row: FleetDevice, ca: CertificateAuthority, work: _Work, there: set[str], subject: str) -> bool:
    """Whether a device is there, or its folder holds something else, which is noted. ``subject`` is a pattern."""
    if row.name not in there:
        return False
    missing = work.files - {path.name for path in (work.folder / row.name).iterdir()}
    row.serial = ca.database.index().valid.get(subject.replace(_NAME, row.name))
    if missing or not row.serial:
        row.fails(
            fault(
                "EXISTS.device" if row.serial else "EXISTS.other_device",
                folder=work.folder / row.name,
                missing=", ".join(sorted(missing)),
            )
        )
    else:
        row.state = "kept"
    return True


def _sign(
    requests: list[tuple[FleetDevice, Request]], ca: CertificateAuthority, days: int, there: set[str]
) -> dict[str, bytes]:
    """Return the certificates by the devices' names, in PEM form; what can't be signed is noted."""
    # A run that was killed may have had it signed.
    known = [ca.find_issued(request) if f".{row.name}.draft" in there else None for row, request in requests]
    signed = [(row, certificate) for (row, _), certificate in zip(requests, known, strict=True) if certificate]
    new = [one for one, certificate in zip(requests, known, strict=True) if not certificate]
    try:
        made = ca.sign_many([request for _, request in new], days=days, shows_progress=False)
        signed += [(row, certificate) for (row, _), certificate in zip(new, made, strict=True)]
    except OnboardingError as error:
        if error.code not in _OF_ONE_REQUEST:
            raise
        if len(requests) == 1:
            new[0][0].fails(error)
        else:  # the others can be signed
            return dict(one for request in requests for one in _sign([request], ca, days, there).items())
    for row, certificate in signed:
        row.serial = certificate.serial_number
    return {row.name: to_pem([certificate]) for row, certificate in signed}


def _write_registration(folder: Path, rows: Rows) -> None:
    """Write what the platform's bulk registration reads: a row a device, which shows a certificate."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=";", lineterminator="\n")
    writer.writerows([("ID", "AUTH_TYPE"), *((row.name, "CERTIFICATES") for row in rows)])
    write_whole(folder / REGISTRATION, text.getvalue().encode(), replace=True)


# In the workers ------------------------------------------------------------------------------------------------------


def _workers(work: _Work) -> Executor:
    """Return what makes files: a process for each processor, or where there is one alone a thread."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if processors == 1:
        return ThreadPoolExecutor(1, initializer=_set_up, initargs=(work,))
    forks = "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if forks else "spawn")
    if forks:
        context.set_forkserver_preload([__name__])  # so that the modules are loaded once
    return ProcessPoolExecutor(min(processors, 61), context, _set_up, (work,))  # Windows waits for no more


def _set_up(work: _Work) -> None:
    global _work
    _work = work
    if multiprocessing.parent_process():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Stop goes to the kernel and to its children


def new_keys(subjects: Sequence[DistinguishedName], key_type: KeyType, recipient: bytes) -> tuple[bytes, list[bytes]]:
    """Return new keys, PEM, one after the other, and their requests; it runs anywhere.

    The keys are encrypted for ``recipient``, a certificate in PEM form, if one is given.
    """
    keys = [new_key(key_type) for _ in subjects]
    requests = [
        new_request(key, subject).public_bytes(Encoding.DER) for key, subject in zip(keys, subjects, strict=True)
    ]
    pem = b"".join(key.private_bytes(*_OPEN_PEM) for key in keys)
    if not recipient:
        return pem, requests
    builder = pkcs7.PKCS7EnvelopeBuilder().set_data(pem).set_content_encryption_algorithm(algorithms.AES256)
    builder = builder.add_recipient(x509.load_pem_x509_certificate(recipient))
    return builder.encrypt(Encoding.DER, [pkcs7.PKCS7Options.Binary]), requests


def _new_envelope() -> tuple[bytes, bytes]:
    """Return a certificate for which keys are encrypted on their way, and its private key, for this run alone."""
    key, name = rsa.generate_private_key(public_exponent=65537, key_size=3072), x509.Name([])
    begin = normalize_time(None)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, begin, begin + timedelta(days=1))
    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM), key.private_bytes(*_OPEN_PEM)


def _begin(subjects: Sequence[DistinguishedName], key_type: KeyType, _: bytes) -> list[tuple[Begun, str]]:
    """Make keys and requests here, and keep them."""
    return _keep([str(subject.common_name) for subject in subjects], new_keys(subjects, key_type, b""))


def _keep(names: Sequence[str], made: tuple[bytes, list[bytes]]) -> list[tuple[Begun, str]]:
    """Write keys and requests, durably, so that no certificate is signed for a key that a crash can lose.

    Returns the requests with the keys, encrypted for this run, or what is wrong. Raises: OnboardingError: DISK.
    """
    keys, requests = made
    if _work.opener:
        own = serialization.load_pem_private_key(_work.opener, None)
        assert isinstance(own, rsa.RSAPrivateKey)
        keys = pkcs7.pkcs7_decrypt_der(keys, x509.load_pem_x509_certificate(_work.recipient), own, [])
    kept = [_alone(_keep_one, *one) for one in zip(names, _KEY.findall(keys), requests, strict=True)]
    sync_all()
    return kept


def _alone(task: Callable[..., Any], *arguments: Any) -> tuple[Any, str]:
    """Return a task's answer and no problem, or what is wrong with this one device. Raises: OnboardingError: DISK."""
    try:
        return task(*arguments), ""
    except OnboardingError as error:
        if error.code == "DISK":
            raise
        return None, str(error)


def _keep_one(name: str, pem: bytes, request: bytes) -> Begun:
    """Write a device's key and request, unless a run that was cut off did so, and had it signed perhaps."""
    draft, key = _work.draft(name), _load(pem)
    key_path, request_path = draft / "deviceKey.pem", draft / "deviceCsr.pem"
    with disk_errors(draft):
        draft.mkdir(exist_ok=True)
        if request_path.exists():
            with suppress(ValueError):  # not written to its end, and so not signed
                before = x509.load_pem_x509_csr(request_path.read_bytes())
                key, request = read_private_key(key_path, _work.passphrase), before.public_bytes(Encoding.DER)
        else:
            write_plain(key_path, encrypted_pem(key, _work.passphrase.encode()), 0o600)
            write_plain(request_path, x509.load_der_x509_csr(request).public_bytes(Encoding.PEM))
    nonce = os.urandom(12)
    return request, nonce + AESGCM(_work.run_key).encrypt(nonce, key.private_bytes(*_OPEN_PEM), None)


def _finish(begun: Sequence[tuple[str, bytes, bytes]]) -> list[tuple[None, str]]:
    """Write certificate, chain and stores, then give each folder its name. Returns and raises as `_keep`."""
    done = [_alone(_finish_one, *one) for one in begun]
    sync_all()
    for (name, *_), (_, problem) in zip(begun, done, strict=True):
        if not problem:
            with disk_errors(_work.draft(name)):
                _work.draft(name).rename(_work.folder / name)
    return done


def _finish_one(name: str, sealed: bytes, certificate: bytes) -> None:
    draft, pem = _work.draft(name), certificate + _work.issuers
    key = _load(AESGCM(_work.run_key).decrypt(sealed[:12], sealed[12:], None))
    chain = x509.load_pem_x509_certificates(pem)
    with disk_errors(draft):
        write_plain(draft / "deviceCert.pem", certificate)
        write_plain(draft / "deviceCertChain.pem", pem)
        for kind in _work.stores:
            path = draft / f"deviceKeystore.{kind}"
            write_plain(path, keystore_bytes(path, key, chain, _work.passphrase), 0o600)


def _load(key: bytes) -> PrivateKey:
    """Return a key that was made in this run, PEM, without the check, which takes long for RSA."""
    loaded = serialization.load_pem_private_key(key, None, unsafe_skip_rsa_key_validation=True)
    assert isinstance(loaded, PrivateKey)
    return loaded
