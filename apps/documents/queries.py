"""Reading documents: each verb is called inside a tenant's scope."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple
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
        "live_revision": found.live_revision,
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
        .defer("text", "chunk_ids", "starts", "ends", "page_starts", "page_numbers")
        .annotate(chunk_count=count)
        .order_by("-version")
    )


def version(document_id: UUID, number: int) -> DocumentVersion:
    found = versions(document_id).filter(version=number).first()
    if found is None:
        raise Problem(404, "not_found", "There is no such version.")
    return found


def text(
    document_id: UUID,
    number: int,
    *,
    start: int | None,
    end: int | None,
    revision: int | None = None,
    sha256: str | None = None,
) -> dict[str, Any]:
    """A span of a version's normalised text with its sha256; an end past the text is cut to it.

    revision: the text as it was in it, else as it is now. sha256: as it was in the newest revision in which the span
    has this digest. Raises Problem 400 for start < 0 or start > end, 404 where there is no such revision, 409 while the
    version has no text yet.
    """
    found = version(document_id, number)
    if found.characters is None:
        raise Problem(409, "not_ready", "This version has not been parsed yet.")
    first, characters = start or 0, found.characters
    if revision is not None and revision != found.revision:
        kept = db.rows("revision_characters", document=document_id, version=number, revision=revision)
        if not kept:
            raise Problem(404, "not_found", "There is no such revision of this version.")
        characters = kept[0][0]
    last = characters if end is None else end
    if first < 0 or first > last:
        raise invalid("/start", "0 <= start <= end must hold.")
    if sha256 is not None:
        at: dict[str, Any] = {"start": first, "length": last - first}
        with_it = db.rows("revision_with", document=document_id, version=number, **at, sha256=sha256.lower())
        if not with_it:
            raise Problem(404, "not_found", "In no revision of this version does the span have this SHA-256.")
        revision, characters = with_it[0]
    first, last = min(first, characters), min(last, characters)
    revision = found.revision if revision is None else revision
    there = spans([Span(document_id, number, revision, first, last)])[0]
    content = there[0] if there else ""
    digest = hashlib.sha256(content.encode()).hexdigest()
    return {"text": content, "revision": revision, "start": first, "end": last, "sha256": digest}


class Span(NamedTuple):
    """Characters start..end of a version's text as it was in a revision."""

    document_id: UUID
    version: int
    revision: int
    start: int
    end: int


def spans(wanted: Sequence[Span]) -> list[tuple[str, bool] | None]:
    """Inside a scope: of each (its text, is the document deleted?), or None where there is no such version or
    revision."""
    found = db.rows_of_each(
        "version_text",
        [
            {
                "document": span.document_id,
                "version": span.version,
                "revision": span.revision,
                "start": span.start,
                "length": span.end - span.start,
            }
            for span in wanted
        ],
    )
    return [rows[0] if rows else None for rows in found]


def chunks(document_id: UUID, number: int | None, *, after: int, limit: int) -> tuple[list[dict[str, Any]], int | None]:
    """Chunks of a version (the live one when None) in reading order with that version's offsets, from ordinal `after`.

    Returns (rows, the ordinal to go on from, or None at the end). Raises Problem 404 for an unknown version.
    """
    if number is None:
        live = document(document_id).live_version
        if live is None:
            return [], None
        number = live
    revision = version(document_id, number).revision
    found = db.rows("version_chunks", document=document_id, version=number, first=after, limit=limit)
    names = ("chunk_id", "ordinal", "start", "end", "text", "sha256", "heading_path", "tokens", "page")
    rows = [dict(zip(names, row, strict=True)) | {"revision": revision} for row in found]
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
