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
import time

from django.db import connection, connections

from . import partitions
from .engines import GraphEntries, engine_for
from .models import EmbeddingSpace
from .vector_index import building, drop_invalid, index_concurrently, index_lock, is_indexed, lists_for

logger = logging.getLogger(__name__)

MOST_DEAD = 0.1  # of a graph's entries
FEWEST_DEAD = 1_000  # entries; of fewer nobody notices anything
LONGEST_DAYS = 7  # that removed rows wait for VACUUM: they are still in the files until then
LOOKED_AT_SECONDS = 30
GROWN = 2  # times as many lists as there are, or as few, are wanted by now
FEWEST_ROWS = 10_000  # of the fullest partition, before a first IVFFlat index is built

_shares: dict[str, tuple[float, float]] = {}  # by table: (when, share)


def dead_share(space: EmbeddingSpace) -> float:
    """Which part of the space's vector index is dead, as it was within the last half minute: 0 to 1, by the statistics
    of PostgreSQL. On a cluster, whose nodes have these, always 0."""
    now = time.monotonic()
    looked_at, share = _shares.get(space.table, (0.0, 0.0))
    if not looked_at or now > looked_at + LOOKED_AT_SECONDS:
        graphs = engine_for(connection).graph_entries(connection, space.table)
        dead, entries = sum(graph.dead for graph in graphs), sum(graph.entries for graph in graphs)
        share = dead / (dead + entries) if entries else 0.0  # not analysed yet: too few to matter
        _shares[space.table] = (now, share)
    return share


def tend(*, using: str = "owner") -> list[str]:
    """Build every graph anew that holds too many dead entries, and vacuum its table; only vacuum one in which few have
    been dead for long. Returns the tables' names.

    Searches and writes go on meanwhile. Interrupted, it leaves an index that is not valid, which the next time removes.
    """
    connection = connections[using]
    tended = []
    for space in EmbeddingSpace.objects.using(using).filter(index_method=EmbeddingSpace.Index.HNSW):
        for graph in engine_for(connection).graph_entries(connection, space.table):
            share = graph.dead / max(1, graph.dead + graph.entries)
            worn = graph.dead >= FEWEST_DEAD and share >= MOST_DEAD
            waited = graph.dead > 0 and graph.days_since_vacuum > LONGEST_DAYS
            began = time.monotonic()
            if (worn or waited) and _tend(space, graph, anew=worn, using=using):
                tended.append(graph.table)
                done, took = "built anew" if worn else "vacuumed", time.monotonic() - began
                logger.info("%s: %.1f %% of the graph were dead; %s in %.1f s", graph.table, share * 100, done, took)
    return tended


def _tend(space: EmbeddingSpace, graph: GraphEntries, *, anew: bool, using: str) -> bool:
    """Outside of a transaction. False when another process is at this space's index."""
    connection = connections[using]
    with index_lock(connection, space, wait=False) as ours, connection.cursor() as cursor:
        if not ours:
            return False
        drop_invalid(cursor, graph.table)
        if anew:
            with building(connection, space) as build:
                build.execute(f"REINDEX INDEX CONCURRENTLY {graph.index}")
        cursor.execute(f"VACUUM (INDEX_CLEANUP ON) {graph.table}")
    return True


def tend_lists(*, using: str = "owner") -> list[str]:
    """Build the IVFFlat indexes anew, concurrently, whose number of lists fits their rows no more, and those that were
    never built though there are rows. Returns the spaces' slugs."""
    connection = connections[using]
    engine = engine_for(connection)
    tended: list[str] = []
    if engine.name != "postgres":
        return tended
    spaces_of_lists = EmbeddingSpace.objects.using(using).filter(
        index_method=EmbeddingSpace.Index.IVFFLAT, state=EmbeddingSpace.State.LIVE
    )
    for space in spaces_of_lists:
        rows, lists = engine.rows(connection, space.table), space.index_parameters.get("lists")
        wanted = lists_for(rows)
        if not is_indexed(space, using=using):
            if rows >= FEWEST_ROWS:
                index_concurrently(space, using=using)
                tended.append(space.slug)
        elif lists and max(wanted, lists) >= GROWN * min(wanted, lists) and rebuild_lists(space, using=using):
            tended.append(space.slug)
    return tended


def rebuild_lists(space: EmbeddingSpace, *, using: str = "owner") -> bool:
    """Make an IVFFlat space's centroids anew from its rows, partition by partition, while it is searched and written
    to. False when another process is at its index."""
    began, before = time.monotonic(), space.index_parameters.get("lists")
    if not partitions.rebuild(space, wait=False, using=using):
        return False
    lists, took = space.index_parameters["lists"], time.monotonic() - began
    logger.info("%s: %s lists made anew as %d in %.1f s", space.slug, before, lists, took)
    return True
