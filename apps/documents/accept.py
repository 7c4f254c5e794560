"""Accepting a document: one transaction, after which it is safe (invariants I2 and I3)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from typing import Any, BinaryIO
from uuid import UUID, uuid4, uuid5

from django.db import InternalError, ProgrammingError, connection, transaction
from django.utils import timezone
from psycopg import errors as pg

from apps.access.problems import Problem, invalid

from . import attributes, db, ledger, metrics
from .collections import hold as hold_collection
from .edit import apply
from .engines import engine_for
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


@dataclass(frozen=True, slots=True)
class _Write:
    """A submission, and the document that it is about as that stands, its row locked."""

    submission: Submission
    digest: bytes
    size: int
    id: UUID
    source_uri: str
    before: Document | None

    @property
    def version(self) -> int:
        return self.submission.version or (self.before.version + 1 if self.before else 1)


def accept(*, collection: Collection, submission: Submission, wake: bool = True, hold: bool = False) -> Accepted:
    """Inside a scope: store a document's new content and the job that will publish it; both or nothing.

    hold: the caller does the job itself: it is claimed as it is written.

    Raises Problem 409 `stale_version`, `id_unavailable`, `id_in_other_collection` or `source_uri_taken`, and 422
    `empty`, or `unknown_collection` when the collection was deleted meanwhile.
    """
    result = accept_many(collection=collection, submissions=[submission], wake=wake, hold=hold)[0]
    if isinstance(result, Problem):
        raise result
    return result


def accept_many(
    *, collection: Collection, submissions: Sequence[Submission], wake: bool = True, hold: bool = False
) -> list[Accepted | Problem]:
    """Inside a scope: `accept` for several documents; what is wrong with one leaves the others alone.

    Takes submissions from the front, up to the first that is about the same document as one before it, and returns
    their results in order: at least one. Give it no more than the engine's `batch`.

    1. One writer at a time per source URI (advisory lock; the database cannot hold that key across partitions).
    2. The same content as the accepted version is `unchanged`: no job, though a higher number is kept.
    3. Otherwise the guarded upsert, the version, the original bytes and the job, in this one transaction.
    4. A wake-up after the commit; if it is lost, the sweeper wakes.
    """
    now = timezone.now()
    hold_collection(collection.id)
    found = _identify(collection, submissions)
    same: list[_Write] = []
    new: list[_Write] = []
    for write in found:
        if isinstance(write, _Write):
            (same if _is_unchanged(write) else new).append(write)
    chosen = any(write.submission.id and write.before is None for write in new)
    try:
        with transaction.atomic() if chosen else nullcontext():
            documents = _upsert(collection, new, now)
    except _ForeignId:
        if len(submissions) == 1:
            return [_unavailable()]
        half = submissions[: len(submissions) // 2]  # whose id it is shows in the end
        return accept_many(collection=collection, submissions=half, wake=wake, hold=hold)
    outcomes: dict[UUID, Accepted | Problem] = {write.id: _repeat(write, now) for write in same}
    outcomes |= {write.id: _not_above(write) for write in new if write.id not in documents}
    stored = [write for write in new if write.id in documents]
    if stored:
        _insert_versions(stored, now)
        _insert_blobs(stored)
        jobs = ledger.open_jobs(
            [documents[write.id] for write in stored],
            sizes=[write.size for write in stored],
            priorities=[PRIORITIES[write.submission.priority] for write in stored],
            hold=hold,
        )
        outcomes |= {each.document_id: Accepted(documents[each.document_id], each, held) for each, held in jobs}
        if any(_shows_otherwise(write, documents[write.id]) for write in stored):
            db.run("bump_epoch", collection=collection.id, documents=0, chunks=0, tokens=0)
        if wake and not hold:
            transaction.on_commit(lambda: ledger.wake(ledger.Stage.PREPARE))
        metrics.DOCUMENTS_ACCEPTED.labels(result="accepted").inc(len(stored))
    return [write if isinstance(write, Problem) else outcomes[write.id] for write in found]


def _identify(collection: Collection, submissions: Sequence[Submission]) -> list[_Write | Problem]:
    """Which documents the submissions are about, their names and rows locked; up to the first one named again."""
    digests = [_digest(each.content) for each in submissions]
    names = _names(submissions, digests)
    db.rows("lock_sources", collection=collection.id, source_uris=names)
    erased = {name: erased_name(collection.id, name) for name in names}
    by_name = db.rows("find_sources", collection=collection.id, source_uris=[*names, *erased.values()])
    chosen = [each.id for each in submissions if each.id is not None]
    stored = _lock([row[0] for row in by_name] + chosen)
    named = {document.source_uri: document for document in stored.values() if document.collection_id == collection.id}
    derived = {name: uuid5(collection.id, name) for name in names if name not in named and erased[name] not in named}
    taken = {row[0] for row in db.rows("taken", ids=list(derived.values()))} if derived else set()
    found: list[_Write | Problem] = []
    seen: set[UUID | str] = set()
    for submission, (digest, size), name in zip(submissions, digests, names, strict=True):
        holder = named.get(name) or named.get(erased[name])
        if holder is not None:
            document_id = holder.id
        else:  # derived from the source URI, but for one whose first document goes by another name now
            document_id = derived[name] if derived[name] not in taken else uuid4()
        if submission.id is not None:
            document_id = submission.id
        if name in seen or document_id in seen or (holder is not None and holder.id in seen):  # it may be renamed first
            break
        seen |= {name, document_id}
        before = stored.get(document_id)
        write = _Write(submission, digest, size, document_id, name, before)
        found.append(_refusal(write, collection, holder) or write)
    return found


def _names(submissions: Sequence[Submission], digests: Sequence[tuple[bytes, int]]) -> list[str]:
    """Source URIs: as given, else what a document that is sent again by its id alone is called."""
    nameless = [each.id for each in submissions if each.id is not None and not each.source_uri]
    known = dict(db.rows("names", ids=nameless)) if nameless else {}
    return [
        each.source_uri or known.get(each.id) or each.filename or f"sha256:{digest.hex()}"
        for each, (digest, _) in zip(submissions, digests, strict=True)
    ]


def _lock(ids: Sequence[UUID]) -> dict[UUID, Document]:
    """The documents of these ids that there are, their rows locked in the order of their ids."""
    found: dict[UUID, Document] = {}
    ids, at_once = sorted(set(ids)), engine_for(connection).batch
    for at in range(0, len(ids), at_once):
        rows = Document.objects.select_for_update().filter(id__in=ids[at : at + at_once]).order_by("id")
        found |= {document.id: document for document in rows}
    return found


def _refusal(write: _Write, collection: Collection, holder: Document | None) -> Problem | None:
    """Why a write cannot be taken whatever its version is. `holder` has its source URI."""
    if not write.size:
        return invalid("/file", "The document is empty.", status=422, code="empty")
    if holder is not None and holder.id != write.id:
        return Problem(
            409,
            "source_uri_taken",
            "Another document of this collection has this source_uri.",
            errors=[{"pointer": "/source_uri", "detail": f"Held by document {holder.id}."}],
        )
    if write.before is not None and write.before.collection_id != collection.id:
        return Problem(409, "id_in_other_collection", "This id belongs to a document in another collection.")
    if write.version > MAX_VERSION:  # the number that a client gave is the last one there is
        return _stale(write.version - 1)
    return None


def _is_unchanged(write: _Write) -> bool:
    """The same bytes as the accepted version, which has not failed and was not deleted."""
    before, submission = write.before, write.submission
    return (
        before is not None
        and before.deleted_at is None
        and before.error is None
        and bytes(before.content_sha256) == write.digest
        and before.media_type == submission.media_type
        and (submission.version is None or submission.version > before.version)
    )


def _repeat(write: _Write, now: datetime) -> Accepted | Problem:
    """Keep a higher number, a new title or new metadata of content that is already accepted."""
    before, submission = write.before, write.submission
    assert before is not None
    if submission.version is not None:
        if not db.rows("raise_version", id=before.id, version=submission.version, now=now):
            return _stale(before.version)
        db.run(
            "repeat_version",
            id=before.id,
            version=submission.version,
            same_as=before.version,
            source_updated_at=submission.source_updated_at,
            now=db.clock(),  # with the document locked, so that it comes after what published the content
        )
    given = {"title": submission.title, "metadata": submission.metadata, "source_uri": submission.source_uri}
    stored = {"title": before.given_title, "metadata": before.metadata, "source_uri": before.source_uri}
    changes = {name: value for name, value in given.items() if value is not None and value != stored[name]}
    if changes or submission.version is not None:
        before = Document.objects.get(id=before.id)
        apply(before, changes, now=now)
        if changes:
            before.refresh_from_db()
    metrics.DOCUMENTS_ACCEPTED.labels(result="unchanged").inc()
    return Accepted(before, None)


class _ForeignId(Exception):
    """An id that exists behind another tenant's wall."""


def _upsert(collection: Collection, writes: Sequence[_Write], now: datetime) -> dict[UUID, Document]:
    """The documents whose stored version was lower, by id. Raises _ForeignId."""
    drafts = {write.id: _draft(write, collection, now) for write in writes}
    if not drafts:
        return {}
    documents, nows = drafts.values(), [now] * len(drafts)
    try:
        accepted = db.rows_of(
            "upsert_documents",
            id=list(drafts),
            tenant=[each.tenant_id for each in documents],
            collection=[each.collection_id for each in documents],
            source_uri=[each.source_uri for each in documents],
            given_title=[each.given_title for each in documents],
            title=[each.title for each in documents],
            metadata=[json.dumps(each.metadata) for each in documents],
            attributes=[attributes.tsvector(collection.tenant_id, each.metadata) for each in documents],
            version=[each.version for each in documents],
            sha256=[each.content_sha256 for each in documents],
            media_type=[each.media_type for each in documents],
            state=[each.state for each in documents],
            pending_since=nows,
            created_at=nows,
            updated_at=nows,
        )
    except (ProgrammingError, InternalError) as error:
        if isinstance(error.__cause__, pg.InsufficientPrivilege):
            raise _ForeignId from error
        raise
    for document_id, live_version, live_revision in accepted:
        drafts[document_id].live_version, drafts[document_id].live_revision = live_version, live_revision
    return {row[0]: drafts[row[0]] for row in accepted}


def _draft(write: _Write, collection: Collection, now: datetime) -> Document:
    """What the document will be; what a submission leaves out stays as it is. Where no title is given, that of the old
    content stays until the new one is live."""
    submission, before = write.submission, write.before
    given_title, metadata, source_uri = submission.title, submission.metadata, write.source_uri
    title = given_title or ""
    if before is not None:
        given_title = before.given_title if given_title is None else given_title
        title = given_title or (before.title if before.live_version else "")
        metadata = before.metadata if metadata is None else metadata
        if submission.source_uri is None and not is_erased(before):
            source_uri = before.source_uri
    return Document(
        id=write.id,
        tenant_id=collection.tenant_id,
        collection=collection,
        source_uri=source_uri,
        given_title=given_title or "",
        title=title,
        metadata=metadata or {},
        version=write.version,
        content_sha256=write.digest,
        media_type=submission.media_type,
        state=Document.State.PENDING,
        updated_at=now,
    )


def _shows_otherwise(write: _Write, document: Document) -> bool:
    """Of a document that answers: is something new said of it, before its new content is live? Filters look at that."""
    before = write.before
    return (
        before is not None
        and before.live_version is not None
        and any(getattr(before, name) != getattr(document, name) for name in ("source_uri", "title", "metadata"))
    )


def _insert_versions(writes: Sequence[_Write], now: datetime) -> None:
    db.run(
        "insert_versions",
        **_versions(writes),
        sha256s=[write.digest for write in writes],
        media_types=[write.submission.media_type for write in writes],
        filenames=[write.submission.filename for write in writes],
        sizes=[write.size for write in writes],
        source_updated_ats=[write.submission.source_updated_at for write in writes],
        now=now,
    )


def _insert_blobs(writes: Sequence[_Write]) -> None:
    """The original bytes: small ones together, a large one part by part."""
    small = [write for write in writes if write.size <= ledger.SMALL_BYTES]
    if small:
        db.run("insert_blobs", **_versions(small), part=0, data=[b"".join(_parts(each.submission)) for each in small])
    for write in writes:
        if write.size > ledger.SMALL_BYTES:
            for number, part in enumerate(_parts(write.submission)):
                db.run("insert_blobs", **_versions([write]), part=number, data=[part])


def _versions(writes: Sequence[_Write]) -> dict[str, Any]:
    """The parameters of {held} in a query (db.py)."""
    return {"documents": [write.id for write in writes], "versions": [write.version for write in writes]}


def _not_above(write: _Write) -> Problem:
    """Of a write whose document has the same version or a higher one: seen, or behind another tenant's wall."""
    current = Document.objects.filter(id=write.id).values_list("version", flat=True).first()
    return _unavailable() if current is None else _stale(current)


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
    """(SHA-256, size in bytes)."""
    content.seek(0)
    digest, size = hashlib.sha256(), 0
    while part := content.read(PART_BYTES):
        digest.update(part)
        size += len(part)
    return digest.digest(), size


def _parts(submission: Submission) -> Iterator[bytes]:
    submission.content.seek(0)
    while part := submission.content.read(PART_BYTES):
        yield part
