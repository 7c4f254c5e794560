"""A key's requests per minute, where it has a limit."""

from __future__ import annotations

import math
import time
from typing import Any

from django.core.cache import cache
from redis.exceptions import RedisError
from rest_framework.exceptions import Throttled
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from .keys import Caller


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
    name = f"requests:{caller.key_id}:{time.time() // 60:.0f}"
    try:
        cache.add(name, 0, timeout=120)
        return cache.incr(name, requests) <= caller.requests_per_minute
    except (RedisError, OSError, ValueError):  # ValueError: forgotten between the two
        return True


def _until_next_minute() -> float:
    return math.ceil(60 - time.time() % 60)
