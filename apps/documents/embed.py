"""Stage two: vectors for staged chunks, across documents, then publish.

1. Claim a handful of jobs; a chunk whose text has a vector in this tenant already takes that one.
2. Fill a window of texts across the claimed documents; the embedder sorts it by length and packs it under its token
   budget. No more than a window of texts and vectors is ever in memory.
3. Store the vectors on the stage: after a crash only the texts without one are embedded again.
4. Publish each document (publish.py).
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from apps.access import tenancy

from . import db, ledger, metrics
from .ledger import Claim
from .models import Collection, EmbeddingSpace
from .publish import publish
from .spaces import embedder_for

JOBS_PER_CLAIM = 32
WINDOW_TEXTS = 512


def drain(*, job_id: UUID | None = None) -> int:
    """Embed and publish due jobs until there are none; only `job_id` where given. Returns how many were claimed."""
    count = 0
    while claims := ledger.claim(stage=ledger.Stage.EMBED, limit=JOBS_PER_CLAIM, job_id=job_id):
        with ledger.leased(*claims):
            for group in _groups(claims):
                embed_group(group)
        count += len(claims)
        if job_id is not None:
            break
    return count


def _groups(claims: list[Claim]) -> list[list[Claim]]:
    """Jobs that share a tenant (the wall) and a collection (the space); a large document by itself, and last, so that
    small ones do not wait for it."""
    groups: dict[tuple[object, ...], list[Claim]] = defaultdict(list)
    for held in sorted(claims, key=_chunks):
        alone = held.id if _chunks(held) > WINDOW_TEXTS else None
        groups[held.tenant_id, held.collection_id, alone].append(held)
    return list(groups.values())


def _chunks(held: Claim) -> float:
    return held.timings.get("chunks", 0)


def embed_group(claims: list[Claim]) -> None:
    """Embed and publish documents of one collection. When embedding them together fails, each is tried alone, so that
    one cannot sink others."""
    started = time.monotonic()
    tenant_id = claims[0].tenant_id
    try:
        with tenancy.scope(tenant_id):
            collection = Collection.objects.select_related("space").get(id=claims[0].collection_id)
        embed_texts(tenant_id, collection.space, claims)
    except Exception as error:
        if len(claims) > 1:
            for held in claims:
                embed_group([held])
            return
        with ledger.failures(claims[0]):
            raise error
        return
    seconds = time.monotonic() - started
    metrics.STAGE_SECONDS.labels(stage="embed").observe(seconds)
    for held in claims:
        with ledger.failures(held):
            publish(held, collection, embed_ms=round(seconds * 1000, 1))


def embed_texts(tenant_id: UUID, space: EmbeddingSpace, claims: list[Claim]) -> None:
    """Give every staged chunk of these jobs its vector, a window at a time."""
    held: dict[str, Any] = {
        "documents": [job.document_id for job in claims],
        "versions": [job.version for job in claims],
    }
    while True:
        with tenancy.scope(tenant_id, durable=False):
            pending = db.rows("pending_texts", limit=WINDOW_TEXTS, **held)
            if not pending:
                return
            texts: dict[bytes, str] = {bytes(row[3]): row[4] for row in pending}
            vectors = known_vectors(tenant_id, space, texts)
        vectors |= new_vectors(space, {digest: text for digest, text in texts.items() if digest not in vectors})
        with tenancy.scope(tenant_id, durable=False):
            db.run(
                "store_vectors",
                documents=[row[0] for row in pending],
                versions=[row[1] for row in pending],
                ordinals=[row[2] for row in pending],
                embeddings=[vectors[bytes(row[3])] for row in pending],
            )
        if len(pending) < WINDOW_TEXTS:
            return


def known_vectors(tenant_id: UUID, space: EmbeddingSpace, digests: Iterable[bytes]) -> dict[bytes, str]:
    """Inside a scope: by digest, the vectors (pgvector's text form) of texts that the tenant has in this space."""
    texts: dict[str, Any] = {"tenant": tenant_id, "sha256s": list(digests)}
    if not db.rows("any_known", **texts)[0][0]:
        return {}
    return {bytes(digest): vector for digest, vector in db.rows("known_vectors", table=space.table, **texts)}


def new_vectors(space: EmbeddingSpace, texts: Mapping[bytes, str]) -> dict[bytes, str]:
    """By digest, the vectors of these texts from the model. Raises EmbeddingError."""
    if not texts:
        return {}
    embedded = embedder_for(space).embed(list(texts.values()))
    metrics.CHUNKS_EMBEDDED.inc(len(texts))
    return {digest: db.vector_text(vector.tolist()) for digest, vector in zip(texts, embedded, strict=True)}
