"""The panel of trusted certificates against the real local platform, and against servers that refuse, hang or lie."""

import dataclasses
import json
import re
import secrets
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import example, given
from hypothesis import strategies as st
from platform_tools import DAY, make, wait_for
from test_tenant_calls import CERTIFICATE, EMPTY, answer, scripted, server
from test_ui import NASTY, Tags, all_state

from mciot_nb import DistinguishedName, LocalPlatform, OnboardingError, Secret, Tenant, Workspace
from mciot_nb.connect import http as rest
from mciot_nb.pki.chain import is_ca, to_pem
from mciot_nb.pki.uploads import ca_certificates
from mciot_nb.ui import trust_panel
from mciot_nb.ui.certificate_card import certificate_card
from mciot_nb.ui.inputs import LONGEST, FileField
from mciot_nb.ui.trust_panel import TrustedCertificatesPanel
from mciot_platform.identity import WITHOUT_ROLE

OWN_WORDS = "a passphrase of my own"
NO_FILES = tempfile.TemporaryDirectory()  # a workspace in which nothing was made


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
    own = dataclasses.replace(tenant, is_local=False)
    object.__setattr__(own, "is_for_practice", lambda: False)
    return own


def show(tenant: Tenant, workspace: Workspace | None = None) -> TrustedCertificatesPanel:
    panel = TrustedCertificatesPanel(workspace or Workspace(Path(NO_FILES.name)), tenant)
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


def test_the_list_is_shown_and_sorted(tenant: Tenant) -> None:
    trusted, late = tenant.trusted_certificates, make("late", ca=True, ends=90 * DAY)
    trusted.upload(late.certificate, "Zeta", auto_registration=False)
    trusted.upload(make("a", ca=True).certificate, "alpha")
    trusted.update(trusted.upload(make("b", ca=True).certificate, "Beta"), status="DISABLED")
    panel = show(tenant)
    assert said(panel) == "" and panel.opened is None and hidden(panel._opened)
    assert rows(panel)[0][:4] == ["Zeta", "✓ enabled", "off", "not proven"] and rows(panel)[0][5] == late.fingerprint
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", rows(panel)[0][4])
    assert names(panel) == ["Zeta", "alpha", "Beta"]  # as the platform has them
    for column, order in (("Name", ["alpha", "Beta", "Zeta"]), ("Expires", ["alpha", "Beta", "Zeta"])):
        panel.table.sort = column
        assert names(panel) == order


def test_what_others_change_appears_by_itself_on_the_local_platform_only(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    local, other = show(tenant), show(real(tenant))
    calls, send = list[str](), rest.send
    monkeypatch.setattr(
        rest, "send", lambda method, *given, **named: calls.append(method) or send(method, *given, **named)
    )
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
    assert "by themselves" in hint(local) and "Refresh" in hint(other)


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
    assert "✗ The list may be out of date: " in hint(panel) and names(panel) == ["stays"]
    panel.table.opened = ca.fingerprint
    assert press(panel, "delete", agree=True).startswith("✗ ")
    assert names(panel) == ["stays"]
    again = LocalPlatform.start(tmp_path)
    try:
        if again.https == platform.https:  # it takes the same port where nobody else has taken it
            panel.poll()
            assert "by themselves" in hint(panel)
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
        assert press(panel, name) == "✗ Nothing was done: that certificate is no longer in the list."


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


def test_one_is_disabled_enabled_and_renamed(tenant: Tenant) -> None:
    tenant.trusted_certificates.upload((ca := make("CA", ca=True)).certificate)
    panel = show(tenant)
    panel.table.opened = ca.fingerprint
    panel.buttons["status"].click()
    assert "ends the sessions of its devices" in question(panel)
    panel._question.children[-1].click()
    assert rows(panel)[0][1] == "✓ enabled"
    changes = [
        ("status", "Disable", True, "✓ Disabled “CA”: no device under it may connect.", "✗ disabled"),
        ("status", "Enable", None, "✓ Enabled “CA”: its devices may connect.", "✓ enabled"),
        ("automatic", "Auto-registration off", None, "✓ Auto-registration of “CA” is off.", "off"),
        ("automatic", "Auto-registration on", None, "✓ Auto-registration of “CA” is on.", "on"),
    ]
    for name, label, agree, sentence, shown in changes:
        assert panel.buttons[name].description == label and press(panel, name, agree=agree) == sentence
        assert shown in rows(panel)[0]
        may = "none of its devices may connect" in Tags(panel._details.value).text
        assert may == (shown == "✗ disabled")
    for name, sentence in {
        "": "✗ Type the new name first.",
        "  ": "✗ Type the new name first.",
        " Plant {2} <b> ": "✓ “CA” is now “Plant {2} <b>”.",
        "x" * 257: "answered 422",
    }.items():
        panel.new_name.value = name
        assert sentence in press(panel, "rename")
    assert names(panel) == ["Plant {2} <b>"] and panel.opened is not None


def test_one_is_deleted_only_after_yes(tenant: Tenant) -> None:
    ca, other = make("CA", ca=True), make("Other", ca=True)
    tenant.trusted_certificates.upload_all([ca.certificate, other.certificate])
    panel = show(tenant)
    panel.table.opened = ca.fingerprint
    panel.buttons["delete"].click()
    assert "“CA”" in question(panel) and "ends the sessions of its devices" in question(panel)
    panel.table.opened = other.fingerprint  # another row: the question was not about this one
    assert not panel._question.children
    panel.table.opened = ca.fingerprint
    press(panel, "delete", agree=False)
    assert names(panel) == ["CA", "Other"] == [one.name for one in tenant.trusted_certificates.list()]
    assert press(panel, "delete", agree=True) == "✓ Deleted “CA”."
    assert names(panel) == ["Other"] == [one.name for one in tenant.trusted_certificates.list()]


def test_possession_is_proven_by_one_press_where_the_key_is_here(tenant: Tenant, workspace: Workspace) -> None:
    workspace.create_intermediate(DistinguishedName(common_name="Middle"))
    trusted, others = tenant.trusted_certificates, [make("Foreign", ca=True).certificate]
    mine, middle, foreign = map(trusted.upload, [*workspace.issuer_certificates.values(), *others])
    panel, without = show(tenant, workspace), show(tenant)
    without.table.opened = mine.fingerprint
    panel.table.opened = foreign.fingerprint
    for one in (panel, without):
        sentence = press(one, "prove")
        assert "only its owner can prove possession" in sentence and "openssl dgst -sha256 -sign caKey.pem" in sentence
    for own in (mine, middle):  # whichever signs
        panel.table.opened = own.fingerprint
        assert press(panel, "prove") == f"✓ Proven: the key of “{own.name}” signed the tenant's code."
    assert [row[3] for row in rows(panel)] == ["✓ proven", "✓ proven", "not proven"]
    assert "has proven that they have its private key" in Tags(panel._details.value).text


def test_a_platform_of_the_guides_time_knows_no_proof(old: LocalPlatform, workspace: Workspace) -> None:
    mine = old.tenant.trusted_certificates.ensure(workspace.ca().certificate)
    foreign = old.tenant.trusted_certificates.upload(make("Foreign", ca=True).certificate)
    panel = show(old.tenant, workspace)
    assert {row[3] for row in rows(panel)} == {"-"}
    panel.table.opened = mine.fingerprint
    assert "this platform has no proof of possession" in press(panel, "prove")
    panel.table.opened = foreign.fingerprint
    assert "This platform does not support proof of possession" in press(panel, "prove")
    assert "✓ Disabled" in press(panel, "status", agree=True)  # what it does have


def test_a_passphrase_that_is_not_here_is_asked_for(tenant: Tenant, quick_workspace: Workspace) -> None:
    quick_workspace.type_passphrase(Secret(OWN_WORDS))
    quick_workspace.create_ca(DistinguishedName(common_name="Own CA"))
    later = Workspace(quick_workspace.folder)  # another notebook: nothing was typed there
    panel = show(real(tenant), later)
    assert hidden(panel.upload_part._warning)  # it is no practice CA
    panel.upload_part.automatic.value = True
    assert press(panel, "upload") == "✓ Uploaded “Own CA”, auto-registration on."  # needs no key
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
    assert "It is already in the list, as “Middle”: nothing was sent." in press(panel, "upload")
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
    assert offered(panel) == [] and "not a certificate in PEM form" in panel.upload_part.card.value
    hand_over(panel.upload_part.file, "x.pem", make("Foreign", ca=True).pem.encode())
    assert "✓ Uploaded “Foreign”" in press(panel, "upload")


# -- files


ROOT_CA = make("Root", ca=True)
MIDDLE = make("Middle", ROOT_CA, ca=True)
LEAF = make("leaf", MIDDLE)
DER = ROOT_CA.certificate.public_bytes(Encoding.DER)
KEY = ROOT_CA.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
#: What `ca_certificates` adds to `parse_upload`, whose forms and kinds test_chain.py has.
GOOD = {
    "DER": DER,
    "text from a zero on": b"0 and more\n" + ROOT_CA.pem.encode(),
    "twice": ROOT_CA.pem.encode() * 2,
    "a chain without the middle": (LEAF.pem + ROOT_CA.pem).encode(),
}
BAD = {
    "is empty": b"",
    "is empty: choose": b" \r\n\n",
    "holds a private key": ROOT_CA.pem.encode() + KEY,
    "is a keystore": b"\xce\xce\xce\xcerest",
    "which is not a CA's": LEAF.pem.encode(),
    "not a certificate in PEM form": DER + b"x",
    "This is not a certificate in PEM form": b"\x89PNG\r\n\x1a\n" + bytes(2000),
}


def test_of_a_file_the_ca_certificates_are_offered_and_nothing_is_sent(tenant: Tenant) -> None:
    with scripted(tenant, EMPTY) as (watched, calls):
        panel, before = show(watched), len(calls)
        for sentence, data in BAD.items():
            status = hand_over(panel.upload_part.file, "name.bin", data)
            assert status.startswith("✗ name.bin") and sentence in status and status.endswith(".")
            assert ("It was neither sent nor kept." in status) == ("key" in sentence)
        assert offered(panel) == []
        for data in GOOD.values():
            status = hand_over(panel.upload_part.file, "any name.txt", data)
            assert (
                status.startswith("✓ any name.txt holds a CA certificate:") and "Nothing is sent before that" in status
            )
            assert offered(panel) == ["Root (from any name.txt)"]
        assert len(calls) == before


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
    assert halfway.wait(60)
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


def test_a_file_field_checks_the_size_itself_and_names_what_the_browser_found() -> None:
    taken: list[tuple[str, bytes]] = []
    field = FileField("A file", lambda name, data: taken.append((name, data)) or "✓ taken", longest=10)
    field._receive(field, {"name": "a", "size": 10}, [memoryview(b"0123456789")])
    assert field.status == "✓ taken" and taken == [("a", b"0123456789")]
    field._receive(field, {"name": "a", "size": 1}, [memoryview(b"0123456789+")])  # whatever it says of itself
    assert field.status == "✗ a has 11 bytes, and a certificate a few thousand: it was not read; choose another."
    field._receive(field, {"name": "big", "size": 5_000_000_000}, [])
    assert "5,000,000,000 bytes" in field.status
    problems = {
        "several": "one at a time",
        "folder": "{x} is a folder",
        "unreadable": "can't be read",
        "none": "not a file",
    }
    for problem, words in problems.items():
        field._receive(field, {"name": "{x}", "size": 1, "problem": problem}, [])
        assert field.status.startswith("✗ ") and words in field.status
    assert len(taken) == 1
    field._receive(field, {"name": "empty", "size": 0}, [])
    assert taken[1] == ("empty", b"")
    assert repr(field) == "A file: to be chosen here."


def test_the_files_bytes_are_in_no_state(tenant: Tenant) -> None:
    panel = show(tenant)
    hand_over(panel.upload_part.file, "key.pem", KEY)
    hand_over(panel.upload_part.file, "ca.pem", ROOT_CA.pem.encode())
    state = all_state(panel)
    for line in KEY.decode().splitlines()[1:-1]:
        assert line not in state
    assert ROOT_CA.pem.splitlines()[1] not in state
    assert "Root (from ca.pem)" in state  # the control: this is its state


def damaged(data: bytes, position: int, byte: int) -> bytes:
    position %= len(data)
    return data[:position] + bytes([byte]) + data[position + 1 :]


KINDS = st.sampled_from([*GOOD.values(), *filter(None, BAD.values())])


@given(st.binary(max_size=200) | st.builds(damaged, KINDS, st.integers(0, 10_000), st.integers(0, 255)))
@example(b"\x30\x80" + bytes(400_000))
@example(b"\x30\x83\x06\x1a\x80" + bytes(400_000))
@example(b"-----BEGIN CERTIFICATE-----\n" * 10_000)
def test_whatever_a_file_holds_ends_in_certificates_or_a_sentence(data: bytes) -> None:
    try:
        found = ca_certificates("odd", data)
    except OnboardingError as error:
        assert str(error).startswith("odd")
    else:
        assert found and all(map(is_ca, found)) and all(certificate_card(certificate).html for certificate in found)


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
    assert names(panel) == ["trusted"] and "may be out of date" in hint(panel)
    assert tenant.trusted_certificates.list() == [mine]


def test_a_wrong_password_is_told_and_shown_nowhere(tenant: Tenant) -> None:
    wrong = show(dataclasses.replace(tenant, password=Secret(word := secrets.token_hex())))
    assert "401: the login of admin was refused" in said(wrong) and word not in all_state(wrong)


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


def test_a_tenant_that_hangs_stops_nobody(
    tenant: Tenant, platform: LocalPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trust_panel, "PATIENCE", 0.05)
    go_on, calls = threading.Event(), list[bytes]()

    def talk(connection: socket.socket) -> None:
        asked = connection.recv(65536)
        calls.append(asked.split(b" ")[0])
        go_on.wait(30)
        is_one = not asked.startswith(b"GET") or b"/" + b"ab" * 20 in asked.split(b"\r\n")[0]
        connection.sendall(answer(CERTIFICATE if is_one else {"certificates": [CERTIFICATE]}))

    with server(platform, talk) as port:
        hanging = dataclasses.replace(tenant, url=f"https://127.0.0.1:{port}")
        panel = TrustedCertificatesPanel(Workspace(Path(NO_FILES.name)), hanging)
        assert said(panel) == "Reading the list …" and "has not answered yet" in repr(panel)
        panel.poll()
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


# -- the static picture


def sanitized(text: str) -> str:
    for pattern, word in re.findall(
        r"regex: (.*)\nreplace: (.*)", (Path(__file__).parent / "sanitize.cfg").read_text()
    ):
        text = re.sub(pattern, word, text)
    return text


def test_the_static_picture_is_the_list_and_the_same_in_every_run(tenant: Tenant) -> None:
    pictures = []
    for _ in range(2):
        uploaded = [tenant.trusted_certificates.upload(make(name, ca=True).certificate) for name in ("One", "Two")]
        tenant.trusted_certificates.update(uploaded[1], status="DISABLED")
        bundle = TrustedCertificatesPanel(
            Workspace(Path(NO_FILES.name)), tenant
        )._repr_mimebundle_()  # at once, as a notebook does
        bundle.pop("application/vnd.jupyter.widget-view+json")
        pictures.append(bundle)
        for one in uploaded:
            tenant.trusted_certificates.delete(one)
    assert pictures[0] != pictures[1]  # the control: other fingerprints
    assert sanitized(str(pictures[0])) == sanitized(str(pictures[1]))
    text = pictures[0]["text/plain"].splitlines()
    assert text[0] == "Trusted certificates of tenant t1001"
    assert text[1].split() == ["Name", "Status", "Auto-registration", "Fingerprint"]
    assert re.fullmatch(r"One +✓ enabled +on +[0-9a-f]{40}", text[2])
    assert re.fullmatch(r"Two +✗ disabled +on +[0-9a-f]{40}", text[3])
    shown = Tags(pictures[0]["text/html"]).text
    for word in ("Name", "Status", "Auto-registration", "Fingerprint", "One", "✗ disabled"):
        assert word in shown
    assert repr(show(tenant)) == "Trusted certificates of tenant t1001: none yet."


def test_a_long_list_is_cut_in_the_picture_alone(tenant: Tenant, platform: LocalPlatform) -> None:
    many = [CERTIFICATE | {"name": f"CA {number}", "fingerprint": f"{number:040x}"} for number in range(99)]
    with scripted(tenant, answer({"certificates": many})) as (full, _):
        panel = show(full)
    assert panel.table.total == 99
    assert "CA 49" in repr(panel) and "CA 50" not in repr(panel) and "and 49 more" in repr(panel)
    assert "and 49 more" in panel.picture().html and len(panel.picture().html) < 25_000


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
    for markup in (panel._details.value, panel.upload_part.card.value, panel.picture().html, panel._message.value):
        assert "script" not in Tags(markup).tags
    assert nasty in Tags(panel._details.value).text and nasty in Tags(panel.picture().html).text
    assert nasty in repr(panel) and names(panel) == [nasty]
