"""The vector of a query: from the cache, else from the model."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from uuid import UUID

import numpy as np
from django.core.cache import cache
from redis.exceptions import RedisError

from apps.documents.models import EmbeddingSpace
from apps.documents.spaces import embedder_for

logger = logging.getLogger(__name__)

CACHE_SECONDS = 24 * 3600


def query_vector(*, tenant_id: UUID, space: EmbeddingSpace, query: str) -> tuple[list[float], bool]:
    """(float32 values of the query's unit vector, was it cached). Without Redis the model is asked every time.

    Raises EmbeddingError. The key carries the tenant, so that not even the time of an answer tells one tenant what
    another has asked.
    """
    digest = hashlib.sha256(query.encode()).hexdigest()
    key = f"query:{tenant_id}:{space.id}:{digest}"
    try:
        found = cache.get(key)
    except (RedisError, OSError) as error:
        logger.warning("embedding cache unavailable: %s", error)
        found = None
    if found is not None:
        return np.frombuffer(found, dtype="<f4").tolist(), True
    vector = embedder_for(space).embed([query])[0]
    with contextlib.suppress(RedisError, OSError):
        cache.set(key, vector.astype("<f4").tobytes(), CACHE_SECONDS)
    return vector.tolist(), False
