"""`POST /api/v1/search` and `/api/v1/search/batch`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from apps.access.problems import Problem
from apps.access.throttling import charge
from apps.access.views import TenantView
from apps.documents.embedding import EmbeddingError

from .asked import asked
from .batch import pointing_at, search_batch
from .freshness import search_fresh
from .serializers import BatchResultSerializer, BatchSerializer, ResultSerializer, SearchSerializer
from .types import SearchQuery


class SearchView(TenantView):
    scope_needed = "read"

    @extend_schema(
        request=SearchSerializer,
        responses=ResultSerializer,
        examples=[OpenApiExample("passages", {"query": "When is an old version used?", "k": 5}, request_only=True)],
    )
    def post(self, request: Request) -> Response:
        """Find the passages that fit a query best.

        By meaning (dense), by words (lexical) or both (hybrid), in one snapshot of the collections.
        """
        query = query_of(self.validated(SearchSerializer))
        with embedding():
            return Response(search_fresh(tenant_id=self.caller.tenant_id, query=query).as_json())


class SearchBatchView(TenantView):
    scope_needed = "read"

    @extend_schema(
        request=BatchSerializer,
        responses=BatchResultSerializer,
        examples=[
            OpenApiExample(
                "two questions",
                {"queries": [{"query": "When is an old version used?"}, {"query": "What is a dead letter?", "k": 3}]},
                request_only=True,
            )
        ],
    )
    def post(self, request: Request) -> Response:
        """Search for up to 256 queries at once.

        Each is what `POST /api/v1/search` takes; results come in their order. They count as so many requests. If one
        of them is refused, so are all, with a pointer to it.
        """
        values = self.validated(BatchSerializer)["queries"]
        queries = []
        for number, each in enumerate(values):
            with pointing_at(number):
                queries.append(query_of(each))
        charge(self.caller, len(queries) - 1)
        with embedding():
            found = search_batch(tenant_id=self.caller.tenant_id, queries=queries)
        return Response({"results": [each.as_json() for each in found]})


def query_of(values: dict[str, Any]) -> SearchQuery:
    """A body's clean values as what they ask for. Raises Problem 400, 422."""
    slugs = values.get("collections")
    return SearchQuery(
        query=values["query"],
        collections=tuple(slugs) if slugs is not None else None,
        k=values["k"],
        mode=values["mode"],
        rerank=values["rerank"],
        diversify=values["diversify"],
        expand=values["expand"],
        explain=values["explain"],
        **asked(
            filters=values.get("filters"),
            consistency=values["consistency"],
            min_versions=values.get("min_versions"),
            as_of=values.get("as_of"),
            partial=values["partial"],
        ),
    )


@contextmanager
def embedding() -> Iterator[None]:
    """A query that cannot be embedded is a Problem 503."""
    try:
        yield
    except EmbeddingError as error:
        raise Problem(503, "embedding_unavailable", f"The query cannot be embedded right now: {error.code}.")
