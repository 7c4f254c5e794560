"""Celery's side: beat's tick only wakes."""

from __future__ import annotations

import logging

from celery import shared_task

from . import queries, reports, retention

logger = logging.getLogger(__name__)

WOKEN_AT_ONCE = 100


@shared_task(name="generation.answer")
def answer_next() -> None:
    """Answer the most urgent query that is due: one, so that other tasks of this queue get their turn."""
    queries.work()


@shared_task(name="generation.sweep")
def wake_for_due() -> None:
    """Wake workers for queries that are due: messages that Redis lost, leases that ran out, pauses that are over."""
    queries.wake(times=min(queries.queue().due, WOKEN_AT_ONCE))


@shared_task(name="generation.report")
def report_weeks() -> None:
    """Write the weekly reports that are missing."""
    if written := reports.write_due():
        logger.info("wrote %d weekly reports", written)


@shared_task(name="generation.forget")
def forget_old() -> None:
    """Remove the answers and the queries that are too old."""
    if removed := retention.forget():
        logger.info("removed %d old answers", removed)
    if removed := queries.forget():
        logger.info("removed %d old queries", removed)
