"""`/api/v1/answers`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from uuid import UUID

from django.http.response import HttpResponseBase
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, OpenApiTypes, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from apps.access.rendering import AlwaysJson
from apps.access.views import TenantView

from . import answers, records, sse
from .answers import Prepared
from .serializers import (
    AnswerRequestSerializer,
    AnswerSerializer,
    ReplaySerializer,
    VerificationSerializer,
    answer_request,
)

_STREAM = OpenApiResponse(
    OpenApiTypes.STR,
    description="With `stream`: events search_results, message {delta}, citation, final_answer, error.",
)


class AnswerList(TenantView):
    scope_needed = "read"
    content_negotiation_class = AlwaysJson

    @extend_schema(
        request=AnswerRequestSerializer,
        responses={(200, "application/json"): AnswerSerializer, (200, "text/event-stream"): _STREAM},
        examples=[OpenApiExample("a question", {"question": "When is an old version used?"}, request_only=True)],
    )
    def post(self, request: Request) -> HttpResponseBase:
        """Answer a question from the documents, every statement with its source."""
        values = self.validated(AnswerRequestSerializer)
        asked = answer_request(values)
        if not values["stream"]:
            return Response(answers.answer(tenant_id=self.caller.tenant_id, request=asked))
        prepared = answers.prepare(tenant_id=self.caller.tenant_id, request=asked)
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
        return Response(answers.replay(tenant_id=self.caller.tenant_id, answer_id=answer_id, model=model))


async def _frames(prepared: Prepared, request_id: str) -> AsyncGenerator[str, None]:
    async with aclosing(answers.events(prepared, request_id=request_id)) as events:
        async for event in events:
            yield sse.frame(event.name, event.data)
