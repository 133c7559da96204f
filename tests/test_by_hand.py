"""Every command that the notebooks fold away is run, as a learner would type it, and what it makes equals ours."""

import base64
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, Run, tool
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from mciot_nb import CompletionForm, LocalPlatform, Workspace, make_fleet
from mciot_nb.pki.chain import is_issued_by, is_signature, read_certificates
from mciot_nb.pki.config import read_config
from mciot_nb.pki.keys import is_key_of, read_private_key
from mciot_nb.pki.keystore import read_key, read_store
from mciot_nb.secret import reveal
from mciot_nb.workspace import DEFAULTS
from tools.notebooks import NOTEBOOKS

pytestmark = pytest.mark.slow
PASSWORD = "Kaffee-42-ok"  # ASCII: keytool's prompts read bytes
CODE = "0123456789abcdef"  # of the platform, for the proof of possession


def cells_of(path: Path) -> list[str]:
    return ["".join(cell["source"]) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]


def commands() -> list[str]:
    """Take the folded commands out of the notebooks, in their order."""
    texts = [text for path in NOTEBOOKS for text in cells_of(path)]
    blocks = [block for text in texts for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL)]
    return [line for block in blocks for line in block.splitlines()]


def answers(command: str) -> str:
    """Return what a learner types at the prompts of a command, a line each."""
    subject = DEFAULTS["ca" if "-x509" in command else "intermediate" if "intermediateCsr" in command else "device"]
    fields = [value or "" for value in vars(subject).values()]
    typed = {
        "openssl genrsa": [PASSWORD] * 2,
        "openssl genpkey": [PASSWORD] * 2,
        "openssl req": [PASSWORD, *fields, "", ""],  # a request also asks for two attributes, left empty
        "openssl ca": [PASSWORD, "y", "y"],
        "openssl pkcs12": [PASSWORD] * 3,
        "keytool -importkeystore": [PASSWORD] * 3,
        "keytool -importcert": [PASSWORD] if "deviceBoth" in command else [PASSWORD] * 2,
        "keytool -import": [PASSWORD, "yes"] if "deviceBoth" in command else [PASSWORD, PASSWORD, "yes"],
        "keytool -list": [PASSWORD],
        "openssl s_client": [PASSWORD, "Q"],
        "openssl dgst": [PASSWORD],
    }
    return "".join(f"{line}\n" for line in next((t for p, t in typed.items() if command.startswith(f"{p} ")), []))


def test_openssl_signs_in_the_learners_own_folder_as_03_says(quick_workspace: Workspace, openssl: Run) -> None:
    quick_workspace.catch_up("device")
    said = next(text for text in cells_of(NOTEBOOKS[3]) if "Watch the row appear" in text)
    secret = f"pass:{quick_workspace.passphrase.reveal()}"
    for command in re.findall("`openssl ([^`]+ -[^`]*)`", said):
        options = ["-passout", secret] if command.startswith("req") else ["-passin", secret, "-batch"]
        openssl(*shlex.split(command), *options, cwd=quick_workspace.ca_folder)
    names = [row.subject for row in quick_workspace.ca().database.rows()]
    assert len(names) == 2 and names[1] == "/CN=by-openssl"


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Workspace, Path, dict[str, str]]]:
    """Run all commands in a tutorial folder of their own, beside a workspace that our helper fills."""
    for program in ("openssl", "keytool", "bash"):
        tool(program)
    tutorial = tmp_path_factory.mktemp("tutorial")
    shutil.copytree(ROOT / "data", tutorial / "data")
    workspace = Workspace(tutorial / "workspace")
    platform = LocalPlatform.start(workspace.folder)
    try:
        workspace.catch_up("intermediate")  # in the notebooks' order, for the serial numbers
        workspace.catch_up("upload")
        workspace.with_issuer("intermediate").catch_up("chain")
        with workspace.device(platform.tenant) as device:
            device.create()
            device.measure("c8y_Temperature", "T", 21.5, "C")
        make_fleet(ROOT / "data" / "fleet.csv", workspace.ca(), workspace.folder / "fleet", workspace.passphrase)
        CompletionForm(workspace).sign()
        printed, folder = {}, tutorial
        for command in commands():
            if command.startswith("cd "):
                folder = (folder / command.removeprefix("cd ")).resolve()
                continue
            if "-cert_chain" in command:  # the notebook asks for the upload of the CA that was made by hand first
                platform.tenant.trusted_certificates.ensure(read_certificates(folder / "caCert.pem")[0])
            if "code.txt" in command:  # downloaded from the platform
                (folder / "code.txt").write_text(CODE)
            if "<TENANT_DOMAIN>" in command:  # 11 lets the platform follow today's rules, and then another device enrol
                printed[command] = type_command(*as_in_11(command, workspace, folder))
                continue
            typed = command.replace("localhost:8883", f"localhost:{platform.mqtt[1]}")
            printed[command] = type_command(
                re.sub("^python ", f"MCIOT_PASSPHRASE={PASSWORD} {sys.executable} ", typed), folder
            )
        yield workspace, tutorial / "workspace" / "by-hand" / "caCertificate", printed
    finally:
        platform.stop()


def as_in_11(command: str, workspace: Workspace, folder: Path) -> tuple[str, Path, str]:
    """Return a command of 11 with the platform's address in it, where it runs, and the password that is typed."""
    tenant = workspace.use_profile("current").tenant
    typed = reveal(tenant.password or "")
    if command.endswith("enroll"):
        tenant.own_ca.create()
        typed = reveal(tenant.own_ca.register("device-0003"))
    where = {"TENANT_DOMAIN": tenant.url.removeprefix("https://"), "TENANT_ID": tenant.tenant_id, "USER": tenant.user}
    return re.sub(r"<(\w+)>", lambda found: where[found[1]], command), folder, f"{typed}\n"


def type_command(command: str, folder: Path, typed: str | None = None) -> str:
    """Run one command with its answers on standard input and no terminal; returns what it printed."""
    strict = [] if "s_client -showcerts" in command else ["-e", "-o", "pipefail"]
    done = subprocess.run(
        ["bash", *strict, "-c", command],
        cwd=folder,
        input=typed or answers(command),
        env={**os.environ, "LC_ALL": "C.UTF-8", "JAVA_TOOL_OPTIONS": "-Duser.language=en"},
        capture_output=True,
        text=True,
        timeout=60,
        start_new_session=True,  # no terminal to ask at
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def shape(certificate: x509.Certificate) -> list[object]:
    """Return the fields that do not hang on a key or the time."""
    keyed = (x509.SubjectKeyIdentifier, x509.AuthorityKeyIdentifier)
    return [
        *(certificate.version, certificate.subject.public_bytes(), certificate.issuer.public_bytes()),
        certificate.not_valid_after_utc - certificate.not_valid_before_utc,
        *(certificate.signature_algorithm_oid, certificate.public_key().key_size),  # type: ignore[union-attr]
        [(e.oid, e.critical, None if isinstance(e.value, keyed) else e.value) for e in certificate.extensions],
    ]


By = tuple[Workspace, Path, dict[str, str]]


def test_what_openssl_made_by_hand_equals_ours_field_by_field(by_hand: By) -> None:
    workspace, folder, _ = by_hand
    below = "intermediateCertificate"
    files = ["caCert.pem", "deviceCertificates/deviceCert.pem", "deviceCertificates/deviceCertChain.pem"]
    files += [f"{below}/intermediateCert.pem", *(f"{below}/{name}" for name in files[1:])]
    for name in files:
        theirs, ours = read_certificates(folder / name), read_certificates(workspace.ca_folder / name)
        assert [shape(certificate) for certificate in theirs] == [shape(certificate) for certificate in ours]
        assert [c.serial_number for c in theirs][:-1] == [c.serial_number for c in ours][:-1]
    for name, config, next_serial in ((".", "caConfig.cnf", "102A\n"), (below, "intermediateConfig.cnf", "1001\n")):
        pair = [folder / name, workspace.ca_folder / name]
        sections, moved = (read_config(f / config).sections for f in pair)
        own = {key: value.replace(str(pair[0]), str(pair[1])) for key, value in sections["CA_default"].items()}
        assert {**sections, "CA_default": own} == moved, "but for the folder the same"
        rows = [[row.split("\t") for row in (f / "database.txt").read_text().splitlines()] for f in pair]
        assert [row[:1] + row[2:] for row in rows[0]] == [row[:1] + row[2:] for row in rows[1]]
        assert (pair[0] / "crl" / "crlnumber").read_text() == (pair[1] / "crl" / "crlnumber").read_text()
        assert (pair[0] / "serial").read_text() == (pair[1] / "serial").read_text() == next_serial


def test_the_stores_made_by_hand_hold_what_ours_hold(by_hand: By) -> None:
    workspace, folder, printed = by_hand
    devices = folder / "deviceCertificates"
    chain, server = (read_certificates(devices / f"{name}.pem") for name in ("deviceCertChain", "serverCertificate"))
    assert server == read_certificates(workspace.device_file("serverCertificate.pem"))
    for kind, form in (("pkcs12", "PKCS12"), ("jks", "JKS")):  # JKS, and not PKCS12 in its clothes
        for name, certificates in (("deviceKeystore", chain), ("deviceTruststore", server)):
            theirs = read_store(devices / f"{name}.{kind}", PASSWORD)
            ours = read_store(workspace.device_file(f"{name}.{kind}"), workspace.passphrase)
            assert theirs.type == ours.type == form and theirs.remark == ours.remark == ""
            assert [(e.alias, e.kind) for e in theirs.entries] == [(e.alias, e.kind) for e in ours.entries]
            assert [shape(c) for c in theirs.entries[0].chain] == [shape(c) for c in ours.entries[0].chain]
            assert theirs.entries[0].chain == tuple(certificates)
        key, _ = read_key(devices / f"deviceKeystore.{kind}", PASSWORD)
        assert key.private_numbers() == read_private_key(devices / "deviceKey.pem", PASSWORD).private_numbers()
    listed = printed["keytool -list -v -keystore deviceKeystore.jks"]
    assert "Alias name: devicekeyentry" in listed and "PrivateKeyEntry" in listed
    for kind in ("pkcs12", "jks"):
        assert "trustedCertEntry" in printed[f"keytool -list -v -keystore deviceTruststore.{kind}"]
    assert (devices / "deviceKeystore.jks").stat().st_mode & 0o777 == 0o600
    assert (devices / "deviceTruststore.jks").stat().st_mode & 0o077, "what keytool makes, others can read: chmod"


def test_all_in_one_file_by_hand(by_hand: By) -> None:
    """The guide's step 5."""
    _, folder, printed = by_hand
    devices = folder / "deviceCertificates"
    for kind in ("jks", "pkcs12"):
        kinds = {entry.alias: entry.kind for entry in read_store(devices / f"deviceBoth.{kind}", PASSWORD).entries}
        assert kinds == {"devicekeyentry": "PrivateKeyEntry", "servercertificate": "trustedCertEntry"}
    assert "contains 2 entries" in printed["keytool -list -keystore deviceBoth.jks"]


def test_a_device_enrols_by_hand(by_hand: By) -> None:
    workspace, folder, printed = by_hand
    (made,) = read_certificates(folder.parent / "enrolledCert.pem")
    ca = workspace.use_profile("current").tenant.own_ca.certificate()
    assert (
        ca and is_issued_by(made, ca) and is_key_of(made, read_private_key(folder.parent / "enrolledKey.pem", PASSWORD))
    )
    said = printed["openssl x509 -in enrolledCert.pem -noout -subject -issuer -enddate"]
    assert "CN = device-0003" in said and "O = Cumulocity" in said
    feature = next(text for command, text in printed.items() if "by-tenant" in command)
    assert '"active": true' in feature


def test_the_mended_commands_needed_their_mend(by_hand: By, keytool: Run, openssl: Run, tmp_path: Path) -> None:
    """The guide's own words, and what comes of them today."""
    _, folder, _ = by_hand
    server = folder / "deviceCertificates" / "serverCertificate.pem"
    literal = tmp_path / "deviceTruststore.jks"
    words = ["-import", "-file", server, "-alias", "servercertificate", "-keystore", literal]
    keytool(*words, input=f"{PASSWORD}\n{PASSWORD}\nyes\n")
    store = read_store(literal, PASSWORD)
    assert store.type == "PKCS12" and "-storetype JKS" in store.remark, "step 4 without -storetype"
    nowhere = ["s_client", "-showcerts", "-connect", "localhost:1"]
    nothing = openssl(*nowhere, check=False)
    assert nothing.returncode != 0 and "BEGIN CERTIFICATE" not in nothing.stdout, "step 3 leaves an empty file"
    unmarked = tmp_path / "unmarked.pkcs12"
    export = ["pkcs12", "-export", "-nokeys", "-caname", "servercertificate", "-in", server]
    openssl(*export, "-passout", "stdin", "-out", unmarked, input=f"{PASSWORD}\n")
    assert "contains 0 entries" in keytool("-list", "-keystore", unmarked, input=f"{PASSWORD}\n").stdout


def test_the_commands_said_what_the_notebooks_promise(by_hand: By) -> None:
    _, folder, printed = by_hand
    verified = [text for command, text in printed.items() if command.startswith("openssl verify")]
    assert [text.count(": OK") for text in verified] == [1, 1, 1], "the intermediate, and a device below each CA"
    handshake = next(text for command, text in printed.items() if "-cert_chain" in command)
    assert "CONNECTION ESTABLISHED" in handshake and "Verification: OK" in handshake
    finish, signer = (
        next(t for c, t in printed.items() if word in c) for word in ("openssl cms", "-print_certs -noout")
    )
    assert "CMS Verification successful" in finish and "CN = Example Root CA" in signer.replace("CN=E", "CN = E")
    said = next(text for command, text in printed.items() if "openssl dgst" in command)
    signed = base64.b64decode(re.match(r"[A-Za-z0-9+/]+=*", said)[0])  # type: ignore[index]
    key = read_certificates(folder / "caCert.pem")[0].public_key()
    assert is_signature(key, signed, CODE.encode(), SHA256()), "the proof of possession"
    assert not is_signature(key, signed, f"{CODE}\n".encode(), SHA256()), "a line break spoils it"
