"""``python -m mciot_nb``: ``diagnose`` and ``explain`` for a terminal and for CI, and ``fleet``, without a notebook.

Exit status: 0 nothing would be refused or has failed, 1 something, 2 it could not be looked at, or begun.
"""

import argparse
import json
import os
import sys
from contextlib import suppress
from getpass import getpass
from pathlib import Path
from typing import Any

from mciot_nb.connect.diagnosis import diagnose_device
from mciot_nb.connect.explain import explain
from mciot_nb.connect.tenant import read_settings, real_tenant
from mciot_nb.errors import LINE_BREAKS, Diagnosis, Finding, OnboardingError, fault
from mciot_nb.fleet import make_fleet
from mciot_nb.pki.admission import subject_and_serial
from mciot_nb.pki.authority import CertificateAuthority
from mciot_nb.pki.chain import PROFILES, fingerprint, read_certificates
from mciot_nb.pki.keys import KeyType
from mciot_nb.secret import Secret

_KEYS = {kind.name.replace("_", "").lower(): kind for kind in KeyType}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mciot_nb", epilog=(__doc__ or "").splitlines()[2])
    commands = parser.add_subparsers(dest="command", required=True)
    diagnose = commands.add_parser("diagnose", help="say before a device connects whether it will be let in")
    add = diagnose.add_argument
    add("source", nargs="*", type=Path, help="a folder like deviceCertificates, PEM files, or keystores")
    add("--keystore", type=Path, help="the device's PKCS12 or JKS; MCIOT_PASSPHRASE, or what you type, opens it")
    add("--client-id", default="", help="what the device connects with; the certificate's common name if not given")
    add("--anchor", type=Path, action="append", default=[], help="a CA certificate that is taken to be uploaded")
    add("--profile", choices=PROFILES, help="the rules to judge by; current if not given")
    add("--url", default=os.environ.get("MCIOT_URL"), help="a tenant to ask what it trusts; MCIOT_USER … log in")
    add("--tenant", default=os.environ.get("MCIOT_TENANT", ""), help="the tenant's ID, such as t12345")
    explains = commands.add_parser("explain", help="say what an error, or a line of a client's log, can mean")
    explains.add_argument("text", nargs="*", help="what the client said; standard input if not given")
    fleet = commands.add_parser("fleet", help="make keys, certificates, chains and keystores for a table of devices")
    add = fleet.add_argument
    add("devices", type=Path, help="a CSV file with a column common_name, and any others")
    add("--ca", type=Path, required=True, help="the CA's folder; MCIOT_PASSPHRASE, or what you type, opens its key")
    own = "and protects theirs, unless MCIOT_DEVICE_PASSPHRASE is set"
    add("--out", type=Path, required=True, help=f"where each device gets a folder; the same passphrase {own}")
    add("--keystores", choices=["pkcs12", "jks", "jks,pkcs12", "pkcs12,jks"], default="pkcs12")
    add("--days", type=int, help="365 if not given, or what the CA has left")
    add("--key", choices=_KEYS, default="p256")
    for command in (diagnose, explains, fleet):
        command.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _diagnose(options: argparse.Namespace) -> Diagnosis:
    source = [*options.source, *filter(None, [options.keystore])]
    if not source:
        raise OnboardingError("Name a folder like deviceCertificates, PEM files, or a keystore.", "NO_FILE")
    anchors = [one for path in options.anchor for one in read_certificates(path)]
    values: Any = {"client_id": options.client_id, "anchors": anchors, "profile": options.profile}
    if options.url:
        os.environ |= {"MCIOT_URL": options.url, "MCIOT_TENANT": options.tenant}
        if not os.environ.keys() & {"MCIOT_TOKEN", "MCIOT_PASSWORD"}:
            raise fault("NEED_PASSWORD.command")
        values["tenant"] = real_tenant(read_settings(Path()))
    found = diagnose_device(source, passphrase=Secret(os.environ.get("MCIOT_PASSPHRASE", "")), **values)
    if "NEED_PASSPHRASE" in [one.code for one in found.findings] and sys.stdin and sys.stdin.isatty():
        with suppress(EOFError):
            found = diagnose_device(source, passphrase=Secret(getpass("Passphrase of key and keystore: ")), **values)
    return found


def _fleet(options: argparse.Namespace) -> int:
    """Make the fleet, print what came of it, and return the exit status."""
    typed = os.environ.get("MCIOT_PASSPHRASE", "")
    if not typed and sys.stdin and sys.stdin.isatty():
        with suppress(EOFError):
            typed = getpass("Passphrase of the CA's key: ")
    if not typed:
        raise fault("NEED_PASSPHRASE.terminal")
    ca, own = CertificateAuthority.open(options.ca, typed), os.environ.get("MCIOT_DEVICE_PASSPHRASE", typed)
    how = {"days": options.days, "key_type": _KEYS[options.key], "stores": options.keystores.split(",")}
    rows = make_fleet(options.devices, ca, options.out, own, **how).to_dict("records")
    bad = [row for row in rows if row["state"] not in ("made", "kept")]
    counts = {state: sum(row["state"] == state for row in rows) for state in ("made", "kept", "failed")}
    counts["not made"] = len(rows) - sum(counts.values())
    if options.json:
        problems = [{name: row[name] for name in ("line", "common_name", "problem")} for row in bad]
        print(json.dumps({**counts, "folder": str(options.out), "problems": problems}, indent=1))
    else:
        for row in rows:
            said = row["problem"] or f"{row['state']}, serial {row['serial']}"
            line = f"{'✗' if row in bad else '✓'} line {row['line']}: {row['common_name']}: {said}"
            print(LINE_BREAKS.sub("\N{REPLACEMENT CHARACTER}", line))
        print(f"{options.out}: {', '.join(f'{number} {state}' for state, number in counts.items())}.")
    return int(bool(bad))


def _as_dict(one: Finding) -> dict[str, object]:
    about = one.certificate
    named = {"subject": subject_and_serial(about), "sha256": fingerprint(about, "sha256")} if about else None
    names = ("code", "severity", "sentence", "why", "fix", "command")
    return {name: getattr(one, name) for name in names} | {"certificate": named}


def _as_text(found: Diagnosis) -> str:
    lines = [f"{'✓' if found.ok else '✗'} {found.verdict}"]
    for one in found.findings:
        lines += ["", f"{'✗' if one in found.refusals else '!'} {one.code} ({one.severity}): {one.sentence}"]
        lines += [f"  {name}: {text}" for name, text in {"why": one.why, "look": one.command}.items() if text]
    return "\n".join(LINE_BREAKS.sub("\N{REPLACEMENT CHARACTER}", line) for line in lines)


def _standard_input() -> bytes:
    return sys.stdin.buffer.read().replace(b"\0", b"") if sys.stdin else b""  # in UTF-16, Windows writes zeros between


def _run(options: argparse.Namespace) -> int:
    is_log, status = options.command == "explain", 0
    try:
        if options.command == "fleet":
            return _fleet(options)
        found = explain(" ".join(options.text) or _standard_input()) if is_log else _diagnose(options)
    except OnboardingError as error:
        print(error.with_code, file=sys.stderr)
        if not options.json:
            return 2
        found, status = Diagnosis((Finding(error.code, str(error)),)), 2
    whole = {"ok": found.ok, "code": found.code, "findings": [*map(_as_dict, found.findings)]}
    print(json.dumps(whole, indent=1) if options.json else _as_text(found), flush=True)
    unseen = {"UNKNOWN_MESSAGE"} if is_log else {"NEED_PASSPHRASE", "DISK"}
    return status or (2 if unseen & {one.code for one in found.findings} else int(not found.ok))


def main() -> int:
    """Run a command, and return its exit status."""
    if sys.stdout:
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        return _run(_parser().parse_args())
    except (KeyboardInterrupt, OSError) as problem:  # of a pipe whose reader has gone, or a full disk
        says = "Interrupted" if isinstance(problem, KeyboardInterrupt) else f"This could not be printed: {problem}"
        print(f"\n{says}.", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what Python still holds for it, it writes in the end
        return 2


if __name__ == "__main__":
    sys.exit(main())
