"""`POST /api/v1/search`."""

from __future__ import annotations

from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from apps.access.problems import Problem
from apps.access.views import TenantView
from apps.documents.embedding import EmbeddingError

from .asked import asked
from .freshness import search_fresh
from .serializers import ResultSerializer, SearchSerializer
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
        values = self.validated(SearchSerializer)
        slugs = values.get("collections")
        query = SearchQuery(
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
            ),
        )
        try:
            found = search_fresh(tenant_id=self.caller.tenant_id, query=query)
        except EmbeddingError as error:
            raise Problem(503, "embedding_unavailable", f"The query cannot be embedded right now: {error.code}.")
        return Response(found.as_json())
