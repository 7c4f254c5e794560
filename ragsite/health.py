"""`/healthz`: this process answers. `/readyz`: what it needs does too. `/metrics`: for Prometheus."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from drf_spectacular.utils import extend_schema
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from rest_framework.request import Request
from rest_framework.views import APIView

from apps.access import replicas
from apps.access.authentication import ApiKeyAuthentication
from apps.access.metrics import ReplicaCollector
from apps.access.problems import Problem, page
from apps.access.redis import redis_client
from apps.documents.metrics import LedgerCollector
from apps.generation import llm, queries
from apps.generation.metrics import QueryCollector

_migrated = False


def _read_only(
    view: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """405 as a problem document for anything but GET and HEAD."""

    @csrf_exempt  # or a POST would be answered with the curators' page about cookies
    @wraps(view)
    def checked(request: HttpRequest) -> HttpResponse:
        if request.method in ("GET", "HEAD"):
            return view(request)
        response = page(request, Problem(405, "method_not_allowed", f"Method {request.method!r} not allowed."))
        response["Allow"] = "GET, HEAD"
        return response

    return checked


@_read_only
def healthz(request: HttpRequest) -> JsonResponse:
    """200 as long as the process answers; asks nothing of anything else."""
    return JsonResponse({"status": "ok"})


@_read_only
def readyz(request: HttpRequest) -> JsonResponse:
    """200 when every dependency answers, 503 otherwise; details for an admin key only."""
    checks = {"postgres": _check(_postgres), "migrations": _check(_migrations), "redis": _check(_redis)}
    # Without Redis nothing is lost and searches go on, as they do without replicas; without a language model answers
    # are quotes. These are reported, but do not take the process out of service.
    ready = checks["postgres"] == checks["migrations"] == "ok"
    body: dict[str, Any] = {"status": "ready" if ready else "not ready"}
    try:
        found = ApiKeyAuthentication().authenticate(Request(request))
    except Exception:  # a bad key, or no database to ask
        found = None
    if found is not None and "admin" in found[0].scopes:
        body["checks"] = checks | {each.alias: str(each) for each in replicas.standing()} | llm.standing()
    return JsonResponse(body, status=200 if ready else 503, headers={} if ready else {"Retry-After": "2"})


class MetricsView(APIView):
    """Prometheus' text format; needs the admin scope, because the numbers are of all tenants."""

    scope_needed = "admin"

    @extend_schema(exclude=True)
    def get(self, request: Request) -> HttpResponse:
        return HttpResponse(generate_latest(registry()), content_type=CONTENT_TYPE_LATEST)


def registry() -> CollectorRegistry:
    """The metrics of all processes of this data directory, dead ones included, so that no counter falls; and the
    gauges of the ledger, of the replicas and of the queries."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return REGISTRY
    found = CollectorRegistry()
    MultiProcessCollector(found)
    found.register(LedgerCollector())
    found.register(ReplicaCollector(_replicas))
    found.register(QueryCollector(queries.queue))
    return found


def _replicas() -> Iterator[tuple[str, bool, float | None]]:
    for each in replicas.standing():
        yield each.alias, each.why is None, each.lag


def _check(probe: Callable[[], None]) -> str:
    try:
        probe()
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:300]
    return "ok"


def _postgres() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def _migrations() -> None:
    global _migrated
    if not _migrated:
        executor = MigrationExecutor(connection)
        if executor.migration_plan(executor.loader.graph.leaf_nodes()):
            raise RuntimeError("migrations are missing; run manage.py migrate")
        _migrated = True


def _redis() -> None:
    redis_client().ping()
