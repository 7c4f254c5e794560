"""Clients in a process of their own, as light as they can be: HTTP over a bare socket, psycopg, the embedding model.

    python benchmarks/drive.py PLAN.pickle

PLAN: by name, {"port": ..., "requests": [bytes]} (each request once around and again), {"dsn": ..., "searches":
[[(statement, parameters, prepare), ...]]} (each list is one transaction, sent as psycopg's pipeline sends it) or
{"model_cache": directory, "texts": [...]}. Each line of the input is [name, clients, seconds]; each of the output tells
{"seconds": of every call, "wall": all in all, "cpu": of this process}.
"""

from __future__ import annotations

import itertools
import json
import pickle
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg


def _http(plan: dict[str, Any], after: Iterator[int]) -> Callable[[], None]:
    requests = plan["requests"]
    client = socket.create_connection(("127.0.0.1", plan["port"]))
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def call() -> None:
        client.sendall(requests[next(after) % len(requests)])
        got = client.recv(1 << 18)
        while (head := got.find(b"\r\n\r\n")) < 0:
            assert got, "the server has closed the connection"
            got += client.recv(1 << 18)
        at = got.lower().find(b"content-length:", 0, head)
        size = int(got[at + 15 : got.find(b"\r\n", at)])
        while len(got) < head + 4 + size:
            got += client.recv(1 << 18)
        assert got.startswith(b"HTTP/1.1 200") and b'"results":[{' in got, got[:500]

    return call


def _sql(plan: dict[str, Any], after: Iterator[int]) -> Callable[[], None]:
    from apps.access.sql import pipeline  # not there for the peers, which only take `at_once`

    searches = plan["searches"]
    session = psycopg.connect(plan["dsn"], autocommit=True)

    def call() -> None:
        with pipeline(session):
            for statement, parameters, prepare in searches[next(after) % len(searches)]:
                answered = session.execute(statement, parameters, prepare=prepare)
            assert answered.fetchall()
            session.execute("COMMIT", prepare=False)

    return call


def _model(plan: dict[str, Any], after: Iterator[int]) -> Callable[[], None]:
    from apps.documents.embedding import get_embedder

    embedder, texts = get_embedder("local", cache_dir=Path(plan["model_cache"])), plan["texts"]

    def call() -> None:
        embedder.embed([texts[next(after) % len(texts)]])

    return call


def main() -> None:
    plans = pickle.loads(Path(sys.argv[1]).read_bytes())
    counters = {name: itertools.count() for name in plans}
    clients: dict[str, list[Callable[[], None]]] = {name: [] for name in plans}
    for line in sys.stdin:
        name, count, seconds = json.loads(line)
        plan, ready = plans[name], clients[name]
        if "port" in plan:  # an idle connection is closed by the server
            ready.clear()
        while len(ready) < count:
            make = _http if "port" in plan else _sql if "dsn" in plan else _model
            ready.append(make(plan, counters[name]))
        print(json.dumps(_measure(ready[:count], seconds)), flush=True)


def at_once(work: Callable[[Any], None], items: Sequence[Any]) -> None:
    """The work for each item in a thread of its own, for one item in this one. Raises what one of them raised."""
    if len(items) == 1:
        work(items[0])
        return
    with ThreadPoolExecutor(len(items)) as threads:
        for _ in threads.map(work, items):
            pass


def _measure(calls: list[Callable[[], None]], seconds: float) -> dict[str, Any]:
    taken: list[float] = []
    began, cpu = time.perf_counter(), time.process_time()

    def repeat(call: Callable[[], None]) -> None:
        while time.perf_counter() < began + seconds:
            started = time.perf_counter()
            call()
            taken.append(time.perf_counter() - started)

    at_once(repeat, calls)
    return {"seconds": taken, "wall": time.perf_counter() - began, "cpu": time.process_time() - cpu}


if __name__ == "__main__":
    main()
