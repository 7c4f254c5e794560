"""Celery's side: beat's tick only wakes."""

from __future__ import annotations

from celery import shared_task

from . import recall


@shared_task(name="retrieval.recall")
def measure_recall() -> None:
    """Compare what the vector index has found for some searches with what there is."""
    recall.measure()
