"""The cases of the laboratory: each is made, is refused as its row says, and is put right; nothing else changes."""

import shutil
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import platform_tools as tools
import pytest
from ca_tools import snapshot
from conftest import make_keys_quick

from mciot_nb import OnboardingError, Workspace
from mciot_nb.failures import CASES, FailureCase
from mciot_nb.pki.chain import PROFILES
from mciot_nb.ui.laboratory import _SEEN, Laboratory, Quiz, case_table

GUIDE, CURRENT = PROFILES
#: Both profiles and both versions are met by every case; test_diagnosis.py has all four pairs.
slow = pytest.mark.slow
PAIRS = [(GUIDE, ssl.TLSVersion.TLSv1_2), (CURRENT, ssl.TLSVersion.TLSv1_3)]


World = tuple[Workspace, ssl.TLSVersion]
#: Each case in one of its profiles, and in the other with --all.
EACH = [
    pytest.param(pair, name, id=f"{name}-{pair[0]}", marks=[] if pair[0] == profiles[at % len(profiles)] else slow)
    for at, (name, profiles) in enumerate((name, row["profiles"].split()) for name, row in CASES.items())
    for pair in PAIRS
    if pair[0] in profiles
]


@pytest.fixture(scope="module", params=PAIRS[1:])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A learner's workspace, with all that the notebooks make, and a version of TLS."""
    profile, tls = request.param
    with pytest.MonkeyPatch.context() as patch:
        make_keys_quick(patch)
        workspace = Workspace(tmp_path_factory.mktemp("learner") / "workspace")
        workspace.use_profile(profile)
        workspace.catch_up("upload")
        yield workspace, tls
        tools.check_no_fault(workspace.platform())
        workspace.platform().stop()


def of_the_learner(workspace: Workspace) -> Any:
    """Return what no case may change: the files, what the tenant trusts, and whether it checks revocations."""
    trusted = workspace.tenant().trusted_certificates
    files = snapshot(workspace.ca_folder), snapshot(workspace.folder / "issuer") if workspace.has_ca else ()
    return files, trusted.list(), trusted.checks_revocations()


@pytest.mark.parametrize(("world", "name"), EACH, indirect=["world"])
def test_a_case_is_refused_as_its_row_says_and_connects_when_it_is_put_right(world: World, name: str) -> None:
    (workspace, tls), row = world, CASES[name]
    before, case = of_the_learner(workspace), FailureCase(workspace, name)
    refusal, record = case.attempt(tls)
    assert (refusal.code if refusal else "") == row["client"]
    assert (record["code"] if record else "") == row["log"]
    assert case.client_id.casefold().startswith("lab-")
    case.remedy()
    refusal, record = case.attempt(tls)
    assert refusal is None and record and record["code"] == "CONNECTED", refusal
    assert record["tls"] == tls.name.replace("_", ".")
    assert workspace.tenant().devices.find(case.name)
    case.leave()
    assert of_the_learner(workspace) == before
    assert workspace.tenant().devices.find(case.name) is None


def test_the_table_has_what_the_issue_asks_for() -> None:
    assert len(CASES) >= 30 and len({row["title"] for row in CASES.values()}) == len(CASES)
    for name, row in CASES.items():
        assert set(row["profiles"].split()) <= set(PROFILES) and row["profiles"], name
        assert row["title"][0].isupper() and row["remedy"].endswith(".") and not row["title"].endswith("."), name
        assert row["client"] in ("", *_SEEN), name
    assert {row["client"] for row in CASES.values()} == {"", *_SEEN}


def test_what_an_earlier_kernel_left_is_cleared_up_and_one_case_is_there_at_a_time(
    world: World,
) -> None:
    workspace, tls = world
    before = of_the_learner(workspace)
    FailureCase(workspace, "expired")
    lost = FailureCase(workspace, "not-registered")
    assert lost.attempt(tls)[0] and len(workspace.tenant().trusted_certificates.list()) == len(before[1]) + 1
    lost.remedy()
    assert lost.attempt(tls)[0] is None
    again = FailureCase(workspace, "not-registered")  # it is new to the platform once more
    refusal, record = again.attempt(tls)
    assert refusal and record and record["code"] == "NOT_REGISTERED"
    again.leave()
    assert of_the_learner(workspace) == before


def test_what_a_kernel_left_in_the_tenant_goes_though_its_files_are_gone(world: World) -> None:
    workspace, tls = world
    before, tenant = of_the_learner(workspace), workspace.tenant()
    FailureCase(workspace, "good").attempt(tls)
    FailureCase(workspace, "windows-lines").attempt(tls)
    FailureCase(workspace, "revoked")
    assert tenant.trusted_certificates.checks_revocations(), "the control"
    FailureCase(workspace, "expired").leave()  # as after a restart
    assert of_the_learner(workspace) == before and not tenant.devices.find(f"lab-device-{[*CASES].index('good')}")
    FailureCase(workspace, "good").attempt(tls)
    shutil.rmtree(workspace.folder / "laboratory")
    FailureCase(workspace, "expired").leave()
    assert of_the_learner(workspace) == before
    assert not [one for one in tenant.devices.to_frame()["owner"] if "lab-device" in one]


def test_a_folder_that_can_not_be_made_is_one_sentence(world: World) -> None:
    laboratory = world[0].folder / "laboratory"
    shutil.rmtree(laboratory, ignore_errors=True)
    laboratory.write_text("the learner's own")
    with pytest.raises(OnboardingError, match="not a directory") as refused:
        FailureCase(world[0], "good")
    assert refused.value.code == "DISK" and laboratory.read_text() == "the learner's own"
    laboratory.unlink()


def test_keys_are_private_and_an_unknown_name_is_answered(world: World) -> None:
    workspace, _ = world
    case = FailureCase(workspace, "root-missing")
    keys: list[Path] = [*case.folder.rglob("*Key.pem")]
    assert len(keys) == 3 and all(b"ENCRYPTED" in key.read_bytes() for key in keys)
    assert all(key.stat().st_mode & 0o077 == 0 for key in keys)
    case.leave()
    with pytest.raises(OnboardingError, match="There is no case 'nothing'"):
        FailureCase(workspace, "nothing")
    with pytest.raises(OnboardingError, match="exists under the rules of guide-2021 only"):
        FailureCase(workspace, "three-certificates")


@pytest.mark.parametrize("widget", [Laboratory, Quiz])
def test_the_picture_is_the_same_in_every_run_and_nothing_is_made_before_a_press(
    world: World, widget: Callable[[Workspace], Any]
) -> None:
    workspace, _ = world
    before = of_the_learner(workspace), workspace.platform().log().index.size
    assert repr(widget(workspace)) == repr(widget(workspace)) != ""
    assert (of_the_learner(workspace), workspace.platform().log().index.size) == before
    assert all(row["title"] in case_table().text for row in CASES.values())


def test_a_real_tenant_is_named_and_left_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace, tls = world
    for name, value in {"URL": "https://t1.example.com", "TENANT": "t1", "USER": "ann", "PASSWORD": "x"}.items():
        monkeypatch.setenv(f"MCIOT_{name}", value)
    panel = Laboratory(workspace)
    said = " ".join(str(getattr(part, "value", "")) for part in panel.children)
    assert "nothing is sent to that tenant" in said
    case = FailureCase(workspace, "unknown-ca")
    assert case.tenant.is_local
    case.remedy()
    assert case.attempt(tls)[0] is None
    case.leave()
    for name in ("URL", "TENANT", "USER", "PASSWORD"):
        monkeypatch.delenv(f"MCIOT_{name}")
    assert "nothing is sent to that tenant" not in " ".join(
        str(getattr(p, "value", "")) for p in Laboratory(workspace).children
    )
