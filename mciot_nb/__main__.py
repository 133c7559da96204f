"""``python -m mciot_nb diagnose`` and ``explain``: the diagnosis for a terminal and for CI, without a notebook.

Exit status: 0 nothing would be refused, 1 something would, 2 it could not be looked at.
"""

import argparse
import json
import os
import sys
from getpass import getpass
from pathlib import Path

from mciot_nb.connect.diagnosis import diagnose_device
from mciot_nb.connect.explain import explain
from mciot_nb.connect.tenant import Tenant, read_settings, real_tenant
from mciot_nb.errors import LINE_BREAKS, Diagnosis, Finding, OnboardingError
from mciot_nb.pki.admission import subject_and_serial
from mciot_nb.pki.chain import PROFILES, fingerprint, read_certificates
from mciot_nb.secret import Secret


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
    for command in (diagnose, explains):
        command.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _diagnose(options: argparse.Namespace) -> Diagnosis:
    source = [*options.source, *filter(None, [options.keystore])]
    if not source:
        raise OnboardingError("Name a folder like deviceCertificates, PEM files, or a keystore.", "NO_FILE")
    anchors = [one for path in options.anchor for one in read_certificates(path)]
    values = {"client_id": options.client_id, "anchors": anchors, "profile": options.profile}
    tenant, passphrase = _tenant(options), Secret(os.environ.get("MCIOT_PASSPHRASE", ""))
    found = diagnose_device(source, tenant, passphrase=passphrase, **values)
    if "NEED_PASSPHRASE" in [one.code for one in found.findings] and sys.stdin.isatty():
        typed = Secret(getpass("Passphrase of key and keystore: "))
        found = diagnose_device(source, tenant, passphrase=typed, **values)
    return found


def _tenant(options: argparse.Namespace) -> Tenant | None:
    if not options.url:
        return None
    os.environ |= {"MCIOT_URL": options.url, "MCIOT_TENANT": options.tenant}
    if not os.environ.keys() & {"MCIOT_TOKEN", "MCIOT_PASSWORD"}:
        raise OnboardingError("Set MCIOT_USER and MCIOT_PASSWORD, or MCIOT_TOKEN, to ask a tenant.", "NEED_PASSWORD")
    return real_tenant(read_settings(Path()))


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


def main() -> int:
    """Run a command, and return its exit status."""
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    options = _parser().parse_args()
    try:
        is_log = options.command == "explain"
        found = explain(" ".join(options.text) or sys.stdin.read()) if is_log else _diagnose(options)
    except OnboardingError as error:
        print(error.with_code, file=sys.stderr)
        return 2
    whole = {"ok": found.ok, "code": found.code, "findings": [*map(_as_dict, found.findings)]}
    print(json.dumps(whole, indent=1) if options.json else _as_text(found))
    codes = {one.code for one in found.findings}
    return 2 if ("UNKNOWN_MESSAGE" if is_log else "NEED_PASSPHRASE") in codes else int(not found.ok)


if __name__ == "__main__":
    sys.exit(main())
