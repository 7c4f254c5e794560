"""Reindexing: documents are read by today's parsers and cut by today's settings, a bounded number at a time.

1. `request` writes a run; a collection has at most one open. A change of settings or of a parser's number requests one
   by itself (`start_if_outdated`), a schedule by its slot.
2. `feed`, called by the sweeper, looks at page after page of the live documents, in the order of their ids, and opens a
   job of low priority for each that another parser or chunker has made, or for all. No more than WINDOW are open.
3. Workers do the jobs as they do any: what is live answers until a new revision of it replaces it (revisions.py).
4. A walk that has opened jobs is followed by another, for what was under way meanwhile; one that has opened none ends
   the run.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from apps.access import tenancy
from apps.access.problems import Problem

from . import db, ledger
from .engines import engine_for
from .models import Collection, Document, IngestionJob, Reindex
from .parsing.fingerprints import FINGERPRINTS, is_current
from .prepare import chunker_fingerprint

State, Trigger = Reindex.State, Reindex.Trigger
WINDOW = 2_000  # jobs of one run that are open at once: the ledger stays short, a pause takes hold soon
PAGE = 500
PAGES_AT_ONCE = 20  # for one run: the next one waits no longer
_FIRST = UUID(int=0)


def fingerprint(collection: Collection) -> str:
    """A digest of what documents are read and cut with today."""
    made = [*sorted(FINGERPRINTS.values()), chunker_fingerprint(collection)]
    return hashlib.sha256("\n".join(made).encode()).hexdigest()


def request(
    *, collection: Collection, everything: bool = False, trigger: str = Trigger.MANUAL, slot: datetime | None = None
) -> Reindex:
    """Inside a scope: a run through the collection. One that its slot has had already is returned as it is.

    everything: also what today's parsers and settings have made. Raises Problem 409 `already_running` with the open
    one's id, and 404 when the collection is gone.
    """
    if not db.rows("hold_collection", collection=collection.id):
        raise Problem(404, "unknown_collection", f"There is no collection {collection.slug!r}.")
    of_slot = Reindex.objects.filter(collection=collection, slot=slot) if slot else Reindex.objects.none()
    now = Collection.objects.get(id=collection.id)  # its settings are the run's target
    run = of_slot.first() or _begin(now, everything=everything, trigger=trigger, slot=slot) or of_slot.first()
    if run is None:
        there = open_run(collection.id)
        detail = "The collection is being reindexed already."
        raise Problem(409, "already_running", detail, reindex=str(there.id) if there else None)
    return run


def _begin(collection: Collection, **values: Any) -> Reindex | None:
    """A new run, or None where one is open or has the slot."""
    try:
        with transaction.atomic():
            run = Reindex.objects.create(
                tenant_id=collection.tenant_id, collection=collection, target=fingerprint(collection), **values
            )
    except IntegrityError:
        return None
    transaction.on_commit(lambda: ledger.wake("sweep"))
    return run


def open_run(collection_id: UUID) -> Reindex | None:
    """Inside a scope: the run that goes on, or is paused."""
    return Reindex.objects.filter(collection=collection_id, state__in=Reindex.OPEN).first()


def start_if_outdated(collection: Collection, *, trigger: str) -> Reindex | None:
    """Inside a scope: a run, if parsers or settings are not those of the last one and none is open (an open one is
    followed by another by itself)."""
    target = fingerprint(collection)
    if collection.indexed_with == target:
        return None
    if Document.objects.filter(collection=collection).exists():
        return _begin(collection, trigger=trigger)
    _keep_target(collection.id, target)
    return None


def start_outdated() -> int:
    """Outside of a scope: the same for every collection. How many runs were started."""
    started = 0
    for tenant_id, collection_id in db.rows("reindex_collections"):
        with tenancy.scope(tenant_id):
            for collection in Collection.objects.filter(id=collection_id):
                started += start_if_outdated(collection, trigger=Trigger.PARSER) is not None
    return started


def pause(*, run_id: UUID) -> bool:
    """Inside a scope: open no more jobs; those that are open end. False when it does not run."""
    return bool(Reindex.objects.filter(id=run_id, state=State.RUNNING).update(state=State.PAUSED))


def resume(*, run_id: UUID) -> bool:
    """Inside a scope: go on where it was paused. False when it is not paused."""
    resumed = Reindex.objects.filter(id=run_id, state=State.PAUSED).update(state=State.RUNNING)
    if resumed:
        transaction.on_commit(lambda: ledger.wake("sweep"))
    return bool(resumed)


def cancel(*, run_id: UUID) -> bool:
    """Inside a scope: end a run with its open jobs; what has been done stays. False when it has ended.

    It counts as the run for what has changed, so that none is started by itself before something changes again.
    """
    run = Reindex.objects.select_for_update().filter(id=run_id, state__in=Reindex.OPEN).first()
    if run is None:
        return False
    ended = db.rows("cancel_jobs_of_reindex", run=run_id)
    at_once = engine_for(connection).batch
    for at in range(0, len(ended), at_once):
        documents, versions = zip(*ended[at : at + at_once], strict=True)
        for cleared in ("clear_stage", "clear_coming"):
            db.run(cleared, documents=list(documents), versions=list(versions))
    _end(run, State.CANCELLED)
    return True


def feed(*, window: int = WINDOW) -> int:
    """Outside of a scope: open the next jobs of every run, end those that are through. How many jobs were opened."""
    opened = 0
    for tenant_id, collection_id, run_id in db.rows("reindex_running"):
        for _ in range(PAGES_AT_ONCE):
            with tenancy.scope(tenant_id):
                more, goes_on = _look_at_page(collection_id, run_id, window)
            opened += more
            if not goes_on:
                break
    if opened:
        ledger.wake(ledger.Stage.PREPARE)
    return opened


def _look_at_page(collection_id: UUID, run_id: UUID, window: int) -> tuple[int, bool]:
    """(jobs opened, is there more to look at right now?). The collection is held first, as by whoever writes to it; a
    run that another feeder has in hand, or that has been paused, is left alone."""
    if not db.rows("hold_collection", collection=collection_id):
        return 0, False
    run = Reindex.objects.select_for_update(skip_locked=True).filter(id=run_id, state=State.RUNNING).first()
    if run is None:
        return 0, False
    waiting = db.rows("open_jobs_of_reindex", run=run_id)[0][0]
    limit = min(PAGE, window - waiting)
    if limit <= 0:
        return 0, False
    collection = Collection.objects.get(id=collection_id)
    page = db.rows("next_documents", collection=collection_id, after=run.cursor or _FIRST, limit=limit)
    opened = _open_jobs(run, collection, page)
    run.queued += opened
    run.cursor = page[-1][0] if page else run.cursor
    if not run.queued_before:
        run.looked_at += len(page)
    goes_on = len(page) == limit
    if not goes_on and not waiting and not opened:
        if run.queued == run.queued_before:
            _end(run, State.DONE)
            start_if_outdated(Collection.objects.get(id=collection_id), trigger=Trigger.SETTINGS)
            return opened, False
        run.queued_before, run.cursor, goes_on = run.queued, None, True
    run.save()
    return opened, goes_on


def _open_jobs(run: Reindex, collection: Collection, page: list[tuple[Any, ...]]) -> int:
    """Of a page of documents, jobs for those that want one."""
    chunker = chunker_fingerprint(collection)
    everything = run.everything and not run.queued_before
    wanted = [row for row in page if everything or row[4] != chunker or not is_current(row[3])]
    if not wanted:
        return 0
    documents, versions, sizes = ([row[at] for row in wanted] for at in range(3))
    return db.run(
        "open_reindexes",
        tenant=collection.tenant_id,
        collection=collection.id,
        run=run.id,
        priority=int(IngestionJob.Priority.LOW),
        documents=documents,
        versions=versions,
        sizes=sizes,
    )


def _end(run: Reindex, state: str) -> None:
    """The run's last state, with the counts that the ledger will forget."""
    counted = counts(run)
    run.state, run.finished_at = state, timezone.now()
    run.done, run.unchanged, run.failed, run.skipped = counted.done, counted.unchanged, counted.failed, counted.skipped
    run.save()
    _keep_target(run.collection_id, run.target)


def _keep_target(collection_id: UUID, target: str) -> None:
    Collection.objects.filter(id=collection_id).update(indexed_with=target)


@dataclass(frozen=True, slots=True)
class Counts:
    """Jobs of a run: open; of documents with a new revision; that came out as they were; that died; that were
    superseded, deleted or cancelled."""

    open: int
    done: int
    unchanged: int
    failed: int
    skipped: int


def counts(run: Reindex) -> Counts:
    """Inside a scope."""
    if run.finished_at is not None:
        return Counts(0, run.done, run.unchanged, run.failed, run.skipped)
    return Counts(*db.rows("counts_of_reindex", run=run.id)[0])


def show(run: Reindex) -> dict[str, Any]:
    """Inside a scope: a run as the API gives it."""
    counted = counts(run)
    return {
        "id": run.id,
        "collection": run.collection.slug,
        "everything": run.everything,
        "trigger": run.trigger,
        "slot": run.slot,
        "state": run.state,
        "documents": run.collection.documents,
        "looked_at": run.looked_at,
        "queued": run.queued,
        "open": counted.open,
        "done": counted.done,
        "unchanged": counted.unchanged,
        "failed": counted.failed,
        "skipped": counted.skipped,
        "eta_seconds": _eta_seconds(run, counted.open) if run.state == State.RUNNING else None,
        "created_at": run.created_at,
        "finished_at": run.finished_at,
    }


def _eta_seconds(run: Reindex, waiting: int) -> int | None:
    """Until all jobs have ended that are open, or will be at the rate at which documents have wanted one; None while
    nothing moves."""
    pace = db.rows("pace_of_reindex", collection=run.collection_id, run=run.id)[0][0]
    unseen = max(0, run.collection.documents - run.looked_at)
    expected = waiting + (unseen * run.queued // run.looked_at if run.looked_at else unseen)
    return -(-expected * 60 // pace) if pace else None
