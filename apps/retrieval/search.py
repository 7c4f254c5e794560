"""Search: one SQL statement over a tenant's live chunks - dense, lexical or both."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import DatabaseError, connection
from psycopg import errors as pg

from apps.access import nodes, replicas, tenancy
from apps.access.problems import Problem
from apps.documents.embedding import EmbeddingError
from apps.documents.engines import engine_for
from apps.documents.models import EmbeddingSpace

from . import cache, metrics, past, refine
from . import recall as recall_monitor
from .apart import AllThere, NoneThere, Rest, rows_apart
from .expand import expand
from .explain import explained
from .query_vectors import cached_vector, new_vector
from .scopes import one_space, reading, recall, recalled, scopes_from, scopes_of, serving, unchanged
from .statement import hit, rows_of
from .types import Hit, Scope, SearchQuery, SearchResult, Vector

logger = logging.getLogger(__name__)


def search(*, tenant_id: UUID, query: SearchQuery, reuse: bool = True) -> SearchResult:
    """The k best live chunks of the collections asked for; what the same query found before where that still holds,
    and `reuse` allows it (cache.py). Raises what `_search` does.
    """
    return (cache.lookup(tenant_id, query) if reuse else None) or _search(tenant_id=tenant_id, query=query)


def _search(*, tenant_id: UUID, query: SearchQuery) -> SearchResult:
    """The search itself. A reranker works outside of a transaction; what was deleted or changed meanwhile is left out
    afterwards.

    Raises Problem 404 for an unknown collection, 422 `mixed_spaces` when the collections have different embedding
    spaces and the mode is not lexical (or results are diversified), 422 `rerank_unavailable`, 504 `search_timeout`;
    EmbeddingError when the query cannot be embedded.
    """
    started = time.perf_counter()
    reranker = refine.reranker_for(query)
    reranked = None
    lexical = query.mode == "lexical"
    try:
        found = _in_reach(tenant_id, query) if query.partial else _of_all(tenant_id, query)
        hits, rows, scopes = found.hits, found.rows, found.scopes
        recall(tenant_id, query.collections, scopes)
        if reranker is not None and hits:
            hits, reranked = refine.reranked(hits, query, reranker)
            hits = _still_there(tenant_id, query, hits, found.rest)
    except DatabaseError as error:
        if not lexical:
            metrics.VECTOR_SEARCH_FAILURE.inc()
        if isinstance(error.__cause__, pg.QueryCanceled):
            detail = f"The search took longer than {settings.SEARCH_TIMEOUT_SECONDS:g} s and was stopped."
            raise Problem(504, "search_timeout", detail) from error
        raise
    ended = time.perf_counter()
    if scopes and not lexical:
        metrics.VECTOR_SEARCH_SUCCESS.inc()
        metrics.QUERY_SECONDS.labels(stage="embed").observe(found.embedded - started)
    if found.rest is not None:
        metrics.PARTIAL_SEARCHES.inc()
    elif found.vector is not None and found.served:
        recall_monitor.note(tenant_id, query, found.served, found.vector)
        if any(scope.second for scope in scopes):
            space = found.served[0].space.slug
            metrics.SPACE_SECONDS.labels(space=space).observe(found.searched - found.embedded)
            metrics.SPACE_SEARCHES.labels(space=space, outcome="found" if hits else "empty").inc()
    metrics.QUERY_SECONDS.labels(stage="search").observe(found.searched - found.embedded)
    metrics.QUERY_SECONDS.labels(stage="total").observe(ended - started)
    shown = {hit.document_id for hit in hits}
    stale = {
        row[1]: {"document_id": row[1], "live_version": row[2], "version": row[3]}
        for row in rows
        if row[3] > row[2] and row[1] in shown and not query.is_past
    }
    result = SearchResult(
        hits=hits,
        snapshot={scope.slug: scope.epoch for scope in scopes},
        stale=list(stale.values()),
        timings={
            "embed_ms": 0.0 if lexical else _ms(found.embedded - started),
            "search_ms": _ms(found.searched - found.embedded),
            "rerank_ms": reranked.milliseconds if reranked else 0.0,
            "total_ms": _ms(ended - started),
        },
        rerank=reranked,
        explain=found.explain and found.explain | {"rerank": reranked.explained() if reranked else None},
        scopes=scopes,
        partial=found.rest.as_json() if found.rest else None,
    )
    cache.keep(tenant_id, query, result)
    return result


@dataclass(frozen=True, slots=True)
class _Found:
    """served: the collections as this query searched them. rest: the nodes that were asked one by one, because one was
    away. embedded, searched: when the vector was there and when the
    hits were, by time.perf_counter."""

    scopes: list[Scope]
    served: list[Scope]
    vector: Vector | None
    rows: list[tuple[Any, ...]]
    hits: list[Hit]
    explain: dict[str, Any] | None
    embedded: float
    searched: float
    rest: Rest | None = None


def _of_all(tenant_id: UUID, query: SearchQuery) -> _Found:
    return _as_recalled(tenant_id, query) or _found(tenant_id, query)


def _in_reach(tenant_id: UUID, query: SearchQuery) -> _Found:
    """`_of_all`; where a node of a cluster is away, of the others. One that hangs is away as well, once a search has
    waited for it in vain."""
    if engine_for(connection).name != "citus":
        return _of_all(tenant_id, query)
    failed = None
    if not nodes.any_away():
        try:
            return _of_all(tenant_id, query)
        except DatabaseError as error:
            if not tenancy.lost_a_node(error) and not isinstance(error.__cause__, pg.QueryCanceled):
                raise
            failed = error
    try:
        return _found(tenant_id, query, apart=True)
    except AllThere:
        if failed is not None:
            raise failed from failed.__cause__
        return _of_all(tenant_id, query)
    except NoneThere:
        detail = "The part of the database that was asked for cannot be reached right now."
        raise Problem(503, "shards_unavailable", detail) from failed


def _still_there(tenant_id: UUID, query: SearchQuery, hits: list[Hit], rest: Rest | None) -> list[Hit]:
    """The results, of reranked candidates."""
    if rest is not None:
        hits = rest.each(hits, lambda own: refine.still_there(own, query))
        return _widened(refine.chosen(hits, query), query, rest)
    with tenancy.snapshot(tenant_id):
        return refine.results(refine.still_there(hits, query), query)


def _widened(hits: list[Hit], query: SearchQuery, rest: Rest) -> list[Hit]:
    return rest.each(hits, lambda own: expand(own, query.expand)) if query.expand else hits


def _found(tenant_id: UUID, query: SearchQuery, *, apart: bool = False) -> _Found:
    """In one snapshot when the query's vector is cached or not needed. Otherwise the transaction is closed while the
    model works, and everything is read anew in another: no connection waits for a model. Where the collections have
    another space by then, once more. apart: each node by itself; raises AllThere, NoneThere."""
    vector, made_for = None, None
    while True:
        with tenancy.snapshot(tenant_id):
            past.refuse_future(query)
            scopes = scopes_of(query.collections)
            space = _space(serving(scopes, query), query)
            if space is not None and space != made_for:
                vector = cached_vector(tenant_id=tenant_id, space=space, query=query.query)
            if space is None or vector is not None:
                return _searched_apart(scopes, query, vector) if apart else _searched(scopes, query, vector)
        made_for, vector = space, new_vector(tenant_id=tenant_id, space=space, query=query.query)


def _as_recalled(tenant_id: UUID, query: SearchQuery) -> _Found | None:
    """In the one round trip of the search itself, where the collections are still as the last searches found them: what
    they are is read with the rows, and the vector is there before. None where they are not.

    Of a replica, where there is one: what it finds is what the primary would find, if its collections are the same and
    the primary says so after it has found it (docs/adr/0016-replicas.md).
    """
    expected = None if query.explain or tenancy.is_open() else recalled(tenant_id, query.collections)
    if not expected:
        return None
    vector = None
    try:
        space = _space(serving(expected, query), query)
        if space is not None:
            vector = cached_vector(tenant_id=tenant_id, space=space, query=query.query)
            if vector is None:
                vector = new_vector(tenant_id=tenant_id, space=space, query=query.query)
        replica = replicas.choose() if _may_be_replicas(query) else None
        if replica and (found := _by(replica, tenant_id, query, expected, vector)):
            holds = cache.holds(tenant_id, query, found.scopes, cache.documents_of(found.hits))
            replica.count("used" if holds else "behind")
            return found if holds else None
        with tenancy.snapshot(tenant_id):
            past.refuse_future(query)
            return _if_unchanged(expected, query, vector)
    except (Problem, EmbeddingError, DatabaseError):
        with tenancy.snapshot(tenant_id):
            if unchanged(expected, scopes_of(query.collections)):  # not because they have changed
                raise
        return None


def _if_unchanged(expected: list[Scope], query: SearchQuery, vector: Vector | None) -> _Found | None:
    """Inside a snapshot: what is found, None where the collections are not as expected."""
    read = reading(query.collections)
    found = _searched(expected, query, vector)
    return found if unchanged(expected, scopes_from(read, query.collections)) else None


def _may_be_replicas(query: SearchQuery) -> bool:
    """May a replica do the search, because the primary can prove what it finds? Who asks for what has just been
    written asks the primary, which is certain to have it."""
    return cache.is_provable(query) and query.consistency != "strong" and not query.min_versions


def _by(
    replica: replicas.Replica, tenant_id: UUID, query: SearchQuery, expected: list[Scope], vector: Vector | None
) -> _Found | None:
    """What a replica finds, to be proved; None where its collections are not as expected, or it fails."""
    try:
        with replica.snapshot(tenant_id):
            found = _if_unchanged(expected, query, vector)
    except (Problem, DatabaseError, replicas.NotFollowing) as error:
        logger.warning("%s has not answered, the primary will: %s", replica.alias, error)
        replica.count("failed")
        return None
    if found is None:
        replica.count("behind")
    return found


def _space(scopes: list[Scope], query: SearchQuery) -> EmbeddingSpace | None:
    """Whose vectors a search needs. Raises Problem 422 `mixed_spaces`: those of different models cannot be compared."""
    if not scopes or (query.mode == "lexical" and not query.diversify):
        return None
    space = one_space(scopes)
    return space if query.mode != "lexical" else None


def _searched(found: list[Scope], query: SearchQuery, vector: Vector | None) -> _Found:
    """Inside a snapshot."""
    embedded = time.perf_counter()
    scopes = serving(found, query)
    rows = rows_of(scopes, query, vector) if scopes else []
    hits = _hits(rows, scopes, query)
    searched = time.perf_counter()
    told = explained(scopes, query, vector) if query.explain and scopes else None
    return _Found(found, scopes, vector, rows, hits, told, embedded, searched)


def _searched_apart(found: list[Scope], query: SearchQuery, vector: Vector | None) -> _Found:
    """Inside a snapshot of the coordinator. Without `explain`: there is no one statement."""
    embedded = time.perf_counter()
    scopes = serving(found, query)
    if not scopes:
        raise AllThere
    rest, rows = rows_apart(scopes[0].tenant_id, scopes, query, vector)
    hits = _candidates(rows, scopes)
    if not query.rerank:
        hits = _widened(refine.chosen(hits, query), query, rest)
    return _Found(found, scopes, vector, rows, hits, None, embedded, time.perf_counter(), rest)


def _hits(rows: list[tuple[Any, ...]], scopes: list[Scope], query: SearchQuery) -> list[Hit]:
    """Inside a scope: the results, or the candidates where a reranker is to see them first."""
    candidates = _candidates(rows, scopes)
    return candidates if query.rerank else refine.results(candidates, query)


def _candidates(rows: list[tuple[Any, ...]], scopes: list[Scope]) -> list[Hit]:
    slugs = {found.id: found.slug for found in scopes}
    return [hit(row, slugs) for row in rows]


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
