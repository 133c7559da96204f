"""What a learner gives: texts for paths are taken, and what can't be taken, or is not there, is one true sentence."""

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import PASSPHRASE
from test_tenant_calls import refused

from mciot_nb import (
    CertificateAuthority,
    Device,
    DistinguishedName,
    KeyChoice,
    KeyType,
    LocalPlatform,
    Workspace,
    read_certificates,
    read_key,
    read_store,
    which_password_opens,
    write_keystore,
    write_truststore,
)
from mciot_nb.pki.keys import read_private_key

SUBJECT, KEY = DistinguishedName(common_name="Given"), KeyChoice(KeyType.P256, 300)


def test_a_path_may_be_a_text(tmp_path: Path, quick_workspace: Workspace) -> None:
    folder, below, moved = (str(tmp_path / name) for name in ("ca", "below", "moved"))
    ca = CertificateAuthority.create(folder, SUBJECT, PASSPHRASE, key_type=KeyType.P256)  # type: ignore[arg-type]
    ca.create_intermediate(below, SUBJECT, PASSPHRASE, key_type=KeyType.P256)  # type: ignore[arg-type]
    assert CertificateAuthority.open(folder, PASSPHRASE).folder == Path(folder)  # type: ignore[arg-type]
    assert CertificateAuthority.inspect(folder) == ca.check()  # type: ignore[arg-type]
    Path(below).rename(moved)
    CertificateAuthority.relocate(moved)  # type: ignore[arg-type]
    assert CertificateAuthority.open(Path(moved), PASSPHRASE)
    quick_workspace.catch_up("chain")
    chain_file, key_file = (str(quick_workspace.device_file(name)) for name in ("deviceCertChain.pem", "deviceKey.pem"))
    chain = read_certificates(chain_file)  # type: ignore[arg-type]
    key = read_private_key(Path(key_file), quick_workspace.passphrase)
    password = "Kaffee-Kanne"
    stores = [str(tmp_path / name) for name in ("key.p12", "key.jks", "trust.p12", "trust.jks")]
    for path in stores[:2]:
        write_keystore(path, key, chain, password)  # type: ignore[arg-type]
        assert read_key(path, password)[1] == read_store(path, password).entries[0].chain  # type: ignore[arg-type]
    for path in stores[2:]:
        write_truststore(path, {"a": chain[-1]}, password)  # type: ignore[arg-type]
    assert {name for name, *_ in which_password_opens(stores, {"it": password})} == {  # type: ignore[arg-type]
        Path(path).name for path in stores
    }
    device = Device.from_keystores(stores[0], stores[3], password, "localhost", 1)  # type: ignore[arg-type]
    files = {"chain": chain_file, "key": key_file, "passphrase": quick_workspace.passphrase, "trusted": chain_file}
    assert device.chain == Device("localhost", 1, **files).chain == tuple(chain)  # type: ignore[arg-type]


def test_what_is_asked_for_is_no_text(quick_workspace: Workspace) -> None:
    make: tuple[Callable[..., object], ...] = (
        *(quick_workspace.create_ca, quick_workspace.create_intermediate, quick_workspace.create_device_request),
    )
    for create in make:
        for wrong in ("P-256", KeyType.P256, PASSPHRASE):
            said = refused("BAD_VALUE", lambda create=create, wrong=wrong: create(SUBJECT, wrong))  # type: ignore[misc]
            assert "KeyChoice(KeyType.P256, days=365)" in said and PASSPHRASE not in said
    refused("BAD_VALUE", lambda: quick_workspace.sign_device_request("365"))  # type: ignore[arg-type]
    other, same = (KeyChoice(name, 300) for name in ("P-999", "P-256"))  # type: ignore[arg-type]
    assert "KeyType.P256" in refused("BAD_KEY", lambda: quick_workspace.create_ca(SUBJECT, other)) and same == KEY
    assert not quick_workspace.has_ca and quick_workspace.create_ca(SUBJECT, KEY)  # the control


def test_an_intermediate_that_was_never_made_is_said_so(quick_workspace: Workspace) -> None:
    other = quick_workspace.with_issuer("intermediate")
    refused("NO_FILE", quick_workspace.ca)
    quick_workspace.create_ca(SUBJECT, KEY)
    for call in (other.signer, lambda: other.issuer_certificate, lambda: other.create_device_request(SUBJECT)):
        said = refused("NO_FILE", call)
        assert "There is no intermediate in" in said and "catch_up('intermediate')" in said
    quick_workspace.catch_up("intermediate")
    assert other.signer().certificate == other.issuer_certificate  # the control


@pytest.mark.parametrize("content", ["", "abc\n"])
def test_a_practice_passphrase_that_was_lost_is_said_so(quick_workspace: Workspace, content: str) -> None:
    quick_workspace.create_ca(SUBJECT, KEY)
    file, again = quick_workspace.folder / "passphrase", Workspace(quick_workspace.folder)
    kept = file.read_bytes()
    file.write_text(content)
    assert f"{file} has lost the practice passphrase" in refused("BAD_PASSPHRASE", again.ca)
    file.write_bytes(kept)
    assert again.ca()  # the control


def test_a_profile_that_there_is_not_starts_nothing(tmp_path: Path) -> None:
    said = refused("NO_PROFILE", lambda: LocalPlatform.start(tmp_path, "newest"))
    assert "use guide-2021 or current" in said and not list(tmp_path.iterdir())
