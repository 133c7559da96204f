"""The panel of trusted certificates against the real local platform, and against servers that refuse, hang or lie."""

import contextlib
import dataclasses
import json
import re
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)
from hypothesis import example, given
from hypothesis import strategies as st
from platform_tools import DAY, device, make, wait_for
from test_tenant_calls import CERTIFICATE, EMPTY, GARBAGE, answer, scripted, server
from test_ui import NASTY, Tags, all_state

from mciot_nb import DistinguishedName, LocalPlatform, OnboardingError, Secret, Tenant, Workspace
from mciot_nb.connect import http as rest
from mciot_nb.pki.chain import is_ca, to_pem
from mciot_nb.pki.keystore import write_truststore
from mciot_nb.pki.uploads import ca_certificates
from mciot_nb.ui import trust_panel
from mciot_nb.ui.certificate_card import certificate_card
from mciot_nb.ui.inputs import LONGEST, FileField
from mciot_nb.ui.trust_panel import TrustedCertificatesPanel
from mciot_platform.identity import WITHOUT_ROLE

OWN_WORDS = "a passphrase of my own"


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPlatform]:
    platform = LocalPlatform.start(tmp_path_factory.mktemp("current"), "current", tenants=2)
    yield platform
    platform.stop()


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPlatform]:
    """A platform of the guide's time."""
    platform = LocalPlatform.start(tmp_path_factory.mktemp("old"))
    yield platform
    platform.stop()


@pytest.fixture
def tenant(platform: LocalPlatform) -> Tenant:
    """A tenant that trusts nothing yet."""
    for one in platform.tenant.trusted_certificates.list():
        platform.tenant.trusted_certificates.delete(one)
    return platform.tenant


@pytest.fixture
def workspace(quick_workspace: Workspace) -> Workspace:
    quick_workspace.create_ca(DistinguishedName(common_name="Our CA"))
    return quick_workspace


def real(tenant: Tenant) -> Tenant:
    """The same tenant, as if it were somebody's own."""
    return dataclasses.replace(tenant, is_local=False)


def show(tenant: Tenant, workspace: Workspace | None = None) -> TrustedCertificatesPanel:
    panel = TrustedCertificatesPanel(tenant, workspace)
    panel.wait()
    return panel


def said(panel: TrustedCertificatesPanel) -> str:
    return Tags(panel._message.value).text


def hint(panel: TrustedCertificatesPanel) -> str:
    return Tags(panel._hint.value).text


def hidden(part: Any) -> bool:
    return "mciot-hidden" in part._dom_classes


def rows(panel: TrustedCertificatesPanel) -> list[list[str]]:
    """What the table shows, without the keys."""
    return [row[1:] for row in panel.table.rows]


def names(panel: TrustedCertificatesPanel) -> list[str]:
    return [row[0] for row in rows(panel)]


def press(panel: TrustedCertificatesPanel, name: str, *, agree: bool | None = None) -> str:
    """Press a button, answer the question if there has to be one, and give what is said in the end."""
    button = panel.upload_part.button if name == "upload" else panel.buttons[name]
    button.click()
    assert bool(panel._question.children) == (agree is not None)
    if agree is not None:
        panel._question.children[-2 if agree else -1].click()
    panel.wait()
    assert not panel._question.children
    return said(panel)


def question(panel: TrustedCertificatesPanel) -> str:
    return Tags(panel._question.children[0].value).text


def hand_over(field: FileField, name: str, data: bytes) -> str:
    """Do what the browser does when somebody chooses a file, and give what is said to it."""
    field._receive(field, {"name": name, "size": len(data)}, [memoryview(data)] if len(data) <= LONGEST else [])
    return field.status


# -- the list


def test_the_list_is_shown_filtered_and_sorted(tenant: Tenant) -> None:
    trusted = tenant.trusted_certificates
    late = make("late", ca=True, ends=90 * DAY)
    trusted.upload(late.certificate, "Zeta", auto_registration=False)
    trusted.upload(make("a", ca=True).certificate, "alpha")
    trusted.disable(trusted.upload(make("b", ca=True).certificate, "Beta"))
    panel = show(tenant)
    assert said(panel) == "" and panel.opened is None and hidden(panel._opened)
    expected = ["Zeta", "✓ enabled", "off", "not proven"]
    assert rows(panel)[0][:4] == expected and rows(panel)[0][5] == late.fingerprint
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", rows(panel)[0][4])
    assert names(panel) == ["Zeta", "alpha", "Beta"]  # as the platform has them
    panel.table.sort = "Name"
    assert names(panel) == ["alpha", "Beta", "Zeta"]
    panel.table.sort = "Expires"
    assert names(panel)[-1] == "Zeta"
    panel.table.filter = "disabled"
    assert names(panel) == ["Beta"]
    panel.table.filter = late.fingerprint[:12]
    assert names(panel) == ["Zeta"]
    panel.table.filter = "no such thing"
    assert names(panel) == [] and panel.table.total == 3


def test_what_others_change_appears_by_itself_on_the_local_platform_only(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    local, other = show(tenant), show(real(tenant))
    calls: list[str] = []
    send = rest.send

    def watched(method: str, *given: Any, **named: Any) -> tuple[int, bytes]:
        calls.append(method)
        return send(method, *given, **named)

    monkeypatch.setattr(rest, "send", watched)
    monkeypatch.setattr(trust_panel, "READ_EVERY", 0.0)
    tenant.trusted_certificates.upload(make("CA", ca=True).certificate, "of another")
    calls.clear()
    other.poll()
    assert names(other) == [] and calls == []
    local.poll()
    assert names(local) == ["of another"] and calls == ["GET"]
    assert press(other, "refresh") == "✓ Read: 1 certificate." and names(other) == ["of another"]
    monkeypatch.setattr(trust_panel, "READ_EVERY", 1000.0)
    local.poll()
    calls.clear()
    local.poll()  # not so soon again
    assert calls == []
    assert "by itself" in hint(local) and "Refresh" in hint(other)


def test_a_local_platform_that_stops_is_said_and_so_is_its_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trust_panel, "READ_EVERY", 0.0)
    platform = LocalPlatform.start(tmp_path)
    ca = make("CA", ca=True)
    platform.tenant.trusted_certificates.upload(ca.certificate, "stays")
    panel = show(platform.tenant)
    platform.stop()
    panel.poll()
    assert "✗ The list may be old: " in hint(panel) and names(panel) == ["stays"]
    panel.table.opened = ca.fingerprint
    assert press(panel, "delete", agree=True).startswith("✗ ")
    assert names(panel) == ["stays"]
    again = LocalPlatform.start(tmp_path)
    try:
        if again.https == platform.https:  # it takes the same port where nobody else has taken it
            panel.poll()
            assert "by itself" in hint(panel)
            assert press(panel, "delete", agree=True) == "✓ Deleted “stays”." and names(panel) == []
    finally:
        again.stop()


def test_a_row_that_another_deletes_closes_and_its_question_goes(tenant: Tenant) -> None:
    trusted, ca = tenant.trusted_certificates, make("CA", ca=True)
    trusted.upload(ca.certificate)
    panel = show(tenant)
    panel.table.opened = ca.fingerprint
    assert not hidden(panel._opened)
    panel.buttons["delete"].click()
    assert panel._question.children
    trusted.delete(ca.certificate)
    panel.poll()
    assert panel.opened is None and hidden(panel._opened) and not panel._question.children
    for name in ("status", "automatic", "prove", "delete", "rename"):  # a press that was on its way
        assert press(panel, name) == ""


def test_a_tenant_that_knows_it_no_longer_says_so_and_the_list_is_read_again(tenant: Tenant) -> None:
    trusted, ca = tenant.trusted_certificates, make("CA", ca=True)
    trusted.upload(ca.certificate)
    panel = show(real(tenant))
    panel.table.opened = ca.fingerprint
    trusted.delete(ca.certificate)
    assert names(panel) == ["CA"]  # nobody has told it
    assert "answered 404: there is nothing at" in press(panel, "delete", agree=True)
    assert names(panel) == [] and panel.opened is None


# -- what is done with one


def test_one_is_disabled_and_enabled_and_its_devices_feel_it(
    tenant: Tenant, platform: LocalPlatform, tmp_path: Path
) -> None:
    ca = make("CA", ca=True)
    leaf = make("dev", ca)
    tenant.trusted_certificates.upload(ca.certificate)
    panel = show(tenant)
    panel.table.opened = ca.fingerprint
    with device(platform, tmp_path, leaf) as (_, seen):
        assert seen.connack == 0
        panel.buttons["status"].click()
        assert "ends the sessions of its devices" in question(panel)
        press_no = panel._question.children[-1]
        press_no.click()
        time.sleep(0.3)
        assert not seen.gone.is_set() and rows(panel)[0][1] == "✓ enabled"
        assert "✓ Disabled" in press(panel, "status", agree=True)
        wait_for(seen.gone.is_set)
    assert rows(panel)[0][1] == "✗ disabled" and panel.buttons["status"].description == "Enable"
    assert "none of its devices may connect" in Tags(panel._details.value).text
    with device(platform, tmp_path, leaf) as (_, seen):
        assert seen.connack != 0
    assert "✓ Enabled" in press(panel, "status")  # without a question
    assert rows(panel)[0][1] == "✓ enabled" and panel.buttons["status"].description == "Disable"
    with device(platform, tmp_path, leaf) as (_, seen):
        assert seen.connack == 0


def test_auto_registration_is_turned_off_and_on(tenant: Tenant, platform: LocalPlatform, tmp_path: Path) -> None:
    ca = make("CA", ca=True)
    tenant.trusted_certificates.upload(ca.certificate)
    panel = show(tenant)
    panel.table.opened = ca.fingerprint
    assert panel.buttons["automatic"].description == "Auto-registration off"
    assert press(panel, "automatic") == "✓ Auto-registration of “CA” is off."
    assert rows(panel)[0][2] == "off" and panel.buttons["automatic"].description == "Auto-registration on"
    new = make("new", ca)
    with device(platform, tmp_path, new, client_id="new") as (_, seen):
        assert seen.connack == 5
    assert press(panel, "automatic") == "✓ Auto-registration of “CA” is on."
    with device(platform, tmp_path, new, client_id="new") as (_, seen):
        assert seen.connack == 0


def test_one_is_renamed_and_a_name_is_wanted(tenant: Tenant) -> None:
    ca = make("CA", ca=True)
    tenant.trusted_certificates.upload(ca.certificate)
    panel = show(tenant)
    panel.table.opened = ca.fingerprint
    for blank in ("", "  "):
        panel.new_name.value = blank
        assert press(panel, "rename") == "✗ Type the new name first."
    panel.new_name.value = " Plant {2} <b> "
    assert press(panel, "rename") == "✓ “CA” is now “Plant {2} <b>”."
    assert names(panel) == ["Plant {2} <b>"] and panel.opened is not None
    panel.new_name.value = "x" * 257
    assert "answered 422" in press(panel, "rename") and names(panel) == ["Plant {2} <b>"]


def test_one_is_deleted_only_after_yes(tenant: Tenant) -> None:
    ca, other = make("CA", ca=True), make("Other", ca=True)
    for one in (ca, other):
        tenant.trusted_certificates.upload(one.certificate)
    panel = show(tenant)
    panel.table.opened = ca.fingerprint
    panel.buttons["delete"].click()
    assert "“CA”" in question(panel) and "ends the sessions of its devices" in question(panel)
    panel._question.children[-1].click()
    assert names(panel) == ["CA", "Other"] == [one.name for one in tenant.trusted_certificates.list()]
    panel.buttons["delete"].click()
    panel.table.opened = other.fingerprint  # another row: the question was not about this one
    assert not panel._question.children
    panel.table.opened = ca.fingerprint
    assert press(panel, "delete", agree=True) == "✓ Deleted “CA”."
    assert names(panel) == ["Other"] and panel.table.opened == ""
    assert tenant.trusted_certificates.find(ca.certificate) is None


def test_possession_is_proven_by_one_press_where_the_key_is_here(tenant: Tenant, workspace: Workspace) -> None:
    other = make("Foreign", ca=True)
    mine = tenant.trusted_certificates.upload(workspace.ca().certificate)
    foreign = tenant.trusted_certificates.upload(other.certificate)
    panel = show(tenant, workspace)
    panel.table.opened = foreign.fingerprint
    sentence = press(panel, "prove")
    assert "only its owner can prove possession" in sentence and "openssl dgst -sha256 -sign caKey.pem" in sentence
    assert [row[3] for row in rows(panel)] == ["not proven", "not proven"]
    panel.table.opened = mine.fingerprint
    assert press(panel, "prove").startswith("✓ Proven: the key of “Our CA”")
    assert [row[3] for row in rows(panel)] == ["✓ proven", "not proven"]
    assert "has shown to own its key" in Tags(panel._details.value).text
    without = show(tenant)
    without.table.opened = mine.fingerprint
    assert "only its owner" in press(without, "prove")


def test_an_intermediate_proves_possession_whoever_signs(tenant: Tenant, workspace: Workspace) -> None:
    workspace.create_intermediate(DistinguishedName(common_name="Middle"))
    assert workspace.issuer == "ca"
    middle = tenant.trusted_certificates.upload(workspace.intermediate().certificate)
    panel = show(tenant, workspace)
    panel.table.opened = middle.fingerprint
    assert press(panel, "prove").startswith("✓ Proven: the key of “Middle”")


def test_a_platform_of_the_guides_time_knows_no_proof(old: LocalPlatform, workspace: Workspace) -> None:
    mine = old.tenant.trusted_certificates.ensure(workspace.ca().certificate)
    foreign = old.tenant.trusted_certificates.upload(make("Foreign", ca=True).certificate)
    panel = show(old.tenant, workspace)
    assert {row[3] for row in rows(panel)} == {"-"}
    panel.table.opened = mine.fingerprint
    assert "this platform has no proof of possession" in press(panel, "prove")
    panel.table.opened = foreign.fingerprint
    assert "This platform does not know proof of possession" in press(panel, "prove")
    assert "✓ Disabled" in press(panel, "status", agree=True)  # what it does have


def test_a_passphrase_that_is_not_here_is_asked_for(tenant: Tenant, quick_workspace: Workspace) -> None:
    quick_workspace.type_passphrase(Secret(OWN_WORDS))
    quick_workspace.create_ca(DistinguishedName(common_name="Own CA"))
    later = Workspace(quick_workspace.folder)  # another notebook: nothing was typed there
    panel = show(tenant, later)
    assert "✓ Uploaded “Own CA”" in press(panel, "upload")  # needs no key
    panel.table.opened = panel.table.rows[0][0]
    assert "Type it in the field at the top of this notebook" in press(panel, "prove")
    later.type_passphrase(Secret(OWN_WORDS))
    assert "✓ Proven" in press(panel, "prove")


# -- what is uploaded


def offered(panel: TrustedCertificatesPanel) -> list[str]:
    return [label for label, _ in panel.upload_part.choice.options]


def test_the_ca_that_signs_is_preselected_shown_and_uploaded(tenant: Tenant, workspace: Workspace) -> None:
    panel = show(tenant, workspace)
    assert offered(panel) == ["Our CA (caCert.pem of the workspace, which signs your devices)"]
    workspace.create_intermediate(DistinguishedName(common_name="Middle"))
    workspace.choose_issuer("intermediate")
    press(panel, "refresh")
    assert offered(panel) == [
        "Our CA (caCert.pem of the workspace)",
        "Middle (intermediateCert.pem of the workspace, which signs your devices)",
    ]
    assert panel.upload_part.choice.value.issuer == "intermediate"
    assert panel.upload_part.card.value.endswith(certificate_card(workspace.issuer_certificate).html)
    assert press(panel, "upload") == "✓ Uploaded “Middle”, auto-registration on." and names(panel) == ["Middle"]
    assert "It is in the list already, as “Middle”: nothing was sent." in press(panel, "upload")
    panel.upload_part.choice.index = 0
    press(panel, "refresh")
    assert panel.upload_part.choice.index == 0  # what is chosen stays so
    panel.upload_part.automatic.value = False
    assert press(panel, "upload") == "✓ Uploaded “Our CA”, auto-registration off."
    assert [row[:3] for row in rows(panel)] == [["Middle", "✓ enabled", "on"], ["Our CA", "✓ enabled", "off"]]


def test_without_a_ca_there_is_nothing_to_upload_until_there_is_one(tenant: Tenant, quick_workspace: Workspace) -> None:
    for panel in (show(tenant), show(tenant, quick_workspace)):
        assert panel.upload_part.choice.disabled and "make a CA in 01" in panel.upload_part.card.value
        assert "nothing to upload yet" in press(panel, "upload")
    quick_workspace.create_ca(DistinguishedName(common_name="Late"))
    press(panel, "refresh")
    assert not panel.upload_part.choice.disabled and "✓ Uploaded “Late”" in press(panel, "upload")


def test_a_practice_ca_goes_to_a_real_tenant_only_when_it_is_meant(tenant: Tenant, workspace: Workspace) -> None:
    local, own = show(tenant, workspace), show(real(tenant), workspace)
    part = own.upload_part
    assert hidden(local.upload_part._warning) and local.upload_part.automatic.value
    assert not hidden(part._warning) and not part.automatic.value
    assert "Nothing was sent" in press(own, "upload")
    pem = to_pem([workspace.ca().certificate])
    hand_over(part.file, "copy.pem", pem)  # by another way it is the same CA
    assert part.choice.value.issuer == "" and not hidden(part._warning)
    assert "Nothing was sent" in press(own, "upload")
    assert tenant.trusted_certificates.list() == []
    hand_over(part.file, "foreign.pem", make("Foreign", ca=True).pem.encode())
    assert hidden(part._warning)  # nobody here could sign with that one
    assert "✓ Uploaded “Foreign”, auto-registration off." in press(own, "upload")
    part.choice.index = 0
    part.consent.value = True
    assert press(own, "upload") == "✓ Uploaded “Our CA”, auto-registration off."
    assert not part.consent.value  # it was given for this once


def test_a_ca_with_a_passphrase_of_ones_own_goes_to_a_real_tenant(tenant: Tenant, quick_workspace: Workspace) -> None:
    quick_workspace.type_passphrase(Secret(OWN_WORDS))
    quick_workspace.create_ca(DistinguishedName(common_name="Own CA"))
    panel = show(real(tenant), quick_workspace)
    assert hidden(panel.upload_part._warning)
    panel.upload_part.automatic.value = True
    assert press(panel, "upload") == "✓ Uploaded “Own CA”, auto-registration on."


def test_the_workspaces_own_rule_stands_behind_the_box(
    tenant: Tenant, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MCIOT_PASSPHRASE", (workspace.folder / "passphrase").read_text())
    panel = show(real(tenant), workspace)
    assert not hidden(panel.upload_part._warning)
    assert "Nothing was sent: this is a practice CA." in press(panel, "upload")
    assert tenant.trusted_certificates.list() == []
    panel.upload_part.consent.value = True
    assert "✓ Uploaded “Our CA”" in press(panel, "upload")


def test_what_was_not_looked_at_is_not_uploaded(tenant: Tenant, workspace: Workspace) -> None:
    panel = show(real(tenant), workspace)
    panel.upload_part.consent.value = True
    workspace.create_ca(DistinguishedName(common_name="Another"))
    assert "another CA is in the workspace now" in press(panel, "upload") and names(panel) == []
    assert offered(panel) == ["Another (caCert.pem of the workspace, which signs your devices)"]
    assert "Another" in panel.upload_part.card.value
    panel.upload_part.consent.value = True
    assert "✓ Uploaded “Another”" in press(panel, "upload")


def test_a_workspace_that_cannot_be_read_is_named_and_a_file_still_goes(tenant: Tenant, workspace: Workspace) -> None:
    (workspace.ca_folder / "caCert.pem").write_text("no certificate")
    panel = show(tenant, workspace)
    assert offered(panel) == [] and "no certificate in PEM form" in panel.upload_part.card.value
    hand_over(panel.upload_part.file, "x.pem", make("Foreign", ca=True).pem.encode())
    assert "✓ Uploaded “Foreign”" in press(panel, "upload")


# -- files


ROOT_CA = make("Root", ca=True)
MIDDLE = make("Middle", ROOT_CA, ca=True)
LEAF = make("leaf", MIDDLE)
DER = ROOT_CA.certificate.public_bytes(Encoding.DER)
KEY = ROOT_CA.key
WORD = b"a password"
GOOD = {
    "PEM": ROOT_CA.pem.encode(),
    "text before": b"Certificate:\n    Data:\n        Version: 3 (0x2)\n" + ROOT_CA.pem.encode() + b"\nthe end\n",
    "text from a zero on": b"0 and more\n" + ROOT_CA.pem.encode(),
    "carriage returns": ROOT_CA.pem.replace("\n", "\r\n").encode(),
    "PowerShell's": b"\xff\xfe" + ROOT_CA.pem.encode("utf-16-le"),
    "an editor's mark": b"\xef\xbb\xbf" + ROOT_CA.pem.encode(),
    "DER": DER,
    "twice": ROOT_CA.pem.encode() * 2,
    "a chain without the middle": (LEAF.pem + ROOT_CA.pem).encode(),
}


def key_file(encoding: Encoding, format: PrivateFormat, password: bytes | None = None) -> bytes:
    return KEY.private_bytes(encoding, format, BestAvailableEncryption(password) if password else NoEncryption())


PKCS8, OLDER = PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL
BAD = {
    "empty": (b"", "EMPTY"),
    "blank": (b" \r\n\n", "EMPTY"),
    "key": (key_file(Encoding.PEM, PKCS8), "PRIVATE_KEY"),
    "older key": (key_file(Encoding.PEM, OLDER), "PRIVATE_KEY"),
    "encrypted key": (key_file(Encoding.PEM, PKCS8, WORD), "PRIVATE_KEY"),
    "key for ssh": (key_file(Encoding.PEM, PrivateFormat.OpenSSH), "PRIVATE_KEY"),
    "key and certificate": (ROOT_CA.pem.encode() + key_file(Encoding.PEM, PKCS8), "PRIVATE_KEY"),
    "PowerShell's key": (b"\xff\xfe" + key_file(Encoding.PEM, PKCS8).decode().encode("utf-16-le"), "PRIVATE_KEY"),
    "DER key": (key_file(Encoding.DER, PKCS8), "PRIVATE_KEY"),
    "older DER key": (key_file(Encoding.DER, OLDER), "PRIVATE_KEY"),
    "encrypted DER key": (key_file(Encoding.DER, PKCS8, WORD), "PRIVATE_KEY"),
    "PKCS12": (
        pkcs12.serialize_key_and_certificates(b"x", KEY, ROOT_CA.certificate, None, BestAvailableEncryption(WORD)),
        "KEYSTORE",
    ),
    "open PKCS12": (pkcs12.serialize_key_and_certificates(b"x", KEY, None, None, NoEncryption()), "KEYSTORE"),
    "BKS": (b"\0\0\0\2rest", "KEYSTORE"),
    "JCEKS": (b"\xce\xce\xce\xcerest", "KEYSTORE"),
    "device": (LEAF.pem.encode(), "NOT_A_CA"),
    "DER device": (LEAF.certificate.public_bytes(Encoding.DER), "NOT_A_CA"),
    "half": (ROOT_CA.pem[:200].encode(), "BAD_PEM"),
    "half DER": (DER[:200], "BAD_PEM"),
    "version 116": (DER.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x73", 1), "BAD_PEM"),
    "DER and more": (DER + b"x", "BAD_PEM"),
    "typographic dashes": (ROOT_CA.pem.replace("-----", "—\N{EN DASH}").encode(), "BAD_PEM"),
    "public key": (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "BAD_PEM"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(2000), "BAD_PEM"),
}


@pytest.mark.parametrize("kind", GOOD)
def test_the_ca_certificates_of_a_file_are_found(kind: str) -> None:
    assert ca_certificates("any name.txt", GOOD[kind]) == [ROOT_CA.certificate]


def test_a_file_with_a_ca_is_offered_shown_and_uploaded(tenant: Tenant) -> None:
    panel = show(tenant)
    status = hand_over(panel.upload_part.file, "any name.txt", GOOD["DER"])
    assert status.startswith("✓ any name.txt holds a CA certificate") and "Nothing was sent yet" in status
    assert offered(panel) == ["Root (from any name.txt)"] and tenant.trusted_certificates.list() == []
    assert ROOT_CA.fingerprint in panel.upload_part.card.value
    assert "✓ Uploaded “Root”" in press(panel, "upload")
    assert tenant.trusted_certificates.find(ROOT_CA.certificate) is not None


def test_a_file_that_comes_while_the_workspace_is_looked_into_stays_chosen(
    tenant: Tenant, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = show(tenant, workspace).upload_part
    workspace.create_ca(DistinguishedName(common_name="Another"))
    halfway, go_on = threading.Event(), threading.Event()

    def dawdle(change: Any) -> None:  # between the list and the choice in it
        if threading.current_thread() is looking and not halfway.is_set():
            halfway.set()
            go_on.wait(0.5)  # with the lock the file has to wait for us

    part.choice.observe(dawdle, "index")
    looking = threading.Thread(target=part.refresh)
    looking.start()
    assert halfway.wait(10)
    assert hand_over(part.file, "x.pem", make("Foreign", ca=True).pem.encode()).startswith("✓ ")
    go_on.set()
    looking.join()
    assert part.choice.label == "Foreign (from x.pem)" and len(part.choice.options) == 2


def test_of_a_chain_the_ca_certificates_are_offered_and_one_is_chosen(tenant: Tenant, workspace: Workspace) -> None:
    panel = show(tenant, workspace)
    status = hand_over(panel.upload_part.file, "chain.pem", to_pem(LEAF.chain))
    assert "holds 2 CA certificates: choose one above" in status
    assert offered(panel)[1:] == ["Middle (from chain.pem)", "Root (from chain.pem)"]
    assert MIDDLE.fingerprint in panel.upload_part.card.value  # the device's issuer
    panel.upload_part.choice.index = 2
    assert ROOT_CA.fingerprint in panel.upload_part.card.value
    assert "✓ Uploaded “Root”" in press(panel, "upload") and names(panel) == ["Root"]
    hand_over(panel.upload_part.file, "other.pem", make("Other", ca=True).pem.encode())
    assert offered(panel)[1:] == ["Other (from other.pem)"]  # what a file held before is gone


@pytest.mark.parametrize("kind", BAD)
def test_a_file_of_another_kind_is_refused_in_a_sentence(kind: str) -> None:
    data, code = BAD[kind]
    with pytest.raises(OnboardingError) as error:
        ca_certificates("name.bin", data)
    sentence = str(error.value)
    assert error.value.code == code and sentence.startswith("name.bin") and sentence.endswith(".")
    assert "\n" not in sentence and len(sentence) < 400
    assert ("It was neither sent nor kept." in sentence) == (code in ("PRIVATE_KEY", "KEYSTORE"))


def test_a_file_that_is_refused_is_not_sent(tenant: Tenant, workspace: Workspace, platform: LocalPlatform) -> None:
    with scripted(tenant, EMPTY) as (watched, calls):
        panel = show(watched, workspace)
        before = len(calls)
        for data, _ in BAD.values():
            assert hand_over(panel.upload_part.file, "name.bin", data).startswith("✗ name.bin")
        assert len(calls) == before and len(offered(panel)) == 1


@pytest.mark.parametrize("kind", ["jks", "pkcs12"])
def test_stores_that_were_made_by_us_are_refused(tmp_path: Path, kind: str) -> None:
    write_truststore(path := tmp_path / f"store.{kind}", {"x": ROOT_CA.certificate}, Secret(OWN_WORDS))
    with pytest.raises(OnboardingError) as error:
        ca_certificates("store", path.read_bytes())
    assert error.value.code == "KEYSTORE"


def test_a_file_field_checks_the_size_itself_and_names_what_the_browser_found() -> None:
    taken: list[tuple[str, bytes]] = []
    field = FileField("A file", lambda name, data: taken.append((name, data)) or "✓ taken", longest=10)
    field._receive(field, {"name": "a", "size": 10}, [memoryview(b"0123456789")])
    assert field.status == "✓ taken" and taken == [("a", b"0123456789")]
    field._receive(field, {"name": "a", "size": 1}, [memoryview(b"0123456789+")])  # whatever it says of itself
    assert field.status == "✗ a has 11 bytes, and a certificate some thousands: it was not read; choose another."
    field._receive(field, {"name": "big", "size": 5_000_000_000}, [])
    assert "5,000,000,000 bytes" in field.status
    for problem, words in {
        "several": "one at a time",
        "folder": "{x} is a folder",
        "unreadable": "can't be read",
    }.items():
        field._receive(field, {"name": "{x}", "size": 1, "problem": problem}, [])
        assert field.status.startswith("✗ ") and words in field.status
    assert len(taken) == 1
    field._receive(field, {"name": "empty", "size": 0}, [])
    assert taken[1] == ("empty", b"")
    assert repr(field) == "A file: to be chosen here."


def test_the_files_bytes_are_in_no_state(tenant: Tenant) -> None:
    panel = show(tenant)
    hand_over(panel.upload_part.file, "key.pem", pem := key_file(Encoding.PEM, PKCS8))
    hand_over(panel.upload_part.file, "ca.pem", ROOT_CA.pem.encode())
    state = all_state(panel)
    for line in pem.decode().splitlines()[1:-1]:
        assert line not in state
    assert ROOT_CA.pem.splitlines()[1] not in state
    assert "Root (from ca.pem)" in state  # the control: this is its state


KINDS = GOOD | {kind: data for kind, (data, _) in BAD.items()}


def damaged(kind: str, position: int, byte: int) -> bytes:
    data = bytearray(KINDS[kind] or b"0")
    data[position % len(data)] = byte
    return bytes(data)


ODD_BYTES = st.binary(max_size=200) | st.builds(
    damaged, st.sampled_from([*KINDS]), st.integers(0, 10_000), st.integers(0, 255)
)


@given(ODD_BYTES)
@example(b"\x30\x80" + bytes(400_000))
@example(b"\x30\x83\x06\x1a\x80" + bytes(400_000))
@example(b"-----BEGIN CERTIFICATE-----\n" * 10_000)
def test_whatever_a_file_holds_ends_in_certificates_or_a_sentence(data: bytes) -> None:
    try:
        found = ca_certificates("odd", data)
    except OnboardingError as error:
        assert str(error).startswith("odd")
        return
    assert found and all(map(is_ca, found))
    for certificate in found:
        assert certificate_card(certificate).html


# -- what can go wrong


def test_a_user_without_the_role_is_told_so(tenant: Tenant, platform: LocalPlatform, workspace: Workspace) -> None:
    known = json.loads((platform.folder / "credentials.json").read_text())[tenant.tenant_id]["others"][0]
    viewer = dataclasses.replace(tenant, user=known["user"], password=Secret(known["password"]))
    assert known["user"] == WITHOUT_ROLE
    mine = tenant.trusted_certificates.upload(workspace.ca().certificate, "trusted")
    panel = show(viewer, workspace)
    assert "403: viewer may not do that: ask an administrator for the role ROLE_TENANT_ADMIN" in said(panel)
    assert "403" in repr(panel) and "403" in press(panel, "refresh") and "403" in press(panel, "upload")
    panel = show(tenant, workspace)  # and when the role is taken away while somebody looks
    panel._tenant = viewer
    panel.table.opened = mine.fingerprint
    panel.new_name.value = "other"
    for name, agree in {"status": True, "automatic": None, "prove": None, "rename": None, "delete": True}.items():
        assert "answered 403" in press(panel, name, agree=agree)
    assert names(panel) == ["trusted"] and "may be old" in hint(panel)
    assert tenant.trusted_certificates.list() == [mine]


def test_a_wrong_password_and_a_wrong_tenant_are_told(tenant: Tenant) -> None:
    word = secrets.token_hex()
    wrong = show(dataclasses.replace(tenant, password=Secret(word)))
    assert "401: the login of admin was refused" in said(wrong) and word not in all_state(wrong)
    assert "tenant ID t9999" in said(show(dataclasses.replace(tenant, tenant_id="t9999")))


def test_a_certificate_of_another_tenant_and_one_that_is_refused(tenant: Tenant, platform: LocalPlatform) -> None:
    other, taken = platform.tenants[1].trusted_certificates, make("Taken", ca=True)
    other.upload(taken.certificate)
    panel = show(tenant)
    hand_over(panel.upload_part.file, "taken.pem", taken.pem.encode())
    assert "answered 409: this certificate is there already, in this tenant or in another one" in press(panel, "upload")
    other.delete(taken.certificate)
    assert "✓ Uploaded “Taken”" in press(panel, "upload")
    expired = make("Expired", ca=True, begins=-9 * DAY, ends=-DAY)
    hand_over(panel.upload_part.file, "expired.pem", expired.pem.encode())
    assert "expired" in Tags(panel.upload_part.card.value).text
    assert "answered 422: it can't use this certificate" in press(panel, "upload")


@pytest.mark.parametrize("kind", ["HTML", "half JSON", "wrong fields", "no date", "another success"])
def test_garbage_is_named(tenant: Tenant, platform: LocalPlatform, kind: str) -> None:
    with scripted(tenant, GARBAGE[kind]) as (odd, _):
        panel = show(odd)
        assert "no tenant's REST interface" in said(panel) and "no tenant's" in Tags(panel.static_html()).text
        assert rows(panel) == []


def test_odd_certificates_are_shown_as_they_are(tenant: Tenant, platform: LocalPlatform) -> None:
    odd = [
        CERTIFICATE | {"name": "", "status": "PENDING", "notAfter": "9999-12-31T23:59:59Z"},
        CERTIFICATE | {"name": "same fingerprint", "notAfter": "1999-12-31T23:59:59Z"},
        CERTIFICATE | {"name": "\u202egpj.exe", "fingerprint": "cd" * 20},
    ]
    with scripted(tenant, answer({"certificates": odd})) as (lying, _):
        panel = show(lying)
    assert [row[:5] for row in rows(panel)] == [
        ["same fingerprint", "✓ enabled", "off", "-", "✗ expired 1999-12-31 23:59 UTC"],
        ["\N{REPLACEMENT CHARACTER}gpj.exe", "✓ enabled", "off", "-", "2041-08-29 07:42 UTC"],
    ]
    with scripted(tenant, answer({"certificates": odd[:1]})) as (lying, _):
        panel = show(lying)
    assert rows(panel)[0][:5] == ["(no name)", "⚠ PENDING", "off", "-", "9999-12-31 23:59 UTC"]


@contextlib.contextmanager
def hanging(
    tenant: Tenant, platform: LocalPlatform, method: bytes
) -> Iterator[tuple[Tenant, threading.Event, list[bytes]]]:
    """The tenant behind a server that takes calls of this method and says nothing, until the event is set."""
    go_on, calls = threading.Event(), []

    def talk(connection: socket.socket) -> None:
        asked = connection.recv(65536)
        calls.append(asked.split(b" ")[0])
        if asked.startswith(method):
            go_on.wait(30)
        body = {"certificates": [CERTIFICATE]} if asked.startswith(b"GET") else CERTIFICATE
        if b"/" + b"ab" * 20 in asked.split(b"\r\n")[0]:
            body = CERTIFICATE
        connection.sendall(answer(body))

    with server(platform, talk) as port:
        yield dataclasses.replace(tenant, url=f"https://127.0.0.1:{port}"), go_on, calls
        go_on.set()


def test_a_tenant_that_hangs_stops_nobody(
    tenant: Tenant, platform: LocalPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trust_panel, "PATIENCE", 0.05)
    with hanging(tenant, platform, b"GET") as (slow, go_on, calls):
        panel = TrustedCertificatesPanel(slow)
        assert said(panel) == "Reading the list …" and "has not answered yet" in repr(panel)
        for _ in range(5):
            panel.buttons["refresh"].click()
            panel.poll()
        assert said(panel) == "Reading the list … Pressed twice: it is done once."
        hand_over(panel.upload_part.file, "ca.pem", ROOT_CA.pem.encode())
        panel.upload_part.button.click()
        hand_over(panel.upload_part.file, "other.pem", make("Other", ca=True).pem.encode())
        assert said(panel) == "Reading the list … Next: Uploading."
        wait_for(lambda: calls)
        assert calls == [b"GET"]
        go_on.set()
        panel.wait()
        assert names(panel) == ["CA"] and len(calls) > 1  # the upload has asked whether it is there
        assert said(panel) and "…" not in said(panel)


def test_a_hasty_press_does_nothing_twice_and_none_is_lost(tenant: Tenant, platform: LocalPlatform) -> None:
    with hanging(tenant, platform, b"DELETE") as (slow, go_on, calls):
        panel = show(slow)
        panel.table.opened = panel.table.rows[0][0]
        panel.buttons["delete"].click()
        yes = panel._question.children[-2]
        for _ in range(3):
            yes.click()
        wait_for(lambda: b"DELETE" in calls)
        for _ in range(3):
            panel.buttons["automatic"].click()
        assert said(panel) == "Deleting … Next: Changing. Pressed twice: it is done once."
        panel.buttons["delete"].click()
        assert panel._question.children and "Deleting …" in said(panel)
        go_on.set()
        panel.wait()
        assert calls.count(b"DELETE") == 1 and calls.count(b"PUT") == 1
        assert said(panel) == "✓ Deleted “CA”. ✓ Auto-registration of “CA” is on."


# -- the static picture


def sanitized(text: str) -> str:
    patterns = re.findall(r"regex: (.*)\nreplace: (.*)", (Path(__file__).parent / "sanitize.cfg").read_text())
    for pattern, word in patterns:
        text = re.sub(pattern, word, text)
    return text


def test_the_static_picture_is_the_list_and_the_same_in_every_run(tenant: Tenant) -> None:
    pictures = []
    for _ in range(2):
        uploaded = [tenant.trusted_certificates.upload(make(name, ca=True).certificate) for name in ("One", "Two")]
        tenant.trusted_certificates.disable(uploaded[1])
        bundle = TrustedCertificatesPanel(tenant)._repr_mimebundle_()  # at once, as a notebook does
        bundle.pop("application/vnd.jupyter.widget-view+json")
        pictures.append(bundle)
        for one in uploaded:
            tenant.trusted_certificates.delete(one)
    assert pictures[0] != pictures[1]  # the control: other fingerprints
    assert sanitized(str(pictures[0])) == sanitized(str(pictures[1]))
    text = pictures[0]["text/plain"].splitlines()
    assert text[0] == "Trusted certificates of tenant t1001"
    assert text[1] == "  One  ✓ enabled, auto-registration on" and re.fullmatch(r" +[0-9a-f]{40}", text[2])
    assert text[3] == "  Two  ✗ disabled, auto-registration on"
    shown = Tags(pictures[0]["text/html"]).text
    for word in ("Name", "Status", "Auto-registration", "Fingerprint", "One", "✗ disabled"):
        assert word in shown
    assert repr(show(tenant)) == "Trusted certificates of tenant t1001: none yet."


def test_a_long_list_is_cut_in_the_picture_alone(tenant: Tenant, platform: LocalPlatform) -> None:
    many = [CERTIFICATE | {"name": f"CA {number}", "fingerprint": f"{number:040x}"} for number in range(99)]
    with scripted(tenant, answer({"certificates": many})) as (full, _):
        panel = show(full)
    assert panel.table.total == 99
    assert "CA 49" in repr(panel) and "CA 50" not in repr(panel) and "and 49 certificates more" in repr(panel)
    assert "and 49 certificates more" in panel.static_html() and len(panel.static_html()) < 25_000


@pytest.mark.parametrize("nasty", NASTY)
def test_no_name_becomes_markup(tenant: Tenant, nasty: str) -> None:
    ca = make(nasty, ca=True)
    panel = show(tenant)
    hand_over(panel.upload_part.file, nasty, ca.pem.encode())
    assert f"✓ Uploaded “{nasty}”" in press(panel, "upload")
    panel.table.opened = ca.fingerprint
    for name in ("delete", "status"):
        panel.buttons[name].click()
        assert f"“{nasty}”" in question(panel)
        assert Tags(panel._question.children[0].value).tags == ["span"]
        panel.ask_nothing()
    for markup in (panel._details.value, panel.upload_part.card.value, panel.static_html(), panel._message.value):
        assert "script" not in Tags(markup).tags
    assert nasty in Tags(panel._details.value).text and nasty in Tags(panel.static_html()).text
    assert nasty in repr(panel) and names(panel) == [nasty]
