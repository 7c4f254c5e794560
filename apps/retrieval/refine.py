"""From candidates to results: reranked, diversified, cut to k, widened by their neighbours."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace

from django.db import connection

from apps.access import tenancy
from apps.access.problems import invalid
from apps.access.sql import execute

from . import metrics, rerank
from .diversify import mmr
from .expand import expand
from .statement import QUERIES
from .types import Hit, Reranked, SearchQuery

logger = logging.getLogger(__name__)


def reranker_for(query: SearchQuery) -> rerank.Reranker | None:
    """Who is to rerank, None where that is not asked for. Raises Problem 422 `rerank_unavailable`."""
    found = rerank.configured() if query.rerank else None
    if query.rerank and found is None:
        raise invalid("/rerank", "No reranker is configured (RERANK_URL).", status=422, code="rerank_unavailable")
    return found


def reranked(hits: Sequence[Hit], query: SearchQuery, reranker: rerank.Reranker) -> tuple[list[Hit], Reranked]:
    """Outside of a scope: the hits in the reranker's order, of equals the fused one; as they were when it fails."""
    if not tenancy.is_open():
        connection.close()  # goes back to the pool: a model may take seconds, and the pool is small
    began = time.perf_counter()
    error = None
    ordered = list(hits)
    try:
        scores = reranker.scores(query.query, [hit.text for hit in hits])
    except rerank.RerankError as failed:
        logger.warning("results stay in fused order: %s", failed)
        error = failed.code
    else:
        ordered = [
            replace(hit, score=score, scores=hit.scores | {"rerank": score})
            for hit, score in sorted(zip(hits, scores, strict=True), key=lambda pair: -pair[1])
        ]
    taken = time.perf_counter() - began
    metrics.RERANKS.labels(outcome=error or "ok").inc()
    metrics.QUERY_SECONDS.labels(stage="rerank").observe(taken)
    return ordered, Reranked(reranker.backend, reranker.model, len(hits), error, round(taken * 1000, 3))


def still_there(hits: Sequence[Hit], query: SearchQuery) -> list[Hit]:
    """Inside a new scope: without those whose document was deleted or has changed since they were found; of the past,
    where neither matters, without those that were erased."""
    if not hits:
        return []
    names = {"documents": list({hit.document_id for hit in hits}), "versions": list({hit.version for hit in hits})}
    if query.is_past:
        kept = set(execute(QUERIES["kept_now"], names).fetchall())
        return [hit for hit in hits if (hit.document_id, hit.version) in kept]
    live = set(execute(QUERIES["live_now"], names).fetchall())
    return [hit for hit in hits if (hit.document_id, hit.version, hit.revision) in live]


def results(candidates: Sequence[Hit], query: SearchQuery) -> list[Hit]:
    """Inside a scope: of the candidates, best first, the k that are shown, as they are shown."""
    return expand(chosen(candidates, query), query.expand)


def chosen(candidates: Sequence[Hit], query: SearchQuery) -> list[Hit]:
    """Of the candidates, best first, the k that are shown."""
    if not query.diversify:
        return list(candidates[: query.k])
    relevance, vectors = [hit.score for hit in candidates], [hit.vector for hit in candidates]
    order = mmr(relevance, vectors, diversify=query.diversify, k=query.k)
    return [replace(candidates[index], vector=None) for index in order]
