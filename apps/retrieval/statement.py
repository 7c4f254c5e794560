"""The one SQL statement of a search: composed from the fragments of sql/search.sql, run, and its rows as hits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import connection
from django.db.backends.utils import CursorWrapper

from apps.access.sql import execute, load
from apps.documents.db import vector_text
from apps.documents.models import EmbeddingSpace
from apps.documents.spaces import OPERATORS, column_type

from .filters import Filter
from .types import Hit, Scope, SearchQuery

QUERIES = load(Path(__file__).parent / "sql")

RRF_K = 60
K1, B = 1.2, 0.75  # BM25's usual constants (Robertson and Zaragoza, 2009)
MAX_TERMS = 64
MAX_MATCHES = 20_000
SAMPLE = 1_000  # documents looked at to tell how many a filter lets pass
#: Of so few chunks that pass a filter all are compared: the vector index would lose rows on its way to them.
FILTERED_ROWS = 10_000
CANDIDATES = 100  # each leg's depth: fusion needs more than k to choose from
_FIXED = {"max_terms": MAX_TERMS, "max_matches": MAX_MATCHES, "k1": K1, "b": B, "rrf": RRF_K}


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


def rows_of(collections: Sequence[Scope], query: SearchQuery, vector: Sequence[float] | None) -> list[tuple[Any, ...]]:
    """Inside a tenant's scope: the rows of a search, best first, each for `hit`."""
    scans = vector is None or _scans(collections)
    with connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL statement_timeout = {settings.SEARCH_TIMEOUT_SECONDS * 1000:.0f}")
        few = query.filter is not None and not scans and _few(cursor, collections, query.filter)
        statement, parameters = compose(collections, query, vector, few=few)
        if not scans and not few:
            for setting in index_settings(collections[0].space, parameters["candidates"]):
                cursor.execute(setting)
    return execute(statement, parameters).fetchall()


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


def hit(row: tuple[Any, ...], slugs: dict[UUID, str]) -> Hit:
    """A row of the statement; slugs: of the collections, by id."""
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
