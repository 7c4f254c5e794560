"""What there shall be."""

from __future__ import annotations

from dataclasses import dataclass


class BadWish(ValueError):
    """A wish that cannot be computed with; says which and why."""


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What there shall be. Raises BadWish."""

    documents: float
    chunks_per_document: float = 10
    chunk_tokens: float = 150
    original_bytes: float | None = None  # of a document; None: as many as its text has
    versions: float = 1.5  # kept of a document, the live one too
    replaced: float = 0.2  # of a document's chunks by a new version
    changed_per_day: float = 0.01  # of the documents
    added_per_hour: float = 0  # documents
    dimensions: int = 384
    storage: str = "halfvec"
    index: str = "hnsw"  # or bits (HNSW over one bit for each dimension), or ivfflat
    m: int = 16
    searches_per_second: float = 10
    hybrid: float = 1  # of the searches; the others are dense
    new_queries: float = 1  # of the searches: their vector is not kept from before
    load_hours: float = 24  # in which everything is embedded for the first time
    job_days: float = 7  # JOB_RETENTION_DAYS
    engine: str = "auto"
    graphs: int | None = None  # partitions or shards; None: as few as there may be
    node_memory: float = 64 * 2**30
    node_cores: int = 16  # processors as the system counts them: hyper-threads
    cached: str = "all"  # or indexes: then searches read rows from the disk
    busy: float = 0.5  # of the processors, at most

    def __post_init__(self) -> None:
        for name in ("documents", "chunks_per_document", "chunk_tokens", "load_hours", "node_memory", "node_cores"):
            _check(getattr(self, name) > 0, name, "has to be above 0")
        for name in ("changed_per_day", "added_per_hour", "searches_per_second", "job_days"):
            _check(getattr(self, name) >= 0, name, "cannot be below 0")
        for name in ("replaced", "hybrid", "new_queries"):
            _check(0 <= getattr(self, name) <= 1, name, "is a share, from 0 to 1")
        _check(0 < self.busy <= 1, "busy", "is a share, above 0 and at most 1")
        _check(self.versions >= 1, "versions", "cannot be below 1: the live one is kept")
        _check(self.original_bytes is None or self.original_bytes >= 0, "original_bytes", "cannot be below 0")
        _check(self.graphs is None or self.graphs >= 1, "graphs", "cannot be below 1")
        _check(2 <= self.m <= 100, "m", "goes from 2 to 100")
        for name, known in (
            ("storage", ("halfvec", "vector")),
            ("index", ("hnsw", "bits", "ivfflat")),
            ("engine", ("auto", "postgres", "citus")),
            ("cached", ("all", "indexes")),
        ):
            _check(getattr(self, name) in known, name, f"is one of {', '.join(known)}")
        most = 4_000 if self.storage == "halfvec" else 2_000
        _check(1 <= self.dimensions <= most, "dimensions", f"go from 1 to {most} for {self.storage}")
        _check(self.chunks <= 1e11, "documents", "are more than this can tell of: 10^11 chunks at most")

    @property
    def chunks(self) -> float:
        """Live ones."""
        return self.documents * self.chunks_per_document

    @property
    def documents_per_day(self) -> float:
        """New and changed."""
        return self.documents * self.changed_per_day + 24 * self.added_per_hour

    @property
    def new_chunks_per_day(self) -> float:
        """To embed and publish."""
        return self.replaced_per_day + 24 * self.added_per_hour * self.chunks_per_document

    @property
    def replaced_per_day(self) -> float:
        """Chunks that give way to others."""
        return self.chunks * self.changed_per_day * self.replaced

    @property
    def vector_bytes(self) -> int:
        return 8 + self.dimensions * (2 if self.storage == "halfvec" else 4)

    @property
    def indexed_bytes(self) -> int:
        """Of what the vector index holds of a vector."""
        return 8 + -(-self.dimensions // 8) if self.index == "bits" else self.vector_bytes


def _check(holds: bool, name: str, why: str) -> None:
    if not holds:
        raise BadWish(f"{name.replace('_', ' ')} {why}")
