"""Searches of 200,000 chunks (library.py): recall, time, and what words, filters and updates do to them.

Ours is `statement.rows_of` as a search runs it, in its transaction; the floor is a bare query of one table with the
same vectors and an HNSW index, by psycopg, as a superuser. By turns, query by query. Beside the clock's time stands
the time that the database's process had a processor (Linux): where others work too, only that tells what it costs.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt
import psycopg
from django.db import connection
from django.utils import timezone

from apps.access import tenancy
from apps.documents import index_care
from apps.documents.models import Lexeme
from apps.retrieval.filters import compile_filter
from apps.retrieval.scopes import scopes_of
from apps.retrieval.statement import index_settings, rows_of
from apps.retrieval.types import SearchQuery
from ragsite import embedded

from .library import DIMENSIONS, Library, library, shares

QUERIES, K = 200, 10
FLOOR_EF = 160
FILTERS = ("ten_thousandth", "thousandth", "hundredth", "tenth", "half")


class Samples:
    """Of each search: seconds by the clock and of a processor, and the part of the nearest that it found."""

    def __init__(self) -> None:
        self.clock: list[float] = []
        self.cpu: list[float] = []
        self.recall: list[float] = []

    def ask(self, pid: int, run: Callable[[], set[UUID]], nearest: set[UUID]) -> None:
        before, started = _cpu(pid), time.perf_counter()
        found = run()
        self.clock.append(time.perf_counter() - started)
        self.cpu.append(_cpu(pid) - before)
        self.recall.append(len(found & nearest) / max(1, len(nearest)))

    def times(self) -> str:
        p50, p95 = (statistics.quantiles(self.clock, n=20)[at] * 1000 for at in (9, 18))
        c50, c95 = (statistics.quantiles(self.cpu, n=20)[at] * 1000 for at in (9, 18))
        return f"p50 {p50:.1f}, p95 {p95:.1f} ms (processor {c50:.1f}, {c95:.1f})"

    def __str__(self) -> str:
        return f"recall {statistics.mean(self.recall):.3f}, {self.times()}"


def run(data: Path) -> Iterator[tuple[str, str, str]]:
    found = library(data)
    with closing(psycopg.connect(_superuser(data), autocommit=True)) as bare:
        _floor(bare, found)
        yield from _unfiltered(found, bare)
    yield from _hybrid(found)
    yield from _filtered(found)
    yield from _past(found)
    yield from _updated(found)


def _unfiltered(found: Library, bare: psycopg.Connection) -> Iterator[tuple[str, str, str]]:
    ours, floor = Samples(), Samples()
    for text, vector in found.asked[:QUERIES]:
        nearest = found.nearest(vector, K)
        floor.ask(bare.info.backend_pid, lambda vector=vector: _bare(bare, vector), nearest)  # type: ignore[misc]
        _ask(ours, found, SearchQuery(text, k=K, mode="dense"), vector, nearest)
    with tenancy.scope(found.collection.tenant_id):
        told = index_settings(scopes_of(None), SearchQuery("", k=K, mode="dense"))
    yield f"dense, {len(found.ids)} chunks, ef_search = {told['hnsw.ef_search']}, 1 client", "recall >= 0.95", str(ours)
    yield f"the floor: one table, psycopg, ef_search = {FLOOR_EF}", "-", str(floor)


def _hybrid(found: Library) -> Iterator[tuple[str, str, str]]:
    """Real questions, and queries of one to four of the 300 most frequent words, stop words left out."""
    tenant_id = found.collection.tenant_id
    with tenancy.scope(tenant_id):
        counted = Lexeme.objects.filter(collection=found.collection, lexeme__regex="^[a-z]{2,}$").order_by("-chunks")
        frequent = list(counted.values_list("lexeme", flat=True)[:300])
    dice = random.Random(7)
    asked = found.asked[:QUERIES]
    words = [(" ".join(dice.sample(frequent, dice.randint(1, 4))), vector) for _, vector in asked]
    for kind, queries in (("questions", asked), ("frequent words", words)):
        samples = {mode: Samples() for mode in ("dense", "lexical", "hybrid")}
        for turn, (text, vector) in enumerate([*queries[:20], *queries]):
            for mode, measured in samples.items():
                one = Samples() if turn < 20 else measured  # the first ones prepare statements
                _ask(one, found, SearchQuery(text, k=K, mode=mode), vector, set())
        dense, hybrid = (statistics.median(samples[mode].clock) for mode in ("dense", "hybrid"))
        for mode, measured in samples.items():
            yield f"{mode}, {kind}", "-", measured.times()
        yield f"hybrid over dense, {kind}, p50", "<= 2", f"{hybrid / dense:.2f}"


def _filtered(found: Library) -> Iterator[tuple[str, str, str]]:
    values, of_chunk = shares(len(found.sizes)), found.document_of_chunk()
    masks = {name: np.flatnonzero((values[name] == 1)[of_chunk]) for name in FILTERS}
    compiled: dict[str, Any] = {name: compile_filter({f"metadata.{name}": f"{name}-1"}) for name in FILTERS}
    masks["range"] = np.flatnonzero((of_chunk >= 1_000) & (of_chunk < 1_500))
    compiled["range"] = compile_filter({"metadata.number": {"$gte": 1_000, "$lt": 1_500}})
    masks["topics"] = np.flatnonzero((found.topics < 100)[of_chunk])
    compiled["topics"] = compile_filter({"metadata.topic": {"$lt": 100}})
    samples = {name: Samples() for name in masks}
    for text, vector in found.asked[: QUERIES // 2]:
        for name, rows in masks.items():
            query = SearchQuery(text, k=K, mode="dense", filter=compiled[name])
            _ask(samples[name], found, query, vector, found.nearest(vector, K, rows))
    for name, measured in samples.items():
        asked = "-" if name == "topics" else "recall >= 0.95, p95 <= 25 ms"
        part = len(masks[name]) / len(found.ids)
        yield f"filter {name}: {part:.2%} of the chunks pass", asked, str(measured)


def _past(found: Library) -> Iterator[tuple[str, str, str]]:
    """As of now, when nothing has changed since: what asking the past costs beside asking the present."""
    now = timezone.now()
    for mode in ("dense", "lexical", "hybrid"):
        then, present = Samples(), Samples()
        for text, vector in found.asked[: QUERIES // 10]:
            _ask(present, found, SearchQuery(text, k=K, mode=mode), vector, set())
            nearest = found.nearest(vector, K)
            _ask(then, found, SearchQuery(text, k=K, mode=mode, as_of=now), vector, nearest)
        told = str(then) if mode == "dense" else then.times()
        yield f"{mode}, as of now", "-", f"{told}; the present {present.times()}"


def _updated(found: Library) -> Iterator[tuple[str, str, str]]:
    """30 % of the documents get a new version whose vectors are new, as publishing writes them: old rows stop being
    live, new ones come. The transaction is the same; the texts are left out, they do not matter here."""
    fresh = found.changed(0.3)
    table = found.collection.space.table
    before = _recall(found, found.vectors, found.ids)
    yield "before any update", "-", f"recall {before:.3f}"
    with tenancy.scope(found.collection.tenant_id), connection.cursor() as cursor:
        old = [found.ids[row] for row in fresh.rows]
        cursor.execute(f"UPDATE {table} SET live = false WHERE live AND chunk_id = ANY(%s)", [old])
        for start in range(0, len(fresh.rows), 2_000):
            part = slice(start, start + 2_000)
            cursor.execute(
                f"INSERT INTO {table} SELECT d, c, %s, %s, true, v::halfvec({DIMENSIONS})"
                " FROM unnest(%s::uuid[], %s::uuid[], %s::text[]) AS n (d, c, v)",
                [
                    *(found.collection.tenant_id, found.collection.id, fresh.documents[part], fresh.ids[part]),
                    [str(vector.tolist()) for vector in fresh.vectors[part]],
                ],
            )
    vectors, ids = found.vectors.copy(), list(found.ids)
    vectors[fresh.rows] = fresh.vectors
    for row, chunk in zip(fresh.rows, fresh.ids, strict=True):
        ids[row] = chunk
    time.sleep(2)  # until the statistics tell what has been written
    index_care.look(table)
    after = _recall(found, vectors, ids)
    yield "30 % of the documents updated", "at most 0.010 lost", f"recall {after:.3f}: {before - after:+.3f} lost"
    _rebuilt(table)
    later = _recall(found, vectors, ids)
    yield (
        "the same, vacuumed by index_care",
        "at most 0.003 lost",
        f"recall {later:.3f}: {before - later:+.3f} lost",
    )
    with tenancy.scope(found.collection.tenant_id), connection.cursor() as cursor:  # as it was, for the next time
        cursor.execute(f"DELETE FROM {table} WHERE chunk_id = ANY(%s)", [fresh.ids])
        cursor.execute(f"UPDATE {table} SET live = true WHERE NOT live")
    _rebuilt(table)


def _rebuilt(table: str) -> None:
    time.sleep(2)  # until the statistics tell what has been written
    connection.close()
    assert index_care.tend()
    index_care.look(table)


def _recall(found: Library, vectors: npt.NDArray[np.float32], ids: list[UUID]) -> float:
    """Of the vector index alone: there are no texts to what was updated."""
    samples = []
    space = found.collection.space
    sql = (
        f"SELECT chunk_id FROM {space.table} WHERE live AND collection_id = %s"
        f" ORDER BY embedding <=> %s::halfvec({DIMENSIONS}) LIMIT {K}"
    )
    with tenancy.scope(found.collection.tenant_id), connection.cursor() as cursor:
        tenancy.set_local(index_settings(scopes_of(None), SearchQuery("", k=K, mode="dense")))
        for _, vector in found.asked:
            cursor.execute(sql, [found.collection.id, str(vector.tolist())])
            near = np.argpartition(-(vectors @ vector), K)[:K]
            samples.append(len({row[0] for row in cursor.fetchall()} & {ids[row] for row in near}) / K)
    return statistics.mean(samples)


def _ask(
    samples: Samples, found: Library, query: SearchQuery, vector: npt.NDArray[np.float32], nearest: set[UUID]
) -> None:
    with tenancy.scope(found.collection.tenant_id, repeatable_read=True):
        scopes, values = scopes_of(None), vector.tolist()
        pid = connection.connection.info.backend_pid
        samples.ask(pid, lambda: {row[0] for row in rows_of(scopes, query, values)}, nearest)


def _floor(bare: psycopg.Connection, found: Library) -> None:
    bare.execute("CREATE TABLE IF NOT EXISTS floor (chunk_id uuid, embedding halfvec(384))")
    if not bare.execute("SELECT 1 FROM floor LIMIT 1").fetchone():
        bare.execute(f"INSERT INTO floor SELECT chunk_id, embedding FROM {found.collection.space.table}")
    bare.execute("SET maintenance_work_mem = '1GB'; SET min_parallel_table_scan_size = 0")
    bare.execute("CREATE INDEX IF NOT EXISTS floor_vectors ON floor USING hnsw (embedding halfvec_cosine_ops)")
    bare.execute(f"SET hnsw.ef_search = {FLOOR_EF}")


def _bare(bare: psycopg.Connection, vector: npt.NDArray[np.float32]) -> set[UUID]:
    sql = f"SELECT chunk_id FROM floor ORDER BY embedding <=> %s::halfvec({DIMENSIONS}) LIMIT {K}"
    return {row[0] for row in bare.execute(sql, [str(vector.tolist())], prepare=True)}


def _superuser(data: Path) -> str:
    return embedded.superuser_url(data).replace("@/postgres", "@/ragsite")


def _cpu(pid: int) -> float:
    """Seconds that a process has had a processor."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
