"""The signing database, live, without a browser: whoever writes it is seen, and what is shown is right and safe."""

import json
import math
import re
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import PASSPHRASE, Run
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st
from test_ui import Tags

from mciot_nb import CertificateAuthority, DistinguishedName
from mciot_nb.pki import rows
from mciot_nb.pki.chain import to_pem
from mciot_nb.pki.crl import read_crl
from mciot_nb.pki.keys import KeyType
from mciot_nb.pki.rows import decoded, hex_serial
from mciot_nb.ui import signing_panel
from mciot_nb.ui.certificate_card import certificate_card
from mciot_nb.ui.markup import table, visible
from mciot_nb.ui.panel import PAGE, LiveTable
from mciot_nb.ui.signing_panel import REASONS, SigningPanel, signing_texts, signing_values

KEY = ec.generate_private_key(ec.SECP256R1())
NOW = datetime(2026, 11, 26, 12, 0, 0, tzinfo=UTC)


def request(name: str) -> x509.CertificateSigningRequest:
    subject = DistinguishedName(country="DE", common_name=name).to_x509()
    return x509.CertificateSigningRequestBuilder().subject_name(subject).sign(KEY, SHA256())


def sign(ca: CertificateAuthority, name: str, at: datetime | None = None) -> str:
    """Sign with ours; gives the serial number as the table has it."""
    return hex_serial(ca.sign(request(name), days=365, at=at).serial_number)


def openssl_ca(openssl: Run, ca: CertificateAuthority, *options: object) -> None:
    openssl("ca", "-batch", "-config", ca.config.path, "-passin", "env:PASS", "-notext", *options)


def openssl_signs(openssl: Run, ca: CertificateAuthority, name: str) -> None:
    csr = ca.folder.parent / "csr.pem"
    csr.write_bytes(request(name).public_bytes(Encoding.PEM))
    openssl_ca(openssl, ca, "-extensions", "v3_signed", "-in", csr, "-out", csr.with_name("out.pem"))


def column(panel: SigningPanel, name: str) -> dict[str, str]:
    position = panel.table.columns.index(name)
    return {key: texts[position] for key, *texts in panel.table.rows}


def hidden(part: Any) -> bool:
    return "mciot-hidden" in part._dom_classes


def opened(panel: SigningPanel, serial: str) -> str:
    """Open a row as the browser does, and give what stands beneath the table then."""
    panel.table.set_state({"opened": serial})
    return str(panel._details.value)


def ask(panel: SigningPanel) -> None:
    panel._revoke.children[1].click()


def press_yes(panel: SigningPanel) -> None:
    panel._question.children[-2].click()
    panel.wait()


def cells(markup: str) -> list[str]:
    """Return the text of a table's cells."""
    return [Tags(cell).text for cell in re.findall(r"<t[dh][ >].*?</t[dh]>", markup)]


# -- who writes is seen


def test_a_row_of_ours_and_one_of_openssl_appear_and_are_marked(ca: CertificateAuthority, openssl: Run) -> None:
    panel = SigningPanel(ca)
    assert (panel.table.rows, panel.table.total, panel.table.status) == ([], 0, "")
    first = sign(ca, "first")
    panel.poll()
    assert panel.table.news == {first: "new"}, "the first of an empty database"
    assert column(panel, "Status") == {first: "✓ valid"} and column(panel, "Days left") == {first: "365"}
    panel = SigningPanel(ca)
    panel.poll()
    assert column(panel, "Common name") == {first: "first"} and panel.table.news == {}, "what was there is not new"
    other = CertificateAuthority.open(ca.folder, PASSPHRASE)  # as another notebook has it
    second = sign(other, "second")
    panel.poll()
    assert list(column(panel, "Common name").items()) == [(second, "second"), (first, "first")], "the newest first"
    assert panel.table.news == {second: "new"} and panel.table.status == f"1 new: {second}."
    openssl_signs(openssl, ca, "third")
    panel.poll()
    third = panel.table.rows[0][0]
    assert (panel.table.rows[0][4], panel.table.news, panel.table.total) == ("third", {third: "new"}, 3)


def test_a_revocation_by_anyone_is_seen_and_marked(ca: CertificateAuthority, openssl: Run) -> None:
    ours, theirs, kept = (sign(ca, name) for name in ("ours", "theirs", "kept"))
    panel = SigningPanel(ca)
    ca.revoke(int(ours, 16), "superseded")
    panel.poll()
    assert panel.table.news == {ours: "changed"} and panel.table.status == f"1 changed: {ours}."
    copy = ca.config.ca_path("new_certs_dir") / f"{theirs}.pem"
    openssl_ca(openssl, ca, "-revoke", copy, "-crl_reason", "keyCompromise")
    panel.poll()
    assert panel.table.news == {theirs: "changed"}
    words = {kept: "✓ valid", theirs: "✗ revoked: keyCompromise", ours: "✗ revoked: superseded"}
    assert column(panel, "Status") == words
    assert column(panel, "Days left") == {kept: "365", theirs: "-", ours: "-"}
    assert column(panel, "Revoked")[kept] == "-" and column(panel, "Revoked")[ours].startswith("20")


def test_many_at_once_are_counted_and_only_those_on_the_page_are_in_the_state(ca: CertificateAuthority) -> None:
    sign(ca, "before")
    panel = SigningPanel(ca)
    ca.sign_many([request(f"device-{number}") for number in range(25)])
    panel.poll()
    assert panel.table.status.startswith("25 new: 1019, 1018, 1017 …")
    assert len(panel.table.news) == len(panel.table.rows) == PAGE
    panel.table.set_state({"first": 20})
    assert (len(panel.table.rows), len(panel.table.news)) == (6, 5), "the mark stays when the page is turned"


def test_what_is_not_changed_is_not_read(ca: CertificateAuthority, monkeypatch: pytest.MonkeyPatch) -> None:
    sign(ca, "device")
    panel, reads = SigningPanel(ca), []
    to_frame = type(ca.database).to_frame
    monkeypatch.setattr(type(ca.database), "to_frame", lambda self: reads.append(1) or to_frame(self))
    for _ in range(5):
        panel.poll()
    assert reads == []
    sign(ca, "another")
    for _ in range(5):
        panel.poll()
    assert reads == [1]


# -- files that are missing, torn, damaged


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda path: path.unlink(), "There is no signing database"),
        (lambda path: path.write_text("V\tno row\n"), "line 1 is not a row of a signing database"),
        (lambda path: path.write_bytes(path.read_bytes() * 2), "is there twice"),
        (lambda path: path.write_bytes(b"\xff\n"), "is not text"),
    ],
)
def test_a_damage_that_stays_is_said_and_the_table_stays_as_it_was(
    ca: CertificateAuthority, damage: Callable[[Path], object], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    serial = sign(ca, "device")
    panel, good = SigningPanel(ca), ca.database.path.read_bytes()
    damage(ca.database.path)
    panel.poll()
    assert panel._trouble.value == "", "it may be mended in a moment"
    monkeypatch.setattr(signing_panel, "PATIENCE", 0)
    late = SigningPanel(ca)
    panel.poll()
    assert sentence in Tags(late._trouble.value).text and sentence in late.picture().text
    shown = Tags(panel._trouble.value)
    assert sentence in shown.text and shown.text.startswith("✗ ") and 'role="alert"' in panel._trouble.value
    assert column(panel, "Common name") == {serial: "device"}
    assert "device" in panel.picture().text and "device" in panel.picture().html
    ca.database.path.write_bytes(good)
    for one in (panel, late):
        one.poll()
        assert one._trouble.value == "" and one.table.news == {}
        assert column(one, "Common name") == {serial: "device"}


def test_a_torn_row_is_not_shown_before_it_is_whole(ca: CertificateAuthority) -> None:
    first, second = sign(ca, "device"), sign(ca, "second")
    whole = ca.database.path.read_bytes()
    ca.database.path.write_bytes(whole[:-20])
    panel = SigningPanel(ca)
    assert list(column(panel, "Serial")) == [first] and panel._trouble.value == ""
    ca.database.path.write_bytes(whole)
    panel.poll()
    assert panel.table.news == {second: "new"}


def test_another_ca_in_the_same_folder_is_not_taken_for_this_one(
    ca: CertificateAuthority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign(ca, "mine")
    panel = SigningPanel(ca)
    monkeypatch.setattr(signing_panel, "PATIENCE", 0)
    ca.folder.rename(tmp_path / "earlier")
    other = CertificateAuthority.create(
        ca.folder, DistinguishedName(common_name="Other"), PASSPHRASE, key_type=KeyType.P256
    )
    sign(other, "theirs")
    panel.poll()
    assert "holds another CA by now" in Tags(panel._trouble.value).text
    assert list(column(panel, "Common name").values()) == ["mine"]
    assert list(column(SigningPanel(other), "Common name").values()) == ["theirs"]
    late = SigningPanel(ca)  # of what was opened before: no picture under its name shows another's rows
    assert "holds another CA by now" in repr(late) and "theirs" not in repr(late)


# -- words and time


def records(draw: Any) -> pd.DataFrame:
    """Draw a database as `to_frame` gives it."""
    size = draw(st.integers(0, 12))
    times = st.datetimes(NOW.replace(tzinfo=None) - timedelta(900), NOW.replace(tzinfo=None) + timedelta(900))
    seconds = times.map(lambda time: time.replace(microsecond=0, tzinfo=UTC))
    words = st.sampled_from(
        ["", "device", "Gerät", "<script>alert(1)</script>", "a\u202eb", "ÄÖ ß", "x" * 40]
    ) | st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\t\n\r\0"), max_size=9)
    status = draw(st.lists(st.sampled_from("VRE"), min_size=size, max_size=size))
    frame = pd.DataFrame(
        {
            "status": status,
            "expires": pd.Series([draw(seconds) for _ in status], dtype="datetime64[s, UTC]"),
            "revoked": pd.Series([draw(seconds) if s == "R" else None for s in status], dtype="datetime64[s, UTC]"),
            "reason": [draw(st.sampled_from(["", "keyCompromise"])) if s == "R" else "" for s in status],
            "serial": pd.Series(
                draw(st.lists(st.integers(0, 1 << 150), min_size=size, max_size=size, unique=True)), dtype=object
            ),
            "subject": [f"/CN={draw(words)}" for _ in status],
            "common_name": [draw(words) for _ in status],
        }
    )
    return frame


frames = st.composite(records)()
moments = st.timedeltas(timedelta(-400), timedelta(400)).map(lambda delta: NOW + delta)


def in_plain_python(row: dict[Any, Any], now: datetime) -> list[str]:
    """Write one row as the table writes all at once."""
    expired = row["status"] == "V" and row["expires"] < now
    word = {"V": "✓ valid", "R": "✗ revoked", "E": "✗ expired"}["E" if expired else row["status"]]
    days = str(math.ceil((row["expires"] - now).total_seconds() / 86400)) if word == "✓ valid" else "-"
    times = ["-" if pd.isna(time) else f"{time:%Y-%m-%d %H:%M:%S} UTC" for time in (row["expires"], row["revoked"])]
    status = f"{word}: {row['reason']}" if row["reason"] else word
    return [hex_serial(row["serial"]), status, days, row["common_name"] or "-", decoded(row["subject"]), *times]


@given(frames, moments)
def test_the_words_are_those_of_plain_python_and_of_the_table_that_stands_still(
    frame: pd.DataFrame, now: datetime
) -> None:
    for at in (now, *frame["expires"].dt.to_pydatetime()[:2]):  # at the very second, too
        texts = signing_texts(frame.iloc[::-1], at)
        assert texts.index.tolist() == [hex_serial(serial) for serial in reversed(frame["serial"].tolist())]
        if len(frame):
            shown = [list(texts.columns), *(in_plain_python(row, at) for row in frame.iloc[::-1].to_dict("records"))]
            assert [list(texts.columns), *texts.to_numpy().tolist()] == shown
            drawn = table("Signed", texts, texts.to_numpy().tolist()).html
            assert cells(drawn) == [visible(text) for row in shown for text in row]


def test_a_subject_is_read_as_its_common_name_is() -> None:
    assert (
        decoded(r"/O=Br\xC3\xBCckner \/ S\xF6hne/CN=\xE4")
        == "/O=Brückner \\/ S\N{REPLACEMENT CHARACTER}hne/CN=\N{REPLACEMENT CHARACTER}"
    )


def test_days_that_pass_and_an_expiry_are_seen_while_the_panel_is_open(
    ca: CertificateAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    serial, begin = sign(ca, "device"), datetime.now(UTC)

    class Clock(datetime):
        passed = timedelta()

        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return begin + cls.passed

    monkeypatch.setattr(signing_panel, "datetime", Clock)
    monkeypatch.setattr(signing_panel, "RENEW_AFTER", 1e-9)
    opened(panel := SigningPanel(ca), serial)
    seen = []
    for passed in (0, 0.9, 1, 364, 364.9, 365, 400):
        Clock.passed = timedelta(days=passed, seconds=1)
        panel.poll()
        seen.append((column(panel, "Days left")[serial], column(panel, "Status")[serial], hidden(panel._revoke)))
    good = [(days, "✓ valid", False) for days in ("365", "365", "364", "1", "1")]
    assert seen == good + [("-", "✗ expired", True)] * 2
    assert "Expired on" in panel._why.value and panel.table.news == {serial: "changed"}


# -- filter, sort, pages


words = st.sampled_from(["", "a", "B", "<script>", "✓ valid", "Gerät 7", "ẞ", "10", "9"]) | st.text(max_size=6)


@st.composite
def tables(draw: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    keys = draw(st.lists(st.text("0123456789ABCDEF", min_size=2, max_size=6), unique=True, max_size=35))
    shown = pd.DataFrame({"Key": keys, "Name": [draw(words) for _ in keys]}, index=pd.Index(keys, dtype=str), dtype=str)
    return shown, pd.DataFrame(
        {"Key": [int(key, 16) for key in keys], "Name": shown["Name"].str.casefold()}, index=shown.index
    )


@given(tables(), st.text(max_size=4) | words, st.sampled_from(["", "Key", "Name"]), st.booleans(), st.integers(-30, 60))
def test_filter_sort_and_pages_do_what_plain_python_does(
    table: tuple[pd.DataFrame, pd.DataFrame], asked: str, sort: str, descending: bool, first: int
) -> None:
    shown, values = table
    live = LiveTable("Rows")
    live.show(shown, values)
    live.set_state({"filter": asked})
    live.set_state({"sort": sort, "descending": descending})
    live.set_state({"first": first})
    wanted = [
        (key, name)
        for key, name in zip(shown["Key"], shown["Name"], strict=True)
        if all(word in key.casefold() or word in name.casefold() for word in asked.casefold().split())
    ]
    if sort:
        keys: dict[str, Callable[[tuple[str, str]], Any]] = {
            "Key": lambda row: int(row[0], 16),
            "Name": lambda row: row[1].casefold(),
        }
        wanted.sort(key=keys[sort], reverse=descending)
    pages = [wanted[start : start + PAGE] for start in range(0, len(wanted), PAGE)] or [[]]
    number = min(max(first, 0) // PAGE, len(pages) - 1)
    assert live.rows == [[key, key, visible(name)] for key, name in pages[number]]
    assert (live.found, live.total, live.first) == (len(wanted), len(shown), number * PAGE)


@given(frames, moments)
def test_each_column_is_sorted_by_what_it_means(frame: pd.DataFrame, now: datetime) -> None:
    texts = signing_texts(frame, now)
    values = signing_values(frame, texts)
    for name, of in (("Serial", "serial"), ("Expires", "expires"), ("Revoked", "revoked")):
        assert values[name].array.equals(frame[of].array)
    assert values["Common name"].tolist() == [(name or "-").casefold() for name in frame["common_name"]]
    is_valid = (frame["status"] == "V") & (frame["expires"] >= now)
    assert values["Days left"].array.equals(frame["expires"].where(is_valid).array)


def test_a_new_row_leaves_filter_order_and_page_as_they_are(ca: CertificateAuthority) -> None:
    ca.sign_many([request(f"device-{number}") for number in range(25)] + [request("other")])
    panel = SigningPanel(ca)
    panel.table.set_state({"filter": "DEVICE", "sort": "Serial", "descending": False})
    panel.table.set_state({"first": 10})
    before = panel.table.rows
    hidden_one = sign(ca, "unlike")
    panel.poll()
    assert (panel.table.rows, panel.table.first, panel.table.found, panel.table.total) == (before, 10, 25, 27)
    assert panel.table.status == f"1 new: {hidden_one}.", "it is said where the filter hides it"


def test_nobody_shows_rows_while_a_press_is_being_followed() -> None:
    live, free = LiveTable("Rows"), []

    def look(_change: object) -> None:
        other = threading.Thread(target=lambda: free.append(live.lock.acquire(blocking=False)))
        other.start()
        other.join()

    live.observe(look, ["filter", "opened"])
    live.set_state({"filter": "a", "opened": "b"})
    assert free == [False, False] and live.lock.acquire(blocking=False), "and is free again"


def test_the_state_holds_one_page_whatever_the_table_has() -> None:
    def state(size: int) -> int:
        live, names = LiveTable("Rows"), [f"row {number:05}" for number in range(size)]
        shown = pd.DataFrame({"Name": names}, index=names, dtype=str)
        for part in (shown.head(1), shown):  # so that there is news
            live.show(part, part)
        return len(json.dumps({name: value for name, value in live.get_state().items() if name[0] != "_"}, default=str))

    assert state(10_000) < state(100) + 20  # longer numbers


# -- a row that is open


def test_an_open_row_shows_its_certificate(ca: CertificateAuthority) -> None:
    certificate = ca.sign(request("device"))
    serial = hex_serial(certificate.serial_number)
    panel = SigningPanel(ca)
    assert hidden(panel._opened)
    assert opened(panel, serial) == certificate_card(certificate).html
    assert not hidden(panel._opened) and not hidden(panel._revoke) and panel._why.value == ""
    for none in ("", "none"):
        opened(panel, none)
        assert hidden(panel._opened)


def test_a_copy_that_is_missing_or_of_another_is_said(ca: CertificateAuthority, tmp_path: Path) -> None:
    first, second = sign(ca, "first"), sign(ca, "second")
    panel, copies = SigningPanel(ca), ca.config.ca_path("new_certs_dir")
    copy, name = copies / f"{first}.pem", DistinguishedName(common_name="B")
    namesake = CertificateAuthority.create(tmp_path / "b", name, PASSPHRASE, key_type=KeyType.P256)
    copy.unlink()
    assert "there is only its row" in Tags(opened(panel, first)).text and not hidden(panel._revoke)
    other = "a different certificate from the one that this CA signed"
    for data, sentence in (
        ((copies / f"{second}.pem").read_bytes(), other),
        (to_pem([namesake.sign(request("first"))]), other),  # of the same number
        (b"nonsense", f"✗ {copy}"),
    ):
        copy.write_bytes(data)
        opened(panel, "")
        assert sentence in Tags(opened(panel, first)).text


def test_a_row_that_vanishes_is_closed(ca: CertificateAuthority) -> None:
    first, second = sign(ca, "first"), sign(ca, "second")
    opened(panel := SigningPanel(ca), second)
    ca.database.path.write_text(ca.database.path.read_text().splitlines(keepends=True)[0])
    panel.poll()
    assert (panel.table.opened, list(column(panel, "Serial"))) == ("", [first]) and hidden(panel._opened)


# -- revoking


def test_revoking_asks_first_and_cancelling_changes_nothing(ca: CertificateAuthority) -> None:
    serial = sign(ca, "device")
    panel, before = SigningPanel(ca), ca.database.path.read_bytes()
    opened(panel, serial)
    ask(panel)
    assert f"Revoke {serial}, device?" in panel._question.children[0].value and not hidden(panel._question)
    panel._question.children[-1].click()
    panel.wait()
    assert hidden(panel._question) and ca.database.path.read_bytes() == before
    ask(panel)
    opened(panel, "")
    assert hidden(panel._question), "the question was about the row that is closed now"
    panel._reason.value = "superseded"
    opened(panel, serial)
    assert panel._reason.value == "", "each row has a reason of its own"


@pytest.mark.parametrize("reason", ["", "keyCompromise"])  # the others: test_golden.py
def test_a_row_is_revoked_with_its_reason(ca: CertificateAuthority, reason: str, openssl: Run) -> None:
    serial, kept = sign(ca, "device"), sign(ca, "kept")
    panel = SigningPanel(ca)
    opened(panel, serial)
    panel._reason.value = reason
    ask(panel)
    panel._reason.value = "certificateHold"  # on its way when the question was asked: what was asked is what is done
    assert f"Reason: {reason or 'none given'}." in panel._question.children[0].value
    press_yes(panel)
    row, other = ca.database.find(int(serial, 16)), ca.database.find(int(kept, 16))
    assert row and other and (row.status, row.reason, other.status) == ("R", reason, "V")
    said = Tags(panel._message.value).text
    assert said.startswith(f"✓ {serial} is revoked") and "Nobody learns of it until the revocation list" in said
    assert column(panel, "Status")[serial] == "✗ revoked" + (f": {reason}" if reason else "")
    assert hidden(panel._revoke) and "Revoked already, since" in panel._why.value
    openssl_ca(openssl, ca, "-updatedb")  # the whole file is good to openssl


def test_the_reasons_are_openssls_that_bear_no_argument_and_revoke() -> None:
    with_argument = {"holdInstruction", "keyTime", "CAkeyTime"}
    assert set(REASONS) == {"", *rows.REASONS} - with_argument - {"removeFromCRL"}
    assert all(len(meaning) > 10 for meaning in REASONS.values())


def test_openssl_takes_remove_from_crl_for_no_revocation(ca: CertificateAuthority, openssl: Run) -> None:
    for reason, good in (("removeFromCRL", True), ("certificateHold", False)):
        ca.revoke(certificate := ca.sign(request(reason)), reason)
        ca.update_crl()
        (ca.folder / "device.pem").write_bytes(to_pem([certificate]))
        files = ("-CAfile", ca.folder / "caCert.pem", "-CRLfile", ca.config.ca_path("crl"))
        done = openssl("verify", "-crl_check", *files, ca.folder / "device.pem", check=False)
        assert (done.returncode == 0) == good, done.stderr


def test_somebody_else_is_quicker(ca: CertificateAuthority) -> None:
    serial = sign(ca, "device")
    panel = SigningPanel(ca)
    opened(panel, serial)
    ask(panel)
    ca.revoke(int(serial, 16), "superseded")
    press_yes(panel)
    assert "is revoked already" in Tags(panel._message.value).text
    row = ca.database.find(int(serial, 16))
    assert row and row.reason == "superseded"
    other = sign(ca, "other")
    panel.poll()
    opened(panel, other)
    ask(panel)
    ca.revoke(int(other, 16))
    panel.poll()
    assert hidden(panel._question) and hidden(panel._revoke), "seen in time, so that there is nothing left to ask"


def test_the_revocation_list_is_missed_written_and_seen(ca: CertificateAuthority, openssl: Run) -> None:
    first, second = sign(ca, "first"), sign(ca, "second")
    panel = SigningPanel(ca)
    assert hidden(panel._crl_row), "nobody is revoked"
    ca.revoke(int(first, 16))
    panel.poll()
    assert not hidden(panel._crl_row) and "1 revoked certificate is not on" in panel._crl_line.value
    panel._write.click()
    panel.wait()
    assert [entry.serial_number for entry in read_crl(ca.config.ca_path("crl"))] == [int(first, 16)]
    assert "✓ Revocation list 1000 is written: 1 certificate is on it" in Tags(panel._message.value).text
    assert "names every certificate" in panel._crl_line.value
    ca.revoke(int(second, 16))
    panel.poll()
    assert "1 revoked certificate is not on" in panel._crl_line.value
    openssl_ca(openssl, ca, "-gencrl", "-out", ca.config.ca_path("crl"))
    panel.poll()
    assert "names every certificate" in panel._crl_line.value
    ca.config.ca_path("crl").write_text("nonsense")
    panel.poll()
    assert "2 revoked certificates are not on" in panel._crl_line.value


# -- what is shown is safe, and stands still where no widget lives


NASTY = ["<script>alert(1)</script>", "<img src=x onerror=alert(1)>", '"quotes"', "a & b", "a\u202eb"]


@pytest.mark.parametrize("nasty", NASTY)
def test_nothing_dangerous_gets_through(ca: CertificateAuthority, nasty: str) -> None:
    serial = sign(ca, nasty)
    panel = SigningPanel(ca)
    opened(panel, serial)
    ask(panel)
    asked = panel._question.children[0].value
    parts = [panel._details.value, panel.picture().html, asked, panel._heading.value]
    press_yes(panel)
    parts += [panel._message.value, panel._why.value, panel._details.value, panel._crl_line.value]
    for markup in parts:
        found = Tags(markup)
        assert "script" not in found.tags and not any(name.startswith("on") for name in found.attributes)
        assert "\u202e" not in markup
    for seen in (Tags(asked).text, Tags(panel.picture().html).text, column(panel, "Common name")[serial]):
        assert visible(nasty) in seen, "the control: it is shown"


def test_the_static_picture_shows_what_the_panel_shows(ca: CertificateAuthority) -> None:
    panel = SigningPanel(ca)
    assert repr(panel) == "No certificate has been signed yet."
    ca.revoke(int(sign(ca, "a"), 16), "superseded")
    sign(ca, "b")
    bundle, rows = panel._repr_mimebundle_(), [text for _, *texts in panel.table.rows for text in texts]
    assert len(rows) == 14 and cells(bundle["text/html"])[7:] == rows
    assert all(text in bundle["text/plain"] for text in rows)
    assert len(re.findall("superseded", repr(panel))) == 1
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == panel.model_id
