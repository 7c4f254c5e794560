"""What readers say of answers: given, listed with what it is about, gone with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.db.models import QuerySet

from apps.access import tenancy
from apps.access.problems import Problem

from .models import Answer, Feedback

Rating = Feedback.Rating


def give(
    *, tenant_id: UUID, key_id: UUID, answer_id: UUID, rating: str, comment: str = "", tags: Sequence[str] = ()
) -> Feedback:
    """Keep what a key says of an answer, in place of what it has said before. Raises Problem 404."""
    with tenancy.scope(tenant_id):
        # Held, so that an erasure does not pass it between this look and the commit.
        if not Answer.objects.select_for_update(no_key=True).filter(id=answer_id).exists():
            raise Problem(404, "not_found", "There is no such answer.")
        said = {"rating": rating, "comment": comment, "tags": list(dict.fromkeys(tags))}
        return Feedback.objects.update_or_create(
            answer_id=answer_id, key_id=key_id, defaults=said, create_defaults=said | {"tenant_id": tenant_id}
        )[0]


def found(*, rating: str | None = None, tag: str | None = None) -> QuerySet[Feedback]:
    """Inside a scope: feedback with its answers."""
    rows = Feedback.objects.select_related("answer")
    if rating is not None:
        rows = rows.filter(rating=rating)
    return rows if tag is None else rows.filter(tags__contains=[tag])


def show(row: Feedback) -> dict[str, Any]:
    return {
        "id": row.id,
        "answer_id": row.answer_id,
        "rating": row.rating,
        "comment": row.comment,
        "tags": row.tags,
        "created_at": row.created_at,
    }


def show_with_answer(row: Feedback) -> dict[str, Any]:
    """Feedback as it is exported: with the question and the answer that it is about."""
    answer = row.answer
    about = {name: answer.result[name] for name in ("answer", "citations", "grounded", "abstained", "model")}
    return show(row) | {"question": answer.question, "prompt_version": answer.prompt_version} | about
