"""`Authorization: Bearer <key>` or `X-API-Key: <key>`; nothing is anonymous."""

from __future__ import annotations

from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from .keys import Caller, recognise


class ApiKeyAuthentication(BaseAuthentication):
    def authenticate(self, request: Request) -> tuple[Caller, None] | None:
        secret = request.headers.get("X-API-Key", "")
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            secret = token.strip()
        if not secret:
            return None
        caller = recognise(secret)
        if caller is None:
            raise AuthenticationFailed("This API key is unknown, expired or revoked.", code="invalid_key")
        return caller, None

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="ragsite"'
