"""Letting a backend write: what may leave, what is counted, and who takes over when it fails."""

from __future__ import annotations

import asyncio
import json
import logging
from bisect import bisect_right
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from django.conf import settings

from apps.documents.embedding.openai_compatible import estimate_tokens

from . import metrics, prompts, structured
from .attribution import FORMAT, Attributor, Sources
from .citations import Span
from .llm import LLM, LLMError
from .markers import MarkerFilter
from .types import Options, Task, Usage

logger = logging.getLogger(__name__)

#: Of an answer, the sentences that a model is asked for the sources of, and how long it may take.
MOST_ASKED = 20
ASK_SECONDS = 30.0
#: That it may write for each of them, and around them.
SOURCE_TOKENS = 150


@dataclass(slots=True)
class Draft:
    """An answer being written: its text so far, by whom, at what cost, when its first words left; the tools that are
    called instead; quotes, as `cite` takes them. makeshift: might it be cited better another time?"""

    text: str = ""
    backend: LLM | None = None
    model: str = ""
    usage: Usage | None = None
    finish_reason: str = "stop"
    first: float | None = None
    calls: tuple[dict[str, Any], ...] = ()
    quotes: Mapping[str, Mapping[int, Span]] = field(default_factory=dict)
    makeshift: bool = False


class Limits:
    """Keeps max_tokens and stop sequences for a writer without a server, as a server would.

    feed(piece) returns the text that is settled, close() the rest. What leaves ends before the stop sequence
    that is complete first, and has at most max_tokens by `estimate_tokens`; it depends on the concatenated
    input alone, not on how it was cut. `reason` is None until a limit is reached, then stop or length.
    """

    def __init__(self, options: Options) -> None:
        self._max_tokens = options.max_tokens
        self._stop = [sequence for sequence in options.stop if sequence]
        self._held = ""  # the end of the input, which may be the beginning of a stop sequence
        self._left = ""  # what has left
        self.reason: str | None = None

    @property
    def tokens(self) -> int:
        """How many have left."""
        return estimate_tokens(self._left)

    def feed(self, piece: str) -> str:
        """More of what the writer writes; returns what may leave now."""
        if self.reason:
            return ""
        self._held += piece
        found = [(at + len(stop), at) for stop in self._stop if (at := self._held.find(stop)) >= 0]
        if found:
            settled, self._held, self.reason = self._held[: min(found)[1]], "", "stop"
        else:
            open_ = max((_open(self._held, stop) for stop in self._stop), default=0)
            cut = len(self._held) - open_
            settled, self._held = self._held[:cut], self._held[cut:]
        return self._count(settled)

    def close(self) -> str:
        """No more will come; returns the rest."""
        return "" if self.reason else self._count(self._held)

    def _count(self, text: str) -> str:
        fits = bisect_right(
            range(len(text) + 1), self._max_tokens, key=lambda end: estimate_tokens(self._left + text[:end])
        )
        if fits <= len(text):
            text, self.reason = text[: fits - 1], "length"
        self._left += text
        return text


def _open(text: str, stop: str) -> int:
    """Length of the longest end of a text with which the stop sequence begins."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:size])), 0)


def abstain(task: Task, draft: Draft) -> None:
    """Fill `draft` with the sentence that says so, within the task's limits."""
    limits = Limits(task.options)
    draft.text = (limits.feed(prompts.ABSTENTION) + limits.close()).rstrip()
    draft.finish_reason = limits.reason or "stop"
    draft.usage = Usage(_read(task), limits.tokens)


def _read(task: Task) -> int:
    """Tokens of a question and its passages, estimated."""
    return estimate_tokens(task.question) + sum(estimate_tokens(passage.hit.text) for passage in task.passages)


class Unwritten(LLMError):
    """All failed, and no text has left: something else may take their place."""


async def write(task: Task, backends: Sequence[LLM], draft: Draft, *, live: bool) -> AsyncGenerator[str, None]:
    """The text that may leave, piece by piece; fills `draft`.

    A backend that fails, or writes nothing, before any of its text has left is replaced by the next. Without a reader
    (`live` false) no text has left until all is written. Limits that leave nothing are no failure.

    JSON leaves whole, when it has been found to be what was asked for.

    Raises Unwritten after the last of them, LLMError where the text has begun to leave.
    """
    attempt = _attempt if task.response_format is None else _json
    for backend in backends:
        draft.text, draft.usage, draft.backend, draft.finish_reason, draft.calls = "", None, backend, "stop", ()
        draft.quotes, draft.makeshift = {}, False
        try:
            async with aclosing(attempt(task, backend, draft)) as pieces:
                async for piece in pieces:
                    if live:
                        yield piece
            if not live and draft.text:
                yield draft.text
            return
        except LLMError as error:
            metrics.LLM_ERRORS.labels(backend=backend.backend, kind=error.code).inc()
            logger.warning("the %s backend failed: %s", backend.backend, error)
            if live and draft.text:
                raise
            failed = error
    raise Unwritten(failed.code, str(failed))


async def _attempt(task: Task, backend: LLM, draft: Draft) -> AsyncGenerator[str, None]:
    inline = task.attribution == "inline" or backend.backend == "extractive"
    sources = Sources(task.passages, task.embed)
    cites = None if inline else Attributor(sources, waits=task.attribution == "model")
    kept = MarkerFilter([] if cites else [passage.marker for passage in task.passages])
    limits = None if backend.keeps_limits else Limits(task.options)
    outcome = "cancelled"  # unless one of the two below is reached
    try:
        draft.model = await backend.model()
        async with aclosing(backend.stream(task)) as deltas:
            async for delta in deltas:
                draft.usage = delta.usage or draft.usage
                draft.finish_reason = delta.finish_reason or draft.finish_reason
                draft.calls = delta.calls or draft.calls
                piece = kept.feed(limits.feed(delta.text) if limits else delta.text)
                if cites is not None:  # in a thread: a sentence may have to be embedded
                    piece = await asyncio.to_thread(cites.take) if cites.add(piece) else ""
                if piece:
                    draft.text += piece
                    yield piece
                if limits and limits.reason:
                    break
        piece = kept.feed(limits.close() if limits else "") + kept.close()
        if limits:
            draft.finish_reason = limits.reason or draft.finish_reason
            draft.usage = Usage(_read(task), limits.tokens)
        if cites is not None:
            cites.add(piece)
            if task.attribution == "model" and not draft.calls:
                await _ask(task, backend, draft, sources, [cites.text])
            piece = await asyncio.to_thread(cites.take, final=True)
            draft.quotes = sources.quotes
        if piece:
            draft.text += piece
            yield piece
        if not draft.text and not draft.calls and not (limits and limits.reason):
            raise LLMError("empty", "The language model wrote nothing.")
        outcome = "ok"
    except LLMError:
        outcome = "error"
        raise
    finally:
        metrics.LLM_REQUESTS.labels(backend=backend.backend, outcome=outcome).inc()


async def _json(task: Task, backend: LLM, draft: Draft) -> AsyncGenerator[str, None]:
    """The whole answer at once; what is not as asked for is sent back once, with what is wrong with it."""
    assert task.response_format is not None
    inline = task.attribution == "inline"
    markers = [passage.marker for passage in task.passages] if inline else []
    wanted = task.response_format
    valid = partial(structured.settled, wanted=wanted, markers=markers)
    sources = Sources(task.passages, task.embed)

    async def settled(said: str) -> str:
        if inline:
            return await asyncio.to_thread(valid, said)
        if task.attribution == "model":
            await _ask(task, backend, draft, sources, await asyncio.to_thread(structured.citable, said, wanted))
        draft.quotes = sources.quotes
        return await asyncio.to_thread(valid, said, cite=sources.cited)

    outcome = "cancelled"
    try:
        draft.model = await backend.model()
        said = await _said(task, backend, draft)
        if draft.calls:
            outcome = "ok"
            return
        try:
            nothing = prompts.is_abstention(said)  # as the rules want it said
            draft.text = prompts.ABSTENTION if nothing else await settled(said)
        except structured.Malformed as error:
            if draft.finish_reason == "length":
                raise LLMError("cut_short", "The answer's JSON does not end within max_tokens.") from None
            logger.warning("asking a model for its JSON once more")
            again = replace(task, messages=(*task.messages, *prompts.repair(said, str(error))))
            try:
                draft.text = await settled(await _said(again, backend, draft))
            except structured.Malformed:
                raise LLMError("bad_format", "The language model does not write the JSON that was asked for.") from None
        outcome = "ok"
        yield draft.text
    except LLMError:
        outcome = "error"
        raise
    finally:
        metrics.LLM_REQUESTS.labels(backend=backend.backend, outcome=outcome).inc()


async def _ask(task: Task, backend: LLM, draft: Draft, sources: Sources, texts: Sequence[str]) -> None:
    """Let the model find the sources of those sentences of an answer's texts that words and embedding find none for. A
    model that fails leaves them without."""
    answer = "\n\n".join(texts)
    if prompts.is_abstention(answer):
        return
    most = min(MOST_ASKED, settings.LLM_CONTEXT_TOKENS // 4 // SOURCE_TOKENS - 1)
    sentences = (await asyncio.to_thread(sources.unknown, *texts))[:most]
    if not sentences:
        return
    written = SOURCE_TOKENS * (1 + len(sentences))
    schema = json.dumps(FORMAT["json_schema"]["schema"], separators=(",", ":"))
    room = settings.LLM_CONTEXT_TOKENS - written
    messages = prompts.sources(task.question, answer, sentences, task.passages, schema=schema, room=room)
    if not messages:
        return
    options = Options(max_tokens=written, temperature=0.0, seed=task.options.seed)
    asking = replace(task, messages=messages, options=options, response_format=FORMAT, tools=None)
    asked, outcome = Draft(), "cancelled"
    draft.makeshift = True
    try:
        async with asyncio.timeout(ASK_SECONDS):
            said = await _said(asking, backend, asked)
        await asyncio.to_thread(sources.learn, sentences, said)
        outcome, draft.makeshift = "ok", False
    except (LLMError, TimeoutError, structured.Malformed) as error:
        outcome = "error"
        kind = "timeout" if isinstance(error, TimeoutError) else "bad_format"
        kind = error.code if isinstance(error, LLMError) else kind
        metrics.LLM_ERRORS.labels(backend=backend.backend, kind=kind).inc()
        logger.warning("the %s backend does not say where sentences are from: %s", backend.backend, kind)
    finally:
        metrics.LLM_REQUESTS.labels(backend=backend.backend, outcome=outcome).inc()
        if draft.usage and asked.usage:
            draft.usage += asked.usage


async def _said(task: Task, backend: LLM, draft: Draft) -> str:
    text: str | None = None  # until the server has begun
    usage: Usage | None = None
    try:
        async with aclosing(backend.stream(task)) as deltas:
            async for delta in deltas:
                text = (text or "") + delta.text
                usage = delta.usage or usage
                draft.finish_reason = delta.finish_reason or draft.finish_reason
                draft.calls = delta.calls or draft.calls
    finally:
        if text is not None:
            usage = usage or Usage(_read(task), estimate_tokens(text))
            draft.usage = usage + draft.usage if draft.usage else usage
    return text or ""
