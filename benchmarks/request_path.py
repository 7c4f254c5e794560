"""What HTTP adds to a search: beside the same SQL from psycopg, with a kept result, and with a query that is new.

The clients share a process of their own (drive.py) and take turns of half a second. "The same SQL" is what a search
sends once its collections and its vector are known, recorded from one and sent in the same way: prepared, in one
pipeline. The web server does not keep results, but for the one that is asked for those. Two bodies of documents: of so
few chunks that all are compared, and of so many that the vector index is asked (with made vectors).
"""

from __future__ import annotations

import io
import json
import os
import pickle
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psycopg
from django.conf import settings

from apps.access import tenancy
from apps.documents import merge
from apps.documents.accept import Submission
from apps.documents.models import Collection
from apps.retrieval.query_vectors import new_vectors
from apps.retrieval.scopes import scopes_of
from apps.retrieval.statement import rows_of
from apps.retrieval.types import SearchQuery
from tests.support.processes import ROOT, Server

from .corpus import passages, queries
from .search import _app_dsn
from .stack import fake_house, house

FEW, MANY, QUERIES, TURNS, CLIENTS = 500, 8_000, 200, 8, 8
MODES = tuple(os.environ.get("REQUEST_PATH_MODES", "dense hybrid").split())


def run(data: Path) -> Iterator[tuple[str, str, str]]:
    few, few_key = house("path")
    many, many_key = fake_house("path-many")
    _load(few, passages(FEW))
    _load(many, [f"{text} {number}" for number in range(MANY // FEW) for text in passages(FEW)])
    with ExitStack() as stack:
        keeping = stack.enter_context(Server(data))
        plain = stack.enter_context(Server(data, RESULT_CACHE_MB="0"))
        plans: dict[str, dict[str, Any]] = {}
        for name, collection, key in (("few", few, few_key), ("many", many, many_key)):
            asked = queries(QUERIES)
            for mode in MODES:
                plans[f"{name} {mode} sql"] = {"dsn": _app_dsn(), "searches": recorded(collection, asked, mode)}
                sent = [request(key, text, mode) for text in asked]
                plans[f"{name} {mode} http"] = {"port": plain.port, "requests": sent}
                plans[f"{name} {mode} again"] = {"port": keeping.port, "requests": sent[:20]}
        unheard = [f"{text} {number}" for number in range(40) for text in queries(QUERIES)]
        plans["new"] = {"port": plain.port, "requests": [request(few_key, text, "dense") for text in unheard]}
        plans["model"] = {"model_cache": str(settings.EMBEDDING_CACHE_DIR), "texts": unheard}
        ask = stack.enter_context(driver(data, plans))
        for name in plans:  # prepared statements, vectors in the process, results kept
            ask(name, 1, 2.0)
        chunks = {"few": _chunks(few), "many": _chunks(many)}
        for name in ("few", "many"):
            for mode in MODES:
                arms = [f"{name} {mode} {arm}" for arm in ("sql", "http", "again")]
                yield from _latency(ask, arms, f"{mode}, {chunks[name]} chunks")
                yield from _throughput(ask, arms[:2], f"{mode}, {chunks[name]} chunks")
        yield from _new(ask)


def _latency(ask: Any, arms: list[str], title: str) -> Iterator[tuple[str, str, str]]:
    sql, http, again = (_p50(found) for found in _turns(ask, arms, 1, 0.5))
    yield f"{title}: HTTP over the same SQL, p50", "<= SQL + 3 ms", f"+{http - sql:.2f} ms ({http:.2f}; SQL {sql:.2f})"
    yield f"{title}: asked again, p50", "<= 2 ms", f"{again:.2f} ms"


def _throughput(ask: Any, arms: list[str], title: str) -> Iterator[tuple[str, str, str]]:
    sql, http = ((len(found["seconds"]) / found["wall"], found) for found in _turns(ask, arms, CLIENTS, 1.0))
    cost = [f"{found['cpu'] / len(found['seconds']) * 1000:.2f}" for _, found in (http, sql)]
    yield (
        f"{title}: searches/s of {CLIENTS} clients over HTTP, one web process",
        ">= 0.5 x SQL",
        f"{http[0] / sql[0]:.2f} ({http[0]:.0f}; SQL {sql[0]:.0f}; the clients' own processor time {cost[0]} and "
        f"{cost[1]} ms each)",
    )


def _new(ask: Any) -> Iterator[tuple[str, str, str]]:
    new, model, sql = (_p50(found) for found in _turns(ask, ["new", "model", "few dense sql"], 1, 0.5))
    yield (
        "dense, a query that is new: HTTP over model and SQL, p50",
        "<= both + 4 ms",
        f"+{new - model - sql:.2f} ms ({new:.2f}; model {model:.2f}, SQL {sql:.2f})",
    )
    one, several = (_turns(ask, ["new"], clients, 2.0)[0] for clients in (1, CLIENTS))
    rates = [len(found["seconds"]) / found["wall"] for found in (one, several)]
    yield f"the same: queries/s of 1 and of {CLIENTS} clients", "", f"{rates[0]:.0f}, {rates[1]:.0f}"


def _turns(ask: Any, arms: list[str], clients: int, seconds: float) -> list[dict[str, Any]]:
    """Of each arm what its turns gave together; each goes first in its turn."""
    told: dict[str, list[dict[str, Any]]] = {arm: [] for arm in arms}
    for turn in range(TURNS):
        first = turn % len(arms)
        for arm in arms[first:] + arms[:first]:
            told[arm].append(ask(arm, clients, seconds))
    return [
        {
            "seconds": list(chain.from_iterable(each["seconds"] for each in found)),
            "wall": sum(each["wall"] for each in found),
            "cpu": sum(each["cpu"] for each in found),
        }
        for found in told.values()
    ]


def _p50(found: dict[str, Any]) -> float:
    return statistics.median(found["seconds"]) * 1000


@contextmanager
def driver(data: Path, plans: dict[str, Any]) -> Iterator[Any]:
    path = data / "plan.pickle"
    path.write_bytes(pickle.dumps(plans))
    argv = [sys.executable, "-m", "benchmarks.drive", str(path)]
    with subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdin is not None and driver.stdout is not None

        def ask(name: str, clients: int, seconds: float) -> dict[str, Any]:
            print(json.dumps([name, clients, seconds]), file=driver.stdin, flush=True)
            return json.loads(driver.stdout.readline())

        yield ask
        driver.stdin.close()


def _load(collection: Collection, texts: list[str]) -> None:
    for at in range(0, len(texts), 100):
        some = [
            Submission(content=io.BytesIO(text.encode()), media_type="text/plain", filename=f"p{at + number}")
            for number, text in enumerate(texts[at : at + 100])
        ]
        assert merge.merge(collection=collection, submissions=some) == [merge.MERGED] * len(some)
    merge.analyze()


def recorded(
    collection: Collection, asked: list[str], mode: str, vectors: Sequence[Any] | None = None
) -> list[list[tuple[str, Any, bool]]]:
    """What psycopg is given for each search, from BEGIN to the statement itself; its embeddings are cached then."""
    with tenancy.scope(collection.tenant_id):
        scopes = scopes_of(None)
    if vectors is None:
        vectors = new_vectors(tenant_id=collection.tenant_id, space=scopes[0].space, queries=asked)
    recorded: list[list[tuple[str, Any, bool]]] = []
    execute = psycopg.Cursor.execute

    def record(cursor: Any, statement: str, parameters: Any = None, *, prepare: bool = False, **more: Any) -> Any:
        recorded[-1].append((statement, parameters, bool(prepare)))
        return execute(cursor, statement, parameters, prepare=prepare, **more)

    with tenancy.snapshot(collection.tenant_id):  # what is looked up once
        rows_of(scopes, SearchQuery(asked[0], mode=mode), vectors[0])
    with patch.object(psycopg.Cursor, "execute", record):
        for text, vector in zip(asked, vectors, strict=True):
            recorded.append([])
            with tenancy.snapshot(collection.tenant_id):
                rows_of(scopes, SearchQuery(text, mode=mode), vector)
            assert recorded[-1].pop()[0] == "COMMIT"
    return recorded


def request(key: str, text: str, mode: str, **more: Any) -> bytes:
    body = json.dumps({"query": text, "mode": mode, **more}).encode()
    head = f"POST /api/v1/search HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {key}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _chunks(collection: Collection) -> int:
    with tenancy.scope(collection.tenant_id):
        return Collection.objects.get(id=collection.id).chunks
