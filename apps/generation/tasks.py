"""Celery's side: beat's tick only wakes."""

from __future__ import annotations

import logging

from celery import shared_task

from . import reports

logger = logging.getLogger(__name__)


@shared_task(name="generation.report")
def report_weeks() -> None:
    """Write the weekly reports that are missing."""
    if written := reports.write_due():
        logger.info("wrote %d weekly reports", written)
