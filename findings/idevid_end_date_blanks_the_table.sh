#!/usr/bin/env bash
# One device certificate that never expires makes a whole pandas table unreadable, in Europe and Asia only.
#
# What: IEEE 802.1AR gives a device's birth certificate the end 99991231235959Z, which means "no end". cryptography
# reads it, pandas stores it, sorts it, subtracts it, and shows it in UTC and in New York's time. Converted to Berlin's
# or Tokyo's time the column is accepted too and compares right, but it lies past the last year that Python's datetime
# has: showing the table, its HTML and its CSV raise, and the other devices' rows are gone with it. It is an
# OverflowError for Berlin and a NotImplementedError for Tokyo, where the year reads 10000. Python's own astimezone
# raises at once, in the same places of the world. keytool in Tokyo prints the year 10000.
# Seen with: cryptography 50.0.2, pandas 3.1.1, keytool of Java 17.
# Why it matters: a list of certificates and their ends in local time is what every onboarding notebook and every
# expiry report shows. It works on a server that runs in UTC, in tests made in America, and with all certificates of
# one's own; it ends when the first device with a manufacturer's certificate is added.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check cryptography==50.0.2 pandas==3.1.1 tzdata==2025.2 2>/dev/null
java -version 2>&1 | sed -n 1p

cat > look.py <<'PY'
import datetime
import subprocess
from importlib.metadata import version
from zoneinfo import ZoneInfo

import pandas as pd
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

print("cryptography", version("cryptography"), "and pandas", version("pandas"))
now = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
never = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.timezone.utc)


def certificate(name, end):
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now).not_valid_after(end)
    return x509.load_pem_x509_certificate(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))


devices = {"own-1": certificate("own-1", now + datetime.timedelta(90)),
           "own-2": certificate("own-2", now + datetime.timedelta(365)),
           "bought": certificate("bought", never)}
assert devices["bought"].not_valid_after_utc == never
table = pd.DataFrame({"device": devices.keys(), "until": [c.not_valid_after_utc for c in devices.values()]})
print(table)
days = (table.until - pd.Timestamp(now)).dt.days
assert days[:2].tolist() == [90, 365] and days[2] > 2_900_000 and table.until.max() == never


def attempt(what):
    try:
        what()
    except (OverflowError, NotImplementedError) as error:
        return type(error).__name__
    return "fine"


for zone, expected, year in [("UTC", "fine", [9999]), ("America/New_York", "fine", [9999]),
                             ("Europe/Berlin", "OverflowError", None), ("Asia/Tokyo", "NotImplementedError", [10000])]:
    local = table.assign(until=table.until.dt.tz_convert(zone))
    assert (local.until > pd.Timestamp(now)).all() and str(local.until.dtype) == f"datetime64[us, {zone}]"
    shown = [attempt(lambda: repr(local)), attempt(local.to_html), attempt(local.to_csv)]
    python = attempt(lambda: never.astimezone(ZoneInfo(zone)))
    try:
        last = local.until.dt.year[2:].tolist()
    except OverflowError:
        last = None
    print(f"{zone}: shown, HTML, CSV: {shown}; the year: {last}; Python's astimezone: {python}")
    assert shown == [expected] * 3 and last == year, f"NO LONGER: expected {expected}"
    assert python == ("fine" if expected == "fine" else "OverflowError"), "NO LONGER: astimezone differs"
    assert attempt(lambda: repr(local.head(2))) == "fine"  # it is the one row that takes the others with it

with open("bought.pem", "wb") as file:
    file.write(devices["bought"].public_bytes(Encoding.PEM))
printed = subprocess.run(["keytool", "-J-Duser.timezone=Asia/Tokyo", "-printcert", "-file", "bought.pem"],
                       capture_output=True, text=True, check=True).stdout
line = next(line for line in printed.splitlines() if "until" in line)
print("keytool in Tokyo:", line)
assert line.endswith("10000")
print("AS DESCRIBED: east of Greenwich the table can't be shown")
PY
venv/bin/python look.py
