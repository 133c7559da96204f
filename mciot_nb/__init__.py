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

_HOMES = {
    # the learner's folder, and the forms that fill it
    "Workspace": "mciot_nb.workspace",
    "look_around": "mciot_nb.check",
    "PassphraseForm": "mciot_nb.ui.forms",
    "CaForm": "mciot_nb.ui.forms",
    "IntermediateForm": "mciot_nb.ui.forms",
    "DeviceForm": "mciot_nb.ui.forms",
    "TenantForm": "mciot_nb.ui.tenant_form",
    # certificates, keys and stores
    "CertificateAuthority": "mciot_nb.pki.authority",
    "DistinguishedName": "mciot_nb.pki.names",
    "KeyChoice": "mciot_nb.pki.keys",
    "KeyType": "mciot_nb.pki.keys",
    "Secret": "mciot_nb.secret",
    "OnboardingError": "mciot_nb.errors",
    "diagnose": "mciot_nb.pki.chain",
    "read_certificates": "mciot_nb.pki.chain",
    "read_key": "mciot_nb.pki.keystore",
    "read_store": "mciot_nb.pki.keystore",
    "which_password_opens": "mciot_nb.pki.keystore",
    "write_keystore": "mciot_nb.pki.keystore",
    "write_truststore": "mciot_nb.pki.keystore",
    # the platform, a tenant, and a device
    "LocalPlatform": "mciot_nb.local_platform",
    "Tenant": "mciot_nb.connect.tenant",
    "Device": "mciot_nb.connect.device",
    # what is seen
    "SigningPanel": "mciot_nb.ui.signing_panel",
    "TrustedCertificatesPanel": "mciot_nb.ui.trust_panel",
    "DeviceConsole": "mciot_nb.ui.console",
    "card": "mciot_nb.ui.markup",
    "chain_picture": "mciot_nb.ui.chain_picture",
    "two_sides": "mciot_nb.ui.displays",
}
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
    """Register the displays, for ``%load_ext mciot_nb``."""
    from mciot_nb.ui import displays

    displays.register(ipython)
