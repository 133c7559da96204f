"""The kind of key and the days are a choice like the subject: found again where they are the same, else made anew."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from ca_tools import ca_of_openssl
from conftest import PASSPHRASE, Run
from test_workspace import again, contents

from mciot_nb import CertificateAuthority, DistinguishedName, KeyChoice, KeyType, OnboardingError, Workspace
from mciot_nb.archive import Archive
from mciot_nb.pki.chain import read_certificates, to_pem
from mciot_nb.pki.config import CA_DAYS
from mciot_nb.pki.keys import read_private_key
from mciot_nb.workspace import DEFAULTS

CA, BELOW = DistinguishedName(common_name="CA"), DistinguishedName(common_name="Below")
DEVICE, OTHER = DistinguishedName(common_name="device"), DistinguishedName(common_name="other")
CURVE, RSA = KeyType.P256, KeyType.RSA_2048  # a quick workspace takes the first unless told


@pytest.fixture
def workspace(quick_workspace: Workspace) -> Workspace:
    return quick_workspace


def run_all(workspace: Workspace) -> None:
    """Do what notebooks 01 to 05 do, with what their forms offer."""
    workspace.create_ca(workspace.subject("ca"), workspace.key_choice("ca"))
    workspace.create_intermediate(workspace.subject("intermediate"), workspace.key_choice("intermediate"))
    choice = workspace.key_choice("device")
    workspace.create_device_request(workspace.subject("device"), choice)
    workspace.sign_device_request(choice)
    workspace.catch_up("chain")


def device(workspace: Workspace, subject: DistinguishedName = DEVICE, key: KeyChoice | None = None) -> None:
    workspace.create_device_request(subject, key)
    workspace.sign_device_request(key)


def archived(workspace: Workspace) -> list[str]:
    return sorted(path.name for path in (workspace.folder / "earlier").glob("*"))


# The CA --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", [KeyChoice(RSA, CA_DAYS), KeyChoice(CURVE, 100)])
def test_another_key_or_other_days_make_the_ca_anew(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], other: KeyChoice
) -> None:
    first = workspace.create_ca(CA).certificate
    assert workspace.key_choice("ca") == KeyChoice.of(first) == KeyChoice(CURVE, CA_DAYS)
    for same in (None, KeyChoice(CURVE, CA_DAYS)):
        assert again(workspace).create_ca(CA, same).certificate == first
    assert capsys.readouterr().out == ""
    second = workspace.create_ca(CA, other)
    assert KeyChoice.of(second.certificate) == other
    old = workspace.folder / "earlier" / "1" / "caCertificate"
    assert read_certificates(old / "caCert.pem") == [first] and (old / "caKey.pem").exists()
    said = "Moved the CA that was here, and everything made with it, to workspace/earlier/1.\n"
    assert capsys.readouterr().out == said
    for same in (None, other):
        assert again(workspace).create_ca(CA, same).certificate == second.certificate
    assert archived(workspace) == ["1"] and capsys.readouterr().out == ""


def test_a_ca_with_a_key_that_we_would_not_make_stays(
    workspace: Workspace, openssl: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MCIOT_PASSPHRASE", PASSPHRASE)
    ca_of_openssl(workspace.ca_folder)
    key, certificate = workspace.ca_folder / "caKey.pem", workspace.ca_folder / "caCert.pem"
    curve = ["EC", "-pkeyopt", "ec_paramgen_curve:P-384"]
    openssl("genpkey", "-aes256", "-pass", "env:PASS", "-algorithm", *curve, "-out", key)
    made = ["-key", key, "-passin", "env:PASS", "-new", "-x509", "-days", 99, "-extensions", "v3_ca", "-subj", "/CN=CA"]
    openssl("req", "-config", workspace.ca_folder / "caConfig.cnf", *made, "-out", certificate)
    choice = workspace.key_choice("ca")
    assert choice == KeyChoice(None, 99)
    assert workspace.create_ca(CA, choice).folder == workspace.ca_folder
    before = contents(workspace)
    for make in (workspace.create_intermediate, workspace.create_device_request):
        with pytest.raises(OnboardingError, match="no key type None here"):
            make(BELOW, choice.changed(days=9))
    assert contents(workspace) == before and not archived(workspace)


@pytest.mark.parametrize("bad", [KeyChoice(1024, 9), KeyChoice(CURVE, 0), KeyChoice(CURVE, 36501)])  # type: ignore[arg-type]
def test_a_choice_that_can_not_be_moves_nothing(workspace: Workspace, bad: KeyChoice) -> None:
    workspace.catch_up("intermediate")
    workspace.catch_up("device")
    before = contents(workspace)
    made: list[Callable[[], object]] = [
        lambda: workspace.create_ca(workspace.subject("ca"), bad),
        lambda: workspace.create_intermediate(workspace.subject("intermediate"), bad),
        lambda: workspace.create_intermediate(BELOW, bad),
        lambda: device(workspace, workspace.subject("device"), bad),
    ]
    for make in made:
        with pytest.raises(OnboardingError, match=r"ask for that|give one of KeyType|already a certificate"):
            make()
    assert contents(workspace) == before and not archived(workspace)


# All of them ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("choice", [KeyChoice(CURVE, 100), KeyChoice(RSA, CA_DAYS)])
def test_run_all_moves_nothing_whatever_was_chosen(
    workspace: Workspace, choice: KeyChoice, capsys: pytest.CaptureFixture[str]
) -> None:
    less = choice.changed(days=min(choice.days - 1, 50))
    workspace.create_ca(CA, choice)
    workspace.create_intermediate(BELOW, less)
    device(workspace, DEVICE, less)
    workspace.create_chain()
    before = contents(workspace)
    for _ in range(2):
        run_all(again(workspace))
        again(workspace).catch_up("intermediate")
    assert contents(workspace) == before and capsys.readouterr().out == ""
    assert workspace.key_choice("intermediate") == workspace.key_choice("device") == less


def test_below_a_ca_of_few_days_everything_is_made_with_what_it_has_left(workspace: Workspace) -> None:
    assert not any(workspace.key_choice(owner).days < 365 for owner in DEFAULTS), "the control"
    assert not any(workspace.folder.iterdir()), "looking makes nothing"
    workspace.create_ca(CA, KeyChoice(CURVE, 100))
    for _ in range(2):
        assert workspace.key_choice("intermediate") == workspace.key_choice("device") == KeyChoice(CURVE, 99)
        run_all(workspace)
    before = contents(workspace)
    with pytest.raises(OnboardingError, match="would outlive its CA") as error:
        workspace.create_intermediate(OTHER, KeyChoice(CURVE, 101))
    assert error.value.code == "OUTLIVES_CA" and contents(workspace) == before


def test_every_kind_of_key_goes_all_the_way_to_a_connected_device(workspace: Workspace) -> None:
    workspace.create_ca(CA, KeyChoice(CURVE, 100))
    device(workspace, DEVICE, KeyChoice(RSA, 9))
    workspace.catch_up("upload")
    with workspace.device(workspace.tenant()) as connected:
        connected.publish("100,device,c8y_MQTTDevice")
    assert workspace.platform().log().iloc[-1]["code"] == "CONNECTED"
    kinds = [KeyType.of(certificate) for certificate in read_certificates(workspace.device_file("deviceCertChain.pem"))]
    assert kinds == [RSA, CURVE] and workspace.create_keystore("jks").exists()


# The intermediate ----------------------------------------------------------------------------------------------------


def test_another_intermediate_of_the_same_name_waits_for_the_old_one_to_be_revoked(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace.create_ca(CA)
    first = workspace.create_intermediate(BELOW).certificate
    before, new = contents(workspace), KeyChoice(RSA, 100)
    for other in (new, KeyChoice(CURVE, 100)):
        with pytest.raises(OnboardingError, match="with serial 1000: revoke that one first") as error:
            workspace.create_intermediate(BELOW, other)
        assert error.value.code == "SUBJECT_TAKEN"
    assert contents(workspace) == before and capsys.readouterr().out == ""
    workspace.ca().revoke(first, "superseded")
    second = workspace.create_intermediate(BELOW, new).certificate
    assert KeyChoice.of(second) == new and archived(workspace) == ["1"]
    with pytest.raises(OnboardingError, match="serial 1001: revoke that one first"):
        workspace.create_intermediate(BELOW, KeyChoice.of(first))  # the archive gives nothing back


def begin(ca: CertificateAuthority, workspace: Workspace, key: KeyType) -> bytes:
    """Leave an intermediate in its place that was stopped before it was signed; returns its key."""
    folder = workspace.intermediate_folder
    ca.create_intermediate(folder, BELOW, workspace.passphrase, key_type=key)
    (folder / "intermediateCert.pem").unlink()
    ca.database.path.write_bytes(b"")
    (ca.folder / "deviceCertificates" / "1000.pem").unlink()
    return (folder / "intermediateKey.pem").read_bytes()


@pytest.mark.parametrize("asked", [CURVE, RSA])
def test_an_intermediate_that_was_begun_is_gone_on_with_or_archived(workspace: Workspace, asked: KeyType) -> None:
    begun = begin(workspace.create_ca(CA), workspace, CURVE)
    assert workspace.key_choice("intermediate").key_type == CURVE
    made = workspace.create_intermediate(BELOW, KeyChoice(asked, 100))
    assert KeyType.of(made.certificate) == asked and archived(workspace) == ([] if asked == CURVE else ["1"])
    assert begun in [path.read_bytes() for path in workspace.folder.rglob("intermediateKey.pem")]


def stop(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def fill_the_disk(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("where", "how", "error"),
    [
        ("mciot_nb.pki.keys.ec.generate_private_key", stop, KeyboardInterrupt),
        ("mciot_nb.pki.authority.CertificateAuthority.sign_many", stop, KeyboardInterrupt),
        ("mciot_nb.pki.files._write_and_sync", fill_the_disk, OnboardingError),
        ("mciot_nb.workspace.write_whole", fill_the_disk, OSError),  # signed, and not yet in its place
    ],
)
def test_an_intermediate_that_fails_leaves_the_old_one_in_its_place(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, where: str, how: Callable[..., None], error: type
) -> None:
    def there() -> dict[str, bytes]:
        return {name: data for name, data in contents(workspace).items() if "/intermediateCertificate/" in name}

    ca = workspace.create_ca(CA)
    workspace.create_intermediate(BELOW)
    before = there()
    with monkeypatch.context() as failing, pytest.raises(error):
        failing.setattr(where, how)
        workspace.create_intermediate(OTHER)
    assert there() == before and workspace.subject("intermediate") == BELOW
    if any(row.subject == "/CN=other" for row in ca.database.rows()):
        assert list(workspace.folder.glob(".new-intermediate/intermediateKey.pem")), "no certificate without its key"
    assert workspace.create_intermediate(OTHER).certificate.subject == OTHER.to_x509()
    assert len(ca.database.rows()) == 2 and not list(workspace.folder.glob(".new-*"))


def test_an_intermediate_that_was_signed_comes_to_its_place_after_a_stop(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca, move = workspace.create_ca(CA), Archive.move
    workspace.create_intermediate(BELOW)

    def move_and_stop(archive: Archive, paths: list[Path], what: str) -> None:
        move(archive, paths, what)
        if workspace.intermediate_folder in paths:
            raise KeyboardInterrupt

    with monkeypatch.context() as failing, pytest.raises(KeyboardInterrupt):
        failing.setattr(Archive, "move", move_and_stop)
        workspace.create_intermediate(OTHER)
    assert not workspace.has_intermediate and archived(workspace) == ["1"]
    assert workspace.create_intermediate(OTHER).certificate.serial_number == ca.database.rows()[-1].serial == 0x1001
    with monkeypatch.context() as failing, pytest.raises(KeyboardInterrupt):
        failing.setattr("mciot_nb.workspace.with_dir", stop)
        ca.revoke(0x1000, "superseded")
        workspace.create_intermediate(BELOW, KeyChoice(RSA, 9))
    workspace.start_over()  # a draft of another passphrase must not be gone on with
    assert not list(workspace.folder.glob(".new-*"))
    workspace.create_ca(CA)
    assert workspace.create_intermediate(BELOW, KeyChoice(RSA, 9)).certificate.subject == BELOW.to_x509()


def test_what_could_be_archived_before_a_stop_is_said(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace.create_ca(CA)
    rename = Path.rename

    def rename_but_for_one(path: Path, new: Path) -> Path:
        if path.name == "issuer":
            raise PermissionError(13, "Permission denied", str(path))
        return rename(path, new)

    (workspace.folder / "issuer").write_text("ca")
    monkeypatch.setattr(Path, "rename", rename_but_for_one)
    with pytest.raises(OnboardingError, match="issuer can't be used"):
        workspace.start_over()
    assert capsys.readouterr().out == "Moved everything that was made to workspace/earlier/1.\n"
    assert (workspace.folder / "earlier" / "1" / "caCertificate" / "caKey.pem").exists()


# The device ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("subject", "key_type"), [(OTHER, CURVE), (OTHER, RSA)])
@pytest.mark.parametrize("where", ["mciot_nb.workspace.create_key", "mciot_nb.workspace.create_request"])
def test_another_device_archives_the_old_one_unless_it_is_cancelled(
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    subject: DistinguishedName,
    key_type: KeyType,
    where: str,
) -> None:
    workspace.create_ca(CA)
    device(workspace)
    before, choice, path = contents(workspace), KeyChoice(key_type, 9), workspace.device_file("deviceKey.pem")
    old = path.read_bytes()
    with monkeypatch.context() as cancelled, pytest.raises(KeyboardInterrupt):
        cancelled.setattr(where, stop)
        workspace.create_device_request(subject, choice)
    assert contents(workspace) == before and workspace.subject("device") == DEVICE and not archived(workspace)
    workspace.create_device_request(subject, choice)
    assert KeyType.of(read_private_key(path, workspace.passphrase)) == key_type
    assert workspace.subject("device") == subject and workspace.key_choice("device").key_type == key_type
    moved = "of the other device" if key_type == CURVE else "of the device, whose key is of another kind,"
    assert capsys.readouterr().out == f"Moved the files {moved} to workspace/earlier/1.\n"
    assert (workspace.folder / "earlier" / "1" / path.relative_to(workspace.folder)).read_bytes() == old


@pytest.mark.parametrize("other", [KeyChoice(RSA, 100), KeyChoice(CURVE, 200)])
def test_the_same_device_with_another_key_or_days_waits_for_the_old_certificate_to_be_revoked(
    workspace: Workspace, other: KeyChoice
) -> None:
    workspace.create_ca(CA)
    few = KeyChoice(CURVE, 100)
    device(workspace, DEVICE, few)
    workspace.create_chain()
    first = workspace.sign_device_request()
    assert workspace.sign_device_request(few) == first
    before, revoke = contents(workspace), r"run workspace\.signer\(\)\.revoke\(0x1000, .* and then this cell again"
    with pytest.raises(OnboardingError, match=f"serial 1000: .* {revoke}") as error:
        workspace.create_device_request(DEVICE, other)
        workspace.sign_device_request(other)
    assert error.value.code == "SUBJECT_TAKEN" and contents(workspace) == before and not archived(workspace)
    workspace.signer().revoke(0x1000, "superseded")
    workspace.create_device_request(DEVICE, other)
    second = workspace.sign_device_request(other)
    assert KeyChoice.of(second) == other and second.serial_number == 0x1001
    assert (second.public_key() == first.public_key()) == (other.key_type == CURVE)
    assert archived(workspace) == ["1"] and workspace.create_chain()[0] == second
    aside = workspace.folder / "earlier" / "1" / "caCertificate" / "deviceCertificates" / "deviceCert.pem"
    assert read_certificates(aside) == [first]


def test_going_back_to_a_device_that_has_a_valid_certificate_loses_none(workspace: Workspace) -> None:
    workspace.create_ca(CA)
    device(workspace, DEVICE)
    device(workspace, OTHER)
    before = contents(workspace)
    for _ in range(2):
        with pytest.raises(OnboardingError, match=r"serial 1000: .*revoke") as error:
            workspace.create_device_request(DEVICE)
        assert error.value.code == "SUBJECT_TAKEN" and contents(workspace) == before and archived(workspace) == ["1"]
    workspace.signer().revoke(0x1000, "superseded")  # the control
    device(workspace, DEVICE)
    assert workspace.subject("device") == DEVICE and archived(workspace) == ["1", "2"]


def test_a_certificate_for_other_days_is_replaced_where_subjects_need_not_be_unique(workspace: Workspace) -> None:
    workspace.create_ca(CA)
    (workspace.ca_folder / "database.txt.attr").write_text("unique_subject = no\n")
    device(workspace, DEVICE, KeyChoice(CURVE, 100))
    second = workspace.sign_device_request(KeyChoice(CURVE, 200))
    assert (KeyChoice.of(second).days, second.serial_number) == (200, 0x1001)
    assert read_certificates(workspace.device_file("deviceCert.pem")) == [second] and archived(workspace) == ["1"]


def test_a_key_that_nothing_was_made_with_yet_is_used(workspace: Workspace) -> None:
    workspace.create_ca(CA)
    workspace.create_device_request(DEVICE, KeyChoice(RSA, 9))
    path = workspace.device_file("deviceKey.pem")
    key = path.read_bytes()
    workspace.device_file("deviceCsr.pem").unlink()
    assert again(workspace).key_choice("device").key_type == RSA
    again(workspace).create_device_request(OTHER, KeyChoice(RSA, 9))
    assert path.read_bytes() == key and not archived(workspace)
    workspace.device_file("deviceCsr.pem").unlink()
    workspace.create_device_request(DEVICE, KeyChoice(CURVE, 9))
    assert (workspace.folder / "earlier" / "1" / path.relative_to(workspace.folder)).read_bytes() == key


def test_a_certificate_that_has_expired_or_is_damaged_offers_the_guides_values(workspace: Workspace) -> None:
    workspace.catch_up("ca")
    request = workspace.create_device_request(DEVICE)
    old = workspace.ca().sign(request, days=10, at=datetime.now(UTC) - timedelta(days=20))
    path = workspace.device_file("deviceCert.pem")
    path.write_bytes(to_pem([old]))
    workspace.create_chain()
    assert workspace.key_choice("device").days == 365
    new = workspace.sign_device_request()
    assert KeyChoice.of(new).days == 365 and [row.status for row in workspace.ca().database.rows()] == ["E", "V"]
    assert workspace.sign_device_request() == workspace.create_chain()[0] == new, "one that is valid is found"
    assert (workspace.folder / "earlier" / "1" / path.relative_to(workspace.folder)).read_bytes() == to_pem([old])
    for name in ("deviceCert.pem", "deviceCsr.pem", "deviceKey.pem"):
        workspace.device_file(name).write_text("nonsense")
        assert workspace.key_choice("device") == KeyChoice(CURVE, 365)


def test_what_is_revoked_stays_to_be_seen_and_is_mentioned(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace.create_ca(CA)
    below = workspace.create_intermediate(BELOW).certificate
    device(workspace)
    revoked = workspace.sign_device_request()
    for mentioned in (False, True):  # the first is the control
        assert workspace.sign_device_request() == revoked
        assert ("Note that the certificate of CN=device is revoked" in capsys.readouterr().out) == mentioned
        workspace.create_intermediate(BELOW)
        assert ("Note that the certificate of CN=Below is revoked" in capsys.readouterr().out) == mentioned
        for certificate in () if mentioned else (revoked, below):
            workspace.ca().revoke(certificate)
    assert workspace.sign_device_request(KeyChoice(CURVE, 30)) != revoked
    assert "is revoked" not in capsys.readouterr().out
