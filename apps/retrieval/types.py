"""What a search takes and gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from apps.documents.models import EmbeddingSpace


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """A search of some or (None) all collections of a tenant, by slug. k: 1..200. mode: hybrid, dense or lexical."""

    query: str
    collections: tuple[str, ...] | None = None
    k: int = 10
    mode: str = "hybrid"


@dataclass(frozen=True, slots=True)
class Scope:
    """What a search needs to know of a collection: `chunks` and `tokens` are of its live rows."""

    id: UUID
    slug: str
    epoch: int
    chunks: int
    tokens: int
    language: str
    space: EmbeddingSpace


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk of a document's live version, with where it stands there: text == version text[start:end]."""

    chunk_id: UUID
    document_id: UUID
    version: int
    collection: str
    source_uri: str
    title: str
    heading_path: tuple[str, ...]
    start: int
    end: int
    text: str
    sha256: str
    score: float
    scores: dict[str, float | None]
    metadata: dict[str, Any]
    fresh: bool


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Hits, best first; the epoch of each collection they were read at; hits whose document has a newer version."""

    hits: list[Hit]
    snapshot: dict[str, int]
    stale: list[dict[str, Any]] = field(default_factory=list)
    cached: bool = False
    timings: dict[str, float] = field(default_factory=dict)
