"""Every certificate, request and revocation list of cryptography's own test vectors: shown, judged, or named."""

import base64
import dataclasses
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import cryptography_vectors
import pytest
from conftest import PASSPHRASE, Run
from cryptography import x509
from platform_tools import make

from mciot_nb.connect.server_certificate import ServerCertificate
from mciot_nb.errors import OnboardingError
from mciot_nb.pki import keys, signing, uploads
from mciot_nb.pki.authority import CertificateAuthority
from mciot_nb.pki.chain import build_chain, diagnose, read_certificates, to_pem
from mciot_nb.pki.config import GUIDE_CONFIG, read_config
from mciot_nb.pki.crl import read_crl, unlisted
from mciot_nb.pki.keystore import KEY_ENTRY, TRUSTED_ENTRY, Entry, Keystore
from mciot_nb.pki.names import name_of, readable
from mciot_nb.pki.signing import preview_subject
from mciot_nb.ui.certificate_card import fields
from mciot_nb.ui.displays import render
from mciot_nb.ui.pictures import chain_picture
from mciot_nb.workspace import Workspace

FOLDER = Path(cryptography_vectors.__file__).parent
CERTIFICATE, REQUEST, CRL = "CERTIFICATE", "CERTIFICATE REQUEST", "X509 CRL"
IN_DER = {".crt": [CERTIFICATE], ".crl": [CRL], ".der": [CERTIFICATE, REQUEST, CRL]}
CA = make("CA", ca=True)
LEAF = make("dev", CA).certificate
#: Words of the libraries that read them: none may stand in a sentence.
FOREIGN = re.compile(r"ParseError|asn1|kind:|Error\(|<[A-Z]|x509\.|_ssl\.c|b'", re.IGNORECASE)


class Vector(NamedTuple):
    name: str
    kind: str
    pem: bytes


def vectors() -> Iterator[Vector]:
    """Yield what the files in PEM form hold, and those in DER form as whatever they may be."""
    for path in sorted(path for folder in ("x509", "pkcs7", "pkcs12") for path in (FOLDER / folder).rglob("*.*")):
        data, name = path.read_bytes(), path.relative_to(FOLDER).as_posix()
        found = re.findall(rb"(-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \2-----)", data, re.DOTALL)
        for pem, kind in found:
            if (kind := kind.decode().removeprefix("NEW ")) in (CERTIFICATE, REQUEST, CRL):
                yield Vector(name, kind, pem + b"\n")
        for kind in [] if found else IN_DER.get(path.suffix, []):
            text = base64.encodebytes(data).decode()
            yield Vector(name, kind, f"-----BEGIN {kind}-----\n{text}-----END {kind}-----\n".encode())


def certificate_calls(path: Path, pem: bytes) -> Iterator[Callable[[], object]]:
    """Yield all that reads, judges or shows a certificate."""
    yield lambda: uploads.parse_upload(pem, "It")
    yield lambda: uploads.ca_certificates("it.pem", pem)
    yield lambda: uploads.single_ca_certificate(pem.decode())
    try:
        one, *_ = read_certificates(path)
    except OnboardingError as error:
        sentence = str(error)
        yield lambda: check_sentence(sentence)
        return
    both = (one, CA.certificate)
    yield lambda: render(one).html
    yield lambda: fields(one).html
    for profile in (None, "guide-2021", "current"):
        for chain, anchors in (([one], [one]), ([one], []), ([LEAF, one], [one]), (both, both[1:])):
            yield lambda c=chain, a=anchors, p=profile: render(diagnose(c, a, p)).text  # type: ignore[misc]
    yield lambda: build_chain(one, both)
    yield lambda: build_chain(LEAF, both)
    yield lambda: chain_picture([one, *both], trusted=[one]).text
    yield lambda: (keys.KeyChoice.of(one), keys.is_key_of(one, CA.key), signing.row_of(one))
    yield lambda: render(ServerCertificate("localhost", 8883, both, "")).html
    entries = (Entry("a", KEY_ENTRY, both), Entry("b", TRUSTED_ENTRY, (one,)))
    yield lambda: render(Keystore(Path("a.jks"), "JKS", entries)).text


def request_calls(path: Path, pem: bytes) -> Iterator[Callable[[], object]]:
    yield lambda: uploads.parse_upload(pem, "It")
    yield lambda: signing.check_request(keys.read_request(path))
    yield lambda: keys.KeyType.of(keys.read_request(path))
    config, issuer = read_config(GUIDE_CONFIG), CA.certificate.subject
    yield lambda: render(preview_subject(config, signing.subject_of(keys.read_request(path)), issuer)).text


def crl_calls(path: Path, pem: bytes) -> Iterator[Callable[[], object]]:
    yield lambda: uploads.parse_upload(pem, "It")
    yield lambda: read_crl(path)
    yield lambda: unlisted(path, {1})


CALLS = {CERTIFICATE: certificate_calls, REQUEST: request_calls, CRL: crl_calls}


def check_sentence(text: str) -> None:
    assert text.endswith(".") and "\n" not in text and not FOREIGN.search(text), text


def check(vector: Vector, path: Path) -> int:
    """Check that each call does what it should, or says in one sentence why not; return how many did."""
    path.write_bytes(vector.pem)
    good = 0
    for call in CALLS[vector.kind](path, vector.pem):
        try:
            result = call()
        except OnboardingError as error:
            check_sentence(str(error))
        except Exception as error:
            error.add_note(f"{vector.kind} in {vector.name}")
            raise
        else:
            good += 1
            if isinstance(result, str):
                assert not re.search("ParseError|asn1", result), vector.name
    return good


#: What needs more than cryptography's own reading, or was once answered with a traceback.
ODD = (
    *(
        "san_edipartyname",
        "san_x400address",
        "custom/invalid_utf8_common_name",
        "custom/name_attribute_unsupported_tag",
    ),
    *("custom/invalid_version", "custom/crl_bad_version", "requests/bad-version", "custom/ec_no_named_curve"),
    *("custom/two_basic_constraints", "custom/ecdsa_null_alg", "badasn1time", "ed25519-rfc8410"),
)


@pytest.mark.parametrize("kind", CALLS)
@pytest.mark.filterwarnings("ignore")  # cryptography's own, of what it will refuse one day
@pytest.mark.parametrize("share", [20, pytest.param(1, marks=pytest.mark.slow)])
def test_each_is_read_or_named(kind: str, share: int, tmp_path: Path) -> None:
    of_kind = [vector for vector in vectors() if vector.kind == kind]
    odd = [vector for vector in of_kind if vector.name.removeprefix("x509/").rpartition(".")[0] in ODD]
    chosen = odd + of_kind[::share]
    good = [check(vector, tmp_path / "vector.pem") for vector in chosen]
    assert odd and sum(map(bool, good)) > len(chosen) / 9  # the rest is named


def test_the_check_sees_a_librarys_text_and_a_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError):
        check_sentence("It can't be read: error parsing asn1 value.")
    vector = next(vector for vector in vectors() if vector.name.endswith("san_edipartyname.der"))
    monkeypatch.setattr("mciot_nb.ui.certificate_card.extensions_of", lambda certificate: certificate.extensions)
    with pytest.raises(x509.UnsupportedGeneralNameType):
        check(vector, tmp_path / "vector.pem")


CONFIG = """[req]
prompt = no
utf8 = yes
string_mask = nombstr
distinguished_name = dn
x509_extensions = v3
[dn]
C = DE
O = Müller & Söhne
CN = Prüf-CA
[v3]
basicConstraints = critical,CA:true,pathlen:1
subjectKeyIdentifier = hash
2.5.29.17 = DER:3009a507a1051303616263
"""


@pytest.fixture
def old(tmp_path: Path, openssl: Run) -> x509.Certificate:
    """A CA that openssl made with umlauts in a T61String, and an ediPartyName among its alternative names."""
    key, config = tmp_path / "key.pem", tmp_path / "old.cnf"
    config.write_text(CONFIG, encoding="utf-8")
    openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key)
    openssl("req", "-x509", "-new", "-key", key, "-config", config, "-days", "9", "-out", tmp_path / "old.pem")
    (certificate,) = read_certificates(tmp_path / "old.pem")
    with pytest.raises(ValueError, match="asn1"):
        readable(certificate.subject)  # the control: cryptography can't
    return certificate


def test_a_ca_of_the_old_kind_can_not_be_opened(old: x509.Certificate, ca: CertificateAuthority) -> None:
    certificate, before = ca.config.ca_path("certificate"), ca.folder.with_name("before")
    shutil.copytree(ca.folder, before)
    certificate.write_bytes(to_pem([old]))
    with pytest.raises(
        OnboardingError, match="C=DE, O=Müller & Söhne, CN=Prüf-CA, is in an old string type"
    ) as refused:
        CertificateAuthority.open(ca.folder, PASSPHRASE)
    assert refused.value.code == "BAD_NAME"
    assert str(refused.value) in [finding.sentence for finding in CertificateAuthority.inspect(ca.folder).findings]
    shutil.copy(before / certificate.name, certificate)
    assert CertificateAuthority.open(ca.folder, PASSPHRASE).certificate == ca.certificate  # the control


def test_a_workspace_says_so_too(old: x509.Certificate, quick_workspace: Workspace) -> None:
    quick_workspace.catch_up("device")
    device = quick_workspace.subject("device")
    (quick_workspace.ca_folder / "caCert.pem").write_bytes(to_pem([old]))
    assert quick_workspace.subject("ca").organization == "Müller & Söhne"
    other = dataclasses.replace(device, common_name="other")
    for call in (quick_workspace.ca, lambda: quick_workspace.create_device_request(other)):
        with pytest.raises(OnboardingError):
            call()


def test_a_ca_of_the_old_kind_is_shown_and_judged(old: x509.Certificate, tmp_path: Path, openssl: Run) -> None:
    options = ["-noout", "-subject", "-nameopt", "utf8,sep_comma_plus_space,sname,-esc_msb"]
    shown = openssl("x509", "-in", tmp_path / "old.pem", *options).stdout.strip().removeprefix("subject=")
    assert shown == readable(name_of(old)) == readable(name_of(old, "issuer")) == "C=DE, O=Müller & Söhne, CN=Prüf-CA"
    text = render(old).text
    assert "CA certificate of Prüf-CA" in text and "yes, path length 1" in text and "itself" in text
    assert re.search(r"Subject Alternative Name +✗ can't be read here", text)
    assert uploads.single_ca_certificate(to_pem([old]).decode()) == old
    assert diagnose([old], [old]).ok and build_chain(old, []) == [old]
    assert "Prüf-CA (✓ trusted)" in chain_picture([old], trusted=[old]).text
