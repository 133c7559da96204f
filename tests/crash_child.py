"""A process that works in a CA directory and is killed in the middle of it: the other half of test_crash.py.

::

    crash_child.py act FOLDER MODE POINT OPERATION [SERIAL | REQUEST …]
    crash_child.py sign-many-times FOLDER NAME COUNT
    crash_child.py hold FOLDER

Every line of its output is JSON. The passphrase is in the environment, as PASS.
"""

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from mciot_nb import CertificateAuthority, DistinguishedName
from mciot_nb.pki.keys import KeyType

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
#: Every function of os that changes a file, a name or what a file is allowed; the code need not use them all.
FUNCTIONS = """
    open write writev pwrite sendfile copy_file_range fsync fdatasync ftruncate truncate replace rename link symlink
    unlink remove mkdir rmdir mknod mkfifo chmod fchmod lchmod chown fchown lchown utime posix_fallocate setxattr
    removexattr
"""
#: Python's own names for what these do (docs.python.org, "Audit events table"); writing into an open file has none.
AUDITED = {
    *("os.rename", "os.remove", "os.link", "os.symlink", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod", "os.chown"),
    *("os.utime", "os.setxattr", "os.removexattr", "os.posix_spawn", "os.fork", "subprocess.Popen"),
}


def changes(name: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> bool:
    """Tell whether a call of os changes files: all but an `os.open` that only reads."""
    return name != "open" or bool(WRITING & (arguments[1] if len(arguments) > 1 else options["flags"]))


def around_every_change(put: Callable[[str, object], None], meet: Callable[..., Any]) -> None:
    """Send every call of os that changes files through ``meet(name, real, arguments, options)``."""

    def wrapped(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if not changes(name, arguments, options):
                return real(*arguments, **options)
            return meet(name, real, arguments, options)

        return call

    for name in FUNCTIONS.split():
        if hasattr(os, name):
            put(name, wrapped(name, getattr(os, name)))


class Killer:
    """Counts the changes, and kills this process ``before`` or ``after`` the one at ``point``, or ``half`` way."""

    def __init__(self, mode: str, point: int) -> None:
        self.mode, self.point = mode, point
        self.calls: list[str] = []
        self.escaped: list[str] = []
        self.audited, self._armed = 0, False
        self._counting, self._thread = threading.Lock(), threading.local()

    def arm(self) -> None:
        sys.addaudithook(self._audit)
        around_every_change(lambda name, function: setattr(os, name, function), self._meet)
        self._armed = True

    def disarm(self) -> None:
        self._armed = False

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """See what changes files without coming through a wrapped function: no kill point would be there."""
        writes = event == "open" and (arguments[2] & WRITING or set(arguments[1] or "") & set("wax+"))
        if self._armed and (writes or event in AUDITED):
            self.audited += 1
            if not getattr(self._thread, "inside", False):
                self.escaped.append(f"{event} {arguments[0]}")

    def _meet(self, name: str, real: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        if not self._armed:
            return real(*arguments, **options)
        with self._counting:  # several threads write at once
            self.calls.append(name)
            here = len(self.calls) == self.point
        if here and self.mode == "half" and name == "write":  # in another run, a thread's fsync may come here
            descriptor, data = arguments
            os_write(descriptor, data[: len(data) // 2])
        if here and self.mode in ("before", "half"):
            die()
        self._thread.inside = True
        try:
            return real(*arguments, **options)
        finally:
            self._thread.inside = False
            if here and self.mode == "after":
                die()


os_write = os.write


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


def hand_out(certificates: list[x509.Certificate]) -> None:
    for certificate in certificates:
        say(serial=certificate.serial_number, pem=certificate.public_bytes(Encoding.PEM).decode())


def perform(ca: CertificateAuthority, operation: str, arguments: list[str]) -> list[x509.Certificate]:
    """Do one operation, and give the certificates that it hands out."""
    if operation in ("sign", "sign_many"):
        requests = [x509.load_pem_x509_csr(Path(path).read_bytes()) for path in arguments]
        return [ca.sign(requests[0])] if operation == "sign" else ca.sign_many(requests)
    if operation == "revoke":
        ca.revoke(int(arguments[0]), "keyCompromise")
    elif operation == "update_crl":
        ca.update_crl()
    elif operation == "create_intermediate":
        folder, below = ca.folder / "intermediateCertificate", DistinguishedName(common_name="Below")
        ca.create_intermediate(folder, below, os.environ["PASS"], key_type=KeyType.P256)
    elif operation == "escape":  # the control: a file written past the functions of os
        (ca.folder / "escaped.txt").write_text("past os")
    else:
        raise ValueError(operation)
    return []


def act(folder: Path, mode: str, point: int, operation: str, arguments: list[str]) -> None:
    """Do one operation, be killed in it, and say what was handed out only when it has returned."""
    ca = CertificateAuthority.open(folder, os.environ["PASS"])
    killer = Killer(mode, point)
    killer.arm()
    certificates = perform(ca, operation, arguments)
    killer.disarm()
    hand_out(certificates)
    say(calls=killer.calls, escaped=killer.escaped, audited=killer.audited)


def sign_many_times(folder: Path, name: str, count: int) -> None:
    """Sign ``count`` requests one by one, from the moment on at which a line comes in."""
    ca = CertificateAuthority.open(folder, os.environ["PASS"])
    key = ec.generate_private_key(ec.SECP256R1())
    subjects = [DistinguishedName(country="DE", common_name=f"{name}-{number}").to_x509() for number in range(count)]
    requests = [x509.CertificateSigningRequestBuilder().subject_name(each).sign(key, SHA256()) for each in subjects]
    say(state="ready")
    sys.stdin.readline()
    say(state="started")
    for request in requests:
        hand_out([ca.sign(request)])


def hold(folder: Path) -> None:
    """Take the lock, and keep it until this process ends."""
    ca = CertificateAuthority.open(folder, os.environ["PASS"])
    with ca.database.locked():
        say(state="held")
        sys.stdin.readline()


if __name__ == "__main__":
    command, where, *rest = sys.argv[1:]
    if command == "act":
        act(Path(where), rest[0], int(rest[1]), rest[2], rest[3:])
    elif command == "sign-many-times":
        sign_many_times(Path(where), rest[0], int(rest[1]))
    else:
        hold(Path(where))
