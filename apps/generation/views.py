"""`/api/v1/answers`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from uuid import UUID

from django.http.response import HttpResponseBase
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, OpenApiTypes, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from apps.access.problems import invalid
from apps.access.throttling import meter_of
from apps.access.views import PAGED, TenantView

from . import answers, feedback, records, reports, sse
from .answers import Prepared
from .models import Feedback, WeeklyReport
from .serializers import (
    AnswerRequestSerializer,
    AnswerSerializer,
    ExportedFeedbackSerializer,
    FeedbackCreateSerializer,
    FeedbackSerializer,
    ReplaySerializer,
    ReportDetailSerializer,
    ReportSerializer,
    VerificationSerializer,
    answer_request,
)

_STREAM = OpenApiResponse(
    OpenApiTypes.STR,
    description="With `stream`: events search_results, message {delta}, citation, final_answer, error.",
)


class AnswerList(TenantView):
    scope_needed = "read"

    @extend_schema(
        request=AnswerRequestSerializer,
        responses={(200, "application/json"): AnswerSerializer, (200, "text/event-stream"): _STREAM},
        examples=[OpenApiExample("a question", {"question": "When is an old version used?"}, request_only=True)],
    )
    def post(self, request: Request) -> HttpResponseBase:
        """Answer a question from the documents, every statement with its source."""
        values = self.validated(AnswerRequestSerializer)
        asked, meter = answer_request(values), meter_of(self.caller)
        if not values["stream"]:
            return Response(answers.answer(tenant_id=self.caller.tenant_id, request=asked, meter=meter))
        prepared = answers.prepare(tenant_id=self.caller.tenant_id, request=asked, meter=meter)
        return sse.response(_frames(prepared, getattr(request, "request_id", "")))


class AnswerDetail(TenantView):
    scope_needed = "read"

    @extend_schema(responses=AnswerSerializer)
    def get(self, request: Request, answer_id: UUID) -> Response:
        """Get a stored answer, as it was given."""
        return Response(records.stored(tenant_id=self.caller.tenant_id, answer_id=answer_id))


class AnswerVerification(TenantView):
    scope_needed = "read"

    @extend_schema(responses=VerificationSerializer)
    def get(self, request: Request, answer_id: UUID) -> Response:
        """Check every citation of a stored answer against the text as it is stored now."""
        return Response(records.check(tenant_id=self.caller.tenant_id, answer_id=answer_id))


class AnswerReplay(TenantView):
    scope_needed = "read"

    @extend_schema(request=ReplaySerializer, responses=AnswerSerializer)
    def post(self, request: Request, answer_id: UUID) -> Response:
        """Answer a stored answer's question again, from the same passages as they were, and tell the difference.

        Newer versions of the sources change nothing; a source that has been deleted since is refused with 409
        `sources_gone`. The replay is an answer of its own, stored like any other.
        """
        model = self.validated(ReplaySerializer).get("model")
        meter = meter_of(self.caller)
        return Response(answers.replay(tenant_id=self.caller.tenant_id, answer_id=answer_id, model=model, meter=meter))


class AnswerFeedback(TenantView):
    scope_needed = "read"

    @extend_schema(
        request=FeedbackCreateSerializer,
        responses={201: FeedbackSerializer},
        examples=[
            OpenApiExample(
                "a complaint", {"rating": "down", "comment": "Too old.", "tags": ["dated"]}, request_only=True
            )
        ],
    )
    def post(self, request: Request, answer_id: UUID) -> Response:
        """Say whether an answer was good. What the same key has said of it before is replaced."""
        values = self.validated(FeedbackCreateSerializer)
        given = feedback.give(tenant_id=self.caller.tenant_id, key_id=self.caller.key_id, answer_id=answer_id, **values)
        return Response(feedback.show(given), status=201)


class FeedbackList(TenantView):
    query_names = {"GET": ("rating", "tag", *PAGED)}

    @extend_schema(
        parameters=[
            OpenApiParameter("rating", enum=Feedback.Rating.values),
            OpenApiParameter("tag", description="feedback that has this tag"),
        ],
        responses=ExportedFeedbackSerializer(many=True),
    )
    def get(self, request: Request) -> Response:
        """Export feedback, newest first, each with the question and the answer that it is about."""
        rating, tag = (request.query_params.get(name) for name in ("rating", "tag"))
        if rating is not None and rating not in Feedback.Rating.values:
            raise invalid("/rating", f"rating is one of {', '.join(Feedback.Rating.values)}.")
        return self.paged(feedback.found(rating=rating, tag=tag), feedback.show_with_answer)


class ReportList(TenantView):
    query_names = {"GET": PAGED}

    @extend_schema(responses=ReportSerializer(many=True))
    def get(self, request: Request) -> Response:
        """List the weekly reports of questions that were answered badly, newest first."""
        return self.paged(WeeklyReport.objects.all(), reports.show)


class ReportDetail(TenantView):
    @extend_schema(responses=ReportDetailSerializer)
    def get(self, request: Request, report_id: UUID) -> Response:
        """Get a weekly report: which answers were voted down, are hardly grounded, or say that the sources do not tell.

        What has been removed since, with its sources or by its age, is counted and not listed.
        """
        with self.scope():
            found = reports.find(report_id)
            return Response(reports.show(found) | {"low": reports.show_listed(found)})


async def _frames(prepared: Prepared, request_id: str) -> AsyncGenerator[str, None]:
    async with aclosing(answers.events(prepared, request_id=request_id)) as events:
        async for event in events:
            yield sse.frame(event.name, event.data)
