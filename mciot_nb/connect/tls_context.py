"""What a device needs for mutual TLS, from its PEM files."""

import ssl
from pathlib import Path

from mciot_nb.errors import OnboardingError
from mciot_nb.pki.chain import read_certificates
from mciot_nb.pki.files import disk_problem
from mciot_nb.secret import Secret, reveal

_WEAK = {
    "EE_KEY_TOO_SMALL": "its key is too short: make it anew, with RSA 2048 or more",
    "CA_KEY_TOO_SMALL": "the key of a CA in it is too short: make that CA anew, with RSA 2048 or more",
    "CA_MD_TOO_WEAK": "a signature in it is too weak: let it be signed anew, with SHA-256",
}


def tls_context(
    chain: Path | None, key: Path | None, passphrase: Secret | str, trusted: Path | None, version: ssl.TLSVersion | None
) -> ssl.SSLContext:
    """Give the context in which a device shows ``chain`` with ``key``, and believes ``trusted`` or else the system.

    Raises OnboardingError where the files do not fit together or the passphrase is wrong.
    """
    if trusted is not None:
        read_certificates(trusted)  # says in a sentence what is wrong with the file
    context = ssl.create_default_context(cafile=trusted)
    if trusted is not None:
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # what is trusted need not be a root: Java sees it so too
    if version is not None:
        context.minimum_version = context.maximum_version = version
    if chain is None:
        return context
    try:
        # A function, not the text: OpenSSL would ask on the terminal for a passphrase that is empty.
        context.load_cert_chain(chain, key, lambda: reveal(passphrase))
    except FileNotFoundError:
        raise OnboardingError(f"There is no key {key}: make the device's key first.", "NO_FILE") from None
    except ssl.SSLError as error:
        if "KEY_VALUES_MISMATCH" in str(error):
            raise OnboardingError(
                f"The key {key} does not belong to the first certificate of {chain}: give the pair that was made "
                "together.",
                "KEY_MISMATCH",
            ) from None
        if error.reason in _WEAK:
            raise OnboardingError(f"OpenSSL does not take {chain}, for {_WEAK[error.reason]}.", "WEAK") from None
        raise OnboardingError(
            f"The passphrase does not open {key}, or the file is no private key: type the one it was made with.",
            "WRONG_PASSPHRASE",
        ) from None
    except OSError as error:
        raise disk_problem(key or chain, error) from None
    return context
