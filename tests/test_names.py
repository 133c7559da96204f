import subprocess
from pathlib import Path

import pytest
from conftest import Run
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from mciot_nb import DistinguishedName, OnboardingError
from mciot_nb.pki.names import oneline, readable

ODD = [
    "Mün/chen+Ulm",
    '"quoted"',
    "<script>alert(1)</script>",
    "$(reboot)",
    "../x",
    "CON",
    "O'Brien",
    "back\\slash",
    "日本",
]
legal_text = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=30)


@given(legal_text.filter(lambda text: len(text.encode()) <= 64), legal_text)
def test_any_legal_name_round_trips(common_name: str, locality: str) -> None:
    name = DistinguishedName(locality=locality, common_name=common_name)
    assert DistinguishedName.from_x509(x509.Name.from_bytes(name.to_x509().public_bytes())) == name
    assert "\n" not in oneline(name.to_x509()) and oneline(name.to_x509()).isascii()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"country": "GER"}, "two-letter code"),
        ({"country": "D"}, "two-letter code"),
        ({"country": "ÖÄ"}, "two-letter code"),
        ({"common_name": "x" * 65}, "65 long"),
        ({"common_name": "a\nb"}, "line break"),
        ({"locality": "a\x00b"}, "control character"),
        ({"organization": "x" * 65}, "65 long"),
        ({"email": "jürgen@example.com"}, "ASCII"),
    ],
)
def test_refused_values_are_named_in_one_sentence(values: dict[str, str], says: str) -> None:
    with pytest.raises(OnboardingError, match=says) as caught:
        DistinguishedName(**values)
    assert "\n" not in str(caught.value)


def test_an_empty_answer_leaves_the_field_out() -> None:
    assert DistinguishedName(country="", common_name="a") == DistinguishedName(common_name="a")


def test_a_second_value_and_an_unknown_field_are_refused() -> None:
    twice = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text) for text in ("a", "b")])
    with pytest.raises(OnboardingError, match="two values"):
        DistinguishedName.from_x509(twice)
    unknown = x509.Name([x509.NameAttribute(x509.NameOID.SURNAME, "a")])
    with pytest.raises(OnboardingError, match="does not know"):
        DistinguishedName.from_x509(unknown)


@pytest.mark.parametrize("value", [*ODD, "x" * 64, "  edges  "])
def test_openssl_reads_the_same_name(value: str, openssl: Run, tmp_path: Path) -> None:
    name = DistinguishedName("DE", "Bayern", value[:20], value[:60], "OU", value, "a@example.com")
    request = x509.CertificateSigningRequestBuilder().subject_name(name.to_x509())
    path = tmp_path / "request.pem"
    path.write_bytes(request.sign(ec.generate_private_key(ec.SECP256R1()), SHA256()).public_bytes(Encoding.PEM))
    shown: subprocess.CompletedProcess[str] = openssl("req", "-in", path, "-noout", "-subject", "-nameopt", "compat")
    assert shown.stdout.removeprefix("subject=").strip("\n") == oneline(name.to_x509())


def test_readable_is_openssls_subject_line(openssl: Run) -> None:
    name = DistinguishedName(country="DE", common_name="device")
    assert readable(name.to_x509()) == "C=DE, CN=device" == str(name)
