"""Read replicas: which of them are fit to be asked, and a snapshot on one.

1. A thread per replica asks twice a second how far it has replayed, one more how far the primary has come. A search
   looks at what they have found and nothing else. (A process starts them when it first searches.)
2. A replica is left out while it does not answer, hangs, has been promoted, or is behind by more than
   REPLICA_MAX_LAG_SECONDS. Who is waiting for it then is cut off and goes to the primary. The threads go on asking: it
   is used again as soon as it is fit.
3. A request that brings the token of a write (`read_after`) is not given to one that was not seen to have replayed it.

None of this makes what a replica says true: it may be behind by anything at any moment. Who asks one proves what it
found by the primary (retrieval/search.py, docs/adr/0016-replicas.md).
"""

from __future__ import annotations

import logging
import os
import re
import select
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from random import random
from threading import Lock, Thread
from uuid import UUID

import psycopg
from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections

from . import tenancy
from .cutoff import cut_off
from .metrics import REPLICA_LEFT_OUT, REPLICA_SEARCHES
from .sql import database, execute, reading_from

logger = logging.getLogger(__name__)

HEADER = "X-Ragsite-Lsn"
LOOK_SECONDS = 0.5
HANG_SECONDS = 2.0  # without an answer to the smallest of questions
_LSN = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")
# What has not been flushed is not sent yet, and nobody is behind it. (Of a record that crosses a page a part may be
# flushed and sent, which cannot be replayed, until the background writer's next snapshot: for 15 s at most.)
_PRIMARYS = "SELECT pg_current_wal_flush_lsn() - '0/0'::pg_lsn"
_REPLICAS = "SELECT pg_last_wal_replay_lsn() - '0/0'::pg_lsn WHERE pg_is_in_recovery()"

_after: ContextVar[int] = ContextVar("after", default=0)
#: How far the primary had come, and when (time.monotonic) that was first seen, since this process began to look.
_primary: list[tuple[float, int]] = []
MOST_LOOKS = 2_400  # of a year, thinned out, there are 1,500


class NotFollowing(Exception):
    """This server follows the primary no more: what it says is its own."""


@dataclass(eq=False)
class Replica:
    """One replica as this process sees it. why: it is left out, None where it is not. replayed: how far at least, in
    bytes of the write-ahead log. lag: seconds that it is behind. busy: the sessions of searches that wait for it."""

    alias: str
    why: str | None = "not asked yet"
    replayed: int = 0
    lag: float | None = None
    busy: set[psycopg.Connection] = field(default_factory=set)
    lock: Lock = field(default_factory=Lock)

    def __str__(self) -> str:
        why, lag = self.why, self.lag
        return f"left out: {why}" if why else "ok" if lag is None else f"ok, {lag:.1f} s behind"

    def seen(self, replayed: int | None) -> None:
        """It has answered; None: as a server that follows nobody."""
        if replayed is None:
            self.leave_out("promoted")
            return
        self.replayed, self.lag = replayed, _seconds_since(replayed)
        if self.lag is None:  # the primary has not answered yet
            return
        if self.lag > settings.REPLICA_MAX_LAG_SECONDS:
            self.leave_out("lagging")
        elif self.why is not None:
            logger.info("%s is used", self.alias)
            self.why = None

    def lost(self, error: Exception) -> None:
        self.lag = None
        self.leave_out("hanging" if isinstance(error, TimeoutError) else "unreachable", error)
        with self.lock:
            for session in self.busy:
                cut_off(session)

    def leave_out(self, why: str, error: Exception | None = None) -> None:
        if self.why != why:
            logger.warning("%s is left out: %s%s", self.alias, why, f" ({error})" if error else "")
            REPLICA_LEFT_OUT.labels(replica=self.alias, reason=why).inc()
        self.why = why

    def count(self, outcome: str) -> None:
        REPLICA_SEARCHES.labels(replica=self.alias, outcome=outcome).inc()

    @contextmanager
    def snapshot(self, tenant_id: UUID | str) -> Iterator[None]:
        """`tenancy.snapshot` on this replica: the primary as it was once. Raises NotFollowing, DatabaseError."""
        with reading_from(self.alias):
            connection = database()
            try:
                connection.ensure_connection()
                waiting = self._waiting(connection.connection)
                with connection.wrap_database_errors, waiting, tenancy.snapshot(tenant_id):
                    # Asked after the snapshot was taken, and who has been promoted never follows again.
                    following = execute("SELECT pg_is_in_recovery()", {})
                    yield
                    if not following.fetchone()[0]:  # type: ignore[index]  # it has a row
                        raise NotFollowing
            except DatabaseError:
                if connection.connection is None or connection.connection.closed:
                    self.leave_out("unreachable")
                raise
            finally:
                connection.close()  # back to the pool

    @contextmanager
    def _waiting(self, session: psycopg.Connection) -> Iterator[None]:
        with self.lock:
            self.busy.add(session)
        try:
            yield
        finally:
            with self.lock:
                self.busy.discard(session)


_replicas = [Replica(alias) for alias in settings.REPLICAS]
_starting = Lock()
_watched_by = 0  # the process whose threads look


def choose() -> Replica | None:
    """The replica to ask next: of those that are fit and have replayed what the request must see, the least busy one.
    None where there is none."""
    if not _replicas:
        return None
    _watch()
    most, after = settings.DATABASE_POOL_SIZE, _after.get()
    fit = [each for each in _replicas if each.why is None and each.replayed >= after and len(each.busy) < most]
    return min(fit, key=lambda each: (len(each.busy), random()), default=None)


def read_after(token: str) -> None:
    """For the rest of the request's context: only what has replayed this LSN may be read. Empty: whatever it is.

    What cannot be understood is later than anything: the primary is always right.
    """
    found = _LSN.fullmatch(token)
    late = (int(found[1], 16) << 32) + int(found[2], 16) if found else 1 << 64
    _after.set(late if token else 0)


def token() -> str:
    """How far the primary has come: no transaction that has committed, even one that does not wait for the disk, is
    further."""
    return str(execute("SELECT pg_current_wal_insert_lsn()::text", {}).fetchone()[0])  # type: ignore[index]


def standing() -> list[Replica]:
    """All replicas as this process sees them."""
    if _replicas:
        _watch()
    return _replicas


def _watch() -> None:
    global _watched_by
    if _watched_by == os.getpid():
        return
    with _starting:
        if _watched_by == os.getpid():
            return
        _watched_by = os.getpid()
        lookers: list[tuple[str, str, Callable[[int | None], None], Callable[[Exception], None]]]
        lookers = [(each.alias, _REPLICAS, each.seen, each.lost) for each in _replicas]
        for looker in [(DEFAULT_DB_ALIAS, _PRIMARYS, _came, lambda error: None), *lookers]:
            Thread(target=_look, args=looker, name=f"looks at {looker[0]}", daemon=True).start()


def _look(alias: str, question: str, seen: Callable[[int | None], None], lost: Callable[[Exception], None]) -> None:
    """For ever, in a thread of its own: ask, and tell what came of it."""
    wanted = connections[alias].get_connection_params() | {"connect_timeout": round(HANG_SECONDS)}
    while True:
        session = None
        try:
            session = psycopg.connect(**wanted, autocommit=True)
            while True:
                seen(_answer(session, question))
                time.sleep(LOOK_SECONDS)
        except Exception as error:  # whatever it is, it must be looked at again
            lost(error)
        if session is not None:
            session.close()
        time.sleep(LOOK_SECONDS)


def _answer(session: psycopg.Connection, question: str) -> int | None:
    """The number that is the answer, None without a row. Raises TimeoutError, for which psycopg itself would wait for
    ever; psycopg.Error."""
    until = time.monotonic() + HANG_SECONDS
    wire = session.pgconn
    ready = select.poll()
    ready.register(wire.socket, select.POLLIN)
    wire.send_query(question.encode())
    wire.flush()
    while wire.is_busy():
        if not ready.poll(max(0.0, until - time.monotonic()) * 1_000):
            raise TimeoutError
        wire.consume_input()
    result = wire.get_result()
    while wire.get_result():
        pass
    if result is None or result.status != psycopg.pq.ExecStatus.TUPLES_OK:
        raise psycopg.OperationalError(result.get_error_message() if result else "no answer")
    value = result.get_value(0, 0) if result.ntuples else None
    return None if value is None else int(value)


def _came(position: int | None) -> None:
    global _primary
    if position is not None and (not _primary or _primary[-1][1] != position):
        _primary.append((time.monotonic(), position))
        if len(_primary) > MOST_LOOKS:
            _primary = _thinned(_primary)


def _thinned(looks: list[tuple[float, int]]) -> list[tuple[float, int]]:
    """Without those that are nearer to the next one than a hundredth of how long ago they were. What is told by them is
    too little by 2 % at most, and they may reach back for ever."""
    now = looks[-1][0]
    kept = [looks[-1]]
    for look in looks[-2::-1]:
        if kept[-1][0] - look[0] >= (now - look[0]) / 100:
            kept.append(look)
    return kept[::-1]


def _seconds_since(replayed: int) -> float | None:
    """For how long, at least, the primary has been further than that; 0 where it is not, None where it is not known.
    What was so before the first look has been so since then, at least."""
    if not _primary:
        return None
    first = now = time.monotonic()
    for at, position in reversed(_primary.copy()):
        if position <= replayed:
            break
        first = at
    return now - first
