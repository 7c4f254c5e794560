"""How much may be asked of a model's server in a minute, by all processes together: `limits`, in Redis."""

from __future__ import annotations

import logging
from functools import cache

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.storage import storage_from_string
from limits.strategies import SlidingWindowCounterRateLimiter
from redis.exceptions import RedisError

from .base import LLMError

logger = logging.getLogger(__name__)


class Allowance:
    """Requests and tokens a minute, a sliding one; 0 for any number. name: the same in all processes."""

    def __init__(self, name: str, redis_url: str, *, requests: int, tokens: int) -> None:
        self._name, self._redis_url = name, redis_url
        self._requests = RateLimitItemPerMinute(requests, namespace="requests") if requests else None
        self._tokens = RateLimitItemPerMinute(tokens, namespace="tokens") if tokens else None

    def take(self, tokens: int) -> None:
        """For a request with so many tokens. Raises LLMError `limited`; without Redis all may ask."""
        if not (self._hit(self._requests, 1) and self._hit(self._tokens, tokens)):
            raise LLMError("limited", "The language model was asked as much as it may be in a minute.")

    def add(self, tokens: int) -> None:
        """So many were written besides."""
        self._hit(self._tokens, tokens)

    def _hit(self, limit: RateLimitItem | None, cost: int) -> bool:
        if limit is None:
            return True
        try:
            # What is more than a whole minute's counts as that, or it could never be asked.
            return _limiter(self._redis_url).hit(limit, self._name, cost=min(cost, limit.amount))
        except (RedisError, OSError) as error:
            logger.warning("what is asked of %s is not counted: %s", self._name, error)
            return True


@cache
def _limiter(redis_url: str) -> SlidingWindowCounterRateLimiter:
    named = redis_url.replace("unix://", "redis+unix://", 1)  # as the library calls it
    return SlidingWindowCounterRateLimiter(storage_from_string(named, key_prefix="rs:limits", socket_timeout=1))
