"""Letting a backend write: what may leave, what is counted, and who takes over when it fails."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from . import metrics
from .llm import LLM, ExtractiveLLM, LLMError
from .markers import MarkerFilter
from .types import Task, Usage

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Draft:
    """An answer being written: its text so far, by whom, at what cost, when its first words left."""

    text: str = ""
    backend: LLM | None = None
    model: str = ""
    usage: Usage | None = None
    finish_reason: str = "stop"
    first: float | None = None


async def write(task: Task, backend: LLM, draft: Draft, *, live: bool) -> AsyncGenerator[str, None]:
    """The text that may leave, piece by piece; fills `draft`.

    A backend that fails, or writes nothing, before any of its text has left is replaced by the extractive
    one. Without a reader (`live` false) no text has left until all is written. Raises LLMError otherwise.
    """
    while True:
        draft.text, draft.usage, draft.backend = "", None, backend
        try:
            async with aclosing(_attempt(task, backend, draft)) as pieces:
                async for piece in pieces:
                    if live:
                        yield piece
            if not live:
                yield draft.text
            return
        except LLMError as error:
            metrics.LLM_ERRORS.labels(backend=backend.backend, kind=error.code).inc()
            left = live and draft.text
            logger.warning(
                "the %s backend failed: %s%s", backend.backend, error, "" if left else "; answering by quotes"
            )
            if left or isinstance(backend, ExtractiveLLM):
                raise
            backend = ExtractiveLLM()


async def _attempt(task: Task, backend: LLM, draft: Draft) -> AsyncGenerator[str, None]:
    kept = MarkerFilter([passage.marker for passage in task.passages])
    outcome = "cancelled"  # unless one of the two below is reached
    try:
        draft.model = await backend.model()
        async with aclosing(backend.stream(task)) as deltas:
            async for delta in deltas:
                draft.usage = delta.usage or draft.usage
                draft.finish_reason = delta.finish_reason or draft.finish_reason
                if piece := kept.feed(delta.text):
                    draft.text += piece
                    yield piece
        if piece := kept.close():
            draft.text += piece
            yield piece
        if not draft.text:
            raise LLMError("empty", "The language model wrote nothing.")
        outcome = "ok"
    except LLMError:
        outcome = "error"
        raise
    finally:
        metrics.LLM_REQUESTS.labels(backend=backend.backend, outcome=outcome).inc()
