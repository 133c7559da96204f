import base64
import codecs
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from chain_shapes import called, issue
from conftest import PASSPHRASE, Run
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.name import _ASN1Type
from platform_tools import make

from mciot_nb import CertificateAuthority, DistinguishedName, OnboardingError, chain_picture, diagnose, write_keystore
from mciot_nb.pki import jks, pkcs12
from mciot_nb.pki.chain import (
    PROFILES,
    build_chain,
    fingerprint,
    is_issued_by,
    read_certificates,
    signature_fits,
    to_pem,
    with_colons,
)
from mciot_nb.pki.keys import KeyType, read_private_key
from mciot_nb.pki.uploads import parse_upload

GUIDE, CURRENT = PROFILES["guide-2021"], PROFILES["current"]
KEY, SUBJECT = ec.generate_private_key(ec.SECP256R1()), DistinguishedName(common_name="Other")


def sign(
    ca: CertificateAuthority, name: str, extensions: str = "v3_signed", at: datetime | None = None
) -> x509.Certificate:
    subject = DistinguishedName(common_name=name).to_x509()
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(KEY, SHA256())
    return ca.sign(csr, extensions, at=at)


def sign_under(issuer: x509.Certificate, name: str) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(
        issuer.subject, DistinguishedName(common_name=name).to_x509(), KEY.public_key(), 7
    )
    return builder.not_valid_before(now - timedelta(1)).not_valid_after(now + timedelta(9)).sign(KEY, SHA256())


def named(folder: Path, subject: DistinguishedName) -> x509.Certificate:
    return CertificateAuthority.create(folder, subject, PASSPHRASE, key_type=KeyType.P256).certificate


def test_a_good_chain_is_found_good(ca: CertificateAuthority) -> None:
    root, device = ca.certificate, sign(ca, "device")
    for profile in (None, GUIDE, CURRENT):
        assert diagnose([device, root], [root], profile).ok
    assert build_chain(device, [root]) == [device, root]
    assert str(diagnose([device, root], [root])) == "OK: nothing wrong was found."


def test_each_fault_has_its_code_and_its_sentence(ca: CertificateAuthority, tmp_path: Path) -> None:
    root, device = ca.certificate, sign(ca, "device")
    other, twin = named(tmp_path / "a", SUBJECT), named(tmp_path / "b", DistinguishedName.from_x509(root.subject))
    middle, day = sign(ca, "middle", "v3_ca"), timedelta(days=1)
    leaf = sign_under(middle, "leaf")
    cases = [
        ([], GUIDE, None, "NO_CLIENT_CERT"),
        ([device], GUIDE, None, "INCOMPLETE_CHAIN"),
        ([device], CURRENT, None, "OK"),
        ([leaf, middle, root], GUIDE, None, "CHAIN_TOO_LONG"),
        ([leaf, middle, root], CURRENT, None, "OK"),
        ([leaf, middle], CURRENT, None, "INCOMPLETE_CHAIN"),
        ([leaf, root, middle], CURRENT, None, "CHAIN_ORDER"),
        ([root], GUIDE, None, "OK"),  # trusted itself, as thin-edge.io has it
        ([leaf], CURRENT, None, "UNKNOWN_CA"),
        ([sign_under(device, "leaf"), device, root], CURRENT, None, "INVALID"),  # a device signs no others
        ([sign_under(root, "forged"), root], GUIDE, None, "BAD_SIGNATURE"),
        ([device, root], GUIDE, device.not_valid_after_utc + day, "EXPIRED"),
        ([device, root], GUIDE, device.not_valid_before_utc - day, "NOT_YET_VALID"),
    ]
    for presented, profile, at, code in cases:
        diagnosis = diagnose(presented, [root], profile, at=at)
        assert diagnosis.code == code, (code, str(diagnosis))
        assert len(set(diagnosis.findings)) == len(diagnosis.findings)
        assert all(re.fullmatch(r"[^\n]+\.", finding.sentence) for finding in diagnosis.findings)
        assert len(set(diagnosis.findings)) == len(diagnosis.findings), "nothing is said twice"
    assert diagnose([device, root], [other]).code == "UNKNOWN_CA"
    assert diagnose([device, root], [twin]).code == "UNKNOWN_CA", "another CA of the same name is another CA"
    assert diagnose([leaf, middle], [middle], GUIDE).ok, "an uploaded intermediate is the anchor"
    with pytest.raises(OnboardingError, match="not among those given"):
        build_chain(device, [other])


SIGNED_BY = {  # the key, and the digest of what it signs
    "RSA, SHA-1": ("rsa:2048", "-sha1"),
    "RSA, MD5": ("rsa:2048", "-md5"),
    "EC, SHA-1": ("P-256", "-sha1"),
    "EC": ("P-256", "-sha256"),
    "Ed25519": ("ed25519", ""),
    "P-192, which cryptography does not know": ("secp192k1", "-sha256"),
    "RSA, RIPEMD-160, which it does not check": ("rsa:2048", "-ripemd160"),
}


@pytest.mark.parametrize("method", SIGNED_BY)
def test_who_signed_is_told_of_old_signatures_too(method: str, openssl: Run, tmp_path: Path) -> None:
    kind, digest = SIGNED_BY[method]
    curve = [] if kind in ("rsa:2048", "ed25519") else ["-pkeyopt", f"ec_paramgen_curve:{kind}"]
    digests = [digest] if digest else []
    new = ["-newkey", "ec" if curve else kind, *curve, "-nodes", *digests]

    def made(name: str, command: str, *options: str) -> bytes:
        openssl(command, *options, *digests, "-out", name, cwd=tmp_path)
        return (tmp_path / name).read_bytes()

    for name in ("ca", "twin"):  # of one name; the first signs
        made(f"{name}.pem", "req", "-x509", *new, "-subj", "/CN=Old CA", "-keyout", f"{name}.key")
    request = x509.load_pem_x509_csr(made("csr.pem", "req", *new, "-subj", "/CN=device", "-keyout", "device.key"))
    made("device.pem", "x509", "-req", "-in", "csr.pem", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial")
    device, ca, twin = (read_certificates(tmp_path / f"{name}.pem")[0] for name in ("device", "ca", "twin"))
    yes, no = (None, None) if "which" in method else (True, False)
    assert (signature_fits(device, ca), signature_fits(device, twin)) == (yes, no)
    assert (signature_fits(request, request), signature_fits(request, ca)) == (yes, no)
    assert is_issued_by(device, ca) == bool(yes) and is_issued_by(device, ca, unchecked=True)
    assert not is_issued_by(device, twin) and not is_issued_by(device, device, unchecked=True)
    assert build_chain(device, [twin, ca] if yes else [ca]) == [device, ca]
    said = str(diagnose([device, twin], [twin]))
    assert "BAD_SIGNATURE" in said and ("can't be checked" in said) == (yes is None)
    assert "did not sign" not in str(diagnose([device, ca], [ca]))
    assert "NOT signed" not in chain_picture([device, ca]).text
    assert ("NOT signed" in chain_picture([device, twin]).text) == bool(yes)
    if kind == "rsa:2048":
        write_keystore(tmp_path / "store.p12", read_private_key(tmp_path / "device.key", ""), [device, ca], "changeit")


def test_one_certificate_is_a_chain_and_what_can_be_listed_is_one() -> None:
    ca = issue("CA")
    device = issue("device", ca)
    chain, root = [device.certificate, ca.certificate], ca.certificate
    local = datetime.now() + timedelta(1)
    for presented, anchors in ((chain, root), (chain[0], iter([root])), (iter(chain), [root])):
        assert diagnose(presented, anchors, "current", at=local).ok, "also at a time without a zone"
    assert not diagnose(chain[0], []).ok
    assert build_chain(chain[0], root) == chain
    assert chain_picture(chain[0], trusted=root, at=local).text == chain_picture(chain[:1], trusted=[root]).text
    with pytest.raises(OnboardingError, match=r"no profile 'newest': use guide-2021 or current\."):
        diagnose(chain, [root], "newest")


def test_names_are_compared_as_rfc_5280_has_it() -> None:
    ca = issue(called("CA", "Old Works"))
    for name in (called("ca", " OLD   works "), called("CA", "Old Works", kind=_ASN1Type.BMPString)):
        assert is_issued_by(issue("device", ca, issuer_name=name).certificate, ca.certificate)
    for name in (called("CA", "OldWorks"), called("Old Works", "CA"), called("CA")):
        assert not is_issued_by(issue("device", ca, issuer_name=name).certificate, ca.certificate)


def test_a_fingerprint_is_openssls(ca: CertificateAuthority, openssl: Run) -> None:
    for algorithm in ("sha1", "sha256"):
        said = openssl("x509", "-in", ca.folder / "caCert.pem", "-noout", "-fingerprint", f"-{algorithm}").stdout
        assert with_colons(fingerprint(ca.certificate, algorithm)) == said.strip().partition("=")[2]
    assert fingerprint(ca.certificate) == ca.certificate.fingerprint(SHA1()).hex()


# Reading: files in PEM form, and what is pasted, dropped or sent in any form.


def test_pem_files_are_read_whole(ca: CertificateAuthority, tmp_path: Path) -> None:
    path, pem = tmp_path / "chain.pem", to_pem([sign(ca, "device"), ca.certificate])
    path.write_bytes(b"Certificate:\n  text before\n" + pem.replace(b"\n", b"\r\n"))
    assert to_pem(read_certificates(path)) == pem
    with pytest.raises(OnboardingError, match="There is no file"):
        read_certificates(tmp_path / "none.pem")


MADE = make("Root", ca=True)
PEM, DER = MADE.pem, MADE.certificate.public_bytes(Encoding.DER)
BARE = base64.b64encode(DER).decode()
FORMS = {  # those of files are in test_trust_panel
    "PEM": PEM,
    "with text around it": f"Subject: CN = a\\name\n{PEM}\nbye",
    "on one line": PEM.replace("\n", ""),
    "with blanks": PEM.replace("\n", " "),
    "big-endian": codecs.BOM_UTF16_BE + PEM.encode("utf-16-be"),
    "bare base64": BARE,
    "its lines": base64.encodebytes(DER),
    "base64 in UTF-16": BARE.encode("utf-16"),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_certificate_is_read_in_every_form(form: str) -> None:
    assert parse_upload(FORMS[form], "It") == [MADE.certificate]


def test_several_certificates_are_read_in_their_order(ca: CertificateAuthority) -> None:
    der = ca.certificate.public_bytes(Encoding.DER)
    other, bare = to_pem([ca.certificate]).decode(), base64.b64encode(der).decode()
    for text in (PEM + other, f"{PEM},{other}".replace("\n", " "), f"{BARE},{bare}"):
        assert parse_upload(text, "It") == [MADE.certificate, ca.certificate]


KEY_DER = KEY.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
KEY_PEM = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
OTHER_KEYS = {
    "an older key": (Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()),
    "an encrypted key": (Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"Kaffee")),
    "a key for ssh": (Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()),
    "a DER key": (Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
    "an older DER key": (Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption()),
    "an encrypted DER key": (Encoding.DER, PrivateFormat.PKCS8, BestAvailableEncryption(b"Kaffee")),
}
REQUEST = x509.CertificateSigningRequestBuilder().subject_name(MADE.certificate.subject).sign(KEY, SHA256())
STORE = pkcs12.dump_trusted({"a": MADE.certificate}, b"Kaffee")
NO_PEM = "This is not a certificate in PEM form"
NONE_OF_THEM = {
    "nothing": ("", "BAD_PEM", NO_PEM),
    "junk": ("junk", "BAD_PEM", NO_PEM),
    "half base64": (BARE[:200], "BAD_PEM", "The certificate is damaged"),
    "en dashes": (PEM.replace("-----", "\N{EN DASH}" * 5), "BAD_PEM", "typographic dashes"),
    "em dashes": (PEM.replace("-----", "—"), "BAD_PEM", "typographic dashes"),
    "typed line breaks": (PEM.replace("\n", "\\n"), "BAD_PEM", "a backslash and an n"),
    "a request": (REQUEST.public_bytes(Encoding.PEM), "BAD_PEM", "a certificate signing request"),
    "a key": (KEY_PEM, "PRIVATE_KEY", "It holds a private key"),
    "a key in base64": (base64.b64encode(KEY_DER).decode(), "PRIVATE_KEY", "It holds a private key"),
    **{kind: (KEY.private_bytes(*form), "PRIVATE_KEY", "It holds a private key") for kind, form in OTHER_KEYS.items()},
    "BKS": (b"\0\0\0\2rest", "KEYSTORE", "It is a keystore"),
    "a JKS": (jks.dump([], "Kaffee"), "KEYSTORE", "It is a keystore"),
    "a PKCS12 in base64": (base64.b64encode(STORE), "KEYSTORE", "It is a keystore"),
}


@pytest.mark.parametrize("kind", NONE_OF_THEM)
def test_what_is_no_certificate_is_named(kind: str, tmp_path: Path) -> None:
    data, code, says = NONE_OF_THEM[kind]
    with pytest.raises(OnboardingError, match=says) as caught:
        parse_upload(data, "It")
    assert caught.value.code == code and str(caught.value).endswith(".")
    path = tmp_path / "file.pem"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    with pytest.raises(OnboardingError, match=re.escape(str(path))):
        read_certificates(path)
