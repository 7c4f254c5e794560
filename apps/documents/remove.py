"""Deleting a document: gone from every search when the transaction commits (invariant I8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID, uuid4, uuid5

from django.utils import timezone

from apps.access import tenancy
from apps.access.problems import Problem

from . import db, erasure
from .collections import hold
from .models import Collection, Document


def delete(*, tenant_id: UUID, document_id: UUID, version: int | None = None, erase: bool = False) -> bool:
    """Retire all chunks, end all work, keep the version number. False when it was deleted before.

    version: the delete event's own number. One that is not above the stored version is refused as stale, unless it is
    that of the delete itself, told again. erase: leave nothing of the content either (erasure.py).

    Raises Problem 404 for an unknown document and 409 `stale_version`.
    """
    with tenancy.scope(tenant_id):
        collection_id = Document.objects.filter(id=document_id).values_list("collection_id", flat=True).first()
        if collection_id is None:
            raise Problem(404, "not_found", "There is no such document.")
        hold(collection_id)
        document = Document.objects.select_for_update().get(id=document_id)
        was_deleted = document.deleted_at is not None
        if version is not None and (version < document.version if was_deleted else version <= document.version):
            raise Problem(
                409,
                "stale_version",
                f"The stored version is {document.version}.",
                current_version=document.version,
            )
        _retire([] if was_deleted else [document], at={document_id: version or document.version})
        if erase:
            erasure.erase(document)
            if was_deleted:  # searches of the past could find it until now
                db.run("bump_epoch", collection=collection_id, documents=0, chunks=0, tokens=0)
        return not was_deleted


def delete_named(*, collection: Collection, source_uri: str, version: int) -> tuple[Document, bool]:
    """The delete event of a source: (the document as it stands, was it deleted by this?).

    An event may overtake the one that it follows: of a document that nobody has heard of yet it leaves the version
    number, so that what comes late stays stale. Raises Problem 409 `stale_version`.
    """
    with tenancy.scope(collection.tenant_id):
        hold(collection.id)
        db.rows("lock_sources", collection=collection.id, source_uris=[source_uri])
        names = [source_uri, erasure.erased_name(collection.id, source_uri)]
        found = db.rows("find_sources", collection=collection.id, source_uris=names)
        if found:
            deleted = delete(tenant_id=collection.tenant_id, document_id=found[0][0], version=version)
            return Document.objects.get(id=found[0][0]), deleted
        now, derived = timezone.now(), uuid5(collection.id, source_uri)
        taken = bool(db.rows("taken", ids=[derived]))
        tombstone = Document(
            id=uuid4() if taken else derived,
            tenant_id=collection.tenant_id,
            collection=collection,
            source_uri=source_uri,
            version=version,
            deleted_version=version,
            content_sha256=b"",
            state=Document.State.DELETED,
            created_at=now,
            updated_at=now,
            deleted_at=now,
        )
        tombstone.save(force_insert=True)
        return tombstone, True


def delete_many(*, collection: Collection, document_ids: Sequence[UUID]) -> int:
    """Delete documents of a collection, no more than the engine's `batch`. How many there were to delete."""
    with tenancy.scope(collection.tenant_id):
        hold(collection.id)
        locked = Document.objects.select_for_update().filter(id__in=document_ids).order_by("id")
        documents = [document for document in locked if document.deleted_at is None]
        if documents:
            _retire(documents, at={document.id: document.version for document in documents})
        return len(documents)


def _retire(documents: Sequence[Document], *, at: Mapping[UUID, int]) -> None:
    """Inside a scope: note the deletion `at` these version numbers; take out of searches those that were not deleted
    before, all of one collection."""
    held: dict[str, Any] = {"documents": list(at), "versions": list(at.values())}
    now = db.clock()
    db.run("delete_documents", **held, now=now)
    if not documents:
        return
    collection = Collection.objects.select_related("space", "second_space").get(id=documents[0].collection_id)
    retired = db.rows("retire_all_chunks", **held, now=now)
    ids = list(at)
    for space in collection.spaces:
        db.run("retire_all_embeddings", table=space.table, documents=ids)
    db.run("cancel_documents", documents=ids)  # before their stages, in the order of all who end jobs
    db.run("clear_document_stages", documents=ids)
    db.run("clear_coming_of", documents=ids)
    db.run(
        "bump_epoch",
        collection=collection.id,
        documents=-sum(1 for document in documents if document.live_version),
        chunks=-len(retired),
        tokens=-sum(row[0] for row in retired),
    )
