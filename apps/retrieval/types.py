"""What a search takes and gives."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field, fields
from typing import Any
from uuid import UUID

from apps.documents.models import EmbeddingSpace

from .filters import Filter


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """A search of some or (None) all collections of a tenant, by slug. k: 1..200. mode: hybrid, dense or lexical.

    filter: only chunks of documents for which it holds.
    """

    query: str
    collections: tuple[str, ...] | None = None
    k: int = 10
    mode: str = "hybrid"
    filter: Filter | None = None


@dataclass(frozen=True, slots=True)
class Scope:
    """What a search needs to know of a collection: `documents`, `chunks` and `tokens` are of its live rows."""

    tenant_id: UUID
    id: UUID
    slug: str
    epoch: int
    documents: int
    chunks: int
    tokens: int
    language: str
    space: EmbeddingSpace


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk of a document's live version, with where it stands there: text == version text[start:end].

    revision: how often that version has been reindexed; a later reindex may move the chunk or end it.
    page: where it starts, from 1, None where the text has no pages; page_starts and page_numbers: where that page and
    the later ones that the chunk reaches begin, and their numbers, for `page_of`.
    """

    chunk_id: UUID
    document_id: UUID
    version: int
    revision: int
    collection: str
    source_uri: str
    title: str
    heading_path: tuple[str, ...]
    start: int
    end: int
    page: int | None
    page_starts: tuple[int, ...]
    page_numbers: tuple[int | None, ...]
    text: str
    sha256: str
    score: float
    scores: dict[str, float | None]
    metadata: dict[str, Any]
    fresh: bool

    def page_of(self, position: int) -> int | None:
        """The page of a position within the chunk, in code points of the version's text."""
        at = bisect_right(self.page_starts, position)
        return self.page_numbers[at - 1] if at else None


#: What is shown of a hit. (asdict would copy every text and metadata deeply.)
HIT_FIELDS = tuple(each.name for each in fields(Hit) if each.name not in ("page_starts", "page_numbers"))


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Hits, best first; the epoch of each collection they were read at; hits whose document has a newer version."""

    hits: list[Hit]
    snapshot: dict[str, int]
    stale: list[dict[str, Any]] = field(default_factory=list)
    cached: bool = False
    timings: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """As `POST /search` answers it."""
        return {
            "results": [{name: getattr(hit, name) for name in HIT_FIELDS} for hit in self.hits],
            "snapshot": self.snapshot,
            "stale": self.stale,
            "cached": self.cached,
            "timings": self.timings,
        }
