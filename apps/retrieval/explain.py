"""How a search finds what it finds, for people: each leg run once more on its own, and what was decided about it.

Shows nothing but the asking tenant's own numbers, and neither statements nor addresses.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.db import connection

from apps.access import tenancy

from . import policy
from .lexical import Words
from .statement import QUERIES, Choice, again, choose, index_settings, legs_of
from .types import Scope, SearchQuery, Vector

METHODS = {
    **{"dense_exact": "exact", "dense_filtered": "filtered", "dense_index": "index"},
    **{"dense_binary": "index", "dense_past": "exact", "dense_since": "index", "lexical": "bm25"},
}


def explained(scopes: Sequence[Scope], query: SearchQuery, vector: Vector | None) -> dict[str, Any]:
    """Inside the scope of the search, after it: how it was done (docs/search.md has the fields). Costs as much as the
    search itself."""
    told: dict[str, Any] = {"dense": None, "lexical": None}
    tenancy.set_local({"statement_timeout": f"{settings.SEARCH_TIMEOUT_SECONDS * 1000:.0f}"})  # the search's is used up
    choice, tried = choose(scopes, query), 0
    while True:
        if choice.uses_index:
            tenancy.set_local(index_settings(scopes, query, choice))
        told |= _legs(scopes, query, vector, choice)
        tried += 1
        other = again(scopes, query, choice, told["dense"]["found"]) if told["dense"] else None
        if other is None:
            break
        choice = other
    if told["dense"]:
        told["dense"] |= {"space": scopes[0].space.slug, "tried": tried}
    if choice.uses_index:
        told["dense"]["index"] = scopes[0].space.index_method
        told["dense"]["settings"] = index_settings(scopes, query, choice)
    if choice.words is not None:
        told["lexical"] |= {"terms": _terms(choice.words), "looked_up": choice.words.plan}
    return {
        "mode": query.mode,
        "collections": {scope.slug: {"chunks": scope.chunks, "language": scope.language} for scope in scopes},
        "filter": None if choice.share is None else {"share": round(choice.share, 6)},
        **told,
        "fusion": _fusion(choice.lexical_weight) if query.mode == "hybrid" else None,
        "candidates": query.fetch,
        "diversify": query.diversify,
        "expand": query.expand,
        "seconds_allowed": {
            "search": settings.SEARCH_TIMEOUT_SECONDS,
            "rerank": settings.RERANK_TIMEOUT_SECONDS if query.rerank else None,
        },
    }


def _legs(scopes: Sequence[Scope], query: SearchQuery, vector: Vector | None, choice: Choice) -> dict[str, Any]:
    told = {}
    legs, _, parameters = legs_of(scopes, query, vector, choice)
    with connection.cursor() as cursor:
        for leg, sql in legs.items():
            name = leg.partition("_")[0]
            began = time.perf_counter()
            cursor.execute(QUERIES["leg_found"].format(leg=sql, name=name), parameters)
            found = cursor.fetchone()[0]
            taken = round((time.perf_counter() - began) * 1000, 3)
            told[name] = {"method": METHODS[leg], "wanted": policy.candidates(query), "found": found, "ms": taken}
    return told


def _terms(words: Words) -> list[dict[str, Any]]:
    """chunks: about how many have it, None where that is not counted."""
    return [
        {"term": term.query, "weight": term.weight, "chunks": round(term.counts[0]) if words.counted else None}
        for term in words.terms
    ]


def _fusion(lexical: float) -> dict[str, Any]:
    return {"method": "weighted_scores", "weights": {"dense": round(1 - lexical, 4), "lexical": round(lexical, 4)}}
