"""A fleet from a table: what is made, what is refused, what goes on after a kill, and who else may make the keys."""

import csv
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import PASSPHRASE, ROOT, make_keys_quick
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from platform_tools import wait_for

from mciot_nb import CertificateAuthority, KeyChoice, KeyType, OnboardingError, Workspace
from mciot_nb import fleet as module
from mciot_nb.fleet import REGISTRATION, fleet_health, make_fleet, read_devices
from mciot_nb.pki.chain import read_certificates
from mciot_nb.pki.keys import is_key_of, read_private_key, read_request
from mciot_nb.pki.keystore import read_key, read_store
from mciot_nb.ui.live_fleet import LiveFleet

SECRET = "correct-horse-7"  # Java opens what has ASCII alone
FILES = {"deviceKey.pem", "deviceCsr.pem", "deviceCert.pem", "deviceCertChain.pem", "deviceKeystore.pkcs12"}


def table(names: list[str], **columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame({"common_name": names, **columns})


def numbered(count: int) -> pd.DataFrame:
    return table([f"machine-{number:04}" for number in range(count)])


def made(fleet: pd.DataFrame) -> list[str]:
    return list(fleet["common_name"][fleet["state"].isin(["made", "kept"])])


def demand_whole(folder: Path, ca: CertificateAuthority, names: list[str], files: set[str] = FILES) -> None:
    """Demand that each device is there once, whole and of this CA, and that nothing else is."""
    there = {
        path.name: path for path in folder.iterdir() if path.is_dir() and path.name not in ("caCertificate", "earlier")
    }
    assert sorted(there) == sorted(names)
    rows = [row for row in ca.database.rows() if row.status == "V"]
    assert sorted(row.subject.rpartition("/CN=")[2] for row in rows) == sorted(names), "nothing twice, nothing lost"
    serials = {row.subject.rpartition("/CN=")[2]: row.serial for row in rows}
    for name, path in there.items():
        assert {file.name for file in path.iterdir()} == files
        (certificate,) = read_certificates(path / "deviceCert.pem")
        assert certificate.serial_number == serials[name]
        assert read_certificates(path / "deviceCertChain.pem") == [certificate, ca.certificate]
        assert is_key_of(certificate, read_private_key(path / "deviceKey.pem", SECRET))
    registered = (folder / REGISTRATION).read_text().splitlines()
    assert registered == ["ID;AUTH_TYPE", *(f"{name};CERTIFICATES" for name in sorted(names))]


# What is made ---------------------------------------------------------------------------------------------------------


def facts(folder: Path, passphrase: Any, ca: CertificateAuthority) -> dict[str, Any]:
    """Return all that can be said of a device's files, without what is random."""
    (own, *issuers) = read_certificates(folder / "deviceCertChain.pem")
    request, key = read_request(folder / "deviceCsr.pem"), read_private_key(folder / "deviceKey.pem", passphrase)
    values: dict[str, Any] = {}
    for kind in ("pkcs12", "jks"):
        (entry,) = read_store(path := folder / f"deviceKeystore.{kind}", passphrase).entries
        stored, chain = read_key(path, passphrase)
        assert stored == key or stored.public_key() == key.public_key()
        values[kind] = (entry.alias, entry.kind, [one == own or one.subject for one in chain])
        values[f"mode of {kind}"] = stat.S_IMODE(path.stat().st_mode)
    extensions = {one.oid.dotted_string: (one.critical, one.value) for one in own.extensions}
    extensions.pop(x509.SubjectKeyIdentifier.oid.dotted_string)
    pem = (folder / "deviceKey.pem").read_text()
    return values | {
        "subject": own.subject,
        "issuer": own.issuer,
        "request": (ca.preview(request).subject, list(request.extensions), request.signature_algorithm_oid),
        "version": own.version,
        "signature": (own.signature_algorithm_oid, own.signature_hash_algorithm and own.signature_hash_algorithm.name),
        "days": own.not_valid_after_utc - own.not_valid_before_utc,
        "extensions": extensions,
        "key": (KeyType.of(key), pem.splitlines()[0], len(pem.splitlines())),
        "chain": issuers,
        "mode of key": stat.S_IMODE((folder / "deviceKey.pem").stat().st_mode),
        "modes of others": [stat.S_IMODE((folder / name).stat().st_mode) for name in sorted(FILES) if "Ce" in name],
        "fits": is_key_of(own, key) and request.public_key() == own.public_key(),
    }


@pytest.mark.parametrize("key_type", [KeyType.P256, KeyType.RSA_2048], ids=str)
@pytest.mark.parametrize("issuer", ["ca", "intermediate"])
def test_what_is_made_equals_what_03_to_05_make(
    key_type: KeyType, issuer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_keys_quick(monkeypatch)
    monkeypatch.setattr(Workspace, "_server", lambda self: pytest.fail("no platform is needed"))
    workspace = Workspace(tmp_path / "workspace")
    workspace.catch_up(issuer)
    workspace.choose_issuer(issuer)
    workspace.create_device_request(subject := workspace.subject("device"), KeyChoice(key_type, 365))
    workspace.sign_device_request(KeyChoice(key_type, 365))
    for kind in ("pkcs12", "jks"):
        workspace.create_keystore(kind)
    ca, name = workspace.signer(), str(subject.common_name)
    one = facts(workspace.device_file(""), workspace.passphrase, ca)
    ca.revoke(read_certificates(workspace.device_file("deviceCert.pem"))[0])  # whose subject the fleet's takes
    how = {"key_type": key_type, "stores": ("pkcs12", "jks")}
    fleet = make_fleet(table([name, "device-2"]), ca, tmp_path / "fleet", workspace.passphrase, **how)
    assert made(fleet) == [name, "device-2"], fleet["problem"]
    other = facts(tmp_path / "fleet" / name, workspace.passphrase, ca)
    for what in one:
        assert other[what] == one[what], what
    assert one["fits"] and one["mode of key"] == one["mode of jks"] == 0o600
    assert facts(tmp_path / "fleet" / "device-2", workspace.passphrase, ca) != one  # the control


def test_other_columns_are_carried_along_and_the_same_call_keeps_what_is_there(
    ca: CertificateAuthority, tmp_path: Path
) -> None:
    (tmp_path / "devices.csv").write_text('common_name,site,note\na-1,Ulm,"one, two"\na-2,Graz,\n', "utf-8")
    first = make_fleet(tmp_path / "devices.csv", ca, tmp_path / "fleet", SECRET)
    assert list(first["site"]) == ["Ulm", "Graz"] and list(first["note"]) == ["one, two", ""]
    assert list(first["state"]) == ["made", "made"] and list(first["line"]) == [2, 3]
    before = {path: path.read_bytes() for path in (tmp_path / "fleet").rglob("device*")}
    second = make_fleet(tmp_path / "devices.csv", ca, tmp_path / "fleet", SECRET)
    assert list(second["state"]) == ["kept", "kept"] and list(second["serial"]) == list(first["serial"])
    assert {path: path.read_bytes() for path in (tmp_path / "fleet").rglob("device*")} == before
    demand_whole(tmp_path / "fleet", ca, ["a-1", "a-2"])
    make_fleet(first.query("site == 'Ulm'"), ca, tmp_path / "fleet", SECRET)  # what was returned is a table as well
    demand_whole(tmp_path / "fleet", ca, ["a-1", "a-2"])  # the registration lists all still


def test_java_opens_the_stores(ca: CertificateAuthority, tmp_path: Path, keytool: Any) -> None:
    make_fleet(table(["a-1"]), ca, tmp_path, SECRET, stores=("pkcs12", "jks"))
    for kind in ("pkcs12", "jks"):
        said = keytool("-list", "-keystore", tmp_path / "a-1" / f"deviceKeystore.{kind}", "-storepass", SECRET).stdout
        assert "devicekeyentry" in said and "PrivateKeyEntry" in said


# A table that is not good ---------------------------------------------------------------------------------------------

BAD_NAMES = ["b:2", "x" * 65, "../x", "a/b", "a\\b", "", "  ", ".hidden", "-rf", "CON", "nul.txt", "é", "a b", "a\n"]


@pytest.mark.parametrize("name", [*BAD_NAMES, REGISTRATION, "earlier", "x."])
def test_a_name_that_is_no_folder_fails_alone(name: str) -> None:
    bad, good = read_devices(table([name, "x" * 64]))
    if name.strip() == "a":
        assert (bad["state"], bad["common_name"]) == ("", "a")  # white space around a name is dropped
    else:
        assert bad["state"] == "failed" and repr(name.strip()) in bad["problem"]
    assert good["state"] == ""


def test_ten_bad_rows_among_a_thousand_are_listed_with_their_lines(ca: CertificateAuthority, tmp_path: Path) -> None:
    lines = [f"machine-{number:04},Ulm" for number in range(1000)]
    bad = {7: "b:2,x", 42: "x" * 65 + ",x", 99: "../x,x", 100: ",x", 333: "MACHINE-0001,x", 500: "CON,x"}
    bad |= {501: "a b,x", 700: "machine-0001,x", 998: "é,x", 999: '"a""b",x'}
    for number, line in bad.items():
        lines[number] = line
    (tmp_path / "devices.csv").write_text("\n".join(["common_name,site", *lines]), "utf-8")
    rows = read_devices(tmp_path / "devices.csv")
    failed = [row for row in rows if row["state"] == "failed"]
    assert [row["line"] for row in failed] == [number + 2 for number in bad] and len(rows) == 1000
    assert "is the device of line 3 already" in failed[4]["problem"]
    few = tmp_path / "few.csv"
    few.write_text("\n".join(["common_name,site", *lines[:45], *lines[498:503]]), "utf-8")
    fleet = make_fleet(few, ca, tmp_path / "fleet", SECRET)
    good = [line.partition(",")[0] for line in (*lines[:45], *lines[498:503]) if line.startswith("machine")]
    assert made(fleet) == good and list(fleet["line"][fleet["state"] == "failed"]) == [9, 44, 49, 50]
    demand_whole(tmp_path / "fleet", ca, good)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("common_name;site\r\na-1;Ulm\r\na-2;Graz\r\n", ["a-1", "a-2"]),
        ("\ufeffcommon_name,site\na-1,Ulm\n", ["a-1"]),
        ("site\tcommon_name\nUlm\ta-1", ["a-1"]),
        ("common_name\na-1\n\n\na-2\n", ["a-1", "a-2"]),
        ("common_name,site\na-1\na-2,Ulm,more,and more\n", ["a-1", "a-2"]),
    ],
    ids=["a spreadsheet's semicolons", "a byte order mark", "tabs", "empty lines", "too few and too many fields"],
)
def test_what_spreadsheets_write_is_read(text: str, names: list[str], tmp_path: Path) -> None:
    (tmp_path / "devices.csv").write_text(text, "utf-8", newline="")
    rows = read_devices(tmp_path / "devices.csv")
    assert [row["common_name"] for row in rows] == names and all(row["state"] == "" for row in rows)


@pytest.mark.parametrize(
    ("data", "code", "said"),
    [
        (b"", "BAD_TABLE", "no column common_name, but nothing"),
        (b"name,site\na,b\n", "BAD_TABLE", "no column common_name, but name, site"),
        (b"common_name,site\n", "BAD_TABLE", "no device"),
        ("common_name\nmüller-1\n".encode("latin-1"), "BAD_TABLE", "not text in UTF-8"),
        ("common_name\na-1\n".encode("utf-16"), "BAD_TABLE", "not text in UTF-8"),
        (b"common_name,serial,state\na-1,1,2\n", "BAD_TABLE", "serial, state"),
        (b'common_name\n"a-1' + b"x" * 140_000, "BAD_TABLE", "after line 1"),
        (None, "NO_FILE", "There is no table"),
    ],
)
def test_a_table_that_cannot_be_read_is_one_sentence(
    data: bytes | None, code: str, said: str, ca: CertificateAuthority, tmp_path: Path
) -> None:
    if data is not None:
        (tmp_path / "devices.csv").write_bytes(data)
    with pytest.raises(OnboardingError, match=said) as caught:
        make_fleet(tmp_path / "devices.csv", ca, tmp_path / "fleet", SECRET)
    assert caught.value.code == code and not (tmp_path / "fleet").exists() and ca.database.rows() == []


def test_what_the_ca_would_not_sign_is_said_before_a_key_is_made(ca: CertificateAuthority, tmp_path: Path) -> None:
    for days in (0, -1, 36_000):
        with pytest.raises(OnboardingError) as caught:
            make_fleet(table(["a-1"]), ca, tmp_path / "fleet", SECRET, days=days)
        assert caught.value.code in ("BAD_DAYS", "OUTLIVES_CA")
    for bad in ("short", PASSPHRASE):  # keytool wants six characters, Java ASCII
        with pytest.raises(OnboardingError) as caught:
            make_fleet(table(["a-1"]), ca, tmp_path / "fleet", bad[:5] if bad == "short" else bad)
        assert caught.value.code == "BAD_PASSPHRASE" and bad not in str(caught.value)
    assert not (tmp_path / "fleet").exists()


def test_a_subject_that_is_taken_elsewhere_fails_alone(ca: CertificateAuthority, tmp_path: Path) -> None:
    make_fleet(table(["a-1"]), ca, tmp_path / "one", SECRET)
    (tmp_path / "two" / ".a-2.draft").mkdir(parents=True)  # begun, and then signed for another key
    make_fleet(table(["a-2"]), ca, tmp_path / "one", SECRET)
    fleet = make_fleet(table(["a-1", "a-2", "a-3"]), ca, tmp_path / "two", SECRET)
    assert list(fleet["state"]) == ["failed", "failed", "made"]
    assert all("revoke that one first" in problem for problem in fleet["problem"][:2])


def test_a_folder_that_lacks_something_is_named_and_left_alone(ca: CertificateAuthority, tmp_path: Path) -> None:
    make_fleet(table(["a-1", "a-2", "a-3"]), ca, tmp_path, SECRET)
    (tmp_path / "a-1" / "deviceKeystore.pkcs12").unlink()
    ca.revoke(read_certificates(tmp_path / "a-2" / "deviceCert.pem")[0])
    fleet = make_fleet(table(["a-1", "a-2", "a-3"]), ca, tmp_path, SECRET)
    assert list(fleet["state"]) == ["failed", "failed", "kept"]
    assert "lacks deviceKeystore.pkcs12" in fleet["problem"][0] and "without a valid" in fleet["problem"][1]
    shutil.rmtree(tmp_path / "a-2")  # what the sentence says
    assert list(make_fleet(table(["a-2"]), ca, tmp_path, SECRET)["state"]) == ["made"]


# Stopped, killed, broken ----------------------------------------------------------------------------------------------

CHILD = """
import sys, os, signal
from pathlib import Path
from mciot_nb import CertificateAuthority, fleet
if __name__ == "__main__":
    fleet.BATCH, fleet.PORTION = 20, 5
    ca = CertificateAuthority.open(Path(sys.argv[1]), os.environ["PASS"])
    print("began", flush=True)
    made = fleet.make_fleet(Path(sys.argv[2]), ca, Path(sys.argv[3]), sys.argv[4])
    print(made["state"].value_counts().to_dict(), sorted(set(made["problem"])), flush=True)
"""


def begin(tmp_path: Path, ca: CertificateAuthority, count: int) -> "subprocess.Popen[str]":
    numbered(count).to_csv(tmp_path / "devices.csv", index=False)
    (tmp_path / "child.py").write_text(CHILD)
    command = [sys.executable, tmp_path / "child.py", ca.folder, tmp_path / "devices.csv", tmp_path / "fleet", SECRET]
    environment = os.environ | {"PASS": PASSPHRASE, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def whole(folder: Path) -> int:
    return sum(path.is_dir() and path.name[0] != "." for path in folder.iterdir()) if folder.exists() else 0


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")
@pytest.mark.parametrize("point", [1, 30, 70])
def test_a_run_that_is_killed_goes_on(point: int, ca: CertificateAuthority, tmp_path: Path) -> None:
    child = begin(tmp_path, ca, 120)
    wait_for(lambda: whole(tmp_path / "fleet") >= point or child.poll() is not None)
    os.killpg(child.pid, signal.SIGKILL)
    child.communicate()
    before = whole(tmp_path / "fleet")
    assert child.returncode == -signal.SIGKILL and point <= before < 120, "it was killed in the middle"
    again = CertificateAuthority.open(ca.folder, PASSPHRASE)
    fleet = wait_for_lock(lambda: make_fleet(tmp_path / "devices.csv", again, tmp_path / "fleet", SECRET))
    counts = fleet["state"].value_counts()
    assert counts["kept"] >= before and counts["kept"] + counts["made"] == 120, fleet["problem"].unique()
    demand_whole(tmp_path / "fleet", again, list(numbered(120)["common_name"]))
    assert list(fleet["serial"]) == [
        f"{read_certificates(path)[0].serial_number:X}" for path in certificates(fleet, tmp_path)
    ]


def certificates(fleet: pd.DataFrame, tmp_path: Path) -> list[Path]:
    return [tmp_path / "fleet" / name / "deviceCert.pem" for name in fleet["common_name"]]


def wait_for_lock(work: Callable[[], Any]) -> Any:
    """Do ``work`` as soon as the system has ended what was killed."""

    def attempt() -> Any:
        try:
            return [work()]
        except OnboardingError as error:
            if error.code == "LOCKED":
                return None
            raise

    return wait_for(attempt)[0]


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")
def test_stop_does_no_harm(ca: CertificateAuthority, tmp_path: Path) -> None:
    """The Lab's Stop is a SIGINT to the kernel and its children."""
    child = begin(tmp_path, ca, 400)
    wait_for(lambda: whole(tmp_path / "fleet") >= 1 or child.poll() is not None)
    os.killpg(child.pid, signal.SIGINT)
    said, errors = child.communicate(timeout=120)
    assert child.returncode == 0 and "It was stopped: the same call goes on." in said, said + errors
    assert "Traceback" not in errors and 0 < whole(tmp_path / "fleet") < 400
    again = CertificateAuthority.open(ca.folder, PASSPHRASE)
    fleet = make_fleet(tmp_path / "devices.csv", again, tmp_path / "fleet", SECRET)
    assert len(made(fleet)) == 400
    demand_whole(tmp_path / "fleet", again, made(fleet))


def test_two_runs_do_not_work_in_one_folder(ca: CertificateAuthority, tmp_path: Path) -> None:
    class Nosy(ThreadPoolExecutor):
        """While the first run makes keys, a second one begins."""

        said = ""

        def submit(self, *work: Any, **options: Any) -> "Future[Any]":
            with pytest.raises(OnboardingError) as caught:
                make_fleet(table(["a-1"]), ca, tmp_path / "fleet", SECRET)
            self.said = caught.value.with_code
            return super().submit(*work, **options)

    with Nosy(1) as executor:
        assert made(make_fleet(table(["a-1"]), ca, tmp_path / "fleet", SECRET, executor=executor)) == ["a-1"]
    assert "Another run is at work" in executor.said and executor.said.endswith("(LOCKED)")
    assert list(make_fleet(table(["a-1"]), ca, tmp_path / "fleet", SECRET)["state"]) == ["kept"]  # the control


def test_a_worker_process_that_dies_is_one_sentence(ca: CertificateAuthority, tmp_path: Path, monkeypatch: Any) -> None:
    original = module._workers

    def dying() -> Executor:
        pool = original()
        submit, count = pool.submit, iter(range(1000))

        def die_at_third(*work: Any) -> "Future[Any]":
            return submit(os.abort) if next(count) == 2 else submit(*work)

        pool.submit = die_at_third  # type: ignore[method-assign, assignment]
        return pool

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr(module, "_workers", dying)
    monkeypatch.setattr(module, "BATCH", 20)
    fleet = make_fleet(numbered(60), ca, tmp_path / "fleet", SECRET)
    assert "A worker process has died" in list(fleet["problem"])[-1] and list(fleet["state"])[-1] == ""
    monkeypatch.setattr(module, "_workers", original)
    assert len(made(make_fleet(numbered(60), ca, tmp_path / "fleet", SECRET))) == 60
    demand_whole(tmp_path / "fleet", ca, list(numbered(60)["common_name"]))


def test_a_pool_that_is_being_closed_is_one_sentence(
    ca: CertificateAuthority, tmp_path: Path, monkeypatch: Any
) -> None:
    """A worker has died, and the pool's pipes are closed while another is started."""

    class Closing(ThreadPoolExecutor):
        error = OSError("handle is closed")

        def submit(self, *_: Any) -> Any:  # type: ignore[override]
            raise self.error

    monkeypatch.setattr(module, "_workers", Closing)
    assert "A worker process has died" in make_fleet(numbered(2), ca, tmp_path / "fleet", SECRET)["problem"].iloc[-1]
    Closing.error = BlockingIOError(11, "Resource temporarily unavailable")
    with pytest.raises(BlockingIOError):
        make_fleet(numbered(2), ca, tmp_path / "fleet", SECRET)


@pytest.mark.skipif(not shutil.which("unshare") or os.geteuid() != 0, reason="a small file system needs root")
@pytest.mark.slow
def test_a_disk_that_fills_at_device_500(ca: CertificateAuthority, tmp_path: Path) -> None:
    """On a real file system that is too small."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "nr_inodes=3000", "none", small], capture_output=True)
    if mounted.returncode:
        pytest.skip("this machine lets nobody mount")
    try:
        fleet = make_fleet(numbered(600), ca, small / "fleet", SECRET)
        counts = fleet["state"].value_counts()
        assert 300 < counts["made"] < 600 and counts.get("failed", 0) == 0
        (problem,) = set(fleet["problem"][fleet["state"] == ""])
        assert "can't be used, no space left on device" in problem
        subprocess.run(["mount", "-o", "remount,nr_inodes=9000", small], check=True)  # there is room again
        assert len(made(make_fleet(numbered(600), ca, small / "fleet", SECRET))) == 600
        demand_whole(small / "fleet", ca, list(numbered(600)["common_name"]))
    finally:
        subprocess.run(["umount", "-l", small], check=True)


def test_a_disk_that_refuses_is_one_sentence(ca: CertificateAuthority, tmp_path: Path, monkeypatch: Any) -> None:
    """The same where nothing can be mounted: in threads, whose calls can be made to fail here."""
    monkeypatch.setattr(module, "_workers", lambda: ThreadPoolExecutor(1))
    monkeypatch.setattr(module, "BATCH", 20)
    real, count = os.write, iter(range(100_000))

    def write(descriptor: int, data: Any) -> int:
        if next(count) > 260:
            raise OSError(28, "No space left on device")
        return real(descriptor, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        fleet = make_fleet(numbered(80), ca, tmp_path / "fleet", SECRET)
    (problem,) = set(fleet["problem"][fleet["state"] == ""])
    assert "can't be used, no space left on device" in problem and "failed" not in set(fleet["state"])
    assert 0 < whole(tmp_path / "fleet") < 80
    assert len(made(make_fleet(numbered(80), ca, tmp_path / "fleet", SECRET))) == 80
    demand_whole(tmp_path / "fleet", ca, list(numbered(80)["common_name"]))


def test_one_processor_needs_no_processes(ca: CertificateAuthority, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    with module._workers() as pool:
        assert isinstance(pool, ThreadPoolExecutor)
    demand_whole(tmp_path, ca, made(make_fleet(numbered(3), ca, tmp_path, SECRET)))


# Keys that are made elsewhere -----------------------------------------------------------------------------------------


class Watched(ThreadPoolExecutor):
    """Keeps what came back, as something between here and there could."""

    seen: list[Any]

    def submit(self, *work: Any, **options: Any) -> "Future[Any]":
        future = super().submit(*work, **options)
        self.seen = [*getattr(self, "seen", []), (work[1:], future.result())]
        return future


@pytest.mark.parametrize("key_type", [KeyType.P256, KeyType.RSA_2048], ids=str)
def test_keys_that_are_made_elsewhere_travel_encrypted(
    key_type: KeyType, ca: CertificateAuthority, tmp_path: Path
) -> None:
    with Watched(2) as executor:
        fleet = make_fleet(numbered(25), ca, tmp_path, SECRET, key_type=key_type, executor=executor)
    demand_whole(tmp_path, ca, made(fleet))
    assert len(made(fleet)) == 25 and len(executor.seen) == 2
    for order, (keys, requests) in executor.seen:
        assert b"PRIVATE" not in keys and SECRET not in repr(order) and b"PRIVATE" not in repr(order).encode()
        for request in requests:
            own = x509.load_der_x509_csr(request)
            assert (own.public_key().key_size == 2048) == isinstance(own.public_key(), rsa.RSAPublicKey)  # type: ignore[union-attr]


def test_an_executor_that_fails_is_one_sentence(ca: CertificateAuthority, tmp_path: Path) -> None:
    class Failing(ThreadPoolExecutor):
        error: Exception = ModuleNotFoundError("No module named 'mciot_nb'")

        def submit(self, *work: Any, **options: Any) -> "Future[Any]":
            future: Future[Any] = Future()
            future.set_exception(self.error)
            return future

    for error in (Failing.error, BrokenExecutor("gone"), OSError("lost")):
        Failing.error = error
        with Failing(1) as executor:
            fleet = make_fleet(table(["a-1"]), ca, tmp_path, SECRET, executor=executor)
        assert fleet["state"][0] == "" and type(error).__name__ in fleet["problem"][0]
    assert ca.database.rows() == [] and made(make_fleet(table(["a-1"]), ca, tmp_path, SECRET)) == ["a-1"]


@pytest.mark.slow
def test_dask_makes_the_keys(ca: CertificateAuthority, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed", reason="pip install mciot-nb[fleet]")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        fleet = make_fleet(numbered(60), ca, tmp_path / "fleet", SECRET, executor=client.get_executor())
        assert len(made(fleet)) == 60, fleet["problem"].unique()
        demand_whole(tmp_path / "fleet", ca, made(fleet))
    requests = {path.read_bytes() for path in (tmp_path / "fleet").glob("*/deviceCsr.pem")}
    keys = [x509.load_pem_x509_csr(one).public_key() for one in requests]  # they can't be hashed
    assert len({key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) for key in keys}) == 60, (
        "no key twice"
    )


@pytest.mark.slow
def test_ipyparallel_makes_the_keys(ca: CertificateAuthority, tmp_path: Path, monkeypatch: Any) -> None:
    ipyparallel = pytest.importorskip("ipyparallel", reason="pip install mciot-nb[fleet]")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    with ipyparallel.Cluster(n=2, cluster_id="fleet", log_level=40) as client:
        fleet = make_fleet(numbered(60), ca, tmp_path / "fleet", SECRET, executor=client.executor())
        assert len(made(fleet)) == 60, fleet["problem"].unique()
        demand_whole(tmp_path / "fleet", ca, made(fleet))


# Renewed, connected, refused ------------------------------------------------------------------------------------------


def test_a_renewal_keeps_the_old_and_revokes_it(ca: CertificateAuthority, tmp_path: Path) -> None:
    folder = tmp_path / "fleet"
    old = make_fleet(table(["a-1", "a-2", "b-1"], site=["A", "A", "B"]), ca, folder, SECRET)
    before = {path.name: path.read_bytes() for path in (folder / "a-1").iterdir()}
    new = make_fleet(old[old["site"] == "A"], ca, folder, SECRET, renew="superseded")
    assert list(new["state"]) == ["made", "made"] and not set(new["serial"]) & set(old["serial"])
    assert {path.name: path.read_bytes() for path in (folder / "earlier/1/a-1").iterdir()} == before
    demand_whole(folder, ca, ["a-1", "a-2", "b-1"])
    revoked = {row.serial: row.reason for row in ca.database.rows() if row.status == "R"}
    assert revoked == dict.fromkeys([int(serial, 16) for serial in old["serial"][:2]], "superseded")
    again = make_fleet(table(["a-1", "../x"]), ca, folder, SECRET, renew="keyCompromise", key_type=KeyType.RSA_2048)
    assert list(again["state"]) == ["made", "failed"] and (folder / "earlier/2/a-1").is_dir()
    assert isinstance(read_private_key(folder / "a-1" / "deviceKey.pem", SECRET), rsa.RSAPrivateKey)
    with pytest.raises(OnboardingError) as caught:
        make_fleet(table(["b-1"]), ca, folder, SECRET, renew="bad luck")
    assert caught.value.code == "BAD_REASON" and (folder / "b-1").is_dir()


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    make_keys_quick(monkeypatch)
    workspace = Workspace(tmp_path / "workspace")
    workspace.catch_up("ca")
    yield workspace
    workspace.platform().stop()


def test_a_fleet_connects_loses_a_site_and_gets_it_back(workspace: Workspace) -> None:
    tenant, folder, own = workspace.use_profile("current").tenant, workspace.folder / "fleet", workspace.signer()
    workspace.upload_ca(tenant)
    names = [f"{site}-{number}" for site in "ab" for number in range(4)]
    devices = table(names, site=[name[0].upper() for name in names])
    fleet = make_fleet(devices, own, folder, workspace.passphrase)
    live = LiveFleet(fleet, folder, tenant, workspace.passphrase)

    def lines() -> list[list[str]]:
        return [line.split() for line in repr(live).splitlines()[1:]]

    try:
        assert lines() == [["A", "4", "4"], ["B", "4", "4"]]
        health = fleet_health(fleet, own, workspace.platform())
        assert health["connected"].all() and set(health["refused"]) == {""} and set(health["certificate"]) == {"valid"}
        wait_for(lambda: len(workspace.platform().measurements()) >= 16)
        wait_for(lambda: "A: 4 of 4 send; B: 4 of 4 send." in live.value and "<img" in live.value)
        registration = {"files": {"file": (REGISTRATION, (folder / REGISTRATION).read_bytes())}}
        path = "/devicecontrol/bulkNewDeviceRequests"
        counts = tenant.request(
            "POST", path, lambda body: (body["numberOfAll"], body["numberOfFailed"]), **registration
        )
        assert counts == (8, 0)
        live.reconnect()
        assert lines() == [["A", "4", "4"], ["B", "4", "4"]]  # the control: they come back as they are

        tenant.trusted_certificates.check_revocations()
        tenant.trusted_certificates.revoke(fleet["serial"][fleet["site"] == "A"])
        live.reconnect()
        assert lines() == [["A", "4", "0", "4", "CONNACK_5"], ["B", "4", "4"]]
        health = fleet_health(fleet, own, workspace.platform())
        assert list(health["refused"]) == ["REVOKED"] * 4 + [""] * 4
        assert "was revoked on" in health["why"][0] and list(health["connected"]) == [False] * 4 + [True] * 4
        wait_for(lambda: "A: 0 of 4 send, 4 CONNACK_5" in live.value)

        make_fleet(fleet[fleet["site"] == "A"], own, folder, workspace.passphrase, renew="superseded")
        live.reconnect()
        assert lines() == [["A", "4", "4"], ["B", "4", "4"]]
        assert list(fleet_health(fleet, own, workspace.platform())["certificate"]) == ["revoked"] * 4 + ["valid"] * 4

        tenant.trusted_certificates.update(workspace.issuer_certificate, status="DISABLED")
        live.reconnect()
        assert [line[1:3] for line in lines()] == [["4", "0"], ["4", "0"]]
        codes = set(fleet_health(fleet, own, workspace.platform())["refused"])
        assert codes == {"CA_DISABLED"}, "refused in the handshake, where no ClientId is known yet"
        second = LiveFleet(fleet, folder, tenant, workspace.passphrase)  # ends the first
        assert not any(thread.is_alive() for thread in live._threads)
        second.stop()
        assert not any(thread.is_alive() for thread in second._threads)
    finally:
        live.stop()


# From a terminal ------------------------------------------------------------------------------------------------------


def command(*arguments: object, **environment: str) -> "subprocess.CompletedProcess[str]":
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MCIOT_")}
    return subprocess.run(
        [sys.executable, "-m", "mciot_nb", "fleet", *map(str, arguments)],
        env=kept | {"PYTHONPATH": str(ROOT)} | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


def test_the_command_makes_a_fleet_and_its_exit_status_says_what_came_of_it(
    ca: CertificateAuthority, tmp_path: Path
) -> None:
    (tmp_path / "good.csv").write_text("common_name;site\na-1;Ulm\na-2;Graz\n")
    (tmp_path / "bad.csv").write_text("common_name;site\na-1;Ulm\n../x;Graz\n")
    where = ("--ca", ca.folder, "--out", tmp_path / "out")
    key = {"MCIOT_PASSPHRASE": PASSPHRASE, "MCIOT_DEVICE_PASSPHRASE": SECRET}
    done = command(tmp_path / "good.csv", *where, "--keystores", "jks,pkcs12", "--days", 30, **key)
    assert done.returncode == 0 and "✓ line 2: a-1: made, serial 1000" in done.stdout, done.stderr
    assert f"{tmp_path / 'out'}: 2 made, 0 kept, 0 failed, 0 not made." in done.stdout
    demand_whole(tmp_path / "out", ca, ["a-1", "a-2"], FILES | {"deviceKeystore.jks"})
    assert KeyChoice.of(read_certificates(tmp_path / "out/a-1/deviceCert.pem")[0]) == KeyChoice(KeyType.P256, 30)

    done = command(tmp_path / "bad.csv", *where, "--json", **key)
    summary = json.loads(done.stdout)
    assert done.returncode == 1 and (summary["made"], summary["kept"], summary["failed"]) == (0, 1, 1)
    assert [(one["line"], one["common_name"]) for one in summary["problems"]] == [(3, "../x")]
    assert "'../x' can't be" in command(tmp_path / "bad.csv", *where, **key).stdout

    for arguments, environment, said in (
        ((tmp_path / "no.csv", *where), key, "NO_FILE"),
        ((tmp_path / "good.csv", *where), {}, "NEED_PASSPHRASE"),
        ((tmp_path / "good.csv", *where), {"MCIOT_PASSPHRASE": "wrong one"}, "WRONG_PASSPHRASE"),
        ((tmp_path / "good.csv", *where, "--days", "0"), key, "BAD_DAYS"),
        ((tmp_path / "good.csv", *where, "--key", "dsa"), key, "invalid choice"),
        ((tmp_path / "good.csv", "--ca", tmp_path, "--out", tmp_path / "out"), key, "NO_FILE"),
    ):
        done = command(*arguments, **environment)
        assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr, done.stderr
    ca_alone = command(tmp_path / "good.csv", "--ca", ca.folder, "--out", tmp_path / "x", MCIOT_PASSPHRASE=PASSPHRASE)
    assert ca_alone.returncode == 2 and "BAD_PASSPHRASE" in ca_alone.stderr, "Java could not open these stores"
    if os.name != "nt":  # a scheduler may give no standard input at all
        words = [sys.executable, "-m", "mciot_nb", "fleet", str(tmp_path / "good.csv"), *map(str, where)]
        shell = ["sh", "-c", 'exec "$@" <&-', "sh", *words]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MCIOT_")}
        closed = subprocess.run(shell, env=kept | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
        assert closed.returncode == 2 and "NEED_PASSPHRASE" in closed.stderr and "Traceback" not in closed.stderr


def test_no_secret_is_shown_or_left_behind(ca: CertificateAuthority, tmp_path: Path) -> None:
    (tmp_path / "devices.csv").write_text("common_name\na-1\nb:2\n")
    key = {"MCIOT_PASSPHRASE": PASSPHRASE, "MCIOT_DEVICE_PASSPHRASE": SECRET}
    done = command(tmp_path / "devices.csv", "--ca", ca.folder, "--out", tmp_path / "out", "--json", **key)
    assert done.returncode == 1
    fleet = make_fleet(tmp_path / "devices.csv", ca, tmp_path / "out", SECRET)
    work = module._Work(tmp_path, KeyType.P256, SECRET, (), b"", b"-----BEGIN PRIVATE KEY-----")
    for text in (done.stdout, done.stderr, fleet.to_csv(), repr(work)):
        assert SECRET not in text and PASSPHRASE not in text and "PRIVATE" not in text
    for path in tmp_path.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert SECRET.encode() not in data and b"BEGIN PRIVATE KEY" not in data and b"RSA PRIVATE" not in data
            if os.name == "posix" and re.search(r"Key|\.jks|\.pkcs12", path.name):
                assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_the_sample_is_a_fleet_of_some_forty_machines() -> None:
    rows = read_devices(ROOT / "data" / "fleet.csv")
    assert len(rows) == 40 and all(row["state"] == "" for row in rows) and len({row["site"] for row in rows}) == 4
    with (ROOT / "data" / "fleet.csv").open(newline="") as text:
        assert next(csv.reader(text)) == ["common_name", "site", "model", "serial_number"]
    assert len({row["serial_number"] for row in rows}) == 40
