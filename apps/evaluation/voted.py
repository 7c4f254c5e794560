"""Labels from feedback: what an answer cites that readers found good is relevant to its question."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from apps.access.problems import Problem
from apps.documents import collections
from apps.documents.models import Document
from apps.generation.models import Answer, Feedback

from .stored import MAX_QUERIES

Rating = Feedback.Rating


def queries(slug: str) -> list[dict[str, Any]]:
    """Inside a scope: {query, relevant: [{document_id, grade}]} of the newest MAX_QUERIES questions with an answer that
    was voted up by some and down by none, from a collection's documents. Raises Problem 422 for an unknown collection,
    or where there is no such answer.

    That a document is not cited says nothing of it, and that an answer was voted down says nothing of what it cites:
    neither is a label of grade 0.
    """
    collection = collections.find(slug, writing=True)
    down = Feedback.objects.filter(rating=Rating.DOWN).values("answer")
    up = Feedback.objects.filter(rating=Rating.UP).values("answer")
    rows = Answer.objects.filter(id__in=up).exclude(id__in=down).order_by("-created_at")
    cited: dict[str, set[str]] = {}
    for question, citations in rows.values_list("question", "result__citations").iterator():
        if citations and (question in cited or len(cited) < MAX_QUERIES):
            cited.setdefault(question, set()).update(citation["document_id"] for citation in citations)
    there = _documents(collection.id, set().union(*cited.values()))
    labelled = {question: sorted(ids & there) for question, ids in cited.items()}
    found = [
        {"query": question, "relevant": [{"document_id": UUID(id), "grade": 1} for id in ids]}
        for question, ids in labelled.items()
        if ids
    ]
    if not found:
        raise Problem(422, "no_feedback", f"No answer from the collection {slug!r} has been voted up.")
    return found


def _documents(collection_id: UUID, ids: set[str]) -> set[str]:
    """Those among these that the collection has."""
    found = Document.objects.filter(id__in=ids, collection_id=collection_id, deleted_at=None)
    return {str(id) for id in found.values_list("id", flat=True)}
