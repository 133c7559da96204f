"""Look through a finished book for what must not leave the machine: secrets, private keys, and where it was built."""

import base64
import getpass
import html
import json
import os
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from mciot_nb.workspace import Workspace

#: A key that opens without a passphrase; of an encrypted one, a notebook shows the first line on purpose.
PLAIN_KEY = re.compile(r"-----BEGIN (?:(?:RSA|EC|DSA) )?PRIVATE KEY-----[\s\\nr]*[A-Za-z0-9+/]{16}")
TOKEN = re.compile(r"eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]*")
#: What this is called is looked for only in what one reads: it may be a word that HTML or a script needs.
MACHINE = "the machine's name"
INLINE = re.compile(r"</?(?:a|b|code|em|i|small|span|strong|tspan|wbr)\b[^<>]*>")
DATA = re.compile(r"data:[\w/+.-]+;base64,([A-Za-z0-9+/=]+)")


def secrets(workspace: Workspace) -> Iterator[tuple[str, str]]:
    """Return each secret that the run had, after what it is."""
    for name, kind in (("PASSPHRASE", "passphrase"), ("PASSWORD", "tenant's password"), ("TOKEN", "tenant's token")):
        yield f"the {kind}", os.environ.get(f"MCIOT_{name}", "")
    known = [(os.environ.get("MCIOT_TENANT", ""), os.environ.get("MCIOT_USER", ""), os.environ.get("MCIOT_PASSWORD"))]
    if (path := workspace.folder / "passphrase").exists():
        yield "the practice passphrase", path.read_text(encoding="utf-8").strip()
    if (path := workspace.folder / "platform" / "credentials.json").exists():
        entries = json.loads(path.read_text(encoding="utf-8"))
        known += [(tenant, entry["user"], entry["password"]) for tenant, entry in entries.items()]
    for tenant, user, password in known:
        yield "a password of the platform", password or ""
        for login in (f"{tenant}/{user}:{password}", f"{user}:{password}"):
            yield "a login of the platform", base64.b64encode(login.encode()).decode() if password else ""
    for path in workspace.folder.rglob("*.pem"):
        for key in re.findall("PRIVATE KEY-----\n(.*?)\n--", path.read_text("utf-8", "replace"), re.DOTALL):
            yield from ((f"a line of the key in {path.name}", line) for line in key.splitlines()[1:-1:8])


def places(workspace: Workspace, *folders: Path) -> Iterator[tuple[str, str]]:
    """Return, as patterns, what names this machine: folders, its user, its name."""
    own = [*folders, workspace.folder, Path.home(), Path(__file__).parents[1], Path(sys.prefix), Path(sys.base_prefix)]
    for folder in {form for path in own for form in (path, path.resolve()) if form not in map(Path, ("/usr", "/"))}:
        for written in {str(folder), folder.as_posix(), str(folder).replace("\\", "\\\\"), quote(folder.as_posix())}:
            yield f"the folder {folder}", rf"(?<![\w/.-]){re.escape(written)}(?![\w-])|file://{re.escape(written)}"
    user, name = re.escape(getpass.getuser()), re.escape(socket.gethostname())
    yield "the user's name", rf"\b{user}@|[/\\](?:home|Users)[/\\]{user}\b"
    yield MACHINE, rf"(?<![\w.-]){name}(?![\w-])"


def texts(path: Path) -> Iterator[str]:
    """Return what a file says: as it is, as one reads it, and what is written into it in base64."""
    raw = path.read_text(encoding="utf-8", errors="replace")
    yield raw
    if path.suffix in (".html", ".svg"):
        yield html.unescape(re.sub(r"<[^<>]*>", " ", INLINE.sub("", raw)))
    for found in DATA.findall(raw):
        yield base64.b64decode(found + "==").decode("utf-8", errors="replace")


def findings(book: Path, workspace: Workspace, committed: str, *folders: Path) -> Iterator[str]:
    """Return a sentence for each page of ``book`` and each kind of thing that it must not hold.

    What stands in ``committed``, the project's own texts, says nothing of this machine: a machine may be named main.
    """
    words = [(kind, word) for kind, word in secrets(workspace) if word]
    telling = [(kind, text) for kind, text in places(workspace, *folders) if not re.search(text, committed)]
    patterns = [("a private key without a passphrase", PLAIN_KEY), ("a token", TOKEN)]
    patterns += [(kind, re.compile(text)) for kind, text in telling]
    for path in sorted(path for path in book.rglob("*") if path.is_file()):
        said = list(texts(path))
        found = [kind for kind, word in words if any(word in text for text in said)]
        found += [kind for kind, one in patterns if any(map(one.search, said[kind == MACHINE :]))]
        name = path.relative_to(book).as_posix()
        yield from (f"{name} holds {kind}" for kind in dict.fromkeys(found))
