"""Redis as all of the site knows it: it wakes workers, caches and counts, and nobody needs it.

Who cannot reach it goes on without it. One that says nothing (paused, cut off from the network) would hold up each of
the several looks of a request: after the first that has waited in vain, a process leaves it alone for a while.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

from celery import current_app
from django.conf import settings
from kombu.exceptions import OperationalError as BrokerError
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, RedisError, TimeoutError
from redis.retry import Retry

logger = logging.getLogger(__name__)

T = TypeVar("T")

SECONDS = 1.0  # that a look may take: it is to save time
PAUSE_SECONDS = 5.0


class _Once(Retry):
    """No second try, and after a silence none at all for PAUSE_SECONDS, of any connection of a client."""

    def __init__(self) -> None:
        super().__init__(NoBackoff(), 0)
        self._silent_until = 0.0

    def __deepcopy__(self, memo: dict[int, Any]) -> _Once:
        return self  # each connection copies it, and they are to know of each other

    def call_with_retry(self, do: Callable[[], T], *args: Any, **kwargs: Any) -> T:
        if time.monotonic() < self._silent_until:
            raise ConnectionError("Redis has said nothing lately and is left alone")
        try:
            return super().call_with_retry(do, *args, **kwargs)
        except TimeoutError:
            self._silent_until = time.monotonic() + PAUSE_SECONDS
            raise


@functools.cache
def redis_client(*, insists: bool = False) -> Redis:
    """One client per process, for all its threads. Its calls raise RedisError or OSError. insists: another one, which
    does not leave Redis alone, for what is tried once and should not be missed."""
    retry = Retry(NoBackoff(), 0) if insists else _Once()
    return Redis.from_url(settings.REDIS_URL, socket_timeout=SECONDS, socket_connect_timeout=SECONDS, retry=retry)


def wake(task: str, *, times: int = 1, **options: Any) -> None:
    """Send workers a task that finds its work in the database, with options of Celery's `send_task`. A broker that
    cannot be reached is no error: a sweeper of the same work is to send it again."""
    try:
        redis_client().ping()  # the broker's own connection waits longer for an answer
        for _ in range(times):
            current_app.send_task(task, retry=False, **options)
    except (BrokerError, RedisError, OSError) as error:
        logger.warning("no worker is woken for %s, the sweeper will do it: %s", task, error)
