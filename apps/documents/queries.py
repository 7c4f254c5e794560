"""Reading documents: each verb is called inside a tenant's scope."""

from __future__ import annotations

import hashlib
import json
import math
import re
from typing import Any
from uuid import UUID

from django.db.models import F, Func, IntegerField, QuerySet

from apps.access.problems import Problem, invalid

from . import db
from .models import Collection, Document, DocumentVersion, IngestionJob

MAX_DIGITS = 300
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")


def document(document_id: UUID) -> Document:
    found = _with_collection().filter(id=document_id).first()
    if found is None:
        raise Problem(404, "not_found", "There is no such document.")
    return found


def documents(parameters: dict[str, str]) -> QuerySet[Document]:
    """Documents by collection, state, source_uri and `metadata.<key>`; deleted ones only when asked for."""
    found = _with_collection()
    if "state" in parameters:
        if parameters["state"] not in Document.State.values:
            raise invalid("/state", f"state is one of {', '.join(Document.State.values)}.")
        found = found.filter(state=parameters["state"])
    else:
        found = found.exclude(state=Document.State.DELETED)
    if "collection" in parameters:
        found = found.filter(collection__in=list(Collection.objects.filter(slug=parameters["collection"])))
    if "source_uri" in parameters:
        found = found.filter(source_uri=parameters["source_uri"])
    for name, value in parameters.items():
        if name.startswith("metadata."):
            key = name.removeprefix("metadata.")
            found = found.filter(metadata__contains={key: value}) | found.filter(metadata__contains={key: _json(value)})
    return found


def _with_collection() -> QuerySet[Document]:
    """A second query instead of a join: Citus cannot join a sharded table with one that it keeps in one place when both
    are behind the wall."""
    return Document.objects.prefetch_related("collection")


def show(found: Document) -> dict[str, Any]:
    """A document as the API gives it."""
    return {
        "id": found.id,
        "collection": found.collection.slug,
        "source_uri": found.source_uri,
        "title": found.title,
        "metadata": found.metadata,
        "version": found.version,
        "live_version": found.live_version,
        "state": found.state,
        "pending_since": found.pending_since,
        "error": found.error,
        "created_at": found.created_at,
        "updated_at": found.updated_at,
    }


def versions(document_id: UUID) -> QuerySet[DocumentVersion]:
    """The versions of a document, newest first, without their texts and arrays."""
    count = Func(F("chunk_ids"), function="cardinality", output_field=IntegerField())
    return (
        DocumentVersion.objects.filter(document_id=document_id)
        .defer("text", "chunk_ids", "starts", "ends", "page_starts")
        .annotate(chunk_count=count)
        .order_by("-version")
    )


def version(document_id: UUID, number: int) -> DocumentVersion:
    found = versions(document_id).filter(version=number).first()
    if found is None:
        raise Problem(404, "not_found", "There is no such version.")
    return found


def text(document_id: UUID, number: int, *, start: int | None, end: int | None) -> dict[str, Any]:
    """A span of a version's normalised text with its sha256; an end past the text is cut to it.

    Raises Problem 400 for start < 0 or start > end, 409 while the version has no text yet.
    """
    found = version(document_id, number)
    if found.characters is None:
        raise Problem(409, "not_ready", "This version has not been parsed yet.")
    first = 0 if start is None else start
    last = found.characters if end is None else end
    if first < 0 or first > last:
        raise invalid("/start", "0 <= start <= end must hold.")
    first, last = min(first, found.characters), min(last, found.characters)
    span = db.rows("version_text", document=document_id, version=number, start=first, length=last - first)[0][0]
    return {"text": span, "start": first, "end": last, "sha256": hashlib.sha256(span.encode()).hexdigest()}


def chunks(document_id: UUID, number: int | None, *, after: int, limit: int) -> tuple[list[dict[str, Any]], int | None]:
    """Chunks of a version (the live one when None) in reading order with that version's offsets, from ordinal `after`.

    Returns (rows, the ordinal to go on from, or None at the end). Raises Problem 404 for an unknown version.
    """
    if number is None:
        live = document(document_id).live_version
        if live is None:
            return [], None
        number = live
    version(document_id, number)
    found = db.rows("version_chunks", document=document_id, version=number, first=after, limit=limit)
    names = ("chunk_id", "ordinal", "start", "end", "text", "sha256", "heading_path", "tokens", "page")
    rows = [dict(zip(names, row, strict=True)) for row in found]
    return rows, (after + limit if len(rows) == limit else None)


def job(job_id: UUID) -> IngestionJob:
    found = IngestionJob.objects.filter(id=job_id).first()
    if found is None:
        raise Problem(404, "not_found", "There is no such job.")
    return found


def _json(value: str) -> Any:
    """A query string's value as JSON would write it: 5 and true match numbers and booleans as well as strings."""
    if value in ("true", "false"):
        return value == "true"
    if len(value) <= MAX_DIGITS and _NUMBER.fullmatch(value):
        number = json.loads(value)
        return number if math.isfinite(number) else value
    return value
