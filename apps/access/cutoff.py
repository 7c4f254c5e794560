"""Waiting for a server, but not for ever: where it cannot be relied on to end what takes too long.

The coordinator of a Citus cluster ends a statement at its time limit by asking the nodes to end their part, and waits
for them to have heard it. A node that hangs never has. What may take long is only waited for as long as all nodes
answer.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Lock, Thread

import psycopg
from django.db import DatabaseError, InterfaceError, OperationalError

EVERY_SECONDS = 0.25


class CutOff(OperationalError):
    """It was waited for long enough; the connection is gone."""


@dataclass(eq=False)
class _Wait:
    session: psycopg.Connection
    until: float
    seconds: float
    answers: Callable[[], bool] | None
    cut: bool = False

    def end(self) -> None:
        self.cut = True
        cut_off(self.session)


_waits: set[_Wait] = set()
_lock = Lock()
_asking = Lock()
_watched = False


@contextmanager
def within(session: psycopg.Connection, seconds: float, *, answers: Callable[[], bool] | None = None) -> Iterator[None]:
    """Cut the connection off if the block takes longer. Raises CutOff then.

    answers: asked then, in another thread; where it says so the block has as long again. One for all blocks.
    """
    wait = _Wait(session, time.monotonic() + seconds, seconds, answers)
    with _lock:
        _waits.add(wait)
        _watch()
    try:
        yield
    except (DatabaseError, InterfaceError, psycopg.Error) as error:
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
    global _watched
    if not _watched:
        _watched = True
        Thread(target=_look, name="cuts off", daemon=True).start()


def _forget_after_fork() -> None:
    """The parent's sessions are its own, its thread is not here, and may have held a lock."""
    global _waits, _lock, _asking, _watched
    _waits, _lock, _asking, _watched = set(), Lock(), Lock(), False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)


def _look() -> None:
    while True:
        time.sleep(EVERY_SECONDS)
        now = time.monotonic()
        with _lock:  # who has come to an end leaves first
            late = [wait for wait in _waits if wait.until < now and not wait.cut]
            for wait in late:
                if wait.answers is None:
                    wait.end()
        doubted = {wait for wait in late if wait.answers is not None}
        if doubted and _asking.acquire(blocking=False):
            Thread(target=_ask, args=(doubted,), name="asks before it cuts off", daemon=True).start()


def _ask(doubted: set[_Wait]) -> None:
    try:
        answered = all(ask() for ask in {wait.answers for wait in doubted} if ask is not None)
        with _lock:
            for wait in doubted & _waits:
                if answered:
                    wait.until = time.monotonic() + wait.seconds
                else:
                    wait.end()
    finally:
        _asking.release()
