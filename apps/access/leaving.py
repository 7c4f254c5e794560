"""Stops what is done for a client that goes away meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from typing import Any, TypeVar

from .problems import Problem

T = TypeVar("T")

#: Ends, one way or another, when the client of this request has gone; None where nobody can tell (a worker, WSGI).
gone: ContextVar[Callable[[], Awaitable[Any]] | None] = ContextVar("client_gone", default=None)


async def unless_gone(work: Coroutine[Any, Any, T]) -> T:
    """The work's result; it is cancelled, and has ended, when the client has gone. In the event loop that serves it.

    Raises Problem 408 client_gone, which nobody reads.
    """
    listen = gone.get()
    if listen is None:
        return await work
    working = asyncio.create_task(work)
    leaving = asyncio.ensure_future(listen())
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Problem(408, "client_gone", "The client has gone.")
    finally:
        leaving.cancel()
        working.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)
    return working.result()
