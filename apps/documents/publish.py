"""The atomic swap: in one transaction a version's chunks replace the live ones (invariants I1, I2, I4, I5, I9)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial
from uuid import UUID

import numpy as np
import numpy.typing as npt
from django.db import transaction
from django.utils import timezone

from . import db, ledger, metrics, revisions
from .collections import hold_spaces
from .ledger import Claim, Owned
from .models import Collection, IngestionJob
from .spaces import column_type

Outcome = IngestionJob.Outcome
Vector = npt.NDArray[np.float32]
Timings = Mapping[UUID, dict[str, float]]  # by job, in milliseconds
Vectors = Mapping[UUID, Mapping[bytes, Vector]]  # by embedding space, and by the digest of the text
RETRY_SECONDS = 30  # after a second space's model has failed
STAGED = ("embedding", "second_embedding")  # the stage's columns for a collection's spaces


def publish(
    claims: Sequence[Claim],
    collection: Collection,
    *,
    vectors: Vectors,
    timings: Timings,
) -> None:
    """Make the staged versions live, or step aside for newer ones. Raises LostLease, and SpacesChanged where the
    vectors are of other spaces than the collection's; any other failure, too, leaves the old versions answering.
    `vectors` are those that are not on the stage."""
    started = time.monotonic()
    with ledger.scope(claims):
        hold_spaces(collection)
        swap(ledger.own(claims), collection, vectors=vectors, timings=timings, started=started)


def swap(
    owned: Sequence[Owned],
    collection: Collection,
    *,
    vectors: Vectors,
    timings: Timings,
    started: float,
) -> dict[UUID, tuple[int, str]]:
    """Inside a scope that owns the jobs, which are of one kind: the swap itself, of documents of one collection.

    1. A version that is not above the live or the deleted one has been superseded: nothing to do.
    2. If another version, or another revision of it, went live since the chunks were compared, they are compared again
       (back to prepare). So a reindex only ever replaces what it was made from.
    3. Retire old chunks, insert new ones and vectors, place all, raise the live versions or revisions. Where the second
       space's model has failed, its vectors are left to its build, which goes on or begins again.
    4. Finish the jobs; bump the collection's epoch last, because every publish of the collection waits for that row.

    Returns (live version, state) of the documents that went live, by id. `started` is when publishing began
    (`time.monotonic`).
    """
    superseded = [
        each.held
        for each in owned
        if not each.held.is_reindex and each.held.version <= max(each.live_version or 0, each.deleted_version or 0)
    ]
    if superseded:
        db.run("clear_stage", **ledger.versions_of(superseded))
        ledger.finish(superseded, outcome=Outcome.SUPERSEDED, timings=[timings[held.id] for held in superseded])
    current = [each for each in owned if each.held not in superseded]
    outdated = [each.held for each in current if each.base != (each.held.base_version, each.held.base_revision)]
    if outdated:
        nothing = [(None, None)] * len(outdated)
        ledger.hand_over(outdated, stage=ledger.Stage.PREPARE, bases=nothing, timings=[{}] * len(outdated))
        transaction.on_commit(lambda: ledger.wake(ledger.Stage.PREPARE))
    ready = [each for each in current if each.held not in outdated]
    if not ready:
        return {}
    claims = [each.held for each in ready]
    at = ledger.versions_of(claims)
    now = db.clock()
    updated = [each.held for each in ready if each.live_version]
    retired = []
    if updated:
        kept = [row[0] for row in db.rows("kept_chunks", **ledger.versions_of(updated))]
        retired = db.rows("retire_chunks", **ledger.versions_of(updated), kept=kept, now=now)
    if retired:
        documents, chunks = [row[0] for row in retired], [row[1] for row in retired]
        for space in collection.spaces:
            db.run("retire_embeddings", table=space.table, documents=documents, chunks=chunks)
    added = db.rows("insert_chunks", **at, collection=collection.id, language=collection.language, now=now)
    for space, staged in zip(collection.spaces, STAGED, strict=False):
        made = vectors.get(space.id, {})
        inserted = db.run(
            "insert_embeddings",
            **at,
            table=space.table,
            type=column_type(space),
            staged=staged,
            collection=collection.id,
            sha256s=list(made),
            embeddings=db.VectorArray(list(made.values()), space.storage),
            complete=space == collection.space,
        )
        if inserted < len(added):
            due = now + timedelta(seconds=RETRY_SECONDS)
            db.run("build_again", collection=collection.id, space=space.id, due=due)
    if claims[0].is_reindex:
        now_live = revisions.put_in_place(claims, now=now)
    else:
        now_live = {row[0]: row[1:] for row in db.rows("set_live", **at, now=now)}
    db.run("place_chunks", **at, now=now)
    if len(now_live) != len(claims):
        raise ledger.LostLease(", ".join(str(held.id) for held in claims if held.document_id not in now_live))
    db.run("clear_stage", **at)
    publish_ms, live_at = metrics.milliseconds(time.monotonic() - started), timezone.now()
    ended = [
        timings[held.id]
        | {"publish_ms": publish_ms, "total_ms": metrics.milliseconds((live_at - held.created_at).total_seconds())}
        for held in claims
    ]
    ledger.finish(claims, outcome=Outcome.PUBLISHED, timings=ended)
    db.run(
        "bump_epoch",
        collection=collection.id,
        documents=len(claims) - len(updated),
        chunks=len(added) - len(retired),
        tokens=sum(row[0] for row in added) - sum(row[2] for row in retired),
    )
    for held, own in zip(claims, ended, strict=True):
        transaction.on_commit(partial(metrics.published, held.timings | own, again=held.is_reindex))
    return now_live
