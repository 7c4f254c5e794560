"""Changing what is said of a document - title, metadata, source URI - without a new version."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from django.utils import timezone

from apps.access.problems import Problem

from . import attributes, collections, db
from .models import Document, DocumentVersion


def edit(document_id: UUID, changes: Mapping[str, Any]) -> None:
    """Inside a scope: another title or metadata. Raises Problem 404 where there is no such document, or no more."""
    found = Document.objects.filter(id=document_id).first()
    if found is not None:
        collections.hold(found.collection_id)
        found = Document.objects.select_for_update().filter(id=document_id, deleted_at=None).first()
    if found is None:
        raise Problem(404, "not_found", "There is no such document.")
    if changes:
        apply(found, changes, now=timezone.now())


def apply(document: Document, changes: Mapping[str, Any], *, now: datetime) -> None:
    """The same of a document whose row is locked, its collection held. An empty title stands for the content's own."""
    values = dict(changes)
    if "title" in values:
        live = DocumentVersion.objects.filter(document_id=document.id, version=document.live_version or 0)
        own = live.values_list("title", flat=True).first() or ""
        values |= {"given_title": values["title"], "title": values["title"] or own}
    if "metadata" in values:
        values["attributes"] = attributes.tsvector(document.tenant_id, values["metadata"])
    if values:
        Document.objects.filter(id=document.id).update(**values, updated_at=now)
    db.run("bump_epoch", collection=document.collection_id, documents=0, chunks=0, tokens=0)
