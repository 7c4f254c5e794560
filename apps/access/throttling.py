"""A key's requests and tokens per minute, where it has limits."""

from __future__ import annotations

import math
import time
from typing import Any
from uuid import UUID

from redis.exceptions import RedisError
from rest_framework.exceptions import Throttled
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from .keys import Caller
from .problems import Problem
from .redis import redis_client
from .sliding import Window


class KeyThrottle(BaseThrottle):
    """Counts the requests of each minute of the clock in Redis; without Redis nobody is held up."""

    def allow_request(self, request: Request, view: Any) -> bool:
        return not isinstance(request.user, Caller) or _count(request.user, 1)

    def wait(self) -> float:
        """Seconds until the next minute."""
        return _until_next_minute()


def charge(caller: Caller, requests: int) -> None:
    """For a request that stands for several: count these as well. Raises Throttled."""
    if requests and not _count(caller, requests):
        raise Throttled(wait=_until_next_minute())


def _count(caller: Caller, requests: int) -> bool:
    """May the caller make so many requests more in this minute?"""
    if caller.requests_per_minute is None:
        return True
    name = f"rs:requests:{caller.key_id}:{time.time() // 60:.0f}"
    try:
        counting = redis_client().pipeline()
        counting.set(name, 0, nx=True, ex=120)
        counting.incrby(name, requests)
        _, counted = counting.execute()
        return int(counted) <= caller.requests_per_minute
    except (RedisError, OSError):
        return True


class TokenMeter:
    """What a key has models read and write. A request must have room for what it asks, and counts for what it took when
    that is known: requests at the same time may together go over the limit once."""

    def __init__(self, *, key_id: UUID, tokens_per_minute: int) -> None:
        self._window = Window("key-tokens", str(key_id), amount=tokens_per_minute)

    def check(self, tokens: int) -> None:
        """Raises Problem 429 too_many_tokens where there is no room for so many."""
        if wait := self._window.wait(tokens):
            detail = f"This key's tokens of the minute are used up; retry in {wait} s."
            raise Problem(429, "too_many_tokens", detail, retry_after=wait)

    def count(self, tokens: int) -> None:
        """So many were read and written."""
        if tokens > 0:
            self._window.add(tokens)


def meter_of(caller: Caller) -> TokenMeter | None:
    """None for a key without a limit."""
    if caller.tokens_per_minute is None:
        return None
    return TokenMeter(key_id=caller.key_id, tokens_per_minute=caller.tokens_per_minute)


def _until_next_minute() -> float:
    return math.ceil(60 - time.time() % 60)
