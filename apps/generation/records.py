"""Answers on record: finished with proven citations, stored with what they were made from, read again,
checked.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any
from uuid import UUID

from django.db.models import Q

from apps.access import tenancy
from apps.access.problems import Problem
from apps.documents import erasure

from . import metrics, prompts, structured
from .citations import cite, ground
from .llm import ExtractiveLLM
from .models import Answer, AnswerSource, Conversation, Feedback, LowAnswer, Query
from .replays import difference, passage_json
from .types import AnswerRequest, Task
from .verify import verify
from .writing import Draft

logger = logging.getLogger(__name__)


class SourcesChanged(Exception):
    """What the answer cites is no longer there, or not as it was; `documents` are the ids at fault."""

    def __init__(self, documents: set[str]) -> None:
        super().__init__(f"{len(documents)} cited documents do not verify")
        self.documents = documents


def finish(
    *,
    answer_id: UUID,
    tenant_id: UUID,
    request: AnswerRequest,
    task: Task,
    draft: Draft,
    partial: dict[str, int] | None,
    timings: dict[str, float],
    replay_of: UUID | None = None,
) -> dict[str, Any]:
    """Cite, prove and store a written answer; returns all of it. Raises SourcesChanged, Problem 404 where its
    conversation has been removed.

    partial: as in SearchResult, of the passages. timings: milliseconds so far; `verify_ms` is added, and `total_ms`
    raised by it. replay_of: the id of the answer that it is compared with; gone is changed.
    """
    began = time.perf_counter()
    passages = task.passages
    said = _prose(task, draft)
    citations = cite(said, passages, draft.quotes)
    abstained = prompts.is_abstention(said)
    sentences, grounded = ([], 0.0) if abstained else ground(said, passages)
    usage = draft.usage
    result: dict[str, Any] = {
        "answer": draft.text,
        "citations": citations,
        "sentences": sentences,
        "grounded": grounded,
        "abstained": abstained,
        "model": draft.model,
        "cached": False,
        "degraded": "extractive" if isinstance(draft.backend, ExtractiveLLM) else None,
        "partial": partial,
        "usage": usage.as_json() if usage else None,
        "finish_reason": draft.finish_reason,
        "standalone_question": task.question if task.before else None,
        "prompt_version": prompts.VERSION,
    }
    sources = {passage.hit.document_id for passage in passages}
    sources |= {document for turn in task.before for document in turn.documents}
    with tenancy.scope(tenant_id):
        if request.conversation is not None and not _held(request.conversation):
            raise Problem(404, "not_found", "The conversation has been removed.")
        _hold(sources)
        prove(citations)
        if replay_of is not None:
            result |= _compared(replay_of, result)
        took = round((time.perf_counter() - began) * 1000, 3)
        result["timings"] = timings | {"verify_ms": took, "total_ms": round(timings["total_ms"] + took, 3)}
        row = Answer.objects.create(
            id=answer_id,
            tenant_id=tenant_id,
            question=request.question,
            answer=draft.text,
            model=draft.model,
            request=request.as_json(),
            result=result,
            context={
                "passages": [passage_json(passage) for passage in passages],
                # What was said before is in its own answers: a second copy would outlive their erasure.
                "messages": [task.messages[0], *task.messages[1 + 2 * len(task.before) :]],
                "before": [str(turn.id) for turn in task.before if turn.id],
                "documents_before": [str(document) for turn in task.before for document in turn.documents],
                "parameters": asdict(task.options) | {"backend": draft.backend and draft.backend.backend},
            },
            grounded=grounded,
            abstained=abstained,
            prompt_version=prompts.VERSION,
            replay_of_id=replay_of,
            conversation_id=request.conversation,
        )
        AnswerSource.objects.bulk_create(
            AnswerSource(answer=row, tenant_id=tenant_id, document_id=document_id) for document_id in sorted(sources)
        )
    outcome = "abstained" if abstained else "degraded" if result["degraded"] else "answered"
    metrics.ANSWERS.labels(outcome=outcome).inc()
    return {"id": str(answer_id)} | result


def _prose(task: Task, draft: Draft) -> str:
    """What an answer says, of JSON its strings."""
    if task.response_format is None or prompts.is_abstention(draft.text):
        return draft.text
    return "\n\n".join(structured.strings(draft.text))


def is_grounded(task: Task, draft: Draft, least: float) -> bool:
    """Whether so large a share of an answer's sentences is supported by what they cite."""
    said = _prose(task, draft)
    return prompts.is_abstention(said) or ground(said, task.passages)[1] >= least


def _held(conversation_id: UUID) -> bool:
    """Nobody removes the conversation before this answer of it is committed. False where somebody has."""
    return Conversation.objects.select_for_update(no_key=True).filter(id=conversation_id).exists()


def finish_calls(
    *, answer_id: UUID, tenant_id: UUID, task: Task, draft: Draft, timings: dict[str, float]
) -> dict[str, Any]:
    """What a model says that calls tools; no answer, and not stored. What it says beside the calls is cited all the
    same. Raises SourcesChanged."""
    citations = cite(draft.text, task.passages, draft.quotes)
    if citations:
        with tenancy.scope(tenant_id):
            prove(citations)
    metrics.ANSWERS.labels(outcome="called").inc()
    return {
        "id": str(answer_id),
        "answer": draft.text,
        "calls": list(draft.calls),
        "citations": citations,
        "model": draft.model,
        "cached": False,
        "usage": draft.usage.as_json() if draft.usage else None,
        "finish_reason": draft.finish_reason,
        "timings": timings,
    }


def _hold(document_ids: Iterable[UUID]) -> None:
    """What the model was shown is stored with the answer: none of it may be erased before that is committed, when the
    erasure finds it. Raises SourcesChanged."""
    if gone := erasure.hold(document_ids):
        raise SourcesChanged({str(document_id) for document_id in gone})


def prove(citations: list[dict[str, Any]]) -> None:
    """Inside a scope: every citation, or none: text that cites what is gone must not leave, with or without its
    markers. Raises SourcesChanged."""
    failed: set[str] = set()
    for citation, judged in zip(citations, verify(citations), strict=True):
        if not judged["verified"]:
            metrics.CITATIONS_REFUSED.labels(reason=judged["reason"]).inc()
            logger.error(
                "a citation of document %s version %s does not verify: %s",
                citation["document_id"],
                citation["version"],
                judged["reason"],
            )
            failed.add(citation["document_id"])
    if failed:
        raise SourcesChanged(failed)


def _compared(answer_id: UUID, result: dict[str, Any]) -> dict[str, Any]:
    """What a replay says beyond any answer. Keeps the other from being removed before this one is committed."""
    before = Answer.objects.select_for_update(no_key=True).filter(id=answer_id).first()
    if before is None:
        raise SourcesChanged(set())
    return {"replay_of": str(answer_id), "difference": difference(before.result, result)}


def count_made_from(document_id: UUID) -> int:
    """Inside a scope: how many stored answers were made from a document, whether they cite it or not. Reads them all:
    it is the proof that `forget_made_from` has left none."""
    return Answer.objects.filter(_made_from(document_id)).count()


def _made_from(document_id: UUID, prefix: str = "") -> Q:
    shown = Q(**{f"{prefix}context__passages__contains": [{"document_id": str(document_id)}]})
    return shown | Q(**{f"{prefix}context__documents_before__contains": [str(document_id)]})


def forget_made_from(document_id: UUID) -> int:
    """Inside a scope: remove them."""
    return remove(list(AnswerSource.objects.filter(document_id=document_id).values_list("answer_id", flat=True)))


def remove(answer_ids: Iterable[UUID]) -> int:
    """Inside a scope: remove answers with their replays, and all that hangs on them; how many rows.

    They are locked first: feedback that somebody is giving is waited for and goes too, later one finds no answer.
    """
    locked: list[UUID] = []
    found = Q(id__in=list(answer_ids))
    while new := list(Answer.objects.select_for_update().filter(found).order_by("id").values_list("id", flat=True)):
        locked += new
        found = Q(replay_of__in=new) & ~Q(id__in=locked)
    return Answer.objects.filter(id__in=locked).delete()[0]


def count_sources(document_id: UUID) -> int:
    """Inside a scope: how many answers say that they were made from a document."""
    return AnswerSource.objects.filter(document_id=document_id).count()


def forget_sources(document_id: UUID) -> int:
    """Inside a scope: remove those sayings; they go with their answers, so that none is left."""
    return AnswerSource.objects.filter(document_id=document_id).delete()[0]


def count_hanging(model: type[Feedback | LowAnswer | Query], document_id: UUID) -> int:
    """Inside a scope: how many rows hang on answers that were made from a document."""
    return model.objects.filter(_made_from(document_id, "answer__")).count()


def forget_hanging(model: type[Feedback | LowAnswer], document_id: UUID) -> int:
    """Inside a scope: remove them."""
    return model.objects.filter(answer__sources__document_id=document_id).delete()[0]


def stored(*, tenant_id: UUID, answer_id: UUID) -> dict[str, Any]:
    """A stored answer as it was given. Raises Problem 404."""
    row = row_of(tenant_id, answer_id)
    return {"id": str(row.id)} | row.result


def check(*, tenant_id: UUID, answer_id: UUID) -> dict[str, Any]:
    """{verified, citations: [{marker, verified, reason?}]} of an answer, against the text as it is stored
    now.

    An answer without citations is verified: it claims no source. Raises Problem 404.
    """
    row = row_of(tenant_id, answer_id)
    with tenancy.scope(tenant_id):
        judged = verify(row.result["citations"])
    return {"verified": all(found["verified"] for found in judged), "citations": judged}


def row_of(tenant_id: UUID, answer_id: UUID) -> Answer:
    """Raises Problem 404."""
    with tenancy.scope(tenant_id):
        row = Answer.objects.filter(id=answer_id).first()
    if row is None:
        raise Problem(404, "not_found", "There is no such answer.")
    return row
