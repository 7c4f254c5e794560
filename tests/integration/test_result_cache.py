"""Kept results (retrieval/cache.py): given again only where the search would find the same."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from apps.access import tenancy
from apps.access.models import Tenant
from apps.documents import collections, edit, embed, merge, prepare, reindex, remove
from apps.documents.accept import Submission
from apps.documents.models import Collection, Document
from apps.retrieval.filters import compile_filter
from apps.retrieval.search import search
from apps.retrieval.types import SearchQuery, SearchResult
from tests.conftest import DATA, make_collection
from tests.support.processes import Server

ASKED = SearchQuery("pangolin scales", mode="lexical")


def ask(collection: Collection, query: SearchQuery = ASKED) -> SearchResult:
    return search(tenant_id=collection.tenant_id, query=query)


def texts(found: SearchResult) -> list[str]:
    return [hit.text for hit in found.hits]


def test_the_second_time_the_result_is_from_the_cache(collection: Collection, ingest: Any) -> None:
    ingest(collection, "Pangolins have scales.")
    for mode in ("lexical", "dense", "hybrid"):
        query = SearchQuery("pangolin scales", mode=mode)
        first, second = ask(collection, query), ask(collection, query)
        assert (first.cached, second.cached) == (False, True)
        assert second.hits == first.hits
        assert second.snapshot == first.snapshot


def test_another_question_or_another_tenant_has_its_own(
    collection: Collection, other_tenant: Tenant, ingest: Any
) -> None:
    ingest(collection, "Pangolins have scales.")
    ask(collection)
    theirs = make_collection(other_tenant)
    assert not ask(theirs).cached
    assert ask(theirs).hits == []
    year = {"metadata.year": 2020}
    others = [
        SearchQuery("pangolin", mode="lexical"),
        SearchQuery("pangolin scales", mode="dense"),
        SearchQuery("pangolin scales", mode="lexical", k=3),
        SearchQuery("pangolin scales", mode="lexical", collections=("docs",)),
        SearchQuery("pangolin scales", mode="lexical", filter=compile_filter(year)),
        SearchQuery("pangolin scales", mode="lexical", filter=compile_filter({"metadata.year": 2021})),
    ]
    assert not any(ask(collection, query).cached for query in others)


def test_what_is_kept_cannot_be_changed_by_who_was_given_it(collection: Collection, ingest: Any) -> None:
    ingest(collection, "Pangolins have scales.", metadata={"year": 2020})
    for _ in range(3):
        found = ask(collection)
        assert found.hits[0].metadata == {"year": 2020}
        found.hits[0].metadata["year"] = 1999
        found.hits.clear()


def test_reuse_can_be_refused(collection: Collection, ingest: Any) -> None:
    ingest(collection, "Pangolins have scales.")
    ask(collection)
    assert not search(tenant_id=collection.tenant_id, query=ASKED, reuse=False).cached


def _publish(collection: Collection, document: Document, ingest: Any) -> None:
    ingest(collection, "Pangolins have scales and a long tongue.")


def _publish_another(collection: Collection, document: Document, ingest: Any) -> None:
    ingest(collection, "The scales of a pangolin overlap.", source_uri="another")


def _merge_another(collection: Collection, document: Document, ingest: Any) -> None:
    text = io.BytesIO(b"The scales of a pangolin overlap.")
    submission = Submission(content=text, media_type="text/plain", filename="", source_uri="merged")
    assert merge.merge(collection=collection, submissions=[submission]) == ["accepted"]


def _delete(collection: Collection, document: Document, ingest: Any) -> None:
    remove.delete(tenant_id=collection.tenant_id, document_id=document.id)


def _erase(collection: Collection, document: Document, ingest: Any) -> None:
    remove.delete(tenant_id=collection.tenant_id, document_id=document.id, erase=True)


def _delete_many(collection: Collection, document: Document, ingest: Any) -> None:
    remove.delete_many(collection=collection, document_ids=[document.id])


def _edit_title(collection: Collection, document: Document, ingest: Any) -> None:
    with tenancy.scope(collection.tenant_id):
        edit.edit(document.id, {"title": "Scaly"})


def _edit_metadata(collection: Collection, document: Document, ingest: Any) -> None:
    with tenancy.scope(collection.tenant_id):
        edit.edit(document.id, {"metadata": {"year": 2020}})


def _raise_version(collection: Collection, document: Document, ingest: Any) -> None:
    ingest(collection, "Pangolins have scales.", version=9)


def _change_language(collection: Collection, document: Document, ingest: Any) -> None:
    with tenancy.scope(collection.tenant_id):
        collections.change(collection=Collection.objects.get(id=collection.id), values={"language": "simple"})


def _reindex(collection: Collection, document: Document, ingest: Any) -> None:
    """Cut anew so that both sentences stand apart."""
    with tenancy.scope(collection.tenant_id):
        held = Collection.objects.get(id=collection.id)
        collections.change(collection=held, values={"chunking": {"strategy": "fixed", "max_tokens": 16}})
    reindex.feed()
    prepare.drain()
    embed.drain()


def _remove_collection(collection: Collection, document: Document, ingest: Any) -> None:
    """And make one of the same name, which comes to the same epoch."""
    with tenancy.scope(collection.tenant_id):
        held = Collection.objects.get(id=collection.id)
        epoch = held.epoch
        collections.remove(collection=held)
    made = make_collection(Tenant(id=collection.tenant_id), slug=collection.slug)
    with tenancy.scope(collection.tenant_id):
        Collection.objects.filter(id=made.id).update(epoch=epoch)


CHANGES = (
    *(_publish, _publish_another, _merge_another, _delete, _erase, _delete_many, _edit_title, _edit_metadata),
    *(_raise_version, _change_language, _reindex, _remove_collection),
)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__.strip("_"))
def test_nothing_is_reused_after(change: Callable[..., None], collection: Collection, ingest: Any) -> None:
    ingest(collection, "Pangolins have scales.\n\n" + "Otters swim in rivers and eat fish. " * 6)
    with tenancy.scope(collection.tenant_id):
        document = Document.objects.get()
    before = ask(collection)
    assert ask(collection).cached
    change(collection, document, ingest)
    after = ask(collection)
    assert not after.cached
    assert after.hits == search(tenant_id=collection.tenant_id, query=ASKED, reuse=False).hits
    assert after.hits != before.hits


def test_new_metadata_of_a_pending_version_counts_at_once(collection: Collection, ingest: Any, put: Any) -> None:
    """It did not fit the filter, so that it is not among the hits whose documents are looked at."""
    ingest(collection, "Pangolins have scales.", metadata={"year": 2019})
    query = SearchQuery("pangolin scales", mode="lexical", filter=compile_filter({"metadata.year": 2020}))
    assert ask(collection, query).hits == []
    put(collection, "Pangolins have many scales.", metadata={"year": 2020})
    assert texts(ask(collection, query)) == ["Pangolins have scales."]


def test_a_pending_version_is_told_at_once(collection: Collection, ingest: Any, put: Any) -> None:
    ingest(collection, "Pangolins have scales.")
    ask(collection)
    put(collection, "Pangolins have many scales.")
    found = ask(collection)
    assert (found.cached, found.hits[0].fresh, len(found.stale)) == (False, False, 1)
    assert not ask(collection).cached  # nor is kept what is stale


def test_an_order_by_time_of_change_is_not_kept(collection: Collection, ingest: Any) -> None:
    ingest(collection, "Pangolins have scales.")
    late = compile_filter({"updated_at": {"$gte": "2020-01-01T00:00:00Z"}})
    query = SearchQuery("pangolin scales", mode="lexical", filter=late)
    assert not any(ask(collection, query).cached for _ in range(3))


@pytest.fixture(scope="module")
def processes(database: None) -> Iterator[list[Server]]:
    """Three web processes."""
    with ExitStack() as stack:
        yield [stack.enter_context(Server(DATA)) for _ in range(3)]


def test_no_process_serves_the_old_result_after_a_publish_has_returned(
    processes: list[Server], collection: Collection, api_key: str, ingest: Any
) -> None:
    body = {"query": "pangolin scales", "mode": "lexical"}
    with ExitStack() as stack:
        clients = [stack.enter_context(server.client(api_key)) for server in processes]
        pool = stack.enter_context(ThreadPoolExecutor(len(clients)))

        def everywhere() -> list[dict[str, Any]]:
            return list(pool.map(lambda client: client.post("/api/v1/search", json=body).json(), clients))

        for number in range(1, 16):
            ingest(collection, f"Pangolins have {number} scales.")
            assert [found["results"][0]["text"] for found in everywhere()] == [f"Pangolins have {number} scales."] * 3
            assert all(found["cached"] for found in everywhere())
        document = everywhere()[0]["results"][0]["document_id"]
        url = f"/api/v1/documents/{document}"
        assert clients[0].patch(url, json={"title": "Scaly"}).status_code == 200
        assert [found["results"][0]["title"] for found in everywhere()] == ["Scaly"] * 3
        assert all(found["cached"] for found in everywhere())
        assert clients[1].delete(url, params={"erase": "true"}).status_code == 204
        assert [found["results"] for found in everywhere()] == [[]] * 3


def test_while_others_publish_no_answer_is_older_than_the_last_publish(
    processes: list[Server], collection: Collection, api_key: str, ingest: Any
) -> None:
    """Readers of every process ask all the time; what each is given is at least what had been published before."""
    body = {"query": "pangolin scales", "mode": "lexical"}
    published = 0
    seen = reused = 0

    def read(server: Server) -> tuple[int, int]:
        asked = cached = 0
        with server.client(api_key) as client:
            while not done:
                least = published
                found = client.post("/api/v1/search", json=body).json()
                if least:
                    number = int(found["results"][0]["text"].split()[2])
                    assert number >= least, (number, least)
                asked, cached = asked + 1, cached + found["cached"]
        return asked, cached

    done = False
    with ThreadPoolExecutor(6) as pool:
        readers = [pool.submit(read, server) for server in processes * 2]
        try:
            for number in range(1, 31):
                ingest(collection, f"Pangolins have {number} scales.")
                published = number
        finally:
            done = True
        for reader in readers:
            asked, cached = reader.result()
            seen, reused = seen + asked, reused + cached
    assert seen > 30
    assert reused > 0
