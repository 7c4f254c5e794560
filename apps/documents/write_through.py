"""Bringing an accepted document live before the answer: a small one here and now, a large one by the workers."""

from __future__ import annotations

import time

from django.conf import settings

from apps.access import tenancy

from . import db, embed, ledger, prepare, publish
from .accept import Accepted, Submission
from .collections import collection_gone, hold
from .errors import IngestError
from .ledger import Claim
from .models import Collection, Document, IngestionJob
from .prepare import Original, milliseconds

INLINE_BYTES = 256 * 1024
POLL_SECONDS = 0.05


def run(accepted: Accepted, *, collection: Collection, submission: Submission) -> IngestionJob | None:
    """Bring an accepted version live, or see a newer one live, in at most WRITE_THROUGH_SECONDS.

    The accepted document's live version and state are set to how they stand then; a job that died is returned. A job
    that was accepted with `hold` is worked on in this very process under the same lease: no queue stands between it and
    being searchable. If this process dies, a worker takes the job over. Raises Problem 422 when the collection is
    deleted.
    """
    held = accepted.held
    if held is not None:
        with ledger.failures(held), ledger.leased(held):
            if _here(held, collection, submission, accepted.document):
                return None
    return _wait(accepted)


def _here(held: Claim, collection: Collection, submission: Submission, document: Document) -> bool:
    """The workers' steps, with everything in memory until the one transaction that stages and publishes it.

    False when the version did not go live.
    """
    started = time.monotonic()
    submission.content.seek(0)
    text = prepare.parse(
        Original(held, submission.content.read(), submission.media_type, submission.filename, submission.title or "")
    )
    parsed_at = time.monotonic()
    with ledger.scope([held]):
        live = prepare.live_chunks([held.document_id] if held.base_version else [])
        chunks = list(prepare.cut(text, collection, live=live[held.document_id]))
        if not chunks:
            raise IngestError("empty", "The document has no text.")
        texts = {each.sha256: each.text for each in chunks if each.text is not None}
        vectors = embed.known_vectors(held.tenant_id, collection.space, texts) if texts else {}
    chunked_at = time.monotonic()
    unknown = {digest: text for digest, text in texts.items() if digest not in vectors}
    vectors |= embed.new_vectors(collection.space, unknown)
    embedded_at = time.monotonic()
    timings = {
        "queued_ms": 0.0,
        "parse_ms": milliseconds(parsed_at - started),
        "chunk_ms": milliseconds(chunked_at - parsed_at),
        "embed_ms": milliseconds(embedded_at - chunked_at),
        "chunks": len(chunks),
    }
    with ledger.scope([held]):
        hold(collection.id)
        owned = ledger.own([held])
        prepare.keep_texts([text], collection)
        prepare.stage(chunks)
        now_live = publish.swap(owned, collection, vectors=vectors, timings=timings, started=embedded_at)
    if document.id in now_live:
        document.live_version, document.state = now_live[document.id]
    return document.id in now_live


def _wait(accepted: Accepted) -> IngestionJob | None:
    """Watch the job until the accepted version or a newer one is live, until it has failed, for now or for good, or
    until the time is over. Unchanged content waits for the job of whoever sent it first."""
    document = accepted.document
    deadline = time.monotonic() + settings.WRITE_THROUGH_SECONDS
    with tenancy.scope(document.tenant_id):
        job = accepted.job or IngestionJob.objects.filter(document_id=document.id).order_by("-version").first()
    while job is not None:
        with tenancy.scope(document.tenant_id):
            job = IngestionJob.objects.filter(id=job.id).first()
            states = db.rows("document_state", document=document.id)
        if job is None or not states:
            break
        document.live_version, document.state = states[0]
        if is_live(document) or time.monotonic() > deadline:
            return None
        match job.state:
            case job.State.DEAD:
                return job
            case job.State.CANCELLED:
                return None
            case job.State.QUEUED if job.error:  # to be tried again by a worker
                return None
            case job.State.DONE if document.state not in (document.State.PENDING, document.State.PROCESSING):
                return None  # deleted, or stepped aside for a newer version that came to nothing
        time.sleep(POLL_SECONDS)
    raise collection_gone()


def is_live(document: Document) -> bool:
    """Do searches find this version of the document, or a newer one?"""
    return document.live_version is not None and document.live_version >= document.version
