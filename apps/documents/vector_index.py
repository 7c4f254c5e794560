"""The vector index of an embedding space: its SQL, and building it, at once or while it serves.

A space has one index (over all partitions of its table), partial over the live rows. Whoever makes or drops it holds
`index_lock`.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator

import psutil
from django.db import OperationalError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from psycopg import errors

from apps.access.tenancy import REACH_THE_SHARDS

from .engines import Part, engine_for
from .models import EmbeddingSpace

OPERATORS = {"cosine": "<=>", "ip": "<#>", "l2": "<->"}
OPERATOR_CLASSES = {"cosine": "cosine_ops", "ip": "ip_ops", "l2": "l2_ops"}
ROWS_PER_LIST = 1_000  # of IVFFlat


def index_name(space: EmbeddingSpace) -> str:
    return f"{space.table}_vectors"


def bits(space: EmbeddingSpace, vector: str) -> str:
    """The SQL of a vector's signs, a bit for each dimension: what a space with a binary index is indexed by."""
    return f"(binary_quantize({vector})::bit({space.dimensions}))"


def index_sql(space: EmbeddingSpace, table: str, *, name: str, concurrently: bool = False) -> str:
    """The statement that makes the space's vector index of a table, or of one of its partitions."""
    if space.index_parameters.get("binary"):
        indexed = f"{bits(space, 'embedding')} bit_hamming_ops"
    else:
        indexed = f"embedding {space.storage}_{OPERATOR_CLASSES[space.metric]}"
    numbers = sorted((name, value) for name, value in space.index_parameters.items() if name != "binary")
    options = ", ".join(f"{name} = {int(value)}" for name, value in numbers)
    how = "CREATE INDEX CONCURRENTLY" if concurrently else "CREATE INDEX"
    return (
        f'{how} "{name}" ON "{table}" USING {space.index_method} ({indexed})'
        + (f" WITH ({options})" if options else "")
        + " WHERE live"
    )


def is_indexed(space: EmbeddingSpace, *, using: str = "default") -> bool:
    """Is there a vector index over all of the space's rows? (That of a partitioned table is valid once each partition's
    is.)"""
    with connections[using].cursor() as cursor:
        cursor.execute(
            "SELECT EXISTS (SELECT 1 FROM pg_index WHERE indexrelid = to_regclass(%s) AND indisvalid)",
            [index_name(space)],
        )
        return bool(cursor.fetchone()[0])


@contextlib.contextmanager
def index_after(space: EmbeddingSpace, *, coming: int, using: str = "owner") -> Iterator[bool]:
    """Load first, index after: while the block runs the space has no vector index, where that pays.

    It does when what is `coming` (vectors, about) is more than what is there; else the block is given False and the
    index stays. Searches of the space are exact scans meanwhile. What a killed process leaves without an index gets one
    with the next load or the next `migrate`.
    """
    connection = connections[using]
    is_hnsw = space.index_method == EmbeddingSpace.Index.HNSW
    pays = (
        is_hnsw
        and engine_for(connection).name == "postgres"  # on a cluster the rows, and the work, are elsewhere
        and about_rows(connection, space) < coming
    )
    if pays:
        with index_lock(connection, space), connection.schema_editor() as editor:
            editor.execute(f'DROP INDEX IF EXISTS "{index_name(space)}"', params=None)
    try:
        yield pays
    finally:
        if is_hnsw:  # also where an earlier load was killed
            ensure_index(space, using=using)


def ensure_index(space: EmbeddingSpace, *, using: str = "owner") -> None:
    """Outside of a transaction: build the space's HNSW index if there is none. Holds a lock on the table's writers
    while it builds."""
    connection = connections[using]
    # Two loads may end together, or one while the index is built anew.
    with index_lock(connection, space):
        if is_indexed(space, using=using):
            return
        clear_unfinished(connection, space)
        with connection.schema_editor() as editor:
            create_index(editor, space)


def clear_unfinished(connection: BaseDatabaseWrapper, space: EmbeddingSpace) -> None:
    """Under `index_lock`, outside of a transaction: drop what interrupted builds left. CREATE INDEX over all partitions
    would take a partition's index that is not valid for its own, and be not valid itself."""
    if not is_indexed(space, using=connection.alias):
        patiently(connection, f'DROP INDEX IF EXISTS "{index_name(space)}"')  # one that is there is not valid
    for part in engine_for(connection).parts(connection, space.table):
        drop_broken(connection, part)


def create_index(editor: BaseDatabaseSchemaEditor, space: EmbeddingSpace) -> None:
    for name, value in build_settings(editor.connection, space).items():
        editor.execute(f"SET LOCAL {name} = '{value}'", params=None)
    editor.execute(index_sql(space, space.table, name=index_name(space)), params=None)


def index_concurrently(
    space: EmbeddingSpace,
    *,
    using: str = "owner",
    processors: int | None = None,
    told: Callable[[str], None] = lambda _: None,
) -> None:
    """Outside of a transaction: build the vector index, if there is none, while the space is written to and searched.

    Partition by partition, each of which stays when it is interrupted; the last step puts one index over them, in a
    moment. processors: as for `building`. told: is given the name of each partition before its turn.
    """
    connection = connections[using]
    if space.index_method == EmbeddingSpace.Index.IVFFLAT and not is_indexed(space, using=using):
        set_lists(space, lists_of(connection, space), using=using)
    with index_lock(connection, space), building(connection, space, processors=processors):
        if is_indexed(space, using=using):
            return
        clear_unfinished(connection, space)
        for part in engine_for(connection).indexable(connection, space.table):
            told(part.name)
            if not part.valid:
                create_on(connection, space, part)
        if not is_indexed(space, using=using):
            put_over(connection, space)


def build_anew(connection: BaseDatabaseWrapper, space: EmbeddingSpace, part: Part) -> None:
    """Under `index_lock`, in `building`: build the index of one partition beside the one that serves, or its first one;
    then VACUUM (see index_care.py)."""
    drop_broken(connection, part)
    if part.valid:
        engine_for(connection).run(connection, part, f'REINDEX INDEX CONCURRENTLY "{part.index}"')
    else:
        create_on(connection, space, part)
    vacuum(connection, part)


def create_on(connection: BaseDatabaseWrapper, space: EmbeddingSpace, part: Part) -> None:
    name = index_name(space) if part.name == space.table else f"{part.name}_vectors"
    engine_for(connection).run(connection, part, index_sql(space, part.name, name=name, concurrently=True))


def vacuum(connection: BaseDatabaseWrapper, part: Part) -> None:
    engine_for(connection).run(connection, part, f'VACUUM (INDEX_CLEANUP ON) "{part.name}"')


def drop_broken(connection: BaseDatabaseWrapper, part: Part) -> None:
    """What builds of a partition's indexes left when they were interrupted. (One whose session has lost us may come to
    its end meanwhile.)"""
    for name in part.broken:
        engine_for(connection).run(connection, part, f'DROP INDEX CONCURRENTLY IF EXISTS "{name}"')


def put_over(connection: BaseDatabaseWrapper, space: EmbeddingSpace) -> None:
    """One index over those of all partitions, in a moment."""
    patiently(connection, index_sql(space, space.table, name=index_name(space)))


def patiently(connection: BaseDatabaseWrapper, statement: str) -> None:
    """Outside of a transaction: a statement that takes a moment, and has to be alone for it. Others would wait behind
    it for as long as it waits itself: after a second it lets them pass and tries again."""
    while True:
        try:
            with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
                cursor.execute(f"{REACH_THE_SHARDS}; SET LOCAL lock_timeout = '1s'")
                cursor.execute(statement)
            return
        except OperationalError as error:
            if not isinstance(error.__cause__, errors.LockNotAvailable):
                raise
        time.sleep(1)


@contextlib.contextmanager
def index_lock(connection: BaseDatabaseWrapper, space: EmbeddingSpace, *, wait: bool = True) -> Iterator[bool]:
    """Outside of a transaction: nobody else makes or drops the space's vector index. False where somebody does, and
    `wait` is not set. Who waits asks again and again: a statement that waited would hold a snapshot, for whose end
    REINDEX CONCURRENTLY waits in turn."""
    name = index_name(space)
    with connection.cursor() as cursor:

        def ask(function: str) -> bool:
            cursor.execute(f"SELECT {function}(hashtextextended(%s, 0))", [name])
            return bool(cursor.fetchone()[0])

        ours = ask("pg_try_advisory_lock")
        while wait and not ours:
            time.sleep(0.2)
            ours = ask("pg_try_advisory_lock")
        try:
            yield ours
        finally:
            if ours:
                ask("pg_advisory_unlock")


@contextlib.contextmanager
def building(
    connection: BaseDatabaseWrapper, space: EmbeddingSpace, *, processors: int | None = None
) -> Iterator[None]:
    """Outside of a transaction: the session is set to build the space's index, with so many processors (None: half of
    them, because searches go on); on a cluster, whose nodes have settings of their own, on one shard of each at a time.
    Whoever is killed does not go on building."""
    processors = processors or (os.cpu_count() or 1) // 2
    wanted = build_settings(connection, space) | {
        "client_connection_check_interval": "1s",
        "citus.max_adaptive_executor_pool_size": "1",
        "max_parallel_maintenance_workers": str(max(0, processors - 1)),  # beside the session itself
    }
    with connection.cursor() as cursor:
        try:
            for name, value in wanted.items():
                cursor.execute(f"SET {name} = '{value}'")
            yield
        finally:
            for name in wanted:
                cursor.execute(f"RESET {name}")


def build_settings(connection: BaseDatabaseWrapper, space: EmbeddingSpace) -> dict[str, str]:
    """Settings of PostgreSQL under which the space's vector index is built."""
    # A graph that fits into memory is built in a tenth of the time. It takes less than twice its partition; not more is
    # set than that, because a parallel build allocates all of it at once. (For a cluster, whose table is empty here,
    # this is nothing: its nodes have settings of their own.)
    with connection.cursor() as cursor:
        leaves = engine_for(connection).partitions(connection, space.table)
        cursor.execute("SELECT max(pg_table_size(name)) FROM unnest(%s::regclass[]) AS name", [leaves])
        needed, spare = 2 * cursor.fetchone()[0], psutil.virtual_memory().available // 4
    megabytes = min(64 + needed // 2**20, max(64, spare // 2**20))
    return {
        "maintenance_work_mem": f"{megabytes}MB",
        "max_parallel_maintenance_workers": str(os.cpu_count() or 1),
        "min_parallel_table_scan_size": "0",  # partitions seem small, but are many
    }


def set_lists(space: EmbeddingSpace, lists: int, *, using: str = "owner") -> None:
    """What an IVFFlat index is built with, and searches take it to have."""
    space.index_parameters |= {"lists": lists}
    EmbeddingSpace.objects.using(using).filter(pk=space.pk).update(index_parameters=space.index_parameters)


def lists_of(connection: BaseDatabaseWrapper, space: EmbeddingSpace) -> int:
    """Lists per index: rows / 1000 up to a million rows, their square root above (pgvector's README)."""
    with connection.cursor() as cursor:
        cursor.execute(f'ANALYZE "{space.table}"')
    # The planner's estimate: the owner is behind the wall as well and could count no rows.
    return lists_for(engine_for(connection).rows(connection, space.table))


def lists_for(rows: int) -> int:
    return max(1, rows // ROWS_PER_LIST if rows <= 1000 * ROWS_PER_LIST else int(rows**0.5))


def about_rows(connection: BaseDatabaseWrapper, space: EmbeddingSpace) -> int:
    """At most so many vectors, by the size of their table: the owner is behind the wall as well and can count none."""
    size = sum(part.table_bytes for part in engine_for(connection).parts(connection, space.table))
    return size // (space.dimensions * (2 if space.storage == "halfvec" else 4))
