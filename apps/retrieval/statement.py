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

from apps.access.sql import load
from apps.documents import attributes
from apps.documents.db import vector_text
from apps.documents.spaces import OPERATORS, bits, column_type

from . import policy
from .filters import Filter
from .types import Hit, Scope, SearchQuery

QUERIES = load(Path(__file__).parent / "sql")

RRF_K = 60
K1, B = 1.2, 0.75  # BM25's usual constants (Robertson and Zaragoza, 2009)
MAX_TERMS = 64
MAX_MATCHES = 20_000
SAMPLE = 1_000  # documents looked at to tell how many a filter lets pass
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
        legs.append(_dense(collections, few=few))
    if query.mode != "dense":
        legs.append("lexical")
    type = column_type(space)
    names = _FIXED | {"table": space.table, "operator": OPERATORS[space.metric], "type": type}
    names |= {"bits": bits(space, "embedding"), "asked_bits": bits(space, f"%(vector)s::{type}")}
    if query.filter is not None:
        names |= {"filter": query.filter.sql, "asked": _asked(query.filter)}
    statement = QUERIES["search"].format(
        legs="\n".join(QUERIES[leg].format(**names, holds=_holds(query, leg)) for leg in legs),
        fusion=QUERIES["fuse_" + query.mode].format(**names),
    )
    candidates = policy.candidates(query)
    parameters = {
        "query": query.query,
        "vector": vector_text(vector) if vector is not None else None,
        "collections": [collection.id for collection in collections],
        "languages": sorted({collection.language for collection in collections}),
        "candidates": candidates,
        "oversampled": candidates * policy.OVERSAMPLE,
        "fetch": query.k,
        "chunks": chunks,
        "average": max(1.0, tokens / chunks if chunks else 1.0),
        **(_parameters(collections, query.filter) if query.filter else {}),
    }
    return statement, parameters


def rows_of(collections: Sequence[Scope], query: SearchQuery, vector: Sequence[float] | None) -> list[tuple[Any, ...]]:
    """Inside a tenant's scope: the rows of a search, best first, each for `hit`."""
    scans = vector is None or policy.compares_all(collections)
    with connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL statement_timeout = {settings.SEARCH_TIMEOUT_SECONDS * 1000:.0f}")
        few = query.filter is not None and not scans and _few(cursor, collections, query)
        if not scans and not few:
            cursor.execute("; ".join(index_settings(collections, query)))
        rows = _run(cursor, *compose(collections, query, vector, few=few))
        if len(rows) < query.k and query.mode == "dense" and query.filter is not None and not scans and not few:
            rows = _run(cursor, *compose(collections, query, vector, few=True))
        return rows


def index_settings(collections: Sequence[Scope], query: SearchQuery) -> list[str]:
    """SET LOCAL statements for the search's vector index."""
    wanted, chunks = policy.candidates(query), sum(collection.chunks for collection in collections)
    fewest = policy.most_compared(collections, wanted) if query.filter is not None else 0
    return policy.index_settings(collections[0].space, wanted, chunks, fewest=fewest)


def _run(cursor: CursorWrapper, statement: str, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
    cursor.execute(statement, parameters)
    return cursor.fetchall()


def _dense(collections: Sequence[Scope], *, few: bool) -> str:
    if policy.compares_all(collections):
        return "dense_exact"
    if few:
        return "dense_filtered"
    return "dense_binary" if collections[0].space.index_parameters.get("binary") else "dense_index"


def _holds(query: SearchQuery, leg: str) -> str:
    """The filter as a condition of a leg's rows."""
    if query.filter is None:
        return ""
    return " " + QUERIES["holds"].format(filter=query.filter.sql, row="c" if leg == "lexical" else "e")


def _asked(found: Filter) -> str:
    return QUERIES["asked"] if found.question is not None else "true"


def _parameters(collections: Sequence[Scope], found: Filter) -> dict[str, Any]:
    if found.question is None:
        return found.parameters
    return found.parameters | {"attributes": attributes.tsquery(collections[0].tenant_id, found.question)}


def _few(cursor: CursorWrapper, collections: Sequence[Scope], query: SearchQuery) -> bool:
    """Does the filter let so few chunks pass that all of them are compared? Judged by the documents that pass, or where
    no index finds them, by a sample."""
    found = query.filter
    assert found is not None
    chunks = sum(collection.chunks for collection in collections)
    documents = sum(collection.documents for collection in collections)
    part = policy.most_compared(collections, policy.candidates(query)) / max(1, chunks)
    parameters = {"collections": [collection.id for collection in collections], **_parameters(collections, found)}
    if found.question is None:
        cursor.execute(QUERIES["passing"].format(filter=found.sql, sample=SAMPLE), parameters)
        sampled, passing = cursor.fetchone()
        return passing <= part * sampled
    most = round(part * documents)
    found_sql = QUERIES["found"].format(filter=found.sql, asked=_asked(found))
    cursor.execute(found_sql, parameters | {"most": most + 1})
    return cursor.fetchone()[0] <= most


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
