"""The embedding model of a collection that is written to and searched all the time is changed, by real models in real
processes: no search fails, none mixes spaces, nothing that was accepted is lost; also where the builder is killed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import httpx
import pytest

from apps.access import tenancy
from apps.access.models import Tenant
from apps.documents import second_space, spaces, tasks
from apps.documents.models import Chunk, Collection, Document, EmbeddingSpace, SpaceBuild
from tests.conftest import DATA
from tests.support.processes import Process, Server, wait_for, worker

from .test_ingest import paragraphs

STANDING, WRITTEN, CHANGES, KILLS = 200, 12, 25, 2


@pytest.fixture
def cut_space(real_space: EmbeddingSpace) -> EmbeddingSpace:
    """The same model's first 128 dimensions: another table, another type, other vectors."""
    return spaces.create(slug=f"cut-{uuid4().hex[:8]}", backend="local", model="all-MiniLM-L6-v2", dimensions=128)


class Crowd:
    """Writers and readers in threads, over HTTP, until told to stop; what went wrong is in `failures`."""

    def __init__(self, web: Server, key: str, standing: dict[str, str]) -> None:
        self.web, self.key, self.standing = web, key, standing
        self.failures: list[str] = []
        self.searches = self.writes = 0
        self.last: dict[str, str] = {}
        self.over = threading.Event()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._do, args=(what,)) for what in (self._read, self._read, self._write)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.over.set()
            for thread in threads:
                thread.join()

    def _do(self, what: Callable[[httpx.Client, int], None]) -> None:
        with self.web.client(self.key) as client:
            turn = 0
            while not self.over.is_set():
                try:
                    what(client, turn)
                except Exception as error:
                    self.failures.append(repr(error))
                turn += 1

    def _read(self, client: httpx.Client, turn: int) -> None:
        """The text of a document that stands finds it: were a vector of one model compared with those of another, it
        would not be among the nearest, or the search would fail."""
        name, text = list(self.standing.items())[turn * 7 % len(self.standing)]
        mode = ("dense", "hybrid")[turn % 2]
        unheard = f"{text} {turn}"  # its vector is made for it
        asked = {"query": unheard, "mode": mode, "k": 5, "collections": ["real"], "consistency": "eventual"}
        found = client.post("/api/v1/search", json=asked)
        self.searches += 1
        if found.status_code != 200:
            self.failures.append(found.text)
            return
        results = {hit["source_uri"]: hit["scores"]["dense"] or 0 for hit in found.json()["results"]}
        if not results.get(name, 0) > 0.8:
            self.failures.append(f"{mode} {name}: {results}")

    def _write(self, client: httpx.Client, turn: int) -> None:
        name = f"written-{turn % WRITTEN}"
        text = paragraphs(1, seed=f"{name} {turn}")[0]
        sent = client.post("/api/v1/documents", json={"collection": "real", "source_uri": name, "text": text})
        self.writes += 1
        if sent.status_code not in (200, 201, 202):
            self.failures.append(sent.text)
        self.last[name] = text
        time.sleep(0.1)


def test_a_model_is_changed_under_continuous_writes_and_searches(
    web: Server,
    tenant: Tenant,
    api_key: str,
    real_collection: Collection,
    cut_space: EmbeddingSpace,
    ingest: Callable[..., Any],
) -> None:
    standing = {f"standing-{number}": paragraphs(1, seed=f"standing {number}")[0] for number in range(STANDING)}
    for name, text in standing.items():
        ingest(real_collection, text, source_uri=name)
    crowd = Crowd(web, api_key, standing)
    at = f"/api/v1/spaces/{cut_space.id}"
    victim = _embedder("victim0")
    preparer = worker(DATA, "prepare", "default", name="prepare", pool="threads")
    try:
        with web.client(api_key) as admin, crowd.at_work():
            begun = admin.post(f"{at}/build", json={"collections": ["real"]})
            assert begun.status_code == 202, begun.text

            def build() -> SpaceBuild:
                tasks.sweep()  # what beat does
                with tenancy.scope(tenant.id):
                    return SpaceBuild.objects.get(collection=real_collection)

            for number in range(1, KILLS + 1):
                wait_for(lambda: build().fence >= number, seconds=120, what="a worker")  # noqa: B023
                victim.kill()
                assert build().state == "running", "it was over before it could be killed"
                victim = _embedder(f"victim{number}")
            wait_for(lambda: build().state == "done", seconds=900, what="the build")
            wait_for(lambda: admin.get(at).json()["state"] == "live", seconds=60, what="the index")
            for verb in ("promote", "rollback") * CHANGES + ("promote",):
                done = admin.post(f"{at}/{verb}", json={})
                assert done.status_code == 200, done.text
                time.sleep(0.05)
            first = admin.get("/api/v1/collections/real").json()["second_space"]
            found = next(
                each for each in admin.get("/api/v1/spaces?limit=200").json()["results"] if each["slug"] == first
            )
            assert admin.post(f"/api/v1/spaces/{found['id']}/retire", json={"collections": ["real"]}).status_code == 200
            time.sleep(1)
        assert not crowd.failures, crowd.failures[:5]
        assert crowd.searches > 50 and crowd.writes > WRITTEN

        def settled() -> bool:
            tasks.sweep()
            with tenancy.scope(tenant.id):
                return not Document.objects.filter(pending_since__isnull=False).exists()

        wait_for(settled, seconds=90, what="all that was accepted")
    finally:
        for process in (victim, preparer):
            process.kill()
    with tenancy.scope(tenant.id):
        real_collection.refresh_from_db()
        assert (real_collection.space_id, real_collection.second_space) == (cut_space.id, None)
        chunks, there = second_space.coverage(real_collection, cut_space)
        assert chunks == there
        live = Chunk.objects.filter(collection_id=real_collection.id, retired_in_version__isnull=True)
        assert live.count() == real_collection.chunks
    crowd.standing, crowd.failures = standing | crowd.last, []
    with web.client(api_key) as client:
        for turn in range(len(crowd.standing)):
            crowd._read(client, turn)
    assert not crowd.failures, crowd.failures[:5]


def _embedder(name: str) -> Process:
    return worker(DATA, "embed", name=name, JOB_LEASE_SECONDS="2")
