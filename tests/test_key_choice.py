"""The kind of key and the days are a choice like the subject: found again where they are the same, else made anew."""

from datetime import UTC, datetime, timedelta

import pytest
from conftest import PASSPHRASE, Run
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from test_authority import openssl_ca
from test_workspace import contents

from mciot_nb import DistinguishedName, OnboardingError, Workspace
from mciot_nb.pki.authority import CA_DAYS
from mciot_nb.pki.chain import read_certificates, to_pem
from mciot_nb.pki.keys import KeyChoice, KeyType, read_private_key

CA, BELOW = DistinguishedName(common_name="CA"), DistinguishedName(common_name="Below")
DEVICE, OTHER = DistinguishedName(common_name="device"), DistinguishedName(common_name="other")
CURVE, QUICK = KeyType.P256, KeyType.RSA_2048


@pytest.fixture
def workspace(quick_workspace: Workspace) -> Workspace:
    return quick_workspace


def again(workspace: Workspace) -> Workspace:
    return Workspace(workspace.folder)


def run_all(workspace: Workspace) -> None:
    """Do what notebooks 01 to 05 do, with what their forms offer."""
    choice = workspace.ca_key_choice
    workspace.create_ca(workspace.ca_subject, key_type=choice.key_type, days=choice.days)
    choice = workspace.intermediate_key_choice
    workspace.create_intermediate(workspace.intermediate_subject, key_type=choice.key_type, days=choice.days)
    choice = workspace.device_key_choice
    workspace.create_device_key(choice.key_type)
    workspace.create_device_request(workspace.device_subject, choice.key_type)
    workspace.sign_device_request(days=choice.days)
    workspace.catch_up("chain")


def moved(workspace: Workspace) -> list[str]:
    return sorted(path.name for path in (workspace.folder / "earlier").glob("*"))


# The CA --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", [{"key_type": CURVE}, {"days": 100}, {"key_type": CURVE, "days": 100}])
def test_another_key_or_other_days_make_the_ca_anew(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], other: dict[str, int]
) -> None:
    first = workspace.create_ca(CA).certificate
    assert workspace.ca_key_choice == KeyChoice.of(first) == KeyChoice(QUICK, CA_DAYS)
    for same in ({}, {"key_type": QUICK}, {"days": CA_DAYS}, {"key_type": QUICK, "days": CA_DAYS}):
        assert again(workspace).create_ca(CA, **same).certificate == first
    assert capsys.readouterr().out == ""
    second = workspace.create_ca(CA, **other)
    assert KeyChoice.of(second.certificate) == KeyChoice(QUICK, CA_DAYS).changed(**other)
    old = workspace.folder / "earlier" / "1" / "caCertificate"
    assert read_certificates(old / "caCert.pem") == [first] and (old / "caKey.pem").exists()
    said = "Moved the CA that was here, and everything made with it, to workspace/earlier/1.\n"
    assert capsys.readouterr().out == said
    for same in ({}, other):
        assert again(workspace).create_ca(CA, **same).certificate == second.certificate
    assert moved(workspace) == ["1"] and capsys.readouterr().out == ""


def test_a_ca_that_openssl_made_by_hand_is_found(
    workspace: Workspace, openssl: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MCIOT_PASSPHRASE", PASSPHRASE)
    openssl_ca(workspace.ca_folder, openssl, CURVE, 100)
    by_hand, subject = read_certificates(workspace.ca_folder / "caCert.pem")[0], workspace.ca_subject
    assert workspace.ca_key_choice == KeyChoice(CURVE, 100)
    assert workspace.create_ca(subject, key_type=CURVE, days=100).certificate == by_hand
    assert workspace.create_ca(subject).certificate == by_hand and not moved(workspace)
    for other in ({"days": 101}, {"key_type": QUICK}):  # the control: with this passphrase nothing new is made
        with pytest.raises(OnboardingError, match="ASCII"):
            workspace.create_ca(subject, **other)


def test_a_ca_with_a_key_that_we_would_not_make_stays(
    workspace: Workspace, openssl: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MCIOT_PASSPHRASE", PASSPHRASE)
    openssl_ca(workspace.ca_folder, openssl)
    key, certificate = workspace.ca_folder / "caKey.pem", workspace.ca_folder / "caCert.pem"
    curve = ["EC", "-pkeyopt", "ec_paramgen_curve:P-384"]
    openssl("genpkey", "-aes256", "-pass", "env:PASS", "-algorithm", *curve, "-out", key)
    made = ["-key", key, "-passin", "env:PASS", "-new", "-x509", "-days", 99, "-extensions", "v3_ca", "-subj", "/CN=CA"]
    openssl("req", "-config", workspace.ca_folder / "caConfig.cnf", *made, "-out", certificate)
    choice = workspace.ca_key_choice
    assert choice == KeyChoice(0, 99)
    assert workspace.create_ca(CA, key_type=choice.key_type, days=choice.days).folder == workspace.ca_folder
    before = contents(workspace)
    with pytest.raises(OnboardingError, match="2048 to 16384 bits, not 0"):
        again(workspace).create_intermediate(BELOW, key_type=choice.key_type)
    assert contents(workspace) == before and not moved(workspace)


@pytest.mark.parametrize("bad", [{"key_type": 1024}, {"days": 0}, {"days": 36501}])
def test_a_choice_that_can_not_be_moves_nothing(workspace: Workspace, bad: dict[str, int]) -> None:
    workspace.catch_up("intermediate")
    workspace.catch_up("device")
    before = contents(workspace)
    with pytest.raises(OnboardingError, match="ask for that"):
        workspace.create_ca(workspace.ca_subject, **bad)
    for subject in (workspace.intermediate_subject, BELOW):
        with pytest.raises(OnboardingError, match="ask for that"):
            workspace.create_intermediate(subject, **bad)
    with pytest.raises(OnboardingError, match="ask for that"):
        workspace.create_device_key(**bad) if "key_type" in bad else workspace.sign_device_request(**bad)
    assert contents(workspace) == before and not moved(workspace)


# All of them ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("choice", [KeyChoice(CURVE, 100), KeyChoice(QUICK, CA_DAYS)])
def test_run_all_moves_nothing_whatever_was_chosen(
    workspace: Workspace, choice: KeyChoice, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace.create_ca(CA, key_type=choice.key_type, days=choice.days)
    less = min(choice.days - 1, 50)
    workspace.create_intermediate(BELOW, key_type=choice.key_type, days=less)
    workspace.create_device_request(DEVICE, choice.key_type)
    workspace.sign_device_request(days=less)
    workspace.create_chain()
    before = contents(workspace)
    for _ in range(2):
        run_all(again(workspace))
        again(workspace).catch_up("intermediate")
    assert contents(workspace) == before and capsys.readouterr().out == ""
    assert workspace.intermediate_key_choice == workspace.device_key_choice == KeyChoice(choice.key_type, less)


def test_below_a_ca_of_few_days_everything_is_made_with_what_it_has_left(workspace: Workspace) -> None:
    workspace.create_ca(CA, key_type=CURVE, days=100)
    assert workspace.intermediate_key_choice == workspace.device_key_choice == KeyChoice(QUICK, 99)
    run_all(workspace)
    workspace.catch_up("stores")
    assert workspace.device_key_choice.days == workspace.intermediate_key_choice.days == 99
    before = contents(workspace)
    with pytest.raises(OnboardingError, match="would outlive its CA") as error:
        workspace.create_intermediate(OTHER, days=101)
    assert error.value.code == "OUTLIVES_CA" and contents(workspace) == before


def test_before_there_is_anything_the_guides_values_are_offered(workspace: Workspace) -> None:
    choices = workspace.ca_key_choice, workspace.intermediate_key_choice, workspace.device_key_choice
    assert [choice.days for choice in choices] == [7300, 3650, 365]
    assert not any(workspace.folder.iterdir()), "looking makes nothing"


def test_an_elliptic_curve_goes_all_the_way_to_a_connected_device(workspace: Workspace) -> None:
    workspace.create_ca(CA, key_type=CURVE)
    workspace.create_device_request(DEVICE, CURVE)
    workspace.catch_up("upload")
    tenant = workspace.tenant()
    with workspace.device(tenant) as device:
        device.publish("100,device,c8y_MQTTDevice")
    assert workspace.platform().log().iloc[-1]["code"] == "CONNECTED"
    kinds = [KeyType.of(certificate) for certificate in read_certificates(workspace.device_file("deviceCertChain.pem"))]
    assert kinds == [CURVE, CURVE] and workspace.create_keystore("jks").exists()


# The intermediate ----------------------------------------------------------------------------------------------------


def test_another_intermediate_of_the_same_name_waits_for_the_old_one_to_be_revoked(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace.create_ca(CA)
    first = workspace.create_intermediate(BELOW).certificate
    before = contents(workspace)
    for other in ({"key_type": CURVE}, {"days": 100}):
        with pytest.raises(OnboardingError, match="with serial 1000: revoke that one first") as error:
            workspace.create_intermediate(BELOW, **other)
        assert error.value.code == "SUBJECT_TAKEN"
    assert contents(workspace) == before and capsys.readouterr().out == ""
    workspace.ca().revoke(first, "superseded")
    second = workspace.create_intermediate(BELOW, key_type=CURVE, days=100).certificate
    assert KeyChoice.of(second) == KeyChoice(CURVE, 100) and moved(workspace) == ["1"]
    with pytest.raises(OnboardingError, match="revoke that one first"):
        workspace.create_intermediate(BELOW, key_type=QUICK)
    workspace.ca().revoke(second, "superseded")
    third = workspace.create_intermediate(BELOW, key_type=QUICK).certificate
    assert third not in (first, second), "what is revoked does not come back"


def test_an_intermediate_comes_back_only_as_it_is_asked_for(workspace: Workspace) -> None:
    workspace.create_ca(CA)
    first = workspace.create_intermediate(BELOW, key_type=CURVE, days=100).certificate
    workspace.create_intermediate(OTHER)
    with pytest.raises(OnboardingError, match="revoke that one first"):
        workspace.create_intermediate(BELOW, key_type=QUICK)
    assert workspace.create_intermediate(BELOW, key_type=CURVE).certificate == first


def test_an_intermediate_that_was_begun_with_another_key_moves_aside(workspace: Workspace) -> None:
    ca = workspace.create_ca(CA)
    folder = workspace.intermediate_folder
    ca.create_intermediate(folder, BELOW, workspace.passphrase, key_type=CURVE)
    (folder / "intermediateCert.pem").unlink()
    ca.database.path.write_bytes(b"")  # as if it had been stopped before it was signed
    (ca.folder / "deviceCertificates" / "1000.pem").unlink()
    assert workspace.intermediate_key_choice.key_type == CURVE
    begun = (folder / "intermediateKey.pem").read_bytes()
    assert KeyType.of(workspace.create_intermediate(BELOW, key_type=QUICK).certificate) == QUICK
    aside = workspace.folder / "earlier" / "1" / folder.relative_to(workspace.folder) / "intermediateKey.pem"
    assert aside.read_bytes() == begun


def test_an_intermediate_that_is_cancelled_leaves_the_old_one_in_its_place(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.create_ca(CA)
    workspace.create_intermediate(BELOW, key_type=CURVE)
    before = contents(workspace)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as cancelled, pytest.raises(KeyboardInterrupt):
        cancelled.setattr(ec, "generate_private_key", stop)
        workspace.create_intermediate(OTHER, key_type=CURVE)
    assert contents(workspace) == before and workspace.intermediate_subject == BELOW
    assert workspace.create_intermediate(OTHER, key_type=CURVE).certificate.subject == OTHER.to_x509()


# The device ----------------------------------------------------------------------------------------------------------


def test_another_kind_of_key_is_another_device(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    workspace.create_ca(CA)
    workspace.create_device_request(DEVICE)
    first = workspace.sign_device_request()
    key = workspace.device_file("deviceKey.pem").read_bytes()
    workspace.create_device_request(OTHER, CURVE)
    assert capsys.readouterr().out.count("Moved") == 1
    assert KeyType.of(workspace.sign_device_request()) == workspace.device_key_choice.key_type == CURVE
    workspace.create_device_request(DEVICE, QUICK)
    assert workspace.sign_device_request() == first and workspace.device_file("deviceKey.pem").read_bytes() == key


@pytest.mark.parametrize(("subject", "key_type"), [(DEVICE, CURVE), (OTHER, QUICK), (OTHER, CURVE)])
def test_a_device_that_is_cancelled_leaves_the_old_one_in_its_place(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, subject: DistinguishedName, key_type: KeyType
) -> None:
    workspace.create_ca(CA)
    workspace.create_device_request(DEVICE)
    first = workspace.sign_device_request()
    workspace.create_chain()
    before = contents(workspace)

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as cancelled, pytest.raises(KeyboardInterrupt):
        cancelled.setattr(ec, "generate_private_key", stop)
        cancelled.setattr(rsa, "generate_private_key", stop)
        workspace.create_device_request(subject, key_type)
    assert contents(workspace) == before and workspace.device_subject == DEVICE
    assert workspace.sign_device_request() == first
    workspace.create_device_request(subject, key_type)
    assert KeyType.of(read_private_key(workspace.device_file("deviceKey.pem"), workspace.passphrase)) == key_type
    assert workspace.device_subject == subject


def test_the_same_device_with_another_key_waits_for_the_old_certificate_to_be_revoked(workspace: Workspace) -> None:
    workspace.create_ca(CA)
    workspace.create_device_request(DEVICE)
    first = workspace.sign_device_request()
    workspace.create_device_request(DEVICE, CURVE)
    with pytest.raises(OnboardingError, match=r"serial 1000: .* run workspace\.signer\(\)\.revoke\(0x1000, ") as error:
        workspace.sign_device_request()
    assert error.value.code == "SUBJECT_TAKEN"
    workspace.create_device_request(DEVICE, QUICK)  # back: nothing was lost
    assert workspace.sign_device_request() == first
    workspace.create_device_request(DEVICE, CURVE)
    workspace.signer().revoke(0x1000, "superseded")
    second = workspace.sign_device_request()
    assert KeyType.of(second) == CURVE and second.serial_number == 0x1001
    workspace.create_device_request(DEVICE, QUICK)
    with pytest.raises(OnboardingError, match="serial 1001"):
        workspace.sign_device_request()
    workspace.signer().revoke(0x1001, "superseded")
    assert workspace.sign_device_request().serial_number == 0x1002, "what is revoked does not come back"


def test_other_days_for_the_same_device_wait_for_the_old_certificate_to_be_revoked(workspace: Workspace) -> None:
    workspace.create_ca(CA)
    workspace.create_device_request(DEVICE)
    first = workspace.sign_device_request(days=100)
    workspace.create_chain()
    assert workspace.sign_device_request() == workspace.sign_device_request(days=100) == first
    before = contents(workspace)
    with pytest.raises(OnboardingError, match=r"serial 1000: .* and then this cell again") as error:
        workspace.sign_device_request(days=200)
    assert error.value.code == "SUBJECT_TAKEN" and contents(workspace) == before and not moved(workspace)
    workspace.signer().revoke(0x1000, "superseded")
    second = workspace.sign_device_request(days=200)
    assert KeyChoice.of(second).days == 200 and second.public_key() == first.public_key()
    assert workspace.create_chain()[0] == second
    aside = workspace.folder / "earlier" / "1" / "caCertificate" / "deviceCertificates" / "deviceCert.pem"
    assert read_certificates(aside) == [first]


def test_a_certificate_for_other_days_is_replaced_where_subjects_need_not_be_unique(workspace: Workspace) -> None:
    workspace.create_ca(CA)
    (workspace.ca_folder / "database.txt.attr").write_text("unique_subject = no\n")
    workspace.create_device_request(DEVICE)
    first = workspace.sign_device_request(days=100)
    second = workspace.sign_device_request(days=200)
    assert (KeyChoice.of(second).days, second.serial_number) == (200, first.serial_number + 1)
    assert read_certificates(workspace.device_file("deviceCert.pem")) == [second] and moved(workspace) == ["1"]


def test_a_key_that_nothing_was_made_with_yet_is_offered_again(workspace: Workspace) -> None:
    workspace.create_ca(CA)
    path = workspace.create_device_key(CURVE)
    key = path.read_bytes()
    assert again(workspace).device_key_choice.key_type == CURVE
    for same in (None, CURVE):
        assert again(workspace).create_device_key(same).read_bytes() == key
    workspace.create_device_request(DEVICE, QUICK)
    assert KeyType.of(read_private_key(path, workspace.passphrase)) == QUICK
    assert (workspace.folder / "earlier" / "1" / path.relative_to(workspace.folder)).read_bytes() == key


def test_an_expired_certificate_says_nothing_of_the_days_to_come(workspace: Workspace) -> None:
    ca = workspace.create_ca(CA, days=400)
    request = workspace.create_device_request(DEVICE)
    old = ca.sign(request, days=10, at=datetime.now(UTC) - timedelta(days=20))
    workspace.device_file("deviceCert.pem").write_bytes(to_pem([old]))
    assert workspace.device_key_choice.days == 365
    assert KeyChoice.of(workspace.sign_device_request(days=365)).days == 365


def test_damaged_files_offer_the_guides_values(workspace: Workspace) -> None:
    workspace.catch_up("device")
    for name in ("deviceCert.pem", "deviceCsr.pem", "deviceKey.pem"):
        workspace.device_file(name).write_text("nonsense")
        assert workspace.device_key_choice == KeyChoice(QUICK, 365)


def test_what_is_revoked_stays_to_be_seen_and_is_mentioned(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace.create_ca(CA, key_type=CURVE)
    workspace.create_intermediate(BELOW, key_type=CURVE)
    workspace.create_device_request(DEVICE, key_type=CURVE)
    revoked = workspace.sign_device_request()
    below = workspace.intermediate().certificate
    workspace.create_intermediate(BELOW)
    assert workspace.sign_device_request() == revoked and "revoked" not in capsys.readouterr().out  # the control
    for certificate in (revoked, below):
        workspace.ca().revoke(certificate)
    assert workspace.sign_device_request() == revoked
    assert "Mind that the certificate of CN=device is revoked" in capsys.readouterr().out
    workspace.create_intermediate(BELOW)
    assert "Mind that the certificate of CN=Below is revoked" in capsys.readouterr().out
    assert workspace.sign_device_request(days=30) != revoked
    assert "is revoked" not in capsys.readouterr().out
