"""The atomic swap: in one transaction a version's chunks replace the live ones (invariants I1, I2, I4, I5, I9)."""

from __future__ import annotations

import time
from typing import Any

from django.db import transaction
from django.utils import timezone

from apps.access import tenancy

from . import db, ledger, metrics
from .ledger import Claim
from .models import Collection, IngestionJob
from .spaces import column_type

Outcome = IngestionJob.Outcome


def publish(held: Claim, collection: Collection, *, embed_ms: float = 0.0) -> None:
    """Make the staged version of `held` the live one, or step aside for a newer one. Raises LostLease; any other
    failure leaves the old version answering."""
    started = time.monotonic()
    with tenancy.scope(held.tenant_id):
        _, live_version, deleted_version = ledger.own(held)
        swap(held, collection, live_version, deleted_version, timings={"embed_ms": embed_ms}, started=started)


def swap(
    held: Claim,
    collection: Collection,
    live_version: int | None,
    deleted_version: int | None,
    *,
    timings: dict[str, float],
    started: float,
) -> tuple[int, int, str] | None:
    """Inside a scope that owns the job (`ledger.own`): the swap itself.

    1. A version that is not above the live or the deleted one has been superseded: nothing to do.
    2. If another version went live since the chunks were compared, they are compared again (back to prepare).
    3. Insert new chunks and vectors, retire old ones, place all, raise the live version.
    4. Finish the job; bump the collection's epoch last, because every publish of the collection waits for that row.

    Returns the document's (version, live version, state), or None when the version did not go live. `started` is when
    publishing began (`time.monotonic`).
    """
    document, version = held.document_id, held.version
    at: dict[str, Any] = {"document": document, "version": version}
    if version <= (live_version or 0) or version <= (deleted_version or 0):
        db.run("clear_stage", **at)
        ledger.finish(held, outcome=Outcome.SUPERSEDED, timings=timings)
        return None
    if live_version != held.base_version:
        ledger.hand_over(held, stage=ledger.Stage.PREPARE, base_version=None, timings={})
        transaction.on_commit(lambda: ledger.wake(ledger.Stage.PREPARE))
        return None
    table, now = collection.space.table, timezone.now()
    added = db.rows("insert_chunks", **at, collection=collection.id, language=collection.language, now=now)
    db.run("insert_embeddings", **at, table=table, type=column_type(collection.space), collection=collection.id)
    retired = db.rows("retire_chunks", **at, now=now) if live_version else []
    if retired:
        db.run("retire_embeddings", table=table, document=document, chunks=[row[0] for row in retired])
    db.run("place_chunks", **at, now=now)
    now_live = db.rows("set_live", **at, now=now)
    if not now_live:
        raise ledger.LostLease(str(held.id))
    db.run("clear_stage", **at)
    timings = timings | {"publish_ms": round((time.monotonic() - started) * 1000, 1)}
    ledger.finish(held, outcome=Outcome.PUBLISHED, timings=timings)
    db.run(
        "bump_epoch",
        collection=collection.id,
        documents=0 if live_version else 1,
        chunks=len(added) - len(retired),
        tokens=sum(row[0] for row in added) - sum(row[1] for row in retired),
    )
    transaction.on_commit(lambda: _count(time.monotonic() - started))
    return now_live[0]


def _count(seconds: float) -> None:
    metrics.JOBS_ENDED.labels(outcome="published").inc()
    metrics.STAGE_SECONDS.labels(stage="publish").observe(seconds)
