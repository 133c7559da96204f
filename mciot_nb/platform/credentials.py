"""Who may log in to the local platform: kept in ``credentials.json``, which nobody but its owner can read."""

import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mciot_nb.errors import OnboardingError
from mciot_nb.pki.files import write_whole

#: By tenant: the administrator's user and password, and under ``others`` those of users without the role.
Credentials = Mapping[str, Mapping[str, Any]]
FIRST_TENANT, MOST_TENANTS = 1001, 1000
#: The administrator of each tenant, and a user of it without any role, who may look but not trust.
USER, WITHOUT_ROLE = "admin", "viewer"


def read_credentials(file: Path, tenants: int) -> Credentials:
    """Read the tenants' logins, and make those that are missing, with random passwords. Raises OnboardingError."""
    if not 1 <= tenants <= MOST_TENANTS:
        raise OnboardingError(f"There can't be {tenants} tenants: give --tenants a number from 1 to {MOST_TENANTS}.")
    try:
        kept = json.loads(file.read_bytes())
        known = {
            tenant: _login(given) | {"others": [*map(_login, given.get("others", ()))]}
            for tenant, given in kept.items()
        }
    except FileNotFoundError:
        known, kept = {}, None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise OnboardingError(f"{file} is damaged: move it away, and new passwords are made.") from None
    for number in range(FIRST_TENANT, FIRST_TENANT + tenants):
        known.setdefault(f"t{number}", {**_new_login(USER), "others": []})
    for login in known.values():
        login["others"] = login["others"] or [_new_login(WITHOUT_ROLE)]
    if known != kept:
        write_whole(file, json.dumps(known, indent=1).encode(), private=True, replace=True)
    return known


def _new_login(user: str) -> dict[str, str]:
    return {"user": user, "password": secrets.token_urlsafe(18)}


def _login(given: Any) -> dict[str, Any]:
    return {"user": given["user"] + "", "password": given["password"] + ""}
