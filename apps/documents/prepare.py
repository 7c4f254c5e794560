"""Stage one: the original bytes to normalised text, chunks, and what differs from the live version.

The transaction writes the text, the staged chunks and the job's next stage together; a crash before it leaves
nothing, and running it twice gives the same rows (chunk ids are derived from document, version and ordinal).
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from uuid import UUID, uuid5

from apps.access import tenancy

from . import db, ledger, metrics
from .chunking import CHUNKERS, chunk
from .errors import IngestError
from .ledger import Claim
from .models import Collection, DocumentVersion, IngestionJob
from .parsing import Parsed
from .parsing.sandbox import parse_sandboxed
from .spaces import embedder_for

STAGE_ROWS = 1_000  # chunks written per statement: bounds the memory that a large document takes

#: Ids of a document's live chunks by what makes a chunk the same: its text's digest and its headings.
LiveChunks = dict[tuple[bytes, tuple[str, ...]], deque[UUID]]


@dataclass(frozen=True, slots=True)
class StagedChunk:
    """A chunk of a version on its way; `start` and `end` are code points of the version's text."""

    ordinal: int
    chunk_id: UUID
    kept: bool
    start: int
    end: int
    text: str | None
    sha256: bytes
    tokens: int
    heading_path: tuple[str, ...]


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


def prepare(held: Claim) -> None:
    """Parse, chunk and stage one version, then queue the job for embedding.

    Raises ParseError or IngestError for a document that cannot be read, LostLease when another worker has the job.
    """
    started = time.monotonic()
    timings = {"queued_ms": milliseconds(max(0.0, time.time() - held.created_at.timestamp()))}
    with tenancy.scope(held.tenant_id):
        if db.rows("superseded", document=held.document_id, version=held.version)[0][0]:
            ledger.own(held)
            db.run("clear_stage", document=held.document_id, version=held.version)
            ledger.finish(held, outcome=IngestionJob.Outcome.SUPERSEDED)
            return
        version = DocumentVersion.objects.get(document_id=held.document_id, version=held.version)
        collection = Collection.objects.select_related("space").get(id=held.collection_id)
        original = b"".join(bytes(row[0]) for row in db.rows("blob", document=held.document_id, version=held.version))
    with ledger.leased(held):
        parsed = parse_sandboxed(original, media_type=version.media_type, filename=version.filename or None)
        del original
        timings["parse_ms"] = milliseconds(time.monotonic() - started)
        parsed_at = time.monotonic()
        with tenancy.scope(held.tenant_id, durable=False):
            _, base, _ = ledger.own(held)
            db.run("processing", document=held.document_id, version=held.version)
            if held.fence > 1:  # an earlier try may have staged something
                db.run("clear_stage", document=held.document_id, version=held.version)
            keep_text(held, collection, parsed, title=version.title)
            chunks = cut(held, collection, parsed, live=live_chunks(held) if base else {})
            count = 0
            while some := list(islice(chunks, STAGE_ROWS)):
                stage(held, some)
                count += len(some)
            timings |= {"chunk_ms": milliseconds(time.monotonic() - parsed_at), "chunks": count}
            ledger.hand_over(held, stage=ledger.Stage.EMBED, base_version=base, timings=timings)
    metrics.STAGE_SECONDS.labels(stage="prepare").observe(time.monotonic() - started)


def live_chunks(held: Claim) -> LiveChunks:
    """Inside a scope: what the new version is compared with."""
    live: LiveChunks = defaultdict(deque)
    for chunk_id, digest, heading_path in db.rows("live_chunks", document=held.document_id):
        live[bytes(digest), tuple(heading_path)].append(chunk_id)
    return live


def cut(held: Claim, collection: Collection, parsed: Parsed, *, live: LiveChunks) -> Iterator[StagedChunk]:
    """The chunks of a version; one that is live already keeps its row and carries no text. Raises IngestError `empty`
    when there are none."""
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
    ordinal = -1
    for ordinal, span in enumerate(spans):
        text = parsed.text[span.start : span.end]
        digest = hashlib.sha256(text.encode()).digest()
        same = live.get((digest, span.heading_path))
        kept = bool(same)
        yield StagedChunk(
            ordinal=ordinal,
            chunk_id=same.popleft() if same else uuid5(held.document_id, f"{held.version}/{ordinal}"),
            kept=kept,
            start=span.start,
            end=span.end,
            text=None if kept else text,
            sha256=digest,
            tokens=span.tokens,
            heading_path=span.heading_path,
        )
    if ordinal < 0:
        raise IngestError("empty", "The document has no text.")


def keep_text(held: Claim, collection: Collection, parsed: Parsed, *, title: str) -> None:
    """Inside a scope: the version's normalised text, and what made it."""
    db.run(
        "keep_text",
        document=held.document_id,
        version=held.version,
        text=parsed.text,
        characters=len(parsed.text),
        title=title or (parsed.title or "")[:500],
        parser=parsed.parser,
        chunker=chunker_fingerprint(collection),
        media_type=parsed.media_type,
    )


def stage(held: Claim, chunks: Sequence[StagedChunk], *, vectors: Mapping[bytes, str] | None = None) -> None:
    """Inside a scope: chunks to the stage, with the vectors of their texts (pgvector's text form, by digest) where
    they are known."""
    known = vectors or {}
    db.run(
        "stage",
        document=held.document_id,
        version=held.version,
        tenant=held.tenant_id,
        ordinals=[each.ordinal for each in chunks],
        chunk_ids=[each.chunk_id for each in chunks],
        kept=[each.kept for each in chunks],
        starts=[each.start for each in chunks],
        ends=[each.end for each in chunks],
        texts=[each.text for each in chunks],
        sha256s=[each.sha256 for each in chunks],
        tokens=[each.tokens for each in chunks],
        heading_paths=[json.dumps(each.heading_path) for each in chunks],
        embeddings=[None if each.kept else known.get(each.sha256) for each in chunks],
    )


def chunker_fingerprint(collection: Collection) -> str:
    """What the chunks of a version were cut with: recorded, so that a change of settings can be told apart."""
    strategy = CHUNKERS[collection.chunking_strategy]
    return f"{strategy}:{collection.chunking_max_tokens}:{collection.chunking_overlap_tokens}"


def milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 1)
