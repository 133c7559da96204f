"""The workspace loses nothing, whatever is missing, wrong or interrupted."""

import stat
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from conftest import PASSPHRASE
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from mciot_nb import DistinguishedName, OnboardingError, Secret, TenantForm, Workspace
from mciot_nb.local_platform import LocalPlatform
from mciot_nb.pki import authority, keys
from mciot_nb.pki.chain import read_certificates, to_pem
from mciot_nb.pki.keys import KeyType

OWN = Secret("Zeppelin-9 Oelkanne")


@pytest.fixture
def workspace(quick_workspace: Workspace) -> Workspace:
    return quick_workspace


def contents(workspace: Workspace) -> dict[str, bytes]:
    ours = (p for p in workspace.ca_folder.rglob("*") if p.is_file())
    return {str(p.relative_to(workspace.folder)): p.read_bytes() for p in ours}


def again(workspace: Workspace) -> Workspace:
    """The same folder in another kernel."""
    return Workspace(workspace.folder)


def test_an_own_passphrase_is_asked_for_and_nothing_moves(workspace: Workspace) -> None:
    workspace.type_passphrase(OWN)
    workspace.catch_up("stores")
    assert not (workspace.folder / "passphrase").exists()
    before, other = contents(workspace), again(workspace)
    assert other.passphrases.source == ""
    for step in (other.create_keystore, other.create_truststore, other.ca):
        with pytest.raises(OnboardingError, match="Stop here"):
            step()
    with pytest.raises(OnboardingError, match=r"does not open caKey\.pem, which is here"):
        other.type_passphrase(Secret("Zeppelin-9 Oelkanme"))
    with pytest.raises(OnboardingError, match="6 characters"):
        other.type_passphrase(Secret("abcde"))
    assert contents(workspace) == before and not (workspace.folder / "earlier").exists()
    other.type_passphrase(OWN)
    other.catch_up("stores")
    assert contents(workspace) == before


def test_what_can_not_be_made_leaves_everything_as_it_was(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.catch_up("stores")
    before, nameless = contents(workspace), DistinguishedName(country="DE")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    for make in (workspace.create_ca, workspace.create_device_request):
        with pytest.raises(OnboardingError, match=r"(?i)common ?name"):
            make(nameless)
    with monkeypatch.context() as interrupted, pytest.raises(KeyboardInterrupt):
        interrupted.setattr(ec, "generate_private_key", stop)
        workspace.create_ca(DistinguishedName(common_name="Another"))
    monkeypatch.setenv("MCIOT_PASSPHRASE", PASSPHRASE)  # not the one of what is there
    for step in (again(workspace).create_keystore, again(workspace).create_truststore):
        with pytest.raises(OnboardingError, match="does not open"):
            step()
    assert contents(workspace) == before
    assert not [*workspace.folder.glob("earlier"), *workspace.folder.glob(".new-*")]


def test_no_key_is_ever_lost_and_none_comes_back(workspace: Workspace) -> None:
    workspace.create_ca(DistinguishedName(common_name="CA"))
    made = []
    for name in ("first", "second", "first"):
        workspace.create_device_request(DistinguishedName(common_name=name))
        made.append(workspace.device_file("deviceKey.pem").read_bytes())
    workspace.device_file("deviceCsr.pem").unlink()
    assert len(set(made)) == 3
    kept = {path.read_bytes() for path in workspace.folder.rglob("deviceKey.pem")}
    assert kept == set(made)


def test_two_notebooks_that_make_the_same_do_not_mix_their_files(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.catch_up("ca")
    request = workspace.device_file("deviceCsr.pem")

    def be_slower(*given: object) -> object:
        request.write_text("the other's")
        return keys.create_request(*given)  # type: ignore[arg-type]

    monkeypatch.setattr("mciot_nb.workspace.create_request", be_slower)
    with pytest.raises(OnboardingError, match=r"deviceCsr\.pem was made by another program meanwhile") as error:
        workspace.create_device_request(DistinguishedName(common_name="device"))
    assert error.value.code == "EXISTS" and request.read_text() == "the other's"


def test_a_lost_key_makes_a_new_device_not_a_wrong_one(workspace: Workspace) -> None:
    workspace.catch_up("stores")
    workspace.device_file("deviceKey.pem").unlink()
    workspace.create_device_request(DistinguishedName(common_name="new"))
    certificate = workspace.sign_device_request()
    assert certificate.subject == DistinguishedName(common_name="new").to_x509()
    workspace.catch_up("stores")
    assert (workspace.folder / "earlier" / "1" / "caCertificate" / "deviceCertificates" / "deviceCert.pem").exists()


def test_a_certificate_for_another_request_or_of_another_ca_is_made_anew(workspace: Workspace) -> None:
    workspace.catch_up("device")
    stranger = authority.CertificateAuthority.create(
        workspace.folder / "stranger", DistinguishedName(common_name="Stranger"), PASSPHRASE, key_type=KeyType.P256
    )
    request = keys.read_request(workspace.device_file("deviceCsr.pem"))
    workspace.device_file("deviceCert.pem").write_bytes(to_pem([stranger.sign(request)]))
    certificate = workspace.sign_device_request()
    assert certificate == read_certificates(workspace.device_file("1000.pem"))[0], "found again by its copy"
    assert len(workspace.ca().database.rows()) == 1


def test_a_moved_workspace_is_said_and_goes_on(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    workspace.type_passphrase(OWN)
    workspace.catch_up("intermediate")
    moved = Workspace(workspace.folder.rename(workspace.folder.with_name("moved")))
    for said in (2, 0):  # the CA and the intermediate, once
        moved = again(moved)
        moved.type_passphrase(OWN)
        moved.create_intermediate(moved.subject("intermediate"))  # finds it
        assert moved.ca().folder == moved.ca_folder and moved.intermediate().folder == moved.intermediate_folder
        assert capsys.readouterr().out.count("was moved") == said
    moved.with_issuer("intermediate").catch_up("device")
    assert len(moved.intermediate().database.rows()) == 1


def test_a_passphrase_that_is_typed_and_not_taken_stops_what_needs_one(workspace: Workspace) -> None:
    workspace.passphrases.awaited = True
    with pytest.raises(OnboardingError, match="is not confirmed yet") as stopped:
        workspace.catch_up("ca")
    assert stopped.value.code == "NEED_PASSPHRASE" and not workspace.has_ca
    assert not (workspace.folder / "passphrase").exists(), "no practice one is made up instead"
    workspace.passphrases.awaited = False
    workspace.catch_up("ca")
    assert workspace.has_ca


def test_the_practice_passphrase_is_private_and_survives_an_editor(workspace: Workspace) -> None:
    file = workspace.folder / "passphrase"
    practice = workspace.passphrase
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and again(workspace).passphrase == practice
    file.write_text(f"{practice.reveal()}\n")
    assert again(workspace).passphrase == practice and practice.reveal() not in repr(practice)


def test_the_disk_is_named_where_it_refuses(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OnboardingError, match=r"can't be used, .*: check the folder") as error:
            Workspace(folder)
        assert error.value.code == "DISK"
    for read in (read_certificates, keys.read_request):
        with pytest.raises(OnboardingError, match="can't be used, is a directory"):
            read(tmp_path)
    with pytest.raises(OnboardingError, match="can't be used"):
        authority.CertificateAuthority.create(tmp_path / "file" / "ca", DistinguishedName(common_name="a"), PASSPHRASE)


def test_starting_over_moves_everything_aside(workspace: Workspace) -> None:
    workspace.catch_up("upload")
    before = {path.name for path in workspace.folder.iterdir()}
    workspace.start_over()
    assert {"caCertificate", "platform", "passphrase"} <= before
    aside = {path.name for path in (workspace.folder / "earlier" / "1").iterdir()}
    assert aside == {"caCertificate", "platform", "passphrase", "server.json"}
    assert LocalPlatform.running(workspace.folder) is None and not workspace.has_ca


def test_what_does_not_exist_is_named(workspace: Workspace) -> None:
    for call, name, said in (
        (workspace.catch_up, "stors", "no step 'stors'"),
        (workspace.choose_issuer, "root", "ca or intermediate"),
        (workspace.with_issuer, "root", "ca or intermediate"),
        (workspace.use_profile, "2021", "guide-2021 or current"),
    ):
        with pytest.raises(OnboardingError, match=said):
            call(name)  # type: ignore[operator]
    (workspace.folder / "issuer").write_text("nonsense")
    assert workspace.issuer == "ca"


def test_a_home_folder_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform == "win32":
        pytest.skip("the home folder is named otherwise there")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MCIOT_WORKSPACE", "~/here")
    assert Workspace().folder == tmp_path / "here"


def test_a_renewed_ca_is_followed_by_the_certificate_that_was_presented(ca: authority.CertificateAuthority) -> None:
    from mciot_nb.pki.chain import PROFILES, diagnose

    own, begin = ca.certificate, datetime.now(UTC) - timedelta(days=1)
    end = begin + timedelta(days=30)
    builder = x509.CertificateBuilder(own.subject, own.subject, own.public_key(), 99, begin, end)  # type: ignore[arg-type]
    for extension in ca.certificate.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    renewed = builder.sign(ca.key, ca.certificate.signature_hash_algorithm)  # type: ignore[arg-type]
    key = ec.generate_private_key(ec.SECP256R1())
    device = ca.sign(keys.create_request(ca.folder / "csr.pem", key, DistinguishedName(common_name="device")))
    for presented in (renewed, ca.certificate):
        for anchors in ([ca.certificate, renewed], [renewed, ca.certificate]):
            assert diagnose([device, presented], anchors, PROFILES["guide-2021"]).ok
    later = renewed.not_valid_after_utc + timedelta(days=1)
    assert diagnose([device, renewed], [ca.certificate, renewed], at=later).ok, "OpenSSL takes the one that is valid"
    assert diagnose([device, renewed], [renewed], at=later).code == "EXPIRED"
    assert diagnose([device, ca.certificate], [renewed, ca.certificate], PROFILES["guide-2021"], at=later).ok


def test_signing_that_was_stopped_is_finished_in_the_same_kernel(workspace: Workspace) -> None:
    workspace.catch_up("device")
    signed = workspace.sign_device_request()
    copy = workspace.device_file("1000.pem")
    copy.rename(copy.with_name(".1000.pem.draft"))
    workspace.device_file("deviceCert.pem").unlink()  # stopped between the row and the names
    assert workspace.sign_device_request() == signed and copy.exists()
    assert len(workspace.ca().database.rows()) == 1


def test_a_changed_configuration_is_followed(workspace: Workspace) -> None:
    workspace.catch_up("ca")
    first, config = workspace.ca(), workspace.ca_folder / "caConfig.cnf"
    assert workspace.ca() is first
    config.write_text(config.read_text() + "[ v3_last ]\nbasicConstraints = critical, CA:true, pathlen:0\n")
    assert "v3_last" in workspace.ca().config.sections


def test_of_an_intermediate_that_lacks_a_file_another_is_made_when_asked_for(workspace: Workspace) -> None:
    workspace.catch_up("intermediate")
    (workspace.intermediate_folder / "intermediateConfig.cnf").unlink()
    with pytest.raises(OnboardingError, match=r"intermediateConfig\.cnf is missing .* put it back"):
        workspace.create_intermediate(workspace.subject("intermediate"))
    subject = DistinguishedName(common_name="Second")
    assert workspace.create_intermediate(subject).certificate.subject == subject.to_x509()
    assert list((workspace.folder / "earlier").glob("*/caCertificate/intermediateCertificate/intermediateKey.pem"))


def test_what_is_suggested_below_a_ca_has_its_company(workspace: Workspace) -> None:
    assert workspace.subject("device").organization == "Example Company", "the control"
    ca = DistinguishedName("AT", None, "Wien", "Brückner & Söhne", None, "Our CA", "ca@example.com")
    workspace.create_ca(ca)
    for owner, name in (("intermediate", "Example Intermediate CA"), ("device", "device-0001")):
        assert workspace.subject(owner) == DistinguishedName("AT", None, "Wien", "Brückner & Söhne", None, name)
    (workspace.ca_folder / "caCert.pem").write_text("damaged")
    assert workspace.subject("device").organization == "Example Company", "and the form is there all the same"


def test_a_folder_that_was_begun_by_hand_moves_aside(workspace: Workspace) -> None:
    workspace.catch_up("ca")
    begun = workspace.intermediate_folder / "intermediateKey.pem"
    begun.parent.mkdir()
    begun.write_text("begun")
    workspace.catch_up("intermediate")
    aside = workspace.folder / "earlier" / "1" / begun.relative_to(workspace.folder)
    assert workspace.has_intermediate and aside.read_text() == "begun"


def test_a_restart_asks_for_the_ports_that_clients_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = "localhost", ("localhost", 8899), "https://localhost:8499"
    platform = LocalPlatform(tmp_path, *address, tmp_path / "serverCert.pem", ("t1", "t2"), "current", 1)
    asked: list[object] = []
    monkeypatch.setattr(LocalPlatform, "stop", lambda _: None)
    monkeypatch.setattr(LocalPlatform, "_launch", lambda _, *given: asked.extend(given))
    platform.restart("guide-2021")
    assert asked == [tmp_path, "guide-2021", 2, "localhost", "--mqtt-port", "8899", "--https-port", "8499"]


def test_the_platform_can_keep_todays_rules_now_and_the_next_time(quick_workspace: Workspace) -> None:
    workspace = quick_workspace
    workspace.catch_up("upload")
    with pytest.raises(OnboardingError, match="no proof of possession") as error:  # the control: the guide's platform
        workspace.prove_possession(workspace.tenant())
    assert error.value.code == "HTTP_404"
    before = workspace.tenant().trusted_certificates.list()
    platform = workspace.use_profile("current")
    assert platform.profile == "current" and platform == workspace.use_profile("current")
    assert [c.fingerprint for c in platform.tenant.trusted_certificates.list()] == [c.fingerprint for c in before]
    proven = workspace.prove_possession(platform.tenant)
    assert proven.proven and not before[0].proven
    platform.stop()
    form = TenantForm(workspace)
    form.submit()  # says nothing of rules, so they stay
    assert workspace.platform().profile == "current"
    (workspace.folder / "tenant.json").write_text('{"profile": "2021"}')
    with pytest.raises(OnboardingError, match="damaged"):
        print(workspace.tenant_settings)
