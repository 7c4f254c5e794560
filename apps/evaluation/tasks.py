"""Celery's side: a message, or beat's tick, only wakes."""

from __future__ import annotations

from celery import shared_task

from . import runs


@shared_task(name="evaluation.drain")
def run_due() -> None:
    """Work on every run that is due."""
    runs.drain()
