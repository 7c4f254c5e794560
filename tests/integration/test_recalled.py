"""A search that expects its collections to be what they were the last time finds what one finds that asks first."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection, connections

from apps.access import tenancy
from apps.access.models import Tenant
from apps.access.problems import Problem
from apps.documents import collections, remove, spaces
from apps.documents.accept import Accepted
from apps.documents.embedding import EmbeddingError
from apps.documents.models import Collection, EmbeddingSpace
from apps.retrieval import search as searching
from apps.retrieval.search import search
from apps.retrieval.types import SearchQuery, SearchResult
from tests.conftest import make_collection

Ingest = Callable[..., Accepted]
MODES = pytest.mark.parametrize("mode", ["dense", "lexical", "hybrid"])


@pytest.fixture
def asked_first(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The queries of searches that asked for the collections before anything else."""
    found: list[str] = []
    look = searching._found
    monkeypatch.setattr(
        searching, "_found", lambda tenant_id, query: found.append(query.query) or look(tenant_id, query)
    )
    return found


def _search(tenant: Tenant, text: str = "pangolin", **more: Any) -> SearchResult:
    return search(tenant_id=tenant.id, query=SearchQuery(text, **{"mode": "lexical"} | more), reuse=False)


def _names(found: SearchResult) -> list[str]:
    return [hit.source_uri for hit in found.hits]


@MODES
def test_the_third_search_of_the_same_collections_does_not_ask_first(
    tenant: Tenant, collection: Collection, ingest: Ingest, asked_first: list[str], mode: str
) -> None:
    ingest(collection, "Pangolins have scales.", source_uri="pangolin")
    found = [_search(tenant, text, mode=mode) for text in ("pangolin", "pangolins", "scales", "pangolin")]
    assert asked_first == ["pangolin", "pangolins"]
    assert [_names(each) for each in found] == [["pangolin"]] * 4
    assert found[0].hits == found[3].hits and found[0].snapshot == found[3].snapshot


@MODES
def test_whatever_was_published_meanwhile_is_found(
    tenant: Tenant, collection: Collection, ingest: Ingest, asked_first: list[str], mode: str
) -> None:
    for number in range(4):
        ingest(collection, f"Pangolin number {number}.", source_uri=f"pangolin{number}")
        for _ in range(3):
            found = _search(tenant, mode=mode)
            assert set(_names(found)) == {f"pangolin{each}" for each in range(number + 1)}
            with tenancy.scope(tenant.id):
                assert found.snapshot == {collection.slug: Collection.objects.get(id=collection.id).epoch}
    assert len(asked_first) == 8


def test_a_collection_that_came_or_went(tenant: Tenant, collection: Collection, ingest: Ingest) -> None:
    ingest(collection, "A pangolin.", source_uri="old")
    for _ in range(3):
        assert _names(_search(tenant)) == ["old"]
        assert _names(_search(tenant, collections=("docs",))) == ["old"]
    other = make_collection(tenant, slug="more")
    assert _search(tenant).snapshot.keys() == {"docs", "more"}
    ingest(other, "Another pangolin.", source_uri="new")
    assert set(_names(_search(tenant))) == {"old", "new"}
    with tenancy.scope(tenant.id):
        collections.remove(collection=collection)
    assert _names(_search(tenant)) == ["new"]
    with pytest.raises(Problem, match="no collection"):
        _search(tenant, collections=("docs",))


def test_another_tenant_is_not_taken_for_this_one(
    tenant: Tenant, other_tenant: Tenant, collection: Collection, ingest: Ingest
) -> None:
    ingest(collection, "A pangolin.", source_uri="ours")
    ingest(make_collection(other_tenant, slug="docs"), "A pangolin.", source_uri="theirs")
    for _ in range(4):
        assert _names(_search(tenant)) == ["ours"]
        assert _names(_search(other_tenant)) == ["theirs"]


def test_a_space_that_is_looked_through_in_another_way(
    tenant: Tenant, collection: Collection, ingest: Ingest, asked_first: list[str]
) -> None:
    ingest(collection, "A pangolin.", source_uri="pangolin")
    for _ in range(3):
        _search(tenant, mode="dense")
    assert len(asked_first) == 2
    space = EmbeddingSpace.objects.using("owner").get(id=collection.space_id)
    try:
        EmbeddingSpace.objects.using("owner").filter(id=space.id).update(index_parameters={"m": 16, "other": 1})
        _search(tenant, mode="dense")
        assert len(asked_first) == 3
    finally:
        space.save(using="owner")


def test_an_error_that_comes_of_what_is_no_more_is_not_told(
    tenant: Tenant, collection: Collection, ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model of the collection's old space is gone; the collection is in another one."""
    ingest(collection, "A pangolin.", source_uri="pangolin")
    for _ in range(3):
        assert _names(_search(tenant, mode="dense")) == ["pangolin"]
    old = collection.space_id

    def new_vector(*, space: EmbeddingSpace, **more: Any) -> Any:
        if space.id == old:
            raise EmbeddingError("unreachable", "The server does not answer.", retryable=True)
        return look(space=space, **more)

    look = searching.new_vector
    monkeypatch.setattr(searching, "new_vector", new_vector)
    with pytest.raises(EmbeddingError):
        _search(tenant, "never asked", mode="dense")
    space = spaces.create(slug="recalled", backend="fake", model="fake", dimensions=32)
    with tenancy.scope(tenant.id):
        remove.delete(tenant_id=tenant.id, document_id=_search(tenant).hits[0].document_id)
        Collection.objects.filter(id=collection.id).update(space=space)
    ingest(Collection.objects.using("owner").get(id=collection.id), "A new pangolin.", source_uri="new")
    assert _names(_search(tenant, "still never asked", mode="dense")) == ["new"]


def test_nor_is_one_of_the_database(
    tenant: Tenant, collection: Collection, ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(collection, "A pangolin.", source_uri="pangolin")
    for _ in range(3):
        _search(tenant, mode="dense")
    rows_of = searching.rows_of

    def fail_once(*given: Any) -> Any:
        monkeypatch.setattr(searching, "rows_of", rows_of)
        with ThreadPoolExecutor(1) as elsewhere:
            elsewhere.submit(ingest, collection, "Another one.", source_uri="other").result()
            elsewhere.submit(connections.close_all).result()
        with connection.wrap_database_errors:
            connection.connection.execute("SELECT * FROM embedding_gone").fetchall()

    monkeypatch.setattr(searching, "rows_of", fail_once)
    assert set(_names(_search(tenant, mode="dense"))) == {"pangolin", "other"}
