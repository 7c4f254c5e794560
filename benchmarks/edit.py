"""Small changes with idle workers and the real model: one paragraph of a long document, and a new short document."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from apps.access import tenancy
from apps.documents.models import Chunk, Collection, Document, IngestionJob
from apps.documents.spaces import embedder_for
from tests.support.processes import Server, Workers, wait_for

from .corpus import passages
from .stack import house

PARAGRAPHS, EDITS = 1_000, 10
SHORT, WARM = 200, 10
PACE_SECONDS = 0.05


def run(data: Path) -> Iterator[tuple[str, str, str]]:
    with Server(data) as server, Workers(data) as workers:
        wait_for(workers.ready, what="workers")
        yield from _edits(server)
        yield from _searchable(server)


def _post(client: httpx.Client, **body: object) -> dict:
    response = client.post("/api/v1/documents", json={"collection": "docs", **body})
    assert response.status_code == 202, response.text
    return response.json()


def _ended(collection: Collection, job_id: str) -> IngestionJob:
    def job() -> IngestionJob | None:
        with tenancy.scope(collection.tenant_id):
            return IngestionJob.objects.filter(id=job_id, state="done").first()

    return wait_for(job, seconds=600, what="the job")


def _edits(server: Server) -> Iterator[tuple[str, str, str]]:
    collection, key = house("edit")
    client = server.client(key)
    texts = passages(PARAGRAPHS)
    _ended(collection, _post(client, source_uri="long", text="\n\n".join(texts))["job"])
    publish: list[float] = []
    embedded: list[int] = []
    for number in range(EDITS):
        texts[number * 97 + 5] += f" One more sentence, written in edit {number}."
        told = _post(client, source_uri="long", text="\n\n".join(texts))
        publish.append(_ended(collection, told["job"]).timings["publish_ms"])
        with tenancy.scope(collection.tenant_id):
            embedded.append(Chunk.objects.filter(live_from_version=told["version"]).count())
    with tenancy.scope(collection.tenant_id):
        chunks = Collection.objects.get(id=collection.id).chunks
    yield (
        f"one paragraph of a document of {chunks} chunks, {EDITS} edits",
        "<= 5 chunks embedded, publish <= 50 ms",
        f"at most {max(embedded)} chunks ({statistics.mean(embedded):.1f} on average); "
        f"publish p50 {statistics.median(publish):.0f} ms, at most {max(publish):.0f} ms",
    )


def _searchable(server: Server) -> Iterator[tuple[str, str, str]]:
    """From the answer, which is sent after the commit, until the document is live."""
    collection, key = house("searchable")
    client = server.client(key)
    limit = collection.chunking_max_tokens
    short = [text for text in passages(1_500) if embedder_for(collection.space).count([text])[0] <= limit]
    took: list[float] = []
    for number, text in enumerate(short[: SHORT + WARM]):
        told = _post(client, source_uri=f"d{number}", text=text)
        started = time.perf_counter()
        while True:
            with tenancy.scope(collection.tenant_id):
                if Document.objects.filter(id=told["id"], live_version__isnull=False).exists():
                    break
            time.sleep(0.002)
        took.append(time.perf_counter() - started)
        time.sleep(PACE_SECONDS)
    took = sorted(took[WARM:])
    yield (
        f"commit to searchable, write_back, idle workers, {len(took)} one-chunk documents",
        "p50 <= 150 ms, p99 <= 1 s",
        f"p50 {statistics.median(took) * 1000:.0f} ms, p99 {took[int(len(took) * 0.99) - 1] * 1000:.0f} ms, "
        f"most {took[-1] * 1000:.0f} ms",
    )
