"""Several searches at once: one call of the embedding model for all vectors that are not cached."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from uuid import UUID

from apps.access import tenancy
from apps.access.problems import Problem
from apps.documents.models import EmbeddingSpace

from .freshness import search_fresh
from .query_vectors import cached_vectors, new_vectors
from .scopes import one_space, scopes_of, serving
from .types import Scope, SearchQuery, SearchResult

MOST = 256
MOST_SECONDS = 60.0  # for all of them: a batch keeps a connection that long


def search_batch(*, tenant_id: UUID, queries: Sequence[SearchQuery]) -> list[SearchResult]:
    """The result of each query, in order, all or none; of one snapshot where none of them asks for newer versions to be
    brought live, which is `eventual` and the past, or for a reranker, for which no connection waits.

    Raises what `search_fresh` does, with a pointer to the query at fault, and Problem 504 `search_timeout` when all
    together take longer than a minute.
    """
    ends = time.monotonic() + MOST_SECONDS
    _embed(tenant_id, queries)
    results = []
    apart = any(
        query.rerank or query.partial or (not query.is_past and (query.consistency != "eventual" or query.min_versions))
        for query in queries
    )
    with nullcontext() if apart else tenancy.snapshot(tenant_id, seconds=MOST_SECONDS + tenancy.SPARE_SECONDS):
        for number, query in enumerate(queries):
            if time.monotonic() > ends:
                raise Problem(504, "search_timeout", f"After {MOST_SECONDS:g} s {number} of the queries were answered.")
            with pointing_at(number):
                results.append(search_fresh(tenant_id=tenant_id, query=query))
    return results


def _embed(tenant_id: UUID, queries: Sequence[SearchQuery]) -> None:
    """Have every vector that the queries need cached, without a connection while the model works."""
    wanted: dict[EmbeddingSpace, dict[str, None]] = defaultdict(dict)  # texts, each once and in order
    with tenancy.snapshot(tenant_id):
        found: dict[Sequence[str] | None, list[Scope]] = {}
        for number, query in enumerate(queries):
            if query.mode == "lexical":
                continue
            with pointing_at(number):
                if query.collections not in found:
                    found[query.collections] = scopes_of(query.collections)
                if scopes := serving(found[query.collections], query):
                    wanted[one_space(scopes)][query.query] = None
    for space, texts in wanted.items():
        cached = cached_vectors(tenant_id=tenant_id, space=space, queries=list(texts))
        if missing := [text for text, vector in zip(texts, cached, strict=True) if vector is None]:
            new_vectors(tenant_id=tenant_id, space=space, queries=missing)


@contextmanager
def pointing_at(number: int) -> Iterator[None]:
    """A refusal of one query says which."""
    try:
        yield
    except Problem as problem:
        at = f"/queries/{number}"
        errors = [{**error, "pointer": at + error["pointer"]} for error in problem.errors]
        raise Problem(
            problem.status_code,
            problem.code,
            problem.sentence,
            errors=errors or [{"pointer": at, "detail": problem.sentence}],
            retry_after=problem.retry_after,
            **problem.extra,
        ) from problem
