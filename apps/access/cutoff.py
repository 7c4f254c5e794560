"""Waiting for a server, but not for ever: where it cannot be relied on to end what takes too long.

The coordinator of a Citus cluster ends a statement at its time limit by asking the nodes to end their part, and waits
for them to have heard it. A node that hangs never has.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Lock, Thread

import psycopg
from django.db import OperationalError

EVERY_SECONDS = 0.25


class CutOff(OperationalError):
    """It was waited for long enough; the connection is gone."""


@dataclass(eq=False)
class _Wait:
    session: psycopg.Connection
    until: float
    cut: bool = False


_waits: set[_Wait] = set()
_lock = Lock()
_watched_by = 0  # the process whose thread looks


@contextmanager
def within(session: psycopg.Connection, seconds: float) -> Iterator[None]:
    """Cut the connection off if the block takes longer. Raises CutOff then."""
    wait = _Wait(session, time.monotonic() + seconds)
    with _lock:
        _waits.add(wait)
        _watch()
    try:
        yield
    except (OperationalError, psycopg.OperationalError) as error:
        if wait.cut:
            raise CutOff(f"no answer within {seconds:g} s") from error
        raise
    finally:
        with _lock:
            _waits.discard(wait)


def cut_off(session: psycopg.Connection) -> None:
    """Let a thread that waits for a server which hangs see the end of its connection."""
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(session.fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)


def _watch() -> None:
    global _watched_by
    if _watched_by != os.getpid():
        _watched_by = os.getpid()
        Thread(target=_look, name="cuts off", daemon=True).start()


def _look() -> None:
    while True:
        time.sleep(EVERY_SECONDS)
        now = time.monotonic()
        with _lock:  # who has come to an end leaves first
            for wait in _waits:
                if wait.until < now and not wait.cut:
                    wait.cut = True
                    cut_off(wait.session)
