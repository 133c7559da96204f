"""The tokens with which a device, known by its certificate, uses REST: JSON Web Tokens (RFC 7519)."""

import secrets
from datetime import UTC, datetime, timedelta

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

VALIDITY = timedelta(hours=1)


class Tokens:
    """Issues tokens and reads them again, signed with the platform's own key, so that they outlive a restart."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key

    def issue(self, tenant: str, device: str) -> str:
        """Give a token for a device, valid for an hour. (The names of the claims are not verified.)"""
        now = datetime.now(UTC)
        claims = {"iss": "localhost", "aud": "localhost", "sub": f"device_{device}", "ten": tenant, "iat": now}
        claims |= {"nbf": now, "exp": now + VALIDITY, "jti": secrets.token_hex(8)}
        return jwt.encode(claims, self._key, algorithm="ES256")

    def read(self, token: str) -> tuple[str, str] | None:
        """Give the tenant and the device of a token; None where it is none of ours, or no longer valid."""
        try:
            claims = jwt.decode(
                token, self._key.public_key(), ["ES256"], audience="localhost", options={"require": ["exp", "sub"]}
            )
        except jwt.InvalidTokenError:
            return None
        return claims["ten"], claims["sub"].removeprefix("device_")
