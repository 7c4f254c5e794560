"""The id that all log lines of one piece of work carry, whichever process does it: a request's, or a query's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

NONE = "-"
current: ContextVar[str] = ContextVar("correlation_id", default=NONE)


@contextmanager
def of(identifier: object) -> Iterator[None]:
    """For the block, and what it starts."""
    token = current.set(str(identifier))
    try:
        yield
    finally:
        current.reset(token)
