"""What a search pays for partitions, at equal recall: one vector index, or several that are each asked.

    BENCH_ROWS=1000000 BENCH_ARMS=plain,8 python -m benchmarks partitions

An arm is a number of partitions, or `plain` for a table without any, or `8/12/64`: partitions, HNSW's m and
ef_construction. All arms hold the same halfvec(384) vectors, made as the library's are (library.py), each in an
embedding space of its own. Of each: the time its index takes to build with all processors (as `manage.py partitions
rebuild-index --processors N` does, `plain` by CREATE INDEX alone), the index's size, and two ways to search:

- the least hnsw.ef_search that finds BENCH_RECALL of what comparing everything finds;
- what the product sets (retrieval/policy.py).

Times are of the product's own dense leg as it is executed, behind the wall, by one client, by turns of a few queries,
warm. Of each query the fastest of its turns counts, because others may be at work on the machine; beside it stand the
median of all and the processor time of the server, which knows nothing of them. Then the
same search in parallel, of each arm with several partitions (partitions_parallel.py). With `--keep DIR` an arm that is
there with its index is not made again.
"""

from __future__ import annotations

import os
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import md5
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import UUID

import numpy as np
import numpy.typing as npt
import psutil
import psycopg
from django.db import connection, connections

from apps.access import keys, tenancy
from apps.access.sql import execute
from apps.documents import collections, engines, spaces, vector_index
from apps.documents.db import VectorArray, vector_text
from apps.documents.engines import PostgresEngine
from apps.documents.models import Collection, EmbeddingSpace
from apps.retrieval.scopes import scopes_of
from apps.retrieval.statement import choose, index_settings, legs_of
from apps.retrieval.types import SearchQuery

from . import partitions_parallel
from .library import DIMENSIONS, _around, _centres
from .stack import Clock

ROWS = int(os.environ.get("BENCH_ROWS", "200000"))
ARMS = os.environ.get("BENCH_ARMS", "plain,1,4,8,16,32,8/8/64,8/16/128").split(",")
TOPICS = int(os.environ.get("BENCH_TOPICS", str(max(1, ROWS // 200))))  # as many rows of each as in the library
QUERIES = int(os.environ.get("BENCH_QUERIES", "200"))
TURNS = int(os.environ.get("BENCH_TURNS", "6"))
RECALL = float(os.environ.get("BENCH_RECALL", "0.95"))
K, BLOCK, AT_ONCE, CHUNKS_PER_DOCUMENT = 10, 50_000, 2_000, 4
TOGETHER = 20  # queries of an arm before it is the next one's turn
#: hnsw.ef_search, by steps of a tenth.
BREADTHS = sorted({round(1.1**step) for step in range(73)})

Floats = npt.NDArray[np.float32]


class Spread(PostgresEngine):
    """So many partitions (0: none at all), whatever the documents' tables have."""

    def partitions(self, connection: Any, table: str) -> list[str]:
        found = [] if table == "documents_document" else super().partitions(connection, table)
        return found or ([table] if self.count == 0 else [])

    def create_sharded(self, editor: Any, create_sql: str, table: str, key: str, **options: Any) -> None:
        if self.count == 0:
            editor.execute(create_sql, params=None)
        else:
            super().create_sharded(editor, create_sql, table, key, **options)


class Taken:
    """What searches took: (seconds, of them on a processor of the server), by query, then by turn."""

    def __init__(self) -> None:
        self.samples: dict[int, list[tuple[float, float]]] = defaultdict(list)

    def p50(self) -> float:
        """Milliseconds of the median query, each the fastest of its turns."""
        return statistics.median(min(seconds for seconds, _ in turns) for turns in self.samples.values()) * 1000

    def busy(self) -> float:
        """The same of the server's processor."""
        return statistics.median(min(busy for _, busy in turns) for turns in self.samples.values()) * 1000

    def told(self) -> str:
        best = [min(seconds for seconds, _ in turns) for turns in self.samples.values()]
        p95 = statistics.quantiles(best, n=20)[18] * 1000
        all_of_them = statistics.median(seconds for turns in self.samples.values() for seconds, _ in turns) * 1000
        beside = f"all turns {all_of_them:.2f}, server's processor {self.busy():.2f}"
        return f"p50 {self.p50():.2f}, p95 {p95:.2f} ms ({beside})"


@dataclass
class Arm:
    """One table; ways, recall and what was taken are by the name of the way of searching."""

    name: str
    partitions: int
    space: EmbeddingSpace
    collection: Collection
    built: str = "kept"
    ways: dict[str, dict[str, str]] = field(default_factory=dict)
    recall: dict[str, float] = field(default_factory=dict)
    taken: dict[str, Taken] = field(default_factory=dict)
    statement: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)

    def engines(self) -> Any:
        """While this arm is at work: its number of partitions is the product's."""
        engine = Spread(self.partitions)
        engine.found = max(1, self.partitions)
        return patch.dict(engines._found, {"owner": engine, "default": engine})


def run(data: Path) -> Iterator[tuple[str, str, str]]:
    asked, nearest = _questions()
    arms = []
    for name in ARMS:
        arm = _arm(name)
        arms.append(arm)
        with arm.engines():
            megabytes = _megabytes(arm)
            ours = _prepare(arm, asked[0])
            least, arm.recall["least"] = _least(arm, ours, asked, nearest)
            arm.ways = {"least": ours | {"hnsw.ef_search": str(least)}, "ours": ours}
            arm.recall["ours"] = _recall(arm, ours, asked, nearest)
        yield (
            f"{ROWS} vectors, {arm.name}: index",
            "",
            f"{arm.built}, {megabytes} MB; ef_search {least} for {arm.recall['least']:.3f}",
        )
    _take_turns(arms, asked)
    base = arms[0]
    for way, arm in ((way, arm) for way in base.ways for arm in arms):
        over = (arm.taken[way].p50() / base.taken[way].p50(), arm.taken[way].busy() / (base.taken[way].busy() or 1))
        yield (
            f"{ROWS} vectors, {arm.name}: ef_search {arm.ways[way]['hnsw.ef_search']} ({way})",
            "p50 <= 1.5 x the first",
            f"recall@{K} {arm.recall[way]:.3f}, {arm.taken[way].told()}, {over[0]:.2f} x ({over[1]:.2f} x)",
        )
    for arm in arms:
        if arm.partitions > 1 and arm.name.isdigit():
            yield from partitions_parallel.run(arm, asked, TURNS, f"{ROWS} vectors, {arm.name}")


def _arm(name: str) -> Arm:
    partitions, _, parameters = ("0" if name == "plain" else name).partition("/")
    m, _, breadth = (parameters or "16/64").partition("/")
    slug = f"curve-{name}".replace("/", "-")
    arm = Arm(name, int(partitions), EmbeddingSpace(), Collection())
    tenant = keys.ensure_tenant(slug=slug)
    with arm.engines():
        kept = EmbeddingSpace.objects.filter(slug=slug).first()
        arm.space = kept or spaces.create(
            slug=slug,
            backend="fake",
            model="fake",
            dimensions=DIMENSIONS,
            index_parameters={"m": int(m), "ef_construction": int(breadth)},
        )
        with tenancy.scope(tenant.id):
            if not kept:
                collections.create(tenant_id=tenant.id, slug=slug, name=name, space=slug)
            arm.collection = collections.find(slug)
        if not kept:
            _fill(arm)
            _index(arm)
            with tenancy.scope(tenant.id):
                Collection.objects.filter(slug=slug).update(chunks=ROWS, documents=ROWS // CHUNKS_PER_DOCUMENT)
        elif arm.collection.chunks != ROWS:
            raise SystemExit(f"the arm {name} that is kept is unfinished, or another one")
    return arm


def _blocks() -> Iterator[tuple[int, Floats]]:
    """(the first row's number, vectors): the same ones each time. A document has one topic."""
    for first in range(0, ROWS, BLOCK):
        dice = np.random.default_rng([1, first])
        count = min(BLOCK, ROWS - first)
        topics = np.repeat(dice.integers(0, TOPICS, -(-count // CHUNKS_PER_DOCUMENT)), CHUNKS_PER_DOCUMENT)[:count]
        yield first, _around(_centres(TOPICS)[topics], dice).astype(np.float16).astype(np.float32)


def _questions() -> tuple[Floats, list[set[int]]]:
    """Queries, and the rows that are nearest to each: by comparing all."""
    dice = np.random.default_rng(3)
    asked = _around(_centres(TOPICS)[dice.integers(0, TOPICS, QUERIES)], dice).astype(np.float16).astype(np.float32)
    scores, rows = np.empty((QUERIES, 0), np.float32), np.empty((QUERIES, 0), np.int64)
    for first, vectors in _blocks():
        near = asked @ (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).T
        best = np.argpartition(-near, K, axis=1)[:, :K]
        scores = np.hstack([scores, np.take_along_axis(near, best, 1)])
        rows = np.hstack([rows, best + first])
        kept = np.argsort(-scores, axis=1)[:, :K]
        scores, rows = np.take_along_axis(scores, kept, 1), np.take_along_axis(rows, kept, 1)
    return asked, [set(found.tolist()) for found in rows]


def _fill(arm: Arm) -> None:
    with connections["owner"].cursor() as cursor:
        cursor.execute(f'DROP INDEX "{vector_index.index_name(arm.space)}"')
    for start, vectors in _blocks():
        put_vectors(arm.collection, start, vectors)
    with connections["owner"].cursor() as cursor:
        cursor.execute(f'VACUUM ANALYZE "{arm.space.table}"')


def put_vectors(collection: Collection, start: int, vectors: Floats) -> None:
    """Rows with the numbers from `start` into the collection's space, without texts; a chunk's id is its number."""
    space = collection.space
    statement = (
        f'INSERT INTO "{space.table}" SELECT d, c, %(tenant)s, %(collection)s, true, v'
        f" FROM unnest(%(documents)b::uuid[], %(chunks)b::uuid[], %(vectors)b::{spaces.column_type(space)}[])"
        " AS rows (d, c, v)"
    )
    for first in range(0, len(vectors), AT_ONCE):
        some = vectors[first : first + AT_ONCE]
        numbers = range(start + first, start + first + len(some))
        parameters = {
            "tenant": collection.tenant_id,
            "collection": collection.id,
            "documents": [UUID(bytes=md5(b"%d" % (n // CHUNKS_PER_DOCUMENT)).digest()) for n in numbers],
            "chunks": [UUID(int=number) for number in numbers],
            "vectors": VectorArray(list(some), space.storage),
        }
        with tenancy.scope(collection.tenant_id, durable=False):
            execute(statement, parameters)


def _index(arm: Arm) -> None:
    connections["owner"].ensure_connection()
    session = connections["owner"].connection
    leader = busy_seconds(session)
    server = psutil.Process(session.info.backend_pid).parent() if leader() else None

    def busy() -> float:
        """Of the session, and of the workers that have ended."""
        times = server.cpu_times() if server else None
        return leader() + (times.children_user + times.children_system if times else 0.0)

    before = busy()
    with Clock() as clock:
        if arm.partitions:
            vector_index.index_concurrently(arm.space, processors=os.cpu_count())
        else:
            with connections["owner"].schema_editor() as editor:
                vector_index.create_index(editor, arm.space)
    arm.built = f"{clock.seconds:.0f} s ({busy() - before:.0f} s of processors)"


def _megabytes(arm: Arm) -> int:
    with connections["owner"].cursor() as cursor:
        cursor.execute(
            "SELECT sum(pg_relation_size(c.oid)) FROM pg_index x JOIN pg_class c ON c.oid = x.indexrelid"
            " JOIN pg_am a ON a.oid = c.relam WHERE x.indrelid = ANY(%s::regclass[]) AND a.amname = 'hnsw'",
            [engines.engine_for(connections["owner"]).partitions(connections["owner"], arm.space.table)],
        )
        return int(cursor.fetchone()[0]) // 2**20


def _prepare(arm: Arm, vector: Floats) -> dict[str, str]:
    """Keeps the statement and the parameters of a search; the index settings that the product gives it."""
    query = SearchQuery("", mode="dense", k=K)
    with tenancy.scope(arm.collection.tenant_id):
        scopes = scopes_of([arm.collection.slug])
        legs, _, parameters = legs_of(scopes, query, vector, choose(scopes, query))
        (leg,) = legs.values()
        assert "dense_exact" not in legs
        arm.statement = "WITH " + leg.rstrip(",") + " SELECT chunk_id FROM dense"
        arm.parameters = parameters
        return index_settings(scopes, query)


def _each(arm: Arm, wanted: dict[str, str], asked: Floats) -> Iterator[tuple[float, float, set[int]]]:
    """(seconds, seconds on a processor of the server, rows found) of each query."""
    parameters = [arm.parameters | {"vector": vector_text(vector)} for vector in asked]
    with tenancy.scope(arm.collection.tenant_id):
        tenancy.set_local(wanted)
        busy = busy_seconds(connection.connection)
        for each in parameters:
            before = busy()
            with Clock() as clock:
                found = execute(arm.statement, each).fetchall()
            yield clock.seconds, busy() - before, {row[0].int for row in found}


def busy_seconds(session: psycopg.Connection) -> Callable[[], float]:
    """How many seconds the session's server process has been on a processor; 0 where it is on another machine."""
    path = Path(f"/proc/{session.info.backend_pid}/schedstat")
    return lambda: int(path.read_text().split()[0]) / 1e9 if path.exists() else 0.0


def _recall(arm: Arm, wanted: dict[str, str], asked: Floats, nearest: list[set[int]]) -> float:
    found = [len(rows & right) / K for (*_, rows), right in zip(_each(arm, wanted, asked), nearest, strict=True)]
    return statistics.mean(found)


def _least(arm: Arm, ours: dict[str, str], asked: Floats, nearest: list[set[int]]) -> tuple[int, float]:
    """The least breadth that finds enough, and how much it finds."""
    recall: dict[int, float] = {}

    def enough(breadth: int) -> bool:
        recall[breadth] = _recall(arm, ours | {"hnsw.ef_search": str(breadth)}, asked, nearest)
        return recall[breadth] >= RECALL

    low, high = 0, len(BREADTHS) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(BREADTHS[middle]) else (middle + 1, high)
    found = BREADTHS[low]
    return found, recall.get(found) or _recall(arm, ours | {"hnsw.ef_search": str(found)}, asked, nearest)


def _take_turns(arms: list[Arm], asked: Floats) -> None:
    """After a pass that is not counted, which brings the indexes into memory."""
    for arm in arms:
        with arm.engines():
            list(_each(arm, arm.ways["ours"], asked))
    for turn in range(TURNS):
        for first in range(0, len(asked), TOGETHER):
            at = (turn + first // TOGETHER) % len(arms)
            for arm in arms[at:] + arms[:at]:
                for way, wanted in arm.ways.items():
                    samples = arm.taken.setdefault(way, Taken()).samples
                    for number, (seconds, busy, _) in enumerate(_each(arm, wanted, asked[first : first + TOGETHER])):
                        samples[first + number].append((seconds, busy))
    connection.close()
