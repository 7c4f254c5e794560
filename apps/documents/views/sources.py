"""`/api/v1/sources`: where documents come from, syncing them, and the events of a feed."""

from __future__ import annotations

from functools import partial
from itertools import groupby
from typing import Any
from uuid import UUID

from django.http import StreamingHttpResponse
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from apps.access.problems import Problem, invalid
from apps.access.views import PAGED, PagesByKey, TenantView

from .. import remove
from ..accept import Submission
from ..models import Collection, Source, SourceItem, SyncRun
from ..serializers import (
    BulkResultSerializer,
    EventSerializer,
    SourceCreateSerializer,
    SourceItemSerializer,
    SourcePatchSerializer,
    SourceSerializer,
    SyncRequestSerializer,
    SyncRunSerializer,
)
from ..sources import runs, standing, verbs
from ..submission import from_values, load_line
from .bulk import put
from .ndjson import NDJSON, Line, NdjsonParser, Results, content_of, respond

_FOLDER = {
    "kind": "folder",
    "name": "Handbook",
    "collection": "handbook",
    "settings": {"path": "/srv/handbook", "include": ["**/*.md", "**/*.pdf"]},
    "schedule": "0 3 * * *",
}
_EVENTS = {"op": "upsert", "source_uri": "products/17", "version": 1041, "text": "A lamp.", "title": "Lamp"}


class SourceList(TenantView):
    query_names = {"GET": ("collection", "kind", *PAGED)}

    @extend_schema(
        parameters=[OpenApiParameter("collection"), OpenApiParameter("kind", enum=Source.Kind.values)],
        responses=SourceSerializer(many=True),
    )
    def get(self, request: Request) -> Response:
        """List the sources, newest first, each with its last result."""
        found = Source.objects.select_related("collection")
        if "collection" in request.query_params:
            found = found.filter(collection__slug=request.query_params["collection"])
        if "kind" in request.query_params:
            if request.query_params["kind"] not in Source.Kind.values:
                raise invalid("/kind", f"kind is one of {', '.join(Source.Kind.values)}.")
            found = found.filter(kind=request.query_params["kind"])
        return self.paged_together(found, verbs.show_all)

    @extend_schema(
        request=SourceCreateSerializer,
        responses={201: SourceSerializer},
        examples=[OpenApiExample("a folder, every night", _FOLDER, request_only=True)],
    )
    def post(self, request: Request) -> Response:
        """Create a source. Nothing is read before its first sync.

        A source is a `folder` of the server's, a bucket (`s3`), a site or sitemap (`web`), or a `feed`, whose events
        are sent. What each takes as `settings` is told in the how-to about sources.
        """
        values = self.validated(SourceCreateSerializer)
        with self.scope():
            made = verbs.create(tenant_id=self.caller.tenant_id, **{"settings": {}, **values})
            return Response(verbs.show(made), status=201)


class SourceDetail(TenantView):
    query_names = {"DELETE": ("documents",)}

    @extend_schema(responses=SourceSerializer)
    def get(self, request: Request, source_id: UUID) -> Response:
        """Get a source, with its last result."""
        with self.scope():
            return Response(verbs.show(verbs.find(source_id)))

    @extend_schema(
        request=SourcePatchSerializer,
        responses=SourceSerializer,
        examples=[OpenApiExample("every hour", {"schedule": "0 * * * *"}, request_only=True)],
    )
    def patch(self, request: Request, source_id: UUID) -> Response:
        """Change a source.

        A secret that is left out of the settings stays as it was. What the new settings leave out is deleted by the
        next sync.
        """
        values = self.validated(SourcePatchSerializer)
        with self.scope():
            return Response(verbs.show(verbs.change(source=verbs.find(source_id), values=values)))

    @extend_schema(
        parameters=[OpenApiParameter("documents", enum=["keep", "delete"], description="by default they are kept")],
        responses={204: None},
    )
    def delete(self, request: Request, source_id: UUID) -> Response:
        """Delete a source; its documents stay, or go with it, unless it is a feed."""
        documents = request.query_params.get("documents", "keep")
        if documents not in ("keep", "delete"):
            raise invalid("/documents", "documents is one of keep, delete.")
        with self.scope():
            verbs.delete(source=verbs.find(source_id), documents=documents == "delete")
        return Response(status=204)


class SourceSync(TenantView):
    @extend_schema(request=SyncRequestSerializer, responses={202: SyncRunSerializer})
    def post(self, request: Request, source_id: UUID) -> Response:
        """Read a source now: what is new or changed is accepted, what is gone is deleted.

        A source is never read twice at once. While it is, one more run may wait.
        """
        values = self.validated(SyncRequestSerializer)
        with self.scope():
            run = verbs.sync(source=verbs.find(source_id), empty_it=values["empty_it"])
            return Response(verbs.show_run(run), status=202)


class SourceCancel(TenantView):
    @extend_schema(request=None, responses=SourceSerializer)
    def post(self, request: Request, source_id: UUID) -> Response:
        """End the run that is under way, and the one that waits. What has been taken stays."""
        with self.scope():
            source = verbs.find(source_id)
            if not runs.cancel(source_id=source.id):
                raise Problem(409, "wrong_state", "No run is open.")
            return Response(verbs.show(source))


class SourceRuns(TenantView):
    query_names = {"GET": PAGED}

    @extend_schema(responses=SyncRunSerializer(many=True))
    def get(self, request: Request, source_id: UUID) -> Response:
        """List the runs of a source, newest first."""
        with self.scope():
            verbs.find(source_id)
        return self.paged(SyncRun.objects.filter(source_id=source_id), verbs.show_run)


class SourceItems(TenantView):
    pagination_class = PagesByKey
    query_names = {"GET": ("failed", *PAGED)}

    @extend_schema(
        parameters=[OpenApiParameter("failed", bool, description="only those that failed")],
        responses=SourceItemSerializer(many=True),
    )
    def get(self, request: Request, source_id: UUID) -> Response:
        """List the items that a source was last seen to hold, in the order of their names; of a feed, none.

        With `failed`, those that could not be taken when they were last read, and those whose document's newest version
        could not be parsed or indexed: all of them, whichever run met them first.
        """
        failed = request.query_params.get("failed", "false")
        if failed not in ("true", "false"):
            raise invalid("/failed", "failed is true or false.")
        with self.scope():
            source = verbs.find(source_id)
            items = SourceItem.objects.filter(source=source) if failed == "false" else standing.failed_items(source)
        return self.paged_together(items, verbs.show_items)


class SourceEvents(TenantView):
    parser_classes = [NdjsonParser]

    @extend_schema(
        request={NDJSON: EventSerializer},
        responses={(200, NDJSON): OpenApiResponse(BulkResultSerializer, "A result per line, in order.")},
        examples=[OpenApiExample("one line of many", _EVENTS, media_type=NDJSON, request_only=True)],
    )
    def post(self, request: Request, source_id: UUID) -> StreamingHttpResponse:
        """Send events of a feed, one JSON object per line: what has been changed, and what deleted, where the data is.

        `version` orders the events of a `source_uri`: a log position, or the row's own counter. Events may come late,
        twice and in any order; one that is not above the version that is known is answered with 409 `stale_version` and
        changes nothing. An upsert is all there is of a document: a title or metadata that it leaves out are gone.
        Answered like `POST /documents/bulk`; a delete with 200, and `unchanged` where it had been deleted before.
        """
        with self.scope():
            source = verbs.find(source_id)
        if source.kind != Source.Kind.FEED:
            raise Problem(409, "wrong_kind", "Events are for sources of the kind feed.")
        if not source.enabled:
            raise Problem(409, "disabled", "The source is switched off.")
        return respond(request, partial(_take, source.collection))


def _take(collection: Collection, lines: list[Line], results: Results) -> None:
    checker = EventSerializer()
    good: list[tuple[int, Submission | dict[str, Any]]] = []  # an upsert, or what a delete names
    for number, line in lines:
        try:
            event = checker.run_validation(load_line(content_of(line)))
            upsert = event.pop("op") == "upsert"
            good.append((number, from_values({"collection": collection.slug, **event})[2] if upsert else event))
        except Exception as error:
            results.refuse([number], error)
    for is_delete, same in groupby(good, key=lambda each: isinstance(each[1], dict)):
        numbers, events = zip(*same, strict=True)
        if is_delete:
            for number, event in zip(numbers, events, strict=True):
                _delete(collection, number, event, results)
            continue
        try:
            put(collection, numbers, events, None, results)
        except Exception as error:
            results.refuse(numbers, error)


def _delete(collection: Collection, number: int, event: dict[str, Any], results: Results) -> None:
    try:
        document, deleted = remove.delete_named(collection=collection, **event)
    except Exception as error:
        results.refuse([number], error)
        return
    told = {
        "id": document.id,
        "collection": collection.slug,
        "source_uri": event["source_uri"],
        "version": document.version,
        "live_version": None,
        "state": document.state,
        "unchanged": not deleted,
        "job": None,
    }
    results.tell(number, 200, told)
