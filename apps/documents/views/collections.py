"""`/api/v1/collections`."""

from __future__ import annotations

from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from apps.access import tenancy
from apps.access.views import PAGED, TenantView

from .. import collections
from ..models import Collection
from ..serializers import CollectionCreateSerializer, CollectionPatchSerializer, CollectionSerializer


class CollectionList(TenantView):
    query_names = {"GET": PAGED}

    @extend_schema(responses=CollectionSerializer(many=True))
    def get(self, request: Request) -> Response:
        """List the collections."""
        return self.paged(Collection.objects.select_related("space", "second_space"), collections.show)

    @extend_schema(
        request=CollectionCreateSerializer,
        responses={201: CollectionSerializer},
        examples=[OpenApiExample("two names are enough", {"slug": "handbook", "name": "Handbook"}, request_only=True)],
    )
    def post(self, request: Request) -> Response:
        """Create a collection."""
        values = self.validated(CollectionCreateSerializer)
        with self.scope():
            made = collections.create(tenant_id=self.caller.tenant_id, **values)
            return Response(collections.show(made), status=201)


class CollectionDetail(TenantView):
    @extend_schema(responses=CollectionSerializer)
    def get(self, request: Request, slug: str) -> Response:
        """Get a collection."""
        with self.scope():
            return Response(collections.show(collections.find(slug)))

    @extend_schema(
        request=CollectionPatchSerializer,
        responses=CollectionSerializer,
        examples=[OpenApiExample("rename", {"name": "Staff handbook"}, request_only=True)],
    )
    def patch(self, request: Request, slug: str) -> Response:
        """Change a collection's settings.

        Documents that are there already are cut anew in the background when the chunking changes (`reindex`).
        """
        values = self.validated(CollectionPatchSerializer)
        with self.scope():
            changed = collections.change(collection=collections.find(slug), values=values)
            return Response(collections.show(changed))

    @extend_schema(responses={204: None})
    def delete(self, request: Request, slug: str) -> Response:
        """Delete a collection and all that is in it."""
        # Again where a document that came meanwhile was being published.
        tenancy.run(self.caller.tenant_id, lambda: collections.remove(collection=collections.find(slug)))
        return Response(status=204)
