"""The curators' pages run inside one transaction, in the tenant of whoever is signed in."""

from __future__ import annotations

from collections.abc import Callable

from django.db import transaction
from django.http import HttpRequest, HttpResponseBase

#: These authenticate by key and open their own, shorter, scopes.
KEYED = ("/api/", "/v1/", "/healthz", "/readyz", "/metrics")


class CuratorTenantMiddleware:
    """Opens the request's transaction; TenantModelBackend sets the tenant in it when it finds the user."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if request.path.startswith(KEYED):
            return self.get_response(request)
        with transaction.atomic():
            response = self.get_response(request)
            if hasattr(response, "render") and callable(response.render) and not getattr(response, "is_rendered", True):
                response.render()  # a lazy template must query inside the transaction
            if response.status_code >= 500:
                transaction.set_rollback(True)
            return response
