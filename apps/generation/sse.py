"""Server-sent events: framing, heartbeats, and a client that goes away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from django.http import StreamingHttpResponse

from apps.access import rendering

#: A comment this often keeps proxies from closing a quiet stream.
HEARTBEAT_SECONDS = 10.0
HEARTBEAT = ": heartbeat\n\n"
AHEAD = 8  # frames that wait for a slow reader
#: A reader who has taken none of them for so long is one no more: what it is told must not be held open for ever.
STALLED_SECONDS = 60.0

logger = logging.getLogger(__name__)


def dumps(data: Any) -> str:
    """JSON on one line, as the REST views render it."""
    return rendering.dumps(data).decode()


def frame(name: str, data: Any) -> str:
    """One named event."""
    return f"event: {name}\ndata: {dumps(data)}\n\n"


async def beating(frames: AsyncGenerator[str, None], *, seconds: float = HEARTBEAT_SECONDS) -> AsyncIterator[bytes]:
    """The frames, with a comment whenever `seconds` pass without one; what is there at once leaves at once.

    The frames are made in one task of their own, a few steps ahead at most. When the reader goes away (the server
    cancels or closes this generator), that task is cancelled and awaited, so whatever it holds open is
    closed; when it stays and reads nothing, after STALLED_SECONDS.
    """
    ready: asyncio.Queue[str | None] = asyncio.Queue(maxsize=AHEAD)
    loop = asyncio.get_running_loop()
    last = loop.time()
    timer: asyncio.TimerHandle

    async def taken(item: str) -> bool:
        try:
            async with asyncio.timeout(STALLED_SECONDS):
                await ready.put(item)
        except TimeoutError:
            logger.info("a stream ends: its reader has read nothing for %g s", STALLED_SECONDS)
            return False
        return True

    async def produce() -> None:
        try:
            async with aclosing(frames) as made:
                async for item in made:
                    if not ready.full():
                        ready.put_nowait(item)
                    elif not await taken(item):
                        break
        finally:
            if not asyncio.current_task().cancelling():  # type: ignore[union-attr]
                await ready.put(None)

    def beat() -> None:
        # One timer for all frames: a timeout around each would take as long as the rest of what is done with it.
        nonlocal timer
        due = last + seconds - loop.time()
        if due <= 0 and ready.empty():
            ready.put_nowait(HEARTBEAT)
        timer = loop.call_later(due if due > 0 else seconds, beat)

    timer = loop.call_later(seconds, beat)
    producer = asyncio.create_task(produce())
    try:
        item: str | None = ""
        while item is not None:
            items = [item := await ready.get()]
            while item is not None and not ready.empty():
                items.append(item := ready.get_nowait())
            last = loop.time()
            if text := "".join(filter(None, items)):
                yield text.encode()
        await producer
    finally:
        timer.cancel()
        producer.cancel()
        await asyncio.gather(producer, return_exceptions=True)


def response(frames: AsyncGenerator[str, None]) -> StreamingHttpResponse:
    """A streaming response that no proxy should buffer or keep."""
    return StreamingHttpResponse(
        beating(frames),
        content_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )
