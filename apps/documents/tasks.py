"""Celery's side: messages only wake. A task that runs twice, late or for nothing finds the ledger as it is."""

from __future__ import annotations

import logging
from datetime import timedelta

from celery import shared_task
from django.conf import settings
from django.utils import timezone

from . import db, drift, embed, index_care, ledger, lexicon, prepare, reindex, schedules, second_space
from .sources import runs, sync

logger = logging.getLogger(__name__)


@shared_task(name="documents.prepare")
def prepare_due() -> None:
    """Prepare every due job."""
    prepare.drain()


@shared_task(name="documents.embed")
def embed_due() -> None:
    """Embed and publish every due job."""
    embed.drain()


@shared_task(name="documents.forget")
def forget_ended() -> None:
    """Remove old ended jobs from the ledger."""
    if removed := ledger.forget():
        logger.info("removed %d ended jobs", removed)
    runs.forget(timezone.now() - timedelta(days=settings.JOB_RETENTION_DAYS))


@shared_task(name="documents.sync")
def sync_due() -> None:
    """Sync every source whose run is due."""
    sync.drain()


@shared_task(name="documents.schedules")
def start_scheduled() -> None:
    """Request a run for every schedule whose time has come."""
    schedules.start_due()


@shared_task(name="documents.lexicons")
def count_words() -> None:
    """Count the lexemes of the collections that have changed much."""
    lexicon.count_due()


@shared_task(name="documents.indexes")
def tend_indexes() -> None:
    """Build the vector indexes anew that have too many dead entries, or lists that fit their rows no more."""
    index_care.tend()
    index_care.tend_lists()


@shared_task(name="documents.drift")
def measure_drift() -> None:
    """See whether new chunks mean something else than those before them."""
    drift.measure_all()


@shared_task(name="documents.spaces")
def build_spaces() -> None:
    """Go on with the second embedding spaces that are being built."""
    second_space.drain()


@shared_task(name="documents.sweep")
def sweep() -> None:
    """Wake workers for due work: what Redis lost, leases that ran out, retries whose time has come. Feed the reindexes
    that go on."""
    due: dict[str, int] = {}
    for stage, _, _, count, _ in db.rows("overview"):
        due[stage] = due.get(stage, 0) + count
    for stage, count in due.items():
        if count:
            ledger.wake(stage)
    ledger.wake("sync", times=min(runs.due(), sync.AT_ONCE))
    ledger.wake("spaces", times=second_space.is_due())
    reindex.feed()


@shared_task(name="documents.fingerprints")
def reindex_outdated() -> None:
    """Start a reindex of every collection that other parsers or settings than today's have read and cut."""
    if started := reindex.start_outdated():
        logger.info("reindexing %d collections", started)
