"""Intermediate CAs: the guide's folder, any depth, path lengths, and the branch of the tutorial below one."""

import itertools
from datetime import timedelta
from pathlib import Path
from typing import Any

import nbformat
import pytest
from conftest import PASSPHRASE, Run
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from mciot_nb import CertificateAuthority, DistinguishedName, LocalPlatform, OnboardingError, Workspace, diagnose
from mciot_nb.pki import authority
from mciot_nb.pki.chain import build_chain, read_certificates, to_pem
from mciot_nb.pki.config import read_config
from mciot_nb.pki.keys import KeyType
from tools.notebooks import NOTEBOOKS, execute

DEVICE = DistinguishedName(common_name="device")


def request(name: DistinguishedName, key: Any = None) -> x509.CertificateSigningRequest:
    builder = x509.CertificateSigningRequestBuilder().subject_name(name.to_x509())
    return builder.sign(key or ec.generate_private_key(ec.SECP256R1()), SHA256())


def sign_with_openssl(
    openssl: Run, ca: CertificateAuthority, csr: x509.CertificateSigningRequest, section: str
) -> Path:
    """Let openssl go on where our CA stands; returns the certificate's file."""
    asked, signed = ca.folder / "asked.pem", ca.folder / "signed.pem"
    asked.write_bytes(csr.public_bytes(Encoding.PEM))
    options = ["-batch", "-passin", "env:PASS", "-extensions", section, "-notext", "-out", signed, "-in", asked]
    openssl("ca", "-config", ca.folder / "intermediateConfig.cnf", *options)
    return signed


def below(ca: CertificateAuthority, name: str = "Below", **options: str) -> CertificateAuthority:
    folder, subject = ca.folder / "intermediateCertificate", DistinguishedName("DE", locality="Ulm", common_name=name)
    return ca.create_intermediate(folder, subject, PASSPHRASE, key_type=KeyType.P256, **options)  # type: ignore[arg-type]


def test_the_folder_is_the_guides(ca: CertificateAuthority) -> None:
    intermediate = below(ca)
    names = {path.relative_to(intermediate.folder).as_posix() for path in intermediate.folder.rglob("*")}
    guide = {"intermediateConfig.cnf", "intermediateKey.pem", "intermediateCsr.pem", "intermediateCert.pem"}
    assert names == guide | {"database.txt", "serial", "crl", "crl/crlnumber", "deviceCertificates"}
    assert (intermediate.folder / "intermediateKey.pem").stat().st_mode & 0o777 == 0o600
    config = read_config(intermediate.folder / "intermediateConfig.cnf")
    assert config.ca("dir") == intermediate.folder.as_posix()
    for name, file in (("private_key", "Key"), ("certificate", "Cert"), ("crl", "Crl")):
        assert Path(config.ca(name)).name == f"intermediate{file}.pem"
    reopened = CertificateAuthority.open(intermediate.folder, PASSPHRASE)
    assert reopened.certificate == intermediate.certificate and reopened.database == intermediate.database
    assert (ca.folder / "deviceCertificates" / "1000.pem").read_bytes() == to_pem([intermediate.certificate])
    assert [row.subject for row in ca.database.rows()] == ["/C=DE/CN=Below"], "the policy drops L here too"


def test_openssl_goes_on_below_the_intermediate(ca: CertificateAuthority, openssl: Run) -> None:
    intermediate = below(ca)
    ours = intermediate.sign(request(DEVICE))
    signed = sign_with_openssl(openssl, intermediate, request(DistinguishedName(common_name="next")), "v3_signed")
    serials = [ours.serial_number, read_certificates(signed)[0].serial_number]
    assert serials == [row.serial for row in intermediate.database.rows()] == [0x1000, 0x1001]
    path = ["-CAfile", ca.folder / "caCert.pem", "-untrusted", intermediate.folder / "intermediateCert.pem"]
    assert "OK" in openssl("verify", *path, signed).stdout
    partial = ["-CAfile", intermediate.folder / "intermediateCert.pem", signed]
    assert "OK" in openssl("verify", "-partial_chain", *partial).stdout
    assert openssl("verify", *partial, check=False).returncode != 0, "without -partial_chain it wants the root"


def test_chains_of_any_depth(ca: CertificateAuthority, openssl: Run, tmp_path: Path) -> None:
    issuer, issuers = ca, [ca.certificate]
    for depth in range(3):
        issuer = below(issuer, f"Level {depth}")
        issuers.append(issuer.certificate)
    device = issuer.sign(request(DEVICE))
    chain = build_chain(device, issuers)
    assert chain == [device, *reversed(issuers)]
    assert build_chain(device, issuers, up_to=issuers[-1]) == [device, issuers[-1]]
    assert diagnose(chain, [ca.certificate]).ok and diagnose(chain[:3], [issuers[-2]]).ok
    assert diagnose([device, *chain[2:]], [ca.certificate]).code == "UNKNOWN_CA", "one is missing in between"
    (tmp_path / "chain.pem").write_bytes(to_pem(chain[1:-1]))
    (tmp_path / "device.pem").write_bytes(to_pem([device]))
    path = ["-CAfile", ca.folder / "caCert.pem", "-untrusted", tmp_path / "chain.pem", tmp_path / "device.pem"]
    assert "OK" in openssl("verify", *path).stdout


def test_the_clock_may_go_on_while_the_key_is_made(ca: CertificateAuthority, monkeypatch: pytest.MonkeyPatch) -> None:
    issuer = below(ca)
    begin = issuer.certificate.not_valid_before_utc  # as many days are left of the issuer as an intermediate asks for
    ticks = (begin + timedelta(seconds=passed) for passed in itertools.count())
    monkeypatch.setattr(authority, "normalize_time", lambda at: at or next(ticks))
    certificate = below(issuer, "In time").certificate
    assert certificate.not_valid_before_utc == begin
    assert certificate.not_valid_after_utc == issuer.certificate.not_valid_after_utc
    with pytest.raises(OnboardingError, match="ask for 3649 days") as refused:
        issuer.sign(request(DEVICE), days=3650)
    assert refused.value.code == "OUTLIVES_CA", "here the clock has gone on"


def test_a_path_length_ends_the_chain(ca: CertificateAuthority, openssl: Run, tmp_path: Path) -> None:
    config = ca.folder / "caConfig.cnf"
    section = "[ v3_last ]\nsubjectKeyIdentifier = hash\nauthorityKeyIdentifier = keyid:always,issuer\n"
    section += "basicConstraints = critical, CA:true, pathlen:0\nkeyUsage = cRLSign, keyCertSign\n"
    config.write_text(config.read_text() + section)
    last = below(CertificateAuthority.open(ca.folder, PASSPHRASE), extensions="v3_last")
    device = last.sign(request(DEVICE))
    assert diagnose([device, last.certificate, ca.certificate], [ca.certificate]).ok
    with pytest.raises(OnboardingError, match="path length 0") as refused:
        below(last, "Too deep")
    assert refused.value.code == "PATH_LENGTH" and not (last.folder / "intermediateCertificate").exists()
    assert len(last.database.rows()) == 1

    # What we refuse, openssl signs; and then nobody trusts what comes of it, openssl included.
    key = ec.generate_private_key(ec.SECP256R1())
    csr = request(DistinguishedName(common_name="Deep"), key)
    deep = read_certificates(sign_with_openssl(openssl, last, csr, "v3_ca"))[0]
    begin, end = deep.not_valid_before_utc, deep.not_valid_after_utc
    leaf = x509.CertificateBuilder(deep.subject, DEVICE.to_x509(), key.public_key(), 1, begin, end)
    leaf = leaf.add_extension(x509.BasicConstraints(False, None), critical=True)
    leaf = leaf.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
    too_deep = [leaf.sign(key, SHA256()), deep, last.certificate, ca.certificate]
    assert diagnose(too_deep, [ca.certificate]).code == "INVALID"
    (tmp_path / "leaf.pem").write_bytes(to_pem(too_deep[:1]))
    (tmp_path / "between.pem").write_bytes(to_pem(too_deep[1:3]))
    path = ["-CAfile", ca.folder / "caCert.pem", "-untrusted", tmp_path / "between.pem", tmp_path / "leaf.pem"]
    assert "path length constraint exceeded" in openssl("verify", *path, check=False).stderr


# The branch of the tutorial ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["guide-2021", "current"])
def test_both_ways_on_the_local_platform(quick_workspace: Workspace, profile: str) -> None:
    """Root uploaded and three certificates: by profile. Intermediate uploaded and two: accepted by both."""
    workspace = quick_workspace
    workspace.choose_issuer("intermediate")
    platform = LocalPlatform.start(workspace, profile)
    workspace.catch_up("device")
    workspace.create_chain()
    workspace.fetch_server_certificate()
    root, chain_file = workspace.ca().certificate, workspace.device_file("deviceCertChain.pem")
    two = read_certificates(chain_file)
    assert len(two) == 2 and chain_file.parent.parent.name == "intermediateCertificate"

    platform.tenant.trusted_certificates.upload(root)
    chain_file.write_bytes(to_pem([*two, root]))
    device = workspace.device(platform.tenant)
    if profile == "current":
        with device:
            device.publish("100,device-0001,c8y_MQTTDevice")
    else:
        with pytest.raises(OnboardingError) as refused:
            device.connect()
        assert refused.value.code != "OK" and platform.log().iloc[-1]["code"] == "CHAIN_TOO_LONG"
    platform.tenant.trusted_certificates.delete(root)

    chain_file.write_bytes(to_pem(two))
    with pytest.raises(OnboardingError):
        workspace.device(platform.tenant).connect()  # the control: nobody is uploaded now
    workspace.upload_ca(platform.tenant)
    with workspace.device(platform.tenant) as device:
        device.publish("100,device-0001,c8y_MQTTDevice")
    assert platform.log().iloc[-1]["code"] == "CONNECTED"


@pytest.mark.slow
def test_the_notebooks_follow_the_choice(quick_workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCIOT_WORKSPACE", str(quick_workspace.folder))
    quick_workspace.choose_issuer("intermediate")
    for path in NOTEBOOKS[3:]:
        assert execute(nbformat.read(path, as_version=4), path) == ""
    folder = quick_workspace.intermediate_folder / "deviceCertificates"
    chain = read_certificates(folder / "deviceCertChain.pem")
    assert chain[1:] == [quick_workspace.intermediate().certificate]
    assert {"deviceKeystore.pkcs12", "deviceTruststore.pkcs12"} <= {path.name for path in folder.iterdir()}
    assert not (quick_workspace.ca_folder / "deviceCertificates" / "deviceCert.pem").exists()
    platform = quick_workspace.platform()
    trusted = platform.tenant.trusted_certificates
    assert trusted.find(chain[1]) and trusted.find(quick_workspace.ca().certificate) is None
    assert "CONNECTED" in set(platform.log()["code"]) and len(platform.measurements()) >= 2
    moved = set(quick_workspace.folder.glob("earlier/*"))  # by 09, which renews the device
    quick_workspace.choose_issuer("ca")  # and back: nothing moves, the CA's own device is made beside the other
    quick_workspace.catch_up("upload")
    assert trusted.find(quick_workspace.ca().certificate)
    assert set(quick_workspace.folder.glob("earlier/*")) == moved


def test_another_intermediate_archives_the_old_one(quick_workspace: Workspace) -> None:
    workspace = quick_workspace
    workspace.catch_up("intermediate")
    first, subject = workspace.intermediate().certificate, workspace.subject("intermediate")
    assert workspace.create_intermediate(subject).certificate == first, "the same is found, not made again"
    second = workspace.create_intermediate(DistinguishedName(common_name="Other"))
    assert second.certificate != first and workspace.subject("intermediate").common_name == "Other"
    assert second.sign(request(DEVICE)).issuer == second.certificate.subject
    assert [path.name for path in (workspace.folder / "earlier").iterdir()] == ["1"]
    assert read_config(second.folder / "intermediateConfig.cnf").ca_path("dir") == second.folder
    numbers = (workspace.ca_folder / "serial").read_bytes()
    workspace.create_ca(DistinguishedName(common_name="New CA"))
    assert (workspace.ca_folder / "serial").read_bytes() == numbers != b"1000\n", "a revoked number is not given again"
    assert not workspace.has_intermediate, "the old CA's is not taken for the new one's"
    workspace.catch_up("intermediate")
    assert workspace.intermediate().certificate not in (first, second.certificate)
    assert not list(workspace.folder.glob(".new-*"))
