"""What is said before a device connects, held against what the platform says, the log, and openssl and keytool."""

import json
import os
import re
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import platform_tools as tools
import pytest
from chain_shapes import SHAPES
from conftest import PASSPHRASE, ROOT, examples, run, tool
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL

from mciot_nb import OnboardingError, Workspace, diagnose, diagnose_device
from mciot_nb.connect import diagnosis as module
from mciot_nb.connect.trusted_certificates import TrustedCertificate
from mciot_nb.errors import REFUSED, WARNING, Diagnosis, Finding
from mciot_nb.failures import CASES, FailureCase
from mciot_nb.pki.chain import PROFILES, fingerprint, to_pem
from mciot_nb.pki.keys import encrypted_pem
from mciot_nb.pki.keystore import write_keystore
from mciot_platform.storage import LoggedAttempt, Storage, TrustAnchor
from mciot_platform.tls import ServerIdentity, TlsContexts, TlsStream
from mciot_platform.trust import ConnectionRejected, Trust

GUIDE, CURRENT = "guide-2021", "current"

# Every case of the laboratory, on a real platform ---------------------------------------------------------------------

PAIRS = [(GUIDE, tools.TLS[0]), (CURRENT, tools.TLS[1])]
OTHER_PAIRS = [*zip((CURRENT, GUIDE), tools.TLS, strict=True)]
#: What can't be seen beforehand: another client with the same name; and what only an upload is refused for.
NOT_SEEN = {"client-id-twice": "OK", "upload-device": "UNKNOWN_CA"}


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Workspace]]:
    """Return what gives the workspace whose platform has a profile."""
    made: dict[str, Workspace] = {}

    def world(profile: str) -> Workspace:
        if profile not in made:
            made[profile] = Workspace(tmp_path_factory.mktemp("world") / "workspace")
            made[profile].use_profile(profile)
        return made[profile]

    yield world
    for workspace in made.values():
        tools.check_no_fault(workspace.platform())
        workspace.platform().stop()


def predicted(case: FailureCase, tls: ssl.TLSVersion) -> tuple[str, Diagnosis | None]:
    """Return what is said before a case's device connects: of the device, or of its folder where that makes none."""
    with_files = {"client_id": case.client_id, "passphrase": case.passphrase}
    try:
        try:
            found = diagnose_device(case.device(tls), case.tenant)
        except OnboardingError as error:
            if error.code.startswith("HTTP"):
                raise
            found = diagnose_device(case.device_folder, case.tenant, **with_files)
    except OnboardingError as error:
        return error.code, None
    return found.code, found


#: Each case in the profiles in which it is one, where several on both versions of TLS.
ALL = [
    pytest.param(
        name, *pair, marks=[pytest.mark.slow] if pair in OTHER_PAIRS and len(row["profiles"].split()) > 1 else []
    )
    for name, row in CASES.items()
    for pair in (*PAIRS, *OTHER_PAIRS)
    if pair[0] in row["profiles"]
]


@pytest.mark.parametrize(("name", "profile", "tls"), ALL)
def test_what_is_predicted_is_what_the_platform_says(
    worlds: Callable[[str], Workspace], name: str, profile: str, tls: ssl.TLSVersion
) -> None:
    row, case = CASES[name], FailureCase(worlds(profile), name)
    try:
        code, found = predicted(case, tls)
        assert code == NOT_SEEN.get(name, row["code"]), found
        assert not found or len(found.refusals) == (code != "OK"), "a false second finding"
        assert not found or all(one.why and one.fix for one in found.findings)
        refusal, record = case.attempt(tls)
        assert (refusal is None) == (row["code"] == "OK"), refusal
        if record and row["log"] and not code.startswith(("SERVER", "HTTP")):
            assert record["code"] == ("CONNECTED" if code == "OK" else code)
        case.remedy()
        assert predicted(case, tls) == ("OK", Diagnosis()), "It is put right, and more is said."
        assert case.attempt(tls)[0] is None
    finally:
        case.leave()


def test_a_case_is_predicted_for_its_files_too(worlds: Callable[[str], Workspace]) -> None:
    case = FailureCase(worlds(GUIDE), "three-certificates")
    with_files: dict[str, Any] = {"client_id": case.client_id, "passphrase": case.passphrase}
    whole, other = case.device_folder, diagnose_device(case.device_folder, case.tenant, **with_files)
    assert other.code == "CHAIN_TOO_LONG" and other.findings[0].certificate
    one_by_one = [whole / "deviceCertChain.pem", whole / "deviceKey.pem"]
    assert diagnose_device(one_by_one, case.tenant, **with_files) == other
    case.leave()


def test_what_the_tenant_alone_knows(worlds: Callable[[str], Workspace], tmp_path: Path) -> None:
    workspace = worlds(CURRENT)
    case = FailureCase(workspace, "not-registered")
    tenant, trusted = case.tenant, case.tenant.trusted_certificates
    device, ca = case.device(), case.device().chain[-1]
    assert diagnose_device(device, tenant).code == "NOT_REGISTERED"
    trusted.update(ca, auto_registration=True)
    with device:
        pass  # it sends nothing, so no inventory has it, and yet it has a user
    trusted.update(ca, auto_registration=False)
    assert diagnose_device(device, tenant) == Diagnosis() and tenant.devices.find(device.client_id) is None
    with device:
        device.create()  # so that the case can take it out again
    trusted.revoke(device.chain[0])
    (found,) = diagnose_device(device, tenant).findings
    assert (found.code, found.severity, found.certificate) == ("REVOKED", WARNING, device.chain[0])
    with device:
        pass  # for the list is not checked
    trusted.check_revocations()
    assert diagnose_device(device, tenant).code == "REVOKED"
    trusted.check_revocations(False)
    case.leave()


def test_a_ca_in_another_tenant_of_the_platform(tmp_path: Path) -> None:
    with tools.started(tmp_path, CURRENT, tenants=2) as platform:
        own, other = platform.tenants
        ca = tools.make("CA", ca=True)
        files = tools.write_chain(entity := tools.make("dev", ca), tmp_path / "device.pem")
        assert diagnose_device(files, own).code == "UNKNOWN_CA"
        other.trusted_certificates.upload(ca.certificate)
        (found,) = diagnose_device(files, own).findings
        assert (found.code, found.severity) == ("OTHER_TENANT", WARNING) and other.tenant_id in found.sentence
        with tools.device(platform, tmp_path, entity) as (_, seen):
            assert seen.connack == 0
        assert platform.log().iloc[-1]["tenant"] == other.tenant_id
        assert diagnose_device(files, other) == Diagnosis()
        other.trusted_certificates.delete(ca.certificate)
        assert diagnose_device(files, own).code == "CA_DELETED"
        own.trusted_certificates.upload(ca.certificate)
        assert diagnose_device(files, own) == Diagnosis()
