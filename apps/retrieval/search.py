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
from django.db.backends.utils import CursorWrapper
from psycopg import errors as pg

from apps.access import tenancy
from apps.access.problems import Problem
from apps.access.sql import execute, load
from apps.documents.db import vector_text
from apps.documents.models import EmbeddingSpace
from apps.documents.spaces import OPERATORS, column_type

from . import metrics
from .filters import Filter
from .query_vectors import cached_vector, new_vector
from .types import Hit, Scope, SearchQuery, SearchResult

QUERIES = load(Path(__file__).parent / "sql")

RRF_K = 60
K1, B = 1.2, 0.75  # BM25's usual constants (Robertson and Zaragoza, 2009)
MAX_TERMS = 64
MAX_MATCHES = 20_000
SAMPLE = 1_000  # documents looked at to tell how many a filter lets pass
FILTERED_ROWS = (
    10_000  # of so few chunks that pass all are compared; the vector index would lose rows on its way to them
)
CANDIDATES = 100  # each leg's depth: fusion needs more than k to choose from
SPACE_FIELDS = (
    *("id", "slug", "backend", "model", "revision", "dimensions"),
    *("metric", "storage", "index_method", "index_parameters"),
)
_FIXED = {"max_terms": MAX_TERMS, "max_matches": MAX_MATCHES, "k1": K1, "b": B, "rrf": RRF_K}


def search(*, tenant_id: UUID, query: SearchQuery) -> SearchResult:
    """The k best live chunks of the collections asked for.

    One transaction and one snapshot when the query's vector is cached or not needed. Otherwise the transaction is
    closed while the model works, and the search reads everything anew in a second one: no connection waits for a model.

    Raises Problem 404 for an unknown collection, 422 `mixed_spaces` when the collections have different embedding
    spaces and the mode is not lexical, 504 `search_timeout`; EmbeddingError when the query cannot be embedded.
    """
    started = time.perf_counter()
    lexical = query.mode == "lexical"
    try:
        with tenancy.scope(tenant_id, repeatable_read=True):
            scopes = scopes_of(query.collections)
            space = _one_space(scopes) if scopes and not lexical else None
            vector = cached_vector(tenant_id=tenant_id, space=space, query=query.query) if space else None
            embedded = time.perf_counter()
            rows = _rows(scopes, query, vector) if scopes and (lexical or vector) else []
        if space is not None and vector is None:
            vector = new_vector(tenant_id=tenant_id, space=space, query=query.query)
            embedded = time.perf_counter()
            with tenancy.scope(tenant_id, repeatable_read=True):
                scopes = [found for found in scopes_of(query.collections) if found.space == space]
                rows = _rows(scopes, query, vector) if scopes else []
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
    slugs = {found.id: found.slug for found in scopes}
    stale = {
        row[1]: {"document_id": row[1], "live_version": row[2], "version": row[3]} for row in rows if row[3] > row[2]
    }
    return SearchResult(
        hits=[_hit(row, slugs) for row in rows],
        snapshot={found.slug: found.epoch for found in scopes},
        stale=list(stale.values()),
        timings={
            "embed_ms": 0.0 if lexical else _ms(embedded - started),
            "search_ms": _ms(ended - embedded),
            "total_ms": _ms(ended - started),
        },
    )


def scopes_of(slugs: Sequence[str] | None) -> list[Scope]:
    """Inside a tenant's scope: its collections of these slugs, or all. Raises Problem 404 naming an unknown one."""
    rows = execute(QUERIES["scopes"], {"slugs": None if slugs is None else list(slugs)}).fetchall()
    found = [_scope(row) for row in rows]
    unknown = sorted(set(slugs or ()) - {scope.slug for scope in found})
    if unknown:
        raise Problem(404, "unknown_collection", f"There is no collection {unknown[0]!r}.")
    return found


def _scope(row: tuple[Any, ...]) -> Scope:
    collection_id, slug, epoch, chunks, tokens, language, *space = row
    values = dict(zip(SPACE_FIELDS, space, strict=True))
    if isinstance(values["index_parameters"], str):  # Django leaves the JSONB of a raw query as text
        values["index_parameters"] = json.loads(values["index_parameters"])
    return Scope(collection_id, slug, epoch, chunks, tokens, language, EmbeddingSpace(**values))


def compose(
    collections: Sequence[Scope], query: SearchQuery, vector: Sequence[float] | None, *, few: bool = False
) -> tuple[str, dict]:
    """The statement and its parameters. Identifiers come from the space's row and constants, values are parameters.

    few: the filter lets few chunks pass.
    """
    chunks = sum(collection.chunks for collection in collections)
    tokens = sum(collection.tokens for collection in collections)
    space = collections[0].space
    legs = []
    if query.mode != "lexical":
        legs.append("dense_exact" if _scans(collections) else "dense_filtered" if few else "dense_index")
    if query.mode != "dense":
        legs.append("lexical")
    names = _FIXED | {"table": space.table, "operator": OPERATORS[space.metric], "type": column_type(space)}
    if query.filter is not None:
        names["filter"] = query.filter.sql
    statement = QUERIES["search"].format(
        legs="\n".join(QUERIES[leg].format(**names, holds=_holds(query, leg)) for leg in legs),
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
        **(query.filter.parameters if query.filter else {}),
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


def _rows(collections: Sequence[Scope], query: SearchQuery, vector: Sequence[float] | None) -> list[tuple[Any, ...]]:
    scans = vector is None or _scans(collections)
    with connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL statement_timeout = {settings.SEARCH_TIMEOUT_SECONDS * 1000:.0f}")
        few = query.filter is not None and not scans and _few(cursor, collections, query.filter)
        statement, parameters = compose(collections, query, vector, few=few)
        if not scans and not few:
            cursor.execute("; ".join(index_settings(collections[0].space, parameters["candidates"])))
        cursor.execute(statement, parameters)
        return cursor.fetchall()


def _holds(query: SearchQuery, leg: str) -> str:
    """The filter as a condition of a leg's rows."""
    if query.filter is None:
        return ""
    return " " + QUERIES["holds"].format(filter=query.filter.sql, row="c" if leg == "lexical" else "e")


def _few(cursor: CursorWrapper, collections: Sequence[Scope], found: Filter) -> bool:
    """Does a filter let so few chunks pass that all of them are compared? Judged by a sample of the documents."""
    parameters = {"collections": [collection.id for collection in collections], **found.parameters}
    cursor.execute(QUERIES["passing"].format(filter=found.sql, sample=SAMPLE), parameters)
    sampled, passing = cursor.fetchone()
    chunks = sum(collection.chunks for collection in collections)
    return passing / max(1, sampled) * chunks <= FILTERED_ROWS


def _scans(collections: Sequence[Scope]) -> bool:
    """So few live chunks that scanning them all is as fast as the vector index, and misses none."""
    return sum(collection.chunks for collection in collections) <= settings.EXACT_SCAN_ROWS


def _one_space(scopes: Sequence[Scope]) -> EmbeddingSpace:
    if any(found.space != scopes[0].space for found in scopes):
        raise Problem(
            422,
            "mixed_spaces",
            "These collections have different embedding spaces; search them one by one, or in lexical mode.",
            errors=[{"pointer": "/collections", "detail": "More than one embedding space."}],
        )
    return scopes[0].space


def _hit(row: tuple[Any, ...], slugs: dict[UUID, str]) -> Hit:
    (
        chunk_id,
        document_id,
        live,
        version,
        revision,
        collection_id,
        source_uri,
        title,
        metadata,
        headings,
        text,
        sha256,
        start,
        end,
        page_starts,
        page_numbers,
        page,
    ) = row[:17]
    score, dense, lexical = row[17:]
    return Hit(
        chunk_id=chunk_id,
        document_id=document_id,
        version=live,
        revision=revision,
        collection=slugs[collection_id],
        source_uri=source_uri,
        title=title,
        heading_path=tuple(headings),
        start=start,
        end=end,
        page=page,
        page_starts=tuple(page_starts or ()),
        page_numbers=tuple(page_numbers or ()),
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
