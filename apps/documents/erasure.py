"""Erasing: a delete after which nothing of a document's content is left in the database (invariant I8).

Whatever keeps something of a document is a *keeper*; other rooms register theirs (`register`). What remains is a
tombstone: ids, the collection, version numbers, and the source URI's digest in place of the URI, so that events about
the erased document stay stale.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from uuid import UUID

from django.contrib.admin.models import LogEntry
from django.db import connection
from django.utils import timezone

from . import db, lexicon
from .models import Document, EmbeddingSpace, IngestionJob, SourceItem

TABLES = (
    *("documents_stagedchunk", "documents_chunk", "documents_blob"),
    *("documents_versionrevision", "documents_documentversion"),
)


@dataclass(frozen=True, slots=True)
class Keeper:
    """A table that may hold something of a document; both functions run inside the tenant's scope and return rows."""

    table: str
    count: Callable[[UUID], int]
    remove: Callable[[UUID], int]


_others: list[Keeper] = []


def register(keeper: Keeper) -> None:
    """Called by a room above this one when it is loaded."""
    _others.append(keeper)


def keepers() -> Iterator[Keeper]:
    """All of them, in an order in which their rows can be removed."""
    spaces = [space.table for space in EmbeddingSpace.objects.order_by("created_at")]
    for table in (*spaces, *TABLES):
        yield _sharded(table)
    jobs, log = IngestionJob.objects, LogEntry.objects.filter(content_type__model="document")
    items = SourceItem.objects
    yield Keeper(
        "documents_sourceitem",
        lambda document_id: items.filter(document_id=document_id).count(),
        lambda document_id: items.filter(document_id=document_id).delete()[0],
    )
    yield Keeper(
        "documents_ingestionjob",
        lambda document_id: jobs.filter(document_id=document_id).count(),
        lambda document_id: jobs.filter(document_id=document_id).delete()[0],
    )
    yield Keeper(
        "django_admin_log",
        lambda document_id: log.filter(object_id=str(document_id)).count(),
        lambda document_id: log.filter(object_id=str(document_id)).delete()[0],
    )
    yield from _others


def erase(document: Document) -> None:
    """Inside a scope, of a document that is deleted and locked: remove its content, leave the tombstone."""
    lexicon.forget(document)
    db.run("forget_drift", collection=document.collection_id)
    for keeper in keepers():
        keeper.remove(document.id)
    name = document.source_uri
    if not is_erased(document):
        db.run("scrub_failures", collection=document.collection_id, source_uri=name)
        name = erased_name(document.collection_id, name)
    db.run("bury_document", document=document.id, source_uri=name, now=timezone.now())


def traces(document_id: UUID) -> dict[str, int]:
    """Inside a scope: rows that hold something of a document, by table. After an erasure all are 0."""
    return {keeper.table: keeper.count(document_id) for keeper in keepers()}


def hold(document_ids: Iterable[UUID]) -> list[UUID]:
    """Inside a scope: keep documents from being erased before this transaction ends. Those that have been."""
    return _missed(document_ids, by="hold_document")


def gone(document_ids: Iterable[UUID]) -> list[UUID]:
    """Inside a scope: those of the documents that have been erased, or removed with their collection."""
    return _missed(document_ids, by="known_document")


def _missed(document_ids: Iterable[UUID], *, by: str) -> list[UUID]:
    wanted = sorted(set(document_ids))  # always in this order, or two that hold could wait for each other
    found = db.rows_of_each(by, [{"document": document_id} for document_id in wanted])
    return [document_id for document_id, rows in zip(wanted, found, strict=True) if not rows]


def is_erased(document: Document) -> bool:
    return document.erased_at is not None


def erased_name(collection_id: UUID, source_uri: str) -> str:
    """What stands in the tombstone for the source URI."""
    return "erased:" + hashlib.sha256(f"{collection_id} {source_uri}".encode()).hexdigest()


def _sharded(table: str) -> Keeper:
    def ask(sql: str, document_id: UUID) -> int:
        with connection.cursor() as cursor:
            cursor.execute(sql, [document_id])
            return cursor.rowcount if cursor.description is None else cursor.fetchone()[0]

    return Keeper(
        table,
        lambda document_id: ask(f'SELECT count(*) FROM "{table}" WHERE document_id = %s', document_id),  # noqa: S608
        lambda document_id: ask(f'DELETE FROM "{table}" WHERE document_id = %s', document_id),  # noqa: S608
    )
