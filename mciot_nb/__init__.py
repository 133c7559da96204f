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
    "LocalPlatform": "mciot_nb.platform.launcher",
    "OnboardingError": "mciot_nb.errors",
    "PassphraseForm": "mciot_nb.ui.forms",
    "Secret": "mciot_nb.secret",
    "SigningPanel": "mciot_nb.ui.signing_panel",
    "SubjectForm": "mciot_nb.ui.forms",
    "Tenant": "mciot_nb.connect.tenant",
    "TenantForm": "mciot_nb.ui.forms",
    "TrustedCertificatesPanel": "mciot_nb.ui.trust_panel",
    "Workspace": "mciot_nb.workspace",
    "diagnose": "mciot_nb.pki.chain",
    "working": "mciot_nb.ui.progress",
}
__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Load a public name from its home (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def load_ipython_extension(ipython: "InteractiveShell") -> None:
    """Register the displays, for ``%load_ext mciot_nb``."""
    from mciot_nb.ui import display

    display.register(ipython)
