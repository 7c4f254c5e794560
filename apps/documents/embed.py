"""Stage two: vectors for staged chunks, across documents, then publish.

1. Claim small documents by the hundred, or a large one; a chunk whose text has a vector in this tenant already takes
   that one.
2. Fill a window of texts across the claimed documents; the embedder sorts it by length and packs it under its token
   budget. No more than a window of texts and vectors is ever in memory.
3. Of a document of more than a window, store the vectors on the stage: after a crash only the texts without one are
   embedded again.
4. Publish what was embedded together in one transaction (publish.py), in a thread, while the model goes on; small
   documents pass a large one that is being published.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, suppress
from contextvars import copy_context
from threading import Thread
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt
from django.db import connection

from . import db, ledger, metrics
from .collections import hold_spaces
from .errors import SpacesChanged
from .ledger import Claim
from .models import Collection, EmbeddingSpace
from .publish import RETRY_SECONDS, STAGED, Timings, publish
from .spaces import embedder_for

logger = logging.getLogger(__name__)

JOBS_PER_CLAIM = 100
Vectors = dict[bytes, npt.NDArray[np.float32]]  # by their texts' digests
OfSpaces = dict[UUID, Vectors]
LET_BY_SECONDS = 0.1
SECOND_SECONDS = 2  # that documents wait for a second space's model, longer than for the one that serves
WINDOW_TEXTS = 128  # 2 to 3 seconds of two processor cores, and as long as a small document waits for a large one


def drain(*, job_id: UUID | None = None) -> int:
    """Embed and publish due jobs until there are none; only `job_id` where given. Returns how many were claimed.

    What has been tried before may be what kills the process: it is alone in it, and takes no other job along.
    """
    if job_id is not None:
        return _work(ledger.claim(stage=ledger.Stage.EMBED, job_id=job_id))
    claimed = 0
    with ThreadPoolExecutor(1, thread_name_prefix="publish") as publisher:
        published: Future[None] = publisher.submit(lambda: None)
        try:
            for claims in ledger.claims(stage=ledger.Stage.EMBED, limit=JOBS_PER_CLAIM):
                if claims[0].attempts > 1 or claims[0].bytes > ledger.SMALL_BYTES:
                    published.result()
                    _work(claims)
                else:
                    published = _work_ahead(claims, publisher, published)
                claimed += len(claims)
            published.result()
        finally:
            publisher.submit(_give_back)
    return claimed


def _work(claims: list[Claim]) -> int:
    with ledger.leased(*claims):
        for group in groups(claims):
            ledger.together(embed, group)
    return len(claims)


def _work_ahead(claims: list[Claim], publisher: ThreadPoolExecutor, published: Future[None]) -> Future[None]:
    """Embed group after group while another thread publishes the one before; returns the last one's future.

    `published` is that of what came before these claims. Never more than two groups' vectors are in memory. The
    leases are kept until the last group is published.
    """
    with ExitStack() as held:
        held.enter_context(ledger.leased(*claims))
        for group in groups(claims):
            try:
                embedded = _embed(group)
            except Exception as error:
                ledger.apart(embed, group, error)
                continue
            published.result()
            published = publisher.submit(_publish, group, embedded)
        publisher.submit(held.pop_all().close)
    return published


def groups(claims: list[Claim]) -> list[list[Claim]]:
    return ledger.groups(claims, size=lambda held: held.timings.get("chunks", 0), most=WINDOW_TEXTS)


def embed(claims: Sequence[Claim]) -> None:
    """Embed and publish documents of one collection. Raises EmbeddingError, LostLease."""
    with suppress(SpacesChanged):
        return _embed_and_publish(claims)
    embed(claims)


def _embed_and_publish(claims: Sequence[Claim]) -> None:
    collection, vectors, timings = _embed(claims)
    if not _lets_others_by(claims):
        return publish(claims, collection, vectors=vectors, timings=timings)
    with ThreadPoolExecutor(1, thread_name_prefix="publish") as publisher:
        published = publisher.submit(publish, claims, collection, vectors=vectors, timings=timings)
        publisher.submit(_give_back)
        while not wait([published], timeout=LET_BY_SECONDS).done:
            let_small_ones_by()
        published.result()


def embed_alone(claims: Sequence[Claim]) -> None:
    """The same for whoever waits for just these."""
    collection, vectors, timings = _embed(claims, alone=True)
    try:
        publish(claims, collection, vectors=vectors, timings=timings)
    except SpacesChanged:
        embed_alone(claims)


def _give_back() -> None:
    """This thread's own connection goes back to the pool: called in that thread, `connection` is another in each."""
    connection.close()


def _lets_others_by(claims: Sequence[Claim]) -> bool:
    """A large document may take minutes: small ones that have come meanwhile go first."""
    return claims[0].bytes > ledger.SMALL_BYTES and claims[0].attempts == 1


def let_small_ones_by() -> None:
    _work(ledger.claim(stage=ledger.Stage.EMBED, limit=JOBS_PER_CLAIM, only_small=True))


def let_others_by() -> None:
    """Some of what is due, for work that is less urgent than any job."""
    _work(ledger.claim(stage=ledger.Stage.EMBED, limit=JOBS_PER_CLAIM))


Embedded = tuple[Collection, OfSpaces, Timings]


def _embed(claims: Sequence[Claim], *, alone: bool = False) -> Embedded:
    started = time.monotonic()
    with ledger.scope(claims):
        collection = Collection.objects.select_related("space", "second_space").get(id=claims[0].collection_id)
    try:
        vectors = embed_texts(collection, claims, alone=alone)
    except SpacesChanged:
        return _embed(claims, alone=alone)
    embed_ms = metrics.milliseconds(time.monotonic() - started)
    return collection, vectors, {held.id: {"embed_ms": embed_ms} for held in claims}


def _publish(claims: list[Claim], embedded: Embedded) -> None:
    collection, vectors, timings = embedded
    try:
        publish(claims, collection, vectors=vectors, timings=timings)
    except SpacesChanged:
        ledger.together(embed, claims)
    except Exception as error:
        ledger.apart(embed, claims, error)


def embed_texts(collection: Collection, claims: Sequence[Claim], *, alone: bool = False) -> OfSpaces:
    """The vectors of staged texts. More texts than a window get theirs on the stage, a window at a time, and small
    documents go between two windows, unless these are to be done `alone`. Raises SpacesChanged; whoever changes the
    spaces takes the vectors off the stage."""
    held = ledger.versions_of(claims)
    stored = False
    while True:
        with ledger.scope(claims, durable=False):
            pending = db.rows("pending_texts", limit=WINDOW_TEXTS, **held)
            texts: dict[bytes, str] = {row[3]: row[4] for row in pending}
            vectors = known_in_spaces(collection, texts)
        embed_the_rest(collection, texts, vectors)
        if len(pending) < WINDOW_TEXTS and not stored:
            return vectors
        stored = True
        with ledger.scope(claims, durable=False):
            hold_spaces(collection)
            for space, staged in zip(collection.spaces, STAGED, strict=False):
                known = vectors[space.id]
                rows = [row for row in pending if row[3] in known or space == collection.space]
                db.run(
                    "store_vectors",
                    staged=staged,
                    documents=[row[0] for row in rows],
                    versions=[row[1] for row in rows],
                    ordinals=[row[2] for row in rows],
                    embeddings=db.VectorArray([known[row[3]] for row in rows]),
                )
        if len(pending) < WINDOW_TEXTS:
            return {}
        if not alone and _lets_others_by(claims):
            let_small_ones_by()


def known_in_spaces(collection: Collection, texts: Mapping[bytes, str]) -> OfSpaces:
    """Inside a scope: the vectors that these texts have already, in each of the collection's spaces."""
    return {space.id: known_vectors(collection.tenant_id, space, texts) for space in collection.spaces if texts}


def embed_the_rest(collection: Collection, texts: Mapping[bytes, str], vectors: OfSpaces) -> None:
    """Complete the vectors of these texts by their models. Raises EmbeddingError of the space that serves; what a
    second space's model fails to make, or does not make in time, is left out."""
    for space in collection.spaces:
        known = vectors.setdefault(space.id, {})
        if unknown := {digest: text for digest, text in texts.items() if digest not in known}:
            known |= new_vectors(space, unknown) if space == collection.space else _if_in_time(space, unknown)


_asked_again_at: dict[UUID, float] = {}  # by second space whose model has failed: no document waits for it before


def _if_in_time(space: EmbeddingSpace, texts: Mapping[bytes, str]) -> Vectors:
    """What a second space's model makes of these texts within SECOND_SECONDS, or nothing: the documents go live in the
    space that serves, and the build adds what is missing (publish.py)."""
    began = time.monotonic()
    if began < _asked_again_at.get(space.id, 0):
        return {}
    if space.id in _asked_again_at:  # one of all documents asks
        _asked_again_at[space.id] = began + RETRY_SECONDS
    try:
        made = asked(space, texts).result(timeout=SECOND_SECONDS)
    except Exception as error:  # whatever it is, the space that serves has its vectors
        logger.warning("documents go live without vectors in the second space %s: %r", space, error)
        _asked_again_at[space.id] = time.monotonic() + RETRY_SECONDS
        return {}
    _asked_again_at.pop(space.id, None)
    return made


def asked(space: EmbeddingSpace, texts: Mapping[bytes, str]) -> Future[Vectors]:
    """`new_vectors` in a thread of its own, for who has other things to do while a model works, or hangs."""
    answer: Future[Vectors] = Future()

    def ask() -> None:
        try:
            answer.set_result(new_vectors(space, texts))
        except Exception as error:
            answer.set_exception(error)

    Thread(target=copy_context().run, args=(ask,), name="asks a second model", daemon=True).start()
    return answer


def known_vectors(tenant_id: UUID, space: EmbeddingSpace, digests: Iterable[bytes]) -> Vectors:
    """Inside a scope: the vectors of texts that the tenant has in this space."""
    texts: dict[str, Any] = {"tenant": tenant_id, "sha256s": list(digests)}
    if not db.rows("any_known", **texts)[0][0]:
        return {}
    known = db.rows("known_vectors", table=space.table, **texts)
    return {bytes(digest): db.vector_from(sent) for digest, sent in known}


def new_vectors(space: EmbeddingSpace, texts: Mapping[bytes, str]) -> Vectors:
    """The vectors of these texts from the model. Raises EmbeddingError."""
    if not texts:
        return {}
    embedded = embedder_for(space).embed(list(texts.values()))
    metrics.CHUNKS_EMBEDDED.inc(len(texts))
    return dict(zip(texts, embedded, strict=True))
