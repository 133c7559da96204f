"""The Trusted Certificates guide of the MindConnect IoT Extension, as Python that learners can read.

Every name that a notebook uses is here, and nothing else is needed::

    from mciot_nb import CaForm, Workspace

    workspace = Workspace()
    form = CaForm(workspace)
    workspace.create_ca(form.subject, form.key)

The names are loaded when they are first used, so that ``import mciot_nb`` is quick: neither pandas nor ipywidgets comes
with it. ``%load_ext mciot_nb`` registers the displays of certificates and diagnoses.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

_MODULES = {
    # the learner's folder, and the forms that fill it
    "workspace": "Workspace",
    "check": "look_around",
    "practice": "check_my_work",
    "ui.forms": "PassphraseForm CaForm IntermediateForm DeviceForm",
    "ui.tenant_form": "TenantForm",
    # certificates, keys and stores
    "pki.authority": "CertificateAuthority",
    "pki.names": "DistinguishedName",
    "pki.keys": "KeyChoice KeyType create_key create_request read_private_key",
    "secret": "Secret",
    "errors": "OnboardingError",
    "pki.chain": "diagnose read_certificates to_pem",
    "pki.keystore": "read_key read_store which_password_opens write_keystore write_truststore",
    # the platform, a tenant, and a device
    "local_platform": "LocalPlatform",
    "connect.tenant": "Tenant",
    "connect.device": "Device",
    "connect.explain": "explain",
    "connect.diagnosis": "diagnose_device",
    "fleet": "make_fleet fleet_health",
    "connect.enrolment": "enrol",
    # what is seen
    "ui.signing_panel": "SigningPanel",
    "ui.trust_panel": "TrustedCertificatesPanel",
    "ui.console": "DeviceConsole",
    "ui.class_panel": "ClassPanel",
    "ui.live_fleet": "LiveFleet",
    "failures": "FailureCase",
    "expiry": "calendar expiring",
    "ui.laboratory": "Laboratory Quiz case_table",
    "ui.markup": "card",
    "ui.certificate_card": "fields",
    "ui.pictures": "chain_picture expiry_picture",
    "ui.completion": "CompletionForm",
    "ui.displays": "first_lines journey two_sides",
}
_HOMES = {name: f"mciot_nb.{module}" for module, names in _MODULES.items() for name in names.split()}
__all__ = list(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Load a public name from its home (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """List the public names, for completion."""
    return sorted([*_HOMES, "load_ipython_extension"])


def load_ipython_extension(ipython: "InteractiveShell") -> None:
    """Register the displays, and what is said of a name that is not there yet, for ``%load_ext mciot_nb``."""
    from mciot_nb.ui import displays, missing_names

    displays.register(ipython)
    ipython.set_custom_exc((NameError,), missing_names.explain_missing_name)  # type: ignore[no-untyped-call]
