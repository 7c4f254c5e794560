"""Whether a model's server is worth asking, as all processes know it through Redis.

pybreaker keeps the state: after FAILURES failures in a row the circuit is open, and nobody asks for a while. Then one
request of all processes asks as a probe; the others learn from what comes of it. Without Redis the circuit is closed.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import NoReturn

from pybreaker import STATE_CLOSED, STATE_OPEN, CircuitBreaker, CircuitBreakerError, CircuitRedisStorage
from redis.exceptions import RedisError

from apps.access.redis import redis_client

from .base import LLMError

logger = logging.getLogger(__name__)
logging.getLogger("pybreaker").setLevel(logging.CRITICAL)  # each of its looks at a Redis that is away is a traceback

FAILURES = 5
SECONDS = 15.0  # open, before a probe
PROBE_SECONDS = 60  # after which another may ask, where the first has died
CLOSED_SECONDS = 0.5  # that it was closed is believed for as long without asking Redis


class Breaker:
    """Of one upstream; name: the same in all processes."""

    def __init__(self, name: str, *, seconds: float = SECONDS) -> None:
        self._name, self._seconds = name, seconds
        self._probe = f"breaker:{name}:probe"
        self._made: tuple[CircuitBreaker, CircuitRedisStorage] | None = None
        self._lock = threading.Lock()
        self._closed_until = 0.0

    async def admit(self) -> bool:
        """Is this the probe? Raises LLMError `open` where nobody is to ask."""
        if time.monotonic() < self._closed_until:
            return False
        return await asyncio.to_thread(self._admit)

    async def is_open(self) -> bool:
        """Has the server failed so often that only probes ask it? Without Redis it has not."""
        return await asyncio.to_thread(self._is_open)

    async def succeeded(self) -> None:
        """The server has answered."""
        await asyncio.to_thread(self._tell, lambda: None)

    async def failed(self) -> None:
        """The server is at fault for what did not come."""
        self._closed_until = 0.0
        await asyncio.to_thread(self._tell, _fail)

    async def let_go(self) -> None:
        """The probe has ended: another may ask, if need be."""
        await asyncio.to_thread(self._let_go)

    def _admit(self) -> bool:
        try:
            breaker, storage = self._breaker()
            state = breaker.current_state
            if state == STATE_CLOSED:
                self._closed_until = time.monotonic() + CLOSED_SECONDS
                return False
            opened = storage.opened_at
            until = opened + timedelta(seconds=self._seconds) if opened else datetime.now(UTC)
            if state == STATE_OPEN and datetime.now(UTC) < until:
                raise LLMError("open", "The language model has failed lately and is not asked now.")
            if not redis_client().set(self._probe, 1, nx=True, ex=PROBE_SECONDS):
                raise LLMError("open", "The language model has failed lately; another request tries it now.")
            return True
        except (RedisError, OSError) as error:
            logger.warning("nothing is known of the server of %s: %s", self._name, error)
            return False

    def _is_open(self) -> bool:
        try:
            return self._breaker()[0].current_state != STATE_CLOSED
        except (RedisError, OSError):
            return False

    def _tell(self, outcome: Callable[[], None]) -> None:
        try:
            with suppress(CircuitBreakerError, _Failed):  # it is open now, or was opened by others meanwhile
                self._breaker()[0].call(outcome)
        except (RedisError, OSError) as error:
            logger.warning("the others are not told of the server of %s: %s", self._name, error)

    def _let_go(self) -> None:
        with suppress(RedisError, OSError):
            redis_client().delete(self._probe)

    def _breaker(self) -> tuple[CircuitBreaker, CircuitRedisStorage]:
        with self._lock:
            if self._made is None:
                storage = CircuitRedisStorage(STATE_CLOSED, redis_client(), namespace=f"breaker:{self._name}")
                breaker = CircuitBreaker(FAILURES, self._seconds, state_storage=storage, name=self._name)
                self._made = breaker, storage
            return self._made


class _Failed(Exception):
    pass


def _fail() -> NoReturn:
    raise _Failed
