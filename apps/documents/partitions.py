"""What the tables' partitions (on a cluster: shards) hold, and building their vector indexes anew, one by one.

Rebuilding, while searches and writes go on (`manage.py partitions rebuild-index`):

1. The index of each partition that is to be built gets a comment, MARK. This is all that is remembered, and it is kept
   by PostgreSQL with the index: whoever starts after a crash sees which ones are left.
2. One partition after another: what an interrupted build left is dropped; REINDEX CONCURRENTLY, or CREATE INDEX
   CONCURRENTLY where there is none; VACUUM (see index_care.py); the mark is taken away.
3. Where there was no index over all partitions, a plain CREATE INDEX puts one over theirs, in a moment.

A killed build leaves an index that is not valid and that no search uses. The old one serves until the new one is there.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from django.db import DatabaseError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper

from . import vector_index
from .engines import Part, engine_for
from .models import Blob, Chunk, Document, DocumentVersion, EmbeddingSpace, StagedChunk, VersionRevision

MARK = "to be built anew"
SECONDS = 2.0  # between two lines about how far a build is
TABLES = tuple(model._meta.db_table for model in (Document, DocumentVersion, VersionRevision, Blob, Chunk, StagedChunk))

Told = Callable[[str], None]

#: The valid vector indexes of tables, with what is written about each.
INDEXES = """
SELECT x.indrelid::regclass::text, format('%%I', i.relname), coalesce(obj_description(i.oid, 'pg_class'), '')
FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_am a ON a.oid = i.relam
WHERE x.indrelid = ANY(%s::regclass[]) AND x.indisvalid AND a.amname IN ('hnsw', 'ivfflat')
"""
PROGRESS = """
SELECT phase, CASE WHEN blocks_total > 0 THEN 100 * blocks_done / blocks_total
                   WHEN tuples_total > 0 THEN 100 * tuples_done / tuples_total END
FROM pg_stat_progress_create_index WHERE pid = %s
"""


class NoSuchPartition(ValueError):
    """A number that no partition has."""


def status(*, using: str = "owner") -> list[tuple[str, str, list[Part]]]:
    """(space's slug, '' for the tables of documents; table; its partitions), spaces first."""
    connection = connections[using]
    found = EmbeddingSpace.objects.using(using).order_by("created_at")
    tables = [(space.slug, space.table) for space in found] + [("", table) for table in TABLES]
    return [(slug, table, engine_for(connection).parts(connection, table)) for slug, table in tables]


def rebuild(
    space: EmbeddingSpace,
    *,
    number: int | None = None,
    wait: bool = True,
    using: str = "owner",
    told: Told = lambda _: None,
) -> list[str]:
    """Outside of a transaction: build the space's vector index anew, of all partitions or of one by its number. Returns
    the names of those built; none where another process is at the index, and `wait` is not set. told: is given a line
    for each step and, every few seconds, how far it is.

    What an earlier call was killed at is finished first, and no more is done then. Raises NoSuchPartition.
    """
    connection = connections[using]
    with _alone(connection, space, told, wait=wait) as alone, vector_index.building(connection, space) as cursor:
        if not alone:
            return []
        leaves = engine_for(connection).partitions(connection, space.table)
        due = _due(cursor, space, leaves, number, told)
        lists = _lists(connection, space, any(due.values()))
        for place, (leaf, index) in enumerate(due.items(), 1):
            told(f"{leaf}: {place} of {len(due)}")
            with _watched(connection, leaf, told):
                _build(cursor, space, leaf, index, lists)
        if lists and number is None:
            vector_index.set_lists(space, lists, using=using)
        _put_over(cursor, space, leaves, told)
    return list(due)


@contextmanager
def _alone(connection: BaseDatabaseWrapper, space: EmbeddingSpace, told: Told, *, wait: bool) -> Iterator[bool]:
    with contextlib.ExitStack() as stack:
        alone = stack.enter_context(vector_index.index_lock(connection, space, wait=False))
        if wait and not alone:
            told(f"another process is at the index of {space.slug}: waiting for it")
            alone = stack.enter_context(vector_index.index_lock(connection, space))
        yield alone


def _due(
    cursor: CursorWrapper, space: EmbeddingSpace, leaves: list[str], number: int | None, told: Told
) -> dict[str, str | None]:
    """{partition to be built: its index, None where it has none that is valid}; the indexes are marked."""
    if number is not None and not 0 <= number < len(leaves):
        raise NoSuchPartition(f"{space.slug} has the partitions 0 to {len(leaves) - 1}, not {number}")
    cursor.execute(INDEXES, [leaves])
    found = {leaf: (index, mark) for leaf, index, mark in cursor.fetchall()}
    if number is not None:
        due = [leaves[number]]
    else:
        due = [leaf for leaf in leaves if leaf not in found or found[leaf][1] == MARK]
        if due and len(due) < len(leaves):
            told(f"{len(due)} of {len(leaves)} were left by a build that was interrupted")
        elif not due and vector_index.is_indexed(space, using=cursor.db.alias):
            due = leaves
    indexes = {leaf: found[leaf][0] if leaf in found else None for leaf in due}
    for index in filter(None, indexes.values()):
        cursor.execute(f"COMMENT ON INDEX {index} IS '{MARK}'")
    return indexes


def _lists(connection: BaseDatabaseWrapper, space: EmbeddingSpace, is_there: bool) -> int:
    """Lists of the IVFFlat indexes to be built, by the rows there are; 0 for HNSW. While some are built and some are
    not, searches take all for the finer ones: they look into more of the others, and not into less."""
    if space.index_method != EmbeddingSpace.Index.IVFFLAT:
        return 0
    lists = vector_index.lists_of(connection, space)
    before = int(space.index_parameters.get("lists", 1)) if is_there else 1
    vector_index.set_lists(space, max(lists, before), using=connection.alias)
    return lists


def _build(cursor: CursorWrapper, space: EmbeddingSpace, leaf: str, index: str | None, lists: int) -> None:
    vector_index.drop_invalid(cursor, leaf)
    if index is None:
        name = vector_index.index_name(space) if leaf == space.table else vector_index.leaf_index(leaf)
        cursor.execute(vector_index.index_sql(space, leaf, name=name, concurrently=True))
    else:
        if lists:
            vector_index.patiently(cursor, f"ALTER INDEX {index} SET (lists = {lists})")
        cursor.execute(f"REINDEX INDEX CONCURRENTLY {index}")
    cursor.execute(f"VACUUM (INDEX_CLEANUP ON) {leaf}")
    if index is not None:
        cursor.execute(f"COMMENT ON INDEX {index} IS NULL")


def _put_over(cursor: CursorWrapper, space: EmbeddingSpace, leaves: list[str], told: Told) -> None:
    if vector_index.is_indexed(space, using=cursor.db.alias):
        return
    cursor.execute(INDEXES, [leaves])
    there = {leaf for leaf, _, _ in cursor.fetchall()}
    if there == set(leaves):
        vector_index.put_over(cursor, space)
        told(f"{vector_index.index_name(space)} is over all partitions now")
    else:
        told(f"{len(leaves) - len(there)} partitions have no index yet: none is over all of them")


@contextmanager
def _watched(connection: BaseDatabaseWrapper, leaf: str, told: Told) -> Iterator[None]:
    """While the block runs a second session looks how far the first one's build is."""
    pid, over = connection.connection.info.backend_pid, threading.Event()

    def watch() -> None:
        own = connections[connection.alias]
        try:
            with contextlib.suppress(DatabaseError), own.cursor() as cursor:
                before = None
                while not over.wait(SECONDS):
                    cursor.execute(PROGRESS, [pid])
                    now = cursor.fetchone()
                    if now and now != before:
                        before, (phase, done) = now, now
                        told(f"{leaf}: {phase}" + ("" if done is None else f", {done} %"))
        finally:
            own.close()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
