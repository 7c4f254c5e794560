"""How much was used of something in the last minute, by all processes together: `limits`' sliding window, in Redis.

The window counts two minutes of the clock, the last one by the share of it that is still within sixty seconds. Without
Redis nothing is counted and everybody may.
"""

from __future__ import annotations

import logging
import math
from functools import cache

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.storage import RedisStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from redis import Redis
from redis.exceptions import RedisError

from .redis import redis_client

logger = logging.getLogger(__name__)

MINUTE = 60  # seconds


class Window:
    """amount: so much in any minute. kind, name: of what and whose, the same in all processes."""

    def __init__(self, kind: str, name: str, *, amount: int) -> None:
        self._limit: RateLimitItem = RateLimitItemPerMinute(amount, namespace=kind)
        self._name = name

    def take(self, cost: int) -> bool:
        """Use so much, or nothing where there is no room for it. More than a whole minute's counts as that, or it could
        never be had."""
        try:
            return _limiter(redis_client()).hit(self._limit, self._name, cost=min(cost, self._limit.amount))
        except (RedisError, OSError) as error:
            logger.warning("what %s uses is not counted: %s", self._name, error)
            return True

    def add(self, cost: int) -> None:
        """So much has been used, whether there was room for it or not: the window is full then."""
        try:
            limiter = _limiter(redis_client())
            room = limiter.get_window_stats(self._limit, self._name).remaining
            limiter.hit(self._limit, self._name, cost=min(cost, room))
        except (RedisError, OSError) as error:
            logger.warning("what %s has used is not counted: %s", self._name, error)

    def wait(self, cost: int) -> int:
        """Whole seconds until there is room for so much: 0 now, at most 120."""
        try:
            storage, key = _limiter(redis_client()).storage, self._limit.key_for(self._name)
            assert isinstance(storage, RedisStorage)
            before, before_ends, now, now_ends = storage.get_sliding_window(key, MINUTE)
        except (RedisError, OSError):
            return 0
        before_counts = before * before_ends / MINUTE
        too_much = math.floor(before_counts + now) + min(cost, self._limit.amount) - self._limit.amount
        if too_much <= 0:
            return 0
        if too_much <= before_counts:
            return max(1, math.ceil(too_much / before * MINUTE))
        # All of the minute before must go, and then a part of this one, which is the one before by then.
        share = min(1.0, (too_much - before_counts) / max(1, now))
        return min(2 * MINUTE, max(1, math.ceil(now_ends - MINUTE + share * MINUTE)))


@cache
def _limiter(redis: Redis) -> SlidingWindowCounterRateLimiter:
    storage = RedisStorage("redis://", connection_pool=redis.connection_pool, key_prefix="rs:limits")
    return SlidingWindowCounterRateLimiter(storage)
