"""The collections that a search is about."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Any
from uuid import UUID

from psycopg import Cursor

from apps.access.problems import Problem
from apps.access.recent import Recent
from apps.access.sql import execute
from apps.documents.models import EmbeddingSpace

from .statement import QUERIES
from .types import Scope, SearchQuery

FIELDS = (
    *("tenant_id", "id", "slug", "epoch", "documents", "chunks", "tokens", "language"),
    *("window", "lexicon", "counted", "erasures", "canary"),
)
SPACE_FIELDS = (
    *("id", "slug", "backend", "model", "revision", "dimensions"),
    *("metric", "storage", "index_method", "index_parameters"),
)


#: What collections were when they were read last, and were the time before: a guess, to be compared with what they are.
_recent: Recent[tuple[list[Scope], bool]] = Recent(entries=1_000, bytes=8 * 2**20, seconds=600)


def scopes_of(slugs: Sequence[str] | None) -> list[Scope]:
    """Inside a tenant's scope: its collections of these slugs, or all. Raises Problem 404 naming an unknown one."""
    return scopes_from(reading(slugs), slugs)


def reading(slugs: Sequence[str] | None) -> Cursor:
    """Inside a snapshot: ask for the collections, for `scopes_from`; it is sent with what is executed next."""
    return execute(QUERIES["scopes"], {"slugs": None if slugs is None else list(slugs)})


def scopes_from(read: Cursor, slugs: Sequence[str] | None) -> list[Scope]:
    found = [_scope(row) for row in read.fetchall()]
    unknown = sorted(set(slugs or ()) - {scope.slug for scope in found})
    if unknown:
        raise Problem(404, "unknown_collection", f"There is no collection {unknown[0]!r}.")
    return found


def recalled(tenant_id: UUID, slugs: Sequence[str] | None) -> list[Scope] | None:
    """What these collections probably are now; None where they change from search to search."""
    found, settled = _recent.get((tenant_id, slugs)) or ([], False)
    return found if settled else None


def recall(tenant_id: UUID, slugs: Sequence[str] | None, found: list[Scope]) -> None:
    """What they were now."""
    before, _ = _recent.get((tenant_id, slugs)) or (None, False)
    settled = before is not None and unchanged(before, found)
    _recent.keep((tenant_id, slugs), (found, settled), bytes=500 * (1 + len(found)))


def unchanged(before: Sequence[Scope], now: Sequence[Scope]) -> bool:
    """Their spaces as well, of which `==` compares the keys alone."""
    return before == now and all(
        one.space is other.space and one.second is other.second for one, other in zip(before, now, strict=True)
    )


def serving(scopes: Sequence[Scope], query: SearchQuery) -> list[Scope]:
    """The collections as this query searches them: by their second space where it asks for that, or is among the share
    of queries which that answers; all of them or none. The same query is always answered by the same space.

    Raises Problem 409 `no_second_space`.
    """
    if query.second:
        without = [scope.slug for scope in scopes if scope.second is None]
        if without:
            raise Problem(409, "no_second_space", f"The collection {without[0]!r} has no second embedding space.")
    elif not all(scope.second and _percentile(query.query) < scope.canary for scope in scopes):
        return list(scopes)
    return [replace(scope, space=scope.second) for scope in scopes if scope.second]


def _percentile(text: str) -> float:
    """Where a query stands among all, 0 to 100."""
    return int.from_bytes(blake2b(text.encode(errors="replace"), digest_size=4).digest()) / 2**32 * 100


def _scope(row: tuple[Any, ...]) -> Scope:
    of_space, second = row[len(FIELDS) :][: len(SPACE_FIELDS)], row[len(FIELDS) + len(SPACE_FIELDS) :]
    return Scope(
        **dict(zip(FIELDS, row, strict=False)),
        space=_space(*of_space),
        second=_space(*second) if second[0] else None,
    )


@functools.lru_cache(maxsize=256)  # a model's instance takes longer to make than the rest of a scope
def _space(*values: Any) -> EmbeddingSpace:
    named = dict(zip(SPACE_FIELDS, values, strict=True))
    return EmbeddingSpace(**named | {"index_parameters": json.loads(named["index_parameters"])})


def one_space(scopes: Sequence[Scope]) -> EmbeddingSpace:
    """The embedding space that they share. Raises Problem 422 `mixed_spaces`."""
    if any(found.space != scopes[0].space for found in scopes):
        raise Problem(
            422,
            "mixed_spaces",
            "These collections have different embedding spaces; search them one by one, or in lexical mode.",
            errors=[{"pointer": "/collections", "detail": "More than one embedding space."}],
        )
    return scopes[0].space
