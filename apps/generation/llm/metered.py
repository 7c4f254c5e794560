"""A model whose tokens count for the key that asks: what was read and written, also for a reader who has left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from apps.access.throttling import TokenMeter
from apps.documents.embedding.openai_compatible import estimate_tokens

from ..types import Delta, Task, Usage
from .base import LLM, Around


def prompt_tokens(task: Task) -> int:
    """Of all that a server is sent, estimated."""
    said = sum(estimate_tokens(each["content"] or "") for each in task.messages)
    return said + (task.tools.overhead if task.tools else 0)


class Metered(Around):
    """Implements `LLM` around another."""

    def __init__(self, llm: LLM, meter: TokenMeter) -> None:
        super().__init__(llm)
        self._meter = meter

    async def stream(self, task: Task) -> AsyncGenerator[Delta, None]:
        usage: Usage | None = None
        text: str | None = None  # until the server has begun
        try:
            async with aclosing(self._llm.stream(task)) as deltas:
                async for delta in deltas:
                    text = (text or "") + delta.text
                    usage = delta.usage or usage
                    yield delta
        finally:
            if text is not None:
                told = usage or Usage(prompt_tokens(task), estimate_tokens(text))
                await asyncio.to_thread(self._meter.count, told.prompt_tokens + told.completion_tokens)
