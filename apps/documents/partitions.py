"""What the tables' partitions (on a cluster: shards) hold, and building their vector indexes anew, one by one.

Rebuilding, while searches and writes go on (`manage.py partitions rebuild-index`):

1. The index of each partition that is to be built gets a comment, MARK. This is all that is remembered, and it is kept
   by PostgreSQL with the index: whoever starts after a crash sees which ones are left.
2. One partition after another: what an interrupted build left is dropped; REINDEX CONCURRENTLY, or CREATE INDEX
   CONCURRENTLY where there is none; VACUUM (see index_care.py); the mark is taken away.
3. Where there was no index over all partitions, a plain CREATE INDEX puts one over theirs, in a moment. (On a cluster
   step 2 makes the first index of all shards by one statement.)

A killed build leaves an index that is not valid and that no search uses. The old one serves until the new one is there.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from django.db import DatabaseError, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from . import vector_index
from .engines import Part, engine_for
from .models import Blob, Chunk, Document, DocumentVersion, EmbeddingSpace, StagedChunk, VersionRevision

MARK = "to be built anew"
SECONDS = 2.0  # between two lines about how far a build is
TABLES = tuple(model._meta.db_table for model in (Document, DocumentVersion, VersionRevision, Blob, Chunk, StagedChunk))

Told = Callable[[str], None]


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
    processors: int | None = None,
    wait: bool = True,
    using: str = "owner",
    told: Told = lambda _: None,
) -> list[str]:
    """Outside of a transaction: build the space's vector index anew, of all partitions or of one by its number. Returns
    the names of those built; none where another process is at the index, and `wait` is not set. processors: as for
    `vector_index.building`. told: is given a line for each step and, every few seconds, how far it is.

    What an earlier call was killed at is finished first, and no more is done then. Raises NoSuchPartition.
    """
    connection = connections[using]
    with (
        _alone(connection, space, told, wait=wait) as alone,
        vector_index.building(connection, space, processors=processors),
    ):
        if not alone:
            return []
        parts = _parts(connection, space, told)
        if not vector_index.is_indexed(space, using=using):
            vector_index.clear_unfinished(connection, space)
            parts = _parts(connection, space, told)
        due = _due(connection, space, parts, number, told)
        lists = _lists(connection, space, due)
        for place, part in enumerate(due, 1):
            told(f"{part.name}: {place} of {len(due)}")
            with _watched(connection, space, part, told):
                vector_index.build_anew(connection, space, part)
            _mark(connection, part, "NULL")
        if lists and number is None and not any(part.problem for part in parts):
            vector_index.set_lists(space, lists, using=using)
        _put_over(connection, space, told)
    return [part.name for part in due]


@contextmanager
def _alone(connection: BaseDatabaseWrapper, space: EmbeddingSpace, told: Told, *, wait: bool) -> Iterator[bool]:
    with contextlib.ExitStack() as stack:
        alone = stack.enter_context(vector_index.index_lock(connection, space, wait=False))
        if wait and not alone:
            told(f"another process is at the index of {space.slug}: waiting for it")
            alone = stack.enter_context(vector_index.index_lock(connection, space))
        yield alone


def _parts(connection: BaseDatabaseWrapper, space: EmbeddingSpace, told: Told) -> list[Part]:
    """What is built one after the other, once nobody builds there any more: a node of a cluster may still be at what it
    was given by one who was killed since."""
    engine, waiting = engine_for(connection), ""
    while busy := [part for part in engine.parts(connection, space.table) if part.phase]:
        if waiting != busy[0].name:
            waiting = busy[0].name
            told(f"{waiting}: another build is going on: waiting for it")
        time.sleep(SECONDS)
    there = vector_index.is_indexed(space, using=connection.alias)
    return (engine.parts if there else engine.indexable)(connection, space.table)


def _due(
    connection: BaseDatabaseWrapper, space: EmbeddingSpace, parts: list[Part], number: int | None, told: Told
) -> list[Part]:
    """The partitions to be built; their indexes, where they have one, are marked."""
    if number is not None and not 0 <= number < len(parts):
        raise NoSuchPartition(f"{space.slug} has the partitions 0 to {len(parts) - 1}, not {number}")
    for part in parts:
        if part.problem:
            told(f"{part.name} on {part.node} is left out: {part.problem}")
    there = [part for part in parts if not part.problem]
    if number is not None:
        due = [part for part in there if part is parts[number]]
    else:
        due = [part for part in there if not part.valid or part.mark == MARK]
        if due and len(due) < len(parts):
            told(f"{len(due)} of {len(parts)} were left by a build that was interrupted")
        elif not due and vector_index.is_indexed(space, using=connection.alias):
            due = there
    for part in due:
        _mark(connection, part, f"'{MARK}'")
    return due


def _mark(connection: BaseDatabaseWrapper, part: Part, comment: str) -> None:
    if part.valid:
        engine_for(connection).run(connection, part, f'COMMENT ON INDEX "{part.index}" IS {comment}')


def _lists(connection: BaseDatabaseWrapper, space: EmbeddingSpace, due: list[Part]) -> int:
    """Lists of the IVFFlat indexes to be built, by the rows there are; 0 for HNSW. While some are built and some are
    not, searches take all for the finer ones: they look into more of the others, and not into less."""
    if space.index_method != EmbeddingSpace.Index.IVFFLAT:
        return 0
    lists = vector_index.lists_of(connection, space)
    there = [part for part in due if part.valid]
    before = int(space.index_parameters.get("lists", 1)) if there else 1
    vector_index.set_lists(space, max(lists, before), using=connection.alias)
    if there:
        for index in engine_for(connection).defined(vector_index.index_name(space), there):
            vector_index.patiently(connection, f'ALTER INDEX "{index}" SET (lists = {lists})')
    return lists


def _put_over(connection: BaseDatabaseWrapper, space: EmbeddingSpace, told: Told) -> None:
    if vector_index.is_indexed(space, using=connection.alias):
        return
    parts = engine_for(connection).parts(connection, space.table)
    if missing := sum(not part.valid for part in parts):
        told(f"{missing} partitions have no index yet: none is over all of them")
    else:
        vector_index.put_over(connection, space)
        told(f"{vector_index.index_name(space)} is over all partitions now")


@contextmanager
def _watched(connection: BaseDatabaseWrapper, space: EmbeddingSpace, part: Part, told: Told) -> Iterator[None]:
    """While the block runs a second session looks how far the first one's build is."""
    over, engine, whole = threading.Event(), engine_for(connection), part.name == space.table

    def building(own: BaseDatabaseWrapper) -> list[Part]:
        if whole:  # a build waits where the table is known before it is given to the shards
            return [*engine.indexable(own, space.table), *engine.parts(own, space.table)]
        return [each for each in engine.parts(own, space.table) if each.name == part.name]

    def watch() -> None:
        own = connections[connection.alias]
        try:
            with contextlib.suppress(DatabaseError):
                before: dict[str, tuple[str, float | None]] = {}
                while not over.wait(SECONDS):
                    for each in building(own):
                        now = (each.phase or "", each.done)
                        if each.phase and now != before.get(each.name):
                            before[each.name] = now
                            told(f"{each.name}: {each.phase}" + ("" if each.done is None else f", {each.done:.0f} %"))
        finally:
            own.close()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
