"""Ingest end to end (HTTP, two workers) beside the embedding model alone on the same texts; tokens/s, interleaved."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx

from apps.access import tenancy
from apps.documents.models import Chunk
from apps.documents.spaces import embedder_for
from tests.support.processes import Server, Workers, wait_for

from .corpus import passages
from .stack import Clock, house, wait_until_done

DOCUMENTS, PASSAGES_EACH, ROUNDS = 60, 12, 2


def run(data: Path) -> Iterator[tuple[str, str, str]]:
    texts = passages(DOCUMENTS * PASSAGES_EACH * ROUNDS)
    embedder = embedder_for(house("alone")[0].space)
    embedder.embed(["warm"])
    with Server(data) as server, Workers(data) as workers:
        wait_for(workers.ready, what="workers")
        _round(server, passages(5)[:5], "warm")  # loads the model in the worker
        for number in range(ROUNDS):
            part = texts[number * DOCUMENTS * PASSAGES_EACH : (number + 1) * DOCUMENTS * PASSAGES_EACH]
            grouped = ["\n\n".join(part[first : first + PASSAGES_EACH]) for first in range(0, len(part), PASSAGES_EACH)]
            seconds, chunks, tokens = _round(server, grouped, f"round{number}")
            with Clock() as alone:
                embedder.embed(chunks)
            ratio = (tokens / seconds) / (tokens / alone.seconds)
            yield (
                f"round {number + 1}: {len(grouped)} documents, {len(chunks)} chunks, {tokens} tokens",
                ">= 0.9 of embedding alone",
                f"{ratio:.2f} ({tokens / seconds:.0f} tokens/s; alone {tokens / alone.seconds:.0f} tokens/s)",
            )


def _round(server: Server, documents: list[str], name: str) -> tuple[float, list[str], int]:
    """(seconds from the first POST to the last publish, the chunks' texts, their tokens)."""
    collection, key = house(name)
    with httpx.Client(base_url=server.url, headers={"X-API-Key": key}, timeout=60) as client, Clock() as clock:
        for number, text in enumerate(documents):
            body = {"collection": "docs", "text": text, "source_uri": f"{name}-{number}"}
            assert client.post("/api/v1/documents", json=body).status_code == 202
        wait_until_done(collection, len(documents), seconds=600)
    with tenancy.scope(collection.tenant_id):
        rows = list(Chunk.objects.values_list("text", "tokens"))
    return clock.seconds, [row[0] for row in rows], sum(row[1] for row in rows)
