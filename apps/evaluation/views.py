"""`/api/v1/evaluations`: labelled sets, and runs of them."""

from __future__ import annotations

from uuid import UUID

from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from apps.access.problems import Problem, invalid
from apps.access.views import PAGED, TenantView
from apps.documents import second_space
from apps.documents.space_serializers import SpaceCollectionsSerializer

from . import runs, space_check, stored, voted
from .models import EvaluationRun, EvaluationSet
from .serializers import (
    RunCreateSerializer,
    RunDetailSerializer,
    RunSerializer,
    SetCreateSerializer,
    SetDetailSerializer,
    SetSerializer,
    SpaceCheckSerializer,
)

_RUNS = EvaluationRun.objects.select_related("set")
_SET = {
    "name": "Opening hours",
    "collection": "library",
    "queries": [
        {
            "query": "When does the library close?",
            "answer": "closes at eight",
            "relevant": [{"source_uri": "notices/opening-hours", "grade": 1}],
        }
    ],
}


class SetList(TenantView):
    query_names = {"GET": PAGED}

    @extend_schema(responses=SetSerializer(many=True))
    def get(self, request: Request) -> Response:
        """List the labelled sets, newest first, each with its last run."""
        return self.paged(EvaluationSet.objects.all(), stored.show)

    @extend_schema(
        request=SetCreateSerializer,
        responses={201: SetDetailSerializer},
        examples=[OpenApiExample("one question", _SET, request_only=True)],
    )
    def post(self, request: Request) -> Response:
        """Create a labelled set: queries, and which documents of a collection are relevant to each.

        A document is named by its `source_uri` or its id; one that is not named is not relevant. A set is not changed:
        make another, so that the numbers of its runs can be compared.

        With `from_feedback` the queries are the questions with an answer that somebody voted up and nobody down, and
        relevant is what these answers cite.
        """
        values = self.validated(SetCreateSerializer)
        with self.scope():
            if values.pop("from_feedback"):
                values["queries"] = voted.queries(values["collection"])
            made = stored.create(tenant_id=self.caller.tenant_id, **values)
            return Response(_whole(made), status=201)


class SetDetail(TenantView):
    @extend_schema(responses=SetDetailSerializer)
    def get(self, request: Request, set_id: UUID) -> Response:
        """Get a labelled set with its queries."""
        with self.scope():
            return Response(_whole(stored.find(set_id)))

    @extend_schema(responses={204: None})
    def delete(self, request: Request, set_id: UUID) -> Response:
        """Delete a labelled set with its runs."""
        with self.scope():
            stored.find(set_id).delete()
        return Response(status=204)


class RunList(TenantView):
    query_names = {"GET": ("set", *PAGED)}

    @extend_schema(parameters=[OpenApiParameter("set", description="id of a set")], responses=RunSerializer(many=True))
    def get(self, request: Request) -> Response:
        """List the runs, newest first."""
        found = _RUNS.all()
        if "set" in request.query_params:
            try:
                found = found.filter(set_id=UUID(request.query_params["set"]))
            except ValueError:
                raise invalid("/set", "Must be a UUID.")
        return self.paged(found, runs.show)

    @extend_schema(
        request=RunCreateSerializer,
        responses={201: RunDetailSerializer, 202: RunDetailSerializer},
        examples=[OpenApiExample("a set", {"set": "7a0f2c44-8f0d-4a5e-9f5b-2f6d5a9d3c11", "k": 10}, request_only=True)],
    )
    def post(self, request: Request) -> Response:
        """Search for every query of a set, in each mode, and measure what is found.

        A small run is over when it is answered (201); a worker does a larger one (202): look at it again.
        """
        values = self.validated(RunCreateSerializer)
        with self.scope():
            run = runs.request(found=stored.find(values["set"]), modes=values["modes"], k=values["k"])
        runs.start(run)
        with self.scope():
            shown = _shown(run.id)
            return Response(shown, status=201 if shown["finished_at"] else 202)


class RunDetail(TenantView):
    @extend_schema(responses=RunDetailSerializer)
    def get(self, request: Request, run_id: UUID) -> Response:
        """Get a run: the means of each mode, and what came of each query."""
        with self.scope():
            return Response(_shown(run_id))


def _whole(found: EvaluationSet) -> dict:
    return stored.show(found) | {"labelled": stored.show_queries(found)}


def _shown(run_id: UUID) -> dict:
    run = _RUNS.filter(id=run_id).first()
    if run is None:
        raise Problem(404, "not_found", "There is no such run.")
    return runs.show(run) | {"results": runs.show_results(run)}


class SpaceCheck(TenantView):
    scope_needed = "admin"
    pagination_class = None

    @extend_schema(request=SpaceCollectionsSerializer, responses=SpaceCheckSerializer(many=True))
    def post(self, request: Request, space_id: UUID) -> Response:
        """Compare a space with the other one of the collections that have both, before one is promoted.

        Is the second complete, how often do both find the same, how often does each find what is certainly there; and
        the metrics of both on the labelled sets of the collection. Takes some hundred searches for each: seconds.
        """
        values = self.validated(SpaceCollectionsSerializer)
        with self.scope():
            asked = second_space.of_both(second_space.get(space_id), values.get("collections"))
        checked = [space_check.check(tenant_id=self.caller.tenant_id, collection=each.slug) for each in asked]
        return Response(checked)
