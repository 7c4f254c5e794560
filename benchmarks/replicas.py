"""What a read replica costs a search, and what it spares the primary.

Two web processes that keep no results, one with a replica and one without, asked by turns over HTTP. Beside the times:
the processor time of all processes of the primary and of the replica, per search. On one machine both share the
processor, so that no more searches per second come of it here; what the primary is spared is what counts.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any
from uuid import UUID

from apps.retrieval.cache import documents_of, holds
from apps.retrieval.search import search
from apps.retrieval.types import SearchQuery
from ragsite.embedded import system
from tests.support.processes import Server
from tests.support.standby import Standby

from .corpus import queries
from .library import library
from .request_path import driver, request
from .stack import Clock

CHUNKS, QUERIES, TURNS, CLIENTS = 50_000, 200, 12, 8
MODES = ("dense", "lexical", "hybrid")


def run(data: Path) -> Iterator[tuple[str, str, str]]:
    found = library(data, chunks=CHUNKS)
    with ExitStack() as stack:
        away = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ragsite-standby-")))
        standby = stack.enter_context(Standby(data, away / "standby"))
        alone = stack.enter_context(Server(data, RESULT_CACHE_MB="0"))
        with_one = stack.enter_context(Server(data, RESULT_CACHE_MB="0", DATABASE_REPLICA_URLS=standby.url))
        ports = {"alone": alone.port, "replica": with_one.port}
        plans: dict[str, Any] = {
            f"{mode} {name}": {"port": port, "requests": [request(found.key, text, mode) for text in queries(QUERIES)]}
            for mode in MODES
            for name, port in ports.items()
        }
        ask = stack.enter_context(driver(data, plans))
        for plan in plans:  # statements prepared, vectors in the process, collections known, the replica seen
            ask(plan, 1, 4.0)
        yield from _proof(found.collection.tenant_id)
        clusters = {"primary": data / "postgres", "replica": standby.cluster}
        for mode in MODES:
            for clients in (1, CLIENTS):
                told = _turns(ask, [f"{mode} {name}" for name in ports], clients, clusters)
                one, two = told.values()
                yield (
                    f"{mode}, {CHUNKS} chunks, {clients} clients: p50 without a replica, with one",
                    "",
                    f"{_p50(one):.2f}, {_p50(two):.2f} ms; {_rate(one):.0f}, {_rate(two):.0f} searches/s",
                )
                yield (
                    "the primary's processor time per search, without and with; the replica's",
                    "<= 0.3",
                    f"{one['primary']:.2f}, {two['primary']:.2f} ({two['primary'] / one['primary']:.2f}); "
                    f"{two['replica']:.2f} ms",
                )


def _proof(tenant_id: UUID) -> Iterator[tuple[str, str, str]]:
    """Of a search in this process, by turns with its proof: the round trip that comes on top."""
    for mode in MODES:
        seconds: dict[str, list[float]] = {"search": [], "proof": []}
        for number, text in enumerate(queries(QUERIES) * 3):
            query = SearchQuery(text, mode=mode)
            with Clock() as clock:
                told = search(tenant_id=tenant_id, query=query, reuse=False)
            with Clock() as proof:
                assert holds(tenant_id, query, told.scopes, documents_of(told.hits))
            if number >= QUERIES:  # the first time around vectors are made and statements prepared
                seconds["search"].append(clock.seconds)
                seconds["proof"].append(proof.seconds)
        one, two = (statistics.median(each) * 1000 for each in seconds.values())
        yield f"{mode}: a search in the process, its proof, p50", "", f"{one:.2f}, {two:.2f} ms ({two / one:.2f})"


def _turns(ask: Any, arms: list[str], clients: int, clusters: dict[str, Path]) -> dict[str, dict[str, Any]]:
    """Of each arm: the seconds of its searches, how long all took, and the milliseconds of processor time per search
    of each cluster."""
    told: dict[str, list[dict[str, Any]]] = {arm: [] for arm in arms}
    for turn in range(TURNS):
        for arm in arms if turn % 2 else reversed(arms):
            before = {name: _processor(cluster) for name, cluster in clusters.items()}
            answered = ask(arm, clients, 1.0)
            spent = {f"{name} s": _processor(cluster) - before[name] for name, cluster in clusters.items()}
            told[arm].append(answered | spent)
    together = {}
    for arm, each in told.items():
        seconds = list(chain.from_iterable(one["seconds"] for one in each))
        together[arm] = {"seconds": seconds, "wall": sum(one["wall"] for one in each)}
        for name in clusters:
            together[arm][name] = sum(one[f"{name} s"] for one in each) / len(seconds) * 1000
    return together


def _processor(cluster: Path) -> float:
    """Seconds that the living processes of a cluster have used; sessions outlive a turn."""
    return sum(sum(process.cpu_times()[:2]) for process in system.processes_in(cluster))


def _p50(found: dict[str, Any]) -> float:
    return statistics.median(found["seconds"]) * 1000


def _rate(found: dict[str, Any]) -> float:
    return len(found["seconds"]) / found["wall"]
