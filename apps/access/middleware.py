"""Around every request: the curators' pages run in one transaction; writes tell how far replicas have to be."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from django.conf import settings
from django.core.exceptions import MiddlewareNotUsed
from django.db import DatabaseError, transaction
from django.http import HttpRequest, HttpResponseBase

from . import replicas

#: These authenticate by key and open their own, shorter, scopes.
KEYED = ("/api/", "/v1/", "/healthz", "/readyz", "/metrics")
#: Posted, and no writes of documents.
QUESTIONS = ("/api/v1/search", "/api/v1/answers", "/api/v1/queries", "/v1/")


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


class ReplicaMiddleware:
    """A write tells how far the primary has come (replicas.HEADER); a request that sends it back reads no replica that
    has not come as far. Not of responses that go on: what they will have written is not known yet."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        if not settings.REPLICAS:
            raise MiddlewareNotUsed
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        replicas.read_after(request.headers.get(replicas.HEADER, ""))
        response = self.get_response(request)
        wrote = request.method not in ("GET", "HEAD", "OPTIONS") and not request.path.startswith(QUESTIONS)
        if wrote and request.path.startswith("/api/") and response.status_code < 400 and not response.streaming:
            with suppress(DatabaseError):  # what was written stays written
                response[replicas.HEADER] = replicas.token()
        return response
