"""A served model behind any OpenAI-compatible `/v1/chat/completions`: vLLM, or whoever speaks it."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncGenerator, Collection
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson

from apps.access import correlation

from ..tools import merge
from ..types import Delta, Task, Usage
from .base import LLMError

if TYPE_CHECKING:
    import openai

logger = logging.getLogger(__name__)

#: How long the name that /models told is believed, in seconds: a sidecar may be restarted with another model.
MODEL_SECONDS = 300
#: How a server refuses a response_format that it does not know.
NO_SUCH_FORMAT = (400, 404, 415, 422, 501)
#: What newer hosted models refuse, and what is sent in its place: that they choose themselves, or by another name.
SPARED = {"max_tokens": "max_completion_tokens", "temperature": None, "top_p": None, "seed": None}
_UNSUPPORTED = re.compile(r"unsupported (?:parameter|value): '(\w+)'", re.IGNORECASE)
#: After its first token a stream is read every so many seconds at most: what a fast model writes meanwhile leaves as
#: one event. Fifty a second are more than anybody reads, and each takes as much of a processor whatever is in it.
EVERY = 0.02


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds that a server is waited for: to connect, for the first token, for each next one, for the whole answer.
    The reader's own time counts for the whole alone."""

    connect: float = 5.0
    first: float = 60.0
    next: float = 30.0
    total: float = 600.0


class OpenAICompatibleLLM:
    """Implements `LLM` over HTTP with the official client, asking once: trying again is upstream.py's."""

    backend = "openai"
    keeps_limits = True

    def __init__(self, *, url: str, model: str = "", api_key: str = "", patience: Patience = Patience()) -> None:
        # The client takes a second or two to import: here, and not in an event loop within a timeout; and not with
        # this module, for most processes never ask a model.
        import httpx2
        import openai

        self._open = openai.AsyncOpenAI
        # aiohttp reads a stream in half the time that httpx takes: its parser is compiled.
        self._transport = openai.DefaultAioHttpClient
        self._limits = httpx2.Limits(max_connections=0)  # aiohttp's way of saying any number: upstream.py bounds them
        self._url = url
        self._model = model
        self._api_key = api_key
        self._patience = patience
        self._timeout = openai.Timeout(max(patience.first, patience.next), connect=patience.connect)
        self._told: tuple[str, float] | None = None
        self._spared: set[str] = set()
        # A client's connections belong to the event loop that opened them, and a process may have several.
        self._clients: dict[asyncio.AbstractEventLoop, tuple[Any, AsyncGenerator[Any, None]]] = {}

    @property
    def name(self) -> str | None:
        if self._model or self._told is None or time.monotonic() >= self._told[1]:
            return self._model or None
        return self._told[0]

    async def model(self) -> str:
        """The configured model, else the first that the server lists."""
        if self.name:
            return self.name
        try:
            async with asyncio.timeout(self._patience.first):
                listed = await (await self._client()).models.list()
                name = str(listed.data[0].id)
        except Exception as error:
            raise _as_llm_error(error) from None
        self._told = (name, time.monotonic() + MODEL_SECONDS)
        return name

    async def check(self, *, seconds: float = 2.0) -> None:
        """Raises LLMError where the server does not answer so soon, or does not list the model."""
        try:
            async with asyncio.timeout(seconds):
                listed = await (await self._client()).models.list()
                names = [str(each.id) for each in listed.data]
        except Exception as error:
            raise _as_llm_error(error) from None
        if self._model and self._model not in names:
            raise LLMError("unknown_model", f"The language model's server does not list {self._model!r}.")

    async def stream(self, task: Task) -> AsyncGenerator[Delta, None]:
        """The completion's deltas; the last carries the server's usage and why it stopped."""
        usage: Usage | None = None
        reason: str | None = None
        calls: dict[int, dict[str, Any]] = {}
        response: Any = None
        loop = asyncio.get_running_loop()
        try:
            end = loop.time() + self._patience.total
            deadline = min(end, loop.time() + self._patience.first)
            async with asyncio.timeout_at(deadline):
                response = await self._asked(await self._request(task))
            read = aiter(response.aiter_bytes())
            rest: bytes | None = b""
            due = 0.0
            while rest is not None:
                if (wait := due - loop.time()) > 0:
                    await asyncio.sleep(wait)
                async with asyncio.timeout_at(deadline):
                    piece = await anext(read, None)
                *lines, rest = (rest + piece).split(b"\n") if piece is not None else (rest, None)
                text, calling = "", False
                for chunk in map(_chunk, lines):
                    if chunk is None:
                        continue
                    usage = _usage(chunk) or usage
                    for choice in _choices(chunk)[:1]:
                        reason = choice.get("finish_reason") or reason
                        delta = choice.get("delta") or {}
                        text += delta.get("content") or ""
                        if pieces := delta.get("tool_calls"):
                            merge(calls, pieces)
                            calling = True
                if text or calling:  # as much as has come at once: all of it is there to be read
                    due = loop.time() + EVERY
                    yield Delta(text)
                    # From here: the reader's time is not the server's.
                    deadline = min(end, loop.time() + self._patience.next)
            if reason is None:
                raise LLMError("cut_off", "The language model's stream ended before its answer did.")
        except LLMError:
            raise
        except Exception as error:
            raise _as_llm_error(error, begun=response is not None) from None
        finally:
            if response is not None:
                await asyncio.shield(response.aclose())
        if calls and reason != "length":
            reason = "tool_calls"  # whose call was ordered says `stop`
        yield Delta(usage=usage, finish_reason=reason, calls=tuple(calls[index] for index in sorted(calls)))

    async def _asked(self, request: dict[str, Any]) -> Any:
        """The open response. The client's own objects of a request and of each chunk take longer than all else that is
        done with them: it is asked for the response as it comes."""
        import httpx2
        import openai

        client = await self._client()
        post = partial(
            client.post,
            "/chat/completions",
            cast_to=httpx2.Response,
            stream=True,
            stream_cls=openai.AsyncStream[object],
            options={"headers": {"X-Request-ID": correlation.current.get()}},
        )
        request = _without(request, self._spared)
        while True:
            try:
                return await post(body=request)
            except openai.APIStatusError as error:
                refused = _refused(error, request)
                if refused is None:
                    raise
            if refused in SPARED:
                logger.warning("the language model takes no %s: it is asked without from now on", refused)
                self._spared.add(refused)
            # Without a response_format what the prompt says of it may do.
            request = _without(request, {refused})

    async def _request(self, task: Task) -> dict[str, Any]:
        options = task.options
        chosen = {
            "temperature": options.temperature if options.temperature is not None else 0.0,
            "top_p": options.top_p,
            "stop": list(options.stop) or None,
            "seed": options.seed,
            "response_format": task.response_format,
        }
        return {
            "model": await self.model(),
            "messages": list(task.messages),
            "max_tokens": options.max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
            **(task.tools.parameters() if task.tools else {}),
        } | {name: value for name, value in chosen.items() if value is not None}

    async def _client(self) -> Any:
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            opened = self._opened(loop)
            self._clients[loop] = await anext(opened), opened
        return self._clients[loop][0]

    async def _opened(self, loop: asyncio.AbstractEventLoop) -> AsyncGenerator[Any, None]:
        """A client until its event loop ends, which closes the generators that were begun in it."""
        client = self._open(
            base_url=self._url,
            api_key=self._api_key or "none",  # the client insists on one
            max_retries=0,
            http_client=self._transport(timeout=self._timeout, limits=self._limits),
        )
        try:
            yield client
        finally:
            del self._clients[loop]
            await client.close()


def _refused(error: openai.APIStatusError, request: dict[str, Any]) -> str | None:
    """The parameter that a server says it does not take, where the request can do without; else None."""
    named = _UNSUPPORTED.search(error.message) if error.status_code in (400, 422) else None
    if named and named[1] in SPARED and named[1] in request:
        return named[1]
    if "response_format" in request and error.status_code in NO_SUCH_FORMAT:
        return "response_format"
    return None


def _without(request: dict[str, Any], refused: Collection[str]) -> dict[str, Any]:
    said = {SPARED.get(name) if name in refused else name: value for name, value in request.items()}
    return {name: value for name, value in said.items() if name is not None}


def _chunk(line: bytes) -> dict[str, Any] | None:
    """What a line of the stream says; None of one that says nothing. Raises LLMError."""
    field, _, said = line.partition(b":")
    said = said.strip()
    if field != b"data" or said == b"[DONE]":
        return None
    chunk = orjson.loads(said)
    if not isinstance(chunk, dict):
        raise LLMError("bad_response", "The language model sent something that is no completion.")
    if chunk.get("error"):
        raise LLMError("server_error", "The language model reported an error in its stream.")
    return chunk


def _choices(chunk: dict[str, Any]) -> list[dict[str, Any]]:
    found = chunk.get("choices")
    if not isinstance(found, list):
        raise LLMError("bad_response", "The language model sent something that is no completion.")
    return found


def _usage(chunk: dict[str, Any]) -> Usage | None:
    found = chunk.get("usage")
    if not found:
        return None
    cached = (found.get("prompt_tokens_details") or {}).get("cached_tokens")
    read, wrote, known = (int(count or 0) for count in (found["prompt_tokens"], found["completion_tokens"], cached))
    if not all(0 <= count < 2**53 for count in (read, wrote, known)):
        raise LLMError("bad_response", "The language model counts tokens that cannot be.")
    return Usage(read, wrote, known)


def _as_llm_error(error: Exception, *, begun: bool = False) -> LLMError:
    """What went wrong in a word: the client raises its own errors before a stream and its transport's within
    one.
    """
    import aiohttp
    import openai

    broke = LLMError("cut_off", "The connection to the language model broke.")
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, aiohttp.ClientError):
        cause = cause.__cause__
    match cause:  # the client takes every connection that failed for a timeout
        case aiohttp.ServerTimeoutError():
            return LLMError("timeout", "The language model did not answer in time.")
        case aiohttp.ClientConnectorError():
            return broke if begun else LLMError("unreachable", "The language model cannot be reached.")
        case aiohttp.ClientConnectionError() | aiohttp.ClientPayloadError():
            return broke
    match error:
        case TimeoutError() | openai.APITimeoutError():
            return LLMError("timeout", "The language model did not answer in time.")
        case openai.RateLimitError():
            return LLMError("rate_limited", "The language model limits the rate (429).", after=_after(error))
        case openai.AuthenticationError() | openai.PermissionDeniedError():
            return LLMError("unauthorized", f"The language model refuses LLM_API_KEY ({error.status_code}).")
        case openai.APIStatusError() if error.status_code >= 500:
            return LLMError("server_error", f"The language model failed ({error.status_code}).", after=_after(error))
        case openai.APIStatusError():
            return LLMError("rejected", f"The language model rejects the request ({error.status_code}).")
        case openai.APIConnectionError():
            return broke if begun else LLMError("unreachable", "The language model cannot be reached.")
        case ValueError() | TypeError() | AttributeError() | LookupError():
            return LLMError("bad_response", "The language model sent something that is no completion.")
    return broke


def _after(error: Any) -> float:
    """The seconds of a response's Retry-After; 0 without one, or with a date."""
    with suppress(KeyError, ValueError):
        return max(0.0, float(error.response.headers["retry-after"]))
    return 0.0
