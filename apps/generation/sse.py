"""Server-sent events: framing, heartbeats, and a client that goes away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from django.http import StreamingHttpResponse
from rest_framework.utils.encoders import JSONEncoder

#: A comment this often keeps proxies from closing a quiet stream.
HEARTBEAT_SECONDS = 10.0
HEARTBEAT = ": heartbeat\n\n"


def dumps(data: Any) -> str:
    """JSON on one line, as the REST views render it."""
    return json.dumps(data, cls=JSONEncoder, ensure_ascii=False, separators=(",", ":"))


def frame(name: str, data: Any) -> str:
    """One named event."""
    return f"event: {name}\ndata: {dumps(data)}\n\n"


async def beating(frames: AsyncGenerator[str, None], *, seconds: float = HEARTBEAT_SECONDS) -> AsyncIterator[str]:
    """The frames, with a comment whenever `seconds` pass without one.

    The frames are made in one task of their own, a step ahead at most. When the reader goes away (the server
    cancels or closes this generator), that task is cancelled and awaited, so whatever it holds open is
    closed.
    """
    ready: asyncio.Queue[str | None] = asyncio.Queue(maxsize=1)

    async def produce() -> None:
        try:
            async with aclosing(frames) as made:
                async for item in made:
                    await ready.put(item)
        finally:
            if not asyncio.current_task().cancelling():  # type: ignore[union-attr]
                await ready.put(None)

    producer = asyncio.create_task(produce())
    try:
        while True:
            try:
                async with asyncio.timeout(seconds):
                    item = await ready.get()
            except TimeoutError:
                yield HEARTBEAT
                continue
            if item is None:
                break
            yield item
        await producer
    finally:
        producer.cancel()
        await asyncio.gather(producer, return_exceptions=True)


def response(frames: AsyncGenerator[str, None]) -> StreamingHttpResponse:
    """A streaming response that no proxy should buffer or keep."""
    return StreamingHttpResponse(
        beating(frames),
        content_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )
