"""`POST /api/v1/documents/bulk`: a document per line in, a result per line out, while lines still come."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import groupby
from uuid import UUID

from django.http import StreamingHttpResponse
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema
from rest_framework.request import Request

from apps.access import tenancy
from apps.access.problems import Problem
from apps.access.views import TenantView

from .. import bulk, collections
from ..accept import Submission
from ..models import Collection
from ..serializers import BulkResultSerializer, SubmissionSerializer
from ..submission import from_line
from .documents import answer
from .ndjson import NDJSON, Line, NdjsonParser, Results, content_of, respond, wait_for_room


class DocumentBulk(TenantView):
    parser_classes = [NdjsonParser]

    @extend_schema(
        request={NDJSON: SubmissionSerializer},
        responses={(200, NDJSON): OpenApiResponse(BulkResultSerializer, "A result per line, in order.")},
        examples=[
            OpenApiExample(
                "one line of many",
                {"collection": "ragsite-docs", "source_uri": "handbook/1", "text": "The office is closed today."},
                media_type=NDJSON,
                request_only=True,
            )
        ],
    )
    def post(self, request: Request) -> StreamingHttpResponse:
        """Add many documents, one JSON object per line.

        Each line is a body of `POST /documents` with a `text`, each line of the response what that would answer, or a
        problem document, with its `status` and the number of the `line`. A bad line fails alone. Results come in order,
        while lines are still being sent. When the connection breaks, what was not answered may or may not have been
        accepted; sent again it is `unchanged`, or accepted now. A line has at most 16 MiB.
        """
        return respond(request, partial(_take, self.caller.tenant_id))


def _take(tenant_id: UUID, lines: list[Line], results: Results) -> None:
    checker = SubmissionSerializer(context={"form": False})
    good: list[tuple[int, str, str | None, Submission]] = []
    for number, line in lines:
        try:
            slug, mode, submission, _ = from_line(content_of(line), checker)
            good.append((number, slug, mode, submission))
        except Exception as error:
            results.refuse([number], error)
    for (slug, mode), same in groupby(good, key=lambda each: each[1:3]):
        numbers, _, _, submissions = zip(*same, strict=True)
        try:
            with tenancy.scope(tenant_id):
                collection = collections.find(slug, writing=True)
            put(collection, numbers, submissions, mode, results)
        except Exception as error:
            results.refuse(numbers, error)


def put(
    collection: Collection,
    numbers: Sequence[int],
    submissions: Sequence[Submission],
    mode: str | None,
    results: Results,
) -> None:
    """Accept the documents of these lines; through, where that is the collection's mode or asked for."""
    through = (mode or collection.consistency_mode) == Collection.Mode.WRITE_THROUGH
    if not through:
        wait_for_room()
    accepted = bulk.put(collection=collection, submissions=submissions, through=through)
    for number, result in zip(numbers, accepted, strict=True):
        if isinstance(result, Problem):
            results.refuse([number], result)
        else:
            results.tell(number, *answer(result, collection, through=through))
