"""Search: one SQL statement over a tenant's live chunks - dense, lexical or both."""

from __future__ import annotations

import time
from uuid import UUID

from django.conf import settings
from django.db import DatabaseError
from psycopg import errors as pg

from apps.access import tenancy
from apps.access.problems import Problem

from . import cache, metrics
from .query_vectors import cached_vector, new_vector
from .scopes import one_space, scopes_of
from .statement import hit, rows_of
from .types import SearchQuery, SearchResult


def search(*, tenant_id: UUID, query: SearchQuery, reuse: bool = True) -> SearchResult:
    """The k best live chunks of the collections asked for; what the same query found before where that still holds,
    and `reuse` allows it (cache.py). Raises what `_search` does.
    """
    return (cache.lookup(tenant_id, query) if reuse else None) or _search(tenant_id=tenant_id, query=query)


def _search(*, tenant_id: UUID, query: SearchQuery) -> SearchResult:
    """The search itself.

    One transaction and one snapshot when the query's vector is cached or not needed. Otherwise the transaction is
    closed while the model works, and the search reads everything anew in a second one: no connection waits for a model.

    Raises Problem 404 for an unknown collection, 422 `mixed_spaces` when the collections have different embedding
    spaces and the mode is not lexical, 504 `search_timeout`; EmbeddingError when the query cannot be embedded.
    """
    started = time.perf_counter()
    lexical = query.mode == "lexical"
    try:
        with tenancy.snapshot(tenant_id):
            scopes = scopes_of(query.collections)
            space = one_space(scopes) if scopes and not lexical else None
            vector = cached_vector(tenant_id=tenant_id, space=space, query=query.query) if space else None
            embedded = time.perf_counter()
            rows = rows_of(scopes, query, vector) if scopes and (lexical or vector) else []
        if space is not None and vector is None:
            vector = new_vector(tenant_id=tenant_id, space=space, query=query.query)
            embedded = time.perf_counter()
            with tenancy.snapshot(tenant_id):
                scopes = [found for found in scopes_of(query.collections) if found.space == space]
                rows = rows_of(scopes, query, vector) if scopes else []
    except DatabaseError as error:
        if not lexical:
            metrics.VECTOR_SEARCH_FAILURE.inc()
        if isinstance(error.__cause__, pg.QueryCanceled):
            detail = f"The search took longer than {settings.SEARCH_TIMEOUT_SECONDS:g} s and was stopped."
            raise Problem(504, "search_timeout", detail) from error
        raise
    ended = time.perf_counter()
    if space is not None:
        metrics.VECTOR_SEARCH_SUCCESS.inc()
        metrics.QUERY_SECONDS.labels(stage="embed").observe(embedded - started)
    metrics.QUERY_SECONDS.labels(stage="search").observe(ended - embedded)
    metrics.QUERY_SECONDS.labels(stage="total").observe(ended - started)
    slugs = {scope.id: scope.slug for scope in scopes}
    stale = {
        row[1]: {"document_id": row[1], "live_version": row[2], "version": row[3]} for row in rows if row[3] > row[2]
    }
    found = SearchResult(
        hits=[hit(row, slugs) for row in rows],
        snapshot={scope.slug: scope.epoch for scope in scopes},
        stale=list(stale.values()),
        timings={
            "embed_ms": 0.0 if lexical else _ms(embedded - started),
            "search_ms": _ms(ended - embedded),
            "total_ms": _ms(ended - started),
        },
    )
    cache.keep(tenant_id, query, found, scopes)
    return found


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
