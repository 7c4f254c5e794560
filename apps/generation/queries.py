"""Questions that workers answer: accepted, claimed, answered, settled. Messages only wake; what counts is the row.

1. `accept` writes the row, unless too much waits already, and wakes a worker.
2. `work` claims the most urgent due query (SKIP LOCKED): running, a new fence, and a lease that a thread renews.
3. It is answered as by /answers, each event told as it comes (progress.py). Twice a second the worker looks whether
   the query is still its own: one that was cancelled stops the model.
4. The answer has the query's id, so that it is stored once. A worker that finds it there has nothing left to do but to
   settle the query: the one before it died between the two.
5. A failure that another try would meet again ends it (failed). After any other it is queued again, after a pause, or
   dead after JOB_MAX_ATTEMPTS. Every write names the fence: zero rows mean that the query is in other hands.
6. The sweeper (tasks.py) wakes workers for whatever is due.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import count
from typing import Any
from uuid import UUID, uuid4

from asgiref.sync import async_to_sync, sync_to_async
from django.conf import settings
from django.db import DatabaseError, connection, transaction
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from apps.access import correlation, redis, tenancy
from apps.access.problems import Problem, as_problem, document
from apps.access.throttling import TokenMeter
from apps.documents.errors import LostLease
from apps.documents.ledger import backoff, beating, worker_name

from . import answers, progress
from .models import Answer, Query
from .types import AnswerRequest, Event

logger = logging.getLogger(__name__)

State, Priority = Query.State, Query.Priority
SETTLED = (State.DONE, State.FAILED, State.DEAD, State.CANCELLED)
FULL_SECONDS = 20.0  # before a query whose key has used its tokens up is looked at again
LOOK_SECONDS = 0.5  # between looks whether a query is still the worker's
ASSUMED_SECONDS = 5.0  # that an answer takes, until one was given
ASSUMED_WORKERS = 8  # threads, as `up` and docker-compose.yml start them
MOST_RETRY_AFTER, FORGOTTEN_AT_ONCE = 300, 10_000
#: Of eight turns of a process one begins with normal queries and one with low ones: nothing waits for ever.
_FLOORS = {3: Priority.NORMAL, 7: Priority.LOW}
_turns = count()


@dataclass(frozen=True, slots=True)
class Claim:
    """A query in this worker's hands, until its lease runs out."""

    id: UUID
    tenant_id: UUID
    attempts: int
    fence: int

    def rows(self) -> QuerySet[Query]:
        """Inside a scope: its row, while it is in these hands."""
        return Query.objects.filter(id=self.id, state=State.RUNNING, fence=self.fence)


@dataclass(frozen=True, slots=True)
class Queue:
    """Queries of all tenants: waiting by priority, being answered, due, due for more than a second; seconds that an
    answer takes; seconds that the oldest of each priority has been due for."""

    urgent: int
    normal: int
    low: int
    running: int
    due: int
    late: int
    seconds: float | None
    waited: Sequence[float]

    def waiting(self, priority: int) -> int:
        """Of one priority."""
        return (self.urgent, self.normal, self.low)[priority]

    def expected_wait(self, priority: int) -> float:
        """Seconds until a new query would be begun: those before it, at the pace of the last hundred answers; or as
        long as one of them has waited already, for what hangs tells no pace.

        Where something has waited for a second every worker is at work. Otherwise some may be idle, or about to begin.
        """
        workers = max(1, self.running) if self.late else max(self.running, ASSUMED_WORKERS)
        before = sum(self.waiting(each) for each in range(priority + 1))
        return max(before * (self.seconds or ASSUMED_SECONDS) / workers, *self.waited[: priority + 1])


def queue() -> Queue:
    with connection.cursor() as cursor:
        cursor.execute("SELECT urgent, normal, low, running, due, late, seconds, waited FROM generation_queue()")
        return Queue(*cursor.fetchone())


def accept(*, tenant_id: UUID, request: AnswerRequest, priority: str, key_id: UUID | None = None) -> Query:
    """Outside of a scope: keep a question for a worker; its tokens are that key's. Raises Problem 503 `overloaded`, and
    400, 422 of what can be seen at once to have no answer."""
    level = Priority[priority.upper()]
    wait = queue().expected_wait(level)
    if wait > settings.QUERY_MAX_WAIT_SECONDS:
        after = min(MOST_RETRY_AFTER, max(1, math.ceil(wait - settings.QUERY_MAX_WAIT_SECONDS)))
        detail = "Too many questions are waiting; nothing was stored. Ask again later."
        raise Problem(503, "overloaded", detail, retry_after=after)
    with tenancy.scope(tenant_id):
        answers.check(request)
        row = Query.objects.create(
            id=uuid4(), tenant_id=tenant_id, key_id=key_id, request=request.as_json(), priority=level
        )
    logger.info("query %s is accepted, %s", row.id, priority)
    wake(str(row.id))
    return row


def wake(message_id: str | None = None, *, times: int = 1) -> None:
    """Tell workers that there is something to answer; the message of a new query has its id. What the sweeper sends
    is no use any more when it sends the next."""
    expires = None if message_id else settings.SWEEP_SECONDS
    redis.wake("generation.answer", times=times, task_id=message_id, expires=expires)


def show(row: Query) -> dict[str, Any]:
    """Inside a scope: a query as clients see it."""
    shown = {
        "id": row.id,
        "state": row.state,
        "question": row.request["question"],
        "priority": Priority(row.priority).name.lower(),
        "attempts": row.attempts,
        "created_at": row.created_at,
        "finished_at": row.finished_at,
    }
    if row.answer is not None:
        shown["answer"] = answer_of(row)
    if row.error is not None:
        shown["error"] = {name: row.error[name] for name in ("code", "detail")}
    return shown


def answer_of(row: Query) -> dict[str, Any]:
    """The answer that a query has, as it was given to it."""
    assert row.answer is not None
    again = {"cached": True, "degraded": row.degraded or None} if row.answer.id != row.id else {}
    return {"id": str(row.answer.id)} | row.answer.result | again


def error_event(row: Query) -> Event:
    """The last event of a query without an answer."""
    assert row.error is not None
    problem = Problem(row.error["status"], row.error["code"], row.error["detail"])
    return Event("error", document(problem, request_id=str(row.id)))


def cancel(*, query_id: UUID) -> bool:
    """Inside a scope: end a query that has not been settled. False when it has. A worker stops within a second."""
    error = {"status": 409, "code": "cancelled", "detail": "The query was cancelled."}
    ended = Query.objects.filter(id=query_id, state__in=(State.QUEUED, State.RUNNING)).update(
        # (Readers who came while it waited stand at the beginning of the next attempt: its end comes after that.)
        state=State.CANCELLED,
        fence=F("fence") + 1,
        error=error,
        lease_until=None,
        finished_at=Now(),
    )
    if ended:
        row = Query.objects.get(id=query_id)
        transaction.on_commit(lambda: _writer(row).end(error_event(row)))
    return bool(ended)


def retry(*, query_id: UUID) -> bool:
    """Inside a scope: a failed or dead query is queued again, with all its attempts. False when it is neither."""
    again = Query.objects.filter(id=query_id, state__in=(State.FAILED, State.DEAD)).update(
        # (The end of the attempt before has the id of the fence after it.)
        state=State.QUEUED,
        attempts=0,
        fence=F("fence") + 1,
        not_before=Now(),
        error=None,
        finished_at=None,
    )
    if again:
        transaction.on_commit(lambda: wake(str(query_id)))
    return bool(again)


def work() -> bool:
    """Outside of a scope: answer the most urgent due query. False where none is due."""
    lowest = _FLOORS.get(next(_turns) % 8, Priority.URGENT)
    held = _claim(lowest) or (_claim(Priority.URGENT) if lowest else None)
    if held is None:
        return False
    with correlation.of(held.id), beating(lambda: _renew(held)):
        logger.info("answering, attempt %d", held.attempts)
        told = _writer(held)
        if held.fence > 1:
            told.add(Event("restart"))
        try:
            _answer(held, told)
        except LostLease:
            logger.info("the query was cancelled, or is in other hands")
        except Exception as error:
            connection.close()  # it may be broken
            _fail(held, told, document(as_problem(error)))
    return True


def forget() -> int:
    """Remove queries that were settled more than QUERY_RETENTION_DAYS ago; their answers stay on record. How many."""
    before = timezone.now() - timedelta(days=settings.QUERY_RETENTION_DAYS)
    removed = 0
    while True:
        with connection.cursor() as cursor:
            cursor.execute("SELECT generation_forget_queries(%s, %s)", [before, FORGOTTEN_AT_ONCE])
            some = cursor.fetchone()[0]
        removed += some
        if not some:
            return removed


def forget_made_from(document_id: UUID) -> int:
    """Inside a scope: remove the queries whose answers were made from a document, and what was told of them; and what
    was told lately of those without an answer, of which nobody knows what they quoted."""
    found = Query.objects.filter(answer__sources__document_id=document_id)
    queries = list(found.values_list("tenant_id", "id"))
    lately = Q(state=State.QUEUED) | Q(finished_at__gte=timezone.now() - timedelta(seconds=progress.SECONDS))
    unanswered = list(Query.objects.filter(lately, answer=None).values_list("tenant_id", "id"))
    transaction.on_commit(lambda: progress.forget([*queries, *unanswered]))
    return Query.objects.filter(id__in=[query_id for _, query_id in queries]).delete()[0]


def _claim(lowest: int) -> Claim | None:
    parameters: list[Any] = [worker_name(), timedelta(seconds=settings.JOB_LEASE_SECONDS), lowest]
    with connection.cursor() as cursor:
        cursor.execute("SELECT id, tenant_id, attempts, fence FROM generation_claim(%s, %s, %s::smallint)", parameters)
        found = cursor.fetchone()
    return None if found is None else Claim(*found)


def _renew(held: Claim) -> None:
    with tenancy.scope(held.tenant_id, durable=False):
        held.rows().update(lease_until=Now() + timedelta(seconds=settings.JOB_LEASE_SECONDS))


def _writer(of: Claim | Query) -> progress.Writer:
    return progress.Writer(tenant_id=of.tenant_id, query_id=of.id, attempt=of.fence)


def _answer(held: Claim, told: progress.Writer) -> None:
    """Raises LostLease, and whatever makes an answer impossible."""
    with tenancy.scope(held.tenant_id):
        row = held.rows().select_related("key").first()
        stored = Answer.objects.filter(id=held.id).exists()
    if row is None:
        raise LostLease(str(held.id))
    if stored:
        _settle(held, state=State.DONE, answer_id=held.id)
        return
    if held.attempts > settings.JOB_MAX_ATTEMPTS:
        detail = f"The worker died or stalled {settings.JOB_MAX_ATTEMPTS} times while it had this query."
        _fail(held, told, document(Problem(500, "worker_lost", detail)))
        return
    limit = row.key.tokens_per_minute if row.key else None
    meter = TokenMeter(key_id=row.key.id, tokens_per_minute=limit) if row.key and limit is not None else None
    prepared = answers.prepare(tenant_id=held.tenant_id, request=AnswerRequest.from_json(row.request), meter=meter)
    error = async_to_sync(_while_held)(held, replace(prepared, id=held.id), told)
    if error is not None:
        _fail(held, told, error)


async def _while_held(held: Claim, prepared: answers.Prepared, told: progress.Writer) -> dict[str, Any] | None:
    """Write the answer; stop the model when the query is no longer this worker's. The problem where there is none.
    Raises LostLease."""
    writing, watching = asyncio.create_task(_write(held, prepared, told)), asyncio.create_task(_until_lost(held))
    await asyncio.wait((writing, watching), return_when=asyncio.FIRST_COMPLETED)
    for task in (writing, watching):
        task.cancel()
    await asyncio.gather(writing, watching, return_exceptions=True)
    if writing.cancelled():
        raise LostLease(str(held.id))
    return writing.result()


async def _write(held: Claim, prepared: answers.Prepared, told: progress.Writer) -> dict[str, Any] | None:
    async with aclosing(answers.events(prepared, request_id=str(held.id))) as made:
        async for event in made:
            if event.name == "error":
                return event.data
            if event.name == "final_answer":  # whoever reads it finds the query done
                given = {"answer_id": UUID(event.data["id"]), "degraded": event.data["degraded"] or ""}
                await sync_to_async(_settle)(held, state=State.DONE, **given)
            told.add(event)
    return None


async def _until_lost(held: Claim) -> None:
    while await sync_to_async(_is_held)(held):
        await asyncio.sleep(LOOK_SECONDS)


def _is_held(held: Claim) -> bool:
    try:
        with tenancy.scope(held.tenant_id):
            return held.rows().exists()
    except DatabaseError as error:  # it may be back before the lease runs out
        logger.warning("it cannot be told whether the query is still held: %s", error)
        return True
    finally:
        connection.close()


def _settle(held: Claim, **values: Any) -> None:
    """The end of a query in these hands. Raises LostLease."""
    try:
        with tenancy.scope(held.tenant_id):
            if not held.rows().update(**{"error": None, "lease_until": None, "finished_at": Now()} | values):
                raise LostLease(str(held.id))
    finally:
        connection.close()


def _fail(held: Claim, told: progress.Writer, problem: dict[str, Any]) -> None:
    """An attempt went wrong (a problem document): another one later, or the end."""
    error = {name: problem[name] for name in ("status", "code", "detail")}
    passing = error["status"] >= 500
    try:
        if error["code"] == "too_many_tokens":  # nothing was tried
            later = Now() + timedelta(seconds=FULL_SECONDS)
            waiting = {"attempts": held.attempts - 1, "not_before": later, "finished_at": None}
            _settle(held, state=State.QUEUED, error=error, **waiting)
            return
        if passing and held.attempts < settings.JOB_MAX_ATTEMPTS:
            delay = backoff(held.attempts)
            _settle(
                held, state=State.QUEUED, error=error, not_before=Now() + timedelta(seconds=delay), finished_at=None
            )
            logger.warning("another attempt in %.1f s: %s", delay, error["code"])
            return
        _settle(held, state=State.DEAD if passing else State.FAILED, error=error)
    except LostLease:
        return
    logger.error("the query has no answer: %s", error["code"])
    with tenancy.scope(held.tenant_id):
        row = Query.objects.filter(id=held.id).first()
    if row is not None:
        told.end(error_event(row))
