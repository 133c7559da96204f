"""After the first day: a device that measures while it is renewed and moved, what expires next, and crashes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import icalendar
import pandas as pd
import pytest
from ca_tools import request
from conftest import PASSPHRASE, ROOT, Run, make_keys_quick
from platform_tools import wait_for
from test_crash import points

from mciot_nb import (
    CertificateAuthority,
    Device,
    DistinguishedName,
    KeyChoice,
    KeyType,
    LocalPlatform,
    OnboardingError,
    SigningPanel,
    Tenant,
    TrustedCertificatesPanel,
    Workspace,
    calendar,
    diagnose,
    diagnose_device,
    expiring,
    expiry_picture,
    read_certificates,
    read_key,
    to_pem,
)
from mciot_nb.archive import RENEWAL, RENEWED
from mciot_nb.pki.keys import read_private_key, read_request
from mciot_nb.pki.rows import hex_serial

NEW_KEY = KeyChoice(KeyType.P256, days=90)


class MeasuringDevice:
    """A device that measures twice a second, and changes its certificate between two measurements."""

    def __init__(self, device: Device) -> None:
        self.device, self.acknowledged, self.connections, self._stop = device, 0, 0, threading.Event()
        self.problem: OnboardingError | None = None
        self._turn, self._thread = threading.Lock(), threading.Thread(target=self._measure)

    def change(self, device: Device) -> None:
        """Reconnect as another one, and wait for the next measurement."""
        with self._turn:
            self.device.disconnect()
            device.connect()
            self.device, self.connections, before = device, self.connections + 1, self.acknowledged
        wait_for(lambda: self.acknowledged > before or self.problem)

    def _measure(self) -> None:
        while not self._stop.wait(0.5):
            with self._turn:
                try:
                    self.device.measure("c8y_Temperature", "T", self.acknowledged, "C")
                    self.acknowledged += 1
                except OnboardingError as error:  # which ends it: no reconnect is hidden
                    self.problem = error
                    return

    @contextmanager
    def running(self, tenant: Tenant, reconnects: int) -> Iterator[None]:
        """Measure through the block; then all that was acknowledged is in the tenant, with so many reconnects."""
        before = len(tenant.devices.measurements(self.device.client_id, limit=9999))
        self._thread.start()
        try:
            self.change(self.device)
            yield
        finally:
            self._stop.set()
            self._thread.join()
            self.device.disconnect()
        assert self.problem is None and self.connections == 1 + reconnects
        arrived = tenant.devices.measurements(self.device.client_id, limit=9999)["value"].tolist()[before:]
        assert arrived == list(range(self.acknowledged)) and self.acknowledged > reconnects


@pytest.fixture
def workspace(quick_workspace: Workspace) -> Workspace:
    """A workspace with a device that its tenant of today's rules has seen."""
    quick_workspace.catch_up("upload")
    quick_workspace.use_profile("current")
    with quick_workspace.device(quick_workspace.tenant()) as device:
        device.create()
    return quick_workspace


def refused(device: Device, code: str) -> None:
    with pytest.raises(OnboardingError) as caught:
        device.connect()
    assert caught.value.code == code


def device_with(workspace: Workspace, chain: list[object]) -> Device:
    path = workspace.folder / "other-chain.pem"
    path.write_bytes(to_pem(chain))  # type: ignore[arg-type]
    files = {"chain": path, "key": workspace.device_file("deviceKey.pem")}
    tenant = workspace.tenant()
    trusted = workspace.trusted_file(tenant)
    return Device(*tenant.mqtt, passphrase=workspace.passphrase, trusted=trusted, **files)


def test_a_device_measures_through_its_renewals(workspace: Workspace) -> None:
    tenant = workspace.tenant()
    tenant.trusted_certificates.check_revocations()
    old, first = workspace.device(tenant), workspace.certificate("device")
    measuring = MeasuringDevice(workspace.device(tenant))
    with measuring.running(tenant, reconnects=2):
        same = workspace.renew_device()
        with pytest.raises(OnboardingError, match="no other way in") as caught:  # it still shows the old one
            workspace.supersede_device(measuring.device, tenant)
        assert caught.value.code == "NOT_SEEN" and tenant.trusted_certificates.revoked() == []
        measuring.change(workspace.device(tenant))
        assert "from now on" in workspace.supersede_device(measuring.device, tenant)
        new = workspace.renew_device(NEW_KEY)
        measuring.change(workspace.device(tenant))
        workspace.supersede_device(measuring.device, tenant)
    assert first.public_key() == same.public_key() != new.public_key()
    assert KeyChoice.of(same) == KeyChoice.of(first) and KeyChoice.of(new) == NEW_KEY
    rows = {row.serial: (row.status, row.reason) for row in workspace.ca().database.rows()}
    superseded = dict.fromkeys((first.serial_number, same.serial_number), ("R", "superseded"))
    assert rows == superseded | {new.serial_number: ("V", "")}
    assert set(tenant.trusted_certificates.revoked()) == set(superseded)
    refused(old, "CONNACK_5")
    assert workspace.platform().log().iloc[-1]["code"] == "REVOKED"
    assert not workspace.verified().left, "chain and keystores are those of the new one"
    kept = workspace.folder / "earlier" / "1" / "caCertificate" / "deviceCertificates"
    assert read_certificates(kept / "deviceCert.pem") == [first]
    assert not (kept / "deviceKey.pem").exists() and (kept / "deviceKeystore.jks").stat().st_mode & 0o777 == 0o600
    kept = kept.parents[2] / "2" / "caCertificate" / "deviceCertificates"
    assert read_private_key(kept / "deviceKey.pem", workspace.passphrase).public_key() == same.public_key()


def test_a_list_that_nobody_checks_has_no_effect(workspace: Workspace) -> None:
    tenant, old = workspace.tenant(), workspace.device(workspace.tenant())
    workspace.renew_device()
    with workspace.device(tenant) as device:
        assert "no effect yet" in workspace.supersede_device(device, tenant)
    old.connect()
    old.disconnect()
    tenant.trusted_certificates.check_revocations()
    refused(old, "CONNACK_5")


def test_a_lost_key_is_not_renewed(workspace: Workspace) -> None:
    workspace.ca().revoke(workspace.certificate("device"), "keyCompromise")
    with pytest.raises(OnboardingError, match="ask for a new key") as caught:
        workspace.renew_device()
    assert caught.value.code == "KEY_LOST"
    assert workspace.renew_device(NEW_KEY) == workspace.certificate("device")


def test_openssl_goes_on_where_we_allowed_one_subject_twice(workspace: Workspace, openssl: Run) -> None:
    ca, secret = workspace.ca(), f"pass:{workspace.passphrase.reveal()}"
    csr, attributes = workspace.device_file("deviceCsr.pem"), ca.database.attributes_path
    sign = ["ca", "-batch", "-config", ca.config.path, "-passin", secret, "-notext", "-extensions", "v3_signed"]
    sign += ["-in", csr, "-out", ca.folder.parent / "out.pem"]
    assert "There is already a certificate" in openssl(*sign, check=False).stderr
    workspace.renew_device()
    openssl(*sign)
    assert attributes.read_text() == "unique_subject = no\n"
    subjects = [row.subject for row in ca.database.rows() if row.status == "V"]
    assert len(subjects) == 3 and len(set(subjects)) == 1
    openssl("ca", "-config", ca.config.path, "-passin", secret, "-gencrl", "-out", ca.folder.parent / "crl.pem")


def next_root(workspace: Workspace, name: str = "Next Root") -> CertificateAuthority:
    subject = DistinguishedName("DE", "Bavaria", "Munich", "Example Company", common_name=name)
    made = CertificateAuthority.create(workspace.folder / name, subject, PASSPHRASE, key_type=KeyType.P256)
    (made.folder / "serial").write_text("A000\n")
    return made


def test_a_device_measures_through_a_new_root_a_bridge_and_a_new_intermediate(workspace: Workspace) -> None:
    tenant, old, new = workspace.tenant(), workspace.ca(), next_root(workspace)
    csr = read_request(workspace.device_file("deviceCsr.pem"))
    moved, cross = new.sign(csr), old.cross_sign(new)
    assert cross.subject == new.certificate.subject, "with the locality, which the policy drops"
    assert old.cross_sign(new) == cross, "found, not signed again"
    below = new.create_intermediate(workspace.folder / "below", DistinguishedName(common_name="Below"), PASSPHRASE)
    chains = [
        [moved, cross, old.certificate],  # the new root is not uploaded yet
        [moved, new.certificate],
        [below.sign(csr), below.certificate, new.certificate],
    ]
    refused(device_with(workspace, chains[1]), "ALERT_UNKNOWN_CA")  # type: ignore[arg-type]
    measuring = MeasuringDevice(workspace.device(tenant))
    with measuring.running(tenant, reconnects=3):
        measuring.change(device_with(workspace, chains[0]))  # type: ignore[arg-type]
        tenant.trusted_certificates.ensure(new.certificate)
        measuring.change(device_with(workspace, chains[1]))  # type: ignore[arg-type]
        tenant.trusted_certificates.delete(old.certificate)
        measuring.change(device_with(workspace, chains[2]))  # type: ignore[arg-type]
    refused(workspace.device(tenant), "ALERT_UNKNOWN_CA")


def test_openssl_follows_the_bridge_from_either_root(workspace: Workspace, openssl: Run, tmp_path: Path) -> None:
    old, new = workspace.ca(), next_root(workspace)
    moved, cross = new.sign(request("device-9")), old.cross_sign(new)
    files = {"old": old.certificate, "new": new.certificate, "moved": moved, "cross": cross}
    for name, one in files.items():
        (tmp_path / f"{name}.pem").write_bytes(to_pem([one]))
    path = {name: tmp_path / f"{name}.pem" for name in files}
    for root in ("old", "new"):
        openssl("verify", "-CAfile", path[root], "-untrusted", path["cross"], path["moved"])
        assert diagnose([moved, cross], [files[root]]).ok
    assert openssl("verify", "-CAfile", path["old"], path["moved"], check=False).returncode
    assert diagnose([moved], [old.certificate]).code == "UNKNOWN_CA"


def test_a_serial_number_of_the_old_ca_counts_against_a_new_one(workspace: Workspace) -> None:
    """Why 09 lets a new CA begin at another number: the tenant's list does not say whose a number is."""
    tenant, new = workspace.tenant(), next_root(workspace)
    tenant.trusted_certificates.ensure(new.certificate)
    tenant.trusted_certificates.check_revocations()
    (new.folder / "serial").write_text("1000\n")
    csr = read_request(workspace.device_file("deviceCsr.pem"))
    own = device_with(workspace, [new.sign(csr), new.certificate])
    with own:
        tenant.trusted_certificates.revoke(workspace.certificate("device"))
    refused(own, "CONNACK_5")


def test_below_an_intermediate_the_issuers_own_number_is_not_told(quick_workspace: Workspace) -> None:
    workspace = quick_workspace
    workspace.choose_issuer("intermediate")
    workspace.catch_up("upload")
    tenant, old = workspace.use_profile("current").tenant, workspace.certificate("device")
    assert old.serial_number == workspace.issuer_certificate.serial_number, "each CA of the guide begins with 1000"
    tenant.trusted_certificates.check_revocations()
    workspace.renew_device()
    with workspace.device(tenant) as device:
        assert "The tenant was not told of 1000: the issuer itself" in workspace.supersede_device(device, tenant)
    with workspace.device(tenant):
        assert tenant.trusted_certificates.revoked() == []
    tenant.trusted_certificates.revoke(old)  # the control
    refused(workspace.device(tenant), "CONNACK_5")


def test_a_device_measures_through_its_enrolment_again(workspace: Workspace) -> None:
    tenant = workspace.tenant()
    tenant.own_ca.turn_on()
    tenant.own_ca.create()
    measuring = MeasuringDevice(workspace.enrol(tenant, "device-7", tenant.own_ca.register("device-7")))
    with measuring.device as device:
        device.create()
    with measuring.running(tenant, reconnects=1):
        before = measuring.device.certificate
        measuring.change(workspace.enrol(tenant, "device-7", measuring.device.token(), again=True))
        assert measuring.device.certificate != before
    panel = TrustedCertificatesPanel(workspace, tenant)
    panel.wait()
    names = {row[1]: row[0] for row in panel.table.rows}
    own = next(name for name in names if "the tenant's own CA" in name)
    assert len(names) == 2 and own
    for name, warned in ((own, True), ("Example Root CA", False)):
        panel.table.set_state({"opened": names[name]})
        panel.buttons["delete"].click()
        assert ("enrolled again" in panel._question.children[0].value) is warned
        panel._question.children[-1].click()


def test_a_stale_list_is_named_and_the_platform_does_not_mind(workspace: Workspace) -> None:
    tenant, folder = workspace.tenant(), workspace.device_file("")
    workspace.ca().update_crl(days=1)
    assert "CRL_EXPIRED" not in {one.code for one in diagnose_device(folder, passphrase=workspace.passphrase).findings}
    workspace.ca().update_crl(days=1, at=datetime.now(UTC) - timedelta(days=2))
    found = diagnose_device(folder, tenant, passphrase=workspace.passphrase)
    assert found.ok and "CRL_EXPIRED" in {one.code for one in found.findings}
    assert "CRL_EXPIRED" in {one.code for one in workspace.ca().check().findings}
    assert expiring(workspace).iloc[0][["kind", "days"]].tolist() == ["CRL", -1]
    workspace.device(tenant).connect()


def test_the_signing_panel_renews_and_suggests_superseded(workspace: Workspace) -> None:
    panel, first = SigningPanel(workspace), workspace.certificate("device")
    renew, tell = panel.own.children
    renew.click()
    panel._question.children[-2].click()
    panel.wait()
    new = workspace.certificate("device")
    assert new != first and f"✓ {hex_serial(new.serial_number)} is signed" in panel._message.value
    panel.poll()
    for serial, reason in ((new.serial_number, ""), (first.serial_number, "superseded")):
        panel.table.set_state({"opened": hex_serial(serial)})
        assert panel._reason.value == reason
    workspace.ca().revoke(first, "superseded")
    tell.click()
    panel.wait()
    assert workspace.tenant().trusted_certificates.revoked() == [first.serial_number]


def test_what_expires_next_is_listed_by_its_end(workspace: Workspace, tmp_path: Path) -> None:
    first = workspace.certificate("device")
    workspace.renew_device(NEW_KEY)
    assert list(expiring(workspace)["days"]) == sorted(expiring(workspace)["days"])
    of_device = expiring(workspace).query("name == 'device-0001'")
    assert sorted(of_device["days"]) == [90, 365], "the old one is valid still"
    assert "caCertificate/deviceCertificates/deviceCert.pem" in set(of_device["where"])
    with workspace.device(workspace.tenant()) as device:
        workspace.supersede_device(device, workspace.tenant())
    found = expiring(workspace)
    assert [*found.query("name == 'device-0001'")["days"]] == [90], "revoked, and its copies in earlier do not count"
    assert {*found["kind"]} == {"CRL", "certificate", "CA"} and found["where"].is_unique
    assert found.loc[found["kind"] == "CA", "where"].tolist() == ["caCertificate/caCert.pem"]
    (tmp_path / "any").mkdir()
    shutil.copy(workspace.folder / "earlier/1/caCertificate/deviceCertificates/deviceCert.pem", tmp_path / "any/x.crt")
    (tmp_path / "any" / "broken.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    assert expiring(tmp_path / "any")[["name", "where"]].to_numpy().tolist() == [["device-0001", "x.crt"]]
    trusted = expiring(workspace.tenant())
    assert trusted[["name", "kind", "days"]].to_numpy().tolist() == [["Example Root CA", "trusted certificate", 7300]]
    gone = expiring(tmp_path / "any", at=first.not_valid_after_utc + timedelta(seconds=1))
    assert gone["days"].tolist() == [0] and "✗ expired" in repr(expiry_picture(gone))
    assert "⚠ 1 day;" in repr(expiry_picture(pd.concat([expiring(tmp_path / "any").assign(days=1), found])))
    (tmp_path / "empty").mkdir()
    assert repr(expiry_picture(expiring(tmp_path / "empty"))) == "What expires next: nothing."


def test_the_calendar_is_read_by_others(tmp_path: Path) -> None:
    names = ["Plain", "Fühler; Halle 3, Tor \\1", "ü€😀" * 21, "two\r\nlines", "x" * 64]
    end = datetime(2031, 3, 30, 1, 30, tzinfo=UTC)
    rows = {str(n): (name, "CA", 99, end + timedelta(n), "a/b.pem") for n, name in enumerate(names)}
    frame = pd.DataFrame(rows.values(), index=[*rows], columns=["name", "kind", "days", "expires", "where"])
    data = calendar(frame, tmp_path / "a.ics").read_bytes()
    assert data.count(b"\n") == data.count(b"\r\n") == data.count(b"\r")
    assert max(map(len, data.split(b"\r\n"))) <= 75 and all(line.decode() for line in data.split(b"\r\n")[:-1])
    book = icalendar.Calendar.from_ical(data)
    assert book.errors == [] and {"VERSION", "PRODID"} <= set(book)
    events = book.walk("VEVENT")
    assert [str(event["SUMMARY"]) for event in events] == [f"{name} expires (CA)".replace("\r", "") for name in names]
    assert [event.decoded("DTSTART") for event in events] == [row[3] for row in rows.values()]
    assert all(event.errors == [] and "DTSTAMP" in event for event in events)
    assert {alarm.decoded("TRIGGER") for alarm in book.walk("VALARM")} == {timedelta(days=-30)}
    again = icalendar.Calendar.from_ical(calendar(frame, tmp_path / "a.ics").read_bytes())
    uids = [str(event["UID"]) for event in events]
    assert uids == [str(event["UID"]) for event in again.walk("VEVENT")] and len(set(uids)) == len(names)


# -- killed at every change of a file

RENEWING = """
import sys
from pathlib import Path
from crash_child import Killer, say
from mciot_nb import KeyChoice, KeyType, Workspace
workspace = Workspace(Path(sys.argv[1]))
workspace.signer()
killer = Killer(sys.argv[2], int(sys.argv[3]))
killer.arm()
workspace.renew_device(KeyChoice(KeyType.P256, days=90) if sys.argv[4] == "new" else None)
killer.disarm()
say(calls=killer.calls, escaped=killer.escaped)
"""


def renew_in_a_child(folder: Path, mode: str, point: int, key: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    command = [sys.executable, "-c", RENEWING, str(folder), mode, str(point), key]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Workspace, Tenant]]:
    with pytest.MonkeyPatch.context() as patch:
        make_keys_quick(patch)
        workspace = Workspace(tmp_path_factory.mktemp("made") / "workspace")
        workspace.catch_up("upload")
        platform: LocalPlatform = workspace.platform()
        yield workspace, platform.tenant
        platform.stop()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="SIGKILL and the order of these calls are those of POSIX")
@pytest.mark.parametrize("key", ["same", "new"])
def test_killed_at_any_point_the_device_is_the_old_one_or_the_new(
    made: tuple[Workspace, Tenant], key: str, tmp_path: Path
) -> None:
    workspace, tenant = made
    old, seen = workspace.certificate("device"), set[bool]()

    def copy(name: str) -> Path:
        ignored, folder = shutil.ignore_patterns("platform"), tmp_path / name / "workspace"
        shutil.copytree(workspace.folder, folder, ignore=ignored)
        CertificateAuthority.relocate(folder / "caCertificate")
        return folder

    counted = renew_in_a_child(copy("count"), "count", 0, key)
    assert counted.returncode == 0, counted.stderr
    report = json.loads(counted.stdout.splitlines()[-1])
    assert report["escaped"] == []
    assert len(report["calls"]) > 50
    for point in points(report["calls"]):
        folder = copy(str(point).replace(" ", "-"))
        killed = renew_in_a_child(folder, point.when, point.number, key)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        there = Workspace(folder)  # as the next notebook opens it
        now = there.certificate("device")
        seen.add(now == old)
        with there.device(tenant) as device:
            assert device.certificate == now
        for kind in ("pkcs12", "jks"):
            own, chain = read_key(there.device_file(f"deviceKeystore.{kind}"), there.passphrase)
            assert chain[0] == now and own.public_key() == now.public_key()
        new = there.renew_device(NEW_KEY if key == "new" else None)
        with there.device(tenant) as device:
            assert device.certificate == new == there.certificate("device") != old
        serials = [row.serial for row in there.ca().database.rows()]
        known = set(serials)
        assert len(known) == len(serials) and known == {int(path.stem, 16) for path in folder.rglob("dev*/[1-9]*.pem")}
        assert {old.serial_number, new.serial_number} <= known and len(known) <= 2 + (now != old)
        assert not any((there.device_file(name)).exists() for name in (RENEWAL, RENEWED))
        shutil.rmtree(folder.parent)
    assert seen == {True, False}, "some points are before the change, and some behind it"
