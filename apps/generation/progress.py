"""How far a query is, told while it is answered: a Redis stream that a worker writes and readers follow.

The id of an event is the attempt and how far the answer has come with it, `{attempt}-{place}`:

0                                `restart`: what an earlier attempt has told is void; or `error`, the end
1                                `search_results`
1 + characters so far            `message`
one more than the last           each `citation`, then `final_answer`

Attempts are fences (models.Query), so that Redis refuses, as too small, what somebody writes who has lost the query.
Whoever knows a place and the answer knows what is left to tell: the stream may be lost at any time (following.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import time
from collections.abc import Iterable
from typing import Any, NamedTuple
from uuid import UUID
from weakref import WeakKeyDictionary

from django.conf import settings
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.exceptions import RedisError, ResponseError

from apps.access.problems import Problem
from apps.access.redis import redis_client

from . import sse
from .types import Event

logger = logging.getLogger(__name__)

ENDS = ("final_answer", "error")
MAX_EVENTS = 20_000  # of a stream, roughly; the oldest go first
SECONDS = 600  # that a stream stays after its last event
WAIT_SECONDS = 10.0  # that a reader waits for the next event before it looks elsewhere
AWAY_SECONDS = 5.0  # that a writer leaves Redis alone after it has failed, but for the end
AT_ONCE, MAX_READERS = 500, 100_000
_POSITION = re.compile(r"([0-9]{1,18})-([0-9]{1,18})")


class Position(NamedTuple):
    """Which event: the id of the module docstring."""

    attempt: int
    place: int

    def __str__(self) -> str:
        return f"{self.attempt}-{self.place}"


def parse(text: str) -> Position:
    """The position that an event's id is. Raises Problem 400."""
    found = _POSITION.fullmatch(text)
    if found is None:
        raise Problem(400, "invalid", "Last-Event-ID is not the id of an event of this stream.")
    return Position(int(found[1]), int(found[2]))


def size(event: Event) -> int:
    """By how much an event moves its place on from the one before it."""
    return len(event.data["delta"]) if event.name == "message" else 1


class Writer:
    """Tells the events of an attempt. Without Redis it only remembers them; all that is missing is sent with the next
    one when Redis is back, or has lost the stream."""

    def __init__(self, *, tenant_id: UUID, query_id: UUID, attempt: int) -> None:
        self._key, self._attempt, self._place = _key(tenant_id, query_id), attempt, 0
        self._told: list[tuple[Position, dict[str, str]]] = []
        self._sent: int | None = None  # how many of these Redis has; None: not known
        self._away_until = 0.0

    def add(self, event: Event) -> None:
        """The next event of the attempt."""
        if event.name != "restart":
            self._place += size(event)
        self._tell(Position(self._attempt, self._place), event)

    def end(self, error: Event) -> None:
        """The last event, of an attempt that nobody goes on with."""
        self._tell(Position(self._attempt + 1, 0), error)

    def _tell(self, at: Position, event: Event) -> None:
        if self._told and at == self._told[-1][0]:
            return  # an empty delta
        self._told.append((at, {"name": event.name, "data": sse.dumps(event.data)}))
        if time.monotonic() < self._away_until and event.name not in ENDS:
            return
        try:
            for _ in range(3):
                if self._send(redis_client(insists=event.name in ENDS)):
                    return
        except (RedisError, OSError) as error:
            logger.warning("progress is not told for now: %s", error)
            self._away_until, self._sent = time.monotonic() + AWAY_SECONDS, None

    def _send(self, redis: Redis) -> bool:
        """Is there nothing left to send? If not, what Redis has is found out anew."""
        if self._sent is None:
            last = _last(redis, self._key)
            if last > self._told[-1][0]:
                return True  # somebody else has the query
            if last.attempt < self._attempt:
                redis.delete(self._key)
            self._sent = sum(at <= last for at, _ in self._told)
        sending = redis.pipeline(transaction=False)
        for at, fields in self._told[self._sent :]:
            sending.xadd(self._key, fields, id=str(at), maxlen=MAX_EVENTS, nomkstream=self._sent > 0)  # type: ignore[arg-type]
        sending.expire(self._key, SECONDS)
        try:
            added = sending.execute()
        except ResponseError as refused:  # it had some of these, or somebody else has the query
            logger.info("progress of the attempt is refused: %s", refused)
            added = [None]
        self._sent = None if None in added else len(self._told)
        return self._sent is not None


def _last(redis: Redis, key: str) -> Position:
    found: Any = redis.xrevrange(key, count=1)
    return parse(found[0][0].decode()) if found else Position(0, 0)


async def read(*, tenant_id: UUID, query_id: UUID, after: Position, wait: bool) -> list[tuple[Position, Event]]:
    """The next events after one; wait: for up to WAIT_SECONDS until there is one. Holds a connection of its own to
    Redis meanwhile, and no thread. Raises RedisError."""
    milliseconds = int(WAIT_SECONDS * 1000) if wait else None
    found: Any = await _client().xread({_key(tenant_id, query_id): str(after)}, count=AT_ONCE, block=milliseconds)
    if isinstance(found, dict):
        found = list(found.items())
    return [
        (parse(at.decode()), Event(fields[b"name"].decode(), json.loads(fields[b"data"])))
        for _, entries in found
        for at, fields in entries
    ]


def forget(queries: Iterable[tuple[UUID, UUID]]) -> None:
    """Remove the streams of (tenant, query): what they quote was erased."""
    keys = [_key(*each) for each in queries]
    with contextlib.suppress(RedisError, OSError):  # then they go when their time has come
        if keys:
            redis_client(insists=True).delete(*keys)


_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncRedis] = WeakKeyDictionary()


def _client() -> AsyncRedis:
    """One for each event loop, to which its connections belong."""
    loop = asyncio.get_running_loop()
    if loop not in _clients:
        _clients[loop] = AsyncRedis.from_url(
            settings.REDIS_URL,
            socket_timeout=WAIT_SECONDS + 5,
            socket_connect_timeout=1,
            max_connections=MAX_READERS,  # by default it is 100
        )
    return _clients[loop]


def _key(tenant_id: UUID, query_id: UUID) -> str:
    return f"rs:progress:{tenant_id}:{query_id}"
