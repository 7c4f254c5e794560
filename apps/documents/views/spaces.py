"""`/api/v1/spaces`: embedding spaces, and collections moved from one to another without a pause."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.core.exceptions import ValidationError
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from apps.access import tenancy
from apps.access.problems import invalid
from apps.access.views import PAGED, TenantView

from .. import ledger, second_space, spaces
from ..models import EmbeddingSpace
from ..space_serializers import CanarySerializer, SpaceCollectionsSerializer, SpaceCreateSerializer, SpaceSerializer

NARROWED = OpenApiExample("of some collections", {"collections": ["handbook"]}, request_only=True)


class SpaceList(TenantView):
    scope_needed = "admin"
    query_names = {"GET": PAGED}

    @extend_schema(responses=SpaceSerializer(many=True))
    def get(self, request: Request) -> Response:
        """List the embedding spaces, newest first, each with what your collections have to do with it."""
        return self.paged(EmbeddingSpace.objects.all(), second_space.show)

    @extend_schema(
        request=SpaceCreateSerializer,
        responses={201: SpaceSerializer},
        examples=[
            OpenApiExample(
                "a served model",
                {"slug": "large", "backend": "openai", "model": "BAAI/bge-m3", "dimensions": 1024},
                request_only=True,
            )
        ],
    )
    def post(self, request: Request) -> Response:
        """Create an embedding space, with a table and an index of its own. What is left out comes from the settings."""
        values = self.validated(SpaceCreateSerializer)
        try:
            made = spaces.create(**values)
        except ValidationError as error:
            detail = "; ".join(error.messages)
            if error.code == "taken":
                raise invalid("/slug", detail, status=409, code="slug_taken")
            raise invalid("/dimensions", detail)
        with self.scope():
            return Response(second_space.show(made), status=201)


class SpaceDetail(TenantView):
    scope_needed = "admin"

    @extend_schema(responses=SpaceSerializer)
    def get(self, request: Request, space_id: UUID) -> Response:
        """Get an embedding space, and how far it is built for your collections."""
        with self.scope():
            return Response(second_space.show(second_space.get(space_id)))


class SpaceVerb(TenantView):
    """What is done with a space and some or all of the tenant's collections: all of them in one transaction."""

    scope_needed = "admin"

    def act(self, space_id: UUID, verb: Callable[..., Any], **values: Any) -> EmbeddingSpace:
        space = second_space.get(space_id)
        slugs = values.pop("collections", None)
        # Again where somebody was publishing.
        tenancy.run(self.caller.tenant_id, lambda: verb(space=space, slugs=slugs, **values))
        return space

    def shown(self, space: EmbeddingSpace, *, status: int = 200) -> Response:
        with self.scope():
            return Response(second_space.show(second_space.get(space.id)), status=status)


class SpaceBuild(SpaceVerb):
    @extend_schema(request=SpaceCollectionsSerializer, responses={202: SpaceSerializer}, examples=[NARROWED])
    def post(self, request: Request, space_id: UUID) -> Response:
        """Build a space beside the one that serves collections (all, unless they are named).

        Workers give each chunk a vector in it, and whatever is published from now on goes into both. Asked again, it
        changes nothing. Progress: `GET /spaces/{id}`.
        """
        space = self.act(space_id, second_space.begin, **self.validated(SpaceCollectionsSerializer))
        ledger.wake("spaces")
        return self.shown(space, status=202)


class SpacePromote(SpaceVerb):
    @extend_schema(request=SpaceCollectionsSerializer, responses=SpaceSerializer, examples=[NARROWED])
    def post(self, request: Request, space_id: UUID) -> Response:
        """Let a space that is built serve the collections whose second it is, all of them or none.

        Refused (409 `space_incomplete`) while a chunk has no vector in it. The one that served stays up to date beside
        it, for `rollback`, until it is retired.
        """
        return self.shown(self.act(space_id, second_space.promote, **self.validated(SpaceCollectionsSerializer)))


class SpaceRollback(SpaceVerb):
    @extend_schema(request=SpaceCollectionsSerializer, responses=SpaceSerializer, examples=[NARROWED])
    def post(self, request: Request, space_id: UUID) -> Response:
        """Take the promotion of a space back: the ones before it serve again, with all that was written meanwhile."""
        return self.shown(self.act(space_id, second_space.rollback, **self.validated(SpaceCollectionsSerializer)))


class SpaceCanary(SpaceVerb):
    @extend_schema(request=CanarySerializer, responses=SpaceSerializer)
    def post(self, request: Request, space_id: UUID) -> Response:
        """Let a space that is built, but not promoted, answer a share of the queries, always the same ones.

        The metrics `rag_space_search_seconds` and `rag_space_searches_total` show both side by side.
        """
        return self.shown(self.act(space_id, second_space.canary, **self.validated(CanarySerializer)))


class SpaceRetire(SpaceVerb):
    @extend_schema(request=SpaceCollectionsSerializer, responses=SpaceSerializer, examples=[NARROWED])
    def post(self, request: Request, space_id: UUID) -> Response:
        """Delete the vectors of collections in a space that does not serve them: the one before a promotion, or one
        that is not wanted after all. Refused (409 `space_in_use`) where it serves."""
        space = self.act(space_id, second_space.retire, **self.validated(SpaceCollectionsSerializer))
        second_space.settle(space)
        return self.shown(space)
