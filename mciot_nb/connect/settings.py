"""Which tenant the learner chose: kept in the workspace without any secret, or named by the environment."""

import json
import os
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mciot_nb.connect.tenant import Tenant
from mciot_nb.errors import OnboardingError
from mciot_nb.pki.chain import PROFILES
from mciot_nb.pki.files import read_file, write_whole
from mciot_nb.secret import Secret


@dataclass(frozen=True)
class TenantSettings:
    """Which tenant the learner chose in 00: what ``workspace/tenant.json`` keeps, without any secret.

    A real tenant's values stay there while ``local`` is true, so that going back to it needs no typing.
    """

    url: str = ""
    tenant_id: str = ""
    user: str = ""
    mqtt_host: str = ""
    mqtt_port: int = 8883
    local: bool = True
    profile: str = "guide-2021"  # of the local platform

    def problems(self) -> dict[str, str]:
        """Say in a sentence for each field what keeps a real tenant from being reached with it; empty where none."""
        found = {}
        if not _https_host(self.url):
            found["url"] = "The URL is https:// and the tenant's host, without user, password, path or query."
        if not self.tenant_id:
            found["tenant_id"] = (
                "The tenant ID is missing: it stands under your user's name in the platform, like t12345."
            )
        if not self.user:
            found["user"] = "The user is missing: give the one with which you log in to the platform."
        if not re.fullmatch(r"[A-Za-z0-9.-]+", self.mqtt_host):
            found["mqtt_host"] = "The MQTT host is the tenant's host name alone, such as mytenant.example.com."
        if not 1 <= self.mqtt_port <= 65535:
            found["mqtt_port"] = "The MQTT port is a number from 1 to 65535; the platform's is 8883."
        return found


def _https_host(url: str) -> str:
    """Give the host of a plain https URL; empty where it names none, or holds more (a password must not be kept)."""
    try:
        parts = urlsplit(url)
        plain = parts.scheme == "https" and "@" not in parts.netloc and parts.port != 0
    except ValueError:  # a bracket that is never closed, for one, or a port that is no number
        return ""
    more = parts.path.strip("/") or parts.query or parts.fragment
    return (parts.hostname or "") if plain and not more else ""


def read_settings(folder: Path) -> TenantSettings:
    """Read the choice that 00 kept in ``folder``; ``MCIOT_URL`` and its companions go before it.

    Raises OnboardingError where the file is damaged.
    """
    if url := os.environ.get("MCIOT_URL"):
        host = os.environ.get("MCIOT_MQTT_HOST") or _https_host(url)
        port = os.environ.get("MCIOT_MQTT_PORT", "8883")
        tenant, user = os.environ.get("MCIOT_TENANT", ""), os.environ.get("MCIOT_USER", "")
        return TenantSettings(url, tenant, user, host, int(port) if port.isdecimal() else 0, local=False)
    path = folder / "tenant.json"
    if not path.exists():
        return TenantSettings()
    try:
        kept = {"profile": TenantSettings.profile} | json.loads(read_file(path, ""))
        PROFILES[kept["profile"]]
        return TenantSettings(**{f.name: _typed(kept[f.name], f.default) for f in fields(TenantSettings)})
    except (ValueError, TypeError, KeyError):
        raise OnboardingError(f"{path} is damaged: remove it, and choose the tenant again in 00.", "BAD_FILE") from None


def _typed(value: object, like: object) -> Any:
    if type(value) is not type(like):
        raise TypeError(value)
    return value


def keep_settings(folder: Path, settings: TenantSettings) -> None:
    """Keep the choice for the other notebooks, without any secret."""
    write_whole(folder / "tenant.json", json.dumps(asdict(settings), indent=2).encode(), replace=True)


def real_tenant(settings: TenantSettings, secret: Secret | None = None) -> Tenant:
    """Give the real tenant of ``settings``; ``secret`` is the user's password, or a bearer token without a user.

    Without ``secret`` it is taken from ``MCIOT_TOKEN`` or ``MCIOT_PASSWORD``. Raises OnboardingError where something is
    missing.
    """
    by_token = not settings.user or bool(os.environ.get("MCIOT_TOKEN"))
    if secret is None and (text := os.environ.get("MCIOT_TOKEN" if by_token else "MCIOT_PASSWORD")):
        secret = Secret(text)
    problems = {name: problem for name, problem in settings.problems().items() if not (by_token and name == "user")}
    if problems:
        raise OnboardingError(" ".join(problems.values()), "BAD_SETTINGS")
    if secret is None:
        raise OnboardingError(
            "Stop here: type the password or token of your tenant in the tenant form, submit it, and run the cells "
            "below it.",
            "NEED_PASSWORD",
        )
    return Tenant(
        settings.url,
        settings.tenant_id,
        settings.user,
        password=None if by_token else secret,
        token=secret if by_token else None,
        mqtt=(settings.mqtt_host, settings.mqtt_port),
    )
