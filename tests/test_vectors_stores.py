"""Every key and store of cryptography's own test vectors is read, or refused in one sentence, and no right password is
called wrong."""

import base64
from collections.abc import Callable
from pathlib import Path

import cryptography_vectors
import pytest
from test_store_properties import SENTENCE

from mciot_nb import OnboardingError
from mciot_nb.pki.keys import read_private_key
from mciot_nb.pki.keystore import read_key, read_store

VECTORS = Path(cryptography_vectors.__file__).parent
KINDS = (".pem", ".der", ".p12", ".key", ".p7b")
FILES = [
    file for top in ("asymmetric", "pkcs12", "pkcs7") for file in VECTORS.glob(f"{top}/**/*") if file.suffix in KINDS
]
#: One of these opens each file that a password can open.
PASSWORDS = ["", "password", "123456", "foobar", "a123456", "hello", "cryptography", "baz", "asdf", "PolarSSLTest"]
#: The password is hashed no times, or the iteration count is missing: no tool opens it.
HOPELESS = ["enc-rsa-pkcs8-pbkdf2-0iter.pem"]
Reader = Callable[[Path, str], object]


def outcome(read: Reader, path: Path) -> str:
    """Read a file with every password until it is not called wrong; return the code of the refusal, or "read"."""
    code = ""
    for password in PASSWORDS:
        try:
            read(path, password)
        except OnboardingError as error:
            code = error.code
            assert SENTENCE.fullmatch(str(error)), str(error)
            if code != "WRONG_PASSPHRASE":
                return code
        else:
            return "read"
    return code


@pytest.mark.parametrize("kind", KINDS)
def test_every_vector_is_read_or_refused_in_a_sentence(kind: str, tmp_path: Path) -> None:
    found: dict[str, str] = {}
    for file in (file for file in FILES if file.suffix == kind):
        path = tmp_path / file.name
        path.write_bytes(file.read_bytes())
        codes = [outcome(read, path) for read in (read_private_key, read_store, read_key)]
        if kind == ".der":
            base = base64.encodebytes(file.read_bytes())
            path.write_bytes(b"-----BEGIN PRIVATE KEY-----\n" + base + b"-----END PRIVATE KEY-----\n")
            outcome(read_private_key, path)
        found[file.name] = codes[0] if kind in (".pem", ".key") else codes[1]
        assert "WRONG_PASSPHRASE" not in codes or file.name in HOPELESS, (file, codes)
    read = sum(code == "read" for code in found.values())
    assert read >= {".pem": 35, ".p12": 31}.get(kind, 0), found
    assert len(found) - read >= {".pem": 60, ".der": 40, ".key": 13, ".p7b": 1}.get(kind, 0), found
