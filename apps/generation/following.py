"""What a reader of a query is sent: its events as they come, and what Redis has lost of them from the stored answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterator
from uuid import UUID

from asgiref.sync import sync_to_async
from django.db import connection
from redis.exceptions import RedisError

from apps.access import tenancy
from apps.access.problems import Problem, document
from apps.documents.models import Document

from . import progress
from .models import Query
from .progress import ENDS, Position, size
from .queries import SETTLED, State, answer_of, error_event
from .types import Event

logger = logging.getLogger(__name__)

AWAY_SECONDS = 2.0  # between looks at the query while Redis is away

Told = tuple[Position, Event]


def find(*, tenant_id: UUID, query_id: UUID) -> Query:
    """The query with its answer. Raises Problem 404."""
    found = _look(tenant_id, query_id)
    if found is None:
        raise _gone()
    return found


def has_heard_all(row: Query, after: Position) -> bool:
    """Was this the last event of the query's stream?"""
    return row.state in SETTLED and list(_rest(row, after)) == []


async def follow(row: Query, after: Position | None) -> AsyncGenerator[Told, None]:
    """The events after one, or (None) of the attempt that is under way; the last is final_answer or error.

    An event is sent that goes on where the one before it ended. Where something is missing, all that is left waits for
    the end, and comes from the row. While nothing comes a reader holds a connection to Redis, none to the database.
    """
    position = after or Position(row.fence + (row.state == State.QUEUED), 0)
    seen = position
    tenant_id, query_id = row.tenant_id, row.id
    while True:
        found = await _read(tenant_id, query_id, seen, wait=row.state not in SETTLED)
        for at, event in found:
            seen = at
            if at.place == 0 or at == Position(position.attempt, position.place + size(event)):
                position = at
                if event.name == "search_results" and row.state != State.QUEUED:  # found before the reader came
                    event = await sync_to_async(_still_there)(tenant_id, event)
                yield at, event
                if event.name in ENDS:
                    return
        if found and found[-1][1].name != "final_answer":
            continue
        now = await sync_to_async(_look)(tenant_id, query_id)
        if now is None:
            yield Position(position.attempt + 1, 0), Event("error", document(_gone(), request_id=str(query_id)))
            return
        row = now
        if row.state in SETTLED:
            for told in _rest(row, position):
                yield told
            return


async def _read(tenant_id: UUID, query_id: UUID, after: Position, *, wait: bool) -> list[Told]:
    try:
        return await progress.read(tenant_id=tenant_id, query_id=query_id, after=after, wait=wait)
    except (RedisError, OSError) as error:
        logger.warning("progress cannot be read: %s", error)
        if wait:
            await asyncio.sleep(AWAY_SECONDS)
        return []


def _look(tenant_id: UUID, query_id: UUID) -> Query | None:
    try:
        with tenancy.scope(tenant_id):
            return Query.objects.select_related("answer").filter(id=query_id).first()
    finally:
        if not tenancy.is_open():
            connection.close()  # back to the pool


def _rest(row: Query, position: Position) -> Iterator[Told]:
    """What is left to tell of a settled query after a position."""
    if row.answer is None:
        if position != (end := Position(row.fence + 1, 0)):
            yield end, error_event(row)
        return
    body = answer_of(row)
    text, place = body["answer"], position.place
    if position.attempt != row.fence or place > 2 + len(text) + len(body["citations"]):  # or another query's
        place = 0
        yield Position(row.fence, 0), Event("restart")
    at = 1 + len(text)
    if left := text[max(0, place - 1) :]:
        yield Position(row.fence, at), Event("message", {"delta": left})
    for event in (*(Event("citation", each) for each in body["citations"]), Event("final_answer", body)):
        at += 1
        if at > place:
            yield Position(row.fence, at), event


def _still_there(tenant_id: UUID, event: Event) -> Event:
    """Without the passages of documents that were deleted since they were found."""
    try:
        with tenancy.scope(tenant_id):
            there = Document.objects.filter(
                id__in={hit["document_id"] for hit in event.data["results"]}, deleted_at__isnull=True
            )
            names = {str(each) for each in there.values_list("id", flat=True)}
    finally:
        connection.close()
    kept = [hit for hit in event.data["results"] if hit["document_id"] in names]
    return Event(event.name, event.data | {"results": kept})


def _gone() -> Problem:
    return Problem(404, "not_found", "There is no such query.")
