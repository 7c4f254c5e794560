"""A language model's server, asked so that its failures cost little: a breaker, a bulkhead, retries, time limits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager

from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from ..types import Delta, Task
from .allowance import Allowance
from .base import LLM, Around, LLMError
from .breaker import Breaker
from .metered import prompt_tokens
from .openai_compatible import OpenAICompatibleLLM

TRIES = 3
#: Another try may help.
PASSING = ("rate_limited", "server_error", "unreachable", "cut_off")
#: Seconds before the second try up to a quarter, before the third up to half of one (full jitter).
WAIT = wait_random_exponential(multiplier=0.25)
#: The server is at fault, and will be for the next one as well.
FAULTS = ("timeout", "unreachable", "server_error", "cut_off", "bad_response", "unauthorized")


class Upstream(Around):
    """Implements `LLM` around another: at most `places` answers at once in this process, none while the breaker is
    open. What fails before its first token is tried again, all within `first_seconds`; after it a reader has seen the
    beginning, and nothing is tried again.

    Raises LLMError: `busy`, `limited` and `open` without asking the server.
    """

    def __init__(
        self, llm: LLM, breaker: Breaker, *, places: int, first_seconds: float, allowance: Allowance | None = None
    ) -> None:
        super().__init__(llm)
        self._breaker, self._places, self._first = breaker, places, first_seconds
        self._allowance = allowance
        self._taken = 0
        self._lock = threading.Lock()  # a process may have several event loops

    async def check(self) -> None:
        """Raises LLMError where the server would not answer, or is not asked because it has failed lately."""
        if isinstance(self._llm, OpenAICompatibleLLM):
            await self._llm.check()
        if await self._breaker.is_open():
            raise LLMError("open", "The language model has failed lately and is asked by one request at a time.")

    async def stream(self, task: Task) -> AsyncGenerator[Delta, None]:
        with self._place():
            if self._allowance is not None:
                await asyncio.to_thread(self._allowance.take, prompt_tokens(task))
            probe = await self._breaker.admit()
            written = 0
            try:
                stream, first = await self._begun(task)
                if probe:  # the others need not wait for the end
                    await self._breaker.succeeded()
                async with aclosing(stream):
                    yield first
                    async for delta in stream:
                        if delta.usage is not None:
                            written = delta.usage.completion_tokens
                        yield delta
            except LLMError as error:
                await (self._breaker.failed() if error.code in FAULTS else self._breaker.succeeded())
                raise
            if not probe:
                await self._breaker.succeeded()
            if self._allowance is not None and written:
                await asyncio.to_thread(self._allowance.add, written)

    async def _begun(self, task: Task) -> tuple[AsyncGenerator[Delta, None], Delta]:
        tries = AsyncRetrying(
            stop=stop_after_attempt(TRIES), wait=WAIT, retry=retry_if_exception(_may_pass), reraise=True
        )
        try:
            async with asyncio.timeout(self._first):
                return await tries(self._first_of, task)
        except TimeoutError:
            raise LLMError("timeout", "The language model did not answer in time.") from None

    async def _first_of(self, task: Task) -> tuple[AsyncGenerator[Delta, None], Delta]:
        stream = self._llm.stream(task)
        try:
            return stream, await anext(stream)
        except BaseException:
            await stream.aclose()
            raise

    @contextmanager
    def _place(self) -> Iterator[None]:
        with self._lock:
            if self._taken >= self._places:
                raise LLMError("busy", "The language model has as many answers to write as it may.")
            self._taken += 1
        try:
            yield
        finally:
            with self._lock:
                self._taken -= 1


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, LLMError) and error.code in PASSING
