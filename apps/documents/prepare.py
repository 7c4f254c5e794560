"""Stage one: the original bytes to normalised text, chunks, and what differs from the live version.

The transaction writes the text, the staged chunks and the job's next stage together; a crash before it leaves
nothing, and running it twice gives the same rows (chunk ids are derived from document, version and ordinal).
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from itertools import islice
from uuid import UUID, uuid5

from apps.access import tenancy

from . import db, ledger, metrics
from .chunking import CHUNKERS, Span, chunk
from .errors import IngestError
from .ledger import Claim
from .models import Collection, DocumentVersion, IngestionJob
from .parsing import Parsed
from .parsing.sandbox import parse_sandboxed
from .spaces import embedder_for

STAGE_ROWS = 1_000  # chunks written per statement: bounds the memory that a large document takes


def drain(*, job_id: UUID | None = None) -> int:
    """Prepare due jobs until there are none; only `job_id`, which the caller then embeds itself, where given.

    Returns how many were claimed.
    """
    count = 0
    while claims := ledger.claim(stage=ledger.Stage.PREPARE, job_id=job_id):
        for held in claims:
            with ledger.failures(held):
                prepare(held)
                if job_id is None:
                    ledger.wake(ledger.Stage.EMBED)
        count += len(claims)
        if job_id is not None:
            break
    return count


def prepare(held: Claim, *, collection: Collection | None = None, keep: bool = False) -> Claim | None:
    """Parse, chunk and stage one version, then queue the job for embedding - or keep it, for whoever embeds it at once.

    Returns the kept job. Raises ParseError or IngestError for a document that cannot be read, LostLease when another
    worker has the job.
    """
    started = time.monotonic()
    timings = {"queued_ms": _ms(max(0.0, time.time() - held.created_at.timestamp()))}
    with tenancy.scope(held.tenant_id):
        if db.rows("superseded", document=held.document_id, version=held.version)[0][0]:
            ledger.own(held)
            db.run("clear_stage", document=held.document_id, version=held.version)
            ledger.finish(held, outcome=IngestionJob.Outcome.SUPERSEDED)
            return None
        version = DocumentVersion.objects.get(document_id=held.document_id, version=held.version)
        if collection is None:
            collection = Collection.objects.select_related("space").get(id=held.collection_id)
        original = b"".join(bytes(row[0]) for row in db.rows("blob", document=held.document_id, version=held.version))
    with ledger.leased(held):
        parsed = parse_sandboxed(original, media_type=version.media_type, filename=version.filename or None)
        del original
        timings["parse_ms"] = _ms(time.monotonic() - started)
        kept = _stage(held, collection, version, parsed, timings=timings, keep=keep)
    metrics.STAGE_SECONDS.labels(stage="prepare").observe(time.monotonic() - started)
    return kept


def _stage(
    held: Claim,
    collection: Collection,
    version: DocumentVersion,
    parsed: Parsed,
    *,
    timings: dict[str, float],
    keep: bool,
) -> Claim | None:
    started = time.monotonic()
    with tenancy.scope(held.tenant_id, durable=False):
        _, base, _ = ledger.own(held)
        if not keep:
            db.run("processing", document=held.document_id, version=held.version)
        db.run_large(
            "keep_text",
            document=held.document_id,
            version=held.version,
            text=parsed.text,
            characters=len(parsed.text),
            title=version.title or (parsed.title or "")[:500],
            parser=parsed.parser,
            chunker=chunker_fingerprint(collection),
            media_type=parsed.media_type,
        )
        if held.fence > 1:  # an earlier try may have staged something
            db.run("clear_stage", document=held.document_id, version=held.version)
        live: dict[tuple[bytes, tuple[str, ...]], deque[UUID]] = defaultdict(deque)
        for chunk_id, digest, heading_path in db.rows("live_chunks", document=held.document_id) if base else ():
            live[bytes(digest), tuple(heading_path)].append(chunk_id)
        embedder = embedder_for(collection.space)
        # What a model does not read it cannot find: no chunk is longer than it takes, whatever the collection says.
        limit = min(collection.chunking_max_tokens, embedder.max_tokens)
        spans = chunk(
            parsed.text,
            parsed.blocks,
            strategy=collection.chunking_strategy,
            max_tokens=limit,
            overlap_tokens=min(collection.chunking_overlap_tokens, (limit - 1) // 2),
            count=embedder.count,
        )
        ordinal = 0
        while rows := list(islice(spans, STAGE_ROWS)):
            _stage_rows(held, parsed.text, rows, ordinal, live)
            ordinal += len(rows)
        if not ordinal:
            raise IngestError("empty", "The document has no text.")
        timings |= {"chunk_ms": _ms(time.monotonic() - started), "chunks": ordinal}
        if keep:
            return ledger.advance(held, stage=ledger.Stage.EMBED, base_version=base, timings=timings)
        ledger.hand_over(held, stage=ledger.Stage.EMBED, base_version=base, timings=timings)
        return None


def _stage_rows(
    held: Claim,
    text: str,
    spans: list[Span],
    first: int,
    live: dict[tuple[bytes, tuple[str, ...]], deque[UUID]],
) -> None:
    """Write spans to the stage; one that is live already keeps its row and carries no text."""
    rows = list(_staged(held, text, spans, first, live))
    columns = [list(column) for column in zip(*rows, strict=True)]
    names = ("ordinals", "chunk_ids", "kept", "starts", "ends", "texts", "sha256s", "tokens", "heading_paths")
    db.run_large(
        "stage",
        document=held.document_id,
        version=held.version,
        tenant=held.tenant_id,
        **dict(zip(names, columns, strict=True)),
    )


def _staged(
    held: Claim,
    text: str,
    spans: list[Span],
    first: int,
    live: dict[tuple[bytes, tuple[str, ...]], deque[UUID]],
) -> Iterator[tuple]:
    for ordinal, span in enumerate(spans, first):
        passage = text[span.start : span.end]
        digest = hashlib.sha256(passage.encode()).digest()
        same = live.get((digest, span.heading_path))
        kept = bool(same)
        chunk_id = same.popleft() if same else uuid5(held.document_id, f"{held.version}/{ordinal}")
        headings = json.dumps(span.heading_path)
        yield (
            ordinal,
            chunk_id,
            kept,
            span.start,
            span.end,
            None if kept else passage,
            digest,
            span.tokens,
            headings,
        )


def chunker_fingerprint(collection: Collection) -> str:
    """What the chunks of a version were cut with: recorded, so that a change of settings can be told apart."""
    strategy = CHUNKERS[collection.chunking_strategy]
    return f"{strategy}:{collection.chunking_max_tokens}:{collection.chunking_overlap_tokens}"


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)
