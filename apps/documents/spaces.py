"""Embedding spaces: their tables, their indexes, and the embedder behind each.

A space's table holds one narrow row per chunk (no text, so that TOAST never comes into the hot path), and one partial
vector index over the live ones. Tables and indexes are made here, as the owner: an operator's act, not a migration.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import OperationalError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.backends.utils import CursorWrapper
from psycopg import errors

from apps.access.roles import grant_after_migrate
from apps.access.tenancy import wall_sql

from .embedding import Embedder, EmbeddingError, get_embedder
from .engines import engine_for
from .models import EmbeddingSpace

OPERATOR_CLASSES = {"cosine": "cosine_ops", "ip": "ip_ops", "l2": "l2_ops"}
OPERATORS = {"cosine": "<=>", "ip": "<#>", "l2": "<->"}
MAX_DIMENSIONS = {"halfvec": 4_000, "vector": 2_000}  # what pgvector's HNSW and IVFFlat can index
#: Of a table with a graph, which VACUUM does not do good: index_care.py comes first.
LATE_AUTOVACUUM = "autovacuum_vacuum_scale_factor = 0.5, autovacuum_vacuum_insert_threshold = -1"
ROWS_PER_LIST = 1_000  # of IVFFlat
HNSW_DEFAULTS = {"m": 16, "ef_construction": 64}  # pgvector's own


def embedder_for(space: EmbeddingSpace) -> Embedder:
    """The embedder of a space, one per process.

    Raises EmbeddingError `wrong_revision` when the weights found here are not those that the space was made with:
    vectors of two models must never meet in one index.
    """
    embedder = _embedder(space)
    if space.revision and embedder.revision != space.revision:
        raise EmbeddingError(
            "wrong_revision",
            f"The space {space.slug} holds vectors of {space.model} {space.revision}; here is {embedder.revision}.",
            retryable=False,
        )
    return embedder


def _embedder(space: EmbeddingSpace) -> Embedder:
    return get_embedder(
        space.backend,
        model=space.model,
        dimensions=space.dimensions,
        url=settings.EMBEDDING_URL or None,
        api_key=settings.EMBEDDING_API_KEY or None,
        cache_dir=settings.EMBEDDING_CACHE_DIR,
        model_dir=settings.EMBEDDING_MODEL_DIR,
        threads=settings.EMBEDDING_THREADS,
    )


def column_type(space: EmbeddingSpace) -> str:
    """The SQL type of the space's vectors, such as halfvec(384)."""
    return f"{space.storage}({space.dimensions})"


def bits(space: EmbeddingSpace, vector: str) -> str:
    """The SQL of a vector's signs, a bit for each dimension: what a space with a binary index is indexed by."""
    return f"(binary_quantize({vector})::bit({space.dimensions}))"


def create(
    *,
    slug: str,
    backend: str | None = None,
    model: str | None = None,
    dimensions: int | None = None,
    index_method: str = "hnsw",
    storage: str = "halfvec",
    metric: str = "cosine",
    index_parameters: dict[str, Any] | None = None,
    binary: bool = False,
    using: str = "owner",
) -> EmbeddingSpace:
    """A new live space with its table; HNSW is indexed at once, IVFFlat by `build_index` after a load. Backend, model
    and dimensions are those of the settings unless they are named.

    binary: the index holds one bit for each dimension, and searches compare what it finds again by the vectors.
    Raises ValidationError on bad values, such as more than 4,000 dimensions (halfvec; 2,000 for vector), which
    pgvector cannot index.
    """
    space = EmbeddingSpace(
        slug=slug,
        backend=backend or settings.EMBEDDING_BACKEND,
        model=model or settings.EMBEDDING_MODEL,
        dimensions=dimensions or settings.EMBEDDING_DIMENSIONS,
        index_method=index_method,
        storage=storage,
        metric=metric,
        index_parameters=(index_parameters or (dict(HNSW_DEFAULTS) if index_method == "hnsw" else {}))
        | ({"binary": True} if binary else {}),
        state=EmbeddingSpace.State.LIVE,
    )
    space.full_clean(validate_unique=False)
    _check(space, using)
    with contextlib.suppress(EmbeddingError, ValueError):  # a model that is not at hand yet is found out later
        space.revision = _embedder(space).revision
    connection = connections[using]
    engine = engine_for(connection)
    with connection.schema_editor() as editor:
        engine.create_sharded(
            editor,
            f'CREATE TABLE "{space.table}" (document_id uuid NOT NULL, chunk_id uuid NOT NULL, tenant_id uuid NOT NULL,'
            f" collection_id uuid NOT NULL, live boolean NOT NULL, embedding {column_type(space)} NOT NULL,"
            " PRIMARY KEY (document_id, chunk_id))",
            space.table,
            "document_id",
            parameters=LATE_AUTOVACUUM if index_method == "hnsw" and engine.name == "postgres" else "",
        )
        for statement in wall_sql(connection, space.table, forced=engine.forced_walls):
            editor.execute(statement, params=None)
        # The exact path: all live vectors of a few collections (see retrieval).
        editor.execute(
            f'CREATE INDEX "{space.table}_collection" ON "{space.table}" (collection_id) WHERE live',
            params=None,
        )
        if index_method == EmbeddingSpace.Index.HNSW:
            _create_index(editor, space)
        space.save(using=using, force_insert=True)
    grant_after_migrate(using=using)
    return space


def _check(space: EmbeddingSpace, using: str) -> None:
    limit = MAX_DIMENSIONS[space.storage]
    if not 1 <= space.dimensions <= limit:
        raise ValidationError(f"{space.storage} can be indexed from 1 to {limit} dimensions, not {space.dimensions}")
    tables = {found.table for found in EmbeddingSpace.objects.using(using).all()}
    if space.table in tables:
        raise ValidationError(f"there is a space with the table {space.table} already", code="taken")


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
        and _about_rows(connection, space) < coming
    )
    if pays:
        with index_lock(connection, space), connection.schema_editor() as editor:
            editor.execute(f'DROP INDEX IF EXISTS "{index_name(space)}"', params=None)
    try:
        yield pays
    finally:
        if is_hnsw:  # also where an earlier load was killed
            ensure_index(space, using=using)


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


def ensure_index(space: EmbeddingSpace, *, using: str = "owner") -> None:
    """Build the space's HNSW index if there is none."""
    connection = connections[using]
    # Two loads may end together, or one while the index is built anew.
    with (
        index_lock(connection, space),
        connection.schema_editor() as editor,
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT to_regclass(%s)", [index_name(space)])
        if cursor.fetchone()[0] is None:
            _create_index(editor, space)


def begin_filling(space: EmbeddingSpace, *, coming: int, using: str = "owner") -> None:
    """Before many vectors come to a space that answers nowhere: load first, index after. Takes the index of one that is
    nearly empty away; `index_concurrently` brings it back."""
    connection = connections[using]
    if space.state == EmbeddingSpace.State.BUILDING:
        return
    with connection.cursor() as cursor:
        cursor.execute("SELECT serving FROM space_uses() WHERE space_id = %s", [space.id])
        serving = cursor.fetchone()[0]
    if serving or _about_rows(connection, space) >= max(1, coming):
        return
    set_state(space, EmbeddingSpace.State.BUILDING, using=using)
    with index_lock(connection, space), connection.schema_editor() as editor:
        editor.execute(f'DROP INDEX IF EXISTS "{index_name(space)}"', params=None)


def set_state(space: EmbeddingSpace, state: str, *, using: str = "owner") -> None:
    EmbeddingSpace.objects.using(using).filter(pk=space.pk).update(state=state)
    space.state = state


def empty(space: EmbeddingSpace, *, using: str = "owner") -> None:
    """Of a space that no collection has any more: no row, and a state that says so."""
    with connections[using].cursor() as cursor:
        cursor.execute(f'TRUNCATE "{space.table}"')
    set_state(space, EmbeddingSpace.State.RETIRED, using=using)


def analyze(space: EmbeddingSpace, *, using: str = "owner") -> None:
    """After many rows have come: let the planner know. Autovacuum would, within minutes."""
    with connections[using].cursor() as cursor:
        cursor.execute(f'ANALYZE "{space.table}"')


def is_indexed(space: EmbeddingSpace, *, using: str = "default") -> bool:
    """Is there a vector index over all of the space's rows? (That of a partitioned table is valid once each partition's
    is.)"""
    with connections[using].cursor() as cursor:
        cursor.execute(
            "SELECT EXISTS (SELECT 1 FROM pg_index WHERE indexrelid = to_regclass(%s) AND indisvalid)",
            [index_name(space)],
        )
        return bool(cursor.fetchone()[0])


def index_concurrently(
    space: EmbeddingSpace, *, using: str = "owner", told: Callable[[str], None] = lambda _: None
) -> None:
    """Outside of a transaction: build the vector index, if there is none, while the space is written to and searched.

    Partition by partition, each of which stays when it is interrupted; the last step puts one index over them, in a
    moment. told: is given the name of each partition before its turn.
    """
    connection = connections[using]
    if space.index_method == EmbeddingSpace.Index.IVFFLAT and not is_indexed(space, using=using):
        set_lists(space, lists_of(connection, space), using=using)
    with index_lock(connection, space), building(connection, space) as cursor:
        if is_indexed(space, using=using):
            return
        whole = [space.table] if engine_for(connection).name == "citus" else []
        for leaf in whole or engine_for(connection).partitions(connection, space.table):
            told(leaf)
            _index_leaf(cursor, space, leaf, name=index_name(space) if whole else leaf_index(leaf))
        if not whole:
            put_over(cursor, space)


@contextlib.contextmanager
def building(connection: BaseDatabaseWrapper, space: EmbeddingSpace) -> Iterator[CursorWrapper]:
    """Outside of a transaction: a cursor in a session that is set to build the space's index, with half of the
    processors, because searches go on. Whoever is killed does not go on building."""
    wanted = build_settings(connection, space) | {
        "client_connection_check_interval": "1s",
        "max_parallel_maintenance_workers": str(max(0, (os.cpu_count() or 1) // 2 - 1)),  # beside the session itself
    }
    with connection.cursor() as cursor:
        try:
            for name, value in wanted.items():
                cursor.execute(f"SET {name} = '{value}'")
            yield cursor
        finally:
            for name in wanted:
                cursor.execute(f"RESET {name}")


def leaf_index(leaf: str) -> str:
    """The name of the vector index that a partition got before there was one over all."""
    return leaf.strip('"') + "_vectors"


def put_over(cursor: CursorWrapper, space: EmbeddingSpace) -> None:
    """One index over those of all partitions, in a moment."""
    patiently(cursor, index_sql(space, f'"{space.table}"', name=index_name(space)))


def patiently(cursor: CursorWrapper, statement: str) -> None:
    """Outside of a transaction: a statement that takes a moment, and has to be alone for it. Others would wait behind
    it for as long as it waits itself: after a second it lets them pass and tries again."""
    while True:
        try:
            cursor.execute("SET lock_timeout = '1s'")
            cursor.execute(statement)
            return
        except OperationalError as error:
            if not isinstance(error.__cause__, errors.LockNotAvailable):
                raise
        finally:
            cursor.execute("RESET lock_timeout")
        time.sleep(1)


def drop_invalid(cursor: CursorWrapper, leaf: str) -> None:
    """What builds of a partition's indexes left when they were interrupted."""
    cursor.execute(
        "SELECT format('%%I', i.relname) FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid"
        " WHERE x.indrelid = %s::regclass AND NOT x.indisvalid",
        [leaf],
    )
    for (broken,) in cursor.fetchall():
        cursor.execute(f"DROP INDEX CONCURRENTLY {broken}")


def _index_leaf(cursor: CursorWrapper, space: EmbeddingSpace, leaf: str, *, name: str) -> None:
    drop_invalid(cursor, leaf)
    cursor.execute("SELECT to_regclass(%s)", [name])
    if cursor.fetchone()[0] is None:
        cursor.execute(index_sql(space, leaf, name=name, concurrently=True))


def index_sql(space: EmbeddingSpace, table: str, *, name: str, concurrently: bool = False) -> str:
    """The statement that makes the space's vector index of a table: names as SQL takes them."""
    if space.index_parameters.get("binary"):
        indexed = f"{bits(space, 'embedding')} bit_hamming_ops"
    else:
        indexed = f"embedding {space.storage}_{OPERATOR_CLASSES[space.metric]}"
    numbers = sorted((name, value) for name, value in space.index_parameters.items() if name != "binary")
    options = ", ".join(f"{name} = {int(value)}" for name, value in numbers)
    how = "CREATE INDEX CONCURRENTLY" if concurrently else "CREATE INDEX"
    return (
        f'{how} "{name}" ON {table} USING {space.index_method} ({indexed})'
        + (f" WITH ({options})" if options else "")
        + " WHERE live"
    )


def _about_rows(connection: BaseDatabaseWrapper, space: EmbeddingSpace) -> int:
    """At most so many vectors, by the size of their table: the owner is behind the wall as well and can count none."""
    return sum(_bytes(connection, space)) // (space.dimensions * (2 if space.storage == "halfvec" else 4))


def _bytes(connection: BaseDatabaseWrapper, space: EmbeddingSpace) -> list[int]:
    """The size of each of the space's partitions."""
    leaves = engine_for(connection).partitions(connection, space.table)
    with connection.cursor() as cursor:
        # (An empty table may have a page for values that are stored out of line.)
        size = "CASE pg_relation_size(name) WHEN 0 THEN 0 ELSE pg_table_size(name) END"
        cursor.execute(f"SELECT {size} FROM unnest(%s::regclass[]) AS name", [leaves])  # noqa: S608
        return [row[0] for row in cursor.fetchall()]


def build_index(*, space: EmbeddingSpace, using: str = "owner") -> dict[str, Any]:
    """Build the vector index anew from the rows there are: IVFFlat's centroids are as good as what they were made from.

    Returns the index's parameters. Holds a lock on the table's writers while it builds.
    """
    connection = connections[using]
    if space.index_method == EmbeddingSpace.Index.IVFFLAT:
        # In a transaction of its own: Citus builds on all shards at once, and lets nothing be written after that.
        # First, because a search that takes the index for finer than it is looks into more of it, and not into less.
        set_lists(space, lists_of(connection, space), using=using)
    with connection.schema_editor() as editor:
        editor.execute(f'DROP INDEX IF EXISTS "{index_name(space)}"', params=None)
        _create_index(editor, space)
    return space.index_parameters


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


def index_name(space: EmbeddingSpace) -> str:
    return f"{space.table}_vectors"


def build_settings(connection: BaseDatabaseWrapper, space: EmbeddingSpace) -> dict[str, str]:
    """Settings of PostgreSQL under which the space's vector index is built."""
    # A graph that fits into memory is built in a tenth of the time. It takes less than twice its partition; not more is
    # set than that, because a parallel build allocates all of it at once.
    needed, spare = 2 * max(_bytes(connection, space)), psutil.virtual_memory().available // 4
    megabytes = min(64 + needed // 2**20, max(64, spare // 2**20))
    return {
        "maintenance_work_mem": f"{megabytes}MB",
        "max_parallel_maintenance_workers": str(os.cpu_count() or 1),
        "min_parallel_table_scan_size": "0",  # partitions seem small, but are many
    }


def _create_index(editor: BaseDatabaseSchemaEditor, space: EmbeddingSpace) -> None:
    for name, value in build_settings(editor.connection, space).items():
        editor.execute(f"SET LOCAL {name} = '{value}'", params=None)
    editor.execute(index_sql(space, f'"{space.table}"', name=index_name(space)), params=None)


def ensure_default_after_migrate(*, using: str, **_: Any) -> None:
    """post_migrate: the first space, from the EMBEDDING_* settings; later, an index that a killed load never built."""
    if using != "owner":
        return
    if EmbeddingSpace.objects.using(using).exists():
        hnsw = EmbeddingSpace.objects.using(using).filter(index_method=EmbeddingSpace.Index.HNSW)
        for space in hnsw.exclude(state=EmbeddingSpace.State.BUILDING):
            ensure_index(space, using=using)
        return
    create(
        slug="default",
        backend=settings.EMBEDDING_BACKEND,
        model=settings.EMBEDDING_MODEL if settings.EMBEDDING_BACKEND != "fake" else "fake",
        dimensions=settings.EMBEDDING_DIMENSIONS,
        using=using,
    )
