"""The express way: a request that is in order, past the middlewares and REST framework, to what does its work.

They take as long as a search does. An express view makes the same checks, and where anything is out of order, or only
unusual, it leaves the request to the view of the same path, which refuses it in words; that one is also what OpenAPI
describes. What the middlewares would have done besides stands here: the request's id, the headers of every response,
the metrics, and the connection that goes back to the pool.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from typing import Any

from django.conf import settings
from django.db import connection
from django.http.request import split_domain_port, validate_host
from django_prometheus.middleware import Metrics

from apps.retrieval import express as search

from . import telemetry

#: Given headers (by small name), body and request id; gives status, headers and body, or None: not here.
View = Callable[[Mapping[str, str], bytes, str], tuple[int, dict[str, str], bytes] | None]
#: By path: the view, and the name of the one on the long way, for the metrics.
VIEWS: dict[str, tuple[View, str]] = {search.PATH: (search.answer, "apps.retrieval.views.SearchView")}
JSON = ("*/*", "application/json")
MOST_BYTES = 64 * 1024  # of a body, which is read whole before anybody knows whose it is


def headers_of(scope: Mapping[str, Any]) -> dict[str, str] | None:
    """The headers of an ASGI request that may go the express way; None for all others."""
    if scope["path"] not in VIEWS or scope["method"] != "POST" or scope["query_string"]:
        return None
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    domain, _ = split_domain_port(headers.get("host", ""))
    usual = (
        len(headers) == len(scope["headers"])  # none stands twice
        and headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"
        and headers.get("accept", "*/*") in JSON
        and not headers.keys() & {"content-encoding", "x-requested-with"}
        and domain
        and validate_host(domain, settings.ALLOWED_HOSTS)
    )
    return headers if usual else None


def respond(
    scope: Mapping[str, Any], headers: Mapping[str, str], body: bytes
) -> tuple[int, list[tuple[bytes, bytes]], bytes] | None:
    """In the request's thread: status, headers and body, or None where the long way has to be taken."""
    began = time.perf_counter()
    request_id = telemetry.begin(headers.get("x-request-id", ""))
    view, name = VIEWS[scope["path"]]
    try:
        answered = view(headers, body, request_id)
    finally:
        connection.close()  # back to the pool
    if answered is None:
        return None
    status, own, content = answered
    _count(name, scope["scheme"], status, len(body), len(content), time.perf_counter() - began)
    told = COMMON | own | {"Content-Length": str(len(content)), "X-Request-ID": request_id}
    return status, [(name.encode("latin-1"), value.encode("latin-1")) for name, value in told.items()], content


#: What Django's and REST framework's settings let every response of these views say.
COMMON = {
    "Allow": "POST, OPTIONS",
    "X-Frame-Options": settings.X_FRAME_OPTIONS,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": settings.SECURE_REFERRER_POLICY,
    "Cross-Origin-Opener-Policy": settings.SECURE_CROSS_ORIGIN_OPENER_POLICY,
}


def _count(view: str, transport: str, status: int, received: int, sent: int, seconds: float) -> None:
    counters, latencies, bodies = _metrics(view, transport, str(status))
    for counter in counters:
        counter.inc()
    for latency in latencies:
        latency.observe(seconds)
    for histogram, size in zip(bodies, (received, sent), strict=True):
        histogram.observe(size)


@functools.cache
def _metrics(view: str, transport: str, status: str) -> tuple[list[Any], list[Any], list[Any]]:
    """What django_prometheus' middlewares count of a response: counters, seconds, bytes."""
    of = Metrics.get_instance()
    counters = [
        of.requests_total,
        of.responses_total,
        of.requests_by_method.labels(method="POST"),
        of.requests_by_transport.labels(transport=transport),
        of.requests_by_view_transport_method.labels(view=view, transport=transport, method="POST"),
        of.responses_by_status.labels(status=status),
        of.responses_by_status_view_method.labels(status=status, view=view, method="POST"),
        of.responses_by_charset.labels(charset="utf-8"),
    ]
    latencies = [of.requests_latency_before, of.requests_latency_by_view_method.labels(view=view, method="POST")]
    return counters, latencies, [of.requests_body_bytes, of.responses_body_bytes]
