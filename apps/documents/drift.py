"""Embedding drift: do new chunks mean something else than those that a collection held before?

The first time, and after each alarm that was acted upon, a sample of a collection's live vectors is gathered around
CENTROIDS means (k-means), with how far they are from the nearest one: what is normal. Later the newest chunks are
compared: drift is how much further they are on average, in standard deviations of what is normal. Above ALARM the
collection is told in the log, and a space with lists (IVFFlat), whose centroids do not know the new subject, has its
index built anew. An erasure takes the collection's means along.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt

from apps.access import tenancy

from . import db, index_care, metrics
from .models import Collection, EmbeddingSpace

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float32]
FEWEST, FEWEST_NEW = 1_000, 100  # chunks
SAMPLE, NEWEST = 5_000, 500
CENTROIDS, ROUNDS = 16, 10
ALARM = 1.0


@dataclass(frozen=True, slots=True)
class Normal:
    """centroids: [n, dimensions], unit. mean, deviation: of 1 - cosine to the nearest one."""

    centroids: Floats
    mean: float
    deviation: float

    def drift(self, vectors: Floats) -> float:
        return (float(_distances(vectors, self.centroids).mean()) - self.mean) / max(self.deviation, 1e-6)


def measure_all() -> dict[UUID, float]:
    """Outside of a scope: the drift of every collection that has changed and is large enough, of all tenants. The worst
    of each space is the gauge `rag_embedding_drift`, NaN where there is none. One that cannot be measured is logged."""
    drifts, worst = dict[UUID, float](), dict[str, float]()
    for tenant_id, collection_id in db.rows("reindex_collections"):
        try:
            found = _measured(tenant_id, collection_id)
        except Exception:
            logger.exception("the drift of collection %s could not be measured", collection_id)
            continue
        if found is not None:
            slug, drifts[collection_id] = found
            worst[slug] = max(found[1], worst.get(slug, 0.0))
    for slug in EmbeddingSpace.objects.values_list("slug", flat=True):
        metrics.DRIFT.labels(space=slug).set(worst.get(slug, math.nan))
    return drifts


def _measured(tenant_id: UUID, collection_id: UUID) -> tuple[str, float] | None:
    """Outside of a scope: (its space, its drift), acted upon; None where there is none."""
    with tenancy.scope(tenant_id, repeatable_read=True):
        collection = Collection.objects.select_related("space").filter(id=collection_id).first()
        drift = _measure(collection) if collection else None
    if collection is None or drift is None:
        return None
    if drift >= ALARM:
        _act(collection, drift)
    return collection.space.slug, drift


def _measure(collection: Collection) -> float | None:
    """Inside a scope: the drift of a collection; None where there is nothing new, or nothing to compare with."""
    space = collection.space
    own: dict[str, Any] = {"collection": collection.id}
    found = db.rows("drift", **own, space=space.id)
    if not found:
        _take(collection)
        return None
    centroids, mean, deviation, taken_at, epoch = found[0]
    if epoch == collection.epoch:
        return None
    new = _vectors(db.rows("new_vectors", table=space.table, **own, since=taken_at, most=NEWEST))
    if len(new) < FEWEST_NEW:
        return None
    normal = Normal(np.frombuffer(centroids, "<f4").reshape(-1, space.dimensions), mean, deviation)
    drift = normal.drift(new)
    db.run("set_drift", **own, drift=drift, epoch=collection.epoch)
    return drift


def _take(collection: Collection) -> None:
    """Inside a scope: what is normal from now on."""
    if collection.chunks < FEWEST:
        return
    share = min(1.0, SAMPLE / collection.chunks)
    bound = UUID(int=min(2**128 - 1, round(share * 2**128)))
    own: dict[str, Any] = {"collection": collection.id}
    rows = db.rows("sample_vectors", table=collection.space.table, **own, bound=bound, most=2 * SAMPLE)
    vectors = _vectors(rows)
    if len(vectors) < 2 * CENTROIDS:
        return
    normal = gathered(vectors)
    db.run(
        "take_drift",
        **own,
        tenant=collection.tenant_id,
        space=collection.space_id,
        centroids=normal.centroids.astype("<f4").tobytes(),
        mean=normal.mean,
        deviation=normal.deviation,
        now=db.clock(),
        epoch=collection.epoch,
    )


def _act(collection: Collection, drift: float) -> None:
    """Outside of a scope."""
    logger.warning(
        "the newest chunks of collection %s are %.1f standard deviations further from what it held before",
        collection.id,
        drift,
    )
    if collection.space.index_method == EmbeddingSpace.Index.IVFFLAT and index_care.rebuild_lists(collection.space):
        with tenancy.scope(collection.tenant_id, repeatable_read=True):
            _take(collection)


def gathered(vectors: Floats, *, seed: int = 0) -> Normal:
    """k-means of unit vectors by cosine (Lloyd's rounds from rows drawn at random). What is normal is told by the half
    that the means were not made from, to which they are no nearer than to what comes."""
    dice = np.random.default_rng(seed)
    shuffled = vectors[dice.permutation(len(vectors))]
    made_from, others = shuffled[: len(vectors) // 2], shuffled[len(vectors) // 2 :]
    centroids = made_from[: min(CENTROIDS, len(made_from))].copy()
    for _ in range(ROUNDS):
        nearest = (made_from @ centroids.T).argmax(axis=1)
        sums = np.zeros_like(centroids)
        np.add.at(sums, nearest, made_from)
        some = np.bincount(nearest, minlength=len(centroids)) > 0
        centroids[some] = sums[some] / np.maximum(np.linalg.norm(sums[some], axis=1, keepdims=True), 1e-9)
    distances = _distances(others, centroids)
    return Normal(centroids, float(distances.mean()), float(distances.std()))


def _distances(vectors: Floats, centroids: Floats) -> Floats:
    return 1 - (vectors @ centroids.T).max(axis=1)


def _vectors(rows: list[tuple[bytes]]) -> Floats:
    if not rows:
        return np.empty((0, 1), np.float32)
    found = np.stack([db.vector_from(row[0]) for row in rows])
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9)
