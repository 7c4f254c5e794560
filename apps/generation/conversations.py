"""Conversations: what was said before, and the question that is meant.

A turn is a stored answer. A model is told the last turns within a budget of tokens, newest first, and before that asked
for the question as one would put it without them: with that one the search finds passages, and the answer is kept.
What was said before is no source, and is told to nobody once what it was made from is deleted.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any
from uuid import UUID

from django.db.models import QuerySet

from apps.access import tenancy
from apps.access.problems import Problem, invalid
from apps.documents.embedding.openai_compatible import estimate_tokens
from apps.documents.models import Document
from apps.retrieval.serializers import MAX_QUERY

from . import prompts, records
from .llm import LLM, ExtractiveLLM, LLMError
from .markers import MARKER
from .models import Answer, Conversation
from .types import Options, Task, Turn
from .words import words

logger = logging.getLogger(__name__)

#: Turns that are looked at, and shown of a conversation.
MOST_TURNS = 50
#: The share of the model's context that what was said before may take.
SHARE = 4
CONDENSE_TOKENS = 200
CONDENSE_SECONDS = 10.0
#: A question of fewer content words is not understood by itself ("On Sundays?").
FEW_WORDS = 2
_GOING_ON = ("and", "but", "or", "also")
_PRONOUNS = "it its they them their that this those these he she him her there then one ones else"
_TOKEN = re.compile(r"\w+")
_LEANING = frozenset(_PRONOUNS.split())


def create(*, tenant_id: UUID, title: str = "") -> Conversation:
    with tenancy.scope(tenant_id):
        return Conversation.objects.create(tenant_id=tenant_id, title=title)


def find(conversation_id: UUID) -> Conversation:
    """Inside a scope. Raises Problem 404."""
    row = Conversation.objects.filter(id=conversation_id).first()
    if row is None:
        raise Problem(404, "not_found", "There is no such conversation.")
    return row


def remove(*, tenant_id: UUID, conversation_id: UUID) -> None:
    """With its answers, their replays and all that hangs on them. Raises Problem 404."""

    def removed() -> None:
        row = find(conversation_id)
        Conversation.objects.select_for_update().get(id=row.id)  # an answer that is being stored waits, and finds none
        records.remove(row.turns.values_list("id", flat=True))
        row.delete()

    tenancy.run(tenant_id, removed)


def show(row: Conversation) -> dict[str, Any]:
    return {"id": row.id, "title": row.title, "created_at": row.created_at}


def show_turn(row: Answer) -> dict[str, Any]:
    return {
        "id": row.id,
        "question": row.question,
        "standalone_question": row.result.get("standalone_question"),
        "answer": row.answer,
        "citations": row.result["citations"],
        "created_at": row.created_at,
    }


def turns(row: Conversation) -> QuerySet[Answer]:
    """Inside a scope: the newest first."""
    return row.turns.filter(replay_of=None).order_by("-created_at", "-id")


def said_before(conversation_id: UUID, *, context_tokens: int) -> tuple[Turn, ...]:
    """Inside a scope: the last turns that fit, oldest first. Raises Problem 400 where there is no such conversation."""
    row = Conversation.objects.filter(id=conversation_id).first()
    if row is None:
        raise invalid("/conversation", "There is no such conversation.", code="unknown_conversation")
    return within([_turn(answer) for answer in reversed(_read(turns(row))[:MOST_TURNS])], context_tokens=context_tokens)


def as_it_was(answer_ids: Sequence[str]) -> tuple[Turn, ...] | None:
    """Inside a scope: these turns again; None where one cannot be had any more."""
    rows = {str(row.id): row for row in _read(Answer.objects.filter(id__in=answer_ids))}
    if len(rows) < len(answer_ids):
        return None
    found = [_turn(rows[answer_id]) for answer_id in answer_ids]
    return tuple(found) if len(_undeleted(found)) == len(found) else None


def _read(rows: QuerySet[Answer]) -> QuerySet[Answer]:
    """What a turn is made of, and not the passages and messages of each."""
    return rows.only("question", "answer", "created_at").prefetch_related("sources")


def _turn(row: Answer) -> Turn:
    return Turn(row.question, row.answer, row.id, tuple(sorted(source.document_id for source in row.sources.all())))


def within(turns: Sequence[Turn], *, context_tokens: int) -> tuple[Turn, ...]:
    """Inside a scope: the last turns that fit into their share of a model's context, without those whose sources are
    deleted."""
    room = context_tokens // SHARE
    kept: list[Turn] = []
    for turn in reversed(_undeleted(turns)):
        room -= sum(estimate_tokens(each["content"]) + prompts.MESSAGE_OVERHEAD for each in prompts.said(turn))
        if room < 0:
            break
        kept.append(turn)
    return tuple(reversed(kept))


def _undeleted(turns: Sequence[Turn]) -> list[Turn]:
    documents = {document for turn in turns for document in turn.documents}
    deleted = set()
    if documents:
        rows = Document.objects.filter(id__in=documents, deleted_at__isnull=False)
        deleted = set(rows.values_list("id", flat=True))
    return [turn for turn in turns if deleted.isdisjoint(turn.documents)]


async def condensed(question: str, before: Sequence[Turn], models: Sequence[LLM]) -> str:
    """The question as one would put it who had not said anything before: by the first model that does, else by the
    words of the question before where this one leans on it."""
    task = Task(question, (), prompts.condense(question, before), Options(max_tokens=CONDENSE_TOKENS, temperature=0.0))
    for model in models:
        if isinstance(model, ExtractiveLLM):
            continue
        try:
            async with asyncio.timeout(CONDENSE_SECONDS):
                said = await _whole(model, task)
        except (LLMError, TimeoutError) as error:
            logger.warning("a question is not put anew by the %s backend: %s", model.backend, error)
            continue
        said = " ".join(MARKER.sub("", said).split()).strip("\"'“”")
        if said and len(said) <= MAX_QUERY:
            return said
    return f"{before[-1].question} {question}"[:MAX_QUERY] if leans(question) else question


async def _whole(model: LLM, task: Task) -> str:
    text = ""
    async with aclosing(model.stream(task)) as deltas:
        async for delta in deltas:
            text += delta.text
    return text


def leans(question: str) -> bool:
    """Is a question likely to mean something that was said before?"""
    said = _TOKEN.findall(question.casefold())
    return len(words(question)) < FEW_WORDS or said[0] in _GOING_ON or not _LEANING.isdisjoint(said)
