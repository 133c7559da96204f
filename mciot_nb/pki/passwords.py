"""Which password opens what: the question behind most of the trouble with keystores, answered by trying."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from mciot_nb.errors import OnboardingError
from mciot_nb.pki.files import read_file
from mciot_nb.pki.keys import read_private_key
from mciot_nb.pki.store import KEY_ENTRY, read_key, read_store
from mciot_nb.secret import Secret

#: A file, the part of it that is shut, and the names of the passwords that open that part.
Opening = tuple[str, str, str]


def which_password_opens(paths: Iterable[Path], passwords: Mapping[str, Secret | str]) -> list[Opening]:
    """Try every password, by its name, on private keys in PEM form, keystores and truststores, and on each key in them.

    No password stands in the answer. Raises OnboardingError where a file is missing, damaged or of another kind.
    """
    return [opening for path in paths for opening in _openings(path, passwords)]


def _openings(path: Path, passwords: Mapping[str, Secret | str]) -> list[Opening]:
    if b"-----BEGIN" in read_file(path, f"There is no {path}: make it first."):
        return [(path.name, "the key", _named(passwords, partial(read_private_key, path)))]
    found = [(path.name, "the store", _named(passwords, partial(read_store, path)))]
    fitting = [password for password in passwords.values() if _opens(partial(read_store, path), password)]
    for entry in read_store(path, fitting[0]).entries if fitting else ():
        if entry.kind == KEY_ENTRY:
            opener = partial(read_key, path, fitting[0], alias=entry.alias)
            found.append((path.name, f"the key {entry.alias} in it", _named(passwords, opener)))
    return found


def _named(passwords: Mapping[str, Secret | str], opener: Callable[[Secret | str], object]) -> str:
    return ", ".join(name for name, password in passwords.items() if _opens(opener, password)) or "none of these"


def _opens(opener: Callable[[Secret | str], object], password: Secret | str) -> bool:
    try:
        opener(password)
    except OnboardingError as error:
        if error.code not in ("WRONG_PASSPHRASE", "WRONG_KEY_PASSWORD", "BAD_PASSPHRASE"):
            raise
        return False
    return True
