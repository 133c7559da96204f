"""Where the platform of a workspace answers: its line of JSON, and the file in which other processes find it."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from mciot_nb.pki.files import write_whole
from mciot_platform.identity import Credentials

EVERY_ADDRESS = ("0.0.0.0", "::")
FILE = "running.json"
#: What the line of JSON says. The file says more: the host, as it was asked for, and the profile.
LINE_KEYS = ("mqtt", "https", "server_certificate", "tenants", "pid")


def write(
    folder: Path, host: str, mqtt_port: int, https_port: int, profile: str, logins: Credentials
) -> dict[str, Any]:
    """Write the file, and return what it says: where this process answers, in JSON's types."""
    name = "localhost" if host in EVERY_ADDRESS else host
    running = {
        "host": host,
        "mqtt": [name, mqtt_port],
        "https": f"https://{f'[{name}]' if ':' in name else name}:{https_port}",
        "server_certificate": str(folder / "serverCert.pem"),
        "tenants": [{"id": tenant, "user": login["user"]} for tenant, login in logins.items()],
        "pid": os.getpid(),
        "profile": profile,
    }
    write_whole(folder / FILE, json.dumps(running).encode(), replace=True)
    return running


def read(folder: Path) -> dict[str, Any] | None:
    """Return what the file of the process that holds the folder's lock says, None as long as it says nothing."""
    try:
        running: dict[str, Any] = json.loads((folder / FILE).read_bytes())
        known = is_alive(psutil.Process(running["pid"])) and {*LINE_KEYS, "host", "profile"} == running.keys()
    except (FileNotFoundError, ValueError, KeyError, TypeError, psutil.NoSuchProcess):
        return None  # there is none, or another version wrote it
    return running if known else None


def line(running: Mapping[str, Any]) -> str:
    """Return the line of JSON that the platform prints once it answers."""
    return json.dumps({key: running[key] for key in LINE_KEYS})


def is_alive(process: psutil.Process) -> bool:
    """Whether this very process still runs: no zombie, and no other one that was given its number."""
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
