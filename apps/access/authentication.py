"""`Authorization: Bearer <key>` or `X-API-Key: <key>`; nothing is anonymous."""

from __future__ import annotations

from drf_spectacular.extensions import OpenApiAuthenticationExtension
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


class ApiKeyScheme(OpenApiAuthenticationExtension):
    """How the key shows in the OpenAPI document."""

    target_class = ApiKeyAuthentication
    name = ["bearer", "apiKey"]

    def get_security_requirement(self, auto_schema: object) -> list[dict[str, list[str]]]:
        """One or the other, not both."""
        return [{name: []} for name in self.name]

    def get_security_definition(self, auto_schema: object) -> list[dict[str, str]]:
        return [
            {"type": "http", "scheme": "bearer"},
            {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        ]
