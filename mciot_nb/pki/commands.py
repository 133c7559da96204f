"""The openssl commands that do what our forms ask for, as somebody would type them in a Unix shell."""

import re
import shlex

from mciot_nb.pki.authority import CA_DAYS
from mciot_nb.pki.names import FIELDS, DistinguishedName


def subject_option(subject: DistinguishedName) -> str:
    r"""Write a subject as ``-subj`` takes it, ``/C=DE/CN=device``: ``/``, ``+`` and ``\`` in a value after a ``\``."""
    values = [(field.short_name, getattr(subject, field.attribute)) for field in FIELDS]
    fields = [f"/{name}=" + re.sub(r"[/+\\]", r"\\\g<0>", value) for name, value in values if value is not None]
    return "".join(fields) or "/"


def certificate_command(subject: DistinguishedName, days: int = CA_DAYS) -> str:
    """Give the command that makes the CA's certificate (guide: "Creating a self-signed CA certificate", step 8)."""
    made = f"-new -x509 -days {days} -sha256 -extensions v3_ca -subj {shlex.quote(subject_option(subject))}"
    return f"openssl req -config caConfig.cnf -utf8 -key caKey.pem {made} -out caCert.pem"


def request_command(subject: DistinguishedName, config: str = "caConfig.cnf", name: str = "device") -> str:
    """Give the command that makes a request, the ``device``'s or the ``intermediate``'s, with the file ``config``."""
    file = f"deviceCertificates/{name}" if name == "device" else name
    made = f"-new -sha256 -key {file}Key.pem -subj {shlex.quote(subject_option(subject))} -out {file}Csr.pem"
    return f"openssl req -config {shlex.quote(config)} -utf8 {made}"
