"""The Trusted Certificates guide of the MindConnect IoT Extension, as Python that learners can read.

The public names are loaded when they are first used, so that ``import mciot_nb`` is quick: neither pandas nor
ipywidgets comes with it. ``%load_ext mciot_nb`` registers the displays of certificates and diagnoses.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

_HOMES = {
    "CertificateAuthority": "mciot_nb.pki.authority",
    "Device": "mciot_nb.connect.device",
    "DeviceConsole": "mciot_nb.ui.console",
    "DistinguishedName": "mciot_nb.pki.names",
    "KeyForm": "mciot_nb.ui.forms",
    "LocalPlatform": "mciot_nb.local_platform",
    "OnboardingError": "mciot_nb.errors",
    "PassphraseForm": "mciot_nb.ui.inputs",
    "Secret": "mciot_nb.secret",
    "SigningPanel": "mciot_nb.ui.signing_panel",
    "SubjectForm": "mciot_nb.ui.forms",
    "Tenant": "mciot_nb.connect.tenant",
    "TenantForm": "mciot_nb.ui.tenant_form",
    "TrustedCertificatesPanel": "mciot_nb.ui.trust_panel",
    "Workspace": "mciot_nb.workspace",
    "diagnose": "mciot_nb.pki.chain",
    "PROFILES": "mciot_nb.pki.chain",
    "card": "mciot_nb.ui.displays",
    "chain_picture": "mciot_nb.ui.chain_picture",
    "look_around": "mciot_nb.check",
    "mosquitto_command": "mciot_nb.connect.client_settings",
    "mqttfx_settings": "mciot_nb.connect.client_settings",
    "mqttx_settings": "mciot_nb.connect.client_settings",
    "open_key_command": "mciot_nb.connect.client_settings",
    "paho_snippet": "mciot_nb.connect.client_settings",
    "password_table": "mciot_nb.ui.displays",
    "read_certificates": "mciot_nb.pki.chain",
    "readable": "mciot_nb.pki.names",
    "read_key": "mciot_nb.pki.keystore",
    "read_store": "mciot_nb.pki.keystore",
    "sentence": "mciot_nb.ui.displays",
    "two_sides": "mciot_nb.ui.displays",
    "which_password_opens": "mciot_nb.pki.keystore",
    "write_keystore": "mciot_nb.pki.keystore",
}
__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Load a public name from its home (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def load_ipython_extension(ipython: "InteractiveShell") -> None:
    """Register the displays, for ``%load_ext mciot_nb``."""
    from mciot_nb.ui import displays as display

    display.register(ipython)
