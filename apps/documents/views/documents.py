"""`/api/v1/documents`."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote, urlencode
from uuid import UUID

from django.http import StreamingHttpResponse
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, OpenApiTypes, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from apps.access import tenancy
from apps.access.problems import invalid
from apps.access.serializers import FormParser, JsonParser
from apps.access.views import MAX_PAGE, PAGED, OwnPages, TenantView

from .. import collections, db, ledger, queries, write_through
from ..accept import Accepted, accept
from ..edit import edit
from ..models import Collection, Document
from ..remove import delete
from ..serializers import (
    AcceptedSerializer,
    ChunkSerializer,
    DocumentPatchSerializer,
    DocumentSerializer,
    SubmissionSerializer,
    TextSerializer,
    VersionSerializer,
)
from ..submission import from_request

AT_LEAST_ONE = {"type": "integer", "minimum": 1}
SHA256 = re.compile(r"[0-9a-fA-F]{64}")


_SUBMISSION = {
    "collection": "ragsite-docs",
    "source_uri": "handbook/holidays",
    "text": "The office is closed on 24 December.",
    "mode": "write_through",
}


class DocumentList(TenantView):
    parser_classes = [JsonParser, FormParser]
    query_names = {"GET": ("collection", "state", "source_uri", "metadata.*", *PAGED)}
    max_body_bytes = None  # asgi.py bounds it; the document itself is bounded in submission.py

    @extend_schema(
        parameters=[
            OpenApiParameter("collection"),
            OpenApiParameter("state", enum=Document.State.values),
            OpenApiParameter("source_uri"),
        ],
        responses=DocumentSerializer(many=True),
    )
    def get(self, request: Request) -> Response:
        """List documents, newest first.

        `metadata.<key>=<value>` finds those whose metadata has this value.
        """
        with self.scope():
            slug = request.query_params.get("collection")
            if slug is not None:
                collections.find(slug)
            found = queries.documents(request.query_params.dict())
        return self.paged(found, queries.show)

    @extend_schema(
        request={"application/json": SubmissionSerializer, "multipart/form-data": SubmissionSerializer},
        responses={
            200: OpenApiResponse(AcceptedSerializer, "The content is the same as before."),
            201: OpenApiResponse(AcceptedSerializer, "Live, with `write_through`."),
            202: OpenApiResponse(AcceptedSerializer, "Accepted; `job` tells when it is live."),
        },
        examples=[
            OpenApiExample("live when it answers", _SUBMISSION, media_type="application/json", request_only=True)
        ],
    )
    def post(self, request: Request) -> Response:
        """Add a document, or a new version of one.

        A document is known by its `source_uri`, or by its `id`. With a `version` a late, older write is refused with
        409 and changes nothing.
        """
        slug, mode, submission, size = from_request(request)
        with self.scope():
            collection = collections.find(slug, writing=True)
            through = (mode or collection.consistency_mode) == Collection.Mode.WRITE_THROUGH
            hold = through and size <= write_through.INLINE_BYTES
            if not hold:
                ledger.refuse_overload()
            accepted = accept(collection=collection, submission=submission, hold=hold)
        document = accepted.document
        if through and not write_through.is_live(document):
            dead = write_through.run([(accepted, submission)], collection=collection)[0]
            if dead is not None:
                raise write_through.refusal(dead, pointer="/file" if request.FILES else "/text")
        status, body = answer(accepted, collection, through=through)
        return Response(body, status=status)


def answer(accepted: Accepted, collection: Collection, *, through: bool) -> tuple[int, dict[str, Any]]:
    """(HTTP status, body) for a document that was accepted."""
    document = accepted.document
    body = {
        "id": document.id,
        "collection": collection.slug,
        "source_uri": document.source_uri,
        "version": document.version,
        "live_version": document.live_version,
        "state": document.state,
        "unchanged": accepted.unchanged,
        "job": accepted.job.id if accepted.job else None,
    }
    live = through and write_through.is_live(document)
    return 200 if accepted.unchanged else 201 if live else 202, body


class DocumentDetail(TenantView):
    query_names = {"DELETE": ("version", "erase")}

    @extend_schema(responses=DocumentSerializer)
    def get(self, request: Request, document_id: UUID) -> Response:
        """Get a document."""
        with self.scope():
            return Response(queries.show(queries.document(document_id)))

    @extend_schema(request=DocumentPatchSerializer, responses=DocumentSerializer)
    def patch(self, request: Request, document_id: UUID) -> Response:
        """Change a document's title or metadata, without a new version."""
        values = self.validated(DocumentPatchSerializer)
        with self.scope():
            edit(document_id, values)
            return Response(queries.show(queries.document(document_id)))

    @extend_schema(
        parameters=[
            OpenApiParameter("version", AT_LEAST_ONE, description="the delete event's own number"),
            OpenApiParameter("erase", bool, description="also remove its versions and all else that holds its content"),
        ],
        responses={204: None},
    )
    def delete(self, request: Request, document_id: UUID) -> Response:
        """Delete a document.

        Its number stays: a late write at or below it is refused, a higher one brings it back. With `erase` nothing of
        its content is left in the database: versions, vectors, the original, answers that were made from it.
        """
        erase = request.query_params.get("erase", "false")
        if erase not in ("true", "false"):
            raise invalid("/erase", "erase is true or false.")
        version = self.query_number("version", at_least=1)
        tenant_id = self.caller.tenant_id
        delete(tenant_id=tenant_id, document_id=document_id, version=version, erase=erase == "true")
        return Response(status=204)


class VersionList(TenantView):
    query_names = {"GET": ("limit", "before")}
    pagination_class = OwnPages

    @extend_schema(
        parameters=[
            OpenApiParameter("limit", AT_LEAST_ONE),
            OpenApiParameter("before", AT_LEAST_ONE, description="from `next`"),
        ],
        responses=VersionSerializer(many=True),
    )
    def get(self, request: Request, document_id: UUID) -> Response:
        """List a document's versions, newest first."""
        limit = min(self.query_number("limit", 50, at_least=1) or 50, MAX_PAGE)
        before = self.query_number("before", at_least=1)
        with self.scope():
            queries.document(document_id)
            found = queries.versions(document_id)
            if before is not None:
                found = found.filter(version__lt=before)
            rows = list(found[: limit + 1])
        following = _link(request, limit=limit, before=rows[limit - 1].version) if len(rows) > limit else None
        results = VersionSerializer(rows[:limit], many=True).data
        return Response({"results": results, "next": following, "previous": None})


class VersionDetail(TenantView):
    @extend_schema(responses=VersionSerializer)
    def get(self, request: Request, document_id: UUID, version: int) -> Response:
        """Get a version."""
        with self.scope():
            return Response(VersionSerializer(queries.version(document_id, version)).data)


class VersionText(TenantView):
    query_names = {"GET": ("start", "end", "revision", "sha256")}

    @extend_schema(
        parameters=[
            *(OpenApiParameter(name, {"type": "integer", "minimum": 0}) for name in ("start", "end")),
            OpenApiParameter(
                "revision", {"type": "integer", "minimum": 0}, description="as it was then; else as it is now"
            ),
            OpenApiParameter(
                "sha256", description="as it was in the newest revision in which the span has this SHA-256, in hex"
            ),
        ],
        responses=TextSerializer,
    )
    def get(self, request: Request, document_id: UUID, version: int) -> Response:
        """Get the normalised text of a version, or a part of it in code points, with its SHA-256.

        A reindex may replace the text by a newer parser's: what a citation points to is found by its `revision`, or by
        its `sha256`.
        """
        start, end, revision = (self.query_number(name) for name in ("start", "end", "revision"))
        sha256 = request.query_params.get("sha256")
        if sha256 is not None and (revision is not None or not SHA256.fullmatch(sha256)):
            raise invalid("/sha256", "sha256 is 64 hexadecimal digits, and goes without revision.")
        with self.scope():
            found = queries.text(document_id, version, start=start, end=end, revision=revision, sha256=sha256)
            return Response(found)


class ChunkList(TenantView):
    query_names = {"GET": ("version", "limit", "after")}
    pagination_class = OwnPages

    @extend_schema(
        parameters=[
            OpenApiParameter("version", AT_LEAST_ONE),
            OpenApiParameter("limit", AT_LEAST_ONE),
            OpenApiParameter("after", {"type": "integer", "minimum": 0}, description="from `next`"),
        ],
        responses=ChunkSerializer(many=True),
    )
    def get(self, request: Request, document_id: UUID) -> Response:
        """List the chunks of the live version, or of another, with their places in it."""
        version = self.query_number("version", at_least=1)
        limit = min(self.query_number("limit", 100, at_least=1) or 100, MAX_PAGE)
        after = self.query_number("after", 0) or 0
        with self.scope():
            queries.document(document_id)
            rows, following = queries.chunks(document_id, version, after=after, limit=limit)
        parameters: dict[str, Any] = {"version": version} if version else {}
        link = _link(request, limit=limit, after=following, **parameters) if following is not None else None
        return Response({"results": rows, "next": link, "previous": None})


class OriginalFile(TenantView):
    query_names = {"GET": ("version",)}

    @extend_schema(
        parameters=[OpenApiParameter("version", AT_LEAST_ONE)],
        responses={(200, "*/*"): OpenApiTypes.BINARY},
    )
    def get(self, request: Request, document_id: UUID) -> StreamingHttpResponse:
        """Get the bytes that were sent."""
        number = self.query_number("version", at_least=1)
        tenant_id = self.caller.tenant_id
        with self.scope():
            found = queries.version(document_id, number or queries.document(document_id).version)
        # As a download, never rendered: a stored HTML page must not run in this site's origin.
        response = StreamingHttpResponse(_parts(tenant_id, document_id, found.version), content_type=found.media_type)
        name = quote(found.filename or f"{document_id}-v{found.version}")
        response["Content-Disposition"] = f"attachment; filename*=UTF-8''{name}"
        response["Content-Length"] = str(found.bytes)
        return response


def _parts(tenant_id: UUID, document_id: UUID, version: int) -> Any:
    part = 0
    while True:
        with tenancy.scope(tenant_id):
            found = db.rows("blob_part", document=document_id, version=version, part=part)
        if not found:
            return
        yield bytes(found[0][0])
        part += 1


def _link(request: Request, **parameters: Any) -> str:
    return request.build_absolute_uri(request.path) + "?" + urlencode(parameters)
