"""`/api/v1/reindexes`: runs through a collection, asked for, watched, paused and cancelled."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from apps.access.problems import Problem, invalid
from apps.access.views import PAGED, TenantView

from .. import collections, reindex
from ..models import Reindex
from ..serializers import ReindexRequestSerializer, ReindexSerializer

RUNS = Reindex.objects.select_related("collection")


class ReindexList(TenantView):
    query_names = {"GET": ("collection", "state", *PAGED)}

    @extend_schema(
        parameters=[
            OpenApiParameter("collection", description="slug"),
            OpenApiParameter("state", enum=Reindex.State.values),
        ],
        responses=ReindexSerializer(many=True),
    )
    def get(self, request: Request) -> Response:
        """List the reindexing runs, newest first."""
        runs = RUNS.all()
        parameters = request.query_params
        if "state" in parameters:
            if parameters["state"] not in Reindex.State.values:
                raise invalid("/state", f"state is one of {', '.join(Reindex.State.values)}.")
            runs = runs.filter(state=parameters["state"])
        if "collection" in parameters:
            runs = runs.filter(collection__slug=parameters["collection"])
        return self.paged(runs, lambda run: ReindexSerializer(reindex.show(run)).data)

    @extend_schema(
        request=ReindexRequestSerializer,
        responses={202: ReindexSerializer},
        examples=[OpenApiExample("what is outdated", {"collection": "handbook"}, request_only=True)],
    )
    def post(self, request: Request) -> Response:
        """Read and cut a collection's documents anew, in the background.

        Those that another parser or other settings than today's have made, or `everything`. Searches find the old
        chunks of a document until its new ones are ready. A change of the chunking settings asks for this by itself.
        """
        values = self.validated(ReindexRequestSerializer)
        with self.scope():
            collection = collections.find(values["collection"], writing=True)
            run = reindex.request(collection=collection, everything=values["everything"])
            return Response(_shown(run.id), status=202)


class ReindexDetail(TenantView):
    @extend_schema(responses=ReindexSerializer)
    def get(self, request: Request, run_id: UUID) -> Response:
        """Get a reindexing run and how far it is."""
        with self.scope():
            return Response(_shown(run_id))


class ReindexPause(TenantView):
    @extend_schema(request=None, responses=ReindexSerializer)
    def post(self, request: Request, run_id: UUID) -> Response:
        """Pause a run: what it has queued ends, no more is queued."""
        return _act(self, run_id, reindex.pause)


class ReindexResume(TenantView):
    @extend_schema(request=None, responses=ReindexSerializer)
    def post(self, request: Request, run_id: UUID) -> Response:
        """Let a paused run go on where it stopped."""
        return _act(self, run_id, reindex.resume)


class ReindexCancel(TenantView):
    @extend_schema(request=None, responses=ReindexSerializer)
    def post(self, request: Request, run_id: UUID) -> Response:
        """End a run and what it has queued; documents that have been done stay so."""
        return _act(self, run_id, reindex.cancel)


def _act(view: TenantView, run_id: UUID, verb: Callable[..., bool]) -> Response:
    """The run after the verb. Raises Problem 404, and 409 when its state does not allow it."""
    with view.scope():
        done, shown = verb(run_id=run_id), _shown(run_id)
        if not done:
            raise Problem(409, "wrong_state", f"The run is {shown['state']}.")
        return Response(shown)


def _shown(run_id: UUID) -> dict:
    run = RUNS.filter(id=run_id).first()
    if run is None:
        raise Problem(404, "not_found", "There is no such run.")
    return ReindexSerializer(reindex.show(run)).data
