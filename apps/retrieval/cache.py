"""Results of searches, kept in this process for the next time that the same is asked.

1. A result is kept under its tenant and every field of its query, with the collections as it read them: ids, epochs,
   spaces, counters.
2. When the same is asked again, one round trip reads those collections. Are they as they were, nothing that a search
   of them returns has been committed since: every transaction that changes it raises an epoch (invariant I8). So no
   process serves what another has replaced, and none has to be told.
3. The same round trip asks whether one of the found documents has a newer version on its way, which its acceptance
   does not raise an epoch for. Then nothing is taken from here: `fresh` and `stale` are true, and whoever asks for
   more than what is live gets it.

What a read replica has found is proved in the same way, by the primary (`holds`), before it is given at all.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Hashable, Sequence
from dataclasses import replace
from uuid import UUID

from django.conf import settings
from django.db import connection

from apps.access import tenancy
from apps.access.recent import Recent
from apps.access.sql import execute
from apps.documents.engines import engine_for

from . import metrics
from .scopes import scopes_of
from .statement import QUERIES
from .types import Hit, Scope, SearchQuery, SearchResult

_ENTRY_BYTES = 1_000  # of an entry beside the pickled result: key, collections, bookkeeping

#: Results are kept pickled: their size is known, and nobody can change what is kept.
_recent: Recent[tuple[list[Scope], bytes, list[UUID]]] = Recent(
    entries=10_000, bytes=settings.RESULT_CACHE_MB * 2**20, seconds=600
)


def lookup(tenant_id: UUID, query: SearchQuery) -> SearchResult | None:
    """What the same query found before, where it would find the same now. Raises Problem 404 as a search does."""
    if not is_provable(query):
        return None
    started = time.perf_counter()
    kept = _recent.get(_key(tenant_id, query))
    if kept is None or not holds(tenant_id, query, kept[0], kept[2]):
        metrics.CACHE.labels(cache="result", outcome="miss").inc()
        return None
    metrics.CACHE.labels(cache="result", outcome="hit").inc()
    found: SearchResult = pickle.loads(kept[1])  # this process has pickled it
    took = time.perf_counter() - started
    metrics.QUERY_SECONDS.labels(stage="total").observe(took)
    milliseconds = round(took * 1000, 3)
    timings = {"embed_ms": 0.0, "search_ms": milliseconds, "rerank_ms": 0.0, "total_ms": milliseconds}
    return replace(found, cached=True, timings=timings)


def keep(tenant_id: UUID, query: SearchQuery, found: SearchResult) -> None:
    """Keep a result with the collections that it was read from, in the same snapshot; not a makeshift."""
    if not settings.RESULT_CACHE_MB or not is_provable(query) or found.stale or (found.rerank and found.rerank.error):
        return
    scopes = list(found.scopes)
    pickled = pickle.dumps(found, protocol=pickle.HIGHEST_PROTOCOL)
    documents = documents_of(found.hits)
    size = len(pickled) + _ENTRY_BYTES + 500 * len(scopes) + 100 * len(documents)
    _recent.keep(_key(tenant_id, query), (scopes, pickled, documents), bytes=size)


def _key(tenant_id: UUID, query: SearchQuery) -> Hashable:
    """A dataclass shows all its fields, so that one which comes later is not forgotten here."""
    return tenant_id, repr(query)


def is_provable(query: SearchQuery) -> bool:
    """Can be told later, by `holds`, whether a search would find the same? Acceptances and failures change `updated_at`
    without an epoch, and who wants an explanation wants that of this search. The past is erased without an epoch. On a
    cluster a search may see the epoch of a publish before it sees all that was published."""
    changes = query.filter is not None and "updated_at" in query.filter.sql
    return not changes and not query.explain and not query.is_past and engine_for(connection).whole_snapshots


def documents_of(hits: Sequence[Hit]) -> list[UUID]:
    return list({hit.document_id for hit in hits})


def holds(tenant_id: UUID, query: SearchQuery, scopes: Sequence[Scope], documents: list[UUID]) -> bool:
    """Would a search find now what it found of collections as they were, in these documents? Raises Problem 404."""
    with tenancy.snapshot(tenant_id):
        changing = execute(QUERIES["changing"], {"documents": documents})  # sent with the next
        return scopes_of(query.collections) == list(scopes) and not changing.fetchone()
