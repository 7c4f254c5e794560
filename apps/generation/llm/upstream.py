"""A language model's server, asked so that its failures cost little: a breaker, a bulkhead, retries, time limits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_random_exponential

from apps.documents.embedding.openai_compatible import estimate_tokens

from ..types import Delta, Task, Usage
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
#: A server that asks to be left alone for longer is not tried again, but replaced at once.
MOST_SECONDS = 1.0
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

    async def model(self) -> str:
        """Whoever must ask the server for it asks no more often than for answers; that it tells is no answer yet."""
        if self.name is not None:
            return self.name
        probe = await self._breaker.admit()
        try:
            return await super().model()
        except LLMError as error:
            if error.code in FAULTS:
                await self._breaker.failed()
            raise
        finally:
            if probe:
                await asyncio.shield(self._breaker.let_go())

    async def stream(self, task: Task) -> AsyncGenerator[Delta, None]:
        with self._place():
            probe = await self._breaker.admit()
            told = False
            usage: Usage | None = None
            text: list[str] = []
            try:
                if self._allowance is not None:
                    await asyncio.to_thread(self._allowance.take, prompt_tokens(task))
                stream, first = await self._begun(task)
                text.append(first.text)
                if probe:  # the others need not wait for the end
                    told, probe = True, False
                    await self._breaker.succeeded()
                    await self._breaker.let_go()
                async with aclosing(stream):
                    yield first
                    async for delta in stream:
                        text.append(delta.text)
                        usage = delta.usage or usage
                        yield delta
                if not told:
                    told = True
                    await self._breaker.succeeded()
            except LLMError as error:
                if error.code != "limited":
                    told = True
                    await (self._breaker.failed() if error.code in FAULTS else self._breaker.succeeded())
                raise
            finally:  # also when the reader has left
                if probe:
                    await asyncio.shield(self._breaker.let_go())
                if self._allowance is not None and text:
                    written = usage.completion_tokens if usage else estimate_tokens("".join(text))
                    await asyncio.shield(asyncio.to_thread(self._allowance.add, written))

    async def _begun(self, task: Task) -> tuple[AsyncGenerator[Delta, None], Delta]:
        tries = AsyncRetrying(
            stop=self._enough,  # type: ignore[arg-type]  # is awaited, which its types do not say
            wait=WAIT,
            retry=retry_if_exception(_may_pass),
            reraise=True,
        )
        try:
            async with asyncio.timeout(self._first):
                return await tries(self._first_of, task)
        except TimeoutError:
            raise LLMError("timeout", "The language model did not answer in time.") from None

    async def _enough(self, state: RetryCallState) -> bool:
        """Is the server not to be tried again? Each try is a request of the minute's."""
        if state.attempt_number >= TRIES:
            return True
        try:
            if self._allowance is not None:
                await asyncio.to_thread(self._allowance.take, 0)
        except LLMError:
            return True
        return False

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
    return isinstance(error, LLMError) and error.code in PASSING and error.after <= MOST_SECONDS
