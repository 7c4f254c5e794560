"""What an installation holds, so that one can ask what becomes of it when it grows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.db.models import Sum

from apps.access import tenancy
from apps.documents import db, partitions
from apps.documents.models import Blob, Chunk, Collection, Document, DocumentVersion, EmbeddingSpace

from .constants import Constants
from .sizes import disk
from .wishes import BadWish, Wishes

LEAST = 1_000  # chunks; the tables of fewer are mostly pages that are not full


@dataclass(frozen=True, slots=True)
class Installed:
    """wishes: fields of Wishes, as they are here. held: bytes by the names of `disk`, some of which share a number."""

    wishes: dict[str, Any]
    held: dict[tuple[str, ...], int]

    def scale(self, constants: Constants) -> dict[str, float]:
        """By the names of `disk`: how many times as much each takes here as is computed."""
        told = disk(Wishes(**self.wishes), constants)
        return {
            name: size / sum(told[each] for each in names)
            for names, size in self.held.items()
            for name in names
            if size
        }


def installed(constants: Constants, *, using: str = "owner") -> Installed:
    """Documents, chunks and tokens as the collections of all tenants count them; rows and bytes as PostgreSQL's
    statistics do. The space is the largest; the vectors of others count as more of its.

    Raises BadWish where there are too few chunks to tell anything.
    """
    documents, chunks, tokens = map(sum, zip(*_counted(), strict=True))
    if chunks < LEAST:
        raise BadWish(f"this installation holds {chunks} chunks; at least {LEAST} are needed to tell from")
    parts: dict[str, list[Any]] = {table: found for _, table, found in partitions.status(using=using)}
    rows = {table: sum(part.rows for part in found) for table, found in parts.items()}
    tables = {table: sum(part.table_bytes for part in found) for table, found in parts.items()}
    indexes = {table: sum(part.indexes_bytes for part in found) for table, found in parts.items()}
    graphs = {table: sum(part.index_bytes or 0 for part in found) for table, found in parts.items()}
    spaces = {space.table: space for space in EmbeddingSpace.objects.using(using).all()}
    space = spaces[max(spaces, key=lambda table: tables[table])]
    document, version, blob, chunk = (model._meta.db_table for model in (Document, DocumentVersion, Blob, Chunk))
    versions = max(1.0, rows[version] / documents)
    retired = max(0.0, rows[chunk] / chunks - 1)
    wishes = {
        "documents": documents,
        "chunks_per_document": chunks / documents,
        "chunk_tokens": max(1.0, tokens / chunks),
        "original_bytes": tables[blob] / max(1, rows[version]) / constants.stored_original,
        "versions": versions,
        "replaced": min(1.0, retired / (versions - 1)) if versions > 1 else 0.0,
        "dimensions": space.dimensions,
        "storage": space.storage,
        "index": "bits" if space.index_parameters.get("binary") else space.index_method,
        "m": space.index_parameters.get("m", 16),
    }
    held = {
        ("documents",): tables[document] + indexes[document],
        ("versions",): tables[version] + indexes[version],
        ("originals",): tables[blob] + indexes[blob],
        ("chunks",): tables[chunk],
        ("keys of chunks", "word index"): indexes[chunk],
        ("vectors",): sum(tables[table] for table in spaces),
        ("keys of vectors",): sum(indexes[table] - graphs[table] for table in spaces),
        ("vector index",): sum(graphs[table] for table in spaces),
    }
    return Installed(wishes, held)


def _counted() -> Iterator[tuple[int, int, int]]:
    """Of each tenant: live documents, chunks and tokens."""
    yield 0, 0, 0
    for tenant_id in {row[0] for row in db.rows("reindex_collections")}:
        with tenancy.scope(tenant_id):
            each = Collection.objects.aggregate(d=Sum("documents"), c=Sum("chunks"), t=Sum("tokens"))
            yield each["d"] or 0, each["c"] or 0, each["t"] or 0
