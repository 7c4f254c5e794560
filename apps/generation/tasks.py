"""Celery's side: beat's tick only wakes."""

from __future__ import annotations

import logging

from celery import shared_task

from . import reports, retention

logger = logging.getLogger(__name__)


@shared_task(name="generation.report")
def report_weeks() -> None:
    """Write the weekly reports that are missing."""
    if written := reports.write_due():
        logger.info("wrote %d weekly reports", written)


@shared_task(name="generation.forget")
def forget_old() -> None:
    """Remove the answers that are too old."""
    if removed := retention.forget():
        logger.info("removed %d old answers", removed)
