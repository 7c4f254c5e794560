"""Embedding spaces: their tables, and the embedder behind each.

A space's table holds one narrow row per chunk (no text, so that TOAST never comes into the hot path). Tables
are made here, and their indexes in vector_index.py, as the owner: an operator's act, not a migration.
"""

from __future__ import annotations

import re
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import connections

from apps.access.problems import Problem
from apps.access.roles import grant_after_migrate
from apps.access.tenancy import wall_sql

from .embedding import Embedder, EmbeddingError, get_embedder
from .engines import engine_for
from .models import EmbeddingSpace
from .vector_index import about_rows, create_index, ensure_index, index_lock, index_name, is_indexed

MAX_DIMENSIONS = {"halfvec": 4_000, "vector": 2_000}  # what pgvector's HNSW and IVFFlat can index
#: Of a table with a graph, which VACUUM does not do good: index_care.py comes first.
LATE_AUTOVACUUM = "autovacuum_vacuum_scale_factor = 0.5, autovacuum_vacuum_insert_threshold = -1"
HNSW_DEFAULTS = {"m": 16, "ef_construction": 64}  # pgvector's own


def embedder_for(space: EmbeddingSpace) -> Embedder:
    """The embedder of a space, one per process.

    Raises EmbeddingError `unusable_model` where the settings or the dimensions do not fit, `wrong_revision` when the
    weights found here are not those that the space was made with: vectors of two models must never meet in one index.
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
    try:
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
    except ValueError as error:
        raise EmbeddingError("unusable_model", f"The space {space}: {error}", retryable=False) from error


def column_type(space: EmbeddingSpace) -> str:
    """The SQL type of the space's vectors, such as halfvec(384)."""
    return f"{space.storage}({space.dimensions})"


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
    """A new live space with its table; HNSW is indexed at once, IVFFlat by `partitions.rebuild` after a load. Backend,
    model and dimensions are those of the settings unless they are named.

    binary: the index holds one bit for each dimension, and searches compare what it finds again by the vectors.
    Raises ValidationError on bad values, such as more than 4,000 dimensions (halfvec; 2,000 for vector), which
    pgvector cannot index, or a slug that is taken; Problem 422 `unusable_model` where the local or the fake backend has
    no such model, or not so many dimensions of it.
    """
    space = EmbeddingSpace(
        slug=slug,
        backend=backend or settings.EMBEDDING_BACKEND,
        model=model or settings.EMBEDDING_MODEL,
        dimensions=settings.EMBEDDING_DIMENSIONS if dimensions is None else dimensions,
        index_method=index_method,
        storage=storage,
        metric=metric,
        index_parameters=(index_parameters or (dict(HNSW_DEFAULTS) if index_method == "hnsw" else {}))
        | ({"binary": True} if binary else {}),
        state=EmbeddingSpace.State.LIVE,
    )
    space.full_clean(validate_unique=False)
    _check(space, using)
    try:
        space.revision = _embedder(space).revision
    except EmbeddingError as error:
        # A model that is not at hand yet is found out when a build begins; one of ours that there is not, now.
        if error.code == "unusable_model" and space.backend != "openai":
            raise Problem(422, error.code, str(error)) from error
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
            parameters=LATE_AUTOVACUUM if index_method == EmbeddingSpace.Index.HNSW else "",
        )
        for statement in wall_sql(connection, space.table, forced=engine.forced_walls):
            editor.execute(statement, params=None)
        # The exact path: all live vectors of a few collections (see retrieval).
        editor.execute(
            f'CREATE INDEX "{space.table}_collection" ON "{space.table}" (collection_id) WHERE live',
            params=None,
        )
        if index_method == EmbeddingSpace.Index.HNSW:
            create_index(editor, space)
        space.save(using=using, force_insert=True)
    grant_after_migrate(using=using)
    return space


def _check(space: EmbeddingSpace, using: str) -> None:
    limit = MAX_DIMENSIONS[space.storage]
    if not 1 <= space.dimensions <= limit:
        raise ValidationError(f"{space.storage} can be indexed from 1 to {limit} dimensions, not {space.dimensions}")
    for found in EmbeddingSpace.objects.using(using).all():
        if _is_or_of(space.table, found.table) or _is_or_of(found.table, space.table):
            raise ValidationError(
                f"the space {found} has the relation {space.table}, or its like, already", code="taken"
            )


def _is_or_of(name: str, table: str) -> bool:
    """Is it the name of the table, or one that a partition, a shard or an index of it may have?"""
    return bool(re.fullmatch(rf"{re.escape(table)}(_(p\d+|\d{{6,}}|vectors|collection|pkey)(_.*)?)?", name))


def begin_filling(space: EmbeddingSpace, *, coming: int, using: str = "owner") -> None:
    """Before many vectors come to a space that answers nowhere: load first, index after. Takes the index of one that is
    nearly empty away; `index_concurrently` brings it back. Not where it is or was complete for a collection of any
    tenant, whose canary it may answer, and which may promote it: `keep_index` holds against this."""
    connection = connections[using]

    def pays() -> bool:
        space.state = EmbeddingSpace.objects.using(using).values_list("state", flat=True).get(pk=space.pk)
        if space.state == EmbeddingSpace.State.BUILDING or about_rows(connection, space) >= max(1, coming):
            return False
        with connection.cursor() as cursor:
            cursor.execute("SELECT serving + complete FROM space_uses() WHERE space_id = %s", [space.id])
            return bool(cursor.fetchone()[0] == 0)

    if not pays():  # without the lock, which somebody may have for hours
        return
    with index_lock(connection, space), connection.schema_editor() as editor:
        editor.execute("SELECT pg_advisory_xact_lock(hashtextextended('filling ' || %s, 0))", [str(space.id)])
        if pays():
            set_state(space, EmbeddingSpace.State.BUILDING, using=using)
            editor.execute(f'DROP INDEX IF EXISTS "{index_name(space)}"', params=None)


def go_live(space: EmbeddingSpace, *, using: str = "owner") -> bool:
    """Write down that the space's index is built; False where somebody has taken it away since."""
    with index_lock(connections[using], space):
        indexed = is_indexed(space, using=using)
        if indexed:
            set_state(space, EmbeddingSpace.State.LIVE, using=using)
    return indexed


def set_state(space: EmbeddingSpace, state: str, *, using: str = "owner") -> None:
    EmbeddingSpace.objects.using(using).filter(pk=space.pk).update(state=state)
    space.state = state


def empty(space: EmbeddingSpace, *, using: str = "owner") -> bool:
    """Of a space that no collection has any more: no row, and a state that says so. False while its index is built,
    which TRUNCATE would wait for, and which would wait for TRUNCATE."""
    connection = connections[using]
    with index_lock(connection, space, wait=False) as ours:
        if not ours:
            return False
        with connection.cursor() as cursor:
            cursor.execute(f'TRUNCATE "{space.table}"')
        set_state(space, EmbeddingSpace.State.RETIRED, using=using)
    return True


def analyze(space: EmbeddingSpace, *, using: str = "owner") -> None:
    """After many rows have come: let the planner know. Autovacuum would, within minutes."""
    with connections[using].cursor() as cursor:
        cursor.execute(f'ANALYZE "{space.table}"')


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
