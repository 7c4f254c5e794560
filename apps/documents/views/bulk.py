"""`POST /api/v1/documents/bulk`: a document per line in, a result per line out, while lines still come.

Of all that is sent no more than a group of lines is in memory. A group is what came while the last one was worked on: a
client that sends without a pause gets large groups, one that waits for each answer gets it at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from itertools import groupby
from tempfile import SpooledTemporaryFile
from typing import Any
from uuid import UUID

from asgiref.sync import sync_to_async
from django.core.exceptions import RequestAborted
from django.db import connection
from django.http import StreamingHttpResponse
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema
from rest_framework.exceptions import UnsupportedMediaType
from rest_framework.parsers import BaseParser
from rest_framework.request import Request

from apps.access import tenancy
from apps.access.problems import Problem, as_problem, document
from apps.access.rendering import AlwaysJson, JSONRenderer
from apps.access.views import TenantView

from .. import bulk, collections, ledger
from ..accept import Submission
from ..models import Collection
from ..serializers import BulkResultSerializer, SubmissionSerializer
from ..submission import from_line
from .documents import answer

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


class DocumentBulk(TenantView):
    parser_classes = [NdjsonParser]
    content_negotiation_class = AlwaysJson

    @extend_schema(
        request={NDJSON: SubmissionSerializer},
        responses={(200, NDJSON): OpenApiResponse(BulkResultSerializer, "A result per line, in order.")},
        examples=[
            OpenApiExample(
                "one line of many",
                {"collection": "ragsite-docs", "source_uri": "handbook/1", "text": "The office is closed today."},
                media_type=NDJSON,
                request_only=True,
            )
        ],
    )
    def post(self, request: Request) -> StreamingHttpResponse:
        """Add many documents, one JSON object per line.

        Each line is a body of `POST /documents` with a `text`, each line of the response what that would answer, or a
        problem document, with its `status` and the number of the `line`. A bad line fails alone. Results come in order,
        while lines are still being sent. When the connection breaks, what was not answered may or may not have been
        accepted; sent again it is `unchanged`, or accepted now. A line has at most 16 MiB.
        """
        if request.content_type.partition(";")[0].strip().lower() != NDJSON:
            raise UnsupportedMediaType(request.content_type)
        results = _results(
            request.META["ragsite.body"], self.caller.tenant_id, request_id=getattr(request, "request_id", "")
        )
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingHttpResponse(results, content_type=NDJSON, headers=headers)


async def _results(body: AsyncIterator[bytes], tenant_id: UUID, *, request_id: str) -> AsyncIterator[bytes]:
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
                    told = await sync_to_async(_take)(lines, tenant_id, request_id)
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


def _take(lines: list[Line], tenant_id: UUID, request_id: str) -> bytes:
    """The results of a group of lines, as NDJSON."""
    results: dict[int, dict[str, Any]] = {}

    def refuse(numbers: Iterable[int], error: Exception) -> None:
        problem = as_problem(error)
        results.update((number, document(problem, request_id=request_id) | {"line": number}) for number in numbers)

    checker = SubmissionSerializer(context={"form": False})
    good: list[tuple[int, str, str | None, Submission]] = []
    for number, line in lines:
        try:
            if line is None:
                raise Problem(413, "too_large", f"A line has at most {LINE_BYTES} bytes.")
            slug, mode, submission, _ = from_line(line, checker)
            good.append((number, slug, mode, submission))
        except Exception as error:
            refuse([number], error)
    for (slug, mode), same in groupby(good, key=lambda each: each[1:3]):
        numbers, _, _, submissions = zip(*same, strict=True)
        try:
            with tenancy.scope(tenant_id):
                collection = collections.find(slug, writing=True)
            through = (mode or collection.consistency_mode) == Collection.Mode.WRITE_THROUGH
            if not through:
                _wait_for_room()
            put = bulk.put(collection=collection, submissions=submissions, through=through)
        except Exception as error:
            refuse(numbers, error)
            continue
        for number, result in zip(numbers, put, strict=True):
            if isinstance(result, Problem):
                refuse([number], result)
            else:
                status, told = answer(result, collection, through=through)
                results[number] = told | {"status": status, "line": number}
    connection.close()  # back to the pool: the client may take its time
    return b"".join(JSONRenderer().render(results[number]) + b"\n" for number, _ in lines)


def _wait_for_room() -> None:
    """Not to read on is the best answer to a client that sends faster than the workers work. Raises Problem 503."""
    deadline = time.monotonic() + OVERLOADED_SECONDS
    while True:
        try:
            return ledger.refuse_overload()
        except Problem:
            if time.monotonic() > deadline:
                raise
        time.sleep(1)
