"""The vector of a query: from the cache, else from the model."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
from uuid import UUID

import numpy as np
from django.conf import settings
from redis import Redis
from redis.exceptions import RedisError

from apps.documents.models import EmbeddingSpace
from apps.documents.spaces import embedder_for

logger = logging.getLogger(__name__)

CACHE_SECONDS = 24 * 3600


def cached_vector(*, tenant_id: UUID, space: EmbeddingSpace, query: str) -> list[float] | None:
    """The query's unit vector from Redis; None when it is not there, or Redis is not."""
    try:
        found = _redis().get(_key(tenant_id, space, query))
    except (RedisError, OSError) as error:
        logger.warning("embedding cache unavailable: %s", error)
        return None
    return np.frombuffer(found, dtype="<f4").tolist() if isinstance(found, bytes) else None


def new_vector(*, tenant_id: UUID, space: EmbeddingSpace, query: str) -> list[float]:
    """The query's unit vector from the model, kept for the next time. Raises EmbeddingError."""
    vector = embedder_for(space).embed([query])[0]
    with contextlib.suppress(RedisError, OSError):
        _redis().set(_key(tenant_id, space, query), vector.astype("<f4").tobytes(), ex=CACHE_SECONDS)
    return vector.tolist()


@functools.cache
def _redis() -> Redis:
    """One client per process. Django's cache makes one for each call, which takes longer than the call."""
    return Redis.from_url(settings.REDIS_URL, socket_timeout=1, socket_connect_timeout=1)


def _key(tenant_id: UUID, space: EmbeddingSpace, query: str) -> str:
    """Carries the tenant, so that not even the time of an answer tells one tenant what another has asked."""
    return f"rs:query:{tenant_id}:{space.id}:{hashlib.sha256(query.encode()).hexdigest()}"
