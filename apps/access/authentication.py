"""`Authorization: Bearer <key>` or `X-API-Key: <key>`; nothing is anonymous."""

from __future__ import annotations

from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from .keys import Caller, recognise


def secret_of(api_key: str, authorization: str) -> str:
    """The key that a request's two headers carry, or an empty text."""
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else api_key


class ApiKeyAuthentication(BaseAuthentication):
    def authenticate(self, request: Request) -> tuple[Caller, None] | None:
        secret = secret_of(request.headers.get("X-API-Key", ""), request.headers.get("Authorization", ""))
        if not secret:
            return None
        caller = recognise(secret)
        if caller is None:
            raise AuthenticationFailed("This API key is unknown, expired or revoked.", code="invalid_key")
        return caller, None

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="ragsite"'
