"""Work that a reader cannot wait for: pending versions brought live here and now, ahead of the workers.

1. A reader claims the newest open job of each document and does it by the workers' own steps: what it reads is
   published like anything else, and nobody does it again.
2. What a worker or another reader has in hand it waits for. A worker that has not finished after PATIENCE of the time
   loses the job: the reader raises the fence, so that whatever the worker still writes changes nothing.
3. A job that is to be tried again later, or has been tried TRIES times, is left to the workers: readers do not wear out
   a job's attempts, do not take it from one another, and do not meet what kills the process that works on it.
4. The reader goes its way when the time is over. What has been begun is finished in its thread.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextvars import copy_context
from dataclasses import dataclass
from threading import Thread
from uuid import UUID

from django.conf import settings
from django.db import connection

from apps.access import tenancy

from . import db, embed, ledger, prepare
from .ledger import Claim, Stage
from .write_through import INLINE_BYTES

logger = logging.getLogger(__name__)

MOST_BYTES = INLINE_BYTES  # what write-through leaves to the workers, readers leave as well
PATIENCE = 0.5  # of the time, before a job is taken from a worker
POLL_SECONDS = 0.02
TRIES = 2  # the worker's, and the reader's after it


@dataclass(frozen=True, slots=True)
class Waiting:
    """A document's newest open job; bytes: of the original. due: a reader may do it, now or when it has waited."""

    job_id: UUID
    document_id: UUID
    bytes: int
    stage: str
    running: bool
    due: bool


def waiting(documents: Sequence[UUID]) -> list[Waiting]:
    """Inside a scope: the newest open job of each of these documents that has one."""
    found = db.rows("waiting_jobs", documents=documents, tries=_tries()) if documents else ()
    return [Waiting(*row) for row in found]


def bring_live(*, tenant_id: UUID, documents: Sequence[UUID], until: float) -> None:
    """Bring the newest versions of these documents live, or see it done, by a time (`time.monotonic`) at the latest."""
    _in_thread(tenant_id, documents, until, (Stage.PREPARE, Stage.EMBED))


def read_texts(*, tenant_id: UUID, documents: Sequence[UUID], until: float) -> None:
    """Only the first step: their texts are stored, and embedding them is left to whoever claims it next."""
    _in_thread(tenant_id, documents, until, (Stage.PREPARE,))
    ledger.wake(Stage.EMBED)


def _in_thread(tenant_id: UUID, documents: Sequence[UUID], until: float, stages: Sequence[str]) -> None:
    if not tenancy.is_open():
        connection.close()  # back to the pool: the thread has one of its own
    # Not a daemon: a process that is asked to end finishes what it has begun.
    work = (_work, tenant_id, documents, until, stages)
    thread = Thread(target=copy_context().run, args=work, name="reader")
    thread.start()
    thread.join(max(0.0, until - time.monotonic()))


def _work(tenant_id: UUID, documents: Sequence[UUID], until: float, stages: Sequence[str]) -> None:
    takes_over_at = until - (until - time.monotonic()) * (1 - PATIENCE)
    try:
        while time.monotonic() < until:
            claimed = 0
            for stage in stages:
                with tenancy.scope(tenant_id):
                    left = [job for job in waiting(documents) if (job.due or job.running) and job.stage in stages]
                    mine = [job.job_id for job in left if job.stage == stage and job.bytes <= MOST_BYTES]
                    take_over = time.monotonic() >= takes_over_at
                    claims = ledger.claim_these(mine, stage=stage, tries=_tries(), take_over=take_over) if mine else []
                _do(stage, claims)
                claimed += len(claims)
            if not left:
                return
            if not claimed:
                time.sleep(POLL_SECONDS)
    except Exception:  # the reader finds out by what is stale
        logger.exception("a reader's work ahead of the workers failed")
    finally:
        connection.close()


def _tries() -> int:
    return min(TRIES, settings.JOB_MAX_ATTEMPTS)


def _do(stage: str, claims: list[Claim]) -> None:
    """A stage of these jobs, as workers do it."""
    with ledger.leased(*claims):
        if stage == Stage.PREPARE:
            for group in ledger.groups(claims, size=lambda held: held.bytes, most=prepare.BATCH_BYTES):
                ledger.together(prepare.prepare, group)
        else:
            for group in embed.groups(claims):
                ledger.together(embed.embed_alone, group)
