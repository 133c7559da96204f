"""Ours and the real ``openssl ca`` take turns on one directory, in any order, and agree on it after every turn.

hypothesis deals the turns. A model, a plain dictionary, says what the directory must hold; ours is asked through an
object that lives through all turns and through one opened afresh, openssl through its own commands.
"""

import os
import shutil
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from ca_tools import GUIDE, codes, copied, make_ca, openssl_ca, openssl_signs, openssl_status, request
from conftest import PASSPHRASE, run
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, multiple, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as play

from mciot_nb import CertificateAuthority, DistinguishedName, OnboardingError
from mciot_nb.pki.authority import FIRST_SERIAL
from mciot_nb.pki.chain import to_pem
from mciot_nb.pki.crl import read_crl
from mciot_nb.pki.database import SigningDatabase, read_serial
from mciot_nb.pki.keys import KeyType
from mciot_nb.pki.names import oneline
from mciot_nb.pki.rows import REASONS, hex_serial

#: How many games are played, of ten turns each; MCIOT_EXAMPLES asks for a longer run.
GAMES = int(os.environ.get("MCIOT_EXAMPLES", "0")) or (15 if settings().max_examples >= 100 else 2)
SETTINGS = settings(max_examples=GAMES, stateful_step_count=10, suppress_health_check=list(HealthCheck))
#: The root is older than the certificates that are signed as expired: openssl does not care, but a reader may.
AGE = timedelta(days=800)
OPTIONS = {"keyTime": "-crl_compromise", "CAkeyTime": "-crl_CA_compromise"}
STATUS = {"V": "Valid (V)", "R": "Revoked (R)", "E": "Expired (E)"}

sides = st.sampled_from(["ours", "openssl"])
AWKWARD = [
    *("plain", "a/b+c", "/CN=not me/O=nor me", "Gerät"),
    r"Ger\xC3\xA4t",  # in openssl's one-line form it is the same as the one above
    *('"quoted"', "it's", "back\\slash", "back\\", "slash\\/", "🙂 日本", " leading", "trailing ", "two  blanks"),
    *("k=v,#;", "# no comment", "x" * 64, "ü" * 32, "%s%n$(reboot)`", "."),
]
legal_text = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=16)
texts = st.sampled_from(AWKWARD) | legal_text
names = st.builds(
    DistinguishedName,
    country=st.sampled_from([None, "DE"]),
    locality=st.none() | texts,  # the guide's policy drops it, so that it does not tell two subjects apart
    organization=st.none() | texts,
    common_name=texts,
    email=st.sampled_from([None, "a/b+c@example.com"]),
)
moments = st.datetimes(datetime(2001, 1, 1), datetime(2049, 12, 31)).map(lambda t: t.replace(microsecond=0, tzinfo=UTC))
arguments: dict[str, st.SearchStrategy[str]] = {
    "keyTime": moments.map(lambda t: t.strftime("%Y%m%d%H%M%SZ")),
    "CAkeyTime": moments.map(lambda t: t.strftime("%Y%m%d%H%M%SZ")),
}
reasons = st.sampled_from(["", *(one for one in REASONS if one != "holdInstruction")]).flatmap(
    lambda word: arguments[word].map(lambda argument: f"{word},{argument}") if word in arguments else st.just(word)
)


@dataclass
class Entry:
    """What the model knows of one certificate."""

    name: DistinguishedName
    certificate: x509.Certificate
    status: str = "V"
    revoked: datetime | None = None
    reason: str = ""


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def entries(crl: x509.CertificateRevocationList) -> list[tuple[int, datetime, list[bytes]]]:
    return [(e.serial_number, e.revocation_date_utc, [x.value.public_bytes() for x in e.extensions]) for e in crl]


class Turns(RuleBasedStateMachine):
    """One game: a directory, a model of it, and whose turn it is."""

    serials: Bundle[int] = Bundle("serials")

    def __init__(self, template: Path) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp(dir=template.parent))
        self.folder = copied(template, self.place / "caCertificate")
        self.ca = CertificateAuthority.open(self.folder, PASSPHRASE)
        self.model: dict[int, Entry] = {}
        self.lists, self.copies = 0, 0
        self.refused = {"ours": 0, "openssl": 0}

    def teardown(self) -> None:
        assert CertificateAuthority.open(self.folder, PASSPHRASE).recovered == "", "nobody has left a mess"
        assert codes(self.ca) == GUIDE | self.expected_findings()
        shutil.rmtree(self.place)

    def expected_findings(self) -> set[str]:
        """What `inspect` must say of the directory, by the model: these two, and nothing that one of us has broken."""
        path, valid = Path(self.ca.config.ca("crl")), [e for e in self.model.values() if e.status == "V"]
        expired = any(entry.certificate.not_valid_after_utc <= now() for entry in valid)
        listed = {entry.serial_number for entry in read_crl(path)} if path.exists() else None
        unlisted = listed is not None and listed != {s for s, e in self.model.items() if e.status == "R"}
        return ({"EXPIRED_ROWS"} if expired else set()) | ({"CRL_INCOMPLETE"} if unlisted else set())

    # --- what the two can do ---

    def sign_as(self, side: str, name: DistinguishedName, begin: datetime | None) -> x509.Certificate | str:
        """Let one side sign; gives the certificate or the refusal."""
        csr = request(name)
        if side == "ours":
            try:
                return self.ca.sign(csr, days=365, at=begin)
            except OnboardingError as error:
                return str(error)
        form = "%y%m%d%H%M%SZ"
        end = begin and begin + timedelta(days=365)
        times = ["-startdate", begin.strftime(form), "-enddate", end.strftime(form)] if begin and end else []
        return openssl_signs(self.folder, csr, "-extensions", "v3_signed", "-days", 365, *times, "-md", "sha256")

    def revoke_as(self, side: str, serial: int, reason: str, by_number: bool, at: datetime | None) -> str:
        """Let one side revoke; gives the refusal, or the empty text."""
        if side == "ours":
            try:
                self.ca.revoke(serial if by_number else self.model[serial].certificate, reason, at=at)
            except OnboardingError as error:
                return str(error)
            return ""
        word, _, argument = reason.partition(",")
        given = [OPTIONS[word], argument] if argument else ["-crl_reason", word] if word else []
        copy = self.folder / "deviceCertificates" / f"{hex_serial(serial)}.pem"
        done = openssl_ca(self.folder, "-revoke", copy, *given, check=False)
        return done.stderr + done.stdout if done.returncode else ""

    def state(self) -> list[bytes]:
        return [(self.folder / name).read_bytes() for name in ("database.txt", "serial", "crl/crlnumber")]

    def valid(self) -> dict[str, int]:
        return {oneline(e.certificate.subject): s for s, e in self.model.items() if e.status == "V"}

    # --- the turns ---

    def do_sign(self, side: str, name: DistinguishedName, expired: bool) -> int | None:
        begin = now() - timedelta(days=500) if expired else None
        subject, before = oneline(self.ca.preview(name).subject), self.state()
        if subject in self.valid():
            for each in self.refused:
                said = self.sign_as(each, name, begin)
                assert isinstance(said, str) and "already a certificate for" in said, (each, said)
                self.refused[each] += 1
            assert self.state() == before, "a refusal changes nothing"
            return None
        signed = self.sign_as(side, name, begin)
        assert isinstance(signed, x509.Certificate), signed
        assert signed.serial_number == FIRST_SERIAL + len(self.model)
        assert abs(signed.not_valid_before_utc - (begin or now())) < timedelta(minutes=5)
        assert signed.not_valid_after_utc - signed.not_valid_before_utc == timedelta(days=365)
        copy = self.folder / "deviceCertificates" / f"{hex_serial(signed.serial_number)}.pem"
        assert copy.read_bytes() == to_pem([signed])
        self.model[signed.serial_number] = Entry(name, signed)
        return signed.serial_number

    @initialize(target=serials, side=sides, name=names, expired=st.booleans())
    def begin(self, side: str, name: DistinguishedName, expired: bool) -> object:
        """No game is about an empty directory."""
        return self.sign(side, name, expired)

    @rule(target=serials, side=sides, name=names, expired=st.booleans())
    def sign(self, side: str, name: DistinguishedName, expired: bool) -> object:
        serial = self.do_sign(side, name, expired)
        self.agree()
        return multiple() if serial is None else serial

    @rule(target=serials, side=sides, serial=serials)
    def sign_again(self, side: str, serial: int) -> object:
        """The same subject: refused while it is valid, signed anew once it is revoked or marked as expired."""
        again = self.do_sign(side, self.model[serial].name, expired=False)
        self.agree()
        return multiple() if again is None else again

    @rule(target=serials, batch=st.lists(names, min_size=2, max_size=4))
    def sign_batch(self, batch: list[DistinguishedName]) -> object:
        """Several at once, which only ours can: the file is written anew for these, not appended to."""
        wanted = {oneline(self.ca.preview(name).subject): name for name in batch}
        subjects, before = list(wanted), self.state()
        if len(wanted) < len(batch) or self.valid().keys() & wanted.keys():
            with pytest.raises(OnboardingError) as caught:
                self.ca.sign_many([request(name) for name in batch])
            assert caught.value.code == "SUBJECT_TAKEN" and self.state() == before
            self.agree()
            return multiple()
        for certificate, subject in zip(self.ca.sign_many(map(request, batch)), subjects, strict=True):
            assert certificate.serial_number == FIRST_SERIAL + len(self.model)
            self.model[certificate.serial_number] = Entry(wanted[subject], certificate)
        self.agree()
        return multiple(*list(self.model)[-len(batch) :])

    @rule(side=sides, serial=serials, reason=reasons, by_number=st.booleans(), at=st.none() | moments)
    def revoke(self, side: str, serial: int, reason: str, by_number: bool, at: datetime | None) -> None:
        entry, before, begin = self.model[serial], self.state(), now()
        if entry.status == "R":
            for each in self.refused:
                said = self.revoke_as(each, serial, reason, by_number, at)
                assert "revoked" in said.lower() and "already" in said.lower(), (each, said)
                self.refused[each] += 1
            assert self.state() == before, "a refusal changes nothing"
        else:
            assert self.revoke_as(side, serial, reason, by_number, at) == ""
            row = SigningDatabase(self.ca.database.path, self.ca.database.serial_path).find(serial)
            assert row and row.revoked
            # openssl revokes now, always; only ours can be told another time
            assert (row.revoked == at) if side == "ours" and at else (begin <= row.revoked <= now())
            entry.status, entry.reason, entry.revoked = "R", reason, row.revoked
        self.agree()

    @precondition(lambda self: any(entry.status == "V" for entry in self.model.values()))
    @rule(side=sides)
    def update_database(self, side: str) -> None:
        due = {s for s, e in self.model.items() if e.status == "V" and e.certificate.not_valid_after_utc <= now()}
        if side == "ours":
            assert {row.serial for row in self.ca.update_database()} == due
        else:
            openssl_ca(self.folder, "-updatedb")
        for serial in due:
            self.model[serial].status = "E"
        self.agree()

    @rule(side=sides)
    def update_crl(self, side: str) -> None:
        path = Path(self.ca.config.ca("crl"))
        if side == "ours":
            self.ca.update_crl()
        else:
            openssl_ca(self.folder, "-gencrl", "-out", path)
        self.lists += 1
        crl = read_crl(path)
        number = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        assert number == FIRST_SERIAL + self.lists - 1
        revoked = [(s, e.revoked) for s, e in sorted(self.model.items()) if e.status == "R"]
        assert [(entry.serial_number, entry.revocation_date_utc) for entry in crl] == revoked
        self.agree()

    # --- and what both must say afterwards ---

    def agree(self) -> None:
        self.our_view()
        self.their_view()
        self.same_lists()

    def our_view(self) -> None:
        fresh = SigningDatabase(self.folder / "database.txt", self.folder / "serial")
        for database in (self.ca.database, fresh):
            rows = database.rows()
            assert [row.serial for row in rows] == sorted(self.model)
            for row in rows:
                entry = self.model[row.serial]
                assert (row.status, row.revoked, row.reason) == (entry.status, entry.revoked, entry.reason), row
                assert row.subject == oneline(entry.certificate.subject) and row.file == "unknown"
                assert row.expires == entry.certificate.not_valid_after_utc
            assert (database.index().serials, database.index().valid) == (set(self.model), self.valid())
            assert read_serial(database.serial_path) == FIRST_SERIAL + len(self.model)
        assert read_serial(self.folder / "crl" / "crlnumber") == FIRST_SERIAL + self.lists

    def their_view(self) -> None:
        before = self.state()
        for serial, entry in self.model.items():
            assert f"{hex_serial(serial)}={STATUS[entry.status]}" in openssl_status(self.folder, serial)
        further = openssl_status(self.folder, FIRST_SERIAL + len(self.model))
        assert "not present" in further, "openssl knows no further certificate"
        if (path := Path(self.ca.config.ca("crl"))).exists():
            certificate = self.folder / "caCert.pem"
            done = run("openssl", "crl", "-in", path, "-CAfile", certificate, "-noout", "-verify", check=False)
            assert "verify OK" in done.stderr, done.stderr
        assert self.state() == before, "looking changes nothing"

    def same_lists(self) -> None:
        """In two copies of the directory, ours and openssl make the same list of the same second."""
        self.copies += 1
        ours, theirs = (copied(self.folder, self.place / f"{side}{self.copies}") for side in ("ours", "openssl"))
        crl = CertificateAuthority.open(ours, PASSPHRASE).update_crl()
        assert crl.next_update_utc
        times = [time.strftime("%Y%m%d%H%M%SZ") for time in (crl.last_update_utc, crl.next_update_utc)]
        options = ["-crl_lastupdate", times[0], "-crl_nextupdate", times[1], "-out", theirs / "list.pem"]
        openssl_ca(theirs, "-gencrl", *options)
        other = read_crl(theirs / "list.pem")
        assert entries(crl) == entries(other)
        assert crl.public_bytes(Encoding.DER) == other.public_bytes(Encoding.DER)
        assert [e.serial_number for e in crl] == sorted(s for s, e in self.model.items() if e.status == "R")
        for folder in (ours, theirs):
            assert read_serial(folder / "crl" / "crlnumber") == FIRST_SERIAL + self.lists + 1
            shutil.rmtree(folder)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA that each game copies: an RSA key takes longer than a turn."""
    folder = tmp_path_factory.mktemp("turns") / "template"
    return make_ca(folder, key_type=KeyType.RSA_2048, at=now() - AGE).folder


def test_any_turns_agree(template: Path) -> None:
    play(lambda: Turns(template), settings=SETTINGS)


def test_a_game_with_every_kind_of_turn(template: Path) -> None:
    """What chance may leave out in a short run: each turn by each side, and each refusal."""
    game = Turns(template)
    for side, other in (("ours", "openssl"), ("openssl", "ours")):
        for number, text in enumerate(AWKWARD[:6] if side == "ours" else AWKWARD[6:12]):
            name = DistinguishedName(organization=text, common_name=f"{side}{number}")
            serial = game.do_sign(side, name, expired=number < 2)
            assert serial
            assert game.do_sign(other, name, expired=False) is None, "it is valid, or at least not marked as expired"
        game.agree()
        for at, reason in enumerate(["keyTime,20260102030405Z", "CAkeyTime,20260102030405Z", ""]):
            Turns.revoke(game, side, serial - at, reason, by_number=True, at=None)
            Turns.revoke(game, other, serial - at, reason, by_number=False, at=None)
        Turns.update_database(game, side)
        assert [e.status for e in game.model.values()][-6:] == ["E", "E", "V", "R", "R", "R"]
        Turns.update_crl(game, side)
        renewed = game.do_sign(other, game.model[serial - 5].name, expired=False)
        assert renewed, "once it is marked as expired, its subject can be signed again"
        Turns.revoke(game, other, serial - 4, "superseded", by_number=False, at=None)
        Turns.update_crl(game, other)
    assert game.refused == {"ours": 18, "openssl": 18}
    game.teardown()


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("database.txt", ",superseded", ",keyCompromise"),
        ("database.txt", ",superseded", ""),
        ("database.txt", "/CN=first", "/CN=First"),
        ("database.txt", "V\t", "E\t"),
        ("database.txt", "\t1001\t", "\t1002\t"),
        ("serial", "1002", "1003"),
        ("crl/crlnumber", "1001", "1002"),
    ],
)
def test_one_thing_changed_is_seen(template: Path, file: str, old: str, new: str) -> None:
    game = Turns(template)
    game.do_sign("ours", DistinguishedName(common_name="first"), expired=False)
    second = game.do_sign("openssl", DistinguishedName(common_name="second"), expired=False)
    assert second
    Turns.revoke(game, "ours", second, "superseded", by_number=True, at=None)
    Turns.update_crl(game, "openssl")
    path = game.folder / file
    good = path.read_text()
    assert good.count(old) == 1
    path.write_text(good.replace(old, new))
    with pytest.raises(AssertionError):
        game.agree()
    path.write_text(good)
    game.agree()


def test_a_list_of_another_ca_is_seen(template: Path) -> None:
    game = Turns(template)
    Turns.update_crl(game, "ours")
    other = make_ca(game.place / "other")
    other.update_crl()
    shutil.copy(other.config.ca("crl"), game.ca.config.ca("crl"))
    with pytest.raises(AssertionError, match=r"(?i)verify"):
        game.agree()


@pytest.mark.parametrize("texts", [("Gerät", r"Ger\xC3\xA4t"), (r"Ger\xC3\xA4t", "Gerät")])
def test_two_texts_of_one_line_are_one_subject_to_both(texts: tuple[str, str], template: Path) -> None:
    """openssl's one-line form leaves a backslash alone, so that it can't tell these apart: whoever is first is it."""
    game, (first, second) = Turns(template), (DistinguishedName(common_name=text) for text in texts)
    assert game.do_sign("ours", first, expired=False)
    assert game.do_sign("openssl", second, expired=False) is None and game.refused == {"ours": 1, "openssl": 1}
    assert game.do_sign("openssl", DistinguishedName(common_name="Other"), expired=False)
    game.agree()
