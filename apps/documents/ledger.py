"""The job ledger as verbs: claim, keep, hand over, finish, fail. Messages only wake; what counts is the row.

How a job moves:
1. accept.py writes it, queued for `prepare`, in the transaction of the version it is for.
2. A worker claims it (SKIP LOCKED): running, a lease, a new fence.
3. Every later write of that worker names the fence; zero rows mean that the lease ran out and another worker has the
   job, so the whole transaction is rolled back (LostLease).
4. `hand_over` queues it for `embed`; `finish` ends it; `fail` queues it again later or, after
   JOB_MAX_ATTEMPTS or for an error that no retry mends, makes it a dead letter.
5. The sweeper (tasks.py) wakes workers for whatever is due: messages may be lost.
"""

from __future__ import annotations

import json
import logging
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count, groupby
from typing import Any
from uuid import UUID, uuid4

from django.conf import settings
from django.db import close_old_connections, connection, transaction
from django.utils import timezone

from apps.access import redis, tenancy
from apps.access.problems import Problem

from . import db, metrics
from .engines import engine_for
from .errors import AWAY, LostLease, describe
from .models import Document, IngestionJob

logger = logging.getLogger(__name__)

Timings = Sequence[dict[str, float]]  # of each job, in milliseconds
Base = tuple[int | None, int | None]  # the live version and its revision that staged chunks were compared with
Stage, Priority = IngestionJob.Stage, IngestionJob.Priority
_FLOORS = {3: Priority.NORMAL, 7: Priority.LOW}
SMALL_BYTES = 64 * 1024
RETRIED_AT_ONCE, FORGOTTEN_AT_ONCE = 1_000, 10_000
OVERLOADED_SECONDS = 10
#: (Monotonic time at which the open jobs are counted again, how many there were.)
_counted: tuple[float, int] = (0.0, 0)
AWAY_SECONDS = 4.0
BACKOFF_SECONDS, BACKOFF_LIMIT_SECONDS = 1.0, 300.0


@dataclass(frozen=True, slots=True)
class Claim:
    """A job in this worker's hands, until its lease runs out."""

    id: UUID
    tenant_id: UUID
    collection_id: UUID
    document_id: UUID
    version: int
    kind: str
    base_version: int | None
    base_revision: int | None
    bytes: int
    attempts: int
    fence: int
    created_at: datetime
    timings: dict[str, float]

    @property
    def is_reindex(self) -> bool:
        return self.kind == IngestionJob.Kind.REINDEX


@dataclass(frozen=True, slots=True)
class Owned:
    """A job whose row and document are locked by this transaction, and what of the document is live or deleted."""

    held: Claim
    live_version: int | None
    live_revision: int
    deleted_version: int | None

    @property
    def base(self) -> Base:
        return self.live_version, self.live_revision


def worker_name() -> str:
    return f"{socket.gethostname()}:{os.getpid()}:{threading.get_ident() % 10_000}"


def claims(*, stage: str, limit: int) -> Iterator[list[Claim]]:
    """Due jobs of a stage, a handful at a time, until there are none.

    Urgent ones come first, low ones last; but of eight turns one begins with normal and one with low ones, so that
    nothing waits for ever.
    """
    for turn in count():
        lowest = _FLOORS.get(turn % 8, Priority.URGENT)
        found = claim(stage=stage, limit=limit, lowest=lowest)
        if found:
            yield found
        elif lowest == Priority.URGENT:
            return


def claim(
    *,
    stage: str,
    limit: int = 1,
    only_small: bool = False,
    lowest: int = IngestionJob.Priority.URGENT,
    job_id: UUID | None = None,
) -> list[Claim]:
    """Due jobs of a stage, urgent first: up to `limit` small ones, or one that is large or has been tried before.

    only_small: none of the latter. lowest: none that is more urgent. job_id: only this one.
    """
    with transaction.atomic():
        with connection.cursor() as cursor:  # a lease that a crash of Postgres forgets is simply taken again
            cursor.execute("SET LOCAL synchronous_commit = off")
        found = db.rows(
            "claim",
            stage=stage,
            worker=worker_name(),
            lease=settings.JOB_LEASE_SECONDS,
            limit=limit,
            small=SMALL_BYTES,
            only_small=only_small,
            lowest=lowest,
            job=job_id,
        )
    claims = []
    for held in map(_claim, found):
        if held.attempts > settings.JOB_MAX_ATTEMPTS:
            detail = f"The worker died or stalled {settings.JOB_MAX_ATTEMPTS} times while it had this job."
            fail(held, {"code": "worker_lost", "detail": detail}, retryable=False)
        else:
            claims.append(held)
    return claims


def claim_these(jobs: Sequence[UUID], *, stage: str, tries: int, take_over: bool) -> list[Claim]:
    """Inside a scope: of these jobs of a stage those that are due and have been tried fewer than `tries` times, for a
    reader (ahead.py). take_over: also what a worker has in hand: what it still writes names the old fence."""
    found = db.rows(
        "claim_these",
        ids=list(jobs),
        stage=stage,
        tries=tries,
        take_over=take_over,
        worker=f"reader {worker_name()}",
        lease=settings.JOB_LEASE_SECONDS,
    )
    return list(map(_claim, found))


def _claim(row: Sequence[Any]) -> Claim:
    values = list(row)
    if isinstance(values[-1], str):  # the timings
        values[-1] = json.loads(values[-1])
    return Claim(*values)


def open_jobs(
    documents: Sequence[Document], *, sizes: Sequence[int], priorities: Sequence[int], hold: bool
) -> list[tuple[IngestionJob, Claim | None]]:
    """Inside accept.py's transaction: the jobs of new versions of one collection's documents, of `sizes` bytes; hold:
    claimed by this very thread."""
    state = IngestionJob.State.RUNNING if hold else IngestionJob.State.QUEUED
    shared: dict[str, Any] = {"state": state, "worker": worker_name() if hold else ""}
    opened: list[tuple[IngestionJob, Claim | None]] = []
    for document, size, priority in zip(documents, sizes, priorities, strict=True):
        values: dict[str, Any] = {
            "id": uuid4(),
            "tenant_id": document.tenant_id,
            "collection_id": document.collection_id,
            "document_id": document.id,
            "version": document.version,
            "kind": IngestionJob.Kind.INGEST,
            "bytes": size,
            "attempts": int(hold),
            "fence": int(hold),
            "created_at": document.updated_at,
        }
        base: dict[str, Any] = {"base_version": document.live_version, "base_revision": document.live_revision}
        held = Claim(**values, **base, timings={}) if hold else None
        opened.append((IngestionJob(**values, **shared, priority=priority), held))
    db.run(
        "open_jobs",
        **shared,
        tenant=documents[0].tenant_id,
        collection=documents[0].collection_id,
        now=documents[0].updated_at,
        claims=int(hold),
        lease=settings.JOB_LEASE_SECONDS if hold else None,
        ids=[job.id for job, _ in opened],
        documents=[document.id for document in documents],
        versions=[document.version for document in documents],
        sizes=list(sizes),
        priorities=list(priorities),
    )
    return opened


def clear(claims: Sequence[Claim]) -> None:
    """Inside a scope: remove what has been staged for these jobs, which are of one kind."""
    db.run("clear_stage", **versions_of(claims))
    if claims[0].is_reindex:
        db.run("clear_coming", **versions_of(claims))


def versions_of(claims: Sequence[Claim]) -> dict[str, Any]:
    """The parameters of {held} in a query (db.py)."""
    return {"documents": [held.document_id for held in claims], "versions": [held.version for held in claims]}


def groups(claims: Iterable[Claim], *, size: Callable[[Claim], float], most: float) -> list[list[Claim]]:
    """Jobs that can share a transaction: of one tenant (the wall), collection and kind, no document twice, together at
    most `most`. A larger one stands alone; small ones come first and do not wait for it."""
    found: list[list[Claim]] = []
    for _, same in groupby(sorted(claims, key=_house), key=_house):
        room: float = 0
        inside: set[UUID] = set()
        for held in sorted(same, key=size):
            if size(held) > room or held.document_id in inside or len(inside) >= engine_for(connection).batch:
                found.append([])
                room, inside = most, set()
            found[-1].append(held)
            room -= size(held)
            inside.add(held.document_id)
    return sorted(found, key=lambda group: sum(map(size, group)))


def _house(held: Claim) -> tuple[UUID, UUID, str]:
    return held.tenant_id, held.collection_id, held.kind


def together(step: Callable[[list[Claim]], None], claims: list[Claim]) -> None:
    """Run a step of several jobs at once; when that fails, of each alone."""
    try:
        step(claims)
    except Exception as error:
        apart(step, claims, error)


def apart(step: Callable[[list[Claim]], None], claims: list[Claim], error: Exception) -> None:
    """After a failure of several jobs together try each alone, so that one cannot sink the others; that of a single
    one is written to the ledger."""
    if len(claims) == 1:
        with failures(claims[0]):
            raise error
    else:
        close_old_connections()
        for held in claims:
            together(step, [held])


def scope(claims: Sequence[Claim], *, durable: bool = True) -> AbstractContextManager[None]:
    """The transaction of a step of these jobs, which are of one tenant.

    Statements for small documents keep their plans: to plan them over all partitions takes longer than to run them.
    """
    replan = engine_for(connection).batch == 1 or any(held.bytes > SMALL_BYTES for held in claims)
    return tenancy.scope(claims[0].tenant_id, durable=durable, replan=replan)


def own(claims: Sequence[Claim]) -> list[Owned]:
    """Inside a transaction: lock the documents' rows, then the jobs'; those jobs that are still in these hands.

    Every writer takes the two in this order, and several documents in the order of their ids: a delete ends the jobs
    of the document that it holds. Raises LostLease when none is left.
    """
    locked = {row[0]: row[1:] for row in db.rows("lock_documents", documents=[held.document_id for held in claims])}
    kept = {row[0] for row in db.rows("own", **_held(claims))}
    owned = [
        Owned(held, *locked[held.document_id]) for held in claims if held.id in kept and held.document_id in locked
    ]
    if not owned:
        raise LostLease(", ".join(str(held.id) for held in claims))
    return owned


def hand_over(claims: Sequence[Claim], *, stage: str, bases: Sequence[Base], timings: Timings) -> None:
    """Inside the stage's transaction: queue jobs for the next stage. Raises LostLease when one is in other hands."""
    versions, revisions = [base[0] for base in bases], [base[1] for base in bases]
    _fenced("hand_over", claims, timings, stage=stage, bases=versions, base_revisions=revisions)


def finish(claims: Sequence[Claim], *, outcome: str, timings: Timings = ()) -> None:
    """Inside the last transaction: the jobs are done. Raises LostLease when one is in other hands."""
    _fenced("finish", claims, timings or [{} for _ in claims], outcome=outcome)


def fail(held: Claim, error: dict[str, Any], *, retryable: bool) -> None:
    """A try went wrong: again later with backoff and jitter, or a dead letter whose error the document shows. That of a
    reindex is none of the document's, which goes on as it was."""
    encoded = json.dumps(error)
    with tenancy.scope(held.tenant_id):
        away = error["code"] == AWAY
        if away or (retryable and held.attempts < settings.JOB_MAX_ATTEMPTS):
            delay = AWAY_SECONDS * random.uniform(0.5, 1.5) if away else backoff(held.attempts)
            db.run("retry_later", id=held.id, fence=held.fence, error=encoded, delay=delay, uncounted=int(away))
            logger.warning("job %s will be retried in %.1f s: %s", held.id, delay, error["code"])
            return
        live = db.rows("lock_documents", documents=[held.document_id])
        if not db.run("bury", id=held.id, fence=held.fence, error=encoded):
            return
        clear([held])
        woken = 0
        if not held.is_reindex:
            failed: dict[str, Any] = {"document": held.document_id, "version": held.version}
            db.run("fail_version", **failed, error=encoded)
            db.run("fail_document", **failed, error=encoded)
            live_version = live[0][1] if live else None
            woken = db.run("wake_superseded", **failed, live_version=live_version or 0)
    metrics.JOBS_ENDED.labels(outcome="dead").inc()
    logger.error("job %s is dead: %s", held.id, error["code"])
    if woken:
        wake(Stage.PREPARE)


def backoff(attempts: int) -> float:
    """Seconds to wait after so many attempts, with jitter."""
    return min(BACKOFF_LIMIT_SECONDS, BACKOFF_SECONDS * 2 ** (attempts - 1)) * random.uniform(0.5, 1.5)


@contextmanager
def failures(held: Claim) -> Iterator[None]:
    """Run a stage of a job: what it raises is written to the ledger, and the worker lives."""
    try:
        yield
    except LostLease:
        logger.warning("job %s is in other hands by now", held.id)
    except Exception as error:
        described, retryable = describe(error)
        if described["code"] == "internal":
            logger.exception("job %s failed", held.id)
        close_old_connections()
        fail(held, described, retryable=retryable)


def heartbeat(claims: Sequence[Claim]) -> None:
    """Renew the leases of jobs in hand, tenant by tenant."""
    for tenant_id in {held.tenant_id for held in claims}:
        mine = [held for held in claims if held.tenant_id == tenant_id]
        with tenancy.scope(tenant_id, durable=False):
            db.run("heartbeat", **_held(mine), lease=settings.JOB_LEASE_SECONDS)


@contextmanager
def leased(*claims: Claim) -> Iterator[None]:
    """Renew the leases while the block runs: a parser's or a model's time is not known beforehand."""
    with beating(lambda: heartbeat(claims)) if claims else nullcontext():
        yield


@contextmanager
def beating(beat: Callable[[], None]) -> Iterator[None]:
    """Call `beat`, from a thread, three times in a lease while the block runs."""
    done = threading.Event()

    def run() -> None:
        while not done.wait(settings.JOB_LEASE_SECONDS / 3):
            try:
                beat()
            except Exception as error:  # the database may be back in time for the next beat
                logger.warning("leases could not be renewed: %s", error)
            finally:
                connection.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()


def retry(*, job_id: UUID) -> bool:
    """Inside a scope: give a dead or cancelled job another try. False when it is in neither state, or when a later
    reindex of the document is open."""
    _lock_document_of(job_id)
    again = db.rows("retry_dead", id=job_id)
    for document, version, kind in again:
        if kind == IngestionJob.Kind.INGEST:
            db.run("forget_failure", document=document, version=version)
            db.run("await_again", document=document, version=version, now=timezone.now())
        transaction.on_commit(lambda: wake(Stage.PREPARE))
    return bool(again)


def cancel(*, job_id: UUID) -> bool:
    """Inside a scope: end a job that has not ended; its document goes on as it was. False when it has ended."""
    _lock_document_of(job_id)
    ended = db.rows("cancel", id=job_id)
    for document, version, kind in ended:
        db.run("clear_stage", documents=[document], versions=[version])
        if kind == IngestionJob.Kind.REINDEX:
            db.run("clear_coming", documents=[document], versions=[version])
        else:
            db.run("withdraw", document=document, version=version)
    return bool(ended)


def retry_dead(*, tenant_id: UUID, collection_id: UUID | None = None, code: str | None = None) -> tuple[int, int]:
    """Give dead jobs another try, the oldest first: of a collection, with an error's code, or all. (retried, left);
    what dies again meanwhile is not left."""
    with tenancy.scope(tenant_id):
        dead = IngestionJob.objects.filter(state=IngestionJob.State.DEAD)
        if collection_id is not None:
            dead = dead.filter(collection_id=collection_id)
        if code is not None:
            dead = dead.filter(error__code=code)
        chosen = list(dead.order_by("created_at").values_list("id", flat=True)[:RETRIED_AT_ONCE])
        left = dead.count() - len(chosen)
    retried = 0
    for job_id in chosen:
        with tenancy.scope(tenant_id):
            retried += retry(job_id=job_id)
    return retried, left


def refuse_overload() -> None:
    """Raises Problem 503 `overloaded` when as many jobs are open as JOBS_MAX_PENDING allows.

    Counted once a second in each process: the bound is kept roughly, and costs nothing.
    """
    global _counted
    if time.monotonic() > _counted[0]:
        _counted = time.monotonic() + 1, db.rows("pending", at_most=settings.JOBS_MAX_PENDING)[0][0]
    if _counted[1] >= settings.JOBS_MAX_PENDING:
        detail = "Too much is waiting to be indexed; nothing was stored. Send it again later."
        raise Problem(503, "overloaded", detail, retry_after=OVERLOADED_SECONDS)


def forget() -> int:
    """Remove jobs that ended more than JOB_RETENTION_DAYS ago, dead letters as well. How many."""
    before = timezone.now() - timedelta(days=settings.JOB_RETENTION_DAYS)
    removed = 0
    while some := db.rows("forget", before=before, at_most=FORGOTTEN_AT_ONCE)[0][0]:
        removed += some
    return removed


def wake(stage: str, *, times: int = 1) -> None:
    """Tell a worker that there is work: of a stage, or `sweep` for the sweeper."""
    redis.wake(f"documents.{stage}", times=times)


def _lock_document_of(job_id: UUID) -> None:
    document_id = IngestionJob.objects.values_list("document_id", flat=True).filter(id=job_id).first()
    db.rows("lock_documents", documents=[document_id])


def _held(claims: Sequence[Claim]) -> dict[str, Any]:
    return {"ids": [held.id for held in claims], "fences": [held.fence for held in claims]}


def _fenced(name: str, claims: Sequence[Claim], timings: Timings, **parameters: Any) -> None:
    encoded = [json.dumps(each) for each in timings]
    if claims and db.run(name, **_held(claims), timings=encoded, **parameters) != len(claims):
        raise LostLease(", ".join(str(held.id) for held in claims))
