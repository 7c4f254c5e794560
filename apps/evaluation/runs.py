"""Runs: every query of a set asked in every mode, small ones in the request, others by a worker.

1. `request` writes the run. A message wakes a worker; beat's tick finds what was not begun, or whose worker died.
2. `work` takes it by a conditional UPDATE: a lease, and a new fence.
3. Results are written some at a time, in transactions that renew the lease where the fence is still the run's. So a run
   that is taken up again goes on where it stopped, and whoever lost it can write no more.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import connection
from django.db.models import F, Q
from django.db.models.functions import Now

from apps.access import redis, tenancy
from apps.access.problems import Problem
from apps.documents.embedding import EmbeddingError
from apps.documents.errors import LostLease

from . import stored
from .judge import judge
from .metrics import mean
from .models import EvaluationRun, EvaluationSet, QueryResult
from .types import Question

logger = logging.getLogger(__name__)

State = EvaluationRun.State
INLINE_SEARCHES = 30  # at most, within a request: about a second
BATCH = 25
RUNS_WITH_RESULTS = 10  # of a set: of older ones only the means are kept

Todo = tuple[UUID, Question, str]  # a query in a mode


def request(*, found: EvaluationSet, modes: Sequence[str], k: int) -> EvaluationRun:
    """Inside a scope: a new run. Raises Problem 422 where the set has no queries left."""
    if not found.queries.exists():
        raise Problem(422, "empty_set", "The set has no queries.")
    return EvaluationRun.objects.create(tenant_id=found.tenant_id, set=found, modes=list(modes), k=k)


def start(run: EvaluationRun) -> None:
    """Outside of a scope: work on a small run here and now, wake a worker for a large one."""
    with tenancy.scope(run.tenant_id):
        searches = run.set.queries.count() * len(run.modes)
    if searches <= INLINE_SEARCHES:
        work(tenant_id=run.tenant_id, run_id=run.id)
        return
    redis.wake("evaluation.drain")


def drain() -> None:
    """Outside of a scope: work on every run that is due, of all tenants."""
    while due := _due():
        tenant_id, run_id = due[0]
        if not work(tenant_id=tenant_id, run_id=run_id):
            return  # another worker was faster; it goes on with what else there is


def work(*, tenant_id: UUID, run_id: UUID) -> bool:
    """Outside of a scope: do a run to its end; False when it is in other hands or over.

    What a search refuses, such as a collection that is gone, fails the run. Any other error is raised, and the run is
    taken up again when its lease has run out.
    """
    run = _claim(tenant_id, run_id)
    if run is None:
        return False
    try:
        if run.attempts > settings.JOB_MAX_ATTEMPTS:
            detail = f"The worker died {settings.JOB_MAX_ATTEMPTS} times while it had this run."
            _end(run, State.FAILED, error={"code": "worker_lost", "detail": detail})
        else:
            _ask(run)
            _finish(run)
    except LostLease:
        logger.warning("run %s is in other hands by now, or deleted", run.id)
    except (Problem, EmbeddingError) as error:
        detail = error.sentence if isinstance(error, Problem) else str(error)
        _end(run, State.FAILED, error={"code": error.code, "detail": detail})
    return True


def show(run: EvaluationRun) -> dict[str, Any]:
    """Inside a scope: a run without the results of each query."""
    return {
        "id": run.id,
        "set": run.set_id,
        "collection": run.set.collection,
        "modes": run.modes,
        "k": run.k,
        "state": run.state,
        "searches": run.set.queries.count() * len(run.modes),
        "metrics": run.metrics,
        "error": run.error,
        "created_at": run.created_at,
        "finished_at": run.finished_at,
    }


def show_results(run: EvaluationRun) -> list[dict[str, Any]]:
    """Inside a scope: what came of each query so far, in the set's order."""
    found: dict[UUID, dict[str, Any]] = {}
    for each in run.results.select_related("query").order_by("query__number", "mode"):
        query = found.setdefault(each.query_id, {"query": each.query.query, "modes": {}})
        query["modes"][each.mode] = {"metrics": each.metrics, "ranks": each.ranks, "milliseconds": each.milliseconds}
    return list(found.values())


def _due() -> list[tuple[UUID, UUID]]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT tenant_id, id FROM evaluation_due()")
        return cursor.fetchall()


def _lease() -> Any:
    return Now() + timedelta(seconds=settings.JOB_LEASE_SECONDS)


def _claim(tenant_id: UUID, run_id: UUID) -> EvaluationRun | None:
    free = Q(state=State.QUEUED) | Q(state=State.RUNNING, lease_until__lt=Now())
    with tenancy.scope(tenant_id):
        taken = EvaluationRun.objects.filter(free, id=run_id).update(
            state=State.RUNNING, attempts=F("attempts") + 1, fence=F("fence") + 1, lease_until=_lease()
        )
        return EvaluationRun.objects.select_related("set").get(id=run_id) if taken else None


def _ask(run: EvaluationRun) -> None:
    collection, results, renewed = run.set.collection, [], time.monotonic()
    for query_id, question, mode in list(_todo(run)):
        found = judge(tenant_id=run.tenant_id, collection=collection, question=question, mode=mode, k=run.k)
        ranks = [rank for rank, name in enumerate(found.ranked, start=1) if question.relevant.get(name, 0) > 0]
        results.append(
            QueryResult(
                run=run,
                query_id=query_id,
                tenant_id=run.tenant_id,
                mode=mode,
                metrics=found.metrics,
                ranks=ranks,
                milliseconds=round(found.milliseconds, 2),
            )
        )
        if len(results) >= BATCH or time.monotonic() - renewed > settings.JOB_LEASE_SECONDS / 4:
            _keep(run, results)
            results, renewed = [], time.monotonic()
    _keep(run, results)


def _todo(run: EvaluationRun) -> Iterator[Todo]:
    """What has no result yet."""
    with tenancy.scope(run.tenant_id):
        done = set(run.results.values_list("query_id", "mode"))
        questions = stored.questions(run.set_id)
    for query_id, question in questions.items():
        yield from ((query_id, question, mode) for mode in run.modes if (query_id, mode) not in done)


def _keep(run: EvaluationRun, results: list[QueryResult]) -> None:
    with tenancy.scope(run.tenant_id):
        _own(run, lease_until=_lease())
        there = set(run.set.queries.filter(id__in=[each.query_id for each in results]).values_list("id", flat=True))
        # (A query goes when a document that it names is erased.)
        QueryResult.objects.bulk_create(each for each in results if each.query_id in there)


def _finish(run: EvaluationRun) -> None:
    """The means, and room for the results of later runs."""
    with tenancy.scope(run.tenant_id):
        found: dict[str, list[dict[str, float]]] = {mode: [] for mode in run.modes}
        for mode, measured in run.results.values_list("mode", "metrics"):
            found[mode].append(measured)
    _end(run, State.DONE, metrics={mode: mean(measured) for mode, measured in found.items()})
    with tenancy.scope(run.tenant_id):
        runs = EvaluationRun.objects.filter(set_id=run.set_id).order_by("-created_at")
        old = list(runs.values_list("id", flat=True)[RUNS_WITH_RESULTS:])
        QueryResult.objects.filter(run__in=old).delete()


def _end(run: EvaluationRun, state: str, **values: Any) -> None:
    with tenancy.scope(run.tenant_id):
        _own(run, state=state, lease_until=None, finished_at=Now(), **values)


def _own(run: EvaluationRun, **values: Any) -> None:
    """Inside a scope: write to the run's row. Raises LostLease where another has it."""
    if not EvaluationRun.objects.filter(id=run.id, state=State.RUNNING, fence=run.fence).update(**values):
        raise LostLease(str(run.id))
