"""Answers without a model: scripted and deterministic, for tests, demos and load tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable

from ..types import Delta, Task
from .base import LLMError

#: What to write for a task: texts leave as they are, a number waits that many seconds, an LLMError is raised.
Step = str | float | LLMError
Script = Callable[[Task], Iterable[Step]]


def quote_first(task: Task) -> Iterable[Step]:
    """The first words of each of the first two passages with their markers, in pieces that cut through the
    markers.
    """
    for passage in task.passages[:2]:
        yield from (word + " " for word in passage.hit.text.split()[:12])
        yield f"[{passage.marker}"
        yield "]. "


class FakeLLM:
    """Implements `LLM` from a script; `closed` counts streams that were stopped before their end."""

    backend = "fake"
    keeps_limits = False

    def __init__(self, script: Script = quote_first, *, model: str = "fake") -> None:
        self._script = script
        self.name = model
        self.closed = 0

    async def model(self) -> str:
        return self.name

    async def stream(self, task: Task) -> AsyncGenerator[Delta, None]:
        """Play the script."""
        done = False
        try:
            for step in self._script(task):
                match step:
                    case LLMError():
                        done = True
                        raise step
                    case str():
                        yield Delta(step)
                    case _:
                        await asyncio.sleep(step)
            done = True
            yield Delta(finish_reason="stop")
        finally:
            self.closed += not done
