"""Accepting a document: one transaction, after which it is safe (invariants I2 and I3)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, BinaryIO
from uuid import UUID, uuid4, uuid5

from django.db import InternalError, ProgrammingError, transaction
from django.utils import timezone
from psycopg import errors as pg

from apps.access.problems import Problem, invalid

from . import db, ledger, metrics
from .collections import hold as hold_collection
from .erasure import erased_name, is_erased
from .models import Collection, Document, IngestionJob

PART_BYTES = 2**20
MAX_VERSION = 2**63 - 1
PRIORITIES = {"urgent": 0, "normal": 1, "low": 2}


@dataclass(frozen=True, slots=True)
class Submission:
    """What a client sends. `content` is read twice (hash, then store), so it must be seekable."""

    content: BinaryIO
    media_type: str
    filename: str
    source_uri: str | None = None
    id: UUID | None = None
    title: str | None = None
    metadata: dict[str, Any] | None = None
    version: int | None = None
    priority: str = "normal"
    source_updated_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """The document as it stands after accepting; `job` is None when the content was unchanged.

    held: the job in the hands of whoever accepted it, where that was asked for.
    """

    document: Document
    job: IngestionJob | None
    held: ledger.Claim | None = None

    @property
    def unchanged(self) -> bool:
        return self.job is None


def accept(*, collection: Collection, submission: Submission, wake: bool = True, hold: bool = False) -> Accepted:
    """Inside a scope: store a document's new content and the job that will publish it; both or nothing.

    1. One writer at a time per source URI (advisory lock; the database cannot hold that key across partitions).
    2. The same content as the accepted version is `unchanged`: no job, though a higher number is kept.
    3. Otherwise the guarded upsert, the version, the original bytes and the job, in this one transaction.
    4. A wake-up after the commit; if it is lost, the sweeper wakes.

    hold: the caller does the job itself: it is claimed as it is written.

    Raises Problem 409 `stale_version`, `id_unavailable`, `id_in_other_collection` or `source_uri_taken`, and 422
    `unknown_collection` when the collection was deleted meanwhile.
    """
    digest, size = _digest(submission.content)
    now = timezone.now()
    hold_collection(collection.id)
    source_uri = submission.source_uri or _stored_uri(submission.id) or submission.filename or f"sha256:{digest.hex()}"
    db.rows("lock_source", collection=collection.id, source_uri=source_uri)
    document_id, before = _identify(collection, submission, source_uri)
    if before is not None and _is_unchanged(before, digest, submission):
        after = _raise_version(before, submission, now)
        metrics.DOCUMENTS_ACCEPTED.labels(result="unchanged").inc()
        return Accepted(after, None)
    version = submission.version or (before.version + 1 if before else 1)
    if version > MAX_VERSION:  # the number that a client gave is the last one there is
        raise _stale(version - 1)
    renamed = source_uri if before is not None and is_erased(before) else submission.source_uri
    document = _upsert(collection, document_id, submission, source_uri, renamed, digest, version, now)
    at: dict[str, Any] = {"id": document_id, "version": version, "tenant": collection.tenant_id}
    db.run(
        "insert_version",
        **at,
        sha256=digest,
        media_type=submission.media_type,
        filename=submission.filename,
        bytes=size,
        blob_uri=f"pg:{document_id}/{version}",
        title=submission.title or "",
        source_updated_at=submission.source_updated_at,
        now=now,
    )
    for number, part in enumerate(_parts(submission.content)):
        db.run("insert_blob", **at, part=number, data=part)
    job, held = ledger.open_job(document, size=size, priority=PRIORITIES[submission.priority], hold=hold)
    if wake and not hold:
        transaction.on_commit(lambda: ledger.wake(ledger.Stage.PREPARE))
    metrics.DOCUMENTS_ACCEPTED.labels(result="accepted").inc()
    return Accepted(document, job, held)


def _stored_uri(document_id: UUID | None) -> str | None:
    """What a document that is sent again by its id alone is called."""
    if document_id is None:
        return None
    return Document.objects.values_list("source_uri", flat=True).filter(id=document_id, erased_at=None).first()


def _identify(collection: Collection, submission: Submission, source_uri: str) -> tuple[UUID, Document | None]:
    """Which document a submission is about, its row locked: by the client's id, else by source URI, else a new one."""
    names = (source_uri, erased_name(collection.id, source_uri))
    found = db.rows("find_source", collection=collection.id, source_uri=source_uri, erased=names[1])
    named = Document.objects.select_for_update().filter(collection=collection, source_uri__in=names)
    by_uri = named.filter(id=found[0][0]).first() if found else None
    if submission.id is None:
        return (by_uri.id, by_uri) if by_uri else (_new_id(collection, source_uri), None)
    if by_uri is not None and by_uri.id != submission.id:
        raise Problem(
            409,
            "source_uri_taken",
            "Another document of this collection has this source_uri.",
            errors=[{"pointer": "/source_uri", "detail": f"Held by document {by_uri.id}."}],
        )
    by_id = by_uri or Document.objects.select_for_update().filter(id=submission.id).first()
    if by_id is not None and by_id.collection_id != collection.id:
        raise Problem(409, "id_in_other_collection", "This id belongs to a document in another collection.")
    return submission.id, by_id


def _new_id(collection: Collection, source_uri: str) -> UUID:
    """Derived from the source URI, but for one whose first document goes by another name now."""
    derived = uuid5(collection.id, source_uri)
    return uuid4() if db.rows("is_taken", id=derived) else derived


def _is_unchanged(before: Document, digest: bytes, submission: Submission) -> bool:
    """The same bytes as the accepted version, which has not failed and was not deleted."""
    return (
        before.deleted_at is None
        and before.error is None
        and bytes(before.content_sha256) == digest
        and before.media_type == submission.media_type
        and (submission.version is None or submission.version > before.version)
    )


def _raise_version(before: Document, submission: Submission, now: datetime) -> Document:
    """Keep a higher number, a new title or new metadata of content that is already accepted."""
    if submission.version is not None:
        if not db.rows("raise_version", id=before.id, version=submission.version, now=now):
            raise _stale(before.version)
        db.run(
            "repeat_version",
            id=before.id,
            version=submission.version,
            same_as=before.version,
            source_updated_at=submission.source_updated_at,
            now=now,
        )
    changes: dict[str, Any] = {}
    if submission.title is not None and submission.title != before.title:
        changes["title"] = submission.title
    if submission.metadata is not None and submission.metadata != before.metadata:
        changes["metadata"] = submission.metadata
    if submission.source_uri is not None and submission.source_uri != before.source_uri:
        changes["source_uri"] = submission.source_uri
    if changes:
        Document.objects.filter(id=before.id).update(**changes, updated_at=now)
    if changes or submission.version is not None:
        db.run("bump_epoch", collection=before.collection_id, documents=0, chunks=0, tokens=0)
    return Document.objects.get(id=before.id)


def _upsert(
    collection: Collection,
    document_id: UUID,
    submission: Submission,
    source_uri: str,
    renamed: str | None,
    digest: bytes,
    version: int,
    now: datetime,
) -> Document:
    values = {
        "id": document_id,
        "tenant": collection.tenant_id,
        "collection": collection.id,
        "source_uri": source_uri,
        "renamed": renamed,
        "title": submission.title,
        "metadata": None if submission.metadata is None else json.dumps(submission.metadata),
        "version": version,
        "sha256": digest,
        "media_type": submission.media_type,
        "now": now,
    }
    try:
        accepted = list(Document.objects.raw(db.QUERIES["upsert_document"], values))
    except (ProgrammingError, InternalError) as error:
        if isinstance(error.__cause__, pg.InsufficientPrivilege):
            raise _unavailable()
        raise
    if not accepted:
        current = Document.objects.filter(id=document_id).values_list("version", flat=True).first()
        raise _unavailable() if current is None else _stale(current)
    return accepted[0]


def _unavailable() -> Problem:
    """The row exists behind another tenant's wall. Nothing more may be said of it."""
    return invalid("/id", "This id cannot be used; choose another.", status=409, code="id_unavailable")


def _stale(current: int) -> Problem:
    metrics.DOCUMENTS_ACCEPTED.labels(result="stale").inc()
    return Problem(
        409,
        "stale_version",
        f"The stored version is {current}; a write must carry a higher one. Nothing was changed.",
        current_version=current,
    )


def _digest(content: BinaryIO) -> tuple[bytes, int]:
    content.seek(0)
    digest, size = hashlib.sha256(), 0
    while part := content.read(PART_BYTES):
        digest.update(part)
        size += len(part)
    if not size:
        raise invalid("/file", "The document is empty.", status=422, code="empty")
    return digest.digest(), size


def _parts(content: BinaryIO) -> Iterator[bytes]:
    content.seek(0)
    while part := content.read(PART_BYTES):
        yield part
