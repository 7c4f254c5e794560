"""Search: one SQL statement over a tenant's live chunks - dense, lexical or both."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import DatabaseError, connection

from apps.access import tenancy
from apps.access.problems import Problem
from apps.access.sql import load
from apps.documents.db import vector_text
from apps.documents.engines import engine_for
from apps.documents.models import Collection, EmbeddingSpace
from apps.documents.spaces import OPERATORS, column_type

from . import metrics
from .query_vectors import query_vector
from .types import Hit, SearchQuery, SearchResult

QUERIES = load(Path(__file__).parent / "sql")

RRF_K = 60
K1, B = 1.2, 0.75  # BM25's usual constants (Robertson and Zaragoza, 2009)
MAX_TERMS = 64
MAX_MATCHES = 20_000
CANDIDATES = 100  # each leg's depth: fusion needs more than k to choose from
_FIXED = {"max_terms": MAX_TERMS, "max_matches": MAX_MATCHES, "k1": K1, "b": B, "rrf": RRF_K}


def search(*, tenant_id: UUID, query: SearchQuery) -> SearchResult:
    """The k best live chunks of the collections asked for.

    Raises Problem 404 for an unknown collection, 422 `mixed_spaces` when the collections have different embedding
    spaces and the mode is not lexical; EmbeddingError when the query cannot be embedded.
    """
    started = time.perf_counter()
    with tenancy.scope(tenant_id):
        collections = scope_of(query.collections)
    embedded = started
    vector: Sequence[float] | None = None
    if query.mode != "lexical" and collections:
        space = _one_space(collections)
        vector, _ = query_vector(tenant_id=tenant_id, space=space, query=query.query)
        embedded = time.perf_counter()
        metrics.QUERY_SECONDS.labels(stage="embed").observe(embedded - started)
    try:
        with tenancy.scope(tenant_id, repeatable_read=True):
            # Read again in the search's own snapshot: the epoch must be the one that the hits were read at.
            collections = [found for found in scope_of(query.collections) if found in collections]
            rows = _rows(collections, query, vector) if collections else []
    except DatabaseError:
        if vector is not None:
            metrics.VECTOR_SEARCH_FAILURE.inc()
        raise
    if vector is not None:
        metrics.VECTOR_SEARCH_SUCCESS.inc()
    ended = time.perf_counter()
    metrics.QUERY_SECONDS.labels(stage="search").observe(ended - embedded)
    metrics.QUERY_SECONDS.labels(stage="total").observe(ended - started)
    slugs = {found.id: found.slug for found in collections}
    hits = [_hit(row, slugs) for row in rows]
    stale = {
        row[1]: {"document_id": row[1], "live_version": row[2], "version": row[3]}
        for row in rows
        if row[3] > row[2]
    }
    return SearchResult(
        hits=hits,
        snapshot={found.slug: found.epoch for found in collections},
        stale=list(stale.values()),
        timings={
            "embed_ms": _ms(embedded - started),
            "search_ms": _ms(ended - embedded),
            "total_ms": _ms(ended - started),
        },
    )


def scope_of(slugs: Sequence[str] | None) -> list[Collection]:
    """Inside a scope: the tenant's collections of these slugs, or all. Raises Problem 404 naming an unknown one."""
    found = Collection.objects.select_related("space").order_by("slug")
    if slugs is None:
        return list(found)
    chosen = list(found.filter(slug__in=slugs))
    unknown = sorted(set(slugs) - {collection.slug for collection in chosen})
    if unknown:
        raise Problem(404, "unknown_collection", f"There is no collection {unknown[0]!r}.")
    return chosen


def compose(
    collections: Sequence[Collection], query: SearchQuery, vector: Sequence[float] | None
) -> tuple[str, dict]:
    """The statement and its parameters. Identifiers come from the space's row and constants, values are parameters."""
    chunks = sum(collection.chunks for collection in collections)
    tokens = sum(collection.tokens for collection in collections)
    space = collections[0].space
    legs = []
    if query.mode != "lexical":
        legs.append("dense_exact" if chunks <= settings.EXACT_SCAN_ROWS else "dense_index")
    if query.mode != "dense":
        legs.append("lexical")
    names = _FIXED | {"table": space.table, "operator": OPERATORS[space.metric], "type": column_type(space)}
    statement = QUERIES["search"].format(
        legs="\n".join(QUERIES[leg].format(**names) for leg in legs),
        fusion=QUERIES["fuse_" + query.mode].format(**names),
    )
    parameters = {
        "query": query.query,
        "vector": vector_text(vector) if vector is not None else None,
        "collections": [collection.id for collection in collections],
        "languages": sorted({collection.language for collection in collections}),
        "candidates": max(CANDIDATES, query.k),
        "fetch": query.k,
        "chunks": chunks,
        "average": max(1.0, tokens / chunks if chunks else 1.0),
    }
    return statement, parameters


def index_settings(space: EmbeddingSpace, candidates: int) -> list[str]:
    """SET LOCAL statements for the vector index: enough candidates visited, and more where a filter eats them."""
    if space.index_method == EmbeddingSpace.Index.HNSW:
        return [
            f"SET LOCAL hnsw.ef_search = {min(1000, candidates)}",
            "SET LOCAL hnsw.iterative_scan = relaxed_order",
        ]
    lists = int(space.index_parameters.get("lists", 1))
    probes = max(1, min(lists, round(lists**0.5) * 2))
    return [f"SET LOCAL ivfflat.probes = {probes}", "SET LOCAL ivfflat.iterative_scan = relaxed_order"]


def _rows(
    collections: Sequence[Collection], query: SearchQuery, vector: Sequence[float] | None
) -> list[tuple[Any, ...]]:
    statement, parameters = compose(collections, query, vector)
    with connection.cursor() as cursor:
        if vector is not None:
            prepare = [*_engine_settings(), *index_settings(collections[0].space, parameters["candidates"])]
            cursor.execute("; ".join(prepare))
        cursor.execute(statement, parameters)
        return cursor.fetchall()


def _engine_settings() -> list[str]:
    return engine_for(connection).prepare_session()


def _one_space(collections: Sequence[Collection]) -> EmbeddingSpace:
    spaces = {collection.space_id: collection.space for collection in collections}
    if len(spaces) > 1:
        raise Problem(
            422,
            "mixed_spaces",
            "These collections have different embedding spaces; search them one by one, or in lexical mode.",
            errors=[{"pointer": "/collections", "detail": "More than one embedding space."}],
        )
    return next(iter(spaces.values()))


def _hit(row: tuple[Any, ...], slugs: dict[UUID, str]) -> Hit:
    (
        chunk_id,
        document_id,
        live,
        version,
        collection_id,
        source_uri,
        title,
        metadata,
        headings,
        text,
        sha256,
        start,
        end,
    ) = row[:13]
    score, dense, lexical = row[13:]
    return Hit(
        chunk_id=chunk_id,
        document_id=document_id,
        version=live,
        collection=slugs[collection_id],
        source_uri=source_uri,
        title=title,
        heading_path=tuple(headings),
        start=start,
        end=end,
        text=text,
        sha256=sha256,
        score=score,
        scores={
            "dense": dense,
            "lexical": lexical,
            "fused": score if dense is not None and lexical is not None else None,
            "rerank": None,
        },
        metadata=json.loads(metadata) if isinstance(metadata, str) else metadata,
        fresh=version == live,
    )


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
