"""Deleting a document: gone from every search when the transaction commits (invariant I8)."""

from __future__ import annotations

from uuid import UUID

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
        number = version or document.version
        db.run("delete_document", document=document_id, version=number, now=timezone.now())
        if not was_deleted:
            _retire(document, number)
        if erase:
            erasure.erase(document)
        return not was_deleted


def _retire(document: Document, version: int) -> None:
    space = Collection.objects.select_related("space").get(id=document.collection_id).space
    retired = db.rows("retire_all_chunks", document=document.id, version=version)
    db.run("retire_all_embeddings", table=space.table, document=document.id)
    db.run("cancel_document", document=document.id)  # before its stage, in the order of all who end jobs
    db.run("clear_document_stage", document=document.id)
    db.run("clear_document_coming", document=document.id)
    db.run(
        "bump_epoch",
        collection=document.collection_id,
        documents=-1 if document.live_version else 0,
        chunks=-len(retired),
        tokens=-sum(row[0] for row in retired),
    )
