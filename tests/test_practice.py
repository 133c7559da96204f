"""The exercises and questions of the notebooks: the solutions are right, wrong attempts are told so, kindly."""

import ast
import re
import shutil
import tomllib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import nbformat
import pytest
from conftest import ROOT, make_keys_quick
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from platform_tools import wait_for

import mciot_nb
from mciot_nb import CertificateAuthority, Device, DistinguishedName, KeyType, LocalPlatform, Workspace, check_my_work
from mciot_nb.errors import OnboardingError
from mciot_nb.pki import keystore
from mciot_nb.pki.chain import fingerprint, read_certificates, to_pem
from mciot_nb.pki.keys import create_key, create_request, read_private_key, read_request
from mciot_nb.practice import DONE, TODO, WRONG, _Desk, _look
from mciot_nb.workspace import DEFAULTS
from tools.notebooks import NOTEBOOKS, execute

TABLE: dict[str, list[dict[str, Any]]] = tomllib.loads((ROOT / "data" / "exercises.toml").read_text("utf-8"))
CELLS = {path.stem[:2]: nbformat.read(path, as_version=4).cells for path in NOTEBOOKS}
EACH = [(number, at) for number, exercises in TABLE.items() for at in range(1, len(exercises) + 1)]
IN_A_TENANT = {
    *(("06", 1, "login"), ("06", 1, "other"), ("06", 2, "disabled"), ("06", 2, "auto")),
    *(("07", 1, "other"), ("07", 1, "log"), ("07", 2, "event"), ("07", 3, "asked"), ("07", 3, "answered")),
}
#: Notes that need nothing of the exercises before: what is written, and the sentence that answers it.
NOTES = [
    *(("08", 1, "unknown", "UNKNOWN_CA"), ("08", 1, "ok", "ok"), ("08", 1, "other", "CONNACK_5")),
    *(("09", 1, "incomplete", "CRL_INCOMPLETE"), ("09", 1, "other", "OK")),
    *(("09", 2, "near", "NOT_CONNECTED"), ("09", 2, "other", "REVOKED")),
    *(("08", 2, "early", "not_yet_valid"), ("08", 2, "other", "alert certificate expired")),
]
ANSWER = r"<details style=[^>]*><summary>(.+)</summary>\n\n(✓ \*\*Right\.\*\*|✗ \*\*No\.\*\*) (.+)\n\n</details>"
#: What an exercise has beside the sentences for what is wrong.
OTHERS = {"title", "files", "after", "check", "todo", "done", "wants", "answers"}


def solutions(number: str) -> list[str]:
    """Take the solutions of a notebook's exercises out of its cells, in their order."""
    texts = [cell.source for cell in CELLS[number] if re.search(r"-practice-\d-text$", cell.id)]
    return [re.findall(r"```python\n(.*?)```", text, re.DOTALL)[-1] for text in texts]


def state(workspace: Workspace, number: str, at: int) -> tuple[str, str]:
    """Return the state of one exercise and its sentence."""
    return _look(_Desk(workspace), TABLE[number][at - 1])


def solve(workspace: Workspace, number: str, at: int, given: dict[str, Any]) -> None:
    """Run a solution with what the notebook has at hand above it."""
    imports = [cell.source for cell in CELLS[number] if cell.cell_type == "code" and "from mciot_nb" in cell.source]
    for node in ast.walk(ast.parse("\n".join(imports).replace("%reload_ext", "#"))):
        if isinstance(node, ast.ImportFrom) and node.module == "mciot_nb":
            given |= {name.name: getattr(mciot_nb, name.name) for name in node.names}
    exec(solutions(number)[at - 1], given)


def at_hand(workspace: Workspace) -> dict[str, Any]:
    """Return the names that the notebooks' own cells have made by their end."""

    class Form:
        subject = DEFAULTS["intermediate"]

    given = {"workspace": workspace, "ca": workspace.ca(), "certificate": workspace.certificate("device")}
    given["issuer"] = workspace.ca()
    return given | {
        "form": Form,
        "display": str,
        "columns": ["name", "auto_registration"],
        "tenant": workspace.tenant(),
    }


def enrolled(workspace: Workspace) -> dict[str, Any]:
    """Return what the cells of 11 have made before its exercises."""
    tenant, name = workspace.use_profile("current").tenant, "device-0002"
    tenant.own_ca.turn_on()
    tenant.own_ca.create()
    device = workspace.enrol(tenant, name, tenant.own_ca.register(name))
    return {"tenant": tenant, "device": device, "device_id": name}


@pytest.fixture
def fresh(quick_workspace: Workspace) -> Workspace:
    quick_workspace.catch_up("upload")
    quick_workspace.ca().update_crl()  # as 03 and 09 do
    return quick_workspace


def test_the_solutions_are_right_one_after_the_other_and_change_nothing_of_the_guides(fresh: Workspace) -> None:
    before = {path: path.read_bytes() for path in fresh.ca_folder.rglob("*") if path.is_file()}
    given = at_hand(fresh)
    for number, at in EACH:
        if (number, at) == ("11", 1):
            given |= enrolled(fresh)
        found, sentence = state(fresh, number, at)
        assert found == TODO, f"{number}, exercise {at}, before it was done: {sentence}"
        solve(fresh, number, at, given)
        found, sentence = state(fresh, number, at)
        assert (found, sentence) == (DONE, TABLE[number][at - 1]["done"]), f"{number}, exercise {at}"
    for number, exercises in TABLE.items():  # and what came later has spoilt none of them
        assert f"{len(exercises)} of {len(exercises)} done" in check_my_work(number, fresh).text
    assert {path: path.read_bytes() for path in fresh.ca_folder.rglob("*") if path.is_file()} == before
    assert not (fresh.folder / "earlier").exists()
    fresh.start_over()
    assert not (fresh.folder / "practice").exists() and list(fresh.folder.glob("earlier/1/practice/secondCa"))


# Wrong attempts ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def solved(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A workspace in which the exercises of 00 to 05 and 10 are done; its platform is not needed any more."""
    with pytest.MonkeyPatch.context() as patch:
        make_keys_quick(patch)
        workspace = Workspace(tmp_path_factory.mktemp("solved") / "workspace")
        try:
            workspace.catch_up("upload")
            given = at_hand(workspace)
            for number, at in EACH:
                if number < "06" or number == "10":
                    solve(workspace, number, at, given)
            for name, answer in (("days", "365"), ("guess", "HTTP_401")):
                (workspace.practice_folder / f"{name}.txt").write_text(answer)
        finally:
            if platform := LocalPlatform.running(workspace.folder):
                platform.stop()
        yield workspace


@pytest.fixture
def copy(solved: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A copy of it, for one wrong attempt."""
    monkeypatch.delenv("MCIOT_PASSPHRASE", raising=False)
    shutil.copytree(solved.folder, tmp_path / "workspace")
    CertificateAuthority.relocate(tmp_path / "workspace" / "practice" / "secondCa")
    CertificateAuthority.relocate(tmp_path / "workspace" / "caCertificate")
    workspace = Workspace(tmp_path / "workspace")
    (workspace.practice_folder / "where.txt").write_text(str(workspace.ca_folder))
    return workspace


class Learner:
    """What a learner can do wrong, in a few words each."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace, self.folder = workspace, workspace.practice_folder
        self.device, self.ca = self.folder / "device", self.folder / "secondCa"
        self.second = CertificateAuthority.open(self.ca, workspace.passphrase)

    def write(self, file: str, text: str | bytes) -> None:
        (self.folder / file).write_bytes(text if isinstance(text, bytes) else text.encode())

    def create(self, name: str = "Other CA", days: int = 3650, kind: KeyType = KeyType.P256) -> None:
        shutil.rmtree(self.ca)
        CertificateAuthority.create(
            self.ca, DistinguishedName(common_name=name), self.workspace.passphrase, days=days, key_type=kind
        )

    def sign(self, name: str, days: int = 30, ca: Any = None, section: str = "v3_signed", key: Any = None) -> Any:
        request = self.folder / f"{name.replace(':', '')}.csr"
        own = key or read_private_key(self.device / "deviceKey.pem", self.workspace.passphrase)
        made = create_request(request, own, DistinguishedName(common_name=name))
        return (ca or self.second).sign(made, section, days)

    def put(self, file: str, *certificates: x509.Certificate) -> None:
        self.write(file, to_pem(certificates))

    def other_key(self) -> Any:
        return create_key(self.folder / "other.pem", self.workspace.passphrase, KeyType.P256)

    def sign_itself(self) -> x509.Certificate:
        """Return a certificate that signed itself and is no CA's, as a web server's may be."""
        key, name, now = self.second.key, self.second.certificate.subject, datetime.now(UTC)
        made = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=3650))
        return made.add_extension(x509.BasicConstraints(False, None), True).sign(key, SHA256())

    def open_key(self, file: str) -> None:
        key = read_private_key(self.folder / file, self.workspace.passphrase)
        self.write(file, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    def section(self, old: str, new: str) -> None:
        path = self.ca / "caConfig.cnf"
        head, found, tail = path.read_text("utf-8").partition("[ v3_intermediate ]")
        assert old in tail
        path.write_text(head + found + tail.replace(old, new), "utf-8")

    def store(self, file: str, chain: list[x509.Certificate], alias: str = "practice", key: Any = None) -> None:
        key = key or read_private_key(self.device / "deviceKey.pem", self.workspace.passphrase)
        password = (self.device / "password.txt").read_text()
        keystore.write_keystore(self.device / file, key, chain, password, alias, replace=True)

    def trust(self, *certificates: x509.Certificate) -> None:
        password = (self.device / "password.txt").read_text()
        trusted = {f"alias{at}": certificate for at, certificate in enumerate(certificates)}
        keystore.write_truststore(self.device / "deviceTruststore.pkcs12", trusted, password, replace=True)

    @property
    def own(self) -> x509.Certificate:
        return read_certificates(self.device / "deviceCert.pem")[0]

    def reuse_passphrase(self) -> None:
        (self.device / "password.txt").write_text(self.workspace.passphrase.reveal())

    def forget_revocations(self, reason: str = "") -> None:
        """Let nothing be revoked, or what is revoked for another reason."""
        path = self.ca / "database.txt"
        text = re.sub(r",keyCompromise\t", f",{reason}\t" if reason else "\t", path.read_text())
        path.write_text(text)


INTERMEDIATE, OWN = "secondCa/intermediateCertificate/intermediateCert.pem", "device/deviceCert.pem"
#: What a learner does wrong, and the sentence of the exercise that answers it.
ATTEMPTS: list[tuple[str, int, str, Callable[[Learner], object]]] = [
    ("00", 1, "outside", lambda t: t.write("where.txt", str(t.workspace.folder))),
    ("00", 1, "other", lambda t: t.write("where.txt", "somewhere")),
    ("00", 1, "other", lambda t: t.write("where.txt", "")),
    ("00", 1, "other", lambda t: t.write("where.txt", b"\xff\xfe{0}\0")),
    ("00", 2, "other", lambda t: t.write("tenant.txt", "https://elsewhere.example.com")),
    ("01", 1, "other", lambda t: t.write("path-length.txt", "0")),
    ("01", 2, "issuer", lambda t: t.put("secondCa/caCert.pem", t.own)),
    ("01", 2, "ca", lambda t: t.put("secondCa/caCert.pem", t.sign_itself())),
    ("01", 2, "type", lambda t: t.create(kind=KeyType.RSA_2048)),
    ("01", 2, "days", lambda t: t.create(days=365)),
    ("01", 2, "umlaut", lambda t: t.create("Zweite Prüfstelle")),
    ("01", 2, "open", lambda t: t.open_key("secondCa/caKey.pem")),
    ("01", 2, "pair", lambda t: shutil.copy(t.device / "deviceKey.pem", t.ca / "caKey.pem")),
    ("01", 3, "sha1", lambda t: t.write("fingerprint.txt", fingerprint(t.second.certificate))),
    ("01", 3, "first", lambda t: t.write("fingerprint.txt", fingerprint(t.workspace.certificate("ca"), "sha256"))),
    ("01", 3, "other", lambda t: t.write("fingerprint.txt", fingerprint(t.second.certificate, "sha256")[:-1])),
    ("02", 1, "other", lambda t: t.write("dropped.txt", "commonName")),
    ("02", 2, "ca", lambda t: t.section("CA:true", "CA:false")),
    ("02", 2, "ca", lambda t: t.section("critical, ", "")),
    ("02", 2, "pathlen", lambda t: t.section("pathlen:0", "pathlen:10")),
    ("02", 2, "usage", lambda t: t.section(", keyCertSign", "")),
    ("02", 3, "issuer", lambda t: t.put(INTERMEDIATE, t.workspace.certificate("ca"))),
    ("02", 3, "ca", lambda t: t.put(INTERMEDIATE, t.own)),
    ("02", 3, "pathlen", lambda t: t.put(INTERMEDIATE, t.sign("Deep CA", section="v3_ca"))),
    ("02", 3, "pair", lambda t: t.put(INTERMEDIATE, t.sign("Its CA", section="v3_intermediate"))),
    ("03", 1, "today", lambda t: t.write("later.txt", "ok")),
    ("03", 1, "other", lambda t: t.write("later.txt", "NOT_YET_VALID")),
    ("03", 2, "issuer", lambda t: t.put(OWN, t.workspace.certificate("device"))),
    ("03", 2, "ca", lambda t: t.put(OWN, t.sign("a", section="v3_ca"))),
    ("03", 2, "days", lambda t: t.put(OWN, t.sign("a", 365))),
    ("03", 2, "name", lambda t: t.put(OWN, t.sign("device-0001"))),
    ("03", 2, "name", lambda t: t.put(OWN, t.sign("a:b"))),
    ("03", 2, "open", lambda t: t.open_key("device/deviceKey.pem")),
    ("03", 2, "pair", lambda t: t.put(OWN, t.sign("a", key=t.other_key()))),
    ("03", 2, "revoked", lambda t: t.second.revoke(t.own, "superseded")),
    ("03", 3, "reason", lambda t: t.forget_revocations("superseded")),
    ("03", 3, "reason", lambda t: t.forget_revocations()),
    ("03", 3, "list", lambda t: (t.ca / "crl" / "caCrl.pem").unlink()),
    ("03", 3, "old", lambda t: t.second.revoke(t.sign("a"), "keyCompromise")),
    ("03", 3, "old", lambda t: t.write("secondCa/crl/caCrl.pem", "no list")),
    ("04", 1, "others", lambda t: t.put("device/wrongChain.pem", t.second.certificate)),
    ("04", 1, "first", lambda t: t.put("device/wrongChain.pem", t.own, t.second.certificate)),
    ("04", 1, "first", lambda t: t.put("device/wrongChain.pem", t.own)),
    ("04", 1, "other", lambda t: t.write("verdict.txt", "OK")),
    ("04", 2, "others", lambda t: t.put("device/deviceCertChain.pem", t.sign("a"), t.second.certificate)),
    ("04", 2, "good", lambda t: t.put("device/deviceCertChain.pem", t.second.certificate, t.own)),
    ("04", 2, "good", lambda t: t.put("device/deviceCertChain.pem", t.own)),
    ("05", 1, "mode", lambda t: (t.device / "password.txt").chmod(0o644)),
    ("05", 1, "same", lambda t: t.reuse_passphrase()),
    ("05", 1, "own", lambda t: t.store("deviceKeystore.pkcs12", [t.sign("a"), t.second.certificate])),
    ("05", 1, "second", lambda t: t.store("deviceKeystore.pkcs12", [t.own])),
    ("05", 1, "alias", lambda t: t.store("deviceKeystore.pkcs12", [t.own, t.second.certificate], "devicekeyentry")),
    ("05", 2, "server", lambda t: t.trust(t.second.certificate)),
    ("05", 2, "second", lambda t: t.trust(read_certificates(t.workspace.device_file("serverCertificate.pem"))[0])),
    ("05", 3, "own", lambda t: t.store("byOpenssl.pkcs12", [t.sign("a"), t.second.certificate])),
    ("05", 3, "second", lambda t: t.store("byOpenssl.pkcs12", [t.own])),
    ("10", 1, "few", lambda t: shutil.rmtree(t.folder / "plant" / "plant-2")),
    ("10", 1, "issuer", lambda t: t.put("plant/plant-1/deviceCert.pem", t.workspace.certificate("device"))),
    ("10", 1, "days", lambda t: t.put("plant/plant-1/deviceCert.pem", t.sign("a"))),
    ("10", 2, "good", lambda t: t.write("failed.txt", "2")),
    ("10", 2, "other", lambda t: t.write("failed.txt", "press:1")),
    ("11", 1, "ca", lambda t: t.write("days.txt", "1095")),
    ("11", 1, "other", lambda t: t.write("days.txt", "a year")),
    ("11", 2, "many", lambda t: t.write("guess.txt", "http_429")),
    ("11", 2, "other", lambda t: t.write("guess.txt", "CONNACK_5")),
]


@pytest.mark.parametrize(
    ("number", "at", "name", "do"), ATTEMPTS, ids=[f"{n}-{at}-{key}" for n, at, key, _ in ATTEMPTS]
)
def test_a_wrong_attempt_is_answered_by_its_own_sentence(
    copy: Workspace, number: str, at: int, name: str, do: Callable[[Learner], object]
) -> None:
    assert state(copy, number, at)[0] == DONE, "the control"
    do(Learner(copy))
    found, sentence = state(copy, number, at)
    said = re.escape(TABLE[number][at - 1][name]).replace(r"\{\}", ".*")
    assert found == WRONG and re.fullmatch(said, sentence, re.DOTALL), sentence


def test_the_advice_leads_to_the_goal(copy: Workspace) -> None:
    learner = Learner(copy)
    request = read_request(learner.device / "deviceCsr.pem")
    learner.second.revoke(learner.own, "superseded")
    learner.put(OWN, learner.second.sign(request, days=365))
    assert "revoke it with" in state(copy, "03", 2)[1]
    learner.second.revoke(learner.own, "superseded")
    learner.put(OWN, learner.second.sign(request, days=30))
    assert state(copy, "03", 2)[0] == DONE

    folder, subject = learner.ca / "intermediateCertificate", DistinguishedName(common_name="Once more")

    def move_away(number: str, at: int, name: str) -> None:
        said = re.search(r"move it away with (.*'\)), and", TABLE[number][at - 1][name])
        assert said
        exec(said[1], {"workspace": copy})  # as the learner would, letter for letter

    move_away("02", 3, "pathlen")
    options = {"extensions": "v3_intermediate", "key_type": KeyType.P256}
    learner.second.create_intermediate(folder, subject, copy.passphrase, **options)  # type: ignore[arg-type]
    assert state(copy, "02", 3)[0] == DONE

    move_away("01", 2, "type")
    CertificateAuthority.create(learner.ca, subject, copy.passphrase, days=3650, key_type=KeyType.P256)
    assert state(copy, "01", 2)[0] == DONE and state(copy, "03", 2)[1] == TABLE["03"][1]["issuer"]


@pytest.mark.parametrize(("number", "at", "name", "text"), NOTES)
def test_a_wrong_note_is_answered_by_its_own_sentence(
    quick_workspace: Workspace, number: str, at: int, name: str, text: str
) -> None:
    words = TABLE[number][at - 1]
    note = quick_workspace.practice_folder / words["files"][0]
    note.parent.mkdir(exist_ok=True)
    for written, found, sentence in (
        (text, WRONG, words[name].format(text)),
        (next(code for code, word in words["answers"].items() if word == "right"), DONE, words["done"]),
    ):
        note.write_text(written)
        assert state(quick_workspace, number, at) == (found, sentence)


def test_every_sentence_has_its_wrong_attempt() -> None:
    tried = {(number, at, name) for number, at, name, _ in [*ATTEMPTS, *NOTES]} | IN_A_TENANT  # type: ignore[misc]
    known = {(number, at, name) for number, at in EACH for name in set(TABLE[number][at - 1]) - OTHERS}
    assert tried == known


@pytest.mark.parametrize(
    "lost", sorted({file for n, at in EACH if n < "06" for file in TABLE[n][at - 1].get("files", ())})
)
def test_a_file_that_is_gone_or_broken_is_said_so_and_nothing_is_a_traceback(copy: Workspace, lost: str) -> None:
    path = copy.folder / "practice" / lost
    whole = path.read_bytes()
    for content in (None, b"", whole[: len(whole) // 2], b"\x30\x82\xff\xff{}" * 9, "folder"):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        if content == "folder":
            path.mkdir()
        elif isinstance(content, bytes):
            path.write_bytes(content)
        bad = 0
        for number, at in [each for each in EACH if each[0] < "06"]:
            found, sentence = state(copy, number, at)
            assert sentence.endswith(".") and "\n" not in sentence and "Traceback" not in sentence
            bad += found != DONE
            if content is None and lost in TABLE[number][at - 1].get("files", ()):
                others = len(TABLE[number][at - 1]["files"]) > 1
                assert found == (WRONG if others else TODO)
                assert not others or f"practice/{lost} is missing" in sentence
        assert bad, f"{content!r} in {lost} was not noticed"
    shutil.rmtree(path)
    path.write_bytes(whole)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])  # Notepad's second, PowerShell's third
def test_a_note_is_read_whatever_wrote_it(copy: Workspace, encoding: str) -> None:
    for path, end in (("where.txt", "/\r\n"), ("device/password.txt", "\r\n")):
        path = copy.practice_folder / path
        text = path.read_text().strip() if "password" in path.name else str(copy.ca_folder)
        path.write_bytes((text + end).encode(encoding))
    assert state(copy, "00", 1)[0] == state(copy, "05", 1)[0] == DONE
    (copy.practice_folder / "where.txt").write_bytes(f"{copy.folder}/".encode(encoding))
    assert state(copy, "00", 1) == (WRONG, TABLE["00"][0]["outside"])


def test_a_passphrase_that_is_not_typed_is_asked_for(copy: Workspace) -> None:
    (copy.folder / "passphrase").unlink()
    assert "Type it in the field at" in state(Workspace(copy.folder), "01", 2)[1]
    assert "1 of 3 done" not in check_my_work("01", Workspace(copy.folder)).text


def test_what_comes_first_is_named_first(quick_workspace: Workspace) -> None:
    quick_workspace.catch_up("chain")
    for number, at in EACH:
        found, sentence = state(quick_workspace, number, at)
        after = TABLE[number][at - 1].get("after", [""])[0]
        assert found == TODO and (f"exercise {after}:" in sentence if after else sentence.endswith("."))
        assert sentence in check_my_work(number, quick_workspace).text


def test_the_workspace_is_the_one_that_was_opened_last_and_another_number_is_a_sentence(fresh: Workspace) -> None:
    (Workspace(fresh.folder).practice_folder / "where.txt").write_text(str(fresh.ca_folder))
    assert "✓ done" in check_my_work("0").text and "1 of 2 done" in check_my_work("00")._repr_html_()
    with pytest.raises(OnboardingError, match="use one of 00, 01"):
        check_my_work("12")


def test_half_way_in_a_tenant(copy: Workspace) -> None:
    def said(number: str, at: int, name: str, found: str = "") -> bool:
        return state(copy, number, at)[1] == TABLE[number][at - 1][name].format(found)

    learner, tenant = Learner(copy), copy.tenant()
    second, trusted, folder = learner.second.certificate, tenant.trusted_certificates, learner.device
    try:
        learner.write("refusal.txt", "HTTP_401")
        assert said("06", 1, "login", "HTTP_401")
        learner.write("refusal.txt", "OK")
        assert said("06", 1, "other", "OK")
        assert said("06", 2, "todo") and said("07", 1, "todo") and said("07", 2, "todo") and said("07", 3, "todo")
        learner.write("connack.txt", "OK")
        assert said("07", 1, "other", "OK")
        learner.write("connack.txt", "CONNACK_5")
        assert said("07", 1, "log", "nothing")
        trusted.upload(second)
        assert said("06", 2, "auto")
        trusted.update(second, status="DISABLED")
        assert said("06", 2, "disabled")
        trusted.update(second, status="ENABLED")
        files = {"chain": folder / "deviceCertChain.pem", "key": folder / "deviceKey.pem"}
        trust = {"passphrase": copy.passphrase, "trusted": copy.trusted_file(tenant)}
        with Device(*tenant.mqtt, **files, **trust) as device:  # type: ignore[arg-type]
            device.create()
            assert said("07", 1, "log", "CONNECTED") and said("07", 2, "event") and said("07", 3, "asked")
            assert said("06", 2, "done"), "the device is in, so it may stay on"
            tenant.devices.command(device.client_id, "hello")
            assert said("07", 3, "answered", "PENDING")
            (operation,) = device.operations(timeout=60)
            device.executing(operation)
            wait_for(lambda: tenant.devices.operations(device.client_id)[-1].status == "EXECUTING", 60)
            assert said("07", 3, "answered", "EXECUTING")
            device.failed(operation, "no voice")
            wait_for(lambda: tenant.devices.operations(device.client_id)[-1].status == "FAILED", 60)
            assert said("07", 3, "answered", "FAILED")
    finally:
        copy.platform().stop()


def test_a_real_tenant_whose_password_is_missing_or_whose_log_is_its_own(
    copy: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"URL": "https://tenant.example.com", "TENANT": "t1", "USER": "me"}.items():
        monkeypatch.setenv(f"MCIOT_{name}", value)
    for number, at in (("06", 2), ("07", 2), ("07", 3)):
        found, sentence = state(copy, number, at)
        assert found == WRONG and "type the password or token of your tenant" in sentence
    Learner(copy).write("connack.txt", "connack 5")
    assert state(copy, "07", 1)[0] == WRONG
    Learner(copy).write("connack.txt", "CONNACK_5")
    assert state(copy, "07", 1)[0] == DONE, "whose log nobody sees"
    assert LocalPlatform.running(copy.folder) is None
    assert state(copy, "00", 2)[0] == WRONG
    Learner(copy).write("tenant.txt", "https://tenant.example.com")
    assert state(copy, "00", 2)[0] == DONE


# In the notebooks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", NOTEBOOKS[:8], ids=[path.stem for path in NOTEBOOKS[:8]])
def test_each_notebook_has_exercises_and_questions(path: Path) -> None:
    number, cells = path.stem[:2], {cell.id.partition("-")[2]: cell for cell in CELLS[path.stem[:2]]}
    for at, exercise in enumerate(TABLE[number], 1):
        text, empty = cells[f"practice-{at}-text"].source, cells[f"practice-{at}"]
        assert f"**Exercise {at}: {exercise['title']}**" in text
        assert text.count("<summary>Hint</summary>") == text.count("<summary>Solution</summary>") == 1
        assert empty.source.startswith("#") and len(empty.source.splitlines()) == 1 and empty.outputs == []
        assert len(solutions(number)[at - 1].splitlines()) <= 12
    assert f"practice-{len(TABLE[number]) + 1}" not in cells and 2 <= len(TABLE[number]) <= 3
    assert f'check_my_work("{number}")' in cells["practice-check"].source
    assert f"0 of {len(TABLE[number])} done" in str(cells["practice-check"].outputs)

    questions = re.split(r"(?m)^\*\*\d\. .*\*\*$", cells["questions"].source)[1:]
    assert 2 <= len(questions) <= 3
    for question in questions:
        answers = re.findall(ANSWER, question)
        assert len(answers) == question.count("<summary>") == 3
        assert [mark[0] for _, mark, _ in answers].count("✓") == 1 and all(
            why.endswith((".", "?")) for *_, why in answers
        )
        assert not any("`" in answer for answer, *_ in answers), "Markdown is not read inside a tag"


@pytest.mark.slow
def test_the_solutions_work_in_the_notebooks_and_run_all_works_on(
    quick_workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick_workspace.catch_up("upload")  # with quick keys
    monkeypatch.setenv("MCIOT_WORKSPACE", str(quick_workspace.folder))
    for path in NOTEBOOKS[:8]:
        notebook, number = nbformat.read(path, as_version=4), path.stem[:2]
        for cell in notebook.cells:
            if found := re.search(r"-practice-(\d)$", cell.id):
                cell.source = solutions(number)[int(found[1]) - 1]
        assert execute(notebook, path) == "", path.stem
        (check,) = [cell for cell in notebook.cells if cell.id.endswith("-practice-check")]
        assert f"{len(TABLE[number])} of {len(TABLE[number])} done" in str(check.outputs), path.stem
    for path in NOTEBOOKS[:8]:  # again, without the solutions: nothing of the guide's way is in their way
        notebook = nbformat.read(path, as_version=4)
        assert execute(notebook, path) == "", path.stem
        (check,) = [cell for cell in notebook.cells if cell.id.endswith("-practice-check")]
        assert "○" not in str(check.outputs) and "✗" not in str(check.outputs)
    assert not (quick_workspace.folder / "earlier").exists()
