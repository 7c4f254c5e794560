"""Another embedding model without a pause: built beside the one that serves, promoted, taken back, let go of."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from typing import Any
from uuid import uuid4

import httpx
import pytest
from django.conf import settings
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection, connections
from django.test import override_settings
from django.utils import timezone

from apps.access import tenancy
from apps.access.models import Tenant
from apps.access.problems import Problem
from apps.documents import collections, embed, erasure, prepare, remove, second_space, spaces, vector_index
from apps.documents.accept import Accepted
from apps.documents.embedding.fake import FakeEmbedder
from apps.documents.models import Collection, Document, EmbeddingSpace, SpaceBuild
from apps.retrieval import search as searching
from apps.retrieval.search import search
from apps.retrieval.types import SearchQuery, SearchResult
from tests.conftest import DATA, make_collection
from tests.support.processes import Server

Ingest = Callable[..., Accepted]
PARAGRAPHS = [
    f"The {noun} of the harbour is {colour}." for noun in ("gate", "crane", "light") for colour in ("red", "blue")
]


@pytest.fixture
def second(database: None) -> EmbeddingSpace:
    return spaces.create(slug=f"second-{uuid4().hex[:8]}", backend="fake", model="fake", dimensions=64)


def _find(collection: Collection, text: str, **values: Any) -> SearchResult:
    query = SearchQuery(text, collections=(collection.slug,), mode="dense", k=3, **values)
    return search(tenant_id=collection.tenant_id, query=query)


def _texts(found: SearchResult) -> list[str]:
    return [hit.text for hit in found.hits]


def _build(collection: Collection, space: EmbeddingSpace) -> SpaceBuild:
    with tenancy.scope(collection.tenant_id):
        builds = second_space.begin(space=space)
    for build in builds:
        assert second_space.work(tenant_id=collection.tenant_id, build_id=build.id)
    assert second_space.finish(space)
    with tenancy.scope(collection.tenant_id):
        return SpaceBuild.objects.get(id=builds[0].id)


def _coverage(collection: Collection, space: EmbeddingSpace) -> tuple[int, int]:
    with tenancy.scope(collection.tenant_id):
        return second_space.coverage(collection, space)


def _promote(collection: Collection, space: EmbeddingSpace) -> None:
    with tenancy.scope(collection.tenant_id):
        second_space.promote(space=space)
        collection.refresh_from_db()


def test_a_second_space_is_built_and_promoted_and_taken_back_and_retired(
    collection: Collection, second: EmbeddingSpace, ingest: Ingest
) -> None:
    first = collection.space
    for number, text in enumerate(PARAGRAPHS):
        ingest(collection, text, source_uri=str(number))
    before = _find(collection, PARAGRAPHS[0])
    build = _build(collection, second)
    assert (build.state, build.embedded, _coverage(collection, second)) == ("done", 6, (6, 6))
    assert vector_index.is_indexed(second)
    assert _texts(_find(collection, PARAGRAPHS[0], second=True))[0] == PARAGRAPHS[0]

    _promote(collection, second)
    assert (collection.space, collection.second_space) == (second, first)
    after = _find(collection, PARAGRAPHS[0])
    assert _texts(after)[0] == PARAGRAPHS[0] and not after.cached
    assert after.hits[1].scores["dense"] != before.hits[1].scores["dense"]  # by other vectors
    assert after.snapshot["docs"] > before.snapshot["docs"]

    with tenancy.scope(collection.tenant_id):
        second_space.rollback(space=second)
        collection.refresh_from_db()
    assert (collection.space, collection.second_space) == (first, second)
    assert _find(collection, PARAGRAPHS[0]).hits[1].scores == before.hits[1].scores

    with tenancy.scope(collection.tenant_id):
        second_space.retire(space=second)
        collection.refresh_from_db()
    second_space.settle(second)
    assert collection.second_space is None and second.state == EmbeddingSpace.State.RETIRED
    assert _texts(_find(collection, PARAGRAPHS[0]))[0] == PARAGRAPHS[0]
    _build(collection, second)  # and once more, with what is left of it
    _promote(collection, second)


def test_what_is_written_meanwhile_is_in_both(collection: Collection, second: EmbeddingSpace, ingest: Ingest) -> None:
    first = ingest(collection, "The gate is red.", source_uri="a").document
    ingest(collection, "The crane is blue.", source_uri="b")
    with tenancy.scope(collection.tenant_id):
        (build,) = second_space.begin(space=second)
    ingest(collection, "The gate is green.", source_uri="a")  # retires a chunk that has no vector there yet
    ingest(collection, "The light is on.", source_uri="c")
    assert _coverage(collection, second) == (4, 2)
    second_space.work(tenant_id=collection.tenant_id, build_id=build.id)
    assert _coverage(collection, second) == (4, 4)  # the retired one, too: for the past
    second_space.finish(second)
    _promote(collection, second)
    assert _texts(_find(collection, "The gate is green."))[0] == "The gate is green."
    assert set(_texts(_find(collection, "gate"))) == {"The gate is green.", "The crane is blue.", "The light is on."}
    ingest(collection, "The gate is white.", source_uri="a")
    with tenancy.scope(collection.tenant_id):
        remove.delete(tenant_id=collection.tenant_id, document_id=first.id)
        second_space.rollback(space=second)
        collection.refresh_from_db()
    assert set(_texts(_find(collection, "gate"))) == {"The crane is blue.", "The light is on."}


def test_nothing_is_promoted_while_a_chunk_has_no_vector(
    collection: Collection, second: EmbeddingSpace, ingest: Ingest
) -> None:
    for number, text in enumerate(PARAGRAPHS):
        ingest(collection, text, source_uri=str(number))
    with tenancy.scope(collection.tenant_id), pytest.raises(Problem) as refused:
        second_space.promote(space=second)
    assert refused.value.code == "not_second"
    build = _build(collection, second)
    with tenancy.scope(collection.tenant_id), connection.cursor() as cursor:
        cursor.execute(f'SELECT chunk_id FROM "{second.table}" ORDER BY chunk_id LIMIT 1')
        cursor.execute(f'DELETE FROM "{second.table}" WHERE chunk_id = %s', cursor.fetchone())
    for verb in (second_space.promote, lambda **values: second_space.canary(percent=5, **values)):
        with tenancy.scope(collection.tenant_id), pytest.raises(Problem) as refused:
            verb(space=second)
        assert (refused.value.status_code, refused.value.code) == (409, "space_incomplete")
        assert refused.value.errors[0]["detail"] == "1 of 6 chunks have none."
    assert build.state == "done"
    _build(collection, second)
    _promote(collection, second)


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
    assert changed and _coverage(collection, second) == (1, 1)
    assert _texts(_find(collection, "gate")) == ["The gate is red."]
    with tenancy.scope(collection.tenant_id):
        assert Document.objects.get(id=accepted.document.id).state == "live"


def test_a_search_whose_vector_was_made_for_the_other_space_makes_it_anew(
    collection: Collection, second: EmbeddingSpace, ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The spaces are swapped while the model works, before a search that expects its collections and one that does
    not."""
    ingest(collection, "The gate is red.")
    _build(collection, second)
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
        assert _texts(_find(collection, text)) == ["The gate is red."]
    assert len(heard) == 4


class Model(BaseHTTPRequestHandler):
    """An embedding server, of whose model 16 dimensions are told; out of order while `broken`."""

    broken = False
    dimensions = 16

    def do_POST(self) -> None:
        texts = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["input"]
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
    assert _texts(_find(collection, "gate")) == ["The gate is red."]


def test_a_second_model_that_fails_later_fails_no_document(
    collection: Collection, served: EmbeddingSpace, ingest: Ingest
) -> None:
    """Small documents, a large one whose vectors go over the stage, and one that is written through."""
    ingest(collection, "The gate is red.", source_uri="a")
    _build(collection, served)
    _promote(collection, served)
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
    assert _texts(_find(collection, "The gate is green."))[0] == "The gate is green."
    chunks, there = _coverage(collection, served)
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
    assert _coverage(collection, served) == (chunks, chunks)
    _promote(collection, served)


def test_a_write_that_waits_until_it_is_live_is_live_by_the_first_model_where_the_second_fails(
    collection: Collection, served: EmbeddingSpace, ingest: Ingest, client: httpx.Client, api_key: str
) -> None:
    """One web server does not know where the second model is, another finds it out of order."""
    first = ingest(collection, "The gate is red.", source_uri="a").document
    _build(collection, served)
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
    chunks, there = _coverage(collection, served)
    assert (chunks, there) == (5, 1)
    Model.broken = False
    with tenancy.scope(collection.tenant_id):
        build = SpaceBuild.objects.get(space=served)
        assert build.state == "running"
        SpaceBuild.objects.filter(id=build.id).update(lease_until=None)
    assert second_space.work(tenant_id=collection.tenant_id, build_id=build.id)
    assert _coverage(collection, served) == (chunks, chunks)
    _promote(collection, served)
    assert _texts(_find(collection, "The crane of a has the number 1."))[0] == "The crane of a has the number 1."


def test_a_build_looks_again_for_what_was_published_without_a_vector_behind_it(
    collection: Collection, served: EmbeddingSpace, ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The walk is in its last window when a document goes live that the second model was not there for."""
    ingest(collection, "The gate is red.", source_uri="a")
    with tenancy.scope(collection.tenant_id):
        (build,) = second_space.begin(space=served)
    made, late = embed.new_vectors, []

    def publish_meanwhile(space: EmbeddingSpace, texts: Any) -> Any:
        vectors = made(space, texts)
        if space == served and not late:
            late.append(1)
            Model.broken = True
            ingest(collection, "The light is on.", source_uri="b")
            Model.broken = False
        return vectors

    monkeypatch.setattr(embed, "new_vectors", publish_meanwhile)
    second_space.work(tenant_id=collection.tenant_id, build_id=build.id)
    with tenancy.scope(collection.tenant_id):
        assert SpaceBuild.objects.get(id=build.id).state == "running"
        SpaceBuild.objects.filter(id=build.id).update(lease_until=None)
    second_space.work(tenant_id=collection.tenant_id, build_id=build.id)
    with tenancy.scope(collection.tenant_id):
        assert SpaceBuild.objects.get(id=build.id).state == "done"
    assert _coverage(collection, served) == (2, 2)


def test_an_erased_document_leaves_nothing_in_either_space(
    collection: Collection, second: EmbeddingSpace, ingest: Ingest
) -> None:
    document = ingest(collection, "The gate is red.").document
    _build(collection, second)
    with tenancy.scope(collection.tenant_id):
        remove.delete(tenant_id=collection.tenant_id, document_id=document.id, erase=True)
        assert not any(erasure.traces(document.id).values())
    assert _coverage(collection, second) == (0, 0)


def test_a_collection_with_two_spaces_can_be_deleted(
    collection: Collection, second: EmbeddingSpace, ingest: Ingest
) -> None:
    ingest(collection, "The gate is red.")
    _build(collection, second)
    with tenancy.scope(collection.tenant_id):
        collections.remove(collection=collection)
        with connection.cursor() as cursor:
            cursor.execute(f'SELECT count(*) FROM "{second.table}"')
            assert cursor.fetchone()[0] == 0


def test_only_a_promotion_is_taken_back(collection: Collection, second: EmbeddingSpace, ingest: Ingest) -> None:
    first = collection.space
    ingest(collection, "The gate is red.")
    third = spaces.create(slug=f"third-{uuid4().hex[:8]}", backend="fake", model="fake", dimensions=32)

    def back(space: EmbeddingSpace) -> None:
        with tenancy.scope(collection.tenant_id):
            second_space.rollback(space=space)

    def refused(space: EmbeddingSpace) -> None:
        with pytest.raises(Problem) as caught:
            back(space)
        assert (caught.value.status_code, caught.value.code) == (409, "not_promoted")
        with tenancy.scope(collection.tenant_id):
            collection.refresh_from_db()
        assert collection.space == space

    _build(collection, second)
    refused(first)
    _promote(collection, second)
    _build(collection, first)  # complete already; the promotion is still one
    back(second)
    refused(first)
    _promote(collection, second)
    with tenancy.scope(collection.tenant_id):
        second_space.retire(space=first)
    _build(collection, third)
    refused(second)
    _promote(collection, third)
    back(third)
    refused(second)


def test_the_command_takes_collections_of_several_tenants(
    collection: Collection, other_tenant: Tenant, second: EmbeddingSpace, ingest: Ingest
) -> None:
    """Each named one is somewhere, no tenant has all of them; what is retired counts among what there is to do."""
    slugs = [f"{name}-{uuid4().hex[:8]}" for name in "ab"]
    with tenancy.scope(collection.tenant_id):
        mine = Tenant.objects.get(id=collection.tenant_id)
    here, there = make_collection(mine, slug=slugs[0]), make_collection(other_tenant, slug=slugs[1])
    for text in ("The gate is red.", "The gate is green."):  # one of them is retired
        ingest(here, text)
    ingest(there, "The light is on.")
    out = StringIO()
    call_command("space", "build", second.slug, "--collections", ",".join(slugs), stdout=out)
    assert "to be built for 2 collections" in out.getvalue()
    assert f"{slugs[0]}: 2 of 2 chunks\n" in out.getvalue()
    out = StringIO()
    call_command("space", "promote", second.slug, "--collections", ",".join(slugs), stdout=out)
    assert set(out.getvalue().split(" serves ")[1].strip().split(", ")) == set(slugs)


def test_the_command_says_that_it_waits_for_a_worker(
    collection: Collection, second: EmbeddingSpace, ingest: Ingest
) -> None:
    ingest(collection, "The gate is red.")
    with tenancy.scope(collection.tenant_id):
        (build,) = second_space.begin(space=second)
        SpaceBuild.objects.filter(id=build.id).update(lease_until=timezone.now() + timedelta(seconds=3))
        mine = Tenant.objects.get(id=collection.tenant_id).slug
    out = StringIO()
    call_command("space", "build", second.slug, "--tenant", mine, stdout=out)
    assert "docs: another process has this build, or had it when it was killed; its lease ends in" in out.getvalue()
    assert "is built" in out.getvalue()


def test_a_third_space_is_refused(collection: Collection, second: EmbeddingSpace) -> None:
    third = spaces.create(slug=f"third-{uuid4().hex[:8]}", backend="fake", model="fake", dimensions=32)
    with tenancy.scope(collection.tenant_id):
        assert len(second_space.begin(space=second)) == 1
        assert second_space.begin(space=second)[0].state == "running"  # asked again, nothing more
        with pytest.raises(Problem) as refused:
            second_space.begin(space=third)
        assert refused.value.code == "second_space_taken"
        with pytest.raises(Problem) as refused:
            second_space.retire(space=collection.space)
        assert refused.value.code == "space_in_use"
        second_space.retire(space=second)
        assert not SpaceBuild.objects.filter(state="running").exists()


def test_a_canary_answers_its_share(collection: Collection, second: EmbeddingSpace, ingest: Ingest) -> None:
    for number, text in enumerate(PARAGRAPHS):
        ingest(collection, text, source_uri=str(number))
    _build(collection, second)
    questions = [f"which harbour {number}" for number in range(200)]

    def scores(**values: Any) -> dict[str, list[Any]]:
        return {text: [hit.scores for hit in _find(collection, text, **values).hits] for text in questions}

    by_first, by_second = scores(), scores(second=True)
    assert all(by_first[text] != by_second[text] for text in questions)
    with tenancy.scope(collection.tenant_id):
        second_space.canary(space=second, percent=30)
    now = scores()
    assert all(now[text] in (by_first[text], by_second[text]) for text in questions)
    assert 0.2 < sum(now[text] == by_second[text] for text in questions) / len(questions) < 0.4
    assert now == scores()  # always the same ones
    with tenancy.scope(collection.tenant_id):
        second_space.canary(space=second, percent=0)
    assert scores() == by_first


def test_a_build_leaves_the_index_that_answers_for_another_tenant(
    collection: Collection, other_tenant: Tenant, second: EmbeddingSpace, ingest: Ingest
) -> None:
    theirs = make_collection(other_tenant)
    for number, text in enumerate(PARAGRAPHS):
        ingest(theirs, text, source_uri=str(number))
    ingest(collection, PARAGRAPHS[0])
    _build(collection, second)
    with tenancy.scope(collection.tenant_id):
        second_space.canary(space=second, percent=100)
    with tenancy.scope(other_tenant.id):
        Collection.objects.filter(id=theirs.id).update(chunks=1_000_000)  # as if it were large
        (build,) = second_space.begin(space=second)
    assert second_space.work(tenant_id=other_tenant.id, build_id=build.id)
    with tenancy.scope(other_tenant.id):
        Collection.objects.filter(id=theirs.id).update(chunks=len(PARAGRAPHS))  # other tests count them
    second.refresh_from_db()
    assert second.state == EmbeddingSpace.State.LIVE and vector_index.is_indexed(second)
    _promote(collection, second)


def test_a_space_is_retired_while_its_index_is_built(
    collection: Collection, second: EmbeddingSpace, ingest: Ingest
) -> None:
    """The build of an index and the emptying of its table would wait for one another."""
    ingest(collection, "The gate is red.")
    with tenancy.scope(collection.tenant_id):
        (build,) = second_space.begin(space=second)
    spaces.begin_filling(second, coming=1_000_000)
    assert second_space.work(tenant_id=collection.tenant_id, build_id=build.id)
    assert not vector_index.is_indexed(second)
    with vector_index.index_lock(connections["owner"], second):  # as whoever builds it holds it
        with tenancy.scope(collection.tenant_id):
            second_space.retire(space=second)

        def settle() -> None:
            second_space.settle(second)
            connections.close_all()

        retired = threading.Thread(target=settle)
        retired.start()
        retired.join(timeout=20)
        assert not retired.is_alive(), "it waits for an index of hours"
        second.refresh_from_db()
        assert second.state != EmbeddingSpace.State.RETIRED
    assert second_space.is_due()
    second_space.drain()
    second.refresh_from_db()
    assert second.state == EmbeddingSpace.State.RETIRED


def test_a_build_of_what_is_retired_meanwhile_does_not_say_that_it_is_built(
    collection: Collection, second: EmbeddingSpace, ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(collection, "The gate is red.")
    made = embed.new_vectors

    def retire_meanwhile(space: EmbeddingSpace, texts: Any) -> Any:
        if space == second:
            with tenancy.scope(collection.tenant_id):
                second_space.retire(space=second)
            second_space.settle(second)
        return made(space, texts)

    monkeypatch.setattr(embed, "new_vectors", retire_meanwhile)
    with tenancy.scope(collection.tenant_id):
        mine = Tenant.objects.get(id=collection.tenant_id).slug
    with pytest.raises(CommandError, match="given up"):
        call_command("space", "build", second.slug, "--tenant", mine)
    second_space.drain()
    second.refresh_from_db()
    assert second.state == EmbeddingSpace.State.RETIRED


def test_another_tenants_collections_stay_as_they_are(
    collection: Collection, other_tenant: Tenant, second: EmbeddingSpace, ingest: Ingest
) -> None:
    theirs = make_collection(other_tenant)
    ingest(theirs, "The gate is red.")
    ingest(collection, "The gate is red.")
    _build(collection, second)
    _promote(collection, second)
    with tenancy.scope(other_tenant.id):
        theirs.refresh_from_db()
    assert theirs.space != second and theirs.second_space is None
    assert _texts(_find(theirs, "gate")) == ["The gate is red."]


def test_the_api_moves_collections(client: httpx.Client, collection: Collection, ingest: Ingest) -> None:
    for number, text in enumerate(PARAGRAPHS):
        ingest(collection, text, source_uri=str(number))
    labelled = {"query": "red gate", "relevant": [{"source_uri": "0"}]}
    body = {"name": "gates", "collection": "docs", "queries": [labelled]}
    assert client.post("/api/v1/evaluations/sets", json=body).status_code == 201
    slug = f"api-{uuid4().hex[:8]}"
    made = client.post("/api/v1/spaces", json={"slug": slug, "backend": "fake", "model": "fake", "dimensions": 48})
    assert made.status_code == 201 and made.json()["collections"] == []
    at = f"/api/v1/spaces/{made.json()['id']}"
    taken = client.post("/api/v1/spaces", json={"slug": slug, "dimensions": 48})
    assert (taken.status_code, taken.json()["code"]) == (409, "slug_taken")
    refused = client.post(f"{at}/promote", json={})
    assert (refused.status_code, refused.json()["code"]) == (409, "not_second")
    begun = client.post(f"{at}/build", json={"collections": ["docs"]})
    assert begun.status_code == 202 and begun.json()["collections"][0]["build"]["state"] == "running"
    early = client.post(f"{at}/promote", json={})
    assert (early.status_code, early.json()["code"]) == (409, "space_incomplete")
    assert early.json()["errors"] == [{"pointer": "/collections/docs", "detail": "6 of 6 chunks have none."}]
    second_space.drain()  # as a worker does

    shown = client.get(at).json()
    assert shown["state"] == "live" and shown["collections"][0]["role"] == "second"
    assert shown["collections"][0]["build"] | {"created_at": 0, "finished_at": 0} == {
        **{"state": "done", "embedded": 6, "error": None, "created_at": 0, "finished_at": 0}
    }
    (checked,) = client.post(f"{at}/check", json={}).json()
    assert (checked["chunks"], checked["embedded"], checked["labelled"]) == (6, 6, 1)
    assert set(checked["metrics"]["dense"]) == {"default", slug} == set(checked["known_items"])
    assert checked["known_items"][slug] == 1.0 and 0 < checked["agreement"] <= 1
    assert client.post(f"{at}/canary", json={"percent": 10}).json()["collections"][0]["canary_percent"] == 10
    assert client.post(f"{at}/canary", json={"percent": 101}).status_code == 400
    assert client.post(f"{at}/promote", json={}).json()["collections"][0]["role"] == "serving"
    assert client.get("/api/v1/collections/docs").json()["second_space"] == "default"
    found = client.post("/api/v1/search", json={"query": PARAGRAPHS[0], "mode": "dense", "explain": True}).json()
    assert found["results"][0]["text"] == PARAGRAPHS[0] and found["explain"]["dense"]["space"] == slug
    new = client.post("/api/v1/collections", json={"slug": "new", "name": "New"}).json()
    assert new["space"] == slug  # what comes later goes where the others have gone
    assert client.post(f"{at}/retire", json={}).json()["code"] == "space_in_use"
    assert client.post(f"{at}/rollback", json={}).json()["collections"][0]["role"] == "second"
    assert client.get("/api/v1/collections/docs").json()["space"] == "default"
    assert client.post(f"{at}/retire", json={"collections": ["docs"]}).json()["collections"][0]["slug"] == "new"
    assert client.get(f"/api/v1/spaces/{uuid4()}").status_code == 404
    assert any(each["slug"] == slug for each in client.get("/api/v1/spaces?limit=200").json()["results"])


def test_only_an_admin_key_moves_collections(server: str, tenant: Tenant, make_key: Callable[..., str]) -> None:
    headers = {"X-API-Key": make_key(tenant, "read", "write")}
    for method, path in (("GET", ""), ("POST", ""), ("POST", f"/{uuid4()}/promote"), ("POST", f"/{uuid4()}/check")):
        refused = httpx.request(method, f"{server}/api/v1/spaces{path}", headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (403, "missing_scope")


def test_the_command_moves_all_tenants_or_those_that_are_named(
    collection: Collection, other_tenant: Tenant, ingest: Ingest
) -> None:
    theirs = make_collection(other_tenant)
    for each in (collection, theirs):
        ingest(each, "The gate is red.")
    slug = f"cli-{uuid4().hex[:8]}"

    def space(verb: str, *options: str) -> str:
        out = StringIO()
        call_command("space", verb, slug, *options, stdout=out)
        return out.getvalue()

    space("create", "--backend", "fake", "--model", "fake", "--dimensions", "40")
    with tenancy.scope(collection.tenant_id):
        mine = Tenant.objects.get(id=collection.tenant_id).slug
    only = ("--tenant", mine)
    with pytest.raises(CommandError, match="another could be changed for"):
        space("promote", *only)
    with pytest.raises(CommandError, match="There is no collection 'nots'"):
        space("build", "--collections", "nots")
    with pytest.raises(CommandError, match="There is no collection 'nots'"):
        space("build", "--collections", "docs,nots")
    assert f"{slug} is built" in space("build", *only)
    told = space("check", *only)
    assert f"1 of 1 chunks have a vector in {slug}" in told and "both find the same: 1" in told
    with pytest.raises(CommandError, match="not a space of"):
        space("canary", "--percent", "5", "--tenant", other_tenant.slug)
    assert space("promote") == f"{slug} serves docs\n"
    assert space("rollback") == f"{slug} does not serve any more: docs\n"
    assert "has no vectors any more of docs" in space("retire")
    with tenancy.scope(other_tenant.id):
        theirs.refresh_from_db()
        assert theirs.second_space is None
