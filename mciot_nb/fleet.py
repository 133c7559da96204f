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
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives.ciphers import algorithms
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    pkcs7,
)
from filelock import FileLock, Timeout

from mciot_nb.errors import OnboardingError, fault
from mciot_nb.pki.authority import CertificateAuthority
from mciot_nb.pki.chain import to_pem
from mciot_nb.pki.files import disk_errors, read_file, sync_all, write_plain, write_whole
from mciot_nb.pki.keys import KeyType, PrivateKey, encrypted_pem, new_key, new_request, read_private_key
from mciot_nb.pki.keystore import keystore_bytes, store_password
from mciot_nb.pki.names import DistinguishedName, oneline
from mciot_nb.pki.rows import hex_serial
from mciot_nb.pki.signing import days_within, normalize_time, signed_subject
from mciot_nb.secret import Secret

if TYPE_CHECKING:
    import pandas as pd

#: How many devices are signed together, and how many of them a worker takes at a time.
BATCH, PORTION = 400, 20
#: What the platform's bulk registration reads.
REGISTRATION = "bulkRegistration.csv"
#: A common name that is a folder's name on every system too.
_SAFE = re.compile(r"(?!(con|prn|aux|nul|com\d|lpt\d)(\.|$))[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9_-])?", re.IGNORECASE)
_KEY = re.compile(rb"-----BEGIN PRIVATE KEY-----.*?-----END PRIVATE KEY-----\n", re.DOTALL)
#: Stands for a name in the pattern of all subjects.
_NAME = "NAME-OF-THE-DEVICE"
_FILES = ("deviceKey.pem", "deviceCsr.pem", "deviceCert.pem", "deviceCertChain.pem")

#: A device: its line in the table, common_name, state (made, kept, failed, or empty), problem, serial, other columns.
Row = dict[str, Any]


@dataclass(frozen=True)
class _Work:
    """What a worker knows: the ``opener`` opens keys that were made elsewhere, encrypted for the ``recipient``."""

    folder: Path
    key_type: KeyType
    passphrase: str = field(repr=False)
    stores: tuple[str, ...]
    issuers: bytes
    recipient: bytes
    opener: bytes = field(repr=False)

    def draft(self, name: str) -> Path:
        """Return the folder in which a device's files are made."""
        return self.folder / f".{name}.draft"


_work: _Work  # of a worker


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
    if "common_name" not in (columns := reader.fieldnames or ()):
        raise fault("BAD_TABLE.column", where=where, columns=", ".join(columns) or "nothing")
    seen: dict[str, int] = {}
    rows: list[Row] = []
    for found in reader:
        name = (found.pop("common_name") or "").strip()
        row: Row = {"line": reader.line_num, "common_name": name, "state": "", "problem": "", "serial": ""}
        rows.append(row | {column: value for column, value in found.items() if column})
        if not _SAFE.fullmatch(name):
            _fail(rows[-1], "BAD_NAME.fleet", name=name)
        elif (first := seen.setdefault(name.lower(), row["line"])) != row["line"]:
            _fail(rows[-1], "BAD_NAME.fleet_twice", name=name, line=first)
    if not rows:
        raise fault("BAD_TABLE.empty", where=where)
    return rows


def _fail(row: Row, key: str, **values: object) -> None:
    row.update(state="failed", problem=str(fault(key, **values)))


def make_fleet(
    devices: "Path | str | pd.DataFrame",
    ca: CertificateAuthority,
    folder: Path,
    passphrase: Secret | str,
    *,
    days: int = 365,
    key_type: KeyType = KeyType.P256,
    stores: Sequence[str] = ("pkcs12",),
    executor: Executor | None = None,
) -> "pd.DataFrame":
    """Make every device's key, request, certificate, chain and keystores, and the platform's registration file.

    Returns the table: what was made or kept, what failed and why. What is in ``folder`` is kept, so the same call goes
    on with a run that was stopped. ``passphrase`` protects every key and store. ``executor`` makes the keys elsewhere,
    such as dask's ``client.get_executor()``: they come back encrypted for this run alone.

    Raises: OnboardingError: as `read_devices`; LOCKED if another run works in ``folder``; BAD_PASSPHRASE.

    Example: ``make_fleet(Path("data/fleet.csv"), workspace.ca(), workspace.folder / "fleet", workspace.passphrase)``
    """
    import pandas as pd
    from tqdm import tqdm

    rows, folder = read_devices(devices), Path(folder).absolute()
    days = days_within(ca.certificate, normalize_time(None) + timedelta(hours=1), days)
    envelope, chain = _new_envelope() if executor else (b"", b""), to_pem([ca.certificate])
    work = _Work(folder, KeyType(key_type), store_password(passphrase), tuple(stores), chain, *envelope)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(folder / ".fleet.lock", timeout=0).acquire()
    except Timeout:
        raise fault("LOCKED.fleet", folder=folder) from None
    problem = ""
    with lock:
        todo = list(_todo([row for row in rows if not row["state"]], ca, work))
        with tqdm(total=len(todo), unit="device", disable=None if todo[1:] else True) as bar, _workers(work) as pool:
            try:
                for done in _make(todo, ca, days, work, pool, executor):
                    bar.update(done)
            except KeyboardInterrupt:
                problem = "It was stopped: the same call goes on."
            except BrokenExecutor:
                problem = "A worker process has died, perhaps because memory ran out: the same call goes on."
            except OnboardingError as error:
                problem = str(error)
            finally:
                pool.shutdown(cancel_futures=True)
        for row in rows:
            row["problem"] = row["problem"] or ("" if row["state"] else problem)
        there = [row["common_name"] for row in rows if row["state"] in ("made", "kept")]
        registration = "".join(f"{line}\n" for line in ("ID;AUTH_TYPE", *(f"{name};CERTIFICATES" for name in there)))
        write_whole(folder / REGISTRATION, registration.encode(), replace=True)
    return pd.DataFrame(rows)


def _todo(rows: list[Row], ca: CertificateAuthority, work: _Work) -> Iterator[Row]:
    """Yield the devices that are not made yet; of the others, note whether they are what they should be."""
    there = {path.name for path in work.folder.iterdir()}
    pattern = oneline(signed_subject(ca.config, _subject(ca, _NAME).to_x509(), ca.certificate.subject))
    for row in rows:
        name = row["common_name"]
        subject, place = pattern.replace(_NAME, name), work.folder / name
        serial = ca.database.index().valid.get(subject)
        row["serial"] = hex_serial(serial) if serial else ""
        if name in there:
            row["state"] = "kept"
            stores = (f"deviceKeystore.{kind}" for kind in work.stores)
            missing = {*_FILES, *stores} - {path.name for path in place.iterdir()}
            if missing or not serial:
                _fail(row, "EXISTS.device" if serial else "EXISTS.other", place=place, missing=", ".join(missing))
        elif serial and work.draft(name).name not in there:
            _fail(row, "SUBJECT_TAKEN", subject=subject, serial=row["serial"])
        else:
            yield row


def _subject(ca: CertificateAuthority, name: str) -> DistinguishedName:
    return replace(DistinguishedName.from_x509(ca.certificate.subject), common_name=name, email=None)


def _make(
    todo: list[Row], ca: CertificateAuthority, days: int, work: _Work, pool: Executor, elsewhere: Executor | None
) -> Iterator[int]:
    """Make the devices, batch by batch; yield how many more are done. While the CA signs, the workers go on."""

    def begin(batch: list[Row]) -> list[tuple[list[Row], Future[Any]]]:
        begun = []
        for portion in _portions(batch, PORTION):
            order = [_subject(ca, row["common_name"]) for row in portion], work.key_type, work.recipient
            begun.append((portion, elsewhere.submit(new_keys, *order) if elsewhere else pool.submit(_begin, *order)))
        return begun

    def made(finishing: list[tuple[list[Row], Future[None]]]) -> int:
        for portion, future in finishing:
            future.result()
            for row in portion:
                row["state"] = "made"
        return sum(len(portion) for portion, _ in finishing)

    batches, finishing = _portions(todo, BATCH), list[tuple[list[Row], Future[None]]]()
    coming = begin(batches[0]) if batches else []
    for following in (*batches[1:], []):
        if elsewhere:
            coming = [(portion, pool.submit(_keep, _names(portion), *future.result())) for portion, future in coming]
        requests = [(row, one) for rows, future in coming for row, one in zip(rows, future.result(), strict=True)]
        coming = begin(following)
        signed = _sign(requests, ca, days)
        yield made(finishing)
        finishing = [
            (portion, pool.submit(_finish, _names(portion), [signed[name] for name in _names(portion)]))
            for portion in _portions([row for row, _ in requests], PORTION)
        ]
    yield made(finishing)


def _portions(rows: list[Row], size: int) -> list[list[Row]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _names(rows: list[Row]) -> list[str]:
    return [row["common_name"] for row in rows]


def _sign(requests: list[tuple[Row, bytes]], ca: CertificateAuthority, days: int) -> dict[str, bytes]:
    """Return the certificates by the devices' names, in PEM form; one that a killed run had signed is found."""
    loaded = [(row, x509.load_der_x509_csr(request)) for row, request in requests]
    known = ((row["common_name"], ca.find_issued(request)) for row, request in loaded if row["serial"])
    signed = {name: certificate for name, certificate in known if certificate}
    new = [(row["common_name"], request) for row, request in loaded if row["common_name"] not in signed]
    made = ca.sign_many([request for _, request in new], days=days, shows_progress=False)
    signed |= {name: certificate for (name, _), certificate in zip(new, made, strict=True)}
    for row, _ in requests:
        row["serial"] = hex_serial(signed[row["common_name"]].serial_number)
    return {name: to_pem([certificate]) for name, certificate in signed.items()}


# In the workers ------------------------------------------------------------------------------------------------------


def _workers(work: _Work) -> Executor:
    """Return what makes files: a process for each processor, or a thread where there is only one."""
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


def _new_envelope() -> tuple[bytes, bytes]:
    """Return a certificate for which keys are encrypted on their way, and its private key, for this run alone."""
    key, name, begin = new_key(KeyType.RSA_3072), x509.Name([]), normalize_time(None)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, begin, begin + timedelta(days=1))
    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM), _open_pem(key)


def _open_pem(key: PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def new_keys(subjects: Sequence[DistinguishedName], key_type: KeyType, recipient: bytes) -> tuple[bytes, list[bytes]]:
    """Return new keys, in PEM form, and their requests, DER; it runs anywhere.

    The keys are encrypted for ``recipient``, a certificate in PEM form, if one is given.
    """
    keys = [new_key(key_type) for _ in subjects]
    requests = [new_request(*one).public_bytes(Encoding.DER) for one in zip(keys, subjects, strict=True)]
    pem = b"".join(map(_open_pem, keys))
    if not recipient:
        return pem, requests
    builder = pkcs7.PKCS7EnvelopeBuilder().set_data(pem).set_content_encryption_algorithm(algorithms.AES256)
    builder = builder.add_recipient(x509.load_pem_x509_certificate(recipient))
    return builder.encrypt(Encoding.DER, [pkcs7.PKCS7Options.Binary]), requests


def _begin(subjects: Sequence[DistinguishedName], key_type: KeyType, _: bytes) -> list[bytes]:
    """Make keys and requests here, and keep them."""
    return _keep([str(subject.common_name) for subject in subjects], *new_keys(subjects, key_type, b""))


def _keep(names: Sequence[str], keys: bytes, requests: Sequence[bytes]) -> list[bytes]:
    """Write keys and requests, durably, so that no certificate is signed for a key that a crash can lose.

    Returns the requests; where a run was cut off those of then, which it may have had signed.
    """
    if _work.opener:
        own, certificate = load_pem_private_key(_work.opener, None), x509.load_pem_x509_certificate(_work.recipient)
        keys = pkcs7.pkcs7_decrypt_der(keys, certificate, own, [])  # type: ignore[arg-type]  # it is an RSA key
    kept = list(requests)
    for number, (name, pem) in enumerate(zip(names, _KEY.findall(keys), strict=True)):
        draft = _work.draft(name)
        with disk_errors(draft):
            draft.mkdir(exist_ok=True)
            with suppress(FileNotFoundError, ValueError):  # there is none, or it was not written to its end
                before = x509.load_pem_x509_csr((draft / "deviceCsr.pem").read_bytes())
                read_private_key(draft / "deviceKey.pem", _work.passphrase)
                kept[number] = before.public_bytes(Encoding.DER)
                continue
            key, request = _load(pem, None), x509.load_der_x509_csr(requests[number])
            write_plain(draft / "deviceKey.pem", encrypted_pem(key, _work.passphrase.encode()), 0o600)
            write_plain(draft / "deviceCsr.pem", request.public_bytes(Encoding.PEM))
    sync_all()
    return kept


def _load(pem: bytes, passphrase: bytes | None) -> PrivateKey:
    """Return a key of our own, without the check, which takes long for RSA."""
    key = load_pem_private_key(pem, passphrase, unsafe_skip_rsa_key_validation=True)
    assert isinstance(key, PrivateKey)
    return key


def _finish(names: Sequence[str], certificates: Sequence[bytes]) -> None:
    """Write certificates, chains and stores, then give each folder its name."""
    for name, certificate in zip(names, certificates, strict=True):
        draft, chain = _work.draft(name), certificate + _work.issuers
        with disk_errors(draft):
            key = _load((draft / "deviceKey.pem").read_bytes(), _work.passphrase.encode())
            write_plain(draft / "deviceCert.pem", certificate)
            write_plain(draft / "deviceCertChain.pem", chain)
            for path in (draft / f"deviceKeystore.{kind}" for kind in _work.stores):
                store = keystore_bytes(path, key, x509.load_pem_x509_certificates(chain), _work.passphrase)
                write_plain(path, store, 0o600)
    sync_all()
    for name in names:
        with disk_errors(_work.folder / name):
            _work.draft(name).rename(_work.folder / name)
