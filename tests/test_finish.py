"""What a learner sees of the way: which steps are done, how files begin, and a certificate signed by their own CA."""

import base64
import html
import itertools
import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pytest
from conftest import Run, make_keys_quick
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from test_displays import alt_of, both, svg_of
from test_ui import NASTY, Tags

from mciot_nb import CompletionForm, LocalPlatform, Workspace, first_lines
from mciot_nb.connect.tenant import TenantSettings
from mciot_nb.errors import OnboardingError
from mciot_nb.pki.authority import CertificateAuthority
from mciot_nb.pki.keys import KeyType, create_key
from mciot_nb.steps import DONE, OPEN, UNKNOWN, Progress
from mciot_nb.ui.displays import render
from tools.notebooks import NOTEBOOKS

ROOT, DEVICE = "caCertificate", "caCertificate/deviceCertificates"
REAL = TenantSettings("https://t.example.invalid", "t1", "ann", "t.example.invalid", 8883, local=False)


def states(progress: Progress) -> str:
    return "".join(step.state for step in progress.steps)


def goes_all_the_way(workspace: Workspace) -> None:
    workspace.catch_up("upload")
    with workspace.device(workspace.tenant()) as device:
        device.create()
        device.measure("c8y_Temperature", "T", 21.5, "C")


# -- progress


def test_each_step_is_done_once_it_was_made_and_stays_known_when_the_platform_has_stopped(
    quick_workspace: Workspace,
) -> None:
    workspace, expected = quick_workspace, OPEN * 7
    assert states(workspace.progress()) == states(workspace.verified()) == expected
    assert not any(workspace.folder.iterdir()), "a look makes nothing"
    for number, step in ((0, "ca"), (1, "intermediate"), (2, "device"), (3, "chain"), (4, "stores"), (5, "upload")):
        workspace.catch_up(step)
        expected = expected[:number] + DONE + expected[number + 1 :]
        assert states(workspace.progress()) == states(workspace.verified()) == expected
    assert [step.title[:2] for step in workspace.progress().left] == ["07"]
    half = workspace.device_file("deviceCert.pem").rename(workspace.folder / "aside.pem")
    assert workspace.progress().steps[2].state == OPEN, "asked for, and not signed yet"
    half.rename(workspace.device_file("deviceCert.pem"))
    goes_all_the_way(workspace)
    LocalPlatform.running(workspace.folder).stop()  # type: ignore[union-attr]
    assert states(workspace.progress()) == DONE * 7 and not workspace.progress().left
    shown = render(workspace.progress())
    for look in (shown.text, alt_of(shown), "".join(ElementTree.fromstring(svg_of(shown)).itertext())):
        assert "caKey.pem, caCert.pem" in look and "01 Create your own CA" in look
    assert states(workspace.with_issuer("intermediate").progress()) == DONE * 2 + OPEN * 5, "another way, not gone yet"


GARBAGE = b"This is no file of the kind that it should be."
BROKEN = [
    (f"{ROOT}/caCert.pem", GARBAGE, "01 03 04 06", "01 03 04 06"),
    (f"{DEVICE}/deviceCert.pem", GARBAGE, "03 04 07", "03 04 05 07"),
    (f"{DEVICE}/deviceCert.pem", "the CA's", "03 04 07", "03 04 05 07"),
    (f"{DEVICE}/deviceCert.pem", None, "03 04 07", "03 04 05 07"),
    (f"{DEVICE}/deviceKey.pem", None, "03", "03"),
    (f"{DEVICE}/deviceKey.pem", "another", "", "03"),
    (f"{DEVICE}/deviceKey.pem", GARBAGE, "", "03"),
    (f"{DEVICE}/deviceCertChain.pem", GARBAGE, "04", "04"),
    (f"{DEVICE}/deviceCertChain.pem", "the CA's", "04", "04"),
    (f"{DEVICE}/deviceKeystore.pkcs12", b"", "05", "05"),
    (f"{DEVICE}/deviceTruststore.jks", None, "05", "05"),
    (f"{DEVICE}/deviceTruststore.jks", b"\xfe\xed\xfe\xed and no more", "", "05"),
    (f"{ROOT}/caKey.pem", None, "", ""),  # in a safe
    (f"{ROOT}/caKey.pem", "another", "", "01"),
    ("platform/platform.sqlite", GARBAGE, "06 07", "06 07"),
]


@pytest.fixture(scope="module")
def gone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with P-256 keys that has gone all the way; its platform has stopped."""
    with pytest.MonkeyPatch.context() as patch:
        make_keys_quick(patch)
        workspace = Workspace(tmp_path_factory.mktemp("gone") / "workspace")
        goes_all_the_way(workspace)
    LocalPlatform.running(workspace.folder).stop()  # type: ignore[union-attr]
    return workspace.folder


@pytest.fixture
def done(gone: Path, tmp_path: Path) -> Workspace:
    workspace = Workspace(Path(shutil.copytree(gone, tmp_path / "workspace")))
    CertificateAuthority.relocate(workspace.ca_folder)
    return workspace


def test_the_fixture_is_done(done: Workspace) -> None:
    assert states(done.progress()) == states(done.verified()) == DONE + OPEN + DONE * 5


@pytest.mark.parametrize(("name", "content", "seen", "opened"), BROKEN, ids=[f"{b[0]} {b[1]!r:.9}" for b in BROKEN])
def test_what_is_broken_is_named_and_nothing_else_is(
    done: Workspace, name: str, content: bytes | str | None, seen: str, opened: str
) -> None:
    path = done.folder / name
    path.unlink()
    if content == "another":
        create_key(path, done.passphrase, KeyType.P256)
    elif content is not None:
        path.write_bytes((done.ca_folder / "caCert.pem").read_bytes() if isinstance(content, str) else content)
    for progress, expected in ((done.progress(), seen), (done.verified(), opened)):
        assert " ".join(step.title[:2] for step in progress.left) == expected
        for step in progress.left:
            assert step.said and "\n" not in step.said and not step.said.endswith(".")
            assert step.said in render(progress).text and html.escape(step.said) in render(progress).html
    if name.endswith("caKey.pem") and content is None:
        assert "in a safe, perhaps" in done.verified().rows[0][1] and "opens" not in done.verified().rows[0][1]


def test_what_another_program_holds_is_not_said_to_be_open(done: Workspace) -> None:
    with closing(sqlite3.connect(done.folder / "platform" / "platform.sqlite", isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("PRAGMA journal_mode = DELETE")
        other.execute("BEGIN EXCLUSIVE")
        assert states(done.progress())[5:] == UNKNOWN * 2 and "locked" in done.progress().rows[5][1]
        ended = LocalPlatform(done.folder / "platform", "", ("", 0), "", Path(), ("t1001",), "current", 0)
        with pytest.raises(OnboardingError, match="locked"):  # what a diagnosis asks for
            ended._unlisted("t1001")
    assert not done.progress().left
    for file in (done.folder / "platform").glob("platform.sqlite*"):
        file.write_bytes(b"no database" * 100)
    assert states(done.progress())[5:] == UNKNOWN * 2 and "may be damaged" in done.progress().rows[5][1]


def test_progress_needs_no_passphrase_and_asks_no_tenant(done: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    (done.folder / "passphrase").unlink()
    workspace = Workspace(done.folder)
    assert not workspace.progress().left
    with pytest.raises(OnboardingError, match="Stop here"):  # the control
        workspace.verified()
    monkeypatch.setattr("socket.socket.connect", lambda *_: 1 / 0)
    workspace.choose_tenant(REAL)
    assert states(workspace.progress())[5:] == UNKNOWN * 2
    assert "only your tenant can say" in render(workspace.progress()).text


def test_a_real_tenant_is_asked_and_one_that_can_not_be_asked_is_no_success(done: Workspace) -> None:
    done.choose_tenant(REAL)
    assert states(done.verified())[5:] == UNKNOWN * 2 and "password" in done.verified().rows[5][1]


# -- the certificate of completion


def signed(workspace: Workspace, name: str = "") -> Path:
    form = CompletionForm(workspace)
    if name:
        form._name.value = name
        form.submit()
    form.sign()
    return workspace.folder / "completion"


def cms(openssl: Run, folder: Path, *more: str) -> bool:
    svg, ca = folder / "certificate.svg", folder / "caCert.pem"
    files = ["-in", svg.with_name("certificate.svg.p7s"), "-content", svg, "-CAfile", ca]
    done = openssl("cms", "-verify", "-binary", "-inform", "PEM", *files, "-out", "/dev/null", *more, check=False)
    return "Verification successful" in done.stdout + done.stderr


@pytest.mark.parametrize("issuer", ["ca", "intermediate"])
def test_openssl_verifies_the_certificate_of_completion_and_nothing_else(
    quick_workspace: Workspace, openssl: Run, issuer: str, tmp_path: Path
) -> None:
    workspace = quick_workspace
    workspace.catch_up("intermediate")
    workspace.choose_issuer(issuer)
    assert "07 Connect over MQTT" in repr(CompletionForm(workspace).sign())
    assert not (workspace.folder / "completion").exists()
    goes_all_the_way(workspace)
    if issuer == "intermediate":  # whose root's key is in a safe
        (workspace.ca_folder / "caKey.pem").unlink()
    folder = signed(workspace)
    assert cms(openssl, folder)
    svg = folder / "certificate.svg"
    first = svg.read_bytes()
    assert b">A learner<" in first and b">device-0001<" in first and b"PRIVATE" not in first
    svg.write_bytes(first.replace(b"A learner", b"A teacher"))
    assert not cms(openssl, folder), "another name"
    svg.write_bytes(first)
    assert cms(openssl, folder)
    (folder / "caCert.pem").write_bytes((workspace.folder / "platform" / "serverCert.pem").read_bytes())
    assert not cms(openssl, folder), "another CA"


def test_a_ca_that_openssl_made_with_rsa_pss_signs_what_openssl_verifies(
    quick_workspace: Workspace, openssl: Run
) -> None:
    workspace = quick_workspace
    workspace.catch_up("ca")
    config, key, certificate = (workspace.ca_folder / f"ca{name}" for name in ("Config.cnf", "Key.pem", "Cert.pem"))
    made = ["-newkey", "rsa-pss", "-pkeyopt", "rsa_keygen_bits:2048", "-passout", f"file:{workspace.folder}/passphrase"]
    openssl(
        "req",
        "-x509",
        "-config",
        config,
        *made,
        "-subj",
        "/CN=PSS",
        "-days",
        "9000",
        "-keyout",
        key,
        "-out",
        certificate,
    )
    goes_all_the_way(workspace := Workspace(workspace.folder))
    assert cms(openssl, signed(workspace))


def test_the_exercise_of_12_has_the_signers_certificate(done: Workspace) -> None:
    cells = nbformat.read(NOTEBOOKS[-1], as_version=4).cells
    text = next(cell.source for cell in cells if cell.source.startswith("## Exercises"))
    signed(done)
    given = {"workspace": done}
    exec(*re.findall(r"```python\n(.*)\n.*\n```", text, re.DOTALL), given)
    assert given["signers"] == [done.issuer_certificate]  # type: ignore[comparison-overlap]


def test_a_certificate_is_found_again_and_another_name_replaces_it(
    done: Workspace, capsys: pytest.CaptureFixture[str], openssl: Run
) -> None:
    svg = signed(done, "Learner One") / "certificate.svg"
    first, aged = svg.read_text(), svg.read_text().replace(" UTC</text>", " UTC</text>")
    assert CompletionForm(done).name == "Learner One", "the name is kept, also in another kernel"
    svg.write_text(aged := re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "2026-01-02 03:04", aged))
    signed(done)
    assert svg.read_text() == aged and cms(openssl, svg.parent), "its date is kept"
    assert not (done.folder / "earlier").exists()
    svg.write_text(aged.replace("device-0001", "device-0002"))
    signed(done)
    assert "device-0002" not in svg.read_text() and cms(openssl, svg.parent), "what was changed is not signed"
    signed(done, "Learner Two")
    assert "Learner Two" in svg.read_text() and cms(openssl, svg.parent)
    assert len(list((done.folder / "earlier").iterdir())) == 2 and "Moved" in capsys.readouterr().out
    assert first != svg.read_text()


@pytest.mark.parametrize("name", [*NASTY, "W" * 64, "株式会社" * 16, "2026-01-01 00:00 UTC", "$date", "a\u202eb"])
def test_no_name_breaks_the_certificate(done: Workspace, name: str, openssl: Run) -> None:
    folder = signed(done, name)
    tree = ElementTree.parse(folder / "certificate.svg")
    assert "script" not in {element.tag.rpartition("}")[2] for element in tree.iter()}
    assert name.replace("\u202e", "\N{REPLACEMENT CHARACTER}") in "".join(tree.getroot().itertext())
    shown = CompletionForm(done).sign()
    assert Tags(shown.html).tags == ["style", "img", "p"] and cms(openssl, folder)


@pytest.mark.parametrize("name", ["", "   ", "x" * 65])
def test_a_name_that_does_not_fit_is_not_taken(done: Workspace, name: str) -> None:
    form = CompletionForm(done)
    form._name.value = name
    form.submit()
    assert (
        form.name == "A learner"
        and "Type a name" in form._notes["name"].value
        and "Not submitted" in form._message.value
    )


# -- first lines

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PLAIN = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
OLD = KEY.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, BestAvailableEncryption(b"Zeppelin-8"))
NEW = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"Zeppelin-8"))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (NEW, "a private key, encrypted"),
        (OLD, "a private key, encrypted"),
        (PLAIN, "NOT encrypted"),
        (PLAIN.replace(b"\n", b""), "NOT encrypted"),
        (PLAIN.replace(b"\n", b"\r\n"), "NOT encrypted"),
        (PLAIN[:-300], "NOT encrypted"),
        (b"\n  ".join(PLAIN.splitlines()), "NOT encrypted"),
        (b"".join(PLAIN.splitlines(True)[1:-1]), ""),
        (PLAIN.decode().encode("utf-16"), "binary"),
        (KEY.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()), "binary"),
        (b"\x30\x31\x02\x01\x01\x04\x20" + b"\xffthe secret number of a key, x!\n" + b"\xa0\x0a", "binary"),
    ],
    ids=itertools.count(),  # not of the key: tests have the same names in every process
)
def test_no_more_of_a_private_key_is_shown_than_its_first_line(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "some.pem"
    path.write_bytes(data)
    path.chmod(0o600)
    inside = "".join(line for line in data.decode("latin-1").splitlines() if len(line) > 40)
    for look in both(first_lines(path)):
        assert said in look and "chmod" not in look
        assert "secret" not in look and not re.search(
            r"[A-Za-z0-9+/]{12,}", re.sub(r"some\.pem|encrypted|certificate", "", look)
        )
    assert inside or said == "binary"
    path.chmod(0o644)
    assert ("chmod 600" in first_lines(path).text) == ("private key" in said or "NOT" in said)


def test_of_what_is_public_the_first_lines_are_shown(done: Workspace) -> None:
    chain = done.device_file("deviceCertChain.pem")
    shown = first_lines(chain, done.ca_folder / "serial", done.device_file("deviceKeystore.jks"))
    lines = shown.text.split("\n")
    assert lines[0] == "deviceCertChain.pem" and lines.count("  -----BEGIN CERTIFICATE-----") == 2
    assert lines[2].strip() == chain.read_text().splitlines()[1] and base64.b64decode(lines[2])
    assert lines[-4:] == ["serial", "  1001", "deviceKeystore.jks: binary", "  fe ed fe ed …"]
    gone = first_lines(chain.with_name("nothing.pem"), chain).text  # and what is there is shown all the same
    assert gone.startswith("nothing.pem is missing: run the cells above, or put it back\n") and "BEGIN CERT" in gone
