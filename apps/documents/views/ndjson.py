"""A request of many lines, answered line by line while lines still come.

Of all that is sent no more than a group of lines is in memory. A group is what came while the last one was worked on: a
client that sends without a pause gets large groups, one that waits for each answer gets it at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from tempfile import SpooledTemporaryFile
from typing import Any

from asgiref.sync import sync_to_async
from django.core.exceptions import RequestAborted
from django.db import connection
from django.http import StreamingHttpResponse
from rest_framework.exceptions import UnsupportedMediaType
from rest_framework.parsers import BaseParser
from rest_framework.request import Request

from apps.access.problems import Problem, as_problem, document
from apps.access.rendering import JSONRenderer

from .. import ledger

NDJSON = "application/x-ndjson"
LINE_BYTES = 16 * 2**20
GROUP_LINES, GROUP_BYTES = 200, 2**20
SPOOLED_BYTES, PIECE_BYTES = 2**20, 2**16
PAUSE_SECONDS = 0.01  # without a new line, after which a group is worked on
OVERLOADED_SECONDS = 20.0

Line = tuple[int, bytes | None]  # its number, from 1; None for one that is too long


class NdjsonParser(BaseParser):
    """The body is not parsed before the view: it reads line by line."""

    media_type = NDJSON


class Results:
    """What a group of lines is answered, by the number of each line."""

    def __init__(self, request_id: str) -> None:
        self._request_id = request_id
        self._told: dict[int, dict[str, Any]] = {}

    def tell(self, number: int, status: int, body: dict[str, Any]) -> None:
        """What `POST /documents` would have answered."""
        self._told[number] = body | {"status": status, "line": number}

    def refuse(self, numbers: Iterable[int], error: Exception) -> None:
        """A problem document for each of these lines."""
        problem = as_problem(error)
        for number in numbers:
            self._told[number] = document(problem, request_id=self._request_id) | {"line": number}

    def render(self, lines: list[Line]) -> bytes:
        """As NDJSON, in the order of the lines."""
        return b"".join(JSONRenderer().render(self._told[number]) + b"\n" for number, _ in lines)


#: Works on a group of lines: puts a result for each into `Results`.
Take = Callable[[list[Line], Results], None]


def respond(request: Request, take: Take) -> StreamingHttpResponse:
    """The streaming answer to a request of lines. Raises UnsupportedMediaType."""
    if request.content_type.partition(";")[0].strip().lower() != NDJSON:
        raise UnsupportedMediaType(request.content_type)
    request_id = getattr(request, "request_id", "")

    def work(lines: list[Line]) -> bytes:
        results = Results(request_id)
        take(lines, results)
        connection.close()  # back to the pool: the client may take its time
        return results.render(lines)

    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingHttpResponse(_results(request.META["ragsite.body"], work), content_type=NDJSON, headers=headers)


def content_of(line: bytes | None) -> bytes:
    """The line. Raises Problem 413 for one that is too long."""
    if line is None:
        raise Problem(413, "too_large", f"A line has at most {LINE_BYTES} bytes.")
    return line


def wait_for_room() -> None:
    """Not to read on is the best answer to a client that sends faster than the workers work. Raises Problem 503."""
    deadline = time.monotonic() + OVERLOADED_SECONDS
    while True:
        try:
            return ledger.refuse_overload()
        except Problem:
            if time.monotonic() > deadline:
                raise
        time.sleep(1)


async def _results(body: AsyncIterator[bytes], take: Callable[[list[Line]], bytes]) -> AsyncIterator[bytes]:
    """What is answered, as fast as the client reads it.

    Many clients send everything before they read anything. If the server waited for them to read, both would wait for
    ever; so results that nobody reads yet go to a temporary file.
    """
    written = read = 0
    news = asyncio.Event()
    with SpooledTemporaryFile(SPOOLED_BYTES) as spool:

        async def work() -> None:
            nonlocal written
            try:
                async for lines in _groups(_lines(body)):
                    told = await sync_to_async(take)(lines)
                    spool.seek(written)
                    spool.write(told)
                    written += len(told)
                    news.set()
            except RequestAborted:
                pass  # nobody is there to be answered
            finally:
                news.set()

        working = asyncio.create_task(work())
        try:
            while read < written or not working.done():
                if read == written:
                    news.clear()
                    await news.wait()
                    continue
                spool.seek(read)
                piece = spool.read(PIECE_BYTES)
                read += len(piece)
                yield piece
            await working
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)


async def _lines(body: AsyncIterator[bytes]) -> AsyncIterator[list[Line]]:
    """The lines that end in each piece of the body. Blank ones are counted and left out."""
    number = 0
    rest: bytearray | None = bytearray()  # of the line that has not ended
    async for piece in body:
        found: list[Line] = []
        first, *others = piece.split(b"\n")
        rest = _longer(rest, first)
        for other in others:
            number += 1
            found += _ended(number, rest)
            rest = _longer(bytearray(), other)
        if found:
            yield found
    if last := _ended(number + 1, rest):
        yield last


def _longer(line: bytearray | None, more: bytes) -> bytearray | None:
    if line is None or len(line) + len(more) > LINE_BYTES:
        return None
    line += more
    return line


def _ended(number: int, line: bytearray | None) -> list[Line]:
    if line is None:
        return [(number, None)]
    return [(number, bytes(line))] if line.strip() else []


async def _groups(lines: AsyncIterator[list[Line]]) -> AsyncIterator[list[Line]]:
    group: list[Line] = []
    coming = asyncio.ensure_future(anext(lines, None))
    try:
        while True:
            done, _ = await asyncio.wait({coming}, timeout=PAUSE_SECONDS if group else None)
            if done:
                some = coming.result()
                if some is None:
                    break
                group += some
                coming = asyncio.ensure_future(anext(lines, None))
            size = sum(len(line or b"") for _, line in group)
            if not done or len(group) >= GROUP_LINES or size >= GROUP_BYTES:
                yield group
                group = []
        if group:
            yield group
    finally:
        coming.cancel()
