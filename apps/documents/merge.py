"""A first load's fast path: documents that nobody knows yet go from nothing to live in one transaction.

They need no ledger, because they are not accepted before they can be found, and no comparing, because there is nothing
of them. Their rows are copied into temporary tables and merged from there, one statement per table. Whatever is not
plainly new, or cannot be read, is left to the way that all documents go (bulk.put).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any
from uuid import UUID, uuid5

from django.db import connection, connections
from psycopg.types.json import Jsonb

from apps.access import tenancy

from . import attributes, db, embed, metrics
from .accept import Submission
from .collections import hold_spaces
from .engines import engine_for
from .erasure import erased_name
from .errors import SpacesChanged
from .models import Collection
from .parsing import Parsed, ParseError
from .parsing.sandbox import parse_sandboxed
from .prepare import StagedChunk, chunker_fingerprint, cut, pages, title_of
from .spaces import column_type

MERGED, UNCHANGED = "accepted", "unchanged"
DOCUMENT_TYPES = (
    *(
        "uuid",
        "text",
        "text",
        "text",
        "jsonb",
        "text",
        "int8",
        "bytea",
        "text",
        "text",
        "int8",
        "bytea",
        "text",
        "int8",
        "text",
    ),
    *("text", "text", "uuid[]", "int4[]", "int4[]", "int4[]", "int4[]", "jsonb", "timestamptz"),
)
CHUNK_TYPES = (
    "uuid",
    "uuid",
    "int8",
    "text",
    "text",
    "bytea",
    "int4",
    "text[]",
    "bytea",
)  # a vector comes as its bytes


@dataclass(frozen=True, slots=True)
class New:
    """A document that nobody knows yet, read and cut. `name` is its source URI, `sha256` of its `data`."""

    submission: Submission
    id: UUID
    name: str
    data: bytes
    sha256: bytes
    parsed: Parsed
    chunks: list[StagedChunk]


def merge(*, collection: Collection, submissions: Sequence[Submission]) -> list[str | None]:
    """Outside of a scope, for small documents: "accepted" for each that was new and is live now, "unchanged" for each
    that is there just so, None for the others, of which nothing has been stored."""
    if collection.second_space_id:  # whose vectors come with a publish
        return [None] * len(submissions)
    contents = [_content(each) for each in submissions]
    digests = [hashlib.sha256(content).digest() for content in contents]
    names = [
        each.source_uri or each.filename or f"sha256:{digest.hex()}"
        for each, digest in zip(submissions, digests, strict=True)
    ]
    with tenancy.scope(collection.tenant_id, replan=False):
        known = _known(collection, names)
    outcomes: list[str | None] = [None] * len(submissions)
    new: dict[int, New] = {}
    seen: set[str] = set()
    for at, (submission, data, digest, name) in enumerate(zip(submissions, contents, digests, names, strict=True)):
        if name in known:
            if known[name] == (digest, submission.media_type) and _is_bare(submission):
                outcomes[at] = UNCHANGED
        elif submission.id is None and name not in seen and (read := _read(collection, submission, name, data, digest)):
            new[at] = read
        seen.add(name)
    merged: set[UUID] = set()
    coming = iter(new.values())
    with suppress(SpacesChanged):  # what is left goes the way that all documents go
        while some := list(islice(coming, engine_for(connection).batch)):
            merged |= _merge(collection, some)
    outcomes = [MERGED if at in new and new[at].id in merged else told for at, told in enumerate(outcomes)]
    metrics.DOCUMENTS_ACCEPTED.labels(result="unchanged").inc(outcomes.count(UNCHANGED))
    metrics.DOCUMENTS_ACCEPTED.labels(result="accepted").inc(outcomes.count(MERGED))
    return outcomes


def analyze(*, using: str = "owner") -> None:
    """After a load: let the planner know what the tables hold now. Autovacuum would, within some minutes."""
    with connections[using].cursor() as cursor:
        cursor.execute("ANALYZE documents_document (id, tenant_id, collection_id, source_uri)")
        cursor.execute("ANALYZE documents_chunk (document_id, chunk_id, tenant_id, collection_id, sha256)")


def _content(submission: Submission) -> bytes:
    submission.content.seek(0)
    return submission.content.read()


def _is_bare(submission: Submission) -> bool:
    """Does it say nothing but its content?"""
    return submission.id is submission.version is submission.title is submission.metadata is None


def _known(collection: Collection, names: Sequence[str]) -> dict[str, tuple[bytes, str] | None]:
    """Inside a scope: of the names that are taken, the content's digest and media type where it has not failed."""
    rows = db.rows("known_sources", collection=collection.id, source_uris=list(names))
    known = {name: (bytes(digest), kind) if sound else None for name, digest, kind, sound in rows}
    if erased := {erased_name(collection.id, name): name for name in names if name not in known}:
        tombstones = db.rows("known_sources", collection=collection.id, source_uris=list(erased))
        known |= {erased[name]: None for name, *_ in tombstones}
    return known


def _read(collection: Collection, submission: Submission, name: str, data: bytes, digest: bytes) -> New | None:
    document_id = uuid5(collection.id, name)
    try:
        parsed = parse_sandboxed(data, media_type=submission.media_type, filename=submission.filename or None)
    except ParseError:
        return None
    chunks = list(cut(parsed, collection, document_id=document_id, version=submission.version or 1, live={}))
    return New(submission, document_id, name, data, digest, parsed, chunks) if chunks else None


def _merge(collection: Collection, new: list[New]) -> set[UUID]:
    texts = {chunk.sha256: chunk.text for each in new for chunk in each.chunks if chunk.text is not None}
    with tenancy.scope(collection.tenant_id, replan=False):
        vectors = embed.known_vectors(collection.tenant_id, collection.space, texts)
    vectors |= embed.new_vectors(collection.space, {sha: text for sha, text in texts.items() if sha not in vectors})
    return write(collection, new, vectors)


def write(collection: Collection, new: list[New], vectors: embed.Vectors) -> set[UUID]:
    """Outside of a scope: the ids of those that are live now, all but those that others have written meanwhile.

    vectors: of each chunk's text, by its digest.
    """
    chunks = [chunk for each in new for chunk in each.chunks]
    sent = db.vector_bytes([vectors[chunk.sha256] for chunk in chunks], collection.space.storage)
    with tenancy.scope(collection.tenant_id, replan=False):
        hold_spaces(collection)
        names = [each.name for each in new]
        db.rows("lock_sources", collection=collection.id, source_uris=names)
        late = _known(collection, names)
        new = [each for each in new if each.name not in late]
        _copy("load_document", DOCUMENT_TYPES, (_document_row(collection, each) for each in new))
        at: dict[str, Any] = {"tenant": collection.tenant_id, "collection": collection.id, "now": db.clock()}
        merged = {row[0] for row in db.rows("merge_documents", **at)}
        if len(merged) < len(new):  # an id that is taken by a document of another name
            db.run("keep_merged", ids=list(merged))
        db.run("merge_versions", **at, chunker=chunker_fingerprint(collection))
        db.run("merge_blobs", **at)
        rows = [(*_chunk_row(chunk), vector) for chunk, vector in zip(chunks, sent, strict=True)]
        rows = [row for row in rows if row[0] in merged]
        source = f"load_{collection.space.storage}_chunk"
        _copy(source, CHUNK_TYPES, rows)
        db.run("merge_chunks", **at, table=source, language=collection.language)
        db.run("merge_embeddings", **at, table=source, type=column_type(collection.space), into=collection.space.table)
        db.run(
            "bump_epoch",
            collection=collection.id,
            documents=len(merged),
            chunks=len(rows),
            tokens=sum(chunk.tokens for chunk in chunks if chunk.document_id in merged),
        )
    return merged


def _document_row(collection: Collection, new: New) -> tuple[Any, ...]:
    submission, parsed = new.submission, new.parsed
    return (
        new.id,
        new.name,
        submission.title or "",
        title_of(parsed),
        submission.metadata or {},
        attributes.tsvector(collection.tenant_id, submission.metadata or {}),
        submission.version or 1,
        new.sha256,
        submission.media_type,
        submission.filename,
        len(new.data),
        new.data,
        parsed.text,
        len(parsed.text),
        parsed.media_type,
        parsed.parser,
        f"pg:{new.id}/{submission.version or 1}",
        [chunk.chunk_id for chunk in new.chunks],
        [chunk.start for chunk in new.chunks],
        [chunk.end for chunk in new.chunks],
        *pages(parsed),
        Jsonb(parsed.notes),
        submission.source_updated_at,
    )


def _chunk_row(chunk: StagedChunk) -> tuple[Any, ...]:
    return (
        chunk.document_id,
        chunk.chunk_id,
        chunk.version,
        chunk.text,
        chunk.words,
        chunk.sha256,
        chunk.tokens,
        list(chunk.heading_path),
    )


def _copy(table: str, types: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> None:
    """Into a temporary table of this session, which is empty again after the transaction."""
    db.run("create_" + table)
    with connection.connection.cursor() as cursor, cursor.copy(f"COPY {table} FROM STDIN (FORMAT BINARY)") as copy:
        copy.set_types(types)
        for row in rows:
            copy.write_row(row)
