"""Vector graphs (HNSW) kept as good as they were built.

What is updated leaves a dead entry in the graph until VACUUM removes it. Searches visit it and leave it out: they look
further around meanwhile (`dead_share`). VACUUM would do worse: it gives new neighbours to whatever pointed to what it
removes, which takes longer than building the graph anew and finds less afterwards (benchmarks/RESULTS.md). So the graph
is built anew first, beside the old one, which serves until then, and VACUUM finds nothing in it to mend. Autovacuum is
told to come later (spaces.create), for where nothing of this runs.

Lists of vectors (IVFFlat) are as good as the rows that their centroids were made from: `tend_lists` makes them anew
when there are twice or half as many rows, and `rebuild_lists` when the rows have become others (drift).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from django.db import Error, connection, connections
from django.utils import timezone

from . import partitions, vector_index
from .engines import Part, engine_for
from .models import EmbeddingSpace

logger = logging.getLogger(__name__)

MOST_DEAD = 0.1  # of a graph's entries
FEWEST_DEAD = 1_000  # entries; of fewer nobody notices anything
LONGEST_DAYS = 7  # that removed rows wait for VACUUM: they are still in the files until then
LOOKED_AT_SECONDS = 30
GROWN = 2  # times as many lists as there are, or as few, are wanted by now
FEWEST_ROWS = 10_000  # of the fullest partition, before a first IVFFlat index is built

_shares: dict[str, tuple[float, float]] = {}  # by table: (when, share)
_looking: set[str] = set()


def dead_share(space: EmbeddingSpace) -> float:
    """Which part of the space's vector index is dead, 0 to 1, by PostgreSQL's statistics; 0 before this process has
    looked. While it searches it looks every half minute, but no search waits for that: on a cluster each node is asked,
    and one that does not answer would hold it up.
    """
    table = space.table
    looked_at, share = _shares.get(table, (0.0, 0.0))
    if (not looked_at or time.monotonic() > looked_at + LOOKED_AT_SECONDS) and table not in _looking:
        _looking.add(table)
        threading.Thread(target=_look_beside, args=(table,), daemon=True).start()
    return share


def look(table: str) -> float:
    """Outside of a transaction: find out now what `dead_share` tells of a space's table."""
    parts = [part for part in engine_for(connection).parts(connection, table) if part.valid]
    dead, entries = sum(part.dead for part in parts), sum(part.entries or 0 for part in parts)
    share = dead / (dead + entries) if entries else 0.0  # not analysed yet: too few to matter
    _shares[table] = (time.monotonic(), share)
    return share


def _look_beside(table: str) -> None:
    try:
        look(table)
    except Error as error:  # the next search tries again
        logger.info("nothing is known of the dead entries of %s: %s", table, error)
    finally:
        _looking.discard(table)
        connection.close()


def tend(*, using: str = "owner") -> list[str]:
    """Build every graph anew that holds too many dead entries, and vacuum its table; only vacuum one in which few have
    been dead for long. Returns the tables' names.

    Searches and writes go on meanwhile. Interrupted, it leaves an index that is not valid, which the next time removes.
    """
    tended: list[str] = []
    for space in EmbeddingSpace.objects.using(using).filter(index_method=EmbeddingSpace.Index.HNSW):
        with _whatever_comes_of(space, using=using):
            for part in _remembered(space, using=using):
                share = part.dead / max(1, part.dead + (part.entries or 0))
                worn = part.dead >= FEWEST_DEAD and share >= MOST_DEAD
                waited = part.dead > 0 and _days_since_vacuum(space, part) > LONGEST_DAYS
                began = time.monotonic()
                if part.valid and not part.phase and (worn or waited) and _tend(space, part, anew=worn, using=using):
                    tended.append(part.name)
                    done, took = "built anew" if worn else "vacuumed", time.monotonic() - began
                    logger.info("%s: %.1f %% of the graph were dead; %s in %.1f s", part.name, share * 100, done, took)
    return tended


@contextmanager
def _whatever_comes_of(space: EmbeddingSpace, *, using: str) -> Iterator[None]:
    """The care of one space does not end that of the others: it is logged, and the next time tries again."""
    try:
        yield
    except Exception:
        logger.exception("the vector index of the space %s could not be cared for", space)
        connections[using].close_if_unusable_or_obsolete()


def _remembered(space: EmbeddingSpace, *, using: str) -> list[Part]:
    """What holds the space's rows. After a crash PostgreSQL has forgotten how many are dead: ANALYZE finds out."""
    connection = connections[using]
    engine = engine_for(connection)
    parts = engine.parts(connection, space.table)
    forgotten = [part for part in parts if part.forgotten and not part.phase]
    if not forgotten:
        return parts
    with vector_index.index_lock(connection, space, wait=False) as ours:  # ANALYZE would wait for a build
        for part in forgotten if ours else []:
            engine.run(connection, part, f'ANALYZE "{part.name}"')
    return engine.parts(connection, space.table)


def _days_since_vacuum(space: EmbeddingSpace, part: Part) -> float:
    """At most so many: a table that was never vacuumed cannot have waited since before it was made."""
    if part.days_since_vacuum is not None:
        return part.days_since_vacuum
    return (timezone.now() - space.created_at).total_seconds() / 86400


def _tend(space: EmbeddingSpace, part: Part, *, anew: bool, using: str) -> bool:
    """Outside of a transaction. False when another process is at this space's index."""
    connection = connections[using]
    with vector_index.index_lock(connection, space, wait=False) as ours:
        if not ours:
            return False
        if anew:
            with vector_index.building(connection, space):
                vector_index.build_anew(connection, space, part)
        else:
            vector_index.drop_broken(connection, part)
            vector_index.vacuum(connection, part)
    return True


def tend_lists(*, using: str = "owner") -> list[str]:
    """Build the IVFFlat indexes anew, concurrently, whose number of lists fits their rows no more, whose last build was
    interrupted, and those that were never built though there are rows. Returns the spaces' slugs."""
    connection = connections[using]
    engine = engine_for(connection)
    tended: list[str] = []
    spaces_of_lists = EmbeddingSpace.objects.using(using).filter(
        index_method=EmbeddingSpace.Index.IVFFLAT, state=EmbeddingSpace.State.LIVE
    )
    for space in spaces_of_lists:
        with _whatever_comes_of(space, using=using):
            rows, lists = engine.rows(connection, space.table), space.index_parameters.get("lists")
            wanted = vector_index.lists_for(rows)
            if not vector_index.is_indexed(space, using=using):
                if rows >= FEWEST_ROWS:
                    vector_index.index_concurrently(space, using=using)
                    tended.append(space.slug)
            elif _is_due(space, wanted, lists, using=using) and rebuild_lists(space, using=using):
                tended.append(space.slug)
    return tended


def _is_due(space: EmbeddingSpace, wanted: int, lists: int | None, *, using: str) -> bool:
    if lists and max(wanted, lists) >= GROWN * min(wanted, lists):
        return True
    parts = engine_for(connections[using]).parts(connections[using], space.table)
    return any(part.mark == partitions.MARK for part in parts)


def rebuild_lists(space: EmbeddingSpace, *, using: str = "owner") -> bool:
    """Make an IVFFlat space's centroids anew from its rows, partition by partition, while it is searched and written
    to. False when another process is at its index."""
    began, before = time.monotonic(), space.index_parameters.get("lists")
    if not partitions.rebuild(space, wait=False, using=using):
        return False
    lists, took = space.index_parameters["lists"], time.monotonic() - began
    logger.info("%s: %s lists made anew as %d in %.1f s", space.slug, before, lists, took)
    return True
