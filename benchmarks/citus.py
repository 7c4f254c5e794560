"""What a search and a read of one document pay for going through a Citus coordinator.

    DATABASE_URL=postgresql://ragsite_owner@COORDINATOR/ragsite BENCH_ROWS=200000 python -m benchmarks citus

For each number of shards the vectors of `partitions` in a table of that many, with a vector index each. The dense leg
of a search, one transaction as the product sends it (tenancy.snapshot), through the coordinator; then the same
statement of each shard alone, sent to its worker directly. And one document's row, through the coordinator and from its
worker. By turns; of each query the fastest of its turns counts, because all nodes share this machine with whatever else
it does.
"""

from __future__ import annotations

import io
import os
import statistics
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import UUID

from django.db import connection, connections
from psycopg import sql

from apps.access import keys, nodes, tenancy
from apps.access.sql import execute, reading_from
from apps.documents import collections, engines, spaces, vector_index
from apps.documents.accept import Submission, accept
from apps.documents.db import vector_text
from apps.documents.engines import CitusEngine
from apps.documents.models import Collection, EmbeddingSpace
from apps.retrieval.scopes import scopes_of
from apps.retrieval.statement import choose, index_settings, legs_of
from apps.retrieval.types import SearchQuery

from .library import DIMENSIONS
from .partitions import CHUNKS_PER_DOCUMENT, ROWS, TURNS, Floats, K, _blocks, _questions
from .stack import Clock, fake_house

SHARDS = [int(number) for number in os.environ.get("BENCH_SHARDS", "16,32").split(",")]
DOCUMENTS = 200


class Shards(CitusEngine):
    """Tables of so many shards, whatever the documents' have."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.found = count

    def create_sharded(self, editor: Any, create_sql: str, table: str, key: str, **options: Any) -> None:
        editor.execute("SET LOCAL citus.multi_shard_modify_mode TO 'sequential'", params=None)
        editor.execute(create_sql, params=None)
        spread = f"'{table}', '{key}', shard_count => {self.found}, colocate_with => 'none'"
        editor.execute(f"SELECT create_distributed_table({spread})", params=None)


def run(data: Path) -> Iterator[tuple[str, str, str]]:
    if engines.engine_for(connection).name != "citus":
        raise SystemExit("DATABASE_URL is no Citus cluster")
    asked, nearest = _questions()
    for count in SHARDS:
        engine = Shards(count)
        with patch.dict(engines._found, {"owner": engine, "default": engine}):
            yield from _fan_out(count, asked, nearest)
    yield _routed()


def _fan_out(count: int, asked: Floats, nearest: list[set[int]]) -> Iterator[tuple[str, str, str]]:
    collection, space = _filled(count)
    query = SearchQuery("", mode="dense", k=K)
    with tenancy.snapshot(collection.tenant_id):
        scopes = scopes_of([collection.slug])
        legs, _, parameters = legs_of(scopes, query, asked[0], choose(scopes, query))
        wanted = index_settings(scopes, query)
    statement = "WITH " + legs["dense_index"].rstrip(",") + " SELECT chunk_id FROM dense"
    with connections["owner"].cursor() as cursor:
        cursor.execute(
            "SELECT shard_name(%s::regclass, shardid), nodename, nodeport FROM pg_dist_shard_placement"
            " JOIN pg_dist_shard USING (shardid) WHERE logicalrelid = %s::regclass ORDER BY shardid",
            [space.table, space.table],
        )
        shards = [(name, nodes.Node(host, port, 0)) for name, host, port in cursor.fetchall()]
    assert len(shards) == count
    vectors = [parameters | {"vector": vector_text(vector)} for vector in asked]

    def search(text: str, alias: str, each: dict[str, Any]) -> set[int]:
        with reading_from(alias), tenancy.snapshot(collection.tenant_id):
            tenancy.set_local(wanted)
            return {row[0].int for row in execute(text, each).fetchall()}

    whole: dict[int, list[float]] = defaultdict(list)
    alone: dict[tuple[int, str], list[float]] = defaultdict(list)
    found = [search(statement, "default", each) for each in vectors]
    recall = statistics.mean(len(rows & right) / K for rows, right in zip(found, nearest, strict=True))
    texts = {name: statement.replace(space.table, name) for name, _ in shards}
    for name, node in shards:
        nodes.connected(node)
        search(texts[name], node.alias, vectors[0])
    for _ in range(TURNS):
        for number, each in enumerate(vectors):
            with Clock() as clock:
                search(statement, "default", each)
            whole[number].append(clock.seconds)
            for name, node in shards:
                with Clock() as clock:
                    search(texts[name], node.alias, each)
                alone[number, name].append(clock.seconds)
    through = statistics.median(min(times) for times in whole.values()) * 1000
    by_query = [max(min(alone[number, name]) for name, _ in shards) for number in range(len(vectors))]
    every = [sum(min(alone[number, name]) for name, _ in shards) for number in range(len(vectors))]
    slowest, total = statistics.median(by_query) * 1000, statistics.median(every) * 1000
    yield (
        f"{ROWS} vectors, top {K} over {count} shards, p50",
        "<= slowest shard + 2 ms",
        f"{through:.2f} ms; slowest shard {slowest:.2f} (+{through - slowest:.2f} ms), all one after the other"
        f" {total:.2f}; recall {recall:.3f}, ef_search {wanted['hnsw.ef_search']}",
    )


def _filled(count: int) -> tuple[Collection, EmbeddingSpace]:
    slug = f"shards-{count}"
    tenant = keys.ensure_tenant(slug=slug)
    space = EmbeddingSpace.objects.filter(slug=slug).first()
    if space is None:
        space = spaces.create(slug=slug, backend="fake", model="fake", dimensions=DIMENSIONS)
        with tenancy.scope(tenant.id):
            collections.create(tenant_id=tenant.id, slug=slug, name=slug, space=slug)
            collection = collections.find(slug)
        with connections["owner"].cursor() as cursor:
            cursor.execute(f'DROP INDEX "{vector_index.index_name(space)}"')
            session = cursor.connection
            columns = "document_id, chunk_id, tenant_id, collection_id, live, embedding"
            copy = sql.SQL(f"COPY {{}} ({columns}) FROM STDIN").format(sql.Identifier(space.table))
            for start, vectors in _blocks():
                with session.cursor().copy(copy) as rows:
                    for number, vector in enumerate(vectors, start):
                        document = UUID(int=(number // CHUNKS_PER_DOCUMENT) << 64)
                        mine = (document, UUID(int=number), tenant.id, collection.id, True, vector_text(vector))
                        rows.write_row(mine)
            vector_index.index_concurrently(space)
            cursor.execute(f'ANALYZE "{space.table}"')
        with tenancy.scope(tenant.id):
            Collection.objects.filter(slug=slug).update(chunks=ROWS, documents=ROWS // CHUNKS_PER_DOCUMENT)
    with tenancy.scope(tenant.id):
        return collections.find(slug), space


def _routed() -> tuple[str, str, str]:
    """Of one document: all its columns by its id."""
    collection, _ = fake_house("routed")
    ids = []
    for number in range(DOCUMENTS):
        content = io.BytesIO(b"%d" % number)
        submission = Submission(content=content, media_type="text/plain", filename="", source_uri=str(number))
        with tenancy.scope(collection.tenant_id):
            ids.append(accept(collection=collection, submission=submission, wake=False).document.id)
    statement = "SELECT * FROM {} WHERE id = %(id)s"
    through: dict[UUID, list[float]] = defaultdict(list)
    direct: dict[UUID, list[float]] = defaultdict(list)
    places = {}
    with connections["owner"].cursor() as cursor:
        for document in ids:
            cursor.execute(
                "SELECT shard_name('documents_document'::regclass, shardid), nodename, nodeport"
                " FROM pg_dist_shard_placement"
                " WHERE shardid = get_shard_id_for_distribution_column('documents_document', %s::uuid)",
                [document],
            )
            name, host, port = cursor.fetchone()
            places[document] = statement.format(name), nodes.Node(host, port, 0)
            nodes.connected(places[document][1])

    def read(text: str, alias: str, document: UUID) -> None:
        with reading_from(alias), tenancy.snapshot(collection.tenant_id):
            assert len(execute(text, {"id": document}).fetchall()) == 1

    for turn in range(TURNS + 1):
        for document in ids:
            with Clock() as clock:
                read(statement.format("documents_document"), "default", document)
            if turn:
                through[document].append(clock.seconds)
            text, node = places[document]
            with Clock() as clock:
                read(text, node.alias, document)
            if turn:
                direct[document].append(clock.seconds)
    ours = statistics.median(min(times) for times in through.values()) * 1000
    theirs = statistics.median(min(times) for times in direct.values()) * 1000
    return (
        "one document by its id, p50",
        "<= direct + 1 ms",
        f"{ours:.2f} ms; direct {theirs:.2f} (+{ours - theirs:.2f} ms)",
    )
