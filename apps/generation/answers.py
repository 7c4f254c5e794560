"""Answering a question: search, prompt, write, cite, verify, store.

1. `prepare` (synchronous, may refuse): search, number the passages, fit them into the model's context. Its
   database connection goes back to the pool before a model is asked.
2. `stream` (asynchronous): lets the model write, with what may not leave held back (markers.py); cites;
   proves every citation against the stored text; stores the answer. Closing the generator stops the model.
3. A model that fails before anything has left is replaced: by the other model, by an answer that was given to the same
   question on the same passages, by quotes. The answer names who wrote it and how it is degraded.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Collection, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import numpy.typing as npt
from asgiref.sync import async_to_sync, sync_to_async
from django.conf import settings
from django.db import connection

from apps.access import leaving, tenancy
from apps.access.problems import Problem, document, invalid
from apps.access.throttling import TokenMeter
from apps.documents.embedding import EmbeddingError
from apps.documents.models import Collection as DocumentCollection
from apps.documents.spaces import embedder_for
from apps.retrieval import rerank
from apps.retrieval.asked import asked
from apps.retrieval.freshness import search_fresh
from apps.retrieval.metrics import QUERY_SECONDS
from apps.retrieval.past import refuse_future
from apps.retrieval.types import SearchQuery, SearchResult

from . import answer_cache, conversations, metrics, prompts, records, replays, routing, structured, tools
from .llm import LLM, ExtractiveLLM, LLMError, Metered, configured, prompt_tokens
from .records import SourcesChanged, finish, finish_calls, is_grounded
from .types import AnswerRequest, Embed, Event, Passage, Task, Turn
from .writing import Draft, Unwritten, abstain, write

logger = logging.getLogger(__name__)

#: How often a question is asked again because a source that the answer cites was deleted meanwhile.
ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Prepared:
    """A question with its passages, ready to be written. started: time.perf_counter() when it came in. key: where its
    answer may be kept (answer_cache.py). kept: one that was given to it before. replay_of: the stored answer that the
    passages are of."""

    id: UUID
    tenant_id: UUID
    request: AnswerRequest
    backends: tuple[LLM, ...]
    found: SearchResult
    task: Task
    started: float
    key: str | None = None
    kept: dict[str, Any] | None = None
    replay_of: UUID | None = None


def answer(
    *, tenant_id: UUID, request: AnswerRequest, before: Sequence[Turn] = (), meter: TokenMeter | None = None
) -> dict[str, Any]:
    """The whole answer of API.md, stored. before: what was said before, where no stored conversation tells it. meter:
    of the key whose tokens it takes.

    Raises Problem: 404 unknown_collection, 400 unknown_model, unknown_conversation or question_too_long, 422
    rerank_unavailable, 429 too_many_tokens, 503 sources_changed.
    """
    without: set[str] = set()
    for _ in range(ATTEMPTS):
        prepared = prepare(tenant_id=tenant_id, request=request, before=before, without=without, meter=meter)
        if prepared.kept is not None:
            return prepared.kept
        try:
            return async_to_sync(_whole)(prepared)
        except SourcesChanged as changed:
            without |= changed.documents
        except LLMError as error:
            raise _failed(error)
    raise _sources_changed()


def replay(
    *, tenant_id: UUID, answer_id: UUID, model: str | None = None, meter: TokenMeter | None = None
) -> dict[str, Any]:
    """Answer a stored answer's question again from its passages as they were, by its model or another one: an answer
    of its own, with `replay_of` and `difference` (replays.py).

    Raises Problem: 404, 409 sources_gone, 400 unknown_model, 422 context_too_long or response_format_unavailable, 502
    llm_failed.
    """
    started = time.perf_counter()
    row = records.row_of(tenant_id, answer_id)
    request = AnswerRequest.from_json(row.request)
    if model == "extractive" and request.response_format is not None:
        raise invalid(
            "/model", "This answer is JSON, which quotes are not.", status=422, code="response_format_unavailable"
        )
    request = replace(request, model=model or request.model)
    question = row.result.get("standalone_question") or row.question
    try:
        models = _models(request)
        with tenancy.scope(tenant_id):
            passages = replays.passages_of(row)
            before = conversations.as_it_was(row.context.get("before", ()))
    finally:
        _release_connection()
    if before is None:
        raise replays.sources_gone()
    # What a chat had said before is not stored: its question is asked as it was put to the search.
    request = replace(request, question=row.question if before else question)
    # What tools returned then is part of what is answered from again; another call would be no answer.
    again = replace(request, tools=request.tools and replace(request.tools, choice="none"))
    task = _task(tenant_id, again, question, before, passages)
    if task.passages != passages:
        raise Problem(422, "context_too_long", "The model's context is too small for this answer's passages by now.")
    backends = tuple(routing.order(models, request.model, row.question, passages))
    found = SearchResult([passage.hit for passage in passages], snapshot={})
    prepared = Prepared(uuid4(), tenant_id, request, backends, found, task, started, replay_of=row.id)
    try:
        return async_to_sync(_whole)(_metered(prepared, meter) if meter else prepared)
    except SourcesChanged:
        raise replays.sources_gone()
    except LLMError as error:
        raise _failed(error)


def prepare(
    *,
    tenant_id: UUID,
    request: AnswerRequest,
    before: Sequence[Turn] = (),
    without: Collection[str] = (),
    meter: TokenMeter | None = None,
) -> Prepared:
    """Find the passages for a question, in the light of what was said before, but for documents with the ids in
    `without`; and an answer that was given to it from the same ones. Raises as `answer` does.
    """
    started = time.perf_counter()
    try:
        models = _models(request)
        before, question = _meant(tenant_id, request, before, models, meter)
        found = _found(tenant_id, request, question)
        # What has been deleted since is in the past, but no answer may cite it (invariant I8).
        hits = [hit for hit in found.hits if not hit.deleted and str(hit.document_id) not in without]
        task = _task(tenant_id, request, question, before, prompts.number(hits))
        if hits and not task.passages:
            raise invalid(
                "/question",
                "The question, with all that is sent along, leaves no room for a passage.",
                code="question_too_long",
            )
        backends = tuple(routing.order(models, request.model, request.question, task.passages))
        prepared = Prepared(uuid4(), tenant_id, request, backends, replace(found, hits=hits), task, started)
        # Here, where there is a thread and a connection already: each visit to another costs a streaming process that
        # is busy more than the looking.
        key = _cache_key(prepared)
        prepared = replace(prepared, key=key, kept=_kept(prepared, key) if key else None)
        return _metered(prepared, meter) if meter else prepared
    finally:
        _release_connection()


def _metered(prepared: Prepared, meter: TokenMeter) -> Prepared:
    """With what its models read and write counted. Raises Problem 429 where there is no room for the prompt."""
    asks = prepared.kept is None and (prepared.task.passages or _may_call(prepared))
    if not asks or isinstance(prepared.backends[0], ExtractiveLLM):
        return prepared
    meter.check(prompt_tokens(prepared.task))
    return replace(prepared, backends=tuple(Metered(each, meter) for each in prepared.backends))


def _meant(
    tenant_id: UUID, request: AnswerRequest, before: Sequence[Turn], models: Sequence[LLM], meter: TokenMeter | None
) -> tuple[tuple[Turn, ...], str]:
    """(what was said before, as far as a model may be told it; the question as it would be put without it). Raises
    Problem 400, and 429 where a model is to be asked and no token is left."""
    room = settings.LLM_CONTEXT_TOKENS
    if request.conversation is not None:
        with tenancy.scope(tenant_id):
            before = conversations.said_before(request.conversation, context_tokens=room)
        _release_connection()
    else:
        before = conversations.within(before, context_tokens=room)
    if not before:
        return (), request.question
    if meter and not isinstance(models[0], ExtractiveLLM):
        meter.check(1)
        models = [Metered(each, meter) for each in models]
    return tuple(before), async_to_sync(conversations.condensed)(request.question, before, models)


def _task(
    tenant_id: UUID, request: AnswerRequest, question: str, before: tuple[Turn, ...], numbered: tuple[Passage, ...]
) -> Task:
    """What the model is asked: of the passages those that its context has room for."""
    wanted, offered = request.response_format, request.tools
    room = settings.LLM_CONTEXT_TOKENS - (offered.tokens if offered else 0)
    options = replace(request.options, max_tokens=max(1, min(request.options.max_tokens, room // 2)))
    cites = request.attribution == "inline"
    more = [structured.instruction(wanted, cites=cites)] if wanted else []
    rules = "\n".join([*more, *([tools.RULE] if offered else [])])
    passages = prompts.fit(
        numbered,
        question=request.question,
        context_tokens=room,
        max_tokens=options.max_tokens,
        rules=rules,
        before=before,
    )
    messages = prompts.messages(request.question, passages, rules=rules, before=before, cites=cites)
    messages += offered.since if offered else ()
    embed = _embed(tenant_id, passages[0].hit.collection) if passages else None
    return Task(question, passages, messages, options, embed, wanted, before, request.attribution, offered)


def check(request: AnswerRequest) -> None:
    """Inside a scope: what can be said of a question before it is searched for. Raises Problem 400, 422."""
    refuse_future(_query(request, request.question))
    if request.conversation is not None:
        conversations.said_before(request.conversation, context_tokens=0)


def _found(tenant_id: UUID, request: AnswerRequest, question: str) -> SearchResult:
    query = _query(request, question)
    try:
        return search_fresh(tenant_id=tenant_id, query=query)
    except EmbeddingError as error:
        logger.warning("searching by words alone: %s", error)
        return search_fresh(tenant_id=tenant_id, query=replace(query, mode="lexical"))


def _query(request: AnswerRequest, question: str) -> SearchQuery:
    """Raises Problem 400, 422."""
    when = asked(
        filters=request.filters,
        consistency=request.consistency,
        min_versions=request.min_versions,
        as_of=request.as_of,
        partial=request.partial,
    )
    reranks = rerank.configured() is not None if request.rerank is None else request.rerank
    return SearchQuery(query=question, collections=request.collections, k=request.k, rerank=reranks, **when)


async def events(prepared: Prepared, *, request_id: str = "") -> AsyncGenerator[Event, None]:
    """The events of an answer's stream; the last is final_answer or error."""
    try:
        async with aclosing(stream(prepared)) as made:
            async for event in made:
                yield event
    except LLMError as error:
        yield Event("error", document(_failed(error), request_id=request_id))
    except SourcesChanged:
        yield Event("error", document(_sources_changed(), request_id=request_id))
    except Problem as problem:
        yield Event("error", document(problem, request_id=request_id))
    except Exception:
        # The response has begun: a problem document can no longer be its body.
        logger.exception("answering failed")
        failed = Problem(500, "internal", "Something went wrong on our side.")
        yield Event("error", document(failed, request_id=request_id))


async def stream(prepared: Prepared, *, live: bool = True) -> AsyncGenerator[Event, None]:
    """search_results, message..., citation..., final_answer. live: a reader sees the deltas as they come, but where
    an answer may be withheld.

    The deltas concatenate to the final answer's text. Raises LLMError when the model fails after something
    has left, SourcesChanged when a citation does not verify.
    """
    yield Event("search_results", prepared.found.as_json())
    if prepared.kept is not None:
        for event in _again(prepared.kept):
            yield event
        return
    draft = Draft()
    least = prepared.request.min_grounded
    began = time.perf_counter()
    if not prepared.task.passages and not _may_call(prepared):
        abstain(prepared.task, draft)
        draft.backend, draft.model = prepared.backends[0], await _name(prepared.backends[0])
        if draft.text:
            yield Event("message", {"delta": draft.text})
    else:
        backends: Sequence[LLM] = prepared.backends
        while backends:
            try:
                async with aclosing(write(prepared.task, backends, draft, live=live and not least)) as deltas:
                    async for delta in deltas:
                        if least and not await asyncio.to_thread(is_grounded, prepared.task, draft, least):
                            delta = draft.text = prompts.ABSTENTION
                        draft.first = draft.first or time.perf_counter()
                        yield Event("message", {"delta": delta})
                break
            except Unwritten as failed:
                if isinstance(backends[-1], ExtractiveLLM):
                    raise
                if kept := await sync_to_async(_reused)(prepared):
                    metrics.ANSWERS.labels(outcome="degraded").inc()
                    for event in _again(kept | {"degraded": "cached"}):
                        yield event
                    return
                if prepared.task.response_format is not None:
                    raise  # quotes are no JSON
                logger.warning("answering by quotes: %s", failed)
                backends = (ExtractiveLLM(),)
    wrote = time.perf_counter()
    QUERY_SECONDS.labels(stage="generate").observe(wrote - began)
    seconds = {
        "first_token_ms": (draft.first or wrote) - prepared.started,
        "generate_ms": wrote - began,
        "total_ms": wrote - prepared.started,
    }
    timings = prepared.found.timings | {name: round(value * 1000, 3) for name, value in seconds.items()}
    if draft.calls:
        yield Event("final_answer", await sync_to_async(_finish_calls)(prepared, draft, timings))
        return
    final = await sync_to_async(_finish)(prepared, draft, timings)
    written = not isinstance(draft.backend, ExtractiveLLM) and not draft.makeshift
    if written and prepared.replay_of is None and prepared.task.tools is None:
        asked = [prepared.key] if prepared.key and draft.backend is prepared.backends[0] else []
        await sync_to_async(answer_cache.keep)([*asked, _key_of_any(prepared)], final)
    for citation in final["citations"]:
        yield Event("citation", citation)
    yield Event("final_answer", final)


def _may_call(prepared: Prepared) -> bool:
    """Is there somebody to ask although nothing was found?"""
    return prepared.task.tools is not None and not isinstance(prepared.backends[0], ExtractiveLLM)


def _again(kept: dict[str, Any]) -> Iterator[Event]:
    """The events of an answer that is there already."""
    yield Event("message", {"delta": kept["answer"]}, again=kept["id"])
    for citation in kept["citations"]:
        yield Event("citation", citation)
    yield Event("final_answer", kept)


def _key_of_any(prepared: Prepared) -> str:
    return answer_cache.key_of_any(tenant_id=prepared.tenant_id, task=prepared.task)


def _cache_key(prepared: Prepared) -> str | None:
    """Where the answer may be kept; None for quoting, which takes no longer than looking, and where there are tools."""
    first = prepared.backends[0]
    if isinstance(first, ExtractiveLLM) or prepared.task.tools is not None:
        return None
    try:
        model = _name_of(first)
    except LLMError:
        return None
    return answer_cache.key_of(
        tenant_id=prepared.tenant_id,
        request=prepared.request,
        task=prepared.task,
        model=f"{first.backend} {model}",
    )


def _kept(prepared: Prepared, key: str) -> dict[str, Any] | None:
    return answer_cache.lookup(
        tenant_id=prepared.tenant_id,
        key=key,
        question=prepared.request.question,
        task=prepared.task,
        timings=prepared.found.timings,
        started=prepared.started,
    )


def _reused(prepared: Prepared) -> dict[str, Any] | None:
    """What any model has answered to this question from these passages; nothing for a replay, which does not want what
    was said before, and nothing in a conversation, whose turns are answers of its own."""
    own = prepared.replay_of is not None or prepared.request.conversation is not None
    try:
        kept = None if own else _kept(prepared, _key_of_any(prepared))
        return kept if kept and kept["grounded"] >= prepared.request.min_grounded else None
    finally:
        _release_connection()


def _finish(prepared: Prepared, draft: Draft, timings: dict[str, float]) -> dict[str, Any]:
    try:
        return finish(
            answer_id=prepared.id,
            tenant_id=prepared.tenant_id,
            request=prepared.request,
            task=prepared.task,
            draft=draft,
            partial=prepared.found.partial,
            timings=timings,
            replay_of=prepared.replay_of,
        )
    finally:
        _release_connection()


def _finish_calls(prepared: Prepared, draft: Draft, timings: dict[str, float]) -> dict[str, Any]:
    try:
        return finish_calls(
            answer_id=prepared.id, tenant_id=prepared.tenant_id, task=prepared.task, draft=draft, timings=timings
        )
    finally:
        _release_connection()


async def _whole(prepared: Prepared) -> dict[str, Any]:
    """Raises as `stream` does, and Problem client_gone: a model does not write on for nobody."""
    return await leaving.unless_gone(_final(prepared))


async def _final(prepared: Prepared) -> dict[str, Any]:
    final: dict[str, Any] = {}
    async with aclosing(stream(prepared, live=False)) as made:
        async for event in made:
            final = event.data
    return final


def _models(request: AnswerRequest) -> list[LLM]:
    """The models that may answer; one that is asked for by its name first. Raises Problem."""
    wanted, models = request.model, list(configured())
    if request.response_format is not None and (wanted == "extractive" or isinstance(models[0], ExtractiveLLM)):
        raise invalid(
            "/response_format", "Only a language model writes JSON.", status=422, code="response_format_unavailable"
        )
    if wanted in ("auto", "fast", "large"):
        return models
    if wanted == "extractive":
        return [ExtractiveLLM()]
    names, failed = [], None
    for model in models:
        try:
            names.append(_name_of(model))
        except LLMError as error:
            names.append("")
            failed = error
    if wanted in names:
        first = models.pop(names.index(wanted))
        return [first, *models]
    if failed is not None:
        raise Problem(503, "llm_unavailable", str(failed))
    known = ", ".join(map(repr, ["auto", "fast", "large", *names]))
    raise invalid("/model", f"There is no model {wanted!r}; there are {known}.", code="unknown_model")


def _name_of(model: LLM) -> str:
    """Asking only where it must: from a request's thread that is a visit to the event loop. Raises LLMError."""
    return model.name or async_to_sync(model.model)()


async def _name(backend: LLM) -> str:
    try:
        return await backend.model()
    except LLMError:
        return backend.backend


def _embed(tenant_id: UUID, slug: str) -> Embed:
    """Embeds with the model of a collection, which a search's collections share; it is looked up when it is needed.
    Raises EmbeddingError."""

    def embed(texts: Sequence[str]) -> npt.NDArray[np.float32]:
        try:
            with tenancy.scope(tenant_id):
                collection = DocumentCollection.objects.select_related("space").filter(slug=slug).first()
        finally:
            _release_connection()
        if collection is None:
            raise EmbeddingError("collection_gone", "The passages' collection is gone.", retryable=False)
        return embedder_for(collection.space).embed(texts)

    return embed


def _release_connection() -> None:
    """Give the connection back to the pool: a model may write for a minute, and the pool is small."""
    if not tenancy.is_open():
        connection.close()


def _failed(error: LLMError) -> Problem:
    metrics.ANSWERS.labels(outcome="failed").inc()
    if isinstance(error, Unwritten):
        return Problem(503, "llm_unavailable", str(error), kind=error.code)
    return Problem(502, "llm_failed", str(error), kind=error.code)


def _sources_changed() -> Problem:
    return Problem(
        503,
        "sources_changed",
        "A cited source was deleted while the answer was written; ask again.",
        retry_after=1,
    )
