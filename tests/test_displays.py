"""The displays: their words and their pictures, as text and as HTML."""

import base64
import dataclasses
import html
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import pytest
from conftest import examples
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell
from test_ui import NASTY, Tags

from mciot_nb.connect.server_certificate import ServerCertificate
from mciot_nb.errors import Diagnosis, Finding, OnboardingError
from mciot_nb.pki import keystore
from mciot_nb.pki.chain import PROFILES, diagnose
from mciot_nb.pki.config import CaConfig
from mciot_nb.pki.keystore import KEY_ENTRY, TRUSTED_ENTRY, Entry, Keystore
from mciot_nb.pki.names import DistinguishedName
from mciot_nb.pki.signing import preview_subject
from mciot_nb.steps import DONE, OPEN, WRONG, Progress, Step
from mciot_nb.ui.certificate_card import extension_rows, fields
from mciot_nb.ui.displays import card, journey, register, render, two_sides, what_to_do
from mciot_nb.ui.markup import _EDGES, COLOURS, Rendered, paragraph, table, width
from mciot_nb.ui.pictures import chain_picture, trouble, validity
from mciot_nb.ui.signing_panel import signing_texts
from tools.notebooks import sanitized

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)
SUBJECT = DistinguishedName("DE", "Bavaria", "Munich", "Example Company", "Device Onboarding", "device-0001")
LONG = DistinguishedName("DE", "Baden-Württemberg " * 5, "M" * 64, "株式会社" * 16, "unit " * 12, "W" * 60 + "-end")
PASSWORD = "Zeppelin-8 Oelkanne"
OVERRIDE = "right\N{RIGHT-TO-LEFT OVERRIDE}left"
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())


def certificate(
    name: str, issuer: str | None = None, ca: bool = False, key: Any = EC_KEY, signer: Any = EC_KEY, **more: Any
) -> x509.Certificate:
    begin, days = more.get("at") or datetime.now(UTC), more.get("days", 365)
    subject = more.get("subject") or DistinguishedName(common_name=name)
    builder = x509.CertificateBuilder(serial_number=more.get("serial", 0x1000), public_key=key.public_key())
    builder = builder.subject_name(subject.to_x509())
    builder = builder.issuer_name(DistinguishedName(common_name=issuer or name).to_x509())
    builder = builder.not_valid_before(begin).not_valid_after(begin + timedelta(days=days))
    builder = builder.add_extension(x509.BasicConstraints(ca, 10 if ca else None), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False)
    if purpose := more.get("purpose"):
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    return builder.sign(signer, SHA256())


CA = certificate("Test CA", ca=True, serial=x509.random_serial_number(), days=7300)
DEVICE = certificate("device", "Test CA", key=RSA_KEY)
OLD = certificate("old", "Test CA", at=NOW - 500 * DAY)
FUTURE = certificate("future", "Test CA", at=NOW + 5 * DAY)
STRANGER = certificate("Test CA", ca=True, key=RSA_KEY, signer=RSA_KEY)  # the right name, another key
MIDDLE = certificate("Middle CA", "Test CA", ca=True)
BELOW = certificate("below", "Middle CA")


def both(thing: object) -> tuple[str, str]:
    """Return the text of a display, and what a browser would show of its HTML."""
    shown = render(thing)
    return shown.text, Tags(shown.html).text


def svg_of(shown: Rendered) -> str:
    source = Tags(shown.html).attributes["src"] or ""
    return base64.b64decode(source.removeprefix("data:image/svg+xml;base64,")).decode()


def alt_of(shown: Rendered) -> str:
    return Tags(shown.html).attributes["alt"] or ""


def in_a_notebook(thing: object) -> dict[str, Any]:
    register(shell := InteractiveShell.instance())
    assert shell.display_formatter
    data: dict[str, Any] = shell.display_formatter.format(thing)[0]
    return data


# -- validity


@pytest.mark.parametrize(
    ("begin", "days", "words", "where"),
    [
        (timedelta(), 365, "365 days, ✓ valid now: 0 % passed, 365 days left", "at 0 %."),
        (timedelta(hours=-1), 365, "365 days, ✓ valid now: 0 % passed, 365 days left", "at 0 %."),
        (-3 * DAY, 365, "365 days, ✓ valid now: 0 % passed, 362 days left", "at 0 %."),
        (-100 * DAY, 365, "365 days, ✓ valid now: 27 % passed, 265 days left", "at 27 %."),
        (-364 * DAY, 365, "365 days, ✓ valid now: 99 % passed, 1 day left", "at 99 %."),
        (-365 * DAY + timedelta(hours=5), 365, "365 days, ✓ valid now: 99 % passed, less than a day left", "at 99 %."),
        (timedelta(), 1, "1 day, ✓ valid now: 0 % passed, 1 day left", "at 0 %."),
        (-500 * DAY, 365, "365 days, ✗ expired", "after its end."),
        (5 * DAY, 365, "365 days, ✗ not valid yet", "before its beginning."),
    ],
)
def test_a_bar_says_how_much_has_passed_and_holds_no_date(begin: timedelta, days: int, words: str, where: str) -> None:
    one = certificate("device", at=NOW + begin, days=days)
    shown = validity(one, NOW)
    assert shown.text == words and words in Tags(shown.html).text
    assert alt_of(shown).endswith(f"today is {where}")
    assert not re.search(r"\d{4}-\d\d", svg_of(shown))
    later = certificate("another", at=NOW + begin + 200 * DAY, days=days)
    assert validity(later, NOW + 200 * DAY) == shown, "the same in every run"
    if "✗" in words:
        assert validity(one, NOW + timedelta(hours=1)) == shown
    places = {"before its beginning.": 24, "after its end.": 376, "at 0 %.": 48, "at 27 %.": 130, "at 99 %.": 348}
    assert f'<text x="{places[where]}" y="13" font-size="12" class="ink" text-anchor="middle">today<' in svg_of(shown)
    assert trouble(one, NOW) == words.partition(", ")[2] * ("✗" in words)


# -- certificates


def test_a_certificates_card_says_the_same_in_html_and_text_and_only_what_is_true_of_its_kind() -> None:
    words = ["CN=device", "CN=Test CA", "365 days, ✓ valid now: 0 % passed, 365 days left", "RSA, 2048 bits"]
    words += ["1000 (hexadecimal, as openssl writes it; 4096 in decimal)", "critical: CA:FALSE"]
    words += [f"{DEVICE.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC"]
    assert [word for word in words for look in both(DEVICE) if word not in look] == []
    for one in (CA, DEVICE):
        identifier = one.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest.hex()
        for look in both(one):
            assert look.count("Subject Key Identifier") == look.count("Authority Key Identifier") == 1
            assert identifier in look and "a short name of this key" in look
            assert ("yes, path length 10" in look) == ("EC, secp256r1, 256 bits" in look) == (one is CA)
            assert ("the platform's name for it once it is uploaded" in look) == (one is CA)
            assert ("by which the certificates that it signs refer to it" in look) == (one is CA)


def test_a_certificate_unfolds_field_by_field_each_with_its_meaning() -> None:
    shown = fields(CA)
    names = ["What is signed", "Version", "Serial number", "Signature algorithm", "Issuer", "Validity", "Not before"]
    names += [
        "Subject",
        "Public key",
        "Curve",
        "Extensions",
        "Basic Constraints",
        "OID",
        "Critical",
        "Bytes",
        "Signature",
    ]
    assert sorted(names, key=lambda name: shown.text.index(f" {name}: ")) == names
    assert Tags(shown.html).tags.count("details") == shown.html.count("font-size:0.92em") == shown.text.count("\n")
    for word in ("ecdsa-with-SHA256 (1.2.840.10045.4.3.2)", "3 (version 3", f"{CA.serial_number:040X}", "secp256r1"):
        assert word in shown.text
    for word in ("30:06:01:01:FF:02:01:0A", CA.signature[:16].hex(":").upper(), "must refuse", "may ignore"):
        assert all(word in look for look in both(shown))
    rsa_key = RSA_KEY.public_key().public_numbers()
    assert "65537" in fields(DEVICE).text and rsa_key.n.to_bytes(256)[:16].hex(":").upper() in fields(DEVICE).text


def meaning(value: x509.ExtensionType) -> str:
    ((_, _, words),) = extension_rows([x509.Extension(value.oid, False, value)], ca=False)
    return words


def test_each_extension_says_in_one_line_what_it_means_here() -> None:
    client, server = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
    assert meaning(x509.KeyUsage(True, *[False] * 4, True, True, False, False)) == (
        "this key may sign handshakes and data, sign certificates and sign revocation lists, and nothing else"
    )
    assert meaning(x509.KeyUsage(True, *[False] * 8)) == "this key may sign handshakes and data, and nothing else"
    assert "clientAuth" not in meaning(x509.ExtendedKeyUsage([client])) == "a device may show it when it connects"
    assert meaning(x509.ExtendedKeyUsage([server, client])) == (
        "a server may show it to its clients and a device may show it when it connects"
    )
    odd = x509.ExtendedKeyUsage([x509.ObjectIdentifier("1.2.3"), x509.ObjectIdentifier("1.2.4")])
    assert meaning(odd) == "something else, not used in this tutorial"
    assert meaning(x509.ExtendedKeyUsage([])) == ""
    for length, between in ((0, "no further CA"), (1, "at most one more CA"), (2, "at most 2 more CAs")):
        words = meaning(x509.BasicConstraints(ca=True, path_length=length))
        assert words.startswith(f"a CA, with {between} between it and a device; ")
    assert meaning(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"")) == "not used in this tutorial"
    for one in (CA, DEVICE):
        assert all(words and "\n" not in words for _, _, words in extension_rows(one.extensions, one is CA))


def test_a_certificate_with_the_same_extension_twice_still_has_its_card() -> None:
    builder = x509.CertificateBuilder(DEVICE.subject, CA.subject, EC_KEY.public_key(), 0x1000, NOW, NOW + DAY)
    for last in (4, 5):
        value = x509.UnrecognizedExtension(x509.ObjectIdentifier(f"1.2.3.{last}"), b"\5\0")
        builder = builder.add_extension(value, critical=False)
    der = builder.sign(EC_KEY, SHA256()).public_bytes(Encoding.DER)
    for damaged, words in ((der, "Extension 1.2.3.5"), (der.replace(b"\x2a\3\5", b"\x2a\3\4"), "✗ appears twice")):
        assert all(words in look for look in both(x509.load_der_x509_certificate(damaged)))


# -- chains


def test_a_chain_is_drawn_with_its_signatures_and_is_the_same_in_every_run() -> None:
    good = chain_picture([DEVICE, CA])
    end = "Test CA is signed by itself: the chain ends here."
    assert repr(good) == f"Chain of 2 certificates: device, signed by Test CA. {end}"
    svg = svg_of(good)
    assert "signed by" in svg and not any(word in svg for word in ("broken", "✗", "CN="))
    other = certificate("device", "Test CA", signer=RSA_KEY)
    assert good == chain_picture([other, STRANGER]) == chain_picture([DEVICE, CA], at=NOW + 100 * DAY)
    assert good != chain_picture([CA, DEVICE])
    assert repr(chain_picture([])) == "An empty chain."


@pytest.mark.parametrize(
    ("chain", "trusted", "words", "drawn"),
    [
        ([OLD, CA], [], "old (✗ expired), signed by Test CA.", "✗ expired"),
        ([FUTURE, CA], [], "future (✗ not valid yet), signed by Test CA.", "✗ not valid yet"),
        ([DEVICE, STRANGER], [], "NOT signed by Test CA (✗ broken: the name", "the name fits, the signature does not"),
        ([DEVICE, OLD], [], "NOT signed by old (✗ broken: the issuer is Test CA; ✗ expired)", "the issuer is Test CA"),
        ([DEVICE, OLD], [], "NOT signed by", "✗ broken: not signed by the next one"),
        ([BELOW, MIDDLE], [MIDDLE], "signed by Middle CA (✓ trusted). Middle CA is trusted: the", "✓ trusted CA"),
        ([BELOW], [MIDDLE], "is signed by a trusted certificate that is not in this chain: Middle CA.", "Middle CA"),
        ([BELOW], [CA], "below names an issuer that is not in this chain: Middle CA.", "Middle CA"),
    ],
)
def test_a_chain_says_and_shows_what_is_wrong_and_what_is_trusted(
    chain: list[x509.Certificate], trusted: list[x509.Certificate], words: str, drawn: str
) -> None:
    shown, good = chain_picture(chain, trusted=trusted), chain_picture([DEVICE, CA], trusted=[MIDDLE])
    assert words in shown.text and words in alt_of(shown) and f">{drawn}</text>" in svg_of(shown)
    assert words not in good.text and f">{drawn}</text>" not in svg_of(good)  # the control
    now = chain_picture(chain, at=chain[0].not_valid_before_utc + DAY)
    assert not re.match(r"Chain of \d certificates?: \w+ \(✗", now.text)


@pytest.mark.parametrize(
    ("subject", "shown"),
    [
        (LONG, "W-end</text>"),  # a long name is shortened in its middle
        (DistinguishedName(organization="O" * 64), "O=OOO"),
        (DistinguishedName("DE", "Bayern", "München", "Example", None, "device"), "ST=Bayern, L=München, O=Example<"),
        (SUBJECT, f">{str(SUBJECT).partition(', CN=')[0]}<"),  # the tutorial's, whole
        (
            dataclasses.replace(SUBJECT, organization="A Company With a Long Name"),
            "L=Munich, …, OU=Device Onboarding<",
        ),  # else it loses whole fields
    ],
)
def test_no_text_of_a_picture_is_wider_than_its_box(subject: DistinguishedName, shown: str) -> None:
    svg = svg_of(chain_picture([certificate("", "W" * 64, subject=subject)]))
    picture = ElementTree.fromstring(svg)
    for text in picture.iter("{http://www.w3.org/2000/svg}text"):
        if text.get("text-anchor") != "end":
            end = float(text.get("x", 0)) + float(text.get("font-size", 0)) * width(text.text or "")
            assert end <= float(picture.get("width", 0)) - 16
    assert shown in svg


def test_a_box_says_what_the_certificate_is_for() -> None:
    client, server = x509.ExtendedKeyUsageOID.CLIENT_AUTH, x509.ExtendedKeyUsageOID.SERVER_AUTH
    for purpose, ca, word in (
        (None, False, "device"),
        (client, False, "device"),
        (server, False, "server"),
        (None, True, "CA"),
    ):
        svg = svg_of(chain_picture([certificate("x", "Test CA", ca, purpose=purpose)]))
        assert [w for w in ("device", "server", "CA") if f">{w}</text>" in svg] == [word]


# -- stores


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> list[Keystore]:
    folder = tmp_path_factory.mktemp("stores")
    paths = [folder / name for name in ("deviceKeystore.jks", "deviceKeystore.pkcs12", "deviceTruststore.jks")]
    keystore.write_keystore(paths[0], RSA_KEY, [DEVICE, CA], PASSWORD, trusted={"servercertificate": CA})
    keystore.write_keystore(paths[1], RSA_KEY, [DEVICE, CA], PASSWORD)
    keystore.write_truststore(paths[2], {"servercertificate": CA}, PASSWORD)
    return [keystore.read_store(path, PASSWORD) for path in paths]


def test_a_store_says_at_a_glance_what_it_holds_and_never_shows_a_secret(stores: list[Keystore]) -> None:
    raw = RSA_KEY.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    numbers = RSA_KEY.private_numbers()
    secrets = (PASSWORD, raw.hex(), base64.b64encode(raw).decode()[100:140], f"{numbers.d:x}", str(numbers.p))
    key, trusted = "1 private key with its chain", "1 trusted certificate"
    holds = (f"{key} and {trusted}", f"{key} and no trusted certificate", f"no private key and {trusted}")
    for store, words in zip(stores, holds, strict=True):
        for look in both(store):
            assert f"Holds {words}." in look
            assert ("✓ is in it: RSA, 2048 bits, by its certificate" in look) == ("1 private key" in words)
            assert ("the private key's own; ✓ signed by the next one" in look) == ("1 private key" in words)
            assert "✓ signed by itself" in look
            assert CA.fingerprint(SHA256()).hex(":").upper() in look  # the control: what is no secret would be found
            assert not any(secret in look + render(store).html for secret in secrets)


@pytest.mark.parametrize(
    ("kind", "chain", "words"),
    [
        (KEY_ENTRY, (DEVICE, STRANGER), "the private key's own; ✗ not signed by the next one, the chain is broken"),
        (KEY_ENTRY, (DEVICE,), "signed by CN=Test CA, whose certificate is not in this entry"),
        (KEY_ENTRY, (OLD, CA), "✗ expired: "),
        ("not seen by Java", (CA,), "no trusted certificate and 1 entry that Java does not see"),
        ("not seen by Java", (CA,), "⚠ not seen by Java"),
    ],
)
def test_a_store_says_what_is_wrong_with_an_entry(kind: str, chain: tuple[x509.Certificate, ...], words: str) -> None:
    store = Keystore(Path("odd.jks"), "JKS", (Entry("", kind, chain),), "Java sees no key in it.")
    good = Keystore(Path("odd.jks"), "JKS", (Entry("devicekeyentry", KEY_ENTRY, (DEVICE, CA)),))
    for look in both(store):
        assert words in look and "⚠ Java sees no key in it." in look and "Entry (no alias)" in look
    at_once = html.unescape(re.sub("<details>.*?</details>", "", render(store).html))
    assert words.rstrip(": ") in at_once and "valid</th>" not in at_once, "what is wrong is not folded"
    assert not any(word in look for look in both(good) for word in (words, "⚠", "(no alias)"))


# -- verdicts, previews and tables


def test_a_diagnosis_says_good_or_bad_in_words_and_what_to_do_apart_from_what_is_wrong() -> None:
    assert set(both(Diagnosis())) == {"✓ OK: nothing wrong was found."}
    strict = ["✓ OK here, but not everywhere.", "STRICT", "a path length without keyCertSign", "What to do:", "sign it"]
    assert all(sorted(strict, key=look.index) == strict for look in both(diagnose([DEVICE, CA], [CA])))
    parts = ["✗ Not OK: 1 finding.", "UNKNOWN_CA", "with that name and key is there.", "What to do:", "upload the CA"]
    for look in both(diagnose([DEVICE], [])):
        assert sorted(parts, key=look.index) == parts
    refused = diagnose([OLD, STRANGER], [CA], PROFILES["guide-2021"])
    assert len(refused.refusals) == 3
    for finding in refused.findings:
        wrong, advice = what_to_do(finding)
        assert wrong.endswith(".") and advice.endswith(".") and f"{wrong[:-1]}: {advice}" == finding.sentence
        assert f"What to do: {advice}" in render(refused).text
    assert what_to_do(Finding("X", "No advice here.")) == ("No advice here.", "")
    assert what_to_do(Finding("X", "About CN=CA: mine, lost: find it.")) == ("About CN=CA: mine, lost.", "find it.")


@given(st.text(max_size=60))
def test_no_word_of_a_finding_is_lost(sentence: str) -> None:
    wrong, advice = what_to_do(Finding("X", sentence))
    assert sentence in (wrong, f"{wrong[:-1]}: {advice}", f"{wrong[:-1]}; {advice}")


def policy(fields: dict[str, str]) -> CaConfig:
    sections = {"default": {}, "ca": {"default_ca": "CA_default"}, "CA_default": {"policy": "p"}, "p": fields}
    return CaConfig(Path("ca.cnf"), sections)


def test_a_preview_says_field_by_field_what_signing_would_make_of_it() -> None:
    asked = DistinguishedName(locality="Munich", common_name="device").to_x509()
    bad = preview_subject(policy({"organizationName": "supplied", "commonName": "optional"}), asked, CA.subject)
    good = preview_subject(policy({"localityName": "optional", "commonName": "optional"}), asked, CA.subject)
    for look in both(bad):
        assert "is dropped: the policy does not list it" in look and "is kept" in look
        assert "organizationName field needed to be supplied and was missing" in look
    assert not any("is dropped" in look for look in both(good))


def frame(name: str = "device", rows: int = 3) -> pd.DataFrame:
    now = datetime.now(UTC)
    records: list[tuple[object, ...]] = [("V", now + timedelta(365), None, "", 0x1000, f"/CN={name}", name, "unknown")]
    records += [("R", now + timedelta(10), now, "keyCompromise", 0x1001, "/CN=stolen", "stolen", "unknown")]
    records += [("V", now - timedelta(1), None, "", 0x100A + n, "/CN=old", "old", "unknown") for n in range(rows - 2)]
    columns = ["status", "expires", "revoked", "reason", "serial", "subject", "common_name", "file"]
    table = pd.DataFrame(records, columns=columns)
    return table.assign(**{name: pd.to_datetime(table[name], utc=True) for name in ("expires", "revoked")})


def signing_table(frame: pd.DataFrame) -> Rendered:
    texts = signing_texts(frame.iloc[::-1], datetime.now(UTC))
    return table("Signed certificates", texts, texts.to_numpy().tolist())


def test_a_table_that_stands_still_is_aligned_and_cut() -> None:
    """What its cells say is in test_signing_panel."""
    shown = signing_table(frame())
    assert re.search(r"✓ valid +365 +device", repr(shown).splitlines()[3])
    assert " id=" not in shown.html  # no random name in it
    assert "<td" in (line := table("Lines", "ab", [("1", "114,c8y_Restart")]).html) and "114,<wbr>c8y_Restart<" in line
    long = signing_table(frame(rows=10_000))
    assert all("… and 9950 more." in look for look in both(long)) and len(long.html) < 50_000


def test_two_sides_show_whatever_has_a_display_and_escape_the_rest() -> None:
    shown = two_sides("<The device>", OnboardingError("Refused: try."), "b", card("Log", [("Code", "X", "")]))
    assert shown.text.splitlines() == ["<The device>", "  ✗ Refused: try.", "b", "  Log", "    Code  X"]
    assert "<The device>✗ Refused: try.bLogCodeX" in Tags(shown.html).text
    assert two_sides("a", "<i>plain</i> text", "b", "").text == "a\n  <i>plain</i> text\nb\n  "


# -- what holds of all displays


@pytest.mark.parametrize("nasty", [*NASTY, OVERRIDE])
def test_nothing_that_is_shown_becomes_markup(nasty: str) -> None:
    shown, one = nasty.replace("\N{RIGHT-TO-LEFT OVERRIDE}", "\N{REPLACEMENT CHARACTER}"), certificate(nasty, "Test CA")
    asked = DistinguishedName(locality=nasty if nasty != OVERRIDE else shown, common_name="device").to_x509()
    for thing, times in (
        (one, 2),
        (fields(one), 3),
        (Diagnosis((Finding(nasty, f"about {nasty}: and {nasty}"),)), 3),
        (OnboardingError(nasty), 1),
        (paragraph(nasty), 1),
        (card(nasty, [(nasty, nasty, nasty)]), 4),
        (Keystore(Path("x.jks"), nasty, (Entry(nasty, nasty, (CA,)),), nasty), 4),
        (ServerCertificate(nasty, 8883, (one,), nasty, proof=nasty), 4),
        (preview_subject(policy({"commonName": "optional"}), asked, CA.subject), 1),
        (two_sides(nasty, nasty, nasty, nasty), 4),
        (nasty, 1),
    ):
        assert [look.count(shown) for look in both(thing)] == [times, times], thing
        assert "script" not in Tags(render(thing).html).tags
    signed = signing_table(frame(nasty)).html
    assert shown in Tags(signed).text and "script" not in Tags(signed).tags
    picture = chain_picture([one, CA])
    assert Tags(picture.html).tags == ["style", "img"] and shown in alt_of(picture)
    assert shown in "".join(ElementTree.fromstring(svg_of(picture)).itertext())


@examples(30)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=15))
def test_every_name_makes_a_picture_that_can_be_read(name: str) -> None:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name, _validate=False)])
    odd = x509.CertificateBuilder(subject, subject, EC_KEY.public_key(), 1, NOW, NOW + DAY).sign(EC_KEY, SHA256())
    ElementTree.fromstring(svg_of(chain_picture([odd])))


def test_a_notebook_shows_each_type_as_it_is_and_in_a_list_in_one_line() -> None:
    for thing in (DEVICE, diagnose([DEVICE], []), OnboardingError("It is so: do this.", "CODE")):
        data = in_a_notebook(thing)
        assert (data["text/plain"], data["text/html"]) == (render(thing).text, render(thing).html)
    assert in_a_notebook([DEVICE, CA])["text/plain"] == "[<Certificate CN=device>, <Certificate CN=Test CA>]"
    assert in_a_notebook(OnboardingError("a <b>"))["text/plain"] == "✗ a <b>"


def everything(device: x509.Certificate, ca: x509.Certificate) -> dict[str, Any]:
    """Return one of each display, with the certificates of a run."""
    chain = (device, ca)
    jks = Entry("devicekeyentry", KEY_ENTRY, chain, datetime.now(UTC)), Entry("server", TRUSTED_ENTRY, (ca,))
    refusal = OnboardingError("127.0.0.1:8883 answered CONNACK 5: check that the ClientId equals the common name.")
    return {
        "device": device,
        "ca": ca,
        "chain": chain_picture(chain, trusted=[ca]),
        "broken": chain_picture([device, STRANGER]),
        "good": diagnose(chain, [ca]),
        "bad": diagnose([device], [], PROFILES["guide-2021"]),
        "store": Keystore(Path("deviceKeystore.jks"), "JKS", jks),
        "server": ServerCertificate("localhost", 8883, chain, "self-signed certificate"),
        "signing": signing_table(frame().assign(subject="/C=DE/ST=Bavaria/O=Example Company/CN=device-0001")),
        "preview": preview_subject(policy({"localityName": "supplied"}), device.subject, ca.subject),
        "refusal": refusal,
        "fields": fields(ca),
        "progress": Progress(
            (Step("01 A", DONE, "x", ("caKey.pem",)), Step("02 <b>", OPEN, "y"), Step("03", WRONG, "<i>"))
        ),
        "journey": journey(SimpleNamespace(client_id="dev", host="localhost", port=8883), measured()),
        "sides": two_sides("What the device saw", refusal, "The platform's log", card("Log", [("Code", "X", "why")])),
    }


def measured() -> pd.DataFrame:
    row = {"time": pd.Timestamp(datetime.now(UTC)), "fragment": "c8y_T", "series": "T", "value": 21.5, "unit": "°C"}
    return pd.DataFrame([row])


def run_displays() -> dict[str, Any]:
    """Show everything as a notebook does, with new keys; the outputs' data by name."""
    key = ec.generate_private_key(ec.SECP256R1())
    ca = certificate("Test CA", ca=True, serial=x509.random_serial_number(), key=key, signer=key, days=7300)
    device = certificate("device-0001", "Test CA", signer=key, subject=SUBJECT)
    return {name: in_a_notebook(one) for name, one in everything(device, ca).items()}


@pytest.fixture(scope="module")
def shown() -> dict[str, Any]:
    return run_displays()


def test_each_display_is_the_same_in_every_run_but_for_what_is_sanitized(shown: dict[str, Any]) -> None:
    second = run_displays()
    for name, data in shown.items():
        assert set(data) == {"text/plain", "text/html"}, name
        assert sanitized(data) == sanitized(second[name]), name
    assert shown != second  # the control


def test_each_display_can_be_read_without_eyes(shown: dict[str, Any]) -> None:
    for name, data in shown.items():
        markup = data["text/html"]
        assert not re.search("<(script|iframe|link)", markup), name
        assert all(re.search('scope="(row|col)"', heading) for heading in re.findall(r"<th\b[^>]*>", markup)), name
        assert "></th>" not in markup, "a heading without words"
        assert len(re.findall(r'<img[^>]*? alt="[^"]+\."', markup)) == markup.count("<img"), name
        assert "mciot_nb" not in data["text/plain"] and "object at" not in data["text/plain"], name
        assert len(markup) < 10_000, name


def contrast(*colours: str) -> float:
    """Return the contrast of two colours, 1 to 21 (WCAG 2.1)."""
    luminances = []
    for colour in colours:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        luminances.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(luminances) + 0.05) / (min(luminances) + 0.05)


def test_the_pictures_colours_have_contrast_on_both_grounds() -> None:
    assert round(contrast("#000000", "#ffffff")) == 21 and contrast("#777777", "#ffffff") < 4.5  # the control
    for scheme in (0, 1):
        for name in set(COLOURS) - {"ground", "paper"}:
            for ground in ("ground", "paper"):
                assert contrast(COLOURS[name][scheme], COLOURS[ground][scheme]) >= 4.5, (name, ground, scheme)
    for edge in _EDGES.values():
        assert contrast(edge, "#ffffff") >= 3 and contrast(edge, "#111111") >= 3


def test_the_displays_load_neither_pandas_nor_widgets() -> None:
    code = "import sys, mciot_nb.ui.displays; assert not {'pandas', 'ipywidgets', 'requests'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True)
