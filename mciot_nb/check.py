"""Look at the machine, the day before a class (`run.py check`) and at the top of the tutorial."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from mciot_nb.errors import OnboardingError
from mciot_nb.local_platform import LocalPlatform
from mciot_nb.workspace import Workspace

#: What a workspace with all its keys, stores and platform takes, with room to spare.
DISK_SPACE = 100 * 2**20
#: Windows refuses paths over 260 characters; the longest of ours below the workspace has some 70.
LONGEST_FOLDER = 180


def look_around(workspace: Workspace) -> list[tuple[str, str, str]]:
    """Check what the tutorial needs, and what only its folded commands need: name, verdict, and what to do about it.

    Example: ``card("This machine", look_around(workspace))``.
    """
    folder, cloud = str(workspace.folder), "This folder is synchronised to a cloud, keys included"
    enough, short = shutil.disk_usage(folder).free > DISK_SPACE, len(folder) <= LONGEST_FOLDER
    synced = re.search(r"OneDrive|Dropbox|Google Drive", folder)
    return [
        _checked("Disk space", enough, "Free 100 MB on the workspace's disk."),
        _checked("Length of the workspace's path", short, "Choose a folder with a shorter path."),
        _checked("Workspace on this machine alone", not synced, f"{cloud}: set MCIOT_WORKSPACE to another one."),
        _checked("openssl (optional)", _first_line("openssl", "version"), "Only the folded openssl commands need it."),
        _checked("keytool (optional)", _first_line("keytool", "-help"), "Only the folded keytool commands need it."),
    ]


def _checked(name: str, good: object, hint: str) -> tuple[str, str, str]:
    return (name, "✓ good", "") if good else (name, "✗ look here", hint)


def _first_line(program: str, option: str) -> str:
    """Run a program, because macOS has a stub in place of Java; return its first line, or nothing if it fails."""
    path = shutil.which(program)
    if path is None:
        return ""
    done = subprocess.run([path, option], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
    return (done.stdout or done.stderr).partition("\n")[0] if done.returncode == 0 else ""


def main() -> int:
    """Print all findings; returns 1 if something that the tutorial needs is missing."""
    workspace, problem = Workspace(), ""
    with tempfile.TemporaryDirectory(prefix="mciot-") as folder:
        try:
            LocalPlatform.start(Path(folder)).stop()
        except OnboardingError as error:
            problem = str(error)
    findings = [*look_around(workspace), _checked("Local platform", not problem, problem)]
    for name, verdict, hint in findings:
        print(f"{verdict:<12} {name}{': ' if hint else ''}{hint}")
    for program, option in (("openssl", "version"), ("java", "-version")):
        print(f"             {program}: {_first_line(program, option) or 'none'}")
    print(f"             workspace: {workspace.folder}, {os.cpu_count()} processors")
    return int(any(verdict.startswith("✗") and "optional" not in name for name, verdict, _ in findings))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OnboardingError as problem:
        sys.exit(str(problem))
