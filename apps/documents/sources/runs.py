"""Runs: the ledger of syncs, as verbs. Messages only wake; what counts is the row.

`request` writes a run, at most one waiting for each source. `claim` takes one that is due, as jobs are claimed: with a
lease, which a thread renews (`leased`), and a fence, which every write names. A run whose worker died is claimed again
when its lease has run out.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import UUID, uuid4

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from apps.access import tenancy

from .. import db, ledger
from ..errors import LostLease
from .models import SyncRun

logger = logging.getLogger(__name__)

#: Set when the worker is to end: runs are put back, to go on elsewhere or later.
stopping = threading.Event()


class Stopped(Exception):
    """The worker is ending."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run in this worker's hands, until its lease runs out."""

    id: UUID
    tenant_id: UUID
    source_id: UUID
    fence: int
    attempts: int
    lost: threading.Event = field(default_factory=threading.Event)


def request(*, source_id: UUID, trigger: str, slot: Any = None, empty_it: bool = False) -> bool:
    """Inside a scope: have a source synced. False where a run waits already, or the slot has had its run."""
    parameters = {"id": uuid4(), "source": source_id, "trigger": trigger, "slot": slot, "empty_it": empty_it}
    asked = bool(db.rows("request_run", **parameters))
    transaction.on_commit(partial(ledger.wake, "sync"))
    return asked


def cancel(*, source_id: UUID) -> int:
    """Inside a scope: end what runs and waits for a source. What was taken stays. How many runs were ended."""
    open_runs = SyncRun.objects.filter(source_id=source_id, state__in=["queued", "running"])
    return open_runs.update(state=SyncRun.State.CANCELLED, lease_until=None, finished_at=Now())


def claim(run_id: UUID | None = None) -> Run | None:
    """The next run that is due; only `run_id` where given. One whose workers keep dying is failed."""
    while True:
        try:
            with transaction.atomic():
                found = db.rows("claim_run", worker=ledger.worker_name(), lease=settings.JOB_LEASE_SECONDS, run=run_id)
        except IntegrityError:  # another worker has begun a run of the same source
            return None
        if not found:
            return None
        run = Run(*found[0])
        if run.attempts <= settings.JOB_MAX_ATTEMPTS:
            return run
        detail = f"The worker died or stalled {settings.JOB_MAX_ATTEMPTS} times while it had this run."
        end(run, "failed", {"code": "worker_lost", "detail": detail})


def due() -> int:
    """How many runs could be claimed now, of all tenants."""
    return db.rows("sync_due")[0][0]


def forget(before: Any) -> int:
    """Remove runs that ended before then, but the newest of each source. How many."""
    return db.rows("sync_forget", before=before)[0][0]


@contextmanager
def leased(run: Run) -> Iterator[None]:
    """Renew the lease while the block runs; `run.lost` is set where the run was cancelled or is in other hands."""

    def beat() -> None:
        with tenancy.scope(run.tenant_id, durable=False):
            if not db.run("keep_run", run=run.id, fence=run.fence, lease=settings.JOB_LEASE_SECONDS):
                run.lost.set()

    with ledger.beating(beat):
        yield


def failed(run: Run, error: dict[str, Any], *, again: bool) -> None:
    """A try went wrong: again later, as a job is, or for good."""
    if again and run.attempts < settings.JOB_MAX_ATTEMPTS:
        put_back(run, error, delay=ledger.backoff(run.attempts), forgiven=0)
        logger.warning("run %s will be tried again: %s", run.id, error["code"])
    else:
        end(run, "failed", error)
        logger.error("run %s has failed: %s", run.id, error["code"])


def put_back(run: Run, error: dict[str, Any] | None, *, delay: float, forgiven: int) -> None:
    """Let it be claimed again after `delay` seconds; `forgiven` tries do not count."""
    encoded = None if error is None else json.dumps(error)
    with tenancy.scope(run.tenant_id):
        db.run(
            "put_back_run",
            run=run.id,
            fence=run.fence,
            source=run.source_id,
            error=encoded,
            delay=delay,
            forgiven=forgiven,
        )


def end(run: Run, state: str, error: dict[str, Any] | None = None) -> None:
    """The run is over. Raises LostLease when it is in other hands."""
    encoded = None if error is None else json.dumps(error)
    with tenancy.scope(run.tenant_id):
        if not db.run("end_run", run=run.id, fence=run.fence, state=state, error=encoded):
            raise LostLease(str(run.id))
    ledger.wake("sync")  # another one of this source may wait
