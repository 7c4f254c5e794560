"""Real processes that race, die and come back: invariants I1 to I4."""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from typing import Any

import httpx
import pytest
from django.db import connection

from apps.access import tenancy
from apps.access.models import Tenant
from apps.access.redis import redis_client
from apps.documents.accept import Accepted
from apps.documents.models import Chunk, Collection, Document, DocumentVersion, IngestionJob, StagedChunk
from tests.conftest import DATA, make_collection
from tests.support.processes import Server, Workers, wait_for

from .test_ingest import live_rows, paragraphs

Put = Callable[..., Accepted]


def versioned(number: int) -> str:
    """A text of several chunks, each of which names the version it belongs to."""
    return "\n\n".join(
        f"Section {part} of release {number}: " + " ".join(f"release{number}part{part}word{i}" for i in range(40)) + "."
        for part in range(8)
    )


def assert_whole(collection: Collection, *, documents: int) -> None:
    """Every document is live once, its rows are exactly those of its live version, and nothing is left over."""
    with tenancy.scope(collection.tenant_id):
        stored = list(Document.objects.filter(collection=collection))
        assert len(stored) == documents and {document.state for document in stored} == {"live"}
        total = 0
        for document in stored:
            version = DocumentVersion.objects.get(document_id=document.id, version=document.live_version)
            live = Chunk.objects.filter(document=document, retired_in_version=None).values_list("chunk_id", flat=True)
            assert sorted(live) == sorted(version.chunk_ids)
            total += len(version.chunk_ids)
        assert StagedChunk.objects.filter(document__collection=collection).count() == 0
        assert not IngestionJob.objects.filter(collection_id=collection.id).exclude(state="done").exists()
        counted = Collection.objects.get(id=collection.id)
        assert (counted.documents, counted.chunks) == (documents, total)
    assert live_rows(collection) == (total, total)


@pytest.mark.parametrize("spread", [1000, 20])
def test_two_clients_race_versions_in_random_order_and_fifty_wins(
    client: httpx.Client, collection: Collection, workers: Workers, spread: int
) -> None:
    wait_for(workers.ready, seconds=60, what="the workers")
    numbers = list(range(1, 51)) * 2
    # A wide spread is a plain shuffle, which raises the highest version about five times in all; a narrow one drifts
    # upwards, so that most versions are live for a moment.
    dice = random.Random(50)
    numbers.sort(key=lambda number: number + dice.uniform(0, spread))
    stop, problems, answers = threading.Event(), [], [0]

    def write(mine: list[int]) -> list[int]:
        statuses = []
        with httpx.Client(base_url=client.base_url, headers=client.headers, timeout=60) as own:
            # By turns, not by chance: a first write is accepted, so one is sure to be written through.
            for number, mode in zip(mine, cycle(["write_through", "write_back"]), strict=False):
                body = {
                    "collection": "docs",
                    "source_uri": "contested",
                    "text": versioned(number),
                    "version": number,
                }
                statuses.append(own.post("/api/v1/documents", json=body | {"mode": mode}).status_code)
                time.sleep(0.05)  # leaves the reader time to look between the swaps
        return statuses

    def read() -> None:
        last = 0
        with httpx.Client(base_url=client.base_url, headers=client.headers, timeout=60) as own:
            while not stop.is_set():
                body = {
                    "query": "section of release",
                    "k": 20,
                    "mode": random.choice(["dense", "lexical", "hybrid"]),
                }
                hits = own.post("/api/v1/search", json=body).json()["results"]
                seen = {int(found) for hit in hits for found in re.findall(r"release(\d+)part", hit["text"])}
                if len(seen) > 1 or {hit["version"] for hit in hits} != seen:
                    problems.append((seen, {hit["version"] for hit in hits}))
                if seen and max(seen) < last:
                    problems.append(("went back", last, seen))
                last = max(seen, default=last)
                answers[0] += bool(hits)

    def settled() -> bool:
        with tenancy.scope(collection.tenant_id):
            return not IngestionJob.objects.filter(state__in=["queued", "running"]).exists()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        with ThreadPoolExecutor(2) as pool:
            statuses = [status for part in pool.map(write, (numbers[::2], numbers[1::2])) for status in part]
        wait_for(settled, seconds=60, what="the jobs to end")
    finally:
        stop.set()
        reader.join()
    assert set(statuses) <= {200, 201, 202, 409} and {201, 409} <= set(statuses)

    assert problems == [] and answers[0] > 10
    with tenancy.scope(collection.tenant_id):
        document = Document.objects.get()
        assert (document.version, document.live_version) == (50, 50)
    assert_whole(collection, documents=1)


def test_redis_loses_everything_in_the_middle_and_nothing_is_lost(
    client: httpx.Client, collection: Collection, workers: Workers
) -> None:
    for number in range(60):
        body = {
            "collection": "docs",
            "source_uri": f"d{number}",
            "text": "\n\n".join(paragraphs(4, seed=f"flush{number}")),
        }
        assert client.post("/api/v1/documents", json=body).status_code == 202
        if number % 20 == 10:
            redis_client().flushall()

    def settled() -> bool:
        with tenancy.scope(collection.tenant_id):
            return IngestionJob.objects.filter(state="done").count() == 60

    wait_for(settled, seconds=60, what="the sweeper to find what Redis forgot")
    assert_whole(collection, documents=60)


def test_a_web_process_killed_after_its_answer_has_kept_the_document(
    tenant: Tenant, make_key: Any, workers: Workers
) -> None:
    collection = make_collection(tenant)
    with Server(DATA, REDIS_URL="redis://127.0.0.1:1/0") as doomed:  # no broker either: not even a wake-up leaves it
        headers = {"X-API-Key": make_key(tenant)}
        body = {"collection": "docs", "text": "Kept by Postgres alone."}
        assert httpx.post(f"{doomed.url}/api/v1/documents", json=body, headers=headers, timeout=30).status_code == 202
        doomed.running.kill()

    def settled() -> bool:
        with tenancy.scope(tenant.id):
            return Document.objects.filter(state="live").exists()

    wait_for(settled, seconds=30, what="the sweeper")
    assert_whole(collection, documents=1)


@pytest.mark.parametrize("workers_at_once", [4])
def test_one_job_delivered_to_many_at_once_is_done_once(collection: Collection, put: Put, workers_at_once: int) -> None:
    from apps.documents import embed, prepare

    accepted = put(collection, "\n\n".join(paragraphs(30, seed="many")))

    def run(_: int) -> None:
        try:
            prepare.drain(job_id=accepted.job.id)
            embed.drain(job_id=accepted.job.id)
        finally:
            connection.close()

    with ThreadPoolExecutor(workers_at_once) as pool:
        list(pool.map(run, range(workers_at_once * 3)))
    prepare.drain(job_id=accepted.job.id)
    embed.drain(job_id=accepted.job.id)
    assert_whole(collection, documents=1)
    with tenancy.scope(collection.tenant_id):
        assert Collection.objects.get(id=collection.id).epoch == 1
