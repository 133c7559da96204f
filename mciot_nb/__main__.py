"""``python -m mciot_nb diagnose`` and ``explain``: the diagnosis for a terminal and for CI, without a notebook.

Exit status: 0 nothing would be refused, 1 something would, 2 it could not be looked at.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from getpass import getpass
from pathlib import Path

from mciot_nb.connect.diagnosis import diagnose_device
from mciot_nb.connect.tenant import Tenant, read_settings, real_tenant
from mciot_nb.errors import LINE_BREAKS, Diagnosis, Finding, OnboardingError
from mciot_nb.pki.admission import subject_and_serial
from mciot_nb.pki.chain import PROFILES, fingerprint, read_certificates
from mciot_nb.secret import Secret

SIGNS = {"refused": "✗", "strict": "!", "warning": "!"}
NO_TENANT = "--url names a tenant, so set MCIOT_USER and MCIOT_PASSWORD, or MCIOT_TOKEN, in the environment."


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mciot_nb", epilog=__doc__.splitlines()[2])
    commands = parser.add_subparsers(required=True, metavar="diagnose")
    diagnose = commands.add_parser("diagnose", help="say before a device connects whether it will be let in")
    diagnose.set_defaults(run=_diagnose)
    diagnose.add_argument("source", nargs="*", type=Path, help="a folder like deviceCertificates, PEM files, keystores")
    diagnose.add_argument("--keystore", type=Path, help="the device's PKCS12 or JKS; MCIOT_PASSPHRASE opens it")
    diagnose.add_argument("--client-id", default="", help="what the device connects with; else its common name")
    diagnose.add_argument("--anchor", type=Path, action="append", default=[], help="an uploaded CA certificate")
    diagnose.add_argument("--profile", choices=PROFILES, help="the rules to judge by; current if not given")
    diagnose.add_argument("--url", default=os.environ.get("MCIOT_URL"), help="a tenant to ask what it trusts")
    diagnose.add_argument(
        "--tenant", default=os.environ.get("MCIOT_TENANT", ""), help="the tenant's ID, such as t12345"
    )
    diagnose.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _diagnose(options: argparse.Namespace) -> int:
    source = [*options.source, *([options.keystore] if options.keystore else [])]
    if not source:
        raise OnboardingError("Name a folder like deviceCertificates, PEM files, or a keystore.", "NO_FILE")
    anchors = [one for path in options.anchor for one in read_certificates(path)]
    values = {"client_id": options.client_id, "anchors": anchors, "profile": options.profile}
    tenant, passphrase = _tenant(options), Secret(os.environ.get("MCIOT_PASSPHRASE", ""))
    found = diagnose_device(source, tenant, passphrase=passphrase, **values)
    if _is_closed(found) and sys.stdin.isatty():
        passphrase = Secret(getpass("Passphrase of key and keystore: "))
        found = diagnose_device(source, tenant, passphrase=passphrase, **values)
    print(json.dumps(_as_json(found), indent=1) if options.json else _as_text(found))
    return 2 if _is_closed(found) else int(not found.ok)


def _is_closed(found: Diagnosis) -> bool:
    return any(one.code == "NEED_PASSPHRASE" for one in found.findings)


def _tenant(options: argparse.Namespace) -> Tenant | None:
    if not options.url:
        return None
    os.environ |= {"MCIOT_URL": options.url, "MCIOT_TENANT": options.tenant}
    try:
        return real_tenant(read_settings(Path()))
    except OnboardingError as error:
        raise OnboardingError(NO_TENANT if error.code == "NEED_PASSWORD" else str(error), error.code) from None


def _as_json(found: Diagnosis) -> dict[str, object]:
    return {"ok": found.ok, "code": found.code, "findings": [_details(one) for one in found.findings]}


def _details(one: Finding) -> dict[str, object]:
    names = ("code", "severity", "sentence", "why", "fix", "command")
    about = one.certificate and {
        "subject": subject_and_serial(one.certificate),
        "sha256": fingerprint(one.certificate, "sha256"),
    }
    return {name: getattr(one, name) for name in names} | {"certificate": about}


def _as_text(found: Diagnosis) -> str:
    lines = [f"{'✓' if found.ok else '✗'} {found.verdict}"]
    for one in found.findings:
        lines += ["", f"{SIGNS[one.severity]} {one.code} ({one.severity}): {one.sentence}"]
        about = subject_and_serial(one.certificate) if one.certificate else ""
        rows = {"about": about, "why": one.why, "look": one.command}
        lines += [f"  {name}: {text}" for name, text in rows.items() if text]
    return "\n".join(LINE_BREAKS.sub("\N{REPLACEMENT CHARACTER}", line) for line in lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, and return its exit status."""
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except OnboardingError as error:
        print(error.with_code, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
