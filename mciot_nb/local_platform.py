"""Start the local platform from a notebook or a script, find the one that runs, and read what it has kept.

Nothing heavy is imported here: a notebook imports this module long before it needs a platform.
"""

import json
import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial, partialmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import psutil
from cryptography import x509
from filelock import FileLock, Timeout

from mciot_nb.errors import OnboardingError, fault
from mciot_nb.pki.admission import Uploaded
from mciot_nb.pki.chain import PROFILES, profile_of
from mciot_nb.secret import Secret

if TYPE_CHECKING:
    import pandas as pd

    from mciot_nb.connect.tenant import Tenant

#: The folder of ``run.py class``, and how the class's progress is asked for.
CLASS, PROGRESS = (Path(__file__).parents[1] / name for name in ("class", "data/class_progress.sql"))
START_SECONDS, STOP_SECONDS = 60.0, 10.0
_GROUP = "CREATE_NEW_PROCESS_GROUP"  # which Windows has


@dataclass(frozen=True)
class LocalPlatform:
    """A local platform that runs. ``folder`` holds all that it keeps, ``workspace/platform``.

    Example: ``platform = LocalPlatform.start("workspace")``, then ``platform.tenant`` or ``platform.log()``.
    """

    folder: Path
    host: str
    mqtt: tuple[str, int]
    https: str
    server_certificate: Path
    tenant_ids: tuple[str, ...]
    profile: str
    pid: int

    @classmethod
    def start(cls, workspace: Any, profile: str = "guide-2021", *, tenants: int = 1, host: str = "127.0.0.1") -> Self:
        """Start the platform of ``workspace``, a folder or a `Workspace`, or find the one that runs.

        For a class: ``tenants`` with a trust of their own, and as ``host`` the name by which the others reach this
        machine, which then listens on every address. It is a process of its own, which ends with the Lab, or with the
        script that started it. Raises: OnboardingError: if it can't start, or runs otherwise than you ask for.
        """
        profile_of(profile)
        folder = _folder(workspace)
        platform = cls.running(workspace) or cls._launch(folder, profile, tenants, host)
        number, where = len(platform.tenant_ids), folder.parent
        if number < tenants or host not in ("127.0.0.1", platform.host):
            raise fault("OTHER_SETTINGS", folder=where, number=number, host=platform.host)
        if platform.profile != profile:
            raise fault("OTHER_PROFILE", folder=where, other=platform.profile, profile=profile)
        return platform

    @classmethod
    def running(cls, workspace: Any) -> Self | None:
        """Return the platform of ``workspace`` if it runs, else None."""
        folder = _folder(workspace)
        try:
            known = json.loads((folder / "running.json").read_bytes())
            address = known["host"], tuple(known["mqtt"]), known["https"], Path(known["server_certificate"])
            tenant_ids = tuple(tenant["id"] for tenant in known["tenants"])
            platform = cls(folder, *address, tenant_ids, known["profile"], known["pid"])
            if not is_alive(psutil.Process(platform.pid)):  # first, to touch no lock that a starting one needs
                return None
            # Times of processes move with the clock, and numbers come again: a platform that runs holds its lock.
            with FileLock(folder / "lock", timeout=0, mode=0o600):
                return None
        except Timeout:
            return platform
        except (FileNotFoundError, ValueError, KeyError, TypeError, psutil.NoSuchProcess):
            return None  # there is none, or another version wrote it

    @classmethod
    def find(cls, workspace: Any = CLASS) -> Self:
        """Return the platform of ``workspace``, by default the class's. Raises: OnboardingError: NOT_RUNNING."""
        if platform := cls.running(workspace):
            return platform
        raise fault("NOT_RUNNING", folder=_folder(workspace).parent)

    def restart(self, profile: str) -> Self:
        """Stop the platform and start it with another profile, at its ports if they are free: clients stay right."""
        (LocalPlatform.running(self.folder.parent) or self).stop()  # it may have been restarted since
        ports = ["--mqtt-port", str(self.mqtt[1]), "--https-port", str(urlsplit(self.https).port)]
        return self._launch(self.folder, profile, len(self.tenant_ids), self.host, *ports)

    @classmethod
    def _launch(cls, folder: Path, profile: str, tenants: int, host: str, *ports: str) -> Self:
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "mciot_platform", "--workspace", str(folder.parent), "--profile", profile]
        kernel = sys.modules.get("ipykernel.kernelapp")  # it ends with what started that (the Lab), or with this script
        owner = _starter(psutil.Process()) if kernel and kernel.IPKernelApp.initialized() else os.getpid()
        command += ["--tenants", str(tenants), "--host", host, *ports, "--until-pid", str(owner)]
        messages = folder / "messages.txt"  # a file: a pipe that is never read fills up
        with messages.open("ab") as out:
            start = out.tell()
            # in a group of its own, or the notebook's interrupt would end it
            apart: Any = {"start_new_session": os.name != "nt", "creationflags": getattr(subprocess, _GROUP, 0)}
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, **apart)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            failed = process.poll() not in (None, 0)  # 0: another start was faster, and its platform runs
            if platform := cls.running(folder.parent):
                return platform
            if failed:
                break
            time.sleep(0.05)
        said = messages.read_bytes()[start:].decode(errors="replace").strip().splitlines() or ["it gave no reason."]
        raise fault("PLATFORM_DID_NOT_START", folder=folder.parent, said=said[-1])

    @property
    def tenant(self) -> "Tenant":
        """The first tenant, to be used like any other."""
        return self.tenants[0]

    @property
    def tenants(self) -> "list[Tenant]":
        """All tenants of the platform."""
        from mciot_nb.connect.tenant import Tenant

        known = json.loads((self.folder / "credentials.json").read_bytes())
        shared = self.mqtt, PROFILES[self.profile], str(self.server_certificate)
        logins = ((tenant, known[tenant]["user"], Secret(known[tenant]["password"])) for tenant in self.tenant_ids)
        for tenant in (tenants := [Tenant(self.https, *login, *shared, is_local=True) for login in logins]):
            object.__setattr__(tenant, "locate", partial(self._find, tenant.tenant_id))
            object.__setattr__(tenant, "unlisted", partial(self._unlisted, tenant.tenant_id))
        return tenants

    def _find(self, tenant_id: str) -> "Tenant":
        """Return a tenant as the platform that runs now has it, at its ports and with its password."""
        running = LocalPlatform.running(self.folder.parent)
        if running and tenant_id in running.tenant_ids:
            return running.tenants[running.tenant_ids.index(tenant_id)]
        why = f"has no tenant {tenant_id}" if running else "is not running: workspace.tenant() starts it"
        raise OnboardingError(f"The local platform of {self.folder.parent} {why}.", "NOT_REACHED")

    def _unlisted(self, tenant_id: str) -> list[Uploaded]:
        """Return the certificates that a tenant has deleted, and those of other tenants."""
        query = "der, tenant, status, auto_registration, deleted FROM trusted_certificates WHERE tenant <> ? OR deleted"
        with closing(sqlite3.connect(self.folder / "platform.sqlite")) as database:
            rows = database.execute(f"SELECT {query}", (tenant_id,))
            return [Uploaded(x509.load_der_x509_certificate(der), *values) for der, *values in rows]

    def stop(self) -> None:
        """End the platform and wait until it has ended. What was uploaded is there again at the next start."""
        if LocalPlatform.running(self.folder.parent) != self:
            return
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            process.terminate()
            deadline = time.monotonic() + STOP_SECONDS
            while is_alive(process):  # not Process.wait: a dead orphan may not have been reaped
                if time.monotonic() > deadline:
                    process.kill()
                time.sleep(0.02)

    def log(self) -> "pd.DataFrame":
        """Return every connection attempt: its verdict as a code and in a sentence, and the ``chain`` it presented.

        Where the handshake failed, the chain ends with the certificate that OpenSSL refused.
        """
        frame = self._table("log", "time", "ended")
        frame["chain"] = frame["chain"].map(json.loads)
        return frame

    def progress(self) -> "pd.DataFrame":
        """Return each tenant's last step, who is connected now, and its last refusal; refusals of no tenant below."""
        return self._read(PROGRESS.read_text("utf-8"), "refused", tenants=json.dumps(self.tenant_ids))

    def reset(self, tenant_id: str) -> None:
        """Delete what a tenant trusts, and its devices with all that they sent; its logins stay."""
        tenant = self.tenants[self.tenant_ids.index(tenant_id)]
        for trusted in tenant.trusted_certificates.list():
            tenant.trusted_certificates.delete(trusted)
        for number in self.devices().query("tenant == @tenant_id").index:
            tenant.request("DELETE", f"/inventory/managedObjects/{number}?withDeviceUser=true", bool)
        tenant.trusted_certificates.check_revocations(False)  # a new CA counts its serial numbers from 1000 too

    def _table(self, name: str, *times: str) -> "pd.DataFrame":
        return self._read(f"SELECT * FROM {name} ORDER BY id", *times).set_index("id")

    def _read(self, query: str, *times: str, **values: str) -> "pd.DataFrame":
        import pandas as pd

        address = (self.folder / "platform.sqlite").resolve().as_uri() + "?mode=ro"
        with closing(sqlite3.connect(address, uri=True)) as database:
            frame = pd.read_sql_query(query, database, params=values)
        for column in times:
            frame[column] = pd.to_datetime(frame[column], utc=True, format="ISO8601")
        return frame

    @staticmethod
    def kept(workspace: Any, what: str, value: str) -> list[Any]:
        """Return one column of what the platform of ``workspace`` keeps, whether it runs or not; empty without one.

        Raises: OnboardingError: if it can't be read.
        """
        if not (file := _folder(workspace) / "platform.sqlite").exists():
            return []
        try:
            with closing(sqlite3.connect(file.as_uri() + "?mode=ro", 1.0, uri=True)) as database:
                return [row[0] for row in database.execute(f"SELECT {what} = ?", (value,))]
        except sqlite3.Error as error:
            is_locked = getattr(error, "sqlite_errorname", "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))
            what = "locked: close the other program that has it open" if is_locked else "unreadable, and may be damaged"
            raise OnboardingError(f"The platform's file {file} is {what}.", "BAD_FILE") from None

    #: The devices, ``created`` when their message 100 came; what they sent and were asked to do, and what was signed.
    devices = partialmethod(_table, "devices", "registered", "created")
    measurements = partialmethod(_table, "measurements", "time", "received")
    events = partialmethod(_table, "events", "time", "received")
    alarms = partialmethod(_table, "alarms", "time", "received")
    issued = partialmethod(_table, "issued", "time")
    operations = partialmethod(_table, "operations", "time")


def _folder(workspace: Any) -> Path:
    return Path(getattr(workspace, "folder", workspace)).resolve() / "platform"


def is_alive(process: psutil.Process) -> bool:
    """Whether this very process still runs: no zombie, and no other one that was given its number."""
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _starter(process: psutil.Process) -> int:
    """Return what started ``process``, past the stub that runs the real python.exe in a venv on Windows."""
    with suppress(psutil.Error):
        parent = process.parent()
        if parent and parent.cmdline() == process.cmdline():
            parent = parent.parent()
        if parent:
            return parent.pid
    return process.ppid()
