"""`/api/v1/queries`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from uuid import UUID

from django.http.response import HttpResponseBase
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, OpenApiTypes, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from apps.access.problems import Problem, invalid
from apps.access.throttling import meter_of
from apps.access.views import PAGED, TenantView
from apps.documents.embedding.openai_compatible import estimate_tokens

from . import following, progress, queries, sse
from .models import Query
from .progress import Position
from .serializers import AcceptedQuerySerializer, QueryRequestSerializer, QuerySerializer, answer_request

_EVENTS = OpenApiResponse(
    OpenApiTypes.STR,
    description="Events search_results, message {delta}, citation, restart, and last final_answer or error, each with "
    "an id.",
)
_LAST = OpenApiParameter(
    "Last-Event-ID", location=OpenApiParameter.HEADER, description="the id of the last event that was received"
)


class QueryList(TenantView):
    scope_needed = "read"
    query_names = {"GET": ("state", *PAGED)}

    @extend_schema(
        request=QueryRequestSerializer,
        responses={202: AcceptedQuerySerializer},
        examples=[OpenApiExample("a question", {"question": "When is an old version used?"}, request_only=True)],
    )
    def post(self, request: Request) -> Response:
        """Have a question answered by a worker.

        Once accepted it is answered whatever dies meanwhile. Where too much waits already: 503 with `Retry-After`.
        """
        values = self.validated(QueryRequestSerializer)
        if meter := meter_of(self.caller):
            meter.check(estimate_tokens(values["question"]))
        row = queries.accept(
            tenant_id=self.caller.tenant_id,
            request=answer_request(values),
            priority=values["priority"],
            key_id=self.caller.key_id,
        )
        return Response({"id": row.id, "state": row.state}, status=202)

    @extend_schema(
        parameters=[OpenApiParameter("state", enum=Query.State.values)], responses=QuerySerializer(many=True)
    )
    def get(self, request: Request) -> Response:
        """List the queries, newest first."""
        rows = Query.objects.select_related("answer")
        state = request.query_params.get("state")
        if state is not None:
            if state not in Query.State.values:
                raise invalid("/state", f"state is one of {', '.join(Query.State.values)}.")
            rows = rows.filter(state=state)
        return self.paged(rows, queries.show)


class QueryDetail(TenantView):
    scope_needed = "read"

    @extend_schema(responses=QuerySerializer)
    def get(self, request: Request, query_id: UUID) -> Response:
        """Get a query, with its answer when it is done."""
        return Response(queries.show(following.find(tenant_id=self.caller.tenant_id, query_id=query_id)))


class QueryEvents(TenantView):
    scope_needed = "read"

    @extend_schema(
        parameters=[_LAST],
        responses={
            (200, "text/event-stream"): _EVENTS,
            204: OpenApiResponse(description="The last event has been received."),
        },
    )
    def get(self, request: Request, query_id: UUID) -> HttpResponseBase:
        """Follow a query while it is answered; with `Last-Event-ID` from there on."""
        last = request.headers.get("Last-Event-ID")
        after = progress.parse(last) if last else None
        row = following.find(tenant_id=self.caller.tenant_id, query_id=query_id)
        if after is not None and following.has_heard_all(row, after):
            return Response(status=204)  # by which an EventSource knows that it need not come again
        return sse.response(_frames(row, after))


class QueryCancel(TenantView):
    scope_needed = "read"

    @extend_schema(request=None, responses=QuerySerializer)
    def post(self, request: Request, query_id: UUID) -> Response:
        """End a query that has not ended; a model that is writing its answer is stopped."""
        return _act(self, query_id, queries.cancel)


class QueryRetry(TenantView):
    scope_needed = "read"

    @extend_schema(request=None, responses=QuerySerializer)
    def post(self, request: Request, query_id: UUID) -> Response:
        """Have a failed or dead query answered after all."""
        return _act(self, query_id, queries.retry)


def _act(view: TenantView, query_id: UUID, verb: Callable[..., bool]) -> Response:
    """The query after the verb. Raises Problem 404, and 409 when its state does not allow it."""
    with view.scope():
        following.find(tenant_id=view.caller.tenant_id, query_id=query_id)
        done = verb(query_id=query_id)
        row = Query.objects.select_related("answer").get(id=query_id)
        if not done:
            raise Problem(409, "wrong_state", f"The query is {row.state}.")
        return Response(queries.show(row))


async def _frames(row: Query, after: Position | None) -> AsyncGenerator[str, None]:
    async with aclosing(following.follow(row, after)) as told:
        async for at, event in told:
            yield f"id: {at}\n{sse.frame(event.name, event.data)}"
