"""The vector of a query: from this process, from Redis, else from the model, which concurrent queries share."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Sequence
from uuid import UUID

import numpy as np
from redis.exceptions import RedisError

from apps.access.recent import Recent
from apps.access.redis import redis_client
from apps.documents.embedding import Embedder
from apps.documents.models import EmbeddingSpace
from apps.documents.spaces import embedder_for

from . import metrics
from .batcher import Batcher
from .types import Vector

logger = logging.getLogger(__name__)

CACHE_SECONDS = 24 * 3600
SERVED_CALLS = 4  # of a served model at once: one that hangs must not hold up all; a local one fills the processor

_batchers: dict[Embedder, Batcher] = {}
_recent: Recent[Vector] = Recent(entries=10_000, bytes=32 * 2**20, seconds=CACHE_SECONDS)


def cached_vector(*, tenant_id: UUID, space: EmbeddingSpace, query: str) -> Vector | None:
    """The query's unit vector from this process or from Redis; None when it is not there, or Redis is not."""
    return cached_vectors(tenant_id=tenant_id, space=space, queries=[query])[0]


def cached_vectors(*, tenant_id: UUID, space: EmbeddingSpace, queries: Sequence[str]) -> list[Vector | None]:
    """The same for several queries, by one look at Redis."""
    keys = [_key(tenant_id, space, query) for query in queries]
    found = {key: _recent.get(key) for key in keys}
    if missing := [key for key, vector in found.items() if vector is None]:
        for key, sent in zip(missing, _from_redis(missing), strict=True):
            if isinstance(sent, bytes):
                found[key] = np.frombuffer(sent, dtype="<f4")
                _remember(key, found[key])
    hits = sum(found[key] is not None for key in keys)
    metrics.CACHE.labels(cache="embedding", outcome="hit").inc(hits)
    metrics.CACHE.labels(cache="embedding", outcome="miss").inc(len(keys) - hits)
    return [found[key] for key in keys]


def new_vector(*, tenant_id: UUID, space: EmbeddingSpace, query: str) -> Vector:
    """The query's unit vector from the model, kept for the next time. Raises EmbeddingError."""
    vector = _batcher(space).vector(query)
    return _keep(tenant_id, space, [query], vector[None])[0]


def new_vectors(*, tenant_id: UUID, space: EmbeddingSpace, queries: Sequence[str]) -> list[Vector]:
    """The same for several queries, by one call of the model. Raises EmbeddingError."""
    return _keep(tenant_id, space, queries, embedder_for(space).embed(queries))


def _keep(tenant_id: UUID, space: EmbeddingSpace, queries: Sequence[str], vectors: np.ndarray) -> list[Vector]:
    kept = [(_key(tenant_id, space, query), row.astype("<f4")) for query, row in zip(queries, vectors, strict=True)]
    for key, vector in kept:
        _remember(key, vector)
    with contextlib.suppress(RedisError, OSError):
        sending = redis_client().pipeline(transaction=False)
        for key, vector in kept:
            sending.set(key, vector.tobytes(), ex=CACHE_SECONDS)
        sending.execute()
    return [vector for _, vector in kept]


def _from_redis(keys: list[str]) -> Sequence[object]:
    try:
        return redis_client().mget(keys)
    except (RedisError, OSError) as error:
        logger.warning("embedding cache unavailable: %s", error)
        return [None] * len(keys)


def _remember(key: str, vector: Vector | None) -> None:
    if vector is not None:
        _recent.keep(key, vector, bytes=400 + vector.nbytes)


def _batcher(space: EmbeddingSpace) -> Batcher:
    """One per model and process."""
    embedder = embedder_for(space)
    if embedder not in _batchers:
        calls = 1 if space.backend == "local" else SERVED_CALLS
        _batchers.setdefault(embedder, Batcher(embedder.embed, calls=calls))
    return _batchers[embedder]


def _key(tenant_id: UUID, space: EmbeddingSpace, query: str) -> str:
    """Carries the tenant, so that not even the time of an answer tells one tenant what another has asked."""
    return f"rs:query:{tenant_id}:{space.id}:{hashlib.sha256(query.encode()).hexdigest()}"
