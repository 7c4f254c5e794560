"""Answering a question: search, prompt, write, cite, verify, store.

1. `prepare` (synchronous, may refuse): search, number the passages, fit them into the model's context. Its
   database connection goes back to the pool before a model is asked.
2. `stream` (asynchronous): lets the model write, with what may not leave held back (markers.py); cites;
   proves every citation against the stored text; stores the answer. Closing the generator stops the model.
3. A model that fails before anything has left is replaced by the extractive answerer, which the answer then
   names.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from typing import Any
from uuid import UUID, uuid4

from asgiref.sync import async_to_sync, sync_to_async
from django.conf import settings
from django.db import connection

from apps.access import tenancy
from apps.access.problems import Problem, document, invalid
from apps.documents.embedding import EmbeddingError
from apps.documents.models import Collection as DocumentCollection
from apps.documents.spaces import embedder_for
from apps.retrieval.metrics import QUERY_SECONDS
from apps.retrieval.search import search
from apps.retrieval.types import Hit, SearchQuery, SearchResult

from . import metrics, prompts
from .citations import cite, ground
from .llm import LLM, ExtractiveLLM, LLMError, configured
from .models import Answer
from .types import AnswerRequest, Embed, Event, Passage, Task
from .verify import verify
from .writing import Draft, write

logger = logging.getLogger(__name__)

#: How often a question is asked again because a source that the answer cites was deleted meanwhile.
ATTEMPTS = 3


class SourcesChanged(Exception):
    """What the answer cites is no longer there, or not as it was; `documents` are the ids at fault."""

    def __init__(self, documents: set[str]) -> None:
        super().__init__(f"{len(documents)} cited documents do not verify")
        self.documents = documents


@dataclass(frozen=True, slots=True)
class Prepared:
    """A question with its passages, ready to be written. started: time.perf_counter() when it came in."""

    id: UUID
    tenant_id: UUID
    request: AnswerRequest
    backend: LLM
    found: SearchResult
    task: Task
    started: float


def answer(*, tenant_id: UUID, request: AnswerRequest) -> dict[str, Any]:
    """The whole answer of API.md, stored.

    Raises Problem: 404 unknown_collection, 400 unknown_model or question_too_long, 503 sources_changed.
    """
    without: set[str] = set()
    for _ in range(ATTEMPTS):
        prepared = prepare(tenant_id=tenant_id, request=request, without=without)
        try:
            return async_to_sync(_whole)(prepared)
        except SourcesChanged as changed:
            without |= changed.documents
    raise _sources_changed()


def prepare(*, tenant_id: UUID, request: AnswerRequest, without: Collection[str] = ()) -> Prepared:
    """Find the passages for a question. without: ids of documents to leave out. Raises Problem as `answer`
    does.
    """
    started = time.perf_counter()
    try:
        backend = async_to_sync(_backend)(request.model)
        query = SearchQuery(query=request.question, collections=request.collections, k=request.k)
        try:
            found = search(tenant_id=tenant_id, query=query)
        except EmbeddingError as error:
            logger.warning("searching by words alone: %s", error)
            found = search(tenant_id=tenant_id, query=replace(query, mode="lexical"))
        hits = [hit for hit in found.hits if str(hit.document_id) not in without]
        embed = _embed(tenant_id, hits[0].collection) if hits else None
    finally:
        _release_connection()
    room = settings.LLM_CONTEXT_TOKENS
    options = replace(request.options, max_tokens=min(request.options.max_tokens, room // 2))
    numbered = prompts.number(hits)
    passages = prompts.fit(
        numbered, question=request.question, context_tokens=room, max_tokens=options.max_tokens
    )
    if numbered and not passages:
        raise invalid("/question", "The question leaves no room for a passage.", code="question_too_long")
    task = Task(request.question, passages, prompts.messages(request.question, passages), options, embed)
    return Prepared(uuid4(), tenant_id, request, backend, replace(found, hits=hits), task, started)


async def events(prepared: Prepared, *, request_id: str = "") -> AsyncGenerator[Event, None]:
    """The events of an answer's stream; the last is final_answer or error."""
    try:
        async with aclosing(stream(prepared)) as made:
            async for event in made:
                yield event
    except LLMError as error:
        metrics.ANSWERS.labels(outcome="failed").inc()
        yield Event(
            "error", document(Problem(502, "llm_failed", str(error), kind=error.code), request_id=request_id)
        )
    except SourcesChanged:
        yield Event("error", document(_sources_changed(), request_id=request_id))
    except Exception:
        # The response has begun: a problem document can no longer be its body.
        logger.exception("answering failed")
        failed = Problem(500, "internal", "Something went wrong on our side.")
        yield Event("error", document(failed, request_id=request_id))


async def stream(prepared: Prepared, *, live: bool = True) -> AsyncGenerator[Event, None]:
    """search_results, message..., citation..., final_answer. live: a reader sees the deltas as they come.

    The deltas concatenate to the final answer's text. Raises LLMError when the model fails after something
    has left, SourcesChanged when a citation does not verify.
    """
    yield Event("search_results", results_json(prepared.found))
    draft = Draft()
    began = time.perf_counter()
    if not prepared.task.passages:
        draft.text = prompts.ABSTENTION
        draft.backend, draft.model = prepared.backend, await _name(prepared.backend)
        yield Event("message", {"delta": draft.text})
    else:
        async with aclosing(write(prepared.task, prepared.backend, draft, live=live)) as deltas:
            async for delta in deltas:
                draft.first = draft.first or time.perf_counter()
                yield Event("message", {"delta": delta})
    wrote = time.perf_counter()
    QUERY_SECONDS.labels(stage="generate").observe(wrote - began)
    timings = prepared.found.timings | {
        "first_token_ms": _ms((draft.first or wrote) - prepared.started),
        "generate_ms": _ms(wrote - began),
    }
    final = await sync_to_async(_finish)(prepared, draft, timings)
    for citation in final["citations"]:
        yield Event("citation", citation)
    yield Event("final_answer", final)


def stored(*, tenant_id: UUID, answer_id: UUID) -> dict[str, Any]:
    """A stored answer as it was given. Raises Problem 404."""
    row = _row(tenant_id, answer_id)
    return {"id": str(row.id)} | row.result


def check(*, tenant_id: UUID, answer_id: UUID) -> dict[str, Any]:
    """{verified, citations: [{marker, verified, reason?}]} of a stored answer, against the text as it is now
    stored.

    An answer without citations is verified: it claims no source. Raises Problem 404.
    """
    row = _row(tenant_id, answer_id)
    with tenancy.scope(tenant_id):
        judged = verify(row.result["citations"])
    return {"verified": all(found["verified"] for found in judged), "citations": judged}


def results_json(found: SearchResult) -> dict[str, Any]:
    """A search's result as `POST /search` answers it."""
    results = []
    for hit in found.hits:
        fields = asdict(hit) | {"heading_path": list(hit.heading_path)}
        results.append(fields)
    return {"results": results, "snapshot": found.snapshot, "stale": found.stale, "timings": found.timings}


async def _whole(prepared: Prepared) -> dict[str, Any]:
    final: dict[str, Any] = {}
    async with aclosing(stream(prepared, live=False)) as made:
        async for event in made:
            final = event.data
    return final


async def _backend(model: str) -> LLM:
    backend = configured()
    if model == "auto":
        return backend
    if model == "extractive":
        return ExtractiveLLM()
    try:
        known = await backend.model()
    except LLMError as error:
        raise Problem(503, "llm_unavailable", str(error))
    if model != known:
        raise invalid(
            "/model", f"There is no model {model!r}; there are 'auto' and {known!r}.", code="unknown_model"
        )
    return backend


async def _name(backend: LLM) -> str:
    try:
        return await backend.model()
    except LLMError:
        return backend.backend


def _finish(prepared: Prepared, draft: Draft, timings: dict[str, float]) -> dict[str, Any]:
    """Cite, prove, store; the whole answer. Raises SourcesChanged."""
    began = time.perf_counter()
    passages = prepared.task.passages
    citations = cite(draft.text, passages)
    abstained = prompts.is_abstention(draft.text)
    sentences, grounded = ([], 0.0) if abstained else ground(draft.text, passages)
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
        "usage": usage.as_json() if usage else None,
        "finish_reason": draft.finish_reason,
    }
    try:
        with tenancy.scope(prepared.tenant_id):
            _prove(citations)
            now = time.perf_counter()
            result["timings"] = timings | {
                "verify_ms": _ms(now - began),
                "total_ms": _ms(now - prepared.started),
            }
            Answer.objects.create(
                id=prepared.id,
                tenant_id=prepared.tenant_id,
                question=prepared.request.question,
                answer=draft.text,
                model=draft.model,
                request=prepared.request.as_json(),
                result=result,
                context={
                    "passages": [_passage_json(passage) for passage in passages],
                    "messages": list(prepared.task.messages),
                },
            )
    finally:
        _release_connection()
    outcome = "abstained" if abstained else "degraded" if result["degraded"] else "answered"
    metrics.ANSWERS.labels(outcome=outcome).inc()
    return {"id": str(prepared.id)} | result


def _prove(citations: list[dict[str, Any]]) -> None:
    """Every citation, or none: text that cites what is gone must not leave, with or without its markers."""
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


def _passage_json(passage: Passage) -> dict[str, Any]:
    hit: Hit = passage.hit
    place = {
        "marker": passage.marker,
        "chunk_id": hit.chunk_id,
        "document_id": hit.document_id,
        "version": hit.version,
    }
    return place | {"start": hit.start, "end": hit.end, "sha256": hit.sha256}


def _embed(tenant_id: UUID, collection: str) -> Embed:
    """The embedding model of a collection; a search's collections share one."""
    with tenancy.scope(tenant_id):
        space = DocumentCollection.objects.select_related("space").get(slug=collection).space
    return embedder_for(space).embed


def _row(tenant_id: UUID, answer_id: UUID) -> Answer:
    with tenancy.scope(tenant_id):
        row = Answer.objects.filter(id=answer_id).first()
    if row is None:
        raise Problem(404, "not_found", "There is no such answer.")
    return row


def _release_connection() -> None:
    """Give the connection back to the pool: a model may write for a minute, and the pool is small."""
    if not connection.in_atomic_block:
        connection.close()


def _sources_changed() -> Problem:
    return Problem(
        503,
        "sources_changed",
        "A cited source was deleted while the answer was written; ask again.",
        retry_after=1,
    )


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
