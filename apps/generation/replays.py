"""Answering again from what an answer was made from: its passages as they were, and how the new answer differs."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from apps.access.problems import Problem
from apps.documents import queries
from apps.retrieval.types import Hit

from .models import Answer
from .types import Passage

#: What tells one citation from another; titles and headings are no part of what is cited.
CITED = ("marker", "chunk_id", "version", "revision", "start", "end", "sha256")
_SENTENCE_END = re.compile(r"(?<=[.!?。！？\]])\s+|\n+")


def passage_json(passage: Passage) -> dict[str, Any]:
    """What is stored of a passage: all that it was to the model and to its citations, but for its text. That is read
    from its version again, and proved by the hash."""
    hit = passage.hit
    return {
        "marker": passage.marker,
        "chunk_id": hit.chunk_id,
        "document_id": hit.document_id,
        "version": hit.version,
        "revision": hit.revision,
        "start": hit.start,
        "end": hit.end,
        "sha256": hit.sha256,
        "collection": hit.collection,
        "source_uri": hit.source_uri,
        "title": hit.title,
        "heading_path": list(hit.heading_path),
        "version_date": hit.version_date and hit.version_date.isoformat(),
        "page_starts": list(hit.page_starts),
        "page_numbers": list(hit.page_numbers),
    }


def passages_of(row: Answer) -> tuple[Passage, ...]:
    """Inside a scope: the passages of a stored answer as they were, whatever is live now. Raises Problem 409
    sources_gone where one cannot be had any more, in words that tell nothing of it."""
    told = row.context["passages"]
    wanted = [
        queries.Span(UUID(said["document_id"]), said["version"], said["revision"], said["start"], said["end"])
        for said in told
    ]
    return tuple(map(_passage, told, queries.spans(wanted)))


def _passage(said: Mapping[str, Any], found: tuple[str, bool] | None) -> Passage:
    if found is None:
        raise sources_gone()
    text, deleted = found[0] or "", found[1]
    if deleted or hashlib.sha256(text.encode()).hexdigest() != said["sha256"]:
        raise sources_gone()
    numbers = tuple(said["page_numbers"])
    hit = Hit(
        chunk_id=UUID(said["chunk_id"]),
        document_id=UUID(said["document_id"]),
        version=said["version"],
        revision=said["revision"],
        collection=said["collection"],
        source_uri=said["source_uri"],
        title=said["title"],
        heading_path=tuple(said["heading_path"]),
        start=said["start"],
        end=said["end"],
        page=numbers[0] if numbers else None,
        page_starts=tuple(said["page_starts"]),
        page_numbers=numbers,
        text=text,
        sha256=said["sha256"],
        score=0.0,  # nobody searched
        scores={},
        metadata={},
        fresh=True,
        version_date=datetime.fromisoformat(said["version_date"]) if said.get("version_date") else None,
    )
    return Passage(said["marker"], hit)


def sources_gone() -> Problem:
    return Problem(409, "sources_gone", "A source of this answer has been deleted: it cannot be replayed.")


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """{same, answer_diff, citations_changed} of two answers' bodies. answer_diff: a unified diff with a sentence to
    the line, empty where the texts are the same but for white space between these."""
    old, new = (_SENTENCE_END.split(body["answer"]) for body in (before, after))
    lines = difflib.unified_diff(old, new, "before", "after", lineterm="")
    changed = _cited(before) != _cited(after)
    return {
        "same": before["answer"] == after["answer"] and not changed,
        "answer_diff": "\n".join(lines),
        "citations_changed": changed,
    }


def _cited(body: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    return [tuple(citation.get(name, 0) for name in CITED) for citation in body["citations"]]
