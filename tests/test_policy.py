"""The signing policy, held against the real ``openssl ca``: the same subject to the byte, or the same refusal."""

import re
import shutil
from collections.abc import Sequence

import pytest
from ca_tools import make_ca, openssl_signs, request, reset, snapshot
from conftest import PASSPHRASE, examples
from cryptography import x509
from cryptography.x509.name import _ASN1Type
from hypothesis import given
from hypothesis import strategies as st

from mciot_nb import CertificateAuthority, DistinguishedName, OnboardingError
from mciot_nb.pki.config import POLICY_FIELDS
from mciot_nb.pki.names import FIELDS, OTHER_FIELDS, oneline
from mciot_nb.ui.displays import render

UTF8, PRINTABLE, IA5 = _ASN1Type.UTF8String, _ASN1Type.PrintableString, _ASN1Type.IA5String
#: The CA has every field but the locality, so that a policy can ask to match what is not there.
CA_NAME = DistinguishedName("DE", "Bayern", None, "Probe & Söhne", "Team 1", "Test CA", "ca@example.com")
CA_VALUES = {field.long_name: getattr(CA_NAME, field.attribute) for field in FIELDS}
GUIDE_POLICY = [
    *[(name, "optional") for name in ("countryName", "stateOrProvinceName", "organizationName")],
    *[("organizationalUnitName", "optional"), ("commonName", "supplied"), ("emailAddress", "optional")],
]
Policy = Sequence[tuple[str, str]]
Fields = Sequence[tuple[str, str]]


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    """One CA for all tests here; `signs` empties its database first."""
    folder = tmp_path_factory.mktemp("policy") / "caCertificate"
    made = make_ca(folder, CA_NAME)
    shutil.copy(folder / "caConfig.cnf", folder.parent / "guide.cnf")
    return made


def with_policy(
    ca: CertificateAuthority, policy: Policy, *, preserve: str | None = None, unique: str | None = None
) -> CertificateAuthority:
    """Give the CA another policy, as somebody who edits its configuration does, and a fresh database."""
    text = (ca.folder.parent / "guide.cnf").read_text()
    text = text[: text.index("[ signing_policy ]")] + "[ signing_policy ]\n"
    text += "".join(f"{name} = {word}\n" for name, word in policy)
    if preserve:
        text = text.replace("[ ca ]\n", f"[ ca ]\npreserve = {preserve}\n")
    if unique is not None:
        text = text.replace("[ CA_default ]\n", f"[ CA_default ]\nunique_subject = {unique}\n")
    (ca.folder / "caConfig.cnf").write_text(text)
    reset(ca.folder)
    return CertificateAuthority.open(ca.folder, PASSPHRASE)


def name_of(fields: Fields, kind: _ASN1Type = UTF8) -> x509.Name:
    """Make a name in the given order, typed as ``string_mask = utf8only`` does, or with other strings."""
    types = {"countryName": PRINTABLE, "emailAddress": IA5}
    return x509.Name(
        [x509.NameAttribute(POLICY_FIELDS[name].oid, value, types.get(name, kind)) for name, value in fields]
    )


def theirs(ca: CertificateAuthority, name: x509.Name) -> tuple[x509.Name | None, str]:
    """Let openssl sign, and return the subject, or None and what it said. The database is as before."""
    kept = {path: path.read_bytes() for path in ca.folder.glob("database.txt*")}
    signed = openssl_signs(ca.folder, request(name), "-extensions", "v3_signed")
    reset(ca.folder)
    for path, data in kept.items():
        path.write_bytes(data)
    return (None, re.sub(r"\s+", " ", signed)) if isinstance(signed, str) else (signed.subject, "")


def ours(ca: CertificateAuthority, name: x509.Name) -> tuple[x509.Name | None, str]:
    try:
        return ca.sign(request(name)).subject, ""
    except OnboardingError as error:
        assert error.code == "POLICY"
        return None, str(error)


#: openssl's own words, as far as they are in its messages whatever the request was.
REFUSALS = (
    r"The mandatory \w+ field was missing|The \w+ field needed to be supplied and was missing|"
    r"The \w+ field does not exist in the CA certificate, (?:so )?the 'policy' is misconfigured|"
    r"The \w+ field is different between CA certificate \([^)]*\) and the request \([^)]*\)"
)


def wording(text: str) -> str:
    """Take out the first of openssl's refusals, without the words that ours has between to make it a sentence."""
    found = re.search(REFUSALS, text)
    return found[0].replace("so the 'policy'", "the 'policy'") if found else ""


def agree(ca: CertificateAuthority, name: x509.Name) -> tuple[x509.Name | None, str]:
    """See that openssl and ours do the same with a request, and that the preview had said so; give what ours did."""
    preview = ca.preview(request(name))
    expected, they_say = theirs(ca, name)
    subject, we_say = ours(ca, name)
    reset(ca.folder)
    if expected is None:
        assert subject is None, f"openssl refuses: {they_say}"
        assert wording(they_say) and wording(we_say) == wording(they_say)
        assert not preview.ok and preview.refusals[0] == we_say
    else:
        assert subject is not None, f"openssl signs, and we say: {we_say}"
        assert subject.public_bytes() == expected.public_bytes() == preview.subject.public_bytes()
        assert preview.ok
    return subject, we_say


FULL = [
    *[("countryName", "DE"), ("stateOrProvinceName", "Bayern"), ("localityName", "Ulm")],
    *[("organizationName", "Probe & Söhne"), ("organizationalUnitName", "Team 1/2+3")],
    *[("commonName", "device"), ("emailAddress", "a@example.com")],
]


def pairs(text: str) -> list[tuple[str, str]]:
    """Return what stands in a policy or a name that is written as ``CN=supplied, C=match``."""
    return [(POLICY_FIELDS[name].long_name, word) for name, word in (each.split("=") for each in text.split(", "))]


DIFFERENT = "The {} field is different between CA certificate ({}) and the request ({})"
REFUSED = [
    ("CN=supplied", "C=DE", "The commonName field needed to be supplied and was missing"),
    ("O=match", "CN=a", "The mandatory organizationName field was missing"),
    (
        "L=match",
        "L=Ulm",
        "The localityName field does not exist in the CA certificate, so the 'policy' is misconfigured",
    ),
    ("O=match", "O=Other", DIFFERENT.format("organizationName", "Probe & Söhne", "Other")),
    # The first in the policy's order is named, not the first in the request's, nor the worst.
    ("emailAddress=supplied, C=match", "CN=a", "The emailAddress field needed"),
    ("C=match, emailAddress=supplied", "CN=a", "The mandatory countryName"),
    ("ST=optional, C=match, O=match", "O=Other, C=FR", DIFFERENT.format("countryName", "DE", "FR")),
    # One of two that differs is enough.
    ("OU=match", "OU=Team 1, OU=Team 2", DIFFERENT.format("organizationalUnitName", "Team 1", "Team 2")),
    ("CN=match", "CN=test ca", "(Test CA) and the request (test ca)"),
]


@pytest.mark.parametrize(("words", "fields", "says"), REFUSED)
def test_refusals_are_openssls_in_its_words(ca: CertificateAuthority, words: str, fields: str, says: str) -> None:
    policy = pairs(words)
    strict = with_policy(ca, policy)
    subject, sentence = agree(strict, name_of(pairs(fields)))
    assert subject is None and says in sentence and sentence.endswith(".") and ": " in sentence
    # The control: the same policy signs what it asks for.
    if policy[0][0] != "localityName":
        asked = [(name, CA_VALUES[name]) for name, word in policy if word != "optional"]
        assert agree(strict, name_of(asked))[0] == name_of(asked)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (GUIDE_POLICY, ["DE", "Bayern", "Probe & Söhne", "Team 1/2+3", "device", "a@example.com"]),
        (GUIDE_POLICY[::-1], ["a@example.com", "device", "Team 1/2+3", "Probe & Söhne", "Bayern", "DE"]),
        ([("commonName", "supplied"), ("localityName", "optional")], ["device", "Ulm"]),
        ([("organizationName", "match"), ("countryName", "match")], ["Probe & Söhne", "DE"]),
        ([("emailAddress", "optional"), ("commonName", "optional")], ["a@example.com", "device"]),
    ],
)
@pytest.mark.parametrize("backwards", [False, True])
def test_the_subject_is_openssls_to_the_byte(
    ca: CertificateAuthority, policy: Policy, expected: list[str], backwards: bool
) -> None:
    subject, _ = agree(with_policy(ca, policy), name_of(FULL[::-1] if backwards else FULL))
    assert subject is not None and [attribute.value for attribute in subject] == expected


def test_a_field_that_stands_twice_is_kept_twice(ca: CertificateAuthority) -> None:
    units = [("organizationalUnitName", "Team 2"), ("commonName", "a"), ("organizationalUnitName", "Team 1")]
    subject, _ = agree(with_policy(ca, GUIDE_POLICY), name_of(units))
    assert subject == name_of([units[0], units[2], units[1]]), "side by side now, in the request's order"
    subject, _ = agree(with_policy(ca, [("commonName", "supplied")]), name_of(units))
    assert subject == name_of(units[1:2])
    twice = [("organizationalUnitName", "Team 1")] * 2
    assert agree(with_policy(ca, [("organizationalUnitName", "match")]), name_of(twice))[0] == name_of(twice)


@pytest.mark.parametrize(
    ("preserve", "kept"), [("yes", True), ("y", True), ("Yes", True), ("no", False), ("n", False), (None, False)]
)
def test_preserve_keeps_the_subject_as_it_is(ca: CertificateAuthority, preserve: str | None, kept: bool) -> None:
    odd = with_policy(ca, GUIDE_POLICY, preserve=preserve)
    name = name_of(FULL[::-1])
    subject, _ = agree(odd, name)
    assert (subject == name) is kept
    assert (odd.preview(request(name)).vanishing == {}) is kept
    assert agree(odd, name_of([("countryName", "DE")]))[0] is None, "the policy checks it all the same"


def test_preserve_in_the_cas_section_is_ignored_as_openssl_ignores_it(ca: CertificateAuthority) -> None:
    plain_ca = with_policy(ca, GUIDE_POLICY)
    path = plain_ca.folder / "caConfig.cnf"
    path.write_text(path.read_text().replace("preserve          = no", "preserve = yes"))
    subject, _ = agree(CertificateAuthority.open(ca.folder, PASSPHRASE), name_of(FULL))
    assert subject is not None and "Ulm" not in [attribute.value for attribute in subject]


def test_match_compares_the_string_type_too(ca: CertificateAuthority) -> None:
    strict = with_policy(ca, [("stateOrProvinceName", "match"), ("commonName", "supplied")])
    fields = [("stateOrProvinceName", "Bayern"), ("commonName", "a")]
    same, other = name_of(fields), name_of(fields, PRINTABLE)
    assert agree(strict, same)[0] == same
    subject, sentence = agree(strict, other)
    assert subject is None and "(Bayern) and the request (Bayern)" in sentence
    assert sentence.endswith("written in the same string type.")
    loose = with_policy(ca, [("stateOrProvinceName", "optional"), ("commonName", "supplied")])
    subject, _ = agree(loose, other)
    assert subject is not None and subject.public_bytes() == other.public_bytes(), "and it keeps the type"


def test_a_preview_says_what_would_come_of_it_and_signs_nothing(ca: CertificateAuthority) -> None:
    strict = with_policy(ca, [("commonName", "supplied"), ("countryName", "match"), ("organizationName", "match")])
    before = snapshot(ca.folder)
    good = strict.preview(DistinguishedName("DE", "Bayern", "Ulm", "Probe & Söhne", None, "device"))
    assert good.ok and good.refusals == ()
    assert [attribute.value for attribute in good.vanishing] == ["Bayern", "Ulm"]
    assert oneline(good.subject) == "/CN=device/C=DE/O=Probe & S\\xC3\\xB6hne"
    shown = render(good).text
    assert re.search("Ulm\n.*is dropped: the policy does not list it", shown) and "Refused" not in shown
    bad = strict.preview(DistinguishedName("FR", locality="Ulm"))
    assert not bad.ok
    assert [wording(refusal)[:25] for refusal in bad.refusals] == [
        "The commonName field need",
        "The countryName field is ",
        "The mandatory organizatio",
    ], "in the policy's order"
    assert render(bad).text.count("Refused ") == 3
    assert strict.preview(request(name_of(FULL))).requested == name_of(FULL)
    assert snapshot(ca.folder) == before
    with pytest.raises(OnboardingError) as caught:
        strict.sign(request(bad.requested))
    assert str(caught.value) == bad.refusals[0]


ODD = {"countryName": ["FR", "AT"], "emailAddress": ["x@example.com"]}
VALUES = {
    field.long_name: st.sampled_from(
        [*ODD.get(field.long_name, ["Müller/x+y", "b c"]), *filter(None, [CA_VALUES.get(field.long_name)])]
    )
    for field in (*FIELDS, *OTHER_FIELDS)
}
LIKELY = [*CA_VALUES] * 3 + [field.long_name for field in OTHER_FIELDS]
names = st.lists(
    st.sampled_from(LIKELY).flatmap(lambda name: st.tuples(st.just(name), VALUES[name])), min_size=1, max_size=8
)
policies = st.lists(
    st.tuples(st.sampled_from(LIKELY), st.sampled_from(["match", "supplied", "optional", "optional"])),
    min_size=1,
    max_size=7,
    unique_by=lambda pair: pair[0],
)


@examples(40)
@given(policies, names, st.sampled_from([None, "yes"]), st.sampled_from([UTF8, UTF8, PRINTABLE]))
def test_any_policy_does_to_any_subject_what_openssls_does(
    ca: CertificateAuthority, policy: Policy, fields: Fields, preserve: str | None, kind: _ASN1Type
) -> None:
    if kind is PRINTABLE:
        fields = [(name, value.replace("ü", "u").replace("ö", "o").replace("&", "-")) for name, value in fields]
    agree(with_policy(ca, policy, preserve=preserve), name_of(fields, kind))


# openssl's parse_yesno: the first letter decides, and any other word means the default, which is yes.
UNIQUE = {
    True: ("y", "yes", "Y", "1", "t", "true", "T", "maybe", "on", "off"),
    False: ("n", "no", "N", "0", "f", "false", "F"),
}
#: Of the configuration, and of the database's own file, which overrides it; what they say together.
SAID: list[tuple[str, str | None, bool]] = [
    *[(word, None, unique) for unique, words in UNIQUE.items() for word in words],
    *[("no", f"unique_subject = {word}\n", True) for word in UNIQUE[True]],
    *[("yes", f"unique_subject = {word}\n", False) for word in UNIQUE[False]],
    *[
        ("no", text, False)
        for text in ("", "# unique_subject = yes\n", "other = yes\n", "[ s ]\nunique_subject = yes\n")
    ],
    *[("no", f"unique_subject{text}\n", True) for text in ("=yes # no", " = 'yes'", " = no\nunique_subject = yes")],
    ("no", "x = yes\nunique_subject = $x\n", True),
]


def second_is_signed(ca: CertificateAuthority) -> bool:
    """Sign the same subject twice, once with openssl and once with ours; see that both end alike, and say how."""
    name, copies = name_of([("commonName", "twice")]), ca.folder / "deviceCertificates"
    ca.sign(request(name))
    signed, complaint = theirs(ca, name)
    assert signed is not None or "There is already a certificate for /CN=twice" in complaint
    (ca.folder / "serial").write_text("1001\n")
    try:
        ca.sign(request(name))
    except OnboardingError as error:
        assert error.code == "SUBJECT_TAKEN" and signed is None and list(copies.glob("*")) == []
        return False
    assert signed is not None
    return True


@pytest.mark.parametrize(("word", "attributes", "unique"), SAID)
def test_unique_subject_is_read_as_openssl_reads_it(
    ca: CertificateAuthority, word: str, attributes: str | None, unique: bool
) -> None:
    other = with_policy(ca, GUIDE_POLICY, unique=word)
    if attributes is not None:
        (ca.folder / "database.txt.attr").write_text(attributes)
    assert second_is_signed(other) is not unique


def test_subjects_are_unique_unless_the_configuration_says_otherwise(ca: CertificateAuthority) -> None:
    assert not second_is_signed(with_policy(ca, GUIDE_POLICY))
    free = with_policy(ca, GUIDE_POLICY, unique="no")
    twice = [request(name_of([("commonName", "a")]))] * 2
    assert [signed.serial_number for signed in free.sign_many(twice)] == [0x1000, 0x1001]
    with pytest.raises(OnboardingError, match="Two of the requests"):
        with_policy(ca, GUIDE_POLICY).sign_many(twice)
