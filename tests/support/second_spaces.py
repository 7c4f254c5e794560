"""A collection's second embedding space, as tests build, promote and search it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from apps.access import tenancy
from apps.documents import second_space
from apps.documents.accept import Accepted
from apps.documents.models import Collection, EmbeddingSpace, SpaceBuild
from apps.retrieval.search import search
from apps.retrieval.types import SearchQuery, SearchResult

Ingest = Callable[..., Accepted]
PARAGRAPHS = [
    f"The {noun} of the harbour is {colour}." for noun in ("gate", "crane", "light") for colour in ("red", "blue")
]


def find(collection: Collection, text: str, **values: Any) -> SearchResult:
    query = SearchQuery(text, collections=(collection.slug,), mode="dense", k=3, **values)
    return search(tenant_id=collection.tenant_id, query=query)


def texts_of(found: SearchResult) -> list[str]:
    return [hit.text for hit in found.hits]


def build_for(collection: Collection, space: EmbeddingSpace) -> SpaceBuild:
    with tenancy.scope(collection.tenant_id):
        builds = second_space.begin(space=space)
    for build in builds:
        assert second_space.work(tenant_id=collection.tenant_id, build_id=build.id)
    assert second_space.finish(space)
    with tenancy.scope(collection.tenant_id):
        return SpaceBuild.objects.get(id=builds[0].id)


def coverage_of(collection: Collection, space: EmbeddingSpace) -> tuple[int, int]:
    with tenancy.scope(collection.tenant_id):
        return second_space.coverage(collection, space)


def promote_for(collection: Collection, space: EmbeddingSpace) -> None:
    with tenancy.scope(collection.tenant_id):
        second_space.promote(space=space)
        collection.refresh_from_db()
