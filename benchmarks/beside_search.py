"""Searches of the library (library.py) over HTTP: beside the same SQL from psycopg, and beside Chroma's server and
LangChain's Postgres store with the same vectors (peers_search.py). By turns, each arm first in its turn.

    PEERS_PYTHON=ENV/bin/python python -m benchmarks --keep DIR beside_search

Ours are asked with the query's vector cached and results not kept, by one web process and by two (uvicorn's workers).
Without PEERS_PYTHON the peers are left out.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psycopg

from apps.access import tenancy
from apps.access.sql import execute
from apps.retrieval import query_vectors
from ragsite import embedded
from tests.support.processes import ROOT, Server

from .library import Library, library, shares
from .request_path import driver, recorded, request
from .search import _app_dsn

K, QUERIES, TURNS, SECONDS, CLIENTS = 10, 200, 6, 1.0, 8
FILTER = {"metadata.hundredth": "hundredth-1"}

Ask = Callable[[str, int, float], dict[str, Any]]


def run(data: Path) -> Iterator[tuple[str, str, str]]:
    found = library(data)
    asked = found.asked[:QUERIES]
    texts, vectors = [text for text, _ in asked], np.stack([vector for _, vector in asked])
    query_vectors._keep(found.collection.tenant_id, found.collection.space, texts, vectors)  # as a search would
    with ExitStack() as stack:
        servers = {
            "": stack.enter_context(Server(data, RESULT_CACHE_MB="0")),
            " two": stack.enter_context(Server(data, RESULT_CACHE_MB="0", WEB_CONCURRENCY="2")),
        }
        plans: dict[str, dict[str, Any]] = {}
        for mode in ("dense", "hybrid"):
            searches = recorded(found.collection, texts, mode, vectors)
            plans[f"{mode} sql"] = {"dsn": _app_dsn(), "searches": searches}
            for name, server in servers.items():
                sent = [request(found.key, text, mode) for text in texts]
                plans[f"{mode}{name}"] = {"port": server.port, "requests": sent}
        for name, server in servers.items():
            sent = [request(found.key, text, "dense", filters=FILTER) for text in texts]
            plans[f"dense filtered{name}"] = {"port": server.port, "requests": sent}
        ours = stack.enter_context(driver(data, plans))
        asks: dict[str, Ask] = dict.fromkeys(plans, ours)
        if python := os.environ.get("PEERS_PYTHON"):
            peers = stack.enter_context(_peers(python, data, found, vectors, texts))
            asks |= dict.fromkeys(("chroma", "chroma filtered", "langchain", "langchain filtered"), peers)
        for name, ask in asks.items():
            ask(name, CLIENTS, 2.0)  # prepared statements, vectors in the processes, all in memory
        recall = {mode: _recall(found, servers[""], asked, mode) for mode in ("dense", "dense filtered")}
        alone, together = _turns(asks, 1), _turns(asks, CLIENTS)
        for name, measured in alone.items():
            told = recall.get(name.removesuffix(" two")) or measured[0].get("recall")
            yield (
                f"{name}, {len(found.ids)} chunks, k = {K}",
                "-",
                (f"recall {told:.3f}, " if told else "")
                + f"p50 {_quantile(measured, 50):.2f}, p95 {_quantile(measured, 95):.2f} ms, "
                f"{CLIENTS} clients {_rate(together[name]):.0f}/s",
            )
        yield from _ratios(alone, together)


def _ratios(
    alone: dict[str, list[dict[str, Any]]], together: dict[str, list[dict[str, Any]]]
) -> Iterator[tuple[str, str, str]]:
    p50 = {name: _quantile(measured, 50) for name, measured in alone.items()}
    rate = {name: _rate(measured) for name, measured in together.items()}
    for mode in ("dense", "hybrid"):
        yield f"{mode}: HTTP over the same SQL, p50", "<= 3 ms", f"+{p50[mode] - p50[f'{mode} sql']:.2f} ms"
        for name in (mode, f"{mode} two"):
            yield f"{name}: searches/s over the SQL's", ">= 0.5", f"{rate[name] / rate[f'{mode} sql']:.2f}"
    yield "hybrid over dense, HTTP, p50", "<= 2", f"{p50['hybrid'] / p50['dense']:.2f}"
    yield "hybrid over dense, SQL, p50", "<= 2", f"{p50['hybrid sql'] / p50['dense sql']:.2f}"
    if "chroma" in p50:
        for name in ("dense", "dense two"):
            yield f"{name}: searches/s over Chroma's", ">= 1.5", f"{rate[name] / rate['chroma']:.2f}"
            yield f"{name}: searches/s over LangChain's", ">= 1", f"{rate[name] / rate['langchain']:.2f}"
        yield "dense: p50 over Chroma's", "< 1", f"{p50['dense'] / p50['chroma']:.2f}"
        yield "filter of 1 %: p50 over Chroma's", "<= 0.2", f"{p50['dense filtered'] / p50['chroma filtered']:.2f}"


def _turns(asks: dict[str, Ask], clients: int) -> dict[str, list[dict[str, Any]]]:
    told: dict[str, list[dict[str, Any]]] = defaultdict(list)
    names = list(asks)
    for turn in range(TURNS):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            told[name].append(asks[name](name, clients, SECONDS))
    return told


def _quantile(measured: list[dict[str, Any]], percent: int) -> float:
    taken = [seconds for each in measured for seconds in each["seconds"]]
    return statistics.quantiles(taken, n=100)[percent - 1] * 1000


def _rate(measured: list[dict[str, Any]]) -> float:
    return sum(len(each["seconds"]) for each in measured) / sum(each["wall"] for each in measured)


def _recall(found: Library, server: Server, asked: list[tuple[str, Any]], mode: str) -> float:
    rows = None
    body: dict[str, Any] = {"k": K, "mode": "dense"}
    if mode.endswith("filtered"):
        rows = np.flatnonzero((shares(len(found.sizes))["hundredth"] == 1)[found.document_of_chunk()])
        body |= {"filters": FILTER}
    parts = []
    with httpx.Client(base_url=server.url, headers={"X-API-Key": found.key}) as client:
        for text, vector in asked:
            hits = client.post("/api/v1/search", json=body | {"query": text}).json()["results"]
            nearest = {str(chunk) for chunk in found.nearest(vector, K, rows)}
            parts.append(len(nearest & {hit["chunk_id"] for hit in hits}) / K)
    return statistics.mean(parts)


@contextmanager
def _peers(python: str, data: Path, found: Library, vectors: Any, texts: list[str]) -> Iterator[Ask]:
    """peers_search.py over what the library holds."""
    place = data / "peers"
    if not (place / "texts.jsonl").exists():
        place.mkdir(exist_ok=True)
        hundredth = shares(len(found.sizes))["hundredth"][found.document_of_chunk()]
        passing = np.flatnonzero(hundredth == 1)
        near = vectors @ found.vectors.T
        np.savez(
            place / "peers.npz",
            vectors=found.vectors,
            queries=vectors,
            hundredth=hundredth,
            nearest=np.argsort(-near, axis=1)[:, :K],
            nearest_filtered=passing[np.argsort(-near[:, passing], axis=1)[:, :K]],
        )
        with tenancy.scope(found.collection.tenant_id):
            text_of = dict(execute("SELECT chunk_id, text FROM documents_chunk", {}).fetchall())
        (place / "texts.jsonl").write_text("".join(json.dumps(text_of[chunk]) + "\n" for chunk in found.ids))
    superuser = embedded.superuser_url(data)
    with closing(psycopg.connect(superuser, autocommit=True)) as session:
        if not session.execute("SELECT 1 FROM pg_database WHERE datname = 'peers'").fetchone():
            session.execute("CREATE DATABASE peers")
    database = superuser.replace("@/postgres", "@/peers")
    with closing(psycopg.connect(database, autocommit=True)) as session:
        session.execute("CREATE EXTENSION IF NOT EXISTS vector")
    argv = [python, "benchmarks/peers_search.py", str(place / "peers.npz"), str(place / "texts.jsonl")]
    with subprocess.Popen(
        [*argv, "--database", database], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdin is not None and running.stdout is not None
        assert running.stdout.readline() == "ready\n"

        def ask(name: str, clients: int, seconds: float) -> dict[str, Any]:
            print(json.dumps([name, clients, seconds]), file=running.stdin, flush=True)
            return json.loads(running.stdout.readline())

        yield ask
        running.stdin.close()
