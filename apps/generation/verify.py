"""Proving citations: the stored text of the cited version is read again and hashed (invariant I6)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from apps.documents import queries


def verify(citations: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Inside a tenant's scope: {marker, verified, reason?} of each citation, in order.

    Verified: the version is stored, its document not deleted, and characters start..end of its text, in the revision
    that was cited, have the citation's sha256. reason: version_missing, document_deleted or text_differs.
    """
    # What does not begin before it ends is nowhere; a database would not even take it.
    places = {number: span for number, said in enumerate(citations) if 0 <= (span := _span(said)).start <= span.end}
    found = dict(zip(places, queries.spans(list(places.values())), strict=True))
    return [
        _judged(said, _reason(said, found[number]) if number in found else "text_differs")
        for number, said in enumerate(citations)
    ]


def _span(citation: Mapping[str, Any]) -> queries.Span:
    return queries.Span(
        UUID(str(citation["document_id"])),
        citation["version"],
        citation.get("revision", 0),  # of answers from before there were any
        int(citation["start"]),
        int(citation["end"]),
    )


def _judged(citation: Mapping[str, Any], reason: str | None) -> dict[str, Any]:
    judged: dict[str, Any] = {"marker": citation["marker"], "verified": reason is None}
    return judged if reason is None else judged | {"reason": reason}


def _reason(citation: Mapping[str, Any], found: tuple[str, bool] | None) -> str | None:
    if found is None:
        return "version_missing"
    span, deleted = found
    if deleted:
        return "document_deleted"
    matches = hashlib.sha256((span or "").encode()).hexdigest() == citation["sha256"]
    return None if matches and span == citation["quote"] else "text_differs"
