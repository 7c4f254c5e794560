"""Waiting for a write: run its job here if it is small and no worker has it yet, else watch the ledger."""

from __future__ import annotations

import json
import time
from uuid import UUID

from django.conf import settings

from apps.access import tenancy

from . import db, embed, ledger, prepare
from .collections import collection_gone
from .models import Collection, Document, IngestionJob

INLINE_BYTES = 256 * 1024
POLL_SECONDS = 0.05


def run(*, tenant_id: UUID, collection: Collection, job: IngestionJob, document: Document, size: int) -> None:
    """Bring a job to its end, at most WRITE_THROUGH_SECONDS; `job` and `document` are set to how they stand then.

    A small document is worked on in this very process under the same leases: no queue stands between it and being
    searchable. If this process dies, a worker takes the job over. Raises Problem 422 when the collection is deleted.
    """
    if size <= INLINE_BYTES:
        for held in ledger.claim(stage=ledger.Stage.PREPARE, job_id=job.id):
            with ledger.failures(held):
                kept = prepare.prepare(held, collection=collection, keep=True)
                if kept is not None:
                    embed.embed_group([kept], in_hand=[kept], collection=collection)
    else:
        ledger.wake(ledger.Stage.PREPARE)
    deadline = time.monotonic() + settings.WRITE_THROUGH_SECONDS
    while True:
        with tenancy.scope(tenant_id):
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
