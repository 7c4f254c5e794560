"""The seam between ragsite and whatever writes answers."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from ..types import Delta, Task


class LLMError(Exception):
    """The model did not write an answer, or not all of it.

    `code` is a stable snake_case word for metrics and error events: timeout, unreachable, rate_limited, server_error,
    unauthorized, rejected, cut_off, bad_response, empty; busy, limited and open where the server was not asked. The
    message never holds a prompt, a response body or an API key. after: seconds that the server asks to be left alone.
    """

    def __init__(self, code: str, message: str, *, after: float = 0.0) -> None:
        super().__init__(message)
        self.code = code
        self.after = after


class LLM(Protocol):
    """One way of writing answers. Safe to share between threads and event loops."""

    @property
    def backend(self) -> str:
        """Which kind: openai, extractive or fake; the label of its metrics."""

    @property
    def keeps_limits(self) -> bool:
        """Whether max_tokens and stop are kept by whoever writes: a server does. Else writing.py keeps them."""

    @property
    def name(self) -> str | None:
        """What `model` would tell, where nobody need be asked for it."""

    async def model(self) -> str:
        """The model's own name, as a client may ask for it. Raises LLMError when a server must tell and does
        not.
        """

    def stream(self, task: Task) -> AsyncGenerator[Delta, None]:
        """Write the answer piece by piece; closing the generator stops the work. Raises LLMError."""


class Around:
    """What an `LLM` tells of itself that writes by another."""

    def __init__(self, llm: LLM) -> None:
        self._llm = llm

    @property
    def backend(self) -> str:
        return self._llm.backend

    @property
    def keeps_limits(self) -> bool:
        return self._llm.keeps_limits

    @property
    def name(self) -> str | None:
        return self._llm.name

    async def model(self) -> str:
        return await self._llm.model()
