"""Bringing an accepted document live before the answer: a small one here and now, a large one by the workers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from uuid import UUID

from django.conf import settings

from apps.access import tenancy
from apps.access.problems import Problem

from . import db, embed, ledger, metrics, prepare, publish
from .accept import Accepted, Submission
from .collections import collection_gone, hold_spaces
from .errors import ABOUT_THE_CONTENT, SpacesChanged
from .ledger import Claim
from .models import Collection, Document, IngestionJob
from .prepare import Original

INLINE_BYTES = 256 * 1024
POLL_SECONDS = 0.05


def run(work: Sequence[tuple[Accepted, Submission]], *, collection: Collection) -> list[IngestionJob | None]:
    """Bring accepted versions of a collection live, or see newer ones live, in at most WRITE_THROUGH_SECONDS each.

    The accepted documents' live version and state are set to how they stand then; of each, the job if it died. Jobs
    that were accepted with `hold` are worked on in this very process under the same leases: no queue stands between
    them and being searchable. If this process dies, a worker takes them over. Raises Problem 422 when the collection is
    deleted.
    """
    documents = {accepted.document.id: accepted.document for accepted, _ in work}
    originals = {
        accepted.held.id: _original(accepted.held, submission) for accepted, submission in work if accepted.held
    }

    def step(claims: list[Claim]) -> None:
        try:
            now_live = _here([originals[held.id] for held in claims], collection)
        except SpacesChanged:
            with tenancy.scope(collection.tenant_id):
                collection.refresh_from_db()
            return step(claims)
        for document_id, (version, state) in now_live.items():
            documents[document_id].live_version, documents[document_id].state = version, state

    claims = [original.held for original in originals.values()]
    with ledger.leased(*claims):
        for group in ledger.groups(claims, size=lambda held: held.bytes, most=prepare.BATCH_BYTES):
            ledger.together(step, group)
    return [None if is_live(accepted.document) else _wait(accepted) for accepted, _ in work]


def _original(held: Claim, submission: Submission) -> Original:
    submission.content.seek(0)
    content = submission.content.read()
    return Original(held, content, submission.media_type, submission.filename)


def _here(originals: list[Original], collection: Collection) -> dict[UUID, tuple[int, str]]:
    """The workers' steps, with everything in memory until the one transaction that stages and publishes it.

    Returns (live version, state) of the documents that went live, by id; one that cannot be read fails by itself.
    """
    started = time.monotonic()
    texts, failed = prepare.parse_all(originals)
    parsed_at = time.monotonic()
    counts: dict[UUID, int] = {}
    if texts:
        with ledger.scope([text.held for text in texts]):
            live = prepare.live_chunks([text.held.document_id for text in texts if text.held.base_version])
            chunks = list(prepare.cut_all(texts, collection, live=live, counts=counts, failed=failed))
            new = {each.sha256: each.text for each in chunks if each.text is not None}
            vectors = embed.known_in_spaces(collection, new)
    prepare.fail(failed)
    texts = [text for text in texts if text.held.id in counts]
    if not texts:
        return {}
    chunked_at = time.monotonic()
    embed.embed_the_rest(collection, new, vectors)
    embedded_at = time.monotonic()
    shared = {
        "queued_ms": 0.0,
        "parse_ms": metrics.milliseconds(parsed_at - started),
        "chunk_ms": metrics.milliseconds(chunked_at - parsed_at),
        "embed_ms": metrics.milliseconds(embedded_at - chunked_at),
    }
    timings = {text.held.id: shared | {"chunks": counts[text.held.id]} for text in texts}
    claims = [text.held for text in texts]
    with ledger.scope(claims):
        hold_spaces(collection)
        owned = ledger.own(claims)
        prepare.keep_texts(texts, collection)
        prepare.stage(chunks)
        return publish.swap(owned, collection, vectors=vectors, timings=timings, started=embedded_at)


def _wait(accepted: Accepted) -> IngestionJob | None:
    """Watch the job until the accepted version or a newer one is live, until it has failed, for now or for good, or
    until the time is over. Unchanged content waits for the job of whoever sent it first."""
    document = accepted.document
    deadline = time.monotonic() + settings.WRITE_THROUGH_SECONDS
    with tenancy.scope(document.tenant_id):
        sent = IngestionJob.objects.filter(document_id=document.id, kind=IngestionJob.Kind.INGEST)
        job = accepted.job or sent.order_by("-version").first()
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


def refusal(job: IngestionJob, *, pointer: str) -> Problem:
    """Of a write-through whose document cannot be read: the client's error."""
    error = job.error or {}
    code, detail = error.get("code", "failed"), error.get("detail", "Ingestion failed.")
    return Problem(
        422,
        code,
        detail,
        errors=[{"pointer": pointer, "detail": detail}] if code in ABOUT_THE_CONTENT else None,
        job=str(job.id),
        id=str(job.document_id),
    )
