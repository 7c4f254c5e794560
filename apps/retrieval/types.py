"""What a search takes and gives."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt

from apps.documents.models import EmbeddingSpace

from .filters import Filter

Vector = npt.NDArray[np.float32]  # [dimensions]

#: Of the fused candidates so many are looked at where their order may change: at least, per result, and at most.
LEAST, PER_RESULT, MOST = 50, 2, 200


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """A search of some or (None) all collections of a tenant, by slug. k: 1..200. mode: hybrid, dense or lexical.

    filter: only chunks of documents for which it holds. rerank: a model orders the first candidates. diversify: 0..1,
    how much being unlike the better results counts. expand: how many neighbours on either side come with each result.
    explain: tell how it was found. consistency (eventual, bounded or strong) and min_versions: how fresh the answer has
    to be (freshness.py). as_of, or pinned (a document and its version): what it is to be asked of instead of the
    present (past.py). second: by the vectors of the collections' second space, which is being checked. partial: where a
    node of a cluster is away, what the others have will do.
    """

    query: str
    collections: tuple[str, ...] | None = None
    k: int = 10
    mode: str = "hybrid"
    filter: Filter | None = None
    rerank: bool = False
    diversify: float = 0.0
    expand: int = 0
    explain: bool = False
    consistency: str = "eventual"
    min_versions: tuple[tuple[UUID, int], ...] = ()
    as_of: datetime | None = None
    pinned: tuple[UUID, int] | None = None
    second: bool = False
    partial: bool = False

    @property
    def is_past(self) -> bool:
        return self.as_of is not None or self.pinned is not None

    @property
    def fetch(self) -> int:
        """How many candidates are read: k, or more where reranking or diversifying chooses among them."""
        return min(MOST, max(LEAST, PER_RESULT * self.k)) if self.rerank or self.diversify else self.k


@dataclass(frozen=True, slots=True)
class Scope:
    """What a search needs to know of a collection: `documents`, `chunks` and `tokens` are of its live rows; `counted`:
    of how many chunks the words were counted last, as `lexicon` (0: never); `erasures`: how often something was erased,
    which changes these counts. window: the seconds for which a bounded search lets a newer version wait. space: whose
    vectors are searched; second: the one beside it, if there is one, and canary how many percent of the searches it
    answers."""

    tenant_id: UUID
    id: UUID
    slug: str
    epoch: int
    documents: int
    chunks: int
    tokens: int
    language: str
    window: int
    lexicon: int
    counted: int
    erasures: int
    canary: float
    space: EmbeddingSpace
    second: EmbeddingSpace | None


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
    vector: Vector | None = field(default=None, repr=False, compare=False)  # where it was asked for
    deleted: bool = False  # a search of the past finds what has been deleted since
    pending_since: datetime | None = None  # since when the live version has not been the newest one, unless that failed
    version_date: datetime | None = None  # when the source says that the version was written, else when it came in

    def __reduce__(self) -> tuple[type[Hit], tuple[Any, ...]]:
        return Hit, tuple([getattr(self, name) for name in _ALL_FIELDS])  # the dataclass' own takes twice as long

    def page_of(self, position: int) -> int | None:
        """The page of a position within the chunk, in code points of the version's text."""
        at = bisect_right(self.page_starts, position)
        return self.page_numbers[at - 1] if at else None


_ALL_FIELDS = tuple(each.name for each in fields(Hit))
_UNSHOWN = ("page_starts", "page_numbers", "vector", "deleted", "pending_since")
#: What is shown of a hit. (asdict would copy every text and metadata deeply.)
HIT_FIELDS = tuple(name for name in _ALL_FIELDS if name not in _UNSHOWN)


@dataclass(frozen=True, slots=True)
class Reranked:
    """That candidates were given to a reranker; error: why they are in fused order nevertheless."""

    backend: str
    model: str
    candidates: int
    error: str | None
    milliseconds: float

    def as_json(self) -> dict[str, Any]:
        return {"model": self.model, "candidates": self.candidates, "error": self.error}

    def explained(self) -> dict[str, Any]:
        return {"backend": self.backend, **self.as_json(), "ms": self.milliseconds}


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Hits, best first; the epoch of each collection they were read at; documents of hits that have a newer version,
    and others that should have been newer. stale_more: how many more there are of these than are listed. partial: how
    many of the shards were away, None where none was."""

    hits: list[Hit]
    snapshot: dict[str, int]
    stale: list[dict[str, Any]] = field(default_factory=list)
    stale_more: int = 0
    cached: bool = False
    timings: dict[str, float] = field(default_factory=dict)
    rerank: Reranked | None = None
    explain: dict[str, Any] | None = None
    scopes: Sequence[Scope] = ()
    partial: dict[str, int] | None = None

    def as_json(self) -> dict[str, Any]:
        """As `POST /search` answers it."""
        return {
            "results": [{name: getattr(hit, name) for name in HIT_FIELDS} for hit in self.hits],
            "snapshot": self.snapshot,
            "stale": self.stale,
            "stale_more": self.stale_more,
            "partial": self.partial,
            "cached": self.cached,
            "rerank": self.rerank.as_json() if self.rerank else None,
            "timings": self.timings,
            "explain": self.explain,
        }
