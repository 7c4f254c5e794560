"""The fan-out of a search over partitions, in parallel: what the planner makes of it, and what it costs.

As the owner, who may ask the partitions themselves; every way with the same hnsw.ef_search and the same answer. By
turns, query by query, of which the fastest turn counts.

- `merge append`: ORDER BY and LIMIT over the whole table, which is what the product sends.
- `union`: UNION ALL of one LIMIT subquery per partition, parallel plans as cheap as they can be made.
- `functions`: the same subqueries inside of functions that are marked PARALLEL SAFE.
- `two connections`: each asks one half of the partitions, at the same time.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
from django.conf import settings

from apps.documents.db import vector_text

from .stack import Clock

K = 10
CHEAP = (
    *("parallel_setup_cost = 0", "parallel_tuple_cost = 0", "min_parallel_table_scan_size = 0"),
    *("min_parallel_index_scan_size = 0", "max_parallel_workers_per_gather = 2", "enable_parallel_append = on"),
)
COLUMNS = "document_id, chunk_id, embedding <=> %(v)s AS distance"


def run(arm: Any, asked: Any, turns: int, title: str) -> Iterator[tuple[str, str, str]]:
    table, halves = arm.space.table, []
    leaves = [f"{table}_p{number}" for number in range(arm.partitions)]
    type = f"halfvec({arm.space.dimensions})"
    order = f"FROM {{}} WHERE live ORDER BY embedding <=> %(v)s::{type} LIMIT {K}"
    columns = COLUMNS.replace("%(v)s", f"%(v)s::{type}")

    def union(some: list[str]) -> str:
        return " UNION ALL ".join(f"(SELECT {columns} {order.format(leaf)})" for leaf in some)

    def nearest(source: str) -> str:
        return f"SELECT chunk_id FROM ({source}) near ORDER BY distance LIMIT {K}"

    functions = " UNION ALL ".join(f"SELECT * FROM bench_{leaf}(%(v)s::{type})" for leaf in leaves)
    statements = {
        "merge append": nearest(f"SELECT {columns} {order.format(table)}"),
        "union": nearest(union(leaves)),
        "functions": nearest(functions),
    }
    halves = [f"SELECT chunk_id, distance FROM ({union(leaves[at::2])}) n ORDER BY distance LIMIT {K}" for at in (0, 1)]
    breadth = arm.ways["ours"]["hnsw.ef_search"]
    with _session(breadth, arm) as one, _session(breadth, arm) as two, ThreadPoolExecutor(2) as threads:
        for leaf in leaves:
            body = f"SELECT {columns} {order.format(leaf)}".replace("%(v)s", "v")
            one.execute(
                f"CREATE OR REPLACE FUNCTION bench_{leaf}(v {type}) RETURNS TABLE (document_id uuid, chunk_id uuid,"
                f" distance float8) LANGUAGE plpgsql STABLE PARALLEL SAFE COST 100000 ROWS {K}"
                f" AS $$ #variable_conflict use_column\nBEGIN RETURN QUERY {body}; END $$"
            )

        def ask(way: str, vector: str) -> set[Any]:
            if way != "two connections":
                return {row[0] for row in one.execute(statements[way], {"v": vector}, prepare=True).fetchall()}
            told = threads.map(
                lambda pair: pair[0].execute(pair[1], {"v": vector}, prepare=True).fetchall(),
                zip((one, two), halves, strict=True),
            )
            return {row[0] for row in sorted((row for rows in told for row in rows), key=lambda row: row[1])[:K]}

        vectors = [vector_text(vector) for vector in asked]
        ways = [*statements, "two connections"]
        best: dict[str, list[float]] = {way: [9.0] * len(vectors) for way in ways}
        same: dict[str, list[float]] = {way: [] for way in ways}
        for turn in range(turns):
            for number, vector in enumerate(vectors):
                for way in ways[turn % 4 :] + ways[: turn % 4]:
                    with Clock() as clock:
                        found = ask(way, vector)
                    best[way][number] = min(best[way][number], clock.seconds)
                    if turn == 0:
                        same[way].append(len(found & ask("merge append", vector)) / K)
        base = statistics.median(best["merge append"])
        for way, taken in best.items():
            p50, p95 = (statistics.quantiles(taken, n=20)[at] * 1000 for at in (9, 18))
            plan = _plan(one, statements[way], vectors[0]) if way in statements else ""
            yield (
                f"{title}: {way}",
                "",
                f"p50 {p50:.2f}, p95 {p95:.2f} ms, {p50 / base / 1000:.2f} x;"
                f" the same ten {statistics.mean(same[way]):.3f}" + (f"; {plan}" if plan else ""),
            )
        for leaf in leaves:
            one.execute(f"DROP FUNCTION bench_{leaf}")


def _plan(session: psycopg.Connection, statement: str, vector: str) -> str:
    """The kinds of nodes of its plan, each once, from the top."""
    rows = session.execute("EXPLAIN (COSTS OFF) " + statement, {"v": vector}).fetchall()
    nodes = [re.sub(r"( using| on) .*", "", line.split("->")[-1].strip()) for (line,) in rows if ":" not in line]
    return " > ".join(dict.fromkeys(nodes))


def _session(breadth: str, arm: Any) -> psycopg.Connection:
    database = settings.DATABASES["owner"]
    session = psycopg.connect(
        host=database["HOST"],
        port=database["PORT"],
        user=database["USER"],
        password=database["PASSWORD"],
        dbname=database["NAME"],
        autocommit=True,
    )
    session.execute(f"SET ragsite.tenant = '{arm.collection.tenant_id}'")
    for setting in (*CHEAP, f"hnsw.ef_search = {breadth}", "hnsw.iterative_scan = relaxed_order"):
        session.execute(f"SET {setting}")
    return session
