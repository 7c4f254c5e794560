"""Ingest end to end (HTTP, two workers) beside the embedding model alone on the same texts; tokens/s, interleaved.

By turns the documents are sent one by one and all in one bulk request. The model alone is timed before and after each
round, because machines change their speed by the minute.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx

from apps.access import tenancy
from apps.documents.models import Chunk
from apps.documents.spaces import embedder_for
from tests.support.processes import Server, Workers, wait_for

from .corpus import passages
from .stack import Clock, house, wait_until_done

DOCUMENTS, PASSAGES_EACH, ROUNDS = 60, 12, 6


def run(data: Path) -> Iterator[tuple[str, str, str]]:
    texts = passages(DOCUMENTS * PASSAGES_EACH * ROUNDS)
    embedder = embedder_for(house("alone")[0].space)
    embedder.embed(["warm"])

    def alone(chunks: list[str], tokens: int) -> float:
        """Tokens/s."""
        with Clock() as clock:
            embedder.embed(chunks)
        return tokens / clock.seconds

    ratios: dict[str, list[float]] = {"one by one": [], "in one bulk request": []}
    rates: dict[str, list[str]] = {sent: [] for sent in ratios}
    with Server(data) as server, Workers(data) as workers:
        wait_for(workers.ready, what="workers")
        _, *warm = _round(server, passages(200)[:200], "warm", bulk=True)  # loads the model in the worker
        before = alone(*warm)
        for number in range(ROUNDS):
            part = texts[number * DOCUMENTS * PASSAGES_EACH : (number + 1) * DOCUMENTS * PASSAGES_EACH]
            grouped = ["\n\n".join(part[first : first + PASSAGES_EACH]) for first in range(0, len(part), PASSAGES_EACH)]
            sent = list(ratios)[number % 2]
            seconds, chunks, tokens = _round(server, grouped, f"round{number}", bulk=sent == "in one bulk request")
            after = alone(chunks, tokens)
            ratios[sent].append(tokens / seconds / ((before + after) / 2))
            rates[sent].append(f"{tokens / seconds:.0f} tokens/s beside {before:.0f} and {after:.0f}")
            before = after
    for sent, measured in ratios.items():
        yield (
            f"{DOCUMENTS} documents of {PASSAGES_EACH} passages sent {sent}, {len(measured)} rounds",
            ">= 0.9 of embedding alone",
            f"{sum(measured) / len(measured):.2f} ({', '.join(f'{ratio:.2f}' for ratio in measured)}; "
            f"{'; '.join(rates[sent])})",
        )


def _round(server: Server, documents: list[str], name: str, *, bulk: bool = False) -> tuple[float, list[str], int]:
    """(seconds from the first POST to the last publish, the chunks' texts, their tokens)."""
    collection, key = house(name)
    with httpx.Client(base_url=server.url, headers={"X-API-Key": key}, timeout=60) as client, Clock() as clock:
        bodies: list[dict[str, str]] = [
            {"collection": "docs", "text": text, "source_uri": f"{name}-{number}"}
            for number, text in enumerate(documents)
        ]
        if bulk:
            lines = "\n".join(map(json.dumps, bodies))
            answer = client.post(
                "/api/v1/documents/bulk", content=lines, headers={"Content-Type": "application/x-ndjson"}
            )
            assert answer.text.count('"status":202') == len(documents), answer.text
        else:
            for body in bodies:
                assert client.post("/api/v1/documents", json=body).status_code == 202
        wait_until_done(collection, len(documents), seconds=600)
    with tenancy.scope(collection.tenant_id):
        rows = list(Chunk.objects.values_list("text", "tokens"))
    return clock.seconds, [row[0] for row in rows], sum(row[1] for row in rows)
