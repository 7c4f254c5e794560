"""Bringing an accepted document live before the answer: a small one here and now, a large one by the workers."""

from __future__ import annotations

import json
import time

from django.conf import settings

from apps.access import tenancy

from . import db, embed, ledger, metrics, prepare, publish
from .accept import Accepted, Submission
from .collections import collection_gone
from .errors import IngestError
from .ledger import Claim
from .models import Collection, Document, IngestionJob
from .prepare import Original, milliseconds

INLINE_BYTES = 256 * 1024
POLL_SECONDS = 0.05


def run(accepted: Accepted, *, collection: Collection, submission: Submission) -> None:
    """Bring an accepted document's job to its end, in at most WRITE_THROUGH_SECONDS; the accepted job and document are
    set to how they stand then.

    A job that was accepted with `hold` is worked on in this very process under the same lease: no queue stands between
    it and being searchable. If this process dies, a worker takes the job over. Raises Problem 422 when the collection
    is deleted.
    """
    job, document, held = accepted.job, accepted.document, accepted.held
    assert job is not None, "unchanged content has nothing to wait for"
    if held is not None:
        with ledger.failures(held), ledger.leased(held):
            if _here(held, collection, submission, document):
                job.state = job.State.DONE
                return
    _wait(job, document)


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
    with tenancy.scope(held.tenant_id):
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
    with tenancy.scope(held.tenant_id):
        owned = ledger.own([held])
        prepare.keep_texts([text], collection)
        prepare.stage(chunks)
        now_live = publish.swap(owned, collection, vectors=vectors, timings=timings, started=embedded_at)
    metrics.STAGE_SECONDS.labels(stage="prepare").observe(chunked_at - started)
    metrics.STAGE_SECONDS.labels(stage="embed").observe(embedded_at - chunked_at)
    if document.id in now_live:
        document.version, document.live_version, document.state = now_live[document.id]
    return document.id in now_live


def _wait(job: IngestionJob, document: Document) -> None:
    """Watch the ledger until the job ends, has to be retried, or the time is over."""
    deadline = time.monotonic() + settings.WRITE_THROUGH_SECONDS
    while True:
        with tenancy.scope(job.tenant_id):
            jobs = db.rows("job_state", job=job.id)
            documents = db.rows("document_state", document=document.id)
        if not jobs or not documents:
            raise collection_gone()
        job.state, error = jobs[0]
        job.error = json.loads(error) if isinstance(error, str) else error
        document.version, document.live_version, document.state = documents[0]
        if job.state in (job.State.DONE, job.State.DEAD, job.State.CANCELLED) or time.monotonic() > deadline:
            return
        if job.state == job.State.QUEUED and job.error:  # a passing failure: its retry is a worker's business
            return
        time.sleep(POLL_SECONDS)
