"""The collections that a search is about."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from typing import Any

from apps.access.problems import Problem
from apps.access.sql import execute
from apps.documents.models import EmbeddingSpace

from .statement import QUERIES
from .types import Scope

FIELDS = (
    *("tenant_id", "id", "slug", "epoch", "documents", "chunks", "tokens", "language"),
    *("window", "lexicon", "counted", "erasures"),
)
SPACE_FIELDS = (
    *("id", "slug", "backend", "model", "revision", "dimensions"),
    *("metric", "storage", "index_method", "index_parameters"),
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
    return Scope(**dict(zip(FIELDS, row, strict=False)), space=_space(*row[len(FIELDS) :]))


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
