"""Memory of the web and worker processes over 100,000 documents, sent in bulk requests of 10,000 while workers work."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx

from tests.support.processes import Server, Workers, wait_for

from .corpus import passages
from .memory import rss
from .stack import Clock, fake_house, wait_until_done

DOCUMENTS, AT_ONCE = 100_000, 10_000


def run(data: Path) -> Iterator[tuple[str, str, str]]:
    collection, key = fake_house("flat")
    texts = passages(AT_ONCE)
    with Server(data) as server, Workers(data) as workers, Clock() as clock:
        wait_for(workers.ready, what="workers")
        watched = {"web": server.running, "prepare": workers.processes[0], "embed": workers.processes[1]}
        seen: dict[str, list[float]] = {name: [rss(process.process.pid)] for name, process in watched.items()}
        for sent in range(0, DOCUMENTS, AT_ONCE):
            lines = (
                json.dumps({"collection": "docs", "source_uri": f"d{sent + n}", "text": f"{text} {sent}."}) + "\n"
                for n, text in enumerate(texts)
            )
            response = httpx.post(
                f"{server.url}/api/v1/documents/bulk",
                content="".join(lines),
                headers={"X-API-Key": key, "Content-Type": "application/x-ndjson"},
                timeout=600,
            )
            assert response.text.count('"status":202') == AT_ONCE
            wait_until_done(collection, sent + AT_ONCE, seconds=600)
            for name, process in watched.items():
                seen[name].append(rss(process.process.pid))
    for name, sizes in seen.items():
        yield (
            f"{name} process, {DOCUMENTS} documents in {clock.seconds:.0f} s, MiB at 0, {AT_ONCE}, ...",
            "flat",
            ", ".join(f"{size:.0f}" for size in sizes),
        )
