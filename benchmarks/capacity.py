"""The constants of `manage.py capacity` (apps/documents/capacity/constants.json), measured and fitted; and what they
say of a size that no fit has seen, beside that size.

    BENCH_CONSTANTS=constants.json python -m benchmarks capacity

1. **Work**: documents of five shapes through the steps of the workers, with HNSW live and the `fake` embedder: what
   they take of processors, and what a document, a chunk and a byte of text leave in the tables. The real model alone.
2. **Growth**: a library (library.py) of 10,000, 30,000, 100,000 and 300,000 chunks of 384 dimensions, with 200 chunks
   around each topic at every size. Of each size: bytes of tables and indexes, the builds, searches of three modes, and
   some documents more with all indexes live.
3. **Other vectors**: 768 and 1536 dimensions, IVFFlat, an index of bits, without texts.
4. **The fit** (capacity_fit.py): least squares, with R² and the worst relative error beside each constant.
5. **The proof**: the library grown to BENCH_PROOF chunks (600,000), which no fit has seen, beside what the command's
   own model says of it.

Times are the processors' (of the server's process, or of all of the server's where it has several at work): what
others do on the machine is not in them, but for caches and shared cores. BENCH_CONSTANTS names a file for what was
measured, which `manage.py capacity --constants` reads, and which may replace the product's own. BENCH_POINTS names one
for what it was fitted from; where that is there already, nothing but the fit is done again.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid5

import numpy as np
import numpy.typing as npt
import psutil
from django.db import connection, connections

from apps.access import keys, tenancy
from apps.documents import collections, embed, lexicon, prepare, spaces, vector_index
from apps.documents.accept import Submission, accept_many
from apps.documents.models import Collection, EmbeddingSpace
from apps.documents.prewarm import prewarm
from apps.documents.spaces import embedder_for
from apps.retrieval.types import SearchQuery

from . import capacity_fit
from .corpus import queries
from .library import DIMENSIONS, Library, _around, _centres, _sizes, chunk_texts, no_word_index, write
from .partitions import Arm, _each, _prepare, put_vectors
from .retrieval import Samples, _ask
from .stack import Clock, fake_house, house

SIZES = [int(size) for size in os.environ.get("BENCH_SIZES", "10000,30000,100000,300000").split(",")]
PROOF = int(os.environ.get("BENCH_PROOF", "600000"))
PER_TOPIC = 200  # chunks, at every size: a graph of larger groups is another graph
#: (documents, passages of a hundred words in each, tokens of a chunk at most)
SHAPES = ((3_000, 1, 200), (600, 5, 200), (120, 25, 200), (150, 10, 60), (300, 20, 400))
#: (dimensions, sizes, what the space is made with)
OTHERS: tuple[tuple[int, tuple[int, ...], dict[str, Any]], ...] = (
    (384, (10_000, 30_000, 100_000), {"binary": True}),
    (384, (30_000, 100_000, 300_000), {"index_method": "ivfflat"}),
    (768, (10_000, 30_000, 100_000), {}),
    (1536, (10_000, 30_000), {}),
    (1536, (10_000, 30_000), {"binary": True}),
)
LIVE = 250  # documents that come while all indexes are there
QUERIES, K = 100, 10
FULL = 4  # MB of maintenance_work_mem
Floats = npt.NDArray[np.float32]
Points = dict[str, list[dict[str, Any]]]
Item = TypeVar("Item")

TABLES = (
    "documents_document",
    "documents_documentversion",
    "documents_blob",
    "documents_chunk",
    "documents_ingestionjob",
)
#: Bytes of a table without its indexes, and of its indexes by their method.
BYTES = """
WITH leaves AS (
    SELECT inhrelid AS oid FROM pg_inherits WHERE inhparent = %(table)s::regclass
    UNION ALL SELECT %(table)s::regclass WHERE NOT EXISTS (
        SELECT 1 FROM pg_inherits WHERE inhparent = %(table)s::regclass)
)
SELECT 'table', sum(pg_table_size(oid)) FROM leaves
UNION ALL
SELECT a.amname, sum(pg_relation_size(x.indexrelid)) FROM leaves l JOIN pg_index x ON x.indrelid = l.oid
JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_am a ON a.oid = i.relam GROUP BY 1
"""


def run(data: Path) -> Iterator[tuple[str, str, str]]:
    file = os.environ.get("BENCH_POINTS")
    if file and Path(file).exists():
        points = json.loads(Path(file).read_text())
    else:
        points = {}
        for measure in (_work, _growth, _model, _memory, _others):
            with Clock() as clock:
                for kind, point in measure():
                    points.setdefault(kind, []).append(point)
                    if file:
                        Path(file + ".partial").write_text(json.dumps(points, indent=1))
            told = f"{clock.seconds:.0f} s, load {os.getloadavg()[0]:.1f}"
            yield f"measured: {measure.__name__.strip('_')}", "", told
        if file:
            Path(file).write_text(json.dumps(points, indent=1))
    yield from capacity_fit.run(points, proof=PROOF)


Measured = Iterator[tuple[str, dict[str, Any]]]


@dataclass
class Busy:
    """`with Busy() as busy`: seconds by the clock, and of the processors that all of the database's processes had."""

    seconds: float = 0.0
    clock: float = 0.0

    def __enter__(self) -> Busy:
        connections["owner"].ensure_connection()
        leader = psutil.Process(connections["owner"].connection.info.backend_pid)
        self.server = leader.parent()
        self.began = (self._now(), time.perf_counter())
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds, self.clock = self._now() - self.began[0], time.perf_counter() - self.began[1]

    def _now(self) -> float:
        if self.server is None:
            return 0.0
        own = self.server.cpu_times()
        total = own.children_user + own.children_system  # of those that have ended
        for child in self.server.children():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = child.cpu_times()
                total += times.user + times.system
        return float(total)


def _bytes(table: str) -> dict[str, int]:
    with connections["owner"].cursor() as cursor:
        cursor.execute(BYTES, {"table": table})
        return {kind: int(count or 0) for kind, count in cursor.fetchall()}


def _all_bytes(space: EmbeddingSpace) -> dict[str, dict[str, int]]:
    named = {table.removeprefix("documents_"): _bytes(table) for table in TABLES}
    return named | {"vectors": _bytes(space.table)}


def _drop_index(space: EmbeddingSpace) -> None:
    with connections["owner"].cursor() as cursor:
        cursor.execute(f'DROP INDEX IF EXISTS "{vector_index.index_name(space)}"')


def _vacuum(*tables: str) -> None:
    with connections["owner"].cursor() as cursor:
        for table in tables:
            cursor.execute(f'VACUUM ANALYZE "{table}"')


def _text_bytes(collection: Collection) -> tuple[int, int]:
    """(chunks, bytes of their texts)."""
    with tenancy.scope(collection.tenant_id), connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*), sum(octet_length(text)), sum(tokens) FROM documents_chunk WHERE collection_id = %s",
            [collection.id],
        )
        return cursor.fetchone()


def _library(name: str, sizes: npt.NDArray[np.int64], topics: npt.NDArray[np.int64], dimensions: int) -> Library:
    tenant = keys.ensure_tenant(slug=name)
    space = spaces.create(slug=name, backend="fake", model="fake", dimensions=dimensions)
    with tenancy.scope(tenant.id):
        collection = collections.create(tenant_id=tenant.id, slug=name, name=name, space=space.slug)
    centres = _centres(int(topics.max()) + 1, dimensions)
    vectors = _around(centres[np.repeat(topics, sizes)], np.random.default_rng(1))
    names = [uuid5(collection.id, str(number)) for number in range(len(sizes))]
    ids = [uuid5(each, str(n)) for each, size in zip(names, sizes, strict=True) for n in range(size)]
    _drop_index(space)
    return Library(collection, "", vectors, ids, sizes, topics)


def _growth() -> Measured:
    """The library of each size: one that grows."""
    sizes = _sizes(np.random.default_rng(1), max(*SIZES, PROOF) + 8 * LIVE)
    ends = np.cumsum(sizes)
    steps = [int(np.searchsorted(ends, size)) + 1 for size in (*SIZES, PROOF)]  # documents
    topics = _grouped([*steps, len(sizes)], ends)
    kept = _library("growing", sizes, topics, DIMENSIONS)
    space, texts, first = kept.collection.space, chunk_texts(), 0
    base = _all_bytes(space)
    for documents in steps:
        point: dict[str, Any] = {"documents": documents, "chunks": int(ends[documents - 1]), "dimensions": DIMENSIONS}
        with contextlib.ExitStack() as without:
            without.enter_context(no_word_index())
            _drop_index(space)
            with Busy() as loading:
                write(kept, range(first, documents), texts)
            with Busy() as words:
                without.close()
        point["loaded"] = int(ends[documents - 1] - (ends[first - 1] if first else 0))
        point |= {"load_busy": loading.seconds, "load_clock": loading.clock, "words_busy": words.seconds}
        _vacuum(*TABLES, space.table)
        point |= _built(space)
        lexicon.count(tenant_id=kept.collection.tenant_id, collection_id=kept.collection.id)
        point["base"], point["bytes"] = base, _all_bytes(space)
        point["text"] = int(_text_bytes(kept.collection)[1])
        prewarm()
        with tenancy.scope(kept.collection.tenant_id):
            collection = collections.find(kept.collection.slug)
        chunks = point["chunks"]
        now = replace(
            kept, collection=collection, vectors=kept.vectors[:chunks], ids=kept.ids[:chunks], topics=topics[:documents]
        )
        point |= _searched(now, int(topics.max()) + 1)
        first = documents + LIVE
        with Busy() as busy:
            write(kept, range(documents, first), texts)
        yield "growth", point | {"live": int(ends[first - 1] - ends[documents - 1]), "live_busy": busy.seconds}


def _grouped(steps: list[int], ends: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """A topic for each document: those of each step have topics of their own, PER_TOPIC chunks in each."""
    dice, first, known, found = np.random.default_rng(2), 0, 0, []
    for documents in steps:
        new = max(1, int(ends[documents - 1]) // PER_TOPIC - known)
        found.append(dice.integers(known, known + new, documents - first))
        first, known = documents, known + new
    return np.concatenate(found)


def _built(space: EmbeddingSpace) -> dict[str, float]:
    with Busy() as busy:
        if space.index_method == EmbeddingSpace.Index.IVFFLAT:
            vector_index.index_concurrently(space, processors=os.cpu_count())
        else:
            vector_index.ensure_index(space)
    return {"build_busy": busy.seconds, "build_clock": busy.clock}


def _searched(found: Library, topics: int) -> dict[str, Any]:
    """Of each mode: milliseconds of the processor, on average and p50, and by the clock, p50; pages that PostgreSQL
    looked at; recall of the dense one."""
    dice = np.random.default_rng(3)
    vectors = _around(_centres(topics)[dice.choice(found.topics, QUERIES)], dice)
    asked = list(zip(queries(QUERIES), vectors, strict=True))
    told: dict[str, Any] = {}
    for mode in ("dense", "lexical", "hybrid"):
        nearest = [found.nearest(vector, K) if mode == "dense" else set() for vector in vectors]
        samples = Samples()
        for counted in (Samples(), samples):  # the first pass brings all of it into memory
            before = _pages()
            for (text, vector), right in zip(asked, nearest, strict=True):
                _ask(counted, found, SearchQuery(text, k=K, mode=mode), vector, right)
            pages = (_pages() - before) / QUERIES
        told |= {f"{mode}_ms": statistics.mean(samples.cpu) * 1000, f"{mode}_p50": _p50(samples.cpu)}
        told |= {f"{mode}_clock": _p50(samples.clock), f"{mode}_pages": pages}
        if mode == "dense":
            told["recall"] = statistics.mean(samples.recall)
    return told


def _p50(seconds: list[float]) -> float:
    return statistics.median(seconds) * 1000


def _pages() -> float:
    """Pages that all sessions have looked at, read or found in memory."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_force_next_flush()")
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_clear_snapshot()")
        cursor.execute("SELECT blks_read + blks_hit FROM pg_stat_database WHERE datname = current_database()")
        return float(cursor.fetchone()[0])


def _others() -> Measured:
    """Vectors without texts, in spaces of other dimensions and indexes; asked by the product's dense leg."""
    for dimensions, sizes, made in OTHERS:
        kind = "binary" if made.get("binary") else made.get("index_method", "hnsw")
        slug = f"{kind}-{dimensions}"
        tenant = keys.ensure_tenant(slug=slug)
        space = spaces.create(slug=slug, backend="fake", model="fake", dimensions=dimensions, **made)
        with tenancy.scope(tenant.id):
            collections.create(tenant_id=tenant.id, slug=slug, name=slug, space=slug)
        centres = _centres(max(sizes) // PER_TOPIC, dimensions)
        every: Floats = np.empty((0, dimensions), np.float32)
        dice = np.random.default_rng(4)
        for size in sizes:
            _drop_index(space)
            with tenancy.scope(tenant.id):
                Collection.objects.filter(slug=slug).update(chunks=size, documents=size // 4)
                collection = collections.find(slug)
            topics = dice.integers(len(every) // PER_TOPIC, size // PER_TOPIC, size - len(every))
            new = _around(centres[topics], dice)
            put_vectors(collection, len(every), new)
            every = np.vstack([every, new])
            _vacuum(space.table)
            point = {"chunks": size, "dimensions": dimensions, "index": kind, **_built(space)}
            collection.space.refresh_from_db()  # the build has set the number of lists
            arm = Arm(slug, 1, space, collection)
            asked = _around(centres[dice.integers(0, size // PER_TOPIC, QUERIES)], dice)
            ways = _prepare(arm, asked[0])
            list(_each(arm, ways, asked))
            found = list(_each(arm, ways, asked))
            right = [set(np.argpartition(-(every @ vector), K)[:K].tolist()) for vector in asked]
            point["dense_ms"] = statistics.mean(busy for _, busy, _ in found) * 1000
            point["recall"] = statistics.mean(len(a[2] & b) / K for a, b in zip(found, right, strict=True))
            yield "others", point | {"bytes": {"vectors": _bytes(space.table)}}


def _memory() -> Measured:
    """Bytes that an entry of a graph takes while it is built: when maintenance_work_mem is full, pgvector says so."""
    session = connections["owner"]
    session.ensure_connection()
    for kind, dimensions in (("halfvec", 384), ("halfvec", 768), ("halfvec", 1536), ("vector", 384)):
        notices: list[str] = []

        def heard(notice: Any, notices: list[str] = notices) -> None:
            notices.append(notice.message_primary)

        session.connection.add_notice_handler(heard)
        with session.cursor() as cursor:
            cursor.execute("SET max_parallel_maintenance_workers = 0")
            cursor.execute(f"SET maintenance_work_mem = '{FULL}MB'")
            cursor.execute(
                f"CREATE TEMP TABLE filling AS SELECT array_agg(random())::{kind}({dimensions}) AS v"
                " FROM generate_series(1, %s) AS row, generate_series(1, %s) AS n GROUP BY row",
                [FULL * 2**20 // (dimensions * (2 if kind == "halfvec" else 4)), dimensions],
            )
            cursor.execute(f"CREATE INDEX ON filling USING hnsw (v {kind}_cosine_ops)")
            cursor.execute("DROP TABLE filling")
            cursor.execute("RESET maintenance_work_mem")
            cursor.execute("RESET max_parallel_maintenance_workers")
        session.connection.remove_notice_handler(heard)
        told = next(found for text in notices if (found := re.search(r"after (\d+) tuples", text)))
        yield "memory", {"storage": kind, "dimensions": dimensions, "bytes": FULL * 2**20 / int(told[1])}


def _work() -> Measured:
    """Documents of several shapes through the steps of the workers, in this process, with HNSW live: the time it takes,
    and what they leave in each table."""
    for number, (documents, passages, tokens) in enumerate(SHAPES):
        collection, _ = fake_house(f"work{number}")
        with tenancy.scope(collection.tenant_id):
            Collection.objects.filter(id=collection.id).update(chunking_max_tokens=tokens)
            collection = collections.find(collection.slug)
        texts = (text for _, text in islice(chunk_texts(), documents * passages))
        submissions = [
            Submission(BytesIO("\n\n".join(each).encode()), "text/plain", "", source_uri=f"work/{at}")
            for at, each in enumerate(batched(texts, passages))
        ]

        def accepting(collection: Collection = collection, submissions: list[Submission] = submissions) -> None:
            for some in batched(submissions, 100):
                with tenancy.scope(collection.tenant_id):
                    accept_many(collection=collection, submissions=some, wake=False)

        steps: tuple[tuple[str, Callable[[], Any]], ...] = (
            ("accept", accepting),
            ("prepare", prepare.drain),
            ("publish", embed.drain),
        )
        point: dict[str, Any] = {"documents": documents, "base": _all_bytes(collection.space)}
        for name, step in steps:
            began = time.process_time()
            with Busy() as busy:
                step()
            point |= {f"{name}_busy": busy.seconds, f"{name}_own": time.process_time() - began}
        point["chunks"], point["text"], point["tokens"] = map(int, _text_bytes(collection))
        yield "work", point | {"bytes": _all_bytes(collection.space)}
    # Where several tenants have chunks, searches by words are planned otherwise (RESULTS.md).
    with connections["owner"].cursor() as cursor:
        cursor.execute(f"TRUNCATE {', '.join(TABLES)} CASCADE")


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    each = iter(items)
    while some := list(islice(each, size)):
        yield some


def _model() -> Measured:
    """The real model, on this machine's processors: passages, and questions one by one."""
    embedder = embedder_for(house("model")[0].space)
    texts = chunk_texts()
    passages = [next(texts)[1] for _ in range(256)]
    embedder.embed(passages[:32])
    began, clock = time.process_time(), time.perf_counter()
    embedder.embed(passages)
    spent, took = time.process_time() - began, time.perf_counter() - clock
    point: dict[str, Any] = {"passages": len(passages), "tokens": int(sum(embedder.count(passages)))}
    point |= {"text": sum(len(each.encode()) for each in passages), "busy": spent, "clock": took}
    asked = queries(200)
    began = time.process_time()
    for text in asked:
        embedder.embed([text])
    yield "model", point | {"query_ms": (time.process_time() - began) * 1000 / len(asked)}
