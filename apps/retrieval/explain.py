"""How a search finds what it finds, for people: each leg run once more on its own, and what was decided about it.

Shows nothing but the asking tenant's own numbers, and neither statements nor addresses.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.db import connection
from django.db.backends.utils import CursorWrapper

from .statement import QUERIES, RRF_K, compose, index_settings, is_few, legs_of, scans, share
from .types import Scope, SearchQuery

METHODS = {"dense_exact": "exact", "dense_filtered": "filtered", "dense_index": "index", "lexical": "bm25"}


def explained(scopes: Sequence[Scope], query: SearchQuery, vector: Sequence[float] | None) -> dict[str, Any]:
    """Inside the scope of the search, after it: how it was done (docs/search.md has the fields). Costs as much as the
    search itself."""
    with connection.cursor() as cursor:
        part = share(cursor, scopes, query.filter) if query.filter else None
        few = part is not None and not scans(scopes) and is_few(part, scopes)
        legs = legs_of(scopes, query, few=few)
        parameters = compose(scopes, query, vector, few=few)[1]
        told = {leg.partition("_")[0]: _leg(cursor, leg, sql, scopes, parameters) for leg, sql in legs.items()}
    return {
        "mode": query.mode,
        "collections": {scope.slug: {"chunks": scope.chunks, "language": scope.language} for scope in scopes},
        "filter": None if part is None else {"share": round(part, 6)},
        "dense": told.get("dense"),
        "lexical": told.get("lexical"),
        "fusion": {"method": "reciprocal_rank", "k": RRF_K} if query.mode == "hybrid" else None,
        "candidates": query.fetch,
        "diversify": query.diversify,
        "expand": query.expand,
        "seconds_allowed": {
            "search": settings.SEARCH_TIMEOUT_SECONDS,
            "rerank": settings.RERANK_TIMEOUT_SECONDS if query.rerank else None,
        },
    }


def _leg(
    cursor: CursorWrapper, leg: str, sql: str, scopes: Sequence[Scope], parameters: dict[str, Any]
) -> dict[str, Any]:
    """One leg by itself: what it was told, how many candidates it found, and how long that took."""
    told: dict[str, Any] = {"method": METHODS[leg], "wanted": parameters["candidates"]}
    if leg == "dense_index":
        space = scopes[0].space
        pairs = (line.removeprefix("SET LOCAL ").split(" = ") for line in index_settings(space, told["wanted"]))
        told |= {"index": space.index_method, "settings": dict(pairs)}
    if leg == "lexical":
        cursor.execute(QUERIES["leg_terms"].format(leg=sql), parameters)
        told["terms"] = [row[0] for row in cursor.fetchall()]
    began = time.perf_counter()
    cursor.execute(QUERIES["leg_found"].format(leg=sql, name=leg.partition("_")[0]), parameters)
    told["found"] = cursor.fetchone()[0]
    told["ms"] = round((time.perf_counter() - began) * 1000, 3)
    return told
