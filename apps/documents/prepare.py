"""Stage one: read originals, cut them into chunks, and stage what is new.

A document's live chunks are found again by their text's digest and their headings, in reading order: such a chunk keeps
its row and its index entries, and only chunks that an edit touched are embedded (invariant I9). Small documents are
prepared many at a time, in one transaction.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any
from uuid import UUID, uuid5

from django.db import transaction

from . import db, ledger, metrics, revisions, words
from .chunking import CHUNKERS, chunk
from .errors import IngestError
from .ledger import Claim
from .models import Collection, IngestionJob
from .parsing import Parsed, ParseError
from .parsing.sandbox import parse_sandboxed
from .spaces import embedder_for

JOBS_PER_CLAIM = 100
BATCH_BYTES = 4 * 2**20  # of documents prepared in one transaction; a larger one goes alone
STAGE_ROWS = 1_000  # chunks written per statement: bounds the memory that a large document takes

#: Ids of a document's live chunks by what makes a chunk the same: its text's digest and its headings.
LiveChunks = dict[tuple[bytes, tuple[str, ...]], deque[UUID]]
Failures = list[tuple[Claim, Exception]]


@dataclass(frozen=True, slots=True)
class Original:
    """A version as it was sent."""

    held: Claim
    data: bytes
    media_type: str
    filename: str


@dataclass(frozen=True, slots=True)
class Text:
    """A version that has been parsed; `seconds` is how long that took."""

    held: Claim
    parsed: Parsed
    seconds: float


@dataclass(frozen=True, slots=True)
class StagedChunk:
    """A chunk of a version on its way; `start` and `end` are code points of the version's text. words: what
    its lexemes are made from, where that is not the text."""

    document_id: UUID
    version: int
    ordinal: int
    chunk_id: UUID
    kept: bool
    start: int
    end: int
    text: str | None
    words: str | None
    sha256: bytes
    tokens: int
    heading_path: tuple[str, ...]


def drain(*, job_id: UUID | None = None) -> int:
    """Prepare due jobs until there are none; only `job_id`, which the caller then embeds itself, where given.

    Returns how many were claimed.
    """
    if job_id is not None:
        return _work(ledger.claim(stage=ledger.Stage.PREPARE, job_id=job_id), wake=False)
    return sum(map(_work, ledger.claims(stage=ledger.Stage.PREPARE, limit=JOBS_PER_CLAIM)))


def _work(claims: list[Claim], *, wake: bool = True) -> int:
    with ledger.leased(*claims):
        for group in ledger.groups(claims, size=lambda held: held.bytes, most=BATCH_BYTES):
            ledger.together(prepare, group)
            if wake:
                ledger.wake(ledger.Stage.EMBED)
    return len(claims)


def prepare(claims: Sequence[Claim]) -> None:
    """Parse, chunk and stage versions of one collection in one transaction, then queue their jobs for embedding; new
    versions, or live ones that are reindexed.

    A document that cannot be read fails by itself. Raises LostLease when other workers have all of the jobs.
    """
    waited = {held.id: metrics.milliseconds(max(0.0, time.time() - held.created_at.timestamp())) for held in claims}
    with ledger.scope(claims):
        collection = Collection.objects.select_related("space", "second_space").get(id=claims[0].collection_id)
        originals = _originals(_end_superseded(claims))
    texts, failed = parse_all(originals)
    if texts:
        stage_texts = _stage_anew if claims[0].is_reindex else _stage_texts
        stage_texts(texts, collection, failed, waited)
    fail(failed)


def _end_superseded(claims: Sequence[Claim]) -> list[Claim]:
    """End the jobs for which a newer version has been accepted, and reindexes of what is live no more; returns the
    others."""
    if claims[0].is_reindex:
        superseded = revisions.superseded(claims)
    else:
        superseded = {row[0] for row in db.rows("superseded", **ledger.versions_of(claims))}
    ended = [held for held in claims if held.document_id in superseded]
    if ended:
        owned = [each.held for each in ledger.own(ended)]
        ledger.clear(owned)
        ledger.finish(owned, outcome=IngestionJob.Outcome.SUPERSEDED)
    return [held for held in claims if held.document_id not in superseded]


def _originals(claims: Sequence[Claim]) -> list[Original]:
    described = {row[0]: row[1:] for row in db.rows("versions", **ledger.versions_of(claims))}
    parts: dict[UUID, list[bytes]] = defaultdict(list)
    for document_id, part in db.rows("blobs", **ledger.versions_of(claims)):
        parts[document_id].append(part)
    return [Original(held, b"".join(parts.pop(held.document_id, ())), *described[held.document_id]) for held in claims]


def parse_all(originals: list[Original]) -> tuple[list[Text], Failures]:
    """The texts, and why others cannot be read. Empties the list: a large original is in memory once."""
    texts: list[Text] = []
    failed: Failures = []
    while originals:
        original = originals.pop()
        started = time.monotonic()
        try:
            parsed = parse_sandboxed(original.data, media_type=original.media_type, filename=original.filename or None)
        except ParseError as error:
            failed.append((original.held, error))
        else:
            texts.append(Text(original.held, parsed, time.monotonic() - started))
        del original
    return texts, failed


def fail(failed: Failures) -> None:
    """Tell the ledger."""
    for held, reason in failed:
        with ledger.failures(held):
            raise reason


def _stage_texts(texts: list[Text], collection: Collection, failed: Failures, waited: Mapping[UUID, float]) -> None:
    """One transaction; a text without a chunk is added to `failed`."""
    started = time.monotonic()
    with ledger.scope([text.held for text in texts], durable=False):
        owned = {each.held.id: each for each in ledger.own([text.held for text in texts])}
        texts = [text for text in texts if text.held.id in owned]
        claims = [text.held for text in texts]
        if len(claims) == 1:
            db.run("processing", document=claims[0].document_id, version=claims[0].version)
        if again := [held for held in claims if held.fence > 1]:  # an earlier try may have staged something
            db.run("clear_stage", **ledger.versions_of(again))
        keep_texts(texts, collection)
        live = live_chunks([held.document_id for held in claims if owned[held.id].live_version])
        counts: dict[UUID, int] = {}
        found = cut_all(texts, collection, live=live, counts=counts, failed=failed)
        while some := list(islice(found, STAGE_ROWS)):
            stage(some)
        ready = [text for text in texts if text.held.id in counts]
        ledger.hand_over(
            [text.held for text in ready],
            stage=ledger.Stage.EMBED,
            bases=[owned[text.held.id].base for text in ready],
            timings=_timings(ready, waited, counts, started),
        )


def _stage_anew(texts: list[Text], collection: Collection, failed: Failures, waited: Mapping[UUID, float]) -> None:
    """The same of reindexed versions, beside what is live; one that comes out as it is needs no more."""
    started = time.monotonic()
    with ledger.scope([text.held for text in texts], durable=False):
        owned = {each.held.id: each for each in ledger.own([text.held for text in texts])}
        claims = _end_superseded([each.held for each in owned.values()])  # once more, with the documents locked
        texts = [text for text in texts if text.held in claims]
        if not texts:
            return
        ledger.clear(claims)  # an earlier try may have staged something
        live = live_chunks([held.document_id for held in claims])
        stored = revisions.compare([text.held for text in texts], [text.parsed.text for text in texts])
        counts: dict[UUID, int] = {}
        changed: list[Text] = []
        for text in texts:
            now, coming = stored[text.held.document_id], owned[text.held.id].live_revision + 1
            told = (now.title, now.page_starts, now.page_numbers)
            same = now.same_text and told == (title_of(text.parsed), *pages(text.parsed))
            found = cut_all([text], collection, live=live, counts=counts, failed=failed, revision=coming)
            found = revisions.changed(found, now, same=same)
            while some := list(islice(found, STAGE_ROWS)):
                stage(some)
                if text not in changed:
                    changed.append(text)
        _keep_coming(changed, collection, stored)
        _end_unchanged([text for text in texts if text.held.id in counts and text not in changed], collection)
        ledger.hand_over(
            [text.held for text in changed],
            stage=ledger.Stage.EMBED,
            bases=[owned[text.held.id].base for text in changed],
            timings=_timings(changed, waited, counts, started),
        )


def _timings(
    texts: Sequence[Text], waited: Mapping[UUID, float], counts: Mapping[UUID, int], started: float
) -> list[dict[str, float]]:
    chunk_ms = metrics.milliseconds(time.monotonic() - started)
    return [
        {
            "queued_ms": waited[text.held.id],
            "parse_ms": metrics.milliseconds(text.seconds),
            "chunk_ms": chunk_ms,
            "chunks": counts[text.held.id],
        }
        for text in texts
    ]


def _keep_coming(texts: Sequence[Text], collection: Collection, stored: Mapping[UUID, revisions.Live]) -> None:
    if texts:
        db.run(
            "keep_coming",
            **_columns(texts, collection),
            texts=[None if stored[text.held.document_id].same_text else text.parsed.text for text in texts],
            characters=[len(text.parsed.text) for text in texts],
        )


def _end_unchanged(texts: Sequence[Text], collection: Collection) -> None:
    if texts:
        db.run("made_again", **_columns(texts, collection))
        ledger.finish([text.held for text in texts], outcome=IngestionJob.Outcome.UNCHANGED)
        transaction.on_commit(lambda: metrics.JOBS_ENDED.labels(outcome="unchanged").inc(len(texts)))


def live_chunks(documents: Sequence[UUID]) -> Mapping[UUID, LiveChunks]:
    """Inside a scope: what new versions are compared with, by document."""
    live: dict[UUID, LiveChunks] = defaultdict(lambda: defaultdict(deque))
    for document_id, chunk_id, digest, heading_path in db.rows("live_chunks", documents=documents) if documents else ():
        live[document_id][bytes(digest), tuple(heading_path)].append(chunk_id)
    return live


def cut_all(
    texts: Sequence[Text],
    collection: Collection,
    *,
    live: Mapping[UUID, LiveChunks],
    counts: dict[UUID, int],
    failed: Failures,
    revision: int = 0,
) -> Iterator[StagedChunk]:
    """The chunks of versions, one after another; their number goes to `counts` by job, a text without any to
    `failed`."""
    for text in texts:
        held = text.held
        alive = live[held.document_id]
        at: dict[str, Any] = {"document_id": held.document_id, "version": held.version, "revision": revision}
        for each in cut(text.parsed, collection, **at, live=alive):
            counts[text.held.id] = each.ordinal + 1
            yield each
        if text.held.id not in counts:
            failed.append((text.held, IngestError("empty", "The document has no text.")))


def cut(
    parsed: Parsed, collection: Collection, *, document_id: UUID, version: int, live: LiveChunks, revision: int = 0
) -> Iterator[StagedChunk]:
    """The chunks of a version; one that is live already keeps its row and carries no text."""
    whole = parsed.text
    name = f"{version}.{revision}" if revision else f"{version}"  # of two revisions no new chunks have the same ids
    embedder = embedder_for(collection.space)
    # What a model does not read it cannot find: no chunk is longer than it takes, whatever the collection says.
    limit = min(collection.chunking_max_tokens, embedder.max_tokens)
    spans = chunk(
        whole,
        parsed.blocks,
        strategy=collection.chunking_strategy,
        max_tokens=limit,
        overlap_tokens=min(collection.chunking_overlap_tokens, (limit - 1) // 2),
        heading_level=collection.chunking_heading_level,
        count=embedder.count,
        embed=embedder.embed,
    )
    for ordinal, span in enumerate(spans):
        content = whole[span.start : span.end]
        digest = hashlib.sha256(content.encode()).digest()
        same = live.get((digest, span.heading_path))
        kept = bool(same)
        yield StagedChunk(
            document_id=document_id,
            version=version,
            ordinal=ordinal,
            chunk_id=same.popleft() if same else uuid5(document_id, f"{name}/{ordinal}"),
            kept=kept,
            start=span.start,
            end=span.end,
            text=None if kept else content,
            words=None if kept else _words(content),
            sha256=digest,
            tokens=span.tokens,
            heading_path=span.heading_path,
        )


def _words(text: str) -> str | None:
    read = words.to_index(text)
    return None if read is text else read


def keep_texts(texts: Sequence[Text], collection: Collection) -> None:
    """Inside a scope: the versions' normalised texts, and what made them."""
    db.run("keep_text", **_columns(texts, collection), texts=[text.parsed.text for text in texts])


def _columns(texts: Sequence[Text], collection: Collection) -> dict[str, Any]:
    """What the rows of versions and revisions have in common, as parameters of a query."""
    starts, numbers = zip(*(pages(text.parsed) for text in texts), strict=True)
    return {
        **ledger.versions_of([text.held for text in texts]),
        "titles": [title_of(text.parsed) for text in texts],
        "parsers": [text.parsed.parser for text in texts],
        "media_types": [text.parsed.media_type for text in texts],
        "page_starts": list(map(_array, starts)),
        "page_numbers": list(map(_array, numbers)),
        "notes": [json.dumps(text.parsed.notes) for text in texts],
        "chunker": chunker_fingerprint(collection),
    }


def title_of(parsed: Parsed) -> str:
    """The content's own title, "" for none."""
    return (parsed.title or "")[:500]


def pages(parsed: Parsed) -> tuple[list[int], list[int | None]] | tuple[None, None]:
    """(where a page of the text begins, its number, None from where a part has no pages), or (None, None) for a text
    without pages. In an archive each part counts its own pages; a page without text is not told."""
    starts: list[int] = []
    numbers: list[int | None] = []
    for block in parsed.blocks:
        if block.page != (numbers[-1] if numbers else None):
            starts.append(block.start)
            numbers.append(block.page)
    return (starts, numbers) if starts else (None, None)


def _array(numbers: Sequence[int | None] | None) -> str | None:
    """For string_to_array: lists of different lengths cannot be sent as one, and Citus updates no row by a cast to an
    array."""
    return None if numbers is None else ",".join("NULL" if each is None else str(each) for each in numbers)


def stage(chunks: Sequence[StagedChunk]) -> None:
    """Inside a scope: chunks to the stage, without vectors."""
    db.run(
        "stage",
        documents=[each.document_id for each in chunks],
        versions=[each.version for each in chunks],
        ordinals=[each.ordinal for each in chunks],
        chunk_ids=[each.chunk_id for each in chunks],
        kept=[each.kept for each in chunks],
        starts=[each.start for each in chunks],
        ends=[each.end for each in chunks],
        texts=[each.text for each in chunks],
        words=[each.words for each in chunks],
        sha256s=[each.sha256 for each in chunks],
        tokens=[each.tokens for each in chunks],
        heading_paths=[json.dumps(each.heading_path) for each in chunks],
    )


def chunker_fingerprint(collection: Collection) -> str:
    """What the chunks of a version were cut with: recorded, so that a change of settings can be told apart."""
    made = f"{CHUNKERS[collection.chunking_strategy]}:{collection.chunking_max_tokens}"
    made += f":{collection.chunking_overlap_tokens}"
    return made + (f":h{collection.chunking_heading_level}" if collection.chunking_strategy == "heading" else "")
