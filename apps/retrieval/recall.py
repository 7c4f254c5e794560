"""The recall monitor: does the vector index still find what a comparison of all vectors finds?

1. A small share of the searches that have asked the index leave their vector in Redis (`note`): no text, and of a
   search with a filter or of the past nothing.
2. `measure`, called by beat, asks again for each of them, by the index as searches ask it and exactly, in one snapshot.
   Recall@10 is the share of the ten that the index found, or found as near.
3. The mean of a space's last samples is the gauge `rag_recall_at_k`; one below LEAST is logged as a warning. Where none
   could be measured the gauge is NaN, and `rag_recall_dropped_total` tells how many were dropped.
"""

from __future__ import annotations

import logging
import math
import random
import time
from dataclasses import replace
from typing import Any, cast
from uuid import UUID

import numpy as np
import orjson
from django.conf import settings
from django.db import DatabaseError
from redis.exceptions import RedisError

from apps.access import tenancy
from apps.access.problems import Problem
from apps.access.redis import redis_client
from apps.access.sql import execute

from . import metrics, policy
from .scopes import scopes_of
from .statement import QUERIES, Choice, again, choose, index_settings, legs_of
from .types import Scope, SearchQuery, Vector

logger = logging.getLogger(__name__)

SHARE = 0.01  # of the searches; a note takes a look at Redis
MOST_NOTES = 100  # that wait to be measured; older ones are lost
NOTES_SECONDS = 24 * 3600
EXACT_SECONDS = 300.0  # that the comparison of all vectors may take: nobody waits for it
AT_IT_SECONDS = 300.0  # after which no other note is begun with: they wait for the next time
KEPT = 200  # samples of a space that its recall is the mean of
FEWEST = 20  # before a warning
LEAST = 0.95
K = 10
ALIKE = 1e-5  # of a similarity: as near
_NOTES = "rs:recall:notes"


def note(tenant_id: UUID, query: SearchQuery, scopes: list[Scope], vector: Vector) -> None:
    """Now and then, after a search: keep its vector for `measure`."""
    if random.random() >= SHARE or query.filter is not None or query.is_past or policy.compares_all(scopes):
        return
    said = {"tenant": str(tenant_id), "collections": query.collections, "space": scopes[0].space.slug}
    try:
        sending = redis_client().pipeline(transaction=False)
        sending.lpush(_NOTES, orjson.dumps(said) + b"\n" + vector.astype("<f4").tobytes())
        sending.ltrim(_NOTES, 0, MOST_NOTES - 1)
        sending.expire(_NOTES, NOTES_SECONDS)
        sending.execute()
    except (RedisError, OSError) as error:
        logger.warning("a sample of recall is lost: %s", error)


def measure() -> dict[str, float]:
    """Outside of a scope: measure what has been noted. The recall of each space that was asked, by slug."""
    measured: dict[str, list[float]] = {}
    failed: dict[str, DatabaseError] = {}
    began = time.monotonic()
    while noted := cast(bytes | None, redis_client().lpop(_NOTES)):
        said, _, sent = noted.partition(b"\n")
        asked: dict[str, Any] = orjson.loads(said)
        samples = measured.setdefault(asked["space"], [])
        try:
            samples.append(_sample(asked, np.frombuffer(sent, dtype="<f4")))
        except DatabaseError as error:
            failed[asked["space"]] = error
            metrics.RECALL_DROPPED.labels(space=asked["space"], reason="failed").inc()
        except (_Gone, Problem):
            metrics.RECALL_DROPPED.labels(space=asked["space"], reason="gone").inc()
        if time.monotonic() > began + AT_IT_SECONDS:
            break
    for slug, last in failed.items():
        logger.warning("searches in the space %s could not be compared with exact ones; the last: %s", slug, last)
    recalls = {}
    for slug, samples in measured.items():
        if not samples:
            metrics.RECALL.labels(space=slug).set(math.nan)  # nothing is known: what was so once would hide it
            continue
        metrics.RECALL_SAMPLES.labels(space=slug).inc(len(samples))
        recalls[slug], count = _kept(slug, samples)
        metrics.RECALL.labels(space=slug).set(recalls[slug])
        if recalls[slug] < LEAST and count >= FEWEST:
            logger.warning(
                "the vector index of the space %s finds %.3f of the nearest (of %d searches): build it anew with "
                "manage.py space index, or partitions rebuild-index",
                slug,
                recalls[slug],
                count,
            )
    return recalls


class _Gone(Exception):
    """The collections are gone, are searched by another space, or exactly, by now."""


def _sample(said: dict[str, Any], vector: Vector) -> float:
    """The recall of one vector, by the space that answered. Raises _Gone, Problem, DatabaseError."""
    slugs = None if said["collections"] is None else tuple(said["collections"])
    query = SearchQuery("", collections=slugs, k=K, mode="dense")
    with tenancy.snapshot(said["tenant"]):
        scopes = [
            replace(scope, space=space)
            for scope in scopes_of(slugs)
            for space in (scope.space, scope.second)
            if space is not None and space.slug == said["space"]
        ]
        if not scopes or policy.compares_all(scopes):
            raise _Gone
        tenancy.set_local(_timeout(settings.SEARCH_TIMEOUT_SECONDS))
        choice: Choice | None = choose(scopes, query)
        while choice is not None:
            tenancy.set_local(index_settings(scopes, query, choice))
            legs, names, parameters = legs_of(scopes, query, vector, choice)
            found = _similarities(next(iter(legs.values())), parameters)
            choice = again(scopes, query, choice, len(found))
        tenancy.set_local(_timeout(EXACT_SECONDS))
        exact = _similarities(QUERIES["dense_exact"].format(**names, holds=""), parameters)
    if not exact:
        raise _Gone
    as_near = sum(similarity >= exact[-1] - ALIKE for similarity in found)
    return min(1.0, as_near / len(exact))


def _timeout(seconds: float) -> dict[str, str]:
    return {"statement_timeout": f"{seconds * 1000:.0f}"}


def _similarities(leg: str, parameters: dict[str, Any]) -> list[float]:
    """Those of the nearest K that a leg of a search finds, the nearest first."""
    statement = QUERIES["nearest"].format(leg=leg.strip().rstrip(","), k=K)
    return [row[0] for row in execute(statement, parameters).fetchall()]


def _kept(slug: str, samples: list[float]) -> tuple[float, int]:
    """(mean, how many) of a space's last samples, with these."""
    key = f"rs:recall:{slug}"
    sending = redis_client().pipeline()
    sending.lpush(key, *samples)
    sending.ltrim(key, 0, KEPT - 1)
    sending.expire(key, 7 * NOTES_SECONDS)
    sending.lrange(key, 0, -1)
    last = [float(each) for each in sending.execute()[-1]]
    return float(np.mean(last)), len(last)
