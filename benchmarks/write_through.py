"""`write_through` of one-chunk documents over HTTP, beside embedding one such text in this process."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path

import httpx

from apps.documents.spaces import embedder_for
from tests.support.processes import Server

from .corpus import passages
from .stack import Clock, house, milliseconds

COUNT = 100


def run(data: Path) -> Iterator[tuple[str, str, str]]:
    collection, key = house("write")
    embedder = embedder_for(collection.space)
    texts = passages(2 * COUNT)
    alone: list[float] = []
    through: list[float] = []
    with Server(data) as server, httpx.Client(base_url=server.url, headers={"X-API-Key": key}, timeout=60) as client:
        for number in range(COUNT + 5):
            body = {"collection": "docs", "text": texts[number], "source_uri": f"d{number}", "mode": "write_through"}
            with Clock() as clock:
                response = client.post("/api/v1/documents", json=body)
            assert response.status_code == 201, response.text
            if number >= 5:  # the first ones load the model and start the parsing sandbox
                through.append(clock.seconds)
            with Clock() as clock:
                embedder.embed([texts[COUNT + number % COUNT]])
            if number >= 5:
                alone.append(clock.seconds)
    extra = (statistics.median(through) - statistics.median(alone)) * 1000
    yield (
        "one-chunk document, POST to live",
        "p50 <= embedding + 30 ms",
        f"+{extra:.1f} ms (POST {milliseconds(through)}; embedding alone {milliseconds(alone)})",
    )
