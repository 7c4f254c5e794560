"""A collection with two embedding spaces, whose second model fails, hangs, or is changed while the first works."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

import httpx
import pytest
from django.conf import settings
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from django.test import override_settings
from django.utils import timezone

from apps.access import tenancy
from apps.access.problems import Problem
from apps.documents import embed, prepare, second_space, spaces, tasks
from apps.documents.accept import Accepted
from apps.documents.embedding.fake import FakeEmbedder
from apps.documents.models import Collection, Document, EmbeddingSpace, SpaceBuild
from apps.retrieval import search as searching
from tests.conftest import DATA
from tests.support.processes import Server, wait_for, worker
from tests.support.second_spaces import Ingest, build_for, coverage_of, find, promote_for, texts_of


def test_vectors_made_for_other_spaces_are_made_again(
    collection: Collection, second: EmbeddingSpace, put: Callable[..., Accepted], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The spaces change between embedding and publishing."""
    accepted = put(collection, "The gate is red.")
    assert accepted.job is not None
    prepare.drain(job_id=accepted.job.id)
    made, changed = embed.new_vectors, []

    def change_meanwhile(space: EmbeddingSpace, texts: Any) -> Any:
        vectors = made(space, texts)
        if not changed:
            with tenancy.scope(collection.tenant_id):
                changed.extend(second_space.begin(space=second))
        return vectors

    monkeypatch.setattr(embed, "new_vectors", change_meanwhile)
    embed.drain(job_id=accepted.job.id)
    assert changed and coverage_of(collection, second) == (1, 1)
    assert texts_of(find(collection, "gate")) == ["The gate is red."]
    with tenancy.scope(collection.tenant_id):
        assert Document.objects.get(id=accepted.document.id).state == "live"


def test_a_search_whose_vector_was_made_for_the_other_space_makes_it_anew(
    collection: Collection, second: EmbeddingSpace, ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The spaces are swapped while the model works, before a search that expects its collections and one that does
    not."""
    ingest(collection, "The gate is red.")
    build_for(collection, second)
    made, heard = searching.new_vector, []

    def swap_meanwhile(*, query: str, **values: Any) -> Any:
        vector = made(query=query, **values)
        if query not in heard:
            heard.append(query)
            with tenancy.scope(collection.tenant_id):
                (second_space.promote if len(heard) % 2 else second_space.rollback)(space=second)
        return vector

    monkeypatch.setattr(searching, "new_vector", swap_meanwhile)
    for text in ("gate", "red gate", "which gate", "the gate"):
        assert texts_of(find(collection, text)) == ["The gate is red."]
    assert len(heard) == 4


class Model(BaseHTTPRequestHandler):
    """An embedding server, of whose model 16 dimensions are told; out of order while `broken`; silent, with the line
    open, until `awake` is set."""

    broken = False
    dimensions = 16
    awake = threading.Event()
    awake.set()

    def do_POST(self) -> None:
        texts = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["input"]
        Model.awake.wait()
        vectors = FakeEmbedder(dimensions=Model.dimensions).embed(texts)
        rows = [{"index": number, "embedding": vector.tolist()} for number, vector in enumerate(vectors)]
        body = json.dumps({"object": "list", "model": "m", "data": rows}).encode()
        self.send_response(503 if Model.broken else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None: ...


@pytest.fixture
def served(database: None) -> Iterator[EmbeddingSpace]:
    """A space whose model is behind a server that may fail."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Model) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with override_settings(EMBEDDING_URL=f"http://127.0.0.1:{server.server_port}/v1"):
            yield spaces.create(slug=f"served-{uuid4().hex[:8]}", backend="openai", model="m", dimensions=16)
        Model.awake.set()
        server.shutdown()
    Model.broken, Model.dimensions = False, 16


def test_a_model_that_does_not_work_is_refused_before_any_collection_is_committed_to_it(
    collection: Collection, served: EmbeddingSpace, ingest: Ingest, client: httpx.Client
) -> None:
    unset = spaces.create(slug=f"typo-{uuid4().hex[:8]}", backend="openai", model="m", dimensions=16)

    def refused(space: EmbeddingSpace) -> tuple[int, str]:
        with tenancy.scope(collection.tenant_id), pytest.raises(Problem) as caught:
            second_space.begin(space=space)
        with pytest.raises(CommandError):
            call_command("space", "build", space.slug)
        with tenancy.scope(collection.tenant_id):
            collection.refresh_from_db()
            assert collection.second_space is None and not SpaceBuild.objects.exists()
        return caught.value.status_code, caught.value.code

    with override_settings(EMBEDDING_URL=""):
        assert refused(unset) == (422, "unusable_model")
    told = client.post(f"/api/v1/spaces/{unset.id}/build", json={})  # of a web server without EMBEDDING_URL
    assert (told.status_code, told.json()["code"]) == (422, "unusable_model")
    Model.dimensions = 24
    assert refused(served) == (422, "wrong_dimensions")
    Model.broken = True
    assert refused(served) == (503, "server_error")
    ingest(collection, "The gate is red.")
    assert texts_of(find(collection, "gate")) == ["The gate is red."]


def test_a_second_model_that_fails_later_fails_no_document(
    collection: Collection, served: EmbeddingSpace, ingest: Ingest
) -> None:
    """Small documents, a large one whose vectors go over the stage, and one that is written through."""
    ingest(collection, "The gate is red.", source_uri="a")
    build_for(collection, served)
    promote_for(collection, served)
    with tenancy.scope(collection.tenant_id):
        second_space.rollback(space=served)
    Model.broken = True
    large = "\n\n".join(f"Ship {number} has {number} masts. " * 20 for number in range(2 * embed.WINDOW_TEXTS))
    wrote = [
        ingest(collection, "The gate is green.", source_uri="a"),
        ingest(collection, "The light is on.", source_uri="b"),
        ingest(collection, large, source_uri="c"),
    ]
    with tenancy.scope(collection.tenant_id):
        for accepted in wrote:
            document = Document.objects.get(id=accepted.document.id)
            assert (document.state, document.error) == ("live", None)
    assert texts_of(find(collection, "The gate is green."))[0] == "The gate is green."
    chunks, there = coverage_of(collection, served)
    assert (there, chunks > embed.WINDOW_TEXTS) == (1, True)
    with tenancy.scope(collection.tenant_id), pytest.raises(Problem) as refused:
        second_space.promote(space=served)
    assert refused.value.code == "space_incomplete"
    with tenancy.scope(collection.tenant_id):
        build = SpaceBuild.objects.get(space=served)
        assert build.state == "running" and build.lease_until > timezone.now()  # a little later

    def again() -> SpaceBuild:
        with tenancy.scope(collection.tenant_id):
            SpaceBuild.objects.filter(id=build.id).update(lease_until=None)
        assert second_space.work(tenant_id=collection.tenant_id, build_id=build.id)
        with tenancy.scope(collection.tenant_id):
            return SpaceBuild.objects.get(id=build.id)

    found = again()
    assert found.state == "running" and found.error["code"] == "server_error"
    Model.broken = False
    assert again().state == "done"
    assert coverage_of(collection, served) == (chunks, chunks)
    promote_for(collection, served)


def test_a_write_that_waits_until_it_is_live_is_live_by_the_first_model_where_the_second_fails(
    collection: Collection, served: EmbeddingSpace, ingest: Ingest, client: httpx.Client, api_key: str
) -> None:
    """One web server does not know where the second model is, another finds it out of order."""
    first = ingest(collection, "The gate is red.", source_uri="a").document
    build_for(collection, served)
    Model.broken = True
    wrote = {"collection": collection.slug, "mode": "write_through"}
    with Server(DATA, EMBEDDING_URL=settings.EMBEDDING_URL) as other, other.client(api_key) as others:
        for number, each in enumerate((client, others)):
            for uri in ("a", f"new {number}"):  # of one there is a version that has vectors in both
                text = f"The crane of {uri} has the number {number}."
                got = each.post("/api/v1/documents", json=wrote | {"source_uri": uri, "text": text})
                assert (got.status_code, got.json()["state"]) == (201, "live"), got.text
                found = each.post("/api/v1/search", json={"query": text, "mode": "dense", "k": 1}).json()["results"]
                assert [hit["text"] for hit in found] == [text]
    with tenancy.scope(collection.tenant_id):
        document = Document.objects.get(id=first.id)
        assert (document.live_version, document.error) == (3, None)
    chunks, there = coverage_of(collection, served)
    assert (chunks, there) == (5, 1)
    Model.broken = False
    with tenancy.scope(collection.tenant_id):
        build = SpaceBuild.objects.get(space=served)
        assert build.state == "running"
        SpaceBuild.objects.filter(id=build.id).update(lease_until=None)
    assert second_space.work(tenant_id=collection.tenant_id, build_id=build.id)
    assert coverage_of(collection, served) == (chunks, chunks)
    promote_for(collection, served)
    assert texts_of(find(collection, "The crane of a has the number 1."))[0] == "The crane of a has the number 1."


def test_no_document_waits_for_a_second_model_that_hangs(
    collection: Collection, served: EmbeddingSpace, ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does the next one when the model is asked again."""
    ingest(collection, "The gate is red.")
    build_for(collection, served)
    Model.awake.clear()
    monkeypatch.setattr(embed, "RETRY_SECONDS", 0)  # each document asks
    for number in range(2):
        began = time.monotonic()
        ingest(collection, f"The crane has the number {number}.", source_uri=str(number))
        assert time.monotonic() - began < embed.SECOND_SECONDS + 3  # on a machine that may do much else
        assert texts_of(find(collection, f"The crane has the number {number}."))[0].endswith(f"{number}.")
    assert coverage_of(collection, served) == (3, 1)
    Model.awake.set()
    ingest(collection, "The light is on.", source_uri="light")
    assert coverage_of(collection, served) == (4, 2)


def test_workers_publish_while_a_second_space_is_filled_by_a_model_that_hangs(
    collection: Collection, served: EmbeddingSpace, ingest: Ingest, client: httpx.Client
) -> None:
    """One worker embeds documents and builds the space. When the model answers again, the space is completed."""
    ingest(collection, "The gate is red.")
    with tenancy.scope(collection.tenant_id):
        (build,) = second_space.begin(space=served)
    Model.awake.clear()
    embedder = worker(DATA, "embed", name="embed", EMBEDDING_URL=settings.EMBEDDING_URL)
    with embedder, worker(DATA, "prepare", "default", name="prepare", pool="threads"):

        def found() -> SpaceBuild:
            tasks.sweep()  # what beat does
            with tenancy.scope(collection.tenant_id):
                return SpaceBuild.objects.get(id=build.id)

        wait_for(lambda: found().fence > 0, what="the worker that builds")
        waited: list[float] = []
        for number in range(5):
            wrote = {"collection": collection.slug, "source_uri": str(number), "text": f"The crane is number {number}."}
            accepted = client.post("/api/v1/documents", json=wrote).json()
            path, began = f"/api/v1/documents/{accepted['id']}", time.monotonic()
            wait_for(lambda: client.get(path).json()["state"] == "live", what="the document")  # noqa: B023
            waited.append(time.monotonic() - began)
        # The first also for the parser's process to begin, on a machine that may do much else.
        assert max(waited) < embed.SECOND_SECONDS + 20 and sorted(waited)[2] < 2, waited
        assert found().state == "running" and coverage_of(collection, served) == (6, 0)
        Model.awake.set()
        wait_for(lambda: found().state == "done", what="the build")
    assert coverage_of(collection, served) == (6, 6)


def test_a_build_goes_on_while_documents_go_live_without_its_model(
    collection: Collection, served: EmbeddingSpace, ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that is too slow for documents to wait for: they do not take the build away from who works on it, and it
    does not end before it has come to all of them."""
    ingest(collection, "The gate is red.", source_uri="gate")
    with tenancy.scope(collection.tenant_id):
        (build,) = second_space.begin(space=served)
    made, late = embed.new_vectors, iter(range(20))

    def publish_meanwhile(space: EmbeddingSpace, texts: Any) -> Any:
        if space == served and not Model.broken and (number := next(late, None)) is not None:
            Model.broken = True
            ingest(collection, f"The crane has the number {number}.", source_uri=str(number))
            Model.broken = False
            connection.close()  # this thread's own
        return made(space, texts)

    monkeypatch.setattr(embed, "new_vectors", publish_meanwhile)
    assert second_space.work(tenant_id=collection.tenant_id, build_id=build.id)
    with tenancy.scope(collection.tenant_id):
        assert SpaceBuild.objects.get(id=build.id).state == "done"
    assert coverage_of(collection, served) == (21, 21)
