"""`write_through` of one-chunk documents over HTTP, beside embedding the same text in this process, in turns."""

from __future__ import annotations

import http.client
import json
import statistics
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from apps.documents.spaces import embedder_for
from tests.support.processes import Server

from .corpus import passages
from .stack import Clock, house, milliseconds

COUNT, WARM = 100, 5  # the first ones load the model and start the parsing sandbox


def run(data: Path) -> Iterator[tuple[str, str, str]]:
    collection, key = house("write")
    embedder = embedder_for(collection.space)
    texts = [text for text in passages(400) if embedder.count([text])[0] <= collection.chunking_max_tokens]
    assert len(texts) >= COUNT + WARM
    alone: list[float] = []
    through: list[float] = []
    headers = {"X-API-Key": key, "Content-Type": "application/json"}
    with Server(data) as server, closing(http.client.HTTPConnection("127.0.0.1", server.port)) as client:
        for number, text in enumerate(texts[: COUNT + WARM]):
            body = {"collection": "docs", "text": text, "source_uri": f"d{number}", "mode": "write_through"}
            with Clock() as clock:
                client.request("POST", "/api/v1/documents", json.dumps(body), headers)
                response = client.getresponse()
                answer = response.read()
            assert response.status == 201, answer
            through.append(clock.seconds)
            with Clock() as clock:
                embedder.embed([text])
            alone.append(clock.seconds)
    through, alone = through[WARM:], alone[WARM:]
    extra = (statistics.median(through) - statistics.median(alone)) * 1000
    yield (
        f"one-chunk document ({statistics.mean(embedder.count(texts)):.0f} tokens), POST to live",
        "p50 <= embedding + 30 ms",
        f"+{extra:.1f} ms (POST {milliseconds(through)}; embedding alone {milliseconds(alone)})",
    )
